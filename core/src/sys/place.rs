//! What a mount or a file goes onto: opened and made below a handle, without allocating.

use std::ffi::CStr;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{self, AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid};
use rustix::io::Errno;

use super::{Call, SysError};

/// What symbolic links on the way to a place mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Links {
    /// They are followed, with the handle as their `/`.
    Inside,
    /// One on the way is an error.
    Refused,
}

/// How often a lookup is tried again that a rename elsewhere on the machine got in the way of.
const TRIES: usize = 64;

/// Opens `path` below `root` as a place (`O_PATH`), never leaving `root` (openat2(2)).
pub fn find(root: BorrowedFd<'_>, path: &CStr, links: Links, folder: bool) -> Result<OwnedFd, Errno> {
    let mut flags = OFlags::PATH | OFlags::CLOEXEC;
    flags.set(OFlags::DIRECTORY, folder);
    let mut resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    resolve.set(ResolveFlags::NO_SYMLINKS, links == Links::Refused);
    open(root, path, flags, resolve)
}

/// Reads the regular file `path` below `root`, which may hold at most `most` bytes (`EFBIG`); nothing where it is
/// missing. A symbolic link on the way is an error (`ELOOP`), anything but a file as well (`EINVAL`).
pub fn read_regular(root: BorrowedFd<'_>, path: &CStr, most: usize) -> Result<Option<Vec<u8>>, SysError> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let file = match open(root, path, flags, resolve) {
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        opened => opened.call_with(|| format!("openat2({path:?}, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS)"))?,
    };
    let stat = fs::fstat(&file).call("fstat")?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Errno::INVAL).call_with(|| format!("read({path:?}), which is no regular file"));
    }
    let mut bytes = Vec::new();
    while bytes.len() <= most {
        let mut piece = [0; 4096];
        match rustix::io::read(&file, &mut piece) {
            Ok(0) => return Ok(Some(bytes)),
            Ok(got) => bytes.extend_from_slice(&piece[..got]),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno).call_with(|| format!("read({path:?})")),
        }
    }
    Err(Errno::FBIG).call_with(|| format!("read({path:?}), more than {most} bytes"))
}

fn open(root: BorrowedFd<'_>, path: &CStr, flags: OFlags, resolve: ResolveFlags) -> Result<OwnedFd, Errno> {
    for _ in 1..TRIES {
        match fs::openat2(root, path, flags, Mode::empty(), resolve) {
            // The kernel could not tell whether a `..` stayed inside, because something was renamed meanwhile.
            Err(Errno::AGAIN | Errno::INTR) => {}
            done => return done,
        }
    }
    fs::openat2(root, path, flags, Mode::empty(), resolve)
}

/// Makes a folder; `mode` is subject to the umask.
pub fn make_folder(at: BorrowedFd<'_>, path: &CStr, mode: u16) -> Result<(), SysError> {
    fs::mkdirat(at, path, Mode::from_raw_mode(u32::from(mode))).call("mkdirat")
}

/// Makes an empty regular file; `mode` is subject to the umask.
pub fn make_file(at: BorrowedFd<'_>, path: &CStr, mode: u16) -> Result<(), SysError> {
    fs::mknodat(
        at,
        path,
        FileType::RegularFile,
        Mode::from_raw_mode(u32::from(mode)),
        0,
    )
    .call("mknodat")
}

/// Makes a symbolic link.
pub fn make_link(at: BorrowedFd<'_>, path: &CStr, target: &CStr) -> Result<(), SysError> {
    fs::symlinkat(target, at, path).call("symlinkat")
}

/// Makes a regular file that holds `bytes`.
pub fn write_file(at: BorrowedFd<'_>, path: &CStr, mode: u16, bytes: &[u8]) -> Result<(), SysError> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = fs::openat(at, path, flags, Mode::from_raw_mode(u32::from(mode))).call("openat")?;
    let mut rest = bytes;
    while !rest.is_empty() {
        match rustix::io::write(&file, rest) {
            Ok(taken) => rest = &rest[taken..],
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno).call("write"),
        }
    }
    Ok(())
}

