//! [`BadArchive`]: why an archive cannot be unpacked, and where.

use std::io;

use crate::path::shown;

use super::compress::Compression;

/// Why an archive cannot be unpacked. `archive` is the name that the caller gave; an `offset` counts unpacked bytes (of
/// the tar stream), `packed` counts bytes of the file as it is.
#[derive(Debug, thiserror::Error)]
pub enum BadArchive {
    /// Its bytes could not be read at all.
    #[error("cannot read `{archive}` beyond byte {packed}")]
    Read {
        /// Name of the archive.
        archive: String,
        /// Bytes taken in before.
        packed: u64,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// Its compressed data is damaged, cut off, or asks for too much memory.
    #[error("`{archive}` is damaged: its {compression} data cannot be unpacked beyond packed byte {packed}")]
    Damaged {
        /// Name of the archive.
        archive: String,
        /// How it is compressed.
        compression: Compression,
        /// Bytes taken in before.
        packed: u64,
        /// What the decompressor says.
        #[source]
        cause: io::Error,
    },
    /// It is something else.
    #[error(
        "`{archive}` is no archive that can be unpacked: \
         expected tar (plain, gzip, xz or zstd) or a Debian package, found {found}"
    )]
    Unknown {
        /// Name of the archive.
        archive: String,
        /// What it looks like.
        found: String,
    },
    /// A Debian package whose outer archive is not as deb(5) has it.
    #[error("`{archive}` is no sound Debian package: byte {packed}: {why}")]
    Package {
        /// Name of the archive.
        archive: String,
        /// Where.
        packed: u64,
        /// What was expected and found.
        why: String,
    },
    /// It ends in the middle of something.
    #[error("`{archive}` breaks off at byte {offset} (unpacked), inside {inside}")]
    Truncated {
        /// Name of the archive.
        archive: String,
        /// Where it ends.
        offset: u64,
        /// What is incomplete.
        inside: &'static str,
    },
    /// Its structure makes no sense.
    #[error("`{archive}` makes no sense at byte {offset} (unpacked): {why}")]
    Malformed {
        /// Name of the archive.
        archive: String,
        /// Where.
        offset: u64,
        /// What was expected and found.
        why: String,
    },
    /// One of its entries cannot be part of an image.
    #[error("`{archive}` has a bad entry at byte {offset} (unpacked), `{entry}`: {why}")]
    Entry {
        /// Name of the archive.
        archive: String,
        /// Where the entry's header is.
        offset: u64,
        /// Its path as written, made fit for a terminal.
        entry: String,
        /// What is wrong with it.
        why: String,
    },
    /// It asks for more than the caller's [`Limits`](super::Limits).
    #[error("`{archive}` is too large at byte {offset} (unpacked): more than {limit} {what}")]
    Limit {
        /// Name of the archive.
        archive: String,
        /// Where.
        offset: u64,
        /// The limit.
        limit: u64,
        /// What it limits.
        what: &'static str,
    },
}

impl BadArchive {
    /// Returns the complaint about one entry; `path` is as the archive has it.
    pub(super) fn entry(archive: &str, offset: u64, path: &[u8], why: impl Into<String>) -> Self {
        Self::Entry {
            archive: archive.to_owned(),
            offset,
            // A path of a megabyte helps nobody in a message.
            entry: shown(&path[..path.len().min(300)]),
            why: why.into(),
        }
    }
}
