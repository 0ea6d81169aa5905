//! The kernel, as safe calls. Safe types in, safe types out; a failure shows the call as it was made.

use std::fmt;
use std::io;

use rustix::io::Errno;

pub mod dir;
pub mod file;

/// A system call that failed, with its arguments as they were: `mkdirat("/srv/store", "objects", 0700): …`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{call}: {}", io::Error::from_raw_os_error(.errno.raw_os_error()))]
pub struct SysError {
    /// The call as made.
    pub call: String,
    /// What the kernel answered.
    pub errno: Errno,
}

impl SysError {
    /// Returns the failure of `call`, which is written only now, off the path of calls that succeed.
    pub fn new(errno: Errno, call: impl fmt::Display) -> Self {
        Self {
            call: call.to_string(),
            errno,
        }
    }

    /// Whether the filesystem, or the user's share of it, is full.
    pub fn is_full(&self) -> bool {
        self.errno == Errno::NOSPC || self.errno == Errno::DQUOT
    }
}

/// For callers that speak [`io::Error`]: keeps the kind and the text.
impl From<SysError> for io::Error {
    fn from(error: SysError) -> Self {
        let kind = io::Error::from_raw_os_error(error.errno.raw_os_error()).kind();
        io::Error::new(kind, error)
    }
}
