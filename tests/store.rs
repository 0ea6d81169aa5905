//! What befalls a store: builds that are killed, builds that meet, a full disk, damage, and taking out the garbage.

use std::collections::BTreeSet;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::archive::{Item, Tar};
use crate::harness::built::Built;
use crate::harness::chance::Chance;
use crate::harness::listing::Listing;
use crate::harness::{Output, Sandbox, needs};
use crate::run::boxed;

/// Puts a recipe beside an archive of `files` files of `size` bytes, no two alike.
fn lay_out(sandbox: &Sandbox, files: usize, size: usize) {
    let mut tar = Tar::default();
    for index in 0..files {
        let path = format!("data/{}/{index}", index % 10);
        let bytes: Vec<u8> = (0..size)
            .map(|at| ((at * (index + 7)) >> 3) as u8 ^ index as u8)
            .collect();
        tar = tar.with(Item::file(&path, &bytes));
    }
    sandbox.write("data.tar", tar.finish());
    let recipe = "[[step]]\nwrite = '/first'\ntext = '1'\n[[step]]\nunpack = 'data.tar'\n\
                  [[step]]\nwrite = '/last'\ntext = '3'\n[[step]]\nuser = 'app'\nuid = 1000\n";
    sandbox.write("app.toml", recipe);
}

/// Starts `mk` with `words` and what it says in pipes.
fn start(sandbox: &Sandbox, words: &[&str]) -> Child {
    let mut command = sandbox.command();
    command.args(words).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

#[test]
fn a_build_that_is_killed_at_any_moment_damages_nothing() {
    // The shortest of a few: what others do on the machine makes one take long, and then none would be killed in time.
    let calm = (0..4).map(|_| {
        let calm = Sandbox::new();
        lay_out(&calm, 300, 2000);
        let begin = Instant::now();
        let built = calm.build("app.toml");
        (begin.elapsed(), built)
    });
    let (duration, expected) = calm.min_by_key(|(duration, _)| *duration).unwrap();
    let mut chance = Chance::new();
    let mut killed = 0;
    for round in 0..50 {
        let sandbox = Sandbox::new();
        lay_out(&sandbox, 300, 2000);
        let moment = chance.moment(duration);
        let what = format!(
            "killed after {moment:?}, round {round}, MK_TEST_SEED={}",
            chance.seed
        );
        let mut build = start(&sandbox, &["build", "app.toml", "-q"]);
        std::thread::sleep(moment);
        build.kill().unwrap();
        let mut said = String::new();
        build.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        if build.wait().unwrap().code().is_none() {
            killed += 1;
        }
        assert_eq!(said, "", "{what}");
        let verify = sandbox.mk(["verify"]);
        assert_eq!(verify.code, Some(0), "{what}: {verify}");
        let again = sandbox.build("app.toml");
        assert_eq!(
            (&again.image, &again.tree),
            (&expected.image, &expected.tree),
            "{what}"
        );
        sandbox.verify();
        assert_eq!(leftovers(&sandbox), Vec::<String>::new(), "{what}");
    }
    assert!(
        killed >= 10,
        "only {killed} of 50 builds were killed before their end"
    );
}

/// What only belongs into a store while something is at work in it.
fn leftovers(sandbox: &Sandbox) -> Vec<String> {
    let store = sandbox.store();
    let in_folder = |folder: PathBuf| {
        fs_err::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
    };
    let staging = in_folder(store.clone()).chain(in_folder(store.join("rootfs")));
    let staging = staging.filter(|name| name.starts_with("staging-"));
    staging
        .chain(in_folder(store.join("trash")))
        .chain(in_folder(store.join("scratch")))
        .collect()
}

/// Several builds of one recipe at once, in a store that is not there yet.
#[track_caller]
fn build_at_once(count: usize) {
    let sandbox = Sandbox::new();
    lay_out(&sandbox, 3000, 500);
    let words = ["build", "app.toml", "--json", "--progress", "json"];
    let children: Vec<Child> = (0..count).map(|_| start(&sandbox, &words)).collect();
    let pids: BTreeSet<String> = children.iter().map(|child| child.id().to_string()).collect();
    let outputs: Vec<_> = children
        .into_iter()
        .map(|child| child.wait_with_output().unwrap())
        .collect();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let results: Vec<(Value, Vec<Value>)> = outputs
        .iter()
        .map(|output| {
            assert!(output.status.success(), "{}", text(&output.stderr));
            let events = text(&output.stderr)
                .lines()
                .map(|line| serde_json::from_str(line).unwrap())
                .collect();
            (serde_json::from_slice(&output.stdout).unwrap(), events)
        })
        .collect();
    let digests: BTreeSet<&str> = results
        .iter()
        .map(|(result, _)| result["digest"].as_str().unwrap())
        .collect();
    assert_eq!(digests.len(), 1, "{digests:?}");
    let is_work = |event: &Value| event["event"] == "step-finished" && event["cached"] == false;
    let workers = results
        .iter()
        .filter(|(_, events)| events.iter().any(is_work))
        .count();
    assert_eq!(workers, 1, "one works");
    let waits: Vec<&str> = results
        .iter()
        .flat_map(|(_, events)| events)
        .filter(|event| event["event"] == "waiting")
        .map(|event| event["on"].as_str().unwrap())
        .collect();
    assert!(
        !waits.is_empty(),
        "nobody waited: is the build too small to meet another?"
    );
    for wait in waits {
        let names_one = wait
            .split(|letter: char| !letter.is_ascii_digit())
            .any(|word| pids.contains(word));
        assert!(names_one, "{wait:?} names none of the processes {pids:?}");
    }
    sandbox.verify();
    assert_eq!(leftovers(&sandbox), Vec::<String>::new());
}

#[test]
fn of_two_builds_at_once_one_works_and_the_other_waits() {
    build_at_once(2);
}

#[test]
fn of_ten_builds_at_once_one_works_and_the_others_wait() {
    build_at_once(10);
}

#[test]
fn builds_of_different_recipes_do_not_wait_for_each_other() {
    let sandbox = Sandbox::new();
    for name in ["a", "b", "c"] {
        sandbox.write(
            format!("{name}.toml"),
            format!("[[step]]\nwrite = '/{name}'\ntext = '{name}'\n"),
        );
    }
    let start = |name| start(&sandbox, &["build", name, "--json", "--progress", "json"]);
    let children = ["a.toml", "b.toml", "c.toml"].map(start);
    for child in children {
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && !stderr.contains("waiting"), "{stderr}");
    }
    sandbox.verify();
}

