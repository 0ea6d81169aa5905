//! What a run does, tried in a process that then ends: nothing of it is seen by anyone else, and nothing stays.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::process::idmap::{self, IdMap};
use crate::sys::mount::{self, Attr, NewFs};
use crate::sys::namespace::{self, Namespaces, Side};
use crate::sys::probe::{self, Known};
use crate::sys::signal::{self, Signal};
use crate::sys::{Errno, SysError, file, place, process};

/// One thing that is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attempt {
    /// A call that mk needs.
    Call(Known),
    /// To be root of a user namespace, as `mk run` is.
    Root,
    /// A user namespace inside the machine's first one, for root.
    UserNamespace,
    /// One of the namespaces of a run.
    Namespace(Namespaces),
    /// A time namespace.
    TimeNamespace,
    /// A tmpfs.
    Tmpfs,
    /// `user.*` attributes on a tmpfs.
    TmpfsAttributes,
    /// An overlay of a tmpfs over the folder of the store.
    Overlay,
    /// A read-only copy of a mount with all below it.
    ReadOnlyBind,
    /// A `/proc` of one's own.
    Proc,
    /// A `/sys` of one's own.
    Sysfs,
    /// Terminals of one's own.
    Terminals,
    /// Message queues of one's own.
    Queues,
    /// A device of the host, bound: its index in [`crate::mounts::NODES`].
    Device(usize),
    /// `/dev/net/tun`, opened.
    Tun,
}

/// What came of the attempts. One that is not in it was not reached.
#[derive(Debug, Clone, Default)]
pub struct Tried {
    results: BTreeMap<u8, Result<(), SysError>>,
    /// What the programs that map ids said.
    pub said: String,
    /// Whether it took so long that it was given up.
    pub stuck: bool,
}

/// How long all attempts together may take: only a store on a server that does not answer needs more.
const PATIENCE: Duration = Duration::from_secs(10);

/// The namespaces of a run, one by one.
pub const NAMESPACES: [Namespaces; 6] = [
    Namespaces::MOUNT,
    Namespaces::UTS,
    Namespaces::IPC,
    Namespaces::PID,
    Namespaces::CGROUP,
    Namespaces::NET,
];

impl Attempt {
    /// Every attempt, in the order in which they are made.
    pub fn all() -> impl Iterator<Item = Self> {
        let calls = Known::ALL.into_iter().map(Self::Call);
        let namespaces = NAMESPACES.into_iter().map(Self::Namespace);
        let nodes = (0..crate::mounts::NODES.len()).map(Self::Device);
        let middle = [
            Self::TimeNamespace,
            Self::Tmpfs,
            Self::TmpfsAttributes,
            Self::Overlay,
        ];
        let views = [
            Self::ReadOnlyBind,
            Self::Proc,
            Self::Sysfs,
            Self::Terminals,
            Self::Queues,
        ];
        calls
            .chain([Self::UserNamespace, Self::Root])
            .chain(namespaces)
            .chain(middle)
            .chain(views)
            .chain(nodes)
            .chain([Self::Tun])
    }

    fn number(self) -> u8 {
        Self::all().position(|other| other == self).unwrap_or(usize::MAX) as u8
    }
}

impl Tried {
    /// Returns what came of `attempt`; `None` where it was not reached.
    pub fn of(&self, attempt: Attempt) -> Option<&Result<(), SysError>> {
        self.results.get(&attempt.number())
    }

    /// Returns why `attempt` failed, where it did.
    pub fn failure(&self, attempt: Attempt) -> Option<&SysError> {
        self.of(attempt)?.as_ref().err()
    }

    /// Whether `attempt` was made and worked.
    pub fn works(&self, attempt: Attempt) -> bool {
        matches!(self.of(attempt), Some(Ok(())))
    }

    /// Notes what came of `attempt`.
    pub fn note(&mut self, attempt: Attempt, result: Result<(), SysError>) {
        self.results.insert(attempt.number(), result);
    }

    /// Makes every attempt as a run with these ids and a store in `folder`, which is there, would.
    pub fn look(map: &IdMap, folder: &Path) -> Result<Self, SysError> {
        let (results, told) = process::pipe()?;
        let (words, said) = process::pipe()?;
        let side = match namespace::clone(Namespaces::NOTHING) {
            Ok(side) => side,
            // A filter around mk keeps it from having processes of its own: all that can be said is which calls it forbids.
            Err(_) => return Ok(Self::of_calls()),
        };
        match side {
            Side::Child => {
                drop((results, words));
                let _ = probe::talk_into(said.as_raw_fd());
                make(map, folder, &told);
                process::exit_now(0)
            }
            Side::Parent { handle, .. } => {
                drop((told, said));
                let mut tried = Self::default();
                let text = tried.hear(&results, handle.as_fd())?;
                tried.read(&text);
                tried.said = first_words(words);
                Ok(tried)
            }
        }
    }

