//! Joining a container that runs: what must be ready before, and what the process does that goes in.
//!
//! ```text
//! mk ── clone ──► the one that goes in ── clone ──► the command
//!                 joins the namespaces,             is born in the container's PID namespace:
//!                 gives up what mk can do           from here on its processes see it
//! ```
//!
//! What the container's processes could get hold of in a process that has just come in (its memory, its files, the
//! program that it runs, its privileges: CVE-2016-9962, CVE-2019-5736, CVE-2024-21626) is given up or hidden before it
//! is born where they can see it. The one that goes in stays outside of their PID namespace, and ends at once.

use std::convert::Infallible;
use std::os::fd::{AsFd, OwnedFd};

use super::exit::{At, Fault, Step};
use super::program::Program;
use super::report::Reporter;
use super::streams::{self, Theirs};
use crate::cgroup::Folders;
use crate::mounts::apply::Note;
use crate::sys::namespace::{self, Namespaces, Side};
use crate::sys::terminal::Pair;
use crate::sys::{SysError, place, process};

/// A command ready to be executed in a container that runs.
#[derive(Debug)]
pub struct Joining {
    /// The container's command: nobody else's namespaces can be joined by an ordinary user, for the memory of mk's
    /// reaper is the host's.
    pub(super) target: OwnedFd,
    /// Those that are not the caller's own.
    pub(super) namespaces: Namespaces,
    /// Whether groups can be set there.
    pub(super) has_groups: bool,
    /// The container's.
    pub(super) cgroups: Folders,
    pub(super) program: Program,
}

impl Joining {
    /// Prepares `program` to be executed in the `namespaces` of the process behind `target` and in `cgroups`.
    /// `has_groups` says whether groups can be set there.
    pub fn new(
        target: OwnedFd,
        namespaces: Namespaces,
        has_groups: bool,
        cgroups: Folders,
        program: Program,
    ) -> Self {
        Self {
            target,
            namespaces,
            has_groups,
            cgroups,
            program,
        }
    }
}

/// Goes in; tells the parent of the step that failed, where one does.
///
/// `mk` hangs up when mk ends; `report` is closed by a successful exec; where there is a `gate`, mk writes to it as soon as
/// this process is in the container's cgroups.
pub(super) fn run(ready: &Joining, mk: OwnedFd, report: Reporter, gate: Option<OwnedFd>, files: Theirs) -> ! {
    let fault = match go_in(ready, &mk, &report, gate, files) {
        Ok(never) => match never {},
        Err(fault) => fault,
    };
    report.fault(&fault, &Note::new());
    // The kernel takes a process's memory before its files, and without memory nothing says that it hides.
    let _ = process::close_all_but_these([]);
    process::exit_now(super::exit::MK_FAILED.into())
}

fn go_in(
    ready: &Joining,
    mk: &OwnedFd,
    report: &Reporter,
    gate: Option<OwnedFd>,
    files: Theirs,
) -> Result<Infallible, Fault> {
    tether(mk).at(Step::Tether)?;
    // Nobody in there is to learn how mk was called, nor to read what it knows.
    process::rename(c"mk-exec");
    ready.program.take_oom_score()?;
    process::hide_memory().at(Step::Tether)?;
    // Before there is another process, and while the folders can be named.
    if let Some(gate) = gate
        && process::read(&gate, &mut [0]).at(Step::Cgroup)? == 0
    {
        // mk has ended, or could not put us there and says so itself.
        process::exit_now(super::exit::MK_FAILED.into());
    }
    files.take().at(Step::Streams)?;
    process::close_all_but_these([mk.as_fd(), report.as_fd(), ready.target.as_fd()]).at(Step::Standard)?;
    namespace::join(ready.target.as_fd(), ready.namespaces).at(Step::Join)?;
    become_root(ready).at(Step::Join)?;
    let terminal = make_terminal(ready, report).at(Step::Streams)?;
    ready.program.go_to_workdir()?;
    // Before the container's processes can see us: whoever of them may look into others then finds no more than they
    // have themselves.
    ready.program.give_up()?;
    // The change of users may have undone it (proc_sys_fs(5), suid_dumpable).
    process::hide_memory().at(Step::Tether)?;
    match namespace::clone_sibling().at(Step::Split)? {
        Side::Parent { handle, .. } => {
            report.sibling(handle.as_fd()).at(Step::Split)?;
            process::exit_now(0)
        }
        Side::Child => {}
    }
    // The change of user and the clone have undone what the first one did.
    tether(mk).at(Step::Tether)?;
    process::own_session().at(Step::Tether)?;
    if let Some(pair) = &terminal {
        streams::take_terminal(pair, &ready.program.streams).at(Step::Streams)?;
    }
    ready.program.execute()
}

/// Makes a terminal in the container's own filesystem of terminals, where one is wanted.
fn make_terminal(ready: &Joining, report: &Reporter) -> Result<Option<Pair>, SysError> {
    let wanted = &ready.program.streams;
    if wanted.terminal.is_none() {
        return Ok(None);
    }
    // Whatever the container has put there since, it is looked at before it is used.
    let pair = Pair::make(place::open_kernels(c"/dev/pts")?.as_fd())?;
    report.terminal(pair.master.as_fd())?;
    streams::dress(&pair, wanted, ready.program.uid)?;
    Ok(Some(pair))
}

/// Ends with mk.
fn tether(mk: &OwnedFd) -> Result<(), SysError> {
    process::die_with_parent()?;
    if process::is_hung_up(mk.as_fd())? {
        process::exit_now(super::exit::MK_FAILED.into());
    }
    Ok(())
}

/// Becomes root of the user namespace that was joined: whoever came from another one has its privileges, and is nobody
/// whom its files could belong to.
fn become_root(ready: &Joining) -> Result<(), SysError> {
    if !ready.namespaces.has(Namespaces::USER) {
        return Ok(());
    }
    if ready.has_groups {
        process::set_groups(&[])?;
    }
    process::become_user(0, 0)
}
