//! A `run` step: the tree before it, a command that writes over it, and the tree with what it wrote. The command runs in
//! a container like those of `mk run`, without a network, with its writes in a folder of the store's.

use std::collections::VecDeque;
use std::fs::File;

use super::Shell;
use super::grant::Grants;
use crate::changes::{as_in_tree, without_made};
use crate::digest::Digest;
use crate::enter;
use crate::entry::{Change, Content, Entry};
use crate::path::TreePath;
use crate::process::{self, Output, Stream};
use crate::recipe::{Conf, Network, RunDefaults, Script};
use crate::rootfs::capture::{self, Notes, capture};
use crate::rootfs::kept::{self, Kept};
use crate::rootfs::{self, Rootfs};
use crate::spec::streams::{Stdio, Streams};
use crate::spec::{self, Asked, RunSpec, ScratchKind, Userns};
use crate::store::{self, Owners, Stage, Store};
use crate::sys::dir::Dir;
use crate::sys::file;
use crate::sys::process::Ending;
use crate::sys::{SysError, namespace, place};
use crate::tree::{Tree, change};
use crate::watch::{Event, Watch};

/// The host name that commands find, whatever the machine is called.
const HOST_NAME: &str = "mk-build";
/// How many of the last lines are told where a command fails.
const LAST_LINES: usize = 20;
/// A line is cut here, in bytes: what has no line ends must not fill the memory.
const LONGEST_LINE: usize = 64 * 1024;

