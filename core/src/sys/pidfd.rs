//! Handles on processes that this one did not start: opened by number, told apart by when they were started.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, pidfd_open, waitid};

use super::{Call, Errno, SysError};

/// Opens a handle on the process `pid`; `None` where there is none (pidfd_open(2), Linux 5.3).
pub fn open(pid: i32) -> Result<Option<OwnedFd>, SysError> {
    // Zero and less mean groups elsewhere, and nothing here.
    let Some(number) = (pid > 0).then_some(pid).and_then(Pid::from_raw) else {
        return Ok(None);
    };
    match pidfd_open(number, PidfdFlags::empty()) {
        Err(Errno::SRCH) => Ok(None),
        opened => opened.map(Some).call_with(|| format!("pidfd_open({pid})")),
    }
}

/// Returns the number of the process that `handle` is on where that is a child of this one, ended or not, that nobody has
/// waited for; `None` where it is anybody else's, and where `/proc` does not show it.
pub fn child_behind(handle: BorrowedFd<'_>) -> Option<i32> {
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    waitid(WaitId::PidFd(handle), look).ok()?;
    // While nobody has waited for it, its number is nobody else's.
    let text = fs_err::read_to_string(format!("/proc/self/fdinfo/{}", handle.as_raw_fd())).ok()?;
    let number = text.lines().find_map(|line| line.strip_prefix("Pid:"))?;
    number.trim().parse().ok().filter(|&pid| pid > 0)
}

/// Returns when the process `pid` was started, in clock ticks since the boot; `None` where there is none, or /proc does
/// not show it.
pub fn start_of(pid: i32) -> Option<u64> {
    let stat = fs_err::read(format!("/proc/{pid}/stat")).ok()?;
    start_in(&stat)
}

/// Returns the number of this process.
pub fn own() -> i32 {
    rustix::process::getpid().as_raw_nonzero().get()
}

/// Reads field 22 of proc_pid_stat(5). The second field is the program's name, in which anything may stand.
fn start_in(stat: &[u8]) -> Option<u64> {
    let end = stat.iter().rposition(|&byte| byte == b')')?;
    let rest = std::str::from_utf8(&stat[end + 1..]).ok()?;
    rest.split_ascii_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_name_cannot_pretend_to_be_a_time() {
        let stat = b"7 (\xff) S 1 1 1 0 -1 1 1 1 1 1 1 1 1 1 20 0 1 0 666) S 1 2 3 0 -1 4 5 6 7 8 9 10 11 12 20 0 1 0 4711 14 15\n";
        assert_eq!(start_in(stat), Some(4711));
        assert_eq!(start_in(b"7 (a"), None);
        assert_eq!(start_in(b"7 (a) S 1"), None);
    }

    #[test]
    fn only_a_child_is_taken_for_one() {
        let mut child = std::process::Command::new("/bin/sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let pid = child.id().cast_signed();
        let handle = open(pid).unwrap().unwrap();
        assert_eq!(child_behind(handle.as_fd()), Some(pid));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(child_behind(handle.as_fd()), None);
        let ours = open(own()).unwrap().unwrap();
        assert_eq!(child_behind(ours.as_fd()), None);
        let file = fs_err::File::open("/dev/null").unwrap();
        assert_eq!(child_behind(file.as_fd()), None);
    }

    #[test]
    fn this_process_can_be_opened_and_nobody_s_cannot() {
        assert!(open(own()).unwrap().is_some());
        assert!(start_of(own()).is_some_and(|start| start > 0));
        for pid in [0, -1, i32::MAX] {
            assert!(open(pid).unwrap().is_none(), "{pid}");
            assert_eq!(start_of(pid), None);
        }
    }
}
