//! The bridge itself: what `--dry-run` prints makes it, addresses as they were asked for, and what stands in its way.

use super::Stage;
use crate::harness::needs;

const BRIDGE: [&str; 2] = ["--network", "bridge"];

/// Prints the interface's hardware address, its IPv4 and its IPv6 address, without link-local ones.
const ADDRESSES: &str = "cat /sys/class/net/eth0/address
    ip -o addr show dev eth0 | grep -v fe80: | sed 's/.*inet6* \\([^ ]*\\) .*/\\1/'";

/// Runs `true` with `options`, which must fail, and returns what it says.
#[track_caller]
fn refused(stage: &Stage, options: &[&str]) -> String {
    let output = stage.run(&[&BRIDGE, options].concat(), "true");
    assert_eq!(output.code, Some(125), "{output}");
    output.stderr
}

/// Splits what `--dry-run` prints into what is typed on the host, and what is typed inside.
fn typed(dry_run: &str) -> (String, String) {
    let lines: Vec<&str> = dry_run.lines().collect();
    let at = |start: &str| {
        lines
            .iter()
            .position(|line| line.starts_with(start))
            .unwrap_or_else(|| panic!("no line that begins with `{start}`:\n{dry_run}"))
    };
    let (network, inside) = (at("# network "), at("# inside"));
    let commands = |line: &&&str| ["ip ", "sysctl "].iter().any(|word| line.starts_with(word));
    let inside_lines: Vec<&str> = lines[inside..].iter().filter(commands).copied().collect();
    (lines[network..inside].join("\n"), inside_lines.join("\n"))
}

