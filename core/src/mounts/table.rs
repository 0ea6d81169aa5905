//! Decides what a run mounts, in which order. Pure: what must be looked up first comes in as [`Facts`].

use std::path::PathBuf;

use super::{Mount, Table, What};
use crate::path::TreePath;
use crate::rootfs::{Rootfs, SCRATCH};
use crate::spec::volume::Source;
use crate::spec::{Extra, ImageMount, RunSpec, Tmpfs, Volume};
use crate::sys::mount::Attr;

/// What the machine and the caller bring along.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// Whether the caller is in a user namespace other than the machine's first.
    pub in_user_namespace: bool,
    /// Whether the group that owns terminals (5) exists in it.
    pub has_terminal_group: bool,
    /// Whether the run has its own three files of `/etc` in its scratch.
    pub own_conf: bool,
    /// Whether the container is in the network namespace that the caller is in.
    pub host_network: bool,
    /// For each volume and image of the run, in order: where it is, and whether that is a folder.
    pub sources: Vec<(PathBuf, bool)>,
    /// Whether the container's ids are none of the machine's, so that mounts have to map them.
    pub foreign_ids: bool,
}

/// The group that owns terminals, by a convention older than Linux distributions.
const TERMINAL_GROUP: u32 = 5;

/// What tells of, or reaches, the machine outside of the container, where a namespace does not hold it back.
/// The flag says whether it is a folder.
const HIDDEN: [(&str, bool); 12] = [
    ("proc/acpi", true),
    ("proc/asound", true),
    ("proc/kcore", false),
    ("proc/keys", false),
    ("proc/latency_stats", false),
    ("proc/sched_debug", false),
    ("proc/scsi", true),
    ("proc/timer_list", false),
    ("proc/timer_stats", false),
    ("proc/interrupts", false),
    ("sys/devices/virtual/powercap", true),
    ("sys/firmware", true),
];

/// What the kernel shows to root of the machine only: how memory is laid out, page by page and object by object. Whoever
/// is root of a user namespace cannot open it, so that there it need not be hidden.
const HIDDEN_FROM_ROOT: [(&str, bool); 6] = [
    ("proc/kpagecgroup", false),
    ("proc/kpagecount", false),
    ("proc/kpageflags", false),
    ("proc/slabinfo", false),
    ("proc/vmallocinfo", false),
    ("sys/kernel/slab", true),
];

/// What root of the machine could change it through; `pressure` lets anyone have the kernel watch for something.
const FROZEN: [&str; 6] = [
    "proc/bus",
    "proc/fs",
    "proc/irq",
    "proc/pressure",
    "proc/sys",
    "proc/sysrq-trigger",
];

/// Returns what a run of `rootfs` mounts.
pub fn table(rootfs: &Rootfs, spec: &RunSpec, facts: &Facts) -> Table {
    let conf = match facts.own_conf {
        true => PathBuf::from(SCRATCH).join("conf"),
        false => rootfs.conf.clone(),
    };
    let (proc, sys) = views(spec, facts);
    let mut mounts = vec![fixed("proc", What::Proc, NO_PROGRAMS), devices(spec, facts)];
    mounts.extend(memory(spec));
    mounts.extend(proc);
    // The last of mk's own: it shows the network of whoever mounts it, and that takes longest to make.
    mounts.push(system(spec, facts));
    mounts.extend(sys);
    mounts.extend(asked(spec, facts));
    Table {
        lowers: vec![conf, rootfs.tree.clone()],
        user_xattr: facts.in_user_namespace,
        read_only: spec.read_only,
        scratch: spec.scratch.clone(),
        mounts,
    }
}

const READ_ONLY: Attr = Attr {
    read_only: true,
    no_suid: false,
    no_dev: false,
    no_exec: false,
};
const DATA: Attr = Attr {
    read_only: false,
    no_suid: true,
    no_dev: true,
    no_exec: false,
};
const NO_PROGRAMS: Attr = Attr {
    no_exec: true,
    ..DATA
};

