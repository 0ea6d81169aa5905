//! [`trace`]: a program and its children under ptrace(2), with any one of them killed at any one of its system calls.
//!
//! strace(1) can kill too (`--inject=…:signal=KILL:when=N`), but it counts in each process on its own: the third call of a
//! child cannot be had where its parent makes three. Here a moment is a process *and* a call, and whoever is killed
//! then may be another process.

use std::collections::BTreeMap;
use std::fmt;
use std::process::{Child, ChildStdin, Command, Stdio};

use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// A process of a traced program: the first child of the second child of the program itself is `[1, 0]`. This does
/// not depend on who comes first, as a number of birth would.
pub(crate) type Who = Vec<usize>;

/// The entry into a system call: everything before it has been done, and it has not.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment {
    /// Whose call.
    pub(crate) who: Who,
    /// Which of its calls, from 0; those that it makes before it is the program do not count.
    pub(crate) call: usize,
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "call {} of process {:?}", self.call, self.who)
    }
}

/// What came of a traced program.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    /// How many calls each process made, up to where it executed something else.
    pub(crate) calls: BTreeMap<Who, usize>,
    /// All processes that there were.
    pub(crate) pids: Vec<i32>,
    /// The number of the system call before which somebody was killed; `None` where that moment did not come.
    pub(crate) killed_at: Option<u64>,
    /// The exit code of the program itself, where it ended while it was traced; `Some(None)`: a signal ended it.
    pub(crate) ended: Option<Option<i32>>,
}

/// Starts `command` and follows it and its children until they execute something; direct children until they are about
/// to, because a helper with a set-user-id bit would not have it while it is traced. Without a `kill` it returns when all
/// have ended; otherwise as soon as at that moment that process was killed, and then nobody is traced any more.
///
/// The command must be one of [`held`]. Its stdin is closed when a child's child executes something: what runs then may
/// end, and whoever came to stand alone before waits for ever.
pub(crate) fn trace(mut command: Command, kill: Option<(Moment, Who)>) -> (Child, Trace) {
    // A thread of its own: tracees belong to a thread, and those that are left when it ends go on untraced.
    let tracer = std::thread::spawn(move || {
        let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
        let mut tracer = Tracer {
            known: BTreeMap::new(),
            early: Vec::new(),
            stdin: child.stdin.take(),
            kill,
            trace: Trace::default(),
        };
        tracer.begin(Pid::from_raw(child.id() as i32));
        tracer.follow();
        (child, tracer.trace)
    });
    tracer.join().unwrap()
}

/// Returns a call of `/bin/sh` that waits for a tracer, does what `first` says, and becomes `program`, whose words are
/// then added.
pub(crate) fn held(program: &Command, first: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", &format!("kill -STOP $$; {first}\nexec \"$0\" \"$@\"")])
        .arg(program.get_program())
        .args(program.get_args())
        .env_clear()
        .envs(
            program
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        )
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    if let Some(folder) = program.get_current_dir() {
        command.current_dir(folder);
    }
    command
}

struct Tracer {
    known: BTreeMap<Pid, Known>,
    /// Stopped at their birth, of which their parents have not told yet.
    early: Vec<Pid>,
    stdin: Option<ChildStdin>,
    kill: Option<(Moment, Who)>,
    trace: Trace,
}

struct Known {
    who: Who,
    children: usize,
    /// `None`: not the program yet.
    calls: Option<usize>,
}

/// What was seen of a tracee, and so what becomes of it.
enum Next {
    GoOn(Option<Signal>),
    LetGo,
    Wait,
    Stop,
}

impl Tracer {
    fn begin(&mut self, first: Pid) {
        let stopped = waitpid(first, Some(WaitPidFlag::WUNTRACED)).unwrap();
        assert_eq!(stopped, WaitStatus::Stopped(first, Signal::SIGSTOP));
        let options = Options::PTRACE_O_TRACESYSGOOD
            | Options::PTRACE_O_TRACEFORK
            | Options::PTRACE_O_TRACECLONE
            | Options::PTRACE_O_TRACEEXEC;
        ptrace::seize(first, options).unwrap();
        kill(first, Signal::SIGCONT).unwrap();
        self.add(first, Vec::new(), None);
    }

    fn add(&mut self, pid: Pid, who: Who, calls: Option<usize>) {
        self.trace.pids.push(pid.as_raw());
        let known = Known {
            who,
            children: 0,
            calls,
        };
        self.known.insert(pid, known);
    }

