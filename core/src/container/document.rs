//! [`Document`] and [`Exit`]: what is known of a container, as the JSON files in its folder. Pure.
//!
//! A document is written twice: before the container is made, and once its command runs. All that a process needs to
//! join the container is in it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::name::Id;
use super::text::Text;
use super::time::Time;

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
    /// The control groups that were made for it, on the host, as absolute paths; the deepest last.
    pub cgroups: Vec<Text>,
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
    /// What root inside may do, as the kernel's bits (capabilities(7)).
    pub capabilities: u64,
    /// Whether no program can give more privileges than that.
    pub no_new_privileges: bool,
    /// The system calls that it may make.
    pub seccomp: Seccomp,
    /// Whether it has a terminal of the container's own.
    pub terminal: bool,
}

/// Which system calls a command may make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Seccomp {
    /// Those of the filter that is built into mk.
    BuiltIn,
    /// All.
    Unconfined,
    /// Those of this filter: the kernel's own form, base64 (`struct sock_filter`, eight bytes each).
    Filter(String),
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

impl Document {
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
                no_new_privileges: true,
                seccomp: Seccomp::BuiltIn,
                terminal: false,
            },
            detached: true,
            keep: true,
            as_pid1: false,
            stop_timeout_ms: 10_000,
            cgroups: Vec::new(),
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
        });
        one.program.seccomp = Seccomp::Filter("AAAA".into());
        assert_eq!(Document::from_json(&one.to_json()).unwrap(), one);
        assert_eq!(one.called(), "0123456789ab");
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
