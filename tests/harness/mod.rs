//! [`Sandbox`]: a home, a store and a working folder that only one test knows, and `mk` called in there.

/// Tiny archives made in code.
pub(crate) mod archive;

/// What a build told as JSON.
pub(crate) mod built;

/// Random moments that can be had again.
pub(crate) mod chance;

/// A filesystem as lines that can be compared.
pub(crate) mod listing;

/// What a test needs of the machine.
pub(crate) mod needs;

/// An HTTP server that says what a test tells it to.
#[expect(dead_code, reason = "the tests of mk-core use what these do not")]
pub(crate) mod server;

/// A program killed at any one of its system calls.
pub(crate) mod tracer;

/// Two network namespaces of a test's own.
pub(crate) mod world;

use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// What one test works in. Gone when it is dropped, also where a store holds what only root of a user namespace may
/// delete: folders that their owner may not write to, and files of subordinate ids.
#[derive(Debug)]
pub(crate) struct Sandbox {
    folder: TempDir,
}

/// What a call of `mk` gave.
#[derive(Debug, Clone)]
pub(crate) struct Output {
    /// The call, as a person would type it.
    pub(crate) call: String,
    /// All of stdout, as it was.
    pub(crate) stdout: String,
    /// All of stderr, as it was.
    pub(crate) stderr: String,
    /// The exit code; `None` where a signal ended it.
    pub(crate) code: Option<i32>,
    /// What stands in for the sandbox's own paths.
    redactions: Vec<(String, &'static str)>,
}

impl Default for Sandbox {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if needs::is_root() {
            // A network that ends writes down which addresses are free again, and may do so in the middle of this.
            for _ in 0..20 {
                if fs_err::remove_dir_all(self.folder.path()).is_ok() {
                    return;
                }
                std::thread::sleep(std::time::Duration::from_millis(50));
            }
            return;
        }
        for maps in [&["--map-auto", "--map-root-user"][..], &["--map-root-user"]] {
            let mut remove = Command::new("/usr/bin/unshare");
            remove
                .args(maps)
                .args(["rm", "-rf"])
                .arg(self.folder.path())
                .stderr(Stdio::null());
            if remove.status().is_ok_and(|status| status.success()) {
                return;
            }
        }
    }
}

impl Sandbox {
    /// Makes an empty one.
    pub(crate) fn new() -> Self {
        let folder = TempDir::new().unwrap();
        for name in ["home", "work"] {
            fs_err::create_dir(folder.path().join(name)).unwrap();
        }
        Self { folder }
    }

    /// Returns the folder that holds all of it.
    pub(crate) fn root(&self) -> &Path {
        self.folder.path()
    }

    /// Returns the folder that `mk` is called in.
    pub(crate) fn work(&self) -> PathBuf {
        self.folder.path().join("work")
    }

    /// Returns `$HOME`.
    pub(crate) fn home(&self) -> PathBuf {
        self.folder.path().join("home")
    }

    /// Returns the store.
    pub(crate) fn store(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    /// Returns the folder in which it is kept which containers there are.
    pub(crate) fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// Writes a file below the working folder, with the folders above it.
    pub(crate) fn write(&self, path: impl AsRef<Path>, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.work().join(path);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(&path, bytes).unwrap();
        path
    }

    /// Returns `mk`, to be called in the working folder with nothing of the tester's environment.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mk"));
        command.current_dir(self.work()).stdin(Stdio::null()).env_clear();
        command
            .env("HOME", self.home())
            .env("MK_STORE", self.store())
            .env("MK_STATE", self.state())
            .env("PATH", "/usr/bin:/bin");
        command
    }

    /// Calls `mk` with `words`.
    pub(crate) fn mk<S: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = S>) -> Output {
        self.mk_with(words, |_| {})
    }

    /// Calls `mk` with `words`, after `change` has had its way with the call.
    pub(crate) fn mk_with<S: AsRef<OsStr>>(
        &self,
        words: impl IntoIterator<Item = S>,
        change: impl FnOnce(&mut Command),
    ) -> Output {
        let mut command = self.command();
        command.args(words);
        change(&mut command);
        let words: Vec<String> = command
            .get_args()
            .map(|word| quoted(&word.to_string_lossy()))
            .collect();
        self.output(format!("mk {}", words.join(" ")).trim_end(), &mut command)
    }

    /// Runs `command`, told of as `call`.
    pub(crate) fn output(&self, call: &str, command: &mut Command) -> Output {
        let output = command.output().unwrap();
        Output {
            call: call.to_owned(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            code: output.status.code(),
            redactions: vec![
                (self.store().display().to_string(), "[store]"),
                (self.state().display().to_string(), "[state]"),
                (self.work().display().to_string(), "[work]"),
                (self.home().display().to_string(), "[home]"),
            ],
        }
    }
}

impl Output {
    /// Returns the output of a call that must have succeeded.
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{self}");
        self
    }

    /// Returns stdout without its last line end.
    pub(crate) fn text(&self) -> &str {
        self.stdout.trim_end_matches('\n')
    }
}

/// The call as a terminal would show it, with paths, digests and times that differ from one test to the next replaced.
impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = format!("$ {}\n", self.call);
        for (name, stream) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
            if !stream.is_empty() {
                text.push_str(&format!("--- {name}\n{}\n", stream.trim_end_matches('\n')));
            }
        }
        let code = self
            .code
            .map_or("ended by a signal".to_owned(), |code| format!("exit code {code}"));
        text.push_str(&format!("--- {code}\n"));
        for (path, name) in &self.redactions {
            text = text.replace(path, name);
        }
        f.write_str(&without_digests(&text))
    }
}

/// Replaces each run of 64 hexadecimal digits.
fn without_digests(text: &str) -> String {
    let is_digit = |letter: char| matches!(letter, '0'..='9' | 'a'..='f');
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(is_digit) {
        let length = rest[start..]
            .find(|letter| !is_digit(letter))
            .unwrap_or(rest.len() - start);
        let word = &rest[start..start + length];
        result.push_str(&rest[..start]);
        result.push_str(if length == 64 { "[digest]" } else { word });
        rest = &rest[start + length..];
    }
    result + rest
}

/// Returns `word` as a person would type it.
fn quoted(word: &str) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "-_./:=,@+".contains(letter);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{word}'")
    }
}
