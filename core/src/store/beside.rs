//! What files beside recipes hold, by their versions, so that a file that has not changed need not be read again
//! (docs/store.md, "What lies beside recipes"). No build depends on it: whatever is wrong with it, files are read.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::{Result, Store, exists, layout, none_if_missing};
use crate::digest::{Digest, HashReader, HashWriter};
use crate::path::LONGEST_PATH;
use crate::sys::file::Version;

const HEADER: &[u8] = b"mk-beside 1\n";
/// What an entry has behind its path, in bytes.
const ENTRY: usize = 8 + 8 + (8 + 4) * 2 + 32;
/// The digest at the end, in bytes.
const SUM: u64 = 32;
/// What is read or written at once, in bytes.
const PIECE: usize = 128 * 1024;

/// How far back the times of a file must lie for whatever is written to it from now on to come with others. The kernel
/// takes them from a clock that stands still between two ticks (10 ms at the most).
const SETTLED: i128 = 100_000_000;
/// The same where a time looks as if the filesystem kept no fraction of a second, or every other second only (FAT).
const SETTLED_COARSE: i128 = 2_500_000_000;
/// No tick is longer, in nanoseconds: a time that is a multiple of it may be one of a coarse filesystem.
const TICK: u32 = 10_000_000;

/// Whether a file of this version, if it is read from `now` on (seconds since 1970 UTC, nanoseconds), is another version
/// after anything that is written to it.
pub fn is_settled(version: &Version, now: (i64, u32)) -> bool {
    let nanos = |time: (i64, u32)| i128::from(time.0) * 1_000_000_000 + i128::from(time.1);
    let settled = |time: (i64, u32)| {
        let margin = match time.1.is_multiple_of(TICK) {
            true => SETTLED_COARSE,
            false => SETTLED,
        };
        nanos(time) + margin <= nanos(now)
    };
    settled(version.mtime) && settled(version.ctime)
}

/// What was found in the files of one folder, or in one file: an entry after the other, sorted by their paths.
#[derive(Debug)]
pub struct Beside {
    file: BufReader<File>,
    /// How many bytes of entries are still to come.
    left: u64,
    /// The entry that comes next.
    next: Option<(Version, Digest)>,
    /// The path of that entry.
    path: Vec<u8>,
    /// How many entries were passed without being asked for.
    passed: u64,
}

impl Beside {
    /// Returns what the file at `path` holds, if it is still of this version. Must be asked for paths in the order of
    /// their bytes.
    pub fn content(&mut self, path: &[u8], version: &Version) -> Option<Digest> {
        while self.next.is_some() && *self.path < *path {
            self.passed += 1;
            self.advance();
        }
        let (known, digest) = self.next.filter(|_| *self.path == *path)?;
        self.advance();
        (known == *version).then_some(digest)
    }

    /// Whether it has entries that nobody has asked for.
    pub fn has_more(mut self) -> bool {
        self.passed += u64::from(self.next.take().is_some());
        self.passed > 0
    }

    /// Opens one, and checks that it is whole and about `at`.
    fn open(file: File, at: &Path) -> io::Result<Option<Self>> {
        let size = file.metadata()?.len();
        let Some(body) = size.checked_sub(SUM) else {
            return Ok(None);
        };
        let mut hashed = HashReader::new((&file).take(body));
        let mut piece = vec![0; PIECE];
        while hashed.read(&mut piece)? > 0 {}
        let mut sum = [0; SUM as usize];
        (&file).read_exact(&mut sum)?;
        if hashed.finish().0.as_bytes() != &sum {
            return Ok(None);
        }
        io::Seek::rewind(&mut &file)?;
        let mut file = BufReader::with_capacity(PIECE, file);
        let Some(about) = read_head(&mut file)? else {
            return Ok(None);
        };
        if about != at {
            return Ok(None);
        }
        let head = HEADER.len() + 4 + about.as_os_str().len();
        let mut beside = Self {
            file,
            left: body - head as u64,
            next: None,
            path: Vec::new(),
            passed: 0,
        };
        beside.advance();
        Ok(Some(beside))
    }

    /// Reads the next entry. What was whole a moment ago and cannot be read now ends here.
    fn advance(&mut self) {
        self.next = match self.left {
            0 => None,
            _ => self.read().ok(),
        };
    }

