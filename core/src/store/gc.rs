//! What can still be reached from a name or a running container stays; the rest goes (docs/store.md, "gc").

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;

use super::layout::{self, ObjectName};
use super::step::StepRecord;
use super::{Error, Result, Store, lock};
use crate::digest::Digest;
use crate::sys::dir::Dir;
use crate::sys::file::{self, FileKind, LockKind};
use crate::tree::NodeKind;
use crate::watch::Watch;

/// What a store keeps. The order is that in which gc takes things away: nothing left behind names what is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stored {
    /// What recipes were built of the last time.
    Builds,
    /// Results of steps.
    Steps,
    /// Conf folders.
    Conf,
    /// Trees as folders.
    Rootfs,
    /// Documents of images.
    Images,
    /// Trees.
    Trees,
    /// Files.
    Objects,
    /// Archives as downloaded.
    Sources,
    /// Folders that `run` steps keep things in.
    Caches,
}

/// How much of something there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Count {
    /// How many.
    pub items: u64,
    /// Their bytes; those of a rootfs folder are its objects', and not counted again.
    pub bytes: u64,
}

/// What a gc kept and what it removed, or would remove.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Collected {
    /// What stays.
    pub kept: BTreeMap<Stored, Count>,
    /// What goes.
    pub removed: BTreeMap<Stored, Count>,
}

impl fmt::Display for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.folder())
    }
}

impl Stored {
    const ALL: [Self; 9] = [
        Self::Builds,
        Self::Steps,
        Self::Conf,
        Self::Rootfs,
        Self::Images,
        Self::Trees,
        Self::Objects,
        Self::Sources,
        Self::Caches,
    ];

    fn folder(self) -> &'static str {
        match self {
            Self::Builds => layout::BUILDS,
            Self::Steps => layout::STEPS,
            Self::Conf => layout::CONF,
            Self::Rootfs => layout::ROOTFS,
            Self::Images => layout::IMAGES,
            Self::Trees => layout::TREES,
            Self::Objects => layout::OBJECTS,
            Self::Sources => layout::SOURCES,
            Self::Caches => layout::CACHES,
        }
    }
}

/// What is to be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct What {
    /// Nothing: it is only said what would be.
    pub dry_run: bool,
    /// Caches, too, as far as no step uses them.
    pub caches: bool,
}

/// Removes what no image with a name, and none that runs, has any use for. Waits until no build is under way.
pub fn gc(store: &Store, what: What, watch: &dyn Watch) -> Result<Collected> {
    let dry_run = what.dry_run;
    // Reading trees takes long and needs no lock, since a tree never changes; under the lock only new ones are read.
    let mut marked = Marked::default();
    marked.mark(store, &leased(store, false)?)?;
    let alone = store.alone(watch)?;
    let live = marked.mark(store, &leased(store, !dry_run)?)?;
    if dry_run {
        return sweep(store, &live, &marked.objects, what, None);
    }
    clear_locks(store)?;
    let trash = store.stage_trash()?;
    let collected = sweep(store, &live, &marked.objects, what, Some(trash.dir()))?;
    drop(alone);
    drop(trash);
    // What others left behind who were stopped half-way.
    lock::sweep(&store.dir.open_dir(layout::TRASH)?)?;
    store.sweep()?;
    Ok(collected)
}

/// Returns the images whose lease somebody holds. With `clear`, and nobody at work, deletes the leases that nobody holds.
fn leased(store: &Store, clear: bool) -> Result<BTreeSet<Digest>> {
    let leases = store.dir.open_dir(layout::LEASES)?;
    let mut held = BTreeSet::new();
    for image in store.digests(layout::LEASES)? {
        let name = image.to_string();
        let Some(lease) = super::none_if_missing(leases.open_file(&name))? else {
            continue;
        };
        if !file::try_lock(&lease, LockKind::Exclusive)? {
            held.insert(image);
        } else if clear {
            leases.unlink(&name)?;
        }
    }
    Ok(held)
}

