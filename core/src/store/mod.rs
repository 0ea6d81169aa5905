//! [`Store`]: trees and the bytes of files ↔ disk. Open one, ask it, add to it. Nothing in it is ever written over; the
//! format is docs/store.md.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::digest::Digest;
use crate::meta::Meta;
use crate::sys::SysError;
use crate::sys::dir::Dir;
use crate::sys::file::{self, FileKind, LockKind, Stat};
use crate::tree::Tree;
use crate::tree::encode::BadTree;

pub mod beside;
pub mod cache;
pub mod document;
pub mod du;
mod durability;
pub mod gc;
mod history;
pub mod image;
pub mod layout;
pub mod lock;
pub mod object;
pub(crate) mod parents;
pub mod scratch;
pub mod step;
pub mod verify;
pub mod volume;

pub use durability::Durability;
pub use history::{PastBuild, PastRecipe, PastStep};
pub use image::{Image, ImageId, Ref};
pub use layout::{Format, ObjectName, Owners};
pub use lock::{Hold, KeyLock, Lease};
pub use object::{SourceWriter, Stage};
pub use scratch::ScratchFolder;
pub use step::StepRecord;
pub use volume::{VolumeInfo, VolumeLease};

use document::BadDocument;
use durability::Marked;
use object::Objects;

/// A larger file than this is no tree, in bytes: it would hold twenty million entries.
const LARGEST_TREE: u64 = 4 << 30;

/// A store that is open. Any number of threads and processes work in one store at once.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    dir: Dir,
    format: Format,
    objects: Objects,
    durability: Durability,
    marked: Marked,
}

/// Why the store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no store.
    #[error("there is no store at `{}`", .0.display())]
    Missing(PathBuf),
    /// The folder holds something else.
    #[error("`{}` is not a store, and not empty either: it holds `{found}`", path.display())]
    NotAStore {
        /// The folder.
        path: PathBuf,
        /// One of the names in it.
        found: String,
    },
    /// The folder is another user's.
    #[error("the store `{}` belongs to user {owner}, and this is user {user}", path.display())]
    NotOurs {
        /// The folder.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// This process's user.
        user: u32,
    },
    /// The store keeps owners in a way that this process cannot.
    #[error("the store `{}` keeps owners as `{stored}`, and this process could only keep them as `{wanted}`", path.display())]
    OtherOwners {
        /// The folder.
        path: PathBuf,
        /// What its `format` says.
        stored: Owners,
        /// What this process can do.
        wanted: Owners,
    },
    /// The disk is full.
    #[error("the disk that holds the store `{}` is full", store.display())]
    Full {
        /// The folder of the store.
        store: PathBuf,
        /// The call that failed.
        #[source]
        source: SysError,
    },
    /// A file has more, or larger, extended attributes than the filesystem holds on one file.
    #[error(
        "the filesystem that holds the store does not hold all extended attributes of a file ({count}, {bytes} bytes)"
    )]
    TooManyXattrs {
        /// How many the file is to have.
        count: usize,
        /// The bytes of their names and values.
        bytes: usize,
    },
    /// The store is of another version.
    #[error("the store `{}` is `{found}`: expected `{}`", store.display(), layout::HEADER)]
    OtherVersion {
        /// The folder of the store.
        store: PathBuf,
        /// The first line of its `format`.
        found: String,
    },
    /// What was written last may be lost.
    #[error(
        "the store `{}` was written to without syncs before this machine was started, and may have lost some of that",
        .0.display()
    )]
    Unsynced(PathBuf),
    /// A file of the store is not what it should be.
    #[error("`{}` is damaged: {why}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, as a fragment.
        why: String,
    },
    /// A tree that something names is not there.
    #[error("the store has no tree {0}")]
    NoTree(Digest),
    /// A file of a tree is not there.
    #[error("the store has not the bytes of `{path}`: there is no `{}`", object.display())]
    NoObject {
        /// The path inside the tree.
        path: String,
        /// Where its object should be.
        object: PathBuf,
    },
    /// An image whose folders are not there.
    #[error("image `{0}` is known, and its root filesystem is no longer in the store")]
    NotLaidOut(ImageId),
    /// Nothing has this name or digest.
    #[error("there is no image `{0}`")]
    NoImage(String),
    /// Several images have a digest that begins like this.
    #[error("`{prefix}` could be any of the images {}", .images.join(", "))]
    Ambiguous {
        /// What was asked for.
        prefix: String,
        /// The digests that begin with it.
        images: Vec<String>,
    },
    /// A text that names no image.
    #[error(
        "`{0}` cannot name an image: expected lower-case letters, digits, `.`, `_`, `-`, at most 128, not beginning with a mark"
    )]
    BadName(String),
    /// The same step gave another result than before.
    #[error("step {key} gave tree {now} this time and tree {known} before: it is not reproducible")]
    ReproducibilityFault {
        /// The key of the step.
        key: Digest,
        /// The result that the store remembers.
        known: Digest,
        /// The result of this time.
        now: Digest,
    },
    /// The process has no such id to give a file to.
    #[error(
        "the owner {uid}:{gid} is outside the ids that this process has (/etc/subuid and /etc/subgid grant them)"
    )]
    NoSuchId {
        /// User id.
        uid: u32,
        /// Group id.
        gid: u32,
        /// The call that failed.
        #[source]
        source: SysError,
    },
    /// No volume has this name.
    #[error("there is no volume `{0}`")]
    NoVolume(String),
    /// A volume that is to be taken away is in use.
    #[error("the volume `{0}` is in use by a run")]
    VolumeInUse(String),
    /// The bytes that were to be stored could not be read; the cause is the reader's.
    #[error(transparent)]
    Body(std::io::Error),
    /// A call failed.
    #[error(transparent)]
    Sys(#[from] SysError),
    /// A folder above the store could not be made.
    #[error(transparent)]
    Io(std::io::Error),
}

