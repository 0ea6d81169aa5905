//! `mk exec`: one more command in a container that is running.

use std::ffi::OsString;

use mk_core::join::{self, Asked};
use mk_core::process::{exit, streams};
use mk_core::spec::streams::Streams;

use super::{Context, run};
use crate::args;
use crate::report::Failure;

/// Runs the command and returns the exit code that tells how it ended.
pub(super) fn call(args: args::Exec, context: &Context) -> Result<u8, Failure> {
    let found = context.container(args.state.store.as_deref(), &args.name)?;
    let asked = Asked {
        env: run::environment(args.env, &args.env_files)?,
        command: args.command,
        workdir: args.workdir.map(OsString::from),
        user: args.user,
        term: context.environment.text("TERM").map(OsString::from),
        streams: Streams::decide(args.terminal.wanted(false), streams::look()),
    };
    let ending =
        join::run(&found, asked).map_err(|error| Failure::Coded(error.exit_code(), Box::new(error)))?;
    Ok(exit::code(ending))
}
