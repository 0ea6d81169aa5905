//! Real root filesystems, and what mtree(8) says of their folders.

use std::path::PathBuf;
use std::process::Stdio;

use super::*;

#[expect(
    clippy::disallowed_methods,
    reason = "where the fixtures are is said by the environment"
)]
fn fixtures() -> Option<PathBuf> {
    let told = std::env::var_os("MK_FIXTURES").map(PathBuf::from);
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/fixtures");
    let found = told.unwrap_or(beside);
    if !found.is_dir() {
        skip("the fixtures (MK_FIXTURES)");
    }
    found.is_dir().then_some(found)
}

/// Unpacks an archive into a store and returns the tree.
fn unpacked(store: &Store, archive: &Path) -> Tree {
    let _hold = store.hold(&()).unwrap();
    let stage = store.stage().unwrap();
    let mut tree = Tree::new(0);
    let mut layer = tree.layer(i64::MAX);
    let mut lay = |entry: Entry<Body<'_>>| -> Result<(), BadArchive> {
        let entry = entry.try_map(|mut body, meta| stage.add_file(&mut body, meta));
        layer.lay(entry.unwrap()).unwrap();
        Ok(())
    };
    let input = fs_err::File::open(archive).unwrap();
    unpack::entries("fixture", input, &Limits::default(), &mut lay).unwrap();
    drop(layer);
    stage.commit().unwrap();
    let digest = store.put_tree(&tree).unwrap();
    rootfs::checkout(store, &digest, &tree, &()).unwrap();
    tree
}

/// Returns what mtree(8) finds different between a folder and the canonical text; `None` without mtree.
fn mtree(tree: &Tree, root: &Path) -> Option<String> {
    let mut child = match std::process::Command::new("mtree")
        .args(["-p".as_ref(), root.as_os_str()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
    {
        Ok(child) => child,
        Err(_) => {
            skip("mtree");
            return None;
        }
    };
    let mut stdin = child.stdin.take().unwrap();
    let text = tree.encode();
    let feeding = std::thread::spawn(move || io::Write::write_all(&mut stdin, &text));
    let done = child.wait_with_output().unwrap();
    _ = feeding.join();
    let said = [done.stdout, done.stderr].concat();
    Some(format!(
        "{}{}",
        String::from_utf8_lossy(&said),
        if done.status.success() { "" } else { "failed" }
    ))
}

#[test]
fn the_folder_of_a_real_root_filesystem_is_what_its_text_says() {
    let Some(fixtures) = fixtures() else { return };
    let mut seen = 0;
    for entry in fs_err::read_dir(fixtures).unwrap() {
        let archive = entry.unwrap().path();
        if archive.extension().is_none_or(|extension| extension != "gz") {
            continue;
        }
        seen += 1;
        let (_temp, store) = fresh();
        let tree = unpacked(&store, &archive);
        assert_eq!(verify(&store, None, &()).unwrap().damages, [], "{archive:?}");
        let again = unpacked(&fresh().1, &archive);
        assert_eq!(tree.digest(), again.digest(), "{archive:?}");
        if owners() == Owners::Native
            && let Some(said) = mtree(&tree, &store.rootfs_path(&tree.digest()))
        {
            assert_eq!(said, "", "{archive:?}");
            let root = store.rootfs_path(&tree.digest());
            fs_err::write(root.join("etc/extra"), "").unwrap();
            assert_ne!(mtree(&tree, &root).unwrap(), "", "mtree sees nothing");
        }
    }
    assert!(seen > 0, "no fixture was found");
}
