//! A finding of `mk doctor` → what was found, what mk does instead, and the commands that would enable it.

use std::path::Path;

use mk_core::cgroup::Controller;
use mk_core::doctor::cgroup::Kind;
use mk_core::doctor::{Cgroups, IdmappedMounts, Matter, SubordinateIds, UserNamespaces};
use mk_core::process::idmap::Reason;
use mk_core::sys::{SysError, probe};

use crate::hints;
use crate::ui;

/// Networks with a way out.
mod network;

/// A finding in words.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Words {
    /// What was found.
    pub(crate) found: String,
    /// What mk does instead, or what does not work.
    pub(crate) instead: Option<String>,
    /// Lines that enable it: commands, or a sentence where no command does.
    pub(crate) enable: Vec<String>,
}

impl Words {
    fn of(found: impl Into<String>) -> Self {
        Self {
            found: found.into(),
            ..Self::default()
        }
    }

    fn instead(mut self, text: impl Into<String>) -> Self {
        self.instead = Some(text.into());
        self
    }

    fn enable(mut self, line: impl Into<String>) -> Self {
        self.enable.push(line.into());
        self
    }
}

/// What the words depend on besides the finding.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    /// Where mk's own binary is.
    pub(crate) mk: &'a Path,
    /// The text of os-release(5).
    pub(crate) os_release: &'a str,
    /// Whether mk runs in somebody's container.
    pub(crate) contained: bool,
}

/// Returns the words for `matter`.
pub(crate) fn words(matter: &Matter, place: &Place<'_>) -> Words {
    match matter {
        Matter::Kernel { release } => kernel(release),
        Matter::Calls { failed } => calls(failed, place),
        Matter::UserNamespaces(state) => user_namespaces(state, place),
        Matter::SubordinateIds(ids) => subordinate_ids(ids, place),
        Matter::Namespaces { failed } if failed.is_empty() => {
            Words::of("mount, uts, ipc, pid, cgroup, network")
        }
        Matter::Namespaces { failed } => {
            let names: Vec<String> = failed
                .iter()
                .map(|(one, failed)| format!("{one} ({failed})"))
                .collect();
            forbidden(Words::of(format!("refused: {}", names.join(", "))), place).enable(
                "sudo sysctl -w user.max_mnt_namespaces=15000   # likewise pid, net, ipc, uts, cgroup",
            )
        }
        Matter::Mounts { failed, views } => mounts(failed, *views, place),
        Matter::Overlay { filesystem, failed } => overlay(filesystem, failed.as_ref(), place),
        Matter::TmpfsAttributes { there: true } => Words::of("memory takes the notes that overlayfs makes"),
        Matter::TmpfsAttributes { there: false } => Words::of("memory takes no `user.*` attributes")
            .instead("a folder of the image that was removed in a run cannot be made again in it (EIO)")
            .enable("a kernel from 6.6 on, with CONFIG_TMPFS_XATTR"),
        Matter::Store { folder, filesystem } => store(folder, &filesystem.kind, filesystem.read_only),
        Matter::IdmappedMounts(state) => idmapped(state),
        Matter::Cgroups(cgroups) => limits(cgroups),
        Matter::CgroupCalls { start, kill } => cgroup_calls(*start, *kill),
        other => small(other, place),
    }
}

fn kernel(release: &str) -> Words {
    let words = Words::of(format!("Linux {release}"));
    match probe::check_release(release) {
        Ok(()) => words,
        Err(_) => words
            .instead(format!(
                "too old: mk needs {}.{}",
                probe::OLDEST.0,
                probe::OLDEST.1
            ))
            .enable("a newer kernel: Debian 12, Ubuntu 22.04, RHEL 9 and Alpine 3.14 have one"),
    }
}

fn list(failed: &[SysError]) -> String {
    failed
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("; ")
}

fn calls(failed: &[SysError], place: &Place<'_>) -> Words {
    if failed.is_empty() {
        return Words::of("openat2, clone3, pidfd_open, close_range");
    }
    forbidden(Words::of(list(failed)), place)
}

