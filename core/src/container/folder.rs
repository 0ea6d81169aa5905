//! [`Folder`]: one container's folder, for whoever looks; [`Own`]: the same for whoever keeps the container alive.
//!
//! ```text
//! lock             held as long as the container lives (flock(2))
//! container.json   what it is
//! log.1 log.2 …    what it printed, the newest last; only where a monitor looks after it
//! ending           room for the next one, reserved while there is some
//! exit             how it ended
//! ```

use std::fs::File;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::Path;

use super::document::{Document, Exit, Outline, ProcessId, Started};
use super::name::Id;
use super::text::Text;
use super::time::Time;
use super::{Error, Result, State};
use crate::sys::dir::Dir;
use crate::sys::file::{self, LockKind};
use crate::sys::{Errno, SysError};

pub(super) const LOCK: &str = "lock";
pub(super) const DOCUMENT: &str = "container.json";
const DRAFT: &str = "container.json.new";
const ENDING: &str = "ending";
const EXIT: &str = "exit";

/// The most that a document may hold: far more than arguments and environment of a command can (execve(2)).
const MOST: u64 = 16 << 20;

/// A container's folder.
#[derive(Debug)]
pub struct Folder {
    pub(super) dir: Dir,
}

impl Folder {
    /// Whether somebody keeps the container alive.
    pub fn is_alive(&self) -> Result<bool> {
        match self.dir.open_file(LOCK) {
            // Shared: two who look at once must not take each other for the holder.
            Ok(lock) => Ok(!file::try_lock(&lock, LockKind::Shared)?),
            Err(failed) if failed.errno == Errno::NOENT => Ok(false),
            Err(failed) => Err(failed.into()),
        }
    }

    /// Reads what the container is; `None` where nothing says.
    pub fn document(&self) -> Result<Option<Document>> {
        self.read(DOCUMENT, MOST, Document::from_json)
    }

    /// Reads what can be read of what the container is.
    pub(super) fn outline(&self) -> Outline {
        let file = self.dir.open_file(DOCUMENT);
        let bytes = file.and_then(|file| file::read(&file, MOST));
        Outline::from_json(&bytes.unwrap_or_default())
    }

    /// Reads how it ended; `None` where it has not, or nobody was left to say.
    pub fn exit(&self) -> Result<Option<Exit>> {
        self.read(EXIT, Exit::LONGEST as u64, Exit::from_json)
    }

    /// Opens the place where its end will be told, which can be read even when the folder is gone.
    pub fn ending(&self) -> Result<Ending> {
        for name in [ENDING, EXIT] {
            match self.dir.open_file(name) {
                Ok(file) => return Ok(Ending(file)),
                Err(failed) if failed.errno == Errno::NOENT => {}
                Err(failed) => return Err(failed.into()),
            }
        }
        // Renamed between the two looks.
        Ok(Ending(self.dir.open_file(EXIT)?))
    }

    fn read<T>(
        &self,
        name: &str,
        most: u64,
        parse: impl FnOnce(&[u8]) -> std::result::Result<T, super::document::BadDocument>,
    ) -> Result<Option<T>> {
        let file = match self.dir.open_file(name) {
            Err(failed) if failed.errno == Errno::NOENT => return Ok(None),
            opened => opened?,
        };
        parse(&file::read(&file, most)?)
            .map(Some)
            .map_err(|bad| Error::Document {
                path: self.dir.path().join(name),
                bad,
            })
    }
}

/// Where the end of a container will be told.
#[derive(Debug)]
pub struct Ending(File);

impl Ending {
    /// Reads how the container ended; `None` where nobody has said.
    pub fn read(&self) -> Result<Option<Exit>> {
        use std::os::unix::fs::FileExt as _;
        let mut bytes = [0; Exit::LONGEST];
        let failed = |error: std::io::Error| {
            SysError::new(
                Errno::from_io_error(&error).unwrap_or(Errno::IO),
                "pread(\"exit\")",
            )
        };
        let length = self.0.read_at(&mut bytes, 0).map_err(failed)?;
        // It is all blanks until then.
        Ok(Exit::from_json(&bytes[..length]).ok())
    }
}

