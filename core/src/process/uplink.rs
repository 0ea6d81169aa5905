//! The helper of `--network user`, and what it is tied to.
//!
//! It is in a PID namespace of its own, whose first process is a copy of mk that the kernel kills when mk ends, in
//! whatever way; and with that one the kernel kills all that are in there. A helper that goes into the background, or
//! changes who it is (which undoes `PR_SET_PDEATHSIG`), ends with mk all the same, and its ports are free at once.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::program::c_string;
use crate::net::user::{self, Kind};
use crate::path::shown;
use crate::sys::mount::{Attr, NewFs};
use crate::sys::namespace::{self, Namespaces, Side};
use crate::sys::process::{self, CStrings, CapabilitySet, Ending, Keep};
use crate::sys::signal::{self, Signal, SignalSet};
use crate::sys::{SysError, detach, place, stdio};

/// A helper that could not do its part.
#[derive(Debug, thiserror::Error)]
#[error("`{}` did not connect the container: {said}", .helper.display())]
pub struct Error {
    /// The program.
    pub helper: PathBuf,
    /// What it said, or how it ended.
    pub said: String,
}

/// How long the helper may take to listen on its socket once it is ready.
const PATIENCE: Duration = Duration::from_secs(5);
/// The most that is told of what a helper says, in bytes: a pipe takes that at once.
const MOST: usize = 2048;

/// The helper, as mk holds it. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Attendant {
    helper: PathBuf,
    handle: OwnedFd,
    said: OwnedFd,
    /// Nothing is ever written to it: that the kernel closes it when mk ends is the message.
    _line: OwnedFd,
}

/// What the helper's process 1 has of mk's.
struct Ends {
    /// Hangs up when mk ends.
    mk: OwnedFd,
    /// The container's network namespace.
    namespace: OwnedFd,
    /// Takes a word when the container is connected; the container waits for it.
    gate: OwnedFd,
    /// Takes why it is not.
    says: OwnedFd,
}

impl Attendant {
    /// Starts the helper that `call` says for the network `namespace`. It writes to `gate` when all is in place, and
    /// closes it without a word where something failed. This process must have one thread; signals are blocked in it
    /// that were not when it started, and `blocked_before` were.
    pub(super) fn start(
        call: &user::Uplink,
        namespace: OwnedFd,
        gate: OwnedFd,
        blocked_before: SignalSet,
    ) -> Result<Self, SysError> {
        let (mk, line) = process::pipe()?;
        let (said, says) = process::pipe()?;
        match namespace::clone(Namespaces::PID.with(Namespaces::MOUNT))? {
            Side::Parent { handle, .. } => Ok(Self {
                helper: call.helper.path.clone(),
                handle,
                said,
                _line: line,
            }),
            Side::Child => {
                drop((said, line));
                let ends = Ends {
                    mk,
                    namespace,
                    gate,
                    says,
                };
                attend(call, ends, blocked_before)
            }
        }
    }

    /// Returns why the container was not connected, where it was not and has ended for that.
    pub(super) fn failure(&self) -> Option<Error> {
        let mut words = [0; MOST];
        let [told] = process::poll([self.said.as_fd()], Some(Duration::ZERO)).ok()?;
        let length = if told {
            process::read(&self.said, &mut words).ok()?
        } else {
            0
        };
        (length > 0).then(|| Error {
            helper: self.helper.clone(),
            said: String::from_utf8_lossy(&words[..length]).into_owned(),
        })
    }
}

impl Drop for Attendant {
    fn drop(&mut self) {
        let _ = signal::send(self.handle.as_fd(), Signal::KILL);
        // With it, all that it has started has ended.
        let _ = process::wait(self.handle.as_fd());
    }
}

/// Why the container is not connected.
enum Fault {
    /// A call of ours failed.
    Sys(SysError),
    /// In words, the helper's own where it had any.
    Said(String),
}

impl From<SysError> for Fault {
    fn from(failed: SysError) -> Self {
        Self::Sys(failed)
    }
}

