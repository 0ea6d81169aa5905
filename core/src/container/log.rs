//! What a container printed: records in files that together hold so much and no more.
//!
//! A record is a line of the Kubernetes container log format, so that what reads such logs reads these:
//! `2006-01-02T15:04:05.000000000Z stdout F text`. `F` is a line of the container's, with its end; `P` is a part that
//! the next record of the same stream goes on with, so no byte is lost that is no whole line, or one too long.
//!
//! The files are `log.1`, `log.2` and so on. The newest is written to; when it is full the next one is begun, and the
//! one before the last goes. A reader that knows the number of its file sees what it has missed.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use super::folder::Folder;
use super::time::Time;
pub use crate::process::Stream;
use crate::sys::dir::Dir;
use crate::sys::{Errno, SysError};

/// Returns what a stream is called in a record.
const fn name(stream: Stream) -> &'static str {
    match stream {
        Stream::Stdout => "stdout",
        Stream::Stderr => "stderr",
    }
}

/// The most that one record holds of what was printed, in bytes.
pub(super) const LONGEST: usize = 16 << 10;
/// The most that a record takes, with its line end.
pub(super) const LONGEST_RECORD: usize = Time::LENGTH + " stdout F ".len() + LONGEST + 1;
/// The least that a log may be made to hold.
pub const LEAST: u64 = 64 << 10;
/// What a log holds unless somebody says otherwise.
pub const USUAL: u64 = 16 << 20;

/// One record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// When it was printed, as the monitor saw it.
    pub time: Time,
    /// Where.
    pub stream: Stream,
    /// Whether a line ends with it.
    pub ends_line: bool,
    /// What, without the line's end.
    pub bytes: &'a [u8],
}

impl<'a> Record<'a> {
    /// Reads a record, which comes without the end of its line.
    pub(super) fn parse(line: &'a [u8]) -> Option<Self> {
        let (time, rest) = line.split_at_checked(Time::LENGTH)?;
        let time = Time::parse_exact(time)?;
        let (stream, rest) = [Stream::Stdout, Stream::Stderr].into_iter().find_map(|stream| {
            let rest = rest.strip_prefix(b" ")?.strip_prefix(name(stream).as_bytes())?;
            Some((stream, rest))
        })?;
        let (ends_line, bytes) = match rest {
            [b' ', b'F', b' ', bytes @ ..] => (true, bytes),
            [b' ', b'P', b' ', bytes @ ..] => (false, bytes),
            _ => return None,
        };
        Some(Self {
            time,
            stream,
            ends_line,
            bytes,
        })
    }

    /// Puts the record at the end of `into`.
    fn write(&self, into: &mut Vec<u8>) {
        let mark = if self.ends_line { 'F' } else { 'P' };
        into.extend_from_slice(format!("{} {} {mark} ", self.time, name(self.stream)).as_bytes());
        into.extend_from_slice(self.bytes);
        into.push(b'\n');
    }
}

/// Returns the name of a file of the log.
pub(super) fn file_name(number: u64) -> String {
    format!("log.{number}")
}

/// Returns the numbers of the files of the log, the oldest first.
pub(super) fn numbers(dir: &Dir) -> Result<Vec<u64>, SysError> {
    let mut numbers: Vec<u64> = dir
        .list()?
        .iter()
        .filter_map(|(name, _)| {
            let text = name.to_str()?.strip_prefix("log.")?;
            // One way to write each number, so that its file is found again.
            text.parse()
                .ok()
                .filter(|number: &u64| number.to_string() == text)
        })
        .collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// Writes a log.
#[derive(Debug)]
pub struct Writer {
    dir: Dir,
    file: File,
    number: u64,
    /// How much of the file holds records.
    size: u64,
    /// The most that one file may hold.
    most: u64,
    lost: u64,
    records: Vec<u8>,
}

impl Writer {
    /// Begins the log of the container in `folder`, which holds `most` bytes.
    pub fn create(folder: &Folder, most: u64) -> Result<Self, SysError> {
        let dir = folder.dir.open_dir(".")?;
        Ok(Self {
            file: dir.create_file(file_name(1), 0o600)?,
            dir,
            number: 1,
            size: 0,
            most: most.max(LEAST) / 2,
            lost: 0,
            records: Vec::new(),
        })
    }

    /// Writes down what was printed at `time`. What finds no room is counted, and lost: a container does not end
    /// because its log is full.
    pub fn write(&mut self, stream: Stream, bytes: &[u8], time: Time) {
        let mut rest = bytes;
        let mut waiting = 0;
        self.records.clear();
        while !rest.is_empty() {
            let head = &rest[..rest.len().min(LONGEST)];
            let end = head.iter().position(|&byte| byte == b'\n');
            let record = Record {
                time,
                stream,
                ends_line: end.is_some(),
                bytes: &head[..end.unwrap_or(head.len())],
            };
            if self.size + (self.records.len() + LONGEST_RECORD) as u64 > self.most {
                self.flush(waiting);
                waiting = 0;
                if self.size + LONGEST_RECORD as u64 > self.most {
                    self.next_file();
                }
            }
            let taken = end.map_or(head.len(), |end| end + 1);
            record.write(&mut self.records);
            waiting += taken;
            rest = &rest[taken..];
        }
        self.flush(waiting);
    }

    /// Returns how many bytes of what was printed are lost, because there was no room.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Writes the records that wait, which hold `printed` bytes of what was printed.
    fn flush(&mut self, printed: usize) {
        if self.records.is_empty() {
            return;
        }
        let mut written = self.file.write_all_at(&self.records, self.size);
        if written.is_err() && self.drop_older() {
            written = self.file.write_all_at(&self.records, self.size);
        }
        match written {
            Ok(()) => self.size += self.records.len() as u64,
            Err(_) => {
                self.lost = self.lost.saturating_add(printed as u64);
                // A torn record would make the next one part of it.
                let _ = self.file.set_len(self.size);
            }
        }
        self.records.clear();
    }

    /// Begins the next file, and takes away the one before the last. Where it cannot be made, the last one grows on: one
    /// file more than it should be is better than none.
    fn next_file(&mut self) {
        let next = self.number + 1;
        let Ok(file) = self.dir.create_file(file_name(next), 0o600) else {
            return;
        };
        self.drop_older();
        (self.file, self.number, self.size) = (file, next, 0);
    }

    /// Takes away the file before the one that is written to, and says whether that made room.
    fn drop_older(&self) -> bool {
        self.number > 1 && self.dir.unlink(file_name(self.number - 1)).is_ok()
    }
}

/// A place in a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    number: u64,
    offset: u64,
}

