use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

use super::{boxed, eventually, finish, processes_with, says, sh, start};
use crate::harness::chance::Chance;
use crate::harness::{Output, Sandbox, needs};

/// A sandbox with the image `box`, where this machine lets containers have ids of their own.
fn mapped(more: &str) -> Option<Sandbox> {
    if !needs::root() {
        return None;
    }
    let sandbox = boxed(more)?;
    let tried = sh(&sandbox, &["--userns", "auto"], "true");
    if tried.code != Some(0) && tried.stderr.contains("takes Linux 5.19") {
        needs::skipped("Linux 5.19");
        return None;
    }
    tried.ok();
    Some(sandbox)
}

#[track_caller]
fn fails(output: Output, expected: &[&str]) {
    assert_eq!(output.code, Some(125), "{output}");
    for text in expected {
        assert!(output.stderr.contains(text), "{text:?} is not in {output}");
    }
}

/// The first id outside of a container whose root calls `script`, which must print `/proc/self/uid_map` first.
fn first_id(map: &str) -> u32 {
    let words: Vec<u32> = map
        .split_whitespace()
        .take(3)
        .map(|word| word.parse().unwrap())
        .collect();
    assert_eq!((words[0], words[2]), (0, 65536), "{map}");
    words[1]
}

#[test]
fn the_containers_root_is_nobody_on_the_host() {
    let Some(sandbox) = mapped("") else { return };
    let marker = super::marker();
    let script =
        "cat /proc/self/uid_map /proc/self/gid_map; id -u; stat -c '%u %g' /bin/busybox / /etc/hosts";
    let said = says(&sandbox, &["--userns", "auto"], script);
    let first = first_id(&said);
    assert!((0x7000_0000..0x7ffe_0000).contains(&first), "{said}");
    assert!(said.ends_with("\n0\n0 0\n0 0\n0 0"), "{said}");
    let run = start(
        &sandbox,
        &["--userns", "auto"],
        &format!("echo up; sleep {marker}; true"),
    );
    let pids = processes_with(&marker);
    let status = fs_err::read_to_string(format!("/proc/{}/status", pids[pids.len() - 1])).unwrap();
    let uids = status.lines().find(|line| line.starts_with("Uid:")).unwrap();
    let uid: u32 = uids.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!((0x7000_0000..0x7ffe_0000).contains(&uid), "{uids}");
    drop(run);
    for pid in processes_with(&marker) {
        let _ = nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(pid as i32),
            nix::sys::signal::Signal::SIGKILL,
        );
    }
    // The control: without it, root is root.
    assert_eq!(
        says(
            &sandbox,
            &["--userns", "host"],
            "head -1 /proc/self/uid_map | tr -s ' '"
        ),
        " 0 0 4294967295"
    );
}

#[test]
fn the_image_is_written_to_as_ever_and_stays_as_it_is() {
    let Some(sandbox) = mapped(
        "[[step]]\nuser = 'app'\nuid = 1000\n[[step]]\ndir = '/srv/app'\nowner = '1000:1000'\nmode = '0700'\n",
    ) else {
        return;
    };
    let options = ["--userns", "auto"];
    let script = "echo x >/written && mkdir /etc/d && rm /bin/vi && mv /bin/wc /bin/wc2 && chown 1000:1000 /etc/group && \
                  stat -c '%u %g' /written /etc/group && rm -r /usr && mkdir /usr && ls -A /usr && touch /etc/hosts && hostname";
    assert_eq!(says(&sandbox, &options, script), "0 0\n1000 1000\nmk");
    assert_eq!(
        says(
            &sandbox,
            &["--userns", "auto", "-u", "app"],
            "id -u; echo y >/srv/app/f; stat -c %u /srv/app/f; touch /x 2>/dev/null || echo refused"
        ),
        "1000\n1000\nrefused"
    );
    assert_eq!(
        says(
            &sandbox,
            &["--userns", "auto", "--hostname", "other", "--network", "host"],
            "hostname; grep -c other /etc/hosts"
        ),
        "other\n1"
    );
    sandbox.verify();
}

