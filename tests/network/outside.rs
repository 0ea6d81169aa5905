//! The outside, which knows nothing of containers: they reach it as their host, and it reaches them only where they are
//! published.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::{Addresses, Stage};
use crate::harness::world::{HOST4, HOST6, OUTSIDE4, OUTSIDE6, Place, get};

const BRIDGE: [&str; 2] = ["--network", "bridge"];

/// Longer than an answer takes here.
const A_MOMENT: Duration = Duration::from_millis(500);

#[test]
fn a_container_reaches_the_outside_as_its_host() {
    let Some(stage) = Stage::new() else { return };
    let web = stage.world.outside.web(80);
    let echo = stage.world.outside.echo(53);
    for (outside, host, url) in [
        (OUTSIDE4, HOST4, format!("http://{OUTSIDE4}/")),
        (OUTSIDE6, HOST6, format!("http://[{OUTSIDE6}]/")),
    ] {
        let said = stage.says(&BRIDGE, &format!("wget -q -T 5 -O - {url}"));
        assert_eq!(said, host);
        let run = stage.start(&BRIDGE, "");
        let container = run.place(&stage);
        assert_eq!(
            container.ask(outside, 53, "hello").unwrap(),
            format!("{host} hello")
        );
        assert!(stage.answers(&container, outside), "ping {outside}");
    }
    let hosts: [IpAddr; 2] = [HOST4, HOST6].map(|text| text.parse().unwrap());
    assert_eq!(web.seen(), hosts, "and nobody else asked");
    assert_eq!(echo.seen(), hosts);
}

#[test]
fn a_container_that_is_not_published_cannot_be_reached_from_outside() {
    let Some(stage) = Stage::new() else { return };
    let run = stage.start(&BRIDGE, "");
    let container = run.place(&stage);
    let web = container.web(80);
    let eth0 = Addresses::of(&container, "eth0").texts();
    // Somebody outside who knows, or guesses, where the containers are.
    route_to_containers(&stage);
    for address in &eth0 {
        assert!(!reaches(&stage.world.outside, address), "{address}");
        assert!(!stage.answers(&stage.world.outside, address), "ping {address}");
        assert!(reaches(stage.host(), address), "the host may, at {address}");
    }
    let from_outside: [IpAddr; 2] = [OUTSIDE4, OUTSIDE6].map(|text| text.parse().unwrap());
    assert!(
        !web.seen().iter().any(|who| from_outside.contains(who)),
        "{:?}",
        web.seen()
    );
    // It was mk's rules that kept them out, and nothing else.
    stage.host().sh("nft flush ruleset");
    for address in &eth0 {
        assert!(reaches(&stage.world.outside, address), "{address} without rules");
    }
}

#[test]
fn who_is_published_is_reached_from_everywhere_and_sees_who_asks() {
    let Some(stage) = Stage::new() else { return };
    let options = [&BRIDGE[..], &["-p", "8080:80", "-p", "8053:53/udp"]].concat();
    let run = stage.start(&options, "");
    let container = run.place(&stage);
    let (_web, _echo) = (container.web(80), container.echo(53));
    for (host, outside) in [(HOST4, OUTSIDE4), (HOST6, OUTSIDE6)] {
        assert_eq!(
            stage.world.outside.get(host, 8080).unwrap(),
            outside,
            "the true address"
        );
        let said = stage.world.outside.ask(host, 8053, "hello").unwrap();
        assert_eq!(said, format!("{outside} hello"));
        // Only these ports, and only with their protocols.
        stage.world.outside.get(host, 80).unwrap_err();
        stage.world.outside.get(host, 8053).unwrap_err();
    }
    for address in ["127.0.0.1", "::1", HOST4, HOST6] {
        stage
            .host()
            .get(address, 8080)
            .unwrap_or_else(|error| panic!("{address}: {error}"));
        let said = stage.host().ask(address, 8053, "hello");
        assert!(
            said.as_ref().is_ok_and(|said| said.ends_with(" hello")),
            "{address}: {said:?}"
        );
    }
    // Other containers, and the container itself, by the host's address.
    let other = stage.start(&BRIDGE, "");
    for client in [&other.place(&stage), &container] {
        for address in [HOST4, HOST6] {
            client
                .get(address, 8080)
                .unwrap_or_else(|error| panic!("{address}: {error}"));
            client
                .ask(address, 8053, "hello")
                .unwrap_or_else(|error| panic!("{address}: {error}"));
        }
    }
    // The rest of it is as closed as before.
    route_to_containers(&stage);
    let eth0 = Addresses::of(&container, "eth0").texts();
    let _other_port = container.web(81);
    for address in eth0 {
        let server = SocketAddr::new(address.parse().unwrap(), 81);
        stage.world.outside.enter(|| get(server, A_MOMENT)).unwrap_err();
    }
}

