//! The rules that lead ports of the host to a container. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Published;
use crate::sys::netfilter::{
    Action, Chain, DSTNAT, End, Hook, Kind, Match, Ports, RAW, Rule, SRCNAT, Subnet, Table,
};

/// Where published ports lead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The bridge that the container is on.
    pub bridge: String,
    /// Its address.
    pub v4: Ipv4Addr,
    /// Its address in IPv6, where it has one.
    pub v6: Option<Ipv6Addr>,
}

/// Bits of [`FACES`] that are the same in all of them.
pub const FACES_PREFIX: u8 = 112;

/// The addresses that stand for `::1` where it is no address that one could answer to. They are of a prefix that leads
/// nowhere (RFC 6666), so that they are nobody's; the bridge's local routes have them.
pub const FACES: Ipv6Addr = Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0x6d6b, 0);

/// Returns the address from which what was sent to the port `host` of `::1` seems to come, inside.
pub fn face(host: u16) -> Ipv6Addr {
    let mut segments = FACES.segments();
    segments[7] = host;
    segments.into()
}

/// Behind all that looks at what comes to this machine, so that a firewall sees the packets as they came.
const LAST: i32 = SRCNAT + 100;

/// Returns the table `name`, which leads `published` to `target`.
pub(super) fn table(name: String, published: &[Published], target: &Target) -> Table {
    let mut rules = Rules::default();
    for one in published {
        rules.add(one, target);
    }
    let chain = |name, kind, hook, priority, rules| Chain {
        name,
        kind,
        hook,
        priority,
        rules,
    };
    let mut chains = vec![
        chain("prerouting", Kind::Nat, Hook::Prerouting, DSTNAT, rules.coming),
        chain("output", Kind::Nat, Hook::Output, DSTNAT, rules.going),
        chain("loopback", Kind::Route, Hook::Output, RAW, rules.there),
        chain("answers", Kind::Filter, Hook::Input, LAST, rules.back),
    ];
    chains.retain(|chain| !chain.rules.is_empty());
    Table {
        name,
        owned: true,
        chains,
    }
}

#[derive(Debug, Default)]
struct Rules {
    /// For what comes from elsewhere.
    coming: Vec<Rule>,
    /// For what this machine sends to itself.
    going: Vec<Rule>,
    /// For what it sends to `::1`.
    there: Vec<Rule>,
    /// For the answers to that.
    back: Vec<Rule>,
}

impl Rules {
    fn add(&mut self, one: &Published, target: &Target) {
        let of_family = |v4: bool| one.address.is_none_or(|address| address.is_ipv4() == v4);
        if of_family(true) {
            self.translate(one, target.v4.into());
        }
        if let Some(v6) = target.v6.filter(|_| of_family(false)) {
            self.translate(one, v6.into());
            self.rewrite(one, &target.bridge, v6);
        }
    }

    fn translate(&mut self, one: &Published, to: IpAddr) {
        let at = match one.address.filter(|address| !address.is_unspecified()) {
            None => Match::LocalDestination,
            // The other chains' business.
            Some(IpAddr::V6(Ipv6Addr::LOCALHOST)) => return,
            Some(address) => Match::Destination(Subnet::only(address)),
        };
        let loopback = one.address.is_some_and(|address| address.is_loopback());
        let mut lead = |host: Ports, inside: Option<Ports>| {
            let port = Match::Port(one.protocol.into(), host);
            let rule = Rule::new([at.clone(), port], Action::Dnat(to, inside));
            if !loopback {
                self.coming.push(rule.clone());
            }
            self.going.push(rule);
        };
        if one.host == one.inside {
            return lead(one.host.into(), None);
        }
        for (host, inside) in one.pairs() {
            lead(Ports::one(host), Some(Ports::one(inside)));
        }
    }

