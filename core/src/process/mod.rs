//! Mounts → a running program → an exit status. This file is the parent's side, from clone to the end.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::sys::namespace::{self, Side};
use crate::sys::process::{self, Ending};
use crate::sys::signal::{self, Incoming, Signal, SignalSet};
use crate::sys::{SysError, probe};

mod child;
/// Exit codes, and the step that failed.
pub mod exit;
/// Who is root inside.
pub mod idmap;
mod init;
/// What must be ready before the clone.
pub mod prepare;
/// What the command becomes.
pub mod program;

pub use exit::{Step, StepError};
pub use prepare::Prepared;
pub use program::Program;

/// A run that could not be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A step of the child's failed.
    #[error(transparent)]
    Step(#[from] StepError),
    /// A call of the parent's failed.
    #[error("cannot start the container")]
    Sys(#[from] SysError),
    /// The kernel is older than what mk needs.
    #[error(transparent)]
    TooOld(#[from] probe::TooOld),
    /// A text that cannot be handed to the kernel.
    #[error("{what} holds a NUL byte: `{text}`")]
    Nul {
        /// What it is.
        what: &'static str,
        /// The text.
        text: String,
    },
    /// The store's path cannot be told.
    #[error("cannot tell where the store `{path}` is")]
    Store {
        /// As given.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl Error {
    /// Returns the exit code of `mk run` that tells of it.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Step(step) => step.exit_code(),
            _ => exit::MK_FAILED,
        }
    }
}

/// A container that was started. It ends when this is dropped, and when mk ends in whatever way.
#[derive(Debug)]
pub struct Child {
    ready: Prepared,
    ends: Ends,
    incoming: Incoming,
    blocked_before: SignalSet,
}

/// What the parent holds of the child.
#[derive(Debug)]
struct Ends {
    handle: OwnedFd,
    /// A failed step comes out of it; a successful exec ends it.
    report: OwnedFd,
    /// Nothing is ever written to it: that the kernel closes it when mk ends is the message.
    _tether: OwnedFd,
}

/// Starts what was prepared. Signals are held back from here until [`Child::wait`] returns.
pub fn spawn(ready: Prepared) -> Result<Child, Error> {
    // A caller may have children reaped unseen; then nobody could tell how ours ended.
    signal::reset(ready.ignored_child())?;
    let blocked_before = signal::set_blocked(init::AWAITED)?;
    match start(&ready) {
        Ok((ends, incoming)) => Ok(Child {
            ready,
            ends,
            incoming,
            blocked_before,
        }),
        Err(failed) => {
            signal::set_blocked(blocked_before)?;
            Err(match probe::explain(&failed) {
                Some(too_old) => too_old.into(),
                None => failed.into(),
            })
        }
    }
}

fn start(ready: &Prepared) -> Result<(Ends, Incoming), SysError> {
    let incoming = Incoming::open(ready.forwarded())?;
    let (tethered, tether) = process::pipe()?;
    let (report, reported) = process::pipe()?;
    match namespace::clone(ready.namespaces)? {
        Side::Parent { handle, .. } => {
            let ends = Ends {
                handle,
                report,
                _tether: tether,
            };
            Ok((ends, incoming))
        }
        Side::Child => {
            drop(tether);
            child::run(ready, tethered, reported)
        }
    }
}

/// How long the set-up may still take after the container was asked to end: it usually is over in milliseconds, and
/// takes longer only where the kernel waits for something, such as a server that holds a volume.
const SETUP_GRACE: Duration = Duration::from_secs(1);

/// What the parent knows of the child.
enum Phase {
    /// It is still being set up.
    Starting,
    /// The command runs.
    Running,
    /// A step failed; it is about to end.
    Failed(Error),
}

impl Child {
    /// Waits for the end of the command, and passes on to it the signals that mk gets meanwhile.
    pub fn wait(self) -> Result<Ending, Error> {
        let ended = self.follow();
        signal::set_blocked(self.blocked_before)?;
        ended
    }

    fn follow(&self) -> Result<Ending, Error> {
        let mut phase = Phase::Starting;
        let mut kill_at: Option<Instant> = None;
        loop {
            let left = kill_at.map(|at| at.saturating_duration_since(Instant::now()));
            let ended = self.ends.handle.as_fd();
            let [ended, came, told] = match phase {
                Phase::Starting => {
                    process::poll([ended, self.incoming.as_fd(), self.ends.report.as_fd()], left)?
                }
                _ => {
                    let [ended, came] = process::poll([ended, self.incoming.as_fd()], left)?;
                    [ended, came, false]
                }
            };
            if told {
                phase = self.listen()?;
                // Whoever was asked to end can hear it now, and a process 1 has its own time to do so.
                kill_at = kill_at.and_then(|_| self.stop_at());
            }
            if came && let Some(signal) = self.incoming.next() {
                // It may have ended meanwhile.
                let _ = signal::send(self.ends.handle.as_fd(), signal);
                if signal.asks_to_end() && kill_at.is_none() {
                    kill_at = match phase {
                        Phase::Starting => Instant::now().checked_add(SETUP_GRACE),
                        _ => self.stop_at(),
                    };
                }
            }
            if ended && !told {
                let ending = process::wait(self.ends.handle.as_fd())?;
                return match phase {
                    Phase::Failed(error) => Err(error),
                    _ => Ok(ending),
                };
            }
            if left == Some(Duration::ZERO) && kill_at.is_some() {
                // A process 1 has no default reactions: without a handler of its own it does not notice (kill(2)).
                let _ = signal::send(self.ends.handle.as_fd(), Signal::KILL);
                kill_at = None;
            }
        }
    }

    /// When a command at process 1 that was asked to end now has had its time; any other hears by itself.
    fn stop_at(&self) -> Option<Instant> {
        let timeout = self.ready.as_pid1.then_some(self.ready.stop_timeout)?;
        Instant::now().checked_add(timeout)
    }

    /// Hears from the child: the end of the pipe means that the command runs, bytes that a step failed.
    fn listen(&self) -> Result<Phase, Error> {
        let mut bytes = [0; exit::Report::SIZE];
        let got = process::read(&self.ends.report, &mut bytes)?;
        let Some((step, index, failed, note)) = exit::Report::decode(&bytes[..got]) else {
            return Ok(Phase::Running);
        };
        if let Some(too_old) = probe::explain(&failed) {
            return Ok(Phase::Failed(too_old.into()));
        }
        let object = self.ready.object(step, index as usize);
        let error = StepError {
            step,
            object,
            note,
            failed,
        };
        Ok(Phase::Failed(error.into()))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Both fail where it has been waited for, which is the usual case.
        let _ = signal::send(self.ends.handle.as_fd(), Signal::KILL);
        let _ = process::wait(self.ends.handle.as_fd());
    }
}

impl Prepared {
    fn ignored_child(&self) -> SignalSet {
        let child = SignalSet::of(&[Signal::CHILD]);
        if self.program.ignored.has(Signal::CHILD) {
            child
        } else {
            SignalSet::NONE
        }
    }

    /// Returns what a failed step was about.
    fn object(&self, step: Step, index: usize) -> String {
        use crate::path::shown;
        match step {
            Step::Store => shown(self.store.as_bytes()),
            Step::Root => {
                let text = self.table.to_string();
                format!("`{}`", text.lines().next().unwrap_or_default())
            }
            Step::Mount => {
                let line = self
                    .table
                    .mounts
                    .get(index)
                    .map(ToString::to_string)
                    .unwrap_or_default();
                line.lines().next().unwrap_or_default().to_owned()
            }
            Step::HostName => shown(self.host_name.as_bytes()),
            _ => self.program.object(step, index).unwrap_or_default(),
        }
    }
}
