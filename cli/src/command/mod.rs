//! The table: subcommand → function. Each file here turns its arguments into calls of core and prints the result.

mod completions;

use crate::args::Command;
use crate::report::{Failing, Failure};
use crate::settings::{Environment, Flags, Settings};
use crate::ui::Ui;

/// What every command is given besides its own arguments.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) ui: Ui,
    pub(crate) environment: Environment,
}

impl Context {
    /// Returns what holds for this call, given its flags.
    fn settings(&self, flags: &Flags<'_>) -> Result<Settings, Failure> {
        Ok(Settings::read(
            &self.environment,
            flags,
            rustix::process::geteuid().is_root(),
        )?)
    }
}

/// Does what `command` says and returns mk's exit code.
pub(crate) fn call(command: Command, context: &Context) -> Result<u8, Failure> {
    match command {
        Command::Completions(args) => completions::call(&args),
        Command::Images(args) => {
            context.settings(&Flags {
                store: args.store.store.as_deref(),
                ..Flags::default()
            })?;
            Err(Failing::new("this command is not connected to the core yet").into())
        }
        _ => Err(Failing::new("this command is not connected to the core yet").into()),
    }
}
