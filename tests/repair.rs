//! `mk verify --repair`: every kind of damage, made anew of what there is; and what cannot be.

use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use mk_core::digest::Digest;
use serde_json::Value;

use crate::harness::built::Built;
use crate::harness::chance::Chance;
use crate::harness::{Output, Sandbox, needs};

/// An image with files of an archive that was fetched, of a `run` step, of a `write` step, and one beside the recipe; run and gone
/// through in [`whole`].
fn scene() -> Option<(Sandbox, Built)> {
    let archive = fs_err::read(needs::fixture(needs::FIXTURES[0])?).unwrap();
    if !needs::namespaces() {
        return None;
    }
    let sandbox = Sandbox::new();
    let digest = Digest::of(&archive);
    let held = sandbox.write(format!("held/{digest}"), archive);
    let config = sandbox.home().join(".config/mk");
    fs_err::create_dir_all(&config).unwrap();
    let text = format!("source-dirs = ['{}']\n", held.parent().unwrap().display());
    fs_err::write(config.join("config.toml"), text).unwrap();
    sandbox.write("beside", "beside\n");
    let unpack = format!("unpack = 'https://mirror.invalid/rootfs.tar.gz'\nsha256 = '{digest}'");
    sandbox.write(
        "app.toml",
        format!(
            "[args]\nword = 'none'\n\n[[step]]\n{unpack}\n\
         [[step]]\nrun = 'echo made >/made'\n\
         [[step]]\nwrite = '/written'\ntext = '{{word}}'\n\
         [[step]]\ncopy = 'beside'\ninto = '/beside'\n\
         [conf]\nhostname = 'app'\n"
        ),
    );
    let built = sandbox.build_with("app.toml", &["--arg", "word=said"]);
    sandbox.verify();
    Some((sandbox, built))
}

/// Sees that the image is what it was, and runs.
#[track_caller]
fn whole(sandbox: &Sandbox, built: &Built, what: &str) {
    let verify = sandbox.mk(["verify"]);
    assert_eq!(verify.code, Some(0), "{what}: {verify}");
    let run = sandbox.mk([
        "run",
        "app",
        "cat",
        "/made",
        "/written",
        "/beside",
        "/etc/hostname",
    ]);
    assert_eq!(
        (run.stdout.as_str(), run.code),
        ("made\nsaidbeside\napp\n", Some(0)),
        "{what}: {run}"
    );
    let json: Value = serde_json::from_str(&sandbox.mk(["inspect", "app"]).ok().stdout).unwrap();
    assert_eq!(json["digest"], built.image.as_str(), "{what}");
}

/// Writes over a file of the store, whatever its mode.
fn overwrite(path: &Path, text: &str) -> io::Result<()> {
    fs_err::set_permissions(path, PermissionsExt::from_mode(0o600))?;
    fs_err::write(path, text)
}

/// Writes over the object of a file of the image.
fn damage_object(sandbox: &Sandbox, file: &str, text: &str) {
    overwrite(&object_of(sandbox, file).unwrap(), text).unwrap();
}

/// Returns what `mk inspect` says of the image; an error where a damage keeps it from that.
fn inspect(sandbox: &Sandbox, flag: &str) -> io::Result<String> {
    let said = sandbox.mk(["inspect", flag, "app"]);
    match said.code {
        Some(0) => Ok(said.stdout),
        _ => Err(io::Error::other(said.to_string())),
    }
}

fn rootfs_of(sandbox: &Sandbox) -> io::Result<PathBuf> {
    Ok(inspect(sandbox, "--rootfs")?.trim_end().into())
}

