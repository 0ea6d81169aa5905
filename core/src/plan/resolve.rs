//! Chooses the pin of every source. Pure: what had to be looked at comes in as [`Facts`].

use std::collections::{BTreeMap, BTreeSet};

use super::lock::{DebKey, Lock};
use super::{Origin, Pinned, Plan, PlannedStep};
use crate::digest::Digest;
use crate::recipe::{Location, Recipe, Select, Source, Verb, Words};

/// What is outside of recipe and lock, as it was found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Facts {
    /// Debian's name of the architecture to build for.
    pub arch: String,
    /// Digest and size of each archive beside the recipe, by its path as written.
    pub archives: BTreeMap<String, (Digest, u64)>,
    /// Digest of each file or folder to copy, by its path as written.
    pub copies: BTreeMap<String, Digest>,
    /// The part that each step takes from another tree, by the step's place from 0.
    pub parts: BTreeMap<usize, Digest>,
    /// The latest time for files, where the recipe names none (`SOURCE_DATE_EPOCH`).
    pub epoch: Option<i64>,
}

/// What a recipe wants pinned that its lock does not hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Missing {
    /// Packages by suite.
    pub debs: BTreeMap<String, BTreeSet<String>>,
    /// URLs without a digest.
    pub urls: BTreeSet<String>,
}

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A package is not pinned.
    #[error("package `{package}` of {suite} is not in the lock for {arch}")]
    NoDeb {
        /// Package name.
        package: String,
        /// Suite.
        suite: String,
        /// Architecture.
        arch: String,
        /// The architectures that it is pinned for.
        pinned: Vec<String>,
    },
    /// A URL is not pinned.
    #[error("`{url}` is not in the lock, and the recipe gives no sha256 for it")]
    NoUrl {
        /// The URL.
        url: String,
    },
    /// A file beside the recipe was not looked at.
    #[error("`{path}` was not looked at")]
    NoFile {
        /// Its path as written.
        path: String,
    },
    /// An archive beside the recipe is not what the recipe says.
    #[error("`{path}` is not what the recipe says: expected sha256 {expected}, got {actual}")]
    WrongDigest {
        /// Its path as written.
        path: String,
        /// As the recipe has it.
        expected: Digest,
        /// As the file has it.
        actual: Digest,
    },
}

impl Missing {
    /// Whether nothing is missing.
    pub fn is_empty(&self) -> bool {
        self.debs.is_empty() && self.urls.is_empty()
    }

    /// Names everything that is missing, for people.
    pub fn names(&self) -> Vec<String> {
        let debs = self
            .debs
            .iter()
            .flat_map(|(suite, names)| names.iter().map(move |name| format!("{name} ({suite})")));
        debs.chain(self.urls.iter().cloned()).collect()
    }
}

/// Returns everything that `recipe` wants a pin for, whatever is pinned already.
pub fn wanted(recipe: &Recipe) -> Missing {
    let mut wanted = Missing::default();
    for step in &recipe.steps {
        match &step.verb {
            Verb::Deb { packages, suite, .. } => {
                wanted
                    .debs
                    .entry(suite.clone())
                    .or_default()
                    .extend(packages.iter().cloned());
            }
            Verb::Unpack {
                source:
                    Source {
                        location: Location::Url(url),
                        sha256: None,
                    },
                ..
            } => {
                wanted.urls.insert(url.clone());
            }
            _ => {}
        }
    }
    wanted
}

/// Returns what `lock` lacks of what is `wanted`. A package that is pinned for any architecture is not missing: it may
/// not exist for the others.
pub fn missing(wanted: &Missing, lock: &Lock) -> Missing {
    let mut missing = wanted.clone();
    for (suite, packages) in &mut missing.debs {
        packages.retain(|package| {
            !lock
                .debs
                .keys()
                .any(|key| key.suite == *suite && key.package == *package)
        });
    }
    missing.debs.retain(|_, packages| !packages.is_empty());
    missing.urls.retain(|url| !lock.urls.contains_key(url));
    missing
}

