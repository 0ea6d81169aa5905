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

/// Writes `text` to a file, if it is there and can be written. Never allocates.
pub fn write(file: &CStr, text: &[u8]) {
    if let Ok(file) = fs::open(file, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()) {
        let _ = rustix::io::write(&file, text);
    }
}

/// Moves the processes that `from` lists to `to`: both are files `cgroup.procs`. Those that end meanwhile are passed
/// over. Never allocates; of very many processes only the first are moved.
pub fn move_all(from: &CStr, to: &CStr) -> Result<(), SysError> {
    let mut list = [0; 4096];
    let open = |file, flags| fs::open(file, flags | OFlags::CLOEXEC, Mode::empty());
    let from = open(from, OFlags::RDONLY).call("open(\"cgroup.procs\")")?;
    let length = rustix::io::read(&from, &mut list).call("read(\"cgroup.procs\")")?;
    let to = open(to, OFlags::WRONLY).call("open(\"cgroup.procs\")")?;
    let pids = list[..length].split(|byte| *byte == b'\n');
    for pid in pids.filter(|pid| !pid.is_empty()) {
        match rustix::io::write(&to, pid) {
            Ok(_) | Err(Errno::SRCH) => {}
            Err(errno) => return Err(errno).call("write(\"cgroup.procs\")"),
        }
    }
    Ok(())
}

/// Returns a file that becomes readable when the version 1 cgroup `folder` has run out of memory
/// (Documentation/admin-guide/cgroup-v1/memory.rst, "OOM control").
pub fn tell_when_exhausted(folder: &Path) -> Result<OwnedFd, SysError> {
    use std::os::fd::AsRawFd;
    let open = |name: &str, flags| {
        let path = folder.join(name);
        fs::open(&path, flags | OFlags::CLOEXEC, Mode::empty()).call_with(|| format!("open({path:?})"))
    };
    let told = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).call("eventfd2")?;
    let watched = open("memory.oom_control", OFlags::RDONLY)?;
    let control = open("cgroup.event_control", OFlags::WRONLY)?;
    let text = format!("{} {}", told.as_raw_fd(), watched.as_raw_fd());
    rustix::io::write(&control, text.as_bytes())
        .call_with(|| format!("write(\"cgroup.event_control\", {text:?})"))?;
    Ok(told)
}
