//! [`Lease`]: an address on a network, which belongs to whoever holds a lock on a file.
//!
//! The file's name is the address, what it says is who has it ([`Leased`]). The lock lasts until the last handle on it is
//! closed: the container's first process holds one, so it ends when the container does, in whatever way.

use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::network::{Alone, Config};
use super::subnet::{Subnet, mac_of};
use super::{Error, Result};
use crate::spec::network::Mac;
use crate::sys::dir::Dir;
use crate::sys::file;
use crate::sys::{Errno, SysError};

/// The file that says which address was given last.
const LAST: &str = "last";
/// The most that a lease says, in bytes.
const MOST: u64 = 64 * 1024;

/// What a run asks of its place on a network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wish {
    /// The address.
    pub ip: Option<Ipv4Addr>,
    /// The IPv6 address.
    pub ip6: Option<Ipv6Addr>,
    /// The hardware address.
    pub mac: Option<Mac>,
    /// What it is called; the first name decides which address it is given, so that the same name gets the same one.
    pub names: Vec<String>,
    /// What it is called on this network besides.
    pub aliases: Vec<String>,
}

/// Who has an address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leased {
    /// The address.
    pub ip: Ipv4Addr,
    /// The IPv6 address.
    pub ip6: Option<Ipv6Addr>,
    /// The hardware address.
    pub mac: Mac,
    /// What it is called.
    pub names: Vec<String>,
    /// What it is called on this network besides.
    pub aliases: Vec<String>,
    /// The mk that takes care of it.
    pub pid: u32,
}

impl Leased {
    fn of(config: &Config, wish: &Wish, ip: Ipv4Addr) -> Self {
        Self {
            ip,
            ip6: wish.ip6.or_else(|| own6(config, ip)),
            mac: wish.mac.unwrap_or_else(|| mac_of(ip)),
            names: wish.names.clone(),
            aliases: wish.aliases.clone(),
            pid: std::process::id(),
        }
    }

    /// Returns what others on the network call it, each name once.
    pub fn called(&self) -> Vec<String> {
        let mut called: Vec<String> = Vec::new();
        for name in self.names.iter().chain(&self.aliases) {
            if !called.contains(name) {
                called.push(name.clone());
            }
        }
        called
    }

    /// Returns who that is, in words.
    pub fn who(&self) -> String {
        match self.names.first() {
            Some(name) => format!("container `{name}` (process {})", self.pid),
            None => format!("process {}, an `mk run`", self.pid),
        }
    }
}

/// An address that a run has.
#[derive(Debug)]
pub struct Lease {
    /// Who has what.
    pub leased: Leased,
    dir: Dir,
    files: Vec<(String, File)>,
}

impl Lease {
    /// Takes the address that `wish` asks for, else one that was not given lately.
    pub(super) fn take(dir: &Dir, config: &Config, wish: &Wish, alone: &Alone) -> Result<Self> {
        check(config, wish)?;
        // Also for what it takes away.
        let others = look(dir, alone)?;
        if let Some(mac) = wish.mac
            && let Some(other) = others.iter().find(|other| other.mac == mac)
        {
            return Err(Error::MacTaken {
                mac,
                name: config.name.clone(),
                by: other.who(),
            });
        }
        if let Some(ip) = wish.ip {
            return Self::take_this(dir, config, wish, ip)?.map_err(|taken| Error::AddressTaken {
                address: taken,
                name: config.name.clone(),
                by: who_has(dir, taken),
            });
        }
        let last = dir.open_or_create(LAST)?;
        for ip in order(config.subnet, wish, read_last(&last)?) {
            match Self::take_this(dir, config, wish, ip)? {
                Ok(lease) => {
                    // Names have their own places; those without go round.
                    if wish.names.is_empty() {
                        write_last(&last, ip)?;
                    }
                    return Ok(lease);
                }
                Err(taken) if wish.ip6.map(IpAddr::V6) == Some(taken) => {
                    return Err(Error::AddressTaken {
                        address: taken,
                        name: config.name.clone(),
                        by: who_has(dir, taken),
                    });
                }
                Err(_) => {}
            }
        }
        Err(full(config))
    }

