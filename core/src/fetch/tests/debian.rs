use std::collections::BTreeMap;

use pgp::crypto::hash::HashAlgorithm;

use super::archive::{Archive, gz, serve, stanza, xz};
use super::signer::{Manner, Signer, sign_all};
use super::*;
use crate::fetch::debian;
use crate::plan::lock::{DebKey, DebPin};

fn look_up(
    names: &[&str],
    settings: &Settings,
    watch: &dyn Watch,
) -> Result<BTreeMap<DebKey, DebPin>, Error> {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    debian::look_up("bookworm", &names, &["amd64", "arm64"], settings, watch)
}

/// Returns `package arch version` of each pin.
fn shown(pins: &BTreeMap<DebKey, DebPin>) -> Vec<String> {
    pins.iter()
        .map(|(key, pin)| format!("{} {} {}", key.package, key.arch, pin.version))
        .collect()
}

#[test]
fn packages_are_pinned_to_their_newest_version_for_each_architecture() {
    let (archive, signer) = (Archive::new(), Signer::with_subkey());
    archive.publish(&signer.sign(&archive.text()));
    let pins = look_up(
        &["tzdata", "busybox-static", "grub-pc"],
        &archive.settings(signer.keyring()),
        &(),
    )
    .unwrap();
    assert_eq!(
        shown(&pins),
        [
            "busybox-static amd64 1:1.35.0-4+b3",
            "busybox-static arm64 1:1.35.0-4+b4",
            "grub-pc amd64 2.06-13",
            "tzdata amd64 2026b-0",
            "tzdata arm64 2026b-0",
        ]
    );
    let (key, pin) = pins.first_key_value().unwrap();
    assert_eq!((key.suite.as_str(), pin.size), ("bookworm", 34));
    assert_eq!(pin.sha256, Digest::of(b"busybox-static 1:1.35.0-4+b3 amd64"));
    assert_eq!(pin.path, "pool/main/busybox-static_1:1.35.0-4+b3_amd64.deb");
}

#[test]
fn any_good_signature_vouches() {
    let (archive, signer, stranger) = (Archive::new(), Signer::with_subkey(), Signer::alone());
    let alone = Signer::alone();
    let usual = Manner::default();
    let text = archive.text();
    for (in_release, keyring) in [
        (signer.sign(&text), signer.armoured().into_bytes()),
        (alone.sign(&text), alone.keyring()),
        (
            sign_all(&text, &[(&stranger, &usual), (&signer, &usual)]),
            signer.keyring(),
        ),
        (
            signer.sign(&text),
            [stranger.keyring(), signer.keyring()].concat(),
        ),
        (
            signer.sign_as(
                &text,
                &Manner {
                    age: 20,
                    lasts: Some(30),
                    ..usual
                },
            ),
            signer.keyring(),
        ),
    ] {
        archive.publish(&in_release);
        look_up(&["busybox-static"], &archive.settings(keyring), &()).unwrap();
    }
}

