//! [`Work`]: what a child was prepared for, a run or going into one; what differs between the two is said here.

use std::os::fd::AsFd;
use std::path::Path;

use super::exit::{Step, StepError};
use super::join::Joining;
use super::prepare::Prepared;
use super::program::Program;
use super::{Error, JOB_CONTROL, init};
use crate::cgroup;
use crate::net::plan::Connection;
use crate::net::{Live, user};
use crate::spec::streams::Keys;
use crate::sys::namespace::{self, Namespaces, Side};
use crate::sys::signal::{Signal, SignalSet};
use crate::sys::{SysError, place, probe};

/// What a child was prepared for.
#[derive(Debug)]
pub(super) enum Work {
    /// To become a container.
    Run(Box<Prepared>),
    /// To go into one.
    Join(Box<Joining>),
}

impl Work {
    pub(super) fn program(&self) -> &Program {
        match self {
            Self::Run(ready) => &ready.program,
            Self::Join(ready) => &ready.program,
        }
    }

    /// Whether the container is in a network namespace that is empty and stays so, which another can make for it.
    pub(super) fn has_fresh_network(&self) -> bool {
        match self {
            // One that has users of its own belongs to these.
            Self::Run(ready) => {
                ready.loopback
                    && ready.connection.is_none()
                    && ready.uplink.is_none()
                    && ready.own_ids.is_none()
            }
            Self::Join(_) => false,
        }
    }

    /// Clones into new namespaces, but for that of the network where it is `given` one, and into the cgroup where that is
    /// one of version 2. A cgroup namespace begins where its maker is, so with cgroups of its own the child makes it, in
    /// there.
    fn clone(&self, given: bool) -> Result<Side, Error> {
        let ready = match self {
            Self::Run(ready) => ready,
            Self::Join(_) => return Ok(namespace::clone(Namespaces::NOTHING)?),
        };
        let namespaces = match given {
            true => ready.namespaces.without(Namespaces::NET),
            false => ready.namespaces,
        };
        let Some(groups) = &ready.cgroups else {
            return Ok(namespace::clone(namespaces)?);
        };
        // As late as here: whoever removes them when mk is killed has been started.
        groups.make()?;
        let namespaces = namespaces.without(Namespaces::CGROUP);
        Ok(match groups.unified() {
            Some(cgroup) => namespace::clone_into(namespaces, cgroup)?,
            None => namespace::clone(namespaces)?,
        })
    }

    /// Clones, in the folder where the child is to be: its working directory is what goes with it into its own mounts. A
    /// child that is `given` its network namespace makes none.
    pub(super) fn born(&self, given: bool) -> Result<Side, Error> {
        let Self::Run(ready) = self else {
            return self.clone(given);
        };
        let Some(ids) = &ready.own_ids else {
            return self.clone(given);
        };
        let here = place::open_any(Path::new("."))?;
        place::go(&ids.birthplace)?;
        let side = self.clone(given);
        if !matches!(side, Ok(Side::Child)) {
            place::go_to(here.as_fd())?;
        }
        side
    }

    /// The signals that mk listens to.
    pub(super) fn heard(&self) -> SignalSet {
        let raw = self
            .program()
            .streams
            .terminal
            .is_some_and(|terminal| terminal.keys == Keys::Each);
        match raw {
            true => self.program().forwarded().with(JOB_CONTROL),
            false => self.program().forwarded(),
        }
    }

    /// Returns the cgroups that are made for this, and end with it.
    pub(super) fn own_cgroups(&self) -> Option<&cgroup::Groups> {
        match self {
            Self::Run(ready) => ready.cgroups.as_deref(),
            Self::Join(_) => None,
        }
    }

    /// Returns the helper that connects the container, where there is to be one.
    pub(super) fn uplink(&self) -> Option<&user::Uplink> {
        match self {
            Self::Run(ready) => ready.uplink.as_ref(),
            Self::Join(_) => None,
        }
    }

