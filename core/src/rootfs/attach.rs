//! What a run uses besides its image's folders: named volumes, other images, a writable layer on a disk. Each is locked
//! for as long as the run lasts.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use super::kept::{self, Fit, Kept};
use super::{Rootfs, seed};
use crate::spec::volume::Source;
use crate::spec::{Extra, ScratchKind, Volume};
use crate::store::volume::{self, Beginning};
use crate::store::{self, ImageId, Lease, Store, VolumeLease};
use crate::sys::place::{self, Dress};

/// A folder of the store that a run shows besides its image's.
#[derive(Debug)]
pub struct Other {
    /// What was asked for.
    pub which: Which,
    /// The folder, relative to the store.
    pub path: PathBuf,
    lock: Option<Lock>,
}

/// What such a folder was asked for as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// A volume, by its name.
    Volume(String),
    /// An image, as written.
    Image(String),
}

#[derive(Debug)]
enum Lock {
    Volume(VolumeLease),
    Image(Lease),
}

impl Other {
    /// Returns the lock that keeps it.
    pub fn lock(&self) -> Option<BorrowedFd<'_>> {
        self.lock.as_ref().map(|lock| match lock {
            Lock::Volume(lease) => lease.as_fd(),
            Lock::Image(lease) => lease.as_fd(),
        })
    }
}

/// What a run cannot be given.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A word that means a volume, where a file of that name lies beside the caller.
    #[error("`{name}` could mean the file or folder `./{name}`, or a new volume")]
    Unclear {
        /// The word.
        name: String,
    },
    /// The volume could not be had.
    #[error("cannot use the volume `{name}`")]
    Volume {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        failed: Box<store::Error>,
    },
    /// The writable layer could not be had.
    #[error(transparent)]
    Kept(#[from] kept::Error),
}

/// Returns the named volumes of `mounts`, each with its name and whether that can only be a name.
fn named(mounts: &[Extra]) -> impl Iterator<Item = (&Volume, &str, bool)> {
    mounts.iter().filter_map(|extra| match extra {
        Extra::Volume(volume) => match &volume.source {
            Source::Named { name, certain } => Some((volume, name.as_str(), *certain)),
            Source::Path(_) => None,
        },
        _ => None,
    })
}

fn failing(name: &str, failed: store::Error) -> Error {
    Error::Volume {
        name: name.to_owned(),
        failed: failed.into(),
    }
}

impl Rootfs {
    /// Adds the image that `word` was resolved to, with its lease.
    pub fn attach_image(&mut self, word: &str, image: Rootfs) {
        self.others.push(Other {
            which: Which::Image(word.to_owned()),
            path: image.tree,
            lock: image.lease.map(Lock::Image),
        });
    }

    /// Adds the named volumes of `mounts`; those that are missing are made by [`Self::make_volumes`].
    pub fn attach_volumes(&mut self, store: &Store, mounts: &[Extra]) -> Result<(), Error> {
        for (_, name, certain) in named(mounts) {
            let found = store.volume(name).map_err(|failed| failing(name, failed))?;
            if found.is_none() && !certain && Path::new(name).symlink_metadata().is_ok() {
                return Err(Error::Unclear {
                    name: name.to_owned(),
                });
            }
            self.others.push(Other {
                which: Which::Volume(name.to_owned()),
                path: volume::data_path(name),
                lock: found.map(Lock::Volume),
            });
        }
        Ok(())
    }

    /// Makes those of the volumes of `mounts`, all of which were attached, that are missing; they begin with what
    /// `image`, which is this one, has at their place.
    pub fn make_volumes(&mut self, store: &Store, image: &ImageId, mounts: &[Extra]) -> Result<(), Error> {
        for (volume, name, _) in named(mounts) {
            let missing =
                |other: &Other| other.lock.is_none() && other.which == Which::Volume(name.to_owned());
            while let Some(at) = self.others.iter().position(missing) {
                let made = self.new_volume(store, image, volume, name);
                self.others[at].lock = Some(Lock::Volume(made.map_err(|failed| failing(name, failed))?));
            }
        }
        Ok(())
    }

    fn new_volume(
        &self,
        store: &Store,
        image: &ImageId,
        volume: &Volume,
        name: &str,
    ) -> store::Result<VolumeLease> {
        let from = match volume.options.copy {
            true => seed::find(&self.tree_path(), &volume.target)?,
            false => None,
        };
        let Some(from) = from else {
            return store.volume_or_new(name, None, |_| Ok(()));
        };
        let beginning = Beginning {
            image,
            meta: seed::meta_of(&from)?,
        };
        store.volume_or_new(name, Some(&beginning), |to| seed::copy(store.format(), &from, to))
    }

    /// Has the run's own writes go to where `scratch` says. `fit` is what a folder of the caller's must fit, and
    /// `named` says which owners this process can give to files.
    pub fn attach_scratch(
        &mut self,
        store: &Store,
        scratch: &ScratchKind,
        fit: &Fit,
        named: impl Fn(u32, u32) -> bool,
    ) -> Result<(), Error> {
        let root = || -> Result<Dress, store::Error> {
            let mut root = place::dress_of(&self.tree_path())?;
            root.owner = root.owner.filter(|&(uid, gid)| named(uid, gid));
            Ok(root)
        };
        self.kept = match scratch {
            ScratchKind::Memory { .. } => None,
            ScratchKind::Disk => Some(Kept::in_store(store, root().map_err(kept::Error::from)?)?),
            ScratchKind::Folder(path) => {
                Some(Kept::in_folder(path, fit, root().map_err(kept::Error::from)?)?)
            }
        };
        Ok(())
    }
}