/// What of `/proc`, and what of `/sys`, is not to be seen or not to be changed.
fn views(spec: &RunSpec, facts: &Facts) -> (Vec<Mount>, Vec<Mount>) {
    if spec.privileges.open_views {
        return (Vec::new(), Vec::new());
    }
    let is_root = !facts.in_user_namespace && !facts.foreign_ids;
    let hidden = HIDDEN.iter().chain(HIDDEN_FROM_ROOT.iter().filter(|_| is_root));
    let hidden = hidden.map(|&(path, folder)| fixed(path, What::Hidden { folder }, Attr::default()));
    let frozen = FROZEN.iter().map(|path| fixed(path, What::Frozen, READ_ONLY));
    hidden
        .chain(frozen)
        .partition(|mount| mount.target.as_bytes().starts_with(b"proc/"))
}

fn devices(spec: &RunSpec, facts: &Facts) -> Mount {
    let attr = Attr {
        // The nodes in it are mounts of their own, so that this one may forbid nodes.
        no_dev: !spec.privileges.open_views,
        ..NO_PROGRAMS
    };
    let devices = What::Devices {
        terminal_group: facts.has_terminal_group.then_some(TERMINAL_GROUP),
        console: spec.streams.terminal.is_some(),
    };
    fixed("dev", devices, attr)
}

fn system(spec: &RunSpec, facts: &Facts) -> Mount {
    let attr = Attr {
        read_only: !spec.privileges.open_views,
        ..NO_PROGRAMS
    };
    match facts.host_network && facts.in_user_namespace {
        true => fixed("sys", What::HostSys, attr),
        false => fixed("sys", What::Sysfs, attr),
    }
}

/// `/tmp` and `/run`, unless something else was asked for at the same place.
fn memory(spec: &RunSpec) -> impl Iterator<Item = Mount> {
    [("tmp", 0o1777), ("run", 0o755)]
        .into_iter()
        .map(|(path, mode)| fixed(path, What::Tmpfs { size: None, mode }, DATA))
        .filter(|mount| !spec.mounts.iter().any(|extra| *extra.target() == mount.target))
}

fn asked(spec: &RunSpec, facts: &Facts) -> Vec<Mount> {
    let mut sources = facts.sources.iter();
    let mut next = || sources.next().cloned().unwrap_or_default();
    spec.mounts
        .iter()
        .map(|extra| match extra {
            Extra::Volume(volume) => volume_mount(volume, next(), facts.foreign_ids),
            Extra::Image(image) => image_mount(image, next(), facts.foreign_ids),
            Extra::Tmpfs(tmpfs) => tmpfs_mount(tmpfs),
        })
        .collect()
}

fn volume_mount(volume: &Volume, (source, folder): (PathBuf, bool), foreign_ids: bool) -> Mount {
    let options = volume.options;
    Mount {
        target: volume.target.clone(),
        what: What::Bind {
            source,
            folder,
            recursive: options.recursive,
            called: match &volume.source {
                Source::Path(_) => None,
                Source::Named { name, .. } => Some(format!("volume {name}")),
            },
        },
        attr: Attr {
            read_only: options.read_only,
            no_suid: !options.suid,
            no_dev: !options.dev,
            no_exec: !options.exec,
        },
        idmap: options.idmap.unwrap_or(foreign_ids),
    }
}

fn image_mount(image: &ImageMount, (source, folder): (PathBuf, bool), foreign_ids: bool) -> Mount {
    Mount {
        target: image.target.clone(),
        what: What::Bind {
            source,
            folder,
            recursive: false,
            called: Some(format!("image {}", crate::path::shown(image.image.as_bytes()))),
        },
        attr: Attr {
            read_only: true,
            no_exec: !image.exec,
            ..DATA
        },
        idmap: foreign_ids,
    }
}

