//! What there is in a store, as far as it decides what stays.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::digest::Digest;
use crate::store::layout::{self, ObjectName};
use crate::store::step::StepRecord;
use crate::store::{Error, Result, Store, none_if_missing};
use crate::tree::NodeKind;

/// A document of the store, or a source.
#[derive(Debug, Clone, Copy)]
pub(super) struct Item {
    /// When it was made, or asked for the last time, in seconds since 1970.
    pub(super) time: i64,
    /// Its bytes.
    pub(super) bytes: u64,
}

/// Everything but the files of trees.
#[derive(Debug, Default)]
pub(super) struct Facts {
    /// Images that have a name.
    pub(super) named: BTreeSet<Digest>,
    /// Images that run.
    pub(super) leased: BTreeSet<Digest>,
    /// The tree of each image, and when it was built the last time.
    pub(super) images: BTreeMap<Digest, (Digest, Item)>,
    /// Steps.
    pub(super) steps: BTreeMap<Digest, (StepRecord, Item)>,
    /// Trees.
    pub(super) trees: BTreeMap<Digest, Item>,
    /// Sources.
    pub(super) sources: BTreeMap<Digest, Item>,
    /// What each remembered build ended in.
    pub(super) builds: BTreeMap<Digest, Digest>,
    /// What is known of files beside recipes, as far as those are there.
    pub(super) beside: BTreeMap<Digest, Item>,
    /// The bytes of all caches.
    pub(super) caches: u64,
}

impl Facts {
    /// Reads all of them. Something that is missing leads nowhere; something that is damaged is an error, since what it
    /// led to is not known.
    pub(super) fn read(store: &Store, leased: BTreeSet<Digest>) -> Result<Self> {
        let mut facts = Self {
            leased,
            ..Self::default()
        };
        let refs = store.refs()?;
        facts.named.extend(refs.iter().map(|named| *named.image.digest()));
        for (digest, item) in items(store, layout::IMAGES)? {
            match store.image(&digest.into()) {
                Ok(image) => _ = facts.images.insert(digest, (image.tree, item)),
                Err(Error::NoImage(_)) => {}
                // One without a name leads to nothing that anybody asked for.
                Err(_) if !facts.named.contains(&digest) && !facts.leased.contains(&digest) => {}
                Err(error) => return Err(error),
            }
        }
        for (key, item) in items(store, layout::STEPS)? {
            if let Some(record) = store.step_record(&key)? {
                facts.steps.insert(key, (record, item));
            }
        }
        facts.trees = items(store, layout::TREES)?;
        facts.sources = items(store, layout::SOURCES)?;
        for name in store.past_builds()? {
            let past = store.past_build(&name)?;
            if let Some(step) = past.as_ref().and_then(|past| past.steps.last()) {
                facts.builds.insert(name, step.tree);
            }
        }
        if store.dir.look(layout::BESIDE)?.is_some() {
            facts.beside = items(store, layout::BESIDE)?;
            facts.beside.retain(|name, _| store.is_still_beside(name));
        }
        if let Some(caches) = none_if_missing(store.dir.open_dir(layout::CACHES))? {
            facts.caches = super::sweep::bytes_below(&caches)?;
        }
        Ok(facts)
    }
}

fn items(store: &Store, folder: &str) -> Result<BTreeMap<Digest, Item>> {
    let dir = store.dir.open_dir(folder)?;
    let mut items = BTreeMap::new();
    for (name, _) in dir.list()? {
        let Ok(digest) = name.to_string_lossy().parse() else {
            continue;
        };
        // Another process may take something away while nobody is locked out yet.
        if let Some(stat) = dir.look(&name)? {
            let item = Item {
                time: stat.mtime,
                bytes: stat.size,
            };
            items.insert(digest, item);
        }
    }
    Ok(items)
}

/// The files of the trees that were read so far, each file with a number.
#[derive(Debug, Default)]
pub(super) struct Files {
    numbers: HashMap<ObjectName, u32>,
    /// How many bytes each has.
    sizes: Vec<u64>,
    of: HashMap<Digest, Box<[u32]>>,
}

impl Files {
    /// Reads a tree, unless it has been read, or is gone.
    pub(super) fn read(&mut self, store: &Store, digest: &Digest) -> Result<()> {
        if self.of.contains_key(digest) {
            return Ok(());
        }
        let tree = match store.tree(digest) {
            Err(Error::NoTree(_)) => return Ok(()),
            tree => tree?,
        };
        let mut numbers = Vec::new();
        for (_, node) in tree.iter() {
            if let NodeKind::File { content, .. } = &node.kind {
                let next = self.sizes.len() as u32;
                let name = ObjectName::new(&content.digest, &node.meta, &store.format);
                numbers.push(match self.numbers.entry(name) {
                    Entry::Occupied(known) => *known.get(),
                    Entry::Vacant(place) => {
                        self.sizes.push(content.size);
                        *place.insert(next)
                    }
                });
            }
        }
        self.of.insert(*digest, numbers.into());
        Ok(())
    }

    /// Returns the number of a file, if any tree that was read has it.
    pub(super) fn number(&self, name: &ObjectName) -> Option<usize> {
        self.numbers.get(name).map(|&number| number as usize)
    }

    /// Returns, for each file by its number, the first of the values that its trees have.
    pub(super) fn first<V: Copy + Ord>(&self, trees: &BTreeMap<Digest, V>) -> Vec<Option<V>> {
        let mut firsts = vec![None; self.sizes.len()];
        for (tree, value) in trees {
            for &number in self.of.get(tree).into_iter().flatten() {
                let first: &mut Option<V> = &mut firsts[number as usize];
                *first = Some(first.map_or(*value, |known| known.min(*value)));
            }
        }
        firsts
    }

    /// Returns how many bytes the files of these trees have, each counted once.
    pub(super) fn bytes<V: Copy + Ord>(&self, trees: &BTreeMap<Digest, V>) -> u64 {
        let of_any = self.first(trees);
        let live = self.sizes.iter().zip(&of_any).filter(|(_, of)| of.is_some());
        live.map(|(size, _)| size).sum()
    }
}
