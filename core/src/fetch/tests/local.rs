use std::os::unix::fs::{PermissionsExt as _, symlink};

use super::*;
use crate::entry::{Content, Entry, Kind};
use crate::fetch::content::Found;

fn put(path: &Path, body: impl AsRef<[u8]>) {
    fs_err::create_dir_all(path.parent().unwrap()).unwrap();
    fs_err::write(path, body).unwrap();
}

fn beside(name: &str, body: &[u8]) -> Pinned {
    pinned(Origin::At(Location::File(name.into())), body)
}

fn elsewhere(body: &[u8]) -> Pinned {
    pinned(
        Origin::At(Location::Url("http://no-such-host.invalid/dl/pkg.tar".into())),
        body,
    )
}

/// Fetches without a network.
fn get(pin: &Pinned, recipe_dir: &Path, settings: &Settings) -> Result<Vec<u8>, Error> {
    let mut out = Vec::new();
    fetch(pin, recipe_dir, settings, &mut out, &())?;
    Ok(out)
}

fn settings(folders: &[&Path]) -> Settings {
    let source_dirs = folders.iter().map(|folder| folder.to_path_buf()).collect();
    Settings {
        offline: true,
        source_dirs,
        ..impatient()
    }
}

/// Lists what is at `path` and reads all of it.
fn hashed(path: &Path) -> Vec<Entry<Content>> {
    let listing = crate::fetch::local::list(path, None).unwrap();
    let found = listing.contents(|_, _| None).unwrap();
    let entries = listing.entries().iter().cloned().zip(found);
    let hashed =
        entries.map(|(entry, found)| entry.try_map(|_, _| found.map(|found| found.content).ok_or(())));
    hashed.collect::<Result<_, ()>>().unwrap()
}

#[test]
fn a_file_beside_the_recipe_is_checked_too() {
    let folder = tempfile::tempdir().unwrap();
    put(&folder.path().join("files/a.tar"), "right");
    assert_eq!(
        get(&beside("files/a.tar", b"right"), folder.path(), &settings(&[])).unwrap(),
        b"right"
    );
    let error = get(&beside("files/a.tar", b"wrong"), folder.path(), &settings(&[])).unwrap_err();
    assert!(matches!(error, Error::WrongDigest { .. }), "{error}");
    let error = get(&beside("files/b.tar", b"right"), folder.path(), &settings(&[])).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("there is no `{}/files/b.tar`", folder.path().display())
    );
    let error = get(&beside("files", b"right"), folder.path(), &settings(&[])).unwrap_err();
    assert_eq!(
        whole(&error),
        format!("cannot read `{}/files`: is a directory", folder.path().display())
    );
}

#[test]
fn a_source_folder_is_searched_by_content() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    put(&at("deep/er/any name"), "right");
    put(&at("same-size"), "wrong");
    put(&at("pkg.tar"), "a lie about its name");
    let settings = settings(&[&at("missing"), folder.path()]);
    assert_eq!(
        get(&elsewhere(b"right"), Path::new("/"), &settings).unwrap(),
        b"right"
    );
    let unsized_pin = Pinned {
        size: None,
        ..elsewhere(b"right")
    };
    assert_eq!(get(&unsized_pin, Path::new("/"), &settings).unwrap(), b"right");
    assert_eq!(
        get(&beside("gone.tar", b"right"), folder.path(), &settings).unwrap(),
        b"right"
    );
    let error = get(&elsewhere(b"absent"), Path::new("/"), &settings).unwrap_err();
    assert!(matches!(error, Error::Offline { .. }), "{error}");
}

#[test]
fn a_file_named_by_its_digest_is_hashed_first_and_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let named = Digest::of(b"right").to_string();
    put(&folder.path().join(&named), "wrong");
    put(&folder.path().join("a-zzz"), "right");
    let settings = settings(&[folder.path()]);
    assert_eq!(
        get(&elsewhere(b"right"), Path::new("/"), &settings).unwrap(),
        b"right"
    );
    let known = settings.held.known();
    assert_eq!(known.len(), 2, "{known:?}");

    put(&folder.path().join(&named), "right");
    let fresh = super::local::settings(&[folder.path()]);
    assert_eq!(
        get(&elsewhere(b"right"), Path::new("/"), &fresh).unwrap(),
        b"right"
    );
    assert_eq!(fresh.held.known(), [folder.path().join(named)]);
}

