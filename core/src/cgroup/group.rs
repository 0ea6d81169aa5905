//! [`Groups`]: the cgroups of one run, made as planned, and gone when this is dropped.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::folders::{Folder, INNER, put, sweep};
use super::plan::{Group, Plan, Version};
use super::{Controller, Doomed, Error, Folders, PREFIX};
use crate::sys::{Errno, SysError, file};

/// The cgroups of a run that lasts. They are removed when this is dropped by the process that made them.
#[derive(Debug)]
pub struct Groups {
    folders: Folders,
    /// Held for as long as this or a copy of this process lives; a sweep looks for them.
    locks: Vec<fs_err::File>,
    /// The version 2 one, for the child to be born in.
    unified: Option<OwnedFd>,
    aside: Option<Aside>,
    maker: u32,
}

/// mk itself left its cgroup for one beside, and goes back in the end.
#[derive(Debug)]
struct Aside {
    home: PathBuf,
    folder: PathBuf,
    enabled: Vec<Controller>,
}

/// Two that make folders at once choose different names; a sweep may take one for left behind before it is locked.
const ATTEMPTS: usize = 16;

/// How long mk waits at its end for the last processes of a container to go.
const PATIENCE: Duration = Duration::from_secs(2);

impl Groups {
    /// Makes what `plan` says. Nothing is left of it where this fails.
    pub fn make(plan: &Plan) -> Result<Self, Error> {
        let mut groups = Self {
            folders: Folders::default(),
            locks: Vec::new(),
            unified: None,
            aside: None,
            maker: std::process::id(),
        };
        for group in &plan.groups {
            group.around.iter().for_each(|folder| sweep(folder));
            groups.make_one(group)?;
        }
        groups.unified = groups.folders.open_v2()?;
        Ok(groups)
    }

    fn make_one(&mut self, group: &Group) -> Result<(), Error> {
        let Version::V2 { leave, enable } = &group.version else {
            let path = self.make_folder(&group.parent)?;
            self.folders.list.push(Folder {
                path: path.clone(),
                version: 1,
            });
            return write_all(group, &path);
        };
        if *leave {
            self.step_aside(&group.parent)?;
        }
        if !enable.is_empty() {
            put(&group.parent.join(SUBTREE), &switch('+', enable))?;
            if let Some(aside) = &mut self.aside {
                aside.enabled.clone_from(enable);
            }
        }
        let path = self.make_folder(&group.parent)?;
        self.folders.list.push(Folder {
            path: path.clone(),
            version: 2,
        });
        write_all(group, &path)?;
        // Whoever tends the parent may switch off there what nobody seems to use, and this keeps it on.
        put(&path.join(SUBTREE), &switch('+', &group.controllers))?;
        let inner = path.join(INNER);
        fs_err::create_dir(&inner).map_err(|failed| Error::Make {
            folder: inner,
            failed,
        })
    }

    /// Makes a folder with a name of its own in `parent`, and takes the lock on it.
    fn make_folder(&mut self, parent: &Path) -> Result<PathBuf, Error> {
        for _ in 0..ATTEMPTS {
            let folder = parent.join(format!("{PREFIX}{:016x}", file::random()?));
            let failed = |failed| Error::Make {
                folder: folder.clone(),
                failed,
            };
            match fs_err::create_dir(&folder) {
                Err(refused) if refused.kind() == std::io::ErrorKind::AlreadyExists => continue,
                made => made.map_err(failed)?,
            }
            let Ok(opened) = fs_err::File::open(&folder) else {
                continue;
            };
            // The sweep of another mk came in between.
            if !file::try_lock(opened.file(), file::LockKind::Exclusive)? || !folder.exists() {
                continue;
            }
            self.locks.push(opened);
            return Ok(folder);
        }
        Err(SysError::new(
            Errno::EXIST,
            format_args!("mkdir(\"{}/{PREFIX}…\")", parent.display()),
        )
        .into())
    }

    fn step_aside(&mut self, home: &Path) -> Result<(), Error> {
        let folder = self.make_folder(home)?;
        self.aside = Some(Aside {
            home: home.to_owned(),
            folder: folder.clone(),
            enabled: Vec::new(),
        });
        put(&folder.join("cgroup.procs"), &std::process::id().to_string())
    }

    /// Returns the cgroup that the first process is born in, where there is one of version 2.
    pub fn unified(&self) -> Option<BorrowedFd<'_>> {
        self.unified.as_ref().map(AsFd::as_fd)
    }

    /// Returns them as data.
    pub fn folders(&self) -> &Folders {
        &self.folders
    }

    /// Returns what is to be removed when mk itself cannot do it.
    pub fn doomed(&self) -> Doomed {
        self.folders.doomed()
    }

    /// Removes them; the container has ended.
    pub fn remove(&mut self) {
        if self.folders.doomed().remove(PATIENCE) {
            self.folders = Folders::default();
        }
        if let Some(aside) = self.aside.take() {
            aside.go_back();
        }
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        // A copy of this process that goes on as something else has only borrowed them.
        if std::process::id() == self.maker {
            self.remove();
        }
    }
}

impl Aside {
    /// Leaves all as it was. What of it fails does no harm: the folder is empty as soon as mk has ended, and swept.
    fn go_back(self) {
        if !self.enabled.is_empty() {
            let _ = put(&self.home.join(SUBTREE), &switch('-', &self.enabled));
        }
        let _ = put(&self.home.join("cgroup.procs"), &std::process::id().to_string());
        let _ = fs_err::remove_dir(&self.folder);
    }
}

/// The file that says which controllers the children of a cgroup have.
const SUBTREE: &str = "cgroup.subtree_control";

fn switch(sign: char, controllers: &[Controller]) -> String {
    let words: Vec<String> = controllers.iter().map(|one| format!("{sign}{one}")).collect();
    words.join(" ")
}

fn write_all(group: &Group, folder: &Path) -> Result<(), Error> {
    for write in &group.writes {
        let file = folder.join(write.file);
        if write.optional && !file.exists() {
            continue;
        }
        put(&file, &write.text)?;
    }
    Ok(())
}
