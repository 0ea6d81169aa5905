//! What measurements need of the machine: the programs of others, a compiler, an `mk`, a mount namespace.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde::{Deserialize, Serialize};

use crate::Error;

/// A program of somebody else's, and the Debian package that has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Peer {
    /// As it is called.
    pub(crate) program: &'static str,
    /// Where it comes from.
    pub(crate) package: &'static str,
}

/// Namespaces for one program.
pub(crate) const BWRAP: Peer = Peer {
    program: "bwrap",
    package: "bubblewrap",
};
/// An OCI runtime in C.
pub(crate) const CRUN: Peer = Peer {
    program: "crun",
    package: "crun",
};
/// The OCI runtime that others are measured by, in Go.
pub(crate) const RUNC: Peer = Peer {
    program: "runc",
    package: "runc",
};
/// systemd's containers.
pub(crate) const NSPAWN: Peer = Peer {
    program: "systemd-nspawn",
    package: "systemd-container",
};
/// The namespaces alone.
pub(crate) const UNSHARE: Peer = Peer {
    program: "unshare",
    package: "util-linux",
};
/// A program in the namespaces of another.
pub(crate) const NSENTER: Peer = Peer {
    program: "nsenter",
    package: "util-linux",
};
/// libarchive's tar.
pub(crate) const BSDTAR: Peer = Peer {
    program: "bsdtar",
    package: "libarchive-tools",
};
/// GNU tar.
pub(crate) const TAR: Peer = Peer {
    program: "tar",
    package: "tar",
};
/// What archives are packed with.
pub(crate) const GZIP: Peer = Peer {
    program: "gzip",
    package: "gzip",
};
/// The same, smaller.
pub(crate) const XZ: Peer = Peer {
    program: "xz",
    package: "xz-utils",
};
/// The same, faster.
pub(crate) const ZSTD: Peer = Peer {
    program: "zstd",
    package: "zstd",
};
/// OCI images as folders.
pub(crate) const UMOCI: Peer = Peer {
    program: "umoci",
    package: "umoci",
};
/// A root filesystem from Debian's packages, made by apt and dpkg.
pub(crate) const MMDEBSTRAP: Peer = Peer {
    program: "mmdebstrap",
    package: "mmdebstrap",
};
/// Containers with networks, through the plugins of the container network interface.
pub(crate) const PODMAN: Peer = Peer {
    program: "podman",
    package: "podman containernetworking-plugins iptables",
};
/// What makes the network that is measured on.
pub(crate) const IP: Peer = Peer {
    program: "ip",
    package: "iproute2",
};
/// The C compiler.
pub(crate) const CC: Peer = Peer {
    program: "cc",
    package: "gcc libc6-dev",
};

impl Peer {
    /// Returns where the program is, or an error that says how to get it.
    pub(crate) fn find(&self) -> Result<PathBuf, Error> {
        let folders = ["/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin"];
        folders
            .into_iter()
            .map(|folder| Path::new(folder).join(self.program))
            .find(|path| {
                let meta = fs_err::metadata(path);
                meta.is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
            })
            .ok_or_else(|| Error::missing(&[*self]))
    }
}

/// Returns an error that names all of `peers` that are not there.
pub(crate) fn check(peers: &[Peer]) -> Result<(), Error> {
    let mut missing: Vec<Peer> = Vec::new();
    for peer in peers {
        if !missing.contains(peer) && peer.find().is_err() {
            missing.push(*peer);
        }
    }
    if missing.is_empty() {
        Ok(())
    } else {
        Err(Error::missing(&missing))
    }
}

/// Where a measurement was made, without which its figures say little.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Machine {
    /// Name and release.
    pub(crate) kernel: String,
    /// How it calls itself.
    pub(crate) processor: String,
    /// How many of them.
    pub(crate) cores: usize,
    /// In GiB.
    pub(crate) memory: f64,
    /// That of the folder that everything was in.
    pub(crate) filesystem: String,
    /// Year, month and day (UTC).
    pub(crate) date: String,
}

