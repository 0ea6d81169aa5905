//! What a `run` step is granted besides its tree: input, copies, caches, secrets, a network; and the shell that is opened
//! where it fails.

use crate::harness::{Output, Sandbox};
use crate::run::boxed;

/// Builds a recipe that follows a BusyBox, as `app`.
fn build(sandbox: &Sandbox, recipe: &str, more: &[&str]) -> Output {
    let text = format!("from = 'rootfs.tar.gz'\n\n{recipe}");
    sandbox.write("app.toml", text);
    sandbox.mk([&["build", "app.toml"], more].concat())
}

/// The lines of a tree that are not a BusyBox's, without what differs by the time of the test.
fn made(sandbox: &Sandbox) -> Vec<String> {
    let (before, after) = (sandbox.tree("box"), sandbox.tree("app"));
    let known: Vec<&str> = before.lines().collect();
    let new = after.lines().filter(|line| !known.contains(line));
    new.map(|line| line.split(" time=").next().unwrap().to_owned())
        .collect()
}

#[test]
fn a_command_reads_its_text_and_then_the_end() {
    let Some(sandbox) = boxed("") else { return };
    let text = "x".repeat(200_000);
    let step = |text: &str| format!("[[step]]\nrun = 'cat >/read; cat >>/read'\nstdin = '{text}'\n");
    build(&sandbox, &step(&text), &[]).ok();
    assert!(
        sandbox
            .tree("app")
            .contains("./read type=file mode=0644 uid=0 gid=0")
    );
    assert!(sandbox.tree("app").contains("size=200000 "));
    let again = build(&sandbox, &step("other"), &[]).ok();
    assert!(again.stderr.contains("[2/2] run"), "{}", again.stderr);
    assert!(sandbox.tree("app").contains("size=5 "));
}

#[test]
fn a_copy_is_there_cannot_be_changed_and_stays_out_of_the_image() {
    let Some(sandbox) = boxed("") else { return };
    sandbox.write("src/a/main.c", "one\n");
    sandbox.write("one.txt", "file\n");
    let step = "[[step]]\nrun = 'cat /src/a/main.c /in/one >/out; ! touch /src/b 2>/dev/null; ! echo >/in/one'\n\
        mounts = [{ copy = 'src', at = '/src' }, { copy = 'one.txt', at = '/in/one' }]\n";
    build(&sandbox, step, &[]).ok();
    assert_eq!(made(&sandbox), ["./out type=file mode=0644 uid=0 gid=0"]);
    assert!(sandbox.tree("app").contains("size=9 "));
    let again = build(&sandbox, step, &[]).ok();
    assert!(again.stderr.contains("nothing to do"), "{}", again.stderr);
    sandbox.write("src/a/main.c", "two!\n");
    let again = build(&sandbox, step, &[]).ok();
    assert!(again.stderr.contains("(1 of 2 steps cached)"), "{}", again.stderr);
    assert!(sandbox.tree("app").contains("size=10 "));
    sandbox.verify();
    sandbox.mk(["gc", "--keep", "0"]).ok();
    let again = build(&sandbox, step, &[]).ok();
    assert!(again.stderr.contains("nothing to do"), "{}", again.stderr);
}

#[test]
fn a_cache_outlives_builds_and_recipes_and_counts_for_nothing() {
    let Some(sandbox) = boxed("") else { return };
    let step = |text: &str| {
        format!(
            "[[step]]\nrun = 'echo {text} >>/var/cache/x/log; wc -l </var/cache/x/log >/lines'\n\
             mounts = [{{ cache = 'log', at = '/var/cache/x' }}]\n"
        )
    };
    build(&sandbox, &step("one"), &[]).ok();
    build(&sandbox, &step("two"), &["--name", "other"]).ok();
    build(&sandbox, &step("three"), &[]).ok();
    let lines = sandbox.mk(["run", "app", "cat", "/lines"]).ok();
    assert_eq!(lines.stdout, "3\n");
    assert!(
        !sandbox.tree("app").contains("/var/cache"),
        "{}",
        sandbox.tree("app")
    );
    // The first again: its key says nothing of what the cache holds.
    let again = build(&sandbox, &step("one"), &[]).ok();
    assert!(
        again.stderr.contains("(2 steps cached)") || again.stderr.contains("2 of 2"),
        "{}",
        again.stderr
    );
    sandbox.mk(["verify"]).ok();
    let kept = || sandbox.store().join("caches/log").exists();
    sandbox.mk(["gc", "--keep", "0"]).ok();
    assert!(kept());
    let would = sandbox.mk(["gc", "--keep", "0", "--caches", "--dry-run"]).ok();
    assert!(would.text().contains("cache"), "{would}");
    assert!(kept());
    sandbox.mk(["gc", "--keep", "0", "--caches"]).ok();
    assert!(!kept());
}

