//! A recipe becomes an image: what each verb makes of it, what is done again and what is not, and what archives that
//! are damaged or mean harm leave behind.

use std::process::Command;

use tar::EntryType;

use crate::harness::archive::{Item, TIME, Tar, deb, gzip};
use crate::harness::listing::{Line, Listing};
use crate::harness::{Sandbox, needs};

/// Builds `recipe` with `files` beside it and returns the tree's text without its first line.
#[track_caller]
fn tree_of(recipe: &str, files: &[(&str, &[u8])]) -> String {
    let sandbox = Sandbox::new();
    for (path, bytes) in files {
        sandbox.write(path, bytes);
    }
    sandbox.write("app.toml", recipe);
    sandbox.build("app.toml");
    sandbox.verify();
    let text = sandbox.tree("app");
    text.strip_prefix("#mtree mk-tree 1\n").unwrap().to_owned()
}

const HI: &str = "size=3 sha256=98ea6e4f216f2fb4b69fff9b3a44842c38686ca685f3f55dc48c5d3fb1107be4";

#[test]
fn write_makes_a_file_and_the_folders_above_it() {
    let recipe = "epoch = 7\n[[step]]\nwrite = '/etc/motd'\ntext = \"hi\\n\"\nmode = '0600'\nowner = '3:4'\n";
    assert_eq!(
        tree_of(recipe, &[]),
        format!(
            ". type=dir mode=0755 uid=0 gid=0 time=7.0\n\
             ./etc type=dir mode=0755 uid=0 gid=0 time=7.0\n\
             ./etc/motd type=file mode=0600 uid=3 gid=4 time=7.0 {HI}\n"
        )
    );
}

#[test]
fn link_makes_one_link_or_several_to_one_target() {
    let recipe =
        "[[step]]\nlink = ['/bin/sh', '/ls']\nto = 'busy box'\n[[step]]\nlink = '/x'\nto = '/nowhere'\n";
    assert_eq!(
        tree_of(recipe, &[]),
        ". type=dir mode=0755 uid=0 gid=0 time=0.0\n\
         ./bin type=dir mode=0755 uid=0 gid=0 time=0.0\n\
         ./bin/sh type=link mode=0777 uid=0 gid=0 time=0.0 link=busy\\040box\n\
         ./ls type=link mode=0777 uid=0 gid=0 time=0.0 link=busy\\040box\n\
         ./x type=link mode=0777 uid=0 gid=0 time=0.0 link=/nowhere\n"
    );
}

#[test]
fn dir_makes_a_folder_or_changes_one() {
    let recipe =
        "[[step]]\ndir = '/var/spool'\nmode = '1777'\n[[step]]\ndir = '/var'\nmode = '0711'\nowner = '5'\n";
    assert_eq!(
        tree_of(recipe, &[]),
        ". type=dir mode=0755 uid=0 gid=0 time=0.0\n\
         ./var type=dir mode=0711 uid=5 gid=5 time=0.0\n\
         ./var/spool type=dir mode=1777 uid=0 gid=0 time=0.0\n"
    );
}

#[test]
fn remove_takes_what_matches_and_says_where_nothing_does() {
    let recipe = "[[step]]\ndir = ['/doc/a/b', '/doc/c', '/keep']\n[[step]]\nremove = ['/doc/**']\n";
    assert_eq!(
        tree_of(recipe, &[]),
        ". type=dir mode=0755 uid=0 gid=0 time=0.0\n\
         ./doc type=dir mode=0755 uid=0 gid=0 time=0.0\n\
         ./keep type=dir mode=0755 uid=0 gid=0 time=0.0\n"
    );
    let sandbox = Sandbox::new();
    sandbox.write("app.toml", "[[step]]\nremove = ['/nothing']\n");
    let output = sandbox.mk(["build", "app.toml"]);
    assert_eq!(output.code, Some(1), "{output}");
    assert!(output.stderr.contains("nothing"), "{output}");
}

