//! What a container goes by: the [`Id`] that mk gives it, and a name that its owner may.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Error;
use crate::sys::SysError;
use crate::sys::file;

/// What mk calls a container: twelve hexadecimal digits that nobody can guess.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(String);

impl Id {
    /// How many digits there are.
    pub const LENGTH: usize = 12;

    /// Returns one that hardly anything else has.
    pub fn random() -> Result<Self, SysError> {
        Ok(Self(format!("{:012x}", file::random()? >> 16)))
    }

    /// Returns the digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Id {
    type Err = BadId;

    fn from_str(text: &str) -> Result<Self, BadId> {
        match text.len() == Self::LENGTH && is_prefix(text) {
            true => Ok(Self(text.to_owned())),
            false => Err(BadId),
        }
    }
}

/// A text that is no id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected twelve hexadecimal digits")]
pub struct BadId;

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// So many digits of an id say which one is meant; fewer are more likely a slip.
const SHORTEST: usize = 4;

/// Whether `text` may be the beginning of an id.
pub(super) fn is_prefix(text: &str) -> bool {
    (SHORTEST..=Id::LENGTH).contains(&text.len())
        && text
            .bytes()
            .all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
}

/// Accepts what the names of images may be: 1 to 128 lower-case letters, digits, `.`, `_` and `-`, no sign first.
pub fn check_name(name: &str) -> Result<(), Error> {
    // What an id looks like would be found as a name, and hide the container whose id it is.
    if name.parse::<Id>().is_ok() {
        return Err(Error::NameLikeId {
            name: name.to_owned(),
        });
    }
    crate::store::image::check_name(name).map_err(|_| Error::BadName {
        name: crate::path::shown(name.as_bytes()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_twelve_digits_and_no_two_are_the_same() {
        let one = Id::random().unwrap();
        assert_eq!(one.as_str().parse(), Ok(one.clone()));
        assert_ne!(one, Id::random().unwrap());
        for text in ["", "0123456789a", "0123456789abc", "0123456789aB", "../456789abc"] {
            assert!(text.parse::<Id>().is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn a_name_is_one_that_an_image_could_have_and_no_id() {
        for name in ["web", "a", "7", "web-1.test_x", "abc"] {
            assert!(check_name(name).is_ok(), "{name:?} was refused");
        }
        let long = "a".repeat(129);
        for name in [
            "",
            "-web",
            ".web",
            "Web",
            "we b",
            "a/b",
            "..",
            "ü",
            "a\n",
            &long,
            "0123456789ab",
        ] {
            assert!(check_name(name).is_err(), "{name:?} was accepted");
        }
    }
}