/// Adds what helps where something around mk forbids a call that the kernel has.
fn forbidden(words: Words, place: &Place<'_>) -> Words {
    if place.contained {
        words
            .instead("the container that mk runs in forbids it")
            .enable("start that container with `mk run --nesting`; with other tools, with `--privileged`, or `--security-opt seccomp=unconfined --security-opt systempaths=unconfined`")
    } else {
        words.instead("a seccomp filter, a security module or the kernel's configuration forbids it")
    }
}

fn user_namespaces(state: &UserNamespaces, place: &Place<'_>) -> Words {
    match state {
        UserNamespaces::Native => Words::of("not needed: mk runs as root; more can be made"),
        UserNamespaces::NativeOnly(reason) => refused(
            Words::of(format!("not needed: mk runs as root; none can be made: {reason}"))
                .instead("`--userns auto` is refused; everything else works"),
            *reason,
            place,
        ),
        UserNamespaces::Own => Words::of("this user becomes root of one"),
        UserNamespaces::Refused(reason, failed) => refused(
            Words::of(format!("{failed}: {reason}")).instead("only root can run anything: `sudo mk …`"),
            *reason,
            place,
        ),
    }
}

fn refused(words: Words, reason: Reason, place: &Place<'_>) -> Words {
    match reason {
        Reason::AppArmor => app_armor(words, place.mk),
        Reason::CloneForbidden => sysctl(words, "kernel.unprivileged_userns_clone=1"),
        Reason::NoneAllowed | Reason::TooMany => sysctl(words, "user.max_user_namespaces=15000"),
        Reason::NotBuilt | Reason::Unknown => words.enable(hints::of_reason(reason)),
    }
}

/// The command that sets a sysctl now, and the one that sets it at each start.
fn sysctl(words: Words, setting: &str) -> Words {
    words.enable(format!("sudo sysctl -w {setting}")).enable(format!(
        "echo {setting} | sudo tee /etc/sysctl.d/60-mk.conf   # for good"
    ))
}

/// Ubuntu 23.10 and newer: a profile that gives this one program what every program had before.
fn app_armor(words: Words, mk: &Path) -> Words {
    let profile = format!(
        "printf '%s\\n' 'abi <abi/4.0>,' 'profile mk {} flags=(unconfined) {{ userns, }}' | sudo tee /etc/apparmor.d/mk",
        mk.display()
    );
    words
        .enable(profile)
        .enable("sudo apparmor_parser -r /etc/apparmor.d/mk")
        .enable(
            "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0   # instead: for every program",
        )
}

fn subordinate_ids(ids: &SubordinateIds, place: &Place<'_>) -> Words {
    const SINGLE: &str =
        "root inside is you and there is nobody else: `-u` takes root only, all files look like root's";
    match ids {
        SubordinateIds::All => Words::of("not needed: root has all ids"),
        SubordinateIds::Granted { uids, gids } => Words::of(format!("{uids} users and {gids} groups")),
        SubordinateIds::Few { user, uids, gids } => {
            let words = Words::of(format!("{uids} users and {gids} groups for `{user}`: 65536 are wanted"));
            words
                .instead(SINGLE)
                .enable(format!(
                    "sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}   # a range that nobody has in /etc/subuid"
                ))
                .enable("and then a new store (`--store DIR`): one that was made before keeps owners as `single`")
        }
        SubordinateIds::NoHelpers => Words::of("granted, but newuidmap and newgidmap are not installed")
            .instead(SINGLE)
            .enable(install_helpers(place.os_release)),
        SubordinateIds::Unprivileged { helpers } => {
            let paths: Vec<String> = helpers.iter().map(|path| path.display().to_string()).collect();
            Words::of(format!("{} may not map ids for others", paths.join(", ")))
                .instead("nothing runs until it may, or is not there")
                .enable(format!("sudo chmod u+s {}", paths.join(" ")))
        }
        SubordinateIds::Refused { said } => Words::of(format!("refused: {said}"))
            .instead("nothing runs until /etc/subuid, /etc/subgid and the helpers fit together")
            .enable("ranges in /etc/subuid and /etc/subgid must not overlap, and must lie within those of the container that mk runs in"),
    }
}

