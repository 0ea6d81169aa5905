//! Reads everything again and reports what does not match its name, with the images that it hurts. [`mend`]: what is damaged is put
//! right or taken away.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::PathBuf;

use rustix::io::Errno;

use super::layout::{self, ObjectName};
use super::{Error, ImageId, Result, Store};
use crate::digest::Digest;
use crate::sys::SysError;
use crate::sys::file::FileKind;
use crate::tree::{NodeKind, Tree};
use crate::watch::Watch;

mod mend;
mod objects;
mod rootfs;

pub(crate) use mend::Lost;
pub use mend::{Discarded, discard, is_gone};

/// What was read, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Verified {
    /// Files in `objects`.
    pub objects: u64,
    /// Bytes in objects and sources.
    pub bytes: u64,
    /// Trees.
    pub trees: u64,
    /// Images.
    pub images: u64,
    /// What is damaged, sorted by path.
    pub damages: Vec<Damage>,
}

/// One damaged or missing file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// Where it is.
    pub path: PathBuf,
    /// What is wrong with it, as a fragment.
    pub why: String,
    /// The images that it hurts.
    pub images: Vec<ImageId>,
    /// The names of those images.
    pub names: Vec<String>,
    /// The trees that it hurts: those of the images, and results of steps on the way to them.
    pub trees: Vec<Digest>,
}

/// Returns the files of an image's conf folder, with what each holds.
pub type ConfFiles = fn(&super::Image) -> Vec<(&'static str, String)>;

/// Reads the whole store. Builds may go on meanwhile; gc waits. Of conf folders it is only seen whether all is there, unless
/// `conf` says what they hold.
pub fn verify(store: &Store, conf: Option<ConfFiles>, watch: &dyn Watch) -> Result<Verified> {
    let _hold = store.hold_unchecked(watch)?;
    let mut check = Check::new(store);
    // Names first: what a build adds meanwhile has no name yet, or all that it needs.
    check.refs()?;
    check.images()?;
    check.steps()?;
    check.trees_and_rootfs()?;
    check.conf(conf)?;
    check.folders()?;
    check.sources()?;
    let verified = check.finish();
    if verified.damages.is_empty() {
        store.settle()?;
    }
    Ok(verified)
}

/// What is hurt by a damage, before it is known which images those are.
enum Hurt {
    Nothing,
    Image(ImageId),
    Name(String),
    Trees(BTreeSet<Digest>),
}

struct Check<'a> {
    store: &'a Store,
    found: Verified,
    damages: BTreeMap<PathBuf, (String, Hurt)>,
    names: BTreeMap<ImageId, Vec<String>>,
    images_of: BTreeMap<Digest, Vec<ImageId>>,
    images: BTreeMap<ImageId, super::Image>,
}

impl<'a> Check<'a> {
    fn new(store: &'a Store) -> Self {
        Self {
            store,
            found: Verified::default(),
            damages: BTreeMap::new(),
            names: BTreeMap::new(),
            images_of: BTreeMap::new(),
            images: BTreeMap::new(),
        }
    }

    fn damage(&mut self, folder: &str, name: &str, why: impl ToString, hurt: Hurt) {
        let path = self.store.path.join(folder).join(name);
        self.damages.entry(path).or_insert((why.to_string(), hurt));
    }

    /// Returns the names in a folder that are digests; others are reported, less those that `known` knows.
    fn digests(&mut self, folder: &str, known: impl Fn(&str) -> bool) -> Result<Vec<Digest>> {
        let mut digests = Vec::new();
        for (name, _) in self.store.dir.open_dir(folder)?.list()? {
            let name = name.to_string_lossy();
            match name.parse() {
                Ok(digest) => digests.push(digest),
                Err(_) if known(&name) => {}
                Err(_) => self.damage(folder, &name, "nothing in the store is called so", Hurt::Nothing),
            }
        }
        digests.sort();
        Ok(digests)
    }

    fn refs(&mut self) -> Result<()> {
        for (name, _) in self.store.dir.open_dir(layout::REFS)?.list()? {
            let name = name.to_string_lossy().into_owned();
            match self.store.get_ref(&name) {
                Ok(Some(image)) => self.names.entry(image).or_default().push(name),
                Ok(None) => {}
                Err(error) => self.damage(layout::REFS, &name, why(error)?, Hurt::Name(name.clone())),
            }
        }
        self.names.values_mut().for_each(|names| names.sort());
        Ok(())
    }

