//! From the call to the end of a program that does nothing, in the busybox of the fixtures: as root, as an ordinary user,
//! and many at once.

use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use mk_core::seccomp::{self, Arch};
use serde_json::{Value, json};

use super::{BOTH, Tell, starts, text, words};
use crate::contest::{Contest, Contestant, Metric};
use crate::image::{self, Image};
use crate::machine::{BWRAP, CRUN, NSPAWN, PODMAN, RUNC, UNSHARE};
use crate::table::Budget;
use crate::{Bench, Error, helper, machine};

/// Measures as root.
pub(super) fn measure(bench: &Bench, tell: Tell<'_>) -> Result<(), Error> {
    let image = Image::make(bench)?;
    let light = || {
        Ok(vec![
            mk(bench, &image),
            floor(bench, &image, &[])?.budget(Budget::Ratio(1.2)),
            bwrap(&image)?.budget(Budget::Ratio(0.75)),
            oci(bench, &image, "crun", &[])?.budget(Budget::Ratio(0.5)),
            unshare(&image)?,
            Contestant::of("stamp alone", image::stamp(bench)?, Vec::new())
                .differs("no container: what is in all the others"),
        ])
    };
    starts(bench, "start of a run, as root", BOTH, 300, light, &mut *tell)?;
    let heavy = || {
        Ok(vec![
            mk(bench, &image),
            oci(bench, &image, "runc", &[])?,
            nspawn(&image)?,
            podman(bench, &image, "none")?,
        ])
    };
    starts(
        bench,
        "start of a run, as root, beside slower ones",
        &[Metric::End],
        30,
        heavy,
        tell,
    )
}

/// Measures as an ordinary user, one without subordinate ids.
pub(super) fn measure_user(bench: &Bench, tell: Tell<'_>) -> Result<(), Error> {
    // What this user has in folders that are root's own is not to be reached.
    let home = bench.folder.join("user");
    fs_err::create_dir_all(&home)?;
    chown(&home, Some(USER), Some(USER))?;
    let own = Bench {
        mk: home.join("mk"),
        ..bench.clone()
    };
    fs_err::copy(&bench.mk, &own.mk)?;
    let image = Image::make(bench)?;
    let store = home.join("store");
    let mut build = Command::new(&own.mk);
    build
        .args(["build", "--quiet", "--store"])
        .arg(&store)
        .arg(&image.recipe);
    machine::output(as_user(build, &home))?;
    let mut inspect = Command::new(&own.mk);
    inspect
        .args(["inspect", "--rootfs", "busybox", "--store"])
        .arg(&store);
    let rootfs = machine::output(as_user(inspect, &home))?.into();
    let conf = store
        .join("conf")
        .join(image.conf.file_name().unwrap_or_default());
    let image = Image {
        store,
        rootfs,
        conf,
        ..image
    };
    let contestants = || {
        let all = [
            mk(&own, &image),
            floor(bench, &image, &["-u"])?,
            bwrap(&image)?,
            oci(bench, &image, "crun", &[USER, USER])?,
        ];
        Ok(all.into_iter().map(|one| of_user(one, home.clone())).collect())
    };
    starts(
        bench,
        "start of a run, as an ordinary user",
        BOTH,
        300,
        contestants,
        tell,
    )
}

/// What an OCI runtime calls the container.
const ID: &str = "mk-bench";

/// An id that no account has.
const USER: u32 = 61_234;

fn of_user(contestant: Contestant, home: PathBuf) -> Contestant {
    let command = contestant.command;
    Contestant {
        command: Box::new(move |round| Ok(as_user(command(round)?, &home))),
        ..contestant
    }
}

fn as_user(mut command: Command, home: &Path) -> Command {
    command
        .uid(USER)
        .gid(USER)
        .current_dir(home)
        .env_clear()
        .env("HOME", home)
        .env("XDG_RUNTIME_DIR", home)
        .env("PATH", "/usr/bin:/bin");
    command
}

