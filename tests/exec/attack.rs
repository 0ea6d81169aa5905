//! A container's process hunts for what comes in: the moment between being born in its PID namespace and becoming
//! the command. The control goes in without mk's measures, and is caught.

use super::*;

use std::collections::BTreeSet;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use nix::sched::CloneFlags;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use rustix::thread::{CapabilitySet, CapabilitySets};

/// How the test program is started to act.
const WORDS: [&str; 4] = ["--exact", "exec::attack::acts", "--nocapture", "--test-threads=1"];

/// What the caller's command line holds and nobody in the container is to see.
const CANARY: &str = "a-folder-of-the-host";

/// How long mk is hunted.
const HUNT: Duration = Duration::from_secs(10);

/// Does what `MK_EXEC_ATTACK` says, and nothing where this is an ordinary test run.
#[test]
fn acts() {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is how the program is told what to do"
    )]
    let act = std::env::var("MK_EXEC_ATTACK").unwrap_or_default();
    match act.split_once(' ') {
        None if act == "hunt" => hunt(),
        Some(("join", pid)) => join(pid.parse().unwrap()),
        _ => assert_eq!(act, ""),
    }
}

/// Looks for processes that are neither this one nor programs of the image, for as long as the container lives, and says
/// what it could get hold of.
fn hunt() {
    let own = std::process::id().to_string();
    let mut caught = BTreeSet::new();
    let mut out = std::io::stdout();
    writeln!(out, "\nup").unwrap();
    loop {
        for entry in fs_err::read_dir("/proc").unwrap().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name == "1" || name == own || name.parse::<i32>().is_err() {
                continue;
            }
            for what in catch(&name)
                .into_iter()
                .filter(|what| caught.insert(what.clone()))
            {
                writeln!(out, "\ncaught {what}").unwrap();
            }
        }
        // Those that are traced end only when their tracer has heard of it.
        let flags = WaitPidFlag::WNOHANG | WaitPidFlag::__WALL;
        while waitpid(None, Some(flags)).is_ok_and(|status| status != WaitStatus::StillAlive) {}
    }
}

/// Says what of the process `pid` could be had that is not of this container.
fn catch(pid: &str) -> Vec<String> {
    let proc = Path::new("/proc").join(pid);
    let mut caught = Vec::new();
    let line = fs_err::read(proc.join("cmdline")).unwrap_or_default();
    if String::from_utf8_lossy(&line).contains(CANARY) {
        caught.push("the command line of the host".to_owned());
    }
    // Opened first: what is told afterwards is true of what was opened, or the process was not the command yet.
    let memory = fs_err::File::open(proc.join("mem")).is_ok();
    let environ = fs_err::read(proc.join("environ")).is_ok_and(|bytes| !bytes.is_empty());
    let traced = trace(pid.parse().unwrap());
    let foreign = |name: &str| {
        let target = fs_err::read_link(proc.join(name)).ok()?;
        let inside = target.starts_with("/bin") || target.starts_with("/hunter") || target == Path::new("/");
        (!inside).then(|| target.display().to_string())
    };
    for name in ["exe", "cwd", "root"] {
        caught.extend(foreign(name).map(|target| format!("{name}: {}", words(&target))));
    }
    if foreign("exe").is_some() {
        caught.extend(memory.then(|| "the memory".to_owned()));
        caught.extend(environ.then(|| "the environment".to_owned()));
        caught.extend(traced.then(|| "the process itself".to_owned()));
    }
    for file in fs_err::read_dir(proc.join("fd")).into_iter().flatten().flatten() {
        let target = fs_err::read_link(file.path())
            .unwrap_or_default()
            .display()
            .to_string();
        let harmless = ["", "/dev/null", "/dev/pts"].contains(&&*target) || target.starts_with("pipe:");
        if !harmless {
            caught.push(format!("a file: {}", words(&target)));
        }
    }
    caught
}

/// Whether the process `pid` can be traced; it is from then on.
fn trace(pid: i32) -> bool {
    let none = std::ptr::null::<u8>();
    #[expect(unsafe_code, reason = "the library of the tests has no ptrace")]
    // SAFETY: PTRACE_SEIZE without options reads and writes nothing of this process.
    let returned = unsafe { nix::libc::ptrace(nix::libc::PTRACE_SEIZE, pid, none, none) };
    returned == 0
}

/// A path without what changes from one run to the next.
fn words(target: &str) -> String {
    target
        .chars()
        .map(|letter| if letter.is_ascii_digit() { '#' } else { letter })
        .collect()
}

