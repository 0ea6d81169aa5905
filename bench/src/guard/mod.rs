//! The guard: what commands take that does not depend on the time, beside what they took when it was recorded.
//!
//! System calls, by name, are the same for the same mk on the same kind of machine. Instructions in user space, and the pages
//! that they are in, depend on the compiler and on the processor, too, by whose features libraries choose what they execute:
//! they are only held against a record that was made with the same.

use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use self::record::{Record, Taken};
use crate::image::Image;
use crate::trace::{Counts, count, step};
use crate::{Bench, Error, machine};

/// Which functions are needed.
mod order;
/// As text.
mod record;

/// How many percent more than the record are not a failure yet.
const TOLERATED: u64 = 10;

/// How often each command is run. What it needs is the least that it took: a process that is woken early asks once more.
const RUNS: usize = 5;

/// Calls of which not one may come to be without a word: each starts a program or waits for the disk, and costs more than
/// a hundred others.
const DEAR: [&str; 8] = [
    "clone",
    "clone3",
    "execve",
    "execveat",
    "fdatasync",
    "fsync",
    "sync",
    "syncfs",
];

/// Calls that only tell who had to wait for whom.
const CHANCE: [&str; 3] = ["futex", "restart_syscall", "sched_yield"];

/// Counts, and returns what is to be said and whether all is well. With `bless`, what was counted becomes the record.
pub(crate) fn measure(bench: &Bench, bless: bool) -> Result<bool, Error> {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/records/guard.txt"));
    let now = take(bench)?;
    let before = match fs_err::read_to_string(&path) {
        Ok(text) => Record::parse(&text).map_err(|why| Error::Record {
            path: path.clone(),
            why,
        })?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && bless => Record::default(),
        Err(error) => return Err(Error::Io(error)),
    };
    let verdict = compare(&before, &now);
    crate::say(&verdict.text);
    if bless {
        fs_err::write(&path, now.text())?;
        crate::say(&format!("recorded in {}", path.display()));
    }
    Ok(bless || verdict.failures == 0)
}

/// Writes which functions of mk the commands need, those of a run first.
pub(crate) fn order(bench: &Bench) -> Result<(), Error> {
    let mut functions = order::Functions::of(&bench.mk)?;
    each(bench, |_, command| {
        functions.need(&step(command)?.places);
        Ok(())
    })?;
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../cli/order.txt"));
    fs_err::write(&path, functions.text())?;
    crate::say(&format!(
        "written to {}: build mk again, then `guard --bless`",
        path.display()
    ));
    Ok(())
}

/// Counts everything anew.
fn take(bench: &Bench) -> Result<Record, Error> {
    let mut record = Record {
        processor: processor()?,
        compiler: machine::call(Path::new("rustc"), ["--version"])?,
        ..Record::default()
    };
    each(bench, |name, command| {
        record.commands.insert(name.to_owned(), least(command)?);
        Ok(())
    })?;
    Ok(record)
}

/// Does something with each of the commands that are guarded, and with what they are called.
fn each(bench: &Bench, mut act: impl FnMut(&str, &Command) -> Result<(), Error>) -> Result<(), Error> {
    let image = Image::make(bench)?;
    // On one processor nobody is woken from afar, which takes much longer than a single step, and mk uses as many threads
    // as everywhere.
    let mut one = CpuSet::new();
    one.set(0).map_err(Error::Trace)?;
    sched_setaffinity(Pid::from_raw(0), &one).map_err(Error::Trace)?;
    let [recipe, store] = [&image.recipe, &image.store].map(|path| path.display().to_string());
    let build = ["build", "--quiet", "--store", &store, &recipe];
    let run = ["run", "--store", &store, "busybox", "true"];
    for (name, words) in [
        ("mk run busybox true", &run[..]),
        ("mk build, nothing changed", &build),
        ("mk --version", &["--version"]),
    ] {
        let mut command = Command::new(&bench.mk);
        command
            .args(words)
            .env_clear()
            .env("HOME", "/root")
            .env("PATH", "/usr/bin:/bin");
        act(name, &command)?;
    }
    Ok(())
}

fn least(command: &Command) -> Result<Taken, Error> {
    let mut calls: Option<Counts> = None;
    for _ in 0..RUNS {
        let mut these = count(command)?;
        these.retain(|name, _| !CHANCE.contains(&name.as_str()));
        let total = |counts: &Counts| counts.values().sum::<u64>();
        if calls.as_ref().is_none_or(|least| total(&these) < total(least)) {
            calls = Some(these);
        }
    }
    // Once: some microseconds for each of a few millions.
    let steps = step(command)?;
    Ok(Taken {
        instructions: steps.count,
        pages: steps.pages(),
        calls: calls.unwrap_or_default(),
    })
}

/// Returns the features of this processor by which libraries choose what they execute.
fn processor() -> Result<String, Error> {
    const CHOSEN_BY: [&str; 10] = [
        "aes",
        "avx2",
        "avx512bw",
        "avx512vl",
        "bmi2",
        "erms",
        "fsrm",
        "sha2",
        "sha_ni",
        "vpclmulqdq",
    ];
    let text = fs_err::read_to_string("/proc/cpuinfo")?;
    let flags = text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| ["flags", "Features"].contains(&name.trim()))
        .map_or("", |(_, flags)| flags);
    let flags: Vec<&str> = flags.split_whitespace().collect();
    let here: Vec<&str> = CHOSEN_BY
        .into_iter()
        .filter(|name| flags.contains(name))
        .collect();
    Ok(format!("{} {}", std::env::consts::ARCH, here.join(" ")))
}

