//! What networks leave: nothing of a run that has ended or was killed, and nothing at all after `mk network rm`.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use super::Stage;
use crate::harness::chance::Chance;
use crate::harness::world::Place;
use crate::run::{eventually, marker, processes_with};

const BRIDGE: [&str; 2] = ["--network", "bridge"];

/// How many runs are killed, each at a moment of its own.
const KILLED: usize = 100;

/// All that is known of a host's network, and of the leases of mk's that somebody holds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Traces {
    links: String,
    addresses: String,
    routes: String,
    rules: String,
    ruleset: String,
    settings: BTreeMap<String, String>,
    leases: Vec<String>,
}

impl Traces {
    /// Looks at a host, and at what the mk that keeps its state in the folder `state` holds, as soon as nobody is on a
    /// bridge any more.
    #[track_caller]
    pub(crate) fn of(host: &Place, state: &Path) -> Self {
        let is_idle = "for bridge in /sys/class/net/*/bridge; do
                [ ! -e $bridge ] || [ \"$(cat ${bridge%/*}/operstate)\" = down ]
            done";
        eventually("bridges without a carrier", || {
            host.try_sh(is_idle).status.success()
        });
        Self::look(host, state)
    }

    fn look(host: &Place, state: &Path) -> Self {
        Self {
            links: host.sh("ip link"),
            // A bridge's own link-local address is tentative until somebody was on it for a second.
            addresses: host.sh("ip address").replace(" tentative", ""),
            routes: host
                .sh("ip -4 route show table all; ip -6 route show table all | grep -v '^local fe80:'"),
            rules: host.sh("ip rule; ip -6 rule"),
            ruleset: host.sh("nft list ruleset"),
            settings: settings(host),
            leases: held_leases(&state.join("networks")),
        }
    }

    /// Waits until the host is like this again, and fails with what is not.
    #[track_caller]
    pub(crate) fn assert_are_again(&self, host: &Place, state: &Path) {
        // What dies with a namespace is taken down by the kernel in its own time.
        let begin = Instant::now();
        let mut now = Self::look(host, state);
        while now != *self && begin.elapsed() < crate::run::SOON {
            std::thread::sleep(Duration::from_millis(20));
            now = Self::look(host, state);
        }
        for (what, before, now) in [
            ("links", &self.links, &now.links),
            ("addresses", &self.addresses, &now.addresses),
            ("routes", &self.routes, &now.routes),
            ("rules", &self.rules, &now.rules),
            ("ruleset", &self.ruleset, &now.ruleset),
        ] {
            let only = |one: &str, other: &str| -> Vec<String> {
                let lines = one
                    .lines()
                    .filter(|line| other.lines().all(|known| known != *line));
                lines.map(str::to_owned).collect()
            };
            assert_eq!(
                (only(now, before), only(before, now)),
                Default::default(),
                "{what}"
            );
            assert_eq!(now, before, "{what}");
        }
        let changed = |(path, text): &(&String, &String)| self.settings.get(*path) != Some(text);
        let changed: Vec<_> = now.settings.iter().filter(changed).collect();
        assert!(changed.is_empty(), "settings: {changed:?}");
        assert_eq!(now.settings.len(), self.settings.len());
        assert_eq!(now.leases, self.leases);
    }
}

impl Stage {
    /// Looks at the host.
    pub(super) fn traces(&self) -> Traces {
        Traces::of(self.host(), &self.state())
    }