#[test]
fn copy_takes_contents_and_execute_bits_from_the_machine_and_nothing_else() {
    let sandbox = Sandbox::new();
    let tool = sandbox.write("files/bin/tool", "hi\n");
    let plain = sandbox.write("files/plain", "hi\n");
    for (path, mode) in [(&tool, 0o711), (&plain, 0o620)] {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
        fs_err::set_permissions(path, mode).unwrap();
    }
    fs_err::os::unix::fs::symlink("bin/tool", sandbox.work().join("files/link")).unwrap();
    let recipe = "epoch = 9\n[[step]]\ncopy = 'files'\ninto = '/opt'\nowner = '1:2'\n\
                  [[step]]\ncopy = 'files/plain'\ninto = '/etc/motd'\nmode = '0400'\n";
    sandbox.write("app.toml", recipe);
    sandbox.build("app.toml");
    assert_eq!(
        sandbox.tree("app"),
        format!(
            "#mtree mk-tree 1\n\
             . type=dir mode=0755 uid=0 gid=0 time=9.0\n\
             ./etc type=dir mode=0755 uid=0 gid=0 time=9.0\n\
             ./etc/motd type=file mode=0400 uid=0 gid=0 time=9.0 {HI}\n\
             ./opt type=dir mode=0755 uid=0 gid=0 time=9.0\n\
             ./opt/bin type=dir mode=0755 uid=1 gid=2 time=9.0\n\
             ./opt/bin/tool type=file mode=0755 uid=1 gid=2 time=9.0 {HI}\n\
             ./opt/link type=link mode=0777 uid=1 gid=2 time=9.0 link=bin/tool\n\
             ./opt/plain type=file mode=0644 uid=1 gid=2 time=9.0 {HI}\n"
        )
    );
}

#[test]
fn user_makes_accounts_without_a_shell() {
    let sandbox = Sandbox::new();
    let recipe = "[[step]]\nuser = 'root'\nuid = 0\nhome = '/root'\nshell = '/bin/sh'\n\
                  [[step]]\nuser = 'app'\nuid = 1000\nhome = '/home/app'\n";
    sandbox.write("app.toml", recipe);
    sandbox.build("app.toml");
    let out = sandbox.work().join("out");
    sandbox
        .mk(["export", "app", "--folder", out.to_str().unwrap()])
        .ok();
    let passwd = fs_err::read_to_string(out.join("etc/passwd")).unwrap();
    assert!(passwd.starts_with("root:x:0:0:"), "{passwd}");
    assert!(
        passwd.lines().nth(1).unwrap().starts_with("app:x:1000:1000:"),
        "{passwd}"
    );
    assert_eq!(
        fs_err::read_to_string(out.join("etc/group")).unwrap(),
        "root:x:0:\napp:x:1000:\n"
    );
    let tree = Listing::of_tree(&sandbox.tree("app"));
    assert_eq!(tree.get("home/app").owner, Some((1000, 1000)));
    assert_eq!(tree.get("etc/shadow").mode, Some(0o640));
}

#[test]
fn unpack_takes_tar_plain_or_packed_and_debian_packages() {
    let tar = Tar::of([
        Item::folder("./"),
        Item::folder("./bin/").mode(0o2755).owner(1, 2),
        Item::file("./bin/hi", b"hi\n").mode(0o4755),
        Item::hard_link("./bin/ho", "./bin/hi"),
        Item::symlink("./sh", "bin/hi"),
        Item::new(EntryType::Fifo, "./pipe").mtime(5),
    ])
    .finish();
    let expected = format!(
        ". type=dir mode=0755 uid=0 gid=0 time={TIME}.0\n\
         ./bin type=dir mode=2755 uid=1 gid=2 time={TIME}.0\n\
         ./bin/hi type=file mode=4755 uid=0 gid=0 time={TIME}.0 {HI}\n\
         ./bin/ho type=file mode=4755 uid=0 gid=0 time={TIME}.0 {HI} tags=hardlink:bin/hi\n\
         ./pipe type=fifo mode=0644 uid=0 gid=0 time=5.0\n\
         ./sh type=link mode=0777 uid=0 gid=0 time={TIME}.0 link=bin/hi\n"
    );
    // Told by content: the name says nothing.
    let packages = [tar.clone(), gzip(&tar), deb("hi", "1-1", &tar)];
    for (index, bytes) in packages.iter().enumerate() {
        let tree = tree_of("[[step]]\nunpack = 'archive'\n", &[("archive", bytes)]);
        assert_eq!(tree, expected, "archive {index}");
    }
}

