//! How two trees differ, for people and for programs: a line a path, what of it changed, and the lines of text files.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use mk_core::compare::{self, Side};
use mk_core::path::{TreePath, shown};
use mk_core::store::Store;
use mk_core::tree::compare::compare;
use mk_core::tree::diff::{Difference, Field, What};
use mk_core::tree::{Node, NodeKind, Tree};
use mk_core::unpack::Limits;
use serde_json::{Value, json};
use similar::TextDiff;

/// How many lines stand around those that differ.
const AROUND: usize = 3;
/// The text of so many files is shown at the most; of the others it is said that it differs.
const MOST_TEXTS: usize = 200;

/// Two trees with all that differs between them.
pub(super) struct Comparison<'a> {
    was: &'a Tree,
    now: &'a Tree,
    pub(super) differences: Vec<Difference>,
    /// By path, what the text was and is.
    texts: BTreeMap<TreePath, (String, String)>,
}

impl<'a> Comparison<'a> {
    /// Compares; `store` is that of a side which has its files there.
    pub(super) fn new(was: &'a Side, now: &'a Side, store: Option<&Store>) -> Result<Self, compare::Error> {
        let differences = compare(was.tree(), now.tree());
        let of_text: BTreeSet<TreePath> = differences
            .iter()
            .filter(|one| matches!(&one.what, What::Changed(fields) if fields.contains(&Field::Content)))
            .map(|one| one.path.clone())
            .take(MOST_TEXTS)
            .collect();
        let limits = Limits::default();
        let old = was.texts(&of_text, store, &limits)?;
        let mut new = now.texts(&of_text, store, &limits)?;
        let mut texts = BTreeMap::new();
        for (path, old) in old {
            let pair = new.remove(&path).and_then(|new| Some((text(old)?, text(new)?)));
            if let Some(pair) = pair {
                texts.insert(path, pair);
            }
        }
        Ok(Self {
            was: was.tree(),
            now: now.tree(),
            differences,
            texts,
        })
    }

    /// Returns it for people.
    pub(super) fn text(&self) -> String {
        let mut out = String::new();
        for one in &self.differences {
            let letter = match &one.what {
                What::Added => 'A',
                What::Changed(_) => 'C',
                What::Removed => 'D',
            };
            let fields = match &one.what {
                What::Changed(fields) => {
                    let told: Vec<String> =
                        fields.iter().map(|field| self.field(&one.path, *field)).collect();
                    format!(": {}", told.join(", "))
                }
                _ => String::new(),
            };
            _ = writeln!(out, "{letter} {}{fields}", one.path);
            if let Some((old, new)) = self.texts.get(&one.path) {
                let diff = TextDiff::from_lines(old, new);
                for line in diff.unified_diff().context_radius(AROUND).to_string().lines() {
                    _ = writeln!(out, "    {}", shown(line.as_bytes()));
                }
            }
        }
        out
    }

    /// Returns it for programs.
    pub(super) fn json(&self) -> Value {
        let objects = self.differences.iter().map(|one| {
            let mut object = super::diff::object(one);
            if let What::Changed(fields) = &one.what {
                for (side, tree) in [("was", self.was), ("now", self.now)] {
                    let values = fields.iter().filter_map(|field| {
                        let node = tree.get(&one.path)?;
                        Some((field.name().to_owned(), Value::from(value(node, *field))))
                    });
                    object[side] = Value::Object(values.collect());
                }
            }
            if let Some((old, new)) = self.texts.get(&one.path) {
                let diff = TextDiff::from_lines(old, new);
                object["diff"] = json!(diff.unified_diff().context_radius(AROUND).to_string());
            }
            object
        });
        objects.collect()
    }

    fn field(&self, path: &TreePath, field: Field) -> String {
        let short = matches!(
            field,
            Field::Kind | Field::Mode | Field::Owner | Field::Time | Field::Target | Field::Device
        );
        match (self.was.get(path), self.now.get(path)) {
            (Some(was), Some(now)) if short => {
                format!("{} {} → {}", field.name(), value(was, field), value(now, field))
            }
            _ => field.name().to_owned(),
        }
    }
}

/// Returns a text that can be shown; bytes that are none are not.
fn text(bytes: Vec<u8>) -> Option<String> {
    let text = String::from_utf8(bytes).ok()?;
    (!text.contains('\0')).then_some(text)
}

fn value(node: &Node, field: Field) -> String {
    match field {
        Field::Kind => kind(node).to_owned(),
        Field::Mode => format!("{:04o}", node.meta.mode),
        Field::Owner => format!("{}:{}", node.meta.uid, node.meta.gid),
        Field::Time => node.meta.mtime.to_string(),
        Field::Content => match &node.kind {
            NodeKind::File { content, .. } => content.digest.to_string(),
            _ => String::new(),
        },
        Field::Target => match &node.kind {
            NodeKind::Symlink(target) => shown(target),
            _ => String::new(),
        },
        Field::Device => match &node.kind {
            NodeKind::Device { major, minor, .. } => format!("{major}:{minor}"),
            _ => String::new(),
        },
        Field::Attributes => {
            let names = node.meta.xattrs.iter().flat_map(|xattrs| xattrs.keys());
            names.map(|name| shown(name)).collect::<Vec<_>>().join(" ")
        }
        Field::Links => String::new(),
    }
}

fn kind(node: &Node) -> &'static str {
    match node.kind {
        NodeKind::Folder => "folder",
        NodeKind::File { .. } => "file",
        NodeKind::Symlink(_) => "symlink",
        NodeKind::Device { .. } => "device",
        NodeKind::Fifo => "fifo",
    }
}
