//! Entering an image: what a command sees, what it can change, how it ends, and what is left of it. Needs namespaces,
//! and one of the fixtures for a program to run.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::harness::{Output, Sandbox, needs};

/// Bytes on their way in and out.
mod bytes;

/// Many runs.
mod endure;

/// How a run ends: exit codes, signals, pipes, and what is left of it.
mod ending;

/// What is written, where, and whose it is.
mod files;

/// How much of the machine a command may take.
mod limits;

/// Terminals, and what stays a pipe.
mod terminal;

/// What a command sees and what it cannot reach.
mod inside;

/// mk killed at each of its system calls.
mod killed;

/// What a run could leave behind.
mod left;

/// Where writes go.
mod scratch;

/// Containers with ids of their own.
mod userns;

/// Volumes, named ones too, and other images.
mod volumes;

/// What a command may do.
mod privileges;

/// mk in a container of mk's.
mod nested;

/// How long something that happens soon may take before a test gives up on it.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// Returns a sandbox with the image `box`: a BusyBox, and then what `more` of a recipe says.
pub(crate) fn boxed(more: &str) -> Option<Sandbox> {
    let archive = needs::fixture(needs::FIXTURES[0])?;
    if !needs::namespaces() {
        return None;
    }
    let sandbox = Sandbox::new();
    fs_err::copy(archive, sandbox.work().join("rootfs.tar.gz")).unwrap();
    sandbox.write("box.toml", format!("[[step]]\nunpack = 'rootfs.tar.gz'\n{more}"));
    sandbox.mk(["build", "box.toml", "-q"]).ok();
    Some(sandbox)
}

/// Runs `script` in the image with `options`.
pub(crate) fn sh(sandbox: &Sandbox, options: &[&str], script: &str) -> Output {
    sandbox.mk([&["run", "box"], options, &["sh", "-c", script]].concat())
}

/// Runs `script`, which must succeed and leave stderr empty, and returns what it prints.
#[track_caller]
pub(crate) fn says(sandbox: &Sandbox, options: &[&str], script: &str) -> String {
    let output = sh(sandbox, options, script).ok();
    assert_eq!(output.stderr, "", "{output}");
    output.text().to_owned()
}

/// Every path below `folder` that can be seen.
pub(crate) fn listing(folder: &Path) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for entry in fs_err::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        all.insert(path.display().to_string());
        if path.is_dir() && !path.is_symlink() {
            all.extend(listing(&path));
        }
    }
    all
}

/// Starts a command that says `up` and goes on until its stdin ends.
pub(crate) fn start(sandbox: &Sandbox, options: &[&str], script: &str) -> Child {
    let mut command = sandbox.command();
    command
        .args(["run", "box"])
        .args(options)
        .args(["sh", "-c", script]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut up = [0; 3];
    if child.stdout.as_mut().unwrap().read_exact(&mut up).is_err() {
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        panic!("{script:?} did not start: {said}");
    }
    assert_eq!(&up, b"up\n");
    child
}

/// Ends what [`start`] started and returns what it printed since, and its exit code.
#[track_caller]
pub(crate) fn finish(mut child: Child) -> (String, Option<i32>) {
    drop(child.stdin.take());
    eventually("the end of the run", || child.try_wait().unwrap().is_some());
    let output = child.wait_with_output().unwrap();
    (
        String::from_utf8_lossy(&output.stdout).into_owned(),
        output.status.code(),
    )
}

/// A number of seconds that no other process sleeps for.
pub(crate) fn marker() -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!(
        "4{:07}{:03}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    )
}

/// Returns the processes of this machine with their arguments, each of which ends with a NUL.
fn arguments() -> impl Iterator<Item = (u32, String)> {
    fs_err::read_dir("/proc").unwrap().filter_map(|entry| {
        let entry = entry.unwrap();
        let pid = entry.file_name().to_string_lossy().parse().ok()?;
        // A process may end between the two looks.
        let bytes = fs_err::read(entry.path().join("cmdline")).unwrap_or_default();
        Some((pid, String::from_utf8_lossy(&bytes).into_owned()))
    })
}

/// Returns the processes of this machine that have `word` among their arguments.
pub(crate) fn processes_with(word: &str) -> Vec<u32> {
    let found = arguments().filter(|(_, arguments)| arguments.contains(word));
    found.map(|(pid, _)| pid).collect()
}

/// Waits until `holds`, and fails where it does not in good time.
#[track_caller]
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < SOON, "{what} not within {SOON:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
