//! What stays, decided from [`Facts`] alone.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::facts::{Facts, Files};
use super::{Policy, Reason};
use crate::digest::Digest;

/// What of each folder stays, and why.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Live {
    pub(super) images: BTreeMap<Digest, Reason>,
    pub(super) rootfs: BTreeMap<Digest, Reason>,
    pub(super) trees: BTreeMap<Digest, Reason>,
    pub(super) steps: BTreeMap<Digest, Reason>,
    pub(super) sources: BTreeMap<Digest, Reason>,
    pub(super) builds: BTreeMap<Digest, Reason>,
    pub(super) beside: BTreeMap<Digest, Reason>,
}

impl Facts {
    /// Follows everything from the names, from the leases, and from what is younger than `since`. What is in `without`
    /// (images, steps, sources and what is known of files beside recipes, by their names) is young no longer, no step of
    /// `without` leads anywhere, and nothing is known of files.
    pub(super) fn reach(&self, since: i64, without: &BTreeSet<Digest>) -> Live {
        let mut by_result: HashMap<Digest, Vec<Digest>> = HashMap::new();
        for (key, (record, _)) in &self.steps {
            if !without.contains(key) {
                by_result.entry(record.tree).or_default().push(*key);
            }
        }
        let young = |digest: &Digest, time: i64| time > since && !without.contains(digest);
        let mut live = Live::default();
        for reason in [Reason::Named, Reason::InUse, Reason::Young] {
            let images: Vec<Digest> = match reason {
                Reason::Named => self.named.iter().copied().collect(),
                Reason::InUse => self.leased.iter().copied().collect(),
                _ => {
                    // One whose tree is not there is nothing that anybody could still want.
                    let whole = self
                        .images
                        .iter()
                        .filter(|(_, (tree, _))| self.trees.contains_key(tree));
                    let young = whole.filter(|(id, (_, item))| young(id, item.time));
                    young.map(|(id, _)| *id).collect()
                }
            };
            let mut trees = Vec::new();
            for image in images {
                live.images.entry(image).or_insert(reason);
                if let Some((tree, _)) = self.images.get(&image) {
                    live.rootfs.entry(*tree).or_insert(reason);
                    trees.push(*tree);
                }
            }
            if reason == Reason::Young {
                let steps = self.steps.iter().filter(|(key, (_, item))| young(key, item.time));
                trees.extend(steps.map(|(_, (record, _))| record.tree));
                for (source, item) in &self.sources {
                    if young(source, item.time) {
                        live.sources.entry(*source).or_insert(reason);
                    }
                }
            }
            self.follow(&by_result, trees, reason, &mut live);
        }
        let beside = self.beside.keys().filter(|name| !without.contains(name));
        live.beside = beside.map(|name| (*name, Reason::There)).collect();
        for (name, tree) in &self.builds {
            if let Some(reason) = live.trees.get(tree) {
                live.builds.insert(*name, *reason);
            }
        }
        live
    }

    /// Adds, to these trees, the steps that gave them, what those started from, and so on back.
    fn follow(
        &self,
        by_result: &HashMap<Digest, Vec<Digest>>,
        mut trees: Vec<Digest>,
        reason: Reason,
        live: &mut Live,
    ) {
        while let Some(tree) = trees.pop() {
            if live.trees.contains_key(&tree) {
                continue;
            }
            live.trees.insert(tree, reason);
            for key in by_result.get(&tree).into_iter().flatten() {
                let (record, _) = &self.steps[key];
                live.steps.insert(*key, reason);
                for source in record.named_digests() {
                    live.sources.entry(source).or_insert(reason);
                }
                trees.extend(record.from);
                trees.extend(record.part());
            }
        }
    }

