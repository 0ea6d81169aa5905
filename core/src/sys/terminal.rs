//! Terminals: their modes, their size, and pairs of a container's own (pty(7), termios(3)).
//!
//! What a child needs of it between clone and exec keeps to the stack.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::libc;
use rustix::fs::{self, FileType, Mode, OFlags};
use rustix::termios::{
    self, InputModes, LocalModes, OptionalActions, OutputModes, SpecialCodeIndex, Termios, Winsize,
};

use super::{Call, Errno, SysError, checked};

/// Whether `file` is a terminal.
pub fn is_terminal(file: impl AsFd) -> bool {
    // Not isatty(3): this one call says it, and leaves no doubt where the file is closed.
    termios::tcgetattr(file).is_ok()
}

/// How a terminal treats what passes through it.
#[derive(Debug, Clone)]
pub struct Modes(Termios);

impl Modes {
    /// Returns the modes of `terminal`.
    pub fn of(terminal: impl AsFd) -> Result<Self, SysError> {
        termios::tcgetattr(terminal).map(Self).call("ioctl(TCGETS2)")
    }

    /// Gives `terminal` these modes at once; what was typed and not yet read stays.
    pub fn set(&self, terminal: impl AsFd) -> Result<(), SysError> {
        termios::tcsetattr(terminal, OptionalActions::Now, &self.0).call("ioctl(TCSETS2)")
    }

    /// Returns the modes in which every byte passes as it is (cfmakeraw(3)).
    #[must_use]
    pub fn raw(&self) -> Self {
        let mut raw = self.0.clone();
        raw.make_raw();
        Self(raw)
    }

    /// Returns these modes without any change to what is printed.
    #[must_use]
    pub fn with_plain_output(&self) -> Self {
        let mut modes = self.0.clone();
        modes.output_modes.remove(OutputModes::OPOST);
        Self(modes)
    }

    /// Returns these modes without showing what is typed.
    #[must_use]
    pub fn without_echo(&self) -> Self {
        let mut modes = self.0.clone();
        modes.local_modes.remove(LocalModes::ECHO | LocalModes::ECHONL);
        Self(modes)
    }

    /// Returns these modes for text in UTF-8, where one backspace takes a whole character away.
    #[must_use]
    pub fn with_characters(&self) -> Self {
        let mut modes = self.0.clone();
        modes.input_modes.insert(InputModes::IUTF8);
        Self(modes)
    }

    /// Whether input comes in lines, which can be changed until they are sent.
    pub fn are_lines(&self) -> bool {
        self.0.local_modes.contains(LocalModes::ICANON)
    }

    /// Returns the key that ends the input, where there is one. Programs that read keys one by one, shells for example,
    /// know it too.
    pub fn end_of_input(&self) -> Option<u8> {
        Some(self.0.special_codes[SpecialCodeIndex::VEOF]).filter(|key| *key != 0)
    }

    /// Returns the keys that end the input whatever the line holds so far: as many of the two as are told. A program that
    /// reads keys one by one may have found an earlier one to be part of a line, which is taken back first.
    pub fn keys_that_end(&self) -> ([u8; 2], usize) {
        let kill = self.0.special_codes[SpecialCodeIndex::VKILL];
        match self.end_of_input() {
            None => ([0; 2], 0),
            Some(end) if self.are_lines() || kill == 0 => ([end, 0], 1),
            Some(end) => ([kill, end], 2),
        }
    }
}

/// Whether two would treat everything that mk sets in the same way.
impl PartialEq for Modes {
    fn eq(&self, other: &Self) -> bool {
        let keys = [SpecialCodeIndex::VMIN, SpecialCodeIndex::VTIME];
        self.0.input_modes == other.0.input_modes
            && self.0.output_modes == other.0.output_modes
            && self.0.control_modes == other.0.control_modes
            && self.0.local_modes == other.0.local_modes
            && keys
                .iter()
                .all(|&key| self.0.special_codes[key] == other.0.special_codes[key])
    }
}

/// Returns the lines and columns of `terminal`.
pub fn size(terminal: impl AsFd) -> Result<(u16, u16), SysError> {
    termios::tcgetwinsize(terminal)
        .map(|size| (size.ws_row, size.ws_col))
        .call("ioctl(TIOCGWINSZ)")
}

/// Gives `terminal` this many lines and columns; the kernel tells the programs that it controls (SIGWINCH).
pub fn set_size(terminal: impl AsFd, rows: u16, columns: u16) -> Result<(), SysError> {
    let size = Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    termios::tcsetwinsize(terminal, size).call("ioctl(TIOCSWINSZ)")
}

/// Returns how many bytes that were typed on `terminal` no program has read yet.
pub fn unread(terminal: impl AsFd) -> u64 {
    rustix::io::ioctl_fionread(terminal).unwrap_or(0)
}

