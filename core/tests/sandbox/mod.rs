//! A small `mk run`, a store with one image to run it on, and what came of it.

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use mk_core::enter;
use mk_core::process::idmap;
use mk_core::recipe::{Conf, Network, RunDefaults};
use mk_core::rootfs::Rootfs;
use mk_core::spec::privileges::{BadCapability, Seccomp};
use mk_core::spec::{Asked, Extra, RunSpec, Tmpfs, Volume};

/// System calls, made inside.
pub(crate) mod probe;

/// Says something to whoever runs the tests.
pub(crate) fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// What `mk run` does, without a terminal.
pub(crate) fn as_mk(arguments: impl Iterator<Item = OsString>) -> u8 {
    match enter_as_asked(arguments) {
        Ok(code) => code,
        Err((code, error)) => {
            let mut error: Option<&dyn std::error::Error> = Some(&*error);
            while let Some(cause) = error {
                say(&format!("error: {cause}"));
                error = cause.source();
            }
            code
        }
    }
}

fn enter_as_asked(
    mut arguments: impl Iterator<Item = OsString>,
) -> Result<u8, (u8, Box<dyn std::error::Error>)> {
    let store = PathBuf::from(arguments.next().unwrap());
    let mut asked = Asked::default();
    while let Some(argument) = arguments.next() {
        let text = |value: Option<OsString>| value.unwrap().into_string().unwrap();
        match argument.to_str() {
            Some("-v") => {
                let volume = Volume::parse(&arguments.next().unwrap()).map_err(|error| (2, error.into()))?;
                asked.mounts.push(Extra::Volume(volume));
            }
            Some("--tmpfs") => {
                let tmpfs = Tmpfs::parse(&arguments.next().unwrap()).map_err(|error| (2, error.into()))?;
                asked.mounts.push(Extra::Tmpfs(tmpfs));
            }
            Some("-u") => asked.user = Some(text(arguments.next())),
            Some("-w") => asked.workdir = arguments.next(),
            Some("-e") => asked.env.extend(arguments.next()),
            Some("--hostname") => asked.hostname = Some(text(arguments.next())),
            Some("--host") => asked.network = Some(Network::Host),
            Some("--cap-add") => {
                let name = text(arguments.next());
                asked
                    .privileges
                    .add
                    .push(name.parse().map_err(|error: BadCapability| (2, error.into()))?);
            }
            Some("--privileged") => asked.privileges.privileged = true,
            Some("--unconfined") => asked.privileges.seccomp = Some(Seccomp::Unconfined),
            Some("--new-privileges") => asked.privileges.new_privileges = true,
            Some("--read-only") => asked.read_only = true,
            Some("--as-pid1") => asked.as_pid1 = true,
            Some("--stop") => {
                asked.stop_timeout = Some(Duration::from_millis(text(arguments.next()).parse().unwrap()));
            }
            _ => {
                asked.command = std::iter::once(argument).chain(arguments.by_ref()).collect();
            }
        }
    }
    let caller = idmap::Caller::look().map_err(|error| (125, error.into()))?;
    idmap::become_root(&idmap::decide(&caller)).map_err(|error| (125, error.into()))?;
    let spec = RunSpec::new(&RunDefaults::default(), &conf(), asked).map_err(|error| (2, error.into()))?;
    let rootfs = Rootfs {
        store,
        tree: "rootfs/tree".into(),
        conf: "conf/image".into(),
        lease: None,
        others: Vec::new(),
        kept: None,
    };
    let ended = enter::run(rootfs, &spec).map_err(|error| (error.exit_code(), error.into()))?;
    Ok(ended.exit_code())
}

fn conf() -> Conf {
    Conf {
        hostname: Some("box".into()),
        ..Conf::default()
    }
}

/// A store with one image, and a folder to play in.
pub(crate) struct Sandbox {
    pub(crate) home: tempfile::TempDir,
}

