//! [`Reserved`]: ports of the host that nobody else gets any more.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use super::{Error, Holder, Published, holder, place};
use crate::spec::network::{Ports, Protocol, Publish};
use crate::sys::{Errno, SysError, port};

/// Ports that are held, and lead nowhere yet. Dropped, they are free again.
#[derive(Debug)]
pub struct Reserved {
    pub(super) sockets: Vec<OwnedFd>,
    pub(super) published: Vec<Published>,
}

impl Reserved {
    /// Holds the ports of `asked`, and chooses those that were left open; `ipv6` says whether the container has an
    /// IPv6 address.
    pub fn take(asked: &[Publish], ipv6: bool) -> Result<Self, Error> {
        let mut taken = Self {
            sockets: Vec::new(),
            published: Vec::new(),
        };
        check(asked, ipv6)?;
        let ipv6 = ipv6 && (asked.is_empty() || port::has_ipv6());
        let count = asked.iter().map(|one| one.inside.count() as usize).sum();
        // Those that were named first, so that no free one is chosen among them.
        let (named, free): (Vec<_>, Vec<_>) = asked.iter().partition(|one| one.host.is_some());
        for one in named.into_iter().chain(free) {
            taken.add(one, ipv6).map_err(|error| match error {
                Error::Hold { failed, .. } if matches!(failed.errno, Errno::MFILE | Errno::NFILE) => {
                    Error::TooMany { count, failed }
                }
                other => other,
            })?;
        }
        Ok(taken)
    }

    /// Returns which ports they are.
    pub fn published(&self) -> &[Published] {
        &self.published
    }

    fn add(&mut self, asked: &Publish, ipv6: bool) -> Result<(), Error> {
        let Publish {
            address, protocol, ..
        } = *asked;
        if let Some(host) = asked.host {
            for port in host.first..=host.last {
                self.sockets.push(hold(address, port, protocol, ipv6)?);
            }
            self.published.push(Published::of(asked, host, asked.inside));
            return Ok(());
        }
        for inside in asked.inside.first..=asked.inside.last {
            let socket = hold(address, 0, protocol, ipv6)?;
            let found = port::number(&socket).map_err(|error| failed(address, 0, protocol, error))?;
            let one = |port| Ports {
                first: port,
                last: port,
            };
            self.sockets.push(socket);
            self.published.push(Published::of(asked, one(found), one(inside)));
        }
        Ok(())
    }
}

/// Refuses what is wrong by itself.
fn check(asked: &[Publish], ipv6: bool) -> Result<(), Error> {
    let named: Vec<Published> = asked
        .iter()
        .filter_map(|one| Some(Published::of(one, one.host?, one.inside)))
        .collect();
    for (at, one) in named.iter().enumerate() {
        if let Some(other) = named[..at].iter().find(|other| other.overlaps(one)) {
            let port = one.host.first.max(other.host.first);
            return Err(Error::Twice {
                place: place(one.address, port, one.protocol),
            });
        }
    }
    match asked.iter().find_map(|one| one.address) {
        Some(IpAddr::V6(address)) if !ipv6 => Err(Error::NoIpv6 { address }),
        _ => Ok(()),
    }
}

/// How long a container, whose mk was killed, may take to be gone.
const LAST_MOMENTS: Duration = Duration::from_millis(300);