#[test]
fn a_full_disk_is_a_clear_error_and_room_is_all_it_takes() {
    if !needs::namespaces() {
        return;
    }
    let sandbox = Sandbox::new();
    lay_out(&sandbox, 40, 100_000);
    sandbox.write("small.toml", "[[step]]\nwrite = '/x'\ntext = 'x'\n");
    // The mount is gone with the namespace that it is made in.
    let script = "set -u; mkdir small && mount -t tmpfs -o size=8m none small || exit 99\n\
                  head -c 6m /dev/zero >small/ballast; export MK_STORE=$PWD/small/store\n\
                  \"$1\" build small.toml -q >&2; echo small $?\n\
                  \"$1\" build app.toml -q; echo full $?\n\
                  \"$1\" verify >&2; echo verified $?\n\
                  \"$1\" images | grep -c app; ls small/store | grep -c staging; rm small/ballast\n\
                  \"$1\" build app.toml -q >&2; echo room $?\n\
                  \"$1\" verify >&2; echo verified $?\n";
    let mk = sandbox.command();
    let mut unshare = Command::new("/usr/bin/unshare");
    unshare
        .arg(if needs::is_root() { "-m" } else { "-Urm" })
        .args(["sh", "-c", script, "sh"])
        .arg(mk.get_program());
    unshare.current_dir(sandbox.work()).env_clear();
    unshare.envs(mk.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output = unshare.output().unwrap();
    let (stdout, stderr) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    let expected = "small 0\nfull 1\nverified 0\n0\n0\nroom 0\nverified 0\n";
    assert_eq!(stdout, expected, "{stderr}");
    assert!(
        stderr.contains("No space left on device") && stderr.contains("hint: the disk is full"),
        "{stderr}"
    );
}

/// Builds a recipe of every kind of step with a `--durability`, in a store that is not there yet, and once more. Returns the image
/// and how many calls synced something.
fn syncs(durability: &str) -> Option<(String, usize)> {
    let strace = needs::program("strace")?;
    let sandbox = boxed("")?;
    fs_err::remove_dir_all(sandbox.store()).unwrap();
    sandbox.write(
        "app.toml",
        "[[step]]\nunpack = 'rootfs.tar.gz'\n[[step]]\nrun = 'seq 100 >/numbers'\n[[step]]\nwrite = '/x'\ntext = 'x'\n",
    );
    let trace = sandbox.work().join("trace");
    let build = sandbox.mk_with(["build", "-q", "app.toml", "--durability", durability], |mk| {
        let mut traced = Command::new(strace);
        let calls = "trace=fsync,fdatasync,sync,syncfs,sync_file_range,msync";
        traced.args(["-f", "-e", calls, "-o"]).arg(&trace);
        traced.arg(mk.get_program()).args(mk.get_args());
        traced.envs(mk.get_envs().filter_map(|(name, value)| Some((name, value?))));
        traced.current_dir(sandbox.work()).env("PATH", "/usr/bin:/bin");
        *mk = traced;
    });
    let built = build.ok();
    sandbox.verify();
    let text = fs_err::read_to_string(trace).unwrap();
    Some((
        built.stdout,
        text.lines().filter(|line| line.contains("sync")).count(),
    ))
}

#[test]
fn a_build_without_syncs_syncs_nothing_and_gives_the_same() {
    if !needs::is_root() && needs::has_ids() {
        // Under strace(1) the programs that map ids have no privileges.
        return needs::skipped("no subordinate ids, or root");
    }
    let (Some((full, some)), Some((none, zero))) = (syncs("full"), syncs("none")) else {
        return;
    };
    assert_eq!(full, none);
    assert!(some >= 1, "{some}");
    assert_eq!(zero, 0);
}

#[test]
fn a_store_that_was_not_synced_before_the_machine_was_started_waits_for_verify() {
    let Some(sandbox) = boxed("") else { return };
    sandbox.write("app.toml", "[[step]]\nwrite = '/x'\ntext = 'x'\n");
    let mark = sandbox.store().join("unsynced");
    let none = sandbox.mk_with(["build", "-q", "app.toml"], |mk| {
        mk.env("MK_DURABILITY", "none");
    });
    none.ok();
    assert!(mark.exists());
    sandbox.mk(["run", "box", "true"]).ok();
    overwrite(&mark, "of another boot\n");
    for words in [&["build", "app.toml", "-q"][..], &["run", "box", "true"]] {
        let refused = sandbox.mk(words);
        assert_eq!(
            refused.code,
            Some(if words[0] == "run" { 125 } else { 1 }),
            "{refused}"
        );
        assert!(
            refused
                .stderr
                .contains("was written to without syncs before this machine was started")
                && refused.stderr.contains("hint: `mk verify` reads all of it again"),
            "{refused}"
        );
    }
    sandbox.verify();
    assert!(!mark.exists());
    sandbox.mk(["run", "box", "true"]).ok();
    let wrong = sandbox.mk(["build", "app.toml", "--durability", "some"]);
    assert_eq!(wrong.code, Some(2), "{wrong}");
}

/// Returns the files below `folder`.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs_err::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(files(&path));
        } else {
            all.push(path);
        }
    }
    all.sort();
    all
}

