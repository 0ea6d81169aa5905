//! Open files and folders: what they are, their metadata, their locks. The calls take any handle.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use nix::libc;
use rustix::fs::{self, AtFlags, FileType, FlockOperation, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;

use super::SysError;
use crate::meta::Xattrs;

/// What stat(2) tells of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// What it is.
    pub kind: FileKind,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u16,
    /// Owner, as this process's user namespace has it.
    pub uid: u32,
    /// Group, as this process's user namespace has it.
    pub gid: u32,
    /// Size in bytes.
    pub size: u64,
    /// Modification time: whole seconds since 1970 UTC.
    pub mtime: i64,
    /// The fraction of its second, in nanoseconds.
    pub mtime_nanos: u32,
    /// When anything of it changed the last time: whole seconds since 1970 UTC. Nobody can set it.
    pub ctime: i64,
    /// The fraction of its second, in nanoseconds.
    pub ctime_nanos: u32,
    /// Filesystem and number: two names with equal ones are one file.
    pub inode: (u64, u64),
    /// Whether it has more names than one (or, a folder, others in it).
    pub linked: bool,
    /// Which device it is a node of, where it is one.
    pub device: Option<Device>,
}

/// What tells what a file holds now from what it held at any other time, without reading it. The filesystem is no part
/// of it: its number is another after each mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    /// The file's number in its filesystem.
    pub inode: u64,
    /// Size in bytes.
    pub size: u64,
    /// Modification time: seconds since 1970 UTC, and nanoseconds.
    pub mtime: (i64, u32),
    /// Time of the last change of anything: seconds since 1970 UTC, and nanoseconds.
    pub ctime: (i64, u32),
}

impl Stat {
    /// Returns which version of the file this is.
    pub fn version(&self) -> Version {
        Version {
            inode: self.inode.1,
            size: self.size,
            mtime: (self.mtime, self.mtime_nanos),
            ctime: (self.ctime, self.ctime_nanos),
        }
    }
}

/// What a device node stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Device {
    /// Block device, else character device.
    pub block: bool,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
}

/// What a file on disk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A folder.
    Folder,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A device or a socket.
    Other,
}

/// Opens for reading the very file that `handle` is a place of (`O_PATH`): nothing can have taken its name since.
pub fn reopen(handle: impl AsFd) -> Result<std::fs::File, SysError> {
    let path = format!("/proc/self/fd/{}", handle.as_fd().as_raw_fd());
    fs::open(
        path.as_str(),
        OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY,
        Mode::empty(),
    )
    .map(std::fs::File::from)
    .map_err(|errno| SysError::new(errno, format_args!("open({path:?}), which is {}", shown(&handle))))
}

/// What a file lock keeps others from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockKind {
    /// Nobody gets it exclusively.
    Shared,
    /// Nobody else gets it.
    Exclusive,
}

/// Returns what an open file or folder is.
pub fn stat(file: impl AsFd) -> Result<Stat, SysError> {
    fs::fstat(&file)
        .map(Stat::from)
        .map_err(|errno| SysError::new(errno, format_args!("fstat({})", shown(&file))))
}

/// Returns what is at `path` of the host, following symlinks, as whoever keeps the filesystem knows it at this moment: what
/// a network filesystem remembers of it is not enough (`AT_STATX_FORCE_SYNC` in statx(2)).
pub fn stat_now(path: &Path) -> Result<Stat, SysError> {
    fs::statx(
        fs::CWD,
        path,
        AtFlags::STATX_FORCE_SYNC,
        fs::StatxFlags::BASIC_STATS,
    )
    .map(Stat::from)
    .map_err(|errno| SysError::new(errno, format_args!("statx({path:?})")))
}

