//! [`Parents`]: the open folder of one path after the other. Paths come sorted, so the last folder is nearly always the
//! next one's too.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use crate::path::TreePath;
use crate::sys::SysError;
use crate::sys::dir::Dir;

/// Opens the folders of paths below a root.
#[derive(Debug)]
pub(crate) struct Parents<'a> {
    root: &'a Dir,
    open: Option<(Box<[u8]>, Dir)>,
}

impl<'a> Parents<'a> {
    pub(crate) fn new(root: &'a Dir) -> Self {
        Self { root, open: None }
    }

    /// Returns the open folder that holds `path`, and its name there; for the root itself, the root and `.`.
    pub(crate) fn of<'p>(&mut self, path: &'p TreePath) -> Result<(&Dir, &'p Path), SysError> {
        let bytes = path.as_bytes();
        let Some(cut) = bytes.iter().rposition(|&byte| byte == b'/') else {
            return Ok((self.root, path.as_path()));
        };
        let (parent, name) = (&bytes[..cut], Path::new(OsStr::from_bytes(&bytes[cut + 1..])));
        let dir = match self.open.take() {
            Some((open, dir)) if *open == *parent => dir,
            _ => self.root.open_dir(OsStr::from_bytes(parent))?,
        };
        Ok((&self.open.insert((parent.into(), dir)).1, name))
    }
}
