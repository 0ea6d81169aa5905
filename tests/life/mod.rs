//! Containers that others know of: started in the background or with a name, seen, followed, stopped, and swept when
//! whoever looked after them was killed. Needs namespaces, and one of the fixtures for a program to run.

use std::io::Read;
use std::ops::Deref;
use std::path::PathBuf;
use std::process::{Child, Stdio};

use crate::harness::{Output, Sandbox};
use crate::run::{boxed, eventually};

/// How containers end, by whoever's hand.
mod ending;

/// What a container prints.
mod logs;

/// Folders that cannot be trusted, and places that are full.
mod places;

/// The whole of it, as a person would type it.
mod session;

/// A sandbox with the image `box`, whose containers end with it.
struct Life(Sandbox);

impl Deref for Life {
    type Target = Sandbox;

    fn deref(&self) -> &Sandbox {
        &self.0
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        let ids = self.0.mk(["ps", "-q"]).stdout;
        if !ids.is_empty() {
            self.0.mk(["stop", "-t", "0"].into_iter().chain(ids.lines()));
        }
    }
}

impl Life {
    fn new() -> Option<Self> {
        boxed("").map(Self)
    }

    /// Starts a container in the background that runs `script`, and returns its id.
    #[track_caller]
    fn detach(&self, options: &[&str], script: &str) -> String {
        let words = [&["run", "-d"], options, &["box", "sh", "-c", script]].concat();
        let output = self.mk(words).ok();
        assert_eq!(output.stderr, "", "{output}");
        let id = output.text().to_owned();
        assert!(
            id.len() == 12 && id.bytes().all(|digit| digit.is_ascii_hexdigit()),
            "{output}"
        );
        id
    }

    /// Returns what `mk ps --json` with `options` says.
    #[track_caller]
    fn ps(&self, options: &[&str]) -> Vec<serde_json::Value> {
        let output = self.mk([&["ps", "--json"], options].concat()).ok();
        serde_json::from_str(&output.stdout).unwrap()
    }

    /// Returns the folders of containers that are there.
    fn folders(&self) -> Vec<PathBuf> {
        let found = fs_err::read_dir(self.state()).into_iter().flatten();
        found.map(|entry| entry.unwrap().path()).collect()
    }

    /// Returns the number of the process that looks after the container `id`.
    fn monitor(&self, id: &str) -> i32 {
        let text = fs_err::read_to_string(self.state().join(id).join("container.json")).unwrap();
        let document: serde_json::Value = serde_json::from_str(&text).unwrap();
        document["started"]["monitor"]["pid"].as_i64().unwrap() as i32
    }

    /// Follows the log of `name`, whose first line is `up`, and has seen that line when it comes back.
    #[track_caller]
    fn follow(&self, name: &str) -> Child {
        let mut command = self.command();
        command.args(["logs", "-f", name]);
        let mut follower = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut up = [0; 3];
        follower.stdout.as_mut().unwrap().read_exact(&mut up).unwrap();
        assert_eq!(&up, b"up\n");
        follower
    }

    /// Waits until the log of `name` holds `text`.
    #[track_caller]
    fn until_it_prints(&self, name: &str, text: &str) {
        eventually(&format!("{text:?} in the log"), || {
            self.mk(["logs", name]).stdout.contains(text)
        });
    }
}

/// Kills a process, which this test has started.
fn kill(pid: i32) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
}

/// Checks that `output` is a failure with `code` that says `text`.
#[track_caller]
fn fails(output: &Output, code: i32, text: &str) {
    assert_eq!(
        (output.code, output.stdout.as_str()),
        (Some(code), ""),
        "{output}"
    );
    assert!(output.stderr.contains(text), "{output}");
}
