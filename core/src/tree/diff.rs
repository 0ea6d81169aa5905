//! A tree and what a writable layer did to it → the differences, sorted by path. Pure.
//!
//! A folder of which only the time changed is no difference: whatever is made in one moves it. Nor are hard links:
//! overlayfs parts them where it copies one name up.

use std::collections::{BTreeMap, BTreeSet};

use super::{Node, NodeKind, Tree};
use crate::entry::{Change, Content, Kind};
use crate::meta::Meta;
use crate::path::TreePath;

/// One path that is not as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Which one.
    pub path: TreePath,
    /// What happened to it.
    pub what: What,
    /// What is there now; what was there, where it is gone.
    pub kind: &'static str,
    /// How many bytes are there now, in a regular file.
    pub size: Option<u64>,
}

/// What happened to a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// It is new.
    Added,
    /// It differs in these.
    Changed(Vec<Field>),
    /// It is gone, with all that was in it.
    Removed,
}

/// What two files can differ in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Field {
    /// What it is: file, folder, link …
    Kind,
    /// The bytes of a file.
    Content,
    /// Where a symbolic link leads.
    Target,
    /// Which device it is.
    Device,
    /// Permission bits.
    Mode,
    /// Owner or group.
    Owner,
    /// Modification time.
    Time,
    /// Extended attributes.
    Attributes,
    /// Which other paths are names of the same file.
    Links,
}

impl Field {
    /// Returns its name, one word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kind => "type",
            Self::Content => "content",
            Self::Target => "target",
            Self::Device => "device",
            Self::Mode => "mode",
            Self::Owner => "owner",
            Self::Time => "time",
            Self::Attributes => "xattrs",
            Self::Links => "links",
        }
    }
}

/// What a file of the layer holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// These bytes.
    Content(Content),
    /// So many bytes that nobody has read, because [`Layer::may_equal`] ruled out that it matters.
    Unread(u64),
}

/// A layer that is being compared with the tree below it.
#[derive(Debug)]
pub struct Layer<'a> {
    below: &'a Tree,
    /// What of the tree below is no longer seen.
    gone: BTreeSet<TreePath>,
    /// What the layer has.
    there: BTreeMap<TreePath, Now>,
}

/// What is at a path of the layer.
#[derive(Debug, Clone)]
struct Now {
    meta: Meta,
    kind: Is,
}

#[derive(Debug, Clone)]
enum Is {
    Node(NodeKind),
    Unread(u64),
    Socket,
}

impl<'a> Layer<'a> {
    /// Begins to compare with `below`.
    pub fn over(below: &'a Tree) -> Self {
        Self {
            below,
            gone: BTreeSet::new(),
            there: BTreeMap::new(),
        }
    }

