//! What a network namespace is given: the texts of the three files in `/etc` that tell a program who and where it is.
//! Pure; bringing loopback up is `sys::namespace::loopback_up`.

/// That the host passes packets on.
pub mod forwarding;
/// The way out, and who may come in.
pub mod nat;

use std::fmt::Write as _;
use std::path::Path;

/// Ports of the host that lead into a container.
pub mod publish;

use crate::recipe::Conf;
use crate::spec::DEFAULT_HOST_NAME;
use crate::sys::process::{self, CapabilitySet};
use crate::sys::{SysError, namespace};

/// The bridge of a network.
pub mod bridge;
mod error;
/// Addresses, and who has them.
pub mod lease;
/// The folder of networks.
pub mod network;
/// What is done to a network namespace.
pub mod order;
/// A run's place on a network.
pub mod plan;
/// The addresses of a network.
pub mod subnet;

pub use error::{Error, Result};

/// Whether this machine speaks IPv6, and new interfaces do.
pub fn has_ipv6() -> bool {
    let off = "/proc/sys/net/ipv6/conf/default/disable_ipv6";
    Path::new(off).exists() && fs_err::read_to_string(off).is_ok_and(|text| text.trim() == "0")
}

/// Whether this process may change the network namespace that it is in: it belongs to its own user namespace, or to one
/// below, and mk is allowed to (capabilities(7), `CAP_NET_ADMIN`).
pub fn is_ours() -> std::result::Result<bool, SysError> {
    Ok(process::own_capabilities()?.contains(CapabilitySet::NET_ADMIN) && namespace::owns_network()?)
}

/// The namespaces of a `private` network.
pub mod private;
/// The caller's own network, through a helper.
pub mod user;

/// Returns the host name that `conf` gives, or the default one.
pub fn host_name(conf: &Conf) -> &str {
    conf.hostname.as_deref().unwrap_or(DEFAULT_HOST_NAME)
}

/// Returns what `/etc/hostname` holds (hostname(5)).
pub fn hostname_text(hostname: &str) -> String {
    format!("{hostname}\n")
}

/// Returns what `/etc/hosts` holds: loopback, the host's own name, then what the recipe says (hosts(5)).
pub fn hosts_text(conf: &Conf, hostname: &str) -> String {
    let mut text = String::from("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    let _ = writeln!(text, "127.0.1.1\t{hostname}");
    for (address, names) in &conf.hosts {
        let _ = writeln!(text, "{address}\t{}", names.join(" "));
    }
    text
}

/// Returns what `/etc/resolv.conf` holds: a line for each name server of the recipe, else nothing (resolv.conf(5)).
pub fn resolv_text(conf: &Conf) -> String {
    let mut text = String::new();
    for server in conf.nameservers.iter().flatten() {
        let _ = writeln!(text, "nameserver {server}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_hold_what_the_recipe_says() {
        let conf = Conf {
            hostname: None,
            hosts: [(
                "10.0.0.7".parse().unwrap(),
                vec!["db".into(), "db.example".into()],
            )]
            .into(),
            nameservers: Some(vec!["9.9.9.9".parse().unwrap(), "2620:fe::fe".parse().unwrap()]),
        };
        assert_eq!(host_name(&conf), "mk");
        assert_eq!(hostname_text("box"), "box\n");
        assert_eq!(
            hosts_text(&conf, "box"),
            "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.1.1\tbox\n10.0.0.7\tdb db.example\n"
        );
        assert_eq!(resolv_text(&conf), "nameserver 9.9.9.9\nnameserver 2620:fe::fe\n");
        assert_eq!(resolv_text(&Conf::default()), "");
    }
}
