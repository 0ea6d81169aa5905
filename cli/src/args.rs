//! The command line exactly as typed: text in, [`Cli`] out. What it means is decided in `command/`.
//!
//! The sentences here are what `--help` shows; they are kept to 80 columns, and every command ends with examples.

use std::path::PathBuf;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{Args, Parser, Subcommand, ValueEnum};

use mk_core::container::Time;
use mk_core::store::Durability;

use crate::value::{self, Pair, assignment};

/// `mk ps`, `logs`, `stop`, `kill` and `wait`.
mod containers;
/// `mk exec`, `top`, `stats` and `diff`.
mod inside;
mod late;
/// `mk run`.
mod limits;
/// `mk network`.
mod network;
mod on_network;
mod privileges;
mod run;

pub(crate) use containers::{Kill, Logs, Ps, StateArgs, Stop, Wait};
pub(crate) use inside::{Diff, Exec, Stats, Top};
pub(crate) use late::Late;
pub(crate) use network::{Network, NetworkAction, NetworkCreate, NetworkInspect, NetworkLs, NetworkRm};
pub(crate) use run::{LifeArgs, Run, UsernsArg};

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

/// Turns a TOML recipe into a root filesystem named by the digest of its content, and runs programs in it, in fresh
/// Linux namespaces. No daemon, no root needed.
#[derive(Debug, Parser)]
#[command(
    name = "mk",
    version,
    styles = STYLES,
    max_term_width = 80,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "\
Examples:
  mk build images/busybox.toml            make an image from a recipe
  mk run busybox                          a shell in it
  mk run busybox -v .:/mnt ls /mnt        one command, with this folder at /mnt
  mk run -d --name web busybox httpd -f   one that goes on by itself

`mk COMMAND --help` explains a command and shows examples."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make an image from a recipe
    Build(Late<Build>),
    /// Show what a build would do, and do nothing
    Plan(Late<Plan>),
    /// Run a command in an image, in fresh namespaces
    Run(Late<Run>),
    /// List the containers that are running
    Ps(Late<Ps>),
    /// Print what a container has printed
    Logs(Late<Logs>),
    /// End containers: ask first, kill after a while
    Stop(Late<Stop>),
    /// Send a signal to the commands of containers
    Kill(Late<Kill>),
    /// Wait until containers have ended, and print their exit codes
    Wait(Late<Wait>),
    /// Run one more command in a container that is running
    Exec(Late<Exec>),
    /// Show the processes of a container
    Top(Late<Top>),
    /// Show what containers use: processor, memory, processes
    Stats(Late<Stats>),
    /// Show what a container changed, or how two images, folders or archives differ
    Diff(Late<Diff>),
    /// Remove containers that have ended, and names of images
    Rm(Late<Rm>),
    /// List the images in the store
    Images(Late<Images>),
    /// Show what an image is: as JSON, its files, or where its folder is
    Inspect(Late<Inspect>),
    /// Give an image one more name
    Tag(Late<Tag>),
    /// Show what the images take, and what fills one of them
    Du(Late<Du>),
    /// Free what no named image needs and no run is using
    Gc(Late<Gc>),
    /// Read everything in the store again and name what is damaged
    Verify(Late<Verify>),
    /// List the volumes that runs keep in the store, or take some away
    Volumes(Late<Volumes>),
    /// Make, list, look at and remove the networks of containers
    Network(Late<Network>),
    /// Write an image out as a tar archive or a folder
    Export(Late<Export>),
    /// Pin every source of a recipe in its lock file, without building
    Lock(Late<Lock>),
    /// Say what works on this machine, what does not, and what would enable it
    Doctor(Late<Doctor>),
    /// Print a script that completes mk's commands in a shell
    Completions(Late<Completions>),
    /// Print the JSON Schema of recipes, for editors
    Schema(Late<Schema>),
}

/// Where images are kept.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct StoreArgs {
    /// Keep images there [default: $MK_STORE, else /var/lib/mk for root and ~/.local/share/mk for others]
    #[arg(long, value_name = "DIR")]
    pub(crate) store: Option<PathBuf>,
}

