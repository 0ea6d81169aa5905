use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use super::{boxed, eventually, finish, processes_with, says, sh, start};
use crate::harness::{Output, Sandbox, needs};

/// The options of what is mounted at `target`, as the container sees them.
fn flags(sandbox: &Sandbox, options: &[&str], target: &str) -> String {
    let script = format!("grep ' {target} ' /proc/self/mountinfo | cut -d ' ' -f 6");
    says(sandbox, options, &script)
}

#[track_caller]
fn fails(output: Output, expected: &[&str]) {
    assert_eq!(output.code, Some(125), "{output}");
    for text in expected {
        assert!(output.stderr.contains(text), "{text:?} is not in {output}");
    }
}

#[test]
fn a_volume_has_the_powers_that_it_is_given() {
    let Some(sandbox) = boxed("") else { return };
    sandbox.write("d/f", "hi\n");
    let program = sandbox.write("d/program", "#!/bin/sh\necho ran\n");
    fs_err::set_permissions(program, PermissionsExt::from_mode(0o755)).unwrap();
    let of = |options: &str| {
        let volume = format!("./d:/mnt{options}");
        flags(&sandbox, &["--allow-new-privileges", "-v", &volume], "/mnt")
    };
    for (options, has, lacks) in [
        ("", &["rw", "nosuid", "nodev"][..], &["noexec"][..]),
        (
            ":rw,rbind,exec,nosuid,nodev",
            &["rw", "nosuid", "nodev"],
            &["noexec"],
        ),
        (":ro,noexec", &["ro", "nosuid", "nodev", "noexec"], &["rw"]),
        (":dev,suid", &["rw"], &["nosuid", "nodev"]),
        (":bind,ro", &["ro", "nosuid", "nodev"], &["rw"]),
    ] {
        let found = of(options);
        let found: Vec<&str> = found.split(',').collect();
        assert!(
            has.iter().all(|word| found.contains(word)),
            "{options}: {found:?}"
        );
        assert!(
            !lacks.iter().any(|word| found.contains(word)),
            "{options}: {found:?}"
        );
    }
    assert_eq!(says(&sandbox, &["-v", "./d:/mnt"], "/mnt/program"), "ran");
    let refused = sh(&sandbox, &["-v", "./d:/mnt:noexec"], "/mnt/program");
    assert!(
        refused.code == Some(126) && refused.stderr.contains("Permission denied"),
        "{refused}"
    );
}

#[test]
fn devices_of_a_volume_work_on_request_only() {
    let Some(sandbox) = boxed("") else { return };
    let read = "head -c 1 /host/zero 2>/dev/null | wc -c";
    assert_eq!(says(&sandbox, &["-v", "/dev:/host"], read), "0");
    assert_eq!(says(&sandbox, &["-v", "/dev:/host:dev"], read), "1");
    fs_err::create_dir(sandbox.work().join("d")).unwrap();
    fails(
        sh(&sandbox, &["-v", "./d:/mnt:suid"], "true"),
        &["--allow-new-privileges"],
    );
}

#[test]
fn the_long_form_mounts_the_same() {
    let Some(sandbox) = boxed("") else { return };
    sandbox.write("a,b:c/f", "hi\n");
    let bind = format!(
        "type=bind,\"source={}\",target=/mnt,readonly",
        sandbox.work().join("a,b:c").display()
    );
    assert_eq!(
        says(
            &sandbox,
            &["--mount", &bind],
            "cat /mnt/f; touch /mnt/x 2>&1 || true"
        ),
        "hi\ntouch: /mnt/x: Read-only file system"
    );
    let memory = "type=tmpfs,destination=/memory,tmpfs-size=1m,tmpfs-mode=0711";
    assert_eq!(
        says(
            &sandbox,
            &["--mount", memory],
            "stat -c %a /memory; df -k /memory | tail -1 | tr -s ' ' | cut -d ' ' -f 2"
        ),
        "711\n1024"
    );
}

#[test]
fn a_missing_source_is_made_on_request_and_is_the_callers() {
    let Some(sandbox) = boxed("") else { return };
    let made = sandbox.work().join("new/deep");
    let dry = sh(&sandbox, &["--dry-run", "-v", "./new/deep:/mnt:create"], "true").ok();
    assert!(dry.stdout.contains("new/deep -> /mnt (nosuid, nodev)"), "{dry}");
    assert!(!made.exists());
    says(&sandbox, &["-v", "./new/deep:/mnt:create"], "echo x >/mnt/f");
    assert_eq!(fs_err::read_to_string(made.join("f")).unwrap(), "x\n");
    assert_eq!(
        fs_err::metadata(&made).unwrap().uid(),
        rustix::process::geteuid().as_raw()
    );
}

