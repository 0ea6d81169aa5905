//! Text → [`Recipe`]. What comes out is checked; what is wrong is told all together, each mistake with its place.

use std::collections::BTreeMap;
use std::ops::Range;

use toml::de::DeTable;

use super::args::Args;
use super::check::From;
use super::keys::{self, Key, TOP};
use super::mistake::{Mistake, Mistakes};
use super::raw::{Raw, Section, alternatives, quoted};
use super::{Conf, Owner, Parent, Recipe, RunDefaults, Select, Source, Step, Verb, check, step, syntax};
use crate::path::TreePath;

/// Most name servers that a resolver asks (`MAXNS`, resolv.conf(5)).
const MOST_NAMESERVERS: usize = 3;

/// Reads the recipe in `text`. `given` holds arguments by name, in place of their defaults.
///
/// Pure: the paths and URLs that a recipe names are not looked at.
pub fn parse(text: &str, given: &BTreeMap<String, String>) -> Result<Recipe, Mistakes> {
    let (document, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        return Err(Mistakes(syntax::mistakes(text, &errors)));
    }
    let raw = Raw::new(text);
    let recipe = read(&raw, document.get_ref(), given);
    let mut mistakes = raw.into_mistakes();
    match recipe {
        Some(recipe) if mistakes.is_empty() => Ok(recipe),
        _ => {
            if mistakes.is_empty() {
                // Cannot be: whoever gives up says why. Even so, a sentence is better than a panic.
                mistakes.push(Mistake {
                    span: 0..0,
                    what: "this recipe cannot be read".to_owned(),
                    expected: None,
                    hint: None,
                });
            }
            Err(Mistakes(mistakes))
        }
    }
}

fn read<'r>(raw: &'r Raw<'r>, document: &'r DeTable<'r>, given: &BTreeMap<String, String>) -> Option<Recipe> {
    let top = top(raw, document);
    raw.set_args(args(raw, &top, given));
    let description = top.optional("description", |value| value.literal(check::line));
    let name = top.optional("name", |value| value.literal(check::image_name));
    let epoch = top.optional("epoch", |value| value.number());
    let conf = top.optional("conf", |value| conf(&value.section("`[conf]`")?));
    let run = top.optional("run", |value| run(&value.section("`[run]`")?));
    let is_fine = raw.is_fine();
    let from = top.optional("from", |value| {
        let span = value.span();
        Some((value.text(check::from)?, span))
    });
    let steps = match document.get("step") {
        Some(_) => top.optional("step", |value| value.steps()),
        None if document.get("from").is_some() => Some(None),
        // Only what is not there by another mistake, such as `[[steps]]`, is worth a mistake of its own.
        None if is_fine => {
            note_no_step(raw);
            None
        }
        None => None,
    };
    let steps: Vec<_> = steps?
        .unwrap_or_default()
        .into_iter()
        .map(|(header, table)| step::step(raw, header, table))
        .collect();
    let steps = steps.into_iter().collect::<Option<Vec<_>>>()?;
    let (parent, first) = start(from?);
    let steps: Vec<Step> = first.into_iter().chain(steps).collect();
    step::note_users_twice(raw, &steps);
    Some(Recipe {
        description: description?,
        name: name?,
        parent,
        epoch: epoch?,
        args: raw.arg_values(),
        steps,
        conf: conf?.unwrap_or_default(),
        run: run?.unwrap_or_default(),
    })
}

fn top<'r>(raw: &'r Raw<'r>, document: &'r DeTable<'r>) -> Section<'r> {
    let keys: Vec<&'static Key> = TOP.iter().collect();
    Section::new(raw, "a recipe", 0..0, document, keys)
}

/// What `from` names: another tree, or a first step that lays a folder or an archive.
fn start(from: Option<(From, Range<usize>)>) -> (Option<Parent>, Option<Step>) {
    let Some((from, span)) = from else {
        return (None, None);
    };
    let verb = match from {
        From::Base(base) => return (Some(Parent { base, span }), None),
        From::Folder(from) => Verb::Copy {
            from,
            into: TreePath::root(),
            mode: None,
            owner: Owner::default(),
        },
        From::Archive(location) => Verb::Unpack {
            source: Source {
                location,
                sha256: None,
            },
            select: Select::default(),
        },
    };
    (
        None,
        Some(Step {
            verb,
            span,
            args: Vec::new(),
        }),
    )
}

fn note_no_step(raw: &Raw<'_>) {
    raw.note(
        0..0,
        "the recipe has no steps",
        Some("at least one `[[step]]`".to_owned()),
        None,
    );
}

/// The values of all arguments: what was given, else their defaults.
fn args(raw: &Raw<'_>, top: &Section<'_>, given: &BTreeMap<String, String>) -> Args {
    let mut args = top
        .optional("args", |value| value.entries(check::argument, check::any))
        .flatten()
        .unwrap_or_default();
    for (name, value) in given {
        match args.get_mut(name) {
            Some(known) => *known = Some(value.clone()),
            None => note_unknown_arg(raw, name, &args),
        }
    }
    args
}

fn note_unknown_arg(raw: &Raw<'_>, name: &str, args: &Args) {
    let known: Vec<String> = args.keys().map(|name| format!("`{name}`")).collect();
    let expected = match known.as_slice() {
        [] => "none: the recipe has no `[args]`".to_owned(),
        known => alternatives(known),
    };
    raw.note(
        0..0,
        format!("the recipe has no argument {}", quoted(name)),
        Some(expected),
        keys::meant(name, args.keys().map(String::as_str)).map(|meant| format!("did you mean `{meant}`?")),
    );
}

fn conf(section: &Section<'_>) -> Option<Conf> {
    let hostname = section.optional("hostname", |value| value.text(check::hostname));
    let hosts = section.optional("hosts", |value| value.lists(check::address, check::host));
    let nameservers = section.optional("nameservers", |value| {
        let (raw, span) = (value.raw(), value.span());
        let servers = value.set(check::address)?;
        if servers.len() > MOST_NAMESERVERS {
            let what = format!("{} name servers are more than a resolver asks", servers.len());
            raw.note(span, what, Some("at most three".to_owned()), None);
            return None;
        }
        Some(servers)
    });
    Some(Conf {
        hostname: hostname?,
        hosts: hosts?.unwrap_or_default(),
        nameservers: nameservers?,
    })
}

fn run(section: &Section<'_>) -> Option<RunDefaults> {
    let command = section.optional("command", |value| {
        let (raw, span) = (value.raw(), value.span());
        let command = value.list(check::no_nul)?;
        if command.first().is_some_and(String::is_empty) {
            raw.note(
                span,
                "the first text of `command` is empty",
                Some("a program".to_owned()),
                None,
            );
            return None;
        }
        Some(command)
    });
    let env = section.optional("env", |value| value.texts(check::variable, check::no_nul));
    let workdir = section.optional("workdir", |value| value.text(check::path_text));
    let user = section.optional("user", |value| value.text(check::who));
    let network = section.optional("network", |value| value.text(check::network));
    let nesting = section.optional("nesting", |value| value.switch());
    Some(RunDefaults {
        command: command?.unwrap_or_default(),
        env: env?.unwrap_or_default(),
        workdir: workdir?,
        user: user?,
        network: network?,
        nesting: nesting?.unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests;
