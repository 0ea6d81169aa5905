//! `--network user`: which helper lends a run the caller's own network, and how that is called.
//!
//! A helper takes packets from a tap device in the container's namespace, and sends what is in them through ordinary
//! sockets of the caller's: the container reaches what its caller reaches, and no privilege over the host is needed. Looks
//! programs and ports up; starts nothing.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::publish::Published;
use crate::spec::network::{Asked, Ports, Protocol, Publish};
use crate::sys::{SysError, probe};

/// A run that cannot be lent its caller's network.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No helper is installed.
    #[error("`--network user` needs `pasta` or `slirp4netns`, and neither is in {}", shown(.searched))]
    NoHelper {
        /// The folders that were looked in, as `PATH` has them.
        searched: OsString,
    },
    /// The device that helpers work with cannot be opened.
    #[error("`--network user` needs {TUN}, which cannot be opened")]
    Tun(#[source] SysError),
    /// A port on an address that the helper cannot have ports on.
    #[error("`slirp4netns` publishes ports on IPv4 addresses of the host only, and {address} is none")]
    OnlyIpv4 {
        /// The address.
        address: IpAddr,
    },
    /// A port of the host that cannot be had.
    #[error("cannot publish port {port}/{protocol} of the host")]
    Port {
        /// Which.
        port: u16,
        /// What runs over it.
        protocol: Protocol,
        /// Why.
        #[source]
        failed: io::Error,
    },
}

/// The device that helpers work with.
pub const TUN: &str = "/dev/net/tun";

fn shown(searched: &OsStr) -> String {
    match searched.is_empty() {
        true => "`PATH`, which is empty".into(),
        false => format!("`{}`", crate::path::shown(searched.as_encoded_bytes())),
    }
}

/// A program that lends a network namespace the caller's network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Helper {
    /// Which one.
    pub kind: Kind,
    /// Where it is.
    pub path: PathBuf,
}

/// The helpers that there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// pasta(1): the container has the host's own addresses.
    Pasta,
    /// slirp4netns(1): the container has addresses of its own, behind the host's.
    Slirp,
}

impl Kind {
    /// Those that are looked for, the best first.
    pub const ALL: [Self; 2] = [Self::Pasta, Self::Slirp];

    /// Returns the name of the program.
    pub const fn program(self) -> &'static str {
        match self {
            Self::Pasta => "pasta",
            Self::Slirp => "slirp4netns",
        }
    }
}

impl Helper {
    /// Looks for one in the folders that `search` lists, as `PATH` does.
    pub fn find(search: &OsStr) -> Option<Self> {
        Kind::ALL.into_iter().find_map(|kind| {
            let mut folders = std::env::split_paths(search).filter(|folder| folder.is_absolute());
            let path = folders
                .find_map(|folder| Some(folder.join(kind.program())).filter(|path| is_program(path)))?;
            Some(Self { kind, path })
        })
    }
}

fn is_program(path: &Path) -> bool {
    fs_err::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// How a run's helper is called. Its `Display` is the call, without the namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uplink {
    /// The helper.
    pub helper: Helper,
    /// The ports that it passes on.
    pub forwards: Vec<Published>,
    host_loopback: bool,
}

impl Uplink {
    /// Decides how what is `asked` is had. Ports that are left to mk are chosen here.
    pub fn decide(asked: &Asked) -> Result<Self, Error> {
        let helper = Helper::find(&asked.helpers).ok_or_else(|| Error::NoHelper {
            searched: asked.helpers.clone(),
        })?;
        probe::opens(Path::new(TUN)).map_err(Error::Tun)?;
        let mut forwards = Vec::new();
        for publish in &asked.publish {
            if let (Kind::Slirp, Some(address @ IpAddr::V6(_))) = (helper.kind, publish.address) {
                return Err(Error::OnlyIpv4 { address });
            }
            forwards.extend(settle(publish)?);
        }
        Ok(Self {
            helper,
            forwards,
            host_loopback: asked.host_loopback,
        })
    }

