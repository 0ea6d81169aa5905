//! Going on without the process that one came from: a fork whose parent is still answered for, then left behind.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use nix::libc;
use rustix::fs::{Mode, OFlags};
use rustix::io::FdFlags;
use rustix::process::Signal as RawSignal;

use super::dir::Dir;
use super::{Call, Errno, SysError, checked};

/// Has the kernel ask this process to end when its parent does; a parent that has ended already is not noticed.
pub fn end_with_parent(yes: bool) -> Result<(), SysError> {
    let signal = yes.then_some(RawSignal::TERM);
    rustix::process::set_parent_process_death_signal(signal).call("prctl(PR_SET_PDEATHSIG)")
}

/// Closes what this program was started with besides its first three files: what it has opened itself since does not
/// outlive an execve(2), and so is told apart.
pub fn close_inherited() -> Result<(), SysError> {
    for number in open_files()?.into_iter().filter(|number| *number > 2) {
        // SAFETY: it is only asked about, and closed only where nobody in this program has opened it: all that is
        // opened here, by the standard library too, is close-on-exec.
        let file = unsafe { BorrowedFd::borrow_raw(number) };
        match rustix::io::fcntl_getfd(file) {
            Ok(flags) if !flags.contains(FdFlags::CLOEXEC) => {
                // SAFETY: see above.
                unsafe { rustix::io::close(number) }
            }
            // The folder of the list itself, which is closed by now.
            _ => {}
        }
    }
    Ok(())
}

fn open_files() -> Result<Vec<i32>, SysError> {
    let folder = Dir::open("/proc/self/fd".as_ref())?;
    let names = folder.list()?;
    Ok(names
        .iter()
        .filter_map(|(name, _)| name.to_str()?.parse().ok())
        .collect())
}

/// Puts `/dev/null` in the place of standard input, output and error.
pub fn forget_standard_files() -> Result<(), SysError> {
    let null: OwnedFd = rustix::fs::open(c"/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .call("open(\"/dev/null\")")?;
    for standard in 0..=2 {
        // SAFETY: the first three files belong to the process as a whole, and stay open.
        let returned = unsafe { libc::syscall(libc::SYS_dup3, null.as_raw_fd(), standard, 0) };
        match checked(returned) {
            // It is this one: it had been closed, and was the first free number.
            Err(Errno::INVAL) => {}
            done => done.map(drop).call("dup3(\"/dev/null\")")?,
        }
    }
    if null.as_raw_fd() <= 2 {
        std::mem::forget(null);
    }
    Ok(())
}
