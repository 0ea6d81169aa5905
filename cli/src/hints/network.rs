//! What to do about networks that cannot be as asked.

use mk_core::net::publish;
use mk_core::spec::network::Pointless;

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
