//! A writable layer on a disk: a folder with what overlayfs asks for, locked by the run that uses it.
//!
//! ```text
//! upper/       what is written; dressed like the image's own root when it is new
//! work/        overlayfs' own
//! mk-scratch   in a folder of the caller's: which image tree it belongs to, and how it is written
//! lock         in a folder of the caller's: locked by the run that uses it, whose process id it holds
//! ```
//!
//! In the store such a folder goes with the run. One of the caller's stays, and is taken up by the next run if it fits:
//! what overlayfs has noted in it means nothing over another tree, or to a run whose ids or notes are others.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use super::capture::Notes;
use crate::digest::Digest;
use crate::store::document::{BadDocument, Reader, Writer};
use crate::store::{Owners, ScratchFolder, Store};
use crate::sys::dir::Dir;
use crate::sys::file::{self, LockKind};
use crate::sys::place::{self, Dress};
use crate::sys::probe;
use crate::sys::{Errno, SysError, mount, mounted};

const HEADER: &str = "mk-scratch 1";
const DOCUMENT: &str = "mk-scratch";
const DRAFT: &str = "mk-scratch.new";
const LOCK: &str = "lock";
/// What is written, in the folder of a layer.
pub const UPPER: &str = "upper";
const WORK: &str = "work";
/// Where a tmpfs is mounted, in the folder of a layer.
const MEMORY: &str = "memory";

/// Filesystems that overlayfs cannot write to: those that lack what it needs, and those of other machines.
const NO_UPPER: [&str; 15] = [
    "overlay", "nfs", "nfs4", "cifs", "smb3", "ceph", "9p", "vfat", "msdos", "exfat", "ntfs", "ntfs3",
    "ramfs", "ecryptfs", "squashfs",
];

/// Whether overlayfs can write to the filesystem that a store is on.
pub fn can_be_in(store: &Store) -> bool {
    let found = probe::filesystem(store.path());
    !found.is_ok_and(|found| NO_UPPER.contains(&found.kind.as_str()))
}

/// What a layer must fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fit {
    /// The tree below it.
    pub tree: Digest,
    /// How owners are kept.
    pub owners: Owners,
    /// Where overlayfs keeps its notes.
    pub notes: Notes,
}

/// Why writes cannot go to a folder.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It holds other things.
    #[error("`{}` cannot keep a run's writes: expected a new folder, an empty one or one that mk made for this, and it holds `{found}`", .path.display())]
    NotEmpty {
        /// The folder.
        path: PathBuf,
        /// One of the names in it.
        found: String,
    },
    /// It is another user's.
    #[error("`{}` cannot keep a run's writes: it belongs to user {owner}, and this is user {user}", .path.display())]
    NotOurs {
        /// The folder.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// This process's user.
        user: u32,
    },
    /// Others can write to it.
    #[error("`{}` cannot keep a run's writes: others than its owner may write to it (its mode is {mode:04o})", .path.display())]
    Shared {
        /// The folder.
        path: PathBuf,
        /// Its permission bits.
        mode: u16,
    },
    /// It was written over another image.
    #[error("`{}` keeps writes to the image tree {kept}, and this image's is {wanted}", .path.display())]
    OtherTree {
        /// The folder.
        path: PathBuf,
        /// The tree that it belongs to.
        kept: Digest,
        /// That of the run.
        wanted: Digest,
    },
    /// It was written by another kind of run.
    #[error("`{}` was written {kept}, and this run would write {wanted}", .path.display())]
    OtherKind {
        /// The folder.
        path: PathBuf,
        /// How it was written, in words.
        kept: &'static str,
        /// How this run would.
        wanted: &'static str,
    },
    /// Another run uses it.
    #[error("`{}` is in use by {holder}", .path.display())]
    InUse {
        /// The folder.
        path: PathBuf,
        /// By whom, in words.
        holder: String,
    },
    /// Its filesystem is none for this.
    #[error("`{}` cannot keep a run's writes: overlayfs does not write to `{filesystem}`", .path.display())]
    Filesystem {
        /// The folder.
        path: PathBuf,
        /// What the kernel calls it.
        filesystem: String,
    },
    /// What it says of itself cannot be read.
    #[error("`{}` is damaged: {why}", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, as a fragment.
        why: String,
    },
    /// A call failed.
    #[error("`{}` cannot keep a run's writes", .path.display())]
    Sys {
        /// The folder.
        path: PathBuf,
        /// The call.
        #[source]
        failed: SysError,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] crate::store::Error),
}

