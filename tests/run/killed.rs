//! mk killed at every system call of its own and of its children, from the first to the last: nothing is left behind.

use std::io::Write;
use std::process::Child;
use std::time::{Duration, Instant};

use super::left::{Left, Scene};
use super::{SOON, eventually};
use crate::harness::chance::Chance;
use crate::harness::needs;
use crate::harness::tracer::{Moment, Trace, Who, trace};
use crate::harness::world::World;
use crate::network::left::Traces;

/// How many of the moments are tried, evenly spread and others each time: the whole set takes minutes.
/// `MK_TEST_EVERY_CALL` has all of them tried.
const SAMPLE: usize = 80;

/// How long what a killed run leaves to the kernel, or to a process that outlives it by moments, may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Whether that victim is killed at that moment of the run.
type Choice = fn(&Trace, &Moment, &Who) -> bool;

/// One way to call mk, to be killed.
struct Kind<'a> {
    /// What is called.
    words: Vec<String>,
    /// What the next command does, where that has to sweep.
    next: Option<&'a dyn Fn()>,
    /// Whether the container may live on without the mk that was called, until that next command.
    goes_on: bool,
    /// Whether a container of others runs all the while.
    beside: bool,
    /// Who is killed and when, where not everybody at any time is meant.
    only: Choice,
}

impl Kind<'_> {
    fn of(words: Vec<String>) -> Self {
        Self {
            words,
            next: None,
            goes_on: false,
            beside: false,
            only: |_, _, _| true,
        }
    }
}

/// Tries moments of this kind, and fails with all that was left behind.
fn is_killed_everywhere(scene: &Scene, kind: &Kind<'_>) {
    let (good, whole) = trace(scene.held(&kind.words), None);
    assert_eq!(end_of(good, &whole).unwrap(), Some(0), "{:?}", kind.words);
    kind.next.iter().for_each(|next| next());
    let before = scene.left();
    assert!(
        before.processes.is_empty() && (before.locks.is_empty() || kind.beside),
        "{before:?}"
    );
    let mut all = every(&whole);
    all.retain(|(moment, victim)| (kind.only)(&whole, moment, victim));
    let mut chance = Chance::new();
    let (start, step) = sample(all.len(), &mut chance);
    let mut reached = 0;
    let mut faults = Vec::new();
    for (moment, victim) in all.iter().skip(start).step_by(step) {
        let (child, trace) = trace(scene.held(&kind.words), Some((moment.clone(), victim.clone())));
        let ended = end_of(child, &trace);
        let Some(number) = trace.killed_at else { continue };
        reached += 1;
        let mut found = remains(scene, kind, &before);
        found.extend(ended.err());
        if !found.is_empty() {
            faults.push(format!(
                "process {victim:?} killed at {moment} (system call {number}):\n    {}",
                found.join("\n    ")
            ));
            clean_up(scene);
        }
    }
    let calls: Vec<String> = whole
        .calls
        .iter()
        .map(|(who, calls)| format!("{who:?}: {calls}"))
        .collect();
    let _ = writeln!(
        std::io::stderr(),
        "killed {reached} times, of {} moments and victims (calls of each process: {}; MK_TEST_SEED={})",
        all.len(),
        calls.join(", "),
        chance.seed
    );
    assert!(
        faults.is_empty(),
        "{} faults:\n{}",
        faults.len(),
        faults.join("\n")
    );
    assert!(
        reached * 10 >= all.len().div_ceil(step) * 9,
        "most moments come again"
    );
    scene.sandbox.verify();
}

/// Every call of every process, with every process of the run as the one that is killed.
fn every(whole: &Trace) -> Vec<(Moment, Who)> {
    let moments = whole.calls.iter().flat_map(|(who, &calls)| {
        let moment = |call| Moment {
            who: who.clone(),
            call,
        };
        (0..calls).map(moment)
    });
    let victims = |moment: Moment| whole.calls.keys().map(move |who| (moment.clone(), who.clone()));
    moments.flat_map(victims).collect()
}

fn sample(all: usize, chance: &mut Chance) -> (usize, usize) {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is how a test is told to be thorough"
    )]
    let thorough = std::env::var_os("MK_TEST_EVERY_CALL").is_some();
    let step = if thorough { 1 } else { (all / SAMPLE).max(1) };
    let start = chance.moment(Duration::from_nanos(step as u64)).as_nanos() as usize;
    (start.min(step - 1), step)
}

