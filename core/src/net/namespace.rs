//! Network namespaces that others have made and given a name: files that stand for them, as ip-netns(8) has them.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use crate::sys::{Errno, SysError, namespace};

/// Where `ip netns` keeps them; the second one is where they were before there was `/run`.
const FOLDERS: [&str; 2] = ["/run/netns", "/var/run/netns"];
/// Where files of `/etc` lie that hold in one namespace only.
const ETC: &str = "/etc/netns";

/// The most that a file of `/etc` may hold, in bytes.
const MOST: u64 = 1 << 20;

/// A namespace that cannot be joined.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is none of this name.
    #[error("there is no network namespace `{name}`{}", Among(.there))]
    Missing {
        /// The name.
        name: String,
        /// Those that there are, in order.
        there: Vec<String>,
    },
    /// What goes by this name stands for no network namespace.
    #[error("`{path}` is no network namespace, only a file of that name")]
    Other {
        /// Where it is.
        path: String,
    },
    /// It cannot be looked at.
    #[error("cannot look at the network namespace `{name}`")]
    Sys {
        /// The name.
        name: String,
        /// Why.
        #[source]
        failed: SysError,
    },
    /// It belongs to others than the caller.
    #[error("the network namespace `{name}` belongs to root of the machine, who alone can join it")]
    OutOfReach {
        /// The name.
        name: String,
    },
}

struct Among<'a>(&'a [String]);

impl std::fmt::Display for Among<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            [] => f.write_str(", nor any other with a name"),
            there => write!(f, ": those that there are: `{}`", there.join("`, `")),
        }
    }
}

/// Opens the namespace called `name`, which this process can join.
pub fn open(name: &str) -> Result<OwnedFd, Error> {
    let failed = |failed| Error::Sys {
        name: name.to_owned(),
        failed,
    };
    for folder in FOLDERS {
        let path = Path::new(folder).join(name);
        let file = match namespace::open_network(&path) {
            Err(missing) if missing.errno == Errno::NOENT => continue,
            opened => opened.map_err(failed)?,
        };
        let Some(file) = file else {
            return Err(Error::Other {
                path: path.display().to_string(),
            });
        };
        return match namespace::is_within_reach(file.as_fd()).map_err(failed)? {
            true => Ok(file),
            false => Err(Error::OutOfReach {
                name: name.to_owned(),
            }),
        };
    }
    Err(Error::Missing {
        name: name.to_owned(),
        there: all(),
    })
}

/// Returns the names of all there are, in order.
fn all() -> Vec<String> {
    let mut names: Vec<String> = FOLDERS
        .iter()
        .filter_map(|folder| fs_err::read_dir(folder).ok())
        .flatten()
        .flatten()
        .map(|entry| crate::path::shown(entry.file_name().as_encoded_bytes()))
        .collect();
    names.sort();
    names.dedup();
    names
}

/// Returns what `/etc/<file>` holds in the namespace called `name`, where that differs from the host's.
pub fn own_text(name: &str, file: &str) -> Option<String> {
    read(&Path::new(ETC).join(name).join(file))
}

/// Returns the text of a file of the host's, if there is one; bytes that are no text are lost.
pub fn read(path: &Path) -> Option<String> {
    use std::io::Read as _;
    let file = fs_err::File::open(path).ok()?;
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let mut bytes = Vec::new();
    file.take(MOST).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_that_is_not_there_is_missing_among_those_that_are() {
        let Err(Error::Missing { name, there }) = open("no-such-namespace") else {
            panic!("it was opened");
        };
        assert_eq!(
            (name.as_str(), there.contains(&name)),
            ("no-such-namespace", false)
        );
        let text = |there: &[&str]| {
            Error::Missing {
                name: "blue".into(),
                there: there.iter().map(|&one| one.to_owned()).collect(),
            }
            .to_string()
        };
        assert_eq!(
            text(&["green", "red"]),
            "there is no network namespace `blue`: those that there are: `green`, `red`"
        );
        assert_eq!(
            text(&[]),
            "there is no network namespace `blue`, nor any other with a name"
        );
    }

    #[test]
    fn what_is_no_file_has_no_text() {
        let temp = tempfile::tempdir().unwrap();
        assert_eq!(read(temp.path()), None);
        assert_eq!(read(&temp.path().join("missing")), None);
        fs_err::write(temp.path().join("text"), b"a\xffb").unwrap();
        assert_eq!(read(&temp.path().join("text")).as_deref(), Some("a\u{fffd}b"));
    }
}
