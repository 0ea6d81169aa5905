//! Entering an image: what a command sees, what it can change, how it ends, and what is left of it. Needs namespaces,
//! and one of the fixtures for a program to run.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::chance::Chance;
use crate::harness::{Output, Sandbox, needs};

/// How long something that happens soon may take before a test gives up on it.
const SOON: Duration = Duration::from_secs(30);

/// Returns a sandbox with the image `box`: a BusyBox, and then what `more` of a recipe says.
fn boxed(more: &str) -> Option<Sandbox> {
    let archive = needs::fixture(needs::FIXTURES[0])?;
    if !needs::namespaces() {
        return None;
    }
    let sandbox = Sandbox::new();
    fs_err::copy(archive, sandbox.work().join("rootfs.tar.gz")).unwrap();
    sandbox.write("box.toml", format!("[[step]]\nunpack = 'rootfs.tar.gz'\n{more}"));
    sandbox.mk(["build", "box.toml", "-q"]).ok();
    Some(sandbox)
}

const CONF: &str =
    "[conf]\nhostname = 'box'\nhosts = { '10.0.0.7' = ['db', 'database'] }\nnameservers = ['9.9.9.9']\n";

/// Runs `script` in the image with `options`.
fn sh(sandbox: &Sandbox, options: &[&str], script: &str) -> Output {
    sandbox.mk([&["run", "box"], options, &["sh", "-c", script]].concat())
}

/// Runs `script`, which must succeed and leave stderr empty, and returns what it prints.
#[track_caller]
fn says(sandbox: &Sandbox, options: &[&str], script: &str) -> String {
    let output = sh(sandbox, options, script).ok();
    assert_eq!(output.stderr, "", "{output}");
    output.text().to_owned()
}

#[test]
fn a_command_sees_its_own_host_name_and_processes_and_is_root() {
    let Some(sandbox) = boxed(CONF) else { return };
    let text = says(&sandbox, &[], "hostname; id -u; id -g; ps -o pid,args");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[..3], ["box", "0", "0"]);
    let processes: Vec<&str> = lines[4..].iter().map(|line| line.trim_start()).collect();
    assert!(processes[0].starts_with("1 "), "{text}");
    assert!((2..=4).contains(&processes.len()), "{text}");
    assert!(
        !text.contains("integration"),
        "a process of the host shows: {text}"
    );
}

#[test]
fn the_reaper_is_process_1_unless_the_command_is_to_be() {
    let Some(sandbox) = boxed("") else { return };
    assert_eq!(says(&sandbox, &["--as-pid1"], "echo $$"), "1");
    assert_ne!(says(&sandbox, &[], "echo $$"), "1");
    let count = "ls -d /proc/[0-9]* | wc -l";
    assert_eq!(
        says(&sandbox, &["--as-pid1"], &format!("{count} >/tmp/n; cat /tmp/n")),
        "3"
    );
}

#[test]
fn a_folder_of_the_host_is_read_and_written_as_the_caller() {
    let Some(sandbox) = boxed("") else { return };
    sandbox.write("t1/f", "hi\n");
    let volume = format!("{}:/mnt", sandbox.work().join("t1").display());
    assert_eq!(
        says(&sandbox, &["-v", &volume], "cat /mnt/f; echo new >/mnt/g; id -u"),
        "hi\n0"
    );
    let written = sandbox.work().join("t1/g");
    assert_eq!(fs_err::read_to_string(&written).unwrap(), "new\n");
    let metadata = fs_err::metadata(&written).unwrap();
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    assert_eq!((metadata.uid(), metadata.gid()), (uid.as_raw(), gid.as_raw()));
    // A relative path is seen from where mk is called.
    assert_eq!(says(&sandbox, &["-v", "t1:/mnt"], "cat /mnt/g"), "new");
}

#[test]
fn a_read_only_volume_is_not_written() {
    let Some(sandbox) = boxed("") else { return };
    sandbox.write("t1/below/f", "hi\n");
    for path in ["/mnt/new", "/mnt/below/f"] {
        let output = sh(
            &sandbox,
            &["-v", "t1:/mnt:ro"],
            &format!("cat /mnt/below/f; echo bad >{path}"),
        );
        assert_ne!(output.code, Some(0), "{output}");
        assert!(
            output.stdout == "hi\n" && output.stderr.contains("Read-only"),
            "{output}"
        );
    }
    let output = sh(
        &sandbox,
        &["-v", "t1:/mnt:ro"],
        "mount -o remount,rw /mnt || echo bad >/mnt/new",
    );
    assert_ne!(output.code, Some(0), "{output}");
    assert!(!sandbox.work().join("t1/new").exists());
}