    /// Returns the tree that is compared with.
    pub fn below(&self) -> &'a Tree {
        self.below
    }

    /// Whether a file of `size` bytes at `path` may hold what the tree below has there: else its bytes need not be read.
    pub fn may_equal(&self, path: &TreePath, size: u64) -> bool {
        let node = self.below.get(path).map(|node| &node.kind);
        matches!(node, Some(NodeKind::File { content, .. }) if content.size == size)
    }

    /// Takes what the layer says next.
    pub fn take(&mut self, change: Change<Held>) {
        match change {
            Change::Gone(path) => self.hide(&path, true),
            Change::Cleared(path) => self.hide(&path, false),
            Change::Moved { path, from } => self.moved(&path, &from),
            Change::Redressed { path, meta, from } => {
                // A note that leads nowhere is none of overlayfs': the file is another one.
                let kind = self.below.get(&from).map(|node| node.kind.clone());
                let kind = kind.filter(|kind| matches!(kind, NodeKind::File { .. }));
                self.put(path, meta, kind.map_or(Is::Unread(0), Is::Node));
            }
            Change::Socket { path, meta } => self.put(path, meta, Is::Socket),
            Change::There(entry) => {
                let kind = match entry.kind {
                    Kind::Folder => Is::Node(NodeKind::Folder),
                    Kind::File(Held::Content(content)) => Is::Node(NodeKind::File { content, group: None }),
                    Kind::File(Held::Unread(size)) => Is::Unread(size),
                    Kind::Symlink(target) => Is::Node(NodeKind::Symlink(target)),
                    Kind::Device { block, major, minor } => {
                        Is::Node(NodeKind::Device { block, major, minor })
                    }
                    Kind::Fifo => Is::Node(NodeKind::Fifo),
                    Kind::HardLink(first) => match self.there.get(&first) {
                        Some(first) => {
                            let first = first.clone();
                            return self.put(entry.path, first.meta, first.kind);
                        }
                        None => return,
                    },
                };
                self.put(entry.path, entry.meta, kind);
            }
        }
    }

    /// Returns how the layer makes the tree another one.
    pub fn differences(self) -> Vec<Difference> {
        let mut found = Vec::new();
        for path in &self.gone {
            if self.there.contains_key(path) || path.parent().is_some_and(|parent| self.went(&parent)) {
                continue;
            }
            if let Some(node) = self.below.get(path) {
                found.push(Difference {
                    path: path.clone(),
                    what: What::Removed,
                    kind: kind_name(&node.kind),
                    size: None,
                });
            }
        }
        for (path, now) in &self.there {
            let what = match self.below.get(path) {
                None => What::Added,
                Some(was) => match fields(was, now) {
                    fields if fields.is_empty() => continue,
                    fields => What::Changed(fields),
                },
            };
            found.push(Difference {
                path: path.clone(),
                what,
                kind: now.kind_name(),
                size: now.size(),
            });
        }
        found.sort_by(|a, b| a.path.cmp(&b.path));
        found
    }

    /// Whether `folder` is one no longer: what was in it went with it.
    fn went(&self, folder: &TreePath) -> bool {
        match self.there.get(folder) {
            Some(now) => !matches!(now.kind, Is::Node(NodeKind::Folder)),
            None => self.gone.contains(folder),
        }
    }

    fn put(&mut self, path: TreePath, meta: Meta, kind: Is) {
        if !matches!(kind, Is::Node(NodeKind::Folder)) {
            self.hide(&path, false);
        }
        self.there.insert(path, Now { meta, kind });
    }

    /// Takes what the tree below has at `path` out of sight, the path itself only where `whole`.
    fn hide(&mut self, path: &TreePath, whole: bool) {
        let hidden = self.below.within(path).map(|(inner, _)| inner);
        self.gone
            .extend(hidden.filter(|inner| whole || *inner != path).cloned());
        // So is what came along with a folder above that was moved.
        let moved = self.there.range(path..).map(|(inner, _)| inner);
        let moved = moved.take_while(|inner| inner.as_bytes().starts_with(path.as_bytes()));
        let moved: Vec<TreePath> = moved.filter(|inner| inner.is_within(path)).cloned().collect();
        for inner in moved {
            self.there.remove(&inner);
        }
    }

    fn moved(&mut self, path: &TreePath, from: &TreePath) {
        self.hide(path, false);
        for (inner, node) in self.below.within(from) {
            // A path that gets too long by its move is none that could be opened either.
            let Ok(new) = inner.rebased(from, path) else {
                continue;
            };
            let now = Now {
                meta: node.meta.clone(),
                kind: Is::Node(node.kind.clone()),
            };
            self.there.insert(new, now);
        }
    }
}

impl Now {
    fn kind_name(&self) -> &'static str {
        match &self.kind {
            Is::Node(kind) => kind_name(kind),
            Is::Unread(_) => "file",
            Is::Socket => "socket",
        }
    }

    fn size(&self) -> Option<u64> {
        match self.kind {
            Is::Node(NodeKind::File { content, .. }) => Some(content.size),
            Is::Unread(size) => Some(size),
            _ => None,
        }
    }
}

