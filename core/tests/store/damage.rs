//! Policy stands in the store where something else should.

use super::*;

/// Returns the damages that are found in the store, as path below it and reason, and who is hurt.
fn damages(store: &Store) -> Vec<(String, String, Vec<String>)> {
    let found = verify(store, None, &()).unwrap().damages;
    let below = |path: &Path| path.strip_prefix(store.path()).unwrap().display().to_string();
    found
        .into_iter()
        .map(|damage| (below(&damage.path), damage.why, damage.names))
        .collect()
}

#[test]
fn a_tree_without_end_is_damaged_and_is_not_read() {
    let (_temp, store) = fresh();
    let (tree, _) = filled(&store, "sample");
    let path = format!("trees/{}", tree.digest());
    let text = fs_err::OpenOptions::new()
        .write(true)
        .open(store.path().join(&path))
        .unwrap();
    // A hole: nothing but the number is on the disk.
    text.set_len(60_000_000_000).unwrap();
    let told = "it has more than 4294967296 bytes";
    let error = store.tree(&tree.digest()).unwrap_err();
    assert!(
        matches!(&error, Error::Damaged { why, .. } if why == told),
        "{error}"
    );
    assert!(matches!(
        gc(&store, Policy::default(), &()),
        Err(Error::Damaged { .. })
    ));
    assert_eq!(damages(&store)[0], (path, told.into(), vec!["sample".into()]));
}

#[test]
fn what_stands_in_the_place_of_a_folder_or_file_is_named_and_can_be_made_again() {
    let (_temp, store) = fresh();
    let (tree, id) = filled(&store, "sample");
    let digest = tree.digest();
    let rootfs = store.rootfs_path(&digest);
    let moved = store.path().join("rootfs/elsewhere");
    fs_err::rename(&rootfs, &moved).unwrap();
    fs_err::os::unix::fs::symlink("elsewhere", &rootfs).unwrap();
    fs_err::os::unix::fs::symlink("/", store.path().join(format!("sources/{digest}"))).unwrap();
    let found = damages(&store);
    let sample = vec!["sample".to_owned()];
    let folder = (format!("rootfs/{digest}"), "it should be a folder".into(), sample);
    assert!(found.contains(&folder), "{found:?}");
    let source = format!("sources/{digest}");
    assert!(found.iter().any(|(path, ..)| *path == source), "{found:?}");
    assert!(matches!(store.has_rootfs(&digest), Err(Error::Damaged { .. })));

    discard(&store, &verify(&store, None, &()).unwrap(), &()).unwrap();
    filled(&store, "sample");
    assert_eq!(damages(&store), []);
    assert!(store.has_rootfs(&digest).unwrap() && store.has_conf(&id).unwrap());
}

#[test]
fn a_conf_folder_that_lacks_something_is_named_and_can_be_made_again() {
    let (_temp, store) = fresh();
    let (_, id) = filled(&store, "sample");
    let etc = store.conf_path(&id).join("etc");
    fs_err::remove_file(etc.join("hosts")).unwrap();
    let hosts = format!("conf/{id}/etc/hosts");
    assert_eq!(
        damages(&store),
        [(hosts, "it is missing".into(), vec!["sample".into()])]
    );
    fs_err::remove_dir_all(&etc).unwrap();
    assert_eq!(damages(&store).len(), 3);
    let error = store.has_conf(&id).unwrap_err();
    let named = format!("`{}` is damaged: it is missing", etc.display());
    assert_eq!(error.to_string(), named);

    discard(&store, &verify(&store, None, &()).unwrap(), &()).unwrap();
    assert!(!store.has_conf(&id).unwrap());
    filled(&store, "sample");
    assert_eq!(damages(&store), []);
}
