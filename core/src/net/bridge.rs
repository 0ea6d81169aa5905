//! The bridge of a network: what it is made with ([`orders`]), whether it is there, and how it goes.

use super::network::{Config, Network};
use super::order::{Interface, Order};
use super::subnet::mac_of;
use super::{Error, Result};
use crate::sys::SysError;
use crate::sys::netlink::Socket;

/// Returns what makes the bridge of `config` and its addresses; `index` is its own, where it is there already. It is not
/// up yet: what is up is whole.
pub fn orders(config: &Config) -> Vec<Order> {
    vec![Order::add_bridge(
        &config.name,
        mac_of(config.subnet.gateway()),
        config.mtu,
    )]
}

/// Returns what gives the bridge, which has the interface index `index`, its addresses and settings.
pub fn furnishing(config: &Config, index: u32) -> Vec<Order> {
    let name = config.name.as_str();
    let to = Interface::Known(name, index);
    let mut orders = Vec::new();
    // Containers tell the host nothing about where its packets should go.
    orders.extend(Order::set("ipv4", name, "accept_redirects", 0));
    if config.subnet6.is_some() {
        orders.extend(Order::set("ipv6", name, "accept_ra", 0));
        orders.extend(Order::set("ipv6", name, "accept_redirects", 0));
    }
    orders.push(Order::add_address(
        config.subnet.gateway().into(),
        config.subnet.prefix(),
        to,
    ));
    orders.extend(
        config
            .subnet6
            .map(|six| Order::add_address(six.gateway().into(), six.prefix(), to)),
    );
    orders
}

/// Returns what brings the bridge up, and marks it as whole.
pub fn finish(config: &Config) -> Order {
    Order::mark_and_up(&config.name, &config.mark())
}

/// Whether the bridge is up and whole, in the network namespace of `socket`.
pub fn is_up(socket: &Socket, config: &Config) -> Result<bool> {
    let link = socket.link(&config.name)?;
    Ok(link.is_some_and(|link| link.up && link.alias.as_deref() == Some(&config.mark())))
}

/// Makes what is not there of the bridge, and of what leads out of it.
pub(super) fn make(socket: &Socket, network: &mut Network) -> Result<()> {
    let name = network.config.name.clone();
    if let Some(found) = socket.link(&name)? {
        let mark = network.config.mark();
        let half_made = found.alias.is_none() && found.address == mac_of(network.config.subnet.gateway()).0;
        match found.alias {
            // Somebody has taken it down.
            Some(alias) if alias == mark => return carry_out(socket, &name, Order::up(&name)),
            _ if half_made => carry_out(socket, &name, Order::remove(&name))?,
            _ => return Err(Error::Foreign { name }),
        }
    }
    for order in orders(&network.config) {
        carry_out(socket, &name, order)?;
    }
    let made = fill(socket, network);
    if made.is_err() {
        // Why it failed is worth more.
        let _ = carry_out(socket, &name, Order::remove(&name));
    }
    made
}

fn fill(socket: &Socket, network: &mut Network) -> Result<()> {
    let config = &network.config;
    let index = socket
        .link(&config.name)?
        .ok_or_else(|| Error::Unknown {
            name: config.name.clone(),
        })?
        .index;
    for order in furnishing(config, index) {
        carry_out(socket, &config.name, order)?;
    }
    carry_out(socket, &config.name, finish(config))
}

/// Takes the bridge away, if it is there and this network's.
pub(super) fn take_back(socket: &Socket, config: &Config) -> Result<()> {
    match socket.link(&config.name)? {
        Some(link) if link.alias.as_deref() == Some(&config.mark()) => {
            carry_out(socket, &config.name, Order::remove(&config.name))
        }
        _ => Ok(()),
    }
}

fn carry_out(socket: &Socket, network: &str, order: Order) -> Result<()> {
    let command = order.command.clone();
    order.carry_out(socket).map_err(|failed: SysError| Error::Make {
        name: network.to_owned(),
        command,
        failed,
    })
}
