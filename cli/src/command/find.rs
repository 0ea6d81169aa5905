//! What a word on the command line names: an image in the store, or a recipe that makes one.

use std::io::Read;
use std::path::{Path, PathBuf};

use fs_err::os::unix::fs::OpenOptionsExt;
use mk_core::store::{self, ImageId, Store};
use rustix::fs::OFlags;

use crate::report::{Failing, Failure};

/// The file that `mk build` reads when no recipe is named.
pub(super) const CONTAINERFILE: &str = "Containerfile.toml";

/// Returns the image that `text` stands for: a name, a digest, or the first digits of a digest.
pub(super) fn image<'s>(store: Option<&'s Store>, text: &str) -> Result<(&'s Store, ImageId), Failure> {
    let found = match store {
        Some(store) => store.resolve(text).map(|image| (store, image)),
        None => Err(store::Error::NoImage(text.to_owned())),
    };
    found.map_err(|error| match error {
        store::Error::NoImage(_) | store::Error::BadName(_) => no_image(store, text).into(),
        other => other.into(),
    })
}

fn no_image(store: Option<&Store>, text: &str) -> Failing {
    let failing = Failing::new(format!("there is no image `{text}`"));
    if let Some(recipe) = Recipe::known(text) {
        return failing.hint(format!("`mk build {}` makes it", recipe.place));
    }
    match likely(store, text) {
        Some(likely) => failing.hint(format!("did you mean `{likely}`?")),
        None => failing.hint("`mk images` lists the images"),
    }
}

/// Returns the name of an image or a recipe that `text` is most like, if any is.
pub(super) fn likely(store: Option<&Store>, text: &str) -> Option<String> {
    let refs = store.and_then(|store| store.refs().ok()).unwrap_or_default();
    let names = refs.into_iter().map(|named| named.name);
    let shipped = mk_images::all().iter().map(|shipped| shipped.name.to_owned());
    closest(text, names.chain(shipped))
}

/// Returns the name nearest to `text`, of those that a slip or two of the fingers explain.
pub(crate) fn closest(text: &str, names: impl IntoIterator<Item = String>) -> Option<String> {
    let slips = |name: &String| strsim::damerau_levenshtein(name, text);
    let most = 1 + text.chars().count() / 4;
    names
        .into_iter()
        .filter(|name| slips(name) <= most && name != text)
        .min_by_key(slips)
}

/// A recipe that has been found but not read.
#[derive(Debug, Clone)]
pub(super) struct Recipe {
    /// What it is called in messages: its path as typed, or its name.
    pub(super) place: String,
    /// What its image is called unless somebody says otherwise.
    pub(super) name: String,
    source: Source,
}

#[derive(Debug, Clone)]
enum Source {
    File(PathBuf),
    Shipped(&'static mk_images::Builtin),
}

/// What a recipe and its lock file hold.
#[derive(Debug)]
pub(super) struct Texts {
    /// The recipe.
    pub(super) recipe: String,
    /// The lock; `None` where there is none.
    pub(super) lock: Option<String>,
    /// The folder that the recipe's paths start from.
    pub(super) folder: PathBuf,
    /// Where the lock may be written; `None` for a recipe that mk ships.
    pub(super) lock_file: Option<PathBuf>,
}

impl Recipe {
    /// Returns what finds this recipe again from any folder: its whole path, or the name of one that mk ships.
    pub(super) fn origin(&self) -> String {
        match &self.source {
            Source::File(path) => {
                let whole = fs_err::canonicalize(path).unwrap_or_else(|_| path.clone());
                whole.display().to_string()
            }
            Source::Shipped(shipped) => shipped.name.to_owned(),
        }
    }

    /// Finds the recipe whose [`Self::origin`] is `text`.
    pub(super) fn of_origin(text: &str) -> Result<Self, Failure> {
        if text.contains('/') {
            return Self::at(Path::new(text));
        }
        let shipped = mk_images::find(text).ok_or_else(|| no_recipe(text))?;
        Ok(Self {
            place: text.to_owned(),
            name: text.to_owned(),
            source: Source::Shipped(shipped),
        })
    }

