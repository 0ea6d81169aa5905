use std::time::Instant;

use tar::EntryType;

use super::{Ground, SECRET, hit};
use crate::harness::archive::Item;
use crate::harness::needs;

/// What may stand where something else belongs.
const SHAPES: [&str; 6] = ["link", "file link", "way up", "open file", "fifo", "file"];

fn shaped<'a>(shape: &str, path: &'a str, targets: &'a [String; 4]) -> Item<'a> {
    match shape {
        "link" => Item::symlink(path, &targets[0]),
        "file link" => Item::symlink(path, &targets[1]),
        "way up" => Item::symlink(path, &targets[2]),
        "open file" => Item::symlink(path, &targets[3]),
        "fifo" => Item::new(EntryType::Fifo, path).mode(0o666),
        _ => Item::file(path, b"not what it should be").mode(0o777),
    }
}

/// Where links lead: the canary's folder, its file, the folder by way of the root, a file that mk may have open.
fn targets(ground: &Ground) -> [String; 4] {
    let folder = ground.canary();
    [
        folder.clone(),
        format!("{folder}/secret"),
        format!("../../../../../../../..{folder}"),
        "/proc/self/fd/3".into(),
    ]
}

/// What a container must find, however its image is made.
const SOUND: &str = "stat -c '%F %t:%T' /dev/null; stat -f -c %T /proc /sys /dev/pts /dev/shm; cat /proc/1/comm; \
                     [ -p /dev/ptmx ] || echo terminals; echo x >/dev/null; cat /dev/null; \
                     [ -c /dev/console ] || [ ! -e /dev/console ] && echo console";
const AS_IT_SHOULD: &str =
    "character special file 1:3\nproc\nsysfs\ndevpts\ntmpfs\nmk-init\nterminals\nconsole\n";

/// Runs `name`; either mk refuses it or the container is as it should be, and the host is as it was.
#[track_caller]
fn is_sound_or_refused(ground: &Ground, name: &str, options: &[&str], what: &str) -> bool {
    let begin = Instant::now();
    let output = ground.mk(&[&["run", name], options, &["/bin/busybox", "sh", "-c", SOUND]].concat());
    assert!(begin.elapsed() < super::PATIENCE, "{what}: {output}");
    match output.code {
        Some(0) => {
            // `statfs` has no name for what BusyBox does not know.
            let printed = output.stdout.replace("UNKNOWN", "devpts");
            assert_eq!(printed, AS_IT_SHOULD, "{what}: {output}");
        }
        Some(125) => assert!(output.stderr.starts_with("error: "), "{what}: {output}"),
        _ => panic!("{what}: {output}"),
    }
    assert!(!format!("{output}").contains(SECRET), "{what}: {output}");
    ground.is_untouched(what);
    output.code == Some(0)
}

#[test]
fn places_that_mk_fills_are_what_they_should_be_whatever_the_image_has_there() {
    let Some(ground) = Ground::bare() else { return };
    let targets = targets(&ground);
    let inner = [
        "dev/null",
        "dev/console",
        "dev/ptmx",
        "dev/pts",
        "dev/shm",
        "dev/tty",
        "proc/self",
        "sys/firmware",
    ];
    for shape in SHAPES {
        let name = format!("inner-{}", shape.replace(' ', "-"));
        let items: Vec<Item<'_>> = inner.map(|path| shaped(shape, path, &targets)).into();
        ground.image(&name, &items, "");
        assert!(
            is_sound_or_refused(&ground, &name, &[], shape),
            "{shape}: what is covered anyway was refused"
        );
        for place in ["dev", "proc", "sys", "tmp", "run", "dev/pts/ptmx"] {
            let name = format!("{}-{}", place.replace('/', "-"), shape.replace(' ', "-"));
            ground.image(&name, &[shaped(shape, place, &targets)], "");
            let what = format!("/{place} as {shape}");
            let ran = is_sound_or_refused(&ground, &name, &[], &what);
            // A link where the kernel's own filesystems belong is refused, not followed.
            assert!(
                !(ran && matches!(place, "dev" | "proc" | "sys")),
                "{what} was accepted"
            );
        }
    }
    ground.sandbox.verify();
}

