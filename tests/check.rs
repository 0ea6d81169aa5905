//! `mk build --check`: what does not depend on where and when it is built passes, and what does is found, with the file.

use crate::harness::Sandbox;
use crate::harness::needs;
use crate::run::boxed;

/// Builds a step that follows a BusyBox, with `--check`; returns the exit code and what was told of it.
fn check(sandbox: &Sandbox, step: &str) -> (Option<i32>, String) {
    sandbox.write("app.toml", format!("from = 'rootfs.tar.gz'\n{step}"));
    let output = sandbox.mk(["build", "app.toml", "--check", "--progress", "none"]);
    (output.code, output.stderr)
}

#[test]
fn what_is_reproducible_passes() {
    let Some(sandbox) = boxed("") else { return };
    let step = r#"
[[step]]
run = """
mkdir -m 1777 /made; chown 0:0 /made; echo text >/made/a; ln /made/a /made/b; ln -s a /made/c; mkfifo /made/p
date +%s -d @$SOURCE_DATE_EPOCH >/made/epoch; umask >/made/umask; id -u >/made/id; rm -r /var; pwd >/made/pwd
cat /in/copied | sort >/made/copied
"""
mounts = [{ copy = "app.toml", at = "/in/copied" }]
[[step]]
copy = "app.toml"
into = "/recipe"
[[step]]
user = "app"
uid = 1000
"#;
    let (code, told) = check(&sandbox, step);
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains("every step gives the same tree"), "{told}");
    sandbox.verify();
}

/// What is not reproducible and is found for everyone, each writing what comes of it to `/impure`. What depends on the ids
/// of whoever builds is [below](what_depends_on_who_builds_is_found).
const IMPURE: [(&str, &str); 11] = [
    ("date", "date >/impure"),
    ("random bytes", "head -c 16 /dev/urandom >/impure"),
    ("host name", "hostname >/impure"),
    ("pid", "echo $$ >/impure"),
    (
        "directory order",
        "mkdir /d; for i in 1 2 3 4 5 6 7 8 9; do echo >/d/$i; done; find /d >/impure",
    ),
    ("$RANDOM", "echo $RANDOM$RANDOM >/impure"),
    ("locale", "echo $LC_ALL >/impure"),
    // The header of a .pyc (PEP 552): a magic number, flags, and when its source was changed.
    (
        ".pyc times",
        "echo x=1 >/x.py; (echo a70d0d0a00000000; printf %08x $(stat -c %Y /x.py)) | xxd -r -p >/impure",
    ),
    // A table that is listed in the order of its hashes, with a seed that is new each time. A checksum would not do: it
    // is linear, so a seed gives but a few orders.
    (
        "hash seeds",
        "s=$(od -An -N8 -tx8 /dev/urandom); for k in a b c d e f g h i j k l m n; do \
         echo $(echo $s$k | md5sum) $k; done | sort | cut -d \" \" -f 3 >/impure",
    ),
    (
        "hash seeds from an address",
        "grep -m1 stack /proc/self/maps >/impure",
    ),
    ("time zone", "date -d @0 >/impure"),
];

#[test]
fn what_depends_on_its_surroundings_is_found_with_its_file() {
    let Some(sandbox) = boxed("") else { return };
    let mut missed = Vec::new();
    for (what, command) in IMPURE {
        let (code, told) = check(&sandbox, &format!("[[step]]\nrun = '{command}'\n"));
        let found = told.contains("step 2 of `app.toml`") && told.contains("C /impure: content");
        if code != Some(1) || !found {
            missed.push(format!("{what}: {code:?} {told}"));
        }
    }
    assert!(missed.is_empty(), "{missed:#?}");
    sandbox.verify();
}

#[test]
fn the_clocks_since_the_start_of_the_machine_are_put_on_by_weeks() {
    let Some(sandbox) = boxed("") else { return };
    if !std::path::Path::new("/proc/self/ns/time").exists() {
        return needs::skipped("time namespaces");
    }
    let (code, told) = check(&sandbox, "[[step]]\nrun = 'cut -d. -f1 /proc/uptime >/impure'\n");
    assert_eq!(code, Some(1), "{told}");
    let seconds = |sign: &str| {
        let mut lines = told.lines().filter_map(|line| line.trim().strip_prefix(sign));
        lines.find_map(|number| number.parse::<u64>().ok()).unwrap()
    };
    assert!(seconds("+") > seconds("-") + 30 * 24 * 3600, "{told}");
}

/// A uid leak: which ids root has, and whom the machine thinks a file belongs to.
#[test]
fn what_depends_on_who_builds_is_found() {
    let Some(sandbox) = boxed("") else { return };
    if !needs::is_root() {
        return needs::skipped("root, to be somebody else");
    }
    for command in [
        "cat /proc/self/uid_map >/impure",
        "stat -c %u /sys/kernel >/impure",
    ] {
        let (code, told) = check(&sandbox, &format!("[[step]]\nrun = '{command}'\n"));
        assert_eq!(code, Some(1), "{command}: {told}");
        assert!(told.contains("C /impure: content"), "{command}: {told}");
    }
}

#[test]
fn the_first_step_that_differs_is_told_and_not_those_that_only_follow_it() {
    let Some(sandbox) = boxed("") else { return };
    let step = "[[step]]\nrun = 'date +%s >/when'\n[[step]]\nrun = 'cat /when >/copy'\n";
    let (code, told) = check(&sandbox, step);
    assert_eq!(code, Some(1), "{told}");
    assert!(
        told.contains("step 2 of `app.toml`") && !told.contains("step 3 of"),
        "{told}"
    );
    // What was built stays what it was.
    let again = sandbox.mk(["build", "app.toml"]).ok();
    assert!(again.stderr.contains("nothing to do"), "{}", again.stderr);
    let json = sandbox.mk(["build", "app.toml", "--check", "--json", "--progress", "none"]);
    let json: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(json["check"][0]["step"], 2);
    assert_eq!(json["check"][0]["differences"][0]["path"], "/when");
    assert_eq!(json["check"].as_array().unwrap().len(), 1);
}

#[test]
fn a_step_with_a_network_is_not_checked() {
    let Some(sandbox) = boxed("") else { return };
    let (code, told) = check(&sandbox, "[[step]]\nrun = 'date +%s >/when'\nnetwork = true\n");
    assert_eq!(code, Some(0), "{told}");
}