fn tmpfs_mount(tmpfs: &Tmpfs) -> Mount {
    Mount {
        target: tmpfs.target.clone(),
        what: What::Tmpfs {
            size: tmpfs.size,
            mode: tmpfs.mode,
        },
        attr: Attr {
            no_exec: !tmpfs.exec,
            ..DATA
        },
        idmap: false,
    }
}

/// A mount at a place that is written in this file.
fn fixed(path: &str, what: What, attr: Attr) -> Mount {
    Mount {
        target: TreePath::parse(path).unwrap_or_else(|_| TreePath::root()),
        what,
        attr,
        idmap: false,
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;
    use crate::recipe::{Conf, RunDefaults};
    use crate::spec::{Asked, privileges};

    fn lines(asked: Asked, facts: Facts) -> Vec<String> {
        let spec = RunSpec::new(&RunDefaults::default(), &Conf::default(), asked).unwrap();
        let rootfs = Rootfs {
            store: "/store".into(),
            tree: "rootfs/aa".into(),
            conf: "conf/bb".into(),
            lease: None,
            others: Vec::new(),
            kept: None,
        };
        let text = table(&rootfs, &spec, &facts).to_string();
        text.lines().map(str::to_owned).collect()
    }

    fn volume(text: &str) -> Extra {
        Extra::Volume(Volume::parse(OsStr::new(text)).unwrap())
    }

    #[test]
    fn the_table_reads_as_it_is_made() {
        let facts = Facts {
            has_terminal_group: true,
            ..Facts::default()
        };
        let expected = "\
overlay conf/bb over rootfs/aa -> / (written to memory)
proc -> /proc (nosuid, nodev, noexec)
tmpfs -> /dev (nosuid, nodev, noexec, mode=0755)
bind /dev/full -> /dev/full
bind /dev/null -> /dev/null
bind /dev/random -> /dev/random
bind /dev/tty -> /dev/tty
bind /dev/urandom -> /dev/urandom
bind /dev/zero -> /dev/zero
link /proc/self/fd -> /dev/fd
link pts/ptmx -> /dev/ptmx
link /proc/self/fd/2 -> /dev/stderr
link /proc/self/fd/0 -> /dev/stdin
link /proc/self/fd/1 -> /dev/stdout
devpts -> /dev/pts (nosuid, noexec, mode=0620, ptmxmode=0666, gid=5)
tmpfs -> /dev/shm (nosuid, nodev, noexec, mode=1777)
mqueue -> /dev/mqueue (nosuid, nodev, noexec)
tmpfs -> /tmp (nosuid, nodev, mode=1777)
tmpfs -> /run (nosuid, nodev, mode=0755)";
        let lines = lines(Asked::default(), facts);
        assert_eq!(lines[..19].join("\n"), expected);
        // Behind it comes only what is hidden of it: the child need not have its network before.
        let sys = "sysfs -> /sys (ro, nosuid, nodev, noexec)";
        let behind = lines.iter().skip_while(|line| *line != sys).skip(1);
        assert!(behind.clone().count() > 0);
        assert!(behind.clone().all(|line| line.starts_with("hide /sys/")));
        assert!(lines.contains(&"hide /proc/kcore".to_owned()));
        assert!(lines.contains(&"freeze /proc/sys".to_owned()));
        let hidden = HIDDEN.len() + HIDDEN_FROM_ROOT.len();
        assert_eq!(lines.len(), 20 + hidden + FROZEN.len());
    }

    #[test]
    fn nothing_is_hidden_or_read_only_where_all_privileges_were_asked_for() {
        let asked = |privileged| Asked {
            privileges: privileges::Asked {
                privileged,
                ..privileges::Asked::default()
            },
            ..Asked::default()
        };
        let all = lines(asked(true), Facts::default());
        assert_eq!(all.len(), 20);
        assert!(all.contains(&"sysfs -> /sys (nosuid, nodev, noexec)".to_owned()));
        assert!(all.contains(&"tmpfs -> /dev (nosuid, noexec, mode=0755)".to_owned()));
        // What only root of the machine could open is hidden from no one else.
        let user = Facts {
            in_user_namespace: true,
            ..Facts::default()
        };
        let usual = lines(asked(false), user);
        assert!(!usual.contains(&"hide /proc/kpageflags".to_owned()));
        assert_eq!(usual.len(), 20 + HIDDEN.len() + FROZEN.len());
    }

    #[test]
    fn what_was_asked_for_comes_last() {
        let asked = Asked {
            mounts: vec![
                volume("/a:/mnt:ro"),
                volume("./f:/etc/f:bind,noexec,dev"),
                volume("cache:/var/cache"),
                Extra::parse(OsStr::new("type=image,source=alpine,target=/alpine")).unwrap(),
                Extra::parse(OsStr::new("type=tmpfs,target=/t,noexec,tmpfs-size=4k")).unwrap(),
            ],
            ..Asked::default()
        };
        let facts = Facts {
            sources: vec![
                // What lies above comes first.
                ("/a".into(), true),
                ("rootfs/cc".into(), true),
                ("/here/f".into(), false),
                ("volumes/cache/data".into(), true),
            ],
            ..Facts::default()
        };
        let mapped = Facts {
            foreign_ids: true,
            ..facts.clone()
        };
        let own = lines(asked.clone(), facts);
        assert_eq!(
            own[own.len() - 5..],
            [
                "bind /a -> /mnt (ro, nosuid, nodev)",
                "image alpine -> /alpine (ro, nosuid, nodev, not recursive)",
                "tmpfs -> /t (nosuid, nodev, noexec, size=4096, mode=1777)",
                "bind /here/f -> /etc/f (nosuid, noexec, not recursive)",
                "volume cache -> /var/cache (nosuid, nodev)",
            ]
        );
        let mapped = lines(asked, mapped);
        assert_eq!(
            mapped[mapped.len() - 1],
            "volume cache -> /var/cache (nosuid, nodev, idmap)"
        );
    }

    #[test]
    fn a_mount_at_tmp_replaces_the_usual_one() {
        let asked = Asked {
            mounts: vec![Extra::Tmpfs(
                Tmpfs::parse(OsStr::new("/tmp:size=1m,mode=0700")).unwrap(),
            )],
            ..Asked::default()
        };
        let lines = lines(asked, Facts::default());
        let tmp: Vec<_> = lines.iter().filter(|line| line.contains("-> /tmp")).collect();
        assert_eq!(tmp, ["tmpfs -> /tmp (nosuid, nodev, size=1048576, mode=0700)"]);
    }

    #[test]
    fn a_user_namespace_on_the_host_network_sees_the_host_s_sys() {
        let host = |in_user_namespace| {
            let facts = Facts {
                in_user_namespace,
                host_network: true,
                ..Facts::default()
            };
            let lines = lines(Asked::default(), facts);
            lines.into_iter().find(|line| line.contains("-> /sys ")).unwrap()
        };
        assert_eq!(host(true), "bind /sys -> /sys (ro, nosuid, nodev, noexec)");
        assert_eq!(host(false), "sysfs -> /sys (ro, nosuid, nodev, noexec)");
    }

    #[test]
    fn names_of_this_file_are_paths() {
        let hidden = HIDDEN.iter().chain(&HIDDEN_FROM_ROOT);
        let names = hidden.map(|(path, _)| *path).chain(FROZEN);
        for name in names.chain(["proc", "sys", "dev", "tmp", "run"]) {
            assert!(TreePath::parse(name).is_ok(), "{name}");
        }
    }

    #[test]
    fn files_of_the_run_s_own_take_the_place_of_the_store_s() {
        let facts = Facts {
            own_conf: true,
            ..Facts::default()
        };
        assert!(lines(Asked::default(), facts)[0].starts_with("overlay scratch/conf over rootfs/aa"));
    }
}
