//! [`Dir`]: files below a directory handle. No path leads out of it: one name is taken as it is and never followed, a
//! longer path is resolved by openat2(2) with `RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS`, so no symlink on the way is either.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{self, AtFlags, FileType, Gid, Mode, OFlags, RenameFlags, ResolveFlags, Uid};
use rustix::io::Errno;

use super::SysError;
use super::file::{self, FileKind, Stat, bits, shown, times};

/// An open folder.
#[derive(Debug)]
pub struct Dir(OwnedFd);

impl Dir {
    /// Opens the folder at `path` on the host, following symlinks.
    pub fn open(path: &Path) -> Result<Self, SysError> {
        fs::open(path, FOLDER, Mode::empty())
            .map(Self)
            .map_err(|errno| SysError::new(errno, format_args!("open({path:?}, O_DIRECTORY)")))
    }

    /// Returns another handle on the same opening: locks on it belong to both (flock(2)).
    pub fn share(&self) -> Result<Self, SysError> {
        rustix::io::fcntl_dupfd_cloexec(&self.0, 3)
            .map(Self)
            .map_err(|errno| SysError::new(errno, "fcntl(F_DUPFD_CLOEXEC)"))
    }

    /// Opens the folder at `path` on the host; what the last name of it says must be a folder itself, and no symlink.
    pub fn open_itself(path: &Path) -> Result<Self, SysError> {
        // A slash at the end would have a link followed all the same (path_resolution(7)).
        let path: PathBuf = path.components().collect();
        fs::open(&path, FOLDER | OFlags::NOFOLLOW, Mode::empty())
            .map(Self)
            .map_err(|errno| SysError::new(errno, format_args!("open({path:?}, O_DIRECTORY | O_NOFOLLOW)")))
    }

    /// Makes the folder `path` of the host. The umask applies to `mode`.
    pub fn make(path: &Path, mode: u16) -> Result<(), SysError> {
        fs::mkdir(path, bits(mode))
            .map_err(|errno| SysError::new(errno, format_args!("mkdir({path:?}, {mode:04o})")))
    }

    /// Opens the folder at `path`.
    pub fn open_dir(&self, path: impl AsRef<Path>) -> Result<Self, SysError> {
        self.open_below(path.as_ref(), FOLDER, Mode::empty()).map(Self)
    }