/// Returns `lock` without the pins that nothing in `wanted` asks for.
pub fn pruned(wanted: &Missing, lock: &Lock) -> Lock {
    let mut lock = lock.clone();
    lock.debs.retain(|key, _| {
        wanted
            .debs
            .get(&key.suite)
            .is_some_and(|names| names.contains(&key.package))
    });
    lock.urls.retain(|url, _| wanted.urls.contains(url));
    lock
}

/// Turns a recipe into a plan in which every source has its digest.
pub fn resolve(recipe: &Recipe, lock: &Lock, facts: &Facts) -> Result<Plan, Error> {
    let steps = recipe
        .steps
        .iter()
        .enumerate()
        .map(|(index, step)| plan_step(index, &step.verb, lock, facts))
        .collect::<Result<_, _>>()?;
    let epoch = recipe.epoch.or(facts.epoch);
    Ok(Plan {
        steps,
        epoch,
        conf: recipe.conf.clone(),
        run: recipe.run.clone(),
    })
}

/// Returns the steps in words.
pub fn labels(recipe: &Recipe) -> Vec<String> {
    recipe.steps.iter().map(|step| label(&step.verb)).collect()
}

/// Returns the archives of all steps, in order.
pub fn archives(recipe: &Recipe, lock: &Lock, facts: &Facts) -> Result<Vec<Pinned>, Error> {
    let mut archives = Vec::new();
    for step in &recipe.steps {
        match &step.verb {
            Verb::Unpack { source, .. } => archives.push(pin(source, lock, facts)?),
            Verb::Deb { packages, suite, .. } => {
                for package in packages {
                    archives.push(pin_deb(package, suite, lock, &facts.arch)?);
                }
            }
            _ => {}
        }
    }
    Ok(archives)
}

fn plan_step(index: usize, verb: &Verb, lock: &Lock, facts: &Facts) -> Result<PlannedStep, Error> {
    let mut step = PlannedStep {
        label: label(verb),
        verb: verb.clone(),
        archives: Vec::new(),
        select: Select::default(),
        copied: None,
        mounted: Vec::new(),
    };
    match verb {
        Verb::Unpack { source, select } => {
            step.select = select.clone();
            step.archives.push(pin(source, lock, facts)?);
        }
        Verb::Deb {
            packages,
            suite,
            select,
        } => {
            step.select = select.clone();
            for package in packages {
                step.archives.push(pin_deb(package, suite, lock, &facts.arch)?);
            }
        }
        Verb::Copy { from, .. } => {
            let digest = facts
                .copies
                .get(from)
                .ok_or_else(|| Error::NoFile { path: from.clone() })?;
            step.copied = Some(*digest);
        }
        Verb::Run(script) => {
            for path in script.copies() {
                let digest = facts.copies.get(path).ok_or_else(|| Error::NoFile {
                    path: path.to_owned(),
                })?;
                step.mounted.push(*digest);
            }
        }
        Verb::Take { path, .. } => {
            let part = facts.parts.get(&index).ok_or_else(|| Error::NoFile {
                path: path.to_string(),
            })?;
            step.copied = Some(*part);
        }
        _ => {}
    }
    Ok(step)
}

fn pin(source: &Source, lock: &Lock, facts: &Facts) -> Result<Pinned, Error> {
    let (sha256, size) = match &source.location {
        Location::File(path) => {
            let &(actual, size) = facts
                .archives
                .get(path)
                .ok_or_else(|| Error::NoFile { path: path.clone() })?;
            match source.sha256 {
                Some(expected) if expected != actual => {
                    return Err(Error::WrongDigest {
                        path: path.clone(),
                        expected,
                        actual,
                    });
                }
                _ => (actual, Some(size)),
            }
        }
        Location::Url(url) => match (source.sha256, lock.urls.get(url)) {
            (Some(sha256), _) => (sha256, None),
            (None, Some(pin)) => (pin.sha256, Some(pin.size)),
            (None, None) => return Err(Error::NoUrl { url: url.clone() }),
        },
    };
    let name = last_name(location_text(&source.location)).to_owned();
    Ok(Pinned {
        name,
        origin: Origin::At(source.location.clone()),
        sha256,
        size,
    })
}

