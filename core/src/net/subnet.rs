//! [`Subnet`] and [`Subnet6`]: the addresses of a network, with the bridge's own among them. Pure.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::spec::network::Mac;

/// A text that is no subnet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadSubnet {
    /// Not an IPv4 address and a length.
    #[error("`{text}` is no subnet: expected an address and 8 to 30 bits, such as 10.5.0.0/24")]
    Four {
        /// As written.
        text: String,
    },
    /// Not an IPv6 address and a length.
    #[error("`{text}` is no subnet: expected an IPv6 address and 8 to 96 bits, such as fd12:3456::/64")]
    Six {
        /// As written.
        text: String,
    },
}

/// The IPv4 addresses of a network. Written as the bridge's own address and the length of the prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Subnet {
    gateway: Ipv4Addr,
    prefix: u8,
}

impl Subnet {
    /// Returns the subnet in which the bridge has the address `gateway`.
    pub const fn new(gateway: Ipv4Addr, prefix: u8) -> Self {
        Self { gateway, prefix }
    }

    /// Returns the bridge's own address.
    pub const fn gateway(self) -> Ipv4Addr {
        self.gateway
    }

    /// Returns how many bits all addresses have in common.
    pub const fn prefix(self) -> u8 {
        self.prefix
    }

    const fn mask(self) -> u32 {
        u32::MAX << (32 - self.prefix)
    }

    /// Returns the first address, which names the network and belongs to nobody.
    pub const fn network(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.gateway.to_bits() & self.mask())
    }

    /// Returns the last address, which means all others.
    pub const fn broadcast(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.gateway.to_bits() | !self.mask())
    }

    /// Returns how many addresses an interface can have, the bridge's among them.
    pub const fn hosts(self) -> u32 {
        (!self.mask()) - 1
    }

    /// Returns the address with the number `number`, counted from 1; `None` where there is no such one.
    pub fn host(self, number: u32) -> Option<Ipv4Addr> {
        let there_is = (1..=self.hosts()).contains(&number);
        there_is.then(|| Ipv4Addr::from_bits(self.network().to_bits() + number))
    }

    /// Returns the number of `address`; `None` where no interface on this network can have it.
    pub fn number(self, address: Ipv4Addr) -> Option<u32> {
        let number = address.to_bits().checked_sub(self.network().to_bits())?;
        (1..=self.hosts()).contains(&number).then_some(number)
    }

    /// Whether some address belongs to both this and the network of `other`, which has `prefix` bits.
    pub fn overlaps(self, other: Ipv4Addr, prefix: u8) -> bool {
        let shorter = self.prefix.min(prefix);
        let mask = u32::MAX.checked_shl(32 - u32::from(shorter)).unwrap_or(0);
        (self.gateway.to_bits() ^ other.to_bits()) & mask == 0
    }

    /// Returns the network alone, without the bridge's address: `192.168.10.0/24`.
    pub fn range(self) -> String {
        format!("{}/{}", self.network(), self.prefix)
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.gateway, self.prefix)
    }
}

impl FromStr for Subnet {
    type Err = BadSubnet;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let read = || {
            let (address, prefix) = text.split_once('/')?;
            let subnet = Self {
                gateway: address.parse().ok()?,
                prefix: length(prefix).filter(|prefix| (8..=30).contains(prefix))?,
            };
            match subnet.gateway == subnet.network() {
                // Who names the network alone leaves the first address to the bridge.
                true => Some(Self {
                    gateway: subnet.host(1)?,
                    ..subnet
                }),
                false => subnet.number(subnet.gateway).map(|_| subnet),
            }
        };
        read().ok_or_else(|| BadSubnet::Four {
            text: crate::path::shown(text.as_bytes()),
        })
    }
}

fn length(text: &str) -> Option<u8> {
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok())?
}

impl TryFrom<String> for Subnet {
    type Error = BadSubnet;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Subnet> for String {
    fn from(subnet: Subnet) -> Self {
        subnet.to_string()
    }
}

/// The IPv6 addresses of a network. Written as the bridge's own address and the length of the prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Subnet6 {
    gateway: Ipv6Addr,
    prefix: u8,
}

