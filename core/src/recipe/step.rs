//! One `[[step]]` → [`Step`]: which verb it is, and what stands beside it.

use std::collections::BTreeMap;
use std::ops::Range;

use toml::de::DeTable;

use super::keys::{self, Key, VERBS, VerbKeys};
use super::raw::{Raw, Section, alternatives, quoted};
use super::{Base, Granted, Mount, Owner, Script, Select, Source, Step, User, Verb, Words, check};
use crate::path::TreePath;

/// Reads the step whose header is at `header`; `None`: mistakes were noted.
pub(super) fn step<'r>(raw: &'r Raw<'r>, header: Range<usize>, table: &'r DeTable<'r>) -> Option<Step> {
    let verb = verb_of(raw, &header, table)?;
    let known: Vec<&'static Key> = std::iter::once(&verb.verb).chain(verb.others).collect();
    let name = format!("`{}`", verb.verb.name);
    let section = Section::new(raw, name, header.clone(), table, known);
    let end = table.values().map(|value| value.span().end).max();
    raw.used_args();
    let verb = read(verb.verb.name, &section)?;
    Some(Step {
        verb,
        args: raw.used_args(),
        span: header.start..end.unwrap_or(header.end).max(header.end),
    })
}

/// Finds the one verb of a step.
fn verb_of<'r>(raw: &Raw<'_>, header: &Range<usize>, table: &'r DeTable<'r>) -> Option<&'static VerbKeys> {
    let mut present: Vec<(Range<usize>, &'static VerbKeys)> = table
        .keys()
        .filter_map(|key| {
            let verb = VERBS.iter().find(|verb| verb.verb.name == key.get_ref())?;
            Some((key.span(), verb))
        })
        .collect();
    // Beside one verb, the name of another may be a key: a command is run by a `user`.
    let beside: Vec<&str> = present
        .iter()
        .flat_map(|(_, verb)| verb.others)
        .map(|key| key.name)
        .collect();
    present.retain(|(_, verb)| !beside.contains(&verb.verb.name));
    present.sort_by_key(|(span, _)| span.start);
    match present.as_slice() {
        [] => note_no_verb(raw, header, table),
        [(_, verb)] => return Some(verb),
        [(_, first), others @ ..] => {
            for (span, other) in others {
                raw.note(
                    span.clone(),
                    format!(
                        "`{}` is a second verb beside `{}`",
                        other.verb.name, first.verb.name
                    ),
                    Some("one verb a step".to_owned()),
                    Some("begin another `[[step]]` above it".to_owned()),
                );
            }
        }
    }
    None
}

fn note_no_verb(raw: &Raw<'_>, header: &Range<usize>, table: &DeTable<'_>) {
    let verbs: Vec<&str> = VERBS.iter().map(|verb| verb.verb.name).collect();
    let expected = || {
        let quoted: Vec<String> = verbs.iter().map(|verb| format!("`{verb}`")).collect();
        Some(alternatives(&quoted))
    };
    // Names that stand beside some verb are no misspelt verbs.
    let is_beside = |name: &str| {
        VERBS
            .iter()
            .any(|verb| verb.others.iter().any(|key| key.name == name))
    };
    for key in table.keys().filter(|key| !is_beside(key.get_ref())) {
        if let Some(meant) = keys::meant(key.get_ref(), verbs.iter().copied()) {
            let what = format!("{} is not a verb", quoted(key.get_ref()));
            let hint = format!("did you mean `{meant}`?");
            return raw.note(key.span(), what, expected(), Some(hint));
        }
    }
    raw.note(header.clone(), "this step has no verb", expected(), None);
}

fn read(verb: &str, step: &Section<'_>) -> Option<Verb> {
    match verb {
        "unpack" => unpack(step),
        "deb" => deb(step),
        "copy" => copy(step),
        "write" => write(step),
        "link" => link(step),
        "dir" => dir(step),
        "remove" => remove(step),
        "user" => user(step),
        "run" => run(step),
        _ => None,
    }
}

fn unpack(step: &Section<'_>) -> Option<Verb> {
    let location = step.required("unpack", |value| value.text(check::location));
    let sha256 = step.optional("sha256", |value| value.text(check::digest));
    let strip = step.optional("strip", |value| value.number());
    let select = select(step);
    Some(Verb::Unpack {
        source: Source {
            location: location?,
            sha256: sha256?,
        },
        select: Select {
            strip: u32::try_from(strip?.unwrap_or(0)).ok()?,
            ..select?
        },
    })
}

