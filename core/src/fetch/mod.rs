//! Pinned source → verified bytes. [`fetch`] takes what a plan pins and writes its bytes to whatever it is given; the
//! digest is checked as they pass. Looks beside the recipe, in the source folders, then where the source comes from.
//! Knows nothing of the store and keeps nothing on disk.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use crate::digest::Digest;
use crate::path::{BadPath, TreePath};
use crate::plan::{Origin, Pinned};
use crate::recipe::Location;
use crate::recipe::mistake::Mistakes;
use crate::watch::{Event, Watch};

pub mod content;
pub mod debian;
pub mod held;
pub mod http;
pub mod ignore;
pub mod local;
mod proxy;
#[cfg(test)]
mod tests;
mod transfer;

use transfer::Transfer;

/// How much is read at once, in bytes.
const CHUNK: usize = 64 * 1024;

/// Where and how bytes are fetched. Core reads no environment and no clock: the caller fills this in.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Folders whose files stand in for downloads, looked up by sha256; the first that has the bytes gives them.
    pub source_dirs: Vec<PathBuf>,
    /// Never use the network: what is neither beside the recipe nor in a source folder is an error.
    pub offline: bool,
    /// Proxies, as the caller's environment or configuration names them.
    pub proxies: Proxies,
    /// Timeouts and repeated tries.
    pub patience: Patience,
    /// The most bytes that a URL may give where no size is pinned: a server can send without end.
    pub largest: u64,
    /// The Debian mirror (`http://`, `https://` or `file:///`) to use; `None`: those of the machine's APT sources.
    pub mirror: Option<String>,
    /// The folder of the machine's APT configuration.
    pub apt_dir: PathBuf,
    /// OpenPGP keyrings, binary or armoured, that may sign a Debian index; those that do not exist are passed over.
    pub keyrings: Vec<PathBuf>,
    /// Take a Debian index that is unsigned, out of date or signed by a key that is in no keyring.
    pub insecure_index: bool,
    /// What time it is, for signatures that expire.
    pub now: SystemTime,
    /// What was found in the source folders so far; clones share it.
    pub held: held::Held,
    /// Connections that are kept open; clones share them.
    pub connections: http::Connections,
}

impl Settings {
    /// Returns settings for `now`: no source folders, no proxies, 64 GiB at the most, the usual APT folder and Debian
    /// keyrings.
    pub fn new(now: SystemTime) -> Self {
        Self {
            source_dirs: Vec::new(),
            offline: false,
            proxies: Proxies::default(),
            patience: Patience::default(),
            largest: 64 << 30,
            mirror: None,
            apt_dir: PathBuf::from("/etc/apt"),
            keyrings: vec![
                PathBuf::from("/usr/share/keyrings/debian-archive-keyring.gpg"),
                PathBuf::from("/usr/share/keyrings/debian-archive-keyring.pgp"),
            ],
            insecure_index: false,
            now,
            held: held::Held::default(),
            connections: http::Connections::default(),
        }
    }
}

/// Proxies as in the variables of the same names. An empty text is no proxy.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    /// For `http://` URLs: `http://[user:password@]host:port`.
    pub http: Option<String>,
    /// For `https://` URLs.
    pub https: Option<String>,
    /// Hosts that are reached directly, separated by commas: names with all below them, addresses, CIDR, `*`.
    pub none: Option<String>,
}

/// Leaves out what a proxy URL may hold of a password.
impl std::fmt::Debug for Proxies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = |proxy: &Option<String>| proxy.as_deref().map(without_password);
        f.debug_struct("Proxies")
            .field("http", &shown(&self.http))
            .field("https", &shown(&self.https))
            .field("none", &self.none)
            .finish()
    }
}

/// How long to wait and how often to try again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patience {
    /// Until a connection stands.
    pub connect: Duration,
    /// Until the next byte arrives.
    pub read: Duration,
    /// How often a transfer is tried; one that got a mebibyte further starts the count anew.
    pub tries: u32,
    /// Before the second try; doubled before each further one.
    pub back_off: Duration,
    /// The longest pause between two tries, also where a server asks for more.
    pub longest_back_off: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(20),
            read: Duration::from_secs(60),
            tries: 5,
            back_off: Duration::from_millis(500),
            longest_back_off: Duration::from_secs(30),
        }
    }
}

