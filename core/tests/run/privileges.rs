//! What a command may do and who it may be: system calls made one by one, set-user-id programs, hostile accounts.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::is_root;
use crate::sandbox::{Sandbox, say};

/// Texts that somebody might take for root: numbers that overflow to 0, or mean "leave it as it is".
pub(crate) fn numbers_that_are_no_users(sandbox: &Sandbox) {
    for user in [
        "4294967295",
        "4294967296",
        "18446744073709551616",
        "-1",
        "-0",
        "+0",
        "0x0",
        "0:4294967296",
        "0:-1",
        " 0",
        "0 ",
        "",
        ":",
        ":0",
        "0:",
    ] {
        let out = sandbox.run(["-u", user, "id", "-u"]);
        assert!(
            matches!(out.code, Some(2 | 125)) && out.stdout.is_empty(),
            "{user:?}: {out:?}"
        );
    }
    // The same numbers in the image's own file make nobody.
    let passwd = sandbox.tree().join("etc/passwd");
    let before = fs_err::read(&passwd).unwrap();
    let lines = "evil:x:4294967296:0::/:/bin/sh\nworse:x:-4294967296:0::/:/bin/sh\nworst:x::0::/:/bin/sh\n";
    fs_err::write(&passwd, [before.as_slice(), lines.as_bytes()].concat()).unwrap();
    for user in ["evil", "worse", "worst"] {
        let out = sandbox.run(["-u", user, "id", "-u"]);
        assert!(
            out.code == Some(125) && out.stdout.is_empty(),
            "{user:?}: {out:?}"
        );
    }
    fs_err::write(&passwd, before).unwrap();
}

/// An image whose passwd is not a file that can be read to its end.
pub(crate) fn hostile_accounts(sandbox: &Sandbox) {
    let etc = sandbox.tree().join("etc");
    for name in ["passwd", "group"] {
        let (file, kept) = (etc.join(name), etc.join(format!("{name}.kept")));
        fs_err::rename(&file, &kept).unwrap();
        let refused = |why: &str| {
            let begin = Instant::now();
            let out = sandbox.run(["-u", "www-data", "true"]);
            assert_eq!(out.code, Some(125), "{out:?}");
            assert!(out.stderr.contains(why) && out.stdout.is_empty(), "{out:?}");
            assert!(
                begin.elapsed() < Duration::from_secs(5),
                "{why}: {:?}",
                begin.elapsed()
            );
        };
        nix::unistd::mkfifo(&file, nix::sys::stat::Mode::S_IRUSR).unwrap();
        refused("no regular file");
        fs_err::remove_file(&file).unwrap();
        fs_err::create_dir(&file).unwrap();
        refused("no regular file");
        fs_err::remove_dir(&file).unwrap();
        fs_err::File::create(&file).unwrap().set_len(1 << 40).unwrap();
        refused("more than 1048576 bytes");
        fs_err::remove_file(&file).unwrap();
        for target in [
            "/etc/passwd",
            "../../../../../../../../etc/passwd",
            "passwd.kept",
            "/dev/zero",
        ] {
            symlink(target, &file).unwrap();
            refused("Too many symbolic links");
            fs_err::remove_file(&file).unwrap();
        }
        fs_err::rename(&kept, &file).unwrap();
    }
    let real = sandbox.tree().join("etc.kept");
    fs_err::rename(&etc, &real).unwrap();
    symlink("/etc", &etc).unwrap();
    let out = sandbox.run(["-u", "root", "true"]);
    assert!(
        out.code == Some(125) && out.stderr.contains("symbolic links"),
        "{out:?}"
    );
    fs_err::remove_file(&etc).unwrap();
    fs_err::rename(&real, &etc).unwrap();
}

/// What reaches beyond the container, or has been the way out of one. Each fails with EPERM.
const REFUSED: &str = "unshare:0x10000000 unshare:0x20000 setns clone:0x10000011 clone:0x40000011 mount umount2 \
    pivot_root open_tree move_mount mount_setattr fsopen fsconfig fsmount fspick keyctl:0:-3 keyctl:0:-4 add_key \
    request_key bpf perf_event_open kexec_load kexec_file_load init_module finit_module delete_module \
    open_by_handle_at reboot swapon settimeofday clock_settime userfaultfd io_uring_setup io_uring_enter \
    io_uring_register quotactl syslog acct kcmp pidfd_getfd process_madvise vhangup mbind move_pages \
    fanotify_init sethostname setdomainname socket:40:1 socket:38:5 socket:12:1 personality:0x0400000";

