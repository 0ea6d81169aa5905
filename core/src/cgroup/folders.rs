//! [`Folders`]: the cgroups of a container, as data: whoever has it can join the container's limits, see what of them is
//! used, and remove them at its end.

use std::ffi::CString;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{Error, PREFIX};
use crate::sys::{cgroup, file, process};

/// The folder in a version 2 cgroup of mk's that the container's processes are in.
pub(super) const INNER: &str = "box";

/// The cgroups of one container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Folders {
    pub(super) list: Vec<Folder>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Folder {
    /// Where it is; of version 2, the outer one, which holds the limits.
    pub(super) path: PathBuf,
    /// 1 or 2.
    pub(super) version: u8,
}

impl Folder {
    /// Returns the folder that processes are in.
    pub(super) fn inner(&self) -> PathBuf {
        match self.version {
            1 => self.path.clone(),
            _ => self.path.join(INNER),
        }
    }

    /// Returns a number of a file with lines of name and number.
    fn entry(&self, file: &str, name: &str) -> Option<u64> {
        let text = fs_err::read_to_string(self.path.join(file)).ok()?;
        let mut lines = text.lines().filter_map(|line| line.split_once(' '));
        lines.find(|(found, _)| *found == name)?.1.parse().ok()
    }
}

impl Folders {
    /// Returns the cgroups that [`Self::paths`] told of, as they are now.
    pub fn at(paths: impl IntoIterator<Item = PathBuf>) -> Self {
        let list = paths.into_iter().map(|path| Folder {
            // Every cgroup of version 2 has this file, and none of version 1.
            version: if path.join("cgroup.controllers").exists() {
                2
            } else {
                1
            },
            path,
        });
        Self { list: list.collect() }
    }

    /// Returns the folders that hold the limits, and tell what of them is used.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.list.iter().map(|folder| folder.path.as_path())
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Puts the process `pid` into the version 1 cgroups; it must wait meanwhile, for only what it starts afterwards is
    /// born in them.
    pub fn join_v1(&self, pid: i32) -> Result<(), Error> {
        self.list
            .iter()
            .filter(|folder| folder.version == 1)
            .try_for_each(|folder| put(&folder.inner().join("cgroup.procs"), &pid.to_string()))
    }

    /// Whether some are of version 1, so that [`Self::join_v1`] has something to do.
    pub fn have_v1(&self) -> bool {
        self.list.iter().any(|folder| folder.version == 1)
    }

    /// Returns a handle on the version 2 cgroup, for a process to be born in (`CLONE_INTO_CGROUP`, Linux 5.7).
    pub fn open_v2(&self) -> Result<Option<OwnedFd>, Error> {
        let Some(folder) = self.list.iter().find(|folder| folder.version == 2) else {
            return Ok(None);
        };
        Ok(Some(cgroup::open(&folder.inner())?))
    }

    /// Puts the process `pid`, which runs already, into all of them.
    pub fn join(&self, pid: i32) -> Result<(), Error> {
        self.list
            .iter()
            .try_for_each(|folder| put(&folder.inner().join("cgroup.procs"), &pid.to_string()))
    }

    /// Whether the kernel has killed something in it because its memory was used up. The kernels that mk runs on count
    /// that.
    pub fn out_of_memory(&self) -> bool {
        self.list.iter().any(|folder| {
            let file = match folder.version {
                1 => "memory.oom_control",
                _ => "memory.events",
            };
            folder.entry(file, "oom_kill").is_some_and(|times| times > 0)
        })
    }

    /// Returns what is to be removed at the container's end, in a form that a process can use which must not allocate.
    pub fn doomed(&self) -> Doomed {
        let mut doomed = Doomed::default();
        for folder in &self.list {
            if folder.version == 2 {
                doomed
                    .kill
                    .extend(process::c_string(folder.path.join("cgroup.kill")));
                doomed.folders.extend(process::c_string(folder.inner()));
            }
            doomed.folders.extend(process::c_string(&folder.path));
        }
        doomed
    }
}

/// Cgroups to be removed.
#[derive(Debug, Clone, Default)]
pub struct Doomed {
    /// Files that end all processes of a cgroup (Linux 5.14).
    kill: Vec<CString>,
    /// Inner ones before outer ones.
    folders: Vec<CString>,
    pub(super) back: Option<Back>,
}

/// What undoes that mk left its cgroup for one beside, so that it could have limited ones below it.
#[derive(Debug, Clone)]
pub(super) struct Back {
    /// The file that says which controllers the children of mk's cgroup have,
    pub(super) subtree: CString,
    /// and what is written into it, where mk has switched some on.
    pub(super) disable: CString,
    /// Where mk's processes go.
    pub(super) home: CString,
    /// Where they come from.
    pub(super) aside_processes: CString,
    /// The folder that is removed then.
    pub(super) aside: CString,
}

