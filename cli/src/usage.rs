//! What clap says of a command line that it cannot read → mk's own words: what, where, and what was probably meant.

use std::ffi::OsString;
use std::fmt::Write as _;

use clap::CommandFactory;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use mk_core::recipe::{KINDS, NetName};

use crate::args::Cli;
use crate::command::find::closest;
use crate::report::harmless;
use crate::ui::{Tone, Ui};

/// Returns the whole text for `error`, which is neither help nor version. `words` is the command line.
pub(crate) fn text(ui: &Ui, error: &clap::Error, words: &[OsString]) -> String {
    let command = command(words);
    let what = harmless(&what(error, &command));
    let mut text = format!("{} {what}", ui.paint(Tone::Error, "error:"));
    let hint = ui.paint(Tone::Hint, "hint:");
    for line in hints(error, &command) {
        let _ = write!(text, "\n{hint} {}", harmless(&line));
    }
    text
}

fn what(error: &clap::Error, command: &str) -> String {
    let argument = get(error, ContextKind::InvalidArg).unwrap_or_default();
    let value = get(error, ContextKind::InvalidValue).unwrap_or_default();
    match error.kind() {
        ErrorKind::InvalidSubcommand => {
            let typed = get(error, ContextKind::InvalidSubcommand).unwrap_or_default();
            format!("`{typed}` is not a command of `{command}`").replace("`mk`", "mk")
        }
        ErrorKind::UnknownArgument if argument.starts_with('-') => {
            format!("`{}` has no option `{argument}`", command)
        }
        ErrorKind::UnknownArgument => {
            format!("`{}` does not take another word: `{argument}`", command)
        }
        ErrorKind::InvalidValue if value.is_empty() => format!("`{argument}` wants a value"),
        ErrorKind::InvalidValue => format!(
            "`{value}` is no value of `{argument}`: expected {}",
            choices(error)
        ),
        ErrorKind::ValueValidation => {
            let why = std::error::Error::source(error)
                .map(ToString::to_string)
                .unwrap_or_default();
            match why.starts_with(&format!("`{value}`")) {
                true => why,
                false => format!("`{argument} {value}`: {why}"),
            }
        }
        ErrorKind::MissingRequiredArgument => {
            // The one command that needs either of two options; clap names only the first.
            let missing = if argument == "--output" {
                "-o FILE or --folder DIR"
            } else {
                &argument
            };
            format!("`{command}` is missing {missing}")
        }
        ErrorKind::ArgumentConflict => {
            let other = get(error, ContextKind::PriorArg).unwrap_or_default();
            if other == argument {
                format!("`{argument}` is given twice")
            } else {
                format!("`{argument}` and `{other}` do not go together")
            }
        }
        ErrorKind::TooManyValues => format!("`{argument}` takes no value, and `{value}` was given"),
        ErrorKind::InvalidUtf8 => "an argument is not UTF-8, where only text makes sense".into(),
        _ => {
            let text = error.render().to_string();
            text.lines()
                .next()
                .unwrap_or_default()
                .trim_start_matches("error: ")
                .to_owned()
        }
    }
}

