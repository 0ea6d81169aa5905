use std::path::Path;

use super::{boxed, eventually, finish, listing, processes_with, says, sh, start};
use crate::harness::{Output, Sandbox, needs};

#[track_caller]
fn fails(output: Output, expected: &[&str]) {
    assert_eq!(output.code, Some(125), "{output}");
    for text in expected {
        assert!(output.stderr.contains(text), "{text:?} is not in {output}");
    }
}

/// Folders of the store in which the writes of runs may be.
fn staged(sandbox: &Sandbox) -> Vec<String> {
    let store = sandbox.store();
    let names = fs_err::read_dir(&store)
        .unwrap()
        .map(|entry| entry.unwrap().file_name());
    let names = names.map(|name| name.to_string_lossy().into_owned());
    names.filter(|name| name.starts_with("staging-")).collect()
}

#[test]
fn writes_to_memory_stop_at_their_limit() {
    let Some(sandbox) = boxed("") else { return };
    let script = "head -c 500000 /dev/zero >/fits && if head -c 2000000 /dev/zero >/too-large; then echo written; else \
                  echo full; fi 2>/dev/null";
    assert_eq!(says(&sandbox, &["--scratch", "tmpfs:1m"], script), "full");
    assert_eq!(says(&sandbox, &["--scratch", "tmpfs"], script), "written");
}

#[test]
fn writes_to_the_stores_disk_are_gone_with_the_run() {
    let Some(sandbox) = boxed("") else { return };
    let script = "echo x >/written; echo up; mkdir /etc/d; rm /bin/vi; mv /bin/wc /etc/d/wc; chmod 0 /etc/d; cat >/dev/null; cat /written";
    let run = start(&sandbox, &["--scratch", "disk"], script);
    let [folder] = &staged(&sandbox)[..] else {
        panic!("{:?}", staged(&sandbox))
    };
    if needs::is_root() {
        assert_eq!(
            fs_err::read_to_string(sandbox.store().join(folder).join("upper/written")).unwrap(),
            "x\n"
        );
    }
    // Neither gc nor a build takes it away meanwhile.
    sandbox.mk(["gc", "--keep", "0"]).ok();
    sandbox.mk(["build", "box.toml", "-q"]).ok();
    assert_eq!(finish(run), ("x\n".to_owned(), Some(0)));
    assert_eq!(staged(&sandbox), [""; 0]);
    assert_eq!(
        says(
            &sandbox,
            &["--scratch", "disk"],
            "ls /bin/vi /bin/wc; ls -d /written /etc/d 2>/dev/null || true"
        ),
        "/bin/vi\n/bin/wc"
    );
    sandbox.verify();
}

#[test]
fn writes_to_the_stores_disk_are_cleared_away_after_a_kill() {
    let Some(sandbox) = boxed("") else { return };
    let marker = super::marker();
    let mut run = start(
        &sandbox,
        &["--scratch", "disk"],
        &format!("echo x >/written; echo up; sleep {marker}"),
    );
    run.kill().unwrap();
    run.wait().unwrap();
    eventually("the end of the container", || processes_with(&marker).is_empty());
    eventually("the end of the folder", || {
        says(&sandbox, &["--scratch", "disk"], "true");
        staged(&sandbox).is_empty()
    });
}

#[test]
fn a_folder_keeps_writes_for_the_next_run() {
    let Some(sandbox) = boxed("") else { return };
    let options = ["--scratch", "./kept"];
    let dry = sh(&sandbox, &["--dry-run", "--scratch", "./kept"], "true").ok();
    assert!(dry.stdout.contains("-> / (written to ./kept)"), "{dry}");
    assert!(!sandbox.work().join("kept").exists());
    says(
        &sandbox,
        &options,
        "echo one >/written; rm /bin/vi; mv /bin/wc /bin/wc2; chmod 0700 /",
    );
    assert_eq!(
        says(
            &sandbox,
            &options,
            "cat /written; ls /bin/vi /bin/wc 2>/dev/null; ls /bin/wc2; stat -c %a /"
        ),
        "one\n/bin/wc2\n700"
    );
    assert_eq!(
        says(&sandbox, &[], "ls /written 2>/dev/null; ls /bin/vi"),
        "/bin/vi"
    );
    // A kill loses nothing that was written.
    let marker = super::marker();
    let mut run = start(
        &sandbox,
        &options,
        &format!("echo two >/written; sync; echo up; sleep {marker}"),
    );
    run.kill().unwrap();
    run.wait().unwrap();
    eventually("the end of the container", || processes_with(&marker).is_empty());
    eventually("the end of the lock", || {
        sh(&sandbox, &options, "true").code == Some(0)
    });
    assert_eq!(says(&sandbox, &options, "cat /written"), "two");
    sandbox.verify();
}

