//! [`TreePath`]: a path inside an image, which cannot leave it.

use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The longest path that an image may hold, in bytes (`PATH_MAX` less the closing NUL, limits.h).
pub const LONGEST_PATH: usize = 4095;
/// The longest name of one file, in bytes (`NAME_MAX`, limits.h).
pub const LONGEST_NAME: usize = 255;

/// A path inside an image: relative, of bytes, free of empty parts, `.`, `..` and NUL. The root is the empty one.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TreePath(Box<[u8]>);

/// Why a text is no path inside an image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{path}` is not a path inside an image: {why}")]
pub struct BadPath {
    /// The path as it was given.
    pub path: String,
    /// What is wrong with it, as a fragment.
    pub why: &'static str,
}

impl TreePath {
    /// Returns the root of the image.
    pub fn root() -> Self {
        Self(Box::default())
    }

    /// Accepts `bytes` only where following them can never leave the image: no leading slash, no `.` or `..`.
    pub fn parse(bytes: impl AsRef<[u8]>) -> Result<Self, BadPath> {
        let bytes = bytes.as_ref();
        let refuse = |why| {
            Err(BadPath {
                path: shown(bytes),
                why,
            })
        };
        if bytes.is_empty() {
            return refuse("it is empty");
        }
        if bytes.len() > LONGEST_PATH {
            return refuse("it is longer than 4095 bytes");
        }
        for name in bytes.split(|&byte| byte == b'/') {
            match name {
                b"" => return refuse("it has an empty part (a leading, closing or double slash)"),
                b"." | b".." => return refuse("`.` and `..` are not allowed in it"),
                _ if name.len() > LONGEST_NAME => return refuse("a name in it is longer than 255 bytes"),
                _ if name.contains(&0) => return refuse("it holds a NUL byte"),
                _ => {}
            }
        }
        Ok(Self(bytes.into()))
    }

    /// Accepts a path as a person or an archive writes it: `/a/b`, `./a/b/`, `a//b`, `/`. Still refuses `..` and NUL.
    pub fn normalise(bytes: impl AsRef<[u8]>) -> Result<Self, BadPath> {
        let bytes = bytes.as_ref();
        let names: Vec<&[u8]> = bytes
            .split(|&byte| byte == b'/')
            .filter(|name| !name.is_empty() && *name != b".")
            .collect();
        if names.is_empty() {
            return Ok(Self::root());
        }
        Self::parse(names.join(&b'/')).map_err(|bad| BadPath {
            path: shown(bytes),
            ..bad
        })
    }

    /// Whether this is the root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the bytes, without a leading slash; none for the root.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Returns the path for calls below a directory handle: `.` for the root.
    pub fn as_path(&self) -> &Path {
        if self.is_root() {
            Path::new(".")
        } else {
            Path::new(std::ffi::OsStr::from_bytes(&self.0))
        }
    }

    /// Returns the last name; none for the root.
    pub fn name(&self) -> Option<&[u8]> {
        if self.is_root() {
            None
        } else {
            self.0.rsplit(|&byte| byte == b'/').next()
        }
    }

    /// Returns the folder that holds this path; none for the root.
    pub fn parent(&self) -> Option<Self> {
        if self.is_root() {
            return None;
        }
        let cut = self.0.iter().rposition(|&byte| byte == b'/').unwrap_or(0);
        Some(Self(self.0[..cut].into()))
    }

    /// Returns the names from the root down.
    pub fn names(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.0.split(|&byte| byte == b'/').filter(|name| !name.is_empty())
    }

    /// Returns `name` inside this folder. `name` must be one single name.
    pub fn join(&self, name: &[u8]) -> Result<Self, BadPath> {
        self.join_path(&Self::parse(name)?)
    }