    /// Opens the file at `path` for reading; a named pipe is opened without waiting for its other end.
    pub fn open_file(&self, path: impl AsRef<Path>) -> Result<File, SysError> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::NOFOLLOW;
        self.open_below(path.as_ref(), flags, Mode::empty())
            .map(File::from)
    }

    /// Opens `path`, whatever it is but a symbolic link to follow, as a place only (`O_PATH`): neither a named pipe nor a
    /// device notices.
    pub fn open_place(&self, path: impl AsRef<Path>) -> Result<OwnedFd, SysError> {
        self.open_below(path.as_ref(), OFlags::PATH | OFlags::NOFOLLOW, Mode::empty())
    }

    /// Makes the file `path`, which must not exist, and opens it for reading and writing. The umask applies to `mode`.
    pub fn create_file(&self, path: impl AsRef<Path>, mode: u16) -> Result<File, SysError> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        self.open_below(path.as_ref(), flags, bits(mode)).map(File::from)
    }

    /// Makes the file `path` like [`Self::create_file`]; `None` where something is there already.
    pub fn create_new(&self, path: impl AsRef<Path>, mode: u16) -> Result<Option<File>, SysError> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        match self.try_open(path.as_ref(), flags, bits(mode)) {
            Err(Errno::EXIST) => Ok(None),
            opened => opened
                .map(|file| Some(file.into()))
                .map_err(|errno| self.failed_open(errno, path.as_ref(), flags)),
        }
    }

    /// Opens the file `path` for reading and writing, and makes it (0600) if it is missing.
    pub fn open_or_create(&self, path: impl AsRef<Path>) -> Result<File, SysError> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW;
        self.open_below(path.as_ref(), flags, bits(0o600)).map(File::from)
    }

    /// Makes the folder `path`. The umask applies to `mode`.
    pub fn make_dir(&self, path: impl AsRef<Path>, mode: u16) -> Result<(), SysError> {
        let path = path.as_ref();
        self.at(path)
            .and_then(|(base, name)| fs::mkdirat(base, name, bits(mode)))
            .map_err(|errno| {
                SysError::new(
                    errno,
                    format_args!("mkdirat({}, {path:?}, {mode:04o})", shown(&self.0)),
                )
            })
    }

    /// Makes the symbolic link `path` with `target`, which is not looked at.
    pub fn symlink(&self, target: &[u8], path: impl AsRef<Path>) -> Result<(), SysError> {
        let (path, target) = (path.as_ref(), OsStr::from_bytes(target));
        self.at(path)
            .and_then(|(base, name)| fs::symlinkat(target, base, name))
            .map_err(|errno| {
                SysError::new(
                    errno,
                    format_args!("symlinkat({target:?}, {}, {path:?})", shown(&self.0)),
                )
            })
    }

    /// Makes the named pipe `path`. The umask applies to `mode`.
    pub fn make_fifo(&self, path: impl AsRef<Path>, mode: u16) -> Result<(), SysError> {
        let path = path.as_ref();
        self.at(path)
            .and_then(|(base, name)| fs::mknodat(base, name, FileType::Fifo, bits(mode), 0))
            .map_err(|errno| {
                SysError::new(
                    errno,
                    format_args!("mknodat({}, {path:?}, S_IFIFO | {mode:04o})", shown(&self.0)),
                )
            })
    }

    /// Gives the file `path` one more name, `new_path` below `new`.
    pub fn link(
        &self,
        path: impl AsRef<Path>,
        new: &Dir,
        new_path: impl AsRef<Path>,
    ) -> Result<(), SysError> {
        let (path, new_path) = (path.as_ref(), new_path.as_ref());
        let call = || -> Result<(), Errno> {
            let ((base, name), (new_base, new_name)) = (self.at(path)?, new.at(new_path)?);
            fs::linkat(base, name, new_base, new_name, AtFlags::empty())
        };
        call().map_err(|errno| self.failed_pair(errno, "linkat", path, new, new_path))
    }

    /// Moves `path` to `new_path` below `new`, where nothing may be: an existing file is `EEXIST` and stays.
    pub fn rename(
        &self,
        path: impl AsRef<Path>,
        new: &Dir,
        new_path: impl AsRef<Path>,
    ) -> Result<(), SysError> {
        let (path, new_path) = (path.as_ref(), new_path.as_ref());
        let call = || -> Result<(), Errno> {
            let ((base, name), (new_base, new_name)) = (self.at(path)?, new.at(new_path)?);
            match fs::renameat_with(&base, name, &new_base, new_name, RenameFlags::NOREPLACE) {
                // A filesystem without RENAME_NOREPLACE: a link refuses an existing name too, and a folder only ever
                // replaces an empty one.
                Err(Errno::INVAL) => match fs::linkat(&base, name, &new_base, new_name, AtFlags::empty()) {
                    Ok(()) => fs::unlinkat(base, name, AtFlags::empty()),
                    Err(Errno::PERM) => fs::renameat(base, name, new_base, new_name),
                    Err(errno) => Err(errno),
                },
                done => done,
            }
        };
        call().map_err(|errno| self.failed_pair(errno, "renameat2", path, new, new_path))
    }

    /// Moves `path` to `new_path` below `new`, in place of what is there.
    pub fn replace(
        &self,
        path: impl AsRef<Path>,
        new: &Dir,
        new_path: impl AsRef<Path>,
    ) -> Result<(), SysError> {
        let (path, new_path) = (path.as_ref(), new_path.as_ref());
        let call = || -> Result<(), Errno> {
            let ((base, name), (new_base, new_name)) = (self.at(path)?, new.at(new_path)?);
            fs::renameat(base, name, new_base, new_name)
        };
        call().map_err(|errno| self.failed_pair(errno, "renameat", path, new, new_path))
    }

    /// Takes away the name `path` of something that is no folder.
    pub fn unlink(&self, path: impl AsRef<Path>) -> Result<(), SysError> {
        self.unlink_as(path.as_ref(), AtFlags::empty())
    }

    /// Takes away the empty folder `path`.
    pub fn remove_dir(&self, path: impl AsRef<Path>) -> Result<(), SysError> {
        self.unlink_as(path.as_ref(), AtFlags::REMOVEDIR)
    }

    /// Takes away `path` with all that is below it, folders without write permission too. That something is gone
    /// already is no error: another may be at the same work. What is mounted there stays, and is one: `EXDEV`, or `EBUSY`
    /// where it is a file.
    pub fn remove_all(&self, path: impl AsRef<Path>) -> Result<(), SysError> {
        let mut next = vec![path.as_ref().to_owned()];
        while let Some(doomed) = next.pop() {
            let mut deep = Deep {
                top: self,
                beside: path.as_ref(),
                moved: &mut next,
            };
            self.remove_below(&doomed, 0, &mut deep)?;
        }
        Ok(())
    }

    /// Returns what is in this folder, in no order, without `.` and `..`.
    pub fn list(&self) -> Result<Vec<(OsString, FileKind)>, SysError> {
        let failed = |errno| SysError::new(errno, format_args!("getdents64({})", shown(&self.0)));
        let mut found = Vec::new();
        for entry in fs::Dir::read_from(&self.0).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            let name = OsString::from_vec(name.to_vec());
            let kind = match entry.file_type() {
                FileType::Unknown => self.stat(&name)?.kind,
                known => known.into(),
            };
            found.push((name, kind));
        }
        Ok(found)
    }

    /// Returns what `path` is, without following it.
    pub fn stat(&self, path: impl AsRef<Path>) -> Result<Stat, SysError> {
        let path = path.as_ref();
        self.try_stat(path).map_err(|errno| self.failed_stat(errno, path))
    }

    fn try_stat(&self, path: &Path) -> Result<Stat, Errno> {
        let (base, name) = self.at(path)?;
        fs::statat(base, name, AtFlags::SYMLINK_NOFOLLOW).map(Stat::from)
    }

    fn failed_stat(&self, errno: Errno, path: &Path) -> SysError {
        SysError::new(errno, format_args!("fstatat({}, {path:?})", shown(&self.0)))
    }

    /// Returns what `path` is, without following it, as [`file::stat_now`] does.
    pub fn stat_now(&self, path: impl AsRef<Path>) -> Result<Stat, SysError> {
        let path = path.as_ref();
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::STATX_FORCE_SYNC;
        self.at(path)
            .and_then(|(base, name)| fs::statx(base, name, flags, fs::StatxFlags::BASIC_STATS))
            .map(Stat::from)
            .map_err(|errno| SysError::new(errno, format_args!("statx({}, {path:?})", shown(&self.0))))
    }

    /// Returns what `path` is, `None` where nothing is. That is asked for each file that comes into a store, so the
    /// usual answer costs no text.
    pub fn look(&self, path: impl AsRef<Path>) -> Result<Option<Stat>, SysError> {
        let path = path.as_ref();
        match self.try_stat(path) {
            Err(Errno::NOENT) => Ok(None),
            stat => stat.map(Some).map_err(|errno| self.failed_stat(errno, path)),
        }
    }

    /// Returns the target of the symbolic link `path`.
    pub fn read_link(&self, path: impl AsRef<Path>) -> Result<Box<[u8]>, SysError> {
        let path = path.as_ref();
        self.at(path)
            .and_then(|(base, name)| fs::readlinkat(base, name, Vec::new()))
            .map(|target| target.into_bytes().into())
            .map_err(|errno| SysError::new(errno, format_args!("readlinkat({}, {path:?})", shown(&self.0))))
    }

    /// Gives `path`, which is not followed, to an owner.
    pub fn chown(&self, path: impl AsRef<Path>, uid: u32, gid: u32) -> Result<(), SysError> {
        let path = path.as_ref();
        let owner = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        self.at(path)
            .and_then(|(base, name)| fs::chownat(base, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW))
            .map_err(|errno| {
                SysError::new(
                    errno,
                    format_args!("fchownat({}, {path:?}, {uid}, {gid})", shown(&self.0)),
                )
            })
    }

    /// Sets the permission bits of `path`, which must be no symlink (the kernel would follow it: fchmodat(2)).
    pub fn chmod(&self, path: impl AsRef<Path>, mode: u16) -> Result<(), SysError> {
        let path = path.as_ref();
        self.at(path)
            .and_then(|(base, name)| fs::chmodat(base, name, bits(mode), AtFlags::empty()))
            .map_err(|errno| {
                SysError::new(
                    errno,
                    format_args!("fchmodat({}, {path:?}, {mode:04o})", shown(&self.0)),
                )
            })
    }

    /// Sets the modification time of `path`, which is not followed (seconds since 1970 UTC).
    pub fn set_mtime(&self, path: impl AsRef<Path>, mtime: i64) -> Result<(), SysError> {
        let path = path.as_ref();
        self.at(path)
            .and_then(|(base, name)| fs::utimensat(base, name, &times(mtime), AtFlags::SYMLINK_NOFOLLOW))
            .map_err(|errno| {
                SysError::new(
                    errno,
                    format_args!("utimensat({}, {path:?}, {mtime})", shown(&self.0)),
                )
            })
    }

    /// Gives `path`, which is not followed, the present time as its modification time.
    pub fn touch(&self, path: impl AsRef<Path>) -> Result<(), SysError> {
        let path = path.as_ref();
        let mut times = times(0);
        times.last_modification.tv_nsec = fs::UTIME_NOW;
        self.at(path)
            .and_then(|(base, name)| fs::utimensat(base, name, &times, AtFlags::SYMLINK_NOFOLLOW))
            .map_err(|errno| {
                SysError::new(
                    errno,
                    format_args!("utimensat({}, {path:?}, now)", shown(&self.0)),
                )
            })
    }

    /// Writes all of this folder's filesystem to the disk, and returns the first failure to do so since it was opened.
    pub fn sync_filesystem(&self) -> Result<(), SysError> {
        fs::syncfs(&self.0).map_err(|errno| SysError::new(errno, format_args!("syncfs({})", shown(&self.0))))
    }

    /// Returns where the folder is now, as far as /proc tells.
    pub fn path(&self) -> PathBuf {
        file::path_of(&self.0)
    }

    /// Returns what to call with for `path`: one name, and the folder that it is in.
    fn at<'a, 'p>(&'a self, path: &'p Path) -> Result<(Base<'a>, &'p OsStr), Errno> {
        let bytes = path.as_os_str().as_bytes();
        let (folder, name) = match bytes.iter().rposition(|&byte| byte == b'/') {
            None => (None, bytes),
            // The kernel's own answer to a path that leads out (openat2(2), RESOLVE_BENEATH).
            Some(0) => return Err(Errno::XDEV),
            Some(cut) => (Some(&bytes[..cut]), &bytes[cut + 1..]),
        };
        if name == b".." {
            return Err(Errno::XDEV);
        }
        let base = match folder {
            None => Base::Here(self.0.as_fd()),
            Some(folder) => Base::Below(fs::openat2(
                &self.0,
                OsStr::from_bytes(folder),
                FOLDER | OFlags::PATH,
                Mode::empty(),
                BENEATH,
            )?),
        };
        Ok((base, OsStr::from_bytes(name)))
    }

    /// Opens the folder at `path` if no other filesystem is mounted there or on the way (openat2(2), RESOLVE_NO_XDEV).
    fn open_unmounted(&self, path: &Path) -> Result<Self, SysError> {
        let resolve = BENEATH | ResolveFlags::NO_XDEV;
        self.try_resolve(path, FOLDER, Mode::empty(), resolve)
            .map(Self)
            .map_err(|errno| {
                SysError::new(
                    errno,
                    format_args!(
                        "openat2({}, {path:?}, {FOLDER:?}, RESOLVE_BENEATH | RESOLVE_NO_XDEV)",
                        shown(&self.0)
                    ),
                )
            })
    }

    fn open_below(&self, path: &Path, flags: OFlags, mode: Mode) -> Result<OwnedFd, SysError> {
        self.try_open(path, flags, mode)
            .map_err(|errno| self.failed_open(errno, path, flags))
    }

    fn try_open(&self, path: &Path, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
        self.try_resolve(path, flags, mode, BENEATH)
    }

    fn try_resolve(
        &self,
        path: &Path,
        flags: OFlags,
        mode: Mode,
        resolve: ResolveFlags,
    ) -> Result<OwnedFd, Errno> {
        loop {
            match fs::openat2(&self.0, path, flags | OFlags::CLOEXEC, mode, resolve) {
                // Something was renamed while the kernel looked at a `..` (openat2(2)).
                Err(Errno::AGAIN | Errno::INTR) => {}
                done => return done,
            }
        }
    }

    fn failed_open(&self, errno: Errno, path: &Path, flags: OFlags) -> SysError {
        SysError::new(
            errno,
            format_args!(
                "openat2({}, {path:?}, {flags:?}, RESOLVE_BENEATH)",
                shown(&self.0)
            ),
        )
    }

    fn unlink_as(&self, path: &Path, flags: AtFlags) -> Result<(), SysError> {
        self.at(path)
            .and_then(|(base, name)| fs::unlinkat(base, name, flags))
            .map_err(|errno| {
                SysError::new(
                    errno,
                    format_args!("unlinkat({}, {path:?}, {flags:?})", shown(&self.0)),
                )
            })
    }

    /// Removes `path`, which lies `depth` folders down. One handle a level is held open, so what lies very deep is
    /// moved up first, and goes later.
    fn remove_below(&self, path: &Path, depth: usize, deep: &mut Deep<'_>) -> Result<(), SysError> {
        match gone(self.unlink(path)) {
            // A folder: EISDIR on Linux, EPERM where POSIX is followed (unlink(2)).
            Err(error) if matches!(error.errno, Errno::ISDIR | Errno::PERM) => {}
            done => return done.map(drop),
        }
        let folder = match self.open_unmounted(path) {
            Err(error) if error.errno == Errno::NOENT => return Ok(()),
            Err(error) if error.errno == Errno::ACCESS => {
                self.chmod(path, 0o700)?;
                self.open_unmounted(path)?
            }
            opened => opened?,
        };
        if file::stat(&folder)?.mode & 0o700 != 0o700 {
            file::chmod(&folder, 0o700)?;
        }
        if depth == DEEPEST {
            let mut name = deep.beside.as_os_str().to_owned();
            name.push(format!("{DEEP}{:016x}", file::random()?));
            if gone(self.rename(path, deep.top, &name))?.is_some() {
                deep.moved.push(name.into());
            }
            return Ok(());
        }
        for (name, _) in folder.list()? {
            folder.remove_below(Path::new(&name), depth + 1, deep)?;
        }
        gone(self.remove_dir(path)).map(drop)
    }

    fn failed_pair(&self, errno: Errno, call: &str, path: &Path, new: &Dir, new_path: &Path) -> SysError {
        let (here, there) = (shown(&self.0), shown(&new.0));
        SysError::new(
            errno,
            format_args!("{call}({here}, {path:?}, {there}, {new_path:?})"),
        )
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<OwnedFd> for Dir {
    fn from(folder: OwnedFd) -> Self {
        Self(folder)
    }
}

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
const BENEATH: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS);
/// So many folders deep, `remove_all` holds a handle a level; soft limits on open files begin at 1024.
const DEEPEST: usize = 64;
/// What lies deeper is called as what is being removed, and then this, and 16 hexadecimal digits.
pub(crate) const DEEP: &str = ".deep-";

