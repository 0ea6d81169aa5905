//! What this kernel, this user and this machine can and cannot do: looked at as [`Facts`], judged as a list of
//! [`Finding`]s. What to do about one is for the command line to say.

use std::path::PathBuf;

use crate::process::idmap::Reason;
use crate::sys::SysError;
use crate::sys::namespace::Namespaces;
use crate::sys::probe::Filesystem;

/// What is tried for real.
pub mod attempt;
/// Which cgroup controllers can be used.
pub mod cgroup;
/// The judgement.
mod examine;
/// What is looked at.
pub mod facts;
/// What networks with a way out need.
pub mod network;

pub use attempt::{Attempt, Tried};
pub use cgroup::Cgroups;
pub use examine::examine;
pub use facts::Facts;

/// Something that was found, and what it means for mk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What it is about.
    pub matter: Matter,
    /// What it means.
    pub verdict: Verdict,
}

/// What a finding means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// All as it should be.
    Works,
    /// mk works, and does something in another way.
    Differs,
    /// An option of mk's is refused; `mk run` works without it.
    Impossible,
    /// `mk run` does not work.
    Stops,
}

/// What is looked at, with what was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Matter {
    /// The kernel's version.
    Kernel {
        /// What it calls itself.
        release: String,
    },
    /// Calls that a run needs and did not get.
    Calls {
        /// Which ones failed, and how.
        failed: Vec<SysError>,
    },
    /// Being root of a user namespace.
    UserNamespaces(UserNamespaces),
    /// Ids of the user's own besides its one.
    SubordinateIds(SubordinateIds),
    /// The namespaces of a run; those that cannot be had.
    Namespaces {
        /// Which ones failed, and how.
        failed: Vec<(Namespaces, SysError)>,
    },
    /// The kernel's filesystems of a run's own, and binds; those that cannot be had.
    Mounts {
        /// Which ones failed, and how.
        failed: Vec<SysError>,
        /// Whether `/proc` or `/sys` is among them.
        views: bool,
    },
    /// The writable root: an overlay in memory over the store.
    Overlay {
        /// What the store lies on.
        filesystem: String,
        /// Why not.
        failed: Option<SysError>,
    },
    /// `user.*` attributes in memory (Linux 6.6), for ordinary users.
    TmpfsAttributes {
        /// Whether they are there.
        there: bool,
    },
    /// Where images are kept.
    Store {
        /// The folder, or the nearest one above that is there.
        folder: PathBuf,
        /// What it lies on.
        filesystem: Filesystem,
    },
    /// Mounts with other owners than on disk, for `--userns auto`.
    IdmappedMounts(IdmappedMounts),
    /// Limits on memory, processors and processes.
    Cgroups(Cgroups),
    /// Starting a process in a cgroup (Linux 5.7) and ending one as a whole (Linux 5.14).
    CgroupCalls {
        /// Whether `clone3` takes a cgroup.
        start: bool,
        /// Whether there is a `cgroup.kill`.
        kill: bool,
    },
    /// Filters on system calls.
    Seccomp {
        /// Why not.
        failed: Option<SysError>,
    },
    /// Terminals of the container's own.
    Terminals {
        /// Why not.
        failed: Option<SysError>,
    },
    /// The device nodes of the machine that a run borrows.
    Devices {
        /// Those that are missing.
        missing: Vec<&'static str>,
    },
    /// A program that lends a container its caller's network.
    Helper {
        /// Where it is.
        path: Option<PathBuf>,
    },
    /// `/dev/net/tun`.
    Tun {
        /// Why not.
        failed: Option<SysError>,
    },
    /// Tables for the rules of networks with a way out.
    PacketRules {
        /// Why there are none.
        failed: Option<String>,
    },
    /// That packets of networks are passed on.
    Forwarding {
        /// Whether the settings cannot be changed.
        read_only: bool,
        /// How far the kernel can be told about one interface.
        ipv6: network::Ipv6,
    },
    /// Rules of others that drop what is passed on.
    ForwardPolicy {
        /// Which.
        closed: Vec<network::Closed>,
    },
    /// A session keyring of the container's own.
    Keys {
        /// Why not.
        failed: Option<SysError>,
    },
    /// Who may trace whom (`kernel.yama.ptrace_scope`).
    Tracing {
        /// The setting; 0 where there is none.
        scope: u8,
    },
    /// Input pushed into a terminal (`dev.tty.legacy_tiocsti`).
    TerminalInput {
        /// Whether the kernel lets it be pushed.
        allowed: bool,
    },
    /// What `/proc` hides of other users' processes.
    HiddenProcesses {
        /// The value of `hidepid`; empty where nothing is hidden.
        hidepid: String,
    },
    /// Being in a container already.
    Container {
        /// Whose; `None`: in none.
        kind: Option<&'static str>,
        /// Whether it is in a user namespace.
        mapped: bool,
    },
    /// Modules that may forbid what the kernel allows.
    SecurityModules {
        /// SELinux enforces its policy.
        selinux: bool,
        /// AppArmor is at work.
        apparmor: bool,
    },
    /// A clock of the container's own, which mk does not use.
    TimeNamespaces {
        /// Whether there are any.
        there: bool,
    },
    /// How many files a process may have open.
    OpenFiles {
        /// `None`: no limit.
        most: Option<u64>,
    },
    /// How many processes the user may have.
    Processes {
        /// `None`: no limit.
        most: Option<u64>,
    },
    /// The look itself took too long.
    Stuck {
        /// The folder that was waited for.
        folder: PathBuf,
    },
}

