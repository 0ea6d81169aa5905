//! What is known of a container from outside: a folder of its own, below the folder of states, from before it is made
//! until nobody wants to know of it any more.
//!
//! A container is alive exactly as long as the lock in its folder is held, by its monitor or by the mk that was called;
//! the kernel drops the lock when its holder dies. What is left of one whose holder was killed is swept by whoever
//! looks next: nothing has to be running for that, and nothing has to be remembered.

use std::path::PathBuf;

use crate::sys::SysError;

/// Signals to containers, and their ends.
pub mod control;
/// The JSON files.
pub mod document;
/// A container's folder.
pub mod folder;
/// Reading what a container printed.
pub mod follow;
/// What a container printed.
pub mod log;
/// What keeps a container alive.
pub mod monitor;
/// Ids and names.
pub mod name;
mod process;
/// All containers of a user.
mod state;
/// Text that JSON may not be able to hold.
pub mod text;
/// Moments.
pub mod time;

#[cfg(test)]
mod log_tests;
#[cfg(test)]
mod tests;

pub use document::{Document, Exit, ProgramDocument, Started};
pub use folder::{Folder, Own};
pub use name::{Id, check_name};
pub use process::Process;
pub use state::{Found, Gone, Life, Seen, State, Why};
pub use text::Text;
pub use time::Time;

/// What is not as it should be with containers from outside.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A name that no container may have.
    #[error(
        "`{name}` is not a name: expected up to 128 lower-case letters, digits, `.`, `_` and `-`, beginning with a letter or a digit"
    )]
    BadName {
        /// As it was written.
        name: String,
    },
    /// A name that looks like an id.
    #[error("`{name}` is not a name: twelve hexadecimal digits are what mk itself calls a container")]
    NameLikeId {
        /// As it was written.
        name: String,
    },
    /// A name that another container goes by.
    #[error("the name `{name}` is taken: container {id} has it, and is running")]
    NameTaken {
        /// The name.
        name: String,
        /// Whose it is.
        id: Id,
    },
    /// No container goes by this.
    #[error("there is no container `{word}`")]
    Unknown {
        /// As it was written.
        word: String,
        /// The name that is most like it.
        like: Option<String>,
    },
    /// Several ids begin like this.
    #[error("`{word}` is the beginning of several ids: {}", .ids.iter().map(Id::as_str).collect::<Vec<_>>().join(", "))]
    Ambiguous {
        /// As it was written.
        word: String,
        /// All of them.
        ids: Vec<Id>,
    },
    /// The container is not running any more.
    #[error("container `{called}` has ended")]
    Ended {
        /// Its name or its id.
        called: String,
    },
    /// The container is running.
    #[error("container `{called}` is running")]
    Running {
        /// Its name or its id.
        called: String,
    },
    /// The container's command does not run yet.
    #[error("container `{called}` is still being made")]
    NotStarted {
        /// Its name or its id.
        called: String,
    },
    /// A process of the container cannot be found, though it must be there.
    #[error("process {pid} of container `{called}` cannot be seen from here")]
    OutOfSight {
        /// Its name or its id.
        called: String,
        /// The process.
        pid: i32,
    },
    /// The folder of states is not one to be trusted.
    #[error("`{}` is not a folder for what mk knows of containers: {why}", .path.display())]
    NotOurs {
        /// Where.
        path: PathBuf,
        /// What is wrong with it, as a fragment.
        why: String,
    },
    /// The folder of states cannot be used.
    #[error("cannot use `{}` for what mk knows of containers", .path.display())]
    State {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        failed: SysError,
    },
    /// A file of a container cannot be read.
    #[error("cannot read `{}`", .path.display())]
    Document {
        /// Which one.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        bad: document::BadDocument,
    },
    /// A container whose document cannot be read, so that this mk does not know what it does.
    #[error("what is known of container `{called}` cannot be read")]
    Unreadable {
        /// As it was written: its name, its id, or the beginning of that.
        called: String,
        /// Its folder.
        path: PathBuf,
        /// The process that looks after it, where that can be told and is there.
        monitor: Option<i32>,
    },
    /// A call failed.
    #[error("cannot look after the container")]
    Sys(#[from] SysError),
}

/// The result of what is done here.
pub type Result<T> = std::result::Result<T, Error>;
