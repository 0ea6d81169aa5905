//! [`Ulimit`]: how much of one resource each process may take (setrlimit(2)), and what of it can be had. Pure.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::limits::parse_size;

/// A resource that the kernel counts for each process or for each user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Resource {
    /// Address space, in bytes.
    As,
    /// Size of a core file, in bytes.
    Core,
    /// Processor time, in seconds.
    Cpu,
    /// Data segment, in bytes.
    Data,
    /// Size of a file written, in bytes.
    Fsize,
    /// Number of file locks; kernels since 2.4 do not look at it.
    Locks,
    /// Locked memory, in bytes.
    Memlock,
    /// POSIX message queues of the user, in bytes.
    Msgqueue,
    /// Twenty less the lowest nice value.
    Nice,
    /// One more than the highest file descriptor.
    Nofile,
    /// Processes of the user, on the whole machine.
    Nproc,
    /// Resident memory, in bytes; kernels since 2.6 do not look at it.
    Rss,
    /// Highest real-time priority.
    Rtprio,
    /// Processor time without a blocking call under real-time scheduling, in microseconds.
    Rttime,
    /// Queued signals of the user.
    Sigpending,
    /// Stack, in bytes.
    Stack,
}

impl Resource {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::As,
        Self::Core,
        Self::Cpu,
        Self::Data,
        Self::Fsize,
        Self::Locks,
        Self::Memlock,
        Self::Msgqueue,
        Self::Nice,
        Self::Nofile,
        Self::Nproc,
        Self::Rss,
        Self::Rtprio,
        Self::Rttime,
        Self::Sigpending,
        Self::Stack,
    ];

    /// Returns the name that `--ulimit` knows it by: that of setrlimit(2), short and in small letters.
    pub fn name(self) -> &'static str {
        match self {
            Self::As => "as",
            Self::Core => "core",
            Self::Cpu => "cpu",
            Self::Data => "data",
            Self::Fsize => "fsize",
            Self::Locks => "locks",
            Self::Memlock => "memlock",
            Self::Msgqueue => "msgqueue",
            Self::Nice => "nice",
            Self::Nofile => "nofile",
            Self::Nproc => "nproc",
            Self::Rss => "rss",
            Self::Rtprio => "rtprio",
            Self::Rttime => "rttime",
            Self::Sigpending => "sigpending",
            Self::Stack => "stack",
        }
    }

    fn is_bytes(self) -> bool {
        matches!(
            self,
            Self::As
                | Self::Core
                | Self::Data
                | Self::Fsize
                | Self::Memlock
                | Self::Msgqueue
                | Self::Rss
                | Self::Stack
        )
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A soft limit, which a process may raise up to the hard one. `u64::MAX` is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    /// Of what.
    pub resource: Resource,
    /// What holds.
    pub soft: u64,
    /// What it can be raised to.
    pub hard: u64,
}

/// No limit, as the kernel writes it (`RLIM_INFINITY`).
pub const UNLIMITED: u64 = u64::MAX;

/// A `--ulimit` that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Something else than `NAME=SOFT[:HARD]`.
    #[error("`{text}` is not a limit: {why}, expected NAME=SOFT or NAME=SOFT:HARD, such as nofile=1024:4096")]
    Form {
        /// As written.
        text: String,
        /// What is wrong with it, as a fragment.
        why: String,
    },
    /// A name of nothing.
    #[error("`{name}` is not a resource: expected {}", names())]
    Name {
        /// As written.
        name: String,
    },
    /// A soft limit above the hard one.
    #[error("`{text}`: the soft limit is above the hard one")]
    Order {
        /// As written.
        text: String,
    },
}

fn names() -> String {
    let names: Vec<&str> = Resource::ALL.iter().map(|resource| resource.name()).collect();
    let (last, rest) = names.split_last().unwrap_or((&"", &[]));
    format!("{} or {last}", rest.join(", "))
}

impl FromStr for Ulimit {
    type Err = Error;

    /// Reads `NAME=SOFT` (the hard limit is the same) or `NAME=SOFT:HARD`.
    fn from_str(text: &str) -> Result<Self, Error> {
        let refuse = |why: String| Error::Form {
            text: text.to_owned(),
            why,
        };
        let (name, values) = text
            .split_once('=')
            .ok_or_else(|| refuse("there is no `=`".into()))?;
        let resource = Resource::ALL
            .into_iter()
            .find(|resource| resource.name() == name)
            .ok_or_else(|| Error::Name {
                name: name.to_owned(),
            })?;
        let (soft, hard) = values.split_once(':').unwrap_or((values, values));
        let value = |text: &str| {
            value(resource, text).ok_or_else(|| refuse(format!("`{text}` is no value of {name}")))
        };
        let (soft, hard) = (value(soft)?, value(hard)?);
        if soft > hard {
            return Err(Error::Order {
                text: text.to_owned(),
            });
        }
        Ok(Self { resource, soft, hard })
    }
}

