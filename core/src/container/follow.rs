//! Reading a container's log: the last lines of it, and what is still to come.

use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::time::Duration;

use super::document::Document;
use super::folder::Folder;
use super::log::{Position, Reader, Record, Stream};
use super::process::Process;
use super::time::Time;
use super::{Error, Result};
use crate::sys::SysError;
use crate::sys::notify::Notify;
use crate::sys::process::poll;

/// Which records are wanted.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted {
    /// Those from this moment on.
    pub since: Option<Time>,
    /// The last so many lines.
    pub lines: Option<usize>,
    /// Those too that are to come, until the container ends.
    pub follow: bool,
}

/// What a reader is handed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told<'a> {
    /// A record; whether a line begins with it.
    Record(Record<'a>, bool),
    /// Records are missing here: they were taken away before they could be read.
    Missing,
    /// That is all for now: whoever keeps something back should let it go.
    Pause,
}

/// Which streams are in the middle of a line.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Lines {
    open: [bool; 2],
}

impl Lines {
    /// Takes the next record, and says whether a line begins with it.
    pub(super) fn take(&mut self, record: &Record<'_>) -> bool {
        let open = match record.stream {
            Stream::Stdout => &mut self.open[0],
            Stream::Stderr => &mut self.open[1],
        };
        !std::mem::replace(open, !record.ends_line)
    }
}

/// Hands on what is `wanted` of the log in `folder`, in the order in which it was printed; with `follow`, comes back
/// when the container has ended and all of it was handed on.
pub fn read<E: From<Error>>(
    folder: &Folder,
    document: &Document,
    wanted: Wanted,
    take: &mut dyn FnMut(Told<'_>) -> std::result::Result<(), E>,
) -> std::result::Result<(), E> {
    let mut reader = match wanted.lines {
        Some(lines) => reader_of_last(folder, lines, wanted.since),
        None => Reader::open(folder).map_err(Error::from),
    }?;
    let alarm = match wanted.follow {
        true => Some(Alarm::set(folder, document)?),
        false => None,
    };
    let mut lines = Lines::default();
    loop {
        // Before the look at the log: what comes after it is read next time.
        let over = match &alarm {
            Some(alarm) => alarm.is_over(folder)?,
            None => true,
        };
        reader
            .read(|_, record| -> std::result::Result<(), Handed<E>> {
                let begins = lines.take(&record);
                match wanted.since.is_some_and(|since| record.time < since) {
                    true => Ok(()),
                    false => take(Told::Record(record, begins)).map_err(Handed::Theirs),
                }
            })
            .map_err(Handed::into)?;
        if reader.has_skipped() {
            take(Told::Missing)?;
        }
        take(Told::Pause)?;
        match &alarm {
            Some(alarm) if !over => alarm.wait().map_err(Error::from)?,
            _ => return Ok(()),
        }
    }
}

/// An error of ours, or of whoever is handed records.
enum Handed<E> {
    Ours(SysError),
    Theirs(E),
}

impl<E> From<SysError> for Handed<E> {
    fn from(failed: SysError) -> Self {
        Self::Ours(failed)
    }
}

impl<E: From<Error>> Handed<E> {
    fn into(self) -> E {
        match self {
            Self::Ours(failed) => Error::from(failed).into(),
            Self::Theirs(error) => error,
        }
    }
}

/// Returns a reader that stands before the last `count` lines, of those since `since`.
fn reader_of_last(folder: &Folder, count: usize, since: Option<Time>) -> Result<Reader> {
    let mut reader = Reader::open(folder)?;
    let mut begins: VecDeque<Position> = VecDeque::new();
    let mut lines = Lines::default();
    reader.read(|at, record| -> std::result::Result<(), SysError> {
        let early = since.is_some_and(|since| record.time < since);
        if lines.take(&record) && !early {
            begins.push_back(at);
            if begins.len() > count {
                begins.pop_front();
            }
        }
        Ok(())
    })?;
    match begins.front() {
        Some(first) => Ok(Reader::open_at(folder, *first)?),
        // Where it has come to the end.
        None => Ok(reader),
    }
}

/// Goes off when there is more to read, or nothing more to come.
struct Alarm {
    /// `None` where the user has too many watches already.
    notify: Option<Notify>,
    /// `None` where the container has ended.
    monitor: Option<Process>,
}

/// How long to wait at most where nobody tells of changes.
const SOMETIMES: Duration = Duration::from_millis(200);

impl Alarm {
    fn set(folder: &Folder, document: &Document) -> Result<Self> {
        let monitor = match document.started {
            Some(started) => Process::open(started.monitor)?,
            None => None,
        };
        Ok(Self {
            notify: Notify::on(&folder.dir).ok(),
            monitor,
        })
    }

    /// Whether nothing will be added any more.
    fn is_over(&self, folder: &Folder) -> Result<bool> {
        let ended = match &self.monitor {
            Some(monitor) => monitor.wait(Some(Duration::ZERO))?,
            None => false,
        };
        Ok(ended || !folder.is_alive()?)
    }

    fn wait(&self) -> std::result::Result<(), SysError> {
        match (&self.notify, &self.monitor) {
            (Some(notify), Some(monitor)) => {
                poll([notify.as_fd(), monitor.as_fd()], None)?;
                notify.clear();
            }
            (None, Some(monitor)) => {
                poll([monitor.as_fd()], Some(SOMETIMES))?;
            }
            (_, None) => std::thread::sleep(SOMETIMES),
        }
        Ok(())
    }
}