/// Why there is no tree after a command.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It failed.
    #[error("the command {}{}", how(*.ending), if *.full { ", and the disk that it wrote to is full" } else { "" })]
    Command {
        /// How it ended.
        ending: Ending,
        /// The last that it printed.
        last: Vec<String>,
        /// Whether there was no room left then: not every program says that this is why.
        full: bool,
    },
    /// It cannot be run as the recipe has it.
    #[error(transparent)]
    Spec(#[from] spec::Error),
    /// It was not started.
    #[error(transparent)]
    Enter(#[from] Box<enter::Error>),
    /// There is no folder for what it writes.
    #[error(transparent)]
    Kept(#[from] kept::Error),
    /// What it wrote cannot be read.
    #[error(transparent)]
    Capture(#[from] capture::Error),
    /// What it wrote does not fit the tree.
    #[error(transparent)]
    Change(#[from] change::Error),
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A call failed.
    #[error("cannot read what the command wrote")]
    Sys(#[from] SysError),
}

fn how(ending: Ending) -> String {
    match ending {
        Ending::Code(code) => format!("exited with {code}"),
        Ending::Signal(number) => format!("was ended by signal {number}"),
    }
}

/// What a command is run with.
pub(super) struct Run<'a> {
    pub(super) store: &'a Store,
    pub(super) watch: &'a dyn Watch,
    /// Which step, from 0.
    pub(super) index: usize,
    /// The latest time that a file may have (seconds since 1970 UTC).
    pub(super) epoch: i64,
    /// What the command finds besides the tree.
    pub(super) grants: Grants,
    /// How a shell is opened where the command fails, if one is.
    pub(super) shell: Option<&'a Shell>,
    /// Whether what the command is not to depend on is other than it always is.
    pub(super) varied: bool,
}

impl Run<'_> {
    /// Runs `script` in `tree`, all of whose files are in the store, and returns the tree after it; the files that are
    /// new are in `stage`.
    pub(super) fn carry_out(&self, script: &Script, tree: &Tree, stage: &Stage<'_>) -> Result<Tree, Error> {
        let digest = self.store.put_tree(tree)?;
        rootfs::checkout(self.store, &digest, tree, self.watch)?;
        let (kept, notes, places) = self.enter(script, &digest)?;
        let changes = self.captured(&kept, notes, tree, stage)?;
        Ok(tree.changed(without_made(changes, &places, tree), self.epoch)?)
    }

    /// Runs it, and returns where it wrote, how overlayfs keeps its notes there, and where something else was mounted.
    fn enter(&self, script: &Script, tree: &Digest) -> Result<(Kept, Notes, Vec<TreePath>), Error> {
        let mut rootfs = Rootfs::of_tree(self.store, tree);
        let root = place::dress_of(&rootfs.tree_path())?;
        // Names in a folder come in another order there than on a disk.
        let kept = if self.varied {
            Kept::in_memory(self.store, root)?
        } else if kept::can_be_in(self.store) {
            Kept::in_store(self.store, root)?
        } else {
            namespace::own_mount_namespace()?;
            Kept::in_memory(self.store, root)?
        };
        rootfs.kept = kept.share()?;
        let spec = self.spec(script, None)?;
        let mut plan = enter::plan(&rootfs, &spec, None).map_err(Box::new)?;
        plan.take_ids().map_err(Box::new)?;
        let notes = match plan.table.user_xattr {
            true => Notes::User,
            false => Notes::Trusted,
        };
        let places = plan
            .table
            .mounts
            .iter()
            .map(|mount| mount.target.clone())
            .collect();
        let mut lines = Lines::new(self.watch, self.index + 1);
        let ended = enter::carry_out_telling(rootfs, &spec, plan, &mut lines).map_err(Box::new)?;
        match ended.ending {
            Ending::Code(0) => Ok((kept, notes, places)),
            ending => {
                let last = lines.finish();
                let full = Dir::open(kept.path()).is_ok_and(|dir| !file::has_room(dir));
                if let Some(shell) = self.shell {
                    self.open_shell(script, tree, &kept, shell)?;
                }
                Err(Error::Command { ending, last, full })
            }
        }
    }

    /// Opens a shell where the command failed: in the same tree with what it wrote, for the same user, with the same
    /// environment and mounts.
    fn open_shell(&self, script: &Script, tree: &Digest, kept: &Kept, shell: &Shell) -> Result<(), Error> {
        self.watch.see(Event::HandedOver {
            text: "the command failed; this shell is where it was, and what it does counts for nothing: `exit` ends the build",
        });
        let mut rootfs = Rootfs::of_tree(self.store, tree);
        rootfs.kept = kept.share()?;
        let spec = self.spec(script, Some(shell))?;
        let plan = enter::plan(&rootfs, &spec, None).map_err(Box::new)?;
        enter::carry_out(rootfs, &spec, plan).map_err(Box::new)?;
        Ok(())
    }

    /// What the command finds is the same everywhere; nothing of the machine or of the caller is in it.
    fn spec(&self, script: &Script, shell: Option<&Shell>) -> Result<RunSpec, Error> {
        let (locale, zone, host_name) = match self.varied {
            false => ("C.UTF-8", "UTC", HOST_NAME),
            true => ("C", "MK-11:30", "mk-check"),
        };
        let fixed = [
            ("LC_ALL", locale.to_owned()),
            ("TZ", zone.to_owned()),
            ("SOURCE_DATE_EPOCH", self.epoch.to_string()),
        ];
        let mut env: std::collections::BTreeMap<String, String> =
            fixed.map(|(name, value)| (name.to_owned(), value)).into();
        env.extend(script.env.clone());
        let defaults = RunDefaults {
            command: match shell {
                Some(_) => vec!["/bin/sh".to_owned()],
                None => script.words.command(),
            },
            env,
            workdir: script.workdir.clone(),
            user: script.user.clone(),
            network: script.network.then_some(Network::Host),
            nesting: false,
        };
        let asked = Asked {
            hostname: Some(host_name.to_owned()),
            streams: match shell {
                Some(shell) => shell.streams,
                None => Streams {
                    each: [Stdio::Null, Stdio::Pipe, Stdio::Pipe],
                    detached: true,
                    terminal: None,
                },
            },
            term: shell.and_then(|shell| shell.term.clone()),
            input: script.stdin.as_ref().map(|text| text.clone().into_bytes()),
            mounts: self.grants.extras.clone(),
            scratch: ScratchKind::Disk,
            same_addresses: !self.varied,
            later_pids: self.varied,
            userns: Some(match (self.varied, self.store.format().owners) {
                // Root is somebody else on the host then.
                (true, Owners::Native) => Userns::Auto,
                _ => Userns::Host,
            }),
            ..Asked::default()
        };
        Ok(RunSpec::new(&defaults, &Conf::default(), asked)?)
    }

    /// Reads what was written, and brings its files into `stage`.
    fn captured(
        &self,
        kept: &Kept,
        notes: Notes,
        tree: &Tree,
        stage: &Stage<'_>,
    ) -> Result<Vec<Change<Content>>, Error> {
        let upper = Dir::open(&kept.upper())?;
        let as_in_tree = |path: &TreePath, meta| {
            as_in_tree(meta, tree, path, self.store.format()).not_later_than(self.epoch)
        };
        let mut changes = Vec::new();
        capture(&upper, notes, &mut |change| {
            changes.push(match change {
                Change::There(Entry { path, meta, kind }) => {
                    let meta = as_in_tree(&path, meta);
                    let entry = Entry { path, meta, kind };
                    Change::There(entry.try_map(|file: &File, meta| {
                        let mut file: &File = file;
                        stage.add_file(&mut file, meta).map_err(taken)
                    })?)
                }
                Change::Redressed { path, meta, from } => {
                    let meta = as_in_tree(&path, meta);
                    Change::Redressed { path, meta, from }
                }
                Change::Gone(path) => Change::Gone(path),
                Change::Cleared(path) => Change::Cleared(path),
                Change::Moved { path, from } => Change::Moved { path, from },
                Change::Socket { path, meta } => Change::Socket { path, meta },
            });
            Ok(())
        })?;
        Ok(changes)
    }
}

fn taken(error: store::Error) -> capture::Error {
    capture::Error::Taken(Box::new(error))
}

/// Cuts what a command prints into lines, tells of each, and remembers the last ones.
struct Lines<'a> {
    watch: &'a dyn Watch,
    index: usize,
    open: [Vec<u8>; 2],
    last: VecDeque<String>,
}

impl<'a> Lines<'a> {
    fn new(watch: &'a dyn Watch, index: usize) -> Self {
        Self {
            watch,
            index,
            open: [Vec::new(), Vec::new()],
            last: VecDeque::new(),
        }
    }

    fn line(&mut self, bytes: &[u8]) {
        let line = String::from_utf8_lossy(bytes).trim_end_matches('\r').to_owned();
        self.watch.see(Event::StepPrinted {
            index: self.index,
            line: &line,
        });
        if self.last.len() == LAST_LINES {
            self.last.pop_front();
        }
        self.last.push_back(line);
    }

    /// Returns the last lines; what has no end is one, too.
    fn finish(mut self) -> Vec<String> {
        for rest in std::mem::take(&mut self.open) {
            if !rest.is_empty() {
                self.line(&rest);
            }
        }
        std::mem::take(&mut self.last).into()
    }
}

impl Output for Lines<'_> {
    fn take(&mut self, stream: Stream, bytes: &[u8]) {
        let at = usize::from(stream == process::Stream::Stderr);
        let mut open = std::mem::take(&mut self.open[at]);
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            open.extend_from_slice(piece);
            if let Some(line) = open.strip_suffix(b"\n") {
                self.line(line);
                open.clear();
            } else if open.len() > LONGEST_LINE {
                self.line(&open);
                open.clear();
            }
        }
        self.open[at] = open;
    }
}
