//! Who else is on a container's network, by name, for as long as the container lives: [`Live`] keeps its `/etc/hosts`
//! true while others come and go. No daemon answers for names: each mk does that for its own container.
//!
//! Whoever is on a network holds a lease, a file that is named after its address, says its names, and is locked until it
//! ends. The folder of leases is watched; that a lease ends is told, too, because its file, which was open for writing,
//! is closed then.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::hosts::{self, Peer};
use super::lease::Leased;
use crate::spec::network::{AddHost, Mac};
use crate::sys::dir::Dir;
use crate::sys::file;
use crate::sys::notify::Notify;

/// Where a container is on its network, and who it is there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Member {
    /// The network; `None` where it is nobody's but the container's.
    pub network: Option<String>,
    /// Its addresses there, that of version 4 first.
    pub addresses: Vec<IpAddr>,
    /// Its hardware address there.
    pub mac: Option<Mac>,
    /// What others there call it.
    pub names: Vec<String>,
    /// The folder of the network's leases.
    pub leases: Option<PathBuf>,
}

/// How long a container has to have run before it is told of others that came after it: most end sooner, and are spared
/// what a watch costs.
const WARM_UP: Duration = Duration::from_millis(20);
/// How long to wait for more when somebody came or went.
const GATHER: Duration = Duration::from_millis(10);
/// How long until the second look: the kernel tells of a closed file a moment before it drops the file's lock.
const SECOND_LOOK: Duration = Duration::from_millis(250);
/// How often to look where nothing can be watched: a user has so many watches only (`max_user_instances` in inotify(7)).
const UNWATCHED: Duration = Duration::from_secs(1);

/// The most that a lease says, in bytes.
const MOST: u64 = 64 * 1024;

/// The `/etc/hosts` of one container on a network.
#[derive(Debug)]
pub struct Live {
    leases: PathBuf,
    own: Vec<IpAddr>,
    /// What does not change.
    base: String,
    added: Vec<AddHost>,
    /// What the file holds.
    said: String,
    file: Option<OwnedFd>,
    watch: Watch,
    look_at: Option<Instant>,
    second_look: bool,
}

/// How a change is noticed.
#[derive(Debug)]
enum Watch {
    /// Not at all so far.
    NotYet,
    /// The kernel tells.
    Told(Notify),
    /// By looking now and then.
    Blind,
}

impl Live {
    /// Returns that of `member`, who is on a network, with `base` as what always holds, and the lines that were `added`
    /// to it; `None` of one who is on none.
    pub fn of(member: &Member, base: &str, added: &[AddHost]) -> Option<Self> {
        let mut live = Self {
            leases: member.leases.clone()?,
            own: member.addresses.clone(),
            base: base.to_owned(),
            added: added.to_vec(),
            said: String::new(),
            file: None,
            watch: Watch::NotYet,
            look_at: None,
            second_look: false,
        };
        live.said = live.wanted();
        Some(live)
    }

    /// Returns what the file holds at first.
    pub fn text(&self) -> &str {
        &self.said
    }

    /// Takes the file, which holds [`Self::text`], open for writing.
    pub fn attach(&mut self, file: OwnedFd) {
        self.file = Some(file);
    }

    /// Begins to follow the others; the container runs now.
    pub fn begin(&mut self) {
        self.look_at = Instant::now().checked_add(WARM_UP);
    }

    /// Returns what becomes readable when somebody comes or goes, where that can be told.
    pub fn told_by(&self) -> Option<BorrowedFd<'_>> {
        match &self.watch {
            Watch::Told(notify) => Some(notify.as_fd()),
            Watch::NotYet | Watch::Blind => None,
        }
    }

    /// Returns how long to wait at most until [`Self::turn`] is called.
    pub fn patience(&self) -> Option<Duration> {
        let at = self.look_at?;
        Some(at.saturating_duration_since(Instant::now()))
    }

    /// Does what is due; `told` says that [`Self::told_by`] is readable.
    pub fn turn(&mut self, told: bool) {
        let now = Instant::now();
        if told && let Watch::Told(notify) = &self.watch {
            notify.clear();
            self.second_look = true;
            let soon = now + GATHER;
            self.look_at = Some(self.look_at.map_or(soon, |at| at.min(soon)));
        }
        if self.look_at.is_none_or(|at| at > now) {
            return;
        }
        if matches!(self.watch, Watch::NotYet) {
            // Before the first look, so that nobody comes in between.
            let watched = Dir::open(&self.leases).and_then(|leases| Notify::on(&leases));
            self.watch = watched.map_or(Watch::Blind, Watch::Told);
        }
        self.look();
        let again = match self.watch {
            Watch::Blind => Some(UNWATCHED),
            _ if std::mem::take(&mut self.second_look) => Some(SECOND_LOOK),
            _ => None,
        };
        self.look_at = again.map(|wait| now + wait);
    }

    /// Looks who is there, and writes the file anew where that makes a difference.
    fn look(&mut self) {
        let wanted = self.wanted();
        let Some(file) = &self.file else { return };
        // Where it fails there is nobody to tell, and the next look tries again.
        if wanted != self.said && file::rewrite(file, wanted.as_bytes(), self.said.len()).is_ok() {
            self.said = wanted;
        }
    }

    fn wanted(&self) -> String {
        let mut peers = peers(&self.leases);
        peers.retain(|peer| !peer.addresses.iter().any(|one| self.own.contains(one)));
        hosts::with_peers(&self.base, &peers, &self.added)
    }
}

