//! [`Plan`]: the place that a run will have on a network, decided and not taken; [`Connection`]: the same, taken.

use std::fmt;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use super::bridge;
use super::lease::{self, Lease, Leased, Wish};
use super::network::{Config, Network, Networks, Options, Reach};
use super::order::{INSIDE, Interface, Order, Ready};
use super::{Error, Result};
use crate::recipe::NetName;
use crate::sys::file;
use crate::sys::netlink::Socket;

/// What a run will have on its network. Its `Display` is the commands that would do the same.
#[derive(Debug)]
pub struct Plan {
    state: PathBuf,
    name: NetName,
    reach: Reach,
    wish: Wish,
    /// The network.
    pub config: Config,
    /// Whether it is there already, on the host too.
    pub is_up: bool,
    /// What the container will have; another address where somebody is faster.
    pub leased: Leased,
    host_end: String,
}

impl Plan {
    /// Decides on a place on the network `name` of the folder `state`. Changes nothing.
    pub fn decide(state: &Path, name: &NetName, reach: Reach, wish: Wish) -> Result<Self> {
        let networks = Networks::open(state)?;
        let found = match &networks {
            Some(networks) => networks.find(name)?,
            None => None,
        };
        let (config, is_up, leased) = match found {
            Some(network) => {
                let network = network.reaching(reach)?;
                let is_up = bridge::is_up(&Socket::open()?, &network.config)?;
                let leased = network.propose_lease(&wish)?;
                (network.config, is_up, leased)
            }
            None => {
                let config = Networks::propose(networks.as_ref(), name, reach, &Options::default())?;
                let leased = lease::propose(None, &config, &wish)?;
                (config, false, leased)
            }
        };
        Ok(Self {
            state: state.to_owned(),
            name: name.clone(),
            reach,
            wish,
            config,
            is_up,
            leased,
            host_end: host_end()?,
        })
    }

    /// Makes the network where it is not there, and takes the place.
    pub fn take(self) -> Result<Connection> {
        let mut network: Network = Networks::open_or_make(&self.state)?.ensure(&self.name, self.reach)?;
        network.bring_up()?;
        let bridge = Socket::open()?;
        let index = bridge.link(&network.config.name)?.map(|link| link.index);
        let lease = network.lease(&self.wish)?;
        Ok(Connection {
            inside: Ready::new(inside(&network.config, &lease.leased)),
            bridge: index.ok_or_else(|| Error::Foreign {
                name: network.config.name.clone(),
            })?,
            socket: bridge,
            config: network.config,
            lease,
            host_end: self.host_end,
        })
    }
}

/// Returns a name for an interface that nothing else has: an old one may go only some time after its container.
fn host_end() -> Result<String> {
    let random = format!("{:016x}", file::random()?);
    Ok(format!("mk{}", &random[..11]))
}

/// Returns what is done inside the container.
fn inside(config: &Config, leased: &Leased) -> Vec<Order> {
    let to = Interface::Later(INSIDE);
    let mut orders = Vec::new();
    // Whoever remembers a former holder of the address hears of the new one (`arp_notify` in ip-sysctl).
    orders.extend(Order::set("ipv4", INSIDE, "arp_notify", 1));
    if leased.ip6.is_some() {
        // Neighbours are no routers, whatever they say of themselves.
        for (name, value) in [("accept_ra", 0), ("autoconf", 0), ("ndisc_notify", 1)] {
            orders.extend(Order::set("ipv6", INSIDE, name, value));
        }
    }
    orders.push(Order::up("lo"));
    orders.push(Order::add_address(leased.ip.into(), config.subnet.prefix(), to));
    orders.push(Order::up(INSIDE));
    let six = config.subnet6.zip(leased.ip6);
    orders.extend(six.map(|(subnet6, ip6)| Order::add_address(ip6.into(), subnet6.prefix(), to)));
    if config.reach == Reach::Out {
        let gateways = [
            Some(IpAddr::from(config.subnet.gateway())),
            six.map(|(subnet6, _)| subnet6.gateway().into()),
        ];
        orders.extend(gateways.into_iter().flatten().map(Order::add_default_route));
    }
    orders
}

/// The steps as one would type them, those inside the container behind those outside.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { config, leased, .. } = self;
        let range6 = config
            .subnet6
            .map(|six| format!(", {}", six.range()))
            .unwrap_or_default();
        let there = if self.is_up { ", is there" } else { "" };
        writeln!(
            f,
            "# network {}, {}{range6}{there}",
            config.name,
            config.subnet.range()
        )?;
        if !self.is_up {
            for order in bridge::orders(config)
                .into_iter()
                .chain(bridge::furnishing(config, 0))
                .chain([bridge::finish(config)])
            {
                writeln!(f, "{}", order.command)?;
            }
        }
        writeln!(f, "# the container's line to it; $PID is its first process")?;
        let veth = Order::add_veth(&self.host_end, (&config.name, 0), leased.mac, config.mtu, None);
        writeln!(f, "{}", veth.command)?;
        writeln!(f, "# inside: nsenter --target $PID --net")?;
        for order in inside(config, leased) {
            writeln!(f, "{}", order.command)?;
        }
        Ok(())
    }
}

/// A place on a network, which a run has.
#[derive(Debug)]
pub struct Connection {
    /// The network.
    pub config: Config,
    /// The address.
    pub lease: Lease,
    /// What is done inside the container.
    pub inside: Ready,
    socket: Socket,
    bridge: u32,
    host_end: String,
}

impl Connection {
    /// Makes the container's line to the bridge: one end on it, the other in the network namespace of the process `pid`.
    /// It goes with that namespace.
    pub fn connect(&self, pid: u32) -> Result<()> {
        let bridge = (self.config.name.as_str(), self.bridge);
        let order = Order::add_veth(
            &self.host_end,
            bridge,
            self.lease.leased.mac,
            self.config.mtu,
            Some(pid),
        );
        let command = order.command.clone();
        order.carry_out(&self.socket).map_err(|failed| Error::Connect {
            name: self.config.name.clone(),
            command,
            failed,
        })
    }

    /// Returns what must be open as long as the container lives.
    pub fn handles(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.lease.handles()
    }
}