/// What people type who come from other tools, and what mk has for it: command, word, advice.
const HABITS: &[(&str, &str, &str)] = &[
    (
        "mk",
        "attach",
        "`mk logs -f NAME` shows what a container prints, `mk exec NAME` is a shell in it",
    ),
    (
        "mk",
        "enter",
        "`mk exec NAME` is a shell in a container that is running",
    ),
    (
        "mk",
        "container",
        "the word goes by itself: `mk ps`, `mk logs NAME`, `mk stop NAME`, `mk rm NAME`",
    ),
    ("mk", "create", "`mk run -d` makes a container and starts it"),
    (
        "mk",
        "image",
        "the word goes by itself: `mk images`, `mk rm NAME`, `mk gc`",
    ),
    (
        "mk",
        "list",
        "`mk images` lists the images, `mk ps` the containers",
    ),
    ("mk", "ls", "`mk images` lists the images, `mk ps` the containers"),
    ("mk", "networks", "`mk network ls` lists the networks"),
    ("mk", "prune", "`mk gc` frees what no image needs"),
    ("mk", "pull", "`mk build` fetches what a recipe names"),
    (
        "mk",
        "push",
        "`mk export IMAGE -o FILE` writes an image as a tar; the recipe and its lock make the same one elsewhere",
    ),
    (
        "mk",
        "rmi",
        "`mk rm` removes names of images, `mk gc` then frees the space",
    ),
    ("mk", "save", "`mk export` writes an image out"),
    (
        "mk",
        "shell",
        "`mk run IMAGE` starts a shell, unless the image says otherwise",
    ),
    (
        "mk",
        "rename",
        "a container keeps the name that `mk run --name` gave it",
    ),
    (
        "mk",
        "restart",
        "a container runs once: `mk stop NAME`, then `mk run -d --name NAME …` anew",
    ),
    (
        "mk",
        "start",
        "`mk run IMAGE` starts the image's command; a container runs once",
    ),
    (
        "mk",
        "volume",
        "`mk volumes` lists the volumes, `mk volumes rm NAME` takes one away",
    ),
    (
        "mk exec",
        "--detach",
        "`mk exec NAME sh -c 'COMMAND >/dev/null 2>&1 &'` leaves it running behind",
    ),
    (
        "mk exec",
        "-d",
        "`mk exec NAME sh -c 'COMMAND >/dev/null 2>&1 &'` leaves it running behind",
    ),
    ("mk stats", "--no-stream", "leave it out: `mk stats` looks once"),
    (
        "mk volumes",
        "create",
        "the first run that names a volume makes it: `mk run IMAGE -v NAME:/place`",
    ),
    (
        "mk volumes",
        "inspect",
        "`mk volumes --json` says what is known of each",
    ),
    ("mk volumes", "list", "`mk volumes` lists them"),
    ("mk volumes", "ls", "`mk volumes` lists them"),
    (
        "mk volumes",
        "prune",
        "`mk volumes rm NAME…` takes those away that it names",
    ),
    ("mk", "version", "`mk --version` prints it"),
    (
        "mk build",
        "--build-arg",
        "`--arg NAME=VALUE` gives an argument of the recipe a value",
    ),
    (
        "mk build",
        "--file",
        "the recipe is a word of its own: `mk build FILE`",
    ),
    (
        "mk build",
        "--no-cache",
        "a step is known by all that goes into it, so a cached one is what doing it would give",
    ),
    ("mk build", "--tag", "`--name NAME` names the image"),
    (
        "mk build",
        "-f",
        "the recipe is a word of its own: `mk build FILE`",
    ),
    ("mk build", "-t", "`--name NAME` names the image"),
    (
        "mk network",
        "connect",
        "a container is on the network that it was started on: `mk run --network bridge:NAME`",
    ),
    (
        "mk network",
        "disconnect",
        "a container is on its network as long as it lives: `mk stop NAME` ends it",
    ),
    ("mk network", "list", "`mk network ls` lists the networks"),
    (
        "mk network",
        "prune",
        "`mk network ls` shows which networks nobody is on, `mk network rm NAME` removes one",
    ),
    (
        "mk network create",
        "--attachable",
        "leave it out: any run may be on a network",
    ),
    (
        "mk network create",
        "--driver",
        "leave it out: a network is a bridge; with `--private` one that leads nowhere",
    ),
    (
        "mk network create",
        "-d",
        "leave it out: a network is a bridge; with `--private` one that leads nowhere",
    ),
    (
        "mk network create",
        "--gateway",
        "write it as the address of the subnet: `--subnet 10.9.8.254/24`",
    ),
    (
        "mk network create",
        "--internal",
        "`--private` makes a network that leads nowhere",
    ),
    (
        "mk network create",
        "--ipv6",
        "leave it out: a network has IPv6 where the host has; `--subnet6 CIDR` chooses the addresses",
    ),
    (
        "mk network create",
        "--opt",
        "leave it out: `--mtu BYTES` is all that can be chosen besides the subnets",
    ),
    (
        "mk network create",
        "-o",
        "leave it out: `--mtu BYTES` is all that can be chosen besides the subnets",
    ),
    ("mk network", "remove", "`mk network rm NAME` removes one"),
    (
        "mk network rm",
        "--force",
        "`mk network inspect NAME` shows who is on a network, `mk stop` ends them",
    ),
    (
        "mk network rm",
        "-f",
        "`mk network inspect NAME` shows who is on a network, `mk stop` ends them",
    ),
    ("mk run", "--cpuset-cpus", "`--cpuset LIST` chooses the CPUs"),
    (
        "mk run",
        "--device",
        "`-v /dev/NAME:/dev/NAME:dev` shows a device of the host's, where root calls",
    ),
    (
        "mk run",
        "--init",
        "leave it out: process 1 is mk's own, and passes signals on, unless `--as-pid1` is given",
    ),
    (
        "mk run",
        "--userns keep-id",
        "leave it out: what root of an ordinary user's container writes to a volume is that user's",
    ),
    (
        "mk run",
        "--detach-keys",
        "leave it out: what runs behind is never in front; `mk logs -f NAME` shows what it prints",
    ),
    (
        "mk run",
        "--entrypoint",
        "write the whole command after IMAGE: it takes the place of the image's",
    ),
    (
        "mk run",
        "--group-add",
        "the image's `/etc/group` says which groups a user has; `-u USER:GROUP` gives one instead",
    ),
    (
        "mk run",
        "--link",
        "leave it out: containers on one network know each other by name; `--network-alias NAME` adds one",
    ),
    (
        "mk run",
        "--mac-address",
        "`--mac ADDRESS` chooses the hardware address",
    ),
    (
        "mk run",
        "--memory-swap",
        "leave it out: what `--memory` limits is not swapped out",
    ),
    (
        "mk run",
        "--log-opt",
        "`--log-size SIZE` says how much of what is printed is kept",
    ),
    (
        "mk run",
        "--net-alias",
        "`--network-alias NAME` is the name that others on the network know it by",
    ),
    (
        "mk run",
        "--net",
        "`--network bridge`, `host`, `private`, `none` and others choose the network",
    ),
    (
        "mk run",
        "--pids-limit",
        "`--pids COUNT` limits the number of processes",
    ),
    (
        "mk run",
        "--publish-all",
        "name each port: `-p 80` takes a free one of the host for it, `-p 8080:80` that one",
    ),
    (
        "mk run",
        "--restart",
        "leave it out: a container runs once; a service manager that calls `mk run` starts it again",
    ),
    (
        "mk run",
        "--security-opt",
        "`--seccomp FILE` or `--seccomp unconfined` choose the system calls, `--allow-new-privileges` what its name says",
    ),
    (
        "mk run",
        "-P",
        "name each port: `-p 80` takes a free one of the host for it, `-p 8080:80` that one",
    ),
];

