//! `run` steps: what a command finds, what of it comes into the tree, and what is left where it fails or is killed.

use std::time::{Duration, Instant};

use crate::harness::chance::Chance;
use crate::harness::{Output, Sandbox, needs};
use crate::run::{boxed, eventually, listing};

/// Builds `recipe`, which follows a BusyBox, as `app`.
fn build(sandbox: &Sandbox, recipe: &str) -> Output {
    sandbox.write(
        "app.toml",
        format!("[[step]]\nunpack = 'rootfs.tar.gz'\n\n{recipe}"),
    );
    sandbox.mk(["build", "app.toml"])
}

/// What `app` has that the BusyBox has not, and the other way round.
fn made(sandbox: &Sandbox) -> Vec<String> {
    let (before, after) = (sandbox.tree("box"), sandbox.tree("app"));
    let only = |sign: &'static str, one: &str, other: &str| {
        let known: Vec<String> = other.lines().map(str::to_owned).collect();
        one.lines()
            .filter(|line| !known.iter().any(|known| known == line))
            .map(|line| format!("{sign}{line}"))
            .collect::<Vec<_>>()
    };
    [only("-", &before, &after), only("+", &after, &before)].concat()
}

/// A sandbox with the BusyBox at a known time.
fn sandbox() -> Option<Sandbox> {
    boxed("")
}

#[test]
fn what_a_command_writes_is_in_the_tree_and_nothing_else() {
    let Some(sandbox) = sandbox() else { return };
    let recipe = r#"
[[step]]
run = """
mkdir -m 0700 /new; echo hi >/new/f; ln /new/f /new/g; ln -s f /new/l; mkfifo /new/p
rm /bin/ls; rm -r /var; mkdir /var; touch /var/v
echo gone >/tmp/t; echo gone >/run/r; echo gone >/dev/shm/s; touch -c /etc
"""
"#;
    build(&sandbox, recipe).ok();
    let made: Vec<String> = made(&sandbox)
        .iter()
        .map(|line| line.split(" time=").next().unwrap().to_owned())
        .collect();
    let (gone, new): (Vec<_>, Vec<_>) = made.iter().partition(|line| line.starts_with('-'));
    assert!(
        gone.iter()
            .all(|line| line.starts_with("-./var/") || line.starts_with("-./bin/ls ")),
        "{gone:#?}"
    );
    assert!(
        gone.iter().any(|line| line.starts_with("-./bin/ls ")),
        "{gone:#?}"
    );
    assert_eq!(
        new,
        [
            "+./new type=dir mode=0700 uid=0 gid=0",
            "+./new/f type=file mode=0644 uid=0 gid=0",
            "+./new/g type=file mode=0644 uid=0 gid=0",
            "+./new/l type=link mode=0777 uid=0 gid=0",
            "+./new/p type=fifo mode=0644 uid=0 gid=0",
            "+./var/v type=file mode=0644 uid=0 gid=0",
        ]
    );
    let tree = sandbox.tree("app");
    assert!(tree.contains(" tags=hardlink:new/f\n"), "{tree}");
    sandbox.verify();
    let ran = sandbox.mk(["run", "app", "cat", "/new/g"]).ok();
    assert_eq!(ran.stdout, "hi\n");
}

#[test]
fn whoever_builds_gets_the_same_digest() {
    let Some(sandbox) = sandbox() else { return };
    let recipe = "[[step]]\nrun = 'date >/tmp/now; mkdir /usr/local; busybox --install -s /usr/local; echo $HOSTNAME >>/etc/motd; rm -r /var/spool'\n";
    build(&sandbox, recipe).ok();
    assert_eq!(
        sandbox.build("app.toml").tree,
        "771ede83565af0abfbc358d34667ae1336eb8ba50e59dd14d18b32e0f29bc0ba"
    );
}

