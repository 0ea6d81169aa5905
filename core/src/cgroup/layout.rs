//! [`Layout`]: which cgroup hierarchies there are, where they are mounted and where in each this process is. Pure:
//! texts of proc(5) in.

use std::path::{Path, PathBuf};

use super::Controller;

/// The hierarchies that this process can see.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Layout {
    /// Those of version 1, each with controllers of its own.
    pub v1: Vec<Hierarchy>,
    /// The unified one of version 2; in a hybrid layout it has few controllers or none.
    pub v2: Option<Hierarchy>,
}

/// One tree of cgroups (cgroups(7)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    /// What a version 1 hierarchy controls, such as `cpu` and `cpuacct`; version 2 says so in its files.
    pub controllers: Vec<String>,
    /// Where it is mounted.
    pub mount: PathBuf,
    /// Whether that mount is read-only.
    pub read_only: bool,
    /// The cgroup that this process is in, below `mount`; `None` where the mount does not show it.
    pub own: Option<PathBuf>,
}

/// How the two versions share the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Kind {
    /// Version 2 alone.
    Unified,
    /// Both are mounted; a controller is in one of them.
    Hybrid,
    /// Version 1 alone.
    Legacy,
    /// None is mounted.
    #[default]
    Nothing,
}

impl Layout {
    /// Reads `/proc/self/cgroup` and `/proc/self/mountinfo` (cgroups(7), proc_pid_mountinfo(5)).
    pub fn read(cgroup: &str, mountinfo: &str) -> Self {
        let mounts: Vec<Mount> = mountinfo.lines().filter_map(Mount::read).collect();
        let mut layout = Self::default();
        for (controllers, path) in cgroup.lines().filter_map(membership) {
            let of_this = |mount: &&Mount| mount.is_of(&controllers);
            let Some(found) = best(mounts.iter().filter(of_this), path) else {
                continue;
            };
            match controllers.is_empty() {
                true => layout.v2 = Some(found),
                false => layout.v1.push(Hierarchy { controllers, ..found }),
            }
        }
        layout
    }

    /// Returns how the two versions share the machine.
    pub fn kind(&self) -> Kind {
        match (&self.v2, self.v1.is_empty()) {
            (Some(_), true) => Kind::Unified,
            (Some(_), false) => Kind::Hybrid,
            (None, false) => Kind::Legacy,
            (None, true) => Kind::Nothing,
        }
    }

    /// Returns the version 1 hierarchy with `controller`.
    pub fn v1_with(&self, controller: Controller) -> Option<&Hierarchy> {
        self.v1
            .iter()
            .find(|one| one.controllers.iter().any(|name| name == controller.name()))
    }
}

impl Hierarchy {
    /// Returns the folder of this process's own cgroup and those above it, the nearest first.
    pub fn own_and_above(&self) -> impl Iterator<Item = PathBuf> {
        let own = self.own.as_deref();
        own.into_iter()
            .flat_map(Path::ancestors)
            .map(|below| match below.as_os_str().is_empty() {
                true => self.mount.clone(),
                false => self.mount.join(below),
            })
    }
}

/// Splits a line of `/proc/self/cgroup`: controllers (none for version 2) and path. Hierarchies that only have a name
/// control nothing.
fn membership(line: &str) -> Option<(Vec<String>, &str)> {
    let mut fields = line.splitn(3, ':');
    let (id, names, path) = (fields.next()?, fields.next()?, fields.next()?);
    let controllers: Vec<String> = names
        .split(',')
        .filter(|name| !name.is_empty() && !name.starts_with("name="))
        .map(str::to_owned)
        .collect();
    (id == "0" || !controllers.is_empty()).then_some((controllers, path))
}

/// A mount of a hierarchy.
struct Mount {
    /// The cgroup that it shows at its top, as this process's cgroup namespace names it.
    root: String,
    point: PathBuf,
    read_only: bool,
    /// Empty for version 2.
    controllers: Vec<String>,
}

impl Mount {
    fn read(line: &str) -> Option<Self> {
        let (front, back) = line.split_once(" - ")?;
        let mut front = front.split(' ').skip(3);
        let (root, point, options) = (front.next()?, front.next()?, front.next()?);
        let mut back = back.splitn(3, ' ');
        let (kind, _, of_all) = (back.next()?, back.next()?, back.next()?);
        let controllers = match kind {
            "cgroup2" => Vec::new(),
            // Beside the controllers stand `rw`, `xattr` and the like, which are the names of none.
            "cgroup" => of_all.split(',').map(str::to_owned).collect(),
            _ => return None,
        };
        let read_only = |options: &str| options.split(',').any(|option| option == "ro");
        Some(Self {
            root: unescaped(root),
            point: unescaped(point).into(),
            read_only: read_only(options) || read_only(of_all),
            controllers,
        })
    }

