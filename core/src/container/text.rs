//! [`Text`]: what the kernel takes as text and JSON may not be able to hold: arguments, variables, paths.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::{self, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Bytes that are text as a rule: a JSON string where they are UTF-8, else `{"base64": "…"}`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Text(pub OsString);

const KEY: &str = "base64";

impl Text {
    /// Returns the text of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(OsStr::from_bytes(bytes).to_owned())
    }

    /// Returns the bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl<T: Into<OsString>> From<T> for Text {
    fn from(text: T) -> Self {
        Self(text.into())
    }
}

impl AsRef<OsStr> for Text {
    fn as_ref(&self) -> &OsStr {
        &self.0
    }
}

/// For messages: harmless, and not for reading back.
impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&crate::path::shown(self.as_bytes()))
    }
}

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if let Some(text) = self.0.to_str() {
            return serializer.serialize_str(text);
        }
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry(KEY, &STANDARD.encode(self.as_bytes()))?;
        map.end()
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Text;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string or {\"base64\": \"…\"}")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Text, E> {
        Ok(text.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Text, A::Error> {
        let Some((key, encoded)) = map.next_entry::<String, String>()? else {
            return Err(de::Error::missing_field(KEY));
        };
        if key != KEY {
            return Err(de::Error::unknown_field(&key, &[KEY]));
        }
        let bytes = STANDARD.decode(encoded).map_err(de::Error::custom)?;
        Ok(Text(OsString::from_vec(bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_byte_is_lost_on_the_way_through_json() {
        for bytes in [
            b"".as_slice(),
            b"plain",
            b"\xff\x00\xfe",
            "\u{fffd}\n\"ä".as_bytes(),
            b"{\"base64\": \"\"}",
        ] {
            let json = serde_json::to_string(&Text::of(bytes)).unwrap();
            let back: Text = serde_json::from_str(&json).unwrap();
            assert_eq!(back.as_bytes(), bytes, "{json}");
        }
        assert_eq!(
            serde_json::to_string(&Text::of(b"a\xff")).unwrap(),
            r#"{"base64":"Yf8="}"#
        );
    }

    #[test]
    fn what_is_neither_is_refused() {
        for json in ["1", "[]", "{}", r#"{"base32":""}"#, r#"{"base64":"*"}"#] {
            assert!(serde_json::from_str::<Text>(json).is_err(), "{json} was accepted");
        }
    }
}
