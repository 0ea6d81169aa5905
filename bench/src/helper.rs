//! What this program does for itself, called as `mk-bench HELPER …` by its measurements.
//!
//! * `peak FILE PROGRAM…` runs a program and writes to FILE how many bytes of memory it and its children had at most. A
//!   process's own figure begins with what its parent had, so the parent must be as small as this one.
//! * `crowd COUNT AT_ONCE PROGRAM…` runs a program COUNT times, so many AT_ONCE; `{}` in its words is the number of the run.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::sys::resource::{UsageWho, getrusage};

use crate::Error;

/// Does what `words` ask for, where they ask for a helper. Returns whether it went well.
pub(crate) fn call(words: &[OsString]) -> Option<Result<bool, Error>> {
    let kind = words.get(1)?.to_str()?;
    match (kind, words.get(2..)?) {
        ("peak", [file, program, words @ ..]) => Some(peak(file.into(), program, words)),
        ("crowd", [count, at_once, words @ ..]) => {
            let number = |word: &OsString| word.to_str()?.parse().ok();
            Some(crowd(number(count)?, number(at_once)?, words))
        }
        _ => None,
    }
}

/// Returns the command that calls a helper with `words`, the last of which are a program and its own.
pub(crate) fn command(words: impl IntoIterator<Item = OsString>) -> Result<Command, Error> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(words);
    Ok(command)
}

fn peak(file: PathBuf, program: &OsString, words: &[OsString]) -> Result<bool, Error> {
    let status = Command::new(program)
        .args(words)
        .status()
        .map_err(|source| Error::Start {
            program: program.into(),
            source,
        })?;
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).map_err(Error::Root)?;
    fs_err::write(file, (usage.max_rss() * 1024).to_string())?;
    Ok(status.success())
}

fn crowd(count: usize, at_once: usize, words: &[OsString]) -> Result<bool, Error> {
    let next = AtomicUsize::new(0);
    let failed = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                loop {
                    let run = next.fetch_add(1, Ordering::Relaxed);
                    if run >= count {
                        return;
                    }
                    let mut words = words.iter().map(|word| match word.to_str() {
                        Some(text) => text.replace("{}", &run.to_string()).into(),
                        None => word.clone(),
                    });
                    let program = words.next().unwrap_or_default();
                    let status = Command::new(program)
                        .args(words)
                        .stdin(Stdio::null())
                        .stdout(Stdio::null())
                        .status();
                    let well = status.is_ok_and(|status| status.success());
                    failed.fetch_add(usize::from(!well), Ordering::Relaxed);
                }
            });
        }
    });
    Ok(failed.into_inner() == 0)
}
