//! `mk build` and `mk lock`: a recipe becomes an image, and its sources are pinned on the way.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

use mk_core::assemble::check::Fault;
use mk_core::assemble::pin::{self, Policy};
use mk_core::assemble::{self, Built, RunError, Shell, StepError};
use mk_core::compare::Side;
use mk_core::fetch;
use mk_core::plan::lock::Lock;
use mk_core::process;
use mk_core::recipe::mistake::{Mistake, Mistakes};
use mk_core::recipe::{self, Location, Recipe, Verb};
use mk_core::spec::streams::{Streams, Wanted};
use mk_core::store::image::check_name;
use mk_core::store::{ImageId, Lease, Store};
use mk_core::watch::{Event, Watch};
use serde_json::json;

use super::compare::Comparison;
use super::export::Draft;
use super::family::{Family, How};
use super::{Context, find};
use crate::args::{self, SourceArgs, TalkArgs};
use crate::hints;
use crate::progress::{Explained, Progress};
use crate::report::{Failing, Failure};
use crate::settings::{Flags, Settings};
use crate::ui;
use crate::value::Pair;

/// Builds what `mk build` names and prints its name and digest.
pub(super) fn call(args: &args::Build, context: &Context) -> Result<u8, Failure> {
    let began = Instant::now();
    let settings = context.settings(&Flags {
        durability: args.durability.durability,
        ..flags(&args.source, args.store.store.as_deref())
    })?;
    let found = find::Recipe::find(&args.recipe)?;
    let policy = match (args.locked, args.source.update) {
        (true, _) => Policy::Locked,
        (_, true) => Policy::Renew,
        _ => Policy::Complete,
    };
    let family = Family::read(found, &args.source, args.name.as_deref(), policy)?;
    let order = family.order();
    let how = How {
        explain: args.explain,
        secrets: secrets(&args.secrets)?,
        shell: shell(args.shell_on_failure, context)?,
        // What is checked is what the files hold, not what they are believed to.
        reread: args.check,
    };
    let store = context.store(&settings)?;
    let progress = Progress::new(context.ui, args.talk);
    let built = family.carry_out(&settings, &store, &progress, &how);
    let faults = match (args.check, &built) {
        (true, Ok(_)) => family.check(&settings, &store, &progress, &how),
        _ => Ok(Vec::new()),
    };
    let explained = progress.finish();
    if args.explain && (built.is_err() || !args.json) {
        explained.iter().for_each(|step| context.ui.say(step));
    }
    let built = built?;
    let faults = faults?;
    let checked = faults
        .iter()
        .map(|fault| Checked::new(fault, family.place(fault), &store))
        .collect::<Result<Vec<_>, Failure>>()?;
    if args.json {
        let mut result = json!({
            "name": order.name,
            "digest": built.image.to_string(),
            "tree": built.tree.to_string(),
            "files": built.size.files,
            "bytes": built.size.bytes,
            "steps": built.steps,
            "cached": built.cached,
            "unchanged": built.unchanged,
            "seconds": began.elapsed().as_secs_f64(),
        });
        if args.check {
            result["check"] = checked.iter().map(|fault| fault.json.clone()).collect();
        }
        if args.explain {
            result["explain"] = explained.iter().map(Explained::as_json).collect();
        }
        ui::data(ui::pretty(&result))?;
    } else {
        ui::data(format_args!("{} {}", order.name, built.image))?;
        summary(context, args.talk, &built, began);
        checked.iter().for_each(|fault| context.ui.say(&fault.text));
        if args.check && checked.is_empty() && !args.talk.quiet {
            context
                .ui
                .say("checked: done once more in other surroundings, every step gives the same tree");
        }
    }
    Ok(u8::from(!checked.is_empty()))
}

/// A step that is not reproducible, as it is told.
struct Checked {
    text: String,
    json: serde_json::Value,
}

impl Checked {
    fn new(fault: &Fault, place: &str, store: &Store) -> Result<Self, Failure> {
        let (was, now) = (
            Side::of_tree(store, &fault.was)?,
            Side::of_tree(store, &fault.now)?,
        );
        let found = Comparison::new(&was, &now, Some(store))?;
        let step = fault.index + 1;
        Ok(Self {
            text: format!(
                "step {step} of `{place}` ({}) is not reproducible: done once more, it gives another tree\n{}",
                fault.label,
                found.text().trim_end()
            ),
            json: json!({
                "recipe": place,
                "step": step,
                "label": fault.label,
                "was": fault.was.to_string(),
                "now": fault.now.to_string(),
                "differences": found.json(),
            }),
        })
    }
}