fn pin_deb(package: &str, suite: &str, lock: &Lock, arch: &str) -> Result<Pinned, Error> {
    let key = DebKey {
        suite: suite.to_owned(),
        package: package.to_owned(),
        arch: arch.to_owned(),
    };
    let Some(pin) = lock.debs.get(&key) else {
        let same = lock
            .debs
            .keys()
            .filter(|other| other.suite == key.suite && other.package == key.package);
        return Err(Error::NoDeb {
            package: key.package.clone(),
            suite: key.suite.clone(),
            arch: key.arch.clone(),
            pinned: same.map(|other| other.arch.clone()).collect(),
        });
    };
    let name = format!("{package} {}", pin.version);
    Ok(Pinned {
        name,
        origin: Origin::Pool(pin.path.clone()),
        sha256: pin.sha256,
        size: Some(pin.size),
    })
}

/// The step in words: the verb and what it is about.
fn label(verb: &Verb) -> String {
    let several = |first: String, count: usize| match count {
        0 | 1 => first,
        _ => format!("{first} and {} more", count - 1),
    };
    match verb {
        Verb::Unpack { source, .. } => format!("unpack {}", last_name(location_text(&source.location))),
        Verb::Deb { packages, .. } => {
            const NAMED: usize = 4;
            match packages.get(..NAMED) {
                Some(first) if packages.len() > NAMED => {
                    format!("deb {} and {} more", first.join(" "), packages.len() - NAMED)
                }
                _ => format!("deb {}", packages.join(" ")),
            }
        }
        Verb::Copy { from, into, .. } => format!("copy {from} to {into}"),
        Verb::Take { from, path, into, .. } => format!("copy {path} of {from} to {into}"),
        Verb::Write { path, .. } => format!("write {path}"),
        Verb::Link { paths, to } => {
            let first = paths
                .first()
                .map(|path| format!("link {path}"))
                .unwrap_or_default();
            format!("{} to {to}", several(first, paths.len()))
        }
        Verb::Dir { paths, .. } => several(
            paths
                .first()
                .map(|path| format!("dir {path}"))
                .unwrap_or_default(),
            paths.len(),
        ),
        Verb::Remove { patterns } => several(
            patterns
                .first()
                .map(|first| format!("remove {first}"))
                .unwrap_or_default(),
            patterns.len(),
        ),
        Verb::User(user) => format!("user {}", user.name),
        Verb::Run(script) => format!("run {}", in_short(&script.words)),
    }
}

/// Returns the first line of a command, and not much of it.
fn in_short(words: &Words) -> String {
    const LONGEST: usize = 60;
    let text = match words {
        Words::Shell(text) => text.clone(),
        Words::Program(words) => words.join(" "),
    };
    let mut lines = text.trim().lines();
    let line = lines.next().unwrap_or_default().trim_end();
    let cut: String = line.chars().take(LONGEST).collect();
    match cut.len() < line.len() || lines.next().is_some() {
        true => format!("{cut} …"),
        false => cut,
    }
}

fn location_text(location: &Location) -> &str {
    match location {
        Location::File(text) | Location::Url(text) => text,
    }
}

