//! What fills a tree: the bytes in each folder, with all that is below it. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::{NodeKind, Tree};
use crate::path::TreePath;

/// A folder or file with its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bulk {
    /// Its name; empty for the root.
    pub name: Vec<u8>,
    /// Bytes of the regular files in it, each group of hard links counted once, where it comes first.
    pub bytes: u64,
    /// What is in a folder, the largest first; empty for a file.
    pub inner: Vec<Bulk>,
    /// Whether it is a folder.
    pub folder: bool,
}

impl Tree {
    /// Returns the root with all that is in it; links, devices and pipes, which hold no bytes, are left out.
    pub fn bulk(&self) -> Bulk {
        let mut seen = BTreeSet::new();
        let mut bytes_of: Vec<(&TreePath, u64, bool)> = Vec::new();
        for (path, node) in self.iter() {
            match &node.kind {
                NodeKind::Folder => bytes_of.push((path, 0, true)),
                NodeKind::File { content, group } => {
                    let first = group.is_none_or(|group| seen.insert(group));
                    bytes_of.push((path, if first { content.size } else { 0 }, false));
                }
                _ => {}
            }
        }
        // From the end, what is in a folder comes before the folder.
        let mut waiting: BTreeMap<TreePath, Vec<Bulk>> = BTreeMap::new();
        for (path, bytes, folder) in bytes_of.into_iter().rev() {
            let inner = waiting.remove(path).unwrap_or_default();
            let bulk = sorted(Bulk {
                name: path.name().unwrap_or_default().to_owned(),
                bytes: bytes + inner.iter().map(|one| one.bytes).sum::<u64>(),
                inner,
                folder,
            });
            match path.parent() {
                Some(parent) => waiting.entry(parent).or_default().push(bulk),
                None => return bulk,
            }
        }
        Bulk {
            name: Vec::new(),
            bytes: 0,
            inner: Vec::new(),
            folder: true,
        }
    }
}

fn sorted(mut bulk: Bulk) -> Bulk {
    bulk.inner.sort_by(|one, other| {
        other
            .bytes
            .cmp(&one.bytes)
            .then_with(|| one.name.cmp(&other.name))
    });
    bulk
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use crate::entry::{Content, Entry, Kind};
    use crate::meta::Meta;

    #[test]
    fn a_folder_holds_what_is_below_it_and_a_hard_link_counts_once() {
        let mut tree = Tree::new(0);
        let mut layer = tree.layer(1);
        let file = |size: u64| {
            Kind::File(Content {
                digest: Digest::of(&size.to_le_bytes()),
                size,
            })
        };
        let path = |text: &str| TreePath::parse(text).unwrap();
        for (at, kind) in [
            ("a/b/c", file(5)),
            ("a-b", file(3)),
            ("a/d", file(7)),
            ("z", Kind::HardLink(path("a/d"))),
            ("l", Kind::Symlink(b"a".as_slice().into())),
        ] {
            let meta = Meta::new(0o644, 0);
            layer
                .lay(Entry {
                    path: path(at),
                    meta,
                    kind,
                })
                .unwrap();
        }
        let root = tree.bulk();
        assert_eq!(root.bytes, tree.size().bytes);
        let names: Vec<(&[u8], u64)> = root.inner.iter().map(|one| (&*one.name, one.bytes)).collect();
        assert_eq!(names, [(&b"a"[..], 12), (b"a-b", 3), (b"z", 0)]);
        assert_eq!(root.inner[0].inner[0].name, b"d");
        assert_eq!(root.inner[0].inner[1].inner[0].bytes, 5);
        assert_eq!(Tree::new(0).bulk().bytes, 0);
    }
}