#[test]
fn files_and_nested_folders_are_volumes_too_and_missing_targets_are_made() {
    let Some(sandbox) = boxed("") else { return };
    sandbox.write("one", "file\n");
    sandbox.write("outer/o", "outer\n");
    sandbox.write("inner/i", "inner\n");
    fs_err::create_dir(sandbox.work().join("outer/sub")).unwrap();
    let options = [
        "-v",
        "one:/deep/er/file",
        "-v",
        "outer:/not/there",
        "-v",
        "inner:/not/there/sub",
    ];
    let text = says(
        &sandbox,
        &options,
        "cat /deep/er/file /not/there/o /not/there/sub/i",
    );
    assert_eq!(text, "file\nouter\ninner");
    let over = says(
        &sandbox,
        &["-v", "one:/etc/passwd"],
        "cat /etc/passwd; echo more >>/etc/passwd",
    );
    assert_eq!(over, "file");
    assert_eq!(
        fs_err::read_to_string(sandbox.work().join("one")).unwrap(),
        "file\nmore\n"
    );
    sandbox.verify();
}

#[test]
fn a_volume_that_is_not_there_is_an_error_that_says_mkdir() {
    let Some(sandbox) = boxed("") else { return };
    let output = sh(&sandbox, &["-v", "nowhere:/mnt"], "echo started");
    assert_eq!(output.code, Some(125), "{output}");
    assert!(
        output.stderr.contains("nowhere") && output.stderr.contains("mkdir"),
        "{output}"
    );
    assert_eq!(output.stdout, "");
}

#[test]
fn a_volume_does_not_leave_the_image_by_its_links() {
    // Not below /tmp: a run has its own.
    let outside = tempfile::TempDir::new_in("/var/tmp").unwrap();
    let way_out = outside.path();
    let more = format!(
        "[[step]]\ndir = '{0}'\n[[step]]\nlink = '/way'\nto = '{0}'\n[[step]]\nlink = '/up'\nto = '../../..{0}'\n",
        way_out.display()
    );
    let Some(sandbox) = boxed(&more) else { return };
    sandbox.write("t1/f", "hi\n");
    for target in ["way", "up"] {
        let script = format!("cat /{target}/new/f");
        assert_eq!(
            says(&sandbox, &["-v", &format!("t1:/{target}/new")], &script),
            "hi"
        );
        assert_eq!(
            fs_err::read_dir(way_out).unwrap().count(),
            0,
            "`/{target}` led out of the image"
        );
    }
}

#[test]
fn what_is_written_in_the_image_is_nowhere_afterwards() {
    let Some(sandbox) = boxed("") else { return };
    let name = format!("written-{}", std::process::id());
    let script = format!(
        "mkdir /{name} && echo x >/{name}/f && echo y >>/etc/passwd && rm /bin/vi && mv /bin/wc /bin/wc2 && cat /{name}/f"
    );
    assert_eq!(says(&sandbox, &[], &script), "x");
    assert_eq!(
        says(
            &sandbox,
            &[],
            &format!("ls -d /{name} /bin/wc2 2>/dev/null; ls /bin/vi /bin/wc")
        ),
        "/bin/vi\n/bin/wc"
    );
    assert!(!Path::new("/").join(&name).exists());
    assert!(!listing(&sandbox.store()).iter().any(|path| path.contains(&name)));
    sandbox.verify();
}

/// Every path below `folder` that can be seen.
fn listing(folder: &Path) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for entry in fs_err::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        all.insert(path.display().to_string());
        if path.is_dir() && !path.is_symlink() {
            all.extend(listing(&path));
        }
    }
    all
}

/// A message queue of the host, removed in the end.
struct Queue(String);

impl Queue {
    fn new() -> Option<Self> {
        let output = Command::new(needs::program("ipcmk")?).arg("-Q").output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        Some(Self(text.trim().rsplit(' ').next().unwrap().to_owned()))
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        let _ = Command::new("/usr/bin/ipcrm").args(["-q", &self.0]).status();
    }
}

#[test]
fn a_message_queue_of_the_host_is_not_inside() {
    let Some(sandbox) = boxed("") else { return };
    let Some(queue) = Queue::new() else { return };
    let there = |text: &str| {
        text.lines()
            .any(|line| line.split_ascii_whitespace().nth(1) == Some(&queue.0))
    };
    let host = Command::new("/usr/bin/ipcs").arg("-q").output().unwrap();
    assert!(
        there(&String::from_utf8_lossy(&host.stdout)),
        "the queue is not on the host either"
    );
    let inside = says(&sandbox, &[], "ipcs -q");
    assert!(inside.contains("Message Queues") && !there(&inside), "{inside}");
}

