//! Entering a root filesystem, for real: needs a kernel that lets this user have namespaces, and a busybox to run
//! (`MK_FIXTURES`, `../shared/fixtures`, or `/bin/busybox`); says so and passes where there is none.
//!
//! This program is its own harness, because whoever makes a user namespace must have one thread: called as
//! `run --enter STORE …` it is a small `mk run`, which the tests below start and look at from outside.

use std::ffi::{OsStr, OsString};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

#[path = "run/privileges.rs"]
mod privileges;
mod sandbox;

use sandbox::{Sandbox, as_mk, say};

/// A test by name.
type Test = (&'static str, fn(&Sandbox));

const TESTS: &[Test] = &[
    (
        "a container has a host name, a user and processes of its own",
        own_world,
    ),
    (
        "exit codes are those of the command, or tell who failed",
        exit_codes,
    ),
    (
        "what is written is gone, and nothing is left behind",
        nothing_left,
    ),
    (
        "volumes are the host's files, and one may lie in another",
        volumes,
    ),
    ("a read-only volume is so all the way down", read_only_volume),
    ("a link in the image leads nowhere else", hostile_links),
    ("what mk has open is out of reach for links too", magic_links),
    (
        "a resolv.conf that is a link gets the right content",
        linked_resolv_conf,
    ),
    ("a run with another name has its own files in etc", own_conf),
    ("the root looks as the image says", root_attributes),
    ("a read-only root still has its writable places", read_only_root),
    ("devices work and no other file is open", devices_and_files),
    ("the kernel's settings cannot be changed", kernel_settings),
    ("a container's root has few privileges", privileges),
    ("users are looked up in the image", users),
    (
        "numbers that are no users are not taken for root",
        privileges::numbers_that_are_no_users,
    ),
    ("accounts are read from files only", privileges::hostile_accounts),
    ("nobody inside looks into process 1", process_one_is_closed),
    ("the caller's keys stay outside", privileges::keys),
    (
        "calls that reach beyond the container are refused",
        privileges::refused_calls,
    ),
    ("calls of other architectures are refused", privileges::other_abis),
    (
        "set-user-id programs do nothing unless asked for",
        privileges::setuid_programs,
    ),
    ("process 1 reaps what nobody else does", zombies),
    ("signals reach the command", signals),
    (
        "a command at pid 1 that does not listen is killed",
        deaf_process_one,
    ),
    (
        "a signal that mk's caller ignores is not passed on",
        ignored_signals,
    ),
    ("the container ends with mk", ends_with_mk),
    ("the host's network is the host's", host_network),
    ("folders of the image can be renamed and made again", overlay),
    ("the kernel's own filesystems are complete", kernel_views),
];

fn main() {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "--enter") {
        std::process::exit(as_mk(arguments.into_iter().skip(1)).into());
    }
    if arguments.first().is_some_and(|first| first == "--call") {
        return sandbox::probe::call(
            arguments
                .into_iter()
                .skip(1)
                .map(|word| word.into_string().unwrap()),
        );
    }
    let wanted: Vec<&str> = arguments
        .iter()
        .filter_map(|text| text.to_str())
        .filter(|text| !text.starts_with('-'))
        .collect();
    if arguments.iter().any(|text| text == "--list") {
        TESTS.iter().for_each(|(name, _)| say(&format!("{name}: test")));
        return;
    }
    let Some(sandbox) = Sandbox::new() else { return };
    if let Some(why) = sandbox.refusal() {
        return say(&format!("skipped: needs user namespaces ({})", why.trim()));
    }
    let mut failed = 0;
    for (name, test) in TESTS {
        if wanted.is_empty() || wanted.iter().any(|text| name.contains(text)) {
            // A panic has said what is wrong; the other tests may have more to say.
            let passed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| test(&sandbox))).is_ok();
            say(&format!(
                "test {name} ... {}",
                if passed { "ok" } else { "FAILED" }
            ));
            failed += usize::from(!passed);
        }
    }
    assert_eq!(failed, 0, "so many tests failed");
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn own_world(sandbox: &Sandbox) {
    assert_eq!(sandbox.shell(&[], "hostname; id -u; echo $$"), "box\n0\n2\n");
    assert_eq!(
        sandbox.shell(&[], "ps -o comm | head -3 | tail -2"),
        "mk-init\nsh\n"
    );
    let map = sandbox.shell(&[], "head -1 /proc/self/uid_map");
    let outside = map.split_whitespace().nth(1).map(str::to_owned);
    assert_eq!(
        outside,
        Some(rustix::process::geteuid().as_raw().to_string()),
        "{map}"
    );
    let first = sandbox.shell(&["--as-pid1"], "echo $$; ls /proc | grep -c '^[0-9]'");
    assert!(first.starts_with("1\n"), "{first}");
    assert_eq!(sandbox.shell(&[], "cat /proc/1/cmdline"), "mk-init\0");
    let env = sandbox.shell(&["-e", "A=b c"], "env | sort");
    assert!(env.contains("A=b c\n") && env.contains("HOSTNAME=box\n"), "{env}");
    assert!(
        !env.contains("CARGO") && !env.contains("TERM="),
        "the caller's environment came along: {env}"
    );
}

