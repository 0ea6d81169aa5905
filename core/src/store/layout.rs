//! Every file name in the store, the `format` file, and nothing else (docs/store.md). Pure.

use std::ffi::OsStr;
use std::fmt;
use std::str::FromStr;

use super::document::{BadDocument, Reader, Writer};
use crate::digest::{Digest, Hasher};
use crate::meta::Meta;
use crate::sys::dir::DEEP;

pub(super) const FORMAT: &str = "format";
/// What the folder of files is called: the first that a new store has.
pub const OBJECTS: &str = "objects";
pub(super) const TREES: &str = "trees";
pub(super) const ROOTFS: &str = "rootfs";
pub(super) const CONF: &str = "conf";
pub(super) const IMAGES: &str = "images";
pub(super) const REFS: &str = "refs";
pub(super) const STEPS: &str = "steps";
pub(super) const SOURCES: &str = "sources";
pub(super) const LEASES: &str = "leases";
pub(super) const LOCKS: &str = "locks";
pub(super) const TRASH: &str = "trash";
pub(super) const SCRATCH: &str = "scratch";
/// Folders that runs are given by name.
pub(super) const VOLUMES: &str = "volumes";
/// What recipes were built of the last time.
pub(super) const BUILDS: &str = "builds";
/// Folders that `run` steps keep things in.
pub(super) const CACHES: &str = "caches";
/// What is in a cache, below its own folder.
pub(super) const CACHE_DATA: &str = "data";
/// What files beside recipes were found to hold.
pub(super) const BESIDE: &str = "beside";
/// Every folder of a store. Older ones lack those at the end.
pub(super) const FOLDERS: [&str; 16] = [
    OBJECTS, TREES, ROOTFS, CONF, IMAGES, REFS, STEPS, SOURCES, LEASES, LOCKS, TRASH, SCRATCH, VOLUMES,
    BUILDS, CACHES, BESIDE,
];
/// What a new ext4 has in it, for fsck. It is not mk's, and a store can be beside it.
pub(super) const LOST_FOUND: &str = "lost+found";
/// What is in a volume, below its own folder.
pub(super) const VOLUME_DATA: &str = "data";
/// What a volume is, and what is locked while it is used, below its own folder.
pub(super) const VOLUME_DOCUMENT: &str = "volume";
pub(super) const VOLUME_HEADER: &str = "mk-volume 1";
/// What the name of a staging folder begins with, which [`staging`] makes, and that of a draft of a `format`.
const STAGING: &str = "staging-";
const DRAFT: &str = "staging-format-";
/// What stands for a boot where nobody knows which it is.
pub(super) const UNKNOWN_BOOT: &str = "unknown";
/// What a file in staging is called that will go to `sources`, before its digest.
pub(super) const STAGED_SOURCE: &str = "source-";
/// Locked by builds (shared) and gc (exclusively).
pub(super) const STORE_LOCK: &str = "locks/store";
/// Taken before [`STORE_LOCK`], so that a waiting gc is not overtaken for ever.
pub(super) const GATE_LOCK: &str = "locks/gate";
/// There while something may not be on the disk: the boot in which it was written.
pub(super) const UNSYNCED: &str = "unsynced";
/// What the name of a source's newest time ends with.
pub(super) const NEWEST: &str = ".newest";

/// Returns the name of a staging folder made in the boot `boot`.
pub(super) fn staging(boot: &str, random: u64) -> String {
    format!("{STAGING}{boot}-{random:016x}")
}

/// Returns the name that a `format` has until it is complete.
pub(super) fn draft(random: u64) -> String {
    format!("{DRAFT}{random:016x}")
}

/// Returns whether [`staging`] made this name, or it is that of what was too deep in such a folder to be deleted there. Others
/// that begin so are somebody's own, and are not swept.
pub(super) fn is_staging(name: &OsStr) -> bool {
    let Some(rest) = name.to_str().and_then(|name| name.strip_prefix(STAGING)) else {
        return false;
    };
    let (rest, deep) = rest
        .split_once(DEEP)
        .map_or((rest, None), |(rest, deep)| (rest, Some(deep)));
    let is_made = rest
        .rsplit_once('-')
        .is_some_and(|(boot, random)| (boot == UNKNOWN_BOOT || is_boot(boot)) && is_hex(random, 16));
    is_made && deep.is_none_or(|deep| deep.split(DEEP).all(|random| is_hex(random, 16)))
}

/// Returns whether [`draft`] made this name.
pub(super) fn is_draft(name: &OsStr) -> bool {
    let random = name.to_str().and_then(|name| name.strip_prefix(DRAFT));
    random.is_some_and(|random| is_hex(random, 16))
}

