//! Namespaces: one clone into fresh ones, a user namespace of our own with its id maps, and the two settings that a
//! fresh namespace is given: a host name and a loopback interface that is up.

use std::ffi::CStr;
use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;

use nix::libc;
use rustix::fs::{self, AtFlags, Mode, OFlags};
use rustix::thread::UnshareFlags;

use super::{Call, Errno, SysError, checked};

/// A set of namespaces (namespaces(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Namespaces(u64);

impl Namespaces {
    /// No namespace of its own.
    pub const NOTHING: Self = Self(0);
    /// Users: what ids and privileges mean.
    pub const USER: Self = Self(libc::CLONE_NEWUSER as u64);
    /// Mounts.
    pub const MOUNT: Self = Self(libc::CLONE_NEWNS as u64);
    /// Host name.
    pub const UTS: Self = Self(libc::CLONE_NEWUTS as u64);
    /// System V objects and message queues.
    pub const IPC: Self = Self(libc::CLONE_NEWIPC as u64);
    /// Process ids.
    pub const PID: Self = Self(libc::CLONE_NEWPID as u64);
    /// The view of the cgroup tree.
    pub const CGROUP: Self = Self(libc::CLONE_NEWCGROUP as u64);
    /// Network interfaces, routes, sockets.
    pub const NET: Self = Self(libc::CLONE_NEWNET as u64);

    const NAMES: [(Self, &str); 7] = [
        (Self::USER, "user"),
        (Self::MOUNT, "mount"),
        (Self::UTS, "uts"),
        (Self::IPC, "ipc"),
        (Self::PID, "pid"),
        (Self::CGROUP, "cgroup"),
        (Self::NET, "network"),
    ];

    /// Returns these and `more`.
    pub const fn with(self, more: Self) -> Self {
        Self(self.0 | more.0)
    }

    /// The flags of unshare(2).
    pub(super) fn flags(self) -> UnshareFlags {
        UnshareFlags::from_bits_retain(self.0 as u32)
    }

    /// Returns these but for `less`.
    pub const fn without(self, less: Self) -> Self {
        Self(self.0 & !less.0)
    }

    /// Whether all of `these` are in it.
    pub const fn has(self, these: Self) -> bool {
        self.0 & these.0 == these.0
    }
}

/// The names, such as `mount, uts, pid`.
impl fmt::Display for Namespaces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = Self::NAMES
            .iter()
            .filter(|(one, _)| self.has(*one))
            .map(|(_, name)| *name)
            .collect();
        f.write_str(&names.join(", "))
    }
}

/// The files below `/proc/<pid>/ns` that stand for namespaces.
const FILES: [(Namespaces, &str); 7] = [
    (Namespaces::USER, "user"),
    (Namespaces::MOUNT, "mnt"),
    (Namespaces::UTS, "uts"),
    (Namespaces::IPC, "ipc"),
    (Namespaces::PID, "pid"),
    (Namespaces::CGROUP, "cgroup"),
    (Namespaces::NET, "net"),
];

/// Returns what tells the namespace `file` (such as `pid`) of the process `pid` from all others. Takes the right to
/// look into the process (ptrace(2), `PTRACE_MODE_READ_FSCREDS`).
pub fn number(pid: i32, file: &str) -> Result<(u64, u64), SysError> {
    let path = format!("/proc/{pid}/ns/{file}");
    let stat =
        fs::statat(fs::CWD, path.as_str(), AtFlags::empty()).call_with(|| format!("stat({path:?})"))?;
    Ok((stat.st_dev, stat.st_ino))
}

/// Returns the namespaces in which the process `pid` is, and this one is not.
pub fn apart(pid: i32) -> Result<Namespaces, SysError> {
    let own = rustix::process::getpid().as_raw_nonzero().get();
    let mut apart = Namespaces::NOTHING;
    for (namespace, file) in FILES {
        if number(pid, file)? != number(own, file)? {
            apart = apart.with(namespace);
        }
    }
    Ok(apart)
}

/// Moves this process, which must have one thread, into the `namespaces` of the process behind `handle`, all at once
/// or none (setns(2), Linux 5.8). Root and working folder become those of the mount namespace; the PID namespace is
/// that of children only.
pub fn join(handle: BorrowedFd<'_>, namespaces: Namespaces) -> Result<(), SysError> {
    // SAFETY: the handle is open; nothing of this process's memory is touched.
    let returned = unsafe { libc::syscall(libc::SYS_setns, handle.as_raw_fd(), namespaces.0) };
    checked(returned).map(drop).call("setns")
}

