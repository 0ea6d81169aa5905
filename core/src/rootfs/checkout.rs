//! Tree → a folder: files as hard links to objects, all else made anew. What has its final name is whole.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use rustix::io::Errno;

use crate::digest::Digest;
use crate::meta::Meta;
use crate::path::TreePath;
use crate::store::{Error, ObjectName, Owners, Result, Store};
use crate::sys::SysError;
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
    watch.see(Event::Checkout {
        files: tree.size().files,
    });
    let staging = store.stage_rootfs()?;
    Layout::new(store, staging.dir()).lay(tree)?;
    staging.finish(digest)
}

/// A tree on its way to the disk.
struct Layout<'a> {
    store: &'a Store,
    root: &'a Dir,
    /// The folder that was worked in last: nearly always the next file's too.
    open: Option<(Box<[u8]>, Dir)>,
    /// The newest copy of each object that takes no more links.
    copies: HashMap<ObjectName, TreePath>,
}

impl<'a> Layout<'a> {
    fn new(store: &'a Store, root: &'a Dir) -> Self {
        Self {
            store,
            root,
            open: None,
            copies: HashMap::new(),
        }
    }

    fn lay(&mut self, tree: &Tree) -> Result<()> {
        for (path, node) in tree.iter() {
            match &node.kind {
                NodeKind::File { content, .. } => {
                    let name = ObjectName::new(&content.digest, &node.meta, self.store.format());
                    self.file(path, &name, &node.meta)?;
                }
                NodeKind::Folder if path.is_root() => {}
                NodeKind::Folder => {
                    let (parent, name) = self.place(path)?;
                    let made = parent.make_dir(name, 0o700);
                    self.store.full(made)?;
                }
                NodeKind::Symlink(target) => {
                    let (parent, name) = self.place(path)?;
                    let made = parent.symlink(target, name);
                    self.store.full(made)?;
                    self.dress_name(path, &node.meta)?;
                }
                NodeKind::Fifo => {
                    let (parent, name) = self.place(path)?;
                    let made = parent.make_fifo(name, 0o600);
                    self.store.full(made)?;
                    self.dress_name(path, &node.meta)?;
                    let (parent, name) = self.place(path)?;
                    parent.chmod(name, node.meta.mode)?;
                }
                // An image must not bring devices with it (docs/security.md).
                NodeKind::Device { .. } => {}
            }
        }
        // Folders last, the deepest first: until then they must be writable, and everything made in one moves its time.
        for (path, node) in tree.iter().rev().filter(|(_, node)| node.is_folder()) {
            let folder = self.root.open_dir(path.as_path())?;
            self.store.dress(&folder, &node.meta)?;
        }
        Ok(())
    }

    /// Returns the open folder that holds `path`, and its name there.
    fn place<'p>(&mut self, path: &'p TreePath) -> Result<(&Dir, &'p Path)> {
        let name = path.as_path().file_name().map_or(path.as_path(), Path::new);
        let bytes = path.as_bytes();
        let parent = match bytes.iter().rposition(|&byte| byte == b'/') {
            None => return Ok((self.root, name)),
            Some(cut) => &bytes[..cut],
        };
        let dir = match self.open.take() {
            Some((open, dir)) if *open == *parent => dir,
            _ => self.root.open_dir(as_path(parent))?,
        };
        Ok((&self.open.insert((parent.into(), dir)).1, name))
    }

    fn file(&mut self, path: &TreePath, object: &ObjectName, meta: &Meta) -> Result<()> {
        let store = self.store;
        let folder = store.object_folder(object)?;
        let copied = self.copies.get(object).cloned();
        let root = self.root;
        let (parent, name) = self.place(path)?;
        let linked = match &copied {
            None => folder.link(object.file(), parent, name),
            Some(copy) => root.link(copy.as_path(), parent, name),
        };
        match linked {
            Err(error) if error.errno == Errno::MLINK => {
                let from = folder.open_file(object.file())?;
                copy(store, from, parent, name, meta)?;
                self.copies.insert(object.clone(), path.clone());
                Ok(())
            }
            Err(error) if error.errno == Errno::NOENT => Err(Error::NoObject {
                path: path.to_string(),
                object: store.object_path(object),
            }),
            linked => store.full(linked),
        }
    }

    /// Gives what is no file and no folder its owner and time.
    fn dress_name(&mut self, path: &TreePath, meta: &Meta) -> Result<()> {
        let owned = self.store.format().owners != Owners::Single;
        let (parent, name) = self.place(path)?;
        if owned {
            let chown = parent.chown(name, meta.uid, meta.gid);
            chown.map_err(|error| Error::no_such_id(error, meta))?;
        }
        Ok(parent.set_mtime(name, meta.mtime)?)
    }
}

/// Makes an equal file where a link is refused.
fn copy(store: &Store, mut from: File, parent: &Dir, name: &Path, meta: &Meta) -> Result<()> {
    let to = store.full(parent.create_file(name, meta.mode & 0o777))?;
    let mut piece = vec![0; 1 << 17];
    loop {
        let size = from.read(&mut piece).map_err(|error| {
            let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
            Error::Sys(SysError::new(
                errno,
                format_args!("read of the object for {name:?}"),
            ))
        })?;
        if size == 0 {
            return store.dress(&to, meta);
        }
        store.full(file::write(&to, &piece[..size]))?;
    }
}

fn as_path(bytes: &[u8]) -> &Path {
    use std::os::unix::ffi::OsStrExt as _;
    Path::new(std::ffi::OsStr::from_bytes(bytes))
}
