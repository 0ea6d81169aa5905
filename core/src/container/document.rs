//! [`Document`] and [`Exit`]: what is known of a container, as the JSON files in its folder. Pure.
//!
//! A document is written twice: before the container is made, and once its command runs. All that a process needs to
//! join the container is in it.

use std::ffi::CStr;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::name::Id;
use super::text::Text;
use super::time::Time;
use crate::cgroup::Folders;
use crate::mounts::Table;
use crate::net::Member;
use crate::net::publish::Published;
use crate::process::{Prepared, Program};
use crate::recipe::Network;
use crate::rootfs::capture::Notes;
use crate::spec::RunSpec;
use crate::spec::network::Mac;
use crate::spec::privileges::Granted;
use crate::sys::process::{CStrings, CapabilitySet};

/// The version that this mk writes.
pub const VERSION: u32 = 1;

/// A container, as `container.json` has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document {
    /// [`VERSION`]; another one is not read.
    pub version: u32,
    /// What mk calls it.
    pub id: Id,
    /// What its owner calls it.
    pub name: Option<String>,
    /// The image that it was made of. A container that has ended does not keep it.
    pub image: ImageWord,
    /// When it was made.
    pub created: Time,
    /// Which boot of the machine that was: no process outlives it.
    pub boot: String,
    /// What the command is, and how it is executed.
    pub program: ProgramDocument,
    /// Whether a monitor looks after it, and not the mk that was called.
    pub detached: bool,
    /// Whether its folder is to stay when it has ended.
    pub keep: bool,
    /// Whether the command is process 1, without a reaper above it.
    pub as_pid1: bool,
    /// How long the command may take to end after it was asked to, in milliseconds.
    pub stop_timeout_ms: u64,
    /// The cgroups that were made for it and hold its limits, on the host, as absolute paths.
    pub cgroups: Vec<Text>,
    /// Its network, and what it is there.
    #[serde(default)]
    pub network: NetworkDocument,
    /// Where its writes go.
    pub layer: LayerDocument,
    /// Ports of the host that lead to it.
    #[serde(default)]
    pub ports: Vec<Published>,
    /// Its processes, once the command runs.
    pub started: Option<Started>,
}

/// An image: what it was called, and what it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageWord {
    /// As it was typed.
    pub word: Text,
    /// The image's digest.
    pub digest: String,
}

/// A command as data: what a process of the container is executed with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramDocument {
    /// Program and arguments; at least one.
    pub arguments: Vec<Text>,
    /// `NAME=value`, each name once; with `HOME`.
    pub environment: Vec<Text>,
    /// Where it starts, inside; absolute.
    pub workdir: Text,
    /// Its user, inside.
    pub uid: u32,
    /// Its group, inside.
    pub gid: u32,
    /// Its supplementary groups; `None` where nobody can set any.
    pub groups: Option<Vec<u32>>,
    /// What root has, and nobody can have more than: the kernel's bits (capabilities(7)).
    pub capabilities: u64,
    /// What a user other than root has.
    pub ambient: u64,
    /// Whether set-user-id bits and file capabilities have an effect.
    pub new_privileges: bool,
    /// Which system calls it may make: the kernel's own form, eight bytes an instruction, base64; `None`: all.
    pub filter: Option<String>,
    /// Whether it has a terminal of the container's own.
    pub terminal: bool,
}

impl ProgramDocument {
    /// Returns `program` as data.
    pub fn of(program: &Program) -> Self {
        let texts = |strings: &CStrings| strings.iter().map(|text| Text::of(text.to_bytes())).collect();
        let (uid, gid) = program.ids();
        let granted = program.granted();
        Self {
            arguments: texts(program.arguments()),
            environment: texts(program.environment()),
            workdir: Text::of(program.workdir().to_bytes()),
            uid,
            gid,
            groups: program.groups().map(<[u32]>::to_vec),
            capabilities: granted.keep.bits(),
            ambient: granted.ambient.bits(),
            new_privileges: granted.new_privileges,
            filter: granted.filter.as_deref().map(|filter| {
                let bytes: Vec<u8> = filter.iter().flat_map(|one| one.to_ne_bytes()).collect();
                STANDARD.encode(bytes)
            }),
            terminal: false,
        }
    }

