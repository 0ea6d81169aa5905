//! Named volumes: folders of the store that runs write to, and that stay until somebody takes them away (docs/store.md,
//! "Volumes"). They are part of no image, and neither gc nor verify looks into them.

use std::collections::HashSet;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::io::Errno;

use super::document::{BadDocument, Reader, Writer};
use super::image::check_name;
use super::{Error, ImageId, Result, Store, exists, layout, none_if_missing};
use crate::digest::Digest;
use crate::meta::Meta;
use crate::sys::dir::Dir;
use crate::sys::file::{self, FileKind, LockKind};

/// A volume that is in use: nobody takes it away until the last handle on it is closed, also in processes that inherit
/// it.
#[derive(Debug)]
pub struct VolumeLease {
    path: PathBuf,
    lock: File,
}

/// What there is to know of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeInfo {
    /// Its name.
    pub name: String,
    /// The bytes of its files, each counted once.
    pub bytes: u64,
    /// When it was made (seconds since 1970 UTC).
    pub created: u64,
    /// The image whose files it began with.
    pub image: Option<ImageId>,
    /// Whether a run uses it now.
    pub in_use: bool,
}

/// What a new volume begins with.
#[derive(Debug)]
pub struct Beginning<'a> {
    /// The image that it comes from.
    pub image: &'a ImageId,
    /// What the volume's own folder is dressed in.
    pub meta: Meta,
}

/// What the document of a volume says.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Document {
    created: u64,
    image: Option<ImageId>,
}

impl Document {
    fn encode(&self) -> String {
        let mut text = Writer::new(layout::VOLUME_HEADER);
        text.line("created", &self.created.to_string());
        if let Some(image) = &self.image {
            text.line("image", &image.to_string());
        }
        text.finish()
    }

    fn decode(bytes: &[u8]) -> Result<Self, BadDocument> {
        let mut reader = Reader::new(bytes, layout::VOLUME_HEADER)?;
        let created = reader.want("created")?;
        let image = reader
            .take("image")
            .map(|text| reader.exact::<Digest>(text))
            .transpose()?;
        reader.finish()?;
        Ok(Self {
            created,
            image: image.map(ImageId::from),
        })
    }
}

impl VolumeLease {
    /// Returns the folder of the volume, relative to the store.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl AsFd for VolumeLease {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.lock.as_fd()
    }
}

impl Store {
    /// Takes the volume `name` into use, `None` where there is none.
    pub fn volume(&self, name: &str) -> Result<Option<VolumeLease>> {
        check_name(name)?;
        loop {
            let Some(lock) = none_if_missing(self.dir.open_file(document_path(name)))? else {
                return Ok(None);
            };
            file::lock(&lock, LockKind::Shared)?;
            if self.is_still(name, &lock)? {
                return Ok(Some(VolumeLease {
                    path: data_path(name),
                    lock,
                }));
            }
        }
    }

    /// Takes the volume `name` into use, and makes it where there is none: `fill` is given its folder, which is dressed
    /// as `beginning` says when that is done; without one it is empty, 0755 and root's. What has its name is whole.
    pub fn volume_or_new(
        &self,
        name: &str,
        beginning: Option<&Beginning<'_>>,
        fill: impl Fn(&Dir) -> Result<()>,
    ) -> Result<VolumeLease> {
        loop {
            if let Some(lease) = self.volume(name)? {
                return Ok(lease);
            }
            self.make_volume(name, beginning, &fill)?;
        }
    }

