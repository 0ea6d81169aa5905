//! [`Carried`]: all that stands between the caller's files and the command's, where those are not the same: the relay, the
//! caller's terminal, and the keeper of what must be put right at the end.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use super::Output;
use super::console::{Console, LOOK_AGAIN};
use super::keeper::{AtEnd, Keeper};
use super::relay::{Relay, Waiting};
use super::streams::{self, Theirs};
use crate::cgroup::Doomed;
use crate::spec::streams::Streams;
use crate::sys::stdio::Until;
use crate::sys::{SysError, signal};

/// What mk carries between the caller and the command; nothing, where that has the caller's own files.
#[derive(Debug)]
pub(super) struct Carried {
    relay: Option<Relay>,
    console: Option<Console>,
    keeper: Option<Keeper>,
}

impl Carried {
    /// Makes what mk and the child need of it, before the clone.
    pub(super) fn prepare(
        wanted: &Streams,
        input: Option<&[u8]>,
        doomed: Option<Doomed>,
    ) -> Result<(Self, Theirs), SysError> {
        let console = Console::open(wanted)?;
        let keeper = Keeper::start(AtEnd {
            terminal: console.as_ref().map(Console::restore).transpose()?.flatten(),
            cgroups: doomed,
        })?;
        let (theirs, ours) = streams::make(wanted, input)?;
        let relay = match wanted.are_direct() {
            true => None,
            false => Some(Relay::new(wanted, ours)?),
        };
        let carried = Self {
            relay,
            console,
            keeper,
        };
        Ok((carried, theirs))
    }

    /// Gives the caller's terminal back, then lets the keeper go.
    pub(super) fn end(&mut self) {
        self.relay = None;
        self.console = None;
        self.keeper = None;
    }

    /// Adds what it waits for.
    pub(super) fn waits_for<'a>(&'a self, list: &mut Vec<(BorrowedFd<'a>, Until)>) -> Waiting {
        match &self.relay {
            Some(relay) => relay.waits_for(self.console.as_ref(), list),
            None => Waiting::default(),
        }
    }

    /// Carries what has come.
    pub(super) fn carry(&mut self, waiting: Waiting, ready: &[bool], output: &mut dyn Output) {
        if let Some(console) = &mut self.console {
            console.look();
        }
        if let Some(relay) = &mut self.relay {
            relay.carry(self.console.as_ref(), waiting, ready, output);
        }
    }

    /// Has what the command has left behind carried to its end.
    pub(super) fn close(&mut self, output: &mut dyn Output) {
        if let Some(relay) = &mut self.relay {
            relay.close(output);
        }
    }

    /// Whether there is no more to carry.
    pub(super) fn is_done(&self) -> bool {
        self.relay.as_ref().is_none_or(Relay::is_done)
    }

    /// Returns how long it can wait at most.
    pub(super) fn patience(&self) -> Option<Duration> {
        let keys = self.console.as_ref().filter(|console| !console.is_ours());
        let again = self.relay.as_ref().and_then(Relay::wakes_at);
        let again = again.map(|at| at.saturating_duration_since(Instant::now()));
        keys.map(|_| LOOK_AGAIN).into_iter().chain(again).min()
    }

    /// Takes over the terminal that the child has made.
    pub(super) fn attach(&mut self, master: OwnedFd) -> Result<(), SysError> {
        match &mut self.relay {
            Some(relay) => relay.attach(master),
            None => Ok(()),
        }
    }

    /// The command runs: what is typed is for it.
    pub(super) fn begin(&mut self) {
        if let Some(console) = &mut self.console {
            console.look();
        }
    }

    /// Passes a new size on, and says whether the command hears of it without a signal of mk's.
    pub(super) fn resize(&self) -> bool {
        self.relay.as_ref().is_some_and(Relay::resize)
    }

    /// Stops this process, with the caller's terminal as it was.
    pub(super) fn stop(&mut self) {
        if let Some(console) = &mut self.console {
            console.give_back();
        }
        signal::stop_self();
    }

    /// Takes up the caller's terminal again after a stop.
    pub(super) fn go_on(&mut self) {
        if let Some(console) = &mut self.console {
            console.look_anew();
        }
    }

    /// Leaves what is not yet carried.
    pub(super) fn abandon(&mut self) {
        self.relay = None;
    }
}