#[test]
fn control_what_follows_links_by_name_is_led_out_by_them() {
    let Some(ground) = Ground::bare() else { return };
    let targets = targets(&ground);
    let items = [
        shaped("link", "proc", &targets),
        Item::folder("dev/"),
        shaped("file link", "dev/console", &targets),
        shaped("file link", "dev/null", &targets),
    ];
    ground.image("box", &items, "");
    let output = ground.naive(
        "box",
        "mount --bind \"$ROOT/dev/null\" \"$ROOT/etc/shadow\" && cat \"$ROOT/etc/shadow\"\n\
         mount -t tmpfs out \"$ROOT/proc\" && grep -o \"$CANARY\" /proc/self/mountinfo && umount \"$ROOT/proc\"\n\
         : >\"$ROOT/dev/console\"; [ -s \"$CANARY/secret\" ] || echo emptied",
    );
    // The mask's source, the place of a mount, and the console, in this order.
    hit(&output, SECRET);
    hit(&output, &ground.canary());
    hit(&output, "emptied");
}

#[test]
fn volumes_over_the_kernels_places_lead_nowhere() {
    let Some(ground) = Ground::new(&[], "") else {
        return;
    };
    let hostile = ground.sandbox.work().join("hostile");
    for folder in ["", "sys", "sys/kernel", "self", "self/attr", "1", "pts"] {
        fs_err::create_dir_all(hostile.join(folder)).unwrap();
    }
    let secret = format!("{}/secret", ground.canary());
    let names = [
        "null",
        "console",
        "ptmx",
        "tty",
        "kcore",
        "keys",
        "sysrq-trigger",
        "sys/kernel/hostname",
        "self/uid_map",
        "self/attr/exec",
        "self/oom_score_adj",
        "self/exe",
        "pts/ptmx",
        "1/exe",
    ];
    for name in names {
        fs_err::os::unix::fs::symlink(&secret, hostile.join(name)).unwrap();
    }
    for target in ["/dev", "/proc", "/sys", "/proc/self", "/dev/pts", "/proc/sys"] {
        let volume = format!("./hostile:{target}");
        for options in [
            &["-v", &volume][..],
            &["-v", &volume, "--hostname", "other", "-w", "/etc"],
            &["-v", &volume, "--read-only", "-u", "0:0"],
        ] {
            let output = ground.sh(
                options,
                "cat /dev/console /proc/kcore /proc/self/exe | head -c 300; true",
            );
            assert!(matches!(output.code, Some(0 | 125 | 126 | 127)), "{output}");
            assert!(!output.stdout.contains(SECRET), "{output}");
            assert!(!output.stderr.contains("names a volume"), "{output}");
            ground.is_untouched(target);
        }
    }
}

#[test]
fn control_what_writes_settings_by_name_writes_where_a_volume_says() {
    let Some(ground) = Ground::new(&[], "") else {
        return;
    };
    // The place of a setting, and of a process's attribute, below a `/proc` that the image's side controls.
    let output = ground.naive(
        "box",
        "mount -t tmpfs fake \"$ROOT/proc\" && mkdir -p \"$ROOT/proc/sys/kernel\" \"$ROOT/proc/self/attr\"\n\
         ln -s \"$CANARY/secret\" \"$ROOT/proc/sys/kernel/hostname\"\n\
         ln -s \"$CANARY/attribute\" \"$ROOT/proc/self/attr/exec\"\n\
         echo other >\"$ROOT/proc/sys/kernel/hostname\"; cat \"$CANARY/secret\"\n\
         echo label >\"$ROOT/proc/self/attr/exec\"; cat \"$CANARY/attribute\"",
    );
    hit(&output, "other\nlabel");
}

