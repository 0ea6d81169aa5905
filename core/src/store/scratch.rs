//! A folder of the store for the writes of one run.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use super::{Result, Store};
use crate::sys::dir::Dir;

/// A folder for the writes of one run. It is locked, and goes when this is dropped; where its holders are killed, the
/// next sweep finds the lock free and takes it away.
#[derive(Debug)]
pub struct ScratchFolder {
    store: Dir,
    name: String,
    dir: Dir,
}

impl Store {
    /// Makes a folder for the writes of a run, and clears away those of runs that were killed.
    pub fn scratch_folder(&self) -> Result<ScratchFolder> {
        self.sweep()?;
        let (name, dir) = self.make_staging("")?;
        Ok(ScratchFolder {
            store: Dir::open(self.path())?,
            name,
            dir,
        })
    }
}

impl ScratchFolder {
    /// Returns the folder.
    pub fn dir(&self) -> &Dir {
        &self.dir
    }

    /// Returns its path, relative to the store.
    pub fn path(&self) -> &Path {
        Path::new(&self.name)
    }
}

/// The lock, for a container, which holds it as long as it runs.
impl AsFd for ScratchFolder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }
}

impl Drop for ScratchFolder {
    fn drop(&mut self) {
        // Should this fail, the next sweep does it.
        _ = self.store.remove_all(&self.name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Owners;

    #[test]
    fn a_scratch_folder_goes_with_its_holder_or_after_it() {
        let temp = tempfile::tempdir().unwrap();
        let store = Store::open(&temp.path().join("store"), Owners::Single).unwrap();
        let one = store.scratch_folder().unwrap();
        let path = store.path().join(one.path());
        one.dir().make_dir("upper", 0o700).unwrap();
        let other = store.scratch_folder().unwrap();
        assert!(path.join("upper").is_dir(), "it was in use");
        drop(one);
        assert!(!path.exists());
        // As a kill would leave it: the lock is free, the folder is there.
        let left = store.path().join(other.path());
        let ScratchFolder { dir, .. } = &*std::mem::ManuallyDrop::new(other);
        rustix::fs::flock(dir, rustix::fs::FlockOperation::Unlock).unwrap();
        drop(store.scratch_folder().unwrap());
        assert!(!left.exists());
    }
}
