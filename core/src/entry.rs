//! [`Entry`]: one file as an archive, a folder or a layer tells it. `B` is what a file holds: a reader on the way out
//! of `unpack`, a [`Content`] on the way into `tree`.

use crate::digest::Digest;
use crate::meta::Meta;
use crate::path::TreePath;

/// One file of a layer: where it is, what it carries, what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry<B> {
    /// Where it is, from the root of the layer.
    pub path: TreePath,
    /// Mode, owner, time, extended attributes. A hard link's are those of its target, and ignored.
    pub meta: Meta,
    /// What it is.
    pub kind: Kind<B>,
}

/// What a file is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind<B> {
    /// A regular file with its content.
    File(B),
    /// A folder.
    Folder,
    /// A symbolic link with its target, as written; it may point anywhere.
    Symlink(Box<[u8]>),
    /// Another name of a file that came before in the same layer (path from the root of the layer).
    HardLink(TreePath),
    /// A device node: kept in the tree, never created on disk.
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

/// What a regular file holds, by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Content {
    /// SHA-256 of the bytes.
    pub digest: Digest,
    /// Number of the bytes.
    pub size: u64,
}

/// What a writable layer did to the layers below it. A folder comes before what is in it; of one path there is at most
/// one [`Change::Cleared`] or [`Change::Moved`], and that before its entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change<B> {
    /// This is there, in the place of what was; a folder stays joined with the folder below.
    There(Entry<B>),
    /// Nothing is there any more.
    Gone(TreePath),
    /// What the layers below have in this folder is no longer seen.
    Cleared(TreePath),
    /// What the layers below have in the folder `from` is seen in this folder, in the place of what they have there.
    Moved {
        /// The folder as it is named now.
        path: TreePath,
        /// The folder of the layers below.
        from: TreePath,
    },
    /// A regular file that holds what `from` holds in the layers below, with metadata of its own.
    Redressed {
        /// Where it is.
        path: TreePath,
        /// What it carries now.
        meta: Meta,
        /// The file of the layers below.
        from: TreePath,
    },
    /// A socket, which no image keeps.
    Socket {
        /// Where it is.
        path: TreePath,
        /// What it carries.
        meta: Meta,
    },
}

impl<B> Entry<B> {
    /// Returns the same entry with its file content, if it is a file, turned into another kind of content.
    pub fn try_map<C, E>(self, turn: impl FnOnce(B, &Meta) -> Result<C, E>) -> Result<Entry<C>, E> {
        let kind = match self.kind {
            Kind::File(body) => Kind::File(turn(body, &self.meta)?),
            Kind::Folder => Kind::Folder,
            Kind::Symlink(target) => Kind::Symlink(target),
            Kind::HardLink(target) => Kind::HardLink(target),
            Kind::Device { block, major, minor } => Kind::Device { block, major, minor },
            Kind::Fifo => Kind::Fifo,
        };
        Ok(Entry {
            path: self.path,
            meta: self.meta,
            kind,
        })
    }
}
