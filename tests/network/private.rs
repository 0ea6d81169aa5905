use std::collections::BTreeSet;
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::process::Child;

use crate::harness::Sandbox;
use crate::run::{boxed, eventually, finish, listing, says, sh, start};

/// Prints the container's address.
const ADDRESS: &str = "ip -4 -o address show dev eth0 | sed 's/.* inet \\([0-9.]*\\).*/\\1/'";
/// Serves what says `name` on port 80, and goes on until its stdin ends.
fn serve(name: &str) -> String {
    format!(
        "mkdir /www; echo {name} >/www/index.html; httpd -h /www -p 80; {ADDRESS} >/mnt/{name}; echo up; cat"
    )
}

/// A run that serves its name.
struct Served {
    child: Child,
    address: String,
}

impl Served {
    /// Starts one on the network that `options` say; the sandbox's folder `shared` is its `/mnt`.
    fn new(sandbox: &Sandbox, name: &str, options: &[&str]) -> Self {
        fs_err::create_dir_all(sandbox.work().join("shared")).unwrap();
        let options = [options, &["--name", name, "-v", "./shared:/mnt"]].concat();
        let child = start(sandbox, &options, &serve(name));
        let address = fs_err::read_to_string(sandbox.work().join("shared").join(name)).unwrap();
        Self {
            child,
            address: address.trim().to_owned(),
        }
    }

    /// Ends it as SIGKILL ends mk.
    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// The network namespace of mk, the process `pid`.
fn network_of(pid: u32) -> u64 {
    fs_err::metadata(format!("/proc/{pid}/ns/net")).unwrap().ino()
}

/// Returns how many processes are in the network namespace `network`, as far as this one may look.
fn processes_in(network: u64) -> usize {
    let processes = fs_err::read_dir("/proc").unwrap().flatten();
    let inside = processes.filter(|entry| {
        fs_err::metadata(entry.path().join("ns/net")).is_ok_and(|namespace| namespace.ino() == network)
    });
    inside.count()
}

fn fetch(address: &str) -> String {
    format!("wget -T 5 -qO- http://{address}/")
}

#[test]
fn two_runs_reach_each_other_and_nothing_else() {
    let Some(sandbox) = boxed("") else { return };
    let host = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = host.local_addr().unwrap().port();
    let web = Served::new(&sandbox, "web", &["--network", "private"]);
    let script = format!(
        "{}; ip route | grep -c default; wget -T 2 -qO- http://127.0.0.1:{port} 2>&1; \
         wget -T 2 -qO- http://192.0.2.1:{port} 2>&1; wget -T 2 -qO- http://${{gateway}}:{port} 2>&1; true",
        fetch(&web.address)
    );
    let gateway = format!("gateway={}.1; {script}", web.address.rsplit_once('.').unwrap().0);
    let said = says(&sandbox, &["--network", "private"], &gateway);
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[..2], ["web", "0"], "{said}");
    assert!(lines[2].contains("Connection refused"), "{said}");
    assert!(lines[3].contains("Network unreachable"), "{said}");
    assert!(lines[4].contains("Connection refused"), "{said}");
    assert_eq!(finish(web.child).1, Some(0));
}

#[test]
fn two_private_networks_are_apart() {
    let Some(sandbox) = boxed("") else { return };
    let one = Served::new(&sandbox, "one", &["--network", "private:a"]);
    let two = Served::new(&sandbox, "two", &["--network", "private:b"]);
    assert_ne!(network_of(one.child.id()), network_of(two.child.id()));
    let there = |network: &str, address: &str| sh(&sandbox, &["--network", network], &fetch(address));
    assert_eq!(there("private:a", &one.address).ok().text(), "one");
    assert_eq!(there("private:b", &two.address).ok().text(), "two");
    assert_ne!(there("private:b", &one.address).code, Some(0));
}

#[test]
fn a_network_outlives_whoever_made_it_and_ends_with_the_last() {
    let Some(sandbox) = boxed("") else { return };
    let options = ["--network", "private"];
    let maker = Served::new(&sandbox, "maker", &options);
    let second = Served::new(&sandbox, "second", &options);
    let network = network_of(maker.child.id());
    assert_eq!(network_of(second.child.id()), network);
    maker.kill();
    assert_eq!(says(&sandbox, &options, &fetch(&second.address)), "second");
    let third = Served::new(&sandbox, "third", &options);
    assert_eq!(network_of(third.child.id()), network);
    second.kill();
    assert_eq!(says(&sandbox, &options, &fetch(&third.address)), "third");
    third.kill();
    eventually("the end of the namespace", || processes_in(network) == 0);
    // Whoever comes finds nothing but dead seats, and begins anew.
    let next = Served::new(&sandbox, "next", &options);
    let members = sandbox.state().join("networks/private/members");
    assert_eq!(fs_err::read_dir(&members).unwrap().count(), 1);
    assert_eq!(says(&sandbox, &options, &fetch(&next.address)), "next");
    assert_eq!(finish(next.child).1, Some(0));
    assert_eq!(fs_err::read_dir(&members).unwrap().count(), 0);
}

