//! Stores on other filesystems than the machine's: the same digests, and whatever mk does with a store works.

use std::process::Command;

use crate::harness::chance::Chance;
use crate::harness::{Output, Sandbox, needs};
use crate::run::boxed;

/// Of each kind of file, by each kind of step.
const RECIPE: &str = r#"
[[step]]
unpack = 'rootfs.tar.gz'
[[step]]
run = 'mkdir -m 1777 /made; echo a >/made/a; ln /made/a /made/b; ln -s a /made/c; mkfifo /made/p; rm -r /var'
[[step]]
run = 'chown 5:6 /made/a; chmod 4755 /made/a; seq 5000 >/made/numbers; mv /home /house'
[[step]]
user = 'app'
uid = 1000
"#;

/// All that is done with a store: built, built again, run, changed, verified, exported, and cleared.
const USE: &str = r#"
mk=$0
"$mk" build -q all.toml
! "$mk" build all.toml --progress json 2>&1 | grep '"cached":false' >&2
[ "$("$mk" run all sh -c 'echo x >>/made/numbers; tail -n 2 /made/numbers; cat /made/b' | tr '\n' ' ')" = '5000 x a ' ]
"$mk" verify >&2
"$mk" export all -o - | cksum
"$mk" inspect all --tree | cksum
"$mk" tag all other && "$mk" rm all other && "$mk" gc --keep 0 >&2
[ -z "$(find "$MK_STORE/objects" "$MK_STORE/trees" "$MK_STORE/rootfs" -type f)" ]
"#;

/// Runs a script in a mount namespace of its own, with mk as `$0` and a folder `m` to mount something on.
fn script(sandbox: &Sandbox, store: &str, text: &str) -> Output {
    let mk = sandbox.command();
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-ec", text]).arg(mk.get_program());
    command.current_dir(sandbox.work()).env_clear();
    let envs = mk.get_envs().filter_map(|(name, value)| Some((name, value?)));
    command
        .envs(envs)
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("MK_STORE", sandbox.work().join(store));
    sandbox.output(text, &mut command)
}

fn scene() -> Option<Sandbox> {
    if !needs::root() {
        return None;
    }
    let sandbox = boxed("")?;
    fs_err::create_dir(sandbox.work().join("m")).unwrap();
    sandbox.write("all.toml", RECIPE);
    Some(sandbox)
}

#[test]
fn the_digests_are_those_of_every_other_filesystem_and_everything_works() {
    let Some(sandbox) = scene() else { return };
    let expected = script(&sandbox, "here", USE).ok().stdout;
    assert_eq!(expected.lines().count(), 3, "{expected}");
    let image = |kind: &str| {
        format!("truncate -s 400M {kind}.img; mkfs.{kind} -q {kind}.img >&2; mount -o loop {kind}.img m")
    };
    let mut places = vec![
        ("tmpfs", "mount -t tmpfs tmpfs m".to_owned(), "m/store"),
        (
            "a bind mount",
            "mkdir other; mount --bind other m".to_owned(),
            "m/store",
        ),
        (
            "overlayfs",
            "mount -t tmpfs tmpfs m; mkdir m/lower m/upper m/work m/all
             mount -t overlay -o lowerdir=m/lower,upperdir=m/upper,workdir=m/work overlay m/all"
                .to_owned(),
            "m/all/store",
        ),
    ];
    for kind in ["ext4", "xfs", "btrfs"] {
        // Where the kernel has it and there is a program that makes one.
        let known = fs_err::read_to_string("/proc/filesystems").unwrap();
        match known.contains(kind) && needs::program(&format!("mkfs.{kind}")).is_some() {
            true => places.push((kind, image(kind), "m/store")),
            false => needs::skipped(kind),
        }
    }
    for (place, mount, store) in places {
        let got = script(&sandbox, store, &format!("{mount}\n{USE}"));
        assert_eq!(got.code, Some(0), "{place}: {got}");
        assert_eq!(got.stdout, expected, "{place}: {got}");
    }
    let one = USE.replacen("mk=$0", "mk=$0; taskset -cp 0 $$ >/dev/null", 1);
    assert_eq!(
        script(&sandbox, "one", &one).ok().stdout,
        expected,
        "with one processor"
    );
}

#[test]
fn a_store_that_is_moved_is_the_same_store() {
    let Some(sandbox) = boxed("") else { return };
    let before = sandbox.build("box.toml");
    let (store, other) = (sandbox.store(), sandbox.work().join("moved"));
    fs_err::rename(&store, &other).unwrap();
    let moved = |words: &[&str]| {
        sandbox.mk_with(words, |command| {
            command.env("MK_STORE", &other);
        })
    };
    assert_eq!(moved(&["verify"]).code, Some(0));
    assert_eq!(moved(&["run", "box", "echo", "there"]).ok().stdout, "there\n");
    let built = moved(&["build", "box.toml", "--progress", "json"]).ok();
    assert!(!built.stderr.contains("\"cached\":false"), "{built}");
    assert!(built.stdout.contains(&before.image), "{built}");
    fs_err::rename(&other, &store).unwrap();
    sandbox.verify();
}

#[test]
fn a_disk_that_is_full_at_any_point_of_a_build_damages_nothing() {
    let Some(sandbox) = scene() else { return };
    let expected = script(&sandbox, "here", "\"$0\" build -q all.toml").ok().stdout;
    let mut chance = Chance::new();
    let mut full = 0;
    for round in 0..25 {
        // The image takes some 3 MiB, and its archive another.
        let size = 100 + chance.below(5000);
        let text = format!(
            "mount -t tmpfs -o size={size}k tmpfs m
             if \"$0\" build -q all.toml >out 2>err; then echo enough; else echo full; grep -q full err || cat err; fi
             mount -o remount,size=100m m
             \"$0\" verify >&2; \"$0\" build -q all.toml; \"$0\" verify >&2
             find m/store m/store/rootfs m/store/trash -maxdepth 1 -name 'staging*'"
        );
        let got = script(&sandbox, "m/store", &text);
        let what = format!("round {round}, {size} KiB, MK_TEST_SEED={}: {got}", chance.seed);
        let (first, rest) = got.stdout.split_once('\n').expect(&what);
        full += usize::from(first == "full");
        assert_eq!((got.code, rest), (Some(0), &*expected), "{what}");
    }
    assert!(full >= 5, "only {full} of 25 disks were full");
}
