use std::path::PathBuf;

use super::super::facts::IdHelper;
use super::super::{Cgroups, runs};
use super::*;
use crate::cgroup::Controller;
use crate::process::idmap::{Caller, Reason};
use crate::sys::netfilter::Family;
use crate::sys::probe::Filesystem;

/// A machine where everything works, as an ordinary user or as root sees it.
fn fine(root: bool) -> Facts {
    let caller = Caller {
        uid: if root { 0 } else { 1000 },
        gid: if root { 0 } else { 1000 },
        admin: root,
        many_ids: root,
        name: Some("ann".into()),
        subuid: "ann:100000:65536\n".into(),
        subgid: "ann:100000:65536\n".into(),
        helpers: Some(("/usr/bin/newuidmap".into(), "/usr/bin/newgidmap".into())),
    };
    let mut facts = Facts {
        release: "6.1.0-18-amd64".into(),
        caller,
        uplink: Some("/usr/bin/pasta".into()),
        helpers: ["/usr/bin/newuidmap", "/usr/bin/newgidmap"]
            .map(|path| IdHelper {
                path: path.into(),
                privileged: true,
            })
            .into(),
        store: "/var/lib/mk".into(),
        filesystem: Some(Filesystem {
            kind: "ext4".into(),
            read_only: false,
        }),
        cgroups: Cgroups {
            kind: Kind::Unified,
            usable: Controller::ALL.into(),
            refused: Vec::new(),
            kill: Some(true),
        },
        network: root.then(network::Facts::default),
        first_namespace: true,
        most_files: Some(1024),
        ..Facts::default()
    };
    Attempt::all().for_each(|attempt| facts.tried.note(attempt, Ok(())));
    facts
}

fn refused(call: &'static str, errno: Errno) -> Result<(), SysError> {
    Err(SysError::new(errno, call))
}

/// The findings that are not `Works`.
fn faults(facts: &Facts) -> Vec<(&'static str, Verdict)> {
    let findings = examine(facts).into_iter();
    findings
        .filter(|finding| finding.verdict != Verdict::Works)
        .map(|finding| (finding.matter.name(), finding.verdict))
        .collect()
}

fn matter(facts: &Facts, name: &str) -> Matter {
    let mut findings = examine(facts).into_iter();
    findings
        .find(|finding| finding.matter.name() == name)
        .unwrap()
        .matter
}

#[test]
fn where_everything_works_nothing_is_found_wanting() {
    assert_eq!(faults(&fine(true)), []);
    assert_eq!(faults(&fine(false)), [("idmapped mounts", Verdict::Impossible)]);
    assert!(runs(&examine(&fine(true))) && runs(&examine(&fine(false))));
}

#[test]
fn a_kernel_that_is_too_old_or_a_call_that_is_forbidden_stops_runs() {
    let mut facts = fine(true);
    facts.release = "5.10.0-28-amd64".into();
    assert_eq!(faults(&facts)[0], ("kernel", Verdict::Stops));
    let mut facts = fine(true);
    facts
        .tried
        .note(Attempt::Call(Known::Clone3), refused("clone3", Errno::NOSYS));
    assert_eq!(faults(&facts), [("system calls", Verdict::Stops)]);
    assert!(!runs(&examine(&facts)));
}

#[test]
fn a_refused_user_namespace_is_explained_and_what_needs_it_is_not_judged() {
    for (name, value, errno, reason) in [
        (
            "kernel/unprivileged_userns_clone",
            "0\n",
            Errno::PERM,
            Reason::CloneForbidden,
        ),
        (
            "user/max_user_namespaces",
            "0\n",
            Errno::NOSPC,
            Reason::NoneAllowed,
        ),
        (
            "kernel/apparmor_restrict_unprivileged_userns",
            "1\n",
            Errno::PERM,
            Reason::AppArmor,
        ),
        ("user/max_user_namespaces", "9\n", Errno::PERM, Reason::Unknown),
    ] {
        let mut facts = fine(false);
        facts.tried = super::super::Tried::default();
        facts
            .tried
            .note(Attempt::Root, refused("unshare(CLONE_NEWUSER)", errno));
        facts.settings.insert(name, value.into());
        let findings = examine(&facts);
        assert!(!runs(&findings));
        let Matter::UserNamespaces(UserNamespaces::Refused(told, _)) = matter(&facts, "user namespaces")
        else {
            panic!("{findings:?}");
        };
        assert_eq!(told, reason, "{name}");
        assert!(
            findings.iter().all(|finding| finding.matter.name() != "overlay"),
            "{findings:?}"
        );
    }
}

#[test]
fn a_namespace_without_power_in_it_is_app_armor_s_doing() {
    let mut facts = fine(false);
    let mount = Attempt::Namespace(NAMESPACES[0]);
    facts.tried.note(mount, refused("unshare(mount)", Errno::PERM));
    facts
        .settings
        .insert("kernel/apparmor_restrict_unprivileged_userns", "1\n".into());
    assert!(matches!(
        matter(&facts, "user namespaces"),
        Matter::UserNamespaces(UserNamespaces::Refused(Reason::AppArmor, _))
    ));
}

#[test]
fn root_can_run_without_user_namespaces_but_not_with_one_of_its_own() {
    let mut facts = fine(true);
    facts.tried.note(
        Attempt::UserNamespace,
        refused("unshare(CLONE_NEWUSER)", Errno::NOSPC),
    );
    assert_eq!(faults(&facts), [("user namespaces", Verdict::Impossible)]);
    assert!(runs(&examine(&facts)));
}