#[test]
fn unpack_strips_moves_and_chooses() {
    let tar = Tar::of([
        Item::file("top/keep/a", b"hi\n"),
        Item::file("top/keep/b.o", b"hi\n"),
        Item::file("top/leave/c", b"hi\n"),
    ])
    .finish();
    let recipe =
        "[[step]]\nunpack = 'a.tar'\ninto = '/opt'\nstrip = 1\ninclude = ['keep']\nexclude = ['**/*.o']\n";
    let tree = tree_of(recipe, &[("a.tar", &tar)]);
    let paths: Vec<&str> = tree.lines().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(paths, [".", "./opt", "./opt/keep", "./opt/keep/a"]);
}

#[test]
fn a_folder_of_an_archive_goes_through_a_link_to_a_folder() {
    let merged = Tar::of([Item::folder("usr/bin/"), Item::symlink("bin", "usr/bin")]).finish();
    let package = Tar::of([Item::folder("./bin/"), Item::file("./bin/ls", b"hi\n")]).finish();
    let recipe = "[[step]]\nunpack = 'merged.tar'\n[[step]]\nunpack = 'package.deb'\n";
    let files: [(&str, &[u8]); 2] = [
        ("merged.tar", &merged),
        ("package.deb", &deb("ls", "1", &package)),
    ];
    let tree = tree_of(recipe, &files);
    assert!(tree.contains("\n./bin type=link"), "{tree}");
    assert!(tree.contains("\n./usr/bin/ls type=file"), "{tree}");
}

#[test]
fn arguments_are_filled_in_and_those_that_do_not_exist_are_refused() {
    let sandbox = Sandbox::new();
    let recipe = "[args]\ngreeting = 'hello'\n[[step]]\nwrite = '/etc/issue'\ntext = '{greeting} {{}}'\n";
    sandbox.write("app.toml", recipe);
    let content = |path: &std::path::Path| fs_err::read_to_string(path.join("etc/issue")).unwrap();
    let plain = sandbox.build("app.toml");
    assert_eq!(content(&sandbox.rootfs("app")), "hello {}");
    let other = sandbox.build_with("app.toml", &["--arg", "greeting=hi"]);
    assert_eq!(content(&sandbox.rootfs("app")), "hi {}");
    assert_ne!(plain.image, other.image);
    let output = sandbox.mk(["build", "app.toml", "--arg", "greetin=hi"]);
    assert_eq!(output.code, Some(1), "{output}");
    assert!(output.stderr.contains("greetin"), "{output}");
}

#[test]
fn a_second_build_does_no_work_and_says_so() {
    let sandbox = Sandbox::new();
    sandbox.write("a.tar", Tar::of([Item::file("hi", b"hi\n")]).finish());
    sandbox.write(
        "app.toml",
        "[[step]]\nunpack = 'a.tar'\n[[step]]\nwrite = '/x'\ntext = 'x'\n",
    );
    let first = sandbox.build("app.toml");
    assert_eq!((first.done.len(), first.cached), (2, 0));
    let before = snapshot(&sandbox);
    let second = sandbox.build("app.toml");
    assert_eq!((second.done.len(), second.cached), (0, 2));
    assert_eq!((first.image, first.tree), (second.image, second.tree));
    assert_eq!(snapshot(&sandbox), before, "the store was written to");
    let output = sandbox.mk(["build", "app.toml"]).ok();
    assert!(
        output.stderr.contains("nothing to do") || output.stderr.contains("unchanged"),
        "{output}"
    );
}

/// Every path of the store with its inode, so that a file that was written again shows. Locks come and go.
fn snapshot(sandbox: &Sandbox) -> Vec<(String, u64)> {
    let mut all = Vec::new();
    let mut folders = vec![sandbox.store()];
    while let Some(folder) = folders.pop() {
        for entry in fs_err::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let metadata = fs_err::symlink_metadata(&path).unwrap();
            all.push((
                path.display().to_string(),
                std::os::unix::fs::MetadataExt::ino(&metadata),
            ));
            // As an ordinary user some folders of an image cannot be read; what is in them came with them.
            if metadata.is_dir() && fs_err::read_dir(&path).is_ok() {
                folders.push(path);
            }
        }
    }
    all.retain(|(path, _)| !path.contains("/locks"));
    all.sort();
    all
}

