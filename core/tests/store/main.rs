//! Trees and files into a store and out again, on a real disk.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use mk_core::digest::Digest;
use mk_core::entry::{Content, Entry, Kind};
use mk_core::meta::Meta;
use mk_core::path::TreePath;
use mk_core::recipe::{Conf, RunDefaults};
use mk_core::rootfs;
use mk_core::store::gc::{Policy, Stored, gc};
use mk_core::store::verify::{discard, verify};
use mk_core::store::{Error, Image, ImageId, Owners, Stage, StepRecord, Store};
use mk_core::tree::Tree;
use mk_core::unpack::{self, BadArchive, Body, Limits};

mod damage;
mod durability;
mod fixtures;
mod limits;

/// How the user who runs the tests can keep owners: root with all ids, or anyone with one.
fn owners() -> Owners {
    let maps = fs_err::read_to_string("/proc/self/uid_map").unwrap();
    let ids: u64 = maps
        .lines()
        .map(|line| line.split_whitespace().nth(2).unwrap().parse::<u64>().unwrap())
        .sum();
    let root = fs_err::metadata("/proc/self").unwrap().uid() == 0;
    if root && ids > 1 {
        Owners::Native
    } else {
        Owners::Single
    }
}

/// A folder of the test's own. Deleted when it is dropped, also where an image has folders that an ordinary user may not
/// write to.
struct Temporary(tempfile::TempDir);

impl Temporary {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        for entry in walkdir::WalkDir::new(self.path()).into_iter().flatten() {
            if entry.file_type().is_dir() {
                let open = std::os::unix::fs::PermissionsExt::from_mode(0o700);
                _ = fs_err::set_permissions(entry.path(), open);
            }
        }
    }
}

fn fresh() -> (Temporary, Store) {
    let temp = Temporary::new();
    let store = Store::open(&temp.path().join("store"), owners()).unwrap();
    (temp, store)
}

/// A file of an image to be.
type File = (TreePath, Meta, Kind<String>);

fn file(path: &str, mode: u16, body: &str) -> File {
    let meta = Meta::new(mode, 1_700_000_000);
    (TreePath::parse(path).unwrap(), meta, Kind::File(body.into()))
}

fn other(path: &str, mode: u16, kind: Kind<String>) -> File {
    (
        TreePath::parse(path).unwrap(),
        Meta::new(mode, 1_600_000_000),
        kind,
    )
}

/// Stages `files` and returns their tree.
fn layer(stage: &Stage<'_>, files: Vec<File>) -> Tree {
    try_layer(stage, files).unwrap()
}

fn try_layer(stage: &Stage<'_>, files: Vec<File>) -> Result<Tree, Error> {
    let mut tree = Tree::new(0);
    let mut layer = tree.layer(1_700_000_000);
    for (path, meta, kind) in files {
        let entry = Entry { path, meta, kind };
        let entry = entry.try_map(|body, meta| stage.add_file(&mut body.as_bytes(), meta))?;
        layer.lay(entry).unwrap();
    }
    drop(layer);
    Ok(tree)
}

fn sample() -> Vec<File> {
    vec![
        other("bin", 0o555, Kind::Folder),
        file("bin/sh", 0o4755, "#!\n"),
        other(
            "bin/ash",
            0o755,
            Kind::HardLink(TreePath::parse("bin/sh").unwrap()),
        ),
        other("bin-link", 0o777, Kind::Symlink((*b"bin").into())),
        other("dev", 0o755, Kind::Folder),
        other(
            "dev/null",
            0o666,
            Kind::Device {
                block: false,
                major: 1,
                minor: 3,
            },
        ),
        file("etc/secret", 0o600, "secret\n"),
        file("etc/empty", 0o644, ""),
        other("run/pipe", 0o622, Kind::Fifo),
        other("tmp", 0o1777, Kind::Folder),
    ]
}

/// Puts the sample tree with its folder, image, conf and one name into a store.
fn filled(store: &Store, name: &str) -> (Tree, ImageId) {
    try_to_fill(store, name, vec![]).unwrap()
}

