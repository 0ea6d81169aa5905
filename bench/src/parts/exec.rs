//! One more command in a container that runs already.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::run::configuration;
use super::{BOTH, Tell, starts, text, words};
use crate::contest::Contestant;
use crate::image::Image;
use crate::machine::{CRUN, NSENTER};
use crate::{Bench, Error, machine};

/// What the containers are called.
const NAME: &str = "mk-bench-exec";

/// Measures.
pub(super) fn measure(bench: &Bench, tell: Tell<'_>) -> Result<(), Error> {
    let image = Image::make(bench)?;
    let ours = Ours::start(bench, &image)?;
    let theirs = Theirs::start(bench, &image)?;
    let contestants = || {
        let nsenter = words(&["--all", "--target", &ours.pid, "stamp"]);
        let mut exec = theirs.words.clone();
        exec.extend(words(&["exec", NAME, "stamp"]));
        Ok(vec![
            Contestant::of("mk exec", bench.mk.clone(), words(&["exec", NAME, "stamp"])),
            Contestant::of("nsenter", NSENTER.find()?, nsenter)
                .differs("by the number of a process, into its namespaces; as root: it takes no privileges away, and filters nothing"),
            Contestant::of("crun exec", CRUN.find()?, exec).differs("a container of its own; no filter of system calls"),
        ])
    };
    starts(
        bench,
        "one more command in a container",
        BOTH,
        300,
        contestants,
        tell,
    )
}

/// A container of mk's, which ends with this.
struct Ours {
    mk: PathBuf,
    /// Its process 1, as seen from here.
    pid: String,
}

impl Ours {
    fn start(bench: &Bench, image: &Image) -> Result<Self, Error> {
        let store = text(&image.store);
        let run = [
            "run", "--detach", "--rm", "--name", NAME, "--store", &store, "busybox", "sleep", "3600",
        ];
        machine::call(&bench.mk, run)?;
        let mut ours = Self {
            mk: bench.mk.clone(),
            pid: String::new(),
        };
        let list = machine::call(&bench.mk, ["ps", "--json"])?;
        let value: serde_json::Value =
            serde_json::from_str(&list).map_err(|_| Error::Document(list.clone()))?;
        let mut containers = value.as_array().into_iter().flatten();
        let pid = containers.find(|container| container["name"] == NAME);
        let pid = pid.and_then(|container| container["pid"].as_u64());
        ours.pid = pid.ok_or(Error::Document(list))?.to_string();
        Ok(ours)
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        let _ = machine::call(&self.mk, ["kill", NAME]);
        let _ = machine::call(&self.mk, ["wait", NAME]);
    }
}

/// A container of crun's, which ends with this.
struct Theirs {
    program: PathBuf,
    words: Vec<String>,
    child: Child,
}

impl Theirs {
    fn start(bench: &Bench, image: &Image) -> Result<Self, Error> {
        let bundle = bench.folder.join("bundle-exec");
        fs_err::create_dir_all(&bundle)?;
        let mut configuration = configuration(&image.rootfs, &[]);
        configuration["process"]["args"] = serde_json::json!(["sleep", "3600"]);
        fs_err::write(bundle.join("config.json"), configuration.to_string())?;
        let program = CRUN.find()?;
        let state = bench.folder.join("crun-exec");
        let words = words(&["--root", &text(&state), "--cgroup-manager=disabled"]);
        let child = Command::new(&program)
            .args(&words)
            .args(["run", "--bundle", &text(&bundle), NAME])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .map_err(|source| Error::Start {
                program: program.clone(),
                source,
            })?;
        let theirs = Self {
            program,
            words,
            child,
        };
        theirs.wait_until_it_runs()?;
        Ok(theirs)
    }

    fn wait_until_it_runs(&self) -> Result<(), Error> {
        let start = Instant::now();
        loop {
            let words = self
                .words
                .iter()
                .map(String::as_str)
                .chain(["exec", NAME, "true"]);
            match machine::call(&self.program, words) {
                Ok(_) => return Ok(()),
                Err(error) if start.elapsed() > Duration::from_secs(10) => {
                    return Err(error);
                }
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }
}

impl Drop for Theirs {
    fn drop(&mut self) {
        let words = self.words.iter().map(String::as_str);
        let _ = machine::call(&self.program, words.chain(["delete", "--force", NAME]));
        let _ = self.child.wait();
    }
}
