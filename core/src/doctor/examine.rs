//! Facts → findings. Pure.

use super::attempt::{Attempt, NAMESPACES};
use super::cgroup::Kind;
use super::facts::Facts;
use super::{Cgroups, Finding, IdmappedMounts, Matter, SubordinateIds, UserNamespaces, Verdict, network};
use crate::cgroup::Controller;
use crate::process::idmap::{IdMap, Range};
use crate::sys::probe::{self, Known};
use crate::sys::{Errno, SysError};

/// Judges what was looked at; what could not be tried is passed over, because something before it says why.
pub fn examine(facts: &Facts) -> Vec<Finding> {
    [
        stuck(facts),
        Some(kernel(facts)),
        Some(calls(facts)),
        user_namespaces(facts),
        subordinate_ids(facts),
        namespaces(facts),
        mounts(facts),
        overlay(facts),
        tmpfs_attributes(facts),
        store(facts),
        Some(seccomp(facts)),
        terminals(facts),
        devices(facts),
        Some(limits(facts)),
        Some(cgroup_calls(facts)),
        Some(idmapped(facts)),
        Some(keys(facts)),
        Some(helper(facts)),
        Some(tun(facts)),
        packet_rules(facts),
        forwarding(facts),
        forward_policy(facts),
        Some(container(facts)),
        Some(security_modules(facts)),
        Some(tracing(facts)),
        Some(terminal_input(facts)),
        Some(hidden_processes(facts)),
        time_namespaces(facts),
        Some(open_files(facts)),
        Some(processes(facts)),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn found(matter: Matter, verdict: Verdict) -> Finding {
    Finding { matter, verdict }
}

/// `Works` where `holds`, else what it is otherwise.
fn works(holds: bool, otherwise: Verdict) -> Verdict {
    if holds { Verdict::Works } else { otherwise }
}

fn is_native(facts: &Facts) -> bool {
    facts.map() == IdMap::Native
}

fn packet_rules(facts: &Facts) -> Option<Finding> {
    let failed = facts.network.as_ref()?.no_tables.clone();
    let verdict = works(failed.is_none(), Verdict::Impossible);
    Some(found(Matter::PacketRules { failed }, verdict))
}

fn forwarding(facts: &Facts) -> Option<Finding> {
    let network::Facts { read_only, ipv6, .. } = *facts.network.as_ref()?;
    let verdict = match ipv6 {
        _ if read_only => Verdict::Impossible,
        network::Ipv6::All => Verdict::Differs,
        _ => Verdict::Works,
    };
    Some(found(Matter::Forwarding { read_only, ipv6 }, verdict))
}

fn forward_policy(facts: &Facts) -> Option<Finding> {
    let closed = facts.network.as_ref()?.closed.clone();
    let verdict = works(closed.is_empty(), Verdict::Differs);
    Some(found(Matter::ForwardPolicy { closed }, verdict))
}

fn stuck(facts: &Facts) -> Option<Finding> {
    let folder = facts.store.clone();
    facts
        .tried
        .stuck
        .then(|| found(Matter::Stuck { folder }, Verdict::Stops))
}

fn kernel(facts: &Facts) -> Finding {
    let new_enough = probe::check_release(&facts.release).is_ok();
    let release = facts.release.clone();
    found(Matter::Kernel { release }, works(new_enough, Verdict::Stops))
}

fn calls(facts: &Facts) -> Finding {
    let needed = [Known::Openat2, Known::Clone3, Known::Pidfd, Known::CloseRange];
    let failed: Vec<SysError> = needed
        .into_iter()
        .filter_map(|call| facts.tried.failure(Attempt::Call(call)).cloned())
        .collect();
    let verdict = works(failed.is_empty(), Verdict::Stops);
    found(Matter::Calls { failed }, verdict)
}

fn user_namespaces(facts: &Facts) -> Option<Finding> {
    let (state, verdict) = if is_native(facts) {
        match facts.tried.of(Attempt::UserNamespace)? {
            Ok(()) => (UserNamespaces::Native, Verdict::Works),
            Err(failed) => {
                let reason = facts.reason(failed.errno);
                (UserNamespaces::NativeOnly(reason), Verdict::Impossible)
            }
        }
    } else {
        match root_failure(facts)? {
            None => (UserNamespaces::Own, Verdict::Works),
            Some(failed) => {
                let reason = facts.reason(failed.errno);
                (UserNamespaces::Refused(reason, failed), Verdict::Stops)
            }
        }
    };
    Some(found(Matter::UserNamespaces(state), verdict))
}

/// Why this user is not root of a namespace; nothing of it where that was not tried. A namespace without any power in
/// it, as AppArmor gives them out, shows in the first thing that needs power.
fn root_failure(facts: &Facts) -> Option<Option<SysError>> {
    let restricted = facts.setting("kernel/apparmor_restrict_unprivileged_userns") == Some("1");
    let powerless = facts.tried.failure(Attempt::Namespace(NAMESPACES[0]));
    match facts.tried.of(Attempt::Root)? {
        Err(failed) if failed.errno == Errno::CHILD => Some(None),
        Err(failed) => Some(Some(failed.clone())),
        Ok(()) => Some(powerless.filter(|_| restricted).cloned()),
    }
}

fn total(ranges: &[Range]) -> u64 {
    ranges.iter().map(|range| u64::from(range.count)).sum()
}

fn subordinate_ids(facts: &Facts) -> Option<Finding> {
    let caller = &facts.caller;
    let (uids, gids) = (total(&caller.granted_uids()), total(&caller.granted_gids()));
    let unprivileged = || {
        let weak = facts.helpers.iter().filter(|helper| !helper.privileged);
        weak.map(|helper| helper.path.clone()).collect::<Vec<_>>()
    };
    let refused = facts
        .tried
        .failure(Attempt::Root)
        .filter(|failed| failed.errno == Errno::CHILD);
    let (ids, verdict) = match facts.map() {
        IdMap::Native => (SubordinateIds::All, Verdict::Works),
        IdMap::Subordinate { .. } if refused.is_some() && !unprivileged().is_empty() => (
            SubordinateIds::Unprivileged {
                helpers: unprivileged(),
            },
            Verdict::Stops,
        ),
        IdMap::Subordinate { .. } if refused.is_some() => {
            let said = facts.tried.said.clone();
            (SubordinateIds::Refused { said }, Verdict::Stops)
        }
        IdMap::Subordinate { .. } => (SubordinateIds::Granted { uids, gids }, Verdict::Works),
        IdMap::Single { .. } if caller.has_enough_granted() => (SubordinateIds::NoHelpers, Verdict::Differs),
        IdMap::Single { uid, .. } => {
            let user = caller.name.clone().unwrap_or_else(|| uid.to_string());
            (SubordinateIds::Few { user, uids, gids }, Verdict::Differs)
        }
    };
    Some(found(Matter::SubordinateIds(ids), verdict))
}

fn namespaces(facts: &Facts) -> Option<Finding> {
    facts.tried.of(Attempt::Namespace(NAMESPACES[0]))?;
    let failed: Vec<_> = NAMESPACES
        .into_iter()
        .filter_map(|one| Some((one, facts.tried.failure(Attempt::Namespace(one))?.clone())))
        .collect();
    let verdict = works(failed.is_empty(), Verdict::Stops);
    Some(found(Matter::Namespaces { failed }, verdict))
}

fn mounts(facts: &Facts) -> Option<Finding> {
    facts.tried.of(Attempt::Proc)?;
    let failure = |attempt| facts.tried.failure(attempt).cloned();
    let views: Vec<SysError> = [Attempt::Proc, Attempt::Sysfs]
        .into_iter()
        .filter_map(failure)
        .collect();
    let others = [Attempt::Tmpfs, Attempt::Queues, Attempt::ReadOnlyBind];
    let mut failed: Vec<SysError> = others.into_iter().filter_map(failure).collect();
    let in_the_way = !views.is_empty();
    failed.extend(views);
    let verdict = works(failed.is_empty(), Verdict::Stops);
    let matter = Matter::Mounts {
        failed,
        views: in_the_way,
    };
    Some(found(matter, verdict))
}

fn filesystem(facts: &Facts) -> String {
    facts
        .filesystem
        .as_ref()
        .map(|found| found.kind.clone())
        .unwrap_or_default()
}

fn overlay(facts: &Facts) -> Option<Finding> {
    let failed = facts.tried.of(Attempt::Overlay)?.clone().err();
    let verdict = works(failed.is_none(), Verdict::Stops);
    let filesystem = filesystem(facts);
    Some(found(Matter::Overlay { filesystem, failed }, verdict))
}

fn tmpfs_attributes(facts: &Facts) -> Option<Finding> {
    if is_native(facts) {
        return None;
    }
    let there = facts.tried.of(Attempt::TmpfsAttributes)?.is_ok();
    Some(found(
        Matter::TmpfsAttributes { there },
        works(there, Verdict::Differs),
    ))
}

fn store(facts: &Facts) -> Option<Finding> {
    let filesystem = facts.filesystem.clone()?;
    let verdict = match &*filesystem.kind {
        _ if filesystem.read_only => Verdict::Impossible,
        // Gone at the next start; slow, and without locks that every server keeps; without links or owners.
        "tmpfs" | "overlay" | "nfs" | "cifs" | "fuse" | "9p" | "vfat" => Verdict::Differs,
        _ => Verdict::Works,
    };
    let folder = facts.store.clone();
    Some(found(Matter::Store { folder, filesystem }, verdict))
}

fn seccomp(facts: &Facts) -> Finding {
    let failed = facts.tried.failure(Attempt::Call(Known::Seccomp)).cloned();
    let verdict = works(failed.is_none(), Verdict::Stops);
    found(Matter::Seccomp { failed }, verdict)
}

fn terminals(facts: &Facts) -> Option<Finding> {
    let failed = facts.tried.of(Attempt::Terminals)?.clone().err();
    let verdict = works(failed.is_none(), Verdict::Stops);
    Some(found(Matter::Terminals { failed }, verdict))
}

fn devices(facts: &Facts) -> Option<Finding> {
    facts.tried.of(Attempt::Device(0))?;
    let names = crate::mounts::NODES.iter().enumerate();
    let missing: Vec<&'static str> = names
        .filter(|(index, _)| !facts.tried.works(Attempt::Device(*index)))
        .map(|(_, name)| *name)
        .collect();
    let verdict = works(missing.is_empty(), Verdict::Stops);
    Some(found(Matter::Devices { missing }, verdict))
}

fn limits(facts: &Facts) -> Finding {
    let cgroups: Cgroups = facts.cgroups.clone();
    let all = cgroups.usable.len() == Controller::ALL.len();
    found(Matter::Cgroups(cgroups), works(all, Verdict::Impossible))
}

fn cgroup_calls(facts: &Facts) -> Finding {
    let start = facts.tried.works(Attempt::Call(Known::CloneIntoCgroup));
    let new_enough = probe::version(&facts.release).is_none_or(|version| version >= (5, 14));
    let kill = facts
        .cgroups
        .kill
        .unwrap_or(new_enough || facts.cgroups.kind == Kind::Legacy);
    found(
        Matter::CgroupCalls { start, kill },
        works(start && kill, Verdict::Differs),
    )
}

/// Filesystems whose mounts can have other owners (mount_setattr(2), "Extended attributes and idmapped mounts").
const IDMAPPED: [&str; 9] = [
    "ext4", "xfs", "btrfs", "tmpfs", "f2fs", "overlay", "squashfs", "zfs", "bcachefs",
];

fn idmapped(facts: &Facts) -> Finding {
    let filesystem = filesystem(facts);
    let overlays = probe::version(&facts.release).is_none_or(|version| version >= (5, 19));
    let (state, verdict) = if !is_native(facts) || !facts.first_namespace {
        (IdmappedMounts::RootOnly, Verdict::Impossible)
    } else if !IDMAPPED.contains(&&*filesystem) {
        (IdmappedMounts::NotThere { filesystem }, Verdict::Impossible)
    } else if !overlays {
        (IdmappedMounts::FoldersOnly, Verdict::Impossible)
    } else {
        (IdmappedMounts::Both, Verdict::Works)
    };
    found(Matter::IdmappedMounts(state), verdict)
}

fn keys(facts: &Facts) -> Finding {
    let failed = facts.tried.failure(Attempt::Call(Known::Keys)).cloned();
    let verdict = works(failed.is_none(), Verdict::Differs);
    found(Matter::Keys { failed }, verdict)
}

fn helper(facts: &Facts) -> Finding {
    let path = facts.uplink.clone();
    let verdict = works(path.is_some(), Verdict::Impossible);
    found(Matter::Helper { path }, verdict)
}

fn tun(facts: &Facts) -> Finding {
    let failed = facts.tried.failure(Attempt::Tun).cloned();
    let verdict = works(failed.is_none(), Verdict::Impossible);
    found(Matter::Tun { failed }, verdict)
}

fn container(facts: &Facts) -> Finding {
    let mapped = !facts.first_namespace;
    // What a container forbids shows in what is refused; only that ids are mapped is a difference by itself.
    let verdict = works(!mapped, Verdict::Differs);
    let matter = Matter::Container {
        kind: facts.container,
        mapped,
    };
    found(matter, verdict)
}

fn security_modules(facts: &Facts) -> Finding {
    // Their refusals show in what they refuse, so that they are there changes nothing by itself.
    let matter = Matter::SecurityModules {
        selinux: facts.selinux,
        apparmor: facts.apparmor,
    };
    found(matter, Verdict::Works)
}

fn tracing(facts: &Facts) -> Finding {
    let scope = facts
        .setting("kernel/yama/ptrace_scope")
        .and_then(|text| text.parse().ok());
    let scope = scope.unwrap_or(0);
    found(Matter::Tracing { scope }, works(scope < 2, Verdict::Differs))
}

fn terminal_input(facts: &Facts) -> Finding {
    let allowed = facts.setting("dev/tty/legacy_tiocsti") != Some("0");
    found(Matter::TerminalInput { allowed }, Verdict::Works)
}

fn hidden_processes(facts: &Facts) -> Finding {
    let hidepid = facts.hidepid.clone();
    let verdict = works(hidepid.is_empty() || facts.caller.uid == 0, Verdict::Differs);
    found(Matter::HiddenProcesses { hidepid }, verdict)
}

fn time_namespaces(facts: &Facts) -> Option<Finding> {
    let there = facts.tried.of(Attempt::TimeNamespace)?.is_ok();
    Some(found(Matter::TimeNamespaces { there }, Verdict::Works))
}

/// A build with many sources, and `mk run` with its pipes, stay below this.
const ENOUGH_FILES: u64 = 256;
/// mk itself has three processes; what is run wants some too.
const ENOUGH_PROCESSES: u64 = 128;

fn open_files(facts: &Facts) -> Finding {
    let most = facts.most_files;
    let enough = most.is_none_or(|most| most >= ENOUGH_FILES);
    found(Matter::OpenFiles { most }, works(enough, Verdict::Differs))
}

fn processes(facts: &Facts) -> Finding {
    let most = facts.most_processes;
    let enough = most.is_none_or(|most| most >= ENOUGH_PROCESSES);
    found(Matter::Processes { most }, works(enough, Verdict::Differs))
}

#[cfg(test)]
mod tests;