#[test]
fn a_port_that_is_published_on_one_address_answers_there_only() {
    let Some(stage) = Stage::new() else { return };
    let options = [
        &BRIDGE[..],
        &["-p", "127.0.0.1:8080:80", "-p", "[2001:db8::1]:8081:80"],
    ]
    .concat();
    let run = stage.start(&options, "");
    let _web = run.place(&stage).web(80);
    let (host, outside) = (stage.host(), &stage.world.outside);
    host.get("127.0.0.1", 8080).unwrap();
    outside.get(HOST6, 8081).unwrap();
    for (place, address, port) in [
        (outside, HOST4, 8080),
        (outside, HOST6, 8080),
        (host, HOST4, 8080),
        (host, "::1", 8080),
        (outside, HOST4, 8081),
        (host, "::1", 8081),
    ] {
        let server = SocketAddr::new(address.parse().unwrap(), port);
        place.enter(|| get(server, A_MOMENT)).unwrap_err();
    }
}

#[test]
fn what_the_host_binds_to_loopback_is_not_for_containers() {
    let Some(stage) = Stage::new() else { return };
    // A published port, because it may take a switch that lets 127.0.0.1 be routed.
    let options = [&BRIDGE[..], &["-p", "127.0.0.1:8080:80"]].concat();
    let run = stage.start(&options, "");
    let container = run.place(&stage);
    let secret = stage.host().web_on("127.0.0.1", 6379);
    assert_eq!(stage.host().get("127.0.0.1", 6379).unwrap(), "127.0.0.1");
    let gateway = Addresses::of(stage.host(), "mk0").v4;
    let server = SocketAddr::new(gateway.into(), 6379);
    container.enter(|| get(server, A_MOMENT)).unwrap_err();
    // As somebody does who may do everything inside: 127.0.0.1 is out there.
    container.sh(&format!(
        "ip address flush dev lo
         echo 1 >/proc/sys/net/ipv4/conf/all/route_localnet
         ip route replace 127.0.0.0/8 via {gateway} dev eth0"
    ));
    let server: SocketAddr = "127.0.0.1:6379".parse().unwrap();
    container.enter(|| get(server, A_MOMENT)).unwrap_err();
    assert_eq!(secret.seen().len(), 1, "{:?}", secret.seen());
    // That way is one: with the switch, and without rules, it leads there.
    stage
        .host()
        .sh("nft flush ruleset; echo 1 >/proc/sys/net/ipv4/conf/mk0/route_localnet");
    container.enter(|| get(server, A_MOMENT)).unwrap();
}

/// Lets the outside know the way to the containers.
fn route_to_containers(stage: &Stage) {
    let v6 = Addresses::of(stage.host(), "mk0").v6;
    stage.world.outside.sh(&format!(
        "ip route add 192.168.10.0/24 via {HOST4}
         ip -6 route add {v6}/128 via {HOST6}
         ip -6 route add fc00::/7 via {HOST6}"
    ));
}

fn reaches(place: &Place, address: &str) -> bool {
    let server = SocketAddr::new(address.parse().unwrap(), 80);
    place.enter(|| get(server, A_MOMENT)).is_ok()
}
