//! What does not stay goes to the trash, and everything is counted.

use std::collections::BTreeMap;

use super::facts::Files;
use super::reach::Live;
use super::{Collected, Policy, Reason, Stored};
use crate::digest::Digest;
use crate::store::layout::{self, ObjectName};
use crate::store::{Result, Store, none_if_missing};
use crate::sys::dir::Dir;
use crate::sys::file::{self, FileKind, LockKind};

/// Counts everything, and moves what is not live to the trash if there is one. What was `spared`, and is not live, goes
/// to make room.
pub(super) fn sweep(
    store: &Store,
    live: &Live,
    spared: &Live,
    files: &Files,
    policy: &Policy,
    trash: Option<&Dir>,
) -> Result<Collected> {
    let mut sweep = Sweep {
        trash,
        found: Collected::default(),
        next: 0,
    };
    let verdict = |stays: Option<Reason>, was_spared: bool| match stays {
        Some(reason) => reason,
        None if was_spared => Reason::Room,
        None => Reason::Unneeded,
    };
    let by_digest = |stays: &BTreeMap<Digest, Reason>, spared: &BTreeMap<Digest, Reason>, name: &str| {
        match name.parse() {
            Ok(digest) => verdict(stays.get(&digest).copied(), spared.contains_key(&digest)),
            Err(_) => Reason::Unneeded,
        }
    };
    let (live_files, spared_files) = (files.first(&live.trees), files.first(&spared.trees));
    for stored in Stored::ALL {
        let Some(folder) = none_if_missing(store.dir.open_dir(stored.folder()))? else {
            // An older store lacks this one.
            continue;
        };
        match stored {
            Stored::Builds => sweep.folder(stored, &folder, |name| {
                by_digest(&live.builds, &spared.builds, name)
            })?,
            Stored::Steps => sweep.folder(stored, &folder, |name| {
                by_digest(&live.steps, &spared.steps, name)
            })?,
            Stored::Conf | Stored::Images => sweep.folder(stored, &folder, |name| {
                by_digest(&live.images, &spared.images, name)
            })?,
            // Staging is not gc's to judge.
            Stored::Rootfs => {
                sweep.folder(stored, &folder, |name| match layout::is_staging(name.as_ref()) {
                    true => Reason::Kept,
                    false => by_digest(&live.rootfs, &spared.rootfs, name),
                })?
            }
            Stored::Trees => sweep.folder(stored, &folder, |name| {
                by_digest(&live.trees, &spared.trees, name)
            })?,
            Stored::Sources => {
                sweep.folder(stored, &folder, |name| match name.strip_suffix(layout::NEWEST) {
                    None => by_digest(&live.sources, &spared.sources, name),
                    // The newest time in a source, or in a tree that recipes start from.
                    Some(name) => by_digest(&live.sources, &spared.sources, name).min(by_digest(
                        &live.trees,
                        &spared.trees,
                        name,
                    )),
                })?
            }
            Stored::Beside => sweep.folder(stored, &folder, |name| {
                by_digest(&live.beside, &spared.beside, name)
            })?,
            Stored::Caches => sweep.caches(&folder, policy.caches)?,
            Stored::Objects => {
                for byte in 0..=255u8 {
                    let prefix = format!("{byte:02x}");
                    let Some(folder) = none_if_missing(folder.open_dir(&prefix))? else {
                        continue;
                    };
                    sweep.folder(stored, &folder, |name| {
                        let name = ObjectName::parse(&format!("{prefix}{name}"), &store.format);
                        match name.and_then(|name| files.number(&name)) {
                            Some(number) => verdict(live_files[number], spared_files[number].is_some()),
                            None => Reason::Unneeded,
                        }
                    })?;
                }
            }
        }
    }
    Ok(sweep.found)
}

struct Sweep<'a> {
    trash: Option<&'a Dir>,
    found: Collected,
    next: u64,
}

/// Returns how many bytes the files below `top` hold.
pub(super) fn bytes_below(top: &Dir) -> Result<u64> {
    let mut bytes = 0;
    let mut folders = vec![top.open_dir(".")?];
    while let Some(folder) = folders.pop() {
        for (name, kind) in folder.list()? {
            match kind {
                FileKind::Folder => folders.push(folder.open_dir(&name)?),
                _ => bytes += folder.stat(&name)?.size,
            }
        }
    }
    Ok(bytes)
}

impl Sweep<'_> {
    /// Caches are folders, which a step that uses them has locked.
    fn caches(&mut self, folder: &Dir, unwanted: bool) -> Result<()> {
        for (name, _) in folder.list()? {
            let cache = folder.open_dir(&name)?;
            let bytes = bytes_below(&cache)?;
            let goes = unwanted && file::try_lock(&cache, LockKind::Exclusive)?;
            if let (true, Some(trash)) = (goes, self.trash) {
                folder.rename(&name, trash, self.next.to_string())?;
                self.next += 1;
            }
            let reason = if goes { Reason::Asked } else { Reason::Kept };
            self.found.add(Stored::Caches, reason, bytes);
        }
        Ok(())
    }

    fn folder(&mut self, stored: Stored, folder: &Dir, judge: impl Fn(&str) -> Reason) -> Result<()> {
        for (name, kind) in folder.list()? {
            let reason = judge(&name.to_string_lossy());
            let bytes = match kind {
                FileKind::Folder => 0,
                _ => folder.stat(&name)?.size,
            };
            if let (true, Some(trash)) = (reason.goes(), self.trash) {
                folder.rename(&name, trash, self.next.to_string())?;
                self.next += 1;
            }
            self.found.add(stored, reason, bytes);
        }
        Ok(())
    }
}
