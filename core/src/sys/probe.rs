//! What this kernel can do, tried without changing anything: the code behind docs/kernel.md.

use std::os::fd::AsRawFd;
use std::path::Path;

use nix::libc;
use rustix::fs::{self, Mode, OFlags};
use rustix::thread::UnshareFlags;

use super::namespace::Namespaces;
use super::{Call, Errno, SysError, checked};

/// The oldest kernel that mk runs on: it has `mount_setattr`.
pub const OLDEST: (u32, u32) = (5, 12);

/// A kernel that mk does not run on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Linux {release} is too old: expected {}.{} or newer", OLDEST.0, OLDEST.1)]
pub struct TooOld {
    /// What the kernel calls itself (uname(2)).
    pub release: String,
}

/// Returns what the running kernel calls itself, such as `6.1.0-18-amd64`.
pub fn release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

/// Says why a call that this kernel does not know failed: it is too old, or something forbids the call.
pub fn explain(failed: &SysError) -> Option<TooOld> {
    if failed.errno != super::Errno::NOSYS {
        return None;
    }
    check_release(&release()).err()
}

/// Checks that a kernel that calls itself `release` is new enough. A name that tells no version passes.
pub fn check_release(release: &str) -> Result<(), TooOld> {
    match version(release) {
        Some(found) if found < OLDEST => Err(TooOld {
            release: release.to_owned(),
        }),
        _ => Ok(()),
    }
}

/// Checks the running kernel.
pub fn check() -> Result<(), TooOld> {
    check_release(&release())
}

/// Returns the numbers that a release begins with, such as (6, 1).
pub fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit());
    let mut next = || numbers.next()?.parse().ok();
    Some((next()?, next()?))
}

/// A call that can be asked for without doing anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Known {
    /// openat2(2), Linux 5.6.
    Openat2,
    /// clone3(2), Linux 5.3.
    Clone3,
    /// `CLONE_INTO_CGROUP` of clone3(2), Linux 5.7.
    CloneIntoCgroup,
    /// pidfd_open(2), Linux 5.3.
    Pidfd,
    /// close_range(2) with `CLOSE_RANGE_CLOEXEC`, Linux 5.11.
    CloseRange,
    /// seccomp(2) with filters that answer with an error number, Linux 4.14.
    Seccomp,
    /// keyctl(2).
    Keys,
}

impl Known {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Openat2,
        Self::Clone3,
        Self::CloneIntoCgroup,
        Self::Pidfd,
        Self::CloseRange,
        Self::Seccomp,
        Self::Keys,
    ];

    /// Makes the call with arguments that it refuses or that change nothing. An error says that the kernel does not
    /// have it (`ENOSYS`, `E2BIG`, `EOPNOTSUPP`) or that something forbids it (`EPERM`, `EACCES`).
    pub fn ask(self) -> Result<(), SysError> {
        match self.made() {
            Err(errno @ (Errno::NOSYS | Errno::TOOBIG | Errno::OPNOTSUPP | Errno::PERM | Errno::ACCESS)) => {
                Err(errno).call(self.name())
            }
            // The call is there, and has looked at what it was given.
            _ => Ok(()),
        }
    }

    /// Returns the name of the call.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Openat2 => "openat2",
            Self::Clone3 => "clone3",
            Self::CloneIntoCgroup => "clone3(CLONE_INTO_CGROUP)",
            Self::Pidfd => "pidfd_open",
            Self::CloseRange => "close_range(CLOSE_RANGE_CLOEXEC)",
            Self::Seccomp => "seccomp(SECCOMP_GET_ACTION_AVAIL)",
            Self::Keys => "keyctl",
        }
    }

    fn made(self) -> Result<libc::c_long, Errno> {
        const NOTHING: *const libc::c_void = std::ptr::null();
        const GET_KEYRING_ID: libc::c_int = 0;
        let answer_with_error = libc::SECCOMP_RET_ERRNO;
        // SAFETY: all of these read at most what they are given; a null pointer comes with the size 0.
        checked(unsafe {
            match self {
                Self::Openat2 => libc::syscall(libc::SYS_openat2, -1, NOTHING, NOTHING, 0_usize),
                Self::Clone3 => libc::syscall(libc::SYS_clone3, NOTHING, 0_usize),
                Self::CloneIntoCgroup => {
                    let args = clone_into_no_cgroup();
                    libc::syscall(libc::SYS_clone3, args.as_ptr(), size_of_val(&args))
                }
                Self::Pidfd => libc::syscall(libc::SYS_pidfd_open, -1, 0),
                Self::CloseRange => libc::syscall(
                    libc::SYS_close_range,
                    u32::MAX,
                    u32::MAX,
                    libc::CLOSE_RANGE_CLOEXEC,
                ),
                Self::Seccomp => libc::syscall(
                    libc::SYS_seccomp,
                    libc::SECCOMP_GET_ACTION_AVAIL,
                    0,
                    &raw const answer_with_error,
                ),
                Self::Keys => libc::syscall(
                    libc::SYS_keyctl,
                    GET_KEYRING_ID,
                    libc::KEY_SPEC_SESSION_KEYRING,
                    0,
                ),
            }
        })
    }
}

