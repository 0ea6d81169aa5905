//! One recipe, one digest: whoever builds it, where, when and in whatever surroundings.

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, SystemTime};

use crate::harness::archive::{Item, Tar, deb, gzip};
use crate::harness::built::Built;
use crate::harness::{Sandbox, needs};

/// A bit of everything that needs nothing but what this test makes itself.
const RECIPE: &str = r#"
description = "a bit of everything"

[args]
greeting = "hello"

[[step]]
unpack = "base.tar.gz"

[[step]]
unpack = "package.deb"
exclude = ["usr/share/doc"]

[[step]]
copy = "files"
into = "/opt/files"

[[step]]
write = "/etc/issue"
text = "{greeting}\n"
mode = "0640"

[[step]]
dir = ["/var/spool/app", "/srv"]
mode = "1777"
owner = "1000:1000"

[[step]]
link = ["/bin/sh", "/bin/ls"]
to = "busybox"

[[step]]
user = "root"
uid = 0
home = "/root"
shell = "/bin/sh"

[[step]]
user = "app"
uid = 1000

[[step]]
remove = ["/tmp/**"]

[conf]
hostname = "everything"
hosts = { "10.0.0.7" = ["db", "database"] }
nameservers = ["9.9.9.9"]

[run]
command = ["/bin/sh"]
env = { PATH = "/bin", LANG = "C" }
workdir = "/srv"
user = "app"
"#;

/// What anyone gets from [`RECIPE`], as root or not, on any machine. These change only with the formats, and then every
/// image of every user has a new name: say so in the change log.
const TREE: &str = "cb7539b61bc3f7eceda9f8b0d8a937d6f519978b644de8d072d0d2e9e3a77e1e";
const IMAGE: &str = "ddf8b7f04e8d6c24ff7672ad6a07faf23a29abe18660c365b877f8cff91199b1";

/// Puts the recipe and what it needs into `folder`, the files in this order.
fn lay_out(sandbox: &Sandbox, folder: &str, backwards: bool) {
    let base = Tar::of([
        Item::folder("./").mtime(900_000_000),
        Item::folder("bin/"),
        Item::file("bin/busybox", b"not really\n").mode(0o4755),
        Item::hard_link("bin/cat", "bin/busybox"),
        Item::folder("tmp/").mode(0o1777),
        Item::file("tmp/left", b"over\n"),
        Item::folder("var/").owner(1, 2),
        Item::symlink("var/run", "../run"),
        Item::new(tar::EntryType::Fifo, "var/pipe").mtime(800_000_000),
    ]);
    let package = Tar::of([
        Item::folder("./usr/bin/"),
        Item::file("./usr/bin/tool", b"tool\n").mode(0o755),
        Item::file("./usr/share/doc/tool/copyright", b"free\n"),
    ]);
    let mut files: Vec<(&str, Vec<u8>)> = vec![
        ("everything.toml", RECIPE.into()),
        ("base.tar.gz", gzip(&base.finish())),
        ("package.deb", deb("tool", "1-1", &package.finish())),
        ("files/a", b"a\n".to_vec()),
        ("files/b/c", b"c\n".to_vec()),
        ("files/b/d", b"d\n".to_vec()),
        ("files/z", b"z\n".to_vec()),
    ];
    if backwards {
        files.reverse();
    }
    for (path, bytes) in files {
        let path = sandbox.write(format!("{folder}/{path}"), bytes);
        fs_err::set_permissions(path, PermissionsExt::from_mode(0o644)).unwrap();
    }
    let executable = sandbox.work().join(folder).join("files/b/d");
    fs_err::set_permissions(executable, PermissionsExt::from_mode(0o755)).unwrap();
}

/// Builds in a fresh sandbox.
#[track_caller]
fn build(change: impl FnOnce(&Sandbox, &mut std::process::Command)) -> Built {
    let sandbox = Sandbox::new();
    lay_out(&sandbox, "here", false);
    let words = ["build", "here/everything.toml", "--json", "--progress", "json"];
    Built::of(sandbox.mk_with(words, |command| change(&sandbox, command)))
}

#[track_caller]
fn assert_golden(built: &Built, surroundings: &str) {
    assert_eq!(
        (built.tree.as_str(), built.image.as_str()),
        (TREE, IMAGE),
        "{surroundings}"
    );
}

#[test]
fn a_recipe_has_the_digest_that_it_always_had() {
    assert_golden(&build(|_, _| {}), "plain");
}

#[test]
fn time_zone_language_and_home_do_not_count() {
    let changed = build(|_, command| {
        command
            .env("TZ", "Asia/Kathmandu")
            .env("LANG", "tr_TR.UTF-8")
            .env("LC_ALL", "tr_TR.UTF-8");
        command
            .env("HOME", "/nonexistent")
            .env("USER", "somebody")
            .env("HOSTNAME", "elsewhere");
    });
    assert_golden(&changed, "other time zone and language");
}