/// Returns the advice for a word that another tool would take.
fn habit(error: &clap::Error, command: &str) -> Option<String> {
    let word = match error.kind() {
        ErrorKind::InvalidSubcommand => get(error, ContextKind::InvalidSubcommand),
        ErrorKind::UnknownArgument => get(error, ContextKind::InvalidArg),
        ErrorKind::InvalidValue => {
            let option = get(error, ContextKind::InvalidArg)?;
            Some(format!("{option} {}", get(error, ContextKind::InvalidValue)?))
        }
        _ => None,
    }?;
    let is_signal = |letter: char| letter.is_ascii_digit() || letter.is_ascii_uppercase();
    if command == "mk kill"
        && word
            .strip_prefix('-')
            .is_some_and(|rest| rest.starts_with(is_signal))
    {
        return Some("`-s` goes before the signal: `mk kill -s 9 NAME`".into());
    }
    let known = HABITS
        .iter()
        .find(|(of, typed, _)| *of == command && *typed == word.split(['=', ':']).next().unwrap_or_default());
    known.map(|(_, _, advice)| (*advice).to_owned())
}

fn hints(error: &clap::Error, command: &str) -> Vec<String> {
    if let Some(advice) = habit(error, command) {
        return vec![advice];
    }
    let mut hints = Vec::new();
    let like = |suggested, typed| {
        let typed = get(error, typed)?;
        get(error, suggested).filter(|likely| closest(&typed, [likely.clone()]).is_some())
    };
    if let Some(likely) = like(ContextKind::SuggestedSubcommand, ContextKind::InvalidSubcommand) {
        hints.push(format!("did you mean `{command} {likely}`?"));
    } else if error.kind() == ErrorKind::InvalidSubcommand {
        hints.push(format!("`{command} --help` lists the commands"));
    }
    if let Some(likely) = like(ContextKind::SuggestedArg, ContextKind::InvalidArg) {
        hints.push(format!("did you mean `{likely}`?"));
    }
    if error.kind() == ErrorKind::ValueValidation
        && get(error, ContextKind::InvalidArg).as_deref() == Some("--network")
    {
        let typed = get(error, ContextKind::InvalidValue).unwrap_or_default();
        hints.extend(kind_of_network(&typed));
    }
    if let Some(likely) = get(error, ContextKind::SuggestedValue) {
        hints.push(format!("did you mean `{likely}`?"));
    }
    if error.kind() == ErrorKind::UnknownArgument && command == "mk run" && hints.is_empty() {
        hints.push("`mk run --help` lists the options; those of the command go after the command".into());
    }
    if error.kind() == ErrorKind::UnknownArgument && command == "mk" && hints.is_empty() {
        hints.push("options go after the command, as in `mk build -q app.toml`".into());
    }
    if hints.is_empty() && error.kind() != ErrorKind::ValueValidation {
        hints.push(format!("`{command} --help` explains, with examples"));
    }
    hints
}

