//! The child, from clone to exec: a list of steps, one call each, with what must not be moved said beside it.
//!
//! Nothing in here allocates: all texts were made by `prepare`, and a failure goes back on a channel as numbers and
//! names that are part of the program.

use std::convert::Infallible;
use std::os::fd::{AsFd, OwnedFd};

use super::Gates;
use super::exit::{At, Fault, Step};
use super::fresh::Delivery;
use super::init;
use super::prepare::Prepared;
use super::report::Reporter;
use super::streams::{self, Theirs};
use crate::mounts::apply::Note;
use crate::rootfs::scratch;
use crate::sys::namespace::{self, Namespaces, Side};
use crate::sys::process;
use crate::sys::terminal::Pair;
use crate::sys::{SysError, mount, place};

/// Becomes the container; tells the parent of the step that failed, where one does.
///
/// `tether` hangs up when mk ends; `report` is closed by a successful exec; of the `gates`, mk writes to the first as soon
/// as this process has its ids, and is in its cgroups, and to the second as soon as it has its interface, and
/// the helper of the network to the third as soon as that is connected.
pub(super) fn run(ready: &Prepared, tether: OwnedFd, report: Reporter, gates: Gates, files: Theirs) -> ! {
    let mut note = Note::new();
    let fault = match become_container(ready, &tether, &gates, &report, &files, &mut note) {
        Ok(never) => match never {},
        Err(fault) => fault,
    };
    report.fault(&fault, &note);
    process::exit_now(super::exit::MK_FAILED.into())
}

fn become_container(
    ready: &Prepared,
    mk: &OwnedFd,
    gates: &Gates,
    report: &Reporter,
    files: &Theirs,
    note: &mut Note,
) -> Result<Infallible, Fault> {
    // Before anything else: if the parent is already gone, nobody will end us.
    tether(mk).at(Step::Tether)?;
    ready.program.take_oom_score()?;
    // From now on there are, or will be, processes in the container: none may open our memory or our files.
    process::hide_memory().at(Step::Tether)?;
    // Before there is a second process, which would stay behind.
    if let Some(gate) = &gates.gate {
        wait_at(gate).at(Step::Cgroup)?;
    }
    if ready.own_ids.is_some() {
        become_root(mk).at(Step::Ids)?;
    }
    if ready.cgroups.is_some() {
        namespace::own_cgroup_namespace().at(Step::Cgroup)?;
    }
    // As early as here: the helper takes longer than all that follows.
    if gates.uplink.is_some() {
        hand_over_network(report).at(Step::Network)?;
    }
    // Before the mounts: /sys shows the network of whoever mounts it.
    if let Some((network, _)) = &ready.joined {
        namespace::join(network.as_fd(), Namespaces::NET).at(Step::JoinNetwork)?;
    }
    // The command at pid 1 may give up the tether (a change of user does); a reaper above it cannot.
    if ready.as_pid1 {
        split(ready, Namespaces::PID)?;
    }
    let terminal = enter_root(ready, gates, report, note)?;
    *note = Note::new();
    namespace::set_host_name(&ready.host_name).at(Step::HostName)?;
    // One that it was given has a loopback that is up.
    if ready.loopback && gates.network.is_none() {
        namespace::loopback_up().at(Step::Loopback)?;
    }
    if let Some(uplink) = &gates.uplink {
        wait_at(uplink).at(Step::Network)?;
    }
    ready.program.go_to_workdir()?;
    if let Some(pair) = &terminal {
        report.terminal(pair.master.as_fd()).at(Step::Streams)?;
    }
    let harmless = match ready.as_pid1 {
        true => None,
        false => Some(split_from_first(ready)?),
    };
    // Not the reaper's, so that a signal to the command's group does not reach the reaper; and who has a terminal needs
    // one that has none yet.
    if !ready.as_pid1 || terminal.is_some() {
        process::own_session().at(Step::Tether)?;
    }
    take_streams(ready, files, terminal.as_ref()).at(Step::Streams)?;
    if ready.tells_command {
        report.command().at(Step::Split)?;
    }
    ready.program.give_up()?;
    if let Some(harmless) = harmless {
        wait_for_end(&harmless).at(Step::Split)?;
    }
    ready.program.execute()
}

fn tether(mk: &OwnedFd) -> Result<(), SysError> {
    tie(mk)?;
    // `^C` reaches us through mk, and must not reach us twice.
    process::own_session()
}

fn tie(mk: &OwnedFd) -> Result<(), SysError> {
    process::die_with_parent()?;
    // It may have ended before the call above; then the pipe that it alone holds open is closed.
    if process::is_hung_up(mk.as_fd())? {
        process::exit_now(super::exit::MK_FAILED.into());
    }
    Ok(())
}

