//! A program under ptrace(2), with all processes and threads that it makes: which system calls they make, how many
//! instructions they execute, and where.
//!
//! Both are counted here, with the kernel's help alone. `perf stat` needs a counter that virtual machines rarely have, and
//! valgrind knows neither openat2(2) nor clone3(2) (docs/decisions/0025).

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

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
enum What {
    /// System calls by name.
    Calls,
    /// Single steps, which take some microseconds each.
    Steps,
    /// System calls, and how long each takes.
    Times,
}

/// A system call as one of the processes makes it: 0 is the program itself, then the others as they are born.
pub(crate) type Call = (usize, String);

/// How often a process makes a call, and how many seconds that takes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Spent {
    pub(crate) count: u64,
    pub(crate) seconds: f64,
}

/// How often something happened.
pub(crate) type Counts = BTreeMap<String, u64>;

/// What a program executes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Steps {
    /// How many instructions, in all of its processes, whatever they became.
    pub(crate) count: u64,
    /// Which of the program's own, by the distance from where the program begins in memory, each once and in the order in
    /// which they are reached.
    pub(crate) places: Vec<u64>,
}

impl Steps {
    /// Returns in how many pages of 4 KiB these places are.
    pub(crate) fn pages(&self) -> u64 {
        let pages: HashSet<u64> = self.places.iter().map(|place| place / 4096).collect();
        pages.len() as u64
    }
}

/// Runs `command`, which must succeed, and counts its system calls by name, from its own first instruction on.
pub(crate) fn count(command: &Command) -> Result<Counts, Error> {
    let tracer = follow(command, What::Calls)?;
    let mut counts = Counts::new();
    for ((_, number), spent) in &tracer.calls {
        *counts.entry(name(*number)).or_default() += spent.count;
    }
    Ok(counts)
}

/// Runs `command`, which must succeed, one instruction at a time.
pub(crate) fn step(command: &Command) -> Result<Steps, Error> {
    let tracer = follow(command, What::Steps)?;
    Ok(tracer.steps)
}

/// Runs `command`, which must succeed, and returns what its processes spend in their system calls. To stop at a call takes
/// time, too, which is in each of them.
pub(crate) fn spend(command: &Command) -> Result<BTreeMap<Call, Spent>, Error> {
    let tracer = follow(command, What::Times)?;
    let calls = tracer.calls.iter();
    Ok(calls
        .map(|((process, number), spent)| ((*process, name(*number)), *spent))
        .collect())
}

/// Returns the name of a system call.
fn name(number: u64) -> String {
    let mut calls = Arch::HERE.calls();
    let found = calls.find(|(_, its)| u64::from(*its) == number);
    found.map_or_else(|| format!("call-{number}"), |(name, _)| name.into())
}

fn follow(command: &Command, what: What) -> Result<Tracer, Error> {
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
        processes: Vec::new(),
        entered: BTreeMap::new(),
        calls: BTreeMap::new(),
        steps: Steps::default(),
        program: 0..0,
        reached: HashSet::new(),
    };
    let code = tracer.begin().and_then(|()| tracer.follow());
    match code.map_err(Error::Trace)? {
        Some(0) => Ok(tracer),
        code => Err(Error::Traced {
            command: shown(command),
            code,
        }),
    }
}

/// Returns a command as it would be typed.
pub(crate) fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
    words.join(" ")
}