/// The command that installs newuidmap, by the distribution's family (os-release(5)).
fn install_helpers(os_release: &str) -> &'static str {
    let commands = families(os_release).filter_map(|family| match family {
        "debian" | "ubuntu" => Some("sudo apt-get install uidmap"),
        "fedora" | "rhel" | "centos" => Some("sudo dnf install shadow-utils"),
        "arch" => Some("sudo pacman -S shadow"),
        "alpine" => Some("doas apk add shadow-subids"),
        "suse" | "opensuse" => Some("sudo zypper install shadow"),
        _ => None,
    });
    commands
        .into_iter()
        .next()
        .unwrap_or("install newuidmap and newgidmap: the package is called uidmap, shadow or shadow-utils")
}

/// The command that installs pasta, by the distribution's family (os-release(5)).
fn install_passt(os_release: &str) -> &'static str {
    let commands = families(os_release).filter_map(|family| match family {
        "debian" | "ubuntu" => Some("sudo apt-get install passt"),
        "fedora" | "rhel" | "centos" => Some("sudo dnf install passt"),
        "arch" => Some("sudo pacman -S passt"),
        "alpine" => Some("doas apk add passt"),
        "suse" | "opensuse" => Some("sudo zypper install passt"),
        _ => None,
    });
    commands
        .into_iter()
        .next()
        .unwrap_or("install pasta, whose package is called passt; or slirp4netns")
}

fn families(os_release: &str) -> impl Iterator<Item = &str> {
    os_release
        .lines()
        .filter_map(|line| line.strip_prefix("ID=").or(line.strip_prefix("ID_LIKE=")))
        .flat_map(|value| value.trim_matches('"').split(' '))
}

fn mounts(failed: &[SysError], views: bool, place: &Place<'_>) -> Words {
    if failed.is_empty() {
        return Words::of("tmpfs, proc, sysfs, mqueue, read-only binds");
    }
    let words = forbidden(Words::of(list(failed)), place);
    if views && !place.contained {
        return words
            .instead("a new /proc or /sys needs one in sight that nothing is mounted over")
            .enable("grep -e ' /proc/' -e ' /sys/' /proc/self/mountinfo   # what is in the way");
    }
    words
}

fn overlay(filesystem: &str, failed: Option<&SysError>, place: &Place<'_>) -> Words {
    let Some(failed) = failed else {
        return Words::of(format!("memory over the store's {filesystem}"));
    };
    let words = forbidden(
        Words::of(format!("memory over the store's {filesystem}: {failed}")),
        place,
    );
    words
        .enable("sudo modprobe overlay")
        .enable("or a store elsewhere: `--store DIR`, on ext4, xfs, btrfs or tmpfs")
}

fn store(folder: &Path, kind: &str, read_only: bool) -> Words {
    let words = Words::of(format!(
        "{} is on {kind}",
        ui::quoted(&folder.display().to_string())
    ));
    let elsewhere = "a folder elsewhere: `--store DIR`, `MK_STORE` or `store` in config.toml";
    match kind {
        _ if read_only => words
            .instead("mounted read-only: nothing can be built")
            .enable(elsewhere),
        "tmpfs" | "overlay" => words.instead("images are gone when that is").enable(elsewhere),
        "nfs" | "cifs" | "fuse" | "9p" => words
            .instead("builds are slow, and an ordinary user's files cannot have subordinate owners there")
            .enable(elsewhere),
        "vfat" => words
            .instead("it has neither links nor owners: nothing can be built")
            .enable(elsewhere),
        _ => words,
    }
}

fn idmapped(state: &IdmappedMounts) -> Words {
    let words = match state {
        IdmappedMounts::Both => return Words::of("of folders and of overlays"),
        IdmappedMounts::FoldersOnly => {
            Words::of("of folders only: overlays need Linux 5.19").enable("a kernel from 5.19 on")
        }
        IdmappedMounts::NotThere { filesystem } => Words::of(format!("the store's {filesystem} has none"))
            .enable("a store on ext4, xfs or btrfs: `--store DIR`"),
        IdmappedMounts::RootOnly => {
            Words::of("for root of the machine only").enable("sudo mk run --userns auto …")
        }
    };
    words.instead("`--userns auto` is refused")
}

