//! [`Listing`]: a filesystem as lines that can be compared, whether it comes from a canonical tree, a folder or the
//! table of contents that tar(1) prints.

use std::collections::BTreeMap;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use sha2::{Digest, Sha256};

/// What is known of one path. `None`: the source of the listing does not tell, or it has no meaning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    /// As mtree(5) names it: `file`, `dir`, `link`, `char`, `block`, `fifo`.
    pub(crate) kind: String,
    pub(crate) mode: Option<u32>,
    pub(crate) owner: Option<(u32, u32)>,
    pub(crate) mtime: Option<i64>,
    pub(crate) target: Option<Vec<u8>>,
    pub(crate) content: Option<String>,
}

/// Paths (`.` is the root, the others begin without `./`) and what is there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Listing(pub(crate) BTreeMap<Vec<u8>, Line>);

impl Listing {
    /// Reads what `mk inspect --tree` prints.
    pub(crate) fn of_tree(text: &str) -> Self {
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some("#mtree mk-tree 1"), "{text}");
        Self(lines.map(of_tree_line).collect())
    }

    /// Walks a folder.
    pub(crate) fn of_folder(root: &Path) -> Self {
        let mut all = BTreeMap::new();
        add(root, b".", &mut all);
        Self(all)
    }

    /// Returns the same with `change` made to each line.
    pub(crate) fn map(mut self, change: impl Fn(&mut Line)) -> Self {
        self.0.values_mut().for_each(change);
        self
    }

    /// Returns the line of `path`.
    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> &Line {
        let line = self.0.get(path.as_bytes());
        line.unwrap_or_else(|| panic!("`{path}` is not in {:?}", self.paths()))
    }

    /// Returns all paths.
    pub(crate) fn paths(&self) -> Vec<String> {
        self.0
            .keys()
            .map(|path| String::from_utf8_lossy(path).into_owned())
            .collect()
    }

    /// Fails with the first few lines that differ.
    #[track_caller]
    pub(crate) fn assert_is(&self, other: &Self, what: &str) {
        let paths: std::collections::BTreeSet<_> = self.0.keys().chain(other.0.keys()).collect();
        let differences: Vec<String> = paths
            .into_iter()
            .filter(|path| self.0.get(*path) != other.0.get(*path))
            .map(|path| {
                let path_text = String::from_utf8_lossy(path);
                format!(
                    "{path_text}\n   {:?}\n   {:?}",
                    self.0.get(path),
                    other.0.get(path)
                )
            })
            .collect();
        let first = &differences[..differences.len().min(5)];
        assert!(
            differences.is_empty(),
            "{what}: {} paths differ:\n{}",
            differences.len(),
            first.join("\n")
        );
    }
}

fn of_tree_line(line: &str) -> (Vec<u8>, Line) {
    let mut words = line.split(' ');
    let path = unescaped(words.next().unwrap());
    let path = path.strip_prefix(b"./").map(<[u8]>::to_vec).unwrap_or(path);
    let fields: BTreeMap<&str, &str> = words.map(|word| word.split_once('=').unwrap()).collect();
    let field = |name: &str| fields.get(name).copied();
    let number = |name: &str| field(name).map(|text| text.parse().unwrap());
    let mtime = field("time").map(|time| time.strip_suffix(".0").unwrap().parse().unwrap());
    let line = Line {
        kind: field("type").unwrap().to_owned(),
        mode: field("mode").map(|mode| u32::from_str_radix(mode, 8).unwrap()),
        owner: number("uid").zip(number("gid")),
        mtime,
        target: field("link").map(unescaped),
        content: field("sha256").map(str::to_owned),
    };
    (path, line)
}

/// Undoes what vis(3) does to names: `\040` is a space.
fn unescaped(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        match (first, after.get(..3)) {
            (b'\\', Some(digits)) => {
                bytes.push(u8::from_str_radix(std::str::from_utf8(digits).unwrap(), 8).unwrap());
                rest = &after[3..];
            }
            _ => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    bytes
}

fn add(at: &Path, name: &[u8], all: &mut BTreeMap<Vec<u8>, Line>) {
    let metadata = fs_err::symlink_metadata(at).unwrap();
    let kind = metadata.file_type();
    let word = match () {
        () if kind.is_dir() => "dir",
        () if kind.is_symlink() => "link",
        () if kind.is_file() => "file",
        () if kind.is_fifo() => "fifo",
        () if kind.is_char_device() => "char",
        () if kind.is_block_device() => "block",
        () => "socket",
    };
    let line = Line {
        kind: word.to_owned(),
        mode: Some(metadata.mode() & 0o7777),
        owner: Some((metadata.uid(), metadata.gid())),
        mtime: Some(metadata.mtime()),
        target: kind
            .is_symlink()
            .then(|| fs_err::read_link(at).unwrap().into_os_string().into_vec()),
        content: kind.is_file().then(|| content(at)),
    };
    all.insert(name.to_vec(), line);
    if kind.is_dir() {
        for entry in fs_err::read_dir(at).unwrap() {
            let entry = entry.unwrap();
            let below = match name {
                b"." => entry.file_name().as_bytes().to_vec(),
                _ => [name, b"/", entry.file_name().as_bytes()].concat(),
            };
            add(&entry.path(), &below, all);
        }
    }
}

/// The digest of a file; a word where nobody but root may read it.
fn content(path: &Path) -> String {
    match fs_err::read(path) {
        Ok(bytes) => Sha256::digest(bytes)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect(),
        Err(error) => format!("{:?}", error.kind()),
    }
}