/// Starts a command that says `up` and goes on until its stdin ends.
fn start(sandbox: &Sandbox, options: &[&str], script: &str) -> Child {
    let mut command = sandbox.command();
    command
        .args(["run", "box"])
        .args(options)
        .args(["sh", "-c", script]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut up = [0; 3];
    if child.stdout.as_mut().unwrap().read_exact(&mut up).is_err() {
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        panic!("{script:?} did not start: {said}");
    }
    assert_eq!(&up, b"up\n");
    child
}

/// Ends what [`start`] started and returns what it printed since, and its exit code.
#[track_caller]
fn finish(mut child: Child) -> (String, Option<i32>) {
    drop(child.stdin.take());
    eventually("the end of the run", || child.try_wait().unwrap().is_some());
    let output = child.wait_with_output().unwrap();
    (
        String::from_utf8_lossy(&output.stdout).into_owned(),
        output.status.code(),
    )
}

#[test]
fn mounts_and_the_host_name_of_a_run_are_its_own() {
    let Some(sandbox) = boxed("") else { return };
    let host_name = || fs_err::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let before = host_name();
    sandbox.write("t1/f", "hi\n");
    let options = [
        "--hostname",
        "of-the-run",
        "--tmpfs",
        "/mounted-inside",
        "-v",
        "t1:/volume-inside",
    ];
    let child = start(
        &sandbox,
        &options,
        "echo up; cat; hostname; grep -c -e-inside /proc/self/mountinfo",
    );
    let mounts = fs_err::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains("-inside"), "{mounts}");
    assert!(!mounts.contains(sandbox.store().to_str().unwrap()), "{mounts}");
    assert_eq!(host_name(), before);
    assert_eq!(finish(child), ("of-the-run\n2\n".to_owned(), Some(0)));
}

#[test]
fn every_namespace_is_a_new_one() {
    let Some(sandbox) = boxed("") else { return };
    let inside = says(
        &sandbox,
        &[],
        "for n in uts ipc pid mnt net; do readlink /proc/self/ns/$n; done",
    );
    for (name, inside) in ["uts", "ipc", "pid", "mnt", "net"].iter().zip(inside.lines()) {
        let host = fs_err::read_link(format!("/proc/self/ns/{name}")).unwrap();
        assert!(
            inside.starts_with(name) && Path::new(inside) != host,
            "{name}: {inside}"
        );
    }
    let host = fs_err::read_link("/proc/self/ns/net").unwrap();
    assert_eq!(
        says(&sandbox, &["--network", "host"], "readlink /proc/self/ns/net"),
        host.to_str().unwrap()
    );
}

#[test]
fn root_inside_is_the_caller_outside() {
    let Some(sandbox) = boxed("") else { return };
    if needs::is_root() {
        return needs::skipped("an ordinary user");
    }
    let map = says(&sandbox, &[], "cat /proc/self/uid_map");
    let first: Vec<&str> = map.lines().next().unwrap().split_ascii_whitespace().collect();
    assert_eq!(
        first[..2],
        ["0", &rustix::process::geteuid().as_raw().to_string()]
    );
}

#[test]
fn etc_holds_what_the_recipe_says() {
    for resolv in [
        "",
        "/run/systemd/resolve/stub-resolv.conf",
        "../run/nowhere",
        "/etc/resolv.conf",
        "/tmp/x",
    ] {
        let link = match resolv {
            "" => String::new(),
            to => {
                format!("[[step]]\nlink = ['/etc/resolv.conf', '/etc/hosts', '/etc/hostname']\nto = '{to}'\n")
            }
        };
        let Some(sandbox) = boxed(&format!("{link}[[step]]\ndir = '/etc'\nmode = '0751'\n{CONF}")) else {
            return;
        };
        let text = says(
            &sandbox,
            &[],
            "cat /etc/hostname /etc/resolv.conf; stat -c '%a %u' /etc",
        );
        assert_eq!(text, "box\nnameserver 9.9.9.9\n751 0", "{resolv:?}");
        let hosts = says(&sandbox, &[], "cat /etc/hosts");
        let names: Vec<Vec<&str>> = hosts
            .lines()
            .map(|line| line.split_ascii_whitespace().collect())
            .collect();
        assert!(names.contains(&vec!["10.0.0.7", "db", "database"]), "{hosts}");
        assert!(
            names
                .iter()
                .any(|words| words[0] == "127.0.0.1" && words.contains(&"localhost")),
            "{hosts}"
        );
        assert!(names.iter().any(|words| words.contains(&"box")), "{hosts}");
        let replaced = "echo new >/tmp/hosts && mv /tmp/hosts /etc/hosts && cat /etc/hosts && ls /etc/passwd";
        assert_eq!(says(&sandbox, &[], replaced), "new\n/etc/passwd");
    }
}

