//! Limits → cgroups, which end with the container.
//!
//! In three steps: [`layout`] reads which hierarchies there are, [`plan`] decides which folders are made where and what
//! is written into them, [`group`] does it. What is made is known afterwards as [`Folders`]: whoever joins the container
//! enters them, and whoever is left at its end removes them. No cgroup is made where nothing is limited.
//!
//! A folder is in use exactly while somebody holds a lock on it (flock(2) works on these folders as on any). The kernel
//! drops the lock when its holder dies, so the next mk knows what was left behind, whoever's process ids are whose.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::spec::limits::CpuSet;
use crate::sys::SysError;

/// What was made, as data: to join it, to look at it, to remove it.
pub mod folders;
/// Making what was planned, and entering it.
pub mod group;
/// Which hierarchies there are, from texts.
pub mod layout;
/// Which folders are made where, and what is written into them.
pub mod plan;

pub use folders::{Doomed, Folders, sweep};
pub use group::Groups;
pub use layout::Layout;
pub use plan::{Plan, refusal};

/// Names of cgroups that mk makes begin so.
pub const PREFIX: &str = "mk-";

/// The part of the kernel that keeps a limit (cgroups(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Controller {
    /// Memory.
    Memory,
    /// Processor time.
    Cpu,
    /// The number of processes.
    Pids,
    /// Which processors.
    CpuSet,
}

impl Controller {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Memory, Self::Cpu, Self::Pids, Self::CpuSet];

    /// Returns the kernel's name of it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Cpu => "cpu",
            Self::Pids => "pids",
            Self::CpuSet => "cpuset",
        }
    }

    /// Returns what it limits, in words.
    pub fn what(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Cpu => "processor time",
            Self::Pids => "the number of processes",
            Self::CpuSet => "the choice of CPUs",
        }
    }
}

impl fmt::Display for Controller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A limit that cannot be set.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nowhere can mk make a cgroup with the controller.
    #[error("cannot limit {}: {why}", .controller.what())]
    Refused {
        /// Which one.
        controller: Controller,
        /// Why not.
        why: Why,
    },
    /// Processors that the container cannot have.
    #[error("cannot run on CPUs {asked}: mk itself may use {allowed}")]
    CpuSet {
        /// What was asked for.
        asked: CpuSet,
        /// What there is.
        allowed: CpuSet,
    },
    /// A folder cannot be made.
    #[error("cannot make the cgroup `{}`", .folder.display())]
    Make {
        /// Which one.
        folder: PathBuf,
        /// Why.
        #[source]
        failed: io::Error,
    },
    /// The kernel does not take a value.
    #[error("cannot write `{text}` to `{}`", .file.display())]
    Write {
        /// Where to.
        file: PathBuf,
        /// What.
        text: String,
        /// Why.
        #[source]
        failed: io::Error,
    },
    /// What the kernel says of cgroups cannot be read.
    #[error("cannot read what the kernel says of cgroups")]
    Look(#[source] io::Error),
    /// Another call failed.
    #[error(transparent)]
    Sys(#[from] SysError),
}

/// Why no cgroup can be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// No hierarchy with the controller is mounted.
    NotMounted,
    /// mk is in a cgroup that the mount does not show.
    OutOfSight {
        /// Where the hierarchy is mounted.
        mount: PathBuf,
    },
    /// The hierarchy is mounted read-only.
    ReadOnly {
        /// Where.
        mount: PathBuf,
    },
    /// The folder is somebody else's.
    NotOurs {
        /// The nearest one with the controller.
        folder: PathBuf,
        /// Whether it is of version 1, which knows no delegation.
        legacy: bool,
    },
    /// The nearest folder that is ours has other controllers.
    NotEnabled {
        /// Which one.
        folder: PathBuf,
        /// What it has.
        has: Vec<String>,
    },
    /// The nearest folder that is ours has processes, so the kernel allows no limited cgroups below it.
    Busy {
        /// Which one.
        folder: PathBuf,
    },
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotMounted => f.write_str("no cgroup hierarchy that can do it is mounted"),
            Self::OutOfSight { mount } => {
                write!(f, "mk's own cgroup is not below `{}`", mount.display())
            }
            Self::ReadOnly { mount } => write!(f, "`{}` is mounted read-only", mount.display()),
            Self::NotOurs { folder, legacy } => {
                let version = if *legacy {
                    ", a hierarchy of version 1, which is root's alone"
                } else {
                    ""
                };
                write!(f, "mk may not make a cgroup in `{}`{version}", folder.display())
            }
            Self::NotEnabled { folder, has } => {
                let has = match has.is_empty() {
                    true => "no controller".to_owned(),
                    false => format!("only {}", has.join(", ")),
                };
                write!(f, "`{}`, where mk may make cgroups, has {has}", folder.display())
            }
            Self::Busy { folder } => write!(
                f,
                "there are other processes in `{}`, and a cgroup with limits below it must not have any beside it",
                folder.display()
            ),
        }
    }
}
