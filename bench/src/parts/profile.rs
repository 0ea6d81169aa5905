//! How the time of one run divides: which system calls its processes make, and how long these take.

use std::collections::BTreeMap;
use std::process::Command;

use super::{Tell, text};
use crate::image::Image;
use crate::stats::Summary;
use crate::table::{Row, Table, Unit};
use crate::trace::{self, Call, Spent};
use crate::{Bench, Error};

/// Who makes the calls, as they are born.
const PROCESSES: [&str; 3] = ["mk", "process 1 of the container", "the command"];

/// Calls in which a process waits for another: what that one does is counted there.
const WAITS: [&str; 9] = [
    "futex",
    "poll",
    "ppoll",
    "read",
    "recvmsg",
    "rt_sigtimedwait",
    "wait4",
    "waitid",
    "clock_nanosleep",
];

/// How many kinds of calls have a row of their own.
const ROWS: usize = 16;

/// Measures.
pub(super) fn measure(bench: &Bench, tell: Tell<'_>) -> Result<(), Error> {
    let image = Image::make(bench)?;
    let mut command = Command::new(&bench.mk);
    command
        .args(["run", "--store", &text(&image.store), "busybox", "stamp"])
        .env("HOME", "/root")
        .env("PATH", "/usr/bin:/bin");
    let runs = (0..bench.rounds.unwrap_or(50)).map(|_| trace::spend(&command).map(own_time));
    let runs: Vec<BTreeMap<Call, Spent>> = runs.collect::<Result<_, _>>()?;
    let mut calls: Vec<(Call, Vec<f64>)> = Vec::new();
    for call in runs.iter().flat_map(BTreeMap::keys) {
        if !calls.iter().any(|(known, _)| known == call) {
            let seconds = runs
                .iter()
                .map(|run| run.get(call).map_or(0.0, |spent| spent.seconds));
            calls.push((call.clone(), seconds.collect()));
        }
    }
    // By the median: now and then something else has the processor in the middle of a call.
    let median = |seconds: &[f64]| Summary::of(seconds).map_or(0.0, |summary| summary.median);
    calls.sort_by(|(_, one), (_, other)| median(other).total_cmp(&median(one)));
    let sum = |calls: &[(Call, Vec<f64>)]| -> Vec<f64> {
        (0..runs.len())
            .map(|run| calls.iter().map(|(_, seconds)| seconds[run]).sum())
            .collect()
    };
    let count = |of: &[(Call, Vec<f64>)]| -> u64 {
        let counts = of
            .iter()
            .filter_map(|(call, _)| Some(runs.first()?.get(call)?.count));
        counts.sum()
    };
    let rest = calls.split_off(ROWS.min(calls.len()));
    let mut rows: Vec<(String, Vec<f64>, u64)> = calls
        .chunks(1)
        .map(|one| {
            let (process, call) = &one[0].0;
            let who = PROCESSES.get(*process).copied().unwrap_or("another");
            (format!("{call}, by {who}"), sum(one), count(one))
        })
        .collect();
    rows.push(("all others".into(), sum(&rest), count(&rest)));
    let rows = rows.into_iter().filter_map(|(name, seconds, count)| {
        Some(Row {
            name,
            differs: format!("calls: {count}"),
            summary: Summary::of(&seconds)?,
            ratio: None,
            budget: None,
            before: Vec::new(),
        })
    });
    tell(vec![Table {
        title: "time of one run in system calls, without waiting for another process".into(),
        unit: Unit::Seconds,
        plotted: false,
        rows: rows.collect(),
    }]);
    Ok(())
}

/// Returns the same without waits, and without what it takes to stop at a call: so much as the shortest kind of call takes.
fn own_time(spent: BTreeMap<Call, Spent>) -> BTreeMap<Call, Spent> {
    let each = |spent: &Spent| spent.seconds / spent.count as f64;
    let ended = |spent: &&Spent| spent.seconds > 0.0;
    let least = spent
        .values()
        .filter(ended)
        .map(each)
        .fold(f64::INFINITY, f64::min);
    let own = spent
        .into_iter()
        .filter(|((_, name), _)| !WAITS.contains(&name.as_str()));
    own.map(|(call, spent)| {
        let seconds = (spent.seconds - least * spent.count as f64).max(0.0);
        (call, Spent { seconds, ..spent })
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_stop_takes_is_no_part_of_a_call_and_neither_are_waits() {
        let spent = |count, seconds| Spent { count, seconds };
        let call = |name: &str| (0, name.to_owned());
        let all = [
            (call("close"), spent(10, 10.0)),
            (call("mount"), spent(2, 6.0)),
            (call("wait4"), spent(1, 100.0)),
        ];
        let own = own_time(all.into());
        assert_eq!(own.len(), 2);
        assert!((own[&call("mount")].seconds - 4.0).abs() < 1e-9);
        assert!(own[&call("close")].seconds.abs() < 1e-9);
    }
}
