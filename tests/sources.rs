//! Where bytes come from, seen from the command line: pins that are written and kept, locks that may not change, and
//! folders that stand in for the net. Every server here is on the loopback interface.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use crate::harness::Sandbox;
use crate::harness::archive::{Item, Tar, deb, gzip};
use crate::harness::server::{Answer, Server};

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// A server of these files; anything else is not found.
fn server(files: BTreeMap<String, Vec<u8>>) -> Server {
    Server::new(move |_, request| match files.get(&request.target) {
        Some(body) => Answer::part(body, request),
        None => Answer::status(404),
    })
}

fn archive(text: &str) -> Vec<u8> {
    gzip(&Tar::of([Item::file("hi", text.as_bytes())]).finish())
}

#[test]
fn a_url_without_a_digest_is_pinned_to_what_was_first_seen() {
    let sandbox = Sandbox::new();
    let bytes = archive("one");
    let first = server([("/a.tar.gz".to_owned(), bytes.clone())].into());
    let url = first.url("/a.tar.gz");
    sandbox.write("app.toml", format!("[[step]]\nunpack = '{url}'\n"));

    let refused = sandbox.mk(["build", "app.toml", "--locked"]);
    assert_eq!(refused.code, Some(1), "{refused}");
    assert!(refused.stderr.contains(&url), "{refused}");
    assert!(!sandbox.work().join("app.lock").exists());

    let built = sandbox.mk(["build", "app.toml"]).ok();
    assert!(
        built.stderr.contains("app.lock"),
        "a lock was written and not a word of it: {built}"
    );
    let lock = fs_err::read_to_string(sandbox.work().join("app.lock")).unwrap();
    assert!(lock.contains(&sha256(&bytes)) && lock.contains(&url), "{lock}");

    let asked = first.asked().len();
    sandbox.mk(["build", "app.toml", "--locked"]).ok();
    assert_eq!(first.asked().len(), asked, "what is there was fetched again");
    assert_eq!(
        fs_err::read_to_string(sandbox.work().join("app.lock")).unwrap(),
        lock
    );
}

#[test]
fn a_pin_that_no_longer_holds_names_both_digests_and_renewing_it_helps() {
    let sandbox = Sandbox::new();
    let (before, after) = (archive("one"), archive("two and more"));
    let both = [before.clone(), after.clone()];
    let changed = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let flag = std::sync::Arc::clone(&changed);
    let server = Server::new(move |_, _| {
        Answer::ok(both[usize::from(flag.load(std::sync::atomic::Ordering::SeqCst))].clone())
    });
    sandbox.write(
        "app.toml",
        format!("[[step]]\nunpack = '{}'\n", server.url("/a.tar.gz")),
    );
    sandbox.build("app.toml");
    changed.store(true, std::sync::atomic::Ordering::SeqCst);

    // The store has the bytes of the pin; a store that has not is told other ones.
    let output = sandbox.mk(["build", "app.toml", "--store", "fresh"]);
    assert_eq!(output.code, Some(1), "{output}");
    for digest in [sha256(&before), sha256(&after)] {
        assert!(
            output.stderr.contains(&digest),
            "{digest} is not in {}",
            output.stderr
        );
    }
    sandbox.mk(["verify", "--store", "fresh"]).ok();

    sandbox.mk(["build", "app.toml", "--update"]).ok();
    let lock = fs_err::read_to_string(sandbox.work().join("app.lock")).unwrap();
    assert!(
        lock.contains(&sha256(&after)) && !lock.contains(&sha256(&before)),
        "{lock}"
    );
}

#[test]
fn a_digest_in_the_recipe_needs_no_lock_and_no_net_where_a_folder_has_the_bytes() {
    let sandbox = Sandbox::new();
    let bytes = archive("here");
    // Nothing listens there, and the name says nothing: only the digest does.
    sandbox.write("folder/of/other-name", &bytes);
    let recipe = format!(
        "[[step]]\nunpack = 'http://127.0.0.1:9/a.tar.gz'\nsha256 = '{}'\n",
        sha256(&bytes)
    );
    sandbox.write("app.toml", recipe);
    let by_flag = sandbox.build_with("app.toml", &["--source-dir", "folder"]);
    assert!(!sandbox.work().join("app.lock").exists());
    let output = sandbox.mk_with(
        ["build", "app.toml", "--store", "other", "--locked", "--json"],
        |command| {
            command.env("MK_SOURCES", "nowhere:folder");
        },
    );
    assert!(output.ok().stdout.contains(&by_flag.image));
}

