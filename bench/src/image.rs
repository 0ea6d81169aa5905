//! The image that runs are measured in, and what it is made of: the busybox of the fixtures, and `stamp.c`.

use std::path::{Path, PathBuf};

use mk_core::digest::HashReader;
use serde_json::Value;

use crate::machine::{self, CC};
use crate::{Bench, Error};

/// An image in a store.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    pub(crate) store: PathBuf,
    /// The recipe that it was built from; its name is the image's, too.
    pub(crate) recipe: PathBuf,
    /// The folder of its tree, and that of its three files of `/etc`.
    pub(crate) rootfs: PathBuf,
    pub(crate) conf: PathBuf,
}

/// What others need to mount on, and cannot make in a root that is read-only; systemd-nspawn wants a `/usr`, too.
const PLACES: &str = "\n[[step]]\ndir = [\"/dev\", \"/etc\", \"/proc\", \"/run\", \"/sys\", \"/tmp\", \"/usr\"]\n\
                      \n[[step]]\ncopy = \"stamp\"\ninto = \"/bin/stamp\"\n";

impl Image {
    /// Makes the image `busybox`, of about 400 files.
    pub(crate) fn make(bench: &Bench) -> Result<Self, Error> {
        let folder = bench.folder.join("busybox");
        fs_err::create_dir_all(&folder)?;
        let recipe = folder.join("busybox.toml");
        if !recipe.exists() {
            let archive = bench.fixtures.join(crate::FIXTURES[0]);
            write_recipe(&recipe, &archive, PLACES)?;
            fs_err::copy(stamp(bench)?, folder.join("stamp"))?;
        }
        Self::build(bench, &bench.folder.join("store"), recipe)
    }

    /// Builds `recipe` in `store`.
    pub(crate) fn build(bench: &Bench, store: &Path, recipe: PathBuf) -> Result<Self, Error> {
        let store_words = ["--store".as_ref(), store.as_os_str()];
        let mk = |words: &[&std::ffi::OsStr]| {
            let words = words.iter().copied().chain(store_words);
            machine::call(&bench.mk, words)
        };
        let name = recipe.file_stem().unwrap_or_default();
        mk(&["build".as_ref(), "--quiet".as_ref(), recipe.as_os_str()])?;
        let rootfs = PathBuf::from(mk(&["inspect".as_ref(), "--rootfs".as_ref(), name])?);
        let document = mk(&["inspect".as_ref(), name])?;
        let value: Value = serde_json::from_str(&document).map_err(|_| Error::Document(document.clone()))?;
        let digest = value["digest"]
            .as_str()
            .ok_or_else(|| Error::Document(document.clone()))?;
        Ok(Self {
            conf: store.join("conf").join(digest),
            rootfs,
            store: store.to_owned(),
            recipe,
        })
    }
}

/// Writes a recipe that unpacks `archive`, which is pinned, so that nothing is looked up, and goes on with `more` steps.
pub(crate) fn write_recipe(path: &Path, archive: &Path, more: &str) -> Result<(), Error> {
    let digest = digest_of(archive)?;
    let name = archive.file_name().unwrap_or_default();
    let beside = path.with_file_name(name);
    if beside != archive && fs_err::hard_link(archive, &beside).is_err() {
        fs_err::copy(archive, &beside)?;
    }
    let name = name.to_string_lossy();
    fs_err::write(
        path,
        format!("[[step]]\nunpack = \"{name}\"\nsha256 = \"{digest}\"\n{more}"),
    )?;
    Ok(())
}

/// Returns the sha256 of a file.
pub(crate) fn digest_of(path: &Path) -> Result<String, Error> {
    let mut reader = HashReader::new(fs_err::File::open(path)?);
    std::io::copy(&mut reader, &mut std::io::sink())?;
    Ok(reader.finish().0.to_string())
}

/// Compiles `stamp.c`, and returns where it is.
pub(crate) fn stamp(bench: &Bench) -> Result<PathBuf, Error> {
    let options = ["-nostdlib", "-ffreestanding", "-fno-stack-protector"];
    compile(bench, "stamp", &options)
}

/// Compiles a C program that lies in this package, and returns where it is.
pub(crate) fn compile(bench: &Bench, name: &str, options: &[&str]) -> Result<PathBuf, Error> {
    let program = bench.folder.join(name);
    if !program.exists() {
        let source = format!("{}/{name}.c", env!("CARGO_MANIFEST_DIR"));
        let output = program.display().to_string();
        let words = ["-O2", "-static", "-o", &output, &source];
        machine::call(&CC.find()?, words.iter().chain(options))?;
    }
    Ok(program)
}
