//! The writable layer → what it changed: reads the folder that overlayfs writes to, its notes included.
//!
//! ```text
//! a character device 0/0, or the attribute `overlay.whiteout`   nothing is there any more
//! the attribute `overlay.opaque`                                what lies below in this folder is not seen
//! the attribute `overlay.redirect`                              a folder or file of the layers below, renamed
//! the attribute `overlay.metacopy`                              the bytes are still those of the layers below
//! ```
//!
//! What is in the layer was written by a container, and may still be: everything is opened below the layer's handle and
//! no link is followed; only what is a regular file, looked at through the very handle that is read, is ever opened for
//! reading. What goes away in between is passed over. Documentation/filesystems/overlayfs.rst describes the notes.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;

use crate::entry::{Change, Entry, Kind};
use crate::meta::{Meta, Xattrs, is_kept_xattr};
use crate::path::{BadPath, TreePath};
use crate::sys::dir::Dir;
use crate::sys::file::{self, Device, FileKind, Stat};
use crate::sys::{Errno, SysError};

/// Under which name overlayfs keeps its notes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notes {
    /// `trusted.overlay.*`, which only root of the machine sees.
    Trusted,
    /// `user.overlay.*`: a mount with the option `userxattr`, made in a user namespace.
    User,
}

impl Notes {
    fn name(self, note: &str) -> String {
        match self {
            Self::Trusted => format!("trusted.overlay.{note}"),
            Self::User => format!("user.overlay.{note}"),
        }
    }
}

/// A layer that cannot be read, or holds what no image can.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A call failed.
    #[error("cannot read the writable layer")]
    Sys(#[from] SysError),
    /// A path that is none in an image: too long, because folders lie too deep.
    #[error("cannot read all of the writable layer")]
    Path(#[from] BadPath),
    /// Whoever takes the changes failed.
    #[error(transparent)]
    Taken(Box<dyn std::error::Error + Send + Sync>),
}

/// Reads the layer in the folder `upper` and hands each change on; a file comes with its bytes still to be read.
pub fn capture(
    upper: &Dir,
    notes: Notes,
    take: &mut dyn FnMut(Change<&File>) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut reader = Reader {
        upper,
        names: Names::new(notes),
        known: HashMap::new(),
        pending: Vec::new(),
        take,
    };
    let root = file::stat(upper)?;
    let (meta, _) = reader.meta(&root, upper)?;
    (reader.take)(there(TreePath::root(), meta, Kind::Folder))?;
    reader.pending.push((TreePath::root(), Some(TreePath::root())));
    // No recursion and one open folder at a time, however deep a container has nested them.
    while let Some((path, below)) = reader.pending.pop() {
        reader.folder(&path, below.as_ref())?;
    }
    Ok(())
}

fn there<B>(path: TreePath, meta: Meta, kind: Kind<B>) -> Change<B> {
    Change::There(Entry { path, meta, kind })
}

/// The names of overlayfs' notes.
struct Names {
    opaque: String,
    whiteout: String,
    redirect: String,
    metacopy: String,
}

impl Names {
    fn new(notes: Notes) -> Self {
        Self {
            opaque: notes.name("opaque"),
            whiteout: notes.name("whiteout"),
            redirect: notes.name("redirect"),
            metacopy: notes.name("metacopy"),
        }
    }

    fn is_one(&self, name: &[u8]) -> bool {
        [&self.opaque, &self.whiteout, &self.redirect, &self.metacopy]
            .iter()
            .any(|note| note.as_bytes() == name)
    }
}

struct Reader<'a> {
    upper: &'a Dir,
    names: Names,
    /// The first name of each file that has more than one.
    known: HashMap<(u64, u64), TreePath>,
    /// Folders still to be read, and which folder of the layers below each is joined with.
    pending: Vec<(TreePath, Option<TreePath>)>,
    take: &'a mut dyn FnMut(Change<&File>) -> Result<(), Error>,
}

