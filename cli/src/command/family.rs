//! The recipe that a build is for, with all that it takes something from: found, read, pinned, and built in one go.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::PathBuf;

use mk_core::assemble::check::{self, Fault};
use mk_core::assemble::forecast::{self, Fate};
use mk_core::assemble::graph::{self, Failed, Input, Node};
use mk_core::assemble::pin::{Pinned, Policy};
use mk_core::assemble::{Built, Request, Shell, repair};
use mk_core::digest::Digest;
use mk_core::fetch;
use mk_core::plan::lock::Lock;
use mk_core::recipe::mistake::{Mistake, Mistakes};
use mk_core::recipe::{Base, Verb};
use mk_core::store::{self, ImageId, Lease, Store};
use mk_core::unpack::Limits;

use super::build::{Order, architecture};
use super::find;
use crate::args::SourceArgs;
use crate::progress::Progress;
use crate::report::{Failing, Failure};
use crate::settings::Settings;

/// Recipes in the order in which they can be built; the last is the one that the build is for.
#[derive(Debug)]
pub(super) struct Family {
    members: Vec<Member>,
}

#[derive(Debug)]
struct Member {
    order: Order,
    found: find::Recipe,
    bases: BTreeMap<Base, From>,
}

/// Where a base comes from.
#[derive(Debug)]
enum From {
    /// A recipe that comes before.
    Recipe(usize),
    /// The store, says the recipe here.
    Store(Range<usize>),
}

impl Family {
    /// Reads `found` and every recipe that it takes something from, and so on.
    pub(super) fn read(
        found: find::Recipe,
        args: &SourceArgs,
        name: Option<&str>,
        policy: Policy,
    ) -> Result<Self, Failure> {
        let mut family = Self { members: Vec::new() };
        let order = Order::read(&found, args, name, policy)?;
        family.add(found, order, &mut Vec::new())?;
        Ok(family)
    }

    /// The recipe that the build is for.
    pub(super) fn order(&self) -> &Order {
        // There is always one: `read` adds it.
        &self.members[self.members.len() - 1].order
    }

    /// Adds what `order` takes something from, and then itself. `above` leads from the first recipe to this one.
    fn add(
        &mut self,
        found: find::Recipe,
        order: Order,
        above: &mut Vec<find::Recipe>,
    ) -> Result<usize, Failure> {
        above.push(found.clone());
        let mut bases = BTreeMap::new();
        for (base, span) in order.recipe.bases() {
            let recipe = match base {
                Base::Name(name) => found.sibling(name),
                Base::Recipe(path) => Some(
                    found
                        .at_path(path)
                        .map_err(|failure| order.at(span.clone(), failure))?,
                ),
                Base::Image(_) | Base::Tree(_) => None,
            };
            let from = match recipe {
                Some(recipe) => From::Recipe(self.member(recipe, &order, &span, above)?),
                None => From::Store(span),
            };
            bases.insert(base.clone(), from);
        }
        above.pop();
        self.members.push(Member { order, found, bases });
        Ok(self.members.len() - 1)
    }

    /// Returns the place of a recipe that `child` names at `span`, which is added if it is new.
    fn member(
        &mut self,
        found: find::Recipe,
        child: &Order,
        span: &Range<usize>,
        above: &mut Vec<find::Recipe>,
    ) -> Result<usize, Failure> {
        if let Some(known) = self
            .members
            .iter()
            .position(|member| member.found.is_same(&found))
        {
            return Ok(known);
        }
        if let Some(first) = above.iter().position(|other| other.is_same(&found)) {
            let circle = above[first..]
                .iter()
                .chain([&found])
                .map(|recipe| recipe.place.as_str());
            let circle: Vec<&str> = circle.collect();
            let what = match circle.len() {
                2 => "the recipe takes something from itself".to_owned(),
                _ => format!(
                    "the recipes take from each other in a circle: {}",
                    circle.join(" → ")
                ),
            };
            return Err(child.mistake(span.clone(), what, None));
        }
        let source = SourceArgs {
            args: Vec::new(),
            ..child.source.clone()
        };
        // Pins are renewed for the recipe that was named, and for no other.
        let policy = match child.policy {
            Policy::Renew => Policy::Complete,
            policy => policy,
        };
        let order = Order::read(&found, &source, None, policy)?;
        self.add(found, order, above)
    }

    /// Completes all locks, builds all trees, and gives the image of the last its name.
    pub(super) fn carry_out(
        &self,
        settings: &Settings,
        store: &Store,
        watch: &Progress,
        how: &How,
    ) -> Result<Built, Failure> {
        let ready = self.ready(settings, store, watch)?;
        let limits = Limits::default();
        let nodes = self.nodes(&ready, settings, &limits, how);
        graph::assemble(&nodes, store, watch).map_err(|failed| self.not_built(failed, watch.is_silent()))
    }