/// Whether `text` can be what tells a boot from others: a UUID without its hyphens.
pub(super) fn is_boot(text: &str) -> bool {
    is_hex(text, 32)
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

pub(super) const HEADER: &str = "mk-store 1";

/// How the store keeps the owners of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owners {
    /// As they are: root's store.
    Native,
    /// As they are, inside a user namespace with a range of ids.
    Subordinate,
    /// Everything belongs to one id; the tree keeps the true owners.
    Single,
}

impl fmt::Display for Owners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native => "native",
            Self::Subordinate => "subordinate",
            Self::Single => "single",
        })
    }
}

impl FromStr for Owners {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "native" => Ok(Self::Native),
            "subordinate" => Ok(Self::Subordinate),
            "single" => Ok(Self::Single),
            _ => Err(()),
        }
    }
}

/// What the `format` file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Format {
    /// How owners are kept.
    pub owners: Owners,
    /// Whether the filesystem takes `security.capability`.
    pub capabilities: bool,
    /// Whether the filesystem takes `user.*`.
    pub user_xattrs: bool,
    /// The oldest time that the filesystem holds (seconds since 1970 UTC); it makes older ones into this.
    pub oldest: i64,
    /// The newest time that the filesystem holds (seconds since 1970 UTC); it makes newer ones into this.
    pub newest: i64,
}

impl Format {
    /// Returns the text of the file.
    pub(super) fn encode(&self) -> String {
        let mut text = Writer::new(HEADER);
        text.line("owners", &self.owners.to_string());
        let xattrs = match (self.capabilities, self.user_xattrs) {
            (true, true) => "security.capability user",
            (true, false) => "security.capability",
            (false, true) => "user",
            (false, false) => "-",
        };
        text.line("xattrs", xattrs);
        text.line("times", &format!("{} {}", self.oldest, self.newest));
        text.finish()
    }

    /// Reads the text of the file back.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, BadDocument> {
        let mut reader = Reader::new(bytes, HEADER)?;
        let owners = reader.want("owners")?;
        let (capabilities, user_xattrs) = match reader.take("xattrs") {
            Some("security.capability user") => (true, true),
            Some("security.capability") => (true, false),
            Some("user") => (false, true),
            Some("-") => (false, false),
            _ => return Err(reader.bad("expected `xattrs` next, with what the filesystem holds")),
        };
        let times = reader.take("times").and_then(|times| times.split_once(' '));
        let times = times.and_then(|(oldest, newest)| Some((exact::<i64>(oldest)?, exact::<i64>(newest)?)));
        let (oldest, newest) = times
            .filter(|(oldest, newest)| oldest <= newest)
            .ok_or_else(|| reader.bad("expected `times` next, with the oldest and the newest"))?;
        reader.finish()?;
        Ok(Self {
            owners,
            capabilities,
            user_xattrs,
            oldest,
            newest,
        })
    }

    /// Whether `bytes` are what [`Format::encode`] returns for some store, or the beginning of it: all that a draft can hold.
    pub(super) fn can_begin(bytes: &[u8]) -> bool {
        let Ok(text) = std::str::from_utf8(bytes) else {
            return false;
        };
        let may_be_cut = |number: &str| ["", "-"].contains(&number) || exact::<i64>(number).is_some();
        let heads = [Owners::Native, Owners::Subordinate, Owners::Single].map(|owners| {
            [(true, true), (true, false), (false, true), (false, false)].map(|(capabilities, user_xattrs)| {
                let (oldest, newest) = (0, 0);
                Self {
                    owners,
                    capabilities,
                    user_xattrs,
                    oldest,
                    newest,
                }
                .encode()
            })
        });
        let is_cut = heads.as_flattened().iter().any(|whole| {
            let head = whole.trim_end_matches("0 0\n");
            match text.strip_prefix(head) {
                None => head.starts_with(text),
                Some(times) => match times.split_once(' ') {
                    None => may_be_cut(times),
                    Some((oldest, newest)) => exact::<i64>(oldest).is_some() && may_be_cut(newest),
                },
            }
        });
        is_cut || Self::decode(bytes).is_ok()
    }

    /// Returns the time that a file of this store holds for `meta` (seconds since 1970 UTC).
    pub fn held_time(&self, meta: &Meta) -> i64 {
        meta.mtime.clamp(self.oldest, self.newest)
    }

    /// Returns the attributes of `meta` that a file or folder of this store holds; the others are in the tree only.
    pub fn held<'a>(&self, meta: &'a Meta) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        let (capabilities, user) = (self.capabilities, self.user_xattrs);
        let all = meta.xattrs.iter().flat_map(|xattrs| xattrs.iter());
        all.map(|(name, value)| (&**name, &**value))
            .filter(move |(name, value)| match *name {
                b"security.capability" => capabilities && is_plain_capability(value),
                _ => user && name.starts_with(b"user."),
            })
    }
}