    /// Returns what stays if that may have at most `most` bytes. What only saves work goes for it, the oldest first: what
    /// stays for its age alone, then what images with a name or in use were made of.
    pub(super) fn within(&self, most: u64, policy: &Policy, files: &Files) -> Live {
        let whole = self.reach(policy.since, &BTreeSet::new());
        let mut dispensable = Vec::new();
        let mut add = |digest: &Digest, reason: Option<&Reason>, time: i64| {
            if let Some(reason) = reason {
                dispensable.push((*reason != Reason::Young, time, *digest));
            }
        };
        for (id, (_, item)) in &self.images {
            add(
                id,
                whole.images.get(id).filter(|&&reason| reason == Reason::Young),
                item.time,
            );
        }
        // One that a step still names stays with that step.
        for (source, item) in &self.sources {
            add(source, whole.sources.get(source), item.time);
        }
        for (key, (_, item)) in &self.steps {
            add(key, whole.steps.get(key), item.time);
        }
        for (name, item) in &self.beside {
            add(name, whole.beside.get(name), item.time);
        }
        dispensable.sort();
        let without = |count: usize| {
            let gone: BTreeSet<Digest> = dispensable[..count].iter().map(|(.., digest)| *digest).collect();
            self.reach(policy.since, &gone)
        };
        let fits = |live: &Live| self.bytes(live, policy, files) <= most;
        if fits(&whole) {
            return whole;
        }
        // The fewest whose going is enough; all of them, where even that is not.
        let (mut low, mut high) = (0, dispensable.len());
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            match fits(&without(middle)) {
                true => high = middle,
                false => low = middle,
            }
        }
        without(high)
    }

    fn bytes(&self, live: &Live, policy: &Policy, files: &Files) -> u64 {
        let trees = live.trees.keys().filter_map(|tree| self.trees.get(tree));
        let sources = live.sources.keys().filter_map(|source| self.sources.get(source));
        let images = live.images.keys().filter_map(|image| self.images.get(image));
        let steps = live.steps.keys().filter_map(|key| self.steps.get(key));
        let beside = live.beside.keys().filter_map(|name| self.beside.get(name));
        let items = trees
            .chain(sources)
            .chain(beside)
            .chain(images.map(|(_, item)| item))
            .chain(steps.map(|(_, item)| item));
        let documents: u64 = items.map(|item| item.bytes).sum();
        let caches = if policy.caches { 0 } else { self.caches };
        documents + caches + files.bytes(&live.trees)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StepRecord;
    use crate::store::gc::facts::Item;

    fn digest(name: &str) -> Digest {
        Digest::of(name.as_bytes())
    }

    fn item(time: i64) -> Item {
        Item { time, bytes: 10 }
    }

    /// Images `old` (at 100) and `new` (at 200), each of one tree, made from the tree `base` of the archive `source`.
    fn facts() -> Facts {
        let mut facts = Facts::default();
        let step = |tree: &str, from: Option<&str>, source: &str| StepRecord {
            tree: digest(tree),
            from: from.map(digest),
            ingredients: vec![("archive".into(), digest(source).to_string())],
        };
        facts
            .steps
            .insert(digest("s0"), (step("base", None, "source"), item(90)));
        for (image, tree, key, time) in [("old", "t1", "s1", 100), ("new", "t2", "s2", 200)] {
            facts.images.insert(digest(image), (digest(tree), item(time)));
            facts
                .steps
                .insert(digest(key), (step(tree, Some("base"), "-"), item(time)));
        }
        for tree in ["base", "t1", "t2"] {
            facts.trees.insert(digest(tree), item(100));
        }
        facts.sources.insert(digest("source"), item(90));
        facts
    }

    #[test]
    fn what_is_young_stays_with_all_that_it_was_made_of() {
        let live = facts().reach(150, &BTreeSet::new());
        assert_eq!(live.images, BTreeMap::from([(digest("new"), Reason::Young)]));
        let trees = [digest("base"), digest("t2")];
        assert_eq!(
            live.trees,
            trees.into_iter().map(|tree| (tree, Reason::Young)).collect()
        );
        assert!(live.sources.contains_key(&digest("source")));
        assert_eq!(facts().reach(200, &BTreeSet::new()), Live::default());
    }

    #[test]
    fn an_image_without_a_tree_is_not_spared_for_its_age() {
        let mut facts = facts();
        facts.trees.remove(&digest("t2"));
        assert!(facts.reach(150, &BTreeSet::new()).images.is_empty());
        facts.named.insert(digest("new"));
        assert_eq!(facts.reach(150, &BTreeSet::new()).images.len(), 1);
    }

    #[test]
    fn the_first_reason_is_said() {
        let mut facts = facts();
        facts.leased.insert(digest("new"));
        facts.named.insert(digest("old"));
        let live = facts.reach(0, &BTreeSet::new());
        assert_eq!(live.images[&digest("old")], Reason::Named);
        assert_eq!(live.trees[&digest("base")], Reason::Named);
        assert_eq!(live.trees[&digest("t2")], Reason::InUse);
        assert_eq!(live.steps[&digest("s2")], Reason::InUse);
    }

    #[test]
    fn a_step_that_was_not_finished_to_an_image_stays_while_it_is_young() {
        let mut facts = facts();
        facts.images.clear();
        let live = facts.reach(150, &BTreeSet::new());
        assert!(
            live.rootfs.is_empty() && live.trees.contains_key(&digest("base")),
            "{live:?}"
        );
    }

    #[test]
    fn to_make_room_the_oldest_goes_first_and_no_name() {
        let mut facts = facts();
        let files = Files::default();
        let policy = Policy {
            since: 0,
            ..Policy::default()
        };
        // Two images, three steps, three trees and a source, of ten bytes each.
        let within = |facts: &Facts, most| facts.within(most, &policy, &files);
        assert_eq!(within(&facts, 90).images.len(), 2);
        let less = within(&facts, 89);
        assert!(
            less.trees.len() == 3 && less.sources.len() == 1,
            "young steps keep them: {less:?}"
        );
        assert!(
            !less.images.contains_key(&digest("old")) || less.steps.len() < 3,
            "{less:?}"
        );
        assert_eq!(within(&facts, 0), Live::default());
        facts.named.insert(digest("old"));
        let least = within(&facts, 0);
        assert_eq!(least.images, BTreeMap::from([(digest("old"), Reason::Named)]));
        assert_eq!(least.trees, BTreeMap::from([(digest("t1"), Reason::Named)]));
        assert!(least.steps.is_empty() && least.sources.is_empty(), "{least:?}");
    }
}
