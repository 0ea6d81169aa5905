//! [`Prepared`]: everything the child needs, made while allocating and failing politely are still possible.

use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::rc::Rc;

use super::Error;
use super::pool::Taken;
use super::program::{Program, c_string};
use crate::cgroup::Groups;
use crate::mounts::mapped::Handles;
use crate::mounts::{Table, apply};
use crate::net::plan::Connection;
use crate::net::private::Seat;
use crate::net::publish::Published;
use crate::net::{Live, Member, user};
use crate::recipe::Network;
use crate::rootfs::scratch::{Disk, Scratch};
use crate::rootfs::{self, Rootfs};
use crate::spec::RunSpec;
use crate::spec::privileges::Granted;
use crate::spec::user::Identity;
use crate::sys::namespace::Namespaces;
use crate::sys::process::Keep;

/// A run ready to be cloned.
#[derive(Debug)]
pub struct Prepared {
    /// Holds the locks.
    pub(super) _rootfs: Rootfs,
    pub(super) table: Table,
    pub(super) namespaces: Namespaces,
    pub(super) as_pid1: bool,
    pub(super) stop_timeout: std::time::Duration,
    pub(super) store: CString,
    pub(super) scratch: Scratch,
    pub(super) mounts: apply::Ready,
    /// The first mount, by index, for which the container must be in its network namespace.
    pub(super) shows_network: usize,
    pub(super) host_name: CString,
    pub(super) loopback: bool,
    pub(super) program: Program,
    /// Whether somebody wants to know the command's process id.
    pub(super) tells_command: bool,
    pub(super) cgroups: Option<Rc<Groups>>,
    /// The locks of what the run uses, for the reaper, which holds them until the container is gone.
    pub(super) keep_open: Keep,
    /// The network namespace of others that the container goes into, and what that is called.
    pub(super) joined: Option<(OwnedFd, String)>,
    /// Who the container is on its network.
    pub(super) member: Member,
    /// Its `/etc/hosts`, where that changes.
    pub(super) names: Option<Live>,
    /// The ids of a container that has none of the machine's.
    pub(super) own_ids: Option<OwnIds>,
    /// Its place on a network.
    pub(super) connection: Option<Connection>,
    /// The helper that connects its network namespace.
    pub(super) uplink: Option<user::Uplink>,
    /// mk's place in the namespaces of a private network.
    pub(super) seat: Option<Seat>,
}

/// What a container needs whose ids are none of the machine's.
#[derive(Debug)]
pub struct Foreign {
    /// Its ids.
    pub taken: Taken,
    /// What it mounts, which it could not name.
    pub handles: Handles,
}

/// The ids of a run that has some of its own, in the parent.
#[derive(Debug)]
pub(super) struct OwnIds {
    pub(super) taken: Taken,
    /// The folder that the scratch is mounted on: where the child is born, because it could not go there.
    pub(super) birthplace: CString,
}

/// Returns the namespaces of a run with this `network`.
pub fn namespaces(network: &Network) -> Namespaces {
    let always = Namespaces::MOUNT
        .with(Namespaces::UTS)
        .with(Namespaces::IPC)
        .with(Namespaces::PID)
        .with(Namespaces::CGROUP);
    match network.is_own() {
        true => always.with(Namespaces::NET),
        false => always,
    }
}

impl Prepared {
    /// Makes everything that the run of `spec` by `identity`, with what is `granted`, needs. `set_groups` says whether
    /// groups can be set.
    pub fn new(
        rootfs: Rootfs,
        spec: &RunSpec,
        table: Table,
        scratch: Scratch,
        identity: &Identity,
        granted: Granted,
        set_groups: bool,
    ) -> Result<Self, Error> {
        let store = std::path::absolute(&rootfs.store).map_err(|source| Error::Store {
            path: rootfs.store.clone(),
            source,
        })?;
        Ok(Self {
            namespaces: namespaces(&spec.network.kind),
            as_pid1: spec.as_pid1,
            stop_timeout: spec.stop_timeout,
            store: c_string("the store's path", store.as_os_str().as_bytes())?,
            mounts: apply::prepare(&table, scratch.names, None),
            shows_network: table.shows_network(),
            scratch,
            host_name: c_string("the host name", spec.hostname.as_bytes())?,
            loopback: spec.network.kind.is_own(),
            program: Program::new(spec, identity, granted, set_groups)?,
            tells_command: false,
            cgroups: None,
            keep_open: Keep::of(rootfs.locks()),
            joined: None,
            member: Member::default(),
            names: None,
            own_ids: None,
            connection: None,
            uplink: None,
            seat: None,
            table,
            _rootfs: rootfs,
        })
    }

