//! Processes: what ties one to its parent, what it may do, what it becomes, how it ended.

use std::ffi::{CStr, CString, OsStr, c_char};
use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use nix::libc;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{DumpableBehavior, WaitId, WaitIdOptions};
use rustix::thread::{CapabilitySets, Gid, Uid};

use super::signal::Signal;
use super::{Call, Errno, SysError, checked};

pub use rustix::process::{Resource, Rlimit};
pub use rustix::thread::CapabilitySet;

/// Who this process is: its effective user and group id.
pub fn own_ids() -> (u32, u32) {
    (
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    )
}

/// What this process may do at once.
pub fn own_capabilities() -> Result<CapabilitySet, SysError> {
    rustix::thread::capabilities(None)
        .map(|sets| sets.effective)
        .call("capget")
}

/// Whether the program of this process can be found where its name says. It cannot where the process was started
/// through a link of the kernel's, such as `/proc/self/exe` of a process whose files are elsewhere: a container that got
/// one of mk's processes to execute that would have the host's mk run inside (CVE-2019-5736), and could write to its file.
/// A program that has no name any more passes, for it was replaced, and so does one that nobody can write to.
pub fn has_own_program_in_sight() -> bool {
    let Ok(own) = rustix::fs::stat(c"/proc/self/exe") else {
        // Without a `/proc` there is no such link either.
        return true;
    };
    let named = rustix::fs::readlink(c"/proc/self/exe", Vec::new()).and_then(rustix::fs::stat);
    let is_same = named.is_ok_and(|named| (named.st_dev, named.st_ino) == (own.st_dev, own.st_ino));
    is_same || own.st_nlink == 0 || super::sealed::is_sealed()
}

/// Has the kernel kill this process when its parent ends.
pub fn die_with_parent() -> Result<(), SysError> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .call("prctl(PR_SET_PDEATHSIG)")
}

/// Keeps everyone without power over the whole machine from looking into this process, until it executes a program.
pub fn hide_memory() -> Result<(), SysError> {
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).call("prctl(PR_SET_DUMPABLE)")
}

/// Has the programs that this process executes lie at the same addresses each time (personality(2)).
pub fn same_addresses() -> Result<(), SysError> {
    // SAFETY: takes a number, and changes nothing but how later programs are laid out.
    match unsafe { libc::personality(libc::ADDR_NO_RANDOMIZE as libc::c_ulong) } {
        -1 => Err(SysError::new(
            Errno::from_raw_os_error(nix::errno::Errno::last_raw()),
            "personality(ADDR_NO_RANDOMIZE)",
        )),
        _ => Ok(()),
    }
}

/// Lets no program that this process executes have more privileges than it has.
pub fn no_new_privileges() -> Result<(), SysError> {
    rustix::thread::set_no_new_privs(true).call("prctl(PR_SET_NO_NEW_PRIVS)")
}

/// Has the kernel ask `program` about each system call from now on (seccomp(2), Linux 3.17), in this process and in all
/// that it becomes or starts. Each number is an instruction of classic BPF, as `struct sock_filter` lies in memory on a
/// little-endian machine. Without `CAP_SYS_ADMIN`, [`no_new_privileges`] comes first.
pub fn filter_calls(program: &[u64]) -> Result<(), SysError> {
    let filter = libc::sock_fprog {
        // The kernel refuses what has no instructions, and what has more than 4096.
        len: program.len().try_into().unwrap_or(0),
        filter: program.as_ptr().cast_mut().cast(),
    };
    // Guarding every filtered program against speculative store bypass is costly, and since Linux 5.16 no kernel does it
    // unless told to.
    let flags = libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
    // SAFETY: the kernel reads `len` instructions of 8 bytes each, which is what `program` holds, and keeps a copy.
    let returned = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            &raw const filter,
        )
    };
    checked(returned)
        .map(drop)
        .call("seccomp(SECCOMP_SET_MODE_FILTER)")
}

