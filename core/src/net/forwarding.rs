//! That the host passes packets on, from the network to its uplinks and back: settings of the kernel
//! (Documentation/networking/ip-sysctl.rst). [`needed`] decides them, pure; [`switch_on`] writes down what was before,
//! then sets them; [`put_back`] does so when the last network is gone.
//!
//! The kernel asks the interface that a packet comes in by whether it may go on. So the bridge and the uplinks are told so,
//! each by itself, and nothing else is. For IPv6 that is possible from Linux 6.17 on (`force_forwarding`); before that, all
//! interfaces are told ([`Change::global`]), and uplinks that learn their routes from a router are told to go on doing so.
//!
//! A host that passed nothing on until now shall not become a router by this: a table of its own, `mk.forward`, drops
//! what comes in by an uplink that was told so here, unless it is an answer or led on by a published port.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::sys::dir::Dir;
use crate::sys::netfilter::{self, Action, Chain, FILTER, Hook, Kind, Match, Rule, Table};
use crate::sys::{Errno, SysError, file};

/// The file in the folder of networks that holds what was before. No network can have this name.
const FILE: &str = ".forwarding.json";
const DRAFT: &str = ".forwarding.json.new";
/// The most that the file holds, in bytes.
const MOST: u64 = 1 << 20;

/// The table that keeps the host from becoming a router. No network's table has this name, because of its dot.
pub const GUARD: &str = "mk.forward";

/// Why packets are not passed on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting cannot be changed.
    #[error("cannot set `{path}` to {value}")]
    Setting {
        /// Which one, below `/proc/sys`.
        path: PathBuf,
        /// What it was to be.
        value: String,
        /// Why not: `EROFS` where `/proc/sys` is read-only, as in a container.
        #[source]
        source: std::io::Error,
    },
    /// What was before cannot be read, or is not understood.
    #[error("cannot read what the settings were before, `{path}`")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: serde_json::Error,
    },
    /// The table that goes with it.
    #[error(transparent)]
    Table(#[from] netfilter::Error),
    /// A call on the folder of networks.
    #[error(transparent)]
    Sys(#[from] SysError),
}

/// A setting that is changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Which one, below `/proc/sys`.
    pub setting: String,
    /// What it was.
    pub was: String,
    /// What it is to be. The same as it was where another change would change it and it has to be put back.
    pub is: String,
}

/// What was before, and who needs what is now.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Before {
    networks: BTreeSet<String>,
    /// In the order in which they were made.
    changes: Vec<Change>,
}

const IPV6_ALL: &str = "net/ipv6/conf/all/forwarding";

impl Change {
    /// Whether it makes all interfaces of the host pass IPv6 packets on, because this kernel cannot be told about one.
    pub fn global(&self) -> bool {
        self.setting == IPV6_ALL
    }

    /// Returns the interface that is made to pass packets on, where it is one.
    fn interface(&self) -> Option<&str> {
        let [_, _, _, interface, what] = self.setting.split('/').collect::<Vec<_>>()[..] else {
            return None;
        };
        let one =
            matches!(what, "forwarding" | "force_forwarding") && !matches!(interface, "all" | "default");
        (one && self.was != self.is).then_some(interface)
    }
}

/// Returns what has to be changed for packets to be passed on from `uplinks`. `read` returns a setting below `/proc/sys`;
/// `all` the names of all interfaces.
pub fn needed(
    uplinks: &[String],
    all: impl FnOnce() -> Vec<String>,
    read: impl Fn(&str) -> Option<String>,
) -> Vec<Change> {
    let mut changes = Vec::new();
    let mut change = |setting: String, from: &str, to: &str| {
        if read(&setting).as_deref() == Some(from) {
            changes.push(Change {
                setting,
                was: from.to_owned(),
                is: to.to_owned(),
            });
        }
    };
    for uplink in uplinks {
        change(format!("net/ipv4/conf/{uplink}/forwarding"), "0", "1");
    }
    // Where all pass on already, each does; where there is none, there is no IPv6.
    if read(IPV6_ALL).as_deref() != Some("0") {
        return changes;
    }
    if read("net/ipv6/conf/all/force_forwarding").is_some() {
        for uplink in uplinks {
            change(format!("net/ipv6/conf/{uplink}/force_forwarding"), "0", "1");
        }
        return changes;
    }
    // The last change sets these, too; they are put back after it.
    for other in all().iter().map(String::as_str).chain(["default"]) {
        change(format!("net/ipv6/conf/{other}/forwarding"), "1", "1");
    }
    // One that passes on forgets the routes that it has learnt, unless it is told to go on learning.
    for uplink in uplinks {
        change(format!("net/ipv6/conf/{uplink}/accept_ra"), "1", "2");
    }
    change(IPV6_ALL.to_owned(), "0", "1");
    changes
}