#[test]
fn what_no_known_key_vouches_for_is_refused_with_the_reason() {
    let (archive, signer) = (Archive::new(), Signer::with_subkey());
    let text = archive.text();
    let good = signer.sign(&text);
    let stranger = Signer::alone();
    let (mut revoked, mut sub_revoked) = (Signer::alone(), Signer::with_subkey());
    revoked.revoke();
    sub_revoked.revoke_subkey();
    let mut expired = Signer::alone();
    expired.expire_after(29);
    let mut thief = Signer::alone();
    thief.claim_subkey_of(&signer);
    let lenient = Signer::lenient();
    let weak = Manner {
        hash: HashAlgorithm::Sha1,
        ..Manner::default()
    };
    let past = Manner {
        age: 20,
        lasts: Some(19),
        ..Manner::default()
    };
    let future = Manner {
        age: -3,
        ..Manner::default()
    };
    let cases: Vec<(&str, String, Vec<u8>, &str)> = vec![
        (
            "a stranger",
            stranger.sign(&text),
            signer.keyring(),
            "in no keyring",
        ),
        ("nobody", text.clone(), signer.keyring(), "not signed as expected"),
        (
            "changed text",
            good.replace("oldstable", "0ldstable"),
            signer.keyring(),
            "the text was changed",
        ),
        (
            "text before",
            format!("SHA256:\n{good}"),
            signer.keyring(),
            "not signed as expected",
        ),
        (
            "text after",
            format!("{good}SHA256:\n"),
            signer.keyring(),
            "not signed as expected",
        ),
        (
            "cut short",
            good[..good.len() - 40].to_owned(),
            signer.keyring(),
            "not signed as expected",
        ),
        (
            "a revoked key",
            revoked.sign(&text),
            revoked.keyring(),
            "was revoked",
        ),
        (
            "a revoked subkey",
            sub_revoked.sign(&text),
            sub_revoked.keyring(),
            "was revoked",
        ),
        (
            "an expired key",
            expired.sign(&text),
            expired.keyring(),
            "has expired",
        ),
        (
            "a key not for signing",
            signer.sign_by_primary(&text),
            signer.keyring(),
            "not one for signing",
        ),
        (
            "somebody else's subkey",
            good.clone(),
            thief.keyring(),
            "not one for signing",
        ),
        (
            "a weak hash",
            lenient.sign_as(&text, &weak),
            lenient.keyring(),
            "SHA1, which can be forged",
        ),
        (
            "a past signature",
            signer.sign_as(&text, &past),
            signer.keyring(),
            "has expired or is not valid yet",
        ),
        (
            "a future signature",
            signer.sign_as(&text, &future),
            signer.keyring(),
            "has expired or is not valid yet",
        ),
        (
            "an empty keyring",
            good.clone(),
            Vec::new(),
            "there is no keyring: expected one of `",
        ),
        (
            "a broken keyring",
            good.clone(),
            b"\x99\x01\x0dnothing".to_vec(),
            "there is no keyring",
        ),
    ];
    for (name, in_release, keyring, why) in cases {
        archive.publish(&in_release);
        let settings = archive.settings(keyring);
        let error = look_up(&["busybox-static"], &settings, &()).unwrap_err();
        assert!(
            matches!(error, Error::Debian(debian::Error::Untrusted { .. })),
            "{name}: {error:?}"
        );
        assert!(whole(&error).contains(why), "{name}: {}", whole(&error));
    }
}

#[test]
fn an_index_nobody_vouches_for_is_used_only_if_asked_for_and_with_a_note() {
    let (archive, stranger) = (Archive::new(), Signer::alone());
    for in_release in [stranger.sign(&archive.text()), archive.text()] {
        archive.publish(&in_release);
        let seen = Seen::default();
        let settings = Settings {
            insecure_index: true,
            ..archive.settings(b"")
        };
        assert_eq!(look_up(&["grub-pc"], &settings, &seen).unwrap().len(), 1);
        let notes: Vec<String> = seen
            .lines()
            .into_iter()
            .filter(|line| line.contains("note: used all the same"))
            .collect();
        assert_eq!(notes.len(), 1, "{notes:?}");
    }
    // Nor is there always a signature to leave out of account.
    fs_err::remove_file(archive.folder.path().join("dists/bookworm/InRelease")).unwrap();
    archive.put("dists/bookworm/Release", archive.text());
    let settings = archive.settings(stranger.keyring());
    let error = look_up(&["grub-pc"], &settings, &()).unwrap_err();
    assert!(
        matches!(error, Error::Debian(debian::Error::NoSuite { .. })),
        "{error:?}"
    );
    assert_eq!(
        look_up(
            &["grub-pc"],
            &Settings {
                insecure_index: true,
                ..settings
            },
            &()
        )
        .unwrap()
        .len(),
        1
    );
}

