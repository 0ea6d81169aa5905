//! Stores on other filesystems than the machine's: the same digests, and whatever mk does with a store works.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Instant;

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

/// A build is killed, or finds the disk full, or both; then there is room, and others use the store. Says first how the build ended,
/// and then only what should not be.
const BEFALLEN: &str = r#"
mk=$0; store=$PWD/m/store
mount -t tmpfs -o size=${SIZE}k tmpfs m
"$mk" build -q all.toml --store "$store" >out 2>err &
build=$!
if [ "$KILL" != never ]; then sleep "$KILL"; kill -9 $build 2>/dev/null || true; fi
if wait $build 2>/dev/null; then echo enough
elif grep -q 'is full' err; then echo full
elif [ -s err ]; then cat err
else echo killed; fi
mount -t tmpfs -o remount,size=100m tmpfs m
# Its processes have this store on their command line, and the commands of its steps a number.
busy() { pgrep -f "build -q all.toml --store $store" || pgrep -f "sleep 0[.]0$NUMBER"; }
tries=0
while busy >/dev/null && [ $tries -lt 200 ]; do tries=$((tries + 1)); sleep 0.05; done
busy || true
"$mk" verify --store "$store" >&2 || echo damaged
left() {
    # A build that was killed early has not made them yet.
    for folder in "$store" "$store/rootfs" "$store/trash"; do [ -d "$folder" ] && find "$folder" -maxdepth 1 -name 'staging*'; done
    [ ! -d "$store/scratch" ] || ls -A "$store/scratch"
}
left
grep " $store" /proc/self/mountinfo || true
"$mk" build -q all.toml --store "$store"
"$mk" verify --store "$store" >&2 || echo damaged
"$mk" run --store "$store" all tail -n 1 /numbers /more
left
"#;

/// How many builds are befallen. `MK_TEST_STRESS` makes them a hundred.
fn rounds() -> usize {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is how a test is told to be thorough"
    )]
    let thorough = std::env::var_os("MK_TEST_STRESS").is_some();
    if thorough { 100 } else { 20 }
}

#[test]
#[expect(
    clippy::print_stdout,
    reason = "what it did at random is part of what it found"
)]
fn a_build_that_is_killed_or_finds_the_disk_full_at_any_point_leaves_nothing() {
    let Some(sandbox) = boxed("") else { return };
    if needs::program("pgrep").is_none() {
        return;
    }
    fs_err::create_dir(sandbox.work().join("m")).unwrap();
    let number = std::process::id();
    sandbox.write(
        "all.toml",
        format!(
            "[[step]]\nunpack = 'rootfs.tar.gz'\n\
             [[step]]\nrun = 'seq 50000 >/numbers; sleep 0.0{number}; rm -r /var; mkdir -m 1777 /var'\n\
             [[step]]\nwrite = '/written'\ntext = 'x'\n\
             [[step]]\nrun = 'seq 70000 >/more; ln /more /again; sleep 0.0{number}; chmod 4755 /more'\n"
        ),
    );
    let mut chance = Chance::new();
    let begin = Instant::now();
    let expected = script_as_anyone(&sandbox, "100000", "never", number).ok().stdout;
    let duration = begin.elapsed();
    let (first, expected) = expected.split_once('\n').unwrap();
    assert_eq!((first, expected.lines().count()), ("enough", 6), "{expected}");
    let mut ends: BTreeMap<String, usize> = BTreeMap::new();
    // How many of each it comes to is chance: it goes on until it has seen both.
    let seen = |ends: &BTreeMap<String, usize>| {
        let count = |end: &str| ends.get(end).copied().unwrap_or_default();
        count("full") >= rounds() / 10 && count("killed") >= rounds() / 10
    };
    let mut round = 0;
    while round < rounds() || (round < 5 * rounds() && !seen(&ends)) {
        round += 1;
        // The image takes some 4 MiB. Of the time that all of it took, the build is the first third.
        let (full, killed) = match chance.below(3) {
            0 => (true, false),
            1 => (false, true),
            _ => (true, true),
        };
        let size = if full { 100 + chance.below(5500) } else { 100_000 };
        let kill = match killed {
            true => format!("{:.3}", chance.moment(duration / 2).as_secs_f64()),
            false => "never".to_owned(),
        };
        let got = script_as_anyone(&sandbox, &size.to_string(), &kill, number);
        let what = format!(
            "round {round}, {size} KiB, killed after {kill}, MK_TEST_SEED={}: {got}",
            chance.seed
        );
        let (end, rest) = got.stdout.split_once('\n').expect(&what);
        assert!(["enough", "full", "killed"].contains(&end), "{what}");
        assert_eq!((got.code, rest), (Some(0), expected), "{what}");
        *ends.entry(end.to_owned()).or_default() += 1;
    }
    println!("of {round} builds: {ends:?}, MK_TEST_SEED={}", chance.seed);
    assert!(seen(&ends), "{ends:?}, MK_TEST_SEED={}", chance.seed);
}

/// Runs [`BEFALLEN`] as root of a mount namespace of its own.
fn script_as_anyone(sandbox: &Sandbox, size: &str, kill: &str, number: u32) -> Output {
    let mk = sandbox.command();
    let mut command = Command::new("unshare");
    let flags = if needs::is_root() { "-m" } else { "-Urm" };
    command.args([flags, "sh", "-ec", BEFALLEN]).arg(mk.get_program());
    command.current_dir(sandbox.work()).env_clear();
    let envs = mk.get_envs().filter_map(|(name, value)| Some((name, value?)));
    command
        .envs(envs)
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("SIZE", size)
        .env("KILL", kill)
        .env("NUMBER", number.to_string());
    sandbox.output("a build that something befalls", &mut command)
}