    /// Asks for calls only, which this process can do itself.
    fn of_calls() -> Self {
        let mut tried = Self::default();
        Known::ALL
            .into_iter()
            .for_each(|call| tried.note(Attempt::Call(call), call.ask()));
        tried
    }

    /// Collects what the child tells until it ends or has taken too long.
    fn hear(&mut self, results: &OwnedFd, child: BorrowedFd<'_>) -> Result<Vec<u8>, SysError> {
        let begin = Instant::now();
        let mut text = Vec::new();
        loop {
            let left = PATIENCE.saturating_sub(begin.elapsed());
            let [told] = process::poll([results.as_fd()], Some(left))?;
            let mut piece = [0; 1024];
            let got = if told {
                process::read(results, &mut piece)?
            } else {
                0
            };
            text.extend_from_slice(&piece[..got]);
            self.stuck = !told && left.is_zero();
            if self.stuck || (told && got == 0) {
                break;
            }
        }
        if self.stuck {
            // Whoever waits for a server that does not answer cannot be waited for either.
            let _ = signal::send(child, Signal::KILL);
        } else {
            process::wait(child)?;
        }
        Ok(text)
    }

    /// Reads lines of an attempt's number, an error number and the call.
    fn read(&mut self, text: &[u8]) {
        for line in String::from_utf8_lossy(text).lines() {
            let mut fields = line.splitn(3, ' ');
            let mut number = || fields.next()?.parse::<i32>().ok();
            if let (Some(attempt), Some(errno)) = (number(), number()) {
                let result = match errno {
                    0 => Ok(()),
                    _ => Err(SysError::new(
                        Errno::from_raw_os_error(errno),
                        fields.next().unwrap_or_default(),
                    )),
                };
                self.results.insert(attempt as u8, result);
            }
        }
    }
}

/// The last thing that was said, which is short.
fn first_words(words: OwnedFd) -> String {
    let mut text = Vec::new();
    // A helper that was left behind may hold it open; what is there is there.
    if process::poll([words.as_fd()], Some(Duration::ZERO)).is_ok_and(|[said]| said) {
        let _ = std::fs::File::from(words).take(4096).read_to_end(&mut text);
    }
    String::from_utf8_lossy(&text).trim().to_owned()
}

/// The child: it has one thread and ends soon, so it may allocate and needs to clean nothing up.
struct Trial<'a> {
    told: &'a OwnedFd,
    folder: &'a Path,
}

fn make(map: &IdMap, folder: &Path, told: &OwnedFd) {
    let _ = process::die_with_parent();
    let trial = Trial { told, folder };
    for call in Known::ALL {
        trial.tell(Attempt::Call(call), call.ask());
    }
    trial.tell(Attempt::Tun, probe::opens(Path::new("/dev/net/tun")));
    if *map == IdMap::Native {
        trial.apart(Attempt::UserNamespace, namespace::own_user_namespace);
    }
    match idmap::become_root(map) {
        Ok(()) => trial.tell(Attempt::Root, Ok(())),
        Err(error) => return trial.tell(Attempt::Root, Err(call_of(error))),
    }
    trial.apart(Attempt::TimeNamespace, probe::unshare_time);
    for one in NAMESPACES {
        trial.tell(Attempt::Namespace(one), probe::unshare(one));
    }
    if mount::keep_to_ourselves().is_ok() {
        trial.mounts();
    }
}

/// Returns the call behind an error; a helper that failed is one as well.
fn call_of(error: idmap::Error) -> SysError {
    match error {
        idmap::Error::Forbidden { failed, .. } | idmap::Error::Sys(failed) => failed,
        helper @ idmap::Error::Helper { .. } => SysError::new(Errno::CHILD, helper),
    }
}

const PLAIN: Attr = Attr {
    read_only: false,
    no_suid: true,
    no_dev: true,
    no_exec: true,
};

