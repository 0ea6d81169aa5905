//! Folders that cannot be trusted, and places that are full.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use super::{Life, fails};
use crate::harness::needs;

#[test]
fn a_state_that_others_had_a_hand_in_is_refused() {
    let Some(life) = Life::new() else { return };
    let state = life.state();
    let elsewhere = life.work().join("elsewhere");
    fs_err::create_dir(&elsewhere).unwrap();
    fs_err::set_permissions(&elsewhere, PermissionsExt::from_mode(0o700)).unwrap();
    let all = [
        &["run", "-d", "box", "true"][..],
        &["run", "--name", "web", "box", "true"],
        &["ps"],
        &["stop", "web"],
        &["logs", "web"],
    ];
    let refused = |why: &str| {
        for words in all {
            let code = if words[0] == "run" { 125 } else { 1 };
            let output = life.mk(words);
            fails(&output, code, why);
            assert!(output.stderr.contains("MK_STATE"), "{output}");
        }
        // Whoever needs none is not kept from anything.
        life.mk(["run", "box", "true"]).ok();
    };

    fs_err::os::unix::fs::symlink(&elsewhere, &state).unwrap();
    refused("it is a symlink or a file");
    assert_eq!(fs_err::read_dir(&elsewhere).unwrap().count(), 0);
    fs_err::remove_file(&state).unwrap();

    fs_err::write(&state, b"").unwrap();
    refused("it is a symlink or a file");
    fs_err::remove_file(&state).unwrap();

    fs_err::create_dir(&state).unwrap();
    fs_err::set_permissions(&state, PermissionsExt::from_mode(0o770)).unwrap();
    refused("its mode is 0770: others than its owner may use it");
    fs_err::set_permissions(&state, PermissionsExt::from_mode(0o700)).unwrap();

    if needs::root() {
        std::os::unix::fs::chown(&state, Some(12345), Some(12345)).unwrap();
        refused("it belongs to user 12345, not to you");
        std::os::unix::fs::chown(&state, Some(0), Some(0)).unwrap();
    }
    life.mk(["ps"]).ok();
}

#[test]
fn links_in_the_place_of_files_are_not_followed() {
    let Some(life) = Life::new() else { return };
    let id = life.detach(&["--name", "web"], "echo secret; exec sleep 60");
    life.until_it_prints("web", "secret");
    let folder = life.state().join(&id);
    let outside = life.work().join("outside");
    fs_err::write(&outside, "1970-01-01T00:00:00.000000000Z stdout F outside\n").unwrap();
    fs_err::remove_file(folder.join("log.1")).unwrap();
    fs_err::os::unix::fs::symlink(&outside, folder.join("log.1")).unwrap();
    let output = life.mk(["logs", "web"]);
    assert!(
        output.code == Some(1) && !output.stdout.contains("outside"),
        "{output}"
    );
    life.mk(["rm", "-f", "web"]).ok();
    assert!(outside.exists() && !folder.exists());
}

/// Calls `mk` with each of `calls` where its state is a tmpfs of `size`, and returns what was printed.
fn in_little_room(life: &Life, size: &str, calls: &str) -> Option<String> {
    if !needs::root() {
        return None;
    }
    let script = format!(
        "mount -t tmpfs -o mode=0700,size={size} none \"$MK_STATE\" && mk() {{ {} \"$@\"; }} && {{ {calls}; }} 2>&1",
        env!("CARGO_BIN_EXE_mk")
    );
    fs_err::create_dir_all(life.state()).unwrap();
    let mut command = Command::new("/usr/bin/unshare");
    command.args(["-m", "sh", "-c", &script]).current_dir(life.work());
    command.envs(
        life.command()
            .get_envs()
            .filter_map(|(name, value)| Some((name, value?))),
    );
    let output = command.output().unwrap();
    assert!(
        output.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Some(String::from_utf8(output.stdout).unwrap())
}

#[test]
fn a_full_place_is_an_error_before_anything_runs() {
    let Some(life) = Life::new() else { return };
    // Room for a lock and an end, and none for a document.
    let calls = "mk run -d box sh -c 'echo ran >/dev/full'; echo $?; ls \"$MK_STATE\"";
    let Some(said) = in_little_room(&life, "4k", calls) else {
        return;
    };
    assert!(said.contains("No space left on device"), "{said}");
    assert!(said.contains("hint: there is no room for it"), "{said}");
    assert!(said.ends_with("\n125\n"), "nothing is left: {said}");
}

#[test]
fn a_log_without_room_loses_lines_and_not_the_container() {
    let Some(life) = Life::new() else { return };
    let calls = "mk run -d --name job box sh -c 'seq 1 20000; exit 6' >id; mk wait job; mk logs job | tail -1; mk ps -a";
    let Some(said) = in_little_room(&life, "64k", calls) else {
        return;
    };
    assert!(said.starts_with("6\n"), "its end is known all the same: {said}");
    assert!(
        said.contains("were printed when the disk was full, and are lost"),
        "{said}"
    );
    assert!(said.contains("exited (6)"), "{said}");
}
