//! [`Plan`]: the place that a run will have on a network, decided and not taken; [`Connection`]: the same, taken.

use std::ffi::CString;
use std::fmt;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use super::forwarding::{self, Change};
use super::lease::{self, Lease, Leased, Wish};
use super::names::Member;
use super::network::{Config, Network, Networks, Options, Reach};
use super::order::{INSIDE, Interface, Order, Ready, sysctl};
use super::publish::{self, Open, Published, Reserved, Target};
use super::{Error, Result, bridge, nat};
use crate::recipe::NetName;
use crate::spec::network::Publish;
use crate::sys::file;
use crate::sys::netlink::Socket;

/// What leads into a container from its host, and out of it to what the host keeps to itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Doors {
    /// Ports of the host that lead inside.
    pub publish: Vec<Publish>,
    /// Whether what the host offers on its own loopback can be reached from inside.
    pub host_loopback: bool,
}

/// What a run will have on its network. Its `Display` is the commands that would do the same.
#[derive(Debug)]
pub struct Plan {
    state: PathBuf,
    name: NetName,
    reach: Reach,
    wish: Wish,
    doors: Doors,
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
    pub fn decide(state: &Path, name: &NetName, reach: Reach, wish: Wish, doors: Doors) -> Result<Self> {
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
                let folder = Networks::folder_in(state);
                let config = Networks::propose(&folder, networks.as_ref(), name, reach, &Options::default())?;
                let leased = lease::propose(None, &config, &wish)?;
                (config, false, leased)
            }
        };
        Ok(Self {
            state: state.to_owned(),
            name: name.clone(),
            reach,
            wish,
            doors,
            config,
            is_up,
            leased,
            host_end: host_end()?,
        })
    }

    /// Returns what will be set on the host, where the network is not there yet.
    pub fn settings(&self) -> Vec<Change> {
        match self.is_up || self.reach == Reach::Within {
            true => Vec::new(),
            false => forwarding::missing(),
        }
    }

    /// Makes the network where it is not there, and takes the place.
    pub fn take(self) -> Result<Connection> {
        // Before anything is made: somebody may have one of them.
        let reserved = match &self.doors.publish[..] {
            [] => None,
            asked => Some(Reserved::take(asked, self.config.subnet6.is_some())?),
        };
        let network: Network = Networks::open_or_make(&self.state)?.ensure(&self.name, self.reach)?;
        network.bring_up()?;
        let socket = Socket::open()?;
        let bridge = socket.link(&network.config.name)?.ok_or_else(|| Error::Foreign {
            name: network.config.name.clone(),
        })?;
        let lease = network.lease(&self.wish)?;
        let mut connection = Connection {
            inside: Ready::new(inside(&network.config, &lease.leased)),
            bridge: bridge.index,
            socket,
            config: network.config,
            lease,
            ports: None,
            loopback: None,
            host_end: self.host_end,
        };
        if let Err(error) = connection.open(reserved, self.doors.host_loopback) {
            connection.lease.release();
            return Err(error);
        }
        Ok(connection)
    }
}

/// Returns a name for an interface that nothing else has: an old one may go only some time after its container.
fn host_end() -> Result<String> {
    let random = format!("{:016x}", file::random()?);
    Ok(format!("mk{}", &random[..11]))
}

/// Returns where published ports lead.
fn target(config: &Config, leased: &Leased) -> Target {
    Target {
        bridge: config.name.clone(),
        v4: leased.ip,
        v6: leased.ip6,
    }
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
            self.fmt_network(f)?;
        }
        writeln!(f, "# the container's line to it; $PID is its first process")?;
        let veth = Order::add_veth(&self.host_end, (&config.name, 0), leased.mac, config.mtu, None);
        writeln!(f, "{}", veth.command)?;
        if !self.doors.publish.is_empty() {
            writeln!(f, "{}", Order::send_back(&self.host_end, 0).command)?;
        }
        writeln!(f, "# inside: nsenter --target $PID --net")?;
        for order in inside(config, leased) {
            writeln!(f, "{}", order.command)?;
        }
        publish::show(f, &self.doors.publish, &target(config, leased))
    }
}

