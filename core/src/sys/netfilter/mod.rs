//! Packet filtering and address translation: tables of nf_tables as plain data ([`Table`]), which can be read in the
//! syntax of nft(8) (`Display`) and be given to the kernel in one transaction ([`Table::make`]), without a process.
//!
//! ```text
//! let table = Table {
//!     name: "mk-web".into(),
//!     owned: true,
//!     chains: vec![Chain {
//!         name: "prerouting",
//!         kind: Kind::Nat,
//!         hook: Hook::Prerouting,
//!         priority: DSTNAT,
//!         rules: vec![Rule::new(
//!             [Match::LocalDestination, Match::Port(Protocol::Tcp, Ports::one(8080))],
//!             Action::Dnat(address, Some(Ports::one(80))),
//!         )],
//!     }],
//! };
//! println!("{table}");            // what `nft list table inet mk-web` will show
//! let owner = table.make()?;      // the table is there until `owner` is dropped, however that comes about
//! ```

use std::net::{IpAddr, Ipv6Addr};

use super::{Errno, SysError};

/// Connections that the kernel knows of.
pub mod conntrack;
/// The bytes of a transaction.
mod encode;
/// What a rule is made of.
mod expressions;
/// What there is of iptables from before nf_tables.
pub mod legacy;
/// What is there already, from the kernel.
mod list;
/// Which interfaces rules let pass.
mod passing;
/// Asking the kernel.
mod socket;
/// The syntax of nft(8).
mod text;

pub use list::{BaseChain, Family, base_chains, tables};
pub use passing::let_in;

/// Priority of chains that see packets before connections are tracked (`raw`).
pub const RAW: i32 = -300;
/// Priority of chains that change where packets go (`dstnat`).
pub const DSTNAT: i32 = -100;
/// Priority of chains that let packets pass or not (`filter`).
pub const FILTER: i32 = 0;
/// Priority of chains that change where packets come from (`srcnat`).
pub const SRCNAT: i32 = 100;

/// A table of the `inet` family, which sees IPv4 and IPv6.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Its name, at most 255 bytes; letters, digits and `/ \ _ . -`.
    pub name: String,
    /// Whether it goes when the socket that made it is closed (`flags owner`, Linux 5.12).
    pub owned: bool,
    /// Its chains, each with another name.
    pub chains: Vec<Chain>,
}

/// A chain that packets come to by themselves. Its policy is to accept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// Its name.
    pub name: &'static str,
    /// What its rules may do.
    pub kind: Kind,
    /// Where packets come to it.
    pub hook: Hook,
    /// Before or after others at the same place: lowest first.
    pub priority: i32,
    /// Its rules, in the order in which they are asked.
    pub rules: Vec<Rule>,
}

/// What the rules of a chain may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Let packets pass, or not.
    Filter,
    /// Change addresses; asked for the first packet of a connection only.
    Nat,
    /// Change headers of what this machine sends, which is then routed by what they say. At [`Hook::Output`] only.
    Route,
}

/// Where packets come to a chain (`NF_INET_*` in linux/netfilter.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// From outside, before it is known where they go.
    Prerouting,
    /// To this machine.
    Input,
    /// Through this machine.
    Forward,
    /// From this machine.
    Output,
    /// On the way out.
    Postrouting,
}

/// What is done with packets for which all of `matches` hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// All of these must hold.
    pub matches: Vec<Match>,
    /// What is done then.
    pub action: Action,
}

/// Something that holds for a packet or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Match {
    /// It came in by the interface of this name, of at most 15 bytes.
    Input(String),
    /// It came in by another.
    NotInput(String),
    /// It goes out by the interface of this name.
    Output(String),
    /// It goes out by another.
    NotOutput(String),
    /// It comes from one of these addresses.
    Source(Subnet),
    /// It comes from another, of the same family.
    NotSource(Subnet),
    /// It goes to one of these addresses.
    Destination(Subnet),
    /// It goes to another, of the same family.
    NotDestination(Subnet),
    /// It goes to an address of this machine's own (`fib daddr type local`).
    LocalDestination,
    /// It goes to one of these ports.
    Port(Protocol, Ports),
    /// It comes from this port.
    SourcePort(Protocol, u16),
    /// It answers whoever began the connection.
    Answer,
    /// It belongs to a connection that was let pass, or to one related to it.
    Established,
    /// It belongs to a connection whose destination was changed.
    Translated,
}

