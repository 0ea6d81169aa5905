use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::{arguments, boxed, eventually, finish, marker, processes_with, says, sh, start};
use crate::harness::chance::Chance;
use crate::harness::{Sandbox, needs};

/// Whether this user may have `options` on this machine; whoever may not is told why, and what to do.
fn granted(sandbox: &Sandbox, options: &[&str]) -> bool {
    let planned = sandbox.mk([&["run", "box", "--dry-run"], options].concat());
    if planned.code == Some(0) {
        return true;
    }
    assert_eq!(planned.code, Some(125), "{planned}");
    assert!(planned.stderr.starts_with("error: cannot limit "), "{planned}");
    assert!(planned.stderr.contains("\nhint: "), "{planned}");
    let refused = sandbox.mk([&["run", "box"], options, &["true"]].concat());
    assert_eq!((refused.code, &refused.stderr), (Some(125), &planned.stderr));
    needs::skipped("root, or a cgroup of this user's own");
    false
}

#[test]
fn a_container_that_allocates_without_end_is_killed() {
    let Some(sandbox) = boxed("") else { return };
    if !granted(&sandbox, &["--memory", "32m"]) {
        return;
    }
    let said = "note: the container ran out of memory: `--memory 32m` was reached\n";
    for options in [&["--memory", "32m"][..], &["-m", "32768k", "--as-pid1"]] {
        // Anonymous memory, in a program and in a shell, and files in memory.
        for command in [
            &["tail", "/dev/zero"][..],
            &["sh", "-c", "x=0123456789; while :; do x=$x$x; done"],
            &["dd", "if=/dev/zero", "of=/big", "bs=1M", "count=100"],
        ] {
            let output = sandbox.mk([&["run", "box"], options, command].concat());
            assert_eq!(
                (output.code, output.stderr.as_str()),
                (Some(137), said),
                "{output}"
            );
        }
    }
    // All of it ends, and not only who took too much.
    let whole = sh(&sandbox, &["-m", "32m"], "tail /dev/zero; sleep 1000");
    assert_eq!((whole.code, whole.stderr.as_str()), (Some(137), said), "{whole}");
    let modest = sh(
        &sandbox,
        &["-m", "32m"],
        "dd if=/dev/zero of=/small bs=1M count=8 2>/dev/null",
    )
    .ok();
    assert_eq!(modest.stderr, "", "what fits is not spoken of");
    let killed = sh(&sandbox, &["-m", "32m"], "kill -9 $$");
    assert_eq!(
        (killed.code, killed.stderr.as_str()),
        (Some(137), ""),
        "killed for another reason"
    );
}

#[test]
fn a_fork_bomb_stops_at_the_limit() {
    let Some(sandbox) = boxed("") else { return };
    if !granted(&sandbox, &["--pids", "20"]) {
        return;
    }
    let bomb =
        "f() { f | f & }; f; i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; set -- /proc/[0-9]*; echo $#";
    let output = sh(&sandbox, &["--pids", "20"], bomb).ok();
    assert!(output.stderr.contains("can't fork"), "{output}");
    let most: u32 = output.text().parse().unwrap();
    // Looking takes a while, in which some end and others begin.
    assert!(most <= 60, "{most} processes");
    Command::new("true").status().expect("the host is as it was");
}

#[test]
fn exactly_so_many_processes_are_allowed_and_the_reaper_is_none_of_them() {
    let Some(sandbox) = boxed("") else { return };
    if !granted(&sandbox, &["--pids", "5"]) {
        return;
    }
    let sleepers = |count: u32| format!("for i in $(seq {count}); do sleep 1000 & done; exit 0");
    for options in [&["--pids", "5"][..], &["--pids", "5", "--as-pid1"]] {
        sh(&sandbox, options, &sleepers(4)).ok();
        let more = sh(&sandbox, options, &sleepers(5));
        assert!(
            more.code != Some(0) && more.stderr.contains("can't fork"),
            "{more}"
        );
    }
    sandbox.mk(["run", "box", "--pids", "1", "true"]).ok();
}