/// Two images: `hurt` has a file that `whole` lacks.
fn two_images() -> (Sandbox, Built, PathBuf) {
    let sandbox = Sandbox::new();
    sandbox.write("whole.toml", "[[step]]\nwrite = '/shared'\ntext = 'shared'\n");
    sandbox.build("whole.toml");
    let before = files(&sandbox.store().join("objects"));
    sandbox.write(
        "hurt.toml",
        "[[step]]\nwrite = '/shared'\ntext = 'shared'\n[[step]]\nwrite = '/own'\ntext = 'own text'\n",
    );
    let built = sandbox.build("hurt.toml");
    let mut objects = files(&sandbox.store().join("objects"));
    objects.retain(|path| !before.contains(path));
    assert_eq!(objects.len(), 1, "{objects:?}");
    sandbox.verify();
    (sandbox, built, objects.remove(0))
}

/// Verifies a store that is damaged; returns what was said.
#[track_caller]
fn verify_fails(sandbox: &Sandbox) -> Output {
    let output = sandbox.mk(["verify"]);
    assert_eq!(output.code, Some(1), "{output}");
    let json = sandbox.mk(["verify", "--json"]);
    assert_eq!(json.code, Some(1), "{json}");
    let value: Value = serde_json::from_str(&json.stdout).unwrap();
    assert!(
        value["damaged"]
            .as_array()
            .is_some_and(|damaged| !damaged.is_empty()),
        "{json}"
    );
    output
}

