//! [`Wanted`]: a run's network, its addresses, names and ports, as they were asked for. Pure.

use std::ffi::OsString;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::recipe::Network;

/// What is asked of a run's network, the kind but for that of the image decided.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The kind.
    pub kind: Network,
    /// What was asked for besides.
    pub asked: Asked,
}

/// What the command line asks of a run's network besides its kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asked {
    /// `--ip`: the address inside.
    pub ip: Option<Ipv4Addr>,
    /// `--ip6`: the address inside.
    pub ip6: Option<Ipv6Addr>,
    /// `--mac`: the hardware address inside.
    pub mac: Option<Mac>,
    /// `--network-alias`: what others on the network call it, besides its name.
    pub aliases: Vec<String>,
    /// `--publish`: ports of the host that lead inside.
    pub publish: Vec<Publish>,
    /// `--dns`: name servers; empty: the image's, else the host's.
    pub dns: Vec<IpAddr>,
    /// `--dns-search`: where short names are looked for; empty: the host's.
    pub dns_search: Vec<String>,
    /// `--add-host`: lines of `/etc/hosts`.
    pub add_hosts: Vec<AddHost>,
    /// `--host-loopback`: whether what the host offers on its own loopback can be reached from inside.
    pub host_loopback: bool,
    /// The folders in which a helper is looked for, as `PATH` has them; only for [`Network::User`].
    pub helpers: OsString,
}

impl Asked {
    /// Refuses what could have no effect on a network of this `kind`.
    pub fn check(&self, kind: &Network) -> Result<(), Pointless> {
        let on_bridge = matches!(kind, Network::Bridge(_) | Network::Private(_));
        let leads_out = matches!(kind, Network::Bridge(_) | Network::User);
        let given = [
            ("--ip", self.ip.is_some(), on_bridge),
            ("--ip6", self.ip6.is_some(), on_bridge),
            ("--mac", self.mac.is_some(), on_bridge),
            ("--network-alias", !self.aliases.is_empty(), on_bridge),
            ("--publish", !self.publish.is_empty(), leads_out),
            ("--host-loopback", self.host_loopback, leads_out),
        ];
        match given.into_iter().find(|(_, given, useful)| *given && !useful) {
            Some((option, ..)) => Err(Pointless {
                option,
                kind: kind.clone(),
            }),
            None => Ok(()),
        }
    }
}

/// Something was asked for that the network of the run cannot have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{option}` has no effect with the network `{kind}`")]
pub struct Pointless {
    /// What.
    pub option: &'static str,
    /// The kind of network.
    pub kind: Network,
}

/// A text that is none of what a network is asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadAsked {
    /// `--publish` with something else than `[[ADDRESS:]HOST:]CONTAINER[/PROTOCOL]`.
    #[error("`{text}` is no port to publish: {why}")]
    Publish {
        /// As written.
        text: String,
        /// What is wrong with it, as a fragment.
        why: String,
    },
    /// `--mac` with something else than six bytes that one interface can have.
    #[error(
        "`{text}` is no hardware address: expected six pairs of hexadecimal digits, such as 02:00:00:00:00:07, and not one of a group"
    )]
    Mac {
        /// As written.
        text: String,
    },
    /// `--add-host` with something else than `NAME:ADDRESS`.
    #[error("`{text}` is no line of `/etc/hosts`: expected NAME:ADDRESS, such as db:10.0.0.7")]
    AddHost {
        /// As written.
        text: String,
    },
    /// A name that no host can have.
    #[error("`{text}` is no host name: expected letters, digits, dots and hyphens")]
    Name {
        /// As written.
        text: String,
    },
}

/// A hardware address (EUI-48).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for Mac {
    type Err = BadAsked;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || BadAsked::Mac {
            text: crate::path::shown(text.as_bytes()),
        };
        let mut bytes = [0; 6];
        let mut pairs = text.split([':', '-']);
        for byte in &mut bytes {
            let pair = pairs
                .next()
                .filter(|pair| pair.len() == 2 && pair.bytes().all(|one| one.is_ascii_hexdigit()));
            *byte = pair
                .and_then(|pair| u8::from_str_radix(pair, 16).ok())
                .ok_or_else(bad)?;
        }
        // The lowest bit of the first byte marks a group's (IEEE 802); the kernel takes neither that nor zero.
        match pairs.next().is_some() || bytes[0] & 1 == 1 || bytes == [0; 6] {
            true => Err(bad()),
            false => Ok(Self(bytes)),
        }
    }
}

