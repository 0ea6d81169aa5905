//! What is there to be copied: every folder in examples/ and every recipe in images/ can be read, builds where its
//! sources can be had without a network, and does what its README shows.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::docs::{self, Desk, Reader};
use crate::harness::{Output, Sandbox, needs};

/// What Containerfile.toml at the top of the repository takes for the name of cargo's folder, unless it is told.
pub(crate) const TARGET: &str = "x86_64-unknown-linux-gnu";

pub(crate) fn checkout() -> PathBuf {
    fs_err::canonicalize(Path::new(env!("CARGO_MANIFEST_DIR")).join("..")).unwrap()
}

/// Returns what lies in a folder of the checkout, by name.
fn listed(folder: &str) -> Vec<PathBuf> {
    let entries = fs_err::read_dir(checkout().join(folder)).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

fn examples() -> Vec<PathBuf> {
    let mut folders = listed("examples");
    folders.retain(|path| path.is_dir());
    assert!(!folders.is_empty());
    folders
}

fn images() -> Vec<PathBuf> {
    let mut recipes = listed("images");
    recipes.retain(|path| path.extension().is_some_and(|end| end == "toml") && !path.ends_with("Cargo.toml"));
    assert!(!recipes.is_empty());
    recipes
}

/// Whether the bytes of all packages are on this machine that the recipes of `folder` pin, and those that most start from.
fn has_sources(folder: &Path) -> bool {
    let sources = needs::sources();
    let files = [folder.to_owned(), checkout().join("images")]
        .into_iter()
        .flat_map(|folder| fs_err::read_dir(folder).unwrap())
        .map(|entry| entry.unwrap().path());
    let locks = files.filter(|path| path.extension().is_some_and(|end| end == "lock"));
    let mut packages = Vec::new();
    for lock in locks {
        let text = fs_err::read_to_string(lock).unwrap();
        for pin in text.split("[[deb]]").filter(|pin| pin.contains("amd64")) {
            let digest = pin
                .split("sha256 = \"")
                .nth(1)
                .and_then(|rest| rest.split('"').next());
            packages.extend(digest.map(str::to_owned));
        }
    }
    let is_there = |digest: &String| {
        sources
            .split(':')
            .any(|place| Path::new(place).join(digest).exists())
    };
    packages.iter().all(is_there)
}

/// Builds `recipe` with its pins as they are, without a network: `None` where a source is not on this machine.
fn build(sandbox: &Sandbox, recipe: &str) -> Option<Output> {
    let output = sandbox.mk_with(
        ["build", recipe, "--locked", "--check", "--json", "-q"],
        |command| {
            // Nothing listens there.
            command
                .env("all_proxy", "http://127.0.0.1:9")
                .env("MK_SOURCES", needs::sources());
        },
    );
    if output.code == Some(1) && output.stderr.contains(": cannot fetch ") {
        needs::skipped(&format!(
            "the sources of {recipe}, in a folder that MK_SOURCES names"
        ));
        return None;
    }
    Some(output.ok())
}

#[test]
fn every_recipe_of_images_can_be_built_from_its_pins() {
    for recipe in images() {
        let sandbox = Sandbox::new();
        if let Some(output) = build(&sandbox, recipe.to_str().unwrap()) {
            let name = recipe.file_stem().unwrap().to_str().unwrap();
            assert!(output.stdout.contains(&format!("\"{name}\"")), "{output}");
            // The recipe that is built into mk is the same one.
            let builtin = build(&sandbox, name).unwrap();
            let digest = |output: &Output| {
                serde_json::from_str::<serde_json::Value>(&output.stdout).unwrap()["digest"].clone()
            };
            assert_eq!(digest(&output), digest(&builtin));
            sandbox.verify();
        }
    }
}

#[test]
fn every_example_has_a_recipe_that_can_be_built_and_a_page() {
    for folder in examples() {
        let page = fs_err::read_to_string(folder.join("README.md")).unwrap();
        let name = folder.file_name().unwrap().to_str().unwrap();
        assert!(
            page.starts_with(&format!("# {name}\n")) && page.contains("```console\n"),
            "{page}"
        );
        let sandbox = Sandbox::new();
        let recipe = folder.join("Containerfile.toml");
        build(&sandbox, recipe.to_str().unwrap());
    }
}

#[test]
fn every_example_does_what_its_page_shows() {
    if needs::fixture(needs::FIXTURES[0]).is_none() || !needs::namespaces() {
        return;
    }
    let root = needs::is_root();
    let reader = Reader { root, world: None };
    let mut faults = Vec::new();
    for folder in examples() {
        if !has_sources(&folder) {
            needs::skipped(&format!(
                "the sources of {}, in a folder that MK_SOURCES names",
                folder.display()
            ));
            continue;
        }
        let page = folder.join("README.md");
        let text = fs_err::read_to_string(&page).unwrap();
        let name = page.strip_prefix(checkout()).unwrap().display().to_string();
        faults.extend(Desk::new().faults(&name, &text, reader));
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn the_list_of_examples_has_every_one() {
    let list = fs_err::read_to_string(checkout().join("examples/README.md")).unwrap();
    let listed: Vec<&str> = list
        .lines()
        .filter_map(|line| line.strip_prefix("| [")?.split(']').next())
        .collect();
    let mut there: Vec<String> = examples()
        .iter()
        .map(|folder| folder.file_name().unwrap().to_string_lossy().into_owned())
        .collect();
    assert!(there.len() >= 8, "{there:?}");
    for name in &listed {
        there.retain(|folder| folder != name);
    }
    assert!(there.is_empty(), "not listed: {there:?}");
}

/// Returns cargo, where this user may call it: it is in the home of whoever compiled the tests.
fn cargo() -> Option<&'static Path> {
    let cargo = Path::new(env!("CARGO"));
    let works = Command::new(cargo)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    match works {
        Ok(status) if status.success() => Some(cargo),
        _ => {
            needs::skipped("a cargo of one's own");
            None
        }
    }
}

#[test]
fn the_fixture_serves_the_tests_of_another_project() {
    if needs::fixture(needs::FIXTURES[0]).is_none() || !needs::namespaces() {
        return;
    }
    let Some(cargo) = cargo() else { return };
    let sandbox = Sandbox::new();
    let project = sandbox.work().join("project");
    docs::copy(&checkout().join("examples/fixture"), &project);
    let mk = sandbox.command();
    let folders = [cargo, Path::new(mk.get_program())].map(|program| program.parent().unwrap().display());
    let mut test = Command::new(cargo);
    test.args(["test", "--offline", "--locked", "--quiet"])
        .current_dir(&project)
        .stdin(Stdio::null())
        .env_clear();
    test.envs(mk.get_envs().filter_map(|(name, value)| Some((name, value?))))
        .env("PATH", format!("{}:{}:/usr/bin:/bin", folders[0], folders[1]))
        .env("RUSTC", cargo.with_file_name("rustc"))
        .env("CARGO_HOME", sandbox.home().join("cargo"))
        .env("MK_SOURCES", needs::sources())
        .env("all_proxy", "http://127.0.0.1:9");
    let output = sandbox.output("cargo test", &mut test).ok();
    assert!(output.stdout.contains("2 passed; 0 failed"), "{output}");
    // The fixture that it tested on is in the store, as what its recipe says.
    let built = sandbox.mk_with(["build", "project/Containerfile.toml"], |command| {
        command.env("MK_SOURCES", needs::sources());
    });
    assert!(built.ok().stderr.contains("nothing to do"));
}
