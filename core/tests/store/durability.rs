//! Stores that are not synced, and the mark that says so.

use mk_core::store::Durability;

use super::*;

/// The mark of the boot that this is.
fn mark_of_now() -> String {
    let id = fs_err::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    id.replace('-', "")
}

fn open(temp: &Temporary, durability: Durability) -> Store {
    Store::open_with(&temp.path().join("store"), owners(), durability).unwrap()
}

#[test]
fn what_is_written_without_syncs_is_marked_until_somebody_syncs() {
    let temp = Temporary::new();
    let (fast, sound) = (open(&temp, Durability::None), open(&temp, Durability::Full));
    let mark = sound.path().join("unsynced");
    filled(&sound, "sound");
    assert!(!mark.exists(), "everything was synced");
    let (tree, id) = filled(&fast, "fast");
    assert_eq!(fs_err::read_to_string(&mark).unwrap(), mark_of_now());
    // In this boot it is a store like any other.
    let _lease = sound.lease(&id).unwrap();
    drop(fast.hold(&()).unwrap());
    assert!(mark.exists(), "nobody has synced it");
    drop(sound.hold(&()).unwrap());
    assert!(!mark.exists(), "it is synced");
    // One that has nothing to write leaves no mark.
    filled(&fast, "fast");
    assert!(!mark.exists(), "nothing was written");
    fast.set_ref("other", &id).unwrap();
    assert!(mark.exists());
    drop(fast);
    assert_eq!(verify(&sound, None, &()).unwrap().damages, []);
    assert!(!mark.exists(), "verify syncs what is whole");
    assert_eq!(sound.tree(&tree.digest()).unwrap().encode(), tree.encode());
}

#[test]
fn the_mark_stays_as_long_as_somebody_writes_without_syncs() {
    let temp = Temporary::new();
    let (fast, sound) = (open(&temp, Durability::None), open(&temp, Durability::Full));
    let mark = sound.path().join("unsynced");
    let hold = fast.hold(&()).unwrap();
    let stage = fast.stage().unwrap();
    layer(&stage, sample());
    stage.commit().unwrap();
    drop(sound.hold(&()).unwrap());
    assert!(mark.exists(), "more was to come");
    drop(hold);
    drop(sound.hold(&()).unwrap());
    assert!(!mark.exists());
}

#[test]
fn a_store_that_was_marked_in_another_boot_is_verified_before_it_is_used() {
    let temp = Temporary::new();
    let store = open(&temp, Durability::None);
    let (tree, id) = filled(&store, "sample");
    drop(store);
    let (fast, sound) = (open(&temp, Durability::None), open(&temp, Durability::Full));
    let mark = sound.path().join("unsynced");
    // Of another boot, and one whose bytes were lost as well.
    for text in ["0123\n", ""] {
        fs_err::write(&mark, text).unwrap();
        for store in [&fast, &sound] {
            assert!(matches!(store.hold(&()), Err(Error::Unsynced(_))));
            assert!(matches!(store.lease(&id), Err(Error::Unsynced(_))));
        }
        assert!(matches!(fast.set_ref("other", &id), Err(Error::Unsynced(_))));
        assert_eq!(verify(&sound, None, &()).unwrap().damages, []);
        assert!(!mark.exists());
        drop(sound.lease(&id).unwrap());
    }
    // What is lost is found, and the mark stays until it is mended.
    fs_err::write(&mark, "").unwrap();
    let object = walkdir::WalkDir::new(sound.path().join("objects"))
        .into_iter()
        .flatten()
        .find(|entry| entry.file_type().is_file());
    fs_err::write(object.unwrap().path(), "").unwrap();
    assert_ne!(verify(&sound, None, &()).unwrap().damages, []);
    assert!(matches!(sound.hold(&()), Err(Error::Unsynced(_))));
    discard(&sound, &verify(&sound, None, &()).unwrap(), &()).unwrap();
    sound.remove_ref("sample").unwrap();
    fs_err::remove_file(sound.path().join(format!("images/{id}"))).unwrap();
    assert_eq!(verify(&sound, None, &()).unwrap().damages, []);
    assert_eq!(filled(&sound, "sample").0.digest(), tree.digest());
}

#[test]
fn a_store_that_lost_its_format_before_it_was_ever_synced_is_made_anew() {
    let temp = Temporary::new();
    filled(&open(&temp, Durability::None), "sample");
    let format = temp.path().join("store/format");
    fs_err::write(&format, "").unwrap();
    assert_eq!(Store::owners_at(&temp.path().join("store")).unwrap(), None);
    let store = open(&temp, Durability::Full);
    assert!(
        fs_err::read_to_string(format)
            .unwrap()
            .starts_with("mk-store 1\n")
    );
    assert_eq!(verify(&store, None, &()).unwrap().damages, []);
}
