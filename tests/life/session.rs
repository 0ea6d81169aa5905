//! A container from its start to its end, with the commands that a person would type.

use std::process::Stdio;

use super::{Life, fails, kill};
use crate::run::{eventually, marker, processes_with};

#[test]
fn a_server_is_started_seen_followed_stopped_and_forgotten() {
    let Some(life) = Life::new() else { return };
    let run = [
        "run",
        "-d",
        "--name",
        "web",
        "box",
        "sh",
        "-c",
        "echo up; exec httpd -f -p 8080",
    ];
    let output = life.mk(run).ok();
    let id = output.text().to_owned();
    assert_eq!(output.stderr, "");

    let ps = life.mk(["ps"]).ok();
    let rows: Vec<Vec<&str>> = ps
        .stdout
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(rows[0], ["NAME", "ID", "IMAGE", "STATE", "PORTS", "COMMAND"]);
    assert_eq!(rows[1][..4], ["web", &id, "box", "running"], "{ps}");
    assert!(ps.stdout.contains("sh -c 'echo up; exec httpd"), "{ps}");
    assert_eq!(life.mk(["ps", "-q"]).ok().text(), id);

    let mut follower = life.follow("web");
    assert!(follower.try_wait().unwrap().is_none(), "it follows");
    assert_eq!(life.mk(["stop", "web"]).ok().stderr, "");
    let followed = follower.wait_with_output().unwrap();
    assert_eq!(
        (
            followed.status.code(),
            followed.stdout.as_slice(),
            followed.stderr.as_slice()
        ),
        (Some(0), b"".as_slice(), b"".as_slice())
    );

    assert_eq!(life.mk(["ps"]).ok().stdout.lines().count(), 1);
    let all = life.ps(&["--all"]);
    assert_eq!(all.len(), 1);
    assert_eq!(
        (&all[0]["state"], &all[0]["exit_code"]),
        (&"exited".into(), &143.into())
    );
    assert_eq!(
        (&all[0]["name"], &all[0]["pid"]),
        (&"web".into(), &serde_json::Value::Null)
    );
    // Ended already is as it should be; a signal has nobody to go to.
    life.mk(["stop", "web"]).ok();
    fails(&life.mk(["kill", "web"]), 1, "container `web` has ended");
    assert_eq!(life.mk(["wait", "web"]).stdout, "143\n");
    assert_eq!(life.mk(["logs", "web"]).ok().stdout, "up\n");
    life.mk(["rm", "web"]).ok();
    assert_eq!(life.mk(["ps", "-aq"]).ok().stdout, "");
    assert!(life.folders().is_empty());
}

#[test]
fn a_monitor_that_is_killed_takes_the_container_along_and_the_next_who_looks_says_so() {
    let Some(life) = Life::new() else { return };
    let sleep = marker();
    let id = life.detach(&["--name", "web"], &format!("echo up; exec sleep {sleep}"));
    let mut follower = life.follow("web");
    kill(life.monitor(&id));
    assert!(follower.wait().unwrap().success(), "who follows comes to an end");
    eventually("the end of the container", || processes_with(&sleep).is_empty());

    let ps = life.mk(["ps"]).ok();
    assert_eq!(ps.stdout.lines().count(), 1, "{ps}");
    assert_eq!(
        ps.stderr,
        format!("note: container `web` ({id}) is gone: its monitor was killed, and that ended it\n")
    );
    assert!(life.folders().is_empty());
    // It is said once.
    assert_eq!(life.mk(["ps"]).ok().stderr, "");
    fails(&life.mk(["logs", "web"]), 1, "there is no container `web`");
    // Its name is free.
    life.detach(&["--name", "web"], "exec sleep 60");
}

