//! The Debian archive: which mirror to ask, what a package is pinned to, and the bytes of a pinned package.

use std::collections::BTreeMap;
use std::io::{self, Write};

use super::transfer::Transfer;
use super::{Settings, checked_pool_path, http};
use crate::digest::Digest;
use crate::plan::lock::{DebKey, DebPin};
use crate::watch::{Event, Watch};

pub(super) mod date;
mod packages;
mod release;
mod signature;
mod sources;
mod version;

use packages::Packing;
use release::Release;
use signature::Keyring;
pub use signature::Refusal;
use sources::Mirror;

/// Asked where neither the caller nor the machine's APT knows a mirror.
pub const DEFAULT_MIRROR: &str = "http://ftp.debian.org/debian";

/// The largest `InRelease` that is read, in bytes.
const LARGEST_RELEASE: u64 = 16 * 1024 * 1024;
/// The largest packed `Packages` index that is read, in bytes.
const LARGEST_INDEX: u64 = 256 * 1024 * 1024;

/// Why packages could not be pinned.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A text that can be no suite.
    #[error("`{suite}` is not a Debian suite: expected a name such as `bookworm`")]
    BadSuite {
        /// The text.
        suite: String,
    },
    /// No mirror has the suite.
    #[error("there is no suite `{suite}` in {}", .mirrors.join(", "))]
    NoSuite {
        /// The suite.
        suite: String,
        /// The mirrors that were asked.
        mirrors: Vec<String>,
    },
    /// An index is not vouched for.
    #[error("`{url}` cannot be trusted")]
    Untrusted {
        /// Its URL.
        url: String,
        /// Why.
        #[source]
        source: Refusal,
    },
    /// An index is that of another suite.
    #[error("`{url}` is not the suite `{asked}`: it says suite `{suite}`, codename `{codename}`")]
    OtherSuite {
        /// Its URL.
        url: String,
        /// The suite that was asked for.
        asked: String,
        /// What it says it is.
        suite: String,
        /// Its other name.
        codename: String,
    },
    /// An index is older than its publisher allows.
    #[error("`{url}` was valid until {until}")]
    Expired {
        /// Its URL.
        url: String,
        /// The end of its validity, as written.
        until: String,
    },
    /// An index cannot be understood.
    #[error("`{url}` is not a Debian index: {why}")]
    Malformed {
        /// Its URL.
        url: String,
        /// What is wrong with it, as a fragment.
        why: String,
    },
    /// A suite has no packages for any architecture that was asked for.
    #[error("`{suite}` has no packages for {}", .archs.join(", "))]
    NoArch {
        /// The suite.
        suite: String,
        /// Debian's names of the architectures.
        archs: Vec<String>,
    },
    /// A suite has no such package.
    #[error("there is no package `{package}` in `{suite}`{}", did_you_mean(.near))]
    UnknownPackage {
        /// The name that was asked for.
        package: String,
        /// The suite.
        suite: String,
        /// Names that are much like it, likest first.
        near: Vec<String>,
    },
}

fn did_you_mean(near: &[String]) -> String {
    let names: Vec<String> = near.iter().map(|name| format!("`{name}`")).collect();
    if names.is_empty() {
        String::new()
    } else {
        format!(" (did you mean {}?)", names.join(" or "))
    }
}

/// Pins `packages` of `suite` for each of `archs` (Debian's names) to the newest version in the suite's index, whose
/// signature is checked. A package that some of the architectures lack has no pin for those; one that all lack is an
/// error.
pub fn look_up(
    suite: &str,
    packages: &[String],
    archs: &[&str],
    settings: &Settings,
    watch: &dyn Watch,
) -> Result<BTreeMap<DebKey, DebPin>, super::Error> {
    let letters = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    if suite.is_empty() || suite.starts_with('.') || !suite.bytes().all(letters) {
        return Err(Error::BadSuite {
            suite: crate::path::shown(suite.as_bytes()),
        }
        .into());
    }
    let (mirror, release) = find_release(suite, settings, watch)?;
    let indexes = fetch_indexes(suite, &mirror, &release, archs, settings, watch)?;
    let mut pins = BTreeMap::new();
    for (arch, index) in &indexes {
        for (package, pin) in index.find(packages)? {
            let key = DebKey {
                suite: suite.to_owned(),
                package,
                arch: (*arch).to_owned(),
            };
            let newer = pins
                .get(&key)
                .is_none_or(|known: &DebPin| version::compare(&pin.version, &known.version).is_gt());
            if newer {
                pins.insert(key, pin);
            }
        }
    }
    for package in packages {
        if !pins.keys().any(|key| key.package == *package) {
            let near = indexes
                .first()
                .map_or(Ok(Vec::new()), |(_, index)| index.near(package))?;
            let (package, suite) = (crate::path::shown(package.as_bytes()), suite.to_owned());
            return Err(Error::UnknownPackage { package, suite, near }.into());
        }
    }
    Ok(pins)
}

