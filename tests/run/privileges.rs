//! Capabilities, system calls and new privileges: what is held back, and what asking for it gives.

use std::process::Command;

use super::{boxed, says, sh};
use crate::harness::{Sandbox, needs};

/// Whether a program says that it was not let do something, and not that it cannot be done.
fn is_refusal(said: &str) -> bool {
    said.contains("Operation not permitted") || said.contains("ermission denied")
}

/// What the kernel says of the shell: a line of its status.
fn status(sandbox: &Sandbox, options: &[&str], key: &str) -> String {
    let text = says(sandbox, options, &format!("grep ^{key}: /proc/self/status"));
    text.split_ascii_whitespace().last().unwrap().to_owned()
}

#[test]
fn ways_out_of_a_container_are_shut_unless_all_privileges_are_asked_for() {
    let Some(sandbox) = boxed("") else { return };
    let mut open = Vec::new();
    for script in [
        "unshare -m true",
        "unshare -U true",
        "mount -t tmpfs none /home",
        "mount --bind /tmp /home",
        "umount /tmp",
        "hostname other",
        "pivot_root /tmp /tmp/old",
    ] {
        let out = sh(&sandbox, &[], script);
        assert!(out.code != Some(0) && is_refusal(&out.stderr), "{out}");
        if sh(&sandbox, &["--privileged"], script).code == Some(0) {
            open.push(script);
        }
    }
    // Each of the others would have to be prepared first.
    assert!(
        open.len() >= 5,
        "the attempts come to nothing anyway but for {open:?}"
    );
    assert_eq!(status(&sandbox, &[], "Seccomp"), "2");
    assert_eq!(status(&sandbox, &["--privileged"], "Seccomp"), "0");
    assert_eq!(status(&sandbox, &["--seccomp", "unconfined"], "Seccomp"), "0");
    assert_eq!(
        status(&sandbox, &["--privileged", "--seccomp", "default"], "Seccomp"),
        "2"
    );
}

#[test]
fn without_the_filter_capabilities_still_hold() {
    let Some(sandbox) = boxed("") else { return };
    let out = sh(
        &sandbox,
        &["--seccomp", "unconfined"],
        "mount -t tmpfs none /home",
    );
    assert!(out.code != Some(0) && is_refusal(&out.stderr), "{out}");
}

#[test]
fn capabilities_are_added_and_dropped_by_name() {
    let Some(sandbox) = boxed("") else { return };
    let held = |options: &[&str]| status(&sandbox, options, "CapEff");
    assert_eq!(held(&[]), "00000000a00425fb");
    assert_eq!(held(&["--cap-drop", "all"]), "0000000000000000");
    assert_eq!(
        held(&["--cap-drop", "ALL", "--cap-add", "cap_net_raw,KILL"]),
        "0000000000002020"
    );
    assert_eq!(
        held(&["--cap-add", "SYS_TIME", "--cap-drop", "CHOWN"]),
        "00000000a20425fa"
    );
    let all = held(&["--cap-add", "ALL"]);
    assert_eq!(held(&["--privileged"]), all);
    assert!(all.ends_with("ffffffffff") || needs::is_root(), "{all}");
    let out = sh(&sandbox, &["--cap-drop", "CHOWN"], "chown 1 /tmp");
    assert!(!needs::has_ids() || is_refusal(&out.stderr), "{out}");
    for key in ["CapInh", "CapAmb"] {
        assert_eq!(
            status(&sandbox, &["--cap-add", "ALL"], key),
            "0000000000000000",
            "{key}"
        );
    }
}

#[test]
fn a_call_comes_with_the_capability_that_it_takes() {
    let Some(sandbox) = boxed("") else { return };
    says(
        &sandbox,
        &["--cap-add", "SYS_ADMIN"],
        "mount -t tmpfs none /home; umount /home; hostname other",
    );
    let out = sh(&sandbox, &["--cap-drop", "SYS_CHROOT"], "chroot / true");
    assert!(out.code != Some(0) && is_refusal(&out.stderr), "{out}");
    says(&sandbox, &[], "chroot / true");
}