pub(super) fn kind_name(kind: &NodeKind) -> &'static str {
    match kind {
        NodeKind::Folder => "folder",
        NodeKind::File { .. } => "file",
        NodeKind::Symlink(_) => "symlink",
        NodeKind::Device { .. } => "device",
        NodeKind::Fifo => "fifo",
    }
}

/// Returns what differs, in the order of [`Field`].
fn fields(was: &Node, now: &Now) -> Vec<Field> {
    let mut fields = Vec::new();
    fields.extend(other_kind(&was.kind, &now.kind));
    let (old, new) = (&was.meta, &now.meta);
    let folder = was.is_folder() && fields.is_empty();
    let link = matches!(was.kind, NodeKind::Symlink(_));
    let checks = [
        (Field::Mode, old.mode != new.mode && !link),
        (Field::Owner, (old.uid, old.gid) != (new.uid, new.gid)),
        (Field::Time, old.mtime != new.mtime && !folder),
        (Field::Attributes, old.xattrs != new.xattrs),
    ];
    fields.extend(
        checks
            .into_iter()
            .filter(|(_, differs)| *differs)
            .map(|(field, _)| field),
    );
    fields
}

fn other_kind(was: &NodeKind, now: &Is) -> Option<Field> {
    let now = match now {
        Is::Node(now) => now,
        Is::Unread(_) if matches!(was, NodeKind::File { .. }) => return Some(Field::Content),
        Is::Unread(_) | Is::Socket => return Some(Field::Kind),
    };
    match (was, now) {
        (NodeKind::Folder, NodeKind::Folder) | (NodeKind::Fifo, NodeKind::Fifo) => None,
        (NodeKind::File { content: a, .. }, NodeKind::File { content: b, .. }) => {
            (a != b).then_some(Field::Content)
        }
        (NodeKind::Symlink(a), NodeKind::Symlink(b)) => (a != b).then_some(Field::Target),
        (NodeKind::Device { .. }, NodeKind::Device { .. }) => (was != now).then_some(Field::Device),
        _ => Some(Field::Kind),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use crate::entry::Entry;

    fn path(text: &str) -> TreePath {
        TreePath::normalise(text).unwrap()
    }

    fn content(text: &str) -> Content {
        Content {
            digest: Digest::of(text.as_bytes()),
            size: text.len() as u64,
        }
    }

    fn entry<B>(at: &str, kind: Kind<B>) -> Entry<B> {
        Entry {
            path: path(at),
            meta: Meta::new(0o755, 7),
            kind,
        }
    }

    fn below() -> Tree {
        let mut tree = Tree::new(7);
        let mut layer = tree.layer(i64::MAX);
        for folder in ["/bin", "/etc", "/etc/conf.d", "/empty"] {
            layer.lay(entry(folder, Kind::Folder)).unwrap();
        }
        for (file, text) in [
            ("/bin/a", "a"),
            ("/etc/motd", "hello"),
            ("/etc/conf.d/x", "x"),
            ("/etc/conf.d/y", "y"),
        ] {
            layer.lay(entry(file, Kind::File(content(text)))).unwrap();
        }
        layer.lay(entry("/bin/l", Kind::Symlink((*b"a").into()))).unwrap();
        tree
    }

    fn file(at: &str, text: &str) -> Change<Held> {
        Change::There(entry(at, Kind::File(Held::Content(content(text)))))
    }

    fn told(changes: Vec<Change<Held>>) -> Vec<String> {
        let tree = below();
        let mut layer = Layer::over(&tree);
        changes.into_iter().for_each(|change| layer.take(change));
        let differences = layer.differences();
        differences
            .iter()
            .map(|one| match &one.what {
                What::Added => format!("A {} {}", one.path, one.kind),
                What::Removed => format!("D {} {}", one.path, one.kind),
                What::Changed(fields) => {
                    let fields: Vec<_> = fields.iter().map(|field| field.name()).collect();
                    format!("C {} {}", one.path, fields.join(","))
                }
            })
            .collect()
    }

    #[test]
    fn what_is_as_it_was_is_no_difference() {
        let mut folder = entry("/etc", Kind::Folder);
        folder.meta.mtime = 99;
        assert_eq!(told(vec![]), [""; 0]);
        assert_eq!(
            told(vec![Change::There(folder), file("/etc/motd", "hello")]),
            [""; 0]
        );
    }

    #[test]
    fn each_field_is_named() {
        let other = |meta: fn(&mut Meta)| {
            let mut entry = entry("/etc/motd", Kind::File(Held::Content(content("hello"))));
            meta(&mut entry.meta);
            told(vec![Change::There(entry)])
        };
        assert_eq!(other(|meta| meta.mode = 0o600), ["C /etc/motd mode"]);
        assert_eq!(other(|meta| meta.gid = 5), ["C /etc/motd owner"]);
        assert_eq!(other(|meta| meta.mtime = 8), ["C /etc/motd time"]);
        let attributes = other(|meta| {
            meta.keep_xattr(b"user.x", b"1");
        });
        assert_eq!(attributes, ["C /etc/motd xattrs"]);
        assert_eq!(told(vec![file("/etc/motd", "HELLO")]), ["C /etc/motd content"]);
        let unread = entry("/etc/motd", Kind::File(Held::Unread(6)));
        assert_eq!(told(vec![Change::There(unread)]), ["C /etc/motd content"]);
        let link = entry("/bin/l", Kind::Symlink((*b"b").into()));
        assert_eq!(told(vec![Change::There(link)]), ["C /bin/l target"]);
        let socket = Change::Socket {
            path: path("/bin/a"),
            meta: Meta::new(0o755, 7),
        };
        assert_eq!(told(vec![socket]), ["C /bin/a type"]);
    }

    #[test]
    fn of_what_went_the_topmost_is_told() {
        assert_eq!(told(vec![Change::Gone(path("/etc"))]), ["D /etc folder"]);
        assert_eq!(told(vec![Change::Gone(path("/etc/motd"))]), ["D /etc/motd file"]);
        assert_eq!(told(vec![Change::Gone(path("/never"))]), [""; 0]);
    }

    #[test]
    fn a_folder_that_was_made_anew_has_lost_what_was_in_it() {
        let anew = vec![
            Change::Cleared(path("/etc")),
            Change::There(entry("/etc", Kind::Folder)),
            file("/etc/motd", "hello"),
            file("/etc/new", "new"),
        ];
        assert_eq!(told(anew), ["D /etc/conf.d folder", "A /etc/new file"]);
    }

    #[test]
    fn a_file_in_the_place_of_a_folder_takes_all_of_it() {
        assert_eq!(told(vec![file("/etc/conf.d", "x")]), ["C /etc/conf.d type"]);
    }

    #[test]
    fn a_renamed_folder_is_there_with_all_that_it_had() {
        let moved = vec![
            Change::Gone(path("/etc/conf.d")),
            Change::Moved {
                path: path("/new"),
                from: path("/etc/conf.d"),
            },
            Change::There(entry("/new", Kind::Folder)),
            Change::Gone(path("/new/x")),
        ];
        assert_eq!(
            told(moved),
            ["D /etc/conf.d folder", "A /new folder", "A /new/y file"]
        );
    }

    #[test]
    fn a_file_whose_bytes_stayed_below_is_compared_by_them() {
        let redressed = |from: &str| Change::Redressed {
            path: path("/etc/motd"),
            meta: Meta::new(0o600, 7),
            from: path(from),
        };
        assert_eq!(told(vec![redressed("/etc/motd")]), ["C /etc/motd mode"]);
        assert_eq!(told(vec![redressed("/bin/a")]), ["C /etc/motd content,mode"]);
        assert_eq!(told(vec![redressed("/nowhere")]), ["C /etc/motd content,mode"]);
    }

    #[test]
    fn another_name_of_a_file_is_that_file() {
        let linked = vec![
            file("/bin/b", "b"),
            Change::There(entry("/bin/c", Kind::HardLink(path("/bin/b")))),
        ];
        assert_eq!(told(linked), ["A /bin/b file", "A /bin/c file"]);
    }
}
