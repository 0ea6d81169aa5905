//! A container + its image → what the container changed: reads its writable layer, wherever that is.
//!
//! The layer of a container that writes to memory has no name: its monitor holds a handle on it, which is opened
//! through `/proc`. Owners are what the container has them as, so the reader enters the user namespaces on the way.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::container::document::ProcessId;
use crate::container::{self, Document, Process};
use crate::digest::{BadDigest, Digest, HashWriter};
use crate::entry::{Change, Content, Entry, Kind};
use crate::meta::Meta;
use crate::path::TreePath;
use crate::rootfs::capture::{self, Notes, capture};
use crate::store::{self, Format, ImageId, Owners, Store};
use crate::sys::dir::Dir;
use crate::sys::namespace::{self, Namespaces};
use crate::sys::{Errno, SysError, file};
use crate::tree::diff::{Difference, Held, Layer, What};
use crate::tree::{Tree, change};

/// Why nobody can tell what a container changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It wrote to memory, and has ended.
    #[error("container `{called}` has ended, and what it wrote went with it")]
    Gone {
        /// Its name or its id.
        called: String,
    },
    /// Its processes cannot be looked into.
    #[error("cannot look into container `{called}`")]
    Refused {
        /// Its name or its id.
        called: String,
        /// Why.
        #[source]
        failed: SysError,
    },
    /// The document names no image.
    #[error(transparent)]
    Digest(#[from] BadDigest),
    /// What is known of it is wrong.
    #[error(transparent)]
    Container(#[from] container::Error),
    /// The image cannot be read.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The layer cannot be read.
    #[error(transparent)]
    Layer(#[from] capture::Error),
    /// It does not fit the image.
    #[error(transparent)]
    Change(#[from] change::Error),
    /// A call failed.
    #[error("cannot read the writable layer")]
    Sys(#[from] SysError),
}

/// Moves this process, which must have one thread, into the user namespace of whoever looks after the container, if it
/// lives and that is another one: there the store and the layer are what the container has them as. Returns whether it
/// did; this process is root of a user namespace then.
pub fn enter_keeper(document: &Document) -> Result<bool, Error> {
    match document.started {
        Some(started) => enter_user_namespace(document, started.monitor),
        None => Ok(false),
    }
}

fn enter_user_namespace(document: &Document, of: ProcessId) -> Result<bool, Error> {
    let Some(process) = Process::open(of)? else {
        return Ok(false);
    };
    let refused = |failed| Error::Refused {
        called: document.called().to_owned(),
        failed,
    };
    match namespace::apart(process.pid()) {
        Ok(apart) if apart.has(Namespaces::USER) => {
            namespace::join(process.as_fd(), Namespaces::USER).map_err(refused)?;
            Ok(true)
        }
        Ok(_) => Ok(false),
        // It has ended, and nobody has heard of it yet.
        Err(_) if has_ended(&process)? => Ok(false),
        Err(failed) => Err(refused(failed)),
    }
}

/// Returns what a container changed against its image, sorted by path: not in volumes, nor anywhere else where something
/// is mounted. This process must have one thread; it may be in the container's user namespace afterwards.
pub fn differences(store: &Store, document: &Document) -> Result<Vec<Difference>, Error> {
    let id = ImageId::from(document.image.digest.parse::<Digest>()?);
    let mut tree = store.tree(&store.image(&id)?.tree)?;
    let (upper, conf) = open(document)?;
    let conf = match conf {
        Some(conf) => conf,
        None => Dir::open(&store.conf_path(&id))?,
    };
    let notes = document.layer.notes();
    add_conf(&mut tree, &conf, notes)?;
    if let Some(started) = document.started {
        // Root can have put the container into a user namespace of its own, apart from mk's.
        enter_user_namespace(document, started.command)?;
    }
    let mut layer = Layer::over(&tree);
    capture(&upper, notes, &mut |change| {
        let change = known(change, &layer, store.format())?;
        layer.take(change);
        Ok(())
    })?;
    Ok(without_places(layer.differences(), &places(document)))
}

/// Returns what the container has of its image, with what it changed; its own three files of `/etc` count only where it
/// changed them.
pub fn tree(store: &Store, document: &Document) -> Result<Tree, Error> {
    let id = ImageId::from(document.image.digest.parse::<Digest>()?);
    let image = store.tree(&store.image(&id)?.tree)?;
    let mut changes = Vec::new();
    capture_of(document, &mut |change| {
        changes.push(match hashed(change)? {
            Change::There(Entry { path, meta, kind }) => {
                let meta = as_in_tree(meta, &image, &path, store.format());
                Change::There(Entry { path, meta, kind })
            }
            Change::Redressed { path, meta, from } => {
                let meta = as_in_tree(meta, &image, &path, store.format());
                Change::Redressed { path, meta, from }
            }
            other => other,
        });
        Ok(())
    })?;
    let changes = without_made(changes, &places(document), &image);
    Ok(image.changed(changes, i64::MAX)?)
}

/// Reads the layer of a container.
pub(crate) fn capture_of(
    document: &Document,
    take: &mut dyn FnMut(Change<&File>) -> Result<(), capture::Error>,
) -> Result<(), Error> {
    let (upper, _) = open(document)?;
    if let Some(started) = document.started {
        enter_user_namespace(document, started.command)?;
    }
    Ok(capture(&upper, document.layer.notes(), take)?)
}

/// Returns where something else is mounted.
fn places(document: &Document) -> Vec<TreePath> {
    let places = document.layer.places.iter();
    places
        .filter_map(|place| TreePath::normalise(place.as_bytes()).ok())
        .collect()
}

/// Opens the folder that the container writes to, and the one with its own three files of `/etc`, where it has one.
fn open(document: &Document) -> Result<(Dir, Option<Dir>), Error> {
    let top = match document
        .started
        .and_then(|started| Some((started.monitor, started.layer?)))
    {
        Some((monitor, number)) => open_of(monitor, number)?,
        None => None,
    };
    let conf = match &top {
        Some(top) if top.look("conf")?.is_some() => Some(top.open_dir("conf")?),
        _ => None,
    };
    let upper = match (&document.layer.disk, &top) {
        (Some(disk), _) => Dir::open(&Path::new(OsStr::from_bytes(disk.as_bytes())).join("upper")),
        (None, Some(top)) => top.open_dir("upper"),
        (None, None) => return Err(gone(document)),
    };
    match upper {
        Err(failed) if failed.errno == Errno::NOENT => Err(gone(document)),
        upper => Ok((upper?, conf)),
    }
}

fn gone(document: &Document) -> Error {
    Error::Gone {
        called: document.called().to_owned(),
    }
}

/// Opens the folder that the process `of` has open as `number`; `None` where the process has ended.
fn open_of(of: ProcessId, number: i32) -> Result<Option<Dir>, Error> {
    let Some(process) = Process::open(of)? else {
        return Ok(None);
    };
    let path = PathBuf::from(format!("/proc/{}/fd/{number}", process.pid()));
    let opened = Dir::open(&path);
    // If it has ended meanwhile, its number may have been another's, or nobody may look at what is left of it.
    match has_ended(&process)? {
        true => Ok(None),
        false => Ok(Some(opened?)),
    }
}

fn has_ended(process: &Process) -> Result<bool, SysError> {
    process.wait(Some(std::time::Duration::ZERO))
}

/// Lays the three files of `/etc` over the tree: the container found them there.
fn add_conf(tree: &mut Tree, conf: &Dir, notes: Notes) -> Result<(), Error> {
    let mut entries = Vec::new();
    capture(conf, notes, &mut |change| {
        if let Change::There(entry) = change {
            entries.push(entry.try_map(|file, _| read(file))?);
        }
        Ok(())
    })?;
    for entry in entries.into_iter().filter(|entry| !entry.path.is_root()) {
        let path = entry.path.clone();
        let in_the_way = tree
            .get(&path)
            .is_some_and(|node| matches!(entry.kind, Kind::Folder) && !node.is_folder());
        if in_the_way {
            // A layer's folder hides what a lower one has in its place, links included.
            tree.remove(&[path.to_string()]).map_err(taken)?;
        }
        tree.layer(i64::MAX).lay(entry).map_err(taken)?;
    }
    Ok(())
}

fn taken(error: impl std::error::Error + Send + Sync + 'static) -> capture::Error {
    capture::Error::Taken(Box::new(error))
}

/// Names what the file of a change holds.
pub(crate) fn hashed(change: Change<&File>) -> Result<Change<Content>, capture::Error> {
    Ok(match change {
        Change::There(entry) => Change::There(entry.try_map(|file: &File, _| read(file))?),
        Change::Gone(path) => Change::Gone(path),
        Change::Cleared(path) => Change::Cleared(path),
        Change::Moved { path, from } => Change::Moved { path, from },
        Change::Redressed { path, meta, from } => Change::Redressed { path, meta, from },
        Change::Socket { path, meta } => Change::Socket { path, meta },
    })
}

pub(crate) fn read(file: &File) -> Result<Content, capture::Error> {
    let mut writer = HashWriter::new(std::io::sink());
    file::read_pieces(file, |piece| {
        // A sink takes everything.
        let _ = std::io::Write::write_all(&mut writer, piece);
        Ok::<(), SysError>(())
    })?;
    let (_, digest, size) = writer.finish();
    Ok(Content { digest, size })
}

/// Names what a file holds where that matters, and puts back what this store cannot hold of the tree below.
fn known(change: Change<&File>, layer: &Layer<'_>, format: &Format) -> Result<Change<Held>, capture::Error> {
    let put_back = |path: &TreePath, meta: Meta| as_in_tree(meta, layer.below(), path, format);
    Ok(match change {
        Change::There(Entry { path, meta, kind }) => {
            let body = |file: &File| {
                let size = file::stat(file)?.size;
                // What cannot be equal is not read: a container can make files that have no end to speak of.
                match layer.may_equal(&path, size) {
                    true => read(file).map(Held::Content),
                    false => Ok(Held::Unread(size)),
                }
            };
            let meta = put_back(&path, meta);
            Entry {
                path: path.clone(),
                meta,
                kind,
            }
            .try_map(|file, _| body(file))
            .map(Change::There)?
        }
        Change::Redressed { path, meta, from } => {
            let meta = put_back(&path, meta);
            Change::Redressed { path, meta, from }
        }
        Change::Socket { path, meta } => Change::Socket { path, meta },
        Change::Gone(path) => Change::Gone(path),
        Change::Cleared(path) => Change::Cleared(path),
        Change::Moved { path, from } => Change::Moved { path, from },
    })
}

/// Returns `meta`, in which what says no more than that this store holds less than the tree is as in the tree.
pub(crate) fn as_in_tree(mut meta: Meta, below: &Tree, path: &TreePath, format: &Format) -> Meta {
    let Some(was) = below.get(path).map(|node| &node.meta) else {
        return meta;
    };
    if format.owners == Owners::Single {
        (meta.uid, meta.gid) = (was.uid, was.gid);
    }
    if meta.mtime == format.held_time(was) {
        meta.mtime = was.mtime;
    }
    let now = meta.xattrs.iter().flat_map(|xattrs| xattrs.iter());
    if now.map(|(name, value)| (&**name, &**value)).eq(format.held(was)) {
        meta.xattrs.clone_from(&was.xattrs);
    }
    meta
}

/// Takes out what mk itself made to mount on: empty places, and the folders on the way to them, that `before` had not.
pub(crate) fn without_made(
    changes: Vec<Change<Content>>,
    places: &[TreePath],
    before: &Tree,
) -> Vec<Change<Content>> {
    let mut made = std::collections::BTreeSet::new();
    for place in places {
        let mut path = Some(place.clone());
        while let Some(here) = path.filter(|here| before.get(here).is_none()) {
            path = here.parent();
            made.insert(here);
        }
    }
    let is_made = |change: &Change<Content>| match change {
        Change::There(Entry { path, kind, .. }) => {
            let empty = match kind {
                Kind::Folder => true,
                Kind::File(content) => content.size == 0,
                _ => false,
            };
            empty && made.contains(path)
        }
        _ => false,
    };
    // A folder comes before what is in it, and is wanted where something is.
    let mut kept: Vec<Change<Content>> = Vec::new();
    for change in changes.into_iter().rev() {
        let wanted = match (&change, is_made(&change)) {
            (Change::There(folder), true) => kept.iter().any(|inner| match inner {
                Change::There(inner) => inner.path != folder.path && inner.path.is_within(&folder.path),
                _ => false,
            }),
            _ => true,
        };
        if wanted {
            kept.push(change);
        }
    }
    kept.reverse();
    kept
}

/// Takes out what mk itself made: the places that something is mounted on, and the folders on the way to them.
fn without_places(found: Vec<Difference>, places: &[TreePath]) -> Vec<Difference> {
    let made = |one: &Difference| {
        one.what == What::Added
            && match one.size {
                None => one.kind == "folder" && places.iter().any(|place| place.is_within(&one.path)),
                Some(size) => size == 0 && places.contains(&one.path),
            }
    };
    let mut kept: Vec<Difference> = Vec::new();
    for one in found.into_iter().rev() {
        // What is in a folder stands behind it.
        if !made(&one) || kept.iter().any(|inner| inner.path.is_within(&one.path)) {
            kept.push(one);
        }
    }
    kept.reverse();
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn added(path: &str, kind: &'static str, size: Option<u64>) -> Difference {
        Difference {
            path: TreePath::normalise(path).unwrap(),
            what: What::Added,
            kind,
            size,
        }
    }

    #[test]
    fn what_mk_made_to_mount_on_is_no_change_of_the_containers() {
        let places: Vec<TreePath> = ["/proc", "/a/b/c", "/etc/one", "/x/y"]
            .iter()
            .map(|place| TreePath::normalise(place).unwrap())
            .collect();
        let found = vec![
            added("/a", "folder", None),
            added("/a/b", "folder", None),
            added("/a/b/c", "folder", None),
            added("/etc/one", "file", Some(0)),
            added("/etc/two", "file", Some(0)),
            added("/proc", "folder", None),
            added("/x", "folder", None),
            added("/x/y", "folder", None),
            added("/x/z", "file", Some(3)),
        ];
        let left: Vec<String> = without_places(found, &places)
            .iter()
            .map(|one| one.path.to_string())
            .collect();
        assert_eq!(left, ["/etc/two", "/x", "/x/z"]);
    }

    #[test]
    fn what_a_store_cannot_hold_is_no_change() {
        let mut tree = Tree::new(7);
        let path = TreePath::parse("f").unwrap();
        let mut meta = Meta::new(0o644, -5);
        (meta.uid, meta.gid) = (1000, 1000);
        meta.keep_xattr(b"user.x", b"1");
        let content = Content {
            digest: Digest::of(b""),
            size: 0,
        };
        let entry = Entry {
            path: path.clone(),
            meta: meta.clone(),
            kind: Kind::File(content),
        };
        tree.layer(i64::MAX).lay(entry).unwrap();
        let poor = Format {
            owners: Owners::Single,
            capabilities: false,
            user_xattrs: false,
            oldest: 0,
            newest: i64::MAX,
        };
        let seen = Meta::new(0o644, 0);
        assert_eq!(as_in_tree(seen.clone(), &tree, &path, &poor), meta);
        let rich = Format {
            owners: Owners::Native,
            capabilities: true,
            user_xattrs: true,
            oldest: i64::MIN,
            ..poor
        };
        assert_eq!(as_in_tree(seen.clone(), &tree, &path, &rich), seen);
    }
}
