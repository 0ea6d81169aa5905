//! [`Network`]: the kind of network that a run has, as recipes and the command line name it.

use std::fmt;
use std::str::FromStr;

/// The network of `--network bridge`, and its bridge.
const USUAL: &str = "mk0";
/// The network of `--network private`.
const USUAL_PRIVATE: &str = "private";

/// The words that stand for a kind of network, for messages and completions.
pub const KINDS: [&str; 7] = [
    "none",
    "host",
    "bridge",
    "private",
    "user",
    "ns:NAME",
    "container:NAME",
];

/// How many bytes a network's name has at most: the kernel takes 15 for an interface (`IFNAMSIZ`, netdevice(7)).
const LONGEST: usize = 15;

/// The kind of network that a run has. Written as it is read: `bridge:mk0` is `bridge`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Network {
    /// A network namespace of its own, with nothing but loopback.
    #[default]
    None,
    /// The host's network namespace.
    Host,
    /// A network namespace on a bridge of the host's, which leads out.
    Bridge(NetName),
    /// A network namespace on a bridge that leads nowhere else.
    Private(NetName),
    /// What the caller can reach, through a helper of the caller's own.
    User,
    /// A network namespace that was made by others (ip-netns(8)).
    Namespace(String),
    /// That of another container.
    Container(String),
}

/// The name of a network, which its bridge has too: a letter or a digit, then letters, digits, `.`, `_` and `-`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetName(String);

/// A text that names no network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadNetwork {
    /// No kind of network is called so.
    #[error("`{text}` is not a kind of network")]
    Kind {
        /// As written.
        text: String,
    },
    /// A name that no network can have.
    #[error(
        "`{name}` is not the name of a network: expected up to {LONGEST} lower-case letters, digits, `.`, `_` and `-`, beginning with a letter or a digit"
    )]
    Name {
        /// As written.
        name: String,
    },
    /// A kind that takes a name, without one.
    #[error("`{text}` does not say which: expected `{kind}:NAME`")]
    Nameless {
        /// As written.
        text: String,
        /// `ns` or `container`.
        kind: &'static str,
    },
    /// A name of a namespace that is a path.
    #[error("`{name}` is not the name of a network namespace: expected one that `ip netns` lists")]
    Namespace {
        /// As written.
        name: String,
    },
}

impl NetName {
    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for NetName {
    type Err = BadNetwork;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let letters = name.bytes().all(|byte| plain(byte) || b"._-".contains(&byte));
        // Names that the kernel keeps for settings of all interfaces, and for the one that each namespace has.
        let kept = ["all", "default", "lo"].contains(&name);
        if name.len() > LONGEST || !letters || kept || !name.bytes().next().is_some_and(plain) {
            return Err(BadNetwork::Name {
                name: crate::path::shown(name.as_bytes()),
            });
        }
        Ok(Self(name.to_owned()))
    }
}

impl FromStr for Network {
    type Err = BadNetwork;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (kind, name) = match text.split_once(':') {
            Some((kind, name)) => (kind, Some(name)),
            None => (text, None),
        };
        match (kind, name) {
            ("none", None) => Ok(Self::None),
            ("host", None) => Ok(Self::Host),
            ("user", None) => Ok(Self::User),
            ("bridge", name) => Ok(Self::Bridge(name.unwrap_or(USUAL).parse()?)),
            ("private", name) => Ok(Self::Private(name.unwrap_or(USUAL_PRIVATE).parse()?)),
            ("ns", Some(name)) if !name.is_empty() => match name.contains('/') || name.starts_with('.') {
                true => Err(BadNetwork::Namespace {
                    name: crate::path::shown(name.as_bytes()),
                }),
                false => Ok(Self::Namespace(name.to_owned())),
            },
            ("container", Some(name)) if !name.is_empty() => Ok(Self::Container(name.to_owned())),
            ("ns", _) => Err(BadNetwork::Nameless {
                text: text.to_owned(),
                kind: "ns",
            }),
            ("container", _) => Err(BadNetwork::Nameless {
                text: text.to_owned(),
                kind: "container",
            }),
            _ => Err(BadNetwork::Kind {
                text: crate::path::shown(text.as_bytes()),
            }),
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Host => f.write_str("host"),
            Self::User => f.write_str("user"),
            Self::Bridge(name) if name.as_str() == USUAL => f.write_str("bridge"),
            Self::Bridge(name) => write!(f, "bridge:{name}"),
            Self::Private(name) if name.as_str() == USUAL_PRIVATE => f.write_str("private"),
            Self::Private(name) => write!(f, "private:{name}"),
            Self::Namespace(name) => write!(f, "ns:{name}"),
            Self::Container(name) => write!(f, "container:{name}"),
        }
    }
}

impl Network {
    /// Whether a recipe may ask for it: what only one machine has is no part of an image.
    pub fn is_portable(&self) -> bool {
        !matches!(self, Self::Namespace(_) | Self::Container(_))
    }

    /// Whether the run gets a network namespace of its own.
    pub fn is_own(&self) -> bool {
        !matches!(self, Self::Host | Self::Namespace(_) | Self::Container(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_written_as_it_is_read() {
        for text in [
            "none",
            "host",
            "bridge",
            "bridge:web",
            "private",
            "private:db-1",
            "user",
            "ns:blue",
            "container:web",
        ] {
            assert_eq!(text.parse::<Network>().unwrap().to_string(), text);
        }
        assert_eq!("bridge:mk0".parse::<Network>().unwrap().to_string(), "bridge");
    }

    #[test]
    fn what_names_no_network_is_refused() {
        for text in [
            "",
            "none:x",
            "briidge",
            "bridge:",
            "bridge:a/b",
            "bridge:-x",
            "bridge:all",
            "bridge:0123456789abcdef",
            "bridge:A",
            "ns",
            "ns:",
            "ns:a/b",
            "ns:..",
            "container",
            "container:",
            "host:x",
        ] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
    }
}
