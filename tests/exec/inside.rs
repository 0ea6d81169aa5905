use super::*;

use std::io::{Read, Write};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Prints what a process is, in lines that must be the same for the container's command and for what comes in. The
/// command's number is the first argument; what it is asked about itself, it has written to /tmp before.
const COMPARE: &str = r#"
    look() {
        for ns in cgroup ipc mnt net pid user uts; do readlink /proc/$1/ns/$ns; done
        grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp|Umask)' /proc/$1/status
        cat /proc/$1/cgroup /proc/$1/limits /proc/$1/oom_score_adj
        readlink /proc/$1/cwd /proc/$1/root
        tr '\0' '\n' </proc/$1/environ | grep -v -e ^SHLVL= -e ^PWD= -e ^OLDPWD= | sort
    }
    look $COMMAND >/tmp/command; look $$ >/tmp/mine
    diff /tmp/command /tmp/mine && wc -l </tmp/mine"#;

#[track_caller]
fn assert_same(more: &str, options: &[&str], command: u32) {
    let Some(running) = running_with(more, options, STAY) else {
        return;
    };
    let script = COMPARE.replace("$COMMAND", &command.to_string());
    let output = running.exec(&[], &script).ok();
    let lines: usize = output
        .text()
        .trim()
        .parse()
        .unwrap_or_else(|_| panic!("{options:?}: {output}"));
    assert!(lines > 40, "{options:?}: too little was compared: {output}");
}

#[test]
fn ps_shows_the_container_s_processes() {
    let Some(running) = running(&[]) else { return };
    let ps = running.mk(&["exec", "web", "ps"]).ok();
    let lines: Vec<&str> = ps.text().lines().collect();
    assert!(
        lines[1].trim_start().starts_with("1 ") && lines[1].ends_with("mk-init"),
        "{ps}"
    );
    assert!(
        lines[2].trim_start().starts_with("2 ") && lines[2].contains("sh -c trap"),
        "{ps}"
    );
    assert!(lines.iter().any(|line| line.ends_with(" ps")), "{ps}");
}

#[test]
fn what_goes_in_is_as_the_command_is() {
    assert_same("", &[], 2);
}

#[test]
fn a_command_that_takes_all_memory_is_told_of() {
    if !needs::root() {
        return;
    }
    let Some(running) = running(&["--memory", "32m"]) else {
        return;
    };
    let killed = running.exec(&[], "kill -9 $$");
    assert_eq!((killed.code, killed.stderr.as_str()), (Some(137), ""), "{killed}");
    let output = running.exec(&[], "tail /dev/zero; echo gone on");
    let said = "note: the container ran out of memory: its `--memory` was reached, and that ended it\n";
    assert_eq!(
        (output.code, output.stderr.as_str()),
        (Some(137), said),
        "{output}"
    );
    assert_eq!(output.stdout, "", "{output}");
}

#[test]
fn what_goes_in_is_as_a_command_with_other_privileges_and_limits_is() {
    let options = [
        "--cap-drop",
        "ALL",
        "--cap-add",
        "CHOWN",
        "--cap-add",
        "NET_RAW",
        "--ulimit",
        "nofile=100:200",
        "--ulimit",
        "core=0",
        "--oom-score-adj",
        "500",
        "-e",
        "GREETING=hi there",
        "-w",
        "/etc",
        "--network",
        "host",
    ];
    assert_same("", &options, 2);
}

#[test]
fn what_goes_in_is_as_an_unconfined_command_is() {
    assert_same(
        "",
        &[
            "--seccomp",
            "unconfined",
            "--allow-new-privileges",
            "--hostname",
            "other",
        ],
        2,
    );
}

#[test]
fn what_goes_in_is_as_a_command_at_pid_1_is() {
    assert_same("", &["--as-pid1"], 1);
}

#[test]
fn what_goes_in_is_the_user_that_the_command_is() {
    if !needs::has_ids() {
        return needs::skipped("more than one user id");
    }
    let more = "[[step]]\nuser = 'app'\nuid = 1000\n";
    assert_same(more, &["-u", "app"], 2);
    let Some(running) = running_with(more, &["-u", "app"], STAY) else {
        return;
    };
    assert_eq!(running.says(&[], "id -u; id -g; echo $HOME"), "1000\n1000\n/");
    // Another one lives elsewhere, and gets no more than root of this container may have.
    assert_eq!(running.says(&["-u", "0"], "id -u; echo $HOME"), "0\n/root");
    assert_eq!(running.says(&["-u", "0:7"], "id -g; id -G"), "7\n7");
    let unknown = running.exec(&["-u", "nobody-knows"], "true");
    assert_eq!(unknown.code, Some(125), "{unknown}");
    assert!(unknown.stderr.contains("no user `nobody-knows`"), "{unknown}");
}