/// What is done with a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It passes this chain; another chain may still drop it.
    Accept,
    /// It is gone.
    Drop,
    /// It gets the address of the interface by which it goes out.
    Masquerade,
    /// It goes to this address instead, and to one of these ports; to the same port where there are none. Packets of
    /// the other family are left alone.
    Dnat(IpAddr, Option<Ports>),
    /// It gets these addresses and this port, and its connection knows nothing of that: what answers must be rewritten
    /// back by another rule. Checksums stay right.
    Rewrite {
        /// Where it comes from.
        source: Ipv6Addr,
        /// Where it goes to.
        destination: Ipv6Addr,
        /// What it is a packet of.
        protocol: Protocol,
        /// Which of its ports changes.
        end: End,
        /// What that becomes.
        port: u16,
    },
}

/// One of the two ends of a connection, as a packet names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Who sent it.
    Source,
    /// Who gets it.
    Destination,
}

/// Addresses that begin with the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subnet {
    /// The first; all bits after the prefix are 0.
    pub address: IpAddr,
    /// How many bits are the same: at most 32 of IPv4, 128 of IPv6.
    pub prefix: u8,
}

/// A protocol with ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// tcp(7).
    Tcp,
    /// udp(7).
    Udp,
}

/// Ports from the first to the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    /// The first.
    pub first: u16,
    /// The last, which is not below the first.
    pub last: u16,
}

/// Why there is no such table.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No nf_tables in this kernel, and no module to load.
    #[error("this kernel has no nf_tables")]
    NotThere(#[source] SysError),
    /// The kernel refused one command, and with it all of them.
    #[error("the kernel refused `nft {command}`")]
    Refused {
        /// The command, as one would give it to nft(8).
        command: String,
        /// Why: `ENOENT` of a rule is an expression that this kernel does not have.
        #[source]
        failed: SysError,
    },
    /// It could not be asked, or must not be (`EPERM`: no `CAP_NET_ADMIN`).
    #[error("cannot ask the kernel for nf_tables")]
    Sys(#[source] SysError),
}

impl Error {
    /// Returns what the kernel answered.
    pub fn errno(&self) -> Errno {
        match self {
            Self::NotThere(failed) | Self::Refused { failed, .. } | Self::Sys(failed) => failed.errno,
        }
    }
}

impl Rule {
    /// Returns the rule that does `action` where all of `matches` hold.
    pub fn new(matches: impl IntoIterator<Item = Match>, action: Action) -> Self {
        Self {
            matches: matches.into_iter().collect(),
            action,
        }
    }
}

impl Ports {
    /// Returns the one port.
    pub fn one(port: u16) -> Self {
        Self {
            first: port,
            last: port,
        }
    }
}

impl Subnet {
    /// Returns the subnet of `prefix` bits that `address` is in; a prefix that is too long is the address alone.
    pub fn of(address: IpAddr, prefix: u8) -> Self {
        let address = match address {
            IpAddr::V4(address) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0);
                IpAddr::V4((u32::from(address) & mask).into())
            }
            IpAddr::V6(address) => {
                let mask = u128::MAX
                    .checked_shl(128 - u32::from(prefix.min(128)))
                    .unwrap_or(0);
                IpAddr::V6((u128::from(address) & mask).into())
            }
        };
        let most = if address.is_ipv4() { 32 } else { 128 };
        Self {
            address,
            prefix: prefix.min(most),
        }
    }

    /// Returns the subnet of this one address.
    pub fn only(address: IpAddr) -> Self {
        Self::of(address, 128)
    }
}

#[cfg(test)]
#[expect(clippy::print_stderr, reason = "a skipped test says so")]
mod tests;
