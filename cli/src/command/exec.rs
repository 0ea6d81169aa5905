//! `mk exec`: one more command in a container that is running.

use std::ffi::OsString;

use mk_core::join::{self, Asked};
use mk_core::process::{exit, streams};
use mk_core::spec::streams::Streams;
use mk_core::sys::process::{CStrings, c_string};
use mk_core::sys::sealed;

use super::{Context, run};
use crate::args;
use crate::report::{Failing, Failure};

/// Runs the command and returns the exit code that tells how it ended.
pub(super) fn call(args: args::Exec, context: &Context) -> Result<u8, Failure> {
    seal()?;
    let found = context.container(args.state.store.as_deref(), &args.name)?;
    let asked = Asked {
        env: run::environment(args.env, &args.env_files)?,
        command: args.command,
        workdir: args.workdir.map(OsString::from),
        user: args.user,
        term: context.environment.text("TERM").map(OsString::from),
        streams: Streams::decide(args.terminal.wanted(false), streams::look()),
    };
    let ended =
        join::run(&found, asked).map_err(|error| Failure::Coded(error.exit_code(), Box::new(error)))?;
    if ended.out_of_memory {
        context
            .ui
            .note("the container ran out of memory: its `--memory` was reached, and that ended it");
    }
    Ok(exit::code(ended.ending))
}

/// Goes on as an mk whose program nobody can write to: processes that run in the container already may get the one that
/// joins them to execute `/proc/self/exe`, and then reach for the file behind it.
fn seal() -> Result<(), Failure> {
    if sealed::is_sealed() {
        return Ok(());
    }
    let words = std::env::args_os().filter_map(c_string);
    let variables = std::env::vars_os().filter_map(|(name, value)| {
        let mut entry = name;
        entry.push("=");
        entry.push(value);
        c_string(entry)
    });
    let (words, variables) = (CStrings::new(words.collect()), CStrings::new(variables.collect()));
    let failed = Failing::new("cannot go on as a sealed copy of mk")
        .because(sealed::become_sealed(&words, &variables));
    Err(Failure::Coded(exit::MK_FAILED, Box::new(failed)))
}
