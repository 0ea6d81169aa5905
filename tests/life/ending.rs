//! How containers end, and what is known of it.

use std::time::{Duration, Instant};

use super::{Life, fails};
use crate::run::{eventually, marker, processes_with};

#[test]
fn a_command_that_does_not_listen_is_killed_when_its_time_is_up() {
    let Some(life) = Life::new() else { return };
    life.detach(
        &["--name", "deaf"],
        "trap '' TERM; echo up; while :; do sleep 1; done",
    );
    life.detach(
        &["--name", "deaf2"],
        "trap '' TERM; echo up; while :; do sleep 1; done",
    );
    life.until_it_prints("deaf", "up");
    life.until_it_prints("deaf2", "up");
    let begin = Instant::now();
    life.mk(["stop", "-t", "0.5", "deaf", "deaf2"]).ok();
    assert!(begin.elapsed() >= Duration::from_millis(500));
    assert!(begin.elapsed() < Duration::from_secs(8), "both at once");
    assert_eq!(life.mk(["wait", "deaf", "deaf2"]).stdout, "137\n137\n");
}

#[test]
fn a_command_that_listens_ends_as_it_likes() {
    let Some(life) = Life::new() else { return };
    life.detach(
        &["--name", "job"],
        "trap 'echo bye; exit 4' TERM; echo up; while :; do sleep 0.1; done",
    );
    life.until_it_prints("job", "up");
    life.mk(["stop", "job"]).ok();
    let wait = life.mk(["wait", "job"]);
    assert_eq!((wait.code, wait.stdout.as_str()), (Some(4), "4\n"));
    assert_eq!(life.mk(["logs", "job"]).stdout, "up\nbye\n");
}

#[test]
fn signals_go_to_the_command() {
    let Some(life) = Life::new() else { return };
    let script = "trap 'echo one' USR1; trap 'echo two' HUP; echo up; while :; do sleep 0.1; done";
    life.detach(&["--name", "job"], script);
    life.until_it_prints("job", "up");
    life.mk(["kill", "-s", "USR1", "job"]).ok();
    life.until_it_prints("job", "one");
    life.mk(["kill", "-s", "1", "job"]).ok();
    life.until_it_prints("job", "two");
    life.mk(["kill", "job"]).ok();
    assert_eq!(life.mk(["wait", "job"]).stdout, "137\n");
}

#[test]
fn a_command_at_process_1_is_stopped_too() {
    let Some(life) = Life::new() else { return };
    life.detach(
        &["--name", "one", "--as-pid1"],
        "echo up; while :; do sleep 0.1; done",
    );
    life.until_it_prints("one", "up");
    life.mk(["stop", "-t", "0.2", "one"]).ok();
    assert_eq!(life.mk(["wait", "one"]).stdout, "137\n");
}

#[test]
fn who_waits_learns_the_code_even_of_one_that_is_forgotten() {
    let Some(life) = Life::new() else { return };
    life.detach(&["--name", "job", "--rm"], "read line; exit 9");
    life.detach(&["--name", "slow"], "sleep 0.5; exit 7");
    // The command's standard input has no more to say from the start.
    let wait = life.mk(["wait", "slow"]);
    assert_eq!((wait.code, wait.stdout.as_str()), (Some(7), "7\n"));
    eventually("nothing of the first", || life.folders().len() == 1);

    life.detach(&["--name", "job", "--rm"], "sleep 0.5; exit 9");
    let wait = life.mk(["wait", "job"]);
    assert_eq!((wait.code, wait.stdout.as_str()), (Some(9), "9\n"));
    eventually("nothing of it", || life.folders().len() == 1);
}

#[test]
fn one_that_runs_is_removed_by_force_only() {
    let Some(life) = Life::new() else { return };
    let sleep = marker();
    let id = life.detach(&["--name", "web"], &format!("exec sleep {sleep}"));
    let refused = life.mk(["rm", "web"]);
    fails(&refused, 1, "container `web` is running");
    assert!(refused.stderr.contains("`mk rm -f web` kills it"), "{refused}");
    life.mk(["rm", "-f", &id[..6]]).ok();
    assert!(processes_with(&sleep).is_empty());
    assert!(life.folders().is_empty());
    life.detach(&["--name", "web"], "true");
    life.mk(["wait", "web"]).ok();
    life.mk(["rm", "-f", "web"]).ok();
}

#[test]
fn a_name_that_is_a_container_s_and_an_image_s_is_removed_on_request_only() {
    let Some(life) = Life::new() else { return };
    let id = life.detach(&["--name", "box"], "true");
    life.mk(["wait", "box"]).ok();
    let refused = life.mk(["rm", "box"]);
    fails(
        &refused,
        1,
        "`box` is a container and an image: nothing was removed",
    );
    assert!(refused.stderr.contains(&format!("`mk rm {id}`")), "{refused}");
    assert!(refused.stderr.contains("`mk rm --image box`"), "{refused}");
    life.mk(["rm", "--image", "box"]).ok();
    assert_eq!(life.mk(["images"]).ok().stdout, "");
    life.mk(["rm", "box"]).ok();
    assert!(life.folders().is_empty());
}

#[test]
fn the_image_of_one_that_has_ended_is_not_kept_for_it() {
    let Some(life) = Life::new() else { return };
    life.detach(&["--name", "web"], "exec sleep 60");
    life.mk(["rm", "--image", "box"]).ok();
    let before = life.mk(["gc", "--keep", "0"]).ok();
    assert!(!before.stdout.contains("image"), "it runs: {before}");
    life.mk(["stop", "web"]).ok();
    let after = life.mk(["gc", "--keep", "0"]).ok();
    assert!(after.stdout.contains("image"), "{after}");
    let all = life.ps(&["--all"]);
    assert_eq!(all[0]["image"], "box");
    assert_eq!(all[0]["digest"].as_str().unwrap().len(), 64);
}

#[test]
fn a_word_with_a_slip_is_answered_with_the_name() {
    let Some(life) = Life::new() else { return };
    life.detach(&["--name", "web"], "exec sleep 60");
    let refused = life.mk(["stop", "wbe"]);
    fails(&refused, 1, "there is no container `wbe`");
    assert!(refused.stderr.contains("did you mean `web`?"), "{refused}");
}
