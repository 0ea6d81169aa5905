use std::path::Path;

use super::sh;
use crate::examples::{TARGET, checkout};
use crate::harness::{Output, Sandbox, needs};

/// Returns a sandbox with the image `box`: a BusyBox, mk itself, and in `/images` a recipe with what it needs.
fn with_mk() -> Option<Sandbox> {
    let archive = needs::fixture(needs::FIXTURES[0])?;
    if !needs::namespaces() {
        return None;
    }
    let sandbox = Sandbox::new();
    fs_err::copy(archive, sandbox.work().join("rootfs.tar.gz")).unwrap();
    fs_err::copy(env!("CARGO_BIN_EXE_mk"), sandbox.work().join("mk")).unwrap();
    let recipe = "[[step]]\nunpack = 'rootfs.tar.gz'\n[[step]]\ncopy = 'mk'\ninto = '/bin/mk'\nmode = '0755'\n\
                  [[step]]\ncopy = 'rootfs.tar.gz'\ninto = '/images/rootfs.tar.gz'\n\
                  [[step]]\nwrite = '/images/inner.toml'\ntext = \"[[step]]\\nunpack = 'rootfs.tar.gz'\\n\"\n";
    sandbox.write("box.toml", recipe);
    sandbox.mk(["build", "box.toml", "-q"]).ok();
    Some(sandbox)
}

/// A run in a run: builds an image in the container and says who and where it is in a container of that.
fn nested(sandbox: &Sandbox, options: &[&str]) -> Output {
    let script = "cd /images && mk build -q inner.toml >&- && \
                  mk run --hostname inner inner -- sh -c 'hostname; id -u; echo $$; ls /images 2>&- || echo alone'";
    sh(sandbox, options, script)
}

/// The options of a container whose command is an ordinary user's, and may do what `flag` says.
fn as_user(flag: &str) -> [&str; 7] {
    [flag, "-u", "1000", "-e", "HOME=/tmp", "-e", "MK_STORE=/tmp/store"]
}

#[test]
fn a_container_in_a_container_works_with_two_capabilities_or_as_privileged() {
    let Some(sandbox) = with_mk() else { return };
    let expected = "inner\n0\n2\nalone\n";
    assert_eq!(nested(&sandbox, &["--privileged"]).ok().stdout, expected);
    let two = ["--cap-add", "SYS_ADMIN", "--cap-add", "NET_ADMIN"];
    if needs::has_ids() {
        assert_eq!(nested(&sandbox, &two).ok().stdout, expected);
        assert_eq!(nested(&sandbox, &as_user("--privileged")).ok().stdout, expected);
    } else {
        // With a single id the inner run needs a user namespace, and that a `/proc` with nothing covered.
        assert_eq!(nested(&sandbox, &two).code, Some(125));
    }
}

#[test]
fn nesting_is_enough_whoever_calls_and_is_no_power_over_the_machine() {
    let Some(sandbox) = with_mk() else { return };
    let expected = "inner\n0\n2\nalone\n";
    assert_eq!(nested(&sandbox, &["--nesting"]).ok().stdout, expected);
    if needs::has_ids() {
        assert_eq!(nested(&sandbox, &as_user("--nesting")).ok().stdout, expected);
    }
    // What is not the container's own stays as it is: settings of the whole kernel, device nodes, another filesystem's disk.
    let tried = sh(
        &sandbox,
        &["--nesting"],
        "for try in 'echo 1 >/proc/sys/kernel/panic' 'echo b >/proc/sysrq-trigger' 'mknod /dev/kmsg2 c 1 11' \
         'hwclock -w' 'mount -t debugfs none /mnt' 'swapoff -a' 'dmesg -c'; do sh -c \"$try\" 2>&- && echo \"$try\"; done; :",
    );
    assert_eq!(tried.ok().stdout, "");
    let map = sh(&sandbox, &["--nesting"], "cat /proc/self/uid_map").ok().stdout;
    let outside: u32 = map.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert_ne!(outside, 0, "root inside is root of the machine");
}

#[test]
fn an_image_asks_for_nesting_and_the_command_line_has_the_last_word() {
    let Some(sandbox) = with_mk() else { return };
    sandbox.write("asks.toml", "from = 'box'\n[run]\nnesting = true\n");
    sandbox.write("takes.toml", "from = 'asks'\n");
    for recipe in ["asks.toml", "takes.toml"] {
        sandbox.mk(["build", recipe, "-q"]).ok();
    }
    let unshares = |image: &str, more: &[&str]| {
        let words = [&["run", image], more, &["unshare", "-m", "true"]].concat();
        sandbox.mk(words).code == Some(0)
    };
    assert!(unshares("asks", &[]));
    assert!(!unshares("asks", &["--no-nesting"]));
    assert!(unshares("asks", &["--no-nesting", "--nesting"]));
    assert!(!unshares("takes", &[]), "`from` takes a tree and nothing else");
    assert!(unshares("takes", &["--nesting"]));
    let shown = sandbox.mk(["inspect", "asks"]).ok().stdout;
    assert!(shown.contains("\"nesting\": true"), "{shown}");
    // Not while it is built either: a step is given by whoever wrote the recipe that others start from.
    sandbox.write(
        "steps.toml",
        "from = 'asks'\n[[step]]\nrun = 'unshare -m true'\n[run]\nnesting = true\n",
    );
    let refused = sandbox.mk(["build", "steps.toml"]);
    assert_eq!(refused.code, Some(1), "{refused}");
    if needs::is_root() {
        let refused = sandbox.mk(["run", "asks", "--userns", "host", "true"]);
        assert_eq!(refused.code, Some(125), "{refused}");
        assert!(refused.stderr.contains("`--privileged` gives that"), "{refused}");
        assert!(unshares("asks", &["--userns", "auto"]));
    }
}

