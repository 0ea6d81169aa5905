//! Somebody on the bridge who claims to be a router: containers have their routes from mk, and take no others.

use std::net::{Ipv6Addr, SocketAddrV6};

use rustix::net::{AddressFamily, SendFlags, SocketType, ipproto, sendto, socket, sockopt};

use super::{Addresses, Stage, ip};
use crate::harness::world::Place;
use crate::run::eventually;

/// All nodes of a link (RFC 4291).
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// What the advertisement says that the network is.
const PREFIX: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xbad, 0, 0, 0, 0, 0);

#[test]
fn advertisements_of_routers_are_not_believed() {
    let Some(stage) = Stage::new() else { return };
    let run = stage.start(&["--network", "bridge"], "");
    let container = run.place(&stage);
    let bridge = ip(stage.host(), "link show dev mk0")[0]["ifindex"]
        .as_u64()
        .unwrap();
    let before = (Addresses::of(&container, "eth0"), container.sh("ip -6 route"));
    // The bridge's own link-local address may take a second; from then on the container hears it.
    eventually("advertisements to be sent", || {
        advertise(stage.host(), bridge as u32).is_ok()
    });
    for _ in 0..10 {
        advertise(stage.host(), bridge as u32).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert_eq!(
        (Addresses::of(&container, "eth0"), container.sh("ip -6 route")),
        before
    );

    // They do arrive: who wants to believe them, does.
    container.sh("cd /proc/sys/net/ipv6/conf/eth0; echo 2 >accept_ra; echo 1 >autoconf");
    eventually("an address of the advertised network", || {
        advertise(stage.host(), bridge as u32).unwrap();
        container
            .sh("ip -6 address show dev eth0")
            .contains("2001:db8:bad:")
    });
}

/// Sends one router advertisement (RFC 4861, 4.2) with one prefix (4.6.2) to all on the link number `link`.
fn advertise(from: &Place, link: u32) -> rustix::io::Result<()> {
    let mut message = vec![134, 0, 0, 0, 64, 0];
    message.extend(1800_u16.to_be_bytes());
    message.extend([0; 8]);
    // On the link, and to make addresses of, for an hour.
    message.extend([3, 4, 64, 0xc0]);
    message.extend(3600_u32.to_be_bytes());
    message.extend(3600_u32.to_be_bytes());
    message.extend([0; 4]);
    message.extend(PREFIX.octets());
    from.enter(|| {
        // The kernel computes the checksum (raw(7), RFC 3542, 3.1).
        let socket = socket(AddressFamily::INET6, SocketType::RAW, Some(ipproto::ICMPV6))?;
        sockopt::set_ipv6_multicast_hops(&socket, 255)?;
        let to = SocketAddrV6::new(ALL_NODES, 0, 0, link);
        sendto(&socket, &message, SendFlags::empty(), &to).map(drop)
    })
}