fn limits(cgroups: &Cgroups) -> Words {
    let kind = match cgroups.kind {
        Kind::Nothing => "no cgroups are mounted",
        Kind::Legacy => "cgroups of version 1",
        Kind::Hybrid => "cgroups of version 1 beside version 2",
        Kind::Unified => "cgroups of version 2",
    };
    let usable: Vec<&str> = cgroups.usable.iter().map(|one| one.name()).collect();
    let usable = match usable.is_empty() {
        true => "none can be used".to_owned(),
        false => usable.join(", "),
    };
    let mut words = Words::of(format!("{kind}: {usable}"));
    let options: Vec<&str> = cgroups.refused.iter().map(|(one, _)| option_of(*one)).collect();
    let Some((_, first)) = cgroups.refused.first() else {
        return words;
    };
    let verb = if options.len() == 1 { "is" } else { "are" };
    words = words.instead(format!("{} {verb} refused: {first}", options.join(", ")));
    for (_, why) in &cgroups.refused {
        let line = hints::for_limits(why);
        if !words.enable.contains(&line) {
            words = words.enable(line);
        }
    }
    words
}

/// The option of `mk run` that a controller is for.
fn option_of(controller: Controller) -> &'static str {
    match controller {
        Controller::Memory => "--memory",
        Controller::Cpu => "--cpus",
        Controller::Pids => "--pids",
        Controller::CpuSet => "--cpuset",
    }
}

fn cgroup_calls(start: bool, kill: bool) -> Words {
    match (start, kill) {
        (true, true) => Words::of("a process starts in its cgroup"),
        (false, _) => Words::of("a process cannot start in a cgroup (Linux 5.7)")
            .instead("it is moved there before it runs")
            .enable("a kernel from 5.7 on, and no seccomp filter that refuses clone3"),
        (true, false) => Words::of("no `cgroup.kill` (Linux 5.14)")
            .instead("the end of process 1 ends all others")
            .enable("a kernel from 5.14 on"),
    }
}

/// What takes a line each.
fn small(matter: &Matter, place: &Place<'_>) -> Words {
    match matter {
        Matter::Seccomp { failed: None } => Words::of("filters can be loaded"),
        Matter::Seccomp { failed: Some(failed) } => forbidden(Words::of(failed.to_string()), place)
            .enable("a kernel with CONFIG_SECCOMP_FILTER; or `mk run --seccomp unconfined`"),
        Matter::Terminals { failed: None } => Words::of("a devpts of the container's own"),
        Matter::Terminals { failed: Some(failed) } => forbidden(Words::of(failed.to_string()), place),
        Matter::Devices { missing } if missing.is_empty() => {
            Words::of("full, null, random, tty, urandom, zero")
        }
        Matter::Devices { missing } => {
            let paths: Vec<String> = missing.iter().map(|name| format!("/dev/{name}")).collect();
            Words::of(format!("missing: {}", paths.join(", "))).enable("sudo mount -t devtmpfs none /dev")
        }
        Matter::Helper { path: Some(path) } => Words::of(path.display().to_string()),
        Matter::Helper { path: None } => Words::of("neither pasta nor slirp4netns is in PATH")
            .instead("`--network user` is refused")
            .enable(install_passt(place.os_release)),
        Matter::Tun { failed: None } => Words::of("/dev/net/tun can be opened"),
        Matter::Tun { failed: Some(failed) } => Words::of(failed.to_string())
            .instead("`--network user` is refused")
            .enable("sudo modprobe tun && sudo chmod 666 /dev/net/tun"),
        Matter::Keys { failed: None } => Words::of("a session keyring of the container's own"),
        Matter::Keys { failed: Some(failed) } => {
            Words::of(failed.to_string()).instead("there is none, neither the caller's nor the container's")
        }
        Matter::Container { kind, mapped } => container(*kind, *mapped),
        Matter::SecurityModules { selinux, apparmor } => Words::of(match (selinux, apparmor) {
            (false, false) => "neither SELinux nor AppArmor",
            (true, false) => "SELinux enforces",
            (false, true) => "AppArmor is at work",
            (true, true) => "SELinux enforces, AppArmor is at work",
        }),
        Matter::Tracing { scope } => tracing(*scope),
        Matter::TerminalInput { allowed: true } => Words::of(
            "the kernel lets programs push input into their terminal; a container has one of its own",
        ),
        Matter::TerminalInput { allowed: false } => Words::of("no program can push input into a terminal"),
        Matter::HiddenProcesses { hidepid } if hidepid.is_empty() => Words::of("none"),
        Matter::HiddenProcesses { hidepid } => Words::of(format!("/proc is mounted with hidepid={hidepid}"))
            .instead("inside, where /proc is the container's own, nothing is hidden")
            .enable("sudo mount -o remount,hidepid=0 /proc"),
        Matter::TimeNamespaces { there } => Words::of(match there {
            true => "there; mk does not use them: the clock inside is the machine's",
            false => "none; mk does not use them",
        }),
        Matter::OpenFiles { most } => amount(*most, "ulimit -n 4096"),
        Matter::Processes { most } => amount(*most, "ulimit -u 4096"),
        Matter::Stuck { folder } => Words::of(format!("`{}` does not answer", folder.display()))
            .instead("nothing that needs the store works")
            .enable("a store elsewhere: `--store DIR`"),
        _ => network::words(matter, place).unwrap_or_default(),
    }
}

