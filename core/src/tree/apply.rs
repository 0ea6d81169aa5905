//! Lays one more layer over a tree: what replaces what, and where a path that crosses a symbolic link really goes.
//! Links are followed inside the tree only; nothing here knows the machine's own folders.

use std::collections::VecDeque;

use super::{Node, NodeKind, Tree};
use crate::entry::{Content, Entry, Kind};
use crate::glob::{BadPattern, GlobSet};
use crate::meta::Meta;
use crate::path::{BadPath, TreePath};

/// How many symbolic links one path may cross, as the kernel has it (path_resolution(7)).
const MOST_LINKS: usize = 40;

/// Why an entry does not fit into a tree.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A file would take the place of a folder that holds something.
    #[error(
        "`{path}` is a folder that is not empty: a file or link cannot take its place (remove it in a step before)"
    )]
    FolderInTheWay {
        /// The folder.
        path: TreePath,
    },
    /// A path leads through something that is no folder.
    #[error("`{path}` leads through `{through}`, which is not a folder")]
    NotAFolder {
        /// The path as the entry has it.
        path: TreePath,
        /// What is in the way.
        through: TreePath,
    },
    /// Symbolic links go in a circle.
    #[error("`{path}` crosses more than {MOST_LINKS} symbolic links")]
    TooManyLinks {
        /// The path as the entry has it.
        path: TreePath,
    },
    /// A hard link to something that is not there.
    #[error("`{path}` is a hard link to `{target}`, which did not come before it")]
    NoTarget {
        /// The link.
        path: TreePath,
        /// What it should be another name of.
        target: TreePath,
    },
    /// A hard link to a folder.
    #[error("`{path}` is a hard link to `{target}`, which is a folder")]
    LinkToFolder {
        /// The link.
        path: TreePath,
        /// The folder.
        target: TreePath,
    },
    /// The root can only be a folder.
    #[error("the root of an image cannot be anything but a folder")]
    Root,
    /// What a link leads to is no path.
    #[error("`{path}` crosses a symbolic link that leads nowhere")]
    BadLink {
        /// The path as the entry has it.
        path: TreePath,
        /// What is wrong with where it leads.
        #[source]
        source: BadPath,
    },
    /// A pattern that is none.
    #[error(transparent)]
    Pattern(#[from] BadPattern),
    /// A pattern that matches nothing: most likely a slip.
    #[error("nothing in the image matches `{pattern}`")]
    NoMatch {
        /// The pattern.
        pattern: String,
    },
}

/// A layer on its way into a tree.
#[derive(Debug)]
pub struct Layer<'a> {
    tree: &'a mut Tree,
    epoch: i64,
    /// The parent of the last entry, as asked and as found; archives list a folder's files one after the other.
    last_parent: Option<(TreePath, TreePath)>,
}

impl Tree {
    /// Begins a layer. Times in it are never later than `epoch`, and folders that it takes for granted get that time.
    pub fn layer(&mut self, epoch: i64) -> Layer<'_> {
        Layer {
            tree: self,
            epoch,
            last_parent: None,
        }
    }

    /// Follows `path` to the regular file, folder or other thing it leads to inside the tree, through symbolic links.
    pub fn follow(&self, path: &TreePath) -> Result<TreePath, Error> {
        self.resolve(path, true)
    }

    /// Takes away what matches one of `patterns`, and says how many paths went.
    pub fn remove(&mut self, patterns: &[String]) -> Result<usize, Error> {
        let before = self.nodes.len();
        for pattern in patterns {
            let set = GlobSet::new(std::slice::from_ref(pattern))?;
            let matching: Vec<TreePath> = self
                .nodes
                .keys()
                .filter(|path| !path.is_root() && set.matches(path))
                .cloned()
                .collect();
            if matching.is_empty() {
                return Err(Error::NoMatch {
                    pattern: pattern.clone(),
                });
            }
            for path in matching {
                self.take(&path);
            }
        }
        Ok(before - self.nodes.len())
    }

    /// Returns where `path` really is; the last name is followed only where `last` says so. What is missing counts as
    /// a folder that is still to be made.
    fn resolve(&self, path: &TreePath, last: bool) -> Result<TreePath, Error> {
        let mut names: VecDeque<Box<[u8]>> = path.names().map(Into::into).collect();
        let mut here = TreePath::root();
        let mut links = 0;
        let bad = |source| Error::BadLink {
            path: path.clone(),
            source,
        };
        while let Some(name) = names.pop_front() {
            match &*name {
                b"." => continue,
                b".." => {
                    here = here.parent().unwrap_or_else(TreePath::root);
                    continue;
                }
                _ => {}
            }
            let next = here.join(&name).map_err(bad)?;
            match self.nodes.get(&next).map(|node| &node.kind) {
                Some(NodeKind::Symlink(target)) if last || !names.is_empty() => {
                    links += 1;
                    if links > MOST_LINKS {
                        return Err(Error::TooManyLinks { path: path.clone() });
                    }
                    if target.starts_with(b"/") {
                        here = TreePath::root();
                    }
                    for part in target
                        .split(|&byte| byte == b'/')
                        .rev()
                        .filter(|part| !part.is_empty())
                    {
                        names.push_front(part.into());
                    }
                }
                None | Some(NodeKind::Folder) => here = next,
                Some(_) if names.is_empty() => here = next,
                Some(_) => {
                    return Err(Error::NotAFolder {
                        path: path.clone(),
                        through: next,
                    });
                }
            }
        }
        Ok(here)
    }
}

