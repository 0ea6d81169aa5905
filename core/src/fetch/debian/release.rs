//! [`Release`]: what a suite's `InRelease` promises (Debian wiki, "RepositoryFormat").

use std::collections::BTreeMap;
use std::time::SystemTime;

use super::{Error, date};
use crate::digest::Digest;

/// A suite as its publisher describes it.
#[derive(Debug, Default)]
pub(super) struct Release {
    pub(super) suite: String,
    pub(super) codename: String,
    valid_until: Option<String>,
    /// Whether indexes can also be had by their digest, which does not change under a reader.
    pub(super) by_hash: bool,
    /// Whether packages for every architecture are left out of the indexes of each.
    pub(super) all_apart: bool,
    files: BTreeMap<String, (Digest, u64)>,
}

impl Release {
    /// Reads the text of a release from `url`; malformed lines in its list of files are errors.
    pub(super) fn parse(text: &str, url: &str) -> Result<Self, Error> {
        let mut release = Self::default();
        let mut no_support = String::new();
        let mut has_all = false;
        let mut list = false;
        for line in text.lines() {
            if line.starts_with([' ', '\t']) {
                if list {
                    release.add_file(line).ok_or_else(|| Error::Malformed {
                        url: url.to_owned(),
                        why: format!(
                            "`{}` is not `sha256 size path`",
                            crate::path::shown(line.trim().as_bytes())
                        ),
                    })?;
                }
                continue;
            }
            let Some((name, value)) = line.split_once(':') else {
                continue;
            };
            let value = value.trim();
            list = name.eq_ignore_ascii_case("SHA256");
            match name.to_ascii_lowercase().as_str() {
                "suite" => release.suite = value.to_owned(),
                "codename" => release.codename = value.to_owned(),
                "valid-until" => release.valid_until = Some(value.to_owned()),
                "acquire-by-hash" => release.by_hash = value.eq_ignore_ascii_case("yes"),
                "architectures" => has_all = value.split_ascii_whitespace().any(|arch| arch == "all"),
                "no-support-for-architecture-all" => no_support = value.to_owned(),
                _ => {}
            }
        }
        release.all_apart = has_all
            && !no_support
                .split_ascii_whitespace()
                .any(|index| index == "Packages");
        Ok(release)
    }

    fn add_file(&mut self, line: &str) -> Option<()> {
        let mut words = line.split_ascii_whitespace();
        let digest = words.next()?.parse().ok()?;
        let size = words.next()?.parse().ok()?;
        self.files.insert(words.next()?.to_owned(), (digest, size));
        Some(())
    }

    /// Makes sure that this is the suite that was asked for.
    pub(super) fn check_suite(&self, asked: &str, url: &str) -> Result<(), Error> {
        if [&self.suite, &self.codename]
            .into_iter()
            .any(|name| name == asked)
        {
            return Ok(());
        }
        Err(Error::OtherSuite {
            url: url.to_owned(),
            asked: asked.to_owned(),
            suite: self.suite.clone(),
            codename: self.codename.clone(),
        })
    }

    /// Makes sure that its publisher still stands by it at the time `now`.
    pub(super) fn check_age(&self, now: SystemTime, url: &str) -> Result<(), Error> {
        let Some(text) = &self.valid_until else {
            return Ok(());
        };
        let until = date::parse(text).ok_or_else(|| Error::Malformed {
            url: url.to_owned(),
            why: format!(
                "`Valid-Until: {}` is not a date",
                crate::path::shown(text.as_bytes())
            ),
        })?;
        if now <= until {
            return Ok(());
        }
        Err(Error::Expired {
            url: url.to_owned(),
            until: text.clone(),
        })
    }

    /// Returns the first of the files `names` that there is, with its digest and size.
    pub(super) fn file<'a>(&self, names: &'a [String]) -> Option<(&'a str, Digest, u64)> {
        names.iter().find_map(|name| {
            self.files
                .get(name)
                .map(|&(digest, size)| (name.as_str(), digest, size))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_list_of_sha256_counts() {
        let digest = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let text = format!(
            "Suite: stable\r\nMD5Sum:\r\n 00 1 main/x\r\nSHA256:\r\n {digest}\t 7  main/x\r\nSHA512:\r\n 00 1 main/y\r\n"
        );
        let release = Release::parse(&text, "u").unwrap();
        assert_eq!(release.suite, "stable");
        let names = ["main/y".to_owned(), "main/x".to_owned()];
        assert_eq!(release.file(&names), Some(("main/x", digest.parse().unwrap(), 7)));
        assert_eq!(release.file(&names[..1]), None);
    }

    #[test]
    fn packages_for_all_architectures_stand_apart_unless_it_says_otherwise() {
        for (text, apart) in [
            ("Architectures: amd64 arm64", false),
            ("Architectures: all amd64", true),
            (
                "Architectures: all amd64\nNo-Support-for-Architecture-all: Packages",
                false,
            ),
            (
                "No-Support-for-Architecture-all: Contents\nArchitectures: all amd64",
                true,
            ),
        ] {
            assert_eq!(Release::parse(text, "u").unwrap().all_apart, apart, "{text}");
        }
    }

    #[test]
    fn a_date_that_is_none_is_no_licence() {
        let release = Release::parse("Valid-Until: some day", "u").unwrap();
        let error = release.check_age(SystemTime::UNIX_EPOCH, "u").unwrap_err();
        assert_eq!(
            error.to_string(),
            "`u` is not a Debian index: `Valid-Until: some day` is not a date"
        );
    }

    proptest::proptest! {
        #[test]
        fn no_text_is_too_odd(text in "(?s)(SHA256:|Valid-Until:|[\n: ]|[0-9a-f]{64} 1|.){0,60}") {
            if let Ok(release) = Release::parse(&text, "u") {
                drop(release.check_age(SystemTime::UNIX_EPOCH, "u"));
            }
            date::parse(&text);
        }
    }
}
