//! The three standard streams of this process, and waiting for many files at once.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::libc;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{self, FileType, MemfdFlags, Mode, OFlags, SealFlags};

use super::{Call, Errno, SysError, checked, terminal};

/// Returns a handle of its own on the standard stream `number` of this process, 0 to 2.
pub fn standard(number: u8) -> Result<OwnedFd, SysError> {
    // SAFETY: the call says where it is closed, and Rust's runtime opens the three where they were not.
    let stream = unsafe { BorrowedFd::borrow_raw(i32::from(number.min(2))) };
    copy(stream)
}

/// Returns another handle on `file`.
pub fn copy(file: BorrowedFd<'_>) -> Result<OwnedFd, SysError> {
    rustix::io::fcntl_dupfd_cloexec(file, 3).call("fcntl(F_DUPFD_CLOEXEC)")
}

/// Makes `file` the standard stream `number` of this process. Keeps to the stack.
pub fn set_standard(number: u8, file: BorrowedFd<'_>) -> Result<(), SysError> {
    // SAFETY: nothing in Rust owns one of the three, and `file` is another one.
    let returned = unsafe { libc::syscall(libc::SYS_dup3, file.as_raw_fd(), i32::from(number), 0) };
    checked(returned).map(drop).call("dup3")
}

/// Opens what swallows everything and gives nothing.
pub fn open_null() -> Result<OwnedFd, SysError> {
    fs::open(c"/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).call("open(\"/dev/null\")")
}

/// Returns a file in memory that holds `text`, from its beginning, and that nobody can change (memfd_create(2)).
pub fn text(text: &[u8]) -> Result<OwnedFd, SysError> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = fs::memfd_create(c"stdin", flags).call("memfd_create")?;
    let mut at = 0;
    while at < text.len() {
        match rustix::io::pwrite(&file, &text[at..], at as u64) {
            Err(Errno::INTR) => {}
            written => at += written.call("pwrite")?,
        }
    }
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    fs::fcntl_add_seals(&file, seals).call("fcntl(F_ADD_SEALS)")?;
    Ok(file)
}

/// Has reads and writes of `file`, and of every copy of it, return at once where they would have to wait (`EAGAIN`).
pub fn do_not_wait(file: impl AsFd) -> Result<(), SysError> {
    let flags = fs::fcntl_getfl(&file).call("fcntl(F_GETFL)")?;
    fs::fcntl_setfl(&file, flags | OFlags::NONBLOCK).call("fcntl(F_SETFL)")
}

/// Opens the pipe or terminal `file` once more, so that reading or writing does not wait, and goes on to do so for all
/// who share `file` itself. `None` where it is neither, or cannot be opened again.
pub fn open_again(file: BorrowedFd<'_>, to_write: bool) -> Option<OwnedFd> {
    let kind = FileType::from_raw_mode(fs::fstat(file).ok()?.st_mode);
    if kind != FileType::Fifo && !terminal::is_terminal(file) {
        return None;
    }
    let mut flags = OFlags::NOCTTY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    flags.insert(if to_write { OFlags::WRONLY } else { OFlags::RDONLY });
    fs::open(
        format!("/proc/self/fd/{}", file.as_raw_fd()),
        flags,
        Mode::empty(),
    )
    .ok()
}

/// What to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// There is something to read, or the end.
    Readable,
    /// There is room to write, or nobody to read it.
    Writable,
}

/// Waits until something holds of one of `files`, at most for `limit`, and returns of which it does.
pub fn wait_for_any(
    files: &[(BorrowedFd<'_>, Until)],
    limit: Option<Duration>,
) -> Result<Vec<bool>, SysError> {
    let mut polled: Vec<PollFd<'_>> = files
        .iter()
        .map(|(file, until)| {
            let flags = match until {
                Until::Readable => PollFlags::IN,
                Until::Writable => PollFlags::OUT,
            };
            PollFd::from_borrowed_fd(*file, flags)
        })
        .collect();
    let limit = limit.map(|limit| Timespec {
        tv_sec: limit.as_secs().try_into().unwrap_or(i64::MAX),
        tv_nsec: limit.subsec_nanos().into(),
    });
    match rustix::event::poll(&mut polled, limit.as_ref()) {
        Ok(_) => Ok(polled.iter().map(|one| !one.revents().is_empty()).collect()),
        Err(Errno::INTR) => Ok(vec![false; files.len()]),
        Err(errno) => Err(errno).call("poll"),
    }
}

/// Reads what there is, and does not wait where `file` was opened so; the error is the kernel's own (`EAGAIN`).
pub fn read(file: BorrowedFd<'_>, into: &mut [u8]) -> Result<usize, Errno> {
    rustix::io::retry_on_intr(|| rustix::io::read(file, &mut *into))
}

/// Writes as much as there is room for; the error is the kernel's own.
pub fn write(file: BorrowedFd<'_>, bytes: &[u8]) -> Result<usize, Errno> {
    rustix::io::retry_on_intr(|| rustix::io::write(file, bytes))
}

/// Whether `file` is a regular file, which nobody has to wait for.
pub fn is_regular(file: BorrowedFd<'_>) -> bool {
    fs::fstat(file).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_opened_again_does_not_wait_and_the_other_still_does() {
        let (reader, writer) = super::super::process::pipe().unwrap();
        let again = open_again(reader.as_fd(), false).unwrap();
        let mut bytes = [0; 8];
        assert_eq!(read(again.as_fd(), &mut bytes), Err(Errno::AGAIN));
        assert!(!fs::fcntl_getfl(&reader).unwrap().contains(OFlags::NONBLOCK));
        write(writer.as_fd(), b"seen").unwrap();
        let ready = wait_for_any(
            &[
                (again.as_fd(), Until::Readable),
                (writer.as_fd(), Until::Writable),
            ],
            None,
        );
        assert_eq!(ready.unwrap(), [true, true]);
        assert_eq!(read(again.as_fd(), &mut bytes), Ok(4));
        assert!(open_again(open_null().unwrap().as_fd(), true).is_none());
    }
}
