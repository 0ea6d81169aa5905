//! `mk verify --repair`: what is damaged is made anew, of what the store has, of where it was fetched, or by another build of its
//! recipe; and it is told how.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use mk_core::assemble::pin::Policy;
use mk_core::assemble::repair::{Healed, heal};
use mk_core::digest::Digest;
use mk_core::store::verify::{Damage, Discarded, Verified, discard};
use mk_core::store::{ImageId, PastBuild, PastRecipe, Store};

use super::family::Family;
use super::{Context, find};
use crate::args::SourceArgs;
use crate::progress::Progress;
use crate::report::Failure;
use crate::settings::Settings;
use crate::ui;
use crate::value::Pair;

/// What became of a store.
#[derive(Debug)]
pub(super) struct Repaired {
    /// All that was damaged, each with what was done about it.
    pub(super) done: Vec<(Damage, String)>,
    /// How many images are gone: no name stood for them, so nobody builds them again.
    pub(super) gone: u64,
    /// What is damaged still.
    pub(super) left: Verified,
    /// What somebody must do, a sentence each.
    pub(super) advice: Vec<String>,
}

/// A repair under way.
struct Repair<'a> {
    store: &'a Store,
    settings: &'a Settings,
    watch: &'a Progress,
    /// The recipes that are known, the one that was built last first.
    known: Vec<(PastRecipe, PastBuild)>,
    /// The names that another build has made whole again, with the recipe.
    built: BTreeMap<String, String>,
    /// The archives that were fetched again.
    fetched: BTreeSet<Digest>,
    advice: Vec<String>,
}

/// Repairs what `first` has found.
pub(super) fn repair(
    store: &Store,
    first: Verified,
    settings: &Settings,
    context: &Context,
    look: impl Fn() -> Result<Verified, Failure>,
) -> Result<Repaired, Failure> {
    let watch = context.talk();
    let images = first.images;
    let healed = heal(store, &first, &watch)?;
    let second = look()?;
    let known = store.known_builds()?.into_iter();
    let known = known.filter_map(|past| Some((past.recipe.clone()?, past)));
    let mut repair = Repair {
        store,
        settings,
        watch: &watch,
        known: known.collect(),
        built: BTreeMap::new(),
        fetched: BTreeSet::new(),
        advice: Vec::new(),
    };
    let mut discarded = Discarded::default();
    let mut left = second.clone();
    if !second.damages.is_empty() {
        let images = repair.images_of(&second);
        discarded = discard(store, &second, &watch)?;
        repair.fetch_again(&second);
        repair.build_again(&second, &discarded, images);
        left = look()?;
    }
    let mut all: BTreeMap<PathBuf, Damage> = BTreeMap::new();
    for damage in first.damages.into_iter().chain(second.damages) {
        all.entry(damage.path.clone()).or_insert(damage);
    }
    let still: BTreeSet<PathBuf> = left.damages.iter().map(|damage| damage.path.clone()).collect();
    let done = all.into_values().map(|damage| {
        let text = match (
            discarded.in_use.contains(&damage.path),
            still.contains(&damage.path),
        ) {
            (true, _) => "left as it is, because a run uses it".to_owned(),
            (false, true) => "not made anew".to_owned(),
            (false, false) => repair.done(&damage, &healed),
        };
        (damage, text)
    });
    let done = done.collect();
    let mut advice = repair.advice;
    if !discarded.in_use.is_empty() {
        advice.push("when that run has ended, `mk verify --repair` does the rest".to_owned());
    }
    Ok(Repaired {
        done,
        gone: images.saturating_sub(left.images),
        left,
        advice,
    })
}