#[test]
fn two_builds_never_use_a_cache_at_once() {
    let Some(sandbox) = boxed("") else { return };
    let step = |name: &str| {
        format!(
            "from = 'rootfs.tar.gz'\n[[step]]\nrun = 'set -C; echo {name} >/c/lock; sleep 0.3; rm /c/lock'\n\
             mounts = [{{ cache = 'c', at = '/c' }}]\n"
        )
    };
    // In one process, side by side.
    for name in ["a", "b"] {
        sandbox.write(format!("{name}.toml"), step(name));
    }
    let app = "[[step]]\ncopy = { from = 'a', path = '/bin' }\ninto = '/a'\n[[step]]\ncopy = { from = 'b', path = '/bin' }\ninto = '/b'\n";
    sandbox.write("app.toml", app);
    sandbox.mk(["build", "app.toml"]).ok();
}

#[test]
fn a_secret_is_read_and_is_nowhere_afterwards() {
    let Some(sandbox) = boxed("") else { return };
    sandbox.write("token.txt", "s3cr3t-of-the-test\n");
    let step = "[[step]]\nrun = 'wc -c </run/secrets/token >/length; ! echo >>/run/secrets/token'\n\
        mounts = [{ secret = 'token', at = '/run/secrets/token' }]\n";
    let told = build(&sandbox, step, &[]);
    assert_eq!(told.code, Some(1));
    insta::assert_snapshot!("a_secret_that_nobody_gives", told.stderr);
    build(&sandbox, step, &["--secret", "token=token.txt"]).ok();
    assert_eq!(sandbox.mk(["run", "app", "cat", "/length"]).ok().stdout, "19\n");
    // Another one counts for nothing, and neither does none.
    let again = build(&sandbox, step, &[]).ok();
    assert!(again.stderr.contains("nothing to do"), "{}", again.stderr);
    let found = std::process::Command::new("grep")
        .args(["-rqs", "s3cr3t-of-the-test"])
        .arg(sandbox.store())
        .status()
        .unwrap();
    assert_eq!(found.code(), Some(1), "the store holds the secret");
}

#[test]
fn a_step_with_a_network_makes_every_image_above_it_impure() {
    let Some(sandbox) = boxed("") else { return };
    let net = "[[step]]\nrun = 'ip link | wc -l >/links; readlink /proc/self/ns/net >/ns'\n";
    build(&sandbox, net, &[]).ok();
    let pure = sandbox.mk(["inspect", "app"]).ok();
    assert!(!pure.stdout.contains("impure"), "{pure}");
    build(&sandbox, &format!("{net}network = true\n"), &["--name", "base"]).ok();
    let host = fs_err::read_link("/proc/self/ns/net").unwrap();
    assert_eq!(
        sandbox.mk(["run", "base", "cat", "/ns"]).ok().stdout.trim_end(),
        host.to_str().unwrap()
    );
    sandbox.write(
        "base.toml",
        format!("from = 'rootfs.tar.gz'\n{net}network = true\n"),
    );
    sandbox.write(
        "part.toml",
        "[[step]]\ncopy = { from = 'base', path = '/links' }\ninto = '/links'\n",
    );
    sandbox.write("top.toml", "from = 'part'\n[[step]]\nwrite = '/top'\ntext = ''\n");
    sandbox.build("top.toml");
    let told = sandbox.mk(["inspect", "top"]).ok();
    let told: serde_json::Value = serde_json::from_str(&told.stdout).unwrap();
    assert_eq!(
        told["impure"][0],
        "step 2 of base (run ip link | wc -l >/links; readlink /proc/self/ns/net >/ns) has a network"
    );
    // The mark of an image in the store is passed on, too.
    sandbox.write("rest/last.toml", "from = 'top'\n");
    fs_err::remove_file(sandbox.work().join("top.toml")).unwrap();
    sandbox.build("rest/last.toml");
    assert!(sandbox.mk(["inspect", "last"]).ok().stdout.contains("impure"));
    sandbox.verify();
}

#[test]
fn a_shell_on_failure_needs_a_terminal() {
    let Some(sandbox) = boxed("") else { return };
    let told = build(&sandbox, "[[step]]\nrun = 'false'\n", &["--shell-on-failure"]);
    assert_eq!(told.code, Some(1));
    insta::assert_snapshot!(told.stderr);
}
