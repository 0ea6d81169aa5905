//! A hundred megabytes that look random, on every way in and out: each byte arrives, in order, and no other.

use std::io::{Read, Write};
use std::process::{Command, Stdio};

use sha2::{Digest, Sha256};

use super::boxed;
use crate::harness::chance::Chance;

/// How many bytes are sent.
const MANY: usize = 100_000_000;

/// Returns [`MANY`] bytes.
fn bytes(chance: &mut Chance) -> Vec<u8> {
    let mut bytes = vec![0; MANY];
    for eight in bytes.chunks_mut(8) {
        eight.copy_from_slice(&chance.number().to_le_bytes()[..eight.len()]);
    }
    bytes
}

fn name(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Sends `bytes` to a command and returns what it prints.
fn through(mut command: Command, bytes: &[u8]) -> Vec<u8> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut came = Vec::with_capacity(bytes.len());
    std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(bytes).unwrap());
        stdout.read_to_end(&mut came).unwrap();
    });
    assert!(child.wait().unwrap().success());
    came
}

/// Fails without printing a hundred megabytes.
#[track_caller]
fn assert_same(came: &[u8], sent: &[u8], chance: &Chance) {
    assert_eq!(
        (came.len(), name(came)),
        (sent.len(), name(sent)),
        "MK_TEST_SEED={}",
        chance.seed
    );
}

#[test]
fn pipes_carry_a_hundred_megabytes_both_ways() {
    let Some(sandbox) = boxed("") else { return };
    let mut chance = Chance::new();
    let sent = bytes(&mut chance);
    let run = |words: &[&str]| {
        let mut command = sandbox.command();
        command.args(["run", "box"]).args(words);
        command
    };
    assert_same(&through(run(&["cat"]), &sent), &sent, &chance);
    // Whether it is the way in or the way out that would be wrong: this only goes in.
    let said = through(run(&["sha256sum"]), &sent);
    assert_eq!(said, format!("{}  -\n", name(&sent)).into_bytes());
}

#[test]
fn a_log_gives_back_a_hundred_megabytes() {
    let Some(sandbox) = boxed("") else { return };
    let mut chance = Chance::new();
    let sent = bytes(&mut chance);
    sandbox.write("data", &sent);
    let words = [
        "-d",
        "--name",
        "web",
        "--log-size",
        "200m",
        "-v",
        "./data:/data:ro",
    ];
    sandbox
        .mk([&["run", "box"], &words[..], &["cat", "/data"]].concat())
        .ok();
    assert_eq!(sandbox.mk(["wait", "web"]).ok().text(), "0");
    let mut logs = sandbox.command();
    logs.args(["logs", "web"]);
    assert_same(&through(logs, b""), &sent, &chance);
    sandbox.mk(["rm", "web"]).ok();
}

#[test]
fn what_goes_into_a_container_and_comes_out_again_is_the_same() {
    let Some(sandbox) = boxed("") else { return };
    let mut chance = Chance::new();
    let sent = bytes(&mut chance);
    let words = ["run", "box", "-d", "--name", "web", "sleep", "1000"];
    sandbox.mk(words).ok();
    let mut command = sandbox.command();
    command.args(["exec", "web", "cat"]);
    assert_same(&through(command, &sent), &sent, &chance);
    sandbox.mk(["rm", "-f", "web"]).ok();
}
