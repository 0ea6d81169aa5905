//! Recipe → image: the first of the two journeys. Each stage is called in order and hands its product to the next.

use std::collections::BTreeMap;
use std::path::Path;

use crate::digest::{Digest, Hasher};
use crate::entry::{Content, Kind};
use crate::fetch;
use crate::net;
use crate::path::TreePath;
use crate::plan::key::{self, Ingredients};
use crate::plan::lock::Lock;
use crate::plan::resolve::{self, Facts};
use crate::plan::{Origin, Pinned, Plan};
use crate::recipe::{Location, Recipe, Verb};
use crate::rootfs;
use crate::store::{self, Image, ImageId, StepRecord, Store};
use crate::tree::{Size, Tree};
use crate::unpack::Limits;
use crate::watch::{Event, Watch};

mod perform;
pub mod pin;
mod run;
mod sources;

use perform::{Perform, Performing};

/// What is to be built, and with what.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The recipe.
    pub recipe: &'a Recipe,
    /// The folder that the paths in it start from.
    pub folder: &'a Path,
    /// Its lock.
    pub lock: &'a Lock,
    /// The name that the image gets.
    pub name: &'a str,
    /// Debian's name of the architecture to build for.
    pub arch: &'a str,
    /// The latest time for files, where the recipe names none (seconds since 1970 UTC).
    pub epoch: Option<i64>,
    /// How to reach sources.
    pub fetch: &'a fetch::Settings,
    /// What an archive may ask for.
    pub limits: &'a Limits,
}

/// What a build gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Built {
    /// The image.
    pub image: ImageId,
    /// Its tree.
    pub tree: Digest,
    /// How much is in it.
    pub size: Size,
    /// How many steps the recipe has.
    pub steps: usize,
    /// How many of them the store knew the result of.
    pub cached: usize,
    /// Whether nothing at all had to be done.
    pub unchanged: bool,
}

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A source has no pin, or is not what it should be.
    #[error(transparent)]
    Plan(#[from] resolve::Error),
    /// A source cannot be had.
    #[error(transparent)]
    Fetch(#[from] fetch::Error),
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The lock would have to change, and must not.
    #[error("the lock does not hold {}", names.join(", "))]
    LockWouldChange {
        /// What is missing in it, or no longer wanted.
        names: Vec<String>,
    },
    /// A step cannot be done.
    #[error("step {index} (`{label}`) failed")]
    Step {
        /// Which one, from 1.
        index: usize,
        /// The step in words.
        label: String,
        /// Why.
        #[source]
        source: Box<perform::Error>,
    },
}

pub use perform::Error as StepError;
pub use run::Error as RunError;

/// Builds the image of a recipe whose every source has a pin (see [`pin::pin`]) and gives it its name.
///
/// The store is as it was before unless this succeeds, but for the results of steps that were done.
pub fn assemble(request: Request<'_>, store: &Store, watch: &dyn Watch) -> Result<Built, Error> {
    let plan = resolve::resolve(request.recipe, request.lock, &facts(&request)?)?;
    let build = Build::new(request, plan, store, watch);
    let _hold = store.hold(watch)?;
    if let Some(built) = build.finished()? {
        return Ok(built);
    }
    let _turn = store.lock_key(&build.name(), request.name, watch)?;
    // While this waited for its turn, another build of the same may have done it all.
    match build.finished()? {
        Some(built) => Ok(built),
        None => build.work(),
    }
}

/// Looks at what lies beside the recipe.
fn facts(request: &Request<'_>) -> Result<Facts, fetch::Error> {
    let mut facts = Facts {
        arch: request.arch.to_owned(),
        epoch: request.epoch,
        ..Facts::default()
    };
    for step in &request.recipe.steps {
        match &step.verb {
            Verb::Unpack { source, .. } => {
                if let Location::File(path) = &source.location {
                    let found = fetch::local::digest(&request.folder.join(path))?;
                    facts.archives.insert(path.clone(), found);
                }
            }
            Verb::Copy { from, .. } => {
                facts
                    .copies
                    .insert(from.clone(), copied(&request.folder.join(from))?);
            }
            _ => {}
        }
    }
    Ok(facts)
}

/// Returns the digest of a file or folder as a `copy` step takes it: names, kinds, contents and execute bits.
fn copied(path: &Path) -> Result<Digest, fetch::Error> {
    let mut hasher = Hasher::new();
    for entry in fetch::local::list(path)?.hashed()? {
        take_in(&mut hasher, &entry.path, entry.meta.mode, &entry.kind);
    }
    Ok(hasher.finish())
}

/// Adds one entry to the digest of what a `copy` step takes.
fn take_in(hasher: &mut Hasher, path: &TreePath, mode: u16, kind: &Kind<Content>) {
    hasher.field(path.as_bytes());
    hasher.field(&mode.to_le_bytes());
    match kind {
        Kind::File(content) => {
            hasher.field(b"file");
            hasher.field(content.digest.as_bytes());
        }
        Kind::Symlink(target) => {
            hasher.field(b"link");
            hasher.field(target);
        }
        Kind::Folder => hasher.field(b"folder"),
        _ => hasher.field(b"fifo"),
    }
}

/// A build under way.
struct Build<'a> {
    request: Request<'a>,
    plan: Plan,
    /// What each step is made of, whatever it starts from.
    ingredients: Vec<Ingredients>,
    store: &'a Store,
    watch: &'a dyn Watch,
}

