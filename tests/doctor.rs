use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::harness::{Output, Sandbox, needs};

fn findings(output: &Output) -> Vec<Value> {
    let told: Value = serde_json::from_str(&output.stdout).unwrap_or_else(|_| panic!("no JSON: {output}"));
    assert_eq!(told["runs"], output.code == Some(0), "{output}");
    told["findings"].as_array().unwrap().clone()
}

#[track_caller]
fn finding<'a>(findings: &'a [Value], matter: &str) -> &'a Value {
    let found = findings.iter().find(|finding| finding["matter"] == matter);
    found.unwrap_or_else(|| panic!("nothing is said of {matter}: {findings:#?}"))
}

/// Calls `mk doctor` where `prepared`, a piece of shell, has made things worse, in namespaces of its own.
fn worse(sandbox: &Sandbox, prepared: &str, words: &[&str]) -> Output {
    let script = format!("{prepared}\nexec \"$0\" \"$@\"");
    sandbox.mk_with(words, |mk| {
        let mut unshare = Command::new("/usr/bin/unshare");
        unshare.args(["--user", "--map-root-user", "--mount", "sh", "-ec", &script]);
        unshare.arg(mk.get_program()).args(mk.get_args()).env_clear();
        unshare.envs(mk.get_envs().filter_map(|(name, value)| Some((name, value?))));
        unshare
            .current_dir(sandbox.work())
            .stdin(std::process::Stdio::null());
        *mk = unshare;
    })
}

#[test]
fn where_runs_work_the_doctor_says_so_and_changes_nothing() {
    if !needs::namespaces() {
        return;
    }
    let sandbox = Sandbox::new();
    let mounts = || fs_err::read_to_string("/proc/self/mountinfo").unwrap();
    let before = mounts();
    let output = sandbox.mk(["doctor"]).ok();
    assert_eq!(output.stderr, "", "{output}");
    assert!(output.stdout.ends_with("`mk run` works here.\n"), "{output}");
    let findings = findings(&sandbox.mk(["doctor", "--json"]).ok());
    for matter in [
        "kernel",
        "user namespaces",
        "namespaces",
        "mounts",
        "overlay",
        "seccomp",
        "terminals",
    ] {
        assert_eq!(finding(&findings, matter)["verdict"], "ok");
    }
    let ids = finding(&findings, "subordinate ids");
    assert_eq!(
        ids["verdict"],
        if needs::has_ids() {
            "ok"
        } else {
            "works differently"
        }
    );
    for finding in &findings {
        assert!(!finding["found"].as_str().unwrap().is_empty(), "{finding}");
        let fine = finding["verdict"] == "ok";
        assert_eq!(
            fine,
            finding["enable"].as_array().unwrap().is_empty() && finding["instead"].is_null(),
            "{finding}"
        );
    }
    assert!(!sandbox.store().exists(), "a look made a store");
    assert_eq!(mounts(), before);
}

#[test]
fn a_setting_that_forbids_user_namespaces_is_named_with_its_command() {
    if !needs::namespaces() {
        return;
    }
    let sandbox = Sandbox::new();
    // The setting belongs to the user namespace that it is written in.
    let none = "echo 0 >/proc/sys/user/max_user_namespaces";
    let output = worse(&sandbox, none, &["doctor", "--json"]);
    assert_eq!(output.code, Some(1), "{output}");
    let findings = findings(&output);
    let found = finding(&findings, "user namespaces");
    assert_eq!(found["verdict"], "prevents mk run");
    assert_eq!(
        found["enable"][0],
        "sudo sysctl -w user.max_user_namespaces=15000"
    );
    let output = worse(&sandbox, none, &["run", "busybox", "true"]);
    assert_eq!(output.code, Some(125), "{output}");
    assert!(
        output.stderr.contains("hint: `mk doctor` says what works here"),
        "{output}"
    );
}

#[test]
fn a_proc_that_is_covered_in_part_is_told_as_what_prevents_runs() {
    let Some(archive) = needs::fixture(needs::FIXTURES[0]) else {
        return;
    };
    if !needs::namespaces() {
        return;
    }
    let sandbox = Sandbox::new();
    let covered = "mount -t tmpfs none /proc/sys/fs";
    let output = worse(&sandbox, covered, &["doctor", "--json"]);
    assert_eq!(output.code, Some(1), "{output}");
    let findings = findings(&output);
    let mounts = finding(&findings, "mounts");
    assert_eq!(mounts["verdict"], "prevents mk run");
    assert!(
        mounts["found"].as_str().unwrap().contains("fsconfig")
            || mounts["found"].as_str().unwrap().contains("fsmount"),
        "{mounts}"
    );
    // What is told is what happens.
    fs_err::copy(archive, sandbox.work().join("rootfs.tar.gz")).unwrap();
    sandbox.write("box.toml", "[[step]]\nunpack = 'rootfs.tar.gz'\n");
    let output = worse(&sandbox, covered, &["run", "./box.toml", "true"]);
    assert_eq!(output.code, Some(125), "{output}");
    assert!(
        output.stderr.contains("proc") && output.stderr.contains("`mk doctor`"),
        "{output}"
    );
}

#[test]
fn a_machine_without_a_device_is_told_which() {
    if !needs::namespaces() || !Path::new("/dev/full").exists() {
        return;
    }
    let sandbox = Sandbox::new();
    let bare = "mount -t tmpfs none /dev; for n in null zero random urandom tty; do : >/dev/$n; done";
    let output = worse(&sandbox, bare, &["doctor", "--json"]);
    assert_eq!(output.code, Some(1), "{output}");
    let findings = findings(&output);
    assert_eq!(finding(&findings, "devices")["found"], "missing: /dev/full");
}