#[test]
fn a_command_finds_the_same_whoever_builds_it_and_nothing_of_the_machine() {
    let Some(sandbox) = sandbox() else { return };
    let recipe = r#"
epoch = 1000000000

[[step]]
unpack = 'rootfs.tar.gz'

[[step]]
run = ['sh', '-c', 'env | sort; hostname; pwd; id -u; umask; ls /sys/class/net; cat /etc/hosts /etc/resolv.conf; cat /proc/self/personality; read line; echo $?']
env = { MINE = 'a b' }
workdir = '/etc'
"#;
    sandbox.write("app.toml", recipe);
    let output = sandbox
        .mk_with(["build", "app.toml"], |mk| {
            mk.env("SECRET", "s")
                .env("TZ", "Asia/Tokyo")
                .env("LC_ALL", "POSIX");
        })
        .ok();
    let printed: Vec<&str> = output
        .stderr
        .lines()
        .filter_map(|line| line.strip_prefix("[2/2] "))
        .skip(1)
        .collect();
    assert_eq!(
        printed,
        [
            "HOME=/root",
            "HOSTNAME=mk-build",
            "LC_ALL=C.UTF-8",
            "MINE=a b",
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "PWD=/etc",
            "SHLVL=1",
            "SOURCE_DATE_EPOCH=1000000000",
            "TZ=UTC",
            "mk-build",
            "/etc",
            "0",
            "0022",
            "lo",
            "127.0.0.1\tlocalhost",
            "::1\tlocalhost ip6-localhost ip6-loopback",
            "127.0.1.1\tmk-build",
            "00040000",
            "1",
        ],
        "{output}"
    );
}

#[test]
fn a_command_runs_again_where_it_or_what_is_before_it_changes_and_not_otherwise() {
    let Some(sandbox) = sandbox() else { return };
    let recipe = |text: &str, more: &str| {
        format!("[[step]]\nwrite = '/in'\ntext = '{text}'\n[[step]]\nrun = 'cp /in /out; echo ran'\n{more}")
    };
    let ran = |text: &str, more: &str| {
        let output = build(&sandbox, &recipe(text, more)).ok();
        output.stderr.contains("[3/3] ran")
    };
    assert!(ran("a", ""));
    assert!(!ran("a", ""));
    assert!(ran("b", ""));
    assert!(!ran("a", ""));
    assert!(ran("a", "env = { A = '1' }"));
    assert!(ran("a", "user = 'root:0'"));
    assert!(ran("a", "workdir = '/etc'"));
    let ran = sandbox.mk(["run", "app", "cat", "/out"]).ok();
    assert_eq!(ran.stdout, "a");
}

#[test]
fn a_command_that_fails_is_told_with_its_line_and_leaves_nothing() {
    let Some(sandbox) = sandbox() else { return };
    let before = listing(&sandbox.store());
    let recipe = "[[step]]\nrun = '''\necho one\nfalse\necho two\n'''\n";
    let output = build(&sandbox, recipe);
    assert_eq!(
        (output.code, output.stderr.as_str()),
        (
            Some(1),
            "[2/2] run echo one …\n\
             [2/2] one\n\
             error: step 2 (`run echo one …`) failed\n\
             caused by: the command exited with 1\n\
             hint: the step begins in line 4 of `app.toml`\n"
        ),
        "{output}"
    );
    let quiet = sandbox.mk(["build", "app.toml", "-q"]);
    assert_eq!(
        quiet.stderr,
        "error: step 2 (`run echo one …`) failed\n\
         caused by: the command exited with 1; the last that it printed:\n  one\n\
         hint: the step begins in line 4 of `app.toml`\n"
    );
    let after = listing(&sandbox.store());
    let staging = |path: &&String| path.contains("/staging");
    assert_eq!(after.iter().find(staging), None);
    assert!(before.is_subset(&after), "nothing is lost");
    // What is not there is told as `mk run` tells it.
    let output = build(&sandbox, "[[step]]\nrun = ['/nowhere']\n");
    assert!(
        output.stderr.contains("`/nowhere`") && output.code == Some(1),
        "{output}"
    );
}

