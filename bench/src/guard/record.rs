//! The record: what each command took when somebody last looked, as a text that is read in reviews.
//!
//! ```text
//! processor avx2 erms
//! compiler rustc 1.90.0 (…)
//!
//! [mk run busybox true]
//! instructions 1400000
//! pages-of-code 90
//! system-calls 570
//!   close 98
//! ```

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::trace::Counts;

/// What is said of the record in its first lines.
const HEAD: &str = "\
# What mk's commands take. A change that makes one take over 10 % more must change this file, too:
#     cargo run --release -p mk-bench -- guard --bless
";

/// What one command took.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Taken {
    /// How many instructions it took in user space, in all of its processes.
    pub(super) instructions: u64,
    /// In how many pages of mk's code, of 4 KiB, those of mk are: what a run has to have in memory.
    pub(super) pages: u64,
    /// Its system calls by name.
    pub(super) calls: Counts,
}

impl Taken {
    /// Returns how many system calls it made.
    pub(super) fn total(&self) -> u64 {
        self.calls.values().sum()
    }
}

/// All commands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Record {
    /// What the number of instructions depends on besides mk: features by which libraries choose what they execute.
    pub(super) processor: String,
    /// So does this.
    pub(super) compiler: String,
    /// By the command as it is typed.
    pub(super) commands: BTreeMap<String, Taken>,
}

impl Record {
    /// Reads one; what is in the way is told with its line.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut record = Self::default();
        let mut command = None;
        for (at, line) in text.lines().enumerate() {
            let wrong = || format!("line {}: `{line}` is not what a record holds", at + 1);
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if let Some(name) = line.strip_prefix('[') {
                let name = name.strip_suffix(']').ok_or_else(wrong)?;
                command = Some(record.commands.entry(name.to_owned()).or_default());
                continue;
            }
            let (name, value) = line.trim_start().split_once(' ').ok_or_else(wrong)?;
            match (&mut command, name) {
                (None, "processor") => value.clone_into(&mut record.processor),
                (None, "compiler") => value.clone_into(&mut record.compiler),
                (Some(taken), "instructions") => taken.instructions = value.parse().map_err(|_| wrong())?,
                (Some(taken), "pages-of-code") => taken.pages = value.parse().map_err(|_| wrong())?,
                // It is the sum of what follows; written for people.
                (Some(_), "system-calls") => {}
                (Some(taken), name) => {
                    let count = value.parse().map_err(|_| wrong())?;
                    taken.calls.insert(name.to_owned(), count);
                }
                (None, _) => return Err(wrong()),
            }
        }
        Ok(record)
    }

    /// Returns it as [`parse`](Self::parse) reads it.
    pub(super) fn text(&self) -> String {
        let Self {
            processor, compiler, ..
        } = self;
        let mut text = format!("{HEAD}\nprocessor {processor}\ncompiler {compiler}\n");
        for (name, taken) in &self.commands {
            _ = write!(
                text,
                "\n[{name}]\ninstructions {}\npages-of-code {}\nsystem-calls {}\n",
                taken.instructions,
                taken.pages,
                taken.total()
            );
            for (call, count) in &taken.calls {
                _ = writeln!(text, "  {call} {count}");
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        let taken = Taken {
            instructions: 1000,
            pages: 7,
            calls: [("close".to_owned(), 3), ("openat2".to_owned(), 2)].into(),
        };
        Record {
            processor: "avx2 erms".into(),
            compiler: "rustc 1".into(),
            commands: [("mk --version".to_owned(), taken)].into(),
        }
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let text = record().text();
        assert!(
            text.contains(
                "\n[mk --version]\ninstructions 1000\npages-of-code 7\nsystem-calls 5\n  close 3\n"
            ),
            "{text}"
        );
        assert_eq!(Record::parse(&text), Ok(record()));
    }

    #[test]
    fn a_line_that_is_no_part_of_a_record_is_named() {
        for text in ["what is this", "\n[mk --version\n", "[mk]\nclose many"] {
            let error = Record::parse(text).unwrap_err();
            assert!(error.starts_with("line "), "{error}");
        }
    }
}