impl Reader<'_> {
    fn folder(&mut self, path: &TreePath, below: Option<&TreePath>) -> Result<(), Error> {
        let Some(dir) = meanwhile(self.upper.open_dir(path.as_path()))? else {
            return Ok(());
        };
        let Some(mut found) = meanwhile(dir.list())? else {
            return Ok(());
        };
        found.sort_by(|a, b| a.0.cmp(&b.0));
        for (name, _) in found {
            let name = name.as_bytes();
            let below = below.map(|below| below.join(name)).transpose()?;
            self.one(&dir, name, path.join(name)?, below)?;
        }
        Ok(())
    }

    fn one(&mut self, dir: &Dir, name: &[u8], path: TreePath, below: Option<TreePath>) -> Result<(), Error> {
        let name = OsStr::from_bytes(name);
        let Some(stat) = meanwhile(dir.stat(name))? else {
            return Ok(());
        };
        match (stat.kind, stat.device) {
            (FileKind::Folder, _) => self.subfolder(dir, name, path, below),
            (FileKind::File, _) => self.file(dir, name, path, below),
            (FileKind::Symlink, _) => match meanwhile(dir.read_link(name))? {
                Some(target) => (self.take)(there(path, plain(&stat), Kind::Symlink(target))),
                None => Ok(()),
            },
            (FileKind::Fifo, _) => (self.take)(there(path, plain(&stat), Kind::Fifo)),
            (FileKind::Other, Some(WHITEOUT)) => (self.take)(Change::Gone(path)),
            (FileKind::Other, Some(Device { block, major, minor })) => {
                (self.take)(there(path, plain(&stat), Kind::Device { block, major, minor }))
            }
            (FileKind::Other, None) => (self.take)(Change::Socket {
                path,
                meta: plain(&stat),
            }),
        }
    }

    fn subfolder(
        &mut self,
        dir: &Dir,
        name: &OsStr,
        path: TreePath,
        mut below: Option<TreePath>,
    ) -> Result<(), Error> {
        let Some(folder) = meanwhile(dir.open_dir(name))? else {
            return Ok(());
        };
        let (meta, notes) = self.meta(&file::stat(&folder)?, &folder)?;
        if notes
            .get(self.names.opaque.as_bytes())
            .is_some_and(|value| **value == *b"y")
        {
            below = None;
            (self.take)(Change::Cleared(path.clone()))?;
        } else if let Some(from) = self.redirected(&notes, below.as_ref())? {
            below = Some(from.clone());
            let path = path.clone();
            (self.take)(Change::Moved { path, from })?;
        }
        (self.take)(there(path.clone(), meta, Kind::Folder))?;
        self.pending.push((path, below));
        Ok(())
    }

    fn file(
        &mut self,
        dir: &Dir,
        name: &OsStr,
        path: TreePath,
        below: Option<TreePath>,
    ) -> Result<(), Error> {
        let Some(place) = meanwhile(dir.open_place(name))? else {
            return Ok(());
        };
        let stat = file::stat(&place)?;
        if stat.kind != FileKind::File {
            return Ok(());
        }
        if stat.linked {
            if let Some(first) = self.known.get(&stat.inode) {
                let first = first.clone();
                return (self.take)(there(path, plain(&stat), Kind::HardLink(first)));
            }
            self.known.insert(stat.inode, path.clone());
        }
        let open = file::reopen(&place)?;
        let (meta, notes) = self.meta(&stat, &open)?;
        if stat.size == 0 && notes.contains_key(self.names.whiteout.as_bytes()) {
            return (self.take)(Change::Gone(path));
        }
        if notes.contains_key(self.names.metacopy.as_bytes()) {
            let from = self.redirected(&notes, below.as_ref())?.or(below);
            let from = from.unwrap_or_else(|| path.clone());
            return (self.take)(Change::Redressed { path, meta, from });
        }
        (self.take)(there(path, meta, Kind::File(&open)))
    }

    /// Where in the layers below a folder or file comes from that was renamed: another name in the same folder, or a path
    /// from the root.
    fn redirected(&self, notes: &Xattrs, below: Option<&TreePath>) -> Result<Option<TreePath>, Error> {
        let Some(to) = notes.get(self.names.redirect.as_bytes()) else {
            return Ok(None);
        };
        let to = to.strip_suffix(b"\0").unwrap_or(to);
        if to.starts_with(b"/") {
            return Ok(Some(TreePath::normalise(to)?));
        }
        let folder = below.and_then(TreePath::parent).unwrap_or_else(TreePath::root);
        Ok(Some(folder.join(to)?))
    }

    /// Returns what a file or folder carries, and overlayfs' notes on it.
    fn meta(&self, stat: &Stat, open: &impl std::os::fd::AsFd) -> Result<(Meta, Xattrs), Error> {
        let mut meta = plain(stat);
        let mut notes = file::xattrs(open, |name| is_kept_xattr(name) || self.names.is_one(name))?;
        notes.retain(|name, value| !meta.keep_xattr(name, value));
        Ok((meta, notes))
    }
}

/// What stands for a file that is no longer there.
const WHITEOUT: Device = Device {
    block: false,
    major: 0,
    minor: 0,
};

fn plain(stat: &Stat) -> Meta {
    Meta {
        mode: match stat.kind {
            // Linux keeps no mode for symbolic links (symlink(7)).
            FileKind::Symlink => 0o777,
            _ => stat.mode,
        },
        uid: stat.uid,
        gid: stat.gid,
        mtime: stat.mtime,
        xattrs: None,
    }
}