/// Gives an open file or folder to an owner. The kernel takes setuid and setgid bits and capabilities off.
pub fn chown(file: impl AsFd, uid: u32, gid: u32) -> Result<(), SysError> {
    fs::fchown(&file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
        .map_err(|errno| SysError::new(errno, format_args!("fchown({}, {uid}, {gid})", shown(&file))))
}

/// Sets the permission bits of an open file or folder.
pub fn chmod(file: impl AsFd, mode: u16) -> Result<(), SysError> {
    fs::fchmod(&file, bits(mode))
        .map_err(|errno| SysError::new(errno, format_args!("fchmod({}, {mode:04o})", shown(&file))))
}

/// Sets the modification time of an open file or folder (seconds since 1970 UTC).
pub fn set_mtime(file: impl AsFd, mtime: i64) -> Result<(), SysError> {
    fs::futimens(&file, &times(mtime))
        .map_err(|errno| SysError::new(errno, format_args!("futimens({}, {mtime})", shown(&file))))
}

/// Sets an extended attribute of an open file or folder.
pub fn set_xattr(file: impl AsFd, name: &[u8], value: &[u8]) -> Result<(), SysError> {
    let name = OsStr::from_bytes(name);
    fs::fsetxattr(&file, name, value, fs::XattrFlags::empty()).map_err(|errno| {
        SysError::new(
            errno,
            format_args!("fsetxattr({}, {name:?}, {} bytes)", shown(&file), value.len()),
        )
    })
}

/// Whether the filesystem of an open file or folder has room for another file (statvfs(3)).
pub fn has_room(file: impl AsFd) -> bool {
    // Filesystems that make inodes as they need them say that they have none at all.
    fs::fstatvfs(&file).is_ok_and(|disk| disk.f_bavail > 0 && (disk.f_files == 0 || disk.f_favail > 0))
}

/// Returns the extended attributes of an open file or folder whose names are `wanted`; none where the filesystem has none.
pub fn xattrs(file: impl AsFd, wanted: impl Fn(&[u8]) -> bool) -> Result<Xattrs, SysError> {
    let names = match whole(|buffer| fs::flistxattr(&file, buffer)) {
        Err(Errno::OPNOTSUPP) => Vec::new(),
        names => names.map_err(|errno| SysError::new(errno, format_args!("flistxattr({})", shown(&file))))?,
    };
    let mut found = Xattrs::new();
    for name in names
        .split(|&byte| byte == 0)
        .filter(|name| !name.is_empty() && wanted(name))
    {
        let text = OsStr::from_bytes(name);
        let value = whole(|buffer| fs::fgetxattr(&file, text, buffer))
            .map_err(|errno| SysError::new(errno, format_args!("fgetxattr({}, {text:?})", shown(&file))))?;
        found.insert(name.into(), value.into());
    }
    Ok(found)
}

/// Reads an open file from where it stands, at most `limit` bytes.
pub fn read(file: &std::fs::File, limit: u64) -> Result<Vec<u8>, SysError> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    match file.take(limit).read_to_end(&mut bytes) {
        Ok(_) => Ok(bytes),
        Err(error) => {
            let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
            Err(SysError::new(errno, format_args!("read({})", shown(file))))
        }
    }
}

/// Reads an open file from where it stands to its end, and hands it on piece by piece.
pub fn read_pieces<E: From<SysError>>(
    file: &std::fs::File,
    mut take: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let mut piece = vec![0; 1 << 17];
    loop {
        match rustix::io::read(file, &mut piece[..]) {
            Ok(0) => return Ok(()),
            Ok(size) => take(&piece[..size])?,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(SysError::new(errno, format_args!("read({})", shown(file))).into()),
        }
    }
}

/// Writes all of `bytes` to an open file.
pub fn write(file: impl AsFd, mut bytes: &[u8]) -> Result<(), SysError> {
    while !bytes.is_empty() {
        match rustix::io::write(&file, bytes) {
            Ok(done) => bytes = &bytes[done..],
            Err(Errno::INTR) => {}
            Err(errno) => {
                return Err(SysError::new(
                    errno,
                    format_args!("write({}, {} bytes)", shown(&file), bytes.len()),
                ));
            }
        }
    }
    Ok(())
}

/// Makes `bytes` all that an open file holds.
pub fn overwrite(file: impl AsFd, bytes: &[u8]) -> Result<(), SysError> {
    fs::ftruncate(&file, 0)
        .and_then(|()| fs::seek(&file, fs::SeekFrom::Start(0)))
        .map_err(|errno| SysError::new(errno, format_args!("ftruncate({}, 0)", shown(&file))))?;
    write(file, bytes)
}

/// Writes an open file to the disk (fsync(2)).
pub fn sync(file: impl AsFd) -> Result<(), SysError> {
    fs::fsync(&file).map_err(|errno| SysError::new(errno, format_args!("fsync({})", shown(&file))))
}

/// Begins to write an open file to the disk, and waits for nothing (sync_file_range(2), Linux 2.6.17). A hint: a
/// filesystem that cannot does not, and a sync still has to see to it.
pub fn begin_sync(file: impl AsFd) {
    // SAFETY: the call takes no pointers.
    unsafe { libc::sync_file_range(file.as_fd().as_raw_fd(), 0, 0, libc::SYNC_FILE_RANGE_WRITE) };
}

