//! `mk images` and `mk tag`: images and their names.

use std::collections::BTreeMap;

use mk_core::store::image::check_name;
use mk_core::store::{ImageId, Store};
use serde_json::{Value, json};

use super::{Context, find};
use crate::args;
use crate::report::Failure;
use crate::settings::Flags;
use crate::ui;

/// Prints every named image, by name.
pub(super) fn list(args: &args::Images, context: &Context) -> Result<u8, Failure> {
    let refs = match context.existing_store(&args.store)? {
        Some(store) => with_images(&store)?,
        None => Vec::new(),
    };
    if args.json {
        let images: Vec<Value> = refs
            .iter()
            .map(|(name, id, image)| {
                json!({
                    "name": name,
                    "digest": id.to_string(),
                    "tree": image.tree.to_string(),
                    "files": image.size.files,
                    "bytes": image.size.bytes,
                })
            })
            .collect();
        ui::data(ui::pretty(&Value::from(images)))?;
        return Ok(0);
    }
    if refs.is_empty() {
        context
            .ui
            .say("no images yet: `mk build RECIPE` makes one, and so does `mk run busybox`");
        return Ok(0);
    }
    let mut rows = vec![["NAME", "DIGEST", "FILES", "SIZE"].map(str::to_owned).to_vec()];
    rows.extend(refs.iter().map(|(name, id, image)| {
        let size = ui::bytes(image.size.bytes);
        vec![
            name.clone(),
            id.digest().short(),
            image.size.files.to_string(),
            size,
        ]
    }));
    ui::data(ui::table(&rows).trim_end())?;
    Ok(0)
}

fn with_images(store: &Store) -> Result<Vec<(String, ImageId, mk_core::store::Image)>, Failure> {
    let mut known = BTreeMap::new();
    let mut list = Vec::new();
    for named in store.refs()? {
        let image = match known.get(&named.image) {
            Some(image) => Clone::clone(image),
            None => store.image(&named.image)?,
        };
        known.insert(named.image, image.clone());
        list.push((named.name, named.image, image));
    }
    Ok(list)
}

/// Gives an image one more name.
pub(super) fn tag(args: &args::Tag, context: &Context) -> Result<u8, Failure> {
    check_name(&args.name)?;
    let flags = Flags {
        store: args.store.store.as_deref(),
        ..Flags::default()
    };
    let store = context.whole_store(&context.settings(&flags)?)?;
    let (store, image) = find::image(store.as_ref(), &args.image)?;
    // Otherwise gc might take the image away between the look at it and its new name.
    let _hold = store.hold(&context.talk())?;
    store.image(&image)?;
    store.set_ref(&args.name, &image)?;
    Ok(0)
}
