//! Mounts → a running program → an exit status. This file is the parent's side, from clone to the end.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::cgroup;
use crate::net;
use crate::sys::namespace::Side;
use crate::sys::pidfd;
use crate::sys::process::{self, Ending};
use crate::sys::signal::{self, Incoming, Signal, SignalSet};
use crate::sys::stdio::{self, Until};
use crate::sys::{SysError, probe};

mod carried;
mod child;
mod console;
/// Exit codes, and the step that failed.
pub mod exit;
mod fresh;
/// Who is root inside.
pub mod idmap;
mod init;
/// Going into a container that runs.
pub mod join;
mod keeper;
/// Ids that nothing else has.
pub mod pool;
/// What must be ready before the clone.
pub mod prepare;
/// What the command becomes.
pub mod program;
mod relay;
mod report;
/// What each process may take.
pub mod rlimit;
/// What standard input, output and error are made of.
pub mod streams;
/// The helper of `--network user`.
pub mod uplink;
mod work;

pub use exit::{Step, StepError};
pub use join::Joining;
pub use prepare::{Foreign, Prepared};
pub use program::Program;

use carried::Carried;
use fresh::Delivery;
use relay::Waiting;
use report::{Listener, Told};
use uplink::Attendant;
use work::Work;

/// A run that could not be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A step of the child's failed.
    #[error(transparent)]
    Step(#[from] StepError),
    /// A call of the parent's failed.
    #[error("cannot start the container")]
    Sys(#[from] SysError),
    /// The kernel is older than what mk needs.
    #[error(transparent)]
    TooOld(#[from] probe::TooOld),
    /// The container cannot be put into its cgroups.
    #[error(transparent)]
    Cgroup(#[from] cgroup::Error),
    /// The container cannot be connected to its network.
    #[error(transparent)]
    Network(#[from] net::Error),
    /// The helper of `--network user` could not do its part.
    #[error(transparent)]
    Uplink(#[from] uplink::Error),
    /// A text that cannot be handed to the kernel.
    #[error("{what} holds a NUL byte: `{text}`")]
    Nul {
        /// What it is.
        what: &'static str,
        /// The text.
        text: String,
    },
    /// The store's path cannot be told.
    #[error("cannot tell where the store `{path}` is")]
    Store {
        /// As given.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl Error {
    /// Returns the exit code of `mk run` that tells of it.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Step(step) => step.exit_code(),
            _ => exit::MK_FAILED,
        }
    }
}

/// What a command prints to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output, and all that a terminal of the container's shows.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Gets what a command prints, where that does not go to files of the caller's.
pub trait Output {
    /// Takes `bytes`, which the command wrote to `stream`: as they came, cut anywhere.
    fn take(&mut self, stream: Stream, bytes: &[u8]);
}

/// Lets it go: for runs that print to the caller's own files.
impl Output for () {
    fn take(&mut self, _: Stream, _: &[u8]) {}
}

/// A container that was started. It ends when this is dropped, and when mk ends in whatever way.
#[derive(Debug)]
pub struct Child {
    work: Work,
    ends: Ends,
    incoming: Incoming,
    blocked_before: SignalSet,
    phase: Phase,
    kill_at: Option<Instant>,
    carried: Carried,
    attendant: Option<Attendant>,
}

/// What the parent holds of the child.
#[derive(Debug)]
struct Ends {
    handle: OwnedFd,
    /// The process id of the command, else of the outermost process of the container.
    pid: i32,
    /// The folder that holds the writable layer.
    layer: Option<OwnedFd>,
    report: Listener,
    /// Where the child waits for the helper of `--network user`; taken by that.
    uplink_gate: Option<OwnedFd>,
    /// Nothing is ever written to it: that the kernel closes it when mk ends is the message.
    _tether: OwnedFd,
}

/// Starts what was prepared. Signals are held back from here until the [`Child`] is gone.
pub fn spawn(ready: Prepared) -> Result<Child, Error> {
    Child::start(Work::Run(Box::new(ready)))
}

/// Starts what was prepared in a container that runs. Signals are held back from here until the [`Child`] is gone.
pub fn join(ready: Joining) -> Result<Child, Error> {
    Child::start(Work::Join(Box::new(ready)))
}

impl Child {
    fn start(work: Work) -> Result<Self, Error> {
        // A caller may have children reaped unseen; then nobody could tell how ours ended.
        signal::reset(work.program().ignored_child())?;
        let blocked_before = signal::set_blocked(work.heard().with(init::AWAITED))?;
        match start(&work) {
            Ok((ends, incoming, carried)) => Ok(Self {
                work,
                ends,
                incoming,
                blocked_before,
                phase: Phase::Starting,
                kill_at: None,
                carried,
                attendant: None,
            }),
            Err(failed) => {
                work.release();
                signal::set_blocked(blocked_before)?;
                Err(match failed {
                    Error::Sys(failed) => match probe::explain(&failed) {
                        Some(too_old) => too_old.into(),
                        None => failed.into(),
                    },
                    other => other,
                })
            }
        }
    }
}

fn start(work: &Work) -> Result<(Ends, Incoming, Carried), Error> {
    if let Work::Run(ready) = work
        && let Some(seat) = &ready.seat
    {
        // This process may be the one that stays, and not the one that took it.
        seat.keep()?;
    }
    let incoming = Incoming::open(work.heard())?;
    let (carried, files) = Carried::prepare(
        &work.program().streams,
        work.program().input.as_deref(),
        work.own_cgroups().map(cgroup::Groups::doomed),
    )?;
    let (tethered, tether) = process::pipe()?;
    let (report, reported) = report::channel(work.tells_command())?;
    // Where the child cannot be born in its cgroups, or with its ids, it waits until it has been given them.
    let gate = work.waits().then(process::pipe).transpose()?;
    // It waits for its interface later, and makes its mounts meanwhile.
    let line = work.connection().map(|_| process::pipe()).transpose()?;
    let uplink = work.uplink().map(|_| process::pipe()).transpose()?;
    let (maker, network) = match work.has_fresh_network() {
        true => fresh::prepare()?.unzip(),
        false => (None, None),
    };
    match work.born(network.is_some())? {
        Side::Parent { pid, handle } => {
            // Whoever listens hears that the child is gone only where nobody else could still speak.
            drop(reported);
            let ends = Ends {
                handle,
                pid,
                layer: None,
                report,
                uplink_gate: uplink.map(|(_, go)| go),
                _tether: tether,
            };
            if let Some((_, go)) = gate
                && let Err(failed) = work.admit(pid).and_then(|()| Ok(process::write(go, b"g")?))
            {
                ends.end();
                return Err(failed);
            }
            if let Some(maker) = maker
                && let Err(failed) = maker.make()
            {
                ends.end();
                return Err(failed.into());
            }
            if let Some(connection) = work.connection() {
                match connection.connect(pid.unsigned_abs()) {
                    // Where nobody reads it, the child has failed, and says so.
                    Ok(()) => drop(line.map(|(_, go)| process::write(go, b"g"))),
                    Err(failed) => {
                        drop(line);
                        let told = ends.failure();
                        ends.end();
                        // A child that is gone has no namespace to make anything in, and says why it is gone.
                        return Err(match told {
                            Some((step, index, failed, note)) => work.failed(step, index, failed, note),
                            None => failed.into(),
                        });
                    }
                }
            }
            Ok((ends, incoming, carried))
        }
        Side::Child => {
            // Without the writing ends, which only mk holds now.
            drop((tether, maker));
            let gate = gate.map(|(gate, _)| gate);
            let line = line.map(|(line, _)| line);
            let uplink = uplink.map(|(uplink, _)| uplink);
            match work {
                Work::Run(ready) => {
                    let gates = Gates {
                        gate,
                        line,
                        uplink,
                        network,
                    };
                    child::run(ready, tethered, reported, gates, files)
                }
                Work::Join(ready) => join::run(ready, tethered, reported, gate, files),
            }
        }
    }
}

/// What the child waits for on its way.
#[derive(Debug)]
struct Gates {
    /// For its ids and its cgroups.
    gate: Option<OwnedFd>,
    /// For its interface.
    line: Option<OwnedFd>,
    /// For the helper of its network.
    uplink: Option<OwnedFd>,
    /// For its network namespace.
    network: Option<Delivery>,
}

impl Ends {
    /// Returns what the child, which is about to end, has failed at.
    fn failure(&self) -> Option<(Step, u32, SysError, String)> {
        loop {
            match self.report.listen() {
                Ok(Told::Failed(step, index, failed, note)) => return Some((step, index, failed, note)),
                Ok(Told::Nothing) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    /// Ends the container, and waits for that.
    fn end(&self) {
        let _ = signal::send(self.handle.as_fd(), Signal::KILL);
        let _ = process::wait(self.handle.as_fd());
    }
}

/// What a shell's job control sends, which must find the terminal as it was.
const JOB_CONTROL: SignalSet = SignalSet::of(&[Signal::TERMINAL_STOP, Signal::CONTINUE]);

/// How long the set-up may still take after the container was asked to end: it usually is over in milliseconds, and
/// takes longer only where the kernel waits for something, such as a server that holds a volume.
const SETUP_GRACE: Duration = Duration::from_secs(1);

/// What the parent knows of the child.
#[derive(Debug)]
enum Phase {
    /// It is still being set up.
    Starting,
    /// The command runs.
    Running,
    /// A step failed; it is about to end.
    Failed(Error),
    /// It has ended.
    Ended(Ending),
}

impl Child {
    /// Waits until the command was executed, and returns its process id as the caller sees it, where the run was
    /// prepared to tell it ([`Prepared::tell_command`]), else that of the outermost process of the container. Fails
    /// where a step of the set-up did. Signals that come meanwhile are passed on.
    pub fn started(&mut self) -> Result<i32, Error> {
        while let Phase::Starting = self.phase {
            self.turn(&mut ())?;
        }
        match std::mem::replace(&mut self.phase, Phase::Running) {
            Phase::Failed(error) => Err(error),
            other => {
                self.phase = other;
                Ok(self.ends.pid)
            }
        }
    }

    /// Returns the folder that holds the writable layer, where the run was prepared to tell its command; the container
    /// has started ([`Self::started`]). Nobody else can name it where it is in memory.
    pub fn layer(&self) -> Option<BorrowedFd<'_>> {
        self.ends.layer.as_ref().map(AsFd::as_fd)
    }

    /// Waits for the end of the command, and passes on to it the signals that mk gets meanwhile; `output` gets what
    /// the command prints, where that does not go to files of the caller's.
    pub fn wait(mut self, output: &mut dyn Output) -> Result<Ending, Error> {
        self.started()?;
        loop {
            match self.phase {
                Phase::Ended(ending) if self.carried.is_done() => return Ok(ending),
                _ => self.turn(output)?,
            }
        }
    }

    /// Waits until something happens, and reacts to it.
    fn turn(&mut self, output: &mut dyn Output) -> Result<(), Error> {
        let (starting, over) = (
            matches!(self.phase, Phase::Starting),
            matches!(self.phase, Phase::Ended(_)),
        );
        let left = self
            .kill_at
            .map(|at| at.saturating_duration_since(Instant::now()));
        let mut files = vec![(self.incoming.as_fd(), Until::Readable)];
        if !over {
            files.push((self.ends.handle.as_fd(), Until::Readable));
        }
        // Before those of the streams, whose number differs.
        let exhausted = self.work.own_cgroups().and_then(|cgroups| cgroups.exhausted());
        let exhausted = exhausted.filter(|_| !over && !starting);
        let watched = exhausted.is_some();
        files.extend(exhausted.map(|told| (told, Until::Readable)));
        let names = self.work.followed().filter(|_| !over && !starting);
        let follows = names.and_then(|names| names.told_by());
        let told_of_names = follows.is_some();
        files.extend(follows.map(|told| (told, Until::Readable)));
        let mut waiting = Waiting::default();
        let mut limit = left;
        if starting {
            files.push((self.ends.report.as_fd(), Until::Readable));
        } else {
            waiting = self.carried.waits_for(&mut files);
            let names = names.and_then(|names| names.patience());
            limit = left.into_iter().chain(self.carried.patience()).chain(names).min();
        }
        let ready = stdio::wait_for_any(&files, limit)?;
        let (came, ended) = (ready[0], !over && ready[1]);
        let told = starting && ready[2];
        if told {
            self.listen()?;
        }
        if !starting {
            let mut own = 1 + usize::from(!over) + usize::from(watched);
            if watched && ready[own - 1] {
                self.end_the_rest()?;
            }
            own += usize::from(told_of_names);
            if let Some(names) = self.work.names().filter(|_| !over) {
                names.turn(told_of_names && ready[own - 1]);
            }
            self.carried.carry(waiting, &ready[own..], output);
        }
        // What it told says to whom a signal goes; as long as there is more of that, signals wait.
        if came
            && !told
            && let Some(signal) = self.incoming.next()
        {
            self.react(signal);
        }
        // What it told is heard first: it is why it ended.
        if ended && !told {
            self.phase = Phase::Ended(process::wait(self.ends.handle.as_fd())?);
            // The host's ports are free again, also where somebody still reads what the command has printed.
            self.attendant = None;
            self.carried.close(output);
        } else if left == Some(Duration::ZERO) {
            // A process 1 has no default reactions: without a handler of its own it does not notice (kill(2)).
            let _ = signal::send(self.ends.handle.as_fd(), Signal::KILL);
            self.kill_at = None;
        }
        Ok(())
    }

    /// Ends a container whose memory has run out as a whole: half of one is of no use to anybody.
    fn end_the_rest(&self) -> Result<(), SysError> {
        if let Some(cgroups) = self.work.own_cgroups() {
            cgroups.note_exhausted()?;
        }
        // It may have ended meanwhile.
        let _ = signal::send(self.ends.handle.as_fd(), Signal::KILL);
        Ok(())
    }

    /// Does what `signal` asks for, which mk got.
    fn react(&mut self, signal: Signal) {
        match (signal, &self.phase) {
            (Signal::WINDOW, _) if self.carried.resize() => {}
            (Signal::TERMINAL_STOP, _) => self.carried.stop(),
            (Signal::CONTINUE, Phase::Running) => self.carried.go_on(),
            (Signal::CONTINUE, _) => {}
            // Nobody waits any longer for what the command has printed.
            (signal, Phase::Ended(_)) if signal.asks_to_end() => self.carried.abandon(),
            _ => self.pass_on(signal),
        }
    }

    fn pass_on(&mut self, signal: Signal) {
        // It may have ended meanwhile.
        match self.work {
            Work::Run(_) => {
                let _ = signal::send(self.ends.handle.as_fd(), signal);
            }
            // There is no reaper between.
            Work::Join(_) => init::pass_on(self.ends.pid, signal),
        }
        if signal.asks_to_end() && self.kill_at.is_none() {
            self.kill_at = match self.phase {
                Phase::Starting => Instant::now().checked_add(SETUP_GRACE),
                _ => self.stop_at(),
            };
        }
    }

    /// When a command at process 1 that was asked to end now has had its time; any other hears by itself.
    fn stop_at(&self) -> Option<Instant> {
        let Work::Run(ready) = &self.work else { return None };
        let timeout = ready.as_pid1.then_some(ready.stop_timeout)?;
        Instant::now().checked_add(timeout)
    }

    /// Hears from the child while it sets the container up.
    fn listen(&mut self) -> Result<(), Error> {
        let (step, index, failed, note) = match self.ends.report.listen()? {
            Told::Command(pid) => {
                self.ends.pid = pid;
                return Ok(());
            }
            Told::Layer(folder) => {
                self.ends.layer = Some(folder);
                return Ok(());
            }
            Told::Hosts(file) => {
                if let Some(names) = self.work.names() {
                    names.attach(file);
                }
                return Ok(());
            }
            Told::Sibling(handle) => {
                // Who may trace in the container may speak in the child's name. Only a child of ours is followed, so that
                // no message has us signal a process of the host.
                let Some(pid) = pidfd::child_behind(handle.as_fd()) else {
                    return Ok(());
                };
                self.ends.pid = pid;
                let gone_in = std::mem::replace(&mut self.ends.handle, handle);
                process::wait(gone_in.as_fd())?;
                return Ok(());
            }
            Told::Terminal(master) => {
                self.carried.attach(master)?;
                return Ok(());
            }
            Told::Namespace(namespace) => {
                if let (Some(call), Some(gate)) = (self.work.uplink(), self.ends.uplink_gate.take()) {
                    self.attendant = Some(Attendant::start(call, namespace, gate, self.blocked_before)?);
                }
                return Ok(());
            }
            Told::Nothing => {
                // A container whose helper failed ends without a word.
                if let Some(failed) = self.attendant.as_ref().and_then(Attendant::failure) {
                    self.phase = Phase::Failed(failed.into());
                    return Ok(());
                }
                self.phase = Phase::Running;
                self.carried.begin();
                if let Some(names) = self.work.names() {
                    names.begin();
                }
                // Whoever was asked to end can hear it now, and a process 1 has its own time to do so.
                self.kill_at = self.kill_at.and_then(|_| self.stop_at());
                return Ok(());
            }
            Told::Failed(step, index, failed, note) => (step, index, failed, note),
        };
        self.phase = Phase::Failed(self.work.failed(step, index, failed, note));
        Ok(())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !matches!(self.phase, Phase::Ended(_)) {
            self.ends.end();
        }
        self.carried.end();
        self.work.release();
        let _ = signal::set_blocked(self.blocked_before);
    }
}