/// Returns what would have to be changed now, on the host that this process is on.
pub fn missing() -> Vec<Change> {
    needed(&uplinks(), interfaces, read)
}

/// Returns the settings of the bridge `name` itself, which go with it: it passes packets on, published ports on 127.0.0.1
/// lead over it, and nobody on it tells the host where its packets go.
pub fn of_bridge(name: &str) -> impl Iterator<Item = (String, &'static str)> {
    const FOUR: [(&str, &str); 3] = [
        ("forwarding", "1"),
        ("route_localnet", "1"),
        ("accept_redirects", "0"),
    ];
    const SIX: [(&str, &str); 4] = [
        ("force_forwarding", "1"),
        ("accept_ra", "0"),
        ("autoconf", "0"),
        ("accept_redirects", "0"),
    ];
    let four = FOUR.map(|(what, value)| (format!("net/ipv4/conf/{name}/{what}"), value));
    let six = SIX.map(|(what, value)| (format!("net/ipv6/conf/{name}/{what}"), value));
    four.into_iter().chain(six)
}

/// Returns those of [`of_bridge`] that a new interface does not have by itself, on this kernel.
pub fn of_new_bridge(name: &str) -> impl Iterator<Item = (String, &'static str)> {
    let usual = of_bridge("default").map(|(setting, _)| read(&setting));
    of_bridge(name)
        .zip(usual)
        .filter(|((_, value), usual)| usual.as_deref().is_some_and(|usual| usual != *value))
        .map(|(setting, _)| setting)
}

/// Sets the settings of the bridge `name`, which is there and best not up yet. Those that this kernel does not have are
/// passed over.
pub fn set_bridge(name: &str) -> Result<(), Error> {
    for (setting, value) in of_bridge(name) {
        if read(&setting).is_some_and(|now| now != value) {
            write(&setting, value)?;
        }
    }
    Ok(())
}

/// Makes the host pass packets on for the network `name`, and writes down what was before in `folder`, that of all
/// networks, which nobody else changes meanwhile.
pub fn switch_on(folder: &Dir, name: &str) -> Result<(), Error> {
    let mut before = load(folder)?;
    let new = missing();
    before.networks.insert(name.to_owned());
    for change in &new {
        // What it was at first is what it is put back to.
        if !before.changes.iter().any(|known| known.setting == change.setting) {
            before.changes.push(change.clone());
        }
    }
    // First what is needed to undo it, whatever happens then.
    save(folder, &before)?;
    if let Some(guard) = guard(&before.changes) {
        guard.make()?;
    }
    new.iter()
        .try_for_each(|change| write(&change.setting, &change.is))
}

/// Says that the network `name` is gone. With the last one, everything is put back that nobody else has changed since.
pub fn put_back(folder: &Dir, name: &str) -> Result<(), Error> {
    let mut before = load(folder)?;
    if !before.networks.remove(name) {
        return Ok(());
    }
    if !before.networks.is_empty() {
        return save(folder, &before);
    }
    let ours = |change: &&Change| read(&change.setting).as_deref() == Some(&change.is);
    // All are looked at before any is changed, because one may change others.
    let ours: Vec<&Change> = before.changes.iter().filter(ours).collect();
    for change in ours.into_iter().rev() {
        write(&change.setting, &change.was)?;
    }
    if guard(&before.changes).is_some() {
        Table::remove(GUARD)?;
    }
    Ok(folder.unlink(FILE)?)
}

/// Returns what was changed for the networks of `folder`, in the order in which it was.
pub fn changed(folder: &Dir) -> Result<Vec<Change>, Error> {
    Ok(load(folder)?.changes)
}

