//! Who may add, who may remove, and who waits for whom: [`Hold`], [`KeyLock`], [`Lease`] (docs/store.md, "Locks"). All
//! are file locks, which the kernel drops when their holder dies.

use std::ffi::OsStr;
use std::fs::File;
use std::sync::OnceLock;

use rustix::io::Errno;

use super::durability::{Durability, Marked};
use super::image::ImageId;
use super::layout::{self, Format};
use super::{Error, Result, Store};
use crate::digest::Digest;
use crate::sys::dir::Dir;
use crate::sys::file::{self, FileKind, LockKind, Stat};
use crate::watch::{Event, Watch};

/// Keeps gc away for as long as a build lasts. A process takes one at a time: behind a waiting gc, a second would wait
/// for the first.
#[derive(Debug)]
pub struct Hold {
    marked: Marked,
    _lock: File,
}

/// Keeps others from building the same thing.
#[derive(Debug)]
pub struct KeyLock<'a> {
    store: &'a Store,
    path: String,
    _lock: File,
}

/// Keeps an image while it runs. It lasts until the last handle on it is closed, also in processes that inherit it.
#[derive(Debug)]
pub struct Lease {
    _lock: File,
}

/// The store without builds, for gc.
#[derive(Debug)]
pub(super) struct Alone {
    _lock: File,
}

impl Store {
    /// Keeps gc away until the hold is dropped, and clears away what builds that died have left. Where others have not synced
    /// what they wrote, it is synced now, unless this store need not be either.
    pub fn hold(&self, watch: &dyn Watch) -> Result<Hold> {
        let hold = self.hold_unchecked(watch)?;
        self.check_synced()?;
        if self.durability == Durability::Full {
            self.settle()?;
        }
        Ok(hold)
    }

    /// The same for those who look whether the store is whole.
    pub(crate) fn hold_unchecked(&self, watch: &dyn Watch) -> Result<Hold> {
        let gate = self.lock_waiting(layout::GATE_LOCK, LockKind::Shared, watch)?;
        let lock = self.lock_waiting(layout::STORE_LOCK, LockKind::Shared, watch)?;
        drop(gate);
        self.sweep()?;
        Ok(Hold {
            marked: self.marked.clone(),
            _lock: lock,
        })
    }

    /// Waits until no build is under way and keeps new ones out.
    pub(super) fn alone(&self, watch: &dyn Watch) -> Result<Alone> {
        let gate = self.lock_waiting(layout::GATE_LOCK, LockKind::Exclusive, watch)?;
        let lock = self.lock_waiting(layout::STORE_LOCK, LockKind::Exclusive, watch)?;
        drop(gate);
        Ok(Alone { _lock: lock })
    }

    fn lock_waiting(&self, path: &str, kind: LockKind, watch: &dyn Watch) -> Result<File> {
        let file = self.full(self.dir.open_or_create(path))?;
        if !file::try_lock(&file, kind)? {
            let on = match kind {
                LockKind::Shared => "`mk gc`, which is clearing the store".to_owned(),
                LockKind::Exclusive => users(&file::lock_holders(&file)),
            };
            watch.see(Event::Waiting { on: &on });
            file::lock(&file, kind)?;
        }
        Ok(file)
    }

