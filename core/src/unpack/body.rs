//! [`Body`]: what a file in an archive holds, as a reader.

use std::fmt;
use std::io::{self, BufRead, Read};
use std::slice;

use super::stream::Stream;

/// A stretch of data in a sparse file; all else is zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stretch {
    pub(super) offset: u64,
    pub(super) length: u64,
}

/// The content of one file, to be read in the visit that it is handed to; what is left unread is skipped. As a
/// [`BufRead`] it lends the unpacked bytes without copying them.
///
/// An error from a read means that the archive is bad; [`entries`](super::entries) then returns the full reason, whatever
/// the visit returns.
pub struct Body<'a> {
    stream: &'a mut Stream,
    size: u64,
    position: u64,
    hole: u64,
    data: u64,
    stretches: slice::Iter<'a, Stretch>,
}

static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

impl<'a> Body<'a> {
    /// Returns the content of `size` bytes whose `stretches` (checked: in order, apart, within `size`) follow in `stream`.
    pub(super) fn new(stream: &'a mut Stream, size: u64, stretches: &'a [Stretch]) -> Self {
        Self {
            stream,
            size,
            position: 0,
            hole: 0,
            data: 0,
            stretches: stretches.iter(),
        }
    }

    /// Returns the number of bytes that reading to the end gives, holes included.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Moves on to the next hole or stretch of data.
    fn settle(&mut self) {
        while self.hole == 0 && self.data == 0 && self.position < self.size {
            let next = self.stretches.next().copied().unwrap_or(Stretch {
                offset: self.size,
                length: 0,
            });
            self.hole = next.offset.saturating_sub(self.position);
            self.data = next.length;
        }
    }
}

impl BufRead for Body<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.settle();
        if self.hole > 0 {
            return Ok(&ZEROS[..at_most(self.hole, ZEROS.len())]);
        }
        if self.data == 0 {
            return Ok(&[]);
        }
        match self.stream.ready() {
            Ok([]) => {
                let cut = self.stream.truncated("the content of a file");
                return Err(self.stream.keep(cut));
            }
            Ok(_) => {}
            Err(failure) => return Err(self.stream.keep(failure)),
        }
        // Asked again, because a borrow from above cannot be returned past the error arms.
        let ready = self.stream.ready().unwrap_or_default();
        Ok(&ready[..at_most(self.data, ready.len())])
    }

    fn consume(&mut self, count: usize) {
        let taken = if self.hole > 0 {
            let taken = (count as u64).min(self.hole);
            self.hole -= taken;
            taken
        } else {
            let taken = (count as u64).min(self.data);
            self.data -= taken;
            self.stream.take(taken as usize);
            taken
        };
        self.position += taken;
    }
}

impl Read for Body<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if into.is_empty() {
            return Ok(0);
        }
        let ready = self.fill_buf()?;
        let count = ready.len().min(into.len());
        into[..count].copy_from_slice(&ready[..count]);
        self.consume(count);
        Ok(count)
    }
}

impl fmt::Debug for Body<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body")
            .field("size", &self.size)
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}

fn at_most(wanted: u64, there: usize) -> usize {
    usize::try_from(wanted).map_or(there, |wanted| wanted.min(there))
}
