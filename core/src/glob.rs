//! [`GlobSet`]: patterns over paths in an image; the one place where they get their meaning. `*` and `?` stay within a
//! name, `**` crosses folders, `[…]` and `{a,b}` choose; a leading slash changes nothing.

use globset::{GlobBuilder, GlobSetBuilder};

use crate::path::TreePath;

/// A text that is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{pattern}` is not a pattern: {why}")]
pub struct BadPattern {
    /// The pattern as written.
    pub pattern: String,
    /// What is wrong with it, as a fragment.
    pub why: String,
}

/// Patterns of which one at least has to match.
#[derive(Debug, Clone)]
pub struct GlobSet(globset::GlobSet);

impl GlobSet {
    /// Reads `patterns`; a set of none matches nothing.
    pub fn new(patterns: &[String]) -> Result<Self, BadPattern> {
        let mut set = GlobSetBuilder::new();
        let mut last = "";
        let bad = |pattern: &str, why: String| BadPattern {
            pattern: pattern.to_owned(),
            why,
        };
        for pattern in patterns {
            last = pattern;
            let text = pattern.trim_start_matches('/');
            if text.is_empty() {
                return Err(bad(pattern, "it names nothing below the root".into()));
            }
            // A path never has a closing slash, so one in a pattern would silently match nothing.
            let text = text.trim_end_matches('/');
            let glob = GlobBuilder::new(text)
                .literal_separator(true)
                .backslash_escape(true)
                .build();
            set.add(glob.map_err(|error| bad(pattern, error.kind().to_string()))?);
        }
        Ok(Self(
            set.build().map_err(|error| bad(last, error.kind().to_string()))?,
        ))
    }

    /// Whether one of the patterns matches `path` itself.
    pub fn matches(&self, path: &TreePath) -> bool {
        self.0.is_match(path.as_path())
    }

    /// Whether one of the patterns matches `path` or a folder that it lies in.
    pub fn covers(&self, path: &TreePath) -> bool {
        self.matches(path)
            || path
                .parent()
                .is_some_and(|parent| !parent.is_root() && self.covers(&parent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(pattern: &str) -> GlobSet {
        GlobSet::new(&[pattern.to_owned()]).unwrap()
    }

    fn path(text: &str) -> TreePath {
        TreePath::parse(text).unwrap()
    }

    #[test]
    fn a_star_stays_within_a_name_and_two_cross_folders() {
        assert!(set("usr/*").matches(&path("usr/bin")));
        assert!(!set("usr/*").matches(&path("usr/bin/env")));
        assert!(set("/usr/**").matches(&path("usr/bin/env")));
        assert!(set("**/*.py[co]").matches(&path("usr/lib/a.pyc")));
        assert!(set("usr/{bin,sbin}/").matches(&path("usr/sbin")));
    }

    #[test]
    fn a_folder_covers_what_is_below_it() {
        assert!(set("usr/*").covers(&path("usr/share/doc/x")));
        assert!(!set("usr/share").covers(&path("usr/share-x/doc")));
    }

    #[test]
    fn a_text_that_is_no_pattern_is_refused() {
        for text in ["", "/", "a[b", "{a,b", "a\\"] {
            assert!(GlobSet::new(&[text.to_owned()]).is_err(), "{text:?} was accepted");
        }
    }
}
