//! [`Transfer`]: one source on its way to whoever takes its bytes. Counts and hashes what passes, holds it against the
//! pin, tells the watcher, and can leave out what a former try has brought already.

use super::*;
use crate::digest::Hasher;

/// How often a watcher hears of progress, at the most.
const TELL_EVERY: Duration = Duration::from_millis(50);

/// Of a source that has another size than was pinned, no more bytes than these are read to tell its digest.
const MOST_TO_EXPLAIN: u64 = 64 << 20;

/// One source on its way to `out`.
pub(super) struct Transfer<'a> {
    name: &'a str,
    expected: Option<Digest>,
    size: Option<u64>,
    /// The most bytes that are taken where `size` is not known.
    most: u64,
    out: &'a mut dyn Write,
    pub(super) watch: &'a dyn Watch,
    hasher: Hasher,
    done: u64,
    place: String,
    told: Option<Instant>,
}

/// Why a body did not pass whole.
pub(super) enum Broken {
    /// The sender failed; what came before it has been passed on.
    Sender(io::Error),
    /// Nothing that another try could mend.
    Final(Error),
}

impl<'a> Transfer<'a> {
    pub(super) fn new(
        name: &'a str,
        expected: Option<Digest>,
        size: Option<u64>,
        out: &'a mut dyn Write,
        watch: &'a dyn Watch,
    ) -> Self {
        Self {
            name,
            expected,
            size,
            most: u64::MAX,
            out,
            watch,
            hasher: Hasher::new(),
            done: 0,
            place: String::new(),
            told: None,
        }
    }

    /// Takes no more than `most` bytes where no size is pinned.
    pub(super) fn limit(&mut self, most: u64) {
        self.most = most;
    }

    /// Returns the number of bytes that have been passed on.
    pub(super) fn done(&self) -> u64 {
        self.done
    }

    /// Returns the short name of the source.
    pub(super) fn name(&self) -> &str {
        self.name
    }

    /// Returns the digest that the bytes must have, where it is known.
    pub(super) fn expected(&self) -> Option<Digest> {
        self.expected
    }

    /// Says that bytes come from `place` next, `total` of them in all as far as the place says.
    pub(super) fn start(&mut self, place: &str, total: Option<u64>) -> Result<(), Error> {
        let elsewhere = self.place != place;
        self.place = place.to_owned();
        if let (Some(expected), Some(actual)) = (self.size, total)
            && expected != actual
        {
            return Err(self.wrong_size(actual, false));
        }
        self.bound(total.unwrap_or_default())?;
        if elsewhere {
            self.watch.see(Event::FetchStarted {
                name: self.name,
                from: place,
                size: self.size.or(total),
            });
        }
        Ok(())
    }

    /// Tells a wrong size by the two digests, which can be looked up, where all of `body` can be had to hash it, and
    /// where they differ: with the digest that was pinned, it is the pinned size that is wrong. None of it is passed on.
    pub(super) fn explained(&self, error: Error, body: &mut dyn Read) -> Error {
        let (Error::WrongSize { name, place, .. }, Some(expected)) = (&error, self.expected) else {
            return error;
        };
        let mut reader = crate::digest::HashReader::new(body.take(MOST_TO_EXPLAIN));
        let read = io::copy(&mut reader, &mut io::sink());
        match (read, reader.finish()) {
            (Ok(_), (actual, size)) if size < MOST_TO_EXPLAIN && actual != expected => Error::WrongDigest {
                name: name.clone(),
                place: place.clone(),
                expected,
                actual,
            },
            _ => error,
        }
    }

    /// Passes on all that `body` gives.
    pub(super) fn take(&mut self, body: &mut dyn Read) -> Result<(), Broken> {
        let mut buffer = vec![0; CHUNK];
        loop {
            let got = match body.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(got) => got,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Broken::Sender(error)),
            };
            self.pass(&buffer[..got]).map_err(Broken::Final)?;
        }
    }

    /// Reads as many bytes of `body` as have been passed on already and makes sure that they are the same ones.
    pub(super) fn skip(&mut self, body: &mut dyn Read) -> Result<(), Broken> {
        let mut again = Hasher::new();
        let mut buffer = vec![0; CHUNK];
        let mut left = self.done;
        while left > 0 {
            let want = usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK));
            match body.read(&mut buffer[..want]) {
                Ok(0) => return Err(Broken::Sender(io::ErrorKind::UnexpectedEof.into())),
                Ok(got) => {
                    again.update(&buffer[..got]);
                    left -= got as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Broken::Sender(error)),
            }
        }
        if again.finish() == self.hasher.clone().finish() {
            Ok(())
        } else {
            Err(Broken::Final(Error::Changed {
                url: self.place.clone(),
            }))
        }
    }

    /// Passes on the whole file at `path`.
    pub(super) fn copy_file(&mut self, path: &Path) -> Result<(), Error> {
        let read = |source| Error::Read {
            path: path.to_owned(),
            source,
        };
        let mut file = fs_err::File::open(path).map_err(read)?;
        let meta = file.metadata().map_err(read)?;
        if meta.is_dir() {
            return Err(read(io::ErrorKind::IsADirectory.into()));
        }
        self.start(&path.to_string_lossy(), meta.is_file().then_some(meta.len()))?;
        self.skip(&mut file)
            .and_then(|()| self.take(&mut file))
            .map_err(|broken| match broken {
                Broken::Sender(source) => read(source),
                Broken::Final(error) => error,
            })
    }

    /// Returns how many bytes it should be in all if they are not all here; `total` is what the sender says.
    pub(super) fn missing(&self, total: Option<u64>) -> Option<u64> {
        self.size.or(total).filter(|&size| self.done < size)
    }

    /// Returns digest and size of what passed, if they are what was pinned.
    pub(super) fn finish(self) -> Result<(Digest, u64), Error> {
        if self.size.is_some_and(|size| size != self.done) {
            return Err(self.wrong_size(self.done, false));
        }
        let actual = self.hasher.finish();
        if let Some(expected) = self.expected
            && expected != actual
        {
            return Err(Error::WrongDigest {
                name: self.name.to_owned(),
                place: self.place,
                expected,
                actual,
            });
        }
        self.watch.see(Event::FetchFinished {
            name: self.name,
            size: self.done,
        });
        Ok((actual, self.done))
    }

    fn pass(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let done = self.done + bytes.len() as u64;
        if self.size.is_some_and(|size| done > size) {
            return Err(self.wrong_size(done, true));
        }
        self.bound(done)?;
        self.out.write_all(bytes).map_err(|source| Error::Write {
            name: self.name.to_owned(),
            source,
        })?;
        self.hasher.update(bytes);
        self.done = done;
        if self.told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
            self.told = Some(Instant::now());
            self.watch.see(Event::Fetched {
                name: self.name,
                done,
            });
        }
        Ok(())
    }

    /// Fails where `bytes` are more than are taken of a source whose size nobody knows.
    fn bound(&self, bytes: u64) -> Result<(), Error> {
        match self.size {
            None if bytes > self.most => Err(Error::TooLarge {
                name: self.name.to_owned(),
                place: self.place.clone(),
                most: self.most,
            }),
            _ => Ok(()),
        }
    }

    fn wrong_size(&self, actual: u64, more: bool) -> Error {
        Error::WrongSize {
            name: self.name.to_owned(),
            place: self.place.clone(),
            expected: self.size.unwrap_or_default(),
            actual,
            more,
        }
    }
}