impl Fit {
    fn encode(&self) -> String {
        let mut text = Writer::new(HEADER);
        text.line("tree", &self.tree.to_string());
        text.line("owners", &self.owners.to_string());
        text.line("notes", word_of(self.notes));
        text.finish()
    }

    fn decode(bytes: &[u8]) -> Result<Self, BadDocument> {
        let mut reader = Reader::new(bytes, HEADER)?;
        let tree = reader.want("tree")?;
        let owners = reader.want("owners")?;
        let notes = match reader.take("notes") {
            Some("trusted") => Notes::Trusted,
            Some("user") => Notes::User,
            _ => return Err(reader.bad("expected `notes` next, `trusted` or `user`")),
        };
        reader.finish()?;
        Ok(Self { tree, owners, notes })
    }

    /// Returns how a run of this kind writes, in words.
    fn kind(&self) -> &'static str {
        match (self.owners, self.notes) {
            (Owners::Native, Notes::Trusted) => "by root",
            (Owners::Native, Notes::User) => "by root with `--userns auto`",
            (Owners::Subordinate, _) => "by an ordinary user with subordinate ids",
            (Owners::Single, _) => "by an ordinary user with a single id",
        }
    }
}

fn word_of(notes: Notes) -> &'static str {
    match notes {
        Notes::Trusted => "trusted",
        Notes::User => "user",
    }
}

/// A layer that this run has for itself, until it is dropped by the last process that has it.
#[derive(Debug)]
pub struct Kept {
    path: PathBuf,
    inode: (u64, u64),
    /// Goes before the folder that it is on.
    _memory: Option<Memory>,
    held: Held,
}

/// A tmpfs on the folder of a layer, in this thread's mount namespace, until it is dropped.
#[derive(Debug)]
struct Memory(PathBuf);

impl Drop for Memory {
    fn drop(&mut self) {
        // What stays mounted in a mount namespace that ends is gone with it.
        _ = mount::detach(&self.0);
    }
}

#[derive(Debug)]
enum Held {
    InStore(ScratchFolder),
    OfCaller(File),
}

impl Kept {
    /// Makes a layer in `store` that goes with the run. `root` is what its root is dressed in.
    pub fn in_store(store: &Store, root: Dress) -> Result<Self, Error> {
        let folder = store.scratch_folder()?;
        let path = std::path::absolute(store.path())
            .map_err(crate::store::Error::Io)?
            .join(folder.path());
        let failed = |failed| Error::Sys {
            path: path.clone(),
            failed,
        };
        fill(folder.dir(), root).map_err(failed)?;
        let inode = file::stat(folder.dir()).map_err(failed)?.inode;
        Ok(Self {
            path,
            inode,
            _memory: None,
            held: Held::InStore(folder),
        })
    }

    /// The same in memory, for a thread with a mount namespace of its own; where no tmpfs can be had, on the disk.
    pub fn in_memory(store: &Store, root: Dress) -> Result<Self, Error> {
        let folder = store.scratch_folder()?;
        let path = std::path::absolute(store.path())
            .map_err(crate::store::Error::Io)?
            .join(folder.path());
        // Not on the folder itself: whoever asks whether somebody holds it has to find its lock.
        let path = path.join(MEMORY);
        let on_disk = match folder.dir().make_dir(MEMORY, 0o700) {
            Ok(()) => mount::tmpfs_on(&path).is_err(),
            Err(_) => true,
        };
        if on_disk {
            drop(folder);
            return Self::in_store(store, root);
        }
        let memory = Memory(path.clone());
        let failed = |failed| Error::Sys {
            path: path.clone(),
            failed,
        };
        let dir = Dir::open(&path).map_err(failed)?;
        fill(&dir, root).map_err(failed)?;
        let inode = file::stat(&dir).map_err(failed)?.inode;
        Ok(Self {
            path,
            inode,
            _memory: Some(memory),
            held: Held::InStore(folder),
        })
    }

