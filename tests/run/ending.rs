use std::collections::BTreeSet;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{arguments, boxed, eventually, finish, listing, marker, processes_with, says, sh, start};
use crate::harness::Sandbox;
use crate::harness::chance::Chance;

#[test]
fn the_exit_code_is_the_commands_or_tells_why_there_is_none() {
    let more = "[[step]]\nwrite = '/bin/garbage'\ntext = 'garbage'\nmode = '0755'\n\
                [[step]]\nwrite = '/bin/plain'\ntext = 'plain'\n\
                [[step]]\nwrite = '/bin/lost'\ntext = \"#!/no/such/interpreter\\n\"\nmode = '0755'\n";
    let Some(sandbox) = boxed(more) else { return };
    for options in [&[][..], &["--as-pid1"]] {
        assert_eq!(sh(&sandbox, options, "exit 0").code, Some(0));
        assert_eq!(sh(&sandbox, options, "exit 7").code, Some(7));
        assert_eq!(sh(&sandbox, options, "exit 255").code, Some(255));
        for (command, code) in [
            ("no-such-command", 127),
            ("/no/such/command", 127),
            ("/bin/plain", 126),
            ("/etc", 126),
            ("/bin/lost", 126),
        ] {
            let output = sandbox.mk([&["run", "box"], options, &[command]].concat());
            assert_eq!(output.code, Some(code), "{command}: {output}");
            assert!(
                output.stderr.starts_with("error: ") && output.stderr.contains(command),
                "{output}"
            );
        }
        let garbage = sandbox.mk([&["run", "box"], options, &["/bin/garbage"]].concat());
        assert_eq!(garbage.code, Some(126), "{garbage}");
    }
    for (signal, code) in [
        ("TERM", 143),
        ("KILL", 137),
        ("INT", 130),
        ("SEGV", 139),
        ("USR1", 138),
    ] {
        assert_eq!(
            sh(&sandbox, &[], &format!("kill -{signal} $$")).code,
            Some(code),
            "{signal}"
        );
    }
    for words in [
        &["run", "no-such-image"][..],
        &["run", "box", "--no-such-option"],
        &["run", "box", "-w", "relative"],
    ] {
        let output = sandbox.mk(words);
        assert_eq!(output.code, Some(125), "{output}");
        assert!(output.stderr.starts_with("error: "), "{output}");
    }
}

fn signal(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id() as i32), signal).unwrap();
}

#[test]
fn signals_reach_the_command() {
    let Some(sandbox) = boxed("") else { return };
    for options in [&[][..], &["--as-pid1"]] {
        let script = "trap 'echo got; exit 3' TERM; echo up; sleep 86400 & wait";
        let child = start(&sandbox, options, script);
        signal(&child, Signal::SIGTERM);
        assert_eq!(finish(child), ("got\n".to_owned(), Some(3)), "{options:?}");
        let script = "trap 'echo got; exit 4' USR1; echo up; sleep 86400 & wait";
        let child = start(&sandbox, options, script);
        signal(&child, Signal::SIGUSR1);
        let (text, code) = finish(child);
        assert_eq!((text.as_str(), code), ("got\n", Some(4)), "{options:?}");
    }
    for (name, code) in [
        (Signal::SIGTERM, 143),
        (Signal::SIGINT, 130),
        (Signal::SIGHUP, 129),
        (Signal::SIGQUIT, 131),
    ] {
        let seconds = marker();
        let mut command = sandbox.command();
        command.args(["run", "box", "sleep", &seconds]);
        let child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let begun = format!("sleep\0{seconds}\0");
        eventually("the command to begin", || {
            arguments().any(|(_, said)| said == begun)
        });
        signal(&child, name);
        assert_eq!(finish(child).1, Some(code), "{name}");
    }
}

#[test]
fn orphans_are_reaped() {
    let Some(sandbox) = boxed("") else { return };
    let script = "for i in 1 2 3 4 5 6 7 8 9; do sh -c 'sleep 0 & sleep 0 &'; done\n\
                  i=0; while grep -q '^State:.Z' /proc/[0-9]*/status 2>/dev/null; do\n\
                  i=$((i+1)); [ $i -lt 200 ] || exit 1; usleep 50000; done";
    sh(&sandbox, &[], script).ok();
    let orphan = "sh -c 'sleep 100 & echo $!' >/tmp/pid; read pid </tmp/pid; grep PPid /proc/$pid/status";
    assert_eq!(says(&sandbox, &[], orphan), "PPid:\t1");
}

#[test]
fn a_command_that_ends_takes_its_children_with_it() {
    let Some(sandbox) = boxed("") else { return };
    let marker = marker();
    let output = sh(
        &sandbox,
        &[],
        &format!("sleep {marker} & sleep {marker} & exit 5"),
    );
    assert_eq!(output.code, Some(5), "{output}");
    assert_eq!(processes_with(&marker), Vec::<u32>::new());
}

