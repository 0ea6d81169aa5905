//! An error → what to do about it: the one place that knows sysctls and distributions.

use std::error::Error;
use std::io;
use std::path::Path;

use mk_core::assemble;
use mk_core::cgroup::{self, Why};
use mk_core::changes;
use mk_core::container::{self, monitor};
use mk_core::enter::{self, grant};
use mk_core::fetch::{self, debian};
use mk_core::join;
use mk_core::mounts::mapped;
use mk_core::net;
use mk_core::plan::resolve;
use mk_core::process::exit::{Step, StepError};
use mk_core::process::idmap::{self, Reason};
use mk_core::process::{self};
use mk_core::rootfs::{attach, kept};
use mk_core::spec::{self, privileges};
use mk_core::store;
use mk_core::sys::{Errno, SysError, namespace};

use crate::report::Failing;
use crate::settings;

mod joined;
mod network;

/// Returns advice for `error`, looking at it and all its causes, the outermost first.
pub(crate) fn advice(error: &(dyn Error + 'static)) -> Option<String> {
    let chain = || std::iter::successors(Some(error), |&error| error.source());
    let advice = chain().find_map(of_one);
    if !chain().any(is_not_permitted) {
        return advice;
    }
    let mut lines: Vec<String> = advice.into_iter().collect();
    lines.push("`mk doctor` says what works here, what does not, and what would enable it".into());
    Some(lines.join("\n"))
}

/// Whether the machine, and not what was asked, stands in the way of a run.
fn is_not_permitted(error: &(dyn Error + 'static)) -> bool {
    let by_errno = |failed: &SysError| {
        matches!(
            failed.errno,
            Errno::PERM | Errno::ACCESS | Errno::NOSYS | Errno::NODEV | Errno::OPNOTSUPP
        )
    };
    if let Some(enter::Error::Limits(error)) = error.downcast_ref() {
        return matches!(error, cgroup::Error::Refused { .. });
    }
    if let Some(enter::Error::Process(error)) = error.downcast_ref() {
        return match error {
            process::Error::Sys(failed) => by_errno(failed),
            process::Error::TooOld(_) => true,
            process::Error::Step(error) => {
                let own = matches!(error.step, Step::Exec | Step::Interpreter | Step::Workdir);
                !own && by_errno(&error.failed)
            }
            _ => false,
        };
    }
    matches!(
        error.downcast_ref(),
        Some(idmap::Error::Forbidden { .. } | idmap::Error::Helper { .. })
    )
}

fn of_one(error: &(dyn Error + 'static)) -> Option<String> {
    if let Some(failing) = error.downcast_ref::<Failing>() {
        return failing.hint.clone();
    }
    if let Some(spec::Error::Network(refused)) = error.downcast_ref() {
        return Some(network::of_pointless(refused));
    }
    if let Some(enter::Error::Uplink(error)) = error.downcast_ref() {
        return network::of_uplink(error);
    }
    if let Some(error) = error.downcast_ref() {
        return of_settings(error);
    }
    if let Some(error) = error.downcast_ref() {
        return of_assembly(error);
    }
    if let Some(error) = error.downcast_ref() {
        return of_store(error);
    }
    if let Some(error) = error.downcast_ref() {
        return of_run(error);
    }
    if let Some(error) = error.downcast_ref() {
        return network::of_network(error);
    }
    if let Some(error) = error.downcast_ref() {
        return of_ids(error);
    }
    if let Some(error) = error.downcast_ref() {
        return of_container(error);
    }
    if let Some(error) = error.downcast_ref() {
        return of_join(error);
    }
    if let Some(error) = error.downcast_ref() {
        return of_changes(error);
    }
    if let Some(error) = error.downcast_ref() {
        return of_call(error);
    }
    of_kind(error.downcast_ref::<io::Error>()?.kind())
}

fn of_settings(error: &settings::Error) -> Option<String> {
    match error {
        settings::Error::NoStore => Some("say where with `--store DIR` or `MK_STORE`".into()),
        settings::Error::Config { hint, .. } => hint.clone(),
        _ => None,
    }
}

fn of_assembly(error: &assemble::Error) -> Option<String> {
    match error {
        assemble::Error::Plan(error) => of_plan(error),
        assemble::Error::Fetch(error) => of_fetch(error),
        assemble::Error::Store(error) => of_store(error),
        assemble::Error::LockWouldChange { .. } => Some("`mk lock RECIPE` pins what is missing".into()),
        assemble::Error::NoBase { .. } | assemble::Error::OtherImage { .. } => None,
        assemble::Error::Step { source, .. } | assemble::Error::Start(source) => match &**source {
            assemble::StepError::Fetch(error) => of_fetch(error),
            assemble::StepError::Store(error) => of_store(error),
            assemble::StepError::NoSecret { name } => {
                Some(format!("`mk build --secret {name}=FILE` gives it"))
            }
            _ => None,
        },
    }
}

fn of_plan(error: &resolve::Error) -> Option<String> {
    match error {
        resolve::Error::NoDeb { pinned, .. } if !pinned.is_empty() => {
            Some(format!("the archive has it for {} only", pinned.join(" and ")))
        }
        resolve::Error::NoDeb { .. } | resolve::Error::NoUrl { .. } => {
            Some("`mk lock RECIPE` pins what is missing".into())
        }
        resolve::Error::WrongDigest { actual, .. } => Some(format!(
            "if the file changed on purpose, write its new digest: sha256 = \"{actual}\""
        )),
        resolve::Error::NoFile { .. } => None,
    }
}

fn of_fetch(error: &fetch::Error) -> Option<String> {
    Some(match error {
        fetch::Error::Missing { .. } => "paths in a recipe start from the recipe's folder".into(),
        fetch::Error::WrongDigest { .. } | fetch::Error::WrongSize { .. } => {
            "it was changed where it comes from, or on the way: find out why before you pin it anew \
             (`mk lock --update`, or `sha256 = …` in the recipe)"
                .into()
        }
        fetch::Error::Status { status: 404 | 410, .. } | fetch::Error::PackageGone { .. } => {
            "it is gone there: `mk lock --update` pins what is there now; to build from the old pin, put the old file \
             into a folder and name that with `--source-dir`"
                .into()
        }
        fetch::Error::Status { status: 407, .. } | fetch::Error::BadProxy { .. } => {
            "the proxy is named by `http_proxy`, `https_proxy` or `all_proxy`: http://user:password@host:port".into()
        }
        fetch::Error::Network { url, .. } if is_index(url) => {
            "pins that are there hold without a network; new ones need a mirror: `--mirror URL` names another".into()
        }
        fetch::Error::Network { .. } | fetch::Error::Offline { .. } => {
            "without a network: put the file into a folder and name that with `--source-dir` or `MK_SOURCES`; it is \
             found there by its sha256"
                .into()
        }
        fetch::Error::Write { source, .. } => return of_kind(source.kind()),
        fetch::Error::Debian(error) => return of_debian(error),
        _ => return None,
    })
}

/// Whether `url` is an index of a Debian mirror.
pub(crate) fn is_index(url: &str) -> bool {
    url.ends_with("Release") || url.contains("/by-hash/")
}

fn of_debian(error: &debian::Error) -> Option<String> {
    Some(match error {
        debian::Error::Untrusted { .. } => {
            "the keys come with the package debian-archive-keyring; `--insecure-index` accepts the index unchecked".into()
        }
        debian::Error::Expired { .. } => "the mirror is out of date, or this machine's clock is wrong: try another with \
                                          `--mirror URL`"
            .into(),
        debian::Error::NoSuite { .. } => "`--mirror URL` names another mirror".into(),
        _ => return None,
    })
}

fn of_store(error: &store::Error) -> Option<String> {
    Some(match error {
        store::Error::NotAStore { .. } => "name a folder that is new, empty or a store: `--store DIR`".into(),
        store::Error::NotOurs { .. } => "each user has a store of their own: leave `--store` and `MK_STORE` out".into(),
        store::Error::OtherVersion { .. } => {
            "use the mk that made it, or another folder: `--store DIR`".into()
        }
        store::Error::OtherOwners { .. } => {
            "use another folder: `--store DIR`; or delete this one as the user who made it".into()
        }
        store::Error::Full { .. } => return of_kind(io::ErrorKind::StorageFull),
        store::Error::Damaged { .. } | store::Error::NoTree(_) | store::Error::NoObject { .. } => {
            "`mk verify --repair` makes anew what is damaged".into()
        }
        store::Error::Unsynced(_) => {
            "`mk verify` reads all of it again, and says so where it is whole; what is not, `mk verify --repair` makes anew".into()
        }
        store::Error::Missing(_) | store::Error::NotLaidOut(_) => "`mk build` makes it".into(),
        store::Error::Ambiguous { .. } => "give more digits".into(),
        store::Error::VolumeInUse(_) => "it can be taken away when the run has ended".into(),
        store::Error::NoSuchId { .. } => {
            "a range for this user, as root: `usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER`".into()
        }
        store::Error::Sys(error) => return of_store_folder(io::Error::from(error.clone()).kind()),
        store::Error::Io(error) => return of_store_folder(error.kind()),
        store::Error::Body(error) => return of_kind(error.kind()),
        _ => return None,
    })
}

/// A folder of the store cannot be opened or made.
fn of_store_folder(kind: io::ErrorKind) -> Option<String> {
    match kind {
        io::ErrorKind::PermissionDenied => {
            Some("`--store DIR` or `MK_STORE` names a folder that you can write to".into())
        }
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
            Some("a store is a folder, and here is a file: `--store DIR` names another".into())
        }
        kind => of_kind(kind),
    }
}

fn of_run(error: &enter::Error) -> Option<String> {
    Some(match error {
        enter::Error::MissingSource { source_path } => {
            if let Ok(below) = source_path.strip_prefix("~") {
                let home = Path::new("$HOME").join(below);
                return Some(format!("mk does not expand `~`: write \"{}:…\"", home.display()));
            }
            format!("make it first: `mkdir -p {}`; or have mk do so: `-v SOURCE:TARGET:create`", source_path.display())
        }
        enter::Error::Attach(error) => return of_attached(error),
        enter::Error::Network(net::Error::Publish(error)) => return network::of_published(error),
        enter::Error::NotRoot => "leave it out: the caller is all that such a container's root is on the host".into(),
        enter::Error::NoMappedLayers { .. } => {
            "a newer kernel; or mk as an ordinary user, whose containers have ids of their own".into()
        }
        enter::Error::Mapped(mapped::Error::Filesystem { .. }) => {
            "`-v SOURCE:TARGET:noidmap` shows it as it is: its files are nobody's inside, and can be read if their mode \
             lets everyone"
                .into()
        }
        enter::Error::Mapped(mapped::Error::Below { .. }) => {
            "`bind` leaves out what is mounted below: `-v SOURCE:TARGET:bind`; `noidmap` shows it as it is".into()
        }
        enter::Error::Unknown(_) => "numbers work without an entry there: `-u UID:GID`".into(),
        enter::Error::NotMapped { single: true, .. } => {
            "`-u 0` runs as the image's root, which is you\n\
             other users need a range of ids, as root: `usermod --add-subuids 100000-165535 --add-subgids 100000-165535 \
             USER`, with newuidmap installed (Debian: uidmap), and then a new store (`--store DIR`): one that was made \
             before keeps owners as `single`"
                .into()
        }
        enter::Error::Limits(cgroup::Error::Refused { why, .. }) => for_limits(why),
        enter::Error::Grant(grant::Error::File { failed, .. }) if failed.kind() == io::ErrorKind::NotFound => {
            "`--seccomp` takes a path, or one of the words `default` and `unconfined`".into()
        }
        enter::Error::Grant(grant::Error::Privileges(privileges::Error::NotHeld { .. })) => {
            "mk gives what it has itself: `grep CapEff /proc/self/status` shows it as bits, `capsh --decode=` as names"
                .into()
        }
        enter::Error::HostsNetwork { kind } => network::instead_of(kind),
        enter::Error::Network(error) => return network::of_network(error),
        enter::Error::Process(process::Error::Step(error)) => return of_step(error),
        enter::Error::Monitor(monitor::Error::Container(error)) => return of_container(error),
        enter::Error::Namespace(error) => return joined::of_namespace(error),
        enter::Error::Partner(error) => return joined::of_partner(error),
        enter::Error::OwnIds { .. } => joined::of_own_ids(),
        _ => return None,
    })
}

/// Whether root of the machine calls. An ordinary user may be root here too, of a namespace that mk has made.
fn is_root() -> bool {
    namespace::is_first_user_namespace().unwrap_or(true) && rustix::process::geteuid().is_root()
}

/// Returns how to get a cgroup that mk may limit.
pub(crate) fn for_limits(why: &Why) -> String {
    let root = is_root();
    let systemd = Path::new("/run/systemd/system").exists();
    let scope = match root {
        true => "`systemd-run --scope -p Delegate=yes mk run …` gives mk a cgroup of its own",
        false => "`systemd-run --user --scope -p Delegate=yes mk run …` gives mk a cgroup of its own",
    };
    match why {
        Why::NotOurs { legacy: true, .. } => {
            "root may: `sudo mk run …`; for others the machine must boot with version 2 alone: \
             `systemd.unified_cgroup_hierarchy=1` on the kernel's command line"
                .into()
        }
        Why::NotOurs { .. } | Why::Busy { .. } if systemd => scope.into(),
        Why::NotOurs { .. } => "root may, and can give you a cgroup: docs/run.md, \"Limits\", shows how".into(),
        Why::Busy { folder } => {
            let folder = folder.display();
            format!("move them into one beside: `mkdir {folder}/others`, then each pid into its cgroup.procs")
        }
        Why::NotEnabled { .. } if systemd && !root => {
            "let users have all of them, as root: `systemctl edit user@.service`, with `[Service]` and \
             `Delegate=cpu cpuset io memory pids`; then log in again"
                .into()
        }
        Why::NotEnabled { folder, .. } => {
            let above = folder.parent().unwrap_or(folder);
            let file = above.join("cgroup.subtree_control");
            format!("switch it on above, as root: `echo '+memory +cpu +pids +cpuset' > {}`", file.display())
        }
        Why::ReadOnly { .. } if in_a_container() => {
            "mk runs in a container that may not have cgroups: limit that one, or start it with `--privileged`".into()
        }
        Why::ReadOnly { mount } => format!("as root: `mount -o remount,rw {}`", mount.display()),
        Why::NotMounted if in_a_container() => {
            "mk runs in a container without cgroups: limit that one instead".into()
        }
        Why::NotMounted => "as root: `mount -t cgroup2 none /sys/fs/cgroup`".into(),
        Why::OutOfSight { .. } => "mount the hierarchy where mk runs, as root: `mount -t cgroup2 none DIR`".into(),
    }
}

/// What a run uses of the store besides its image.
fn of_attached(error: &attach::Error) -> Option<String> {
    Some(match error {
        attach::Error::Unclear { name } => format!(
            "write `-v ./{name}:…` for the file or folder, `--mount type=volume,source={name},target=…` for a volume"
        ),
        attach::Error::Volume { failed, .. } => return of_store(failed),
        attach::Error::Kept(error) => match error {
            kept::Error::OtherTree { path, kept, .. } => format!(
                "what was written lies over files that are not this image's: take another folder; or go on with that \
                 image (`mk images --json` tells which has the tree {}); or `rm -rf {}`",
                kept.short(),
                path.display()
            ),
            kept::Error::OtherKind { .. } => "take another folder for each kind of run".into(),
            kept::Error::InUse { .. } => "each run needs a folder of its own".into(),
            kept::Error::NotOurs { .. } => "whoever it belongs to could change the container from outside: make one of \
                                            your own, `--scratch ./NAME` does"
                .into(),
            kept::Error::Shared { path, .. } => {
                format!("`chmod go-w {}`, if nothing of others is in it", path.display())
            }
            kept::Error::NotEmpty { path, .. } => {
                format!("mk makes a folder that is missing: `--scratch {}/scratch`", path.display())
            }
            kept::Error::Filesystem { .. } => {
                "a folder on another filesystem does, ext4, xfs, btrfs or tmpfs; or leave `--scratch` out: then writes \
                 go to memory"
                    .into()
            }
            kept::Error::Store(error) => return of_store(error),
            kept::Error::Damaged { .. } | kept::Error::Sys { .. } => return None,
        },
    })
}

/// Whether a mount could not be put in its place.
fn is_move(error: &StepError) -> bool {
    error.object.starts_with("bind ") && error.failed.call.starts_with("move_mount")
}

fn of_step(error: &StepError) -> Option<String> {
    Some(match (error.step, error.failed.errno) {
        (Step::OomScore, Errno::ACCESS) if is_root() => {
            "a lower score than mk's own takes CAP_SYS_RESOURCE on the whole machine, which this root does not have: \
             leave it out"
                .into()
        }
        (Step::OomScore, Errno::ACCESS) => {
            "a lower score than mk's own takes CAP_SYS_RESOURCE on the whole machine: call mk as root, or leave it out"
                .into()
        }
        (Step::Workdir | Step::Exec | Step::Interpreter, Errno::MFILE) => {
            "`--ulimit nofile`, or the shell's `ulimit -n`, leaves too few files to start a command with: 16 are enough"
                .into()
        }
        (Step::Mount, Errno::NOTDIR) if error.object.starts_with("bind ") => {
            "what is there, or above it, is a file, and a folder can only lie over a folder: another place does".into()
        }
        (Step::Mount, Errno::INVAL) if is_move(error) => {
            "a file can only lie over a file, and there is a folder: name a file as the place, such as `-v FILE:/srv/FILE`"
                .into()
        }
        (Step::Exec, Errno::NOENT) if error.object.contains('/') => {
            "the path is looked up inside the image; `mk inspect --tree IMAGE` lists its files".into()
        }
        (Step::Exec, Errno::NOENT) => {
            "it is in none of the folders of the container's PATH; `-e PATH=…` changes that".into()
        }
        (Step::Exec, Errno::ACCESS) => "it is no program: without execute permission, or a folder".into(),
        (Step::Exec, Errno::NOEXEC) => {
            "it is no program for this machine: a script needs `#!` and its interpreter".into()
        }
        (Step::Interpreter, _) => {
            "a script's `#!` line, or a program's loader, names what the image must hold".into()
        }
        (Step::Workdir, Errno::NOENT) => "`-w DIR` names a folder of the image; a volume makes one".into(),
        (Step::Mount | Step::Root | Step::Scratch, Errno::PERM | Errno::ACCESS) if in_a_container() => {
            "mk runs in a container that forbids mounts: start that with `mk run --nesting`; with other tools, with \
             `--privileged`, or `--security-opt seccomp=unconfined --security-opt systempaths=unconfined`"
                .into()
        }
        _ => return None,
    })
}

fn of_container(error: &container::Error) -> Option<String> {
    Some(match error {
        container::Error::NameLikeId { name } => format!("put a letter before it: `c-{name}`"),
        container::Error::NameTaken { name, .. } => {
            format!("`mk stop {name}` ends it, or choose another `--name`")
        }
        container::Error::Unknown { like: Some(like), .. } => format!("did you mean `{like}`?"),
        container::Error::Unknown { .. } => "`mk ps --all` lists the containers".into(),
        container::Error::Ambiguous { .. } => "give more digits".into(),
        container::Error::Running { called } => {
            format!("`mk stop {called}` ends it first; `mk rm -f {called}` kills it")
        }
        container::Error::NotStarted { .. } => "try again in a moment".into(),
        container::Error::OutOfSight { .. } => {
            "it was started in another PID namespace: call mk where it was started".into()
        }
        container::Error::NotOurs { path, why } if why.starts_with("its mode") => {
            let path = path.display();
            format!("`chmod 700 {path}` if it is yours, or name another with `MK_STATE`")
        }
        container::Error::NotOurs { .. } => "name another folder with `MK_STATE`".into(),
        container::Error::State { failed, .. } => match io::Error::from(failed.clone()).kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                "there is no room for it: `mk ps --all` lists containers that have ended, `mk rm` takes them and their \
                 logs away"
                    .into()
            }
            _ => "`XDG_RUNTIME_DIR` or `MK_STATE` names a folder that you can write to".into(),
        },
        container::Error::Unreadable {
            monitor: Some(pid), ..
        } => format!(
            "the mk that made it can look after it; without that one, `kill {pid}` asks it to end: this is the process \
             that looks after it"
        ),
        container::Error::Unreadable { path, .. } => format!(
            "the mk that made it can look after it; once it has ended, `rm -r {}` has it forgotten",
            path.display()
        ),
        container::Error::Document { .. } => "another mk may have written it, which can read it".into(),
        _ => return None,
    })
}

