//! [`Privileges`]: what the command may do: its capabilities, the system calls it may make, and whether a program that
//! it executes may do more. [`Granted`] is what of that the caller can give.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::path::shown;
use crate::seccomp::{self, Arch, Filter};
use crate::sys::process::CapabilitySet;

/// What a container's root may do: Docker's list, less the making of device nodes.
pub const USUAL: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::SYS_CHROOT)
    .union(CapabilitySet::AUDIT_WRITE)
    .union(CapabilitySet::SETFCAP);

/// What mk needs besides to make a container: to mount, and to set up its loopback.
const NESTING: CapabilitySet = CapabilitySet::SYS_ADMIN.union(CapabilitySet::NET_ADMIN);

/// Whatever capabilities there are, those included that this program has no name for.
const EVERY: CapabilitySet = CapabilitySet::from_bits_retain(u64::MAX);

/// A capability, or all of them, as asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Capability {
    /// This one.
    One(CapabilitySet),
    /// `ALL`.
    All,
}

/// A text that names no capability.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a capability: {}", expected(*.meant))]
pub struct BadCapability {
    /// As written.
    pub text: String,
    /// The one that was most likely meant.
    pub meant: Option<&'static str>,
}

fn expected(meant: Option<&'static str>) -> String {
    match meant {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => "expected a name of capabilities(7), such as `NET_ADMIN`, or `ALL`".into(),
    }
}

impl Capability {
    /// Reads a name of capabilities(7), with or without `CAP_`, in small or capital letters, or `ALL`.
    pub fn parse(text: &str) -> Result<Self, BadCapability> {
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
        if upper == "ALL" {
            return Ok(Self::All);
        }
        if let Some(one) = CapabilitySet::from_name(name) {
            return Ok(Self::One(one));
        }
        let near = names(CapabilitySet::all())
            .map(|known| (strsim::damerau_levenshtein(known, name), known))
            .min()
            .filter(|(slips, known)| *slips <= 2.min(known.len() / 3));
        Err(BadCapability {
            text: shown(text.as_bytes()),
            meant: near.map(|(_, known)| known),
        })
    }
}

impl FromStr for Capability {
    type Err = BadCapability;

    fn from_str(text: &str) -> Result<Self, BadCapability> {
        Self::parse(text)
    }
}

/// The names of a set, in the order of their numbers.
fn names(set: CapabilitySet) -> impl Iterator<Item = &'static str> {
    set.iter_names().map(|(name, _)| name)
}

/// Which system calls the command may make.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Seccomp {
    /// Those of the default profile, as the capabilities switch it.
    #[default]
    Usual,
    /// All.
    Unconfined,
    /// Those of a profile in Docker's JSON format.
    File(PathBuf),
}

/// What was asked for.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    /// Capabilities to have besides the usual.
    pub add: Vec<Capability>,
    /// Capabilities not to have.
    pub drop: Vec<Capability>,
    /// Whether to have all that the caller has, with nothing of `/proc` and `/sys` hidden or read-only.
    pub privileged: bool,
    /// Whether it may make containers of its own; `None`: as the image says.
    pub nesting: Option<bool>,
    /// Whether a program may give more privileges than whoever executes it has: set-user-id bits and file capabilities.
    pub new_privileges: bool,
    /// Which system calls.
    pub seccomp: Option<Seccomp>,
}

/// What the command may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Privileges {
    /// What root has, and nobody can have more than.
    keep: CapabilitySet,
    /// What was asked for by name, and is what a user other than root has.
    named: CapabilitySet,
    /// Whether `ALL` was asked for: a user other than root then has all that root has.
    all: bool,
    /// Whether nothing of `/proc` and `/sys` is hidden or read-only.
    pub open_views: bool,
    /// Whether set-user-id bits and file capabilities have an effect.
    pub new_privileges: bool,
    /// Which system calls.
    pub seccomp: Seccomp,
}

/// Privileges that cannot be given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// One capability, added and dropped.
    #[error("`{name}` is to be added and to be dropped")]
    AddedAndDropped {
        /// Its name, or `ALL`.
        name: &'static str,
    },
    /// A capability that the caller does not have.
    #[error("`{name}` cannot be added: whoever called mk does not have it")]
    NotHeld {
        /// Its name.
        name: &'static str,
    },
}

