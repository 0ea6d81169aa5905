//! [`Pax`]: what a pax extended header says about the entry that follows it (pax(1), "pax Interchange Format"), with the
//! keys that GNU tar, star and libarchive added.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::body::Stretch;

/// The longest name of an extended attribute (`XATTR_NAME_MAX`, linux/limits.h).
const LONGEST_XATTR_NAME: usize = 255;
/// The longest value of an extended attribute (`XATTR_SIZE_MAX`, linux/limits.h).
const LONGEST_XATTR_VALUE: usize = 65536;

/// libarchive writes no padding, others do.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The records of one header, or of several laid over one another.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Pax {
    pub(super) path: Option<Vec<u8>>,
    pub(super) linkpath: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<i64>,
    pub(super) gid: Option<i64>,
    /// Whole seconds; what lies between two of them belongs to the earlier one, as in the kernel's `timespec`.
    pub(super) mtime: Option<i64>,
    pub(super) major: Option<u32>,
    pub(super) minor: Option<u32>,
    pub(super) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(super) sparse: Sparse,
}

/// The `GNU.sparse.*` records (GNU tar manual, "Storing Sparse Files").
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Sparse {
    /// Version of the format, where it is 1.0 or later.
    pub(super) version: (Option<u64>, Option<u64>),
    pub(super) name: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) count: Option<u64>,
    pub(super) map: Vec<Stretch>,
    /// The offset of a stretch whose length is still to come.
    pub(super) offset: Option<u64>,
}

impl Sparse {
    /// Whether the entry is a sparse file at all.
    pub(super) fn is_used(&self) -> bool {
        self.version.0.is_some() || self.count.is_some() || !self.map.is_empty()
    }
}

impl Pax {
    /// Takes in the records of one header; says what is wrong with them. `stretches` limits a sparse map.
    pub(super) fn read(&mut self, mut text: &[u8], stretches: u64) -> Result<(), String> {
        while !text.is_empty() {
            let (key, value, rest) = record(text)
                .ok_or("a record of a pax header is not of the form `LENGTH KEY=VALUE` and a newline")?;
            self.set(key, value, stretches).map_err(|wrong| {
                format!(
                    "`{}` in a pax header: {wrong}",
                    crate::path::shown(&key[..key.len().min(100)])
                )
            })?;
            text = rest;
        }
        Ok(())
    }

    /// Takes in one record; an empty value takes back what an earlier header has said.
    fn set(&mut self, key: &[u8], value: &[u8], stretches: u64) -> Result<(), String> {
        let given = !value.is_empty();
        match key {
            b"path" => self.path = given.then(|| value.to_vec()),
            b"linkpath" => self.linkpath = given.then(|| value.to_vec()),
            b"size" => self.size = given.then(|| unsigned(value)).transpose()?,
            b"uid" => self.uid = given.then(|| signed(value)).transpose()?,
            b"gid" => self.gid = given.then(|| signed(value)).transpose()?,
            b"mtime" => self.mtime = given.then(|| seconds(value)).transpose()?,
            b"SCHILY.devmajor" => self.major = given.then(|| number(value)).transpose()?,
            b"SCHILY.devminor" => self.minor = given.then(|| number(value)).transpose()?,
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.xattr(name.to_vec(), value.to_vec())?;
                } else if let Some(name) = key.strip_prefix(b"LIBARCHIVE.xattr.") {
                    let value = BASE64.decode(value).map_err(|_| "its value is not base64")?;
                    self.xattr(
                        percent_decoded(name).ok_or("its name has a broken %-escape")?,
                        value,
                    )?;
                } else if let Some(key) = key.strip_prefix(b"GNU.sparse.") {
                    self.sparse.set(key, value, stretches)?;
                }
            }
        }
        Ok(())
    }

    fn xattr(&mut self, name: Vec<u8>, value: Vec<u8>) -> Result<(), String> {
        if name.is_empty() || name.len() > LONGEST_XATTR_NAME || name.contains(&0) {
            return Err("no extended attribute can have this name".into());
        }
        if value.len() > LONGEST_XATTR_VALUE {
            return Err("the value of an extended attribute is at most 65536 bytes long".into());
        }
        self.xattrs.insert(name, value);
        Ok(())
    }
}

