//! [`Lock`]: which digest every source had when it was last agreed on; text ↔ value. Pure.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use serde::Deserialize;
use toml::Spanned;

use crate::digest::{BadDigest, Digest};
use crate::path::{TreePath, shown};

/// The pins of one recipe. Order is by key, so that differences read well.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Lock {
    /// Debian packages.
    pub debs: BTreeMap<DebKey, DebPin>,
    /// URLs that the recipe gives without a sha256.
    pub urls: BTreeMap<String, UrlPin>,
}

/// What a pinned package is asked for by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DebKey {
    /// Suite, such as `bookworm`.
    pub suite: String,
    /// Package name.
    pub package: String,
    /// Debian's name of the architecture: `amd64` or `arm64`.
    pub arch: String,
}

/// What a package was when it was pinned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DebPin {
    /// Debian version.
    pub version: String,
    /// SHA-256 of the `.deb`.
    pub sha256: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// Its path in the mirror.
    pub path: String,
}

/// What a URL held when it was first seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UrlPin {
    /// SHA-256 of the bytes.
    pub sha256: Digest,
    /// Their number.
    pub size: u64,
}

/// The version of the format that is read and written here.
const VERSION: i64 = 1;

/// The architectures that packages are pinned for, by Debian's names.
const ARCHITECTURES: [&str; 2] = ["amd64", "arm64"];

/// What stands above every lock.
const HEADER: &str = "\
# Which bytes the sources of the recipe of the same name are. Written by mk, and kept beside the recipe in version
# control. `mk lock --update` renews it; `mk build --locked` refuses to build where it would change.
";

/// What is wrong with a lock.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the lock: {what}")]
pub struct BadLock {
    /// The line that it is in, from 1.
    pub line: usize,
    /// What was found and what was expected, as a fragment.
    pub what: String,
}

impl Lock {
    /// Reads a lock. Strict: what this version of mk would not write is refused, order and comments aside.
    pub fn parse(text: &str) -> Result<Self, BadLock> {
        let refuse = |error: &toml::de::Error| BadLock {
            line: line_of(text, error.span().map_or(text.len(), |span| span.start)),
            what: error.message().trim().replace('\n', ", "),
        };
        // The version first: another version's keys are no reason to call it damaged.
        let Version { version } = toml::from_str(text).map_err(|error| refuse(&error))?;
        if *version.get_ref() != VERSION {
            return Err(BadLock {
                line: line_of(text, version.span().start),
                what: format!("version {} is not known: expected {VERSION}", version.get_ref()),
            });
        }
        let raw: RawLock = toml::from_str(text).map_err(|error| refuse(&error))?;
        let at = |span: Range<usize>| {
            move |what| BadLock {
                line: line_of(text, span.start),
                what,
            }
        };
        let mut lock = Self::default();
        for deb in raw.deb {
            let span = deb.span();
            let (key, pin) = deb.into_inner().check().map_err(at(span.clone()))?;
            let again = format!(
                "`{}` of {} for {} is pinned twice",
                key.package, key.suite, key.arch
            );
            if lock.debs.insert(key, pin).is_some() {
                return Err(at(span)(again));
            }
        }
        for url in raw.url {
            let span = url.span();
            let (key, pin) = url.into_inner().check().map_err(at(span.clone()))?;
            let again = format!("`{}` is pinned twice", shown(key.as_bytes()));
            if lock.urls.insert(key, pin).is_some() {
                return Err(at(span)(again));
            }
        }
        Ok(lock)
    }

    /// Returns the lock as it is written: sorted, one table a source, so that differences read well.
    pub fn to_text(&self) -> String {
        self.to_string()
    }
}

/// The text of the file, with its comment on top.
impl fmt::Display for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quoted = |text: &str| toml::Value::from(text).to_string();
        writeln!(f, "{HEADER}version = {VERSION}")?;
        for (key, pin) in &self.debs {
            writeln!(f, "\n[[deb]]")?;
            writeln!(f, "package = {}", quoted(&key.package))?;
            writeln!(f, "suite = {}", quoted(&key.suite))?;
            writeln!(f, "arch = {}", quoted(&key.arch))?;
            writeln!(f, "version = {}", quoted(&pin.version))?;
            writeln!(f, "sha256 = \"{}\"", pin.sha256)?;
            writeln!(f, "size = {}", pin.size)?;
            writeln!(f, "path = {}", quoted(&pin.path))?;
        }
        for (url, pin) in &self.urls {
            writeln!(f, "\n[[url]]")?;
            writeln!(f, "url = {}", quoted(url))?;
            writeln!(f, "sha256 = \"{}\"", pin.sha256)?;
            writeln!(f, "size = {}", pin.size)?;
        }
        Ok(())
    }
}