#[test]
fn twenty_that_start_at_once_are_on_one_network() {
    let Some(sandbox) = boxed("") else { return };
    fs_err::create_dir(sandbox.work().join("shared")).unwrap();
    let runs: Vec<Served> = std::thread::scope(|scope| {
        let start = |number: usize| {
            let sandbox = &sandbox;
            scope.spawn(move || Served::new(sandbox, &format!("run{number}"), &["--network", "private"]))
        };
        let started: Vec<_> = (0..20).map(start).collect();
        started.into_iter().map(|run| run.join().unwrap()).collect()
    });
    let networks: BTreeSet<u64> = runs.iter().map(|run| network_of(run.child.id())).collect();
    assert_eq!(networks.len(), 1, "{networks:?}");
    let addresses: BTreeSet<&str> = runs.iter().map(|run| run.address.as_str()).collect();
    assert_eq!(addresses.len(), runs.len(), "{addresses:?}");
    let all: Vec<String> = runs.iter().map(|run| fetch(&run.address)).collect();
    let said = says(&sandbox, &["--network", "private"], &all.join("; "));
    let expected: Vec<String> = (0..20).map(|number| format!("run{number}")).collect();
    assert_eq!(said.lines().collect::<Vec<_>>(), expected);
    runs.into_iter().for_each(Served::kill);
    let network = networks.into_iter().next().unwrap();
    eventually("the end of the namespace", || processes_in(network) == 0);
}

#[test]
fn an_image_that_asks_for_a_private_network_is_on_it_like_one_that_is_told() {
    let Some(sandbox) = boxed("[run]\nnetwork = 'private:team'\n") else {
        return;
    };
    let web = Served::new(&sandbox, "web", &[]);
    assert_eq!(says(&sandbox, &[], &fetch(&web.address)), "web");
    assert_eq!(
        says(&sandbox, &["--network", "private:team"], &fetch(&web.address)),
        "web"
    );
    // The recipe itself, too.
    let output = sandbox
        .mk(["run", "./box.toml", "sh", "-c", &fetch(&web.address)])
        .ok();
    assert_eq!(output.text(), "web", "{output}");
    assert_ne!(
        sh(&sandbox, &["--network", "none"], &fetch(&web.address)).code,
        Some(0)
    );
}

#[test]
fn a_container_in_the_background_keeps_the_network() {
    let Some(sandbox) = boxed("") else { return };
    fs_err::create_dir(sandbox.work().join("shared")).unwrap();
    let script = format!("{}; exec sleep 1000", serve("web").replace("; echo up; cat", ""));
    let options = [
        "run",
        "-d",
        "--name",
        "web",
        "--network",
        "private",
        "-v",
        "./shared:/mnt",
        "box",
    ];
    sandbox.mk([&options[..], &["sh", "-c", &script]].concat()).ok();
    let written = sandbox.work().join("shared/web");
    let address = || fs_err::read_to_string(&written).unwrap_or_default();
    eventually("the address of the container", || address().ends_with('\n'));
    let said = says(&sandbox, &["--network", "private"], &fetch(address().trim()));
    sandbox.mk(["stop", "-t", "0", "web"]).ok();
    assert_eq!(said, "web");
}

#[test]
fn a_dry_run_says_what_would_be_made_and_makes_nothing() {
    let Some(sandbox) = boxed("") else { return };
    let output = sandbox
        .mk(["run", "--dry-run", "--network", "private", "box", "true"])
        .ok();
    assert!(output.stdout.contains("ip link add private "), "{output}");
    assert_eq!(listing(&sandbox.state()), BTreeSet::new());
    // With somebody there, the network is, too.
    let web = Served::new(&sandbox, "web", &["--network", "private"]);
    let output = sandbox
        .mk(["run", "--dry-run", "--network", "private", "box", "true"])
        .ok();
    assert!(output.stdout.contains("is there"), "{output}");
    assert_eq!(finish(web.child).1, Some(0));
}
