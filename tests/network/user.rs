use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::Stage;
use crate::harness::world::{HOST4, OUTSIDE4, OUTSIDE6};
use crate::harness::{Output, Sandbox, needs};
use crate::run::{boxed, eventually, processes_with};

/// The helpers that this machine has.
fn helpers() -> Vec<&'static str> {
    let there = |name: &&str| Path::new("/usr/bin").join(name).exists();
    let found: Vec<&str> = ["pasta", "slirp4netns"].into_iter().filter(there).collect();
    if found.is_empty() {
        needs::skipped("pasta or slirp4netns");
    }
    found
}
