//! [`Mistake`]: what is wrong with a recipe, where, and what would be right; drawn as text under the line it is in.

use std::fmt;
use std::ops::Range;

use unicode_width::UnicodeWidthChar;

/// How many columns of a source line are shown at the most.
const SHOWN_COLUMNS: usize = 100;
/// How many columns stand before the mistake where a line is too long to be shown whole.
const LEAD_COLUMNS: usize = 30;

/// One thing that is wrong with a recipe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The bytes of the text that it is about; `0..0` where it is about none.
    pub span: Range<usize>,
    /// What was found, and what is wrong with it: a lower-case fragment.
    pub what: String,
    /// What would have been right, as a fragment that follows "expected".
    pub expected: Option<String>,
    /// What to do about it, as a fragment.
    pub hint: Option<String>,
}

/// Everything that is wrong with a recipe, in the order of its text; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistakes(pub Vec<Mistake>);

/// A place in a text, as people count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place<'t> {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// The whole line, without its end.
    pub source: &'t str,
    /// Where the line starts, in bytes from the start of the text.
    pub start: usize,
}

impl<'t> Place<'t> {
    /// Returns the place of byte `at` of `text`; a byte beyond the end, or inside a character, counts as the one before.
    pub fn of(text: &'t str, at: usize) -> Self {
        let at = floor(text, at);
        let start = text[..at].rfind('\n').map_or(0, |end| end + 1);
        let end = text[at..].find('\n').map_or(text.len(), |next| at + next);
        let source = &text[start..end];
        Self {
            line: text[..start].matches('\n').count() + 1,
            column: text[start..at].chars().count() + 1,
            source: source.strip_suffix('\r').unwrap_or(source),
            start,
        }
    }
}

impl Mistake {
    /// Draws the mistake in the file called `name`, whose content is `text`: where, the line, a caret below, in words.
    pub fn render(&self, name: &str, text: &str) -> String {
        let mut drawn = format!("cannot read `{}`", crate::path::shown(name.as_bytes()));
        if self.has_place() {
            let place = Place::of(text, self.span.start);
            drawn += &format!(", line {}, column {}\n", place.line, place.column);
            drawn += &picture(&place, &self.span);
        } else {
            drawn += "\n";
        }
        drawn += &self.to_string();
        if let Some(hint) = &self.hint {
            drawn += &format!("\nhint: {hint}");
        }
        drawn
    }

    /// Whether it is about some place of the text.
    pub fn has_place(&self) -> bool {
        self.span != (0..0)
    }
}

impl Mistakes {
    /// Draws all of them, each as [`Mistake::render`] does and behind `error: `, with an empty line between.
    pub fn render(&self, name: &str, text: &str) -> String {
        let drawn: Vec<String> = self
            .0
            .iter()
            .map(|mistake| format!("error: {}", mistake.render(name, text)))
            .collect();
        drawn.join("\n\n")
    }
}

/// What was found and what was expected, in one line.
impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        match &self.expected {
            Some(expected) => write!(f, ": expected {expected}"),
            None => Ok(()),
        }
    }
}