#[test]
fn a_host_name_of_the_command_line_is_in_all_three_places() {
    let Some(sandbox) = boxed(CONF) else { return };
    let text = says(
        &sandbox,
        &["--hostname", "other"],
        "hostname; cat /etc/hostname; grep -c other /etc/hosts",
    );
    assert_eq!(text, "other\nother\n1");
}

#[test]
fn nothing_of_the_callers_environment_comes_in() {
    let Some(sandbox) = boxed("[run]\nenv = { FROM_IMAGE = '1', BOTH = 'image' }\n") else {
        return;
    };
    sandbox.write("env", "# a comment\nFROM_FILE=a b\n\nBOTH=file\n");
    let words = [
        "run",
        "box",
        "-e",
        "SAID=x=y",
        "--env-file",
        "env",
        "-e",
        "EMPTY=",
        "/usr/bin/env",
    ];
    let words = words.map(|word| if word == "/usr/bin/env" { "env" } else { word });
    let output = sandbox.mk_with(words, |command| {
        command
            .env("SECRET", "1")
            .env("LANG", "tr_TR")
            .env("LD_PRELOAD", "/nowhere")
            .env("TERM", "xterm");
    });
    let output = output.ok();
    let lines: BTreeSet<&str> = output.stdout.lines().collect();
    for line in ["FROM_IMAGE=1", "BOTH=file", "FROM_FILE=a b", "SAID=x=y", "EMPTY="] {
        assert!(lines.contains(line), "{line:?} is not in {output}");
    }
    let known = [
        "FROM_IMAGE",
        "BOTH",
        "FROM_FILE",
        "SAID",
        "EMPTY",
        "PATH",
        "HOME",
        "HOSTNAME",
        "USER",
        "LOGNAME",
    ];
    for line in &lines {
        assert!(
            known.contains(&line.split_once('=').unwrap().0),
            "{line:?} comes from nowhere: {output}"
        );
    }
    let home = sandbox.home();
    assert!(!output.stdout.contains(home.to_str().unwrap()), "{output}");
}

#[test]
fn the_exit_code_is_the_commands_or_tells_why_there_is_none() {
    let more = "[[step]]\nwrite = '/bin/garbage'\ntext = 'garbage'\nmode = '0755'\n\
                [[step]]\nwrite = '/bin/plain'\ntext = 'plain'\n\
                [[step]]\nwrite = '/bin/lost'\ntext = \"#!/no/such/interpreter\\n\"\nmode = '0755'\n";
    let Some(sandbox) = boxed(more) else { return };
    for options in [&[][..], &["--as-pid1"]] {
        assert_eq!(sh(&sandbox, options, "exit 0").code, Some(0));
        assert_eq!(sh(&sandbox, options, "exit 7").code, Some(7));
        assert_eq!(sh(&sandbox, options, "exit 255").code, Some(255));
        for (command, code) in [
            ("no-such-command", 127),
            ("/no/such/command", 127),
            ("/bin/plain", 126),
            ("/etc", 126),
            ("/bin/lost", 126),
        ] {
            let output = sandbox.mk([&["run", "box"], options, &[command]].concat());
            assert_eq!(output.code, Some(code), "{command}: {output}");
            assert!(
                output.stderr.starts_with("error: ") && output.stderr.contains(command),
                "{output}"
            );
        }
        let garbage = sandbox.mk([&["run", "box"], options, &["/bin/garbage"]].concat());
        assert_eq!(garbage.code, Some(126), "{garbage}");
    }
    for (signal, code) in [
        ("TERM", 143),
        ("KILL", 137),
        ("INT", 130),
        ("SEGV", 139),
        ("USR1", 138),
    ] {
        assert_eq!(
            sh(&sandbox, &[], &format!("kill -{signal} $$")).code,
            Some(code),
            "{signal}"
        );
    }
    for words in [
        &["run", "no-such-image"][..],
        &["run", "box", "--no-such-option"],
        &["run", "box", "-w", "relative"],
    ] {
        let output = sandbox.mk(words);
        assert_eq!(output.code, Some(125), "{output}");
        assert!(output.stderr.starts_with("error: "), "{output}");
    }
}

fn signal(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id() as i32), signal).unwrap();
}