/// Has mk connect this network namespace.
fn hand_over_network(report: &Reporter) -> Result<(), SysError> {
    namespace::trust_own_addresses();
    report.namespace(namespace::own_network()?.as_fd())
}

/// Goes into the network namespace that mk has made.
fn enter_network(network: &Delivery) -> Result<(), SysError> {
    match network.enter()? {
        true => Ok(()),
        // It could not be made, and mk says so itself.
        false => process::exit_now(super::exit::MK_FAILED.into()),
    }
}

/// Waits until mk has done its part.
fn wait_at(gate: &OwnedFd) -> Result<(), SysError> {
    if process::read(gate, &mut [0])? == 0 {
        // mk has ended, or could not do its part and says so itself.
        process::exit_now(super::exit::MK_FAILED.into());
    }
    Ok(())
}

/// Becomes root of the container's own user namespace, in which root of the machine is nobody.
fn become_root(mk: &OwnedFd) -> Result<(), SysError> {
    process::set_groups(&[])?;
    process::become_user(0, 0)?;
    // The change of user has undone both.
    tie(mk)?;
    process::hide_memory()
}

/// Goes on in a new process, and stays behind as its reaper.
fn split(ready: &Prepared, namespaces: Namespaces) -> Result<(), Fault> {
    match namespace::clone(namespaces).at(Step::Split)? {
        Side::Parent { pid, .. } => init::stay_with(pid, &ready.keep_open),
        Side::Child => Ok(()),
    }
}

/// Goes on in a new process, and stays behind as process 1. Returns what ends when that one can do no more than send
/// signals: until then, who may trace it could have it do anything.
fn split_from_first(ready: &Prepared) -> Result<OwnedFd, Fault> {
    // The reaper closes its end with all of its files, which is the last that it gives up.
    let (harmless, _reapers) = process::pipe().at(Step::Split)?;
    split(ready, Namespaces::NOTHING)?;
    Ok(harmless)
}

/// Waits until nobody has the other end of a pipe open that nobody writes to.
fn wait_for_end(pipe: &OwnedFd) -> Result<(), SysError> {
    process::read(pipe, &mut [0]).map(drop)
}

/// Puts standard input, output and error in place, while files can still be given away.
fn take_streams(ready: &Prepared, files: &Theirs, terminal: Option<&Pair>) -> Result<(), SysError> {
    files.take()?;
    let Some(pair) = terminal else { return Ok(()) };
    streams::dress(pair, &ready.program.streams, ready.program.uid)?;
    streams::take_terminal(pair, &ready.program.streams)
}

/// Returns the run's own terminal, where it has one.
fn enter_root(
    ready: &Prepared,
    gates: &Gates,
    report: &Reporter,
    note: &mut Note,
) -> Result<Option<Pair>, Fault> {
    place::set_umask(0);
    if ready.program.later_pids {
        // Only a kernel that refuses it knows why; nothing hangs on it.
        _ = process::skip_numbers();
    }
    mount::keep_to_ourselves().at(Step::Propagation)?;
    // Short names: an option of a filesystem is at most 255 bytes long, and two layers are named in one.
    if ready.scratch.names.top.is_some() {
        place::go(&ready.store).at(Step::Store)?;
    }
    scratch::make(&ready.scratch).at(Step::Scratch)?;
    if ready.tells_command {
        let top = scratch::open(&ready.scratch).at(Step::Scratch)?;
        report.layer(top.as_fd()).at(Step::Scratch)?;
    }
    if ready.names.is_some() {
        let hosts = scratch::open_hosts(&ready.scratch).at(Step::Scratch)?;
        report.hosts(hosts.as_fd()).at(Step::Scratch)?;
    }
    let root = ready.mounts.make_root(note).at(Step::Root)?;
    let mut terminal = None;
    let mut make = |index| {
        let made = ready.mounts.make(index, root.as_fd(), &mut terminal, note);
        made.at_index(Step::Mount, index)
    };
    (0..ready.shows_network).try_for_each(&mut make)?;
    if let Some(network) = &gates.network {
        enter_network(network).at(Step::JoinNetwork)?;
    }
    (ready.shows_network..ready.mounts.len()).try_for_each(&mut make)?;
    // After the last place was made in it.
    ready.mounts.finish(root.as_fd()).at(Step::ReadOnly)?;
    // While the host's /proc can be named: that of the container lets nobody change settings.
    if let (Some(connection), Some(line)) = (&ready.connection, &gates.line) {
        *note = Note::new();
        wait_at(line).at(Step::Network)?;
        connection
            .inside
            .carry_out()
            .map_err(|refused| (refused.at, refused.failed))
            .or_else(|(at, failed)| Err(failed).at_index(Step::Network, at))?;
    }
    mount::enter_root(root.as_fd()).at(Step::Enter)?;
    Ok(terminal)
}
