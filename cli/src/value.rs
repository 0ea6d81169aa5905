//! Values of options that have a form of their own: typed text in, a checked value out. No file is looked at here.

use std::time::Duration;

use clap::builder::{OsStringValueParser, TypedValueParser};
use mk_core::container::{Time, log};
use mk_core::recipe::{BadNetwork, KINDS, Network};
use mk_core::spec::limits::parse_size;
use mk_core::spec::{Extra, ScratchKind, Tmpfs, Volume};
use mk_core::store::Durability;
use mk_core::sys::signal::Signal;

/// `NAME=VALUE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pair {
    /// What stands before the first `=`.
    pub(crate) name: String,
    /// All that stands after it.
    pub(crate) value: String,
}

/// Reads `--arg NAME=VALUE`.
pub(crate) fn assignment(text: &str) -> Result<Pair, String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok(Pair {
            name: name.into(),
            value: value.into(),
        }),
        Some(_) => Err("there is no name before the `=`: expected NAME=VALUE".into()),
        None => Err(format!(
            "there is no `=`: expected NAME=VALUE, such as `{text}=1`"
        )),
    }
}

/// Reads `--durability HOW`.
pub(crate) fn durability(text: &str) -> Result<Durability, String> {
    text.parse().map_err(|()| "expected `full` or `none`".into())
}

/// Reads `-e NAME=VALUE`. A bare name is refused: nothing is passed on from mk's own environment unasked.
pub(crate) fn variable(text: &str) -> Result<Pair, String> {
    if text.contains('=') || text.is_empty() {
        let pair = assignment(text)?;
        return match blank_in_name(&pair.name) {
            Some(why) => Err(why),
            None => Ok(pair),
        };
    }
    Err(format!(
        "there is no `=`: to pass your own value on, write `-e {text}=\"${text}\"`"
    ))
}

/// Returns what is wrong with the name of a variable that holds white space: hardly a program could ask for it.
pub(crate) fn blank_in_name(name: &str) -> Option<String> {
    if !name.contains(char::is_whitespace) {
        return None;
    }
    Some(match name.strip_prefix("export ").map(str::trim) {
        Some(name) => format!("`export` is for shells: leave it out and write `{name}=…`"),
        None => format!("the name `{name}` holds white space, and no shell could read such a variable"),
    })
}

/// Returns the reader of `-v SRC:DST[:OPTS]`, which takes any bytes that a path can hold.
pub(crate) fn volume() -> impl TypedValueParser<Value = Volume> {
    OsStringValueParser::new().try_map(|text| Volume::parse(&text))
}

/// Returns the reader of `--tmpfs DST[:OPTS]`.
pub(crate) fn tmpfs() -> impl TypedValueParser<Value = Tmpfs> {
    OsStringValueParser::new().try_map(|text| Tmpfs::parse(&text))
}

/// Returns the reader of `--mount type=…,target=…,…`.
pub(crate) fn mount() -> impl TypedValueParser<Value = Extra> {
    OsStringValueParser::new().try_map(|text| Extra::parse(&text))
}

/// Returns the reader of `--scratch WHERE`.
pub(crate) fn scratch() -> impl TypedValueParser<Value = ScratchKind> {
    OsStringValueParser::new().try_map(|text| ScratchKind::parse(&text))
}

/// Reads the kind of a network.
pub(crate) fn network(text: &str) -> Result<Network, String> {
    text.parse::<Network>().map_err(|bad| match bad {
        BadNetwork::Kind { .. } => format!("expected one of {}", KINDS.join(", ")),
        other => other.to_string(),
    })
}

/// Reads the size of the largest packet of a network. IPv6 takes 1280 bytes (RFC 8200).
pub(crate) fn mtu(text: &str) -> Result<u32, String> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse()
        .ok()
        .filter(|size| plain && (1280..=65535).contains(size))
        .ok_or_else(|| format!("`{text}` is no size of a packet: expected 1280 to 65535 bytes"))
}

/// Reads a moment: a time, or how long ago.
pub(crate) fn moment(text: &str) -> Result<Time, String> {
    Time::parse(text, Time::now()).map_err(|bad| bad.to_string())
}

/// Reads an age, which may be none at all, as the moment at which what has it was made.
pub(crate) fn age(text: &str) -> Result<Time, String> {
    match text {
        "0" => Ok(Time::now()),
        _ => moment(text),
    }
}

/// Reads a number of bytes.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    parse_size(text).map_err(|bad| bad.to_string())
}

/// Reads a number of seconds, which may have a fraction.
pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    // What `f64` reads besides, such as `inf` and `1e9`, nobody means.
    let plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let number = text.parse().ok().filter(|_| plain);
    number
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| format!("`{text}` is no number of seconds: expected one such as 10 or 0.5"))
}

/// Reads a signal by name or number.
pub(crate) fn signal(text: &str) -> Result<Signal, String> {
    Signal::parse(text).ok_or_else(|| {
        format!("`{text}` is no signal: expected a name such as TERM or a number from 1 to 64")
    })
}

/// Reads how much a log may hold.
pub(crate) fn log_size(text: &str) -> Result<u64, String> {
    match parse_size(text).map_err(|bad| bad.to_string())? {
        size if size >= log::LEAST => Ok(size),
        _ => Err(format!(
            "`{text}` is too little for a log: expected at least {}k",
            log::LEAST >> 10
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_are_plain_numbers() {
        assert_eq!(seconds("0"), Ok(Duration::ZERO));
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        for text in [
            "",
            "-1",
            "inf",
            "1e3",
            "NaN",
            ".",
            "1s",
            "99999999999999999999999",
        ] {
            assert!(seconds(text).is_err(), "{text} was accepted");
        }
        assert_eq!(log_size("64k"), Ok(65536));
        for text in ["", "0", "63k", "x", "-1m"] {
            assert!(log_size(text).is_err(), "{text} was accepted");
        }
    }

    #[test]
    fn the_value_of_a_variable_may_be_empty_and_may_hold_equals_signs() {
        let pair = |name: &str, value: &str| Pair {
            name: name.into(),
            value: value.into(),
        };
        assert_eq!(variable("A="), Ok(pair("A", "")));
        assert_eq!(variable("A=b=c"), Ok(pair("A", "b=c")));
        assert!(variable("A").unwrap_err().contains("-e A=\"$A\""));
        assert!(variable("A B=1").unwrap_err().contains("white space"));
        assert!(variable("export A=1").unwrap_err().contains("`A=…`"));
        assert_eq!(variable("A=b c"), Ok(pair("A", "b c")));
        assert!(variable("=b").is_err());
        assert!(variable("").is_err());
    }
}