/// Puts the sample tree, and `more`, with its folder, image, conf and one name into a store.
fn try_to_fill(store: &Store, name: &str, more: Vec<File>) -> Result<(Tree, ImageId), Error> {
    let _hold = store.hold(&())?;
    let stage = store.stage()?;
    let tree = try_layer(&stage, sample().into_iter().chain(more).collect())?;
    stage.commit()?;
    let digest = store.put_tree(&tree)?;
    rootfs::checkout(store, &digest, &tree, &())?;
    let conf = Conf {
        hostname: Some(name.into()),
        ..Conf::default()
    };
    let image = Image::new(digest, &tree, conf, RunDefaults::default(), Vec::new());
    let id = store.put_image(&image)?;
    store.put_conf(
        &id,
        None,
        &[("hostname", b"x\n"), ("hosts", b""), ("resolv.conf", b"")],
    )?;
    store.set_ref(name, &id)?;
    Ok((tree, id))
}

fn inode(path: &Path) -> u64 {
    fs_err::symlink_metadata(path).unwrap().ino()
}

#[test]
fn a_tree_becomes_a_folder_of_links_to_objects() {
    let (_temp, store) = fresh();
    let (tree, id) = filled(&store, "sample");
    let digest = tree.digest();
    let root = store.rootfs_path(&digest);
    assert_eq!(store.tree(&digest).unwrap().encode(), tree.encode());
    assert_eq!(store.image(&id).unwrap().tree, digest);
    assert_eq!(fs_err::read(root.join("bin/sh")).unwrap(), b"#!\n");
    assert_eq!(inode(&root.join("bin/sh")), inode(&root.join("bin/ash")));
    let sh = fs_err::metadata(root.join("bin/sh")).unwrap();
    assert_eq!(
        (sh.mode() & 0o7777, sh.mtime(), sh.mtime_nsec()),
        (0o4755, 1_700_000_000, 0)
    );
    let bin = fs_err::metadata(root.join("bin")).unwrap();
    assert_eq!((bin.mode() & 0o7777, bin.mtime()), (0o555, 1_600_000_000));
    let link = fs_err::symlink_metadata(root.join("bin-link")).unwrap();
    assert_eq!(link.mtime(), 1_600_000_000);
    assert_eq!(
        fs_err::read_link(root.join("bin-link")).unwrap(),
        Path::new("bin")
    );
    let pipe = fs_err::symlink_metadata(root.join("run/pipe")).unwrap();
    assert_eq!(pipe.mode(), 0o010622);
    assert!(
        fs_err::symlink_metadata(root.join("dev/null")).is_err(),
        "a device was made"
    );
    assert_eq!(fs_err::metadata(store.path()).unwrap().mode() & 0o7777, 0o700);
}

#[test]
fn times_that_no_filesystem_holds_do_no_harm() {
    let (_temp, store) = fresh();
    let stage = store.stage().unwrap();
    let mut files = Vec::new();
    for (at, time) in [i64::MIN, -1, i64::MAX].into_iter().enumerate() {
        for (path, mut meta, kind) in [
            file(&format!("{at}/file"), 0o644, "same"),
            other(&format!("{at}"), 0o755, Kind::Folder),
            other(&format!("{at}/link"), 0o777, Kind::Symlink((*b"x").into())),
        ] {
            meta.mtime = time;
            files.push((path, meta, kind));
        }
    }
    let mut tree = Tree::new(0);
    let mut layer = tree.layer(i64::MAX);
    for (path, meta, kind) in files {
        let entry =
            Entry { path, meta, kind }.try_map(|body, meta| stage.add_file(&mut body.as_bytes(), meta));
        layer.lay(entry.unwrap()).unwrap();
    }
    drop(layer);
    stage.commit().unwrap();
    let digest = store.put_tree(&tree).unwrap();
    rootfs::checkout(&store, &digest, &tree, &()).unwrap();
    assert_eq!(verify(&store, None, &()).unwrap().damages, []);
    let before = fs_err::metadata(store.rootfs_path(&digest).join("1/file")).unwrap();
    assert_eq!(before.mtime(), -1);
}

