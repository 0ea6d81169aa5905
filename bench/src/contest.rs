//! A contest: several commands that do the same work, called in turns, in an order that changes from round to round.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};

use crate::stats::{Dice, Summary, ratio};
use crate::table::{Budget, Row, Table, Unit};
use crate::{Error, helper};

/// What is measured of each call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Metric {
    /// Seconds from before the program is started until it has ended and was waited for.
    End,
    /// Seconds from before the program is started until the first instruction of what it runs, which is `stamp.c`.
    Start,
    /// Bytes of memory at most, of the program and its children.
    Peak,
}

/// Makes the command of a round.
type Make = Box<dyn Fn(usize) -> Result<Command, Error>>;

/// One who takes part.
pub(crate) struct Contestant {
    /// What its row is called.
    pub(crate) name: String,
    /// In what its work or its conditions differ from those of the first.
    pub(crate) differs: String,
    /// What is expected of its row, in the table of the first metric.
    pub(crate) budget: Option<Budget>,
    /// Returns the command of a round; what it takes to make it ready is not measured.
    pub(crate) command: Make,
}

impl Contestant {
    /// Returns one whose command is the same in each round.
    pub(crate) fn of(name: &str, program: PathBuf, words: Vec<String>) -> Self {
        Self::by(name, move |_| {
            let mut command = Command::new(&program);
            command.args(&words);
            Ok(command)
        })
    }

    /// Returns one with a command for each round.
    pub(crate) fn by(name: &str, command: impl Fn(usize) -> Result<Command, Error> + 'static) -> Self {
        Self {
            name: name.into(),
            differs: String::new(),
            budget: None,
            command: Box::new(command),
        }
    }

    /// Says in what it differs.
    pub(crate) fn differs(mut self, differs: &str) -> Self {
        self.differs = differs.into();
        self
    }

    /// Says what is expected of it.
    pub(crate) fn budget(mut self, budget: Budget) -> Self {
        self.budget = Some(budget);
        self
    }
}

/// What is measured together.
pub(crate) struct Contest {
    /// What the table is called.
    pub(crate) title: String,
    /// The first is ours: ratios are what it takes of what each other takes.
    pub(crate) contestants: Vec<Contestant>,
    /// What becomes a table each.
    pub(crate) metrics: Vec<Metric>,
    /// How many rounds count.
    pub(crate) rounds: usize,
    /// How many before them do not.
    pub(crate) warm_ups: usize,
    /// How long nothing happens before each call.
    pub(crate) gap: Duration,
    /// Whether what others wrote is brought to the disk before each call, so that nobody pays for somebody else.
    pub(crate) settle: bool,
    /// Whether it is in the plot.
    pub(crate) plotted: bool,
}

impl Contest {
    /// Returns a contest of `contestants` in which only the time to the end is measured, back to back.
    pub(crate) fn new(title: impl Into<String>, rounds: usize, contestants: Vec<Contestant>) -> Self {
        Self {
            title: title.into(),
            contestants,
            metrics: vec![Metric::End],
            rounds,
            warm_ups: 1,
            gap: Duration::ZERO,
            settle: false,
            plotted: true,
        }
    }

    /// Lets them all run.
    pub(crate) fn hold(&self) -> Result<Vec<Table>, Error> {
        let count = self.contestants.len();
        let seed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut dice = Dice::new(seed.as_nanos() as u64);
        // By contestant, then by metric.
        let mut values = vec![vec![Vec::with_capacity(self.rounds); self.metrics.len()]; count];
        for round in 0..self.warm_ups + self.rounds {
            for at in dice.order(count) {
                let measured = self.call(&self.contestants[at], round)?;
                if round < self.warm_ups {
                    continue;
                }
                for (all, value) in values[at].iter_mut().zip(measured) {
                    all.push(value);
                }
            }
        }
        let tables = self.metrics.iter().enumerate();
        Ok(tables
            .map(|(of, metric)| self.table(of, *metric, &values))
            .collect())
    }

