//! [`State`]: the folder that holds a folder for each container of a user, and who may look and change when.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::document::{Document, Exit, Outline};
use super::folder::{self, Folder, Own};
use super::name::{Id, check_name, is_prefix};
use super::process::Process;
use super::{Error, Result};
use crate::sys::dir::Dir;
use crate::sys::file::{self, FileKind, LockKind};
use crate::sys::{Errno, SysError};

/// How long to wait for the last processes of a container that was killed to leave its cgroups.
const PATIENCE: Duration = Duration::from_millis(200);

/// The folder of states, which belongs to the caller alone.
#[derive(Debug)]
pub struct State {
    root: Dir,
    path: PathBuf,
}

/// What there is.
#[derive(Debug, Default)]
pub struct Seen {
    /// The containers, the oldest first.
    pub containers: Vec<Found>,
    /// Those that were found dead, and have been swept.
    pub gone: Vec<Gone>,
    /// Those of which little can be said, and why.
    pub unreadable: Vec<Error>,
    /// The same.
    others: Vec<Other>,
}

/// A container whose document cannot be read.
#[derive(Debug)]
struct Other {
    id: Id,
    outline: Outline,
    path: PathBuf,
}

/// A container.
#[derive(Debug)]
pub struct Found {
    /// What it is.
    pub document: Document,
    /// Whether it lives.
    pub life: Life,
    /// Its folder.
    pub folder: Folder,
}

/// Whether a container lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// Somebody keeps it alive.
    Alive,
    /// It has ended.
    Ended(Exit),
}

/// A container that was found dead: whoever looked after it was killed, and it died with that.
#[derive(Debug)]
pub struct Gone {
    /// What it was.
    pub document: Document,
    /// Why it is gone.
    pub why: Why,
}

/// Why a container is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Its monitor, or the mk that was called, was killed.
    Killed,
    /// The machine was started anew.
    Booted,
}

impl Seen {
    /// Takes out the container that `word` means: its name, its id, or the beginning of just one id.
    pub fn take(&mut self, word: &str) -> Result<Found> {
        let known: Vec<(&Document, bool)> = self
            .containers
            .iter()
            .map(|found| (&found.document, found.is_alive()))
            .collect();
        match pick(&known, word) {
            Ok(at) => Ok(self.containers.remove(at)),
            Err(Error::Unknown { word, like }) => {
                Err(self.other(&word).unwrap_or(Error::Unknown { word, like }))
            }
            Err(error) => Err(error),
        }
    }

    /// Returns why the container that `word` means cannot be looked after; nothing where it means none.
    fn other(&self, word: &str) -> Option<Error> {
        let other = self.others.iter().find(|other| {
            let begins = is_prefix(word) && other.id.as_str().starts_with(word);
            begins || other.outline.name.as_deref() == Some(word)
        })?;
        let monitor = other
            .outline
            .monitor
            .filter(|&id| matches!(Process::open(id), Ok(Some(_))));
        Some(Error::Unreadable {
            called: word.to_owned(),
            path: other.path.clone(),
            monitor: monitor.map(|id| id.pid),
        })
    }
}

impl Found {
    /// Opens the container's command, which runs as long as the container lives.
    pub fn command(&self) -> Result<Process> {
        let called = || self.document.called().to_owned();
        let ended = || Error::Ended { called: called() };
        if !self.is_alive() {
            return Err(ended());
        }
        let Some(started) = self.document.started else {
            return Err(Error::NotStarted { called: called() });
        };
        let command = Process::open(started.command)?.ok_or_else(ended)?;
        // Whoever held the lock when the container was found may have let go.
        match self.folder.is_alive()? {
            true => Ok(command),
            false => Err(ended()),
        }
    }

    /// Whether it lives.
    pub fn is_alive(&self) -> bool {
        self.life == Life::Alive
    }
}