/// Takes every capability but `keep` from what this process and its descendants can ever have.
pub fn bound_capabilities(keep: CapabilitySet) -> Result<(), SysError> {
    rustix::thread::clear_ambient_capability_set().call("prctl(PR_CAP_AMBIENT_CLEAR_ALL)")?;
    for number in 0..64 {
        let one = CapabilitySet::from_bits_retain(1 << number);
        if keep.contains(one) {
            continue;
        }
        match rustix::thread::remove_capability_from_bounding_set(one) {
            Ok(()) => {}
            // The kernel knows no more of them.
            Err(Errno::INVAL) => break,
            Err(errno) => return Err(errno).call("prctl(PR_CAPBSET_DROP)"),
        }
    }
    Ok(())
}

/// Sets what this process may do, and what of it a program without being root can be given (capabilities(7)).
pub fn set_capabilities(keep: CapabilitySet, inheritable: CapabilitySet) -> Result<(), SysError> {
    let sets = CapabilitySets {
        effective: keep,
        permitted: keep,
        inheritable,
    };
    rustix::thread::set_capabilities(None, sets).call("capset")
}

/// Has a change of user, until the next program is executed, leave what this process may do.
pub fn keep_capabilities() -> Result<(), SysError> {
    rustix::thread::set_keep_capabilities(true).call("prctl(PR_SET_KEEPCAPS)")
}

/// Gives programs that this process executes, without being root, what of `inheritable` capabilities is in `ambient`.
pub fn pass_on_capabilities(ambient: CapabilitySet) -> Result<(), SysError> {
    let numbers = (0..64).map(|number| CapabilitySet::from_bits_retain(1 << number));
    for one in numbers.filter(|one| ambient.contains(*one)) {
        rustix::thread::configure_capability_in_ambient_set(one, true).call("prctl(PR_CAP_AMBIENT_RAISE)")?;
    }
    Ok(())
}

/// Sets the supplementary groups of this thread.
pub fn set_groups(groups: &[u32]) -> Result<(), SysError> {
    // SAFETY: setgroups(2) reads `groups.len()` ids; glibc's own wrapper would first look for other threads.
    let returned = unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) };
    checked(returned).map(drop).call("setgroups")
}

/// Makes this process that of `uid` and `gid`, for good.
pub fn become_user(uid: u32, gid: u32) -> Result<(), SysError> {
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    rustix::thread::set_thread_res_gid(gid, gid, gid).call("setresgid")?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).call("setresuid")
}

/// Returns this process's limit of `resource`.
pub fn rlimit(resource: Resource) -> Rlimit {
    rustix::process::getrlimit(resource)
}

/// Limits this process and what it executes (setrlimit(2)).
pub fn set_rlimit(resource: Resource, limit: Rlimit) -> Result<(), SysError> {
    rustix::process::setrlimit(resource, limit).call("setrlimit")
}

