//! Policy happens at the edges: killed processes, many at once, a full disk, one id, too many links.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use mk_core::sys::file::random;
use mk_core::watch::{Event, Watch};

use super::*;

/// Tells a worker, which is a test of this binary run again, where to work.
const WORK: &str = "MK_TEST_WORK";

#[expect(
    clippy::disallowed_methods,
    reason = "how a test tells its worker that it is one"
)]
fn work() -> Option<PathBuf> {
    std::env::var_os(WORK).map(PathBuf::from)
}

/// Returns this binary, to run only `worker` in the folder `work`; inside `wrapper`, if any.
fn rerun(wrapper: &[&str], worker: &str, work: &Path) -> Command {
    let this = std::env::current_exe().unwrap();
    let mut command = match wrapper {
        [] => Command::new(this),
        [program, arguments @ ..] => {
            let mut command = Command::new(program);
            command.args(arguments).arg(this);
            command
        }
    };
    command.args(["--exact", worker]).env(WORK, work);
    command
}

/// Whether programs can be run as root of a user namespace with one id.
fn has_namespaces() -> bool {
    let works = Command::new("unshare")
        .args(["-Urm", "true"])
        .output()
        .is_ok_and(|done| done.status.success());
    if !works {
        skip("unshare -Urm");
    }
    works
}

fn many(count: usize, salt: u64) -> Vec<File> {
    (0..count)
        .map(|at| file(&format!("many/{at}"), 0o644, &format!("{salt} {at}")))
        .collect()
}

#[test]
fn killed_builder() {
    let Some(path) = work() else { return };
    let store = Store::open(&path, owners()).unwrap();
    for round in 0.. {
        // Half of the files are always new, and what was built before is collected.
        let salt = random().unwrap();
        let mut more = many(40, salt);
        more.push(file("large", 0o600, &format!("{salt}").repeat(120_000)));
        try_to_fill(&store, &format!("image{}", round % 3), more).unwrap();
        if round % 2 == 1 {
            gc(&store, Policy::default(), &()).unwrap();
        }
    }
}

#[test]
fn a_process_killed_at_any_moment_leaves_a_whole_store() {
    let temp = Temporary::new();
    let path = temp.path().join("store");
    for _ in 0..25 {
        let mut worker = rerun(&[], "limits::killed_builder", &path)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_micros(random().unwrap() % 150_000));
        worker.kill().unwrap();
        worker.wait().unwrap();
        let store = Store::open(&path, owners()).unwrap();
        assert_eq!(verify(&store, None, &()).unwrap().damages, []);
        let names = |folder: &Path| -> Vec<String> {
            let entries = fs_err::read_dir(folder).unwrap();
            entries
                .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
                .collect()
        };
        let left = [names(&path), names(&path.join("rootfs"))].concat();
        assert!(
            !left
                .iter()
                .any(|name| name.starts_with("staging-") && !name.contains("format")),
            "{left:?}"
        );
    }
    let store = Store::open(&path, owners()).unwrap();
    gc(&store, Policy::default(), &()).unwrap();
    assert_eq!(verify(&store, None, &()).unwrap().damages, []);
    assert_eq!(fs_err::read_dir(path.join("trash")).unwrap().count(), 0);
    assert_eq!(fs_err::read_dir(path.join("scratch")).unwrap().count(), 0);
}

#[test]
fn builds_and_gc_at_once_do_not_harm_each_other() {
    let temp = Temporary::new();
    let path = temp.path().join("store");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for thread in 0..3 {
            let (path, done) = (&path, &done);
            scope.spawn(move || {
                let store = Store::open(path, owners()).unwrap();
                let mut salt = 0;
                while !done.load(Ordering::Relaxed) {
                    salt += 1;
                    let name = format!("image{thread}");
                    // Two of them build the same at the same time.
                    let (tree, id) = try_to_fill(&store, &name, many(20, salt + thread / 2)).unwrap();
                    let lease = store.lease(&id).unwrap();
                    assert!(store.has_rootfs(&tree.digest()).unwrap());
                    drop(lease);
                }
            });
        }
        let store = Store::open(&path, owners()).unwrap();
        for _ in 0..8 {
            gc(&store, Policy::default(), &()).unwrap();
        }
        done.store(true, Ordering::Relaxed);
    });
    let store = Store::open(&path, owners()).unwrap();
    assert_eq!(verify(&store, None, &()).unwrap().damages, []);
    for named in store.refs().unwrap() {
        let image = store.image(&named.image).unwrap();
        assert!(store.has_rootfs(&image.tree).unwrap());
    }
}

