//! Several recipes, each of which may take something from the trees of those before it: what depends on nothing that is
//! still being built is built at once.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZero;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use super::{Bases, Build, Built, Error, Facing, Request, facts, prefetch};
use crate::digest::Digest;
use crate::recipe::Base;
use crate::store::{ImageId, Lease, Store};
use crate::watch::{Event, Watch};

/// A recipe with what it takes from others.
#[derive(Debug, Clone)]
pub struct Node<'a> {
    /// What is to be built.
    pub request: Request<'a>,
    /// Where each of its bases comes from.
    pub bases: BTreeMap<Base, Input>,
    /// Why those of its bases that are images of the store are impure, as far as they are.
    pub impure: Vec<String>,
}

/// Where a base comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// The recipe at this place of the list, which comes before the one that takes something from it.
    Recipe(usize),
    /// A tree that the store holds.
    Tree(Digest),
}

/// Which recipe there is no tree of, and why.
#[derive(Debug)]
pub struct Failed {
    /// Its place in the list.
    pub node: usize,
    /// Why.
    pub error: Error,
}

/// What is known of the recipes so far.
#[derive(Debug)]
struct Progress {
    /// The tree of each that is built.
    trees: Vec<Option<Digest>>,
    /// Why each is impure.
    impure: Vec<Vec<String>>,
    /// Steps in all, and those that were known.
    steps: usize,
    cached: usize,
    /// How many are being built.
    running: usize,
    failed: Option<Failed>,
}

/// The list, and whoever waits for one of it.
struct Graph<'g> {
    nodes: &'g [Node<'g>],
    at_once: usize,
    /// The image that the last is to give, if it is to give one that is known.
    expected: Option<ImageId>,
    progress: Mutex<Progress>,
    changed: Condvar,
    store: &'g Store,
    watch: &'g dyn Watch,
}

/// Names the recipe in every event.
struct Named<'a> {
    recipe: &'a str,
    inner: &'a dyn Watch,
}

impl Watch for Named<'_> {
    fn see(&self, event: Event<'_>) {
        self.inner.see(Event::In {
            recipe: self.recipe,
            event: &event,
        });
    }
}

