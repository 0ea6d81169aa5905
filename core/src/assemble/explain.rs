//! Why a step is done again: what of all that went into its key is not as it was the last time.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::Request;
use super::beside::Folder;
use crate::digest::Digest;
use crate::path::TreePath;
use crate::plan::PlannedStep;
use crate::plan::key::Ingredients;
use crate::recipe::{Granted, Verb};
use crate::store::{PastBuild, PastStep, Store};
use crate::tree::{NodeKind, Tree};

/// One thing that is not as it was the last time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reason {
    /// Nothing is known of an earlier build.
    First,
    /// There was no such step.
    New,
    /// Nothing has changed, but the store does not hold the result any more.
    Forgotten,
    /// The step before gave another tree.
    Before {
        /// That step, from 1.
        index: usize,
    },
    /// What the recipe starts from changed.
    Tree {
        /// What it starts from, as it names that; `None`: nothing, which has another time than before.
        of: Option<String>,
        /// How many paths differ, and the first of them, where the old tree is still there.
        changed: Option<(usize, TreePath)>,
    },
    /// An argument that the step uses.
    Argument {
        /// Its name.
        name: String,
        /// Its value the last time.
        was: String,
        /// Its value now.
        is: String,
    },
    /// A file or folder beside the recipe, or of another tree.
    Copied {
        /// What, as the recipe names it.
        path: String,
        /// How many files of a folder changed, and the first of them, as far as that can be told.
        changed: Option<(usize, TreePath)>,
    },
    /// An archive.
    Archive {
        /// Its name.
        name: String,
    },
    /// Something that the recipe says.
    Value {
        /// What it is called in the key.
        name: String,
        /// How it was and how it is, where that is short.
        values: Option<(String, String)>,
    },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let files = |count: usize| match count {
            1 => "1 file".to_owned(),
            count => format!("{count} files"),
        };
        match self {
            Self::First => f.write_str("nothing is known of an earlier build"),
            Self::New => f.write_str("the step is new"),
            Self::Forgotten => f.write_str("its result is no longer in the store"),
            Self::Before { index } => write!(f, "step {index} gave another tree"),
            Self::Tree { of: None, .. } => f.write_str("the time that the files may have at most changed"),
            Self::Tree {
                of: Some(of),
                changed,
            } => {
                write!(f, "the tree of `{of}` changed")?;
                match changed {
                    Some((count, first)) => write!(f, ": {}, first `{first}`", files(*count)),
                    None => Ok(()),
                }
            }
            Self::Argument { name, was, is } => write!(f, "argument `{name}` was {was:?}, is {is:?}"),
            Self::Copied { path, changed } => {
                write!(f, "`{path}` changed")?;
                match changed {
                    Some((count, first)) if !first.is_root() => {
                        write!(
                            f,
                            ": {}, first `{}`",
                            files(*count),
                            crate::path::shown(first.as_bytes())
                        )
                    }
                    _ => Ok(()),
                }
            }
            Self::Archive { name } => write!(f, "the archive `{name}` changed"),
            Self::Value {
                name,
                values: Some((was, is)),
            } => write!(f, "`{name}` was {was}, is {is}"),
            Self::Value { name, values: None } => write!(f, "`{name}` changed"),
        }
    }
}

/// A step as it is now.
pub(super) struct Now<'a> {
    /// Its place, from 0.
    pub(super) index: usize,
    pub(super) step: &'a PlannedStep,
    pub(super) ingredients: &'a Ingredients,
}

/// Returns why a step that the store has no result of is done, seen from the last build.
pub(super) fn reasons(
    now: &Now<'_>,
    past: Option<&PastBuild>,
    request: &Request<'_>,
    store: &Store,
) -> Vec<Reason> {
    let Some(past) = past else {
        return vec![Reason::First];
    };
    let Some(then) = past.steps.get(now.index) else {
        return vec![Reason::New];
    };
    let names = differing(&then.ingredients, now.ingredients);
    let verb = |list: &Ingredients| list.iter().find(|(name, _)| name == "verb").cloned();
    if verb(&then.ingredients) != verb(now.ingredients) {
        return vec![Reason::New];
    }
    let mut reasons: Vec<Reason> = arguments(now, past, request);
    let told = !reasons.is_empty();
    for name in names {
        match name.as_str() {
            "tree" if now.index > 0 => reasons.push(Reason::Before { index: now.index }),
            "tree" => reasons.push(started(then, now, request, store)),
            "copied" => reasons.push(copied(then, now, request, store)),
            "mount" => reasons.extend(mounted(then, now)),
            "archive" => reasons.extend(archives(then, now)),
            // What an argument is put into differs with it.
            _ if told => {}
            _ => reasons.push(value(name, then, now)),
        }
    }
    if reasons.is_empty() {
        reasons.push(Reason::Forgotten);
    }
    reasons
}

