//! Recipe → image, as a library: which steps are done again, which times files get, what is kept after a failure.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::sync::Mutex;
use std::time::SystemTime;

use mk_core::assemble::graph::{self, Node};
use mk_core::assemble::{Built, Error, Request, pin};
use mk_core::digest::Digest;
use mk_core::fetch;
use mk_core::path::TreePath;
use mk_core::plan::lock::{Lock, UrlPin};
use mk_core::recipe::{Conf, Location, Owner, Recipe, RunDefaults, Select, Source, Step, User, Verb};
use mk_core::store::{Owners, Store};
use mk_core::unpack::Limits;
use mk_core::watch::{Event, Watch};

/// A store and a folder with recipes' files, gone with the test.
struct Place {
    folder: tempfile::TempDir,
}

/// Labels of the steps that were really done.
#[derive(Default)]
struct Done(Mutex<Vec<String>>);

impl Watch for Done {
    fn see(&self, event: Event<'_>) {
        if let Event::StepFinished {
            label, cached: false, ..
        } = event
        {
            self.0.lock().unwrap().push(label.to_owned());
        }
    }
}

impl Place {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Writes a tar with one file of the time `mtime`.
    fn tar(&self, name: &str, file: &str, mtime: u64) {
        let mut archive = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o640);
        header.set_mtime(mtime);
        header.set_size(3);
        archive.append_data(&mut header, file, &b"hi\n"[..]).unwrap();
        fs_err::write(self.path().join(name), archive.into_inner().unwrap()).unwrap();
    }

    fn store(&self) -> Store {
        Store::open(&self.path().join("store"), Owners::Single).unwrap()
    }

    fn build(&self, verbs: Vec<Verb>) -> Result<(Built, Vec<String>), Error> {
        let done = Done::default();
        let built = self.build_seen(verbs, SystemTime::UNIX_EPOCH, &done)?;
        Ok((built, done.0.into_inner().unwrap()))
    }

    fn build_seen(&self, verbs: Vec<Verb>, now: SystemTime, watch: &dyn Watch) -> Result<Built, Error> {
        let steps = verbs
            .into_iter()
            .map(|verb| Step {
                verb,
                span: 0..0,
                args: vec![],
            })
            .collect();
        let recipe = Recipe {
            description: None,
            name: None,
            parent: None,
            args: BTreeMap::new(),
            epoch: None,
            steps,
            conf: Conf::default(),
            run: RunDefaults::default(),
        };
        let settings = fetch::Settings::new(now);
        let store = self.store();
        let lock = pin::pin(
            &recipe,
            &Lock::default(),
            pin::Policy::Complete,
            &settings,
            &store,
            watch,
        )?
        .lock;
        let request = Request {
            recipe: &recipe,
            folder: self.path(),
            lock: &lock,
            origin: "/test.toml",
            name: "test",
            arch: "amd64",
            epoch: None,
            fetch: &settings,
            limits: &Limits::default(),
            explain: false,
            secrets: &BTreeMap::new(),
            shell: None,
            reread: false,
        };
        let node = Node {
            request,
            bases: BTreeMap::new(),
            impure: Vec::new(),
        };
        graph::assemble(&[node], &store, watch).map_err(|failed| failed.error)
    }

    fn tree_text(&self, built: &Built) -> String {
        String::from_utf8(self.store().tree(&built.tree).unwrap().encode()).unwrap()
    }
}

fn path(text: &str) -> TreePath {
    TreePath::normalise(text).unwrap()
}

fn write(at: &str, text: &str) -> Verb {
    Verb::Write {
        path: path(at),
        text: text.into(),
        mode: 0o644,
        owner: Owner::default(),
    }
}

fn unpack(file: &str) -> Verb {
    let source = Source {
        location: Location::File(file.into()),
        sha256: None,
    };
    Verb::Unpack {
        source,
        select: Select::default(),
    }
}

fn copy(from: &str, into: &str) -> Verb {
    Verb::Copy {
        from: from.into(),
        into: path(into),
        mode: None,
        owner: Owner::default(),
    }
}

fn user(name: &str, uid: u32) -> Verb {
    Verb::User(User {
        name: name.into(),
        uid,
        gid: uid,
        home: format!("/home/{name}"),
        shell: "/bin/sh".into(),
        gecos: String::new(),
        groups: vec![],
    })
}

