//! What the files of a listing hold: known from before, or read, by several threads where that is worth it.

use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::local::{Listing, hash};
use super::*;
use crate::entry::{Content, Kind};
use crate::sys::file::{self, Version};

/// How much of a file is read at once, in bytes.
const PIECE: usize = 256 * 1024;
/// One thread is enough for so many files...
const FEW: usize = 32;
/// ...of so many bytes in all.
const SMALL: u64 = 1 << 20;
/// More threads than this do not read faster.
const MOST: usize = 8;

/// What a file was found to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// The bytes.
    pub content: Content,
    /// Whether they are those of the version that was listed; else something was written to the file meanwhile.
    pub steady: bool,
}

impl Listing {
    /// Returns what each entry holds that is a file. `known` says, in the order of the entries, what is known of a version of
    /// one; all others are read.
    pub fn contents(
        &self,
        mut known: impl FnMut(&TreePath, &Version) -> Option<Digest>,
    ) -> Result<Vec<Option<Found>>, Error> {
        let mut found = vec![None; self.entries().len()];
        let (mut unread, mut bytes) = (Vec::new(), 0u64);
        for (at, entry) in self.entries().iter().enumerate() {
            let Kind::File(version) = &entry.kind else {
                continue;
            };
            match known(&entry.path, version) {
                Some(digest) => {
                    let content = Content {
                        digest,
                        size: version.size,
                    };
                    found[at] = Some(Found {
                        content,
                        steady: true,
                    });
                }
                None => {
                    unread.push(at);
                    bytes = bytes.saturating_add(version.size);
                }
            }
        }
        let threads = match unread.len() <= FEW && bytes <= SMALL {
            true => 1,
            false => thread::available_parallelism().map_or(1, NonZero::get),
        };
        for (at, read) in self.read(&unread, threads.min(unread.len()).min(MOST))? {
            found[at] = Some(read);
        }
        Ok(found)
    }

    /// Reads the files at these places among the entries. Of several that cannot be read, the first is told.
    fn read(&self, places: &[usize], threads: usize) -> Result<Vec<(usize, Found)>, Error> {
        let next = AtomicUsize::new(0);
        let work = || {
            let (mut found, mut buffer) = (Vec::new(), vec![0; PIECE]);
            while let Some(&at) = places.get(next.fetch_add(1, Ordering::Relaxed)) {
                match self.read_one(at, &mut buffer) {
                    Ok(read) => found.push((at, read)),
                    Err(error) => {
                        // Whoever is at an earlier file goes on with it; nobody begins another.
                        next.store(places.len(), Ordering::Relaxed);
                        return (found, Some((at, error)));
                    }
                }
            }
            (found, None)
        };
        let shares = thread::scope(|scope| {
            let others: Vec<_> = (1..threads)
                // Where no thread can be had, this one does all.
                .map_while(|_| {
                    thread::Builder::new()
                        .name("read".into())
                        .spawn_scoped(scope, work)
                        .ok()
                })
                .collect();
            let mut shares = vec![work()];
            for other in others {
                match other.join() {
                    Ok(share) => shares.push(share),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            shares
        });
        let (mut all, mut first) = (Vec::with_capacity(places.len()), None);
        for (found, failed) in shares {
            all.extend(found);
            first = first.into_iter().chain(failed).min_by_key(|(at, _)| *at);
        }
        match first {
            Some((_, error)) => Err(error),
            None => Ok(all),
        }
    }

    fn read_one(&self, at: usize, buffer: &mut [u8]) -> Result<Found, Error> {
        let entry = &self.entries()[at];
        let failed = |source| Error::Read {
            path: self.place(&entry.path),
            source,
        };
        let file = self.open(&entry.path)?;
        let version = || {
            file::stat(&file)
                .map(|stat| stat.version())
                .map_err(|error| failed(error.into()))
        };
        let before = version()?;
        let (digest, size) = hash(&file, buffer).map_err(failed)?;
        let steady = before == version()? && matches!(&entry.kind, Kind::File(listed) if *listed == before);
        Ok(Found {
            content: Content { digest, size },
            steady,
        })
    }
}
