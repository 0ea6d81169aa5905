//! Published ports: who reaches them, who has them, and what becomes of them.

use std::net::{Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use super::Stage;
use crate::harness::world::{HOST4, HOST6, get};

/// A run on a bridge with these ports; nobody asks it anything by itself.
fn publishing<'a>(ports: &[&'a str]) -> Vec<&'a str> {
    let pairs = ports.iter().flat_map(|port| ["-p", port]);
    ["--network", "bridge"].into_iter().chain(pairs).collect()
}

#[test]
fn a_port_answers_on_the_loopback_of_the_host_in_both_families_and_over_both_protocols() {
    let Some(stage) = Stage::new() else { return };
    let run = stage.start(&publishing(&["8080:80", "5353:53/udp"]), "");
    let container = run.place(&stage);
    let (_web, _echo) = (container.web(80), container.echo(53));
    for address in ["127.0.0.1", "127.0.0.77", "::1", HOST4, HOST6] {
        stage.host().get(address, 8080).unwrap();
        let said = stage.host().ask(address, 5353, "hello").unwrap();
        assert!(said.ends_with(" hello"), "{address}: {said}");
    }
    // More than one packet takes, both ways.
    let text = "x".repeat(1400);
    let said = stage.host().ask("::1", 5353, &text).unwrap();
    assert!(said.ends_with(&text), "{}", said.len());
}

#[test]
fn the_loopback_is_not_open_to_whom_a_port_of_it_leads() {
    let Some(stage) = Stage::new() else { return };
    let run = stage.start(&publishing(&["8080:80", "5353:53/udp"]), "");
    let container = run.place(&stage);
    let secret = stage.host().enter(|| UdpSocket::bind("[::1]:6379").unwrap());
    secret.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    // From the very port whose answers go to ::1, to the address that stands for it: twice, because for the second the
    // kernel knows of a connection.
    container.enter(|| {
        let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 53)).unwrap();
        for _ in 0..2 {
            socket.send_to(b"theirs", "[100::6d6b:14e9]:6379").unwrap();
        }
    });
    secret.recv_from(&mut [0; 100]).unwrap_err();
    // It is somebody there who would hear it.
    stage.host().enter(|| {
        let socket = UdpSocket::bind("[::1]:0").unwrap();
        socket.send_to(b"mine", "[::1]:6379").unwrap();
    });
    assert_eq!(secret.recv_from(&mut [0; 100]).unwrap().0, 4);
}

#[test]
fn a_free_port_is_said_and_shown_and_leads_inside() {
    let Some(stage) = Stage::new() else { return };
    let options = [
        &["-d", "--name", "web"][..],
        &publishing(&["80", "127.0.0.1::53/udp"]),
    ]
    .concat();
    let output = stage
        .run(
            &options,
            "mkdir /www; echo me >/www/index.html; exec httpd -f -h /www",
        )
        .ok();
    let mut ports = output.stderr.lines().map(|line| {
        let (_, rest) = line.split_once("note: port ").unwrap();
        rest.split_once(" of the host leads to port ").unwrap()
    });
    let (tcp, inside) = ports.next().unwrap();
    assert_eq!(inside, "80/tcp of the container");
    let (udp, inside) = ports.next().unwrap();
    assert_eq!(inside, "53/udp of the container");
    assert_eq!(ports.next(), None);
    let port: u16 = tcp.parse().unwrap();
    crate::run::eventually("an answer", || stage.host().get("127.0.0.1", port).is_ok());
    let shown = stage.mk(["ps"]).ok();
    let ports = format!("{tcp}->80/tcp, 127.0.0.1:{udp}->53/udp");
    assert!(
        shown.text().contains("PORTS") && shown.text().contains(&ports),
        "{shown}"
    );
    let json: serde_json::Value = serde_json::from_str(&stage.mk(["ps", "--json"]).ok().stdout).unwrap();
    assert_eq!(json[0]["ports"][0]["host"]["first"], port, "{json}");
    assert_eq!(json[0]["ports"][1]["address"], "127.0.0.1", "{json}");
}