/// Lays the recipe at the top of the repository out in a folder that is called otherwise; where cargo would have put mk,
/// there is the one that is tested.
fn repository(sandbox: &Sandbox) -> std::path::PathBuf {
    let folder = sandbox.work().join("a checkout, v1.0");
    let release = folder.join("target").join(TARGET).join("release");
    fs_err::create_dir_all(&release).unwrap();
    fs_err::os::unix::fs::symlink(env!("CARGO_BIN_EXE_mk"), release.join("mk")).unwrap();
    let recipe = "Containerfile.toml";
    fs_err::copy(checkout().join(recipe), folder.join(recipe)).unwrap();
    folder
}

/// Types a line in a folder, with mk in `PATH` and no network.
fn typed(sandbox: &Sandbox, folder: &Path, line: &str) -> Output {
    let bin = Path::new(env!("CARGO_BIN_EXE_mk")).parent().unwrap();
    let mk = sandbox.command();
    let mut shell = std::process::Command::new("/bin/sh");
    shell.args(["-c", line]).current_dir(folder).env_clear();
    shell.envs(mk.get_envs().filter_map(|(name, value)| Some((name, value?))));
    shell
        .env("PATH", format!("{}:/usr/bin:/bin", bin.display()))
        .env("MK_SOURCES", needs::sources())
        .env("all_proxy", "http://127.0.0.1:9");
    sandbox.output(line, &mut shell)
}

#[test]
fn mk_builds_an_image_of_itself_in_which_it_makes_containers() {
    if !needs::namespaces() {
        return;
    }
    let sandbox = Sandbox::new();
    let folder = repository(&sandbox);
    let output = typed(&sandbox, &folder, "mk build && mk run mk -- mk run busybox true");
    if output.code == Some(1) && output.stderr.contains(": cannot fetch ") {
        return needs::skipped(
            "the package that images/busybox.lock pins, in a folder that MK_SOURCES names",
        );
    }
    let output = output.ok();
    assert!(
        output.stdout.starts_with("mk ") && output.stdout.lines().count() == 1,
        "{output}"
    );
    // An image is named by what is in it, and that is the same inside and outside.
    let outside = typed(&sandbox, &folder, "mk build busybox -q").ok();
    let inside = typed(&sandbox, &folder, "mk run mk -- mk build busybox -q").ok();
    assert_eq!(inside.stdout, outside.stdout);
    let who = "mk run mk -- mk run busybox -- sh -c 'hostname; id -u; echo $$; ls /usr/share/mk 2>&- || echo alone'";
    assert_eq!(
        typed(&sandbox, &folder, who).ok().stdout,
        "busybox\n0\n2\nalone\n"
    );
    // The container around it is no other than any: what is in there can still be kept from making more.
    let refused = typed(&sandbox, &folder, "mk run mk --no-nesting -- mk run busybox true");
    assert_eq!(refused.code, Some(125), "{refused}");
    assert!(refused.stderr.contains("`mk run --nesting`"), "{refused}");
    let checked = typed(&sandbox, &folder, "mk build --check -q");
    assert_eq!(checked.code, Some(0), "{checked}");
    sandbox.verify();
}

#[test]
fn without_the_program_that_cargo_makes_the_recipe_says_how_to_make_it() {
    let sandbox = Sandbox::new();
    let folder = repository(&sandbox);
    fs_err::remove_dir_all(folder.join("target")).unwrap();
    let refused = typed(&sandbox, &folder, "mk build");
    if refused.stderr.contains(": cannot fetch ") {
        return needs::skipped(
            "the package that images/busybox.lock pins, in a folder that MK_SOURCES names",
        );
    }
    assert_eq!(refused.code, Some(1), "{refused}");
    assert!(
        refused.stderr.contains("release/mk`\n") && refused.stderr.contains("`cargo build --release`"),
        "{refused}"
    );
}

#[test]
fn without_options_a_container_in_a_container_is_refused_and_the_doctor_is_named() {
    let Some(sandbox) = with_mk() else { return };
    let output = nested(&sandbox, &[]);
    assert_eq!((output.code, &*output.stdout), (Some(1), ""), "{output}");
    assert!(output.stderr.contains("`mk doctor`"), "{output}");
    let doctor = sandbox.mk(["run", "box", "mk", "doctor"]);
    assert_eq!(doctor.code, Some(1), "{doctor}");
    assert!(
        doctor.stdout.contains("one of mk") && doctor.stdout.contains("clone3"),
        "{doctor}"
    );
}
