//! [`Networks`]: the folder of a user's networks, and what each of them is ([`Config`]).
//!
//! `<state>/networks/<NAME>/` holds `network.json` and the folder `leases`. Whoever makes, changes or removes a network,
//! or takes an address, holds the lock of `networks` for that moment.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::forwarding::{self, Change};
use super::lease::{Lease, Leased, Wish};
use super::subnet::{self, Subnet, Subnet6};
use super::{Error, Result};
use crate::digest::Digest;
use crate::recipe::NetName;
use crate::sys::dir::Dir;
use crate::sys::file::{self, FileKind, LockKind};
use crate::sys::netlink::Socket;
use crate::sys::{Errno, SysError};

/// The folder below that of states.
const NETWORKS: &str = "networks";
const CONFIG: &str = "network.json";
const DRAFT: &str = "network.json.new";
/// The folder of leases below that of a network.
pub(super) const LEASES: &str = "leases";

/// The version of the file's format.
const VERSION: u32 = 1;
/// The most that the file holds, in bytes.
const MOST: u64 = 1 << 20;

/// Where a network leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reach {
    /// To the host, and through it to where the host can go.
    Out,
    /// To those who are on it, and nowhere else.
    Within,
}

impl Reach {
    /// Returns the kind of network, as the command line names it.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Out => "bridge",
            Self::Within => "private",
        }
    }
}

/// What a network is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    version: u32,
    /// Its name, which is that of its bridge.
    pub name: String,
    /// What tells it from others of the same name: 16 hexadecimal digits.
    pub id: String,
    /// Where it leads.
    pub reach: Reach,
    /// Its IPv4 addresses.
    pub subnet: Subnet,
    /// Its IPv6 addresses; `None` where the host has no IPv6.
    pub subnet6: Option<Subnet6>,
    /// The size of a packet, where it is another than the usual 1500 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
}

impl Config {
    /// Returns what the bridge's interface is marked with, so that it is known again.
    pub fn mark(&self) -> String {
        mark(&self.name, &self.id)
    }
}

fn mark(name: &str, id: &str) -> String {
    format!("mk network {name} {id}")
}

/// What a network is made with; what is left out is chosen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// Its IPv4 addresses.
    pub subnet: Option<Subnet>,
    /// Its IPv6 addresses.
    pub subnet6: Option<Subnet6>,
    /// The size of a packet.
    pub mtu: Option<u32>,
}

/// The folder of networks, which belongs to the caller alone.
#[derive(Debug)]
pub struct Networks {
    root: Dir,
    path: PathBuf,
}

/// A network that there is.
#[derive(Debug)]
pub struct Network {
    /// What it is.
    pub config: Config,
    networks: Networks,
    dir: Dir,
}