    fn images(&mut self) -> Result<()> {
        for digest in self.digests(layout::IMAGES, |_| false)? {
            let id = ImageId::from(digest);
            self.found.images += 1;
            match self.store.image(&id) {
                Ok(image) => {
                    self.images_of.entry(image.tree).or_default().push(id);
                    self.images.insert(id, image);
                }
                Err(error) => self.damage(layout::IMAGES, &digest.to_string(), why(error)?, Hurt::Image(id)),
            }
        }
        let named: Vec<ImageId> = self.names.keys().copied().collect();
        for id in named {
            if self.store.dir.look(format!("{}/{id}", layout::IMAGES))?.is_none() {
                self.damage(layout::IMAGES, &id.to_string(), "it is missing", Hurt::Image(id));
            }
        }
        let wanted: Vec<Digest> = self.images_of.keys().copied().collect();
        for tree in wanted {
            if !self.store.has_tree(&tree)? {
                self.damage(layout::TREES, &tree.to_string(), "it is missing", hurt(tree));
            }
        }
        Ok(())
    }

    fn steps(&mut self) -> Result<()> {
        for key in self.digests(layout::STEPS, |_| false)? {
            if let Err(error) = self.store.step_record(&key) {
                self.damage(layout::STEPS, &key.to_string(), why(error)?, Hurt::Nothing);
            }
        }
        Ok(())
    }

    /// Trees are listed before objects are read: what a tree names was in the store before the tree.
    fn trees_and_rootfs(&mut self) -> Result<()> {
        let trees = self.digests(layout::TREES, |_| false)?;
        let staging = |name: &str| layout::is_staging(name.as_ref());
        let rootfs: BTreeSet<Digest> = self.digests(layout::ROOTFS, staging)?.into_iter().collect();
        let objects = objects::read_all(self.store)?;
        self.found.objects = (objects.good.len() + objects.bad.len()) as u64;
        self.found.bytes += objects.bytes;
        let mut hurt_by: BTreeMap<ObjectName, BTreeSet<Digest>> = BTreeMap::new();
        for digest in trees {
            self.found.trees += 1;
            let tree = match self.store.tree(&digest) {
                Ok(tree) => tree,
                Err(error) => {
                    self.damage(layout::TREES, &digest.to_string(), why(error)?, hurt(digest));
                    continue;
                }
            };
            self.image_facts(&digest, &tree);
            for (_, node) in tree.iter() {
                if let NodeKind::File { content, .. } = &node.kind {
                    let name = ObjectName::new(&content.digest, &node.meta, &self.store.format);
                    if !objects.good.contains(&name) {
                        hurt_by.entry(name).or_default().insert(digest);
                    }
                }
            }
            if rootfs.contains(&digest) {
                self.rootfs(&digest, &tree, &objects.good)?;
            }
        }
        for digest in rootfs {
            if !self.store.has_tree(&digest)? {
                let name = digest.to_string();
                self.damage(
                    layout::ROOTFS,
                    &name,
                    "there is no tree of this name",
                    Hurt::Nothing,
                );
            }
        }
        self.object_damages(objects.bad, hurt_by);
        Ok(())
    }

    fn object_damages(
        &mut self,
        bad: BTreeMap<PathBuf, String>,
        hurt_by: BTreeMap<ObjectName, BTreeSet<Digest>>,
    ) {
        for (path, why) in bad {
            self.damages.insert(path, (why, Hurt::Nothing));
        }
        for (name, trees) in hurt_by {
            let missing = || ("it is missing".to_owned(), Hurt::Nothing);
            let damage = self
                .damages
                .entry(self.store.object_path(&name))
                .or_insert_with(missing);
            damage.1 = Hurt::Trees(trees);
        }
    }

    /// Checks what images say of their tree.
    fn image_facts(&mut self, digest: &Digest, tree: &Tree) {
        for id in self.images_of.get(digest).cloned().unwrap_or_default() {
            let said = &self.images[&id];
            if *said
                != super::Image::new(
                    *digest,
                    tree,
                    said.conf.clone(),
                    said.run.clone(),
                    said.impure.clone(),
                )
            {
                let why = "its number of files, bytes or highest id is not that of its tree";
                self.damage(layout::IMAGES, &id.to_string(), why, Hurt::Image(id));
            }
        }
    }

    fn rootfs(&mut self, digest: &Digest, tree: &Tree, good: &HashSet<ObjectName>) -> Result<()> {
        let folder = format!("{}/{digest}", layout::ROOTFS);
        let root = match self.store.dir.open_dir(&folder) {
            Ok(root) => root,
            Err(error) => {
                let said = of_the_file(error)?;
                let is_none = self.store.has_rootfs(digest).err();
                let why = is_none.map_or(Ok(said), why)?;
                self.damage(layout::ROOTFS, &digest.to_string(), why, hurt(*digest));
                return Ok(());
            }
        };
        for (path, why) in rootfs::differences(self.store, &root, tree, good)? {
            let name = path.as_path().to_string_lossy().into_owned();
            self.damage(&folder, &name, why, hurt(*digest));
        }
        Ok(())
    }

