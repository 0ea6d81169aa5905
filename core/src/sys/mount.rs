//! Mounts as handles (fsopen(2), open_tree(2), move_mount(2), mount_setattr(2)): made detached, put in place when ready.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::libc;
use rustix::fs::CWD;
use rustix::mount::{
    self, FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags,
    UnmountFlags,
};

use super::{Call, HERE, SysError, checked};

/// What a mount allows (mount_setattr(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Attr {
    /// Nothing can be written through it.
    pub read_only: bool,
    /// Set-user-id bits and file capabilities have no effect.
    pub no_suid: bool,
    /// Device nodes cannot be opened.
    pub no_dev: bool,
    /// Programs cannot be executed.
    pub no_exec: bool,
}

impl Attr {
    fn flags(self) -> MountAttrFlags {
        let mut flags = MountAttrFlags::empty();
        flags.set(MountAttrFlags::MOUNT_ATTR_RDONLY, self.read_only);
        flags.set(MountAttrFlags::MOUNT_ATTR_NOSUID, self.no_suid);
        flags.set(MountAttrFlags::MOUNT_ATTR_NODEV, self.no_dev);
        flags.set(MountAttrFlags::MOUNT_ATTR_NOEXEC, self.no_exec);
        flags
    }
}

/// A filesystem that is being configured (fsopen(2), Linux 5.2).
#[derive(Debug)]
pub struct NewFs(OwnedFd);

impl NewFs {
    /// Opens a configuration of a filesystem of this `kind`, such as `tmpfs`.
    pub fn open(kind: &CStr) -> Result<Self, SysError> {
        mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)
            .map(Self)
            .call("fsopen")
    }

    /// Sets the option `key` to `value` (at most 255 bytes).
    pub fn set(&self, key: &CStr, value: &CStr) -> Result<(), SysError> {
        mount::fsconfig_set_string(&self.0, key, value).call("fsconfig(FSCONFIG_SET_STRING)")
    }

    /// Sets the option `key`, which takes no value.
    pub fn flag(&self, key: &CStr) -> Result<(), SysError> {
        mount::fsconfig_set_flag(&self.0, key).call("fsconfig(FSCONFIG_SET_FLAG)")
    }

    /// Makes the filesystem and a detached mount of it.
    pub fn mount(&self, attr: Attr) -> Result<OwnedFd, SysError> {
        mount::fsconfig_create(&self.0).call("fsconfig(FSCONFIG_CMD_CREATE)")?;
        mount::fsmount(&self.0, FsMountFlags::FSMOUNT_CLOEXEC, attr.flags()).call("fsmount")
    }

    /// Reads the next complaint of the filesystem into `into` and returns its length; 0 where there is none.
    pub fn complaint(&self, into: &mut [u8]) -> usize {
        rustix::io::read(&self.0, into).unwrap_or(0)
    }
}

/// Returns a detached copy of the mount at `path`, with all that is mounted below it where `recursive`.
pub fn copy(path: &CStr, recursive: bool) -> Result<OwnedFd, SysError> {
    mount::open_tree(CWD, path, copy_flags(recursive)).call("open_tree")
}

/// Returns a detached copy of the mount at the handle `place`, alone.
pub fn copy_handle(place: BorrowedFd<'_>) -> Result<OwnedFd, SysError> {
    mount::open_tree(place, HERE, copy_flags(false) | OpenTreeFlags::AT_EMPTY_PATH).call("open_tree")
}

fn copy_flags(recursive: bool) -> OpenTreeFlags {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags | OpenTreeFlags::AT_RECURSIVE
    } else {
        flags
    }
}

/// Restricts the detached mount `tree` by `attr`, with all mounts below it where `recursive`, and cuts it off from
/// mounts and unmounts made elsewhere (mount_setattr(2), Linux 5.12).
pub fn restrict(tree: BorrowedFd<'_>, attr: Attr, recursive: bool) -> Result<(), SysError> {
    let wanted = libc::mount_attr {
        attr_set: u64::from(attr.flags().bits()),
        attr_clr: 0,
        propagation: libc::MS_PRIVATE,
        userns_fd: 0,
    };
    set_attr(tree, &wanted, recursive, "mount_setattr")
}

