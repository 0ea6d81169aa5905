//! What a container prints: each byte, in its stream, and no more than there is room for.

use std::io::Read;
use std::process::Stdio;

use sha2::{Digest, Sha256};

use super::{Life, kill};
use crate::run::eventually;

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Returns what `mk logs` with `options` writes to stdout and stderr.
#[track_caller]
fn logs(life: &Life, options: &[&str], name: &str) -> (Vec<u8>, Vec<u8>) {
    let mut command = life.command();
    let output = command.arg("logs").args(options).arg(name).output().unwrap();
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    (output.stdout, output.stderr)
}

#[test]
fn both_streams_come_back_each_to_its_own() {
    let Some(life) = Life::new() else { return };
    life.detach(&["--name", "job"], "echo out; echo err >&2; printf 'no end'");
    life.mk(["wait", "job"]).ok();
    assert_eq!(
        logs(&life, &[], "job"),
        (b"out\nno end".to_vec(), b"err\n".to_vec())
    );
}

#[test]
fn every_byte_is_kept_binary_and_long_lines_too() {
    let Some(life) = Life::new() else { return };
    let bytes = life.work().join("bytes");
    let mut noise = vec![0; 3_000_000];
    fs_err::File::open("/dev/urandom")
        .unwrap()
        .read_exact(&mut noise)
        .unwrap();
    noise.extend([b'x'; 200_000]);
    fs_err::write(&bytes, &noise).unwrap();
    let volume = format!("{}:/bytes:ro", bytes.display());
    life.detach(&["--name", "job", "-v", &volume], "cat /bytes; cat /bytes >&2");
    life.mk(["wait", "job"]).ok();
    let (stdout, stderr) = logs(&life, &[], "job");
    assert_eq!(digest(&stdout), digest(&noise));
    assert_eq!(digest(&stderr), digest(&noise));
    let followed = logs(&life, &["-f"], "job");
    assert!(
        followed == (stdout, stderr),
        "following one that has ended is reading it"
    );
}

#[test]
fn a_log_is_bounded_and_ends_with_the_newest() {
    let Some(life) = Life::new() else { return };
    let id = life.detach(
        &["--name", "job", "--log-size", "128k"],
        "seq 1 100000; echo last",
    );
    life.mk(["wait", "job"]).ok();
    let size: u64 = fs_err::read_dir(life.state().join(&id))
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("log."))
        .map(|entry| entry.metadata().unwrap().len())
        .sum();
    assert!(size <= 128 << 10, "{size}");
    let (stdout, stderr) = logs(&life, &[], "job");
    assert!(stdout.ends_with(b"\n100000\nlast\n") && stderr.is_empty());
    assert!(stdout.len() > 4000);
    assert_eq!(logs(&life, &["--tail", "2"], "job").0, b"100000\nlast\n");
    assert_eq!(logs(&life, &["-n", "0"], "job").0, b"");
}

#[test]
fn who_follows_gets_all_of_it_over_rotations_and_comes_to_an_end() {
    let Some(life) = Life::new() else { return };
    // Slow enough for anybody to keep up, and several times what the log holds.
    let script = "i=0; while [ $i -lt 60 ]; do seq $((i * 200 + 1)) $((i * 200 + 200)); sleep 0.02; i=$((i + 1)); done";
    life.detach(&["--name", "job", "--log-size", "128k"], script);
    let (stdout, stderr) = logs(&life, &["-f"], "job");
    let expected: String = (1..=12_000).map(|number| format!("{number}\n")).collect();
    let missed = String::from_utf8_lossy(&stderr);
    assert!(
        stdout == expected.as_bytes() || missed.contains("missing"),
        "{missed}"
    );
    let (kept, _) = logs(&life, &[], "job");
    assert!(kept.len() < stdout.len() && expected.as_bytes().ends_with(&kept));
}

#[test]
fn what_is_not_a_whole_line_yet_is_shown_at_once() {
    let Some(life) = Life::new() else { return };
    life.detach(&["--name", "job"], "printf 'name: '; sleep 60");
    let mut follower = life
        .command()
        .args(["logs", "-f", "job"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut prompt = [0; 6];
    follower.stdout.as_mut().unwrap().read_exact(&mut prompt).unwrap();
    assert_eq!(&prompt, b"name: ");
    life.mk(["rm", "-f", "job"]).ok();
    assert!(follower.wait().unwrap().success());
}

#[test]
fn the_last_words_of_a_container_are_never_lost_to_who_follows() {
    let Some(life) = Life::new() else { return };
    for round in 0..10 {
        life.detach(&["--name", "job"], &format!("seq 1 2000; echo last {round}"));
        let (stdout, _) = logs(&life, &["--follow"], "job");
        let last = format!("\n2000\nlast {round}\n");
        assert!(
            stdout.ends_with(last.as_bytes()) && stdout.starts_with(b"1\n2\n"),
            "round {round}"
        );
    }
}

#[test]
fn moments_choose_and_stamp_lines() {
    let Some(life) = Life::new() else { return };
    life.detach(
        &["--name", "job"],
        "echo early; sleep 1.2; echo late; echo later >&2",
    );
    life.mk(["wait", "job"]).ok();
    let (stamped, errors) = logs(&life, &["--timestamps"], "job");
    let stamped = String::from_utf8(stamped).unwrap();
    let lines: Vec<(&str, &str)> = stamped
        .lines()
        .map(|line| line.split_once(' ').unwrap())
        .collect();
    assert_eq!(
        lines.iter().map(|(_, text)| *text).collect::<Vec<_>>(),
        ["early", "late"]
    );
    assert!(
        lines
            .iter()
            .all(|(time, _)| time.len() == 30 && time.ends_with('Z')),
        "{stamped}"
    );
    assert!(lines[0].0 < lines[1].0 && errors.ends_with(b"Z later\n"));
    assert_eq!(
        logs(&life, &["--since", lines[1].0], "job"),
        (b"late\n".to_vec(), b"later\n".to_vec())
    );
    assert_eq!(logs(&life, &["--since", "1h"], "job").0, b"early\nlate\n");
    assert_eq!(logs(&life, &["--since", "2100-01-01T00:00:00Z"], "job").0, b"");
}

#[test]
fn who_follows_ends_when_the_reader_has_seen_enough() {
    let Some(life) = Life::new() else { return };
    life.detach(&["--name", "job"], "while :; do echo line; sleep 0.01; done");
    let mut follower = life
        .command()
        .args(["logs", "-f", "job"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = [0; 5];
    let mut stdout = follower.stdout.take().unwrap();
    stdout.read_exact(&mut line).unwrap();
    drop(stdout);
    eventually("the end of the follower", || {
        follower.try_wait().unwrap().is_some()
    });
    let output = follower.wait_with_output().unwrap();
    assert_eq!(
        (output.status.code(), output.stderr.as_slice()),
        (Some(0), b"".as_slice())
    );
}

#[test]
fn many_follow_one_and_all_end_with_its_monitor() {
    let Some(life) = Life::new() else { return };
    let id = life.detach(&["--name", "job"], "echo up; exec sleep 60");
    let mut followers: Vec<_> = (0..5).map(|_| life.follow("job")).collect();
    kill(life.monitor(&id));
    for follower in &mut followers {
        assert!(follower.wait().unwrap().success());
    }
}