impl Repair<'_> {
    /// Returns which image each name stands for that a damage hurts, with its tree, as far as that is known.
    fn images_of(&self, verified: &Verified) -> BTreeMap<String, (Option<ImageId>, Option<Digest>)> {
        let names = verified.damages.iter().flat_map(|damage| &damage.names);
        let image = |name: &String| {
            let image = self.store.get_ref(name).ok().flatten();
            let document = image.and_then(|image| self.store.image(&image).ok());
            (name.clone(), (image, document.map(|document| document.tree)))
        };
        names.map(image).collect()
    }

    /// Fetches archives again that a recipe names. Where that fails, the next build that needs one does, or says why it cannot.
    fn fetch_again(&mut self, verified: &Verified) {
        let folder = self.store.path().join("sources");
        let damages = verified
            .damages
            .iter()
            .filter(|damage| damage.path.starts_with(&folder));
        let names = damages.filter_map(|damage| damage.path.file_name()?.to_str()?.parse().ok());
        let wanted: BTreeSet<Digest> = names.collect();
        for at in 0..self.known.len() {
            let missing: BTreeSet<Digest> = wanted.difference(&self.fetched).copied().collect();
            if missing.is_empty() {
                return;
            }
            let (recipe, past) = &self.known[at];
            let fetched = self
                .family(recipe, past)
                .and_then(|family| family.fetch_again(self.settings, self.store, self.watch, &missing));
            self.fetched.extend(fetched.unwrap_or_default());
        }
    }

    /// Builds the images again that are hurt, each by a recipe that gives the very same.
    fn build_again(
        &mut self,
        verified: &Verified,
        discarded: &Discarded,
        images: BTreeMap<String, (Option<ImageId>, Option<Digest>)>,
    ) {
        let mut whole: BTreeMap<ImageId, String> = BTreeMap::new();
        for (name, (image, tree)) in images {
            let mut damages = verified
                .damages
                .iter()
                .filter(|damage| damage.names.contains(&name));
            if damages.all(|damage| discarded.in_use.contains(&damage.path)) {
                continue;
            }
            if let Some(recipe) = image.and_then(|image| whole.get(&image)) {
                self.built.insert(name, recipe.clone());
                continue;
            }
            let fits = |(recipe, past): &&(PastRecipe, PastBuild)| {
                recipe.name == name || (tree.is_some() && past.steps.last().map(|step| step.tree) == tree)
            };
            let mut why = None;
            let mut built = None;
            for (recipe, past) in self.known.iter().filter(fits) {
                let again = self
                    .family(recipe, past)
                    .and_then(|family| family.carry_out_again(self.settings, self.store, self.watch, image));
                match again {
                    Ok(_) => {
                        built = Some(recipe.origin.clone());
                        break;
                    }
                    Err(failure) => {
                        why.get_or_insert((in_short(&failure), typed(recipe, past)));
                    }
                }
            }
            match (built, why) {
                (Some(recipe), _) => {
                    whole.extend(image.map(|image| (image, recipe.clone())));
                    self.built.insert(name, recipe);
                }
                (None, Some((why, typed))) => {
                    self.advice.push(format!("`{name}` is not whole: {why}; type `{typed}`"));
                }
                (None, None) => self.advice.push(format!(
                    "`{name}` is not whole, and nobody remembers its recipe; type `mk build RECIPE --name {name}`"
                )),
            }
        }
    }

    fn family(&self, recipe: &PastRecipe, past: &PastBuild) -> Result<Family, Failure> {
        let pair = |(name, value): &(String, String)| Pair {
            name: name.clone(),
            value: value.clone(),
        };
        let source = SourceArgs {
            args: past.args.iter().map(pair).collect(),
            ..SourceArgs::default()
        };
        // A repair writes nothing beside a recipe.
        Family::read(
            find::Recipe::of_origin(&recipe.origin)?,
            &source,
            Some(&recipe.name),
            Policy::Locked,
        )
    }

    /// Returns what was done about a damage that is no more.
    fn done(&self, damage: &Damage, healed: &BTreeMap<PathBuf, Healed>) -> String {
        let of_name = |path: &Path| path.file_name()?.to_str()?.parse::<Digest>().ok();
        match healed.get(&damage.path) {
            Some(Healed::File(file)) if *file == damage.path => {
                return "made anew of its own bytes".to_owned();
            }
            Some(Healed::File(file)) => return format!("made anew of `{}`", file.display()),
            Some(Healed::Archive(archive)) => return format!("made anew of the archive {archive}"),
            Some(Healed::LaidOut) => return "laid out anew".to_owned(),
            None => {}
        }
        if of_name(&damage.path).is_some_and(|source| self.fetched.contains(&source)) {
            return "fetched again".to_owned();
        }
        match damage.names.iter().find_map(|name| self.built.get(name)) {
            Some(recipe) => format!("built again by `{recipe}`"),
            None => "taken away".to_owned(),
        }
    }
}

/// Returns what to type for a build like the one that is remembered.
fn typed(recipe: &PastRecipe, past: &PastBuild) -> String {
    let mut typed = format!("mk build {}", ui::quoted(&recipe.origin));
    for (name, value) in &past.args {
        typed.push_str(&format!(" --arg {}", ui::quoted(&format!("{name}={value}"))));
    }
    if find::Recipe::of_origin(&recipe.origin).map_or(true, |found| found.name != recipe.name) {
        typed.push_str(&format!(" --name {}", recipe.name));
    }
    typed
}

/// Returns a failure in one line.
fn in_short(failure: &Failure) -> String {
    let error = match failure {
        Failure::Error(error) | Failure::Coded(_, error) => error,
        Failure::Drawn(drawing) => {
            let first = drawing.lines().next().unwrap_or_default();
            return first.trim_start_matches("error: ").to_owned();
        }
        Failure::Several(errors) if !errors.is_empty() => &errors[0],
        _ => return "it cannot be built".to_owned(),
    };
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.ends_with(&more) {
            text.push_str(&format!(": {more}"));
        }
        cause = error.source();
    }
    text.lines().collect::<Vec<_>>().join(" ")
}
