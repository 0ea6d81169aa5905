//! Ports of this network namespace: sockets that hold them.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::net::{self, AddressFamily, SocketFlags, SocketType, sockopt};

use super::{Call, Errno, SysError};

/// What runs over a port.
pub use super::netfilter::Protocol;

/// Opens a socket that holds the port of `address` and no other, or any free one where that is 0. `both`: that of `::`
/// for IPv4, too. Over TCP it does not listen yet, so that nobody connects to it.
pub fn hold(protocol: Protocol, address: SocketAddr, both: bool) -> Result<OwnedFd, SysError> {
    let call = || format!("bind({protocol:?}, {address})");
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let kind = match protocol {
        Protocol::Tcp => SocketType::STREAM,
        Protocol::Udp => SocketType::DGRAM,
    };
    let socket = net::socket_with(family, kind, SocketFlags::CLOEXEC, None).call("socket")?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, !both).call("setsockopt(IPV6_V6ONLY)")?;
    }
    if protocol == Protocol::Tcp && address.port() != 0 {
        // Connections that have ended keep their port for a minute, and do not keep this one from getting it.
        sockopt::set_socket_reuseaddr(&socket, true).call("setsockopt(SO_REUSEADDR)")?;
    }
    net::bind(&socket, &address).call_with(call)?;
    Ok(socket)
}

/// Has a socket of TCP keep off everybody, those too who would share the port.
pub fn close_to_others(socket: &OwnedFd) -> Result<(), SysError> {
    net::listen(socket, 0).call("listen")
}

/// Returns the port that `socket` holds.
pub fn number(socket: &OwnedFd) -> Result<u16, SysError> {
    let address = net::getsockname(socket).call("getsockname")?;
    SocketAddr::try_from(address)
        .map(|address| address.port())
        .call("getsockname")
}

/// Whether `address` is one of this machine's.
pub fn is_own(address: IpAddr) -> bool {
    if let IpAddr::V6(address) = address
        && address.is_unicast_link_local()
    {
        // Which link it is on is not said with it.
        return true;
    }
    hold(Protocol::Udp, SocketAddr::new(address, 0), false).is_ok()
}

/// Whether there is IPv6 here.
pub fn has_ipv6() -> bool {
    match hold(
        Protocol::Udp,
        SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0),
        false,
    ) {
        Ok(_) => true,
        Err(failed) => !matches!(failed.errno, Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL),
    }
}
