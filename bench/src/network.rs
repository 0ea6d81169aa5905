//! From the call to the end of a program that does nothing, with a network of its own: what that costs over none, and
//! beside podman with its bridge. All of it in a network namespace that is gone afterwards.

use std::path::Path;
use std::time::Duration;

use crate::contest::{Contest, Contestant, Table};
use crate::machine::{self, IP, PODMAN};
use crate::run::{Image, contestant, text, words};
use crate::{Bench, Error};

/// Measures, with the calls back to back and 50 ms apart.
pub(crate) fn measure(bench: &Bench, tell: &mut dyn FnMut(Table)) -> Result<(), Error> {
    machine::own_network()?;
    make_uplink()?;
    let image = Image::make(bench)?;
    for gap in [Duration::ZERO, Duration::from_millis(50)] {
        let contest = |title: &str, contestants, rounds| Contest {
            title: format!("network: {title}, {} ms between calls", gap.as_millis()),
            contestants,
            rounds: bench.rounds.unwrap_or(rounds),
            warm_ups: 5,
            gap,
            settle: false,
        };
        let rounds = if gap.is_zero() { 300 } else { 60 };
        let own = vec![
            mk(bench, &image, "bridge", None),
            mk(bench, &image, "none", Some(2.0)),
        ];
        tell(contest("a bridge beside none", own, rounds).hold()?);
        let others = vec![
            mk(bench, &image, "bridge", None),
            podman(bench, &image, "bridge")?,
            podman(bench, &image, "none")?,
        ];
        tell(contest("beside podman", others, 30).hold()?);
    }
    Ok(())
}

/// Makes a link with a default route through it, as a host has one: mk and podman look where their traffic is to go.
fn make_uplink() -> Result<(), Error> {
    let ip = IP.find()?;
    for command in [
        "link set lo up",
        "link add uplink type veth peer name outside",
        "address add 192.0.2.1/24 dev uplink",
        "link set uplink up",
        "link set outside up",
        "route add default via 192.0.2.2",
    ] {
        machine::call(&ip, command.split(' '))?;
    }
    Ok(())
}

fn mk(bench: &Bench, image: &Image, network: &str, budget: Option<f64>) -> Contestant {
    let store = text(&image.store);
    let words = words(&["run", "--store", &store, "--network", network, "busybox", "true"]);
    let name = format!("mk run --network {network}");
    contestant(&name, budget, bench.mk.clone(), words)
}

/// From a folder, so without a layer of its own to make, without cgroups, and with the limits of who calls: what is left
/// is the least that podman does for a container.
fn podman(bench: &Bench, image: &Image, network: &str) -> Result<Contestant, Error> {
    let rootfs = bench.folder.join("podman-rootfs");
    if !rootfs.exists() {
        // It writes there, which the folders of a store are not for.
        machine::call(
            Path::new("cp"),
            ["-a".as_ref(), image.rootfs.as_os_str(), rootfs.as_os_str()],
        )?;
    }
    let (root, rootfs) = (text(&bench.folder.join("podman")), text(&rootfs));
    let words = words(&[
        "--root",
        &root,
        "--runroot",
        "/run/podman",
        "--storage-driver",
        "vfs",
        "--cgroup-manager",
        "cgroupfs",
        "--events-backend",
        "none",
        "run",
        "--rm",
        "--cgroups",
        "disabled",
        "--ulimit",
        "nofile=1024:1024",
        "--ulimit",
        "nproc=1024:1024",
        "--network",
        network,
        "--rootfs",
        &rootfs,
        "true",
    ]);
    let name = format!("podman run --network {network}");
    Ok(contestant(&name, None, PODMAN.find()?, words))
}