fn exit_codes(sandbox: &Sandbox) {
    for (code, arguments) in [
        (0, &["true"] as &[&str]),
        (7, &["sh", "-c", "exit 7"]),
        (7, &["--as-pid1", "sh", "-c", "exit 7"]),
        (137, &["sh", "-c", "kill -9 $$"]),
        (143, &["sh", "-c", "kill $$"]),
        (127, &["no-such-command"]),
        (127, &["/no/such/command"]),
        (126, &["/etc/passwd"]),
        (126, &["/etc"]),
        (125, &["-w", "/no/such/folder", "true"]),
        (125, &["-u", "no-such-user", "true"]),
        (125, &["-v", "./no-such-source:/mnt", "true"]),
        (125, &["-v", "./store:/etc/passwd/x", "true"]),
    ] {
        let out = sandbox.run(arguments);
        assert_eq!(out.code, Some(code), "{arguments:?}: {out:?}");
        assert_eq!(
            out.stderr.is_empty(),
            !(125..=127).contains(&code),
            "{arguments:?}: {out:?}"
        );
    }
    let folder = sandbox.folder("programs");
    let script = folder.join("script");
    fs_err::write(&script, "#!/no/such/interpreter\n").unwrap();
    fs_err::set_permissions(&script, PermissionsExt::from_mode(0o755)).unwrap();
    let out = sandbox.run(["-v", "./programs:/p", "/p/script"]);
    assert_eq!(out.code, Some(126));
    assert!(out.stderr.contains("interpreter"), "{out:?}");
    let out = sandbox.run(["-w", "/no/such/folder", "true"]);
    assert_eq!(
        out.stderr,
        "error: cannot enter the working directory `/no/such/folder`\nerror: openat2: No such file or directory\n"
    );
}

fn nothing_left(sandbox: &Sandbox) {
    let mounts = fs_err::read_to_string("/proc/self/mountinfo").unwrap();
    sandbox.shell(
        &[],
        "echo x >/written; echo x >/etc/written; rm /etc/group; echo x >/tmp/x; echo x >/dev/shm/x",
    );
    assert_eq!(fs_err::read_to_string("/proc/self/mountinfo").unwrap(), mounts);
    assert!(!sandbox.tree().join("written").exists());
    assert!(sandbox.tree().join("etc/group").exists());
    assert_eq!(
        fs_err::read_dir(sandbox.store().join("scratch")).unwrap().count(),
        0
    );
    let names: Vec<_> = fs_err::read_dir(sandbox.store())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names.len(), 3, "{names:?}");
}

fn volumes(sandbox: &Sandbox) {
    use std::os::unix::fs::MetadataExt;
    let outer = sandbox.folder("outer");
    let inner = sandbox.folder("inner");
    fs_err::write(outer.join("f"), "outer\n").unwrap();
    fs_err::write(inner.join("f"), "inner\n").unwrap();
    // The order asked would hide the inner one; paths are seen from the caller's folder.
    let options = [
        "-v",
        "./inner:/mnt/a/b",
        "-v",
        "./outer:/mnt",
        "-v",
        "outer/f:/etc/new/file:ro",
    ];
    let script = "cat /mnt/f /mnt/a/b/f /etc/new/file; echo w >/mnt/w; if echo x >>/etc/new/file; then exit 1; fi 2>&-";
    assert_eq!(sandbox.shell(&options, script), "outer\ninner\nouter\n");
    let written = fs_err::metadata(outer.join("w")).unwrap();
    assert_eq!(written.uid(), rustix::process::geteuid().as_raw());
    let flags = sandbox.shell(&["-v", "./outer:/mnt"], "grep ' /mnt ' /proc/mounts");
    assert!(flags.contains("nosuid,nodev"), "{flags}");
}