    /// The same for an image that was there before: where another comes of it than `expected`, that gets no name.
    pub(super) fn carry_out_again(
        &self,
        settings: &Settings,
        store: &Store,
        watch: &Progress,
        expected: Option<ImageId>,
    ) -> Result<Built, Failure> {
        let ready = self.ready(settings, store, watch)?;
        let (limits, how) = (Limits::default(), How::default());
        let nodes = self.nodes(&ready, settings, &limits, &how);
        graph::assemble_again(&nodes, expected, store, watch)
            .map_err(|failed| self.not_built(failed, watch.is_silent()))
    }

    /// Fetches those archives again that are `wanted` and that one of the recipes names. Returns which that were.
    pub(super) fn fetch_again(
        &self,
        settings: &Settings,
        store: &Store,
        watch: &Progress,
        wanted: &BTreeSet<Digest>,
    ) -> Result<BTreeSet<Digest>, Failure> {
        let ready = self.ready(settings, store, watch)?;
        let (limits, how) = (Limits::default(), How::default());
        let nodes = self.nodes(&ready, settings, &limits, &how);
        Ok(repair::refetch(&nodes, wanted, store, watch)?)
    }

    /// The same for a run, which has the image for as long as it holds the lease.
    pub(super) fn carry_out_leased(
        &self,
        settings: &Settings,
        store: &Store,
        watch: &Progress,
    ) -> Result<(Built, Lease), Failure> {
        let ready = self.ready(settings, store, watch)?;
        let (limits, how) = (Limits::default(), How::default());
        let nodes = self.nodes(&ready, settings, &limits, &how);
        graph::assemble_leased(&nodes, store, watch)
            .map_err(|failed| self.not_built(failed, watch.is_silent()))
    }

    /// Does every step once more, and returns what is other than it was.
    pub(super) fn check(
        &self,
        settings: &Settings,
        store: &Store,
        watch: &Progress,
        how: &How,
    ) -> Result<Vec<Fault>, Failure> {
        let ready = self.ready(settings, store, watch)?;
        let limits = Limits::default();
        let nodes = self.nodes(&ready, settings, &limits, how);
        check::check(&nodes, store, watch).map_err(|failed| {
            let failure = self.not_built(failed, watch.is_silent());
            let Failure::Error(source) = failure else {
                return failure;
            };
            Failing {
                what: "the build cannot be done in other surroundings".to_owned(),
                hint: source
                    .downcast_ref::<Failing>()
                    .and_then(|failing| failing.hint.clone()),
                source: Some(source),
            }
            .into()
        })
    }

    /// Returns what a build would do, in the order in which it would.
    pub(super) fn outlook(
        &self,
        settings: &Settings,
        store: &Store,
        watch: &Progress,
    ) -> Result<Vec<Outlook>, Failure> {
        let ready = self.ready(settings, store, watch)?;
        let (limits, how) = (Limits::default(), How::default());
        let nodes = self.nodes(&ready, settings, &limits, &how);
        let forecasts = forecast::forecast(&nodes, store, watch)
            .map_err(|failed| self.not_built(failed, watch.is_silent()))?;
        let outlooks = self
            .members
            .iter()
            .zip(forecasts)
            .map(|(member, forecast)| Outlook {
                name: member.order.name.clone(),
                place: member.order.place.clone(),
                inputs: member.inputs(),
                steps: forecast.steps,
                tree: forecast.tree.map(|tree| tree.to_string()),
            });
        Ok(outlooks.collect())
    }

    /// What the recipe of a fault is called.
    pub(super) fn place(&self, fault: &Fault) -> &str {
        &self.members[fault.node].order.place
    }

    fn ready(&self, settings: &Settings, store: &Store, watch: &Progress) -> Result<Vec<Ready>, Failure> {
        let mut ready = Vec::new();
        for member in &self.members {
            let (mut bases, mut impure) = (BTreeMap::new(), Vec::new());
            for (base, from) in &member.bases {
                let input = match from {
                    From::Recipe(place) => Input::Recipe(*place),
                    From::Store(span) => {
                        let (tree, why) = member.stored(base, span, store)?;
                        impure.extend(why);
                        Input::Tree(tree)
                    }
                };
                bases.insert(base.clone(), input);
            }
            let Pinned { lock, .. } = member.order.pin(settings, store, watch)?;
            ready.push(Ready {
                bases,
                impure,
                lock,
                fetch: member.order.fetch(settings),
            });
        }
        Ok(ready)
    }