#[test]
fn a_build_that_is_killed_while_a_command_runs_leaves_nothing() {
    let Some(sandbox) = sandbox() else { return };
    build(&sandbox, "[[step]]\nrun = 'true'\n").ok();
    let chance = &mut Chance::new();
    let marker = format!("4{}", std::process::id());
    for round in 0..20 {
        sandbox.write(
            "app.toml",
            format!(
                "[[step]]\nunpack = 'rootfs.tar.gz'\n[[step]]\nrun = 'seq {round} 9999 >/e'\n[[step]]\nrun = 'echo {round} >/f; sleep {marker}'\n"
            ),
        );
        let mut mk = sandbox
            .command()
            .args(["build", "app.toml", "-q"])
            .spawn()
            .unwrap();
        std::thread::sleep(chance.moment(Duration::from_millis(250)));
        mk.kill().unwrap();
        mk.wait().unwrap();
        let verify = sandbox.mk(["verify"]);
        assert_eq!(
            verify.code,
            Some(0),
            "round {round}, MK_TEST_SEED={}: {verify}",
            chance.seed
        );
        eventually("the end of the command", || {
            let sleeps = |path: std::path::PathBuf| {
                let text = fs_err::read(path.join("cmdline")).unwrap_or_default();
                text.ends_with(format!("sleep\0{marker}\0").as_bytes())
            };
            let entries = fs_err::read_dir("/proc").unwrap();
            !entries.flatten().any(|entry| sleeps(entry.path()))
        });
    }
    let begin = Instant::now();
    build(&sandbox, "[[step]]\nrun = 'echo done >/f'\n").ok();
    assert!(begin.elapsed() < Duration::from_secs(30));
    let left = listing(&sandbox.store());
    assert_eq!(
        left.iter().find(|path| path.contains("/staging")),
        None,
        "MK_TEST_SEED={}",
        chance.seed
    );
    let mounts = fs_err::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&sandbox.root().display().to_string()));
    sandbox.verify();
}

#[test]
fn a_command_can_be_a_users() {
    let Some(sandbox) = sandbox() else { return };
    if !needs::is_root() && !needs::has_ids() {
        return needs::skipped("more than one user id");
    }
    let recipe = "[[step]]\nuser = 'app'\nuid = 1000\nhome = '/srv/app'\n\n\
                  [[step]]\nrun = 'id -un >$HOME/who; ! touch /etc/mine 2>/dev/null'\nuser = 'app'\n";
    build(&sandbox, recipe).ok();
    let tree = sandbox.tree("app");
    assert!(
        tree.contains("./srv/app/who type=file mode=0644 uid=1000 gid=1000 "),
        "{tree}"
    );
}

#[test]
fn a_step_that_changes_has_itself_and_the_later_ones_done_again() {
    let Some(sandbox) = boxed("") else { return };
    let lay_out = |tenth: &str| {
        let steps = (2..=20).map(|number| {
            let text = if number == 10 { tenth } else { "same" };
            format!("[[step]]\nrun = 'echo {text} >/{number}'\n")
        });
        let steps: String = steps.collect();
        sandbox.write(
            "twenty.toml",
            format!("[[step]]\nunpack = 'rootfs.tar.gz'\n{steps}"),
        );
    };
    lay_out("one");
    // The first was done for the image that `boxed` makes.
    assert_eq!(sandbox.build("twenty.toml").done.len(), 19);
    assert_eq!(sandbox.build("twenty.toml").done.len(), 0);
    lay_out("two");
    let tenth_to_twentieth: Vec<String> = (10..=20)
        .map(|number| {
            format!(
                "run echo {} >/{number}",
                if number == 10 { "two" } else { "same" }
            )
        })
        .collect();
    assert_eq!(sandbox.build("twenty.toml").done, tenth_to_twentieth);
    // What the tenth gives is what it gave before: nothing after it has to be done.
    lay_out("\"two\"");
    assert_eq!(sandbox.build("twenty.toml").done.len(), 1, "the tenth alone");
    sandbox.verify();
}
