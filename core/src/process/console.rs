//! [`Console`]: the caller's terminal, as long as mk takes what is typed there: whose turn it is, and its modes.
//!
//! mk is a job of the caller's shell like any other. It touches the terminal while it is in the foreground, and no
//! longer: a run that was started with `&` leaves keys and modes to the shell.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use super::keeper::Restore;
use crate::spec::streams::{Keys, Stdio, Streams};
use crate::sys::terminal::{self, Modes};
use crate::sys::{SysError, stdio};

/// How often mk looks whether the keys have become its own: no signal tells that a shell's `fg` has brought a job to the
/// foreground that was running already, nor that a pager has ended.
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// The caller's terminal.
#[derive(Debug)]
pub(super) struct Console {
    modes: Restore,
    /// Whether each key is wanted as it is struck.
    raw: bool,
    is_ours: bool,
}

impl Console {
    /// Opens it, where it is standard input and what is typed is wanted.
    pub(super) fn open(streams: &Streams) -> Result<Option<Self>, SysError> {
        let keys = streams.terminal.map(|terminal| terminal.keys);
        let wanted = match streams.each[0] {
            Stdio::Terminal => matches!(keys, Some(Keys::Each | Keys::Lines)),
            Stdio::Pipe => !streams.detached,
            Stdio::Caller | Stdio::Null => false,
        };
        if !wanted {
            return Ok(None);
        }
        Ok(Some(Self {
            modes: Restore::of(stdio::standard(0)?)?,
            raw: keys == Some(Keys::Each),
            is_ours: false,
        }))
    }

    /// Returns what the keeper needs, where mk changes the modes.
    pub(super) fn restore(&self) -> Result<Option<Restore>, SysError> {
        self.raw.then(|| self.modes.copy()).transpose()
    }

    /// Returns it, to read from.
    pub(super) fn as_file(&self) -> BorrowedFd<'_> {
        self.modes.terminal.as_fd()
    }

    /// Whether it is mk that may read what is typed, as far as was seen last.
    pub(super) fn is_ours(&self) -> bool {
        self.is_ours
    }

    /// Whether it is still there: a terminal that was hung up has no modes.
    pub(super) fn is_there(&self) -> bool {
        Modes::of(&self.modes.terminal).is_ok()
    }

    /// Looks whose turn it is, and makes the terminal raw where it has become mk's.
    pub(super) fn look(&mut self) {
        let here = terminal::is_in_foreground(&self.modes.terminal);
        self.is_ours = here
            && match (self.raw, self.is_ours) {
                (true, true) => true,
                (true, false) => self.modes.ours.set(&self.modes.terminal).is_ok(),
                // Whoever has taken the lines away wants the keys for itself.
                (false, _) => Modes::of(&self.modes.terminal).is_ok_and(|modes| modes.are_lines()),
            };
    }

    /// Looks again after a stop, in which anybody may have changed the modes.
    pub(super) fn look_anew(&mut self) {
        self.is_ours = false;
        self.look();
    }

    /// Gives the terminal back.
    pub(super) fn give_back(&mut self) {
        self.is_ours = false;
        if self.raw {
            self.modes.restore();
        }
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        self.give_back();
    }
}

impl Restore {
    fn of(terminal: OwnedFd) -> Result<Self, SysError> {
        let before = Modes::of(&terminal)?;
        Ok(Self {
            ours: before.raw(),
            before,
            terminal,
        })
    }

    fn copy(&self) -> Result<Self, SysError> {
        Ok(Self {
            terminal: stdio::copy(self.terminal.as_fd())?,
            before: self.before.clone(),
            ours: self.ours.clone(),
        })
    }
}
