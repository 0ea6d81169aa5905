//! What is damaged, put right in its place, or taken away. Whatever a run uses at that moment stays as it is.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::{ConfFiles, Damage, Verified, objects};
use crate::digest::{Digest, HashWriter};
use crate::entry::Content;
use crate::meta::Meta;
use crate::store::gc::leased;
use crate::store::layout::{self, ObjectName};
use crate::store::object::{DOCUMENT, StagedFolder};
use crate::store::{Error, ImageId, Result, Store, none_if_missing};
use crate::tree::NodeKind;
use crate::watch::Watch;

/// Where a tree is: as text, and as a folder.
const TREES: [&str; 2] = [layout::TREES, layout::ROOTFS];

/// What was taken away.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Discarded {
    /// How many files and folders of the store went.
    pub removed: u64,
    /// The damaged paths that stayed, because a run uses them.
    pub in_use: BTreeSet<PathBuf>,
}

/// Removes what is damaged and what cannot be whole without it, so that a build makes it again; images that have no name
/// then go, too. Waits until no build is under way. What hurts an image that a run uses stays until another time.
pub fn discard(store: &Store, verified: &Verified, watch: &dyn Watch) -> Result<Discarded> {
    let alone = store.alone(watch)?;
    let trash = store.stage_trash()?;
    let used = Used::look(store)?;
    let named = named(store)?;
    let mut found = Discarded::default();
    let mut all = BTreeSet::new();
    for damage in &verified.damages {
        let mut paths = doomed(store, damage);
        paths.extend(nameless(damage, &named));
        // All of it stays, or the image that runs would have lost more than was damaged.
        match paths.iter().any(|path| used.has(path)) {
            true => _ = found.in_use.insert(damage.path.clone()),
            false => all.extend(paths),
        }
    }
    // What the conf folder of an image holds that is not known, nobody can tell; a build would take it as it is.
    for image in store.digests(layout::CONF)? {
        let conf = PathBuf::from(format!("{}/{image}", layout::CONF));
        if store.dir.look(format!("{}/{image}", layout::IMAGES))?.is_none() && !used.has(&conf) {
            all.insert(conf);
        }
    }
    for path in all {
        let moved = store.dir.rename(&path, trash.dir(), found.removed.to_string());
        found.removed += u64::from(none_if_missing(moved)?.is_some());
    }
    if found.in_use.is_empty() {
        // What is there was read and found whole, also where a power cut could have cost some of it.
        store.settle()?;
    }
    drop(alone);
    drop(trash);
    Ok(found)
}

/// Returns the path of a damage, seen from the store.
fn below<'d>(store: &Store, damage: &'d Damage) -> &'d Path {
    damage.path.strip_prefix(&store.path).unwrap_or(&damage.path)
}

/// Returns what goes with a damage, seen from the store.
fn doomed(store: &Store, damage: &Damage) -> Vec<PathBuf> {
    let path = below(store, damage);
    // Of a rootfs or a conf the whole folder: with one file less it would pass for whole.
    let names = if path.starts_with(layout::OBJECTS) { 3 } else { 2 };
    let mut doomed = vec![path.iter().take(names).collect()];
    if let Ok(image) = path.strip_prefix(layout::IMAGES) {
        // What it should hold, nobody could say.
        doomed.push(Path::new(layout::CONF).join(image));
    }
    for tree in &damage.trees {
        // A step whose tree is not there is done again.
        doomed.extend(TREES.map(|folder| PathBuf::from(format!("{folder}/{tree}"))));
    }
    doomed
}

/// Returns the parts of images that a damage hurts and that nobody will build again.
fn nameless(damage: &Damage, named: &BTreeSet<ImageId>) -> Vec<PathBuf> {
    let images = damage.images.iter().filter(|image| !named.contains(image));
    let parts =
        images.flat_map(|image| [layout::IMAGES, layout::CONF].map(|folder| format!("{folder}/{image}")));
    parts.map(PathBuf::from).collect()
}

/// Returns the images that have a name which can be read.
fn named(store: &Store) -> Result<BTreeSet<ImageId>> {
    let names = store.dir.open_dir(layout::REFS)?.list()?;
    let images = names
        .iter()
        .filter_map(|(name, _)| store.get_ref(&name.to_string_lossy()).ok().flatten());
    Ok(images.collect())
}

