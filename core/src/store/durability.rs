//! [`Durability`]: whether what is written is on the disk before it has its name, and the mark in a store in which it may
//! not be (docs/store.md, "Without syncs"). Whatever syncs in the store does so here.

use std::fmt;
use std::fs::File;
use std::os::fd::AsFd;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::object::DOCUMENT;
use super::{Error, Result, Store, exists, layout, lock, none_if_missing};
use crate::sys::file::{self, LockKind};

/// What is smaller is written fast enough at the sync itself, and each start is a request to the disk.
const WORTH_A_START: usize = 64 << 10;

/// What a power cut may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// Nothing that has a name: bytes are synced before it, names before a build says that it is done.
    #[default]
    Full,
    /// Everything since the store was synced the last time: nothing is. The store is marked until then.
    None,
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "full",
            Self::None => "none",
        })
    }
}

impl FromStr for Durability {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "full" => Ok(Self::Full),
            "none" => Ok(Self::None),
            _ => Err(()),
        }
    }
}

/// The mark that this process has on the store: locked, so that nobody takes it away while there is more to come.
#[derive(Debug, Clone, Default)]
pub(super) struct Marked(Arc<Mutex<Option<File>>>);

impl Marked {
    fn held(&self) -> MutexGuard<'_, Option<File>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets go of the mark, which stays.
    pub(super) fn let_go(&self) {
        self.held().take();
    }
}

impl Store {
    /// Makes the store sync as `durability` says. Where no boot of the machine can be told from another, it always syncs.
    #[must_use]
    pub fn with_durability(mut self, durability: Durability) -> Self {
        self.durability = match lock::boot_id() {
            layout::UNKNOWN_BOOT => Durability::Full,
            _ => durability,
        };
        self
    }

    /// Sees to it that a file's bytes are on the disk, before the file is given its name.
    pub(crate) fn sync_file(&self, file: impl AsFd) -> Result<()> {
        match self.durability {
            Durability::Full => self.full(file::sync(file)),
            Durability::None => self.mark(),
        }
    }

    /// Says that a file that was given `size` bytes will be synced soon, so that the disk can begin. Syncing a Debian of
    /// 170 MB takes 70 ms in the end instead of 130.
    pub(super) fn sync_soon(&self, file: impl AsFd, size: usize) {
        if self.durability == Durability::Full && size >= WORTH_A_START {
            file::begin_sync(file);
        }
    }

    /// The same of all that was written to the store, bytes and names.
    pub(super) fn sync_all(&self) -> Result<()> {
        match self.durability {
            Durability::Full => self.full(self.dir.sync_filesystem()),
            Durability::None => self.mark(),
        }
    }

    /// Fails where something was written without a sync before the machine was started: it may be lost.
    pub(super) fn check_synced(&self) -> Result<()> {
        match none_if_missing(self.dir.open_file(layout::UNSYNCED))? {
            Some(mark) if !is_of_this_boot(&mark)? => Err(self.unsynced()),
            _ => Ok(()),
        }
    }

    /// Syncs what was written without, if there is any, and takes the mark away unless somebody is still at it.
    pub(super) fn settle(&self) -> Result<()> {
        let Some(mark) = none_if_missing(self.dir.open_file(layout::UNSYNCED))? else {
            return Ok(());
        };
        // First, so that nobody writes more between the sync and the end of the mark.
        let alone = file::try_lock(&mark, LockKind::Exclusive)?;
        self.full(self.dir.sync_filesystem())?;
        if alone && self.is_the_mark(&mark)? {
            self.dir.unlink(layout::UNSYNCED)?;
        }
        Ok(())
    }

    /// Marks the store, before the first name that is given to bytes which may not be on the disk. The mark is a name
    /// too, and filesystems keep the order of changes to names: it is there wherever one of those is.
    fn mark(&self) -> Result<()> {
        let mut held = self.marked.held();
        while held.is_none() {
            let Some(mark) = none_if_missing(self.dir.open_file(layout::UNSYNCED))? else {
                let stage = self.stage()?;
                let draft = self.full(stage.dir().create_file(DOCUMENT, 0o600))?;
                self.full(file::write(&draft, format!("{}\n", lock::boot_id()).as_bytes()))?;
                let renamed = stage.dir().rename(DOCUMENT, &self.dir, layout::UNSYNCED);
                self.full(exists(renamed))?;
                continue;
            };
            file::lock(&mark, LockKind::Shared)?;
            // Whoever takes it away has it locked until it is gone.
            if self.is_the_mark(&mark)? {
                if !is_of_this_boot(&mark)? {
                    return Err(self.unsynced());
                }
                *held = Some(mark);
            }
        }
        Ok(())
    }

    fn is_the_mark(&self, mark: &File) -> Result<bool> {
        let ours = file::stat(mark)?.inode;
        let found = self.dir.look(layout::UNSYNCED)?;
        Ok(found.is_some_and(|found| found.inode == ours))
    }

    fn unsynced(&self) -> Error {
        Error::Unsynced(self.path.clone())
    }
}

/// Whether a mark was made since the machine was started. Its own bytes may be lost as well: then it was not.
fn is_of_this_boot(mark: &File) -> Result<bool> {
    let text = file::read(mark, 4096)?;
    Ok(text == format!("{}\n", lock::boot_id()).as_bytes())
}