/// The networks without changes by others, for as long as this is held.
#[derive(Debug)]
pub(super) struct Alone(#[expect(dead_code, reason = "the lock is dropped with it")] Dir);

impl Networks {
    /// Returns where the networks of the folder `state` are.
    pub fn folder_in(state: &Path) -> PathBuf {
        state.join(NETWORKS)
    }

    /// Opens the networks of the folder `state`, if there are any.
    pub fn open(state: &Path) -> Result<Option<Self>> {
        let path = Self::folder_in(state);
        match Dir::open_itself(&path) {
            Ok(root) => Ok(Some(Self { root, path }.checked()?)),
            Err(failed) if failed.errno == Errno::NOENT => Ok(None),
            Err(failed) => Err(Error::Folder { path, failed }),
        }
    }

    /// Opens the networks of the folder `state`; makes the folders (0700) where there are none.
    pub fn open_or_make(state: &Path) -> Result<Self> {
        if let Some(found) = Self::open(state)? {
            return Ok(found);
        }
        let path = Self::folder_in(state);
        for folder in [state, path.as_path()] {
            match Dir::make(folder, 0o700) {
                Err(failed) if failed.errno != Errno::EXIST => {
                    let path = folder.to_owned();
                    return Err(Error::Folder { path, failed });
                }
                _ => {}
            }
        }
        let missing = SysError::new(Errno::NOENT, format_args!("open({path:?})"));
        Self::open(state)?.ok_or(Error::Folder {
            path,
            failed: missing,
        })
    }

    /// What is in there decides what is done to the machine: nobody else may have had a hand in it.
    fn checked(self) -> Result<Self> {
        let stat = file::stat(&self.root)?;
        match stat.uid == file::own_uid() && stat.mode & 0o022 == 0 {
            true => Ok(self),
            false => Err(Error::NotOurs { path: self.path }),
        }
    }

    /// Returns where they are.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns all networks, by name.
    pub fn list(&self) -> Result<Vec<Network>> {
        let mut found = Vec::new();
        for (name, kind) in self.root.list()? {
            if kind == FileKind::Folder
                && let Some(name) = name.to_str().and_then(|name| name.parse::<NetName>().ok())
            {
                found.extend(self.find(&name)?);
            }
        }
        found.sort_by(|a, b| a.config.name.cmp(&b.config.name));
        Ok(found)
    }

    /// Returns the network `name`, if there is one.
    pub fn find(&self, name: &NetName) -> Result<Option<Network>> {
        let read = || {
            let dir = self.root.open_dir(name.as_str())?;
            let text = file::read(&dir.open_file(CONFIG)?, MOST)?;
            Ok((dir, text))
        };
        let (dir, text) = match read() {
            // One that is being made, or taken away, is none.
            Err(SysError {
                errno: Errno::NOENT, ..
            }) => return Ok(None),
            read => read?,
        };
        let bad = |why: String| Error::Unreadable {
            path: self.path.join(name.as_str()).join(CONFIG),
            why,
        };
        let config: Config = serde_json::from_slice(&text).map_err(|error| bad(error.to_string()))?;
        if config.version != VERSION || config.name != name.as_str() {
            return Err(bad(format!(
                "expected version {VERSION} of `{name}`, found version {} of `{}`",
                config.version, config.name
            )));
        }
        Ok(Some(Network {
            config,
            networks: self.again()?,
            dir,
        }))
    }

    /// Returns what the network `name` would be, if it were made now beside those of `networks`, in `folder`.
    pub fn propose(
        folder: &Path,
        networks: Option<&Self>,
        name: &NetName,
        reach: Reach,
        options: &Options,
    ) -> Result<Config> {
        let others = match networks {
            Some(networks) => networks.list()?,
            None => Vec::new(),
        };
        let taken: Vec<Subnet> = others.iter().map(|other| other.config.subnet).collect();
        let (id, random) = own_numbers(folder, name)?;
        let id = format!("{id:016x}");
        let routes = match reach {
            Reach::Out => routes_of_others(name, &mark(name.as_str(), &id))?,
            // It is nowhere on the host.
            Reach::Within => Vec::new(),
        };
        let proposal = |subnet, subnet6| Config {
            version: VERSION,
            name: name.to_string(),
            id: id.clone(),
            reach,
            subnet,
            subnet6,
            mtu: options.mtu,
        };
        let subnet6 = match options.subnet6 {
            Some(subnet6) => Some(subnet6),
            None => super::has_ipv6().then(|| Subnet6::unique_local(random)),
        };
        if let Some(subnet) = options.subnet {
            if let Some(other) = others.iter().find(|other| {
                let theirs = other.config.subnet;
                subnet.overlaps(theirs.network(), theirs.prefix())
            }) {
                return Err(Error::Overlaps {
                    subnet: subnet.range(),
                    what: format!("network `{}`, {}", other.config.name, other.config.subnet.range()),
                });
            }
            if let Some((network, prefix)) = clash(subnet, &routes) {
                return Err(Error::Overlaps {
                    subnet: subnet.range(),
                    what: format!("a route of the host, {network}/{prefix}"),
                });
            }
            return Ok(proposal(subnet, subnet6));
        }
        let free = |subnet: &Subnet| {
            let known = |other: &Subnet| subnet.overlaps(other.network(), other.prefix());
            !taken.iter().any(known) && clash(*subnet, &routes).is_none()
        };
        let subnet = subnet::candidates().find(free).ok_or(Error::NoSubnet)?;
        Ok(proposal(subnet, subnet6))
    }

    /// Makes the network `name` in the folder; on the host it comes about with [`Network::bring_up`].
    pub fn create(&self, name: &NetName, reach: Reach, options: &Options) -> Result<Network> {
        let _alone = self.alone()?;
        match self.find(name)? {
            Some(found) => Err(Error::Exists {
                name: name.to_string(),
                subnet: found.config.subnet.range(),
            }),
            None => self.make(Self::propose(&self.path, Some(self), name, reach, options)?, name),
        }
    }

    /// Returns the network `name`, which is made in the folder where there is none.
    pub fn ensure(&self, name: &NetName, reach: Reach) -> Result<Network> {
        if let Some(found) = self.find(name)? {
            return found.reaching(reach);
        }
        let _alone = self.alone()?;
        match self.find(name)? {
            Some(found) => found.reaching(reach),
            None => self.make(
                Self::propose(&self.path, Some(self), name, reach, &Options::default())?,
                name,
            ),
        }
    }

    fn make(&self, config: Config, name: &NetName) -> Result<Network> {
        self.make_folder(name, LEASES)?;
        let network = Network {
            config,
            networks: self.again()?,
            dir: self.root.open_dir(name.as_str())?,
        };
        network.write()?;
        Ok(network)
    }

    /// Takes the network `name` away, with all that was made for it on the host. Nobody may be on it.
    pub fn remove(&self, name: &NetName) -> Result<()> {
        let alone = self.alone()?;
        let network = self.find(name)?.ok_or_else(|| Error::Unknown {
            name: name.to_string(),
        })?;
        let users = network.leases_alone(&alone)?;
        if !users.is_empty() {
            return Err(Error::InUse {
                name: name.to_string(),
                by: users.iter().map(Leased::who).collect::<Vec<_>>().join(", "),
            });
        }
        if network.config.reach == Reach::Out {
            network.take_down()?;
        }
        // First what says that it is a network: one that is only half gone is none.
        network.dir.unlink(CONFIG)?;
        Ok(self.root.remove_all(name.as_str())?)
    }

    /// Returns the settings of the kernel that were changed for all of them together.
    pub fn changes(&self) -> std::result::Result<Vec<Change>, forwarding::Error> {
        forwarding::changed(&self.root)
    }

    /// Opens the folder `folder` of the network `name`, which need not have been made otherwise.
    pub(super) fn folder(&self, name: &NetName, folder: &str) -> Result<Option<Dir>> {
        match self.root.open_dir(format!("{name}/{folder}")) {
            Err(failed) if failed.errno == Errno::NOENT => Ok(None),
            opened => Ok(Some(opened?)),
        }
    }

    /// Opens the folder `folder` of the network `name`; makes both (0700) where there are none.
    pub(super) fn make_folder(&self, name: &NetName, folder: &str) -> Result<Dir> {
        let path = format!("{name}/{folder}");
        for folder in [name.as_str(), &path] {
            match self.root.make_dir(folder, 0o700) {
                Err(failed) if failed.errno != Errno::EXIST => return Err(failed.into()),
                _ => {}
            }
        }
        Ok(self.root.open_dir(&path)?)
    }

    /// Waits until nobody else changes anything, which takes milliseconds at most.
    pub(super) fn alone(&self) -> Result<Alone> {
        // An opening of its own: the lock goes with it.
        let handle = self.root.open_dir(".")?;
        file::lock(&handle, LockKind::Exclusive)?;
        Ok(Alone(handle))
    }

    fn again(&self) -> Result<Self> {
        Ok(Self {
            root: self.root.open_dir(".")?,
            path: self.path.clone(),
        })
    }
}

/// Returns two numbers that no other network has. They are the same each time where the machine has an identity
/// (machine-id(5)), of which they tell nobody anything.
fn own_numbers(folder: &Path, name: &NetName) -> Result<(u64, u64)> {
    let machine = fs_err::read_to_string("/etc/machine-id").unwrap_or_default();
    if machine.trim().is_empty() {
        return Ok((file::random()?, file::random()?));
    }
    let text = format!("mk network\0{}\0{}\0{name}", machine.trim(), folder.display());
    let digest = Digest::of(text.as_bytes());
    let mut numbers = digest.as_bytes().chunks_exact(8).map(|eight| {
        eight
            .iter()
            .fold(0, |number, &byte| number << 8 | u64::from(byte))
    });
    let mut next = || numbers.next().unwrap_or_default();
    Ok((next(), next()))
}

/// Returns where the routes of the host lead, but for those of the bridge `name` with `mark`: it was here before the folder
/// of states was lost.
fn routes_of_others(name: &NetName, mark: &str) -> Result<Vec<(Ipv4Addr, u8, Option<u32>)>> {
    let socket = Socket::open()?;
    let own = socket
        .link(name.as_str())?
        .filter(|link| link.alias.as_deref() == Some(mark))
        .map(|link| link.index);
    let mut routes = socket.routes()?;
    routes.retain(|(_, _, interface)| own.is_none() || *interface != own);
    Ok(routes)
}

/// Returns the route that leads to some of `subnet`.
fn clash(subnet: Subnet, routes: &[(Ipv4Addr, u8, Option<u32>)]) -> Option<(Ipv4Addr, u8)> {
    let route = routes
        .iter()
        .find(|(network, prefix, _)| *prefix > 0 && subnet.overlaps(*network, *prefix))?;
    Some((route.0, route.1))
}

impl Network {
    pub(super) fn reaching(self, reach: Reach) -> Result<Self> {
        match self.config.reach == reach {
            true => Ok(self),
            false => Err(Error::OtherKind {
                name: self.config.name,
                kind: self.config.reach.kind(),
                wanted: reach.kind(),
            }),
        }
    }

    /// Writes down what it is.
    pub(super) fn write(&self) -> Result<()> {
        let text = serde_json::to_vec_pretty(&self.config).map_err(|error| Error::Unreadable {
            path: self.networks.path.join(&self.config.name).join(CONFIG),
            why: error.to_string(),
        })?;
        match self.dir.unlink(DRAFT) {
            Err(failed) if failed.errno != Errno::NOENT => return Err(failed.into()),
            _ => {}
        }
        let draft = self.dir.create_file(DRAFT, 0o600)?;
        file::write(&draft, &text)?;
        Ok(self.dir.replace(DRAFT, &self.dir, CONFIG)?)
    }

    /// Makes it on the host, unless it is there: its bridge with its addresses, and what leads out of it.
    pub fn bring_up(&self) -> Result<()> {
        let socket = Socket::open()?;
        if super::bridge::is_whole(&socket, &self.config)? {
            return Ok(());
        }
        let _alone = self.networks.alone()?;
        // Somebody else may have been faster.
        if !super::bridge::is_up(&socket, &self.config)? {
            return super::bridge::make(&socket, self);
        }
        match super::bridge::is_whole(&socket, &self.config)? {
            true => Ok(()),
            // Somebody has flushed all rules of the host, or it has another uplink now.
            false => super::bridge::open(self),
        }
    }

    /// Whether it is on the host as it should be, as far as its bridge tells.
    pub fn is_up(&self) -> Result<bool> {
        super::bridge::is_up(&Socket::open()?, &self.config)
    }

    fn take_down(&self) -> Result<()> {
        super::bridge::take_back(&Socket::open()?, self)
    }

    /// Returns the folder of all networks.
    pub(super) fn folder(&self) -> &Dir {
        &self.networks.root
    }

    /// Takes an address for a run, which has it until all handles on the lease are closed.
    pub fn lease(&self, wish: &Wish) -> Result<Lease> {
        let alone = self.networks.alone()?;
        Lease::take(&self.leases_dir()?, &self.config, wish, &alone)
    }

    /// Returns what [`Self::lease`] would take now.
    pub fn propose_lease(&self, wish: &Wish) -> Result<Leased> {
        super::lease::propose(Some(&self.leases_dir()?), &self.config, wish)
    }

    /// Returns who has which address, by address.
    pub fn leases(&self) -> Result<Vec<Leased>> {
        let alone = self.networks.alone()?;
        self.leases_alone(&alone)
    }

    fn leases_alone(&self, alone: &Alone) -> Result<Vec<Leased>> {
        super::lease::look(&self.leases_dir()?, alone)
    }

    /// Opens the folder of leases.
    pub fn leases_dir(&self) -> Result<Dir> {
        Ok(self.dir.open_dir(LEASES)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> NetName {
        text.parse().unwrap()
    }

    fn networks() -> (tempfile::TempDir, Networks) {
        let state = tempfile::tempdir().unwrap();
        let networks = Networks::open_or_make(&state.path().join("run")).unwrap();
        (state, networks)
    }

    #[test]
    fn a_network_is_made_once_and_read_back() {
        let (_state, networks) = networks();
        let made = networks.ensure(&name("a"), Reach::Within).unwrap();
        let again = networks.ensure(&name("a"), Reach::Within).unwrap();
        assert_eq!(made.config, again.config);
        assert_eq!(made.config.subnet.to_string(), "192.168.10.1/24");
        let other = networks.ensure(&name("b"), Reach::Within).unwrap();
        assert_eq!(other.config.subnet.to_string(), "192.168.11.1/24");
        let names: Vec<String> = networks
            .list()
            .unwrap()
            .into_iter()
            .map(|network| network.config.name)
            .collect();
        assert_eq!(names, ["a", "b"]);
        let refused = networks.ensure(&name("a"), Reach::Out).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "the network `a` is of the kind `private`, not `bridge`"
        );
    }

    #[test]
    fn what_was_asked_for_is_made_and_must_be_free() {
        let (_state, networks) = networks();
        let options = |subnet: &str| Options {
            subnet: Some(subnet.parse().unwrap()),
            ..Options::default()
        };
        let made = networks.create(&name("a"), Reach::Within, &options("10.77.0.0/24"));
        assert_eq!(made.unwrap().config.subnet.range(), "10.77.0.0/24");
        let twice = networks.create(&name("a"), Reach::Within, &Options::default());
        assert_eq!(
            twice.unwrap_err().to_string(),
            "there is a network `a` already, 10.77.0.0/24"
        );
        let over = networks.create(&name("b"), Reach::Within, &options("10.77.0.128/25"));
        assert_eq!(
            over.unwrap_err().to_string(),
            "the subnet 10.77.0.128/25 overlaps with network `a`, 10.77.0.0/24"
        );
    }

    #[test]
    fn a_route_to_some_of_a_subnet_is_in_its_way_but_not_one_to_everywhere() {
        let subnet: Subnet = "192.168.10.0/24".parse().unwrap();
        let everywhere = ([0, 0, 0, 0].into(), 0, None);
        let wide = ([192, 168, 0, 0].into(), 16, Some(3));
        assert_eq!(clash(subnet, &[everywhere]), None);
        assert_eq!(clash(subnet, &[everywhere, wide]), Some((wide.0, 16)));
    }

    #[test]
    fn a_network_goes_when_nobody_is_on_it() {
        let (_state, networks) = networks();
        let network = networks.ensure(&name("a"), Reach::Within).unwrap();
        let wish = Wish {
            names: vec!["web".into()],
            ..Wish::default()
        };
        let lease = network.lease(&wish).unwrap();
        let refused = networks.remove(&name("a")).unwrap_err().to_string();
        assert!(
            refused.starts_with("the network `a` is in use by container `web` (process "),
            "{refused}"
        );
        drop(lease);
        networks.remove(&name("a")).unwrap();
        assert!(networks.list().unwrap().is_empty());
        assert!(networks.find(&name("a")).unwrap().is_none());
        assert!(matches!(networks.remove(&name("a")), Err(Error::Unknown { .. })));
    }

    #[test]
    fn a_folder_that_others_may_write_to_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let (state, networks) = networks();
        fs_err::set_permissions(networks.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        let opened = Networks::open(&state.path().join("run"));
        assert!(matches!(opened, Err(Error::NotOurs { .. })), "{opened:?}");
    }
}
