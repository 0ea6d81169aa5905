//! Where writes go that are to no volume: `--scratch tmpfs[:SIZE]|disk|DIR`. Nothing is looked up here.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::Error;
use super::volume::size_of;
use crate::path::shown;
use crate::recipe::meant;

/// Where a run's own writes go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScratchKind {
    /// To memory; gone with the run.
    Memory {
        /// How many bytes there can be; `None`: half of the machine's memory.
        size: Option<u64>,
    },
    /// To a folder in the store; gone with the run.
    Disk,
    /// To a folder of the caller's, as written; kept for the next run.
    Folder(PathBuf),
}

impl Default for ScratchKind {
    fn default() -> Self {
        Self::Memory { size: None }
    }
}

/// As `--dry-run` shows it.
impl fmt::Display for ScratchKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory { size: None } => f.write_str("written to memory"),
            Self::Memory { size: Some(size) } => write!(f, "written to memory, size={size}"),
            Self::Disk => f.write_str("written to the store's disk"),
            Self::Folder(path) => write!(f, "written to {}", shown(path.as_os_str().as_bytes())),
        }
    }
}

impl ScratchKind {
    /// Reads `tmpfs`, `tmpfs:SIZE`, `disk` or a path, which holds a slash or begins with a dot.
    pub fn parse(text: &OsStr) -> Result<Self, Error> {
        let bytes = text.as_bytes();
        let refuse = |why: String| Error::Scratch {
            text: shown(bytes),
            why,
        };
        if bytes.contains(&b'/') || bytes.starts_with(b".") {
            return Ok(Self::Folder(PathBuf::from(text)));
        }
        match shown(bytes).as_str() {
            "tmpfs" => Ok(Self::Memory { size: None }),
            "disk" => Ok(Self::Disk),
            word => match word.split_once(':') {
                Some(("tmpfs", size)) => Ok(Self::Memory {
                    size: Some(size_of(size).map_err(refuse)?),
                }),
                _ => Err(refuse(match meant(word, ["tmpfs", "disk"]) {
                    Some(meant) => format!("did you mean `{meant}`?"),
                    None => format!("a folder is written with a slash, as in `./{word}`"),
                })),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_for_writes_is_read_strictly() {
        let read = |text: &str| ScratchKind::parse(OsStr::new(text));
        assert_eq!(read("tmpfs"), Ok(ScratchKind::default()));
        assert_eq!(read("tmpfs:1m"), Ok(ScratchKind::Memory { size: Some(1 << 20) }));
        assert_eq!(read("disk"), Ok(ScratchKind::Disk));
        for path in ["./disk", "/srv/x", "a/b", "."] {
            assert_eq!(read(path), Ok(ScratchKind::Folder(path.into())));
        }
        for (text, expected) in [
            ("dsik", "did you mean `disk`?"),
            ("tmpfs:", "not a size"),
            ("tmpfs:0", "not a size"),
            ("disk:1m", "as in `./disk:1m`"),
            ("mine", "as in `./mine`"),
            ("", "written with a slash"),
        ] {
            let said = read(text).unwrap_err().to_string();
            assert!(said.contains(expected), "{text:?}: {said}");
        }
    }
}