/// Returns the object of a file of the image.
fn object_of(sandbox: &Sandbox, file: &str) -> io::Result<PathBuf> {
    let tree = inspect(sandbox, "--tree")?;
    let line = tree
        .lines()
        .find(|line| line.starts_with(&format!("./{file} ")))
        .unwrap_or_else(|| panic!("no {file} in {tree}"));
    let digest = line
        .split(' ')
        .find_map(|word| word.strip_prefix("sha256="))
        .unwrap();
    for entry in fs_err::read_dir(sandbox.store().join("objects").join(&digest[..2]))? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(&digest[2..]) {
            return Ok(entry.path());
        }
    }
    Err(io::Error::from(io::ErrorKind::NotFound))
}

fn repair(sandbox: &Sandbox) -> Output {
    sandbox.mk(["verify", "--repair"])
}

type Damage = fn(&Sandbox, &Built) -> io::Result<()>;

/// What befalls a store, and how it is told that it was mended.
const DAMAGES: [(&str, Damage, &str); 18] = [
    (
        "an object of an archive is another",
        |sandbox, _| overwrite(&object_of(sandbox, "etc/passwd")?, "nobody"),
        "made anew of the archive",
    ),
    (
        "an object of a command is another",
        |sandbox, _| overwrite(&object_of(sandbox, "made")?, "mede\n"),
        "built again by `[work]/app.toml`",
    ),
    (
        "an object of the recipe is another",
        |sandbox, _| overwrite(&object_of(sandbox, "written")?, ""),
        "built again by `[work]/app.toml`",
    ),
    (
        "an object is gone, and its links are there",
        |sandbox, _| fs_err::remove_file(object_of(sandbox, "made")?),
        "made anew of `[store]/rootfs/",
    ),
    (
        "an object has another mode",
        |sandbox, _| fs_err::set_permissions(object_of(sandbox, "made")?, PermissionsExt::from_mode(0o666)),
        "made anew of its own bytes",
    ),
    (
        "there is a folder in the place of an object",
        |sandbox, _| {
            let object = object_of(sandbox, "made")?;
            fs_err::remove_file(&object)?;
            fs_err::create_dir(&object)
        },
        "built again by",
    ),
    (
        "a tree is another",
        |sandbox, built| overwrite(&sandbox.store().join("trees").join(&built.tree), "#mtree\n"),
        "built again by",
    ),
    (
        "a tree is gone",
        |sandbox, built| fs_err::remove_file(sandbox.store().join("trees").join(&built.tree)),
        "built again by",
    ),
    (
        "all trees and steps are gone",
        |sandbox, _| {
            for folder in ["trees", "steps"] {
                for entry in fs_err::read_dir(sandbox.store().join(folder))? {
                    fs_err::remove_file(entry?.path())?;
                }
            }
            Ok(())
        },
        "built again by",
    ),
    (
        "a document of an image is another",
        |sandbox, built| overwrite(&sandbox.store().join("images").join(&built.image), "mk-image 1\n"),
        "built again by",
    ),
    (
        "a document of an image is gone",
        |sandbox, built| fs_err::remove_file(sandbox.store().join("images").join(&built.image)),
        "built again by",
    ),
    (
        "a folder has a file more",
        |sandbox, _| fs_err::write(rootfs_of(sandbox)?.join("more"), "more"),
        "laid out anew",
    ),
    (
        "a folder is gone",
        |sandbox, _| fs_err::rename(rootfs_of(sandbox)?, sandbox.work().join("away")),
        "laid out anew",
    ),
    (
        "a conf folder says something else",
        |sandbox, built| {
            let etc = sandbox.store().join("conf").join(&built.image).join("etc");
            overwrite(&etc.join("hostname"), "other\n")
        },
        "laid out anew",
    ),
    (
        "neither an image nor its conf folder says what it said",
        |sandbox, built| {
            let etc = sandbox.store().join("conf").join(&built.image).join("etc");
            overwrite(&etc.join("hostname"), "other\n")?;
            overwrite(&sandbox.store().join("images").join(&built.image), "mk-image 1\n")
        },
        "built again by",
    ),
    (
        "a conf folder is gone",
        |sandbox, built| fs_err::remove_dir_all(sandbox.store().join("conf").join(&built.image)),
        "laid out anew",
    ),
    (
        "a name is no name",
        |sandbox, _| overwrite(&sandbox.store().join("refs/app"), "app\n"),
        "built again by",
    ),
    (
        "something is there that is not mk's",
        |sandbox, _| fs_err::write(sandbox.store().join("objects/mine"), "mine"),
        "taken away",
    ),
];

