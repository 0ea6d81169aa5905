use std::io::Read;
use std::process::Stdio;

use crate::harness::Sandbox;

const COMMANDS: [&str; 19] = [
    "build",
    "run",
    "ps",
    "logs",
    "stop",
    "kill",
    "wait",
    "images",
    "inspect",
    "tag",
    "rm",
    "gc",
    "verify",
    "export",
    "lock",
    "network",
    "doctor",
    "completions",
    "schema",
];

#[test]
fn help_of_mk() {
    let output = Sandbox::new().mk(["--help"]).ok();
    assert_eq!(output.stderr, "");
    insta::assert_snapshot!(output);
    for command in COMMANDS {
        assert!(
            output.stdout.contains(&format!("\n  {command} ")),
            "`{command}` is not in `mk --help`"
        );
    }
}

#[test]
fn help_of_every_command_has_an_example_and_fits_80_columns() {
    for command in COMMANDS {
        let output = Sandbox::new().mk([command, "--help"]).ok();
        insta::assert_snapshot!(format!("help_of_{command}"), output);
        let examples = output
            .stdout
            .split_once("Examples:\n")
            .map(|(_, rest)| rest)
            .unwrap_or_default();
        assert!(
            examples.contains(&format!("mk {command}")),
            "`mk {command} --help` shows no example"
        );
        for line in output.stdout.lines() {
            assert!(line.chars().count() <= 80, "wider than 80 columns: {line}");
        }
    }
}

#[test]
fn short_and_long_help_are_the_same_page() {
    for command in COMMANDS {
        let sandbox = Sandbox::new();
        assert_eq!(
            sandbox.mk([command, "-h"]).stdout,
            sandbox.mk([command, "--help"]).stdout
        );
    }
}

#[test]
fn mk_alone_shows_its_help_on_stderr_and_fails() {
    let output = Sandbox::new().mk([] as [&str; 0]);
    assert_eq!((output.code, output.stdout.as_str()), (Some(2), ""));
    assert_eq!(output.stderr, Sandbox::new().mk(["--help"]).stdout);
}

#[test]
fn the_version_is_one_line() {
    let output = Sandbox::new().mk(["--version"]).ok();
    assert_eq!(output.text(), format!("mk {}", env!("CARGO_PKG_VERSION")));
}

#[test]
fn help_needs_neither_a_home_nor_a_store() {
    for words in [
        &["--version"][..],
        &["--help"],
        &["completions", "bash"],
        &["schema"],
    ] {
        Sandbox::new()
            .mk_with(words, |command| {
                command.env_clear();
            })
            .ok();
    }
}

#[test]
fn completions_are_made_for_every_shell() {
    for (shell, piece) in [
        ("bash", "complete -F _mk"),
        ("zsh", "#compdef mk"),
        ("fish", "complete -c mk"),
    ] {
        let script = Sandbox::new().mk(["completions", shell]).ok().stdout;
        assert!(script.contains(piece), "{script}");
        assert!(COMMANDS.iter().all(|command| script.contains(command)));
    }
}