/// Sets how much likelier the kernel is to end this process when memory runs out (proc_pid_oom_score_adj(5)). The
/// machine's `/proc` must be in sight, and this process's memory not hidden.
pub fn set_oom_score(score: &CStr) -> Result<(), SysError> {
    use rustix::fs::{CWD, Mode, OFlags, openat};
    let path = c"/proc/self/oom_score_adj";
    let file = openat(CWD, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
        .call("open(\"/proc/self/oom_score_adj\")")?;
    rustix::io::write(&file, score.to_bytes())
        .map(drop)
        .call("write(\"/proc/self/oom_score_adj\")")
}

/// Has the next process of this PID namespace get a number beyond 4000 (`ns_last_pid`, proc_sys_kernel(5)); the machine's
/// `/proc` must be in sight. Keeps to the stack.
pub fn skip_numbers() -> Result<(), SysError> {
    use rustix::fs::{CWD, Mode, OFlags, openat};
    let path = c"/proc/sys/kernel/ns_last_pid";
    let file = openat(CWD, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
        .call("open(\"/proc/sys/kernel/ns_last_pid\")")?;
    rustix::io::write(&file, b"4242")
        .map(drop)
        .call("write(\"/proc/sys/kernel/ns_last_pid\")")
}

/// Has this thread, and what it starts, run on one of its processors only.
pub fn one_processor() -> Result<(), SysError> {
    use rustix::thread::CpuSet;
    let mine = rustix::thread::sched_getaffinity(None).call("sched_getaffinity")?;
    let Some(first) = (0..CpuSet::MAX_CPU).find(|&cpu| mine.is_set(cpu)) else {
        return Ok(());
    };
    let mut one = CpuSet::new();
    one.set(first);
    rustix::thread::sched_setaffinity(None, &one).call("sched_setaffinity")
}

/// Leaves the caller's session and its terminal.
pub fn own_session() -> Result<(), SysError> {
    rustix::process::setsid().map(drop).call("setsid")
}

/// Leaves the caller's session keyring, and the keys in it, for an empty one (session-keyring(7)).
pub fn own_session_keyring() -> Result<(), SysError> {
    const JOIN_SESSION_KEYRING: libc::c_int = 1;
    // SAFETY: without a name there is nothing to read; keyctl(2) changes this process's credentials only.
    let returned =
        unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, std::ptr::null::<c_char>()) };
    match checked(returned) {
        // A kernel without keys, and a filter around mk that keeps all of us from them.
        Err(Errno::NOSYS | Errno::PERM) => Ok(()),
        done => done.map(drop).call("keyctl(KEYCTL_JOIN_SESSION_KEYRING)"),
    }
}

/// Sees to it that no file but the first three is open in the program to come (close_range(2), Linux 5.11).
pub fn keep_standard_files_only() -> Result<(), SysError> {
    close_range(3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC)
}

/// Which files stay open where all others are closed.
#[derive(Debug, Default)]
pub struct Keep(Vec<u32>);

impl Keep {
    /// Returns the numbers of `files`, which must be open as long as this is used.
    pub fn of<'a>(files: impl IntoIterator<Item = BorrowedFd<'a>>) -> Self {
        let mut numbers: Vec<u32> = files.into_iter().map(|file| file.as_raw_fd() as u32).collect();
        numbers.sort_unstable();
        numbers.dedup();
        Self(numbers)
    }
}

/// Closes every file but those of `keep`.
pub fn close_all_but(keep: &Keep) -> Result<(), SysError> {
    let mut next = 0;
    for &kept in &keep.0 {
        if kept > next {
            close_range(next, kept - 1, 0)?;
        }
        next = kept + 1;
    }
    close_range(next, u32::MAX, 0)
}

/// Closes every file but the first three and those of `keep`.
pub fn close_all_but_these<const N: usize>(keep: [BorrowedFd<'_>; N]) -> Result<(), SysError> {
    let mut numbers = keep.map(|file| file.as_raw_fd() as u32);
    numbers.sort_unstable();
    let mut next = 3;
    for number in numbers {
        if number > next {
            close_range(next, number - 1, 0)?;
        }
        next = next.max(number + 1);
    }
    close_range(next, u32::MAX, 0)
}

fn close_range(first: u32, last: u32, flags: u32) -> Result<(), SysError> {
    // SAFETY: whoever owns one of these descriptors is gone with the memory that the process gives up next.
    let returned = unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) };
    checked(returned).map(drop).call("close_range")
}

/// Strings as execve(2) takes them.
pub struct CStrings {
    /// Owns what `pointers` points to.
    strings: Vec<CString>,
    pointers: Vec<*const c_char>,
}

impl CStrings {
    /// Keeps `strings`.
    pub fn new(strings: Vec<CString>) -> Self {
        let mut pointers: Vec<_> = strings.iter().map(|text| text.as_ptr()).collect();
        pointers.push(std::ptr::null());
        Self { strings, pointers }
    }

