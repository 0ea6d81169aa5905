//! Going into a container that runs, and looking into it from outside: `mk exec`, `top`, `stats` and `diff`.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::harness::{Output, Sandbox, needs};

/// What a process in the container can do to one that comes in.
mod attack;

/// What a container changed.
mod changes;

/// What the command that goes in is, and how it ends.
mod inside;

/// Processes, time and memory.
mod usage;

/// How long something that happens soon may take before a test gives up on it.
const SOON: Duration = Duration::from_secs(30);

/// A container that runs, and ends with the test.
struct Running {
    sandbox: Sandbox,
    name: &'static str,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.sandbox.mk(["kill", self.name]);
        self.sandbox.mk(["wait", self.name]);
    }
}

/// What keeps a container running.
const STAY: &str = "trap 'exit 0' TERM; echo up; while :; do sleep 0.05; done";

/// Starts a container called `web` of the image `box`, a BusyBox and what `more` of a recipe says, with `options`, in
/// which `script` runs, and waits until that says `up`.
fn running_with(more: &str, options: &[&str], script: &str) -> Option<Running> {
    running_in(more, options, &["sh", "-c", script], |_| {})
}

/// The same with another command.
fn running_as(more: &str, options: &[&str], command: &[&str]) -> Option<Running> {
    running_in(more, options, command, |_| {})
}

/// The same, after `prepare` has had its way with the sandbox.
fn running_in(
    more: &str,
    options: &[&str],
    command: &[&str],
    prepare: impl FnOnce(&Sandbox),
) -> Option<Running> {
    let archive = needs::fixture(needs::FIXTURES[0])?;
    if !needs::namespaces() {
        return None;
    }
    let sandbox = Sandbox::new();
    fs_err::copy(archive, sandbox.work().join("rootfs.tar.gz")).unwrap();
    sandbox.write("box.toml", format!("[[step]]\nunpack = 'rootfs.tar.gz'\n{more}"));
    sandbox.mk(["build", "box.toml", "-q"]).ok();
    prepare(&sandbox);
    let words = [&["run", "-d", "--name", "web"], options, &["box"], command].concat();
    sandbox.mk(words).ok();
    let running = Running { sandbox, name: "web" };
    eventually("the container", || {
        running.said().lines().any(|line| line == "up")
    });
    Some(running)
}

/// Starts a container that stays until it is ended.
fn running(options: &[&str]) -> Option<Running> {
    running_with("", options, STAY)
}

impl Running {
    fn mk(&self, words: &[&str]) -> Output {
        self.sandbox.mk(words)
    }

    /// What the container's command has printed.
    fn said(&self) -> String {
        self.mk(&["logs", "web"]).stdout
    }

    /// Runs `script` in the container.
    fn exec(&self, options: &[&str], script: &str) -> Output {
        self.mk(&[&["exec"], options, &["web", "sh", "-c", script]].concat())
    }

    /// Runs `script`, which must succeed and leave stderr empty, and returns what it prints.
    #[track_caller]
    fn says(&self, options: &[&str], script: &str) -> String {
        let output = self.exec(options, script).ok();
        assert_eq!(output.stderr, "", "{output}");
        output.text().to_owned()
    }

    /// Starts `script` in the container, and goes on.
    fn start(&self, options: &[&str], script: &str) -> Child {
        let mut command = self.sandbox.command();
        command
            .arg("exec")
            .args(options)
            .args(["web", "sh", "-c", script]);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// Whether a process of the container was started with `word`, seen from in there.
    fn has_process_with(&self, word: &str) -> bool {
        let output = self.mk(&["top", "--json", "web"]);
        output.code == Some(0) && output.stdout.contains(word)
    }
}

/// A number of seconds that no other process sleeps for.
fn marker() -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!(
        "5{:07}{:03}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    )
}

/// Waits until `holds`, and fails where it does not in good time.
#[track_caller]
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < SOON, "{what} not within {SOON:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
