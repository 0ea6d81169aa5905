//! How a run ended: the command's own ending, or the step of the set-up that failed.

use std::fmt;

use crate::mounts::apply::Note;
use crate::path::shown;
use crate::sys::process::Ending;
use crate::sys::{Errno, SysError};

/// Exit code of a run that mk failed to set up.
pub const MK_FAILED: u8 = 125;
/// Exit code of a command that is there and cannot be executed.
pub const CANNOT_EXECUTE: u8 = 126;
/// Exit code of a command that is not there.
pub const NOT_FOUND: u8 = 127;

/// Returns the code that a shell would show: the command's own, or 128 and the number of the signal that ended it.
pub fn code(ending: Ending) -> u8 {
    match ending {
        Ending::Code(code) => (code & 0xff) as u8,
        Ending::Signal(number) => (128 + number).clamp(0, 255) as u8,
    }
}

/// What the child was doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Step {
    /// Tying itself to its parent.
    Tether,
    /// Saying how soon it is to be ended when memory runs out.
    OomScore,
    /// Entering its cgroups.
    Cgroup,
    /// Becoming root of a user namespace with ids of its own.
    Ids,
    /// Going into the container's namespaces.
    Join,
    /// Going into a network namespace that others have made.
    JoinNetwork,
    /// Keeping its mounts from the host.
    Propagation,
    /// Going to the store's folder.
    Store,
    /// Mounting and filling the writable layer.
    Scratch,
    /// Mounting the root.
    Root,
    /// Putting a mount in place.
    Mount,
    /// Making the root read-only.
    ReadOnly,
    /// Entering the root.
    Enter,
    /// Setting the host name.
    HostName,
    /// Bringing loopback up.
    Loopback,
    /// Giving the interface of its network its addresses and routes.
    Network,
    /// Going to the working directory.
    Workdir,
    /// Starting the process that will run the command.
    Split,
    /// Putting standard input, output and error in place.
    Streams,
    /// Limiting what each process may take.
    Rlimits,
    /// Giving up privileges.
    Privileges,
    /// Becoming the user.
    User,
    /// Giving signals and files their usual state.
    Standard,
    /// Loading the filter of system calls.
    Filter,
    /// Executing the command.
    Exec,
    /// Executing a command that is there, and whose interpreter is not.
    Interpreter,
}

impl Step {
    const ALL: [Self; 26] = [
        Self::Tether,
        Self::OomScore,
        Self::Cgroup,
        Self::Ids,
        Self::Join,
        Self::JoinNetwork,
        Self::Propagation,
        Self::Store,
        Self::Scratch,
        Self::Root,
        Self::Mount,
        Self::ReadOnly,
        Self::Enter,
        Self::HostName,
        Self::Loopback,
        Self::Network,
        Self::Workdir,
        Self::Split,
        Self::Streams,
        Self::Rlimits,
        Self::Privileges,
        Self::User,
        Self::Standard,
        Self::Filter,
        Self::Exec,
        Self::Interpreter,
    ];
}

/// A step that failed, as the child knows it; it fits on the stack and into one write to a pipe.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) step: Step,
    /// Which mount or which candidate.
    pub(super) index: u32,
    pub(super) failed: SysError,
}

/// Names the step of a failure.
pub(super) trait At<T> {
    fn at(self, step: Step) -> Result<T, Fault>;
    fn at_index(self, step: Step, index: usize) -> Result<T, Fault>;
}

impl<T> At<T> for Result<T, SysError> {
    fn at(self, step: Step) -> Result<T, Fault> {
        self.at_index(step, 0)
    }

    fn at_index(self, step: Step, index: usize) -> Result<T, Fault> {
        self.map_err(|failed| Fault {
            step,
            index: index as u32,
            failed,
        })
    }
}

/// A fault as bytes: step, index, errno, then call and note, each behind its length.
pub(super) struct Report;

const LONGEST_CALL: usize = 64;

impl Report {
    pub(super) const SIZE: usize = 9 + 2 + LONGEST_CALL + Note::LONGEST;

    /// Writes `fault` to the front of `into` and returns how many bytes it takes.
    pub(super) fn encode(fault: &Fault, note: &Note, into: &mut [u8; Self::SIZE]) -> usize {
        into[0] = fault.step as u8;
        into[1..5].copy_from_slice(&fault.index.to_ne_bytes());
        into[5..9].copy_from_slice(&fault.failed.errno.raw_os_error().to_ne_bytes());
        let mut end = 9;
        let call = fault.failed.call.as_bytes();
        for text in [&call[..call.len().min(LONGEST_CALL)], note.as_bytes()] {
            into[end] = text.len() as u8;
            into[end + 1..end + 1 + text.len()].copy_from_slice(text);
            end += 1 + text.len();
        }
        end
    }

    /// Reads what [`Self::encode`] wrote: step, index, failure, note.
    pub(super) fn decode(bytes: &[u8]) -> Option<(Step, u32, SysError, String)> {
        let (head, rest) = bytes.split_first_chunk::<9>()?;
        let step = *Step::ALL.get(usize::from(head[0]))?;
        let index = u32::from_ne_bytes(*head[1..].first_chunk()?);
        let errno = i32::from_ne_bytes(*head[5..].first_chunk()?);
        let (call, rest) = field(rest)?;
        let (note, _) = field(rest)?;
        let failed = SysError::new(Errno::from_raw_os_error(errno), shown(call));
        Some((step, index, failed, shown(note)))
    }
}

