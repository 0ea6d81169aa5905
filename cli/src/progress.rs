//! Draws [`Event`]s on stderr: bars on a terminal (late, and at most 30 times a second), else lines, or JSON lines.

use std::collections::BTreeMap;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use mk_core::watch::{Event, Watch};
use serde_json::{Value, json};

use crate::args::{ProgressMode, TalkArgs};
use crate::report::harmless;
use crate::ui::{self, Tone, Ui};

/// Work that is over before this shows no bars at all.
const LATE: Duration = Duration::from_millis(200);
/// Bars are drawn no more often than this, a second.
const PER_SECOND: u8 = 30;

/// Draws events as `--progress` and `-q` say, until it is dropped.
#[derive(Debug)]
pub(crate) struct Progress {
    ui: Ui,
    style: Style,
    state: Mutex<State>,
}

#[derive(Debug)]
enum Style {
    Nothing,
    Lines,
    Json,
    Bars(Bars),
}

/// The bars, and the thread that shows them once work has gone on for a while.
#[derive(Debug)]
struct Bars {
    all: MultiProgress,
    curtain: Option<(Sender<()>, JoinHandle<()>)>,
}

/// What is known of work that is under way.
#[derive(Debug, Default)]
struct State {
    /// The recipes with a step under way or behind them; the one that everything is for has no name here.
    recipes: BTreeMap<String, Stepping>,
    fetches: BTreeMap<String, Running>,
    explained: Vec<Explained>,
}

/// Why a step was done or not.
#[derive(Debug)]
pub(crate) struct Explained {
    /// The recipe; empty for the one that everything is for.
    recipe: String,
    index: usize,
    label: String,
    cached: bool,
    reasons: Vec<String>,
    same: bool,
}

impl Explained {
    pub(crate) fn as_json(&self) -> Value {
        let mut step = json!({
            "step": self.index,
            "label": self.label,
            "cached": self.cached,
            "reasons": self.reasons,
            "same": self.same,
        });
        if !self.recipe.is_empty() {
            step["recipe"] = json!(self.recipe);
        }
        step
    }
}

impl std::fmt::Display for Explained {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "step {}", self.index)?;
        if !self.recipe.is_empty() {
            write!(f, " of {}", self.recipe)?;
        }
        write!(f, " ({}): ", harmless(&self.label))?;
        if self.cached {
            return f.write_str("cached");
        }
        write!(f, "done, because {}", harmless(&self.reasons.join(", and ")))?;
        match self.same {
            true => f.write_str("; it gave the same tree as the last time"),
            false => Ok(()),
        }
    }
}

/// The steps of one recipe.
#[derive(Debug, Default)]
struct Stepping {
    /// How many there are.
    count: usize,
    /// The one that is under way.
    now: Option<Running>,
}

#[derive(Debug)]
struct Running {
    since: Instant,
    bar: Option<ProgressBar>,
    files: u64,
    bytes: u64,
}

impl Progress {
    /// Chooses how to draw.
    pub(crate) fn new(ui: Ui, talk: TalkArgs) -> Self {
        let style = match talk.progress {
            ProgressMode::Json => Style::Json,
            _ if talk.quiet => Style::Nothing,
            ProgressMode::None => Style::Nothing,
            ProgressMode::Auto if ui.terminal => Style::Bars(Bars::behind_a_curtain()),
            ProgressMode::Auto | ProgressMode::Plain => Style::Lines,
        };
        Self {
            ui,
            style,
            state: Mutex::default(),
        }
    }

    /// Whether nobody is told of what goes on.
    pub(crate) fn is_silent(&self) -> bool {
        matches!(self.style, Style::Nothing)
    }

    /// Takes everything off the screen, and returns what was said of why steps were done.
    pub(crate) fn finish(self) -> Vec<Explained> {
        let mut explained = std::mem::take(&mut self.state().explained);
        // Recipes are built side by side; here each is told by itself, and the one that everything is for comes last.
        explained.sort_by(|one, other| {
            let key = |step: &Explained| (step.recipe.is_empty(), step.recipe.clone(), step.index);
            key(one).cmp(&key(other))
        });
        explained
    }