    /// Returns what a process that joins the container is granted; nothing where the filter is none.
    pub fn granted(&self) -> Option<Granted> {
        let filter = match &self.filter {
            None => None,
            Some(text) => {
                let bytes = STANDARD.decode(text).ok()?;
                let (whole, rest) = bytes.as_chunks::<8>();
                let filter: Vec<u64> = whole.iter().map(|one| u64::from_ne_bytes(*one)).collect();
                // A damaged one must not let through what the whole one would not.
                Some(
                    Some(filter)
                        .filter(|filter| rest.is_empty() && !filter.is_empty())?
                        .into(),
                )
            }
        };
        Some(Granted {
            keep: CapabilitySet::from_bits_retain(self.capabilities),
            ambient: CapabilitySet::from_bits_retain(self.ambient),
            new_privileges: self.new_privileges,
            filter,
        })
    }
}

/// A container's network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkDocument {
    /// The kind, as `--network` takes it.
    pub kind: String,
    /// The network that it is on, or shares with another, where that has a name.
    pub name: Option<String>,
    /// Its addresses there, that of version 4 first.
    pub addresses: Vec<IpAddr>,
    /// Its hardware address there.
    pub mac: Option<Mac>,
    /// What others there call it.
    pub names: Vec<String>,
    /// The folder that says who else is there.
    pub leases: Option<Text>,
}

impl NetworkDocument {
    /// Returns the network of `member`, which is of this `kind`.
    fn of(kind: &Network, member: &Member) -> Self {
        Self {
            kind: kind.to_string(),
            name: member.network.clone(),
            addresses: member.addresses.clone(),
            mac: member.mac,
            names: member.names.clone(),
            leases: member.leases.as_deref().map(Text::from),
        }
    }

    /// Returns who a container is that shares this network: nobody with a name of its own.
    pub fn member(&self) -> Member {
        Member {
            network: self.name.clone(),
            addresses: self.addresses.clone(),
            mac: self.mac,
            names: Vec::new(),
            leases: self.leases.as_ref().map(|path| PathBuf::from(&path.0)),
        }
    }
}

/// Where a container's writes go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerDocument {
    /// Whether overlayfs keeps its notes there as `user.overlay.*`, else as `trusted.overlay.*`.
    pub user_notes: bool,
    /// The folder on a disk that holds the layer; `None`: it is in memory.
    pub disk: Option<Text>,
    /// Where in the container something else is mounted.
    pub places: Vec<Text>,
}

impl LayerDocument {
    /// Returns the layer of what `table` mounts, kept in the folder `disk` or in memory.
    pub fn of(table: &Table, disk: Option<&CStr>) -> Self {
        Self {
            user_notes: table.user_xattr,
            disk: disk.map(|path| Text::of(path.to_bytes())),
            places: table
                .mounts
                .iter()
                .map(|mount| Text::of(mount.target.as_bytes()))
                .collect(),
        }
    }

    /// Returns the name of overlayfs' notes in it.
    pub fn notes(&self) -> Notes {
        match self.user_notes {
            true => Notes::User,
            false => Notes::Trusted,
        }
    }
}

/// The processes of a container whose command runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// When the command was executed.
    pub at: Time,
    /// The command.
    pub command: ProcessId,
    /// Who holds the container's lock: its monitor, or the mk that was called.
    pub monitor: ProcessId,
    /// As which number the monitor has the folder open that holds the writable layer.
    pub layer: Option<i32>,
}

/// A process of the host. The number alone may be another's by now; with its start it is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// As whoever started it sees it.
    pub pid: i32,
    /// When it was started, in clock ticks since the boot (`starttime` in proc_pid_stat(5)).
    pub start: u64,
}

/// How a container ended, as the file `exit` has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// [`VERSION`].
    pub version: u32,
    /// When.
    pub at: Time,
    /// The exit code, as a shell would show it.
    pub code: u8,
    /// Whether the kernel ended it because its memory was used up.
    pub oom_killed: bool,
    /// How many bytes of what it printed found no room in its log.
    pub lost: u64,
}

impl Exit {
    /// How many bytes `exit` takes at most: they are reserved while there is room.
    pub(super) const LONGEST: usize = 256;
}

/// How others are to know of a container.
#[derive(Debug, Clone)]
pub struct Known {
    /// What its owner calls it.
    pub name: Option<String>,
    /// The image that it is made of.
    pub image: ImageWord,
    /// Whether a monitor looks after it.
    pub detached: bool,
    /// Whether it is to be known of when it has ended.
    pub keep: bool,
}