    /// Makes a volume, unless another is faster.
    fn make_volume(
        &self,
        name: &str,
        beginning: Option<&Beginning<'_>>,
        fill: impl Fn(&Dir) -> Result<()>,
    ) -> Result<()> {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let created = since.unwrap_or_default().as_secs();
        let document = Document {
            created,
            image: beginning.map(|beginning| *beginning.image),
        };
        let stage = self.stage()?;
        let dir = stage.dir();
        self.full(dir.make_dir("new", 0o700))?;
        let new = dir.open_dir("new")?;
        self.full(new.make_dir(layout::VOLUME_DATA, 0o700))?;
        let data = new.open_dir(layout::VOLUME_DATA)?;
        self.naming_full(fill(&data))?;
        let meta = beginning.map_or_else(
            || Meta::new(0o755, created as i64),
            |beginning| beginning.meta.clone(),
        );
        self.format.dress(&data, &meta)?;
        let file = self.full(new.create_file(layout::VOLUME_DOCUMENT, 0o600))?;
        self.full(file::write(&file, document.encode().as_bytes()))?;
        // Whatever the durability: nobody can make a volume again.
        self.full(self.dir.sync_filesystem())?;
        self.full(exists(self.dir.make_dir(layout::VOLUMES, 0o700)))?;
        let renamed = dir.rename("new", &self.dir, volume_path(name));
        self.full(exists(renamed).map(drop))
    }

    /// Returns every volume, by name.
    pub fn volumes(&self) -> Result<Vec<VolumeInfo>> {
        let Some(folder) = none_if_missing(self.dir.open_dir(layout::VOLUMES))? else {
            return Ok(Vec::new());
        };
        let mut found = Vec::new();
        for (name, _) in folder.list()? {
            let name = name.to_string_lossy().into_owned();
            if check_name(&name).is_err() {
                return Err(self.damaged(layout::VOLUMES, &name, "it is no name of a volume".into()));
            }
            // Gone, if another process takes it away just now.
            found.extend(self.volume_info(&folder, &name)?);
        }
        found.sort_by(|one: &VolumeInfo, other| one.name.cmp(&other.name));
        Ok(found)
    }

    fn volume_info(&self, folder: &Dir, name: &str) -> Result<Option<VolumeInfo>> {
        let Some(volume) = none_if_missing(folder.open_dir(name))? else {
            return Ok(None);
        };
        let file = volume.open_file(layout::VOLUME_DOCUMENT)?;
        let text = file::read(&file, 4096)?;
        let document =
            Document::decode(&text).map_err(|bad| self.damaged(layout::VOLUMES, name, bad.to_string()))?;
        Ok(Some(VolumeInfo {
            name: name.to_owned(),
            bytes: bytes_in(&volume.open_dir(layout::VOLUME_DATA)?)?,
            created: document.created,
            image: document.image,
            in_use: !file::try_lock(&file, LockKind::Exclusive)?,
        }))
    }

    /// Takes the volume `name` away with all that is in it; one that a run uses stays, which is an error.
    pub fn remove_volume(&self, name: &str) -> Result<()> {
        check_name(name)?;
        let none = || Error::NoVolume(name.to_owned());
        loop {
            let lock = none_if_missing(self.dir.open_file(document_path(name)))?.ok_or_else(none)?;
            if !file::try_lock(&lock, LockKind::Exclusive)? {
                return Err(Error::VolumeInUse(name.to_owned()));
            }
            if !self.is_still(name, &lock)? {
                continue;
            }
            let trash = self.stage_trash()?;
            return Ok(self.dir.rename(volume_path(name), trash.dir(), "volume")?);
        }
    }

    /// Whether `lock`, which was opened as that of the volume `name`, is so now that it is held: whoever takes a volume
    /// away has it locked until its name is free.
    fn is_still(&self, name: &str, lock: &File) -> Result<bool> {
        let ours = file::stat(lock)?.inode;
        let found = self.dir.look(document_path(name))?;
        Ok(found.is_some_and(|found| found.inode == ours))
    }
}

/// Returns the folder of the volume `name`, there or not, relative to the store.
pub fn data_path(name: &str) -> PathBuf {
    volume_path(name).join(layout::VOLUME_DATA)
}

fn volume_path(name: &str) -> PathBuf {
    Path::new(layout::VOLUMES).join(name)
}

fn document_path(name: &str) -> PathBuf {
    volume_path(name).join(layout::VOLUME_DOCUMENT)
}