/// Whether what is written is synced, for commands that build.
#[derive(Debug, Clone, Copy, Default, Args)]
pub(crate) struct DurabilityArgs {
    /// What a power cut may cost of the store: `full` syncs, `none` does not [default: $MK_DURABILITY, else full]
    #[arg(long, value_name = "HOW", value_parser = value::durability)]
    pub(crate) durability: Option<Durability>,
}

/// Where bytes come from, for `build` and `lock`.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct SourceArgs {
    /// Give an argument of the recipe a value; may be repeated
    #[arg(long = "arg", value_name = "NAME=VALUE", value_parser = assignment)]
    pub(crate) args: Vec<Pair>,
    /// Renew all pins: look up packages and URLs again
    #[arg(long)]
    pub(crate) update: bool,
    /// Fetch Debian packages from this mirror
    #[arg(long, value_name = "URL")]
    pub(crate) mirror: Option<String>,
    /// Look for sources in this folder first, by sha256; may be repeated
    #[arg(long = "source-dir", value_name = "DIR")]
    pub(crate) source_dirs: Vec<PathBuf>,
    /// Accept a Debian index whose signature cannot be checked
    #[arg(long)]
    pub(crate) insecure_index: bool,
}

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum ProgressMode {
    /// Bars on a terminal, lines elsewhere
    #[default]
    Auto,
    /// One line for each thing that happens
    Plain,
    /// One JSON object for each thing that happens
    Json,
    /// Nothing
    None,
}

/// How much is said, for commands that build.
#[derive(Debug, Clone, Copy, Default, Args)]
pub(crate) struct TalkArgs {
    /// How to show progress, on stderr
    #[arg(
        long,
        value_name = "HOW",
        value_enum,
        default_value_t,
        hide_possible_values = true,
        help = "\
How to show progress, on stderr: auto, plain, json or none"
    )]
    pub(crate) progress: ProgressMode,
    /// Show no progress; the result is still printed
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
RECIPE is a path to a .toml file, or the name of a recipe that mk ships, such as
busybox. The image is named after the file (after its folder, if the file is
called Containerfile.toml). Steps whose result is known are not done again.

Prints the image's name and digest on stdout and all else on stderr.

Examples:
  mk build                              build ./Containerfile.toml
  mk build images/busybox.toml          build a recipe, name it `busybox`
  mk build busybox --name bb            build a recipe that mk ships
  mk build app.toml --arg version=1.2   give an argument of the recipe a value
  mk build app.toml --locked            fail where app.lock would change (CI)
  mk build app.toml --explain           say why steps are done again
  mk build app.toml --check             see whether all steps are reproducible")]