/// Measures a thousand runs, so many at once.
pub(super) fn measure_crowd(bench: &Bench, tell: Tell<'_>) -> Result<(), Error> {
    let image = Image::make(bench)?;
    let count = if bench.quick { 100 } else { 1000 };
    for at_once in [1, 2, 8, 64] {
        let crowd = |contestant: Contestant| {
            let command = contestant.command;
            Contestant {
                command: Box::new(move |round| {
                    let command = command(round)?;
                    let own = std::iter::once(command.get_program()).chain(command.get_args());
                    // Each has a name of its own.
                    let own = own.map(|word| {
                        if word == ID {
                            format!("{ID}-{{}}").into()
                        } else {
                            word.into()
                        }
                    });
                    let first = [
                        "crowd".into(),
                        count.to_string().into(),
                        at_once.to_string().into(),
                    ];
                    helper::command(first.into_iter().chain(own))
                }),
                ..contestant
            }
        };
        let contestants = vec![
            crowd(mk(bench, &image)),
            crowd(bwrap(&image)?),
            crowd(oci(bench, &image, "crun", &[])?),
        ];
        let title = format!("{count} runs, {at_once} at once");
        let rounds = bench
            .rounds
            .unwrap_or(3)
            .min(if bench.quick { 1 } else { usize::MAX });
        let contest = Contest::new(title, rounds, contestants);
        let warm_ups = usize::from(!bench.quick);
        tell(Contest { warm_ups, ..contest }.hold()?);
    }
    Ok(())
}

fn mk(bench: &Bench, image: &Image) -> Contestant {
    let store = text(&image.store);
    let words = words(&["run", "--store", &store, "busybox", "stamp"]);
    Contestant::of("mk run", bench.mk.clone(), words)
}

/// The C program in this package, compiled here.
fn floor(bench: &Bench, image: &Image, options: &[&str]) -> Result<Contestant, Error> {
    let header = bench.folder.join("filter.h");
    fs_err::write(&header, filter())?;
    let program = image::compile(bench, "floor", &["-include", &text(&header)])?;
    let scratch = bench.folder.join("scratch");
    fs_err::create_dir_all(&scratch)?;
    let places = [&image.rootfs, &image.conf, &scratch].map(|path| text(path));
    let options = options.iter().map(|&option| option.to_owned());
    let words = options.chain(places).chain(["stamp".to_owned()]).collect();
    Ok(Contestant::of("floor.c", program, words).differs(
        "the same namespaces, mounts, masks, privileges and reaper; it reads no image and checks nothing",
    ))
}

/// The filter that mk loads, for C.
fn filter() -> String {
    let usual = seccomp::usual(Arch::HERE, mk_core::spec::privileges::USUAL.bits());
    let numbers: Vec<String> = usual.iter().map(|number| format!("{number:#x}ULL")).collect();
    format!(
        "static const unsigned long long filter[] = {{ {} }};\n",
        numbers.join(", ")
    )
}

fn bwrap(image: &Image) -> Result<Contestant, Error> {
    let rootfs = text(&image.rootfs);
    let words = words(&[
        "--unshare-all",
        "--ro-bind",
        &rootfs,
        "/",
        "--proc",
        "/proc",
        "--dev",
        "/dev",
        "stamp",
    ]);
    Ok(Contestant::of("bubblewrap", BWRAP.find()?, words)
        .differs("root read-only: no overlay; no /sys, masked paths, filter of system calls, files in /etc"))
}

fn unshare(image: &Image) -> Result<Contestant, Error> {
    let rootfs = text(&image.rootfs);
    let words = words(&[
        "--mount",
        "--uts",
        "--ipc",
        "--pid",
        "--net",
        "--cgroup",
        "--fork",
        "--mount-proc",
        "--root",
        &rootfs,
        "stamp",
    ]);
    Ok(Contestant::of("unshare", UNSHARE.find()?, words).differs(
        "namespaces, /proc and chroot; nothing else: no layer, /dev, privileges taken away, or reaper",
    ))
}

/// An OCI runtime, as root, or with the ids of a user.
fn oci(bench: &Bench, image: &Image, name: &str, user: &[u32]) -> Result<Contestant, Error> {
    let bundle = bench.folder.join(format!("bundle-{name}-{}", user.len()));
    fs_err::create_dir_all(&bundle)?;
    fs_err::write(
        bundle.join("config.json"),
        configuration(&image.rootfs, user).to_string(),
    )?;
    let state = match user {
        [] => bench.folder.join(name),
        _ => bench.folder.join("user").join(name),
    };
    let (program, differs, options) = match name {
        "crun" => (
            CRUN.find()?,
            "root read-only: no overlay, no files in /etc; no cgroup, no filter of system calls",
            &["--cgroup-manager=disabled"][..],
        ),
        _ => (
            RUNC.find()?,
            "root read-only: no overlay, no files in /etc; a cgroup, which it cannot do without; no filter of system calls",
            &[][..],
        ),
    };
    let (state, bundle) = (text(&state), text(&bundle));
    let mut all = words(&["--root", &state]);
    all.extend(words(options));
    all.extend(words(&["run", "--bundle", &bundle, ID]));
    Ok(Contestant::of(name, program, all).differs(differs))
}