/// Builds the last of `nodes` and gives its image the name that it asks for, and before it those that it takes something
/// from, which stay trees without a name. Each comes behind all that it takes something from.
///
/// The store is as it was before unless this succeeds, but for the results of steps that were done.
pub fn assemble(nodes: &[Node<'_>], store: &Store, watch: &dyn Watch) -> Result<Built, Failed> {
    assemble_for(nodes, None, store, watch, |_| Ok(())).map(|(built, ())| built)
}

/// The same for an image that there was already: where the last of `nodes` gives another than `expected`, no name is given.
pub fn assemble_again(
    nodes: &[Node<'_>],
    expected: Option<ImageId>,
    store: &Store,
    watch: &dyn Watch,
) -> Result<Built, Failed> {
    assemble_for(nodes, expected, store, watch, |_| Ok(())).map(|(built, ())| built)
}

/// The same for a run: the image stays as long as the lease is held, whatever becomes of its name.
pub fn assemble_leased(
    nodes: &[Node<'_>],
    store: &Store,
    watch: &dyn Watch,
) -> Result<(Built, Lease), Failed> {
    assemble_for(nodes, None, store, watch, |built| Ok(store.lease(&built.image)?))
}

/// Builds, and then does `take`, before anything that is built can be collected.
fn assemble_for<T>(
    nodes: &[Node<'_>],
    expected: Option<ImageId>,
    store: &Store,
    watch: &dyn Watch,
    take: impl FnOnce(&Built) -> Result<T, Error>,
) -> Result<(Built, T), Failed> {
    let last = nodes.len().saturating_sub(1);
    let failed = |error| Failed { node: last, error };
    let _hold = store.hold(watch).map_err(|error| failed(error.into()))?;
    let built = build(nodes, expected, store, watch)?;
    let taken = take(&built).map_err(failed)?;
    Ok((built, taken))
}

/// Builds the list, which is not empty, while the store is held.
fn build(
    nodes: &[Node<'_>],
    expected: Option<ImageId>,
    store: &Store,
    watch: &dyn Watch,
) -> Result<Built, Failed> {
    let last = nodes.len().saturating_sub(1);
    let graph = Graph {
        nodes,
        at_once: thread::available_parallelism().map_or(1, NonZero::get),
        expected,
        progress: Mutex::new(Progress {
            trees: vec![None; nodes.len()],
            impure: vec![Vec::new(); nodes.len()],
            steps: 0,
            cached: 0,
            running: 0,
            failed: None,
        }),
        changed: Condvar::new(),
        store,
        watch,
    };
    let built = thread::scope(|scope| {
        let graph = &graph;
        for index in 0..last {
            // Where no thread can be had, whoever needs this one builds it.
            let thread = thread::Builder::new().name("recipe".into());
            if thread.spawn_scoped(scope, move || graph.base(index)).is_err() {
                graph.base(index);
            }
        }
        graph.last(last)
    });
    let progress = graph
        .progress
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    match (progress.failed, built) {
        (Some(failed), _) => Err(failed),
        (None, Some(Ok(built))) => Ok(Built {
            steps: built.steps + progress.steps,
            cached: built.cached + progress.cached,
            unchanged: built.unchanged && progress.cached == progress.steps,
            ..built
        }),
        (None, Some(Err(error))) => Err(Failed { node: last, error }),
        (None, None) => Err(Failed {
            node: last,
            error: Error::NoBase {
                base: "the list".into(),
            },
        }),
    }
}

impl Graph<'_> {
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Builds a recipe for the sake of others.
    fn base(&self, index: usize) {
        let node = &self.nodes[index];
        let watch = Named {
            recipe: node.request.name,
            inner: self.watch,
        };
        let Some(outcome) = self.turn(index, &watch, |build| build.tree()) else {
            return;
        };
        let mut progress = self.progress();
        match outcome {
            Ok(grown) => {
                progress.trees[index] = Some(grown.tree);
                progress.impure[index] = grown.impure;
                progress.steps += grown.steps;
                progress.cached += grown.cached;
            }
            Err(error) => self.fail(&mut progress, index, error),
        }
        drop(progress);
        self.changed.notify_all();
    }

    /// Builds the recipe that everything is for; `None`: another failed.
    fn last(&self, index: usize) -> Option<Result<Built, Error>> {
        self.turn(index, self.watch, |build| build.image(self.expected))
    }

    fn fail(&self, progress: &mut Progress, node: usize, error: Error) {
        progress.failed.get_or_insert(Failed { node, error });
    }

    /// Waits until all that a recipe takes something from is there, and does `work` to it; `None`: that failed.
    fn turn<T>(
        &self,
        index: usize,
        watch: &dyn Watch,
        work: impl FnOnce(&Build<'_>) -> Result<T, Error>,
    ) -> Option<Result<T, Error>> {
        let node = &self.nodes[index];
        let prepared = facts(&node.request, self.store, watch)
            .map_err(Error::from)
            .and_then(|facts| {
                if !node.bases.is_empty() {
                    prefetch(&node.request, &facts, self.store, watch)?;
                }
                Ok(facts)
            });
        let (bases, impure) = self.wait(node)?;
        let outcome = prepared
            .and_then(|facts| {
                let facing = Facing {
                    bases: &bases,
                    impure,
                    store: self.store,
                    watch,
                };
                Build::new(node.request, facts, facing)
            })
            .and_then(|build| work(&build));
        self.progress().running -= 1;
        self.changed.notify_all();
        Some(outcome)
    }

    /// Waits for the bases of a recipe and for its turn.
    fn wait(&self, node: &Node<'_>) -> Option<(Bases, Vec<String>)> {
        let mut progress = self.progress();
        loop {
            if progress.failed.is_some() {
                return None;
            }
            let tree = |input: &Input| match input {
                Input::Recipe(index) => progress.trees.get(*index).copied().flatten(),
                Input::Tree(tree) => Some(*tree),
            };
            let bases: Bases = node
                .bases
                .iter()
                .filter_map(|(base, input)| Some((base.clone(), tree(input)?)))
                .collect();
            if bases.len() == node.bases.len() && progress.running < self.at_once {
                progress.running += 1;
                let impure = inherited(node, &progress.impure);
                return Some((bases, impure));
            }
            progress = self
                .changed
                .wait(progress)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Returns why the bases of `node` are impure, each reason once, in an order that does not depend on who was built first.
fn inherited(node: &Node<'_>, known: &[Vec<String>]) -> Vec<String> {
    let recipes = node.bases.values().filter_map(|input| match input {
        Input::Recipe(index) => known.get(*index),
        Input::Tree(_) => None,
    });
    let all: BTreeSet<&String> = recipes.chain([&node.impure]).flatten().collect();
    all.into_iter().cloned().collect()
}