#[test]
fn an_index_that_is_out_of_date_is_refused() {
    let (mut archive, signer) = (Archive::new(), Signer::with_subkey());
    archive
        .release
        .insert("Valid-Until", "Sat, 14 Jun 2025 10:00:00 UTC".into());
    archive.publish(&signer.sign(&archive.text()));
    let settings = archive.settings(signer.keyring());
    let error = look_up(&["grub-pc"], &settings, &()).unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("/dists/bookworm/InRelease` was valid until Sat, 14 Jun 2025 10:00:00 UTC")
    );
    let seen = Seen::default();
    assert!(
        look_up(
            &["grub-pc"],
            &Settings {
                insecure_index: true,
                ..settings
            },
            &seen
        )
        .is_ok()
    );
    assert!(
        seen.lines().iter().any(|line| line.contains("was valid until")),
        "{:?}",
        seen.lines()
    );
    archive
        .release
        .insert("Valid-Until", "Fri, 14 Jun 2097 10:00:00 UTC".into());
    archive.publish(&signer.sign(&archive.text()));
    assert!(look_up(&["grub-pc"], &archive.settings(signer.keyring()), &()).is_ok());
}

#[test]
fn a_suite_may_be_asked_for_by_either_name_but_not_passed_off_as_another() {
    let (archive, signer) = (Archive::new(), Signer::with_subkey());
    archive.publish(&signer.sign(&archive.text()));
    let settings = archive.settings(signer.keyring());
    let dists = archive.folder.path().join("dists");
    let names = ["grub-pc".to_owned()];
    for suite in ["oldstable", "trixie"] {
        fs_err::create_dir_all(dists.join(suite)).unwrap();
        fs_err::copy(
            dists.join("bookworm/InRelease"),
            dists.join(suite).join("InRelease"),
        )
        .unwrap();
        for (name, bytes) in &archive.indexes {
            archive.put(&format!("dists/{suite}/{name}"), bytes);
        }
    }
    let pins = debian::look_up("oldstable", &names, &["amd64"], &settings, &()).unwrap();
    assert_eq!(pins.first_key_value().unwrap().0.suite, "oldstable");
    let error = debian::look_up("trixie", &names, &["amd64"], &settings, &()).unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("is not the suite `trixie`: it says suite `oldstable`, codename `bookworm`"),
        "{error}"
    );
    for suite in ["", "..", "../x", "a/b", "-x y"] {
        let result = debian::look_up(suite, &names, &["amd64"], &settings, &());
        assert!(
            matches!(result, Err(Error::Debian(debian::Error::BadSuite { .. }))),
            "{suite:?}"
        );
    }
}

#[test]
fn an_index_that_is_not_the_signed_one_is_refused() {
    let (archive, signer) = (Archive::new(), Signer::with_subkey());
    archive.publish(&signer.sign(&archive.text()));
    let settings = archive.settings(signer.keyring());
    let place = "dists/bookworm/main/binary-amd64/Packages.xz";
    let right = &archive.indexes["main/binary-amd64/Packages.xz"];
    let mut wrong = right.clone();
    *wrong.last_mut().unwrap() ^= 1;
    archive.put(place, &wrong);
    let error = look_up(&["grub-pc"], &settings, &()).unwrap_err();
    assert!(matches!(error, Error::WrongDigest { .. }), "{error}");
    archive.put(place, &right[1..]);
    let error = look_up(&["grub-pc"], &settings, &()).unwrap_err();
    assert!(matches!(error, Error::WrongSize { .. }), "{error}");
}

#[test]
fn a_package_that_is_not_there_is_an_error_with_those_that_are_like_it() {
    let (archive, signer) = (Archive::new(), Signer::with_subkey());
    archive.publish(&signer.sign(&archive.text()));
    let settings = archive.settings(signer.keyring());
    for (name, expected) in [
        (
            "bussybox-static",
            "there is no package `bussybox-static` in `bookworm` (did you mean `busybox-static`?)",
        ),
        (
            "grub",
            "there is no package `grub` in `bookworm` (did you mean `grub-pc`?)",
        ),
        ("emacs", "there is no package `emacs` in `bookworm`"),
    ] {
        assert_eq!(
            look_up(&["tzdata", name], &settings, &())
                .unwrap_err()
                .to_string(),
            expected
        );
    }
}

