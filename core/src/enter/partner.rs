//! [`Partner`]: a container whose network a run shares.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::container::{self, Found};
use crate::net::Member;
use crate::sys::namespace::{self, Namespaces};
use crate::sys::{Errno, SysError, place};

/// A container that runs, whose network another is to share.
#[derive(Debug)]
pub struct Partner {
    called: String,
    /// Its user namespace; `None`: this process's own.
    users: Option<OwnedFd>,
    /// Its network namespace; `None`: this process's own.
    pub(super) network: Option<OwnedFd>,
    /// Where it is on its network.
    pub(super) member: Member,
    /// Its `/etc/hosts`.
    pub(super) hosts: Option<String>,
    /// Its `/etc/resolv.conf`.
    pub(super) resolv: Option<String>,
}

/// A network that cannot be shared.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The container is not one that runs.
    #[error(transparent)]
    Container(#[from] container::Error),
    /// Its command may not be looked into.
    #[error("cannot share the network of container `{called}`: its command, process {pid}, is out of reach")]
    OutOfReach {
        /// Its name or its id.
        called: String,
        /// The process.
        pid: i32,
        /// The call that was refused.
        #[source]
        failed: SysError,
    },
    /// Its user namespace cannot be joined.
    #[error("cannot go into the user namespace of container `{called}`")]
    Users {
        /// Its name or its id.
        called: String,
        /// The call that was refused.
        #[source]
        failed: SysError,
    },
    /// A call failed.
    #[error("cannot look at the container")]
    Sys(#[from] SysError),
}

/// The most that a file of `/etc` may hold, in bytes.
const MOST: usize = 1 << 20;

impl Partner {
    /// Opens the namespaces of a container that was found, and reads what its files in `/etc` say.
    pub fn of(found: &Found) -> Result<Self, Error> {
        let document = &found.document;
        let called = document.called().to_owned();
        let ended = || container::Error::Ended {
            called: called.clone(),
        };
        let command = found.command()?;
        let pid = command.pid();
        let open = |kind: &str| {
            let path = PathBuf::from(format!("/proc/{pid}/ns/{kind}"));
            let file = namespace::open(&path).map_err(|failed| match failed.errno {
                Errno::NOENT | Errno::SRCH => Error::from(ended()),
                _ => Error::OutOfReach {
                    called: called.clone(),
                    pid,
                    failed,
                },
            })?;
            let own = namespace::is_own(file.as_fd(), kind)?;
            Ok::<_, Error>(Some(file).filter(|_| !own))
        };
        let (users, network) = (open("user")?, open("net")?);
        let root = place::open_folder(Path::new(&format!("/proc/{pid}/root"))).ok();
        let read = |path| {
            let root = root.as_ref()?;
            // What the container has put in its place since, such as a link, is not for others to follow.
            let bytes = place::read_regular(root.as_fd(), path, MOST).ok()??;
            Some(String::from_utf8_lossy(&bytes).into_owned())
        };
        let (hosts, resolv) = (read(c"etc/hosts"), read(c"etc/resolv.conf"));
        // Until here the number was that of the container's own process.
        if command.wait(Some(Duration::ZERO)).map_err(Error::Sys)? {
            return Err(ended().into());
        }
        Ok(Self {
            called,
            users,
            network,
            member: document.network.member(),
            hosts,
            resolv,
        })
    }

    /// Moves this process, which must have one thread and be no root yet, into the user namespace of the container, as
    /// its root: the network belongs to that, and nobody else's root may join it.
    pub fn join_users(&self) -> Result<(), Error> {
        match &self.users {
            None => Ok(()),
            Some(users) => namespace::join(users.as_fd(), Namespaces::USER).map_err(|failed| Error::Users {
                called: self.called.clone(),
                failed,
            }),
        }
    }
}
