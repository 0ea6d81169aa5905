//! `mk diff A B`: every pair of things with files in them, told apart by what differs and nothing else.

use crate::harness::Sandbox;
use crate::harness::archive::{Item, Tar, gzip};
use crate::run::{boxed, eventually};

const RECIPE: &str = "epoch = 9\n[[step]]\nwrite = '/etc/motd'\ntext = '''\none\ntwo\nthree\n'''\n[[step]]\nlink = '/l'\nto = 'a'\n";

/// A sandbox with the images `one` and `two`, which differ in every way.
fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write(
        "one.toml",
        format!("{RECIPE}[[step]]\ndir = '/gone/with'\n[[step]]\nwrite = '/same'\ntext = ''\n"),
    );
    let other = RECIPE.replace("two", "TWO").replace("to = 'a'", "to = 'b'");
    sandbox.write(
        "two.toml",
        format!("{other}[[step]]\nwrite = '/same'\ntext = ''\nmode = '0600'\nowner = '3:4'\n[[step]]\nwrite = '/new'\ntext = 'x'\n"),
    );
    sandbox.build("one.toml");
    sandbox.build("two.toml");
    sandbox
}

#[test]
fn two_images_differ_in_what_differs() {
    let sandbox = sandbox();
    let told = sandbox.mk(["diff", "one", "two"]);
    assert_eq!(told.code, Some(1));
    insta::assert_snapshot!(told.stdout);
    insta::assert_snapshot!(sandbox.mk(["diff", "one", "two", "--json"]).stdout);
    insta::assert_snapshot!(sandbox.mk(["diff", "one", "two", "--stat"]).stdout);
    let same = sandbox.mk(["diff", "one", "one"]).ok();
    assert_eq!(same.stdout, "");
}

#[test]
fn what_is_exported_is_no_other_than_what_was_built() {
    let sandbox = sandbox();
    for image in ["one", "two"] {
        sandbox.mk(["export", image, "-o", &format!("{image}.tar")]).ok();
    }
    sandbox.mk(["diff", "one", "one.tar"]).ok();
    sandbox.mk(["diff", "two.tar", "two"]).ok();
    let by_tar = sandbox.mk(["diff", "one.tar", "two.tar"]);
    assert_eq!(by_tar.code, Some(1));
    assert_eq!(by_tar.stdout, sandbox.mk(["diff", "one", "two"]).stdout);
    let by_digest = sandbox.build("one.toml");
    let tree = format!("tree:{}", by_digest.tree);
    assert_eq!(sandbox.mk(["diff", &by_digest.image, &tree]).ok().stdout, "");
}

#[test]
fn a_folder_is_compared_as_it_lies_there() {
    let sandbox = Sandbox::new();
    sandbox.write("a/motd", "one\n");
    sandbox.write("b/motd", "two\n");
    sandbox.write("b/bytes", [0, 255, 1]);
    sandbox.write("a/bytes", [0, 255]);
    for file in ["a/motd", "b/motd", "a/bytes", "b/bytes", "a", "b"] {
        let path = sandbox.work().join(file);
        let status = std::process::Command::new("touch")
            .args(["-d", "@5"])
            .arg(path)
            .status();
        assert!(status.unwrap().success());
    }
    let told = sandbox.mk(["diff", "./a", "./b"]);
    assert_eq!(told.code, Some(1));
    insta::assert_snapshot!(told.stdout);
    let tar = Tar::of([Item::file("motd", b"one\n")]);
    sandbox.write("a.tar.gz", gzip(&tar.finish()));
    let told = sandbox.mk(["diff", "a.tar.gz", "./a/", "--stat"]);
    assert!(told.stdout.starts_with("1 added"), "{told}");
}

#[test]
fn a_container_is_compared_with_any_image() {
    let Some(sandbox) = boxed("") else { return };
    let command = "echo hi >/etc/new; rm /bin/ls; echo done; sleep 1000";
    sandbox
        .mk(["run", "-d", "--name", "c", "box", "sh", "-c", command])
        .ok();
    eventually("the change", || sandbox.mk(["logs", "c"]).stdout.contains("done"));
    let told = sandbox.mk(["diff", "box", "container:c"]);
    sandbox.mk(["kill", "c"]).ok();
    assert_eq!(told.code, Some(1), "{told}");
    let lines: Vec<&str> = told
        .stdout
        .lines()
        .map(|line| line.split(':').next().unwrap())
        .collect();
    assert!(
        lines.contains(&"D /bin/ls") && lines.contains(&"A /etc/new"),
        "{told}"
    );
    assert!(!told.stdout.contains("/etc/hosts"), "{told}");
    assert!(
        lines
            .iter()
            .all(|line| ["/bin", "/etc"].iter().any(|path| line.contains(path))),
        "{told}"
    );
}

#[test]
fn what_cannot_be_compared_is_told() {
    let sandbox = Sandbox::new();
    sandbox.write("broken.tar", "no archive");
    let mut told = String::new();
    for (a, b) in [
        ("none", "other"),
        ("./none", "./other"),
        ("tree:12", "x"),
        ("broken.tar", "broken.tar"),
    ] {
        let output = sandbox.mk(["diff", a, b]);
        assert_eq!(output.code, Some(2), "{output}");
        told.push_str(&format!("$ mk diff {a} {b}\n{}", output.stderr));
    }
    insta::assert_snapshot!(told);
}