#[test]
fn pipes_carry_every_byte() {
    let Some(sandbox) = boxed("") else { return };
    let bytes: Vec<u8> = (0..5_000_003_u32)
        .map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let mut command = sandbox.command();
    command.args([
        "run",
        "box",
        "sh",
        "-c",
        "test -p /dev/stdin && test -p /dev/stdout && cat",
    ]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let sent = bytes.clone();
    let writer = std::thread::spawn(move || stdin.write_all(&sent).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(
        output.stdout == bytes,
        "{} bytes came back of {}",
        output.stdout.len(),
        bytes.len()
    );
}

#[test]
fn stdout_and_stderr_are_two() {
    let Some(sandbox) = boxed("") else { return };
    let output = sh(&sandbox, &[], "echo out; echo err >&2").ok();
    assert_eq!(
        (output.stdout.as_str(), output.stderr.as_str()),
        ("out\n", "err\n")
    );
}

/// Everything that a run could leave on a machine.
#[derive(Debug, PartialEq, Eq)]
struct Traces {
    store: BTreeSet<String>,
    mounts: Vec<String>,
    cgroups: BTreeSet<String>,
    locks: Vec<String>,
    processes: Vec<u32>,
}

impl Traces {
    /// Whether there is nothing that was not there `before`; cgroups of others come and go meanwhile.
    fn are_those(mut self, before: &Self) -> bool {
        self.cgroups.retain(|path| !before.cgroups.contains(path));
        let others = std::mem::take(&mut self.cgroups);
        self.cgroups.clone_from(&before.cgroups);
        others.is_empty() && self == *before
    }

    fn of(sandbox: &Sandbox, marker: &str) -> Self {
        let store = listing(&sandbox.store());
        let inodes: BTreeSet<u64> = store
            .iter()
            .filter_map(|path| fs_err::symlink_metadata(path).ok())
            .map(|found| found.ino())
            .collect();
        let lines = |path: &str| -> Vec<String> {
            fs_err::read_to_string(path)
                .unwrap()
                .lines()
                .map(str::to_owned)
                .collect()
        };
        let store_path = sandbox.store().display().to_string();
        let is_ours = |line: &String| {
            let place = line
                .split_ascii_whitespace()
                .find(|word| word.matches(':').count() == 2);
            let inode = place.and_then(|place| place.rsplit(':').next()?.parse().ok());
            inode.is_some_and(|inode| inodes.contains(&inode))
        };
        let cgroups = listing(Path::new("/sys/fs/cgroup"));
        Self {
            mounts: lines("/proc/self/mountinfo")
                .into_iter()
                .filter(|line| line.contains(&store_path))
                .collect(),
            cgroups: cgroups
                .into_iter()
                .filter(|path| path.contains("mk-") || path.contains(marker))
                .collect(),
            locks: lines("/proc/locks").into_iter().filter(is_ours).collect(),
            processes: processes_with(marker),
            store,
        }
    }
}

#[test]
fn a_run_that_is_killed_at_any_moment_leaves_nothing() {
    let Some(sandbox) = boxed("") else { return };
    let marker = marker();
    sandbox.write("t1/f", "");
    let volume = format!("./t1:/{marker}");
    let words = ["run", "box", "-v", &volume, "--tmpfs", "/memory", "sh", "-c"];
    let begin = Instant::now();
    sandbox.mk([&words[..], &["exit 0"]].concat()).ok();
    let duration = begin.elapsed();
    let before = Traces::of(&sandbox, &marker);
    assert!(
        before.processes.is_empty() && before.locks.is_empty(),
        "{before:?}"
    );
    let script = format!("echo x >/x; sleep {marker} & exec sleep {marker}");
    let mut chance = Chance::new();
    for round in 0..200 {
        let mut run = sandbox.command().args(words).arg(&script).spawn().unwrap();
        let moment = chance.moment(duration * 3 / 2);
        std::thread::sleep(moment);
        run.kill().unwrap();
        run.wait().unwrap();
        let what = format!(
            "killed after {moment:?}, round {round}, MK_TEST_SEED={}: something was left",
            chance.seed
        );
        eventually(&what, || processes_with(&marker).is_empty());
        if round % 10 == 9 {
            // What the kernel takes apart after the last process is gone may take it a moment.
            eventually(&what, || Traces::of(&sandbox, &marker).are_those(&before));
        }
    }
    let what = format!("MK_TEST_SEED={}: something was left", chance.seed);
    eventually(&what, || Traces::of(&sandbox, &marker).are_those(&before));
    sandbox.verify();
    assert_eq!(says(&sandbox, &[], "echo fine"), "fine");
}

#[test]
fn a_run_shows_in_the_traces_while_it_lasts() {
    let Some(sandbox) = boxed("") else { return };
    let marker = marker();
    let script = format!("echo up; cat; exit 0; sleep {marker}");
    let child = start(&sandbox, &[], &script);
    let traces = Traces::of(&sandbox, &marker);
    assert!(
        !traces.processes.is_empty() && !traces.locks.is_empty(),
        "{traces:?}"
    );
    assert_eq!(finish(child).1, Some(0));
    let after = Traces::of(&sandbox, &marker);
    assert!(after.processes.is_empty() && after.locks.is_empty(), "{after:?}");
}
