//! [`Limits`]: how much of the machine a container may take, as it was asked for. Pure: text in, checked values out.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::ulimit::Ulimit;

/// All that was asked for. What is left out is not limited.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// `--memory`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Memory>,
    /// `--cpus`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<Cpus>,
    /// `--pids`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pids: Option<Pids>,
    /// `--cpuset`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpuset: Option<CpuSet>,
    /// `--ulimit`; of two for one resource, the later counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ulimits: Vec<Ulimit>,
    /// `--oom-score-adj`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oom_score: Option<OomScore>,
}

impl Limits {
    /// Whether a cgroup is needed: the other limits are each process's own.
    pub fn need_cgroup(&self) -> bool {
        self.memory.is_some() || self.cpus.is_some() || self.pids.is_some() || self.cpuset.is_some()
    }
}

/// A limit that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not a number of bytes.
    #[error("`{text}` is not a size: {why}")]
    Size {
        /// As written.
        text: String,
        /// What is wrong with it, as a fragment.
        why: &'static str,
    },
    /// Less memory than a container can be set up in.
    #[error("`{text}` is too little memory: expected at least {}", Memory::LEAST)]
    TooLittle {
        /// As written.
        text: String,
    },
    /// Not a number of processors.
    #[error(
        "`{text}` is not a number of CPUs: {why}, expected 0.01 to {}, such as 1.5",
        Cpus::MOST
    )]
    Cpus {
        /// As written.
        text: String,
        /// What is wrong with it, as a fragment.
        why: &'static str,
    },
    /// Not a number of processes.
    #[error("`{text}` is not a number of processes: expected 1 to {}", Pids::MOST)]
    Pids {
        /// As written.
        text: String,
    },
    /// Not a list of processors.
    #[error("`{text}` is not a list of CPUs: {why}, expected numbers and ranges, such as 0-1,3")]
    CpuSet {
        /// As written.
        text: String,
        /// What is wrong with it, as a fragment.
        why: String,
    },
    /// Not an adjustment of the out-of-memory score.
    #[error("`{text}` is not an adjustment: expected -1000 to 1000")]
    OomScore {
        /// As written.
        text: String,
    },
}

/// Reads a number of bytes: digits, and `k`, `m`, `g` or `t` for powers of 1024, also written `KiB` and so on.
pub fn parse_size(text: &str) -> Result<u64, Error> {
    let refuse = |why| Error::Size {
        text: text.to_owned(),
        why,
    };
    let end = text
        .bytes()
        .position(|byte| !byte.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    if digits.is_empty() {
        return Err(refuse("expected a number, such as 512m"));
    }
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        "t" | "tib" => 40,
        "kb" | "mb" | "gb" | "tb" => {
            return Err(refuse(
                "its unit can mean two things, expected one such as m or MiB (1024 × 1024)",
            ));
        }
        _ => {
            return Err(refuse(
                "expected a whole number and one of k, m, g, t, such as 512m or 512MiB",
            ));
        }
    };
    digits
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(1 << shift))
        .filter(|bytes| i64::try_from(*bytes).is_ok())
        .ok_or_else(|| refuse("it is more than a machine can have"))
}

/// Bytes of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory(u64);

impl Memory {
    /// What mk itself needs for the set-up, and a small program.
    pub const LEAST: Self = Self(1 << 20);

    /// Returns how many bytes.
    pub fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for Memory {
    type Err = Error;

    /// Reads a size, at least [`Self::LEAST`].
    fn from_str(text: &str) -> Result<Self, Error> {
        match parse_size(text)? {
            bytes if bytes < Self::LEAST.0 => Err(Error::TooLittle {
                text: text.to_owned(),
            }),
            bytes => Ok(Self(bytes)),
        }
    }
}

/// With the largest unit that leaves no rest, such as `64m`.
impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(40, "t"), (30, "g"), (20, "m"), (10, "k")];
        match units
            .iter()
            .find(|(shift, _)| self.0 != 0 && self.0.trailing_zeros() >= *shift)
        {
            Some((shift, unit)) => write!(f, "{}{unit}", self.0 >> shift),
            None => write!(f, "{}", self.0),
        }
    }
}

/// A number of processors, exact to a thousandth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cpus {
    thousandths: u32,
}

impl Cpus {
    /// More than any kernel knows.
    pub const MOST: u32 = 8192;
    /// The span of time over which processor time is counted, in microseconds.
    pub const PERIOD: u64 = 100_000;

    /// Returns how many microseconds of processor time there are in each [`Self::PERIOD`]; the kernel's least is 1000.
    pub fn quota(self) -> u64 {
        u64::from(self.thousandths) * (Self::PERIOD / 1000)
    }
}