    /// Gives the container ids of its own, with what it mounts.
    pub fn with_ids(mut self, foreign: Foreign) -> Result<Self, Error> {
        let Foreign { taken, mut handles } = foreign;
        if let Some(disk) = handles.disk.take() {
            self.scratch.disk = Some(Disk::Mount(disk));
        }
        self.mounts = apply::prepare(&self.table, self.scratch.names, Some(handles));
        self.namespaces = self.namespaces.with(Namespaces::USER);
        let birthplace = rootfs::scratch_path(Path::new(OsStr::from_bytes(self.store.as_bytes())));
        self.own_ids = Some(OwnIds {
            taken,
            birthplace: c_string("the store's path", birthplace.into_os_string().into_vec())?,
        });
        self.keep();
        Ok(self)
    }

    /// Puts the container on a network.
    #[must_use]
    pub fn on_network(mut self, connection: Connection) -> Self {
        self.loopback = false;
        self.connection = Some(connection);
        self.keep();
        self
    }

    /// Gathers what the reaper holds.
    fn keep(&mut self) {
        let ids = self.own_ids.iter().map(|ids| ids.taken.as_fd());
        let network = self.connection.iter().flat_map(Connection::handles);
        self.keep_open = Keep::of(self._rootfs.locks().chain(ids).chain(network));
    }

    /// Has the container go into the network namespace behind `joined`, which is called as said.
    #[must_use]
    pub fn joining(self, joined: Option<(OwnedFd, String)>) -> Self {
        Self { joined, ..self }
    }

    /// Says who the container is on its network; the container's `/etc/hosts` will follow `names`.
    #[must_use]
    pub fn known_as(self, member: Member, names: Option<Live>) -> Self {
        Self {
            member,
            names,
            ..self
        }
    }

    /// Returns who the container is on its network.
    pub fn member(&self) -> &Member {
        &self.member
    }

    /// Has [`super::Child::started`] return the process id of the command; costs two system calls.
    #[must_use]
    pub fn tell_command(mut self) -> Self {
        self.tells_command = true;
        self
    }

    /// Has the container's network namespace connected by the helper that `uplink` says.
    #[must_use]
    pub fn connected(self, uplink: Option<user::Uplink>) -> Self {
        Self { uplink, ..self }
    }

    /// Has whoever starts the container keep the place in the namespaces of its private network.
    #[must_use]
    pub fn seated(self, seat: Option<Seat>) -> Self {
        Self { seat, ..self }
    }

    /// Has the container start in `cgroups`, which whoever made them removes after its end.
    #[must_use]
    pub fn within(self, cgroups: Option<Rc<Groups>>) -> Self {
        Self { cgroups, ..self }
    }

    /// Returns what the command will be.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// Returns the ports of the host that lead to it.
    pub fn published(&self) -> &[Published] {
        match (&self.connection, &self.uplink) {
            (Some(connection), _) => connection.published(),
            (None, Some(uplink)) => &uplink.forwards,
            (None, None) => &[],
        }
    }

    /// Returns what is mounted.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// Returns the folder on a disk that writes go to; `None` where that is memory, or a mount that has no name.
    pub fn disk(&self) -> Option<&CStr> {
        match &self.scratch.disk {
            Some(Disk::Path(path, _)) => Some(path),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_run_without_a_network_has_its_own() {
        assert!(namespaces(&Network::None).has(Namespaces::NET));
        assert!(!namespaces(&Network::Host).has(Namespaces::NET));
    }
}