/// Waits for a lock on an open file or folder (flock(2)). It is dropped when the last handle of this opening is closed.
pub fn lock(file: impl AsFd, kind: LockKind) -> Result<(), SysError> {
    let operation = match kind {
        LockKind::Shared => FlockOperation::LockShared,
        LockKind::Exclusive => FlockOperation::LockExclusive,
    };
    loop {
        match fs::flock(&file, operation) {
            Err(Errno::INTR) => {}
            done => {
                return done.map_err(|errno| {
                    SysError::new(errno, format_args!("flock({}, {kind:?})", shown(&file)))
                });
            }
        }
    }
}

/// Takes a lock on an open file or folder if nobody is in the way, and says whether it did.
pub fn try_lock(file: impl AsFd, kind: LockKind) -> Result<bool, SysError> {
    let operation = match kind {
        LockKind::Shared => FlockOperation::NonBlockingLockShared,
        LockKind::Exclusive => FlockOperation::NonBlockingLockExclusive,
    };
    match fs::flock(&file, operation) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(errno) => Err(SysError::new(
            errno,
            format_args!("flock({}, {kind:?}, LOCK_NB)", shown(&file)),
        )),
    }
}

/// Returns the processes that hold a lock on an open file (flock(2)), as far as /proc/locks tells: of this pid namespace only, and
/// not on every filesystem.
pub fn lock_holders(file: impl AsFd) -> Vec<u32> {
    let Ok(stat) = fs::fstat(&file) else {
        return Vec::new();
    };
    let device = stat.st_dev;
    let place = format!(
        "{:02x}:{:02x}:{}",
        fs::major(device),
        fs::minor(device),
        stat.st_ino
    );
    let text = fs_err::read_to_string("/proc/locks").unwrap_or_default();
    // `1: FLOCK ADVISORY READ 4711 fe:00:1234 0 EOF`; who waits has an arrow behind the number (proc_locks(5)).
    let holder = |line: &str| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        (words.get(1) == Some(&"FLOCK") && words.get(5) == Some(&place.as_str()))
            .then(|| words[4].parse().ok())
            .flatten()
    };
    let mut holders: Vec<u32> = text.lines().filter_map(holder).filter(|&pid| pid != 0).collect();
    holders.sort_unstable();
    holders.dedup();
    holders
}

/// Whether this process may write to the file, or make files in the folder, `path` (access(2), for the effective user).
pub fn may_write(path: &Path) -> bool {
    fs::accessat(fs::CWD, path, fs::Access::WRITE_OK, AtFlags::EACCESS).is_ok()
}

/// Takes a lock on the byte `at` of an open file if nobody is in the way, and says whether it did (`F_OFD_SETLK` in
/// fcntl_locking(2)). It is dropped when the last handle of this opening is closed.
pub fn try_lock_byte(file: impl AsFd, at: i64) -> Result<bool, SysError> {
    use nix::fcntl::{FcntlArg, fcntl};
    use nix::libc;
    let wanted = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: at,
        l_len: 1,
        l_pid: 0,
    };
    match fcntl(file.as_fd(), FcntlArg::F_OFD_SETLK(&wanted)) {
        Ok(_) => Ok(true),
        Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EACCES) => Ok(false),
        Err(errno) => Err(SysError::new(
            Errno::from_raw_os_error(errno as i32),
            format_args!("fcntl({}, F_OFD_SETLK, {at})", shown(&file)),
        )),
    }
}

/// Whether somebody else holds a lock on the byte `at` of an open file (`F_OFD_GETLK`).
pub fn is_byte_locked(file: impl AsFd, at: i64) -> Result<bool, SysError> {
    use nix::fcntl::{FcntlArg, fcntl};
    use nix::libc;
    let mut asked = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: at,
        l_len: 1,
        l_pid: 0,
    };
    match fcntl(file.as_fd(), FcntlArg::F_OFD_GETLK(&mut asked)) {
        Ok(_) => Ok(asked.l_type != libc::F_UNLCK as libc::c_short),
        Err(errno) => Err(SysError::new(
            Errno::from_raw_os_error(errno as i32),
            format_args!("fcntl({}, F_OFD_GETLK, {at})", shown(&file)),
        )),
    }
}

/// Puts `bytes` in the place of the `old` bytes that an open file holds, so that whoever reads meanwhile sees lines of
/// the one or of the other, and never an empty file.
pub fn rewrite(file: impl AsFd, bytes: &[u8], old: usize) -> Result<(), SysError> {
    let mut filled = bytes.to_vec();
    filled.resize(old.max(bytes.len()), b'\n');
    let mut at = 0;
    while at < filled.len() {
        match rustix::io::pwrite(&file, &filled[at..], at as u64) {
            Ok(taken) => at += taken,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(SysError::new(errno, format_args!("pwrite({})", shown(&file)))),
        }
    }
    fs::ftruncate(&file, bytes.len() as u64).map_err(|errno| {
        SysError::new(
            errno,
            format_args!("ftruncate({}, {})", shown(&file), bytes.len()),
        )
    })
}

