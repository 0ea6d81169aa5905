//! From the call to the end of a program that does nothing, with a network of its own: what that costs over none, and
//! beside podman with its bridge. All of it in a network namespace that is gone afterwards.

use super::run::podman;
use super::{BOTH, Tell, starts, text, words};
use crate::contest::{Contestant, Metric};
use crate::image::Image;
use crate::machine::{self, IP};
use crate::table::Budget;
use crate::{Bench, Error};

/// Measures.
pub(super) fn measure(bench: &Bench, tell: Tell<'_>) -> Result<(), Error> {
    let image = Image::make(bench)?;
    machine::own_network()?;
    make_uplink()?;
    let own = || {
        Ok(vec![
            mk(bench, &image, "bridge"),
            mk(bench, &image, "none")
                .budget(Budget::Ratio(2.0))
                .differs("no network but loopback"),
        ])
    };
    starts(
        bench,
        "start of a run with a bridge, beside none",
        BOTH,
        300,
        own,
        &mut *tell,
    )?;
    // A table of its own, because the kernel goes on taking down what podman made while the next program starts.
    let others = || {
        Ok(vec![
            mk(bench, &image, "bridge"),
            podman(bench, &image, "bridge")?,
            podman(bench, &image, "none")?,
        ])
    };
    starts(
        bench,
        "start of a run with a bridge, beside podman",
        &[Metric::End],
        30,
        others,
        tell,
    )
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

fn mk(bench: &Bench, image: &Image, network: &str) -> Contestant {
    let store = text(&image.store);
    let words = words(&["run", "--store", &store, "--network", network, "busybox", "stamp"]);
    Contestant::of(&format!("mk run --network {network}"), bench.mk.clone(), words)
}