#[test]
fn an_index_that_makes_no_sense_is_an_error_and_no_panic() {
    let good = stanza("thing", "1", "amd64");
    let outside = good.replace("pool/main", "../../etc");
    let absolute = good.replace("pool/main", "/etc");
    let no_digest = good.replace("SHA256: ", "SHA256: x");
    let no_size = good.replace("Size: ", "Size: -");
    let no_version = good.replace("Version: 1\n", "");
    let bad_letters = good.replace("Version: 1", "Version: 1\u{1b}[2J");
    let long = format!("Package: thing\nDepends: {}\n\n", "a".repeat(5 * 1024 * 1024));
    let cut = xz(&good)[..40].to_vec();
    for (name, packed) in [
        ("a path that leads out", xz(&outside)),
        ("an absolute path", xz(&absolute)),
        ("no digest", xz(&no_digest)),
        ("no size", xz(&no_size)),
        ("no version", xz(&no_version)),
        ("control characters", xz(&bad_letters)),
        ("a line without end", xz(&long)),
        ("a cut stream", cut),
        ("no stream", b"no xz at all".to_vec()),
    ] {
        let (mut archive, signer) = (Archive::new(), Signer::alone());
        archive.index("main/binary-amd64/Packages.xz", packed);
        archive.publish(&signer.sign(&archive.text()));
        let error = look_up(&["thing"], &archive.settings(signer.keyring()), &()).unwrap_err();
        assert!(
            matches!(error, Error::Debian(debian::Error::Malformed { .. })),
            "{name}: {error:?}"
        );
    }
    let (archive, signer) = (Archive::new(), Signer::alone());
    archive.publish(&signer.sign(&format!("{} zz 12 main/x\n", archive.text())));
    let error = look_up(&["thing"], &archive.settings(signer.keyring()), &()).unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("`zz 12 main/x` is not `sha256 size path`"),
        "{error}"
    );
}

#[test]
fn gzip_does_where_there_is_no_xz_and_packages_for_all_may_stand_apart() {
    let (mut archive, signer) = (Archive::new(), Signer::alone());
    archive.indexes.clear();
    archive.release.insert("Architectures", "all amd64 arm64".into());
    archive.index(
        "main/binary-amd64/Packages.gz",
        gz(&stanza("thing", "1", "amd64")),
    );
    archive.index("main/binary-all/Packages.gz", gz(&stanza("data", "2", "all")));
    archive.publish(&signer.sign(&archive.text()));
    let seen = Seen::default();
    let settings = archive.settings(signer.keyring());
    let pins = look_up(&["thing", "data"], &settings, &seen).unwrap();
    assert_eq!(shown(&pins), ["data amd64 2", "data arm64 2", "thing amd64 1"]);
    assert!(
        seen.lines()
            .contains(&"note: `bookworm` has no packages for arm64".to_owned()),
        "{:?}",
        seen.lines()
    );
    let names = ["thing".to_owned()];
    archive
        .release
        .insert("No-Support-for-Architecture-all", "Packages".into());
    archive.publish(&signer.sign(&archive.text()));
    let error = debian::look_up("bookworm", &names, &["riscv64"], &settings, &()).unwrap_err();
    assert_eq!(error.to_string(), "`bookworm` has no packages for riscv64");
}

#[test]
fn indexes_are_asked_for_by_digest_where_that_is_offered() {
    let (mut archive, signer) = (Archive::new(), Signer::with_subkey());
    archive.release.insert("Acquire-By-Hash", "yes".into());
    archive.publish(&signer.sign(&archive.text()));
    let bytes = &archive.indexes["main/binary-amd64/Packages.xz"];
    let by_hash = format!(
        "dists/bookworm/main/binary-amd64/by-hash/SHA256/{}",
        Digest::of(bytes)
    );
    archive.put(&by_hash, bytes);
    // The plain name already stands for the next version.
    archive.put("dists/bookworm/main/binary-amd64/Packages.xz", "newer");
    let server = serve(&archive);
    let settings = Settings {
        mirror: Some(server.url("")),
        ..archive.settings(signer.keyring())
    };
    assert_eq!(look_up(&["busybox-static"], &settings, &()).unwrap().len(), 2);
    let targets = server.targets();
    assert!(targets.contains(&format!("/{by_hash}")), "{targets:?}");
    // For arm64 the mirror has none, so the plain one does.
    assert!(
        targets.contains(&"/dists/bookworm/main/binary-arm64/Packages.xz".to_owned()),
        "{targets:?}"
    );
}