#[test]
fn a_damaged_file_is_found_with_the_images_that_it_hurts() {
    let (sandbox, built, object) = two_images();
    // Its size and its time stay as they were, as a failing disk would leave them.
    let modified = fs_err::metadata(&object).unwrap().modified().unwrap();
    fs_err::write(&object, "own test").unwrap();
    fs_err::File::open(&object)
        .unwrap()
        .into_file()
        .set_modified(modified)
        .unwrap();
    let output = verify_fails(&sandbox);
    let said = format!("{}{}", output.stdout, output.stderr);
    assert!(said.contains("hurt") && !said.contains("whole"), "{output}");
    let name: Vec<&str> = object
        .iter()
        .rev()
        .take(2)
        .map(|part| part.to_str().unwrap())
        .collect();
    assert!(
        said.contains(&format!("{}/{}", name[1], name[0])),
        "the object is not named in {output}"
    );
    // What verify takes away is not run, and built again.
    let discarded = sandbox.mk(["verify", "--discard"]).ok();
    assert!(
        discarded.stderr.contains("to be built again: hurt"),
        "{discarded}"
    );
    let run = sandbox.mk(["run", "hurt", "true"]);
    assert_eq!(run.code, Some(125), "{run}");
    assert!(run.stderr.contains("no longer in the store"), "{run}");
    let again = sandbox.build("hurt.toml");
    assert_eq!(again.image, built.image);
    sandbox.verify();
}

#[test]
fn every_kind_of_damage_is_found() {
    type Damage = fn(&Sandbox, &Path, &Built);
    let damages: [(&str, Damage); 8] = [
        ("an object is gone", |_, object, _| {
            fs_err::remove_file(object).unwrap()
        }),
        ("an object is longer", |_, object, _| {
            fs_err::write(object, "own text and more").unwrap()
        }),
        ("an object has another mode", |_, object, _| {
            fs_err::set_permissions(object, PermissionsExt::from_mode(0o666)).unwrap();
        }),
        ("a tree is another", |sandbox, _, built| {
            let path = sandbox.store().join("trees").join(&built.tree);
            let text = fs_err::read_to_string(&path)
                .unwrap()
                .replace("mode=0644", "mode=0666");
            overwrite(&path, &text);
        }),
        ("a tree is gone", |sandbox, _, built| {
            fs_err::remove_file(sandbox.store().join("trees").join(&built.tree)).unwrap();
        }),
        ("an image is another", |sandbox, _, built| {
            let path = sandbox.store().join("images").join(&built.image);
            let text = fs_err::read_to_string(&path).unwrap() + "network host\n";
            overwrite(&path, &text);
        }),
        ("a folder has a file more", |sandbox, _, _| {
            fs_err::write(sandbox.rootfs("hurt").join("more"), "more").unwrap();
        }),
        ("a folder has a file less", |sandbox, _, _| {
            fs_err::remove_file(sandbox.rootfs("hurt").join("own")).unwrap();
        }),
    ];
    for (name, damage) in damages {
        let (sandbox, built, object) = two_images();
        damage(&sandbox, &object, &built);
        let output = verify_fails(&sandbox);
        let said = format!("{}{}", output.stdout, output.stderr);
        assert!(
            said.contains("hurt") && !said.contains("whole"),
            "{name}: {output}"
        );
    }
}

fn overwrite(path: &Path, text: &str) {
    fs_err::set_permissions(path, PermissionsExt::from_mode(0o600)).unwrap();
    fs_err::write(path, text).unwrap();
}

#[test]
fn gc_frees_what_no_name_needs_and_keeps_the_rest() {
    let (sandbox, _, own_object) = two_images();
    let tree = sandbox.tree("whole");
    sandbox.mk(["gc", "--keep", "0"]).ok();
    assert!(own_object.exists(), "gc took what has a name");
    sandbox.mk(["rm", "hurt"]).ok();
    let rehearsed = sandbox.mk(["gc", "--keep", "0", "--dry-run"]).ok();
    assert!(own_object.exists(), "a rehearsal took something: {rehearsed}");
    sandbox.mk(["gc", "--keep", "0"]).ok();
    assert!(!own_object.exists(), "gc left what nothing needs");
    assert_eq!(sandbox.tree("whole"), tree);
    sandbox.verify();
    let json = sandbox.mk(["gc", "--keep", "0", "--json"]).ok();
    let value: Value = serde_json::from_str(&json.stdout).unwrap();
    assert!(value.is_object(), "{json}");
    sandbox.mk(["rm", "whole"]).ok();
    sandbox.mk(["gc", "--keep", "0"]).ok();
    for folder in [
        "objects", "trees", "rootfs", "images", "conf", "refs", "steps", "sources", "trash",
    ] {
        assert_eq!(
            files(&sandbox.store().join(folder)),
            Vec::<PathBuf>::new(),
            "{folder}"
        );
    }
    sandbox.verify();
    assert_eq!(
        sandbox.build("hurt.toml").done.len(),
        2,
        "everything is made anew"
    );
}

