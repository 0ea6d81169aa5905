//! [`Groups`]: the cgroups of one run. Their names are chosen first, so that somebody else knows what to remove, whenever
//! mk is killed; then they are made as planned. They are gone when this is dropped.

use std::cell::{Cell, OnceCell, RefCell};
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::folders::{Back, Folder, INNER, put, sweep};
use super::plan::{Group, Plan, Version};
use super::{Controller, Doomed, Error, Folders, PREFIX};
use crate::sys::{Errno, SysError, cgroup, file, process};

/// The cgroups of a run that lasts. They are removed when this is dropped by the process that chose their names.
#[derive(Debug)]
pub struct Groups {
    planned: Vec<Group>,
    folders: Folders,
    /// Held for as long as this or a copy of this process lives; a sweep looks for them.
    locks: RefCell<Vec<fs_err::File>>,
    /// The version 2 one, for the child to be born in.
    unified: OnceCell<OwnedFd>,
    /// Tells that memory has run out, where the kernel does not end the container by itself: version 1.
    exhausted: OnceCell<OwnedFd>,
    /// Whether it has told so.
    told: Cell<bool>,
    back: Option<Back>,
    owner: u32,
}

/// A sweep may take a folder for left behind before it is locked; it is made again then.
const ATTEMPTS: usize = 100;

/// How long mk waits at its end for the last processes of a container to go.
const PATIENCE: Duration = Duration::from_secs(2);

impl Groups {
    /// Chooses names for what `plan` says, and removes what other runs have left there. Makes nothing yet, but for one
    /// thing: where mk stands in the way, it steps aside.
    pub fn new(plan: &Plan) -> Result<Self, Error> {
        let mut groups = Self {
            planned: plan.groups.clone(),
            folders: Folders::default(),
            locks: RefCell::default(),
            unified: OnceCell::new(),
            exhausted: OnceCell::new(),
            told: Cell::new(false),
            back: None,
            owner: std::process::id(),
        };
        for group in &plan.groups {
            group.around.iter().for_each(|folder| sweep(folder));
            if let Version::V2 { leave: true, enable } = &group.version {
                groups.step_aside(&group.parent, enable)?;
            }
            groups.folders.list.push(Folder {
                path: named(&group.parent)?,
                version: match group.version {
                    Version::V1 => 1,
                    Version::V2 { .. } => 2,
                },
            });
        }
        Ok(groups)
    }

    /// Moves whoever is in `home`, which is mk and perhaps the one that it has made to look after the container, into a
    /// cgroup beside the one to come.
    fn step_aside(&mut self, home: &Path, enable: &[Controller]) -> Result<(), Error> {
        let aside = named(home)?;
        self.make_folder(&aside)?;
        let to_c = |path: PathBuf| process::c_string(path).unwrap_or_default();
        let back = Back {
            subtree: to_c(home.join(SUBTREE)),
            disable: CString::new(switch('-', enable)).unwrap_or_default(),
            home: to_c(home.join(PROCESSES)),
            aside_processes: to_c(aside.join(PROCESSES)),
            aside: to_c(aside),
        };
        let back = self.back.insert(back);
        Ok(cgroup::move_all(&back.home, &back.aside_processes)?)
    }

    /// Makes them. Nothing is left of them where this fails and `self` is dropped.
    pub fn make(&self) -> Result<(), Error> {
        for (group, folder) in self.planned.iter().zip(&self.folders.list) {
            self.make_one(group, &folder.path)?;
        }
        if let Some(opened) = self.folders.open_v2()? {
            let _ = self.unified.set(opened);
        }
        Ok(())
    }

    fn make_one(&self, group: &Group, path: &Path) -> Result<(), Error> {
        let Version::V2 { enable, .. } = &group.version else {
            self.make_folder(path)?;
            write_all(group, path)?;
            // Some kernels cannot tell (CONFIG_PREEMPT_RT); then who is left of the container goes on.
            if group.controllers.contains(&Controller::Memory)
                && let Ok(told) = cgroup::tell_when_exhausted(path)
            {
                let _ = self.exhausted.set(told);
            }
            return Ok(());
        };
        if !enable.is_empty() {
            put(&group.parent.join(SUBTREE), &switch('+', enable))?;
        }
        self.make_folder(path)?;
        write_all(group, path)?;
        // Whoever tends the parent may switch off there what nobody seems to use, and this keeps it on.
        put(&path.join(SUBTREE), &switch('+', &group.controllers))?;
        let inner = path.join(INNER);
        fs_err::create_dir(&inner).map_err(|failed| Error::Make {
            folder: inner,
            failed,
        })
    }