fn deb(step: &Section<'_>) -> Option<Verb> {
    let packages = step.required("deb", |value| value.set(check::package));
    let suite = step.required("suite", |value| value.text(check::suite));
    let select = select(step);
    Some(Verb::Deb {
        packages: packages?,
        suite: suite?,
        select: select?,
    })
}

fn select(step: &Section<'_>) -> Option<Select> {
    let into = step.optional("into", |value| value.text(check::path));
    let include = step.optional("include", |value| value.set(check::entry_glob));
    let exclude = step.optional("exclude", |value| value.set(check::entry_glob));
    Some(Select {
        into: into?.filter(|into| !into.is_root()),
        strip: 0,
        include: include?.unwrap_or_default(),
        exclude: exclude?.unwrap_or_default(),
    })
}

fn copy(step: &Section<'_>) -> Option<Verb> {
    let what = step.required("copy", |value| match value.is_table() {
        true => taken(&value.section("`copy`")?),
        false => value.text(check::source).map(Copied::Beside),
    });
    let into = step.required("into", |value| {
        let (raw, span) = (value.raw(), value.span());
        let (path, is_folder) = value.text(check::into)?;
        // Where what is copied is itself a mistake, that one is enough.
        let name = match &what {
            Some(Copied::Beside(from)) => own_name(from),
            Some(Copied::Taken { written, .. }) => own_name(written),
            None => None,
        };
        match name {
            Some(name) if is_folder => match path.join(name.as_bytes()) {
                Ok(path) => Some(path),
                Err(bad) => {
                    raw.note(span, bad.to_string(), None, None);
                    None
                }
            },
            _ => Some(path),
        }
    });
    let mode = step.optional("mode", |value| value.text(check::mode));
    let owner = step.optional("owner", |value| value.text(check::owner));
    let (into, mode, owner) = (into?, mode?, owner?);
    Some(match what? {
        Copied::Beside(from) => Verb::Copy {
            from,
            into,
            mode,
            owner: owner.unwrap_or_default(),
        },
        Copied::Taken { from, path, .. } => Verb::Take {
            from,
            path,
            into,
            mode,
            owner,
        },
    })
}

/// What a `copy` step copies.
enum Copied {
    /// A path beside the recipe.
    Beside(String),
    /// A path of another tree, which is `written` so.
    Taken {
        from: Base,
        path: TreePath,
        written: String,
    },
}

fn taken(table: &Section<'_>) -> Option<Copied> {
    let from = table.required("from", |value| value.text(check::base));
    let path = table.required("path", |value| {
        value.text(|text| Ok((check::path(text)?, text.to_owned())))
    });
    let (path, written) = path?;
    Some(Copied::Taken {
        from: from?,
        path,
        written,
    })
}

/// The name that something keeps when it is put into a folder; none for `folder/` and `.`, which mean what is in it.
fn own_name(from: &str) -> Option<&str> {
    from.rsplit('/').next().filter(|name| !matches!(*name, "" | "."))
}

fn write(step: &Section<'_>) -> Option<Verb> {
    let path = step.required("write", |value| value.text(check::file_path));
    let text = step.required("text", |value| value.text(check::any));
    let mode = mode(step, 0o644);
    let owner = owner(step);
    Some(Verb::Write {
        path: path?,
        text: text?,
        mode: mode?,
        owner: owner?,
    })
}

fn link(step: &Section<'_>) -> Option<Verb> {
    let paths = step.required("link", |value| value.set(check::file_path));
    let to = step.required("to", |value| value.text(check::target));
    Some(Verb::Link {
        paths: paths?,
        to: to?,
    })
}

fn dir(step: &Section<'_>) -> Option<Verb> {
    let paths = step.required("dir", |value| value.set(check::path));
    let mode = mode(step, 0o755);
    let owner = owner(step);
    Some(Verb::Dir {
        paths: paths?,
        mode: mode?,
        owner: owner?,
    })
}

fn remove(step: &Section<'_>) -> Option<Verb> {
    let patterns = step.required("remove", |value| value.set(check::tree_glob))?;
    Some(Verb::Remove { patterns })
}

