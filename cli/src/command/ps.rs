//! `mk ps`: the containers, as a table, as JSON, or their ids.

use std::time::Duration;

use mk_core::container::document::NetworkDocument;
use mk_core::container::{Found, Life, Time};
use mk_core::path::shown;
use serde_json::{Value, json};

use super::Context;
use crate::args;
use crate::report::Failure;
use crate::ui;

/// Prints the containers that live; with `--all` those too that have ended.
pub(super) fn call(args: &args::Ps, context: &Context) -> Result<u8, Failure> {
    let mut containers = context
        .look(context.state(args.state.store.as_deref())?.as_ref())?
        .containers;
    containers.retain(|found| args.all || found.is_alive());
    if args.json {
        let list: Vec<Value> = containers.iter().map(object).collect();
        ui::data(ui::pretty(&Value::from(list)))?;
        return Ok(0);
    }
    if args.quiet {
        for found in &containers {
            ui::data(&found.document.id)?;
        }
        return Ok(0);
    }
    let now = Time::now();
    let mut rows = vec![
        ["NAME", "ID", "IMAGE", "STATE", "PORTS", "COMMAND"]
            .map(str::to_owned)
            .to_vec(),
    ];
    rows.extend(containers.iter().map(|found| {
        let document = &found.document;
        vec![
            document.name.clone().unwrap_or_else(|| "-".into()),
            document.id.to_string(),
            document.image.word.to_string(),
            state(found, now),
            ports(found),
            command(found),
        ]
    }));
    ui::data(ui::table(&rows).trim_end())?;
    Ok(0)
}

/// Returns the state of a container in words: `running 3 min`, `exited (1) 2 h ago`.
fn state(found: &Found, now: Time) -> String {
    match (found.life, found.document.started) {
        (Life::Alive, Some(started)) => format!("running {}", about(now.since(started.at))),
        (Life::Alive, None) => "starting".into(),
        (Life::Ended(exit), _) => {
            let why = if exit.oom_killed { ", out of memory" } else { "" };
            format!("exited ({}{why}) {} ago", exit.code, about(now.since(exit.at)))
        }
    }
}

/// Returns the ports of the host that lead to a container, as long as they do.
fn ports(found: &Found) -> String {
    let ports = &found.document.ports;
    match found.is_alive() && !ports.is_empty() {
        true => ports
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(", "),
        false => "-".into(),
    }
}

/// Returns about how long something took, in one unit.
fn about(time: Duration) -> String {
    match time.as_secs() {
        seconds @ ..60 => format!("{seconds} s"),
        seconds @ ..3600 => format!("{} min", seconds / 60),
        seconds @ ..86_400 => format!("{} h", seconds / 3600),
        seconds => format!("{} d", seconds / 86_400),
    }
}

/// The most of a command that a line of the table shows, in characters.
const WIDEST: usize = 40;

fn command(found: &Found) -> String {
    let arguments = &found.document.program.arguments;
    let words: Vec<String> = arguments
        .iter()
        .map(|word| ui::quoted(&shown(word.as_bytes())))
        .collect();
    let line = words.join(" ");
    match line.char_indices().nth(WIDEST) {
        Some(_) => line.chars().take(WIDEST - 1).chain(['…']).collect(),
        None => line,
    }
}

/// A container's network as JSON: its kind, and where it has some the name, and its addresses there.
fn network(network: &NetworkDocument) -> Value {
    json!({
        "kind": network.kind,
        "name": network.name,
        "addresses": network.addresses,
        "mac": network.mac,
        "names": network.names,
    })
}

/// A container as JSON. Bytes that are not UTF-8 are shown escaped: `container.json` has them as they are.
fn object(found: &Found) -> Value {
    let document = &found.document;
    let exit = match found.life {
        Life::Ended(exit) => Some(exit),
        Life::Alive => None,
    };
    let state = match (found.life, document.started) {
        (Life::Alive, Some(_)) => "running",
        (Life::Alive, None) => "starting",
        (Life::Ended(_), _) => "exited",
    };
    let pid = document
        .started
        .filter(|_| found.is_alive())
        .map(|started| started.command.pid);
    json!({
        "id": document.id.as_str(),
        "name": document.name,
        "image": document.image.word.to_string(),
        "digest": document.image.digest,
        "command": document.program.arguments.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "network": network(&document.network),
        "state": state,
        "detached": document.detached,
        "created": document.created.to_string(),
        "started": document.started.map(|started| started.at.to_string()),
        "pid": pid,
        "ports": document.ports,
        "ended": exit.map(|exit| exit.at.to_string()),
        "exit_code": exit.map(|exit| exit.code),
        "oom_killed": exit.map(|exit| exit.oom_killed),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_long_is_said_in_one_unit() {
        for (seconds, text) in [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (3599, "59 min"),
            (3600, "1 h"),
            (86_399, "23 h"),
            (10 * 86_400, "10 d"),
        ] {
            assert_eq!(about(Duration::from_secs(seconds)), text);
        }
    }
}
