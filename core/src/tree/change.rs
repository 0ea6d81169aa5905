//! A tree and what a command wrote over it → the tree after it. Pure.
//!
//! What only the time of a folder tells is no change: whatever is made in one moves it. Nor is a file that overlayfs has
//! copied up and nobody has written to, which stays one of its hard links.

use super::{Node, NodeKind, Tree};
use crate::entry::{Change, Content, Entry, Kind};
use crate::meta::Meta;
use crate::path::{BadPath, TreePath};

/// A layer that says what cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A note of overlayfs that leads to no file of the tree: somebody else has written it.
    #[error("`{path}` is said to hold what the file `{from}` held, and there was none")]
    NoFile {
        /// Where it is.
        path: TreePath,
        /// What it should be a copy of.
        from: TreePath,
    },
    /// A hard link to something that was not told before.
    #[error("`{path}` is a hard link to `{first}`, which is not there")]
    NoTarget {
        /// The link.
        path: TreePath,
        /// What it should be another name of.
        first: TreePath,
    },
    /// A path that grew too long when a folder above it was moved.
    #[error(transparent)]
    Path(#[from] BadPath),
}

impl Tree {
    /// Returns what the tree is with `changes`, in the order in which a layer tells them. Times are never later than
    /// `epoch`; sockets are left out.
    pub fn changed(
        &self,
        changes: impl IntoIterator<Item = Change<Content>>,
        epoch: i64,
    ) -> Result<Self, Error> {
        let mut after = self.clone();
        for change in changes {
            match change {
                Change::Gone(path) | Change::Socket { path, .. } => after.take(&path),
                Change::Cleared(path) => after.empty(&path),
                Change::Moved { path, from } => after.move_in(&path, self, &from)?,
                Change::Redressed { path, meta, from } => {
                    let Some(NodeKind::File { content, .. }) = self.get(&from).map(|node| &node.kind) else {
                        return Err(Error::NoFile { path, from });
                    };
                    let kind = NodeKind::File {
                        content: *content,
                        group: None,
                    };
                    after.set(path, meta.not_later_than(epoch), kind);
                }
                Change::There(entry) => after.put(entry, epoch)?,
            }
        }
        Ok(after)
    }

    fn put(&mut self, entry: Entry<Content>, epoch: i64) -> Result<(), Error> {
        let Entry { path, meta, kind } = entry;
        let meta = meta.not_later_than(epoch);
        let kind = match kind {
            Kind::Folder => return self.put_folder(path, meta),
            Kind::HardLink(first) => return self.put_link(path, first),
            Kind::File(content) => NodeKind::File { content, group: None },
            Kind::Symlink(target) => NodeKind::Symlink(target),
            Kind::Device { block, major, minor } => NodeKind::Device { block, major, minor },
            Kind::Fifo => NodeKind::Fifo,
        };
        self.set(path, meta, kind);
        Ok(())
    }

    /// A folder stays joined with the one that was there.
    fn put_folder(&mut self, path: TreePath, meta: Meta) -> Result<(), Error> {
        match self.nodes.get_mut(&path) {
            Some(was) if was.is_folder() => {
                let mtime = was.meta.mtime;
                let same = Meta {
                    mtime,
                    ..meta.clone()
                } == was.meta;
                if !same {
                    was.meta = meta;
                }
            }
            _ => self.set(path, meta, NodeKind::Folder),
        }
        Ok(())
    }

    fn put_link(&mut self, path: TreePath, first: TreePath) -> Result<(), Error> {
        let fresh = self.new_group();
        let Some(node) = self.nodes.get_mut(&first) else {
            return Err(Error::NoTarget { path, first });
        };
        if let NodeKind::File { group, .. } = &mut node.kind {
            group.get_or_insert(fresh);
        }
        let node = node.clone();
        self.take(&path);
        self.nodes.insert(path, node);
        Ok(())
    }

    /// Puts a node in the place of what is there, unless that is the same.
    fn set(&mut self, path: TreePath, meta: Meta, kind: NodeKind) {
        let same = self.nodes.get(&path).is_some_and(|was| {
            let same_kind = match (&was.kind, &kind) {
                (NodeKind::File { content: a, .. }, NodeKind::File { content: b, .. }) => a == b,
                (was, now) => was == now,
            };
            same_kind && was.meta == meta
        });
        if !same {
            self.take(&path);
            self.nodes.insert(path, Node { meta, kind });
        }
    }

    /// Takes away what is in the folder `path`.
    fn empty(&mut self, path: &TreePath) {
        let folder = self.nodes.get(path).cloned();
        self.take(path);
        if let Some(folder) = folder {
            self.nodes.insert(path.clone(), folder);
        }
    }

