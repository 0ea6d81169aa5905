//! Networks: containers that reach their host, each other and what is outside, who reaches them, and what is left of it.
//! Needs root, one of the fixtures for a program to run, and `ip` to look with; all of it happens in network namespaces
//! of a test's own.

use std::io::{BufRead, BufReader, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Deref;
use std::process::{Child, ChildStdout, Stdio};

use crate::harness::world::{Place, World};
use crate::harness::{Output, Sandbox};
use crate::run::{boxed, eventually};

/// The bridge itself.
mod bridge;

/// Names, and networks that others have made.
mod names;

/// Published ports.
mod ports;

/// Networks that lead nowhere, of root's and of ordinary users'.
mod private;

/// The caller's own network, through a helper.
mod user;

/// What the articles do by hand, step by step.
mod article;

/// Published ports with a thousand clients, and after the end of who published them.
mod load;

/// What is left of networks, and of runs that were killed.
pub(crate) mod left;

/// Many runs.
mod many;

/// The way out, and the way in from there.
mod outside;

/// Who claims to be a router.
mod router;

/// The harness itself: what is true of a world without mk in it.
mod world;

/// A host with nothing on it yet, and the image `box` to run there. Containers end with it.
pub(crate) struct Stage {
    sandbox: Sandbox,
    pub(crate) world: World,
}

/// A run that goes on until its stdin ends or this is dropped.
pub(crate) struct Running {
    child: Child,
    stdout: BufReader<ChildStdout>,
    /// What it printed before it said that it is up.
    pub(crate) said: Vec<String>,
}

impl Deref for Stage {
    type Target = Sandbox;

    fn deref(&self) -> &Sandbox {
        &self.sandbox
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let ids = self.mk(["ps", "-q"]).stdout;
        if !ids.is_empty() {
            let words = ["stop", "-t", "0"].into_iter().chain(ids.lines());
            self.mk(words.collect::<Vec<_>>());
        }
    }
}

impl Stage {
    /// Makes one, or says what is missing for that.
    pub(crate) fn new() -> Option<Self> {
        let world = World::new()?;
        let sandbox = boxed("")?;
        Some(Self { sandbox, world })
    }

    /// Returns where mk runs.
    pub(crate) fn host(&self) -> &Place {
        &self.world.host
    }

    /// Calls `mk` with `words` on the host.
    pub(crate) fn mk<S: AsRef<std::ffi::OsStr> + Send>(
        &self,
        words: impl IntoIterator<Item = S> + Send,
    ) -> Output {
        self.host().enter(|| self.sandbox.mk(words))
    }

    /// Runs `script` in the image with `options`.
    pub(crate) fn run(&self, options: &[&str], script: &str) -> Output {
        self.mk([&["run"], options, &["box", "sh", "-c", script]].concat())
    }

    /// Runs `script`, which must succeed and leave stderr empty, and returns what it prints.
    #[track_caller]
    pub(crate) fn says(&self, options: &[&str], script: &str) -> String {
        let output = self.run(options, script).ok();
        assert_eq!(output.stderr, "", "{output}");
        output.text().to_owned()
    }

    /// Starts a run that does what `script` says, then says `up`, and then waits until its stdin ends.
    #[track_caller]
    pub(crate) fn start(&self, options: &[&str], script: &str) -> Running {
        let script = format!("{script}\necho up; cat");
        let mut mk = self.sandbox.command();
        mk.args(["run"])
            .args(options)
            .args(["box", "sh", "-ec", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = self.host().enter(|| mk.spawn().unwrap());
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut said = Vec::new();
        for line in stdout.by_ref().lines().map_while(Result::ok) {
            if line == "up" {
                return Running { child, stdout, said };
            }
            said.push(line);
        }
        drop(child.stdin.take());
        let output = child.wait_with_output().unwrap();
        panic!("{options:?} {script:?} did not come up: {said:?} {output:?}");
    }

    /// Starts a run with the host name `name` that serves its files, of which `/` says its name, on port 80.
    #[track_caller]
    pub(crate) fn serve(&self, name: &str, options: &[&str]) -> Running {
        let options = [&["--name", name], options].concat();
        self.start(
            &options,
            &format!("mkdir /www; echo {name} >/www/index.html; httpd -h /www -p 80"),
        )
    }

    /// Returns the names of the links of the host that `bridge` has as its ports.
    pub(crate) fn ports_of(&self, bridge: &str) -> Vec<String> {
        let links = ip(self.host(), "link");
        let ports = links.iter().filter(|link| link["master"] == bridge);
        ports
            .map(|link| link["ifname"].as_str().unwrap().to_owned())
            .collect()
    }

    /// Whether `address` answers a ping from `place`.
    pub(crate) fn answers(&self, place: &Place, address: &str) -> bool {
        let ping = format!("{} ping -c 1 -W 3 {address}", self.busybox());
        place.try_sh(&ping).status.success()
    }

    /// Returns the path of the busybox of the image, which is static: it runs on the host, too.
    pub(crate) fn busybox(&self) -> String {
        self.sandbox
            .rootfs("box")
            .join("bin/busybox")
            .display()
            .to_string()
    }
}

impl Running {
    /// Returns the number of the mk that runs it.
    pub(crate) fn mk(&self) -> u32 {
        self.child.id()
    }

    /// Returns the network of the container, with the files of the host.
    #[track_caller]
    pub(crate) fn place(&self, stage: &Stage) -> Place {
        let [child] = children(self.mk())[..] else {
            panic!("mk has the children {:?}", children(self.mk()));
        };
        stage.host().network_of(child)
    }

    /// Ends it as SIGKILL ends mk: without a word.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Lets it come to its end, and returns what it printed since it was up.
    #[track_caller]
    pub(crate) fn finish(mut self) -> String {
        drop(self.child.stdin.take());
        eventually("the end of the run", || self.child.try_wait().unwrap().is_some());
        let mut said = String::new();
        self.stdout.read_to_string(&mut said).unwrap();
        assert!(self.child.wait().unwrap().success(), "{said}");
        said
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns the processes whose parent is `pid`.
fn children(pid: u32) -> Vec<u32> {
    let found = fs_err::read_dir("/proc").unwrap().filter_map(|entry| {
        let entry = entry.unwrap();
        let child: u32 = entry.file_name().to_string_lossy().parse().ok()?;
        let stat = fs_err::read_to_string(entry.path().join("stat")).ok()?;
        // The name in parentheses may hold anything (proc(5)).
        let parent = stat.rsplit_once(") ")?.1.split(' ').nth(1)?;
        (parent == pid.to_string()).then_some(child)
    });
    found.collect()
}

/// Returns what `ip -json` with `words` prints in `place`.
#[track_caller]
pub(crate) fn ip(place: &Place, words: &str) -> Vec<serde_json::Value> {
    let text = place.sh(&format!("ip -json {words}"));
    serde_json::from_str(&text).unwrap_or_else(|_| panic!("ip -json {words}: {text:?}"))
}

/// The addresses of one link that others than its neighbours may know, without their prefixes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Addresses {
    pub(crate) v4: Ipv4Addr,
    pub(crate) v6: Ipv6Addr,
}

impl Addresses {
    /// Looks at `link` in `place`, which must have one of each.
    #[track_caller]
    pub(crate) fn of(place: &Place, link: &str) -> Self {
        let found = ip(place, &format!("address show dev {link}"));
        let all: Vec<IpAddr> = found[0]["addr_info"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|address| address["scope"] == "global")
            .map(|address| address["local"].as_str().unwrap().parse().unwrap())
            .collect();
        let [IpAddr::V4(v4), IpAddr::V6(v6)] = all[..] else {
            panic!("{link} has the addresses {all:?}");
        };
        Self { v4, v6 }
    }

    /// Returns both as text.
    pub(crate) fn texts(self) -> [String; 2] {
        [self.v4.to_string(), self.v6.to_string()]
    }
}