/// Starts a limited command that says `up` and goes on until its stdin ends; returns it with a process id of it.
fn limited(sandbox: &Sandbox, options: &[&str], script: &str) -> (Child, u32) {
    let marker = marker();
    let script = format!("echo up; {script}; cat; : {marker}");
    let child = start(sandbox, options, &script);
    let pid = arguments()
        .filter(|(_, arguments)| arguments.starts_with("sh\0-c\0") && arguments.contains(&marker))
        .map(|(pid, _)| pid)
        .next()
        .unwrap();
    (child, pid)
}

/// Returns the cgroup of a process that keeps `controller`, as a folder of the host.
fn cgroup_of(pid: u32, controller: &str) -> PathBuf {
    let own = fs_err::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let path = |names: &dyn Fn(&str) -> bool| {
        let found = own.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let (found, path) = (fields.next()?, fields.next()?);
            names(found).then(|| path.trim_start_matches('/').to_owned())
        });
        found.unwrap_or_default()
    };
    let mounts = fs_err::read_to_string("/proc/self/mounts").unwrap();
    let mount = |kind: &str, option: Option<&str>| {
        mounts.lines().find_map(|line| {
            let fields: Vec<&str> = line.split(' ').collect();
            let fits = fields[2] == kind
                && option.is_none_or(|option| fields[3].split(',').any(|one| one == option));
            fits.then(|| PathBuf::from(fields[1]))
        })
    };
    match mount("cgroup", Some(controller)) {
        Some(mount) => mount.join(path(&|names| names.split(',').any(|name| name == controller))),
        None => mount("cgroup2", None).unwrap().join(path(&str::is_empty)),
    }
}

/// Returns the folder with the limits, given the one that a process of the container is in.
fn with_limits(folder: &Path) -> PathBuf {
    match folder.ends_with("box") {
        true => folder.parent().unwrap().to_owned(),
        false => folder.to_owned(),
    }
}

#[test]
fn processor_time_is_held_back() {
    let Some(sandbox) = boxed("") else { return };
    if !granted(&sandbox, &["--cpus", "0.1"]) {
        return;
    }
    let (child, pid) = limited(&sandbox, &["--cpus", "0.1"], "while :; do :; done & true");
    let stat = with_limits(&cgroup_of(pid, "cpu")).join("cpu.stat");
    eventually("throttling", || {
        let text = fs_err::read_to_string(&stat).unwrap();
        let times = text.lines().find_map(|line| line.strip_prefix("nr_throttled "));
        times.unwrap().parse::<u64>().unwrap() > 2
    });
    assert_eq!(finish(child).1, Some(0));
}

#[test]
fn a_command_runs_on_its_processors_only() {
    let Some(sandbox) = boxed("") else { return };
    let status = fs_err::read_to_string("/proc/self/status").unwrap();
    let allowed = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let last = allowed
        .unwrap()
        .trim()
        .rsplit([',', '-'])
        .next()
        .unwrap()
        .to_owned();
    if !granted(&sandbox, &["--cpuset", &last]) {
        return;
    }
    let seen = "grep Cpus_allowed_list /proc/self/status | cut -f 2";
    assert_eq!(says(&sandbox, &["--cpuset", &last], seen), last);
    let more = sandbox.mk(["run", "box", "--cpuset", "0-8191", "true"]);
    assert_eq!(more.code, Some(125), "{more}");
    assert!(
        more.stderr
            .starts_with("error: cannot run on CPUs 0-8191: mk itself may use "),
        "{more}"
    );
}

