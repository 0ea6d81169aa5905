//! Which cgroup controllers this process may use, and where (cgroups(7)). Pure: the texts and a look at folders come in.

use std::path::{Path, PathBuf};

/// The controllers that limits need.
pub const CONTROLLERS: [&str; 4] = ["memory", "cpu", "pids", "cpuset"];

/// How the machine's cgroups are arranged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Kind {
    /// None is mounted.
    #[default]
    None,
    /// One tree for each controller.
    V1,
    /// Trees of version 1 beside one of version 2 that has some of the controllers, or none.
    Hybrid,
    /// One tree for all.
    V2,
}

/// What a process may do with cgroups.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cgroups {
    /// How they are arranged.
    pub kind: Kind,
    /// Those of [`CONTROLLERS`] that this process may limit its children with.
    pub usable: Vec<&'static str>,
    /// Those that the kernel has, and others may use.
    pub others: Vec<&'static str>,
    /// Whether `cgroup.kill` is there (Linux 5.14); `None` where that cannot be seen: the root of a tree has none.
    pub kill: Option<bool>,
}

/// A tree that is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Tree {
    at: PathBuf,
    /// Names of controllers of version 1; `None`: it is the tree of version 2.
    controllers: Option<Vec<String>>,
}

/// What is to be seen of a folder of cgroups.
pub trait Look {
    /// Whether this process may make cgroups in `folder` and move itself into them.
    fn may_use(&self, folder: &Path) -> bool;
    /// Returns the text of a file.
    fn text(&self, path: &Path) -> Option<String>;
}

/// Tells what can be used from `/proc/self/mountinfo`, `/proc/self/cgroup` and what `look` sees.
pub fn usable(mountinfo: &str, own: &str, look: &impl Look) -> Cgroups {
    let trees: Vec<Tree> = mountinfo.lines().filter_map(tree).collect();
    let (old, new): (Vec<&Tree>, Vec<&Tree>) = trees.iter().partition(|tree| tree.controllers.is_some());
    let kind = match (old.is_empty(), new.is_empty()) {
        (true, true) => return Cgroups::default(),
        (true, false) => Kind::V2,
        (false, true) => Kind::V1,
        (false, false) => Kind::Hybrid,
    };
    let mut found = Cgroups {
        kind,
        ..Cgroups::default()
    };
    for name in CONTROLLERS {
        let places = trees.iter().filter_map(|tree| tree.place(name, own, look));
        match places.map(|place| look.may_use(&place)).max() {
            Some(true) => found.usable.push(name),
            Some(false) => found.others.push(name),
            None => {}
        }
    }
    let place = new.first().map(|tree| (own_path(own, None), &tree.at));
    found.kill = place
        .filter(|(path, _)| *path != "/")
        .map(|(path, at)| look.text(&below(at, path).join("cgroup.kill")).is_some());
    found
}

impl Tree {
    /// Returns where this process is in the tree that has the controller `name`.
    fn place(&self, name: &str, own: &str, look: &impl Look) -> Option<PathBuf> {
        match &self.controllers {
            Some(controllers) if controllers.iter().any(|controller| controller == name) => {
                Some(below(&self.at, own_path(own, Some(name))))
            }
            Some(_) => None,
            None => {
                let place = below(&self.at, own_path(own, None));
                let has = look.text(&place.join("cgroup.controllers"))?;
                has.split_ascii_whitespace()
                    .any(|controller| controller == name)
                    .then_some(place)
            }
        }
    }
}

fn below(at: &Path, path: &str) -> PathBuf {
    at.join(path.trim_start_matches('/'))
}

/// Reads a line of `/proc/self/mountinfo` (proc(5)): `36 35 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory`.
fn tree(line: &str) -> Option<Tree> {
    let (before, after) = line.split_once(" - ")?;
    let at = PathBuf::from(before.split(' ').nth(4)?);
    let mut fields = after.split(' ');
    let controllers = match fields.next()? {
        "cgroup2" => None,
        "cgroup" => Some(fields.nth(1)?.split(',').map(str::to_owned).collect()),
        _ => return None,
    };
    Some(Tree { at, controllers })
}

/// Returns the path behind `4:memory:/user` or, without a controller, behind `0::/user`.
fn own_path<'a>(own: &'a str, controller: Option<&str>) -> &'a str {
    let path = own.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (_, names, path) = (fields.next()?, fields.next()?, fields.next()?);
        let is = match controller {
            Some(name) => names.split(',').any(|other| other == name),
            None => names.is_empty(),
        };
        is.then_some(path)
    });
    path.unwrap_or("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine where these folders can be used and these files are there.
    struct Machine(&'static [&'static str], &'static [(&'static str, &'static str)]);

    impl Look for Machine {
        fn may_use(&self, folder: &Path) -> bool {
            self.0.iter().any(|path| Path::new(path) == folder)
        }
        fn text(&self, path: &Path) -> Option<String> {
            let found = self.1.iter().find(|(name, _)| Path::new(name) == path);
            found.map(|(_, text)| (*text).to_owned())
        }
    }

    #[test]
    fn one_tree_for_all_tells_what_was_delegated() {
        let mounts = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
        let own = "0::/user.slice/app\n";
        let files: &[_] = &[
            (
                "/sys/fs/cgroup/user.slice/app/cgroup.controllers",
                "memory pids\n",
            ),
            ("/sys/fs/cgroup/user.slice/app/cgroup.kill", ""),
        ];
        let found = usable(mounts, own, &Machine(&["/sys/fs/cgroup/user.slice/app"], files));
        assert_eq!((found.kind, found.kill), (Kind::V2, Some(true)));
        assert_eq!(found.usable, ["memory", "pids"]);
        let found = usable(mounts, own, &Machine(&[], files));
        assert_eq!((found.usable.len(), found.others), (0, vec!["memory", "pids"]));
    }

    #[test]
    fn with_a_tree_for_each_controller_each_has_its_own_place() {
        let mounts = "1 2 0:3 / /c/memory rw - cgroup cgroup rw,memory\n\
                      4 2 0:5 / /c/cpu rw - cgroup cgroup rw,cpu,cpuacct\n\
                      6 2 0:7 / /c/unified rw - cgroup2 cgroup2 rw\n";
        let own = "9:cpu,cpuacct:/a\n8:memory:/b\n0::/c\n";
        let machine = Machine(&["/c/memory/b"], &[("/c/unified/c/cgroup.controllers", "\n")]);
        let found = usable(mounts, own, &machine);
        assert_eq!(
            (found.kind, found.usable, found.others),
            (Kind::Hybrid, vec!["memory"], vec!["cpu"])
        );
        assert_eq!(usable("", "", &machine), Cgroups::default());
    }
}