/// Whether `value` is a capability set that reads back as it was written: revision 2, 20 bytes (capabilities(7)). Of
/// revision 3 the kernel makes revision 2 where its root is ours, and it refuses what is neither.
fn is_plain_capability(value: &[u8]) -> bool {
    value.len() == 20 && value[3] == 2
}

/// The name of an object: the digest of its bytes and the metadata that its inode carries.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName(Box<str>);

impl ObjectName {
    /// Returns the name of a file with these bytes and this metadata, in a store of this format.
    pub fn new(digest: &Digest, meta: &Meta, format: &Format) -> Self {
        let Meta { mode, uid, gid, .. } = meta;
        let mtime = format.held_time(meta);
        let mut text = match format.owners {
            Owners::Single => format!("{digest}.{mode:o}.{mtime}"),
            Owners::Native | Owners::Subordinate => format!("{digest}.{mode:o}.{uid}.{gid}.{mtime}"),
        };
        let mut held = format.held(meta).peekable();
        if held.peek().is_some() {
            let mut hasher = Hasher::new();
            for (name, value) in held {
                hasher.field(name);
                hasher.field(value);
            }
            text.push('.');
            text.push_str(&hasher.finish().to_string());
        }
        Self(text.into())
    }

    /// Reads a name that [`ObjectName::new`] could have given.
    pub(super) fn parse(text: &str, format: &Format) -> Option<Self> {
        let mut words = text.split('.');
        exact::<Digest>(words.next()?)?;
        let mode = words.next()?;
        let bits = u16::from_str_radix(mode, 8).ok().filter(|bits| *bits <= 0o7777)?;
        (format!("{bits:o}") == mode).then_some(())?;
        if format.owners != Owners::Single {
            exact::<u32>(words.next()?)?;
            exact::<u32>(words.next()?)?;
        }
        exact::<i64>(words.next()?)?;
        if let Some(xattrs) = words.next() {
            exact::<Digest>(xattrs)?;
        }
        words.next().is_none().then(|| Self(text.into()))
    }

    /// Returns the whole name: what the object is called in staging.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the number of the folder of `objects` that it is in: the first byte of its digest.
    pub(super) fn folder(&self) -> u8 {
        u8::from_str_radix(&self.0[..2], 16).unwrap_or_default()
    }

    /// Returns the name inside that folder.
    pub(crate) fn file(&self) -> &str {
        &self.0[2..]
    }
}

