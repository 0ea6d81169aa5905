//! [`Selector`]: which entries of an archive are taken, and where they go. Pure.

use crate::glob::{BadPattern, GlobSet};
use crate::path::{BadPath, TreePath};
use crate::recipe::Select;

/// A [`Select`] whose patterns have been read.
#[derive(Debug, Clone)]
pub struct Selector {
    into: TreePath,
    strip: usize,
    include: Option<GlobSet>,
    exclude: GlobSet,
}

impl Selector {
    /// Reads the patterns of `select`.
    pub fn new(select: &Select) -> Result<Self, BadPattern> {
        Ok(Self {
            into: select.into.clone().unwrap_or_else(TreePath::root),
            strip: select.strip as usize,
            include: match select.include.as_slice() {
                [] => None,
                patterns => Some(GlobSet::new(patterns)?),
            },
            exclude: GlobSet::new(&select.exclude)?,
        })
    }

    /// Returns where the entry at `path` (in the archive) goes; `None`: it is left out. The target of a hard link is
    /// placed the same way.
    ///
    /// An entry of which `strip` leaves nothing is left out, as tar(1) does; with nothing to strip, the archive's root
    /// is the folder that all goes into. A pattern that matches a folder speaks for all that is below it; the parents of
    /// what is included are not taken along. Fails where the new path is too long.
    pub fn place(&self, path: &TreePath) -> Result<Option<TreePath>, BadPath> {
        let Some(path) = self.stripped(path)? else {
            return Ok(None);
        };
        let taken = self.include.as_ref().is_none_or(|include| include.covers(&path));
        if !taken || self.exclude.covers(&path) {
            return Ok(None);
        }
        self.into.join_path(&path).map(Some)
    }

    fn stripped(&self, path: &TreePath) -> Result<Option<TreePath>, BadPath> {
        if self.strip == 0 {
            return Ok(Some(path.clone()));
        }
        let names: Vec<&[u8]> = path.names().skip(self.strip).collect();
        if names.is_empty() {
            return Ok(None);
        }
        TreePath::parse(names.join(&b'/')).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(select: &Select, path: &str) -> Option<String> {
        let path = TreePath::normalise(path).unwrap();
        let placed = Selector::new(select).unwrap().place(&path).unwrap();
        placed.map(|path| path.to_string())
    }

    fn patterns(list: &[&str]) -> Vec<String> {
        list.iter().map(|&pattern| pattern.to_owned()).collect()
    }

    #[test]
    fn without_a_wish_everything_stays_where_it_is() {
        let all = Select::default();
        for path in ["/", "/a", "/a/b c/d"] {
            assert_eq!(place(&all, path).as_deref(), Some(path));
        }
    }

    #[test]
    fn names_are_stripped_and_what_has_none_left_is_left_out() {
        let select = Select {
            strip: 1,
            into: Some(TreePath::parse("opt/x").unwrap()),
            ..Select::default()
        };
        for (path, expected) in [
            ("/", None),
            ("top", None),
            ("top/bin", Some("/opt/x/bin")),
            ("top/bin/a", Some("/opt/x/bin/a")),
        ] {
            assert_eq!(place(&select, path).as_deref(), expected, "{path}");
        }
        let into = Select { strip: 0, ..select };
        assert_eq!(place(&into, "/").as_deref(), Some("/opt/x"));
    }

    #[test]
    fn include_and_exclude_see_the_stripped_path_and_speak_for_what_is_below() {
        let select = Select {
            strip: 1,
            include: patterns(&["usr/lib", "etc/*.conf"]),
            exclude: patterns(&["**/*.a", "usr/lib/debug"]),
            ..Select::default()
        };
        for (path, taken) in [
            ("x/usr/lib", true),
            ("x/usr/lib/deep/libc.so", true),
            ("x/usr/lib/deep/libc.a", false),
            ("x/usr/lib/debug/libc.so", false),
            ("x/usr", false),
            ("x/usr/library", false),
            ("x/etc/a.conf", true),
            ("x/etc/d/a.conf", false),
            ("usr/lib/x", false),
        ] {
            assert_eq!(place(&select, path).is_some(), taken, "{path}");
        }
    }

    #[test]
    fn what_lies_below_an_excluded_folder_is_gone_though_it_is_included() {
        let select = Select {
            include: patterns(&["a/b/c"]),
            exclude: patterns(&["a"]),
            ..Select::default()
        };
        assert_eq!(place(&select, "a/b/c"), None);
    }

    #[test]
    fn a_path_that_grows_too_long_is_an_error() {
        let long = TreePath::parse(vec![["x"; 100].concat(); 30].join("/")).unwrap();
        let select = Select {
            into: Some(long.clone()),
            ..Select::default()
        };
        assert!(Selector::new(&select).unwrap().place(&long).is_err());
    }

    #[test]
    fn a_broken_pattern_is_named() {
        let select = Select {
            exclude: patterns(&["a/[b"]),
            ..Select::default()
        };
        assert_eq!(Selector::new(&select).unwrap_err().pattern, "a/[b");
    }
}