#[test]
fn what_cannot_be_had_is_an_error_that_names_it_and_leaves_no_image() {
    let sandbox = Sandbox::new();
    let server = server(BTreeMap::new());
    let url = server.url("/missing.tar.gz");
    sandbox.write(
        "app.toml",
        format!("[[step]]\nunpack = '{url}'\nsha256 = '{}'\n", "0".repeat(64)),
    );
    let output = sandbox.mk(["build", "app.toml"]);
    assert_eq!(output.code, Some(1), "{output}");
    assert!(
        output.stderr.contains(&url) && output.stderr.contains("404"),
        "{output}"
    );
    assert!(!sandbox.mk(["images"]).stdout.contains("app"));
    sandbox.verify();
}

/// A Debian archive with one package, for two architectures, and no signature.
fn debian(version: &str) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut list = String::new();
    for arch in ["amd64", "arm64"] {
        let tar = Tar::of([Item::file(&format!("./usr/share/{arch}"), version.as_bytes())]).finish();
        let package = deb("tool", version, &tar);
        let path = format!("pool/main/t/tool/tool_{version}_{arch}.deb");
        let index = gzip(
            format!(
                "Package: tool\nVersion: {version}\nArchitecture: {arch}\nFilename: {path}\nSize: {}\nSHA256: {}\n\n",
                package.len(),
                sha256(&package)
            )
            .as_bytes(),
        );
        list.push_str(&format!(
            " {} {} main/binary-{arch}/Packages.gz\n",
            sha256(&index),
            index.len()
        ));
        files.insert(
            format!("/debian/dists/bookworm/main/binary-{arch}/Packages.gz"),
            index,
        );
        files.insert(format!("/debian/{path}"), package);
    }
    let release = format!(
        "Origin: Debian\nSuite: oldstable\nCodename: bookworm\nArchitectures: amd64 arm64\nComponents: main\nSHA256:\n{list}"
    );
    files.insert(
        "/debian/dists/bookworm/InRelease".to_owned(),
        release.into_bytes(),
    );
    files
}

#[test]
fn a_package_is_pinned_for_both_architectures_and_stays_until_it_is_renewed() {
    let sandbox = Sandbox::new();
    let old = server(debian("1.0-1"));
    let new = server(debian("1.0-2"));
    sandbox.write("app.toml", "[[step]]\ndeb = 'tool'\nsuite = 'bookworm'\n");
    let build = |server: &Server, more: &[&str]| {
        let mirror = server.url("/debian");
        sandbox.mk([&["build", "app.toml", "--mirror", &mirror], more].concat())
    };

    let unsigned = build(&old, &[]);
    assert_eq!(unsigned.code, Some(1), "{unsigned}");
    assert!(unsigned.stderr.contains("InRelease"), "{unsigned}");
    assert!(
        !sandbox.work().join("app.lock").exists(),
        "an unsigned index was believed"
    );

    build(&old, &["--insecure-index"]).ok();
    let lock = fs_err::read_to_string(sandbox.work().join("app.lock")).unwrap();
    for piece in ["amd64", "arm64", "1.0-1", "pool/main/t/tool/tool_1.0-1_amd64.deb"] {
        assert!(lock.contains(piece), "{piece} is not in {lock}");
    }

    build(&new, &["--locked"]).ok();
    assert_eq!(
        fs_err::read_to_string(sandbox.work().join("app.lock")).unwrap(),
        lock
    );
    build(&new, &["--update", "--insecure-index"]).ok();
    let lock = fs_err::read_to_string(sandbox.work().join("app.lock")).unwrap();
    assert!(lock.contains("1.0-2") && !lock.contains("1.0-1"), "{lock}");
    let tree = sandbox.tree("app");
    let arch = if cfg!(target_arch = "x86_64") {
        "amd64"
    } else {
        "arm64"
    };
    assert!(tree.contains(&format!("./usr/share/{arch} ")), "{tree}");
}

#[test]
fn a_lock_command_writes_pins_and_checks_them() {
    let sandbox = Sandbox::new();
    let server = server(debian("1.0-1"));
    let mirror = server.url("/debian");
    sandbox.write("app.toml", "[[step]]\ndeb = 'tool'\nsuite = 'bookworm'\n");
    let lock = |more: &[&str]| {
        sandbox.mk([
            &["lock", "app.toml", "--mirror", &mirror, "--insecure-index"],
            more,
        ]
        .concat())
    };
    assert_eq!(lock(&["--check"]).code, Some(1));
    lock(&[]).ok();
    lock(&["--check"]).ok();
    assert!(
        !sandbox.mk(["images"]).stdout.contains("app"),
        "`mk lock` builds nothing"
    );
}
