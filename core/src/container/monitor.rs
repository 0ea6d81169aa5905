//! What keeps a container alive that has a folder: the mk that was called ([`attend`]), or a process of its own that
//! stays behind ([`detach`]).
//!
//! A monitor is a copy of mk that looks after one container: it holds the lock, writes what the command prints to the
//! log, and how it ended to the folder. The container is its child, and dies when it does, in whatever way.

use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use super::document::{Document, Exit, Known, VERSION};
use super::folder::Own;
use super::log::Writer;
use super::name::Id;
use super::state::{Gone, State};
use super::time::Time;
use crate::cgroup::{self, Groups};
use crate::process::{self as run, Child, Output, Prepared, Stream, exit};
use crate::spec::RunSpec;
use crate::sys::namespace::{self, Namespaces, Side};
use crate::sys::process::{self, Ending};
use crate::sys::{SysError, detach, place};

/// A container that did not come about, or could not be looked after.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The run failed.
    #[error(transparent)]
    Run(#[from] run::Error),
    /// A limit cannot be set.
    #[error(transparent)]
    Limits(#[from] cgroup::Error),
    /// What is known of it could not be written down.
    #[error(transparent)]
    Container(#[from] super::Error),
    /// Its monitor could not be started.
    #[error("cannot start the container's monitor")]
    Monitor(#[source] SysError),
    /// Its monitor was killed before the command ran.
    #[error("the container's monitor was ended by signal {0} before the command ran")]
    Killed(i32),
}

impl Error {
    /// Returns the exit code of `mk run` that tells of it.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Run(error) => error.exit_code(),
            _ => exit::MK_FAILED,
        }
    }
}

/// A container decided on, of which nothing is made yet.
#[derive(Debug)]
pub struct Start {
    /// What is cloned.
    pub ready: Prepared,
    /// The cgroups that it gets. Whoever looks after it makes them, who may have to be in some itself.
    pub cgroups: Option<cgroup::Plan>,
}

/// How a container ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// How its command ended.
    pub ending: Ending,
    /// Whether the kernel killed something in it because its memory was used up.
    pub out_of_memory: bool,
}

/// A container whose command runs.
struct Alive {
    child: Child,
    cgroups: Option<Rc<Groups>>,
}

impl Start {
    /// Makes a folder in `state` for the container that will be made of `spec`, and keeps it alive. Returns the
    /// containers that were found dead on the way, too.
    pub fn announce(
        &self,
        state: &State,
        spec: &RunSpec,
        known: Known,
    ) -> Result<(Own, Vec<Gone>), super::Error> {
        let id = Id::random()?;
        state.create(Document::new(id, known, spec, &self.ready))
    }

    fn start(self, own: &mut Own) -> Result<Alive, Error> {
        let cgroups = match &self.cgroups {
            Some(plan) => Some(Rc::new(Groups::new(plan)?)),
            None => None,
        };
        if let Some(groups) = &cgroups {
            own.within(groups.folders().paths());
        }
        let mut child = run::spawn(self.ready.within(cgroups.clone()).tell_command())?;
        let command = child.started()?;
        own.started(command, child.layer())?;
        Ok(Alive { child, cgroups })
    }
}

impl Alive {
    fn wait(self, output: &mut dyn Output) -> Result<Ended, Error> {
        Ok(Ended {
            ending: self.child.wait(output)?,
            out_of_memory: self.cgroups.is_some_and(|groups| groups.out_of_memory()),
        })
    }
}

/// Makes the container, and keeps its folder until it has ended.
pub fn attend(mut own: Own, start: Start) -> Result<Ended, Error> {
    let ended = start.start(&mut own).and_then(|alive| alive.wait(&mut ()));
    finish(own, ended, 0)
}

/// Writes down how a container ended that ran, and takes away the folder of one that did not.
fn finish(own: Own, ended: Result<Ended, Error>, lost: u64) -> Result<Ended, Error> {
    match ended {
        Ok(ended) => {
            own.ended(Exit {
                version: VERSION,
                at: Time::now(),
                code: exit::code(ended.ending),
                oom_killed: ended.out_of_memory,
                lost,
            })?;
            Ok(ended)
        }
        Err(error) => {
            // Why it failed is worth more; and what stays behind is swept.
            let _ = own.abandon();
            Err(error)
        }
    }
}

