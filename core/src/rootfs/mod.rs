//! Image in the store → a folder ready to be entered.
//!
//! [`Rootfs`] is the hand-over from the store to a run: read-only folders, one above the other, which stay as they are
//! for as long as its lease is held.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

pub use attach::Other;
use kept::Kept;

use crate::digest::Digest;
use crate::store::{Error, Image, ImageId, Lease, Result, Store};

/// What a run uses besides its image's folders: volumes, other images, a writable layer on a disk.
pub mod attach;
/// The writable layer → what it changed.
pub mod capture;
/// Tree → folder.
pub mod checkout;
/// A writable layer on a disk.
pub mod kept;
/// The writable layer on top.
pub mod scratch;
/// A folder of an image → the beginning of a volume.
pub mod seed;

pub use checkout::checkout;

/// An image as folders of the store.
#[derive(Debug)]
pub struct Rootfs {
    /// The folder of the store, absolute or seen from the working directory.
    pub store: PathBuf,
    /// The tree as a folder, relative to the store: `rootfs/<digest>`.
    pub tree: PathBuf,
    /// The folder that holds `etc/hosts`, `etc/hostname` and `etc/resolv.conf`, relative to the store: `conf/<digest>`.
    pub conf: PathBuf,
    /// What keeps the folders from being collected: a shared file lock. The container holds it too.
    pub lease: Option<Lease>,
    /// Volumes and images of the store that the run shows besides.
    pub others: Vec<Other>,
    /// Where the run's own writes go, if that is a disk.
    pub kept: Option<Kept>,
}

impl Rootfs {
    /// Takes a lease on an image, which must be laid out, and returns its folders and its document.
    pub fn of(store: &Store, id: &ImageId) -> Result<(Self, Image)> {
        // First, so that what is looked at next stays.
        let lease = store.lease(id)?;
        let image = store.image(id)?;
        if !store.has_rootfs(&image.tree)? || !store.has_conf(id)? {
            return Err(Error::NotLaidOut(*id));
        }
        let below = |path: PathBuf| {
            path.strip_prefix(store.path())
                .map(Path::to_owned)
                .unwrap_or(path)
        };
        let rootfs = Self {
            store: store.path().to_owned(),
            tree: below(store.rootfs_path(&image.tree)),
            conf: below(store.conf_path(id)),
            lease: Some(lease),
            others: Vec::new(),
            kept: None,
        };
        Ok((rootfs, image))
    }

    /// Returns the folder of a tree that is laid out, for a run with its own three files of `/etc` while the store is held.
    pub fn of_tree(store: &Store, tree: &Digest) -> Self {
        let path = store.rootfs_path(tree);
        Self {
            store: store.path().to_owned(),
            tree: path
                .strip_prefix(store.path())
                .map(Path::to_owned)
                .unwrap_or(path),
            conf: PathBuf::new(),
            lease: None,
            others: Vec::new(),
            kept: None,
        }
    }

    /// Returns the locks that keep what the run uses, for a container, which holds them as long as it runs.
    pub fn locks(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let lease = self.lease.as_ref().map(AsFd::as_fd);
        let others = self.others.iter().filter_map(Other::lock);
        lease
            .into_iter()
            .chain(others)
            .chain(self.kept.as_ref().map(AsFd::as_fd))
    }

    /// Returns the tree's folder as the caller sees it.
    pub fn tree_path(&self) -> PathBuf {
        self.store.join(&self.tree)
    }
}

/// An empty folder of the store, relative to it: each run mounts its scratch there, seen by nobody else.
pub const SCRATCH: &str = "scratch";

/// Returns where the scratch of a run of this `store` is mounted.
pub fn scratch_path(store: &Path) -> PathBuf {
    store.join(SCRATCH)
}
