//! [`Stage`]: adds files to the store. What is staged becomes visible at [`Stage::commit`], whole, or never.

use std::fs::File;
use std::io::{self, Read, Write};
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::io::Errno;

use super::layout::{self, Format, ObjectName, Owners};
use super::{Error, Result, Store, exists, none_if_missing};
use crate::digest::{Digest, HashWriter, Hasher};
use crate::entry::Content;
use crate::meta::Meta;
use crate::path::TreePath;
use crate::sys::SysError;
use crate::sys::dir::Dir;
use crate::sys::file::{self, LockKind};
use crate::sys::probe;

/// So many files are synced one by one; more, all at once.
const FEW: usize = 8;
/// What the one document of a stage is called.
pub(super) const DOCUMENT: &str = "document";

/// The folders of `objects`, opened when they are first needed, and kept open as far as this process may have files open.
#[derive(Debug)]
pub(super) struct Objects {
    kept: [OnceLock<Dir>; 256],
    /// How many may be kept: those with the lowest numbers.
    most: u64,
}

impl Default for Objects {
    fn default() -> Self {
        Self {
            kept: [const { OnceLock::new() }; 256],
            // All of them at the usual limit of 1024.
            most: probe::limit(probe::Resource::Files).map_or(256, |limit| limit / 4),
        }
    }
}

impl Objects {
    /// Returns where the open folder of an object is kept; `None`: it is not.
    fn slot(&self, name: &ObjectName) -> Option<&OnceLock<Dir>> {
        let byte = name.folder();
        (u64::from(byte) < self.most).then(|| &self.kept[usize::from(byte)])
    }
}

/// A folder of `objects`.
#[derive(Debug)]
pub(crate) enum ObjectFolder<'a> {
    /// That stays open.
    Kept(&'a Dir),
    /// That is closed again.
    Own(Dir),
}

impl Deref for ObjectFolder<'_> {
    type Target = Dir;

    fn deref(&self) -> &Dir {
        match self {
            Self::Kept(dir) => dir,
            Self::Own(dir) => dir,
        }
    }
}

/// What a folder of objects is called.
fn folder_name(byte: u8) -> String {
    format!("{byte:02x}")
}

/// A folder of work that nobody else touches. Dropped without a commit, it goes with all that is in it; so it does, at
/// the next build, when the process dies.
#[derive(Debug)]
pub struct Stage<'a> {
    store: &'a Store,
    name: String,
    dir: Dir,
    /// Which folders for objects it has. They are called as in the store, and not kept open: of files that a process may
    /// have open, 256 are many.
    folders: [AtomicBool; 256],
    next: AtomicU64,
}