impl Error {
    /// Explains why a file could not be given to an owner: the kernel's EINVAL says "not mapped" (chown(2)).
    pub(crate) fn no_such_id(error: SysError, meta: &Meta) -> Self {
        match error.errno {
            Errno::INVAL => Self::NoSuchId {
                uid: meta.uid,
                gid: meta.gid,
                source: error,
            },
            _ => error.into(),
        }
    }
}

/// What the store answers.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Store {
    /// Opens the store at `path`, and makes it if nothing is there. `wanted` is how this process can keep owners: a new
    /// store is made so; an existing one keeps its own way, which must be `wanted` or [`Owners::Single`].
    pub fn open(path: &Path, wanted: Owners) -> Result<Self> {
        Self::open_with(path, wanted, Durability::Full)
    }

    /// The same, with another durability than [`Durability::Full`].
    pub fn open_with(path: &Path, wanted: Owners, durability: Durability) -> Result<Self> {
        let mut opened = Self::open_existing(path, wanted);
        // Once, but where another took its draft away, which is seldom once and never ten times.
        for _ in 0..10 {
            if !matches!(opened, Err(Error::Missing(_))) {
                break;
            }
            Self::make(path, wanted, durability)?;
            opened = Self::open_existing(path, wanted);
        }
        Ok(opened?.with_durability(durability))
    }

    /// Opens the store at `path` if there is one, else [`Error::Missing`].
    pub fn open_existing(path: &Path, wanted: Owners) -> Result<Self> {
        let missing = |error: SysError| match error.errno {
            Errno::NOENT => Error::Missing(path.to_owned()),
            _ => error.into(),
        };
        let dir = Dir::open(path).map_err(missing)?;
        let format = read_format(path, &dir)?.ok_or_else(|| Error::Missing(path.to_owned()))?;
        if owned(path, &dir)?.mode != 0o700 {
            file::chmod(&dir, 0o700)?;
        }
        if format.owners != Owners::Single && format.owners != wanted {
            return Err(Error::OtherOwners {
                path: path.to_owned(),
                stored: format.owners,
                wanted,
            });
        }
        Ok(Self {
            path: path.to_owned(),
            dir,
            format,
            objects: Objects::default(),
            durability: Durability::Full,
            marked: Marked::default(),
        })
    }

    /// Returns how the store at `path` keeps owners, `None` where there is no store: a look before a process decides
    /// which user namespace it needs.
    pub fn owners_at(path: &Path) -> Result<Option<Owners>> {
        match Dir::open(path) {
            Err(error) if error.errno == Errno::NOENT => Ok(None),
            Err(error) => Err(error.into()),
            Ok(dir) => Ok(read_format(path, &dir)?.map(|format| format.owners)),
        }
    }

    /// Returns a name in the folder at `path` that is no store's, if there is one: of a store that somebody else is making,
    /// each is, and its folders are empty until it has a `format`.
    pub fn foreign_in(path: &Path) -> Result<Option<String>> {
        let Some(dir) = none_if_missing(Dir::open(path))? else {
            return Ok(None);
        };
        let made = |dir: &Dir| Ok::<_, SysError>(dir.look(layout::FORMAT)?.is_some());
        let begun = made(&dir)?;
        let mut foreign = None;
        for (name, _) in dir.list()? {
            if !is_own(&dir, &name, begun)? {
                foreign = Some(name.to_string_lossy().into_owned());
            }
        }
        // Somebody else may have made it, and put something into it, while this looked.
        if foreign.is_some() && !begun && made(&dir)? {
            return Self::foreign_in(path);
        }
        Ok(foreign)
    }

    /// Deletes the drafts that processes left which were killed while they made a store at `path`, where there is none yet and
    /// nothing foreign: a command that only looks makes none, and nobody else would come by. What cannot be deleted, as on a
    /// filesystem that is read-only, stays.
    pub fn sweep_unmade(path: &Path) {
        if let Ok(dir) = Dir::open(path)
            && owned(path, &dir).is_ok()
        {
            _ = lock::sweep_drafts(&dir);
        }
    }

    /// Makes a store. Its `format` comes last, so a folder without one is none yet; two who make it at once both succeed.
    fn make(path: &Path, owners: Owners, durability: Durability) -> Result<()> {
        fs_err::create_dir_all(path).map_err(Error::Io)?;
        if let Some(found) = Self::foreign_in(path)? {
            return Err(Error::NotAStore {
                path: path.to_owned(),
                found,
            });
        }
        let dir = Dir::open(path)?;
        let full = |error| full(path, error);
        owned(path, &dir)?;
        file::chmod(&dir, 0o700)?;
        for name in layout::FOLDERS {
            exists(dir.make_dir(name, 0o700)).map_err(full)?;
        }
        let draft = layout::draft(file::random()?);
        let file = dir.create_file(&draft, 0o600).map_err(full)?;
        // Until it has its name: a draft whose lock is free is swept.
        file::lock(&file, LockKind::Exclusive)?;
        let format = Format::probe(&file, owners)?;
        let made = file::write(&file, format.encode().as_bytes())
            .and_then(|()| match durability {
                Durability::Full => file::sync(&file),
                Durability::None => Ok(()),
            })
            .and_then(|()| forget_empty_format(&dir))
            .and_then(|()| match exists(dir.rename(&draft, &dir, layout::FORMAT)) {
                // Swept before it was locked.
                Err(error) if error.errno == Errno::NOENT => Ok(()),
                renamed => renamed.map(drop),
            });
        // Still there only if another was faster, or something failed.
        _ = dir.unlink(&draft);
        made.map_err(full)
    }

    /// Returns where the store is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the store's folder.
    pub fn dir(&self) -> &Dir {
        &self.dir
    }

    /// Returns what the `format` file says.
    pub fn format(&self) -> &Format {
        &self.format
    }

    /// Returns the path of the folder that holds a tree, whether it is there or not.
    pub fn rootfs_path(&self, tree: &Digest) -> PathBuf {
        self.path.join(layout::ROOTFS).join(tree.to_string())
    }

    /// Whether the folder of a tree is there.
    pub fn has_rootfs(&self, tree: &Digest) -> Result<bool> {
        self.has_folder(layout::ROOTFS, &tree.to_string())
    }

    /// Whether there is a folder of this name. Anything else that is called so is damage.
    fn has_folder(&self, folder: &str, name: &str) -> Result<bool> {
        match self.dir.look(format!("{folder}/{name}"))? {
            None => Ok(false),
            Some(found) if found.kind == FileKind::Folder => Ok(true),
            Some(_) => Err(self.damaged(folder, name, "it should be a folder".into())),
        }
    }

    /// Keeps a tree and returns its name. Its files must be in the store.
    pub fn put_tree(&self, tree: &Tree) -> Result<Digest> {
        let text = tree.encode();
        let digest = Digest::of(&text);
        self.put_new(layout::TREES, &digest.to_string(), &text)?;
        Ok(digest)
    }

    /// Returns the tree of this name.
    pub fn tree(&self, digest: &Digest) -> Result<Tree> {
        let name = digest.to_string();
        let damaged = |why| self.damaged(layout::TREES, &name, why);
        let found = self.dir.look(format!("{}/{name}", layout::TREES))?;
        if found.is_some_and(|found| found.size > LARGEST_TREE) {
            return Err(damaged(format!("it has more than {LARGEST_TREE} bytes")));
        }
        let text = self
            .read(layout::TREES, &name, LARGEST_TREE)?
            .ok_or(Error::NoTree(*digest))?;
        if Digest::of(&text) != *digest {
            return Err(damaged("its text does not hash to its name".into()));
        }
        Tree::decode(&text).map_err(|bad: BadTree| damaged(bad.to_string()))
    }

    /// Whether a tree is there.
    pub fn has_tree(&self, digest: &Digest) -> Result<bool> {
        Ok(self.dir.look(format!("{}/{digest}", layout::TREES))?.is_some())
    }

    /// Returns an archive that was kept, for reading.
    pub fn source(&self, sha256: &Digest) -> Result<Option<std::fs::File>> {
        none_if_missing(self.dir.open_file(format!("{}/{sha256}", layout::SOURCES)))
    }

    /// Returns the newest time among the entries of a source (seconds since 1970 UTC), where it was kept.
    pub fn newest(&self, sha256: &Digest) -> Result<Option<i64>> {
        let name = format!("{sha256}{}", layout::NEWEST);
        let Some(text) = self.read(layout::SOURCES, &name, 64)? else {
            return Ok(None);
        };
        let time = std::str::from_utf8(&text)
            .ok()
            .and_then(|text| layout::exact(text.strip_suffix('\n')?));
        time.map(Some)
            .ok_or_else(|| self.damaged(layout::SOURCES, &name, "expected a decimal number".into()))
    }

    /// Keeps the newest time among the entries of a source (seconds since 1970 UTC).
    pub fn set_newest(&self, sha256: &Digest, newest: i64) -> Result<()> {
        self.put_over(
            layout::SOURCES,
            &format!("{sha256}{}", layout::NEWEST),
            format!("{newest}\n").as_bytes(),
        )
    }

    /// Reads a document, at most `limit` bytes of it; `None` where it is not there.
    fn read(&self, folder: &str, name: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        let Some(file) = none_if_missing(self.dir.open_file(format!("{folder}/{name}")))? else {
            return Ok(None);
        };
        file::read(&file, limit).map(Some).map_err(Error::Sys)
    }

    /// Writes a document that is named by what it holds: not at all where it is there.
    fn put_new(&self, folder: &str, name: &str, bytes: &[u8]) -> Result<()> {
        let path = format!("{folder}/{name}");
        if self.dir.look(&path)?.is_some() {
            return Ok(());
        }
        let stage = self.stage()?;
        stage.write_document(bytes)?;
        self.full(exists(stage.dir().rename(object::DOCUMENT, &self.dir, path)).map(drop))
    }

    /// Writes a document in place of an older one.
    fn put_over(&self, folder: &str, name: &str, bytes: &[u8]) -> Result<()> {
        let stage = self.stage()?;
        stage.write_document(bytes)?;
        self.full(
            stage
                .dir()
                .replace(object::DOCUMENT, &self.dir, format!("{folder}/{name}")),
        )
    }

    fn damaged(&self, folder: &str, name: &str, why: String) -> Error {
        Error::Damaged {
            path: self.path.join(folder).join(name),
            why,
        }
    }

    fn misread(&self, folder: &str, name: &str, bad: BadDocument) -> Error {
        self.damaged(folder, name, bad.to_string())
    }

    /// Turns "no space left", however it comes, into an error that names the store.
    pub(crate) fn naming_full<T>(&self, done: Result<T>) -> Result<T> {
        done.map_err(|error| match error {
            Error::Sys(error) => full(&self.path, error),
            other => other,
        })
    }

    /// Turns "no space left" into an error that names the store.
    pub(crate) fn full<T>(&self, done: Result<T, SysError>) -> Result<T> {
        done.map_err(|error| full(&self.path, error))
    }
}