    fn read(&mut self) -> io::Result<(Version, Digest)> {
        let mut length = [0; 4];
        self.file.read_exact(&mut length)?;
        let length = u32::from_le_bytes(length) as usize;
        let bad = || io::Error::from(io::ErrorKind::InvalidData);
        if length > LONGEST_PATH {
            return Err(bad());
        }
        self.path.resize(length, 0);
        self.file.read_exact(&mut self.path)?;
        let mut entry = [0; ENTRY];
        self.file.read_exact(&mut entry)?;
        let size = (4 + length + ENTRY) as u64;
        self.left = self.left.checked_sub(size).ok_or_else(bad)?;
        let mut rest = &entry[..];
        let version = Version {
            inode: u64::from_le_bytes(taken(&mut rest)),
            size: u64::from_le_bytes(taken(&mut rest)),
            mtime: (
                i64::from_le_bytes(taken(&mut rest)),
                u32::from_le_bytes(taken(&mut rest)),
            ),
            ctime: (
                i64::from_le_bytes(taken(&mut rest)),
                u32::from_le_bytes(taken(&mut rest)),
            ),
        };
        Ok((version, Digest::from_bytes(taken(&mut rest))))
    }
}

/// Takes the first bytes off `rest`, which has that many.
fn taken<const N: usize>(rest: &mut &[u8]) -> [u8; N] {
    let mut bytes = [0; N];
    let (first, others) = rest.split_at(N);
    bytes.copy_from_slice(first);
    *rest = others;
    bytes
}

/// Reads up to where the entries begin, and returns what they are about.
fn read_head(file: &mut impl Read) -> io::Result<Option<PathBuf>> {
    let mut head = [0; HEADER.len()];
    let mut length = [0; 4];
    file.read_exact(&mut head)?;
    file.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length) as usize;
    if head != *HEADER || length > LONGEST_PATH {
        return Ok(None);
    }
    let mut path = vec![0; length];
    file.read_exact(&mut path)?;
    Ok(Some(PathBuf::from(std::ffi::OsStr::from_bytes(&path))))
}

/// A file that is said to hold something.
pub type Entry<'a> = (&'a [u8], Version, Digest);

/// Writes what [`Beside`] reads; the entries are sorted by their paths.
fn write<'a>(out: impl Write, at: &Path, entries: impl Iterator<Item = Entry<'a>>) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(PIECE, HashWriter::new(out));
    let text = |out: &mut dyn Write, bytes: &[u8]| -> io::Result<()> {
        let length = u32::try_from(bytes.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        out.write_all(&length.to_le_bytes())?;
        out.write_all(bytes)
    };
    out.write_all(HEADER)?;
    text(&mut out, at.as_os_str().as_bytes())?;
    for (path, version, digest) in entries {
        text(&mut out, path)?;
        let mut entry = Vec::with_capacity(ENTRY);
        entry.extend(version.inode.to_le_bytes());
        entry.extend(version.size.to_le_bytes());
        for (seconds, nanos) in [version.mtime, version.ctime] {
            entry.extend(seconds.to_le_bytes());
            entry.extend(nanos.to_le_bytes());
        }
        entry.extend(digest.as_bytes());
        out.write_all(&entry)?;
    }
    let hashed = out.into_inner().map_err(io::IntoInnerError::into_error)?;
    let (mut inner, sum, _) = hashed.finish();
    inner.write_all(sum.as_bytes())
}

impl Store {
    /// Returns what was found in the folder or file at `at`, an absolute path without symlinks; `None` where nobody knows,
    /// which is also so where what is known cannot be read.
    pub fn beside(&self, at: &Path) -> Option<Beside> {
        let path = format!("{}/{}", layout::BESIDE, name(at));
        let file = self.dir.open_file(&path).ok()?;
        let beside = Beside::open(file, at).ok()??;
        // gc lets those go first that nobody has asked for the longest.
        _ = self.dir.touch(&path);
        Some(beside)
    }

    /// Remembers what was found in the folder or file at `at`, in the place of what was known of it. Not synced: after a
    /// power cut it may be damaged, which is seen when it is read.
    pub fn put_beside<'a>(&self, at: &Path, entries: impl Iterator<Item = Entry<'a>>) -> Result<()> {
        // A store may be older than this folder.
        self.full(exists(self.dir.make_dir(layout::BESIDE, 0o700)))?;
        let stage = self.stage()?;
        let (draft, path) = ("beside", format!("{}/{}", layout::BESIDE, name(at)));
        let file = self.full(stage.dir().create_file(draft, 0o600))?;
        write(file, at, entries).map_err(super::Error::Io)?;
        self.full(stage.dir().replace(draft, &self.dir, path))
    }

    /// Forgets what was found in the folder or file at `at`.
    pub fn forget_beside(&self, at: &Path) -> Result<()> {
        let path = format!("{}/{}", layout::BESIDE, name(at));
        none_if_missing(self.dir.unlink(path)).map(drop)
    }

    /// Whether what `name` in `beside` is about is there; nobody can tell of one that cannot be read.
    pub(super) fn is_still_beside(&self, name: &Digest) -> bool {
        let file = self.dir.open_file(format!("{}/{name}", layout::BESIDE));
        let about = file.ok().and_then(|mut file| read_head(&mut file).ok()?);
        about.is_some_and(|about| match fs_err::symlink_metadata(about) {
            Ok(_) => true,
            // What cannot be looked at now may be there.
            Err(error) => !matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ),
        })
    }
}