/// Passes on the bytes at `path` in a mirror.
pub(super) fn download(
    path: &str,
    settings: &Settings,
    transfer: &mut Transfer<'_>,
) -> Result<(), super::Error> {
    checked_pool_path(path)?;
    let mirrors = mirrors(settings);
    let mut failure = None;
    for mirror in &mirrors {
        match get(&mirror.url, path, settings, transfer) {
            Ok(()) => return Ok(()),
            Err(error) if is_absent(&error) => {}
            Err(error) if is_elsewhere_better(&error) => failure = failure.or(Some(error)),
            Err(error) => return Err(error),
        }
    }
    Err(failure.unwrap_or_else(|| super::Error::PackageGone {
        name: transfer.name().to_owned(),
        path: path.to_owned(),
        mirrors: mirrors.into_iter().map(|mirror| mirror.url).collect(),
    }))
}

/// Returns the mirrors to ask, in this order.
fn mirrors(settings: &Settings) -> Vec<Mirror> {
    let only = |url: &str| {
        vec![Mirror {
            url: url.trim_end_matches('/').to_owned(),
            ..Mirror::default()
        }]
    };
    if let Some(url) = &settings.mirror {
        return only(url);
    }
    let known = sources::mirrors(&settings.apt_dir);
    if known.is_empty() {
        only(DEFAULT_MIRROR)
    } else {
        known
    }
}

/// Passes on the file at `path` below the mirror `base`.
fn get(base: &str, path: &str, settings: &Settings, transfer: &mut Transfer<'_>) -> Result<(), super::Error> {
    match base.strip_prefix("file://") {
        Some(folder) => transfer.copy_file(&std::path::Path::new(folder).join(path)),
        None => http::download(&format!("{base}/{}", url_path(path)), settings, transfer),
    }
}