/// Notes for whom it was waited.
#[derive(Default)]
struct Waits(Mutex<Vec<String>>);

impl Watch for Waits {
    fn see(&self, event: Event<'_>) {
        if let Event::Waiting { on } = event {
            self.0.lock().unwrap().push(on.to_owned());
        }
    }
}

#[test]
fn who_wants_the_same_key_waits_and_is_told_for_whom() {
    let (_temp, store) = fresh();
    let key = Digest::of(b"key");
    let (inside, turns, waits) = (AtomicUsize::new(0), AtomicUsize::new(0), Waits::default());
    let first = store.lock_key(&key, "step 2, unpack a.tar", &()).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let _lock = store.lock_key(&key, "another", &waits).unwrap();
                assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two have the lock");
                std::thread::sleep(Duration::from_millis(5));
                inside.fetch_sub(1, Ordering::SeqCst);
                turns.fetch_add(1, Ordering::SeqCst);
            });
        }
        while waits.0.lock().unwrap().len() < 4 {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(turns.load(Ordering::SeqCst), 0);
        drop(first);
    });
    assert_eq!(turns.load(Ordering::SeqCst), 4);
    let told = format!(
        "process {}, which builds step 2, unpack a.tar",
        std::process::id()
    );
    assert_eq!(waits.0.lock().unwrap()[0], told);
    assert!(!store.path().join("locks").join(key.to_string()).exists());
}

#[test]
fn all_of_this_holds_with_a_single_id() {
    if work().is_some() || !has_namespaces() {
        return;
    }
    let temp = Temporary::new();
    let this = std::env::current_exe().unwrap();
    let done = Command::new("unshare")
        .arg("-Ur")
        .arg(this)
        .args(["--skip", "limits::"])
        .env(WORK, temp.path())
        .output();
    let done = done.unwrap();
    let text = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success(), "{text}");
    assert!(text.contains("test result: ok"), "{text}");
}

#[test]
fn single_id_worker() {
    let Some(path) = work() else { return };
    let store = Store::open(&path.join("store"), Owners::Single).unwrap();
    let mut files = vec![
        file("nobody-reads", 0, "but root"),
        file("setuid", 0o6711, "x"),
        file("caps", 0o755, "y"),
    ];
    for file in &mut files {
        (file.1.uid, file.1.gid) = (1000, 2000);
    }
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    files[2].1.keep_xattr(b"security.capability", &capability);
    let (tree, id) = try_to_fill(&store, "owned", files).unwrap();
    assert_eq!(verify(&store, None, &()).unwrap().damages, []);
    let root = store.rootfs_path(&tree.digest());
    assert_eq!(fs_err::read(root.join("nobody-reads")).unwrap(), b"but root");
    let setuid = fs_err::metadata(root.join("setuid")).unwrap();
    assert_eq!(
        (setuid.mode() & 0o7777, setuid.uid(), setuid.gid()),
        (0o6711, 0, 0)
    );
    let text = String::from_utf8(store.tree(&tree.digest()).unwrap().encode()).unwrap();
    assert!(
        text.contains("./setuid type=file mode=6711 uid=1000 gid=2000"),
        "{text}"
    );
    assert_eq!(store.image(&id).unwrap().top_id, 2000);
}

#[test]
fn modes_and_true_owners_are_kept_with_a_single_id() {
    if work().is_some() || !has_namespaces() {
        return;
    }
    let temp = Temporary::new();
    let done = rerun(&["unshare", "-Ur"], "limits::single_id_worker", temp.path())
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stdout));
}

#[test]
fn full_disk_worker() {
    let Some(path) = work() else { return };
    let path = path.join("store");
    let store = Store::open(&path, owners()).unwrap();
    filled(&store, "first");
    let large = vec![file("large", 0o644, &"x".repeat(20 << 20))];
    let error = try_to_fill(&store, "large", large).unwrap_err();
    assert!(matches!(error, Error::Full { .. }), "{error:?}");
    assert_eq!(
        error.to_string(),
        format!("the disk that holds the store `{}` is full", path.display())
    );
    // Full at every point in turn: the ballast leaves one page more each time.
    let ballast = path.parent().unwrap().join("ballast");
    let mut outcomes = BTreeSet::new();
    for pages in 0..60 {
        let mut out = fs_err::File::create(&ballast).unwrap();
        while io::Write::write_all(&mut out, &[0; 4096]).is_ok() {}
        out.file()
            .set_len(out.metadata().unwrap().len() - pages * 4096)
            .unwrap();
        let done = try_to_fill(&store, "more", many(30, pages));
        assert!(matches!(done, Ok(_) | Err(Error::Full { .. })), "{done:?}");
        outcomes.insert(done.is_ok());
        fs_err::remove_file(&ballast).unwrap();
        assert_eq!(verify(&store, None, &()).unwrap().damages, []);
        gc(&store, Policy::default(), &()).unwrap();
    }
    assert_eq!(
        outcomes.len(),
        2,
        "the ballast was always too small, or always too large"
    );
    filled(&store, "last");
}

