//! mk's own program where nobody can write to it.
//!
//! A process that goes into a running container may be made to execute `/proc/self/exe` there, by processes that change
//! the path of its command while it is looked up (CVE-2019-5736). What they then find behind `/proc/PID/exe` is the file of
//! mk's program, unless it runs from a filesystem that is read-only as a whole, or from a copy in memory that is sealed.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::libc;
use rustix::fs::{self, MemfdFlags, Mode, OFlags, SealFlags};

use super::file::{self, Version};
use super::mount::{Attr, NewFs};
use super::process::CStrings;
use super::{Call, Errno, HERE, SysError, checked};

/// All that keeps a file in memory as it is, for good.
const SEALS: SealFlags = SealFlags::SEAL
    .union(SealFlags::SHRINK)
    .union(SealFlags::GROW)
    .union(SealFlags::WRITE);

/// Whether nobody can write to this process's program through the process.
pub fn is_sealed() -> bool {
    let program = |flags| fs::open(c"/proc/self/exe", flags | OFlags::CLOEXEC, Mode::empty());
    // Files that are not in memory know no seals (EINVAL).
    let sealed = program(OFlags::RDONLY).and_then(fs::fcntl_get_seals);
    // Of a filesystem that is read-only, and not only mounted so, the kernel says that before all else: that a program runs
    // (ETXTBSY), and whose it is.
    sealed.is_ok_and(|seals| seals.contains(SEALS)) || matches!(program(OFlags::WRONLY), Err(Errno::ROFS))
}

/// Executes this process's program in its place from where nobody can write to it, with these arguments and this
/// environment; comes back only with the reason why not.
pub fn become_sealed(arguments: &CStrings, environment: &CStrings) -> SysError {
    // With a copy of 17 MB `mk exec` took 17.3 ms, and with a view 4.0.
    let program = match read_only_view().or_else(|_| sealed_copy()) {
        Ok(program) => program,
        Err(failed) => return failed,
    };
    // SAFETY: the handle is open, the path is a C string, the lists are NULL-ended arrays of such.
    let returned = unsafe {
        libc::syscall(
            libc::SYS_execveat,
            program.as_raw_fd(),
            HERE.as_ptr(),
            arguments.pointers(),
            environment.pointers(),
            libc::AT_EMPTY_PATH,
        )
    };
    let errno = checked(returned).err().unwrap_or(Errno::INVAL);
    SysError::new(errno, "execveat of a sealed copy of mk")
}

/// Returns this process's program as it is seen through an overlay that has no layer to write to, and so never can be
/// written to. Takes what mounting takes; the program's folder must not be, or be in, `/dev`.
fn read_only_view() -> Result<OwnedFd, SysError> {
    let path = fs::readlink(c"/proc/self/exe", Vec::new()).call("readlink(\"/proc/self/exe\")")?;
    let path = path.to_bytes();
    let slash = path.iter().rposition(|&byte| byte == b'/').unwrap_or_default();
    let (folder, name) = (&path[..slash.max(1)], &path[slash + 1..]);
    let handle = OFlags::PATH | OFlags::CLOEXEC;
    let folder = fs::open(folder, handle | OFlags::DIRECTORY, Mode::empty()).call("open of mk's folder")?;
    // By its handle: names may have characters that separate layers. There must be two of them; the second is there
    // everywhere, and hidden where it has the same name.
    let layers = format!("/proc/self/fd/{}:/dev", folder.as_raw_fd());
    let layers = CString::new(layers).map_err(|_| SysError::new(Errno::INVAL, "lowerdir"))?;
    let overlay = NewFs::open(c"overlay")?;
    overlay.set(c"lowerdir", &layers)?;
    let top = overlay.mount(Attr {
        read_only: true,
        no_suid: true,
        no_dev: true,
        no_exec: false,
    })?;
    let program = fs::openat(&top, name, handle | OFlags::NOFOLLOW, Mode::empty()).call("openat of mk")?;
    let own = fs::open(c"/proc/self/exe", handle, Mode::empty()).call("open(\"/proc/self/exe\")")?;
    // Another may have its name by now.
    match version(&program)? == version(&own)? {
        true => Ok(program),
        false => Err(SysError::new(Errno::STALE, "openat of mk")),
    }
}

fn version(program: &OwnedFd) -> Result<Version, SysError> {
    Ok(file::stat(program)?.version())
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
    seal(&copy)?;
    Ok(copy)
}

/// Seals a file in memory. While anything of the kernel's still holds on to a page of it, as it does for a moment after pages
/// were given to it by another processor, the kernel refuses after some 150 ms (EBUSY, `memfd_wait_for_pins`).
fn seal(copy: &OwnedFd) -> Result<(), SysError> {
    const TRIES: usize = 40;
    let mut sealed = Err(Errno::BUSY);
    for _ in 0..TRIES {
        sealed = fs::fcntl_add_seals(copy, SEALS);
        if sealed != Err(Errno::BUSY) {
            break;
        }
    }
    sealed.call("fcntl(F_ADD_SEALS)")
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
    #[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
    fn a_view_is_the_program_and_its_filesystem_is_read_only() {
        let view = match read_only_view() {
            Err(failed) if failed.errno == Errno::PERM => {
                return eprintln!("skipped: needs root, for a mount: {failed}");
            }
            view => view.unwrap(),
        };
        let own = fs::open(c"/proc/self/exe", OFlags::PATH, Mode::empty()).unwrap();
        assert_eq!(version(&view).unwrap(), version(&own).unwrap());
        let name = format!("/proc/self/fd/{}", view.as_raw_fd());
        let written = fs::open(&name, OFlags::WRONLY, Mode::empty());
        assert_eq!(written.err(), Some(Errno::ROFS));
        assert_eq!(
            fs::chmodat(fs::CWD, &name, Mode::RWXU, fs::AtFlags::empty()),
            Err(Errno::ROFS)
        );
        // What this test runs from is no such thing.
        assert!(!is_sealed());
    }

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

    #[test]
    fn a_file_that_the_kernel_still_holds_a_page_of_is_sealed_a_moment_later() {
        let copy = in_memory().unwrap();
        rustix::io::write(&copy, &[1; 4096]).unwrap();
        let (held, into) = rustix::pipe::pipe().unwrap();
        let flags = rustix::pipe::SpliceFlags::empty();
        rustix::pipe::splice(&copy, Some(&mut 0), &into, None, 4096, flags).unwrap();
        assert_eq!(fs::fcntl_add_seals(&copy, SEALS), Err(Errno::BUSY));
        let later = std::thread::spawn(move || {
            std::thread::sleep(std::time::Duration::from_millis(400));
            drop((held, into));
        });
        assert_eq!(seal(&copy), Ok(()));
        later.join().unwrap();
    }
}
