//! Folders that `run` steps keep things in from build to build (docs/store.md, "Caches"). Whatever is in one can be made
//! again, so gc may take it away.

use std::path::{Path, PathBuf};

use super::image::check_name;
use super::{Result, Store, exists, layout};
use crate::meta::Meta;
use crate::sys::dir::Dir;
use crate::sys::file::{self, LockKind};
use crate::watch::{Event, Watch};

/// A cache that is in use: nobody else uses it meanwhile.
#[derive(Debug)]
pub struct Cache {
    path: PathBuf,
    /// Locked.
    _folder: Dir,
}

impl Cache {
    /// Returns the folder to mount, absolute if the store's path is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Store {
    /// Takes the cache `name` into use, and makes it, empty, where there is none. Waits until nobody else uses it.
    pub fn cache(&self, name: &str, watch: &dyn Watch) -> Result<Cache> {
        check_name(name)?;
        let path = format!("{}/{name}", layout::CACHES);
        loop {
            self.full(exists(self.dir.make_dir(layout::CACHES, 0o700)))?;
            self.full(exists(self.dir.make_dir(&path, 0o700)))?;
            let folder = self.dir.open_dir(&path)?;
            if !file::try_lock(&folder, LockKind::Exclusive)? {
                let on = format!("another step, which uses the cache `{name}`");
                watch.see(Event::Waiting { on: &on });
                file::lock(&folder, LockKind::Exclusive)?;
            }
            // gc renames one before it deletes it: a lock on that keeps nobody out.
            let ours = file::stat(&folder)?.inode;
            if self.dir.look(&path)?.is_none_or(|found| found.inode != ours) {
                continue;
            }
            if folder.look(layout::CACHE_DATA)?.is_none() {
                self.full(folder.make_dir(layout::CACHE_DATA, 0o755))?;
                let data = folder.open_dir(layout::CACHE_DATA)?;
                self.format.dress(&data, &Meta::new(0o755, 0))?;
            }
            return Ok(Cache {
                path: self.path.join(&path).join(layout::CACHE_DATA),
                _folder: folder,
            });
        }
    }
}