/// Returns what stands behind the last slash, less the query of a URL.
fn last_name(location: &str) -> &str {
    let path = location.split(['?', '#']).next().unwrap_or(location);
    match path.trim_end_matches('/').rsplit('/').next() {
        Some(name) if !name.is_empty() => name,
        _ => location,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::lock::{DebPin, UrlPin};
    use crate::recipe::{Conf, RunDefaults, Step};

    const URL: &str = "https://example.org/rootfs.tar.gz?raw=true";

    fn recipe(verbs: impl IntoIterator<Item = Verb>) -> Recipe {
        let steps = verbs
            .into_iter()
            .map(|verb| Step {
                verb,
                span: 0..0,
                args: vec![],
            })
            .collect();
        Recipe {
            description: None,
            name: None,
            parent: None,
            args: BTreeMap::new(),
            epoch: None,
            steps,
            conf: Conf::default(),
            run: RunDefaults::default(),
        }
    }

    fn unpack(location: Location, sha256: Option<Digest>) -> Verb {
        Verb::Unpack {
            source: Source { location, sha256 },
            select: Select::default(),
        }
    }

    fn deb(package: &str) -> Verb {
        Verb::Deb {
            packages: vec![package.into()],
            suite: "bookworm".into(),
            select: Select::default(),
        }
    }

    fn lock_with(package: &str, arch: &str) -> Lock {
        let key = DebKey {
            suite: "bookworm".into(),
            package: package.into(),
            arch: arch.into(),
        };
        let pin = DebPin {
            version: "1-2".into(),
            sha256: Digest::of(b"deb"),
            size: 3,
            path: "pool/p.deb".into(),
        };
        let url = UrlPin {
            sha256: Digest::of(b"url"),
            size: 3,
        };
        Lock {
            debs: BTreeMap::from([(key, pin)]),
            urls: BTreeMap::from([(URL.into(), url)]),
        }
    }

    fn amd64() -> Facts {
        Facts {
            arch: "amd64".into(),
            ..Facts::default()
        }
    }

    #[test]
    fn what_the_lock_lacks_is_missing_and_what_nobody_wants_is_pruned() {
        let wanted = wanted(&recipe([
            deb("bash"),
            deb("dash"),
            unpack(Location::Url(URL.into()), None),
        ]));
        let lock = lock_with("bash", "arm64");
        assert_eq!(missing(&wanted, &lock).names(), ["dash (bookworm)"]);
        assert_eq!(
            missing(&wanted, &Lock::default()).names(),
            ["bash (bookworm)", "dash (bookworm)", URL]
        );
        assert_eq!(pruned(&wanted, &lock), lock);
        assert_eq!(pruned(&Missing::default(), &lock), Lock::default());
    }

    #[test]
    fn a_url_takes_its_digest_from_the_recipe_before_the_lock() {
        let given = Digest::of(b"given");
        let lock = lock_with("bash", "amd64");
        for (sha256, expected) in [(Some(given), given), (None, Digest::of(b"url"))] {
            let plan = resolve(
                &recipe([unpack(Location::Url(URL.into()), sha256)]),
                &lock,
                &amd64(),
            )
            .unwrap();
            assert_eq!(plan.steps[0].archives[0].sha256, expected);
            assert_eq!(plan.steps[0].label, "unpack rootfs.tar.gz");
        }
        let unpinned = resolve(
            &recipe([unpack(Location::Url(URL.into()), None)]),
            &Lock::default(),
            &amd64(),
        );
        assert_eq!(unpinned.unwrap_err(), Error::NoUrl { url: URL.into() });
    }

    #[test]
    fn a_package_pinned_for_another_architecture_only_is_named_with_it() {
        let error = resolve(&recipe([deb("bash")]), &lock_with("bash", "arm64"), &amd64()).unwrap_err();
        assert!(matches!(error, Error::NoDeb { pinned, .. } if pinned == ["arm64"]));
    }

    #[test]
    fn an_archive_beside_the_recipe_must_be_what_the_recipe_says() {
        let facts = Facts {
            archives: BTreeMap::from([("a.tar".into(), (Digest::of(b"a"), 1))]),
            ..amd64()
        };
        let file = || Location::File("a.tar".into());
        assert!(resolve(&recipe([unpack(file(), None)]), &Lock::default(), &facts).is_ok());
        let error = resolve(
            &recipe([unpack(file(), Some(Digest::of(b"b")))]),
            &Lock::default(),
            &facts,
        )
        .unwrap_err();
        assert!(matches!(error, Error::WrongDigest { .. }));
    }

    #[test]
    fn the_epoch_of_the_recipe_comes_first() {
        let facts = Facts {
            epoch: Some(5),
            ..amd64()
        };
        let epoch = |own| {
            resolve(
                &Recipe {
                    epoch: own,
                    ..recipe([])
                },
                &Lock::default(),
                &facts,
            )
            .map(|plan| plan.epoch)
            .unwrap()
        };
        assert_eq!((epoch(Some(7)), epoch(None)), (Some(7), Some(5)));
    }
}