    /// Finds the recipe that `word` names: whatever has a slash or ends with `.toml` is a path; any other word is the
    /// name of ./images/WORD.toml or of a recipe that mk ships.
    pub(super) fn find(word: &Path) -> Result<Self, Failure> {
        if is_path(word) {
            return Self::at(word);
        }
        let word = word.to_string_lossy();
        Self::known(&word).ok_or_else(|| no_recipe(&word).into())
    }

    /// Returns the recipe that goes by the name of `word`, if there is one.
    pub(super) fn known(word: &str) -> Option<Self> {
        store::image::check_name(word).ok()?;
        let beside = PathBuf::from(format!("images/{word}.toml"));
        if beside.is_file() {
            let place = beside.display().to_string();
            return Some(Self {
                place,
                name: word.to_owned(),
                source: Source::File(beside),
            });
        }
        let shipped = mk_images::find(word)?;
        Some(Self {
            place: word.to_owned(),
            name: word.to_owned(),
            source: Source::Shipped(shipped),
        })
    }

    /// Returns the recipe that this one calls `name`: one in the same folder, or one that mk ships.
    pub(super) fn sibling(&self, name: &str) -> Option<Self> {
        if let Source::File(path) = &self.source {
            let beside = path.with_file_name(format!("{name}.toml"));
            if beside.is_file() {
                return Some(Self {
                    place: beside.display().to_string(),
                    name: name.to_owned(),
                    source: Source::File(beside),
                });
            }
        }
        Some(Self {
            place: name.to_owned(),
            name: name.to_owned(),
            source: Source::Shipped(mk_images::find(name)?),
        })
    }

    /// Returns the recipe at `path`, seen from the folder of this one.
    pub(super) fn at_path(&self, path: &str) -> Result<Self, Failure> {
        match &self.source {
            Source::File(own) => Self::at(&own.parent().unwrap_or(Path::new("")).join(path)),
            Source::Shipped(_) => Err(no_file(Path::new(path)).into()),
        }
    }