    /// Returns what execve(2) takes.
    pub(super) fn pointers(&self) -> *const *const c_char {
        self.pointers.as_ptr()
    }

    /// Returns the strings.
    pub fn iter(&self) -> impl Iterator<Item = &CStr> {
        self.strings.iter().map(CString::as_c_str)
    }
}

impl fmt::Debug for CStrings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Returns `text` as a C string, or nothing where it holds a NUL.
pub fn c_string(text: impl AsRef<OsStr>) -> Option<CString> {
    CString::new(text.as_ref().as_bytes()).ok()
}

/// Becomes the program `path`; comes back only with the reason why not.
pub fn exec(path: &CStr, arguments: &CStrings, environment: &CStrings) -> Errno {
    // SAFETY: all three are C strings or NULL-ended arrays of such.
    unsafe {
        libc::execve(
            path.as_ptr(),
            arguments.pointers.as_ptr(),
            environment.pointers.as_ptr(),
        )
    };
    Errno::from_raw_os_error(nix::errno::Errno::last_raw())
}

/// Ends this process at once, with no handler or destructor run.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: always allowed.
    unsafe { libc::_exit(code) }
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It exited with this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
}

/// Waits for the process behind `handle`.
pub fn wait(handle: BorrowedFd<'_>) -> Result<Ending, SysError> {
    loop {
        match rustix::process::waitid(WaitId::PidFd(handle), WaitIdOptions::EXITED) {
            Ok(Some(status)) => return Ok(ending(&status)),
            Ok(None) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno).call("waitid"),
        }
    }
}

/// Reaps one child that has ended, if there is one: its process id and how it ended.
pub fn reap() -> Result<Option<(i32, Ending)>, Errno> {
    let mut status: libc::c_int = 0;
    // SAFETY: `status` is written to by the kernel, no usage is asked for.
    let returned = unsafe {
        libc::syscall(
            libc::SYS_wait4,
            -1,
            &raw mut status,
            libc::WNOHANG | libc::__WALL,
            std::ptr::null::<()>(),
        )
    };
    match checked(returned)? {
        0 => Ok(None),
        pid if libc::WIFEXITED(status) => Ok(Some((pid as i32, Ending::Code(libc::WEXITSTATUS(status))))),
        pid => Ok(Some((pid as i32, Ending::Signal(libc::WTERMSIG(status))))),
    }
}

fn ending(status: &rustix::process::WaitIdStatus) -> Ending {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Ending::Code(code),
        (None, signal) => Ending::Signal(signal.unwrap_or(Signal::KILL.number())),
    }
}

/// Which of some files have something to say.
pub fn poll<const N: usize>(
    files: [BorrowedFd<'_>; N],
    limit: Option<std::time::Duration>,
) -> Result<[bool; N], SysError> {
    let mut polled = files.map(|file| PollFd::from_borrowed_fd(file, PollFlags::IN));
    let limit = limit.map(|limit| Timespec {
        tv_sec: limit.as_secs().try_into().unwrap_or(i64::MAX),
        tv_nsec: limit.subsec_nanos().into(),
    });
    match rustix::event::poll(&mut polled, limit.as_ref()) {
        Ok(_) => Ok(polled.map(|one| !one.revents().is_empty())),
        Err(Errno::INTR) => Ok([false; N]),
        Err(errno) => Err(errno).call("poll"),
    }
}

/// Whether the other end of the pipe `reader` has been closed.
pub fn is_hung_up(reader: BorrowedFd<'_>) -> Result<bool, SysError> {
    let mut polled = [PollFd::from_borrowed_fd(reader, PollFlags::IN)];
    let at_once = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    rustix::event::poll(&mut polled, Some(&at_once)).call("poll")?;
    Ok(polled[0].revents().contains(PollFlags::HUP))
}

/// Returns the two ends of a pipe, to read from and to write to.
pub fn pipe() -> Result<(OwnedFd, OwnedFd), SysError> {
    rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).call("pipe2")
}

