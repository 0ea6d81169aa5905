//! A `Packages` index as a stream of stanzas, of which only the few that are asked for are kept.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read};

use super::version;
use crate::path::TreePath;
use crate::plan::lock::DebPin;

/// The largest index that is read, in bytes after decompression.
const LARGEST: u64 = 1024 * 1024 * 1024;
/// The longest line in an index, in bytes: dependencies of some packages fill hundreds of kilobytes.
const LONGEST_LINE: u64 = 4 * 1024 * 1024;
/// How much memory decompression may take, in bytes (`xz -9` needs 65 MiB).
const MOST_MEMORY: u64 = 128 * 1024 * 1024;

/// How an index is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packing {
    Xz,
    Gzip,
    None,
}

impl Packing {
    /// Returns how a file of this name is packed.
    pub(super) fn of(name: &str) -> Self {
        match name.rsplit_once('.') {
            Some((_, "xz")) => Self::Xz,
            Some((_, "gz")) => Self::Gzip,
            _ => Self::None,
        }
    }

    fn open<'a>(self, bytes: &'a [u8]) -> io::Result<Box<dyn Read + 'a>> {
        Ok(match self {
            Self::Xz => {
                let flags = liblzma::stream::CONCATENATED;
                let decoder = liblzma::stream::Stream::new_stream_decoder(MOST_MEMORY, flags)?;
                Box::new(liblzma::read::XzDecoder::new_stream(bytes, decoder))
            }
            Self::Gzip => Box::new(flate2::read::MultiGzDecoder::new(bytes)),
            Self::None => Box::new(bytes),
        })
    }
}

/// The fields of a stanza that matter here.
#[derive(Debug, Default)]
struct Stanza {
    package: Vec<u8>,
    version: Vec<u8>,
    path: Vec<u8>,
    size: Vec<u8>,
    sha256: Vec<u8>,
}

impl Stanza {
    fn take(&mut self, line: &[u8]) {
        let Some(colon) = line.iter().position(|&byte| byte == b':') else {
            return;
        };
        let place = match &line[..colon] {
            b"Package" => &mut self.package,
            b"Version" => &mut self.version,
            b"Filename" => &mut self.path,
            b"Size" => &mut self.size,
            b"SHA256" => &mut self.sha256,
            _ => return,
        };
        place.clear();
        place.extend_from_slice(line[colon + 1..].trim_ascii());
    }

    fn clear(&mut self) {
        for field in [
            &mut self.package,
            &mut self.version,
            &mut self.path,
            &mut self.size,
            &mut self.sha256,
        ] {
            field.clear();
        }
    }

    /// Returns what the stanza pins, or what is wrong with it.
    fn pin(&self) -> Result<DebPin, String> {
        let text = |name: &str, field: &[u8]| match std::str::from_utf8(field) {
            Ok(text) if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic()) => {
                Ok(text.to_owned())
            }
            _ => Err(format!("`{name}: {}`", crate::path::shown(field))),
        };
        let path = text("Filename", &self.path)?;
        TreePath::parse(&path).map_err(|bad| bad.to_string())?;
        Ok(DebPin {
            version: text("Version", &self.version)?,
            sha256: text("SHA256", &self.sha256)?
                .parse()
                .map_err(|_| "SHA256".to_owned())?,
            size: text("Size", &self.size)?.parse().map_err(|_| "Size".to_owned())?,
            path,
        })
    }
}

/// Returns the newest version of each of the `wanted` packages that the index in `bytes` holds.
pub(super) fn find(
    bytes: &[u8],
    packing: Packing,
    wanted: &[String],
) -> io::Result<BTreeMap<String, DebPin>> {
    let mut found: BTreeMap<String, DebPin> = BTreeMap::new();
    stanzas(bytes, packing, |stanza| {
        let Some(name) = wanted.iter().find(|name| name.as_bytes() == stanza.package) else {
            return Ok(());
        };
        let pin = stanza
            .pin()
            .map_err(|why| invalid(format!("the stanza of `{name}` has a bad {why}")))?;
        let newer = found
            .get(name)
            .is_none_or(|known| version::compare(&pin.version, &known.version).is_gt());
        if newer {
            found.insert(name.clone(), pin);
        }
        Ok(())
    })?;
    Ok(found)
}