impl Sparse {
    fn set(&mut self, key: &[u8], value: &[u8], stretches: u64) -> Result<(), String> {
        match key {
            b"major" => self.version.0 = Some(unsigned(value)?),
            b"minor" => self.version.1 = Some(unsigned(value)?),
            b"name" => self.name = Some(value.to_vec()),
            b"size" | b"realsize" => self.size = Some(unsigned(value)?),
            b"numblocks" => self.count = Some(unsigned(value)?),
            b"offset" => self.offset = Some(unsigned(value)?),
            b"numbytes" => {
                let offset = self
                    .offset
                    .take()
                    .ok_or("it has no `GNU.sparse.offset` before it")?;
                self.push(offset, unsigned(value)?, stretches)?;
            }
            b"map" => {
                self.map.clear();
                let mut numbers = value.split(|&byte| byte == b',');
                while let Some(offset) = numbers.next() {
                    let length = numbers.next().ok_or("it holds an odd number of numbers")?;
                    self.push(unsigned(offset)?, unsigned(length)?, stretches)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn push(&mut self, offset: u64, length: u64, stretches: u64) -> Result<(), String> {
        if self.map.len() as u64 >= stretches {
            return Err(format!("more than {stretches} stretches of data"));
        }
        self.map.push(Stretch { offset, length });
        Ok(())
    }
}

/// Splits off the first record: `LENGTH KEY=VALUE\n`, where LENGTH counts all of it. A value may hold any byte, a
/// newline too.
fn record(text: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = text.iter().take(20).position(|&byte| byte == b' ')?;
    let length = usize::try_from(unsigned(&text[..space]).ok()?).ok()?;
    let (record, rest) = text.split_at_checked(length)?;
    let field = record.get(space + 1..)?.strip_suffix(b"\n")?;
    let equals = field.iter().position(|&byte| byte == b'=')?;
    let key = &field[..equals];
    (!key.is_empty()).then_some((key, &field[equals + 1..], rest))
}

/// Reads decimal digits and nothing else (Rust's own parser takes a leading `+`).
pub(super) fn unsigned(text: &[u8]) -> Result<u64, String> {
    let wrong = || {
        format!(
            "expected a number, found `{}`",
            crate::path::shown(&text[..text.len().min(40)])
        )
    };
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return Err(wrong());
    }
    std::str::from_utf8(text)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or_else(wrong)
}

fn number(text: &[u8]) -> Result<u32, String> {
    u32::try_from(unsigned(text)?).map_err(|_| "the number is beyond 32 bits".into())
}

fn signed(text: &[u8]) -> Result<i64, String> {
    let (minus, digits) = match text.strip_prefix(b"-") {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let value = i64::try_from(unsigned(digits)?).map_err(|_| "the number is beyond 64 bits")?;
    Ok(if minus { -value } else { value })
}

/// Reads a time such as `1700000000.25` or `-1.5` as whole seconds, rounded down.
fn seconds(text: &[u8]) -> Result<i64, String> {
    let dot = text.iter().position(|&byte| byte == b'.');
    let (whole, fraction) = match dot {
        Some(dot) => (&text[..dot], &text[dot + 1..]),
        None => (text, &b""[..]),
    };
    if !fraction.iter().all(u8::is_ascii_digit) {
        return Err("expected a time in seconds".into());
    }
    let value = signed(whole)?;
    let between = whole.starts_with(b"-") && fraction.iter().any(|&digit| digit != b'0');
    Ok(if between { value - 1 } else { value })
}

fn percent_decoded(text: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let mut decoded = Vec::new();
    let mut bytes = text.iter().copied();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => digit(bytes.next()?)? << 4 | digit(bytes.next()?)?,
            other => other,
        });
    }
    Some(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(key: &str, value: &[u8]) -> Vec<u8> {
        let rest = key.len() + value.len() + 3;
        let mut length = rest + 1;
        while length != rest + length.to_string().len() {
            length = rest + length.to_string().len();
        }
        [format!("{length} {key}=").as_bytes(), value, b"\n"].concat()
    }

    fn read(records: &[(&str, &[u8])]) -> Result<Pax, String> {
        let mut pax = Pax::default();
        let text: Vec<u8> = records.iter().flat_map(|(key, value)| line(key, value)).collect();
        pax.read(&text, 3).map(|()| pax)
    }

    #[test]
    fn a_value_may_hold_newlines_equals_signs_and_nuls() {
        let value = b"\x01\n12 a=b\n\0=";
        let pax = read(&[("SCHILY.xattr.security.capability", value), ("path", b"a=b\nc")]).unwrap();
        assert_eq!(pax.xattrs[&b"security.capability"[..]], value);
        assert_eq!(pax.path.unwrap(), b"a=b\nc");
    }

    #[test]
    fn times_are_rounded_down_to_whole_seconds() {
        for (text, expected) in [
            ("1700000000", 1_700_000_000),
            ("1700000000.999999999", 1_700_000_000),
            ("-1", -1),
            ("-1.5", -2),
            ("-0.5", -1),
            ("-1.000", -1),
            ("0.5", 0),
        ] {
            assert_eq!(seconds(text.as_bytes()), Ok(expected), "{text}");
        }
        for text in ["", ".", ".5", "1.x", "1e9", "+1", "99999999999999999999"] {
            assert!(seconds(text.as_bytes()).is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn libarchive_attributes_are_decoded() {
        let pax = read(&[("LIBARCHIVE.xattr.user.a%20b%3D", b"AQID/w")]).unwrap();
        assert_eq!(pax.xattrs[&b"user.a b="[..]], [1, 2, 3, 255]);
        let padded = read(&[("LIBARCHIVE.xattr.user.a", b"AQI=")]).unwrap();
        assert_eq!(padded.xattrs[&b"user.a"[..]], [1, 2]);
        for (key, value) in [("user.%2", "AQID"), ("user.%zz", "AQID"), ("user.a", "A!")] {
            let key = format!("LIBARCHIVE.xattr.{key}");
            assert!(
                read(&[(&key, value.as_bytes())]).is_err(),
                "{key}={value} was accepted"
            );
        }
    }

    #[test]
    fn an_empty_value_takes_back_a_global_one() {
        let pax = read(&[("uid", b"7"), ("uid", b""), ("gid", b"-3")]).unwrap();
        assert_eq!((pax.uid, pax.gid), (None, Some(-3)));
    }

    #[test]
    fn sparse_maps_are_read_in_both_spellings() {
        let old = read(&[
            ("GNU.sparse.size", b"100"),
            ("GNU.sparse.numblocks", b"2"),
            ("GNU.sparse.offset", b"0"),
            ("GNU.sparse.numbytes", b"5"),
            ("GNU.sparse.offset", b"50"),
            ("GNU.sparse.numbytes", b"6"),
        ]);
        let new = read(&[
            ("GNU.sparse.size", b"100"),
            ("GNU.sparse.numblocks", b"2"),
            ("GNU.sparse.map", b"0,5,50,6"),
        ]);
        assert_eq!(old.unwrap().sparse, new.unwrap().sparse);
        assert!(read(&[("GNU.sparse.map", b"0,5,50")]).is_err());
        assert!(read(&[("GNU.sparse.numbytes", b"5")]).is_err());
        assert!(
            read(&[("GNU.sparse.map", b"0,1,2,1,4,1,6,1")]).is_err(),
            "one more than allowed"
        );
    }

    #[test]
    fn records_that_make_no_sense_are_refused() {
        for text in [
            "x",
            "5 a=b",
            "6 a=b",
            "7 a=b\n",
            "5 a=b\n",
            "6 a b\n",
            "5 =b\n",
            "0 a=b\n",
            "99 a=b\n",
            "-6 a=b\n",
            "+6 a=b\n",
            "99999999999999999999 a=b\n",
            "6 a=b\nx",
            "12 uid=12a4\n",
        ] {
            assert!(
                Pax::default().read(text.as_bytes(), 9).is_err(),
                "{text:?} was accepted"
            );
        }
        assert!(Pax::default().read(b"6 a=b\n", 9).is_ok());
    }
}
