//! What must be in place before the program starts: decided as a [`Table`], carried out by `apply` in the child.

use std::fmt;
use std::path::PathBuf;

use crate::path::{TreePath, shown};
use crate::spec::ScratchKind;
use crate::sys::mount::Attr;

/// Carries the prepared list out.
pub mod apply;
/// Mounts with the ids of their files mapped.
pub mod mapped;
/// Decides the list.
pub mod table;

/// Everything a run mounts, in the order in which it is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// The layers of the root, the topmost first, below the writable one; relative to the store.
    pub lowers: Vec<PathBuf>,
    /// Whether overlayfs keeps its notes where a user namespace may write them (`userxattr`).
    pub user_xattr: bool,
    /// Whether the root is made read-only when all else is in place.
    pub read_only: bool,
    /// Where writes to the root go.
    pub scratch: ScratchKind,
    /// What is put into the root.
    pub mounts: Vec<Mount>,
}

/// One thing to put in place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Where in the image.
    pub target: TreePath,
    /// What.
    pub what: What,
    /// What it allows.
    pub attr: Attr,
    /// Whether the files of root of the machine are those of the container's root in it.
    pub idmap: bool,
}

/// A kind of mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// The processes of the container.
    Proc,
    /// The devices and the network of the machine, as the container's network namespace sees them.
    Sysfs,
    /// The host's `/sys` with all below it: a user namespace may not mount one for a network that is not its own.
    HostSys,
    /// The device nodes that a program needs, with the host's behind them, and terminals of the container's own.
    Devices {
        /// The group that owns terminals, where the user namespace has it.
        terminal_group: Option<u32>,
        /// Whether one of the terminals is the run's own, which is `/dev/console` too.
        console: bool,
    },
    /// An empty folder in memory.
    Tmpfs {
        /// Limit in bytes; `None`: half of the machine's memory.
        size: Option<u64>,
        /// Permission bits.
        mode: u16,
    },
    /// A file or folder of the host.
    Bind {
        /// Which one: absolute, or relative to the store.
        source: PathBuf,
        /// Whether it is a folder.
        folder: bool,
        /// Whether all that is mounted below it comes along.
        recursive: bool,
        /// What it is called where that is not its path: `volume cache`, `image alpine`.
        called: Option<String>,
    },
    /// Nothing, in place of what is there; passed over where there is nothing.
    Hidden {
        /// Whether it hides a folder.
        folder: bool,
    },
    /// What is there, read-only; passed over where there is nothing.
    Frozen,
}

/// The device nodes of `/dev`.
pub const NODES: [&str; 6] = ["full", "null", "random", "tty", "urandom", "zero"];
/// The symbolic links of `/dev`, with their targets.
pub const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("ptmx", "pts/ptmx"),
    ("stderr", "/proc/self/fd/2"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
];

impl Table {
    /// Returns the first mount, by index, that shows the network of whoever makes it; the number of all where none does.
    pub fn shows_network(&self) -> usize {
        let shows = |mount: &Mount| mount.what == What::Sysfs;
        self.mounts.iter().position(shows).unwrap_or(self.mounts.len())
    }
}

/// One line for the root, then those of each mount.
impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lowers: Vec<String> = self
            .lowers
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        let lowers = lowers.join(" over ");
        match self.read_only {
            true => writeln!(f, "overlay {lowers} -> / (ro)")?,
            false => writeln!(f, "overlay {lowers} -> / ({})", self.scratch)?,
        }
        self.mounts.iter().try_for_each(|mount| writeln!(f, "{mount}"))
    }
}

/// As it is made, such as `bind /a -> /mnt (ro, nosuid, nodev)`; `/dev` takes several lines.
impl fmt::Display for Mount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use std::os::unix::ffi::OsStrExt;
        let Self {
            target,
            what,
            attr,
            idmap,
        } = self;
        let mut notes: Vec<String> = attr_names(*attr).map(str::to_owned).collect();
        let first = match what {
            What::Proc => "proc".to_owned(),
            What::Sysfs => "sysfs".to_owned(),
            What::HostSys => "bind /sys".to_owned(),
            What::Devices { .. } => {
                notes.push("mode=0755".into());
                "tmpfs".to_owned()
            }
            What::Tmpfs { size, mode } => {
                notes.extend(size.map(|size| format!("size={size}")));
                notes.push(format!("mode={mode:04o}"));
                "tmpfs".to_owned()
            }
            What::Bind {
                source,
                recursive,
                called,
                ..
            } => {
                notes.extend((!recursive).then(|| "not recursive".into()));
                notes.extend(idmap.then(|| "idmap".into()));
                let path = || format!("bind {}", shown(source.as_os_str().as_bytes()));
                called.clone().unwrap_or_else(path)
            }
            What::Hidden { .. } => return write!(f, "hide {target}"),
            What::Frozen => return write!(f, "freeze {target}"),
        };
        write!(f, "{first} -> {target}")?;
        if !notes.is_empty() {
            write!(f, " ({})", notes.join(", "))?;
        }
        match what {
            What::Devices {
                terminal_group,
                console,
            } => write_devices(f, *terminal_group, *console),
            _ => Ok(()),
        }
    }
}

fn write_devices(f: &mut fmt::Formatter<'_>, terminal_group: Option<u32>, console: bool) -> fmt::Result {
    for node in NODES {
        write!(f, "\nbind /dev/{node} -> /dev/{node}")?;
    }
    for (link, target) in LINKS {
        write!(f, "\nlink {target} -> /dev/{link}")?;
    }
    let group = terminal_group.map_or(String::new(), |gid| format!(", gid={gid}"));
    write!(
        f,
        "\ndevpts -> /dev/pts (nosuid, noexec, mode=0620, ptmxmode=0666{group})"
    )?;
    if console {
        write!(f, "\nbind /dev/pts/0 -> /dev/console")?;
    }
    write!(f, "\ntmpfs -> /dev/shm (nosuid, nodev, noexec, mode=1777)")?;
    write!(f, "\nmqueue -> /dev/mqueue (nosuid, nodev, noexec)")
}

fn attr_names(attr: Attr) -> impl Iterator<Item = &'static str> {
    [
        (attr.read_only, "ro"),
        (attr.no_suid, "nosuid"),
        (attr.no_dev, "nodev"),
        (attr.no_exec, "noexec"),
    ]
    .into_iter()
    .filter_map(|(set, name)| set.then_some(name))
}