#[test]
fn another_user_has_the_capabilities_that_are_named_and_passes_them_on() {
    let Some(sandbox) = boxed("") else { return };
    if !needs::has_ids() {
        return needs::skipped("subordinate ids");
    }
    let options = ["-u", "33:33", "--cap-add", "NET_BIND_SERVICE"];
    for key in ["CapEff", "CapPrm", "CapInh", "CapAmb"] {
        assert_eq!(status(&sandbox, &options, key), "0000000000000400", "{key}");
        assert_eq!(
            status(&sandbox, &["-u", "33:33"], key),
            "0000000000000000",
            "{key}"
        );
        assert_eq!(
            status(&sandbox, &["-u", "33:33", "--privileged"], key),
            "0000000000000000",
            "{key}"
        );
    }
    let server = "httpd -f -p 127.0.0.1:80 & sleep 0.3; kill $!";
    assert_eq!(sh(&sandbox, &options, server).stderr, "");
    let refused = sh(&sandbox, &["-u", "33:33"], server);
    assert!(refused.stderr.contains("ermission denied"), "{refused}");
}

#[test]
fn what_the_caller_has_not_cannot_be_added() {
    let Some(sandbox) = boxed("") else { return };
    if !needs::root() {
        return;
    }
    let Some(setpriv) = needs::program("setpriv") else {
        return;
    };
    let run = |options: &[&str]| {
        let mk = sandbox.command();
        let mut command = Command::new(&setpriv);
        command
            .args(["--bounding-set", "-sys_time,-mknod"])
            .arg(mk.get_program())
            .args(["run", "box"])
            .args(options)
            .args(["grep", "CapEff", "/proc/self/status"])
            .current_dir(sandbox.work());
        for (name, value) in mk.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let out = command.output().unwrap();
        (
            out.status.code(),
            String::from_utf8(out.stdout).unwrap(),
            String::from_utf8(out.stderr).unwrap(),
        )
    };
    let (code, _, said) = run(&["--cap-add", "SYS_TIME"]);
    assert_eq!(code, Some(125), "{said}");
    assert!(said.contains("`SYS_TIME` cannot be added"), "{said}");
    for options in [["--cap-add", "ALL"], ["--privileged", "-eA=1"]] {
        let (code, text, said) = run(&options);
        assert_eq!(code, Some(0), "{said}");
        let held = u64::from_str_radix(text.split_ascii_whitespace().last().unwrap(), 16).unwrap();
        assert_eq!(held & (1 << 25 | 1 << 27), 0, "{text}");
        assert_ne!(held & 1 << 21, 0, "{text}");
    }
}

#[test]
fn with_all_privileges_nothing_of_proc_and_sys_is_hidden_or_read_only() {
    let Some(sandbox) = boxed("") else { return };
    let mounted = "grep -c -e ' /proc/' -e ' /sys/' /proc/mounts; grep ' /sys ' /proc/mounts | cut -d ' ' -f 4 | cut -c 1-2";
    assert_eq!(says(&sandbox, &["--privileged"], mounted), "0\nrw");
    let usual = says(&sandbox, &[], mounted);
    assert!(usual.ends_with("ro") && !usual.starts_with("0\n"), "{usual}");
    // A device node made inside is one where root of the machine makes it, and can be made by nobody else.
    let node = "mknod /dev/nothing c 1 3 && echo x >/dev/nothing && echo written";
    let out = sh(&sandbox, &["--privileged"], node);
    match needs::is_root() {
        true => assert_eq!(out.ok().text(), "written"),
        false => assert!(is_refusal(&out.stderr), "{out}"),
    }
    assert_ne!(sh(&sandbox, &["--cap-add", "MKNOD"], node).code, Some(0));
}

