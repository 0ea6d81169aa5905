//! Being told that something in a folder changes (inotify(7)).

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

use super::dir::Dir;
use super::{Call, SysError};

/// Readable when a file in the folder was made, written to, renamed or closed by a writer.
#[derive(Debug)]
pub struct Notify(OwnedFd);

impl Notify {
    /// Watches `folder` from now on. Each user has so many watches only: that none is left is `ENOSPC`.
    pub fn on(folder: &Dir) -> Result<Self, SysError> {
        let notify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).call("inotify_init1")?;
        let path = format!("/proc/self/fd/{}", folder.as_fd().as_raw_fd());
        let changes = WatchFlags::CREATE
            | WatchFlags::MODIFY
            | WatchFlags::MOVED_TO
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::DELETE;
        inotify::add_watch(&notify, path.as_str(), changes | WatchFlags::ONLYDIR)
            .call_with(|| format!("inotify_add_watch({:?})", folder.path()))?;
        Ok(Self(notify))
    }

    /// Forgets what has been told so far.
    pub fn clear(&self) {
        let mut events = [0; 4096];
        while rustix::io::read(&self.0, &mut events[..]).is_ok_and(|length| length > 0) {}
    }
}

impl AsFd for Notify {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::process::poll;
    use std::time::Duration;

    #[test]
    fn a_change_is_told_of_once() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        let notify = Notify::on(&dir).unwrap();
        let told = || poll([notify.as_fd()], Some(Duration::ZERO)).unwrap()[0];
        assert!(!told());
        let file = dir.create_file("a", 0o600).unwrap();
        assert!(told());
        notify.clear();
        assert!(!told());
        crate::sys::file::write(&file, b"x").unwrap();
        assert!(told());
    }
}
