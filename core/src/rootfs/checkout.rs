//! Tree → a folder: files as hard links to objects, all else made anew. What has its final name is whole.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;

use rustix::io::Errno;

use crate::digest::Digest;
use crate::meta::Meta;
use crate::path::TreePath;
use crate::store::object::StagedFolder;
use crate::store::parents::Parents;
use crate::store::{Error, Format, ObjectName, Owners, Result, Store};
use crate::sys::dir::Dir;
use crate::sys::file;
use crate::tree::{NodeKind, Tree};
use crate::watch::{Event, Watch};

/// Lays `tree`, whose name is `digest`, out in the store's `rootfs` folder, unless it is there. Its files must be in the
/// store. Equal files become one inode, hard links or not; device nodes are left out.
pub fn checkout(store: &Store, digest: &Digest, tree: &Tree, watch: &dyn Watch) -> Result<()> {
    if store.has_rootfs(digest)? {
        return Ok(());
    }
    staged(store, tree, watch)?.finish(digest)
}

/// Lays `tree` out in a folder that has no name yet.
pub(crate) fn staged<'s>(store: &'s Store, tree: &Tree, watch: &dyn Watch) -> Result<StagedFolder<'s>> {
    watch.see(Event::Checkout {
        files: tree.size().files,
    });
    let staging = store.stage_rootfs()?;
    let layout = Layout::new(store, staging.dir());
    store.naming_full(layout.lay(tree))?;
    Ok(staging)
}

/// A tree on its way to the disk.
struct Layout<'a> {
    store: &'a Store,
    root: &'a Dir,
    parents: Parents<'a>,
    /// The newest copy of each object that takes no more links.
    copies: HashMap<ObjectName, TreePath>,
}

impl<'a> Layout<'a> {
    /// Begins to lay a tree out in the empty folder `root`.
    fn new(store: &'a Store, root: &'a Dir) -> Self {
        Self {
            store,
            root,
            parents: Parents::new(root),
            copies: HashMap::new(),
        }
    }

    /// Does it.
    fn lay(mut self, tree: &Tree) -> Result<()> {
        for (path, node) in tree.iter() {
            let (parent, name) = self.parents.of(path)?;
            match &node.kind {
                NodeKind::Folder if path.is_root() => {}
                NodeKind::Folder => parent.make_dir(name, 0o700)?,
                NodeKind::Symlink(target) => {
                    parent.symlink(target, name)?;
                    dress_name(self.store.format(), parent, name, &node.meta)?;
                }
                NodeKind::Fifo => {
                    parent.make_fifo(name, 0o600)?;
                    dress_name(self.store.format(), parent, name, &node.meta)?;
                    parent.chmod(name, node.meta.mode)?;
                }
                // An image must not bring devices with it (docs/security.md).
                NodeKind::Device { .. } => {}
                NodeKind::File { content, .. } => {
                    let object = ObjectName::new(&content.digest, &node.meta, self.store.format());
                    self.file(path, &object, &node.meta)?;
                }
            }
        }
        // Folders last, the deepest first: until then they must be writable, and everything made in one moves its time.
        for (path, node) in tree.iter().rev().filter(|(_, node)| node.is_folder()) {
            self.store
                .format()
                .dress(&self.root.open_dir(path.as_path())?, &node.meta)?;
        }
        Ok(())
    }

    fn file(&mut self, path: &TreePath, object: &ObjectName, meta: &Meta) -> Result<()> {
        let (parent, name) = self.parents.of(path)?;
        let folder = self.store.object_folder(object)?;
        let missing = |error| self.store.missing_object(path, object, error);
        let linked = match self.copies.get(object) {
            None => folder.link(object.file(), parent, name),
            Some(copy) => self.root.link(copy.as_path(), parent, name),
        };
        match linked {
            Err(error) if error.errno == Errno::MLINK => {
                let from = folder.open_file(object.file()).map_err(missing)?;
                copy(self.store, &from, parent, name, meta)?;
                self.copies.insert(object.clone(), path.clone());
                Ok(())
            }
            linked => linked.map_err(missing),
        }
    }
}

/// Gives what is no file and no folder its owner and time.
fn dress_name(format: &Format, parent: &Dir, name: &Path, meta: &Meta) -> Result<()> {
    if format.owners != Owners::Single {
        let given = parent.chown(name, meta.uid, meta.gid);
        given.map_err(|error| Error::no_such_id(error, meta))?;
    }
    Ok(parent.set_mtime(name, meta.mtime)?)
}

/// Makes a file with the bytes of another.
fn copy(store: &Store, from: &File, parent: &Dir, name: &Path, meta: &Meta) -> Result<()> {
    let to = parent.create_file(name, meta.mode & 0o777)?;
    file::read_pieces(from, |piece| file::write(&to, piece))?;
    store.format().dress(&to, meta)?;
    store.sync_file(&to)
}