/// What the store knows of a plan: the tree after each step, as far as it goes.
struct Known {
    epoch: i64,
    start: Digest,
    trees: Vec<Digest>,
}

impl Known {
    fn last(&self) -> Digest {
        self.trees.last().copied().unwrap_or(self.start)
    }
}

impl<'a> Build<'a> {
    fn new(request: Request<'a>, plan: Plan, store: &'a Store, watch: &'a dyn Watch) -> Self {
        let ingredients = plan
            .steps
            .iter()
            .map(|step| key::ingredients(step, request.arch))
            .collect();
        Self {
            request,
            plan,
            ingredients,
            store,
            watch,
        }
    }

    /// Returns what builds of the same thing have in common: the name of the lock that they wait for.
    fn name(&self) -> Digest {
        key::key(&self.ingredients.iter().flatten().cloned().collect())
    }

    fn archives(&self) -> impl Iterator<Item = (usize, &Pinned)> {
        let steps = self.plan.steps.iter().enumerate();
        steps.flat_map(|(index, step)| step.archives.iter().map(move |archive| (index, archive)))
    }

    /// Returns the latest time that a file may have: the plan's, else the newest among its archives; none where an
    /// archive has not been read yet. `times` are those of archives that the store does not know.
    fn epoch(&self, times: &BTreeMap<Digest, i64>) -> Result<Option<i64>, Error> {
        if self.plan.epoch.is_some() {
            return Ok(self.plan.epoch);
        }
        let mut newest = 0;
        for (_, archive) in self.archives() {
            let time = match times.get(&archive.sha256) {
                Some(time) => Some(*time),
                None => self.store.newest(&archive.sha256)?,
            };
            match time {
                Some(time) => newest = newest.max(time),
                None => return Ok(None),
            }
        }
        Ok(Some(newest))
    }

    /// Follows the steps through the store's memory from the first to the last that is known.
    fn known(&self, epoch: i64) -> Result<Known, Error> {
        let mut known = Known {
            epoch,
            start: Tree::new(epoch).digest(),
            trees: Vec::new(),
        };
        for ingredients in &self.ingredients {
            let key = key::key(&key::starting_from(ingredients.clone(), &known.last(), epoch));
            match self.store.step(&key)? {
                Some(record) => known.trees.push(record.tree),
                None => break,
            }
        }
        Ok(known)
    }

    /// Returns the image if the store has all of it, under its name.
    fn finished(&self) -> Result<Option<Built>, Error> {
        let Some(epoch) = self.epoch(&BTreeMap::new())? else {
            return Ok(None);
        };
        let known = self.known(epoch)?;
        let steps = self.plan.steps.len();
        if known.trees.len() < steps {
            return Ok(None);
        }
        let Some(id) = self.store.get_ref(self.request.name)? else {
            return Ok(None);
        };
        let image = match self.store.image(&id) {
            Err(store::Error::NoImage(_)) => return Ok(None),
            image => image?,
        };
        let same = image.tree == known.last() && image.conf == self.plan.conf && image.run == self.plan.run;
        if !same || !self.store.has_rootfs(&image.tree)? || !self.store.has_conf(&id)? {
            return Ok(None);
        }
        self.report_cached(steps);
        Ok(Some(Built {
            image: id,
            tree: image.tree,
            size: image.size,
            steps,
            cached: steps,
            unchanged: true,
        }))
    }

    fn report_cached(&self, steps: usize) {
        for (index, step) in self.plan.steps.iter().enumerate().take(steps) {
            self.watch.see(Event::StepFinished {
                index: index + 1,
                label: &step.label,
                cached: true,
            });
        }
    }

    fn work(&self) -> Result<Built, Error> {
        let mut performing =
            Performing::new(self.store, self.request.folder, self.request.limits, self.watch);
        let epoch = match self.epoch(performing.times())? {
            Some(epoch) => epoch,
            None => self.read_times(&mut performing)?,
        };
        let known = self.known(epoch)?;
        self.report_cached(known.trees.len());
        let to_do = self
            .archives()
            .filter(|(index, _)| *index >= known.trees.len())
            .map(|(_, archive)| archive);
        self.fetch(to_do)?;
        let (tree, cached) = self.perform(performing, &known)?;
        self.keep(tree, cached)
    }