    /// Writes a line that stays, above the bars where there are any.
    fn line(&self, line: impl std::fmt::Display) {
        match &self.style {
            Style::Bars(bars) => bars.all.suspend(|| self.ui.say(line)),
            Style::Lines => self.ui.say(line),
            Style::Nothing | Style::Json => {}
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn running(&self, size: Option<u64>, message: String) -> Running {
        let bar = match &self.style {
            Style::Bars(bars) => Some(bars.add(size, message)),
            _ => None,
        };
        Running {
            since: Instant::now(),
            bar,
            files: 0,
            bytes: 0,
        }
    }

    fn fetch(&self, event: &Event<'_>) {
        let mut state = self.state();
        match *event {
            Event::FetchStarted { name, from, size } => {
                let size_text = size
                    .map(|size| format!(", {}", ui::bytes(size)))
                    .unwrap_or_default();
                if matches!(self.style, Style::Lines) {
                    self.line(format_args!("fetch {name} from {from}{size_text}"));
                }
                state
                    .fetches
                    .insert(name.to_owned(), self.running(size, format!("fetch {name}")));
            }
            Event::Fetched { name, done } => {
                if let Some(bar) = state.fetches.get(name).and_then(|fetch| fetch.bar.as_ref()) {
                    bar.set_position(done);
                }
            }
            Event::FetchRetried { name, why, wait_ms } => {
                let wait = ui::duration(Duration::from_millis(wait_ms));
                self.line(format_args!("fetch {name}: {why}; trying again in {wait}"));
            }
            Event::FetchFinished { name, size } => {
                if let Some(fetch) = state.fetches.remove(name) {
                    let time = fetch.finish();
                    if matches!(self.style, Style::Bars(_)) {
                        self.line(format_args!(
                            "fetched {name} ({}, {})",
                            ui::bytes(size),
                            ui::duration(time)
                        ));
                    }
                }
            }
            _ => {}
        }
    }

    /// Draws what happens to the steps of `recipe`.
    fn step(&self, recipe: &str, event: &Event<'_>) {
        let mut state = self.state();
        let stepping = state.recipes.entry(recipe.to_owned()).or_default();
        let before = match recipe {
            "" => String::new(),
            _ => format!("{recipe} "),
        };
        match *event {
            Event::StepStarted { index, count, label } => {
                stepping.count = count;
                stepping.now = Some(self.running(None, format!("{before}[{index}/{count}] {label}")));
                if matches!(self.style, Style::Lines) {
                    self.line(format_args!("{before}[{index}/{count}] {label}"));
                }
            }
            Event::StepProgress { files, bytes, .. } => {
                if let Some(step) = &mut stepping.now {
                    (step.files, step.bytes) = (files, bytes);
                    if let Some(bar) = &step.bar {
                        bar.set_prefix(format!("{}, {}", ui::counted(files, "file"), ui::bytes(bytes)));
                    }
                }
            }
            Event::StepPrinted { index, line } => {
                let line = harmless(line);
                self.line(format_args!("{before}[{index}/{}] {line}", stepping.count));
            }
            Event::StepFinished { index, label, cached } => {
                let Some(step) = stepping.now.take() else {
                    return;
                };
                let (files, bytes) = (step.files, step.bytes);
                let time = step.finish();
                if matches!(self.style, Style::Bars(_)) && !cached {
                    let amount = match files {
                        0 => String::new(),
                        _ => format!("{}, {}, ", ui::counted(files, "file"), ui::bytes(bytes)),
                    };
                    let rest = self
                        .ui
                        .paint(Tone::Faint, format_args!("({amount}{})", ui::duration(time)));
                    self.line(format_args!(
                        "{before}[{index}/{}] {label} {rest}",
                        stepping.count
                    ));
                }
            }
            Event::Checkout { files } => {
                let message = format!("{before}laying out {}", ui::counted(files, "file"));
                if let Some(step) = stepping.now.replace(self.running(None, message)) {
                    step.finish();
                }
            }
            _ => {}
        }
    }

    /// Draws what happens to `recipe`.
    fn draw(&self, recipe: &str, event: &Event<'_>) {
        match event {
            Event::FetchStarted { .. }
            | Event::Fetched { .. }
            | Event::FetchRetried { .. }
            | Event::FetchFinished { .. } => self.fetch(event),
            Event::StepStarted { .. }
            | Event::StepProgress { .. }
            | Event::StepPrinted { .. }
            | Event::StepFinished { .. }
            | Event::Checkout { .. } => self.step(recipe, event),
            Event::StepExplained {
                index,
                label,
                cached,
                reasons,
                same,
            } => self.state().explained.push(Explained {
                recipe: recipe.to_owned(),
                index: *index,
                label: (*label).to_owned(),
                cached: *cached,
                reasons: reasons.to_vec(),
                same: *same,
            }),
            Event::Waiting { on } => self.line(format_args!("waiting for {on}")),
            Event::LockWritten { path, changed } => {
                self.line(format_args!(
                    "wrote {path}: {}",
                    ui::counted(*changed as u64, "new or changed pin")
                ));
            }
            Event::In { recipe, event } => self.draw(recipe, event),
            Event::HandedOver { text } => {
                self.clear();
                self.line(text);
            }
            Event::Note { text } => self.line(format_args!("{} {text}", self.ui.paint(Tone::Note, "note:"))),
        }
    }
}

impl Watch for Progress {
    fn see(&self, event: Event<'_>) {
        if let Style::Json = self.style {
            self.ui.say(as_json(&event));
            if !matches!(explained(&event), Event::StepExplained { .. }) {
                return;
            }
        }
        self.draw("", &event);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}

impl Progress {
    /// Takes all bars off the screen.
    fn clear(&self) {
        let mut state = self.state();
        let steps = std::mem::take(&mut state.recipes).into_values();
        let running = std::mem::take(&mut state.fetches)
            .into_values()
            .chain(steps.filter_map(|stepping| stepping.now));
        running.for_each(|running| {
            running.finish();
        });
    }
}

impl Running {
    /// Takes its bar off the screen and returns how long it took.
    fn finish(self) -> Duration {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
        self.since.elapsed()
    }
}

impl Bars {
    fn behind_a_curtain() -> Self {
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::hidden());
        let (close, closed) = channel();
        let stage = all.clone();
        let waiting = thread::Builder::new().name("curtain".into()).spawn(move || {
            if closed
                .recv_timeout(LATE)
                .is_err_and(|error| error == std::sync::mpsc::RecvTimeoutError::Timeout)
            {
                stage.set_draw_target(ProgressDrawTarget::stderr_with_hz(PER_SECOND));
            }
        });
        // Without a thread to raise the curtain there are no bars; the lines that stay are written all the same.
        Self {
            all,
            curtain: waiting.ok().map(|thread| (close, thread)),
        }
    }

    fn add(&self, size: Option<u64>, message: String) -> ProgressBar {
        let (bar, template) = match size {
            Some(size) => (
                ProgressBar::new(size),
                "{spinner} {wide_msg} [{bar:20}] {decimal_bytes}/{decimal_total_bytes}",
            ),
            None => (ProgressBar::new_spinner(), "{spinner} {wide_msg} {prefix}"),
        };
        let bar = self.all.add(bar);
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> ").tick_chars("|/-\\ "));
        }
        bar.set_message(message);
        bar.enable_steady_tick(Duration::from_millis(120));
        bar
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        if let Some((close, thread)) = self.curtain.take() {
            drop(close);
            let _ = thread.join();
        }
        let _ = self.all.clear();
    }
}

/// Returns what happened, in whatever recipe.
fn explained<'e>(event: &'e Event<'e>) -> &'e Event<'e> {
    match event {
        Event::In { event, .. } => explained(event),
        event => event,
    }
}