/// Returns which kind of namespace an open file stands for, as a flag of clone(2); `None` where it stands for none
/// (ioctl_nsfs(2), Linux 4.11).
fn kind(file: BorrowedFd<'_>) -> Option<u64> {
    const NS_GET_NSTYPE: u64 = 0xb703;
    // SAFETY: the request takes no argument, and the handle is open.
    let returned = unsafe { libc::ioctl(file.as_raw_fd(), NS_GET_NSTYPE as _) };
    u64::try_from(returned).ok()
}

/// Opens the file `path`, which stands for a namespace.
pub fn open(path: &Path) -> Result<OwnedFd, SysError> {
    // Of what is none nothing may be waited for, such as the other end of a pipe.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    fs::open(path, flags, Mode::empty()).call_with(|| format!("open({path:?})"))
}

/// Opens the network namespace that the file `path` stands for; `None` where it stands for something else.
pub fn open_network(path: &Path) -> Result<Option<OwnedFd>, SysError> {
    let file = open(path)?;
    Ok((kind(file.as_fd()) == Some(Namespaces::NET.0)).then_some(file))
}

/// Whether the namespace `file` belongs to this process's user namespace or to one below that: no other can be joined
/// (`NS_GET_USERNS` in ioctl_nsfs(2), Linux 4.9).
pub fn is_within_reach(file: BorrowedFd<'_>) -> Result<bool, SysError> {
    const NS_GET_USERNS: u64 = 0xb701;
    // SAFETY: the request takes no argument, and the handle is open.
    let returned = unsafe { libc::ioctl(file.as_raw_fd(), NS_GET_USERNS as _) };
    match checked(returned.into()) {
        Ok(opened) => {
            // SAFETY: the kernel has just opened it for us.
            drop(unsafe { OwnedFd::from_raw_fd(opened as libc::c_int) });
            Ok(true)
        }
        Err(Errno::PERM) => Ok(false),
        Err(errno) => Err(errno).call("ioctl(NS_GET_USERNS)"),
    }
}

/// Whether the namespace `file` is the one of its kind that this process is in, which is called `name` in
/// `/proc/self/ns`.
pub fn is_own(file: BorrowedFd<'_>, name: &str) -> Result<bool, SysError> {
    let stat = fs::fstat(file).call("fstat")?;
    let own = rustix::process::getpid().as_raw_nonzero().get();
    Ok((stat.st_dev, stat.st_ino) == number(own, name)?)
}

/// Which side of a clone this is.
#[derive(Debug)]
pub enum Side {
    /// The one that called.
    Parent {
        /// The new process's id, as the caller sees it.
        pid: i32,
        /// A handle on it.
        handle: OwnedFd,
    },
    /// The new process: one thread, with a copy of everything.
    Child,
}

/// The arguments of clone3(2), as of Linux 5.7; those before it take all but the last.
#[repr(C, align(8))]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

impl CloneArgs {
    /// Up to `set_tid_size` (Linux 5.5).
    const WITHOUT_CGROUP: usize = std::mem::offset_of!(CloneArgs, cgroup);
}

/// Makes a copy of this process, in the fresh `namespaces` (clone3(2)).
///
/// Where the caller has more than one thread, the child must not allocate: another thread may hold the heap's lock.
pub fn clone(namespaces: Namespaces) -> Result<Side, SysError> {
    clone_as(
        args(namespaces.0, libc::SIGCHLD),
        CloneArgs::WITHOUT_CGROUP,
        "clone3",
    )
}

/// Makes a copy of this process like [`clone`], which is born in the version 2 cgroup `cgroup` (`CLONE_INTO_CGROUP`,
/// Linux 5.7). A cgroup namespace made by the same call would begin at the caller's cgroup: make it afterwards.
pub fn clone_into(namespaces: Namespaces, cgroup: BorrowedFd<'_>) -> Result<Side, SysError> {
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    let args = CloneArgs {
        cgroup: cgroup.as_raw_fd() as u64,
        ..args(namespaces.0 | CLONE_INTO_CGROUP, libc::SIGCHLD)
    };
    clone_as(args, size_of::<CloneArgs>(), "clone3(CLONE_INTO_CGROUP)")
}

/// Makes a copy of this process beside it: a child of its parent's, which must be waited for there.
pub fn clone_sibling() -> Result<Side, SysError> {
    // What tells the parent of its end is what tells it of ours.
    clone_as(
        args(libc::CLONE_PARENT as u64, 0),
        CloneArgs::WITHOUT_CGROUP,
        "clone3(CLONE_PARENT)",
    )
}

fn args(flags: u64, exit_signal: libc::c_int) -> CloneArgs {
    CloneArgs {
        flags: flags | libc::CLONE_PIDFD as u64,
        exit_signal: exit_signal as u64,
        ..CloneArgs::default()
    }
}