/// Which of two processes this is.
#[derive(Debug)]
pub enum Detached {
    /// The one that was called.
    Front(Front),
    /// The one that stays.
    Monitor(Box<Monitor>),
}

/// What the mk that was called knows of its monitor.
#[derive(Debug)]
pub struct Front {
    id: Id,
    monitor: OwnedFd,
    news: OwnedFd,
}

/// What the mk that was called has to do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The command runs; this is the container.
    Runs(Id),
    /// It does not, and the monitor has said why: end with this code.
    Failed(u8),
}

/// The process that stays.
#[derive(Debug)]
pub struct Monitor {
    own: Own,
    log: Writer,
    news: OwnedFd,
}

/// Splits this process, which must have one thread, in two: one that waits until the command runs and then ends, and
/// one that stays with the container. Until the command runs both have the caller's files, so that what fails is said
/// where it would be without a monitor. The log will hold `log_size` bytes.
pub fn detach(own: Own, log_size: u64) -> Result<Detached, Error> {
    let split = || -> Result<(Side, Writer, (OwnedFd, OwnedFd)), SysError> {
        let log = Writer::create(own.folder(), log_size)?;
        let pipe = process::pipe()?;
        Ok((namespace::clone(Namespaces::NOTHING)?, log, pipe))
    };
    match split() {
        Ok((Side::Parent { handle, .. }, _, (news, _))) => Ok(Detached::Front(Front {
            id: own.document().id.clone(),
            monitor: handle,
            news,
        })),
        Ok((Side::Child, log, (front, news))) => {
            drop(front);
            Ok(Detached::Monitor(Box::new(Monitor { own, log, news })))
        }
        Err(failed) => {
            let _ = own.abandon();
            Err(Error::Monitor(failed))
        }
    }
}

impl Front {
    /// Waits until the command runs, or the monitor has ended without.
    pub fn wait(self) -> Result<Outcome, Error> {
        let mut word = [0; 1];
        if process::read(&self.news, &mut word).map_err(Error::Monitor)? == 1 {
            return Ok(Outcome::Runs(self.id));
        }
        match process::wait(self.monitor.as_fd()).map_err(Error::Monitor)? {
            Ending::Code(code) => Ok(Outcome::Failed(u8::try_from(code).unwrap_or(exit::MK_FAILED))),
            Ending::Signal(number) => Err(Error::Killed(number)),
        }
    }
}

impl Monitor {
    /// Makes the container, and stays with it until it has ended.
    pub fn run(self, start: Start) -> Result<(), Error> {
        let Self {
            mut own,
            mut log,
            news,
        } = self;
        let started = leave_session()
            .map_err(Error::Monitor)
            .and_then(|()| start.start(&mut own))
            .and_then(|alive| {
                // The container ends with `alive`, where this fails.
                leave_caller(&news).map_err(Error::Monitor)?;
                Ok(alive)
            });
        drop(news);
        let ended = started.and_then(|alive| alive.wait(&mut Log(&mut log)));
        finish(own, ended, log.lost()).map(drop)
    }
}

/// Leaves what would end this process with the caller, but for the caller itself, whose end still counts.
fn leave_session() -> Result<(), SysError> {
    process::own_session()?;
    detach::end_with_parent(true)?;
    // Whoever reads from one of them would wait for us as long as the container runs.
    detach::close_inherited()
}

/// Tells the caller that the command runs, and leaves all that is the caller's. One that has gone meanwhile has not
/// wanted the container.
fn leave_caller(news: &OwnedFd) -> Result<(), SysError> {
    process::rename(c"mk-monitor");
    place::go(c"/")?;
    detach::forget_standard_files()?;
    detach::end_with_parent(false)?;
    process::write(news, b"1")
}

/// Writes what the command prints to the log.
struct Log<'a>(&'a mut Writer);

impl Output for Log<'_> {
    fn take(&mut self, stream: Stream, bytes: &[u8]) {
        self.0.write(stream, bytes, Time::now());
    }
}
