//! A root filesystem from Debian's packages: mmdebstrap beside a recipe with the same packages.

use std::path::Path;
use std::process::Command;

use super::{Tell, text};
use crate::contest::{Contest, Contestant, Metric};
use crate::machine::{MMDEBSTRAP, TAR};
use crate::{Bench, Error, input, machine};

/// Measures; nothing where everything is to be small.
pub(super) fn measure(bench: &Bench, tell: Tell<'_>) -> Result<(), Error> {
    if bench.quick {
        return Ok(());
    }
    let folder = bench.folder.join("packages");
    fs_err::create_dir_all(&folder)?;
    let recipe = folder.join("debian.toml");
    let (suite, sources) = input::sources()?;
    let packages: Vec<String> = packages(bench)?
        .iter()
        .map(|name| format!("\"{name}\""))
        .collect();
    let list = packages.join(", ");
    fs_err::write(
        &recipe,
        format!("[[step]]\ndeb = [{list}]\nsuite = \"{suite}\"\n"),
    )?;
    // Locked, and everything fetched, before anything is measured.
    let fetched = folder.join("fetched");
    machine::call(
        &bench.mk,
        [
            "build".as_ref(),
            "--quiet".as_ref(),
            "--store".as_ref(),
            fetched.as_os_str(),
            recipe.as_os_str(),
        ],
    )?;
    let (mk, own) = (bench.mk.clone(), folder.clone());
    let ours = Contestant::by("mk build", move |round| {
        let mut command = Command::new(&mk);
        command
            .args(["build", "--quiet", "--locked", "--source-dir"])
            .arg(fetched.join("sources"))
            .arg("--store")
            .arg(own.join(format!("store-{round}")))
            .arg(&recipe);
        Ok(command)
    });
    let (program, own) = (MMDEBSTRAP.find()?, folder.clone());
    let archives = text(&cache(&folder, &suite, &sources)?);
    let theirs = Contestant::by("mmdebstrap", move |round| {
        let mut command = Command::new(&program);
        command
            .args(["--quiet", "--mode=root", "--variant=minbase", "--skip=cleanup/apt"])
            // What is in apt's cache is not fetched again.
            .arg(format!("--setup-hook=mkdir -p \"$1\"/var/cache/apt/archives && cp {archives}/*.deb \"$1\"/var/cache/apt/archives/"))
            .arg(&suite)
            .arg(own.join(format!("debian-{round}")))
            .args(&sources);
        Ok(command)
    });
    let contest = Contest {
        metrics: vec![Metric::End, Metric::Peak],
        settle: true,
        ..Contest::new(
            "a root filesystem from the packages of Debian's minbase, all of them fetched before",
            bench.rounds.unwrap_or(3),
            vec![
                ours,
                theirs.differs(
                    "fetches and checks the index; copies packages into its cache; runs their scripts, and dpkg, which keeps its \
                     database: its result can be upgraded, that of mk cannot",
                ),
            ],
        )
    };
    tell(contest.hold()?);
    Ok(())
}

/// Returns what is installed in the Debian of the other parts, as its dpkg has it.
fn packages(bench: &Bench) -> Result<Vec<String>, Error> {
    let archive = input::debian(bench, input::Packing::Plain)?;
    let status = machine::call(&TAR.find()?, ["-xOf", &text(&archive), "./var/lib/dpkg/status"])?;
    let names = status.lines().filter_map(|line| line.strip_prefix("Package: "));
    Ok(names.map(str::to_owned).collect())
}

/// Returns a folder of all packages, as apt keeps them.
fn cache(folder: &Path, suite: &str, sources: &[std::path::PathBuf]) -> Result<std::path::PathBuf, Error> {
    let cache = folder.join("archives");
    fs_err::create_dir_all(&cache)?;
    let mut command = Command::new(MMDEBSTRAP.find()?);
    command
        .args(["--quiet", "--mode=root", "--variant=minbase", "--format=null"])
        .args([
            "--skip=download/empty",
            "--skip=essential/unlink",
            "--skip=cleanup/apt",
        ])
        .arg(format!(
            "--customize-hook=cp \"$1\"/var/cache/apt/archives/*.deb {}",
            text(&cache)
        ))
        .args([suite, "-"])
        .args(sources);
    machine::output(command)?;
    Ok(cache)
}