#[test]
fn nothing_is_written_into_proc_by_a_run_once_the_containers_own_is_there() {
    let Some(ground) = Ground::new(&[], "") else {
        return;
    };
    if !needs::is_root() && needs::has_ids() {
        // Under strace(1) the programs that map ids have no privileges.
        return needs::skipped("no subordinate ids, or root");
    }
    let Some(strace) = needs::program("strace") else {
        return;
    };
    let trace = ground.sandbox.work().join("trace");
    let words = ["run", "box", "--hostname", "other", "-w", "/etc", "true"];
    let output = ground.mk_with(&words, |mk| {
        let mut traced = std::process::Command::new(strace);
        traced.args([
            "-f",
            "-e",
            "trace=open,openat,openat2,creat,move_mount,pivot_root,execve",
            "-o",
        ]);
        traced.arg(&trace).arg(mk.get_program()).args(mk.get_args());
        traced.envs(mk.get_envs().filter_map(|(name, value)| Some((name, value?))));
        traced.current_dir(ground.sandbox.work());
        *mk = traced;
    });
    output.ok();
    let text = fs_err::read_to_string(trace).unwrap();
    let inside = text.split_once("move_mount").map(|(_, rest)| rest).unwrap();
    let ours = inside.rsplit_once("execve(").map(|(before, _)| before).unwrap();
    for line in ours.lines() {
        let writes = line.contains("O_WRONLY") || line.contains("O_RDWR") || line.contains("creat(");
        // A relative name is one of mk's own, below a folder that nobody else can reach.
        assert!(
            !(writes && line.contains("proc")),
            "mk writes into the container's /proc: {line}"
        );
    }
    assert!(text.contains("pivot_root"), "{text}");
}

/// Images whose account files are not files, or have no end.
#[test]
fn account_files_that_are_none_or_have_no_end_keep_nobody_waiting() {
    let Some(ground) = Ground::bare() else { return };
    let secret = format!("{}/secret", ground.canary());
    // Who is root by this file of the host's must stay unknown.
    fs_err::write(&secret, "ghost:x:0:0::/:/bin/sh\n").unwrap();
    let huge = vec![b'#'; 3 << 20];
    for path in ["etc/passwd", "etc/group"] {
        let shapes = [
            ("fifo", Item::new(EntryType::Fifo, path)),
            ("link", Item::symlink(path, &secret)),
            ("zero", Item::symlink(path, "/dev/zero")),
            ("self", Item::symlink(path, "passwd")),
            ("folder", Item::folder(path)),
            ("huge", Item::file(path, &huge)),
        ];
        for (shape, item) in shapes {
            let name = format!("{}-{shape}", path.replace('/', "-"));
            ground.image(&name, &[item], "");
            let begin = Instant::now();
            for user in ["ghost", "root:ghost", "0"] {
                let output = ground.mk(&["run", &name, "-u", user, "id", "-u"]);
                assert!(
                    matches!(output.code, Some(0 | 125)),
                    "{shape} {path} as {user}: {output}"
                );
                if output.code == Some(0) {
                    assert_eq!(
                        (user, output.stdout.as_str()),
                        ("0", "0\n"),
                        "{shape} {path}: {output}"
                    );
                }
            }
            assert!(
                begin.elapsed() < super::PATIENCE / 2,
                "{shape} {path} kept mk waiting"
            );
        }
    }
}

#[test]
fn control_what_reads_accounts_by_name_waits_for_ever_and_reads_the_hosts() {
    let Some(ground) = Ground::bare() else { return };
    let secret = format!("{}/secret", ground.canary());
    let items = [
        Item::new(EntryType::Fifo, "etc/passwd"),
        Item::symlink("etc/group", &secret),
    ];
    ground.image("box", &items, "");
    let output = ground.naive(
        "box",
        "timeout 1 cat \"$ROOT/etc/passwd\"; echo waited with $?; cat \"$ROOT/etc/group\"",
    );
    hit(&output, "waited with 124");
    hit(&output, SECRET);
}