impl Privileges {
    /// Returns what `asked` comes to.
    pub fn new(asked: Asked) -> Result<Self, Error> {
        let (add, add_all) = sum(&asked.add);
        let (drop, drop_all) = sum(&asked.drop);
        if add_all && drop_all {
            return Err(Error::AddedAndDropped { name: "ALL" });
        }
        if let Some(name) = names(add & drop).next() {
            return Err(Error::AddedAndDropped { name });
        }
        let nesting = asked.nesting.unwrap_or_default();
        let base = match () {
            () if drop_all => CapabilitySet::empty(),
            () if add_all || asked.privileged => EVERY,
            () if nesting => USUAL | NESTING,
            () => USUAL,
        };
        let seccomp = asked.seccomp.unwrap_or(match asked.privileged {
            true => Seccomp::Unconfined,
            false => Seccomp::Usual,
        });
        Ok(Self {
            keep: base.difference(drop) | add,
            named: add,
            all: add_all,
            // In a user namespace of its own, only who sees a whole `/proc` may mount another (mount_too_revealing() of
            // Linux).
            open_views: asked.privileged || nesting,
            new_privileges: asked.new_privileges,
            seccomp,
        })
    }

    /// Whether it depends on the caller's capabilities what can be given: [`Self::grant`] looks at them then only.
    pub fn is_more_than_usual(&self) -> bool {
        !USUAL.contains(self.keep)
    }

    /// Returns what a command of the user `uid` gets from a caller that has `held`. What was asked for by name must be
    /// among that; of `ALL`, the rest is left out. The filter of a profile in a file is for the caller to add.
    pub fn grant(&self, uid: u32, held: CapabilitySet) -> Result<Granted, Error> {
        if let Some(name) = names(self.named.difference(held)).next() {
            return Err(Error::NotHeld { name });
        }
        let keep = self.keep & held;
        let ambient = match (uid, self.all) {
            (0, _) => CapabilitySet::empty(),
            (_, true) => keep,
            (_, false) => self.named,
        };
        Ok(Granted {
            keep,
            ambient,
            new_privileges: self.new_privileges,
            filter: match self.seccomp {
                Seccomp::Usual => Some(seccomp::usual(Arch::HERE, keep.bits())),
                Seccomp::Unconfined | Seccomp::File(_) => None,
            },
        })
    }
}

fn sum(capabilities: &[Capability]) -> (CapabilitySet, bool) {
    let ones = capabilities.iter().filter_map(|capability| match capability {
        Capability::One(one) => Some(*one),
        Capability::All => None,
    });
    (ones.collect(), capabilities.contains(&Capability::All))
}

/// What a command is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Granted {
    /// What root has, and nobody can have more than: the bounding set.
    pub keep: CapabilitySet,
    /// What a user other than root has, and passes on to each program: the ambient set.
    pub ambient: CapabilitySet,
    /// Whether set-user-id bits and file capabilities have an effect.
    pub new_privileges: bool,
    /// Which system calls it may make; `None`: all.
    pub filter: Option<Filter>,
}

impl Granted {
    /// Returns what a process of the user `uid` may do.
    pub fn of(&self, uid: u32) -> CapabilitySet {
        match uid {
            0 => self.keep,
            _ => self.ambient,
        }
    }
}

/// A set of capabilities in words: their names, or `none`.
#[derive(Debug, Clone, Copy)]
pub struct Words(pub CapabilitySet);