fn read_only_volume(sandbox: &Sandbox) {
    let folder = sandbox.folder("read-only/below");
    fs_err::write(folder.join("f"), "x").unwrap();
    let refused = sandbox.shell(
        &["-v", "./read-only:/mnt:ro"],
        "touch /mnt/a && exit 1; touch /mnt/below/a && exit 1; rm /mnt/below/f && exit 1; echo refused",
    );
    assert_eq!(refused, "refused\n");
    // A mount below the source: /dev/pts or /dev/shm, on every machine.
    let below = sandbox.shell(
        &["-v", "/dev:/mnt:ro"],
        "grep ' /mnt/' /proc/self/mountinfo | while read a b c d e f g; do case $f in ro*) ;; *) echo $e $f ;; esac; done",
    );
    assert_eq!(below, "");
}

fn hostile_links(sandbox: &Sandbox) {
    let tree = sandbox.tree();
    let _ = symlink("/../../../../..", tree.join("out"));
    let _ = symlink("../../../../../../tmp", tree.join("up"));
    let folder = sandbox.folder("hostile");
    fs_err::write(folder.join("f"), "inside\n").unwrap();
    let seen = sandbox.shell(
        &["-v", "./hostile:/out/in", "-v", "./hostile:/up/there"],
        "cat /in/f /tmp/there/f",
    );
    assert_eq!(seen, "inside\ninside\n");
    assert!(!Path::new("/in").exists() && !Path::new("/tmp/there").exists());
    // Where the kernel's own filesystems belong, a link is refused.
    for name in ["proc", "sys", "dev"] {
        let place = tree.join(name);
        let was_there = place.exists();
        if was_there {
            fs_err::rename(&place, tree.join("kept")).unwrap();
        }
        symlink("/tmp", &place).unwrap();
        let out = sandbox.run(["true"]);
        fs_err::remove_file(&place).unwrap();
        if was_there {
            fs_err::rename(tree.join("kept"), &place).unwrap();
        }
        assert_eq!(out.code, Some(125), "{name}: {out:?}");
        assert!(out.stderr.contains(&format!("/{name}")), "{out:?}");
    }
    fs_err::remove_file(tree.join("out")).unwrap();
    fs_err::remove_file(tree.join("up")).unwrap();
}

fn magic_links(sandbox: &Sandbox) {
    let tree = sandbox.tree();
    fs_err::create_dir_all(tree.join("links")).unwrap();
    // A file and a folder of the caller's, which mk inherits.
    let own = std::env::current_exe().unwrap();
    let file = fs_err::File::open(&own).unwrap();
    let folder = fs_err::File::open(sandbox.folder("magic")).unwrap();
    let mut inherited = Vec::new();
    for (open, at) in [(&file, 60), (&folder, 61)] {
        let copy = rustix::io::fcntl_dupfd_cloexec(open, at).unwrap();
        rustix::io::fcntl_setfd(&copy, rustix::io::FdFlags::empty()).unwrap();
        let number = std::os::fd::AsRawFd::as_raw_fd(&copy);
        inherited.push((format!("/proc/self/fd/{number}"), copy));
    }
    let (file, folder) = (&inherited[0].0, &inherited[1].0);
    symlink(folder, tree.join("links/folder")).unwrap();
    for workdir in [folder, "/links/folder", "/proc/self/fd/3"] {
        let out = sandbox.run(["-w", workdir, "pwd"]);
        assert_eq!(out.code, Some(125), "{workdir}: {out:?}");
    }
    symlink(file, tree.join("links/file")).unwrap();
    symlink("/proc/self/exe", tree.join("links/exe")).unwrap();
    for (name, text) in [("one", "#!/proc/self/exe --list\n"), ("two", "#! /links/one\n")] {
        let script = tree.join("links").join(name);
        fs_err::write(&script, text).unwrap();
        fs_err::set_permissions(&script, PermissionsExt::from_mode(0o755)).unwrap();
    }
    for command in [
        file,
        "/proc/self/exe",
        "/links/file",
        "/links/exe",
        "/links/one",
        "/links/two",
    ] {
        let out = sandbox.run([command, "--list"]);
        assert_eq!(out.code, Some(126), "{command}: {out:?}");
        assert!(out.stderr.contains("symbolic links"), "{command}: {out:?}");
    }
    fs_err::remove_dir_all(tree.join("links")).unwrap();
}