/// Returns what the folder of a store is, which must be this user's: root could use those of others, and would take them over.
fn owned(path: &Path, dir: &Dir) -> Result<Stat> {
    let (folder, user) = (file::stat(dir)?, file::own_uid());
    match folder.uid == user {
        true => Ok(folder),
        false => Err(Error::NotOurs {
            path: path.to_owned(),
            owner: folder.uid,
            user,
        }),
    }
}

fn full(store: &Path, error: SysError) -> Error {
    if error.is_full() {
        Error::Full {
            store: store.to_owned(),
            source: error,
        }
    } else {
        error.into()
    }
}

/// Whether `name` is what a store has in its folder: one that is there, or, where none has `begun`, one that is being made.
/// Before its `format` that has empty folders, and drafts of the `format`.
fn is_own(dir: &Dir, name: &OsStr, begun: bool) -> Result<bool> {
    let is_known = match name.to_str() {
        Some(layout::FORMAT | layout::UNSYNCED) => begun,
        Some(folder) if layout::FOLDERS.contains(&folder) || folder == layout::LOST_FOUND => {
            begun || is_empty_folder(dir, name)?
        }
        _ if layout::is_draft(name) => lock::open_draft(dir, name)?.is_some(),
        _ => begun && layout::is_staging(name),
    };
    // A draft is the `format` in the next moment, or gone.
    Ok(is_known || dir.look(name)?.is_none())
}

