//! Signals: sets of them, waiting for them, passing them on.

use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::libc;

use super::{Call, Errno, SysError, checked};

/// A signal by its number (signal(7)), 1 to 64.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signal(i32);

impl Signal {
    /// A child ended.
    pub const CHILD: Self = Self(libc::SIGCHLD);
    /// The terminal hung up.
    pub const HANG_UP: Self = Self(libc::SIGHUP);
    /// `^C`.
    pub const INTERRUPT: Self = Self(libc::SIGINT);
    /// `^\`.
    pub const QUIT: Self = Self(libc::SIGQUIT);
    /// The end that cannot be refused.
    pub const KILL: Self = Self(libc::SIGKILL);
    /// Please end.
    pub const TERMINATE: Self = Self(libc::SIGTERM);
    /// For the program's own use.
    pub const USER_1: Self = Self(libc::SIGUSR1);
    /// For the program's own use.
    pub const USER_2: Self = Self(libc::SIGUSR2);
    /// `^Z`.
    pub const TERMINAL_STOP: Self = Self(libc::SIGTSTP);
    /// The stop that cannot be refused.
    pub const STOP: Self = Self(libc::SIGSTOP);
    /// Go on after a stop.
    pub const CONTINUE: Self = Self(libc::SIGCONT);
    /// The terminal has another size.
    pub const WINDOW: Self = Self(libc::SIGWINCH);

    /// Reads a signal: its number, or its name with or without `SIG`, in upper or lower case.
    pub fn parse(text: &str) -> Option<Self> {
        if !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit()) {
            return text
                .parse()
                .ok()
                .filter(|number| (1..=64).contains(number))
                .map(Self);
        }
        let name = text.to_ascii_uppercase();
        let name = name.strip_prefix("SIG").unwrap_or(&name);
        let known = format!("SIG{name}").parse::<nix::sys::signal::Signal>().ok()?;
        Some(Self(known as i32))
    }

    /// Returns the signal's number.
    pub const fn number(self) -> i32 {
        self.0
    }

    /// Whether whoever sends it wants the program to end.
    pub fn asks_to_end(self) -> bool {
        [Self::HANG_UP, Self::INTERRUPT, Self::QUIT, Self::TERMINATE].contains(&self)
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match nix::sys::signal::Signal::try_from(self.0) {
            Ok(known) => f.write_str(known.as_str()),
            Err(_) => write!(f, "signal {}", self.0),
        }
    }
}

/// A set of signals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SignalSet(u64);

impl SignalSet {
    /// None.
    pub const NONE: Self = Self(0);

    /// All that can be blocked.
    pub const ALL: Self = Self(u64::MAX);

    /// Returns the set of `signals`.
    pub const fn of(signals: &[Signal]) -> Self {
        let mut bits = 0;
        let mut at = 0;
        while at < signals.len() {
            bits |= 1 << (signals[at].0 - 1);
            at += 1;
        }
        Self(bits)
    }

    /// Whether `signal` is in it.
    pub const fn has(self, signal: Signal) -> bool {
        self.0 & (1 << (signal.0 - 1)) != 0
    }

    /// Returns these and `others`.
    #[must_use]
    pub const fn with(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    /// Returns these without `others`.
    #[must_use]
    pub const fn without(self, others: Self) -> Self {
        Self(self.0 & !others.0)
    }

    /// Returns the signals of the set.
    pub fn iter(self) -> impl Iterator<Item = Signal> {
        (1..=64).map(Signal).filter(move |signal| self.has(*signal))
    }
}

/// The kernel's `struct sigaction`; only its size and its first field matter here.
#[repr(C)]
#[derive(Default)]
struct Action {
    handler: usize,
    flags: libc::c_ulong,
    restorer: usize,
    mask: u64,
}

fn action(signal: Signal, new: Option<&Action>, old: Option<&mut Action>) -> Result<(), Errno> {
    let new = new.map_or(std::ptr::null(), std::ptr::from_ref);
    let old = old.map_or(std::ptr::null_mut(), std::ptr::from_mut);
    // SAFETY: both are null or point to a whole `struct sigaction`; the only handler ever set is SIG_DFL.
    let returned = unsafe { libc::syscall(libc::SYS_rt_sigaction, signal.0, new, old, size_of::<u64>()) };
    checked(returned).map(drop)
}

/// Returns the signals that this process ignores, some of them since before it was started (nohup(1), shells).
pub fn ignored() -> SignalSet {
    let mut set = SignalSet::NONE;
    for signal in (1..=64).map(Signal) {
        let mut now = Action::default();
        if action(signal, None, Some(&mut now)).is_ok() && now.handler == libc::SIG_IGN {
            set = set.with(SignalSet::of(&[signal]));
        }
    }
    set
}

/// Gives the `signals` back their default effect.
pub fn reset(signals: SignalSet) -> Result<(), SysError> {
    for signal in signals.iter() {
        action(signal, Some(&Action::default()), None).call("rt_sigaction")?;
    }
    Ok(())
}

/// Blocks exactly the signals of `set` and returns those that were blocked before.
pub fn set_blocked(set: SignalSet) -> Result<SignalSet, SysError> {
    let mut before = 0u64;
    // SAFETY: both point to eight bytes, the size that is told.
    let returned = unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            &raw const set.0,
            &raw mut before,
            size_of::<u64>(),
        )
    };
    checked(returned).call("rt_sigprocmask")?;
    Ok(SignalSet(before))
}

