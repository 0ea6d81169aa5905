//! What a running container uses: its processes, and the time and memory that they take. Looks, and changes nothing.

use std::io;
use std::time::Duration;

use crate::cgroup::Folders;

/// The processes themselves.
pub mod processes;

pub use processes::Process;

/// What a container uses, and how much it may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    /// Processor time since it was started; where it is summed up, that of processes which have ended is missing.
    pub cpu: Measure<Duration>,
    /// Memory in bytes. A cgroup counts files that are kept in memory too, and each page once.
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
    /// The kernel, in the container's cgroup.
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

/// Looks at the container in which `command` runs, and which is in `cgroups`.
pub fn of_container(command: i32, cgroups: &Folders) -> io::Result<Usage> {
    let processes = processes::of_container(command)?;
    let counted = Counted(cgroups);
    let limit = counted.number(&["memory.max", "memory.limit_in_bytes"]);
    let memory = counted.number(&["memory.current", "memory.usage_in_bytes"]);
    Ok(Usage {
        cpu: Measure::of(counted.cpu(), || {
            processes.iter().map(|process| process.cpu).sum()
        }),
        memory: Measure {
            limit: limit.filter(is_limit),
            ..Measure::of(memory, || processes.iter().map(|process| process.memory).sum())
        },
        processes: Measure {
            limit: counted.number(&["pids.max"]),
            ..Measure::of(counted.number(&["pids.current"]), || processes.len() as u64)
        },
    })
}

/// What the kernel counts in cgroups.
struct Counted<'a>(&'a Folders);

impl Counted<'_> {
    /// Returns the number in the first of the files called one of `names` that there is; none where it is `max`.
    fn number(&self, names: &[&str]) -> Option<u64> {
        self.text(names)?.trim_end().parse().ok()
    }

    fn cpu(&self) -> Option<Duration> {
        let nanos = || self.number(&["cpuacct.usage"]).map(Duration::from_nanos);
        let stat = self.text(&["cpu.stat"]).unwrap_or_default();
        let micros = stat.lines().find_map(|line| line.strip_prefix("usage_usec "));
        micros
            .and_then(|micros| micros.parse().ok())
            .map(Duration::from_micros)
            .or_else(nanos)
    }

    fn text(&self, names: &[&str]) -> Option<String> {
        let paths = self
            .0
            .paths()
            .flat_map(|folder| names.iter().map(|name| folder.join(name)));
        paths
            .into_iter()
            .find_map(|path| fs_err::read_to_string(path).ok())
    }
}

/// The first cgroup version writes "no limit" as the largest number of pages that fits.
fn is_limit(limit: &u64) -> bool {
    *limit < i64::MAX as u64 - (1 << 20)
}

impl<T> Measure<T> {
    fn of(counted: Option<T>, sum: impl FnOnce() -> T) -> Self {
        let source = match counted {
            Some(_) => Source::ControlGroup,
            None => Source::Processes,
        };
        Self {
            used: counted.unwrap_or_else(sum),
            limit: None,
            source,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups(files: &[(&str, &str)]) -> (tempfile::TempDir, Folders) {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs_err::write(folder.path().join(name), text).unwrap();
        }
        let folders = Folders::at([folder.path().to_owned()]);
        (folder, folders)
    }

    #[test]
    fn numbers_are_the_kernels_where_a_cgroup_counts() {
        let own = std::process::id() as i32;
        let (_second, second) = groups(&[
            ("cpu.stat", "usage_usec 1500000\nuser_usec 7\n"),
            ("memory.current", "4096\n"),
            ("memory.max", "max\n"),
            ("pids.current", "3\n"),
            ("pids.max", "9\n"),
        ]);
        let usage = of_container(own, &second).unwrap();
        assert_eq!(usage.cpu.used, Duration::from_millis(1500));
        assert_eq!((usage.memory.used, usage.memory.limit), (4096, None));
        assert_eq!((usage.processes.used, usage.processes.limit), (3, Some(9)));
        assert_eq!(usage.memory.source, Source::ControlGroup);
        let (_first, first) = groups(&[
            ("cpuacct.usage", "2000000000\n"),
            ("memory.usage_in_bytes", "8192\n"),
            ("memory.limit_in_bytes", "9223372036854771712\n"),
        ]);
        let usage = of_container(own, &first).unwrap();
        assert_eq!(usage.cpu.used, Duration::from_secs(2));
        assert_eq!((usage.memory.used, usage.memory.limit), (8192, None));
        assert_eq!(usage.processes.source, Source::Processes);
    }

    #[test]
    fn without_one_they_are_summed_up() {
        let usage = of_container(std::process::id() as i32, &Folders::default()).unwrap();
        assert_eq!(usage.cpu.source, Source::Processes);
        assert!(usage.memory.used > 0 && usage.processes.used > 0);
    }
}