    fn is_of(&self, controllers: &[String]) -> bool {
        match controllers.is_empty() {
            true => self.controllers.is_empty(),
            false => controllers.iter().all(|name| self.controllers.contains(name)),
        }
    }

    /// Returns where in this mount the cgroup `path` is.
    fn below(&self, path: &str) -> Option<PathBuf> {
        // Both are seen from the cgroup namespace; what lies outside of it begins so, and nothing tells where it is.
        let outside = |path: &str| path == "/.." || path.starts_with("/../");
        if outside(path) || outside(&self.root) || path.ends_with(" (deleted)") {
            return None;
        }
        let below = Path::new(path).strip_prefix(&self.root).ok()?;
        Some(below.to_owned())
    }
}

/// Returns the hierarchy as the mount shows it that helps most: one with our cgroup in it, and writable.
fn best<'a>(mounts: impl Iterator<Item = &'a Mount>, path: &str) -> Option<Hierarchy> {
    mounts
        .map(|mount| Hierarchy {
            controllers: Vec::new(),
            mount: mount.point.clone(),
            read_only: mount.read_only,
            own: mount.below(path),
        })
        // The first of equals: `min_by_key` keeps it.
        .min_by_key(|found| (found.own.is_none(), found.read_only))
}

/// Undoes what the kernel does to blanks, tabs, line ends and backslashes in a mount's paths: `\040` is a blank.
fn unescaped(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let code = (first == b'\\')
            .then(|| after.get(..3))
            .flatten()
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(byte) => (bytes.push(byte), rest = &after[3..]),
            None => (bytes.push(first), rest = after),
        };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A login on a systemd machine with version 2 alone.
    const SYSTEMD: (&str, &str) = (
        "0::/user.slice/user-1000.slice/session-3.scope\n",
        "23 29 0:21 / /sys rw,nosuid,nodev,noexec,relatime shared:7 - sysfs sysfs rw\n\
         34 23 0:29 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n",
    );

    /// A systemd machine in hybrid mode: version 2 for systemd's own book-keeping.
    const HYBRID: (&str, &str) = (
        "12:pids:/user.slice/user-1000.slice/session-3.scope\n\
         11:cpu,cpuacct:/user.slice\n\
         10:memory:/user.slice/user-1000.slice/session-3.scope\n\
         9:cpuset:/\n\
         1:name=systemd:/user.slice/user-1000.slice/session-3.scope\n\
         0::/user.slice/user-1000.slice/session-3.scope\n",
        "31 23 0:27 / /sys/fs/cgroup ro,nosuid,nodev,noexec shared:9 - tmpfs tmpfs ro,mode=755\n\
         32 31 0:28 / /sys/fs/cgroup/unified rw,nosuid,nodev,noexec,relatime shared:10 - cgroup2 cgroup2 rw,nsdelegate\n\
         33 31 0:29 / /sys/fs/cgroup/systemd rw,nosuid,nodev,noexec,relatime shared:11 - cgroup cgroup rw,xattr,name=systemd\n\
         36 31 0:32 / /sys/fs/cgroup/pids rw,nosuid,nodev,noexec,relatime shared:15 - cgroup cgroup rw,pids\n\
         37 31 0:33 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid,nodev,noexec,relatime shared:16 - cgroup cgroup rw,cpu,cpuacct\n\
         38 31 0:34 / /sys/fs/cgroup/memory rw,nosuid,nodev,noexec,relatime shared:17 - cgroup cgroup rw,memory\n\
         39 31 0:35 / /sys/fs/cgroup/cpuset rw,nosuid,nodev,noexec,relatime shared:18 - cgroup cgroup rw,cpuset\n",
    );

    /// A small virtual machine without systemd, where an agent has put its children into a cgroup for memory.
    const AGENT: (&str, &str) = (
        "4:memory:/process_api/ab4aa0262ce8c83e432adbe3e4cc9193\n3:cpuset:/\n1:cpu:/\n0::/\n",
        "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
         32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n\
         34 31 0:31 / /sys/fs/cgroup/cpuset rw,relatime - cgroup cgroup rw,cpuset\n\
         35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
         41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n",
    );

    /// A container on a version 1 machine that shares the host's cgroup namespace: its mounts begin at its own cgroup.
    const CONTAINER_V1: (&str, &str) = (
        "5:memory:/docker/4f1c\n4:cpu,cpuacct:/docker/4f1c\n",
        "700 690 0:29 /docker/4f1c /sys/fs/cgroup/memory ro,nosuid,nodev,noexec,relatime master:17 - cgroup cgroup rw,memory\n\
         701 690 0:30 /docker/4f1c /sys/fs/cgroup/cpu,cpuacct ro,nosuid,nodev,noexec,relatime master:16 - cgroup cgroup rw,cpu,cpuacct\n",
    );

    /// A container on a version 2 machine, in a cgroup namespace of its own.
    const CONTAINER_V2: (&str, &str) = (
        "0::/\n",
        "1401 1390 0:26 / /sys/fs/cgroup ro,nosuid,nodev,noexec,relatime - cgroup2 cgroup rw,nsdelegate\n",
    );

    fn read((cgroup, mountinfo): (&str, &str)) -> Layout {
        Layout::read(cgroup, mountinfo)
    }

    fn own(hierarchy: Option<&Hierarchy>) -> Option<&str> {
        hierarchy?.own.as_deref()?.to_str()
    }

    #[test]
    fn version_2_alone_is_unified() {
        let layout = read(SYSTEMD);
        assert_eq!(layout.kind(), Kind::Unified);
        let v2 = layout.v2.as_ref().unwrap();
        assert_eq!(own(Some(v2)), Some("user.slice/user-1000.slice/session-3.scope"));
        let folders: Vec<PathBuf> = v2.own_and_above().collect();
        assert_eq!(
            folders,
            [
                "/sys/fs/cgroup/user.slice/user-1000.slice/session-3.scope",
                "/sys/fs/cgroup/user.slice/user-1000.slice",
                "/sys/fs/cgroup/user.slice",
                "/sys/fs/cgroup",
            ]
            .map(PathBuf::from)
        );
        assert_eq!(layout.v1_with(Controller::Memory), None);
    }

    #[test]
    fn each_controller_is_where_its_hierarchy_is() {
        let layout = read(HYBRID);
        assert_eq!(layout.kind(), Kind::Hybrid);
        let cpu = layout.v1_with(Controller::Cpu);
        assert_eq!(cpu.unwrap().mount, Path::new("/sys/fs/cgroup/cpu,cpuacct"));
        assert_eq!(own(cpu), Some("user.slice"));
        assert_eq!(own(layout.v1_with(Controller::CpuSet)), Some(""));
        assert_eq!(
            own(layout.v1_with(Controller::Pids)),
            Some("user.slice/user-1000.slice/session-3.scope")
        );
        assert_eq!(
            layout.v1.len(),
            4,
            "a hierarchy with only a name controls nothing"
        );
        let agent = read(AGENT);
        assert_eq!(agent.kind(), Kind::Hybrid);
        assert_eq!(
            own(agent.v1_with(Controller::Memory)),
            Some("process_api/ab4aa0262ce8c83e432adbe3e4cc9193")
        );
        assert_eq!(agent.v1_with(Controller::Pids), None);
        assert_eq!(
            agent.v1_with(Controller::CpuSet).unwrap().own_and_above().count(),
            1
        );
    }

    #[test]
    fn a_container_finds_itself_at_the_top_of_its_mounts() {
        let v1 = read(CONTAINER_V1);
        assert_eq!(v1.kind(), Kind::Legacy);
        let memory = v1.v1_with(Controller::Memory);
        assert_eq!((own(memory), memory.unwrap().read_only), (Some(""), true));
        let v2 = read(CONTAINER_V2);
        assert_eq!(
            (own(v2.v2.as_ref()), v2.v2.as_ref().unwrap().read_only),
            (Some(""), true)
        );
    }

    #[test]
    fn what_lies_outside_of_the_mount_or_the_namespace_is_nowhere() {
        let mounted = CONTAINER_V2.1;
        for path in ["0::/../session-3.scope\n", "0::/..\n", "0::/gone (deleted)\n"] {
            assert_eq!(own(Layout::read(path, mounted).v2.as_ref()), None, "{path}");
        }
        let above = mounted.replace("0:26 / /sys", "0:26 /../../.. /sys");
        assert_eq!(own(Layout::read("0::/\n", &above).v2.as_ref()), None);
        let sibling = mounted.replace("0:26 / /sys", "0:26 /other /sys");
        assert_eq!(own(Layout::read("0::/mine\n", &sibling).v2.as_ref()), None);
        assert_eq!(Layout::read("0::/\n", "").kind(), Kind::Nothing);
        assert_eq!(Layout::read("", mounted).kind(), Kind::Nothing);
    }

    #[test]
    fn of_several_mounts_the_one_that_helps_most_counts() {
        let more = format!(
            "{}1402 1390 0:26 / /mnt/my\\040cgroups rw - cgroup2 none rw\n",
            CONTAINER_V2.1
        );
        let layout = Layout::read(CONTAINER_V2.0, &more);
        assert_eq!(layout.v2.unwrap().mount, Path::new("/mnt/my cgroups"));
    }

    #[test]
    fn names_with_colons_and_strange_lines_do_no_harm() {
        let layout = Layout::read("0::/a:b:c\nnonsense\n:\n7:x\n", SYSTEMD.1);
        assert_eq!(own(layout.v2.as_ref()), Some("a:b:c"));
        assert_eq!(unescaped("a\\040b\\134c\\"), "a b\\c\\");
        assert_eq!(unescaped("\\0é"), "\\0é");
    }
}