/// Returns whether `name` in `dir` is a folder with nothing in it.
fn is_empty_folder(dir: &Dir, name: &OsStr) -> Result<bool, SysError> {
    match dir.open_dir(name) {
        Ok(folder) => Ok(folder.list()?.is_empty()),
        Err(error) if error.errno == Errno::NOENT => Ok(true),
        // A file, a symbolic link, and what another user keeps closed.
        Err(error) if matches!(error.errno, Errno::NOTDIR | Errno::LOOP | Errno::ACCESS) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Takes a `format` away whose bytes a power cut has lost.
fn forget_empty_format(dir: &Dir) -> Result<(), SysError> {
    match dir.look(layout::FORMAT)? {
        Some(found) if found.kind == FileKind::File && found.size == 0 => dir.unlink(layout::FORMAT),
        _ => Ok(()),
    }
}

/// Reads what kind of store there is; `None`: none. One whose `format` is empty lost it before it was ever synced; one that
/// does not begin as mk's do is somebody else's.
fn read_format(path: &Path, dir: &Dir) -> Result<Option<Format>> {
    let none_of_ours = || Error::NotAStore {
        path: path.to_owned(),
        found: layout::FORMAT.to_owned(),
    };
    match dir.look(layout::FORMAT)? {
        None => return Ok(None),
        Some(found) if found.kind == FileKind::File => {}
        Some(_) => return Err(none_of_ours()),
    }
    let Some(file) = none_if_missing(dir.open_file(layout::FORMAT))? else {
        return Ok(None);
    };
    let text = file::read(&file, 4096)?;
    if text.is_empty() {
        return Ok(None);
    }
    let first = text.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let first = crate::path::shown(first);
    if !first.starts_with("mk-store") {
        return Err(none_of_ours());
    }
    if first.starts_with("mk-store ") && first != layout::HEADER {
        return Err(Error::OtherVersion {
            store: path.to_owned(),
            found: first,
        });
    }
    Format::decode(&text).map(Some).map_err(|bad| Error::Damaged {
        path: path.join(layout::FORMAT),
        why: bad.to_string(),
    })
}

impl Format {
    /// Returns what the filesystem of `file`, which is an empty one to be played with, can hold.
    pub(crate) fn probe(file: &std::fs::File, owners: Owners) -> Result<Self> {
        // Revision 2, cap_net_bind_service permitted, as `setcap` writes it (capabilities(7)).
        const CAPABILITY: [u8; 20] = [0, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let holds = |name: &[u8], value: &[u8]| {
            let found =
                file::set_xattr(file, name, value).and_then(|()| file::xattrs(file, |found| found == name));
            found.is_ok_and(|found| found.get(name).is_some_and(|found| **found == *value))
        };
        let time = |wanted: i64| -> Result<i64> {
            file::set_mtime(file, wanted)?;
            Ok(file::stat(file)?.mtime)
        };
        Ok(Self {
            owners,
            capabilities: holds(b"security.capability", &CAPABILITY),
            user_xattrs: holds(b"user.mk", b"1"),
            oldest: time(i64::MIN)?.min(0),
            newest: time(i64::MAX)?.max(0),
        })
    }
}

/// Turns "it is there already" into `None`.
fn exists(done: Result<(), SysError>) -> Result<Option<()>, SysError> {
    match done {
        Err(error) if error.errno == Errno::EXIST => Ok(None),
        done => done.map(Some),
    }
}

/// Turns "it is not there" into `None`.
fn none_if_missing<T>(opened: Result<T, SysError>) -> Result<Option<T>> {
    match opened {
        Err(error) if error.errno == Errno::NOENT => Ok(None),
        opened => Ok(Some(opened?)),
    }
}
