//! The keeper: a small process that outlives mk by moments, and puts right what no kernel object puts right by itself
//! when mk is killed: the modes of the caller's terminal, and the container's cgroups.
//!
//! It is made only where there is such a thing. It holds nothing of mk's open but a pipe, whose end tells that mk has
//! ended, and the terminal. In a session of its own, no key that is struck and no signal to mk's group reaches it.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use crate::cgroup::Doomed;
use crate::sys::namespace::{self, Namespaces, Side};
use crate::sys::process::Keep;
use crate::sys::signal::{self, SignalSet};
use crate::sys::terminal::Modes;
use crate::sys::{SysError, place, process, stdio};

/// What is to be done when mk ends.
#[derive(Debug, Default)]
pub(super) struct AtEnd {
    /// A terminal of the caller's that mk makes raw.
    pub(super) terminal: Option<Restore>,
    /// The cgroups of the container.
    pub(super) cgroups: Option<Doomed>,
}

/// A terminal, its modes before, and those that mk gives it.
#[derive(Debug)]
pub(super) struct Restore {
    pub(super) terminal: OwnedFd,
    pub(super) before: Modes,
    pub(super) ours: Modes,
}

impl Restore {
    /// Gives the terminal back the modes that it had, unless it has others than those that mk gave it: then somebody
    /// else, the caller's shell perhaps, has taken care of it.
    pub(super) fn restore(&self) {
        if Modes::of(&self.terminal).is_ok_and(|now| now == self.ours) {
            // The shell may have its turn already, and whoever is in the background would be stopped (SIGTTOU).
            let blocked = signal::set_blocked(SignalSet::ALL);
            // The terminal may be gone, and with it what there was to restore.
            let _ = self.before.set(&self.terminal);
            let _ = blocked.map(signal::set_blocked);
        }
    }
}

/// How long the processes of a container, whose end is certain, may take to be gone.
const LAST_PROCESS: Duration = Duration::from_secs(10);

impl AtEnd {
    fn is_nothing(&self) -> bool {
        self.terminal.is_none() && self.cgroups.is_none()
    }

    fn carry_out(&self) {
        if let Some(terminal) = &self.terminal {
            terminal.restore();
        }
        if let Some(cgroups) = &self.cgroups {
            cgroups.remove(LAST_PROCESS);
        }
    }
}

/// The keeper, as mk holds it. Dropped, it is dismissed: mk has done everything itself.
#[derive(Debug)]
pub(super) struct Keeper {
    handle: OwnedFd,
    /// Hangs up when mk ends.
    line: Option<OwnedFd>,
}

impl Keeper {
    /// Starts one for `at_end`, where that is anything. This process must have one thread.
    pub(super) fn start(at_end: AtEnd) -> Result<Option<Self>, SysError> {
        if at_end.is_nothing() {
            return Ok(None);
        }
        let (reader, line) = process::pipe()?;
        match namespace::clone(Namespaces::NOTHING)? {
            Side::Parent { handle, .. } => Ok(Some(Self {
                handle,
                line: Some(line),
            })),
            Side::Child => {
                drop(line);
                keep(&reader, at_end)
            }
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        if let Some(line) = self.line.take() {
            let _ = process::write(line, b"d");
        }
        let _ = process::wait(self.handle.as_fd());
    }
}

/// Waits for the end of mk, and does what is to be done then.
fn keep(mk: &OwnedFd, at_end: AtEnd) -> ! {
    // Whatever of this fails: to wait with less comfort is better than not to wait.
    let _ = signal::set_blocked(SignalSet::ALL);
    let _ = process::own_session();
    process::rename(c"mk-keeper");
    let _ = place::go(c"/");
    let terminal = at_end.terminal.as_ref().map(|restore| restore.terminal.as_fd());
    let _ = process::close_all_but(&Keep::of([mk.as_fd()].into_iter().chain(terminal)));
    // A word means that there is nothing to do any more, and the end without one that mk was killed.
    if stdio::read(mk.as_fd(), &mut [0]) == Ok(0) {
        at_end.carry_out();
    }
    process::exit_now(0)
}