    /// Returns the container's `/etc/hosts`, where that changes.
    pub(super) fn followed(&self) -> Option<&Live> {
        match self {
            Self::Run(ready) => ready.names.as_ref(),
            Self::Join(_) => None,
        }
    }

    pub(super) fn names(&mut self) -> Option<&mut Live> {
        match self {
            Self::Run(ready) => ready.names.as_mut(),
            Self::Join(_) => None,
        }
    }

    /// Whether the child has to wait for what [`Self::admit`] does.
    pub(super) fn waits(&self) -> bool {
        match self {
            Self::Run(ready) => {
                let groups = ready.cgroups.as_ref();
                ready.own_ids.is_some() || groups.is_some_and(|groups| groups.folders().have_v1())
            }
            Self::Join(ready) => !ready.cgroups.is_empty(),
        }
    }

    /// Gives the child `pid` its ids, and puts it into its cgroups.
    pub(super) fn admit(&self, pid: i32) -> Result<(), Error> {
        match self {
            Self::Run(ready) => {
                if let Some(ids) = &ready.own_ids {
                    let map = ids.taken.map();
                    namespace::write_map(pid, "uid_map", &map)?;
                    namespace::write_map(pid, "gid_map", &map)?;
                }
                if let Some(groups) = &ready.cgroups {
                    groups.folders().join_v1(pid)?;
                }
            }
            Self::Join(ready) => ready.cgroups.join(pid)?,
        }
        Ok(())
    }

    pub(super) fn connection(&self) -> Option<&Connection> {
        match self {
            Self::Run(ready) => ready.connection.as_ref(),
            Self::Join(_) => None,
        }
    }

    /// Gives back what the container had that others can have now that it has ended.
    pub(super) fn release(&self) {
        if let Some(connection) = self.connection() {
            connection.lease.release();
        }
        if let Self::Run(ready) = self
            && let Some(seat) = &ready.seat
        {
            seat.leave();
        }
    }

    /// Returns what is said of a step of the child's that failed.
    pub(super) fn failed(&self, step: Step, index: u32, failed: SysError, note: String) -> Error {
        match probe::explain(&failed) {
            Some(too_old) => too_old.into(),
            None => StepError {
                step,
                object: self.object(step, index as usize),
                note,
                failed,
            }
            .into(),
        }
    }

    pub(super) fn tells_command(&self) -> bool {
        matches!(self, Self::Run(ready) if ready.tells_command)
    }

    fn object(&self, step: Step, index: usize) -> String {
        match self {
            Self::Run(ready) => ready.object(step, index),
            Self::Join(ready) => ready.program.object(step, index).unwrap_or_default(),
        }
    }
}

impl Program {
    pub(super) fn ignored_child(&self) -> SignalSet {
        let child = SignalSet::of(&[Signal::CHILD]);
        if self.ignored.has(Signal::CHILD) {
            child
        } else {
            SignalSet::NONE
        }
    }

    /// What is passed on to the command: all that was not ignored when mk was started.
    pub(super) fn forwarded(&self) -> SignalSet {
        init::FORWARDED.without(self.ignored)
    }
}

impl Prepared {
    /// Returns what a failed step was about.
    fn object(&self, step: Step, index: usize) -> String {
        use crate::path::shown;
        match step {
            Step::Store => shown(self.store.as_bytes()),
            Step::Root => {
                let text = self.table.to_string();
                format!("`{}`", text.lines().next().unwrap_or_default())
            }
            Step::Mount => {
                let line = self
                    .table
                    .mounts
                    .get(index)
                    .map(ToString::to_string)
                    .unwrap_or_default();
                line.lines().next().unwrap_or_default().to_owned()
            }
            Step::JoinNetwork => self
                .joined
                .as_ref()
                .map_or_else(String::new, |(_, called)| called.clone()),
            Step::HostName => shown(self.host_name.as_bytes()),
            Step::Network => match &self.connection {
                Some(connection) => connection.inside.command(index).to_owned(),
                None => self.uplink.as_ref().map(ToString::to_string).unwrap_or_default(),
            },
            _ => self.program.object(step, index).unwrap_or_default(),
        }
    }
}
