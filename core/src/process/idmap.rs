//! Who is root inside: what ids this process may use, decided from what the system says, and made so.
//!
//! mk is always root of some user namespace. With uid 0, `CAP_SYS_ADMIN` and all ids it is so already; anyone else
//! moves into a namespace of their own first, with subordinate ids where the system grants them (subuid(5)), with one
//! id where not.

use std::ffi::{CString, OsStr};
use std::path::{Path, PathBuf};

use crate::sys::process::{self, CStrings, CapabilitySet, Ending};
use crate::sys::{Errno, SysError, namespace};

/// How ids are mapped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdMap {
    /// As they are: this process is root already.
    Native,
    /// Root is the caller; the ids above are those that the system grants the caller.
    Subordinate {
        /// The caller's user id, which becomes 0.
        uid: u32,
        /// The caller's group id, which becomes 0.
        gid: u32,
        /// The user ids that become 1 and up.
        uids: Vec<Range>,
        /// The group ids that become 1 and up.
        gids: Vec<Range>,
        /// The programs that write such maps: `newuidmap`, `newgidmap`.
        helpers: (PathBuf, PathBuf),
    },
    /// Root is the caller, and there is nobody else.
    Single {
        /// The caller's user id, which becomes 0.
        uid: u32,
        /// The caller's group id, which becomes 0.
        gid: u32,
    },
}

/// Consecutive ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// The first one.
    pub first: u32,
    /// How many.
    pub count: u32,
}

/// What [`decide`] looks at.
#[derive(Debug, Clone, Default)]
pub struct Caller {
    /// Effective user id.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
    /// Whether it has `CAP_SYS_ADMIN`.
    pub admin: bool,
    /// Whether its user namespace has enough ids; `unshare -r` makes one that has not.
    pub many_ids: bool,
    /// Its name, where the system knows one.
    pub name: Option<String>,
    /// What `/etc/subuid` says.
    pub subuid: String,
    /// What `/etc/subgid` says.
    pub subgid: String,
    /// `newuidmap` and `newgidmap`, where both are installed.
    pub helpers: Option<(PathBuf, PathBuf)>,
}

/// Fewer ids than these, and the files of a usual image would have owners that do not exist.
const ENOUGH: u64 = 65535;

/// Decides how ids are mapped. Pure.
pub fn decide(caller: &Caller) -> IdMap {
    let (uid, gid) = (caller.uid, caller.gid);
    if uid == 0 && caller.admin && caller.many_ids {
        return IdMap::Native;
    }
    match &caller.helpers {
        Some(helpers) if caller.has_enough_granted() => IdMap::Subordinate {
            uid,
            gid,
            uids: caller.granted_uids(),
            gids: caller.granted_gids(),
            helpers: helpers.clone(),
        },
        _ => IdMap::Single { uid, gid },
    }
}

/// Which ids there are in the user namespace that a process is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ids {
    /// All, each the same as outside: the machine's first namespace, or as good as that.
    All,
    /// A range that is enough for the files of a usual image.
    Enough,
    /// Fewer: most owners in an image do not exist.
    Few,
}

/// Returns which ids there are where this process is: root of somebody's container has a range, root of a namespace
/// that an ordinary user made often only itself.
pub fn own_ids() -> Ids {
    let text = |path: &str| fs_err::read_to_string(path).unwrap_or_default();
    let (uids, gids) = (
        ids_of(&text("/proc/self/uid_map")),
        ids_of(&text("/proc/self/gid_map")),
    );
    if uids == gids || uids == Ids::Few {
        uids
    } else if gids == Ids::Few {
        gids
    } else {
        Ids::Enough
    }
}

/// Reads a map: lines of first id inside, first id outside and count (user_namespaces(7)).
fn ids_of(map: &str) -> Ids {
    let lines = map.lines().map(|line| {
        let mut numbers = line.split_ascii_whitespace().map(|word| word.parse::<u64>().ok());
        let mut next = || numbers.next().flatten().unwrap_or_default();
        (next(), next(), next())
    });
    let lines: Vec<(u64, u64, u64)> = lines.collect();
    if lines == [(0, 0, u64::from(u32::MAX))] {
        Ids::All
    } else if lines.iter().map(|(_, _, count)| count).sum::<u64>() >= ENOUGH {
        Ids::Enough
    } else {
        Ids::Few
    }
}