fn clone_as(mut args: CloneArgs, size: usize, call: &'static str) -> Result<Side, SysError> {
    let mut handle: libc::c_int = -1;
    args.pidfd = (&raw mut handle) as u64;
    // SAFETY: without CLONE_VM this is a fork: the child goes on with its own copy of this stack. `args` has at least
    // the size that is told, and `handle` is written by the kernel before the call returns in the parent.
    let returned = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size) };
    match checked(returned).call(call)? {
        0 => Ok(Side::Child),
        pid => Ok(Side::Parent {
            pid: pid as i32,
            // SAFETY: the kernel has just opened it for us (CLONE_PIDFD).
            handle: unsafe { OwnedFd::from_raw_fd(handle) },
        }),
    }
}

/// Makes the cgroups that this process is in the tops of all that it sees (cgroup_namespaces(7)).
pub fn own_cgroup_namespace() -> Result<(), SysError> {
    // SAFETY: CLONE_NEWCGROUP leaves the file table and the memory as they are.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWCGROUP) }.call("unshare(CLONE_NEWCGROUP)")
}

/// Moves this process, which must have one thread, into a user namespace of its own, where nobody has a name yet.
pub fn own_user_namespace() -> Result<(), SysError> {
    // SAFETY: CLONE_NEWUSER leaves the file table and the memory as they are.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWUSER) }.call("unshare(CLONE_NEWUSER)")
}

/// Moves this thread into a network namespace of its own, in which there is nothing but a loopback that is down.
pub fn own_network_namespace() -> Result<(), SysError> {
    // SAFETY: CLONE_NEWNET leaves the file table and the memory as they are.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }.call("unshare(CLONE_NEWNET)")
}

/// Moves this thread into a mount namespace of its own, in which nothing is mounted for others.
pub fn own_mount_namespace() -> Result<(), SysError> {
    // SAFETY: CLONE_NEWNS leaves the file table and the memory as they are.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }.call("unshare(CLONE_NEWNS)")?;
    super::mount::keep_to_ourselves()
}

/// Puts on, for the processes that this thread starts from now on, the clocks that count from the start of the machine
/// (time_namespaces(7), Linux 5.6). It must be the process's first thread: other threads have no such file.
pub fn later_clocks(seconds: u64) -> Result<(), SysError> {
    // SAFETY: CLONE_NEWTIME leaves the file table and the memory as they are.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWTIME) }.call("unshare(CLONE_NEWTIME)")?;
    let offsets = format!("monotonic {seconds} 0\nboottime {seconds} 0\n");
    let path = c"/proc/self/timens_offsets";
    let file =
        fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()).call("open(\"timens_offsets\")")?;
    rustix::io::write(&file, offsets.as_bytes())
        .map(drop)
        .call("write(\"timens_offsets\")")
}

/// Opens the network namespace that this thread is in; the machine's `/proc` must be in sight. Keeps to the stack.
pub fn own_network() -> Result<OwnedFd, SysError> {
    let path = c"/proc/thread-self/ns/net";
    fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).call("open(\"/proc/thread-self/ns/net\")")
}

/// Has interfaces that come into this network namespace use their IPv6 addresses without first asking, for a second or
/// two, whether somebody else has them: for links at whose other end there is nobody else. Keeps to the stack.
pub fn trust_own_addresses() {
    let path = c"/proc/sys/net/ipv6/conf/default/accept_dad";
    // A kernel without IPv6 has nothing to ask; where it cannot be written, addresses are usable a little later.
    if let Ok(file) = fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()) {
        let _ = rustix::io::write(&file, b"0");
    }
}

