//! What the other tests rely on: that a host of a test's own is one, that its outside is where it leads to, and that
//! neither is this machine.

use std::net::IpAddr;

use super::Stage;
use crate::harness::world::{HOST4, HOST6, OUTSIDE4, OUTSIDE6, UPLINK, World};

#[test]
fn a_host_and_its_outside_reach_each_other() {
    let Some(world) = World::new() else { return };
    let pairs = [(HOST4, OUTSIDE4), (HOST6, OUTSIDE6)];
    for (inner, outer) in pairs {
        for (server, client, to, from) in [
            (&world.outside, &world.host, outer, inner),
            (&world.host, &world.outside, inner, outer),
        ] {
            let address: IpAddr = from.parse().unwrap();
            let web = server.web(80);
            assert_eq!(client.get(to, 80).unwrap(), from);
            assert_eq!(web.seen(), [address]);
            let echo = server.echo(53);
            assert_eq!(client.ask(to, 53, "hello").unwrap(), format!("{from} hello"));
            assert_eq!(echo.seen(), [address]);
        }
    }
    // Nobody serves any more.
    world.host.get(OUTSIDE4, 80).unwrap_err();
    world.host.ask(OUTSIDE4, 53, "hello").unwrap_err();
}

#[test]
fn a_ping_of_the_fixture_tells_who_is_there() {
    let Some(stage) = Stage::new() else { return };
    for address in [OUTSIDE4, OUTSIDE6] {
        assert!(stage.answers(stage.host(), address), "{address}");
    }
    for nobody in ["192.0.2.77", "2001:db8::77"] {
        assert!(!stage.answers(stage.host(), nobody), "{nobody}");
    }
}

#[test]
fn all_that_tells_of_the_network_tells_of_the_host_of_the_test() {
    let Some(world) = World::new() else { return };
    assert_eq!(world.host.sh("ls /sys/class/net"), format!("lo\n{UPLINK}"));
    assert_eq!(world.outside.sh("ls /sys/class/net"), "lo\noutside");
    assert_eq!(
        world.host.sh("ls /proc/sys/net/ipv4/conf"),
        format!("all\ndefault\nlo\n{UPLINK}")
    );
    assert!(world.host.sh("cat /proc/net/dev").contains(UPLINK));
    assert!(
        world
            .host
            .sh("ip route")
            .starts_with(&format!("default via {OUTSIDE4} dev {UPLINK}"))
    );
    assert_eq!(world.host.sh("ls -A /run/netns 2>/dev/null | wc -l"), "0");
}

#[test]
fn what_is_set_in_a_host_of_a_test_is_set_nowhere_else() {
    let Some(world) = World::new() else { return };
    let settings = [
        "/proc/sys/net/ipv4/ip_forward",
        "/proc/sys/net/ipv6/conf/all/forwarding",
    ];
    let here = || settings.map(|path| fs_err::read_to_string(path).unwrap());
    let (before, names) = (here(), fs_err::read("/etc/resolv.conf").ok());
    for setting in settings {
        world.host.sh(&format!("echo 1 >{setting}"));
        assert_eq!(world.host.sh(&format!("cat {setting}")), "1");
        assert_eq!(world.outside.sh(&format!("cat {setting}")), "0");
    }
    world
        .host
        .sh("echo nameserver 192.0.2.2 >/etc/resolv.conf; ip link add mk0 type bridge; ip netns add web");
    assert_eq!(here(), before);
    assert_eq!(fs_err::read("/etc/resolv.conf").ok(), names);
    assert!(!std::path::Path::new("/sys/class/net/mk0").exists());
    assert!(!std::path::Path::new("/run/netns/web").exists());
}
