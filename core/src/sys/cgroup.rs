//! Cgroups (cgroups(7)): the few calls that cannot be a plain write to a file.

use std::ffi::CStr;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{self, Mode, OFlags};

use super::{Call, Errno, SysError};

/// Opens the folder of a cgroup, for a process to be born in it.
pub fn open(folder: &Path) -> Result<OwnedFd, SysError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    fs::open(folder, flags, Mode::empty()).call_with(|| format!("open({folder:?})"))
}

/// Removes the folder of a cgroup, which takes its files with it; says whether it is gone. Never allocates.
pub fn remove(folder: &CStr) -> bool {
    matches!(
        fs::unlinkat(fs::CWD, folder, fs::AtFlags::REMOVEDIR),
        Ok(()) | Err(Errno::NOENT)
    )
}

/// Writes `1` to a file, if it is there and can be written. Never allocates.
pub fn write_one(file: &CStr) {
    if let Ok(file) = fs::open(file, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()) {
        let _ = rustix::io::write(&file, b"1");
    }
}
