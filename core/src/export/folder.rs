//! A tree → an ordinary folder: copies, which nothing in the store shares.

use std::collections::BTreeMap;
use std::io;

use super::{Error, Open};
use crate::meta::Meta;
use crate::path::TreePath;
use crate::sys::dir::Dir;
use crate::sys::{Errno, SysError, file};
use crate::tree::{Group, Node, NodeKind, Tree};

/// What a folder could not take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Missing {
    /// Device nodes, which are never created.
    pub devices: u64,
    /// Extended attributes that the filesystem, or the kernel for lack of privilege, refused.
    pub xattrs: u64,
    /// Paths that belong to somebody else than in the image, because owners were not asked for.
    pub owners: u64,
}

/// Writes `tree` into the empty folder `into`, files with what `open` gives. With `owners` every path gets its true
/// owner, which takes the privilege to do so; without, all belongs to the caller.
pub fn write(tree: &Tree, open: &Open<'_>, into: &Dir, owners: bool) -> Result<Missing, Error> {
    let mut writer = Writer {
        into,
        owners,
        missing: Missing::default(),
    };
    let mut first_names: BTreeMap<Group, &TreePath> = BTreeMap::new();
    for (path, node) in tree.iter() {
        let said = |source| Error::Folder {
            path: path.clone(),
            source,
        };
        if let NodeKind::File {
            group: Some(group), ..
        } = node.kind
        {
            if let Some(first) = first_names.get(&group) {
                into.link(at(first), into, at(path)).map_err(said)?;
                continue;
            }
            first_names.insert(group, path);
        }
        writer.put(path, node, open)?;
    }
    // The deepest first: whatever is made in a folder changes its time, and its mode may allow nothing to be made.
    for (path, node) in tree
        .iter()
        .rev()
        .filter(|(_, node)| matches!(node.kind, NodeKind::Folder))
    {
        let said = |source| Error::Folder {
            path: path.clone(),
            source,
        };
        let folder = if path.is_root() {
            None
        } else {
            Some(into.open_dir(path.as_path()).map_err(said)?)
        };
        writer
            .finish(folder.as_ref().unwrap_or(into), &node.meta)
            .map_err(said)?;
    }
    Ok(writer.missing)
}

fn at(path: &TreePath) -> &std::path::Path {
    path.as_path()
}

struct Writer<'a> {
    into: &'a Dir,
    owners: bool,
    missing: Missing,
}

impl Writer<'_> {
    /// Makes one path. A folder gets its metadata at the end.
    fn put(&mut self, path: &TreePath, node: &Node, open: &Open<'_>) -> Result<(), Error> {
        let said = |source| Error::Folder {
            path: path.clone(),
            source,
        };
        match &node.kind {
            NodeKind::Folder if path.is_root() => Ok(()),
            NodeKind::Folder => self.into.make_dir(at(path), 0o700).map_err(said),
            NodeKind::File { content, .. } => {
                let mut made = self.into.create_file(at(path), 0o600).map_err(said)?;
                let read = |source| Error::Read {
                    path: path.clone(),
                    source,
                };
                let mut body = open(content, &node.meta).map_err(read)?;
                let size = io::copy(&mut body, &mut made).map_err(|source| Error::Archive {
                    path: path.clone(),
                    source,
                })?;
                if size != content.size {
                    let what = format!("the file in the store has {size} bytes, not {}", content.size);
                    return Err(read(io::Error::new(io::ErrorKind::UnexpectedEof, what)));
                }
                self.finish(&made, &node.meta).map_err(said)
            }
            NodeKind::Symlink(target) => {
                self.into.symlink(target, at(path)).map_err(said)?;
                self.finish_path(path, &node.meta, false).map_err(said)
            }
            NodeKind::Fifo => {
                self.into.make_fifo(at(path), 0o600).map_err(said)?;
                self.finish_path(path, &node.meta, true).map_err(said)
            }
            NodeKind::Device { .. } => {
                self.missing.devices += 1;
                Ok(())
            }
        }
    }

    /// Gives an open file or folder what it carries. The owner first: its change takes setuid bits and capabilities off.
    fn finish(&mut self, made: impl std::os::fd::AsFd, meta: &Meta) -> Result<(), SysError> {
        if self.gives_away(meta) {
            file::chown(&made, meta.uid, meta.gid)?;
        }
        file::chmod(&made, meta.mode)?;
        for (name, value) in meta.xattrs.iter().flat_map(|xattrs| xattrs.iter()) {
            match file::set_xattr(&made, name, value) {
                Err(error) if matches!(error.errno, Errno::OPNOTSUPP | Errno::PERM) => {
                    self.missing.xattrs += 1
                }
                done => done?,
            }
        }
        file::set_mtime(&made, meta.mtime)
    }

    /// The same for what cannot be opened, which carries no extended attributes on disk.
    fn finish_path(&mut self, path: &TreePath, meta: &Meta, has_mode: bool) -> Result<(), SysError> {
        if self.gives_away(meta) {
            self.into.chown(at(path), meta.uid, meta.gid)?;
        }
        if has_mode {
            self.into.chmod(at(path), meta.mode)?;
        }
        self.into.set_mtime(at(path), meta.mtime)
    }

    fn gives_away(&mut self, meta: &Meta) -> bool {
        if !self.owners && (meta.uid, meta.gid) != (0, 0) {
            self.missing.owners += 1;
        }
        self.owners
    }
}