fn set_attr(
    tree: BorrowedFd<'_>,
    wanted: &libc::mount_attr,
    recursive: bool,
    call: &'static str,
) -> Result<(), SysError> {
    let mut flags = libc::AT_EMPTY_PATH;
    if recursive {
        flags |= libc::AT_RECURSIVE;
    }
    // SAFETY: the handle is open, the path is a C string, and `wanted` outlives the call with its true size.
    let returned = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            HERE.as_ptr(),
            flags,
            std::ptr::from_ref(wanted),
            size_of::<libc::mount_attr>(),
        )
    };
    checked(returned).map(drop).call(call)
}

/// Has the detached mount `tree`, with all mounts below it where `recursive`, show the ids of its files as the user
/// namespace `userns` maps them (`MOUNT_ATTR_IDMAP` in mount_setattr(2), Linux 5.12). `EINVAL` where the filesystem
/// cannot.
pub fn map_ids(tree: BorrowedFd<'_>, userns: BorrowedFd<'_>, recursive: bool) -> Result<(), SysError> {
    let wanted = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: userns.as_raw_fd() as u64,
    };
    set_attr(tree, &wanted, recursive, "mount_setattr(MOUNT_ATTR_IDMAP)")
}

/// Puts the detached mount `tree` onto the handle `place`.
pub fn attach(tree: BorrowedFd<'_>, place: BorrowedFd<'_>) -> Result<(), SysError> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    mount::move_mount(tree, HERE, place, HERE, flags).call("move_mount")
}

/// Puts the detached mount `tree` at `path` below the handle `folder`, which nobody else can reach.
pub fn attach_at(tree: BorrowedFd<'_>, folder: BorrowedFd<'_>, path: &CStr) -> Result<(), SysError> {
    mount::move_mount(tree, HERE, folder, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).call("move_mount")
}

/// Puts the detached mount `tree` at `path`, seen from the working directory.
pub fn attach_here(tree: BorrowedFd<'_>, path: &CStr) -> Result<(), SysError> {
    attach_at(tree, CWD.as_fd(), path)
}

/// Lets no mount made in this mount namespace reach another one (`MS_SLAVE`, recursively).
pub fn keep_to_ourselves() -> Result<(), SysError> {
    mount::mount_change(
        c"/",
        MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC,
    )
    .call("mount(\"/\", MS_SLAVE | MS_REC)")
}

/// Puts a new tmpfs onto the folder at `path`: by its name, since a handle may be of another mount namespace.
pub fn tmpfs_on(path: &std::path::Path) -> Result<(), SysError> {
    let tree = NewFs::open(c"tmpfs")?.mount(Attr::default())?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    mount::move_mount(tree, HERE, CWD, path, flags).call("move_mount")
}

/// Takes what is mounted at `path` out of sight (`MNT_DETACH`).
pub fn detach(path: &std::path::Path) -> Result<(), SysError> {
    mount::unmount(path, mount::UnmountFlags::DETACH).call("umount2(MNT_DETACH)")
}

/// Puts the detached mount `tree` onto the working directory, which this process need not be allowed to look into.
pub fn attach_over(tree: BorrowedFd<'_>) -> Result<(), SysError> {
    attach(tree, CWD.as_fd())
}

/// Makes the mount `root` the root of this mount namespace and lets go of the old one and all below it.
pub fn enter_root(root: BorrowedFd<'_>) -> Result<(), SysError> {
    rustix::process::fchdir(root).call("fchdir")?;
    // Both names are the new root, so that the old one is stacked on it and no folder for it is needed (pivot_root(2)).
    rustix::process::pivot_root(c".", c".").call("pivot_root(\".\", \".\")")?;
    mount::unmount(c".", UnmountFlags::DETACH).call("umount2(\".\", MNT_DETACH)")
}
