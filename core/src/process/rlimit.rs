//! [`Rlimits`]: what each process of the container may take (setrlimit(2)), decided before the clone.

use crate::spec::ulimit::{Lowered, Resource, UNLIMITED, Ulimit, settle};
use crate::sys::SysError;
use crate::sys::namespace;
use crate::sys::process::{self, CapabilitySet, Rlimit};

/// Limits that can be set, and those that were asked for and cannot be had in full.
#[derive(Debug, Clone, Default)]
pub struct Rlimits {
    /// What is set, as it was settled.
    pub settled: Vec<Ulimit>,
    /// What is less than was asked for.
    pub lowered: Vec<Lowered>,
}

impl Rlimits {
    /// Decides what of `asked` this process can set: raising a hard limit takes `CAP_SYS_RESOURCE` in the machine's
    /// first user namespace, which a container with ids of its own (`own_ids`) is not in, and no number of files goes
    /// beyond what the machine allows.
    pub fn decide(asked: &[Ulimit], own_ids: bool) -> Result<Self, SysError> {
        if asked.is_empty() {
            return Ok(Self::default());
        }
        let may_raise = !own_ids
            && process::own_capabilities()?.contains(CapabilitySet::SYS_RESOURCE)
            && namespace::is_first_user_namespace()?;
        let (settled, lowered) = settle(asked, |resource| {
            let now = process::rlimit(kernels(resource)).maximum.unwrap_or(UNLIMITED);
            match (may_raise, resource) {
                (false, _) => Some(now),
                (true, Resource::Nofile) => Some(most_files().max(now)),
                (true, _) => None,
            }
        });
        Ok(Self { settled, lowered })
    }

    /// Returns in what a process is limited otherwise than this one, where `limits` is what the kernel tells of it
    /// (proc_pid_limits(5)): what to ask for, to be limited as it is.
    pub fn asked_by(limits: &str) -> Vec<Ulimit> {
        let own = |resource| {
            let now = process::rlimit(kernels(resource));
            (now.current.unwrap_or(UNLIMITED), now.maximum.unwrap_or(UNLIMITED))
        };
        let told = limits.lines().filter_map(told);
        told.filter(|one| own(one.resource) != (one.soft, one.hard))
            .collect()
    }

    /// Sets them for this process and what it executes. Never allocates.
    pub(super) fn set(&self) -> Result<(), SysError> {
        let limit = |value| (value != UNLIMITED).then_some(value);
        self.settled.iter().try_for_each(|one| {
            let both = Rlimit {
                current: limit(one.soft),
                maximum: limit(one.hard),
            };
            process::set_rlimit(kernels(one.resource), both)
        })
    }
}

/// Reads a line of proc_pid_limits(5): what is limited, the soft and the hard limit, the unit.
fn told(line: &str) -> Option<Ulimit> {
    let begins = |resource: &&Resource| line.starts_with(kernels_words(**resource));
    let resource = *Resource::ALL.iter().find(begins)?;
    let mut words = line[kernels_words(resource).len()..].split_ascii_whitespace();
    let mut number = || match words.next()? {
        "unlimited" => Some(UNLIMITED),
        number => number.parse().ok(),
    };
    Some(Ulimit {
        resource,
        soft: number()?,
        hard: number()?,
    })
}

/// What the kernel calls a resource there.
fn kernels_words(resource: Resource) -> &'static str {
    match resource {
        Resource::As => "Max address space",
        Resource::Core => "Max core file size",
        Resource::Cpu => "Max cpu time",
        Resource::Data => "Max data size",
        Resource::Fsize => "Max file size",
        Resource::Locks => "Max file locks",
        Resource::Memlock => "Max locked memory",
        Resource::Msgqueue => "Max msgqueue size",
        Resource::Nice => "Max nice priority",
        Resource::Nofile => "Max open files",
        Resource::Nproc => "Max processes",
        Resource::Rss => "Max resident set",
        Resource::Rtprio => "Max realtime priority",
        Resource::Rttime => "Max realtime timeout",
        Resource::Sigpending => "Max pending signals",
        Resource::Stack => "Max stack size",
    }
}

/// The most open files that the machine allows any process (`fs.nr_open`, proc_sys_fs(5)).
fn most_files() -> u64 {
    let text = fs_err::read_to_string("/proc/sys/fs/nr_open").unwrap_or_default();
    text.trim_end().parse().unwrap_or(1 << 20)
}

fn kernels(resource: Resource) -> process::Resource {
    match resource {
        Resource::As => process::Resource::As,
        Resource::Core => process::Resource::Core,
        Resource::Cpu => process::Resource::Cpu,
        Resource::Data => process::Resource::Data,
        Resource::Fsize => process::Resource::Fsize,
        Resource::Locks => process::Resource::Locks,
        Resource::Memlock => process::Resource::Memlock,
        Resource::Msgqueue => process::Resource::Msgqueue,
        Resource::Nice => process::Resource::Nice,
        Resource::Nofile => process::Resource::Nofile,
        Resource::Nproc => process::Resource::Nproc,
        Resource::Rss => process::Resource::Rss,
        Resource::Rtprio => process::Resource::Rtprio,
        Resource::Rttime => process::Resource::Rttime,
        Resource::Sigpending => process::Resource::Sigpending,
        Resource::Stack => process::Resource::Stack,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lowering_a_limit_takes_no_privilege() {
        let asked: Vec<Ulimit> = vec!["nofile=16:32".parse().unwrap(), "core=0".parse().unwrap()];
        let decided = Rlimits::decide(&asked, false).unwrap();
        assert_eq!((decided.settled, decided.lowered.len()), (asked, 0));
    }

    #[test]
    fn nobody_opens_more_files_than_the_machine_allows() {
        let asked: Ulimit = "nofile=unlimited".parse().unwrap();
        let decided = Rlimits::decide(&[asked], false).unwrap();
        assert_eq!(decided.lowered.len(), 1);
        let set = decided.settled[0];
        assert!(set.hard < UNLIMITED && set.soft == set.hard, "{set}");
    }

    #[test]
    fn limits_of_another_process_are_read_as_the_kernel_writes_them() {
        let line = "Max open files            1024                 1048576              files     ";
        let read = told(line).unwrap();
        assert_eq!(
            (read.resource, read.soft, read.hard),
            (Resource::Nofile, 1024, 1 << 20)
        );
        let line = "Max cpu time              unlimited            unlimited            seconds   ";
        assert_eq!(told(line).unwrap().hard, UNLIMITED);
        assert!(told("Limit                     Soft Limit           Hard Limit           Units").is_none());
        let own = fs_err::read_to_string("/proc/self/limits").unwrap();
        assert_eq!(own.lines().filter_map(told).count(), Resource::ALL.len());
        assert!(Rlimits::asked_by(&own).is_empty());
    }
}