impl Subnet6 {
    /// Returns one of the unique local subnets (RFC 4193), whose 56 bits of choice are those of `random`.
    pub fn unique_local(random: u64) -> Self {
        let head = 0xfd << 56 | random >> 8;
        Self {
            gateway: Ipv6Addr::from_bits(u128::from(head) << 64 | 1),
            prefix: 64,
        }
    }

    /// Returns the bridge's own address.
    pub const fn gateway(self) -> Ipv6Addr {
        self.gateway
    }

    /// Returns how many bits all addresses have in common.
    pub const fn prefix(self) -> u8 {
        self.prefix
    }

    const fn mask(self) -> u128 {
        u128::MAX << (128 - self.prefix)
    }

    /// Returns the first address, which names the network.
    pub const fn network(self) -> Ipv6Addr {
        Ipv6Addr::from_bits(self.gateway.to_bits() & self.mask())
    }

    /// Returns the address whose part behind the prefix is `number`.
    pub fn host(self, number: u32) -> Ipv6Addr {
        Ipv6Addr::from_bits(self.network().to_bits() | u128::from(number))
    }

    /// Returns the part of `address` behind the prefix; `None` where no interface on this network can have it.
    pub fn number(self, address: Ipv6Addr) -> Option<u128> {
        let same = (address.to_bits() ^ self.gateway.to_bits()) & self.mask() == 0;
        Some(address.to_bits() & !self.mask()).filter(|&number| same && number != 0)
    }

    /// Returns the network alone, without the bridge's address: `fd12:3456::/64`.
    pub fn range(self) -> String {
        format!("{}/{}", self.network(), self.prefix)
    }
}

impl fmt::Display for Subnet6 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.gateway, self.prefix)
    }
}

impl FromStr for Subnet6 {
    type Err = BadSubnet;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let read = || {
            let (address, prefix) = text.split_once('/')?;
            let subnet = Self {
                gateway: address.parse().ok()?,
                prefix: length(prefix).filter(|prefix| (8..=96).contains(prefix))?,
            };
            // Those of groups and of one link are nobody's to give out (RFC 4291).
            let special = subnet.gateway.is_multicast()
                || subnet.gateway.is_unicast_link_local()
                || subnet.network().is_unspecified();
            match subnet.gateway == subnet.network() {
                _ if special => None,
                true => Some(Self {
                    gateway: subnet.host(1),
                    ..subnet
                }),
                false => Some(subnet),
            }
        };
        read().ok_or_else(|| BadSubnet::Six {
            text: crate::path::shown(text.as_bytes()),
        })
    }
}

