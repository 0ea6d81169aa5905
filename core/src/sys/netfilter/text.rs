//! Tables as nft(8) writes them: what `nft list table` shows, to the byte, and what `nft -f` reads.

use std::fmt::{Display, Formatter, Result};
use std::net::IpAddr;

use super::{
    Action, Chain, DSTNAT, End, FILTER, Hook, Kind, Match, Ports, Protocol, RAW, Rule, SRCNAT, Subnet, Table,
};

impl Display for Table {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        writeln!(f, "table inet {} {{", self.name)?;
        if self.owned {
            writeln!(f, "\tflags owner")?;
        }
        for (index, chain) in self.chains.iter().enumerate() {
            if index > 0 || self.owned {
                writeln!(f)?;
            }
            write!(f, "{chain}")?;
        }
        writeln!(f, "}}")
    }
}

impl Display for Chain {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        writeln!(f, "\tchain {} {{", self.name)?;
        writeln!(f, "\t\t{}", self.place())?;
        for rule in &self.rules {
            writeln!(f, "\t\t{rule}")?;
        }
        writeln!(f, "\t}}")
    }
}

impl Chain {
    /// Returns where packets come to it.
    pub(super) fn place(&self) -> String {
        let kind = match self.kind {
            Kind::Filter => "filter",
            Kind::Nat => "nat",
            Kind::Route => "route",
        };
        // The names of the last two are for these hooks only.
        let priority = match (self.priority, self.hook) {
            (RAW, _) => "raw".into(),
            (FILTER, _) => "filter".into(),
            (DSTNAT, Hook::Prerouting) => "dstnat".into(),
            (SRCNAT, Hook::Postrouting) => "srcnat".into(),
            (number, _) => number.to_string(),
        };
        format!(
            "type {kind} hook {} priority {priority}; policy accept;",
            self.hook
        )
    }
}

impl Display for Hook {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.write_str(match self {
            Self::Prerouting => "prerouting",
            Self::Input => "input",
            Self::Forward => "forward",
            Self::Output => "output",
            Self::Postrouting => "postrouting",
        })
    }
}

impl Display for Rule {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        for one in &self.matches {
            write!(f, "{one} ")?;
        }
        write!(f, "{}", self.action)
    }
}

impl Display for Match {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::Input(name) => write!(f, "iifname \"{name}\""),
            Self::NotInput(name) => write!(f, "iifname != \"{name}\""),
            Self::Output(name) => write!(f, "oifname \"{name}\""),
            Self::NotOutput(name) => write!(f, "oifname != \"{name}\""),
            Self::Source(subnet) => write!(f, "{} saddr {subnet}", family(subnet.address)),
            Self::NotSource(subnet) => write!(f, "{} saddr != {subnet}", family(subnet.address)),
            Self::Destination(subnet) => write!(f, "{} daddr {subnet}", family(subnet.address)),
            Self::NotDestination(subnet) => write!(f, "{} daddr != {subnet}", family(subnet.address)),
            Self::LocalDestination => f.write_str("fib daddr type local"),
            Self::Port(protocol, ports) => write!(f, "{} dport {ports}", protocol_name(*protocol)),
            Self::SourcePort(protocol, port) => write!(f, "{} sport {port}", protocol_name(*protocol)),
            Self::Answer => f.write_str("ct direction reply"),
            Self::Established => f.write_str("ct state established,related"),
            Self::Translated => f.write_str("ct status dnat"),
        }
    }
}

impl Display for Action {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::Accept => f.write_str("accept"),
            Self::Drop => f.write_str("drop"),
            Self::Masquerade => f.write_str("masquerade"),
            Self::Dnat(to, None) => write!(f, "dnat {} to {to}", family(*to)),
            Self::Dnat(IpAddr::V4(to), Some(ports)) => write!(f, "dnat ip to {to}:{ports}"),
            Self::Dnat(IpAddr::V6(to), Some(ports)) => write!(f, "dnat ip6 to [{to}]:{ports}"),
            Self::Rewrite {
                source,
                destination,
                protocol,
                end,
                port,
            } => {
                let end = match end {
                    End::Source => "sport",
                    End::Destination => "dport",
                };
                let protocol = protocol_name(*protocol);
                write!(
                    f,
                    "ip6 saddr set {source} ip6 daddr set {destination} {protocol} {end} set {port}"
                )
            }
        }
    }
}

impl Display for Subnet {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match (self.address, self.prefix) {
            (IpAddr::V4(_), 32) | (IpAddr::V6(_), 128) => write!(f, "{}", self.address),
            _ => write!(f, "{}/{}", self.address, self.prefix),
        }
    }
}

impl Display for Ports {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self.first == self.last {
            true => write!(f, "{}", self.first),
            false => write!(f, "{}-{}", self.first, self.last),
        }
    }
}

fn protocol_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    }
}

fn family(address: IpAddr) -> &'static str {
    match address {
        IpAddr::V4(_) => "ip",
        IpAddr::V6(_) => "ip6",
    }
}