/// Where `remove_all` moves what lies too deep: beside what it was asked to remove, so that whoever clears up after a
/// process that was killed finds it there.
struct Deep<'a> {
    top: &'a Dir,
    beside: &'a Path,
    moved: &'a mut Vec<PathBuf>,
}

/// The folder of a name: the handle itself, or one opened below it.
enum Base<'a> {
    Here(BorrowedFd<'a>),
    Below(OwnedFd),
}

impl AsFd for Base<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Here(folder) => *folder,
            Self::Below(folder) => folder.as_fd(),
        }
    }
}

/// Turns "it does not exist" into `None`.
fn gone(done: Result<(), SysError>) -> Result<Option<()>, SysError> {
    match done {
        Err(error) if error.errno == Errno::NOENT => Ok(None),
        done => done.map(Some),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn folder() -> (tempfile::TempDir, Dir) {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        (temp, dir)
    }

    #[test]
    fn no_path_leads_out_of_the_folder() {
        let (temp, outer) = folder();
        outer.make_dir("in", 0o755).unwrap();
        outer.create_file("secret", 0o600).unwrap();
        let dir = outer.open_dir("in").unwrap();
        dir.symlink(b"..", "up").unwrap();
        dir.symlink(temp.path().as_os_str().as_bytes(), "away").unwrap();
        for path in [
            "../secret",
            "/etc/passwd",
            "up/secret",
            "away/secret",
            "..",
            "up/../secret",
        ] {
            assert!(dir.open_file(path).is_err(), "{path} was opened");
            assert!(dir.unlink(path).is_err(), "{path} was removed");
            assert!(dir.stat(path).is_err(), "{path} was seen");
        }
        for path in ["../x", "/tmp/x", "up/x", "away/x", "..", "up/../x", "a/../../x"] {
            assert!(dir.create_file(path, 0o600).is_err(), "{path} was made");
            assert!(dir.make_dir(path, 0o700).is_err(), "{path} was made");
            assert!(dir.symlink(b"x", path).is_err(), "{path} was made");
        }
        assert!(outer.stat("secret").is_ok());
        assert_eq!(outer.list().unwrap().len(), 2);
    }

    #[test]
    fn a_link_is_no_folder_itself() {
        let (temp, outer) = folder();
        outer.make_dir("in", 0o755).unwrap();
        outer.symlink(b"in", "link").unwrap();
        assert!(Dir::open_itself(&temp.path().join("in/")).is_ok());
        assert!(Dir::open(&temp.path().join("link")).is_ok());
        for path in ["link", "link/", "link/."] {
            assert!(
                Dir::open_itself(&temp.path().join(path)).is_err(),
                "{path} was opened"
            );
        }
    }

    #[test]
    fn a_failed_call_is_shown_as_it_was_made() {
        let (temp, dir) = folder();
        let error = dir.make_dir("a\n/b", 0o750).unwrap_err();
        let expected = format!(
            "mkdirat({:?}, \"a\\n/b\", 0750): No such file or directory",
            temp.path()
        );
        assert!(error.to_string().starts_with(&expected), "{error}");
    }

    #[test]
    fn a_rename_never_replaces() {
        let (_temp, dir) = folder();
        dir.create_file("a", 0o600).unwrap().write_all(b"a").unwrap();
        dir.create_file("b", 0o600).unwrap();
        assert_eq!(dir.rename("a", &dir, "b").unwrap_err().errno, Errno::EXIST);
        assert_eq!(dir.stat("a").unwrap().size, 1);
        assert_eq!(dir.stat("b").unwrap().size, 0);
    }

    #[test]
    fn remove_all_takes_read_only_and_very_deep_folders() {
        let (_temp, dir) = folder();
        dir.make_dir("doomed", 0o700).unwrap();
        let mut here = dir.open_dir("doomed").unwrap();
        for _ in 0..300 {
            here.create_file("file", 0o400).unwrap();
            here.make_dir("sub", 0o700).unwrap();
            let sub = here.open_dir("sub").unwrap();
            file::chmod(&here, 0o555).unwrap();
            here = sub;
        }
        file::chmod(&here, 0).unwrap();
        dir.symlink(b"/etc", "doomed2").unwrap();
        dir.remove_all("doomed").unwrap();
        dir.remove_all("doomed2").unwrap();
        dir.remove_all("never there").unwrap();
        assert_eq!(dir.list().unwrap(), []);
        assert!(Path::new("/etc").exists());
    }

    #[test]
    fn locks_exclude_each_other_until_they_are_dropped() {
        let (_temp, dir) = folder();
        let (one, two) = (
            dir.open_or_create("lock").unwrap(),
            dir.open_or_create("lock").unwrap(),
        );
        assert!(file::try_lock(&one, file::LockKind::Shared).unwrap());
        assert!(file::try_lock(&two, file::LockKind::Shared).unwrap());
        assert!(!file::try_lock(&two, file::LockKind::Exclusive).unwrap());
        drop(one);
        assert!(file::try_lock(&two, file::LockKind::Exclusive).unwrap());
    }
}