    fn table(&self, of: usize, metric: Metric, values: &[Vec<Vec<f64>>]) -> Table {
        let (unit, what) = match metric {
            Metric::End => (Unit::Seconds, ""),
            Metric::Start => (Unit::Seconds, ", to the first instruction"),
            Metric::Peak => (Unit::Bytes, ", memory at most"),
        };
        let rows = self
            .contestants
            .iter()
            .zip(values)
            .enumerate()
            .filter_map(|(at, (contestant, own))| {
                Some(Row {
                    name: contestant.name.clone(),
                    differs: contestant.differs.clone(),
                    summary: Summary::of(&own[of])?,
                    ratio: ratio(&values[0][of], &own[of]).filter(|_| at > 0),
                    budget: contestant.budget.filter(|_| of == 0),
                    before: Vec::new(),
                })
            });
        Table {
            title: format!("{}{what}", self.title),
            unit,
            plotted: self.plotted && of == 0,
            rows: rows.collect(),
        }
    }

    /// Calls a contestant once; returns what each metric says.
    fn call(&self, contestant: &Contestant, round: usize) -> Result<Vec<f64>, Error> {
        let mut command = (contestant.command)(round)?;
        let file = tempfile::NamedTempFile::new()?;
        if self.metrics.contains(&Metric::Peak) {
            let own = std::iter::once(command.get_program()).chain(command.get_args());
            let words = ["peak".into(), file.path().into()];
            command = helper::command(words.into_iter().chain(own.map(Into::into)))?;
        }
        let stamped = self.metrics.contains(&Metric::Start);
        command
            .stdin(Stdio::null())
            .stdout(if stamped { Stdio::piped() } else { Stdio::null() })
            .stderr(Stdio::piped());
        if self.settle {
            nix::unistd::sync();
        }
        std::thread::sleep(self.gap);
        let start = now();
        let output = command.output();
        let end = now();
        let output = output.map_err(|source| Error::Start {
            program: PathBuf::from(command.get_program()),
            source,
        })?;
        let failed = |said: String| Error::Contestant {
            name: contestant.name.clone(),
            status: output.status,
            said,
        };
        if !output.status.success() {
            return Err(failed(String::from_utf8_lossy(&output.stderr).into_owned()));
        }
        let metrics = self.metrics.iter().map(|metric| match metric {
            Metric::End => Ok(end - start),
            Metric::Start => {
                let stamp = stamp(&output).ok_or_else(|| failed("it did not say when it began".into()))?;
                Ok(stamp - start)
            }
            Metric::Peak => {
                let text = fs_err::read_to_string(file.path())?;
                text.parse()
                    .map_err(|_| failed(format!("`{text}` bytes of memory")))
            }
        });
        metrics.collect()
    }
}

/// Returns the seconds of the clock that `stamp.c` reads, too.
fn now() -> f64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0.0, |time| Duration::from(time).as_secs_f64())
}

/// Returns when the program began that `output` is of: two numbers of 64 bits, seconds and nanoseconds.
fn stamp(output: &Output) -> Option<f64> {
    let (seconds, rest) = output.stdout.split_first_chunk::<8>()?;
    let nanoseconds = rest.first_chunk::<8>()?;
    Some(i64::from_ne_bytes(*seconds) as f64 + i64::from_ne_bytes(*nanoseconds) as f64 / 1e9)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contest(programs: [&str; 2]) -> Contest {
        let [ours, theirs] = programs.map(PathBuf::from);
        let contestants = vec![
            Contestant::of("ours", ours, Vec::new()),
            Contestant::of("theirs", theirs, Vec::new()).budget(Budget::Ratio(0.5)),
        ];
        Contest::new("nothing", 3, contestants)
    }

    #[test]
    fn every_contestant_gets_a_row_of_its_rounds() {
        let tables = contest(["true", "true"]).hold().unwrap();
        let [table] = tables.as_slice() else {
            panic!("{tables:?}")
        };
        assert_eq!(table.rows.len(), 2);
        assert!(
            table
                .rows
                .iter()
                .all(|row| row.summary.count == 3 && row.summary.median > 0.0)
        );
        assert!(table.rows[0].ratio.is_none() && table.rows[1].ratio.is_some());
    }

    #[test]
    fn a_contestant_that_fails_ends_the_contest() {
        let failed = contest(["true", "false"]).hold();
        assert!(matches!(failed, Err(Error::Contestant { name, .. }) if name == "theirs"));
    }

    #[test]
    fn a_program_that_does_not_say_when_it_began_is_told() {
        let mut contest = contest(["true", "true"]);
        contest.metrics = vec![Metric::End, Metric::Start];
        assert!(matches!(contest.hold(), Err(Error::Contestant { said, .. }) if said.contains("began")));
    }
}
