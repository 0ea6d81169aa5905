//! Text → [`Recipe`]: what the author of an image meant, already checked. Pure: no file is opened here.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::ops::Range;

use crate::digest::Digest;
use crate::path::TreePath;

pub mod mistake;
pub mod parse;
pub mod schema;

mod args;
mod check;
mod keys;
mod network;
mod raw;
mod step;
mod syntax;

pub(crate) use check::is_image_name;
pub(crate) use keys::meant;
pub use network::{BadNetwork, KINDS, NetName, Network};

/// Everything a recipe says, with the values of its arguments put in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipe {
    /// One line for people; no part of the image.
    pub description: Option<String>,
    /// What the image is called unless somebody says otherwise; `None`: as the file or its folder.
    pub name: Option<String>,
    /// What the steps start from; `None`: nothing.
    pub parent: Option<Parent>,
    /// No time in the image is later than this (seconds since 1970 UTC).
    pub epoch: Option<i64>,
    /// The value of every argument, by name.
    pub args: BTreeMap<String, String>,
    /// What to do, in this order.
    pub steps: Vec<Step>,
    /// The three files each run finds in `/etc`.
    pub conf: Conf,
    /// Defaults of `mk run`.
    pub run: RunDefaults,
}

/// Another tree that a recipe takes something from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Base {
    /// A name: that of a recipe in the same folder, of one that mk ships, or of an image in the store.
    Name(String),
    /// The path of a recipe as written, relative to the recipe's folder, which it may leave.
    Recipe(String),
    /// An image in the store, by digest.
    Image(Digest),
    /// A tree in the store, by digest.
    Tree(Digest),
}

/// As a recipe writes it.
impl fmt::Display for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(text) | Self::Recipe(text) => f.write_str(text),
            Self::Image(digest) => digest.fmt(f),
            Self::Tree(digest) => write!(f, "tree:{digest}"),
        }
    }
}

/// The tree that a recipe starts from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parent {
    /// Which one.
    pub base: Base,
    /// The bytes of the recipe's text that name it, for messages.
    pub span: Range<usize>,
}

impl Recipe {
    /// Returns every other tree that this recipe takes something from, each once, with the place that names it first.
    pub fn bases(&self) -> Vec<(&Base, Range<usize>)> {
        let parent = self
            .parent
            .iter()
            .map(|parent| (&parent.base, parent.span.clone()));
        let taken = self.steps.iter().filter_map(|step| match &step.verb {
            Verb::Take { from, .. } => Some((from, step.span.clone())),
            _ => None,
        });
        let mut bases: Vec<(&Base, Range<usize>)> = Vec::new();
        for (base, span) in parent.chain(taken) {
            if !bases.iter().any(|(known, _)| *known == base) {
                bases.push((base, span));
            }
        }
        bases
    }
}

/// One `[[step]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What it does.
    pub verb: Verb,
    /// The bytes of the recipe's text that it was read from, for messages.
    pub span: Range<usize>,
    /// The names of the arguments that were put into it, for messages.
    pub args: Vec<String>,
}

/// What a step does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verb {
    /// Lays an archive (tar or deb) over the tree.
    Unpack {
        /// Where its bytes come from.
        source: Source,
        /// Which of its entries, and where they go.
        select: Select,
    },
    /// Lays Debian packages over the tree, each alone, without what they depend on and without running their scripts.
    Deb {
        /// Package names, in the order in which they are laid.
        packages: Vec<String>,
        /// The suite of the archive, such as `bookworm`.
        suite: String,
        /// Which of their entries, and where they go.
        select: Select,
    },
    /// Puts a file or folder from beside the recipe into the tree.
    Copy {
        /// Path as written, relative to the recipe's folder.
        from: String,
        /// Where it goes; for a file, its new path (or a folder, where written with a closing slash: already resolved).
        into: TreePath,
        /// Permission bits of files; left out: 0755 where the owner may execute, else 0644. Folders are 0755.
        mode: Option<u16>,
        /// Owner of all of it.
        owner: Owner,
    },
    /// Puts a file or folder of another tree into the tree.
    Take {
        /// Whose tree.
        from: Base,
        /// What of it; symbolic links on the way there are followed, it itself is not.
        path: TreePath,
        /// Where it goes.
        into: TreePath,
        /// Permission bits of files; `None`: their own.
        mode: Option<u16>,
        /// Owner of all of it; `None`: its own.
        owner: Option<Owner>,
    },
    /// Writes a text to a file.
    Write {
        /// Where.
        path: TreePath,
        /// Exactly what the file then holds.
        text: String,
        /// Permission bits (0644 unless given).
        mode: u16,
        /// Its owner.
        owner: Owner,
    },
    /// Makes symbolic links that all have the same target.
    Link {
        /// The links to make.
        paths: Vec<TreePath>,
        /// Their target, as it will be read.
        to: String,
    },
    /// Makes folders, or changes mode and owner of folders that are there.
    Dir {
        /// The folders.
        paths: Vec<TreePath>,
        /// Permission bits (0755 unless given).
        mode: u16,
        /// Their owner.
        owner: Owner,
    },
    /// Takes away what matches; a folder goes with all that is below it.
    Remove {
        /// Glob patterns from the root, such as `usr/share/doc/**`, without a leading slash. A pattern that matches
        /// nothing is an error when the step runs.
        patterns: Vec<String>,
    },
    /// Adds a user and a group of the same name to passwd, group and shadow, as data.
    User(User),
    /// Runs a program of the tree so far in it, isolated and without a network.
    Run(Script),
}

