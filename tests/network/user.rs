use std::fmt::Write as _;
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::{Stage, children};
use crate::harness::world::{HOST4, HOST6, OUTSIDE4, OUTSIDE6, Place, get};
use crate::harness::{Output, Sandbox, needs};
use crate::run::{boxed, eventually};

/// The helpers that this machine has, where a run with one can be tried.
fn helpers() -> Vec<&'static str> {
    let there = |name: &&str| Path::new("/usr/bin").join(name).exists();
    let found: Vec<&str> = ["pasta", "slirp4netns"].into_iter().filter(there).collect();
    if found.is_empty() {
        needs::skipped("pasta or slirp4netns");
        return found;
    }
    match fs_err::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/net/tun")
    {
        Ok(_) => found,
        Err(_) => {
            needs::skipped("/dev/net/tun");
            Vec::new()
        }
    }
}

/// `mk run --network user` for a caller who has only this helper.
fn with(sandbox: &Sandbox, helper: &str, options: &[&str], script: &str) -> Command {
    let folder = sandbox.root().join(helper);
    if fs_err::create_dir(&folder).is_ok() {
        symlink(Path::new("/usr/bin").join(helper), folder.join(helper)).unwrap();
    }
    let mut mk = sandbox.command();
    mk.env("PATH", folder)
        .args(["run", "--network", "user"])
        .args(options)
        .args(["box", "sh", "-c", script])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    mk
}

/// What the script prints on the stage's host.
#[track_caller]
fn says(stage: &Stage, helper: &str, options: &[&str], script: &str) -> String {
    let mut mk = with(stage, helper, options, script);
    let output = stage.host().enter(|| mk.output().unwrap());
    let (said, error) = (
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    );
    assert!(output.status.success(), "{helper}: {said}{error}");
    said.trim_end().to_owned()
}

/// A run that serves TCP at port 80 and UDP at port 53, until this is dropped.
struct Serving(Child);

