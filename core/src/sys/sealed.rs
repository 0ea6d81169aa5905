//! mk's own program as a copy that nobody can write to.
//!
//! A process that goes into a running container may be made to execute `/proc/self/exe` there, by processes that change
//! the path of its command while it is looked up (CVE-2019-5736). What they then find behind `/proc/PID/exe` is the file of
//! mk's program, unless it runs from a copy in memory that is sealed.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::libc;
use rustix::fs::{self, MemfdFlags, Mode, OFlags, SealFlags};

use super::process::CStrings;
use super::{Call, Errno, HERE, SysError, checked};

/// All that keeps a file in memory as it is, for good.
const SEALS: SealFlags = SealFlags::SEAL
    .union(SealFlags::SHRINK)
    .union(SealFlags::GROW)
    .union(SealFlags::WRITE);

/// Whether this process's program is a sealed copy.
pub fn is_sealed() -> bool {
    let program = fs::open(c"/proc/self/exe", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    // Files that are not in memory know no seals (EINVAL).
    program
        .and_then(fs::fcntl_get_seals)
        .is_ok_and(|seals| seals.contains(SEALS))
}

/// Executes a sealed copy of this process's program in its place, with these arguments and this environment; comes back
/// only with the reason why not.
pub fn become_sealed(arguments: &CStrings, environment: &CStrings) -> SysError {
    let copy = match sealed_copy() {
        Ok(copy) => copy,
        Err(failed) => return failed,
    };
    // SAFETY: the handle is open, the path is a C string, the lists are NULL-ended arrays of such.
    let returned = unsafe {
        libc::syscall(
            libc::SYS_execveat,
            copy.as_raw_fd(),
            HERE.as_ptr(),
            arguments.pointers(),
            environment.pointers(),
            libc::AT_EMPTY_PATH,
        )
    };
    let errno = checked(returned).err().unwrap_or(Errno::INVAL);
    SysError::new(errno, "execveat of a sealed copy of mk")
}

/// Returns a copy of this process's program in memory.
fn sealed_copy() -> Result<OwnedFd, SysError> {
    let program = fs::open(c"/proc/self/exe", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .call("open(\"/proc/self/exe\")")?;
    let copy = in_memory()?;
    let mut left = usize::try_from(fs::fstat(&program).call("fstat")?.st_size).unwrap_or(usize::MAX);
    while left > 0 {
        match fs::sendfile(copy.as_fd(), program.as_fd(), None, left) {
            Ok(0) => {
                return Err(SysError::new(
                    Errno::IO,
                    "sendfile, before the end of mk's program",
                ));
            }
            Ok(sent) => left -= sent,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno).call("sendfile"),
        }
    }
    fs::fcntl_add_seals(&copy, SEALS).call("fcntl(F_ADD_SEALS)")?;
    Ok(copy)
}

/// Makes a file in memory that can be executed: since Linux 6.3 that has to be said, and before it cannot be
/// (memfd_create(2), `MFD_EXEC`).
fn in_memory() -> Result<OwnedFd, SysError> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    match fs::memfd_create(c"mk", flags | MemfdFlags::EXEC) {
        Err(Errno::INVAL) => fs::memfd_create(c"mk", flags).call("memfd_create"),
        made => made.call("memfd_create(MFD_EXEC)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_the_program_and_cannot_be_written_to() {
        assert!(!is_sealed(), "the tests run from a file");
        let copy = sealed_copy().unwrap();
        let program = std::env::current_exe().unwrap();
        let length = fs_err::metadata(program).unwrap().len();
        assert_eq!(fs::fstat(&copy).unwrap().st_size as u64, length);
        assert!(rustix::io::write(&copy, b"x").is_err());
        assert!(
            fs::fcntl_add_seals(&copy, SealFlags::empty()).is_err(),
            "seals can be added"
        );
        // Not by its name either, as a process in a container would try it.
        let name = format!("/proc/self/fd/{}", copy.as_raw_fd());
        let written =
            fs::open(name, OFlags::WRONLY, Mode::empty()).map(|again| rustix::io::write(again, b"x"));
        assert!(!matches!(written, Ok(Ok(_))), "{written:?}");
    }
}
