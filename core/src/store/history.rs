//! [`PastBuild`]: what a recipe was built of the last time, kept to say what has changed since. No build depends on it.

use super::document::{BadDocument, Reader, Writer};
use super::{Result, Store, exists, layout};
use crate::digest::Digest;

const HEADER: &str = "mk-build 1";
/// The most that is read of a record, in bytes.
const LARGEST: u64 = 1 << 24;

/// What a recipe was built of.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PastBuild {
    /// Values of the arguments, by name.
    pub args: Vec<(String, String)>,
    /// The steps, in order.
    pub steps: Vec<PastStep>,
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
            args: vec![("version".into(), "1.2".into()), ("empty".into(), String::new())],
            steps: vec![step("run"), step("copy")],
        };
        let text = build.encode();
        assert_eq!(PastBuild::decode(text.as_bytes()).unwrap(), build);
        assert!(PastBuild::decode(text.replace("step", "stop").as_bytes()).is_err());
        let empty = PastBuild::default();
        assert_eq!(PastBuild::decode(empty.encode().as_bytes()).unwrap(), empty);
    }
}
