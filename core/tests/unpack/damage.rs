//! Damage, bombs and visits that fail: errors, never a panic and never a hang.

use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};

use mk_core::entry::Kind;
use mk_core::unpack::{BadArchive, Compression, Limits, entries};
use proptest::prelude::*;

use crate::make::*;
use crate::{unpack, unpack_with};

/// A small archive with a bit of everything.
fn sample() -> Vec<u8> {
    let map = [
        ("GNU.sparse.size", &b"4000"[..]),
        ("GNU.sparse.map", b"1024,3"),
        ("mtime", b"7.5"),
    ];
    tar([
        pax(b'g', &[("comment", b"all")]),
        member(b'5', "d"),
        member(b'L', "long").gnu().data(b"d/a-long-name\0"),
        file("f", b"some content\n"),
        pax(b'x', &[("path", b"d/pax"), ("SCHILY.xattr.user.x", b"y\n")]),
        file("f", &[7; 600]),
        pax(b'x', &map),
        file("s", b"abc"),
        member(b'2', "l").link("d"),
        member(b'1', "h").link("d/pax"),
        member(b'3', "c").octal(329..337, 5),
    ])
}

fn forms() -> [(&'static str, Vec<u8>); 6] {
    let plain = sample();
    [
        ("gzip", gzip(&plain)),
        ("xz", xz(&plain)),
        ("zstd", zstd(&plain)),
        ("deb with xz", deb("data.tar.xz", &xz(&plain))),
        ("deb, plain", deb("data.tar", &plain)),
        ("plain", plain),
    ]
}

#[test]
fn a_cut_is_an_error_wherever_it_is() {
    for (form, archive) in forms() {
        // Without compression most offsets are alike.
        let plain = form.contains("plain");
        let worth = |cut: &usize| !plain || cut % 512 < 2 || cut.is_multiple_of(13);
        for cut in (0..archive.len()).filter(worth) {
            let result = unpack(&archive[..cut]);
            // A plain tar may end where an entry does, and inside its end marker.
            let marked = cut + 512 >= archive.len();
            let whole = form == "plain" && cut > 0 && (marked || cut % 512 == 0);
            assert!(result.is_err() || whole, "{form} cut at {cut} was accepted");
            if let Err(error) = result {
                assert!(
                    error.to_string().contains("test.tar"),
                    "{form} cut at {cut}: {error}"
                );
            }
        }
    }
}

#[test]
fn a_cut_inside_an_entry_says_where() {
    let archive = tar([file("a", &[1; 5000])]);
    let error = unpack(&archive[..3000]).unwrap_err();
    assert!(
        matches!(error, BadArchive::Truncated { offset: 3000, .. }),
        "{error:?}"
    );
    let error = unpack(&tar([file("a", b"")])[..512 + 100]).unwrap_err();
    assert!(
        matches!(error, BadArchive::Truncated { offset: 612, .. }),
        "{error:?}"
    );
    let packed = gzip(&archive);
    let error = unpack(&packed[..packed.len() - 3]).unwrap_err();
    let BadArchive::Damaged {
        compression,
        packed: at,
        ..
    } = error
    else {
        panic!("{error:?}")
    };
    assert_eq!((compression, at), (Compression::Gzip, packed.len() as u64 - 3));
}

#[test]
fn checksums_at_the_very_end_are_looked_at() {
    let mut packed = gzip(&[tar([file("a", b"x")]), vec![0; 4096]].concat());
    let sum = packed.len() - 8;
    packed[sum] ^= 1;
    assert!(matches!(unpack(&packed), Err(BadArchive::Damaged { .. })));
}

#[test]
fn garbage_behind_compressed_data_is_an_error() {
    let plain = sample();
    for (form, mut packed) in [("gzip", gzip(&plain)), ("xz", xz(&plain)), ("zstd", zstd(&plain))] {
        packed.extend(b"garbage");
        let error = unpack(&packed).expect_err(form);
        assert!(matches!(error, BadArchive::Damaged { .. }), "{form}: {error:?}");
    }
    let hidden = [gzip(&plain), vec![0; 9], gzip(&plain)].concat();
    assert!(unpack(&hidden).is_err());
}

#[test]
fn what_is_no_archive_is_named() {
    let page = [b"<!DOCTYPE html>".to_vec(), vec![b' '; 1000]].concat();
    for (bytes, expected) in [
        (vec![], "found nothing: it is empty"),
        (page, "found an HTML page"),
        (b"PK\x03\x04".repeat(200), "found a zip archive"),
        (b"BZh91AY&SY".to_vec(), "found bzip2 data"),
        (gzip(&gzip(&sample())), "found gzip data (inside gzip)"),
        (zstd(b""), "found nothing: it is empty (inside zstd)"),
        (deb("data.tar.bz2", b"BZh91AY&SY"), "found bzip2 data"),
        (
            ar(&[("x.o", b"1")]),
            "found an ar archive that does not start with `debian-binary`",
        ),
        (
            [vec![0; 512], vec![1; 512]].concat(),
            "found zeros and then something else",
        ),
    ] {
        let error = unpack(&bytes).unwrap_err();
        assert!(matches!(error, BadArchive::Unknown { .. }), "{error:?}");
        assert!(error.to_string().ends_with(expected), "{error}");
    }
}

#[test]
fn a_package_that_is_not_as_it_should_be_is_refused() {
    let data = xz(&sample());
    let binary = ("debian-binary", &b"2.0\n"[..]);
    for (members, expected) in [
        (vec![binary], "it ends before `data.tar`"),
        (
            vec![("debian-binary", &b"3.0\n"[..])],
            "expected format version 2.0, found `3.0`",
        ),
        (vec![binary; 80], "there is no `data.tar` among its first members"),
    ] {
        let error = unpack(&ar(&members)).unwrap_err();
        assert!(error.to_string().ends_with(expected), "{error}");
    }
    let package = deb("data.tar.xz", &data);
    let header = package.len() - data.len() - data.len() % 2 - 60;
    for (at, bytes) in [
        (header + 48, &b"12x4"[..]),
        (header + 48, b"-1  "),
        (header + 58, b"xx"),
    ] {
        let mut broken = package.clone();
        broken[at..at + bytes.len()].copy_from_slice(bytes);
        assert!(matches!(unpack(&broken), Err(BadArchive::Package { .. })));
    }
}

#[test]
fn a_bad_entry_is_named_with_its_place() {
    let long = "x/".repeat(127);
    for (member, expected) in [
        (file("../x", b""), "`.` and `..` are not allowed in it"),
        (file("/a/../../x", b""), "`.` and `..` are not allowed in it"),
        (file("a/..", b""), "`.` and `..` are not allowed in it"),
        (file("", b""), "it has no name"),
        (
            file("/", b"").v7().put(156, b"7"),
            "the root of an archive can only be a folder",
        ),
        (file("./.", b""), "the root of an archive can only be a folder"),
        (member(b'2', "s"), "a symbolic link without a target"),
        (member(b'1', "h"), "a hard link to nothing or to the root"),
        (
            member(b'1', "h").link("./"),
            "a hard link to nothing or to the root",
        ),
        (
            member(b'1', "h").link("../../etc/passwd"),
            "`.` and `..` are not allowed in it",
        ),
        (
            file("u", b"").put(108, &[0xff; 8]),
            "its owner is -1: expected 0 to 4294967294",
        ),
        (
            file("u", b"").put(116, b"\x80\0\0\0\xff\xff\xff\xff"),
            "its group is 4294967295: expected 0 to 4294967294",
        ),
        (member(b'3', "c").put(329, &[0xff; 8]), "its major number is -1"),
        (
            file("m", b"").put(156, b"M"),
            "only whole archives can be unpacked",
        ),
        (
            file("s", b"").put(156, b"S"),
            "a sparse file outside of a GNU archive",
        ),
    ] {
        let archive = tar([file("ok", &long.as_bytes()[..200]), member]);
        let error = unpack(&archive).expect_err(expected);
        assert!(
            matches!(error, BadArchive::Entry { offset: 1024, .. }),
            "{error:?}"
        );
        assert!(error.to_string().ends_with(expected), "{error}");
    }
}

#[test]
fn a_pax_path_is_checked_like_any_other() {
    for path in [&b"a/../../b"[..], b"a\0b", b".."] {
        let archive = tar([pax(b'x', &[("path", path)]), file("ok", b"")]);
        assert!(
            matches!(unpack(&archive), Err(BadArchive::Entry { .. })),
            "{path:?}"
        );
    }
    let archive = tar([pax(b'x', &[("linkpath", b"a\0b")]), member(b'2', "ok")]);
    assert!(matches!(unpack(&archive), Err(BadArchive::Entry { .. })));
}

#[test]
fn headers_that_make_no_sense_are_refused() {
    let note = || pax(b'x', &[("comment", b"x")]);
    let mut wrong_sum = tar([file("a", b""), file("b", b"")]);
    wrong_sum[512] ^= 1;
    let mut first_wrong = tar([file("a", b"")]);
    first_wrong[0] ^= 1;
    for (form, archive, at) in [
        ("a wrong checksum", wrong_sum, 512),
        ("a wrong checksum at the start", first_wrong, 0),
        ("a pax header at the end", tar([file("a", b""), note()]), 1536),
        ("two pax headers", tar([note(), note(), file("a", b"")]), 1024),
        (
            "a size that is no number",
            tar([file("a", b"").put(124, b"x")]),
            0,
        ),
        ("a negative size", tar([file("a", b"").put(124, &[0xff; 12])]), 0),
        (
            "a time beyond 64 bits",
            tar([file("a", b"").put(136, b"\x80\x01")]),
            0,
        ),
        (
            "a broken record",
            tar([member(b'x', "p").data(b"9 a=b\n"), file("a", b"")]),
            1024,
        ),
    ] {
        match unpack(&archive) {
            Err(BadArchive::Malformed { offset, .. }) => assert_eq!(offset, at, "{form}"),
            other => panic!("{form}: {other:?}"),
        }
    }
}

#[test]
fn maps_of_sparse_files_that_make_no_sense_are_refused() {
    let size = |text: &'static [u8]| ("GNU.sparse.size", text);
    let map = |text: &'static [u8]| ("GNU.sparse.map", text);
    let v1 = [
        ("GNU.sparse.major", &b"1"[..]),
        ("GNU.sparse.minor", b"0"),
        size(b"1000"),
    ];
    let in_data = |text: &str| vec![pax(b'x', &v1), file("s", text.as_bytes())];
    let one = |records: &[(&str, &[u8])]| vec![pax(b'x', records), file("s", b"abc")];
    for (form, members) in [
        ("overlap", one(&[size(b"9000"), map(b"0,512,100,3")])),
        ("out of order", one(&[size(b"9000"), map(b"4096,512,0,3")])),
        ("beyond the file", one(&[size(b"100"), map(b"99,3")])),
        ("overflow", one(&[size(b"100"), map(b"18446744073709551615,3")])),
        ("more than is stored", one(&[size(b"100"), map(b"0,4")])),
        ("less than is stored", one(&[size(b"100"), map(b"0,2")])),
        ("unaligned", one(&[size(b"100"), map(b"0,1,50,2")])),
        ("no size", one(&[map(b"0,3")])),
        (
            "wrong count",
            one(&[size(b"9"), ("GNU.sparse.numblocks", b"2"), map(b"0,3")]),
        ),
        (
            "half a pair",
            one(&[
                size(b"9"),
                ("GNU.sparse.offset", b"0"),
                ("GNU.sparse.numblocks", b"0"),
            ]),
        ),
        ("version 2", one(&[("GNU.sparse.major", b"2"), size(b"9")])),
        ("a map longer than its data", in_data("5\n1\n")),
        ("an empty map", in_data("")),
        (
            "a map of text",
            in_data(&("many\n".to_owned() + &" ".repeat(507))),
        ),
        ("a map of one endless number", in_data(&"1".repeat(512))),
    ] {
        let error = unpack(&tar(members)).expect_err(form);
        let refused = matches!(error, BadArchive::Entry { .. } | BadArchive::Malformed { .. });
        assert!(refused, "{form}: {error:?}");
    }
}

#[test]
fn bombs_meet_a_limit() {
    let limits = Limits {
        entries: 3,
        bytes: 100_000,
        header: 1000,
        stretches: 2,
        depth: 4,
        ..Limits::default()
    };
    let hole = [
        ("GNU.sparse.size", &b"100000000"[..]),
        ("GNU.sparse.numblocks", b"0"),
    ];
    let pieces = [("GNU.sparse.major", &b"1"[..]), ("GNU.sparse.size", b"9")];
    let many = "9999999999\n".to_owned() + &"0\n".repeat(300);
    let claim = pax(b'x', &[("size", b"18446744073709551615")]);
    for (form, archive) in [
        ("entries", tar(vec![file("a", b""); 4])),
        ("content", tar([file("a", &[0; 90_000]), file("b", &[0; 20_000])])),
        ("a claim of content", tar([file("a", b"").claim(0o77777777777)])),
        ("a claim beyond 64 bits", tar([claim, file("a", b"")])),
        ("zeros behind the end", gzip(&vec![0; 1 << 20])),
        ("a hole", tar([pax(b'x', &hole), file("a", b"")])),
        ("stretches", tar([pax(b'x', &pieces), file("a", many.as_bytes())])),
        (
            "a pax header",
            tar([member(b'x', "p").data(&[b'1'; 1001]), file("a", b"")]),
        ),
        (
            "a claim of a long name",
            tar([member(b'L', "p").claim(0o77777777777), file("a", b"")]),
        ),
        ("depth", tar([file("a/b/c/d/e", b"")])),
    ] {
        let error = unpack_with(&archive, &limits).expect_err(form);
        let refused = matches!(error, BadArchive::Limit { .. })
            || form == "a claim beyond 64 bits" && matches!(error, BadArchive::Entry { .. });
        assert!(refused, "{form}: {error:?}");
    }
    assert!(unpack_with(&tar(vec![file("a/b/c/d", &[0; 9000]); 3]), &limits).is_ok());
}

#[test]
fn a_decompressor_that_wants_too_much_memory_is_refused() {
    let limits = Limits {
        memory: 1 << 20,
        ..Limits::default()
    };
    // More than zstd takes in one go: it would then need no window.
    let large = vec![0; 3 << 20];
    let error = unpack_with(&liblzma::encode_all(&large[..], 6).unwrap(), &limits).unwrap_err();
    assert!(
        matches!(
            error,
            BadArchive::Damaged {
                compression: Compression::Xz,
                ..
            }
        ),
        "{error:?}"
    );
    let error = unpack_with(&zstd::encode_all(&large[..], 19).unwrap(), &limits).unwrap_err();
    assert!(
        matches!(
            error,
            BadArchive::Damaged {
                compression: Compression::Zstd,
                ..
            }
        ),
        "{error:?}"
    );
}

/// A reader that says when it is gone.
struct Watched<'a, R>(R, &'a AtomicBool);

