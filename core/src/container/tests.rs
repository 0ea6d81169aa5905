//! Folders of containers: who may look, what is swept, what a word means.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use super::document::{self, Exit, VERSION};
use super::*;

fn state() -> (tempfile::TempDir, PathBuf, State) {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("run");
    let state = State::open_or_make(&path).unwrap();
    (temp, path, state)
}

/// Returns the document of a container that is called `name`, at second `created`.
fn document(name: Option<&str>, created: i64) -> Document {
    Document {
        name: name.map(str::to_owned),
        created: Time::of(created, 0),
        boot: state::boot(),
        ..document::tests::document()
    }
}

fn exit(code: u8) -> Exit {
    Exit {
        version: VERSION,
        at: Time::of(0, 0),
        code,
        oom_killed: false,
        lost: 0,
    }
}

/// Makes a container whose command is this very process.
fn started(state: &State, document: Document) -> Own {
    let (mut own, gone) = state.create(document).unwrap();
    assert!(gone.is_empty());
    own.started(std::process::id() as i32, None).unwrap();
    own
}

/// Waits until nobody keeps the container alive: other tests start processes, which hold its lock until they execute.
fn let_go(folder: &Folder) {
    while folder.is_alive().unwrap() {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

/// Lets go of a container like a process that is killed.
fn kill(own: Own) {
    let folder = Folder {
        dir: own.folder().dir.open_dir(".").unwrap(),
    };
    drop(own);
    let_go(&folder);
}

#[test]
fn a_container_lives_until_its_owner_lets_go_and_is_remembered_with_its_end() {
    let (_temp, _, state) = state();
    let own = started(&state, document(Some("web"), 1));
    let id = own.document().id.clone();
    let (found, _) = state.find("web").unwrap();
    assert!(found.is_alive() && found.folder.exit().unwrap().is_none());
    assert_eq!(found.document, *own.document());
    let ending = found.folder.ending().unwrap();
    assert_eq!(ending.read().unwrap(), None);
    assert!(matches!(state.forget(&id), Err(Error::Running { .. })));

    own.ended(exit(7)).unwrap();
    let_go(&found.folder);
    assert_eq!(ending.read().unwrap(), Some(exit(7)));
    let (found, _) = state.find("web").unwrap();
    assert_eq!(found.life, Life::Ended(exit(7)));
    assert_eq!(found.folder.ending().unwrap().read().unwrap(), Some(exit(7)));
    state.forget(&id).unwrap();
    state.forget(&id).unwrap();
    assert!(matches!(state.find("web"), Err(Error::Unknown { .. })));
    assert_eq!(
        ending.read().unwrap(),
        Some(exit(7)),
        "who waited still learns it"
    );
}

#[test]
fn one_that_is_not_to_be_kept_is_gone_with_its_end() {
    let (_temp, path, state) = state();
    let own = started(
        &state,
        Document {
            keep: false,
            ..document(None, 1)
        },
    );
    let ending = own.folder().ending().unwrap();
    own.ended(exit(3)).unwrap();
    assert_eq!(ending.read().unwrap(), Some(exit(3)));
    assert_eq!(fs_err::read_dir(path).unwrap().count(), 0);
}

#[test]
fn the_dead_are_swept_and_told_of_once() {
    let (_temp, path, state) = state();
    let one = started(&state, document(Some("web"), 1));
    let other = started(
        &state,
        Document {
            boot: "another".into(),
            ..document(None, 2)
        },
    );
    kill(one);
    kill(other);
    let seen = state.look().unwrap();
    assert!(seen.containers.is_empty() && seen.unreadable.is_empty());
    let gone: Vec<_> = seen
        .gone
        .iter()
        .map(|gone| (gone.document.name.as_deref(), gone.why))
        .collect();
    assert_eq!(gone, [(Some("web"), Why::Killed), (None, Why::Booted)]);
    assert!(state.look().unwrap().gone.is_empty());
    assert_eq!(fs_err::read_dir(path).unwrap().count(), 0);
}

#[test]
fn whoever_was_killed_while_making_or_removing_a_folder_leaves_nothing_to_tell_of() {
    let (_temp, path, state) = state();
    // Made, and its command never ran.
    kill(state.create(document(Some("web"), 1)).unwrap().0);
    // Nothing but the folder; a lock; a document that was being written.
    for (id, files) in [
        ("00000000000a", &[][..]),
        ("00000000000b", &["lock"]),
        ("00000000000c", &["lock", "ending", "container.json.new"]),
        ("00000000000d", &["exit", "log.1"]),
    ] {
        fs_err::create_dir(path.join(id)).unwrap();
        for file in files {
            fs_err::write(path.join(id).join(file), b"{").unwrap();
        }
    }
    // None of mk's.
    fs_err::write(path.join("notes"), b"mine").unwrap();
    let seen = state.look().unwrap();
    assert!(seen.containers.is_empty() && seen.gone.is_empty(), "{seen:?}");
    // What says how it ended, and says nothing, is nobody's half-made folder.
    assert_eq!(seen.unreadable.len(), 1, "{:?}", seen.unreadable);
    let mut left: Vec<_> = fs_err::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    left.sort();
    assert_eq!(left, ["00000000000d", "notes"]);
}

#[test]
fn a_name_is_had_by_one_living_container_and_the_next_takes_it_over() {
    let (_temp, _, state) = state();
    let first = started(&state, document(Some("web"), 1));
    let id = first.document().id.clone();
    match state.create(document(Some("web"), 2)) {
        Err(Error::NameTaken { name, id: whose }) => assert_eq!((name.as_str(), whose), ("web", id.clone())),
        other => panic!("{other:?}"),
    }
    let folder = state.find("web").unwrap().0.folder;
    first.ended(exit(0)).unwrap();
    let_go(&folder);
    // One that does not come about leaves the earlier one alone.
    state
        .create(document(Some("web"), 3))
        .unwrap()
        .0
        .abandon()
        .unwrap();
    assert_eq!(state.find("web").unwrap().0.document.id, id);
    let second = started(&state, document(Some("web"), 4));
    assert_eq!(state.find("web").unwrap().0.document, *second.document());
    assert_eq!(
        state.look().unwrap().containers.len(),
        1,
        "the earlier one has gone"
    );
}

#[test]
fn one_name_asked_for_by_many_at_once_is_given_once() {
    let (_temp, path, _) = state();
    let made: Vec<_> = std::thread::scope(|scope| {
        let tries: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    let state = State::open_or_make(&path).unwrap();
                    state.create(document(Some("web"), 1)).ok()
                })
            })
            .collect();
        tries.into_iter().filter_map(|one| one.join().unwrap()).collect()
    });
    assert_eq!(made.len(), 1);
}

