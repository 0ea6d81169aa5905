//! Mounts for a container whose ids are none of the host's: made in the parent, which may look anywhere, as detached
//! copies that map the ids of files; the child, which may look nowhere, puts them in place.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use super::{Table, What};
use crate::rootfs::SCRATCH;
use crate::sys::process::c_string;
use crate::sys::{Errno, SysError, mount, mounted};

/// What cannot be shown with its ids mapped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The filesystem cannot map ids.
    #[error("cannot show `{}` with its ids mapped: the filesystem `{filesystem}` cannot do that", .path.display())]
    Filesystem {
        /// What was to be shown.
        path: PathBuf,
        /// What the kernel calls it.
        filesystem: String,
        /// The call.
        #[source]
        failed: SysError,
    },
    /// Something mounted below cannot map ids.
    #[error("cannot show `{}` with its ids mapped: something mounted below it is of a filesystem that cannot do that", .path.display())]
    Below {
        /// What was to be shown.
        path: PathBuf,
        /// The call.
        #[source]
        failed: SysError,
    },
    /// A call failed.
    #[error("cannot show `{}` with its ids mapped", .path.display())]
    Sys {
        /// What was to be shown.
        path: PathBuf,
        /// The call.
        #[source]
        failed: SysError,
    },
}

/// Mounts that are ready to be put in place.
#[derive(Debug)]
pub struct Handles {
    /// For each layer of the root, in order; none for one in the scratch.
    pub lowers: Vec<Option<OwnedFd>>,
    /// For each mount, in order; none for what is made in the container.
    pub mounts: Vec<Option<OwnedFd>>,
    /// The folder on a disk to which the run writes, where it does.
    pub disk: Option<OwnedFd>,
}

/// Makes the mounts of `table` that come from the host; `store` is the folder of the store, `disk` that of the run's writes, and
/// `userns` says how ids are mapped.
pub fn open(
    table: &Table,
    store: &Path,
    disk: Option<&Path>,
    userns: BorrowedFd<'_>,
) -> Result<Handles, Error> {
    let lower = |path: &PathBuf| match path.starts_with(SCRATCH) {
        true => Ok(None),
        false => copy(&store.join(path), false, Some(userns)).map(Some),
    };
    let mounts = table.mounts.iter().map(|wanted| match &wanted.what {
        What::Bind {
            source, recursive, ..
        } => {
            let path = store.join(source);
            let tree = copy(&path, *recursive, wanted.idmap.then_some(userns))?;
            mount::restrict(tree.as_fd(), wanted.attr, *recursive)
                .map_err(|failed| Error::Sys { path, failed })?;
            Ok(Some(tree))
        }
        _ => Ok(None),
    });
    Ok(Handles {
        lowers: table.lowers.iter().map(lower).collect::<Result<_, _>>()?,
        mounts: mounts.collect::<Result<_, _>>()?,
        disk: disk.map(|path| copy(path, false, Some(userns))).transpose()?,
    })
}

fn copy(path: &Path, recursive: bool, userns: Option<BorrowedFd<'_>>) -> Result<OwnedFd, Error> {
    let text: CString = c_string(path).unwrap_or_default();
    let failed = |failed| Error::Sys {
        path: path.to_owned(),
        failed,
    };
    let tree = mount::copy(&text, recursive).map_err(failed)?;
    let Some(userns) = userns else {
        return Ok(tree);
    };
    match mount::map_ids(tree.as_fd(), userns, recursive) {
        Err(refused) if refused.errno == Errno::INVAL => Err(unmappable(path, userns, refused)),
        done => done.map(|()| tree).map_err(failed),
    }
}

/// Tells which filesystem cannot map ids: the one at `path`, or one below.
fn unmappable(path: &Path, userns: BorrowedFd<'_>, failed: SysError) -> Error {
    let path = path.to_owned();
    let alone = c_string(&path)
        .and_then(|text| mount::copy(&text, false).ok())
        .is_some_and(|tree| mount::map_ids(tree.as_fd(), userns, false).is_ok());
    let place = crate::sys::place::open_any(&path).ok();
    match place.and_then(|place| mounted::kind_of(place.as_fd())) {
        Some(filesystem) if !alone => Error::Filesystem {
            path,
            filesystem,
            failed,
        },
        _ => Error::Below { path, failed },
    }
}