/// The one key that every version of the format has.
#[derive(Deserialize)]
struct Version {
    version: Spanned<i64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLock {
    #[serde(rename = "version")]
    _version: i64,
    #[serde(default)]
    deb: Vec<Spanned<RawDeb>>,
    #[serde(default)]
    url: Vec<Spanned<RawUrl>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawDeb {
    package: String,
    suite: String,
    arch: String,
    version: String,
    sha256: String,
    size: u64,
    path: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawUrl {
    url: String,
    sha256: String,
    size: u64,
}

impl RawDeb {
    fn check(self) -> Result<(DebKey, DebPin), String> {
        for (name, text) in [
            ("package", &self.package),
            ("suite", &self.suite),
            ("version", &self.version),
        ] {
            let is_word =
                !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/');
            if !is_word {
                return Err(format!(
                    "`{name}` cannot be `{}`: expected one word",
                    shown(text.as_bytes())
                ));
            }
        }
        if !ARCHITECTURES.contains(&self.arch.as_str()) {
            return Err(format!(
                "`arch` cannot be `{}`: expected one of {}",
                shown(self.arch.as_bytes()),
                ARCHITECTURES.join(", ")
            ));
        }
        // It is put behind the address of a mirror, which it must not leave.
        TreePath::parse(&self.path).map_err(|bad| format!("`path`: {bad}"))?;
        if !self.path.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(format!(
                "`path` cannot be `{}`: expected one word",
                shown(self.path.as_bytes())
            ));
        }
        let pin = DebPin {
            sha256: self.sha256.parse().map_err(|bad: BadDigest| bad.to_string())?,
            version: self.version,
            size: size(self.size)?,
            path: self.path,
        };
        let key = DebKey {
            suite: self.suite,
            package: self.package,
            arch: self.arch,
        };
        Ok((key, pin))
    }
}

impl RawUrl {
    fn check(self) -> Result<(String, UrlPin), String> {
        let is_url = ["http://", "https://"]
            .iter()
            .any(|scheme| self.url.starts_with(scheme))
            && self.url.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_url {
            return Err(format!(
                "`url` cannot be `{}`: expected an http:// or https:// URL",
                shown(self.url.as_bytes())
            ));
        }
        let pin = UrlPin {
            sha256: self.sha256.parse().map_err(|bad: BadDigest| bad.to_string())?,
            size: size(self.size)?,
        };
        Ok((self.url, pin))
    }
}

/// A number that TOML, whose integers have a sign, can hold.
fn size(bytes: u64) -> Result<u64, String> {
    match i64::try_from(bytes) {
        Ok(_) => Ok(bytes),
        Err(_) => Err(format!("`size` cannot be {bytes}: expected at most {}", i64::MAX)),
    }
}

/// The line that byte `at` of `text` is in, from 1.
fn line_of(text: &str, at: usize) -> usize {
    let before = &text.as_bytes()[..at.min(text.len())];
    before.iter().filter(|byte| **byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DEB: &str = "\
[[deb]]
package = \"hello\"
suite = \"bookworm\"
arch = \"amd64\"
version = \"1:2.10-3+b1\"
sha256 = \"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\"
size = 52
path = \"pool/main/h/hello/hello_2.10-3_amd64.deb\"
";

    fn refused(text: &str) -> BadLock {
        match Lock::parse(text) {
            Ok(lock) => panic!("accepted as {lock}"),
            Err(bad) => bad,
        }
    }

    #[test]
    fn a_lock_is_sorted_and_says_what_it_is() {
        let two = format!(
            "version = 1\n{}{}",
            DEB.replace("amd64", "arm64"),
            DEB.replace("\"hello\"", "\"abc\"")
        );
        let text = Lock::parse(&two).unwrap().to_text();
        assert!(text.starts_with("# ") && text.contains("`mk lock --update`"));
        let packages: Vec<&str> = text.lines().filter(|line| line.starts_with("package")).collect();
        assert_eq!(packages, ["package = \"abc\"", "package = \"hello\""]);
        assert_eq!(Lock::parse(&text).unwrap().to_text(), text);
    }

    #[test]
    fn an_empty_lock_has_no_tables() {
        let text = Lock::default().to_text();
        assert_eq!(text, format!("{HEADER}version = 1\n"));
        assert_eq!(Lock::parse(&text).unwrap(), Lock::default());
    }

    #[test]
    fn a_lock_of_another_version_is_refused_as_such() {
        let bad = refused("# x\nversion = 2\n[[crate]]\n");
        assert_eq!(
            bad.to_string(),
            "line 2 of the lock: version 2 is not known: expected 1"
        );
        refused("");
        refused("version = \"1\"");
    }

    #[test]
    fn what_mk_would_not_write_is_refused_with_its_line() {
        let lock = |change: (&str, &str)| format!("version = 1\n\n{}", DEB.replace(change.0, change.1));
        let sha = "sha256 = \"e3b0c44";
        for (change, said) in [
            (("size = 52", "size = -1"), "invalid value"),
            (("size = 52", "size = 5\nsha1 = \"\""), "unknown field `sha1`"),
            (("size = 52\n", ""), "missing field `size`"),
            ((sha, "sha256 = \"E3B0C44"), "is not a sha256"),
            ((sha, "sha256 = \"3b0c44"), "is not a sha256"),
            (("\"amd64\"", "\"x86_64\""), "expected one of amd64, arm64"),
            (("pool/main", "../pool"), "not a path inside an image"),
            (("pool/main", "/pool"), "not a path inside an image"),
            (("pool/main", "pool/ma in"), "expected one word"),
            (("\"bookworm\"", "\"\""), "expected one word"),
            (("\"bookworm\"", "\"a/../b\""), "expected one word"),
        ] {
            let bad = refused(&lock(change));
            assert!(bad.what.contains(said) && bad.line >= 3, "{change:?}: {bad}");
        }
        let bad = refused(&format!("version = 1\n{DEB}{DEB}"));
        assert_eq!((bad.line, bad.what.contains("twice")), (10, true), "{bad}");
        let url = "[[url]]\nurl = \"ftp://a/b\"\nsize = 1\nsha256 = \"\"\n";
        assert!(refused(&format!("version = 1\n{url}")).what.contains("https://"));
        refused("version = 1\n[[debs]]\n");
        refused("version = 1\n[[deb]\n");
    }

    prop_compose! {
        fn deb()(
            package in "[a-z0-9][a-z0-9+.-]{1,20}",
            suite in "[a-z][a-z-]{0,10}",
            arch in prop::sample::select(&ARCHITECTURES),
            version in "[0-9][0-9A-Za-z.+:~-]{0,20}",
            bytes: [u8; 4],
            size in 0..i64::MAX as u64,
            path in "[a-zA-Z0-9_~+\"'\\\\]{1,9}(/[a-z0-9_.]{3,9}){0,3}",
        ) -> (DebKey, DebPin) {
            let key = DebKey { suite, package, arch: (*arch).to_owned() };
            (key, DebPin { version, sha256: Digest::of(&bytes), size, path })
        }
    }

    prop_compose! {
        fn url()(
            url in "https?://[!-~]{1,40}",
            bytes: [u8; 4],
            size in 0..i64::MAX as u64,
        ) -> (String, UrlPin) {
            (url, UrlPin { sha256: Digest::of(&bytes), size })
        }
    }

    proptest! {
        #[test]
        fn a_lock_is_read_back_as_it_was(
            debs in prop::collection::btree_map(any::<u8>(), deb(), 0..6),
            urls in prop::collection::vec(url(), 0..6),
        ) {
            let lock = Lock {
                debs: debs.into_values().collect(),
                urls: urls.into_iter().collect(),
            };
            let text = lock.to_text();
            let read = Lock::parse(&text);
            prop_assert_eq!(read.as_ref(), Ok(&lock), "{}", text);
        }

        #[test]
        fn no_text_makes_the_reader_panic(text in "(version = 1\n)?\\PC{0,40}(\\[\\[deb\\]\\]\n)?[a-z0-9 =\"\n\\[\\]{}]{0,80}") {
            if let Err(bad) = Lock::parse(&text) {
                prop_assert!(bad.line <= text.lines().count().max(1) + 1);
            }
        }
    }
}