fn total(ranges: &[Range]) -> u64 {
    ranges.iter().map(|range| u64::from(range.count)).sum()
}

/// Returns what subuid(5) grants the user; lines that are none are passed over.
fn granted(text: &str, uid: u32, name: Option<&str>) -> Vec<Range> {
    let mine = |owner: &str| Some(owner) == name || owner.parse() == Ok(uid);
    text.lines()
        .filter_map(|line| {
            let mut fields = line.trim().split(':');
            let (owner, first, count) = (fields.next()?, fields.next()?, fields.next()?);
            let range = Range {
                first: first.parse().ok()?,
                count: count.parse().ok().filter(|count| *count > 0)?,
            };
            let fits = range.first.checked_add(range.count).is_some();
            (mine(owner) && fits && fields.next().is_none()).then_some(range)
        })
        .collect()
}

impl Caller {
    /// Returns the user ids that `/etc/subuid` grants.
    pub fn granted_uids(&self) -> Vec<Range> {
        granted(&self.subuid, self.uid, self.name.as_deref())
    }

    /// Returns the group ids that `/etc/subgid` grants.
    pub fn granted_gids(&self) -> Vec<Range> {
        granted(&self.subgid, self.uid, self.name.as_deref())
    }

    /// Whether that is enough for the files of a usual image.
    pub fn has_enough_granted(&self) -> bool {
        total(&self.granted_uids()) >= ENOUGH && total(&self.granted_gids()) >= ENOUGH
    }

    /// Looks at this process and at the system's files.
    pub fn look() -> Result<Self, SysError> {
        let (uid, gid) = process::own_ids();
        let admin = process::own_capabilities()?.contains(CapabilitySet::SYS_ADMIN);
        let many_ids = Mapped::look()?.has_many();
        if uid == 0 && admin && many_ids {
            return Ok(Self {
                admin,
                many_ids,
                ..Self::default()
            });
        }
        let text = |path: &str| fs_err::read_to_string(path).unwrap_or_default();
        let helper = |name: &str| {
            let folders = [
                "/usr/bin",
                "/bin",
                "/usr/sbin",
                "/usr/local/bin",
                "/run/wrappers/bin",
            ];
            folders
                .iter()
                .map(|folder| Path::new(folder).join(name))
                .find(|path| path.exists())
        };
        Ok(Self {
            uid,
            gid,
            admin,
            many_ids,
            name: name_of(uid, &text("/etc/passwd")),
            subuid: text("/etc/subuid"),
            subgid: text("/etc/subgid"),
            helpers: helper("newuidmap").zip(helper("newgidmap")),
        })
    }
}

fn name_of(uid: u32, passwd: &str) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let found = fields.nth(1)?.parse() == Ok(uid);
        found.then(|| name.to_owned())
    })
}

/// Why nobody here can become root of a user namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// `kernel.unprivileged_userns_clone` is 0 (Debian's and Arch's kernels).
    CloneForbidden,
    /// `user.max_user_namespaces` is 0.
    NoneAllowed,
    /// There are as many as `user.max_user_namespaces`, or 32 inside each other.
    TooMany,
    /// `kernel.apparmor_restrict_unprivileged_userns` is 1 (Ubuntu), and no profile lets mk.
    AppArmor,
    /// The kernel was built without them.
    NotBuilt,
    /// Something else: a seccomp filter, a chroot, a security module.
    Unknown,
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::CloneForbidden => "the sysctl `kernel.unprivileged_userns_clone` is 0",
            Self::NoneAllowed => "the sysctl `user.max_user_namespaces` is 0",
            Self::TooMany => "there are too many user namespaces already, or too many inside each other",
            Self::AppArmor => {
                "AppArmor forbids it (the sysctl `kernel.apparmor_restrict_unprivileged_userns` is 1)"
            }
            Self::NotBuilt => "this kernel was built without user namespaces",
            Self::Unknown => "a seccomp filter, a chroot or a security module may forbid it",
        })
    }
}

/// Why this process is not root of a user namespace.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system does not let this user have one.
    #[error("cannot make a user namespace: {reason}")]
    Forbidden {
        /// Why, as far as it can be told.
        reason: Reason,
        /// The call that was refused.
        #[source]
        failed: SysError,
    },
    /// A helper did not write its map.
    #[error("`{}` did not map the ids that `{file}` grants: {}", .helper.display(), how(.ending))]
    Helper {
        /// The program.
        helper: PathBuf,
        /// Where the ids are granted.
        file: &'static str,
        /// How it ended; it has said why on standard error.
        ending: Ending,
    },
    /// A call failed that usually does not.
    #[error("cannot become root of a user namespace")]
    Sys(#[from] SysError),
}