struct Tracer {
    first: Pid,
    what: What,
    /// Whether the shell has become the program.
    begun: bool,
    /// As they are born.
    processes: Vec<Pid>,
    /// Who is in which call, and since when.
    entered: BTreeMap<Pid, (u64, Instant)>,
    /// By process and number.
    calls: BTreeMap<(usize, u64), Spent>,
    steps: Steps,
    /// Where the program is in the memory of its processes.
    program: Range<u64>,
    /// What is in `steps.places`.
    reached: HashSet<u64>,
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
                    self.see_step(pid);
                    (pid, None)
                }
                WaitStatus::PtraceEvent(pid, _, event) => {
                    if event == libc::PTRACE_EVENT_EXEC && !self.begun {
                        self.begun = true;
                        self.program = program(pid).unwrap_or_default();
                    }
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
        self.begun && self.what == What::Steps
    }

    fn see_step(&mut self, pid: Pid) {
        self.steps.count += 1;
        let registers = ptrace::getregs(pid);
        #[cfg(target_arch = "x86_64")]
        let at = registers.map(|registers| registers.rip);
        #[cfg(target_arch = "aarch64")]
        let at = registers.map(|registers| registers.pc);
        if let Ok(at) = at
            && self.program.contains(&at)
            && self.reached.insert(at)
        {
            self.steps.places.push(at - self.program.start);
        }
    }

    fn see_call(&mut self, pid: Pid) {
        let now = Instant::now();
        let entry = ptrace::syscall_info(pid).is_ok_and(|info| info.op == libc::PTRACE_SYSCALL_INFO_ENTRY);
        if !self.begun {
            return;
        }
        let process = self.process(pid);
        if !entry {
            if let Some((number, since)) = self.entered.remove(&pid) {
                let spent = self.calls.entry((process, number)).or_default();
                spent.seconds += (now - since).as_secs_f64();
            }
            return;
        }
        let registers = ptrace::getregs(pid);
        #[cfg(target_arch = "x86_64")]
        let number = registers.map(|registers| registers.orig_rax);
        #[cfg(target_arch = "aarch64")]
        let number = registers.map(|registers| registers.regs[8]);
        if let Ok(number) = number {
            self.calls.entry((process, number)).or_default().count += 1;
            self.entered.insert(pid, (number, Instant::now()));
        }
    }

    fn process(&mut self, pid: Pid) -> usize {
        let known = self.processes.iter().position(|&its| its == pid);
        known.unwrap_or_else(|| {
            self.processes.push(pid);
            self.processes.len() - 1
        })
    }
}

/// Returns where the program of the process `pid` is in its memory (proc_pid_maps(5)).
fn program(pid: Pid) -> Option<Range<u64>> {
    let name = fs_err::read_link(format!("/proc/{pid}/exe")).ok()?;
    let maps = fs_err::read_to_string(format!("/proc/{pid}/maps")).ok()?;
    let mut program: Option<Range<u64>> = None;
    for line in maps
        .lines()
        .filter(|line| line.ends_with(name.to_str().unwrap_or("\n")))
    {
        let (from, to) = line.split_whitespace().next()?.split_once('-')?;
        let [from, to] = [from, to].map(|text| u64::from_str_radix(text, 16));
        let from = program.map_or(from.ok()?, |program| program.start);
        program = Some(from..to.ok()?);
    }
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_calls_of_a_program_are_counted_and_those_of_its_children_too() {
        let mut command = Command::new("/bin/sh");
        let once = count(command.args(["-c", "exit 0"])).unwrap();
        let mut command = Command::new("/bin/sh");
        let twice = count(command.args(["-c", "(exit 0); exit 0"])).unwrap();
        assert_eq!(once.get("exit_group"), Some(&1), "{once:?}");
        assert_eq!(twice.get("exit_group"), Some(&2), "{twice:?}");
    }

    #[test]
    fn what_is_spent_in_a_call_is_told_of_the_process_that_makes_it() {
        let mut command = Command::new("/bin/sh");
        let spent = spend(command.args(["-c", "sleep 0.2; exit 0"])).unwrap();
        let (call, slept) = spent
            .iter()
            .find(|((_, name), _)| name.contains("nanosleep"))
            .unwrap();
        assert_eq!((call.0, slept.count), (1, 1), "{spent:?}");
        assert!(slept.seconds > 0.1, "{slept:?}");
    }

    #[test]
    fn more_work_is_more_instructions() {
        let steps = |script| {
            let mut command = Command::new("/bin/sh");
            step(command.args(["-c", script])).unwrap()
        };
        let (little, much) = (steps("exit 0"), steps("for i in 1 2 3 4 5 6 7 8 9; do :; done"));
        assert!(little.count > 1000, "{little:?}");
        assert!(much.count > little.count + 500, "{little:?} and {much:?}");
        assert!(much.places.len() > little.places.len(), "{little:?} and {much:?}");
        assert!(much.places.len() < much.count as usize, "{much:?}");
        assert!((1..100).contains(&much.pages()), "{much:?}");
    }

    #[test]
    fn a_program_that_fails_is_not_counted() {
        let mut command = Command::new("/bin/sh");
        let failed = count(command.args(["-c", "exit 3"]));
        assert!(matches!(failed, Err(Error::Traced { code: Some(3), .. })));
    }
}
