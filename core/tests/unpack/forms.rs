//! Every form of tar and of Debian packages, as tables.

use std::io::{BufRead, Read};

use mk_core::entry::Kind;
use mk_core::path::TreePath;
use mk_core::unpack::{BadArchive, Limits, Summary, entries};

use crate::make::*;
use crate::{Seen, lines, unpack, unpack_with};

fn content(entry: &Seen) -> &[u8] {
    match &entry.kind {
        Kind::File(bytes) => bytes,
        other => panic!("{} is {other:?} and no file", entry.path),
    }
}

#[test]
fn a_tar_is_told_by_content_in_each_compression() {
    let plain = tar([
        member(b'5', "./"),
        file("./a", b"hi"),
        member(b'2', "b").link("../a"),
    ]);
    let expected = [
        "/ 0644 0:0 1000 folder",
        "/a 0644 0:0 1000 file 2",
        "/b 0644 0:0 1000 symlink ../a",
    ];
    let (head, tail) = plain.split_at(700);
    let skippable = b"\x50\x2a\x4d\x18\x03\0\0\0abc";
    for (form, archive) in [
        ("plain", plain.clone()),
        ("gzip", gzip(&plain)),
        ("xz", xz(&plain)),
        ("zstd", zstd(&plain)),
        ("gzip of two members", [gzip(head), gzip(tail)].concat()),
        (
            "gzip of an empty member",
            [gzip(b""), gzip(&plain), gzip(b"")].concat(),
        ),
        ("gzip with padding", [gzip(&plain), vec![0; 1000]].concat()),
        ("xz of two streams", [xz(head), xz(tail)].concat()),
        ("xz with padding", [xz(&plain), vec![0; 8]].concat()),
        ("zstd of two frames", [zstd(head), zstd(tail)].concat()),
        (
            "zstd behind a frame to skip",
            [&skippable[..], &zstd(&plain)].concat(),
        ),
        ("deb, plain", deb("data.tar", &plain)),
        ("deb, gzip", deb("data.tar.gz", &gzip(&plain))),
        ("deb, xz", deb("data.tar.xz", &xz(&plain))),
        ("deb, zstd", deb("data.tar.zst", &zstd(&plain))),
        ("deb of GNU ar", deb("data.tar.xz/", &xz(&plain))),
        ("deb, misnamed", deb("data.tar.gz", &xz(&plain))),
        (
            "deb, of odd size",
            deb("data.tar.xz", &[xz(&plain), xz(b"")].concat()),
        ),
        (
            "deb with more behind",
            [deb("data.tar.xz", &xz(&plain)), b"\nrest".to_vec()].concat(),
        ),
    ] {
        let seen = unpack(&archive).unwrap_or_else(|error| panic!("{form}: {error}"));
        assert_eq!(lines(&seen), expected, "{form}");
        assert_eq!(content(&seen[1]), b"hi", "{form}");
    }
}

