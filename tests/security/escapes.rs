use std::process::{Command, Stdio};

use super::{Ground, SECRET, attacker, hit, own_mounts, program};
use crate::harness::archive::Item;
use crate::harness::{Output, needs};

/// Opens the program of every process but its own, keeps it open, and writes to it as soon as nobody runs it.
const OVERWRITE: &str = "#!/bin/sh\n\
    for process in /proc/[0-9]*; do\n\
        [ $process = /proc/$$ ] && continue\n\
        exec 3<$process/exe || continue\n\
        echo opened $process\n\
        i=0; while [ $i -lt 200 ]; do echo overwritten >/proc/self/fd/3 && exit; i=$((i+1)); usleep 10000; done\n\
    done 2>/dev/null\n";

#[test]
fn mks_own_program_can_be_neither_run_nor_opened_from_inside() {
    let links = [
        ("bin/exe", "/proc/self/exe"),
        ("bin/one", "/proc/1/exe"),
        ("bin/own", "/proc/self/fd/3"),
    ];
    let mut items: Vec<Item<'_>> = links.map(|(path, target)| Item::symlink(path, target)).into();
    items.push(Item::file("bin/script", b"#!/proc/self/exe\n").mode(0o755));
    items.push(Item::file("bin/twice", b"#!/bin/script\n").mode(0o755));
    items.push(Item::file("bin/attack", OVERWRITE.as_bytes()).mode(0o755));
    let Some(ground) = Ground::new(&items, "") else {
        return;
    };
    // A copy that the caller may write to, as everyone may write to what they installed in their home.
    let copy = ground.sandbox.work().join("mk");
    fs_err::copy(env!("CARGO_BIN_EXE_mk"), &copy).unwrap();
    let before = fs_err::read(&copy).unwrap();
    let run = |words: &[&str]| {
        ground.mk_with(&[&["run", "box"], words].concat(), |mk| {
            let mut other = Command::new(&copy);
            other
                .args(mk.get_args())
                .envs(mk.get_envs().filter_map(|(name, value)| Some((name, value?))));
            other.current_dir(ground.sandbox.work());
            *mk = other;
        })
    };
    for command in [
        "/bin/exe",
        "/bin/one",
        "/bin/own",
        "/bin/script",
        "/bin/twice",
        "/proc/self/exe",
        "exe",
        "script",
    ] {
        let output = run(&[command, "--version"]);
        assert_eq!(output.code, Some(126), "{command}: {output}");
    }
    for options in [&[][..], &["--as-pid1"]] {
        let output = run(&[options, &["/bin/attack"]].concat());
        assert_eq!(output.stdout, "", "{output}");
    }
    let reached = "for f in exe root/ cwd/ fd/0 fd/1 mem environ maps; do cat /proc/1/$f >/dev/null && echo $f; done 2>&-; set -- /proc/1/fd/*; [ -e $1 ] && echo $*";
    assert_eq!(run(&["sh", "-c", reached]).stdout, "");
    assert!(fs_err::read(&copy).unwrap() == before, "mk was overwritten");
}

#[test]
fn control_a_runner_that_shares_its_processes_is_overwritten() {
    let Some(ground) = Ground::new(&[Item::file("bin/attack", OVERWRITE.as_bytes()).mode(0o755)], "") else {
        return;
    };
    // The runner is a shell whose program is a file of ours; it stays until the container is under way.
    let output = ground.naive(
        "box",
        "mount --rbind /proc \"$ROOT/proc\"; cp \"$ROOT/bin/busybox\" busybox\n\
         cat >start <<END\nchroot \"$ROOT\" /bin/sh -c '[ \"\\$(readlink /proc/\\$PPID/exe)\" = \"$PWD/busybox\" ] || exit; exec 3</proc/\\$PPID/exe; while ! echo overwritten >/proc/self/fd/3; do usleep 10000; done 2>/dev/null' &\nsleep 0.5\nEND\n\
         ./busybox sh ./start; sleep 0.5; head -c 11 busybox",
    );
    hit(&output, "overwritten");
}

/// Starts `command` with a folder of the host open in each of a few places, as a careless caller may.
fn with_open_folder(command: &Command, folder: &str) -> Command {
    let mut shell = Command::new("/bin/sh");
    shell.args([
        "-c",
        &format!("exec 3<'{folder}' 4<'{folder}' 7<'{folder}' 9<'{folder}'; exec \"$0\" \"$@\""),
    ]);
    shell
        .arg(command.get_program())
        .args(command.get_args())
        .env_clear();
    shell.envs(
        command
            .get_envs()
            .filter_map(|(name, value)| Some((name, value?))),
    );
    if let Some(folder) = command.get_current_dir() {
        shell.current_dir(folder);
    }
    shell
}