/// Returns the names in the index that are most like `name`, likest first, three at the most.
pub(super) fn near(bytes: &[u8], packing: Packing, name: &str) -> io::Result<Vec<String>> {
    let furthest = (name.len() / 4).clamp(1, 3);
    let mut near: Vec<(usize, String)> = Vec::new();
    stanzas(bytes, packing, |stanza| {
        let Ok(other) = std::str::from_utf8(&stanza.package) else {
            return Ok(());
        };
        let distance = match other.strip_prefix(name) {
            Some(rest) if rest.starts_with('-') && rest.len() <= 8 => furthest,
            _ if other.len().abs_diff(name.len()) > furthest => return Ok(()),
            _ => strsim::damerau_levenshtein(name, other),
        };
        let candidate = (distance, other.to_owned());
        if distance <= furthest && !near.contains(&candidate) {
            near.push(candidate);
            near.sort();
            near.truncate(3);
        }
        Ok(())
    })?;
    Ok(near.into_iter().map(|(_, name)| name).collect())
}

fn invalid(why: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.into())
}

fn stanzas(bytes: &[u8], packing: Packing, mut see: impl FnMut(&Stanza) -> io::Result<()>) -> io::Result<()> {
    let mut lines = BufReader::with_capacity(super::super::CHUNK, packing.open(bytes)?.take(LARGEST));
    let mut stanza = Stanza::default();
    let mut line = Vec::new();
    loop {
        line.clear();
        (&mut lines).take(LONGEST_LINE).read_until(b'\n', &mut line)?;
        let ends = line.is_empty();
        if line.last() != Some(&b'\n') && line.len() as u64 == LONGEST_LINE {
            return Err(invalid(format!("a line is longer than {LONGEST_LINE} bytes")));
        }
        match line.trim_ascii_end() {
            [] if !stanza.package.is_empty() => {
                see(&stanza)?;
                stanza.clear();
            }
            [] => stanza.clear(),
            // A line that begins with a blank goes on with a field that is not read here.
            [b' ' | b'\t', ..] => {}
            field => stanza.take(field),
        }
        if ends {
            break;
        }
    }
    if lines.get_ref().limit() == 0 {
        return Err(invalid(format!("it is larger than {LARGEST} bytes")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn stanza(name: &str, version: &str) -> String {
        format!("Package: {name}\nVersion: {version}\nSize: 1\nFilename: pool/{name}.deb\nSHA256: {DIGEST}\n")
    }

    #[test]
    fn the_last_stanza_needs_no_empty_line_and_several_do_no_harm() {
        let text = format!("\n\n{}\n \n\t\n{}", stanza("a", "1"), stanza("b", "2").trim_end());
        let found = find(text.as_bytes(), Packing::None, &["a".into(), "b".into()]).unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!(found["b"].version, "2");
        assert_eq!(found["b"].sha256.to_string(), DIGEST);
    }

    #[test]
    fn a_bad_stanza_matters_only_if_it_is_asked_for() {
        let text = format!("Package: bad\nVersion: 1\n\n{}", stanza("good", "1"));
        assert_eq!(
            find(text.as_bytes(), Packing::None, &["good".into()])
                .unwrap()
                .len(),
            1
        );
        let error = find(text.as_bytes(), Packing::None, &["bad".into()]).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("the stanza of `bad` has a bad `Filename: `"),
            "{error}"
        );
    }

    #[test]
    fn several_streams_in_one_file_are_one_text() {
        let pack = |text: &str| {
            let mut packed = Vec::new();
            liblzma::read::XzEncoder::new(text.as_bytes(), 1)
                .read_to_end(&mut packed)
                .unwrap();
            packed
        };
        let text = stanza("a", "1");
        let packed = [pack(&text[..20]), pack(&text[20..])].concat();
        assert_eq!(find(&packed, Packing::Xz, &["a".into()]).unwrap().len(), 1);
    }

    #[test]
    fn names_that_are_much_alike_are_offered() {
        let names = [
            "busybox",
            "busybox-static",
            "libc6",
            "libc6-dev",
            "libc6-dbg",
            "zlib1g",
            "xz-utils",
            "python3",
        ];
        let text: String = names.iter().map(|name| stanza(name, "1") + "\n").collect();
        let near = |name: &str| near(text.as_bytes(), Packing::None, name).unwrap();
        assert_eq!(near("busybox-satic"), ["busybox-static"]);
        assert_eq!(
            near("bsuybox"),
            ["busybox", "busybox-static"].map(String::from)[..1]
        );
        assert_eq!(near("libc"), ["libc6"]);
        assert_eq!(near("xz"), ["xz-utils"]);
        assert_eq!(near("nothing-like-it"), Vec::<String>::new());
    }
}
