//! What a reader of the articles on networks of containers does by hand (a bridge, a pair of veth, an address, a route, a
//! ping) is what a run with a bridge comes to.

use super::{Addresses, Stage, ip};
use crate::run::eventually;

const BRIDGE: [&str; 2] = ["--network", "bridge"];

#[test]
fn the_first_run_makes_the_bridge_with_its_address() {
    let Some(stage) = Stage::new() else { return };
    assert_eq!(stage.says(&BRIDGE, "echo ran"), "ran");
    let bridge = &ip(stage.host(), "-details link show dev mk0")[0];
    assert_eq!(bridge["linkinfo"]["info_kind"], "bridge", "{bridge}");
    assert!(
        bridge["flags"].as_array().unwrap().contains(&"UP".into()),
        "{bridge}"
    );
    let address = &ip(stage.host(), "-4 address show dev mk0")[0]["addr_info"][0];
    assert_eq!(address["local"], "192.168.10.1", "{address}");
    assert_eq!(address["prefixlen"], 24, "{address}");
    let v6 = Addresses::of(stage.host(), "mk0").v6;
    assert_eq!(
        v6.segments()[0] & 0xfe00,
        0xfc00,
        "{v6} is a unique local address (RFC 4193)"
    );

    // The second finds it as it is.
    stage.says(&BRIDGE, "true");
    let second = &ip(stage.host(), "link show dev mk0")[0];
    assert_eq!(
        (&second["ifindex"], &second["address"]),
        (&bridge["ifindex"], &bridge["address"])
    );
    assert_eq!(Addresses::of(stage.host(), "mk0").v6, v6);
}

#[test]
fn a_run_has_eth0_up_at_its_address_and_a_default_route_through_the_bridge() {
    let Some(stage) = Stage::new() else { return };
    let run = stage.start(&BRIDGE, "ip address show dev eth0; ip route; ip -6 route");
    let (bridge, container) = (Addresses::of(stage.host(), "mk0"), run.place(&stage));
    let eth0 = Addresses::of(&container, "eth0");
    let link = &ip(&container, "link show dev eth0")[0];
    assert_eq!(link["operstate"], "UP", "{link}");
    assert_eq!(eth0.v4.octets()[..3], [192, 168, 10]);
    assert_eq!(eth0.v6.segments()[..4], bridge.v6.segments()[..4], "one prefix");

    // As the command sees it.
    let said = run.said.join("\n");
    for line in [
        format!("inet {}/24", eth0.v4),
        format!("inet6 {}/64", eth0.v6),
        format!("default via {} dev eth0", bridge.v4),
        format!("default via {} dev eth0", bridge.v6),
    ] {
        assert!(said.contains(&line), "{line:?} in {said}");
    }
    // Nothing that would have it believe whoever claims to be a router.
    for setting in ["accept_ra", "autoconf"] {
        let path = format!("/proc/sys/net/ipv6/conf/eth0/{setting}");
        assert_eq!(container.sh(&format!("cat {path}")), "0", "{path}");
    }
}

#[test]
fn the_host_and_a_container_ping_each_other_from_the_first_moment() {
    let Some(stage) = Stage::new() else { return };
    stage.says(&BRIDGE, "true");
    for address in Addresses::of(stage.host(), "mk0").texts() {
        stage.says(&BRIDGE, &format!("ping -c 1 -W 1 {address}"));
    }
    let run = stage.start(&BRIDGE, "");
    for address in Addresses::of(&run.place(&stage), "eth0").texts() {
        assert!(stage.answers(stage.host(), &address), "{address}");
    }
}

#[test]
fn two_containers_fetch_from_each_other_by_name() {
    let Some(stage) = Stage::new() else { return };
    let first = stage.serve("first", &BRIDGE);
    let second = stage.serve("second", &BRIDGE);
    for (client, server) in [("first", "second"), ("second", "first"), ("first", "first")] {
        let url = format!("http://{server}/");
        let fetched = stage
            .mk(["exec", client, "wget", "-q", "-T", "5", "-O", "-", &url])
            .ok();
        assert_eq!(fetched.text(), server, "{client} asks {server}");
    }
    // By address, too, and by both kinds.
    for address in Addresses::of(&second.place(&stage), "eth0").texts() {
        assert_eq!(first.place(&stage).get(&address, 80).unwrap(), "second");
    }
    // A name is gone with who had it.
    second.finish();
    eventually("the name to be gone", || {
        let hosts = stage.mk(["exec", "first", "cat", "/etc/hosts"]).ok();
        !hosts.stdout.contains("second")
    });
}

#[test]
fn the_host_has_one_veth_a_run_on_the_bridge_and_none_after_them() {
    let Some(stage) = Stage::new() else { return };
    let runs: Vec<_> = (0..3).map(|_| stage.start(&BRIDGE, "")).collect();
    let mut ports = stage.ports_of("mk0");
    assert_eq!(ports.len(), 3, "{ports:?}");
    ports.dedup();
    for port in &ports {
        let digits = port.strip_prefix("mk").unwrap();
        assert!(
            digits.len() == 11 && digits.bytes().all(|digit| digit.is_ascii_hexdigit()),
            "{port}"
        );
        assert_eq!(
            ip(stage.host(), &format!("-details link show dev {port}"))[0]["linkinfo"]["info_kind"],
            "veth"
        );
    }
    let mut addresses: Vec<Addresses> = runs
        .iter()
        .map(|run| Addresses::of(&run.place(&stage), "eth0"))
        .collect();
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), 3, "each has its own");
    for run in runs {
        run.finish();
    }
    eventually("the links to be gone", || stage.ports_of("mk0").is_empty());
    let links = ip(stage.host(), "link");
    assert_eq!(links.len(), 3, "lo, the uplink and the bridge: {links:?}");
}
