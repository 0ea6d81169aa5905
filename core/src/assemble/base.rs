//! What a recipe takes from other trees: the tree that it starts from, and the parts that its steps take.

use super::{Bases, Error, Request, perform};
use crate::digest::Digest;
use crate::entry::{Entry, Kind};
use crate::path::{BadPath, TreePath};
use crate::plan::key;
use crate::recipe::{Base, Recipe, Verb};
use crate::store::{StepRecord, Store};
use crate::tree::Tree;

/// The tree that a recipe with `from` starts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Parent {
    /// As the other recipe gives it.
    pub(super) tree: Digest,
    /// The newest time in it (seconds since 1970 UTC).
    pub(super) newest: i64,
}

/// Returns the tree that the recipe starts from, if it starts from any.
pub(super) fn parent(recipe: &Recipe, bases: &Bases, store: &Store) -> Result<Option<Parent>, Error> {
    let Some(parent) = &recipe.parent else {
        return Ok(None);
    };
    let tree = tree_of(&parent.base, bases)?;
    let newest = newest(&tree, store)?;
    Ok(Some(Parent { tree, newest }))
}

/// Returns the part that each step takes from another tree, by the step's place from 0, and has the store remember it.
pub(super) fn parts(
    request: &Request<'_>,
    bases: &Bases,
    store: &Store,
) -> Result<Vec<(usize, Digest)>, Error> {
    let mut parts = Vec::new();
    for (index, step) in request.recipe.steps.iter().enumerate() {
        let Verb::Take { from, path, .. } = &step.verb else {
            continue;
        };
        let tree = tree_of(from, bases)?;
        let part = remembered(&tree, &path.to_string(), store, |tree| {
            // Of the path, the folders are followed, and the last name is taken as it is.
            let failed = |source| Error::Step {
                index: index + 1,
                label: format!("copy {path} of {from}"),
                source: Box::new(source),
            };
            let real = match (path.parent(), path.name()) {
                (Some(folder), Some(name)) => {
                    let folder = tree.follow(&folder).map_err(|error| failed(error.into()))?;
                    folder.join(name).map_err(|error| failed(error.into()))?
                }
                _ => TreePath::root(),
            };
            let part = tree.part(&real).map_err(|error| failed(error.into()))?;
            part.ok_or_else(|| {
                failed(perform::Error::NotInBase {
                    path: path.clone(),
                    base: from.to_string(),
                })
            })
        })?;
        parts.push((index, part));
    }
    Ok(parts)
}

/// Returns the newest time in a tree of the store, which is remembered there.
pub(super) fn newest(tree: &Digest, store: &Store) -> Result<i64, Error> {
    if let Some(newest) = store.newest(tree)? {
        return Ok(newest);
    }
    let newest = store.tree(tree)?.newest();
    store.set_newest(tree, newest)?;
    Ok(newest)
}

/// Returns the tree in which nothing is later than `epoch`, and has the store remember it.
pub(super) fn not_later(parent: &Parent, epoch: i64, store: &Store) -> Result<Digest, Error> {
    if parent.newest <= epoch {
        return Ok(parent.tree);
    }
    remembered(&parent.tree, &format!("not later than {epoch}"), store, |tree| {
        let stage = store.stage()?;
        let mut earlier = Tree::new(epoch);
        let mut layer = earlier.layer(epoch);
        // The whole of a tree is the part at its root.
        let part = tree.part(&TreePath::root()).map_err(bad_path)?;
        let part = part.unwrap_or_else(|| Tree::new(epoch));
        let root = TreePath::root();
        for entry in part.part_entries(&root).map_err(bad_path)? {
            let meta = entry.meta.clone().not_later_than(epoch);
            let dressed = match &entry.kind {
                Kind::File(content) if meta != entry.meta => {
                    let mut object = store.open_object(content, &entry.meta)?;
                    Kind::File(stage.add_file(&mut object, &meta)?)
                }
                kind => kind.clone(),
            };
            layer
                .lay(Entry {
                    meta,
                    kind: dressed,
                    ..entry
                })
                .map_err(|error| Error::Start(Box::new(error.into())))?;
        }
        stage.commit()?;
        Ok(earlier)
    })
}

fn bad_path(source: BadPath) -> Error {
    Error::Start(Box::new(source.into()))
}

/// Returns the tree that `make` makes of the tree `from`, which the store remembers by `how`.
fn remembered(
    from: &Digest,
    how: &str,
    store: &Store,
    make: impl FnOnce(&Tree) -> Result<Tree, Error>,
) -> Result<Digest, Error> {
    let ingredients = vec![
        ("verb".to_owned(), "part".to_owned()),
        ("part".to_owned(), how.to_owned()),
        ("tree".to_owned(), from.to_string()),
    ];
    let key = key::key(&ingredients);
    if let Some(record) = store.step(&key)? {
        return Ok(record.tree);
    }
    let tree = store.put_tree(&make(&store.tree(from)?)?)?;
    let record = StepRecord {
        tree,
        from: Some(*from),
        ingredients,
    };
    store.put_step(&key, &record)?;
    Ok(tree)
}

/// Returns the tree of a base, which whoever built it has named.
fn tree_of(base: &Base, bases: &Bases) -> Result<Digest, Error> {
    let tree = bases.get(base).copied();
    tree.ok_or_else(|| Error::NoBase {
        base: base.to_string(),
    })
}