#[test]
fn limits_of_processes_are_seen_inside() {
    let Some(sandbox) = boxed("") else { return };
    for (option, name, shown) in [
        ("nofile=64:128", "Max open files", "64 128 files"),
        ("core=0", "Max core file size", "0 0 bytes"),
        ("fsize=1m", "Max file size", "1048576 1048576 bytes"),
        ("cpu=100:200", "Max cpu time", "100 200 seconds"),
        ("as=1g", "Max address space", "1073741824 1073741824 bytes"),
        ("sigpending=7", "Max pending signals", "7 7 signals"),
        ("rttime=9", "Max realtime timeout", "9 9 us"),
    ] {
        for user in ["0", "1000"] {
            if user != "0" && !needs::has_ids() {
                continue;
            }
            let script = format!("grep '^{name}' /proc/self/limits | tr -s ' '");
            let seen = says(&sandbox, &["--ulimit", option, "-u", user], &script);
            assert_eq!(seen.trim(), format!("{name} {shown}"));
        }
    }
    let both = says(
        &sandbox,
        &[
            "--ulimit",
            "nofile=64",
            "--ulimit",
            "nofile=32",
            "--ulimit",
            "core=0",
        ],
        "ulimit -n; ulimit -c",
    );
    assert_eq!(both, "32\n0", "of two the later counts");
}

#[test]
fn a_limit_that_cannot_be_raised_so_far_is_spoken_of_and_the_command_runs() {
    let Some(sandbox) = boxed("") else { return };
    // Nobody opens more files than the machine's own limit allows, root neither.
    let output = sh(&sandbox, &["--ulimit", "nofile=16:unlimited"], "ulimit -n").ok();
    assert_eq!(output.text(), "16");
    assert!(
        output.stderr.starts_with(
            "note: `--ulimit nofile=16:unlimited` is more than mk may give: the command runs with nofile=16:"
        ),
        "{output}"
    );
}

#[test]
fn the_out_of_memory_score_is_the_commands() {
    let Some(sandbox) = boxed("") else { return };
    let own: i32 = fs_err::read_to_string("/proc/self/oom_score_adj")
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    let higher = (own + 1).to_string();
    assert_eq!(
        says(
            &sandbox,
            &["--oom-score-adj", &higher],
            "cat /proc/self/oom_score_adj"
        ),
        higher
    );
    let lower = sh(
        &sandbox,
        &["--oom-score-adj", "-1000"],
        "cat /proc/self/oom_score_adj",
    );
    match lower.code {
        Some(0) => assert_eq!(lower.text(), "-1000"),
        _ => {
            assert_eq!(lower.code, Some(125), "{lower}");
            assert!(
                lower
                    .stderr
                    .starts_with("error: cannot adjust the out-of-memory score by -1000\n"),
                "{lower}"
            );
            assert!(lower.stderr.contains("hint: "), "{lower}");
        }
    }
}

#[test]
fn a_limited_container_sees_its_own_cgroup_as_the_first() {
    let Some(sandbox) = boxed("") else { return };
    let options = ["--memory", "64m", "--pids", "20"];
    if !granted(&sandbox, &options) {
        return;
    }
    let (child, pid) = limited(&sandbox, &options, "cut -d : -f 3 /proc/self/cgroup | sort -u");
    let folders: BTreeSet<PathBuf> = ["memory", "pids"]
        .iter()
        .map(|name| cgroup_of(pid, name))
        .collect();
    for folder in &folders {
        let text = folder.display().to_string();
        assert!(text.contains("/mk-"), "{text}");
    }
    assert_eq!(finish(child), ("/\n".to_owned(), Some(0)));
    assert!(
        folders.iter().all(|folder| !with_limits(folder).exists()),
        "{folders:?}"
    );
}

#[test]
fn no_cgroup_is_made_where_nothing_is_limited() {
    let Some(sandbox) = boxed("") else { return };
    let (child, pid) = limited(&sandbox, &["--ulimit", "core=0"], "true");
    let of = |pid: u32| fs_err::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    assert_eq!(of(pid), of(std::process::id()));
    assert_eq!(finish(child).1, Some(0));
    let planned = sandbox.mk(["run", "box", "--dry-run"]).ok();
    assert!(!planned.stdout.contains("cgroup /"), "{planned}");
}

