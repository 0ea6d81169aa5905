//! Recipe → image: the first of the two journeys. Each stage is called in order and hands its product to the next.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::digest::{Digest, Hasher};
use crate::fetch;
use crate::meta::Meta;
use crate::net;
use crate::path::TreePath;
use crate::plan::key::{self, Ingredients};
use crate::plan::lock::Lock;
use crate::plan::resolve::{self, Facts};
use crate::plan::{Origin, Pinned, Plan};
use crate::recipe::{Base, Location, Recipe, Verb};
use crate::rootfs;
use crate::spec::streams::Streams;
use crate::store::{self, Image, ImageId, PastBuild, PastRecipe, PastStep, StepRecord, Store};
use crate::tree::{Size, Tree};
use crate::unpack::Limits;
use crate::watch::{Event, Watch};

mod base;
mod beside;
pub mod check;
mod explain;
mod filing;
pub mod forecast;
mod grant;
pub mod graph;
mod perform;
pub mod pin;
pub mod repair;
mod run;
mod sources;

use base::Parent;
use beside::Folder;
use explain::Reason;
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
    /// Where the recipe is, for `mk verify --repair`: whoever builds finds it again by this.
    pub origin: &'a str,
    /// The name that the image gets, and what the recipe is called in words.
    pub name: &'a str,
    /// Debian's name of the architecture to build for.
    pub arch: &'a str,
    /// The latest time for files, where the recipe names none (seconds since 1970 UTC).
    pub epoch: Option<i64>,
    /// How to reach sources.
    pub fetch: &'a fetch::Settings,
    /// What an archive may ask for.
    pub limits: &'a Limits,
    /// Whether to say why each step is done ([`Event::StepExplained`]).
    pub explain: bool,
    /// Files that steps may read and that stay out of the image, by the name that steps know them by.
    pub secrets: &'a BTreeMap<String, PathBuf>,
    /// Whether files beside the recipe are read also where nothing says that they have changed since they were last read.
    pub reread: bool,
    /// How a shell is opened where the command of a `run` step has failed; `None`: none is.
    pub shell: Option<&'a Shell>,
}

/// A shell for the caller.
#[derive(Debug, Clone, Default)]
pub struct Shell {
    /// Its standard input, output and error.
    pub streams: Streams,
    /// What the caller's terminal is (`TERM`).
    pub term: Option<OsString>,
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
    /// How many steps the recipe has, and those that it takes something from.
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
    /// The recipe does not give the image that it was to give once more.
    #[error("the recipe gives another image now, {now}")]
    OtherImage {
        /// What it gives.
        now: ImageId,
    },
    /// A base was not built before.
    #[error("mk bug: `{base}` was not built before what takes something from it")]
    NoBase {
        /// As the recipe names it.
        base: String,
    },
    /// The tree that the recipe starts from cannot be made to fit its epoch.
    #[error("the tree that the recipe starts from does not fit")]
    Start(#[source] Box<perform::Error>),
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

/// The tree of each base of a recipe.
pub(crate) type Bases = BTreeMap<Base, Digest>;

/// What a build finds besides its recipe.
struct Facing<'a> {
    bases: &'a Bases,
    /// Why the bases are impure, as far as they are.
    impure: Vec<String>,
    store: &'a Store,
    watch: &'a dyn Watch,
}

/// Looks at what lies beside the recipe.
fn facts(request: &Request<'_>, store: &Store, watch: &dyn Watch) -> Result<Facts, fetch::Error> {
    let mut facts = Facts {
        arch: request.arch.to_owned(),
        epoch: request.epoch,
        ..Facts::default()
    };
    let folder = Folder::new(request, store);
    // A folder that several steps take is walked once, however they write it.
    let mut walked: BTreeMap<PathBuf, Digest> = BTreeMap::new();
    let mut copy = |path: &str| -> Result<(), fetch::Error> {
        let place: PathBuf = folder.join(path).components().collect();
        let digest = match walked.get(&place) {
            Some(digest) => *digest,
            None => folder.copied(path, watch)?,
        };
        walked.insert(place, digest);
        facts.copies.insert(path.to_owned(), digest);
        Ok(())
    };
    for step in &request.recipe.steps {
        match &step.verb {
            Verb::Unpack { source, .. } => {
                if let Location::File(path) = &source.location
                    && !facts.archives.contains_key(path)
                {
                    facts.archives.insert(path.clone(), folder.archive(path)?);
                }
            }
            Verb::Copy { from, .. } => copy(from)?,
            Verb::Run(script) => script.copies().try_for_each(&mut copy)?,
            _ => {}
        }
    }
    Ok(facts)
}

/// Fetches the archives that the build of a recipe is sure to need: those which nobody has ever unpacked here.
fn prefetch(request: &Request<'_>, facts: &Facts, store: &Store, watch: &dyn Watch) -> Result<(), Error> {
    let mut unread = Vec::new();
    for archive in resolve::archives(request.recipe, request.lock, facts)? {
        if !is_beside(&archive) && store.newest(&archive.sha256)?.is_none() {
            unread.push(archive);
        }
    }
    sources::fetch_all(unread.iter(), request.folder, request.fetch, store, watch)
}

/// Returns what the conf folder of an image holds.
pub fn conf_files(image: &Image) -> Vec<(&'static str, String)> {
    let hostname = net::host_name(&image.conf);
    vec![
        ("hostname", net::hostname_text(hostname)),
        ("hosts", net::hosts_text(&image.conf, hostname)),
        ("resolv.conf", net::resolv_text(&image.conf)),
    ]
}

/// Returns what the image's own `/etc` carries, where it has one.
fn etc(tree: &Tree) -> Option<&Meta> {
    let etc = TreePath::parse("etc").ok()?;
    let node = tree.get(&etc).filter(|node| node.is_folder())?;
    Some(&node.meta)
}

/// Says of each step that has a network that the image is impure for it.
fn impurities(plan: &Plan, name: &str) -> Vec<String> {
    let steps = plan.steps.iter().enumerate();
    let impure = steps.filter(|(_, step)| matches!(&step.verb, Verb::Run(script) if script.network));
    impure
        .map(|(index, step)| format!("step {} of {name} ({}) has a network", index + 1, step.label))
        .collect()
}

/// Whether an archive lies beside the recipe, where it is read in its place.
fn is_beside(archive: &Pinned) -> bool {
    matches!(archive.origin, Origin::At(Location::File(_)))
}

/// A build under way.
struct Build<'a> {
    request: Request<'a>,
    plan: Plan,
    /// What each step is made of, whatever it starts from.
    ingredients: Vec<Ingredients>,
    /// The tree that the first step starts from, if it is not an empty one.
    parent: Option<Parent>,
    /// The newest time in all that comes from other trees (seconds since 1970 UTC).
    newest: i64,
    /// Why another build may give another tree.
    impure: Vec<String>,
    store: &'a Store,
    watch: &'a dyn Watch,
}