/// The folders without changes by others, for as long as this is held.
struct Alone(#[expect(dead_code, reason = "the lock is dropped with it")] Dir);

impl State {
    /// Opens the folder at `path`, if there is one.
    pub fn open(path: &Path) -> Result<Option<Self>> {
        let root = match Dir::open_itself(path) {
            Ok(root) => root,
            Err(failed) if failed.errno == Errno::NOENT => return Ok(None),
            Err(failed) if matches!(failed.errno, Errno::NOTDIR | Errno::LOOP) => {
                return Err(Error::NotOurs {
                    path: path.to_owned(),
                    why: "it is a symlink or a file".into(),
                });
            }
            Err(failed) => {
                return Err(Error::State {
                    path: path.to_owned(),
                    failed,
                });
            }
        };
        let state = Self {
            root,
            path: path.to_owned(),
        };
        state.check()?;
        Ok(Some(state))
    }

    /// Opens the folder at `path`; makes it (0700) where there is none.
    pub fn open_or_make(path: &Path) -> Result<Self> {
        if let Some(state) = Self::open(path)? {
            return Ok(state);
        }
        match Dir::make(path, 0o700) {
            Err(failed) if failed.errno != Errno::EXIST => {
                return Err(Error::State {
                    path: path.to_owned(),
                    failed,
                });
            }
            _ => {}
        }
        Self::open(path)?.ok_or_else(|| Error::State {
            path: path.to_owned(),
            failed: SysError::new(Errno::NOENT, format_args!("open({path:?})")),
        })
    }

    /// What is in there decides which processes get signals, and what is deleted: nobody else may have had a hand in it.
    fn check(&self) -> Result<()> {
        let stat = file::stat(&self.root)?;
        let why = if stat.uid != file::own_uid() {
            format!("it belongs to user {}, not to you", stat.uid)
        } else if stat.mode & 0o077 != 0 {
            format!("its mode is {:04o}: others than its owner may use it", stat.mode)
        } else {
            return Ok(());
        };
        Err(Error::NotOurs {
            path: self.path.clone(),
            why,
        })
    }

    /// Returns where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Looks at all containers, and sweeps those that are dead.
    pub fn look(&self) -> Result<Seen> {
        let alone = self.alone()?;
        self.look_alone(&alone)
    }

    /// Makes the folder of a container that is about to be made, and keeps it alive. `document` is what it is; it
    /// gets another id where that is taken. Returns the containers that were found dead on the way, too.
    pub fn create(&self, mut document: Document) -> Result<(Own, Vec<Gone>)> {
        let alone = self.alone()?;
        let seen = self.look_alone(&alone)?;
        if let Some(name) = &document.name {
            check_name(name)?;
            let named = |found: &&Found| found.is_alive() && found.document.name.as_ref() == Some(name);
            if let Some(found) = seen.containers.iter().find(named) {
                return Err(Error::NameTaken {
                    name: name.clone(),
                    id: found.document.id.clone(),
                });
            }
        }
        loop {
            match self.root.make_dir(document.id.as_str(), 0o700) {
                Err(failed) if failed.errno == Errno::EXIST => document.id = Id::random()?,
                made => break made.map_err(|failed| self.failed(failed))?,
            }
        }
        let id = document.id.clone();
        let fill = || {
            let dir = self.root.open_dir(id.as_str())?;
            let state = Self {
                root: self.root.open_dir(".")?,
                path: self.path.clone(),
            };
            Own::fill(state, dir, document)
        };
        match fill() {
            Ok(own) => Ok((own, seen.gone)),
            Err(failed) => {
                // What stays behind if this fails is swept by the next who looks.
                let _ = folder::remove(&self.root, &id);
                Err(self.failed(failed))
            }
        }
    }

    /// Returns the container that `word` means: its name, its id, or the beginning of just one id.
    pub fn find(&self, word: &str) -> Result<(Found, Vec<Gone>)> {
        let mut seen = self.look()?;
        let found = seen.take(word)?;
        Ok((found, seen.gone))
    }

    /// Takes the folder of a container away that has ended.
    pub fn forget(&self, id: &Id) -> Result<()> {
        let _alone = self.alone()?;
        let folder = match self.root.open_dir(id.as_str()) {
            Err(failed) if failed.errno == Errno::NOENT => return Ok(()),
            opened => Folder { dir: opened? },
        };
        if folder.is_alive()? {
            return Err(Error::Running {
                called: id.to_string(),
            });
        }
        Ok(folder::remove(&self.root, id)?)
    }

    /// Takes the folder `id` away, whoever keeps its container alive.
    pub(super) fn remove(&self, id: &Id) -> Result<()> {
        let _alone = self.alone()?;
        Ok(folder::remove(&self.root, id)?)
    }

    /// Takes the folders of containers away that are called `name` and have ended; that of `but` stays.
    pub(super) fn forget_ended(&self, name: &str, but: &Id) -> Result<()> {
        let alone = self.alone()?;
        for found in self.look_alone(&alone)?.containers {
            let document = &found.document;
            if document.name.as_deref() == Some(name) && document.id != *but && !found.is_alive() {
                folder::remove(&self.root, &document.id)?;
            }
        }
        Ok(())
    }

    /// Waits until nobody else looks or changes anything, which takes milliseconds at most.
    fn alone(&self) -> Result<Alone> {
        // An opening of its own: the lock goes with it.
        let handle = self.root.open_dir(".")?;
        file::lock(&handle, LockKind::Exclusive)?;
        Ok(Alone(handle))
    }

    fn look_alone(&self, _alone: &Alone) -> Result<Seen> {
        let mut seen = Seen::default();
        for (name, kind) in self.root.list()? {
            let Some(id) = name.to_str().and_then(|name| name.parse::<Id>().ok()) else {
                continue;
            };
            if kind != FileKind::Folder {
                continue;
            }
            match self.look_at(&id, &mut seen) {
                Ok(()) => {}
                Err(Error::Sys(failed)) if failed.errno == Errno::NOENT => {}
                Err(error) => {
                    seen.others.extend(self.other(id));
                    seen.unreadable.push(error);
                }
            }
        }
        seen.containers.sort_by_key(|found| found.document.created);
        seen.gone.sort_by_key(|gone| gone.document.created);
        Ok(seen)
    }

    fn other(&self, id: Id) -> Option<Other> {
        let folder = Folder {
            dir: self.root.open_dir(id.as_str()).ok()?,
        };
        Some(Other {
            outline: folder.outline(),
            path: self.path.join(id.as_str()),
            id,
        })
    }

    fn look_at(&self, id: &Id, seen: &mut Seen) -> Result<()> {
        let folder = Folder {
            dir: self.root.open_dir(id.as_str())?,
        };
        let alive = folder.is_alive()?;
        let document = folder.document()?;
        let life = match (alive, folder.exit()) {
            (true, _) => Some(Life::Alive),
            (false, Ok(exit)) => exit.map(Life::Ended),
            // A folder that another mk wrote stays; any other was being written when its writer died.
            (false, Err(error)) => return Err(error),
        };
        match (document, life) {
            (Some(document), Some(life)) if alive || document.keep => {
                seen.containers.push(Found {
                    document,
                    life,
                    folder,
                });
                return Ok(());
            }
            // Its command ran, and nobody was there to say how it ended.
            (Some(document), None) if document.started.is_some() => {
                let why = match document.boot == boot() {
                    true => Why::Killed,
                    false => Why::Booted,
                };
                // Those of a container that lives are its keeper's to remove; this one had no time to.
                document.folders().doomed().remove(PATIENCE);
                folder::remove(&self.root, id)?;
                seen.gone.push(Gone { document, why });
            }
            // Somebody else has been at its files; whoever keeps it alive has not let go.
            (None, Some(Life::Alive)) => {}
            // It was being made, or being taken away, when whoever did that was killed.
            _ => folder::remove(&self.root, id)?,
        }
        Ok(())
    }

    /// Says of a failed call where it was.
    fn failed(&self, failed: SysError) -> Error {
        Error::State {
            path: self.path.clone(),
            failed,
        }
    }
}

/// Returns which of some containers, the oldest first, is meant by `word`; of each, whether it lives.
pub(super) fn pick(containers: &[(&Document, bool)], word: &str) -> Result<usize> {
    let by_name = |at: &usize| containers[*at].0.name.as_deref() == Some(word);
    // Of two with one name, the one that lives has it; else the younger.
    let named = (0..containers.len())
        .filter(by_name)
        .max_by_key(|at| (containers[*at].1, *at));
    if let Some(at) = named {
        return Ok(at);
    }
    let begins = |at: &usize| is_prefix(word) && containers[*at].0.id.as_str().starts_with(word);
    let found: Vec<usize> = (0..containers.len()).filter(begins).collect();
    match found[..] {
        [at] => Ok(at),
        [] => Err(Error::Unknown {
            word: crate::path::shown(word.as_bytes()),
            like: like(containers, word),
        }),
        _ => Err(Error::Ambiguous {
            word: word.to_owned(),
            ids: found.iter().map(|at| containers[*at].0.id.clone()).collect(),
        }),
    }
}

/// Returns the name that a slip or two of the fingers would make `word`.
fn like(containers: &[(&Document, bool)], word: &str) -> Option<String> {
    let names = containers
        .iter()
        .filter_map(|(document, _)| document.name.as_deref());
    let slips = |name: &&str| strsim::damerau_levenshtein(name, word);
    let most = 1 + word.chars().count() / 4;
    let nearest = names.filter(|name| slips(name) <= most).min_by_key(slips);
    nearest.map(str::to_owned)
}

/// Returns what tells this boot of the machine from others.
pub(super) fn boot() -> String {
    let text = fs_err::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    text.trim().to_owned()
}
