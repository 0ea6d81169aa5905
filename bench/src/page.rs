//! What was measured → a page of documentation: the part of it between two marks, and beside it, in a folder of the page's
//! name, the same as JSON and as pictures.
//!
//! The page is made from the JSON files that there are. So a part that is measured again changes its own figures, and each
//! part says where and when it was measured.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::machine::Machine;
use crate::parts::Part;
use crate::table::{Budget, Table};
use crate::{Error, plot};

/// Between these everything is written by this program.
const BEGIN: &str = "<!-- measured: written by mk-bench --page; all up to the next mark is replaced -->\n";
const END: &str = "<!-- measured: end -->\n";

/// What a part came to.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Measured {
    /// The name of the part.
    pub(crate) part: String,
    /// Where.
    pub(crate) machine: Machine,
    /// The digest of the mk that was measured.
    pub(crate) mk: String,
    /// In the order in which they were made.
    pub(crate) tables: Vec<Table>,
}

/// How many runs of the bench before the last one are remembered.
const BEFORE: usize = 4;

/// Keeps what a part came to beside the page, with what it came to before, and writes the page anew.
pub(crate) fn keep(page: &Path, measured: &mut Measured) -> Result<(), Error> {
    let folder = page.with_extension("");
    fs_err::create_dir_all(&folder)?;
    let file = folder.join(&measured.part);
    if let Some(old) = read(&folder, &measured.part)?
        && old.mk == measured.mk
    {
        remember(&mut measured.tables, &old.tables);
    }
    let json = serde_json::to_string_pretty(measured)
        .map_err(|error| Error::Page(page.into(), error.to_string()))?;
    fs_err::write(file.with_extension("json"), json + "\n")?;
    if measured.tables.iter().any(Table::is_plotted) {
        fs_err::write(file.with_extension("svg"), plot::svg(&measured.tables))?;
    }
    write(page)
}

/// Reads what a part came to the last time.
fn read(folder: &Path, part: &str) -> Result<Option<Measured>, Error> {
    let file = folder.join(part).with_extension("json");
    if !file.exists() {
        return Ok(None);
    }
    let text = fs_err::read_to_string(&file)?;
    let measured = serde_json::from_str(&text);
    measured
        .map(Some)
        .map_err(|error| Error::Page(file, error.to_string()))
}

/// Has the rows with budgets remember what the same rows came to before.
fn remember(new: &mut [Table], old: &[Table]) {
    for table in new {
        let rows = old
            .iter()
            .filter(|old| old.title == table.title && old.unit == table.unit);
        let rows: Vec<_> = rows.flat_map(|old| &old.rows).collect();
        for row in &mut table.rows {
            if let Some(old) = rows.iter().find(|old| old.name == row.name) {
                row.before = old
                    .judged()
                    .into_iter()
                    .chain(old.before.iter().copied())
                    .take(BEFORE)
                    .collect();
            }
        }
    }
}

/// Writes the page from what is kept beside it.
fn write(page: &Path) -> Result<(), Error> {
    let folder = page.with_extension("");
    let mut all = Vec::new();
    for part in Part::ALL.into_iter().chain([Part::Profile]) {
        all.extend(read(&folder, &part.name())?);
    }
    let text = match fs_err::read_to_string(page) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => format!("{BEGIN}{END}"),
        other => other?,
    };
    let name = folder.file_name().map(PathBuf::from).unwrap_or_default();
    let text = replaced(&text, &section(&all, &name)).ok_or_else(|| {
        Error::Page(
            page.into(),
            "it has no line with the mark of what is measured".into(),
        )
    })?;
    fs_err::write(page, text)?;
    Ok(())
}

/// Returns `page` with `section` between the marks.
fn replaced(page: &str, section: &str) -> Option<String> {
    let (before, rest) = page.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n{section}\n{END}{after}"))
}

/// Returns all that was measured; the pictures are in `folder`.
fn section(all: &[Measured], folder: &Path) -> String {
    let parts = all.iter().map(|measured| {
        let Measured {
            part,
            machine,
            tables,
            ..
        } = measured;
        let mut text = format!("## {part}\n\n{machine}.\n\n");
        if tables.iter().any(Table::is_plotted) {
            let folder = folder.display();
            text += &format!(
                "![What others take, as a multiple of what mk takes: {part}]({folder}/{part}.svg)\n\n"
            );
        }
        let tables: Vec<String> = tables.iter().map(Table::markdown).collect();
        text + &tables.join("\n")
    });
    let parts: Vec<String> = std::iter::once(budgets(all)).chain(parts).collect();
    parts.join("\n")
}