fn linked_resolv_conf(sandbox: &Sandbox) {
    let link = sandbox.tree().join("etc/resolv.conf");
    let _ = fs_err::remove_file(&link);
    for target in [
        "/run/systemd/resolve/stub-resolv.conf",
        "../no/such/file",
        "/etc/passwd",
    ] {
        symlink(target, &link).unwrap();
        let text = sandbox.shell(
            &[],
            "cat /etc/resolv.conf /etc/hostname; echo x >/etc/new; mv /etc/new /etc/hosts; cat /etc/hosts",
        );
        fs_err::remove_file(&link).unwrap();
        assert_eq!(text, "nameserver 192.0.2.1\nbox\nx\n", "{target}");
    }
}

fn own_conf(sandbox: &Sandbox) {
    let etc = sandbox.tree().join("etc");
    fs_err::set_permissions(&etc, PermissionsExt::from_mode(0o711)).unwrap();
    let text = sandbox.shell(
        &["--hostname", "other"],
        "hostname; cat /etc/hostname /etc/hosts; stat -c '%a %u:%g %Y' /etc",
    );
    let modified = rustix::fs::stat(&etc).unwrap().st_mtime;
    fs_err::set_permissions(&etc, PermissionsExt::from_mode(0o755)).unwrap();
    let expected = format!(
        "other\nother\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.1.1\tother\n711 0:0 {modified}\n"
    );
    assert_eq!(text, expected);
}

fn root_attributes(sandbox: &Sandbox) {
    let tree = sandbox.tree();
    fs_err::set_permissions(&tree, PermissionsExt::from_mode(0o751)).unwrap();
    for option in [&[] as &[&str], &["--read-only"]] {
        assert_eq!(sandbox.shell(option, "stat -c '%a %u:%g' /"), "751 0:0\n");
    }
    fs_err::set_permissions(&tree, PermissionsExt::from_mode(0o755)).unwrap();
}

fn read_only_root(sandbox: &Sandbox) {
    let options = ["--read-only", "--tmpfs", "/a/cache:size=1m,mode=0700"];
    let text = sandbox.shell(
        &options,
        "touch /x 2>&- && exit 1; touch /tmp/x /run/x /dev/shm/x /a/cache/x; stat -c %a /a/cache; \
         df -k /a/cache | tail -1 | awk '{print $2}'",
    );
    assert_eq!(text, "700\n1024\n");
}

fn devices_and_files(sandbox: &Sandbox) {
    let text = sandbox.shell(
        &[],
        "head -c 3 /dev/urandom | wc -c; echo x >/dev/null; head -c 2 /dev/zero | od -An -tx1; ls /dev; ls -A /dev/pts; \
         readlink /dev/fd; [ -c /dev/ptmx ]",
    );
    let names = "fd\nfull\nmqueue\nnull\nptmx\npts\nrandom\nshm\nstderr\nstdin\nstdout\ntty\nurandom\nzero\n";
    assert_eq!(text, format!("3\n 00 00\n{names}ptmx\n/proc/self/fd\n"));
    // What the caller left open is not there either.
    let file = fs_err::File::open("/dev/null").unwrap();
    let copy = rustix::io::fcntl_dupfd_cloexec(&file, 50).unwrap();
    rustix::io::fcntl_setfd(&copy, rustix::io::FdFlags::empty()).unwrap();
    // 3 is the folder that is being listed.
    assert_eq!(sandbox.run(["ls", "/proc/self/fd"]).stdout, "0\n1\n2\n3\n");
    drop(copy);
}

fn kernel_settings(sandbox: &Sandbox) {
    let text = sandbox.shell(
        &[],
        "for f in /proc/sys/kernel/panic /proc/sysrq-trigger /sys/kernel/mm/ksm/run; do \
         if [ -e $f ] && echo 0 >$f; then echo changed $f; fi; done 2>&-; \
         cat /proc/kcore /proc/keys /proc/timer_list 2>&- | wc -c; ls -A /sys/firmware",
    );
    assert_eq!(text, "0\n");
    // All that may be written to by its mode, but for what is a process's own.
    let walk = "find /proc /sys -type f -perm /222 2>&- | grep -v -E '^/proc/([0-9]+|self|thread-self)/' | \
                while read f; do if (: >>$f) 2>&-; then echo $f; fi; done";
    assert_eq!(sandbox.shell(&[], walk), "");
    let all = sandbox.shell(&["--privileged"], walk);
    assert!(
        all.contains("/proc/sys/fs/mqueue/msg_max\n"),
        "the walk finds nothing anyway: {all}"
    );
    // Where memory lies; the modes of these files keep everyone else out.
    let layout = "cat /proc/kpage* /proc/slabinfo /proc/vmallocinfo /proc/kmsg 2>&- | head -c 1 | wc -c; \
                  ls /sys/kernel/slab 2>&- | while read f; do cat /sys/kernel/slab/$f/objects 2>&-; done | wc -c";
    assert_eq!(sandbox.shell(&[], layout), "0\n0\n");
}