pub(crate) fn refused_calls(sandbox: &Sandbox) {
    let Some(out) = sandbox.calls(&[], REFUSED) else {
        return;
    };
    let expected: String = REFUSED
        .split_ascii_whitespace()
        .map(|call| format!("{call} 1\n"))
        .collect();
    assert_eq!(out.stdout, expected, "{out:?}");
    // No library falls back on EPERM; this is what those get that a library tries first, or that are newer than mk.
    let newer = "clone3 listns 599 100000";
    let Some(out) = sandbox.calls(&[], newer) else {
        return;
    };
    assert_eq!(out.stdout, "clone3 38\nlistns 38\n599 38\n100000 38\n", "{out:?}");
    // Threads are made with `clone3`, and with `clone` where that is not there.
    let usual = "thread getpid socket:1:1 socket:2:1 socket:16:3 personality:0xffffffff chroot:0 umask:18";
    let Some(out) = sandbox.calls(&[], usual) else {
        return;
    };
    let lines: Vec<_> = out.stdout.lines().filter(|line| !line.ends_with(" ok")).collect();
    assert_eq!(
        (lines, out.code),
        (vec!["chroot:0 14"], Some(0)),
        "EFAULT comes from the kernel: {out:?}"
    );
    let one = sandbox.shell(&[], "grep Seccomp: /proc/self/status");
    assert_eq!(one.split_ascii_whitespace().last(), Some("2"), "{one}");
}

pub(crate) fn other_abis(sandbox: &Sandbox) {
    if !cfg!(target_arch = "x86_64") {
        return;
    }
    const SIGSYS: i32 = 31;
    let Some(out) = sandbox.calls(&[], "int80") else {
        return;
    };
    assert_eq!(out.code, Some(128 + SIGSYS), "{out:?}");
    // It is the filter that ends it: without, the call works, or the kernel does not know it.
    let Some(free) = sandbox.calls(&["--unconfined"], "int80") else {
        return;
    };
    assert_ne!(free.code, Some(128 + SIGSYS), "{free:?}");
    // The same calls by their numbers of x32: not there, as on a kernel without it.
    let Some(out) = sandbox.calls(&[], "0x40000027 0x40000101 0x7fffffff") else {
        return;
    };
    assert_eq!(
        out.stdout, "0x40000027 38\n0x40000101 38\n0x7fffffff 38\n",
        "{out:?}"
    );
}

/// Programs that become root whoever executes them: one of the image, one in a volume.
pub(crate) fn setuid_programs(sandbox: &Sandbox) {
    if !is_root() {
        return say("skipped: needs root, for a file of root's with a set-user-id bit");
    }
    let program = std::env::current_exe().unwrap();
    let folder = sandbox.folder("setuid");
    for place in [sandbox.tree().join("become"), folder.join("become")] {
        fs_err::copy(&program, &place).unwrap();
        fs_err::set_permissions(&place, PermissionsExt::from_mode(0o4755)).unwrap();
    }
    let run = |more: &[&str], program: &str| {
        let options = ["-u", "33:33", "-v", "./setuid:/volume"];
        sandbox.run(options.iter().chain(more).chain(&[program, "--call", "ids"]))
    };
    let usual = run(&[], "/become");
    if usual.code == Some(126) {
        return say("skipped: needs tests that are static programs");
    }
    assert_eq!(usual.stdout, "ids 33 33\n", "{usual:?}");
    assert_eq!(run(&["--new-privileges"], "/become").stdout, "ids 33 0\n");
    assert_eq!(run(&["--new-privileges"], "/volume/become").stdout, "ids 33 33\n");
    // The filter is there all the same, and so is the bound on what such a program can have.
    let out = sandbox.run([
        "-u",
        "33:33",
        "--new-privileges",
        "/become",
        "--call",
        "unshare:0",
        "reboot",
    ]);
    assert_eq!(out.stdout, "unshare:0 1\nreboot 1\n", "{out:?}");
    let bound = sandbox.shell(
        &["-u", "33:33", "--new-privileges"],
        "grep -e CapBnd -e CapEff -e NoNewPrivs /proc/self/status",
    );
    assert_eq!(
        bound,
        "CapEff:\t0000000000000000\nCapBnd:\t00000000a00425fb\nNoNewPrivs:\t0\n"
    );
    fs_err::remove_file(sandbox.tree().join("become")).unwrap();
}

pub(crate) fn keys(sandbox: &Sandbox) {
    const OUTSIDE: &str = "keyctl:0:-3";
    // Neither those of the session (-3) nor those of the user (-4), in whose keyring every process of a user may look.
    let Some(out) = sandbox.calls(&[], "keyctl:0:-3 keyctl:0:-4:1 keyctl:5:-4:0") else {
        return;
    };
    assert_eq!(
        out.stdout, "keyctl:0:-3 1\nkeyctl:0:-4:1 1\nkeyctl:5:-4:0 1\n",
        "{out:?}"
    );
    // Without the filter there is still a session's keyring of its own.
    let own = Command::new(std::env::current_exe().unwrap())
        .args(["--call", OUTSIDE])
        .output()
        .unwrap();
    let number = |text: &str| text.trim().rsplit(' ').next().unwrap().parse::<i64>().unwrap();
    let outside = number(&String::from_utf8_lossy(&own.stdout));
    let Some(out) = sandbox.calls(&["--unconfined"], OUTSIDE) else {
        return;
    };
    let inside = number(&out.stdout);
    if [1, 38].contains(&inside) {
        return say("skipped: needs a kernel with keys");
    }
    assert_ne!(inside, outside, "{out:?}");
}