#[test]
fn gc_spares_what_is_young_and_says_why() {
    let (sandbox, _, own_object) = two_images();
    let reason = |words: &[&str]| {
        let json = sandbox.mk([&["gc", "--json"], words].concat()).ok();
        let value: Value = serde_json::from_str(&json.stdout).unwrap();
        value["reasons"].clone()
    };
    sandbox.mk(["rm", "hurt"]).ok();
    let reasons = reason(&["--dry-run"]);
    assert!(reasons["young"]["bytes"].as_u64().unwrap() > 0, "{reasons}");
    assert!(reasons["named"]["bytes"].as_u64().unwrap() > 0, "{reasons}");
    assert!(reasons.get("unneeded").is_none(), "{reasons}");
    sandbox.mk(["gc"]).ok();
    assert!(own_object.exists(), "gc took what was built a moment ago");
    // What was built longer ago than that goes, unless somebody asks for more time.
    for folder in ["images", "steps", "sources"] {
        for file in files(&sandbox.store().join(folder)) {
            let old = std::time::SystemTime::now() - std::time::Duration::from_secs(2 * 3600);
            fs_err::File::options()
                .write(true)
                .open(file)
                .unwrap()
                .into_file()
                .set_modified(old)
                .unwrap();
        }
    }
    sandbox.mk(["gc", "--keep", "1d"]).ok();
    assert!(own_object.exists(), "gc took what was to stay for a day");
    let reasons = reason(&["--dry-run"]);
    assert!(reasons["unneeded"]["bytes"].as_u64().unwrap() > 0, "{reasons}");
    // To build it again makes it young again.
    sandbox.build("hurt.toml");
    sandbox.mk(["rm", "hurt"]).ok();
    sandbox.mk(["gc"]).ok();
    assert!(own_object.exists(), "gc took what was asked for a moment ago");
    sandbox.mk(["gc", "--keep", "0"]).ok();
    assert!(!own_object.exists(), "gc left what nothing needs");
    sandbox.verify();
}

#[test]
fn gc_makes_room_of_what_only_saves_work() {
    let (sandbox, _, own_object) = two_images();
    let tree = sandbox.tree("whole");
    sandbox.mk(["rm", "hurt"]).ok();
    let rehearsed = sandbox.mk(["gc", "--max-size", "1", "--dry-run"]).ok();
    assert!(rehearsed.stdout.contains("goes: for --max-size"), "{rehearsed}");
    assert!(rehearsed.stderr.contains("more than --max-size"), "{rehearsed}");
    sandbox.mk(["gc", "--max-size", "1t"]).ok();
    assert!(own_object.exists(), "there was room enough");
    sandbox.mk(["gc", "--max-size", "1"]).ok();
    assert!(!own_object.exists(), "what had no name was to go first");
    assert_eq!(files(&sandbox.store().join("steps")), Vec::<PathBuf>::new());
    assert_eq!(sandbox.tree("whole"), tree, "a name was let go");
    sandbox.verify();
    let wrong = sandbox.mk(["gc", "--max-size", "much"]);
    assert_eq!(wrong.code, Some(2), "{wrong}");
    assert_eq!(sandbox.mk(["gc", "--keep", "soon"]).code, Some(2));
}

#[test]
fn gc_keeps_the_steps_and_sources_that_a_named_image_came_from() {
    let sandbox = Sandbox::new();
    lay_out(&sandbox, 5, 100);
    let first = sandbox.build("app.toml");
    sandbox.mk(["gc", "--keep", "0"]).ok();
    let second = sandbox.build("app.toml");
    assert_eq!((second.done.len(), second.image), (0, first.image));
}

/// Calls mk where it may have `most` files open.
fn with_few_files(sandbox: &Sandbox, most: u32, words: &[&str]) -> Output {
    sandbox.mk_with(words, |command| {
        let mut limited = Command::new("/usr/bin/prlimit");
        limited
            .arg(format!("--nofile={most}"))
            .arg(command.get_program())
            .args(command.get_args())
            .current_dir(sandbox.work())
            .stdin(Stdio::null())
            .env_clear()
            .envs(
                command
                    .get_envs()
                    .filter_map(|(name, value)| Some((name, value?))),
            );
        *command = limited;
    })
}