#[test]
fn a_cgroup_counts_what_goes_in() {
    let Some(archive) = needs::fixture(needs::FIXTURES[0]) else {
        return;
    };
    drop(archive);
    if !needs::root() {
        return;
    }
    let Some(running) = running(&["--pids", "20", "-m", "64m"]) else {
        return;
    };
    assert_same("", &["--pids", "50", "-m", "64m"], 2);
    // Each asks for many, and the limit is that of the container.
    let bomb = running.exec(
        &[],
        "i=0; while [ $i -lt 40 ]; do sleep 3 & i=$((i+1)); done; echo made",
    );
    assert!(!bomb.stderr.is_empty() && bomb.stderr.contains("fork"), "{bomb}");
}

#[test]
fn environment_and_folder_are_the_command_s_unless_others_are_asked_for() {
    let Some(running) = running(&["-e", "A=1", "-e", "B=2", "-w", "/etc"]) else {
        return;
    };
    assert_eq!(running.says(&["-e", "B=3"], "echo $A $B; pwd"), "1 3\n/etc");
    running.sandbox.write("more.env", "C=from a file\n# no\n");
    assert_eq!(
        running.says(&["--env-file", "more.env", "-w", "/tmp"], "echo $C; pwd"),
        "from a file\n/tmp"
    );
    let missing = running.exec(&["-w", "/nowhere"], "true");
    assert_eq!(missing.code, Some(125));
    assert!(
        missing
            .stderr
            .contains("cannot enter the working directory `/nowhere`"),
        "{missing}"
    );
    // Nothing of the caller's comes along.
    let secret = running.sandbox.mk_with(["exec", "web", "env"], |command| {
        command.env("SECRET", "of the caller");
    });
    assert!(!secret.ok().stdout.contains("SECRET"));
}

#[test]
fn exit_codes_are_those_of_the_command_or_tell_who_failed() {
    let Some(running) = running(&[]) else { return };
    assert_eq!(running.exec(&[], "exit 7").code, Some(7));
    assert_eq!(running.exec(&[], "kill -USR1 $$").code, Some(138));
    assert_eq!(running.mk(&["exec", "web", "no-such-program"]).code, Some(127));
    assert_eq!(running.mk(&["exec", "web", "/etc/passwd"]).code, Some(126));
    assert_eq!(
        running.mk(&["exec", "--no-such-option", "web", "true"]).code,
        Some(125)
    );
    // Out of the container through a file that mk has open, or through mk itself, nothing can be executed.
    for path in ["/proc/self/exe", "/proc/self/fd/5/x"] {
        let output = running.mk(&["exec", "web", path]);
        assert!(matches!(output.code, Some(126 | 127)), "{output}");
    }
    let folder = running.exec(&["-w", "/proc/self/fd/3"], "pwd");
    assert_eq!(folder.code, Some(125), "{folder}");
}

#[test]
fn streams_are_those_of_the_caller() {
    let Some(running) = running(&[]) else { return };
    let mut child = running.start(&["-i"], "wc -c; echo to stderr >&2");
    child.stdin.take().unwrap().write_all(&[b'x'; 100_000]).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "100000");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "to stderr\n");
    assert_eq!(running.says(&[], "ls /proc/self/fd | wc -l"), "4");
}

#[test]
fn signals_reach_the_command_and_its_group() {
    let Some(running) = running(&[]) else { return };
    let seconds = marker();
    let mut child = running.start(
        &[],
        &format!("trap 'echo caught; exit 3' TERM; echo up; sleep {seconds} >/dev/null 2>&1 & wait"),
    );
    let mut up = [0; 3];
    child.stdout.as_mut().unwrap().read_exact(&mut up).unwrap();
    kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(
        (output.status.code(), &*output.stdout),
        (Some(3), &b"caught\n"[..])
    );
    let seconds = marker();
    let mut child = running.start(&[], &format!("echo up; sleep {seconds}; true"));
    child.stdout.as_mut().unwrap().read_exact(&mut up).unwrap();
    eventually("the sleep", || running.has_process_with(&seconds));
    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    eventually("the end of the whole group", || {
        !running.has_process_with(&seconds)
    });
}

