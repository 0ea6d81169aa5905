//! What a build would do, as far as that can be told before it is done.

use std::collections::BTreeMap;

use super::graph::{Failed, Input, Node};
use super::{Bases, Build, Error, Facing, facts};
use crate::digest::Digest;
use crate::plan::resolve;
use crate::store::Store;
use crate::watch::Watch;

/// What would be done of one recipe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forecast {
    /// Its steps in words, each with what would become of it.
    pub steps: Vec<(String, Fate)>,
    /// Its tree, where the store knows it.
    pub tree: Option<Digest>,
}

/// What would become of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Its result is known.
    Cached,
    /// It would be done.
    Done,
    /// It would be done, unless what comes before it gives a tree that it was done from once.
    Open,
}

/// Looks at `nodes` in their order. Nothing is fetched and nothing is done; what lies beside the recipes is read.
pub fn forecast(nodes: &[Node<'_>], store: &Store, watch: &dyn Watch) -> Result<Vec<Forecast>, Failed> {
    let last = nodes.len().saturating_sub(1);
    let _hold = store.hold(watch).map_err(|error| Failed {
        node: last,
        error: error.into(),
    })?;
    let mut forecasts: Vec<Forecast> = Vec::new();
    for (place, node) in nodes.iter().enumerate() {
        let one = one(node, &forecasts, store, watch);
        forecasts.push(one.map_err(|error| Failed { node: place, error })?);
    }
    Ok(forecasts)
}

fn one(node: &Node<'_>, before: &[Forecast], store: &Store, watch: &dyn Watch) -> Result<Forecast, Error> {
    let tree = |input: &Input| match input {
        Input::Recipe(index) => before.get(*index)?.tree,
        Input::Tree(tree) => Some(*tree),
    };
    let bases: Bases = node
        .bases
        .iter()
        .filter_map(|(base, input)| Some((base.clone(), tree(input)?)))
        .collect();
    let labels = resolve::labels(node.request.recipe);
    if bases.len() < node.bases.len() {
        let steps = labels.into_iter().map(|label| (label, Fate::Open));
        return Ok(Forecast {
            steps: steps.collect(),
            tree: None,
        });
    }
    let facing = Facing {
        bases: &bases,
        impure: Vec::new(),
        store,
        watch,
    };
    let build = Build::new(node.request, facts(&node.request, store, watch)?, facing)?;
    let known = match build.epoch(&BTreeMap::new())? {
        Some(epoch) => Some(build.known(epoch)?),
        None => None,
    };
    let cached = known.as_ref().map_or(0, |known| known.trees.len());
    let steps = labels.into_iter().enumerate().map(|(index, label)| {
        let fate = match index {
            index if index < cached => Fate::Cached,
            index if index == cached => Fate::Done,
            _ => Fate::Open,
        };
        (label, fate)
    });
    let steps: Vec<_> = steps.collect();
    Ok(Forecast {
        tree: known.filter(|_| cached == steps.len()).map(|known| known.last()),
        steps,
    })
}
