//! Something with files in it → a [`Side`], which can be compared with another: a tree of the store, a folder, an archive or a
//! container, with the bytes of those of its files that somebody wants to see.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::changes;
use crate::container::Document;
use crate::digest::{Digest, HashReader};
use crate::entry::{Change, Content, Entry, Kind};
use crate::path::TreePath;
use crate::rootfs::capture::{self, Notes, capture};
use crate::store::{self, Store};
use crate::sys::dir::Dir;
use crate::sys::file;
use crate::tree::{NodeKind, Tree, apply, change};
use crate::unpack::{self, BadArchive, Limits};

/// Files that are larger are not read to be shown, in bytes.
pub const LARGEST_TEXT: u64 = 1 << 20;

/// One of two things that are compared.
#[derive(Debug)]
pub struct Side {
    tree: Tree,
    from: From,
}

/// Where the bytes of its files are.
#[derive(Debug)]
enum From {
    Store,
    Folder(PathBuf),
    Archive(PathBuf),
    Container(Box<Document>),
}

/// Why something cannot be compared.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A folder cannot be read.
    #[error("cannot read `{}`", .path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: capture::Error,
    },
    /// A file cannot be read.
    #[error("cannot read `{}`", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// An archive is damaged, hostile, or none.
    #[error(transparent)]
    Archive(#[from] BadArchive),
    /// An entry of an archive does not fit.
    #[error(transparent)]
    Entry(#[from] apply::Error),
    /// What is in a folder does not fit.
    #[error(transparent)]
    Change(#[from] change::Error),
    /// Nobody can tell what a container changed.
    #[error(transparent)]
    Container(#[from] changes::Error),
}

impl Side {
    /// A tree of the store.
    pub fn of_tree(store: &Store, tree: &Digest) -> Result<Self, Error> {
        Ok(Self {
            tree: store.tree(tree)?,
            from: From::Store,
        })
    }

    /// A folder, with owners as this process sees them.
    pub fn of_folder(path: &Path) -> Result<Self, Error> {
        let mut found = Vec::new();
        walk(path, &mut |change| {
            found.push(changes::hashed(change)?);
            Ok(())
        })?;
        Ok(Self {
            tree: Tree::new(0).changed(found, i64::MAX)?,
            from: From::Folder(path.to_owned()),
        })
    }

    /// An archive that `unpack` takes.
    pub fn of_archive(path: &Path, limits: &Limits) -> Result<Self, Error> {
        let mut tree = Tree::new(0);
        entries(path, limits, &mut |entry| {
            let entry = entry.try_map(|body, _| {
                let mut reader = HashReader::new(body);
                io::copy(&mut reader, &mut io::sink()).map_err(|source| read_error(path, source))?;
                let (digest, size) = reader.finish();
                Ok::<Content, Error>(Content { digest, size })
            })?;
            Ok(tree.layer(i64::MAX).lay(entry)?)
        })?;
        Ok(Self {
            tree,
            from: From::Archive(path.to_owned()),
        })
    }

    /// What a container sees of its image, with what it changed.
    pub fn of_container(store: &Store, document: Document) -> Result<Self, Error> {
        Ok(Self {
            tree: changes::tree(store, &document)?,
            from: From::Container(Box::new(document)),
        })
    }

    /// Returns its tree.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// Returns what the files at `wanted` hold, without those that are larger than [`LARGEST_TEXT`]. `store` is that of
    /// a tree or a container.
    pub fn texts(
        &self,
        wanted: &BTreeSet<TreePath>,
        store: Option<&Store>,
        limits: &Limits,
    ) -> Result<BTreeMap<TreePath, Vec<u8>>, Error> {
        let small = |path: &&TreePath| {
            let node = self.tree.get(path).map(|node| &node.kind);
            matches!(node, Some(NodeKind::File { content, .. }) if content.size <= LARGEST_TEXT)
        };
        let wanted: BTreeSet<TreePath> = wanted.iter().filter(small).cloned().collect();
        let mut texts = BTreeMap::new();
        if wanted.is_empty() {
            return Ok(texts);
        }
        match &self.from {
            From::Store => {}
            From::Folder(path) => walk(path, &mut |change| keep(&change, &wanted, &mut texts))?,
            From::Archive(path) => entries(path, limits, &mut |entry| {
                if let (true, Kind::File(body)) = (wanted.contains(&entry.path), entry.kind) {
                    let mut bytes = Vec::new();
                    let read = body.take(LARGEST_TEXT).read_to_end(&mut bytes);
                    read.map_err(|source| read_error(path, source))?;
                    texts.insert(entry.path, bytes);
                }
                Ok(())
            })?,
            From::Container(document) => {
                changes::capture_of(document, &mut |change| keep(&change, &wanted, &mut texts))?
            }
        }
        // What a container has not changed is its image's, and what another name holds is held by this one, too.
        for path in &wanted {
            let (Some(store), Some(node), false) = (store, self.tree.get(path), texts.contains_key(path))
            else {
                continue;
            };
            if let NodeKind::File { content, .. } = &node.kind
                && let Ok(mut object) = store.open_object(content, &node.meta)
            {
                let mut bytes = Vec::new();
                object
                    .read_to_end(&mut bytes)
                    .map_err(|source| read_error(Path::new(&path.to_string()), source))?;
                texts.insert(path.clone(), bytes);
            }
        }
        Ok(texts)
    }
}

fn read_error(path: &Path, source: io::Error) -> Error {
    Error::Read {
        path: path.to_owned(),
        source,
    }
}

fn walk(path: &Path, take: &mut dyn FnMut(Change<&File>) -> Result<(), capture::Error>) -> Result<(), Error> {
    let failed = |source| Error::Folder {
        path: path.to_owned(),
        source,
    };
    let folder = Dir::open(path).map_err(|error| failed(error.into()))?;
    capture(&folder, Notes::User, take).map_err(failed)
}

fn keep(
    change: &Change<&File>,
    wanted: &BTreeSet<TreePath>,
    texts: &mut BTreeMap<TreePath, Vec<u8>>,
) -> Result<(), capture::Error> {
    if let Change::There(Entry {
        path,
        kind: Kind::File(file),
        ..
    }) = change
        && wanted.contains(path)
    {
        texts.insert(path.clone(), file::read(file, LARGEST_TEXT)?);
    }
    Ok(())
}

fn entries(
    path: &Path,
    limits: &Limits,
    visit: &mut dyn FnMut(Entry<unpack::Body<'_>>) -> Result<(), Error>,
) -> Result<(), Error> {
    let file = fs_err::File::open(path).map_err(|source| read_error(path, source))?;
    unpack::entries(&path.display().to_string(), file, limits, visit)?;
    Ok(())
}