/// Reads a log, also one that is being written.
#[derive(Debug)]
pub struct Reader {
    dir: Dir,
    file: Option<File>,
    at: Position,
    /// Whether a later file was there before the end of this one was reached: then nothing will be added to it.
    complete: bool,
    skipped: bool,
    buffer: Vec<u8>,
}

impl Reader {
    /// Opens the log of the container in `folder`, from its oldest record.
    pub fn open(folder: &Folder) -> Result<Self, SysError> {
        let first = Position { number: 0, offset: 0 };
        let mut reader = Self::open_at(folder, first)?;
        // Nothing of what went before we came was ours to miss.
        reader.skipped = false;
        Ok(reader)
    }

    /// Opens the log where a reader was before.
    pub fn open_at(folder: &Folder, at: Position) -> Result<Self, SysError> {
        let mut reader = Self {
            dir: folder.dir.open_dir(".")?,
            file: None,
            at,
            complete: false,
            skipped: false,
            buffer: vec![0; 4 * LONGEST_RECORD],
        };
        match reader.dir.open_file(file_name(at.number)) {
            Ok(file) => reader.file = Some(file),
            Err(failed) if failed.errno == Errno::NOENT => {
                reader.next_file()?;
            }
            Err(failed) => return Err(failed),
        }
        Ok(reader)
    }

    /// Whether records were taken away before they were read; asking forgets it.
    pub fn has_skipped(&mut self) -> bool {
        std::mem::take(&mut self.skipped)
    }

    /// Hands on all records that are there and were not read yet, each with where it stands.
    pub fn read<E: From<SysError>>(
        &mut self,
        mut take: impl FnMut(Position, Record<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        loop {
            if self.read_file(&mut take)? {
                continue;
            }
            if self.complete || self.file.is_none() {
                if !self.next_file()? {
                    return Ok(());
                }
            } else if numbers(&self.dir)?
                .last()
                .is_some_and(|last| *last > self.at.number)
            {
                // What was added before that file was made may have come after our last look.
                self.complete = true;
            } else {
                return Ok(());
            }
        }
    }

    /// Reads on in this file, and says whether there was a whole record.
    fn read_file<E: From<SysError>>(
        &mut self,
        take: &mut impl FnMut(Position, Record<'_>) -> Result<(), E>,
    ) -> Result<bool, E> {
        let Some(file) = &self.file else {
            return Ok(false);
        };
        let length = file.read_at(&mut self.buffer, self.at.offset).map_err(|error| {
            let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
            SysError::new(errno, format_args!("pread({:?})", file_name(self.at.number)))
        })?;
        let bytes = &self.buffer[..length];
        let Some(end) = bytes.iter().rposition(|&byte| byte == b'\n') else {
            // Longer than any record: not what mk writes, and passed over.
            let foreign = length == self.buffer.len();
            self.at.offset += if foreign { length as u64 } else { 0 };
            return Ok(foreign);
        };
        for line in bytes[..end].split(|&byte| byte == b'\n') {
            let at = self.at;
            self.at.offset += line.len() as u64 + 1;
            if let Some(record) = Record::parse(line) {
                take(at, record)?;
            }
        }
        Ok(true)
    }

    /// Goes on to the next file that there is, and says whether there is one.
    fn next_file(&mut self) -> Result<bool, SysError> {
        loop {
            let later = |number: &u64| *number > self.at.number;
            let Some(next) = numbers(&self.dir)?.into_iter().find(later) else {
                return Ok(false);
            };
            match self.dir.open_file(file_name(next)) {
                Ok(file) => {
                    self.skipped |= next > self.at.number + 1 || self.file.is_none();
                    self.file = Some(file);
                    self.at = Position {
                        number: next,
                        offset: 0,
                    };
                    self.complete = false;
                    return Ok(true);
                }
                // Taken away between the two looks.
                Err(failed) if failed.errno == Errno::NOENT => self.skipped = true,
                Err(failed) => return Err(failed),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_costs_whole_records_and_they_are_counted() {
        let temp = tempfile::tempdir().unwrap();
        let folder = Folder {
            dir: Dir::open(temp.path()).unwrap(),
        };
        let mut writer = Writer::create(&folder, LEAST).unwrap();
        writer.write(Stream::Stdout, b"one\n", Time::of(0, 0));
        let full = fs_err::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let file = std::mem::replace(&mut writer.file, full.into());
        writer.write(Stream::Stdout, b"two\nthree", Time::of(0, 0));
        assert_eq!(writer.lost(), 9);
        writer.file = file;
        writer.write(Stream::Stdout, b"\n", Time::of(0, 0));
        assert_eq!(writer.lost(), 9);
        let text = fs_err::read_to_string(temp.path().join("log.1")).unwrap();
        assert_eq!(text.lines().count(), 2);
    }
}
