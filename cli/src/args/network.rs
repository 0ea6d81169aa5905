//! The command line of `mk network`.

use clap::{Args, Subcommand};
use mk_core::net::subnet::{Subnet, Subnet6};
use mk_core::recipe::NetName;

use super::containers::StateArgs;
use crate::value::mtu;

#[derive(Debug, Args)]
#[command(
    subcommand_required = true,
    disable_help_subcommand = true,
    arg_required_else_help = true,
    after_help = "\
A network is a bridge, and comes about with the first run that names it, as in
`mk run --network bridge:NAME IMAGE`; `--network bridge` is the network `mk0`.
It is made here where its addresses are to be chosen. It stays until it is
removed, and leaves nothing behind then.

Examples:
  mk network create web                  one more, with addresses that are free
  mk network create mk0 --subnet 10.9.8.0/24
  mk network ls
  mk network inspect mk0                 who is on it, and what was added
  mk network rm web mk0"
)]
pub(crate) struct Network {
    #[command(subcommand)]
    pub(crate) action: NetworkAction,
}

/// What is done with networks.
#[derive(Debug, Subcommand)]
pub(crate) enum NetworkAction {
    Create(NetworkCreate),
    Ls(NetworkLs),
    Inspect(NetworkInspect),
    Rm(NetworkRm),
}

/// Make a network
#[derive(Debug, Args)]
#[command(after_help = "\
Prints the name and the addresses. The host has the first address of a subnet,
unless another is written, as in 10.9.8.254/24.

Examples:
  mk network create web
  mk network create web --subnet 10.9.8.0/24 --subnet6 fd12:3456:789a::/64
  mk network create lab --private        leads nowhere; `--network private:lab`
  mk run --network bridge:web busybox")]
pub(crate) struct NetworkCreate {
    /// What it is called: up to 15 lower-case letters, digits, `.`, `_` and `-`
    #[arg(value_name = "NAME")]
    pub(crate) name: NetName,
    /// Its IPv4 addresses [default: a private range that no route of the host leads to]
    #[arg(long, value_name = "CIDR")]
    pub(crate) subnet: Option<Subnet>,
    /// Its IPv6 addresses [default: a random unique local range]
    #[arg(long, value_name = "CIDR")]
    pub(crate) subnet6: Option<Subnet6>,
    /// The largest packet, in bytes [default: 1500]
    #[arg(long, value_name = "BYTES", value_parser = mtu)]
    pub(crate) mtu: Option<u32>,
    /// Lead nowhere: who is on it reaches the others on it, and nobody else
    #[arg(long)]
    pub(crate) private: bool,
    #[command(flatten)]
    pub(crate) state: StateArgs,
}

/// List the networks
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mk network ls
  mk network ls --json | jq -r '.[].subnet'")]
pub(crate) struct NetworkLs {
    /// Print a JSON list
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) state: StateArgs,
}

/// Show a network: its addresses, who is on it, what was added to the host
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mk network inspect mk0
  mk network inspect --json mk0 | jq -r '.runs[].address'")]
pub(crate) struct NetworkInspect {
    /// The network
    #[arg(value_name = "NAME")]
    pub(crate) name: NetName,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) state: StateArgs,
}

/// Remove networks, with all that was added to the host for them
#[derive(Debug, Args)]
#[command(after_help = "\
A network that a container is on stays, and is an error that names it. With the
last network go the settings of the kernel that networks need.

Examples:
  mk network rm web
  mk network rm web mk0")]
pub(crate) struct NetworkRm {
    /// The networks
    #[arg(value_name = "NAME", required = true)]
    pub(crate) names: Vec<NetName>,
    #[command(flatten)]
    pub(crate) state: StateArgs,
}