#[test]
fn two_runs_do_not_write_to_one_folder() {
    let Some(sandbox) = boxed("") else { return };
    let run = start(&sandbox, &["--scratch", "./kept"], "echo up; cat >/dev/null");
    let holder = format!("is in use by the run of process {}", run.id());
    fails(sh(&sandbox, &["--scratch", "./kept"], "true"), &["kept", &holder]);
    assert_eq!(finish(run), (String::new(), Some(0)));
    says(&sandbox, &["--scratch", "./kept"], "true");
}

#[test]
fn a_folder_of_another_image_is_refused() {
    let Some(sandbox) = boxed("") else { return };
    says(&sandbox, &["--scratch", "./kept"], "echo x >/written");
    sandbox.write(
        "more.toml",
        "[[step]]\nunpack = 'rootfs.tar.gz'\n[[step]]\nwrite = '/more'\ntext = ''\n",
    );
    let output = sandbox.mk(["run", "./more.toml", "--scratch", "./kept", "true"]);
    fails(output, &["keeps writes to the image tree", "take another folder"]);
    says(&sandbox, &["--scratch", "./kept"], "cat /written");
}

#[test]
fn a_folder_that_holds_other_things_is_left_alone() {
    let Some(sandbox) = boxed("") else { return };
    sandbox.write("mine/thesis", "x");
    fails(
        sh(&sandbox, &["--scratch", "./mine"], "true"),
        &["it holds `thesis`", "mine/scratch"],
    );
    assert_eq!(listing(&sandbox.work().join("mine")).len(), 1);
    sandbox.write("file", "x");
    fails(
        sh(&sandbox, &["--scratch", "./file"], "true"),
        &["Not a directory"],
    );
    fails(
        sh(&sandbox, &["--scratch", "./no/such"], "true"),
        &["No such file"],
    );
    if !needs::is_root() {
        fails(sh(&sandbox, &["--scratch", "/"], "true"), &["belongs to user"]);
    }
}

#[test]
fn a_folder_that_overlayfs_cannot_write_to_is_refused_by_the_name_of_its_filesystem() {
    let Some(sandbox) = boxed("") else { return };
    if !needs::root() {
        return;
    }
    let Some(unshare) = needs::program("unshare") else {
        return;
    };
    let script = format!(
        "mkdir -p l u w o && mount -t overlay overlay -o lowerdir=l,upperdir=u,workdir=w o && \
         {} run box --scratch ./o/kept true; echo $?",
        env!("CARGO_BIN_EXE_mk")
    );
    let mut command = std::process::Command::new(unshare);
    command
        .args(["-m", "sh", "-c", &script])
        .current_dir(sandbox.work());
    for (name, value) in sandbox.command().get_envs() {
        command.env(name, value.unwrap_or_default());
    }
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "125\n", "{stderr}");
    assert!(stderr.contains("does not write to `overlay`"), "{stderr}");
    assert!(!Path::new("/o").exists());
}

#[test]
fn a_folder_that_others_may_write_to_keeps_no_writes() {
    let Some(sandbox) = boxed("") else { return };
    let open = sandbox.work().join("open");
    fs_err::create_dir(&open).unwrap();
    let mode = |bits| std::os::unix::fs::PermissionsExt::from_mode(bits);
    fs_err::set_permissions(&open, mode(0o777)).unwrap();
    let refused = sh(&sandbox, &["--scratch", "./open"], "true");
    assert_eq!(refused.code, Some(125), "{refused}");
    assert!(
        refused.stderr.contains("others than its owner may write to it"),
        "{refused}"
    );
    assert_eq!(
        fs_err::read_dir(&open).unwrap().count(),
        0,
        "something was put there"
    );
    fs_err::set_permissions(&open, mode(0o755)).unwrap();
    sh(&sandbox, &["--scratch", "./open"], "true").ok();
}