fn of_join(error: &join::Error) -> Option<String> {
    Some(match error {
        join::Error::Container(error) => return of_container(error),
        join::Error::OutOfReach { .. } => {
            "go in as the user who started it, from where it was started; a program inside that has set-user-id or file \
             capabilities of the host can be out of reach for its own user"
                .into()
        }
        join::Error::NotApart { .. } => "this mk runs inside that container: run the command itself".into(),
        join::Error::Unknown(_) => "numbers work without an entry there: `-u UID:GID`".into(),
        join::Error::NotMapped { .. } => "`-u 0` is the container's root".into(),
        join::Error::Process(process::Error::Step(error)) => return of_step(error),
        _ => return None,
    })
}

fn of_changes(error: &changes::Error) -> Option<String> {
    Some(match error {
        changes::Error::Gone { .. } => {
            "`mk run --scratch DIR` keeps what a container writes in a folder of yours".into()
        }
        changes::Error::Refused { .. } => "look as the user who started it, from where it was started".into(),
        changes::Error::Container(error) => return of_container(error),
        changes::Error::Store(error) => return of_store(error),
        _ => return None,
    })
}

fn in_a_container() -> bool {
    ["/.dockerenv", "/run/.containerenv", "/run/systemd/container"]
        .iter()
        .any(|path| Path::new(path).exists())
}