/// Reads into `into` what there is, as long as it takes; returns how much.
pub fn read(file: impl AsFd, into: &mut [u8]) -> Result<usize, SysError> {
    loop {
        match rustix::io::read(file.as_fd(), &mut *into) {
            Err(Errno::INTR) => {}
            done => return done.call("read"),
        }
    }
}

/// Writes all of `bytes`, which a pipe takes at once.
pub fn write(file: impl AsFd, bytes: &[u8]) -> Result<(), SysError> {
    rustix::io::write(file.as_fd(), bytes).map(drop).call("write")
}

/// Sends `signal` to the process `pid`, or to all that may be reached where it is -1.
pub fn kill(pid: i32, signal: Signal) -> Result<(), Errno> {
    // SAFETY: always allowed.
    checked(unsafe { libc::syscall(libc::SYS_kill, pid, signal.number()) }).map(drop)
}

/// Shows this process as `name` (at most 15 bytes) in process lists, in place of the command line that it was started
/// with, which may hold paths and secrets of the host.
pub(crate) fn rename(name: &CStr) {
    // A name that cannot be set is no reason to fail.
    let _ = rustix::thread::set_name(name);
    title::overwrite(name.to_bytes());
}

/// The memory in which the kernel keeps the command line.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod title {
    use std::ffi::{c_char, c_int};
    use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

    static START: AtomicPtr<u8> = AtomicPtr::new(std::ptr::null_mut());
    static LENGTH: AtomicUsize = AtomicUsize::new(0);

    /// glibc calls what this section lists with the arguments of `main`, before `main`.
    #[used]
    #[unsafe(link_section = ".init_array")]
    static REMEMBER: extern "C" fn(c_int, *const *mut c_char, *const *const c_char) = remember;

    extern "C" fn remember(count: c_int, arguments: *const *mut c_char, _: *const *const c_char) {
        let Ok(count) = usize::try_from(count) else { return };
        if count == 0 || arguments.is_null() {
            return;
        }
        // SAFETY: `main` gets `count` pointers to C strings, which the kernel has laid out one behind the other.
        let (first, last) = unsafe { (*arguments, *arguments.add(count - 1)) };
        // SAFETY: the last one is a C string; its NUL counts.
        let end = last as usize + unsafe { nix::libc::strlen(last) } + 1;
        START.store(first.cast(), Ordering::Relaxed);
        LENGTH.store(end.saturating_sub(first as usize), Ordering::Relaxed);
    }

    pub(super) fn overwrite(name: &[u8]) {
        let (start, length) = (START.load(Ordering::Relaxed), LENGTH.load(Ordering::Relaxed));
        if start.is_null() {
            return;
        }
        // SAFETY: the strings are writable, as C promises to `main`, and this process has no other thread and reads
        // them no more: it is a fresh clone that will only wait.
        let line = unsafe { std::slice::from_raw_parts_mut(start, length) };
        line.fill(0);
        let shown = name.len().min(length);
        line[..shown].copy_from_slice(&name[..shown]);
        // With the closing NUL gone, the kernel shows the line up to the first one only (`get_mm_proctitle`).
        if length > shown + 1 {
            line[length - 1] = 1;
        }
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
mod title {
    pub(super) fn overwrite(_: &[u8]) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_is_hung_up_when_its_writer_is_gone() {
        let (reader, writer) = pipe().unwrap();
        assert!(!is_hung_up(reader.as_fd()).unwrap());
        drop(writer);
        assert!(is_hung_up(reader.as_fd()).unwrap());
    }

    #[test]
    fn a_text_with_a_nul_is_no_c_string() {
        assert!(c_string("a\0b").is_none());
        assert_eq!(c_string("ab").unwrap().as_c_str(), c"ab");
    }
}