#[test]
fn a_source_folder_is_hashed_once_but_a_changed_file_again() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    put(&file, "first");
    let settings = settings(&[folder.path()]);
    assert_eq!(
        get(&elsewhere(b"first"), Path::new("/"), &settings).unwrap(),
        b"first"
    );
    let clone = settings.clone();
    assert_eq!(clone.held.known().len(), 1);
    assert_eq!(
        get(&elsewhere(b"first"), Path::new("/"), &clone).unwrap(),
        b"first"
    );
    assert_eq!(settings.held.known().len(), 1);
    put(&file, "other");
    let later = std::fs::FileTimes::new().set_modified(SystemTime::now() + Duration::from_secs(5));
    let opened = fs_err::OpenOptions::new().write(true).open(&file).unwrap();
    opened.file().set_times(later).unwrap();
    assert!(get(&elsewhere(b"first"), Path::new("/"), &settings).is_err());
    assert_eq!(
        get(&elsewhere(b"other"), Path::new("/"), &settings).unwrap(),
        b"other"
    );
}

#[test]
fn links_in_a_source_folder_lead_to_files_only() {
    let folder = tempfile::tempdir().unwrap();
    let aside = tempfile::tempdir().unwrap();
    put(&aside.path().join("in/file"), "right");
    symlink(aside.path().join("in"), folder.path().join("folder")).unwrap();
    symlink("nowhere", folder.path().join("dangling")).unwrap();
    symlink("loop", folder.path().join("loop")).unwrap();
    assert!(get(&elsewhere(b"right"), Path::new("/"), &settings(&[folder.path()])).is_err());
    symlink(aside.path().join("in/file"), folder.path().join("file")).unwrap();
    assert_eq!(
        get(&elsewhere(b"right"), Path::new("/"), &settings(&[folder.path()])).unwrap(),
        b"right"
    );
}

#[test]
fn a_source_folder_that_cannot_be_read_is_worth_a_note() {
    let folder = tempfile::tempdir().unwrap();
    put(&folder.path().join("not-a-folder"), "x");
    let seen = Seen::default();
    let missing = folder.path().join("missing");
    let held = settings(&[]).held;
    assert_eq!(
        held.find(&[missing, folder.path().to_owned()], &elsewhere(b"right"), &seen),
        None
    );
    assert_eq!(seen.lines().len(), 1, "{:?}", seen.lines());
    assert!(seen.lines()[0].contains("missing"), "{:?}", seen.lines());
}

#[test]
fn a_folder_is_listed_the_same_wherever_it_lies() {
    let make = |names: &[&str], executable: u32, plain: u32| {
        let folder = tempfile::tempdir().unwrap();
        for name in names {
            put(&folder.path().join(name), name);
            let mode = if name.ends_with(".sh") { executable } else { plain };
            fs_err::set_permissions(folder.path().join(name), std::fs::Permissions::from_mode(mode)).unwrap();
        }
        symlink("/etc/passwd", folder.path().join("sub/link")).unwrap();
        folder
    };
    let one = make(&["b.sh", "a", "sub/z", "sub.d/y"], 0o711, 0o600);
    let other = make(&["sub.d/y", "sub/z", "a", "b.sh"], 0o4755, 0o666);
    let listed = hashed(one.path());
    assert_eq!(listed, hashed(other.path()));
    let lines: Vec<String> = listed
        .iter()
        .map(|entry| {
            let (meta, kind) = (&entry.meta, &entry.kind);
            assert_eq!((meta.uid, meta.gid, meta.mtime, &meta.xattrs), (0, 0, 0, &None));
            let kind = match kind {
                Kind::File(content) => format!("file {}", content.size),
                Kind::Symlink(target) => format!("-> {}", crate::path::shown(target)),
                other => format!("{other:?}"),
            };
            format!("{} {:o} {kind}", entry.path, meta.mode)
        })
        .collect();
    assert_eq!(
        lines,
        [
            "/a 644 file 1",
            "/b.sh 755 file 4",
            "/sub 755 Folder",
            "/sub.d 755 Folder",
            "/sub.d/y 644 file 7",
            "/sub/link 777 -> /etc/passwd",
            "/sub/z 644 file 5",
        ]
    );
}