fn of_ids(error: &idmap::Error) -> Option<String> {
    match error {
        idmap::Error::Forbidden { reason, .. } => Some(of_reason(*reason).into()),
        idmap::Error::Helper { file, .. } => Some(format!(
            "`{file}` and the helper must fit together: it must be setuid root (or hold the capability), and the ranges \
             must not overlap"
        )),
        idmap::Error::Sys(error) => of_call(error),
    }
}

/// How to allow user namespaces where something forbids them.
pub(crate) fn of_reason(reason: Reason) -> &'static str {
    match reason {
        Reason::AppArmor => {
            "Ubuntu 23.10 and later: `sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0`, or an AppArmor \
             profile for mk that says `userns,`; or call mk as root"
        }
        Reason::CloneForbidden => {
            "Debian 10 and Arch's hardened kernel: `sudo sysctl -w kernel.unprivileged_userns_clone=1`; or call mk as root"
        }
        Reason::NoneAllowed => {
            "RHEL and CentOS 7, hardened systems: `sudo sysctl -w user.max_user_namespaces=15000`; or call mk as root"
        }
        Reason::TooMany => {
            "`sudo sysctl -w user.max_user_namespaces=15000` raises the limit; 32 inside each other do not"
        }
        Reason::NotBuilt => "a kernel with CONFIG_USER_NS, or mk as root",
        Reason::Unknown => {
            "in a container, its seccomp filter forbids it: start that with `mk run --nesting` (Docker and Podman take \
             `--security-opt seccomp=unconfined`); in a chroot, leave it; or call mk as root"
        }
    }
}

