//! [`Plan`]: which folders are made where, and what is written into them. Looks at the hierarchies, changes nothing.

use std::fmt;
use std::path::{Path, PathBuf};

use super::layout::{Hierarchy, Layout};
use super::{Controller, Error, PREFIX, Why};
use crate::spec::limits::{CpuSet, Cpus, Limits, Memory};
use crate::sys::file;

/// The cgroups of a run: one in each hierarchy that keeps one of its limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// At most one of them is of version 2.
    pub groups: Vec<Group>,
}

/// A cgroup to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// How it is made.
    pub version: Version,
    /// The folder that it is made in.
    pub parent: PathBuf,
    /// Folders where other runs of mk may have left something behind: mk's own cgroup and those above it.
    pub around: Vec<PathBuf>,
    /// What limits are kept in it.
    pub controllers: Vec<Controller>,
    /// What is written into it, in this order.
    pub writes: Vec<Write>,
}

/// What differs between the two versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Version {
    /// The container's first process is written into the folder.
    V1,
    /// There are two folders, and the container's first process is born in the inner one: the limits are beyond the
    /// reach of whoever holds the inner one, and no program that tends the parent can switch a controller off which the
    /// outer one passes on.
    V2 {
        /// Whether mk must leave the parent for a folder beside, because a cgroup with limits below it must have no
        /// processes of its own.
        leave: bool,
        /// What must be switched on in the parent.
        enable: Vec<Controller>,
    },
}

/// A value for a file of a cgroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// The file.
    pub file: &'static str,
    /// The value.
    pub text: String,
    /// Whether some kernels do not have the file, and do without it what is wanted.
    pub optional: bool,
}