/// Returns the files that `--secret` names.
fn secrets(given: &[Pair]) -> Result<BTreeMap<String, PathBuf>, Failure> {
    let mut secrets = BTreeMap::new();
    for Pair { name, value } in given {
        // Now, and not when the step that wants it begins: by then much may have been done.
        let path = std::path::absolute(value)?;
        fs_err::File::open(&path)
            .map_err(|error| Failing::new(format!("the secret `{name}` cannot be read")).because(error))?;
        if secrets.insert(name.clone(), path).is_some() {
            return Err(Failing::new(format!("the secret `{name}` is given twice")).into());
        }
    }
    Ok(secrets)
}

/// Returns how a shell is opened where a command fails.
fn shell(wanted: bool, context: &Context) -> Result<Option<Shell>, Failure> {
    if !wanted {
        return Ok(None);
    }
    let callers = process::streams::look();
    if !callers.terminals[0] {
        let failing = Failing::new("a shell needs a terminal, and standard input is none");
        return Err(failing.hint("leave out `--shell-on-failure`").into());
    }
    Ok(Some(Shell {
        streams: Streams::decide(Wanted::default(), callers),
        term: context.environment.text("TERM").map(Into::into),
    }))
}

/// Says in one line what a build did.
fn summary(context: &Context, talk: TalkArgs, built: &Built, began: Instant) {
    if talk.quiet || talk.progress == args::ProgressMode::Json {
        return;
    }
    let size = format!(
        "{}, {}",
        ui::counted(built.size.files, "file"),
        ui::bytes(built.size.bytes)
    );
    let time = ui::duration(began.elapsed());
    let steps = ui::counted(built.steps as u64, "step");
    context.ui.say(match built.cached {
        _ if built.unchanged && built.steps == 1 => {
            format!("nothing to do: its step is cached ({size}, {time})")
        }
        _ if built.unchanged => format!("nothing to do: all {steps} are cached ({size}, {time})"),
        0 => format!("{size}, built in {time} ({steps})"),
        cached => format!("{size}, built in {time} ({cached} of {steps} cached)"),
    });
}

/// Builds the image of a recipe that `mk run` was given, and says little: what counts is the run. The image stays for as
/// long as the lease is held.
pub(super) fn on_the_way(
    found: &find::Recipe,
    settings: &Settings,
    store: &Store,
    context: &Context,
) -> Result<(ImageId, Lease), Failure> {
    let family = Family::read(found.clone(), &SourceArgs::default(), None, Policy::Complete)?;
    let progress = Progress::new(context.ui, TalkArgs::default());
    let (built, lease) = family.carry_out_leased(settings, store, &progress)?;
    Ok((built.image, lease))
}

/// Pins what `mk lock` names.
pub(super) fn lock(args: &args::Lock, context: &Context) -> Result<u8, Failure> {
    let settings = context.settings(&flags(&args.source, args.store.store.as_deref()))?;
    let found = find::Recipe::find(&args.recipe)?;
    let policy = match (args.check, args.source.update) {
        (true, _) => Policy::Locked,
        (_, true) => Policy::Renew,
        _ => Policy::Complete,
    };
    let order = Order::read(&found, &args.source, None, policy)?;
    let Some(path) = &order.lock_file else {
        let failing = Failing::new(format!(
            "`{}` is a recipe that mk ships, and so is its lock",
            found.place
        ));
        return Err(failing.hint("`mk lock` is for recipes of your own").into());
    };
    let store = context.store(&settings)?;
    let progress = Progress::new(context.ui, args.talk);
    let pinned = order.pin(&settings, &store, &progress)?;
    drop(progress);
    if !args.talk.quiet && pinned.changed == 0 {
        let pins = (pinned.lock.debs.len() + pinned.lock.urls.len()) as u64;
        context.ui.say(match pins {
            0 => format!("nothing to do: `{}` names nothing that needs a pin", found.place),
            _ => format!(
                "nothing to do: `{}` holds {}",
                path.display(),
                ui::counted(pins, "pin")
            ),
        });
    }
    Ok(0)
}

/// Returns what the flags that name sources say.
pub(super) fn flags<'a>(source: &'a SourceArgs, store: Option<&'a Path>) -> Flags<'a> {
    Flags {
        store,
        mirror: source.mirror.as_deref(),
        source_dirs: &source.source_dirs,
        ..Flags::default()
    }
}