impl Serving {
    fn start(stage: &Stage, helper: &str, options: &[&str]) -> Self {
        let script =
            "mkdir /www; echo inside >/www/index.html; udpsvd 0 53 cat & exec httpd -f -h /www -p 80";
        let mut mk = with(stage, helper, options, script);
        Self(stage.host().enter(|| mk.spawn().unwrap()))
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// All below the process `pid`.
fn descendants(pid: u32) -> Vec<u32> {
    let below = children(pid);
    below
        .iter()
        .flat_map(|&pid| descendants(pid))
        .chain(below.iter().copied())
        .collect()
}

/// Whether the process `pid` runs: what has only to be reaped has no arguments any more.
fn runs(pid: u32) -> bool {
    fs_err::read(format!("/proc/{pid}/cmdline")).is_ok_and(|arguments| !arguments.is_empty())
}

#[track_caller]
fn reached(place: &Place, address: &str, port: u16) {
    let mut last = String::new();
    eventually(&format!("an answer of {address} {port}"), || {
        last.clear();
        match place.get(address, port) {
            Ok(said) => said == "inside",
            Err(error) => write!(last, "{error}").is_err(),
        }
    });
}

#[test]
fn a_run_reaches_what_its_caller_reaches() {
    let Some(stage) = Stage::new() else { return };
    let web = stage.world.outside.web(8000);
    for helper in helpers() {
        // IPv6 addresses of slirp4netns are there a moment later than it says.
        let fetch = format!(
            "fetch() {{ for i in 1 2 3 4 5 6 7 8 9; do wget -T 5 -qO- http://$1:8000/ 2>/dev/null && return; sleep 1; done; }}
             fetch {OUTSIDE4}; fetch [{OUTSIDE6}]"
        );
        let said = says(&stage, helper, &[], &fetch);
        assert_eq!(said, format!("{HOST4}\n{HOST6}"), "{helper}");
    }
    assert!(
        web.seen()
            .iter()
            .all(|peer| [HOST4, HOST6].contains(&&*peer.to_string()))
    );
}

#[test]
fn published_ports_answer_on_loopback_and_from_outside_and_are_free_after_a_kill() {
    let Some(stage) = Stage::new() else { return };
    for helper in helpers() {
        let options = ["-p", "8080:80", "-p", "127.0.0.1:8081:80", "-p", "8053:53/udp"];
        for _ in 0..2 {
            let mut serving = Serving::start(&stage, helper, &options);
            reached(stage.host(), "127.0.0.1", 8080);
            reached(stage.host(), "127.0.0.1", 8081);
            reached(&stage.world.outside, HOST4, 8080);
            if helper == "pasta" {
                reached(stage.host(), "::1", 8080);
                reached(&stage.world.outside, HOST6, 8080);
            }
            assert!(stage.world.outside.get(HOST4, 8081).is_err(), "{helper}");
            assert_eq!(
                stage.world.outside.ask(HOST4, 8053, "hello").unwrap(),
                "hello",
                "{helper}"
            );
            let below = descendants(serving.0.id());
            assert!(below.len() >= 4, "{helper}: {below:?}");
            serving.0.kill().unwrap();
            serving.0.wait().unwrap();
            eventually("the end of the helper", || !below.iter().any(|&pid| runs(pid)));
        }
    }
}

/// Whether this machine has a way out: pasta takes its addresses from there.
fn has_a_way_out() -> bool {
    let routes = fs_err::read_to_string("/proc/net/route").unwrap_or_default();
    let there = routes
        .lines()
        .any(|route| route.split_whitespace().nth(1) == Some("00000000"));
    if !there {
        needs::skipped("a default route");
    }
    there
}

#[test]
fn a_port_of_the_loopback_leads_to_a_container_of_anybodys_and_is_shown() {
    let Some(sandbox) = boxed("") else { return };
    if !has_a_way_out() {
        return;
    }
    let serve = "mkdir -p /srv; echo inside >/srv/index.html; exec httpd -f -h /srv";
    for helper in helpers() {
        let options = ["-d", "--name", helper, "-p", "127.0.0.1::80"];
        let output = with(&sandbox, helper, &options, serve).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{helper}: {said}");
        let listed = sandbox.mk(["ps"]).ok();
        let shown = |line: &str| {
            let (_, behind) = line.split_once("127.0.0.1:")?;
            behind.split_once("->80/tcp")?.0.parse().ok()
        };
        let port: u16 = listed
            .stdout
            .lines()
            .find_map(shown)
            .unwrap_or_else(|| panic!("{listed}"));
        assert!(
            said.contains(&format!("port {port} of the host leads to port 80")),
            "{said}"
        );
        let server = ([127, 0, 0, 1], port).into();
        let get = || get(server, Duration::from_secs(5));
        eventually("an answer", || get().is_ok_and(|said| said == "inside"));
        sandbox.mk(["stop", "--time", "0", helper]).ok();
        eventually("a closed port", || {
            get().is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
        });
    }
}

#[test]
fn the_hosts_loopback_is_reached_only_where_that_is_asked_for() {
    let Some(stage) = Stage::new() else { return };
    for helper in helpers() {
        let service = stage
            .host()
            .enter(|| std::net::TcpListener::bind("127.0.0.1:8090").unwrap());
        let answering = std::thread::spawn(move || {
            use std::io::{Read, Write};
            let (mut stream, _) = service.accept().unwrap();
            // Who closes with something unread resets the connection.
            assert_ne!(stream.read(&mut [0; 4096]).unwrap(), 0);
            stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nloopback\n").unwrap();
        });
        let fetch = "gateway=$(ip route | sed -n 's/default via \\([0-9.]*\\).*/\\1/p')
                     for host in 127.0.0.1 $gateway; do wget -T 3 -qO- http://$host:8090/ 2>/dev/null; done; true";
        assert_eq!(says(&stage, helper, &[], fetch), "", "{helper}");
        assert_eq!(
            says(&stage, helper, &["--host-loopback"], fetch),
            "loopback",
            "{helper}"
        );
        answering.join().unwrap();
    }
}

#[test]
fn a_helper_that_fails_says_why_and_leaves_nothing() {
    let Some(stage) = Stage::new() else { return };
    if helpers().is_empty() {
        return;
    }
    let folder = stage.root().join("bin");
    fs_err::create_dir(&folder).unwrap();
    for (name, script, said) in [
        (
            "pasta",
            "#!/bin/sh\necho no luck today >&2; exit 3",
            "no luck today",
        ),
        ("slirp4netns", "#!/bin/false", "it exited with 1"),
        ("pasta", "#!/bin/sh\nkill -9 $$", "signal 9 ended it"),
    ] {
        let program = folder.join(name);
        fs_err::write(&program, format!("{script}\n")).unwrap();
        fs_err::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let mut mk = stage.command();
        mk.env("PATH", &folder)
            .args(["run", "--network", "user", "box", "touch", "/never"]);
        let output = stage.host().enter(|| mk.output().unwrap());
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(125), "{error}");
        let expected = format!("`{}` did not connect the container: {said}", program.display());
        assert!(error.contains(&expected), "{error}");
        fs_err::remove_file(&program).unwrap();
    }
}

#[test]
fn what_is_missing_is_said_with_what_to_do() {
    let Some(sandbox) = boxed("") else { return };
    let run = |path: &str| -> Output {
        sandbox.mk_with(["run", "--network", "user", "box", "true"], |mk| {
            mk.env("PATH", path);
        })
    };
    let output = run("/nowhere");
    assert_eq!(output.code, Some(125), "{output}");
    assert!(
        output
            .stderr
            .contains("neither is in `/nowhere`\nhint: install one: the package is called `passt`"),
        "{output}"
    );
    // Whoever may not use the device is told so; anybody else is lent the network.
    let opened = fs_err::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/net/tun");
    let output = run("/usr/bin:/bin");
    match opened {
        Err(refused) if refused.kind() == std::io::ErrorKind::PermissionDenied => {
            assert!(
                output.stderr.contains("hint: `sudo chmod 666 /dev/net/tun`"),
                "{output}"
            );
        }
        Err(_) => assert!(output.stderr.contains("hint: `sudo modprobe tun`"), "{output}"),
        // Without a route to anywhere a helper has nothing to lend.
        Ok(_) => assert!(
            output.code == Some(0) || output.stderr.contains("did not connect"),
            "{output}"
        ),
    }
}

#[test]
fn a_taken_port_stops_the_run_before_it_starts() {
    let Some(sandbox) = boxed("") else { return };
    if helpers().is_empty() {
        return;
    }
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let publish = format!("127.0.0.1:{port}:80");
    let output = sandbox.mk(["run", "--network", "user", "-p", &publish, "box", "true"]);
    assert_eq!(output.code, Some(125), "{output}");
    assert!(
        output
            .stderr
            .contains(&format!("cannot publish port {port}/tcp of the host")),
        "{output}"
    );
}

#[test]
fn a_dry_run_shows_the_call_of_the_helper() {
    let Some(sandbox) = boxed("") else { return };
    if !helpers().contains(&"pasta") {
        return;
    }
    let output = sandbox
        .mk([
            "run",
            "--dry-run",
            "--network",
            "user",
            "-p",
            "127.0.0.1::80",
            "box",
            "true",
        ])
        .ok();
    assert!(
        output
            .stdout
            .contains("\nnetwork /usr/bin/pasta --quiet --config-net"),
        "{output}"
    );
    assert!(output.stdout.contains(" --tcp-ports 127.0.0.1/"), "{output}");
}