#[test]
fn files_get_the_newest_time_among_the_archives_also_before_these_are_unpacked() {
    let place = Place::new();
    place.tar("old.tar", "old", 500);
    place.tar("new.tar", "new", 900);
    let (built, _) = place
        .build(vec![write("a", "x"), unpack("old.tar"), unpack("new.tar")])
        .unwrap();
    let text = place.tree_text(&built);
    for line in [
        ". type=dir mode=0755 uid=0 gid=0 time=900.0",
        "./old type=file mode=0640 uid=0 gid=0 time=500.0",
    ] {
        assert!(text.contains(line), "{text}");
    }
    assert!(
        text.contains("./a type=file mode=0644 uid=0 gid=0 time=900.0"),
        "{text}"
    );
}

#[test]
fn only_the_changed_step_and_those_after_it_are_done_again() {
    let place = Place::new();
    place.tar("base.tar", "base", 5);
    let verbs = |text| {
        vec![
            unpack("base.tar"),
            write("a", "1"),
            write("b", text),
            write("c", "3"),
        ]
    };
    let (first, done) = place.build(verbs("2")).unwrap();
    assert_eq!(done, ["unpack base.tar", "write /a", "write /b", "write /c"]);
    let (again, done) = place.build(verbs("2")).unwrap();
    assert!(again.unchanged && done.is_empty());
    assert_eq!((again.image, again.cached), (first.image, 4));
    let (changed, done) = place.build(verbs("other")).unwrap();
    assert_eq!(done, ["write /b", "write /c"]);
    assert_eq!(changed.cached, 2);
    assert_ne!(changed.image, first.image);
}

#[test]
fn an_archive_twice_in_a_recipe_is_laid_twice() {
    let place = Place::new();
    place.tar("base.tar", "base", 5);
    let (built, _) = place
        .build(vec![
            unpack("base.tar"),
            write("base", "mine"),
            unpack("base.tar"),
        ])
        .unwrap();
    assert!(place.tree_text(&built).contains("./base type=file mode=0640"));
}

#[test]
fn a_step_that_fails_leaves_the_results_of_those_before_it_and_no_image() {
    let place = Place::new();
    place.tar("base.tar", "base", 5);
    let remove = Verb::Remove {
        patterns: vec!["nothing/*".into()],
    };
    let error = place.build(vec![unpack("base.tar"), remove]).unwrap_err();
    assert!(
        matches!(&error, Error::Step { index: 2, label, .. } if label == "remove nothing/*"),
        "{error}"
    );
    assert!(place.store().get_ref("test").unwrap().is_none());
    let (built, done) = place.build(vec![unpack("base.tar"), write("a", "x")]).unwrap();
    assert_eq!((done, built.cached), (vec!["write /a".to_owned()], 1));
}

#[test]
fn a_damaged_archive_is_an_error_that_names_it() {
    let place = Place::new();
    place.tar("base.tar", "base", 5);
    let mut bytes = fs_err::read(place.path().join("base.tar")).unwrap();
    bytes[0] ^= 1;
    fs_err::write(place.path().join("base.tar"), bytes).unwrap();
    let error = place.build(vec![unpack("base.tar")]).unwrap_err();
    let Error::Step { source, .. } = error else {
        panic!("{error}")
    };
    assert!(source.to_string().contains("base.tar"), "{source}");
}

/// Writes to a file when a step begins, or when files of it have been read.
struct Writes {
    path: std::path::PathBuf,
    late: bool,
}

impl Watch for Writes {
    fn see(&self, event: Event<'_>) {
        let now = match event {
            Event::StepStarted { .. } => !self.late,
            Event::StepProgress { .. } => self.late,
            _ => false,
        };
        if now {
            // Without an end that comes earlier meanwhile.
            let mut bytes = fs_err::read(&self.path).unwrap();
            bytes
                .iter_mut()
                .filter(|byte| **byte == b'x')
                .for_each(|byte| *byte = b'y');
            let mut file = fs_err::OpenOptions::new().write(true).open(&self.path).unwrap();
            file.write_all(&bytes).unwrap();
        }
    }
}

#[test]
fn an_archive_that_is_written_to_while_it_is_unpacked_makes_no_image() {
    let place = Place::new();
    let mut archive = tar::Builder::new(Vec::new());
    for number in 0..600 {
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o644);
        header.set_mtime(1_000_000_000);
        header.set_size(3000);
        let name = format!("file{number}");
        archive.append_data(&mut header, name, &[b'x'; 3000][..]).unwrap();
    }
    let bytes = archive.into_inner().unwrap();
    let path = place.path().join("a.tar");
    // So large, and so long ago written, that what it holds is remembered.
    assert!(bytes.len() > 1 << 20);
    for late in [false, true] {
        fs_err::write(&path, &bytes).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(120));
        let path = path.clone();
        let built = place.build_seen(vec![unpack("a.tar")], SystemTime::now(), &Writes { path, late });
        let error = match built.unwrap_err() {
            Error::Step { source, .. } => source.to_string(),
            other => other.to_string(),
        };
        assert_eq!(error, "`a.tar` changed while it was being read", "{late}");
    }
    fs_err::write(&path, &bytes).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(120));
    place
        .build_seen(vec![unpack("a.tar")], SystemTime::now(), &())
        .unwrap();
}