#[test]
fn a_reader_that_goes_away_early_is_no_failure() {
    let sandbox = Sandbox::new();
    let mut mk = sandbox.command();
    let mut mk = mk
        .args(["completions", "zsh"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(mk.stdout.take());
    let mut stderr = String::new();
    mk.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!((mk.wait().unwrap().code(), stderr.as_str()), (Some(0), ""));
}

#[test]
fn a_full_disk_behind_stdout_is_a_failure() {
    let Ok(full) = fs_err::OpenOptions::new().write(true).open("/dev/full") else {
        return;
    };
    let output = Sandbox::new().mk_with(["completions", "zsh"], |command| {
        command.stdout(full.into_file());
    });
    assert_eq!(output.code, Some(1), "{output}");
    assert!(
        output
            .stderr
            .starts_with("error: cannot write to stdout\ncaused by: "),
        "{output}"
    );
    assert!(
        !output.stderr.contains("mk gc"),
        "the store is not full: {output}"
    );
}

const RECIPE: &str = "[[step]]\nwrite = \"/hello\"\ntext = \"hello\\n\"\n";

/// Returns a sandbox with the image `hello` in it; none where the machine lets nobody build one here.
fn with_an_image() -> Option<Sandbox> {
    let sandbox = Sandbox::new();
    sandbox.write("hello.toml", RECIPE);
    let output = sandbox.mk(["build", "-q", "hello.toml"]);
    if output.stderr.contains("cannot make a user namespace") {
        crate::mistakes::skip("user namespaces");
        return None;
    }
    output.ok();
    Some(sandbox)
}

#[test]
fn a_build_prints_name_and_digest_and_says_all_else_on_stderr() {
    let Some(sandbox) = with_an_image() else { return };
    let quiet = sandbox.mk(["build", "-q", "hello.toml"]).ok();
    let (name, digest) = quiet.text().split_once(' ').unwrap();
    assert_eq!((name, digest.len(), quiet.stderr.as_str()), ("hello", 64, ""));
    let again = sandbox.mk(["build", "hello.toml"]).ok();
    assert_eq!(again.stdout, quiet.stdout);
    assert!(
        again
            .stderr
            .starts_with("nothing to do: its step is cached (1 file, 6 B, "),
        "{again}"
    );
    let json: serde_json::Value =
        serde_json::from_str(&sandbox.mk(["build", "--json", "hello.toml"]).stdout).unwrap();
    assert_eq!(
        (&json["digest"], &json["unchanged"]),
        (&digest.into(), &true.into())
    );
}

#[test]
fn progress_as_json_is_one_object_a_line_and_nothing_else() {
    let Some(sandbox) = with_an_image() else { return };
    sandbox.write("two.toml", format!("{RECIPE}[[step]]\ndir = \"/srv\"\n"));
    let output = sandbox.mk(["build", "--progress", "json", "two.toml"]).ok();
    let events: Vec<serde_json::Value> = output
        .stderr
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let finished = |label: &str| {
        events
            .iter()
            .any(|event| event["event"] == "step-finished" && event["label"] == label)
    };
    assert!(finished("write /hello") && finished("dir /srv"), "{output}");
}

#[test]
fn an_image_named_after_its_folder() {
    let Some(sandbox) = with_an_image() else { return };
    sandbox.write("web/Containerfile.toml", RECIPE);
    let output = sandbox.mk(["build", "web/Containerfile.toml"]).ok();
    assert!(output.stdout.starts_with("web "), "{output}");
    let output = sandbox.mk_with(["build"], |command| {
        command.current_dir(sandbox.work().join("web"));
    });
    assert!(output.ok().stdout.starts_with("web "));
}

#[test]
fn names_come_and_go() {
    let Some(sandbox) = with_an_image() else { return };
    sandbox.mk(["tag", "hello", "greeting"]).ok();
    let images = sandbox.mk(["images"]).ok();
    let names: Vec<&str> = images
        .text()
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert_eq!(names, ["NAME", "greeting", "hello"]);
    sandbox.mk(["rm", "hello"]).ok();
    let list: serde_json::Value =
        serde_json::from_str(&sandbox.mk(["images", "--json"]).ok().stdout).unwrap();
    assert_eq!(
        (&list[0]["name"], list.as_array().unwrap().len()),
        (&"greeting".into(), 1)
    );
    let digest = list[0]["digest"].as_str().unwrap();
    let by_digest: serde_json::Value =
        serde_json::from_str(&sandbox.mk(["inspect", &digest[..9]]).ok().stdout).unwrap();
    assert_eq!(by_digest["names"], serde_json::json!(["greeting"]));
    sandbox.mk(["rm", "greeting"]).ok();
    let collected: serde_json::Value =
        serde_json::from_str(&sandbox.mk(["gc", "--keep", "0", "--json"]).ok().stdout).unwrap();
    assert_eq!(collected["removed"]["images"]["number"], 1);
    assert_eq!(
        sandbox.mk(["gc", "--keep", "0"]).ok().stderr,
        "nothing to remove\n"
    );
}

#[test]
fn an_export_is_the_same_bytes_each_time_and_never_half_a_file() {
    let Some(sandbox) = with_an_image() else { return };
    sandbox.mk(["export", "hello", "-o", "a.tar"]).ok();
    sandbox.mk(["export", "hello", "-o", "b.tar"]).ok();
    let read = |name: &str| fs_err::read(sandbox.work().join(name)).unwrap();
    assert_eq!(read("a.tar"), read("b.tar"));
    let mut names = Vec::new();
    for entry in tar::Archive::new(&read("a.tar")[..]).entries().unwrap() {
        names.push(entry.unwrap().path().unwrap().display().to_string());
    }
    assert_eq!(names, ["./", "hello"]);
    sandbox.mk(["export", "hello", "--folder", "out/hello"]).ok();
    assert_eq!(read("out/hello/hello"), b"hello\n");
    let again = sandbox.mk(["export", "hello", "--folder", "out/hello"]);
    assert_eq!((again.code, again.stdout.as_str()), (Some(1), ""));
    insta::assert_snapshot!("an_export_into_a_folder_that_is_not_empty", again);
    let left: Vec<_> = fs_err::read_dir(sandbox.work())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left.len(), 4, "{left:?}");
}

#[test]
fn a_damaged_store_is_found_out() {
    let Some(sandbox) = with_an_image() else { return };
    assert!(
        sandbox
            .mk(["verify"])
            .ok()
            .stderr
            .starts_with("all is well: 1 image, 1 file, ")
    );
    let text: std::path::PathBuf = sandbox.mk(["inspect", "--rootfs", "hello"]).ok().text().into();
    fs_err::write(text.join("hello"), "HELLO\n").unwrap();
    let output = sandbox.mk(["verify"]);
    assert_eq!(output.code, Some(1), "{output}");
    assert!(output.stdout.contains("(hurts hello)"), "{output}");
    let json: serde_json::Value = serde_json::from_str(&sandbox.mk(["verify", "--json"]).stdout).unwrap();
    assert_eq!(json["damaged"][0]["names"], serde_json::json!(["hello"]));
}

#[test]
fn an_image_with_parts_missing_says_so_and_a_run_makes_it_again() {
    let Some(sandbox) = with_an_image() else { return };
    let folder: std::path::PathBuf = sandbox.mk(["inspect", "--rootfs", "hello"]).ok().text().into();
    fs_err::write(folder.join("hello"), "HELLO\n").unwrap();
    sandbox.mk(["verify", "--discard"]);
    let output = sandbox.mk(["verify"]);
    assert_eq!(output.code, Some(1), "{output}");
    assert!(!output.stderr.contains("--discard"), "{output}");
    assert!(output.stderr.contains("`mk rm hello && mk gc`"), "{output}");
    let output = sandbox.mk(["run", "hello", "--dry-run"]);
    assert_eq!(output.code, Some(125), "{output}");
    assert!(output.stderr.contains("image `hello`"), "{output}");
    sandbox.write("images/hello.toml", RECIPE);
    sandbox.mk(["run", "hello", "--dry-run"]).ok();
    sandbox.mk(["verify"]).ok();
}

#[test]
fn an_export_to_where_no_file_can_be_says_so() {
    let Some(sandbox) = with_an_image() else { return };
    fs_err::create_dir(sandbox.work().join("out")).unwrap();
    for (file, what) in [
        ("out", "`out` is a folder"),
        ("no/a.tar", "there is no folder `no`"),
    ] {
        let output = sandbox.mk(["export", "hello", "-o", file]);
        assert_eq!(output.code, Some(1), "{output}");
        assert!(output.stderr.contains(what), "{output}");
        assert!(!output.stderr.contains(".tar."), "a draft has no name: {output}");
    }
}

#[test]
fn a_fifo_for_a_recipe_or_a_lock_is_refused_and_never_waited_for() {
    let sandbox = Sandbox::new();
    let fifo = |name: &str| {
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        let kind = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, sandbox.work().join(name), kind, mode, 0).unwrap();
    };
    fifo("a.toml");
    sandbox.write("b.toml", RECIPE);
    fifo("b.lock");
    for recipe in ["a.toml", "b.toml"] {
        let output = sandbox.mk(["build", recipe]);
        assert_eq!(output.code, Some(1), "{output}");
        assert!(output.stderr.contains("no regular file"), "{output}");
    }
}

