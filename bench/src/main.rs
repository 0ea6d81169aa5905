//! Side-by-side measurements of mk and other tools. What each table measures, and how to read it: bench/README.md.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "tables are what this program is for"
)]

mod stats;

mod table;

mod plot;

mod machine;

mod helper;

mod trace;

mod contest;

mod image;

mod input;

mod parts;

mod guard;

mod page;

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{ExitCode, ExitStatus};

use clap::builder::PossibleValue;
use clap::{Parser, ValueEnum};

use crate::machine::{Machine, Peer};
use crate::page::Measured;
use crate::parts::Part;

/// The archives that every measurement has.
const FIXTURES: [&str; 3] = [
    "busybox-musl-amd64.tar.gz",
    "busybox-glibc-amd64.tar.gz",
    "alpine-minirootfs-3.20.3-x86_64.tar.gz",
];

/// Measures mk beside other tools that do the same work. Needs root.
#[derive(Debug, Parser)]
struct Arguments {
    /// What to measure; may be several
    #[arg(value_enum, required = true)]
    parts: Vec<What>,
    /// How many rounds count
    #[arg(long)]
    rounds: Option<usize>,
    /// Take small inputs, and leave out what has none: to see that all can be measured
    #[arg(long)]
    quick: bool,
    /// Of `guard`: what is counted becomes the record
    #[arg(long)]
    bless: bool,
    /// With `guard`: write to cli/order.txt which functions the commands need, for the linker to put them side by side.
    #[arg(long, conflicts_with = "bless")]
    order: bool,
    /// Measure this mk [default: the one built from this checkout]
    #[arg(long, value_name = "FILE")]
    mk: Option<PathBuf>,
    /// Write all tables as JSON, too; in seconds and bytes
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write all ratios as a picture, too
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Put what is measured into this page, with JSON and pictures in the folder of its name
    #[arg(long, value_name = "FILE")]
    page: Option<PathBuf>,
    /// Put archives, stores and folders below this one, which should be on a disk
    #[arg(long, value_name = "DIR", default_value = "/var/tmp")]
    folder: PathBuf,
}

/// A part, or all of them, or what is no measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    All,
    Part(Part),
    Guard,
}

impl ValueEnum for What {
    fn value_variants<'a>() -> &'a [Self] {
        const ALL: [What; 13] = {
            let mut all = [What::All; 13];
            let mut at = 0;
            while at < Part::ALL.len() {
                all[at + 1] = What::Part(Part::ALL[at]);
                at += 1;
            }
            all[11] = What::Part(Part::Profile);
            all[12] = What::Guard;
            all
        };
        &ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        match self {
            Self::All => {
                Some(PossibleValue::new("all").help("All of the following but `profile` and `guard`"))
            }
            Self::Part(part) => part.to_possible_value(),
            Self::Guard => Some(
                PossibleValue::new("guard").help("System calls and instructions, beside the record of them"),
            ),
        }
    }
}

/// Why nothing could be measured.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("not installed: {programs}; apt-get install {packages}")]
    Missing { programs: String, packages: String },
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
    #[error("`{0}`: {1}")]
    Page(PathBuf, String),
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("there are no fixtures: set MK_FIXTURES to the folder of busybox-musl-amd64.tar.gz")]
    NoFixtures,
    #[error("mk printed what this cannot read: {0}")]
    Document(String),
}

impl Error {
    fn missing(peers: &[Peer]) -> Self {
        let list = |of: fn(&Peer) -> &str| peers.iter().map(of).collect::<Vec<_>>().join(" ");
        Self::Missing {
            programs: list(|peer| peer.program),
            packages: list(|peer| peer.package),
        }
    }
}

/// What every part is given.
#[derive(Debug, Clone)]
struct Bench {
    mk: PathBuf,
    fixtures: PathBuf,
    /// Where everything is put; not deleted before the last measurement, because a disk is slow for seconds after that.
    folder: PathBuf,
    /// Where input stays from one call to the next that takes long to make.
    kept: PathBuf,
    rounds: Option<usize>,
    quick: bool,
}

fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().collect();
    let done = helper::call(&words).unwrap_or_else(|| measure(&Arguments::parse_from(words)));
    match done {
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
    let asked = |what: What| arguments.parts.contains(&what);
    let all = asked(What::All);
    let mut parts: Vec<Part> = asked(What::Part(Part::Profile))
        .then_some(Part::Profile)
        .into_iter()
        .collect();
    parts.extend(
        Part::ALL
            .into_iter()
            .filter(|part| all || asked(What::Part(*part))),
    );
    let peers: Vec<Peer> = parts
        .iter()
        .flat_map(|part| part.peers(arguments.quick))
        .collect();
    machine::check(&peers)?;
    machine::own_mounts()?;
    let folder = tempfile::Builder::new()
        .prefix("mk-bench-")
        .tempdir_in(&arguments.folder)?;
    // An ordinary user has a folder of its own in there.
    fs_err::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o711))?;
    let bench = Bench {
        mk: match &arguments.mk {
            // What is measured is started from other folders, too.
            Some(mk) => fs_err::canonicalize(mk)?,
            None => machine::build_mk()?,
        },
        fixtures: fixtures()?,
        folder: folder.path().to_owned(),
        kept: arguments.folder.join("mk-bench-kept"),
        rounds: arguments.rounds,
        quick: arguments.quick,
    };
    let machine = Machine::here(&bench.folder)?;
    let mk = image::digest_of(&bench.mk)?;
    say(&format!("{machine}\n"));
    let mut all: Vec<Measured> = Vec::new();
    for part in parts {
        let mut tables = Vec::new();
        part.measure(&bench, &mut |new| {
            for table in &new {
                say(&format!("{}: {}", part.name(), table.text()));
            }
            tables.extend(new);
        })?;
        let mut measured = Measured {
            part: part.name(),
            machine: machine.clone(),
            mk: mk.clone(),
            tables,
        };
        if let Some(page) = &arguments.page {
            page::keep(page, &mut measured)?;
        }
        all.push(measured);
    }
    if let Some(path) = &arguments.json {
        let json = serde_json::to_string_pretty(&all)
            .map_err(|error| Error::Page(path.clone(), error.to_string()))?;
        fs_err::write(path, json + "\n")?;
    }
    if let Some(path) = &arguments.svg {
        let tables: Vec<_> = all.into_iter().flat_map(|measured| measured.tables).collect();
        fs_err::write(path, plot::svg(&tables))?;
    }
    if arguments.parts.contains(&What::Guard) {
        return match arguments.order {
            true => guard::order(&bench).map(|()| true),
            false => guard::measure(&bench, arguments.bless),
        };
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
    let found = folder.join(FIXTURES[0]).exists();
    found.then_some(folder).ok_or(Error::NoFixtures)
}