#[test]
fn a_word_is_a_name_or_the_beginning_of_one_id() {
    let (_temp, _, state) = state();
    let owns: Vec<_> = [Some("web"), None, Some("db")]
        .into_iter()
        .zip(1..)
        .map(|(name, created)| started(&state, document(name, created)))
        .collect();
    let seen = state.look().unwrap();
    let ids: Vec<&str> = owns.iter().map(|own| own.document().id.as_str()).collect();
    assert_eq!(
        seen.containers
            .iter()
            .map(|found| found.document.id.as_str())
            .collect::<Vec<_>>(),
        ids,
        "the oldest first"
    );
    for id in &ids {
        assert_eq!(state.find(id).unwrap().0.document.id.as_str(), *id);
    }
    for id in &ids {
        let found = state.find(&id[..11]).unwrap().0;
        assert_eq!(found.document.id.as_str(), *id);
    }
}

#[test]
fn a_word_that_means_none_or_several_is_an_error() {
    let with = |id: &str, name: Option<&str>| Document {
        id: id.parse().unwrap(),
        ..document(name, 1)
    };
    let all = [
        with("abcd00000001", Some("web")),
        with("abcd00000002", Some("web")),
        with("0123456789ab", Some("abcd")),
    ];
    let pick = |alive: usize, word| {
        let known: Vec<_> = all
            .iter()
            .enumerate()
            .map(|(at, one)| (one, at == alive))
            .collect();
        state::pick(&known, word)
    };
    assert_eq!(pick(0, "web").unwrap(), 0, "the one that lives");
    assert_eq!(pick(2, "web").unwrap(), 1, "the younger");
    assert_eq!(pick(0, "abcd").unwrap(), 2, "a name comes before an id");
    assert_eq!(pick(0, "abcd00000002").unwrap(), 1);
    assert_eq!(pick(0, "0123").unwrap(), 2);
    match pick(0, "abcd0") {
        Err(Error::Ambiguous { ids, .. }) => assert_eq!(ids.len(), 2),
        other => panic!("{other:?}"),
    }
    for (word, likely) in [
        ("wbe", Some("web")),
        ("012", None),
        ("", None),
        ("ABCD00000001", None),
    ] {
        match pick(0, word) {
            Err(Error::Unknown { like, .. }) => assert_eq!(like.as_deref(), likely, "{word:?}"),
            other => panic!("{word:?}: {other:?}"),
        }
    }
}

#[test]
fn a_folder_that_others_had_a_hand_in_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("run");
    assert!(State::open(&path).unwrap().is_none());
    let why = |error: Error| match error {
        Error::NotOurs { why, .. } => why,
        other => panic!("{other:?}"),
    };

    fs_err::create_dir(&path).unwrap();
    fs_err::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    assert_eq!(
        why(State::open(&path).unwrap_err()),
        "its mode is 0755: others than its owner may use it"
    );
    fs_err::set_permissions(&path, PermissionsExt::from_mode(0o700)).unwrap();
    assert!(State::open(&path).is_ok());

    let link = temp.path().join("link");
    fs_err::os::unix::fs::symlink(&path, &link).unwrap();
    for link in [link.clone(), link.join(""), link.join(".")] {
        assert_eq!(
            why(State::open_or_make(&link).unwrap_err()),
            "it is a symlink or a file"
        );
    }
    fs_err::write(temp.path().join("file"), b"").unwrap();
    assert!(State::open_or_make(&temp.path().join("file")).is_err());
    assert!(State::open_or_make(&temp.path().join("no/where")).is_err());

    if std::os::unix::fs::chown(&path, Some(65534), None).is_ok() {
        assert_eq!(
            why(State::open(&path).unwrap_err()),
            "it belongs to user 65534, not to you"
        );
    }
}

#[test]
fn what_another_mk_wrote_is_told_of_and_left_alone() {
    let (_temp, path, state) = state();
    let own = started(&state, document(None, 1));
    let file = path.join(own.document().id.as_str()).join("container.json");
    fs_err::write(&file, br#"{"version": 99, "name": "web"}"#).unwrap();
    kill(own);
    let mut seen = state.look().unwrap();
    assert!(matches!(
        seen.take("web"),
        Err(Error::Unreadable { monitor: None, .. })
    ));
    assert!(matches!(seen.take("db"), Err(Error::Unknown { .. })));
    let told: Vec<String> = seen.unreadable.iter().map(ToString::to_string).collect();
    assert_eq!(told, [format!("cannot read `{}`", file.display())]);
    assert!(file.exists());
}