#[test]
fn a_lock_keeps_its_mode_and_is_written_only_when_it_changes() {
    use std::os::unix::fs::PermissionsExt;
    let Some(sandbox) = with_an_image() else { return };
    let lock = sandbox.write("hello.lock", "# mine\nversion = 1\n");
    fs_err::set_permissions(&lock, std::fs::Permissions::from_mode(0o640)).unwrap();
    let output = sandbox.mk(["lock", "hello.toml"]).ok();
    assert_eq!(
        output.stderr,
        "nothing to do: `hello.toml` names nothing that needs a pin\n"
    );
    assert_eq!(fs_err::read_to_string(&lock).unwrap(), "# mine\nversion = 1\n");
    let digest = "00".repeat(32);
    let unused =
        format!("version = 1\n\n[[url]]\nurl = \"http://127.0.0.1/a\"\nsha256 = \"{digest}\"\nsize = 1\n");
    fs_err::write(&lock, &unused).unwrap();
    // Another value of an argument may want it again.
    let output = sandbox.mk(["lock", "hello.toml"]).ok();
    assert_eq!(output.stderr, "nothing to do: `hello.lock` holds 1 pin\n");
    assert_eq!(fs_err::read_to_string(&lock).unwrap(), unused);
    let output = sandbox.mk(["lock", "--update", "hello.toml"]).ok();
    assert_eq!(output.stderr, "wrote hello.lock: 1 new or changed pin\n");
    assert_eq!(
        fs_err::metadata(&lock).unwrap().permissions().mode() & 0o777,
        0o640
    );
    assert!(!fs_err::read_to_string(&lock).unwrap().contains("127.0.0.1"));
}
