//! Every known way out of a container, walked through the real `mk`; docs/security.md lists which test shows what.
//!
//! Each attack is first tried on a naive set-up (the control): a few lines of shell around unshare(1), mount(8) and
//! chroot(8), which join paths as texts and trust what they find. Where the control is not hit, the attack proves nothing.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use tar::EntryType;

use crate::harness::archive::{Item, Tar};
use crate::harness::{Output, Sandbox, needs};

/// Ways out through what a process holds: mk's own program, open files, terminals, cgroups.
mod escapes;

/// Users, privileges and the environment.
mod identity;

/// Images whose files are not what their names promise.
mod images;

/// The attacker's side, run in the container.
mod program;

/// Places that change while mk looks at them.
mod races;

/// A sandbox with a file on the host that nothing may reach.
struct Ground {
    sandbox: Sandbox,
}

/// What the file that nothing may reach holds.
const SECRET: &str = "the canary sings";

/// A run that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(20);

impl Ground {
    /// Makes a sandbox with the image `box`: a BusyBox, and over it what `items` say; `more` is a recipe's end.
    fn new(items: &[Item<'_>], more: &str) -> Option<Self> {
        let ground = Self::bare()?;
        ground.image("box", items, more);
        Some(ground)
    }

    /// Makes a sandbox without an image.
    fn bare() -> Option<Self> {
        let archive = needs::fixture(needs::FIXTURES[0])?;
        if !needs::namespaces() {
            return None;
        }
        let sandbox = Sandbox::new();
        fs_err::copy(archive, sandbox.work().join("rootfs.tar.gz")).unwrap();
        sandbox.write("canary/secret", SECRET);
        Some(Self { sandbox })
    }

    /// Builds an image in which `items` take the place of what a BusyBox has there.
    fn image(&self, name: &str, items: &[Item<'_>], more: &str) {
        let tar = Tar::of(items.iter().cloned()).finish();
        self.sandbox
            .write(format!("{name}.tar"), [self.without(items), tar].concat());
        let recipe = format!("[[step]]\nunpack = '{name}.tar'\n{more}");
        self.sandbox.write(format!("{name}.toml"), recipe);
        self.sandbox.mk(["build", &format!("{name}.toml"), "-q"]).ok();
    }

    /// Returns a BusyBox as an archive without an end, and without what is at the places of `items` or below them.
    fn without(&self, items: &[Item<'_>]) -> Vec<u8> {
        let packed = fs_err::File::open(self.sandbox.work().join("rootfs.tar.gz")).unwrap();
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(packed));
        let mut rest = tar::Builder::new(Vec::new());
        for entry in archive.entries().unwrap() {
            let entry = entry.unwrap();
            let path = entry.path_bytes().into_owned();
            let path = Path::new(OsStr::from_bytes(&path));
            let path = path.strip_prefix("./").unwrap_or(path);
            let replaced = items.iter().any(|item| {
                item.kind != EntryType::Directory && path.starts_with(OsStr::from_bytes(item.path))
            });
            if !replaced {
                let header = entry.header().clone();
                rest.append(&header, entry).unwrap();
            }
        }
        let mut bytes = rest.into_inner().unwrap();
        bytes.truncate(bytes.len() - 1024);
        bytes
    }

    /// Returns the folder of the host that nothing may reach, as a text.
    fn canary(&self) -> String {
        self.sandbox.work().join("canary").display().to_string()
    }

    /// Runs `mk` with `words`; a call that hangs is ended by a signal.
    fn mk(&self, words: &[&str]) -> Output {
        self.mk_with(words, |_| {})
    }

    fn mk_with(&self, words: &[&str], change: impl FnOnce(&mut Command)) -> Output {
        self.sandbox.mk_with(words, |mk| {
            change(mk);
            *mk = with_patience(mk);
        })
    }

    /// Runs a script in the image `box`.
    fn sh(&self, options: &[&str], script: &str) -> Output {
        self.mk(&[&["run", "box"], options, &["sh", "-c", script]].concat())
    }

    /// Fails where the canary was touched, or where the store is not what it was.
    #[track_caller]
    fn is_untouched(&self, what: &str) {
        let names: Vec<OsString> = fs_err::read_dir(self.canary())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(
            names,
            ["secret"],
            "{what}: something was made in the canary's folder"
        );
        let text = fs_err::read_to_string(Path::new(&self.canary()).join("secret")).unwrap();
        assert_eq!(text, SECRET, "{what}: the canary was written to");
        let mounts = fs_err::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(
            !mounts.contains(&self.canary()),
            "{what}: something is mounted on the host"
        );
    }

    /// Runs `script` as a runner would that knows nothing of attacks: as root of its own mount namespace, with `$ROOT`,
    /// a copy of the image `name`, and `$CANARY`.
    fn naive(&self, name: &str, script: &str) -> Output {
        let root = self.sandbox.work().join(format!("naive-{name}"));
        if !root.exists() {
            self.sandbox
                .mk(["export", name, "--folder", root.to_str().unwrap()])
                .ok();
            for folder in ["proc", "dev", "mnt"] {
                // An image that has something there has it for the attack.
                let _ = fs_err::create_dir(root.join(folder));
            }
        }
        let canary = self.canary();
        self.sandbox.mk_with([""; 0], |command| {
            *command = own_mounts();
            command.args(["/bin/sh", "-c", script]);
            command.env("ROOT", root).env("CANARY", canary);
            command.current_dir(self.sandbox.work());
            *command = with_patience(command);
        })
    }
}

/// unshare(1) with mounts of its own and, for an ordinary user, as root of a user namespace.
fn own_mounts() -> Command {
    let mut command = Command::new("/usr/bin/unshare");
    if !needs::is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--mount", "--propagation", "private"]);
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command.stdin(Stdio::null());
    command
}

/// The same command with a limit on its time.
fn with_patience(command: &Command) -> Command {
    let mut patient = Command::new("/usr/bin/timeout");
    patient.args(["-s", "KILL", &PATIENCE.as_secs().to_string()]);
    patient
        .arg(command.get_program())
        .args(command.get_args())
        .env_clear();
    patient.envs(
        command
            .get_envs()
            .filter_map(|(name, value)| Some((name, value?))),
    );
    if let Some(folder) = command.get_current_dir() {
        patient.current_dir(folder);
    }
    patient.stdin(Stdio::null());
    patient
}

/// Fails where the control was not hit: then the attack proves nothing.
#[track_caller]
fn hit(output: &Output, proof: &str) {
    assert!(
        output.stdout.contains(proof),
        "the naive set-up was not hit, so the attack is none: {proof:?} is not in {output}"
    );
}

/// The program of these tests, which is static and so runs in any image, where it does what [`program`] says.
fn attacker() -> PathBuf {
    std::env::current_exe().unwrap()
}
