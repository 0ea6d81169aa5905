//! Volumes and tmpfs, as asked for: text in, checked values out. Nothing is looked up here.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::Error;
use crate::path::{TreePath, shown};

/// A mount that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Extra {
    /// A file or folder of the host.
    Volume(Volume),
    /// An empty folder in memory.
    Tmpfs(Tmpfs),
}

impl Extra {
    /// Returns where in the image it goes.
    pub fn target(&self) -> &TreePath {
        match self {
            Self::Volume(volume) => &volume.target,
            Self::Tmpfs(tmpfs) => &tmpfs.target,
        }
    }
}

/// A file or folder of the host in the container: `-v SOURCE:TARGET[:ro]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Which one, as written: absolute, or seen from the caller's working directory.
    pub source: PathBuf,
    /// Where in the image; never its root.
    pub target: TreePath,
    /// Whether nothing may be written there.
    pub read_only: bool,
}

/// An empty folder in memory: `--tmpfs TARGET[:size=…,mode=…]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tmpfs {
    /// Where in the image; never its root.
    pub target: TreePath,
    /// How many bytes it can hold; `None`: half of the machine's memory.
    pub size: Option<u64>,
    /// Permission bits of the folder (01777 unless given).
    pub mode: u16,
}

impl Volume {
    /// Reads `SOURCE:TARGET`, `SOURCE:TARGET:ro` or `SOURCE:TARGET:rw`.
    pub fn parse(text: &OsStr) -> Result<Self, Error> {
        let refuse = |why: String| Error::Volume {
            text: shown(text.as_bytes()),
            why,
        };
        let parts: Vec<&[u8]> = text.as_bytes().split(|&byte| byte == b':').collect();
        let (source, target, read_only) = match parts[..] {
            [source, target] | [source, target, b"rw"] => (source, target, false),
            [source, target, b"ro"] => (source, target, true),
            [_] => return Err(refuse("it names no target".into())),
            [_, _, option] => return Err(refuse(format!("`{}` is neither `ro` nor `rw`", shown(option)))),
            _ => return Err(refuse("it has more than two colons".into())),
        };
        if source.is_empty() {
            return Err(refuse("its source is empty".into()));
        }
        Ok(Self {
            source: PathBuf::from(OsStr::from_bytes(source)),
            target: target_path(target).map_err(refuse)?,
            read_only,
        })
    }
}

impl Tmpfs {
    /// Reads `TARGET` or `TARGET:size=BYTES,mode=OCTAL`; sizes may end in `k`, `m` or `g`.
    pub fn parse(text: &OsStr) -> Result<Self, Error> {
        let refuse = |why: String| Error::Tmpfs {
            text: shown(text.as_bytes()),
            why,
        };
        let bytes = text.as_bytes();
        let cut = bytes.iter().position(|&byte| byte == b':').unwrap_or(bytes.len());
        let options = shown(bytes.get(cut + 1..).unwrap_or_default());
        let mut tmpfs = Self {
            target: target_path(&bytes[..cut]).map_err(refuse)?,
            size: None,
            mode: 0o1777,
        };
        for option in options.split(',').filter(|option| !option.is_empty()) {
            match option.split_once('=') {
                Some(("size", size)) => {
                    let bytes = parse_size(size).ok_or_else(|| refuse(format!("`{size}` is not a size")))?;
                    tmpfs.size = Some(bytes);
                }
                Some(("mode", mode)) => {
                    tmpfs.mode = u16::from_str_radix(mode, 8)
                        .ok()
                        .filter(|bits| *bits <= 0o7777 && !mode.starts_with('+'))
                        .ok_or_else(|| refuse(format!("`{mode}` is not an octal mode")))?;
                }
                _ => return Err(refuse(format!("`{option}` is neither `size=` nor `mode=`"))),
            }
        }
        Ok(tmpfs)
    }
}

/// Reads a place in the image: absolute, not the root itself.
fn target_path(bytes: &[u8]) -> Result<TreePath, String> {
    if !bytes.starts_with(b"/") {
        return Err(format!("its target `{}` is not an absolute path", shown(bytes)));
    }
    let path = TreePath::normalise(bytes).map_err(|bad| bad.to_string())?;
    if path.is_root() {
        return Err("its target is the root of the image".into());
    }
    Ok(path)
}

/// Reads a number of bytes: digits, and `k`, `m` or `g` for powers of 1024. Nothing is less than one page.
fn parse_size(text: &str) -> Option<u64> {
    let (digits, shift) = match text.as_bytes().last()? {
        b'k' | b'K' => (&text[..text.len() - 1], 10),
        b'm' | b'M' => (&text[..text.len() - 1], 20),
        b'g' | b'G' => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    // A tmpfs of no bytes would be one without a limit (tmpfs(5)).
    digits
        .parse::<u64>()
        .ok()?
        .checked_mul(1 << shift)
        .filter(|size| *size > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> TreePath {
        TreePath::parse(text).unwrap()
    }

    #[test]
    fn volumes_are_read_strictly() {
        let volume = Volume::parse(OsStr::new("./a:/mnt/:ro")).unwrap();
        assert_eq!(
            volume,
            Volume {
                source: "./a".into(),
                target: path("mnt"),
                read_only: true
            }
        );
        for text in [
            "/a",
            "/a:",
            ":/b",
            "/a:b",
            "/a:/",
            "/a:/../b",
            "/a:/b:rx",
            "/a:/b:ro:z",
            "",
        ] {
            assert!(Volume::parse(OsStr::new(text)).is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn a_tmpfs_has_a_size_and_a_mode() {
        let tmpfs = Tmpfs::parse(OsStr::new("/cache:size=64m,mode=0700")).unwrap();
        assert_eq!((tmpfs.size, tmpfs.mode), (Some(64 << 20), 0o700));
        let plain = Tmpfs::parse(OsStr::new("/cache")).unwrap();
        assert_eq!((plain.size, plain.mode), (None, 0o1777));
        for text in [
            "cache",
            "/",
            "/c:size=",
            "/c:size=0",
            "/c:size=-1",
            "/c:mode=9",
            "/c:mode=+7",
            "/c:x=1",
        ] {
            assert!(Tmpfs::parse(OsStr::new(text)).is_err(), "{text:?} was accepted");
        }
    }
}
