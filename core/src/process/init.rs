//! Pid 1: passes signals on, reaps what nobody else does, and ends with the command.
//!
//! It runs in a fresh clone, so it never allocates; it has no file open but the locks of what the run uses, can do nothing but send
//! signals, and when it ends the kernel ends everything else in the container.

use rustix::io::Errno;

use super::exit;
use crate::sys::process::{self, CapabilitySet, Keep};
use crate::sys::signal::{self, Signal, SignalSet};

/// What is passed on to the command.
pub(super) const FORWARDED: SignalSet = SignalSet::of(&[
    Signal::HANG_UP,
    Signal::INTERRUPT,
    Signal::QUIT,
    Signal::TERMINATE,
    Signal::USER_1,
    Signal::USER_2,
    Signal::WINDOW,
]);

/// What must be blocked from before the clone on, so that nothing is lost.
pub(super) const AWAITED: SignalSet = FORWARDED.with(SignalSet::of(&[Signal::CHILD]));

/// What a terminal sends, it sends to a whole process group.
const TO_ALL: SignalSet = SignalSet::of(&[Signal::HANG_UP, Signal::INTERRUPT, Signal::QUIT, Signal::WINDOW]);

/// Stays with the process `command` until it ends, then ends as it did.
pub(super) fn stay_with(command: i32, keep: &Keep) -> ! {
    process::rename(c"mk-init");
    // Nothing of what fails here would make it better to stop: the command runs already.
    let _ = crate::sys::place::go(c"/");
    // Whoever may trace it (`--cap-add SYS_PTRACE`) must not gain by that: what it executes has no capability either.
    let _ = process::bound_capabilities(CapabilitySet::empty());
    let _ = process::no_new_privileges();
    let _ = process::set_capabilities(CapabilitySet::KILL, CapabilitySet::empty());
    let _ = process::close_all_but(keep);
    loop {
        match signal::wait_for(AWAITED) {
            Ok(Signal::CHILD) => reap_all(command),
            Ok(other) => pass_on(command, other),
            Err(_) => {}
        }
    }
}

fn reap_all(command: i32) {
    // One SIGCHLD may stand for many children.
    while let Ok(Some((pid, ending))) = process::reap() {
        if pid == command {
            process::exit_now(exit::code(ending).into());
        }
    }
}

/// Passes `signal` on to the process `command`, a child of this one that leads a group, or will.
pub(super) fn pass_on(command: i32, signal: Signal) {
    // The command leads a group of its own as soon as it has its own session; until then it is alone.
    if TO_ALL.has(signal) && process::kill(-command, signal) != Err(Errno::SRCH) {
        return;
    }
    let _ = process::kill(command, signal);
}