/// What a `run` step executes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    /// What the shell of the tree reads, or program and arguments.
    pub words: Words,
    /// Environment, by name, besides what every step finds.
    pub env: BTreeMap<String, String>,
    /// Working directory, absolute; `None`: `/`.
    pub workdir: Option<String>,
    /// Who runs it: `name`, `uid`, `name:group` or `uid:gid`; `None`: root.
    pub user: Option<String>,
    /// What it reads from its standard input; `None`: nothing.
    pub stdin: Option<String>,
    /// What it finds in the tree that stays out of the image, in the order of their places.
    pub mounts: Vec<Mount>,
    /// Whether it has the network of the machine that builds, which makes the image impure.
    pub network: bool,
}

impl Script {
    /// Returns what is mounted from beside the recipe, as written, in order.
    pub fn copies(&self) -> impl Iterator<Item = &str> {
        self.mounts.iter().filter_map(|mount| match &mount.granted {
            Granted::Copy(path) => Some(path.as_str()),
            _ => None,
        })
    }
}

/// Something that a command finds in the tree and that is no part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// What it is.
    pub granted: Granted,
    /// Where it is; never the root.
    pub at: TreePath,
}

/// What a command is granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Granted {
    /// A file or folder beside the recipe, as written; it cannot be changed.
    Copy(String),
    /// A folder of the store that all recipes share by this name, and that outlives the build.
    Cache(String),
    /// A file that the caller gives by this name; it cannot be changed.
    Secret(String),
}

/// How a command is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Words {
    /// A text for `/bin/sh`, which ends at the first command that fails.
    Shell(String),
    /// Program and arguments; no shell reads them.
    Program(Vec<String>),
}

impl Words {
    /// Returns program and arguments.
    pub fn command(&self) -> Vec<String> {
        match self {
            Self::Shell(text) => vec!["/bin/sh".into(), "-ec".into(), text.clone()],
            Self::Program(words) => words.clone(),
        }
    }
}

/// Where the bytes of an archive come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// A URL (`http://`, `https://`) or a path relative to the recipe's folder, as written.
    pub location: Location,
    /// What the bytes must hash to, where the recipe says.
    pub sha256: Option<Digest>,
}

/// A place that bytes come from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Location {
    /// A path relative to the recipe's folder.
    File(String),
    /// An `http://` or `https://` URL.
    Url(String),
}

/// Which entries of an archive are taken, and where they go.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Select {
    /// The folder of the tree that they go into; `None` is the root.
    pub into: Option<TreePath>,
    /// How many leading names are taken off each path; entries with fewer names are left out.
    pub strip: u32,
    /// Glob patterns, matched after `strip`; where not empty, only entries that match one (or lie below a match) are taken.
    pub include: Vec<String>,
    /// Glob patterns, matched after `strip`; entries that match one (or lie below a match) are left out.
    pub exclude: Vec<String>,
}

/// An owner as numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Owner {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// A user as data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Login name.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Group id (the uid unless given).
    pub gid: u32,
    /// Home folder, absolute (`/` unless given); made, 0755 and theirs, unless it is `/` or there already.
    pub home: String,
    /// Login shell, absolute.
    pub shell: String,
    /// The comment field.
    pub gecos: String,
    /// Further groups, which must exist in the tree's `/etc/group`.
    pub groups: Vec<String>,
}

/// The files each run finds in `/etc`: never baked from the machine that builds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Conf {
    /// The host name; `None`: `mk`.
    pub hostname: Option<String>,
    /// Address → names, besides the loopback lines.
    pub hosts: BTreeMap<IpAddr, Vec<String>>,
    /// Name servers; `None`: the host's own, when the run has a network.
    pub nameservers: Option<Vec<IpAddr>>,
}

/// Defaults of `mk run`; the command line overrides each.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RunDefaults {
    /// Program and arguments; empty: `/bin/sh`.
    pub command: Vec<String>,
    /// Environment, by name.
    pub env: BTreeMap<String, String>,
    /// Working directory, absolute; `None`: `/`.
    pub workdir: Option<String>,
    /// Who runs it: `name`, `uid`, `name:group` or `uid:gid`; `None`: root.
    pub user: Option<String>,
    /// The kind of network; `None`: none.
    pub network: Option<Network>,
    /// Whether it may make containers of its own.
    pub nesting: bool,
}