/// Returns the bytes of all files below `top`, each counted once. What changes meanwhile is counted or not.
fn bytes_in(top: &Dir) -> Result<u64> {
    let (mut bytes, mut seen) = (0, HashSet::new());
    let mut next = vec![PathBuf::from(".")];
    while let Some(path) = next.pop() {
        let folder = match top.open_dir(&path) {
            // Deeper than a path can tell: a program may go there one step at a time.
            Err(error) if matches!(error.errno, Errno::NOENT | Errno::NAMETOOLONG) => continue,
            opened => opened?,
        };
        for (name, kind) in folder.list()? {
            match kind {
                FileKind::Folder => next.push(path.join(&name)),
                FileKind::File => {
                    let stat = folder.look(&name)?.filter(|stat| seen.insert(stat.inode));
                    bytes += stat.map_or(0, |stat| stat.size);
                }
                _ => {}
            }
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Owners;

    fn store() -> (tempfile::TempDir, Store) {
        let temp = tempfile::tempdir().unwrap();
        let store = Store::open(&temp.path().join("store"), Owners::Single).unwrap();
        (temp, store)
    }

    fn empty(_: &Dir) -> Result<()> {
        Ok(())
    }

    #[test]
    fn the_document_reads_back_and_nothing_else_does() {
        let image = Some(Digest::of(b"x").into());
        for image in [None, image] {
            let document = Document { created: 17, image };
            assert_eq!(Document::decode(document.encode().as_bytes()), Ok(document));
        }
        for text in [
            "mk-volume 2\ncreated 1\n",
            "mk-volume 1\n",
            "mk-volume 1\ncreated 01\n",
            "mk-volume 1\ncreated 1\nx y\n",
        ] {
            assert!(Document::decode(text.as_bytes()).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_volume_is_made_once_and_keeps_what_it_holds() {
        let (_temp, store) = store();
        assert!(store.volume("cache").unwrap().is_none());
        assert_eq!(store.volumes().unwrap(), []);
        let filled = |dir: &Dir| {
            file::write(dir.create_file("f", 0o600)?, b"12345")?;
            dir.link("f", dir, "same")?;
            Ok(())
        };
        let lease = store.volume_or_new("cache", None, filled).unwrap();
        let never = |_: &Dir| -> Result<()> { panic!("it is there already") };
        let again = store.volume_or_new("cache", None, never).unwrap();
        assert_eq!(lease.path(), again.path());
        let info = &store.volumes().unwrap()[0];
        assert_eq!((info.name.as_str(), info.bytes, info.in_use), ("cache", 5, true));
        drop(lease);
        assert!(store.volumes().unwrap()[0].in_use);
        drop(again);
        assert!(!store.volumes().unwrap()[0].in_use);
    }

    #[test]
    fn a_volume_in_use_is_not_taken_away() {
        let (_temp, store) = store();
        let lease = store.volume_or_new("a", None, empty).unwrap();
        assert!(matches!(store.remove_volume("a"), Err(Error::VolumeInUse(_))));
        drop(lease);
        store.remove_volume("a").unwrap();
        assert!(matches!(store.remove_volume("a"), Err(Error::NoVolume(_))));
        assert!(store.volume("a").unwrap().is_none());
        assert!(store.volume("../a").is_err());
        let trash = store.dir().open_dir("trash").unwrap();
        assert_eq!(trash.list().unwrap(), []);
    }

    #[test]
    fn a_volume_that_could_not_be_filled_is_none() {
        let (_temp, store) = store();
        let fails = |_: &Dir| Err(Error::NoVolume("x".into()));
        assert!(store.volume_or_new("a", None, fails).is_err());
        assert_eq!(store.volumes().unwrap(), []);
    }

    #[test]
    fn a_store_from_before_there_were_volumes_gets_them() {
        let (temp, store) = store();
        fs_err::remove_dir(temp.path().join("store/volumes")).unwrap();
        assert_eq!(store.volumes().unwrap(), []);
        store.volume_or_new("a", None, empty).unwrap();
        assert_eq!(store.volumes().unwrap().len(), 1);
    }

    #[test]
    fn those_who_make_a_volume_at_once_get_the_same() {
        let (_temp, store) = store();
        let leases: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| store.volume_or_new("a", None, empty).unwrap()))
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let inodes: HashSet<_> = leases
            .iter()
            .map(|lease| file::stat(lease).unwrap().inode)
            .collect();
        assert_eq!(inodes.len(), 1);
        assert_eq!(store.volumes().unwrap().len(), 1);
    }
}