fn of_call(error: &SysError) -> Option<String> {
    match error.errno {
        Errno::NOSPC => of_kind(io::ErrorKind::StorageFull),
        Errno::DQUOT => of_kind(io::ErrorKind::QuotaExceeded),
        Errno::ROFS => of_kind(io::ErrorKind::ReadOnlyFilesystem),
        Errno::MFILE => Some("too many files are open: `ulimit -n 4096` allows more".into()),
        _ => None,
    }
}

fn of_kind(kind: io::ErrorKind) -> Option<String> {
    let advice = match kind {
        io::ErrorKind::StorageFull => {
            "the disk is full: `mk gc` frees what no image needs, `--store DIR` keeps images on another disk"
        }
        io::ErrorKind::QuotaExceeded => {
            "your disk quota is used up: `mk gc` frees what no image needs, `--store DIR` keeps images elsewhere"
        }
        io::ErrorKind::ReadOnlyFilesystem => "it is mounted read-only: `--store DIR` keeps images elsewhere",
        _ => return None,
    };
    Some(advice.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_is_found_below_other_errors() {
        let full = io::Error::from(io::ErrorKind::StorageFull);
        let wrapped = store::Error::Io(io::Error::other(full));
        assert_eq!(advice(&wrapped), None, "nothing is known of an error in disguise");
        let step = SysError {
            call: "write".into(),
            errno: Errno::NOSPC,
        };
        assert!(advice(&store::Error::Sys(step)).unwrap().contains("mk gc"));
        assert_eq!(advice(&Failing::new("x").hint("y")).as_deref(), Some("y"));
        assert_eq!(advice(&Failing::new("x")), None);
    }

    #[test]
    fn whatever_forbids_user_namespaces_there_is_a_way() {
        for reason in [
            Reason::CloneForbidden,
            Reason::NoneAllowed,
            Reason::TooMany,
            Reason::AppArmor,
            Reason::NotBuilt,
            Reason::Unknown,
        ] {
            let failed = SysError {
                call: "unshare(CLONE_NEWUSER)".into(),
                errno: Errno::PERM,
            };
            assert!(
                advice(&idmap::Error::Forbidden { reason, failed }).is_some(),
                "{reason:?}"
            );
        }
    }

    #[test]
    fn what_the_machine_forbids_points_to_the_doctor_and_what_was_asked_wrongly_does_not() {
        let failed = |step, errno| {
            let (object, note) = (String::new(), String::new());
            let failed = SysError::new(errno, "x");
            enter::Error::Process(process::Error::Step(StepError {
                step,
                object,
                note,
                failed,
            }))
        };
        let told = |error: &enter::Error| advice(error).is_some_and(|text| text.contains("mk doctor"));
        assert!(told(&failed(Step::Mount, Errno::PERM)));
        assert!(told(&failed(Step::Root, Errno::NODEV)));
        assert!(told(&enter::Error::Process(process::Error::Sys(SysError::new(
            Errno::PERM,
            "clone3"
        )))));
        assert!(!told(&failed(Step::Exec, Errno::ACCESS)));
        assert!(!told(&failed(Step::Mount, Errno::NOTDIR)));
    }

    #[test]
    fn a_missing_source_of_a_volume_says_mkdir() {
        let missing = enter::Error::MissingSource {
            source_path: "/tmp/t1".into(),
        };
        assert_eq!(
            advice(&missing).as_deref(),
            Some("make it first: `mkdir -p /tmp/t1`; or have mk do so: `-v SOURCE:TARGET:create`")
        );
    }
}