#[test]
fn a_full_disk_is_an_error_and_the_store_stays_whole() {
    if work().is_some() || !has_namespaces() {
        return;
    }
    let temp = Temporary::new();
    let mount = format!(
        "mount -t tmpfs -o size=8m tmpfs {} && exec \"$0\" \"$@\"",
        temp.path().display()
    );
    let wrapper = ["unshare", "-Urm", "sh", "-c", &mount];
    let done = rerun(&wrapper, "limits::full_disk_worker", temp.path())
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stdout));
}

#[test]
fn a_file_with_more_names_than_the_filesystem_allows_is_copied() {
    let (_temp, store) = fresh();
    let stage = store.stage().unwrap();
    let files = (0..65_100)
        .map(|at| file(&format!("{:02}/{at}", at % 50), 0o644, "same"))
        .collect();
    let tree = layer(&stage, files);
    stage.commit().unwrap();
    let digest = store.put_tree(&tree).unwrap();
    rootfs::checkout(&store, &digest, &tree, &()).unwrap();
    let root = store.rootfs_path(&digest);
    let inodes: BTreeSet<u64> = (0..65_100)
        .map(|at| inode(&root.join(format!("{:02}/{at}", at % 50))))
        .collect();
    assert_eq!(verify(&store, None, &()).unwrap().damages, []);
    match inodes.len() {
        1 => skip("a filesystem that limits links"),
        // ext4 allows 65000 names; one is the object's.
        count => assert_eq!(count, 2),
    }
}

#[test]
fn more_attributes_than_a_file_can_have_are_not_a_full_disk() {
    let (_temp, store) = fresh();
    let mut attributed = file("attributed", 0o644, "x");
    for number in 0..40 {
        attributed
            .1
            .keep_xattr(format!("user.{number}").as_bytes(), &[b'x'; 60_000]);
    }
    let Err(error) = try_to_fill(&store, "sample", vec![attributed]) else {
        return skip("a filesystem that does not hold two megabytes of extended attributes on one file");
    };
    let text = error.to_string();
    let told =
        "the filesystem that holds the store does not hold all extended attributes of a file (40, 2400";
    assert!(text.starts_with(told), "{text}");
    assert_eq!(verify(&store, None, &()).unwrap().damages, []);
}

#[test]
fn a_folder_that_somebody_else_is_making_a_store_of_holds_nothing_foreign() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("store");
    assert_eq!(Store::foreign_in(&path).unwrap(), None);
    for name in ["objects", "volumes"] {
        fs_err::create_dir_all(path.join(name)).unwrap();
    }
    assert_eq!(Store::foreign_in(&path).unwrap(), None);
    Store::open(&path, Owners::Single).unwrap();
    fs_err::write(path.join("volumes/x"), "").unwrap();
    assert_eq!(Store::foreign_in(&path).unwrap(), None);
    fs_err::write(path.join("mine"), "").unwrap();
    assert_eq!(Store::foreign_in(&path).unwrap().as_deref(), Some("mine"));
}

/// A name that mk could have given to a staging folder, in some other boot.
const STAGING: &str = "staging-0123456789abcdef0123456789abcdef-0123456789abcdef";

/// Of what gc does not know in such folders, nothing stays.
#[test]
fn a_folder_that_only_looks_like_a_store_does_not_become_one() {
    let temp = tempfile::tempdir().unwrap();
    for (own, file) in [
        ("images", "images/cat.jpg"),
        ("unsynced", "unsynced"),
        ("staging-site", "staging-site/index.html"),
        (
            "staging-deploy-1732982400000000",
            "staging-deploy-1732982400000000/index.html",
        ),
        (
            STAGING,
            "staging-0123456789abcdef0123456789abcdef-0123456789abcdef/x",
        ),
    ] {
        let path = temp.path().join(own);
        fs_err::create_dir_all(path.join(file).parent().unwrap()).unwrap();
        fs_err::write(path.join(file), "").unwrap();
        let error = Store::open(&path, Owners::Single).unwrap_err().to_string();
        assert!(error.ends_with(&format!("it holds `{own}`")), "{error}");
        Store::sweep_unmade(&path);
        assert!(path.join(file).exists());
    }
}

