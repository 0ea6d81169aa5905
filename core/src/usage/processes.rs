//! The processes of a container, as the host's `/proc` tells of them (proc_pid_status(5), proc_pid_stat(5)).
//!
//! Everything may change while it is read: a process that ends meanwhile is passed over. A command line is whatever its
//! process says it is.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::spec::user;
use crate::sys::{namespace, place};

/// One process of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its number in the container.
    pub pid: i32,
    /// Its number on the host.
    pub host_pid: i32,
    /// Its effective user, in the container; `None` where the container has no number for that one.
    pub uid: Option<u32>,
    /// The processor time that it has used, itself only.
    pub cpu: Duration,
    /// The memory that it has in use, in bytes; what it shares with others counts for each.
    pub memory: u64,
    /// Program and arguments, each closed by a NUL; the kernel's short name in brackets where there are none.
    pub command: Vec<u8>,
}

/// What the kernel tells of one process, whoever's it is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    host_pid: i32,
    parent: i32,
    /// Its numbers, from the outermost namespace that shows it to its own.
    pids: Vec<i32>,
    uid: u32,
    resident_kib: u64,
    name: Vec<u8>,
}

/// Returns the processes of the container in which `command` runs, a process of this host: those of its PID namespace
/// and of the namespaces inside that one, in the order of their numbers there.
pub fn of_container(command: i32) -> io::Result<Vec<Process>> {
    let space = namespace::number(command, "pid")?;
    let all = all()?;
    let depth = all
        .iter()
        .find(|seen| seen.host_pid == command)
        .map(|seen| seen.pids.len())
        .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
    // The numbers of users, seen from here.
    let users = Map::parse(&fs_err::read_to_string(of(command, "uid_map"))?);
    let inside = members(&all, depth, |pid| {
        namespace::number(pid, "pid").ok() == Some(space)
    });
    let mut found: Vec<Process> = all
        .into_iter()
        .filter(|seen| inside.contains(&seen.host_pid))
        .filter_map(|seen| Process::look(seen, depth, &users).ok())
        .collect();
    found.sort_by_key(|process| process.pid);
    Ok(found)
}

/// Tells which processes are in the container. One whose namespace nobody may look at (mk's reaper hides its memory) or
/// that is in a namespace inside goes with its parent or its children.
fn members(all: &[Seen], depth: usize, is_in: impl Fn(i32) -> bool) -> BTreeSet<i32> {
    let deep: BTreeMap<i32, &Seen> = all
        .iter()
        .filter(|seen| seen.pids.len() >= depth)
        .map(|seen| (seen.host_pid, seen))
        .collect();
    let sure = deep.keys().copied().filter(|&pid| is_in(pid));
    let mut inside: BTreeSet<i32> = sure.collect();
    let first = |seen: &&&Seen| seen.pids.len() == depth && seen.pids.last() == Some(&1);
    let reaper = deep.values().filter(first).find(|init| {
        let of_init = |pid: &i32| deep.get(pid).is_some_and(|seen| seen.parent == init.host_pid);
        inside.iter().any(of_init)
    });
    inside.extend(reaper.map(|seen| seen.host_pid));
    loop {
        let before = inside.len();
        let children = deep.values().filter(|seen| inside.contains(&seen.parent));
        let children: Vec<i32> = children.map(|seen| seen.host_pid).collect();
        inside.extend(children);
        if inside.len() == before {
            return inside;
        }
    }
}

/// Returns what can be told of every process there is.
fn all() -> io::Result<Vec<Seen>> {
    let entries = fs_err::read_dir("/proc")?;
    let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    Ok(numbers
        .filter_map(|pid| Seen::parse(pid, &fs_err::read(of(pid, "status")).ok()?))
        .collect())
}

fn of(pid: i32, file: &str) -> PathBuf {
    Path::new("/proc").join(pid.to_string()).join(file)
}

impl Seen {
    /// Reads proc_pid_status(5).
    fn parse(host_pid: i32, status: &[u8]) -> Option<Self> {
        let mut seen = Self {
            host_pid,
            parent: 0,
            pids: Vec::new(),
            uid: 0,
            resident_kib: 0,
            name: Vec::new(),
        };
        for line in status.split(|&byte| byte == b'\n') {
            let Some(colon) = line.iter().position(|&byte| byte == b':') else {
                continue;
            };
            let value = line[colon + 1..].trim_ascii();
            let words = || {
                std::str::from_utf8(value)
                    .unwrap_or_default()
                    .split_ascii_whitespace()
            };
            match &line[..colon] {
                b"Name" => seen.name = value.to_owned(),
                b"PPid" => seen.parent = words().next()?.parse().ok()?,
                // Real, effective, saved, of the filesystem.
                b"Uid" => seen.uid = words().nth(1)?.parse().ok()?,
                b"NSpid" => seen.pids = words().filter_map(|word| word.parse().ok()).collect(),
                b"VmRSS" => seen.resident_kib = words().next()?.parse().ok()?,
                _ => {}
            }
        }
        (!seen.pids.is_empty()).then_some(seen)
    }
}

impl Process {
    fn look(seen: Seen, depth: usize, users: &Map) -> io::Result<Self> {
        let mut command = fs_err::read(of(seen.host_pid, "cmdline"))?;
        if command.iter().all(|&byte| byte == 0) {
            command = [b"[", &*seen.name, b"]"].concat();
        }
        let stat = fs_err::read(of(seen.host_pid, "stat"))?;
        Ok(Self {
            pid: seen.pids.get(depth - 1).copied().unwrap_or_default(),
            host_pid: seen.host_pid,
            uid: users.inside(seen.uid),
            cpu: cpu(&stat).unwrap_or_default(),
            memory: seen.resident_kib << 10,
            command,
        })
    }
}

