//! `mk volumes`: what runs keep in the store by name.

use mk_core::container::Time;
use mk_core::store::{self, Store, VolumeInfo};
use serde_json::{Value, json};

use super::{Context, find};
use crate::args::{self, StoreArgs, VolumesAction};
use crate::report::{Failing, Failure};
use crate::settings::Flags;
use crate::ui;

/// Lists volumes, or takes some away.
pub(super) fn call(args: &args::Volumes, context: &Context) -> Result<u8, Failure> {
    match &args.action {
        Some(VolumesAction::Rm { names, store }) => remove(names, store, context),
        None => list(args, context),
    }
}

/// Opens the store as root of it, because a volume may hold what is open to nobody else.
fn opened(args: &StoreArgs, context: &Context) -> Result<Option<Store>, Failure> {
    let flags = Flags {
        store: args.store.as_deref(),
        ..Flags::default()
    };
    context.whole_store(&context.settings(&flags)?)
}

fn list(args: &args::Volumes, context: &Context) -> Result<u8, Failure> {
    let volumes = match opened(&args.store, context)? {
        Some(store) => store.volumes()?,
        None => Vec::new(),
    };
    if args.json {
        let volumes: Vec<Value> = volumes.iter().map(as_json).collect();
        ui::data(ui::pretty(&Value::from(volumes)))?;
        return Ok(0);
    }
    if volumes.is_empty() {
        context
            .ui
            .say("no volumes yet: `mk run IMAGE -v NAME:/var/cache` makes one");
        return Ok(0);
    }
    let mut rows = vec![["NAME", "SIZE", "CREATED", "IN USE"].map(str::to_owned).to_vec()];
    rows.extend(volumes.iter().map(|volume| {
        let in_use = if volume.in_use { "yes" } else { "no" };
        vec![
            volume.name.clone(),
            ui::bytes(volume.bytes),
            created(volume),
            in_use.to_owned(),
        ]
    }));
    ui::data(ui::table(&rows).trim_end())?;
    Ok(0)
}

fn as_json(volume: &VolumeInfo) -> Value {
    json!({
        "name": volume.name,
        "bytes": volume.bytes,
        "created": created(volume),
        "image": volume.image.map(|image| image.to_string()),
        "in_use": volume.in_use,
    })
}

/// Returns when a volume was made, to the second, which is all that is known.
fn created(volume: &VolumeInfo) -> String {
    let time = Time::of(volume.created.try_into().unwrap_or(i64::MAX), 0).to_string();
    match time.split_once('.') {
        Some((seconds, _)) => format!("{seconds}Z"),
        None => time,
    }
}

/// Takes volumes away; all that can be, whatever else was asked for.
fn remove(names: &[String], args: &StoreArgs, context: &Context) -> Result<u8, Failure> {
    let store = opened(args, context)?;
    let mut refused: Vec<Box<dyn std::error::Error + Send + Sync>> = Vec::new();
    for name in names {
        let removed = match &store {
            Some(store) => store.remove_volume(name),
            None => Err(store::Error::NoVolume(name.clone())),
        };
        match removed {
            Ok(()) => {}
            Err(store::Error::NoVolume(_) | store::Error::BadName(_)) => {
                refused.push(Box::new(no_volume(store.as_ref(), name)));
            }
            Err(error) => refused.push(Box::new(error)),
        }
    }
    if refused.is_empty() {
        Ok(0)
    } else {
        Err(Failure::Several(refused))
    }
}

fn no_volume(store: Option<&Store>, name: &str) -> Failing {
    let failing = Failing::new(format!("there is no volume `{name}`"));
    let volumes = store.and_then(|store| store.volumes().ok()).unwrap_or_default();
    match find::closest(name, volumes.into_iter().map(|volume| volume.name)) {
        Some(likely) => failing.hint(format!("did you mean `{likely}`?")),
        None => failing.hint("`mk volumes` lists the volumes"),
    }
}