    fn nodes<'a>(
        &'a self,
        ready: &'a [Ready],
        settings: &Settings,
        limits: &'a Limits,
        how: &'a How,
    ) -> Vec<Node<'a>> {
        let nodes = self.members.iter().zip(ready).map(|(member, ready)| Node {
            request: Request {
                recipe: &member.order.recipe,
                folder: &member.order.folder,
                lock: &ready.lock,
                origin: &member.order.origin,
                name: &member.order.name,
                arch: architecture(),
                epoch: settings.epoch,
                fetch: &ready.fetch,
                limits,
                explain: how.explain,
                secrets: &how.secrets,
                shell: how.shell.as_ref(),
                reread: how.reread,
            },
            bases: ready.bases.clone(),
            impure: ready.impure.clone(),
        });
        nodes.collect()
    }

    fn not_built(&self, Failed { node, error }: Failed, unseen: bool) -> Failure {
        let member = &self.members[node];
        let failure = member.order.not_built(error, unseen);
        if node + 1 == self.members.len() {
            return failure;
        }
        let Failure::Error(source) = failure else {
            return failure;
        };
        let what = format!(
            "`{}`, which `{}` needs, is not built",
            member.order.place,
            self.order().place
        );
        Failing {
            what,
            hint: source
                .downcast_ref::<Failing>()
                .and_then(|failing| failing.hint.clone()),
            source: Some(source),
        }
        .into()
    }
}

/// A recipe with what a build would do of it.
#[derive(Debug)]
pub(super) struct Outlook {
    pub(super) name: String,
    pub(super) place: String,
    pub(super) inputs: Vec<Taken>,
    /// Each step in words, with what would become of it.
    pub(super) steps: Vec<(String, Fate)>,
    /// The tree, where the store knows it.
    pub(super) tree: Option<String>,
}

/// Something that a recipe takes from elsewhere.
#[derive(Debug)]
pub(super) struct Taken {
    /// As the recipe names it.
    pub(super) base: String,
    /// The place of the recipe that it is of; `None`: it is of the store.
    pub(super) recipe: Option<usize>,
    /// The step that takes a part, from 0; `None`: the recipe starts from it.
    pub(super) step: Option<usize>,
}

/// How a build is done, besides what its recipe says.
#[derive(Debug, Default)]
pub(super) struct How {
    /// Whether it says why each step is done.
    pub(super) explain: bool,
    /// Files that steps may read, by name.
    pub(super) secrets: BTreeMap<String, PathBuf>,
    /// The shell that is opened where a command fails.
    pub(super) shell: Option<Shell>,
    /// Whether files beside recipes are read also where nothing says that they have changed.
    pub(super) reread: bool,
}

/// A recipe with all that its build needs.
struct Ready {
    bases: BTreeMap<Base, Input>,
    /// Why images of the store that it takes something from are impure.
    impure: Vec<String>,
    lock: Lock,
    fetch: fetch::Settings,
}

impl Member {
    fn inputs(&self) -> Vec<Taken> {
        let taken = |base: &Base, step| Taken {
            base: base.to_string(),
            recipe: match self.bases.get(base) {
                Some(From::Recipe(place)) => Some(*place),
                _ => None,
            },
            step,
        };
        let recipe = &self.order.recipe;
        let parent = recipe.parent.iter().map(|parent| taken(&parent.base, None));
        let parts = recipe
            .steps
            .iter()
            .enumerate()
            .filter_map(|(index, step)| match &step.verb {
                Verb::Take { from, .. } => Some(taken(from, Some(index))),
                _ => None,
            });
        parent.chain(parts).collect()
    }

    /// Returns the tree of a base that only the store can have, and why it is impure, as far as that is known.
    fn stored(
        &self,
        base: &Base,
        span: &Range<usize>,
        store: &Store,
    ) -> Result<(Digest, Vec<String>), Failure> {
        if let Base::Tree(tree) = base {
            return match store.has_tree(tree)? {
                true => Ok((*tree, Vec::new())),
                false => {
                    let what = format!("the store has no tree {tree}");
                    Err(self.order.mistake(span.clone(), what, None))
                }
            };
        }
        let text = base.to_string();
        match store.resolve(&text).and_then(|image| store.image(&image)) {
            Ok(image) => Ok((image.tree, image.impure)),
            Err(store::Error::NoImage(_)) => {
                let what = match base {
                    Base::Name(name) => format!(
                        "there is no recipe and no image `{name}`: neither {name}.toml in the same folder, nor a recipe that mk ships, nor an image in the store"
                    ),
                    _ => format!("the store has no image {text}"),
                };
                let hint = find::likely(Some(store), &text).map(|likely| format!("did you mean `{likely}`?"));
                Err(self.order.mistake(span.clone(), what, hint))
            }
            Err(error) => Err(error.into()),
        }
    }
}

impl Order {
    /// Says what is wrong with the recipe at `span`.
    fn mistake(&self, span: Range<usize>, what: String, hint: Option<String>) -> Failure {
        let mistakes = Mistakes(vec![Mistake {
            span,
            what,
            expected: None,
            hint,
        }]);
        Failure::Drawn(mistakes.render(&self.place, &self.text))
    }

    /// Says the same of a recipe that cannot be found.
    fn at(&self, span: Range<usize>, failure: Failure) -> Failure {
        let Failure::Error(source) = failure else {
            return failure;
        };
        let hint = source
            .downcast_ref::<Failing>()
            .and_then(|failing| failing.hint.clone());
        self.mistake(span, source.to_string(), hint)
    }
}
