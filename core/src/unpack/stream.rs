//! [`Stream`]: the unpacked bytes of an archive, decompressed ahead of the reader in a thread of their own.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::{Builder, Scope};

use super::bad::BadArchive;
use super::compress::{Compression, Decoder};
use super::limits::Limits;

/// A multiple of a tar block, so that blocks rarely straddle two chunks.
const CHUNK: usize = 256 << 10;
/// How many chunks the decompressor may be ahead.
const AHEAD: usize = 4;
/// What every part of a tar is a multiple of (tar(5)).
pub(super) const BLOCK: usize = 512;

/// Some unpacked bytes; the last piece of an archive says how it ended.
struct Piece {
    bytes: Vec<u8>,
    end: Option<Result<(), BadArchive>>,
}

/// The two channels between reader and decompressor: full chunks come, empty ones go back.
struct Feed {
    full: Receiver<Piece>,
    empty: Sender<Vec<u8>>,
}

/// Unpacked bytes with their offset. Ends of chunks do not show.
pub(super) struct Stream {
    archive: String,
    compression: Compression,
    chunk: Vec<u8>,
    at: usize,
    before: u64,
    feed: Option<Feed>,
    /// What follows the current chunk, if it is a failure.
    pending: Option<BadArchive>,
    /// What a body met while somebody else was reading it.
    fault: Option<BadArchive>,
    limit: u64,
}

impl Stream {
    /// Starts to unpack. What fits in one chunk needs no thread.
    pub(super) fn start<'scope, 'env: 'scope>(
        scope: &'scope Scope<'scope, 'env>,
        mut decoder: Decoder<'env>,
        archive: &str,
        limits: &Limits,
    ) -> Result<Self, BadArchive> {
        let mut stream = Self {
            archive: archive.to_owned(),
            compression: decoder.compression(),
            chunk: Vec::new(),
            at: 0,
            before: 0,
            feed: None,
            pending: None,
            fault: None,
            limit: limits.bytes,
        };
        let first = fill(&mut decoder, Vec::new(), archive);
        stream.chunk = first.bytes;
        match first.end {
            Some(end) => stream.pending = end.err(),
            None => stream.feed = Some(ahead(scope, decoder, archive)?),
        }
        stream.within_limit()?;
        Ok(stream)
    }

    /// Returns the name that the caller gave the archive.
    pub(super) fn archive(&self) -> &str {
        &self.archive
    }

    /// Returns how the archive is compressed.
    pub(super) fn compression(&self) -> Compression {
        self.compression
    }

    /// Returns how many unpacked bytes were taken.
    pub(super) fn offset(&self) -> u64 {
        self.before + self.at as u64
    }

    /// Returns bytes that are ready, none at the end.
    pub(super) fn ready(&mut self) -> Result<&[u8], BadArchive> {
        while self.at == self.chunk.len() && self.advance(0)? {}
        Ok(&self.chunk[self.at..])
    }

    /// Takes `count` bytes of those that are ready.
    pub(super) fn take(&mut self, count: usize) {
        self.at = (self.at + count).min(self.chunk.len());
    }

    /// Returns the next `count` bytes without taking them, fewer at the end.
    pub(super) fn peek(&mut self, count: usize) -> Result<&[u8], BadArchive> {
        while self.chunk.len() - self.at < count && self.advance(self.chunk.len() - self.at)? {}
        let ready = &self.chunk[self.at..];
        Ok(&ready[..ready.len().min(count)])
    }

    /// Replaces the current chunk with its last `keep` bytes and the next chunk; says whether there was one.
    fn advance(&mut self, keep: usize) -> Result<bool, BadArchive> {
        let Some(feed) = &self.feed else {
            return match self.pending.take() {
                Some(failure) => Err(failure),
                None => Ok(false),
            };
        };
        let Ok(mut piece) = feed.full.recv() else {
            self.feed = None;
            return Err(self.broken(io::Error::other("the decompressor ended early")));
        };
        let cut = self.chunk.len() - keep;
        if keep > 0 {
            piece.bytes.splice(0..0, self.chunk[cut..].iter().copied());
        }
        let spent = std::mem::replace(&mut self.chunk, piece.bytes);
        // Nobody takes it back once the last chunk was made.
        let _ = feed.empty.send(spent);
        self.before += cut as u64;
        self.at = 0;
        if let Some(end) = piece.end {
            self.feed = None;
            self.pending = end.err();
        }
        self.within_limit()?;
        Ok(true)
    }

    fn within_limit(&self) -> Result<(), BadArchive> {
        if self.before + self.chunk.len() as u64 > self.limit {
            return Err(self.too_large(self.limit, "unpacked bytes"));
        }
        Ok(())
    }

    /// Takes one block; `None` at the end. A part of a block is a truncated archive, inside of `inside`.
    pub(super) fn block(&mut self, inside: &'static str) -> Result<Option<[u8; BLOCK]>, BadArchive> {
        let ready = self.peek(BLOCK)?;
        let mut block = [0; BLOCK];
        match ready.len() {
            0 => return Ok(None),
            BLOCK => block.copy_from_slice(ready),
            short => {
                self.take(short);
                return Err(self.truncated(inside));
            }
        }
        self.take(BLOCK);
        Ok(Some(block))
    }

    /// Takes all bytes up to `offset`.
    pub(super) fn skip_to(&mut self, offset: u64, inside: &'static str) -> Result<(), BadArchive> {
        loop {
            let left = offset.saturating_sub(self.offset());
            if left == 0 {
                return Ok(());
            }
            let ready = self.ready()?.len();
            if ready == 0 {
                return Err(self.truncated(inside));
            }
            self.take(usize::try_from(left).map_or(ready, |left| left.min(ready)));
        }
    }

    /// Takes all that is left, so that checksums at the very end are looked at; says whether all of it was zeros.
    pub(super) fn drain(&mut self) -> Result<bool, BadArchive> {
        let mut zeros = true;
        loop {
            let ready = self.ready()?;
            if ready.is_empty() {
                return Ok(zeros);
            }
            zeros = zeros && ready.iter().all(|&byte| byte == 0);
            let count = ready.len();
            self.take(count);
        }
    }

    /// Keeps `failure` for the walk and returns what a reader of a body may see of it.
    pub(super) fn keep(&mut self, failure: BadArchive) -> io::Error {
        let seen = io::Error::new(io::ErrorKind::InvalidData, failure.to_string());
        self.fault.get_or_insert(failure);
        seen
    }

    /// Returns what a reader of a body met.
    pub(super) fn fault(&mut self) -> Option<BadArchive> {
        self.fault.take()
    }

    /// Returns the complaint that the archive ends here.
    pub(super) fn truncated(&self, inside: &'static str) -> BadArchive {
        BadArchive::Truncated {
            archive: self.archive.clone(),
            offset: self.offset(),
            inside,
        }
    }

    /// Returns the complaint that what is at `offset` makes no sense.
    pub(super) fn malformed(&self, offset: u64, why: impl Into<String>) -> BadArchive {
        BadArchive::Malformed {
            archive: self.archive.clone(),
            offset,
            why: why.into(),
        }
    }

    /// Returns the complaint that a limit was reached here.
    pub(super) fn too_large(&self, limit: u64, what: &'static str) -> BadArchive {
        BadArchive::Limit {
            archive: self.archive.clone(),
            offset: self.offset(),
            limit,
            what,
        }
    }

    fn broken(&self, cause: io::Error) -> BadArchive {
        BadArchive::Read {
            archive: self.archive.clone(),
            packed: 0,
            cause,
        }
    }
}

