//! Names: what `/etc/hosts` and `/etc/resolv.conf` say on each kind of network, who finds whom by which name, and
//! containers in networks that others have made.

use super::Stage;
use crate::harness::Sandbox;
use crate::harness::needs;
use crate::run::{boxed, eventually};

/// The first lines of every `/etc/hosts`.
const LOOPBACK: &str = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n";

/// A stage whose host has a namespace `blue`, with the interfaces `d0` and `d1` in it.
fn with_blue() -> Option<Stage> {
    let stage = Stage::new()?;
    stage.host().sh("ip netns add blue
         ip -n blue link set lo up
         ip -n blue link add d0 type veth peer name d1");
    Some(stage)
}

/// A container that runs in the background of a sandbox, and ends with it.
struct Background<'a>(&'a Sandbox, &'static str);

impl<'a> Background<'a> {
    fn start(sandbox: &'a Sandbox, name: &'static str, options: &[&str], script: &str) -> Self {
        let script = format!("{script}\ntrap 'exit 0' TERM; while :; do sleep 0.05; done");
        let words = [
            &["run", "-d", "--rm", "--name", name],
            options,
            &["box", "sh", "-c", &script],
        ]
        .concat();
        sandbox.mk(words).ok();
        Self(sandbox, name)
    }
}

impl Drop for Background<'_> {
    fn drop(&mut self) {
        self.0.mk(["stop", "-t", "1", self.1]);
    }
}