#[test]
fn subordinate_ids_are_missing_in_one_of_several_ways() {
    let mut facts = fine(false);
    assert_eq!(
        matter(&facts, "subordinate ids"),
        Matter::SubordinateIds(SubordinateIds::Granted {
            uids: 65536,
            gids: 65536
        })
    );
    facts.caller.subgid = "ann:100000:10\n".into();
    let few = SubordinateIds::Few {
        user: "ann".into(),
        uids: 65536,
        gids: 10,
    };
    assert_eq!(matter(&facts, "subordinate ids"), Matter::SubordinateIds(few));
    let mut facts = fine(false);
    facts.caller.helpers = None;
    assert_eq!(
        matter(&facts, "subordinate ids"),
        Matter::SubordinateIds(SubordinateIds::NoHelpers)
    );
    assert!(runs(&examine(&facts)));
}

#[test]
fn what_keeps_networks_from_leading_out_stops_no_run() {
    let facts = |network| Facts {
        network: Some(network),
        ..fine(true)
    };
    let closed = network::Closed {
        rules: network::Rules::Legacy,
        family: Family::Ip,
        networks: vec!["mk0".into()],
    };
    for (network, name, verdict) in [
        (
            network::Facts {
                no_tables: Some("none".into()),
                ..network::Facts::default()
            },
            "packet rules",
            Verdict::Impossible,
        ),
        (
            network::Facts {
                read_only: true,
                ..network::Facts::default()
            },
            "forwarding",
            Verdict::Impossible,
        ),
        (
            network::Facts {
                ipv6: network::Ipv6::All,
                ..network::Facts::default()
            },
            "forwarding",
            Verdict::Differs,
        ),
        (
            network::Facts {
                closed: vec![closed],
                ..network::Facts::default()
            },
            "forward policy",
            Verdict::Differs,
        ),
    ] {
        let facts = facts(network);
        assert_eq!(faults(&facts), [(name, verdict)]);
        assert!(runs(&examine(&facts)));
    }
    let missing = |name: &str| {
        examine(&fine(false))
            .iter()
            .all(|finding| finding.matter.name() != name)
    };
    assert!(missing("packet rules") && missing("forward policy"));
}

#[test]
fn helpers_that_fail_stop_runs_and_say_why() {
    let mut facts = fine(false);
    facts
        .tried
        .note(Attempt::Root, refused("`newuidmap` did not map", Errno::CHILD));
    facts.tried.said = "newuidmap: uid range [1-65537) not allowed".into();
    assert_eq!(
        matter(&facts, "subordinate ids"),
        Matter::SubordinateIds(SubordinateIds::Refused {
            said: facts.tried.said.clone()
        })
    );
    assert!(!runs(&examine(&facts)));
    facts.helpers[0].privileged = false;
    let helpers = vec![PathBuf::from("/usr/bin/newuidmap")];
    assert_eq!(
        matter(&facts, "subordinate ids"),
        Matter::SubordinateIds(SubordinateIds::Unprivileged { helpers })
    );
}

#[test]
fn a_proc_that_is_covered_is_told_apart_from_other_mounts() {
    let mut facts = fine(false);
    facts
        .tried
        .note(Attempt::Proc, refused("fsmount of proc", Errno::PERM));
    let Matter::Mounts { failed, views: true } = matter(&facts, "mounts") else {
        panic!("{:?}", examine(&facts));
    };
    assert_eq!(failed.len(), 1);
    assert_eq!(faults(&facts)[0], ("mounts", Verdict::Stops));
}

#[test]
fn what_the_store_lies_on_makes_a_difference() {
    for (kind, read_only, verdict) in [
        ("ext4", false, None),
        ("tmpfs", false, Some(Verdict::Differs)),
        ("nfs", false, Some(Verdict::Differs)),
        ("ext4", true, Some(Verdict::Impossible)),
    ] {
        let mut facts = fine(true);
        facts.filesystem = Some(Filesystem {
            kind: kind.into(),
            read_only,
        });
        let store = faults(&facts).into_iter().find(|(name, _)| *name == "store");
        assert_eq!(store.map(|(_, verdict)| verdict), verdict, "{kind}");
    }
}

#[test]
fn limits_need_every_controller() {
    let mut facts = fine(true);
    facts.cgroups.usable.retain(|one| *one != Controller::CpuSet);
    assert_eq!(faults(&facts), [("limits", Verdict::Impossible)]);
    facts.cgroups = Cgroups::default();
    assert_eq!(faults(&facts), [("limits", Verdict::Impossible)]);
}

#[test]
fn every_other_shortcoming_lets_runs_be() {
    let mut facts = fine(true);
    facts.most_files = Some(64);
    facts.most_processes = Some(10);
    facts.first_namespace = false;
    facts.settings.insert("kernel/yama/ptrace_scope", "3\n".into());
    facts.uplink = None;
    facts.tried.note(Attempt::Tun, refused("open", Errno::NOENT));
    facts
        .tried
        .note(Attempt::Call(Known::Keys), refused("keyctl", Errno::NOSYS));
    let names: Vec<&str> = faults(&facts).into_iter().map(|(name, _)| name).collect();
    assert_eq!(
        names,
        [
            "idmapped mounts",
            "keyrings",
            "network helper",
            "tun",
            "container",
            "tracing",
            "open files",
            "processes"
        ]
    );
    assert!(runs(&examine(&facts)));
}