/// Turns what shows that something was replaced between two looks at it into nothing.
fn meanwhile<T>(done: Result<T, SysError>) -> Result<Option<T>, SysError> {
    match done {
        Err(gone) if [Errno::NOENT, Errno::NOTDIR, Errno::LOOP, Errno::INVAL].contains(&gone.errno) => {
            Ok(None)
        }
        done => done.map(Some),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use super::*;

    fn text(change: Change<&File>) -> String {
        match change {
            Change::There(Entry { path, kind, .. }) => match kind {
                Kind::File(mut file) => {
                    let mut text = String::new();
                    file.read_to_string(&mut text).unwrap();
                    format!("file {path} {text}")
                }
                Kind::Folder => format!("folder {path}"),
                Kind::HardLink(first) => format!("link {path} {first}"),
                Kind::Symlink(to) => format!("symlink {path} {}", String::from_utf8_lossy(&to)),
                Kind::Fifo => format!("fifo {path}"),
                Kind::Device { major, minor, .. } => format!("device {path} {major}:{minor}"),
            },
            Change::Gone(path) => format!("gone {path}"),
            Change::Cleared(path) => format!("cleared {path}"),
            Change::Moved { path, from } => format!("moved {path} {from}"),
            Change::Redressed { path, from, .. } => format!("redressed {path} {from}"),
            Change::Socket { path, .. } => format!("socket {path}"),
        }
    }

    fn captured(upper: &Path, notes: Notes) -> Vec<String> {
        let mut found = Vec::new();
        capture(&Dir::open(upper).unwrap(), notes, &mut |change| {
            found.push(text(change));
            Ok(())
        })
        .unwrap();
        found
    }

    fn note(path: &Path, name: &str, value: &[u8]) -> bool {
        file::set_xattr(fs_err::File::open(path).unwrap(), name.as_bytes(), value).is_ok()
    }

    #[test]
    fn every_kind_of_file_is_told_and_no_link_followed() {
        let temp = tempfile::tempdir().unwrap();
        let upper = temp.path().join("upper");
        fs_err::create_dir_all(upper.join("a/b")).unwrap();
        fs_err::write(temp.path().join("secret"), "secret").unwrap();
        fs_err::write(upper.join("a/f"), "text").unwrap();
        fs_err::hard_link(upper.join("a/f"), upper.join("a/g")).unwrap();
        symlink("../../secret", upper.join("a/out")).unwrap();
        symlink("..", upper.join("up")).unwrap();
        Dir::open(&upper).unwrap().make_fifo("pipe", 0o600).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(upper.join("sock")).unwrap();
        assert_eq!(
            captured(&upper, Notes::User),
            [
                "folder /",
                "folder /a",
                "fifo /pipe",
                "socket /sock",
                "symlink /up ..",
                "folder /a/b",
                "file /a/f text",
                "link /a/g /a/f",
                "symlink /a/out ../../secret",
            ]
        );
    }

    #[test]
    #[expect(clippy::print_stderr, reason = "it says why it is skipped")]
    fn notes_are_read_under_the_name_of_the_mount_only() {
        let temp = tempfile::tempdir().unwrap();
        let upper = temp.path();
        for folder in ["opaque", "moved", "near"] {
            fs_err::create_dir_all(upper.join(folder).join("in")).unwrap();
        }
        for file in ["gone", "same"] {
            fs_err::write(upper.join(file), "").unwrap();
        }
        fs_err::write(upper.join("moved/in/f"), "").unwrap();
        if !note(&upper.join("opaque"), "user.overlay.opaque", b"y") {
            eprintln!("skipped: needs user.* attributes in the folder for temporary files");
            return;
        }
        assert!(note(&upper.join("moved"), "user.overlay.redirect", b"/x/y"));
        assert!(note(&upper.join("near/in"), "user.overlay.redirect", b"out"));
        assert!(note(&upper.join("gone"), "user.overlay.whiteout", b""));
        assert!(note(&upper.join("same"), "user.overlay.metacopy", b""));
        assert!(note(&upper.join("moved/in/f"), "user.overlay.metacopy", b""));
        let of_user = captured(upper, Notes::User);
        for line in [
            "cleared /opaque",
            "moved /moved /x/y",
            "gone /gone",
            "redressed /same /same",
            "redressed /moved/in/f /x/y/in/f",
            "moved /near/in /near/out",
        ] {
            assert!(of_user.contains(&line.to_owned()), "{line}: {of_user:?}");
        }
        let of_root = captured(upper, Notes::Trusted);
        assert!(of_root.contains(&"file /gone ".to_owned()), "{of_root:?}");
        assert!(
            of_root
                .iter()
                .all(|line| line.starts_with("file") || line.starts_with("folder")),
            "{of_root:?}"
        );
    }

    #[test]
    fn folders_that_lie_deeper_than_a_path_is_long_are_an_error_and_no_crash() {
        let temp = tempfile::tempdir().unwrap();
        let mut here = Dir::open(temp.path()).unwrap();
        let name = "d".repeat(200);
        for _ in 0..25 {
            here.make_dir(&name, 0o755).unwrap();
            here = here.open_dir(&name).unwrap();
        }
        let failed = capture(&Dir::open(temp.path()).unwrap(), Notes::User, &mut |_| Ok(()));
        assert!(matches!(failed, Err(Error::Path(_))), "{failed:?}");
    }
}