/// A recipe that has been read, and what to do with it.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) recipe: Recipe,
    lock: Lock,
    pub(super) name: String,
    /// What the recipe is called in messages.
    pub(super) place: String,
    /// What finds it again.
    pub(super) origin: String,
    /// What it says.
    pub(super) text: String,
    pub(super) folder: PathBuf,
    lock_file: Option<PathBuf>,
    pub(super) policy: Policy,
    /// How its sources are to be had.
    pub(super) source: SourceArgs,
}

impl Order {
    pub(super) fn read(
        found: &find::Recipe,
        args: &SourceArgs,
        name: Option<&str>,
        policy: Policy,
    ) -> Result<Self, Failure> {
        let texts = found.read()?;
        let given: BTreeMap<String, String> = args
            .args
            .iter()
            .map(|pair| (pair.name.clone(), pair.value.clone()))
            .collect();
        let recipe = recipe::parse::parse(&texts.recipe, &given)
            .map_err(|mistakes| Failure::Drawn(mistakes.render(&found.place, &texts.recipe)))?;
        let lock = match &texts.lock {
            Some(text) => Lock::parse(text).map_err(|bad| bad_lock(texts.lock_file.as_deref(), bad))?,
            None => Lock::default(),
        };
        let name = name.or(recipe.name.as_deref()).unwrap_or(&found.name);
        check_name(name).map_err(|bad| {
            let (place, name) = (ui::quoted(&found.place), likely_name(name));
            Failing::new(bad.to_string()).hint(format!("name it, as in `mk build {place} --name {name}`"))
        })?;
        Ok(Self {
            name: name.to_owned(),
            recipe,
            lock,
            place: found.place.clone(),
            origin: found.origin(),
            text: texts.recipe,
            folder: texts.folder,
            lock_file: texts.lock_file,
            policy,
            source: args.clone(),
        })
    }

    /// Says of a command that failed where it stands in the recipe, and, where nobody has seen it, what it printed last.
    pub(super) fn not_built(&self, error: assemble::Error, unseen: bool) -> Failure {
        if let assemble::Error::Fetch(fetch::Error::Ignore { text, mistakes, .. }) = &error {
            let place = Path::new(&self.place).with_file_name(fetch::ignore::NAME);
            return Failure::Drawn(mistakes.render(&place.to_string_lossy(), text));
        }
        if let assemble::Error::Fetch(fetch::Error::Missing { path }) = &error
            && let Some(span) = self.names(path)
        {
            let hint = "what a recipe reads lies beside it: paths start from its folder".to_owned();
            let mistakes = Mistakes(vec![Mistake {
                span,
                what: error.to_string(),
                expected: None,
                hint: Some(hint),
            }]);
            return Failure::Drawn(mistakes.render(&self.place, &self.text));
        }
        let assemble::Error::Step { index, source, .. } = &error else {
            return error.into();
        };
        let StepError::Run(failed @ RunError::Command { last, full, .. }) = &**source else {
            return error.into();
        };
        let start = self.recipe.steps.get(index - 1).map_or(0, |step| step.span.start);
        let before = self.text.get(..start).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let mut why = failed.to_string();
        if unseen && !last.is_empty() {
            why.push_str("; the last that it printed:");
            last.iter().for_each(|line| why.push_str(&format!("\n  {line}")));
        }
        let mut hint = format!("the step begins in line {line} of `{}`", self.place);
        if *full {
            hint.push_str("; `mk gc` frees what no image needs");
        }
        Failing::new(error.to_string()).because(why).hint(hint).into()
    }

    /// Returns where the recipe names `path`, which lies beside it: the path itself, or, where an argument is put into that,
    /// the key that it stands behind.
    fn names(&self, path: &Path) -> Option<Range<usize>> {
        let is_it = |name: &&str| self.folder.join(name) == path;
        let (span, name, key) = self.recipe.steps.iter().find_map(|step| {
            let (name, key) = match &step.verb {
                Verb::Copy { from, .. } => (Some(from.as_str()).filter(is_it), "copy"),
                Verb::Unpack { source, .. } => match &source.location {
                    Location::File(file) => (Some(file.as_str()).filter(is_it), "unpack"),
                    Location::Url(_) => (None, ""),
                },
                Verb::Run(script) => (script.copies().find(is_it), "mounts"),
                _ => (None, ""),
            };
            Some((step.span.clone(), name?, key))
        })?;
        let text = self.text.get(span.clone())?;
        let quoted = ['"', '\''].map(|quote| format!("{quote}{name}{quote}"));
        let found = quoted
            .iter()
            .find_map(|quoted| Some((text.find(quoted.as_str())?, quoted.len())));
        let at_key = || {
            let before = text.find(&format!("\n{key}"))?;
            Some((before + 1, key.len()))
        };
        match found.or_else(at_key) {
            Some((at, length)) => Some(span.start + at..span.start + at + length),
            None => Some(span),
        }
    }