#[test]
fn a_listed_file_is_opened_below_its_folder_only() {
    let folder = tempfile::tempdir().unwrap();
    put(&folder.path().join("sub/file"), "inside");
    let listing = crate::fetch::local::list(folder.path(), None).unwrap();
    let path = TreePath::parse("sub/file").unwrap();
    let mut text = String::new();
    listing.open(&path).unwrap().read_to_string(&mut text).unwrap();
    assert_eq!((text.as_str(), listing.is_file()), ("inside", false));

    // A folder or file that is swapped for a link after it was listed is not followed.
    let aside = tempfile::tempdir().unwrap();
    put(&aside.path().join("file"), "outside");
    fs_err::rename(folder.path().join("sub"), folder.path().join("old")).unwrap();
    symlink(aside.path(), folder.path().join("sub")).unwrap();
    assert!(matches!(listing.open(&path), Err(Error::Read { .. })));
    fs_err::remove_file(folder.path().join("sub")).unwrap();
    fs_err::create_dir_all(folder.path().join("sub/file")).unwrap();
    assert!(matches!(listing.open(&path), Err(Error::Unfit { .. })));
}

#[test]
fn a_single_file_is_one_entry_at_the_root() {
    let folder = tempfile::tempdir().unwrap();
    put(&folder.path().join("motd"), "hello\n");
    symlink("motd", folder.path().join("link")).unwrap();
    for name in ["motd", "link"] {
        let listing = crate::fetch::local::list(&folder.path().join(name), None).unwrap();
        assert!(listing.is_file());
        let entries = hashed(&folder.path().join(name));
        assert_eq!(entries.len(), 1);
        assert!(entries[0].path.is_root());
        assert!(matches!(entries[0].kind, Kind::File(content) if content.digest == Digest::of(b"hello\n")));
    }
    assert_eq!(
        crate::fetch::local::digest(&folder.path().join("motd")).unwrap(),
        (Digest::of(b"hello\n"), 6)
    );
    assert!(matches!(
        crate::fetch::local::list(&folder.path().join("gone"), None),
        Err(Error::Missing { .. })
    ));
    assert!(matches!(
        crate::fetch::local::digest(&folder.path().join("gone")),
        Err(Error::Missing { .. })
    ));
}

#[test]
fn a_socket_is_no_part_of_an_image() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let _socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let error = crate::fetch::local::list(folder.path(), None).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "`{}` is a socket: expected a file, a folder, a symlink or a fifo",
            path.display()
        )
    );
}

#[test]
fn paths_come_in_the_order_of_their_bytes() {
    let folder = tempfile::tempdir().unwrap();
    for name in [
        "a", "a-b", "a.d/x", "b/c/d", "b/c.d", "b-", "b0", "z/z/z", "\u{e4}",
    ] {
        put(&folder.path().join(name), name);
    }
    put(&folder.path().join("c/.keep"), "");
    let listing = crate::fetch::local::list(folder.path(), None).unwrap();
    let paths: Vec<&[u8]> = listing
        .entries()
        .iter()
        .map(|entry| entry.path.as_bytes())
        .collect();
    assert_eq!(paths.len(), 16, "{:?}", listing.entries());
    assert!(paths.is_sorted(), "{:?}", listing.entries());
}

#[test]
fn what_is_known_is_not_read() {
    let folder = tempfile::tempdir().unwrap();
    for number in 0..100 {
        put(
            &folder.path().join(format!("{number:03}")),
            format!("text {number}"),
        );
    }
    let listing = crate::fetch::local::list(folder.path(), None).unwrap();
    let read = listing.contents(|_, _| None).unwrap();
    let of = |text: &str| Digest::of(text.as_bytes());
    for (number, found) in read.iter().enumerate() {
        let content = Content {
            digest: of(&format!("text {number}")),
            size: format!("text {number}").len() as u64,
        };
        assert_eq!(
            *found,
            Some(Found {
                content,
                steady: true
            })
        );
    }
    // What is gone cannot be read.
    fs_err::remove_file(folder.path().join("017")).unwrap();
    fs_err::remove_file(folder.path().join("003")).unwrap();
    let known = |path: &TreePath, _: &crate::sys::file::Version| Some(of(&path.to_string()));
    let found = listing.contents(known).unwrap();
    assert_eq!(found[3].unwrap().content.digest, of("/003"));
    let error = listing.contents(|_, _| None).unwrap_err();
    assert!(error.to_string().ends_with("/003`"), "the first is told: {error}");
}

#[test]
fn what_changed_since_it_was_listed_is_not_steady() {
    let folder = tempfile::tempdir().unwrap();
    put(&folder.path().join("file"), "one");
    let listing = crate::fetch::local::list(folder.path(), None).unwrap();
    put(&folder.path().join("other"), "two");
    fs_err::rename(folder.path().join("other"), folder.path().join("file")).unwrap();
    let found = listing.contents(|_, _| None).unwrap()[0].unwrap();
    assert_eq!((found.content.digest, found.steady), (Digest::of(b"two"), false));
}
