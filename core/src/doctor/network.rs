//! What networks with a way out need of the host: nf_tables, settings, and that others let packets pass.

use crate::net::nat;
use crate::sys::netfilter::{self, Family, Hook, legacy};

/// What was looked at, for root: nobody else has such networks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// Why there are no tables for rules; nothing where there are.
    pub no_tables: Option<String>,
    /// Whether `/proc/sys/net` cannot be written to.
    pub read_only: bool,
    /// How IPv6 packets are passed on.
    pub ipv6: Ipv6,
    /// Who drops packets that are passed on.
    pub closed: Vec<Closed>,
}

/// How a kernel passes IPv6 packets on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Ipv6 {
    /// By each interface as it is told (Linux 6.17).
    #[default]
    Each,
    /// By all interfaces, already.
    Already,
    /// By all interfaces or none.
    All,
    /// There is no IPv6.
    None,
}

/// Rules of others that drop what none of them lets pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed {
    /// Whose they are.
    pub rules: Rules,
    /// The packets they see.
    pub family: Family,
    /// The networks that no rule of theirs names.
    pub networks: Vec<String>,
}

/// A chain of rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rules {
    /// A chain of nf_tables.
    Chain {
        /// Its table.
        table: String,
        /// Its name.
        chain: String,
    },
    /// The chain FORWARD of iptables from before nf_tables.
    Legacy,
}

/// What every network has to be called where there is none yet.
const USUAL: &str = "mk0";

impl Facts {
    /// Looks.
    pub fn look() -> Self {
        let tables = netfilter::tables();
        let exists = |name: &str| {
            std::path::Path::new("/proc/sys/net/ipv6/conf/all")
                .join(name)
                .exists()
        };
        let all = fs_err::read_to_string("/proc/sys/net/ipv6/conf/all/forwarding").unwrap_or_default();
        let writable = fs_err::OpenOptions::new()
            .write(true)
            .open("/proc/sys/net/ipv4/conf/default/forwarding");
        Self {
            ipv6: match all.trim() {
                "" => Ipv6::None,
                "0" if exists("force_forwarding") => Ipv6::Each,
                "0" => Ipv6::All,
                _ => Ipv6::Already,
            },
            read_only: writable.is_err(),
            closed: closed(tables.as_deref().unwrap_or_default()),
            no_tables: tables.err().map(|error| match std::error::Error::source(&error) {
                Some(source) => format!("{error}: {source}"),
                None => error.to_string(),
            }),
        }
    }
}

/// Returns who drops what; `tables` are the names of those that there are, mk's own among them.
fn closed(tables: &[String]) -> Vec<Closed> {
    let mut networks: Vec<String> = tables.iter().filter_map(|table| nat::network_of(table)).collect();
    if networks.is_empty() {
        networks.push(USUAL.to_owned());
    }
    let dropping = netfilter::base_chains().unwrap_or_default();
    let dropping = dropping
        .into_iter()
        .filter(|chain| chain.drops && chain.hook == Hook::Forward);
    let chains = dropping.map(|chain| {
        let let_in = netfilter::let_in(chain.family, &chain.table).unwrap_or_default();
        let rules = Rules::Chain {
            table: chain.table,
            chain: chain.name,
        };
        (rules, chain.family, let_in)
    });
    let legacy = [Family::Ip, Family::Ip6].into_iter().filter_map(|family| {
        let forward = legacy::forward(family).ok()??;
        forward.drops.then_some((Rules::Legacy, family, forward.let_in))
    });
    let shut = chains.chain(legacy).map(|(rules, family, let_in)| Closed {
        rules,
        family,
        networks: not_named(&networks, &let_in),
    });
    shut.filter(|closed| !closed.networks.is_empty()).collect()
}

/// Returns the `networks` that are none of `names`, where an asterisk at the end means all that begin so.
fn not_named(networks: &[String], names: &[String]) -> Vec<String> {
    let named = |network: &&String| {
        names.iter().any(|name| match name.strip_suffix('*') {
            Some(head) => network.starts_with(head),
            None => *name == **network,
        })
    };
    networks
        .iter()
        .filter(|network| !named(network))
        .cloned()
        .collect()
}

#[cfg(test)]
#[expect(clippy::print_stderr, reason = "a skipped test says so")]
mod tests {
    use super::*;
    use crate::sys::namespace::Namespaces;
    use crate::sys::netfilter::{Chain, FILTER, Kind, Table};
    use crate::sys::probe;

    #[test]
    fn names_with_an_asterisk_mean_all_that_begin_so() {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let networks = owned(&["mk0", "web", "mk1"]);
        assert_eq!(not_named(&networks, &owned(&["mk*"])), ["web"]);
        assert_eq!(not_named(&networks, &owned(&["mk0", "we"])), ["web", "mk1"]);
        assert_eq!(not_named(&networks, &[]), networks);
        assert_eq!(not_named(&networks, &owned(&["*"])), [""; 0]);
    }

    #[test]
    fn whoever_drops_what_networks_send_is_found() {
        let look = || {
            if let Err(failed) = probe::unshare(Namespaces::NET) {
                return eprintln!("skipped: needs root, for a network namespace: {failed}");
            }
            assert_eq!(Facts::look().closed, []);
            let table = |name: &str| Table {
                name: name.into(),
                owned: false,
                chains: vec![Chain {
                    name: "forward",
                    kind: Kind::Filter,
                    hook: Hook::Forward,
                    priority: FILTER,
                    rules: vec![],
                }],
            };
            table("mk-web").make().unwrap();
            table("mk.forward").make().unwrap();
            assert_eq!(Facts::look().closed, []);
            let nft = |rules: &str| std::process::Command::new("nft").arg(rules).status();
            let drops =
                "table ip filter { chain FORWARD { type filter hook forward priority 0; policy drop; }; }";
            if nft(drops).is_err() {
                return eprintln!("skipped: needs nft");
            }
            let closed = Closed {
                rules: Rules::Chain {
                    table: "filter".into(),
                    chain: "FORWARD".into(),
                },
                family: Family::Ip,
                networks: vec!["web".into()],
            };
            assert_eq!(Facts::look().closed, [closed]);
            nft("add rule ip filter FORWARD iifname web accept").unwrap();
            let facts = Facts::look();
            assert_eq!((facts.closed, facts.no_tables), (vec![], None));
        };
        std::thread::spawn(look).join().unwrap();
    }
}