/// The arguments of a clone3(2) into a cgroup whose handle is not open, so that no process comes of it (`EBADF`).
fn clone_into_no_cgroup() -> [u64; 11] {
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    let mut args = [0; 11];
    args[0] = CLONE_INTO_CGROUP;
    args[4] = libc::SIGCHLD as u64;
    args[10] = i32::MAX as u64;
    args
}

/// Moves this process, which must have one thread, into fresh `namespaces`; of PID namespaces, its next child.
pub fn unshare(namespaces: Namespaces) -> Result<(), SysError> {
    unshare_flags(namespaces.flags()).call_with(|| format!("unshare({namespaces})"))
}

/// Moves the next child of this process into a fresh time namespace (time_namespaces(7), Linux 5.6).
pub fn unshare_time() -> Result<(), SysError> {
    unshare_flags(UnshareFlags::NEWTIME).call("unshare(CLONE_NEWTIME)")
}

fn unshare_flags(flags: UnshareFlags) -> Result<(), Errno> {
    // SAFETY: none of these flags gives up the table of files.
    unsafe { rustix::thread::unshare_unsafe(flags) }
}

/// Opens the device or file `path` for reading and writing, and closes it at once.
pub fn opens(path: &Path) -> Result<(), SysError> {
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    fs::open(path, flags, Mode::empty())
        .map(drop)
        .call_with(|| format!("open({:?}, O_RDWR)", path.display()))
}

/// Makes what this process says on standard error go to `file`.
pub fn talk_into(file: impl AsRawFd) -> Result<(), SysError> {
    // SAFETY: the standard library does not own its standard error, so nobody else closes it.
    checked(unsafe { libc::dup2(file.as_raw_fd(), 2) }.into())
        .map(drop)
        .call("dup2")
}

/// Kinds of filesystems by their magic numbers (statfs(2)) that make a difference to a store.
const KINDS: [(u64, &str); 14] = [
    (0xEF53, "ext4"),
    (0x0102_1994, "tmpfs"),
    (0x794C_7630, "overlay"),
    (0x9123_683E, "btrfs"),
    (0x5846_5342, "xfs"),
    (0x2FC1_2FC1, "zfs"),
    (0xCA45_1A4E, "bcachefs"),
    (0xF2F5_2010, "f2fs"),
    (0x6969, "nfs"),
    (0xFE53_4D42, "cifs"),
    (0x6573_5546, "fuse"),
    (0x0102_1997, "9p"),
    (0x4D44, "vfat"),
    (0x73717368, "squashfs"),
];

/// What a folder lies on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filesystem {
    /// Its kind, such as `ext4`; a number where it is none that mk knows.
    pub kind: String,
    /// Whether it is mounted read-only.
    pub read_only: bool,
}

/// Returns what the folder `path` lies on.
pub fn filesystem(path: &Path) -> Result<Filesystem, SysError> {
    let call = || format!("statfs({:?})", path.display());
    let magic = fs::statfs(path).call_with(call)?.f_type as u64 & 0xFFFF_FFFF;
    let flags = fs::statvfs(path).call_with(call)?.f_flag;
    let known = KINDS.iter().find(|(number, _)| *number == magic);
    Ok(Filesystem {
        kind: known.map_or_else(|| format!("{magic:#x}"), |(_, name)| (*name).to_owned()),
        read_only: flags.contains(fs::StatVfsMountFlags::RDONLY),
    })
}

/// How much a process may have of something (getrlimit(2)); `None` is no limit.
pub fn limit(resource: Resource) -> Option<u64> {
    rustix::process::getrlimit(match resource {
        Resource::Files => rustix::process::Resource::Nofile,
        Resource::Processes => rustix::process::Resource::Nproc,
    })
    .current
}

/// Something that is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource {
    /// Open files of a process.
    Files,
    /// Processes of a user.
    Processes,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_this_kernel_has_is_known_and_what_none_has_is_not() {
        // These are what mk needs at least; a machine that runs the tests has them.
        for call in [Known::Openat2, Known::Clone3, Known::CloseRange, Known::Pidfd] {
            assert_eq!(call.ask(), Ok(()), "{call:?}");
        }
        assert_eq!(version("6.1.0-18-amd64"), Some((6, 1)));
        assert_eq!(version("6"), None);
    }

    #[test]
    fn a_folder_lies_on_something_with_a_name() {
        assert_eq!(filesystem(Path::new("/proc")).unwrap().kind, "0x9fa0");
        assert!(filesystem(Path::new("/no/such/folder")).is_err());
    }

    #[test]
    fn kernels_are_told_apart_by_number_and_not_by_text() {
        for old in ["5.4.0-100-generic", "5.11.22", "4.18.0-553.el8", "3.10.0"] {
            assert!(check_release(old).is_err(), "{old} was accepted");
        }
        for new in [
            "5.12",
            "5.12.0-rc1",
            "5.15.0",
            "6.1.0-18-amd64",
            "10.0.1",
            "strange",
        ] {
            assert!(check_release(new).is_ok(), "{new} was refused");
        }
    }

    #[test]
    fn an_old_kernel_is_named() {
        let text = check_release("5.4.0").unwrap_err().to_string();
        assert_eq!(text, "Linux 5.4.0 is too old: expected 5.12 or newer");
    }
}