impl Document {
    /// Returns the document of the container that `ready` will be, made of `spec`, now and on this boot of the machine.
    pub(super) fn new(id: Id, known: Known, spec: &RunSpec, ready: &Prepared) -> Self {
        Self {
            version: VERSION,
            id,
            name: known.name,
            image: known.image,
            created: Time::now(),
            boot: super::state::boot(),
            program: ProgramDocument {
                terminal: spec.streams.terminal.is_some(),
                ..ProgramDocument::of(ready.program())
            },
            detached: known.detached,
            keep: known.keep,
            as_pid1: spec.as_pid1,
            stop_timeout_ms: u64::try_from(spec.stop_timeout.as_millis()).unwrap_or(u64::MAX),
            cgroups: Vec::new(),
            network: NetworkDocument::of(&spec.network.kind, ready.member()),
            layer: LayerDocument::of(ready.table(), ready.disk()),
            ports: ready.published().to_vec(),
            started: None,
        }
    }

    /// Returns its cgroups.
    pub fn folders(&self) -> Folders {
        Folders::at(self.cgroups.iter().map(|path| PathBuf::from(&path.0)))
    }

    /// Returns what the owner calls it, else its id.
    pub fn called(&self) -> &str {
        self.name.as_deref().unwrap_or(self.id.as_str())
    }

    /// Returns how long the command may take to end after it was asked to.
    pub fn stop_timeout(&self) -> Duration {
        Duration::from_millis(self.stop_timeout_ms)
    }

    /// Returns the text of the file.
    pub(super) fn to_json(&self) -> Vec<u8> {
        json(self)
    }

    /// Reads what [`Self::to_json`] wrote. Before anything else the version is looked at.
    pub(super) fn from_json(bytes: &[u8]) -> Result<Self, BadDocument> {
        versioned(bytes)
    }
}

impl Exit {
    /// Returns the text of the file, filled up with blanks, so that it takes the place of any other.
    pub(super) fn to_json(self) -> [u8; Self::LONGEST] {
        let mut text = [b' '; Self::LONGEST];
        let json = json(&self);
        let length = json.len().min(Self::LONGEST - 1);
        text[..length].copy_from_slice(&json[..length]);
        text[Self::LONGEST - 1] = b'\n';
        text
    }

    /// Reads what [`Self::to_json`] wrote.
    pub(super) fn from_json(bytes: &[u8]) -> Result<Self, BadDocument> {
        versioned(bytes)
    }
}

/// What can be said of a container whose document cannot be read as a whole: what is hardly ever written otherwise.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outline {
    /// What its owner calls it.
    pub name: Option<String>,
    /// Who holds the container's lock.
    pub monitor: Option<ProcessId>,
}

impl Outline {
    /// Reads what there is to be read.
    pub(super) fn from_json(bytes: &[u8]) -> Self {
        let Ok(whole) = serde_json::from_slice::<serde_json::Value>(bytes) else {
            return Self::default();
        };
        Self {
            name: whole["name"].as_str().map(str::to_owned),
            monitor: ProcessId::deserialize(&whole["started"]["monitor"]).ok(),
        }
    }
}

/// A file of a container's that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum BadDocument {
    /// Another mk wrote it.
    #[error("it has version {found}, this mk reads version {VERSION}")]
    Version {
        /// Which one it has.
        found: u64,
    },
    /// It is not what mk writes.
    #[error("it is not what mk writes")]
    Json(#[source] serde_json::Error),
}

fn json(value: &impl Serialize) -> Vec<u8> {
    // Neither has a map with other keys than text, and nothing of theirs fails to be written.
    let mut text = serde_json::to_vec(value).unwrap_or_default();
    text.push(b'\n');
    text
}