impl<R: Read> Read for Watched<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.read(into)
    }
}

impl<R> Drop for Watched<'_, R> {
    fn drop(&mut self) {
        self.1.store(true, Ordering::SeqCst);
    }
}

#[derive(Debug)]
enum Stopped {
    Bad(BadArchive),
    Enough,
}

impl From<BadArchive> for Stopped {
    fn from(bad: BadArchive) -> Self {
        Self::Bad(bad)
    }
}

#[test]
fn a_visit_that_fails_ends_the_thread_that_is_ahead() {
    let body = tar([file("a", b"1")]);
    let endless = body.chain(io::repeat(0));
    let gone = AtomicBool::new(false);
    let result = entries("x", Watched(endless, &gone), &Limits::default(), &mut |_| {
        Err(Stopped::Enough)
    });
    assert!(matches!(result, Err(Stopped::Enough)), "{result:?}");
    assert!(gone.load(Ordering::SeqCst));
}

#[test]
fn a_visit_that_panics_does_not_hang() {
    let result = std::panic::catch_unwind(|| {
        let endless = tar([file("a", b"1")]);
        let endless = endless.chain(io::repeat(0));
        entries::<BadArchive>("x", endless, &Limits::default(), &mut |_| {
            panic!("a bug of the visitor")
        })
    });
    assert!(result.is_err());
}

