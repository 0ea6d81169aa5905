//! Values of options that have a form of their own: typed text in, a checked value out. No file is looked at here.

use clap::builder::{OsStringValueParser, TypedValueParser};
use mk_core::spec::{Extra, ScratchKind, Tmpfs, Volume};

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

#[cfg(test)]
mod tests {
    use super::*;

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
