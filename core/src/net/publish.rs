//! Ports of the host that lead into a container ([`Reserved`], [`Open`]).
//!
//! A port is published by rules in a table of nf_tables that belongs to a socket, and by a socket that is bound to the
//! port, so that nothing else gets it. Whoever holds these files keeps the port published; nobody has to clean up.
//! No process carries the traffic: who comes from outside is seen inside with the true address.
//!
//! What a program of the host sends to 127.0.0.1 and `::1` goes inside as well, with another source, because an answer
//! to that one would not come back: for IPv4 the bridge's address, which connection tracking puts there and takes away
//! again. The kernel drops what it translates back to `::1` on another interface than the loopback; so such packets
//! have both addresses and the port rewritten, to and from [`table::face`], one address for each port of the host.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use serde::{Deserialize, Serialize};

use crate::spec::network::{Ports, Protocol, Publish};
use crate::sys::netfilter::{self, conntrack};
use crate::sys::{SysError, file, port};

/// Who has a port already.
pub mod holder;
/// The sockets that hold ports.
mod reserve;
/// The rules.
pub mod table;

pub use holder::Holder;
pub use reserve::Reserved;
pub use table::{FACES, FACES_PREFIX, Target};

/// Ports that cannot be published.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Somebody has it.
    #[error("port {place} of the host is taken{}", by(.holder.as_ref()))]
    Taken {
        /// The port, with address and protocol.
        place: String,
        /// The port's number.
        port: u16,
        /// What runs over it.
        protocol: Protocol,
        /// Who has it, where that can be seen.
        holder: Option<Holder>,
    },
    /// Two of those asked for are the same.
    #[error("port {place} of the host is to be published twice")]
    Twice {
        /// The port, with address and protocol.
        place: String,
    },
    /// An address that the host does not have.
    #[error("cannot publish a port at `{address}`: the host has no such address")]
    NotOwn {
        /// As asked for.
        address: IpAddr,
    },
    /// An IPv6 address for a container that has none.
    #[error("cannot publish a port at `{address}`: the network has no IPv6")]
    NoIpv6 {
        /// As asked for.
        address: Ipv6Addr,
    },
    /// A port that is not for everybody.
    #[error("port {place} of the host is not for this user")]
    Denied {
        /// The port, with address and protocol.
        place: String,
    },
    /// More ports than files can be open.
    #[error("cannot publish {count} ports: each takes an open file")]
    TooMany {
        /// How many were asked for.
        count: usize,
        /// Why.
        #[source]
        failed: SysError,
    },
    /// A port cannot be held for another reason.
    #[error("cannot hold port {place} of the host")]
    Hold {
        /// The port, with address and protocol.
        place: String,
        /// Why.
        #[source]
        failed: SysError,
    },
    /// The rules cannot be made.
    #[error("cannot lead ports of the host into the container")]
    Rules(#[source] netfilter::Error),
    /// There is no name for the table.
    #[error("cannot name a table")]
    Name(#[source] SysError),
}

fn by(holder: Option<&Holder>) -> String {
    holder.map(|holder| format!(" by {holder}")).unwrap_or_default()
}

/// Ports of the host that lead to a container's, as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// The host's address; `None`: all of them, of both families.
    pub address: Option<IpAddr>,
    /// The host's.
    pub host: Ports,
    /// The container's, as many.
    pub inside: Ports,
    /// What runs over them.
    pub protocol: Protocol,
}

/// What a person reads: `127.0.0.1:8080->80/tcp`.
impl fmt::Display for Published {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            None => {}
            Some(IpAddr::V4(address)) => write!(f, "{address}:")?,
            Some(IpAddr::V6(address)) => write!(f, "[{address}]:")?,
        }
        write!(f, "{}->{}/{}", self.host, self.inside, self.protocol)
    }
}

impl Published {
    /// Returns each port of the host with the one that it leads to.
    pub fn pairs(self) -> impl Iterator<Item = (u16, u16)> {
        (self.host.first..=self.host.last).zip(self.inside.first..=self.inside.last)
    }

    /// Whether `port` over `protocol` is one of the host's.
    pub fn has(&self, protocol: Protocol, port: u16) -> bool {
        self.protocol == protocol && (self.host.first..=self.host.last).contains(&port)
    }

    /// Whether it has a port of the host in common with `other`.
    fn overlaps(&self, other: &Self) -> bool {
        let addresses = match (self.address, other.address) {
            (Some(one), Some(two)) => {
                one == two || one.is_ipv4() == two.is_ipv4() && (one.is_unspecified() || two.is_unspecified())
            }
            _ => true,
        };
        addresses
            && self.protocol == other.protocol
            && self.host.first <= other.host.last
            && other.host.first <= self.host.last
    }

    fn of(asked: &Publish, host: Ports, inside: Ports) -> Self {
        Self {
            address: asked.address,
            host,
            inside,
            protocol: asked.protocol,
        }
    }
}

/// Returns the port as it is told of.
fn place(address: Option<IpAddr>, port: u16, protocol: Protocol) -> String {
    match address {
        None => format!("{port}/{protocol}"),
        Some(IpAddr::V4(address)) => format!("{address}:{port}/{protocol}"),
        Some(IpAddr::V6(address)) => format!("[{address}]:{port}/{protocol}"),
    }
}

impl From<Protocol> for port::Protocol {
    fn from(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Tcp => Self::Tcp,
            Protocol::Udp => Self::Udp,
        }
    }
}