impl Layer<'_> {
    /// Returns the tree as it is so far.
    pub fn tree(&self) -> &Tree {
        self.tree
    }

    /// Makes sure that `path` is a folder: one that is there stays as it is, a missing one is 0755 and root's.
    pub fn make_folder(&mut self, path: &TreePath) -> Result<(), Error> {
        let real = self.tree.resolve(path, true)?;
        self.make_parents(path, &real)
    }

    /// Lays `entry` over what is there. A folder that lands on a symbolic link to a folder goes through it.
    pub fn lay(&mut self, entry: Entry<Content>) -> Result<(), Error> {
        let Entry { path, meta, kind } = entry;
        let meta = meta.not_later_than(self.epoch);
        if matches!(kind, Kind::Folder) {
            return self.lay_folder(&path, meta);
        }
        let at = self.place(&path)?;
        if self.tree.get(&at).is_some_and(Node::is_folder) && self.tree.has_children(&at) {
            return Err(Error::FolderInTheWay { path: at });
        }
        let node = match kind {
            Kind::File(content) => Node {
                meta,
                kind: NodeKind::File { content, group: None },
            },
            Kind::Symlink(target) => {
                // Linux keeps no mode for symbolic links (symlink(7)).
                Node {
                    meta: Meta { mode: 0o777, ..meta },
                    kind: NodeKind::Symlink(target),
                }
            }
            Kind::Device { block, major, minor } => Node {
                meta,
                kind: NodeKind::Device { block, major, minor },
            },
            Kind::Fifo => Node {
                meta,
                kind: NodeKind::Fifo,
            },
            Kind::HardLink(target) => match self.link(&path, &at, &target)? {
                Some(node) => node,
                None => return Ok(()),
            },
            Kind::Folder => return Ok(()),
        };
        self.changed(&at);
        self.tree.nodes.insert(at, node);
        Ok(())
    }

    fn lay_folder(&mut self, path: &TreePath, meta: Meta) -> Result<(), Error> {
        let mut at = self.place(path)?;
        if let Some(NodeKind::Symlink(_)) = self.tree.get(&at).map(|node| &node.kind) {
            let target = self.tree.resolve(path, true)?;
            if self.tree.get(&target).is_some_and(Node::is_folder) {
                at = target;
            }
        }
        self.changed(&at);
        self.tree.nodes.insert(
            at,
            Node {
                meta,
                kind: NodeKind::Folder,
            },
        );
        Ok(())
    }

    /// Returns the node that makes `at` another name of `target`; none where it is that already.
    fn link(&mut self, path: &TreePath, at: &TreePath, target: &TreePath) -> Result<Option<Node>, Error> {
        let from = self.place(target)?;
        if from == *at {
            return Ok(None);
        }
        let fresh = self.tree.new_group();
        match self.tree.nodes.get_mut(&from) {
            None => Err(Error::NoTarget {
                path: path.clone(),
                target: target.clone(),
            }),
            Some(node) if node.is_folder() => Err(Error::LinkToFolder {
                path: path.clone(),
                target: target.clone(),
            }),
            Some(node) => {
                if let NodeKind::File { group, .. } = &mut node.kind {
                    group.get_or_insert(fresh);
                }
                Ok(Some(node.clone()))
            }
        }
    }

    /// Returns where `path` goes, its parent's links followed, and makes the parents that are missing.
    fn place(&mut self, path: &TreePath) -> Result<TreePath, Error> {
        let (Some(parent), Some(name)) = (path.parent(), path.name()) else {
            return Ok(TreePath::root());
        };
        let real = match &self.last_parent {
            Some((asked, real)) if *asked == parent => real.clone(),
            _ => {
                let real = self.tree.resolve(&parent, true)?;
                self.make_parents(path, &real)?;
                self.last_parent = Some((parent, real.clone()));
                real
            }
        };
        real.join(name).map_err(|source| Error::BadLink {
            path: path.clone(),
            source,
        })
    }

    fn make_parents(&mut self, path: &TreePath, folder: &TreePath) -> Result<(), Error> {
        let mut missing = Vec::new();
        let mut next = Some(folder.clone());
        while let Some(here) = next {
            match self.tree.nodes.get(&here) {
                Some(node) if node.is_folder() => break,
                Some(_) => {
                    return Err(Error::NotAFolder {
                        path: path.clone(),
                        through: here,
                    });
                }
                None => next = here.parent(),
            }
            missing.push(here);
        }
        for here in missing {
            self.tree.nodes.insert(
                here,
                Node {
                    meta: Meta::new(0o755, self.epoch),
                    kind: NodeKind::Folder,
                },
            );
        }
        Ok(())
    }

    /// Forgets what was known of parents where `at` may have been, or may become, a link or a folder on the way.
    fn changed(&mut self, at: &TreePath) {
        if self.tree.nodes.contains_key(at)
            || self
                .last_parent
                .as_ref()
                .is_some_and(|(asked, _)| asked.is_within(at))
        {
            self.last_parent = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;

    const EPOCH: i64 = 1_000;

    fn path(text: &str) -> TreePath {
        TreePath::normalise(text).unwrap()
    }

    fn content(text: &str) -> Content {
        Content {
            digest: Digest::of(text.as_bytes()),
            size: text.len() as u64,
        }
    }

    fn file(at: &str, text: &str) -> Entry<Content> {
        Entry {
            path: path(at),
            meta: Meta::new(0o644, 5),
            kind: Kind::File(content(text)),
        }
    }

    fn folder(at: &str, mode: u16) -> Entry<Content> {
        Entry {
            path: path(at),
            meta: Meta::new(mode, 5),
            kind: Kind::Folder,
        }
    }

    fn symlink(at: &str, to: &str) -> Entry<Content> {
        Entry {
            path: path(at),
            meta: Meta::new(0o777, 5),
            kind: Kind::Symlink(to.as_bytes().into()),
        }
    }

    fn hard_link(at: &str, to: &str) -> Entry<Content> {
        Entry {
            path: path(at),
            meta: Meta::new(0o644, 5),
            kind: Kind::HardLink(path(to)),
        }
    }

    fn tree(entries: impl IntoIterator<Item = Entry<Content>>) -> Result<Tree, Error> {
        let mut tree = Tree::new(EPOCH);
        let mut layer = tree.layer(EPOCH);
        for entry in entries {
            layer.lay(entry)?;
        }
        Ok(tree)
    }

    fn paths(tree: &Tree) -> Vec<String> {
        tree.iter().map(|(path, _)| path.to_string()).collect()
    }

    #[test]
    fn missing_parents_are_plain_folders_of_the_epoch() {
        let tree = tree([file("a/b/c", "x")]).unwrap();
        assert_eq!(paths(&tree), ["/", "/a", "/a/b", "/a/b/c"]);
        assert_eq!(tree.get(&path("a/b")).unwrap().meta, Meta::new(0o755, EPOCH));
    }

    #[test]
    fn times_are_never_later_than_the_epoch() {
        let late = Entry {
            meta: Meta::new(0o644, EPOCH + 1),
            ..file("late", "x")
        };
        assert_eq!(
            tree([late]).unwrap().get(&path("late")).unwrap().meta.mtime,
            EPOCH
        );
    }

    #[test]
    fn a_folder_on_a_link_to_a_folder_goes_through_it() {
        let tree = tree([
            folder("usr/bin", 0o755),
            symlink("bin", "usr/bin"),
            folder("bin", 0o700),
            file("bin/sh", "x"),
        ]);
        let tree = tree.unwrap();
        assert_eq!(paths(&tree), ["/", "/bin", "/usr", "/usr/bin", "/usr/bin/sh"]);
        assert_eq!(tree.get(&path("usr/bin")).unwrap().meta.mode, 0o700);
    }

    #[test]
    fn a_folder_takes_the_place_of_a_file_and_of_a_link_that_leads_to_none() {
        let tree = tree([
            file("a", "x"),
            folder("a", 0o755),
            symlink("b", "nowhere"),
            folder("b", 0o755),
        ])
        .unwrap();
        assert!(tree.get(&path("a")).unwrap().is_folder());
        assert!(tree.get(&path("b")).unwrap().is_folder());
    }

    #[test]
    fn a_link_never_leads_out_of_the_image() {
        let tree = tree([
            folder("d", 0o755),
            symlink("d/up", "../../../../etc"),
            file("d/up/passwd", "x"),
        ])
        .unwrap();
        assert!(tree.get(&path("etc/passwd")).is_some());
    }

    #[test]
    fn a_link_added_after_its_neighbours_counts_for_what_follows() {
        let entries = [folder("real", 0o755), file("a/one", "1"), file("x", "x")];
        let mut all = tree(entries).unwrap();
        all.remove(&["a".into()]).unwrap();
        let mut layer = all.layer(EPOCH);
        layer.lay(symlink("a", "real")).unwrap();
        layer.lay(file("a/two", "2")).unwrap();
        assert!(all.get(&path("real/two")).is_some());
    }

    #[test]
    fn a_file_replaces_a_link_and_does_not_write_through_it() {
        let tree = tree([
            file("target", "old"),
            symlink("link", "target"),
            file("link", "new"),
        ])
        .unwrap();
        assert_eq!(
            tree.get(&path("target")).unwrap().kind,
            NodeKind::File {
                content: content("old"),
                group: None
            }
        );
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let cases: [(Vec<Entry<Content>>, &str); 6] = [
            (vec![file("a/b", "x"), file("a", "y")], "not empty"),
            (vec![file("a", "x"), file("a/b", "y")], "not a folder"),
            (
                vec![symlink("a", "b"), symlink("b", "a"), file("a/c", "x")],
                "more than 40",
            ),
            (vec![hard_link("a", "b")], "did not come before"),
            (vec![folder("b", 0o755), hard_link("a", "b")], "is a folder"),
            (
                vec![file("b", ""), symlink("a", "b"), file("a/c", "x")],
                "not a folder",
            ),
        ];
        for (entries, why) in cases {
            let error = tree(entries).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn hard_links_are_one_group_until_one_is_replaced() {
        let mut tree = tree([file("a", "x"), hard_link("b", "a"), hard_link("c", "b")]).unwrap();
        let group = |tree: &Tree, at| match tree.get(&path(at)).unwrap().kind {
            NodeKind::File { group, .. } => group,
            _ => None,
        };
        assert!(group(&tree, "a").is_some());
        assert_eq!(group(&tree, "a"), group(&tree, "c"));
        assert_eq!(tree.size().bytes, 1);
        tree.layer(EPOCH).lay(file("c", "y")).unwrap();
        assert_eq!(group(&tree, "c"), None);
    }

    #[test]
    fn removing_takes_what_is_below_and_a_pattern_without_a_match_is_a_slip() {
        let mut tree = tree([
            file("usr/share/doc/a/b", "x"),
            file("usr/share-x", "y"),
            file("usr/share/man", "z"),
        ])
        .unwrap();
        assert_eq!(tree.remove(&["usr/share".into()]).unwrap(), 5);
        assert_eq!(paths(&tree), ["/", "/usr", "/usr/share-x"]);
        let error = tree.remove(&["usr/share/doc".into()]).unwrap_err();
        assert_eq!(
            error,
            Error::NoMatch {
                pattern: "usr/share/doc".into()
            }
        );
    }

    #[test]
    fn a_folder_is_empty_also_beside_a_longer_name() {
        assert!(tree([folder("a", 0o755), file("a-b", "x"), file("a", "y")]).is_ok());
        assert!(
            tree([
                folder("a", 0o755),
                file("a-b", "x"),
                file("a/c", "z"),
                file("a", "y")
            ])
            .is_err()
        );
    }
}