    /// Takes the layer in the folder `path`, which must fit, or makes one there. `root` is what a new one's root is
    /// dressed in.
    pub fn in_folder(path: &Path, fit: &Fit, root: Dress) -> Result<Self, Error> {
        let path = std::path::absolute(path).map_err(crate::store::Error::Io)?;
        let failed = |failed| Error::Sys {
            path: path.clone(),
            failed,
        };
        let dir = open_or_make(&path).map_err(failed)?;
        let inode = check_place(&path, &dir)?;
        let fresh = is_fresh(&path, &dir)?;
        let lock = dir.open_or_create(LOCK).map_err(failed)?;
        if !file::try_lock(&lock, LockKind::Exclusive).map_err(failed)? {
            return Err(Error::InUse {
                path,
                holder: holder(&lock),
            });
        }
        file::overwrite(&lock, format!("{}\n", std::process::id()).as_bytes()).map_err(failed)?;
        match fresh && dir.look(DOCUMENT).map_err(failed)?.is_none() {
            true => begin(&dir, fit, root).map_err(failed)?,
            false => check_fit(&path, &dir, fit)?,
        }
        Ok(Self {
            path,
            inode,
            _memory: None,
            held: Held::OfCaller(lock),
        })
    }

    /// Returns another holder of a layer in the store, which stays until both are dropped; `None` of one of the caller's.
    pub fn share(&self) -> Result<Option<Self>, Error> {
        let Held::InStore(folder) = &self.held else {
            return Ok(None);
        };
        Ok(Some(Self {
            path: self.path.clone(),
            inode: self.inode,
            _memory: None,
            held: Held::InStore(folder.share()?),
        }))
    }

    /// Returns the folder that holds `upper` and `work`; absolute.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns which folder that is: filesystem and number.
    pub fn inode(&self) -> (u64, u64) {
        self.inode
    }

    /// Returns the folder of what is written.
    pub fn upper(&self) -> PathBuf {
        self.path.join(UPPER)
    }
}

/// The lock, for a container, which holds it as long as it runs.
impl AsFd for Kept {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.held {
            Held::InStore(folder) => folder.as_fd(),
            Held::OfCaller(lock) => lock.as_fd(),
        }
    }
}

fn open_or_make(path: &Path) -> Result<Dir, SysError> {
    match Dir::open(path) {
        Err(missing) if missing.errno == Errno::NOENT => {}
        opened => return opened,
    }
    let above = Dir::open(path.parent().unwrap_or(Path::new("/")))?;
    match above.make_dir(path.file_name().unwrap_or_default(), 0o700) {
        Err(refused) if refused.errno != Errno::EXIST => Err(refused),
        _ => Dir::open(path),
    }
}

/// Checks whose the folder is, and where: whoever else could write there could put anything into the container.
/// Returns which folder it is.
fn check_place(path: &Path, dir: &Dir) -> Result<(u64, u64), Error> {
    let failed = |failed| Error::Sys {
        path: path.to_owned(),
        failed,
    };
    let (stat, user) = (file::stat(dir).map_err(failed)?, file::own_uid());
    if stat.uid != user {
        return Err(Error::NotOurs {
            path: path.to_owned(),
            owner: stat.uid,
            user,
        });
    }
    if stat.mode & 0o022 != 0 {
        return Err(Error::Shared {
            path: path.to_owned(),
            mode: stat.mode,
        });
    }
    match mounted::kind_of(dir.as_fd()) {
        Some(filesystem) if NO_UPPER.contains(&filesystem.as_str()) => Err(Error::Filesystem {
            path: path.to_owned(),
            filesystem,
        }),
        _ => Ok(stat.inode),
    }
}

