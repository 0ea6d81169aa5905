//! The writable layer: a tmpfs that only the run sees, gone with it. [`Scratch`] is decided beforehand; [`make`] is
//! called in the child, which stands in the store's folder, and does not allocate.
//!
//! ```text
//! scratch/upper   what is written; dressed like the image's own root, whose place it takes
//! scratch/work    overlayfs' own
//! scratch/disk    a folder with these two, where writes go to a disk
//! scratch/empty   what hides a folder
//! scratch/conf    the three files of /etc, where this run's differ from the store's
//! scratch/root    the container's root is mounted here
//! ```

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use super::kept::Kept;
use crate::spec::ScratchKind;
use crate::sys::place::{self, Dress};
use crate::sys::process::c_string;
use crate::sys::{SysError, mount};

/// What the writable layer starts with.
#[derive(Debug)]
pub struct Scratch {
    /// What the image's root folder is dressed in.
    pub root: Dress,
    /// The files of `/etc` that this run has of its own.
    pub conf: Option<OwnConf>,
    /// How many bytes the tmpfs can hold; `None`: half of the machine's memory.
    pub size: Option<CString>,
    /// The folder on a disk that holds `upper` and `work`.
    pub disk: Option<Disk>,
    /// Where everything is.
    pub names: Names,
}

/// A folder on a disk, for whoever makes the scratch.
#[derive(Debug)]
pub enum Disk {
    /// By its name, and what was found there when it was checked: filesystem and number.
    Path(CString, (u64, u64)),
    /// As a mount that has no place yet.
    Mount(OwnedFd),
}

/// Where things are in the scratch, seen from the working directory of whoever makes it.
#[derive(Debug, Clone, Copy)]
pub struct Names {
    /// The tmpfs itself; `None`: it lies over the working directory, and whoever makes it goes there, because the store
    /// cannot be named.
    pub top: Option<&'static CStr>,
    /// Where the container's root is mounted.
    pub root: &'static CStr,
    /// The empty folder.
    pub empty: &'static CStr,
    /// What is written.
    pub upper: &'static CStr,
    /// Overlayfs' own.
    pub work: &'static CStr,
}

impl Names {
    /// Returns those for writes to memory or to a disk, seen from the folder that the scratch is mounted on, and then
    /// from the scratch itself.
    pub const fn from_inside(disk: bool) -> Self {
        Self {
            top: None,
            root: c"root",
            empty: c"empty",
            upper: if disk { c"disk/upper" } else { c"upper" },
            work: if disk { c"disk/work" } else { c"work" },
        }
    }

    /// Returns those for writes to memory or to a disk, seen from the store's folder.
    pub const fn from_store(disk: bool) -> Self {
        Self {
            top: Some(c"scratch"),
            root: c"scratch/root",
            empty: c"scratch/empty",
            upper: if disk {
                c"scratch/disk/upper"
            } else {
                c"scratch/upper"
            },
            work: if disk {
                c"scratch/disk/work"
            } else {
                c"scratch/work"
            },
        }
    }
}

/// Files of `/etc` that the store does not keep.
#[derive(Debug)]
pub struct OwnConf {
    /// What the image's `/etc` is dressed in, where that is a folder.
    pub etc: Dress,
    /// Name below `conf/etc` and content of each.
    pub files: Vec<(CString, Vec<u8>)>,
}

/// How a folder is dressed that an image does not have.
const PLAIN: Dress = Dress {
    mode: 0o755,
    owner: None,
    modified: (0, 0),
};

impl Scratch {
    /// Returns the scratch of a run of `tree`, with these `files` (name in `/etc`, content) where it has its own.
    pub fn for_tree(tree: &Path, files: Option<Vec<(&str, String)>>) -> Result<Self, SysError> {
        Ok(Self {
            root: place::dress_of(tree)?,
            conf: files.map(|files| OwnConf {
                etc: place::dress_of(&tree.join("etc")).unwrap_or(PLAIN),
                files: conf_files(files),
            }),
            size: None,
            disk: None,
            names: Names::from_store(false),
        })
    }

    /// Fills the files of `/etc` that this run has of its own: name and content of each.
    pub fn fill_conf(&mut self, files: Vec<(&str, String)>) {
        if let Some(conf) = &mut self.conf {
            conf.files = conf_files(files);
        }
    }

    /// Has writes go to where `kind` says. `inside` tells that the store cannot be named by whoever makes the scratch.
    pub fn aim(&mut self, kind: &ScratchKind, inside: bool) {
        let disk = !matches!(kind, ScratchKind::Memory { .. });
        self.names = match inside {
            true => Names::from_inside(disk),
            false => Names::from_store(disk),
        };
        if let ScratchKind::Memory { size: Some(size) } = kind {
            self.size = c_string(size.to_string());
        }
    }