/// A container's folder in the hands of the process that keeps the container alive, and of its children until they
/// execute something: the container is dead when the last of them has let go.
#[derive(Debug)]
pub struct Own {
    state: State,
    folder: Folder,
    document: Document,
    ending: File,
    _lock: File,
}

impl Own {
    /// Fills the folder of `document`, which has just been made; the caller holds the lock of all folders.
    pub(super) fn fill(state: State, dir: Dir, document: Document) -> std::result::Result<Self, SysError> {
        let lock = dir.create_file(LOCK, 0o600)?;
        // Nobody else can have opened it.
        file::lock(&lock, LockKind::Exclusive)?;
        let ending = dir.create_file(ENDING, 0o600)?;
        // In a place that is full when the container ends, its end is known all the same.
        file::write(&ending, &[b' '; Exit::LONGEST])?;
        let own = Self {
            state,
            folder: Folder { dir },
            document,
            ending,
            _lock: lock,
        };
        own.write_document()?;
        Ok(own)
    }

    /// Returns what the container is.
    pub fn document(&self) -> &Document {
        &self.document
    }

    /// Returns the folder.
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// Remembers the cgroups of the container, for what is written down next.
    pub fn within<'p>(&mut self, cgroups: impl IntoIterator<Item = &'p Path>) {
        self.document.cgroups = cgroups.into_iter().map(Text::from).collect();
    }

    /// Writes down that the command runs: as process `command` of the host, looked after by this process, which has the
    /// folder of the writable layer open. An older container of the same name, which must have ended, goes.
    pub fn started(&mut self, command: i32, layer: Option<BorrowedFd<'_>>) -> Result<()> {
        let Some(monitor) = ProcessId::own() else {
            return Err(SysError::new(Errno::NOENT, "open(\"/proc/self/stat\")").into());
        };
        // It may have ended already; then no process is the one that was started at the boot.
        let command = ProcessId::of(command).unwrap_or(ProcessId {
            pid: command,
            start: 0,
        });
        self.document.started = Some(Started {
            at: Time::now(),
            command,
            monitor,
            layer: layer.map(|folder| folder.as_raw_fd()),
        });
        self.write_document()?;
        match &self.document.name {
            Some(name) => self.state.forget_ended(name, &self.document.id),
            None => Ok(()),
        }
    }

    /// Writes down how it ended, and lets go of the container; its folder goes, unless it is to be kept.
    pub fn ended(self, exit: Exit) -> Result<()> {
        use std::os::unix::fs::FileExt as _;
        let failed = |error: std::io::Error| {
            SysError::new(
                Errno::from_io_error(&error).unwrap_or(Errno::IO),
                "pwrite(\"ending\")",
            )
        };
        self.ending.write_all_at(&exit.to_json(), 0).map_err(failed)?;
        self.folder.dir.rename(ENDING, &self.folder.dir, EXIT)?;
        match self.document.keep {
            true => Ok(()),
            false => self.abandon(),
        }
    }

    /// Takes the folder away: the container did not come about, or nobody wants to know of it.
    pub fn abandon(self) -> Result<()> {
        self.state.remove(&self.document.id)
    }

    fn write_document(&self) -> std::result::Result<(), SysError> {
        let dir = &self.folder.dir;
        let draft = dir.create_file(DRAFT, 0o600)?;
        file::write(&draft, &self.document.to_json())?;
        dir.replace(DRAFT, dir, DOCUMENT)
    }
}

/// Takes the folder `id` away. First what says that it is a container: one that is only half gone is nobody's.
pub(super) fn remove(root: &Dir, id: &Id) -> std::result::Result<(), SysError> {
    match root.unlink(Path::new(id.as_str()).join(DOCUMENT)) {
        Err(failed) if failed.errno != Errno::NOENT => return Err(failed),
        _ => {}
    }
    root.remove_all(id.as_str())
}