    /// Whether both are one recipe, however it was found.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        match (&self.source, &other.source) {
            (Source::Shipped(one), Source::Shipped(other)) => one.name == other.name,
            (Source::File(one), Source::File(other)) => {
                let real = |path: &Path| fs_err::canonicalize(path).unwrap_or_else(|_| path.to_owned());
                real(one) == real(other)
            }
            _ => false,
        }
    }

    fn at(path: &Path) -> Result<Self, Failure> {
        let place = path.display().to_string();
        let missing = |what: String| Failing::new(what);
        match fs_err::metadata(path) {
            Ok(found) if found.is_dir() => {
                let failing = missing(format!("`{place}` is a folder: expected the path of a recipe"));
                let inside = path.join(CONTAINERFILE);
                Err(match inside.is_file() {
                    true => failing.hint(format!("did you mean `{}`?", inside.display())),
                    false => failing,
                }
                .into())
            }
            Ok(found) if !found.is_file() => Err(missing(format!(
                "`{place}` is no regular file: expected the path of a recipe"
            ))
            .into()),
            Ok(_) => {
                let name = name_of(path);
                Ok(Self {
                    place,
                    name,
                    source: Source::File(path.to_owned()),
                })
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(no_file(path).into()),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads the recipe and its lock.
    pub(super) fn read(&self) -> Result<Texts, Failure> {
        match &self.source {
            Source::Shipped(shipped) => Ok(Texts {
                recipe: shipped.recipe.to_owned(),
                lock: shipped.lock.map(str::to_owned),
                // Nothing beside it: mk ships recipes that name URLs and packages only.
                folder: PathBuf::from("/"),
                lock_file: None,
            }),
            Source::File(path) => {
                let lock_file = path.with_extension("lock");
                let lock = match read_text(&lock_file) {
                    Ok(text) => Some(text),
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
                    Err(error) => return Err(error.into()),
                };
                let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
                Ok(Texts {
                    recipe: read_text(path)?,
                    lock,
                    folder: folder.unwrap_or(Path::new(".")).to_owned(),
                    lock_file: Some(lock_file),
                })
            }
        }
    }
}

/// The most that a recipe or its lock may hold, in bytes: more than anybody writes, and little enough to read.
const MOST_TEXT: u64 = 4 << 20;

/// Reads a recipe or a lock; what is no regular file, and may never end or never begin, is an error.
fn read_text(path: &Path) -> std::io::Result<String> {
    // A fifo without a writer would otherwise keep mk waiting in open(2).
    let file = fs_err::OpenOptions::new()
        .read(true)
        .custom_flags(OFlags::NONBLOCK.bits() as i32)
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(unreadable(path, "it is no regular file"));
    }
    let mut text = String::new();
    let read = file.take(MOST_TEXT + 1).read_to_string(&mut text);
    match read {
        Ok(length) if length as u64 <= MOST_TEXT => Ok(text),
        Err(error) if error.kind() != std::io::ErrorKind::InvalidData => Err(error),
        Ok(_) => Err(unreadable(path, &format!("it holds more than {MOST_TEXT} bytes"))),
        Err(_) => Err(unreadable(path, "it is not UTF-8")),
    }
}

fn unreadable(path: &Path, why: &str) -> std::io::Error {
    let text = format!("`{}` is not read: {why}", path.display());
    std::io::Error::new(std::io::ErrorKind::InvalidData, text)
}

/// Whether `word` is a path, and not a name.
pub(super) fn is_path(word: &Path) -> bool {
    word.as_os_str().as_encoded_bytes().contains(&b'/') || word.extension().is_some_and(|end| end == "toml")
}

/// Returns what the image of the recipe at `path` is called: as the file, or as its folder for `Containerfile.toml`.
fn name_of(path: &Path) -> String {
    let stem = match path.file_name().is_some_and(|name| name == CONTAINERFILE) {
        true => fs_err::canonicalize(path)
            .ok()
            .and_then(|path| Some(path.parent()?.file_name()?.to_owned())),
        false => path.file_stem().map(ToOwned::to_owned),
    };
    stem.unwrap_or_default().to_string_lossy().into_owned()
}

fn no_file(path: &Path) -> Failing {
    let failing = Failing::new(format!("there is no recipe `{}`", path.display()));
    if path == Path::new(CONTAINERFILE) {
        return failing.hint("name one, as in `mk build busybox` or `mk build images/NAME.toml`");
    }
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let beside = fs_err::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name());
    let recipes = beside
        .filter_map(|name| name.into_string().ok())
        .filter(|name| name.ends_with(".toml"));
    let wanted = path.file_name().unwrap_or_default().to_string_lossy();
    match closest(&wanted, recipes) {
        Some(likely) => failing.hint(format!(
            "did you mean `{}`?",
            path.with_file_name(likely).display()
        )),
        None => failing,
    }
}

fn no_recipe(word: &str) -> Failing {
    let failing = Failing::new(format!(
        "there is no recipe `{word}`: neither images/{word}.toml nor one that mk ships"
    ));
    let shipped: Vec<&str> = mk_images::all().iter().map(|shipped| shipped.name).collect();
    for beside in [format!("{word}.toml"), format!("{word}/{CONTAINERFILE}")] {
        if Path::new(&beside).is_file() {
            return failing.hint(format!("did you mean `{beside}`?"));
        }
    }
    match closest(word, shipped.iter().map(ToString::to_string)) {
        Some(likely) => failing.hint(format!("did you mean `{likely}`?")),
        None => failing.hint(format!("mk ships {}; a path ends with .toml", shipped.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recipe_without_an_end_is_an_error() {
        for device in ["/dev/null", "/dev/zero"] {
            let error = read_text(Path::new(device)).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("`{device}` is not read: it is no regular file")
            );
        }
        let sparse = tempfile::NamedTempFile::new().unwrap();
        sparse.as_file().set_len(MOST_TEXT + 1).unwrap();
        let error = read_text(sparse.path()).unwrap_err();
        assert!(error.to_string().ends_with("more than 4194304 bytes"), "{error}");
    }
}
