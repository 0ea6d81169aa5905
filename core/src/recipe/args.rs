//! `{name}` in a text becomes the value of the argument of that name; `{{` and `}}` are the braces themselves.

use std::collections::BTreeMap;
use std::ops::Range;

/// The declared arguments by name; `None` where the value is itself a mistake, already told.
pub(super) type Args = BTreeMap<String, Option<String>>;

/// What is wrong with the braces of a text.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Slip {
    /// Bytes of the text, from its brace on.
    pub(super) at: Range<usize>,
    /// What it is.
    pub(super) kind: SlipKind,
}

/// What can be wrong with a brace.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum SlipKind {
    /// `{name}`, and there is no such argument.
    Unknown(String),
    /// `{…}` with something in it that is no name.
    NoName,
    /// `{` without `}`.
    Unclosed,
    /// `}` without `{`.
    Unopened,
}

/// Whether `name` can be the name of an argument: letters, digits, `_` and `-`, and a letter first.
pub(super) fn is_name(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphabetic())
        && name
            .chars()
            .all(|letter| letter.is_ascii_alphanumeric() || letter == '_' || letter == '-')
}

/// Puts the values in. `Ok(None)`: an argument without a usable value is named, so there is nothing to say.
pub(super) fn fill(text: &str, args: &Args) -> Result<Option<String>, Vec<Slip>> {
    let mut filled = String::with_capacity(text.len());
    let (mut slips, mut usable) = (Vec::new(), true);
    let mut at = 0;
    while let Some(found) = text[at..].find(['{', '}']) {
        filled.push_str(&text[at..at + found]);
        at += found;
        let rest = &text[at..];
        if rest.starts_with("{{") || rest.starts_with("}}") {
            filled.push_str(&rest[..1]);
            at += 2;
            continue;
        }
        match name(rest) {
            Ok(name) => {
                let end = at + name.len() + 2;
                match args.get(name) {
                    Some(Some(value)) => filled.push_str(value),
                    Some(None) => usable = false,
                    None => slips.push(Slip {
                        at: at..end,
                        kind: SlipKind::Unknown(name.to_owned()),
                    }),
                }
                at = end;
            }
            // What follows is most likely not meant for us either: one complaint is enough.
            Err((length, kind)) => {
                slips.push(Slip {
                    at: at..at + length,
                    kind,
                });
                return Err(slips);
            }
        }
    }
    filled.push_str(&text[at..]);
    if slips.is_empty() {
        Ok(usable.then_some(filled))
    } else {
        Err(slips)
    }
}

/// Reads `{name}` from the start of `rest`; otherwise says how many bytes are wrong, and how.
fn name(rest: &str) -> Result<&str, (usize, SlipKind)> {
    let Some(inner) = rest.strip_prefix('{') else {
        return Err((1, SlipKind::Unopened));
    };
    let end = inner.find(['{', '}', '\n']).unwrap_or(inner.len());
    if !inner[end..].starts_with('}') {
        return Err((1, SlipKind::Unclosed));
    }
    let name = &inner[..end];
    if is_name(name) {
        Ok(name)
    } else {
        Err((end + 2, SlipKind::NoName))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args() -> Args {
        Args::from([
            ("who".to_owned(), Some("me".to_owned())),
            ("bad".to_owned(), None),
        ])
    }

    #[test]
    fn arguments_are_put_in_and_doubled_braces_are_braces() {
        for (text, filled) in [
            ("", ""),
            ("plain", "plain"),
            ("hi {who}!", "hi me!"),
            ("{who}{who}", "meme"),
            ("{{who}}", "{who}"),
            ("{{{who}}}", "{me}"),
            ("{{}}", "{}"),
            ("é{who}é", "émeé"),
        ] {
            assert_eq!(fill(text, &args()), Ok(Some(filled.to_owned())), "{text}");
        }
    }

    #[test]
    fn a_value_is_not_read_again() {
        let args = Args::from([("who".to_owned(), Some("{who}".to_owned()))]);
        assert_eq!(fill("{who}", &args), Ok(Some("{who}".to_owned())));
    }

    #[test]
    fn an_argument_that_is_a_mistake_itself_gives_nothing() {
        assert_eq!(fill("a{bad}", &args()), Ok(None));
    }

    #[test]
    fn each_wrong_brace_is_told_with_its_place() {
        for (text, at, kind) in [
            ("a {x}", 2..5, SlipKind::Unknown("x".to_owned())),
            ("a {\"k\": 1}", 2..10, SlipKind::NoName),
            ("{}", 0..2, SlipKind::NoName),
            ("a {who", 2..3, SlipKind::Unclosed),
            ("a {\n}", 2..3, SlipKind::Unclosed),
            ("a } b", 2..3, SlipKind::Unopened),
        ] {
            assert_eq!(fill(text, &args()), Err(vec![Slip { at, kind }]), "{text}");
        }
        assert_eq!(fill("{x} {y} {who}", &args()).unwrap_err().len(), 2);
    }
}
