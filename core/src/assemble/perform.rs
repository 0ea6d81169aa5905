//! One step of a plan: the tree before it → the tree after it, with every file that it brings in the store.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};

use super::Request;
use super::beside::{Folder, take_in};
use super::filing::{self, Filing};
use super::grant::{self, Grants};
use super::run::{self, Run};
use crate::digest::{Digest, HashReader};
use crate::entry::{Content, Entry, Kind};
use crate::fetch;
use crate::glob::BadPattern;
use crate::meta::Meta;
use crate::path::{BadPath, TreePath};
use crate::plan::{Origin, Pinned, PlannedStep};
use crate::recipe::{Location, Owner, Select, User, Verb};
use crate::store::{self, Stage, Store};
use crate::tree::accounts::{self, Accounts};
use crate::tree::{NodeKind, Tree, apply};
use crate::unpack::{self, BadArchive, Body, Selector, Summary};
use crate::watch::{Event, Watch};

/// An account file that is larger than this is not one, in bytes.
const LARGEST_ACCOUNTS: u64 = 16 << 20;

/// How many files pass between two events.
const REPORT_EVERY: u64 = 128;

/// Why a step cannot be done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An archive is damaged, hostile, or none.
    #[error(transparent)]
    Archive(#[from] BadArchive),
    /// What the step brings does not fit into the tree.
    #[error(transparent)]
    Tree(#[from] apply::Error),
    /// The user does not fit into the image's accounts.
    #[error(transparent)]
    Accounts(#[from] accounts::Error),
    /// A pattern that is none.
    #[error(transparent)]
    Pattern(#[from] BadPattern),
    /// A path grew too long on its way into the image.
    #[error(transparent)]
    Path(#[from] BadPath),
    /// A source cannot be had.
    #[error(transparent)]
    Fetch(#[from] fetch::Error),
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// What was fetched is gone.
    #[error("`{name}` was fetched and is no longer in the store: has somebody else removed it?")]
    NoSource {
        /// The source.
        name: String,
    },
    /// The other tree does not have what is to be taken from it.
    #[error("there is no `{path}` in `{base}`")]
    NotInBase {
        /// What is to be taken.
        path: TreePath,
        /// The other recipe or image, as this one names it.
        base: String,
    },
    /// A secret that nobody has given.
    #[error("the secret `{name}` is not given")]
    NoSecret {
        /// Its name.
        name: String,
    },
    /// Something beside the recipe was written to while it was read.
    #[error("`{path}` changed while it was being read")]
    Changed {
        /// Its path as written.
        path: String,
    },
    /// A hard link is taken and what it links to is not.
    #[error(
        "`{path}` is a hard link to `{target}`, which `include` or `exclude` leaves out: take both or neither"
    )]
    LinkLeftOut {
        /// The link, as the archive has it.
        path: TreePath,
        /// What it is another name of.
        target: TreePath,
    },
    /// A step that takes only some of its archives takes nothing at all.
    #[error("nothing in {} matches {}", quoted(.archives), quoted(.include))]
    NothingIncluded {
        /// The archives of the step.
        archives: Vec<String>,
        /// What would be taken.
        include: Vec<String>,
    },
    /// One of the account files of the image is not a text.
    #[error("`{path}` in the image is not a file of accounts: expected {expected}, found {found}")]
    NotAccounts {
        /// The file.
        path: TreePath,
        /// What it should be.
        expected: &'static str,
        /// What it is.
        found: String,
    },
    /// A command did not do its part.
    #[error(transparent)]
    Run(#[from] run::Error),
    /// A file of the store cannot be read.
    #[error("cannot read `{path}` of the image")]
    Read {
        /// The path in the image.
        path: TreePath,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A step, and the latest time that it may give a file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Perform<'p> {
    /// Which step, from 0.
    pub(super) index: usize,
    /// The step.
    pub(super) step: &'p PlannedStep,
    /// Seconds since 1970 UTC.
    pub(super) epoch: i64,
}

/// What steps are performed with.
pub(super) struct Performing<'a> {
    store: &'a Store,
    request: Request<'a>,
    watch: &'a dyn Watch,
    /// Archives that had to be unpacked before their step: by step and digest.
    early: BTreeMap<(usize, Digest), Early<'a>>,
    /// The newest time in each archive that was unpacked, which the store does not know before the step is done.
    times: BTreeMap<Digest, i64>,
    /// The steps that have begun: one whose archive is unpacked early begins there.
    begun: BTreeSet<usize>,
    /// Whether commands find other surroundings than they are to count on.
    varied: bool,
}

/// An archive that was unpacked before it was known whether its step can be done: its files are not in the store yet,
/// so that one which turns out to be no good leaves nothing there.
struct Early<'a> {
    stage: Stage<'a>,
    entries: Vec<Entry<Content>>,
}

impl<'a> Performing<'a> {
    pub(super) fn new(request: Request<'a>, store: &'a Store, watch: &'a dyn Watch) -> Self {
        Self {
            store,
            request,
            watch,
            early: BTreeMap::new(),
            times: BTreeMap::new(),
            begun: BTreeSet::new(),
            varied: false,
        }
    }

    /// Has commands find other surroundings than they are to count on.
    pub(super) fn varied(self) -> Self {
        Self { varied: true, ..self }
    }

    /// Tells, once, that a step begins (`index` from 0).
    pub(super) fn begin(&mut self, index: usize, count: usize, label: &str) {
        if self.begun.insert(index) {
            let index = index + 1;
            self.watch.see(Event::StepStarted { index, count, label });
        }
    }

    /// Returns the newest time in each archive that was unpacked so far.
    pub(super) fn times(&self) -> &BTreeMap<Digest, i64> {
        &self.times
    }

    /// Has the store remember the newest times in these archives, as far as they were unpacked.
    pub(super) fn remember<'p>(&self, archives: impl IntoIterator<Item = &'p Pinned>) -> store::Result<()> {
        for archive in archives {
            if let Some(newest) = self.times.get(&archive.sha256) {
                self.store.set_newest(&archive.sha256, *newest)?;
            }
        }
        Ok(())
    }

    /// Unpacks an archive whose newest time nobody knows yet.
    pub(super) fn unpack_early(
        &mut self,
        index: usize,
        archive: &Pinned,
        select: &Select,
    ) -> Result<(), Error> {
        // The epoch will be no earlier than the newest time in here, so these times are final already.
        let stage = self.store.stage()?;
        let entries = self.unpack(&stage, index, archive, select, i64::MAX)?;
        self.early
            .insert((index, archive.sha256), Early { stage, entries });
        Ok(())
    }

    /// Does one step to `tree`. All files that it brings are in the store afterwards.
    pub(super) fn perform(&mut self, perform: Perform<'_>, tree: &mut Tree) -> Result<(), Error> {
        let stage = self.store.stage()?;
        let mut early = Vec::new();
        match &perform.step.verb {
            Verb::Unpack { .. } | Verb::Deb { .. } => early = self.lay_archives(&stage, perform, tree)?,
            Verb::Copy { .. } => self.copy(&stage, perform, tree)?,
            Verb::Take {
                into, mode, owner, ..
            } => self.take(&stage, perform, (into, *mode, *owner), tree)?,
            Verb::Write {
                path,
                text,
                mode,
                owner,
            } => {
                let meta = owned(*mode, *owner, perform.epoch);
                let content = stage.add_file(&mut text.as_bytes(), &meta)?;
                tree.layer(perform.epoch).lay(Entry {
                    path: path.clone(),
                    meta,
                    kind: Kind::File(content),
                })?;
            }
            Verb::Link { paths, to } => {
                let mut layer = tree.layer(perform.epoch);
                for path in paths {
                    let kind = Kind::Symlink(to.as_bytes().into());
                    layer.lay(Entry {
                        path: path.clone(),
                        meta: Meta::new(0o777, perform.epoch),
                        kind,
                    })?;
                }
            }
            Verb::Dir { paths, mode, owner } => {
                let mut layer = tree.layer(perform.epoch);
                for path in paths {
                    let meta = owned(*mode, *owner, perform.epoch);
                    layer.lay(Entry {
                        path: path.clone(),
                        meta,
                        kind: Kind::Folder,
                    })?;
                }
            }
            Verb::Remove { patterns } => _ = tree.remove(patterns)?,
            Verb::User(user) => self.add_user(&stage, perform, user, tree)?,
            Verb::Run(script) => {
                let from = grant::From {
                    store: self.store,
                    watch: self.watch,
                    folder: &Folder::new(&self.request, self.store),
                    secrets: self.request.secrets,
                    epoch: perform.epoch,
                };
                let run = Run {
                    store: self.store,
                    watch: self.watch,
                    index: perform.index,
                    epoch: perform.epoch,
                    grants: Grants::new(&script.mounts, &perform.step.mounted, &from)?,
                    shell: self.request.shell.filter(|_| !self.varied),
                    varied: self.varied,
                };
                *tree = run.carry_out(script, tree, &stage)?;
            }
        }
        for stage in early.into_iter().chain([stage]) {
            stage.commit()?;
        }
        Ok(self.remember(&perform.step.archives)?)
    }

    /// Returns the stages of those that were unpacked before, which are to be committed as well.
    fn lay_archives(
        &mut self,
        stage: &Stage<'_>,
        perform: Perform<'_>,
        tree: &mut Tree,
    ) -> Result<Vec<Stage<'a>>, Error> {
        let mut stages = Vec::new();
        let mut taken = 0;
        for archive in &perform.step.archives {
            let entries = match self.early.remove(&(perform.index, archive.sha256)) {
                Some(Early { stage, entries }) => {
                    stages.push(stage);
                    entries
                }
                None => self.unpack(stage, perform.index, archive, &perform.step.select, perform.epoch)?,
            };
            taken += entries.len();
            let mut layer = tree.layer(perform.epoch);
            for entry in entries {
                layer.lay(entry)?;
            }
        }
        let PlannedStep { archives, select, .. } = perform.step;
        // All that is asked for is left out by a pattern that is misspelt or looks at paths that `strip` has not shortened.
        if taken == 0 && !select.include.is_empty() {
            return Err(Error::NothingIncluded {
                archives: archives.iter().map(|archive| archive.name.clone()).collect(),
                include: select.include.clone(),
            });
        }
        Ok(stages)
    }

    /// Brings the files of an archive into the store and returns its entries as they go into the tree.
    fn unpack(
        &mut self,
        stage: &Stage<'_>,
        index: usize,
        archive: &Pinned,
        select: &Select,
        epoch: i64,
    ) -> Result<Vec<Entry<Content>>, Error> {
        let selector = Selector::new(select)?;
        let mut bytes = 0;
        let mut take = |filing: &mut Filing<'_>, entry: Entry<Body<'_>>| -> Result<(), Error> {
            let Some(entry) = placed(entry, &selector)? else {
                return Ok(());
            };
            if let Kind::File(body) = &entry.kind {
                bytes += body.size();
            }
            let meta = entry.meta.clone().not_later_than(epoch);
            filing.take(Entry { meta, ..entry }, Body::size)?;
            let files = filing.len() as u64;
            if files.is_multiple_of(REPORT_EVERY) {
                self.watch.see(Event::StepProgress {
                    index: index + 1,
                    files,
                    bytes,
                });
            }
            Ok(())
        };
        let (entries, summary) = filing::file(stage, |filing| {
            self.read(archive, &mut |entry| take(filing, entry))
        })?;
        self.times
            .insert(archive.sha256, summary.newest.unwrap_or_default());
        Ok(entries)
    }

    /// Hands each entry of an archive to `take`.
    fn read(
        &self,
        archive: &Pinned,
        take: &mut dyn FnMut(Entry<Body<'_>>) -> Result<(), Error>,
    ) -> Result<Summary, Error> {
        match &archive.origin {
            Origin::At(Location::File(path)) => {
                let file = fs_err::File::open(self.request.folder.join(path)).map_err(|source| {
                    fetch::Error::Read {
                        path: self.request.folder.join(path),
                        source,
                    }
                })?;
                let mut reader = HashReader::new(file);
                let summary = unpack::entries(&archive.name, &mut reader, self.request.limits, take)?;
                // Whatever stands behind the archive's end counts for its digest as well.
                let rest = io::copy(&mut reader, &mut io::sink());
                rest.map_err(|source| fetch::Error::Read {
                    path: self.request.folder.join(path),
                    source,
                })?;
                if reader.finish().0 != archive.sha256 {
                    Folder::new(&self.request, self.store).forget(path);
                    return Err(Error::Changed { path: path.clone() });
                }
                Ok(summary)
            }
            _ => {
                let source = self.store.source(&archive.sha256)?;
                let source = source.ok_or_else(|| Error::NoSource {
                    name: archive.name.clone(),
                })?;
                unpack::entries(&archive.name, source, self.request.limits, take)
            }
        }
    }

    /// Brings a file or folder from beside the recipe into the tree.
    fn copy(&self, stage: &Stage<'_>, perform: Perform<'_>, tree: &mut Tree) -> Result<(), Error> {
        let Verb::Copy {
            from,
            into,
            mode,
            owner,
        } = &perform.step.verb
        else {
            return Ok(());
        };
        let beside = Beside {
            folder: &Folder::new(&self.request, self.store),
            from,
            into,
            mode: *mode,
            owner: *owner,
            epoch: perform.epoch,
        };
        lay_beside(&beside, perform.step.copied.as_ref(), stage, tree)
    }

    /// Lays a part of another tree over the tree; times, and unless the step says otherwise modes and owners, stay.
    fn take(
        &self,
        stage: &Stage<'_>,
        perform: Perform<'_>,
        (into, mode, owner): (&TreePath, Option<u16>, Option<Owner>),
        tree: &mut Tree,
    ) -> Result<(), Error> {
        let Some(part) = &perform.step.copied else {
            return Ok(());
        };
        let mut layer = tree.layer(perform.epoch);
        for entry in self.store.tree(part)?.part_entries(into)? {
            let mut meta = entry.meta.clone().not_later_than(perform.epoch);
            if let (Kind::File(_), Some(mode)) = (&entry.kind, mode) {
                meta.mode = mode;
            }
            if let Some(owner) = owner {
                (meta.uid, meta.gid) = (owner.uid, owner.gid);
            }
            let kind = match &entry.kind {
                Kind::File(content) if meta != entry.meta => {
                    let mut object = self.store.open_object(content, &entry.meta)?;
                    Kind::File(stage.add_file(&mut object, &meta)?)
                }
                kind => kind.clone(),
            };
            layer.lay(Entry { meta, kind, ..entry })?;
        }
        Ok(())
    }

    fn add_user(
        &self,
        stage: &Stage<'_>,
        perform: Perform<'_>,
        user: &User,
        tree: &mut Tree,
    ) -> Result<(), Error> {
        let [passwd, group, shadow] = ["etc/passwd", "etc/group", "etc/shadow"].map(TreePath::parse);
        let files = [(passwd?, 0o644), (group?, 0o644), (shadow?, 0o640)];
        let mut texts = Vec::new();
        for (path, mode) in &files {
            texts.push(self.read_accounts(path, *mode, perform.epoch, tree)?);
        }
        let text = |index: usize| texts[index].0.clone();
        let mut accounts = Accounts {
            passwd: text(0),
            group: text(1),
            shadow: text(2),
        };
        accounts.add(user)?;
        let after = [&accounts.passwd, &accounts.group, &accounts.shadow];
        let mut layer = tree.layer(perform.epoch);
        for (((path, _), (before, meta)), text) in files.iter().zip(&texts).zip(after) {
            if before != text {
                let content = stage.add_file(&mut text.as_bytes(), meta)?;
                layer.lay(Entry {
                    path: path.clone(),
                    meta: meta.clone(),
                    kind: Kind::File(content),
                })?;
            }
        }
        let home = TreePath::normalise(&user.home)?;
        if !home.is_root() && layer.tree().get(&layer.tree().follow(&home)?).is_none() {
            let meta = owned(
                0o755,
                Owner {
                    uid: user.uid,
                    gid: user.gid,
                },
                perform.epoch,
            );
            layer.lay(Entry {
                path: home,
                meta,
                kind: Kind::Folder,
            })?;
        }
        Ok(())
    }

    /// Returns the text of a file of accounts and the metadata that it is to have: its own, with a new time.
    fn read_accounts(
        &self,
        path: &TreePath,
        mode: u16,
        epoch: i64,
        tree: &Tree,
    ) -> Result<(String, Meta), Error> {
        let not_accounts = |expected, found: &str| Error::NotAccounts {
            path: path.clone(),
            expected,
            found: found.to_owned(),
        };
        let Some(node) = tree.get(&tree.follow(path)?) else {
            return Ok((String::new(), Meta::new(mode, epoch)));
        };
        let NodeKind::File { content, .. } = node.kind else {
            return Err(not_accounts("a regular file", "something else"));
        };
        if content.size > LARGEST_ACCOUNTS {
            return Err(not_accounts(
                "16 MiB at the most",
                &format!("{} bytes", content.size),
            ));
        }
        let mut bytes = Vec::new();
        let object = self.store.open_object(&content, &node.meta)?;
        let read = object.take(LARGEST_ACCOUNTS).read_to_end(&mut bytes);
        read.map_err(|source| Error::Read {
            path: path.clone(),
            source,
        })?;
        let text = String::from_utf8(bytes).map_err(|_| not_accounts("UTF-8", "other bytes"))?;
        Ok((
            text,
            Meta {
                mtime: epoch,
                ..node.meta.clone()
            },
        ))
    }
}

/// A file or folder beside the recipe on its way into a tree.
pub(super) struct Beside<'a> {
    /// The recipe's folder.
    pub(super) folder: &'a Folder<'a>,
    /// Its path, as written.
    pub(super) from: &'a str,
    /// Where it goes.
    pub(super) into: &'a TreePath,
    /// Permission bits of files, where not their own.
    pub(super) mode: Option<u16>,
    pub(super) owner: Owner,
    pub(super) epoch: i64,
}

/// Lays it over `tree`, with its files in `stage`. What is `expected` is its digest.
pub(super) fn lay_beside(
    beside: &Beside<'_>,
    expected: Option<&Digest>,
    stage: &Stage<'_>,
    tree: &mut Tree,
) -> Result<(), Error> {
    let listing = beside.folder.list(beside.from)?;
    let mut known = beside.folder.known(&listing, beside.from);
    let mut layer = tree.layer(beside.epoch);
    if !listing.is_file() {
        // The folder that is copied becomes `into`; one that is there already keeps its mode and owner.
        layer.make_folder(beside.into)?;
    }
    let mut seen = crate::digest::Hasher::new();
    for entry in listing.entries() {
        let file_mode = match (&entry.kind, beside.mode) {
            (Kind::File(_), Some(mode)) => mode,
            _ => entry.meta.mode,
        };
        let meta = owned(file_mode, beside.owner, beside.epoch);
        let placed = Entry {
            path: beside.into.join_path(&entry.path)?,
            meta,
            kind: entry.kind.clone(),
        };
        let mut held = None;
        let placed = placed.try_map(|version, meta| -> Result<Content, Error> {
            let content = known.content(&entry.path, &version).map(|digest| Content {
                digest,
                size: version.size,
            });
            let content = match content {
                // The store has had it since this version was read.
                Some(content) if stage.has_file(&content, meta)? => content,
                _ => stage.add_file(&mut listing.open(&entry.path)?, meta)?,
            };
            held = Some(content);
            Ok(content)
        })?;
        take_in(&mut seen, &entry.path, entry.meta.mode, &placed.kind, held);
        layer.lay(placed)?;
    }
    if expected.is_some_and(|expected| *expected != seen.finish()) {
        beside.folder.forget(beside.from);
        return Err(Error::Changed {
            path: beside.from.to_owned(),
        });
    }
    Ok(())
}

/// Returns the entry where it goes, or none where it is left out.
fn placed<B>(entry: Entry<B>, selector: &Selector) -> Result<Option<Entry<B>>, Error> {
    let Some(path) = selector.place(&entry.path)? else {
        return Ok(None);
    };
    let kind = match entry.kind {
        Kind::HardLink(target) => match selector.place(&target)? {
            Some(target) => Kind::HardLink(target),
            None => {
                return Err(Error::LinkLeftOut {
                    path: entry.path,
                    target,
                });
            }
        },
        kind => kind,
    };
    Ok(Some(Entry {
        path,
        meta: entry.meta,
        kind,
    }))
}

/// Writes names one after the other: the first few, and how many more there are.
fn quoted(names: &[String]) -> String {
    const SHOWN: usize = 5;
    let shown: Vec<String> = names.iter().take(SHOWN).map(|name| format!("`{name}`")).collect();
    match names.len().saturating_sub(SHOWN) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

fn owned(mode: u16, owner: Owner, epoch: i64) -> Meta {
    Meta {
        uid: owner.uid,
        gid: owner.gid,
        ..Meta::new(mode, epoch)
    }
}
