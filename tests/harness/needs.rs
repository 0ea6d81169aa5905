//! What a test needs of the machine. Where it is missing, the test says `skipped: needs …` and returns.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The three real root filesystems that tests know (see the README beside them).
pub(crate) const FIXTURES: [&str; 3] = [
    "busybox-musl-amd64.tar.gz",
    "busybox-glibc-amd64.tar.gz",
    "alpine-minirootfs-3.20.3-x86_64.tar.gz",
];

/// Says that a test does not run, past the harness that hides what passing tests say.
pub(crate) fn skipped(needs: &str) {
    let test = std::thread::current().name().unwrap_or("test").to_owned();
    // In one call: what other tests say at the same moment must not come between.
    let line = format!("skipped: needs {needs} ({test})\n");
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// Returns the folder of fixtures: `MK_FIXTURES`, else beside the checkout.
pub(crate) fn fixtures() -> Option<PathBuf> {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is how tests are told where fixtures are"
    )]
    let named = std::env::var_os("MK_FIXTURES").map(PathBuf::from);
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/fixtures");
    named
        .or_else(|| fs_err::canonicalize(beside).ok())
        .filter(|path| path.is_dir())
}

/// Returns the path of a fixture.
pub(crate) fn fixture(name: &str) -> Option<PathBuf> {
    let path = fixtures()
        .map(|folder| folder.join(name))
        .filter(|path| path.is_file());
    if path.is_none() {
        skipped(&format!("{name} (in the folder that MK_FIXTURES names)"));
    }
    path
}

/// Returns the path of another program.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let path = ["/usr/bin", "/bin", "/usr/sbin", "/sbin"]
        .iter()
        .map(|folder| Path::new(folder).join(name))
        .find(|path| path.is_file());
    if path.is_none() {
        skipped(&format!("the program `{name}`"));
    }
    path
}

/// Whether this is uid 0.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Whether this is uid 0; says so where it is not.
pub(crate) fn root() -> bool {
    if !is_root() {
        skipped("root");
    }
    is_root()
}

/// Whether namespaces can be made here; says so where not.
pub(crate) fn namespaces() -> bool {
    let flags = if is_root() { "-m" } else { "-Urm" };
    let made = Command::new("/usr/bin/unshare")
        .args([flags, "true"])
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !made {
        skipped("permission to make namespaces, and `unshare` to find out");
    }
    made
}

/// Whether the caller may be more than one user inside: root, or somebody with subordinate ids.
pub(crate) fn has_ids() -> bool {
    let granted = |path: &str| {
        let uid = rustix::process::geteuid().as_raw();
        let user = nix::unistd::User::from_uid(uid.into())
            .ok()
            .flatten()
            .map(|user| user.name);
        let text = fs_err::read_to_string(path).unwrap_or_default();
        text.lines()
            .filter_map(|line| line.split(':').next())
            .any(|who| Some(who) == user.as_deref() || who == uid.to_string())
    };
    is_root()
        || (granted("/etc/subuid") && granted("/etc/subgid") && Path::new("/usr/bin/newuidmap").exists())
}

/// The folders that hold archives by their sha256, as `MK_SOURCES` has them: the tester's, and the fixtures.
pub(crate) fn sources() -> String {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is how tests are told where archives are"
    )]
    let said = std::env::var("MK_SOURCES").ok();
    let folders = said
        .into_iter()
        .chain(fixtures().map(|path| path.display().to_string()));
    folders.collect::<Vec<_>>().join(":")
}