/// Returns the user that this process makes files as.
pub fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Returns a number that nobody can guess.
pub fn random() -> Result<u64, SysError> {
    let mut bytes = [0u8; 8];
    // Up to 256 bytes always come whole (getrandom(2)).
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(|errno| SysError::new(errno, "getrandom(8 bytes)"))?;
    Ok(u64::from_le_bytes(bytes))
}

impl From<FileType> for FileKind {
    fn from(kind: FileType) -> Self {
        match kind {
            FileType::RegularFile => Self::File,
            FileType::Directory => Self::Folder,
            FileType::Symlink => Self::Symlink,
            FileType::Fifo => Self::Fifo,
            _ => Self::Other,
        }
    }
}

impl From<fs::Stat> for Stat {
    fn from(stat: fs::Stat) -> Self {
        let kind = FileType::from_raw_mode(stat.st_mode);
        let device = matches!(kind, FileType::BlockDevice | FileType::CharacterDevice).then(|| Device {
            block: kind == FileType::BlockDevice,
            major: fs::major(stat.st_rdev),
            minor: fs::minor(stat.st_rdev),
        });
        Self {
            kind: kind.into(),
            mode: (stat.st_mode & 0o7777) as u16,
            uid: stat.st_uid,
            gid: stat.st_gid,
            size: u64::try_from(stat.st_size).unwrap_or_default(),
            mtime: stat.st_mtime,
            mtime_nanos: u32::try_from(stat.st_mtime_nsec).unwrap_or_default(),
            ctime: stat.st_ctime,
            ctime_nanos: u32::try_from(stat.st_ctime_nsec).unwrap_or_default(),
            inode: (stat.st_dev, stat.st_ino),
            linked: stat.st_nlink > 1,
            device,
        }
    }
}

impl From<fs::Statx> for Stat {
    fn from(stat: fs::Statx) -> Self {
        let kind = FileType::from_raw_mode(stat.stx_mode.into());
        let device = matches!(kind, FileType::BlockDevice | FileType::CharacterDevice).then_some(Device {
            block: kind == FileType::BlockDevice,
            major: stat.stx_rdev_major,
            minor: stat.stx_rdev_minor,
        });
        Self {
            kind: kind.into(),
            mode: stat.stx_mode & 0o7777,
            uid: stat.stx_uid,
            gid: stat.stx_gid,
            size: stat.stx_size,
            mtime: stat.stx_mtime.tv_sec,
            mtime_nanos: stat.stx_mtime.tv_nsec,
            ctime: stat.stx_ctime.tv_sec,
            ctime_nanos: stat.stx_ctime.tv_nsec,
            inode: (fs::makedev(stat.stx_dev_major, stat.stx_dev_minor), stat.stx_ino),
            linked: stat.stx_nlink > 1,
            device,
        }
    }
}

pub(super) fn bits(mode: u16) -> Mode {
    Mode::from_raw_mode(u32::from(mode))
}

pub(super) fn times(mtime: i64) -> fs::Timestamps {
    fs::Timestamps {
        last_access: fs::Timespec {
            tv_sec: 0,
            tv_nsec: fs::UTIME_OMIT,
        },
        last_modification: fs::Timespec {
            tv_sec: mtime,
            tv_nsec: 0,
        },
    }
}

/// Calls with a larger buffer until the answer fits.
fn whole(mut call: impl FnMut(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut buffer = vec![0; 1024];
    loop {
        match call(&mut buffer) {
            Ok(size) => {
                buffer.truncate(size);
                return Ok(buffer);
            }
            // Nothing is larger than 64 KiB (xattr(7)); the answer may grow between two calls.
            Err(Errno::RANGE) if buffer.len() < 1 << 17 => buffer.resize(buffer.len() * 4, 0),
            Err(errno) => return Err(errno),
        }
    }
}

pub(super) fn path_of(file: impl AsFd) -> PathBuf {
    let number = file.as_fd().as_raw_fd();
    match fs::readlink(format!("/proc/self/fd/{number}"), Vec::new()) {
        Ok(path) => PathBuf::from(OsString::from_vec(path.into_bytes())),
        Err(_) => PathBuf::from(format!("fd {number}")),
    }
}

/// Returns an open file as a message shows it.
pub(super) fn shown(file: impl AsFd) -> String {
    format!("{:?}", path_of(file))
}