impl Machine {
    /// Returns what this is; `folder` is where everything is put.
    pub(crate) fn here(folder: &Path) -> Result<Self, Error> {
        let cpuinfo = fs_err::read_to_string("/proc/cpuinfo")?;
        let meminfo = fs_err::read_to_string("/proc/meminfo")?;
        let kibibytes: f64 = field(&meminfo, "MemTotal")
            .and_then(|value| value.split(' ').next()?.parse().ok())
            .unwrap_or_default();
        Ok(Self {
            kernel: call(Path::new("uname"), ["-sr"])?,
            processor: field(&cpuinfo, "model name")
                .unwrap_or(std::env::consts::ARCH)
                .into(),
            cores: std::thread::available_parallelism()?.get(),
            memory: kibibytes / 1_048_576.0,
            filesystem: call(
                Path::new("findmnt"),
                [
                    "-no".as_ref(),
                    "FSTYPE".as_ref(),
                    "-T".as_ref(),
                    folder.as_os_str(),
                ],
            )?,
            date: call(Path::new("date"), ["-u", "+%Y-%m-%d"])?,
        })
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            kernel,
            processor,
            cores,
            memory,
            filesystem,
            date,
        } = self;
        write!(
            f,
            "{kernel}, {cores} cores ({processor}), {memory:.0} GiB, {filesystem}, {date}"
        )
    }
}

/// Returns the value of the first line of `text` that says `name: value`.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = text.lines().filter_map(|line| line.split_once(':'));
    let (_, value) = lines.find(|(found, _)| found.trim() == name)?;
    Some(value.trim())
}

/// Calls a program that must succeed, and returns what it printed.
pub(crate) fn call<S: AsRef<OsStr>>(
    program: &Path,
    words: impl IntoIterator<Item = S>,
) -> Result<String, Error> {
    let mut command = Command::new(program);
    command.args(words);
    output(command)
}

/// The same with a command.
pub(crate) fn output(mut command: Command) -> Result<String, Error> {
    let name = command.get_program().to_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|source| Error::Start {
            program: PathBuf::from(&name),
            source,
        })?;
    if !output.status.success() {
        return Err(Error::Contestant {
            name: name.to_string_lossy().into_owned(),
            status: output.status,
            said: String::from_utf8_lossy(&output.stderr).into_owned(),
        });
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
}

/// Moves this process, and so all that it starts, into a network namespace of its own, with a `/sys` that shows it, and
/// with nothing in `/run` and `/var/lib`, where podman and its plugins keep what they know of networks.
pub(crate) fn own_network() -> Result<(), Error> {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).map_err(Error::Root)?;
    let cgroup = "/sys/fs/cgroup";
    for (kind, place) in [
        ("sysfs", "/sys"),
        ("cgroup2", cgroup),
        ("tmpfs", "/run"),
        ("tmpfs", "/var/lib"),
    ] {
        mount(Some("none"), place, Some(kind), MsFlags::empty(), None::<&str>).map_err(Error::Root)?;
    }
    Ok(())
}

/// Moves this process, and so all that it starts, into a mount namespace of its own, where `/sys/fs/cgroup` is a plain
/// cgroup2: crun refuses a hybrid one.
pub(crate) fn own_mounts() -> Result<(), Error> {
    let none = None::<&str>;
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).map_err(Error::Root)?;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).map_err(Error::Root)?;
    let cgroup = "/sys/fs/cgroup";
    if Path::new(cgroup).join("cgroup.controllers").exists() || !Path::new(cgroup).exists() {
        return Ok(());
    }
    // Where nothing is mounted there yet, there is nothing to take away.
    let _ = umount2(cgroup, MntFlags::MNT_DETACH);
    mount(Some("none"), cgroup, Some("cgroup2"), MsFlags::empty(), none).map_err(Error::Root)
}

/// Builds `mk` as it is released, and returns where it is: beside this program.
pub(crate) fn build_mk() -> Result<PathBuf, Error> {
    let own = std::env::current_exe().map_err(Error::Io)?;
    let mut cargo = Command::new("cargo");
    cargo.args(["build", "--quiet", "--release", "-p", "mk", "--manifest-path"]);
    cargo.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"));
    // `cargo run` says what it runs. Crates that look at that would be built anew, here and by the next `cargo build`: for
    // ring, and all that stands on it, that is minutes each time.
    for (name, _) in std::env::vars_os() {
        let told = name.to_string_lossy();
        if told.starts_with("CARGO_PKG_") || told.starts_with("CARGO_MANIFEST_") {
            cargo.env_remove(&name);
        }
    }
    output(cargo)?;
    Ok(own.with_file_name("mk"))
}