/// Whether this process may read from `terminal` and change its modes, as far as its shell's job control goes. So it is
/// where the terminal does not control this process.
pub fn is_in_foreground(terminal: impl AsFd) -> bool {
    match termios::tcgetpgrp(terminal) {
        Ok(group) => group == rustix::process::getpgrp(),
        Err(_) => true,
    }
}

/// A new terminal.
#[derive(Debug)]
pub struct Pair {
    /// What a terminal emulator holds: written to it is typed, read from it is shown. Does not wait.
    pub master: OwnedFd,
    /// What programs hold.
    pub slave: OwnedFd,
}

impl Pair {
    /// Makes one in the filesystem behind `devpts`, which must be such a filesystem (`ENODEV`).
    pub fn make(devpts: BorrowedFd<'_>) -> Result<Self, SysError> {
        /// The multiplexer's node (`TTYAUX_MAJOR`, minor 2), which every devpts has at its top.
        const MULTIPLEXER: (u32, u32) = (5, 2);
        const MAGIC: u64 = 0x1cd1;
        if fs::fstatfs(devpts).call("fstatfs")?.f_type as u64 != MAGIC {
            return Err(Errno::NODEV).call("fstatfs");
        }
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOFOLLOW;
        let master = fs::openat(devpts, c"ptmx", flags, Mode::empty()).call("openat(\"ptmx\")")?;
        let stat = fs::fstat(&master).call("fstat")?;
        let is_node = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice;
        let number = (fs::major(stat.st_rdev), fs::minor(stat.st_rdev));
        if !is_node || number != MULTIPLEXER {
            return Err(Errno::NODEV).call("openat(\"ptmx\")");
        }
        unlock(master.as_fd())?;
        let slave = other_side(master.as_fd())?;
        Ok(Self { master, slave })
    }
}

fn unlock(master: BorrowedFd<'_>) -> Result<(), SysError> {
    let locked: libc::c_int = 0;
    // SAFETY: TIOCSPTLCK reads one int.
    let returned = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const locked) };
    checked(returned.into()).map(drop).call("ioctl(TIOCSPTLCK)")
}

/// Opens the slave of `master`, wherever that is mounted (Linux 4.13).
pub fn other_side(master: BorrowedFd<'_>) -> Result<OwnedFd, SysError> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: TIOCGPTPEER takes the flags as they are, and returns a new descriptor.
    let returned = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags) };
    let fd = checked(returned.into()).call("ioctl(TIOCGPTPEER)")?;
    // SAFETY: the kernel has just opened it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Makes `terminal` the one that controls this process, which leads a session that has none.
pub fn control(terminal: BorrowedFd<'_>) -> Result<(), SysError> {
    // SAFETY: TIOCSCTTY takes a number: 0, take it from nobody else.
    let returned = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY, 0) };
    checked(returned.into()).map(drop).call("ioctl(TIOCSCTTY)")
}

/// Gives `terminal` to the user `uid`; its group and its permissions stay.
pub fn give_to(terminal: BorrowedFd<'_>, uid: u32) -> Result<(), SysError> {
    fs::fchown(terminal, Some(fs::Uid::from_raw(uid)), None).call("fchown")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> Pair {
        // Whoever is not root may use the host's devpts through `/dev/ptmx` only.
        let nix::pty::OpenptyResult { master, slave } = nix::pty::openpty(None, None).unwrap();
        Pair { master, slave }
    }

    #[test]
    fn a_pair_is_a_terminal_with_a_size() {
        let Pair { master, slave } = pair();
        assert!(is_terminal(&slave));
        set_size(&master, 33, 99).unwrap();
        assert_eq!(size(&slave).unwrap(), (33, 99));
        let again = other_side(master.as_fd()).unwrap();
        assert_eq!(
            fs::fstat(&again).unwrap().st_rdev,
            fs::fstat(&slave).unwrap().st_rdev
        );
    }

    #[test]
    fn modes_are_what_was_set() {
        let Pair {
            slave,
            master: _master,
        } = pair();
        let before = Modes::of(&slave).unwrap();
        assert!(before.are_lines() && before.end_of_input() == Some(4));
        before.raw().set(&slave).unwrap();
        let raw = Modes::of(&slave).unwrap();
        assert!(raw == before.raw() && raw != before && !raw.are_lines());
        before.without_echo().set(&slave).unwrap();
        assert!(Modes::of(&slave).unwrap() != before);
        before.set(&slave).unwrap();
        assert!(Modes::of(&slave).unwrap() == before);
    }

    #[test]
    fn only_a_devpts_has_terminals() {
        let other = fs::open("/proc", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
        assert_eq!(Pair::make(other.as_fd()).unwrap_err().errno, Errno::NODEV);
        assert!(!is_terminal(&other));
    }
}
