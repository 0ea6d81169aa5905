//! [`Facts`]: what was looked at, as plain data.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::attempt::Tried;
use super::cgroup::Cgroups;
use crate::net::user::Helper;
use crate::process::idmap::{self, Caller, IdMap};
use crate::sys::probe::{self, Filesystem, Resource};
use crate::sys::{Errno, SysError};

/// What the machine, the kernel and the user look like.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// What the kernel calls itself.
    pub release: String,
    /// Who calls.
    pub caller: Caller,
    /// What came of trying.
    pub tried: Tried,
    /// Settings below `/proc/sys`, by name; those that there are not are missing.
    pub settings: BTreeMap<&'static str, String>,
    /// Programs that map ids, and what is wrong with each.
    pub helpers: Vec<IdHelper>,
    /// A program that lends a container its caller's network.
    pub uplink: Option<PathBuf>,
    /// The folder of the store, or the nearest one above that is there.
    pub store: PathBuf,
    /// What that lies on; nothing where it cannot be looked at.
    pub filesystem: Option<Filesystem>,
    /// What can be limited.
    pub cgroups: Cgroups,
    /// What networks with a way out need; nothing for those who have none.
    pub network: Option<super::network::Facts>,
    /// The kind of container that mk runs in, as far as that tells.
    pub container: Option<&'static str>,
    /// Whether this process is in the machine's first user namespace.
    pub first_namespace: bool,
    /// Whether SELinux enforces its policy.
    pub selinux: bool,
    /// Whether AppArmor is at work.
    pub apparmor: bool,
    /// What `/proc` hides of other users' processes (proc(5), `hidepid`); empty where nothing.
    pub hidepid: String,
    /// The most files that a process may have open; `None`: no limit.
    pub most_files: Option<u64>,
    /// The most processes that the user may have; `None`: no limit.
    pub most_processes: Option<u64>,
}

/// `newuidmap` or `newgidmap`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdHelper {
    /// Where it is.
    pub path: PathBuf,
    /// Whether it may write maps for others: it is set-user-id root, or has a file capability.
    pub privileged: bool,
}

/// The settings that make a difference, below `/proc/sys`.
const SETTINGS: [&str; 9] = [
    "kernel/unprivileged_userns_clone",
    "kernel/apparmor_restrict_unprivileged_userns",
    "kernel/apparmor_restrict_unprivileged_unconfined",
    "kernel/yama/ptrace_scope",
    "user/max_user_namespaces",
    "user/max_mnt_namespaces",
    "user/max_pid_namespaces",
    "user/max_net_namespaces",
    "dev/tty/legacy_tiocsti",
];

impl Facts {
    /// Looks at everything, for a store at `store` and a caller who finds programs in the folders of `programs`, as
    /// `PATH` has them. This process must have one thread.
    pub fn look(store: &Path, programs: &OsStr) -> Result<Self, SysError> {
        let caller = Caller::look()?;
        let map = idmap::decide(&caller);
        let folder = nearest(store);
        let tried = Tried::look(&map, &folder)?;
        Ok(Self {
            release: probe::release(),
            tried,
            settings: settings(),
            helpers: helpers(&map, &caller),
            uplink: Helper::find(programs).map(|helper| helper.path),
            filesystem: probe::filesystem(&folder).ok(),
            store: folder,
            cgroups: Cgroups::look(),
            network: (map == IdMap::Native).then(super::network::Facts::look),
            container: container(),
            first_namespace: crate::sys::namespace::is_first_user_namespace()?,
            selinux: text("/sys/fs/selinux/enforce").trim() == "1",
            apparmor: text("/sys/module/apparmor/parameters/enabled").trim() == "Y",
            hidepid: hidepid(&text("/proc/self/mounts")),
            most_files: probe::limit(Resource::Files),
            most_processes: probe::limit(Resource::Processes),
            caller,
        })
    }

    /// Returns how ids are mapped here.
    pub fn map(&self) -> IdMap {
        idmap::decide(&self.caller)
    }

    /// Returns a setting without its line end.
    pub fn setting(&self, name: &str) -> Option<&str> {
        self.settings.get(name).map(|text| text.trim())
    }
}

fn text(path: impl AsRef<Path>) -> String {
    fs_err::read_to_string(path.as_ref()).unwrap_or_default()
}

/// The folder itself where it is there, else the nearest one above.
fn nearest(store: &Path) -> PathBuf {
    let found = store.ancestors().find(|path| path.is_dir());
    found.unwrap_or(Path::new("/")).to_owned()
}

fn settings() -> BTreeMap<&'static str, String> {
    let read = |name: &'static str| {
        Some((
            name,
            fs_err::read_to_string(Path::new("/proc/sys").join(name)).ok()?,
        ))
    };
    SETTINGS.into_iter().filter_map(read).collect()
}

fn helpers(map: &IdMap, caller: &Caller) -> Vec<IdHelper> {
    if *map == IdMap::Native {
        return Vec::new();
    }
    let both = caller.helpers.iter().flat_map(|(users, groups)| [users, groups]);
    both.map(|path| IdHelper {
        path: path.clone(),
        privileged: is_privileged(path),
    })
    .collect()
}

fn is_privileged(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let Ok(found) = fs_err::metadata(path) else {
        return false;
    };
    let set_user_id = found.uid() == 0 && found.permissions().mode() & 0o4000 != 0;
    let capability = |file: fs_err::File| {
        crate::sys::file::xattrs(file.file(), |name| name == b"security.capability")
            .is_ok_and(|found| !found.is_empty())
    };
    set_user_id || fs_err::File::open(path).is_ok_and(capability)
}

/// Files that container runtimes leave for whoever asks, and what is told by them.
fn container() -> Option<&'static str> {
    let marks = [
        ("/.dockerenv", "Docker"),
        ("/run/.containerenv", "Podman"),
        (
            "/run/systemd/container",
            "systemd-nspawn or another that systemd knows",
        ),
    ];
    let mark = marks.iter().find(|(path, _)| Path::new(path).exists());
    let process_1 = || {
        let name = text("/proc/1/comm");
        (name.trim() == "mk-init").then_some("mk")
    };
    mark.map(|(_, name)| *name).or_else(process_1)
}

/// Returns the `hidepid` of `/proc`, from the text of `/proc/self/mounts`.
fn hidepid(mounts: &str) -> String {
    let mut options = mounts.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split(' ').collect();
        (fields.get(1..3) == Some(&["/proc", "proc"])).then(|| fields.get(3).copied())?
    });
    let value = options.next_back().and_then(|options| {
        options
            .split(',')
            .find_map(|option| option.strip_prefix("hidepid="))
    });
    value
        .filter(|value| !matches!(*value, "0" | "off"))
        .unwrap_or_default()
        .to_owned()
}

impl Facts {
    /// Tells why a user namespace was refused with `errno`.
    pub(super) fn reason(&self, errno: Errno) -> idmap::Reason {
        idmap::reason(errno, |name| self.settings.get(name).cloned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_proc_hides_is_read_from_its_options() {
        assert_eq!(hidepid("proc /proc proc rw,nosuid,relatime 0 0\n"), "");
        assert_eq!(hidepid("proc /proc proc rw,hidepid=invisible 0 0\n"), "invisible");
        assert_eq!(
            hidepid("proc /proc proc rw,hidepid=0 0 0\nx /y proc hidepid=2 0 0\n"),
            ""
        );
    }

    #[test]
    fn a_store_that_is_not_there_yet_is_looked_at_from_above() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(nearest(&folder.path().join("a/b")), folder.path());
        assert_eq!(nearest(folder.path()), folder.path());
    }
}
