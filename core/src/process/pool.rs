//! Ids of the host's that nothing else has, for containers whose root is to be nobody: one range a container, taken by
//! a file lock and free when the last process that holds it is gone.
//!
//! The ranges lie where nobody else's do: above those that useradd(8) grants users and that systemd-nspawn(1) picks from,
//! below what systemd keeps for itself (UIDS-GIDS.md of systemd). What subuid(5) grants there all the same is left out.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use super::idmap::Range;
use crate::sys::dir::Dir;
use crate::sys::file;
use crate::sys::{Errno, SysError};

/// The first id of the first range.
const FIRST: u32 = 0x7000_0000;
/// How many ids a container has.
pub const IDS: u32 = 65536;
/// How many ranges there are: the last one ends below 0x7ffe0000.
const RANGES: u32 = 0xffe;
/// The folder of the file below. Ids are the machine's, so it is the same one wherever states are kept.
const FOLDER: &str = "/run/mk";
/// The file whose bytes are locked, one for each range.
const FILE: &str = "userns";

/// Why there are no ids.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// All ranges are taken.
    #[error("all {RANGES} ranges of ids for `--userns auto` are in use")]
    NoneFree,
    /// Others may change the folder in which ranges are taken.
    #[error(
        "`{FOLDER}`, where ranges of ids are taken, is not root's alone: it belongs to user {owner}, its mode is {mode:04o}"
    )]
    NotOurs {
        /// Whose it is.
        owner: u32,
        /// Its permission bits.
        mode: u16,
    },
    /// The lock cannot be had.
    #[error("cannot take a range of ids")]
    Sys(#[from] SysError),
}

/// A range that nobody else has until this is dropped, also by processes that inherit it.
#[derive(Debug)]
pub struct Taken {
    range: Range,
    lock: File,
}

impl Taken {
    /// Takes a range; this process must be root of the machine.
    pub fn new() -> Result<Self, Error> {
        match Dir::make(Path::new(FOLDER), 0o700) {
            Err(failed) if failed.errno != Errno::EXIST => return Err(failed.into()),
            _ => {}
        }
        let folder = Dir::open_itself(Path::new(FOLDER))?;
        let stat = file::stat(&folder)?;
        if stat.uid != file::own_uid() || stat.mode & 0o022 != 0 {
            return Err(Error::NotOurs {
                owner: stat.uid,
                mode: stat.mode,
            });
        }
        Self::of(&folder)
    }

    /// Takes a range by the file in `folder`.
    fn of(folder: &Dir) -> Result<Self, Error> {
        let lock = folder.open_or_create(FILE)?;
        let text = |path: &str| fs_err::read_to_string(path).unwrap_or_default();
        let granted = [text("/etc/subuid"), text("/etc/subgid")];
        for range in free(&granted.concat()) {
            if file::try_lock_byte(&lock, i64::from(range.first - FIRST) / i64::from(IDS))? {
                return Ok(Self { range, lock });
            }
        }
        Err(Error::NoneFree)
    }

    /// Returns the map of the container's ids, as `/proc/<pid>/uid_map` takes it.
    pub fn map(&self) -> String {
        format!("0 {} {}", self.range.first, self.range.count)
    }
}

/// The lock, for a container, which holds it as long as it runs.
impl AsFd for Taken {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.lock.as_fd()
    }
}

/// Returns the ranges in which `granted`, lines of subuid(5), grants nothing.
fn free(granted: &str) -> impl Iterator<Item = Range> {
    let granted: Vec<(u64, u64)> = granted.lines().filter_map(line).collect();
    (0..RANGES)
        .map(|index| Range {
            first: FIRST + index * IDS,
            count: IDS,
        })
        .filter(move |range| {
            let (first, end) = (
                u64::from(range.first),
                u64::from(range.first) + u64::from(range.count),
            );
            !granted
                .iter()
                .any(|(theirs, their_end)| *theirs < end && first < *their_end)
        })
}

/// Reads `name:first:count` as the first id and the one after the last.
fn line(line: &str) -> Option<(u64, u64)> {
    let mut fields = line.trim().split(':').skip(1);
    let first: u64 = fields.next()?.parse().ok()?;
    let count: u64 = fields.next()?.parse().ok()?;
    Some((first, first.checked_add(count)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_lie_where_nobody_elses_do() {
        let all: Vec<Range> = free("").collect();
        assert_eq!(all.len(), RANGES as usize);
        assert_eq!((all[0].first, all[0].count), (0x7000_0000, 65536));
        let last = all[all.len() - 1];
        assert_eq!(last.first + (last.count - 1), 0x7ffd_ffff);
        // Ids of 2^31 and up are negative numbers to some programs.
        assert!(last.first + (last.count - 1) < i32::MAX as u32);
    }

    #[test]
    fn what_is_granted_to_users_is_left_out() {
        let firsts = |granted: &str| -> Vec<u32> { free(granted).take(3).map(|range| range.first).collect() };
        assert_eq!(
            firsts("ann:100000:65536\n"),
            [FIRST, FIRST + IDS, FIRST + 2 * IDS]
        );
        let inside = format!("ann:{}:1\nbob:x:1\n", FIRST + IDS + 5);
        assert_eq!(firsts(&inside), [FIRST, FIRST + 2 * IDS, FIRST + 3 * IDS]);
        let across = format!("ann:{}:65536\n", FIRST + 1);
        assert_eq!(
            firsts(&across),
            [FIRST + 2 * IDS, FIRST + 3 * IDS, FIRST + 4 * IDS]
        );
        assert_eq!(free("ann:0:4294967295\n").count(), 0);
    }

    #[test]
    fn a_range_is_taken_by_one_at_a_time() {
        let temp = tempfile::tempdir().unwrap();
        let state = Dir::open(temp.path()).unwrap();
        let one = Taken::of(&state).unwrap();
        let other = Taken::of(&state).unwrap();
        assert_ne!(one.map(), other.map());
        let map = one.map();
        let inherited = one.as_fd().try_clone_to_owned().unwrap();
        drop(one);
        assert_ne!(Taken::of(&state).unwrap().map(), map, "it is still held");
        drop(inherited);
        assert_eq!(Taken::of(&state).unwrap().map(), map);
    }
}
