//! [`Meta`]: mode, owner, time and extended attributes of one file, and how they are made reproducible.

use std::collections::BTreeMap;

/// Extended attributes by name; values are bytes.
pub type Xattrs = BTreeMap<Box<[u8]>, Box<[u8]>>;

/// What a file carries beside its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Meta {
    /// Permission bits with setuid, setgid and sticky: `0o7777` at the most.
    pub mode: u16,
    /// Owner as a number, as the image has it (never mapped).
    pub uid: u32,
    /// Group as a number, as the image has it (never mapped).
    pub gid: u32,
    /// Modification time in whole seconds since 1970 UTC.
    pub mtime: i64,
    /// The allowed extended attributes; nearly always none.
    pub xattrs: Option<Box<Xattrs>>,
}

impl Meta {
    /// Returns the metadata of something that mk itself makes: owned by root, no extended attributes.
    pub fn new(mode: u16, mtime: i64) -> Self {
        Self {
            mode: mode & 0o7777,
            uid: 0,
            gid: 0,
            mtime,
            xattrs: None,
        }
    }

    /// Returns the metadata with its time not later than `epoch` (seconds since 1970 UTC).
    pub fn not_later_than(mut self, epoch: i64) -> Self {
        self.mtime = self.mtime.min(epoch);
        self
    }

    /// Adds an extended attribute if it is one that images keep; says whether it was.
    pub fn keep_xattr(&mut self, name: &[u8], value: &[u8]) -> bool {
        let kept = is_kept_xattr(name);
        if kept {
            self.xattrs
                .get_or_insert_default()
                .insert(name.into(), value.into());
        }
        kept
    }
}

/// Whether images keep the extended attribute `name`: `security.capability`, and `user.*` less `user.overlay.*`, which
/// overlayfs gives a meaning of its own (Documentation/filesystems/overlayfs.rst, "User xattr").
pub fn is_kept_xattr(name: &[u8]) -> bool {
    name == b"security.capability"
        || (name.starts_with(b"user.") && name.len() > 5 && !name.starts_with(b"user.overlay."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_attributes_on_the_list_are_kept() {
        let mut meta = Meta::new(0o644, 0);
        for name in ["security.capability", "user.note"] {
            assert!(meta.keep_xattr(name.as_bytes(), b"x"), "{name} was dropped");
        }
        for name in [
            "security.selinux",
            "trusted.overlay.opaque",
            "user.overlay.opaque",
            "system.posix_acl_access",
            "user.",
        ] {
            assert!(!meta.keep_xattr(name.as_bytes(), b"x"), "{name} was kept");
        }
        assert_eq!(meta.xattrs.unwrap().len(), 2);
    }
}
