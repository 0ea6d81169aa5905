//! A container that runs + a command → exit status: looks the container's command up, checks that its namespaces can be
//! joined, decides what the new command becomes, and goes in.

use std::ffi::{CStr, OsStr, OsString};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::container::{self, Document, Found, Process, folder};
use crate::process::idmap::Mapped;
use crate::process::rlimit::Rlimits;
use crate::process::{self, Child, Joining, Program};
use crate::recipe::{Conf, RunDefaults};
use crate::spec::limits::{Limits, OomScore};
use crate::spec::privileges::Granted;
use crate::spec::streams::Streams;
use crate::spec::user::{Identity, Unknown, UserName};
use crate::spec::{self, RunSpec};
use crate::sys::namespace::{self, Namespaces};
use crate::sys::process::{CapabilitySet, Ending};
use crate::sys::{Errno, SysError, place};

/// What is run where nothing is named.
const SHELL: &str = "/bin/sh";

/// What the command line asked for; all else is as it is for the container's command.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    /// Program and arguments; empty: a shell.
    pub command: Vec<OsString>,
    /// `NAME=value`; of two with one name, the later counts.
    pub env: Vec<OsString>,
    /// Working directory, absolute.
    pub workdir: Option<OsString>,
    /// `name`, `uid`, `name:group` or `uid:gid`.
    pub user: Option<String>,
    /// What the caller's terminal is (`TERM`), for a command that gets a terminal.
    pub term: Option<OsString>,
    /// What standard input, output and error are.
    pub streams: Streams,
}

