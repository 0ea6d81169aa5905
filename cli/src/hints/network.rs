//! What to do about networks that cannot be as asked.

use mk_core::net::{Error, publish, user};
use mk_core::recipe::Network;
use mk_core::spec::network::Pointless;
use mk_core::sys::Errno;

/// Returns advice for a network that cannot be made, used or removed.
pub(super) fn of_network(error: &Error) -> Option<String> {
    Some(match error {
        Error::NotOurs { .. } => "`MK_STATE` names another folder, which belongs to you alone".into(),
        Error::Unknown { .. } => "`mk network ls` lists the networks".into(),
        Error::Exists { name, .. } => format!("`mk network rm {name}` removes it, if nobody is on it"),
        Error::OtherKind { name, kind, .. } => format!("`--network {kind}:{name}` is that one"),
        Error::Foreign { name } => format!(
            "`ip -details link show {name}` shows what it is; `--network bridge:NAME` is a network with another name"
        ),
        Error::InUse { name, .. } => {
            format!(
                "`mk network inspect {name}` shows who is on it; `mk stop` ends a container that has a name"
            )
        }
        Error::Overlaps { .. } => {
            "without `--subnet` the range is one that is free; `ip route` lists the routes of the host".into()
        }
        Error::NoSubnet => {
            "`mk network create NAME --subnet CIDR` takes a range that no route leads to, private or not"
                .into()
        }
        Error::Full { .. } => {
            "`mk network create NAME --subnet CIDR` makes a network with more, such as a /16".into()
        }
        Error::Outside { name, .. } => {
            format!("leave it out for an address that is free; `mk network inspect {name}` shows the subnets")
        }
        Error::AddressTaken { .. } | Error::MacTaken { .. } => "leave it out for one that is free".into(),
        Error::Publish(error) => return of_published(error),
        Error::OtherUsers { name } => {
            format!("run it again, or say it before the image is known: `--network private:{name}`")
        }
        Error::OutOfReach { pid, .. } => format!(
            "it was started by somebody else, or in a container: `kill {pid}` ends it; another name makes another network"
        ),
        _ => return None,
    })
}

/// Returns advice for an ordinary user who asked for a network that takes root.
pub(crate) fn instead_of(kind: &Network) -> String {
    match kind {
        Network::Bridge(_) => {
            "`--network user` leads out without root, `--network private` to containers of yours".into()
        }
        _ => "`--network user` and `--network private` work without root".into(),
    }
}

/// Returns advice for an option that the run's network has no use for.
pub(super) fn of_pointless(refused: &Pointless) -> String {
    match refused.option {
        "--publish" => {
            "ports are led into `--network bridge`, and as an ordinary user into `--network user`".into()
        }
        "--host-loopback" => {
            "`--network bridge` and `--network user` can lead to the host; `--network host` is the host's own"
                .into()
        }
        _ => "`--network bridge` and `--network private` have addresses and names of their own".into(),
    }
}

/// Returns advice for a port that cannot be published.
pub(super) fn of_published(error: &publish::Error) -> Option<String> {
    Some(match error {
        publish::Error::Taken { .. } => {
            "another port does, such as `-p 8081:80`; with `-p 80` mk takes a free one and says which".into()
        }
        publish::Error::Denied { .. } => {
            "ports below 1024 are root's, unless `sysctl net.ipv4.ip_unprivileged_port_start` says otherwise".into()
        }
        publish::Error::TooMany { .. } => {
            "`ulimit -n` says how many files may be open; a service of many ports does better with `--network host`".into()
        }
        publish::Error::NotOwn { .. } => {
            "`ip address` lists those that it has; without an address, a port is published on all of them".into()
        }
        publish::Error::Rules(_) => {
            "published ports take nf_tables with its NAT (modules nf_tables, nft_chain_nat, nft_fib_inet), Linux 5.12 or \
             newer"
                .into()
        }
        _ => return None,
    })
}

/// Returns advice for a run that cannot be lent its caller's network.
pub(super) fn of_uplink(error: &user::Error) -> Option<String> {
    let advice = match error {
        user::Error::NoHelper { .. } => {
            "install one: the package is called `passt`, or `slirp4netns`, such as `sudo apt-get install passt`; \
             `--network private` needs none"
        }
        user::Error::Tun(failed) if matches!(failed.errno, Errno::ACCESS | Errno::PERM) => {
            "`sudo chmod 666 /dev/net/tun` lets every user open it, until the next boot"
        }
        user::Error::Tun(_) => {
            "`sudo modprobe tun` makes it; in a container, that has to be started with the device, such as by \
             `--device /dev/net/tun`"
        }
        user::Error::OnlyIpv4 { .. } => "`pasta` can: the package is called `passt`",
        user::Error::Port { failed, .. } if failed.kind() == std::io::ErrorKind::PermissionDenied => {
            "ports below `net.ipv4.ip_unprivileged_port_start` are root's: publish it at a higher one"
        }
        user::Error::Port { failed, .. } if failed.kind() == std::io::ErrorKind::AddrInUse => {
            "`ss -lntup` shows who has it; without a port of the host, such as `-p 80`, mk takes one that is free"
        }
        user::Error::Port { .. } => return None,
    };
    Some(advice.into())
}