#[test]
fn what_is_left_of_a_store_that_was_being_made_is_swept_and_not_what_is_in_use() {
    let temp = tempfile::tempdir().unwrap();
    let [left, used] = ["0123456789abcdef", "fedcba9876543210"]
        .map(|random| temp.path().join(format!("staging-format-{random}")));
    fs_err::write(&left, "").unwrap();
    let file = fs_err::File::create(&used).unwrap();
    file.file().lock().unwrap();
    Store::sweep_unmade(temp.path());
    assert_eq!((left.exists(), used.exists()), (false, true));
    assert_eq!(Store::foreign_in(temp.path()).unwrap(), None);
}

#[test]
fn a_file_that_is_only_called_like_a_draft_stays() {
    let (temp, name) = (tempfile::tempdir().unwrap(), "staging-format-1234567812345678");
    fs_err::write(temp.path().join(name), "notes\n").unwrap();
    assert_eq!(Store::foreign_in(temp.path()).unwrap().as_deref(), Some(name));
    Store::sweep_unmade(temp.path());
    let (_temp, store) = fresh();
    fs_err::write(store.path().join(name), "notes\n").unwrap();
    drop(store.hold(&()).unwrap());
    for folder in [temp.path(), store.path()] {
        assert_eq!(fs_err::read_to_string(folder.join(name)).unwrap(), "notes\n");
    }
}

#[test]
fn a_draft_that_is_cut_short_is_swept() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("store");
    Store::open(&path, Owners::Single).unwrap();
    let text = fs_err::read(path.join("format")).unwrap();
    fs_err::remove_file(path.join("format")).unwrap();
    let draft = path.join("staging-format-1234567812345678");
    for end in [0, 5, 30, text.len() - 1, text.len()] {
        fs_err::write(&draft, &text[..end]).unwrap();
        assert_eq!(Store::foreign_in(&path).unwrap(), None, "{end}");
        Store::sweep_unmade(&path);
        assert!(!draft.exists(), "{end}");
    }
    fs_err::write(&draft, &text[..30]).unwrap();
    drop(Store::open(&path, Owners::Single).unwrap().hold(&()).unwrap());
    assert!(!draft.exists());
}

/// Neither a staging folder nor a draft, for all their names.
fn put_wrong_kinds(folder: &Path, number: usize) -> PathBuf {
    let (staging, draft) = (
        folder.join(STAGING),
        folder.join("staging-format-1234567812345678"),
    );
    let link = |path: &Path| fs_err::os::unix::fs::symlink("/etc", path).unwrap();
    match number {
        0 => fs_err::write(&staging, "").unwrap(),
        1 => link(&staging),
        2 => fs_err::create_dir(&draft).unwrap(),
        _ => link(&draft),
    }
    if number < 2 { staging } else { draft }
}