fn amount(most: Option<u64>, command: &str) -> Words {
    let words = Words::of(most.map_or("no limit".into(), |most| format!("at most {most}")));
    words.enable(command)
}

fn container(kind: Option<&str>, mapped: bool) -> Words {
    let words = Words::of(match (kind, mapped) {
        (None, false) => return Words::of("mk runs in none"),
        (None, true) => "mk runs in a user namespace".to_owned(),
        (Some(kind), false) => format!("mk seems to run in one of {kind}"),
        (Some(kind), true) => format!("mk seems to run in one of {kind}, in a user namespace"),
    });
    words.instead("there are only the ids that it was given, and what is forbidden around it")
}

fn tracing(scope: u8) -> Words {
    match scope {
        0 | 1 => Words::of(format!("kernel.yama.ptrace_scope is {scope}")),
        _ => Words::of(format!("kernel.yama.ptrace_scope is {scope}"))
            .instead("debuggers do not work inside")
            .enable("sudo sysctl -w kernel.yama.ptrace_scope=1"),
    }
}

#[cfg(test)]
mod tests {
    use mk_core::cgroup::Why;

    use super::*;

    fn place() -> Place<'static> {
        Place {
            mk: Path::new("/usr/local/bin/mk"),
            os_release: "ID=ubuntu\nID_LIKE=debian\n",
            contained: false,
        }
    }

    #[test]
    fn ubuntu_s_restriction_comes_with_a_profile_for_this_mk() {
        let failed = SysError::new(mk_core::sys::Errno::PERM, "write(\"/proc/self/uid_map\")");
        let state = UserNamespaces::Refused(Reason::AppArmor, failed);
        let words = words(&Matter::UserNamespaces(state), &place());
        let commands = words.enable.join("\n");
        assert!(
            commands.contains("profile mk /usr/local/bin/mk flags=(unconfined) { userns, }"),
            "{commands}"
        );
        assert!(commands.contains("apparmor_parser -r"), "{commands}");
    }

    #[test]
    fn the_helpers_are_installed_as_the_distribution_does_it() {
        assert_eq!(install_helpers(place().os_release), "sudo apt-get install uidmap");
        assert_eq!(
            install_helpers("ID=\"rocky\"\nID_LIKE=\"rhel centos\"\n"),
            "sudo dnf install shadow-utils"
        );
        assert!(install_helpers("").starts_with("install newuidmap"));
        assert_eq!(install_passt(place().os_release), "sudo apt-get install passt");
        assert!(install_passt("ID=mine").starts_with("install pasta"));
    }

    #[test]
    fn a_controller_that_is_missing_names_its_option_and_what_enables_it() {
        let cgroups = Cgroups {
            kind: Kind::Hybrid,
            usable: vec![Controller::Memory, Controller::Pids, Controller::CpuSet],
            refused: vec![(Controller::Cpu, Why::NotMounted)],
            kill: None,
        };
        let words = limits(&cgroups);
        assert_eq!(
            words.found,
            "cgroups of version 1 beside version 2: memory, pids, cpuset"
        );
        assert_eq!(
            words.instead.as_deref(),
            Some("--cpus is refused: no cgroup hierarchy that can do it is mounted")
        );
        assert_eq!(words.enable, [hints::for_limits(&Why::NotMounted)]);
    }
}
