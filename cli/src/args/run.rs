//! The command line of `mk run`: its options in groups, one for each heading of `--help`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use mk_core::spec::streams::Wanted;
use mk_core::spec::{Extra, ScratchKind, Tmpfs, Volume};

use super::limits::LimitArgs;
use super::on_network::OnNetworkArgs;
use super::privileges::PrivilegeArgs;
use super::{DurabilityArgs, StoreArgs};
use crate::value::{Pair, log_size, mount, scratch, seconds, tmpfs, variable, volume};

#[derive(Debug, Args)]
#[command(
    override_usage = "mk run [OPTIONS] <IMAGE> [OPTIONS] [COMMAND]...",
    after_help = "\
Options stand before or after IMAGE; the first other word starts the command,
and options after it are the command's own. What the command writes is gone
when it ends, except in volumes and where `--scratch` names a folder.

An image that is not built yet but known as a recipe (a path to a .toml file,
./images/IMAGE.toml, or one that mk ships) is built first.

The exit code is the command's own, 128+N where signal N ended it, 125 where mk
failed, 126 where the command cannot be executed, 127 where it is not found.

Examples:
  mk run busybox                               what the image runs by default
  mk run busybox ls -l /                       one command; `-l` is its own
  mk run busybox -v /tmp/t1:/mnt cat /mnt/f    a folder of yours at /mnt
  mk run busybox -v .:/src:ro -w /src sh       read-only, and start there
  mk run busybox -v cache:/var/cache           a volume that mk keeps
  mk run busybox -e LANG=C -- env              an environment variable
  mk run busybox -m 512m --cpus 1.5 make       not more than that
  mk run -d --name web busybox httpd -f        by itself; `mk stop web` ends it"
)]
pub(crate) struct Run {
    /// Name, digest, or its first digits (at least 6); or a recipe
    #[arg(value_name = "IMAGE")]
    pub(crate) image: OsString,
    /// Program and arguments [default: what the image says, else /bin/sh]
    #[arg(value_name = "COMMAND", trailing_var_arg = true)]
    pub(crate) command: Vec<OsString>,
    /// Print the namespaces, privileges, mounts and limits as they would be made, and stop
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    #[command(flatten)]
    pub(crate) durability: DurabilityArgs,
    #[command(flatten)]
    pub(crate) life: LifeArgs,
    #[command(flatten)]
    pub(crate) files: FileArgs,
    #[command(flatten)]
    pub(crate) process: ProcessArgs,
    #[command(flatten)]
    pub(crate) terminal: TerminalArgs,
    #[command(flatten)]
    pub(crate) namespaces: NamespaceArgs,
    #[command(flatten)]
    pub(crate) network: OnNetworkArgs,
    #[command(flatten)]
    pub(crate) limits: LimitArgs,
    #[command(flatten)]
    pub(crate) privileges: PrivilegeArgs,
}

/// How others know of the container, and how long.
#[derive(Debug, Args)]
#[command(next_help_heading = "Life")]
pub(crate) struct LifeArgs {
    /// Call the container so: `mk ps`, `logs`, `stop` and others know it by that
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Let the command run by itself: print the container's id and come back
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// With -d: forget the container and its log when it has ended
    #[arg(long)]
    pub(crate) rm: bool,
    /// With -d: keep so much of what is printed, such as 64m [default: 16m]
    #[arg(long, value_name = "SIZE", requires = "detach", value_parser = log_size)]
    pub(crate) log_size: Option<u64>,
    /// Let the command take so long to end when it is asked to, before it is killed [default: 10]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) stop_timeout: Option<Duration>,
}

/// Which files the command sees, and where its writes go.
#[derive(Debug, Args)]
#[command(next_help_heading = "Files")]
pub(crate) struct FileArgs {
    /// Show a file or folder of the host inside, or a volume of this name, with options such as ro or noexec; may be
    /// repeated
    #[arg(short = 'v', long = "volume", value_name = "SOURCE:TARGET[:OPTS]", value_parser = volume())]
    pub(crate) volumes: Vec<Volume>,
    /// The same in the long form: type=bind, volume, image or tmpfs, source=…, target=…; may be repeated
    #[arg(long, value_name = "KEY=VALUE,…", value_parser = mount())]
    pub(crate) mount: Vec<Extra>,
    /// Put an empty folder in memory at TARGET, with options such as size=64m; may be repeated
    #[arg(long, value_name = "TARGET[:OPTS]", value_parser = tmpfs())]
    pub(crate) tmpfs: Vec<Tmpfs>,
    /// Let the command write nowhere but in volumes and in memory
    #[arg(long)]
    pub(crate) read_only: bool,
    /// Where other writes go: tmpfs, tmpfs:SIZE or disk, gone at the end; or a folder, which keeps them for the next run
    /// [default: tmpfs]
    #[arg(long, value_name = "WHERE", value_parser = scratch())]
    pub(crate) scratch: Option<ScratchKind>,
}

