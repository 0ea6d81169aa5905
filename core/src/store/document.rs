//! Flat documents: a first line with a version, then `key value` lines. There is one way to write a value, so that a
//! document can be named by its digest (docs/store.md, "Documents"). Pure.

use std::fmt::Write as _;

/// A text that is no such document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {why}")]
pub struct BadDocument {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong with it, as a fragment.
    pub why: String,
}

/// A document as it is written.
#[derive(Debug)]
pub(crate) struct Writer(String);

impl Writer {
    /// Returns a document of nothing but its first line.
    pub(crate) fn new(header: &str) -> Self {
        Self(format!("{header}\n"))
    }

    /// Adds a line. `key` is one of the format's own words.
    pub(crate) fn line(&mut self, key: &str, value: &str) {
        self.0.push_str(key);
        self.0.push(' ');
        escape(&mut self.0, value, false);
        self.0.push('\n');
    }

    /// Adds a line whose value is several words, each escaped.
    pub(crate) fn words<'a>(&mut self, key: &str, words: impl IntoIterator<Item = &'a str>) {
        self.0.push_str(key);
        for word in words {
            self.0.push(' ');
            escape(&mut self.0, word, true);
        }
        self.0.push('\n');
    }

    /// Adds a line with a name, in which spaces are escaped, and a value.
    pub(crate) fn named(&mut self, key: &str, name: &str, value: &str) {
        self.0.push_str(key);
        self.0.push(' ');
        escape(&mut self.0, name, true);
        self.0.push(' ');
        escape(&mut self.0, value, false);
        self.0.push('\n');
    }

    /// Returns the text.
    pub(crate) fn finish(self) -> String {
        self.0
    }
}

/// The lines of a document behind its first, one after the other.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a str,
    line: usize,
}

impl<'a> Reader<'a> {
    /// Begins to read a document with this first line.
    pub(crate) fn new(bytes: &'a [u8], header: &str) -> Result<Self, BadDocument> {
        let bad = |why: String| BadDocument { line: 1, why };
        let text = std::str::from_utf8(bytes).map_err(|_| bad("it is not UTF-8".into()))?;
        let rest = text
            .strip_prefix(header)
            .and_then(|rest| rest.strip_prefix('\n'))
            .ok_or_else(|| bad(format!("expected `{header}`")))?;
        if !rest.is_empty() && !rest.ends_with('\n') {
            return Err(bad("it is cut short".into()));
        }
        Ok(Self { rest, line: 1 })
    }

    /// Returns the value of the next line if its key is `key`.
    pub(crate) fn take(&mut self, key: &str) -> Option<&'a str> {
        let (line, rest) = self.rest.split_once('\n')?;
        let value = line.strip_prefix(key)?.strip_prefix(' ')?;
        self.rest = rest;
        self.line += 1;
        Some(value)
    }

    /// Returns the unescaped value of the next line if its key is `key`.
    pub(crate) fn text(&mut self, key: &str) -> Result<Option<String>, BadDocument> {
        self.take(key)
            .map(|value| unescape(value, false).ok_or_else(|| self.bad("it is not escaped as it should be")))
            .transpose()
    }

    /// Returns the unescaped words of the next line if its key is `key`.
    pub(crate) fn words(&mut self, key: &str) -> Result<Option<Vec<String>>, BadDocument> {
        let word = |word| unescape(word, true).filter(|word: &String| !word.is_empty());
        self.take(key)
            .map(|value| {
                let words: Option<Vec<String>> = value.split(' ').map(word).collect();
                words.ok_or_else(|| self.bad("it is not escaped as it should be"))
            })
            .transpose()
    }

    /// Returns the name and the value of the next line if its key is `key`.
    pub(crate) fn named(&mut self, key: &str) -> Result<Option<(String, String)>, BadDocument> {
        let read = |text: &str| {
            let (name, value) = text.split_once(' ')?;
            Some((unescape(name, true)?, unescape(value, false)?))
        };
        self.take(key)
            .map(|text| {
                read(text).ok_or_else(|| self.bad("expected a name and a value, escaped as they should be"))
            })
            .transpose()
    }

    /// Returns the value of the next line, which must have this key, read by `read`.
    pub(crate) fn want<T: std::str::FromStr + ToString>(&mut self, key: &str) -> Result<T, BadDocument> {
        let value = self.take(key).ok_or_else(|| BadDocument {
            line: self.line + 1,
            why: format!("expected `{key}`"),
        })?;
        self.exact(value)
    }

    /// Reads `value`, which must be written as its type writes itself.
    pub(crate) fn exact<T: std::str::FromStr + ToString>(&self, value: &str) -> Result<T, BadDocument> {
        let parsed: Option<T> = value.parse().ok();
        parsed
            .filter(|parsed| parsed.to_string() == value)
            .ok_or_else(|| self.bad(&format!("`{}` is not expected here", value.escape_debug())))
    }

    /// Returns a complaint about the line that was read last.
    pub(crate) fn bad(&self, why: &str) -> BadDocument {
        BadDocument {
            line: self.line,
            why: why.to_owned(),
        }
    }

    /// Checks that nothing is left.
    pub(crate) fn finish(self) -> Result<(), BadDocument> {
        match self.rest.lines().next() {
            None => Ok(()),
            Some(line) => Err(BadDocument {
                line: self.line + 1,
                why: format!("`{}` is not expected here", line.escape_debug()),
            }),
        }
    }
}