/// Process 1: starts the helper, has it connect the container, and stays with it. It has one thread, so it may allocate.
fn attend(call: &user::Uplink, ends: Ends, blocked_before: SignalSet) -> ! {
    let said = match connect(call, &ends, blocked_before) {
        Ok(words) => {
            let _ = process::write(&ends.gate, b"g");
            stay(&words)
        }
        Err(Fault::Sys(failed)) => failed.to_string(),
        Err(Fault::Said(said)) => said,
    };
    let said = said.as_bytes();
    let _ = process::write(&ends.says, &said[..said.len().min(MOST)]);
    // Only now does the container learn of it, whose end has mk look here.
    process::exit_now(super::exit::MK_FAILED.into())
}

/// Returns where the helper goes on to say things.
fn connect(call: &user::Uplink, ends: &Ends, blocked_before: SignalSet) -> Result<OwnedFd, Fault> {
    process::die_with_parent()?;
    // It may have ended before the call above.
    if process::is_hung_up(ends.mk.as_fd())? {
        process::exit_now(super::exit::MK_FAILED.into());
    }
    // `^C` reaches the helper through mk.
    process::own_session()?;
    process::rename(c"mk-uplink");
    go_to_work(call.helper.kind)?;
    let (words, speaks) = process::pipe()?;
    let (ready, tells) = process::pipe()?;
    let (waits, go) = process::pipe()?;
    let kept = [&ends.mk, &ends.namespace, &ends.gate, &ends.says];
    let pipes = [&words, &speaks, &ready, &tells, &waits, &go];
    process::close_all_but(&Keep::of(kept.into_iter().chain(pipes).map(AsFd::as_fd)))?;
    detach::forget_standard_files()?;
    let program = Program::new(call, &ends.namespace)?;
    let handle = match namespace::clone(Namespaces::NOTHING)? {
        Side::Parent { handle, .. } => handle,
        Side::Child => {
            drop(go);
            program.become_helper(&waits, &tells, &speaks, blocked_before)
        }
    };
    drop((speaks, tells, waits));
    // The helper opens the namespace through this process, which must not have more privileges than it has for that
    // (ptrace(2), `PTRACE_MODE_READ_FSCREDS`).
    process::set_capabilities(CapabilitySet::empty(), CapabilitySet::empty())?;
    process::write(&go, b"1")?;
    if let Err(ending) = wait_until_ready(call.helper.kind, &handle, &ready)? {
        return Err(Fault::Said(last_words(words, ending)));
    }
    for request in call.requests() {
        ask(&request)?;
    }
    Ok(words)
}

/// Goes to a folder that nobody else sees, where the helper makes a socket there.
fn go_to_work(kind: Kind) -> Result<(), SysError> {
    if kind == Kind::Pasta {
        return place::go(c"/");
    }
    let private = Attr {
        read_only: false,
        no_suid: true,
        no_dev: true,
        no_exec: true,
    };
    let folder = NewFs::open(c"tmpfs")?.mount(private)?;
    place::go_to(folder.as_fd())
}

/// What becomes the helper.
struct Program {
    path: std::ffi::CString,
    arguments: CStrings,
}

impl Program {
    fn new(call: &user::Uplink, namespace: &OwnedFd) -> Result<Self, Fault> {
        // Its number as the outside has it, which `/proc` shows.
        let own = fs_err::read_link("/proc/self").map_err(|error| Fault::Said(error.to_string()))?;
        let path = format!("/proc/{}/fd/{}", own.display(), namespace.as_raw_fd());
        let text =
            |text: &[u8]| c_string("an argument", text).map_err(|error| Fault::Said(error.to_string()));
        let words: Result<Vec<_>, Fault> = call
            .arguments(&path)
            .iter()
            .map(|word| text(word.as_bytes()))
            .collect();
        Ok(Self {
            path: text(call.helper.path.as_os_str().as_encoded_bytes())?,
            arguments: CStrings::new(words?),
        })
    }