#[test]
fn a_profile_in_a_file_decides_what_can_be_called() {
    let Some(sandbox) = boxed("") else { return };
    sandbox.write(
        "no-folders.json",
        r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28},
            {"names": ["chmod", "fchmodat", "fchmod"], "action": "SCMP_ACT_KILL_PROCESS"},
            {"names": ["kill"], "action": "SCMP_ACT_ERRNO",
             "args": [{"index": 1, "value": 9, "op": "SCMP_CMP_EQ"}]}]}"#,
    );
    let options = ["--seccomp", "no-folders.json"];
    let out = sh(&sandbox, &options, "mkdir /tmp/x");
    assert!(out.stderr.contains("No space left on device"), "{out}");
    let out = sh(&sandbox, &options, "exec chmod 700 /tmp");
    assert_eq!(out.code, Some(128 + 31), "{out}");
    assert!(
        out.stderr.contains("note: exit code 159") && out.stderr.contains("`--seccomp unconfined`"),
        "{out}"
    );
    let all = sh(&sandbox, &["--seccomp", "unconfined"], "exit 159");
    assert_eq!((all.code, all.stderr.as_str()), (Some(159), ""), "{all}");
    let out = sh(&sandbox, &options, "kill -0 $$ && kill -9 $$");
    assert!(out.stderr.contains("Operation not permitted"), "{out}");
    assert_eq!(says(&sandbox, &options, "echo hi"), "hi");
}

#[test]
fn a_profile_need_not_allow_what_mk_itself_calls() {
    let Some(sandbox) = boxed("") else { return };
    // What a static program needs to print a word, and nothing else: neither `capset` nor `close_range`.
    sandbox.write(
        "echo.json",
        r#"{"defaultAction": "SCMP_ACT_KILL_PROCESS", "syscalls": [{"action": "SCMP_ACT_ALLOW", "names": [
            "execve", "arch_prctl", "set_tid_address", "brk", "mmap", "mprotect", "munmap", "prctl", "getuid", "geteuid",
            "getgid", "getegid", "ioctl", "write", "writev", "rt_sigprocmask", "readlink", "readlinkat", "exit_group"]}]}"#,
    );
    for options in [
        &["--seccomp", "echo.json"][..],
        &["--seccomp", "echo.json", "--as-pid1"],
    ] {
        let words = [&["run", "box"], options, &["echo", "hi"]].concat();
        assert_eq!(sandbox.mk(words).ok().text(), "hi");
    }
}

#[test]
fn what_is_no_file_of_a_profile_s_size_and_kind_is_refused_at_once() {
    let Some(sandbox) = boxed("") else { return };
    let fifo = sandbox.work().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    let huge = fs_err::File::create(sandbox.work().join("huge.json")).unwrap();
    huge.set_len(1 << 40).unwrap();
    for (file, why) in [
        ("fifo", "expected a regular file"),
        (".", "expected a regular file"),
        ("/dev/zero", "expected a regular file"),
        ("huge.json", "larger than 1 MiB"),
        ("nothing.json", "No such file"),
    ] {
        let out = sh(&sandbox, &["--seccomp", file], "true");
        assert!(out.code == Some(125) && out.stderr.contains(why), "{out}");
    }
}

#[test]
fn a_dry_run_says_what_a_command_may_do() {
    let Some(sandbox) = boxed("") else { return };
    sandbox.write(
        "p.json",
        r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["opne"], "action": "SCMP_ACT_LOG"}]}"#,
    );
    let lines = |options: &[&str]| {
        let words = [&["run", "box", "--dry-run"], options].concat();
        let out = sandbox.mk(words).ok();
        let lines = out.text().lines().map(str::to_owned);
        lines
            .filter(|line| {
                ["capabilities ", "seccomp ", "new "]
                    .iter()
                    .any(|word| line.starts_with(word))
            })
            .collect::<Vec<_>>()
    };
    let usual = lines(&[]);
    assert!(
        usual[0].starts_with("capabilities CHOWN, DAC_OVERRIDE, "),
        "{usual:?}"
    );
    assert!(usual[1].starts_with("seccomp default ("), "{usual:?}");
    assert_eq!(usual.len(), 2);
    let other = lines(&[
        "--cap-drop",
        "ALL",
        "--allow-new-privileges",
        "--seccomp",
        "p.json",
    ]);
    assert_eq!(other[..2], ["capabilities none", "new privileges allowed"]);
    assert!(
        other[2].starts_with("seccomp p.json (") && other[2].ends_with("; unknown calls: opne)"),
        "{other:?}"
    );
}