    /// Returns the arguments of the helper for the network namespace that the file `namespace` is, the program's name
    /// first. pasta(1) goes into the background when all is in place; slirp4netns(1) says so on its standard input.
    pub fn arguments(&self, namespace: &str) -> Vec<String> {
        let mut words = vec![self.helper.kind.program().to_owned()];
        let mut say = |more: &[&str]| words.extend(more.iter().map(|word| (*word).to_owned()));
        match self.helper.kind {
            Kind::Pasta => {
                say(&["--quiet", "--config-net", "--ns-ifname", INTERFACE]);
                // All is set when the command starts; nothing is left to be told.
                say(&["--no-dhcp", "--no-dhcpv6", "--no-ra", "--no-netns-quit"]);
                // Otherwise the ports of the host's loopback appear on the container's.
                say(&["--tcp-ns", "none", "--udp-ns", "none"]);
                if !self.host_loopback {
                    say(&["--no-map-gw"]);
                }
                for (option, protocol) in [("--tcp-ports", Protocol::Tcp), ("--udp-ports", Protocol::Udp)] {
                    let mut ports: Vec<String> = self.forwards_of(protocol).map(pasta_ports).collect();
                    if ports.is_empty() {
                        // Otherwise every port that is bound inside appears on the host.
                        ports.push("none".into());
                    }
                    ports.iter().for_each(|ports| say(&[option, ports]));
                }
                // As nobody, which it prefers to root, it could not go into a namespace of root's. What it does not need it
                // gives up by itself.
                say(&["--runas", "0:0", "--netns", namespace]);
            }
            Kind::Slirp => {
                say(&["--configure", "--mtu=65520", "--enable-ipv6", "--disable-dns"]);
                say(&["--enable-sandbox", "--enable-seccomp"]);
                if !self.host_loopback {
                    say(&["--disable-host-loopback"]);
                }
                if !self.forwards.is_empty() {
                    say(&["--api-socket", SOCKET]);
                }
                say(&["--ready-fd=0", "--netns-type=path", namespace, INTERFACE]);
            }
        }
        words
    }

    fn forwards_of(&self, protocol: Protocol) -> impl Iterator<Item = &Published> {
        self.forwards
            .iter()
            .filter(move |forward| forward.protocol == protocol)
    }

    /// Returns what slirp4netns(1) is asked on its socket, one request at a time: a port each.
    pub fn requests(&self) -> Vec<String> {
        if self.helper.kind != Kind::Slirp {
            return Vec::new();
        }
        self.forwards.iter().flat_map(requests).collect()
    }
}

/// The interface inside.
const INTERFACE: &str = "eth0";
/// The socket of slirp4netns(1), in its working folder.
pub const SOCKET: &str = "slirp";

impl fmt::Display for Uplink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words = self.arguments("NAMESPACE");
        words[0] = self.helper.path.display().to_string();
        f.write_str(&words.join(" "))
    }
}

/// What pasta(1) calls a forward: `[ADDRESS/]PORTS:PORTS`.
fn pasta_ports(forward: &Published) -> String {
    let address = forward.address.map(|address| format!("{address}/"));
    format!(
        "{}{}:{}",
        address.unwrap_or_default(),
        forward.host,
        forward.inside
    )
}

fn requests(forward: &Published) -> impl Iterator<Item = String> {
    let Published {
        address,
        host,
        inside,
        protocol,
    } = *forward;
    let address = address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    (host.first..=host.last)
        .zip(inside.first..=inside.last)
        .map(move |(host, inside)| {
            format!(
                r#"{{"execute":"add_hostfwd","arguments":{{"proto":"{protocol}","host_addr":"{address}","host_port":{host},"guest_port":{inside}}}}}"#
            )
        })
}

/// Returns what `publish` asks for with its ports of the host chosen, each of which was free a moment ago. The helper
/// binds them, so they cannot be held until then.
fn settle(publish: &Publish) -> Result<Vec<Published>, Error> {
    let Publish {
        address,
        host,
        inside,
        protocol,
    } = *publish;
    if let Some(host) = host {
        for port in host.first..=host.last {
            free_port(address, port, protocol)?;
        }
        return Ok(vec![Published {
            address,
            host,
            inside,
            protocol,
        }]);
    }
    let forward = |port| {
        let host = free_port(address, 0, protocol)?;
        let single = |port| Ports {
            first: port,
            last: port,
        };
        Ok(Published {
            address,
            host: single(host),
            inside: single(port),
            protocol,
        })
    };
    (inside.first..=inside.last).map(forward).collect()
}

/// Binds `port`, or any where that is 0, and lets go of it; returns which it was.
fn free_port(address: Option<IpAddr>, port: u16, protocol: Protocol) -> Result<u16, Error> {
    let bind = |address: IpAddr, port: u16| {
        bind(SocketAddr::new(address, port), protocol).map_err(|failed| Error::Port {
            port,
            protocol,
            failed,
        })
    };
    if let Some(address) = address {
        return bind(address, port);
    }
    let port = bind(Ipv4Addr::UNSPECIFIED.into(), port)?;
    match bind(Ipv6Addr::UNSPECIFIED.into(), port) {
        Err(Error::Port { failed, .. }) if failed.raw_os_error() == Some(AFNOSUPPORT) => Ok(port),
        bound => bound,
    }
}

/// How long a port that is taken is waited for: a helper that is killed with its mk has gone some milliseconds later.
const PATIENCE: Duration = Duration::from_millis(300);

fn bind(address: SocketAddr, protocol: Protocol) -> io::Result<u16> {
    let begin = Instant::now();
    loop {
        let bound = match protocol {
            Protocol::Tcp => TcpListener::bind(address).and_then(|socket| socket.local_addr()),
            Protocol::Udp => UdpSocket::bind(address).and_then(|socket| socket.local_addr()),
        };
        match bound {
            Err(taken) if taken.kind() == io::ErrorKind::AddrInUse && begin.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(2));
            }
            bound => return bound.map(|bound| bound.port()),
        }
    }
}