/// Whether a damage leaves nothing to discard: something is missing, and so is all that needs it.
pub fn is_gone(store: &Store, damage: &Damage) -> bool {
    let is_there = |path: PathBuf| fs_err::symlink_metadata(store.path.join(path)).is_ok();
    !doomed(store, damage).into_iter().any(is_there)
}

/// What runs use. Seen while the store is locked, when no run can begin.
#[derive(Debug, Default)]
struct Used {
    paths: BTreeSet<PathBuf>,
    /// A run uses an image whose document cannot be read: any tree may be the one that it runs on.
    any_tree: bool,
}

impl Used {
    fn look(store: &Store) -> Result<Self> {
        let mut used = Self::default();
        for image in leased(store, false)? {
            for folder in [layout::IMAGES, layout::CONF] {
                used.paths.insert(PathBuf::from(format!("{folder}/{image}")));
            }
            match store.image(&image.into()) {
                Ok(image) => {
                    for folder in TREES {
                        used.paths
                            .insert(PathBuf::from(format!("{folder}/{}", image.tree)));
                    }
                }
                Err(_) => used.any_tree = true,
            }
        }
        Ok(used)
    }

    fn has(&self, path: &Path) -> bool {
        self.paths.contains(path) || (self.any_tree && TREES.iter().any(|folder| path.starts_with(folder)))
    }
}

/// An object that is to be made again.
#[derive(Debug, Clone)]
pub(crate) struct Lost {
    /// Its bytes.
    pub(crate) content: Content,
    /// The metadata that it carries.
    pub(crate) meta: Meta,
    /// Where in folders of trees a file with these bytes should be, below the store.
    places: BTreeSet<PathBuf>,
}

impl Store {
    /// Returns the objects that are damaged or missing and that trees need, by where they are.
    pub(crate) fn lost_objects(&self, verified: &Verified) -> Result<BTreeMap<PathBuf, Lost>> {
        let objects = self.path.join(layout::OBJECTS);
        let damages = verified
            .damages
            .iter()
            .filter(|damage| damage.path.starts_with(&objects));
        let mut hurt: BTreeSet<PathBuf> = BTreeSet::new();
        let mut trees: BTreeSet<Digest> = BTreeSet::new();
        for damage in damages {
            hurt.insert(damage.path.clone());
            trees.extend(&damage.trees);
        }
        let mut lost: BTreeMap<PathBuf, Lost> = BTreeMap::new();
        for digest in trees {
            // A tree that is damaged itself says nothing.
            let Ok(tree) = self.tree(&digest) else { continue };
            for (path, node) in tree.iter() {
                let NodeKind::File { content, .. } = &node.kind else {
                    continue;
                };
                let object = self.object_path(&ObjectName::new(&content.digest, &node.meta, &self.format));
                if hurt.contains(&object) {
                    let entry = lost.entry(object).or_insert_with(|| Lost {
                        content: *content,
                        meta: node.meta.clone(),
                        places: BTreeSet::new(),
                    });
                    let place = Path::new(layout::ROOTFS).join(digest.to_string());
                    entry.places.insert(place.join(path.as_path()));
                }
            }
        }
        Ok(lost)
    }

    /// Makes an object again of a file in the store with the same bytes, and returns which that was: the object itself, where only
    /// its metadata is wrong, one with other metadata, or what the folder of a tree has.
    pub(crate) fn restore_from_store(&self, lost: &Lost) -> Result<Option<PathBuf>> {
        let digest = lost.content.digest.to_string();
        let folder = Path::new(layout::OBJECTS).join(&digest[..2]);
        let listed = none_if_missing(self.dir.open_dir(&folder))?;
        let names = listed.map(|dir| dir.list()).transpose()?.unwrap_or_default();
        let twins = names
            .iter()
            .filter(|(name, _)| name.to_string_lossy().starts_with(&digest[2..]))
            .map(|(name, _)| folder.join(name));
        for place in twins.chain(lost.places.iter().cloned()) {
            // What is damaged besides may be no file at all.
            let Ok(mut file) = self.dir.open_file(&place) else {
                continue;
            };
            if !matches!(objects::hash(&file), Ok((found, _)) if found == lost.content.digest) {
                continue;
            }
            file = self.dir.open_file(&place)?;
            if self.link_back(lost, &file, &place)? || self.restore_object(lost, &mut file)? {
                return Ok(Some(self.path.join(place)));
            }
        }
        Ok(None)
    }