    /// Takes `ip` and what goes with it; returns the address that somebody else has, where one has.
    fn take_this(
        dir: &Dir,
        config: &Config,
        wish: &Wish,
        ip: Ipv4Addr,
    ) -> Result<std::result::Result<Self, IpAddr>> {
        let Some(file) = lock(dir, &ip.to_string())? else {
            return Ok(Err(ip.into()));
        };
        let mut lease = Self {
            leased: Leased::of(config, wish, ip),
            dir: dir.open_dir(".")?,
            files: vec![(ip.to_string(), file)],
        };
        if let Some(ip6) = lease.leased.ip6
            && !lease.take_six(config, ip6)?
        {
            lease.release();
            return Ok(Err(ip6.into()));
        }
        lease.write(&lease.leased)?;
        Ok(Ok(lease))
    }

    /// Takes the IPv6 address too, and says whether nobody else has it. One that goes with the IPv4 address needs no file
    /// of its own; one that was asked for has one, and must not go with somebody else's address.
    fn take_six(&mut self, config: &Config, ip6: Ipv6Addr) -> Result<bool> {
        let name = ip6.to_string();
        if own6(config, self.leased.ip) == Some(ip6) {
            return Ok(self.dir.look(&name)?.is_none() || lock(&self.dir, &name)?.is_some());
        }
        let number = config.subnet6.and_then(|subnet6| subnet6.number(ip6));
        let partner = number
            .and_then(|number| u32::try_from(number).ok())
            .and_then(|number| config.subnet.host(number));
        if let Some(partner) = partner
            && partner != self.leased.ip
            && let Some(other) = alive(&self.dir, &partner.to_string())?
            && other.ip6 == Some(ip6)
        {
            return Ok(false);
        }
        match lock(&self.dir, &name)? {
            Some(file) => {
                self.files.push((name, file));
                Ok(true)
            }
            None => Ok(false),
        }
    }

    fn write(&self, leased: &Leased) -> Result<()> {
        let mut text = serde_json::to_vec(leased).map_err(|error| Error::Unreadable {
            path: self.dir.path().join(self.leased.ip.to_string()),
            why: error.to_string(),
        })?;
        text.push(b'\n');
        for (_, file) in &self.files {
            // All at once: who reads it meanwhile sees nothing, or all of it.
            file::overwrite(file, &text)?;
        }
        Ok(())
    }

    /// Says that the mk `pid` takes care of the container, where another took the address.
    pub fn stay_with(&self, pid: u32) -> Result<()> {
        match self.leased.pid == pid {
            true => Ok(()),
            false => self.write(&Leased {
                pid,
                ..self.leased.clone()
            }),
        }
    }

    /// Returns the handles that keep the lease.
    pub fn handles(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.files.iter().map(|(_, file)| file.as_fd())
    }

    /// Returns the folder of all leases of the network.
    pub fn folder(&self) -> PathBuf {
        self.dir.path()
    }

    /// Takes the files away: the container has ended. Whoever holds them would have been taken for alive until then.
    pub fn release(&self) {
        for (name, _) in &self.files {
            // The lock is still held, so nobody else has taken the file; one that stays behind is nobody's.
            let _ = self.dir.unlink(name);
        }
    }
}

/// Returns the IPv6 address that goes with `ip`.
fn own6(config: &Config, ip: Ipv4Addr) -> Option<Ipv6Addr> {
    Some(config.subnet6?.host(config.subnet.number(ip)?))
}