/// Waits for one of `set`, all of which must be blocked.
pub fn wait_for(set: SignalSet) -> Result<Signal, Errno> {
    let nothing = std::ptr::null::<libc::c_void>();
    // SAFETY: the set points to eight bytes, the size that is told; no details and no time limit are asked for.
    let returned = unsafe {
        libc::syscall(
            libc::SYS_rt_sigtimedwait,
            &raw const set.0,
            nothing,
            nothing,
            size_of::<u64>(),
        )
    };
    checked(returned).map(|number| Signal(number as i32))
}

/// Blocked signals as a file that can be polled (signalfd(2)).
#[derive(Debug)]
pub struct Incoming(OwnedFd);

impl Incoming {
    /// Opens one for `set`, all of which must be blocked.
    pub fn open(set: SignalSet) -> Result<Self, SysError> {
        let flags = libc::SFD_CLOEXEC | libc::SFD_NONBLOCK;
        // SAFETY: the set points to eight bytes, the size that is told.
        let returned =
            unsafe { libc::syscall(libc::SYS_signalfd4, -1, &raw const set.0, size_of::<u64>(), flags) };
        let fd = checked(returned).call("signalfd4")?;
        // SAFETY: the kernel has just opened it for us.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd as i32) }))
    }

    /// Returns the next signal that came in, if one did.
    pub fn next(&self) -> Option<Signal> {
        let mut info = [0u8; size_of::<libc::signalfd_siginfo>()];
        let got = rustix::io::read(&self.0, &mut info).ok()?;
        let number = info.first_chunk::<4>().filter(|_| got == info.len())?;
        Some(Signal(i32::from_ne_bytes(*number)))
    }
}

impl AsFd for Incoming {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Stops this process, until somebody has it go on.
pub fn stop_self() {
    // SAFETY: always allowed.
    unsafe { libc::kill(libc::getpid(), libc::SIGSTOP) };
}

/// Sends `signal` to the process behind `handle` (pidfd_send_signal(2)).
pub fn send(handle: BorrowedFd<'_>, signal: Signal) -> Result<(), SysError> {
    let none = std::ptr::null::<libc::c_void>();
    // SAFETY: the handle is open and no details are given.
    let returned =
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, handle.as_raw_fd(), signal.0, none, 0) };
    checked(returned).map(drop).call("pidfd_send_signal")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_what_was_put_in() {
        let set = SignalSet::of(&[Signal::INTERRUPT, Signal::TERMINATE]);
        assert_eq!(
            set.iter().collect::<Vec<_>>(),
            [Signal::INTERRUPT, Signal::TERMINATE]
        );
        assert!(set.without(SignalSet::of(&[Signal::INTERRUPT])) == SignalSet::of(&[Signal::TERMINATE]));
    }

    #[test]
    fn rust_programs_ignore_broken_pipes() {
        // Which is why the program that mk starts must have this one reset.
        assert!(ignored().has(Signal(libc::SIGPIPE)));
        assert!(!ignored().has(Signal::TERMINATE));
    }

    #[test]
    fn signals_are_read_by_number_and_by_name() {
        for text in ["15", "TERM", "SIGTERM", "term", "SigTerm"] {
            assert_eq!(Signal::parse(text), Some(Signal::TERMINATE), "{text}");
        }
        assert_eq!(Signal::parse("64"), Some(Signal(64)));
        for text in [
            "",
            "0",
            "65",
            "-9",
            "+9",
            "9 ",
            "SIG",
            "SIGSIGTERM",
            "TERMINATE",
            "99999999999",
        ] {
            assert_eq!(Signal::parse(text), None, "{text}");
        }
    }

    #[test]
    fn signals_have_names() {
        assert_eq!(Signal::TERMINATE.to_string(), "SIGTERM");
        assert_eq!(Signal(40).to_string(), "signal 40");
    }
}