#[test]
fn no_open_folder_is_a_way_out() {
    let Some(ground) = Ground::new(
        &[Item::symlink("srv", "/proc/self/fd/7")],
        "[run]\nworkdir = '/srv'\n",
    ) else {
        return;
    };
    let canary = ground.canary();
    let run = |words: &[&str]| {
        let words = [&["run", "box"], words].concat();
        let output = ground.mk_with(&words, |mk| *mk = with_open_folder(mk, &canary));
        assert!(!output.stdout.contains(SECRET), "{output}");
        output
    };
    let folders =
        (0..16).flat_map(|number| ["self", "thread-self", "1"].map(|who| format!("/proc/{who}/fd/{number}")));
    for folder in folders {
        let output = run(&["-w", &folder, "cat", "secret"]);
        assert!(matches!(output.code, Some(1 | 125)), "{folder}: {output}");
    }
    assert_eq!(
        run(&["cat", "secret"]).code,
        Some(125),
        "the image's own working folder"
    );
    let seek = "for f in /proc/*/fd/*; do cat $f/secret $f/../canary/secret $f/../../../../../..$1/secret; done 2>&-; ls /proc/self/fd";
    let output = run(&["-w", "/", "sh", "-c", seek, "sh", &canary]);
    assert_eq!(output.stdout, "0\n1\n2\n3\n", "{output}");
    // The control: the same caller, and chroot(1).
    let control = ground.naive(
        "box",
        "mount --rbind /proc \"$ROOT/proc\"; exec 9<\"$CANARY\"; exec chroot \"$ROOT\" /bin/sh -c 'cd /proc/self/fd/9 && cat secret'",
    );
    hit(&control, SECRET);
}

/// Types `script` into a terminal that nobody types into, and returns what it shows.
fn on_a_terminal(ground: &Ground, command: &Command, script: &str) -> Option<Output> {
    let program = needs::program("script")?;
    let output = ground.sandbox.mk_with([""; 0], |call| {
        // The terminal's input stays open, and empty, while the script runs.
        let waiting = format!("sleep 8 | {} -qec \"$0\" /dev/null", program.display());
        let mut shell = Command::new("/bin/sh");
        shell
            .args(["-c", &waiting, script])
            .env_clear()
            .stdin(Stdio::null());
        shell.envs(
            command
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        );
        shell.env("SHELL", "/bin/sh").current_dir(ground.sandbox.work());
        *call = shell;
    });
    Some(output)
}

/// Reads what is waiting in the terminal's input.
const READ_INPUT: &str = "stty -icanon min 0 time 2; echo \"input: $(dd bs=1 count=1 2>/dev/null)\"";

#[test]
fn no_program_pushes_input_into_the_callers_terminal() {
    let Some(ground) = Ground::new(&[], "") else {
        return;
    };
    let attacker = attacker();
    let words = program::WORDS.join(" ");
    for options in ["", "--as-pid1"] {
        let mk = env!("CARGO_BIN_EXE_mk");
        let script = format!(
            "{mk} run box {options} -v {}:/attack:ro -e MK_ATTACK=push /attack {words}; {READ_INPUT}",
            attacker.display()
        );
        let Some(output) = on_a_terminal(&ground, &ground.sandbox.command(), &script) else {
            return;
        };
        assert!(
            output.stdout.contains("attack: "),
            "the attack was not made: {output}"
        );
        assert!(output.stdout.contains("input: \r\n"), "{output}");
    }
}

#[test]
fn control_without_a_session_of_its_own_input_is_pushed() {
    let Some(ground) = Ground::new(&[], "") else {
        return;
    };
    if fs_err::read_to_string("/proc/sys/dev/tty/legacy_tiocsti").is_ok_and(|text| text.trim() == "0") {
        return needs::skipped("dev.tty.legacy_tiocsti = 1");
    }
    let words = program::WORDS.join(" ");
    let naive = own_mounts();
    let prefix: Vec<String> = std::iter::once(naive.get_program())
        .chain(naive.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let script = format!(
        "MK_ATTACK=push {} {} {words}; {READ_INPUT}",
        prefix.join(" "),
        attacker().display()
    );
    if let Some(output) = on_a_terminal(&ground, &ground.sandbox.command(), &script) {
        hit(&output, "input: x");
    }
}

#[test]
fn no_cgroup_tree_can_be_mounted_from_inside() {
    let Some(ground) = Ground::new(&[], "") else {
        return;
    };
    let script = "mkdir /tmp/c\n\
        for kind in memory pids rdma cpu devices; do mount -t cgroup -o $kind none /tmp/c && echo mounted $kind; done\n\
        mount -t cgroup2 none /tmp/c && echo mounted\n\
        unshare -Ur sh -c 'echo nested'; unshare -UrmC sh -c 'mount -t cgroup -o memory none /tmp/c && echo nested'\n\
        find / -xdev -name release_agent; find /sys -name release_agent; ls /sys/fs/cgroup 2>/dev/null; echo end";
    for options in [&[][..], &["-u", "0"], &["--as-pid1"]] {
        let output = ground.sh(options, script);
        assert_eq!(output.stdout, "end\n", "{options:?}: {output}");
    }
    // The control: namespaces of its own, and no more.
    let control = ground.naive(
        "box",
        "exec unshare --cgroup sh -c 'mkdir \"$ROOT/c\"; for kind in memory pids; do mount -t cgroup -o $kind none \"$ROOT/c\" && \
         chroot \"$ROOT\" /bin/ls /c; done; mount -t cgroup2 none \"$ROOT/c\" && chroot \"$ROOT\" /bin/ls /c'",
    );
    hit(&control, "cgroup.procs");
}