pub(crate) struct Build {
    /// A path to a .toml file, or the name of a recipe that mk ships
    #[arg(value_name = "RECIPE", default_value = "Containerfile.toml")]
    pub(crate) recipe: PathBuf,
    /// Name the image so
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Fail where the lock file would change
    #[arg(long, conflicts_with = "update")]
    pub(crate) locked: bool,
    /// Say of each step whether it was cached, and if not, what has changed since the last build
    #[arg(long)]
    pub(crate) explain: bool,
    /// Do every step once more in other surroundings, and fail where one gives another tree
    #[arg(long)]
    pub(crate) check: bool,
    /// Give `run` steps a file to read by this name, which stays out of the image; may be repeated
    #[arg(long = "secret", value_name = "NAME=FILE", value_parser = assignment)]
    pub(crate) secrets: Vec<Pair>,
    /// Where a command fails, open a shell in what it left
    #[arg(long)]
    pub(crate) shell_on_failure: bool,
    #[command(flatten)]
    pub(crate) source: SourceArgs,
    /// Print the result as JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) talk: TalkArgs,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    #[command(flatten)]
    pub(crate) durability: DurabilityArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Each recipe that the build needs, in the order in which they are built, with its
steps: cached, to do, or to do unless what comes before gives a tree that is
known already.

Examples:
  mk plan                       the plan of ./Containerfile.toml
  mk plan app.toml --svg > plan.svg
  mk plan app.toml --dot | dot -Tpng > plan.png")]
pub(crate) struct Plan {
    /// A path to a .toml file, or the name of a recipe that mk ships
    #[arg(value_name = "RECIPE", default_value = "Containerfile.toml")]
    pub(crate) recipe: PathBuf,
    /// Print JSON
    #[arg(long, group = "form")]
    pub(crate) json: bool,
    /// Print a graph for Graphviz
    #[arg(long, group = "form")]
    pub(crate) dot: bool,
    /// Print a picture
    #[arg(long, group = "form")]
    pub(crate) svg: bool,
    #[command(flatten)]
    pub(crate) source: SourceArgs,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mk images
  mk images --json | jq -r '.[].digest'")]
pub(crate) struct Images {
    /// Print a JSON list
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mk inspect busybox               the image's document, as JSON
  mk inspect --tree busybox        every file, as canonical mtree(5) text
  ls \"$(mk inspect --rootfs busybox)\"

Check a folder against an image with a public tool:
  mk inspect --tree alpine | mtree -p \"$(mk inspect --rootfs alpine)\"")]
pub(crate) struct Inspect {
    /// Name, digest, or its first digits (at least 6)
    #[arg(value_name = "IMAGE")]
    pub(crate) image: String,
    /// Print every file of the image, as canonical mtree(5) text
    #[arg(long, conflicts_with = "rootfs")]
    pub(crate) tree: bool,
    /// Print the path of the image's folder in the store (never write there)
    #[arg(long)]
    pub(crate) rootfs: bool,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mk tag busybox bb
  mk tag 5c3b447848a9 busybox-before")]
pub(crate) struct Tag {
    /// Name, digest, or its first digits (at least 6)
    #[arg(value_name = "IMAGE")]
    pub(crate) image: String,
    /// The name it is given; an image that had the name before loses it
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
A container goes with its log. An image loses the name only: `mk gc` then frees
the space, unless the image has another name or is running.

Examples:
  mk rm web                              a container that has ended
  mk rm -f web                           whether it has ended or not
  mk rm busybox alpine && mk gc          images")]
pub(crate) struct Rm {
    /// Names of containers or images; or ids of containers
    #[arg(value_name = "NAME", required = true)]
    pub(crate) names: Vec<String>,
    /// Kill containers that are running
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Look for images only
    #[arg(long, conflicts_with = "force")]
    pub(crate) image: bool,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
OWN is what no other image of the store has, SHARED what others have, too.

Examples:
  mk du                            every image
  mk du debian                     folder by folder
  mk du debian --svg > debian.svg  a picture")]
pub(crate) struct Du {
    /// The image: its name, its digest, or the first digits of it
    #[arg(value_name = "IMAGE")]
    pub(crate) image: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Print a picture of what fills the image
    #[arg(long, requires = "image", conflicts_with = "json")]
    pub(crate) svg: bool,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mk gc --dry-run       say what would go, and why the rest stays
  mk gc                 let it go
  mk gc --keep 7d       spare what was built in the last seven days
  mk gc --keep 0        spare nothing for its age
  mk gc --max-size 5g   let what only saves work go, too, until 5 GiB are left
  mk gc --caches        let the caches of `run` steps go, too")]
pub(crate) struct Gc {
    /// Spare what was built since, name or not: how long ago (90s, 10m, 2h, 7d), or a time
    #[arg(long, value_name = "AGE", default_value = "1h", value_parser = value::age)]
    pub(crate) keep: Time,
    /// Go on with what only saves work, the oldest first, until the store takes no more than SIZE (such as 500m, 5g)
    #[arg(long, value_name = "SIZE", value_parser = value::size)]
    pub(crate) max_size: Option<u64>,
    /// Remove the caches of `run` steps, too, as far as none is in use
    #[arg(long)]
    pub(crate) caches: bool,
    /// Say what would be removed, and remove nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Exits with 1 where something is damaged, and says which images it hurts.

--repair makes it anew: of other files and archives of the store, of where they
were fetched, or by a build of the recipe, which must give the very same image.
It says of each what was done, and exits with 0 where all is whole then.

Examples:
  mk verify
  mk verify --json | jq .damaged
  mk verify --repair")]
pub(crate) struct Verify {
    /// Make what is damaged anew, and take away what cannot be
    #[arg(long, conflicts_with = "discard")]
    pub(crate) repair: bool,
    /// Take what is damaged away, so that the next build makes it anew
    #[arg(long)]
    pub(crate) discard: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
A volume is made by the first run that names it, as in
`mk run IMAGE -v NAME:/var/cache`, and stays until it is taken away here.

Examples:
  mk volumes
  mk volumes --json | jq -r '.[].name'
  mk volumes rm cache"
)]
pub(crate) struct Volumes {
    #[command(subcommand)]
    pub(crate) action: Option<VolumesAction>,
    /// Print a JSON list
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

/// What is done with volumes.
#[derive(Debug, Subcommand)]
pub(crate) enum VolumesAction {
    /// Take volumes away, with all that is in them; those that a run uses stay
    Rm {
        /// Names of volumes
        #[arg(value_name = "NAME", required = true)]
        names: Vec<String>,
        #[command(flatten)]
        store: StoreArgs,
    },
}

#[derive(Debug, Args)]
#[command(after_help = "\
The same image gives the same bytes, wherever and whenever it is exported.

Examples:
  mk export busybox -o busybox.tar
  mk export busybox -o - | tar -tv
  mk export busybox --folder /srv/busybox")]
pub(crate) struct Export {
    /// Name, digest, or its first digits (at least 6)
    #[arg(value_name = "IMAGE")]
    pub(crate) image: String,
    /// Write a tar archive to this file; `-` is stdout
    #[arg(
        short,
        long,
        value_name = "FILE",
        required_unless_present = "folder",
        conflicts_with = "folder"
    )]
    pub(crate) output: Option<PathBuf>,
    /// Write the files into this folder, which must be new or empty
    #[arg(long, value_name = "DIR")]
    pub(crate) folder: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mk lock app.toml            pin what app.lock does not have yet
  mk lock app.toml --update   renew all pins
  mk lock app.toml --check    exit with 1 where app.lock would change")]
pub(crate) struct Lock {
    /// A path to a .toml file
    #[arg(value_name = "RECIPE", default_value = "Containerfile.toml")]
    pub(crate) recipe: PathBuf,
    #[command(flatten)]
    pub(crate) source: SourceArgs,
    /// Write nothing; exit with 1 where the lock file would change
    #[arg(long, conflicts_with = "update")]
    pub(crate) check: bool,
    #[command(flatten)]
    pub(crate) talk: TalkArgs,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Tries what a run does, as this user, and changes nothing. Exits with 1 where
`mk run` cannot work.

Examples:
  mk doctor
  mk doctor --json | jq '.findings[] | select(.verdict != \"ok\")'")]
pub(crate) struct Doctor {
    /// Print the result as JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mk completions bash > ~/.local/share/bash-completion/completions/mk
  mk completions zsh > ~/.zfunc/_mk
  mk completions fish > ~/.config/fish/completions/mk.fish")]
pub(crate) struct Completions {
    /// bash, zsh, fish, elvish or powershell
    #[arg(value_name = "SHELL", value_enum, hide_possible_values = true)]
    pub(crate) shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mk schema > recipe.schema.json

An editor that reads TOML schemas (taplo, Even Better TOML) then completes and
checks recipes that begin with the line
  #:schema ./recipe.schema.json")]
pub(crate) struct Schema {}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn clap_finds_the_command_line_sound() {
        let mut mk = Cli::command();
        mk.build();
        mk.debug_assert();
    }
}