/// Reads the processor time from proc_pid_stat(5): fields 14 and 15, in ticks of a hundredth of a second (the kernel
/// tells it so whatever it counts in itself: `USER_HZ`).
fn cpu(stat: &[u8]) -> Option<Duration> {
    // The name, in parentheses, may hold anything, parentheses too.
    let end = stat.iter().rposition(|&byte| byte == b')')?;
    let mut fields = std::str::from_utf8(&stat[end + 1..])
        .ok()?
        .split_ascii_whitespace();
    let user: u64 = fields.nth(11)?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(Duration::from_millis(
        user.saturating_add(system).saturating_mul(10),
    ))
}

/// What a container calls its users.
#[derive(Debug)]
pub struct Names(Vec<u8>);

/// The most that a file which says who is who may hold, in bytes.
const MOST_ACCOUNTS: usize = 1 << 20;

impl Names {
    /// Reads them from `/etc/passwd` as the process `command` sees it; where that cannot be read, nobody has a name.
    pub fn of(command: i32) -> Self {
        let read = || -> Option<Vec<u8>> {
            let root = place::open_folder(&of(command, "root")).ok()?;
            place::read_regular(root.as_fd(), c"etc/passwd", MOST_ACCOUNTS).ok()?
        };
        Self(read().unwrap_or_default())
    }

    /// Returns what the user `uid` is called; only what is a plain word.
    pub fn of_user(&self, uid: u32) -> Option<String> {
        let name = std::str::from_utf8(user::name_of(uid, &self.0)?).ok()?;
        let plain = name.len() <= 32 && name.bytes().all(|letter| letter.is_ascii_graphic());
        plain.then(|| name.to_owned())
    }
}

/// A map of users as `uid_map` shows it: first inside, first here, how many.
struct Map(Vec<(u32, u32, u32)>);

impl Map {
    fn parse(text: &str) -> Self {
        let line = |line: &str| {
            let mut numbers = line.split_ascii_whitespace().map(str::parse);
            let mut next = || numbers.next()?.ok();
            Some((next()?, next()?, next()?))
        };
        Self(text.lines().filter_map(line).collect())
    }

    fn inside(&self, here: u32) -> Option<u32> {
        self.0.iter().find_map(|&(inside, first, count)| {
            let offset = here.checked_sub(first).filter(|offset| *offset < count)?;
            inside.checked_add(offset)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(host_pid: i32, parent: i32, pids: &[i32]) -> Seen {
        Seen {
            host_pid,
            parent,
            pids: pids.to_vec(),
            uid: 0,
            resident_kib: 0,
            name: Vec::new(),
        }
    }

    #[test]
    fn status_is_read_whatever_a_process_calls_itself() {
        let status = b"Name:\tPPid:\\t7\xff\nUmask:\t0022\nPPid:\t12\nUid:\t1\t2\t3\t4\nNSpid:\t40\t3\nVmRSS:\t  816 kB\n";
        let seen = Seen::parse(40, status).unwrap();
        assert_eq!((seen.parent, seen.uid, seen.resident_kib), (12, 2, 816));
        assert_eq!(seen.pids, [40, 3]);
        assert_eq!(seen.name, b"PPid:\\t7\xff");
        assert_eq!(Seen::parse(1, b"Name:\tx\n"), None);
    }

    #[test]
    fn processor_time_stands_behind_the_name() {
        let stat = b"9 (a) R 1 (b) S 1 9 9 0 -1 4194560 1 2 3 4 150 25 0 0 20 0 1 0 99 0 0";
        assert_eq!(cpu(stat), Some(Duration::from_millis(1750)));
        assert_eq!(cpu(b"9 (x"), None);
    }

    #[test]
    fn users_are_shown_as_the_container_has_them() {
        let map = Map::parse("         0       1000          1\n         1     100000      65536\n");
        assert_eq!(map.inside(1000), Some(0));
        assert_eq!(map.inside(100_032), Some(33));
        assert_eq!(map.inside(0), None);
        assert_eq!(map.inside(u32::MAX), None);
    }

    #[test]
    fn who_hides_goes_with_parent_and_children() {
        let all = [
            seen(1, 0, &[1]),
            // The reaper, which nobody may look at, the command, and a daemon of its.
            seen(20, 10, &[20, 1]),
            seen(21, 20, &[21, 2]),
            seen(22, 20, &[22, 3]),
            // A container in it.
            seen(23, 22, &[23, 4, 1]),
            seen(24, 23, &[24, 5, 2]),
            // Another container, and what came in through `mk exec`.
            seen(30, 10, &[30, 1]),
            seen(31, 30, &[31, 2]),
            seen(25, 11, &[25, 6]),
        ];
        let inside = members(&all, 2, |pid| [21, 22, 25].contains(&pid));
        assert_eq!(inside.into_iter().collect::<Vec<_>>(), [20, 21, 22, 23, 24, 25]);
    }

    #[test]
    fn this_process_is_in_its_own_container() {
        let own = std::process::id() as i32;
        let found = of_container(own).unwrap();
        let own = found.iter().find(|process| process.host_pid == own).unwrap();
        assert!(own.memory > 0 && !own.command.is_empty());
    }
}
