//! [`Excerpt`]: a complaint about a place in a text, drawn with the line and a caret under what is meant.

use std::fmt;
use std::ops::Range;

/// The widest piece of a line that is shown, in characters.
const WIDEST: usize = 72;

/// A place in a file and what is wrong there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Excerpt {
    file: String,
    line: usize,
    column: usize,
    /// The line, tabs as spaces, cut to what a terminal shows.
    shown: String,
    /// Where the carets start and how many they are, in characters of `shown`.
    carets: (usize, usize),
    what: String,
    hint: Option<String>,
}

impl Excerpt {
    /// Points at the bytes `span` of `text`; what lies outside of it points at its end.
    pub(crate) fn new(
        file: String,
        text: &str,
        span: Range<usize>,
        what: String,
        hint: Option<String>,
    ) -> Self {
        let start = floor(text, span.start);
        let end = floor(text, span.end).max(start);
        let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
        let before = text[line_start..start].chars().count();
        let marked = text[start..end.min(line_end).max(start)]
            .trim_end()
            .chars()
            .count()
            .max(1);
        let (shown, carets) = window(text[line_start..line_end].trim_end_matches('\r'), before, marked);
        Self {
            line: text[..start].matches('\n').count() + 1,
            column: before + 1,
            file,
            shown,
            carets,
            what,
            hint,
        }
    }

    /// Returns the advice that goes with it.
    pub(crate) fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

/// Returns `at`, or the start of the character that it falls into.
fn floor(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// Cuts a long line down around what is marked. Control characters become blanks: they would move the cursor.
fn window(line: &str, before: usize, marked: usize) -> (String, (usize, usize)) {
    let letters: Vec<char> = line
        .chars()
        .map(|letter| if letter.is_control() { ' ' } else { letter })
        .collect();
    if letters.len() <= WIDEST {
        return (letters.into_iter().collect(), (before, marked));
    }
    let from = before
        .saturating_sub(WIDEST / 3)
        .min(letters.len().saturating_sub(WIDEST));
    let to = (from + WIDEST).min(letters.len());
    let (left, right) = (
        if from > 0 { "…" } else { "" },
        if to < letters.len() { "…" } else { "" },
    );
    let shown = format!("{left}{}{right}", letters[from..to].iter().collect::<String>());
    let caret = before - from + left.chars().count();
    (shown, (caret, marked.min(to.saturating_sub(before)).max(1)))
}

impl fmt::Display for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.line.to_string();
        let margin = " ".repeat(number.len());
        let blank = " ".repeat(self.carets.0);
        let carets = "^".repeat(self.carets.1);
        writeln!(f, "{}, line {}, column {}", self.file, self.line, self.column)?;
        writeln!(f, "{margin} |")?;
        writeln!(f, "{number} | {}", self.shown)?;
        writeln!(f, "{margin} | {blank}{carets}")?;
        f.write_str(&self.what)
    }
}

impl std::error::Error for Excerpt {}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(text: &str, span: Range<usize>) -> String {
        Excerpt::new("a.toml".into(), text, span, "no".into(), None).to_string()
    }

    #[test]
    fn carets_stand_under_what_is_meant() {
        assert_eq!(
            drawn("x\nmode = \"rw\"\n", 9..13),
            "a.toml, line 2, column 8\n  |\n2 | mode = \"rw\"\n  |        ^^^^\nno"
        );
    }

    #[test]
    fn a_span_over_several_lines_marks_the_first() {
        assert_eq!(
            drawn("[a]\nb\n", 0..5),
            "a.toml, line 1, column 1\n  |\n1 | [a]\n  | ^^^\nno"
        );
    }

    #[test]
    fn no_span_of_any_text_makes_it_panic() {
        let long = "ä".repeat(200);
        for text in ["", "\n", "ä", "\t\u{1b}[2J\r\n", &long] {
            for start in 0..text.len() + 2 {
                for end in [start.saturating_sub(1), start, start + 1, start + 90] {
                    let drawing = drawn(text, start..end);
                    assert!(drawing.contains('^') && !drawing.contains('\u{1b}'), "{drawing}");
                    assert!(
                        drawing.lines().all(|line| line.chars().count() <= 80),
                        "{drawing}"
                    );
                }
            }
        }
    }
}