/// Returns `path` as it stands in a URL: all but what RFC 3986 section 3.3 lets stand in a path is escaped.
fn url_path(path: &str) -> String {
    let mut text = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

/// Whether an error says that a mirror does not have a file.
fn is_absent(error: &super::Error) -> bool {
    matches!(
        error,
        super::Error::Status {
            status: 404 | 410,
            ..
        } | super::Error::Missing { .. }
    ) || matches!(error, super::Error::Read { source, .. } if source.kind() == io::ErrorKind::NotFound)
}

/// Whether another mirror may do better after an error.
fn is_elsewhere_better(error: &super::Error) -> bool {
    use super::Error as E;
    matches!(
        error,
        E::Status { .. } | E::Network { .. } | E::Read { .. } | E::BadUrl { .. }
    )
}

/// Returns the first mirror that has the suite and can be trusted, and the suite's release.
fn find_release(
    suite: &str,
    settings: &Settings,
    watch: &dyn Watch,
) -> Result<(Mirror, Release), super::Error> {
    let mirrors = mirrors(settings);
    let mut failure = None;
    for mirror in &mirrors {
        match read_release(suite, mirror, settings, watch) {
            Ok(release) => return Ok((mirror.clone(), release)),
            Err(error) if is_absent(&error) => {}
            // An entry that only looked like Debian's fails here; the next one may be the archive's.
            Err(error @ super::Error::Debian(_)) => failure = failure.or(Some(error)),
            Err(error) if is_elsewhere_better(&error) => failure = failure.or(Some(error)),
            Err(error) => return Err(error),
        }
    }
    Err(failure.unwrap_or_else(|| {
        let mirrors = mirrors.into_iter().map(|mirror| mirror.url).collect();
        Error::NoSuite {
            suite: suite.to_owned(),
            mirrors,
        }
        .into()
    }))
}

fn read_release(
    suite: &str,
    mirror: &Mirror,
    settings: &Settings,
    watch: &dyn Watch,
) -> Result<Release, super::Error> {
    let path = format!("dists/{suite}/InRelease");
    let url = format!("{}/{path}", mirror.url);
    let fetched = fetch_index(&mirror.url, &path, suite, None, LARGEST_RELEASE, settings, watch);
    let bytes = match fetched {
        // Where nothing is signed there is only this.
        Err(error) if settings.insecure_index && is_absent(&error) => {
            let path = format!("dists/{suite}/Release");
            fetch_index(&mirror.url, &path, suite, None, LARGEST_RELEASE, settings, watch)?
        }
        fetched => fetched?,
    };
    let mut keyring = Keyring::read(settings.keyrings.iter().chain(&mirror.keyrings));
    if let Some(key) = &mirror.key {
        keyring.add(key.as_bytes());
    }
    let forgive = |error: Error| {
        if !settings.insecure_index {
            return Err(error);
        }
        watch.see(Event::Note {
            text: &format!(
                "used all the same, as was asked for: {}",
                super::held::chain(&error)
            ),
        });
        Ok(())
    };
    let text = match keyring.verify(&bytes, settings.now) {
        Ok(text) => text,
        Err(source) => {
            forgive(Error::Untrusted {
                url: url.clone(),
                source,
            })?;
            signature::unverified(&bytes)
        }
    };
    let release = Release::parse(&text, &url)?;
    release.check_suite(suite, &url)?;
    release.check_age(settings.now, &url).or_else(forgive)?;
    Ok(release)
}

/// A `Packages` index, packed, with its digest checked.
struct Index {
    url: String,
    packing: Packing,
    bytes: Vec<u8>,
}

impl Index {
    fn find(&self, wanted: &[String]) -> Result<BTreeMap<String, DebPin>, Error> {
        packages::find(&self.bytes, self.packing, wanted).map_err(|error| self.malformed(&error))
    }

    fn near(&self, name: &str) -> Result<Vec<String>, Error> {
        packages::near(&self.bytes, self.packing, name).map_err(|error| self.malformed(&error))
    }

    fn malformed(&self, error: &io::Error) -> Error {
        Error::Malformed {
            url: self.url.clone(),
            why: error.to_string(),
        }
    }
}

/// Fetches the indexes of the suite for each of `archs` that it has, at once.
fn fetch_indexes<'a>(
    suite: &str,
    mirror: &Mirror,
    release: &Release,
    archs: &[&'a str],
    settings: &Settings,
    watch: &dyn Watch,
) -> Result<Vec<(&'a str, Index)>, super::Error> {
    let mut asked = Vec::new();
    for &arch in archs {
        let kinds: &[&str] = if release.all_apart {
            &[arch, "all"]
        } else {
            &[arch]
        };
        for kind in kinds {
            let names = ["xz", "gz"].map(|packing| format!("main/binary-{kind}/Packages.{packing}"));
            match release.file(&names) {
                Some((name, digest, size)) => asked.push((arch, name.to_owned(), digest, size)),
                None => watch.see(Event::Note {
                    text: &format!("`{suite}` has no packages for {kind}"),
                }),
            }
        }
    }
    if asked.is_empty() {
        let archs = archs.iter().map(|&arch| arch.to_owned()).collect();
        return Err(Error::NoArch {
            suite: suite.to_owned(),
            archs,
        }
        .into());
    }
    std::thread::scope(|scope| {
        let threads: Vec<_> = asked
            .into_iter()
            .map(|(arch, name, digest, size)| {
                scope.spawn(move || {
                    let index = fetch_packages(
                        suite,
                        &mirror.url,
                        &name,
                        (digest, size),
                        release,
                        settings,
                        watch,
                    );
                    index.map(|index| (arch, index))
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
            .collect()
    })
}

fn fetch_packages(
    suite: &str,
    mirror: &str,
    name: &str,
    pin: (Digest, u64),
    release: &Release,
    settings: &Settings,
    watch: &dyn Watch,
) -> Result<Index, super::Error> {
    let plain = format!("dists/{suite}/{name}");
    let get = |path: &str| fetch_index(mirror, path, suite, Some(pin), LARGEST_INDEX, settings, watch);
    let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
    let by_hash = format!("dists/{suite}/{folder}/by-hash/SHA256/{}", pin.0);
    let bytes = match release.by_hash.then(|| get(&by_hash)) {
        Some(Err(error)) if is_absent(&error) => get(&plain)?,
        Some(fetched) => fetched?,
        None => get(&plain)?,
    };
    Ok(Index {
        url: format!("{mirror}/{plain}"),
        packing: Packing::of(name),
        bytes,
    })
}

/// Returns the bytes of an index, of which no more than `most` are taken; checks them where their `pin` is known.
fn fetch_index(
    mirror: &str,
    path: &str,
    suite: &str,
    pin: Option<(Digest, u64)>,
    most: u64,
    settings: &Settings,
    watch: &dyn Watch,
) -> Result<Vec<u8>, super::Error> {
    let name = match path
        .strip_prefix(&format!("dists/{suite}/"))
        .unwrap_or(path)
        .split('/')
        .collect::<Vec<_>>()[..]
    {
        [_, binary, ..] => format!("{suite} {}", binary.trim_start_matches("binary-")),
        _ => format!("{suite} index"),
    };
    let mut bytes = Bounded {
        bytes: Vec::new(),
        most,
    };
    let (digest, size) = pin.unzip();
    let mut transfer = Transfer::new(&name, digest, size, &mut bytes, watch);
    get(mirror, path, settings, &mut transfer)?;
    transfer.finish()?;
    Ok(bytes.bytes)
}

/// Bytes in memory, and not too many.
struct Bounded {
    bytes: Vec<u8>,
    most: u64,
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if (self.bytes.len() + bytes.len()) as u64 > self.most {
            return Err(io::Error::other(format!("it is larger than {} bytes", self.most)));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