/// Returns what `wish` would be given now; `dir` is the folder of leases, where there is one.
pub(super) fn propose(dir: Option<&Dir>, config: &Config, wish: &Wish) -> Result<Leased> {
    check(config, wish)?;
    let holder = |address: IpAddr| match dir {
        Some(dir) => alive(dir, &address.to_string()),
        None => Ok(None),
    };
    let taken = |address: IpAddr, by: &Leased| Error::AddressTaken {
        address,
        name: config.name.clone(),
        by: by.who(),
    };
    for asked in [wish.ip.map(IpAddr::from), wish.ip6.map(IpAddr::from)]
        .into_iter()
        .flatten()
    {
        if let Some(by) = holder(asked)? {
            return Err(taken(asked, &by));
        }
    }
    if let Some(ip) = wish.ip {
        return Ok(Leased::of(config, wish, ip));
    }
    let last = match dir.map(|dir| dir.open_file(LAST)) {
        Some(Ok(file)) => read_last(&file)?,
        _ => None,
    };
    for ip in order(config.subnet, wish, last) {
        if holder(ip.into())?.is_none() {
            return Ok(Leased::of(config, wish, ip));
        }
    }
    Err(full(config))
}

fn full(config: &Config) -> Error {
    Error::Full {
        name: config.name.clone(),
        count: config.subnet.hosts() - 1,
        subnet: config.subnet.range(),
    }
}

/// Refuses what the network cannot give.
pub(super) fn check(config: &Config, wish: &Wish) -> Result<()> {
    let outside = |address: IpAddr, subnet: String, why| Error::Outside {
        address,
        name: config.name.clone(),
        subnet,
        why,
    };
    if let Some(ip) = wish.ip {
        let refuse = |why| Err(outside(ip.into(), config.subnet.range(), why));
        if !config.subnet.overlaps(ip, 32) {
            return refuse("it is outside of that");
        }
        if ip == config.subnet.gateway() {
            return refuse("it is the bridge's own");
        }
        if config.subnet.number(ip).is_none() {
            return refuse("the first and the last address are nobody's");
        }
    }
    if let Some(ip6) = wish.ip6 {
        let Some(subnet6) = config.subnet6 else {
            return Err(Error::NoIpv6 {
                name: config.name.clone(),
            });
        };
        let refuse = |why| Err(outside(ip6.into(), subnet6.range(), why));
        if ip6 == subnet6.gateway() {
            return refuse("it is the bridge's own");
        }
        if subnet6.number(ip6).is_none() {
            return refuse("it is outside of that, or its first address");
        }
    }
    Ok(())
}

/// Returns the addresses of `subnet` in the order in which they are tried: from that of the run's name on, else from the
/// one after the `last`. So an address rests as long as it can, while what had it before is taken down.
pub(super) fn order(subnet: Subnet, wish: &Wish, last: Option<Ipv4Addr>) -> impl Iterator<Item = Ipv4Addr> {
    let count = subnet.hosts();
    let start = match wish.names.first() {
        Some(name) => {
            let mut hasher = DefaultHasher::new();
            name.hash(&mut hasher);
            (hasher.finish() % u64::from(count)) as u32
        }
        None => last.and_then(|last| subnet.number(last)).unwrap_or(1) % count,
    };
    (0..count)
        .filter_map(move |step| subnet.host((u64::from(start) + u64::from(step)) as u32 % count + 1))
        .filter(move |&ip| ip != subnet.gateway())
}

fn read_last(file: &File) -> Result<Option<Ipv4Addr>> {
    let text = file::read(file, 64)?;
    Ok(std::str::from_utf8(&text)
        .ok()
        .and_then(|text| text.trim().parse().ok()))
}

fn write_last(file: &File, ip: Ipv4Addr) -> Result<()> {
    // Always as long as the longest, so that nothing of the one before stays.
    let text = format!("{:<16}\n", ip.to_string());
    file.write_all_at(text.as_bytes(), 0).map_err(|error| {
        SysError::new(
            Errno::from_io_error(&error).unwrap_or(Errno::IO),
            "pwrite(\"last\")",
        )
        .into()
    })
}

/// Locks the file `name`, which is made where there is none; `None` where somebody holds it.
fn lock(dir: &Dir, name: &str) -> Result<Option<File>> {
    loop {
        let file = dir.open_or_create(name)?;
        if !file::try_lock_byte(&file, 0)? {
            return Ok(None);
        }
        // Whoever had it may have taken the file away meanwhile.
        let ours = file::stat(&file)?.inode;
        if dir.look(name)?.is_some_and(|found| found.inode == ours) {
            return Ok(Some(file));
        }
    }
}