#[test]
fn a_taken_port_is_an_error_that_names_who_has_it_and_nothing_is_made() {
    let Some(stage) = Stage::new() else { return };
    let _web = stage.host().web(8080);
    let before = stage
        .host()
        .sh("ip link; nft list ruleset; ip -6 route show table all");
    for port in ["8080:80", "127.0.0.1:8080:80", "8079-8081:80-82"] {
        let output = stage.run(&publishing(&[port]), "echo started");
        assert_eq!((output.code, output.stdout.as_str()), (Some(125), ""), "{output}");
        let who = format!("8080/tcp of the host is taken by `{}` (process ", own_name());
        assert!(output.stderr.contains(&who), "{output}");
        assert!(
            output
                .stderr
                .contains(&format!("(process {})", std::process::id())),
            "{output}"
        );
    }
    let after = stage
        .host()
        .sh("ip link; nft list ruleset; ip -6 route show table all");
    assert_eq!(after, before);
}

fn own_name() -> String {
    let name = fs_err::read_to_string("/proc/self/comm").unwrap();
    name.trim_end().to_owned()
}

#[test]
fn a_port_that_a_container_has_is_told_with_its_name() {
    let Some(stage) = Stage::new() else { return };
    let _first = stage.serve("first", &publishing(&["8080:80"]));
    let output = stage.run(&publishing(&["8080:80"]), "echo started");
    assert_eq!((output.code, output.stdout.as_str()), (Some(125), ""), "{output}");
    assert!(output.stderr.contains("the container `first` has it"), "{output}");
    // The other protocol is another port.
    stage.says(&publishing(&["8080:80/udp"]), "true");
}

#[test]
fn ports_of_a_range_lead_to_those_of_another_in_order() {
    let Some(stage) = Stage::new() else { return };
    let run = stage.start(&publishing(&["8000-8003:9000-9003", "7000-7001:7000-7001"]), "");
    let container = run.place(&stage);
    for (host, inside) in [
        (8000, 9000),
        (8002, 9002),
        (8003, 9003),
        (7000, 7000),
        (7001, 7001),
    ] {
        let web = container.web(inside);
        for address in ["127.0.0.1", "::1", HOST6] {
            stage.host().get(address, host).unwrap();
        }
        assert_eq!(web.seen().len(), 3);
    }
}

#[test]
fn whoever_went_on_sending_reaches_the_next_container() {
    let Some(stage) = Stage::new() else { return };
    let server: SocketAddr = format!("{HOST4}:5353").parse().unwrap();
    let socket = stage
        .world
        .outside
        .enter(|| UdpSocket::bind("0.0.0.0:0").unwrap());
    socket.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    let mut bytes = [0; 100];
    // It began when nobody was there; the kernel takes what comes after for more of the same.
    socket.send_to(b"early", server).unwrap();
    for round in 0..2 {
        let run = stage.start(&publishing(&["5353:53/udp"]), "");
        let echo = run.place(&stage).echo(53);
        socket.send_to(b"hello", server).unwrap();
        let (length, from) = socket
            .recv_from(&mut bytes)
            .unwrap_or_else(|error| panic!("round {round}: {error}"));
        assert!(bytes[..length].ends_with(b" hello"));
        assert_eq!(from, server);
        assert_eq!(echo.seen().len(), 1);
        run.kill();
    }
}

#[test]
fn a_container_reaches_its_own_port_by_the_host_also_where_bridges_ask_netfilter() {
    let Some(stage) = Stage::new() else { return };
    let run = stage.start(&publishing(&["8080:80", "8080:53/udp"]), "");
    let container = run.place(&stage);
    let (_web, _echo) = (container.web(80), container.echo(53));
    let switch = "/proc/sys/net/bridge/bridge-nf-call-ip";
    for ask in ["0", "1"] {
        let set = format!("for f in {switch}tables {switch}6tables; do echo {ask} >$f; done");
        // Where the module is not there, no bridge asks, and both rounds show the same.
        stage.host().try_sh(&set);
        for address in [HOST4, HOST6] {
            container.get(address, 8080).unwrap();
            container.ask(address, 8080, "hello").unwrap();
        }
        for address in ["127.0.0.1", "::1"] {
            stage.host().get(address, 8080).unwrap();
            stage.host().ask(address, 8080, "hello").unwrap();
        }
    }
}

#[test]
fn a_port_is_closed_when_its_container_has_ended() {
    let Some(stage) = Stage::new() else { return };
    let run = stage.start(&publishing(&["8080:80"]), "");
    let _web = run.place(&stage).web(80);
    stage.host().get("127.0.0.1", 8080).unwrap();
    run.finish();
    let server: SocketAddr = "127.0.0.1:8080".parse().unwrap();
    let refused = stage
        .host()
        .enter(|| get(server, Duration::from_secs(1)))
        .unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    let tables = stage.host().sh("nft list tables");
    assert!(!tables.contains("mk-p-"), "{tables}");
}