#[test]
fn few_open_files_are_enough_and_too_few_are_no_damage() {
    if needs::program("prlimit").is_none() {
        return;
    }
    let sandbox = Sandbox::new();
    for index in 0..700 {
        sandbox.write(format!("many/{index}"), format!("{index}\n"));
    }
    sandbox.write("many.toml", "[[step]]\ncopy = 'many/'\ninto = '/many'\n");
    for words in [
        &["build", "many.toml"][..],
        &["verify"],
        &["export", "many", "-o", "many.tar"],
        &["gc"],
    ] {
        with_few_files(&sandbox, 64, words).ok();
    }
    let mut refused = 0;
    for most in 5..40 {
        let verified = with_few_files(&sandbox, most, &["verify", "--repair"]);
        let said = verified.to_string();
        match verified.code {
            Some(0) => assert!(said.contains("all is well: "), "{most}: {said}"),
            _ => {
                refused += 1;
                assert!(
                    !said.contains("damaged") && !said.contains("taken away"),
                    "{most}: {said}"
                );
            }
        }
    }
    assert!(refused > 0);
    sandbox.verify();
}

#[test]
fn names_are_given_listed_and_taken() {
    let (sandbox, built, _) = two_images();
    sandbox.mk(["tag", "hurt", "other"]).ok();
    sandbox.mk(["tag", &built.image[..12], "third"]).ok();
    let json: Value = serde_json::from_str(&sandbox.mk(["images", "--json"]).ok().stdout).unwrap();
    let names: Vec<&str> = json
        .as_array()
        .unwrap()
        .iter()
        .map(|image| image["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["hurt", "other", "third", "whole"]);
    let digest = |name: &str| {
        let image = json
            .as_array()
            .unwrap()
            .iter()
            .find(|image| image["name"] == name)
            .unwrap();
        image["digest"].as_str().unwrap().to_owned()
    };
    assert_eq!(
        [digest("hurt"), digest("other"), digest("third")],
        [(); 3].map(|()| built.image.clone())
    );
    let table = sandbox.mk(["images"]).ok();
    assert!(names.iter().all(|name| table.stdout.contains(name)), "{table}");
    sandbox.mk(["rm", "hurt", "other"]).ok();
    assert_eq!(sandbox.mk(["inspect", "hurt"]).code, Some(1));
    sandbox.mk(["gc", "--keep", "0"]).ok();
    sandbox.mk(["inspect", "third"]).ok();
    let twice = sandbox.mk(["rm", "hurt"]);
    assert_eq!(twice.code, Some(1), "{twice}");
    sandbox.verify();
}

#[test]
fn a_name_that_is_a_way_out_of_the_store_is_refused() {
    let (sandbox, _, _) = two_images();
    for name in ["../x", "a/b", ".", "..", "", "-x", "X", "a\nb"] {
        let output = sandbox.mk(["tag", "whole", name]);
        assert!(matches!(output.code, Some(1 | 2)), "{name:?}: {output}");
    }
    sandbox.verify();
}

#[test]
fn an_export_is_the_same_bytes_whenever_and_holds_the_tree() {
    let sandbox = Sandbox::new();
    let tar = Tar::of([
        Item::folder("bin/").owner(1, 2),
        Item::file("bin/a", b"hi\n").mode(0o4755),
        Item::hard_link("bin/b", "bin/a"),
        Item::symlink("bin/c", "a"),
        Item::new(tar::EntryType::Fifo, "pipe"),
        Item {
            device: (1, 3),
            ..Item::new(tar::EntryType::Char, "null")
        },
    ]);
    sandbox.write("a.tar", tar.finish());
    sandbox.write(
        "app.toml",
        "[[step]]\nunpack = 'a.tar'\n[[step]]\nwrite = '/text'\ntext = 'x'\n",
    );
    let built = sandbox.build("app.toml");
    sandbox.mk(["export", "app", "-o", "one.tar"]).ok();
    sandbox.mk(["export", "app", "-o", "two.tar"]).ok();
    let read = |name| fs_err::read(sandbox.work().join(name)).unwrap();
    assert_eq!(read("one.tar"), read("two.tar"));
    // What was exported is what is imported: the tree comes back as it was, device node and all.
    sandbox.write("again.toml", "[[step]]\nunpack = 'one.tar'\n");
    assert_eq!(sandbox.build("again.toml").tree, built.tree);
    let streamed = sandbox
        .command()
        .args(["export", "app", "-o", "-"])
        .output()
        .unwrap();
    assert_eq!(streamed.stdout, read("one.tar"));
    let Some(tar) = needs::program("tar") else { return };
    let listed = Command::new(tar)
        .arg("-tf")
        .arg(sandbox.work().join("one.tar"))
        .output()
        .unwrap();
    assert!(
        listed.status.success() && listed.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&listed.stderr)
    );
}

#[test]
fn an_exported_folder_is_the_tree() {
    let sandbox = Sandbox::new();
    lay_out(&sandbox, 20, 100);
    sandbox.build("app.toml");
    sandbox.mk(["export", "app", "--folder", "out"]).ok();
    let out = Listing::of_folder(&sandbox.work().join("out"));
    let tree = Listing::of_tree(&sandbox.tree("app"));
    if needs::is_root() {
        out.assert_is(&tree, "the exported folder and the tree");
    } else {
        let bare = |listing: Listing| listing.map(|line| line.owner = None);
        let mut tree = tree;
        for (path, line) in &mut tree.0 {
            if out
                .0
                .get(path)
                .and_then(|line| line.content.as_ref())
                .is_some_and(|content| content.len() != 64)
            {
                line.content = out.0[path].content.clone();
            }
        }
        bare(out).assert_is(&bare(tree), "the exported folder and the tree");
    }
    let again = sandbox.mk(["export", "app", "--folder", "out"]);
    assert_eq!(again.code, Some(1), "{again}");
    // It is a copy: writing there does not reach the store.
    fs_err::write(sandbox.work().join("out/first"), "changed").unwrap();
    sandbox.verify();
}

#[test]
fn an_image_that_is_in_use_outlives_its_name_until_the_run_ends() {
    let Some(fixture) = needs::fixture(needs::FIXTURES[0]) else {
        return;
    };
    if !needs::namespaces() {
        return;
    }
    let sandbox = Sandbox::new();
    fs_err::copy(fixture, sandbox.work().join("rootfs.tar.gz")).unwrap();
    sandbox.write("box.toml", "[[step]]\nunpack = 'rootfs.tar.gz'\n");
    let built = sandbox.build("box.toml");
    let mut command = sandbox.command();
    command.args(["run", "box", "sh", "-c", "echo up; read line; ls /bin/cat"]);
    let mut run = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut up = [0; 3];
    run.stdout.as_mut().unwrap().read_exact(&mut up).unwrap();
    sandbox.mk(["rm", "box"]).ok();
    sandbox.mk(["gc", "--keep", "0"]).ok();
    assert!(
        sandbox
            .store()
            .join("rootfs")
            .join(&built.tree)
            .join("bin/cat")
            .exists()
    );
    drop(run.stdin.take());
    let output = run.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "/bin/cat\n");
    sandbox.mk(["gc", "--keep", "0"]).ok();
    assert!(
        !sandbox.store().join("rootfs").join(&built.tree).exists(),
        "gc left what nothing uses"
    );
    sandbox.verify();
}

