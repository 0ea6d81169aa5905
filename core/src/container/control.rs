//! Signals to containers, and waiting for their ends.
//!
//! A signal goes to a process by a handle, which was opened by its number and checked against its start, so never to
//! another that has the number by now.

use std::time::{Duration, Instant};

use super::document::{Document, Exit, ProcessId};
use super::folder::{Ending, Folder};
use super::process::Process;
use super::state::Found;
use super::{Error, Result};
use crate::sys::signal::Signal;

/// How long a monitor may take to write down the end of a container whose command was killed, before it is killed too:
/// one that is stopped itself, or that the machine is too busy for.
const MONITOR_GRACE: Duration = Duration::from_secs(10);

/// How long the lock may still be held when its holder has ended: by a copy of it that ends, too, or clears up.
const SETTLING: Duration = Duration::from_secs(5);

/// The processes of a container that lives.
#[derive(Debug)]
pub struct Running {
    /// Who looks after the container.
    pub monitor: Process,
    /// The command; `None` where it has ended already.
    pub command: Option<Process>,
}

impl Running {
    /// Opens the processes of a container; `None` where it has ended.
    pub fn open(folder: &Folder, document: &Document) -> Result<Option<Self>> {
        let Some(started) = document.started else {
            return match folder.is_alive()? {
                true => Err(Error::NotStarted {
                    called: document.called().to_owned(),
                }),
                false => Ok(None),
            };
        };
        let open = |id: ProcessId| -> Result<Option<Process>> { Ok(Process::open(id)?) };
        match open(started.monitor)? {
            Some(monitor) => Ok(Some(Self {
                monitor,
                command: open(started.command)?,
            })),
            None if folder.is_alive()? => Err(Error::OutOfSight {
                called: document.called().to_owned(),
                pid: started.monitor.pid,
            }),
            None => Ok(None),
        }
    }

    /// Sends the command a signal; one that has ended already gets none.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        if let Some(command) = &self.command {
            command.send(signal)?;
        }
        Ok(())
    }

    /// Kills the command, and waits until the container has ended.
    pub fn kill(&self) -> Result<()> {
        self.signal(Signal::KILL)?;
        if !self.monitor.wait(Some(MONITOR_GRACE))? {
            // Then nobody says how the container ended, but it ends.
            self.monitor.send(Signal::KILL)?;
            self.monitor.wait(None)?;
        }
        Ok(())
    }
}

/// Waits until nobody holds the lock of a container whose keeper has ended, so that whoever looks next sees its end.
fn settle(folder: &Folder) -> Result<()> {
    let begin = Instant::now();
    let mut pause = Duration::from_micros(200);
    while folder.is_alive()? && begin.elapsed() < SETTLING {
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(10));
    }
    Ok(())
}

/// Opens the processes of a container that was found.
fn running(found: &Found) -> Result<Option<Running>> {
    match found.is_alive() {
        true => Running::open(&found.folder, &found.document),
        false => Ok(None),
    }
}

/// Sends the command of a container a signal.
pub fn signal(found: &Found, signal: Signal) -> Result<()> {
    match running(found)? {
        Some(running) => running.signal(signal),
        None => Err(Error::Ended {
            called: found.document.called().to_owned(),
        }),
    }
}

/// Ends containers: asks their commands, all at once, and kills what has not ended in time: `limit`, or what each
/// container was told. One that has ended already is as it should be. Returns what went wrong, by container.
pub fn stop(containers: &[Found], limit: Option<Duration>) -> Vec<Error> {
    let begin = Instant::now();
    let mut failed = Vec::new();
    let mut asked = Vec::new();
    for found in containers {
        let limit = limit.unwrap_or(found.document.stop_timeout());
        let ask = || -> Result<Option<Running>> {
            let running = running(found)?;
            if let Some(running) = &running
                && !limit.is_zero()
            {
                running.signal(Signal::TERMINATE)?;
            }
            Ok(running)
        };
        match ask() {
            Ok(Some(running)) => asked.push((found, running, limit)),
            Ok(None) => {}
            Err(error) => failed.push(error),
        }
    }
    for (found, running, limit) in asked {
        let left = limit.saturating_sub(begin.elapsed());
        let end = || -> Result<()> {
            if !running.monitor.wait(Some(left))? {
                running.kill()?;
            }
            settle(&found.folder)
        };
        failed.extend(end().err());
    }
    failed
}

/// Kills a container, if it lives.
pub fn kill(found: &Found) -> Result<()> {
    if let Some(running) = running(found)? {
        running.kill()?;
    }
    settle(&found.folder)
}

/// A wait for the end of a container.
#[derive(Debug)]
pub struct Wait<'a> {
    folder: &'a Folder,
    ending: Ending,
    running: Option<Running>,
}

impl<'a> Wait<'a> {
    /// Begins to wait: from now on the end is not missed, even if the folder goes with it.
    pub fn begin(found: &'a Found) -> Result<Self> {
        Ok(Self {
            folder: &found.folder,
            ending: found.folder.ending()?,
            running: running(found)?,
        })
    }

    /// Waits until the container has ended, and returns how; `None` where nobody was left to say, because whoever
    /// looked after it was killed.
    pub fn end(self) -> Result<Option<Exit>> {
        if let Some(running) = self.running {
            running.monitor.wait(None)?;
            settle(self.folder)?;
        }
        self.ending.read()
    }
}