#[test]
fn files_of_a_volume_are_roots_on_both_sides() {
    let Some(sandbox) = mapped("") else { return };
    sandbox.write("d/theirs", "x");
    let theirs = sandbox.work().join("d/theirs");
    chown(&theirs, Some(4711), Some(4711)).unwrap();
    fs_err::set_permissions(sandbox.work().join("d"), PermissionsExt::from_mode(0o700)).unwrap();
    for option in ["", ":idmap"] {
        let options = ["--userns", "auto", "-v", &format!("./d:/mnt{option}")];
        let script = "cd /mnt && stat -c '%u' theirs && echo new >new && chown 7:7 theirs && rm -f new2 && mv new new2";
        assert_eq!(says(&sandbox, &options, script).lines().count(), 1);
        let new = fs_err::metadata(sandbox.work().join("d/new2")).unwrap();
        assert_eq!((new.uid(), new.gid()), (0, 0));
        assert_eq!(fs_err::metadata(&theirs).unwrap().uid(), 7);
    }
    let read_only = ["--userns", "auto", "-v", "./d:/mnt:ro"];
    assert_eq!(
        says(&sandbox, &read_only, "touch /mnt/x 2>/dev/null || echo refused"),
        "refused"
    );
}

#[test]
fn a_volume_whose_ids_are_not_mapped_is_somebody_elses() {
    let Some(sandbox) = mapped("") else { return };
    let file = sandbox.write("d/f", "secret\n");
    fs_err::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
    let script = "stat -c %u /mnt/f; cat /mnt/f 2>&1; echo x >/mnt/f; touch /mnt/new; chown 0 /mnt/f; chmod 777 /mnt/f; rm /mnt/f; true";
    let output = sh(&sandbox, &["--userns", "auto", "-v", "./d:/mnt:noidmap"], script).ok();
    assert_eq!(
        output.stdout, "65534\ncat: can't open '/mnt/f': Permission denied\n",
        "{output}"
    );
    assert_eq!(fs_err::read_to_string(&file).unwrap(), "secret\n");
    let found = fs_err::metadata(&file).unwrap();
    assert_eq!((found.uid(), found.mode() & 0o777), (0, 0o600));
    assert_eq!(fs_err::read_dir(sandbox.work().join("d")).unwrap().count(), 1);
    // The control: the same with the ids of the host.
    let control = sh(&sandbox, &["-v", "./d:/mnt"], "cat /mnt/f && rm /mnt/f").ok();
    assert_eq!(control.stdout, "secret\n");
    assert!(!file.exists());
}

#[test]
fn named_volumes_and_other_images_are_the_containers() {
    let Some(sandbox) = mapped(
        "[[step]]\nuser = 'app'\nuid = 1000\n[[step]]\ndir = '/srv/app'\nowner = '1000:1000'\nmode = '0700'\n",
    ) else {
        return;
    };
    let options = [
        "--userns",
        "auto",
        "-u",
        "app",
        "-v",
        "data:/srv/app",
        "--mount",
        "type=image,source=box,target=/other",
    ];
    let script = "echo x >/srv/app/f; stat -c '%u %a' /srv/app /srv/app/f /other/srv/app; touch /other/x 2>/dev/null || echo refused";
    assert_eq!(
        says(&sandbox, &options, script),
        "1000 700\n1000 644\n1000 700\nrefused"
    );
    let stored = fs_err::metadata(sandbox.store().join("volumes/data/data/f")).unwrap();
    assert_eq!(stored.uid(), 1000);
    assert_eq!(
        says(&sandbox, &["-u", "app", "-v", "data:/srv/app"], "cat /srv/app/f"),
        "x"
    );
}

#[test]
fn writes_to_a_disk_are_kept_under_the_images_ids() {
    let Some(sandbox) = mapped("") else { return };
    assert_eq!(
        says(
            &sandbox,
            &["--userns", "auto", "--scratch", "disk"],
            "echo x >/f; rm /bin/vi; cat /f"
        ),
        "x"
    );
    let options = ["--userns", "auto", "--scratch", "./kept"];
    says(&sandbox, &options, "echo x >/f; chown 7:7 /f; rm /bin/vi");
    assert_eq!(
        says(
            &sandbox,
            &options,
            "cat /f; stat -c %u /f; ls /bin/vi 2>/dev/null || echo gone"
        ),
        "x\n7\ngone"
    );
    assert_eq!(
        fs_err::metadata(sandbox.work().join("kept/upper/f"))
            .unwrap()
            .uid(),
        7
    );
    fails(
        sh(&sandbox, &["--scratch", "./kept"], "true"),
        &["was written by root with `--userns auto`"],
    );
    let names = fs_err::read_dir(sandbox.store())
        .unwrap()
        .map(|entry| entry.unwrap().file_name());
    assert!(
        !names
            .into_iter()
            .any(|name| name.to_string_lossy().starts_with("staging-"))
    );
}

