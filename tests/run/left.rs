//! What a run could leave on a machine, told apart from what others do there at the same time.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{boxed, eventually, marker, processes_with};
use crate::harness::tracer;
use crate::harness::{Sandbox, needs};

/// A sandbox with the image `box`, and all that tells the runs in it from others.
pub(super) struct Scene {
    pub(super) sandbox: Sandbox,
    /// A word that is among the arguments of each process of these runs.
    pub(super) marker: String,
    home: Home,
}

/// Cgroups of root's that the runs are started in, one in each hierarchy that limits something: what is made, is made
/// in there. Others have none, and so nothing to make any in.
struct Home(Vec<PathBuf>);

/// What is there of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Left {
    /// All paths of the sandbox: store, state, temporary files, home. What a run only reads is left out, for speed:
    /// `mk verify` looks at it.
    pub(super) paths: BTreeSet<String>,
    pub(super) mounts: Vec<String>,
    pub(super) locks: Vec<String>,
    pub(super) processes: Vec<u32>,
    pub(super) cgroups: BTreeSet<String>,
}

impl Scene {
    pub(super) fn new() -> Option<Self> {
        let sandbox = boxed("")?;
        sandbox.write("t1/f", "");
        fs_err::create_dir(sandbox.root().join("tmp")).unwrap();
        let marker = marker();
        let home = Home::new(&marker);
        Some(Self {
            sandbox,
            marker,
            home,
        })
    }

    /// Returns the words of a run that can be told from others.
    pub(super) fn run(&self, options: &[&str], command: &[&str]) -> Vec<String> {
        let volume = format!("./t1:/{}", self.marker);
        let always = ["run", "box", "-v", &volume];
        let words = [&always[..], options, command].concat();
        words.into_iter().map(str::to_owned).collect()
    }

    /// Returns a call of mk that waits for a tracer, in the home of these runs.
    pub(super) fn held(&self, words: &[String]) -> Command {
        let mut mk = self.sandbox.command();
        mk.args(words).env("TMPDIR", self.sandbox.root().join("tmp"));
        tracer::held(&mk, &self.home.entering())
    }

    /// Returns a call of mk in the home of these runs.
    pub(super) fn command(&self, words: &[String]) -> Command {
        let mut mk = self.sandbox.command();
        mk.args(words).env("TMPDIR", self.sandbox.root().join("tmp"));
        let mut shell = self.sandbox.command();
        let enter = format!("{}\nexec \"$0\" \"$@\"", self.home.entering());
        let mut in_shell = Command::new("/bin/sh");
        in_shell
            .args(["-c", &enter])
            .arg(shell.get_program())
            .args(mk.get_args());
        shell = in_shell;
        shell
            .env_clear()
            .current_dir(self.sandbox.work())
            .envs(mk.get_envs().filter_map(|(name, value)| Some((name, value?))));
        shell
    }

    /// Looks at what is there.
    pub(super) fn left(&self) -> Left {
        let mut paths = BTreeSet::new();
        let only_read = ["objects", "rootfs"].map(|name| self.sandbox.store().join(name));
        list(self.sandbox.root(), &only_read, &mut paths);
        let inodes: BTreeSet<u64> = paths
            .iter()
            .filter_map(|path| fs_err::symlink_metadata(path).ok())
            .map(|found| found.ino())
            .collect();
        let lines = |path: &str, ours: &dyn Fn(&str) -> bool| -> Vec<String> {
            let text = fs_err::read_to_string(path).unwrap();
            text.lines()
                .filter(|line| ours(line))
                .map(str::to_owned)
                .collect()
        };
        let root = self.sandbox.root().display().to_string();
        let is_ours = |line: &str| {
            let place = line
                .split_ascii_whitespace()
                .find(|word| word.matches(':').count() == 2);
            let inode = place.and_then(|place| place.rsplit(':').next()?.parse().ok());
            inode.is_some_and(|inode| inodes.contains(&inode))
        };
        Left {
            mounts: lines("/proc/self/mountinfo", &|line| line.contains(&root)),
            // Without the number of the line, which others change.
            locks: lines("/proc/locks", &is_ours)
                .iter()
                .map(|line| line.split_once(": ").map_or(&**line, |(_, lock)| lock).to_owned())
                .collect(),
            processes: processes_with(&self.marker),
            cgroups: self.home.below(),
            paths,
        }
    }