/// The tree of a recipe that others take something from.
struct Grown {
    tree: Digest,
    steps: usize,
    cached: usize,
    impure: Vec<String>,
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
    /// Looks at what the recipe takes from other trees, which are in the store, and plans the rest.
    fn new(request: Request<'a>, mut facts: Facts, facing: Facing<'a>) -> Result<Self, Error> {
        let Facing {
            bases,
            mut impure,
            store,
            watch,
        } = facing;
        let parent = base::parent(request.recipe, bases, store)?;
        let mut newest = parent.map_or(0, |parent| parent.newest);
        for (index, part) in base::parts(&request, bases, store)? {
            newest = newest.max(base::newest(&part, store)?);
            facts.parts.insert(index, part);
        }
        let plan = resolve::resolve(request.recipe, request.lock, &facts)?;
        let ingredients = plan
            .steps
            .iter()
            .map(|step| key::ingredients(step, request.arch))
            .collect();
        impure.extend(impurities(&plan, request.name));
        Ok(Self {
            request,
            plan,
            ingredients,
            parent,
            newest,
            impure,
            store,
            watch,
        })
    }

    /// Builds the image and gives it its name; where it is to be `expected`, no other gets it.
    fn image(&self, expected: Option<ImageId>) -> Result<Built, Error> {
        if let Some(built) = self.finished()? {
            return Ok(built);
        }
        let _turn = self.turn()?;
        // While this waited for its turn, another build of the same may have done it all.
        if let Some(built) = self.finished()? {
            return Ok(built);
        }
        let (tree, cached) = self.work()?;
        self.keep(tree, cached, expected)
    }

    /// Builds the tree alone.
    fn tree(&self) -> Result<Grown, Error> {
        let steps = self.plan.steps.len();
        if let Some(tree) = self.grown()? {
            self.report_cached(steps);
            return Ok(Grown {
                tree,
                steps,
                cached: steps,
                impure: self.impure.clone(),
            });
        }
        let _turn = self.turn()?;
        let (tree, cached) = self.work()?;
        Ok(Grown {
            tree: self.store.put_tree(&tree)?,
            steps,
            cached,
            impure: self.impure.clone(),
        })
    }

    /// Returns the tree if the store knows the result of every step.
    fn grown(&self) -> Result<Option<Digest>, Error> {
        let Some(epoch) = self.epoch(&BTreeMap::new())? else {
            return Ok(None);
        };
        let known = self.known(epoch)?;
        Ok((known.trees.len() == self.plan.steps.len()).then(|| known.last()))
    }