impl FromStr for Cpus {
    type Err = Error;

    /// Reads a decimal number with at most three digits behind the point.
    fn from_str(text: &str) -> Result<Self, Error> {
        let refuse = |why| Error::Cpus {
            text: text.to_owned(),
            why,
        };
        let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(whole) || !digits(part) {
            return Err(refuse("it is no decimal number"));
        }
        if part.len() > 3 {
            return Err(refuse("it has more than three digits behind the point"));
        }
        // Three digits at most, so neither the number nor the scale can be out of range.
        let part = part.parse::<u32>().unwrap_or_default() * 10_u32.pow(3 - part.len() as u32);
        let thousandths = whole
            .parse::<u32>()
            .ok()
            .filter(|whole| *whole <= Self::MOST)
            .map(|whole| whole * 1000 + part)
            .filter(|all| *all <= Self::MOST * 1000)
            .ok_or_else(|| refuse("it is too much"))?;
        if thousandths < 10 {
            return Err(refuse("it is too little"));
        }
        Ok(Self { thousandths })
    }
}

/// As a decimal number without zeros at its end.
impl fmt::Display for Cpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, part) = (self.thousandths / 1000, self.thousandths % 1000);
        match part {
            0 => write!(f, "{whole}"),
            part => write!(f, "{whole}.{}", format!("{part:03}").trim_end_matches('0')),
        }
    }
}

/// A number of processes and threads, mk's reaper not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pids(u32);

impl Pids {
    /// One less than the most process ids that a 64-bit kernel has (`PID_MAX_LIMIT`), for the reaper takes one.
    pub const MOST: u32 = 4_194_303;

    /// Returns how many.
    pub fn count(self) -> u32 {
        self.0
    }
}

impl FromStr for Pids {
    type Err = Error;

    /// Reads a whole number.
    fn from_str(text: &str) -> Result<Self, Error> {
        whole(text)
            .filter(|count| (1..=Self::MOST).contains(count))
            .map(Self)
            .ok_or_else(|| Error::Pids {
                text: text.to_owned(),
            })
    }
}

impl fmt::Display for Pids {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Reads digits and nothing else: no sign, no blank.
fn whole(text: &str) -> Option<u32> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits)
}

/// Processors by number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CpuSet {
    /// First and last of each range, in order, none touching the next.
    ranges: Vec<(u32, u32)>,
}

impl CpuSet {
    /// Whether all of `other` is in it.
    pub fn covers(&self, other: &Self) -> bool {
        let within =
            |&(first, last): &(u32, u32)| self.ranges.iter().any(|(from, to)| *from <= first && last <= *to);
        other.ranges.iter().all(within)
    }
}

impl FromStr for CpuSet {
    type Err = Error;

    /// Reads the list format of cpuset(7), without strides.
    fn from_str(text: &str) -> Result<Self, Error> {
        let refuse = |why: String| Error::CpuSet {
            text: text.to_owned(),
            why,
        };
        let mut ranges = Vec::new();
        for word in text.split(',') {
            let (first, last) = word.split_once('-').unwrap_or((word, word));
            let (Some(first), Some(last)) = (whole(first), whole(last)) else {
                return Err(refuse(match word {
                    "" => "there is nothing where a number should be".into(),
                    word => format!("`{word}` is neither a number nor a range"),
                }));
            };
            if last < first {
                return Err(refuse(format!("`{word}` runs backwards")));
            }
            if last >= Cpus::MOST {
                return Err(refuse(format!("there is no CPU {last}")));
            }
            ranges.push((first, last));
        }
        ranges.sort_unstable();
        let mut merged: Vec<(u32, u32)> = Vec::new();
        for (first, last) in ranges {
            match merged.last_mut() {
                Some((_, end)) if first <= *end + 1 => *end = last.max(*end),
                _ => merged.push((first, last)),
            }
        }
        Ok(Self { ranges: merged })
    }
}

