//! `mk doctor`: what works here and what does not, and what to do about it.

use std::path::{Path, PathBuf};

use mk_core::doctor::{self, Facts, Finding, Matter, Verdict};
use serde_json::{Value, json};

use super::Context;
use crate::args;
use crate::remedy::{self, Place, Words};
use crate::report::{FAILED, Failure};
use crate::settings::Flags;
use crate::ui;

/// Prints a line for each thing that was looked at; 1 where `mk run` cannot work.
pub(super) fn call(args: &args::Doctor, context: &Context) -> Result<u8, Failure> {
    let flags = Flags {
        store: args.store.store.as_deref(),
        ..Flags::default()
    };
    let programs = context.environment.text("PATH").unwrap_or_default();
    let facts = Facts::look(&context.settings(&flags)?.store, programs.as_ref())?;
    let findings = doctor::examine(&facts);
    let told = in_words(&findings);
    let runs = doctor::runs(&findings);
    if args.json {
        ui::data(ui::pretty(&as_json(&told, runs)))?;
    } else {
        ui::data(as_text(&told, runs).trim_end())?;
    }
    Ok(if runs { 0 } else { FAILED })
}

fn in_words(findings: &[Finding]) -> Vec<(&Finding, Words)> {
    let mk = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("/usr/local/bin/mk"));
    let os_release = fs_err::read_to_string("/etc/os-release").unwrap_or_default();
    let contained = findings
        .iter()
        .any(|finding| matches!(finding.matter, Matter::Container { kind: Some(_), .. }));
    let place = Place {
        mk: Path::new(&mk),
        os_release: &os_release,
        contained,
    };
    findings
        .iter()
        .map(|finding| (finding, remedy::words(&finding.matter, &place)))
        .collect()
}

fn label(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Works => "ok",
        Verdict::Differs => "works differently",
        Verdict::Impossible => "not possible",
        Verdict::Stops => "prevents mk run",
    }
}

fn as_json(told: &[(&Finding, Words)], runs: bool) -> Value {
    let findings = told.iter().map(|(finding, words)| {
        let works = finding.verdict == Verdict::Works;
        json!({
            "matter": finding.matter.name(),
            "verdict": label(finding.verdict),
            "found": words.found,
            "instead": words.instead.as_deref().filter(|_| !works),
            "enable": if works { &[] } else { &words.enable[..] },
        })
    });
    json!({ "runs": runs, "findings": findings.collect::<Vec<_>>() })
}

/// A line for each finding, and below those that are not `ok` what mk does instead and what would enable it.
fn as_text(told: &[(&Finding, Words)], runs: bool) -> String {
    let width = told
        .iter()
        .map(|(finding, _)| finding.matter.name().len())
        .max()
        .unwrap_or(0);
    let mut text = String::new();
    for (finding, words) in told {
        let (verdict, name) = (label(finding.verdict), finding.matter.name());
        text.push_str(&format!("{verdict:<17}  {name:<width$}  {}\n", words.found));
        if finding.verdict == Verdict::Works {
            continue;
        }
        let indent = " ".repeat(17 + 2 + width + 2);
        let lines = words.instead.iter().map(|line| format!("instead: {line}"));
        let commands = words.enable.iter().map(|line| format!("enable:  {line}"));
        lines
            .chain(commands)
            .for_each(|line| text.push_str(&format!("{indent}{line}\n")));
    }
    text.push_str(match runs {
        true => "\n`mk run` works here.\n",
        false => "\n`mk run` does not work here: see what prevents it.\n",
    });
    text
}
