//! [`Folder`]: the recipe's folder, as a build looks into it. What files hold there is remembered by the store, so that one
//! that has not changed is read once.

use std::cell::OnceCell;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use super::Request;
use crate::digest::{Digest, Hasher};
use crate::entry::{Content, Kind};
use crate::fetch;
use crate::fetch::content::Found;
use crate::fetch::ignore::{self, Ignore};
use crate::fetch::local::{self, Less, Listing};
use crate::path::TreePath;
use crate::store::Store;
use crate::store::beside::{Beside, is_settled};
use crate::sys::file::Version;
use crate::watch::{Event, Watch};

/// So many files, or as many bytes, are looked up; fewer are read as fast.
const MANY: usize = 64;
const LARGE: u64 = 1 << 20;

/// A folder with a recipe in it.
pub(super) struct Folder<'a> {
    path: &'a Path,
    store: &'a Store,
    /// Whether what is known of files is believed.
    trusting: bool,
    /// What is left out of folders in it, once that was read.
    ignore: OnceCell<Ignore>,
    /// A time before anything was looked at: seconds since 1970 UTC, nanoseconds.
    began: (i64, u32),
}

/// What is known of the files of a listing, asked in the order of their paths.
pub(super) struct Known {
    /// What the listing is of, and so what it is remembered under; `None`: it is not.
    at: Option<PathBuf>,
    beside: Option<Beside>,
}

impl Known {
    /// Returns what a version of a file holds, where that is known.
    pub(super) fn content(&mut self, path: &TreePath, version: &Version) -> Option<Digest> {
        self.beside.as_mut()?.content(path.as_bytes(), version)
    }
}

impl<'a> Folder<'a> {
    pub(super) fn new(request: &Request<'a>, store: &'a Store) -> Self {
        let since = request.fetch.now.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            path: request.folder,
            store,
            trusting: !request.reread,
            ignore: OnceCell::new(),
            began: (
                i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
                since.subsec_nanos(),
            ),
        }
    }

    /// Returns where a path of the recipe leads.
    pub(super) fn join(&self, from: &str) -> PathBuf {
        self.path.join(from)
    }

    /// Returns digest and size of an archive.
    pub(super) fn archive(&self, from: &str) -> Result<(Digest, u64), fetch::Error> {
        let listing = local::list(&self.join(from), None)?;
        match listing.entries() {
            [entry] if listing.is_file() && matches!(entry.kind, Kind::File(_)) => {
                let found = self.contents(&listing, from)?;
                let content = found.into_iter().flatten().map(|found| found.content).next();
                content.map_or_else(
                    || local::digest(&self.join(from)),
                    |Content { digest, size }| Ok((digest, size)),
                )
            }
            // Whatever it is, to read it is to learn why it is no archive.
            _ => local::digest(&self.join(from)),
        }
    }

    /// Returns the digest of a file or folder as a `copy` step takes it: names, kinds, contents and execute bits.
    pub(super) fn copied(&self, from: &str, watch: &dyn Watch) -> Result<Digest, fetch::Error> {
        let listing = self.list(from)?;
        if listing.is_emptied() {
            let text = format!("`{}` leaves out all that is in `{from}`", ignore::NAME);
            watch.see(Event::Note { text: &text });
        }
        let found = self.contents(&listing, from)?;
        let mut hasher = Hasher::new();
        for (entry, found) in listing.entries().iter().zip(found) {
            take_in(
                &mut hasher,
                &entry.path,
                entry.meta.mode,
                &entry.kind,
                found.map(|found| found.content),
            );
        }
        Ok(hasher.finish())
    }

    /// Lists a file or folder that the recipe names. What is named is taken; what is in it only if no `.mkignore` leaves it
    /// out.
    pub(super) fn list(&self, from: &str) -> Result<Listing, fetch::Error> {
        let path = self.join(from);
        let named = TreePath::normalise(from).map_err(|source| fetch::Error::Name {
            path: path.clone(),
            source,
        })?;
        let less = Less {
            ignore: self.ignore()?,
            named: &named,
        };
        local::list(&path, Some(less))
    }

    fn ignore(&self) -> Result<&Ignore, fetch::Error> {
        match self.ignore.get() {
            Some(ignore) => Ok(ignore),
            None => {
                let read = Ignore::read(self.path)?;
                Ok(self.ignore.get_or_init(|| read))
            }
        }
    }

    /// Returns what each entry of a listing holds that is a file, and has the store remember it.
    pub(super) fn contents(&self, listing: &Listing, from: &str) -> Result<Vec<Option<Found>>, fetch::Error> {
        let mut known = self.known(listing, from);
        let mut count = 0;
        let found = listing.contents(|path, version| {
            let content = known.content(path, version);
            count += usize::from(content.is_some());
            content
        })?;
        let Some(at) = known.at else {
            return Ok(found);
        };
        let entries = listing.entries().iter().zip(&found).filter_map(|(entry, found)| {
            let (Kind::File(version), Some(found)) = (&entry.kind, found) else {
                return None;
            };
            let lasting = found.steady && is_settled(version, self.began);
            lasting.then_some((entry.path.as_bytes(), *version, found.content.digest))
        });
        if entries.clone().count() != count || known.beside.is_some_and(Beside::has_more) {
            // On a full disk, or in a store that cannot be written to, files are read once more the next time.
            _ = self.store.put_beside(&at, entries);
        }
        Ok(found)
    }

    /// Returns what is known of the files of a listing.
    pub(super) fn known(&self, listing: &Listing, from: &str) -> Known {
        let files = listing.entries().iter().filter_map(|entry| match &entry.kind {
            Kind::File(version) => Some(version.size),
            _ => None,
        });
        let (count, bytes) = files.fold((0, 0u64), |(count, bytes), size| {
            (count + 1, bytes.saturating_add(size))
        });
        let worth_it = count >= MANY || bytes >= LARGE;
        let at = worth_it
            .then(|| fs_err::canonicalize(self.join(from)).ok())
            .flatten();
        let beside = at
            .as_ref()
            .filter(|_| self.trusting)
            .and_then(|at| self.store.beside(at));
        Known { at, beside }
    }

    /// Forgets what is known of a file or folder: it was not what it was taken for.
    pub(super) fn forget(&self, from: &str) {
        if let Ok(at) = fs_err::canonicalize(self.join(from)) {
            _ = self.store.forget_beside(&at);
        }
    }
}

/// Adds one entry to the digest of what a `copy` step takes; a file has `content`.
pub(super) fn take_in<B>(
    hasher: &mut Hasher,
    path: &TreePath,
    mode: u16,
    kind: &Kind<B>,
    content: Option<Content>,
) {
    hasher.field(path.as_bytes());
    hasher.field(&mode.to_le_bytes());
    match kind {
        Kind::File(_) => {
            hasher.field(b"file");
            hasher.field(content.as_ref().map_or(&[], |content| content.digest.as_bytes()));
        }
        Kind::Symlink(target) => {
            hasher.field(b"link");
            hasher.field(target);
        }
        Kind::Folder => hasher.field(b"folder"),
        _ => hasher.field(b"fifo"),
    }
}