impl fmt::Display for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words: Vec<String> = names(self.0).map(str::to_owned).collect();
        let nameless = self.0.bits() & !CapabilitySet::all().bits();
        words.extend(
            (0..64)
                .filter(|bit| nameless & (1 << bit) != 0)
                .map(|bit| bit.to_string()),
        );
        match words.is_empty() {
            true => f.write_str("none"),
            false => f.write_str(&words.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn privileges(add: &[&str], drop: &[&str], privileged: bool) -> Result<Privileges, Error> {
        let read = |texts: &[&str]| {
            texts
                .iter()
                .map(|text| Capability::parse(text).unwrap())
                .collect()
        };
        Privileges::new(Asked {
            add: read(add),
            drop: read(drop),
            privileged,
            ..Asked::default()
        })
    }

    fn granted(add: &[&str], drop: &[&str], uid: u32) -> String {
        let privileges = privileges(add, drop, false).unwrap();
        Words(privileges.grant(uid, CapabilitySet::all()).unwrap().of(uid)).to_string()
    }

    #[test]
    fn a_container_s_root_can_neither_mount_nor_make_nodes() {
        let more = CapabilitySet::SYS_ADMIN | CapabilitySet::MKNOD | CapabilitySet::SYS_PTRACE;
        assert!(!USUAL.intersects(more));
        assert_eq!(USUAL.bits().count_ones(), 13);
        assert!(!privileges(&[], &[], false).unwrap().is_more_than_usual());
        assert!(!privileges(&[], &["ALL"], false).unwrap().is_more_than_usual());
        assert!(
            privileges(&["SYS_TIME"], &[], false)
                .unwrap()
                .is_more_than_usual()
        );
        assert!(privileges(&[], &[], true).unwrap().is_more_than_usual());
    }

    #[test]
    fn what_makes_containers_has_two_more_and_nobody_else_inside_has_any() {
        let asked = |drop: &[&str], nesting| Asked {
            drop: drop.iter().map(|text| Capability::parse(text).unwrap()).collect(),
            nesting,
            ..Asked::default()
        };
        let given = |drop, uid| {
            let privileges = Privileges::new(asked(drop, Some(true))).unwrap();
            privileges.grant(uid, CapabilitySet::all()).unwrap()
        };
        assert_eq!(
            given(&[], 0).keep,
            USUAL | CapabilitySet::SYS_ADMIN | CapabilitySet::NET_ADMIN
        );
        assert_eq!(given(&[], 1000).of(1000), CapabilitySet::empty());
        assert_eq!(given(&["ALL"], 0).keep, CapabilitySet::empty());
        assert!(given(&[], 0).filter.is_some());
        for nesting in [None, Some(false)] {
            let usual = Privileges::new(asked(&[], nesting)).unwrap();
            assert_eq!((usual.keep, usual.open_views), (USUAL, false));
        }
    }

    #[test]
    fn names_are_read_as_people_write_them() {
        let one = Ok(Capability::One(CapabilitySet::NET_ADMIN));
        for text in [
            "NET_ADMIN",
            "CAP_NET_ADMIN",
            "net_admin",
            "cap_net_admin",
            "Cap_Net_Admin",
        ] {
            assert_eq!(Capability::parse(text), one, "{text}");
        }
        assert_eq!(Capability::parse("all"), Ok(Capability::All));
        for (text, meant) in [
            ("NET_ADMN", Some("NET_ADMIN")),
            ("CAP_SYS_PTRAC", Some("SYS_PTRACE")),
            ("", None),
            ("CAP_", None),
            ("CAP_ALL", None),
            ("0", None),
            ("frobnicate", None),
            ("SYS_ADMIN,MKNOD", None),
            ("SYS_ADMIN|MKNOD", None),
            ("\u{202e}KILL", Some("KILL")),
        ] {
            assert_eq!(Capability::parse(text).unwrap_err().meant, meant, "{text:?}");
        }
    }

    #[test]
    fn capabilities_are_added_to_and_dropped_from_the_usual() {
        assert_eq!(granted(&[], &["ALL"], 0), "none");
        assert_eq!(granted(&["SYS_TIME"], &["ALL"], 0), "SYS_TIME");
        let most = granted(&["ALL"], &["SYS_ADMIN"], 0);
        assert!(most.contains("SYS_TIME") && !most.contains("SYS_ADMIN"), "{most}");
        let usual = granted(&["SYS_TIME"], &["CHOWN"], 0);
        assert!(
            usual.starts_with("DAC_OVERRIDE, FOWNER") && usual.ends_with("AUDIT_WRITE, SETFCAP"),
            "{usual}"
        );
        assert_eq!(
            privileges(&["KILL"], &["KILL"], false),
            Err(Error::AddedAndDropped { name: "KILL" })
        );
        assert_eq!(
            privileges(&["ALL"], &["ALL"], false),
            Err(Error::AddedAndDropped { name: "ALL" })
        );
    }

    #[test]
    fn another_user_than_root_has_what_was_named_and_nothing_else() {
        assert_eq!(granted(&[], &[], 1000), "none");
        assert_eq!(granted(&["NET_RAW"], &[], 1000), "NET_RAW");
        assert!(granted(&["ALL"], &["SYS_ADMIN"], 1000).contains("SYS_PTRACE"));
        let privileged = privileges(&[], &[], true).unwrap();
        let granted = privileged.grant(1000, CapabilitySet::all()).unwrap();
        assert_eq!(granted.of(1000), CapabilitySet::empty());
    }

    #[test]
    fn nobody_is_given_what_the_caller_has_not() {
        let held = USUAL.difference(CapabilitySet::AUDIT_WRITE);
        let named = privileges(&["SYS_TIME"], &[], false).unwrap();
        assert_eq!(named.grant(0, held), Err(Error::NotHeld { name: "SYS_TIME" }));
        for all in [privileges(&["ALL"], &[], false), privileges(&[], &[], true)] {
            assert_eq!(all.unwrap().grant(0, held).unwrap().keep, held);
        }
    }

    #[test]
    fn privileged_means_no_filter_unless_one_is_named() {
        let seccomp = |privileged, seccomp| {
            Privileges::new(Asked {
                privileged,
                seccomp,
                ..Asked::default()
            })
            .unwrap()
            .seccomp
        };
        assert_eq!(seccomp(false, None), Seccomp::Usual);
        assert_eq!(seccomp(true, None), Seccomp::Unconfined);
        let file = Seccomp::File("/p.json".into());
        assert_eq!(seccomp(true, Some(file.clone())), file);
    }
}