impl Back {
    /// What of it fails does no harm: the folder is empty as soon as mk has ended, and swept by the next one.
    fn go(&self) {
        if !self.disable.is_empty() {
            cgroup::write(&self.subtree, self.disable.to_bytes());
        }
        let _ = cgroup::move_all(&self.aside_processes, &self.home);
        cgroup::remove(&self.aside);
    }
}

impl Doomed {
    /// Removes them, and waits up to `limit` for the last of their processes to end. Says whether all are gone. Neither
    /// allocates nor fails: what cannot be removed now is found by the next mk ([`sweep`]).
    pub fn remove(&self, limit: Duration) -> bool {
        let gone = self.remove_folders(limit);
        if let Some(back) = &self.back {
            back.go();
        }
        gone
    }

    fn remove_folders(&self, limit: Duration) -> bool {
        let begin = Instant::now();
        let mut pause = Duration::from_micros(200);
        loop {
            let mut left = false;
            for folder in &self.folders {
                left |= !cgroup::remove(folder);
            }
            if !left || begin.elapsed() >= limit {
                return !left;
            }
            // Whoever is still in there has no container around it any more.
            self.kill.iter().for_each(|file| cgroup::write(file, b"1"));
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }
}

/// Removes what runs of mk that were killed have left in `parent`: folders with mk's name that nobody has a lock on.
pub fn sweep(parent: &Path) {
    let names = fs_err::read_dir(parent)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX));
    for entry in names {
        // Another user's stays: it cannot be removed by us, and is not ours to judge.
        let path = entry.path();
        let Ok(folder) = fs_err::File::open(&path) else {
            continue;
        };
        if !file::try_lock(folder.file(), file::LockKind::Exclusive).unwrap_or(false) {
            continue;
        }
        Folders::at([path]).doomed().remove(Duration::ZERO);
    }
}

/// Writes `text` to a file of a cgroup, which must be there.
pub(super) fn put(path: &Path, text: &str) -> Result<(), Error> {
    let written = fs_err::OpenOptions::new()
        .write(true)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|failed: io::Error| Error::Write {
        file: path.to_owned(),
        text: text.to_owned(),
        failed,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folders(path: &Path, version: u8) -> Folders {
        Folders {
            list: vec![Folder {
                path: path.to_owned(),
                version,
            }],
        }
    }

    #[test]
    fn folders_are_known_again_by_their_paths() {
        let temp = tempfile::tempdir().unwrap();
        let (one, two) = (temp.path().join("mk-1"), temp.path().join("mk-2"));
        fs_err::create_dir(&one).unwrap();
        fs_err::create_dir(&two).unwrap();
        fs_err::write(two.join("cgroup.controllers"), "").unwrap();
        let mut both = folders(&one, 1);
        both.list.extend(folders(&two, 2).list);
        let again = Folders::at(both.paths().map(Path::to_owned));
        assert_eq!(again, both);
        assert!(again.have_v1());
    }

    #[test]
    fn that_memory_ran_out_is_read_from_either_version() {
        let temp = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs_err::write(temp.path().join(name), text).unwrap();
        assert!(!folders(temp.path(), 2).out_of_memory());
        write("memory.events", "low 0\noom 1\noom_kill 0\n");
        assert!(!folders(temp.path(), 2).out_of_memory());
        write("memory.events", "low 0\noom 1\noom_kill 2\n");
        assert!(folders(temp.path(), 2).out_of_memory());
        assert!(!folders(temp.path(), 1).out_of_memory());
        write(
            "memory.oom_control",
            "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n",
        );
        assert!(folders(temp.path(), 1).out_of_memory());
    }

    #[test]
    fn folders_are_removed_from_the_inside_out() {
        let temp = tempfile::tempdir().unwrap();
        let outer = temp.path().join("mk-1");
        fs_err::create_dir_all(outer.join(INNER)).unwrap();
        assert!(folders(&outer, 2).doomed().remove(Duration::ZERO));
        assert!(!outer.exists());
        assert!(
            folders(&outer, 2).doomed().remove(Duration::ZERO),
            "what is gone is gone"
        );
    }

    #[test]
    fn a_sweep_leaves_what_is_locked_and_what_is_not_mk_s() {
        let temp = tempfile::tempdir().unwrap();
        let path = |name: &str| temp.path().join(name);
        for name in ["mk-dead", "mk-alive", "other"] {
            fs_err::create_dir(path(name)).unwrap();
        }
        let alive = fs_err::File::open(path("mk-alive")).unwrap();
        assert!(file::try_lock(alive.file(), file::LockKind::Exclusive).unwrap());
        sweep(temp.path());
        assert!(!path("mk-dead").exists());
        assert!(path("mk-alive").exists() && path("other").exists());
        drop(alive);
        sweep(temp.path());
        assert!(!path("mk-alive").exists());
    }
}