#[test]
fn what_is_limited_is_shown_before_it_is_done() {
    let Some(sandbox) = boxed("") else { return };
    let own = ["--ulimit", "core=0", "--oom-score-adj", "500"];
    let planned = sandbox.mk([&["run", "box", "--dry-run"], &own[..]].concat()).ok();
    assert!(
        planned.stdout.contains("\nulimit core=0:0\noom_score_adj 500\n"),
        "{planned}"
    );
    let options = ["--memory", "64m", "--pids", "20", "--cpus", "1.5"];
    if !granted(&sandbox, &options) {
        return;
    }
    let planned = sandbox
        .mk([&["run", "box", "--dry-run"], &options[..]].concat())
        .ok();
    for value in ["=67108864", " pids.max=21", "150000"] {
        assert!(planned.stdout.contains(value), "{planned}");
    }
}

/// Returns the cgroups of mk's in `parent` that nobody holds a lock on: what was left behind.
fn left_in(parent: &Path) -> Vec<PathBuf> {
    let locks = fs_err::read_to_string("/proc/locks").unwrap();
    let ours = fs_err::read_dir(parent).unwrap().filter_map(|entry| {
        let path = entry.unwrap().path();
        let inode = fs_err::metadata(&path).ok()?.ino();
        let mk = path.file_name()?.to_string_lossy().starts_with("mk-");
        (mk && !locks.contains(&format!(":{inode} "))).then_some(path)
    });
    ours.collect()
}

#[test]
fn nothing_is_left_of_a_limited_run_however_it_ends() {
    let Some(sandbox) = boxed("") else { return };
    let options = ["--memory", "64m", "--pids", "20"];
    if !granted(&sandbox, &options) {
        return;
    }
    let (child, pid) = limited(&sandbox, &options, "true");
    let parents: Vec<PathBuf> = ["memory", "pids"]
        .iter()
        .map(|name| with_limits(&cgroup_of(pid, name)).parent().unwrap().to_owned())
        .collect();
    let nothing = |what: &str| {
        // Between making a folder and locking it there is a moment, and other tests run beside.
        eventually(what, || parents.iter().all(|parent| left_in(parent).is_empty()));
    };
    assert_eq!(finish(child).1, Some(0));
    nothing("nothing left of a run");
    for command in [
        &["no-such-command"][..],
        &["-w", "/nowhere", "true"],
        &["tail", "/dev/zero"],
    ] {
        let output = sandbox.mk([&["run", "box"], &options[..], command].concat());
        assert_ne!(output.code, Some(0), "{output}");
        nothing("nothing left of a run that failed");
    }
}

#[test]
fn nothing_is_left_of_a_limited_run_whose_mk_is_killed_at_any_moment() {
    let Some(sandbox) = boxed("") else { return };
    let options = ["--memory", "64m", "--pids", "20"];
    if !granted(&sandbox, &options) {
        return;
    }
    let (child, pid) = limited(&sandbox, &options, "true");
    let parents: Vec<PathBuf> = ["memory", "pids"]
        .iter()
        .map(|name| with_limits(&cgroup_of(pid, name)).parent().unwrap().to_owned())
        .collect();
    assert_eq!(finish(child).1, Some(0));
    let mut chance = Chance::new();
    for _ in 0..40 {
        let marker = marker();
        let mut run = sandbox.command();
        run.args(["run", "box"]).args(options).args(["sleep", &marker]);
        let mut run = run.spawn().unwrap();
        let moment = chance.moment(Duration::from_millis(60));
        std::thread::sleep(moment);
        run.kill().unwrap();
        run.wait().unwrap();
        let what = format!("nothing left after {moment:?}, MK_TEST_SEED={}", chance.seed);
        eventually(&what, || {
            processes_with(&marker).is_empty() && parents.iter().all(|parent| left_in(parent).is_empty())
        });
    }
}

#[test]
fn many_limited_runs_at_once_do_not_meet() {
    let Some(sandbox) = boxed("") else { return };
    let options = ["--memory", "64m", "--pids", "20"];
    if !granted(&sandbox, &options) {
        return;
    }
    let runs: Vec<Child> = (0..20)
        .map(|_| {
            let mut command = sandbox.command();
            command
                .args(["run", "box"])
                .args(options)
                .args(["sh", "-c", "exit 7"]);
            command
                .stdin(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    for run in runs {
        let output = run.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), said.as_ref()), (Some(7), ""));
    }
}
