//! Archives made by other programs, compared with what those say about them; and real root filesystems.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use mk_core::entry::Kind;
use mk_core::path::TreePath;
use tempfile::TempDir;

use crate::{Seen, unpack};

fn skipped(needs: &str) {
    let _ = writeln!(std::io::stderr(), "skipped: needs {needs}");
}

/// Where real root filesystems are, if anywhere.
fn fixtures() -> Option<PathBuf> {
    #[expect(clippy::disallowed_methods, reason = "a test may be told where its input is")]
    let named = std::env::var_os("MK_FIXTURES").map(PathBuf::from);
    let beside = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/fixtures"));
    named.or(Some(beside)).filter(|folder| folder.is_dir())
}

/// Runs a program and returns what it prints; `None`: it is not installed, or cannot do what is asked.
fn run(folder: &Path, program: &str, arguments: &[&OsStr]) -> Option<Vec<u8>> {
    let mut command = Command::new(program);
    command
        .current_dir(folder)
        .args(arguments)
        .env("TZ", "UTC")
        .env("LC_ALL", "C");
    let Ok(output) = command.output() else {
        skipped(program);
        return None;
    };
    if !output.status.success() {
        skipped(&format!(
            "{command:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        ));
        return None;
    }
    Some(output.stdout)
}

fn words(text: &str) -> Vec<&OsStr> {
    text.split_whitespace().map(OsStr::new).collect()
}

/// Returns `2024-02-29 12:00:00` for seconds since 1970 (the days after H. Hinnant's civil_from_days).
fn date(seconds: i64) -> String {
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let shifted = days + 719_468;
    let (era, day) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (day, month) = (
        day - (153 * month + 2) / 5 + 1,
        if month < 10 { month + 3 } else { month - 9 },
    );
    let year = year + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}

/// Returns `rwsr-xr-t` for permission bits.
fn letters(mode: u16) -> String {
    let mut text = String::new();
    for (shift, special, letter) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let bits = mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (mode & special != 0, bits & 1 != 0) {
            (true, true) => letter,
            (true, false) => letter.to_ascii_uppercase(),
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    text
}

/// Returns the line that `tar -tv` has for an entry, with single spaces.
fn listed(entry: &Seen) -> String {
    let (letter, size, suffix) = match &entry.kind {
        Kind::File(bytes) => ('-', bytes.len().to_string(), String::new()),
        Kind::Folder => ('d', "0".into(), String::new()),
        Kind::Symlink(to) => ('l', "0".into(), format!(" -> {}", String::from_utf8_lossy(to))),
        Kind::HardLink(to) => ('h', "0".into(), format!(" link to {to}")),
        Kind::Device {
            block: true,
            major,
            minor,
        } => ('b', format!("{major},{minor}"), String::new()),
        Kind::Device { major, minor, .. } => ('c', format!("{major},{minor}"), String::new()),
        Kind::Fifo => ('p', "0".into(), String::new()),
    };
    let meta = &entry.meta;
    let (mode, time) = (letters(meta.mode), date(meta.mtime));
    format!(
        "{letter}{mode} {}/{} {size} {time} {}{suffix}",
        meta.uid, meta.gid, entry.path
    )
}

/// Returns what `tar -tv` says of the archive, in the form of [`listed`].
fn listing(archive: &Path) -> Option<Vec<String>> {
    let mut arguments = words("--numeric-owner --full-time --quoting-style=literal -tvf");
    arguments.push(archive.as_os_str());
    let text = run(Path::new("/"), "tar", &arguments)?;
    Some(String::from_utf8_lossy(&text).lines().map(tidy).collect())
}

fn tidy(line: &str) -> String {
    let rooted = |name: &str| TreePath::normalise(name).unwrap().to_string();
    let mut rest = line;
    let mut fields = Vec::new();
    for _ in 0..5 {
        let (field, after) = rest.trim_start().split_once(' ').unwrap();
        // Fractions of a second are not kept.
        fields.push(field.split('.').next().unwrap_or(field));
        rest = after;
    }
    // A time whose fraction ends in zeros is padded.
    let rest = rest.trim_start();
    let name = match (rest.split_once(" link to "), rest.split_once(" -> ")) {
        (Some((name, to)), _) => format!("{} link to {}", rooted(name), rooted(to)),
        (None, Some((name, to))) if line.starts_with('l') => format!("{} -> {to}", rooted(name)),
        _ => rooted(rest),
    };
    format!("{} {name}", fields.join(" "))
}

/// Checks an archive against what `tar -tv` says of it.
fn agrees_with_tar(archive: &Path) -> Option<Vec<Seen>> {
    let expected = listing(archive)?;
    let seen = unpack(&fs_err::read(archive).unwrap())
        .unwrap_or_else(|error| panic!("{}: {error}", archive.display()));
    let ours: Vec<String> = seen.iter().map(listed).collect();
    assert_eq!(ours, expected, "{}", archive.display());
    Some(seen)
}

/// Checks names, kinds and contents against the folder that was packed.
fn agrees_with_folder(seen: &[Seen], folder: &Path, made_by: &str) {
    let mut contents = BTreeMap::new();
    for entry in seen {
        let path = folder.join(entry.path.as_path());
        let stat = fs_err::symlink_metadata(&path).unwrap();
        let here = format!("{} made by {made_by}", entry.path);
        if !matches!(entry.kind, Kind::HardLink(_)) {
            assert_eq!(u32::from(entry.meta.mode), stat.mode() & 0o7777, "{here}");
            assert_eq!(
                (entry.meta.uid, entry.meta.gid),
                (stat.uid(), stat.gid()),
                "{here}"
            );
            assert_eq!(entry.meta.mtime, stat.mtime(), "{here}");
        }
        match &entry.kind {
            Kind::File(bytes) => {
                assert!(*bytes == fs_err::read(&path).unwrap(), "{here}");
                contents.insert(entry.path.clone(), stat.ino());
            }
            Kind::HardLink(to) => assert_eq!(contents.get(to), Some(&stat.ino()), "{here}"),
            Kind::Folder => assert!(stat.is_dir(), "{here}"),
            Kind::Symlink(to) => {
                assert_eq!(
                    fs_err::read_link(&path).unwrap().as_os_str().as_bytes(),
                    &**to,
                    "{here}"
                )
            }
            Kind::Fifo | Kind::Device { .. } => assert!(!stat.is_file(), "{here}"),
        }
    }
    let count = walkdir::WalkDir::new(folder).into_iter().count();
    assert_eq!(seen.len(), count, "made by {made_by}");
}

/// A folder with what archives find hard. `long`: with names that v7 cannot hold.
fn folder(long: bool) -> TempDir {
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path();
    let write = |name: &str, bytes: &[u8], mode| {
        fs_err::write(root.join(name), bytes).unwrap();
        fs_err::set_permissions(root.join(name), PermissionsExt::from_mode(mode)).unwrap();
    };
    fs_err::create_dir(root.join("d")).unwrap();
    write("d/small", b"content\n", 0o4755);
    write("d/empty", b"", 0o600);
    write("sp ace", &vec![b'x'; 100_000], 0o1644);
    fs_err::hard_link(root.join("d/small"), root.join("same")).unwrap();
    symlink("d/../nowhere", root.join("link")).unwrap();
    // 10 MiB, three pieces of data far apart, and a hole at the end.
    let sparse = fs_err::File::create(root.join("sparse")).unwrap();
    for (at, byte) in [(0, 1), (1 << 20, 2), (5 << 20, 3)] {
        sparse.file().write_all_at(&[byte; 4096], at).unwrap();
    }
    sparse.set_len(10 << 20).unwrap();
    fs_err::File::create(root.join("hole"))
        .unwrap()
        .set_len(1 << 20)
        .unwrap();
    if long {
        let deep = root.join(["a-rather-long-name-of-a-folder"; 8].join("/"));
        fs_err::create_dir_all(&deep).unwrap();
        fs_err::write(deep.join("n".repeat(200)), b"deep").unwrap();
        symlink("t".repeat(300), root.join("long link")).unwrap();
        fs_err::hard_link(deep.join("n".repeat(200)), root.join("deep too")).unwrap();
    }
    temp
}

/// Packs `folder` with `program` and returns the archive.
fn packed(folder: &Path, out: &TempDir, program: &str, options: &str) -> Option<PathBuf> {
    let archive = out
        .path()
        .join(format!("{program} {options}.tar").replace('/', "-"));
    let mut arguments = words(options);
    arguments.extend([OsStr::new("-cf"), archive.as_os_str(), OsStr::new(".")]);
    run(folder, program, &arguments)?;
    Some(archive)
}

#[test]
fn what_gnu_tar_packs_comes_out_again() {
    let (long, short, out) = (folder(true), folder(false), tempfile::tempdir().unwrap());
    for (options, source) in [
        ("--format=v7", &short),
        ("--format=ustar", &short),
        ("--format=oldgnu", &long),
        ("--format=gnu", &long),
        ("--format=gnu -S", &long),
        ("--format=pax", &long),
        ("--format=pax -S --sparse-version=0.0", &long),
        ("--format=pax -S --sparse-version=0.1", &long),
        ("--format=pax -S --sparse-version=1.0", &long),
        ("--format=pax --hard-dereference", &short),
        ("--format=gnu -S -z", &long),
        ("--format=gnu -S -J", &long),
        ("--format=gnu -S --zstd", &long),
        ("--format=gnu -V label", &long),
    ] {
        let Some(archive) = packed(source.path(), &out, "tar", options) else {
            continue;
        };
        if options.contains("label") {
            // `tar -t` lists the label.
            let seen = unpack(&fs_err::read(&archive).unwrap()).unwrap();
            agrees_with_folder(&seen, source.path(), options);
        } else if let Some(seen) = agrees_with_tar(&archive) {
            agrees_with_folder(&seen, source.path(), options);
        }
    }
}

#[test]
fn what_bsdtar_packs_comes_out_again() {
    let (long, short, out) = (folder(true), folder(false), tempfile::tempdir().unwrap());
    let marked = long.path().join("d/small");
    let value = b"a\nvalue\0\xff";
    let keeps = rustix::fs::setxattr(&marked, "user.mk.test", value, rustix::fs::XattrFlags::empty()).is_ok();
    if !keeps {
        skipped("a temporary folder with extended attributes");
    }
    for (options, source) in [
        ("--format=v7", &short),
        ("--format=ustar", &short),
        ("--format=gnutar", &long),
        ("--format=pax", &long),
        ("--format=pax --zstd", &long),
        ("--format=pax --xattrs --no-read-sparse", &long),
    ] {
        let Some(archive) = packed(source.path(), &out, "bsdtar", options) else {
            continue;
        };
        let seen = unpack(&fs_err::read(&archive).unwrap()).unwrap();
        agrees_with_folder(&seen, source.path(), options);
        if keeps && options.contains("pax") {
            // Whichever of the two names of the file came first carries it.
            let kept = seen
                .iter()
                .find_map(|entry| entry.meta.xattrs.as_ref())
                .expect(options);
            assert_eq!(&*kept[&b"user.mk.test"[..]], value, "{options}");
        }
    }
}

#[test]
fn what_dpkg_deb_builds_comes_out_again() {
    let source = folder(true);
    let control = source.path().join("DEBIAN");
    fs_err::create_dir(&control).unwrap();
    let text = "Package: x\nVersion: 1\nArchitecture: all\nMaintainer: x <x@example.org>\nDescription: x\n";
    fs_err::write(control.join("control"), text).unwrap();
    let out = tempfile::tempdir().unwrap();
    for compression in ["none", "gzip", "xz", "zstd"] {
        let package = out.path().join(format!("{compression}.deb"));
        let mut arguments = vec![OsStr::new("-Z"), OsStr::new(compression), OsStr::new("-b")];
        arguments.extend([OsStr::new("."), package.as_os_str()]);
        if run(source.path(), "dpkg-deb", &arguments).is_none() {
            continue;
        }
        let seen = unpack(&fs_err::read(&package).unwrap()).unwrap();
        let data = out.path().join("data.tar");
        let Some(plain) = run(
            out.path(),
            "dpkg-deb",
            &[OsStr::new("--fsys-tarfile"), package.as_os_str()],
        ) else {
            continue;
        };
        fs_err::write(&data, plain).unwrap();
        if let Some(expected) = agrees_with_tar(&data) {
            assert!(seen == expected, "{compression}");
        }
    }
}

#[test]
fn real_root_filesystems_are_listed_as_tar_lists_them() {
    let Some(folder) = fixtures() else {
        return skipped("the root filesystems that MK_FIXTURES names");
    };
    let mut found = 0;
    for entry in fs_err::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension() == Some(OsStr::new("gz")) {
            found += usize::from(agrees_with_tar(&path).is_some_and(|seen| seen.len() > 400));
        }
    }
    assert!(
        found >= 3 || listing(Path::new("/dev/null")).is_none(),
        "{found} found"
    );
}
