//! `mk logs`: what a container printed, each stream to its own.

use std::io::{self, Write};

use mk_core::container::follow::{self, Told, Wanted};
use mk_core::container::log::{Record, Stream};
use mk_core::container::{Error, Life};

use super::Context;
use crate::args;
use crate::report::{Failing, Failure};
use crate::ui;

/// Prints the log; with `--follow` until the container ends.
pub(super) fn call(args: &args::Logs, context: &Context) -> Result<u8, Failure> {
    let mut seen = context.look(context.state(args.state.store.as_deref())?.as_ref())?;
    let found = seen.take(&args.name)?;
    let called = found.document.called();
    if !found.document.detached {
        return Err(Failing::new(format!(
            "container `{called}` has no log: mk runs it in the foreground"
        ))
        .hint("what it prints goes to where mk was called; with `-d` it is kept")
        .into());
    }
    let wanted = Wanted {
        since: args.since,
        lines: args.tail,
        follow: args.follow,
    };
    let mut printer = Printer {
        stdout: io::BufWriter::with_capacity(1 << 16, io::stdout().lock()),
        stderr: io::BufWriter::with_capacity(1 << 16, io::stderr().lock()),
        timestamps: args.timestamps,
    };
    follow::read(&found.folder, &found.document, wanted, &mut |told| match told {
        Told::Record(record, begins) => printer.record(&record, begins),
        Told::Missing => {
            printer.flush()?;
            let _ = writeln!(
                printer.stderr,
                "{}",
                context
                    .ui
                    .noted("some of the log is missing here: it held too much")
            );
            printer.flush()
        }
        Told::Pause => printer.flush(),
    })?;
    drop(printer);
    if let Life::Ended(exit) = found.life
        && exit.lost > 0
    {
        context.ui.note(format_args!(
            "{} more were printed when the disk was full, and are lost",
            ui::bytes(exit.lost)
        ));
    }
    Ok(0)
}

struct Printer<'a> {
    stdout: io::BufWriter<io::StdoutLock<'a>>,
    stderr: io::BufWriter<io::StderrLock<'a>>,
    timestamps: bool,
}

/// Why printing ended.
enum Stopped {
    Log(Error),
    Print(io::Error),
}

impl From<Error> for Stopped {
    fn from(error: Error) -> Self {
        Self::Log(error)
    }
}

impl From<io::Error> for Stopped {
    fn from(error: io::Error) -> Self {
        Self::Print(error)
    }
}

impl From<Stopped> for Failure {
    fn from(stopped: Stopped) -> Self {
        match stopped {
            Stopped::Log(error) => error.into(),
            Stopped::Print(error) => Self::stdout(error),
        }
    }
}

impl Printer<'_> {
    fn record(&mut self, record: &Record<'_>, begins: bool) -> Result<(), Stopped> {
        match record.stream {
            Stream::Stdout => {
                self.stderr.flush()?;
                print(&mut self.stdout, record, begins && self.timestamps)?;
            }
            Stream::Stderr => {
                // So that a terminal shows both in the order in which they were printed.
                self.stdout.flush()?;
                // Nobody listens, and there is no place to say so.
                let _ = print(&mut self.stderr, record, begins && self.timestamps);
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Stopped> {
        let _ = self.stderr.flush();
        Ok(self.stdout.flush()?)
    }
}

fn print(out: &mut dyn Write, record: &Record<'_>, stamp: bool) -> io::Result<()> {
    if stamp {
        write!(out, "{} ", record.time)?;
    }
    out.write_all(record.bytes)?;
    if record.ends_line {
        out.write_all(b"\n")?;
    }
    Ok(())
}