/// As `--dry-run` shows it; the name of the folder is not known before it is made.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for group in &self.groups {
            write!(f, "cgroup {}/{PREFIX}*", group.parent.display())?;
            for Write { file, text, .. } in &group.writes {
                match text.contains(' ') {
                    true => write!(f, " {file}=\"{text}\"")?,
                    false => write!(f, " {file}={text}")?,
                }
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

impl Plan {
    /// Decides which cgroups keep `limits` on this machine; `None` where none is needed.
    pub fn new(limits: &Limits) -> Result<Option<Self>, Error> {
        if !limits.need_cgroup() {
            return Ok(None);
        }
        let layout = Layout::look()?;
        Self::within(&layout, limits).map(Some)
    }

    fn within(layout: &Layout, limits: &Limits) -> Result<Self, Error> {
        let mut groups: Vec<Group> = Vec::new();
        let mut unified = Vec::new();
        for controller in wanted(limits) {
            let Some(hierarchy) = layout.v1_with(controller) else {
                unified.push(controller);
                continue;
            };
            let parent = legacy_parent(hierarchy).map_err(|why| Error::Refused { controller, why })?;
            let writes = legacy_writes(controller, limits, &parent)?;
            match groups.iter_mut().find(|group| group.parent == parent) {
                Some(group) => {
                    group.controllers.push(controller);
                    group.writes.extend(writes);
                }
                None => groups.push(Group {
                    version: Version::V1,
                    parent,
                    around: hierarchy.own_and_above().collect(),
                    controllers: vec![controller],
                    writes,
                }),
            }
        }
        if let Some(first) = unified.first() {
            let hierarchy = layout.v2.as_ref().ok_or(Error::Refused {
                controller: *first,
                why: Why::NotMounted,
            })?;
            groups.push(unified_group(hierarchy, &unified, limits)?);
        }
        Ok(Self { groups })
    }
}

impl Layout {
    /// Looks where this process is.
    pub fn look() -> Result<Self, Error> {
        let read = |path| fs_err::read_to_string(path).map_err(Error::Look);
        Ok(Self::read(
            &read("/proc/self/cgroup")?,
            &read("/proc/self/mountinfo")?,
        ))
    }
}

fn wanted(limits: &Limits) -> Vec<Controller> {
    [
        (limits.memory.is_some(), Controller::Memory),
        (limits.cpus.is_some(), Controller::Cpu),
        (limits.pids.is_some(), Controller::Pids),
        (limits.cpuset.is_some(), Controller::CpuSet),
    ]
    .into_iter()
    .filter_map(|(asked, controller)| asked.then_some(controller))
    .collect()
}

/// Returns the cgroup that mk is in, where one can be made below it.
fn own(hierarchy: &Hierarchy) -> Result<PathBuf, Why> {
    let mount = || hierarchy.mount.clone();
    let own = hierarchy.own_and_above().next();
    let own = own.ok_or_else(|| Why::OutOfSight { mount: mount() })?;
    match hierarchy.read_only {
        true => Err(Why::ReadOnly { mount: mount() }),
        false => Ok(own),
    }
}

/// Below the one that mk is in: what holds for mk holds for what it starts.
fn legacy_parent(hierarchy: &Hierarchy) -> Result<PathBuf, Why> {
    let folder = own(hierarchy)?;
    match file::may_write(&folder) {
        true => Ok(folder),
        false => Err(Why::NotOurs { folder, legacy: true }),
    }
}

fn set(file: &'static str, text: impl fmt::Display) -> Write {
    Write {
        file,
        text: text.to_string(),
        optional: false,
    }
}

/// Memory means memory: what is limited may not be swapped out to make room for more. A kernel that does not count
/// swapping has no file for it.
fn without_swap(file: &'static str, text: impl fmt::Display) -> Write {
    Write {
        optional: true,
        ..set(file, text)
    }
}

fn legacy_writes(controller: Controller, limits: &Limits, parent: &Path) -> Result<Vec<Write>, Error> {
    let mut writes = Vec::new();
    match controller {
        Controller::Memory => {
            let bytes = limits.memory.map_or(0, Memory::bytes);
            writes.push(set("memory.limit_in_bytes", bytes));
            writes.push(without_swap("memory.memsw.limit_in_bytes", bytes));
        }
        Controller::Cpu => {
            writes.push(set("cpu.cfs_period_us", Cpus::PERIOD));
            writes.push(set("cpu.cfs_quota_us", limits.cpus.map_or(0, Cpus::quota)));
        }
        Controller::Pids => writes.push(most_pids(limits)),
        Controller::CpuSet => {
            let read = |name: &str| fs_err::read_to_string(parent.join(name)).map_err(Error::Look);
            let cpus = allowed(limits, &read("cpuset.cpus")?)?;
            // A new cpuset is empty, and takes no process before it has both.
            writes.push(set("cpuset.mems", read("cpuset.mems")?.trim_end()));
            writes.push(set("cpuset.cpus", cpus));
        }
    }
    Ok(writes)
}

fn unified_writes(controller: Controller, limits: &Limits, parent: &Path) -> Result<Vec<Write>, Error> {
    Ok(match controller {
        Controller::Memory => vec![
            set("memory.max", limits.memory.map_or(0, Memory::bytes)),
            without_swap("memory.swap.max", 0),
            // All of the container or nothing: half of one is of no use to anybody.
            set("memory.oom.group", 1),
        ],
        Controller::Cpu => {
            let quota = limits.cpus.map_or(0, Cpus::quota);
            vec![set("cpu.max", format_args!("{quota} {}", Cpus::PERIOD))]
        }
        Controller::Pids => vec![most_pids(limits)],
        Controller::CpuSet => {
            let effective =
                fs_err::read_to_string(parent.join("cpuset.cpus.effective")).map_err(Error::Look)?;
            vec![set("cpuset.cpus", allowed(limits, &effective)?)]
        }
    })
}

/// The reaper is mk's and not the user's: it does not count.
fn most_pids(limits: &Limits) -> Write {
    let asked = limits.pids.map_or(0, |pids| pids.count());
    set("pids.max", asked + 1)
}

/// Returns the processors asked for, all of which must be among those of the parent: version 2 would take any list and
/// then use the parent's.
fn allowed(limits: &Limits, parent: &str) -> Result<String, Error> {
    let asked = limits.cpuset.clone();
    match (asked, parent.trim_end().parse::<CpuSet>()) {
        (Some(asked), Ok(allowed)) if !allowed.covers(&asked) => Err(Error::CpuSet { asked, allowed }),
        (asked, _) => Ok(asked.map(String::from).unwrap_or_default()),
    }
}

/// A folder of version 2 that might become a parent, as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Candidate {
    folder: PathBuf,
    /// Whether cgroups can be made in it and processes moved about below it.
    ours: bool,
    /// Whether it is the machine's first: that one may have processes beside limited cgroups.
    top: bool,
    /// What its children can have.
    controllers: Vec<String>,
    /// What its children do have.
    enabled: Vec<String>,
    processes: Processes,
}