#[test]
fn what_has_the_name_of_staging_and_is_something_else_makes_no_store() {
    for number in 0..4 {
        let temp = tempfile::tempdir().unwrap();
        let put = put_wrong_kinds(temp.path(), number);
        let refused = Store::open(temp.path(), owners()).unwrap_err();
        assert!(matches!(refused, Error::NotAStore { .. }), "{number}: {refused}");
        let left: Vec<_> = fs_err::read_dir(temp.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        assert_eq!(left, [put]);
    }
}

#[test]
fn what_has_the_name_of_staging_and_is_something_else_does_not_stop_a_sweep() {
    for number in 0..4 {
        let (_temp, store) = fresh();
        let folders = [store.path().to_owned(), store.path().join("rootfs")];
        let put = folders.map(|folder| put_wrong_kinds(&folder, number));
        let left = store.path().join(STAGING.replace("staging-0", "staging-a"));
        fs_err::create_dir(&left).unwrap();
        drop(store.hold(&()).unwrap());
        assert!(!left.exists());
        fs_err::remove_file(&put[1])
            .or_else(|_| fs_err::remove_dir(&put[1]))
            .unwrap();
        gc(&store, Policy::default(), &()).unwrap();
        assert_eq!(verify(&store, None, &()).unwrap().damages, []);
        assert!(put[0].symlink_metadata().is_ok(), "{number}");
    }
}

#[test]
fn a_folder_of_another_user_is_left_as_it_is() {
    let temp = Temporary::new();
    let path = temp.path().join("theirs");
    fs_err::create_dir(&path).unwrap();
    fs_err::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    if fs_err::os::unix::fs::chown(&path, Some(1000), Some(1000)).is_err() {
        return skip("root");
    }
    let draft = path.join("staging-format-1234567812345678");
    fs_err::write(&draft, "").unwrap();
    let refused = Store::open(&path, owners()).unwrap_err();
    assert!(matches!(refused, Error::NotOurs { .. }), "{refused}");
    Store::sweep_unmade(&path);
    assert_eq!(fs_err::metadata(&path).unwrap().mode() & 0o7777, 0o755);
    assert_eq!(fs_err::read_dir(&path).unwrap().count(), 1);
    assert!(draft.exists());
}

#[test]
fn a_format_that_is_not_of_mk_makes_the_folder_no_store() {
    let temp = tempfile::tempdir().unwrap();
    let put: [fn(&Path); 4] = [
        |path| fs_err::write(path, "A4\n").unwrap(),
        |path| fs_err::create_dir(path).unwrap(),
        |path| fs_err::os::unix::fs::symlink("/etc/hostname", path).unwrap(),
        |path| assert!(Command::new("mkfifo").arg(path).status().unwrap().success()),
    ];
    for (number, put) in put.into_iter().enumerate() {
        let path = temp.path().join(number.to_string());
        fs_err::create_dir(&path).unwrap();
        put(&path.join("format"));
        let told = format!(
            "`{}` is not a store, and not empty either: it holds `format`",
            path.display()
        );
        assert_eq!(Store::owners_at(&path).unwrap_err().to_string(), told);
        assert_eq!(Store::open(&path, owners()).unwrap_err().to_string(), told);
        assert_eq!(fs_err::read_dir(&path).unwrap().count(), 1, "{number}");
    }
}

#[test]
fn a_symbolic_link_for_a_folder_of_a_store_makes_it_none() {
    let temp = tempfile::tempdir().unwrap();
    fs_err::os::unix::fs::symlink("/srv", temp.path().join("images")).unwrap();
    let refused = Store::open(temp.path(), owners()).unwrap_err();
    assert!(matches!(refused, Error::NotAStore { .. }), "{refused}");
}

#[test]
fn a_filesystem_with_nothing_but_its_lost_and_found_becomes_a_store() {
    for found in [false, true] {
        let temp = Temporary::new();
        fs_err::create_dir(temp.path().join("lost+found")).unwrap();
        if found {
            fs_err::write(temp.path().join("lost+found/#12"), "").unwrap();
        }
        assert_eq!(Store::open(temp.path(), owners()).is_err(), found);
        assert!(temp.path().join("lost+found").exists());
    }
}

#[test]
fn mounts_in_staging_worker() {
    let Some(path) = work() else { return };
    let store = Store::open(&path.join("store"), owners()).unwrap();
    let staging = store.path().join(STAGING);
    fs_err::create_dir_all(path.join("precious/folder")).unwrap();
    fs_err::write(path.join("precious/folder/file"), "").unwrap();
    fs_err::create_dir_all(staging.join("mounted")).unwrap();
    fs_err::write(staging.join("left"), "").unwrap();
    let run = |program: &str, words: &[&str]| {
        let mut command = Command::new(program);
        assert!(command.args(words).current_dir(&path).status().unwrap().success());
    };
    let (folder, file) = (
        format!("store/{STAGING}/mounted"),
        format!("store/{STAGING}/left"),
    );
    run("mount", &["--bind", "precious", &folder]);
    drop(store.hold(&()).unwrap());
    gc(&store, Policy::default(), &()).unwrap();
    assert!(path.join("precious/folder/file").exists());
    run("umount", &[&folder]);
    fs_err::write(staging.join("left"), "").unwrap();
    run("mount", &["--bind", "precious/folder/file", &file]);
    drop(store.hold(&()).unwrap());
    assert!(path.join("precious/folder/file").exists());
    run("umount", &[&file]);
    drop(store.hold(&()).unwrap());
    assert!(!staging.exists());
}

#[test]
fn what_is_mounted_in_a_staging_folder_is_not_swept() {
    if work().is_some() || !has_namespaces() {
        return;
    }
    let temp = Temporary::new();
    let wrapper = ["unshare", "-Urm"];
    let done = rerun(&wrapper, "limits::mounts_in_staging_worker", temp.path())
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stdout));
}
