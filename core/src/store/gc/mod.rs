//! What can still be reached from a name, a running container or something young stays; the rest goes (docs/store.md,
//! "gc"). [`facts`]: what there is; [`reach`]: what of it stays, and why; [`sweep`]: the rest goes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::layout;
use super::{Result, Store, lock};
use crate::digest::Digest;
use crate::sys::file::{self, LockKind};
use crate::watch::Watch;
use facts::{Facts, Files};
use reach::Live;

mod facts;
mod reach;
mod sweep;

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
    /// What files beside recipes were found to hold.
    Beside,
}

/// How much of something there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Count {
    /// How many.
    pub items: u64,
    /// Their bytes; those of a rootfs folder are its objects', and not counted again.
    pub bytes: u64,
}

/// Why something stays or goes. Of several reasons to stay, the first is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// It stays: an image with a name needs it.
    Named,
    /// It stays: a container runs on it.
    InUse,
    /// It stays: it is younger than [`Policy::since`], or something is that needs it.
    Young,
    /// It stays: the folder or file that it is about is there.
    There,
    /// It stays: caches and volumes are not gc's to judge unasked.
    Kept,
    /// It goes: nothing needs it.
    Unneeded,
    /// It goes: it only saves work, and the store would be larger than [`Policy::max_size`] with it.
    Room,
    /// It goes: that was asked for.
    Asked,
}

/// What a gc kept and what it removed, or would remove.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Collected {
    /// What stays.
    pub kept: BTreeMap<Stored, Count>,
    /// What goes.
    pub removed: BTreeMap<Stored, Count>,
    /// All of it, by reason.
    pub reasons: BTreeMap<Reason, Count>,
}

impl Reason {
    /// Returns one word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Named => "named",
            Self::InUse => "in-use",
            Self::Young => "young",
            Self::There => "there",
            Self::Kept => "kept",
            Self::Unneeded => "unneeded",
            Self::Room => "room",
            Self::Asked => "asked",
        }
    }

    /// Whether it is one to go.
    pub fn goes(self) -> bool {
        self >= Self::Unneeded
    }
}

impl Collected {
    /// Returns how many bytes stay.
    pub fn kept_bytes(&self) -> u64 {
        self.kept.values().map(|count| count.bytes).sum()
    }

    fn add(&mut self, stored: Stored, reason: Reason, bytes: u64) {
        let tally = match reason.goes() {
            true => &mut self.removed,
            false => &mut self.kept,
        };
        for count in [
            tally.entry(stored).or_default(),
            self.reasons.entry(reason).or_default(),
        ] {
            count.items += 1;
            count.bytes += bytes;
        }
    }
}

impl fmt::Display for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.folder())
    }
}

impl Stored {
    const ALL: [Self; 10] = [
        Self::Builds,
        Self::Steps,
        Self::Conf,
        Self::Rootfs,
        Self::Images,
        Self::Trees,
        Self::Objects,
        Self::Sources,
        Self::Caches,
        Self::Beside,
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
            Self::Beside => layout::BESIDE,
        }
    }
}

/// What is to be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Nothing: it is only said what would be.
    pub dry_run: bool,
    /// Caches, too, as far as no step uses them.
    pub caches: bool,
    /// What was made later than this stays, with all that it needs (seconds since 1970).
    pub since: i64,
    /// What only saves work goes, too, the oldest first, until what stays has at most so many bytes.
    pub max_size: Option<u64>,
}

/// All that has no name and is not in use goes.
impl Default for Policy {
    fn default() -> Self {
        Self {
            dry_run: false,
            caches: false,
            since: i64::MAX,
            max_size: None,
        }
    }
}

/// Removes what no image with a name, none that runs, and none that is young has any use for. Waits until no build is
/// under way.
pub fn gc(store: &Store, policy: Policy, watch: &dyn Watch) -> Result<Collected> {
    // Reading trees takes long and needs no lock, since a tree never changes; under the lock only new ones are read.
    let mut files = Files::default();
    plan(store, &policy, false, &mut files)?;
    let alone = store.alone(watch)?;
    let (live, spared) = plan(store, &policy, !policy.dry_run, &mut files)?;
    if policy.dry_run {
        return sweep::sweep(store, &live, &spared, &files, &policy, None);
    }
    clear_locks(store)?;
    let trash = store.stage_trash()?;
    let collected = sweep::sweep(store, &live, &spared, &files, &policy, Some(trash.dir()))?;
    drop(alone);
    drop(trash);
    // What others left behind who were stopped half-way.
    lock::sweep(&store.dir.open_dir(layout::TRASH)?)?;
    store.sweep()?;
    Ok(collected)
}

/// Returns what stays, and what would stay if there were no limit of size.
fn plan(store: &Store, policy: &Policy, clear: bool, files: &mut Files) -> Result<(Live, Live)> {
    let facts = Facts::read(store, leased(store, clear)?)?;
    let spared = facts.reach(policy.since, &BTreeSet::new());
    for tree in spared.trees.keys() {
        files.read(store, tree)?;
    }
    let live = match policy.max_size {
        Some(most) => facts.within(most, policy, files),
        None => spared.clone(),
    };
    Ok((live, spared))
}

/// Returns the images whose lease somebody holds. With `clear`, and nobody at work, deletes the leases that nobody holds.
pub(super) fn leased(store: &Store, clear: bool) -> Result<BTreeSet<Digest>> {
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
