//! [`Grant`]: what a command is given of the privileges that were asked for, with the profile of a file read and compiled.

use std::collections::BTreeSet;
use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::path::shown;
use crate::seccomp::compile::{self, compile};
use crate::seccomp::{Arch, json};
use crate::spec::privileges::{self, Granted, Privileges, Seccomp, Words};
use crate::sys::process::CapabilitySet;
use crate::sys::{SysError, probe, process};

/// Privileges that cannot be given.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The caller does not have them.
    #[error(transparent)]
    Privileges(#[from] privileges::Error),
    /// The caller's cannot be looked at.
    #[error("cannot tell what mk itself may do")]
    Own(#[source] SysError),
    /// The file of a profile cannot be read.
    #[error("cannot read the seccomp profile `{}`", .path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// Why.
        #[source]
        failed: io::Error,
    },
    /// It is no file of a profile's size and kind.
    #[error("`{}` is not a seccomp profile: {why}", .path.display())]
    NoProfile {
        /// Which one.
        path: PathBuf,
        /// Why, as a fragment.
        why: &'static str,
    },
    /// The profile is not what it should be.
    #[error("the seccomp profile `{}` cannot be used", .path.display())]
    Profile {
        /// Which one.
        path: PathBuf,
        /// Why.
        #[source]
        failed: json::Error,
    },
    /// The kernel would refuse its filter.
    #[error(
        "the seccomp profile `{}` has too many conditions: they take {length} instructions, and the kernel takes {}",
        .path.display(),
        compile::MOST
    )]
    TooLong {
        /// Which one.
        path: PathBuf,
        /// How many instructions it takes.
        length: usize,
    },
}

/// What a command is given. Its `Display` are the lines of `mk run --dry-run` on privileges.
#[derive(Debug)]
pub struct Grant {
    /// What the child gives up and loads.
    pub granted: Granted,
    /// Where the filter comes from.
    pub seccomp: Seccomp,
    /// Names in the profile of a file that are calls nowhere, as far as is known.
    pub passed_over: BTreeSet<String>,
    uid: u32,
}

impl Grant {
    /// Decides what a command of the user `uid` is given; this process must be root of its user namespace.
    pub fn decide(asked: &Privileges, uid: u32) -> Result<Self, Error> {
        let held = match asked.is_more_than_usual() {
            true => process::own_capabilities().map_err(Error::Own)?,
            false => CapabilitySet::all(),
        };
        let mut grant = Self {
            granted: asked.grant(uid, held)?,
            seccomp: asked.seccomp.clone(),
            passed_over: BTreeSet::new(),
            uid,
        };
        if let Seccomp::File(path) = &asked.seccomp {
            grant.read(path)?;
        }
        Ok(grant)
    }

    fn read(&mut self, path: &Path) -> Result<(), Error> {
        let program = json::Program {
            arch: Arch::HERE,
            kept: self.granted.keep,
            kernel: probe::version(&probe::release()).unwrap_or(probe::OLDEST),
        };
        let read = json::read(&text(path)?, &program).map_err(|failed| Error::Profile {
            path: path.to_owned(),
            failed,
        })?;
        let filter = compile(&read.profile).map_err(|too_long| Error::TooLong {
            path: path.to_owned(),
            length: too_long.length,
        })?;
        self.granted.filter = Some(filter.into());
        self.passed_over = read.passed_over;
        Ok(())
    }
}

/// Reads a profile: of a regular file, and not more than one can hold.
fn text(path: &Path) -> Result<Vec<u8>, Error> {
    let failed = |failed| Error::File {
        path: path.to_owned(),
        failed,
    };
    let refuse = |why| Error::NoProfile {
        path: path.to_owned(),
        why,
    };
    // Before it is opened, because opening a pipe waits for whoever writes to it.
    if !fs_err::metadata(path).map_err(failed)?.is_file() {
        return Err(refuse("expected a regular file"));
    }
    let mut bytes = Vec::new();
    let mut file = fs_err::File::open(path)
        .map_err(failed)?
        .take(json::MOST_BYTES + 1);
    file.read_to_end(&mut bytes).map_err(failed)?;
    match bytes.len() as u64 > json::MOST_BYTES {
        true => Err(refuse("it is larger than 1 MiB")),
        false => Ok(bytes),
    }
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use std::os::unix::ffi::OsStrExt;
        writeln!(f, "capabilities {}", Words(self.granted.of(self.uid)))?;
        if self.granted.new_privileges {
            writeln!(f, "new privileges allowed")?;
        }
        let profile = match &self.seccomp {
            Seccomp::Usual => "default".to_owned(),
            Seccomp::Unconfined => return writeln!(f, "seccomp unconfined"),
            Seccomp::File(path) => shown(path.as_os_str().as_bytes()),
        };
        let mut notes = vec![format!(
            "{} instructions",
            self.granted.filter.as_ref().map_or(0, |filter| filter.len())
        )];
        if !self.passed_over.is_empty() {
            let names: Vec<&str> = self.passed_over.iter().map(String::as_str).collect();
            notes.push(format!("unknown calls: {}", names.join(" ")));
        }
        writeln!(f, "seccomp {profile} ({})", notes.join("; "))
    }
}
