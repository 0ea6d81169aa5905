//! Logs: byte-exact, bounded, read whole while they are written.

use std::collections::BTreeMap;

use super::Folder;
use super::follow::Lines;
use super::log::{LEAST, LONGEST, Reader, Record, Stream, Writer, numbers};
use super::time::Time;
use crate::sys::SysError;
use crate::sys::dir::Dir;

fn folder() -> (tempfile::TempDir, Folder) {
    let temp = tempfile::tempdir().unwrap();
    let dir = Dir::open(temp.path()).unwrap();
    (temp, Folder { dir })
}

/// Reads what there is, each stream as the bytes that were printed, and how many lines began.
fn read(reader: &mut Reader) -> (Vec<u8>, Vec<u8>, usize) {
    let mut streams = BTreeMap::from([("stdout", Vec::new()), ("stderr", Vec::new())]);
    let (mut lines, mut begun) = (Lines::default(), 0);
    reader
        .read(|_, record| -> Result<(), SysError> {
            begun += usize::from(lines.take(&record));
            let into = match record.stream {
                Stream::Stdout => streams.get_mut("stdout").unwrap(),
                Stream::Stderr => streams.get_mut("stderr").unwrap(),
            };
            into.extend_from_slice(record.bytes);
            into.extend_from_slice(if record.ends_line { b"\n" } else { b"" });
            Ok(())
        })
        .unwrap();
    (streams["stdout"].clone(), streams["stderr"].clone(), begun)
}

/// Bytes that look like nothing, the same each time.
fn noise(length: usize, mut seed: u64) -> Vec<u8> {
    std::iter::repeat_with(|| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (seed >> 56) as u8
    })
    .take(length)
    .collect()
}

#[test]
fn records_are_those_of_kubernetes() {
    let (temp, folder) = folder();
    let mut writer = Writer::create(&folder, LEAST).unwrap();
    writer.write(Stream::Stdout, b"one\ntwo", Time::of(0, 5));
    writer.write(Stream::Stderr, b"\n", Time::of(1, 0));
    assert_eq!(
        fs_err::read_to_string(temp.path().join("log.1")).unwrap(),
        "1970-01-01T00:00:00.000000005Z stdout F one\n\
         1970-01-01T00:00:00.000000005Z stdout P two\n\
         1970-01-01T00:00:01.000000000Z stderr F \n"
    );
}

#[test]
fn what_is_no_record_is_none() {
    for line in [
        "",
        "x",
        "1970-01-01T00:00:00.000000005Z",
        "1970-01-01T00:00:00.000000005Z stdin F x",
        "1970-01-01T00:00:00.000000005Z stdout",
        "1970-01-01T00:00:00.000000005Z stdout G x",
        "1970-01-01T00:00:00.000000005Zstdout F x",
        "1970-13-01T00:00:00.000000005Z stdout F x",
    ] {
        assert_eq!(Record::parse(line.as_bytes()), None, "{line:?}");
    }
}

#[test]
fn every_byte_comes_back_whatever_pieces_it_came_in() {
    let (_temp, folder) = folder();
    let mut writer = Writer::create(&folder, 64 << 20).unwrap();
    let mut whole = noise(300_000, 7);
    whole.extend(vec![b'x'; 5 * LONGEST + 1]);
    whole.extend(b"\n\n\r\n\0 stdout F \nno end");
    let (mut at, mut piece) = (0, 1);
    while at < whole.len() {
        let end = (at + piece).min(whole.len());
        writer.write(Stream::Stdout, &whole[at..end], Time::of(1, 0));
        writer.write(Stream::Stderr, &whole[at..end], Time::of(2, 0));
        (at, piece) = (end, piece * 7 % 70_001);
    }
    let (stdout, stderr, _) = read(&mut Reader::open(&folder).unwrap());
    assert!(stdout == whole && stderr == whole);
    assert_eq!(writer.lost(), 0);
}

