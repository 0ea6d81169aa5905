//! What the commands that look after containers share: finding them, and telling of those that are gone.

use std::path::Path;

use mk_core::container::{Error, Found, Gone, Seen, State, Why};

use super::Context;
use crate::report::Failure;
use crate::settings::Flags;

impl Context {
    /// Opens the folder of states, if there is one.
    pub(super) fn state(&self, store: Option<&Path>) -> Result<Option<State>, Failure> {
        let flags = Flags {
            store,
            ..Flags::default()
        };
        Ok(State::open(&self.settings(&flags)?.state)?)
    }

    /// Looks at all containers, and tells of those that were found dead and of those that cannot be read.
    pub(super) fn look(&self, state: Option<&State>) -> Result<Seen, Failure> {
        let Some(state) = state else {
            return Ok(Seen::default());
        };
        let seen = state.look()?;
        self.tell_of(&seen.gone);
        for error in &seen.unreadable {
            let why = std::error::Error::source(error).map(|why| format!(": {why}"));
            self.ui.note(format_args!("{error}{}", why.unwrap_or_default()));
        }
        Ok(seen)
    }

    /// Returns the container that `word` means, whether it lives or not.
    pub(super) fn container(&self, store: Option<&Path>, word: &str) -> Result<Found, Failure> {
        let mut seen = self.look(self.state(store)?.as_ref())?;
        Ok(seen.take(word)?)
    }

    /// Tells of containers that were found dead.
    pub(super) fn tell_of(&self, gone: &[Gone]) {
        for gone in gone {
            let document = &gone.document;
            let named = match &document.name {
                Some(name) => format!("`{name}` ({})", document.id),
                None => document.id.to_string(),
            };
            let keeper = if document.detached {
                "its monitor"
            } else {
                "the mk that ran it"
            };
            let why = match gone.why {
                Why::Killed => format!("{keeper} was killed, and that ended it"),
                Why::Booted => "the machine was started anew".to_owned(),
            };
            self.ui.note(format_args!("container {named} is gone: {why}"));
        }
    }
}

/// Takes out of `seen` the containers that `words` mean, in their order. All must be there, or nothing is done.
pub(super) fn pick(seen: &mut Seen, words: &[String]) -> Result<Vec<Found>, Failure> {
    let mut found: Vec<Found> = Vec::new();
    let mut unknown: Vec<Box<dyn std::error::Error + Send + Sync>> = Vec::new();
    for word in words {
        match seen.take(word) {
            Ok(one) => found.push(one),
            // Named twice: once is enough.
            Err(Error::Unknown { .. }) if found.iter().any(|found| is(found, word)) => {}
            Err(error) => unknown.push(Box::new(error)),
        }
    }
    match unknown.is_empty() {
        true => Ok(found),
        false => Err(Failure::Several(unknown)),
    }
}

/// Returns the process id of a container's command, which must be running.
pub(super) fn command_of(found: &Found) -> Result<i32, Failure> {
    let called = || found.document.called().to_owned();
    match found.document.started {
        _ if !found.is_alive() => Err(Error::Ended { called: called() }.into()),
        Some(started) => Ok(started.command.pid),
        None => Err(Error::NotStarted { called: called() }.into()),
    }
}

fn is(found: &Found, word: &str) -> bool {
    found.document.name.as_deref() == Some(word) || found.document.id.as_str().starts_with(word)
}
