//! Many runs, one after another and at once: all succeed, and the machine is what it was.

use std::io::Write;
use std::process::{Child, Stdio};
use std::time::Instant;

use super::eventually;
use super::left::Scene;

/// How many runs follow one another.
const ONE_AFTER_ANOTHER: usize = 1000;

/// How many run at once.
const AT_ONCE: usize = 200;

/// The memory that the kernel may still hold for runs that are over, in bytes: what it caches for the next. A container
/// that is not let go costs it about half a megabyte, and a file of mk's that is left a page.
const KEPT_FOR_LATER: u64 = 32 << 20;

#[test]
fn a_thousand_runs_one_after_another_leave_the_machine_as_it_was() {
    endures("one after another", ONE_AFTER_ANOTHER, |scene| {
        let words = scene.run(&["--tmpfs", "/memory"], &["true"]);
        for round in 0..ONE_AFTER_ANOTHER {
            let output = scene.command(&words).output().unwrap();
            assert!(
                output.status.success() && output.stdout.is_empty() && output.stderr.is_empty(),
                "run {round}: {output:?}"
            );
        }
    });
}

#[test]
fn two_hundred_runs_at_once_leave_the_machine_as_it_was() {
    endures("at once", AT_ONCE, |scene| {
        // An empty file, whose name tells these programs from others, and then what comes.
        let file = format!("/{}/f", scene.marker);
        let script = format!("cat {file} -; echo bye");
        let words = scene.run(&["--tmpfs", "/memory"], &["sh", "-c", &script]);
        let cat = format!("cat\0{file}\0-\0");
        let start = || {
            let mut command = scene.command(&words);
            command.stdin(Stdio::piped()).stdout(Stdio::piped());
            command.stderr(Stdio::piped()).spawn().unwrap()
        };
        let mut all: Vec<Child> = (0..AT_ONCE).map(|_| start()).collect();
        eventually("all of them to run", || {
            super::arguments().filter(|(_, words)| *words == cat).count() == AT_ONCE
        });
        // None ends before all run: each waits for the end of its input.
        all.iter_mut().for_each(|child| drop(child.stdin.take()));
        for (number, child) in all.into_iter().enumerate() {
            let output = child.wait_with_output().unwrap();
            assert!(
                output.status.success() && output.stdout == b"bye\n" && output.stderr.is_empty(),
                "run {number}: {output:?}"
            );
        }
    });
}

/// Does `number` runs, as `what` says, and compares the machine before and after.
fn endures(what: &str, number: usize, work: impl Fn(&Scene)) {
    let Some(scene) = Scene::new() else { return };
    // What the first run makes for all that follow.
    let first = scene.command(&scene.run(&[], &["true"])).output().unwrap();
    assert!(first.status.success(), "{first:?}");
    let before = scene.left();
    assert!(
        before.processes.is_empty() && before.locks.is_empty(),
        "{before:?}"
    );
    let (memory, keys) = (scene.memory(), keys());
    let begin = Instant::now();
    work(&scene);
    let took = begin.elapsed();
    let mut found = Vec::new();
    eventually(&format!("{number} runs {what} to leave nothing"), || {
        found = scene.left().since(&before);
        found.is_empty()
    });
    // Tests beside this one have some too, for as long as they run.
    eventually("the keys of the runs to be gone", || {
        self::keys() < keys + number as u64 / 2
    });
    if let (Some(memory), Some(_)) = (memory, scene.memory()) {
        eventually("the memory of the runs to be given back", || {
            scene.memory().unwrap() < memory + KEPT_FOR_LATER
        });
    }
    let grown = scene.memory().zip(memory);
    let _ = writeln!(
        std::io::stderr(),
        "{number} runs {what} took {took:.1?}; memory of the kernel for them: {}",
        grown.map_or("only root can tell".into(), |(after, before)| format!(
            "{} KiB more",
            (after as i64 - before as i64) / 1024
        ))
    );
    scene.sandbox.verify();
}

/// How many keys the kernel holds for this user (keyrings(7)).
fn keys() -> u64 {
    let uid = rustix::process::geteuid().as_raw().to_string();
    let text = fs_err::read_to_string("/proc/key-users").unwrap_or_default();
    let of_user = |line: &str| {
        let (user, numbers) = line.trim().split_once(':')?;
        let fields = numbers.split_ascii_whitespace();
        (user == uid).then(|| fields.take(1).next()?.parse().ok())?
    };
    text.lines().find_map(of_user).unwrap_or(0)
}