impl Store {
    /// Begins to add files.
    pub fn stage(&self) -> Result<Stage<'_>> {
        let (name, dir) = self.make_staging("")?;
        Ok(Stage {
            store: self,
            name,
            dir,
            folders: [const { AtomicBool::new(false) }; 256],
            next: AtomicU64::new(0),
        })
    }

    /// Begins to lay a tree out. Inside `rootfs`, because to move a folder to another parent takes write permission on
    /// the folder itself, which the root of an image need not give.
    pub(crate) fn stage_rootfs(&self) -> Result<StagedFolder<'_>> {
        self.stage_folder("rootfs/")
    }

    /// Makes a folder for what is to be deleted; it is when the folder is dropped.
    pub(super) fn stage_trash(&self) -> Result<StagedFolder<'_>> {
        self.stage_folder("trash/")
    }

    fn stage_folder(&self, prefix: &str) -> Result<StagedFolder<'_>> {
        let (path, dir) = self.make_staging(prefix)?;
        Ok(StagedFolder {
            store: self,
            path,
            dir,
        })
    }

    /// Makes a staging folder, locks it, and returns its path and itself.
    pub(super) fn make_staging(&self, prefix: &str) -> Result<(String, Dir)> {
        loop {
            let (boot, random) = (super::lock::boot_id(), file::random()?);
            let path = format!("{prefix}{}", layout::staging(boot, random));
            self.full(self.dir.make_dir(&path, 0o700))?;
            let Some(dir) = none_if_missing(self.dir.open_dir(&path))? else {
                continue;
            };
            // A sweep may have come between: then it has the lock, and the folder is as good as gone.
            if file::try_lock(&dir, LockKind::Exclusive)? && self.dir.look(&path)?.is_some() {
                // In a setgid folder files would get its group.
                file::chmod(&dir, 0o700)?;
                return Ok((path, dir));
            }
        }
    }

    /// Returns the folder of `objects` that holds `name`.
    pub(crate) fn object_folder(&self, name: &ObjectName) -> Result<ObjectFolder<'_>> {
        let slot = self.objects.slot(name);
        if let Some(dir) = slot.and_then(OnceLock::get) {
            return Ok(ObjectFolder::Kept(dir));
        }
        let path = format!("{}/{}", layout::OBJECTS, folder_name(name.folder()));
        let dir = match none_if_missing(self.dir.open_dir(&path))? {
            Some(dir) => dir,
            None => {
                self.full(exists(self.dir.make_dir(&path, 0o700)))?;
                self.dir.open_dir(&path)?
            }
        };
        Ok(match slot {
            Some(slot) => ObjectFolder::Kept(slot.get_or_init(|| dir)),
            None => ObjectFolder::Own(dir),
        })
    }

    /// Whether the store has an object. One of another size than it must have is damaged.
    fn has_object(&self, name: &ObjectName, size: u64) -> Result<bool> {
        // A folder that is not there is not made: a staged one may yet become it.
        let path = || format!("{}/{}", layout::OBJECTS, folder_name(name.folder()));
        let opened = self.objects.slot(name).and_then(OnceLock::get);
        if opened.is_none() && self.dir.look(path())?.is_none() {
            return Ok(false);
        }
        match self.object_folder(name)?.look(name.file())? {
            None => Ok(false),
            Some(found) if found.size == size => Ok(true),
            Some(found) => Err(Error::Damaged {
                path: self.object_path(name),
                why: format!("it has {} bytes, and should have {size}", found.size),
            }),
        }
    }

    /// Opens the object of a file that a tree in the store names.
    pub fn open_object(&self, content: &Content, meta: &Meta) -> Result<File> {
        let name = ObjectName::new(&content.digest, meta, &self.format);
        Ok(self.object_folder(&name)?.open_file(name.file())?)
    }

    /// Returns where an object is.
    pub(crate) fn object_path(&self, name: &ObjectName) -> PathBuf {
        let folder = self.path.join(layout::OBJECTS).join(folder_name(name.folder()));
        folder.join(name.file())
    }

    /// Explains that a file of a tree is not there.
    pub(crate) fn missing_object(&self, path: &TreePath, object: &ObjectName, error: SysError) -> Error {
        match error.errno {
            Errno::NOENT => Error::NoObject {
                path: path.to_string(),
                object: self.object_path(object),
            },
            _ => error.into(),
        }
    }
}