/// Returns who holds the file `name`, if somebody does.
fn alive(dir: &Dir, name: &str) -> Result<Option<Leased>> {
    let file = match dir.open_file(name) {
        Err(failed) if failed.errno == Errno::NOENT => return Ok(None),
        file => file?,
    };
    if !file::is_byte_locked(&file, 0)? {
        return Ok(None);
    }
    let text = file::read(&file, MOST)?;
    // One that was just taken says nothing yet.
    Ok(serde_json::from_slice(&text).ok())
}

/// Returns who has `address`, in words.
fn who_has(dir: &Dir, address: IpAddr) -> String {
    match alive(dir, &address.to_string()) {
        Ok(Some(leased)) => leased.who(),
        _ => "another container".into(),
    }
}

/// Returns who has which address, and takes away what those have left who were killed.
pub(super) fn look(dir: &Dir, _alone: &Alone) -> Result<Vec<Leased>> {
    let mut found = Vec::new();
    for (name, _) in dir.list()? {
        let Some(name) = name.to_str() else { continue };
        let Ok(address) = name.parse::<IpAddr>() else {
            continue;
        };
        match alive(dir, name)? {
            Some(leased) if address.is_ipv4() => found.push(leased),
            Some(_) => {}
            None => {
                if let Some(_held) = lock(dir, name)? {
                    match dir.unlink(name) {
                        Err(failed) if failed.errno != Errno::NOENT => return Err(failed.into()),
                        _ => {}
                    }
                }
            }
        }
    }
    found.sort_by_key(|leased| leased.ip);
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::network::{Network, Networks, Options, Reach};
    use super::*;

    fn network(subnet: &str) -> (tempfile::TempDir, Network) {
        let state = tempfile::tempdir().unwrap();
        let networks = Networks::open_or_make(&state.path().join("run")).unwrap();
        let options = Options {
            subnet: Some(subnet.parse().unwrap()),
            subnet6: Some("fd00:1::/64".parse().unwrap()),
            ..Options::default()
        };
        let network = networks
            .create(&"a".parse().unwrap(), Reach::Within, &options)
            .unwrap();
        (state, network)
    }

    fn named(name: &str) -> Wish {
        Wish {
            names: vec![name.into()],
            ..Wish::default()
        }
    }

    #[test]
    fn an_address_has_one_holder_and_all_are_given() {
        let (_state, network) = network("10.0.0.0/28");
        let mut given = BTreeSet::new();
        let mut held = Vec::new();
        for _ in 0..13 {
            let lease = network.lease(&Wish::default()).unwrap();
            assert!(given.insert(lease.leased.ip), "{} given twice", lease.leased.ip);
            held.push(lease);
        }
        let full = network.lease(&Wish::default()).unwrap_err();
        assert_eq!(
            full.to_string(),
            "no address of the network `a` is free: all 13 of 10.0.0.0/28 are taken"
        );
        let freed = held.remove(4);
        let address = freed.leased.ip;
        freed.release();
        drop(freed);
        assert_eq!(network.lease(&Wish::default()).unwrap().leased.ip, address);
    }

    #[test]
    fn an_address_rests_as_long_as_it_can() {
        let (_state, network) = network("10.0.0.0/28");
        let mut before = None;
        for _ in 0..30 {
            let lease = network.lease(&Wish::default()).unwrap();
            assert_ne!(before, Some(lease.leased.ip));
            before = Some(lease.leased.ip);
            lease.release();
        }
    }

    #[test]
    fn a_name_gets_the_same_address_again() {
        let (_state, network) = network("10.0.0.0/24");
        let first = network.lease(&named("web")).unwrap();
        let (ip, mac) = (first.leased.ip, first.leased.mac);
        let beside = network.lease(&named("web")).unwrap();
        assert_ne!(beside.leased.ip, ip);
        drop(first);
        let again = network.lease(&named("web")).unwrap().leased.clone();
        assert_eq!((again.ip, again.mac), (ip, mac));
        assert_eq!(again.ip6.unwrap().segments()[7], u16::from(ip.octets()[3]));
    }

    #[test]
    fn who_has_an_address_is_told_to_whoever_wants_it() {
        let (_state, network) = network("10.0.0.0/24");
        let wish = Wish {
            ip: Some([10, 0, 0, 9].into()),
            ..named("db")
        };
        let lease = network.lease(&wish).unwrap();
        assert_eq!(lease.leased.ip6, Some("fd00:1::9".parse().unwrap()));
        let pid = std::process::id();
        let taken = network.lease(&wish).unwrap_err().to_string();
        assert_eq!(
            taken,
            format!("the address 10.0.0.9 on the network `a` is taken by container `db` (process {pid})")
        );
        assert_eq!(network.propose_lease(&wish).unwrap_err().to_string(), taken);
        let six = Wish {
            ip6: lease.leased.ip6,
            ..Wish::default()
        };
        let taken = network.lease(&six).unwrap_err();
        assert!(matches!(taken, Error::AddressTaken { .. }), "{taken:?}");
        let mac = Wish {
            mac: Some(lease.leased.mac),
            ..Wish::default()
        };
        let taken = network.lease(&mac).unwrap_err();
        assert!(matches!(taken, Error::MacTaken { .. }), "{taken:?}");
        assert_eq!(network.leases().unwrap(), std::slice::from_ref(&lease.leased));
    }

    #[test]
    fn an_address_of_ones_own_choice_is_not_given_to_another() {
        let (_state, network) = network("10.0.0.0/29");
        let chosen: Ipv6Addr = "fd00:1::3".parse().unwrap();
        let wish = Wish {
            ip: Some([10, 0, 0, 5].into()),
            ip6: Some(chosen),
            ..Wish::default()
        };
        let lease = network.lease(&wish).unwrap();
        let mut others = Vec::new();
        while let Ok(other) = network.lease(&Wish::default()) {
            assert_ne!(other.leased.ip6, Some(chosen));
            others.push(other);
        }
        assert_eq!(others.len(), 3, "2, 4 and 6; 3 would have the address");
        drop(lease);
        assert_eq!(network.leases().unwrap().len(), 3);
        assert_eq!(network.lease(&Wish::default()).unwrap().leased.ip6, Some(chosen));
    }

    #[test]
    fn what_the_network_does_not_have_is_refused_with_the_reason() {
        let (_state, network) = network("10.0.0.0/24");
        let mut said = Vec::new();
        for ip in ["10.0.1.9", "10.0.0.1", "10.0.0.0", "10.0.0.255"] {
            let wish = Wish {
                ip: Some(ip.parse().unwrap()),
                ..Wish::default()
            };
            said.push(network.lease(&wish).unwrap_err().to_string());
        }
        let six = Wish {
            ip6: Some("fd00:2::1".parse().unwrap()),
            ..Wish::default()
        };
        said.push(network.lease(&six).unwrap_err().to_string());
        assert_eq!(
            said,
            [
                "10.0.1.9 is no address for a container on the network `a`, 10.0.0.0/24: it is outside of that",
                "10.0.0.1 is no address for a container on the network `a`, 10.0.0.0/24: it is the bridge's own",
                "10.0.0.0 is no address for a container on the network `a`, 10.0.0.0/24: the first and the last address are nobody's",
                "10.0.0.255 is no address for a container on the network `a`, 10.0.0.0/24: the first and the last address are nobody's",
                "fd00:2::1 is no address for a container on the network `a`, fd00:1::/64: it is outside of that, or its first address",
            ]
        );
    }

    #[test]
    fn what_the_killed_have_left_is_swept() {
        let (_state, network) = network("10.0.0.0/24");
        let lease = network.lease(&named("web")).unwrap();
        let dir = network.leases_dir().unwrap();
        let name = lease.leased.ip.to_string();
        // Dropped, and not released: as the kernel does it.
        drop(lease);
        assert!(dir.look(&name).unwrap().is_some());
        assert!(network.leases().unwrap().is_empty());
        assert!(dir.look(&name).unwrap().is_none());
    }
}
