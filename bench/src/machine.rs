//! What measurements need of the machine: the programs of others, a compiler, an `mk`, a mount namespace.

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::Error;

/// A program of somebody else's, and the Debian package that has it.
pub(crate) struct Peer {
    /// As it is called.
    pub(crate) program: &'static str,
    /// Where it comes from.
    pub(crate) package: &'static str,
}

/// The programs that mk is measured against.
pub(crate) const BWRAP: Peer = Peer {
    program: "bwrap",
    package: "bubblewrap",
};
/// An OCI runtime in C.
pub(crate) const CRUN: Peer = Peer {
    program: "crun",
    package: "crun",
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
            .ok_or(Error::Missing {
                program: self.program,
                package: self.package,
            })
    }
}

/// Calls a program that must succeed, and returns what it printed.
pub(crate) fn call<S: AsRef<OsStr>>(
    program: &Path,
    words: impl IntoIterator<Item = S>,
) -> Result<String, Error> {
    let output = Command::new(program)
        .args(words)
        .output()
        .map_err(|source| Error::Start {
            program: program.to_owned(),
            source,
        })?;
    if !output.status.success() {
        return Err(Error::Contestant {
            name: program.display().to_string(),
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
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
    call(
        Path::new("cargo"),
        [
            "build",
            "--quiet",
            "--release",
            "-p",
            "mk",
            "--manifest-path",
            manifest,
        ],
    )?;
    Ok(own.with_file_name("mk"))
}