#[test]
fn what_a_dry_run_prints_makes_the_same_when_it_is_typed() {
    let Some(stage) = Stage::new() else { return };
    for program in ["nft", "sysctl", "unshare", "nsenter"] {
        if needs::program(program).is_none() {
            return;
        }
    }
    let dry_run = stage.mk(["run", "--network", "bridge", "--dry-run", "box"]).ok();
    let (host, inside) = typed(dry_run.text());
    let busybox = stage.busybox();
    let seen = stage.host().sh(&format!(
        "unshare --net sleep 60 >&- 2>&- & PID=$!
         until test \"$(readlink /proc/$PID/ns/net)\" != \"$(readlink /proc/self/ns/net)\"; do sleep 0.01; done
         {{\n{host}\n}} >/dev/null
         nsenter --target $PID --net sh -ec '{inside}' >/dev/null
         nsenter --target $PID --net {busybox} ping -c 1 -W 5 192.168.10.1 >/dev/null
         nsenter --target $PID --net ip -o addr show dev eth0 | grep -v fe80: | sed 's/.*inet6* \\([^ ]*\\) .*/\\1/'
         nsenter --target $PID --net ip route show default
         kill $PID"
    ));
    let made = stage.says(
        &BRIDGE,
        "ip -o addr show dev eth0 | grep -v fe80: | sed 's/.*inet6* \\([^ ]*\\) .*/\\1/'; ip route show | grep default",
    );
    let lines = |text: &str| {
        text.lines()
            .map(|line| line.trim().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(lines(&seen), lines(&made));
}

#[test]
fn the_container_has_the_addresses_that_were_asked_for() {
    let Some(stage) = Stage::new() else { return };
    let six = stage.says(&BRIDGE, "ip -o -6 addr show dev eth0 | grep -v fe80:");
    let prefix = six.split_whitespace().nth(3).unwrap().split("::").next().unwrap();
    let ip6 = format!("{prefix}::77");
    let options = [
        &BRIDGE[..],
        &[
            "--ip",
            "192.168.10.66",
            "--ip6",
            &ip6,
            "--mac",
            "02:00:00:00:00:07",
        ],
    ]
    .concat();
    let mut seen: Vec<String> = stage
        .says(&options, ADDRESSES)
        .lines()
        .map(str::to_owned)
        .collect();
    seen.sort();
    let mut wanted = [
        "02:00:00:00:00:07".to_owned(),
        "192.168.10.66/24".into(),
        format!("{ip6}/64"),
    ];
    wanted.sort();
    assert_eq!(seen, wanted);
}

#[test]
fn an_address_that_the_network_cannot_give_is_refused_with_the_reason() {
    let Some(stage) = Stage::new() else { return };
    let outside = refused(&stage, &["--ip", "10.0.0.1"]);
    assert!(
        outside.starts_with(
            "error: 10.0.0.1 is no address for a container on the network `mk0`, 192.168.10.0/24: it is outside of that\n"
        ),
        "{outside}"
    );
    let bridges = refused(&stage, &["--ip", "192.168.10.1"]);
    assert!(bridges.contains("it is the bridge's own"), "{bridges}");
    let holder = stage.serve("web", &[&BRIDGE[..], &["--ip", "192.168.10.9"]].concat());
    let taken = refused(&stage, &["--ip", "192.168.10.9"]);
    assert!(
        taken.starts_with(
            "error: the address 192.168.10.9 on the network `mk0` is taken by container `web` (process "
        ),
        "{taken}"
    );
    assert!(taken.contains(&holder.mk().to_string()), "{taken}");
    let twice = refused(&stage, &["--mac", "02:6b:c0:a8:0a:09"]);
    assert!(twice.contains("is taken by container `web`"), "{twice}");
    holder.kill();
    // The lease ended with it: nothing has to be cleaned up.
    stage.says(&[&BRIDGE[..], &["--ip", "192.168.10.9"]].concat(), "true");
}

#[test]
fn a_name_keeps_its_address_from_run_to_run() {
    let Some(stage) = Stage::new() else { return };
    let options = [&BRIDGE[..], &["--name", "db"]].concat();
    let first = stage.says(&options, ADDRESSES);
    assert_ne!(stage.says(&BRIDGE, ADDRESSES), first);
    assert_eq!(stage.says(&options, ADDRESSES), first);
}

#[test]
fn the_usual_range_is_left_where_a_route_of_the_host_leads_to_it() {
    let Some(stage) = Stage::new() else { return };
    stage.host().sh("ip route add 192.168.8.0/21 via 192.0.2.2");
    assert_eq!(
        stage.says(
            &BRIDGE,
            "ip -o -4 addr show dev eth0 | sed 's/.*inet \\([^ ]*\\) .*/\\1/'"
        ),
        "192.168.16.2/24"
    );
    assert_eq!(
        stage
            .host()
            .sh("ip -o -4 addr show dev mk0 | grep -o '192[^ ]*/24'"),
        "192.168.16.1/24"
    );
}

#[test]
fn an_interface_of_somebody_elses_is_left_alone() {
    let Some(stage) = Stage::new() else { return };
    stage.host().sh("ip link add mk0 type bridge");
    let said = refused(&stage, &[]);
    assert!(
        said.starts_with(
            "error: there is an interface `mk0` on the host that is not this network's bridge\n"
        ),
        "{said}"
    );
    assert_eq!(stage.host().sh("ip -o link show mk0 | wc -l"), "1");
}

#[test]
fn what_somebody_took_away_of_a_network_comes_back_with_the_next_run() {
    let Some(stage) = Stage::new() else { return };
    if needs::program("nft").is_none() {
        return;
    }
    stage.says(&BRIDGE, "true");
    let rules = stage.host().sh("nft list table inet mk-mk0");
    let ping = "ping -c 1 -W 5 192.168.10.1 >/dev/null";
    for harm in [
        "nft delete table inet mk-mk0",
        "ip link set mk0 down",
        "ip link del mk0",
        // As it is when mk is killed before it has made the whole of it.
        "ip link set mk0 alias ''; ip address flush dev mk0",
    ] {
        stage.host().sh(harm);
        stage.says(&BRIDGE, ping);
        assert_eq!(stage.host().sh("nft list table inet mk-mk0"), rules, "{harm}");
    }
}

#[test]
fn a_bridge_whose_folder_was_lost_is_found_again_or_made_anew() {
    let Some(stage) = Stage::new() else { return };
    let lose = || fs_err::remove_dir_all(stage.state().join("networks")).unwrap();
    let ping = |gateway: &str| {
        stage.says(&BRIDGE, &format!("ping -c 1 -W 5 {gateway} >/dev/null"));
        stage.host().sh("ip -o -4 addr show mk0")
    };
    let first = ping("192.168.10.1");
    lose();
    assert_eq!(ping("192.168.10.1"), first);
    lose();
    stage
        .mk(["network", "create", "mk0", "--subnet", "10.9.8.0/24"])
        .ok();
    let other = ping("10.9.8.1");
    assert!(
        other.contains("10.9.8.1/24") && !other.contains("192.168"),
        "{other}"
    );
    lose();
    let third = ping("192.168.10.1");
    assert!(
        third.contains("192.168.10.1/24") && !third.contains("10.9.8"),
        "{third}"
    );
}

#[test]
fn a_container_with_ids_of_its_own_and_one_at_process_1_are_on_the_bridge() {
    let Some(stage) = Stage::new() else { return };
    let ping = "ping -c 1 -W 5 192.168.10.1 >/dev/null && cat /proc/sys/net/ipv6/conf/eth0/accept_ra";
    for more in [["--userns", "auto"], ["--as-pid1", "--read-only"]] {
        assert_eq!(stage.says(&[BRIDGE, more].concat(), ping), "0", "{more:?}");
    }
}

#[test]
fn a_command_that_is_not_there_leaves_no_lease() {
    let Some(stage) = Stage::new() else { return };
    let output = stage.mk(["run", "--network", "bridge", "box", "no-such-command"]);
    assert_eq!(output.code, Some(127), "{output}");
    let leases = stage.state().join("networks/mk0/leases");
    let left: Vec<String> = fs_err::read_dir(leases)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(left, ["last"]);
}