    /// The memory that the kernel keeps for these runs and what they left, in bytes, where it can tell.
    pub(super) fn memory(&self) -> Option<u64> {
        ["memory.usage_in_bytes", "memory.current"]
            .iter()
            .find_map(|file| {
                let read = |folder: &PathBuf| fs_err::read_to_string(folder.join(file)).ok();
                self.home.0.iter().find_map(read)?.trim().parse().ok()
            })
    }
}

impl Left {
    /// Returns what is there now and was not `before`, and what is gone; nothing where all is as it was.
    pub(super) fn since(&self, before: &Self) -> Vec<String> {
        let mut all = Vec::new();
        let mut differ = |what: &str, old: BTreeSet<String>, new: BTreeSet<String>| {
            all.extend(new.difference(&old).map(|one| format!("{what} left: {one}")));
            all.extend(old.difference(&new).map(|one| format!("{what} gone: {one}")));
        };
        differ("file", before.paths.clone(), self.paths.clone());
        differ("cgroup", before.cgroups.clone(), self.cgroups.clone());
        let set = |lines: &[String]| lines.iter().cloned().collect();
        differ("mount", set(&before.mounts), set(&self.mounts));
        differ("lock", set(&before.locks), set(&self.locks));
        let named = |pids: &[u32]| pids.iter().map(|&pid| described(pid)).collect();
        differ("process", named(&before.processes), named(&self.processes));
        all
    }
}

/// Adds all paths below `folder`, but not what is in `closed` ones.
fn list(folder: &Path, closed: &[PathBuf], all: &mut BTreeSet<String>) {
    // What is there may be gone a moment later.
    for entry in fs_err::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) && !closed.contains(&path) {
            list(&path, closed, all);
        }
        all.insert(path.display().to_string());
    }
}

/// Returns what a person would want to know of a process.
fn described(pid: u32) -> String {
    let read = |file: &str| fs_err::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let words = read("cmdline").replace('\0', " ");
    format!("{pid} ({}) {words}", read("comm").trim())
}

impl Home {
    fn new(marker: &str) -> Self {
        if !needs::is_root() {
            return Self(Vec::new());
        }
        let mounts = fs_err::read_to_string("/proc/self/mountinfo").unwrap();
        let own = fs_err::read_to_string("/proc/self/cgroup").unwrap();
        let own = |controller: &str| {
            own.lines().find_map(|line| {
                let (_, rest) = line.split_once(':')?;
                let (controllers, path) = rest.split_once(':')?;
                (controllers == controller).then(|| path.trim_start_matches('/').to_owned())
            })
        };
        let mut homes = Vec::new();
        for line in mounts.lines() {
            let Some((place, kind)) = line.split_once(" - ") else {
                continue;
            };
            let mount = Path::new(place.split(' ').nth(4).unwrap());
            let controller = match kind.split(' ').next() {
                Some("cgroup2") => "",
                Some("cgroup") => ["memory", "pids", "cpu"]
                    .into_iter()
                    .find(|name| kind.rsplit(',').next() == Some(name))
                    .unwrap_or("none"),
                _ => continue,
            };
            let Some(own) = own(controller) else { continue };
            let home = mount.join(own).join(format!("test-{marker}"));
            fs_err::create_dir(&home).unwrap();
            homes.push(home);
        }
        Self(homes)
    }

    /// Returns what a shell says to get there.
    fn entering(&self) -> String {
        let enter = |home: &PathBuf| format!("echo $$ >{}/cgroup.procs\n", home.display());
        self.0.iter().map(enter).collect()
    }

    /// All cgroups in there.
    fn below(&self) -> BTreeSet<String> {
        let folders = self
            .0
            .iter()
            .flat_map(|home| fs_err::read_dir(home).unwrap())
            .flatten();
        let folders = folders.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        folders.map(|entry| entry.path().display().to_string()).collect()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        for home in &self.0 {
            let gone = || fs_err::remove_dir(home).is_ok() || !home.exists();
            if std::thread::panicking() {
                gone();
            } else {
                eventually("an empty cgroup", gone);
            }
        }
    }
}
