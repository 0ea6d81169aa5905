//! `mk completions`: the script that a shell reads.

use clap::CommandFactory;

use crate::args::{Cli, Completions};
use crate::report::Failure;
use crate::ui;

pub(super) fn call(args: &Completions) -> Result<u8, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "mk", &mut script);
    ui::data_with(|out| out.write_all(&script))?;
    Ok(0)
}