/// Returns what is expected, and what is so.
fn budgets(all: &[Measured]) -> String {
    let mut text =
        "## Budgets\n\n| part | work | against | budget | measured | | in runs before |\n|---|---|---|---:|---:|---|---:|\n"
            .to_owned();
    for measured in all {
        for table in &measured.tables {
            for row in &table.rows {
                let (Some(budget), Some(met)) = (row.budget, row.is_met()) else {
                    continue;
                };
                let (work, against, most) = match budget {
                    Budget::Ratio(most) => (table.title.clone(), row.name.as_str(), most),
                    Budget::Most(most) => (format!("{}: {}", table.title, row.name), "–", most),
                };
                let shown = |value: f64| match budget {
                    Budget::Ratio(_) => format!("{value:.2} ×"),
                    Budget::Most(_) => table.unit.shown(value),
                };
                let value = row.judged().map_or_else(String::new, shown);
                let before: Vec<String> = row.before.iter().copied().map(shown).collect();
                let (most, before) = (shown(most), before.join(", "));
                let verdict = if met { "met" } else { "**not met**" };
                let part = &measured.part;
                text +=
                    &format!("| {part} | {work} | {against} | {most} | {value} | {verdict} | {before} |\n");
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(part: &str) -> Measured {
        Measured {
            part: part.into(),
            machine: Machine {
                kernel: "Linux 6".into(),
                processor: "some".into(),
                cores: 2,
                memory: 4.0,
                filesystem: "ext4".into(),
                date: "2026-01-02".into(),
            },
            mk: "d1".into(),
            tables: vec![crate::table::tests::table()],
        }
    }

    #[test]
    fn a_page_keeps_what_people_wrote_and_the_figures_of_other_parts() {
        let folder = tempfile::tempdir().unwrap();
        let page = folder.path().join("performance.md");
        fs_err::write(&page, format!("before\n{BEGIN}old\n{END}after\n")).unwrap();
        keep(&page, &mut measured("unpack")).unwrap();
        keep(&page, &mut measured("run")).unwrap();
        let text = fs_err::read_to_string(&page).unwrap();
        assert!(
            text.starts_with("before\n") && text.ends_with("after\n") && !text.contains("old\n"),
            "{text}"
        );
        let [run, unpack] = ["\n## run\n", "\n## unpack\n"].map(|title| text.find(title).unwrap());
        assert!(run < unpack, "{text}");
        assert!(
            text.contains("Linux 6, 2 cores (some), 4 GiB, ext4, 2026-01-02"),
            "{text}"
        );
        assert!(text.contains("(performance/run.svg)") && folder.path().join("performance/run.svg").exists());
    }

    #[test]
    fn what_is_not_met_is_among_the_budgets() {
        let text = budgets(&[measured("run")]);
        assert!(
            text.contains("| run | nothing | theirs | 0.50 × | 2.00 × | **not met** |  |\n"),
            "{text}"
        );
        assert!(
            text.contains("| run | nothing: ours | – | 10.00 ms | 2.00 ms | met |  |\n"),
            "{text}"
        );
    }

    #[test]
    fn runs_before_are_remembered_as_long_as_mk_is_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let page = folder.path().join("performance.md");
        fs_err::write(&page, format!("{BEGIN}{END}")).unwrap();
        let ours = |name: &str, times: &[f64]| {
            let mut measured = measured("run");
            measured.mk = name.into();
            measured.tables[0].rows[0].summary = crate::stats::Summary::of(times).unwrap();
            keep(&page, &mut measured).unwrap();
            fs_err::read_to_string(&page).unwrap()
        };
        ours("d1", &[0.001]);
        ours("d1", &[0.002]);
        let third = ours("d1", &[0.003]);
        assert!(
            third.contains("| 3.00 ms | met | 2.00 ms, 1.00 ms |\n"),
            "{third}"
        );
        assert!(
            third.contains("| 2.00 × | **not met** | 2.00 ×, 2.00 × |\n"),
            "{third}"
        );
        let another = ours("d2", &[0.004]);
        assert!(another.contains("| 4.00 ms | met |  |\n"), "{another}");
    }

    #[test]
    fn a_page_without_marks_is_not_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let page = folder.path().join("page.md");
        fs_err::write(&page, "mine\n").unwrap();
        assert!(matches!(keep(&page, &mut measured("run")), Err(Error::Page(..))));
        assert_eq!(fs_err::read_to_string(&page).unwrap(), "mine\n");
    }
}