fn user(step: &Section<'_>) -> Option<Verb> {
    let name = step.required("user", |value| value.text(check::user_name));
    let uid = step.required("uid", |value| value.number());
    let gid = step.optional("gid", |value| value.number());
    let home = step.optional("home", |value| value.text(check::passwd_path));
    let shell = step.optional("shell", |value| value.text(check::passwd_path));
    let gecos = step.optional("gecos", |value| value.text(check::passwd_field));
    let groups = step.optional("groups", |value| value.set(check::user_name));
    let uid = u32::try_from(uid?).ok()?;
    let gid = gid?.map_or(Some(uid), |gid| u32::try_from(gid).ok())?;
    Some(Verb::User(User {
        name: name?,
        uid,
        gid,
        home: home?.unwrap_or_else(|| "/".to_owned()),
        shell: shell?.unwrap_or_else(|| "/bin/sh".to_owned()),
        gecos: gecos?.unwrap_or_default(),
        groups: groups?.unwrap_or_default(),
    }))
}

fn run(step: &Section<'_>) -> Option<Verb> {
    let words = step.required("run", |value| {
        let (raw, span, is_text) = (value.raw(), value.span(), value.is_text());
        let mut words = value.list(check::no_nul)?;
        if words.first().is_some_and(|first| first.trim().is_empty()) {
            let what = "`run` begins with an empty text";
            raw.note(span, what, Some("a command".to_owned()), None);
            return None;
        }
        Some(match is_text {
            true => Words::Shell(words.swap_remove(0)),
            false => Words::Program(words),
        })
    });
    let env = step.optional("env", |value| value.texts(check::variable, check::no_nul));
    let workdir = step.optional("workdir", |value| value.text(check::path_text));
    let user = step.optional("user", |value| value.text(check::who));
    let stdin = step.optional("stdin", |value| value.text(check::any));
    let mounts = step.optional("mounts", |value| {
        let mounts: Vec<_> = value.sections("a mount")?.iter().map(mount).collect();
        let mut mounts = mounts.into_iter().collect::<Option<Vec<Mount>>>()?;
        mounts.sort_by(|one, other| one.at.cmp(&other.at));
        Some(mounts)
    });
    let network = step.optional("network", |value| value.switch());
    let mounts = mounts?.unwrap_or_default();
    note_places_twice(step, &mounts);
    Some(Verb::Run(Script {
        words: words?,
        env: env?.unwrap_or_default(),
        workdir: workdir?,
        user: user?,
        stdin: stdin?,
        mounts,
        network: network?.unwrap_or_default(),
    }))
}

/// One of the `mounts` of a command.
fn mount(table: &Section<'_>) -> Option<Mount> {
    let copy = table.optional("copy", |value| value.text(check::source));
    let cache = table.optional("cache", |value| value.text(check::name));
    let secret = table.optional("secret", |value| value.text(check::name));
    let at = table.required("at", |value| value.text(check::path_below_root));
    let granted = match (copy?, cache?, secret?) {
        (Some(path), None, None) => Granted::Copy(path),
        (None, Some(name), None) => Granted::Cache(name),
        (None, None, Some(name)) => Granted::Secret(name),
        (None, None, None) => {
            note_mount(table, "this mount says of nothing what it is");
            return None;
        }
        _ => {
            note_mount(table, "this mount is several things at once");
            return None;
        }
    };
    Some(Mount { granted, at: at? })
}

fn note_mount(table: &Section<'_>, what: &str) {
    let (raw, span) = table.place();
    raw.note(
        span,
        what,
        Some("one of `copy`, `cache`, `secret`".to_owned()),
        None,
    );
}

fn note_places_twice(step: &Section<'_>, mounts: &[Mount]) {
    let (raw, span) = step.place();
    for pair in mounts.windows(2) {
        if pair[0].at == pair[1].at {
            let what = format!("two mounts are at `{}`", pair[0].at);
            raw.note(
                span.clone(),
                what,
                Some("each at a place of its own".to_owned()),
                None,
            );
        }
    }
}

fn mode(step: &Section<'_>, unless_given: u16) -> Option<u16> {
    let mode = step.optional("mode", |value| value.text(check::mode))?;
    Some(mode.unwrap_or(unless_given))
}

fn owner(step: &Section<'_>) -> Option<Owner> {
    let owner = step.optional("owner", |value| value.text(check::owner))?;
    Some(owner.unwrap_or_default())
}

/// Notes each user that an earlier step has added already.
pub(super) fn note_users_twice(raw: &Raw<'_>, steps: &[Step]) {
    let mut seen: BTreeMap<&str, ()> = BTreeMap::new();
    for step in steps {
        if let Verb::User(user) = &step.verb
            && seen.insert(&user.name, ()).is_some()
        {
            let what = format!("user `{}` is added by an earlier step", user.name);
            raw.note(step.span.clone(), what, Some("each user once".to_owned()), None);
        }
    }
}