fn hold(address: Option<IpAddr>, number: u16, protocol: Protocol, ipv6: bool) -> Result<OwnedFd, Error> {
    let any: IpAddr = match ipv6 {
        true => Ipv6Addr::UNSPECIFIED.into(),
        false => Ipv4Addr::UNSPECIFIED.into(),
    };
    let at = SocketAddr::new(address.unwrap_or(any), number);
    let begun = Instant::now();
    loop {
        let error = match port::hold(protocol.into(), at, address.is_none() && ipv6) {
            Ok(socket) => return Ok(socket),
            Err(error) => failed(address, number, protocol, error),
        };
        let leaving = match &error {
            Error::Taken { holder, .. } => holder.as_ref().is_none_or(Holder::is_reaper),
            _ => false,
        };
        if !leaving || begun.elapsed() > LAST_MOMENTS {
            return Err(error);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Says why a port cannot be held.
pub(super) fn failed(address: Option<IpAddr>, number: u16, protocol: Protocol, failed: SysError) -> Error {
    let place = place(address, number, protocol);
    match (failed.errno, address) {
        (Errno::ADDRINUSE, _) => Error::Taken {
            place,
            port: number,
            protocol,
            holder: holder::of(protocol, address, number),
        },
        (Errno::ACCESS, _) => Error::Denied { place },
        (Errno::ADDRNOTAVAIL | Errno::AFNOSUPPORT, Some(address)) => Error::NotOwn { address },
        // A link-local address means nothing without its link.
        (Errno::INVAL, Some(address)) => Error::NotOwn { address },
        _ => Error::Hold { place, failed },
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    fn take(asked: &[&str], ipv6: bool) -> Result<Reserved, Error> {
        let asked: Vec<Publish> = asked.iter().map(|text| text.parse().unwrap()).collect();
        Reserved::take(&asked, ipv6)
    }

    #[test]
    fn a_reserved_port_is_nobody_else_s_until_it_is_dropped() {
        for protocol in ["tcp", "udp"] {
            let reserved = take(&[&format!("127.0.0.1::80/{protocol}")], false).unwrap();
            let port = reserved.published()[0].host.first;
            let again = format!("127.0.0.1:{port}:80/{protocol}");
            for socket in &reserved.sockets {
                if protocol == "tcp" {
                    port::close_to_others(socket).unwrap();
                }
            }
            match take(&[&again], false).unwrap_err() {
                Error::Taken {
                    holder: Some(holder), ..
                } => assert_eq!(holder.pid, std::process::id() as i32),
                other => panic!("{other:?}"),
            }
            let bound = match protocol {
                "tcp" => TcpListener::bind(("127.0.0.1", port)).map(drop),
                _ => UdpSocket::bind(("127.0.0.1", port)).map(drop),
            };
            assert_eq!(bound.unwrap_err().kind(), std::io::ErrorKind::AddrInUse);
            drop(reserved);
            take(&[&again], false).unwrap();
        }
    }

    #[test]
    fn free_ports_are_as_many_as_are_asked_for_and_all_different() {
        let reserved = take(&["127.0.0.1::80-89", "127.0.0.1::53/udp"], false).unwrap();
        let published = reserved.published();
        assert_eq!(published.len(), 11);
        let mut ports: Vec<u16> = published[..10].iter().map(|one| one.host.first).collect();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 10);
        assert!(published.iter().all(|one| one.host.first > 0));
        assert_eq!(published[10].inside.first, 53);
    }

    #[test]
    fn a_port_of_all_addresses_is_taken_by_whoever_has_it_of_one() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let error = take(&[&format!("{port}:80")], true).unwrap_err();
        let said = error.to_string();
        let expected = format!(
            "port {port}/tcp of the host is taken by {}",
            holder::of(Protocol::Tcp, None, port).unwrap()
        );
        assert_eq!(said, expected);
    }

    #[test]
    fn what_cannot_be_published_is_refused_with_the_reason() {
        for (asked, ipv6, said) in [
            (
                &["8080:80", "127.0.0.1:8080:81"][..],
                true,
                "port 127.0.0.1:8080/tcp of the host is to be published twice",
            ),
            (
                &["8000-8010:8000-8010", "8005:80"],
                true,
                "port 8005/tcp of the host is to be published twice",
            ),
            (
                &["[::1]::80"],
                false,
                "cannot publish a port at `::1`: the network has no IPv6",
            ),
            (
                &["203.0.113.77::80"],
                true,
                "cannot publish a port at `203.0.113.77`: the host has no such address",
            ),
        ] {
            assert_eq!(take(asked, ipv6).unwrap_err().to_string(), said);
        }
    }
}
