use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::{boxed, finish, listing, says, sh, start};

#[test]
fn a_folder_of_the_host_is_read_and_written_as_the_caller() {
    let Some(sandbox) = boxed("") else { return };
    sandbox.write("t1/f", "hi\n");
    let volume = format!("{}:/mnt", sandbox.work().join("t1").display());
    assert_eq!(
        says(&sandbox, &["-v", &volume], "cat /mnt/f; echo new >/mnt/g; id -u"),
        "hi\n0"
    );
    let written = sandbox.work().join("t1/g");
    assert_eq!(fs_err::read_to_string(&written).unwrap(), "new\n");
    let metadata = fs_err::metadata(&written).unwrap();
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    assert_eq!((metadata.uid(), metadata.gid()), (uid.as_raw(), gid.as_raw()));
    // A relative path is seen from where mk is called.
    assert_eq!(says(&sandbox, &["-v", "./t1:/mnt"], "cat /mnt/g"), "new");
}

#[test]
fn a_read_only_volume_is_not_written() {
    let Some(sandbox) = boxed("") else { return };
    sandbox.write("t1/below/f", "hi\n");
    for path in ["/mnt/new", "/mnt/below/f"] {
        let output = sh(
            &sandbox,
            &["-v", "./t1:/mnt:ro"],
            &format!("cat /mnt/below/f; echo bad >{path}"),
        );
        assert_ne!(output.code, Some(0), "{output}");
        assert!(
            output.stdout == "hi\n" && output.stderr.contains("Read-only"),
            "{output}"
        );
    }
    let output = sh(
        &sandbox,
        &["-v", "./t1:/mnt:ro"],
        "mount -o remount,rw /mnt || echo bad >/mnt/new",
    );
    assert_ne!(output.code, Some(0), "{output}");
    assert!(!sandbox.work().join("t1/new").exists());
}

#[test]
fn files_and_nested_folders_are_volumes_too_and_missing_targets_are_made() {
    let Some(sandbox) = boxed("") else { return };
    sandbox.write("one", "file\n");
    sandbox.write("outer/o", "outer\n");
    sandbox.write("inner/i", "inner\n");
    fs_err::create_dir(sandbox.work().join("outer/sub")).unwrap();
    let options = [
        "-v",
        "./one:/deep/er/file",
        "-v",
        "./outer:/not/there",
        "-v",
        "./inner:/not/there/sub",
    ];
    let text = says(
        &sandbox,
        &options,
        "cat /deep/er/file /not/there/o /not/there/sub/i",
    );
    assert_eq!(text, "file\nouter\ninner");
    let over = says(
        &sandbox,
        &["-v", "./one:/etc/passwd"],
        "cat /etc/passwd; echo more >>/etc/passwd",
    );
    assert_eq!(over, "file");
    assert_eq!(
        fs_err::read_to_string(sandbox.work().join("one")).unwrap(),
        "file\nmore\n"
    );
    sandbox.verify();
}

#[test]
fn a_volume_that_is_not_there_is_an_error_that_says_mkdir() {
    let Some(sandbox) = boxed("") else { return };
    let output = sh(&sandbox, &["-v", "./nowhere:/mnt"], "echo started");
    assert_eq!(output.code, Some(125), "{output}");
    assert!(
        output.stderr.contains("nowhere") && output.stderr.contains("mkdir"),
        "{output}"
    );
    assert_eq!(output.stdout, "");
}

#[test]
fn a_volume_does_not_leave_the_image_by_its_links() {
    // Not below /tmp: a run has its own.
    let outside = tempfile::TempDir::new_in("/var/tmp").unwrap();
    let way_out = outside.path();
    let more = format!(
        "[[step]]\ndir = '{0}'\n[[step]]\nlink = '/way'\nto = '{0}'\n[[step]]\nlink = '/up'\nto = '../../..{0}'\n",
        way_out.display()
    );
    let Some(sandbox) = boxed(&more) else { return };
    sandbox.write("t1/f", "hi\n");
    for target in ["way", "up"] {
        let script = format!("cat /{target}/new/f");
        assert_eq!(
            says(&sandbox, &["-v", &format!("./t1:/{target}/new")], &script),
            "hi"
        );
        assert_eq!(
            fs_err::read_dir(way_out).unwrap().count(),
            0,
            "`/{target}` led out of the image"
        );
    }
}

#[test]
fn what_is_written_in_the_image_is_nowhere_afterwards() {
    let Some(sandbox) = boxed("") else { return };
    let name = format!("written-{}", std::process::id());
    let script = format!(
        "mkdir /{name} && echo x >/{name}/f && echo y >>/etc/passwd && rm /bin/vi && mv /bin/wc /bin/wc2 && cat /{name}/f"
    );
    assert_eq!(says(&sandbox, &[], &script), "x");
    assert_eq!(
        says(
            &sandbox,
            &[],
            &format!("ls -d /{name} /bin/wc2 2>/dev/null; ls /bin/vi /bin/wc")
        ),
        "/bin/vi\n/bin/wc"
    );
    assert!(!Path::new("/").join(&name).exists());
    assert!(!listing(&sandbox.store()).iter().any(|path| path.contains(&name)));
    sandbox.verify();
}

#[test]
fn a_read_only_run_writes_to_memory_and_volumes_only() {
    let Some(sandbox) = boxed("") else { return };
    fs_err::create_dir(sandbox.work().join("t1")).unwrap();
    let options = ["--read-only", "-v", "./t1:/mnt", "--tmpfs", "/memory"];
    let script = "for p in /x /etc/x /root/x /bin/x /mnt/x /memory/x /tmp/x /run/x /dev/shm/x; do\n\
                  if (echo y >$p) 2>/dev/null; then echo $p; fi; done";
    assert_eq!(
        says(&sandbox, &options, script),
        "/mnt/x\n/memory/x\n/tmp/x\n/run/x\n/dev/shm/x"
    );
    assert!(sandbox.work().join("t1/x").exists());
}

#[test]
fn a_tmpfs_is_as_large_as_it_was_asked_for() {
    let Some(sandbox) = boxed("") else { return };
    let options = ["--tmpfs", "/memory/of/its-own:size=1m,mode=0711"];
    let script = "cd /memory/of/its-own && stat -c %a . && ls -A && head -c 500000 /dev/zero >fits && \
                  if head -c 2000000 /dev/zero >too-large; then echo written; else echo full; fi 2>/dev/null";
    assert_eq!(says(&sandbox, &options, script), "711\nfull");
}

#[test]
fn runs_of_one_image_do_not_meet() {
    let Some(sandbox) = boxed("") else { return };
    let script = "echo up; echo $0 >/shared; cat >/dev/null; cat /shared";
    let one = start(&sandbox, &[], &script.replace("$0", "one"));
    let other = start(&sandbox, &[], &script.replace("$0", "other"));
    assert_eq!(finish(one), ("one\n".to_owned(), Some(0)));
    assert_eq!(finish(other), ("other\n".to_owned(), Some(0)));
}