#[test]
fn what_is_there_is_not_written_again() {
    let (_temp, store) = fresh();
    let (tree, _) = filled(&store, "sample");
    let before = inode(&store.rootfs_path(&tree.digest()).join("etc/secret"));
    let stage = store.stage().unwrap();
    let folder = stage.dir().path();
    layer(&stage, sample());
    assert_eq!(fs_err::read_dir(folder).unwrap().count(), 0, "files were staged");
    stage.commit().unwrap();
    assert_eq!(
        inode(&store.rootfs_path(&tree.digest()).join("etc/secret")),
        before
    );
}

#[test]
fn a_dropped_stage_leaves_nothing() {
    let (_temp, store) = fresh();
    let stage = store.stage().unwrap();
    let folder = stage.dir().path();
    let content = stage
        .add_file(&mut &vec![7u8; 3 << 20][..], &Meta::new(0o644, 0))
        .unwrap();
    assert_eq!(content.digest, Digest::of(&vec![7u8; 3 << 20]));
    drop(stage);
    assert!(!folder.exists());
    let objects = walk(&store.path().join("objects"));
    assert_eq!(objects, Vec::<String>::new());
}

/// The files below a folder.
fn walk(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs_err::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match fs_err::symlink_metadata(&path).unwrap().is_dir() {
            true => found.extend(walk(&path)),
            false => found.push(path.display().to_string()),
        }
    }
    found.sort();
    found
}

#[test]
fn a_step_is_remembered_and_its_key_gives_one_tree() {
    let (_temp, store) = fresh();
    let key = Digest::of(b"key");
    let tree = Tree::new(0);
    let record = StepRecord {
        tree: tree.digest(),
        from: None,
        ingredients: vec![("verb".into(), "write".into())],
    };
    store.put_step(&key, &record).unwrap();
    assert_eq!(store.step(&key).unwrap(), None, "its tree is not there");
    store.put_tree(&tree).unwrap();
    assert_eq!(store.step(&key).unwrap().as_ref(), Some(&record));
    let other = StepRecord {
        tree: Digest::of(b"other"),
        ..record
    };
    let fault = store.put_step(&key, &other).unwrap_err();
    assert!(matches!(fault, Error::ReproducibilityFault { known, .. } if known == tree.digest()));
}