/// Writes `text` to `/proc/self/<name>`, such as `uid_map`, in the one write that the kernel asks for.
pub fn write_own(name: &str, text: &str) -> Result<(), SysError> {
    let path = format!("/proc/self/{name}");
    let file = fs::open(path.as_str(), OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
        .call_with(|| format!("open({path:?})"))?;
    rustix::io::write(&file, text.as_bytes())
        .map(drop)
        .call_with(|| format!("write({path:?}, {text:?})"))
}

/// Writes the map of user ids (`uid_map`) or of group ids (`gid_map`) of the process `pid`'s user namespace.
pub fn write_map(pid: i32, name: &str, text: &str) -> Result<(), SysError> {
    let path = format!("/proc/{pid}/{name}");
    let file = fs::open(path.as_str(), OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
        .call_with(|| format!("open({path:?})"))?;
    rustix::io::write(&file, text.as_bytes())
        .map(drop)
        .call_with(|| format!("write({path:?}, {text:?})"))
}

/// Returns a user namespace of nobody's, in which ids are mapped as `map` says (user_namespaces(7)): for mounts.
pub fn user_namespace(map: &str) -> Result<OwnedFd, SysError> {
    let (waits, go) = super::process::pipe()?;
    match clone(Namespaces::USER)? {
        Side::Parent { pid, handle } => {
            drop(waits);
            let path = format!("/proc/{pid}/ns/user");
            let made = write_map(pid, "uid_map", map)
                .and_then(|()| write_map(pid, "gid_map", map))
                .and_then(|()| {
                    fs::open(path.as_str(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
                        .call_with(|| format!("open({path:?})"))
                });
            // The namespace stays as long as its handle is open.
            drop(go);
            super::process::wait(std::os::fd::AsFd::as_fd(&handle))?;
            made
        }
        Side::Child => {
            drop(go);
            let _ = super::process::read(&waits, &mut [0]);
            super::process::exit_now(0)
        }
    }
}

/// The inode number of the first user namespace's file, part of the kernel's interface (`PROC_USER_INIT_INO`).
const FIRST_USER_NAMESPACE: u64 = 0xEFFF_FFFD;

/// Whether this process is in the machine's first user namespace.
pub fn is_first_user_namespace() -> Result<bool, SysError> {
    let stat =
        fs::statat(fs::CWD, c"/proc/self/ns/user", AtFlags::empty()).call("stat(\"/proc/self/ns/user\")")?;
    Ok(stat.st_ino == FIRST_USER_NAMESPACE)
}

/// Whether the process `pid` is in the machine's first user namespace.
pub fn is_in_first_user_namespace(pid: i32) -> Result<bool, SysError> {
    Ok(number(pid, "user")?.1 == FIRST_USER_NAMESPACE)
}

/// Whether the network namespace of this process belongs to its user namespace, or to one below that
/// (ioctl_ns(2), `NS_GET_USERNS`).
pub fn owns_network() -> Result<bool, SysError> {
    const NS_GET_USERNS: libc::c_ulong = 0xb701;
    let path = c"/proc/self/ns/net";
    let network = fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .call("open(\"/proc/self/ns/net\")")?;
    // SAFETY: the handle is open; the call takes no argument, and returns a handle.
    let returned = unsafe { libc::ioctl(network.as_raw_fd(), NS_GET_USERNS as _) };
    match checked(returned.into()) {
        Ok(owner) => {
            // SAFETY: the kernel has just opened it for us.
            drop(unsafe { OwnedFd::from_raw_fd(owner as i32) });
            Ok(true)
        }
        Err(rustix::io::Errno::PERM) => Ok(false),
        Err(errno) => Err(errno).call("ioctl(NS_GET_USERNS)"),
    }
}

/// Sets the host name of this UTS namespace.
pub fn set_host_name(name: &CStr) -> Result<(), SysError> {
    rustix::system::sethostname(name.to_bytes()).call("sethostname")
}

/// Brings the loopback interface of this network namespace up (netdevice(7)); its addresses come with that.
pub fn loopback_up() -> Result<(), SysError> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
    // Any socket carries the request; one of this family is the cheapest.
    let socket =
        socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None).call("socket")?;
    // SAFETY: all bytes zero is a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_LOOPBACK | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads an `ifreq`, which `request` is.
    let returned = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) };
    checked(returned.into())
        .map(drop)
        .call("ioctl(SIOCSIFFLAGS, \"lo\")")
}

/// Writes `value` to the setting `path` below `/proc/sys`, which is that of this network namespace where it is one of
/// `net`. Does not allocate.
pub fn set(path: &CStr, value: &CStr) -> Result<(), SysError> {
    let file = fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()).call("open of a setting")?;
    rustix::io::write(&file, value.to_bytes())
        .map(drop)
        .call("write of a setting")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_namespace_is_told_from_other_files() {
        let own = open_network(Path::new("/proc/self/ns/net")).unwrap().unwrap();
        assert!(is_own(own.as_fd(), "net").unwrap());
        assert!(!is_own(own.as_fd(), "uts").unwrap());
        for other in ["/proc/self/ns/uts", "/dev/null", "/"] {
            assert!(open_network(Path::new(other)).unwrap().is_none(), "{other}");
        }
        assert!(open_network(Path::new("/proc/self/ns/nothing")).is_err());
    }

    #[test]
    fn namespaces_are_shown_by_name() {
        let some = Namespaces::MOUNT.with(Namespaces::PID).with(Namespaces::NET);
        assert_eq!(some.to_string(), "mount, pid, network");
        assert!(some.has(Namespaces::PID) && !some.has(Namespaces::UTS));
    }
}