#[test]
fn every_kind_of_damage_is_mended_and_it_is_told_how() {
    for (what, damage, how) in DAMAGES {
        let Some((sandbox, built)) = scene() else { return };
        damage(&sandbox, &built).unwrap();
        assert_eq!(sandbox.mk(["verify"]).code, Some(1), "{what}");
        let repaired = repair(&sandbox);
        assert_eq!(repaired.code, Some(0), "{what}: {repaired}");
        assert!(repaired.stderr.contains("all is well now"), "{what}: {repaired}");
        assert!(repaired.to_string().contains(how), "{what}: {repaired}");
        // Of each damage it is told what helped: no folder is laid out of a damaged file.
        let laid_out = repaired.stdout.contains("laid out anew");
        assert!(
            !(laid_out && how.starts_with("built again")),
            "{what}: {repaired}"
        );
        whole(&sandbox, &built, what);
        let again = repair(&sandbox).ok();
        assert!(again.stderr.contains("all is well: "), "{what}: {again}");
    }
}

#[test]
fn several_damages_at_once_are_mended_also_without_steps_to_help() {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is how a test is told to be thorough"
    )]
    let rounds = if std::env::var_os("MK_TEST_STRESS").is_some() {
        60
    } else {
        6
    };
    let mut chance = Chance::new();
    for round in 0..rounds {
        let Some((sandbox, built)) = scene() else { return };
        let mut what = format!("round {round}, MK_TEST_SEED={}", chance.seed);
        for _ in 0..4 {
            let (name, damage, _) = DAMAGES[chance.below(DAMAGES.len())];
            what.push_str(&format!("; {name}"));
            // One may have taken away what another would damage.
            let done = damage(&sandbox, &built);
            what.push_str(if done.is_ok() { "" } else { " (not done)" });
        }
        let repaired = repair(&sandbox);
        assert_eq!(repaired.code, Some(0), "{what}: {repaired}");
        whole(&sandbox, &built, &what);
    }
}

/// Nothing said what the conf folder should hold, and the build that made the image again took it as it was.
#[test]
fn a_conf_folder_is_made_anew_with_its_image_where_the_name_is_damaged_too() {
    let Some((sandbox, built)) = scene() else { return };
    for name in [
        "neither an image nor its conf folder says what it said",
        "a document of an image is gone",
        "a name is no name",
    ] {
        let (_, damage, _) = DAMAGES.iter().find(|(known, ..)| *known == name).unwrap();
        damage(&sandbox, &built).unwrap();
    }
    let repaired = repair(&sandbox);
    assert_eq!(repaired.code, Some(0), "{repaired}");
    whole(&sandbox, &built, "all three");
}