/// Who is in a cgroup, those below it not counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Processes {
    #[default]
    None,
    /// This one alone.
    Mk,
    Others,
}

impl Candidate {
    fn look(folder: PathBuf) -> Self {
        let read = |name: &str| fs_err::read_to_string(folder.join(name)).ok();
        let words = |name: &str| -> Vec<String> {
            let text = read(name).unwrap_or_default();
            text.split_ascii_whitespace().map(str::to_owned).collect()
        };
        let own = std::process::id().to_string();
        let processes = match read("cgroup.procs") {
            Some(pids) if pids.is_empty() => Processes::None,
            Some(pids) if pids.lines().all(|pid| pid == own) => Processes::Mk,
            // One of threads does not tell (EOPNOTSUPP), and cannot have what we need.
            _ => Processes::Others,
        };
        // To move a process below it, its own `cgroup.procs` must be writable: it is the common ancestor (cgroups(7)).
        let files = ["", "cgroup.procs", "cgroup.subtree_control"];
        Self {
            ours: files.iter().all(|name| file::may_write(&folder.join(name))),
            top: !folder.join("cgroup.type").exists(),
            controllers: words("cgroup.controllers"),
            enabled: words("cgroup.subtree_control"),
            processes,
            folder,
        }
    }

    /// Returns how a cgroup with `needed` can be made in it.
    fn take(&self, needed: &[Controller]) -> Result<Version, (Controller, Why)> {
        let folder = || self.folder.clone();
        let lacking = |has: &[String]| -> Vec<Controller> {
            let lacks = |one: &&Controller| !has.iter().any(|name| name == one.name());
            needed.iter().filter(lacks).copied().collect()
        };
        let first = needed.first().copied().unwrap_or(Controller::Memory);
        if !self.ours {
            return Err((
                first,
                Why::NotOurs {
                    folder: folder(),
                    legacy: false,
                },
            ));
        }
        if let Some(missing) = lacking(&self.controllers).first() {
            let has = self.controllers.clone();
            return Err((
                *missing,
                Why::NotEnabled {
                    folder: folder(),
                    has,
                },
            ));
        }
        if self.processes == Processes::Others && !self.top {
            return Err((first, Why::Busy { folder: folder() }));
        }
        Ok(Version::V2 {
            leave: self.processes == Processes::Mk && !self.top,
            enable: lacking(&self.enabled),
        })
    }
}

/// Chooses the nearest one that will do; where there is none, returns the reason that is nearest to success.
fn choose(
    candidates: &[Candidate],
    needed: &[Controller],
) -> Result<(PathBuf, Version), Option<(Controller, Why)>> {
    let mut refused: Option<(Controller, Why)> = None;
    let rank = |why: &Why| match why {
        Why::Busy { .. } => (2, 0),
        Why::NotEnabled { has, .. } => (1, has.len()),
        _ => (0, 0),
    };
    for candidate in candidates {
        match candidate.take(needed) {
            Ok(version) => return Ok((candidate.folder.clone(), version)),
            Err(new) if refused.as_ref().is_none_or(|old| rank(&new.1) > rank(&old.1)) => refused = Some(new),
            Err(_) => {}
        }
    }
    Err(refused)
}

/// Returns where a cgroup of version 2 with `needed` can be made, and how.
fn unified_parent(
    hierarchy: &Hierarchy,
    needed: &[Controller],
) -> Result<(PathBuf, Version), (Controller, Why)> {
    let first = needed.first().copied().unwrap_or(Controller::Memory);
    own(hierarchy).map_err(|why| (first, why))?;
    let candidates: Vec<Candidate> = hierarchy.own_and_above().map(Candidate::look).collect();
    choose(&candidates, needed).map_err(|reason| reason.unwrap_or((first, Why::NotMounted)))
}

fn unified_group(hierarchy: &Hierarchy, needed: &[Controller], limits: &Limits) -> Result<Group, Error> {
    let (parent, version) =
        unified_parent(hierarchy, needed).map_err(|(controller, why)| Error::Refused { controller, why })?;
    let writes: Result<Vec<Vec<Write>>, Error> = needed
        .iter()
        .map(|controller| unified_writes(*controller, limits, &parent))
        .collect();
    Ok(Group {
        version,
        parent,
        around: hierarchy.own_and_above().collect(),
        controllers: needed.to_vec(),
        writes: writes?.concat(),
    })
}

