//! A run's network: decided with the rest of its plan ([`Plan::decide_network`]), and taken before the clone
//! ([`Plan::take_network`]).

use std::path::Path;

use super::{Error, Plan};
use crate::net;
use crate::net::forwarding::Change;
use crate::net::lease::Wish;
use crate::net::network::Reach;
use crate::net::plan::{Connection, Doors};
use crate::net::private::Home;
use crate::net::publish::Published;
use crate::recipe::{NetName, Network};
use crate::spec::RunSpec;
use crate::spec::network::Asked;
use crate::sys::namespace;

/// How far a run has come to its place on a network.
#[derive(Debug, Default)]
pub(super) enum Place {
    /// It needs none.
    #[default]
    Nowhere,
    /// It needs one.
    Wanted,
    /// It will have this one.
    Decided(Box<net::plan::Plan>),
    /// It has this one.
    Taken(Box<Connection>),
}

impl Place {
    /// Returns what a run on `kind` needs.
    pub(super) fn of(kind: &Network) -> Self {
        match kind {
            Network::Bridge(_) | Network::Private(_) => Self::Wanted,
            _ => Self::Nowhere,
        }
    }

    /// Returns the place, if the run has one; refuses where it needs one and has none.
    pub(super) fn taken(self) -> Result<Option<Connection>, Error> {
        match self {
            Self::Nowhere => Ok(None),
            Self::Taken(connection) => Ok(Some(*connection)),
            Self::Wanted | Self::Decided(_) => Err(Error::Unattached {
                called: "an address on its network".into(),
            }),
        }
    }
}

impl Plan {
    /// Decides on the run's place on its network, where it is on one; `state` is the folder of networks, `names` are what
    /// others call the container.
    pub fn decide_network(&mut self, spec: &RunSpec, state: &Path, names: Vec<String>) -> Result<(), Error> {
        let (name, reach): (&NetName, Reach) = match &spec.network.kind {
            Network::Bridge(name) => (name, Reach::Out),
            Network::Private(name) => (name, Reach::Within),
            _ => return Ok(()),
        };
        if !net::is_ours().map_err(net::Error::from)? {
            return Err(Error::HostsNetwork {
                kind: spec.network.kind.clone(),
            });
        }
        let asked = &spec.network.asked;
        let doors = Doors {
            publish: asked.publish.clone(),
            host_loopback: asked.host_loopback,
        };
        let plan = net::plan::Plan::decide(state, name, reach, wish(asked, names), doors)?;
        self.place = Place::Decided(Box::new(plan));
        Ok(())
    }

    /// Whether taking the place makes all interfaces of the host pass IPv6 packets on, because the kernel cannot be told
    /// about one.
    pub fn forwards_all(&self) -> bool {
        match &self.place {
            Place::Decided(plan) => plan.settings().iter().any(Change::global),
            _ => false,
        }
    }

    /// Returns the ports of the host that lead to the container; the place is taken.
    pub fn published(&self) -> &[Published] {
        match &self.place {
            Place::Taken(connection) => connection.published(),
            _ => self.uplink.as_ref().map_or(&[], |uplink| &uplink.forwards),
        }
    }

    /// Goes into the network namespace of the run's private network, where it is on one: that of `home`, where its caller
    /// has gone there for the user namespace already. `state` is the folder of networks. Where this process does not
    /// `stay`, nobody hears of it.
    pub fn go_to_network(
        &mut self,
        spec: &RunSpec,
        state: &Path,
        home: Option<Home>,
        stay: bool,
    ) -> Result<(), Error> {
        let Network::Private(name) = &spec.network.kind else {
            return Ok(());
        };
        let home = match home.filter(|home| home.name() == name) {
            None => Home::open(state, name, stay)?,
            home => home,
        };
        self.seat = match home {
            Some(home) => home.enter()?,
            None => {
                namespace::own_network_namespace().map_err(net::Error::from)?;
                None
            }
        };
        Ok(())
    }

    /// Makes the network that was decided on where it is not there, and takes the place on it.
    pub fn take_network(&mut self) -> Result<(), Error> {
        self.place = match std::mem::take(&mut self.place) {
            Place::Decided(plan) => Place::Taken(Box::new(plan.take()?)),
            other => other,
        };
        Ok(())
    }
}

fn wish(asked: &Asked, names: Vec<String>) -> Wish {
    Wish {
        ip: asked.ip,
        ip6: asked.ip6,
        mac: asked.mac,
        names,
        aliases: asked.aliases.clone(),
    }
}
