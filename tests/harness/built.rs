//! [`Built`]: what `mk build --json --progress json` tells, for tests that ask what was done.

use serde_json::Value;

use super::{Output, Sandbox};

/// The result of a build and the events on the way to it.
#[derive(Debug, Clone)]
pub(crate) struct Built {
    /// Digest of the image.
    pub(crate) image: String,
    /// Digest of its tree.
    pub(crate) tree: String,
    /// How many of its steps were known.
    pub(crate) cached: u64,
    /// Labels of the steps that were done, in order.
    pub(crate) done: Vec<String>,
}

impl Built {
    /// Reads the output of a build that must have succeeded.
    #[track_caller]
    pub(crate) fn of(output: Output) -> Self {
        let output = output.ok();
        let result: Value = serde_json::from_str(&output.stdout).unwrap_or_else(|_| panic!("{output}"));
        let events: Vec<Value> = output
            .stderr
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {output}")))
            .collect();
        let is_done = |event: &&Value| event["event"] == "step-finished" && event["cached"] == false;
        let text = |name: &str| {
            let value = result[name].as_str();
            value
                .unwrap_or_else(|| panic!("no `{name}` in {output}"))
                .to_owned()
        };
        Self {
            image: text("digest"),
            tree: text("tree"),
            cached: result["cached"]
                .as_u64()
                .unwrap_or_else(|| panic!("no `cached` in {output}")),
            done: events
                .iter()
                .filter(is_done)
                .map(|event| event["label"].as_str().unwrap().to_owned())
                .collect(),
        }
    }
}

impl Sandbox {
    /// Builds a recipe that must build.
    #[track_caller]
    pub(crate) fn build(&self, recipe: &str) -> Built {
        self.build_with(recipe, &[])
    }

    /// Builds a recipe that must build, with further words on the command line.
    #[track_caller]
    pub(crate) fn build_with(&self, recipe: &str, more: &[&str]) -> Built {
        Built::of(self.mk([&["build", recipe, "--json", "--progress", "json"], more].concat()))
    }

    /// Returns the canonical text of an image's tree.
    #[track_caller]
    pub(crate) fn tree(&self, image: &str) -> String {
        self.mk(["inspect", "--tree", image]).ok().stdout
    }

    /// Returns the folder of an image.
    #[track_caller]
    pub(crate) fn rootfs(&self, image: &str) -> std::path::PathBuf {
        self.mk(["inspect", "--rootfs", image]).ok().text().into()
    }

    /// Makes sure that nothing in the store is damaged.
    #[track_caller]
    pub(crate) fn verify(&self) {
        self.mk(["verify"]).ok();
    }
}
