//! Source folders: files of any name that stand in for downloads, found by size and sha256.

use std::collections::HashMap;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::sync::{Arc, Mutex, PoisonError};

use walkdir::WalkDir;

use super::*;

/// How deep a source folder is searched.
const DEEPEST: usize = 8;

/// What source folders were found to hold so far, so that no file is hashed twice. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Held(Arc<Mutex<HashMap<Version, Option<Digest>>>>);

/// One version of a file: another size or time means that it may hold other bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Version {
    path: PathBuf,
    size: u64,
    mtime: (i64, i64),
}

impl Held {
    /// Returns the first file below `folders` that holds the bytes of `pinned`. Files that may hold them by their name
    /// are hashed first; where the size is pinned, only those that have it. What cannot be read is passed over with a
    /// note.
    pub fn find(&self, folders: &[PathBuf], pinned: &Pinned, watch: &dyn Watch) -> Option<PathBuf> {
        folders
            .iter()
            .find_map(|folder| self.find_in(folder, pinned, watch))
    }

    /// Returns the paths of the files that have been hashed.
    #[cfg(test)]
    pub(super) fn known(&self) -> Vec<PathBuf> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.keys().map(|file| file.path.clone()).collect()
    }

    fn find_in(&self, folder: &Path, pinned: &Pinned, watch: &dyn Watch) -> Option<PathBuf> {
        let mut files = candidates(folder, pinned.size, watch);
        let likely = likely_names(pinned);
        files.sort_by_cached_key(|file| {
            let name = file.path.file_name().unwrap_or_default().to_string_lossy();
            let rank = likely
                .iter()
                .position(|likely| *likely == name)
                .unwrap_or(likely.len());
            (rank, file.size, file.path.clone())
        });
        files
            .into_iter()
            .find(|file| self.digest(file, watch) == Some(pinned.sha256))
            .map(|file| file.path)
    }

    /// Returns the digest of a file, hashing it if need be; nothing where it cannot be read.
    fn digest(&self, file: &Version, watch: &dyn Watch) -> Option<Digest> {
        // Held while hashing: two fetches at once would read the same large files twice.
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(digest) = known.get(file) {
            return *digest;
        }
        let digest = match local::digest(&file.path) {
            Ok((digest, _)) => Some(digest),
            Err(error) => {
                watch.see(Event::Note {
                    text: &format!("passed over: {}", chain(&error)),
                });
                None
            }
        };
        known.insert(file.clone(), digest);
        digest
    }
}

/// Returns the regular files below `folder`, of this `size` where one is asked for.
fn candidates(folder: &Path, size: Option<u64>, watch: &dyn Watch) -> Vec<Version> {
    let mut files = Vec::new();
    for entry in WalkDir::new(folder).max_depth(DEEPEST) {
        let meta = match &entry {
            // A link to a file is as good as the file; links to folders could lead anywhere and are not followed.
            Ok(entry) if entry.path_is_symlink() => fs_err::metadata(entry.path()).ok(),
            Ok(entry) => entry.metadata().ok(),
            Err(error) => {
                let missing = error.depth() == 0
                    && error
                        .io_error()
                        .is_some_and(|error| error.kind() == io::ErrorKind::NotFound);
                let text = match missing {
                    true => format!("source folder `{}` passed over: no such folder", folder.display()),
                    false => format!("passed over in a source folder: {error}"),
                };
                watch.see(Event::Note { text: &text });
                continue;
            }
        };
        let (Ok(entry), Some(meta)) = (entry, meta) else {
            continue;
        };
        if meta.is_file() && size.is_none_or(|size| size == meta.len()) {
            files.push(Version {
                path: entry.into_path(),
                size: meta.len(),
                mtime: (meta.mtime(), meta.mtime_nsec()),
            });
        }
    }
    files
}

/// Returns the names that a file with the bytes of `pinned` may well have, likeliest first.
fn likely_names(pinned: &Pinned) -> Vec<String> {
    let own = match &pinned.origin {
        Origin::At(Location::Url(place) | Location::File(place)) | Origin::Pool(place) => url_name(place),
    };
    vec![pinned.sha256.to_string(), own, pinned.name.clone()]
}

/// Returns an error with its causes, in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}