/// Whether nothing but what a run that died half-way may have left is in the folder; an error where other things are.
fn is_fresh(path: &Path, dir: &Dir) -> Result<bool, Error> {
    let names = dir.list().map_err(|failed| Error::Sys {
        path: path.to_owned(),
        failed,
    })?;
    if names.iter().any(|(name, _)| name == DOCUMENT) {
        return Ok(false);
    }
    let other = names
        .iter()
        .find(|(name, _)| ![UPPER, WORK, LOCK, DRAFT].iter().any(|ours| name == ours));
    match other {
        Some((name, _)) => Err(Error::NotEmpty {
            path: path.to_owned(),
            found: name.to_string_lossy().into_owned(),
        }),
        None => Ok(true),
    }
}

fn begin(dir: &Dir, fit: &Fit, root: Dress) -> Result<(), SysError> {
    // What lies in an image may be set-user-id, and is for nobody else on this machine to execute.
    file::chmod(dir, 0o700)?;
    for name in [UPPER, WORK] {
        match dir.remove_dir(name) {
            Err(refused) if refused.errno != Errno::NOENT => return Err(refused),
            _ => {}
        }
    }
    fill(dir, root)?;
    match dir.unlink(DRAFT) {
        Err(refused) if refused.errno != Errno::NOENT => return Err(refused),
        _ => {}
    }
    let draft = dir.create_file(DRAFT, 0o600)?;
    file::write(&draft, fit.encode().as_bytes())?;
    file::sync(&draft)?;
    dir.rename(DRAFT, dir, DOCUMENT)
}

fn fill(dir: &Dir, root: Dress) -> Result<(), SysError> {
    dir.make_dir(UPPER, 0o700)?;
    dir.make_dir(WORK, 0o700)?;
    place::put_on(dir.as_fd(), c"upper", root)
}

fn check_fit(path: &Path, dir: &Dir, fit: &Fit) -> Result<(), Error> {
    let read = dir
        .open_file(DOCUMENT)
        .and_then(|document| file::read(&document, 4096));
    let bytes = read.map_err(|failed| Error::Sys {
        path: path.to_owned(),
        failed,
    })?;
    let kept = Fit::decode(&bytes).map_err(|bad| Error::Damaged {
        path: path.join(DOCUMENT),
        why: bad.to_string(),
    })?;
    if (kept.owners, kept.notes) != (fit.owners, fit.notes) {
        return Err(Error::OtherKind {
            path: path.to_owned(),
            kept: kept.kind(),
            wanted: fit.kind(),
        });
    }
    match kept.tree == fit.tree {
        true => Ok(()),
        false => Err(Error::OtherTree {
            path: path.to_owned(),
            kept: kept.tree,
            wanted: fit.tree,
        }),
    }
}

