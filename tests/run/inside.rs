use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};

use super::{boxed, finish, says, sh, start};
use crate::harness::{Sandbox, needs};

const CONF: &str =
    "[conf]\nhostname = 'box'\nhosts = { '10.0.0.7' = ['db', 'database'] }\nnameservers = ['9.9.9.9']\n";

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
    // The shell counts by itself: who else is there does not depend on when it starts what.
    let count = "set -- /proc/[0-9]*; echo $#";
    assert_eq!(says(&sandbox, &["--as-pid1"], count), "1");
    assert_eq!(says(&sandbox, &[], count), "2");
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
        "./t1:/volume-inside",
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
fn a_run_starts_where_it_is_told_to() {
    let Some(sandbox) = boxed("[run]\nworkdir = '/usr'\ncommand = ['pwd']\n") else {
        return;
    };
    assert_eq!(sandbox.mk(["run", "box"]).ok().stdout, "/usr\n");
    assert_eq!(says(&sandbox, &["-w", "/etc"], "pwd"), "/etc");
    sandbox.write("t1/f", "");
    assert_eq!(
        says(&sandbox, &["-v", "./t1:/src", "-w", "/src"], "pwd; ls"),
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
        &["--dry-run", "-v", "./t1:/mnt:ro", "--tmpfs", "/memory"],
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