/// Returns the names of the ingredients whose values differ, each once, in order.
fn differing(then: &Ingredients, now: &Ingredients) -> Vec<String> {
    let values = |list: &Ingredients| {
        let mut by_name: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, value) in list {
            by_name.entry(name.clone()).or_default().push(value.clone());
        }
        by_name
    };
    let (old, new) = (values(then), values(now));
    let mut names: Vec<String> = Vec::new();
    for (name, _) in now.iter().chain(then) {
        if old.get(name) != new.get(name) && !names.contains(name) {
            names.push(name.clone());
        }
    }
    names
}

fn arguments(now: &Now<'_>, past: &PastBuild, request: &Request<'_>) -> Vec<Reason> {
    // Steps of the recipe's text; a start from a folder or an archive is one of them.
    let used = request.recipe.steps.get(now.index).map(|step| &step.args);
    let used = used.into_iter().flatten();
    let changed = used.filter_map(|name| {
        let was = past
            .args
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, was)| was)?;
        let is = request.recipe.args.get(name)?;
        (was != is).then(|| Reason::Argument {
            name: name.clone(),
            was: was.clone(),
            is: is.clone(),
        })
    });
    changed.collect()
}

fn started(then: &PastStep, now: &Now<'_>, request: &Request<'_>, store: &Store) -> Reason {
    let of = request
        .recipe
        .parent
        .as_ref()
        .map(|parent| parent.base.to_string());
    let changed = match (start(&then.ingredients, store), start(now.ingredients, store)) {
        (Some(old), Some(new)) => {
            let paths = differing_paths(&old, &new);
            paths.first().cloned().map(|first| (paths.len(), first))
        }
        _ => None,
    };
    Reason::Tree { of, changed }
}

/// Returns the tree that a step with these ingredients starts from.
fn start(ingredients: &Ingredients, store: &Store) -> Option<Tree> {
    let (_, digest) = ingredients.iter().find(|(name, _)| name == "tree")?;
    store.tree(&digest.parse::<Digest>().ok()?).ok()
}

/// Returns the empty tree, which no store holds, where a step with these ingredients starts from that.
fn nothing(ingredients: &Ingredients) -> Option<Tree> {
    let value = |name: &str| ingredients.iter().find(|(known, _)| known == name);
    let empty = Tree::new(value("epoch")?.1.parse().ok()?);
    (value("tree")?.1 == empty.digest().to_string()).then_some(empty)
}

/// Returns every path that one tree has in another way than the other, or not at all; folders count where they are gone
/// or new.
fn differing_paths(old: &Tree, new: &Tree) -> Vec<TreePath> {
    let gone = old.iter().filter(|(path, _)| new.get(path).is_none());
    let other = new.iter().filter(|(path, node)| match old.get(path) {
        Some(known) => known.meta != node.meta || known.kind_without_group() != node.kind_without_group(),
        None => true,
    });
    let mut paths: Vec<TreePath> = gone
        .chain(other)
        .filter(|(_, node)| !node.is_folder())
        .map(|(path, _)| path.clone())
        .collect();
    if paths.is_empty() {
        let folders = new.iter().filter(|(path, node)| old.get(path) != Some(*node));
        paths = folders.map(|(path, _)| path.clone()).collect();
    }
    paths.sort();
    paths
}

fn copied(then: &PastStep, now: &Now<'_>, request: &Request<'_>, store: &Store) -> Reason {
    match &now.step.verb {
        Verb::Copy { from, into, .. } => Reason::Copied {
            path: from.clone(),
            changed: changed_beside(then, from, into, request, store),
        },
        Verb::Take { from, path, .. } => Reason::Copied {
            path: format!("{path}` of `{from}"),
            changed: None,
        },
        _ => Reason::Value {
            name: "copied".to_owned(),
            values: None,
        },
    }
}

