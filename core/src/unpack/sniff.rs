//! What bytes look like that are no archive of a known kind: for messages only.

use super::header::is_zero;
use crate::path::shown;

/// Magic numbers with what they stand for.
const KINDS: &[(&[u8], &str)] = &[
    (b"\x1f\x8b", "gzip data"),
    (b"\xfd7zXZ\0", "xz data"),
    (b"\x28\xb5\x2f\xfd", "zstd data"),
    (b"PK\x03\x04", "a zip archive"),
    (b"PK\x05\x06", "an empty zip archive"),
    (b"BZh", "bzip2 data"),
    (b"\x04\x22\x4d\x18", "lz4 data"),
    (b"LZIP", "lzip data"),
    (b"\x5d\0\0", "lzma data"),
    (b"\x1f\x9d", "data of compress(1)"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (b"Rar!", "a RAR archive"),
    (b"070701", "a cpio archive"),
    (b"070702", "a cpio archive"),
    (b"070707", "a cpio archive"),
    (b"\xc7\x71", "a cpio archive"),
    (b"\x71\xc7", "a cpio archive"),
    (b"\xed\xab\xee\xdb", "an RPM package"),
    (b"!<arch>\n", "an ar archive"),
    (b"hsqs", "a squashfs image"),
    (b"QFI\xfb", "a qcow2 disk image"),
    (b"\x7fELF", "an ELF program"),
    (
        b"version https://git-lfs",
        "a Git LFS pointer, which only names the file",
    ),
    (b"%PDF", "a PDF document"),
    (b"#!", "a script"),
];

/// Returns what `start`, the first bytes of something, looks like.
pub(super) fn looks_like(start: &[u8]) -> String {
    if start.is_empty() {
        return "nothing: it is empty".into();
    }
    if let Some((_, kind)) = KINDS.iter().find(|(magic, _)| start.starts_with(magic)) {
        return (*kind).into();
    }
    if is_zero(start) {
        return "zeros".into();
    }
    let text = start.trim_ascii_start();
    let opens = |tag: &[u8]| text.len() >= tag.len() && text[..tag.len()].eq_ignore_ascii_case(tag);
    if opens(b"<!doctype html") || opens(b"<html") {
        return "an HTML page".into();
    }
    if opens(b"<?xml") {
        return "an XML document".into();
    }
    let first: Vec<u8> = text
        .iter()
        .copied()
        .take(32)
        .take_while(|&byte| byte != b'\n')
        .collect();
    let readable = |byte: &u8| (b' '..=b'~').contains(byte) || *byte == b'\t';
    if !first.is_empty() && first.iter().all(readable) {
        return format!("text that starts with `{}`", shown(&first).trim_end());
    }
    let bytes: Vec<String> = start.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("bytes that start with {}", bytes.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_hand_over_by_mistake_is_named() {
        for (start, expected) in [
            (&b""[..], "nothing: it is empty"),
            (b"PK\x03\x04\x14\0", "a zip archive"),
            (b"\n<!DOCTYPE HTML><html>", "an HTML page"),
            (b"070701000", "a cpio archive"),
            (b"Not Found\n", "text that starts with `Not Found`"),
            (b"\x01\x02\xff", "bytes that start with 01 02 ff"),
            (&[0; 512], "zeros"),
        ] {
            assert_eq!(looks_like(start), expected);
        }
    }
}