/// A command that was not started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The container cannot be joined as it is.
    #[error(transparent)]
    Container(#[from] container::Error),
    /// Its command may not be looked into.
    #[error("cannot go into container `{called}`: its command, process {pid}, is out of reach")]
    OutOfReach {
        /// Its name or its id.
        called: String,
        /// The process.
        pid: i32,
        /// The call that was refused.
        #[source]
        failed: SysError,
    },
    /// Its command shares namespaces with this process that a container does not share.
    #[error("container `{called}` is not apart from this process: both are in the same {shared} namespaces")]
    NotApart {
        /// Its name or its id.
        called: String,
        /// Which.
        shared: Namespaces,
    },
    /// Which system calls it may make is not known.
    #[error("cannot go into container `{called}`: what is known of its seccomp filter is damaged")]
    Filter {
        /// Its name or its id.
        called: String,
    },
    /// What was asked for is none.
    #[error(transparent)]
    Spec(#[from] spec::Error),
    /// The container does not know the user or the group.
    #[error(transparent)]
    Unknown(#[from] Unknown),
    /// A file that says who is who cannot be read.
    #[error("cannot read the container's `/{}`", .path.to_string_lossy())]
    Accounts {
        /// Which one.
        path: &'static CStr,
        /// Why.
        #[source]
        failed: SysError,
    },
    /// The container has no such user or group.
    #[error("cannot run as {what} {id}: the container's user namespace has no such {what}")]
    NotMapped {
        /// `user` or `group`.
        what: &'static str,
        /// The id.
        id: u32,
    },
    /// The command was not started.
    #[error(transparent)]
    Process(#[from] process::Error),
    /// A call failed.
    #[error("cannot look at the container")]
    Sys(#[from] SysError),
}

impl Error {
    /// Returns the exit code of `mk exec` that tells of it.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Process(error) => error.exit_code(),
            _ => process::exit::MK_FAILED,
        }
    }
}

/// Namespaces that every container has of its own.
const ALWAYS: Namespaces = Namespaces::MOUNT
    .with(Namespaces::UTS)
    .with(Namespaces::IPC)
    .with(Namespaces::PID)
    .with(Namespaces::CGROUP);

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// As its parent sees it.
    pub ending: Ending,
    /// Whether it was ended because the container's memory was used up.
    pub out_of_memory: bool,
}

/// Runs a command in a container and waits for its end.
pub fn run(found: &Found, asked: Asked) -> Result<Ended, Error> {
    // It can be read even when the container is gone.
    let end = found.folder.ending().ok();
    let ending = wait(found, start(found, asked)?)?;
    Ok(Ended {
        ending,
        // Where nobody can tell, how it ended is what counts.
        out_of_memory: ending == KILLED && is_out_of_memory(found, end.as_ref()).unwrap_or(false),
    })
}

/// How the kernel ends what takes too much.
const KILLED: Ending = Ending::Signal(9);

/// How long a container whose memory is used up may take to end, and its end to be written down.
const PATIENCE: Duration = Duration::from_secs(2);

/// Whether the memory of a container that has limits is used up: its cgroups say so as long as they are there, and
/// then its end does, for all of it ends with whoever took too much.
fn is_out_of_memory(found: &Found, end: Option<&folder::Ending>) -> Result<bool, Error> {
    let (folders, begin) = (found.document.folders(), Instant::now());
    if found.document.cgroups.is_empty() {
        return Ok(false);
    }
    loop {
        if folders.out_of_memory() {
            return Ok(true);
        }
        if let Some(end) = end
            && let Some(exit) = end.read()?
        {
            return Ok(exit.oom_killed);
        }
        if lives(found)? || begin.elapsed() > PATIENCE {
            return Ok(false);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn wait(found: &Found, child: Child) -> Result<Ending, Error> {
    match child.wait(&mut ()) {
        // A container that ends takes whoever is going in with it.
        Err(process::Error::Step(failed)) if ends_with_container(&failed.failed) && !lives(found)? => {
            Err(ended(&found.document).into())
        }
        ended => Ok(ended?),
    }
}

/// Whether a call may fail so because the container has ended meanwhile: its process is gone, or its PID namespace takes
/// no more.
fn ends_with_container(failed: &SysError) -> bool {
    matches!(failed.errno, Errno::SRCH | Errno::NOMEM)
}

fn lives(found: &Found) -> Result<bool, Error> {
    let started = found.document.started.ok_or_else(|| ended(&found.document))?;
    match Process::open(started.command)? {
        Some(command) => Ok(!command.wait(Some(Duration::ZERO))?),
        None => Ok(false),
    }
}

fn ended(document: &Document) -> container::Error {
    container::Error::Ended {
        called: document.called().to_owned(),
    }
}

fn start(found: &Found, asked: Asked) -> Result<Child, Error> {
    let document = &found.document;
    let command = found.command()?;
    let namespaces = namespaces(document, &command)?;
    let mapped = Mapped::of(command.pid()).map_err(|failed| match failed.errno {
        Errno::NOENT | Errno::SRCH => Error::from(ended(document)),
        _ => failed.into(),
    })?;
    let other_user = asked.user.is_some();
    let spec = spec(document, limits(&command), asked)?;
    let identity = match other_user {
        true => identity(document, &command, &spec.user, &mapped)?,
        false => own_identity(document),
    };
    let program = Program::new(
        &spec,
        &identity,
        granted(document, identity.uid)?,
        mapped.has_groups(),
    )?;
    // From here on what was read of it, by its number, is true of the process that is joined by its handle.
    if command.wait(Some(Duration::ZERO))? {
        return Err(ended(document).into());
    }
    let joining = Joining::new(
        command.into_handle(),
        namespaces,
        mapped.has_groups(),
        document.folders(),
        program,
    );
    Ok(process::join(joining)?)
}

/// Returns what the command is to be: as the container's own, but for what was asked.
fn spec(document: &Document, limits: Limits, asked: Asked) -> Result<RunSpec, spec::Error> {
    let program = &document.program;
    let mut env: Vec<OsString> = program.environment.iter().map(|entry| entry.0.clone()).collect();
    if asked.user.is_some() {
        // Somebody else lives elsewhere.
        env.retain(|entry| !entry.as_bytes().starts_with(b"HOME="));
    }
    let term = asked.term.filter(|_| asked.streams.terminal.is_some());
    env.extend(term.map(|term| [OsStr::new("TERM="), &term].into_iter().collect()));
    env.extend(asked.env);
    let command = match asked.command.is_empty() {
        true => vec![SHELL.into()],
        false => asked.command,
    };
    let asked = spec::Asked {
        command,
        env,
        workdir: Some(asked.workdir.unwrap_or_else(|| program.workdir.0.clone())),
        user: Some(
            asked
                .user
                .unwrap_or_else(|| format!("{}:{}", program.uid, program.gid)),
        ),
        limits,
        streams: asked.streams,
        ..spec::Asked::default()
    };
    RunSpec::new(&RunDefaults::default(), &Conf::default(), asked)
}

/// Returns how much a process may take that is limited as the command is.
fn limits(command: &Process) -> Limits {
    let limits = fs_err::read_to_string(format!("/proc/{}/limits", command.pid()));
    Limits {
        ulimits: Rlimits::asked_by(&limits.unwrap_or_default()),
        oom_score: oom_score(command.pid()),
        ..Limits::default()
    }
}

/// Returns how much likelier than this process the kernel is to end the process `pid`, where it is: to be less likely
/// takes a privilege.
fn oom_score(pid: i32) -> Option<OomScore> {
    let read = |path: &str| fs_err::read_to_string(path).ok();
    let number = |text: &str| text.trim_end().parse::<i32>().ok();
    let its = read(&format!("/proc/{pid}/oom_score_adj"))?;
    let own = read("/proc/self/oom_score_adj")?;
    let higher = number(&its)? > number(&own)?;
    its.trim_end().parse().ok().filter(|_| higher)
}

/// Returns who runs the container's own command.
fn own_identity(document: &Document) -> Identity {
    let program = &document.program;
    Identity {
        uid: program.uid,
        gid: program.gid,
        groups: program.groups.clone().unwrap_or_default(),
        // Its environment says.
        home: "/".to_owned(),
    }
}

/// Returns what the command is granted. Root has no need of what other users pass on, and must not.
fn granted(document: &Document, uid: u32) -> Result<Granted, Error> {
    let mut granted = document.program.granted().ok_or_else(|| Error::Filter {
        called: document.called().to_owned(),
    })?;
    if uid == 0 {
        granted.ambient = CapabilitySet::empty();
    }
    Ok(granted)
}

/// Returns the namespaces to join: those in which the command is and this process is not.
fn namespaces(document: &Document, command: &Process) -> Result<Namespaces, Error> {
    let pid = command.pid();
    let apart = namespace::apart(pid).map_err(|failed| match failed.errno {
        Errno::NOENT | Errno::SRCH => Error::from(ended(document)),
        _ => Error::OutOfReach {
            called: document.called().to_owned(),
            pid,
            failed,
        },
    })?;
    let shared = ALWAYS.without(apart);
    match shared == Namespaces::NOTHING {
        true => Ok(apart),
        false => Err(Error::NotApart {
            called: document.called().to_owned(),
            shared,
        }),
    }
}

/// The most that a file which says who is who may hold, in bytes.
const MOST_ACCOUNTS: usize = 1 << 20;

/// Returns who `user` is, by the container's files as its command sees them.
fn identity(
    document: &Document,
    command: &Process,
    user: &UserName,
    mapped: &Mapped,
) -> Result<Identity, Error> {
    let root = PathBuf::from(format!("/proc/{}/root", command.pid()));
    let folder = place::open_folder(&root).map_err(|failed| Error::OutOfReach {
        called: document.called().to_owned(),
        pid: command.pid(),
        failed,
    })?;
    let read = |path: &'static CStr| {
        place::read_regular(folder.as_fd(), path, MOST_ACCOUNTS)
            .map(Option::unwrap_or_default)
            .map_err(|failed| Error::Accounts { path, failed })
    };
    let mut identity = user.resolve(&read(c"etc/passwd")?, &read(c"etc/group")?)?;
    for (what, id, there) in [
        ("user", identity.uid, mapped.has_uid(identity.uid)),
        ("group", identity.gid, mapped.has_gid(identity.gid)),
    ] {
        if !there {
            return Err(Error::NotMapped { what, id });
        }
    }
    identity.groups.retain(|&gid| mapped.has_gid(gid));
    Ok(identity)
}
