use std::io::Read;
use std::process::Stdio;

use crate::harness::Sandbox;

const COMMANDS: [&str; 12] = [
    "build",
    "run",
    "images",
    "inspect",
    "tag",
    "rm",
    "gc",
    "verify",
    "export",
    "lock",
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
}