#[test]
fn a_pinned_package_comes_from_the_mirror() {
    let archive = Archive::new();
    let path = "pool/main/t/thing_1:1.0+b1~x%3a_amd64.deb";
    archive.put(path, "package");
    let pin = pinned(Origin::Pool(path.into()), b"package");
    let mut out = Vec::new();
    fetch(&pin, Path::new("."), &archive.settings(b""), &mut out, &()).unwrap();
    assert_eq!(out, b"package");

    let server = Server::new(|_, _| Answer::ok("package"));
    let settings = Settings {
        mirror: Some(server.url("/debian/")),
        ..impatient()
    };
    fetch(&pin, Path::new("."), &settings, &mut Vec::new(), &()).unwrap();
    assert_eq!(
        server.targets(),
        ["/debian/pool/main/t/thing_1:1.0+b1~x%253a_amd64.deb"]
    );
    for path in ["../x", "/etc/passwd", "pool/../../x", ""] {
        let pin = pinned(Origin::Pool(path.into()), b"package");
        let result = fetch(&pin, Path::new("."), &archive.settings(b""), &mut Vec::new(), &());
        assert!(
            matches!(result, Err(Error::BadPoolPath { .. })),
            "{path}: {result:?}"
        );
    }
}

#[test]
fn a_package_that_the_archive_has_dropped_is_an_error_of_its_own() {
    let server = Server::new(|_, _| Answer::status(404));
    let settings = Settings {
        mirror: Some(server.url("/debian")),
        ..impatient()
    };
    let pin = pinned(Origin::Pool("pool/main/t/thing_1_amd64.deb".into()), b"package");
    let error = fetch(&pin, Path::new("."), &settings, &mut Vec::new(), &()).unwrap_err();
    assert!(matches!(error, Error::PackageGone { .. }));
    assert_eq!(
        error.to_string(),
        format!(
            "`thing` is no longer at `pool/main/t/thing_1_amd64.deb` in {}",
            server.url("/debian")
        )
    );
}

#[test]
fn the_next_of_the_machines_mirrors_is_asked_where_one_fails() {
    let (archive, signer) = (Archive::new(), Signer::with_subkey());
    archive.publish(&signer.sign(&archive.text()));
    let body = bytes(100_000);
    archive.put("pool/thing.deb", &body);
    let half = body.clone();
    let bad = Server::new(move |_, request| match request.target.contains("pool") {
        true => Answer::ok(half.clone()).cut_after(40_000),
        false => Answer::ok("Suite: bookworm\n"),
    });
    let apt = tempfile::tempdir().unwrap();
    let list = format!(
        "deb {} bookworm main\ndeb file:{} bookworm main\n",
        bad.url("/debian"),
        archive.folder.path().join("debian").display()
    );
    fs_err::write(apt.path().join("sources.list"), list).unwrap();
    std::os::unix::fs::symlink(archive.folder.path(), archive.folder.path().join("debian")).unwrap();
    let settings = Settings {
        mirror: None,
        apt_dir: apt.path().to_owned(),
        ..archive.settings(signer.keyring())
    };
    assert_eq!(look_up(&["busybox-static"], &settings, &()).unwrap().len(), 2);
    let mut out = Vec::new();
    fetch(
        &pinned(Origin::Pool("pool/thing.deb".into()), &body),
        Path::new("."),
        &settings,
        &mut out,
        &(),
    )
    .unwrap();
    assert!(
        out == body,
        "what the first mirror began was not completed by the second"
    );
}