/// Deletes the locks of steps that nobody holds.
fn clear_locks(store: &Store) -> Result<()> {
    let locks = store.dir.open_dir(layout::LOCKS)?;
    for key in store.digests(layout::LOCKS)? {
        let name = key.to_string();
        let Some(lock) = super::none_if_missing(locks.open_file(&name))? else {
            continue;
        };
        if file::try_lock(&lock, LockKind::Exclusive)? {
            _ = super::none_if_missing(locks.unlink(&name))?;
        }
    }
    Ok(())
}

/// What of each folder can be reached, by digest.
#[derive(Debug, Default)]
struct Live {
    images: BTreeSet<Digest>,
    rootfs: BTreeSet<Digest>,
    trees: BTreeSet<Digest>,
    steps: BTreeSet<Digest>,
    sources: BTreeSet<Digest>,
    builds: BTreeSet<Digest>,
}

/// The trees that were read so far, and their objects.
#[derive(Debug, Default)]
struct Marked {
    read: HashSet<Digest>,
    objects: HashSet<ObjectName>,
}

impl Marked {
    /// Follows everything from the names and the leases. Something that is missing leads nowhere; something that is
    /// damaged is an error, since what it led to is not known.
    fn mark(&mut self, store: &Store, leased: &BTreeSet<Digest>) -> Result<Live> {
        let mut live = Live {
            images: leased.clone(),
            ..Live::default()
        };
        live.images
            .extend(store.refs()?.iter().map(|named| *named.image.digest()));
        for image in &live.images {
            match store.image(&(*image).into()) {
                Ok(image) => _ = live.rootfs.insert(image.tree),
                Err(Error::NoImage(_)) => {}
                Err(error) => return Err(error),
            }
        }
        self.follow_steps(store, &mut live)?;
        self.follow_builds(store, &mut live)?;
        if !self.read.iter().all(|tree| live.trees.contains(tree)) {
            // Something was let go since the last look: rarely, so all is read again.
            *self = Self::default();
        }
        for tree in &live.trees {
            self.read(store, tree)?;
        }
        Ok(live)
    }

    /// Adds, to the trees of the images, the steps that gave them, what those started from, and so on back.
    fn follow_steps(&self, store: &Store, live: &mut Live) -> Result<()> {
        let mut by_result: HashMap<Digest, Vec<(Digest, StepRecord)>> = HashMap::new();
        for key in store.digests(layout::STEPS)? {
            if let Some(record) = store.step_record(&key)? {
                by_result.entry(record.tree).or_default().push((key, record));
            }
        }
        let mut next: Vec<Digest> = live.rootfs.iter().copied().collect();
        while let Some(tree) = next.pop() {
            if !live.trees.insert(tree) {
                continue;
            }
            for (key, record) in by_result.get(&tree).into_iter().flatten() {
                live.steps.insert(*key);
                live.sources.extend(record.named_digests());
                next.extend(record.from);
                next.extend(record.part());
            }
        }
        Ok(())
    }

    /// Adds what is remembered of builds whose result stays.
    fn follow_builds(&self, store: &Store, live: &mut Live) -> Result<()> {
        for name in store.past_builds()? {
            let past = store.past_build(&name)?;
            let last = past.and_then(|past| past.steps.last().map(|step| step.tree));
            if last.is_some_and(|tree| live.trees.contains(&tree)) {
                live.builds.insert(name);
            }
        }
        Ok(())
    }

    fn read(&mut self, store: &Store, digest: &Digest) -> Result<()> {
        if self.read.contains(digest) {
            return Ok(());
        }
        let tree = match store.tree(digest) {
            Err(Error::NoTree(_)) => return Ok(()),
            tree => tree?,
        };
        for (_, node) in tree.iter() {
            if let NodeKind::File { content, .. } = &node.kind {
                self.objects
                    .insert(ObjectName::new(&content.digest, &node.meta, &store.format));
            }
        }
        self.read.insert(*digest);
        Ok(())
    }
}