    /// Returns the path `below` this folder.
    pub fn join_path(&self, below: &Self) -> Result<Self, BadPath> {
        match (self.is_root(), below.is_root()) {
            (true, _) => Ok(below.clone()),
            (_, true) => Ok(self.clone()),
            _ => Self::parse([&*self.0, b"/", &*below.0].concat()),
        }
    }

    /// Returns where this path is once what was `from` is `to`; itself where it does not lie in there.
    pub fn rebased(&self, from: &Self, to: &Self) -> Result<Self, BadPath> {
        if !self.is_within(from) || self == from {
            return Ok(if self == from { to.clone() } else { self.clone() });
        }
        let cut = if from.is_root() { 0 } else { from.0.len() + 1 };
        to.join_path(&Self(self.0[cut..].into()))
    }

    /// Whether this path is `folder` or lies below it.
    pub fn is_within(&self, folder: &Self) -> bool {
        folder.is_root()
            || self
                .0
                .strip_prefix(&*folder.0)
                .is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
    }
}

/// As a person writes it: with a leading slash, odd bytes escaped.
impl fmt::Display for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", shown(&self.0))
    }
}

impl fmt::Debug for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Returns `bytes` as text for a message: escaped where they are not UTF-8, control characters, or characters that change
/// the order or the lines in which others are shown; never raw.
pub fn shown(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for letter in chunk.valid().chars() {
            if letter.is_control() || is_order(letter) {
                text.extend(letter.escape_default())
            } else {
                text.push(letter)
            }
        }
        chunk
            .invalid()
            .iter()
            .for_each(|byte| text.push_str(&format!("\\x{byte:02x}")));
    }
    text
}

/// Whether `letter` changes where on a line, or on which line, others appear (Unicode Annex 9; the two separators): a name
/// that holds one can look like another, or like the end of a message.
fn is_order(letter: char) -> bool {
    matches!(letter, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{206f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_could_leave_the_image_is_refused() {
        for text in ["", "/etc", "a//b", "a/../b", "a/.", "a\0b", "a/", ".."] {
            assert!(TreePath::parse(text).is_err(), "{text:?} was accepted");
        }
        for text in ["..", "/..", "a/../b", "./../x", "a\0"] {
            assert!(TreePath::normalise(text).is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn the_ways_to_write_a_path_meet() {
        for text in ["a/b", "/a/b", "./a/b/", "a//b", "/./a/./b"] {
            assert_eq!(
                TreePath::normalise(text).unwrap(),
                TreePath::parse("a/b").unwrap()
            );
        }
        for text in ["", "/", ".", "./", "//"] {
            assert!(TreePath::normalise(text).unwrap().is_root());
        }
    }

    #[test]
    fn parents_and_names() {
        let path = TreePath::parse("usr/bin/env").unwrap();
        assert_eq!(path.parent().unwrap(), TreePath::parse("usr/bin").unwrap());
        assert_eq!(path.name().unwrap(), b"env");
        assert_eq!(
            TreePath::parse("usr").unwrap().parent().unwrap(),
            TreePath::root()
        );
        assert!(TreePath::root().parent().is_none());
        assert!(path.is_within(&TreePath::parse("usr").unwrap()));
        assert!(!path.is_within(&TreePath::parse("us").unwrap()));
        assert_eq!(TreePath::root().names().count(), 0);
    }

    #[test]
    fn control_characters_never_reach_a_terminal() {
        assert_eq!(shown(b"a\x1b[2Jb\xff"), "a\\u{1b}[2Jb\\xff");
    }

    #[test]
    fn a_name_cannot_look_like_another_by_turning_its_letters_around() {
        assert_eq!(
            shown("a\u{202e}txt.exe\u{2069}".as_bytes()),
            "a\\u{202e}txt.exe\\u{2069}"
        );
        assert_eq!(shown("a\u{2028}error: b".as_bytes()), "a\\u{2028}error: b");
        for usual in ["ä", "日本", "שלום", "👩‍🔬", "a b"] {
            assert_eq!(shown(usual.as_bytes()), usual);
        }
    }
}
