//! A folder of the store for the writes of one run.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use super::{Result, Store};
use crate::sys::dir::Dir;
use crate::sys::file::{self, LockKind};

/// A folder for the writes of one run. It is locked, and goes when this is dropped by the last process that has it; where
/// that one is killed, the next sweep finds the lock free and takes it away.
#[derive(Debug)]
pub struct ScratchFolder {
    store: Dir,
    name: String,
    /// There until this is dropped.
    dir: Option<Dir>,
}

impl Store {
    /// Makes a folder for the writes of a run, and clears away those of runs that were killed.
    pub fn scratch_folder(&self) -> Result<ScratchFolder> {
        self.sweep()?;
        let (name, dir) = self.make_staging("")?;
        Ok(ScratchFolder {
            store: Dir::open(self.path())?,
            name,
            dir: Some(dir),
        })
    }
}

impl ScratchFolder {
    /// Returns the folder.
    pub fn dir(&self) -> &Dir {
        match &self.dir {
            Some(dir) => dir,
            None => &self.store,
        }
    }

    /// Returns another holder of the same folder, which stays until both are dropped.
    pub fn share(&self) -> Result<Self> {
        Ok(Self {
            store: self.store.open_dir(".")?,
            name: self.name.clone(),
            dir: Some(self.dir().share()?),
        })
    }

    /// Returns its path, relative to the store.
    pub fn path(&self) -> &Path {
        Path::new(&self.name)
    }
}

/// The lock, for a container, which holds it as long as it runs.
impl AsFd for ScratchFolder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.dir().as_fd()
    }
}

impl Drop for ScratchFolder {
    fn drop(&mut self) {
        // A monitor that was forked off, or a container that has not ended yet, has the same lock.
        drop(self.dir.take());
        // Should this fail, the next sweep does it.
        if let Ok(dir) = self.store.open_dir(&self.name)
            && let Ok(true) = file::try_lock(&dir, LockKind::Exclusive)
        {
            _ = self.store.remove_all(&self.name);
        }
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
        let both = one.share().unwrap();
        drop(one);
        assert!(path.exists(), "there is another holder");
        drop(both);
        assert!(!path.exists());
        // As it is where another process goes on with it, and then dies.
        let left = store.path().join(other.path());
        let inherited = other.as_fd().try_clone_to_owned().unwrap();
        drop(other);
        drop(store.scratch_folder().unwrap());
        assert!(left.exists(), "it was in use");
        drop(inherited);
        drop(store.scratch_folder().unwrap());
        assert!(!left.exists());
    }
}