#[test]
fn a_bad_archive_wins_over_the_visits_own_error() {
    let archive = tar([file("a", &[1; 2 << 20])]);
    let cut = &archive[..1 << 20];
    for give_up in [true, false] {
        let result = entries("x", cut, &Limits::default(), &mut |entry| {
            let Kind::File(mut body) = entry.kind else {
                panic!("a file")
            };
            let copied = io::copy(&mut body, &mut io::sink());
            assert!(copied.is_err());
            // Once it has failed, a body does not seem to end well.
            if give_up { Err(Stopped::Enough) } else { Ok(()) }
        });
        let found = matches!(
            result,
            Err(Stopped::Bad(BadArchive::Truncated {
                offset: 0x10_0000,
                ..
            }))
        );
        assert!(found, "{result:?}");
    }
}

#[test]
fn a_failing_disk_is_not_called_a_bad_archive() {
    struct Failing;
    impl Read for Failing {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::from(io::ErrorKind::ConnectionReset))
        }
    }
    for (form, archive) in forms() {
        for cut in [0, 3, 100, archive.len() - 70] {
            let result = entries::<BadArchive>(
                "x",
                archive[..cut].chain(Failing),
                &Limits::default(),
                &mut |_| Ok(()),
            );
            assert!(
                matches!(result, Err(BadArchive::Read { .. })),
                "{form} at {cut}: {result:?}"
            );
        }
    }
}

proptest! {
    #[test]
    fn flipped_bits_never_panic(form in 0usize..6, flips in prop::collection::vec((any::<prop::sample::Index>(), 0u8..8), 1..4)) {
        let (_, mut archive) = forms().into_iter().nth(form).unwrap();
        for (at, bit) in flips {
            let at = at.index(archive.len());
            archive[at] ^= 1 << bit;
        }
        let limits = Limits { bytes: 10 << 20, ..Limits::default() };
        let _ = unpack_with(&archive, &limits);
    }

    #[test]
    fn headers_with_valid_checksums_never_panic(kinds in prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u8>(), 0..700), any::<prop::sample::Index>(), any::<[u8; 8]>()), 1..5)) {
        const KINDS: &[u8] = b"01234567xgLKSDVM\0";
        let limits = Limits { bytes: 10 << 20, ..Limits::default() };
        let members = kinds.into_iter().map(|(kind, data, at, noise)| {
            member(KINDS[usize::from(kind) % KINDS.len()], "name").data(&data).put(at.index(500), &noise)
        });
        let _ = unpack_with(&tar(members), &limits);
    }
}
