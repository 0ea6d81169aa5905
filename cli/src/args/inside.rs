//! The command lines of what looks into a container that runs, or goes in: `mk exec`, `top`, `stats`, `diff`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;

use super::StoreArgs;
use super::containers::StateArgs;
use super::run::TerminalArgs;
use crate::value::{Pair, variable};

#[derive(Debug, Args)]
#[command(
    override_usage = "mk exec [OPTIONS] <NAME> [OPTIONS] <COMMAND>...",
    after_help = "\
The command sees what the container's own command sees, and may do no more: the
same namespaces, user, capabilities, system calls, limits and environment. It
ends when mk ends, and when the container does.

Options stand before or after NAME; the first other word starts the command.
The exit code is the command's own, 128+N where signal N ended it, 125 where mk
failed, 126 where the command cannot be executed, 127 where it is not found.

Examples:
  mk exec web ps
  mk exec web                            a shell in it
  mk exec -u app -w /srv web ls -l
  echo hi | mk exec -i web sh -c 'cat >/tmp/f'"
)]
pub(crate) struct Exec {
    /// The container: its name, its id, or the first digits of it
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// Program and arguments [default: /bin/sh]
    #[arg(value_name = "COMMAND", trailing_var_arg = true)]
    pub(crate) command: Vec<OsString>,
    /// Set an environment variable, besides those of the container; may be repeated
    #[arg(short = 'e', long = "env", value_name = "NAME=VALUE", value_parser = variable)]
    pub(crate) env: Vec<Pair>,
    /// Set environment variables from a file of NAME=VALUE lines; may be repeated
    #[arg(long = "env-file", value_name = "FILE")]
    pub(crate) env_files: Vec<PathBuf>,
    /// Start in this folder [default: where the container's command started]
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workdir: Option<String>,
    /// Run as this user of the container: NAME, UID, NAME:GROUP or UID:GID [default: the user of its command]
    #[arg(short, long, value_name = "USER")]
    pub(crate) user: Option<String>,
    #[command(flatten)]
    pub(crate) terminal: TerminalArgs,
    #[command(flatten)]
    pub(crate) state: StateArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
PID and USER are those of the container. TIME is processor time; RSS is memory,
of which what several processes share counts for each.

Examples:
  mk top web
  mk top --json web | jq -r '.[].command'")]
pub(crate) struct Top {
    /// The container: its name, its id, or the first digits of it
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// Print a JSON list
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) state: StateArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
CPU is measured for half a second: 100% is one processor. Where a container has
a control group (a limit was set), the kernel counts; else mk sums up over its
processes. COUNTED says which.

Examples:
  mk stats                               all that are running
  mk stats web db
  mk stats --json | jq '.[].memory'")]
pub(crate) struct Stats {
    /// Containers: names, ids, or the first digits of them [default: all that are running]
    #[arg(value_name = "NAME")]
    pub(crate) names: Vec<String>,
    /// Print a JSON list
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) state: StateArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
One path a line: A was added, C was changed, D is gone, with all that was in it.
Volumes and other places with a mount of their own are left out. A container
that wrote to memory has nothing to show once it has ended.

Of two things, the line says what changed, and the lines of text files that
differ follow. Each is an image (name or digest), `tree:DIGEST`, a container
(`container:NAME` where an image has the same name), a folder or an archive: a
path has a slash, or ends as archives do. The exit code is 1 where they differ,
and 2 where they cannot be compared.

Examples:
  mk diff web
  mk diff --stat web
  mk diff app container:web
  mk diff busybox ./rootfs/
  mk diff old.tar.gz new.tar.gz
  mk diff --json web | jq -r '.[] | select(.change == \"removed\").path'")]
pub(crate) struct Diff {
    /// The container: its name, its id, or the first digits of it; of two things, the one that was first
    #[arg(value_name = "A")]
    pub(crate) name: String,
    /// What is compared with it
    #[arg(value_name = "B")]
    pub(crate) other: Option<String>,
    /// Print a JSON list, which says what of each path changed
    #[arg(long)]
    pub(crate) json: bool,
    /// Print numbers only
    #[arg(long, conflicts_with = "json")]
    pub(crate) stat: bool,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
}
