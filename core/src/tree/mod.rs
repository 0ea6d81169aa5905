//! Entries → [`Tree`]: a filesystem in memory, files known by digest. Pure.

use std::collections::BTreeMap;

use crate::digest::Digest;
use crate::entry::Content;
use crate::meta::Meta;
use crate::path::TreePath;

pub mod accounts;
pub mod apply;
pub mod bulk;
pub mod change;
pub mod compare;
pub mod diff;
pub mod encode;
pub mod part;

/// A whole filesystem: every path with what is there. The root is always in it, and so is every parent of a path.
#[derive(Debug, Clone)]
pub struct Tree {
    nodes: BTreeMap<TreePath, Node>,
    last_group: u32,
}

/// What is at one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Mode, owner, time, extended attributes.
    pub meta: Meta,
    /// What it is.
    pub kind: NodeKind,
}

/// What a path is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeKind {
    /// A folder.
    Folder,
    /// A regular file.
    File {
        /// What it holds.
        content: Content,
        /// Paths of the same group are names of one file (hard links).
        group: Option<Group>,
    },
    /// A symbolic link with its target.
    Symlink(Box<[u8]>),
    /// A device node.
    Device {
        /// Block device, else character device.
        block: bool,
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
}

/// A group of hard links. The number means nothing outside of its tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Group(std::num::NonZeroU32);

/// How much a tree holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Size {
    /// Number of paths, the root not counted.
    pub files: u64,
    /// Bytes in regular files, each hard-link group counted once.
    pub bytes: u64,
}

impl Tree {
    /// Returns a tree of nothing but its root folder: 0755, owned by root, of the time `epoch` (seconds since 1970 UTC).
    pub fn new(epoch: i64) -> Self {
        let root = Node {
            meta: Meta::new(0o755, epoch),
            kind: NodeKind::Folder,
        };
        Self {
            nodes: BTreeMap::from([(TreePath::root(), root)]),
            last_group: 0,
        }
    }

    /// Returns every path with its node, sorted by the bytes of the path: a folder comes before what is in it.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&TreePath, &Node)> + ExactSizeIterator {
        self.nodes.iter()
    }

    /// Returns `path` and every path below it with its node, sorted.
    pub fn within<'a>(&'a self, path: &'a TreePath) -> impl Iterator<Item = (&'a TreePath, &'a Node)> {
        // What is below `a` sorts as `a/…`; `a-b` may stand between `a` and `a/…`, so look past such neighbours.
        self.nodes
            .range(path..)
            .take_while(|(other, _)| other.as_bytes().starts_with(path.as_bytes()))
            .filter(|(other, _)| other.is_within(path))
    }

    /// Returns what is at `path`, without following links.
    pub fn get(&self, path: &TreePath) -> Option<&Node> {
        self.nodes.get(path)
    }

    /// Returns how much is in the tree.
    pub fn size(&self) -> Size {
        let mut size = Size {
            files: self.nodes.len() as u64 - 1,
            bytes: 0,
        };
        let mut seen = std::collections::BTreeSet::new();
        for node in self.nodes.values() {
            if let NodeKind::File { content, group } = node.kind
                && group.is_none_or(|group| seen.insert(group))
            {
                size.bytes += content.size;
            }
        }
        size
    }

    /// Returns the name of the tree: the digest of its canonical text.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.encode())
    }

    fn new_group(&mut self) -> Group {
        self.last_group += 1;
        Group(std::num::NonZeroU32::new(self.last_group).unwrap_or(std::num::NonZeroU32::MIN))
    }

    /// Whether something lies below the folder `path`.
    fn has_children(&self, path: &TreePath) -> bool {
        use std::ops::Bound::{Excluded, Unbounded};
        let mut after = self.nodes.range((Excluded(path.clone()), Unbounded));
        // What is below `a` sorts as `a/…`; `a-b` may stand between `a` and `a/…`, so look past such neighbours.
        after
            .by_ref()
            .take_while(|(other, _)| other.as_bytes().starts_with(path.as_bytes()))
            .any(|(other, _)| other.is_within(path))
    }

    /// Takes `path` away with all that is below it; the root itself stays, empty.
    fn take(&mut self, path: &TreePath) {
        use std::ops::Bound::{Excluded, Unbounded};
        let doomed: Vec<TreePath> = self
            .nodes
            .range((Excluded(path.clone()), Unbounded))
            .map(|(other, _)| other)
            .take_while(|other| other.as_bytes().starts_with(path.as_bytes()))
            .filter(|other| other.is_within(path))
            .cloned()
            .collect();
        for path in doomed {
            self.nodes.remove(&path);
        }
        if !path.is_root() {
            self.nodes.remove(path);
        }
    }
}

impl Node {
    /// Returns what it is, without the number of its group of hard links, which means nothing in another tree.
    pub(crate) fn kind_without_group(&self) -> NodeKind {
        match &self.kind {
            NodeKind::File { content, .. } => NodeKind::File {
                content: *content,
                group: None,
            },
            kind => kind.clone(),
        }
    }

    /// Whether this is a folder.
    pub fn is_folder(&self) -> bool {
        self.kind == NodeKind::Folder
    }
}