fn privileges(sandbox: &Sandbox) {
    let text = sandbox.shell(
        &[],
        "grep -E '^(Cap|NoNew|SigBlk|SigIgn)' /proc/self/status | tr '\\t' ' '; umask",
    );
    let kept = "00000000a00425fb";
    let nothing = "0000000000000000";
    let expected = format!(
        "SigBlk: {nothing}\nSigIgn: {nothing}\nCapInh: {nothing}\nCapPrm: {kept}\nCapEff: {kept}\nCapBnd: {kept}\n\
         CapAmb: {nothing}\nNoNewPrivs: 1\n0022\n"
    );
    assert_eq!(text, expected);
    let refused = "mknod /n c 1 3 && exit 1; mkdir /m; mount -t tmpfs x /m && exit 1; hostname x && exit 1; echo refused";
    assert_eq!(sandbox.shell(&[], &format!("exec 2>&-; {refused}")), "refused\n");
    // Not from some moment on, but as soon as there is a command.
    for _ in 0..50 {
        let first = sandbox.shell(&[], "grep -E 'Cap(Eff|Bnd)|NoNew' /proc/1/status | tr '\\t' ' '");
        assert_eq!(
            first,
            format!("CapEff: 0000000000000020\nCapBnd: {nothing}\nNoNewPrivs: 1\n"),
            "process 1 can do, or could come to do, more than send signals"
        );
    }
}

fn users(sandbox: &Sandbox) {
    let out = sandbox.run([
        "-u",
        "www-data",
        "sh",
        "-c",
        "id -u; id -g; echo $HOME; grep CapEff /proc/self/status | tr '\\t' ' '",
    ]);
    if out.code == Some(125) {
        // Only root exists in a map of a single id.
        assert!(!is_root() && out.stderr.contains("single id"), "{out:?}");
        return;
    }
    assert_eq!(
        out.stdout, "33\n33\n/var/www\nCapEff: 0000000000000000\n",
        "{out:?}"
    );
    assert_eq!(
        sandbox.shell(&["-u", "1234:33"], "id -u; id -g; id -G; echo $HOME"),
        "1234\n33\n33\n/\n"
    );
}

fn process_one_is_closed(sandbox: &Sandbox) {
    let text = sandbox.shell(
        &[],
        "for f in exe root cwd environ mem maps fd/0 fd/1 fd/2 fd/3 fd/4 fd/5; do \
         if cat /proc/1/$f >/dev/null || readlink /proc/1/$f; then echo opened $f; fi; done 2>/dev/null; echo end",
    );
    assert_eq!(text, "end\n");
}

fn zombies(sandbox: &Sandbox) {
    let script = "for i in 1 2 3 4 5; do (sleep 0.05 &) ; done; sleep 0.4; \
                  if grep -ls '^State:.Z' /proc/[0-9]*/status; then exit 1; fi; echo end";
    assert_eq!(sandbox.shell(&[], script), "end\n");
}

fn send(child: &Child, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_child(child);
    rustix::process::kill_process(pid, signal).unwrap();
}

fn signals(sandbox: &Sandbox) {
    use rustix::process::Signal;
    for (signal, code) in [(Signal::TERM, 143), (Signal::INT, 130), (Signal::HUP, 129)] {
        let mut plain = sandbox.start(&[], "echo ready; exec sleep 60");
        send(&plain, signal);
        assert_eq!(plain.wait().unwrap().code(), Some(code), "{signal:?}");
    }
    for options in [&[] as &[&str], &["--as-pid1"]] {
        let script = "trap 'exit 42' TERM USR1; echo ready; while :; do sleep 0.05; done";
        for signal in [Signal::TERM, Signal::USR1] {
            let mut careful = sandbox.start(options, script);
            send(&careful, signal);
            assert_eq!(careful.wait().unwrap().code(), Some(42), "{options:?} {signal:?}");
        }
    }
}

fn deaf_process_one(sandbox: &Sandbox) {
    let begun = Instant::now();
    let mut deaf = sandbox.start(&["--as-pid1", "--stop", "300"], "echo ready; sleep 60");
    send(&deaf, rustix::process::Signal::TERM);
    assert_eq!(deaf.wait().unwrap().code(), Some(137));
    assert!(begun.elapsed() >= Duration::from_millis(300));
    assert!(begun.elapsed() < Duration::from_secs(30));
}