fn nspawn(image: &Image) -> Result<Contestant, Error> {
    let rootfs = text(&image.rootfs);
    let words = words(&[
        "--quiet",
        "--register=no",
        "--keep-unit",
        "--private-network",
        "--volatile=no",
        "--read-only",
        "--directory",
        &rootfs,
        "--as-pid2",
        "/bin/stamp",
    ]);
    Ok(Contestant::of("systemd-nspawn", NSPAWN.find()?, words)
        .differs("root read-only: no overlay; not registered with systemd"))
}

/// From a folder, so without a layer of its own to make, without cgroups, and with the limits of who calls: what is left
/// is the least that podman does for a container.
pub(super) fn podman(bench: &Bench, image: &Image, network: &str) -> Result<Contestant, Error> {
    let rootfs = bench.folder.join("podman-rootfs");
    if !rootfs.exists() {
        // It writes there, which the folders of a store are not for.
        machine::call(
            Path::new("cp"),
            ["-a".as_ref(), image.rootfs.as_os_str(), rootfs.as_os_str()],
        )?;
    }
    let (root, rootfs) = (text(&bench.folder.join("podman")), text(&rootfs));
    let runroot = text(&bench.folder.join("podman-run"));
    let words = words(&[
        "--root",
        &root,
        "--runroot",
        &runroot,
        "--storage-driver",
        "vfs",
        "--cgroup-manager",
        "cgroupfs",
        "--events-backend",
        "none",
        "run",
        "--rm",
        "--cgroups",
        "disabled",
        "--ulimit",
        "nofile=1024:1024",
        "--ulimit",
        "nproc=1024:1024",
        "--network",
        network,
        "--rootfs",
        &rootfs,
        "stamp",
    ]);
    let name = format!("podman run --network {network}");
    Ok(Contestant::of(&name, PODMAN.find()?, words)
        .differs("from a folder: no layer, no image to look up; no cgroup; removes what it notes (--rm)"))
}

/// The same namespaces, filesystems and capabilities in the terms of the OCI runtime specification.
pub(super) fn configuration(rootfs: &Path, user: &[u32]) -> Value {
    let capabilities = [
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "FSETID",
        "KILL",
        "SETGID",
        "SETUID",
        "SETPCAP",
        "NET_BIND_SERVICE",
        "NET_RAW",
        "SYS_CHROOT",
        "AUDIT_WRITE",
        "SETFCAP",
    ]
    .map(|name| format!("CAP_{name}"));
    let mounts = [
        ("/proc", "proc", &["nosuid", "nodev", "noexec"][..]),
        ("/sys", "sysfs", &["ro", "nosuid", "nodev", "noexec"]),
        ("/dev", "tmpfs", &["nosuid", "noexec", "mode=755"]),
        ("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]),
        ("/dev/shm", "tmpfs", &["nosuid", "nodev", "noexec", "mode=1777"]),
        ("/dev/mqueue", "mqueue", &["nosuid", "nodev", "noexec"]),
        ("/tmp", "tmpfs", &["nosuid", "nodev", "mode=1777"]),
        ("/run", "tmpfs", &["nosuid", "nodev", "mode=755"]),
    ]
    .map(|(destination, kind, options)| {
        json!({ "destination": destination, "type": kind, "source": kind, "options": options })
    });
    let kinds = ["pid", "network", "ipc", "uts", "mount", "cgroup"];
    let kinds = kinds.into_iter().chain((!user.is_empty()).then_some("user"));
    let namespaces: Vec<Value> = kinds.map(|kind| json!({ "type": kind })).collect();
    let mut configuration = json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": { "uid": 0, "gid": 0 },
            "args": ["stamp"],
            "env": ["PATH=/usr/bin:/bin"],
            "cwd": "/",
            "noNewPrivileges": true,
            "capabilities": { "bounding": capabilities, "effective": capabilities, "permitted": capabilities },
        },
        "root": { "path": rootfs, "readonly": true },
        "hostname": "oci",
        "mounts": mounts,
        "linux": {
            "namespaces": namespaces,
            "maskedPaths": [
                "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/sched_debug",
                "/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/proc/interrupts",
                "/sys/devices/virtual/powercap", "/sys/firmware",
            ],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    });
    if let [uid, gid] = *user {
        let map = |id| json!([{ "containerID": 0, "hostID": id, "size": 1 }]);
        configuration["linux"]["uidMappings"] = map(uid);
        configuration["linux"]["gidMappings"] = map(gid);
    }
    configuration
}
