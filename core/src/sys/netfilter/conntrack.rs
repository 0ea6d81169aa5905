//! Connections that the kernel knows of (linux/netfilter/nfnetlink_conntrack.h). Where a packet goes is decided for the
//! first of a connection, and a connection of UDP lasts as long as somebody goes on sending: one that began before a
//! rule was there does not hear of it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;

use super::encode::{NLM_F_DUMP, NLMSG_DONE, NLMSG_ERROR, attribute, message, nest};
use super::socket::{self, Progress};
use super::{Error, Ports, Protocol};
use crate::sys::SysError;

const NFNL_SUBSYS_CTNETLINK: u16 = 1;
const IPCTNL_MSG_CT_NEW: u16 = 0;
const IPCTNL_MSG_CT_GET: u16 = 1;
const IPCTNL_MSG_CT_DELETE: u16 = 2;
const NLM_F_ACK: u16 = 0x4;

const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_ZONE: u16 = 18;
const CTA_FILTER: u16 = 25;
const CTA_FILTER_ORIG_FLAGS: u16 = 1;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_IP_V6_DST: u16 = 4;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_DST_PORT: u16 = 3;

const HEADER: usize = 4;

/// A connection, as whoever began it sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// Where its first packet was sent.
    pub destination: IpAddr,
    /// To which port.
    pub port: u16,
    /// Who answers: another than the destination, where that was changed.
    pub answers: IpAddr,
    /// The attributes that name it, and its family.
    key: Vec<u8>,
    family: u8,
}

/// Has the kernel forget the connections to one of `ports` for which `is_meant` holds; the next packet of each begins
/// it anew. Returns how many they were.
pub fn forget(
    protocol: Protocol,
    ports: Ports,
    mut is_meant: impl FnMut(&Connection) -> bool,
) -> Result<usize, Error> {
    let socket = socket::open()?;
    let mut forgotten = 0;
    for family in [nix::libc::AF_INET as u8, nix::libc::AF_INET6 as u8] {
        let mut found = list(&socket, family, protocol, ports)?;
        found.retain(|one| (ports.first..=ports.last).contains(&one.port) && is_meant(one));
        for one in &found {
            delete(&socket, one)?;
        }
        forgotten += found.len();
    }
    Ok(forgotten)
}

/// Returns the connections of `family`; the kernel leaves out others than those to `ports` where that is one (Linux
/// 5.8), and may leave out none.
fn list(socket: &OwnedFd, family: u8, protocol: Protocol, ports: Ports) -> Result<Vec<Connection>, Error> {
    // CTA_FILTER_F_CTA_PROTO_NUM and …_PROTO_DST_PORT.
    const BY_PROTOCOL: u32 = 1 << 3;
    const BY_PORT: u32 = 1 << 5;
    let number: u8 = match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
    };
    let one = ports.first == ports.last;
    let mut question = Vec::new();
    let kind = NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET;
    message(&mut question, kind, NLM_F_DUMP, 0, [family, 0, 0, 0], |out| {
        nest(out, CTA_TUPLE_ORIG, |out| {
            nest(out, CTA_TUPLE_PROTO, |out| {
                attribute(out, CTA_PROTO_NUM, |out| out.push(number));
                if one {
                    attribute(out, CTA_PROTO_DST_PORT, |out| {
                        out.extend_from_slice(&ports.first.to_be_bytes());
                    });
                }
            });
        });
        nest(out, CTA_FILTER, |out| {
            let flags = BY_PROTOCOL | if one { BY_PORT } else { 0 };
            attribute(out, CTA_FILTER_ORIG_FLAGS, |out| {
                out.extend_from_slice(&flags.to_ne_bytes());
            });
        });
    });
    socket::send(socket, &question)?;
    let mut found = Vec::new();
    let mut failed = None;
    socket::receive(socket, |kind, _, body| {
        if kind == NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_NEW {
            found.extend(connection(family, number, body.get(HEADER..).unwrap_or_default()));
        }
        failed = socket::told(kind, body);
        Ok(match matches!(kind, NLMSG_DONE | NLMSG_ERROR) {
            true => Progress::Done,
            false => Progress::More,
        })
    })?;
    match failed {
        None => Ok(found),
        Some(errno) => Err(Error::Sys(SysError::new(
            errno,
            "send(nfnetlink, IPCTNL_MSG_CT_GET)",
        ))),
    }
}

fn delete(socket: &OwnedFd, one: &Connection) -> Result<(), Error> {
    let mut order = Vec::new();
    let kind = NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_DELETE;
    message(&mut order, kind, NLM_F_ACK, 0, [one.family, 0, 0, 0], |out| {
        out.extend_from_slice(&one.key);
    });
    socket::send(socket, &order)?;
    // That it has ended by itself meanwhile is as good.
    socket::receive(socket, |_, _, _| Ok(Progress::Done))
}