impl TryFrom<String> for CpuSet {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<CpuSet> for String {
    fn from(set: CpuSet) -> Self {
        set.to_string()
    }
}

/// As the kernel takes it, such as `0-1,3`.
impl fmt::Display for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (first, last)) in self.ranges.iter().enumerate() {
            let comma = if at > 0 { "," } else { "" };
            match first == last {
                true => write!(f, "{comma}{first}")?,
                false => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

/// How much likelier (or, below zero, less likely) the kernel is to end these processes when memory runs out (proc(5)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OomScore(i16);

impl FromStr for OomScore {
    type Err = Error;

    /// Reads -1000 to 1000.
    fn from_str(text: &str) -> Result<Self, Error> {
        text.parse()
            .ok()
            .filter(|score| (-1000..=1000).contains(score) && !text.starts_with('+'))
            .map(Self)
            .ok_or_else(|| Error::OomScore {
                text: text.to_owned(),
            })
    }
}

impl fmt::Display for OomScore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_1024_and_nothing_else() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("4096b", 4096),
            ("3k", 3 << 10),
            ("64m", 64 << 20),
            ("64M", 64 << 20),
            ("512MiB", 512 << 20),
            ("2g", 2 << 30),
            ("2GiB", 2 << 30),
            ("1t", 1 << 40),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in [
            "",
            "m",
            "-1",
            "+1m",
            "1.5g",
            "64 m",
            " 64m",
            "64mb",
            "64MB",
            "64x",
            "0x10",
            "９m",
            "18446744073709551615",
            "9999999999999t",
            "8388608t",
        ] {
            assert!(parse_size(text).is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn memory_has_a_least_and_is_shown_short() {
        for (text, shown) in [
            ("64m", "64m"),
            ("65536k", "64m"),
            ("1536MiB", "1536m"),
            ("2g", "2g"),
            ("1048577", "1048577"),
        ] {
            assert_eq!(text.parse::<Memory>().unwrap().to_string(), shown);
        }
        for text in ["0", "1", "64k", "1048575"] {
            assert_eq!(
                text.parse::<Memory>().unwrap_err().to_string(),
                format!("`{text}` is too little memory: expected at least 1m")
            );
        }
    }

    #[test]
    fn cpus_are_decimal_numbers() {
        for (text, quota, shown) in [
            ("1.5", 150_000, "1.5"),
            ("2", 200_000, "2"),
            ("0.01", 1000, "0.01"),
            ("0.125", 12_500, "0.125"),
            ("1.0", 100_000, "1"),
            ("8192", 819_200_000, "8192"),
        ] {
            let cpus: Cpus = text.parse().unwrap();
            assert_eq!((cpus.quota(), cpus.to_string().as_str()), (quota, shown));
        }
        for text in [
            "",
            "0",
            "0.0",
            "0.009",
            ".5",
            "1.",
            "-1",
            "+1",
            "1e2",
            "1,5",
            "nan",
            "inf",
            "8193",
            "8192.001",
            "1.0001",
            "99999999999999999999",
        ] {
            assert!(text.parse::<Cpus>().is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn at_least_one_process() {
        assert_eq!("100".parse::<Pids>().unwrap().count(), 100);
        for text in ["0", "", "-1", "+1", "max", "1.0", "4194304", "99999999999"] {
            assert!(text.parse::<Pids>().is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn lists_of_cpus_are_put_in_order() {
        for (text, shown) in [
            ("0", "0"),
            ("0-1,3", "0-1,3"),
            ("3,1,0", "0-1,3"),
            ("2-5,0-3", "0-5"),
            ("1,1", "1"),
            ("7-7", "7"),
        ] {
            assert_eq!(text.parse::<CpuSet>().unwrap().to_string(), shown);
        }
        for text in [
            "",
            ",",
            "0,",
            "a",
            "-1",
            "1-",
            "3-1",
            "0-1-2",
            " 0",
            "0-3:1/2",
            "8192",
            "4294967296",
        ] {
            assert!(text.parse::<CpuSet>().is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn one_set_covers_another() {
        let set = |text: &str| text.parse::<CpuSet>().unwrap();
        assert!(set("0-3").covers(&set("1,3")));
        assert!(set("0-1,3").covers(&set("3")));
        assert!(!set("0-1,3").covers(&set("0-3")));
        assert!(!set("0-1").covers(&set("2")));
    }

    #[test]
    fn adjustments_have_a_range() {
        for text in ["-1000", "0", "500", "1000"] {
            assert_eq!(text.parse::<OomScore>().unwrap().to_string(), text);
        }
        for text in ["", "-1001", "1001", "+5", "5.0", "x", "99999"] {
            assert!(text.parse::<OomScore>().is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn limits_come_back_from_their_document() {
        let limits = Limits {
            memory: Some("64m".parse().unwrap()),
            cpus: Some("1.5".parse().unwrap()),
            pids: Some("10".parse().unwrap()),
            cpuset: Some("0-1,3".parse().unwrap()),
            ulimits: vec!["nofile=10:20".parse().unwrap()],
            oom_score: Some("-3".parse().unwrap()),
        };
        let text = serde_json::to_string(&limits).unwrap();
        assert_eq!(serde_json::from_str::<Limits>(&text).unwrap(), limits);
        assert_eq!(serde_json::from_str::<Limits>("{}").unwrap(), Limits::default());
    }
}
