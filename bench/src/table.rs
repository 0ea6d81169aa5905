//! What came out of a contest, as text for people, as JSON for programs, and as Markdown for a page.

use serde::{Deserialize, Serialize};

use crate::stats::{Ratio, Summary};

/// What the figures of a table are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Unit {
    /// Of time.
    Seconds,
    /// Of memory.
    Bytes,
}

/// What is expected of a row.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Budget {
    /// The first row takes at most so much of it.
    Ratio(f64),
    /// It takes at most so much itself.
    Most(f64),
}

/// A contestant's row.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Row {
    /// Of the contestant.
    pub(crate) name: String,
    /// In what its work or its conditions differ from those of the first row.
    pub(crate) differs: String,
    /// What it takes.
    pub(crate) summary: Summary,
    /// What the first contestant takes of it; nothing of its own row.
    pub(crate) ratio: Option<Ratio>,
    /// What is expected.
    pub(crate) budget: Option<Budget>,
    /// What was held against the budget in runs of the bench before, the newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) before: Vec<f64>,
}

/// All rows of a contest.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Table {
    /// Of the contest.
    pub(crate) title: String,
    /// Of all figures but ratios.
    pub(crate) unit: Unit,
    /// Whether it is in the plot.
    pub(crate) plotted: bool,
    /// In the order of the contestants.
    pub(crate) rows: Vec<Row>,
}

impl Row {
    /// Returns what is held against the budget.
    pub(crate) fn judged(&self) -> Option<f64> {
        match self.budget? {
            Budget::Ratio(_) => self.ratio.map(|ratio| ratio.median),
            Budget::Most(_) => Some(self.summary.median),
        }
    }

    /// Returns whether what is expected is so; nothing where nothing is expected.
    pub(crate) fn is_met(&self) -> Option<bool> {
        let (Budget::Ratio(most) | Budget::Most(most)) = self.budget?;
        Some(self.judged()? <= most)
    }

    /// Returns the figures as people read them: median, p95, spread, rounds, ratio, budget.
    pub(crate) fn cells(&self, unit: Unit) -> [String; 6] {
        let Summary {
            median,
            p95,
            spread,
            count,
        } = self.summary;
        let ratio = |Ratio { median, low, high }| format!("{median:.2} ({low:.2}-{high:.2})");
        let budget = match self.budget {
            None => String::new(),
            Some(Budget::Ratio(most)) => format!("<= {most:.2}"),
            Some(Budget::Most(most)) => format!("<= {}", unit.shown(most)),
        };
        let verdict = match self.is_met() {
            Some(true) => " met",
            Some(false) => " NOT MET",
            None => "",
        };
        [
            unit.shown(median),
            unit.shown(p95),
            unit.shown(spread),
            count.to_string(),
            self.ratio.map_or_else(String::new, ratio),
            format!("{budget}{verdict}"),
        ]
    }
}

/// What the columns of figures are called.
const COLUMNS: [&str; 6] = [
    "median",
    "p95",
    "spread",
    "rounds",
    "ratio (its middle half)",
    "budget",
];

impl Table {
    /// Returns whether it has bars in the plot.
    pub(crate) fn is_plotted(&self) -> bool {
        self.plotted && self.rows.iter().any(|row| row.ratio.is_some())
    }

    /// Returns the table as text for people.
    pub(crate) fn text(&self) -> String {
        let mut rows = vec![
            std::iter::once(String::new())
                .chain(COLUMNS.map(Into::into))
                .collect(),
        ];
        for row in &self.rows {
            let cells = std::iter::once(row.name.clone()).chain(row.cells(self.unit));
            rows.push(cells.collect::<Vec<String>>());
        }
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
        let widths: Vec<usize> = (0..=COLUMNS.len()).filter_map(width).collect();
        let mut text = format!("{}\n", self.title);
        for row in &rows {
            let mut line = format!("  {:<1$}", row[0], widths[0]);
            for (cell, width) in row.iter().zip(&widths).skip(1) {
                line += &format!("  {cell:>width$}");
            }
            text += &format!("{}\n", line.trim_end());
        }
        for row in self.rows.iter().filter(|row| !row.differs.is_empty()) {
            text += &format!("  * {}: {}\n", row.name, row.differs);
        }
        text
    }

    /// Returns the table for a page.
    pub(crate) fn markdown(&self) -> String {
        let mut text = format!(
            "### {}\n\n| | {} | what differs |\n|---|",
            self.title,
            COLUMNS.join(" | ")
        );
        text += &"---:|".repeat(COLUMNS.len());
        text += "---|\n";
        for row in &self.rows {
            let cells = row.cells(self.unit).join(" | ");
            text += &format!("| {} | {cells} | {} |\n", row.name, row.differs);
        }
        text
    }
}

impl Unit {
    /// Returns a figure as people read it.
    pub(crate) fn shown(self, value: f64) -> String {
        match (self, value) {
            (Self::Seconds, ..1e-3) => format!("{:.0} us", value * 1e6),
            (Self::Seconds, ..1.0) => format!("{:.2} ms", value * 1e3),
            (Self::Seconds, _) => format!("{value:.2} s"),
            (Self::Bytes, _) => format!("{:.1} MiB", value / 1_048_576.0),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn table() -> Table {
        let row = |name: &str, times: &[f64], budget| Row {
            name: name.into(),
            differs: if name == "ours" {
                String::new()
            } else {
                "no checks".into()
            },
            summary: Summary::of(times).unwrap(),
            ratio: (name != "ours").then(|| crate::stats::ratio(&[0.002], times).unwrap()),
            budget,
            before: Vec::new(),
        };
        Table {
            title: "nothing".into(),
            unit: Unit::Seconds,
            plotted: true,
            rows: vec![
                row("ours", &[0.002], Some(Budget::Most(0.01))),
                row("theirs", &[0.001], Some(Budget::Ratio(0.5))),
            ],
        }
    }

    #[test]
    fn a_table_says_what_is_met_and_what_is_not() {
        let text = table().text();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[2].ends_with("<= 10.00 ms met"), "{text}");
        assert!(lines[3].ends_with("2.00 (2.00-2.00)  <= 0.50 NOT MET"), "{text}");
        assert_eq!(lines[4], "  * theirs: no checks");
    }

    #[test]
    fn a_table_on_a_page_has_a_line_for_each_row() {
        let text = table().markdown();
        assert!(text.contains("\n| theirs | 1.00 ms | "), "{text}");
        assert!(text.ends_with("| no checks |\n"), "{text}");
    }

    #[test]
    fn a_table_is_read_back_as_it_was_written() {
        let json = serde_json::to_string(&table()).unwrap();
        let back: Table = serde_json::from_str(&json).unwrap();
        assert_eq!(back.text(), table().text());
    }

    #[test]
    fn figures_are_shown_in_the_unit_that_fits() {
        for (seconds, text) in [(0.000_25, "250 us"), (0.002_5, "2.50 ms"), (2.5, "2.50 s")] {
            assert_eq!(Unit::Seconds.shown(seconds), text);
        }
        assert_eq!(Unit::Bytes.shown(1_572_864.0), "1.5 MiB");
    }
}
