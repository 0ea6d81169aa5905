//! `mk diff`: what a container changed against its image, and how any two things with files in them differ.

use std::path::PathBuf;

use mk_core::changes;
use mk_core::compare::Side;
use mk_core::store::Store;
use mk_core::tree::diff::{Difference, What};
use mk_core::unpack::Limits;
use serde_json::{Value, json};

use super::compare::Comparison;
use super::{Context, find};
use crate::args;
use crate::report::{Failing, Failure, USAGE};
use crate::settings::Flags;
use crate::ui;

/// Prints the differences.
pub(super) fn call(args: &args::Diff, context: &Context) -> Result<u8, Failure> {
    match &args.other {
        // As of diff(1): 1 says that they differ, so what failed needs another code.
        Some(other) => both(args, other, context).map_err(|failure| match failure {
            Failure::Error(error) => Failure::Coded(USAGE, error),
            failure => failure,
        }),
        None => one(args, context),
    }
}

/// Prints how two things differ; the exit code says whether they do.
fn both(args: &args::Diff, other: &str, context: &Context) -> Result<u8, Failure> {
    let words = [Word::read(&args.name), Word::read(other)];
    let needs_store = words.iter().any(|word| !matches!(word, Word::Path(_)));
    let store = match needs_store {
        true => Some(store_of(args, &words, context)?),
        false => None,
    };
    let [was, now] = words.map(|word| word.side(args, store.as_ref(), context));
    let (was, now) = (was?, now?);
    let found = Comparison::new(&was, &now, store.as_ref())?;
    if args.json {
        ui::data(ui::pretty(&found.json()))?;
    } else if args.stat {
        ui::data(stat(&found.differences))?;
    } else {
        ui::data_with(|out| out.write_all(found.text().as_bytes()))?;
    }
    Ok(u8::from(!found.differences.is_empty()))
}

/// What is compared.
enum Word {
    Tree(String),
    Container(String),
    /// An image, or else a container.
    Name(String),
    Path(PathBuf),
}

impl Word {
    fn read(word: &str) -> Self {
        const ARCHIVES: [&str; 7] = [".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.zst", ".deb"];
        if let Some(tree) = word.strip_prefix("tree:") {
            return Self::Tree(tree.to_owned());
        }
        if let Some(name) = word.strip_prefix("container:") {
            return Self::Container(name.to_owned());
        }
        let is_path = word.contains('/')
            || matches!(word, "." | "..")
            || ARCHIVES.iter().any(|end| word.ends_with(end));
        match is_path {
            true => Self::Path(PathBuf::from(word)),
            false => Self::Name(word.to_owned()),
        }
    }

    fn side(self, args: &args::Diff, store: Option<&Store>, context: &Context) -> Result<Side, Failure> {
        let state = args.store.store.as_deref();
        Ok(match (self, store) {
            (Self::Path(path), _) => {
                let found = fs_err::metadata(&path).map_err(|error| {
                    let failing = Failing::new(format!("`{}` cannot be compared", path.display()));
                    failing.because(error)
                })?;
                match found.is_dir() {
                    true => Side::of_folder(&path)?,
                    false => Side::of_archive(&path, &Limits::default())?,
                }
            }
            (Self::Tree(digits), Some(store)) => match digits.parse() {
                Ok(digest) => Side::of_tree(store, &digest)?,
                Err(_) => {
                    let failing = Failing::new(format!("`{digits}` is not the digest of a tree"));
                    return Err(failing.hint("`mk inspect IMAGE` prints that of an image").into());
                }
            },
            (Self::Container(name), Some(store)) => {
                Side::of_container(store, context.container(state, &name)?.document)?
            }
            (Self::Name(name), Some(store)) => match find::image(Some(store), &name) {
                Ok((store, image)) => Side::of_tree(store, &store.image(&image)?.tree)?,
                Err(no_image) => match context.container(state, &name) {
                    Ok(found) => Side::of_container(store, found.document)?,
                    Err(_) => return Err(no_image),
                },
            },
            (_, None) => return Err(Failing::new("there is no store").into()),
        })
    }
}

/// Opens the store, from where the container among `words` sees it, if one is.
fn store_of(args: &args::Diff, words: &[Word; 2], context: &Context) -> Result<Store, Failure> {
    let flags = Flags {
        store: args.store.store.as_deref(),
        ..Flags::default()
    };
    let settings = context.settings(&flags)?;
    for word in words {
        let (Word::Container(name) | Word::Name(name)) = word else {
            continue;
        };
        if let Ok(found) = context.container(args.store.store.as_deref(), name)
            && changes::enter_keeper(&found.document)?
        {
            return context.store_as_root(&settings);
        }
    }
    context.store(&settings)
}

/// Prints what a container changed.
fn one(args: &args::Diff, context: &Context) -> Result<u8, Failure> {
    let found = context.container(args.store.store.as_deref(), &args.name)?;
    let flags = Flags {
        store: args.store.store.as_deref(),
        ..Flags::default()
    };
    let settings = context.settings(&flags)?;
    let store = match changes::enter_keeper(&found.document)? {
        true => context.store_as_root(&settings)?,
        false => context.store(&settings)?,
    };
    let differences = changes::differences(&store, &found.document)?;
    if args.json {
        let list: Vec<Value> = differences.iter().map(object).collect();
        ui::data(ui::pretty(&Value::from(list)))?;
    } else if args.stat {
        ui::data(stat(&differences))?;
    } else {
        ui::data_with(|out| {
            differences
                .iter()
                .try_for_each(|one| writeln!(out, "{} {}", letter(&one.what), one.path))
        })?;
    }
    Ok(0)
}

fn letter(what: &What) -> char {
    match what {
        What::Added => 'A',
        What::Changed(_) => 'C',
        What::Removed => 'D',
    }
}

fn stat(differences: &[Difference]) -> String {
    let count = |letter_of: char| {
        differences
            .iter()
            .filter(|one| letter(&one.what) == letter_of)
            .count()
    };
    let bytes: u64 = differences.iter().filter_map(|one| one.size).sum();
    format!(
        "{} added, {} changed, {} removed; {} in files that are new or changed",
        count('A'),
        count('C'),
        count('D'),
        ui::bytes(bytes)
    )
}

pub(super) fn object(one: &Difference) -> Value {
    let (change, fields) = match &one.what {
        What::Added => ("added", None),
        What::Changed(fields) => (
            "changed",
            Some(fields.iter().map(|field| field.name()).collect::<Vec<_>>()),
        ),
        What::Removed => ("removed", None),
    };
    json!({
        "path": one.path.to_string(),
        "change": change,
        "type": one.kind,
        "fields": fields,
        "size": one.size,
    })
}
