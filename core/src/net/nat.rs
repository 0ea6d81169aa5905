//! The way out of a network, and who may come in: one table of nf_tables, `mk-NAME`, which is made with the network and
//! never touched again. [`Area`] → [`Table`] is pure; [`set_up`] hands it to the kernel, [`take_back`] removes it.
//!
//! * What leaves the network gets the address of the host (`masquerade`).
//! * What comes from outside passes only where it answers something, or where a published port leads to it (`dnat`).
//! * Nobody sends with an address that is not of the network, and nobody reaches the host's own loopback, which the bridge
//!   would lead to: published ports on 127.0.0.1 need its `route_localnet` (see [`super::forwarding`]).

use std::net::{IpAddr, Ipv4Addr};

use crate::recipe::NetName;
use crate::sys::netfilter::{
    Action, Chain, DSTNAT, Error, FILTER, Hook, Kind, Match, RAW, Rule, SRCNAT, Subnet, Table,
};

/// What a table of a network is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Area {
    /// The name of the network, which is that of its bridge.
    pub name: String,
    /// Its IPv4 addresses.
    pub four: Subnet,
    /// Its IPv6 addresses, if it has any.
    pub six: Option<Subnet>,
}

/// 127.0.0.0/8.
const LOOPBACK: Subnet = Subnet {
    address: IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)),
    prefix: 8,
};

/// Makes the table of a network, in one transaction; one that was left behind under its name is replaced.
pub fn set_up(area: &Area) -> Result<(), Error> {
    table(area).make().map(drop)
}

/// Removes the table of the network `name`, if it is there.
pub fn take_back(name: &str) -> Result<(), Error> {
    Table::remove(&table_name(name)).map(drop)
}

/// Whether the table of the network `name` is there: whoever flushes all rules of the host takes it, too.
pub fn is_there(name: &str) -> Result<bool, Error> {
    let wanted = table_name(name);
    Ok(crate::sys::netfilter::tables()?.contains(&wanted))
}

/// Returns which tables there are because of the network `name`: its own, and the one that all share.
pub fn tables_of(name: &str) -> Result<Vec<String>, Error> {
    let own = table_name(name);
    let mut tables = crate::sys::netfilter::tables()?;
    tables.retain(|table| *table == own || table == super::forwarding::GUARD);
    Ok(tables)
}

/// Returns the name of the table of the network `name`.
pub fn table_name(name: &str) -> String {
    format!("mk-{name}")
}

/// Returns the network whose table has this name, if it is one's.
pub fn network_of(table: &str) -> Option<String> {
    let name: NetName = table.strip_prefix("mk-")?.parse().ok()?;
    Some(name.to_string())
}

/// Returns the table of a network.
pub fn table(area: &Area) -> Table {
    let chain = |name, kind, hook, priority, rules| Chain {
        name,
        kind,
        hook,
        priority,
        rules,
    };
    Table {
        name: table_name(&area.name),
        owned: false,
        chains: vec![
            chain("raw", Kind::Filter, Hook::Prerouting, RAW, no_loopback(area)),
            chain("forward", Kind::Filter, Hook::Forward, FILTER, passage(area)),
            chain("postrouting", Kind::Nat, Hook::Postrouting, SRCNAT, sources(area)),
        ],
    }
}

impl Area {
    fn inward(&self) -> Match {
        Match::Output(self.name.clone())
    }

    fn outward(&self) -> Match {
        Match::Input(self.name.clone())
    }

    /// Its addresses, of each family that it has.
    fn subnets(&self) -> impl Iterator<Item = Subnet> {
        std::iter::once(self.four).chain(self.six)
    }
}

/// Before connections are tracked: an answer to a published port, which becomes one to 127.0.0.1 later, passes. What
/// claims to go to or come from ::1 is dropped by the kernel itself (RFC 4291, 2.5.3).
fn no_loopback(area: &Area) -> Vec<Rule> {
    [Match::Destination(LOOPBACK), Match::Source(LOOPBACK)]
        .map(|of_loopback| Rule::new([area.outward(), of_loopback], Action::Drop))
        .into()
}

