//! What can go wrong with networks.

use std::net::IpAddr;
use std::path::PathBuf;

use super::{forwarding, publish};
use crate::spec::network::Mac;
use crate::sys::{SysError, netfilter};

/// A network that cannot be made, used or removed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder of networks cannot be used.
    #[error("cannot use the folder of networks `{path}`")]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        failed: SysError,
    },
    /// Others have had a hand in the folder.
    #[error("the folder of networks `{path}` belongs to another user, or others may write to it")]
    NotOurs {
        /// Which.
        path: PathBuf,
    },
    /// A file of mk's own that is not what mk writes.
    #[error("cannot read `{path}`: {why}")]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// There is no such network.
    #[error("there is no network `{name}`")]
    Unknown {
        /// As asked for.
        name: String,
    },
    /// There is such a network already.
    #[error("there is a network `{name}` already, {subnet}")]
    Exists {
        /// Its name.
        name: String,
        /// Its addresses.
        subnet: String,
    },
    /// A network of another kind has the name.
    #[error("the network `{name}` is of the kind `{kind}`, not `{wanted}`")]
    OtherKind {
        /// Its name.
        name: String,
        /// What it is.
        kind: &'static str,
        /// What it was to be.
        wanted: &'static str,
    },
    /// Somebody else's interface has the name of the bridge.
    #[error("there is an interface `{name}` on the host that is not this network's bridge")]
    Foreign {
        /// Its name.
        name: String,
    },
    /// Somebody is on the network.
    #[error("the network `{name}` is in use by {by}")]
    InUse {
        /// Its name.
        name: String,
        /// Who.
        by: String,
    },
    /// Some addresses would belong to two.
    #[error("the subnet {subnet} overlaps with {what}")]
    Overlaps {
        /// As asked for.
        subnet: String,
        /// With what.
        what: String,
    },
    /// All private ranges are in use.
    #[error("no private range of addresses is free: routes of the host lead to all of them")]
    NoSubnet,
    /// All addresses are in use.
    #[error("no address of the network `{name}` is free: all {count} of {subnet} are taken")]
    Full {
        /// Its name.
        name: String,
        /// How many it has for containers.
        count: u32,
        /// Its addresses.
        subnet: String,
    },
    /// An address that no container on this network can have.
    #[error("{address} is no address for a container on the network `{name}`, {subnet}: {why}")]
    Outside {
        /// As asked for.
        address: IpAddr,
        /// The network.
        name: String,
        /// Its addresses.
        subnet: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// An IPv6 address on a network that has none.
    #[error("the network `{name}` has no IPv6 addresses: the host has IPv6 switched off")]
    NoIpv6 {
        /// The network.
        name: String,
    },
    /// Somebody has the address.
    #[error("the address {address} on the network `{name}` is taken by {by}")]
    AddressTaken {
        /// As asked for.
        address: IpAddr,
        /// The network.
        name: String,
        /// Who.
        by: String,
    },
    /// Somebody has the hardware address.
    #[error("the hardware address {mac} on the network `{name}` is taken by {by}")]
    MacTaken {
        /// As asked for.
        mac: Mac,
        /// The network.
        name: String,
        /// Who.
        by: String,
    },
    /// The kernel did not make the bridge, or something of it.
    #[error("cannot make the network `{name}`: `{command}` was refused")]
    Make {
        /// The network.
        name: String,
        /// What was being done, as one would type it.
        command: String,
        /// Why.
        #[source]
        failed: SysError,
    },
    /// The container could not be connected.
    #[error("cannot connect the container to the network `{name}`: `{command}` was refused")]
    Connect {
        /// The network.
        name: String,
        /// What was being done, as one would type it.
        command: String,
        /// Why.
        #[source]
        failed: SysError,
    },
    /// The rules of the network cannot be made, or taken back.
    #[error("cannot lead the network `{name}` out")]
    Rules {
        /// The network.
        name: String,
        /// Why.
        #[source]
        failed: netfilter::Error,
    },
    /// The host cannot be made to pass packets on.
    #[error(transparent)]
    Forwarding(#[from] forwarding::Error),
    /// Ports cannot be published.
    #[error(transparent)]
    Publish(#[from] publish::Error),
    /// Somebody is on a private network, and cannot be reached.
    #[error("the private network `{name}` is held by process {pid}, whose namespaces are out of reach")]
    OutOfReach {
        /// The network.
        name: String,
        /// The process, as it calls itself.
        pid: i32,
        /// The call that was refused, where one was.
        #[source]
        failed: Option<SysError>,
    },
    /// This process is in another user namespace than those that are on the network.
    #[error(
        "others are on the private network `{name}` in a user namespace of theirs, which this run came too late for"
    )]
    OtherUsers {
        /// The network.
        name: String,
    },
    /// A call failed.
    #[error(transparent)]
    Sys(#[from] SysError),
}

/// The result of work on networks.
pub type Result<T> = std::result::Result<T, Error>;