#[test]
fn a_run_in_the_foreground_can_have_a_name_for_as_long_as_it_lasts() {
    let Some(life) = Life::new() else { return };
    let mut run = life
        .command()
        .args([
            "run",
            "--name",
            "web",
            "box",
            "sh",
            "-c",
            "echo up; exec sleep 60",
        ])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    eventually("the container", || {
        life.ps(&[]).first().is_some_and(|one| one["state"] == "running")
    });
    fails(&life.mk(["logs", "web"]), 1, "has no log");
    fails(
        &life.mk(["run", "--name", "web", "box", "true"]),
        125,
        "the name `web` is taken",
    );
    fails(&life.mk(["rm", "web"]), 1, "container `web` is running");
    life.mk(["stop", "web"]).ok();
    assert_eq!(run.wait().unwrap().code(), Some(143));
    assert!(life.folders().is_empty(), "nothing is kept of it");

    let failed = life.mk(["run", "--name", "web", "box", "sh", "-c", "exit 3"]);
    assert_eq!(failed.code, Some(3), "{failed}");
    assert_eq!(life.mk(["run", "--name", "web", "box", "nosuch"]).code, Some(127));
    assert!(life.folders().is_empty());
}

#[test]
fn mk_killed_in_the_foreground_is_told_of_too() {
    let Some(life) = Life::new() else { return };
    let mut run = life
        .command()
        .args(["run", "--name", "web", "box", "sleep", "60"])
        .spawn()
        .unwrap();
    eventually("the container", || {
        life.ps(&[]).first().is_some_and(|one| one["state"] == "running")
    });
    run.kill().unwrap();
    run.wait().unwrap();
    let said = life
        .mk(["run", "-d", "--rm", "--name", "web", "box", "true"])
        .ok()
        .stderr;
    assert!(said.contains("is gone: the mk that ran it was killed"), "{said}");
}

#[test]
fn a_plain_run_leaves_and_makes_no_state() {
    let Some(life) = Life::new() else { return };
    life.mk(["run", "box", "true"]).ok();
    life.mk(["run", "--rm", "box", "true"]).ok();
    assert!(!life.state().exists());
    assert_eq!(life.mk(["ps"]).ok().stderr, "");
}

#[test]
fn one_name_asked_for_twice_at_once_is_given_once() {
    let Some(life) = Life::new() else { return };
    let outputs: Vec<_> = std::thread::scope(|scope| {
        let runs: Vec<_> = (0..6)
            .map(|_| scope.spawn(|| life.mk(["run", "-d", "--name", "web", "box", "sleep", "60"])))
            .collect();
        runs.into_iter().map(|run| run.join().unwrap()).collect()
    });
    let (won, lost): (Vec<_>, Vec<_>) = outputs.into_iter().partition(|output| output.code == Some(0));
    assert_eq!(won.len(), 1, "{lost:?}");
    for output in lost {
        fails(&output, 125, "the name `web` is taken");
        assert!(output.stderr.contains(won[0].text()), "{output}");
    }
    assert_eq!(life.folders().len(), 1);
}

#[test]
fn twenty_at_once_are_twenty() {
    let Some(life) = Life::new() else { return };
    let sleep = marker();
    let ids: Vec<String> = std::thread::scope(|scope| {
        let runs: Vec<_> = (0..20)
            .map(|_| scope.spawn(|| life.detach(&[], &format!("exec sleep {sleep}"))))
            .collect();
        runs.into_iter().map(|run| run.join().unwrap()).collect()
    });
    let mut listed: Vec<String> = life
        .mk(["ps", "-q"])
        .ok()
        .stdout
        .lines()
        .map(str::to_owned)
        .collect();
    let mut expected = ids.clone();
    listed.sort();
    expected.sort();
    assert_eq!(listed, expected);
    life.mk(["stop"].into_iter().chain(ids.iter().map(String::as_str)))
        .ok();
    assert!(processes_with(&sleep).is_empty());
    assert_eq!(life.ps(&["-a"]).len(), 20);
    life.mk(["rm"].into_iter().chain(ids.iter().map(String::as_str)))
        .ok();
    assert!(life.folders().is_empty());
}

#[test]
fn the_next_container_of_a_name_takes_the_place_of_the_one_that_has_ended() {
    let Some(life) = Life::new() else { return };
    let first = life.detach(&["--name", "job"], "echo first");
    life.mk(["wait", "job"]).ok();
    // One that does not come about takes nobody's place.
    assert_eq!(
        life.mk(["run", "-d", "--name", "job", "box", "nosuch"]).code,
        Some(127)
    );
    assert_eq!(life.mk(["ps", "-aq"]).ok().text(), first);
    let second = life.detach(&["--name", "job"], "echo second");
    life.mk(["wait", "job"]).ok();
    assert_eq!(life.mk(["ps", "-aq"]).ok().text(), second);
    assert_eq!(life.mk(["logs", "job"]).ok().stdout, "second\n");
}

