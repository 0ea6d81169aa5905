//! From the call to the end of a program that does nothing, in the busybox of the fixtures.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use mk_core::seccomp::{self, Arch};
use serde_json::{Value, json};

use crate::contest::{Contest, Contestant, Table};
use crate::machine::{self, BWRAP, CC, CRUN};
use crate::{Bench, Error};

/// Measures, with the calls back to back and 50 ms apart.
pub(crate) fn measure(bench: &Bench, tell: &mut dyn FnMut(Table)) -> Result<(), Error> {
    let image = Image::make(bench)?;
    for (gap, rounds) in [(Duration::ZERO, 300), (Duration::from_millis(50), 60)] {
        let contest = Contest {
            title: format!("run: `true` in busybox, {} ms between calls", gap.as_millis()),
            contestants: vec![
                mk(bench, &image),
                floor(bench, &image)?,
                bwrap(&image)?,
                crun(bench, &image)?,
                spawn(bench)?,
            ],
            rounds: bench.rounds.unwrap_or(rounds),
            warm_ups: 5,
            gap,
            settle: false,
        };
        tell(contest.hold()?);
    }
    Ok(())
}

/// The image that all run in.
pub(crate) struct Image {
    pub(crate) store: PathBuf,
    /// The folder of its tree, and that of its three files of `/etc`.
    pub(crate) rootfs: PathBuf,
    conf: PathBuf,
}

impl Image {
    pub(crate) fn make(bench: &Bench) -> Result<Self, Error> {
        let store = bench.folder.join("store");
        let recipe = bench.folder.join("busybox.toml");
        crate::unpack::write_recipe(&recipe, &bench.fixtures.join(crate::unpack::FIXTURES[0]))?;
        // The others cannot make places to mount on in a root that is read-only.
        let places = "\n[[step]]\ndir = [\"/dev\", \"/proc\", \"/run\", \"/sys\", \"/tmp\"]\n";
        let text = fs_err::read_to_string(&recipe)? + places;
        fs_err::write(&recipe, text)?;
        let mk = |words: &[&std::ffi::OsStr]| {
            let words = words
                .iter()
                .copied()
                .chain(["--store".as_ref(), store.as_os_str()]);
            machine::call(&bench.mk, words)
        };
        mk(&["build".as_ref(), "--quiet".as_ref(), recipe.as_os_str()])?;
        let rootfs = PathBuf::from(mk(&[
            "inspect".as_ref(),
            "--rootfs".as_ref(),
            "busybox".as_ref(),
        ])?);
        let document = mk(&["inspect".as_ref(), "busybox".as_ref()])?;
        let value: Value = serde_json::from_str(&document).map_err(|_| Error::Document(document.clone()))?;
        let digest = value["digest"]
            .as_str()
            .ok_or_else(|| Error::Document(document.clone()))?;
        Ok(Self {
            conf: store.join("conf").join(digest),
            rootfs,
            store,
        })
    }
}

pub(crate) fn contestant(
    name: &str,
    budget: Option<f64>,
    program: PathBuf,
    words: Vec<String>,
) -> Contestant {
    Contestant {
        name: name.into(),
        budget,
        command: Box::new(move |_| {
            let mut command = Command::new(&program);
            command.args(&words);
            Ok(command)
        }),
    }
}

pub(crate) fn text(path: &Path) -> String {
    path.display().to_string()
}

pub(crate) fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

fn mk(bench: &Bench, image: &Image) -> Contestant {
    let store = text(&image.store);
    let words = words(&["run", "--store", &store, "busybox", "true"]);
    contestant("mk run", None, bench.mk.clone(), words)
}

/// The C program beside this file, compiled here.
fn floor(bench: &Bench, image: &Image) -> Result<Contestant, Error> {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/floor.c");
    let program = bench.folder.join("floor");
    let header = bench.folder.join("filter.h");
    fs_err::write(&header, filter())?;
    let (program_text, header) = (text(&program), text(&header));
    let options = ["-O2", "-static", "-include", &header, "-o", &program_text, source];
    machine::call(&CC.find()?, options)?;
    let scratch = bench.folder.join("scratch");
    fs_err::create_dir_all(&scratch)?;
    let words = words(&[&text(&image.rootfs), &text(&image.conf), &text(&scratch), "true"]);
    Ok(contestant("floor.c (equal work)", Some(1.2), program, words))
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
        "true",
    ]);
    Ok(contestant(
        "bubblewrap (less work)",
        Some(0.75),
        BWRAP.find()?,
        words,
    ))
}

fn crun(bench: &Bench, image: &Image) -> Result<Contestant, Error> {
    let bundle = bench.folder.join("bundle");
    fs_err::create_dir_all(&bundle)?;
    fs_err::write(
        bundle.join("config.json"),
        configuration(&image.rootfs).to_string(),
    )?;
    let state = text(&bench.folder.join("crun"));
    let bundle = text(&bundle);
    let words = words(&[
        "--root",
        &state,
        "--cgroup-manager=disabled",
        "run",
        "--bundle",
        &bundle,
        "mk-bench",
    ]);
    Ok(contestant(
        "crun (no overlay, no cgroup)",
        Some(0.5),
        CRUN.find()?,
        words,
    ))
}

/// The measuring itself: a process that is started and ends.
fn spawn(bench: &Bench) -> Result<Contestant, Error> {
    let program = bench.folder.join("nothing");
    let source = bench.folder.join("nothing.c");
    fs_err::write(&source, "int main(void) { return 0; }\n")?;
    machine::call(
        &CC.find()?,
        ["-O2", "-static", "-o", &text(&program), &text(&source)],
    )?;
    Ok(contestant(
        "a process that ends at once",
        None,
        program,
        Vec::new(),
    ))
}

/// The same namespaces, filesystems and capabilities in the terms of the OCI runtime specification.
fn configuration(rootfs: &Path) -> Value {
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
    let namespaces = ["pid", "network", "ipc", "uts", "mount", "cgroup"].map(|kind| json!({ "type": kind }));
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": { "uid": 0, "gid": 0 },
            "args": ["true"],
            "env": ["PATH=/usr/bin:/bin"],
            "cwd": "/",
            "noNewPrivileges": true,
            "capabilities": { "bounding": capabilities, "effective": capabilities, "permitted": capabilities },
        },
        "root": { "path": rootfs, "readonly": true },
        "hostname": "crun",
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
    })
}
