//! `mk rm`: containers that have ended, and names of images
//! (docs/decisions/0015-rm-takes-containers-and-images.md).

use std::collections::BTreeSet;
use std::error::Error;

use mk_core::container::{self, Found, Seen, State, control};
use mk_core::store::Store;

use super::{Context, find};
use crate::args;
use crate::report::{Failing, Failure};

type Boxed = Box<dyn Error + Send + Sync>;

/// Takes away what the names mean; all that are there, whatever else was asked for.
pub(super) fn call(args: &args::Rm, context: &Context) -> Result<u8, Failure> {
    let store = context.existing_store(&args.store)?;
    let state = match args.image {
        true => None,
        false => context.state(args.store.store.as_deref())?,
    };
    let mut removal = Removal {
        seen: context.look(state.as_ref())?,
        store,
        state,
        force: args.force,
    };
    let mut done = BTreeSet::new();
    let names = args.names.iter().filter(|name| done.insert(name.as_str()));
    let failed: Vec<Boxed> = names.filter_map(|name| removal.remove(name).err()).collect();
    match failed.is_empty() {
        true => Ok(0),
        false => Err(Failure::Several(failed)),
    }
}

struct Removal {
    seen: Seen,
    store: Option<Store>,
    state: Option<State>,
    force: bool,
}

impl Removal {
    fn remove(&mut self, name: &str) -> Result<(), Boxed> {
        let some_containers = !self.seen.containers.is_empty();
        let container = match self.seen.take(name) {
            Ok(found) => Some(found),
            Err(container::Error::Unknown { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        let store = self.store.as_ref();
        let image = store.is_some_and(|store| matches!(store.get_ref(name), Ok(Some(_))));
        match container {
            Some(found) if image => Err(Box::new(both(name, &found))),
            Some(found) => self.remove_container(&found),
            None => remove_image(store, name, some_containers),
        }
    }

    fn remove_container(&self, found: &Found) -> Result<(), Boxed> {
        let Some(state) = &self.state else { return Ok(()) };
        if self.force {
            control::kill(found)?;
        } else if found.is_alive() {
            return Err(container::Error::Running {
                called: found.document.called().to_owned(),
            }
            .into());
        }
        Ok(state.forget(&found.document.id)?)
    }
}

fn remove_image(store: Option<&Store>, name: &str, some_containers: bool) -> Result<(), Boxed> {
    let removed = match store {
        Some(store) => store.remove_ref(name),
        None => Ok(false),
    };
    match removed {
        Ok(true) => Ok(()),
        Ok(false) => Err(Box::new(no_name(store, name, some_containers))),
        Err(error) => Err(error.into()),
    }
}

fn both(name: &str, found: &Found) -> Failing {
    let id = &found.document.id;
    Failing::new(format!(
        "`{name}` is a container and an image: nothing was removed"
    ))
    .hint(format!(
        "`mk rm {id}` removes the container, `mk rm --image {name}` the name of the image"
    ))
}

fn no_name(store: Option<&Store>, name: &str, some_containers: bool) -> Failing {
    let things = if some_containers {
        "image and no container"
    } else {
        "image"
    };
    let failing = Failing::new(format!("no {things} has the name `{name}`"));
    match find::likely(store, name) {
        Some(likely) => failing.hint(format!("did you mean `{likely}`?")),
        None if some_containers => failing.hint("`mk images` lists images, `mk ps --all` containers"),
        None => failing.hint("`mk images` lists the names"),
    }
}
