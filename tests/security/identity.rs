use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use super::{Ground, SECRET, attacker, hit, own_mounts, program};
use crate::harness::archive::Item;
use crate::harness::needs;

/// Root by a name of digits, and by a number that is one more than an id can be.
const PASSWD: &[u8] = b"root:x:0:0::/root:/bin/sh\n1000:x:0:0::/:/bin/sh\n4294967296:x:0:0::/:/bin/sh\n-1:x:0:0::/:/bin/sh\n\
    over:x:4294967296:0::/:/bin/sh\nminus:x:-1:-1::/:/bin/sh\nnone:x:4294967295:0::/:/bin/sh\nhex:x:0x0:0::/:/bin/sh\n";

#[test]
fn users_that_overflow_or_are_named_like_numbers_are_not_root() {
    let Some(ground) = Ground::new(&[Item::file("etc/passwd", PASSWD)], "") else {
        return;
    };
    for user in [
        "4294967296",
        "18446744073709551616",
        "-1",
        "4294967295",
        "+0",
        "0x0",
        " 0",
        "0 ",
        "",
        ":",
        "0:",
        ":0",
        "-0",
        "0:4294967296",
        "0:-1",
        "over",
        "minus",
        "none",
        "hex",
        "root:4294967296",
    ] {
        let output = ground.mk(&["run", "box", &format!("--user={user}"), "id", "-u"]);
        assert_eq!(output.code, Some(125), "{user:?} was accepted: {output}");
        assert_eq!(output.stdout, "", "{user:?}: {output}");
    }
    // All digits are a number, whatever names the image has.
    let output = ground.mk(&["run", "box", "-u", "1000", "id", "-u"]);
    if needs::has_ids() {
        assert_eq!(output.ok().stdout, "1000\n");
    } else {
        assert_eq!(output.code, Some(125), "{output}");
    }
}

#[test]
fn control_names_before_numbers_and_numbers_cut_short_are_root() {
    let Some(ground) = Ground::new(&[Item::file("etc/passwd", PASSWD)], "") else {
        return;
    };
    if !needs::root() {
        return;
    }
    // chroot(1) asks the image's passwd first.
    hit(
        &ground.naive(
            "box",
            "chroot --userspec=1000 \"$ROOT\" /bin/id -u | sed 's/^/uid /'",
        ),
        "uid 0",
    );
    // What C programs do with a number that is too large for an id.
    let parsed = "4294967296".parse::<u64>().unwrap() as u32;
    assert_eq!(parsed, 0);
}

#[test]
fn a_bare_name_takes_nothing_from_the_callers_environment() {
    let Some(ground) = Ground::new(&[], "") else {
        return;
    };
    ground.sandbox.write("env", "PLANTED\n");
    for options in [
        &["-e", "PLANTED"][..],
        &["--env", "PLANTED"],
        &["--env-file", "env"],
        &["-e", "=PLANTED"],
    ] {
        let words = [&["run", "box"], options, &["env"]].concat();
        let output = ground.mk_with(&words, |mk| _ = mk.env("PLANTED", SECRET));
        assert_eq!(output.code, Some(125), "{output}");
        assert!(!format!("{output}").contains(SECRET), "{output}");
    }
    let output = ground.mk_with(&["run", "box", "env"], |mk| _ = mk.env("PLANTED", SECRET));
    assert!(!output.ok().stdout.contains("PLANTED"));
}

#[test]
fn control_a_runner_that_changes_roots_only_passes_the_environment_on() {
    let Some(ground) = Ground::new(&[], "") else {
        return;
    };
    let output = ground.naive(
        "box",
        &format!("export PLANTED='{SECRET}'; chroot \"$ROOT\" /usr/bin/env"),
    );
    hit(&output, SECRET);
}

/// Calls `program` with every capability inheritable and ambient.
fn with_inherited(program: &Command) -> Command {
    let mut command = own_mounts();
    command.args([
        "setpriv",
        "--inh-caps=+chown,+net_raw",
        "--ambient-caps=+chown,+net_raw",
    ]);
    command.arg(program.get_program()).args(program.get_args());
    command.envs(
        program
            .get_envs()
            .filter_map(|(name, value)| Some((name, value?))),
    );
    if let Some(folder) = program.get_current_dir() {
        command.current_dir(folder);
    }
    command
}