fn versioned<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, BadDocument> {
    #[derive(Deserialize)]
    struct Version {
        version: u64,
    }
    let Version { version } = serde_json::from_slice(bytes).map_err(BadDocument::Json)?;
    if version != u64::from(VERSION) {
        return Err(BadDocument::Version { found: version });
    }
    serde_json::from_slice(bytes).map_err(BadDocument::Json)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::spec::network::{Ports, Protocol};

    pub(in crate::container) fn document() -> Document {
        Document {
            version: VERSION,
            id: "0123456789ab".parse().unwrap(),
            name: Some("web".into()),
            image: ImageWord {
                word: "busybox".into(),
                digest: "5c3b".into(),
            },
            created: Time::of(1_700_000_000, 1),
            boot: "b00".into(),
            program: ProgramDocument {
                arguments: vec!["sh".into(), Text::of(b"\xff\xfe")],
                environment: vec!["PATH=/bin".into(), Text::of(b"X=\x80")],
                workdir: Text::of(b"/\xc0"),
                uid: 0,
                gid: 0,
                groups: Some(vec![5]),
                capabilities: u64::MAX,
                ambient: 0,
                new_privileges: false,
                filter: None,
                terminal: false,
            },
            detached: true,
            keep: true,
            as_pid1: false,
            stop_timeout_ms: 10_000,
            cgroups: Vec::new(),
            network: NetworkDocument {
                kind: "bridge".into(),
                name: Some("mk0".into()),
                addresses: vec!["192.168.10.2".parse().unwrap(), "fd00::2".parse().unwrap()],
                mac: Some("02:00:c0:a8:0a:02".parse().unwrap()),
                names: vec!["web".into()],
                leases: Some(Text::of(b"/run/mk/\xff")),
            },
            layer: LayerDocument {
                user_notes: true,
                disk: None,
                places: vec!["proc".into()],
            },
            ports: vec![Published {
                address: None,
                host: Ports {
                    first: 8080,
                    last: 8080,
                },
                inside: Ports { first: 80, last: 80 },
                protocol: Protocol::Tcp,
            }],
            started: None,
        }
    }

    #[test]
    fn a_document_comes_back_as_it_was_written() {
        let mut one = document();
        assert_eq!(Document::from_json(&one.to_json()).unwrap(), one);
        one.name = None;
        one.started = Some(Started {
            at: Time::of(1_700_000_001, 0),
            command: ProcessId {
                pid: 7,
                start: u64::MAX,
            },
            monitor: ProcessId { pid: 6, start: 99 },
            layer: Some(5),
        });
        assert_eq!(Document::from_json(&one.to_json()).unwrap(), one);
        assert_eq!(one.called(), "0123456789ab");
    }

    #[test]
    fn what_was_granted_comes_back_whole_or_not_at_all() {
        let with = |filter: Option<&str>| ProgramDocument {
            filter: filter.map(str::to_owned),
            ..document().program
        };
        let granted = with(None).granted().unwrap();
        assert_eq!((granted.keep.bits(), granted.filter), (u64::MAX, None));
        let eight = STANDARD.encode(7u64.to_ne_bytes());
        let granted = with(Some(&eight)).granted().unwrap();
        assert_eq!(granted.filter.as_deref(), Some([7].as_slice()));
        for text in ["", "AAAA", "*"] {
            assert!(with(Some(text)).granted().is_none(), "{text:?} was accepted");
        }
    }

    #[test]
    fn an_end_takes_the_room_that_was_reserved_whatever_it_says() {
        let exit = Exit {
            version: VERSION,
            at: Time::of(i64::MAX, u32::MAX),
            code: 255,
            oom_killed: false,
            lost: u64::MAX,
        };
        let text = exit.to_json();
        assert_eq!(Exit::from_json(&text).unwrap(), exit);
        assert!(Exit::from_json(&text[..20]).is_err());
    }

    #[test]
    fn of_a_document_of_another_version_there_is_an_outline() {
        let other = br#"{"version":2,"id":5,"name":"web","started":{"monitor":{"pid":7,"start":9,"new":0}}}"#;
        let outline = Outline {
            name: Some("web".into()),
            monitor: Some(ProcessId { pid: 7, start: 9 }),
        };
        assert_eq!(Outline::from_json(other), outline);
        for text in [
            "",
            "[]",
            r#"{"version":2}"#,
            r#"{"name":[],"started":{"monitor":{"pid":"7"}}}"#,
        ] {
            assert_eq!(
                Outline::from_json(text.as_bytes()),
                Outline::default(),
                "{text:?}"
            );
        }
    }

    #[test]
    fn another_version_is_told_from_damage() {
        let other = br#"{"version": 2, "id": 5}"#;
        assert!(matches!(
            Document::from_json(other),
            Err(BadDocument::Version { found: 2 })
        ));
        for text in ["", "{}", "[]", r#"{"version":1}"#, "\0\0\0"] {
            assert!(
                matches!(Document::from_json(text.as_bytes()), Err(BadDocument::Json(_))),
                "{text:?} was accepted"
            );
        }
    }
}