    /// Completes the lock and writes it where it changed.
    pub(super) fn pin(
        &self,
        settings: &Settings,
        store: &Store,
        watch: &dyn Watch,
    ) -> Result<pin::Pinned, Failure> {
        let fetch = self.fetch(settings);
        let pinned = pin::pin(&self.recipe, &self.lock, self.policy, &fetch, store, watch)
            .map_err(|error| self.not_pinned(error))?;
        if pinned.changed > 0 {
            match &self.lock_file {
                Some(path) => {
                    write_lock(path, &pinned.lock.to_text())?;
                    let path = path.display().to_string();
                    watch.see(Event::LockWritten {
                        path: &path,
                        changed: pinned.changed,
                    });
                }
                None => watch.see(Event::Note {
                    text: "new pins of a recipe that mk ships hold for this build only",
                }),
            }
        }
        Ok(pinned)
    }

    /// Says which lock would change, and how to let it.
    fn not_pinned(&self, error: assemble::Error) -> Failure {
        let (assemble::Error::LockWouldChange { names }, Some(lock)) = (&error, &self.lock_file) else {
            return match not_found(&error) {
                Some(hint) => Failing::new(error.to_string()).hint(hint).into(),
                None => error.into(),
            };
        };
        let what = format!(
            "`{}` would change: it has no pin for {}",
            lock.display(),
            names.join(", ")
        );
        let recipe = ui::quoted(&self.place);
        Failing::new(what)
            .hint(format!("`mk lock {recipe}` adds what is missing"))
            .into()
    }

    pub(super) fn fetch(&self, settings: &Settings) -> fetch::Settings {
        let mut fetch = fetch::Settings::new(SystemTime::now());
        fetch.source_dirs.clone_from(&settings.source_dirs);
        fetch.mirror.clone_from(&settings.mirror);
        fetch.insecure_index = self.source.insecure_index;
        fetch.proxies = fetch::Proxies {
            http: settings.proxies.http.clone(),
            https: settings.proxies.https.clone(),
            none: settings.proxies.none.clone(),
        };
        fetch
    }
}

/// Returns what to do about a URL without a pin that cannot be had.
fn not_found(error: &assemble::Error) -> Option<&'static str> {
    match error {
        assemble::Error::Fetch(fetch::Error::Status {
            status: 404 | 410, ..
        }) => Some("check the URL: nothing is there, and no pin says what was"),
        assemble::Error::Fetch(
            fetch::Error::Network { url, .. } | fetch::Error::Offline { place: url, .. },
        ) if !hints::is_index(url) => Some(
            "without a network: give the step its `sha256` first; then the file is found by that in a folder \
                 named with `--source-dir` or `MK_SOURCES`",
        ),
        _ => None,
    }
}

/// Returns what is left of `name` when it is made to fit.
fn likely_name(name: &str) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '_');
    let fitting: String = name
        .chars()
        .map(|letter| {
            if plain(letter) {
                letter.to_ascii_lowercase()
            } else {
                '-'
            }
        })
        .collect();
    let fitting = fitting.trim_matches(['-', '.', '_']);
    if check_name(fitting).is_ok() {
        fitting.to_owned()
    } else {
        "app".to_owned()
    }
}

fn bad_lock(path: Option<&Path>, bad: mk_core::plan::lock::BadLock) -> Failing {
    let place = path.map_or_else(|| "the lock".to_owned(), |path| format!("`{}`", path.display()));
    Failing::new(format!("cannot read {place}"))
        .because(bad)
        .hint("mk writes this file: take it from version control, or delete it and run `mk lock`")
}

/// Writes the lock file whole or not at all, with the mode that it had, through a symlink if it is one.
fn write_lock(path: &Path, text: &str) -> Result<(), Failure> {
    let path = fs_err::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    if fs_err::read_to_string(&path).is_ok_and(|there| there == text) {
        return Ok(());
    }
    let draft = Draft::beside(&path);
    let mut file = draft.create()?;
    if let Ok(there) = fs_err::metadata(&path) {
        fs_err::set_permissions(&draft.path, there.permissions())?;
    }
    std::io::Write::write_all(&mut file, text.as_bytes())?;
    file.sync_all()?;
    draft.publish()
}

/// Returns Debian's name of the architecture that this mk was made for.
pub(super) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