#[test]
fn an_edited_step_is_done_again_with_those_after_it_and_no_other() {
    let sandbox = Sandbox::new();
    let recipe = |text: &str| {
        format!(
            "[[step]]\nwrite = '/1'\ntext = '1'\n[[step]]\nwrite = '/2'\ntext = '{text}'\n[[step]]\ndir = '/3'\n\
             [[step]]\nlink = '/4'\nto = '3'\n"
        )
    };
    sandbox.write("app.toml", recipe("2"));
    let first = sandbox.build("app.toml");
    assert_eq!(first.done.len(), 4);
    sandbox.write("app.toml", recipe("two"));
    let second = sandbox.build("app.toml");
    assert_eq!((second.done.as_slice(), second.cached), (&first.done[1..], 1));
    sandbox.write("app.toml", recipe("2"));
    let third = sandbox.build("app.toml");
    assert_eq!(
        (third.done.len(), third.cached),
        (0, 4),
        "the old result was forgotten"
    );
    assert_eq!(third.image, first.image);
}

#[test]
fn a_step_that_gives_the_same_tree_as_before_costs_nothing_after_it() {
    let sandbox = Sandbox::new();
    let tar = |comment: &str| {
        let file = Tar::of([Item::file("hi", b"hi\n")]).finish();
        [file, comment.as_bytes().to_vec()].concat()
    };
    sandbox.write(
        "app.toml",
        "[[step]]\nunpack = 'a.tar'\n[[step]]\nwrite = '/x'\ntext = 'x'\n",
    );
    sandbox.write("a.tar", tar(""));
    let first = sandbox.build("app.toml");
    // What stands behind the end of a tar archive changes its digest and none of its entries.
    sandbox.write("a.tar", tar("\0\0"));
    let second = sandbox.build("app.toml");
    assert_eq!(second.image, first.image);
    assert_eq!(
        second.done,
        first.done[..1],
        "the key of a step holds the tree that it starts from, not its key"
    );
}

#[test]
fn owners_are_kept_in_the_tree_whoever_builds() {
    let sandbox = Sandbox::new();
    let tar = Tar::of([
        Item::folder("srv/").owner(33, 44).mode(0o750),
        Item::file("srv/page", b"hi\n").owner(65_534, 44_000).mode(0o640),
    ]);
    sandbox.write("a.tar", tar.finish());
    sandbox.write("app.toml", "[[step]]\nunpack = 'a.tar'\n");
    sandbox.build("app.toml");
    let tree = Listing::of_tree(&sandbox.tree("app"));
    assert_eq!(tree.get("srv").owner, Some((33, 44)));
    assert_eq!(tree.get("srv/page").owner, Some((65_534, 44_000)));
    sandbox.verify();
    if needs::is_root() {
        let folder = Listing::of_folder(&sandbox.rootfs("app"));
        folder.assert_is(&tree, "the folder and the tree");
    }
}

/// Returns what is at `root` as far as one id can hold it.
fn without_owners(listing: Listing) -> Listing {
    listing.map(|line| line.owner = None)
}

/// Does `tar`-like `program` unpack what mk unpacks?
#[track_caller]
fn compare_with(program: &str, fixture: &str) {
    let (Some(archive), Some(program)) = (needs::fixture(fixture), needs::program(program)) else {
        return;
    };
    let sandbox = Sandbox::new();
    let folder = sandbox.work().join("peer");
    fs_err::create_dir(&folder).unwrap();
    let owners: &[&str] = if needs::is_root() {
        &["--numeric-owner"]
    } else {
        &["--no-same-owner"]
    };
    let status = Command::new(&program)
        .arg("-xpf")
        .arg(&archive)
        .args(owners)
        .current_dir(&folder)
        .status();
    assert!(status.unwrap().success());
    fs_err::copy(&archive, sandbox.work().join("rootfs.tar.gz")).unwrap();
    sandbox.write("app.toml", "[[step]]\nunpack = 'rootfs.tar.gz'\n");
    sandbox.build("app.toml");
    let tree = Listing::of_tree(&sandbox.tree("app"));
    let (mut peer, ours) = (
        Listing::of_folder(&folder),
        Listing::of_folder(&sandbox.rootfs("app")),
    );
    if program.ends_with("bsdtar") {
        // It leaves the time of the folder that it is told to unpack into as it is.
        peer.0.get_mut(&b"."[..]).unwrap().mtime = tree.get(".").mtime;
    }
    if needs::is_root() {
        ours.assert_is(&tree, "mk's folder and its tree");
        tree.assert_is(&peer, "mk's tree and the peer's folder");
    } else {
        // One id holds no other owners; what nobody but their owner may read, this test cannot either.
        let tree = without_owners(readable(tree, &ours));
        without_owners(ours).assert_is(&tree, "mk's folder and its tree");
        tree.assert_is(&without_owners(peer), "mk's tree and the peer's folder");
    }
}

