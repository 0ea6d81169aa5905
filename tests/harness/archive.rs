//! Tiny archives made in code: tar with any header that one can think of, and Debian packages around them.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use tar::{EntryType, Header};

/// A tar archive under construction. What is not said of an entry is: owner 0:0, time [`TIME`].
#[derive(Debug, Default)]
pub(crate) struct Tar {
    bytes: Vec<u8>,
}

/// The time of entries, unless they say otherwise: 2001-09-09T01:46:40Z.
pub(crate) const TIME: u64 = 1_000_000_000;

/// One header, changed field by field.
#[derive(Debug, Clone)]
pub(crate) struct Item<'a> {
    /// Written as it is, however hostile; 100 bytes at the most.
    pub(crate) path: &'a [u8],
    pub(crate) kind: EntryType,
    pub(crate) target: &'a [u8],
    pub(crate) mode: u32,
    pub(crate) owner: (u64, u64),
    pub(crate) mtime: u64,
    pub(crate) device: (u32, u32),
    pub(crate) data: &'a [u8],
    /// What the header says the size is, where that is not the truth.
    pub(crate) claimed: Option<u64>,
}

impl<'a> Item<'a> {
    /// Returns an empty entry of this kind.
    pub(crate) fn new(kind: EntryType, path: &'a str) -> Self {
        Self {
            path: path.as_bytes(),
            kind,
            target: b"",
            mode: if kind == EntryType::Directory {
                0o755
            } else {
                0o644
            },
            owner: (0, 0),
            mtime: TIME,
            device: (0, 0),
            data: b"",
            claimed: None,
        }
    }

    /// Returns a regular file.
    pub(crate) fn file(path: &'a str, data: &'a [u8]) -> Self {
        Self {
            data,
            ..Self::new(EntryType::Regular, path)
        }
    }

    /// Returns a folder.
    pub(crate) fn folder(path: &'a str) -> Self {
        Self::new(EntryType::Directory, path)
    }

    /// Returns a symbolic link.
    pub(crate) fn symlink(path: &'a str, target: &'a str) -> Self {
        Self {
            target: target.as_bytes(),
            mode: 0o777,
            ..Self::new(EntryType::Symlink, path)
        }
    }

    /// Returns a hard link.
    pub(crate) fn hard_link(path: &'a str, target: &'a str) -> Self {
        Self {
            target: target.as_bytes(),
            ..Self::new(EntryType::Link, path)
        }
    }

    /// Changes the mode.
    pub(crate) fn mode(self, mode: u32) -> Self {
        Self { mode, ..self }
    }

    /// Changes the owner.
    pub(crate) fn owner(self, uid: u64, gid: u64) -> Self {
        Self {
            owner: (uid, gid),
            ..self
        }
    }

    /// Changes the time.
    pub(crate) fn mtime(self, mtime: u64) -> Self {
        Self { mtime, ..self }
    }
}

impl Tar {
    /// Returns an archive of these entries, without its end.
    pub(crate) fn of<'a>(items: impl IntoIterator<Item = Item<'a>>) -> Self {
        items.into_iter().fold(Self::default(), Self::with)
    }

    /// Adds an entry.
    pub(crate) fn with(mut self, item: Item<'_>) -> Self {
        let mut header = Header::new_ustar();
        put(&mut header.as_ustar_mut().unwrap().name, item.path);
        put(&mut header.as_ustar_mut().unwrap().linkname, item.target);
        header.set_entry_type(item.kind);
        header.set_mode(item.mode);
        header.set_uid(item.owner.0);
        header.set_gid(item.owner.1);
        header.set_mtime(item.mtime);
        header.set_size(item.claimed.unwrap_or(item.data.len() as u64));
        if matches!(item.kind, EntryType::Char | EntryType::Block) {
            header.set_device_major(item.device.0).unwrap();
            header.set_device_minor(item.device.1).unwrap();
        }
        header.set_cksum();
        self.bytes.extend_from_slice(header.as_bytes());
        self.bytes.extend_from_slice(item.data);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        self
    }

    /// Adds a pax extended header for the entry that follows.
    pub(crate) fn pax(self, fields: &[(&str, &[u8])]) -> Self {
        let data: Vec<u8> = fields
            .iter()
            .flat_map(|(name, value)| record(name, value))
            .collect();
        let item = Item {
            data: &data,
            ..Item::new(EntryType::XHeader, "pax")
        };
        self.with(item)
    }

    /// Returns the bytes with the two empty blocks that end an archive.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.bytes.extend([0; 1024]);
        self.bytes
    }

    /// Returns the bytes without an end.
    pub(crate) fn unfinished(self) -> Vec<u8> {
        self.bytes
    }
}

/// Returns one record of a pax header: `LENGTH NAME=VALUE\n`, where the length counts its own digits (pax(1)).
fn record(name: &str, value: &[u8]) -> Vec<u8> {
    let rest = 3 + name.len() + value.len();
    let length = (1..)
        .map(|digits| rest + digits)
        .find(|length| rest + length.to_string().len() == *length);
    [format!("{} {name}=", length.unwrap()).as_bytes(), value, b"\n"].concat()
}

fn put(field: &mut [u8], value: &[u8]) {
    assert!(
        value.len() <= field.len(),
        "too long for a header: use `Tar::pax`"
    );
    field[..value.len()].copy_from_slice(value);
}

/// Returns `bytes` compressed with gzip.
pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Returns a Debian package (deb(5)) whose files are `data`, a tar archive.
pub(crate) fn deb(name: &str, version: &str, data: &[u8]) -> Vec<u8> {
    let control = format!(
        "Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: nobody <nobody@example.org>\nDescription: a test\n"
    );
    let control = Tar::of([Item::file("./control", control.as_bytes())]).finish();
    let mut package = b"!<arch>\n".to_vec();
    for (member, bytes) in [
        ("debian-binary", b"2.0\n".to_vec()),
        ("control.tar.gz", gzip(&control)),
        ("data.tar.gz", gzip(data)),
    ] {
        let size = bytes.len();
        writeln!(
            package,
            "{member:<16}{TIME:<12}{:<6}{:<6}{:<8}{size:<10}`",
            0, 0, 100_644
        )
        .unwrap();
        package.extend(&bytes);
        package.resize(package.len().next_multiple_of(2), b'\n');
    }
    package
}