    /// Puts what `before` has at `from` in the place of what is at `path`.
    fn move_in(&mut self, path: &TreePath, before: &Self, from: &TreePath) -> Result<(), Error> {
        self.empty(path);
        for (inner, node) in before.within(from) {
            self.nodes.insert(inner.rebased(from, path)?, node.clone());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;

    const EPOCH: i64 = 100;

    fn path(text: &str) -> TreePath {
        TreePath::normalise(text).unwrap()
    }

    fn content(text: &str) -> Content {
        Content {
            digest: Digest::of(text.as_bytes()),
            size: text.len() as u64,
        }
    }

    fn entry(at: &str, kind: Kind<Content>) -> Entry<Content> {
        let mode = if matches!(kind, Kind::Folder) {
            0o755
        } else {
            0o644
        };
        Entry {
            path: path(at),
            meta: Meta::new(mode, 5),
            kind,
        }
    }

    fn there(at: &str, mtime: i64, kind: Kind<Content>) -> Change<Content> {
        let mut entry = entry(at, kind);
        entry.meta.mtime = mtime;
        Change::There(entry)
    }

    fn tree() -> Tree {
        let mut tree = Tree::new(EPOCH);
        let mut layer = tree.layer(EPOCH);
        for (at, kind) in [
            ("a", Kind::Folder),
            ("a/f", Kind::File(content("f"))),
            ("a/g", Kind::HardLink(path("a/f"))),
            ("a/sub", Kind::Folder),
            ("a/sub/x", Kind::File(content("x"))),
            ("b", Kind::Symlink((*b"a").into())),
        ] {
            layer.lay(entry(at, kind)).unwrap();
        }
        tree
    }

    fn after(changes: impl IntoIterator<Item = Change<Content>>) -> Tree {
        tree().changed(changes, EPOCH).unwrap()
    }

    fn names(tree: &Tree) -> Vec<String> {
        tree.iter().map(|(path, _)| path.to_string()).collect()
    }

    #[test]
    fn what_says_nothing_new_leaves_the_same_tree() {
        let same = [
            there("/", 999, Kind::Folder),
            there("a", 999, Kind::Folder),
            there("a/f", 5, Kind::File(content("f"))),
        ];
        assert_eq!(after(same).digest(), tree().digest());
    }

    #[test]
    fn a_file_that_is_written_is_no_longer_a_hard_link_and_has_a_time_that_is_known() {
        let changed = after([there("a/f", 999, Kind::File(content("new")))]);
        let node = changed.get(&path("a/f")).unwrap();
        assert_eq!(node.meta.mtime, EPOCH);
        assert!(matches!(node.kind, NodeKind::File { group: None, .. }));
        let other = changed.get(&path("a/g")).unwrap();
        assert!(matches!(&other.kind, NodeKind::File { content: found, .. } if *found == content("f")));
    }

    #[test]
    fn what_takes_the_place_of_something_does_so_whole_and_follows_no_link() {
        let changed = after([
            Change::Gone(path("a/f")),
            there("a/sub", 7, Kind::File(content("file"))),
            there("b", 7, Kind::Folder),
            there("b/in", 7, Kind::Fifo),
        ]);
        assert_eq!(names(&changed), ["/", "/a", "/a/g", "/a/sub", "/b", "/b/in"]);
    }

    #[test]
    fn a_folder_can_be_cleared_and_moved() {
        let cleared = after([
            Change::Cleared(path("a")),
            there("a", 7, Kind::Folder),
            there("a/n", 7, Kind::File(content("n"))),
        ]);
        assert_eq!(names(&cleared), ["/", "/a", "/a/n", "/b"]);
        let moved = after([
            Change::Gone(path("a")),
            Change::Moved {
                path: path("c"),
                from: path("a"),
            },
            there("c", 7, Kind::Folder),
        ]);
        assert_eq!(
            names(&moved),
            ["/", "/b", "/c", "/c/f", "/c/g", "/c/sub", "/c/sub/x"]
        );
    }

    #[test]
    fn hard_links_stay_together_and_sockets_are_left_out() {
        let changed = after([
            there("n", 7, Kind::File(content("n"))),
            there("m", 7, Kind::HardLink(path("n"))),
            Change::Socket {
                path: path("a/f"),
                meta: Meta::new(0o644, 0),
            },
        ]);
        let group = |at: &str| match changed.get(&path(at)).unwrap().kind {
            NodeKind::File { group, .. } => group,
            _ => None,
        };
        assert!(group("n").is_some() && group("n") == group("m"));
        assert!(changed.get(&path("a/f")).is_none());
    }

    #[test]
    fn notes_that_lead_nowhere_are_refused() {
        let forged = Change::Redressed {
            path: path("a/n"),
            meta: Meta::new(0o644, 0),
            from: path("nowhere"),
        };
        let refused = tree().changed([forged], EPOCH).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "`/a/n` is said to hold what the file `/nowhere` held, and there was none"
        );
        let link = there("a/n", 0, Kind::HardLink(path("nowhere")));
        assert!(tree().changed([link], EPOCH).is_err());
    }
}