#[test]
fn the_umask_does_not_count() {
    for umask in ["000", "027", "077"] {
        let sandbox = Sandbox::new();
        lay_out(&sandbox, "here", false);
        let mk = sandbox.command();
        let mut shell = std::process::Command::new("/bin/sh");
        shell
            .args(["-c", "umask $1; shift; exec \"$@\"", "sh", umask])
            .arg(mk.get_program());
        shell.args(["build", "here/everything.toml", "--json", "--progress", "json"]);
        shell.current_dir(sandbox.work()).env_clear();
        shell.envs(mk.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let output = shell.output().unwrap();
        assert!(
            output.status.success(),
            "umask {umask}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let result: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(
            (result["tree"].as_str(), result["digest"].as_str()),
            (Some(TREE), Some(IMAGE)),
            "umask {umask}"
        );
        sandbox.verify();
        let mode = fs_err::metadata(sandbox.store()).unwrap().permissions().mode();
        assert_eq!(
            mode & 0o7777,
            0o700,
            "the store is for its owner, whatever the umask"
        );
    }
}

#[test]
fn the_folder_and_the_order_and_times_and_modes_of_its_files_do_not_count() {
    let sandbox = Sandbox::new();
    lay_out(&sandbox, "another/folder with spaces", true);
    let folder = sandbox.work().join("another/folder with spaces");
    let day = SystemTime::UNIX_EPOCH + Duration::from_secs(1_234_567_890);
    for name in [
        "everything.toml",
        "base.tar.gz",
        "package.deb",
        "files/a",
        "files/b/c",
        "files/b/d",
    ] {
        let file = fs_err::OpenOptions::new()
            .write(true)
            .open(folder.join(name))
            .unwrap();
        file.file().set_modified(day).unwrap();
    }
    for (name, mode) in [
        ("files", 0o700),
        ("files/a", 0o600),
        ("files/b/d", 0o700),
        ("base.tar.gz", 0o400),
    ] {
        fs_err::set_permissions(folder.join(name), PermissionsExt::from_mode(mode)).unwrap();
    }
    let recipe = folder.join("everything.toml");
    assert_golden(&sandbox.build(recipe.to_str().unwrap()), "another folder");
}

#[test]
fn what_the_store_holds_already_does_not_count() {
    let sandbox = Sandbox::new();
    lay_out(&sandbox, "here", false);
    sandbox.write("other.toml", RECIPE.replace("hello", "goodbye"));
    for name in ["base.tar.gz", "package.deb", "files"] {
        let there = sandbox.work().join("here").join(name);
        fs_err::os::unix::fs::symlink(there, sandbox.work().join(name)).unwrap();
    }
    let other = sandbox.build("other.toml");
    assert_ne!(other.tree, TREE);
    assert_golden(&sandbox.build("here/everything.toml"), "a store with parts of it");
}

#[test]
fn no_time_is_later_than_the_epoch_and_none_comes_from_the_clock() {
    let sandbox = Sandbox::new();
    lay_out(&sandbox, "here", false);
    sandbox.build("here/everything.toml");
    let tree = crate::harness::listing::Listing::of_tree(&sandbox.tree("everything"));
    let newest = tree.0.values().filter_map(|line| line.mtime).max();
    assert_eq!(
        newest,
        Some(crate::harness::archive::TIME as i64),
        "the newest time among the archives"
    );
    assert_eq!(
        tree.get("var/pipe").mtime,
        Some(800_000_000),
        "earlier times stay"
    );
    let epoch = |command: &mut std::process::Command| _ = command.env("SOURCE_DATE_EPOCH", "700000000");
    let words = ["build", "here/everything.toml", "--json", "--progress", "json"];
    let clamped = Built::of(sandbox.mk_with(words, epoch));
    assert_ne!(clamped.tree, TREE);
    let tree = crate::harness::listing::Listing::of_tree(&sandbox.tree("everything"));
    assert_eq!(
        tree.0.values().filter_map(|line| line.mtime).max(),
        Some(700_000_000)
    );
    sandbox.verify();
}

#[test]
fn a_caller_with_one_id_gets_what_root_gets() {
    if !needs::root() || !needs::namespaces() {
        return;
    }
    // Root of a user namespace in which nothing but uid 0 exists: every other owner is out of its reach.
    let sandbox = Sandbox::new();
    lay_out(&sandbox, "here", false);
    let mk = sandbox.command();
    let mut unshare = std::process::Command::new("/usr/bin/unshare");
    unshare.args(["--user", "--map-root-user"]).arg(mk.get_program());
    unshare.args(["build", "here/everything.toml", "--json", "--progress", "json"]);
    unshare.current_dir(sandbox.work()).env_clear();
    unshare.envs(mk.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output = unshare.output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let result: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (result["tree"].as_str(), result["digest"].as_str()),
        (Some(TREE), Some(IMAGE))
    );
}

#[test]
fn the_real_root_filesystems_have_the_digests_that_they_always_had() {
    for (image, fixture, tree) in [
        (
            "alpine",
            needs::FIXTURES[2],
            "3494d0f82bca744066ba8da28139fe6ad2fc000955d2e86fdd67f78735b8436f",
        ),
        (
            "busybox-musl",
            needs::FIXTURES[0],
            "1534c91060dc6de2a49a97672484bb88e674f35be46c66b4471a306f0e5e952a",
        ),
    ] {
        let Some(archive) = needs::fixture(fixture) else {
            return;
        };
        let sandbox = Sandbox::new();
        let built = sandbox.build_with(
            image,
            &["--source-dir", archive.parent().unwrap().to_str().unwrap()],
        );
        assert_eq!(built.tree, tree, "{image}");
        sandbox.verify();
    }
}