/// Returns how many files below `from` beside the recipe are not in the tree `old` at `into` as they are now, or are there and
/// are no longer beside the recipe, and the first of them.
fn changed_beside(
    then: &PastStep,
    from: &str,
    into: &TreePath,
    request: &Request<'_>,
    store: &Store,
) -> Option<(usize, TreePath)> {
    let old = store.tree(&then.tree).ok()?;
    let folder = Folder::new(request, store);
    let listing = folder.list(from).ok()?;
    let found = folder.contents(&listing, from).ok()?;
    let mut changed = BTreeSet::new();
    let mut taken = BTreeSet::new();
    for (entry, found) in listing.entries().iter().zip(found) {
        let path = into.join_path(&entry.path).ok()?;
        if let Some(found) = found {
            let same = old.get(&path).is_some_and(|node| {
                matches!(&node.kind, NodeKind::File { content, .. } if content.digest == found.content.digest)
            });
            if !same {
                changed.insert(entry.path.clone());
            }
        }
        taken.insert(path);
    }
    // What was there before the step came from elsewhere.
    let before = start(&then.ingredients, store).or_else(|| nothing(&then.ingredients));
    for (path, node) in old.iter().filter(|(path, _)| path.is_within(into)) {
        let brought = before
            .as_ref()
            .is_some_and(|before| before.get(path) != Some(node));
        if brought && !node.is_folder() && !taken.contains(path) {
            changed.insert(path.rebased(into, &TreePath::root()).ok()?);
        }
    }
    let first = changed.first()?.clone();
    Some((changed.len(), first))
}

/// Returns what is mounted from beside the recipe in another way than before.
fn mounted(then: &PastStep, now: &Now<'_>) -> Vec<Reason> {
    let Verb::Run(script) = &now.step.verb else {
        return Vec::new();
    };
    let known = |value: &String| {
        then.ingredients
            .iter()
            .any(|(name, old)| name == "mount" && old == value)
    };
    let values = now.ingredients.iter().filter(|(name, _)| name == "mount");
    let changed = script
        .mounts
        .iter()
        .zip(values)
        .filter(|(_, (_, value))| !known(value));
    let reasons: Vec<Reason> = changed
        .map(|(mount, _)| match &mount.granted {
            Granted::Copy(path) => Reason::Copied {
                path: path.clone(),
                changed: None,
            },
            _ => Reason::Value {
                name: "mounts".to_owned(),
                values: None,
            },
        })
        .collect();
    match reasons.is_empty() {
        true => vec![Reason::Value {
            name: "mounts".to_owned(),
            values: None,
        }],
        false => reasons,
    }
}

fn archives(then: &PastStep, now: &Now<'_>) -> Vec<Reason> {
    let known: Vec<&String> = then
        .ingredients
        .iter()
        .filter(|(name, _)| name == "archive")
        .map(|(_, value)| value)
        .collect();
    let new = now
        .step
        .archives
        .iter()
        .filter(|archive| !known.contains(&&archive.sha256.to_string()));
    let mut reasons: Vec<Reason> = new
        .map(|archive| Reason::Archive {
            name: archive.name.clone(),
        })
        .collect();
    if reasons.is_empty() {
        reasons.push(Reason::Value {
            name: "the list of archives".to_owned(),
            values: None,
        });
    }
    reasons
}

/// Says how something that the recipe says was and is: digests, which stand for long texts, say nothing.
fn value(name: String, then: &PastStep, now: &Now<'_>) -> Reason {
    let one = |list: &Ingredients| -> Option<String> {
        let mut values = list
            .iter()
            .filter(|(known, _)| *known == name)
            .map(|(_, value)| value);
        match (values.next(), values.next()) {
            (Some(value), None) if value.parse::<Digest>().is_err() && value.len() <= 60 => {
                Some(crate::path::shown(value.as_bytes()))
            }
            _ => None,
        }
    };
    let values = one(&then.ingredients).zip(one(now.ingredients));
    let name = match name.as_str() {
        "word" | "shell" => "run".to_owned(),
        _ => name,
    };
    Reason::Value { name, values }
}
