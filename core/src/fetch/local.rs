//! Files and folders beside the recipe: their digests, and what a `copy` step takes from them. Nothing but names,
//! kinds, contents and the owner's execute bit comes from this machine; the rest is the same for everyone.

use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use walkdir::WalkDir;

use super::*;
use crate::digest::HashReader;
use crate::entry::{Content, Entry, Kind};
use crate::meta::Meta;

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
    hash(file).map_err(read)
}

fn hash(file: impl Read) -> io::Result<(Digest, u64)> {
    let mut reader = HashReader::new(file);
    let mut buffer = vec![0; CHUNK];
    loop {
        match reader.read(&mut buffer) {
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
    folder: Option<OwnedFd>,
    entries: Vec<Entry<u64>>,
}

/// Lists what is at `path`, which may itself be a symlink; no symlink below it is followed.
///
/// Entries are sorted by the bytes of their paths, so that a folder comes before what it holds; the folder itself is
/// not among them. Files are 0755 where their owner may execute them, else 0644; folders and symlinks have the modes
/// that everyone gives them; all belong to 0:0, have no extended attributes and an mtime of 0. A hard link is a file
/// of its own. Sockets and devices are errors. The content of a file is its size; [`Listing::open`] gives its bytes.
pub fn list(path: &Path) -> Result<Listing, Error> {
    let read = |source| Error::Read {
        path: path.to_owned(),
        source,
    };
    let meta = match fs_err::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Error::Missing {
                path: path.to_owned(),
            });
        }
        found => found.map_err(read)?,
    };
    if !meta.is_dir() {
        let entry = entry(TreePath::root(), path, &meta)?;
        return Ok(Listing {
            path: path.to_owned(),
            folder: None,
            entries: vec![entry],
        });
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = rustix::fs::open(path, flags, Mode::empty()).map_err(|error| read(error.into()))?;
    let mut entries = Vec::new();
    for found in WalkDir::new(path).min_depth(1).follow_root_links(true) {
        let found = found.map_err(|error| Error::Read {
            path: error.path().unwrap_or(path).to_owned(),
            source: error.into(),
        })?;
        let below = found.path().strip_prefix(path).unwrap_or(found.path());
        let inside = TreePath::parse(below.as_os_str().as_bytes()).map_err(|source| Error::Name {
            path: found.path().to_owned(),
            source,
        })?;
        let meta = found.metadata().map_err(|error| Error::Read {
            path: found.path().to_owned(),
            source: error.into(),
        })?;
        entries.push(entry(inside, found.path(), &meta)?);
    }
    entries.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(Listing {
        path: path.to_owned(),
        folder: Some(folder),
        entries,
    })
}

impl Listing {
    /// Returns what was found; the content of a file is its size in bytes at that time.
    pub fn entries(&self) -> &[Entry<u64>] {
        &self.entries
    }

    /// Whether this is a single file rather than a folder.
    pub fn is_file(&self) -> bool {
        self.folder.is_none()
    }

    /// Opens the regular file at `inside`, a path among the entries, without following any symlink below the folder.
    pub fn open(&self, inside: &TreePath) -> Result<std::fs::File, Error> {
        let Some(folder) = &self.folder else {
            let file = fs_err::File::open(&self.path);
            let file = file.map_err(|source| Error::Read {
                path: self.path.clone(),
                source,
            })?;
            return Ok(file.into_parts().0);
        };
        let path = self.path.join(inside.as_path());
        // Should a file have become a fifo since it was listed, opening it must not wait for a writer.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let file = rustix::fs::openat2(folder, inside.as_path(), flags, Mode::empty(), resolve).map_err(
            |error| Error::Read {
                path: path.clone(),
                source: error.into(),
            },
        )?;
        let file = std::fs::File::from(file);
        let meta = file.metadata().map_err(|source| Error::Read {
            path: path.clone(),
            source,
        })?;
        if meta.is_file() {
            Ok(file)
        } else {
            Err(Error::Unfit {
                path,
                found: "no longer a file",
            })
        }
    }

    /// Returns the entries with the digests of their contents; reads every file.
    pub fn hashed(&self) -> Result<Vec<Entry<Content>>, Error> {
        let hashed = |entry: &Entry<u64>| {
            entry.clone().try_map(|_, _| {
                let (digest, size) = hash(self.open(&entry.path)?).map_err(|source| Error::Read {
                    path: self.path.join(entry.path.as_path()),
                    source,
                })?;
                Ok(Content { digest, size })
            })
        };
        self.entries.iter().map(hashed).collect()
    }
}

fn entry(inside: TreePath, path: &Path, meta: &std::fs::Metadata) -> Result<Entry<u64>, Error> {
    let kind = meta.file_type();
    let executable = meta.permissions().mode() & 0o100 != 0;
    let (mode, kind) = if kind.is_file() {
        (if executable { 0o755 } else { 0o644 }, Kind::File(meta.len()))
    } else if kind.is_dir() {
        (0o755, Kind::Folder)
    } else if kind.is_symlink() {
        let target = fs_err::read_link(path).map_err(|source| Error::Read {
            path: path.to_owned(),
            source,
        })?;
        (0o777, Kind::Symlink(target.as_os_str().as_bytes().into()))
    } else if kind.is_fifo() {
        (0o644, Kind::Fifo)
    } else {
        let found = if kind.is_socket() { "a socket" } else { "a device" };
        return Err(Error::Unfit {
            path: path.to_owned(),
            found,
        });
    };
    Ok(Entry {
        path: inside,
        meta: Meta::new(mode, 0),
        kind,
    })
}