#[test]
fn every_kind_of_member_becomes_its_kind_of_entry() {
    let device = |kind, name| member(kind, name).octal(329..337, 8).octal(337..345, 3);
    for (member, expected) in [
        (file("f", b"123"), "/f 0644 0:0 1000 file 3"),
        (file("f", b"").put(156, &[0]), "/f 0644 0:0 1000 file 0"),
        (file("f", b"12").put(156, b"7"), "/f 0644 0:0 1000 file 2"),
        (file("odd", b"12").put(156, b"Q"), "/odd 0644 0:0 1000 file 2"),
        (file("f", b"1234").v7().put(156, &[0]), "/f 0644 0:0 1000 file 4"),
        (member(b'0', "d/").v7(), "/d 0644 0:0 1000 folder"),
        (member(b'5', "d").claim(4096), "/d 0644 0:0 1000 folder"),
        (
            file("dump", b"Yfile\0\0").gnu().put(156, b"D"),
            "/dump 0644 0:0 1000 folder",
        ),
        (
            member(b'2', "s").link("/../x//"),
            "/s 0644 0:0 1000 symlink /../x//",
        ),
        (member(b'1', "h").link("./a/b"), "/h 0644 0:0 1000 link /a/b"),
        (device(b'3', "c"), "/c 0644 0:0 1000 character 8,3"),
        (device(b'4', "b").gnu(), "/b 0644 0:0 1000 block 8,3"),
        (
            member(b'6', "p").octal(100..108, 0o107777),
            "/p 7777 0:0 1000 fifo",
        ),
        (file("/abs", b""), "/abs 0644 0:0 1000 file 0"),
        (file("//./a//b/.", b""), "/a/b 0644 0:0 1000 file 0"),
        (
            file("ustar", b"").put(345, b"a/long/prefix"),
            "/a/long/prefix/ustar 0644 0:0 1000 file 0",
        ),
        (
            file("old", b"").put(263, b"  ").put(345, b"pre"),
            "/pre/old 0644 0:0 1000 file 0",
        ),
        (
            file("gnu", b"").gnu().put(345, b"no prefix"),
            "/gnu 0644 0:0 1000 file 0",
        ),
        (
            file("blank", b"").put(108, &[b' '; 16]).put(136, &[0; 12]),
            "/blank 0644 0:0 0 file 0",
        ),
        (
            file("big", b"").put(108, b"\x80\0\0\0\xff\xff\xff\xfe\x80\0\0\0\0\x20\0\0"),
            "/big 0644 4294967294:2097152 1000 file 0",
        ),
        (
            file("past", b"").put(136, &[0xff; 12]),
            "/past 0644 0:0 -1 file 0",
        ),
        (
            file("future", b"").put(136, b"\x80\0\0\0\0\0\0\x02\0\0\0\0"),
            "/future 0644 0:0 8589934592 file 0",
        ),
    ] {
        // What follows must be found again.
        let archive = tar([member, file("next", b"n")]);
        let seen = unpack(&archive).unwrap_or_else(|error| panic!("{expected}: {error}"));
        assert_eq!(lines(&seen), [expected, "/next 0644 0:0 1000 file 1"]);
    }
}

#[test]
fn a_name_that_is_not_utf8_stays_as_it_is() {
    let seen = unpack(&tar([member(b'0', "x").put(0, b"caf\xe9")])).unwrap();
    assert_eq!(seen[0].path, TreePath::parse(b"caf\xe9").unwrap());
}

#[test]
fn long_names_come_from_gnu_headers_and_from_pax_which_has_the_last_word() {
    let deep = ["directory"; 40].join("/");
    let name = [deep.as_bytes(), b"\0"].concat();
    let gnu_name = || member(b'L', "././@LongLink").gnu().data(&name);
    let gnu_link = || member(b'K', "././@LongLink").gnu().data(&name);
    let pax_names = || pax(b'x', &[("path", b"by/pax"), ("linkpath", b"to/pax")]);
    let link = || member(b'1', "short").link("target");
    for (members, path, target) in [
        (vec![gnu_name(), link()], &*deep, "target"),
        (vec![gnu_link(), gnu_name(), link().gnu()], &*deep, &*deep),
        (vec![gnu_link(), link().gnu()], "short", &*deep),
        (vec![pax_names(), link()], "by/pax", "to/pax"),
        (
            vec![gnu_name(), pax_names(), gnu_link(), link()],
            "by/pax",
            "to/pax",
        ),
    ] {
        let seen = unpack(&tar(members)).unwrap();
        assert_eq!(lines(&seen), [format!("/{path} 0644 0:0 1000 link /{target}")]);
    }
}

#[test]
fn pax_records_speak_for_one_entry_and_global_ones_for_all() {
    let own = pax(
        b'x',
        &[
            ("uid", b"3000000"),
            ("gid", b"4"),
            ("mtime", b"-1.25"),
            ("SCHILY.xattr.user.note", b"a\nb"),
            ("SCHILY.xattr.security.selinux", b"dropped"),
            ("LIBARCHIVE.xattr.security.capability", b"AAEK"),
            ("comment", b"ignored"),
        ],
    );
    let archive = tar([
        pax(b'g', &[("gid", b"7"), ("comment", b"0123")]),
        own,
        file("a", b"1"),
        file("b", b""),
        pax(b'x', &[("gid", b"")]),
        file("c", b""),
    ]);
    let seen = unpack(&archive).unwrap();
    assert_eq!(
        lines(&seen),
        [
            "/a 0644 3000000:4 -2 file 1",
            "/b 0644 0:7 1000 file 0",
            "/c 0644 0:0 1000 file 0"
        ]
    );
    let xattrs = seen[0].meta.xattrs.as_ref().unwrap();
    assert_eq!(xattrs.len(), 2);
    assert_eq!(&*xattrs[&b"user.note"[..]], b"a\nb");
    assert_eq!(&*xattrs[&b"security.capability"[..]], b"\0\x01\n");
    assert!(seen[1].meta.xattrs.is_none());
}

