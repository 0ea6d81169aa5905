//! A folder of an image → the beginning of a volume: what is there is copied once, and from then on the volume goes its
//! own way.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::meta::{Meta, is_kept_xattr};
use crate::path::TreePath;
use crate::store::{Format, Result};
use crate::sys::dir::Dir;
use crate::sys::file::{self, FileKind};
use crate::sys::place::{self, Links};

/// Opens the folder `target` of the image whose tree is laid out at `tree`, with the image's own links followed inside of
/// it; `None` where the image has no such folder.
pub fn find(tree: &Path, target: &TreePath) -> Result<Option<Dir>> {
    let root = place::open_folder(tree)?;
    let Some(path) = crate::sys::process::c_string(target.as_path()) else {
        return Ok(None);
    };
    match place::find(root.as_fd(), &path, Links::Inside, true) {
        Ok(found) => Dir::from(found).open_dir(".").map(Some).map_err(Into::into),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
        Err(errno) => Err(crate::sys::SysError::new(errno, format_args!("openat2({path:?})")).into()),
    }
}

/// Returns what an open file or folder is dressed in, as far as a store holds it.
pub fn meta_of(file: impl AsFd) -> Result<Meta> {
    let stat = file::stat(&file)?;
    let xattrs = file::xattrs(&file, is_kept_xattr)?;
    Ok(Meta {
        mode: stat.mode,
        uid: stat.uid,
        gid: stat.gid,
        mtime: stat.mtime,
        xattrs: (!xattrs.is_empty()).then(|| Box::new(xattrs)),
    })
}

/// Copies all that is in `from` into the empty folder `to`. Each file becomes one of its own: equal files of an image are
/// one inode in a store, and in a volume a write to one must not show in another.
pub fn copy(format: &Format, from: &Dir, to: &Dir) -> Result<()> {
    let mut folders = vec![PathBuf::from(".")];
    let mut at = 0;
    while at < folders.len() {
        let path = folders[at].clone();
        let (here, there) = (from.open_dir(&path)?, to.open_dir(&path)?);
        for (name, kind) in here.list()? {
            let name = Path::new(&name);
            match kind {
                FileKind::Folder => {
                    there.make_dir(name, 0o700)?;
                    folders.push(path.join(name));
                }
                FileKind::File => copy_file(format, &here.open_file(name)?, &there, name)?,
                FileKind::Symlink => {
                    there.symlink(&here.read_link(name)?, name)?;
                    dress_name(format, &here, &there, name)?;
                }
                FileKind::Fifo => {
                    there.make_fifo(name, 0o600)?;
                    dress_name(format, &here, &there, name)?;
                    there.chmod(name, here.stat(name)?.mode)?;
                }
                // An image brings no devices with it.
                FileKind::Other => {}
            }
        }
        at += 1;
    }
    // The deepest first: until now they had to be writable, and everything made in one moves its time. The first of all
    // is dressed by whoever made it.
    for path in folders.iter().skip(1).rev() {
        format.dress(&to.open_dir(path)?, &meta_of(from.open_dir(path)?)?)?;
    }
    Ok(())
}

fn copy_file(format: &Format, from: &File, there: &Dir, name: &Path) -> Result<()> {
    let meta = meta_of(from)?;
    let to = there.create_file(name, 0o600)?;
    file::read_pieces(from, |piece| file::write(&to, piece))?;
    format.dress(&to, &meta)
}

/// Gives what is no file and no folder its owner and time.
fn dress_name(format: &Format, here: &Dir, there: &Dir, name: &Path) -> Result<()> {
    let stat = here.stat(name)?;
    if format.owners != crate::store::Owners::Single {
        there.chown(name, stat.uid, stat.gid)?;
    }
    Ok(there.set_mtime(name, stat.mtime)?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

    use super::*;
    use crate::store::{Owners, Store};

    #[test]
    fn a_volume_begins_with_files_of_its_own() {
        let temp = tempfile::tempdir().unwrap();
        let store = Store::open(&temp.path().join("store"), Owners::Single).unwrap();
        let (tree, to) = (temp.path().join("tree"), temp.path().join("to"));
        fs_err::create_dir_all(tree.join("var/lib/db/deep")).unwrap();
        fs_err::create_dir(&to).unwrap();
        let db = tree.join("var/lib/db");
        fs_err::write(db.join("one"), "x").unwrap();
        fs_err::hard_link(db.join("one"), db.join("deep/two")).unwrap();
        symlink("../../../..", db.join("up")).unwrap();
        fs_err::set_permissions(db.join("deep"), std::fs::Permissions::from_mode(0o550)).unwrap();
        symlink("/var/lib", tree.join("link")).unwrap();
        let target = TreePath::parse("link/db").unwrap();
        let from = find(&tree, &target).unwrap().unwrap();
        copy(store.format(), &from, &Dir::open(&to).unwrap()).unwrap();
        assert_eq!(fs_err::read_to_string(to.join("deep/two")).unwrap(), "x");
        assert_eq!(
            fs_err::read_link(to.join("up")).unwrap(),
            Path::new("../../../..")
        );
        assert_eq!(fs_err::metadata(to.join("deep")).unwrap().mode() & 0o7777, 0o550);
        assert_eq!(fs_err::metadata(to.join("one")).unwrap().nlink(), 1);
        assert_eq!(
            fs_err::metadata(to.join("one")).unwrap().mtime(),
            fs_err::metadata(db.join("one")).unwrap().mtime()
        );
        fs_err::set_permissions(to.join("deep"), std::fs::Permissions::from_mode(0o700)).unwrap();
        fs_err::set_permissions(db.join("deep"), std::fs::Permissions::from_mode(0o700)).unwrap();
    }

    #[test]
    fn only_a_folder_of_the_image_is_a_beginning() {
        let temp = tempfile::tempdir().unwrap();
        fs_err::write(temp.path().join("file"), "").unwrap();
        symlink("/", temp.path().join("root")).unwrap();
        for (path, there) in [
            ("file", false),
            ("none", false),
            ("root", true),
            ("root/root/file", false),
        ] {
            let target = TreePath::parse(path).unwrap();
            assert_eq!(find(temp.path(), &target).unwrap().is_some(), there, "{path}");
        }
    }
}
