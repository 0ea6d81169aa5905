//! The bridge of a network: what it is made with ([`orders`]), whether it is there, and how it goes.

use super::nat::{self, Area};
use super::network::{Config, Network, Reach};
use super::order::{Interface, Order};
use super::publish::{FACES, FACES_PREFIX};
use super::subnet::mac_of;
use super::{Error, Result, forwarding};
use crate::sys::netlink::{Link, Socket};
use crate::sys::{SysError, netfilter};

/// Returns what makes the bridge of `config`. It is not up yet, and has no mark: what has is whole.
pub fn orders(config: &Config) -> Vec<Order> {
    vec![Order::add_bridge(
        &config.name,
        mac_of(config.subnet.gateway()),
        config.mtu,
    )]
}

/// Returns what brings the bridge up, which has the interface index `index`, and gives it its addresses.
pub fn addresses(config: &Config, index: u32) -> Vec<Order> {
    let name = config.name.as_str();
    let to = Interface::Known(name, index);
    let Config { subnet, subnet6, .. } = config;
    // What leads to one that is down is refused.
    let mut orders = vec![
        Order::up(name),
        Order::add_address(subnet.gateway().into(), subnet.prefix(), to),
    ];
    if let Some(six) = subnet6 {
        orders.push(Order::add_address(six.gateway().into(), six.prefix(), to));
        if config.reach == Reach::Out {
            // What stands for `::1` where a published port is asked for on the host's loopback.
            orders.push(Order::add_local_route(FACES, FACES_PREFIX, name, index));
        }
    }
    orders
}

/// Returns what the network's table of rules is about.
pub fn area(config: &Config) -> Area {
    Area {
        name: config.name.clone(),
        four: netfilter::Subnet {
            address: config.subnet.network().into(),
            prefix: config.subnet.prefix(),
        },
        six: config.subnet6.map(|six| netfilter::Subnet {
            address: six.network().into(),
            prefix: six.prefix(),
        }),
    }
}

/// Returns what marks the bridge as whole.
pub fn finish(config: &Config) -> Order {
    Order::mark(&config.name, &config.mark())
}

/// Whether the bridge is up and whole, in the network namespace of `socket`.
pub fn is_up(socket: &Socket, config: &Config) -> Result<bool> {
    let link = socket.link(&config.name)?;
    Ok(link.is_some_and(|link| link.up && is_of(&link, config)))
}

/// Whether `link` is the bridge of `config`: one with its mark may be of a network with other addresses, whose folder was
/// lost.
fn is_of(link: &Link, config: &Config) -> bool {
    link.alias.as_deref() == Some(&config.mark()) && link.address == mac_of(config.subnet.gateway()).0
}

/// Whether the bridge is up, the rules are there that keep others out, and packets are passed on to where the host has
/// routes now.
pub(super) fn is_whole(socket: &Socket, config: &Config) -> Result<bool> {
    let up = is_up(socket, config)?;
    if !up || config.reach == Reach::Within {
        return Ok(up);
    }
    let ruled = nat::is_there(&config.name).map_err(|failed| Error::Rules {
        name: config.name.clone(),
        failed,
    })?;
    Ok(ruled && forwarding::missing().is_empty())
}

/// Makes what is not there of the bridge, and of what leads out of it.
pub(super) fn make(socket: &Socket, network: &Network) -> Result<()> {
    let name = network.config.name.clone();
    if let Some(found) = socket.link(&name)? {
        let half_made = found.alias.is_none() && found.address == mac_of(network.config.subnet.gateway()).0;
        let marked = found.alias.as_deref() == Some(&network.config.mark());
        if is_of(&found, &network.config) {
            // Somebody has taken it down.
            return carry_out(socket, &name, Order::up(&name));
        }
        if !half_made && !marked {
            return Err(Error::Foreign { name });
        }
        carry_out(socket, &name, Order::remove(&name))?;
    }
    for order in orders(&network.config) {
        carry_out(socket, &name, order)?;
    }
    let made = fill(socket, network);
    if made.is_err() {
        // Why it failed is worth more.
        let _ = carry_out(socket, &name, Order::remove(&name));
        let _ = close(network);
    }
    made
}

fn fill(socket: &Socket, network: &Network) -> Result<()> {
    let config = &network.config;
    let index = socket
        .link(&config.name)?
        .ok_or_else(|| Error::Unknown {
            name: config.name.clone(),
        })?
        .index;
    if config.reach == Reach::Out {
        open(network)?;
    }
    for order in addresses(config, index) {
        carry_out(socket, &config.name, order)?;
    }
    carry_out(socket, &config.name, finish(config))
}

/// Makes what leads out of a network. The rules that keep others out come first.
pub(super) fn open(network: &Network) -> Result<()> {
    nat::set_up(&area(&network.config)).map_err(|failed| Error::Rules {
        name: network.config.name.clone(),
        failed,
    })?;
    forwarding::set_bridge(&network.config.name)?;
    Ok(forwarding::switch_on(network.folder(), &network.config.name)?)
}

/// Puts back what [`open`] has changed.
fn close(network: &Network) -> Result<()> {
    let name = &network.config.name;
    nat::take_back(name).map_err(|failed| Error::Rules {
        name: name.clone(),
        failed,
    })?;
    Ok(forwarding::put_back(network.folder(), name)?)
}

/// Takes the bridge away, if it is there and this network's, and what led out of it.
pub(super) fn take_back(socket: &Socket, network: &Network) -> Result<()> {
    let config = &network.config;
    match socket.link(&config.name)? {
        Some(link) if link.alias.as_deref() == Some(&config.mark()) => {
            carry_out(socket, &config.name, Order::remove(&config.name))?;
        }
        _ => {}
    }
    close(network)
}

fn carry_out(socket: &Socket, network: &str, order: Order) -> Result<()> {
    let command = order.command.clone();
    order.carry_out(socket).map_err(|failed: SysError| Error::Make {
        name: network.to_owned(),
        command,
        failed,
    })
}
