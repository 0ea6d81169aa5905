//! `mk diff`: what a container changed against its image.

use mk_core::changes;
use mk_core::tree::diff::{Difference, What};
use serde_json::{Value, json};

use super::Context;
use crate::args;
use crate::report::Failure;
use crate::settings::Flags;
use crate::ui;

/// Prints the differences.
pub(super) fn call(args: &args::Diff, context: &Context) -> Result<u8, Failure> {
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

fn object(one: &Difference) -> Value {
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