impl TryFrom<String> for Mac {
    type Error = BadAsked;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> Self {
        mac.to_string()
    }
}

/// A line of `/etc/hosts`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddHost {
    /// What it is called.
    pub name: String,
    /// Where it is.
    pub address: IpAddr,
}

impl FromStr for AddHost {
    type Err = BadAsked;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || BadAsked::AddHost {
            text: crate::path::shown(text.as_bytes()),
        };
        let (name, address) = text.split_once([':', '=']).ok_or_else(bad)?;
        let address = address
            .strip_prefix('[')
            .and_then(|inner| inner.strip_suffix(']'))
            .unwrap_or(address);
        Ok(Self {
            address: address.parse().map_err(|_| bad())?,
            name: host_name(name)?,
        })
    }
}

/// Returns `text` where it is a host name, or several with dots between (hostname(7)).
pub fn host_name(text: &str) -> Result<String, BadAsked> {
    let letters = |part: &str| {
        let all = part
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
        !part.is_empty() && part.len() <= 63 && all && !part.starts_with('-') && !part.ends_with('-')
    };
    match text.len() <= 253 && text.split('.').all(letters) {
        true => Ok(text.to_owned()),
        false => Err(BadAsked::Name {
            text: crate::path::shown(text.as_bytes()),
        }),
    }
}

/// What runs over a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Connections (tcp(7)).
    Tcp,
    /// Datagrams (udp(7)).
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// Ports that follow one another: at least one, none of them zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Ports {
    /// The lowest.
    pub first: u16,
    /// The highest.
    pub last: u16,
}

impl Ports {
    /// Returns how many they are.
    pub fn count(self) -> u32 {
        u32::from(self.last) - u32::from(self.first) + 1
    }

    fn parse(text: &str) -> Option<Self> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let port = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse::<u16>().ok().filter(|&port| digits && port > 0)
        };
        let (first, last) = (port(first)?, port(last)?);
        (first <= last).then_some(Self { first, last })
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.first == self.last {
            true => write!(f, "{}", self.first),
            false => write!(f, "{}-{}", self.first, self.last),
        }
    }
}

/// Ports of the host that lead to as many of the container's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Publish {
    /// The host's address; `None`: all of them, of both families.
    pub address: Option<IpAddr>,
    /// The host's; `None`: as many as are wanted, that nobody has.
    pub host: Option<Ports>,
    /// The container's.
    pub inside: Ports,
    /// What runs over them.
    pub protocol: Protocol,
}

