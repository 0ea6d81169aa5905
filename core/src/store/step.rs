//! [`StepRecord`]: what a step gave, and what it was made of.

use std::collections::BTreeSet;

use super::document::{BadDocument, Reader, Writer};
use super::{Error, Result, Store, layout};
use crate::digest::Digest;

const HEADER: &str = "mk-step 1";

/// What the store remembers of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepRecord {
    /// The tree that it gave.
    pub tree: Digest,
    /// The tree that it started from, if any.
    pub from: Option<Digest>,
    /// What went into its key, by name, in order.
    pub ingredients: Vec<(String, String)>,
}

impl StepRecord {
    fn encode(&self) -> String {
        let mut text = Writer::new(HEADER);
        text.line("tree", &self.tree.to_string());
        if let Some(from) = &self.from {
            text.line("from", &from.to_string());
        }
        for (name, value) in &self.ingredients {
            text.named("ingredient", name, value);
        }
        text.finish()
    }

    fn decode(bytes: &[u8]) -> Result<Self, BadDocument> {
        let mut reader = Reader::new(bytes, HEADER)?;
        let tree = reader.want("tree")?;
        let from = reader.take("from").map(|from| reader.exact(from)).transpose()?;
        let mut ingredients = Vec::new();
        while let Some(ingredient) = reader.named("ingredient")? {
            ingredients.push(ingredient);
        }
        reader.finish()?;
        Ok(Self {
            tree,
            from,
            ingredients,
        })
    }

    /// Returns the part of another tree that it took in, if it did.
    pub(super) fn part(&self) -> Option<Digest> {
        let is_take = self
            .ingredients
            .iter()
            .any(|(name, value)| name == "verb" && value == "take");
        let copied = self.ingredients.iter().find(|(name, _)| name == "copied");
        copied.filter(|_| is_take)?.1.parse().ok()
    }

    /// Returns the digests that the ingredients name: of sources, or of files' bytes.
    pub(super) fn named_digests(&self) -> impl Iterator<Item = Digest> {
        let words = self.ingredients.iter().flat_map(|(_, value)| value.split(' '));
        words.filter_map(|word| word.parse().ok())
    }
}

impl Store {
    /// Returns what is known of a step, if its tree is there too.
    pub fn step(&self, key: &Digest) -> Result<Option<StepRecord>> {
        match self.step_record(key)? {
            Some(record) if self.has_tree(&record.tree)? => Ok(Some(record)),
            _ => Ok(None),
        }
    }

    /// Returns the archives that the steps unpacked which gave one of `trees`, as far as that is known.
    pub(crate) fn sources_of(&self, trees: &BTreeSet<Digest>) -> Result<BTreeSet<Digest>> {
        let mut sources = BTreeSet::new();
        for key in self.digests(layout::STEPS)? {
            // A record that is damaged says nothing.
            if let Ok(Some(record)) = self.step_record(&key)
                && trees.contains(&record.tree)
            {
                sources.extend(record.named_digests());
            }
        }
        Ok(sources)
    }

    /// Returns what is known of a step.
    pub(super) fn step_record(&self, key: &Digest) -> Result<Option<StepRecord>> {
        let name = key.to_string();
        let Some(text) = self.read(layout::STEPS, &name, 1 << 24)? else {
            return Ok(None);
        };
        let record = StepRecord::decode(&text).map_err(|bad| self.misread(layout::STEPS, &name, bad))?;
        Ok(Some(record))
    }

    /// Remembers the result of a step. That the same key gave another tree before is [`Error::ReproducibilityFault`].
    pub fn put_step(&self, key: &Digest, record: &StepRecord) -> Result<()> {
        let differs = |known: &StepRecord| known.tree != record.tree;
        if let Some(known) = self.step_record(key)?.filter(differs) {
            return Err(Error::ReproducibilityFault {
                key: *key,
                known: known.tree,
                now: record.tree,
            });
        }
        self.put_new(layout::STEPS, &key.to_string(), record.encode().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_written_in_one_way() {
        let record = StepRecord {
            tree: Digest::of(b"t"),
            from: Some(Digest::of(b"f")),
            ingredients: vec![
                ("verb".into(), "unpack".into()),
                ("odd name".into(), format!("line\nline {} ", Digest::of(b"s"))),
                ("empty".into(), String::new()),
            ],
        };
        let text = record.encode();
        let expected = format!(
            "mk-step 1\ntree {}\nfrom {}\ningredient verb unpack\ningredient odd\\u{{20}}name line\\u{{a}}line {} \ningredient empty \n",
            Digest::of(b"t"),
            Digest::of(b"f"),
            Digest::of(b"s")
        );
        assert_eq!(text, expected);
        assert_eq!(StepRecord::decode(text.as_bytes()).unwrap(), record);
        assert_eq!(record.named_digests().collect::<Vec<_>>(), [Digest::of(b"s")]);
        for wrong in [
            text.replace("mk-step 1", "mk-step 2"),
            text.replace("\\u{20}", "\\u{020}"),
            text.replace("ingredient empty ", "ingredient empty"),
            text.replace("tree", "tee"),
            format!("{text}more\n"),
        ] {
            assert!(StepRecord::decode(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
