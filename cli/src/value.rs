//! Values of options that have a form of their own: typed text in, a checked value out. No file is looked at here.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use clap::builder::{OsStringValueParser, TypedValueParser};

/// `NAME=VALUE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pair {
    /// What stands before the first `=`.
    pub(crate) name: String,
    /// All that stands after it.
    pub(crate) value: String,
}

/// `SRC:DST[:ro]`, with SRC as typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VolumeArg {
    /// A file or folder of the host, perhaps relative to the current folder.
    pub(crate) source: PathBuf,
    /// Where it is shown inside; absolute.
    pub(crate) destination: OsString,
    /// Whether it can be written through.
    pub(crate) read_only: bool,
}

/// `DST[:OPTS]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TmpfsArg {
    /// Where it is mounted; absolute.
    pub(crate) destination: String,
    /// Mount options, such as `size=64m,mode=1777`; empty where none were given.
    pub(crate) options: String,
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

/// Reads `-e NAME=VALUE`. A bare name is refused: nothing is passed on from mk's own environment unasked.
pub(crate) fn variable(text: &str) -> Result<Pair, String> {
    if text.contains('=') || text.is_empty() {
        return assignment(text);
    }
    Err(format!(
        "there is no `=`: to pass your own value on, write `-e {text}=\"${text}\"`"
    ))
}

/// Returns the reader of `-v SRC:DST[:ro]`, which takes any bytes that a path can hold.
pub(crate) fn volume() -> impl TypedValueParser<Value = VolumeArg> {
    OsStringValueParser::new().try_map(|text| parse_volume(&text))
}

/// Returns the reader of `--tmpfs DST[:OPTS]`.
pub(crate) fn tmpfs() -> impl TypedValueParser<Value = TmpfsArg> {
    clap::builder::StringValueParser::new().try_map(|text| parse_tmpfs(&text))
}

fn parse_volume(text: &OsStr) -> Result<VolumeArg, String> {
    let parts: Vec<&[u8]> = text.as_bytes().split(|&byte| byte == b':').collect();
    let shown = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (source, destination, read_only) = match parts[..] {
        [source] => {
            return Err(format!(
                "there is no place inside: expected SRC:DST[:ro], such as `{}:/mnt`",
                shown(source)
            ));
        }
        [source, destination] => (source, destination, false),
        [source, destination, b"ro"] => (source, destination, true),
        [source, destination, b"rw"] => (source, destination, false),
        [_, _, option] => {
            return Err(format!(
                "`{}` is not an option of a volume: expected `ro` or `rw`",
                shown(option)
            ));
        }
        _ => return Err("it has too many `:`: expected SRC:DST[:ro]".into()),
    };
    if source.is_empty() {
        return Err("there is no source before the `:`: expected SRC:DST[:ro]".into());
    }
    if !destination.starts_with(b"/") {
        return Err(format!(
            "`{}` is not a path inside: expected one that starts with `/`",
            shown(destination)
        ));
    }
    Ok(VolumeArg {
        source: PathBuf::from(OsStr::from_bytes(source)),
        destination: OsStr::from_bytes(destination).to_owned(),
        read_only,
    })
}

fn parse_tmpfs(text: &str) -> Result<TmpfsArg, String> {
    let (destination, options) = text.split_once(':').unwrap_or((text, ""));
    if !destination.starts_with('/') {
        return Err(format!(
            "`{destination}` is not a path inside: expected one that starts with `/`"
        ));
    }
    Ok(TmpfsArg {
        destination: destination.into(),
        options: options.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_has_a_source_a_destination_and_perhaps_ro() {
        let read = |text: &str| parse_volume(OsStr::new(text));
        let volume = |read_only| VolumeArg {
            source: "a".into(),
            destination: "/b".into(),
            read_only,
        };
        assert_eq!(read("a:/b"), Ok(volume(false)));
        assert_eq!(read("a:/b:rw"), Ok(volume(false)));
        assert_eq!(read("a:/b:ro"), Ok(volume(true)));
        for text in ["", "a", ":/b", "a:", "a:b", "a:/b:", "a:/b:rx", "a:/b:ro:ro"] {
            assert!(read(text).is_err(), "{text:?} was accepted");
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
        assert!(variable("=b").is_err());
        assert!(variable("").is_err());
    }

    #[test]
    fn a_tmpfs_needs_an_absolute_destination() {
        assert_eq!(parse_tmpfs("/t").unwrap().options, "");
        assert_eq!(
            parse_tmpfs("/t:size=1m,mode=700").unwrap().options,
            "size=1m,mode=700"
        );
        assert!(parse_tmpfs("t").is_err());
    }
}
