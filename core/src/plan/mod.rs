//! [`Recipe`](crate::recipe::Recipe) + [`Lock`](lock::Lock) → [`Plan`]: every source pinned, every step ready for its
//! key. Pure.

use crate::digest::Digest;
use crate::recipe::{Conf, Location, RunDefaults, Select, Verb};

pub mod key;
pub mod lock;
pub mod resolve;

/// What a build will do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The steps, in order.
    pub steps: Vec<PlannedStep>,
    /// No time in the image is later than this, where the recipe or the caller says (seconds since 1970 UTC).
    pub epoch: Option<i64>,
    /// What runs find in `/etc`.
    pub conf: Conf,
    /// Defaults of `mk run`.
    pub run: RunDefaults,
}

/// One step with the digests of all that it takes in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedStep {
    /// The step in words, for people: `unpack alpine.tar.gz into /`.
    pub label: String,
    /// What the recipe says.
    pub verb: Verb,
    /// The archives that it lays, in order (for `unpack` one, for `deb` one a package).
    pub archives: Vec<Pinned>,
    /// How entries of the archives are chosen and placed (default for verbs that have none).
    pub select: Select,
    /// For `copy`: the digest of the file or folder as it was found; from another tree, that of the [part] which it takes.
    ///
    /// [part]: crate::tree::Tree::part
    pub copied: Option<Digest>,
    /// For `run`: the digest of each file or folder that is mounted from beside the recipe, in order.
    pub mounted: Vec<Digest>,
}

/// A source whose bytes are known by digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pinned {
    /// Short name for people: the file's own, or package and version.
    pub name: String,
    /// Where the bytes can be had, should they not be at hand by digest.
    pub origin: Origin,
    /// What they hash to.
    pub sha256: Digest,
    /// How many they are, where known.
    pub size: Option<u64>,
}

/// Where bytes can be had.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// As the recipe names it.
    At(Location),
    /// A path in a Debian mirror's pool, such as `pool/main/b/busybox/busybox-static_1.35.0-4+b3_amd64.deb`.
    Pool(String),
}