    /// Waits until nobody else builds the same.
    fn turn(&self) -> Result<store::KeyLock<'_>, Error> {
        let mut all: Ingredients = self.ingredients.iter().flatten().cloned().collect();
        if let Some(parent) = &self.parent {
            all.push(("tree".to_owned(), parent.tree.to_string()));
        }
        Ok(self
            .store
            .lock_key(&key::key(&all), self.request.name, self.watch)?)
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
        let mut newest = self.newest;
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
            start: match &self.parent {
                Some(parent) => base::not_later(parent, epoch, self.store)?,
                None => Tree::new(epoch).digest(),
            },
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
        let Some(tree) = self.grown()? else {
            return Ok(None);
        };
        let steps = self.plan.steps.len();
        let Some(id) = self.store.get_ref(self.request.name)? else {
            return Ok(None);
        };
        let image = match self.store.image(&id) {
            Err(store::Error::NoImage(_)) => return Ok(None),
            image => image?,
        };
        let same = image.tree == tree
            && image.conf == self.plan.conf
            && image.run == self.plan.run
            && image.impure == self.impure;
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
            self.tell(index, true, Vec::new(), false);
        }
    }

    /// Tells why a step was done or not, where somebody wants to know.
    fn tell(&self, index: usize, cached: bool, reasons: Vec<Reason>, same: bool) {
        if self.request.explain {
            let reasons: Vec<String> = reasons.iter().map(Reason::to_string).collect();
            self.watch.see(Event::StepExplained {
                index: index + 1,
                label: &self.plan.steps[index].label,
                cached,
                reasons: &reasons,
                same,
            });
        }
    }

    /// Returns what the last build of this recipe is remembered by: the recipe's place, since many have one name.
    fn place(&self) -> Digest {
        let mut hasher = Hasher::new();
        let folder =
            fs_err::canonicalize(self.request.folder).unwrap_or_else(|_| self.request.folder.to_owned());
        hasher.field(folder.as_os_str().as_encoded_bytes());
        hasher.field(self.request.name.as_bytes());
        hasher.field(self.request.arch.as_bytes());
        hasher.finish()
    }

    /// Performs what is to be done. Returns the tree, and how many steps were known.
    fn work(&self) -> Result<(Tree, usize), Error> {
        let mut performing = Performing::new(self.request, self.store, self.watch);
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
        self.perform(performing, &known)
    }

    fn fetch<'p>(&self, archives: impl Iterator<Item = &'p Pinned>) -> Result<(), Error> {
        let remote = archives.filter(|archive| !is_beside(archive));
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
        let mut tree = match (&self.parent, known.trees.last()) {
            (None, None) => Tree::new(known.epoch),
            _ => self.store.tree(&known.last())?,
        };
        let mut from = known.last();
        let mut cached = known.trees.len();
        let place = self.place();
        let past = self.store.past_build(&place)?;
        let mut steps = self.past_steps(known);
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
                self.tell(index, true, Vec::new(), false);
                steps.push(PastStep {
                    tree: from,
                    ingredients,
                });
                continue;
            }
            let reasons = match self.request.explain {
                true => self.reasons(index, &ingredients, past.as_ref()),
                false => Vec::new(),
            };
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
            let then = past.as_ref().and_then(|past| past.steps.get(index));
            self.tell(index, false, reasons, then.is_some_and(|then| then.tree == from));
            steps.push(PastStep {
                tree: from,
                ingredients: record.ingredients,
            });
        }
        let args = self.request.recipe.args.clone().into_iter().collect();
        let recipe = Some(PastRecipe {
            origin: self.request.origin.to_owned(),
            name: self.request.name.to_owned(),
        });
        self.store
            .put_past_build(&place, &PastBuild { recipe, args, steps })?;
        performing.remember(self.archives().map(|(_, archive)| archive))?;
        Ok((tree, cached))
    }

    /// Returns the steps that are known, as the next build is to see them.
    fn past_steps(&self, known: &Known) -> Vec<PastStep> {
        let before = std::iter::once(&known.start).chain(&known.trees);
        let steps = self.ingredients.iter().zip(before).zip(&known.trees);
        steps
            .map(|((ingredients, before), tree)| PastStep {
                tree: *tree,
                ingredients: key::starting_from(ingredients.clone(), before, known.epoch),
            })
            .collect()
    }

    fn reasons(&self, index: usize, ingredients: &Ingredients, past: Option<&PastBuild>) -> Vec<Reason> {
        let now = explain::Now {
            index,
            step: &self.plan.steps[index],
            ingredients,
        };
        explain::reasons(&now, past, &self.request, self.store)
    }

    fn failed(&self, index: usize, source: perform::Error) -> Error {
        Error::Step {
            index: index + 1,
            label: self.plan.steps[index].label.clone(),
            source: Box::new(source),
        }
    }

    /// Lays the tree out as a folder, writes the image and what its runs find in `/etc`, and names it, in this order.
    fn keep(&self, tree: Tree, cached: usize, expected: Option<ImageId>) -> Result<Built, Error> {
        let digest = self.store.put_tree(&tree)?;
        let image = Image::new(
            digest,
            &tree,
            self.plan.conf.clone(),
            self.plan.run.clone(),
            self.impure.clone(),
        );
        rootfs::checkout::checkout(self.store, &digest, &tree, self.watch)?;
        let id = self.store.put_image(&image)?;
        if expected.is_some_and(|expected| expected != id) {
            return Err(Error::OtherImage { now: id });
        }
        let files = conf_files(&image);
        let files: Vec<(&str, &[u8])> = files
            .iter()
            .map(|(name, text)| (*name, text.as_bytes()))
            .collect();
        self.store.put_conf(&id, etc(&tree), &files)?;
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