fn ignored_signals(sandbox: &Sandbox) {
    use rustix::process::Signal;
    let script = "echo ready; sleep 0.5; exit 5";
    let arguments = ["sh", "-c", script].map(OsStr::new);
    let inner = sandbox.command(&arguments);
    let mut command = Command::new("sh");
    command
        .arg("-c")
        .arg("trap '' HUP; exec \"$@\"")
        .arg("sh")
        .arg(inner.get_program())
        .args(inner.get_args());
    let mut child = command
        .current_dir(sandbox.home.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut word = [0; 6];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut word).unwrap();
    send(&child, Signal::HUP);
    assert_eq!(child.wait().unwrap().code(), Some(5));
}

/// How many processes have `word` on their command line.
fn running(word: &str) -> usize {
    let commands = fs_err::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| fs_err::read(entry.ok()?.path().join("cmdline")).ok());
    commands
        .filter(|line| String::from_utf8_lossy(line).contains(word))
        .count()
}

fn ends_with_mk(sandbox: &Sandbox) {
    let word = format!("6{}", std::process::id());
    let script = format!("(trap '' TERM HUP INT; sleep {word} & sleep {word}) & echo ready; sleep {word}");
    for round in 0..20 {
        let mut mk = match round % 4 {
            // At whatever moment of the set-up this is.
            0 | 1 => {
                let arguments = ["sh", "-c", &script].map(OsStr::new);
                let child = sandbox.command(&arguments).stdout(Stdio::null()).spawn().unwrap();
                std::thread::sleep(Duration::from_micros(400 * round));
                child
            }
            2 => sandbox.start(&[], &script),
            _ => sandbox.start(&["--as-pid1"], &script),
        };
        mk.kill().unwrap();
        assert_eq!(mk.wait().unwrap().signal(), Some(9));
    }
    let begun = Instant::now();
    while running(&word) > 0 {
        assert!(
            begun.elapsed() < Duration::from_secs(10),
            "{} processes are left",
            running(&word)
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn host_network(sandbox: &Sandbox) {
    let own = sandbox.shell(
        &[],
        "ls /sys/class/net; ip -o addr show lo | grep -c 127.0.0.1; cat /proc/net/dev | wc -l",
    );
    assert_eq!(own.lines().collect::<Vec<_>>()[..2], ["lo", "1"], "{own}");
    let mut host: Vec<_> = fs_err::read_dir("/sys/class/net")
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    host.sort();
    let seen = sandbox.shell(
        &["--host"],
        "ls /sys/class/net; touch /sys/x 2>&- && echo written; cat /etc/resolv.conf >/tmp/r",
    );
    let seen: Vec<OsString> = seen.lines().map(OsString::from).collect();
    assert_eq!(seen, host);
}

fn overlay(sandbox: &Sandbox) {
    let tree = sandbox.tree();
    fs_err::create_dir_all(tree.join("opt/a/b")).unwrap();
    fs_err::write(tree.join("opt/a/f"), "below\n").unwrap();
    let script = "mv /opt/a /opt/c; cat /opt/c/f; [ ! -e /opt/a ]; rm -r /opt/c; mkdir /opt/c; ls -A /opt/c; \
                  chmod 700 /opt; ln /bin/busybox /opt/l; echo x >>/etc/passwd; tail -1 /etc/passwd";
    assert_eq!(sandbox.shell(&[], script), "below\nx\n");
    assert_eq!(fs_err::read_to_string(tree.join("opt/a/f")).unwrap(), "below\n");
}

fn kernel_views(sandbox: &Sandbox) {
    let text = sandbox.shell(
        &[],
        "for d in proc sys dev dev/pts dev/shm dev/mqueue tmp run; do \
         awk -v d=/$d '$2 == d { print $2, $3 }' /proc/mounts; done; ipcs -q | grep -c '^0x' || true; stat -c %a /tmp /run /dev/shm; \
         grep -vc ':/$' /proc/self/cgroup || true",
    );
    let expected = "/proc proc\n/sys sysfs\n/dev tmpfs\n/dev/pts devpts\n/dev/shm tmpfs\n/dev/mqueue mqueue\n/tmp tmpfs\n\
                    /run tmpfs\n0\n1777\n755\n1777\n0\n";
    assert_eq!(text, expected);
}