#[test]
fn pax_overrides_size_and_device_numbers() {
    let size = pax(b'x', &[("size", b"600")]);
    let numbers = pax(b'x', &[("SCHILY.devmajor", b"300000"), ("SCHILY.devminor", b"1")]);
    let archive = tar([
        size,
        file("f", &[1; 600]).claim(0),
        numbers,
        member(b'3', "c"),
        file("z", b""),
    ]);
    let expected = [
        "/f 0644 0:0 1000 file 600",
        "/c 0644 0:0 1000 character 300000,1",
        "/z 0644 0:0 1000 file 0",
    ];
    assert_eq!(lines(&unpack(&archive).unwrap()), expected);
}

#[test]
fn a_hard_link_may_claim_its_targets_size_or_carry_its_data() {
    let link = || member(b'1', "h").link("f");
    let with_data = || link().data(b"same");
    let nothing = || pax(b'x', &[("comment", b"x")]);
    for (form, members) in [
        ("v7, size only", vec![link().v7().claim(4)]),
        ("gnu, size only", vec![link().gnu().claim(4)]),
        ("ustar, size only", vec![link().claim(4)]),
        ("ustar, data", vec![with_data()]),
        ("pax, data", vec![nothing(), with_data()]),
        (
            "pax, data that looks like a header",
            vec![nothing(), link().data(&file("x", b"").bytes())],
        ),
    ] {
        let mut all = vec![file("f", b"same")];
        all.extend(members);
        for last in [true, false] {
            let mut members = all.clone();
            if !last {
                members.push(file("z", b""));
            }
            let seen = unpack(&tar(members)).unwrap_or_else(|error| panic!("{form}: {error}"));
            assert_eq!(seen.len(), if last { 2 } else { 3 }, "{form}");
            assert!(
                matches!(&seen[1].kind, Kind::HardLink(to) if to.as_bytes() == b"f"),
                "{form}"
            );
        }
    }
}

/// A sparse file of 5000 bytes: 512 `a` at 1024, then `tail` at 4096, then a hole.
fn sparse_content() -> Vec<u8> {
    let mut bytes = vec![0; 5000];
    bytes[1024..1536].fill(b'a');
    bytes[4096..4100].copy_from_slice(b"tail");
    bytes
}

#[test]
fn sparse_files_are_whole_in_every_format() {
    let stored = [&[b'a'; 512][..], b"tail"].concat();
    let octal = |value: u64| format!("{value:011o}\0");
    let map: String = [(1024, 512), (4096, 4), (5000, 0)]
        .iter()
        .map(|&(offset, length)| octal(offset) + &octal(length))
        .collect();
    let gnu = |at: usize| {
        file("s", &stored)
            .gnu()
            .put(156, b"S")
            .put(483, octal(5000).as_bytes())
            .put(at, map.as_bytes())
    };
    // The same with its map in a block of its own.
    let mut extended = gnu(386).put(386, &[0; 96]).put(482, &[1]);
    let mut block = map.clone().into_bytes();
    block.resize(512, 0);
    extended.data = [block, stored.clone()].concat();

    let size = ("GNU.sparse.size", &b"5000"[..]);
    let count = ("GNU.sparse.numblocks", &b"2"[..]);
    let first = [
        ("GNU.sparse.offset", &b"1024"[..]),
        ("GNU.sparse.numbytes", b"512"),
    ];
    let second = [("GNU.sparse.offset", &b"4096"[..]), ("GNU.sparse.numbytes", b"4")];
    let name = ("GNU.sparse.name", &b"s"[..]);
    let mut in_data = b"2\n1024\n512\n4096\n4\n".to_vec();
    in_data.resize(512, 0);
    in_data.extend(&stored);
    let v1 = [
        ("GNU.sparse.major", &b"1"[..]),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.realsize", b"5000"),
        name,
    ];
    for (form, members) in [
        ("gnu", vec![gnu(386)]),
        ("gnu, extended", vec![extended]),
        (
            "pax 0.0",
            vec![
                pax(b'x', &[size, count, first[0], first[1], second[0], second[1]]),
                file("s", &stored),
            ],
        ),
        (
            "pax 0.1",
            vec![
                pax(b'x', &[size, count, ("GNU.sparse.map", b"1024,512,4096,4"), name]),
                file("GNUSparseFile.7/s", &stored),
            ],
        ),
        (
            "pax 1.0",
            vec![pax(b'x', &v1), file("GNUSparseFile.7/s", &in_data)],
        ),
    ] {
        let mut members = members;
        members.push(file("next", b""));
        let (seen, summary) =
            unpack_with(&tar(members), &Limits::default()).unwrap_or_else(|error| panic!("{form}: {error}"));
        assert_eq!(seen.len(), 2, "{form}");
        assert_eq!(seen[0].path.as_bytes(), b"s", "{form}");
        assert!(content(&seen[0]) == sparse_content(), "{form}");
        assert_eq!(summary.bytes, 5000, "{form}");
    }
}