/// Runs `script` with a folder `outer` whose `below` has a tmpfs of its own with `file`, and a namespace around all that.
fn with_submount(sandbox: &Sandbox, script: &str) -> Option<String> {
    let unshare = needs::program("unshare")?;
    fs_err::create_dir_all(sandbox.work().join("outer/below")).unwrap();
    let all = format!("mount -t tmpfs none outer/below && echo hi >outer/below/file && {script}");
    let flags = if needs::is_root() { "-m" } else { "-Urm" };
    let mut command = std::process::Command::new(unshare);
    command
        .args([flags, "sh", "-c", &all])
        .current_dir(sandbox.work());
    for (name, value) in sandbox.command().get_envs() {
        command.env(name, value.unwrap_or_default());
    }
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn what_is_mounted_below_comes_along_unless_it_is_to_stay_and_is_as_read_only() {
    let Some(sandbox) = boxed("") else { return };
    if !needs::root() {
        // Inside of `unshare -Ur` the store of an ordinary user with many ids is another's.
        return;
    }
    let mk = env!("CARGO_BIN_EXE_mk");
    let look = |option: &str, script: &str| {
        with_submount(
            &sandbox,
            &format!("{mk} run box -v ./outer:/mnt{option} sh -c '{script}'"),
        )
    };
    let Some(seen) = look(
        "",
        "cat /mnt/below/file; echo new >/mnt/below/new && echo written",
    ) else {
        return;
    };
    assert_eq!(seen, "hi\nwritten\n");
    assert_eq!(look(":bind", "ls /mnt/below").unwrap(), "");
    let tricks = "cat /mnt/below/file
        for place in /mnt /mnt/below; do
            touch $place/x 2>/dev/null && echo $place written
            mount -o remount,rw $place 2>/dev/null && echo $place remounted
            mount -o remount,bind,rw $place 2>/dev/null && echo $place bound
            umount $place 2>/dev/null && echo $place unmounted
            unshare -Urm mount -o remount,bind,rw $place 2>/dev/null && echo $place remounted in a namespace
            unshare -Urm umount $place 2>/dev/null && echo $place unmounted in a namespace
        done; true";
    assert_eq!(look(":ro", tricks).unwrap(), "hi\n");
    // The control: what is not read-only is written.
    assert_eq!(
        look("", "touch /mnt/below/x && echo written").unwrap(),
        "written\n"
    );
}

#[test]
fn a_named_volume_keeps_what_is_written_from_one_run_to_the_next() {
    let Some(sandbox) = boxed("") else { return };
    let options = ["-v", "cache-1:/var/cache"];
    assert_eq!(
        says(&sandbox, &options, "ls -A /var/cache; echo one >/var/cache/f"),
        ""
    );
    assert_eq!(
        says(&sandbox, &options, "cat /var/cache/f; stat -c '%a %u' /var/cache"),
        "one\n755 0"
    );
    // Two runs at once see one and the same.
    let other = start(&sandbox, &options, "echo up; cat >/dev/null; cat /var/cache/g");
    says(&sandbox, &options, "echo two >/var/cache/g");
    assert_eq!(finish(other), ("two\n".to_owned(), Some(0)));
    let list = sandbox.mk(["volumes", "--json"]).ok();
    assert!(
        list.stdout.contains("\"name\": \"cache-1\"") && list.stdout.contains("\"bytes\": 8"),
        "{list}"
    );
    assert!(list.stdout.contains("\"in_use\": false"), "{list}");
    sandbox.mk(["rm", "box"]).ok();
    sandbox.mk(["gc", "--keep", "0"]).ok();
    sandbox.verify();
    assert!(sandbox.store().join("volumes/cache-1/data/f").exists() || !needs::is_root());
    let listed = sandbox.mk(["volumes"]).ok();
    assert!(
        listed.stdout.contains("cache-1") && listed.stdout.contains("8 B"),
        "{listed}"
    );
    sandbox.mk(["volumes", "rm", "cache-1"]).ok();
    assert_eq!(sandbox.mk(["volumes", "--json"]).ok().stdout, "[]\n");
    let again = sandbox.mk(["volumes", "rm", "cache-1"]);
    assert_eq!(again.code, Some(1), "{again}");
}

#[test]
fn a_volume_in_use_is_not_taken_away_and_is_free_after_a_kill() {
    let Some(sandbox) = boxed("") else { return };
    let marker = super::marker();
    let mut run = start(&sandbox, &["-v", "data:/d"], &format!("echo up; sleep {marker}"));
    let refused = sandbox.mk(["volumes", "rm", "data"]);
    assert!(
        refused.code == Some(1) && refused.stderr.contains("in use"),
        "{refused}"
    );
    let list = sandbox.mk(["volumes", "--json"]).ok();
    assert!(list.stdout.contains("\"in_use\": true"), "{list}");
    run.kill().unwrap();
    run.wait().unwrap();
    eventually("the end of the container", || processes_with(&marker).is_empty());
    eventually("the end of the lock", || {
        sandbox.mk(["volumes", "rm", "data"]).code == Some(0)
    });
}

#[test]
fn a_new_volume_begins_with_what_the_image_has_there() {
    let more = "[[step]]\ndir = '/srv/data/inner'\n[[step]]\nwrite = '/srv/data/f'\ntext = \"from the image\\n\"\nmode = '0640'\n\
                [[step]]\nlink = '/srv/data/link'\nto = 'f'\n[[step]]\nlink = '/way'\nto = '/srv'\n";
    let Some(sandbox) = boxed(more) else { return };
    let look = "cd /srv/data; cat link; stat -c '%a %u' f; ls";
    assert_eq!(
        says(&sandbox, &["-v", "one:/srv/data"], look),
        "from the image\n640 0\nf\ninner\nlink"
    );
    // Once: what it holds later is its own.
    says(
        &sandbox,
        &["-v", "one:/srv/data"],
        "rm /srv/data/f; echo mine >/srv/data/mine",
    );
    assert_eq!(
        says(&sandbox, &["-v", "one:/srv/data"], "ls /srv/data"),
        "inner\nlink\nmine"
    );
    assert_eq!(
        says(&sandbox, &["-v", "two:/way/data"], "cat /way/data/f"),
        "from the image"
    );
    let empty = "type=volume,source=three,target=/srv/data,volume-nocopy";
    assert_eq!(says(&sandbox, &["--mount", empty], "ls -A /srv/data"), "");
    assert_eq!(says(&sandbox, &[], "cat /srv/data/f"), "from the image");
    sandbox.verify();
}

#[test]
fn a_volumes_owners_are_the_containers() {
    let more = "[[step]]\nuser = 'app'\nuid = 1000\n[[step]]\ndir = '/srv/app'\nowner = '1000:1000'\nmode = '0700'\n";
    if !needs::has_ids() {
        return needs::skipped("subordinate ids");
    }
    let Some(sandbox) = boxed(more) else { return };
    let options = ["-u", "app", "-v", "data:/srv/app"];
    assert_eq!(
        says(
            &sandbox,
            &options,
            "echo x >/srv/app/f; stat -c '%u %a' /srv/app /srv/app/f"
        ),
        "1000 700\n1000 644"
    );
    assert_eq!(says(&sandbox, &options, "cat /srv/app/f"), "x");
    sandbox.mk(["volumes", "rm", "data"]).ok();
}

#[test]
fn a_word_that_could_be_a_folder_is_no_volume_unasked() {
    let Some(sandbox) = boxed("") else { return };
    sandbox.write("data/f", "the folder's\n");
    let output = sh(&sandbox, &["-v", "data:/mnt"], "cat /mnt/f");
    fails(output, &["./data", "type=volume,source=data"]);
    assert_eq!(sandbox.mk(["volumes", "--json"]).ok().stdout, "[]\n");
    assert_eq!(
        says(&sandbox, &["-v", "./data:/mnt"], "cat /mnt/f"),
        "the folder's"
    );
    let certain = ["--mount", "type=volume,source=data,target=/mnt"];
    assert_eq!(says(&sandbox, &certain, "ls -A /mnt; echo v >/mnt/g"), "");
    // Now that there is such a volume, the word means it.
    assert_eq!(says(&sandbox, &["-v", "data:/mnt"], "cat /mnt/g"), "v");
}

#[test]
fn a_dry_run_makes_no_volume() {
    let Some(sandbox) = boxed("") else { return };
    let dry = sh(&sandbox, &["--dry-run", "-v", "cache:/c:ro"], "true").ok();
    assert!(
        dry.stdout.contains("volume cache -> /c (ro, nosuid, nodev)"),
        "{dry}"
    );
    assert_eq!(sandbox.mk(["volumes", "--json"]).ok().stdout, "[]\n");
}

#[test]
fn another_image_is_shown_read_only_and_stays_while_it_is() {
    let Some(sandbox) = boxed("") else { return };
    sandbox.write(
        "tool.toml",
        "[[step]]\nwrite = '/bin/tool'\ntext = \"#!/bin/sh\\necho tool\\n\"\nmode = '0755'\n",
    );
    let options = ["--mount", "type=image,source=./tool.toml,target=/tool"];
    let output = sh(&sandbox, &options, "/tool/bin/tool; touch /tool/x 2>&1 || true").ok();
    assert_eq!(output.stdout, "tool\ntouch: /tool/x: Read-only file system\n");
    let options = ["--mount", "type=image,source=tool,target=/tool"];
    let run = start(&sandbox, &options, "echo up; cat >/dev/null; cat /tool/bin/tool");
    sandbox.mk(["rm", "tool"]).ok();
    sandbox.mk(["gc", "--keep", "0"]).ok();
    assert_eq!(finish(run), ("#!/bin/sh\necho tool\n".to_owned(), Some(0)));
    sandbox.mk(["gc", "--keep", "0"]).ok();
    let gone = sh(&sandbox, &options, "true");
    assert!(
        gone.code != Some(0) && gone.stderr.contains("no image `tool`"),
        "{gone}"
    );
    assert!(!Path::new("/tool").exists());
}
