//! A part of a tree, as a tree of its own that another tree can take in. Pure.

use std::collections::BTreeMap;

use super::{Group, NodeKind, Tree};
use crate::entry::{Content, Entry, Kind};
use crate::path::{BadPath, TreePath};

/// The path at which a part holds what was asked for, so that a file and a folder are told apart.
const AT: &[u8] = b"part";

impl Tree {
    /// Returns what is at `path` with all that is below it, as a tree that does not depend on where it was; `None`:
    /// nothing is there. Symbolic links are not followed.
    ///
    /// # Errors
    ///
    /// A path of the part is longer than a path may be.
    pub fn part(&self, path: &TreePath) -> Result<Option<Self>, BadPath> {
        if self.get(path).is_none() {
            return Ok(None);
        }
        let at = TreePath::parse(AT)?;
        let mut part = Self::new(0);
        part.last_group = self.last_group;
        for (from, node) in self.within(path) {
            part.nodes.insert(from.rebased(path, &at)?, node.clone());
        }
        Ok(Some(part))
    }

    /// Returns the entries of a [part](Tree::part) as a layer brings them to `into`, what is above comes first.
    pub fn part_entries(&self, into: &TreePath) -> Result<Vec<Entry<Content>>, BadPath> {
        let at = TreePath::parse(AT)?;
        let mut first: BTreeMap<Group, TreePath> = BTreeMap::new();
        let mut entries = Vec::new();
        for (path, node) in self.within(&at) {
            let path = path.rebased(&at, into)?;
            let kind = match &node.kind {
                NodeKind::Folder => Kind::Folder,
                NodeKind::File { content, group } => match group {
                    Some(group) => match first.get(group) {
                        Some(target) => Kind::HardLink(target.clone()),
                        None => {
                            first.insert(*group, path.clone());
                            Kind::File(*content)
                        }
                    },
                    None => Kind::File(*content),
                },
                NodeKind::Symlink(target) => Kind::Symlink(target.clone()),
                NodeKind::Device { block, major, minor } => Kind::Device {
                    block: *block,
                    major: *major,
                    minor: *minor,
                },
                NodeKind::Fifo => Kind::Fifo,
            };
            entries.push(Entry {
                path,
                meta: node.meta.clone(),
                kind,
            });
        }
        Ok(entries)
    }

    /// Returns the newest time in the tree, its root's not counted (seconds since 1970 UTC); 0 where nothing is in it.
    pub fn newest(&self) -> i64 {
        let times = self.iter().skip(1).map(|(_, node)| node.meta.mtime);
        times.max().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use crate::meta::Meta;

    fn path(text: &str) -> TreePath {
        TreePath::parse(text).unwrap()
    }

    fn tree() -> Tree {
        let mut tree = Tree::new(9);
        let mut layer = tree.layer(100);
        let content = Content {
            digest: Digest::of(b"a"),
            size: 1,
        };
        let entries = [
            ("out", 7, Kind::Folder),
            ("out/app", 5, Kind::File(content)),
            ("out/same", 5, Kind::HardLink(path("out/app"))),
            ("out/to", 6, Kind::Symlink(b"app".as_slice().into())),
            ("out-side", 8, Kind::Fifo),
        ];
        for (at, time, kind) in entries {
            let meta = Meta::new(0o700, time);
            layer
                .lay(Entry {
                    path: path(at),
                    meta,
                    kind,
                })
                .unwrap();
        }
        tree
    }

    #[test]
    fn a_part_is_the_same_wherever_it_was() {
        let tree = tree();
        let part = tree.part(&path("out")).unwrap().unwrap();
        let names: Vec<String> = part.iter().map(|(path, _)| path.to_string()).collect();
        assert_eq!(names, ["/", "/part", "/part/app", "/part/same", "/part/to"]);
        assert_eq!(part.newest(), 7);
        let mut other = Tree::new(50);
        let mut layer = other.layer(100);
        for entry in part.part_entries(&path("usr/elsewhere")).unwrap() {
            layer.lay(entry).unwrap();
        }
        let again = other.part(&path("usr/elsewhere")).unwrap().unwrap();
        assert_eq!(again.digest(), part.digest());
        assert_eq!(tree.part(&path("none")).unwrap().map(drop), None);
    }

    #[test]
    fn a_part_may_be_one_file() {
        let part = tree().part(&path("out/app")).unwrap().unwrap();
        let entries = part.part_entries(&path("bin/app")).unwrap();
        assert_eq!(entries.len(), 1);
        assert_eq!(entries[0].path, path("bin/app"));
        assert!(matches!(entries[0].kind, Kind::File(_)));
    }
}