#[test]
fn a_namespace_that_others_made_is_joined_with_what_is_in_it() {
    let Some(stage) = with_blue() else { return };
    let links = stage.says(&["--network", "ns:blue"], "ls /sys/class/net; cat /etc/hosts");
    assert_eq!(links, format!("d0\nd1\nlo\n{LOOPBACK}127.0.1.1\tmk"));
    // It is not the run's to change, and is there when it is gone.
    assert!(stage.host().sh("ip -n blue link show d0").contains("d0"));
    let _running = stage.start(&["--network", "ns:blue", "--name", "web"], "true");
    assert_eq!(
        stage.mk(["exec", "web", "ls", "/sys/class/net"]).ok().text(),
        "d0\nd1\nlo"
    );
    let listed = stage.mk(["ps", "--json"]).ok().stdout;
    assert!(listed.contains(r#""kind": "ns:blue""#), "{listed}");
}

#[test]
fn a_namespace_has_its_own_files_in_etc() {
    let Some(stage) = with_blue() else { return };
    stage.host().sh("mkdir -p /etc/netns/blue
         echo 'nameserver 10.1.1.1' >/etc/netns/blue/resolv.conf
         printf '10.1.1.2\\tgateway' >/etc/netns/blue/hosts");
    let blue = &["--network", "ns:blue"][..];
    assert_eq!(stage.says(blue, "cat /etc/resolv.conf"), "nameserver 10.1.1.1");
    assert_eq!(
        stage.says(blue, "cat /etc/hosts"),
        "10.1.1.2\tgateway\n127.0.1.1\tmk"
    );
    let asked = [
        "--dns",
        "10.9.9.9",
        "--add-host",
        "db:10.1.1.3",
        "--dns-search",
        "lan",
    ];
    let said = stage.says(&[blue, &asked].concat(), "cat /etc/resolv.conf /etc/hosts");
    assert_eq!(
        said,
        "nameserver 10.9.9.9\nsearch lan\n10.1.1.2\tgateway\n127.0.1.1\tmk\n10.1.1.3\tdb"
    );
}

#[test]
fn a_namespace_that_is_not_there_is_an_error_that_names_those_that_are() {
    let Some(stage) = with_blue() else { return };
    let output = stage.run(&["--network", "ns:bleu"], "true");
    assert_eq!(output.code, Some(125), "{output}");
    assert!(
        output
            .stderr
            .contains("there is no network namespace `bleu`: those that there are: `blue`"),
        "{output}"
    );
    assert!(
        output.stderr.contains("did you mean `--network ns:blue`?"),
        "{output}"
    );
    stage.host().sh("touch /run/netns/file");
    let output = stage.run(&["--network", "ns:file"], "true");
    assert!(
        output
            .stderr
            .contains("`/run/netns/file` is no network namespace"),
        "{output}"
    );
    let output = stage.run(&["--network", "ns:blue", "--userns", "auto"], "true");
    assert!(
        output
            .stderr
            .contains("`--userns auto` does not go with the network `ns:blue`"),
        "{output}"
    );
}

#[test]
fn the_host_s_network_comes_with_whom_the_host_asks() {
    let Some(stage) = Stage::new() else { return };
    stage.host().sh("rm -f /etc/resolv.conf
         printf 'nameserver 127.0.0.53\\noptions edns0\\nsearch lan\\n' >/etc/resolv.conf");
    let host = &["--network", "host"][..];
    assert_eq!(
        stage.says(host, "cat /etc/resolv.conf"),
        "nameserver 127.0.0.53\noptions edns0\nsearch lan"
    );
    assert_eq!(
        stage.says(
            &[host, &["--dns", "fd00::53", "--dns-search", "a.b"]].concat(),
            "cat /etc/resolv.conf"
        ),
        "nameserver fd00::53\nsearch a.b\noptions edns0"
    );
    // Without a network nobody is asked, but for whom the caller names.
    assert_eq!(stage.says(&[], "cat /etc/resolv.conf"), "");
    assert_eq!(
        stage.says(&["--dns", "127.0.0.1"], "cat /etc/resolv.conf"),
        "nameserver 127.0.0.1"
    );
}

#[test]
fn lines_that_were_asked_for_are_in_etc_hosts() {
    let Some(sandbox) = boxed("[conf]\nhosts = { '10.0.0.7' = ['db', 'old'] }") else {
        return;
    };
    let script = "cat /etc/hosts; ping -c 1 -w 1 me 2>&1 | head -n 1";
    let options = ["--add-host", "db:10.9.9.9", "--add-host", "me:::1"];
    let words = [&["run"], &options[..], &["box", "sh", "-c", script]].concat();
    let output = sandbox.mk(words).ok();
    let hosts = format!("{LOOPBACK}127.0.1.1\tmk\n10.9.9.9\tdb\n::1\tme\n10.0.0.7\told\n");
    assert_eq!(
        output.stdout,
        format!("{hosts}PING me (::1): 56 data bytes\n"),
        "{output}"
    );
}

#[test]
fn a_container_s_network_is_shared_with_its_names() {
    let Some(sandbox) = boxed("") else { return };
    let options = [
        "--hostname",
        "first",
        "--add-host",
        "db:10.0.0.7",
        "--dns",
        "10.0.0.53",
    ];
    let serve = "mkdir -p /www; echo hello >/www/index.html; httpd -h /www -p 127.0.0.1:8080";
    let web = Background::start(&sandbox, "web", &options, serve);
    let second = ["--network", "container:web", "--hostname", "second"];
    let run = |options: &[&str], script: &str| {
        sandbox.mk([&["run"], options, &["box", "sh", "-c", script]].concat())
    };
    eventually("the server", || {
        run(&second, "wget -qO- http://127.0.0.1:8080/").stdout == "hello\n"
    });
    assert_eq!(
        run(&second, "cat /etc/hosts /etc/resolv.conf").ok().text(),
        format!("{LOOPBACK}127.0.1.1\tfirst\n10.0.0.7\tdb\n127.0.1.1\tsecond\nnameserver 10.0.0.53")
    );
    let number = "readlink /proc/self/ns/net";
    let its = sandbox
        .mk(["exec", "web", "readlink", "/proc/self/ns/net"])
        .ok()
        .stdout;
    assert_eq!(run(&second, number).ok().stdout, its);
    assert_ne!(run(&[], number).ok().stdout, its);
    // One goes in that shares, and a third shares its network.
    let other = Background::start(&sandbox, "other", &second, "true");
    assert_eq!(
        sandbox
            .mk(["exec", "other", "readlink", "/proc/self/ns/net"])
            .ok()
            .stdout,
        its
    );
    let third = ["--network", "container:other"];
    assert_eq!(run(&third, number).ok().stdout, its);
    // The network outlives who brought it.
    drop(web);
    assert_eq!(run(&third, number).ok().stdout, its);
    drop(other);
    let gone = run(&third, "true");
    assert_eq!(gone.code, Some(125), "{gone}");
    assert!(gone.stderr.contains("there is no container `other`"), "{gone}");
}

#[test]
fn a_container_on_the_host_s_network_shares_that() {
    let Some(sandbox) = boxed("") else { return };
    let _web = Background::start(&sandbox, "web", &["--network", "host"], "true");
    let script = "readlink /proc/self/ns/net; ls /sys/class/net | head -n 1";
    let number = |options: &[&str]| {
        let words = [&["run"], options, &["box", "sh", "-c", script]].concat();
        sandbox.mk(words).ok().stdout
    };
    assert_eq!(
        number(&["--network", "container:web"]),
        number(&["--network", "host"])
    );
}

#[test]
fn an_ordinary_user_is_told_whose_a_namespace_is() {
    let Some(sandbox) = boxed("") else { return };
    if needs::is_root() {
        let Some(stage) = with_blue() else { return };
        // Root of a user namespace of its own is nobody to the host's.
        let mk = env!("CARGO_BIN_EXE_mk");
        let state = stage.state().display().to_string();
        let store = stage.work().join("nested");
        let said = stage.host().try_sh(&format!(
            "unshare -Ur env MK_STATE={state} MK_STORE={} {mk} run --network ns:blue {} true",
            store.display(),
            stage.work().join("box.toml").display()
        ));
        let stderr = String::from_utf8_lossy(&said.stderr);
        assert!(
            stderr.contains("the network namespace `blue` belongs to root of the machine"),
            "{stderr}"
        );
        return;
    }
    let output = sandbox.mk(["run", "--network", "ns:no-such-one", "box", "true"]);
    assert!(
        output
            .stderr
            .contains("there is no network namespace `no-such-one`"),
        "{output}"
    );
}

#[test]
fn containers_on_a_network_find_each_other_by_name_and_alias() {
    let Some(stage) = Stage::new() else { return };
    let db = stage.serve("db", &["--network", "bridge", "--network-alias", "all"]);
    let cache = stage.serve("cache", &["--network", "bridge", "--network-alias", "all"]);
    let options = ["--network", "bridge", "--name", "web", "--hostname", "front"];
    let said = stage.says(
        &options,
        "wget -qO- http://db/; wget -qO- http://cache/; ping -c 1 -w 5 web >/dev/null && echo me; cat /etc/hosts",
    );
    let hosts: Vec<&str> = said.strip_prefix("db\ncache\nme\n").unwrap().lines().collect();
    let ending = |end: &str| hosts.iter().filter(|line| line.ends_with(end)).count();
    // One line for each address: IPv4 and IPv6.
    assert_eq!((ending("\tdb all"), ending("\tcache all")), (2, 2), "{said}");
    assert_eq!(ending("\tfront web"), 2, "{said}");
    assert!(!said.contains("127.0.1.1"), "{said}");
    drop((db, cache));
}

#[test]
fn names_come_and_go_while_a_container_runs() {
    let Some(stage) = Stage::new() else { return };
    let bridge = ["--network", "bridge"];
    // One that a monitor looks after, one in the foreground, and one that shares the network of the first.
    stage
        .mk([
            "run",
            "-d",
            "--rm",
            "--name",
            "early",
            "--network",
            "bridge",
            "box",
            "sleep",
            "1000",
        ])
        .ok();
    let script = "(until grep -q late /etc/hosts; do sleep 0.05; done; until ! grep -q late /etc/hosts; do sleep 0.05; done; \
                  echo seen) &";
    let running = stage.start(&bridge, script);
    stage
        .mk([
            "run",
            "-d",
            "--rm",
            "--name",
            "guest",
            "--network",
            "container:early",
            "box",
            "sleep",
            "1000",
        ])
        .ok();
    let hosts = |name: &str| stage.mk(["exec", name, "cat", "/etc/hosts"]).ok().stdout;
    let before = hosts("early");
    let late = stage.serve("late", &bridge);
    for name in ["early", "guest"] {
        eventually("the name in its hosts", || hosts(name).contains("\tlate\n"));
        let fetched = stage.mk(["exec", name, "wget", "-qO-", "http://late/"]);
        assert_eq!(fetched.ok().stdout, "late\n");
    }
    // Nobody without a name is in it: the foreground run is there, too.
    assert_eq!(
        hosts("early")
            .lines()
            .filter(|line| line.ends_with("\tlate"))
            .count(),
        2
    );
    assert_eq!(
        hosts("early").matches('\n').count(),
        before.matches('\n').count() + 3
    );
    late.kill();
    for name in ["early", "guest"] {
        eventually("the end of the name in its hosts", || {
            !hosts(name).contains("late")
        });
    }
    assert_eq!(hosts("early"), before);
    // In time for the foreground run to see both.
    std::thread::sleep(std::time::Duration::from_secs(2));
    assert_eq!(running.finish(), "seen\n");
}

#[test]
fn a_container_on_a_bridge_asks_whom_it_can_reach() {
    let Some(stage) = Stage::new() else { return };
    let bridge = &["--network", "bridge"][..];
    let says = |text: &str| {
        stage.host().sh(&format!(
            "rm -f /etc/resolv.conf; printf '{text}' >/etc/resolv.conf"
        ));
        stage.run(bridge, "cat /etc/resolv.conf").ok()
    };
    let mixed = "nameserver 127.0.0.53\\nnameserver 192.0.2.2\\nnameserver fe80::1%%uplink\\nsearch lan\\noptions ndots:2\\n";
    assert_eq!(
        says(mixed).text(),
        "nameserver 192.0.2.2\nsearch lan\noptions ndots:2"
    );
    let stub = "nameserver 127.0.0.53\\noptions edns0 trust-ad\\n";
    let without = says(stub);
    assert_eq!(without.text(), "options edns0");
    assert!(
        without.stderr.contains("name servers are on its own loopback"),
        "{without}"
    );
    stage.host().sh("mkdir -p /run/systemd/resolve
         echo 'nameserver 192.0.2.53' >/run/systemd/resolve/resolv.conf");
    let upstream = says(stub);
    assert_eq!(
        (upstream.text(), upstream.stderr.as_str()),
        ("nameserver 192.0.2.53", "")
    );
}