/// Who runs the command, and what it is told.
#[derive(Debug, Args)]
#[command(next_help_heading = "Process")]
pub(crate) struct ProcessArgs {
    /// Set an environment variable; may be repeated
    #[arg(short = 'e', long = "env", value_name = "NAME=VALUE", value_parser = variable)]
    pub(crate) env: Vec<Pair>,
    /// Set environment variables from a file of NAME=VALUE lines; may be repeated
    #[arg(long = "env-file", value_name = "FILE")]
    pub(crate) env_files: Vec<PathBuf>,
    /// Start in this folder
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workdir: Option<String>,
    /// Run as this user of the image: NAME, UID, NAME:GROUP or UID:GID
    #[arg(short, long, value_name = "USER")]
    pub(crate) user: Option<String>,
}

/// What the command's standard input, output and error are.
#[derive(Debug, Clone, Copy, Default, Args)]
#[command(next_help_heading = "Terminal")]
pub(crate) struct TerminalArgs {
    /// Give the command a terminal, even where mk has none
    #[arg(short, long, overrides_with = "no_tty")]
    pub(crate) tty: bool,
    /// Give the command no terminal, only pipes
    #[arg(short = 'T', long, overrides_with = "tty")]
    pub(crate) no_tty: bool,
    /// Keep standard input open; so it is anyway while mk waits for the command
    #[arg(short, long)]
    pub(crate) interactive: bool,
}

impl TerminalArgs {
    /// Returns what is wanted of the streams of a command that runs `detached`, or not.
    pub(crate) fn wanted(self, detached: bool) -> Wanted {
        Wanted {
            terminal: (self.tty || self.no_tty).then_some(self.tty),
            open_input: self.interactive,
            detached,
        }
    }
}

/// What the command shares with the host, and what it has of its own.
#[derive(Debug, Args)]
#[command(next_help_heading = "Namespaces")]
pub(crate) struct NamespaceArgs {
    /// Set the host name
    #[arg(long, value_name = "NAME")]
    pub(crate) hostname: Option<String>,
    /// `host`: the container's root is who calls mk; `auto` (for root): it is nobody on the host
    #[arg(long, value_name = "KIND", value_enum, hide_possible_values = true)]
    pub(crate) userns: Option<UsernsArg>,
    /// Make the command itself process 1, without mk's reaper
    #[arg(long)]
    pub(crate) as_pid1: bool,
}

/// Whose ids the container has, as typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum UsernsArg {
    /// The caller's
    Host,
    /// Some of its own
    Auto,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    use crate::args::{Cli, Command};

    /// Returns the arguments of `mk run` with `words`.
    fn run(words: &[&str]) -> Run {
        let cli = Cli::try_parse_from(["mk", "run"].iter().chain(words)).unwrap();
        match cli.command {
            Command::Run(run) => *run.0,
            other => panic!("{other:?} is not `run`"),
        }
    }

    #[test]
    fn options_stand_on_either_side_of_the_image_until_the_command_begins() {
        for (words, volumes, command) in [
            (&["busybox"][..], 0, &[][..]),
            (&["busybox", "ls", "-l"], 0, &["ls", "-l"]),
            (&["busybox", "ls", "-v", "a:/b"], 0, &["ls", "-v", "a:/b"]),
            (&["-v", "a:/b", "busybox", "ls", "-l"], 1, &["ls", "-l"]),
            (&["busybox", "-v", "a:/b", "cat", "/b/f"], 1, &["cat", "/b/f"]),
            (
                &["-v", "a:/b", "busybox", "-v", "c:/d", "--read-only", "ls"],
                2,
                &["ls"],
            ),
            (
                &["busybox", "--", "sh", "-c", "exit 3"],
                0,
                &["sh", "-c", "exit 3"],
            ),
            (&["busybox", "-v", "a:/b", "--", "sh"], 1, &["sh"]),
            (&["busybox", "--", "-x"], 0, &["-x"]),
            (
                &["busybox", "git", "log", "--", "f"],
                0,
                &["git", "log", "--", "f"],
            ),
            (&["busybox", "--", "git", "--", "f"], 0, &["git", "--", "f"]),
            (&["busybox", "ls", "--help"], 0, &["ls", "--help"]),
            (&["busybox", "echo", "-"], 0, &["echo", "-"]),
            (&["busybox", "-"], 0, &["-"]),
        ] {
            let run = run(words);
            assert_eq!(run.image, "busybox", "{words:?}");
            assert_eq!(run.files.volumes.len(), volumes, "{words:?}");
            assert_eq!(run.command, command, "{words:?}");
        }
    }

    #[test]
    fn of_two_that_contradict_each_other_the_later_counts() {
        for (words, terminal, open_input) in [
            (&["box"][..], None, false),
            (&["-it", "box"], Some(true), true),
            (&["-t", "-T", "box"], Some(false), false),
            (&["-T", "box", "--tty", "-i", "sh"], Some(true), true),
        ] {
            let wanted = run(words).terminal.wanted(false);
            assert_eq!(
                (wanted.terminal, wanted.open_input),
                (terminal, open_input),
                "{words:?}"
            );
        }
    }

    #[test]
    fn a_variable_before_the_command_is_mks_and_after_it_the_commands() {
        let run = run(&["busybox", "-e", "A=1", "env", "-e"]);
        assert_eq!(
            (run.process.env.len(), run.command),
            (1, vec!["env".into(), "-e".into()])
        );
    }
}
