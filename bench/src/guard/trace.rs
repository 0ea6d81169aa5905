//! A program under ptrace(2), with all processes and threads that it makes: which system calls they make, and how many
//! instructions they execute.
//!
//! Both are counted here, with the kernel's help alone. `perf stat` needs a counter that virtual machines rarely have, and
//! valgrind knows neither openat2(2) nor clone3(2) (docs/decisions/0025).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use mk_core::seccomp::Arch;
use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::Error;

/// What is counted; the other would be slower, or is not needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    /// System calls by name.
    Calls,
    /// Single steps, which take a few microseconds each.
    Instructions,
}

/// How often something happened.
pub(super) type Counts = BTreeMap<String, u64>;

/// Runs `command`, which must succeed, and counts `what` in it, from its own first instruction on: system calls under their
/// names, instructions under `""`.
pub(super) fn count(command: &Command, what: What) -> Result<Counts, Error> {
    // A shell that waits until it is traced, and becomes the program.
    let mut held = Command::new("/bin/sh");
    held.args(["-c", "kill -STOP $$; exec \"$0\" \"$@\""])
        .arg(command.get_program())
        .args(command.get_args())
        .env_clear()
        .envs(
            command
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        )
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let child = held.spawn().map_err(|source| Error::Start {
        program: PathBuf::from("/bin/sh"),
        source,
    })?;
    let first = Pid::from_raw(child.id().cast_signed());
    let mut tracer = Tracer {
        first,
        what,
        begun: false,
        calls: BTreeMap::new(),
        steps: 0,
    };
    let code = tracer.begin().and_then(|()| tracer.follow());
    match code.map_err(Error::Trace)? {
        Some(0) => Ok(tracer.counts()),
        code => Err(Error::Traced {
            command: shown(command),
            code,
        }),
    }
}

/// Returns a command as it would be typed.
pub(super) fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
    words.join(" ")
}

struct Tracer {
    first: Pid,
    what: What,
    /// Whether the shell has become the program.
    begun: bool,
    calls: BTreeMap<u64, u64>,
    steps: u64,
}

impl Tracer {
    fn begin(&self) -> nix::Result<()> {
        waitpid(self.first, Some(WaitPidFlag::WUNTRACED))?;
        let options = Options::PTRACE_O_TRACESYSGOOD
            | Options::PTRACE_O_TRACEFORK
            | Options::PTRACE_O_TRACEVFORK
            | Options::PTRACE_O_TRACECLONE
            | Options::PTRACE_O_TRACEEXEC
            | Options::PTRACE_O_EXITKILL;
        ptrace::seize(self.first, options)?;
        kill(self.first, Signal::SIGCONT)
    }

    /// Lets them all run to their ends; returns the exit code of the first, unless a signal ended it.
    fn follow(&mut self) -> nix::Result<Option<i32>> {
        let mut code = None;
        let flags = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
        loop {
            let status = match waitpid(None, Some(flags)) {
                Err(Errno::ECHILD) => return Ok(code),
                other => other?,
            };
            let (pid, signal) = match status {
                WaitStatus::PtraceSyscall(pid) => {
                    self.see_call(pid);
                    (pid, None)
                }
                WaitStatus::Stopped(pid, Signal::SIGTRAP) if self.stepping() => {
                    self.steps += 1;
                    (pid, None)
                }
                WaitStatus::PtraceEvent(pid, _, event) => {
                    self.begun |= event == libc::PTRACE_EVENT_EXEC;
                    (pid, None)
                }
                WaitStatus::Stopped(pid, signal) => (pid, Some(signal)),
                WaitStatus::Exited(pid, its) if pid == self.first => {
                    code = Some(its);
                    continue;
                }
                _ => continue,
            };
            let gone = match self.stepping() {
                true => ptrace::step(pid, signal),
                false => ptrace::syscall(pid, signal),
            };
            // It may have been killed meanwhile, as whatever is in a container is at its end.
            if gone.is_err_and(|errno| errno != Errno::ESRCH) {
                gone?;
            }
        }
    }

    fn stepping(&self) -> bool {
        self.begun && self.what == What::Instructions
    }

    fn see_call(&mut self, pid: Pid) {
        let entry = ptrace::syscall_info(pid).is_ok_and(|info| info.op == libc::PTRACE_SYSCALL_INFO_ENTRY);
        if !self.begun || !entry {
            return;
        }
        let registers = ptrace::getregs(pid);
        #[cfg(target_arch = "x86_64")]
        let number = registers.map(|registers| registers.orig_rax);
        #[cfg(target_arch = "aarch64")]
        let number = registers.map(|registers| registers.regs[8]);
        if let Ok(number) = number {
            *self.calls.entry(number).or_default() += 1;
        }
    }

    fn counts(&self) -> Counts {
        if self.what == What::Instructions {
            return Counts::from([(String::new(), self.steps)]);
        }
        let names: BTreeMap<u64, &str> = Arch::HERE
            .calls()
            .map(|(name, number)| (u64::from(number), name))
            .collect();
        let named = self.calls.iter().map(|(number, count)| {
            let name = names
                .get(number)
                .map_or_else(|| format!("call-{number}"), |&name| name.into());
            (name, *count)
        });
        named.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_calls_of_a_program_are_counted_and_those_of_its_children_too() {
        let mut command = Command::new("/bin/sh");
        let once = count(command.args(["-c", "exit 0"]), What::Calls).unwrap();
        let mut command = Command::new("/bin/sh");
        let twice = count(command.args(["-c", "(exit 0); exit 0"]), What::Calls).unwrap();
        assert_eq!(once.get("exit_group"), Some(&1), "{once:?}");
        assert_eq!(twice.get("exit_group"), Some(&2), "{twice:?}");
    }

    #[test]
    fn more_work_is_more_instructions() {
        let steps = |script| {
            let mut command = Command::new("/bin/sh");
            count(command.args(["-c", script]), What::Instructions).unwrap()[""]
        };
        let (little, much) = (steps("exit 0"), steps("for i in 1 2 3 4 5 6 7 8 9; do :; done"));
        assert!(little > 1000, "{little}");
        assert!(much > little + 500, "{little} and {much}");
    }

    #[test]
    fn a_program_that_fails_is_not_counted() {
        let mut command = Command::new("/bin/sh");
        let failed = count(command.args(["-c", "exit 3"]), What::Calls);
        assert!(matches!(failed, Err(Error::Traced { code: Some(3), .. })));
    }
}