/// Why a source could not be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file that the recipe names is not there.
    #[error("there is no `{}`", .path.display())]
    Missing {
        /// The path that was looked for.
        path: PathBuf,
    },
    /// A file or folder cannot be read.
    #[error("cannot read `{}`", .path.display())]
    Read {
        /// Which one.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A folder holds something that no image can: a socket or a device.
    #[error("`{}` is {found}: expected a file, a folder, a symlink or a fifo", .path.display())]
    Unfit {
        /// Where it is.
        path: PathBuf,
        /// What it is, with an article.
        found: &'static str,
    },
    /// A name in a folder cannot be a name in an image.
    #[error("`{}` cannot be in an image", .path.display())]
    Name {
        /// Where it is.
        path: PathBuf,
        /// Why.
        #[source]
        source: BadPath,
    },
    /// A `.mkignore` holds lines that are no patterns.
    #[error("cannot read `{}`: {mistakes}", .path.display())]
    Ignore {
        /// Where it is.
        path: PathBuf,
        /// What it says.
        text: String,
        /// What is wrong with that.
        mistakes: Mistakes,
    },
    /// The bytes are not those that were pinned.
    #[error("`{name}` from `{place}` is not what was pinned: expected {expected}, got {actual}")]
    WrongDigest {
        /// The source's short name.
        name: String,
        /// A path or a URL.
        place: String,
        /// The pinned digest.
        expected: Digest,
        /// The digest of the bytes that came.
        actual: Digest,
    },
    /// There are more or fewer bytes than were pinned.
    #[error("`{name}` from `{place}` is not what was pinned: expected {expected} bytes, got {actual}{}", if *.more { " or more" } else { "" })]
    WrongSize {
        /// The source's short name.
        name: String,
        /// A path or a URL.
        place: String,
        /// The pinned size in bytes.
        expected: u64,
        /// The size in bytes as announced or received.
        actual: u64,
        /// Whether receiving was broken off at `actual`.
        more: bool,
    },
    /// What nobody has pinned a size of does not end.
    #[error(
        "`{name}` from `{place}` is larger than {most} bytes, the most that is fetched where no size is pinned"
    )]
    TooLarge {
        /// The source's short name.
        name: String,
        /// The URL.
        place: String,
        /// The most that is fetched, in bytes.
        most: u64,
    },
    /// The network would be needed, and must not be used.
    #[error("`{name}` is in no source folder, and `{place}` may not be asked while offline (sha256 {})", .sha256.map_or("unknown".to_owned(), |digest| digest.to_string()))]
    Offline {
        /// The source's short name.
        name: String,
        /// The URL that would be asked.
        place: String,
        /// The digest to look for, where it is known.
        sha256: Option<Digest>,
    },
    /// A URL that cannot be asked for.
    #[error("`{url}` cannot be fetched: {why}")]
    BadUrl {
        /// The URL.
        url: String,
        /// What is wrong with it, as a fragment.
        why: String,
    },
    /// A server said no.
    #[error("`{url}` answered {status}{}", http::reason(*.status))]
    Status {
        /// The URL, after redirects.
        url: String,
        /// The HTTP status.
        status: u16,
    },
    /// No try went through.
    #[error("cannot fetch `{url}` ({tries} {}): {why}", if *.tries == 1 { "try" } else { "tries" })]
    Network {
        /// The URL, after redirects.
        url: String,
        /// How often it was tried.
        tries: u32,
        /// What the last try failed with, as a fragment.
        why: String,
    },
    /// What a URL holds changed while it was read, so that the part that was there already is worthless.
    #[error("`{url}` changed while it was fetched")]
    Changed {
        /// The URL.
        url: String,
    },
    /// A proxy setting cannot be understood.
    #[error("`{proxy}` is not a proxy: expected `http://host:port`")]
    BadProxy {
        /// The setting, without a password.
        proxy: String,
    },
    /// Whoever takes the bytes failed.
    #[error("cannot write what `{name}` holds")]
    Write {
        /// The source's short name.
        name: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A path that cannot lie in a Debian mirror.
    #[error("`{path}` is not a path in a Debian mirror")]
    BadPoolPath {
        /// The path.
        path: String,
        /// Why.
        #[source]
        source: BadPath,
    },
    /// A pinned package is in none of the mirrors any more: the archive keeps only the current version.
    #[error("`{name}` is no longer at `{path}` in {}", .mirrors.join(", "))]
    PackageGone {
        /// Package and version.
        name: String,
        /// Its path in the mirror.
        path: String,
        /// The mirrors that were asked.
        mirrors: Vec<String>,
    },
    /// A Debian index cannot be used.
    #[error(transparent)]
    Debian(#[from] debian::Error),
}

/// Writes the bytes of `pinned` to `out` and returns their digest, which is the pinned one, and their number.
///
/// Looks for a file beside the recipe first if that is what the source is, then in the source folders, then on the
/// network. After an error `out` may have taken part of the bytes.
pub fn fetch(
    pinned: &Pinned,
    recipe_dir: &Path,
    settings: &Settings,
    out: &mut impl Write,
    watch: &dyn Watch,
) -> Result<(Digest, u64), Error> {
    let mut transfer = Transfer::new(&pinned.name, Some(pinned.sha256), pinned.size, out, watch);
    if let Origin::At(Location::File(file)) = &pinned.origin {
        let path = recipe_dir.join(file);
        // What cannot even be looked at is an error of its own.
        if path.try_exists().unwrap_or(true) {
            transfer.copy_file(&path)?;
            return transfer.finish();
        }
    }
    if let Some(path) = settings.held.find(&settings.source_dirs, pinned, watch) {
        transfer.copy_file(&path)?;
        return transfer.finish();
    }
    transfer.limit(settings.largest);
    match &pinned.origin {
        Origin::At(Location::File(file)) => Err(Error::Missing {
            path: recipe_dir.join(file),
        }),
        Origin::At(Location::Url(url)) => {
            http::download(url, settings, &mut transfer)?;
            transfer.finish()
        }
        Origin::Pool(path) => {
            debian::download(path, settings, &mut transfer)?;
            transfer.finish()
        }
    }
}

/// Writes what `url` holds now to `out` and returns its digest and size, for a pin yet to be made.
pub fn pin_url(
    url: &str,
    settings: &Settings,
    out: &mut impl Write,
    watch: &dyn Watch,
) -> Result<(Digest, u64), Error> {
    let name = url_name(url);
    let mut transfer = Transfer::new(&name, None, None, out, watch);
    transfer.limit(settings.largest);
    http::download(url, settings, &mut transfer)?;
    transfer.finish()
}

/// Returns a short name for what `url` holds: the last part of its path, else the host.
pub fn url_name(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let path = rest.split(['?', '#']).next().unwrap_or(rest);
    let name = path.trim_end_matches('/').rsplit('/').next().unwrap_or(path);
    crate::path::shown(name.as_bytes())
}

/// Returns `url` with the password in it, if any, replaced.
fn without_password(url: &str) -> String {
    let (scheme, rest) = url
        .split_once("://")
        .map_or(("", url), |(scheme, rest)| (scheme, rest));
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    let Some((user, host)) = authority.rsplit_once('@') else {
        return url.to_owned();
    };
    let user = user.split(':').next().unwrap_or(user);
    let separator = if scheme.is_empty() { "" } else { "://" };
    format!("{scheme}{separator}{user}:***@{host}{}", &rest[authority.len()..])
}

/// Accepts a path below a Debian mirror only if it cannot lead out of it.
fn checked_pool_path(path: &str) -> Result<TreePath, Error> {
    TreePath::parse(path).map_err(|source| Error::BadPoolPath {
        path: crate::path::shown(path.as_bytes()),
        source,
    })
}