fn name(at: &Path) -> Digest {
    Digest::of(at.as_os_str().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: &str = "/home/me/app";

    fn version(inode: u64) -> Version {
        Version {
            inode,
            size: 7,
            mtime: (-1, 999_999_999),
            ctime: (1_700_000_000, 123_456_789),
        }
    }

    fn digest(text: &str) -> Digest {
        Digest::of(text.as_bytes())
    }

    fn encoded(paths: &[&str]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let entries = paths
            .iter()
            .enumerate()
            .map(|(at, path)| (path.as_bytes(), version(at as u64), digest(path)));
        write(&mut bytes, Path::new(AT), entries).unwrap();
        bytes
    }

    fn open(bytes: &[u8], at: &str) -> Option<Beside> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        io::Seek::rewind(&mut file).unwrap();
        Beside::open(file, Path::new(at)).ok().flatten()
    }

    #[test]
    fn what_was_written_is_found_by_path_and_version() {
        let bytes = encoded(&["a", "b/c", "b/d", "e"]);
        let mut beside = open(&bytes, AT).unwrap();
        assert_eq!(beside.content(b"a", &version(0)), Some(digest("a")));
        assert_eq!(beside.content(b"b/bb", &version(1)), None);
        assert_eq!(beside.content(b"b/d", &version(2)), Some(digest("b/d")));
        assert!(beside.has_more(), "b/c and e were not asked for");
        let mut beside = open(&bytes, AT).unwrap();
        for (at, path) in ["a", "b/c", "b/d", "e"].iter().enumerate() {
            assert!(beside.content(path.as_bytes(), &version(at as u64)).is_some());
        }
        assert!(!beside.has_more());
        assert!(!open(&encoded(&[]), AT).unwrap().has_more());
    }

    #[test]
    fn another_version_is_not_known() {
        let known = version(0);
        for other in [
            Version { inode: 1, ..known },
            Version { size: 8, ..known },
            Version {
                mtime: (-1, 0),
                ..known
            },
            Version {
                ctime: (1_700_000_000, 123_456_790),
                ..known
            },
        ] {
            let mut beside = open(&encoded(&["a"]), AT).unwrap();
            assert_eq!(beside.content(b"a", &other), None, "{other:?}");
        }
    }

    #[test]
    fn a_damaged_one_is_as_good_as_none() {
        let bytes = encoded(&["a", "b"]);
        assert!(open(&bytes, AT).is_some());
        assert!(open(&bytes, "/home/me/other").is_none());
        for cut in 0..bytes.len() {
            assert!(
                open(&bytes[..cut], AT).is_none(),
                "{cut} of {} bytes passed for whole",
                bytes.len()
            );
        }
        for at in 0..bytes.len() {
            let mut other = bytes.clone();
            other[at] ^= 0x10;
            assert!(open(&other, AT).is_none(), "a change of byte {at} was not seen");
        }
    }

    #[test]
    fn the_format_is_the_one_that_is_written_down() {
        let bytes = encoded(&["b/c"]);
        assert_eq!(bytes.len(), 12 + 4 + AT.len() + 4 + 3 + 8 + 8 + 12 + 12 + 32 + 32);
        assert_eq!(
            Digest::of(&bytes).to_string(),
            "fe303e5351a47bdf2eaab8ebbc2fde7ee788bb10cd38a06efe4377b82d4b73a7"
        );
    }

    #[test]
    fn a_version_is_settled_once_no_later_write_can_have_its_times() {
        let at = |mtime, ctime| Version {
            mtime,
            ctime,
            ..version(0)
        };
        let now = (1000, 500_000_000);
        let long_ago = (1, 1);
        for (time, settled) in [
            ((1000, 399_999_999), true),
            ((1000, 400_000_001), false),
            ((1000, 500_000_001), false),
            ((1001, 0), false),
            // Kept without a fraction: a write up to two seconds later may get it, too.
            ((998, 0), true),
            ((999, 0), false),
            ((1000, 0), false),
            ((1000, 250_000_000), false),
        ] {
            assert_eq!(is_settled(&at(long_ago, time), now), settled, "ctime {time:?}");
            assert_eq!(is_settled(&at(time, long_ago), now), settled, "mtime {time:?}");
        }
    }
}