#[test]
fn the_command_ends_with_mk() {
    let Some(running) = running(&[]) else { return };
    for user in ["0", "1000"] {
        if user != "0" && !needs::has_ids() {
            continue;
        }
        let seconds = marker();
        let mut child = running.start(&["-u", user], &format!("exec sleep {seconds}"));
        eventually("the command", || running.has_process_with(&seconds));
        child.kill().unwrap();
        child.wait().unwrap();
        eventually("the end of the command", || !running.has_process_with(&seconds));
    }
}

#[test]
fn the_command_ends_with_the_container() {
    let Some(running) = running(&[]) else { return };
    let seconds = marker();
    let mut child = running.start(&[], &format!("exec sleep {seconds}"));
    eventually("the command", || running.has_process_with(&seconds));
    running.mk(&["kill", "web"]).ok();
    eventually("the end", || child.try_wait().unwrap().is_some());
    assert_eq!(child.wait().unwrap().code(), Some(137));
    let late = running.exec(&[], "true");
    assert_eq!(late.code, Some(125));
    assert!(
        late.stderr.starts_with("error: container `web` has ended"),
        "{late}"
    );
}

#[test]
fn a_name_that_nobody_has_is_answered_with_one_that_is_like_it() {
    let Some(running) = running(&[]) else { return };
    let output = running.mk(&["exec", "wbe", "true"]);
    assert_eq!(output.code, Some(125));
    assert!(output.stderr.contains("there is no container `wbe`"), "{output}");
    assert!(output.stderr.contains("`web`"), "{output}");
}

#[test]
fn many_go_in_at_once_and_come_out() {
    let Some(running) = running(&[]) else { return };
    let children: Vec<_> = (0..50)
        .map(|number| running.start(&[], &format!("echo {number}")))
        .collect();
    for (number, child) in children.into_iter().enumerate() {
        let output = child.wait_with_output().unwrap();
        assert_eq!(
            String::from_utf8_lossy(&output.stdout).trim(),
            number.to_string(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    // What ends while it is looked for is no zombie: `-s` says nothing of it.
    let zombies = running.says(&[], "grep -ls '^State:.Z' /proc/[0-9]*/status | wc -l");
    assert_eq!(zombies, "0");
}

#[test]
fn what_goes_into_a_container_that_is_ending_says_so() {
    for _ in 0..5 {
        let Some(running) = running(&[]) else { return };
        let children: Vec<_> = (0..10).map(|_| running.start(&[], "sleep 5")).collect();
        running.mk(&["kill", "web"]).ok();
        for child in children {
            let output = child.wait_with_output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            match output.status.code() {
                Some(137) => {}
                Some(125) => assert!(said.contains("container `web` has ended"), "{said}"),
                other => panic!("{other:?}: {said}"),
            }
        }
    }
}

#[test]
fn orphans_of_what_came_in_are_reaped_by_process_1() {
    let Some(running) = running(&[]) else { return };
    let seconds = marker();
    running.says(
        &[],
        &format!("sleep {seconds} >/dev/null 2>&1 </dev/null & sleep 0.05 & true"),
    );
    assert_eq!(
        running.says(
            &[],
            &format!("grep PPid /proc/$(pgrep -f 'sleep {seconds}' | head -1)/status")
        ),
        "PPid:\t1"
    );
    eventually("the reaping", || {
        running.says(&[], "grep -ls '^State:.Z' /proc/[0-9]*/status | wc -l") == "0"
    });
}

#[test]
fn a_terminal_is_one_of_the_container_s_own() {
    let Some(running) = running(&[]) else { return };
    let Some(script) = needs::program("script") else {
        return;
    };
    let mut command = std::process::Command::new(script);
    let mk = running.sandbox.command();
    command.current_dir(running.sandbox.work()).env_clear();
    for (name, value) in mk.get_envs() {
        if let Some(value) = value {
            command.env(name, value);
        }
    }
    let call = format!(
        "{} exec -t -i web sh -c 'tty; stty size; test -t 0 && test -t 1 && test -t 2 && echo all'",
        env!("CARGO_BIN_EXE_mk")
    );
    let output = command
        .args(["-qec", &call, "/dev/null"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).replace('\r', "");
    assert!(said.contains("/dev/pts/") && said.contains("all"), "{said}");
}