fn value(resource: Resource, text: &str) -> Option<u64> {
    match text {
        "unlimited" | "-1" => Some(UNLIMITED),
        text if resource.is_bytes() => parse_size(text).ok(),
        text if text.bytes().all(|byte| byte.is_ascii_digit()) => {
            text.parse().ok().filter(|number| *number != UNLIMITED)
        }
        _ => None,
    }
}

/// As `--ulimit` takes it.
impl fmt::Display for Ulimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |value| match value {
            UNLIMITED => "unlimited".to_owned(),
            value => value.to_string(),
        };
        write!(f, "{}={}:{}", self.resource, shown(self.soft), shown(self.hard))
    }
}

/// A `--ulimit` that was asked for, and what of it there is: its hard limit is above one that mk may not raise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lowered {
    /// What was asked for.
    pub asked: Ulimit,
    /// What is set in its place.
    pub set: Ulimit,
}

impl Ulimit {
    /// Returns what can be set, given the hard limit that holds (`now`), where nothing may be raised.
    pub fn at_most(self, now: u64) -> Self {
        Self {
            soft: self.soft.min(now),
            hard: self.hard.min(now),
            ..self
        }
    }
}

/// Returns one limit for each resource, the one asked for last, and those that had to be lowered to what `hard` says
/// is the hard limit now; `hard` returns `None` where it can be raised to anything.
pub fn settle(asked: &[Ulimit], hard: impl Fn(Resource) -> Option<u64>) -> (Vec<Ulimit>, Vec<Lowered>) {
    let mut settled: Vec<Ulimit> = Vec::new();
    let mut lowered = Vec::new();
    for (at, asked_one) in asked.iter().enumerate() {
        if asked[at + 1..]
            .iter()
            .any(|later| later.resource == asked_one.resource)
        {
            continue;
        }
        let set = hard(asked_one.resource).map_or(*asked_one, |now| asked_one.at_most(now));
        if set != *asked_one {
            lowered.push(Lowered {
                asked: *asked_one,
                set,
            });
        }
        settled.push(set);
    }
    (settled, lowered)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Ulimit {
        text.parse().unwrap()
    }

    #[test]
    fn a_limit_has_a_soft_and_a_hard_value() {
        for (text, shown) in [
            ("nofile=1024", "nofile=1024:1024"),
            ("nofile=1024:4096", "nofile=1024:4096"),
            ("core=0", "core=0:0"),
            ("core=unlimited", "core=unlimited:unlimited"),
            ("nproc=10:unlimited", "nproc=10:unlimited"),
            ("memlock=-1:-1", "memlock=unlimited:unlimited"),
            ("stack=8m:16m", "stack=8388608:16777216"),
        ] {
            assert_eq!(read(text).to_string(), shown);
        }
        for resource in Resource::ALL {
            assert_eq!(read(&format!("{resource}=1")).resource, resource);
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "nofile",
            "=1",
            "nofile=",
            "nofile=1:",
            "nofile=:1",
            "nofile=1:2:3",
            "nofile=x",
            "nofile=1k",
            "nofile=-2",
            "nofile=+1",
            "NOFILE=1",
            "files=1",
            "nofile=18446744073709551615",
            "nofile=18446744073709551616",
            "stack=8mb",
            "nofile=2:1",
            "nofile=unlimited:1",
            "nofile = 1",
        ] {
            assert!(text.parse::<Ulimit>().is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn of_two_for_one_resource_the_later_counts() {
        let asked = [read("nofile=10"), read("core=0"), read("nofile=20")];
        let (set, lowered) = settle(&asked, |_| None);
        assert_eq!(set, [read("core=0"), read("nofile=20")]);
        assert!(lowered.is_empty());
    }

    #[test]
    fn what_cannot_be_raised_stays() {
        let asked = [read("nofile=10:30"), read("core=unlimited"), read("nproc=5")];
        let (set, lowered) = settle(&asked, |_| Some(20));
        assert_eq!(set, [read("nofile=10:20"), read("core=20"), read("nproc=5")]);
        assert_eq!(lowered.len(), 2);
        assert_eq!(lowered[0].set, read("nofile=10:20"));
    }
}