    fn fetch<'p>(&self, archives: impl Iterator<Item = &'p Pinned>) -> Result<(), Error> {
        // What lies beside the recipe is read in its place.
        let remote = archives.filter(|archive| !matches!(archive.origin, Origin::At(Location::File(_))));
        sources::fetch_all(
            remote,
            self.request.folder,
            self.request.fetch,
            self.store,
            self.watch,
        )
    }

    /// Unpacks the archives whose times are not known yet, which is needed before the first step can have a key.
    fn read_times(&self, performing: &mut Performing<'_>) -> Result<i64, Error> {
        let mut unread = BTreeMap::new();
        for (index, archive) in self.archives() {
            if self.store.newest(&archive.sha256)?.is_none() {
                unread.entry(archive.sha256).or_insert((index, archive));
            }
        }
        self.fetch(unread.values().map(|(_, archive)| *archive))?;
        for (index, archive) in unread.into_values() {
            let step = &self.plan.steps[index];
            performing.begin(index, self.plan.steps.len(), &step.label);
            performing
                .unpack_early(index, archive, &step.select)
                .map_err(|error| self.failed(index, error))?;
        }
        Ok(self.epoch(performing.times())?.unwrap_or_default())
    }

    /// Performs the steps that the store does not know. The result of each is kept, also where a later one fails.
    /// Returns the tree, and how many steps were known.
    fn perform(&self, mut performing: Performing<'_>, known: &Known) -> Result<(Tree, usize), Error> {
        let mut tree = match known.trees.last() {
            Some(digest) => self.store.tree(digest)?,
            None => Tree::new(known.epoch),
        };
        let mut from = known.last();
        let mut cached = known.trees.len();
        for index in known.trees.len()..self.plan.steps.len() {
            let step = &self.plan.steps[index];
            let count = self.plan.steps.len();
            let ingredients = key::starting_from(self.ingredients[index].clone(), &from, known.epoch);
            // A step before may have been done in another way and have come to the same.
            if let Some(record) = self.store.step(&key::key(&ingredients))? {
                tree = self.store.tree(&record.tree)?;
                from = record.tree;
                cached += 1;
                self.watch.see(Event::StepFinished {
                    index: index + 1,
                    label: &step.label,
                    cached: true,
                });
                continue;
            }
            performing.begin(index, count, &step.label);
            let perform = Perform {
                index,
                step,
                epoch: known.epoch,
            };
            performing
                .perform(perform, &mut tree)
                .map_err(|error| self.failed(index, error))?;
            let record = StepRecord {
                tree: self.store.put_tree(&tree)?,
                from: Some(from),
                ingredients,
            };
            self.store.put_step(&key::key(&record.ingredients), &record)?;
            from = record.tree;
            self.watch.see(Event::StepFinished {
                index: index + 1,
                label: &step.label,
                cached: false,
            });
        }
        performing.remember(self.archives().map(|(_, archive)| archive))?;
        Ok((tree, cached))
    }

    fn failed(&self, index: usize, source: perform::Error) -> Error {
        Error::Step {
            index: index + 1,
            label: self.plan.steps[index].label.clone(),
            source: Box::new(source),
        }
    }

    /// Lays the tree out as a folder, writes the image and what its runs find in `/etc`, and names it, in this order.
    fn keep(&self, tree: Tree, cached: usize) -> Result<Built, Error> {
        let digest = self.store.put_tree(&tree)?;
        let image = Image::new(digest, &tree, self.plan.conf.clone(), self.plan.run.clone());
        rootfs::checkout::checkout(self.store, &digest, &tree, self.watch)?;
        let id = self.store.put_image(&image)?;
        let etc = TreePath::parse("etc")
            .ok()
            .and_then(|etc| tree.get(&etc))
            .filter(|node| node.is_folder());
        let hostname = net::host_name(&image.conf);
        let files = [
            ("hostname", net::hostname_text(hostname)),
            ("hosts", net::hosts_text(&image.conf, hostname)),
            ("resolv.conf", net::resolv_text(&image.conf)),
        ];
        let files = files.each_ref().map(|(name, text)| (*name, text.as_bytes()));
        self.store.put_conf(&id, etc.map(|node| &node.meta), &files)?;
        self.store.set_ref(self.request.name, &id)?;
        let steps = self.plan.steps.len();
        Ok(Built {
            image: id,
            tree: digest,
            size: image.size,
            steps,
            cached,
            unchanged: false,
        })
    }
}
