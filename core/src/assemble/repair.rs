//! What verify has found, put right as far as the store itself can: bytes from files and archives that hold them too, folders
//! from trees, conf folders from images. What this leaves, a build of the recipe makes again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::graph::Node;
use super::{Error, conf_files, etc, facts, is_beside, sources};
use crate::digest::{Digest, Hasher};
use crate::entry::{Entry, Kind};
use crate::plan::{Pinned, resolve};
use crate::rootfs::checkout;
use crate::store::verify::{Lost, Verified};
use crate::store::{self, ImageId, Store, layout};
use crate::unpack::{self, BadArchive, Body, Limits};
use crate::watch::Watch;

/// How something was put right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Healed {
    /// Made again of a file of the store with the same bytes.
    File(PathBuf),
    /// Made again of an archive of the store, which has its bytes.
    Archive(Digest),
    /// The folder was laid out again.
    LaidOut,
}

/// Puts right what it can, and returns how, by the path of the damage. Folders that a run uses stay as they are.
pub fn heal(
    store: &Store,
    verified: &Verified,
    watch: &dyn Watch,
) -> Result<BTreeMap<PathBuf, Healed>, Error> {
    let hold = store.hold_unchecked(watch)?;
    let mut healed = heal_objects(store, verified)?;
    // What is laid out of damaged files is damaged again.
    let broken: BTreeSet<&Digest> = verified
        .damages
        .iter()
        .filter(|damage| is_object(store, &damage.path) && !healed.contains_key(&damage.path))
        .flat_map(|damage| &damage.trees)
        .collect();
    let (mut rootfs, mut conf) = (BTreeMap::new(), BTreeMap::new());
    for damage in &verified.damages {
        match place(store, &damage.path) {
            Some((Folder::Rootfs, tree)) if !rootfs.contains_key(&tree) && !broken.contains(&tree) => {
                // Where the tree is damaged itself, a build is what helps.
                if let Ok(text) = store.tree(&tree)
                    && let Some(staged) = whole(checkout::staged(store, &text, watch))?
                {
                    rootfs.insert(tree, staged);
                }
            }
            Some((Folder::Conf, image)) => {
                let image = ImageId::from(image);
                if let Ok(document) = store.image(&image)
                    && let Ok(tree) = store.tree(&document.tree)
                {
                    conf.insert(image, etc(&tree).cloned());
                }
            }
            _ => {}
        }
    }
    drop(hold);
    let conf: Vec<_> = conf.into_iter().collect();
    let (trees, images) = store.exchange(rootfs, &conf, conf_files, watch)?;
    for damage in &verified.damages {
        let is_new = match place(store, &damage.path) {
            Some((Folder::Rootfs, tree)) => trees.contains(&tree),
            Some((Folder::Conf, image)) => images.contains(&ImageId::from(image)),
            None => false,
        };
        if is_new {
            healed.insert(damage.path.clone(), Healed::LaidOut);
        }
    }
    Ok(healed)
}

/// Turns "a file is not there, or cannot be used" into `None`: a full disk is an error all the same.
fn whole<T>(done: store::Result<T>) -> Result<Option<T>, Error> {
    match done {
        Err(error @ store::Error::Full { .. }) => Err(error.into()),
        done => Ok(done.ok()),
    }
}

fn is_object(store: &Store, path: &Path) -> bool {
    path.starts_with(store.path().join(layout::OBJECTS))
}

enum Folder {
    Rootfs,
    Conf,
}

/// Returns the folder of a tree or an image that a path is in.
fn place(store: &Store, path: &Path) -> Option<(Folder, Digest)> {
    let mut names = path.strip_prefix(store.path()).ok()?.iter();
    let folder = match names.next()?.to_str()? {
        "rootfs" => Folder::Rootfs,
        "conf" => Folder::Conf,
        _ => return None,
    };
    Some((folder, names.next()?.to_str()?.parse().ok()?))
}

fn heal_objects(store: &Store, verified: &Verified) -> Result<BTreeMap<PathBuf, Healed>, Error> {
    let mut lost = store.lost_objects(verified)?;
    let mut healed = BTreeMap::new();
    from_files(store, &mut lost, &mut healed)?;
    if lost.is_empty() {
        return Ok(healed);
    }
    let trees: BTreeSet<Digest> = verified
        .damages
        .iter()
        .flat_map(|damage| damage.trees.clone())
        .collect();
    for archive in store.sources_of(&trees)? {
        for object in from_archive(store, &archive, &mut lost)? {
            healed.insert(object, Healed::Archive(archive));
        }
    }
    // Those with the same bytes as one that an archive had.
    from_files(store, &mut lost, &mut healed)?;
    Ok(healed)
}