impl From<Ports> for netfilter::Ports {
    fn from(ports: Ports) -> Self {
        Self {
            first: ports.first,
            last: ports.last,
        }
    }
}

/// Ports that lead into a container for as long as somebody holds [`Open::files`].
#[derive(Debug)]
pub struct Open {
    /// The first to go: as long as it is there, nobody else has use for the ports.
    table: OwnedFd,
    sockets: Vec<OwnedFd>,
    published: Vec<Published>,
}

impl Open {
    /// Returns what must stay open.
    pub fn files(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.sockets.iter().chain([&self.table]).map(AsFd::as_fd)
    }

    /// Returns which ports they are.
    pub fn published(&self) -> &[Published] {
        &self.published
    }
}

impl Reserved {
    /// Has the ports lead to `target`.
    pub fn open(self, target: &Target) -> Result<Open, Error> {
        let Self { sockets, published } = self;
        let name = format!("mk-p-{:016x}", file::random().map_err(Error::Name)?);
        let table = table::table(name, &published, target)
            .make()
            .map_err(Error::Rules)?;
        // Only now, when nothing comes to it any more.
        for (socket, at) in sockets.iter().zip(ports(&published)) {
            if at.1 == Protocol::Tcp {
                port::close_to_others(socket).map_err(|failed| reserve::failed(at.0, at.2, at.1, failed))?;
            }
        }
        forget(&published);
        Ok(Open {
            table,
            sockets,
            published,
        })
    }
}

/// Writes what will be published as one would type it; which port is free is seen when it is taken.
pub(super) fn show(f: &mut fmt::Formatter<'_>, asked: &[Publish], target: &Target) -> fmt::Result {
    let (named, free): (Vec<&Publish>, Vec<&Publish>) = asked.iter().partition(|one| one.host.is_some());
    for one in free {
        writeln!(
            f,
            "# free ports of the host for {}/{}: as below",
            one.inside, one.protocol
        )?;
    }
    let named: Vec<Published> = named
        .into_iter()
        .filter_map(|one| Some(Published::of(one, one.host?, one.inside)))
        .collect();
    if named.is_empty() {
        return Ok(());
    }
    writeln!(f, "# ports, for as long as the container holds the table")?;
    let table = table::table("mk-p-$RANDOM".into(), &named, target);
    writeln!(f, "nft -i <<END\n{table}END")
}

/// Returns each port of the host, in order: its address, its protocol, its number.
fn ports(published: &[Published]) -> impl Iterator<Item = (Option<IpAddr>, Protocol, u16)> {
    published
        .iter()
        .flat_map(|one| (one.host.first..=one.host.last).map(|port| (one.address, one.protocol, port)))
}

/// Has what was sent to these ports of the host before begin anew: it would go where it went. Where the kernel cannot
/// do that, it forgets by itself what nobody has used for some time (nf_conntrack_udp_timeout).
fn forget(published: &[Published]) {
    for one in published {
        let is_meant = |known: &conntrack::Connection| {
            let at = match one.address {
                Some(address) if !address.is_unspecified() => known.destination == address,
                _ => true,
            };
            // What goes out through this machine to such a port elsewhere is nobody's but theirs.
            at && (known.answers != known.destination || port::is_own(known.destination))
        };
        let _ = conntrack::forget(one.protocol.into(), one.host.into(), is_meant);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn published(text: &str, host: u16) -> Published {
        let asked: Publish = text.parse().unwrap();
        let host = asked.host.unwrap_or(Ports {
            first: host,
            last: host,
        });
        Published::of(&asked, host, asked.inside)
    }

    #[test]
    fn what_is_published_reads_from_the_host_to_the_container() {
        for (text, shown) in [
            ("8080:80", "8080->80/tcp"),
            ("127.0.0.1:53:53/udp", "127.0.0.1:53->53/udp"),
            ("[::1]:8080:80", "[::1]:8080->80/tcp"),
            ("8000-8002:9000-9002", "8000-8002->9000-9002/tcp"),
        ] {
            assert_eq!(published(text, 0).to_string(), shown);
        }
        let pairs: Vec<_> = published("8000-8002:9000-9002", 0).pairs().collect();
        assert_eq!(pairs, [(8000, 9000), (8001, 9001), (8002, 9002)]);
    }

    #[test]
    fn the_same_port_is_told_from_another() {
        for (one, two, same) in [
            ("80:80", "80:81", true),
            ("80:80", "81:80", false),
            ("80:80", "80:80/udp", false),
            ("127.0.0.1:80:80", "80:80", true),
            ("127.0.0.1:80:80", "127.0.0.2:80:80", false),
            ("127.0.0.1:80:80", "0.0.0.0:80:80", true),
            ("127.0.0.1:80:80", "[::]:80:80", false),
            ("80-90:80-90", "90-95:1-6", true),
            ("80-90:80-90", "91-95:1-5", false),
        ] {
            let (left, right) = (published(one, 0), published(two, 0));
            assert_eq!(left.overlaps(&right), same, "{one} {two}");
            assert_eq!(right.overlaps(&left), same, "{two} {one}");
        }
    }

    #[test]
    fn what_is_published_comes_back_from_json() {
        let one = published("[::1]:8080:80", 0);
        let json = serde_json::to_string(&one).unwrap();
        assert_eq!(
            json,
            r#"{"address":"::1","host":{"first":8080,"last":8080},"inside":{"first":80,"last":80},"protocol":"tcp"}"#
        );
        assert_eq!(serde_json::from_str::<Published>(&json).unwrap(), one);
    }
}