/// What a folder is dressed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dress {
    /// Permission bits.
    pub mode: u16,
    /// Owner and group, where this user namespace knows both.
    pub owner: Option<(u32, u32)>,
    /// Modification time: seconds since 1970 UTC, and nanoseconds.
    pub modified: (i64, u32),
}

/// Reads what the folder `path` (seen from the working directory) is dressed in, and follows no link at its end. Whatever
/// is no folder is refused: the permission bits of a symlink, say, are nobody's choice.
pub fn dress_of(path: &std::path::Path) -> Result<Dress, SysError> {
    let stat = fs::statat(fs::CWD, path, AtFlags::SYMLINK_NOFOLLOW)
        .and_then(|stat| match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Ok(stat),
            _ => Err(Errno::NOTDIR),
        })
        .call_with(|| format!("stat({:?})", path.display()))?;
    Ok(Dress {
        mode: (stat.st_mode & 0o7777) as u16,
        owner: Some((stat.st_uid, stat.st_gid)),
        modified: (stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or(0)),
    })
}

/// Checks that `place` is the file with this `inode` (filesystem and number), and no other (`ESTALE`).
pub fn must_be(place: BorrowedFd<'_>, inode: (u64, u64)) -> Result<(), SysError> {
    let stat = fs::fstat(place).call("fstat")?;
    if (stat.st_dev, stat.st_ino) == inode {
        Ok(())
    } else {
        Err(Errno::STALE).call("fstat")
    }
}

/// Gives the folder `path` below `at` its owner, mode and time, in the order in which they stay.
pub fn put_on(at: BorrowedFd<'_>, path: &CStr, dress: Dress) -> Result<(), SysError> {
    if let Some((uid, gid)) = dress.owner
        && (uid, gid) != (0, 0)
    {
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        fs::chownat(at, path, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).call("fchownat")?;
    }
    fs::chmodat(
        at,
        path,
        Mode::from_raw_mode(u32::from(dress.mode)),
        AtFlags::empty(),
    )
    .call("fchmodat")?;
    let at_time = Timespec {
        tv_sec: dress.modified.0,
        tv_nsec: dress.modified.1.into(),
    };
    let times = Timestamps {
        last_access: at_time,
        last_modification: at_time,
    };
    fs::utimensat(at, path, &times, AtFlags::SYMLINK_NOFOLLOW).call("utimensat")
}

/// Whether there is anything at `path`, seen from the working directory.
pub fn exists(path: &CStr) -> bool {
    fs::accessat(fs::CWD, path, fs::Access::EXISTS, AtFlags::empty()).is_ok()
}

/// Opens the folder `path` as a place, seen from the working directory.
pub fn open_folder(path: &std::path::Path) -> Result<OwnedFd, SysError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    fs::open(path, flags, Mode::empty()).call_with(|| format!("open({:?}, O_PATH)", path.display()))
}

/// Opens the file or folder `path` as a place, seen from the working directory.
pub fn open_any(path: &std::path::Path) -> Result<OwnedFd, SysError> {
    fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .call_with(|| format!("open({:?}, O_PATH)", path.display()))
}

/// Opens the folder `path`, seen from the root, as a place, where no link leads to it. Keeps to the stack.
pub fn open_kernels(path: &CStr) -> Result<OwnedFd, SysError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    open(fs::CWD, path, flags, ResolveFlags::NO_SYMLINKS).call("openat2")
}

/// Opens the folder `path` as a place, seen from the working directory, without allocating.
pub fn open_here(path: &CStr) -> Result<OwnedFd, SysError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    fs::open(path, flags, Mode::empty()).call("open(O_PATH)")
}