/// What there is to say.
struct Verdict {
    text: String,
    failures: usize,
}

fn compare(before: &Record, now: &Record) -> Verdict {
    let mut lines = vec![format!(
        "{:<28}{:<14}{:>12}{:>12}{:>9}",
        "guard", "", "recorded", "now", "change"
    )];
    let mut failures = 0;
    let same = (&before.processor, &before.compiler) == (&now.processor, &now.compiler);
    let nothing = Taken::default();
    for (name, taken) in &now.commands {
        let old = before.commands.get(name).unwrap_or(&nothing);
        let rows = [
            ("system calls", old.total(), taken.total(), true),
            ("instructions", old.instructions, taken.instructions, same),
            ("pages of code", old.pages, taken.pages, same),
        ];
        for (what, old, new, judged) in rows {
            let verdict = match old {
                _ if !judged => "  not judged",
                0 => "  not recorded: FAILED",
                _ if new * 100 > old * (100 + TOLERATED) => "  FAILED",
                _ if new * 100 < old * (100 - TOLERATED) => "  less: record it with --bless",
                _ => "",
            };
            failures += usize::from(verdict.ends_with("FAILED"));
            let change = match old {
                0 => String::new(),
                _ => format!("{:+.1} %", (new as f64 / old as f64 - 1.0) * 100.0),
            };
            lines.push(format!(
                "  {name:<26}{what:<14}{old:>12}{new:>12}{change:>9}{verdict}"
            ));
        }
        let (more, dear) = kinds(&old.calls, &taken.calls);
        failures += dear;
        lines.extend(more);
    }
    if !same {
        lines.push(format!(
            "  instructions and pages are not judged: recorded with `{}` on `{}`, this is `{}` on `{}`",
            before.compiler, before.processor, now.compiler, now.processor
        ));
    }
    if failures > 0 {
        lines.push("  If that is the price of something that is worth it, record it: `guard --bless`".into());
    }
    Verdict {
        text: lines.join("\n"),
        failures,
    }
}

/// Returns lines on the system calls that are made more or less often than before, and how many of those that are more
/// are dear.
fn kinds(before: &Counts, now: &Counts) -> (Vec<String>, usize) {
    let mut lines = Vec::new();
    let mut dear = 0;
    let names: std::collections::BTreeSet<&String> = before.keys().chain(now.keys()).collect();
    for name in names {
        let [old, new] = [before, now].map(|counts| counts.get(name).copied().unwrap_or(0));
        if old == new {
            continue;
        }
        let fails = new > old && DEAR.contains(&name.as_str());
        dear += usize::from(fails);
        let verdict = if fails { "  dear: FAILED" } else { "" };
        lines.push(format!("    {name:<38}{old:>12}{new:>12}{verdict}"));
    }
    (lines, dear)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(instructions: u64, calls: &[(&str, u64)]) -> Record {
        let calls = calls.iter().map(|(name, count)| ((*name).to_owned(), *count));
        let taken = Taken {
            instructions,
            pages: 10,
            calls: calls.collect(),
        };
        Record {
            processor: "x86_64 avx2".into(),
            compiler: "rustc 1".into(),
            commands: [("mk --version".to_owned(), taken)].into(),
        }
    }

    #[test]
    fn a_tenth_more_is_tolerated_and_no_more() {
        let before = record(1000, &[("close", 100)]);
        assert_eq!(compare(&before, &record(1100, &[("close", 110)])).failures, 0);
        assert_eq!(compare(&before, &record(1101, &[("close", 110)])).failures, 1);
        assert_eq!(compare(&before, &record(1101, &[("close", 111)])).failures, 2);
    }

    #[test]
    fn one_more_program_or_sync_is_too_many() {
        let before = record(1000, &[("close", 100), ("execve", 1)]);
        let verdict = compare(
            &before,
            &record(1000, &[("close", 100), ("execve", 2), ("syncfs", 1)]),
        );
        assert_eq!(verdict.failures, 2, "{}", verdict.text);
    }

    #[test]
    fn what_takes_less_is_told_and_is_no_failure() {
        let before = record(1000, &[("close", 100)]);
        let verdict = compare(&before, &record(1000, &[("close", 80)]));
        assert_eq!(verdict.failures, 0);
        assert!(
            verdict.text.contains("less: record it with --bless"),
            "{}",
            verdict.text
        );
        assert!(verdict.text.contains("close"), "{}", verdict.text);
    }

    #[test]
    fn what_is_not_in_the_record_fails_and_so_a_new_command_is_recorded() {
        let verdict = compare(
            &Record {
                commands: [].into(),
                ..record(0, &[])
            },
            &record(1000, &[("close", 1)]),
        );
        assert_eq!(verdict.failures, 3, "{}", verdict.text);
    }

    #[test]
    fn instructions_of_another_processor_or_compiler_are_shown_and_not_judged() {
        let before = record(1000, &[("close", 100)]);
        let now = Record {
            compiler: "rustc 2".into(),
            ..record(5000, &[("close", 100)])
        };
        let verdict = compare(&before, &now);
        assert_eq!(verdict.failures, 0);
        assert!(
            verdict.text.contains("not judged: recorded with `rustc 1`"),
            "{}",
            verdict.text
        );
    }
}
