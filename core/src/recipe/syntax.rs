//! What the TOML reader says of a text that is no TOML → mistakes in the words of a recipe's author.

use std::ops::Range;

use super::mistake::{Mistake, Place};
use super::raw::{Raw, quoted};

const VALUE: &str = "a value: a text in quotes, a number, a list or a table";

/// Turns TOML's errors into mistakes, the first of each line: those behind it mostly follow from it.
pub(super) fn mistakes(text: &str, errors: &[toml::de::Error]) -> Vec<Mistake> {
    let raw = Raw::new(text);
    // TOML tells what is wrong with the structure before what is wrong with single values.
    let mut places: Vec<(Range<usize>, &str)> = errors
        .iter()
        .map(|error| (place(text, error), error.message()))
        .collect();
    places.sort_by_key(|(span, _)| span.start);
    for (span, message) in places {
        let is_open = is_in_open_list(text, &span);
        note(&raw, span, message);
        if is_open {
            // All that comes behind is read as part of the list.
            break;
        }
    }
    let mut mistakes = raw.into_mistakes();
    mistakes.dedup_by_key(|mistake| Place::of(text, mistake.span.start).line);
    mistakes
}

/// Where the error is: without a place of its own at the end, and never the `0..0` that means "nowhere".
fn place(text: &str, error: &toml::de::Error) -> Range<usize> {
    let span = error.span().unwrap_or(text.len()..text.len());
    match (span == (0..0), text.chars().next()) {
        (true, Some(first)) => 0..first.len_utf8(),
        _ => span,
    }
}

fn note(raw: &Raw<'_>, span: Range<usize>, message: &str) {
    let message = message.trim().replace('\n', ", ");
    let (what, expected) = match message.split_once(", expected ") {
        Some((what, expected)) => (
            what,
            Some(expected.to_owned()).filter(|expected| expected != "nothing"),
        ),
        None => (message.as_str(), None),
    };
    let found = raw.text.get(span.clone()).unwrap_or_default();
    let is_word = !found.is_empty() && !found.starts_with(['"', '\'', '[', '{']);
    match what {
        "duplicate key" => raw.note(
            span.clone(),
            format!("{} is here twice", quoted(found)),
            Some("each name once in a table".to_owned()),
            None,
        ),
        "string values must be quoted" | "invalid float" | "invalid boolean"
            if is_in_open_list(raw.text, &span) =>
        {
            raw.note(
                span.clone(),
                format!("{} is a key in the middle of a list", quoted(found)),
                Some("`]` before it".to_owned()),
                None,
            )
        }
        "string values must be quoted" | "invalid float" | "invalid boolean" if is_word => raw.note(
            span.clone(),
            format!("{} is not a value", quoted(found)),
            Some(VALUE.to_owned()),
            Some(format!("a text stands in quotes: \"{found}\"")),
        ),
        "string values must be quoted" => {
            raw.note(span, "nothing stands behind `=`", Some(VALUE.to_owned()), None)
        }
        "invalid literal string" | "invalid basic string" if found.is_empty() => {
            raw.note(span, "this text is not closed", expected, None)
        }
        "unexpected leading zero" => {
            let digits = number_at(raw.text, span.start);
            raw.note(
                span,
                what,
                Some("a number without one, or a text in quotes".to_owned()),
                Some(format!("a file mode is written in quotes: \"{digits}\"")),
            )
        }
        "missing escaped value" | "invalid escape sequence" => raw.note(
            span,
            "this is not an escape that TOML knows",
            expected,
            Some("in single quotes a backslash stands for itself".to_owned()),
        ),
        _ => raw.note(span, what, expected, None),
    }
}

/// Returns the digits that `at` is among or before.
fn number_at(text: &str, at: usize) -> &str {
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let before = text.get(..at).unwrap_or_default();
    let start = before.trim_end_matches(is_part).len();
    let rest = text.get(start..).unwrap_or_default();
    let length = rest.find(|letter| !is_part(letter)).unwrap_or(rest.len());
    &rest[..length]
}

/// Whether what is at `span` is followed by `=`, though a value is read there: then a list before it is still open.
fn is_in_open_list(text: &str, span: &Range<usize>) -> bool {
    let before = text.get(..span.start).unwrap_or_default();
    let behind = text.get(span.end..).unwrap_or_default();
    let line = &before[before.rfind('\n').map_or(0, |end| end + 1)..];
    line.trim().is_empty()
        && span.start < span.end
        && behind.trim_start_matches([' ', '\t']).starts_with('=')
        && before.contains('[')
        && before.trim_end().ends_with([',', '['])
}
