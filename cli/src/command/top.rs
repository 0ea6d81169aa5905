//! `mk top` and `mk stats`: what containers that are running use.

use std::time::Duration;

use mk_core::container::Found;
use mk_core::path::shown;
use mk_core::usage::{self, Process, Usage, processes};
use serde_json::{Value, json};

use super::{Context, containers};
use crate::args;
use crate::report::{Failing, Failure};
use crate::ui;

/// Prints the processes of a container.
pub(super) fn call(args: &args::Top, context: &Context) -> Result<u8, Failure> {
    let found = context.container(args.state.store.as_deref(), &args.name)?;
    let command = containers::command_of(&found)?;
    let processes = processes::of_container(command).map_err(|error| cannot_look(&found, error))?;
    let names = processes::Names::of(command);
    let user = |process: &Process| match process.uid {
        Some(uid) => names.of_user(uid).unwrap_or_else(|| uid.to_string()),
        None => "?".to_owned(),
    };
    if args.json {
        let list = processes.iter().map(|process| object(process, &user(process)));
        ui::data(ui::pretty(&Value::from(list.collect::<Vec<_>>())))?;
        return Ok(0);
    }
    let mut rows = vec![
        ["PID", "USER", "TIME", "RSS", "COMMAND"]
            .map(str::to_owned)
            .to_vec(),
    ];
    rows.extend(processes.iter().map(|process| {
        vec![
            process.pid.to_string(),
            user(process),
            time(process.cpu),
            ui::bytes(process.memory),
            arguments(process).join(" "),
        ]
    }));
    ui::data(ui::table(&rows).trim_end())?;
    Ok(0)
}

/// Returns processor time as `minutes:seconds`.
fn time(cpu: Duration) -> String {
    format!("{}:{:05.2}", cpu.as_secs() / 60, cpu.as_secs_f64() % 60.0)
}

/// What a process says that it is called with: harmless, whatever it says.
fn arguments(process: &Process) -> Vec<String> {
    let closed = process.command.strip_suffix(b"\0").unwrap_or(&process.command);
    closed.split(|&byte| byte == 0).map(shown).collect()
}

fn object(process: &Process, user: &str) -> Value {
    json!({
        "pid": process.pid,
        "host_pid": process.host_pid,
        "uid": process.uid,
        "user": user,
        "cpu_seconds": process.cpu.as_secs_f64(),
        "rss": process.memory,
        "command": arguments(process),
    })
}

/// How long processor time is measured.
const INTERVAL: Duration = Duration::from_millis(500);

/// Prints what containers use.
pub(super) fn stats(args: &args::Stats, context: &Context) -> Result<u8, Failure> {
    let mut seen = context.look(context.state(args.state.store.as_deref())?.as_ref())?;
    let found = match args.names.is_empty() {
        true => seen.containers.into_iter().filter(Found::is_alive).collect(),
        false => containers::pick(&mut seen, &args.names)?,
    };
    let before = found.iter().map(measure).collect::<Result<Vec<_>, _>>()?;
    if !found.is_empty() {
        std::thread::sleep(INTERVAL);
    }
    let mut rows = vec![
        ["NAME", "CPU", "MEMORY", "PROCESSES", "COUNTED"]
            .map(str::to_owned)
            .to_vec(),
    ];
    let mut list = Vec::new();
    for (found, before) in found.iter().zip(before) {
        // One that has ended meanwhile uses nothing.
        let Ok(now) = measure(found) else { continue };
        let busy = now.cpu.used.saturating_sub(before.cpu.used).as_secs_f64() / INTERVAL.as_secs_f64();
        list.push(usage_object(found, &now, busy));
        rows.push(vec![
            found.document.called().to_owned(),
            format!("{:.1}%", busy * 100.0),
            of_limit(now.memory.used, now.memory.limit, ui::bytes),
            of_limit(now.processes.used, now.processes.limit, |count| count.to_string()),
            counted(&now),
        ]);
    }
    match args.json {
        true => ui::data(ui::pretty(&Value::from(list)))?,
        false => ui::data(ui::table(&rows).trim_end())?,
    }
    Ok(0)
}

fn measure(found: &Found) -> Result<Usage, Failure> {
    let command = containers::command_of(found)?;
    usage::of_container(command, &found.document.folders()).map_err(|error| cannot_look(found, error))
}

fn of_limit(used: u64, limit: Option<u64>, show: impl Fn(u64) -> String) -> String {
    match limit {
        Some(limit) => format!("{} of {}", show(used), show(limit)),
        None => show(used),
    }
}

/// Says who counted: one word where it is the same for all.
fn counted(usage: &Usage) -> String {
    let sources = [usage.cpu.source, usage.memory.source, usage.processes.source].map(usage::Source::name);
    match sources.iter().all(|source| *source == sources[0]) {
        true => sources[0].to_owned(),
        false => sources.join(", "),
    }
}

fn usage_object(found: &Found, usage: &Usage, busy: f64) -> Value {
    json!({
        "id": found.document.id.as_str(),
        "name": found.document.name,
        "cpu_seconds": usage.cpu.used.as_secs_f64(),
        "cpu_percent": (busy * 1000.0).round() / 10.0,
        "cpu_counted": usage.cpu.source.name(),
        "memory": usage.memory.used,
        "memory_limit": usage.memory.limit,
        "memory_counted": usage.memory.source.name(),
        "processes": usage.processes.used,
        "processes_limit": usage.processes.limit,
        "processes_counted": usage.processes.source.name(),
    })
}

fn cannot_look(found: &Found, error: std::io::Error) -> Failure {
    let called = found.document.called();
    match error.kind() {
        std::io::ErrorKind::NotFound => mk_core::container::Error::Ended {
            called: called.to_owned(),
        }
        .into(),
        _ => Failing::new(format!("cannot look into container `{called}`"))
            .because(error)
            .into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_cannot_write_to_the_terminal() {
        let process = Process {
            pid: 1,
            host_pid: 1,
            uid: None,
            cpu: Duration::from_millis(61_250),
            memory: 0,
            command: b"sh\0-c\0\x1b[2J\n\0".to_vec(),
        };
        assert_eq!(arguments(&process), ["sh", "-c", "\\u{1b}[2J\\n"]);
        assert_eq!(time(process.cpu), "1:01.25");
    }
}