    /// Waits until the host is again what it was `before`, and fails with what is not.
    #[track_caller]
    pub(super) fn is_again(&self, before: &Traces) {
        before.assert_are_again(self.host(), &self.state());
    }
}

/// Everything below `/proc/sys/net` that does not count what goes on.
fn settings(host: &Place) -> BTreeMap<String, String> {
    let text = host.sh(
        "cd /proc/sys/net; find ipv4 ipv6 -type f ! -name flush ! -name '*_count' ! -name 'stable_secret' \
         ! -path '*/tcp_fastopen_key' -exec grep -H '' {} + 2>/dev/null || true",
    );
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    lines
        .map(|(path, value)| (path.to_owned(), value.to_owned()))
        .collect()
}

/// The files below `folder` that somebody holds a lock on.
fn held_leases(folder: &Path) -> Vec<String> {
    use std::os::unix::fs::MetadataExt;
    let locks = fs_err::read_to_string("/proc/locks").unwrap();
    let held = |inode: u64| {
        let inode = inode.to_string();
        let places = locks.lines().filter_map(|line| {
            line.split_ascii_whitespace()
                .find(|word| word.matches(':').count() == 2)
        });
        let mut inodes = places.filter_map(|place| place.rsplit(':').next());
        inodes.any(|other| other == inode)
    };
    let paths = crate::run::listing(folder);
    paths
        .into_iter()
        .filter(|path| fs_err::metadata(path).is_ok_and(|file| file.is_file() && held(file.ino())))
        .collect()
}

#[test]
fn what_a_lease_is_can_be_seen() {
    let Some(stage) = Stage::new() else { return };
    let run = stage.start(&BRIDGE, "");
    assert_eq!(Traces::look(stage.host(), &stage.state()).leases.len(), 1);
    run.finish();
    assert_eq!(stage.traces().leases, Vec::<String>::new());
}

#[test]
fn after_a_network_is_removed_the_host_is_what_it_was() {
    let Some(stage) = Stage::new() else { return };
    let before = stage.traces();
    let options = [&BRIDGE[..], &["-p", "8080:80"]].concat();
    for options in [&BRIDGE[..], &options] {
        stage.says(options, "true");
    }
    let with = stage.traces();
    assert!(
        with.links.contains("mk0") && with.ruleset.contains("masquerade"),
        "{with:?}"
    );
    assert_eq!(stage.mk(["network", "rm", "mk0"]).ok().stderr, "");
    stage.is_again(&before);
    // And once more: what was put back is what it takes.
    let web = stage.world.outside.web(80);
    stage.says(
        &BRIDGE,
        &format!("wget -q -T 5 -O - http://{}/", crate::harness::world::OUTSIDE4),
    );
    assert_eq!(web.seen().len(), 1);
    stage.mk(["network", "rm", "mk0"]).ok();
    stage.is_again(&before);
}

#[test]
fn a_host_that_forwards_already_goes_on_after_a_network_is_removed() {
    let Some(stage) = Stage::new() else { return };
    stage
        .host()
        .sh("echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding");
    stage.host().sh("nft add table inet theirs; nft add chain inet theirs forward '{ type filter hook forward priority 0; }'");
    let before = stage.traces();
    stage.says(&BRIDGE, "true");
    stage.mk(["network", "rm", "mk0"]).ok();
    stage.is_again(&before);
}

#[test]
fn networks_that_meet_are_removed_one_by_one_in_any_order() {
    let Some(stage) = Stage::new() else { return };
    let before = stage.traces();
    for order in [["mk0", "blue"], ["blue", "mk0"]] {
        for name in ["mk0", "blue"] {
            stage.says(&["--network", &format!("bridge:{name}")], "true");
        }
        stage.mk(["network", "rm", order[0]]).ok();
        // The other goes on to work.
        let web = stage.world.outside.web(80);
        for url in ["http://192.0.2.2/", "http://[2001:db8::2]/"] {
            let network = format!("bridge:{}", order[1]);
            stage.says(&["--network", &network], &format!("wget -q -T 5 -O - {url}"));
        }
        assert_eq!(web.seen().len(), 2);
        stage.mk(["network", "rm", order[1]]).ok();
        stage.is_again(&before);
    }
}

#[test]
fn runs_that_are_killed_at_any_moment_leave_nothing() {
    let Some(stage) = Stage::new() else { return };
    let fresh = stage.traces();
    let options = [&BRIDGE[..], &["-p", "8080:80", "--name", "web"]].concat();
    let begin = Instant::now();
    stage.says(&options, "true");
    // As long as a run takes, and a little longer.
    let whole = begin.elapsed() * 3 / 2;
    let before = stage.traces();
    let mut chance = Chance::new();
    let seed = chance.seed;
    for _ in 0..KILLED {
        let marker = marker();
        let mut mk = stage.command();
        mk.arg("run").args(&options).args(["box", "sleep", &marker]);
        mk.stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = stage.host().enter(|| mk.spawn().unwrap());
        std::thread::sleep(chance.moment(whole));
        child.kill().unwrap();
        child.wait().unwrap();
        eventually(&format!("all of a run to end (MK_TEST_SEED={seed})"), || {
            processes_with(&marker).is_empty()
        });
    }
    // Name, port and address are free; it may be told that whoever had them is gone.
    stage.run(&options, "true").ok();
    stage.is_again(&before);
    stage.mk(["network", "rm", "mk0"]).ok();
    stage.is_again(&fresh);
}

#[test]
fn a_network_whose_making_is_killed_at_any_moment_is_whole_for_the_next() {
    let Some(stage) = Stage::new() else { return };
    let before = stage.traces();
    let begin = Instant::now();
    stage.says(&BRIDGE, "true");
    let whole = begin.elapsed();
    stage.mk(["network", "rm", "mk0"]).ok();
    let web = stage.world.outside.web(80);
    let mut chance = Chance::new();
    let rounds = KILLED / 4;
    for round in 0..rounds {
        let mut mk = stage.command();
        mk.args(["run", "--network", "bridge", "box", "true"]);
        mk.stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = stage.host().enter(|| mk.spawn().unwrap());
        std::thread::sleep(chance.moment(whole));
        child.kill().unwrap();
        child.wait().unwrap();
        let fetched = stage.run(
            &BRIDGE,
            "wget -q -T 5 -O - http://192.0.2.2/ && wget -q -T 5 -O - http://[2001:db8::2]/",
        );
        let said = format!("round {round}, MK_TEST_SEED={}: {fetched}", chance.seed);
        assert_eq!(fetched.text(), "192.0.2.1\n2001:db8::1", "{said}");
        stage.mk(["network", "rm", "mk0"]).ok();
        stage.is_again(&before);
    }
    assert_eq!(web.seen().len(), 2 * rounds);
}