#[test]
fn signals_reach_the_command() {
    let Some(sandbox) = boxed("") else { return };
    for options in [&[][..], &["--as-pid1"]] {
        let script = "trap 'echo got; exit 3' TERM; echo up; sleep 86400 & wait";
        let child = start(&sandbox, options, script);
        signal(&child, Signal::SIGTERM);
        assert_eq!(finish(child), ("got\n".to_owned(), Some(3)), "{options:?}");
        let script = "trap 'echo got; exit 4' USR1; echo up; sleep 86400 & wait";
        let child = start(&sandbox, options, script);
        signal(&child, Signal::SIGUSR1);
        let (text, code) = finish(child);
        assert_eq!((text.as_str(), code), ("got\n", Some(4)), "{options:?}");
    }
    for (name, code) in [
        (Signal::SIGTERM, 143),
        (Signal::SIGINT, 130),
        (Signal::SIGHUP, 129),
        (Signal::SIGQUIT, 131),
    ] {
        let seconds = marker();
        let mut command = sandbox.command();
        command.args(["run", "box", "sleep", &seconds]);
        let child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let begun = format!("sleep\0{seconds}\0");
        eventually("the command to begin", || {
            arguments().any(|(_, said)| said == begun)
        });
        signal(&child, name);
        assert_eq!(finish(child).1, Some(code), "{name}");
    }
}

#[test]
fn orphans_are_reaped() {
    let Some(sandbox) = boxed("") else { return };
    let script = "for i in 1 2 3 4 5 6 7 8 9; do sh -c 'sleep 0 & sleep 0 &'; done\n\
                  i=0; while grep -q '^State:.Z' /proc/[0-9]*/status 2>/dev/null; do\n\
                  i=$((i+1)); [ $i -lt 200 ] || exit 1; usleep 50000; done";
    sh(&sandbox, &[], script).ok();
    let orphan = "sh -c 'sleep 100 & echo $!' >/tmp/pid; read pid </tmp/pid; grep PPid /proc/$pid/status";
    assert_eq!(says(&sandbox, &[], orphan), "PPid:\t1");
}

#[test]
fn a_command_that_ends_takes_its_children_with_it() {
    let Some(sandbox) = boxed("") else { return };
    let marker = marker();
    let output = sh(
        &sandbox,
        &[],
        &format!("sleep {marker} & sleep {marker} & exit 5"),
    );
    assert_eq!(output.code, Some(5), "{output}");
    assert_eq!(processes_with(&marker), Vec::<u32>::new());
}

/// A number of seconds that no other process sleeps for.
fn marker() -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!(
        "4{:07}{:03}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    )
}

/// Returns the processes of this machine with their arguments, each of which ends with a NUL.
fn arguments() -> impl Iterator<Item = (u32, String)> {
    fs_err::read_dir("/proc").unwrap().filter_map(|entry| {
        let entry = entry.unwrap();
        let pid = entry.file_name().to_string_lossy().parse().ok()?;
        // A process may end between the two looks.
        let bytes = fs_err::read(entry.path().join("cmdline")).unwrap_or_default();
        Some((pid, String::from_utf8_lossy(&bytes).into_owned()))
    })
}

/// Returns the processes of this machine that have `word` among their arguments.
fn processes_with(word: &str) -> Vec<u32> {
    let found = arguments().filter(|(_, arguments)| arguments.contains(word));
    found.map(|(pid, _)| pid).collect()
}

