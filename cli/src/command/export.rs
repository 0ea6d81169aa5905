//! `mk export`: an image as a tar archive or a folder outside of the store.

use std::io::{self, BufWriter, IsTerminal, Write};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use mk_core::export;
use mk_core::store::{Owners, Store};
use mk_core::sys::dir::Dir;
use mk_core::tree::Tree;

use super::{Context, find};
use crate::args::Export;
use crate::report::{Failing, Failure};
use crate::settings::Flags;
use crate::ui;

pub(super) fn call(args: &Export, context: &Context) -> Result<u8, Failure> {
    let flags = Flags {
        store: args.store.store.as_deref(),
        ..Flags::default()
    };
    let store = context.whole_store(&context.settings(&flags)?)?;
    let (store, id) = find::image(store.as_ref(), &args.image)?;
    let _lease = store.lease(&id)?;
    let tree = store.tree(&store.image(&id)?.tree)?;
    match (&args.folder, &args.output) {
        (Some(folder), _) => to_folder(store, &tree, folder, context)?,
        (None, Some(file)) if file == Path::new("-") => to_stdout(store, &tree)?,
        (None, Some(file)) => to_file(store, &tree, file)?,
        (None, None) => unreachable!("mk bug: clap asks for one of the two"),
    }
    Ok(0)
}

fn to_stdout(store: &Store, tree: &Tree) -> Result<(), Failure> {
    if io::stdout().is_terminal() {
        let failing = Failing::new("an archive would only be noise on a terminal");
        return Err(failing.hint("`-o FILE` writes it to a file").into());
    }
    let out = BufWriter::with_capacity(1 << 16, io::stdout().lock());
    match export::tar::write(tree, &export::files_of(store), out) {
        Ok(mut out) => out.flush().map_err(Failure::stdout),
        Err(export::Error::Archive { source, .. })
            if matches!(
                source.kind(),
                io::ErrorKind::BrokenPipe | io::ErrorKind::StorageFull
            ) =>
        {
            Err(Failure::stdout(source))
        }
        Err(error) => Err(error.into()),
    }
}

/// Writes the archive under another name first: a file with the name asked for is whole.
fn to_file(store: &Store, tree: &Tree, path: &Path) -> Result<(), Failure> {
    let special = fs_err::metadata(path).is_ok_and(|found| {
        let kind = found.file_type();
        kind.is_char_device() || kind.is_block_device() || kind.is_fifo()
    });
    if special {
        let file = fs_err::OpenOptions::new().write(true).open(path)?;
        return write(store, tree, file).map(drop);
    }
    let shown = path.display();
    if path.is_dir() {
        let failing = Failing::new(format!("`{shown}` is a folder: expected the name of a file"));
        return Err(failing
            .hint(format!(
                "name a file, or write the files into a folder: `--folder {shown}`"
            ))
            .into());
    }
    let draft = Draft::beside(path);
    let file = write(store, tree, draft.create()?)?;
    file.sync_all()?;
    draft.publish()
}

fn write(store: &Store, tree: &Tree, file: fs_err::File) -> Result<fs_err::File, Failure> {
    let out = BufWriter::with_capacity(1 << 16, file);
    let out = export::tar::write(tree, &export::files_of(store), out)?;
    Ok(out.into_inner().map_err(io::IntoInnerError::into_error)?)
}

fn to_folder(store: &Store, tree: &Tree, path: &Path, context: &Context) -> Result<(), Failure> {
    fs_err::create_dir_all(path)?;
    if let Some(found) = fs_err::read_dir(path)?.next() {
        let found = found?.file_name();
        let what = format!(
            "`{}` is not empty: it holds `{}`",
            path.display(),
            found.display()
        );
        return Err(Failing::new(what)
            .hint("name a folder that is new or empty")
            .into());
    }
    // Ids of a user namespace would be strangers to the folder's owner, who could not even delete them.
    let owners = store.format().owners == Owners::Native;
    let missing = export::folder::write(tree, &export::files_of(store), &Dir::open(path)?, owners)?;
    for (count, thing, why) in [
        (missing.devices, "device node", "left out: mk never makes any"),
        (
            missing.owners,
            "path",
            "yours now and somebody else's in the image: only root can give files away",
        ),
        (
            missing.xattrs,
            "extended attribute",
            "left out: the filesystem or the kernel refused",
        ),
    ] {
        if count > 0 {
            context
                .ui
                .note(format_args!("{}: {why}", ui::counted(count, thing)));
        }
    }
    Ok(())
}

/// A file under a name of its own, until it is whole. Dropped before that, it goes.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) path: PathBuf,
    /// What the file will be called.
    goal: PathBuf,
}

impl Draft {
    /// Chooses a name in the folder of `path`.
    pub(super) fn beside(path: &Path) -> Self {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        Self {
            path: path.with_file_name(format!(".{name}.{}", std::process::id())),
            goal: path.to_owned(),
        }
    }

    /// Makes the file, empty.
    pub(super) fn create(&self) -> Result<fs_err::File, Failure> {
        Ok(fs_err::File::create(&self.path).map_err(|error| self.failing(&error))?)
    }

    /// Gives the file its real name, whatever had it before.
    pub(super) fn publish(self) -> Result<(), Failure> {
        Ok(fs_err::rename(&self.path, &self.goal).map_err(|error| self.failing(&error))?)
    }

    /// An error without the draft's name, which nobody typed.
    fn failing(&self, error: &io::Error) -> Failing {
        let folder = self.goal.parent().filter(|folder| !folder.as_os_str().is_empty());
        let shown = self.goal.display();
        match folder {
            Some(folder) if error.kind() == io::ErrorKind::NotFound => Failing::new(format!(
                "cannot write `{shown}`: there is no folder `{}`",
                folder.display()
            )),
            _ => Failing::new(format!("cannot write `{shown}`")).because(io::Error::from(error.kind())),
        }
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // Gone already where it was published.
        let _ = fs_err::remove_file(&self.path);
    }
}