#[test]
fn what_is_included_must_be_in_one_of_the_steps_archives() {
    let place = Place::new();
    place.tar("base.tar", "bin/sh", 5);
    let including = |pattern: &str| {
        let mut verb = unpack("base.tar");
        if let Verb::Unpack { select, .. } = &mut verb {
            select.include = vec![pattern.into(), "etc/**".into()];
        }
        verb
    };
    // The archive is unpacked before its step the first time, for its times, and in its step from then on.
    for _ in 0..2 {
        let error = place.build(vec![including("bin/nope")]).unwrap_err();
        let Error::Step { index: 1, source, .. } = error else {
            panic!("{error}")
        };
        assert_eq!(
            source.to_string(),
            "nothing in `base.tar` matches `bin/nope`, `etc/**`"
        );
        place.build(vec![unpack("base.tar")]).unwrap();
    }
    let (built, _) = place.build(vec![including("bin/*")]).unwrap();
    assert!(place.tree_text(&built).contains("./bin/sh type=file"));
}

#[test]
fn a_folder_is_copied_without_what_the_machine_says_of_it() {
    let place = Place::new();
    let files = place.path().join("files");
    fs_err::create_dir_all(files.join("sub")).unwrap();
    fs_err::write(files.join("sub/text"), "hi\n").unwrap();
    std::os::unix::fs::symlink("sub/text", files.join("link")).unwrap();
    let (one, _) = place.build(vec![copy("files", "srv/data")]).unwrap();
    let text = place.tree_text(&one);
    for line in [
        "./srv/data type=dir mode=0755",
        "./srv/data/link type=link",
        "./srv/data/sub/text type=file mode=0644 uid=0 gid=0 time=0.0",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    fs_err::write(files.join("sub/text"), "hi\n").unwrap();
    assert!(place.build(vec![copy("files", "srv/data")]).unwrap().0.unchanged);
    fs_err::write(files.join("sub/text"), "ho\n").unwrap();
    assert_ne!(
        place.build(vec![copy("files", "srv/data")]).unwrap().0.image,
        one.image
    );
}

#[test]
fn users_are_lines_in_the_files_that_the_image_has() {
    let place = Place::new();
    let (built, _) = place
        .build(vec![
            write("etc/passwd", "root:x:0:0::/root:/bin/sh\n"),
            user("app", 7),
            user("other", 8),
        ])
        .unwrap();
    let rootfs = place.store().rootfs_path(&built.tree);
    let passwd = fs_err::read_to_string(rootfs.join("etc/passwd")).unwrap();
    assert_eq!(
        passwd,
        "root:x:0:0::/root:/bin/sh\napp:x:7:7::/home/app:/bin/sh\nother:x:8:8::/home/other:/bin/sh\n"
    );
    assert!(
        place
            .tree_text(&built)
            .contains("./home/app type=dir mode=0755 uid=7 gid=7")
    );
}

#[test]
fn a_pin_that_is_not_wanted_now_stays_until_all_are_renewed() {
    let place = Place::new();
    let url = "https://example.org/a.tar".to_owned();
    let pinned = UrlPin {
        sha256: Digest::of(b"a"),
        size: 1,
    };
    let lock = Lock {
        urls: [(url, pinned)].into(),
        ..Lock::default()
    };
    let recipe = Recipe {
        description: None,
        name: None,
        parent: None,
        args: BTreeMap::new(),
        epoch: None,
        steps: vec![],
        conf: Conf::default(),
        run: RunDefaults::default(),
    };
    let settings = fetch::Settings::new(SystemTime::UNIX_EPOCH);
    let pin = |policy| pin::pin(&recipe, &lock, policy, &settings, &place.store(), &()).unwrap();
    for policy in [pin::Policy::Complete, pin::Policy::Locked] {
        assert_eq!(
            pin(policy),
            pin::Pinned {
                lock: lock.clone(),
                changed: 0
            }
        );
    }
    assert_eq!(
        pin(pin::Policy::Renew),
        pin::Pinned {
            lock: Lock::default(),
            changed: 1
        }
    );
}
