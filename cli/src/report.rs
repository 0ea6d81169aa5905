//! A failure → its text on stderr (what, caused by, hint) and mk's exit code.

use std::error::Error;
use std::fmt;
use std::io;

use crate::hints;
use crate::ui::{Tone, Ui};

/// Something that mk was asked for failed.
pub(crate) const FAILED: u8 = 1;
/// mk was asked in a way that it does not understand.
pub(crate) const USAGE: u8 = 2;
/// `mk run`: mk failed, not the command.
pub(crate) const RUN_FAILED: u8 = 125;

/// Why a command of mk ends early.
#[derive(Debug)]
pub(crate) enum Failure {
    /// An error, whose chain of sources is the whole story.
    Error(Box<dyn Error + Send + Sync>),
    /// Several complaints of one kind.
    Several(Vec<Box<dyn Error + Send + Sync>>),
    /// An error with an exit code of its own.
    Coded(u8, Box<dyn Error + Send + Sync>),
    /// Complaints that are drawn already, each behind `error: `.
    Drawn(String),
    /// Whoever read stdout has gone: nothing failed, and there is nobody to tell.
    ReaderGone,
}

impl<E: Error + Send + Sync + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Error(Box::new(error))
    }
}

impl Failure {
    /// Returns what a failed write to stdout means.
    pub(crate) fn stdout(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::ReaderGone,
            _ => Failing {
                what: "cannot write to stdout".into(),
                hint: None,
                // As text: a disk full behind stdout says nothing of the store's.
                source: Some(error.to_string().into()),
            }
            .into(),
        }
    }
}

/// A failure that only the command line knows: a sentence of its own, perhaps with advice and a cause.
#[derive(Debug)]
pub(crate) struct Failing {
    /// What failed, as a lower-case fragment.
    pub(crate) what: String,
    /// What to do about it.
    pub(crate) hint: Option<String>,
    /// Why it failed.
    pub(crate) source: Option<Box<dyn Error + Send + Sync>>,
}

impl Failing {
    /// Returns a failure without a cause.
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            hint: None,
            source: None,
        }
    }

    /// Adds advice.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds the cause.
    pub(crate) fn because(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }
}

impl fmt::Display for Failing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl Error for Failing {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source
            .as_deref()
            .map(|source| source as &(dyn Error + 'static))
    }
}

/// Tells `failure` on stderr and returns the exit code, which is `failed` where nothing more special holds.
pub(crate) fn tell(ui: &Ui, failure: Failure, failed: u8) -> u8 {
    match failure {
        Failure::Error(error) => {
            ui.say(text(ui, &*error));
            failed
        }
        Failure::Several(errors) => {
            let texts: Vec<String> = errors.iter().map(|error| text(ui, &**error)).collect();
            ui.say(texts.join("\n\n"));
            failed
        }
        Failure::Coded(code, error) => {
            ui.say(text(ui, &*error));
            code
        }
        Failure::Drawn(drawing) => {
            ui.say(painted(ui, &drawing));
            failed
        }
        Failure::ReaderGone => 0,
    }
}

/// Returns the error, its causes and advice, a line each and more where an error has more.
fn text(ui: &Ui, error: &(dyn Error + 'static)) -> String {
    let what = harmless(&error.to_string());
    let mut lines = vec![format!("{} {what}", ui.paint(Tone::Error, "error:"))];
    let mut said = what;
    let mut cause = error.source();
    while let Some(error) = cause {
        let what = harmless(&error.to_string());
        // An error that shows its cause in its own text has said it already.
        if !said.ends_with(&what) {
            lines.push(format!("{} {what}", ui.paint(Tone::Strong, "caused by:")));
        }
        said = what;
        cause = error.source();
    }
    for hint in hints::advice(error)
        .as_deref()
        .map(harmless)
        .iter()
        .flat_map(|hint| hint.lines())
    {
        lines.push(format!("{} {hint}", ui.paint(Tone::Hint, "hint:")));
    }
    lines.join("\n")
}

/// Returns `text` with what a terminal would act on escaped; its lines stay lines.
pub(crate) fn harmless(text: &str) -> String {
    let mut parts = text.split_inclusive(['\n', '\t']);
    parts
        .by_ref()
        .fold(String::with_capacity(text.len()), |mut whole, part| {
            let plain = part.trim_end_matches(['\n', '\t']);
            whole.push_str(&mk_core::path::shown(plain.as_bytes()));
            whole.push_str(&part[plain.len()..]);
            whole
        })
}

/// Returns a drawing with its labels in colour. No line of a recipe begins like a label: each has its number before it.
fn painted(ui: &Ui, drawing: &str) -> String {
    let lines = drawing.lines().map(|line| {
        for (label, tone) in [("error:", Tone::Error), ("hint:", Tone::Hint)] {
            if let Some(rest) = line.strip_prefix(label) {
                return ui.paint(tone, label) + rest;
            }
        }
        line.to_owned()
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Makes a panic say that it is a fault of mk, without a backtrace, and end mk with `code`.
pub(crate) fn on_panic(code: u8) {
    std::panic::set_hook(Box::new(move |panic| {
        let payload = panic.payload();
        let owned = payload.downcast_ref::<String>().map(String::as_str);
        let message = owned.or_else(|| payload.downcast_ref::<&str>().copied());
        let message = message.unwrap_or("something that should not happen has happened");
        let message = message.strip_prefix("mk bug:").unwrap_or(message).trim();
        let place = panic
            .location()
            .map(|place| format!(" ({}:{})", place.file(), place.line()))
            .unwrap_or_default();
        let text = format!(
            "mk bug: {message}{place}\nThis is a fault of mk, not of yours. Please report it, with the command that led here.\n"
        );
        let _ = io::Write::write_all(&mut io::stderr(), text.as_bytes());
        #[expect(
            clippy::exit,
            reason = "another thread of mk may be waiting for the one that has just ended"
        )]
        std::process::exit(code.into())
    }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Environment;

    #[test]
    fn nothing_that_was_typed_acts_on_a_terminal() {
        assert_eq!(harmless("a\u{1b}[31mb\n\tc\r\n"), "a\\u{1b}[31mb\n\tc\\r\n");
        assert_eq!(harmless(""), "");
    }

    #[test]
    fn a_full_stdout_says_nothing_of_the_store() {
        let Failure::Error(error) = Failure::stdout(io::ErrorKind::StorageFull.into()) else {
            panic!("a full disk is an error");
        };
        assert_eq!(hints::advice(&*error), None);
    }

    #[test]
    fn a_failure_is_told_with_its_causes_and_advice_each_once() {
        let inner = Failing::new("no such thing");
        let middle = Failing::new("cannot do it: no such thing").because(inner);
        let outer = Failing::new("cannot start").hint("try harder").because(middle);
        let ui = Ui::new(&Environment::of(&[("NO_COLOR", "1")]));
        assert_eq!(
            text(&ui, &outer),
            "error: cannot start\ncaused by: cannot do it: no such thing\nhint: try harder"
        );
    }
}
