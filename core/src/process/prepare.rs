//! [`Prepared`]: everything the child needs, made while allocating and failing politely are still possible.

use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStrExt;

use super::Error;
use super::init;
use crate::mounts::{Table, apply};
use crate::path::shown;
use crate::recipe::Network;
use crate::rootfs::Rootfs;
use crate::rootfs::scratch::Scratch;
use crate::spec::RunSpec;
use crate::spec::user::Identity;
use crate::sys::namespace::Namespaces;
use crate::sys::process::{CStrings, CapabilitySet};
use crate::sys::signal::{self, SignalSet};

/// What a container's root may do: Docker's list, less the making of device nodes.
pub const KEPT: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::SYS_CHROOT)
    .union(CapabilitySet::AUDIT_WRITE)
    .union(CapabilitySet::SETFCAP);

/// A run ready to be cloned.
#[derive(Debug)]
pub struct Prepared {
    pub(super) rootfs: Rootfs,
    pub(super) table: Table,
    pub(super) namespaces: Namespaces,
    pub(super) as_pid1: bool,
    pub(super) stop_timeout: std::time::Duration,
    /// Signals that mk does not pass on, because whoever started it has them ignored.
    pub(super) ignored: SignalSet,
    pub(super) store: CString,
    pub(super) scratch: Scratch,
    pub(super) mounts: apply::Ready,
    pub(super) host_name: CString,
    pub(super) loopback: bool,
    pub(super) workdir: CString,
    pub(super) keep: CapabilitySet,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// `None` where the user namespace does not let anyone set groups.
    pub(super) groups: Option<Vec<u32>>,
    pub(super) candidates: Vec<CString>,
    pub(super) arguments: CStrings,
    pub(super) environment: CStrings,
}

/// Returns the namespaces of a run with this `network`.
pub fn namespaces(network: Network) -> Namespaces {
    let always = Namespaces::MOUNT
        .with(Namespaces::UTS)
        .with(Namespaces::IPC)
        .with(Namespaces::PID)
        .with(Namespaces::CGROUP);
    match network {
        Network::None => always.with(Namespaces::NET),
        Network::Host => always,
    }
}

impl Prepared {
    /// Makes everything that the run of `spec` by `identity` needs. `set_groups` says whether groups can be set.
    pub fn new(
        rootfs: Rootfs,
        spec: &RunSpec,
        table: Table,
        scratch: Scratch,
        identity: &Identity,
        set_groups: bool,
    ) -> Result<Self, Error> {
        let mut environment = spec.env.clone();
        environment
            .entry("HOME".into())
            .or_insert_with(|| identity.home.clone().into());
        let path = environment.get(OsStr::new("PATH")).cloned().unwrap_or_default();
        let command = spec
            .command
            .first()
            .map_or(OsStr::new(""), |name| name.as_os_str());
        let entries = environment.iter().map(|(name, value)| {
            c_string(
                "an environment entry",
                [name.as_bytes(), b"=", value.as_bytes()].concat(),
            )
        });
        let arguments = spec
            .command
            .iter()
            .map(|text| c_string("an argument", text.as_bytes()));
        let store = std::path::absolute(&rootfs.store).map_err(|source| Error::Store {
            path: rootfs.store.clone(),
            source,
        })?;
        Ok(Self {
            namespaces: namespaces(spec.network),
            as_pid1: spec.as_pid1,
            stop_timeout: spec.stop_timeout,
            ignored: signal::ignored(),
            store: c_string("the store's path", store.as_os_str().as_bytes())?,
            scratch,
            mounts: apply::prepare(&table),
            host_name: c_string("the host name", spec.hostname.as_bytes())?,
            loopback: spec.network == Network::None,
            workdir: c_string("the working directory", spec.workdir.as_bytes())?,
            keep: KEPT,
            uid: identity.uid,
            gid: identity.gid,
            groups: set_groups.then(|| identity.groups.clone()),
            candidates: candidates(command, &path)?,
            arguments: CStrings::new(arguments.collect::<Result<_, _>>()?),
            environment: CStrings::new(entries.collect::<Result<_, _>>()?),
            table,
            rootfs,
        })
    }

    /// What is passed on to the command: all that was not ignored when mk was started.
    pub(super) fn forwarded(&self) -> SignalSet {
        init::FORWARDED.without(self.ignored)
    }
}

fn c_string(what: &'static str, bytes: impl Into<Vec<u8>>) -> Result<CString, Error> {
    CString::new(bytes).map_err(|nul| Error::Nul {
        what,
        text: shown(&nul.into_vec()),
    })
}

/// Returns where `command` may be: as it is where it holds a slash, else in each folder of `path` (execvp(3)).
fn candidates(command: &OsStr, path: &OsStr) -> Result<Vec<CString>, Error> {
    let command = command.as_bytes();
    if command.contains(&b'/') {
        return Ok(vec![c_string("the command", command)?]);
    }
    if command.is_empty() {
        return Ok(Vec::new());
    }
    let folders = path.as_bytes().split(|&byte| byte == b':');
    folders
        .map(|folder| {
            // An empty folder means the working directory.
            let folder = if folder.is_empty() {
                b".".as_slice()
            } else {
                folder
            };
            c_string("the command", [folder, b"/", command].concat())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(command: &str, path: &str) -> Vec<String> {
        candidates(OsStr::new(command), OsStr::new(path))
            .unwrap()
            .into_iter()
            .map(|path| path.into_string().unwrap())
            .collect()
    }

    #[test]
    fn a_command_is_looked_for_along_the_path() {
        assert_eq!(found("ls", "/usr/bin:/bin"), ["/usr/bin/ls", "/bin/ls"]);
        assert_eq!(found("ls", "/bin:"), ["/bin/ls", "./ls"]);
        assert_eq!(found("/bin/ls", "/usr/bin"), ["/bin/ls"]);
        assert_eq!(found("./ls", "/usr/bin"), ["./ls"]);
        assert_eq!(found("", "/usr/bin"), [""; 0]);
    }

    #[test]
    fn only_a_run_without_a_network_has_its_own() {
        assert!(namespaces(Network::None).has(Namespaces::NET));
        assert!(!namespaces(Network::Host).has(Namespaces::NET));
    }

    #[test]
    fn a_container_s_root_can_neither_mount_nor_make_nodes() {
        assert!(
            !KEPT.intersects(CapabilitySet::SYS_ADMIN | CapabilitySet::MKNOD | CapabilitySet::SYS_PTRACE)
        );
        assert_eq!(KEPT.bits().count_ones(), 13);
    }
}
