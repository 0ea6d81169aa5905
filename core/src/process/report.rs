//! What the child tells its parent while it sets the container up, and how it gets there: messages on a channel that
//! a successful exec closes.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::exit::{Fault, Report, Step};
use crate::mounts::apply::Note;
use crate::sys::{SysError, channel};

/// A message, as the parent understands it.
#[derive(Debug)]
pub(super) enum Told {
    /// A step failed: which, at which index, why, and what the filesystem said.
    Failed(Step, u32, SysError, String),
    /// The other side of the container's terminal.
    Terminal(OwnedFd),
    /// The process id of the command, as the parent sees it.
    Command(i32),
    /// The folder that holds the writable layer.
    Layer(OwnedFd),
    /// The container's network namespace.
    Namespace(OwnedFd),
    /// The run's own `/etc/hosts`.
    Hosts(OwnedFd),
    /// A handle on the process that goes on in this one's place.
    Sibling(OwnedFd),
    /// The command was executed, or ended before it could be.
    Nothing,
}

const FAILED: u8 = 0;
const TERMINAL: u8 = 1;
const COMMAND: u8 = 2;
const SIBLING: u8 = 3;
const LAYER: u8 = 4;
const NAMESPACE: u8 = 5;
const HOSTS: u8 = 6;

/// The parent's end.
#[derive(Debug)]
pub(super) struct Listener(OwnedFd);

/// The child's end.
#[derive(Debug)]
pub(super) struct Reporter(OwnedFd);

/// Returns both ends; `name_command` has the kernel say which process is the command.
pub(super) fn channel(name_command: bool) -> Result<(Listener, Reporter), SysError> {
    let (listener, reporter) = channel::pair()?;
    if name_command {
        channel::name_senders(&listener)?;
    }
    Ok((Listener(listener), Reporter(reporter)))
}

impl Reporter {
    /// Tells of a step that failed. Whoever would hear it may be gone; then nobody has to.
    pub(super) fn fault(&self, fault: &Fault, note: &Note) {
        let mut bytes = [0; Report::SIZE];
        let length = Report::encode(fault, note, &mut bytes);
        let _ = channel::send(&self.0, [&[FAILED], &bytes[..length]], None);
    }

    /// Hands over the other side of the terminal.
    pub(super) fn terminal(&self, other_side: BorrowedFd<'_>) -> Result<(), SysError> {
        channel::send(&self.0, [&[TERMINAL], b""], Some(other_side))
    }

    /// Says that this process will be the command.
    pub(super) fn command(&self) -> Result<(), SysError> {
        channel::send(&self.0, [&[COMMAND], b""], None)
    }

    /// Hands over the folder that holds the writable layer.
    pub(super) fn layer(&self, folder: BorrowedFd<'_>) -> Result<(), SysError> {
        channel::send(&self.0, [&[LAYER], b""], Some(folder))
    }

    /// Hands over the network namespace.
    pub(super) fn namespace(&self, namespace: BorrowedFd<'_>) -> Result<(), SysError> {
        channel::send(&self.0, [&[NAMESPACE], b""], Some(namespace))
    }

    /// Hands over the run's own `/etc/hosts`.
    pub(super) fn hosts(&self, file: BorrowedFd<'_>) -> Result<(), SysError> {
        channel::send(&self.0, [&[HOSTS], b""], Some(file))
    }

    /// Hands over the process that goes on in this one's place, which ends now.
    pub(super) fn sibling(&self, handle: BorrowedFd<'_>) -> Result<(), SysError> {
        channel::send(&self.0, [&[SIBLING], b""], Some(handle))
    }
}

impl AsFd for Reporter {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Listener {
    /// Waits for the next message.
    pub(super) fn listen(&self) -> Result<Told, SysError> {
        let mut bytes = [0; 1 + Report::SIZE];
        let received = channel::receive(&self.0, &mut bytes)?;
        let told = match bytes[..received.length].split_first() {
            Some((&FAILED, report)) => Report::decode(report)
                .map(|(step, index, failed, note)| Told::Failed(step, index, failed, note)),
            Some((&TERMINAL, _)) => received.file.map(Told::Terminal),
            Some((&LAYER, _)) => received.file.map(Told::Layer),
            Some((&NAMESPACE, _)) => received.file.map(Told::Namespace),
            Some((&HOSTS, _)) => received.file.map(Told::Hosts),
            Some((&SIBLING, _)) => received.file.map(Told::Sibling),
            Some((&COMMAND, _)) => received.sender.map(Told::Command),
            _ => None,
        };
        Ok(told.unwrap_or(Told::Nothing))
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