#[test]
fn files_that_mk_places_go_into_the_container_and_never_through_its_links() {
    let Some(ground) = Ground::bare() else { return };
    let targets = targets(&ground);
    let files = ["etc/hosts", "etc/hostname", "etc/resolv.conf"];
    for shape in SHAPES {
        let name = format!("conf-{}", shape.replace(' ', "-"));
        let items: Vec<Item<'_>> = files.map(|path| shaped(shape, path, &targets)).into();
        ground.image(&name, &items, "");
        for options in [&[][..], &["--hostname", "other"], &["--network", "host"]] {
            let words = [&["run", &name], options, &["cat", "/etc/hosts", "/etc/hostname"]].concat();
            let output = ground.mk(&words).ok();
            assert!(output.stdout.contains("127.0.0.1"), "{shape}: {output}");
            ground.is_untouched(shape);
        }
    }
    // Hard links to a file of the image: what is written to one name in a run must not show in the other, or later.
    ground.image(
        "hard",
        &[
            Item::file("etc/kept", b"kept\n"),
            Item::hard_link("etc/hosts", "etc/kept"),
        ],
        "",
    );
    let script = "echo gone >/etc/hosts; echo gone >>/etc/resolv.conf; cat /etc/kept";
    assert_eq!(
        ground.mk(&["run", "hard", "sh", "-c", script]).ok().stdout,
        "kept\n"
    );
    assert_eq!(
        ground.mk(&["run", "hard", "cat", "/etc/kept"]).ok().stdout,
        "kept\n"
    );
    // `/etc` itself as a link out.
    ground.image("etc", &[shaped("link", "etc", &targets)], "");
    let output = ground.mk(&["run", "etc", "/bin/cat", "/etc/hosts"]);
    assert!(matches!(output.code, Some(0 | 125)), "{output}");
    ground.is_untouched("/etc as a link");
    ground.sandbox.verify();
}

#[test]
fn control_what_places_files_by_name_writes_through_links() {
    let Some(ground) = Ground::bare() else { return };
    let secret = format!("{}/secret", ground.canary());
    let items = [
        Item::symlink("etc/hosts", &secret),
        Item::file("etc/kept", b"kept\n"),
        Item::hard_link("etc/hostname", "etc/kept"),
    ];
    ground.image("box", &items, "");
    let output = ground.naive(
        "box",
        "echo placed >\"$ROOT/etc/hosts\"; cat \"$CANARY/secret\"; echo renamed >\"$ROOT/etc/hostname\"; cat \"$ROOT/etc/kept\"",
    );
    hit(&output, "placed\nrenamed");
}

#[test]
fn a_working_folder_that_leads_out_is_inside_or_refused() {
    let Some(ground) = Ground::bare() else { return };
    let targets = targets(&ground);
    for shape in SHAPES {
        let name = format!("start-{}", shape.replace(' ', "-"));
        ground.image(
            &name,
            &[shaped(shape, "srv", &targets)],
            "[run]\nworkdir = '/srv'\n",
        );
        for workdir in ["/srv", "/srv/.", "/srv/secret", "/srv/../srv"] {
            let output = ground.mk(&["run", &name, "-w", workdir, "sh", "-c", "pwd; cat secret"]);
            assert!(
                matches!(output.code, Some(1 | 125)),
                "{shape} {workdir}: {output}"
            );
            assert!(!output.stdout.contains(SECRET), "{shape} {workdir}: {output}");
        }
        let output = ground.mk(&["run", &name, "cat", "secret"]);
        assert!(!output.stdout.contains(SECRET), "{shape}: {output}");
    }
}

#[test]
fn control_a_working_folder_by_name_leads_out() {
    let Some(ground) = Ground::bare() else { return };
    let folder = ground.canary();
    ground.image("box", &[Item::symlink("srv", &folder)], "");
    hit(&ground.naive("box", "cd \"$ROOT/srv\" && cat secret"), SECRET);
}