/// Waits until `holds`, and fails where it does not in good time.
#[track_caller]
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < SOON, "{what} not within {SOON:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn pipes_carry_every_byte() {
    let Some(sandbox) = boxed("") else { return };
    let bytes: Vec<u8> = (0..5_000_003_u32)
        .map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let mut command = sandbox.command();
    command.args([
        "run",
        "box",
        "sh",
        "-c",
        "test -p /dev/stdin && test -p /dev/stdout && cat",
    ]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let sent = bytes.clone();
    let writer = std::thread::spawn(move || stdin.write_all(&sent).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(
        output.stdout == bytes,
        "{} bytes came back of {}",
        output.stdout.len(),
        bytes.len()
    );
}

#[test]
fn stdout_and_stderr_are_two() {
    let Some(sandbox) = boxed("") else { return };
    let output = sh(&sandbox, &[], "echo out; echo err >&2").ok();
    assert_eq!(
        (output.stdout.as_str(), output.stderr.as_str()),
        ("out\n", "err\n")
    );
}

#[test]
fn no_open_file_of_the_caller_or_of_mk_comes_in() {
    let Some(sandbox) = boxed("") else { return };
    for options in ["", "--as-pid1"] {
        let mk = sandbox.command();
        let mut shell = Command::new("/bin/sh");
        let script =
            format!("exec 7</etc/passwd 9</; exec \"$1\" run box {options} sh -c 'ls /proc/$$/fd; true'");
        shell
            .args(["-c", &script, "sh"])
            .arg(mk.get_program())
            .env_clear()
            .current_dir(sandbox.work());
        shell
            .envs(mk.get_envs().filter_map(|(name, value)| Some((name, value?))))
            .stdin(Stdio::null());
        let output = shell.output().unwrap();
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            "0\n1\n2\n",
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

#[test]
fn a_read_only_run_writes_to_memory_and_volumes_only() {
    let Some(sandbox) = boxed("") else { return };
    fs_err::create_dir(sandbox.work().join("t1")).unwrap();
    let options = ["--read-only", "-v", "t1:/mnt", "--tmpfs", "/memory"];
    let script = "for p in /x /etc/x /root/x /bin/x /mnt/x /memory/x /tmp/x /run/x /dev/shm/x; do\n\
                  if (echo y >$p) 2>/dev/null; then echo $p; fi; done";
    assert_eq!(
        says(&sandbox, &options, script),
        "/mnt/x\n/memory/x\n/tmp/x\n/run/x\n/dev/shm/x"
    );
    assert!(sandbox.work().join("t1/x").exists());
}

#[test]
fn a_tmpfs_is_as_large_as_it_was_asked_for() {
    let Some(sandbox) = boxed("") else { return };
    let options = ["--tmpfs", "/memory/of/its-own:size=1m,mode=0711"];
    let script = "cd /memory/of/its-own && stat -c %a . && ls -A && head -c 500000 /dev/zero >fits && \
                  if head -c 2000000 /dev/zero >too-large; then echo written; else echo full; fi 2>/dev/null";
    assert_eq!(says(&sandbox, &options, script), "711\nfull");
}

#[test]
fn a_run_starts_where_it_is_told_to() {
    let Some(sandbox) = boxed("[run]\nworkdir = '/usr'\ncommand = ['pwd']\n") else {
        return;
    };
    assert_eq!(sandbox.mk(["run", "box"]).ok().stdout, "/usr\n");
    assert_eq!(says(&sandbox, &["-w", "/etc"], "pwd"), "/etc");
    sandbox.write("t1/f", "");
    assert_eq!(
        says(&sandbox, &["-v", "t1:/src", "-w", "/src"], "pwd; ls"),
        "/src\nf"
    );
}

#[test]
fn a_run_is_the_user_that_it_is_told_to_be() {
    let more = "[[step]]\nuser = 'app'\nuid = 1000\ngid = 1001\nhome = '/home/app'\n";
    let Some(sandbox) = boxed(more) else { return };
    assert_eq!(says(&sandbox, &["-u", "root"], "id -u; id -g"), "0\n0");
    assert_eq!(says(&sandbox, &["-u", "0:0"], "id -u; id -g"), "0\n0");
    let unknown = sh(&sandbox, &["-u", "nobody-knows"], "id");
    assert_eq!(unknown.code, Some(125), "{unknown}");
    assert!(unknown.stderr.contains("nobody-knows"), "{unknown}");
    for user in ["app", "1000", "1000:1001", "app:1001"] {
        let output = sh(&sandbox, &["-u", user], "id -u; id -g; echo $HOME");
        if needs::has_ids() {
            let gid = if user == "1000" {
                output.stdout.lines().nth(1).unwrap_or_default()
            } else {
                "1001"
            };
            assert_eq!(
                output.clone().ok().text(),
                format!("1000\n{gid}\n/home/app"),
                "{user}"
            );
        } else {
            assert_eq!(output.code, Some(125), "{user}: {output}");
            assert!(
                output.stderr.contains("subuid") || output.stderr.contains("subordinate"),
                "{output}"
            );
        }
    }
}

#[test]
fn without_a_network_there_is_loopback_and_it_is_up() {
    let Some(sandbox) = boxed("") else { return };
    let links = says(&sandbox, &[], "ip -o link; ip -o -4 addr; ip -o -6 addr");
    let lines: Vec<&str> = links.lines().collect();
    assert!(lines[0].starts_with("1: lo: <LOOPBACK,UP"), "{links}");
    let devices = says(
        &sandbox,
        &[],
        "tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' ' | grep -v -e ^sit -e ^tunl",
    );
    assert_eq!(devices, "lo");
    assert!(links.contains("127.0.0.1/8"), "{links}");
    let talk = "nc -l -p 4711 -s 127.0.0.1 </dev/null >/tmp/got & \
                i=0; until echo hi | nc 127.0.0.1 4711 2>/dev/null; do i=$((i+1)); [ $i -lt 100 ] || exit 1; usleep 20000; done; \
                wait; cat /tmp/got";
    assert_eq!(says(&sandbox, &[], talk), "hi");
}

#[test]
fn a_rehearsal_prints_the_mounts_and_starts_nothing() {
    let Some(sandbox) = boxed("") else { return };
    fs_err::create_dir(sandbox.work().join("t1")).unwrap();
    let output = sh(
        &sandbox,
        &["--dry-run", "-v", "t1:/mnt:ro", "--tmpfs", "/memory"],
        "echo x >/mnt/x; echo started",
    );
    let output = output.ok();
    for piece in [
        "-> /proc",
        "-> /dev",
        "-> /mnt (ro",
        "tmpfs -> /memory",
        "pid",
        "uts",
        "ipc",
    ] {
        assert!(output.stdout.contains(piece), "{piece:?} is not in {output}");
    }
    assert!(!output.stdout.lines().any(|line| line == "started"), "{output}");
    assert!(!sandbox.work().join("t1/x").exists());
}

#[test]
fn an_image_that_is_not_there_is_built_on_the_way() {
    let Some(archive) = needs::fixture(needs::FIXTURES[0]) else {
        return;
    };
    if !needs::namespaces() {
        return;
    }
    let sources = archive.parent().unwrap().to_owned();
    let run = |sandbox: &Sandbox, image: &str| {
        sandbox
            .mk_with(["run", image, "echo", "hi"], |command| {
                _ = command.env("MK_SOURCES", &sources)
            })
            .ok()
    };
    let sandbox = Sandbox::new();
    assert_eq!(run(&sandbox, "busybox-musl").stdout, "hi\n");
    let again = run(&sandbox, "busybox-musl");
    assert_eq!((again.stdout.as_str(), again.stderr.as_str()), ("hi\n", ""));
    // A recipe in ./images comes before one that mk ships.
    let sandbox = Sandbox::new();
    fs_err::create_dir(sandbox.work().join("images")).unwrap();
    fs_err::copy(&archive, sandbox.work().join("images/rootfs.tar.gz")).unwrap();
    sandbox.write("images/mine.toml", "[[step]]\nunpack = 'rootfs.tar.gz'\n");
    assert_eq!(run(&sandbox, "mine").stdout, "hi\n");
    assert_eq!(run(&sandbox, "images/mine.toml").stdout, "hi\n");
    sandbox.verify();
}

#[test]
fn devices_are_the_few_that_a_program_needs() {
    let Some(sandbox) = boxed("") else { return };
    let names = says(&sandbox, &[], "ls /dev | tr '\\n' ' '");
    let allowed = [
        "console", "core", "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin",
        "stdout", "tty", "urandom", "zero",
    ];
    for name in names.split_ascii_whitespace() {
        assert!(allowed.contains(&name), "/dev/{name} is there: {names}");
    }
    let script = "echo x >/dev/null && head -c 3 /dev/zero | od -An -tx1 && head -c 8 /dev/urandom | wc -c && \
                  echo hi | cat /dev/stdin && echo out >/dev/stdout && echo x >/dev/shm/x && cat /dev/shm/x && \
                  stat -c %a /tmp /dev/shm && (echo x >/dev/full) 2>&1 | grep -o 'No space'";
    let text = says(&sandbox, &[], script);
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    assert_eq!(
        lines,
        ["00 00 00", "8", "hi", "out", "x", "1777", "1777", "No space"]
    );
}

#[test]
fn a_new_device_node_cannot_be_made() {
    let Some(sandbox) = boxed("") else { return };
    let output = sh(&sandbox, &[], "mknod /tmp/null c 1 3 || mknod /null c 1 3");
    assert_ne!(output.code, Some(0), "{output}");
}

#[test]
fn what_would_change_or_show_the_machine_is_out_of_reach() {
    let Some(sandbox) = boxed("") else { return };
    let script = "for p in /proc/sysrq-trigger /proc/sys/kernel/hostname /proc/sys/kernel/core_pattern \
                  /sys/kernel/mm/transparent_hugepage/enabled /proc/irq/default_smp_affinity; do\n\
                  if (echo x >>$p) 2>/dev/null; then echo wrote $p; fi; done\n\
                  head -c 1 /proc/kcore 2>/dev/null | wc -c; ls /sys/firmware 2>/dev/null | wc -l; \
                  ls /proc/acpi 2>/dev/null | wc -l";
    assert_eq!(says(&sandbox, &[], script), "0\n0\n0");
}

#[test]
fn capabilities_are_the_usual_ones_less_mknod_and_no_more_can_be_had() {
    let Some(sandbox) = boxed("") else { return };
    for options in [&[][..], &["--as-pid1"]] {
        let text = says(&sandbox, options, "grep -e ^Cap -e NoNewPrivs /proc/self/status");
        let value = |name: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name))
                .unwrap()
                .trim()
        };
        // CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID SETPCAP NET_BIND_SERVICE NET_RAW SYS_CHROOT AUDIT_WRITE
        // SETFCAP (capabilities(7)).
        let usual = "00000000a00425fb";
        assert_eq!(
            [value("CapPrm:"), value("CapEff:"), value("CapBnd:")],
            [usual; 3],
            "{options:?}"
        );
        assert_eq!(
            [value("CapInh:"), value("CapAmb:")],
            ["0000000000000000"; 2],
            "{options:?}"
        );
        assert_eq!(value("NoNewPrivs:"), "1");
    }
}

