//! `mk`: reads its command line, does what it says, reports, and ends with an exit code.

mod args;
mod command;
mod hints;
mod progress;
mod remedy;
mod report;
mod settings;
mod ui;
mod usage;
mod value;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

use crate::args::Cli;
use crate::command::Context;
use crate::settings::Environment;
use crate::ui::Ui;

fn main() -> ExitCode {
    // Before anything else, and without a word: whoever started this in a container is up to something.
    if !mk_core::sys::process::has_own_program_in_sight() {
        return ExitCode::from(mk_core::process::exit::CANNOT_EXECUTE);
    }
    let words: Vec<OsString> = std::env::args_os().collect();
    // Both end with the command's own exit code, so what goes wrong before has codes out of its way.
    let run = words.get(1).is_some_and(|word| word == "run" || word == "exec");
    let (failed, usage) = if run {
        (report::RUN_FAILED, report::RUN_FAILED)
    } else {
        (report::FAILED, report::USAGE)
    };
    report::on_panic(failed);
    let environment = Environment::of_process();
    let ui = Ui::new(&environment);
    let code = match Cli::try_parse_from(&words) {
        Ok(cli) => match command::call(cli.command, &Context { ui, environment }) {
            Ok(code) => code,
            Err(failure) => report::tell(&ui, failure, failed),
        },
        Err(error) => explain(&ui, &error, &words, usage),
    };
    ExitCode::from(code)
}

/// Shows help or version where that was asked for, else what is wrong with the command line.
fn explain(ui: &Ui, error: &clap::Error, words: &[OsString], usage: u8) -> u8 {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => match error.print() {
            Ok(()) => 0,
            Err(error) => report::tell(ui, report::Failure::stdout(error), report::FAILED),
        },
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            // Nothing was asked for: help, on stderr. A closed stderr has nobody to tell.
            let _ = error.print();
            usage
        }
        _ => {
            ui.say(usage::text(ui, error, words));
            usage
        }
    }
}