    /// Becomes the helper, once `waits` has a word: it says on `tells`, its standard input, that it is ready.
    fn become_helper(&self, waits: &OwnedFd, tells: &OwnedFd, speaks: &OwnedFd, blocked: SignalSet) -> ! {
        let ready = || -> Result<(), SysError> {
            if process::read(waits, &mut [0])? == 0 {
                process::exit_now(super::exit::MK_FAILED.into());
            }
            stdio::set_standard(0, tells.as_fd())?;
            stdio::set_standard(2, speaks.as_fd())?;
            // Rust's runtime ignores SIGPIPE, and a helper may take signals for its own that are as they usually are.
            signal::reset(signal::ignored())?;
            signal::set_blocked(blocked).map(drop)
        };
        let failed = match ready() {
            Ok(()) => SysError::new(
                process::exec(&self.path, &self.arguments, &CStrings::new(Vec::new())),
                "execve",
            ),
            Err(failed) => failed,
        };
        let _ = process::write(speaks, failed.to_string().as_bytes());
        process::exit_now(super::exit::CANNOT_EXECUTE.into())
    }
}

/// Waits until the helper has connected the container, or has ended without.
fn wait_until_ready(kind: Kind, handle: &OwnedFd, ready: &OwnedFd) -> Result<Result<(), Ending>, SysError> {
    if kind == Kind::Slirp && process::read(ready, &mut [0])? == 1 {
        return Ok(Ok(()));
    }
    // pasta(1) goes on in another process, and ends here.
    Ok(match (kind, process::wait(handle.as_fd())?) {
        (Kind::Pasta, Ending::Code(0)) => Ok(()),
        (_, ending) => Err(ending),
    })
}

/// Returns what a helper that has ended said, without what is of no interest.
fn last_words(words: OwnedFd, ending: Ending) -> String {
    let mut text = Vec::new();
    let _ = std::fs::File::from(words)
        .take(MOST as u64)
        .read_to_end(&mut text);
    let text = String::from_utf8_lossy(&text);
    // What a helper says when there is nobody that keeps logs.
    let lines = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.ends_with("bytes to syslog"));
    let said: Vec<String> = lines.map(|line| shown(line.as_bytes())).collect();
    match (said.is_empty(), ending) {
        (false, _) => said.join("; "),
        (true, Ending::Code(code)) => format!("it exited with {code}"),
        (true, Ending::Signal(number)) => format!("signal {number} ended it"),
    }
}

/// Asks slirp4netns(1), in whose working folder this process is, for a port.
fn ask(request: &str) -> Result<(), Fault> {
    let said = |text: String| Fault::Said(format!("{text}, asked for {request}"));
    let exchange = || {
        let mut socket = reach_socket()?;
        socket.write_all(request.as_bytes())?;
        socket.shutdown(Shutdown::Write)?;
        let mut answer = Vec::new();
        socket.take(MOST as u64).read_to_end(&mut answer)?;
        Ok(answer)
    };
    let answer = exchange().map_err(|error: std::io::Error| said(error.to_string()))?;
    let answer: serde_json::Value =
        serde_json::from_slice(&answer).map_err(|error| said(error.to_string()))?;
    match answer.get("error") {
        None => Ok(()),
        Some(error) => {
            let why = error.get("desc").and_then(|desc| desc.as_str());
            Err(said(why.unwrap_or("it refused").to_owned()))
        }
    }
}

/// Connects to the socket, which is there a moment after the helper says that it is ready.
fn reach_socket() -> std::io::Result<UnixStream> {
    let begin = Instant::now();
    loop {
        match UnixStream::connect(user::SOCKET) {
            Err(_) if begin.elapsed() < PATIENCE => std::thread::sleep(Duration::from_millis(1)),
            connected => return connected,
        }
    }
}

/// Reaps what ends in here, and ends when nothing is left.
fn stay(words: &OwnedFd) -> ! {
    let _ = place::go(c"/");
    let _ = process::close_all_but(&Keep::of([words.as_fd()]));
    // Whoever says something that nobody reads would wait, or end.
    drain(words.as_fd());
    loop {
        match process::reap() {
            Ok(Some(_)) => {}
            Ok(None) => drop(signal::wait_for(SignalSet::of(&[Signal::CHILD]))),
            Err(_) => process::exit_now(0),
        }
    }
}

fn drain(words: BorrowedFd<'_>) {
    let mut piece = [0; 512];
    while matches!(stdio::read(words, &mut piece), Ok(1..)) {}
}
