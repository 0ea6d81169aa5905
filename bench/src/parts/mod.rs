//! What is measured, part by part. Each makes what it needs in the folder of this bench, holds its contests, and tells
//! their tables.

use std::path::Path;
use std::time::Duration;

use clap::ValueEnum;

use crate::contest::{Contest, Contestant, Metric};
use crate::machine::{self, Peer};
use crate::table::Table;
use crate::{Bench, Error};

/// One more command in a container.
mod exec;
/// Large images: a million files, four gigabytes.
mod large;
/// With a network.
mod network;
/// Packages of a distribution.
mod packages;
/// System calls of a run, and how long they take.
mod profile;
/// The same again, and nearly the same again.
mod rebuild;
/// From the call to the end of a program that does nothing.
mod run;
/// What the store does with what it holds.
mod store;
/// From an archive to a folder.
mod unpack;

/// Where a part's tables go, as soon as there are any.
pub(crate) type Tell<'a> = &'a mut dyn FnMut(Vec<Table>);

/// Something to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// From the call to the end of a program that does nothing
    Run,
    /// The same, as an ordinary user
    User,
    /// The same, a thousand times, so many at once
    Crowd,
    /// One more command in a container that runs
    Exec,
    /// From an archive to a folder
    Unpack,
    /// A build in which nothing, or little, has changed
    Rebuild,
    /// Images of a million files and of four gigabytes: start, time and memory
    Large,
    /// gc, verify and export
    Store,
    /// A root filesystem from Debian's packages
    Packages,
    /// The same as `run`, with a network
    Network,
    /// How the time of one run divides
    Profile,
}

impl Part {
    /// All that are beside others, in the order in which they are measured: the last leaves the network of the machine for good.
    pub(crate) const ALL: [Self; 10] = [
        Self::Run,
        Self::User,
        Self::Crowd,
        Self::Exec,
        Self::Unpack,
        Self::Rebuild,
        Self::Large,
        Self::Store,
        Self::Packages,
        Self::Network,
    ];

    /// Returns its name, as it is typed.
    pub(crate) fn name(self) -> String {
        self.to_possible_value()
            .map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// Returns the programs that it needs, some of which only without `quick`.
    pub(crate) fn peers(self, quick: bool) -> Vec<Peer> {
        use machine::{
            BSDTAR, BWRAP, CC, CRUN, GZIP, IP, MMDEBSTRAP, NSENTER, NSPAWN, PODMAN, RUNC, TAR, UMOCI,
            UNSHARE, XZ, ZSTD,
        };
        let always: &[Peer] = match self {
            Self::Run => &[CC, BWRAP, CRUN, UNSHARE, RUNC, NSPAWN, PODMAN],
            Self::User | Self::Crowd => &[CC, BWRAP, CRUN],
            Self::Exec => &[CC, CRUN, NSENTER],
            Self::Unpack | Self::Large => &[CC, BSDTAR, TAR],
            Self::Rebuild => &[CC],
            Self::Store => &[CC, TAR],
            Self::Packages => &[],
            Self::Network => &[CC, IP, PODMAN],
            Self::Profile => &[CC],
        };
        let slow: &[Peer] = match self {
            Self::Unpack => &[MMDEBSTRAP, GZIP, XZ, ZSTD, UMOCI, PODMAN],
            Self::Store | Self::Packages => &[MMDEBSTRAP],
            _ => &[],
        };
        [always, if quick { &[] } else { slow }].concat()
    }

    /// Measures it.
    pub(crate) fn measure(self, bench: &Bench, tell: Tell<'_>) -> Result<(), Error> {
        match self {
            Self::Run => run::measure(bench, tell),
            Self::User => run::measure_user(bench, tell),
            Self::Crowd => run::measure_crowd(bench, tell),
            Self::Exec => exec::measure(bench, tell),
            Self::Unpack => unpack::measure(bench, tell),
            Self::Rebuild => rebuild::measure(bench, tell),
            Self::Large => large::measure(bench, tell),
            Self::Store => store::measure(bench, tell),
            Self::Packages => packages::measure(bench, tell),
            Self::Network => network::measure(bench, tell),
            Self::Profile => profile::measure(bench, tell),
        }
    }
}

/// Both times of a start. Not for podman, which now and then loses what a container says that ends at once.
const BOTH: &[Metric] = &[Metric::End, Metric::Start];

/// Holds a contest of starts: `rounds` back to back, and a fifth of it with 50 ms between the calls, because a
/// kernel does some work lazily, which only shows with gaps.
fn starts(
    bench: &Bench,
    title: &str,
    metrics: &[Metric],
    rounds: usize,
    contestants: impl Fn() -> Result<Vec<Contestant>, Error>,
    tell: Tell<'_>,
) -> Result<(), Error> {
    for (gap, rounds) in [(0, rounds), (50, rounds.div_ceil(5))] {
        let title = match gap {
            0 => format!("{title}, back to back"),
            _ => format!("{title}, {gap} ms between calls"),
        };
        tell(
            Contest {
                metrics: metrics.to_vec(),
                warm_ups: 5.min(rounds),
                gap: Duration::from_millis(gap),
                ..Contest::new(title, bench.rounds.unwrap_or(rounds), contestants()?)
            }
            .hold()?,
        );
    }
    Ok(())
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}
