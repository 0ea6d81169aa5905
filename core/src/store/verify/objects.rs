//! Objects against their names.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::of_the_file;
use crate::digest::{Digest, Hasher};
use crate::meta::{Meta, is_kept_xattr};
use crate::store::layout::{self, Format, ObjectName};
use crate::store::{Result, Store};
use crate::sys::SysError;
use crate::sys::dir::Dir;
use crate::sys::file::{self, FileKind};

/// All objects, read.
#[derive(Debug, Default)]
pub(super) struct Objects {
    /// Those that are what their name says.
    pub(super) good: HashSet<ObjectName>,
    /// What is wrong with the others.
    pub(super) bad: BTreeMap<PathBuf, String>,
    /// Bytes of all of them.
    pub(super) bytes: u64,
}

/// Reads every object, as many at once as there are processors.
pub(super) fn read_all(store: &Store) -> Result<Objects> {
    let folders = store.dir().open_dir(layout::OBJECTS)?.list()?;
    let next = AtomicUsize::new(0);
    let work = || -> Result<Objects> {
        let mut read = Objects::default();
        while let Some((name, kind)) = folders.get(next.fetch_add(1, Ordering::Relaxed)) {
            read.folder(store, &name.to_string_lossy(), *kind)?;
        }
        Ok(read)
    };
    let parts: Vec<_> = std::thread::scope(|scope| {
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        let joined = threads.into_iter().map(|thread| thread.join());
        joined
            .map(|part| part.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    let mut all = Objects::default();
    for part in parts {
        let part = part?;
        all.good.extend(part.good);
        all.bad.extend(part.bad);
        all.bytes += part.bytes;
    }
    Ok(all)
}

impl Objects {
    fn folder(&mut self, store: &Store, prefix: &str, kind: FileKind) -> Result<()> {
        let path = store.path().join(layout::OBJECTS).join(prefix);
        let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if kind != FileKind::Folder || prefix.len() != 2 || !prefix.bytes().all(hex) {
            self.bad.insert(path, "nothing in the store is called so".into());
            return Ok(());
        }
        let folder = store.dir().open_dir(format!("{}/{prefix}", layout::OBJECTS))?;
        for (file, kind) in folder.list()? {
            let file = file.to_string_lossy();
            let read = match ObjectName::parse(&format!("{prefix}{file}"), store.format()) {
                Some(name) if kind == FileKind::File => {
                    let examined = examine(store.format(), &folder, &name);
                    examined
                        .or_else(|error| of_the_file(error).map(Err))?
                        .map(|bytes| (name, bytes))
                }
                _ => Err("no object is called so".into()),
            };
            match read {
                Ok((name, bytes)) => {
                    self.bytes += bytes;
                    self.good.insert(name);
                }
                Err(why) => _ = self.bad.insert(path.join(&*file), why),
            }
        }
        Ok(())
    }
}

/// Compares an object with its name. Returns its size, or what is wrong.
fn examine(format: &Format, folder: &Dir, name: &ObjectName) -> Result<Result<u64, String>, SysError> {
    let file = folder.open_file(name.file())?;
    let (digest, bytes) = hash(&file)?;
    if !name.as_str().starts_with(&digest.to_string()) {
        return Ok(Err(format!("its bytes hash to {digest}")));
    }
    let (meta, nanos) = meta_of(&file)?;
    let is = ObjectName::new(&digest, &meta, format);
    if is != *name || nanos != 0 {
        let is = &is.as_str()[65..];
        return Ok(Err(match nanos {
            0 => format!("its metadata is {is}"),
            _ => format!("its metadata is {is} and {nanos} nanoseconds"),
        }));
    }
    Ok(Ok(bytes))
}

/// Returns digest and size of an open file.
pub(super) fn hash(file: &File) -> Result<(Digest, u64), SysError> {
    let (mut hasher, mut bytes) = (Hasher::new(), 0);
    file::read_pieces(file, |piece| {
        hasher.update(piece);
        bytes += piece.len() as u64;
        Ok::<(), SysError>(())
    })?;
    Ok((hasher.finish(), bytes))
}

/// Returns the metadata of an open file or folder, and the fraction of its second.
pub(super) fn meta_of(file: &impl std::os::fd::AsFd) -> Result<(Meta, u32), SysError> {
    let stat = file::stat(file)?;
    let xattrs = file::xattrs(file, is_kept_xattr)?;
    let meta = Meta {
        mode: stat.mode,
        uid: stat.uid,
        gid: stat.gid,
        mtime: stat.mtime,
        xattrs: (!xattrs.is_empty()).then(|| Box::new(xattrs)),
    };
    Ok((meta, stat.mtime_nanos))
}