/// Goes into the container of the process `pid` as a naive program would, and executes `true` there.
fn join(pid: i32) {
    let folder = fs_err::File::open(std::env::current_dir().unwrap()).unwrap();
    // Not closed by the execution, and nothing else is done about it either.
    rustix::io::fcntl_setfd(&folder, rustix::io::FdFlags::empty()).unwrap();
    let handle = rustix::process::pidfd_open(
        rustix::process::Pid::from_raw(pid).unwrap(),
        rustix::process::PidfdFlags::empty(),
    )
    .unwrap();
    let mut flags = CloneFlags::empty();
    for (flag, name) in [
        (CloneFlags::CLONE_NEWUSER, "user"),
        (CloneFlags::CLONE_NEWNS, "mnt"),
        (CloneFlags::CLONE_NEWPID, "pid"),
    ] {
        let of = |pid: &str| fs_err::read_link(format!("/proc/{pid}/ns/{name}")).unwrap();
        flags.set(flag, of(&pid.to_string()) != of("self"));
    }
    nix::sched::setns(&handle, flags).unwrap();
    // As careful with capabilities as mk, so that it is not these that keep the container's processes off.
    let docker = CapabilitySet::from_bits_retain(0xa004_25fb);
    for number in 0..=40 {
        let one = CapabilitySet::from_bits_retain(1 << number);
        if !docker.contains(one) {
            rustix::thread::remove_capability_from_bounding_set(one).unwrap();
        }
    }
    let sets = CapabilitySets {
        effective: docker,
        permitted: docker,
        inheritable: CapabilitySet::empty(),
    };
    rustix::thread::set_capabilities(None, sets).unwrap();
    // The kernel makes no secret of a process that has lost nothing but capabilities, unless it is told to; whoever
    // changed users gets that back too.
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::Dumpable).unwrap();
    let mut command = Command::new("/bin/true");
    #[expect(
        unsafe_code,
        reason = "what happens in a child before it becomes another program"
    )]
    // SAFETY: the closure sleeps and does nothing else.
    unsafe {
        command.pre_exec(|| {
            std::thread::sleep(Duration::from_millis(2));
            Ok(())
        })
    };
    command.status().unwrap();
}

/// Starts the hunter in a container.
fn hunter() -> Option<Running> {
    let program = std::env::current_exe().unwrap();
    let volume = format!("{}:/hunter:ro", program.display());
    running_as(
        "",
        &["-v", &volume, "-e", "MK_EXEC_ATTACK=hunt"],
        &[&["/hunter"][..], &WORDS].concat(),
    )
}

fn caught(running: &Running) -> Vec<String> {
    let log = running.said();
    log.lines()
        .filter(|line| line.starts_with("caught"))
        .map(str::to_owned)
        .collect()
}

#[test]
fn nothing_of_what_goes_in_can_be_had_by_those_inside() {
    let Some(running) = hunter() else { return };
    let begin = Instant::now();
    let mut times = 0;
    while begin.elapsed() < HUNT {
        let store = format!("--store={}/{CANARY}", running.sandbox.work().display());
        let output = running.mk(&["exec", &store, "web", "/bin/true"]);
        assert_eq!(output.code, Some(0), "{output}");
        times += 1;
    }
    assert_eq!(caught(&running), [""; 0], "in {times} times");
    assert!(times > 5, "{times} times");
    // The control: the same hunter catches who is naive. A user would have to enter the user namespace first, which
    // takes a process of one thread, and a test's has two.
    if !needs::root() {
        return;
    }
    let list: serde_json::Value = serde_json::from_str(&running.mk(&["ps", "--json"]).ok().stdout).unwrap();
    let pid = list[0]["pid"].to_string();
    let begin = Instant::now();
    while caught(&running).len() < 4 {
        assert!(
            begin.elapsed() < SOON,
            "nobody was caught: {:?}",
            caught(&running)
        );
        let mut naive = Command::new(std::env::current_exe().unwrap());
        naive.args(WORDS).env("MK_EXEC_ATTACK", format!("join {pid}"));
        let output = naive.current_dir(running.sandbox.work()).output().unwrap();
        assert!(
            output.status.success(),
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let caught = caught(&running);
    for what in [
        "caught exe: ",
        "caught a file: ",
        "caught the memory",
        "caught the process itself",
    ] {
        assert!(
            caught.iter().any(|line| line.starts_with(what)),
            "{what}: {caught:?}"
        );
    }
}
