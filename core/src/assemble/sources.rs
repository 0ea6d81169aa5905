//! Sources that are not in the store yet, fetched several at once.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;

use super::Error;
use crate::fetch;
use crate::plan::Pinned;
use crate::store::Store;
use crate::watch::Watch;

/// How many transfers run at once: enough to hide latency, few enough to be polite to one mirror.
const AT_ONCE: usize = 6;

/// Brings those of `archives` that the store lacks into it. The first failure stops what has not begun.
pub(super) fn fetch_all<'p>(
    archives: impl Iterator<Item = &'p Pinned>,
    folder: &Path,
    settings: &fetch::Settings,
    store: &Store,
    watch: &dyn Watch,
) -> Result<(), Error> {
    let mut missing = BTreeMap::new();
    for archive in archives {
        if !missing.contains_key(&archive.sha256) && store.source(&archive.sha256)?.is_none() {
            missing.insert(archive.sha256, archive);
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let stage = store.stage()?;
    let workers = missing.len().min(AT_ONCE);
    let waiting = Mutex::new(missing.into_values());
    let failed = Mutex::new(None);
    let next = || match (failed.lock(), waiting.lock()) {
        (Ok(failed), Ok(mut waiting)) if failed.is_none() => waiting.next(),
        _ => None,
    };
    let work = || {
        while let Some(archive) = next() {
            let fetched = stage
                .add_source(Some(archive.sha256))
                .map_err(Error::from)
                .and_then(|mut source| {
                    fetch::fetch(archive, folder, settings, &mut source, watch)?;
                    source.finish()?;
                    Ok(())
                });
            if let (Err(error), Ok(mut failed)) = (fetched, failed.lock()) {
                failed.get_or_insert(error);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..workers {
            scope.spawn(work);
        }
        work();
    });
    // What did arrive is kept, so that the next try need not fetch it again.
    stage.commit()?;
    match failed.into_inner() {
        Ok(Some(error)) => Err(error),
        _ => Ok(()),
    }
}
