//! [`PastBuild`]: what a recipe was built of the last time, kept to say what has changed since, and to find the recipe of an
//! image again. No build depends on it.

use super::document::{BadDocument, Reader, Writer};
use super::{Result, Store, exists, layout};
use crate::digest::Digest;

const HEADER: &str = "mk-build 1";
/// The most that is read of a record, in bytes.
const LARGEST: u64 = 1 << 24;

/// What a recipe was built of.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PastBuild {
    /// Where the recipe is, and what its image is called; older records do not say.
    pub recipe: Option<PastRecipe>,
    /// Values of the arguments, by name.
    pub args: Vec<(String, String)>,
    /// The steps, in order.
    pub steps: Vec<PastStep>,
}

/// A recipe that was built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PastRecipe {
    /// Where it is, as whoever built it said ([`Request::origin`](crate::assemble::Request::origin)).
    pub origin: String,
    /// The name of its image.
    pub name: String,
}

/// A step of the last build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PastStep {
    /// The tree that it gave.
    pub tree: Digest,
    /// What went into its key, by name, in order.
    pub ingredients: Vec<(String, String)>,
}

impl PastBuild {
    fn encode(&self) -> String {
        let mut text = Writer::new(HEADER);
        if let Some(recipe) = &self.recipe {
            text.line("recipe", &recipe.origin);
            text.line("name", &recipe.name);
        }
        for (name, value) in &self.args {
            text.named("arg", name, value);
        }
        for step in &self.steps {
            text.line("step", &step.tree.to_string());
            for (name, value) in &step.ingredients {
                text.named("ingredient", name, value);
            }
        }
        text.finish()
    }

    fn decode(bytes: &[u8]) -> Result<Self, BadDocument> {
        let mut reader = Reader::new(bytes, HEADER)?;
        let mut past = Self::default();
        if let Some(origin) = reader.text("recipe")? {
            let name = reader
                .text("name")?
                .ok_or_else(|| reader.bad("expected `name` next"))?;
            past.recipe = Some(PastRecipe { origin, name });
        }
        while let Some(arg) = reader.named("arg")? {
            past.args.push(arg);
        }
        while let Some(tree) = reader.take("step") {
            let tree = reader.exact(tree)?;
            let mut ingredients = Vec::new();
            while let Some(ingredient) = reader.named("ingredient")? {
                ingredients.push(ingredient);
            }
            past.steps.push(PastStep { tree, ingredients });
        }
        reader.finish()?;
        Ok(past)
    }
}

impl Store {
    /// Returns what the recipe called `name` was built of the last time; `None` where nobody knows, which is also so where
    /// the record cannot be read: all that hangs on it is a sentence.
    pub fn past_build(&self, name: &Digest) -> Result<Option<PastBuild>> {
        let text = self.read(layout::BUILDS, &name.to_string(), LARGEST)?;
        Ok(text.and_then(|text| PastBuild::decode(&text).ok()))
    }

    /// Returns the names under which builds are remembered.
    pub(super) fn past_builds(&self) -> Result<Vec<Digest>> {
        match self.dir.look(layout::BUILDS)? {
            Some(_) => self.digests(layout::BUILDS),
            None => Ok(Vec::new()),
        }
    }

    /// Returns all that is remembered of builds, the latest first.
    pub fn known_builds(&self) -> Result<Vec<PastBuild>> {
        let mut known = Vec::new();
        for name in self.past_builds()? {
            let time = self
                .dir
                .look(format!("{}/{name}", layout::BUILDS))?
                .map(|found| found.mtime);
            known.extend(self.past_build(&name)?.map(|past| (time, name, past)));
        }
        known.sort_by_key(|(time, name, _)| (std::cmp::Reverse(*time), *name));
        Ok(known.into_iter().map(|(.., past)| past).collect())
    }

    /// Remembers what the recipe called `name` was built of, in the place of what it was before.
    pub fn put_past_build(&self, name: &Digest, build: &PastBuild) -> Result<()> {
        // A store may be older than this folder.
        self.full(exists(self.dir.make_dir(layout::BUILDS, 0o700)))?;
        self.put_over(layout::BUILDS, &name.to_string(), build.encode().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let step = |text: &str| PastStep {
            tree: Digest::of(text.as_bytes()),
            ingredients: vec![("verb".into(), text.into()), ("odd name".into(), "a\nb ".into())],
        };
        let build = PastBuild {
            recipe: Some(PastRecipe {
                origin: "/a folder/app.toml".into(),
                name: "app".into(),
            }),
            args: vec![("version".into(), "1.2".into()), ("empty".into(), String::new())],
            steps: vec![step("run"), step("copy")],
        };
        let text = build.encode();
        assert_eq!(PastBuild::decode(text.as_bytes()).unwrap(), build);
        assert!(PastBuild::decode(text.replace("step", "stop").as_bytes()).is_err());
        assert!(PastBuild::decode(text.replace("\nname app", "").as_bytes()).is_err());
        let empty = PastBuild::default();
        assert_eq!(PastBuild::decode(empty.encode().as_bytes()).unwrap(), empty);
    }
}