/// Waits for the end of mk itself.
fn end_of(mut child: Child, trace: &Trace) -> Result<Option<i32>, String> {
    if let Some(code) = trace.ended {
        return Ok(code);
    }
    let begin = Instant::now();
    while begin.elapsed() < SOON {
        if let Some(status) = child.try_wait().unwrap() {
            return Ok(status.code());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    Err(format!("mk did not end within {SOON:?}"))
}

/// What is left of a run: processes, mounts and locks must go by themselves, the rest at the next command.
fn remains(scene: &Scene, kind: &Kind<'_>, before: &Left) -> Vec<String> {
    let Some(next) = kind.next else {
        return patiently(|| scene.left().since(before));
    };
    let by_itself = || {
        let rest = Left {
            paths: before.paths.clone(),
            cgroups: before.cgroups.clone(),
            ..scene.left()
        };
        rest.since(before)
    };
    let mut found = match kind.goes_on {
        true => Vec::new(),
        false => patiently(by_itself),
    };
    if found.is_empty() {
        next();
        found = patiently(|| scene.left().since(before));
    }
    found
}

/// Returns what `look` finds as soon as it is nothing, and otherwise in the end.
fn patiently(look: impl Fn() -> Vec<String>) -> Vec<String> {
    let begin = Instant::now();
    loop {
        let found = look();
        if found.is_empty() || begin.elapsed() > PATIENCE {
            return found;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Ends what was left, so that the next round finds what is its own.
fn clean_up(scene: &Scene) {
    for pid in scene.left().processes {
        let _ = nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(pid as i32),
            nix::sys::signal::Signal::SIGKILL,
        );
    }
    std::thread::sleep(Duration::from_millis(100));
}

#[test]
fn a_plain_run_killed_at_any_system_call_leaves_nothing() {
    let Some(scene) = Scene::new() else { return };
    let words = scene.run(&["--tmpfs", "/memory"], &["cat"]);
    is_killed_everywhere(&scene, &Kind::of(words));
}

#[test]
fn what_outlives_a_killed_program_is_found() {
    let Some(scene) = Scene::new() else { return };
    let mut careless = std::process::Command::new("/bin/sh");
    careless.args(["-c", &format!("sleep {} & wait", scene.marker)]);
    let before = scene.left();
    // Its calls after the clone: it waits.
    let moment = Moment {
        who: vec![0],
        call: 0,
    };
    let (child, trace) = trace(
        crate::harness::tracer::held(&careless, ""),
        Some((moment, vec![])),
    );
    assert_eq!(end_of(child, &trace).unwrap(), None);
    // While it becomes `sleep`, it has no arguments to be known by.
    let mut found = Vec::new();
    eventually("what is left", || {
        found = scene.left().since(&before);
        !found.is_empty()
    });
    clean_up(&scene);
    assert!(
        found.len() == 1 && found[0].starts_with("process left: "),
        "{found:?}"
    );
    assert_eq!(patiently(|| scene.left().since(&before)), Vec::<String>::new());
}

/// Calls mk, which must succeed.
fn call(scene: &Scene, options: &[&str], command: &[&str]) {
    let output = scene.command(&scene.run(options, command)).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// Looks which containers there are, and ends those that live.
fn end_all(scene: &Scene) {
    eventually("the end of all containers", || {
        let listed = scene.sandbox.mk(["ps", "--all", "--quiet"]).ok();
        let ids: Vec<&str> = listed.stdout.lines().collect();
        if !ids.is_empty() {
            // One whose caller was killed while it was made may end by itself meanwhile, and is not known then.
            scene.sandbox.mk([&["rm", "--force"], &ids[..]].concat());
        }
        ids.is_empty()
    });
}

/// What has cgroups made. As root: others may make some on few machines, and not in a folder of the test's.
const LIMITS: &[&str] = &["--memory", "64m", "--pids", "50"];

#[test]
fn a_run_with_a_terminal_killed_at_any_system_call_leaves_nothing() {
    let Some(scene) = Scene::new() else { return };
    let words = scene.run(&["-t"], &["cat"]);
    is_killed_everywhere(&scene, &Kind::of(words));
}

/// A container called `web` that runs as long as this lives.
struct Beside<'a>(&'a Scene);

impl<'a> Beside<'a> {
    fn new(scene: &'a Scene) -> Self {
        let limits = if needs::is_root() { LIMITS } else { &[] };
        let words = [&["run", "-d", "--name", "web"], limits, &["box", "sleep", "1000"]].concat();
        let words: Vec<String> = words.into_iter().map(str::to_owned).collect();
        let output = scene.command(&words).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        Self(scene)
    }
}

impl Drop for Beside<'_> {
    fn drop(&mut self) {
        self.0.sandbox.mk(["stop", "--time", "0", "web"]);
        self.0.sandbox.mk(["rm", "web"]);
    }
}

#[test]
fn a_command_that_goes_in_killed_at_any_system_call_leaves_the_container_as_it_was() {
    let Some(scene) = Scene::new() else { return };
    let beside = Beside::new(&scene);
    for terminal in ["--tty", "--no-tty"] {
        let words = ["exec", terminal, "web", "sh", "-c", "cat; :", &scene.marker];
        let next = || {
            scene.sandbox.mk(["exec", "web", "true"]).ok();
        };
        let kind = Kind {
            next: Some(&next),
            beside: true,
            ..Kind::of(words.map(str::to_owned).to_vec())
        };
        is_killed_everywhere(&scene, &kind);
    }
    drop(beside);
}

#[test]
fn a_limited_run_killed_at_any_system_call_leaves_nothing() {
    let Some(scene) = Scene::new().filter(|_| needs::root()) else {
        return;
    };
    let words = scene.run(LIMITS, &["cat"]);
    let next = || call(&scene, LIMITS, &["true"]);
    is_killed_everywhere(
        &scene,
        &Kind {
            next: Some(&next),
            ..Kind::of(words)
        },
    );
}

#[test]
fn a_named_run_killed_at_any_system_call_leaves_nothing() {
    let Some(scene) = Scene::new() else { return };
    let words = scene.run(&["--name", "web"], &["cat"]);
    let next = || end_all(&scene);
    is_killed_everywhere(
        &scene,
        &Kind {
            next: Some(&next),
            ..Kind::of(words)
        },
    );
}

#[test]
fn a_detached_run_killed_at_any_system_call_is_there_or_leaves_nothing() {
    let Some(scene) = Scene::new() else { return };
    let limits = if needs::is_root() { LIMITS } else { &[] };
    let words = scene.run(
        &[&["-d", "--name", "web"], limits].concat(),
        &["usleep", "300000"],
    );
    let next = || {
        end_all(&scene);
        if needs::is_root() {
            call(&scene, LIMITS, &["true"]);
        }
    };
    let kind = Kind {
        next: Some(&next),
        goes_on: true,
        ..Kind::of(words)
    };
    is_killed_everywhere(&scene, &kind);
}

#[test]
fn a_run_that_writes_to_the_disk_killed_at_any_system_call_leaves_nothing() {
    let Some(scene) = Scene::new() else { return };
    let words = scene.run(&["--scratch", "disk"], &["cat"]);
    let next = || call(&scene, &["--scratch", "disk"], &["true"]);
    is_killed_everywhere(
        &scene,
        &Kind {
            next: Some(&next),
            ..Kind::of(words)
        },
    );
}

/// An address, a link, and ports of the host.
const NETWORKED: &[&str] = &["--network", "bridge", "-p", "8080:80"];

#[test]
fn a_networked_run_killed_at_any_system_call_leaves_nothing() {
    networked_is_killed(|_, _, _| true);
}

#[test]
fn a_container_killed_while_mk_connects_it_ends_mk() {
    // The last calls of mk, every one of them: one alone was the one that it waited for ever after.
    networked_is_killed(|whole, moment, victim| {
        moment.who.is_empty() && moment.call + SAMPLE >= whole.calls[&moment.who] && victim == &[0]
    });
}

fn networked_is_killed(only: Choice) {
    let (Some(world), Some(scene)) = (World::new(), Scene::new()) else {
        return;
    };
    let next = || call(&scene, NETWORKED, &["true"]);
    // What is started in there stays in there, whichever thread starts it.
    world.host.enter(|| {
        next();
        let state = scene.sandbox.state();
        let before = Traces::of(&world.host, &state);
        let words = scene.run(NETWORKED, &["cat"]);
        is_killed_everywhere(
            &scene,
            &Kind {
                next: Some(&next),
                only,
                ..Kind::of(words)
            },
        );
        before.assert_are_again(&world.host, &state);
    });
}
