//! [`Holder`]: the process that has a port, found in /proc (proc_pid_net(5)).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::spec::network::Protocol;

/// A process that has a port open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Its number.
    pub pid: i32,
    /// What it calls itself, at most 15 bytes.
    pub name: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` (process {})", self.name, self.pid)
    }
}

impl Holder {
    /// Whether it looks like process 1 of a container of mk's.
    pub fn is_reaper(&self) -> bool {
        self.name == "mk-init"
    }
}

/// Returns who keeps others from the port `number` of `address`, or of all addresses; nothing where the kernel has it
/// itself, or someone whose files this process may not see.
pub fn of(protocol: Protocol, address: Option<IpAddr>, number: u16) -> Option<Holder> {
    let mut sockets: Vec<u64> = Vec::new();
    for file in [format!("{protocol}"), format!("{protocol}6")] {
        let text = fs_err::read_to_string(format!("/proc/thread-self/net/{file}")).unwrap_or_default();
        let found = text.lines().skip(1).filter_map(Socket::read);
        sockets.extend(
            found
                .filter(|socket| socket.is_in_the_way(protocol, address, number))
                .map(|socket| socket.inode),
        );
    }
    let links: Vec<String> = sockets
        .into_iter()
        .filter(|&inode| inode != 0)
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    match links.is_empty() {
        true => None,
        false => opener(&links),
    }
}

/// Returns the process with the lowest number that has one of `links` open.
fn opener(links: &[String]) -> Option<Holder> {
    let mut pids: Vec<i32> = fs_err::read_dir("/proc")
        .ok()?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    pids.sort_unstable();
    let pid = pids
        .into_iter()
        .find(|pid| has_open(*pid, links).unwrap_or(false))?;
    let name = fs_err::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    Some(Holder {
        pid,
        name: crate::path::shown(name.trim_end().as_bytes()),
    })
}

fn has_open(pid: i32, links: &[String]) -> Option<bool> {
    let files = fs_err::read_dir(format!("/proc/{pid}/fd")).ok()?;
    let mut targets = files.filter_map(|file| fs_err::read_link(file.ok()?.path()).ok());
    Some(targets.any(|target| links.iter().any(|link| target.as_os_str() == link.as_str())))
}

/// A line of /proc/net/tcp and its like.
#[derive(Debug, PartialEq, Eq)]
struct Socket {
    address: IpAddr,
    port: u16,
    state: u8,
    inode: u64,
}

impl Socket {
    fn read(line: &str) -> Option<Self> {
        let mut fields = line.split_ascii_whitespace();
        let (address, port) = fields.nth(1)?.split_once(':')?;
        let state = fields.nth(1)?;
        Some(Self {
            address: address_of(address)?,
            port: u16::from_str_radix(port, 16).ok()?,
            state: u8::from_str_radix(state, 16).ok()?,
            inode: fields.nth(5)?.parse().ok()?,
        })
    }

    fn is_in_the_way(&self, protocol: Protocol, address: Option<IpAddr>, port: u16) -> bool {
        /// `TCP_LISTEN` in net/tcp_states.h.
        const LISTEN: u8 = 10;
        let wanted = address.filter(|address| !address.is_unspecified());
        let same = match wanted {
            // One that is bound to `::` has those of IPv4, too, unless it asked for less.
            Some(wanted) => self.address.is_unspecified() || self.address.to_canonical() == wanted,
            None => true,
        };
        same && self.port == port && (protocol == Protocol::Udp || self.state == LISTEN)
    }
}

/// Reads an address as the kernel prints it: words of four bytes, each as a number of this machine's.
fn address_of(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| -> Option<[u8; 4]> {
        let word = u32::from_str_radix(hex.get(at..at + 8)?, 16).ok()?;
        Some(word.to_ne_bytes())
    };
    match hex.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let mut octets = [0; 16];
            for (at, into) in octets.as_chunks_mut::<4>().0.iter_mut().enumerate() {
                *into = word(at * 8)?;
            }
            Some(Ipv6Addr::from(octets).into())
        }
        _ => None,
    }
}

#[cfg(test)]
#[expect(clippy::print_stderr, reason = "a skipped test says so")]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    #[test]
    fn lines_of_proc_are_read() {
        if cfg!(target_endian = "big") {
            return eprintln!("skipped: needs a little-endian machine");
        }
        let line = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 54321 1 0 100 0 0 10 0";
        let socket = Socket::read(line).unwrap();
        assert_eq!(
            socket,
            Socket {
                address: "127.0.0.1".parse().unwrap(),
                port: 8080,
                state: 10,
                inode: 54321
            }
        );
        let line6 = line.replace("0100007F", "B80D0120000000000000000001000000");
        assert_eq!(
            Socket::read(&line6).unwrap().address,
            "2001:db8::1".parse::<IpAddr>().unwrap()
        );
        for line in ["", "0: x:1", "0: 0100007F:1F90 0:0 0A"] {
            assert!(Socket::read(line).is_none(), "{line}");
        }
    }

    #[test]
    fn only_what_keeps_others_off_is_in_the_way() {
        let socket = |address: &str, state| Socket {
            address: address.parse().unwrap(),
            port: 80,
            state,
            inode: 1,
        };
        let local: IpAddr = "127.0.0.1".parse().unwrap();
        let cases = [
            (socket("0.0.0.0", 10), Some(local), true),
            (socket("::", 10), Some(local), true),
            (socket("127.0.0.2", 10), Some(local), false),
            (socket("127.0.0.2", 10), None, true),
            (socket("127.0.0.1", 6), Some(local), false),
        ];
        for (socket, address, is) in cases {
            assert_eq!(socket.is_in_the_way(Protocol::Tcp, address, 80), is, "{socket:?}");
            assert!(!socket.is_in_the_way(Protocol::Tcp, address, 81));
        }
        assert!(socket("127.0.0.1", 7).is_in_the_way(Protocol::Udp, None, 80));
    }

    #[test]
    fn a_port_of_this_process_is_held_by_it() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = UdpSocket::bind("[::]:0").unwrap();
        let own = std::process::id() as i32;
        let port = tcp.local_addr().unwrap().port();
        assert_eq!(of(Protocol::Tcp, None, port).unwrap().pid, own);
        let port = udp.local_addr().unwrap().port();
        assert_eq!(
            of(Protocol::Udp, "127.0.0.1".parse().ok(), port).unwrap().pid,
            own
        );
        drop(udp);
        assert_eq!(of(Protocol::Udp, None, port), None);
    }
}