    /// Makes `folder`, and takes the lock on it.
    fn make_folder(&self, folder: &Path) -> Result<(), Error> {
        for _ in 0..ATTEMPTS {
            match fs_err::create_dir(folder) {
                // A sweep looks at it.
                Err(refused) if refused.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(failed) => {
                    return Err(Error::Make {
                        folder: folder.to_owned(),
                        failed,
                    });
                }
                Ok(()) => {}
            }
            if let Ok(opened) = fs_err::File::open(folder)
                && file::try_lock(opened.file(), file::LockKind::Exclusive)?
                // Locked, and yet removed before.
                && folder.exists()
            {
                self.locks.borrow_mut().push(opened);
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Err(SysError::new(Errno::BUSY, format_args!("mkdir({folder:?})")).into())
    }

    /// Returns the cgroup that the first process is born in, where there is one of version 2.
    pub fn unified(&self) -> Option<BorrowedFd<'_>> {
        self.unified.get().map(AsFd::as_fd)
    }

    /// Returns what becomes readable when the memory has run out and the rest of the container is to be ended: the
    /// kernel does that by itself in version 2 only.
    pub fn exhausted(&self) -> Option<BorrowedFd<'_>> {
        self.exhausted.get().map(AsFd::as_fd)
    }

    /// Takes note of what [`Self::exhausted`] told.
    pub fn note_exhausted(&self) -> Result<(), SysError> {
        if let Some(told) = &self.exhausted.get() {
            process::read(told, &mut [0; 8])?;
        }
        self.told.set(true);
        Ok(())
    }

    /// Whether the container has ended, or is about to, because its memory was used up.
    pub fn out_of_memory(&self) -> bool {
        // Who is ended by mk before the kernel does it is not among those that the kernel counts.
        self.told.get() || self.folders.out_of_memory()
    }

    /// Returns them as data.
    pub fn folders(&self) -> &Folders {
        &self.folders
    }

    /// Returns what is to be removed when mk itself cannot do it.
    pub fn doomed(&self) -> Doomed {
        let mut doomed = self.folders.doomed();
        doomed.back.clone_from(&self.back);
        doomed
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        // A copy of this process that goes on as something else has only borrowed them.
        if std::process::id() == self.owner {
            self.doomed().remove(PATIENCE);
        }
    }
}

/// The file that says which controllers the children of a cgroup have.
const SUBTREE: &str = "cgroup.subtree_control";
/// The file that lists the processes in a cgroup, and takes one.
const PROCESSES: &str = "cgroup.procs";

/// Returns a path in `parent` that nobody else chooses.
fn named(parent: &Path) -> Result<PathBuf, Error> {
    Ok(parent.join(format!("{PREFIX}{:016x}", file::random()?)))
}

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::plan::Write;
    use crate::spec::limits::Limits;

    fn plan(parent: &Path, writes: Vec<Write>) -> Plan {
        let group = Group {
            version: Version::V1,
            parent: parent.to_owned(),
            around: vec![parent.to_owned()],
            controllers: vec![Controller::Pids],
            writes,
        };
        Plan { groups: vec![group] }
    }

    #[test]
    fn what_is_planned_is_made_locked_and_gone_in_the_end() {
        let temp = tempfile::tempdir().unwrap();
        let groups = Groups::new(&plan(temp.path(), Vec::new())).unwrap();
        let folder = groups.folders().paths().next().unwrap().to_owned();
        assert!(!folder.exists(), "its name is chosen before it is made");
        groups.make().unwrap();
        sweep(temp.path());
        assert!(folder.exists(), "another mk took it away");
        drop(groups);
        assert!(!folder.exists());
    }

    #[test]
    fn nothing_is_left_where_the_kernel_refuses_a_value() {
        let temp = tempfile::tempdir().unwrap();
        let write = Write {
            file: "pids.max",
            text: "1".into(),
            optional: false,
        };
        let groups = Groups::new(&plan(temp.path(), vec![write])).unwrap();
        let failed = groups.make().unwrap_err().to_string();
        assert!(
            failed.starts_with("cannot write `1` to `") && failed.ends_with("/pids.max`"),
            "{failed}"
        );
        drop(groups);
        assert_eq!(fs_err::read_dir(temp.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_others_left_behind_is_removed_on_the_way() {
        let temp = tempfile::tempdir().unwrap();
        fs_err::create_dir(temp.path().join("mk-left")).unwrap();
        let _groups = Groups::new(&plan(temp.path(), Vec::new())).unwrap();
        assert!(!temp.path().join("mk-left").exists());
    }

    #[test]
    #[expect(clippy::print_stderr, reason = "a skipped test says so")]
    fn a_process_joins_a_real_one() {
        let limits = Limits {
            pids: Some("50".parse().unwrap()),
            ..Limits::default()
        };
        let groups = match Plan::new(&limits) {
            Ok(Some(plan)) => Groups::new(&plan).unwrap(),
            other => return eprintln!("skipped: needs root, or a cgroup of this user's own ({other:?})"),
        };
        groups.make().unwrap();
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        groups.folders().join(child.id() as i32).unwrap();
        let name = groups
            .folders()
            .paths()
            .next()
            .unwrap()
            .file_name()
            .unwrap()
            .to_owned();
        let now = fs_err::read_to_string(format!("/proc/{}/cgroup", child.id())).unwrap();
        assert!(now.contains(&*name.to_string_lossy()), "{now}");
        let folder = groups.folders().paths().next().unwrap().to_owned();
        child.kill().unwrap();
        child.wait().unwrap();
        drop(groups);
        assert!(!folder.exists());
    }
}
