//! The rules of iptables from before nf_tables, which packets have to pass as well (linux/netfilter_ipv4/ip_tables.h,
//! linux/netfilter_ipv6/ip6_tables.h).

use std::os::fd::{AsRawFd, OwnedFd};

use nix::libc;
use rustix::net::{self, AddressFamily, SocketFlags, SocketType};

use super::Family;
use crate::sys::{Call, SysError, checked};

/// What the table `filter` does with packets that are passed on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Forward {
    /// Whether it drops what none of its rules decides on.
    pub drops: bool,
    /// The interfaces that some rule names, where it lets pass what comes in by them. Names that end in an asterisk mean
    /// all that begin so.
    pub let_in: Vec<String>,
}

/// How the two families differ.
struct Layout {
    family: AddressFamily,
    level: libc::c_int,
    names: &'static str,
    /// Where an entry holds the interface that packets come in by.
    interface: usize,
    /// Where it holds the place of its target and of the entry after it.
    offsets: usize,
}

const FOUR: Layout = Layout {
    family: AddressFamily::INET,
    level: libc::IPPROTO_IP,
    names: "/proc/thread-self/net/ip_tables_names",
    interface: 16,
    offsets: 88,
};

const SIX: Layout = Layout {
    family: AddressFamily::INET6,
    level: libc::IPPROTO_IPV6,
    names: "/proc/thread-self/net/ip6_tables_names",
    interface: 64,
    offsets: 140,
};

/// `IPT_SO_GET_INFO` and `IPT_SO_GET_ENTRIES`, the same for both families.
const GET_INFO: libc::c_int = 64;
const GET_ENTRIES: libc::c_int = 65;
/// The name of the table that both calls begin with.
const FILTER: &[u8] = b"filter";
/// `struct ipt_getinfo`, and where it holds the first and the last entry for packets that are passed on and the size of
/// all.
const INFO: usize = 84;
const FIRST: usize = 36 + 2 * 4;
const LAST: usize = 56 + 2 * 4;
const SIZE: usize = 80;
/// What stands before the entries in `struct ipt_get_entries`.
const HEAD: usize = 40;
/// `struct xt_entry_target`: its name comes after its size; what a standard one, without a name, does after it all.
const TARGET_NAME: usize = 2;
const TARGET: usize = 32;
/// `-NF_DROP - 1` and `-NF_ACCEPT - 1`.
const DROP: i32 = -1;
const ACCEPT: i32 = -2;

/// Returns what the table does with packets of the `family`, one of IPv4 and IPv6; nothing where there is no such table. A
/// table that there is not would be made by asking for it.
pub fn forward(family: Family) -> Result<Option<Forward>, SysError> {
    let layout = match family {
        Family::Ip6 => SIX,
        Family::Ip | Family::Inet => FOUR,
    };
    let names = fs_err::read_to_string(layout.names).unwrap_or_default();
    if !names.lines().any(|name| name.as_bytes() == FILTER) {
        return Ok(None);
    }
    let socket = net::socket_with(layout.family, SocketType::RAW, SocketFlags::CLOEXEC, Some(RAW))
        .call("socket(SOCK_RAW)")?;
    let mut info = vec![0; INFO];
    ask(&socket, layout.level, GET_INFO, &mut info).call("getsockopt(IPT_SO_GET_INFO)")?;
    let word = |at| word(&info, at).unwrap_or_default();
    let mut entries = vec![0; HEAD + word(SIZE) as usize];
    entries[32..36].copy_from_slice(&word(SIZE).to_ne_bytes());
    ask(&socket, layout.level, GET_ENTRIES, &mut entries).call("getsockopt(IPT_SO_GET_ENTRIES)")?;
    let entries = entries.get(HEAD..).unwrap_or_default();
    Ok(Some(read(
        entries,
        word(FIRST) as usize,
        word(LAST) as usize,
        &layout,
    )))
}

/// `IPPROTO_RAW`.
const RAW: net::Protocol = net::ipproto::RAW;

fn ask(
    socket: &OwnedFd,
    level: libc::c_int,
    option: libc::c_int,
    buffer: &mut [u8],
) -> Result<(), crate::sys::Errno> {
    buffer[..FILTER.len()].copy_from_slice(FILTER);
    let mut length = buffer.len() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes, which is how many `buffer` has.
    checked(
        unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                level,
                option,
                buffer.as_mut_ptr().cast(),
                &raw mut length,
            )
        }
        .into(),
    )
    .map(drop)
}

/// Reads what the entry at `last` does, and what those do that name an interface: in other chains as well, because they
/// may be jumped to.
fn read(entries: &[u8], first: usize, last: usize, layout: &Layout) -> Forward {
    let verdict = |entry: &[u8]| {
        let target = entry.get(usize::from(half(entry, layout.offsets)?)..)?;
        let standard = *target.get(TARGET_NAME)? == 0;
        standard.then(|| word(target, TARGET).map(|code| code as i32))?
    };
    let mut forward = Forward {
        drops: first <= last && entries.get(last..).and_then(verdict) == Some(DROP),
        let_in: Vec::new(),
    };
    let mut rest = entries;
    while let Some(length) = half(rest, layout.offsets + 2)
        .map(usize::from)
        .filter(|&length| length > 0)
    {
        if verdict(rest) == Some(ACCEPT) {
            forward.let_in.extend(interface(rest, layout.interface));
        }
        rest = rest.get(length..).unwrap_or_default();
    }
    forward
}

/// Returns the interface that an entry is about, whose name is at `at`. The mask behind it says how many bytes of it count:
/// with the one that ends it, where it is a whole name.
fn interface(entry: &[u8], at: usize) -> Option<String> {
    let name = entry.get(at..at + 16)?;
    let mask = entry.get(at + 32..at + 48)?;
    let counts = mask.iter().take_while(|byte| **byte != 0).count();
    let whole = name
        .iter()
        .position(|byte| *byte == 0)
        .filter(|&end| end == 0 || end < counts);
    match whole {
        // None at all.
        Some(0) => None,
        Some(end) => Some(String::from_utf8_lossy(&name[..end]).into_owned()),
        None => Some(String::from_utf8_lossy(&name[..counts]).into_owned() + "*"),
    }
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().copied().map(u16::from_ne_bytes)
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_ne_bytes)
}
