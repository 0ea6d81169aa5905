//! The command lines of what looks after containers: `mk ps`, `logs`, `stop`, `kill`, `wait`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use mk_core::container::Time;
use mk_core::sys::signal::Signal;

use crate::value::{moment, seconds, signal};

/// Where it is kept which containers there are.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct StateArgs {
    /// What `mk run` was told, where that is where containers are known (docs/settings.md): hardly ever needed
    #[arg(long, value_name = "DIR", hide = true)]
    pub(crate) store: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
A container has a line here if it was started with --name or -d. One whose
monitor was killed has died with it: the next command that looks says so, and
clears up behind it.

Examples:
  mk ps                                  what is running
  mk ps --all                            what has ended, too
  mk ps --json | jq -r '.[].id'
  mk stop $(mk ps -q)                    end them all")]
pub(crate) struct Ps {
    /// List those, too, that have ended
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Print a JSON list
    #[arg(long, conflicts_with = "quiet")]
    pub(crate) json: bool,
    /// Print nothing but ids
    #[arg(short, long)]
    pub(crate) quiet: bool,
    #[command(flatten)]
    pub(crate) state: StateArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
What the command wrote to stdout goes to stdout, what it wrote to stderr to
stderr, each byte as it was. The log holds so much (`mk run --log-size`), and
then loses its oldest part.

Examples:
  mk logs web
  mk logs -f --tail 10 web               the last lines, and what is to come
  mk logs --since 10m --timestamps web
  mk logs --since 2006-01-02T15:04:05Z web")]
pub(crate) struct Logs {
    /// The container: its name, its id, or the first digits of it
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// Go on until the container ends
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Leave out what is older: a time, or how long ago, such as 90s, 10m, 2h
    #[arg(long, value_name = "WHEN", value_parser = moment)]
    pub(crate) since: Option<Time>,
    /// Print the last so many lines only
    #[arg(short = 'n', long, value_name = "LINES")]
    pub(crate) tail: Option<usize>,
    /// Begin each line with the time at which it was printed
    #[arg(short, long)]
    pub(crate) timestamps: bool,
    #[command(flatten)]
    pub(crate) state: StateArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
The command gets a SIGTERM, and a SIGKILL when its time is up. A container that
has ended already is as it should be.

Examples:
  mk stop web
  mk stop -t 30 web db                   both at once, half a minute each
  mk stop -t 0 web                       kill it")]
pub(crate) struct Stop {
    /// The containers: names, ids, or the first digits of them
    #[arg(value_name = "NAME", required = true)]
    pub(crate) names: Vec<String>,
    /// Wait so long before killing [default: what the run said, else 10]
    #[arg(short, long = "time", value_name = "SECONDS", value_parser = seconds)]
    pub(crate) time: Option<Duration>,
    #[command(flatten)]
    pub(crate) state: StateArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mk kill web                            SIGKILL: it ends at once
  mk kill -s HUP web                     by name, with or without SIG
  mk kill -s 10 web db                   by number")]
pub(crate) struct Kill {
    /// The containers: names, ids, or the first digits of them
    #[arg(value_name = "NAME", required = true)]
    pub(crate) names: Vec<String>,
    /// The signal: a name or a number
    #[arg(short, long, value_name = "SIGNAL", default_value = "KILL", value_parser = signal)]
    pub(crate) signal: Signal,
    #[command(flatten)]
    pub(crate) state: StateArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Prints the exit code of each, a line each, in the order asked; mk's own exit
code is that of the last one.

Examples:
  mk wait web
  code=$(mk wait web)")]
pub(crate) struct Wait {
    /// The containers: names, ids, or the first digits of them
    #[arg(value_name = "NAME", required = true)]
    pub(crate) names: Vec<String>,
    #[command(flatten)]
    pub(crate) state: StateArgs,
}