fn from_files(
    store: &Store,
    lost: &mut BTreeMap<PathBuf, Lost>,
    healed: &mut BTreeMap<PathBuf, Healed>,
) -> Result<(), Error> {
    let mut found = Vec::new();
    for (object, wanted) in lost.iter() {
        if let Some(file) = store.restore_from_store(wanted)? {
            found.push((object.clone(), file));
        }
    }
    for (object, file) in found {
        lost.remove(&object);
        healed.insert(object, Healed::File(file));
    }
    Ok(())
}

/// Why an archive is not read on.
enum Stop {
    Bad,
    Store(store::Error),
}

impl From<BadArchive> for Stop {
    fn from(_: BadArchive) -> Self {
        Self::Bad
    }
}

/// Makes those objects again whose bytes an archive holds, each digest once, and returns which. Reads the archive twice: first to
/// see where they are.
fn from_archive(
    store: &Store,
    archive: &Digest,
    lost: &mut BTreeMap<PathBuf, Lost>,
) -> Result<Vec<PathBuf>, Error> {
    let wanted: BTreeSet<Digest> = lost.values().map(|lost| lost.content.digest).collect();
    let mut at: BTreeMap<usize, Digest> = BTreeMap::new();
    each_file(store, archive, &mut |index, body| {
        let mut hasher = Hasher::new();
        let mut piece = vec![0; 1 << 16];
        loop {
            match body.read(&mut piece) {
                Ok(0) => break,
                Ok(size) => hasher.update(&piece[..size]),
                Err(_) => return Err(Stop::Bad),
            }
        }
        let digest = hasher.finish();
        if wanted.contains(&digest) && !at.values().any(|known| *known == digest) {
            at.insert(index, digest);
        }
        Ok(())
    })?;
    let mut made = Vec::new();
    if at.is_empty() {
        return Ok(made);
    }
    each_file(store, archive, &mut |index, body| {
        let Some(digest) = at.get(&index) else {
            return Ok(());
        };
        let first = lost.iter().find(|(_, lost)| lost.content.digest == *digest);
        if let Some((object, wanted)) = first.map(|(object, wanted)| (object.clone(), wanted.clone()))
            && store.restore_object(&wanted, body).map_err(Stop::Store)?
        {
            lost.remove(&object);
            made.push(object);
        }
        Ok(())
    })?;
    Ok(made)
}

/// Hands on what each file of an archive holds, with its number. One that cannot be read to its end is left there.
fn each_file(
    store: &Store,
    archive: &Digest,
    visit: &mut dyn FnMut(usize, &mut dyn std::io::Read) -> Result<(), Stop>,
) -> Result<(), Error> {
    let Some(input) = store.source(archive)? else {
        return Ok(());
    };
    let mut index = 0;
    let mut see = |entry: Entry<Body<'_>>| {
        index += 1;
        match entry.kind {
            Kind::File(mut body) => visit(index, &mut body),
            _ => Ok(()),
        }
    };
    match unpack::entries(&archive.to_string(), input, &Limits::default(), &mut see) {
        Err(Stop::Store(error)) => Err(error.into()),
        Ok(_) | Err(Stop::Bad) => Ok(()),
    }
}

/// Fetches those of `wanted` that the store lacks and that one of `nodes` unpacks. Returns which it has now.
pub fn refetch(
    nodes: &[Node<'_>],
    wanted: &BTreeSet<Digest>,
    store: &Store,
    watch: &dyn Watch,
) -> Result<BTreeSet<Digest>, Error> {
    let _hold = store.hold_unchecked(watch)?;
    let mut fetched = BTreeSet::new();
    for Node { request, .. } in nodes {
        let facts = facts(request, store, watch)?;
        let archives = resolve::archives(request.recipe, request.lock, &facts)?;
        let missing: Vec<Pinned> = archives
            .into_iter()
            .filter(|archive| wanted.contains(&archive.sha256) && !is_beside(archive))
            .collect();
        sources::fetch_all(missing.iter(), request.folder, request.fetch, store, watch)?;
        fetched.extend(missing.iter().map(|archive| archive.sha256));
    }
    Ok(fetched)
}
