//! Each race goes on for seconds: a thread exchanges two names as fast as it can (`renameat2`, `RENAME_EXCHANGE`) while
//! runs look at them.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::{Ground, SECRET, attacker, program};
use crate::harness::{Output, needs};

/// How long each race lasts.
const LONG: Duration = Duration::from_secs(5);

/// How many commands have to be executed in front of the hunter.
const ENOUGH: usize = 5;

/// A thread that exchanges two names until it is dropped.
struct Swapper {
    stop: Arc<AtomicBool>,
    swaps: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Swapper {
    fn start(one: &Path, other: &Path) -> Self {
        let (stop, swaps) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (one, other) = (one.to_owned(), other.to_owned());
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&swaps));
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                renameat_with(CWD, &one, CWD, &other, RenameFlags::EXCHANGE).unwrap();
                counted.fetch_add(1, Ordering::Relaxed);
            }
        });
        Self {
            stop,
            swaps,
            thread: Some(thread),
        }
    }
}

impl Drop for Swapper {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A folder `shared/sub` that changes places with a link to `target`, and the thread that does it.
fn swapped(ground: &Ground, target: &str) -> Swapper {
    let shared = ground.sandbox.work().join("shared");
    ground.sandbox.write("payload/file", "payload");
    // Each race begins anew: the last one left the two names either way round.
    let _ = fs_err::remove_dir_all(&shared);
    ground.sandbox.write("shared/sub/mine", "mine");
    fs_err::os::unix::fs::symlink(target, shared.join("link")).unwrap();
    Swapper::start(&shared.join("sub"), &shared.join("link"))
}

/// Makes runs until the time is over. Some may be refused, where mk met a link; not all.
fn race(ground: &Ground, swapper: &Swapper, mut run: impl FnMut(usize) -> Output) {
    let (begin, mut runs, mut refused) = (Instant::now(), 0, 0);
    let busy = |done: usize| done < 2 * ENOUGH && begin.elapsed() < 12 * LONG;
    // A busy machine is no reason for fewer of them.
    while begin.elapsed() < LONG || busy(runs - refused) {
        let output = run(runs);
        assert!(!format!("{output}").contains(SECRET), "{output}");
        assert!(
            matches!(output.code, Some(0 | 1 | 2 | 125 | 126 | 127)),
            "{output}"
        );
        ground.is_untouched("a race");
        runs += 1;
        refused += usize::from(output.code == Some(125));
    }
    let swaps = swapper.swaps.load(Ordering::Relaxed);
    assert!(
        swaps > 1000 && runs - refused >= 2 * ENOUGH,
        "{swaps} swaps in {runs} runs, {refused} of them refused, are no race"
    );
}

#[test]
fn a_place_that_changes_while_volumes_are_mounted_there_leads_nowhere() {
    let Some(ground) = Ground::new(&[], "") else {
        return;
    };
    let canary = ground.canary();
    for target in [canary.clone(), format!("../../../../../../../../..{canary}")] {
        let swapper = swapped(&ground, &target);
        let places = ["/a", "/dev", "/proc", "/srv/deep"];
        let kinds = [
            "-v ./payload:P/sub/x",
            "-v ./payload/file:P/sub/new",
            "--tmpfs P/sub/memory",
            "-v ./payload:P/sub/y/z:ro",
        ];
        race(&ground, &swapper, |number| {
            let place = places[number % places.len()];
            let extra = kinds[number / places.len() % kinds.len()].replace('P', place);
            let volume = format!("./shared:{place}");
            let options: Vec<&str> = ["-v", &volume].into_iter().chain(extra.split(' ')).collect();
            let script = format!(
                "cat {place}/sub/secret {place}/link/secret {place}/sub/../canary/secret; ls {place}/sub >&-; true"
            );
            ground.sh(&options, &script)
        });
    }
}

#[test]
fn control_a_mount_by_name_at_a_place_that_changes_lands_on_the_host() {
    let Some(ground) = Ground::new(&[], "") else {
        return;
    };
    let _swapper = swapped(&ground, &ground.canary());
    let output = ground.naive(
        "box",
        "mkdir \"$ROOT/a\"; mount --bind shared \"$ROOT/a\"; end=$(($(date +%s) + 15))\n\
         while [ $(date +%s) -lt $end ] && [ ! -d \"$CANARY/x\" ]; do\n\
         mkdir -p \"$ROOT/a/sub/x\" && mount --bind payload \"$ROOT/a/sub/x\" && umount \"$ROOT/a/sub/x\"; done 2>/dev/null\n\
         [ -d \"$CANARY/x\" ] && echo landed on the host",
    );
    super::hit(&output, "landed on the host");
}

#[test]
fn a_working_folder_that_changes_leads_nowhere() {
    let Some(ground) = Ground::new(&[], "") else {
        return;
    };
    let canary = ground.canary();
    let targets = [
        canary.clone(),
        format!("../../../../../../../../..{canary}"),
        "/proc/self/fd/3".into(),
    ];
    for target in targets {
        let swapper = swapped(&ground, &target);
        race(&ground, &swapper, |number| {
            let folder = ["/a/sub", "/a/link", "/a/sub/../sub"][number % 3];
            ground.sh(
                &["-v", "./shared:/a", "-w", folder],
                "cat secret ../canary/secret; true",
            )
        });
    }
}

#[test]
fn control_a_working_folder_by_name_that_changes_leads_out() {
    let Some(ground) = Ground::new(&[], "") else {
        return;
    };
    let _swapper = swapped(&ground, &ground.canary());
    let output = ground.naive(
        "box",
        "mkdir \"$ROOT/a\"; mount --bind shared \"$ROOT/a\"; end=$(($(date +%s) + 15))\n\
         while [ $(date +%s) -lt $end ]; do (cd \"$ROOT/a/sub\" && cat secret) && break; done 2>/dev/null",
    );
    super::hit(&output, SECRET);
}

/// A folder `shared/kept` that a run may write to, and `shared/theirs`, which everyone may: in their place each other's.
fn two_for_writes(ground: &Ground) -> [PathBuf; 2] {
    let shared = ground.sandbox.work().join("shared");
    let [kept, theirs] = ["kept", "theirs"].map(|name| shared.join(name));
    fs_err::create_dir_all(&kept).unwrap();
    fs_err::set_permissions(&kept, Permissions::from_mode(0o700)).unwrap();
    ground.sandbox.write("shared/theirs/upper/theirs", SECRET);
    fs_err::create_dir(theirs.join("work")).unwrap();
    fs_err::set_permissions(&theirs, Permissions::from_mode(0o777)).unwrap();
    [kept, theirs]
}

#[test]
fn a_folder_for_writes_that_changes_is_the_one_that_was_checked() {
    let Some(ground) = Ground::new(&[], "") else {
        return;
    };
    let [kept, theirs] = two_for_writes(&ground);
    let mut ways = vec![&["--scratch", "./shared/kept"][..]];
    if needs::is_root() {
        ways.push(&["--scratch", "./shared/kept", "--userns", "auto"]);
    }
    for options in ways {
        // What one kind of run has written is not for the other.
        fs_err::remove_dir_all(&kept).unwrap();
        ground.sh(options, "true").ok();
        let before = fs_err::read(kept.join("mk-scratch")).unwrap();
        let swapper = Swapper::start(&kept, &theirs);
        race(&ground, &swapper, |_| {
            ground.sh(options, "cat /theirs; echo mine >/mine; true")
        });
        drop(swapper);
        // Whichever way round they are now.
        if !kept.join("mk-scratch").exists() {
            renameat_with(CWD, &kept, CWD, &theirs, RenameFlags::EXCHANGE).unwrap();
        }
        assert_eq!(fs_err::read(kept.join("mk-scratch")).unwrap(), before);
        assert_eq!(names_in(&theirs), ["upper", "work"]);
        assert_eq!(names_in(&theirs.join("upper")), ["theirs"]);
        assert_eq!(names_in(&theirs.join("work")), [""; 0]);
    }
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs_err::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn control_a_folder_that_is_checked_and_mounted_by_name_is_another() {
    let Some(ground) = Ground::new(&[], "") else {
        return;
    };
    let [kept, theirs] = two_for_writes(&ground);
    let _swapper = Swapper::start(&kept, &theirs);
    let output = ground.naive(
        "box",
        "end=$(($(date +%s) + 15))\n\
         while [ $(date +%s) -lt $end ]; do [ $(stat -c %a shared/kept) = 700 ] && mount --bind shared/kept \"$ROOT/mnt\" || continue\n\
         cat \"$ROOT/mnt/upper/theirs\" && break; umount \"$ROOT/mnt\"; done 2>/dev/null",
    );
    super::hit(&output, SECRET);
}

#[test]
fn a_command_that_changes_is_never_mk_itself() {
    let Some(ground) = Ground::new(&[], "") else {
        return;
    };
    let shared = ground.sandbox.work().join("shared");
    let script = ground.sandbox.write("shared/command", "#!/bin/sh\necho fine\n");
    fs_err::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    fs_err::os::unix::fs::symlink("/proc/self/exe", shared.join("link")).unwrap();
    let swapper = Swapper::start(&script, &shared.join("link"));
    race(&ground, &swapper, |_| {
        let output = ground.mk(&["run", "box", "-v", "./shared:/a", "/a/command", "--version"]);
        assert!(
            !output.stdout.contains("mk "),
            "mk was executed in the container: {output}"
        );
        output
    });
}

#[test]
fn control_a_runner_that_follows_a_link_to_its_own_program_executes_that() {
    let Some(ground) = Ground::new(&[], "") else {
        return;
    };
    let swapper = {
        let shared = ground.sandbox.work().join("shared");
        let script = ground.sandbox.write("shared/busybox", "#!/bin/no-such\n");
        fs_err::os::unix::fs::symlink("/proc/self/exe", shared.join("link")).unwrap();
        Swapper::start(&script, &shared.join("link"))
    };
    // The runner looks first, as a careful one would; no program of the image is left that could say it.
    let output = ground.naive(
        "box",
        "mount --rbind /proc \"$ROOT/proc\"; mkdir \"$ROOT/a\"; mount --bind shared \"$ROOT/a\"\n\
         mv \"$ROOT/bin/busybox\" busybox; end=$(($(date +%s) + 15))\n\
         while [ $(date +%s) -lt $end ]; do [ -L \"$ROOT/a/busybox\" ] || ! ./busybox chroot \"$ROOT\" /a/busybox echo led out || break\n\
         done 2>/dev/null",
    );
    super::hit(&output, "led out");
    drop(swapper);
}

#[test]
fn whoever_joins_a_container_is_no_prey_for_what_runs_there() {
    let Some(ground) = Ground::new(&[], "") else {
        return;
    };
    // A copy that the caller may write to; it runs the container and joins it.
    let copy = ground.sandbox.work().join("mk");
    fs_err::copy(env!("CARGO_BIN_EXE_mk"), &copy).unwrap();
    let before = fs_err::read(&copy).unwrap();
    let by_copy = |words: &[&str]| {
        ground.mk_with(words, |mk| {
            let mut other = Command::new(&copy);
            other
                .args(mk.get_args())
                .envs(mk.get_envs().filter_map(|(name, value)| Some((name, value?))));
            other.current_dir(ground.sandbox.work());
            other.env("CANARY", SECRET);
            *mk = other;
        })
    };
    let script = ground.sandbox.write("shared/command", "#!/bin/sh\necho fine\n");
    fs_err::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let link = ground.sandbox.work().join("shared/link");
    fs_err::os::unix::fs::symlink("/proc/self/exe", &link).unwrap();
    let below = format!("MK_ATTACK_BELOW={}", ground.sandbox.work().display());
    let hunter = format!("{}:/attack:ro", attacker().display());
    let words = [
        "run",
        "-d",
        "--name",
        "hunted",
        "-v",
        &hunter,
        "-v",
        "./shared:/a",
        "-e",
        "MK_ATTACK=hunt",
        "-e",
        &below,
        "-e",
        "MK_ATTACK_UNTIL=/a/over",
        "box",
        "/attack",
    ];
    by_copy(&[&words[..], &program::WORDS].concat()).ok();
    let swapper = Swapper::start(&script, &link);
    let (begin, mut tried, mut joined, mut last) = (Instant::now(), 0, 0, String::new());
    // A busy machine is no reason for fewer of them.
    while begin.elapsed() < LONG || (joined < ENOUGH && begin.elapsed() < 12 * LONG) {
        // The race is lost now and then: then a copy of mk runs inside that nobody can write to, which is the point.
        let output = by_copy(&["exec", "hunted", "/a/command", "--version"]);
        tried += 1;
        joined += usize::from(output.code == Some(0));
        last = output.to_string();
    }
    drop(swapper);
    ground.sandbox.write("shared/over", "");
    assert!(
        joined >= ENOUGH,
        "{joined} of {tried} commands were executed, which is no race; the last: {last}"
    );
    let said = by_copy(&["wait", "hunted"]);
    let log = by_copy(&["logs", "hunted"]);
    assert!(log.stdout.contains("attack: done"), "{said} {log}");
    assert!(!log.stdout.contains("caught"), "{log}");
    assert!(fs_err::read(&copy).unwrap() == before, "mk was overwritten");
    by_copy(&["rm", "hunted"]).ok();
}

#[test]
fn control_a_joiner_that_hides_nothing_is_prey() {
    let Some(ground) = Ground::new(&[], "") else {
        return;
    };
    // nsenter(1) executes a program of the host's where the container's processes see it. Both are copies: what is caught is
    // written to, and the machine's own programs must not be.
    let script = format!(
        "cp \"$ROOT/bin/busybox\" busybox; cp /usr/bin/nsenter nsenter; cp '{}' \"$ROOT/attack\"\n\
         unshare --pid --fork sh -c 'mount -t proc proc \"$ROOT/proc\"; MK_ATTACK=hunt MK_ATTACK_BELOW=\"$PWD\" MK_ATTACK_UNTIL=/over exec chroot \"$ROOT\" /attack {}' &\n\
         sleep 0.5; inside=$(pgrep -P $!); end=$(($(date +%s) + 7))\n\
         while [ $(date +%s) -lt $end ]; do CANARY='{SECRET}' ./nsenter -t $inside -p ./busybox sleep 0.05; done\n\
         touch \"$ROOT/over\"; wait; head -c 11 busybox nsenter",
        attacker().display(),
        program::WORDS.join(" ")
    );

    let output = ground.naive("box", &script);
    super::hit(&output, "attack: overwritten");
    super::hit(&output, "attack: caught an environment of the host's");
}