#[test]
fn gc_keeps_what_a_name_needs_and_removes_the_rest() {
    let (_temp, store) = fresh();
    let (tree, id) = filled(&store, "keep");
    let (_, doomed) = filled(&store, "doomed");
    assert_ne!(id, doomed, "they differ in their host name");
    let stage = store.stage().unwrap();
    let extra = layer(
        &stage,
        vec![
            file("only/here", 0o644, "garbage"),
            other("only", 0o555, Kind::Folder),
        ],
    );
    let mut writer = stage.add_source(None).unwrap();
    std::io::Write::write_all(&mut writer, b"archive").unwrap();
    let (source, _) = writer.finish().unwrap();
    stage.commit().unwrap();
    let between = store.put_tree(&extra).unwrap();
    rootfs::checkout(&store, &between, &extra, &()).unwrap();
    store.set_newest(&source, -7).unwrap();
    assert_eq!(store.newest(&source).unwrap(), Some(-7));

    // The image's tree was made from `extra`, and that from the archive: both are kept while the image is.
    let made = |tree, from, ingredients: Vec<(String, String)>| StepRecord {
        tree,
        from,
        ingredients,
    };
    let first = made(between, None, vec![("archive".into(), format!("x {source}"))]);
    store.put_step(&Digest::of(b"1"), &first).unwrap();
    let second = made(tree.digest(), Some(between), vec![]);
    store.put_step(&Digest::of(b"2"), &second).unwrap();
    assert!(store.remove_ref("doomed").unwrap());
    let would = gc(
        &store,
        Policy {
            dry_run: true,
            ..Policy::default()
        },
        &(),
    )
    .unwrap();
    assert_eq!(store.images().unwrap().len(), 2, "a dry run removed something");
    let did = gc(&store, Policy::default(), &()).unwrap();
    assert_eq!(would, did);
    assert_eq!(did.removed[&Stored::Images].items, 1);
    assert_eq!(did.removed[&Stored::Conf].items, 1);
    assert_eq!(
        did.removed[&Stored::Rootfs].items,
        1,
        "an intermediate tree needs no folder"
    );
    assert!(!did.removed.contains_key(&Stored::Objects), "{did:?}");
    assert_eq!(did.kept[&Stored::Steps].items, 2);
    assert!(store.source(&source).unwrap().is_some());
    assert!(store.has_tree(&between).unwrap());
    assert_eq!(verify(&store, None, &()).unwrap().damages, []);

    assert!(store.remove_ref("keep").unwrap());
    let lease = store.lease(&id).unwrap();
    gc(&store, Policy::default(), &()).unwrap();
    assert!(store.has_rootfs(&tree.digest()).unwrap(), "the image was running");
    drop(lease);
    // A program that another test starts right now holds a copy of the lease until it is executed.
    for _ in 0..100 {
        gc(&store, Policy::default(), &()).unwrap();
        if store.images().unwrap().is_empty() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert!(matches!(store.lease(&id), Err(Error::NoImage(_))));
    for folder in [
        "objects", "trees", "rootfs", "images", "conf", "steps", "sources", "trash", "leases", "refs",
    ] {
        assert_eq!(walk(&store.path().join(folder)), Vec::<String>::new());
    }
}

#[test]
fn verify_names_what_is_damaged_and_whom_it_hurts() {
    let (_temp, store) = fresh();
    let (tree, id) = filled(&store, "sample");
    let found = verify(&store, None, &()).unwrap();
    assert_eq!((found.objects, found.trees, found.images), (3, 1, 1));
    assert_eq!(found.damages, []);
    let root = store.rootfs_path(&tree.digest());
    let object = |text: &str| {
        let start = Digest::of(text.as_bytes()).to_string();
        walk(&store.path().join("objects"))
            .into_iter()
            .find(|path| path.contains(&start[2..]))
            .unwrap()
    };
    let check = |path: &Path, why: &str| {
        let damages = verify(&store, None, &()).unwrap().damages;
        let damage = damages.iter().find(|damage| damage.path == path);
        let damage = damage.unwrap_or_else(|| panic!("no {path:?} in {damages:?}"));
        assert!(damage.why.contains(why), "{damage:?}");
        assert_eq!(
            (&damage.images[..], &damage.names[..]),
            (&[id][..], &["sample".to_owned()][..]),
            "{damage:?}"
        );
    };

    // Bytes, with size, mode and time as before: nothing but hashing sees it.
    let secret = object("secret\n");
    let time = fs_err::metadata(&secret).unwrap().modified().unwrap();
    fs_err::write(&secret, "SECRET\n").unwrap();
    let opened = fs_err::OpenOptions::new().write(true).open(&secret).unwrap();
    opened.file().set_modified(time).unwrap();
    check(Path::new(&secret), "its bytes hash to");
    check(&root.join("etc/secret"), "its bytes hash to");
    fs_err::write(&secret, "secret\n").unwrap();
    check(Path::new(&secret), "its metadata is");
    opened.file().set_modified(time).unwrap();
    assert_eq!(verify(&store, None, &()).unwrap().damages, []);

    // The folder.
    fs_err::remove_file(root.join("bin-link")).unwrap();
    check(&root.join("bin-link"), "it is missing");
    fs_err::os::unix::fs::symlink("etc", root.join("bin-link")).unwrap();
    check(&root.join("bin-link"), "it points elsewhere");
    fs_err::write(root.join("tmp/extra"), "").unwrap();
    check(&root.join("tmp/extra"), "it is not in the tree");
    fs_err::remove_file(root.join("etc/empty")).unwrap();
    fs_err::create_dir(root.join("etc/empty")).unwrap();
    check(&root.join("etc/empty"), "it should be a file");

    // Policy is gone.
    fs_err::remove_file(object("")).unwrap();
    let missing = verify(&store, None, &()).unwrap().damages;
    assert!(
        missing
            .iter()
            .any(|damage| damage.why == "it is missing" && damage.names == ["sample"])
    );
    fs_err::write(
        store.path().join("trees").join(tree.digest().to_string()),
        "#mtree mk-tree 1\n",
    )
    .unwrap();
    check(
        &store.path().join("trees").join(tree.digest().to_string()),
        "does not hash",
    );
    fs_err::write(store.path().join("images").join(id.to_string()), "x").unwrap();
    check(&store.path().join("images").join(id.to_string()), "does not hash");
    fs_err::write(store.path().join("refs/sample"), "x").unwrap();
    let damages = verify(&store, None, &()).unwrap().damages;
    let damage = damages
        .iter()
        .find(|damage| damage.path.ends_with("refs/sample"))
        .unwrap();
    assert_eq!(damage.names, ["sample"]);
    assert!(
        gc(&store, Policy::default(), &()).is_err(),
        "what a damaged name needs is not known"
    );

    // All of it can go, and be made again.
    let found = verify(&store, None, &()).unwrap();
    assert!(discard(&store, &found, &()).unwrap().removed > 3);
    filled(&store, "sample");
    assert_eq!(verify(&store, None, &()).unwrap().damages, []);
}

#[test]
fn images_are_found_by_name_digest_and_unique_beginning() {
    let (_temp, store) = fresh();
    let (_, id) = filled(&store, "a-name");
    let text = id.to_string();
    for known in ["a-name", &text, &text[..6], &text[..30]] {
        assert_eq!(store.resolve(known).unwrap(), id, "{known}");
    }
    for unknown in ["b-name", &text[..5], "000000"] {
        assert!(
            matches!(store.resolve(unknown), Err(Error::NoImage(_))),
            "{unknown}"
        );
    }
    for bad in [
        "",
        ".hidden",
        "../x",
        "a/b",
        "Upper",
        "a b",
        "-x",
        &"a".repeat(129),
    ] {
        assert!(matches!(store.resolve(bad), Err(Error::BadName(_))), "{bad}");
        assert!(matches!(store.set_ref(bad, &id), Err(Error::BadName(_))), "{bad}");
    }
    assert_eq!(store.refs().unwrap().len(), 1);
}

#[test]
fn a_folder_that_is_no_store_is_left_alone() {
    let temp = Temporary::new();
    fs_err::write(temp.path().join("mine"), "").unwrap();
    let refused = Store::open(temp.path(), owners()).unwrap_err();
    assert!(matches!(refused, Error::NotAStore { .. }), "{refused}");
    assert_eq!(fs_err::read_dir(temp.path()).unwrap().count(), 1);
    let missing = temp.path().join("missing");
    assert!(matches!(
        Store::open_existing(&missing, owners()),
        Err(Error::Missing(_))
    ));
    assert_eq!(Store::owners_at(&missing).unwrap(), None);
}

#[test]
fn a_store_keeps_its_own_way_with_owners() {
    let temp = Temporary::new();
    let path = temp.path().join("store");
    Store::open(&path, Owners::Single).unwrap();
    assert_eq!(Store::owners_at(&path).unwrap(), Some(Owners::Single));
    assert_eq!(
        Store::open(&path, Owners::Native).unwrap().format().owners,
        Owners::Single
    );
    let path = temp.path().join("other");
    Store::open(&path, Owners::Subordinate).unwrap();
    for wanted in [Owners::Single, Owners::Native] {
        assert!(matches!(
            Store::open(&path, wanted),
            Err(Error::OtherOwners { .. })
        ));
    }
    fs_err::write(path.join("format"), "mk-store 2\nowners native\n").unwrap();
    assert!(matches!(
        Store::open(&path, Owners::Native),
        Err(Error::OtherVersion { .. })
    ));
    fs_err::write(path.join("format"), "mk-store 1\nowners nobody\n").unwrap();
    assert!(matches!(
        Store::open(&path, Owners::Native),
        Err(Error::Damaged { .. })
    ));
}

/// Says that a test does nothing here, and what it would take.
fn skip(needed: &str) {
    _ = io::Write::write_all(&mut io::stderr(), format!("skipped: needs {needed}\n").as_bytes());
}

/// Returns a program to compare with, if it is installed.
fn peer(program: &str) -> Option<std::process::Command> {
    let found = std::process::Command::new(program)
        .arg("--version")
        .output()
        .is_ok();
    if !found {
        skip(program);
    }
    found.then(|| std::process::Command::new(program))
}

#[test]
fn an_exported_archive_is_the_tree_and_always_the_same() {
    let (temp, store) = fresh();
    let stage = store.stage().unwrap();
    let long = format!("{}/{}", "l".repeat(200), "f".repeat(250));
    let mut far = file("far", 0o644, "x");
    (far.1.uid, far.1.gid, far.1.mtime) = (3_000_000, 4_000_000_000, -9);
    let mut noted = file("noted", 0o644, "y");
    noted.1.keep_xattr(b"user.note", b"a=b\n\0c");
    let mut files = vec![
        file(&long, 0o644, "long"),
        other(
            "long-link",
            0o777,
            Kind::Symlink("t".repeat(300).into_bytes().into()),
        ),
        other("z-hard", 0o644, Kind::HardLink(TreePath::parse(&long).unwrap())),
        file("grüße", 0o644, ""),
        file("big", 0o644, &"0123456789abcdef".repeat(100_000)),
        far,
        noted,
        other(
            "null",
            0o666,
            Kind::Device {
                block: false,
                major: 1,
                minor: 300_000,
            },
        ),
        other("pipe", 0o644, Kind::Fifo),
    ];
    files.push((
        TreePath::parse(b"odd\xff").unwrap(),
        Meta::new(0o600, 0),
        Kind::File("odd".into()),
    ));
    let tree = layer(&stage, files);
    stage.commit().unwrap();
    let open = |content: &Content, meta: &Meta| -> io::Result<Box<dyn io::Read>> {
        Ok(Box::new(
            store.open_object(content, meta).map_err(io::Error::other)?,
        ))
    };
    let archive = || mk_core::export::tar::write(&tree, &open, Vec::new()).unwrap();
    let one = archive();
    assert!(one == archive());

    // Policy the archive says is the tree again.
    let stage = store.stage().unwrap();
    let mut again = Tree::new(0);
    let mut layer = again.layer(i64::MAX);
    let mut lay = |entry: Entry<Body<'_>>| -> Result<(), BadArchive> {
        let entry = entry.try_map(|mut body, meta| stage.add_file(&mut body, meta));
        layer.lay(entry.unwrap()).unwrap();
        Ok(())
    };
    unpack::entries("archive", &one[..], &Limits::default(), &mut lay).unwrap();
    drop(layer);
    assert_eq!(
        String::from_utf8(again.encode()),
        String::from_utf8(tree.encode())
    );

    for program in ["tar", "bsdtar"] {
        let Some(mut peer) = peer(program) else { continue };
        let archive = temp.path().join("a.tar");
        fs_err::write(&archive, &one).unwrap();
        let listed = peer
            .args(["-tf"])
            .arg(&archive)
            .env("LC_ALL", "C.UTF-8")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&listed.stdout).into_owned();
        assert!(
            listed.status.success(),
            "{program}: {}",
            String::from_utf8_lossy(&listed.stderr)
        );
        assert_eq!(text.lines().count(), tree.iter().count(), "{program}: {text}");
        assert!(text.lines().any(|line| line == long), "{program}: {text}");
    }
}
