//! The kernel, as safe calls: safe types in, safe types out, and a failure shows the call as it was made.
//!
//! Everything that `process::child` uses between clone and exec keeps to the stack: it takes C strings, makes raw
//! system calls and never allocates, because in that place the heap may be locked by a thread that does not exist.

use std::borrow::Cow;
use std::ffi::CStr;
use std::fmt;

pub use rustix::io::Errno;

/// Cgroups, where a plain write to a file will not do.
pub mod cgroup;
/// Messages between two processes, with open files in them.
pub mod channel;
/// Leaving the caller behind.
pub mod detach;
/// Files below a directory handle.
pub mod dir;
/// What is kept about one file besides its bytes.
pub mod file;
/// What a container's file tree is put together with: mounts, as handles.
pub mod mount;
/// What is mounted where a file lies.
pub mod mounted;
/// Namespaces: clone, unshare, id maps, and the two settings of fresh ones.
pub mod namespace;
/// Packet filtering and address translation: nf_tables.
pub mod netfilter;
/// Interfaces, addresses and routes.
pub mod netlink;
/// Being told of changes in a folder.
pub mod notify;
/// Handles on processes that this one did not start.
pub mod pidfd;
/// What a mount or a file goes onto: opened and made below a handle, without allocating.
pub mod place;
/// Ports: sockets that hold them.
pub mod port;
/// What this kernel can do.
pub mod probe;
/// Processes: privileges, exec, wait.
pub mod process;
/// mk's own program as a copy that nobody can write to.
pub mod sealed;
/// Signals: sets of them, waiting for them, passing them on.
pub mod signal;
/// The standard streams of this process.
pub mod stdio;
/// Terminals: modes, size, new ones.
pub mod terminal;

/// A system call that failed, with its arguments as they were: `mkdirat("/srv/store", "objects", 0700): …`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SysError {
    /// The call as made.
    pub call: Cow<'static, str>,
    /// What the kernel answered (errno(3)).
    pub errno: Errno,
}

impl SysError {
    /// Returns the failure of `call`, which is written only now, off the path of calls that succeed.
    pub fn new(errno: Errno, call: impl fmt::Display) -> Self {
        Self {
            call: call.to_string().into(),
            errno,
        }
    }

    /// Whether the filesystem, or the user's share of it, is full.
    pub fn is_full(&self) -> bool {
        self.errno == Errno::NOSPC || self.errno == Errno::DQUOT
    }
}

impl fmt::Display for SysError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.call, reason(self.errno))
    }
}

impl std::error::Error for SysError {}

/// For callers that speak [`std::io::Error`]: keeps the kind and the text.
impl From<SysError> for std::io::Error {
    fn from(failed: SysError) -> Self {
        let kind = std::io::Error::from(failed.errno).kind();
        Self::new(kind, failed)
    }
}

/// Returns what the kernel means by `errno`, in words (strerror(3)).
pub fn reason(errno: Errno) -> &'static str {
    nix::errno::Errno::from_raw(errno.raw_os_error()).desc()
}

/// Names the call that a result came from.
pub(crate) trait Call<T> {
    /// Turns the error number into the failure of `call`, without allocating.
    fn call(self, call: &'static str) -> Result<T, SysError>;
    /// The same, with a text that is only made when it is needed; allocates then.
    fn call_with(self, call: impl FnOnce() -> String) -> Result<T, SysError>;
}

impl<T> Call<T> for Result<T, Errno> {
    fn call(self, call: &'static str) -> Result<T, SysError> {
        self.map_err(|errno| SysError {
            call: Cow::Borrowed(call),
            errno,
        })
    }

    fn call_with(self, call: impl FnOnce() -> String) -> Result<T, SysError> {
        self.map_err(|errno| SysError::new(errno, call()))
    }
}

/// Turns what `syscall(2)` returned into a number or the error it left behind.
fn checked(returned: nix::libc::c_long) -> Result<nix::libc::c_long, Errno> {
    if returned < 0 {
        Err(Errno::from_raw_os_error(nix::errno::Errno::last_raw()))
    } else {
        Ok(returned)
    }
}

/// An empty path, for calls on the handle itself (`AT_EMPTY_PATH`).
const HERE: &CStr = c"";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_shows_the_call_and_the_reason() {
        let failed = SysError::new(Errno::INVAL, "pivot_root(\".\", \".\")");
        assert_eq!(failed.to_string(), "pivot_root(\".\", \".\"): Invalid argument");
        assert_eq!(
            std::io::Error::from(SysError::new(Errno::NOENT, "x")).kind(),
            std::io::ErrorKind::NotFound
        );
    }
}