    /// Waits until nobody else builds what `key` names. `what` says it in words (`step 2, unpack alpine.tar.gz`), for
    /// those who will wait for this process.
    pub fn lock_key(&self, key: &Digest, what: &str, watch: &dyn Watch) -> Result<KeyLock<'_>> {
        let path = format!("{}/{key}", layout::LOCKS);
        loop {
            let file = self.full(self.dir.open_or_create(&path))?;
            if !file::try_lock(&file, LockKind::Exclusive)?
                && let Some(on) = holder_of(&file)?
            {
                watch.see(Event::Waiting { on: &on });
                file::lock(&file, LockKind::Exclusive)?;
            }
            // The one before deletes the file before it lets go: a lock on a deleted file keeps nobody out.
            let ours = file::stat(&file)?.inode;
            if self.dir.look(&path)?.is_some_and(|found| found.inode == ours) {
                file::overwrite(&file, format!("{} {what}\n", std::process::id()).as_bytes())
                    .or_else(|error| if error.is_full() { Ok(()) } else { Err(error) })?;
                return Ok(KeyLock {
                    store: self,
                    path,
                    _lock: file,
                });
            }
        }
    }

    /// Keeps `image`, which must be there, from gc until the lease is dropped.
    pub fn lease(&self, image: &ImageId) -> Result<Lease> {
        let path = format!("{}/{image}", layout::LEASES);
        self.check_synced()?;
        // Not through the gate: a run must not wait for a gc that waits for a build.
        let store = self.full(self.dir.open_or_create(layout::STORE_LOCK))?;
        file::lock(&store, LockKind::Shared)?;
        if self.dir.look(format!("{}/{image}", layout::IMAGES))?.is_none() {
            return Err(Error::NoImage(image.to_string()));
        }
        let lease = self.full(self.dir.open_or_create(path))?;
        file::lock(&lease, LockKind::Shared)?;
        Ok(Lease { _lock: lease })
    }

    /// Deletes staging folders whose process is gone.
    pub(super) fn sweep(&self) -> Result<()> {
        sweep(&self.dir)?;
        sweep(&self.dir.open_dir(layout::ROOTFS)?)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        // Nothing more is written, though this process may go on for as long as a container runs.
        self.marked.let_go();
    }
}

impl Drop for KeyLock<'_> {
    fn drop(&mut self) {
        // What stays behind if this fails is an empty promise that gc clears away.
        _ = self.store.dir.unlink(&self.path);
    }
}

/// For a container, which holds the lock as long as it runs.
impl std::os::fd::AsFd for Lease {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self._lock.as_fd()
    }
}

/// Deletes the staging folders in `folder`, and the drafts of a `format`, whose lock is free. One whose boot was another
/// has no process either, so its lock is free too. What has only such a name, and a folder in which something is mounted,
/// stays.
pub(super) fn sweep(folder: &Dir) -> Result<()> {
    for (name, kind) in folder.list()? {
        if layout::is_draft(&name) {
            sweep_draft(folder, &name)?;
        } else if layout::is_staging(&name)
            && kind == FileKind::Folder
            && let Some(staging) = super::none_if_missing(folder.open_dir(&name))?
            && file::try_lock(&staging, LockKind::Exclusive)?
        {
            match folder.remove_all(&name) {
                // Somebody has mounted something there: what is in that is not mk's.
                Err(error) if matches!(error.errno, Errno::XDEV | Errno::BUSY) => {}
                removed => removed?,
            }
        }
    }
    Ok(())
}

/// Deletes the drafts of a `format` in `folder` whose lock is free.
pub(super) fn sweep_drafts(folder: &Dir) -> Result<()> {
    let names = folder.list()?.into_iter().map(|(name, _)| name);
    names
        .filter(|name| layout::is_draft(name))
        .try_for_each(|name| sweep_draft(folder, &name))
}

fn sweep_draft(folder: &Dir, name: &OsStr) -> Result<()> {
    if let Some(draft) = open_draft(folder, name)?
        && file::try_lock(&draft, LockKind::Exclusive)?
    {
        super::none_if_missing(folder.unlink(name))?;
    }
    Ok(())
}

/// Opens `name` in `folder`, which is called like the draft of a `format`; `None` where it is gone, or something else: no
/// file, or one that holds what mk has never written.
pub(super) fn open_draft(folder: &Dir, name: &OsStr) -> Result<Option<File>> {
    let is_file = |found: &Stat| found.kind == FileKind::File;
    // Before it is opened: a device would notice.
    if !folder.look(name)?.as_ref().is_some_and(is_file) {
        return Ok(None);
    }
    let draft = match folder.open_file(name) {
        Err(error) if matches!(error.errno, Errno::NOENT | Errno::LOOP | Errno::ACCESS) => return Ok(None),
        opened => opened?,
    };
    let is_draft = is_file(&file::stat(&draft)?) && Format::can_begin(&file::read(&draft, 4096)?);
    Ok(is_draft.then_some(draft))
}