/// Returns who holds a lease, in the order of the addresses; nobody where there is no such folder.
fn peers(leases: &std::path::Path) -> Vec<Peer> {
    let Ok(entries) = fs_err::read_dir(leases) else {
        return Vec::new();
    };
    let mut peers: Vec<(Ipv4Addr, Peer)> = entries
        .flatten()
        .filter_map(|entry| {
            let address: Ipv4Addr = entry.file_name().to_str()?.parse().ok()?;
            let file = fs_err::File::open(entry.path()).ok()?.into_parts().0;
            if !file::is_byte_locked(&file, 0).ok()? {
                return None;
            }
            let leased: Leased = serde_json::from_slice(&file::read(&file, MOST).ok()?).ok()?;
            let six = leased.ip6.map(IpAddr::V6);
            let addresses = std::iter::once(IpAddr::V4(address)).chain(six).collect();
            let names = leased.called();
            Some((address, Peer { addresses, names }))
        })
        .collect();
    peers.sort();
    peers.into_iter().map(|(_, peer)| peer).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    /// Somebody on the network, until this is dropped.
    fn lease(leases: &std::path::Path, address: &str, text: &str) -> std::fs::File {
        let rest = format!(r#","ip":"{address}","mac":"02:00:00:00:00:01","pid":1}}"#);
        let text = &text.replace('}', &rest);
        let mut file = fs_err::File::create(leases.join(address)).unwrap().into_parts().0;
        assert!(file::try_lock_byte(&file, 0).unwrap());
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    fn live(leases: &std::path::Path) -> (Live, tempfile::NamedTempFile) {
        let member = Member {
            addresses: vec!["10.0.0.2".parse().unwrap()],
            leases: Some(leases.to_owned()),
            ..Member::default()
        };
        let mut live = Live::of(&member, "base\n", &[]).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        fs_err::write(file.path(), live.text()).unwrap();
        live.attach(file.reopen().unwrap().into());
        (live, file)
    }

    /// Turns as mk's loop does, until the file says `text`.
    fn until(live: &mut Live, file: &tempfile::NamedTempFile, text: &str) {
        let end = Instant::now() + Duration::from_secs(10);
        while fs_err::read_to_string(file.path()).unwrap() != text {
            assert!(
                Instant::now() < end,
                "{:?} is not {text:?}",
                fs_err::read_to_string(file.path())
            );
            let wait = live.patience().unwrap_or(Duration::from_millis(50));
            let told = match live.told_by() {
                Some(told) => crate::sys::process::poll([told], Some(wait)).unwrap()[0],
                None => {
                    std::thread::sleep(wait);
                    false
                }
            };
            live.turn(told);
        }
    }

    #[test]
    fn names_come_and_go_with_those_who_hold_a_lease() {
        let temp = tempfile::tempdir().unwrap();
        let leases = temp.path();
        let _own = lease(leases, "10.0.0.2", r#"{"names":["me"],"aliases":[]}"#);
        let first = lease(
            leases,
            "10.0.0.3",
            r#"{"names":["db"],"aliases":["all","db"],"ip6":"fd00::3"}"#,
        );
        let (mut live, file) = live(leases);
        let with_first = "base\n# Others on this network:\n10.0.0.3\tdb all\nfd00::3\tdb all\n";
        assert_eq!(live.text(), with_first);
        live.begin();
        let second = lease(leases, "10.0.0.4", r#"{"names":[],"aliases":["all"]}"#);
        until(&mut live, &file, &format!("{with_first}10.0.0.4\tall\n"));
        drop(first);
        until(
            &mut live,
            &file,
            "base\n# Others on this network:\n10.0.0.4\tall\n",
        );
        drop(second);
        until(&mut live, &file, "base\n");
    }

    #[test]
    fn what_is_no_lease_is_nobody() {
        let temp = tempfile::tempdir().unwrap();
        let leases = temp.path();
        let _damaged = lease(leases, "10.0.0.3", "{");
        let _other = lease(leases, "lock", r#"{"names":["a"],"aliases":[]}"#);
        fs_err::write(leases.join("10.0.0.5"), r#"{"names":["gone"]}"#).unwrap();
        assert_eq!(peers(leases), []);
        assert_eq!(peers(&leases.join("missing")), []);
        assert!(Live::of(&Member::default(), "", &[]).is_none());
    }
}
