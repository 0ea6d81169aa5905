//! Recipe + Lock → a lock that holds a pin for every source, looked up where one is missing.

use std::collections::BTreeMap;

use super::Error;
use crate::fetch;
use crate::plan::lock::{DebKey, DebPin, Lock, UrlPin};
use crate::plan::resolve::{self, Missing};
use crate::recipe::Recipe;
use crate::store::Store;
use crate::watch::Watch;

/// The architectures that packages are pinned for, as Debian names them.
pub const ARCHITECTURES: [&str; 2] = ["amd64", "arm64"];

/// What may happen to pins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Policy {
    /// Missing ones are looked up; those that are there stay.
    #[default]
    Complete,
    /// None may change.
    Locked,
    /// All are looked up anew, and those that nothing wants are dropped.
    Renew,
}

/// A lock in which every source has its pin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pinned {
    /// The lock.
    pub lock: Lock,
    /// How many pins are new, other than before, or gone.
    pub changed: usize,
}

/// Returns `lock` with a pin for all that `recipe` names. The bytes of a URL that is pinned for the first
/// time go into the store, because they have to be fetched for it anyway.
pub fn pin(
    recipe: &Recipe,
    lock: &Lock,
    policy: Policy,
    settings: &fetch::Settings,
    store: &Store,
    watch: &dyn Watch,
) -> Result<Pinned, Error> {
    let wanted = resolve::wanted(recipe);
    // A pin that is not wanted now stays: another value of an argument may want it again.
    let (mut pinned, missing) = match policy {
        Policy::Renew => (resolve::pruned(&wanted, lock), wanted),
        Policy::Complete | Policy::Locked => (lock.clone(), resolve::missing(&wanted, lock)),
    };
    if policy == Policy::Locked {
        let names: Vec<String> = missing.names();
        return match names.is_empty() {
            true => Ok(Pinned {
                lock: lock.clone(),
                changed: 0,
            }),
            false => Err(Error::LockWouldChange { names }),
        };
    }
    look_up(&missing, &mut pinned, settings, store, watch)?;
    let changed = differences(&pinned.debs, &lock.debs) + differences(&pinned.urls, &lock.urls);
    Ok(Pinned {
        lock: pinned,
        changed,
    })
}

fn look_up(
    missing: &Missing,
    lock: &mut Lock,
    settings: &fetch::Settings,
    store: &Store,
    watch: &dyn Watch,
) -> Result<(), Error> {
    for (suite, packages) in &missing.debs {
        let packages: Vec<String> = packages.iter().cloned().collect();
        let found: BTreeMap<DebKey, DebPin> =
            fetch::debian::look_up(suite, &packages, &ARCHITECTURES, settings, watch)?;
        // A package may have left an architecture since it was last pinned.
        lock.debs
            .retain(|key, _| key.suite != *suite || !packages.contains(&key.package));
        lock.debs.extend(found);
    }
    if missing.urls.is_empty() {
        return Ok(());
    }
    let _hold = store.hold(watch)?;
    let stage = store.stage()?;
    for url in &missing.urls {
        let mut source = stage.add_source(None)?;
        let (sha256, size) = fetch::pin_url(url, settings, &mut source, watch)?;
        source.finish()?;
        lock.urls.insert(url.clone(), UrlPin { sha256, size });
    }
    Ok(stage.commit()?)
}

/// Returns how many keys have another value, or none, on one of the sides.
fn differences<K: Ord, V: PartialEq>(one: &BTreeMap<K, V>, other: &BTreeMap<K, V>) -> usize {
    let gone = other.keys().filter(|key| !one.contains_key(key)).count();
    gone + one
        .iter()
        .filter(|(key, value)| other.get(key) != Some(value))
        .count()
}