/// How this process is root of a user namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserNamespaces {
    /// It is root of the machine, and may make more.
    Native,
    /// It is root of the machine, and may make none.
    NativeOnly(Reason),
    /// It becomes root of one of its own.
    Own,
    /// It cannot.
    Refused(Reason, SysError),
}

/// Which ids a user has besides its one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SubordinateIds {
    /// Root has all.
    All,
    /// So many users and groups, and they work.
    Granted {
        /// Users.
        uids: u64,
        /// Groups.
        gids: u64,
    },
    /// Fewer than a usual image needs.
    Few {
        /// Who is to be granted some; the number where there is no name.
        user: String,
        /// Users.
        uids: u64,
        /// Groups.
        gids: u64,
    },
    /// `newuidmap` and `newgidmap` are not installed.
    NoHelpers,
    /// They are, and may not do it.
    Unprivileged {
        /// Those without privileges.
        helpers: Vec<PathBuf>,
    },
    /// They refused.
    Refused {
        /// What they said.
        said: String,
    },
}

/// Whether mounts can have other owners than on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdmappedMounts {
    /// Of folders and of overlays.
    Both,
    /// Of folders; of overlays from Linux 5.19 on.
    FoldersOnly,
    /// The store's filesystem knows none.
    NotThere {
        /// Its kind.
        filesystem: String,
    },
    /// They are for root of the machine.
    RootOnly,
}

impl Matter {
    /// Returns its name, which stays the same from one release to the next.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Kernel { .. } => "kernel",
            Self::Calls { .. } => "system calls",
            Self::UserNamespaces(_) => "user namespaces",
            Self::SubordinateIds(_) => "subordinate ids",
            Self::Namespaces { .. } => "namespaces",
            Self::Mounts { .. } => "mounts",
            Self::Overlay { .. } => "overlay",
            Self::TmpfsAttributes { .. } => "tmpfs attributes",
            Self::Store { .. } => "store",
            Self::IdmappedMounts(_) => "idmapped mounts",
            Self::Cgroups(_) => "limits",
            Self::CgroupCalls { .. } => "cgroup calls",
            Self::Seccomp { .. } => "seccomp",
            Self::Terminals { .. } => "terminals",
            Self::Devices { .. } => "devices",
            Self::Helper { .. } => "network helper",
            Self::Tun { .. } => "tun",
            Self::PacketRules { .. } => "packet rules",
            Self::Forwarding { .. } => "forwarding",
            Self::ForwardPolicy { .. } => "forward policy",
            Self::Keys { .. } => "keyrings",
            Self::Tracing { .. } => "tracing",
            Self::TerminalInput { .. } => "terminal input",
            Self::HiddenProcesses { .. } => "hidden processes",
            Self::Container { .. } => "container",
            Self::SecurityModules { .. } => "security modules",
            Self::TimeNamespaces { .. } => "time namespaces",
            Self::OpenFiles { .. } => "open files",
            Self::Processes { .. } => "processes",
            Self::Stuck { .. } => "answer",
        }
    }
}

/// Whether `mk run` works where this was found.
pub fn runs(findings: &[Finding]) -> bool {
    findings.iter().all(|finding| finding.verdict != Verdict::Stops)
}