#[test]
fn an_archive_that_is_damaged_is_fetched_again() {
    let Some((sandbox, built)) = scene() else { return };
    let held = fs_err::read_dir(sandbox.work().join("held"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap();
    let archive = fs_err::read(held.path()).unwrap();
    let source = sandbox.store().join("sources").join(held.file_name());
    overwrite(&source, "not it").unwrap();
    let repaired = repair(&sandbox).ok();
    assert!(repaired.stdout.contains(": fetched again\n"), "{repaired}");
    assert!(fs_err::read(&source).unwrap() == archive);
    // Where nobody has it any more it is taken away, and hurts nothing until it is needed.
    fs_err::remove_file(held.path()).unwrap();
    overwrite(&source, "not it").unwrap();
    let repaired = repair(&sandbox).ok();
    assert!(repaired.stdout.contains(": taken away\n"), "{repaired}");
    assert!(!source.exists());
    whole(&sandbox, &built, "without the archive");
    // Then its files are gone for good, and it is said why.
    damage_object(&sandbox, "etc/passwd", "nobody");
    let repaired = repair(&sandbox);
    assert_eq!(repaired.code, Some(1), "{repaired}");
    assert!(repaired.stderr.contains("`app` is not whole: "), "{repaired}");
    assert!(repaired.stderr.contains("rootfs.tar.gz"), "{repaired}");
}

#[test]
fn what_cannot_be_made_anew_is_said_with_what_to_type() {
    // The recipe is gone.
    let Some((sandbox, built)) = scene() else { return };
    damage_object(&sandbox, "made", "mede\n");
    let recipe = sandbox.work().join("app.toml");
    let text = fs_err::read_to_string(&recipe).unwrap();
    fs_err::remove_file(&recipe).unwrap();
    let repaired = repair(&sandbox);
    assert_eq!(repaired.code, Some(1), "{repaired}");
    let said = repaired.to_string();
    let typed = "type `mk build [work]/app.toml --arg word=said";
    assert!(
        said.contains("`app` is not whole: there is no recipe `[work]/app.toml`") && said.contains(typed),
        "{said}"
    );
    assert_eq!(sandbox.mk(["run", "app", "true"]).code, Some(125));
    // When it is back, so is the image.
    fs_err::write(&recipe, &text).unwrap();
    repair(&sandbox).ok();
    whole(&sandbox, &built, "with the recipe");
    // The recipe is another: no other image gets the name.
    damage_object(&sandbox, "made", "mede\n");
    fs_err::write(&recipe, text.replace("echo made", "echo more")).unwrap();
    let repaired = repair(&sandbox);
    assert_eq!(repaired.code, Some(1), "{repaired}");
    assert!(
        repaired
            .stderr
            .contains("`app` is not whole: the recipe gives another image now"),
        "{repaired}"
    );
    assert_eq!(
        fs_err::read_to_string(sandbox.store().join("refs/app")).unwrap(),
        format!("{}\n", built.image)
    );
    fs_err::write(&recipe, &text).unwrap();
    repair(&sandbox).ok();
    whole(&sandbox, &built, "with the recipe as it was");
    // Nobody remembers it.
    damage_object(&sandbox, "made", "mede\n");
    fs_err::remove_dir_all(sandbox.store().join("builds")).unwrap();
    let repaired = repair(&sandbox);
    assert_eq!(repaired.code, Some(1), "{repaired}");
    assert!(
        repaired.stderr.contains("type `mk build RECIPE --name app`"),
        "{repaired}"
    );
    let json: Value = serde_json::from_str(&sandbox.mk(["verify", "--repair", "--json"]).stdout).unwrap();
    assert!(!json["damaged"].as_array().unwrap().is_empty(), "{json}");
    assert!(json["repaired"][0]["done"].is_string(), "{json}");
    assert!(json["advice"][0].is_string(), "{json}");
}

#[test]
fn a_run_of_a_damaged_image_goes_on_as_if_nothing_were() {
    let Some((sandbox, built)) = scene() else { return };
    let mut command = sandbox.command();
    command.args([
        "run",
        "app",
        "sh",
        "-c",
        "echo up; read line; cat /made /more; ls /bin/cat /etc/hostname",
    ]);
    let mut run = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut up = [0; 3];
    run.stdout.as_mut().unwrap().read_exact(&mut up).unwrap();
    damage_object(&sandbox, "written", "else");
    fs_err::write(sandbox.rootfs("app").join("more"), "more\n").unwrap();
    let found = sandbox.mk(["verify"]);
    for words in [&["verify", "--repair"][..], &["verify", "--discard"]] {
        let repaired = sandbox.mk(words);
        assert_eq!(repaired.code, Some(1), "{repaired}");
        let said = format!("{}{}", repaired.stdout, repaired.stderr);
        assert!(
            said.contains("left as it is, because a run uses it"),
            "{repaired}"
        );
        // Nor does it lose anything that was whole.
        assert_eq!(sandbox.mk(["verify"]).stdout, found.stdout, "{words:?}");
        sandbox.tree("app");
    }
    drop(run.stdin.take());
    let output = run.wait_with_output().unwrap();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "made\nmore\n/bin/cat\n/etc/hostname\n"
    );
    let repaired = repair(&sandbox);
    assert_eq!(repaired.code, Some(0), "{repaired}");
    whole(&sandbox, &built, "after the run");
}

#[test]
fn what_no_name_needs_goes_in_a_repair_and_gc_takes_what_cannot_be_whole_again() {
    let Some((sandbox, built)) = scene() else { return };
    // Another image takes the name of one that cannot be built again.
    damage_object(&sandbox, "made", "mede\n");
    let recipe = sandbox.work().join("app.toml");
    let text = fs_err::read_to_string(&recipe).unwrap();
    fs_err::write(&recipe, text.replace("echo made", "echo other")).unwrap();
    let repaired = repair(&sandbox);
    assert_eq!(repaired.code, Some(1), "{repaired}");
    let again = sandbox.build("app.toml");
    assert_ne!(again.image, built.image);
    let verified = sandbox.mk(["verify"]);
    assert!(verified.stderr.contains("which `mk gc` takes away"), "{verified}");
    sandbox.mk(["gc"]).ok();
    sandbox.verify();
    // And where it can, but no name stands for it any more, the repair says that it went.
    fs_err::write(&recipe, &text).unwrap();
    sandbox.build("app.toml");
    damage_object(&sandbox, "made", "mede\n");
    sandbox.mk(["rm", "app"]).ok();
    let repaired = repair(&sandbox).ok();
    assert!(repaired.stderr.contains(" without a name went"), "{repaired}");
}

#[test]
fn a_repair_that_is_killed_leaves_what_the_next_can_go_on_with() {
    let mut chance = Chance::new();
    let Some((sandbox, built)) = scene() else { return };
    for round in 0..10 {
        damage_object(&sandbox, "made", "mede\n");
        damage_object(&sandbox, "etc/passwd", "nobody");
        fs_err::write(sandbox.rootfs("app").join("more"), "more").unwrap();
        let what = format!("round {round}, MK_TEST_SEED={}", chance.seed);
        let mut mk = sandbox
            .command()
            .args(["verify", "--repair"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(chance.moment(std::time::Duration::from_millis(400)));
        mk.kill().unwrap();
        mk.wait().unwrap();
        let repaired = repair(&sandbox);
        assert_eq!(repaired.code, Some(0), "{what}: {repaired}");
        whole(&sandbox, &built, &what);
    }
}

#[test]
fn a_store_that_lost_what_was_not_synced_is_mended_and_used_again() {
    let Some((sandbox, built)) = scene() else { return };
    // As a power cut leaves a store without syncs: names, and nothing behind them.
    damage_object(&sandbox, "made", "");
    overwrite(&sandbox.store().join("trees").join(&built.tree), "").unwrap();
    overwrite(
        &sandbox
            .store()
            .join("conf")
            .join(&built.image)
            .join("etc/resolv.conf"),
        "",
    )
    .unwrap();
    fs_err::write(sandbox.store().join("unsynced"), "").unwrap();
    assert_eq!(sandbox.mk(["run", "app", "true"]).code, Some(125));
    let repaired = repair(&sandbox);
    assert_eq!(repaired.code, Some(0), "{repaired}");
    assert!(!sandbox.store().join("unsynced").exists());
    whole(&sandbox, &built, "after the power cut");
    if needs::is_root() {
        assert_eq!(
            fs_err::metadata(sandbox.store()).unwrap().permissions().mode() & 0o777,
            0o700
        );
    }
}