/// Replaces the content of what cannot be read in a folder by what stands there for it.
fn readable(mut tree: Listing, folder: &Listing) -> Listing {
    for (path, line) in &mut tree.0 {
        let content = folder.0.get(path).and_then(|line| line.content.clone());
        if content.as_ref().is_some_and(|content| content.len() != 64) {
            line.content = content;
        }
    }
    tree
}

#[test]
fn the_fixtures_unpack_as_tar_unpacks_them() {
    needs::FIXTURES
        .iter()
        .for_each(|fixture| compare_with("tar", fixture));
}

#[test]
fn the_fixtures_unpack_as_bsdtar_unpacks_them() {
    needs::FIXTURES
        .iter()
        .for_each(|fixture| compare_with("bsdtar", fixture));
}

#[test]
fn the_tree_of_a_fixture_has_the_owners_that_tar_lists() {
    let Some(tar) = needs::program("tar") else { return };
    for fixture in needs::FIXTURES {
        let Some(archive) = needs::fixture(fixture) else {
            return;
        };
        let sandbox = Sandbox::new();
        fs_err::copy(&archive, sandbox.work().join("rootfs.tar.gz")).unwrap();
        sandbox.write("app.toml", "[[step]]\nunpack = 'rootfs.tar.gz'\n");
        sandbox.build("app.toml");
        let tree = Listing::of_tree(&sandbox.tree("app"));
        let output = Command::new(&tar)
            .args(["--numeric-owner", "-tvf"])
            .arg(&archive)
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.lines().count() > 400, "{text}");
        for line in text.lines() {
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            let (uid, gid) = words[1].split_once('/').unwrap();
            let path = words[5].trim_start_matches("./").trim_end_matches('/');
            let path = if path.is_empty() { "." } else { path };
            let owner = (uid.parse().unwrap(), gid.parse().unwrap());
            assert_eq!(tree.get(path).owner, Some(owner), "{path}");
        }
    }
}