fn field(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first()?;
    rest.split_at_checked(usize::from(*length))
}

/// A step of the set-up that failed.
#[derive(Debug, thiserror::Error)]
#[error("{}{}", Doing(*.step, .object), said(.note))]
pub struct StepError {
    /// Which step.
    pub step: Step,
    /// What it was about: a mount as `--dry-run` shows it, a path, a name.
    pub object: String,
    /// What the filesystem said to it, where it said something.
    pub note: String,
    /// The call that failed.
    #[source]
    pub failed: SysError,
}

impl StepError {
    /// Returns the exit code that tells of it.
    pub fn exit_code(&self) -> u8 {
        match (self.step, self.failed.errno) {
            (Step::Exec, Errno::NOENT | Errno::NOTDIR) => NOT_FOUND,
            (Step::Exec | Step::Interpreter, _) => CANNOT_EXECUTE,
            _ => MK_FAILED,
        }
    }
}

fn said(note: &str) -> String {
    match note {
        "" => String::new(),
        note => format!(" ({note})"),
    }
}

/// A step in words.
struct Doing<'a>(Step, &'a str);

impl fmt::Display for Doing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(step, object) = self;
        match step {
            Step::Tether => f.write_str("cannot tie the container to mk"),
            Step::OomScore => write!(f, "cannot adjust the out-of-memory score by {object}"),
            Step::Cgroup => f.write_str("cannot enter the container's cgroups"),
            Step::Ids => f.write_str("cannot become root of the container's user namespace"),
            Step::Join => f.write_str("cannot go into the container's namespaces"),
            Step::JoinNetwork => write!(f, "cannot join the network `{object}`"),
            Step::Propagation => f.write_str("cannot keep the container's mounts from the host"),
            Step::Store => write!(f, "cannot go to the store `{object}`"),
            Step::Scratch => f.write_str("cannot make the writable layer"),
            Step::Root => write!(f, "cannot mount the root of layers {object}"),
            Step::Mount => write!(f, "cannot put `{object}` in place"),
            Step::ReadOnly => f.write_str("cannot make the root read-only"),
            Step::Enter => f.write_str("cannot enter the root"),
            Step::HostName => write!(f, "cannot set the host name `{object}`"),
            Step::Loopback => f.write_str("cannot bring loopback up"),
            Step::Network => write!(f, "cannot set up the container's network: `{object}` was refused"),
            Step::Workdir => write!(f, "cannot enter the working directory `{object}`"),
            Step::Split => f.write_str("cannot start the first process"),
            Step::Streams => f.write_str("cannot put standard input, output and error in place"),
            Step::Rlimits => f.write_str("cannot set the limits of processes"),
            Step::Privileges => f.write_str("cannot give up privileges"),
            Step::User => write!(f, "cannot become user {object}"),
            Step::Standard => f.write_str("cannot prepare signals and files for the command"),
            Step::Filter => f.write_str("cannot load the filter of system calls"),
            Step::Exec => write!(f, "cannot execute `{object}`"),
            Step::Interpreter => {
                write!(
                    f,
                    "cannot execute `{object}`: its interpreter or loader is not in the image"
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_those_of_a_shell() {
        assert_eq!(code(Ending::Code(0)), 0);
        assert_eq!(code(Ending::Code(7)), 7);
        assert_eq!(code(Ending::Signal(9)), 137);
        assert_eq!(code(Ending::Signal(15)), 143);
    }

    #[test]
    fn a_fault_comes_back_as_it_was_sent() {
        for (at, step) in Step::ALL.into_iter().enumerate() {
            let fault = Fault {
                step,
                index: at as u32 * 1000,
                failed: SysError::new(Errno::PERM, "fsmount"),
            };
            let mut bytes = [0; Report::SIZE];
            let length = Report::encode(&fault, &Note::new(), &mut bytes);
            let (back, index, failed, note) = Report::decode(&bytes[..length]).unwrap();
            assert_eq!((back, index, note.as_str()), (step, at as u32 * 1000, ""));
            assert_eq!(failed.to_string(), "fsmount: Operation not permitted");
            assert!(Report::decode(&bytes[..length - 1]).is_none());
        }
    }

    #[test]
    fn only_a_command_that_is_missing_is_not_found() {
        let error = |step, errno| StepError {
            step,
            object: "x".into(),
            note: String::new(),
            failed: SysError::new(errno, "execve"),
        };
        assert_eq!(error(Step::Exec, Errno::NOENT).exit_code(), 127);
        assert_eq!(error(Step::Exec, Errno::ACCESS).exit_code(), 126);
        assert_eq!(error(Step::Exec, Errno::NOEXEC).exit_code(), 126);
        assert_eq!(error(Step::Interpreter, Errno::NOENT).exit_code(), 126);
        assert_eq!(error(Step::Workdir, Errno::NOENT).exit_code(), 125);
    }
}