/// Counts everything, and moves what is not live to the trash if there is one.
fn sweep(
    store: &Store,
    live: &Live,
    objects: &HashSet<ObjectName>,
    what: What,
    trash: Option<&Dir>,
) -> Result<Collected> {
    let mut sweep = Sweep {
        trash,
        found: Collected::default(),
        next: 0,
    };
    let among =
        |digests: &BTreeSet<Digest>, name: &str| name.parse().is_ok_and(|digest| digests.contains(&digest));
    for stored in Stored::ALL {
        let Some(folder) = super::none_if_missing(store.dir.open_dir(stored.folder()))? else {
            // An older store lacks this one.
            continue;
        };
        match stored {
            Stored::Builds => sweep.folder(stored, &folder, |name| among(&live.builds, name))?,
            Stored::Steps => sweep.folder(stored, &folder, |name| among(&live.steps, name))?,
            Stored::Conf | Stored::Images => {
                sweep.folder(stored, &folder, |name| among(&live.images, name))?
            }
            // Staging is not gc's to judge.
            Stored::Rootfs => sweep.folder(stored, &folder, |name| {
                name.starts_with(layout::STAGING) || among(&live.rootfs, name)
            })?,
            Stored::Trees => sweep.folder(stored, &folder, |name| among(&live.trees, name))?,
            Stored::Sources => sweep.folder(stored, &folder, |name| {
                among(&live.sources, name.strip_suffix(layout::NEWEST).unwrap_or(name))
            })?,
            Stored::Caches => sweep.caches(&folder, what.caches)?,
            Stored::Objects => {
                for byte in 0..=255u8 {
                    let prefix = format!("{byte:02x}");
                    let folder = folder.open_dir(&prefix)?;
                    sweep.folder(stored, &folder, |name| {
                        let name = ObjectName::parse(&format!("{prefix}{name}"), &store.format);
                        name.is_some_and(|name| objects.contains(&name))
                    })?;
                }
            }
        }
    }
    Ok(sweep.found)
}

struct Sweep<'a> {
    trash: Option<&'a Dir>,
    found: Collected,
    next: u64,
}

/// Returns how many bytes the files below `top` hold.
fn bytes_below(top: &Dir) -> Result<u64> {
    let mut bytes = 0;
    let mut folders = vec![top.open_dir(".")?];
    while let Some(folder) = folders.pop() {
        for (name, kind) in folder.list()? {
            match kind {
                FileKind::Folder => folders.push(folder.open_dir(&name)?),
                _ => bytes += folder.stat(&name)?.size,
            }
        }
    }
    Ok(bytes)
}

impl Sweep<'_> {
    /// Caches are folders, which a step that uses them has locked.
    fn caches(&mut self, folder: &Dir, unwanted: bool) -> Result<()> {
        for (name, _) in folder.list()? {
            let cache = folder.open_dir(&name)?;
            let bytes = bytes_below(&cache)?;
            let goes = unwanted && file::try_lock(&cache, LockKind::Exclusive)?;
            if let (true, Some(trash)) = (goes, self.trash) {
                folder.rename(&name, trash, self.next.to_string())?;
                self.next += 1;
            }
            let tally = match goes {
                true => &mut self.found.removed,
                false => &mut self.found.kept,
            };
            let count = tally.entry(Stored::Caches).or_default();
            count.items += 1;
            count.bytes += bytes;
        }
        Ok(())
    }

    fn folder(&mut self, stored: Stored, folder: &Dir, keep: impl Fn(&str) -> bool) -> Result<()> {
        for (name, kind) in folder.list()? {
            let kept = keep(&name.to_string_lossy());
            let bytes = match kind {
                FileKind::Folder => 0,
                _ => folder.stat(&name)?.size,
            };
            if let (false, Some(trash)) = (kept, self.trash) {
                folder.rename(&name, trash, self.next.to_string())?;
                self.next += 1;
            }
            let tally = match kept {
                true => &mut self.found.kept,
                false => &mut self.found.removed,
            };
            let count = tally.entry(stored).or_default();
            count.items += 1;
            count.bytes += bytes;
        }
        Ok(())
    }
}
