//! The table: subcommand → function. Each file here turns its arguments into calls of core and prints the result.

mod completions;

use crate::args::Command;
use crate::report::{Failing, Failure};
use crate::settings::Environment;
use crate::ui::Ui;

/// What every command is given besides its own arguments.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) ui: Ui,
    pub(crate) environment: Environment,
}

/// Does what `command` says and returns mk's exit code.
pub(crate) fn call(command: Command, _context: &Context) -> Result<u8, Failure> {
    match command {
        Command::Completions(args) => completions::call(&args),
        _ => Err(Failing::new("this command is not connected to the core yet").into()),
    }
}
