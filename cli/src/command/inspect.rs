//! `mk inspect`: an image as JSON, as canonical text, or as the path of its folder.

use mk_core::store::{Image, ImageId, Store};
use serde_json::{Map, Value, json};

use super::{Context, find};
use crate::args::Inspect;
use crate::report::{Failing, Failure};
use crate::ui;

pub(super) fn call(args: &Inspect, context: &Context) -> Result<u8, Failure> {
    let store = context.existing_store(&args.store)?;
    let (store, id) = find::image(store.as_ref(), &args.image)?;
    let _lease = store.lease(&id)?;
    let image = store.image(&id)?;
    if args.tree {
        let text = store.tree(&image.tree)?.encode();
        ui::data_with(|out| out.write_all(&text))?;
    } else if args.rootfs {
        ui::data(rootfs(store, &image, &args.image)?)?;
    } else {
        ui::data(ui::pretty(&document(store, &id, &image)?))?;
    }
    Ok(0)
}

fn rootfs(store: &Store, image: &Image, asked: &str) -> Result<String, Failure> {
    if store.has_rootfs(&image.tree)? {
        return Ok(store.rootfs_path(&image.tree).display().to_string());
    }
    let failing = Failing::new(format!("the folder of `{asked}` is missing in the store"));
    Err(failing.hint("build the image again").into())
}

fn document(store: &Store, id: &ImageId, image: &Image) -> Result<Value, Failure> {
    let names: Vec<String> = store
        .refs()?
        .into_iter()
        .filter(|named| named.image == *id)
        .map(|named| named.name)
        .collect();
    let (conf, run) = (&image.conf, &image.run);
    let mut document = json!({
        "digest": id.to_string(),
        "names": names,
        "tree": image.tree.to_string(),
        "files": image.size.files,
        "bytes": image.size.bytes,
        "conf": said([
            ("hostname", json!(conf.hostname)),
            ("hosts", match conf.hosts.is_empty() {
                true => Value::Null,
                false => conf.hosts.iter().map(|(address, names)| (address.to_string(), json!(names))).collect(),
            }),
            ("nameservers", match &conf.nameservers {
                None => Value::Null,
                Some(servers) => servers.iter().map(ToString::to_string).collect(),
            }),
        ]),
        "run": said([
            ("command", if run.command.is_empty() { Value::Null } else { json!(run.command) }),
            ("env", if run.env.is_empty() { Value::Null } else { json!(run.env) }),
            ("workdir", json!(run.workdir)),
            ("user", json!(run.user)),
            ("network", json!(run.network.as_ref().map(ToString::to_string))),
            ("nesting", if run.nesting { json!(true) } else { Value::Null }),
        ]),
    });
    if !image.impure.is_empty() {
        document["impure"] = json!(image.impure);
    }
    Ok(document)
}

/// Returns an object of what is there: what the recipe does not say is left out, as it is in the image.
fn said<const N: usize>(pairs: [(&str, Value); N]) -> Value {
    let there = pairs.into_iter().filter(|(_, value)| !value.is_null());
    Value::Object(
        there
            .map(|(key, value)| (key.to_owned(), value))
            .collect::<Map<_, _>>(),
    )
}
