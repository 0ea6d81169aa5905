//! A contest: several commands that do the same work, called in turns, in an order that changes from round to round.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::Error;
use crate::stats::{Dice, Summary, ratio};

/// One who takes part.
pub(crate) struct Contestant {
    /// What its row is called.
    pub(crate) name: String,
    /// What its row is worth, against the first contestant's.
    pub(crate) budget: Option<f64>,
    /// Returns the command of a round; what it takes to make it ready is not measured.
    pub(crate) command: Box<dyn Fn(usize) -> Result<Command, Error>>,
}

/// What is measured together.
pub(crate) struct Contest {
    /// What the table is called.
    pub(crate) title: String,
    /// The first is ours: ratios are what it takes of what each other takes.
    pub(crate) contestants: Vec<Contestant>,
    /// How many rounds count.
    pub(crate) rounds: usize,
    /// How many before them do not.
    pub(crate) warm_ups: usize,
    /// How long nothing happens before each call.
    pub(crate) gap: Duration,
    /// Whether what others wrote is brought to the disk before each call, so that nobody pays for somebody else.
    pub(crate) settle: bool,
}

/// A contestant's row.
#[derive(Debug)]
pub(crate) struct Row {
    /// Of the contestant.
    pub(crate) name: String,
    /// What it takes.
    pub(crate) summary: Summary,
    /// What the first contestant takes of it.
    pub(crate) ratio: f64,
    /// What that ratio should not exceed.
    pub(crate) budget: Option<f64>,
}

/// What came out of a contest.
#[derive(Debug)]
pub(crate) struct Table {
    /// Of the contest.
    pub(crate) title: String,
    /// In the order of the contestants.
    pub(crate) rows: Vec<Row>,
}

impl Contest {
    /// Lets them all run.
    pub(crate) fn hold(&self) -> Result<Table, Error> {
        let count = self.contestants.len();
        let seed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut dice = Dice::new(seed.as_nanos() as u64);
        let mut times = vec![Vec::with_capacity(self.rounds); count];
        for round in 0..self.warm_ups + self.rounds {
            for at in dice.order(count) {
                let time = self.call(&self.contestants[at], round)?;
                if round >= self.warm_ups {
                    times[at].push(time);
                }
            }
        }
        let rows = self
            .contestants
            .iter()
            .zip(&times)
            .filter_map(|(contestant, own)| {
                Some(Row {
                    name: contestant.name.clone(),
                    summary: Summary::of(own)?,
                    ratio: ratio(&times[0], own)?,
                    budget: contestant.budget,
                })
            });
        Ok(Table {
            title: self.title.clone(),
            rows: rows.collect(),
        })
    }

    /// Returns the seconds from before the program is started until after it has ended.
    fn call(&self, contestant: &Contestant, round: usize) -> Result<f64, Error> {
        let mut command = (contestant.command)(round)?;
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        if self.settle {
            nix::unistd::sync();
        }
        std::thread::sleep(self.gap);
        let start = Instant::now();
        let output = command.output();
        let time = start.elapsed().as_secs_f64();
        match output {
            Ok(output) if output.status.success() => Ok(time),
            Ok(output) => Err(Error::Contestant {
                name: contestant.name.clone(),
                status: output.status,
                said: String::from_utf8_lossy(&output.stderr).into_owned(),
            }),
            Err(source) => Err(Error::Start {
                program: PathBuf::from(command.get_program()),
                source,
            }),
        }
    }
}

impl Table {
    /// Returns the table as text for people.
    pub(crate) fn text(&self) -> String {
        let mut text = format!("{}\n", self.title);
        text += &format!(
            "  {:<34}{:>10}{:>10}{:>10}{:>9}{:>9}{:>8}\n",
            "", "median", "p95", "spread", "rounds", "ratio", "budget"
        );
        for (at, row) in self.rows.iter().enumerate() {
            let Summary {
                median,
                p95,
                spread,
                count,
            } = row.summary;
            let ratio = if at == 0 {
                String::new()
            } else {
                format!("{:.2}", row.ratio)
            };
            let budget = row.budget.map_or(String::new(), |budget| format!("{budget:.2}"));
            let line = format!(
                "  {:<34}{:>10}{:>10}{:>10}{count:>9}{ratio:>9}{budget:>8}",
                row.name,
                shown(median),
                shown(p95),
                shown(spread),
            );
            text += &format!("{}\n", line.trim_end());
        }
        text
    }

    /// Returns the table for programs; times in seconds.
    pub(crate) fn json(&self) -> serde_json::Value {
        let rows = self.rows.iter().map(|row| {
            serde_json::json!({
                "name": row.name,
                "median": row.summary.median,
                "p95": row.summary.p95,
                "spread": row.summary.spread,
                "rounds": row.summary.count,
                "ratio": row.ratio,
                "budget": row.budget,
            })
        });
        serde_json::json!({ "title": self.title, "rows": rows.collect::<Vec<_>>() })
    }
}

/// Returns seconds as people read them.
fn shown(seconds: f64) -> String {
    match seconds {
        ..1e-3 => format!("{:.0} us", seconds * 1e6),
        ..1.0 => format!("{:.2} ms", seconds * 1e3),
        _ => format!("{seconds:.2} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contestant(name: &str, program: &'static str) -> Contestant {
        Contestant {
            name: name.into(),
            budget: (name == "theirs").then_some(0.5),
            command: Box::new(move |_| Ok(Command::new(program))),
        }
    }

    fn contest(contestants: Vec<Contestant>) -> Contest {
        Contest {
            title: "nothing".into(),
            contestants,
            rounds: 3,
            warm_ups: 1,
            gap: Duration::ZERO,
            settle: false,
        }
    }

    #[test]
    fn every_contestant_gets_a_row_of_its_rounds() {
        let table = contest(vec![contestant("ours", "true"), contestant("theirs", "true")])
            .hold()
            .unwrap();
        assert_eq!(table.rows.len(), 2);
        assert!(
            table
                .rows
                .iter()
                .all(|row| row.summary.count == 3 && row.summary.median > 0.0)
        );
        assert!((table.rows[0].ratio - 1.0).abs() < 1e-9);
        let text = table.text();
        assert!(text.lines().nth(3).unwrap().ends_with("0.50"), "{text}");
        assert_eq!(table.json()["rows"][1]["name"], "theirs");
    }

    #[test]
    fn a_contestant_that_fails_ends_the_contest() {
        let failed = contest(vec![contestant("ours", "true"), contestant("theirs", "false")]).hold();
        assert!(matches!(failed, Err(Error::Contestant { name, .. }) if name == "theirs"));
    }

    #[test]
    fn times_are_shown_in_the_unit_that_fits() {
        for (seconds, text) in [(0.000_25, "250 us"), (0.002_5, "2.50 ms"), (2.5, "2.50 s")] {
            assert_eq!(shown(seconds), text);
        }
    }
}