/// Says who holds the lock, in words: the process that took it, or where that has handed it on, nobody by name.
fn holder(lock: &File) -> String {
    let text = file::read(lock, 64).unwrap_or_default();
    match String::from_utf8_lossy(&text).trim_end().parse::<u32>() {
        Ok(pid) if Path::new("/proc").join(pid.to_string()).exists() => format!("the run of process {pid}"),
        Ok(_) => "another run, whose process has ended: a container in the background, or one that is ending"
            .into(),
        Err(_) => "another run".into(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    use super::*;

    const ROOT: Dress = Dress {
        mode: 0o755,
        owner: None,
        modified: (7, 0),
    };

    fn fit() -> Fit {
        Fit {
            tree: Digest::of(b"tree"),
            owners: Owners::Native,
            notes: Notes::Trusted,
        }
    }

    #[test]
    fn what_a_folder_says_of_itself_reads_back() {
        for (owners, notes) in [
            (Owners::Native, Notes::User),
            (Owners::Subordinate, Notes::User),
            (Owners::Native, Notes::Trusted),
        ] {
            let fit = Fit {
                owners,
                notes,
                ..fit()
            };
            assert_eq!(Fit::decode(fit.encode().as_bytes()), Ok(fit));
        }
        let golden = format!(
            "mk-scratch 1\ntree {}\nowners native\nnotes trusted\n",
            Digest::of(b"tree")
        );
        assert_eq!(fit().encode(), golden);
        assert!(Fit::decode(golden.replace("trusted", "none").as_bytes()).is_err());
    }

    #[test]
    fn a_folder_is_made_once_and_found_again() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("kept");
        let kept = Kept::in_folder(&path, &fit(), ROOT).unwrap();
        let upper = fs_err::metadata(kept.upper()).unwrap();
        assert_eq!((upper.mode() & 0o7777, upper.mtime()), (0o755, 7));
        assert_eq!(fs_err::metadata(&path).unwrap().mode() & 0o7777, 0o700);
        fs_err::write(kept.upper().join("f"), "x").unwrap();
        drop(kept);
        let again = Kept::in_folder(&path, &fit(), ROOT).unwrap();
        assert_eq!(fs_err::read_to_string(again.upper().join("f")).unwrap(), "x");
    }

    #[test]
    fn two_runs_do_not_share_a_folder() {
        let temp = tempfile::tempdir().unwrap();
        let kept = Kept::in_folder(temp.path(), &fit(), ROOT).unwrap();
        let said = Kept::in_folder(temp.path(), &fit(), ROOT)
            .unwrap_err()
            .to_string();
        assert!(
            said.ends_with(&format!("is in use by the run of process {}", std::process::id())),
            "{said}"
        );
        drop(kept);
        Kept::in_folder(temp.path(), &fit(), ROOT).unwrap();
    }

    #[test]
    fn a_folder_that_does_not_fit_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        drop(Kept::in_folder(temp.path(), &fit(), ROOT).unwrap());
        let said = |fit: Fit| Kept::in_folder(temp.path(), &fit, ROOT).unwrap_err();
        let tree = Digest::of(b"another");
        assert!(matches!(said(Fit { tree, ..fit() }), Error::OtherTree { .. }));
        let notes = Notes::User;
        let text = said(Fit { notes, ..fit() }).to_string();
        assert!(
            text.ends_with("was written by root, and this run would write by root with `--userns auto`"),
            "{text}"
        );
        fs_err::write(temp.path().join(DOCUMENT), "x").unwrap();
        assert!(matches!(said(fit()), Error::Damaged { .. }));
    }

    #[test]
    fn a_folder_of_other_things_is_left_alone() {
        let temp = tempfile::tempdir().unwrap();
        fs_err::write(temp.path().join("mine"), "x").unwrap();
        let refused = Kept::in_folder(temp.path(), &fit(), ROOT);
        assert!(matches!(refused, Err(Error::NotEmpty { .. })));
        assert_eq!(fs_err::read_dir(temp.path()).unwrap().count(), 1);
        // Nor is a folder that only happens to have one of our names.
        let other = tempfile::tempdir().unwrap();
        fs_err::create_dir(other.path().join("work")).unwrap();
        fs_err::write(other.path().join("work/thesis"), "x").unwrap();
        assert!(Kept::in_folder(other.path(), &fit(), ROOT).is_err());
        assert!(other.path().join("work/thesis").exists());
    }

    #[test]
    fn a_folder_that_was_left_half_made_is_made_whole() {
        let temp = tempfile::tempdir().unwrap();
        fs_err::create_dir(temp.path().join("upper")).unwrap();
        fs_err::set_permissions(temp.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let kept = Kept::in_folder(temp.path(), &fit(), ROOT).unwrap();
        assert!(kept.path().join("work").is_dir());
    }
}