impl Stage<'_> {
    /// A file of up to so many bytes is hashed in memory, and not written where the store has it.
    pub const SMALL: usize = 1 << 20;

    /// Whether the store has a file with these bytes and the metadata `meta` already.
    pub fn has_file(&self, content: &Content, meta: &Meta) -> Result<bool> {
        let name = ObjectName::new(&content.digest, meta, &self.store.format);
        self.store.has_object(&name, content.size)
    }

    /// Whether the store has an object, as far as this stage has to know. A store in which a folder of the stage's was not
    /// found when that was made has nothing to put in it.
    fn is_known(&self, name: &ObjectName, size: u64) -> Result<bool> {
        let slot = self.store.objects.slot(name);
        if self.has_folder(name.folder()) && slot.is_some_and(|slot| slot.get().is_none()) {
            return Ok(false);
        }
        self.store.has_object(name, size)
    }

    /// Adds a file with all that `body` gives and the metadata `meta`. May be called from several threads.
    pub fn add_file(&self, body: &mut dyn Read, meta: &Meta) -> Result<Content> {
        let mut start = Vec::new();
        let limit = Self::SMALL as u64 + 1;
        body.take(limit).read_to_end(&mut start).map_err(Error::Body)?;
        if start.len() > Self::SMALL {
            return self.add_large(start, body, meta);
        }
        self.add_bytes(&start, meta)
    }

    /// Adds a file with these `bytes` and the metadata `meta`. May be called from several threads.
    pub fn add_bytes(&self, bytes: &[u8], meta: &Meta) -> Result<Content> {
        let content = Content {
            digest: Digest::of(bytes),
            size: bytes.len() as u64,
        };
        let name = ObjectName::new(&content.digest, meta, &self.store.format);
        if self.is_known(&name, content.size)? {
            return Ok(content);
        }
        // One that is there was staged a moment ago, perhaps by another thread that is still at it.
        if let Some(file) = self
            .store
            .full(self.dir.create_new(self.place_of(&name)?, meta.mode & 0o777))?
        {
            self.store.full(file::write(&file, bytes))?;
            self.store.naming_full(self.store.format.dress(&file, meta))?;
            self.store.sync_soon(&file, bytes.len());
        }
        Ok(content)
    }

    /// Adds a file of which `start` was read already, piece by piece.
    fn add_large(&self, start: Vec<u8>, body: &mut dyn Read, meta: &Meta) -> Result<Content> {
        let draft = self.draft();
        let file = self.store.full(self.dir.create_file(&draft, meta.mode & 0o777))?;
        let mut hasher = Hasher::new();
        let mut size = 0;
        let mut piece = start;
        while !piece.is_empty() {
            hasher.update(&piece);
            self.store.full(file::write(&file, &piece))?;
            self.store.sync_soon(&file, piece.len());
            size += piece.len() as u64;
            piece.clear();
            body.take(Self::SMALL as u64)
                .read_to_end(&mut piece)
                .map_err(Error::Body)?;
        }
        let digest = hasher.finish();
        let name = ObjectName::new(&digest, meta, &self.store.format);
        let known = self.is_known(&name, size)? || {
            self.store.naming_full(self.store.format.dress(&file, meta))?;
            exists(self.dir.rename(&draft, &self.dir, self.place_of(&name)?))?.is_none()
        };
        if known {
            self.dir.unlink(&draft)?;
        }
        Ok(Content { digest, size })
    }

    /// Begins to keep an archive as it arrives. Where `expected` is given, only bytes that hash to it are kept.
    pub fn add_source(&self, expected: Option<Digest>) -> Result<SourceWriter<'_>> {
        let draft = self.draft();
        let file = self.store.full(self.dir.create_file(&draft, 0o600))?;
        Ok(SourceWriter {
            stage: self,
            draft,
            expected,
            out: HashWriter::new(file),
        })
    }

    /// Makes all that was added part of the store: it is on the disk before it has its name there. That the names are on
    /// the disk too is seen to before anything lasting names them ([`Store::set_ref`]).
    pub fn commit(self) -> Result<()> {
        let sources = self.sources()?;
        self.sync(&sources)?;
        for (name, digest) in sources {
            let path = format!("{}/{digest}", layout::SOURCES);
            self.store
                .full(exists(self.dir.rename(name, &self.store.dir, path)).map(drop))?;
        }
        for byte in self.objects() {
            self.place(&folder_name(byte))?;
        }
        Ok(())
    }

    /// Returns the archives that were added: what each is called here, and its digest.
    fn sources(&self) -> Result<Vec<(String, String)>> {
        let names = self.dir.list()?.into_iter().filter_map(|(name, _)| {
            let name = name.into_string().ok()?;
            let digest = name.strip_prefix(layout::STAGED_SOURCE)?.to_owned();
            Some((name, digest))
        });
        Ok(names.collect())
    }

    fn sync(&self, sources: &[(String, String)]) -> Result<()> {
        let mut files: Vec<_> = sources.iter().map(|(name, _)| PathBuf::from(name)).collect();
        for byte in self.objects() {
            if files.len() <= FEW {
                let folder = PathBuf::from(folder_name(byte));
                let objects = self.dir.open_dir(&folder)?.list()?;
                files.extend(objects.into_iter().map(|(name, _)| folder.join(name)));
            }
        }
        if files.len() > FEW {
            return self.store.sync_all();
        }
        // syncfs(2) would wait for whatever else is being written to the same disk.
        for file in files {
            self.store.sync_file(self.dir.open_file(file)?)?;
        }
        Ok(())
    }

    /// Moves a folder of objects to where it belongs, or, if one is there, each of its objects that is not.
    fn place(&self, name: &str) -> Result<()> {
        let store = self.store;
        let path = format!("{}/{name}", layout::OBJECTS);
        // 256 renames for a new store instead of one for each file; what that saves is said at `checkout`, with which it was
        // measured.
        if store
            .full(exists(self.dir.rename(name, &store.dir, &path)))?
            .is_some()
        {
            return Ok(());
        }
        let folder = self.dir.open_dir(name)?;
        for (file, _) in folder.list()? {
            let Some(object) = ObjectName::parse(&format!("{name}{}", file.to_string_lossy()), &store.format)
            else {
                continue;
            };
            let moved = folder.rename(&file, &*store.object_folder(&object)?, object.file());
            store.full(exists(moved))?;
        }
        Ok(())
    }

    /// Returns where in the stage an object is added, and makes its folder.
    fn place_of(&self, name: &ObjectName) -> Result<String> {
        let folder = folder_name(name.folder());
        if !self.has_folder(name.folder()) {
            self.store.full(exists(self.dir.make_dir(&folder, 0o700)))?;
            self.folders[usize::from(name.folder())].store(true, Ordering::Release);
        }
        Ok(format!("{folder}/{}", name.file()))
    }

    fn has_folder(&self, byte: u8) -> bool {
        self.folders[usize::from(byte)].load(Ordering::Acquire)
    }

    /// Returns which folders for objects there are.
    fn objects(&self) -> impl Iterator<Item = u8> {
        (0..=u8::MAX).filter(|&byte| self.has_folder(byte))
    }

    /// Returns the folder.
    pub fn dir(&self) -> &Dir {
        &self.dir
    }

    /// Writes [`DOCUMENT`], to be renamed to where it belongs.
    pub(super) fn write_document(&self, bytes: &[u8]) -> Result<()> {
        let file = self.store.full(self.dir.create_file(DOCUMENT, 0o600))?;
        self.store.full(file::write(&file, bytes))?;
        self.store.sync_file(&file)
    }

    fn draft(&self) -> String {
        format!("draft-{}", self.next.fetch_add(1, Ordering::Relaxed))
    }
}