#[test]
fn a_log_holds_no_more_than_it_may_and_keeps_the_newest() {
    let (temp, folder) = folder();
    let mut writer = Writer::create(&folder, LEAST).unwrap();
    let line = |number: u32| format!("{number:09}\n").into_bytes();
    for number in 0..20_000 {
        writer.write(Stream::Stdout, &line(number), Time::of(0, 0));
        if number % 1000 == 0 {
            let sizes = fs_err::read_dir(temp.path())
                .unwrap()
                .map(|entry| entry.unwrap().metadata().unwrap().len());
            assert!(sizes.sum::<u64>() <= LEAST);
        }
    }
    assert_eq!(numbers(&folder.dir).unwrap().len(), 2);
    let (stdout, ..) = read(&mut Reader::open(&folder).unwrap());
    let first: u32 = String::from_utf8_lossy(&stdout[..9]).parse().unwrap();
    let expected: Vec<u8> = (first..20_000).flat_map(line).collect();
    assert!(stdout == expected && first > 0 && 20_000 - first > 300, "{first}");
}

#[test]
fn a_reader_that_keeps_up_misses_nothing_over_rotations_and_one_that_does_not_knows() {
    let (_temp, folder) = folder();
    let mut writer = Writer::create(&folder, LEAST).unwrap();
    let (mut quick, mut slow) = (Reader::open(&folder).unwrap(), Reader::open(&folder).unwrap());
    let mut printed = Vec::new();
    let mut seen = Vec::new();
    for number in 0..200 {
        let bytes = noise(2000 + number, number as u64);
        writer.write(Stream::Stdout, &bytes, Time::of(0, 0));
        printed.extend(bytes);
        seen.extend(read(&mut quick).0);
        assert!(!quick.has_skipped());
    }
    assert!(seen == printed);
    // It still has the file that was the first, and then there is a gap.
    let late = read(&mut slow).0;
    assert!(slow.has_skipped() && !slow.has_skipped());
    assert!(printed.starts_with(&late[..1000]) && printed.ends_with(&late[late.len() - 1000..]));
}

#[test]
fn writing_and_reading_at_once_loses_nothing() {
    let (_temp, folder) = folder();
    let mut writer = Writer::create(&folder, 1 << 20).unwrap();
    let mut reader = Reader::open(&folder).unwrap();
    let printed = noise(3_000_000, 3);
    let done = std::sync::atomic::AtomicBool::new(false);
    let seen = std::thread::scope(|scope| {
        scope.spawn(|| {
            for piece in printed.chunks(4001) {
                writer.write(Stream::Stderr, piece, Time::of(0, 0));
            }
            done.store(true, std::sync::atomic::Ordering::SeqCst);
        });
        let mut seen = Vec::new();
        loop {
            let over = done.load(std::sync::atomic::Ordering::SeqCst);
            seen.extend(read(&mut reader).1);
            if over {
                break seen;
            }
        }
    });
    // On a machine so busy that a whole file was written and taken away between two looks, there is a gap.
    assert!(reader.has_skipped() || seen == printed);
}

#[test]
fn foreign_bytes_in_a_log_are_passed_over() {
    let (temp, folder) = folder();
    let mut writer = Writer::create(&folder, LEAST).unwrap();
    writer.write(Stream::Stdout, b"one\n", Time::of(0, 0));
    drop(writer);
    let path = temp.path().join("log.1");
    let mut bytes = fs_err::read(&path).unwrap();
    bytes.extend(vec![b'x'; 200_000]);
    bytes.extend(b"\nnothing\n");
    bytes.extend(b"1970-01-01T00:00:00.000000000Z stdout F two\ntorn");
    fs_err::write(&path, bytes).unwrap();
    fs_err::write(temp.path().join("log.01"), b"").unwrap();
    fs_err::write(temp.path().join("log.x"), b"").unwrap();
    let (stdout, ..) = read(&mut Reader::open(&folder).unwrap());
    assert_eq!(stdout, b"one\ntwo\n");
}
