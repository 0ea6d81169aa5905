//! `mk gc` and `mk verify`: the store as a whole.

use std::collections::{BTreeMap, BTreeSet};

use mk_core::assemble::conf_files;
use mk_core::store::Store;
use mk_core::store::gc::{Collected, Count, Policy, Reason, Stored, gc};
use mk_core::store::verify::{Damage, Verified, discard, is_gone, verify};
use serde_json::{Map, Value, json};

use super::Context;
use super::repair::{Repaired, repair};
use crate::args;
use crate::report::{FAILED, Failure};
use crate::settings::Flags;
use crate::ui;

/// Removes what nobody needs and says what that was.
pub(super) fn collect(args: &args::Gc, context: &Context) -> Result<u8, Failure> {
    let flags = Flags {
        store: args.store.store.as_deref(),
        ..Flags::default()
    };
    let policy = Policy {
        dry_run: args.dry_run,
        caches: args.caches,
        since: args.keep.seconds(),
        max_size: args.max_size,
    };
    let collected = match context.whole_store(&context.settings(&flags)?)? {
        Some(store) => gc(&store, policy, &context.talk())?,
        None => Collected::default(),
    };
    if args.json {
        let reasons = collected.reasons.iter();
        let reasons = reasons.map(|(reason, count)| (reason.word().to_owned(), counted(count)));
        ui::data(ui::pretty(&json!({
            "dry_run": args.dry_run,
            "removed": counts(&collected.removed),
            "kept": counts(&collected.kept),
            "reasons": Value::Object(reasons.collect()),
        })))?;
        return Ok(0);
    }
    let removed: Vec<Vec<String>> = collected
        .removed
        .iter()
        .map(|(thing, count)| row(thing.to_string(), count))
        .collect();
    match removed.is_empty() {
        true => context.ui.say("nothing to remove"),
        false => {
            let title = if args.dry_run { "WOULD GO" } else { "REMOVED" };
            print([title, "NUMBER", "SIZE"], removed)?;
            let bytes = collected.removed.values().map(|count| count.bytes).sum();
            let verb = if args.dry_run { "would be freed" } else { "freed" };
            context.ui.say(format_args!("{} {verb}", ui::bytes(bytes)));
        }
    }
    if args.dry_run && !collected.reasons.is_empty() {
        let reasons = collected.reasons.iter();
        let rows = reasons.map(|(reason, count)| row(in_words(*reason).to_owned(), count));
        print(["WHY", "NUMBER", "SIZE"], rows.collect())?;
    }
    let most = args.max_size.filter(|most| collected.kept_bytes() > *most);
    if let Some(most) = most {
        context.ui.note(format_args!(
            "{} stay, more than --max-size ({}): images with a name, in use, and caches do not go for it; \
             `mk du` shows what takes how much, `mk rm NAME` lets go of a name",
            ui::bytes(collected.kept_bytes()),
            ui::bytes(most)
        ));
    }
    Ok(0)
}

fn print(title: [&str; 3], rows: Vec<Vec<String>>) -> Result<(), Failure> {
    let mut table = vec![title.map(str::to_owned).to_vec()];
    table.extend(rows);
    ui::data(ui::table(&table).trim_end())
}

fn row(first: String, count: &Count) -> Vec<String> {
    vec![first, count.items.to_string(), ui::bytes(count.bytes)]
}

fn in_words(reason: Reason) -> &'static str {
    match reason {
        Reason::Named => "stays: an image with a name needs it",
        Reason::InUse => "stays: a container runs on it",
        Reason::Young => "stays: younger than --keep",
        Reason::There => "stays: the files that it tells of are there",
        Reason::Kept => "stays: caches go with --caches only",
        Reason::Unneeded => "goes: nothing needs it",
        Reason::Room => "goes: for --max-size",
        Reason::Asked => "goes: for --caches",
    }
}

fn counts(counts: &BTreeMap<Stored, Count>) -> Value {
    let pairs = counts
        .iter()
        .map(|(thing, count)| (thing.to_string(), counted(count)));
    Value::Object(pairs.collect::<Map<_, _>>())
}

fn counted(count: &Count) -> Value {
    json!({"number": count.items, "bytes": count.bytes})
}

/// Reads the whole store again and names what is damaged.
pub(super) fn check(args: &args::Verify, context: &Context) -> Result<u8, Failure> {
    let flags = Flags {
        store: args.store.store.as_deref(),
        ..Flags::default()
    };
    let settings = context.settings(&flags)?;
    let store = context.whole_store(&settings)?;
    let look = || match &store {
        Some(store) => Ok(verify(store, Some(conf_files), &context.talk())?),
        None => Ok(Verified::default()),
    };
    let verified = look()?;
    if let (true, Some(store), false) = (args.repair, &store, verified.damages.is_empty()) {
        let repaired = repair(store, verified, &settings, context, look)?;
        return tell_repaired(&repaired, args.json, context);
    }
    if args.json {
        ui::data(ui::pretty(&counted_in(&verified)))?;
    } else {
        report(store.as_ref(), &verified, args.discard, context)?;
    }
    match (&store, verified.damages.is_empty()) {
        (_, true) => Ok(0),
        (Some(store), false) if args.discard => take_away(store, &verified, context),
        _ => Ok(FAILED),
    }
}