    fn follow(&mut self) {
        // Only what this thread started or traces: other tests wait for theirs.
        let flags = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
        while !self.known.is_empty() {
            let status = match waitpid(None, Some(flags)) {
                Err(Errno::ECHILD) => return,
                other => other.unwrap(),
            };
            let Some(pid) = status.pid() else { continue };
            let gone = match self.see(pid, status) {
                // It may have been killed meanwhile, by others than us.
                Next::GoOn(signal) => ptrace::syscall(pid, signal),
                Next::LetGo => {
                    self.known.remove(&pid);
                    ptrace::detach(pid, None)
                }
                Next::Wait => Ok(()),
                Next::Stop => return,
            };
            assert!(matches!(gone, Ok(()) | Err(Errno::ESRCH)), "{status:?}: {gone:?}");
        }
    }

    fn see(&mut self, pid: Pid, status: WaitStatus) -> Next {
        match status {
            WaitStatus::PtraceSyscall(_) => self.see_call(pid),
            WaitStatus::PtraceEvent(_, _, libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_CLONE) => {
                self.see_birth(pid)
            }
            WaitStatus::PtraceEvent(_, _, libc::PTRACE_EVENT_EXEC) => self.see_exec(pid),
            WaitStatus::PtraceEvent(..) if !self.known.contains_key(&pid) => {
                self.early.push(pid);
                Next::Wait
            }
            WaitStatus::Stopped(_, signal) => Next::GoOn(Some(signal)),
            WaitStatus::Exited(_, code) => self.see_end(pid, Some(code)),
            WaitStatus::Signaled(..) => self.see_end(pid, None),
            _ => Next::GoOn(None),
        }
    }

    fn see_birth(&mut self, parent: Pid) -> Next {
        // Of a parent that was killed meanwhile nobody can say who its child was.
        let Ok(child) = ptrace::getevent(parent) else {
            return Next::Wait;
        };
        let child = Pid::from_raw(child as i32);
        let known = self.known.get_mut(&parent).unwrap();
        let mut who = known.who.clone();
        who.push(known.children);
        known.children += 1;
        let calls = known.calls.map(|_| 0);
        self.add(child, who, calls);
        if let Some(at) = self.early.iter().position(|&pid| pid == child) {
            self.early.remove(at);
            let _ = ptrace::syscall(child, None);
        }
        Next::GoOn(None)
    }

    fn see_exec(&mut self, pid: Pid) -> Next {
        let known = self.known.get_mut(&pid).unwrap();
        if known.who.is_empty() {
            // Once by the shell that waited for us; what the program then executes in its own place goes on counting.
            let calls = *known.calls.get_or_insert(0);
            self.trace.calls.insert(Vec::new(), calls);
            return Next::GoOn(None);
        }
        self.stdin = None;
        Next::LetGo
    }

    fn see_end(&mut self, pid: Pid, code: Option<i32>) -> Next {
        if self.known.remove(&pid).is_some_and(|known| known.who.is_empty()) {
            self.trace.ended = Some(code);
        }
        Next::Wait
    }

    fn see_call(&mut self, pid: Pid) -> Next {
        let known = self.known.get_mut(&pid).unwrap();
        let entry = ptrace::syscall_info(pid).is_ok_and(|info| info.op == libc::PTRACE_SYSCALL_INFO_ENTRY);
        let Some(calls) = known.calls.as_mut().filter(|_| entry) else {
            return Next::GoOn(None);
        };
        let moment = Moment {
            who: known.who.clone(),
            call: *calls,
        };
        let number = number(pid);
        if moment.who.len() == 1 && number == libc::SYS_execve as u64 {
            return Next::LetGo;
        }
        *calls += 1;
        self.trace.calls.insert(moment.who.clone(), *calls);
        let Some((_, victim)) = self.kill.as_ref().filter(|(when, _)| *when == moment) else {
            return Next::GoOn(None);
        };
        self.trace.killed_at = Some(number);
        let victim = self.known.iter().find(|(_, known)| known.who == *victim);
        // Whoever has ended already cannot be killed; that it has is part of the moment.
        if let Some((&victim, _)) = victim {
            let _ = kill(victim, Signal::SIGKILL);
        }
        Next::Stop
    }
}

/// Returns which system call a process is about to make.
fn number(pid: Pid) -> u64 {
    let registers = ptrace::getregs(pid);
    #[cfg(target_arch = "x86_64")]
    let number = registers.map(|registers| registers.orig_rax);
    #[cfg(target_arch = "aarch64")]
    let number = registers.map(|registers| registers.regs[8]);
    // Killed meanwhile.
    number.unwrap_or(u64::MAX)
}