/// Fills `bytes` with the next chunk.
fn fill(decoder: &mut Decoder<'_>, mut bytes: Vec<u8>, archive: &str) -> Piece {
    if bytes.is_empty() {
        // Fresh from the system and never touched where the archive is small.
        bytes = vec![0; CHUNK];
    }
    bytes.resize(CHUNK, 0);
    let mut filled = 0;
    let end = loop {
        match decoder.read(&mut bytes[filled..]) {
            Ok(0) => break Some(Ok(())),
            Ok(got) => filled += got,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(cause) => break Some(Err(decoder.failure(archive, cause))),
        }
        if filled == bytes.len() {
            break None;
        }
    };
    bytes.truncate(filled);
    Piece { bytes, end }
}

/// Decompresses in a thread until the end, a failure, or until nobody listens any more.
fn ahead<'scope, 'env: 'scope>(
    scope: &'scope Scope<'scope, 'env>,
    mut decoder: Decoder<'env>,
    archive: &str,
) -> Result<Feed, BadArchive> {
    let (full_in, full): (SyncSender<Piece>, _) = sync_channel(AHEAD);
    let (empty, empty_out) = channel::<Vec<u8>>();
    let name = archive.to_owned();
    let work = move || {
        loop {
            let piece = fill(&mut decoder, empty_out.try_recv().unwrap_or_default(), &name);
            let last = piece.end.is_some();
            if full_in.send(piece).is_err() || last {
                return;
            }
        }
    };
    match Builder::new().name("unpack".into()).spawn_scoped(scope, work) {
        Ok(_) => Ok(Feed { full, empty }),
        Err(cause) => Err(BadArchive::Read {
            archive: archive.to_owned(),
            packed: 0,
            cause,
        }),
    }
}