#[test]
fn what_fails_before_the_command_runs_is_told_like_without_a_monitor() {
    let Some(life) = Life::new() else { return };
    for (words, code) in [
        (&["nosuch"][..], 127),
        (&["/etc"], 126),
        (&["-w", "/nosuch", "true"], 125),
        (&["-u", "nobody-there", "true"], 125),
    ] {
        let plain = life.mk([&["run", "box"], words].concat());
        let behind = life.mk([&["run", "-d", "box"], words].concat());
        assert_eq!(plain.code, Some(code), "{plain}");
        assert_eq!(
            (behind.code, &behind.stdout, &behind.stderr),
            (plain.code, &plain.stdout, &plain.stderr)
        );
    }
    assert!(life.folders().is_empty());
}

#[test]
fn a_monitor_keeps_nothing_of_its_callers() {
    let Some(life) = Life::new() else { return };
    let mk = env!("CARGO_BIN_EXE_mk");
    let script = format!(
        "exec 7>{}; cd {}; exec {mk} run -d box sleep 60",
        "kept.txt", "elsewhere"
    );
    fs_err::create_dir(life.work().join("elsewhere")).unwrap();
    let mut command = std::process::Command::new("/bin/sh");
    command.args(["-c", &script]).current_dir(life.work()).env_clear();
    command.envs(
        life.command()
            .get_envs()
            .filter_map(|(name, value)| Some((name, value?))),
    );
    // Comes back only when nobody holds the pipe of its stdout any more.
    let output = command.output().unwrap();
    let id = String::from_utf8(output.stdout).unwrap();
    let proc = std::path::PathBuf::from(format!("/proc/{}", life.monitor(id.trim())));
    assert_eq!(fs_err::read_to_string(proc.join("comm")).unwrap(), "mk-monitor\n");
    assert_eq!(
        fs_err::read_link(proc.join("cwd")).unwrap(),
        std::path::Path::new("/")
    );
    let files: Vec<String> = fs_err::read_dir(proc.join("fd"))
        .unwrap()
        .filter_map(|entry| fs_err::read_link(entry.unwrap().path()).ok())
        .map(|path| path.display().to_string())
        .collect();
    assert!(!files.iter().any(|path| path.contains("kept.txt")), "{files:?}");
    assert_eq!(
        files.iter().filter(|path| *path == "/dev/null").count(),
        3,
        "{files:?}"
    );
    let stat = fs_err::read_to_string(proc.join("stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    // Its session is its own, and there is no terminal (proc_pid_stat(5)).
    let pid = life.monitor(id.trim()).to_string();
    assert_eq!((fields[3], fields[4]), (pid.as_str(), "0"));
}

#[test]
fn standard_input_behind_is_empty_unless_it_is_to_have_no_end() {
    let Some(life) = Life::new() else { return };
    life.mk(["run", "-d", "--name", "empty", "box", "cat"]).ok();
    assert_eq!(life.mk(["wait", "empty"]).stdout, "0\n");
    life.mk(["run", "-d", "-i", "--name", "open", "box", "cat"]).ok();
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!(life.ps(&[]).len(), 1);
    life.mk(["stop", "-t", "5", "open"]).ok();
    assert_eq!(life.mk(["wait", "open"]).stdout, "143\n");
}

#[test]
fn a_terminal_behind_shows_what_goes_to_the_log() {
    let Some(life) = Life::new() else { return };
    life.detach(
        &["--name", "tty", "-t"],
        "tty; tty >&2; test -t 0 && echo up; exec sleep 60",
    );
    life.until_it_prints("tty", "up");
    let logs = life.mk(["logs", "tty"]).ok();
    assert!(logs.stdout.starts_with("/dev/pts/"), "{logs}");
    assert_eq!(
        (logs.stdout.lines().count(), logs.stderr.as_str()),
        (3, ""),
        "{logs}"
    );
    let ended = life.mk(["rm", "-f", "tty"]).ok();
    assert_eq!(ended.stderr, "");
}
