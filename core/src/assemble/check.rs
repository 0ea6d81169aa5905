//! Every step once more, beside the store's memory and in other surroundings: does it give the same tree? Each starts from the
//! tree that it started from when it was built, so that one which does not is the one that is told.

use std::time::{Duration, SystemTime};

use super::graph::{Failed, Input, Node};
use super::perform::{Perform, Performing};
use super::{Bases, Build, Error, Facing, Request, facts};
use crate::digest::Digest;
use crate::recipe::Verb;
use crate::store::Store;
use crate::sys::{namespace, process};
use crate::tree::Tree;
use crate::watch::{Event, Watch};

/// How far the clocks that count from the start of the machine are put on, in seconds.
const LATER: u64 = 40 * 24 * 3600;

/// A step that has given another tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The recipe, by its place in the list.
    pub node: usize,
    /// The step, from 0.
    pub index: usize,
    /// The step in words.
    pub label: String,
    /// The tree that it gave when it was built.
    pub was: Digest,
    /// The tree that it gave now.
    pub now: Digest,
}

/// Does every step of `nodes`, which are built, once more, and returns those that give another tree. Those with a network are
/// left out: nothing is known of them. The surroundings of this process are others afterwards.
pub fn check(nodes: &[Node<'_>], store: &Store, watch: &dyn Watch) -> Result<Vec<Fault>, Failed> {
    let last = nodes.len().saturating_sub(1);
    let failed = |node: usize| move |error: Error| Failed { node, error };
    let _hold = store.hold(watch).map_err(|error| failed(last)(error.into()))?;
    vary();
    let mut trees: Vec<Digest> = Vec::new();
    let mut faults = Vec::new();
    for (place, node) in nodes.iter().enumerate() {
        let tree = |input: &Input| match input {
            Input::Recipe(index) => trees.get(*index).copied(),
            Input::Tree(tree) => Some(*tree),
        };
        let bases: Bases = node
            .bases
            .iter()
            .filter_map(|(base, input)| Some((base.clone(), tree(input)?)))
            .collect();
        let (tree, found) = one(node, &bases, store, watch).map_err(failed(place))?;
        trees.push(tree);
        faults.extend(found.into_iter().map(|fault| Fault { node: place, ..fault }));
    }
    Ok(faults)
}

/// Makes what a command could learn of the machine other than it was, as far as this process may.
fn vary() {
    // A step that has just been done has times of this very second, and finds the same ones again.
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    std::thread::sleep(
        Duration::from_secs(1).saturating_sub(Duration::from_nanos(now.subsec_nanos().into())),
    );
    std::thread::sleep(Duration::from_millis(20));
    // What one machine refuses, another has: none of these is worth to give up for.
    _ = namespace::own_mount_namespace();
    _ = namespace::later_clocks(LATER);
    _ = process::one_processor();
}

/// Checks one recipe, and returns its tree with what was found.
fn one(
    node: &Node<'_>,
    bases: &Bases,
    store: &Store,
    watch: &dyn Watch,
) -> Result<(Digest, Vec<Fault>), Error> {
    let facing = Facing {
        bases,
        impure: Vec::new(),
        store,
        watch,
    };
    // What was read is to be compared, not what was believed.
    let request = Request {
        reread: true,
        ..node.request
    };
    let build = Build::new(request, facts(&request, store, &())?, facing)?;
    let epoch = build
        .epoch(&std::collections::BTreeMap::new())?
        .unwrap_or_default();
    let known = build.known(epoch)?;
    build.fetch(build.archives().map(|(_, archive)| archive))?;
    let mut performing = Performing::new(request, store, watch).varied();
    let count = build.plan.steps.len();
    let mut faults = Vec::new();
    let befores = std::iter::once(&known.start).chain(&known.trees);
    for (index, (before, after)) in befores.zip(&known.trees).enumerate() {
        let step = &build.plan.steps[index];
        if matches!(&step.verb, Verb::Run(script) if script.network) {
            continue;
        }
        let mut tree = match (index, &build.parent) {
            (0, None) => Tree::new(epoch),
            _ => store.tree(before)?,
        };
        let label = format!("{}, once more", step.label);
        performing.begin(index, count, &label);
        performing
            .perform(Perform { index, step, epoch }, &mut tree)
            .map_err(|error| build.failed(index, error))?;
        watch.see(Event::StepFinished {
            index: index + 1,
            label: &label,
            cached: false,
        });
        let now = tree.digest();
        if now != *after {
            faults.push(Fault {
                node: 0,
                index,
                label: step.label.clone(),
                was: *after,
                now: store.put_tree(&tree)?,
            });
        }
    }
    Ok((known.last(), faults))
}