#[test]
fn a_store_of_another_version_is_refused() {
    let (sandbox, _, _) = two_images();
    let path = sandbox.store().join("format");
    let text = fs_err::read_to_string(&path)
        .unwrap()
        .replace("mk-store 1", "mk-store 2");
    overwrite(&path, &text);
    let output = sandbox.mk(["images"]);
    assert_eq!(output.code, Some(1), "{output}");
    assert!(
        output.stderr.contains("mk-store 2") || output.stderr.contains("version 2"),
        "{output}"
    );
}

/// How long gc, builds and runs are at it together. `MK_TEST_STRESS` is another number of seconds.
fn stress() -> Duration {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is how a test is told to be thorough"
    )]
    let seconds = std::env::var("MK_TEST_STRESS").ok();
    Duration::from_secs(seconds.map_or(8, |seconds| seconds.parse().unwrap()))
}

#[test]
#[expect(
    clippy::print_stdout,
    reason = "what it did at random is part of what it found"
)]
fn gc_among_builds_and_runs_takes_what_nobody_uses_and_nothing_else() {
    let Some(sandbox) = boxed("") else { return };
    const APPS: usize = 6;
    for app in 0..APPS {
        sandbox.write(
            format!("app{app}.toml"),
            format!(
                "[[step]]\nunpack = 'rootfs.tar.gz'\n\
                 [[step]]\nrun = 'echo {app} >/own; seq 2000 >/all; echo {app} >>/cache/used'\n\
                 mounts = [{{ cache = 'shared', at = '/cache' }}]\n\
                 [[step]]\nwrite = '/more'\ntext = '{app}'\n"
            ),
        );
    }
    let end = Instant::now() + stress();
    let seed = Chance::new().seed;
    let rounds: [AtomicUsize; 6] = Default::default();
    let busy = |number: u64, kind: usize, act: &(dyn Fn(&mut Chance) + Sync)| {
        let mut chance = Chance::of(seed.wrapping_add(number));
        while Instant::now() < end {
            act(&mut chance);
            rounds[kind].fetch_add(1, Ordering::Relaxed);
        }
    };
    let any = |chance: &mut Chance| chance.below(APPS);
    const LOOK: &str = "cat /own /more; tail -n 1 /all; ls /bin/cat";
    let looked = |app: usize| format!("{app}\n{app}2000\n/bin/cat\n");
    std::thread::scope(|scope| {
        let (sandbox, busy, looked) = (&sandbox, &busy, &looked);
        for number in 0..2 {
            scope.spawn(move || {
                busy(number, 0, &|chance| {
                    let app = any(chance);
                    let built = sandbox.mk(["build", "-q", &format!("app{app}.toml")]);
                    assert_eq!(built.code, Some(0), "seed {seed}: {built}");
                    if chance.below(2) == 0 {
                        // Another may have been faster.
                        sandbox.mk(["rm", &format!("app{app}")]);
                    }
                });
            });
            scope.spawn(move || {
                busy(10 + number, 1, &|chance| {
                    let app = any(chance);
                    let run = sandbox.mk(["run", &format!("./app{app}.toml"), "sh", "-c", LOOK]);
                    assert_eq!(run.stdout, looked(app), "seed {seed}: {run}");
                });
            });
        }
        // By itself, and longer than a gc takes.
        scope.spawn(move || {
            busy(20, 2, &|chance| {
                let app = any(chance);
                let script = format!("sleep 0.{}; {LOOK}", 1 + chance.below(9));
                let recipe = format!("./app{app}.toml");
                let started = sandbox.mk(["run", "-d", "--name", "by-itself", &recipe, "sh", "-c", &script]);
                assert_eq!(started.code, Some(0), "seed {seed}: {started}");
                sandbox.mk(["rm", "--image", &format!("app{app}")]);
                let waited = sandbox.mk(["wait", "by-itself"]);
                let logs = sandbox.mk(["logs", "by-itself"]);
                assert_eq!(logs.stdout, looked(app), "seed {seed}: {waited} {logs}");
                sandbox.mk(["rm", "by-itself"]).ok();
            });
        });
        // A name that nobody else takes away keeps what another may.
        scope.spawn(move || {
            busy(30, 3, &|chance| {
                let app = any(chance);
                let tagged = sandbox.mk(["tag", &format!("app{app}"), "mine"]);
                if tagged.code != Some(0) {
                    assert!(
                        tagged.stderr.contains("there is no image"),
                        "seed {seed}: {tagged}"
                    );
                    return;
                }
                std::thread::sleep(chance.moment(Duration::from_millis(300)));
                let run = sandbox.mk(["run", "mine", "sh", "-c", LOOK]);
                assert_eq!(run.stdout, looked(app), "seed {seed}: {run}");
                sandbox.mk(["rm", "mine"]).ok();
            });
        });
        scope.spawn(move || {
            busy(40, 4, &|chance| {
                let mut words = vec!["gc"];
                let ages: [&[&str]; 4] = [&["--keep", "0"], &["--keep", "0"], &["--keep", "1s"], &[]];
                words.extend(ages[chance.below(4)]);
                for more in [&["--max-size", "1"][..], &["--caches"], &["--dry-run"]] {
                    if chance.below(3) == 0 {
                        words.extend(more);
                    }
                }
                let collected = sandbox.mk(&words);
                assert_eq!(collected.code, Some(0), "seed {seed}: {collected}");
            });
        });
        scope.spawn(move || {
            busy(50, 5, &|chance| {
                let verify = sandbox.mk(["verify"]);
                assert_eq!(verify.code, Some(0), "seed {seed}: {verify}");
                std::thread::sleep(chance.moment(Duration::from_millis(500)));
            });
        });
    });
    let counts = rounds.map(|count| count.into_inner());
    println!("builds, runs, runs by themselves, tags, gcs, verifies: {counts:?}, seed {seed}");
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
    sandbox.verify();
    sandbox.mk(["rm", "box"]).ok();
    for app in 0..APPS {
        sandbox.mk(["rm", &format!("app{app}")]);
    }
    assert_eq!(
        sandbox.mk(["images"]).ok().stdout.lines().count(),
        0,
        "seed {seed}"
    );
    sandbox.mk(["gc", "--keep", "0", "--caches"]).ok();
    for folder in [
        "objects", "trees", "rootfs", "images", "conf", "refs", "steps", "sources", "trash", "leases",
        "builds", "caches",
    ] {
        let left = files(&sandbox.store().join(folder));
        assert_eq!(left, Vec::<PathBuf>::new(), "seed {seed}: {folder}");
    }
    assert_eq!(leftovers(&sandbox), Vec::<String>::new(), "seed {seed}");
}