impl TryFrom<String> for Subnet6 {
    type Error = BadSubnet;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Subnet6> for String {
    fn from(subnet: Subnet6) -> Self {
        subnet.to_string()
    }
}

/// Returns the hardware address of whoever has `address`: local, of no maker, and the same each time, so that what
/// neighbours remember stays true when the address goes from one container to the next.
pub const fn mac_of(address: Ipv4Addr) -> Mac {
    let [a, b, c, d] = address.octets();
    Mac([0x02, 0x6b, a, b, c, d])
}

/// The first subnet that a network tries: the one of many a tutorial, and of mk's own `mk0`.
const FIRST: Subnet = Subnet::new(Ipv4Addr::new(192, 168, 10, 1), 24);

/// Returns the subnets that a network can have of which nobody said which, the usual one first (RFC 1918).
pub fn candidates() -> impl Iterator<Item = Subnet> {
    let of = |a, b, c| Subnet::new(Ipv4Addr::new(a, b, c, 1), 24);
    let rest = (11..=254).chain(1..10).map(move |c| of(192, 168, c));
    let middle = (16..32).flat_map(move |b| (0..=255).map(move |c| of(172, b, c)));
    let large = (0..=255).rev().map(move |b| of(10, b, 10));
    std::iter::once(FIRST).chain(rest).chain(middle).chain(large)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn four(text: &str) -> Subnet {
        text.parse().unwrap()
    }

    #[test]
    fn a_subnet_is_a_network_or_the_bridges_own_address_in_one() {
        assert_eq!(four("10.5.0.0/24").to_string(), "10.5.0.1/24");
        assert_eq!(four("10.5.0.9/24").to_string(), "10.5.0.9/24");
        assert_eq!(four("10.5.0.9/24").range(), "10.5.0.0/24");
        for text in [
            "10.5.0.0",
            "10.5.0.0/31",
            "10.5.0.0/7",
            "10.5.0.255/24",
            "10.5.0.0/+9",
            "fd00::/64",
            "",
        ] {
            assert!(text.parse::<Subnet>().is_err(), "{text:?} was accepted");
        }
        let six = |text: &str| text.parse::<Subnet6>().map(|subnet| subnet.to_string());
        assert_eq!(six("fd12:3456::/64").unwrap(), "fd12:3456::1/64");
        assert_eq!(six("2001:db8::9/64").unwrap(), "2001:db8::9/64");
        for text in ["fe80::/64", "ff02::/64", "::/64", "fd00::/97", "10.0.0.0/8"] {
            assert!(six(text).is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn hosts_are_counted_without_the_first_and_the_last_address() {
        let subnet = four("192.168.10.1/24");
        assert_eq!(subnet.hosts(), 254);
        assert_eq!(subnet.host(1), Some(subnet.gateway()));
        assert_eq!(subnet.host(254), Some(Ipv4Addr::new(192, 168, 10, 254)));
        assert_eq!((subnet.host(0), subnet.host(255)), (None, None));
        assert_eq!(subnet.number(Ipv4Addr::new(192, 168, 10, 7)), Some(7));
        for outside in [
            [192, 168, 10, 0],
            [192, 168, 10, 255],
            [192, 168, 11, 1],
            [10, 0, 0, 1],
        ] {
            assert_eq!(subnet.number(outside.into()), None, "{outside:?}");
        }
        assert_eq!(four("10.0.0.0/30").hosts(), 2);
    }

    #[test]
    fn two_subnets_overlap_where_one_is_in_the_other() {
        let subnet = four("192.168.10.1/24");
        for (other, prefix) in [
            ([192, 168, 0, 0], 16),
            ([192, 168, 10, 128], 25),
            ([192, 168, 10, 9], 32),
            ([0, 0, 0, 0], 0),
        ] {
            assert!(subnet.overlaps(other.into(), prefix), "{other:?}/{prefix}");
        }
        assert!(!subnet.overlaps([192, 168, 11, 0].into(), 24));
        assert!(!subnet.overlaps([172, 16, 0, 0].into(), 12));
    }

    #[test]
    fn addresses_of_both_families_and_of_the_hardware_go_together() {
        let six = Subnet6::unique_local(0x1234_5678_9abc_def0);
        assert_eq!(six.to_string(), "fd12:3456:789a:bcde::1/64");
        assert_eq!(six.host(7).to_string(), "fd12:3456:789a:bcde::7");
        assert_eq!(six.number(six.host(7)), Some(7));
        assert_eq!(six.number("fd12::7".parse().unwrap()), None);
        assert_eq!(six.number(six.network()), None);
        let mac = mac_of(Ipv4Addr::new(192, 168, 10, 7));
        assert_eq!(mac.to_string(), "02:6b:c0:a8:0a:07");
    }

    #[test]
    fn all_subnets_to_choose_from_are_private_and_differ() {
        let all: Vec<Subnet> = candidates().collect();
        assert_eq!(all[0].to_string(), "192.168.10.1/24");
        assert!(all.iter().all(|one| one.gateway().is_private()));
        let ranges: std::collections::BTreeSet<String> = all.iter().map(|one| one.range()).collect();
        assert_eq!(ranges.len(), all.len());
    }
}