    fn rewrite(&mut self, one: &Published, bridge: &str, to: Ipv6Addr) {
        let includes = one
            .address
            .is_none_or(|address| address.is_unspecified() || address.is_loopback());
        if !includes {
            return;
        }
        let protocol: crate::sys::port::Protocol = one.protocol.into();
        let only = |address: Ipv6Addr| Match::Destination(Subnet::only(address.into()));
        for (host, inside) in one.pairs() {
            self.there.push(Rule::new(
                [only(Ipv6Addr::LOCALHOST), Match::Port(protocol, Ports::one(host))],
                Action::Rewrite {
                    source: face(host),
                    destination: to,
                    protocol,
                    end: End::Destination,
                    port: inside,
                },
            ));
            // Answers only: what a container sends by itself must not come to what the host keeps to its loopback.
            self.back.push(Rule::new(
                [
                    Match::Input(bridge.to_owned()),
                    Match::Source(Subnet::only(to.into())),
                    only(face(host)),
                    Match::SourcePort(protocol, inside),
                    Match::Answer,
                ],
                Action::Rewrite {
                    source: Ipv6Addr::LOCALHOST,
                    destination: Ipv6Addr::LOCALHOST,
                    protocol,
                    end: End::Source,
                    port: host,
                },
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::network::Publish;

    fn text(asked: &[&str], v6: bool) -> String {
        let published: Vec<Published> = asked
            .iter()
            .map(|text| {
                let asked: Publish = text.parse().unwrap();
                Published::of(&asked, asked.host.unwrap(), asked.inside)
            })
            .collect();
        let target = Target {
            bridge: "mk0".into(),
            v4: "192.168.10.7".parse().unwrap(),
            v6: v6.then(|| "fd00::7".parse().unwrap()),
        };
        table("t".into(), &published, &target).to_string()
    }

    #[test]
    fn a_port_of_all_addresses_leads_inside_for_both_families() {
        assert_eq!(
            text(&["8080:80"], true),
            "table inet t {
	flags owner

	chain prerouting {
		type nat hook prerouting priority dstnat; policy accept;
		fib daddr type local tcp dport 8080 dnat ip to 192.168.10.7:80
		fib daddr type local tcp dport 8080 dnat ip6 to [fd00::7]:80
	}

	chain output {
		type nat hook output priority -100; policy accept;
		fib daddr type local tcp dport 8080 dnat ip to 192.168.10.7:80
		fib daddr type local tcp dport 8080 dnat ip6 to [fd00::7]:80
	}

	chain loopback {
		type route hook output priority raw; policy accept;
		ip6 daddr ::1 tcp dport 8080 ip6 saddr set 100::6d6b:1f90 ip6 daddr set fd00::7 tcp dport set 80
	}

	chain answers {
		type filter hook input priority 200; policy accept;
		iifname \"mk0\" ip6 saddr fd00::7 ip6 daddr 100::6d6b:1f90 tcp sport 80 ct direction reply ip6 saddr set ::1 ip6 daddr set ::1 tcp sport set 8080
	}
}
"
        );
    }

    #[test]
    fn a_port_of_one_address_leads_inside_from_there_alone() {
        let loopback = text(&["127.0.0.1:53:5353/udp"], true);
        assert!(!loopback.contains("prerouting"), "{loopback}");
        assert!(loopback.contains("ip daddr 127.0.0.1 udp dport 53 dnat ip to 192.168.10.7:5353"));
        assert!(!loopback.contains("ip6"), "{loopback}");
        let loopback6 = text(&["[::1]:53:5353/udp"], true);
        assert!(!loopback6.contains("dnat"), "{loopback6}");
        assert!(loopback6.contains("hook input"), "{loopback6}");
        let outside = text(&["192.0.2.1:80:80"], true);
        assert_eq!(outside.matches("ip daddr 192.0.2.1 tcp dport 80").count(), 2);
        assert!(!outside.contains("ip6"), "{outside}");
        let all4 = text(&["0.0.0.0:80:80"], true);
        assert!(all4.contains("fib daddr type local"), "{all4}");
        assert!(!all4.contains("ip6"), "{all4}");
        let all6 = text(&["[::]:80:80"], true);
        assert!(all6.contains("dnat ip6") && all6.contains("hook input"), "{all6}");
        assert!(!all6.contains("dnat ip to"), "{all6}");
        assert!(!text(&["80:80"], false).contains("ip6"));
    }

    #[test]
    fn ports_that_stay_the_same_take_one_rule_and_others_one_each() {
        let same = text(&["8000-8010:8000-8010"], false);
        assert_eq!(
            same.matches("tcp dport 8000-8010 dnat ip to 192.168.10.7\n")
                .count(),
            2
        );
        let shifted = text(&["8000-8010:9000-9010"], false);
        assert_eq!(shifted.matches("dnat").count(), 22);
        assert!(shifted.contains("tcp dport 8003 dnat ip to 192.168.10.7:9003"));
    }

    #[test]
    fn each_port_of_the_host_has_a_face_of_its_own() {
        assert_eq!(face(8080), "100::6d6b:1f90".parse::<Ipv6Addr>().unwrap());
        assert_ne!(face(1), face(65535));
        let subnet = |address: Ipv6Addr| Subnet::of(address.into(), FACES_PREFIX);
        assert_eq!(subnet(face(65535)), subnet(FACES));
    }
}
