//! Where words go: data to stdout, talk to stderr, each with or without colour. Never reads the environment.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

use crate::report::Failure;
use crate::settings::Environment;

/// How talk on stderr looks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ui {
    colour: bool,
    /// Whether stderr is a terminal that can move its cursor.
    pub(crate) terminal: bool,
}

/// What a word is, which decides its colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    /// Something failed.
    Error,
    /// Advice.
    Hint,
    /// Something that stops nothing.
    Note,
    /// Stands out without alarming.
    Strong,
    /// Stands back.
    Faint,
}

impl Ui {
    /// Looks at stderr and at what the environment says of colour.
    pub(crate) fn new(environment: &Environment) -> Self {
        let terminal = io::stderr().is_terminal() && environment.text("TERM").as_deref() != Some("dumb");
        Self {
            colour: colour(environment, terminal),
            terminal,
        }
    }

    /// Returns `text` in the colour of `tone`, where stderr shows colours.
    pub(crate) fn paint(&self, tone: Tone, text: impl Display) -> String {
        if !self.colour {
            return text.to_string();
        }
        let code = match tone {
            Tone::Error => "1;31",
            Tone::Hint => "1;36",
            Tone::Note => "1;33",
            Tone::Strong => "1",
            Tone::Faint => "2",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }

    /// Writes one line of talk. Where stderr is closed there is nobody to tell.
    pub(crate) fn say(&self, line: impl Display) {
        let _ = writeln!(io::stderr(), "{line}");
    }

    /// Writes a note: something worth knowing that stops nothing.
    pub(crate) fn note(&self, text: impl Display) {
        self.say(self.noted(text));
    }

    /// Returns the line of a note.
    pub(crate) fn noted(&self, text: impl Display) -> String {
        format!("{} {text}", self.paint(Tone::Note, "note:"))
    }
}

/// NO_COLOR and CLICOLOR as no-color.org and bixense.com/clicolors have it.
fn colour(environment: &Environment, terminal: bool) -> bool {
    let set = |name| environment.text(name).is_some_and(|value| !value.is_empty());
    let is_zero = |name| environment.text(name).as_deref() == Some("0");
    if set("NO_COLOR") {
        false
    } else if set("CLICOLOR_FORCE") && !is_zero("CLICOLOR_FORCE") {
        true
    } else {
        terminal && !is_zero("CLICOLOR")
    }
}

/// Writes `text` and a line end to stdout.
pub(crate) fn data(text: impl Display) -> Result<(), Failure> {
    data_with(|out| writeln!(out, "{text}"))
}

/// Lets `write` write to stdout through a buffer. A reader that has gone away is no error, only the end.
pub(crate) fn data_with(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), Failure> {
    let mut out = io::BufWriter::with_capacity(1 << 16, io::stdout().lock());
    write(&mut out)
        .and_then(|()| out.flush())
        .map_err(Failure::stdout)
}

/// Returns `word` as a person would type it in a shell.
pub(crate) fn quoted(word: &str) -> String {
    let plain = |letter: char| letter.is_alphanumeric() || "-_./:=,@+".contains(letter);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

/// Returns `value` as JSON for people and programs alike.
pub(crate) fn pretty(value: &serde_json::Value) -> String {
    format!("{value:#}")
}

/// Returns a number of bytes as people say it: `512 B`, `4.1 MB` (powers of ten).
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if count < 1000 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1000.0;
    let mut unit = 0;
    // 999.95 would be shown as `1000.0`.
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// Returns `count` and `thing`, with an `s` unless there is one: `1 file`, `3 files`.
pub(crate) fn counted(count: u64, thing: &str) -> String {
    format!("{count} {thing}{}", if count == 1 { "" } else { "s" })
}

/// Returns a time as people say it: `40 ms`, `1.2 s`, `3 min 5 s`.
pub(crate) fn duration(time: std::time::Duration) -> String {
    match time.as_millis() {
        millis @ ..1000 => format!("{millis} ms"),
        ..60_000 => format!("{:.1} s", time.as_secs_f64()),
        _ => format!("{} min {} s", time.as_secs() / 60, time.as_secs() % 60),
    }
}

/// Returns `rows` as lines of columns, each as wide as its widest cell, without spaces at the line ends.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
    };
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn sizes_and_times_read_well() {
        for (count, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (999_949, "999.9 kB"),
            (999_950, "1.0 MB"),
            (4_100_000, "4.1 MB"),
            (u64::MAX, "18.4 EB"),
        ] {
            assert_eq!(bytes(count), text);
        }
        assert_eq!(duration(Duration::from_millis(40)), "40 ms");
        assert_eq!(duration(Duration::from_millis(1240)), "1.2 s");
        assert_eq!(duration(Duration::from_secs(185)), "3 min 5 s");
        assert_eq!(
            (counted(1, "file"), counted(0, "file")),
            ("1 file".into(), "0 files".into())
        );
    }

    #[test]
    fn colour_is_for_terminals_unless_the_environment_says_otherwise() {
        let with = |pairs: &[(&str, &str)], terminal| colour(&Environment::of(pairs), terminal);
        assert!(with(&[], true));
        assert!(!with(&[], false));
        assert!(!with(&[("NO_COLOR", "1")], true));
        assert!(with(&[("NO_COLOR", "")], true));
        assert!(!with(&[("CLICOLOR", "0")], true));
        assert!(with(&[("CLICOLOR_FORCE", "1")], false));
        assert!(!with(&[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")], false));
    }

    #[test]
    fn columns_line_up_and_lines_end_without_spaces() {
        let rows = [
            vec!["NAME".to_owned(), "X".into()],
            vec!["a".into(), String::new()],
        ];
        assert_eq!(table(&rows), "NAME  X\na\n");
    }
}
