//! A tree → a tar archive: POSIX pax headers, only where a ustar header is too small. The same tree, the same bytes.

use std::io::{self, Read, Write};

use tar::{EntryType, Header};

use super::{Error, Open};
use crate::entry::Content;
use crate::meta::Meta;
use crate::path::TreePath;
use crate::tree::{Node, NodeKind, Tree};

/// Bytes of a name or of a link's target that a ustar header holds (tar(5)).
const NAME: usize = 100;
/// The greatest number in a field of eight octal digits, one of them NUL.
const ID: u64 = 0o7_777_777;
/// The greatest number in a field of twelve.
const NUMBER: u64 = 0o77_777_777_777;

/// Writes `tree` to `out`, files with what `open` gives; returns `out`.
pub fn write<W: Write>(tree: &Tree, open: &Open<'_>, out: W) -> Result<W, Error> {
    let mut archive = tar::Builder::new(out);
    let mut first_names = std::collections::BTreeMap::new();
    for (path, node) in tree.iter() {
        let said = |source| Error::Archive {
            path: path.clone(),
            source,
        };
        let mut entry = Entry::new(path, node);
        match &node.kind {
            NodeKind::File { content, group } => match group.map(|group| (group, first_names.get(&group))) {
                Some((_, Some(first))) => {
                    entry.link(EntryType::Link, &name(first, false));
                    entry.append(&mut archive, io::empty()).map_err(said)?;
                }
                first => {
                    if let Some((group, _)) = first {
                        first_names.insert(group, path.clone());
                    }
                    let body = whole(path, content, &node.meta, open)?;
                    entry.size(content.size);
                    entry.append(&mut archive, body).map_err(said)?;
                }
            },
            _ => entry.append(&mut archive, io::empty()).map_err(said)?,
        }
    }
    archive.into_inner().map_err(|source| Error::Archive {
        path: TreePath::root(),
        source,
    })
}

/// Opens a file of the tree; what it gives is as long as the header will say, or an error.
fn whole(path: &TreePath, content: &Content, meta: &Meta, open: &Open<'_>) -> Result<Whole, Error> {
    let body = open(content, meta).map_err(|source| Error::Read {
        path: path.clone(),
        source,
    })?;
    Ok(Whole {
        body,
        left: content.size,
    })
}

/// A body that ends exactly where it should.
struct Whole {
    body: Box<dyn Read>,
    left: u64,
}

impl Read for Whole {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let got = self.body.read(&mut buffer[..most])?;
        if got == 0 && most > 0 {
            let what = format!("the file in the store is {} bytes too short", self.left);
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, what));
        }
        self.left -= got as u64;
        Ok(got)
    }
}

/// A header, and the pax records that go before it.
struct Entry {
    header: Header,
    records: Vec<u8>,
}

impl Entry {
    fn new(path: &TreePath, node: &Node) -> Self {
        let mut entry = Self {
            header: Header::new_ustar(),
            records: Vec::new(),
        };
        entry.name(&name(path, matches!(node.kind, NodeKind::Folder)));
        entry.meta(&node.meta);
        entry.header.set_size(0);
        match &node.kind {
            NodeKind::Folder => entry.header.set_entry_type(EntryType::Directory),
            NodeKind::File { .. } => entry.header.set_entry_type(EntryType::Regular),
            NodeKind::Symlink(target) => entry.link(EntryType::Symlink, target),
            NodeKind::Fifo => entry.header.set_entry_type(EntryType::Fifo),
            NodeKind::Device { block, major, minor } => {
                entry
                    .header
                    .set_entry_type(if *block { EntryType::Block } else { EntryType::Char });
                if let Some(ustar) = entry.header.as_ustar_mut() {
                    ustar.set_device_major(*major);
                    ustar.set_device_minor(*minor);
                }
            }
        }
        entry
    }

    fn name(&mut self, name: &[u8]) {
        if name.len() > NAME {
            self.record(b"path", name);
        }
        let field = &mut self.header.as_old_mut().name;
        let fits = name.len().min(NAME);
        field[..fits].copy_from_slice(&name[..fits]);
    }

    fn link(&mut self, kind: EntryType, target: &[u8]) {
        self.header.set_entry_type(kind);
        if target.len() > NAME {
            self.record(b"linkpath", target);
        }
        let field = &mut self.header.as_old_mut().linkname;
        let fits = target.len().min(NAME);
        field[..fits].copy_from_slice(&target[..fits]);
    }

    fn size(&mut self, size: u64) {
        if size > NUMBER {
            self.record(b"size", size.to_string().as_bytes());
        }
        // Beyond what octal digits hold, the field has the number in base 256, as GNU tar writes it.
        self.header.set_size(size);
    }

    fn meta(&mut self, meta: &Meta) {
        self.header.set_mode(meta.mode.into());
        let (uid, gid) = (u64::from(meta.uid), u64::from(meta.gid));
        for (key, id) in [(&b"uid"[..], uid), (b"gid", gid)] {
            if id > ID {
                self.record(key, id.to_string().as_bytes());
            }
        }
        self.header.set_uid(uid.min(ID));
        self.header.set_gid(gid.min(ID));
        match u64::try_from(meta.mtime) {
            Ok(mtime) if mtime <= NUMBER => self.header.set_mtime(mtime),
            _ => {
                self.record(b"mtime", meta.mtime.to_string().as_bytes());
                self.header.set_mtime(0);
            }
        }
        for (name, value) in meta.xattrs.iter().flat_map(|xattrs| xattrs.iter()) {
            self.record(&[b"SCHILY.xattr.", &name[..]].concat(), value);
        }
    }

    /// Adds `<length> <key>=<value>\n`, where the length counts itself (pax(1)).
    fn record(&mut self, key: &[u8], value: &[u8]) {
        let rest = key.len() + value.len() + 3;
        let mut digits = 1;
        while (rest + digits).to_string().len() > digits {
            digits += 1;
        }
        self.records
            .extend_from_slice((rest + digits).to_string().as_bytes());
        for part in [b" ", key, b"=", value, b"\n"] {
            self.records.extend_from_slice(part);
        }
    }

    fn append<W: Write>(mut self, archive: &mut tar::Builder<W>, body: impl Read) -> io::Result<()> {
        if !self.records.is_empty() {
            let mut pax = Header::new_ustar();
            pax.as_old_mut().name[..9].copy_from_slice(b"PaxHeader");
            pax.set_entry_type(EntryType::XHeader);
            pax.set_size(self.records.len() as u64);
            pax.set_mode(0o644);
            pax.set_uid(0);
            pax.set_gid(0);
            pax.set_mtime(0);
            pax.set_cksum();
            archive.append(&pax, &self.records[..])?;
        }
        self.header.set_cksum();
        archive.append(&self.header, body)
    }
}

/// Returns the name of an entry: `./` for the root, and a slash after a folder's.
fn name(path: &TreePath, folder: bool) -> Vec<u8> {
    let mut name = if path.is_root() {
        b".".to_vec()
    } else {
        path.as_bytes().to_vec()
    };
    if folder {
        name.push(b'/');
    }
    name
}