#[test]
fn runs_of_one_image_do_not_meet() {
    let Some(sandbox) = boxed("") else { return };
    let script = "echo up; echo $0 >/shared; cat >/dev/null; cat /shared";
    let one = start(&sandbox, &[], &script.replace("$0", "one"));
    let other = start(&sandbox, &[], &script.replace("$0", "other"));
    assert_eq!(finish(one), ("one\n".to_owned(), Some(0)));
    assert_eq!(finish(other), ("other\n".to_owned(), Some(0)));
}

/// Everything that a run could leave on a machine.
#[derive(Debug, PartialEq, Eq)]
struct Traces {
    store: BTreeSet<String>,
    mounts: Vec<String>,
    cgroups: BTreeSet<String>,
    locks: Vec<String>,
    processes: Vec<u32>,
}

impl Traces {
    fn of(sandbox: &Sandbox, marker: &str) -> Self {
        let store = listing(&sandbox.store());
        let inodes: BTreeSet<u64> = store
            .iter()
            .filter_map(|path| fs_err::symlink_metadata(path).ok())
            .map(|found| found.ino())
            .collect();
        let lines = |path: &str| -> Vec<String> {
            fs_err::read_to_string(path)
                .unwrap()
                .lines()
                .map(str::to_owned)
                .collect()
        };
        let store_path = sandbox.store().display().to_string();
        let is_ours = |line: &String| {
            let place = line
                .split_ascii_whitespace()
                .find(|word| word.matches(':').count() == 2);
            let inode = place.and_then(|place| place.rsplit(':').next()?.parse().ok());
            inode.is_some_and(|inode| inodes.contains(&inode))
        };
        let cgroups = listing(Path::new("/sys/fs/cgroup"));
        Self {
            mounts: lines("/proc/self/mountinfo")
                .into_iter()
                .filter(|line| line.contains(&store_path))
                .collect(),
            cgroups: cgroups
                .into_iter()
                .filter(|path| path.contains("mk-") || path.contains(marker))
                .collect(),
            locks: lines("/proc/locks").into_iter().filter(is_ours).collect(),
            processes: processes_with(marker),
            store,
        }
    }
}

