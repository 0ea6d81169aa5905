//! Two whole trees → the differences, sorted by path: all that makes their digests differ. Pure.

use std::collections::BTreeMap;

use super::diff::{Difference, Field, What, kind_name};
use super::{Group, Node, NodeKind, Tree};
use crate::path::TreePath;

/// Returns how `now` differs from `was`. Of a folder that is gone, what was in it is not told.
pub fn compare(was: &Tree, now: &Tree) -> Vec<Difference> {
    let (old_names, new_names) = (first_names(was), first_names(now));
    let mut found = Vec::new();
    for (path, node) in was.iter() {
        let goes = |path: &TreePath| was.get(path).is_some() && now.get(path).is_none();
        if goes(path) && !path.parent().is_some_and(|parent| goes(&parent)) {
            found.push(difference(path, What::Removed, node, None));
        }
    }
    for (path, node) in now.iter() {
        let what = match was.get(path) {
            None => What::Added,
            Some(old) => {
                let mut fields = fields(old, node);
                if first_name(old, path, &old_names) != first_name(node, path, &new_names) {
                    fields.push(Field::Links);
                }
                match fields.is_empty() {
                    true => continue,
                    false => What::Changed(fields),
                }
            }
        };
        let size = match &node.kind {
            NodeKind::File { content, .. } => Some(content.size),
            _ => None,
        };
        found.push(difference(path, what, node, size));
    }
    found.sort_by(|one, other| one.path.cmp(&other.path));
    found
}

fn difference(path: &TreePath, what: What, node: &Node, size: Option<u64>) -> Difference {
    Difference {
        path: path.clone(),
        what,
        kind: kind_name(&node.kind),
        size,
    }
}

/// Returns the first name of each group of hard links.
fn first_names(tree: &Tree) -> BTreeMap<Group, TreePath> {
    let mut names = BTreeMap::new();
    for (path, node) in tree.iter() {
        if let NodeKind::File {
            group: Some(group), ..
        } = &node.kind
        {
            names.entry(*group).or_insert_with(|| path.clone());
        }
    }
    names
}

fn first_name<'a>(node: &Node, path: &'a TreePath, names: &'a BTreeMap<Group, TreePath>) -> &'a TreePath {
    match &node.kind {
        NodeKind::File {
            group: Some(group), ..
        } => names.get(group).unwrap_or(path),
        _ => path,
    }
}

/// Returns what differs, in the order of [`Field`].
fn fields(was: &Node, now: &Node) -> Vec<Field> {
    let kind = match (&was.kind, &now.kind) {
        (NodeKind::File { content: old, .. }, NodeKind::File { content: new, .. }) => {
            (old != new).then_some(Field::Content)
        }
        (NodeKind::Symlink(old), NodeKind::Symlink(new)) => (old != new).then_some(Field::Target),
        (NodeKind::Device { .. }, NodeKind::Device { .. }) => (was.kind != now.kind).then_some(Field::Device),
        (old, new) => (old != new).then_some(Field::Kind),
    };
    let (old, new) = (&was.meta, &now.meta);
    let checks = [
        (Field::Mode, old.mode != new.mode),
        (Field::Owner, (old.uid, old.gid) != (new.uid, new.gid)),
        (Field::Time, old.mtime != new.mtime),
        (Field::Attributes, old.xattrs != new.xattrs),
    ];
    let others = checks
        .into_iter()
        .filter(|(_, differs)| *differs)
        .map(|(field, _)| field);
    kind.into_iter().chain(others).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use crate::entry::{Content, Entry, Kind};
    use crate::meta::Meta;

    fn tree(files: &[(&str, &str, i64)]) -> Tree {
        let mut tree = Tree::new(0);
        let mut layer = tree.layer(100);
        for (path, text, time) in files {
            let kind = match text.strip_prefix("= ") {
                Some(target) => Kind::HardLink(TreePath::parse(target).unwrap()),
                None => Kind::File(Content {
                    digest: Digest::of(text.as_bytes()),
                    size: text.len() as u64,
                }),
            };
            let entry = Entry {
                path: TreePath::parse(path).unwrap(),
                meta: Meta::new(0o644, *time),
                kind,
            };
            layer.lay(entry).unwrap();
        }
        tree
    }

    #[test]
    fn every_difference_is_told_once() {
        let was = tree(&[
            ("a/b", "x", 1),
            ("a/c", "x", 1),
            ("d", "y", 1),
            ("e", "z", 1),
            ("f", "z", 1),
        ]);
        let now = tree(&[("d", "yy", 1), ("e", "z", 2), ("f", "z", 1), ("g", "new", 1)]);
        let told: Vec<String> = compare(&was, &now)
            .iter()
            .map(|one| format!("{} {:?}", one.path, one.what))
            .collect();
        assert_eq!(
            told,
            [
                "/a Removed",
                "/d Changed([Content])",
                "/e Changed([Time])",
                "/g Added"
            ]
        );
        assert!(compare(&was, &was.clone()).is_empty());
    }

    #[test]
    fn names_of_one_file_are_other_than_two_equal_files() {
        let was = tree(&[("a", "x", 1), ("b", "x", 1)]);
        let now = tree(&[("a", "x", 1), ("b", "= a", 1)]);
        let told = compare(&was, &now);
        assert_eq!(told.len(), 1);
        assert_eq!(told[0].what, What::Changed(vec![Field::Links]));
        assert_ne!(was.digest(), now.digest());
    }
}