/// What a run printed and how it ended.
#[derive(Debug)]
pub(crate) struct Out {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Sandbox {
    pub(crate) fn new() -> Option<Self> {
        let home = tempfile::tempdir().unwrap();
        let sandbox = Self { home };
        let tree = sandbox.tree();
        fs_err::create_dir_all(&tree).unwrap();
        if !fill_from_fixture(&tree) && !fill_from_system(&tree) {
            say("skipped: needs a busybox, static, in MK_FIXTURES or at /bin/busybox");
            return None;
        }
        let etc = sandbox.store().join("conf/image/etc");
        fs_err::create_dir_all(&etc).unwrap();
        for (name, text) in [
            ("hostname", "box\n"),
            ("hosts", "127.0.0.1\tlocalhost\n"),
            ("resolv.conf", "nameserver 192.0.2.1\n"),
        ] {
            fs_err::write(etc.join(name), text).unwrap();
        }
        Some(sandbox)
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.home.path().join("store")
    }

    pub(crate) fn tree(&self) -> PathBuf {
        self.store().join("rootfs/tree")
    }

    /// A folder of the host, made anew for each caller.
    pub(crate) fn folder(&self, name: &str) -> PathBuf {
        let folder = self.home.path().join(name);
        fs_err::create_dir_all(&folder).unwrap();
        folder
    }

    pub(crate) fn command(&self, arguments: &[&OsStr]) -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .arg("--enter")
            .arg(self.store())
            .args(arguments)
            .current_dir(self.home.path());
        command
    }

    pub(crate) fn run<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Out {
        let arguments: Vec<OsString> = arguments
            .into_iter()
            .map(|text| text.as_ref().to_owned())
            .collect();
        let arguments: Vec<&OsStr> = arguments.iter().map(OsString::as_os_str).collect();
        let out = self.command(&arguments).stdin(Stdio::null()).output().unwrap();
        Out {
            code: out.status.code(),
            stdout: String::from_utf8_lossy(&out.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&out.stderr).into_owned(),
        }
    }

    /// Runs a script of which nothing may fail, and returns what it printed.
    pub(crate) fn shell(&self, options: &[&str], script: &str) -> String {
        let out = self.run(options.iter().chain(&["sh", "-ec", script]));
        assert_eq!(out.code, Some(0), "{script}: {out:?}");
        out.stdout
    }

    /// Starts a script and waits until it has printed `ready`.
    pub(crate) fn start(&self, options: &[&str], script: &str) -> Child {
        use std::io::BufRead;
        let shell = ["sh", "-c", script];
        let arguments: Vec<&OsStr> = options.iter().chain(&shell).map(OsStr::new).collect();
        let mut child = self
            .command(&arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        std::io::BufReader::new(child.stdout.as_mut().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert_eq!(line, "ready\n");
        child
    }

    /// Says why nobody here can enter anything, where that is so.
    pub(crate) fn refusal(&self) -> Option<String> {
        let out = self.run(["true"]);
        (out.code != Some(0) && out.stderr.contains("user namespace")).then_some(out.stderr)
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test is told by its environment where the fixtures are"
)]
fn fill_from_fixture(tree: &Path) -> bool {
    let usual = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/fixtures");
    let fixtures = std::env::var_os("MK_FIXTURES").map_or(usual, PathBuf::from);
    let Ok(file) = fs_err::File::open(fixtures.join("busybox-musl-amd64.tar.gz")) else {
        return false;
    };
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(file));
    archive.set_preserve_permissions(true);
    archive.unpack(tree).is_ok()
}

fn fill_from_system(tree: &Path) -> bool {
    for folder in ["bin", "etc", "root", "usr/bin"] {
        fs_err::create_dir_all(tree.join(folder)).unwrap();
    }
    let busybox = tree.join("bin/busybox");
    if fs_err::copy("/bin/busybox", &busybox).is_err() {
        return false;
    }
    let applets = Command::new(&busybox).arg("--list").output().unwrap();
    for name in String::from_utf8_lossy(&applets.stdout).lines() {
        let _ = symlink("busybox", tree.join("bin").join(name));
    }
    let passwd = "root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33:www:/var/www:/bin/sh\n";
    fs_err::write(tree.join("etc/passwd"), passwd).unwrap();
    fs_err::write(tree.join("etc/group"), "root:x:0:\nwww-data:x:33:\n").unwrap();
    true
}