#[test]
fn capabilities_that_the_caller_passes_on_are_not_passed_on() {
    let Some(ground) = Ground::new(&[], "") else {
        return;
    };
    if needs::program("setpriv").is_none() {
        return;
    }
    for options in [&[][..], &["--as-pid1"]] {
        let words = [
            // An image of its own: the store of a user with subordinate ids is for no other kind of root.
            &["run", "--store", "other", "./box.toml"],
            options,
            &["grep", "-e", "^CapInh", "-e", "^CapAmb", "/proc/self/status"],
        ]
        .concat();
        let output = ground.mk_with(&words, |mk| *mk = with_inherited(mk)).ok();
        assert_eq!(
            output.stdout, "CapInh:\t0000000000000000\nCapAmb:\t0000000000000000\n",
            "{output}"
        );
    }
    // The control: the same caller, and a runner that only changes roots.
    let control = ground.naive(
        "box",
        "mount --rbind /proc \"$ROOT/proc\"; setpriv --inh-caps=+chown --ambient-caps=+chown chroot \"$ROOT\" /bin/grep \
         CapInh /proc/self/status | grep -v 0000000000000000 && echo inherited",
    );
    hit(&control, "inherited");
}

#[test]
fn set_user_id_files_give_nothing_inside_and_cannot_be_reached_from_outside() {
    if !needs::root() {
        return;
    }
    let Some(ground) = Ground::bare() else { return };
    let bytes = fs_err::read(attacker()).unwrap();
    ground.image("box", &[Item::file("bin/who", &bytes).mode(0o4755)], "");
    let words = [
        &["run", "box", "-u", "1000", "-e", "MK_ATTACK=who", "/bin/who"][..],
        &program::WORDS,
    ]
    .concat();
    let output = ground.mk(&words).ok();
    hit(&output, "effective user 1000");
    // The same for a file of a volume, also where new privileges are not ruled out.
    fs_err::copy(attacker(), ground.sandbox.work().join("who")).unwrap();
    fs_err::set_permissions(
        ground.sandbox.work().join("who"),
        PermissionsExt::from_mode(0o4755),
    )
    .unwrap();
    let flags = ground
        .sh(
            &["-v", "./who:/bin/volume"],
            "grep ' /bin/volume ' /proc/self/mountinfo",
        )
        .ok();
    assert!(flags.stdout.contains("nosuid"), "{flags}");
    // Another user of the machine, who knows where the file is.
    let inside = ground.sandbox.rootfs("box").join("bin/who");
    assert_eq!(
        fs_err::metadata(ground.sandbox.store())
            .unwrap()
            .permissions()
            .mode()
            & 0o7777,
        0o700
    );
    let open = |path: &std::path::Path| {
        for folder in path
            .ancestors()
            .skip(1)
            .filter(|folder| folder.starts_with(ground.sandbox.work()))
        {
            fs_err::set_permissions(folder, PermissionsExt::from_mode(0o755)).unwrap();
        }
    };
    let as_other = |path: &std::path::Path| {
        let mut command = Command::new("/usr/bin/setpriv");
        command
            .args(["--reuid=54321", "--regid=54321", "--clear-groups"])
            // setpriv(1) itself still has root's capabilities when it looks for the program.
            .args(["/bin/sh", "-c", "exec \"$0\" \"$@\""])
            .arg(path)
            .args(program::WORDS);
        command.env_clear().env("MK_ATTACK", "who");
        let output = command.output().unwrap();
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    };
    fs_err::set_permissions(
        ground.sandbox.store().parent().unwrap(),
        PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    let told = as_other(&inside);
    assert!(told.contains("Permission denied"), "{told}");
    // The control: a runner that keeps its images where everybody may look.
    let copy = ground.sandbox.write("images/box/bin/who", &bytes);
    fs_err::set_permissions(&copy, PermissionsExt::from_mode(0o4755)).unwrap();
    open(&copy);
    let told = as_other(&copy);
    assert!(
        told.contains("effective user 0"),
        "the naive set-up was not hit: {told}"
    );
}

#[test]
fn device_nodes_of_images_and_volumes_open_nothing() {
    if !needs::root() {
        return;
    }
    let mut memory = Item::new(tar::EntryType::Char, "srv/zero").mode(0o666);
    memory.device = (1, 5);
    let Some(ground) = Ground::new(&[memory], "") else {
        return;
    };
    let node = ground.sandbox.work().join("nodes");
    fs_err::create_dir(&node).unwrap();
    let made = Command::new("/usr/bin/mknod")
        .arg(node.join("zero"))
        .args(["c", "1", "5"])
        .status()
        .unwrap();
    assert!(made.success());
    assert!(
        !ground.sandbox.rootfs("box").join("srv/zero").exists(),
        "a node of an archive was made"
    );
    let script = "head -c 4 /n/zero | wc -c; mknod /tmp/zero c 1 5; mknod /zero c 1 5; ls -A /tmp; ls /srv | grep zero";
    let output = ground.sh(&["-v", "./nodes:/n"], script);
    assert_eq!(output.stdout, "0\n", "{output}");
    // The control: a bind mount as mount(8) makes it.
    let control = ground.naive("box", "mkdir \"$ROOT/n\"; mount --bind nodes \"$ROOT/n\"; chroot \"$ROOT\" /bin/busybox head -c 4 /n/zero | wc -c");
    hit(&control, "4");
}