fn how(ending: &Ending) -> String {
    match ending {
        Ending::Code(code) => format!("it exited with {code}"),
        Ending::Signal(number) => format!("signal {number} ended it"),
    }
}

/// Tells why the call was refused, from what the system's settings say. `setting` reads one below `/proc/sys`.
pub fn reason(errno: Errno, setting: impl Fn(&str) -> Option<String>) -> Reason {
    let is = |name: &str, value: &str| setting(name).is_some_and(|text| text.trim() == value);
    match errno {
        _ if is("kernel/unprivileged_userns_clone", "0") => Reason::CloneForbidden,
        _ if is("user/max_user_namespaces", "0") => Reason::NoneAllowed,
        Errno::NOSPC | Errno::USERS => Reason::TooMany,
        Errno::PERM | Errno::ACCESS if is("kernel/apparmor_restrict_unprivileged_userns", "1") => {
            Reason::AppArmor
        }
        Errno::INVAL | Errno::NOSYS if setting("user/max_user_namespaces").is_none() => Reason::NotBuilt,
        _ => Reason::Unknown,
    }
}

fn forbidden(failed: SysError) -> Error {
    let setting = |name: &str| fs_err::read_to_string(Path::new("/proc/sys").join(name)).ok();
    Error::Forbidden {
        reason: reason(failed.errno, setting),
        failed,
    }
}

/// Makes this process, which must have one thread, root as `map` says.
pub fn become_root(map: &IdMap) -> Result<(), Error> {
    match map {
        IdMap::Native => Ok(()),
        IdMap::Single { uid, gid } => {
            namespace::own_user_namespace().map_err(forbidden)?;
            // Without it, giving up a group that denies something would be a way around the denial.
            namespace::write_own("setgroups", "deny").map_err(forbidden)?;
            namespace::write_own("uid_map", &format!("0 {uid} 1")).map_err(forbidden)?;
            namespace::write_own("gid_map", &format!("0 {gid} 1")).map_err(forbidden)
        }
        IdMap::Subordinate {
            uid,
            gid,
            uids,
            gids,
            helpers,
        } => {
            // They must stay outside, so they are there before we go; they cost milliseconds, so both run at once.
            let for_users = Helper::start(&helpers.0, "/etc/subuid", *uid, uids)?;
            let for_groups = Helper::start(&helpers.1, "/etc/subgid", *gid, gids)?;
            namespace::own_user_namespace().map_err(forbidden)?;
            let users = for_users.go();
            let groups = for_groups.go();
            users?.finish()?;
            groups?.finish()?;
            // Until now this process had no name in here; the kernel kept its ids, which are 0 now.
            Ok(())
        }
    }
}

/// Makes this process, which must have one thread, root of the user namespace of the process behind `handle`: one that
/// another mk of the same caller has made.
pub fn join(handle: std::os::fd::BorrowedFd<'_>) -> Result<(), SysError> {
    // Whoever made it is root there (`0 <uid> 1`), and that is the caller; and who owns it has all privileges in it.
    namespace::join(handle, namespace::Namespaces::USER)
}

/// A program that writes one map of ours, waiting until there is a namespace to write it for.
struct Helper {
    program: PathBuf,
    file: &'static str,
    handle: std::os::fd::OwnedFd,
    start: Option<std::os::fd::OwnedFd>,
}

impl Helper {
    fn start(program: &Path, file: &'static str, own: u32, ranges: &[Range]) -> Result<Self, SysError> {
        let path = c_string(program.as_os_str());
        let arguments = arguments(program, own, ranges);
        let nothing = CStrings::new(Vec::new());
        let (waits, start) = process::pipe()?;
        match namespace::clone(namespace::Namespaces::NOTHING)? {
            namespace::Side::Parent { handle, .. } => Ok(Self {
                program: program.to_owned(),
                file,
                handle,
                start: Some(start),
            }),
            namespace::Side::Child => {
                let mut word = [0; 1];
                // No word, only the end: whoever we wait for is gone.
                drop(start);
                if process::read(&waits, &mut word) == Ok(1) {
                    process::exec(&path, &arguments, &nothing);
                }
                process::exit_now(super::exit::NOT_FOUND.into())
            }
        }
    }

