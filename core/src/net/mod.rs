//! What a network namespace is given: interfaces, addresses and names. Bringing loopback up is
//! `sys::namespace::loopback_up`.

use std::path::Path;

use crate::sys::process::{self, CapabilitySet};
use crate::sys::{SysError, namespace as kernels};

/// The bridge of a network.
pub mod bridge;
mod error;
/// That the host passes packets on.
pub mod forwarding;
/// Who is where, as `/etc/hosts` says.
pub mod hosts;
/// Addresses, and who has them.
pub mod lease;
/// Who else is there, and when that changes.
pub mod names;
/// Namespaces that others have made.
pub mod namespace;
/// The way out, and who may come in.
pub mod nat;
/// The folder of networks.
pub mod network;
/// What is done to a network namespace.
pub mod order;
/// A run's place on a network.
pub mod plan;
/// The namespaces of a `private` network.
pub mod private;
/// Ports of the host that lead into a container.
pub mod publish;
/// Whom a container asks for addresses.
pub mod resolv;
/// The addresses of a network.
pub mod subnet;
/// The caller's own network, through a helper.
pub mod user;

pub use error::{Error, Result};
pub use hosts::{host_name, hostname_text, hosts_text};
pub use names::{Live, Member};
pub use resolv::resolv_text;

/// Whether this machine speaks IPv6, and new interfaces do.
pub fn has_ipv6() -> bool {
    let off = "/proc/sys/net/ipv6/conf/default/disable_ipv6";
    Path::new(off).exists() && fs_err::read_to_string(off).is_ok_and(|text| text.trim() == "0")
}

/// Whether this process may change the network namespace that it is in: it belongs to its own user namespace, or to one
/// below, and mk is allowed to (capabilities(7), `CAP_NET_ADMIN`).
pub fn is_ours() -> std::result::Result<bool, SysError> {
    Ok(process::own_capabilities()?.contains(CapabilitySet::NET_ADMIN) && kernels::owns_network()?)
}