fn report(
    store: Option<&Store>,
    verified: &Verified,
    discarded: bool,
    context: &Context,
) -> Result<(), Failure> {
    for damage in &verified.damages {
        ui::data(format_args!(
            "{}: {}{}",
            damage.path.display(),
            damage.why,
            hurt(damage)
        ))?;
    }
    let read = read(verified);
    let gone = store.is_some_and(|store| verified.damages.iter().all(|damage| is_gone(store, damage)));
    let advice = match (discarded, gone, &hurt_names(verified)[..]) {
        (true, ..) => String::new(),
        (_, false, []) => {
            ": `mk verify --repair` makes them anew, or takes them away where no name needs them".to_owned()
        }
        (_, false, _) => ": `mk verify --repair` makes them anew".to_owned(),
        (.., []) => ": what is missing is of images without a name, which `mk gc` takes away".to_owned(),
        (.., names) => format!(
            ": parts are missing, and `mk build` of their recipes makes them anew: {names}; or let go of them: `mk rm \
             {words} && mk gc`",
            names = names.join(", "),
            words = names.join(" "),
        ),
    };
    context.ui.say(match verified.damages.len() as u64 {
        0 => format!("all is well: {read}"),
        count => format!("{} among {read}{advice}", ui::counted(count, "damaged file")),
    });
    Ok(())
}

/// Tells of each damage what was done about it, and what is left to do.
fn tell_repaired(repaired: &Repaired, as_json: bool, context: &Context) -> Result<u8, Failure> {
    let left = &repaired.left.damages;
    if as_json {
        let with_done = |(found, done): &(Damage, String)| {
            let mut told = damage(found);
            told["done"] = json!(done);
            told
        };
        let mut told = counted_in(&repaired.left);
        told["repaired"] = repaired.done.iter().map(with_done).collect();
        told["gone"] = json!(repaired.gone);
        told["advice"] = json!(repaired.advice);
        ui::data(ui::pretty(&told))?;
    } else {
        for (damage, done) in &repaired.done {
            let (path, why) = (damage.path.display(), &damage.why);
            ui::data(format_args!("{path}: {why}{}: {done}", hurt(damage)))?;
        }
        let read = read(&repaired.left);
        let gone = match repaired.gone {
            0 => String::new(),
            count => format!("; {} without a name went", ui::counted(count, "image")),
        };
        context.ui.say(match left.len() as u64 {
            0 => format!("all is well now: {read}{gone}"),
            count => format!("{} left among {read}{gone}", ui::counted(count, "damaged file")),
        });
        repaired.advice.iter().for_each(|advice| context.ui.say(advice));
    }
    Ok(if left.is_empty() { 0 } else { FAILED })
}

/// Returns what was read, in words.
fn read(verified: &Verified) -> String {
    format!(
        "{}, {}, {}",
        ui::counted(verified.images, "image"),
        ui::counted(verified.objects, "file"),
        ui::bytes(verified.bytes)
    )
}

/// Returns what was read, and what is damaged of it.
fn counted_in(verified: &Verified) -> Value {
    json!({
        "images": verified.images,
        "trees": verified.trees,
        "objects": verified.objects,
        "bytes": verified.bytes,
        "damaged": verified.damages.iter().map(damage).collect::<Vec<_>>(),
    })
}

/// Takes what is damaged away, and names the images that have to be built again.
fn take_away(store: &Store, verified: &Verified, context: &Context) -> Result<u8, Failure> {
    let discarded = discard(store, verified, &context.talk())?;
    let names = hurt_names(verified);
    context.ui.say(match names.is_empty() {
        true => "taken away; no image was hurt".to_owned(),
        false => format!("taken away; to be built again: {}", names.join(", ")),
    });
    for path in &discarded.in_use {
        let path = path.display();
        context
            .ui
            .say(format_args!("left as it is, because a run uses it: {path}"));
    }
    Ok(if discarded.in_use.is_empty() { 0 } else { FAILED })
}

/// Returns the names of the images that are hurt, each once.
fn hurt_names(verified: &Verified) -> Vec<&str> {
    let names = verified.damages.iter().flat_map(|damage| &damage.names);
    let names: BTreeSet<&str> = names.map(String::as_str).collect();
    names.into_iter().collect()
}

/// Returns which images a damage hurts, in words: by name, and by digest those without one.
fn hurt(damage: &Damage) -> String {
    match (&damage.names[..], &damage.images[..]) {
        ([], []) => String::new(),
        ([], images) => {
            let short: Vec<String> = images.iter().map(|image| image.digest().short()).collect();
            format!(" (hurts {})", short.join(", "))
        }
        (names, _) => format!(" (hurts {})", names.join(", ")),
    }
}

fn damage(damage: &Damage) -> Value {
    json!({
        "path": damage.path.display().to_string(),
        "why": damage.why,
        "images": damage.images.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "names": damage.names,
    })
}
