//! What a command is granted besides the tree: copies of what lies beside the recipe, caches and secrets, as mounts.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::beside::Folder;
use super::perform::{Beside, lay_beside};
use crate::digest::Digest;
use crate::path::TreePath;
use crate::recipe::{Granted, Mount, Owner};
use crate::rootfs;
use crate::spec::volume::{Extra, Options, Source, Volume};
use crate::store::Store;
use crate::store::cache::Cache;
use crate::tree::Tree;
use crate::watch::Watch;

/// What is granted, mounted, and kept for as long as the command runs.
pub(super) struct Grants {
    pub(super) extras: Vec<Extra>,
    _caches: BTreeMap<String, Cache>,
}

/// Where it comes from.
pub(super) struct From<'a> {
    pub(super) store: &'a Store,
    pub(super) watch: &'a dyn Watch,
    /// The recipe's folder.
    pub(super) folder: &'a Folder<'a>,
    /// Files by the name that steps know them by.
    pub(super) secrets: &'a BTreeMap<String, PathBuf>,
    /// The latest time that a file may have (seconds since 1970 UTC).
    pub(super) epoch: i64,
}

impl Grants {
    /// Gets `mounts` ready; `mounted` holds the digests of those that are copies, in order.
    pub(super) fn new(
        mounts: &[Mount],
        mounted: &[Digest],
        from: &From<'_>,
    ) -> Result<Self, super::perform::Error> {
        // In the order of their names, so that no two steps wait for each other.
        let names: BTreeSet<&str> = mounts.iter().filter_map(cache_of).collect();
        let mut caches = BTreeMap::new();
        for name in names {
            caches.insert(name.to_owned(), from.store.cache(name, from.watch)?);
        }
        let mut mounted = mounted.iter();
        let mut extras = Vec::new();
        for mount in mounts {
            let (source, read_only) = match &mount.granted {
                Granted::Copy(path) => (from.copy(path, mounted.next())?, true),
                Granted::Cache(name) => match caches.get(name) {
                    Some(cache) => (cache.path().to_owned(), false),
                    None => continue,
                },
                Granted::Secret(name) => match from.secrets.get(name) {
                    Some(path) => (path.clone(), true),
                    None => return Err(super::perform::Error::NoSecret { name: name.clone() }),
                },
            };
            extras.push(Extra::Volume(Volume {
                source: Source::Path(source),
                target: mount.at.clone(),
                options: Options {
                    read_only,
                    ..Options::default()
                },
            }));
        }
        Ok(Self {
            extras,
            _caches: caches,
        })
    }
}

fn cache_of(mount: &Mount) -> Option<&str> {
    match &mount.granted {
        Granted::Cache(name) => Some(name),
        _ => None,
    }
}

impl From<'_> {
    /// Brings what lies beside the recipe into the store, as `copy` takes it, and returns where it is there.
    fn copy(&self, path: &str, expected: Option<&Digest>) -> Result<PathBuf, super::perform::Error> {
        let at = TreePath::parse("copy")?;
        let mut tree = Tree::new(self.epoch);
        let stage = self.store.stage()?;
        let beside = Beside {
            folder: self.folder,
            from: path,
            into: &at,
            mode: None,
            owner: Owner::default(),
            epoch: self.epoch,
        };
        lay_beside(&beside, expected, &stage, &mut tree)?;
        stage.commit()?;
        let digest = self.store.put_tree(&tree)?;
        rootfs::checkout(self.store, &digest, &tree, &())?;
        Ok(self.store.rootfs_path(&digest).join(at.as_path()))
    }
}