/// Writes `text` with backslashes and control characters, and for a word spaces, as `\u{hex}`.
fn escape(into: &mut String, text: &str, word: bool) {
    for letter in text.chars() {
        if letter == '\\' || letter.is_control() || (word && letter == ' ') {
            _ = write!(into, "\\u{{{:x}}}", u32::from(letter));
        } else {
            into.push(letter);
        }
    }
}

/// Reads a text that [`escape`] wrote, and nothing else.
fn unescape(text: &str, word: bool) -> Option<String> {
    if !text.contains('\\') && !text.contains(|letter: char| letter.is_control() || (word && letter == ' ')) {
        return Some(text.to_owned());
    }
    let mut found = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        let (hex, after) = after.strip_prefix("u{")?.split_once('}')?;
        found.push_str(before);
        found.push(char::from_u32(u32::from_str_radix(hex, 16).ok()?)?);
        rest = after;
    }
    found.push_str(rest);
    let mut again = String::new();
    escape(&mut again, &found, word);
    (again == text).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_has_one_way_to_be_written() {
        for text in [
            "",
            "plain",
            "two words",
            "back\\slash",
            "line\nline",
            "\u{85}\u{7f}\t",
            "ü \u{1f980}",
        ] {
            for word in [false, true] {
                let mut written = String::new();
                escape(&mut written, text, word);
                assert!(!written.contains('\n'));
                assert_eq!(unescape(&written, word).as_deref(), Some(text));
            }
        }
        for text in [
            "\\",
            "\\n",
            "\\u{41}",
            "\\u{a",
            "\\u{0a}",
            "\\u{A}",
            "\\u{d800}",
            "tab\there",
            "\\u{+a}",
        ] {
            assert_eq!(unescape(text, false), None, "{text:?} was accepted");
        }
        assert_eq!(unescape("\\u{20}", false), None);
        assert_eq!(unescape("a b", true), None);
    }

    #[test]
    fn a_reader_takes_lines_in_their_order_and_nothing_else() {
        let text = b"mk-test 1\nname a b\nsize 12\n";
        let mut reader = Reader::new(text, "mk-test 1").unwrap();
        assert_eq!(reader.text("other").unwrap(), None);
        assert_eq!(reader.text("name").unwrap().unwrap(), "a b");
        assert_eq!(reader.want::<u64>("size").unwrap(), 12);
        reader.finish().unwrap();
        for text in [
            "mk-test 2\n",
            "mk-test 1",
            "mk-test 1\nsize 012\n",
            "mk-test 1\nsize 1",
            "mk-test 1\nsize +1\n",
        ] {
            let size =
                Reader::new(text.as_bytes(), "mk-test 1").and_then(|mut reader| reader.want::<u64>("size"));
            assert!(size.is_err(), "{text:?} was accepted");
        }
        let mut reader = Reader::new(b"mk-test 1\nsize 1\nmore\n", "mk-test 1").unwrap();
        assert_eq!(reader.want::<u64>("size").unwrap(), 1);
        assert_eq!(reader.finish().unwrap_err().line, 3);
    }
}