fn passage(area: &Area) -> Vec<Rule> {
    let invented = |subnet| Rule::new([area.outward(), Match::NotSource(subnet)], Action::Drop);
    let inward = |matches: &[Match]| {
        let matches = std::iter::once(area.inward()).chain(matches.iter().cloned());
        matches.collect::<Vec<_>>()
    };
    // First what stays on the bridge: it comes this way where bridges are told to ask (`br_netfilter`).
    std::iter::once(Rule::new([area.outward(), area.inward()], Action::Accept))
        .chain(area.subnets().map(invented))
        .chain([
            Rule::new(inward(&[Match::Established]), Action::Accept),
            Rule::new(inward(&[Match::Translated]), Action::Accept),
            Rule::new(inward(&[]), Action::Drop),
        ])
        .collect()
}

fn sources(area: &Area) -> Vec<Rule> {
    let masquerade = |matches: Vec<Match>| Rule::new(matches, Action::Masquerade);
    let elsewhere = Match::NotOutput(area.name.clone());
    let out = |subnet| masquerade(vec![Match::Source(subnet), elsewhere.clone()]);
    // A published port that is asked for by a neighbour: the answer has to come back through the host.
    let hairpin = |subnet| masquerade(vec![Match::Source(subnet), area.inward(), Match::Translated]);
    // And by the host, on its loopback: nobody else could answer to that address.
    let own = masquerade(vec![Match::Source(LOOPBACK), area.inward()]);
    let out = area.subnets().map(out);
    let hairpin = area.subnets().map(hairpin);
    out.chain(hairpin).chain([own]).collect()
}

/// Returns the table that leads one container to what the host offers on its loopback only: the bridge's own address then
/// stands for 127.0.0.1. It is to be owned by whoever holds the container's other things (see [`Table::make`]).
pub fn host_loopback(table: String, bridge: &str, gateway: Ipv4Addr, container: Ipv4Addr) -> Table {
    let from = |address: Ipv4Addr| Match::Source(Subnet::only(address.into()));
    let to = |address: Ipv4Addr| Match::Destination(Subnet::only(address.into()));
    let matches = [Match::Input(bridge.to_owned()), from(container), to(gateway)];
    Table {
        name: table,
        owned: true,
        chains: vec![Chain {
            name: "prerouting",
            kind: Kind::Nat,
            hook: Hook::Prerouting,
            // After published ports, which come first.
            priority: DSTNAT + 1,
            rules: vec![Rule::new(matches, Action::Dnat(Ipv4Addr::LOCALHOST.into(), None))],
        }],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn area(six: bool) -> Area {
        let subnet = |text: &str, prefix| Subnet::of(text.parse().unwrap(), prefix);
        Area {
            name: "mk0".into(),
            four: subnet("192.168.10.1", 24),
            six: six.then(|| subnet("fd12:3456:789a:bcde::1", 64)),
        }
    }

    const BOTH: &str = r#"table inet mk-mk0 {
	chain raw {
		type filter hook prerouting priority raw; policy accept;
		iifname "mk0" ip daddr 127.0.0.0/8 drop
		iifname "mk0" ip saddr 127.0.0.0/8 drop
	}

	chain forward {
		type filter hook forward priority filter; policy accept;
		iifname "mk0" oifname "mk0" accept
		iifname "mk0" ip saddr != 192.168.10.0/24 drop
		iifname "mk0" ip6 saddr != fd12:3456:789a:bcde::/64 drop
		oifname "mk0" ct state established,related accept
		oifname "mk0" ct status dnat accept
		oifname "mk0" drop
	}

	chain postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		ip saddr 192.168.10.0/24 oifname != "mk0" masquerade
		ip6 saddr fd12:3456:789a:bcde::/64 oifname != "mk0" masquerade
		ip saddr 192.168.10.0/24 oifname "mk0" ct status dnat masquerade
		ip6 saddr fd12:3456:789a:bcde::/64 oifname "mk0" ct status dnat masquerade
		ip saddr 127.0.0.0/8 oifname "mk0" masquerade
	}
}
"#;

    #[test]
    fn the_table_of_a_network_lets_out_and_keeps_out() {
        assert_eq!(table(&area(true)).to_string(), BOTH);
    }

    #[test]
    fn a_network_without_ipv6_has_no_rule_about_it() {
        let four: String = BOTH
            .lines()
            .filter(|line| !line.contains("ip6"))
            .map(|line| format!("{line}\n"))
            .collect();
        assert_eq!(table(&area(false)).to_string(), four);
    }
}