/// Reads a value that is written as its type writes itself.
pub(super) fn exact<T: FromStr + ToString>(text: &str) -> Option<T> {
    text.parse().ok().filter(|value: &T| value.to_string() == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NATIVE: Format = Format {
        owners: Owners::Native,
        capabilities: true,
        user_xattrs: true,
        oldest: -2_147_483_648,
        newest: 15_032_385_535,
    };
    const SINGLE: Format = Format {
        owners: Owners::Single,
        ..NATIVE
    };

    #[test]
    fn the_format_file_reads_back_and_nothing_else_does() {
        for owners in [Owners::Native, Owners::Subordinate, Owners::Single] {
            for (capabilities, user_xattrs) in [(true, true), (true, false), (false, true), (false, false)] {
                let format = Format {
                    owners,
                    capabilities,
                    user_xattrs,
                    ..NATIVE
                };
                assert_eq!(Format::decode(format.encode().as_bytes()), Ok(format));
            }
        }
        assert_eq!(
            NATIVE.encode(),
            "mk-store 1\nowners native\nxattrs security.capability user\ntimes -2147483648 15032385535\n"
        );
        for text in [
            "",
            "mk-store 2\nowners native\nxattrs -\ntimes 0 9\n",
            "mk-store 1\nowners root\nxattrs -\ntimes 0 9\n",
            "mk-store 1\nowners native\n",
            "mk-store 1\nowners native\nxattrs -\n",
            "mk-store 1\nowners native\nxattrs -\ntimes 9 0\n",
            "mk-store 1\nowners native\nxattrs -\ntimes 0 09\n",
            "mk-store 1\nowners native\nxattrs -\ntimes 0 9\nmore\n",
        ] {
            assert!(Format::decode(text.as_bytes()).is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn only_names_that_mk_gives_are_those_of_staging_folders_and_drafts() {
        let boot = "0123456789abcdef0123456789abcdef";
        for boot in [boot, UNKNOWN_BOOT] {
            let name = staging(boot, 7);
            assert!(is_staging(name.as_ref()) && !is_draft(name.as_ref()), "{name}");
            let deep = format!("{name}{DEEP}{:016x}", 8);
            assert!(is_staging(deep.as_ref()), "{deep}");
            let deeper = format!("{deep}{DEEP}{:016x}", 9);
            assert!(is_staging(deeper.as_ref()), "{deeper}");
        }
        let name = draft(7);
        assert!(is_draft(name.as_ref()) && !is_staging(name.as_ref()), "{name}");
        for name in [
            "staging-deploy-1732982400000000",
            "staging-1732982400000000",
            "staging--1732982400000000",
            "staging-format-x-1732982400000000",
            "staging-format-173298240000000",
            "staging-format-173298240000000G",
            "staging-format-173298240000000A",
            &staging(&boot.to_uppercase(), 7),
            &staging(&boot[1..], 7),
            &format!("{}0", staging(boot, 7)),
            &format!("{}.deep-1", staging(boot, 7)),
            &format!("x{}", draft(7)),
        ] {
            assert!(!is_staging(name.as_ref()) && !is_draft(name.as_ref()), "{name}");
        }
    }

    #[test]
    fn a_draft_holds_the_beginning_of_a_format_or_nothing() {
        for format in [NATIVE, SINGLE] {
            let text = format.encode();
            for end in 0..=text.len() {
                assert!(Format::can_begin(&text.as_bytes()[..end]), "{:?}", &text[..end]);
            }
            assert!(!Format::can_begin(format!("{text}\n").as_bytes()));
        }
        for text in [
            "notes\n",
            "\n",
            "mk-store 2",
            "mk-store 1\nowners root",
            "mk-store 1\nowners native\nxattrs -\ntimes x",
            "mk-store 1\nowners native\nxattrs -\ntimes  ",
            "mk-store 1\nowners native\nxattrs -\ntimes 0 09",
        ] {
            assert!(!Format::can_begin(text.as_bytes()), "{text:?} was accepted");
        }
    }

    #[test]
    fn an_object_is_named_by_bytes_and_metadata() {
        let bytes = Digest::of(b"");
        let mut meta = Meta {
            uid: 10,
            gid: 20,
            ..Meta::new(0o4755, -5)
        };
        assert_eq!(
            ObjectName::new(&bytes, &meta, &NATIVE).as_str(),
            format!("{bytes}.4755.10.20.-5")
        );
        assert_eq!(
            ObjectName::new(&bytes, &meta, &SINGLE).as_str(),
            format!("{bytes}.4755.-5")
        );
        let plain = ObjectName::new(&bytes, &meta, &NATIVE);
        meta.keep_xattr(b"user.note", b"x");
        let noted = ObjectName::new(&bytes, &meta, &NATIVE);
        assert_ne!(plain, noted);
        for (name, format) in [(&plain, NATIVE), (&noted, NATIVE)] {
            assert_eq!(ObjectName::parse(name.as_str(), &format).as_ref(), Some(name));
            assert_eq!(ObjectName::parse(name.as_str(), &SINGLE), None);
        }
        for text in [
            "644.0.0.1",
            "0644.0.0.1",
            "10000.0.0.1",
            "644.0.0.01",
            "644.0.0",
            "644.0.0.1.x",
            "644.-1.0.1",
        ] {
            let name = format!("{bytes}.{text}");
            let known = ObjectName::parse(&name, &NATIVE).is_some();
            assert_eq!(known, text == "644.0.0.1", "{name}");
        }
    }

    #[test]
    fn attributes_that_the_folder_cannot_hold_do_not_name_objects() {
        let mut meta = Meta::new(0o755, 0);
        let plain = ObjectName::new(&Digest::of(b""), &meta, &NATIVE);
        meta.keep_xattr(b"security.capability", b"not a capability set");
        assert_eq!(NATIVE.held(&meta).count(), 0);
        assert_eq!(ObjectName::new(&Digest::of(b""), &meta, &NATIVE), plain);
        let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        meta.keep_xattr(b"security.capability", &capability);
        assert_eq!(NATIVE.held(&meta).count(), 1);
        let without = Format {
            capabilities: false,
            ..NATIVE
        };
        assert_eq!(ObjectName::new(&Digest::of(b""), &meta, &without), plain);
    }
}