#[test]
fn a_run_that_is_killed_at_any_moment_leaves_nothing() {
    let Some(sandbox) = boxed("") else { return };
    let marker = marker();
    sandbox.write("t1/f", "");
    let volume = format!("t1:/{marker}");
    let words = ["run", "box", "-v", &volume, "--tmpfs", "/memory", "sh", "-c"];
    let begin = Instant::now();
    sandbox.mk([&words[..], &["exit 0"]].concat()).ok();
    let duration = begin.elapsed();
    let before = Traces::of(&sandbox, &marker);
    assert!(
        before.processes.is_empty() && before.locks.is_empty(),
        "{before:?}"
    );
    let script = format!("echo x >/x; sleep {marker} & exec sleep {marker}");
    let mut chance = Chance::new();
    for round in 0..200 {
        let mut run = sandbox.command().args(words).arg(&script).spawn().unwrap();
        let moment = chance.moment(duration * 3 / 2);
        std::thread::sleep(moment);
        run.kill().unwrap();
        run.wait().unwrap();
        let what = format!(
            "killed after {moment:?}, round {round}, MK_TEST_SEED={}: something was left",
            chance.seed
        );
        eventually(&what, || processes_with(&marker).is_empty());
        if round % 10 == 9 {
            // What the kernel takes apart after the last process is gone may take it a moment.
            eventually(&what, || Traces::of(&sandbox, &marker) == before);
        }
    }
    assert_eq!(
        Traces::of(&sandbox, &marker),
        before,
        "MK_TEST_SEED={}",
        chance.seed
    );
    sandbox.verify();
    assert_eq!(says(&sandbox, &[], "echo fine"), "fine");
}

#[test]
fn a_run_shows_in_the_traces_while_it_lasts() {
    let Some(sandbox) = boxed("") else { return };
    let marker = marker();
    let script = format!("echo up; cat; exit 0; sleep {marker}");
    let child = start(&sandbox, &[], &script);
    let traces = Traces::of(&sandbox, &marker);
    assert!(
        !traces.processes.is_empty() && !traces.locks.is_empty(),
        "{traces:?}"
    );
    assert_eq!(finish(child).1, Some(0));
    let after = Traces::of(&sandbox, &marker);
    assert!(after.processes.is_empty() && after.locks.is_empty(), "{after:?}");
}