    fn conf(&mut self, files: Option<ConfFiles>) -> Result<()> {
        for digest in self.digests(layout::CONF, |_| false)? {
            let etc = format!("{}/{digest}/etc", layout::CONF);
            let texts = match (files, self.images.get(&digest.into())) {
                (Some(files), Some(image)) => files(image),
                _ => Vec::new(),
            };
            for name in ["hosts", "hostname", "resolv.conf"] {
                let found = self.store.dir.look(format!("{etc}/{name}"));
                let found = found.or_else(|error| of_the_file(error).map(|_| None))?;
                if found.is_none_or(|stat| stat.kind != FileKind::File) {
                    self.damage(&etc, name, "it is missing", Hurt::Image(digest.into()));
                    continue;
                }
                let text = texts.iter().find(|(of, _)| *of == name);
                let limit = text.map_or(0, |(_, text)| text.len() as u64 + 1);
                if let Some((_, text)) = text
                    && self.store.read(&etc, name, limit)?.as_deref() != Some(text.as_bytes())
                {
                    let why = "it does not hold what its image says";
                    self.damage(&etc, name, why, Hurt::Image(digest.into()));
                }
            }
        }
        Ok(())
    }

    /// Without both of its folders an image does not run. One that has a name has got them before.
    fn folders(&mut self) -> Result<()> {
        for id in self.names.keys().copied().collect::<Vec<_>>() {
            let Some(tree) = self.images.get(&id).map(|image| image.tree) else {
                continue;
            };
            let (tree, image) = (tree.to_string(), id.to_string());
            for (folder, name) in [(layout::ROOTFS, &tree), (layout::CONF, &image)] {
                if self.store.dir.look(format!("{folder}/{name}"))?.is_none() {
                    self.damage(folder, name, "it is missing", Hurt::Image(id));
                }
            }
        }
        Ok(())
    }

    fn sources(&mut self) -> Result<()> {
        let newest = |name: &str| name.ends_with(layout::NEWEST);
        for digest in self.digests(layout::SOURCES, newest)? {
            let name = digest.to_string();
            if let Err(error) = self.store.newest(&digest) {
                let name = format!("{name}{}", layout::NEWEST);
                self.damage(layout::SOURCES, &name, why(error)?, Hurt::Nothing);
            }
            let file = match self.store.source(&digest) {
                Ok(Some(file)) => file,
                Ok(None) => continue,
                Err(error) => {
                    self.damage(layout::SOURCES, &name, why(error)?, Hurt::Nothing);
                    continue;
                }
            };
            match objects::hash(&file) {
                Ok((found, bytes)) => {
                    self.found.bytes += bytes;
                    if found != digest {
                        self.damage(
                            layout::SOURCES,
                            &name,
                            format!("its bytes hash to {found}"),
                            Hurt::Nothing,
                        );
                    }
                }
                Err(error) => self.damage(layout::SOURCES, &name, of_the_file(error)?, Hurt::Nothing),
            }
        }
        Ok(())
    }

    /// Puts images and names to the damages.
    fn finish(mut self) -> Verified {
        for (path, (why, hurt)) in std::mem::take(&mut self.damages) {
            let mut damage = Damage {
                path,
                why,
                images: Vec::new(),
                names: Vec::new(),
                trees: Vec::new(),
            };
            match hurt {
                Hurt::Nothing => {}
                Hurt::Image(image) => damage.images.push(image),
                Hurt::Name(name) => damage.names.push(name),
                Hurt::Trees(trees) => {
                    let images: BTreeSet<&ImageId> = trees
                        .iter()
                        .filter_map(|tree| self.images_of.get(tree))
                        .flatten()
                        .collect();
                    damage.images.extend(images);
                    damage.trees.extend(trees);
                }
            }
            let names = damage.images.iter().filter_map(|image| self.names.get(image));
            damage.names.extend(names.flatten().cloned());
            self.found.damages.push(damage);
        }
        self.found
    }
}

fn hurt(tree: Digest) -> Hurt {
    Hurt::Trees(BTreeSet::from([tree]))
}

/// Returns what is wrong, without the path, which is said beside it. What is wrong with something else is an error.
fn why(error: Error) -> Result<String> {
    match error {
        Error::Damaged { why, .. } => Ok(why),
        Error::Sys(error) => of_the_file(error),
        Error::Io(error) if error.raw_os_error().is_some_and(is_passing) => Err(Error::Io(error)),
        other => Ok(other.to_string()),
    }
}

/// The same of a call that failed.
fn of_the_file(error: SysError) -> Result<String> {
    match is_passing(error.errno.raw_os_error()) {
        true => Err(error.into()),
        false => Ok(error.to_string()),
    }
}

/// Whether an error tells nothing of a file, but that this process, or the machine, has run out of something.
fn is_passing(errno: i32) -> bool {
    let passing = [
        Errno::MFILE,
        Errno::NFILE,
        Errno::NOMEM,
        Errno::NOBUFS,
        Errno::INTR,
        Errno::AGAIN,
    ];
    passing.iter().any(|known| known.raw_os_error() == errno)
}
