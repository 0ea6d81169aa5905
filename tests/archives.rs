//! Archives in images: the same as what other programs unpack, and nothing more where they are damaged or mean harm.

use std::process::Command;

use tar::EntryType;

use crate::build::snapshot;
use crate::harness::archive::{Item, Tar, deb, gzip};
use crate::harness::listing::{Line, Listing};
use crate::harness::{Sandbox, needs};

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