    /// Has writes go to a disk.
    pub fn write_to(&mut self, kept: &Kept) {
        self.disk = c_string(kept.path()).map(|path| Disk::Path(path, kept.inode()));
    }

    /// Takes away owners that the caller's user namespace cannot name: what they dress stays root's.
    pub fn keep_owners(&mut self, named: impl Fn(u32, u32) -> bool) {
        let conf = self.conf.as_mut().map(|conf| &mut conf.etc);
        for dress in [Some(&mut self.root), conf].into_iter().flatten() {
            dress.owner = dress.owner.filter(|&(uid, gid)| named(uid, gid));
        }
    }
}

fn conf_files(files: Vec<(&str, String)>) -> Vec<(CString, Vec<u8>)> {
    files
        .into_iter()
        .filter_map(|(name, text)| Some((CString::new(format!("conf/etc/{name}")).ok()?, text.into_bytes())))
        .collect()
}

/// Mounts the scratch in the store's folder, which is the working directory, and fills it.
pub fn make(scratch: &Scratch) -> Result<(), SysError> {
    let new = mount::NewFs::open(c"tmpfs")?;
    new.set(c"mode", c"0700")?;
    if let Some(size) = &scratch.size {
        new.set(c"size", size)?;
    }
    let top = mount::Attr {
        no_dev: true,
        ..mount::Attr::default()
    };
    let tree = new.mount(top)?;
    let tree = tree.as_fd();
    match scratch.names.top {
        Some(top) => mount::attach_here(tree, top)?,
        None => {
            mount::attach_over(tree)?;
            place::go_to(tree)?;
        }
    }
    place::make_folder(tree, c"root", 0o755)?;
    place::make_folder(tree, c"empty", 0o555)?;
    if let Some(conf) = &scratch.conf {
        place::make_folder(tree, c"conf", 0o755)?;
        place::make_folder(tree, c"conf/etc", 0o755)?;
        for (path, bytes) in &conf.files {
            place::write_file(tree, path, 0o644, bytes)?;
        }
        place::put_on(tree, c"conf/etc", conf.etc)?;
    }
    if let Some(disk) = &scratch.disk {
        place::make_folder(tree, c"disk", 0o700)?;
        return match disk {
            Disk::Path(path, inode) => {
                let copy = mount::copy(path, false)?;
                // Whoever owns a folder above it may have put another in its place since it was checked.
                place::must_be(copy.as_fd(), *inode)?;
                mount::attach_at(copy.as_fd(), tree, c"disk")
            }
            Disk::Mount(mount) => mount::attach_at(mount.as_fd(), tree, c"disk"),
        };
    }
    for folder in [c"upper", c"work"] {
        place::make_folder(tree, folder, 0o755)?;
    }
    place::put_on(tree, c"upper", scratch.root)
}

/// Opens the folder that holds `upper`, which has been made, as a place, for whoever wants to see later what was written:
/// the scratch itself, with `conf` in it, wherever the layer cannot be named otherwise.
pub fn open(scratch: &Scratch) -> Result<OwnedFd, SysError> {
    place::open_here(match (&scratch.disk, scratch.names.top) {
        (Some(Disk::Mount(_)), None) => c"disk",
        (Some(Disk::Mount(_)), Some(_)) => c"scratch/disk",
        (_, None) => c".",
        (_, Some(top)) => top,
    })
}

/// Opens the run's own `/etc/hosts`, which has been made, for whoever writes to it later. The container cannot: what it
/// writes goes to a copy.
pub fn open_hosts(scratch: &Scratch) -> Result<OwnedFd, SysError> {
    place::open_to_write(match scratch.names.top {
        None => c"conf/etc/hosts",
        Some(_) => c"scratch/conf/etc/hosts",
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn etc_is_dressed_like_the_images_own_only_where_that_is_a_folder() {
        let temp = tempfile::tempdir().unwrap();
        let (tree, etc) = (temp.path().join("tree"), temp.path().join("tree/etc"));
        let mode = || {
            let scratch = Scratch::for_tree(&tree, Some(vec![("hosts", String::new())])).unwrap();
            scratch.conf.unwrap().etc.mode
        };
        fs_err::create_dir_all(&etc).unwrap();
        fs_err::set_permissions(&etc, std::fs::Permissions::from_mode(0o710)).unwrap();
        assert_eq!(mode(), 0o710);
        fs_err::rename(&etc, temp.path().join("elsewhere")).unwrap();
        assert_eq!(mode(), PLAIN.mode, "there is none");
        symlink("../elsewhere", &etc).unwrap();
        assert_eq!(mode(), PLAIN.mode, "a symlink");
        fs_err::remove_file(&etc).unwrap();
        fs_err::write(&etc, "").unwrap();
        fs_err::set_permissions(&etc, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(mode(), PLAIN.mode, "a file");
    }
}
