//! What a running container uses: its processes, and the time and memory that they take. Looks, and changes nothing.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The processes themselves.
pub mod processes;

pub use processes::Process;

/// What a container uses, and how much it may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    /// Processor time since it was started; where it is summed up, that of processes which have ended is missing.
    pub cpu: Measure<Duration>,
    /// Memory in bytes. A control group counts files that are kept in memory too, and each page once.
    pub memory: Measure<u64>,
    /// Processes and threads; where they are counted one by one, processes only.
    pub processes: Measure<u64>,
}

/// One number, and where it is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Measure<T> {
    /// How much is used.
    pub used: T,
    /// How much there may be, where there is a limit to it.
    pub limit: Option<T>,
    /// Who counted.
    pub source: Source,
}

/// Who counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The kernel, in the container's control group.
    ControlGroup,
    /// mk, over the processes that there are.
    Processes,
}

impl Source {
    /// Returns a word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::ControlGroup => "cgroup",
            Self::Processes => "processes",
        }
    }
}

/// Looks at the container in which `command` runs, and for which `cgroups` were made: folders of the host.
pub fn of_container(command: i32, cgroups: &[PathBuf]) -> io::Result<Usage> {
    let groups = Groups(cgroups);
    let processes = processes::of_container(command)?;
    let cpu = groups.cpu().map(Measure::counted);
    let memory = groups.first(&["memory.current", "memory.usage_in_bytes"]);
    let pids = groups.first(&["pids.current"]);
    Ok(Usage {
        cpu: cpu.unwrap_or_else(|| Measure::summed(processes.iter().map(|process| process.cpu).sum())),
        memory: memory.map_or_else(
            || Measure::summed(processes.iter().map(|process| process.memory).sum()),
            |used| Measure {
                limit: groups
                    .first(&["memory.max", "memory.limit_in_bytes"])
                    .filter(is_limit),
                ..Measure::counted(used)
            },
        ),
        processes: pids.map_or_else(
            || Measure::summed(processes.len() as u64),
            |used| Measure {
                limit: groups.first(&["pids.max"]),
                ..Measure::counted(used)
            },
        ),
    })
}

/// The first cgroup version writes "no limit" as the largest number of pages that fits.
fn is_limit(limit: &u64) -> bool {
    *limit < i64::MAX as u64 - (1 << 20)
}

impl<T> Measure<T> {
    fn counted(used: T) -> Self {
        Self {
            used,
            limit: None,
            source: Source::ControlGroup,
        }
    }

    fn summed(used: T) -> Self {
        Self {
            used,
            limit: None,
            source: Source::Processes,
        }
    }
}

/// The folders of a container's control groups.
struct Groups<'a>(&'a [PathBuf]);

impl Groups<'_> {
    /// Returns the number in the first of the files called one of `names` that there is; none where it says `max`.
    fn first(&self, names: &[&str]) -> Option<u64> {
        let texts = self.texts(names);
        texts.into_iter().find_map(|text| text.trim().parse().ok())
    }

    fn cpu(&self) -> Option<Duration> {
        let in_nanos = || self.first(&["cpuacct.usage"]).map(Duration::from_nanos);
        let stat = self.texts(&["cpu.stat"]);
        let micros = stat.iter().find_map(|text| {
            let line = text.lines().find_map(|line| line.strip_prefix("usage_usec "))?;
            line.trim().parse().ok()
        });
        micros.map(Duration::from_micros).or_else(in_nanos)
    }

    fn texts(&self, names: &[&str]) -> Vec<String> {
        let read = |folder: &PathBuf| {
            let paths = names.iter().map(|name| folder.join(name));
            paths
                .filter_map(|path: PathBuf| fs_err::read_to_string::<&Path>(&path).ok())
                .collect::<Vec<_>>()
        };
        self.0.iter().rev().flat_map(read).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(files: &[(&str, &str)]) -> (tempfile::TempDir, Vec<PathBuf>) {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs_err::write(folder.path().join(name), text).unwrap();
        }
        let paths = vec![folder.path().to_owned()];
        (folder, paths)
    }

    #[test]
    fn numbers_are_the_kernels_where_a_control_group_counts() {
        let own = std::process::id() as i32;
        let (_second, paths) = group(&[
            ("cpu.stat", "usage_usec 1500000\nuser_usec 7\n"),
            ("memory.current", "4096\n"),
            ("memory.max", "max\n"),
            ("pids.current", "3\n"),
            ("pids.max", "10\n"),
        ]);
        let usage = of_container(own, &paths).unwrap();
        assert_eq!(usage.cpu.used, Duration::from_millis(1500));
        assert_eq!((usage.memory.used, usage.memory.limit), (4096, None));
        assert_eq!((usage.processes.used, usage.processes.limit), (3, Some(10)));
        assert_eq!(usage.memory.source, Source::ControlGroup);
        let (_first, paths) = group(&[
            ("cpuacct.usage", "2000000000\n"),
            ("memory.usage_in_bytes", "8192\n"),
            ("memory.limit_in_bytes", "9223372036854771712\n"),
        ]);
        let usage = of_container(own, &paths).unwrap();
        assert_eq!(usage.cpu.used, Duration::from_secs(2));
        assert_eq!((usage.memory.used, usage.memory.limit), (8192, None));
        assert_eq!(usage.processes.source, Source::Processes);
    }

    #[test]
    fn without_one_they_are_summed_up() {
        let usage = of_container(std::process::id() as i32, &[]).unwrap();
        assert_eq!(usage.cpu.source, Source::Processes);
        assert!(usage.memory.used > 0 && usage.processes.used > 0);
    }
}