    fn go(mut self) -> Result<Self, SysError> {
        if let Some(start) = self.start.take() {
            process::write(&start, b"1")?;
        }
        Ok(self)
    }

    fn finish(self) -> Result<(), Error> {
        use std::os::fd::AsFd;
        match process::wait(self.handle.as_fd())? {
            Ending::Code(0) => Ok(()),
            ending => Err(Error::Helper {
                helper: self.program,
                file: self.file,
                ending,
            }),
        }
    }
}

/// `newuidmap PID 0 OWN 1 1 FIRST COUNT …`
fn arguments(program: &Path, own: u32, ranges: &[Range]) -> CStrings {
    let pid = std::process::id();
    let mut words = vec![pid, 0, own, 1];
    let mut next = 1;
    for range in ranges {
        words.extend([next, range.first, range.count]);
        next = next.saturating_add(range.count);
    }
    let mut texts = vec![c_string(program.as_os_str())];
    texts.extend(words.iter().map(|word| c_string(OsStr::new(&word.to_string()))));
    CStrings::new(texts)
}

fn c_string(text: &OsStr) -> CString {
    process::c_string(text).unwrap_or_default()
}

/// Which ids the current user namespace has names for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapped {
    /// Whether this is the machine's first user namespace, in which every id is its own name.
    pub first: bool,
    uids: Vec<Range>,
    gids: Vec<Range>,
}

impl Mapped {
    /// Returns those of a container that has ids of its own: 0 and up.
    pub fn own(count: u32) -> Self {
        let all = Range { first: 0, count };
        Self {
            first: false,
            uids: vec![all],
            gids: vec![all],
        }
    }

    /// Looks at this process.
    pub fn look() -> Result<Self, SysError> {
        if namespace::is_first_user_namespace()? {
            return Ok(Self {
                first: true,
                uids: Vec::new(),
                gids: Vec::new(),
            });
        }
        let ranges = |path| inside(&fs_err::read_to_string(path).unwrap_or_default());
        Ok(Self {
            first: false,
            uids: ranges("/proc/self/uid_map"),
            gids: ranges("/proc/self/gid_map"),
        })
    }

    /// Looks at the user namespace of the process `pid`, which this one must be allowed to look into.
    pub fn of(pid: i32) -> Result<Self, SysError> {
        if namespace::is_in_first_user_namespace(pid)? {
            return Ok(Self {
                first: true,
                uids: Vec::new(),
                gids: Vec::new(),
            });
        }
        let ranges = |file| {
            let path = format!("/proc/{pid}/{file}");
            inside(&fs_err::read_to_string(path).unwrap_or_default())
        };
        Ok(Self {
            first: false,
            uids: ranges("uid_map"),
            gids: ranges("gid_map"),
        })
    }

    /// Whether there is such a user.
    pub fn has_uid(&self, uid: u32) -> bool {
        self.first || has(&self.uids, uid)
    }

    /// Whether there is such a group.
    pub fn has_gid(&self, gid: u32) -> bool {
        self.first || has(&self.gids, gid)
    }

    /// Whether the files of a usual image can have their owners.
    fn has_many(&self) -> bool {
        self.first || (total(&self.uids) > ENOUGH && total(&self.gids) > ENOUGH)
    }

    /// Whether groups can be set: with one group there is no other to choose, and it may be denied (setgroups in
    /// user_namespaces(7)).
    pub fn has_groups(&self) -> bool {
        self.first || total(&self.gids) > 1
    }
}

fn has(ranges: &[Range], id: u32) -> bool {
    ranges
        .iter()
        .any(|range| id >= range.first && id - range.first < range.count)
}

