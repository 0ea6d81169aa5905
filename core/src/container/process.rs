//! [`Process`]: a process of a container, held so that no other can be taken for it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use super::document::ProcessId;
use crate::sys::process::poll;
use crate::sys::signal::{self, Signal};
use crate::sys::{Errno, SysError, pidfd};

/// A handle on one process, whatever becomes of its number.
#[derive(Debug)]
pub struct Process {
    id: ProcessId,
    handle: OwnedFd,
}

impl ProcessId {
    /// Returns what the process `pid`, which cannot be reaped meanwhile, is known by.
    pub fn of(pid: i32) -> Option<Self> {
        Some(Self {
            pid,
            start: pidfd::start_of(pid)?,
        })
    }

    /// Returns what this process is known by.
    pub fn own() -> Option<Self> {
        Self::of(pidfd::own())
    }
}

impl Process {
    /// Opens the process that `id` means; `None` where it is gone, even if its number is another's by now.
    pub fn open(id: ProcessId) -> Result<Option<Self>, SysError> {
        // In this order: once we hold a handle, the number is looked at, and only its own start lets it pass.
        let Some(handle) = pidfd::open(id.pid)? else {
            return Ok(None);
        };
        Ok((pidfd::start_of(id.pid) == Some(id.start)).then_some(Self { id, handle }))
    }

    /// Returns the number, as it was recorded.
    pub fn pid(&self) -> i32 {
        self.id.pid
    }

    /// Returns the handle on it.
    pub fn into_handle(self) -> OwnedFd {
        self.handle
    }

    /// Sends it a signal, and says whether it was still there to get it.
    pub fn send(&self, signal: Signal) -> Result<bool, SysError> {
        match signal::send(self.handle.as_fd(), signal) {
            Ok(()) => Ok(true),
            Err(failed) if failed.errno == Errno::SRCH => Ok(false),
            Err(failed) => Err(failed),
        }
    }

    /// Waits for its end, `limit` at most, and says whether it has come.
    pub fn wait(&self, limit: Option<Duration>) -> Result<bool, SysError> {
        let until = limit.and_then(|limit| std::time::Instant::now().checked_add(limit));
        loop {
            let left = until.map(|until| until.saturating_duration_since(std::time::Instant::now()));
            let [ended] = poll([self.handle.as_fd()], left)?;
            if ended || left == Some(Duration::ZERO) {
                return Ok(ended);
            }
        }
    }
}

/// Readable once the process has ended.
impl AsFd for Process {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_another_start_is_another_process() {
        let own = ProcessId::own().unwrap();
        assert!(Process::open(own).unwrap().is_some());
        let earlier = ProcessId {
            start: own.start.wrapping_sub(1),
            ..own
        };
        assert!(Process::open(earlier).unwrap().is_none());
    }

    #[test]
    fn the_end_of_a_process_is_noticed_and_waiting_has_an_end() {
        let mut child = std::process::Command::new("/bin/sleep")
            .arg("30")
            .spawn()
            .unwrap();
        let id = ProcessId::of(child.id() as i32).unwrap();
        let process = Process::open(id).unwrap().unwrap();
        assert!(!process.wait(Some(Duration::from_millis(10))).unwrap());
        assert!(process.send(Signal::KILL).unwrap());
        assert!(process.wait(None).unwrap());
        child.wait().unwrap();
        assert!(!process.send(Signal::KILL).unwrap());
        assert!(Process::open(id).unwrap().is_none());
    }
}