/// Opens the file `path` to write to it, seen from the working directory, without allocating.
pub fn open_to_write(path: &CStr) -> Result<OwnedFd, SysError> {
    let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    fs::open(path, flags, Mode::empty()).call("open(O_WRONLY)")
}

/// Changes the working directory.
pub fn go(path: &CStr) -> Result<(), SysError> {
    rustix::process::chdir(path).call("chdir")
}

/// Makes a folder, seen from the working directory; `mode` is subject to the umask.
pub fn make_folder_here(path: &CStr, mode: u16) -> Result<(), SysError> {
    make_folder(fs::CWD, path, mode)
}

/// Changes the working directory to an open folder.
pub fn go_to(folder: BorrowedFd<'_>) -> Result<(), SysError> {
    rustix::process::fchdir(folder).call("fchdir")
}

/// Changes the working directory to `path`, which must not lead through a file that this process has open: a link such
/// as `/proc/self/fd/3` is `ELOOP`, wherever an image has it.
pub fn go_inside(path: &CStr) -> Result<(), SysError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = open(fs::CWD, path, flags, ResolveFlags::NO_MAGICLINKS).call("openat2")?;
    rustix::process::fchdir(&folder).call("fchdir")
}

/// How many scripts the kernel follows from one to its interpreter (`binfmt_script`).
const MOST_SCRIPTS: usize = 5;
/// How much of a script the kernel looks at (`BINPRM_BUF_SIZE`).
const SCRIPT_HEAD: usize = 256;

/// Checks that executing `path` would not take a program from outside: that neither it nor the interpreter that a script
/// names leads through `/proc/self/exe`, which is mk itself until the program runs, or through a file that is open
/// (`ELOOP`). Whatever else is wrong with it is for execve(2) to say.
pub fn is_inside(path: &CStr) -> Result<(), Errno> {
    let mut name;
    let mut script = path;
    for _ in 0..=MOST_SCRIPTS {
        open(
            fs::CWD,
            script,
            OFlags::PATH | OFlags::CLOEXEC,
            ResolveFlags::NO_MAGICLINKS,
        )?;
        let mut head = [0; SCRIPT_HEAD];
        let length = read_head(script, &mut head);
        let Some(found) = interpreter(&head[..length]) else {
            break;
        };
        name = [0; SCRIPT_HEAD + 1];
        name[..found.len()].copy_from_slice(found);
        match CStr::from_bytes_until_nul(&name) {
            Ok(next) => script = next,
            Err(_) => break,
        }
    }
    Ok(())
}

/// Reads the start of what may be a script; nothing where it cannot be read.
fn read_head(path: &CStr, head: &mut [u8]) -> usize {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    open(fs::CWD, path, flags, ResolveFlags::NO_MAGICLINKS)
        .and_then(|file| rustix::io::read(&file, head))
        .unwrap_or(0)
}

/// Returns the interpreter that the script which begins with `head` names (execve(2), "Interpreter scripts").
fn interpreter(head: &[u8]) -> Option<&[u8]> {
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let line = head
        .strip_prefix(b"#!")?
        .split(|&byte| byte == b'\n' || byte == 0)
        .next()?;
    line.split(blank).find(|word| !word.is_empty())
}

/// Sets which permission bits new files do not get.
pub fn set_umask(mask: u16) {
    rustix::process::umask(Mode::from_raw_mode(u32::from(mask)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_names_its_interpreter() {
        for (head, expected) in [
            (b"#!/bin/sh\necho".as_slice(), Some(b"/bin/sh".as_slice())),
            (b"#! \t/bin/awk -f\n", Some(b"/bin/awk")),
            (b"#!/bin/sh", Some(b"/bin/sh")),
            (b"#!\n/bin/sh", None),
            (b"#! ", None),
            (b"\x7fELF", None),
            (b"", None),
        ] {
            assert_eq!(interpreter(head), expected, "{head:?}");
        }
    }
}