/// Returns why this process may not limit its children with `controller`, if it may not.
pub fn refusal(layout: &Layout, controller: Controller) -> Option<Why> {
    match (layout.v1_with(controller), &layout.v2) {
        (Some(hierarchy), _) => legacy_parent(hierarchy).err(),
        (None, Some(hierarchy)) => unified_parent(hierarchy, &[controller]).err().map(|(_, why)| why),
        (None, None) => Some(Why::NotMounted),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMORY: &[Controller] = &[Controller::Memory];

    fn words(text: &str) -> Vec<String> {
        text.split_ascii_whitespace().map(str::to_owned).collect()
    }

    fn candidate(
        folder: &str,
        ours: bool,
        controllers: &str,
        enabled: &str,
        processes: Processes,
    ) -> Candidate {
        Candidate {
            folder: folder.into(),
            ours,
            top: false,
            controllers: words(controllers),
            enabled: words(enabled),
            processes,
        }
    }

    fn v2(leave: bool, enable: &[Controller]) -> Version {
        Version::V2 {
            leave,
            enable: enable.to_vec(),
        }
    }

    #[test]
    fn root_on_a_plain_machine_uses_the_first_cgroup() {
        let top = Candidate {
            top: true,
            ..candidate("/c", true, "cpuset cpu io memory pids", "", Processes::Others)
        };
        assert_eq!(choose(&[top], MEMORY), Ok(("/c".into(), v2(false, MEMORY))));
    }

    #[test]
    fn root_in_a_login_uses_the_slice_that_has_no_processes() {
        let all = "cpuset cpu io memory pids";
        let candidates = [
            candidate(
                "/c/user/u0/session",
                true,
                "cpu memory pids",
                "",
                Processes::Others,
            ),
            candidate(
                "/c/user/u0",
                true,
                "cpu memory pids",
                "memory pids",
                Processes::None,
            ),
            candidate("/c/user", true, all, "cpu memory pids", Processes::None),
        ];
        let both = [Controller::Memory, Controller::Cpu];
        assert_eq!(
            choose(&candidates, &both),
            Ok(("/c/user/u0".into(), v2(false, &[Controller::Cpu])))
        );
        assert_eq!(
            choose(&candidates, &[Controller::CpuSet]),
            Ok(("/c/user".into(), v2(false, &[Controller::CpuSet])))
        );
    }

    #[test]
    fn in_a_scope_of_its_own_mk_steps_aside() {
        let scope = candidate("/c/scope", true, "cpu memory pids", "", Processes::Mk);
        assert_eq!(
            choose(std::slice::from_ref(&scope), MEMORY),
            Ok(("/c/scope".into(), v2(true, MEMORY)))
        );
        let others = Candidate {
            processes: Processes::Others,
            ..scope
        };
        let folder = "/c/scope".into();
        assert_eq!(
            choose(&[others], MEMORY),
            Err(Some((Controller::Memory, Why::Busy { folder })))
        );
    }

    #[test]
    fn a_user_s_own_manager_gives_what_it_was_given() {
        let candidates = [
            candidate("/c/u/user@1/app/term", true, "memory pids", "", Processes::Others),
            candidate(
                "/c/u/user@1/app",
                true,
                "memory pids",
                "memory pids",
                Processes::None,
            ),
            candidate(
                "/c/u/user@1",
                true,
                "cpu memory pids",
                "memory pids",
                Processes::None,
            ),
            candidate(
                "/c/u",
                false,
                "cpu memory pids",
                "cpu memory pids",
                Processes::None,
            ),
        ];
        assert_eq!(
            choose(&candidates, MEMORY),
            Ok(("/c/u/user@1/app".into(), v2(false, &[])))
        );
        assert_eq!(
            choose(&candidates, &[Controller::Cpu]),
            Ok(("/c/u/user@1".into(), v2(false, &[Controller::Cpu])))
        );
        let refused = choose(&candidates, &[Controller::Memory, Controller::CpuSet]);
        assert_eq!(
            refused,
            Err(Some((
                Controller::CpuSet,
                Why::NotEnabled {
                    folder: "/c/u/user@1".into(),
                    has: words("cpu memory pids"),
                }
            )))
        );
    }

    #[test]
    fn an_ordinary_user_s_login_is_somebody_else_s() {
        let candidates = [
            candidate("/c/u/session", false, "memory pids", "", Processes::Others),
            candidate("/c/u", false, "memory pids", "memory pids", Processes::None),
        ];
        let (controller, why) = choose(&candidates, MEMORY).unwrap_err().unwrap();
        assert_eq!(controller, Controller::Memory);
        assert_eq!(why.to_string(), "mk may not make a cgroup in `/c/u/session`");
    }

    fn limits(memory: &str, pids: &str) -> Limits {
        Limits {
            memory: Some(memory.parse().unwrap()),
            pids: Some(pids.parse().unwrap()),
            ..Limits::default()
        }
    }

    fn hierarchy(controllers: &str, mount: &Path) -> Hierarchy {
        Hierarchy {
            controllers: words(controllers),
            mount: mount.into(),
            read_only: false,
            own: Some("a".into()),
        }
    }

    /// A folder with files like those of cgroups.
    fn files(list: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in list {
            let path = folder.path().join(name);
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            fs_err::write(path, text).unwrap();
        }
        folder
    }

    #[test]
    fn a_mixed_machine_gets_a_cgroup_in_each_hierarchy() {
        let memory = files(&[("a/x", "")]);
        let rest = files(&[
            ("cgroup.controllers", "pids cpu\n"),
            ("cgroup.subtree_control", "\n"),
            ("cgroup.procs", "1\n"),
            ("a/cgroup.type", "domain\n"),
            ("a/cgroup.controllers", ""),
            ("a/cgroup.subtree_control", ""),
            ("a/cgroup.procs", "1\n"),
        ]);
        let layout = Layout {
            v1: vec![hierarchy("memory", memory.path())],
            v2: Some(hierarchy("", rest.path())),
        };
        let plan = Plan::within(&layout, &limits("64m", "10")).unwrap();
        assert_eq!(
            plan.to_string(),
            format!(
                "cgroup {}/a/mk-* memory.limit_in_bytes=67108864 memory.memsw.limit_in_bytes=67108864\n\
                 cgroup {}/mk-* pids.max=11\n",
                memory.path().display(),
                rest.path().display()
            )
        );
        assert_eq!(plan.groups[1].version, v2(false, &[Controller::Pids]));
    }

    #[test]
    fn processors_that_mk_may_not_use_are_refused() {
        let folder = files(&[("a/cpuset.cpus", "0-1\n"), ("a/cpuset.mems", "0\n")]);
        let layout = Layout {
            v1: vec![hierarchy("cpuset", folder.path())],
            v2: None,
        };
        let asked = |text: &str| Limits {
            cpuset: Some(text.parse().unwrap()),
            ..Limits::default()
        };
        let plan = Plan::within(&layout, &asked("1")).unwrap();
        let writes: Vec<String> = plan.groups[0]
            .writes
            .iter()
            .map(|write| format!("{}={}", write.file, write.text))
            .collect();
        assert_eq!(writes, ["cpuset.mems=0", "cpuset.cpus=1"]);
        assert_eq!(
            Plan::within(&layout, &asked("0-3")).unwrap_err().to_string(),
            "cannot run on CPUs 0-3: mk itself may use 0-1"
        );
    }

    #[test]
    fn what_is_nowhere_or_read_only_is_refused_with_the_reason() {
        let refused = |layout: &Layout| {
            Plan::within(layout, &limits("64m", "10"))
                .unwrap_err()
                .to_string()
        };
        assert_eq!(
            refused(&Layout::default()),
            "cannot limit memory: no cgroup hierarchy that can do it is mounted"
        );
        let mut frozen = hierarchy("memory", Path::new("/m"));
        frozen.read_only = true;
        let lost = Hierarchy {
            own: None,
            ..frozen.clone()
        };
        for (one, text) in [
            (frozen, "cannot limit memory: `/m` is mounted read-only"),
            (lost, "cannot limit memory: mk's own cgroup is not below `/m`"),
        ] {
            let layout = Layout {
                v1: vec![one],
                v2: None,
            };
            assert_eq!(refused(&layout), text);
        }
    }

    #[test]
    fn no_cgroup_is_planned_where_nothing_is_limited() {
        assert_eq!(Plan::new(&Limits::default()).unwrap(), None);
        let own = Limits {
            ulimits: vec!["core=0".parse().unwrap()],
            oom_score: Some("5".parse().unwrap()),
            ..Limits::default()
        };
        assert_eq!(Plan::new(&own).unwrap(), None);
    }
}
