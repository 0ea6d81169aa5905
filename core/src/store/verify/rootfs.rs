//! A rootfs folder against its tree, entry by entry.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use super::objects::{hash, meta_of};
use super::of_the_file;
use crate::path::TreePath;
use crate::store::layout::{Format, ObjectName, Owners};
use crate::store::parents::Parents;
use crate::store::{Result, Store};
use crate::sys::SysError;
use crate::sys::dir::Dir;
use crate::sys::file::{FileKind, Stat};
use crate::tree::{Node, NodeKind, Tree};

/// Returns the paths that are not as the tree has them, each with what is wrong. `good` are the objects that are what
/// they should be: a file that is one of them needs no reading.
pub(super) fn differences(
    store: &Store,
    root: &Dir,
    tree: &Tree,
    good: &HashSet<ObjectName>,
) -> Result<BTreeMap<TreePath, String>> {
    let mut found = BTreeMap::new();
    let mut parents = Parents::new(root);
    let mut children: HashMap<TreePath, BTreeSet<&[u8]>> = HashMap::new();
    for (path, node) in tree.iter() {
        if matches!(node.kind, NodeKind::Device { .. }) {
            continue;
        }
        if let (Some(parent), Some(name)) = (path.parent(), path.name()) {
            children.entry(parent).or_default().insert(name);
        }
        let compared = parents.of(path).and_then(|(folder, name)| {
            let at = At { store, folder, name };
            at.compare(node, good)
        });
        match compared {
            Ok(None) => {}
            Ok(Some(why)) => _ = found.insert(path.clone(), why),
            Err(error) => _ = found.insert(path.clone(), of_the_file(error)?),
        }
    }
    let none = BTreeSet::new();
    for (path, _) in tree.iter().filter(|(_, node)| node.is_folder()) {
        let listed = match root.open_dir(path.as_path()).and_then(|folder| folder.list()) {
            Ok(listed) => listed,
            Err(error) => {
                // Said already, when it was compared.
                of_the_file(error)?;
                continue;
            }
        };
        let expected = children.get(path).unwrap_or(&none);
        for (name, _) in listed {
            if !expected.contains(name.as_bytes())
                && let Ok(extra) = path.join(name.as_bytes())
            {
                found.insert(extra, "it is not in the tree".into());
            }
        }
    }
    Ok(found)
}

/// One place in the folder.
struct At<'a> {
    store: &'a Store,
    folder: &'a Dir,
    name: &'a Path,
}

impl At<'_> {
    /// Returns what is wrong, if anything.
    fn compare(&self, node: &Node, good: &HashSet<ObjectName>) -> Result<Option<String>, SysError> {
        let Some(stat) = self.folder.look(self.name)? else {
            return Ok(Some("it is missing".into()));
        };
        let (kind, what) = match node.kind {
            NodeKind::File { .. } => (FileKind::File, "file"),
            NodeKind::Folder => (FileKind::Folder, "folder"),
            NodeKind::Symlink(_) => (FileKind::Symlink, "symlink"),
            NodeKind::Fifo => (FileKind::Fifo, "named pipe"),
            NodeKind::Device { .. } => return Ok(None),
        };
        if stat.kind != kind {
            return Ok(Some(format!("it should be a {what}")));
        }
        match &node.kind {
            NodeKind::File { content, .. } => {
                let object = ObjectName::new(&content.digest, &node.meta, self.store.format());
                self.compare_file(node, &stat, &object, good)
            }
            NodeKind::Symlink(target) if self.folder.read_link(self.name)? != *target => {
                Ok(Some("it points elsewhere".into()))
            }
            NodeKind::Folder => {
                let (meta, _) = meta_of(&self.folder.open_dir(self.name)?)?;
                match self
                    .store
                    .format()
                    .held(&meta)
                    .eq(self.store.format().held(&node.meta))
                {
                    true => Ok(differs(self.store.format(), &stat, node)),
                    false => Ok(Some("its extended attributes differ".into())),
                }
            }
            _ => Ok(differs(self.store.format(), &stat, node)),
        }
    }

    fn compare_file(
        &self,
        node: &Node,
        stat: &Stat,
        object: &ObjectName,
        good: &HashSet<ObjectName>,
    ) -> Result<Option<String>, SysError> {
        let is_object = |folder: &Dir| {
            let found = folder.look(object.file());
            matches!(found, Ok(Some(found)) if found.inode == stat.inode)
        };
        if good.contains(object)
            && self
                .store
                .object_folder(object)
                .is_ok_and(|folder| is_object(&folder))
        {
            return Ok(None);
        }
        if let Some(why) = differs(self.store.format(), stat, node) {
            return Ok(Some(why));
        }
        let file = self.folder.open_file(self.name)?;
        let (digest, _) = hash(&file)?;
        let (meta, _) = meta_of(&file)?;
        Ok(
            match ObjectName::new(&digest, &meta, self.store.format()) == *object {
                true => None,
                false if object.as_str().starts_with(&digest.to_string()) => {
                    Some("its extended attributes differ".into())
                }
                false => Some(format!("its bytes hash to {digest}")),
            },
        )
    }
}

/// Returns how mode, owner or time differ from the tree's.
fn differs(format: &Format, stat: &Stat, node: &Node) -> Option<String> {
    let meta = &node.meta;
    let symlink = stat.kind == FileKind::Symlink;
    if !symlink && stat.mode != meta.mode {
        return Some(format!(
            "its mode is {:04o} and should be {:04o}",
            stat.mode, meta.mode
        ));
    }
    if format.owners != Owners::Single && (stat.uid, stat.gid) != (meta.uid, meta.gid) {
        let (is, should) = ((stat.uid, stat.gid), (meta.uid, meta.gid));
        return Some(format!(
            "its owner is {}:{} and should be {}:{}",
            is.0, is.1, should.0, should.1
        ));
    }
    let time = format.held_time(meta);
    if (stat.mtime, stat.mtime_nanos) != (time, 0) {
        let (is, nanos) = (stat.mtime, stat.mtime_nanos);
        return Some(format!("its time is {is}.{nanos:09} and should be {time}"));
    }
    None
}
