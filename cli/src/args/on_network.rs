//! Which network a container is on, and what it is there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use clap::Args;
use mk_core::recipe::Network;
use mk_core::spec::network::{AddHost, Asked, Mac, Publish, host_name};

use crate::value::network;

/// Which network the container is on, and what it is there.
#[derive(Debug, Args)]
#[command(next_help_heading = "Network")]
pub(crate) struct OnNetworkArgs {
    /// none: loopback only; host: the host's; bridge[:NAME]: a bridge that leads out; private[:NAME]: one that leads
    /// nowhere else; user: by a helper, without root; ns:NAME, container:NAME: that of another [default: none]
    #[arg(long, value_name = "KIND", value_parser = network)]
    pub(crate) network: Option<Network>,
    /// Let a port of the host lead to one of the container's; CONTAINER alone takes a free one; may be repeated
    #[arg(short, long, value_name = "[[ADDR:]HOST:]CONTAINER[/udp]")]
    publish: Vec<Publish>,
    /// Have this address inside
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<Ipv4Addr>,
    /// Have this IPv6 address inside
    #[arg(long, value_name = "ADDRESS")]
    ip6: Option<Ipv6Addr>,
    /// Have this hardware address inside
    #[arg(long, value_name = "ADDRESS")]
    mac: Option<Mac>,
    /// Be known to others on the network by this name too; may be repeated
    #[arg(long = "network-alias", value_name = "NAME", value_parser = host_name)]
    aliases: Vec<String>,
    /// Ask this name server; may be repeated [default: the image's, else the host's]
    #[arg(long, value_name = "ADDRESS")]
    dns: Vec<IpAddr>,
    /// Look for short names in this domain; may be repeated [default: the host's]
    #[arg(long = "dns-search", value_name = "DOMAIN", value_parser = host_name)]
    dns_search: Vec<String>,
    /// Add a line to /etc/hosts; may be repeated
    #[arg(long = "add-host", value_name = "NAME:ADDRESS")]
    add_hosts: Vec<AddHost>,
    /// Let what the host offers on its own loopback be reached from inside
    #[arg(long)]
    host_loopback: bool,
}

impl From<OnNetworkArgs> for Asked {
    fn from(args: OnNetworkArgs) -> Self {
        let OnNetworkArgs {
            network: _,
            publish,
            ip,
            ip6,
            mac,
            aliases,
            dns,
            dns_search,
            add_hosts,
            host_loopback,
        } = args;
        Self {
            ip,
            ip6,
            mac,
            aliases,
            publish,
            dns,
            dns_search,
            add_hosts,
            host_loopback,
            ..Self::default()
        }
    }
}