impl Trial<'_> {
    fn tell(&self, attempt: Attempt, result: Result<(), SysError>) {
        let (errno, call) = match result {
            Ok(()) => (0, String::new()),
            Err(failed) => (failed.errno.raw_os_error(), failed.call.replace('\n', " ")),
        };
        let line = format!("{} {errno} {call}\n", attempt.number());
        let _ = process::write(self.told, line.as_bytes());
    }

    /// Makes an attempt in one more process, because it would change this one.
    fn apart(&self, attempt: Attempt, attempted: impl FnOnce() -> Result<(), SysError>) {
        match namespace::clone(Namespaces::NOTHING) {
            Ok(Side::Child) => {
                self.tell(attempt, attempted());
                process::exit_now(0)
            }
            Ok(Side::Parent { handle, .. }) => drop(process::wait(handle.as_fd())),
            Err(failed) => self.tell(attempt, Err(failed)),
        }
    }

    /// Tries what a run mounts, in the mount namespace of this process.
    fn mounts(&self) {
        self.tell(Attempt::Sysfs, made(c"sysfs").map(drop));
        self.tell(Attempt::Queues, made(c"mqueue").map(drop));
        self.tell(Attempt::Terminals, terminals());
        // The PID namespace is that of the next child.
        self.apart(Attempt::Proc, || made(c"proc").map(drop));
        for (index, name) in crate::mounts::NODES.iter().enumerate() {
            let path = c_string(format!("/dev/{name}").as_bytes());
            let bound = mount::copy(&path, false).map(drop);
            self.tell(
                Attempt::Device(index),
                bound.map_err(|failed| about(failed, &path)),
            );
        }
        self.tell(Attempt::ReadOnlyBind, read_only_bind());
        self.tell(Attempt::Overlay, self.overlay());
    }

    /// Mounts a tmpfs and an overlay of it over the folder of the store, there.
    fn overlay(&self) -> Result<(), SysError> {
        let lower = place::open_folder(self.folder)?;
        let memory = made(c"tmpfs");
        self.tell(Attempt::Tmpfs, memory.as_ref().map(drop).map_err(Clone::clone));
        let memory = memory?;
        self.tell(Attempt::TmpfsAttributes, takes_attributes(&memory));
        for name in [c"upper", c"work"] {
            place::make_folder(memory.as_fd(), name, 0o755)?;
        }
        mount::attach(memory.as_fd(), lower.as_fd())?;
        let path = |folder: &OwnedFd, name: &str| {
            c_string(format!("/proc/self/fd/{}{name}", folder.as_raw_fd()).as_bytes())
        };
        let new = NewFs::open(c"overlay")?;
        new.set(c"lowerdir", &path(&lower, ""))?;
        new.set(c"upperdir", &path(&memory, "/upper"))?;
        new.set(c"workdir", &path(&memory, "/work"))?;
        if !namespace::is_first_user_namespace()? {
            new.flag(c"userxattr")?;
        }
        new.mount(PLAIN).map(drop)
    }
}

/// Whether `user.*` attributes can be set; the handle of a mount is a place only, so its root is opened first.
fn takes_attributes(memory: &OwnedFd) -> Result<(), SysError> {
    let root = fs_err::File::open(format!("/proc/self/fd/{}", memory.as_raw_fd()));
    match root {
        Ok(root) => file::set_xattr(root.file(), b"user.mk", b"1"),
        Err(_) => Err(SysError::new(Errno::IO, "open")),
    }
}

fn made(kind: &CStr) -> Result<OwnedFd, SysError> {
    let new = NewFs::open(kind).map_err(|failed| about(failed, kind))?;
    new.mount(PLAIN).map_err(|failed| about(failed, kind))
}

fn terminals() -> Result<(), SysError> {
    let new = NewFs::open(c"devpts")?;
    new.set(c"ptmxmode", c"0666")?;
    new.mount(Attr {
        no_dev: false,
        ..PLAIN
    })
    .map(drop)
}

fn read_only_bind() -> Result<(), SysError> {
    let tree = mount::copy(c"/", true)?;
    let read_only = Attr {
        read_only: true,
        ..PLAIN
    };
    mount::restrict(tree.as_fd(), read_only, true)
}

/// Says what a failed call was about.
fn about(failed: SysError, what: &CStr) -> SysError {
    SysError::new(
        failed.errno,
        format_args!("{} of {}", failed.call, what.to_string_lossy()),
    )
}

fn c_string(bytes: &[u8]) -> CString {
    process::c_string(std::ffi::OsStr::from_bytes(bytes)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_attempt_has_a_number_of_its_own() {
        let numbers: std::collections::BTreeSet<u8> = Attempt::all().map(Attempt::number).collect();
        assert_eq!(numbers.len(), Attempt::all().count());
        assert!(!numbers.contains(&u8::MAX));
    }

    #[test]
    fn what_the_child_tells_is_what_is_read() {
        let mut tried = Tried::default();
        let number = Attempt::Overlay.number();
        tried.read(
            format!(
                "{number} 1 fsmount of a b\n{} 0 \nnonsense\n",
                Attempt::Tun.number()
            )
            .as_bytes(),
        );
        let failed = tried.failure(Attempt::Overlay).unwrap();
        assert_eq!((failed.errno, &*failed.call), (Errno::PERM, "fsmount of a b"));
        assert!(tried.works(Attempt::Tun) && tried.of(Attempt::Proc).is_none());
    }
}