/// Reads what the kernel says of a connection; nothing where that is one of another protocol.
fn connection(family: u8, protocol: u8, attributes: &[u8]) -> Option<Connection> {
    let (original, raw) = find(attributes, CTA_TUPLE_ORIG)?;
    let mut key = raw.to_vec();
    if let Some((_, zone)) = find(attributes, CTA_ZONE) {
        key.extend_from_slice(zone);
    }
    let (ports, _) = find(original, CTA_TUPLE_PROTO)?;
    if find(ports, CTA_PROTO_NUM)?.0 != [protocol] {
        return None;
    }
    let (port, _) = find(ports, CTA_PROTO_DST_PORT)?;
    let (reply, _) = find(attributes, CTA_TUPLE_REPLY)?;
    Some(Connection {
        destination: address(original, CTA_IP_V4_DST, CTA_IP_V6_DST)?,
        port: u16::from_be_bytes(port.try_into().ok()?),
        answers: address(reply, CTA_IP_V4_SRC, CTA_IP_V6_SRC)?,
        key,
        family,
    })
}

fn address(tuple: &[u8], v4: u16, v6: u16) -> Option<IpAddr> {
    let (ip, _) = find(tuple, CTA_TUPLE_IP)?;
    if let Some((bytes, _)) = find(ip, v4) {
        let octets: [u8; 4] = bytes.try_into().ok()?;
        return Some(Ipv4Addr::from(octets).into());
    }
    let octets: [u8; 16] = find(ip, v6)?.0.try_into().ok()?;
    Some(Ipv6Addr::from(octets).into())
}

/// Returns what the attribute `kind` holds, and the whole of it, padded.
fn find(mut attributes: &[u8], kind: u16) -> Option<(&[u8], &[u8])> {
    /// The two highest bits say how it is to be read (`NLA_TYPE_MASK`).
    const KIND: u16 = 0x3fff;
    loop {
        let header = attributes.first_chunk::<4>()?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let padded = length.next_multiple_of(4);
        let value = attributes.get(HEADER..length)?;
        if u16::from_ne_bytes([header[2], header[3]]) & KIND == kind {
            return Some((value, attributes.get(..padded)?));
        }
        attributes = attributes.get(padded..)?;
    }
}

#[cfg(test)]
#[expect(clippy::print_stderr, reason = "a skipped test says so")]
mod tests {
    use std::net::UdpSocket;

    use super::super::{Action, Chain, DSTNAT, Hook, Kind, Match, Rule, Table};
    use super::*;
    use crate::sys::namespace::{Namespaces, loopback_up};
    use crate::sys::probe;

    /// In a network namespace of its own, whose loopback is up.
    fn apart(work: impl FnOnce() + Send + 'static) {
        let thread = std::thread::spawn(|| match probe::unshare(Namespaces::NET) {
            Ok(()) => {
                loopback_up().unwrap();
                work();
            }
            Err(failed) => eprintln!("skipped: needs root, for a network namespace: {failed}"),
        });
        thread.join().unwrap();
    }

    #[test]
    fn connections_to_a_port_are_found_and_forgotten_and_others_stay() {
        apart(|| {
            let rule = |port| {
                Rule::new(
                    [Match::Port(Protocol::Udp, Ports::one(port))],
                    Action::Dnat("127.0.0.1".parse().unwrap(), Some(Ports::one(9))),
                )
            };
            let table = Table {
                name: "mk-test".into(),
                owned: true,
                chains: vec![Chain {
                    name: "output",
                    kind: Kind::Nat,
                    hook: Hook::Output,
                    priority: DSTNAT,
                    rules: vec![rule(5353), rule(5354)],
                }],
            };
            let _owner = table.make().unwrap();
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            for port in [5353, 5354, 5355] {
                // The answer that nobody is there comes with the next one.
                let _ = socket.send_to(b"x", ("127.0.0.2", port));
            }
            let mut seen = Vec::new();
            let range = Ports {
                first: 5353,
                last: 5355,
            };
            let none = forget(Protocol::Udp, range, |one| {
                seen.push((one.port, one.destination.to_string(), one.answers.to_string()));
                false
            });
            assert_eq!(none.unwrap(), 0);
            seen.sort_unstable();
            let expected = [(5353, "127.0.0.1"), (5354, "127.0.0.1"), (5355, "127.0.0.2")]
                .map(|(port, answers)| (port, "127.0.0.2".to_owned(), answers.to_owned()));
            assert_eq!(seen, expected);
            let one = Ports::one(5353);
            assert_eq!(forget(Protocol::Tcp, one, |_| true).unwrap(), 0);
            assert_eq!(forget(Protocol::Udp, one, |_| true).unwrap(), 1);
            assert_eq!(forget(Protocol::Udp, range, |_| true).unwrap(), 2);
        });
    }

    #[test]
    fn what_is_cut_off_is_no_connection() {
        assert!(connection(2, 17, &[]).is_none());
        assert!(connection(2, 17, &[8, 0, 1, 0x80, 4, 0, 1, 0]).is_none());
        assert!(find(&[0, 0, 0, 0], 1).is_none());
        assert!(find(&[255, 0, 1, 0], 1).is_none());
    }
}