    /// Makes an object again of a file that is the very same and has only lost that name, and says whether it was one.
    fn link_back(&self, lost: &Lost, file: &File, place: &Path) -> Result<bool> {
        let (meta, nanos) = objects::meta_of(file)?;
        let name = ObjectName::new(&lost.content.digest, &lost.meta, &self.format);
        if nanos != 0 || ObjectName::new(&lost.content.digest, &meta, &self.format) != name {
            return Ok(false);
        }
        let linked = self.dir.link(place, &*self.object_folder(&name)?, name.file());
        // Where it does not work, as in the place of another object, there is a copy.
        Ok(linked.is_ok())
    }

    /// Makes an object again of `body`, and says whether that had the right bytes. What is in its place goes; whoever has it open, or
    /// a link to it, still has it.
    pub(crate) fn restore_object(&self, lost: &Lost, body: &mut dyn Read) -> Result<bool> {
        let stage = self.stage()?;
        let file = self.full(stage.dir().create_file(DOCUMENT, lost.meta.mode & 0o777))?;
        let mut out = HashWriter::new(file);
        match std::io::copy(body, &mut out) {
            Ok(_) => {}
            // A source that cannot be read to its end is none.
            Err(error) if error.kind() != std::io::ErrorKind::StorageFull => return Ok(false),
            Err(error) => return Err(Error::Body(error)),
        }
        let (file, digest, size) = out.finish();
        if (digest, size) != (lost.content.digest, lost.content.size) {
            return Ok(false);
        }
        self.naming_full(self.format.dress(&file, &lost.meta))?;
        self.sync_file(&file)?;
        let name = ObjectName::new(&digest, &lost.meta, &self.format);
        match stage
            .dir()
            .replace(DOCUMENT, &*self.object_folder(&name)?, name.file())
        {
            Err(error) if error.errno == Errno::ISDIR => Ok(false),
            replaced => self.full(replaced).map(|()| true),
        }
    }

    /// Puts folders of trees and conf folders in the place of damaged ones, but for those that a run uses. Returns the trees and the
    /// images whose folders are new.
    pub(crate) fn exchange(
        &self,
        rootfs: BTreeMap<Digest, StagedFolder<'_>>,
        conf: &[(ImageId, Option<Meta>)],
        files: ConfFiles,
        watch: &dyn Watch,
    ) -> Result<(BTreeSet<Digest>, BTreeSet<ImageId>)> {
        let alone = self.alone(watch)?;
        let trash = self.stage_trash()?;
        let used = Used::look(self)?;
        let (mut trees, mut images) = (BTreeSet::new(), BTreeSet::new());
        let mut next = 0;
        let mut away = |path: &str| -> Result<()> {
            next += 1;
            none_if_missing(self.dir.rename(path, trash.dir(), next.to_string())).map(drop)
        };
        for (tree, staged) in rootfs {
            let path = format!("{}/{tree}", layout::ROOTFS);
            // gc may have been faster.
            if !used.has(Path::new(&path)) && self.has_tree(&tree)? {
                away(&path)?;
                staged.finish(&tree)?;
                trees.insert(tree);
            }
        }
        for (id, etc) in conf {
            let path = format!("{}/{id}", layout::CONF);
            if used.has(Path::new(&path)) {
                continue;
            }
            let Ok(image) = self.image(id) else { continue };
            away(&path)?;
            let files = files(&image);
            let files: Vec<(&str, &[u8])> = files
                .iter()
                .map(|(name, text)| (*name, text.as_bytes()))
                .collect();
            self.put_conf(id, etc.as_ref(), &files)?;
            images.insert(*id);
        }
        drop(alone);
        drop(trash);
        Ok((trees, images))
    }
}