/// Returns what was probably meant by `typed`, which is no kind of network.
fn kind_of_network(typed: &str) -> Option<String> {
    let (kind, name) = typed.split_once(':').unwrap_or((typed, ""));
    match kind {
        "slirp4netns" | "pasta" | "rootless" => {
            return Some(
                "`--network user` leads out through pasta or slirp4netns, whichever is there".into(),
            );
        }
        "default" | "nat" => {
            return Some("`--network bridge` is the network that there is for everybody".into());
        }
        "internal" => return Some("`--network private` leads nowhere".into()),
        "netns" => return Some(format!("`--network ns:{name}` is one that `ip netns` lists")),
        _ => {}
    }
    // A digit at the end is no slip: it is a bridge's name.
    let slip = !typed.contains(|letter: char| letter.is_ascii_digit());
    let kinds = KINDS
        .iter()
        .map(|kind| kind.split(':').next().unwrap_or_default().to_owned());
    if let Some(likely) = closest(kind, kinds).filter(|_| slip) {
        let rest = typed.strip_prefix(kind).unwrap_or_default();
        return Some(format!("did you mean `{likely}{rest}`?"));
    }
    let named: NetName = typed.parse().ok()?;
    Some(format!(
        "`--network bridge:{named}` is the network `{named}`, `--network container:{named}` that of a container"
    ))
}

/// Returns the command that was called, as in `mk build` or `mk network rm`; `mk` where it is none of mk's.
fn command(words: &[OsString]) -> String {
    let mut mk = Cli::command();
    // Commands of commands are known from then on.
    mk.build();
    let mut called = &mk;
    let mut text = String::from("mk");
    for word in words.iter().skip(1) {
        let Some(known) = word.to_str().and_then(|word| called.find_subcommand(word)) else {
            break;
        };
        text = format!("{text} {}", known.get_name());
        called = known;
    }
    text
}

fn choices(error: &clap::Error) -> String {
    let Some(ContextValue::Strings(values)) = error.get(ContextKind::ValidValue) else {
        return "another".into();
    };
    let values: Vec<String> = values.iter().map(|value| format!("`{value}`")).collect();
    match values.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => values.concat(),
    }
}

/// Returns what clap knows of `kind`; of several, with `and` between them.
fn get(error: &clap::Error, kind: ContextKind) -> Option<String> {
    match error.get(kind)? {
        ContextValue::String(text) => Some(bare(text)),
        ContextValue::Strings(texts) if texts.is_empty() => None,
        ContextValue::Strings(texts) => Some(
            texts
                .iter()
                .map(|text| bare(text))
                .collect::<Vec<_>>()
                .join(" and "),
        ),
        _ => None,
    }
}

/// Takes the decoration off an argument's name: `--volume <SRC:DST[:ro]>` is `--volume`, `<IMAGE>` is IMAGE.
fn bare(text: &str) -> String {
    if let Some((option, _)) = text.split_once(" <").filter(|_| text.starts_with('-')) {
        return option.to_owned();
    }
    text.trim_end_matches("...")
        .trim_start_matches(['<', '['])
        .trim_end_matches(['>', ']'])
        .to_owned()
}