impl Drop for Stage<'_> {
    fn drop(&mut self) {
        // Should this fail, the next build's sweep does it.
        _ = self.store.dir.remove_all(&self.name);
    }
}

impl Format {
    /// Gives an open file or folder its metadata. The owner first, because its change takes setuid bits and capabilities
    /// off again (chown(2)).
    pub(crate) fn dress(&self, file: &impl std::os::fd::AsFd, meta: &Meta) -> Result<()> {
        let now = file::stat(file)?;
        let given = self.owners != Owners::Single && (now.uid, now.gid) != (meta.uid, meta.gid);
        if given {
            file::chown(file, meta.uid, meta.gid).map_err(|error| Error::no_such_id(error, meta))?;
        }
        if given || now.mode != meta.mode {
            file::chmod(file, meta.mode)?;
        }
        for (name, value) in self.held(meta) {
            file::set_xattr(file, name, value).map_err(|error| match error.errno {
                // Where the disk is not full, the file's share of it is (setxattr(2)).
                Errno::NOSPC if file::has_room(file) => self.too_many_xattrs(meta),
                Errno::TOOBIG | Errno::RANGE => self.too_many_xattrs(meta),
                _ => error.into(),
            })?;
        }
        Ok(file::set_mtime(file, self.held_time(meta))?)
    }

    fn too_many_xattrs(&self, meta: &Meta) -> Error {
        Error::TooManyXattrs {
            count: self.held(meta).count(),
            bytes: self
                .held(meta)
                .map(|(name, value)| name.len() + value.len())
                .sum(),
        }
    }
}

/// A folder that is filled before it has its final name, if it ever gets one; dropped unfinished, it goes.
#[derive(Debug)]
pub(crate) struct StagedFolder<'a> {
    store: &'a Store,
    path: String,
    dir: Dir,
}

impl StagedFolder<'_> {
    /// Returns the folder.
    pub(crate) fn dir(&self) -> &Dir {
        &self.dir
    }

    /// Makes a rootfs folder of it, unless another was faster.
    pub(crate) fn finish(self, tree: &Digest) -> Result<()> {
        let dir = &self.store.dir;
        let path = format!("{}/{tree}", layout::ROOTFS);
        self.store
            .full(exists(dir.rename(&self.path, dir, path)).map(drop))
    }
}

impl Drop for StagedFolder<'_> {
    fn drop(&mut self) {
        // Its name is free once it has been renamed. Should this fail, the next build's sweep does it.
        _ = self.store.dir.remove_all(&self.path);
    }
}

/// An archive on its way into the store; hashed as it passes.
#[derive(Debug)]
pub struct SourceWriter<'a> {
    stage: &'a Stage<'a>,
    draft: String,
    expected: Option<Digest>,
    out: HashWriter<File>,
}

impl SourceWriter<'_> {
    /// Returns digest and size of what was written. If it is what was expected it is kept, from the commit on.
    pub fn finish(self) -> Result<(Digest, u64)> {
        let (_, digest, size) = self.out.finish();
        let dir = &self.stage.dir;
        let wanted = self.expected.is_none_or(|expected| expected == digest);
        let staged = format!("{}{digest}", layout::STAGED_SOURCE);
        if !wanted || exists(dir.rename(&self.draft, dir, staged))?.is_none() {
            dir.unlink(&self.draft)?;
        }
        Ok((digest, size))
    }
}

impl Write for SourceWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
