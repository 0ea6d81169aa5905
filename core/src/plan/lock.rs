//! [`Lock`]: which digest every source had when it was last agreed on; text ↔ value. Pure.

use std::collections::BTreeMap;

use crate::digest::Digest;

/// The pins of one recipe. Order is by key, so that differences read well.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Lock {
    /// Debian packages.
    pub debs: BTreeMap<DebKey, DebPin>,
    /// URLs that the recipe gives without a sha256.
    pub urls: BTreeMap<String, UrlPin>,
}

/// What a pinned package is asked for by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DebKey {
    /// Suite, such as `bookworm`.
    pub suite: String,
    /// Package name.
    pub package: String,
    /// Debian's name of the architecture: `amd64` or `arm64`.
    pub arch: String,
}

/// What a package was when it was pinned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DebPin {
    /// Debian version.
    pub version: String,
    /// SHA-256 of the `.deb`.
    pub sha256: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// Its path in the mirror.
    pub path: String,
}

/// What a URL held when it was first seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UrlPin {
    /// SHA-256 of the bytes.
    pub sha256: Digest,
    /// Their number.
    pub size: u64,
}
