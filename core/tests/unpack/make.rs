//! Headers and members of archives, byte by byte: what a well-behaved writer would refuse to write, too.

use std::io::Write;

/// A member of a tar.
#[derive(Clone)]
pub(crate) struct Member {
    pub(crate) header: [u8; 512],
    pub(crate) data: Vec<u8>,
}

/// Returns an ustar member of `kind`: 0644, 0:0, time 1000, no data.
pub(crate) fn member(kind: u8, name: &str) -> Member {
    let mut header = [0; 512];
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[156] = kind;
    header[257..265].copy_from_slice(b"ustar\x0000");
    let member = Member {
        header,
        data: Vec::new(),
    };
    member
        .octal(100..108, 0o644)
        .octal(108..116, 0)
        .octal(116..124, 0)
        .octal(124..136, 0)
        .octal(136..148, 1000)
}

impl Member {
    /// Writes `bytes` into the header at `at`.
    pub(crate) fn put(mut self, at: usize, bytes: &[u8]) -> Self {
        self.header[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    pub(crate) fn octal(self, field: std::ops::Range<usize>, value: u64) -> Self {
        let text = format!("{value:0width$o}\0", width = field.len() - 1);
        self.put(field.start, text.as_bytes())
    }

    pub(crate) fn link(self, target: &str) -> Self {
        self.put(157, target.as_bytes())
    }

    /// Says that it is `size` bytes long, whatever it holds.
    pub(crate) fn claim(self, size: u64) -> Self {
        self.octal(124..136, size)
    }

    pub(crate) fn data(mut self, data: &[u8]) -> Self {
        self.data = data.to_vec();
        self.claim(data.len() as u64)
    }

    /// v7: no magic.
    pub(crate) fn v7(self) -> Self {
        self.put(257, &[0; 255])
    }

    /// GNU's magic.
    pub(crate) fn gnu(self) -> Self {
        self.put(257, b"ustar  \0")
    }

    /// Returns header, data and padding.
    pub(crate) fn bytes(mut self) -> Vec<u8> {
        self.header[148..156].copy_from_slice(b"        ");
        let sum: u32 = self.header.iter().map(|&byte| u32::from(byte)).sum();
        self.header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        let mut bytes = self.header.to_vec();
        bytes.extend(&self.data);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        bytes
    }
}

/// Returns a file.
pub(crate) fn file(name: &str, data: &[u8]) -> Member {
    member(b'0', name).data(data)
}

/// Returns a pax header (of kind `x` or `g`) with `records`.
pub(crate) fn pax(kind: u8, records: &[(&str, &[u8])]) -> Member {
    let mut text = Vec::new();
    for (key, value) in records {
        let rest = key.len() + value.len() + 3;
        let mut length = rest + 1;
        while length != rest + length.to_string().len() {
            length = rest + length.to_string().len();
        }
        text.extend([format!("{length} {key}=").as_bytes(), value, b"\n"].concat());
    }
    member(kind, "PaxHeaders/x").data(&text)
}

/// Returns a tar of `members` with its end marker.
pub(crate) fn tar(members: impl IntoIterator<Item = Member>) -> Vec<u8> {
    let mut bytes: Vec<u8> = members.into_iter().flat_map(Member::bytes).collect();
    bytes.extend([0; 1024]);
    bytes
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    writer.write_all(bytes).unwrap();
    writer.finish().unwrap()
}

pub(crate) fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut writer = liblzma::write::XzEncoder::new(Vec::new(), 1);
    writer.write_all(bytes).unwrap();
    writer.finish().unwrap()
}

pub(crate) fn zstd(bytes: &[u8]) -> Vec<u8> {
    let mut writer = zstd::Encoder::new(Vec::new(), 1).unwrap();
    writer.include_checksum(true).unwrap();
    writer.write_all(bytes).unwrap();
    writer.finish().unwrap()
}

/// Returns an ar archive of members with these names and contents.
pub(crate) fn ar(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut bytes = b"!<arch>\n".to_vec();
    for (name, content) in members {
        let header = format!(
            "{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n",
            0,
            0,
            0,
            "100644",
            content.len()
        );
        bytes.extend(header.as_bytes());
        bytes.extend(*content);
        if content.len() % 2 == 1 {
            bytes.push(b'\n');
        }
    }
    bytes
}

/// Returns a Debian package around `data`, whose member is called `name`.
pub(crate) fn deb(name: &str, data: &[u8]) -> Vec<u8> {
    let control = gzip(&tar([file("./control", b"Package: x\n")]));
    ar(&[
        ("debian-binary", b"2.0\n"),
        ("control.tar.gz", &control),
        (name, data),
    ])
}