#[test]
fn two_at_once_have_different_ids_and_a_kill_frees_them() {
    let Some(sandbox) = mapped("") else { return };
    let marker = super::marker();
    let script = format!("echo up; cat /proc/self/uid_map; sleep {marker}");
    let first_of = |run: &mut std::process::Child| {
        use std::io::{BufRead, BufReader};
        let mut line = String::new();
        BufReader::new(run.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        first_id(&line)
    };
    let mut one = start(&sandbox, &["--userns", "auto"], &script);
    let mut other = start(&sandbox, &["--userns", "auto"], &script);
    let (ids, other_ids) = (first_of(&mut one), first_of(&mut other));
    assert!(ids.abs_diff(other_ids) >= 65536, "{ids} {other_ids}");
    for run in [&mut one, &mut other] {
        run.kill().unwrap();
        run.wait().unwrap();
    }
    eventually("the end of the containers", || processes_with(&marker).is_empty());
    let lowest = ids.min(other_ids);
    eventually("free ids", || {
        first_id(&says(&sandbox, &["--userns", "auto"], "cat /proc/self/uid_map")) == lowest
    });
}

#[test]
fn a_run_with_ids_of_its_own_that_is_killed_at_any_moment_leaves_nothing_in_use() {
    let Some(sandbox) = mapped("") else { return };
    let marker = super::marker();
    let options = ["--userns", "auto", "--scratch", "disk", "-v", "data:/data"];
    let words = [&["run", "box"], &options[..], &["sh", "-c"]].concat();
    let begin = std::time::Instant::now();
    let ids = first_id(&says(&sandbox, &options, "cat /proc/self/uid_map"));
    let duration = begin.elapsed();
    let mut chance = Chance::new();
    for round in 0..40 {
        let script = format!("echo x >/x; exec sleep {marker}");
        let mut run = sandbox.command().args(&words).arg(&script).spawn().unwrap();
        let moment = chance.moment(duration * 3 / 2);
        std::thread::sleep(moment);
        run.kill().unwrap();
        run.wait().unwrap();
        let what = format!(
            "killed after {moment:?}, round {round}, MK_TEST_SEED={}",
            chance.seed
        );
        eventually(&what, || processes_with(&marker).is_empty());
    }
    // The ids, the volume and the folder are free, and what is left of the folders goes with the next run.
    eventually("free ids", || {
        first_id(&says(&sandbox, &options, "cat /proc/self/uid_map")) == ids
    });
    eventually("no folder", || {
        says(&sandbox, &options, "true");
        let names = fs_err::read_dir(sandbox.store())
            .unwrap()
            .map(|entry| entry.unwrap().file_name());
        !names
            .into_iter()
            .any(|name| name.to_string_lossy().starts_with("staging-"))
    });
    sandbox.mk(["volumes", "rm", "data"]).ok();
    sandbox.verify();
}

#[test]
fn a_filesystem_that_cannot_map_ids_is_named() {
    let Some(sandbox) = mapped("") else { return };
    fails(
        sh(&sandbox, &["--userns", "auto", "-v", "/proc/self:/mnt"], "true"),
        &["the filesystem `proc` cannot do that", "noidmap"],
    );
    says(
        &sandbox,
        &["--userns", "auto", "-v", "/proc/self:/mnt:noidmap"],
        "true",
    );
}

#[test]
fn ids_of_its_own_go_with_limits_a_reaper_or_none_and_a_life_behind() {
    let Some(sandbox) = mapped("") else { return };
    assert_eq!(
        says(&sandbox, &["--userns", "auto", "--as-pid1"], "echo $$; id -u"),
        "1\n0"
    );
    let limited = sh(
        &sandbox,
        &["--userns", "auto", "--pids", "50", "--ulimit", "nofile=64"],
        "ulimit -n; id -u",
    );
    assert!(
        limited.stdout == "64\n0\n" || limited.stderr.contains("cgroup"),
        "{limited}"
    );
    let run = start(
        &sandbox,
        &["--userns", "auto", "--name", "inner"],
        "echo up; cat >/dev/null; cat /from-outside",
    );
    let inside = sandbox.mk([
        "exec",
        "inner",
        "sh",
        "-c",
        "id -u; head -1 /proc/self/uid_map | tr -s ' ' | cut -d ' ' -f 4; echo joined >/from-outside",
    ]);
    let ended = finish(run);
    if inside.code == Some(2) {
        return needs::skipped("`mk exec`");
    }
    assert_eq!(inside.ok().stdout, "0\n65536\n");
    assert_eq!(ended, ("joined\n".to_owned(), Some(0)));
}

#[test]
fn an_ordinary_users_container_has_its_own_ids_anyway() {
    if needs::is_root() {
        return needs::skipped("an ordinary user");
    }
    let Some(sandbox) = boxed("") else { return };
    fails(
        sh(&sandbox, &["--userns", "auto"], "true"),
        &["`--userns auto` is for root of the machine"],
    );
    says(&sandbox, &["--userns", "host"], "true");
}