/// Reads the inner side of `/proc/self/uid_map`.
fn inside(text: &str) -> Vec<Range> {
    let ranges = text.lines().filter_map(|line| {
        let mut numbers = line.split_whitespace().map(str::parse);
        let (first, _, count) = (
            numbers.next()?.ok()?,
            numbers.next()?.ok()?,
            numbers.next()?.ok()?,
        );
        Some(Range { first, count })
    });
    ranges.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(uid: u32, subids: &str) -> Caller {
        Caller {
            uid,
            gid: uid,
            name: Some("ann".into()),
            subuid: subids.into(),
            subgid: subids.into(),
            helpers: Some(("/usr/bin/newuidmap".into(), "/usr/bin/newgidmap".into())),
            ..Caller::default()
        }
    }

    fn ranges(subids: &str) -> Option<Vec<Range>> {
        match decide(&caller(1000, subids)) {
            IdMap::Subordinate { uids, .. } => Some(uids),
            _ => None,
        }
    }

    #[test]
    fn a_map_tells_how_many_ids_there_are() {
        for (map, ids) in [
            ("         0          0 4294967295\n", Ids::All),
            ("0 100000 65536\n", Ids::Enough),
            ("0 1000 1\n1 100000 65536\n", Ids::Enough),
            ("0 1000 1\n", Ids::Few),
            ("", Ids::Few),
        ] {
            assert_eq!(ids_of(map), ids, "{map:?}");
        }
    }

    #[test]
    fn root_with_power_over_the_machine_stays_as_it_is() {
        let mut root = caller(0, "");
        (root.admin, root.many_ids) = (true, true);
        assert_eq!(decide(&root), IdMap::Native);
        // `unshare -r`: root of a namespace with one id.
        root.many_ids = false;
        assert_eq!(decide(&root), IdMap::Single { uid: 0, gid: 0 });
        (root.admin, root.many_ids) = (false, true);
        assert_eq!(decide(&root), IdMap::Single { uid: 0, gid: 0 });
    }

    #[test]
    fn subordinate_ids_are_granted_by_name_or_by_number() {
        let range = |first, count| Range { first, count };
        assert_eq!(
            ranges("bob:1:9\nann:100000:65536\n"),
            Some(vec![range(100_000, 65536)])
        );
        assert_eq!(ranges("1000:100000:65536"), Some(vec![range(100_000, 65536)]));
        assert_eq!(
            ranges("ann:100000:65000\nann:300000:1000"),
            Some(vec![range(100_000, 65000), range(300_000, 1000)])
        );
    }

    #[test]
    fn too_few_ids_or_no_helpers_leave_one_id() {
        for subids in [
            "",
            "ann:100000:1000",
            "bob:100000:65536",
            "ann:x:65536",
            "ann:4294967000:65536",
            "ann:1:2:3",
        ] {
            assert_eq!(ranges(subids), None, "{subids:?}");
        }
        let mut bare = caller(1000, "ann:100000:65536");
        bare.helpers = None;
        assert_eq!(decide(&bare), IdMap::Single { uid: 1000, gid: 1000 });
    }

    #[test]
    fn the_helper_maps_root_to_the_caller_and_the_rest_above() {
        let range = |first, count| Range { first, count };
        let words = arguments(Path::new("/bin/n"), 1000, &[range(5000, 10), range(7000, 20)]);
        let words: Vec<_> = words
            .iter()
            .map(|word| word.to_str().unwrap().to_owned())
            .collect();
        assert_eq!(
            words[2..],
            ["0", "1000", "1", "1", "5000", "10", "11", "7000", "20"]
        );
    }

    #[test]
    fn a_refusal_is_explained_by_the_settings() {
        let with = |errno, name: &'static str, value: &'static str| {
            reason(errno, move |asked| (asked == name).then(|| format!("{value}\n")))
        };
        let cases = [
            (
                Errno::PERM,
                "kernel/unprivileged_userns_clone",
                "0",
                Reason::CloneForbidden,
            ),
            (Errno::NOSPC, "user/max_user_namespaces", "0", Reason::NoneAllowed),
            (Errno::NOSPC, "user/max_user_namespaces", "100", Reason::TooMany),
            (
                Errno::PERM,
                "kernel/apparmor_restrict_unprivileged_userns",
                "1",
                Reason::AppArmor,
            ),
            (Errno::PERM, "user/max_user_namespaces", "100", Reason::Unknown),
            (Errno::INVAL, "kernel/something", "1", Reason::NotBuilt),
        ];
        for (errno, name, value, expected) in cases {
            assert_eq!(with(errno, name, value), expected, "{name}={value}");
        }
    }

    #[test]
    fn a_map_tells_which_ids_exist() {
        let mapped = Mapped {
            first: false,
            uids: inside("         0       1000          1\n         1     100000      65536\n"),
            gids: inside("         0       1000          1\n"),
        };
        assert!(mapped.has_uid(0) && mapped.has_uid(65536) && !mapped.has_uid(65537));
        assert!(mapped.has_gid(0) && !mapped.has_gid(5) && !mapped.has_groups());
    }
}