/// All of them in one line, without their places.
impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, mistake) in self.0.iter().enumerate() {
            let between = if number == 0 { "" } else { "; " };
            write!(f, "{between}{mistake}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Mistakes {}

/// Returns the last character boundary of `text` that is not after `at`.
fn floor(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// Draws the line of `place` with carets below the part of `span` that lies in it.
fn picture(place: &Place<'_>, span: &Range<usize>) -> String {
    let from = floor(place.source, span.start.saturating_sub(place.start));
    let to = floor(place.source, span.end.saturating_sub(place.start)).max(from);
    let before = Cells::of(&place.source[..from]);
    let marked = Cells::of(&place.source[from..to]);
    let after = Cells::of(&place.source[to..]);
    let (line, indent) = if before.width + marked.width + after.width <= SHOWN_COLUMNS {
        (before.text.clone() + &marked.text + &after.text, before.width)
    } else {
        window(&before, &marked, &after)
    };
    let carets = "^".repeat(marked.width.clamp(1, SHOWN_COLUMNS - LEAD_COLUMNS));
    let number = place.line.to_string();
    let margin = " ".repeat(number.len());
    let line = line.trim_end();
    let gap = if line.is_empty() { "" } else { " " };
    format!(
        "{margin} |\n{number} |{gap}{line}\n{margin} | {}{carets}\n",
        " ".repeat(indent)
    )
}

/// Returns the part of a long line around what is marked, and the column at which the mark then starts.
fn window(before: &Cells, marked: &Cells, after: &Cells) -> (String, usize) {
    let (mut line, mut indent) = (String::new(), before.width);
    if before.width > LEAD_COLUMNS {
        let lead = Cells::last(&before.text, LEAD_COLUMNS);
        line.push('…');
        line += &lead.text;
        indent = lead.width + 1;
    } else {
        line += &before.text;
    }
    let room = SHOWN_COLUMNS.saturating_sub(indent);
    let rest = Cells::first(&format!("{}{}", marked.text, after.text), room);
    line += &rest.text;
    if rest.width < marked.width + after.width {
        line.push('…');
    }
    (line, indent)
}

/// Text as a terminal can show it, and how many columns that takes.
struct Cells {
    text: String,
    width: usize,
}

impl Cells {
    /// Turns tabs into four blanks and what a terminal would act on into a replacement character.
    fn of(source: &str) -> Self {
        let mut text = String::with_capacity(source.len());
        for letter in source.chars() {
            match letter {
                '\t' => text.push_str("    "),
                _ if is_unsafe_to_show(letter) => text.push(char::REPLACEMENT_CHARACTER),
                _ => text.push(letter),
            }
        }
        let width = width(&text);
        Self { text, width }
    }

    /// The first letters of `text`, as many as fit into `columns`.
    fn first(text: &str, columns: usize) -> Self {
        let mut taken = Self {
            text: String::new(),
            width: 0,
        };
        for letter in text.chars() {
            let wide = letter.width().unwrap_or(1);
            if taken.width + wide > columns {
                break;
            }
            taken.text.push(letter);
            taken.width += wide;
        }
        taken
    }

    /// The last letters of `text`, as many as fit into `columns`.
    fn last(text: &str, columns: usize) -> Self {
        let backwards: String = text.chars().rev().collect();
        let taken = Self::first(&backwards, columns);
        Self {
            text: taken.text.chars().rev().collect(),
            width: taken.width,
        }
    }
}

/// Columns that `text` takes in a terminal.
fn width(text: &str) -> usize {
    text.chars().map(|letter| letter.width().unwrap_or(1)).sum()
}

/// Whether `letter` would move the cursor, change the terminal or turn the direction of writing.
fn is_unsafe_to_show(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mistake(span: Range<usize>) -> Mistake {
        Mistake {
            span,
            what: "`x` is wrong".to_owned(),
            expected: Some("a y".to_owned()),
            hint: Some("write y".to_owned()),
        }
    }

    #[test]
    fn a_mistake_is_drawn_under_its_line() {
        let text = "a = 1\nmode = \"rw\"\n";
        assert_eq!(
            mistake(13..17).render("r.toml", text),
            "cannot read `r.toml`, line 2, column 8\n  |\n2 | mode = \"rw\"\n  |        ^^^^\n\
             `x` is wrong: expected a y\nhint: write y"
        );
    }

    #[test]
    fn a_mistake_without_a_place_is_drawn_without_a_picture() {
        let drawn = mistake(0..0).render("r.toml", "a = 1\n");
        assert_eq!(
            drawn,
            "cannot read `r.toml`\n`x` is wrong: expected a y\nhint: write y"
        );
    }

    /// The line as drawn and the line of carets below it.
    fn drawn(text: &str, span: Range<usize>) -> (String, String) {
        let drawn = mistake(span).render("r", text);
        let lines: Vec<&str> = drawn.lines().collect();
        (lines[2].to_owned(), lines[3].to_owned())
    }

    #[test]
    fn tabs_and_wide_letters_do_not_move_the_caret() {
        assert_eq!(
            drawn("\ta = 1", 5..6),
            ("1 |     a = 1".into(), "  |         ^".into())
        );
        let text = "s = \"日本\" x";
        let at = text.find('x').unwrap();
        assert_eq!(
            drawn(text, at..at + 1),
            ("1 | s = \"日本\" x".into(), "  |            ^".into())
        );
    }

    #[test]
    fn a_span_over_several_lines_is_marked_to_the_end_of_the_first() {
        assert_eq!(
            drawn("a = [\n1,\n]", 4..10),
            ("1 | a = [".into(), "  |     ^".into())
        );
        assert_eq!(
            drawn("a = \"\"\"b\r\nc\"\"\"", 4..14),
            ("1 | a = \"\"\"b".into(), "  |     ^^^^".into())
        );
    }

    #[test]
    fn a_long_line_is_shown_around_the_mistake() {
        let text = format!("{}HERE{}", "a".repeat(5000), "b".repeat(5000));
        let (line, carets) = drawn(&text, 5000..5004);
        assert!(line.len() < 130 && line.contains("aaHEREbb"), "{line}");
        let column = line.chars().position(|letter| letter == 'H').unwrap();
        assert_eq!(
            carets.chars().position(|letter| letter == '^'),
            Some(column),
            "{line}\n{carets}"
        );
    }

    #[test]
    fn nothing_in_the_text_reaches_the_terminal_raw() {
        let (line, _) = drawn("a = \u{1b}[2J\u{202e}", 0..1);
        assert_eq!(line, "1 | a = \u{fffd}[2J\u{fffd}");
    }

    #[test]
    fn a_span_outside_the_text_is_drawn_at_its_end() {
        for text in ["", "a", "é\n", "\n\n"] {
            for span in [7..9, 1..1, 1..2, 2..9] {
                assert!(mistake(span).render("r", text).contains('^'));
            }
        }
    }
}
