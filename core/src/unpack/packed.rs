//! [`Packed`]: the bytes of an archive as they come, buffered and counted.

use std::io::{self, BufRead, Read};

/// Enough for few system calls, little enough to stay in the processor's cache.
const BUFFER: usize = 128 << 10;

/// A buffered reader that knows how many bytes were taken from it, and whether the reader below failed: a decoder's
/// error alone does not tell a bad disk from a bad archive.
pub(super) struct Packed<'a> {
    inner: Box<dyn Read + Send + 'a>,
    buffer: Vec<u8>,
    at: usize,
    filled: usize,
    taken: u64,
    failed: bool,
}

impl<'a> Packed<'a> {
    /// Returns a reader over `inner`, whose first byte is byte `start` of the file.
    pub(super) fn new(inner: Box<dyn Read + Send + 'a>, start: u64) -> Self {
        Self {
            inner,
            buffer: vec![0; BUFFER],
            at: 0,
            filled: 0,
            taken: start,
            failed: false,
        }
    }

    /// Returns how many bytes of the file were taken.
    pub(super) fn taken(&self) -> u64 {
        self.taken
    }

    /// Whether the reader below failed.
    pub(super) fn failed(&self) -> bool {
        self.failed
    }

    /// Returns the next `count` bytes without taking them, fewer at the end. `count` is at most the buffer's size.
    pub(super) fn peek(&mut self, count: usize) -> io::Result<&[u8]> {
        if self.buffer.len() - self.at < count {
            self.buffer.copy_within(self.at..self.filled, 0);
            self.filled -= self.at;
            self.at = 0;
        }
        while self.filled - self.at < count {
            match Self::read_inner(&mut self.inner, &mut self.failed, &mut self.buffer[self.filled..])? {
                0 => break,
                got => self.filled += got,
            }
        }
        Ok(&self.buffer[self.at..self.filled.min(self.at + count)])
    }

    fn read_inner(inner: &mut dyn Read, failed: &mut bool, into: &mut [u8]) -> io::Result<usize> {
        loop {
            match inner.read(into) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // A reader below that ends too early is the archive's fault, not the disk's.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(error),
                Err(error) => {
                    *failed = true;
                    return Err(error);
                }
                Ok(got) => return Ok(got),
            }
        }
    }
}

impl BufRead for Packed<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.filled {
            self.at = 0;
            self.filled = 0;
            self.filled = Self::read_inner(&mut self.inner, &mut self.failed, &mut self.buffer)?;
        }
        Ok(&self.buffer[self.at..self.filled])
    }

    fn consume(&mut self, count: usize) {
        let count = count.min(self.filled - self.at);
        self.at += count;
        self.taken += count as u64;
    }
}

impl Read for Packed<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        // Large reads of a plain tar go past the buffer.
        if self.at == self.filled && into.len() >= self.buffer.len() {
            let got = Self::read_inner(&mut self.inner, &mut self.failed, into)?;
            self.taken += got as u64;
            return Ok(got);
        }
        let ready = self.fill_buf()?;
        let count = ready.len().min(into.len());
        into[..count].copy_from_slice(&ready[..count]);
        self.consume(count);
        Ok(count)
    }
}