/// Returns who holds the lock on `file`, who says so there a moment after taking it; `None` where it was let go
/// meanwhile, and this process has it now.
fn holder_of(file: &File) -> Result<Option<String>> {
    for _ in 0..50 {
        let text = file::read(file, 4096)?;
        if text.ends_with(b"\n") {
            return Ok(Some(holder(&text)));
        }
        if file::try_lock(file, LockKind::Exclusive)? {
            return Ok(None);
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    Ok(Some(holder(b"")))
}

/// Returns who uses the store, in words, as far as that is known: other machines and other namespaces have processes, too.
fn users(processes: &[u32]) -> String {
    let shown = processes.iter().take(3).map(|pid| {
        let words = fs_err::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words = String::from_utf8_lossy(&words);
        let words: Vec<&str> = words.split_terminator('\0').collect();
        match words
            .first()
            .map(|program| program.rsplit('/').next().unwrap_or(program))
        {
            Some(program) => {
                let call = [&[program], &words[1..]].concat().join(" ");
                format!("process {pid} (`{}`)", crate::path::shown(call.as_bytes()))
            }
            None => format!("process {pid}"),
        }
    });
    let mut shown: Vec<String> = shown.collect();
    match (shown.len(), processes.len() - shown.len()) {
        (0, _) => "other processes, which are using the store".to_owned(),
        (1, 0) => format!("{}, which is using the store", shown[0]),
        (_, more) => {
            shown.extend((more > 0).then(|| format!("{more} more")));
            format!("{}, which are using the store", shown.join(", "))
        }
    }
}

/// Returns who holds a key, in words, from the text of the lock file.
fn holder(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    match text.trim_end().split_once(' ') {
        Some((pid, what)) if pid.parse::<u32>().is_ok() => {
            format!("process {pid}, which builds {}", what.escape_debug())
        }
        _ => "another process, which builds the same".into(),
    }
}

/// Returns what tells this boot of the machine from others, as far as /proc is there; else [`layout::UNKNOWN_BOOT`].
pub(super) fn boot_id() -> &'static str {
    static ID: OnceLock<String> = OnceLock::new();
    ID.get_or_init(|| {
        let text = fs_err::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let id: String = text.chars().filter(char::is_ascii_hexdigit).collect();
        if layout::is_boot(&id) {
            id
        } else {
            layout::UNKNOWN_BOOT.into()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_uses_the_store_is_told_by_process() {
        let own = users(&[std::process::id()]);
        let id = format!("process {} (`mk_core-", std::process::id());
        assert!(
            own.starts_with(&id) && own.ends_with("`), which is using the store"),
            "{own}"
        );
        assert_eq!(users(&[]), "other processes, which are using the store");
        let none = u32::MAX;
        assert_eq!(
            users(&[none; 5]),
            format!("process {none}, process {none}, process {none}, 2 more, which are using the store")
        );
    }

    #[test]
    fn those_who_hold_a_lock_are_known() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        let (one, other) = (
            dir.open_or_create("lock").unwrap(),
            dir.open_or_create("lock").unwrap(),
        );
        assert!(file::lock_holders(&other).is_empty());
        file::lock(&one, LockKind::Shared).unwrap();
        assert_eq!(file::lock_holders(&other), [std::process::id()]);
    }

    #[test]
    fn those_who_wait_are_told_for_whom() {
        assert_eq!(
            holder(b"4711 step 2, unpack a.tar\n"),
            "process 4711, which builds step 2, unpack a.tar"
        );
        for text in ["", "x y\n", "4711", "\u{1b}[2J 1"] {
            assert_eq!(
                holder(text.as_bytes()),
                "another process, which builds the same",
                "{text:?}"
            );
        }
    }
}
