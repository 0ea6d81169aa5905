//! Files and folders beside the recipe: their digests, and what a `copy` step takes from them. Nothing but names,
//! kinds, contents and the owner's execute bit comes from this machine; the rest is the same for everyone.

use std::cmp::Ordering;
use std::os::unix::ffi::OsStrExt as _;

use rustix::io::Errno;

use super::ignore::Ignore;
use super::*;
use crate::digest::HashReader;
use crate::entry::{Entry, Kind};
use crate::meta::Meta;
use crate::sys::SysError;
use crate::sys::dir::Dir;
use crate::sys::file::{self, FileKind, Stat, Version};

/// Returns digest and size in bytes of the file at `path`.
pub fn digest(path: &Path) -> Result<(Digest, u64), Error> {
    let read = |source| Error::Read {
        path: path.to_owned(),
        source,
    };
    let file = match fs_err::File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Error::Missing {
                path: path.to_owned(),
            });
        }
        opened => opened.map_err(read)?,
    };
    hash(file, &mut vec![0; CHUNK]).map_err(read)
}

/// Returns digest and size of what `file` gives, which is read into `buffer` piece by piece.
pub(super) fn hash(file: impl Read, buffer: &mut [u8]) -> io::Result<(Digest, u64)> {
    let mut reader = HashReader::new(file);
    loop {
        match reader.read(buffer) {
            Ok(0) => return Ok(reader.finish()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// A file or a folder of this machine, listed as a layer. A single file is one entry at the root of the layer.
#[derive(Debug)]
pub struct Listing {
    path: PathBuf,
    folder: Option<Dir>,
    entries: Vec<Entry<Version>>,
    leaves_out: bool,
}

/// What of a folder is not taken.
#[derive(Debug, Clone, Copy)]
pub struct Less<'a> {
    /// What is left out.
    pub ignore: &'a Ignore,
    /// Where the folder is, as the recipe names it: patterns look at paths from the recipe's folder.
    pub named: &'a TreePath,
}

/// Lists what is at `path`, which may itself be a symlink; no symlink below it is followed.
///
/// Entries are sorted by the bytes of their paths, so that a folder comes before what it holds; the folder itself is
/// not among them. Files are 0755 where their owner may execute them, else 0644; folders and symlinks have the modes
/// that everyone gives them; all belong to 0:0, have no extended attributes and an mtime of 0. A hard link is a file
/// of its own. Sockets and devices are errors. No file is read: [`Listing::open`] gives its bytes. What is left out of a
/// folder (`less`) is not looked at, whatever it is.
pub fn list(path: &Path, less: Option<Less<'_>>) -> Result<Listing, Error> {
    let stat = match file::stat_now(path) {
        Err(error) if error.errno == Errno::NOENT => {
            return Err(Error::Missing {
                path: path.to_owned(),
            });
        }
        found => found.map_err(|error| unread(path, error))?,
    };
    if stat.kind != FileKind::Folder {
        let entry = entry(TreePath::root(), || path.to_owned(), &stat, || Ok(Box::default()))?;
        return Ok(Listing {
            path: path.to_owned(),
            folder: None,
            entries: vec![entry],
            leaves_out: false,
        });
    }
    let folder = Dir::open(path).map_err(|error| unread(path, error))?;
    let mut walk = Walk {
        path,
        top: &folder,
        less: less.filter(|less| !less.ignore.is_empty()),
        leaves_out: false,
    };
    let entries = walk.entries()?;
    let leaves_out = walk.leaves_out;
    Ok(Listing {
        path: path.to_owned(),
        folder: Some(folder),
        entries,
        leaves_out,
    })
}

impl Listing {
    /// Returns what was found; instead of the content of a file, which version of it that was.
    pub fn entries(&self) -> &[Entry<Version>] {
        &self.entries
    }

    /// Whether all that there is was left out.
    pub fn is_emptied(&self) -> bool {
        self.entries.is_empty() && self.leaves_out
    }

    /// Whether this is a single file rather than a folder.
    pub fn is_file(&self) -> bool {
        self.folder.is_none()
    }

    /// Returns where `inside` is on this machine.
    pub(super) fn place(&self, inside: &TreePath) -> PathBuf {
        match self.folder {
            Some(_) => self.path.join(inside.as_path()),
            None => self.path.clone(),
        }
    }

    /// Opens the regular file at `inside`, a path among the entries, without following any symlink below the folder.
    pub fn open(&self, inside: &TreePath) -> Result<std::fs::File, Error> {
        let place = || self.place(inside);
        let Some(folder) = &self.folder else {
            let file = fs_err::File::open(&self.path);
            let file = file.map_err(|source| Error::Read {
                path: self.path.clone(),
                source,
            })?;
            return Ok(file.into_parts().0);
        };
        let failed = |error| unread(&place(), error);
        // Should a file have become a fifo since it was listed, opening it does not wait for a writer.
        let file = folder.open_file(inside.as_path()).map_err(failed)?;
        match file::stat(&file).map_err(failed)?.kind {
            FileKind::File => Ok(file),
            _ => Err(Error::Unfit {
                path: place(),
                found: "no longer a file",
            }),
        }
    }
}

/// A folder that is being listed.
struct Walk<'w> {
    path: &'w Path,
    top: &'w Dir,
    less: Option<Less<'w>>,
    /// Whether anything was left out so far.
    leaves_out: bool,
}

/// What comes next in the order of the paths: what is in a folder does not follow it at once, because `a.b` is before `a/b`.
enum Item {
    Entry(Entry<Version>),
    /// All that is below this folder.
    Below(TreePath),
}

impl Walk<'_> {
    fn entries(&mut self) -> Result<Vec<Entry<Version>>, Error> {
        let mut entries = Vec::new();
        let mut levels = vec![self.items(&TreePath::root())?.into_iter()];
        while let Some(level) = levels.last_mut() {
            match level.next() {
                Some(Item::Entry(entry)) => entries.push(entry),
                Some(Item::Below(folder)) => levels.push(self.items(&folder)?.into_iter()),
                None => _ = levels.pop(),
            }
        }
        Ok(entries)
    }

    /// Lists one folder.
    fn items(&mut self, folder: &TreePath) -> Result<Vec<Item>, Error> {
        let path = self.path;
        let here = || match folder.is_root() {
            true => path.to_owned(),
            false => path.join(folder.as_path()),
        };
        let failed = |error| unread(&here(), error);
        let handle = self.top.open_dir(folder.as_path()).map_err(failed)?;
        let found = handle.list().map_err(failed)?;
        let mut items = Vec::with_capacity(found.len());
        for (name, kind) in found {
            let place = || here().join(&name);
            let inside = folder.join(name.as_bytes()).map_err(|source| Error::Name {
                path: place(),
                source,
            })?;
            if let Some(less) = self.less {
                let named = less.named.join_path(&inside).map_err(|source| Error::Name {
                    path: place(),
                    source,
                })?;
                if less.ignore.leaves_out(&named, kind == FileKind::Folder) {
                    self.leaves_out = true;
                    continue;
                }
            }
            if kind == FileKind::Folder {
                items.push(Item::Below(inside.clone()));
                items.push(Item::Entry(Entry {
                    path: inside,
                    meta: Meta::new(0o755, 0),
                    kind: Kind::Folder,
                }));
                continue;
            }
            let failed = |error| unread(&place(), error);
            let stat = handle.stat_now(&name).map_err(failed)?;
            if stat.kind == FileKind::Folder {
                return Err(Error::Unfit {
                    path: place(),
                    found: "a folder since a moment ago",
                });
            }
            let target = || handle.read_link(&name).map_err(failed);
            items.push(Item::Entry(entry(inside, place, &stat, target)?));
        }
        items.sort_unstable_by(Item::order);
        Ok(items)
    }
}

impl Item {
    fn key(&self) -> (&[u8], bool) {
        match self {
            Self::Entry(entry) => (entry.path.as_bytes(), false),
            Self::Below(folder) => (folder.as_bytes(), true),
        }
    }

    /// Orders what is in one folder.
    fn order(&self, other: &Self) -> Ordering {
        let ((one, below), (other, other_below)) = (self.key(), other.key());
        let shared = one.len().min(other.len());
        let next = |path: &[u8], below: bool| path.get(shared).copied().or(below.then_some(b'/'));
        one[..shared]
            .cmp(&other[..shared])
            .then_with(|| next(one, below).cmp(&next(other, other_below)))
    }
}

/// Returns the entry at `inside` of the file at `place`; `target` reads it as a link.
fn entry(
    inside: TreePath,
    place: impl Fn() -> PathBuf,
    stat: &Stat,
    target: impl FnOnce() -> Result<Box<[u8]>, Error>,
) -> Result<Entry<Version>, Error> {
    let executable = stat.mode & 0o100 != 0;
    let (mode, kind) = match stat.kind {
        FileKind::File => (if executable { 0o755 } else { 0o644 }, Kind::File(stat.version())),
        FileKind::Folder => (0o755, Kind::Folder),
        FileKind::Symlink => (0o777, Kind::Symlink(target()?)),
        FileKind::Fifo => (0o644, Kind::Fifo),
        FileKind::Other => {
            let found = if stat.device.is_some() {
                "a device"
            } else {
                "a socket"
            };
            return Err(Error::Unfit { path: place(), found });
        }
    };
    Ok(Entry {
        path: inside,
        meta: Meta::new(mode, 0),
        kind,
    })
}

fn unread(path: &Path, error: SysError) -> Error {
    Error::Read {
        path: path.to_owned(),
        source: error.errno.into(),
    }
}