#[test]
fn a_file_that_is_one_hole_is_zeros() {
    let records = [
        ("GNU.sparse.size", &b"100000"[..]),
        ("GNU.sparse.numblocks", b"0"),
    ];
    let seen = unpack(&tar([pax(b'x', &records), file("s", b"")])).unwrap();
    assert!(content(&seen[0]) == vec![0; 100_000]);
}

#[test]
fn labels_and_access_lists_are_passed_over() {
    let archive = tar([
        member(b'V', "a label").gnu(),
        file("acl", b"user::rw-").put(156, b"A"),
        file("f", b""),
    ]);
    assert_eq!(lines(&unpack(&archive).unwrap()), ["/f 0644 0:0 1000 file 0"]);
}

#[test]
fn an_end_marker_may_be_missing_short_or_followed_by_anything() {
    let body = file("f", b"x").bytes();
    for (form, end) in [
        ("missing", vec![]),
        ("one block", vec![0; 512]),
        ("padded to a record", vec![0; 10240]),
        (
            "followed by another archive",
            [vec![0; 1024], file("g", b"").bytes()].concat(),
        ),
    ] {
        let archive = [body.clone(), end].concat();
        assert_eq!(
            lines(&unpack(&archive).unwrap()),
            ["/f 0644 0:0 1000 file 1"],
            "{form}"
        );
    }
    for archive in [vec![0; 1024], vec![0; 512], tar([]), gzip(&[0; 10240])] {
        assert!(unpack(&archive).unwrap().is_empty());
    }
}

#[test]
fn a_summary_adds_up() {
    let archive = tar([
        file("a", b"123").octal(136..148, 50),
        file("b", b"45").octal(136..148, 70),
        member(b'5', "c").octal(136..148, 60),
    ]);
    let (_, summary) = unpack_with(&archive, &Limits::default()).unwrap();
    let expected = Summary {
        entries: 3,
        bytes: 5,
        newest: Some(70),
    };
    assert_eq!(summary, expected);
}

#[test]
fn bodies_may_be_left_unread_or_read_in_part_or_lent() {
    let large = |byte: u8| vec![byte; 3 << 20];
    let archive = gzip(&tar([
        file("a", &large(1)),
        file("b", &large(2)),
        file("c", &large(3)),
    ]));
    let mut seen = Vec::new();
    entries::<BadArchive>("x", &archive[..], &Limits::default(), &mut |entry| {
        let Kind::File(mut body) = entry.kind else {
            panic!("a file")
        };
        match entry.path.as_bytes() {
            b"a" => {}
            b"b" => {
                let mut part = [0; 700];
                body.read_exact(&mut part).unwrap();
                seen.push((part[0], body.size()));
            }
            _ => {
                let mut total = 0;
                while let count @ 1.. = body.fill_buf().unwrap().len() {
                    total += count as u64;
                    body.consume(count);
                }
                seen.push((3, total));
            }
        }
        Ok(())
    })
    .unwrap();
    assert_eq!(seen, [(2, 3 << 20), (3, 3 << 20)]);
}