/// Returns the table that keeps the host from becoming a router by `changes`, if it could.
fn guard(changes: &[Change]) -> Option<Table> {
    let uplinks: BTreeSet<&str> = changes.iter().filter_map(Change::interface).collect();
    if uplinks.is_empty() {
        return None;
    }
    let closed = uplinks.into_iter().flat_map(|uplink| {
        let (by, out) = (Match::Input(uplink.to_owned()), Match::Output(uplink.to_owned()));
        // What stays on an uplink that is a bridge comes this way where bridges are told to ask (`br_netfilter`).
        [
            Rule::new([by.clone(), out], Action::Accept),
            Rule::new([by], Action::Drop),
        ]
    });
    let open = [Match::Established, Match::Translated].map(|one| Rule::new([one], Action::Accept));
    Some(Table {
        name: GUARD.to_owned(),
        owned: false,
        chains: vec![Chain {
            name: "forward",
            kind: Kind::Filter,
            hook: Hook::Forward,
            priority: FILTER,
            rules: open.into_iter().chain(closed).collect(),
        }],
    })
}

fn load(folder: &Dir) -> Result<Before, Error> {
    let text = match folder.open_file(FILE) {
        Err(failed) if failed.errno == Errno::NOENT => return Ok(Before::default()),
        file => file::read(&file?, MOST)?,
    };
    serde_json::from_slice(&text).map_err(|source| unreadable(folder, source))
}

fn save(folder: &Dir, before: &Before) -> Result<(), Error> {
    let text = serde_json::to_vec_pretty(before).map_err(|source| unreadable(folder, source))?;
    match folder.unlink(DRAFT) {
        Err(failed) if failed.errno != Errno::NOENT => return Err(failed.into()),
        _ => {}
    }
    file::write(&folder.create_file(DRAFT, 0o600)?, &text)?;
    Ok(folder.replace(DRAFT, folder, FILE)?)
}

fn unreadable(folder: &Dir, source: serde_json::Error) -> Error {
    Error::Unreadable {
        path: folder.path().join(FILE),
        source,
    }
}

/// Returns a setting without its line end; `None` where there is no such one.
fn read(setting: &str) -> Option<String> {
    let text = fs_err::read_to_string(Path::new("/proc/sys").join(setting)).ok()?;
    Some(text.trim_end().to_owned())
}

fn write(setting: &str, value: &str) -> Result<(), Error> {
    let path = Path::new("/proc/sys").join(setting);
    match fs_err::write(&path, value) {
        // The interface is gone, and its settings with it.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        written => written.map_err(|source| Error::Setting {
            path,
            value: value.to_owned(),
            source,
        }),
    }
}

/// The names of all interfaces, as far as they have settings of IPv6.
fn interfaces() -> Vec<String> {
    let Ok(list) = fs_err::read_dir("/proc/sys/net/ipv6/conf") else {
        return Vec::new();
    };
    let names = list.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names
        .filter(|name| !matches!(name.as_str(), "all" | "default"))
        .collect()
}

/// The interfaces that the host has routes through, other than its loopback.
fn uplinks() -> Vec<String> {
    // Those of this thread: the network namespace is a thread's own.
    let text = |name| {
        let path = Path::new("/proc/thread-self/net").join(name);
        fs_err::read_to_string(path).unwrap_or_default()
    };
    routed(&text("route"), &text("ipv6_route"))
}

/// Returns the interfaces that the texts of `/proc/net/route` and `/proc/net/ipv6_route` name, less those where IPv6 goes
/// to neighbours and groups only, which are all.
fn routed(four: &str, six: &str) -> Vec<String> {
    let four = four
        .lines()
        .skip(1)
        .filter_map(|line| line.split_whitespace().next());
    let six = six.lines().filter_map(|line| {
        let (to, rest) = line.split_once(' ')?;
        let near = to.starts_with("ff") || to.starts_with("fe8");
        (!near).then(|| rest.split_whitespace().next_back())?
    });
    // Routes that lead nowhere have an asterisk for an interface, or loopback.
    let names: BTreeSet<&str> = four
        .chain(six)
        .filter(|name| !matches!(*name, "lo" | "*"))
        .collect();
    names.into_iter().map(str::to_owned).collect()
}

#[cfg(test)]
#[expect(clippy::print_stderr, reason = "a skipped test says so")]
mod tests;