#[test]
fn mtree_finds_no_difference_between_a_tree_and_its_folder() {
    let (Some(archive), Some(mtree)) = (needs::fixture(needs::FIXTURES[2]), needs::program("mtree")) else {
        return;
    };
    if !needs::root() {
        return;
    }
    let sandbox = Sandbox::new();
    let sources = archive.parent().unwrap().to_str().unwrap();
    sandbox.mk(["build", "alpine", "--source-dir", sources]).ok();
    sandbox.write("tree", sandbox.tree("alpine"));
    let check = || {
        let tree = fs_err::File::open(sandbox.work().join("tree"))
            .unwrap()
            .into_file();
        let mut command = Command::new(&mtree);
        let output = command
            .arg("-p")
            .arg(sandbox.rootfs("alpine"))
            .stdin(tree)
            .output()
            .unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    assert_eq!(check(), (Some(0), String::new(), String::new()));
    // The check above would pass with an mtree that looks at nothing, too.
    let passwd = sandbox.rootfs("alpine").join("etc/passwd");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    fs_err::set_permissions(passwd, mode).unwrap();
    assert_ne!(check().0, Some(0));
}

/// An archive, and what the error must say of it.
type Bad = (&'static str, Vec<u8>, &'static [&'static str]);

fn bad_archives() -> Vec<Bad> {
    let good = || Item::file("good", b"hi\n");
    let large = vec![b'x'; 100_000];
    let packed = gzip(&Tar::of([good(), Item::file("large", &large)]).finish());
    let mut flipped = packed.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 0x55;
    let mut checksum = Tar::of([good(), good()]).finish();
    checksum[1024 + 100] ^= 1;
    let deep = vec!["d"; 2000].join("/");
    let sparse = |size: &'static [u8]| {
        Tar::default()
            .pax(&[
                ("GNU.sparse.major", b"1"),
                ("GNU.sparse.minor", b"0"),
                ("GNU.sparse.realsize", size),
            ])
            .with(Item::file("holes", b"1\n0\n0\n"))
            .finish()
    };
    vec![
        (
            "above",
            Tar::of([good(), Item::file("../canary", b"bad")]).finish(),
            &["byte 1024"],
        ),
        (
            "above, later",
            Tar::of([good(), Item::file("a/../../canary", b"bad")]).finish(),
            &["byte 1024"],
        ),
        (
            "link above",
            Tar::of([good(), Item::hard_link("a", "../canary")]).finish(),
            &["byte 1024"],
        ),
        (
            "link to nothing",
            Tar::of([good(), Item::hard_link("a", "/etc/hostname")]).finish(),
            &["etc/hostname"],
        ),
        (
            "empty name",
            Tar::of([good(), Item::file("", b"bad")]).finish(),
            &[],
        ),
        (
            "circle",
            Tar::of([
                Item::symlink("a", "b"),
                Item::symlink("b", "a"),
                Item::file("a/x", b""),
            ])
            .finish(),
            &[],
        ),
        (
            "through a file",
            Tar::of([good(), Item::file("good/x", b"bad")]).finish(),
            &["good"],
        ),
        (
            "folder in the way",
            Tar::of([Item::file("a/b", b""), Item::file("a", b"")]).finish(),
            &["`/a`"],
        ),
        ("packed, cut off", packed[..packed.len() - 20].to_vec(), &[]),
        ("packed, damaged", flipped, &[]),
        (
            "cut off in a file",
            Tar::of([good(), Item::file("large", &large)]).unfinished()[..5000].to_vec(),
            &["byte"],
        ),
        (
            "cut off in a header",
            Tar::of([good(), good()]).unfinished()[..1300].to_vec(),
            &["byte"],
        ),
        ("wrong checksum", checksum, &["byte 1024"]),
        (
            "more than there is",
            Tar::of([Item {
                claimed: Some(1 << 32),
                ..good()
            }])
            .finish(),
            &["byte"],
        ),
        (
            "more than there can be",
            Tar::of([Item {
                claimed: Some(1 << 62),
                ..good()
            }])
            .finish(),
            &["byte"],
        ),
        ("holes without end", sparse(b"9000000000000000000"), &[]),
        (
            "too deep",
            Tar::default()
                .pax(&[("path", deep.as_bytes())])
                .with(good())
                .finish(),
            &[],
        ),
        (
            "name with NUL",
            Tar::default().pax(&[("path", b"a\0b")]).with(good()).finish(),
            &[],
        ),
        ("not an archive", b"#!/bin/sh\necho hello\n".repeat(100), &[]),
        ("nothing", Vec::new(), &[]),
        ("package without files", deb("x", "1", b"")[..200].to_vec(), &[]),
    ]
}

#[test]
fn archives_that_are_damaged_or_mean_harm_leave_the_store_as_it_was() {
    let sandbox = Sandbox::new();
    sandbox.write("good.toml", "[[step]]\nwrite = '/x'\ntext = 'x'\n");
    sandbox.build("good.toml");
    let canary = sandbox.write("../canary", "canary");
    let before = snapshot(&sandbox);
    for (name, bytes, says) in bad_archives() {
        sandbox.write("bad.tar", bytes);
        sandbox.write("bad.toml", "[[step]]\nunpack = 'bad.tar'\n");
        let output = sandbox.mk(["build", "bad.toml"]);
        assert_eq!(output.code, Some(1), "{name}: {output}");
        assert!(output.stderr.contains("bad.tar"), "{name}: {output}");
        for word in says {
            assert!(
                output.stderr.contains(word),
                "{name}: {word:?} is not in {output}"
            );
        }
        assert!(!output.stderr.contains("mk bug"), "{name}: {output}");
        assert_eq!(snapshot(&sandbox), before, "{name}: the store is not as it was");
        assert_eq!(fs_err::read_to_string(&canary).unwrap(), "canary", "{name}");
    }
    sandbox.verify();
    let images = sandbox.mk(["images"]).ok();
    assert!(!images.stdout.contains("bad"), "{images}");
}

#[test]
fn what_an_archive_points_out_of_the_image_stays_in_it() {
    let sandbox = Sandbox::new();
    let outside = sandbox.work().join("outside");
    fs_err::create_dir(&outside).unwrap();
    let outside = outside.to_str().unwrap().to_owned();
    let short = Sandbox::new();
    let canary = short.work().join("c");
    let absolute = canary.to_str().unwrap();
    let tar = Tar::of([
        Item::symlink("way-out", &outside),
        Item::file("way-out/file", b"hi\n"),
        Item::symlink("up", "../../../../../.."),
        Item::file("up/climbed", b"hi\n"),
        Item::file(absolute, b"hi\n"),
    ]);
    sandbox.write("a.tar", tar.finish());
    sandbox.write("app.toml", "[[step]]\nunpack = 'a.tar'\n");
    sandbox.build("app.toml");
    sandbox.verify();
    assert_eq!(
        fs_err::read_dir(&outside).unwrap().count(),
        0,
        "a file came out of the image"
    );
    assert!(!canary.exists(), "an absolute path came out of the image");
    let tree = Listing::of_tree(&sandbox.tree("app"));
    for path in [
        format!("{outside}/file"),
        absolute.to_owned(),
        "/climbed".to_owned(),
    ] {
        tree.get(path.trim_start_matches('/'));
    }
}

#[test]
fn device_nodes_are_in_the_tree_and_never_made() {
    let sandbox = Sandbox::new();
    let node = |kind, path: &'static str| Item {
        device: (1, 3),
        ..Item::new(kind, path).mode(0o666)
    };
    let tar = Tar::of([
        node(EntryType::Char, "dev/null"),
        node(EntryType::Block, "dev/disk"),
    ]);
    sandbox.write("a.tar", tar.finish());
    sandbox.write("app.toml", "[[step]]\nunpack = 'a.tar'\n");
    sandbox.build("app.toml");
    let tree = sandbox.tree("app");
    assert!(
        tree.contains("./dev/null type=char mode=0666 uid=0 gid=0 time=1000000000.0 device=native,1,3\n"),
        "{tree}"
    );
    let folder = Listing::of_folder(&sandbox.rootfs("app"));
    assert_eq!(folder.paths(), [".", "dev"]);
    sandbox.verify();
}

#[test]
fn names_of_any_bytes_come_back_as_they_were() {
    let sandbox = Sandbox::new();
    let names: [&[u8]; 6] = [
        b"sp ace",
        b"new\nline",
        b"\xff\xfe",
        b"back\\slash",
        b"#*?[=",
        b"\x1b[31m",
    ];
    let items = names.iter().map(|name| Item {
        path: name,
        ..Item::file("", b"hi\n")
    });
    sandbox.write("a.tar", Tar::of(items).finish());
    sandbox.write("app.toml", "[[step]]\nunpack = 'a.tar'\n");
    sandbox.build("app.toml");
    sandbox.verify();
    let tree = Listing::of_tree(&sandbox.tree("app"));
    let folder = Listing::of_folder(&sandbox.rootfs("app"));
    for name in names {
        let is_file = |listing: &Listing| listing.0.get(name).is_some_and(|line: &Line| line.kind == "file");
        assert!(is_file(&tree) && is_file(&folder), "{name:?}");
    }
}

#[test]
fn a_failed_build_leaves_the_name_where_it_was() {
    let sandbox = Sandbox::new();
    sandbox.write("app.toml", "[[step]]\nwrite = '/x'\ntext = 'x'\n");
    let before = sandbox.build("app.toml");
    sandbox.write(
        "app.toml",
        "[[step]]\nwrite = '/x'\ntext = 'y'\n[[step]]\nremove = '/nothing'\n",
    );
    let output = sandbox.mk(["build", "app.toml"]);
    assert_eq!(output.code, Some(1), "{output}");
    assert!(output.stderr.contains("step 2"), "{output}");
    assert_eq!(
        sandbox
            .mk(["inspect", "app"])
            .ok()
            .stdout
            .matches(&before.tree)
            .count(),
        1
    );
    sandbox.verify();
}