/// `EAFNOSUPPORT`: a kernel without IPv6.
const AFNOSUPPORT: i32 = 97;

#[cfg(test)]
mod tests {
    use super::*;

    fn uplink(kind: Kind, publish: &[&str], host_loopback: bool) -> Uplink {
        let forwards = publish.iter().map(|text| {
            let Publish {
                address,
                host,
                inside,
                protocol,
            } = text.parse().unwrap();
            Published {
                address,
                host: host.unwrap(),
                inside,
                protocol,
            }
        });
        Uplink {
            helper: Helper {
                kind,
                path: Path::new("/usr/bin").join(kind.program()),
            },
            forwards: forwards.collect(),
            host_loopback,
        }
    }

    #[test]
    fn pasta_is_told_every_port_and_that_no_other_is_to_be_passed_on() {
        assert_eq!(
            uplink(Kind::Pasta, &[], false).to_string(),
            "/usr/bin/pasta --quiet --config-net --ns-ifname eth0 --no-dhcp --no-dhcpv6 --no-ra --no-netns-quit \
             --tcp-ns none --udp-ns none --no-map-gw --tcp-ports none --udp-ports none --runas 0:0 --netns NAMESPACE"
        );
        let ports = ["8080:80", "127.0.0.1:90-92:190-192", "[::1]:53:5353/udp"];
        let words = uplink(Kind::Pasta, &ports, true).to_string();
        assert!(
            words.contains("--udp-ns none --tcp-ports 8080:80 --tcp-ports 127.0.0.1/90-92:190-192 --udp-ports ::1/53:5353"),
            "{words}"
        );
        assert!(!words.contains("--no-map-gw"), "{words}");
    }

    #[test]
    fn slirp_is_asked_for_each_port_on_its_socket() {
        assert_eq!(
            uplink(Kind::Slirp, &[], false).to_string(),
            "/usr/bin/slirp4netns --configure --mtu=65520 --enable-ipv6 --disable-dns --enable-sandbox \
             --enable-seccomp --disable-host-loopback --ready-fd=0 --netns-type=path NAMESPACE eth0"
        );
        let asked = uplink(Kind::Slirp, &["90-91:190-191", "127.0.0.1:53:5353/udp"], false);
        assert!(asked.to_string().contains("--api-socket slirp"));
        let expected = [
            r#"{"execute":"add_hostfwd","arguments":{"proto":"tcp","host_addr":"0.0.0.0","host_port":90,"guest_port":190}}"#,
            r#"{"execute":"add_hostfwd","arguments":{"proto":"tcp","host_addr":"0.0.0.0","host_port":91,"guest_port":191}}"#,
            r#"{"execute":"add_hostfwd","arguments":{"proto":"udp","host_addr":"127.0.0.1","host_port":53,"guest_port":5353}}"#,
        ];
        assert_eq!(asked.requests(), expected);
        assert_eq!(uplink(Kind::Pasta, &["90:190"], false).requests(), [""; 0]);
    }

    #[test]
    fn the_first_helper_that_can_be_executed_is_taken() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let place = |folder: &Path, name: &str, mode: u32| {
            fs_err::write(folder.join(name), "").unwrap();
            fs_err::set_permissions(folder.join(name), PermissionsExt::from_mode(mode)).unwrap();
        };
        let search = std::env::join_paths([Path::new("relative"), one.path(), two.path()]).unwrap();
        assert_eq!(Helper::find(&search), None);
        place(one.path(), "slirp4netns", 0o755);
        place(one.path(), "pasta", 0o644);
        assert_eq!(Helper::find(&search).unwrap().kind, Kind::Slirp);
        place(two.path(), "pasta", 0o755);
        assert_eq!(Helper::find(&search).unwrap().path, two.path().join("pasta"));
    }

    #[test]
    fn without_a_helper_it_is_said_where_one_was_looked_for() {
        let asked = Asked {
            helpers: "/nowhere:/else".into(),
            ..Asked::default()
        };
        assert_eq!(
            Uplink::decide(&asked).unwrap_err().to_string(),
            "`--network user` needs `pasta` or `slirp4netns`, and neither is in `/nowhere:/else`"
        );
        assert!(
            Uplink::decide(&Asked::default())
                .unwrap_err()
                .to_string()
                .ends_with("`PATH`, which is empty")
        );
    }

    #[test]
    fn a_port_that_is_taken_is_refused_and_one_that_is_left_to_mk_is_free() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let publish = |text: String| settle(&text.parse().unwrap());
        let refused = publish(format!("127.0.0.1:{port}:80")).unwrap_err();
        assert!(
            matches!(refused, Error::Port { port: named, .. } if named == port),
            "{refused}"
        );
        let chosen = publish("127.0.0.1::80-81".into()).unwrap();
        assert_eq!(chosen.len(), 2);
        for (forward, inside) in chosen.iter().zip([80, 81]) {
            assert!(forward.host.first > 0 && forward.inside.first == inside);
        }
    }
}