impl FromStr for Publish {
    type Err = BadAsked;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = |why: String| BadAsked::Publish {
            text: crate::path::shown(text.as_bytes()),
            why,
        };
        let (ports, protocol) = match text.rsplit_once('/') {
            None => (text, Protocol::Tcp),
            Some((ports, "tcp")) => (ports, Protocol::Tcp),
            Some((ports, "udp")) => (ports, Protocol::Udp),
            Some((_, other)) => {
                let shown = crate::path::shown(other.as_bytes());
                return Err(bad(format!("`{shown}` is neither `tcp` nor `udp`")));
            }
        };
        let read = |what: &str, text: &str| {
            Ports::parse(text).ok_or_else(|| {
                let shown = crate::path::shown(text.as_bytes());
                bad(format!("`{shown}` is no port of the {what}: expected one from 1 to 65535, or two such as 8000-8010"))
            })
        };
        let Some((front, inside)) = ports.rsplit_once(':') else {
            return Ok(Self {
                address: None,
                host: None,
                inside: read("container", ports)?,
                protocol,
            });
        };
        let inside = read("container", inside)?;
        let (address, host) = match front.rsplit_once(':') {
            None => (None, front),
            Some((address, host)) => {
                let bare = address
                    .strip_prefix('[')
                    .and_then(|inner| inner.strip_suffix(']'));
                let parsed = match bare {
                    Some(bare) => bare.parse().map(IpAddr::V6).ok(),
                    None => address.parse().map(IpAddr::V4).ok(),
                };
                let address = parsed.ok_or_else(|| {
                    let shown = crate::path::shown(address.as_bytes());
                    bad(format!(
                        "`{shown}` is no address of the host: expected one such as 127.0.0.1 or [::1]"
                    ))
                })?;
                (Some(address), host)
            }
        };
        let host = match host {
            "" => None,
            host => Some(read("host", host)?),
        };
        if let Some(host) = host
            && host.count() != inside.count()
        {
            return Err(bad(format!(
                "there are {} ports of the host for {} of the container",
                host.count(),
                inside.count()
            )));
        }
        Ok(Self {
            address,
            host,
            inside,
            protocol,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publish(text: &str) -> String {
        match text.parse::<Publish>() {
            Ok(one) => format!(
                "{:?} {} {} {}",
                one.address,
                one.host.map_or("any".into(), |host| host.to_string()),
                one.inside,
                one.protocol
            ),
            Err(bad) => bad.to_string(),
        }
    }

    #[test]
    fn ports_are_read_as_people_write_them() {
        assert_eq!(publish("80"), "None any 80 tcp");
        assert_eq!(publish("8080:80"), "None 8080 80 tcp");
        assert_eq!(publish("53:53/udp"), "None 53 53 udp");
        assert_eq!(publish("127.0.0.1:8080:80"), "Some(127.0.0.1) 8080 80 tcp");
        assert_eq!(publish("[::1]:8080:80/tcp"), "Some(::1) 8080 80 tcp");
        assert_eq!(publish("127.0.0.1::80"), "Some(127.0.0.1) any 80 tcp");
        assert_eq!(publish("8000-8010:9000-9010"), "None 8000-8010 9000-9010 tcp");
    }

    #[test]
    fn what_is_no_port_is_refused_with_the_reason() {
        for text in [
            "",
            "0",
            "65536",
            "80/sctp",
            "a:80",
            "8080:",
            "1-2:3",
            "9-8",
            "+80:80",
            "1.2.3:1:2",
            "::1:80:80",
            "[x]:1:2",
        ] {
            assert!(text.parse::<Publish>().is_err(), "{text}");
        }
        assert_eq!(
            publish("1-3:5-6"),
            "`1-3:5-6` is no port to publish: there are 3 ports of the host for 2 of the container"
        );
    }

    #[test]
    fn what_could_have_no_effect_is_refused() {
        let published = Asked {
            publish: vec!["80".parse().unwrap()],
            ..Asked::default()
        };
        for kind in ["none", "host", "private", "ns:blue", "container:web"] {
            let refused = published.check(&kind.parse().unwrap()).unwrap_err();
            assert_eq!(
                (refused.option, refused.kind.to_string().as_str()),
                ("--publish", kind)
            );
        }
        for kind in ["bridge", "user"] {
            assert_eq!(published.check(&kind.parse().unwrap()), Ok(()));
        }
        let addressed = Asked {
            ip: Some(Ipv4Addr::new(10, 0, 0, 7)),
            ..Asked::default()
        };
        assert!(addressed.check(&Network::User).is_err());
        assert!(addressed.check(&"private:db".parse().unwrap()).is_ok());
    }

    #[test]
    fn a_hardware_address_is_one_interfaces() {
        assert_eq!(
            "02:00:0a:0B:00:07".parse::<Mac>().unwrap().to_string(),
            "02:00:0a:0b:00:07"
        );
        for text in [
            "",
            "02:00:00:00:00",
            "01:00:00:00:00:07",
            "00:00:00:00:00:00",
            "02:00:00:00:00:07:08",
            "2:0:0:0:0:7",
        ] {
            assert!(text.parse::<Mac>().is_err(), "{text}");
        }
    }

    #[test]
    fn lines_of_hosts_have_a_name_and_an_address() {
        let line: AddHost = "db.example:fd00::7".parse().unwrap();
        assert_eq!(
            (line.name.as_str(), line.address),
            ("db.example", "fd00::7".parse().unwrap())
        );
        assert!("db:[::1]".parse::<AddHost>().is_ok());
        for text in ["", "db", "db:", ":10.0.0.1", "d b:10.0.0.1", "db:nowhere"] {
            assert!(text.parse::<AddHost>().is_err(), "{text}");
        }
    }
}