impl Plan {
    /// Shows what makes the network.
    fn fmt_network(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let config = &self.config;
        let command = |f: &mut fmt::Formatter<'_>, order: Order| writeln!(f, "{}", order.command);
        for order in bridge::orders(config) {
            command(f, order)?;
        }
        if config.reach == Reach::Out {
            writeln!(f, "nft -f - <<'END'\n{}END", nat::table(&bridge::area(config)))?;
            for (setting, value) in forwarding::of_new_bridge(&config.name) {
                writeln!(f, "{}", sysctl(&setting, value))?;
            }
        }
        for order in bridge::addresses(config, 0) {
            command(f, order)?;
        }
        for change in self.settings() {
            if change.was != change.is {
                writeln!(f, "{}", sysctl(&change.setting, &change.is))?;
            }
        }
        command(f, bridge::finish(config))
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
    ports: Option<Open>,
    /// The way to the host's loopback.
    loopback: Option<OwnedFd>,
    socket: Socket,
    bridge: u32,
    host_end: String,
}

impl Connection {
    /// Opens the ways to the container that `reserved` is for, and the one to the host's loopback.
    fn open(&mut self, reserved: Option<Reserved>, host_loopback: bool) -> Result<()> {
        let leased = &self.lease.leased;
        if let Some(reserved) = reserved {
            self.ports = Some(reserved.open(&target(&self.config, leased))?);
        }
        if host_loopback {
            let table = format!("mk-l-{:016x}", file::random()?);
            let gateway = self.config.subnet.gateway();
            let table = nat::host_loopback(table, &self.config.name, gateway, leased.ip);
            self.loopback = Some(table.make().map_err(|failed| Error::Rules {
                name: self.config.name.clone(),
                failed,
            })?);
        }
        Ok(())
    }

    /// Returns the ports of the host that lead to the container.
    pub fn published(&self) -> &[Published] {
        self.ports.as_ref().map_or(&[], Open::published)
    }

    /// Makes the container's line to the bridge: one end on it, the other in the network namespace of the process `pid`.
    /// It goes with that namespace.
    pub fn connect(&self, pid: u32) -> Result<()> {
        // Where a monitor took over, the mk that took the place has ended.
        self.lease.stay_with(std::process::id())?;
        let bridge = (self.config.name.as_str(), self.bridge);
        let order = Order::add_veth(
            &self.host_end,
            bridge,
            self.lease.leased.mac,
            self.config.mtu,
            Some(pid),
        );
        self.carry_out(order)?;
        if self.ports.is_some() {
            let name = CString::new(self.host_end.as_str()).unwrap_or_default();
            let index = self.socket.index_of(&name)?;
            self.carry_out(Order::send_back(&self.host_end, index))?;
        }
        Ok(())
    }

    fn carry_out(&self, order: Order) -> Result<()> {
        let command = order.command.clone();
        order.carry_out(&self.socket).map_err(|failed| Error::Connect {
            name: self.config.name.clone(),
            command,
            failed,
        })
    }

    /// Returns where the container is, and who it is there.
    pub fn member(&self) -> Member {
        let leased = &self.lease.leased;
        let six = leased.ip6.map(IpAddr::V6);
        Member {
            network: Some(self.config.name.clone()),
            addresses: std::iter::once(IpAddr::V4(leased.ip)).chain(six).collect(),
            mac: Some(leased.mac),
            names: leased.called(),
            leases: Some(self.lease.folder()),
        }
    }

    /// Returns what must be open as long as the container lives.
    pub fn handles(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let ports = self.ports.iter().flat_map(Open::files);
        let loopback = self.loopback.iter().map(AsFd::as_fd);
        self.lease.handles().chain(ports).chain(loopback)
    }
}