/// Returns an event as one line of JSON, for programs that show a build.
fn as_json(event: &Event<'_>) -> Value {
    match *event {
        Event::FetchStarted { name, from, size } => {
            json!({"event": "fetch-started", "name": name, "from": from, "size": size})
        }
        Event::Fetched { name, done } => json!({"event": "fetched", "name": name, "done": done}),
        Event::FetchRetried { name, why, wait_ms } => {
            json!({"event": "fetch-retried", "name": name, "why": why, "wait_ms": wait_ms})
        }
        Event::FetchFinished { name, size } => json!({"event": "fetch-finished", "name": name, "size": size}),
        Event::StepStarted { index, count, label } => {
            json!({"event": "step-started", "index": index, "count": count, "label": label})
        }
        Event::StepProgress { index, files, bytes } => {
            json!({"event": "step-progress", "index": index, "files": files, "bytes": bytes})
        }
        Event::StepPrinted { index, line } => json!({"event": "step-printed", "index": index, "line": line}),
        Event::StepFinished { index, label, cached } => {
            json!({"event": "step-finished", "index": index, "label": label, "cached": cached})
        }
        Event::StepExplained {
            index,
            label,
            cached,
            reasons,
            same,
        } => json!({
            "event": "step-explained", "index": index, "label": label, "cached": cached, "reasons": reasons, "same": same,
        }),
        Event::Checkout { files } => json!({"event": "checkout", "files": files}),
        Event::Waiting { on } => json!({"event": "waiting", "on": on}),
        Event::LockWritten { path, changed } => {
            json!({"event": "lock-written", "path": path, "changed": changed})
        }
        Event::In { recipe, event } => {
            let mut line = as_json(event);
            line["recipe"] = json!(recipe);
            line
        }
        Event::HandedOver { text } => json!({"event": "handed-over", "text": text}),
        Event::Note { text } => json!({"event": "note", "text": text}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Environment;

    #[test]
    fn every_way_to_draw_survives_events_in_any_order() {
        let events = [
            Event::Fetched { name: "b", done: 5 },
            Event::StepFinished {
                index: 1,
                label: "a",
                cached: false,
            },
            Event::FetchStarted {
                name: "a",
                from: "x",
                size: Some(0),
            },
            Event::Fetched { name: "a", done: 5 },
            Event::FetchStarted {
                name: "a",
                from: "x",
                size: None,
            },
            Event::StepStarted {
                index: 1,
                count: 1,
                label: "a",
            },
            Event::StepProgress {
                index: 1,
                files: 1,
                bytes: 1,
            },
            Event::Checkout { files: 1 },
            Event::StepFinished {
                index: 1,
                label: "a",
                cached: true,
            },
            Event::FetchFinished { name: "a", size: 1 },
        ];
        let ui = Ui::new(&Environment::default());
        let hidden = Style::Bars(Bars::behind_a_curtain());
        for style in [Style::Nothing, hidden] {
            let progress = Progress {
                ui,
                style,
                state: Mutex::default(),
            };
            events.iter().for_each(|event| progress.see(event.clone()));
            events.iter().rev().for_each(|event| progress.see(event.clone()));
        }
    }

    #[test]
    fn an_event_is_one_line_of_json_with_its_name_first() {
        let line = as_json(&Event::Note { text: "a\nb" }).to_string();
        assert_eq!(line, r#"{"event":"note","text":"a\nb"}"#);
    }
}
