//! `mk stop`, `mk kill` and `mk wait`: the ends of containers.

use mk_core::container::control::{self, Wait};

use super::{Context, containers};
use crate::args;
use crate::report::{FAILED, Failing, Failure};
use crate::ui;

/// Ends containers, and waits until they have ended.
pub(super) fn stop(args: &args::Stop, context: &Context) -> Result<u8, Failure> {
    let mut seen = context.look(context.state(args.state.store.as_deref())?.as_ref())?;
    let found = containers::pick(&mut seen, &args.names)?;
    several(control::stop(&found, args.time))
}

/// Sends commands a signal.
pub(super) fn kill(args: &args::Kill, context: &Context) -> Result<u8, Failure> {
    let mut seen = context.look(context.state(args.state.store.as_deref())?.as_ref())?;
    let found = containers::pick(&mut seen, &args.names)?;
    let failed = found
        .iter()
        .filter_map(|found| control::signal(found, args.signal).err());
    several(failed.collect())
}

/// Waits for the ends of containers, and prints the exit code of each.
pub(super) fn wait(args: &args::Wait, context: &Context) -> Result<u8, Failure> {
    let mut seen = context.look(context.state(args.state.store.as_deref())?.as_ref())?;
    let found = containers::pick(&mut seen, &args.names)?;
    let mut last = 0;
    let mut failed: Vec<Box<dyn std::error::Error + Send + Sync>> = Vec::new();
    let waits: Vec<_> = found.iter().map(|found| (found, Wait::begin(found))).collect();
    for (found, wait) in waits {
        match wait.and_then(Wait::end) {
            Ok(Some(exit)) => {
                ui::data(exit.code)?;
                last = exit.code;
            }
            Ok(None) => {
                let called = found.document.called();
                failed.push(Box::new(Failing::new(format!(
                    "container `{called}` has no exit code: whoever looked after it was killed, and that ended it"
                ))));
                last = FAILED;
            }
            Err(error) => failed.push(Box::new(error)),
        }
    }
    match failed.is_empty() {
        true => Ok(last),
        false => Err(Failure::Several(failed)),
    }
}

fn several(failed: Vec<mk_core::container::Error>) -> Result<u8, Failure> {
    match failed.is_empty() {
        true => Ok(0),
        false => Err(Failure::Several(
            failed.into_iter().map(|error| Box::new(error) as _).collect(),
        )),
    }
}
