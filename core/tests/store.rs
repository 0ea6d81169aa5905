//! Trees and files into a store and out again, on a real disk.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use mk_core::digest::Digest;
use mk_core::entry::{Entry, Kind};
use mk_core::meta::Meta;
use mk_core::path::TreePath;
use mk_core::recipe::{Conf, RunDefaults};
use mk_core::rootfs;
use mk_core::store::{Error, Image, ImageId, Owners, Stage, StepRecord, Store};
use mk_core::tree::Tree;

/// How the user who runs the tests can keep owners.
fn owners() -> Owners {
    if is_root() { Owners::Native } else { Owners::Single }
}

fn is_root() -> bool {
    fs_err::metadata("/proc/self").unwrap().uid() == 0
}

fn fresh() -> (tempfile::TempDir, Store) {
    let temp = tempfile::tempdir().unwrap();
    let store = Store::open(&temp.path().join("store"), owners()).unwrap();
    (temp, store)
}

/// A file of an image to be.
fn file(path: &str, mode: u16, body: &str) -> (TreePath, Meta, Kind<String>) {
    let meta = Meta::new(mode, 1_700_000_000);
    (TreePath::parse(path).unwrap(), meta, Kind::File(body.into()))
}

fn other(path: &str, mode: u16, kind: Kind<String>) -> (TreePath, Meta, Kind<String>) {
    (
        TreePath::parse(path).unwrap(),
        Meta::new(mode, 1_600_000_000),
        kind,
    )
}

/// Stages `files` and returns their tree.
fn layer(stage: &Stage<'_>, files: Vec<(TreePath, Meta, Kind<String>)>) -> Tree {
    let mut tree = Tree::new(0);
    let mut layer = tree.layer(i64::MAX);
    for (path, meta, kind) in files {
        let entry = Entry { path, meta, kind };
        let entry = entry.try_map(|body, meta| stage.add_file(&mut body.as_bytes(), meta));
        layer.lay(entry.unwrap()).unwrap();
    }
    drop(layer);
    tree
}

fn sample(stage: &Stage<'_>) -> Tree {
    layer(
        stage,
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
        ],
    )
}

/// Puts the sample tree with its folder, image, conf and one name into a store.
fn filled(store: &Store, name: &str) -> (Tree, ImageId) {
    let _hold = store.hold(&()).unwrap();
    let stage = store.stage().unwrap();
    let tree = sample(&stage);
    stage.commit().unwrap();
    let digest = store.put_tree(&tree).unwrap();
    rootfs::checkout(store, &digest, &tree, &()).unwrap();
    let conf = Conf {
        hostname: Some(name.into()),
        ..Conf::default()
    };
    let image = Image::new(digest, &tree, conf, RunDefaults::default());
    let id = store.put_image(&image).unwrap();
    store
        .put_conf(
            &id,
            None,
            &[("hostname", b"x\n"), ("hosts", b""), ("resolv.conf", b"")],
        )
        .unwrap();
    store.set_ref(name, &id).unwrap();
    (tree, id)
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
fn what_is_there_is_not_written_again() {
    let (_temp, store) = fresh();
    let (tree, _) = filled(&store, "sample");
    let before = inode(&store.rootfs_path(&tree.digest()).join("etc/secret"));
    let stage = store.stage().unwrap();
    let folder = stage.dir().path();
    sample(&stage);
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
