//! Side-by-side measurements of mk and other tools. What each table measures, and how to read it: bench/README.md.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "tables are what this program is for"
)]

mod contest;
mod guard;
mod machine;
mod network;
mod run;
mod stats;
mod unpack;

use std::path::PathBuf;
use std::process::{ExitCode, ExitStatus};

use clap::{Parser, ValueEnum};

use crate::contest::Table;

/// Measures mk beside other tools that do the same work. Needs root.
#[derive(Debug, Parser)]
struct Arguments {
    /// What to measure
    #[arg(value_enum, default_value_t = Part::All)]
    part: Part,
    /// How many rounds count
    #[arg(long)]
    rounds: Option<usize>,
    /// Leave out the large archive
    #[arg(long)]
    quick: bool,
    /// Of `guard`: what is counted becomes the record
    #[arg(long)]
    bless: bool,
    /// Measure this mk [default: the one built from this checkout]
    #[arg(long, value_name = "FILE")]
    mk: Option<PathBuf>,
    /// Write the tables as JSON, too; times are in seconds
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Put archives, stores and folders below this one, which should be on a disk
    #[arg(long, value_name = "DIR", default_value = "/var/tmp")]
    folder: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// All of them
    All,
    /// From the call to the end of a program that does nothing
    Run,
    /// From an archive to a folder
    Unpack,
    /// The same as `run`, with a network
    Network,
    /// System calls and instructions, beside the record of them; not a part of `all`
    Guard,
}

/// Why nothing could be measured.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("`{program}` is not installed: apt-get install {package}")]
    Missing {
        program: &'static str,
        package: &'static str,
    },
    #[error("`{name}` failed with {status}: {said}")]
    Contestant {
        name: String,
        status: ExitStatus,
        said: String,
    },
    #[error("cannot start `{program}`: {source}")]
    Start {
        program: PathBuf,
        source: std::io::Error,
    },
    #[error("the measurements need root and mounts of their own: {0}")]
    Root(nix::Error),
    #[error("cannot follow a program with ptrace: {0}")]
    Trace(nix::Error),
    #[error("`{command}` did not succeed while it was counted, but ended with {code:?}")]
    Traced { command: String, code: Option<i32> },
    #[error("`{path}` is no record: {why}")]
    Record { path: PathBuf, why: String },
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("there are no fixtures: set MK_FIXTURES to the folder of busybox-musl-amd64.tar.gz")]
    NoFixtures,
    #[error("`mk inspect` printed what is no image: {0}")]
    Document(String),
}

/// What every part is given.
struct Bench {
    mk: PathBuf,
    fixtures: PathBuf,
    /// Where everything is put; not deleted before the last measurement, because a disk is slow for seconds after that.
    folder: PathBuf,
    rounds: Option<usize>,
    quick: bool,
}

fn main() -> ExitCode {
    match measure(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Says something on stdout, where tables go.
fn say(text: &str) {
    println!("{text}");
}

/// Measures; returns whether all is well.
fn measure(arguments: &Arguments) -> Result<bool, Error> {
    machine::own_mounts()?;
    let folder = tempfile::Builder::new()
        .prefix("mk-bench-")
        .tempdir_in(&arguments.folder)?;
    let bench = Bench {
        mk: arguments.mk.clone().map_or_else(machine::build_mk, Ok)?,
        fixtures: fixtures()?,
        folder: folder.path().to_owned(),
        rounds: arguments.rounds,
        quick: arguments.quick,
    };
    if arguments.part == Part::Guard {
        return guard::measure(&bench, arguments.bless);
    }
    let mut tables: Vec<Table> = Vec::new();
    let mut tell = |table: Table| {
        println!("{}", table.text());
        tables.push(table);
    };
    let wanted = |part| [part, Part::All].contains(&arguments.part);
    if wanted(Part::Run) {
        run::measure(&bench, &mut tell)?;
    }
    if wanted(Part::Unpack) {
        unpack::measure(&bench, &mut tell)?;
    }
    // Last, because it leaves the network of the machine for good.
    if wanted(Part::Network) {
        network::measure(&bench, &mut tell)?;
    }
    if let Some(path) = &arguments.json {
        let json: Vec<serde_json::Value> = tables.iter().map(Table::json).collect();
        fs_err::write(path, format!("{:#}\n", serde_json::Value::from(json)))?;
    }
    Ok(true)
}

/// Returns the folder of archives that tests and measurements use where they need input that nobody here wrote.
#[expect(
    clippy::disallowed_methods,
    reason = "a measurement is told by its environment where its input is"
)]
fn fixtures() -> Result<PathBuf, Error> {
    let said = std::env::var_os("MK_FIXTURES").map(PathBuf::from);
    let folder = said.unwrap_or_else(|| concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/fixtures").into());
    let found = folder.join(unpack::FIXTURES[0]).exists();
    found.then_some(folder).ok_or(Error::NoFixtures)
}
