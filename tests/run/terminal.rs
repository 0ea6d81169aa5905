//! Terminals: what a person at one sees and can do, what they find afterwards, and what stays a pipe. The caller's
//! terminal is a real one, made for the test.

use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use mk_core::sys::stdio;
use mk_core::sys::terminal::{self, Modes, Pair};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{boxed, eventually, marker, processes_with};
use crate::harness::{Sandbox, needs};

/// Somebody's terminal, with all that it has shown.
struct Desk {
    pair: Pair,
    shown: Arc<Mutex<Vec<u8>>>,
}

impl Desk {
    /// Makes one of 24 lines and 80 columns.
    fn new() -> Self {
        let made = nix::pty::openpty(None, None).unwrap();
        let pair = Pair {
            master: kept_here(made.master),
            slave: kept_here(made.slave),
        };
        stdio::do_not_wait(&pair.master).unwrap();
        terminal::set_size(&pair.master, 24, 80).unwrap();
        let shown = Arc::new(Mutex::new(Vec::new()));
        let (master, into) = (copy(&pair.master), shown.clone());
        // Ends with the test's process: the other side of the terminal stays open.
        std::thread::spawn(move || watch(&master, &into));
        Self { pair, shown }
    }

    /// Starts `command` here, as a login would: with a session of its own, which this terminal controls. What `change`
    /// does to standard input, output and error comes last.
    fn start(&self, command: &Command, change: impl FnOnce(&mut Command)) -> Child {
        let mut started = Command::new("/usr/bin/setsid");
        started.arg("--ctty").arg("--wait");
        started.arg(command.get_program()).args(command.get_args());
        started.env_clear().env("TERM", "xterm");
        started.envs(
            command
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        );
        started.current_dir(command.get_current_dir().unwrap());
        started
            .stdin(copy(&self.pair.slave))
            .stdout(copy(&self.pair.slave));
        started.stderr(copy(&self.pair.slave));
        change(&mut started);
        started.spawn().unwrap()
    }

    /// Types `keys`.
    fn types(&self, keys: &str) {
        let mut rest = keys.as_bytes();
        while !rest.is_empty() {
            // Nobody may be reading yet.
            let took = rustix::io::write(&self.pair.master, rest).unwrap_or(0);
            rest = &rest[took..];
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.shown.lock().unwrap()).into_owned()
    }

    /// Waits until `text` is shown, and forgets what was until then.
    #[track_caller]
    fn shows(&self, text: &str) {
        let begin = std::time::Instant::now();
        loop {
            let mut shown = self.shown.lock().unwrap();
            let found = shown
                .windows(text.len())
                .position(|window| window == text.as_bytes());
            if let Some(at) = found {
                shown.drain(..at + text.len());
                return;
            }
            drop(shown);
            assert!(
                begin.elapsed() < super::SOON,
                "{text:?} was not shown: {:?}",
                self.text()
            );
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
    }

    fn modes(&self) -> Modes {
        Modes::of(&self.pair.slave).unwrap()
    }

    /// Waits until somebody takes the keys as they are struck.
    #[track_caller]
    fn is_raw(&self) {
        eventually("raw keys", || !self.modes().are_lines());
    }

    /// Waits until the modes are `before` again.
    #[track_caller]
    fn is_as(&self, before: &Modes) {
        eventually("the terminal as it was", || self.modes() == *before);
    }
}

/// Keeps `file` from whatever this process starts.
fn kept_here(file: OwnedFd) -> OwnedFd {
    stdio::copy(file.as_fd()).unwrap()
}

fn copy(file: &OwnedFd) -> OwnedFd {
    file.try_clone().unwrap()
}

fn watch(master: &OwnedFd, into: &Mutex<Vec<u8>>) {
    let mut bytes = [0; 4096];
    loop {
        match rustix::io::read(master, &mut bytes) {
            Ok(0) => return,
            Ok(got) => into.lock().unwrap().extend_from_slice(&bytes[..got]),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            Err(_) => return,
        }
    }
}

/// Returns `mk run box` with these options and words.
fn run(sandbox: &Sandbox, words: &[&str]) -> Command {
    let mut command = sandbox.command();
    command.args(["run", "box"]).args(words);
    command
}

/// Returns a call of `program` in the surroundings of `mk`.
fn with_program(mk: &Command, program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    command.envs(mk.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.current_dir(mk.get_current_dir().unwrap());
    command
}

/// A shell without line editing, whose prompt is told from what is typed.
const SHELL: [&str; 6] = ["-e", "PS1=ready:", "sh", "-c", "exec sh -i", "sh"];

fn shell(sandbox: &Sandbox, desk: &Desk) -> Child {
    let child = desk.start(&run(sandbox, &SHELL), |_| {});
    desk.shows("ready:");
    child
}

#[track_caller]
fn code(mut child: Child) -> Option<i32> {
    eventually("the end", || child.try_wait().unwrap().is_some());
    child.wait().unwrap().code()
}

#[test]
fn a_shell_has_a_terminal_of_the_containers_own() {
    let Some(sandbox) = boxed("") else { return };
    let desk = Desk::new();
    let before = desk.modes();
    let child = shell(&sandbox, &desk);
    desk.is_raw();
    desk.types("tty; echo TERM is $TERM; test -c /dev/console && echo there is a console; ls /dev/pts\r");
    desk.shows("/dev/pts/0\r\n");
    desk.shows("TERM is xterm\r\n");
    desk.shows("there is a console\r\n");
    desk.shows("ready:");
    assert!(!desk.text().contains("can't access tty"), "{}", desk.text());
    desk.types("echo typed >/dev/console; stty size\r");
    desk.shows("typed\r\n");
    desk.shows("24 80\r\n");
    terminal::set_size(&desk.pair.master, 33, 101).unwrap();
    // It takes its time until the news has gone round.
    desk.types("until stty size | grep '33 1''01'; do usleep 20000; done\r");
    desk.shows("33 101\r\n");
    desk.types("exit 7\r");
    assert_eq!(code(child), Some(7));
    assert!(desk.modes() == before, "the modes are not what they were");
}

#[test]
fn keys_stop_and_end_the_job_and_not_the_shell() {
    let Some(sandbox) = boxed("") else { return };
    let desk = Desk::new();
    let child = shell(&sandbox, &desk);
    let seconds = marker();
    let sleeping = || !processes_with(&format!("sleep\0{seconds}")).is_empty();
    desk.types(&format!("sleep {seconds}\r"));
    eventually("the sleep", sleeping);
    desk.types("\x03");
    desk.shows("ready:");
    eventually("its end", || !sleeping());
    desk.types("echo code $?\r");
    desk.shows("code 130\r\n");
    desk.types(&format!("sleep {seconds}\r"));
    eventually("another sleep", sleeping);
    desk.types("\x1a");
    desk.shows("Stopped");
    desk.types("echo between; fg\r");
    desk.shows("between\r\n");
    desk.shows(&format!("sleep {seconds}\r\n"));
    assert!(sleeping());
    desk.types("\x03");
    eventually("the end of that too", || !sleeping());
    desk.types("exit\r");
    code(child);
}

#[test]
fn a_killed_mk_leaves_a_terminal_as_it_was() {
    let Some(sandbox) = boxed("") else { return };
    for signal in [Signal::SIGKILL, Signal::SIGTERM, Signal::SIGABRT] {
        let desk = Desk::new();
        let before = desk.modes();
        let seconds = marker();
        let child = desk.start(&run(&sandbox, &["sleep", &seconds]), |_| {});
        desk.is_raw();
        kill(Pid::from_raw(child.id() as i32), signal).unwrap();
        code(child);
        desk.is_as(&before);
        eventually("the container's end", || processes_with(&seconds).is_empty());
    }
}

#[test]
fn modes_that_somebody_else_has_set_meanwhile_stay() {
    let Some(sandbox) = boxed("") else { return };
    let desk = Desk::new();
    let other = desk.modes().without_echo();
    let child = shell(&sandbox, &desk);
    desk.is_raw();
    other.set(&desk.pair.slave).unwrap();
    kill(Pid::from_raw(child.id() as i32), Signal::SIGKILL).unwrap();
    code(child);
    // The keeper has long ended by then.
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert!(desk.modes() == other);
}

#[test]
fn a_terminal_that_is_gone_ends_the_shell() {
    let Some(sandbox) = boxed("") else { return };
    let desk = Desk::new();
    let seconds = marker();
    let script = format!("sleep {seconds}; exit 1");
    let child = desk.start(&run(&sandbox, &["sh", "-c", &script]), |_| {});
    desk.is_raw();
    kill(Pid::from_raw(child.id() as i32), Signal::SIGHUP).unwrap();
    assert_eq!(code(child), Some(129));
    assert!(processes_with(&seconds).is_empty());
}

#[test]
fn what_is_no_terminal_stays_the_file_that_it_is() {
    let Some(sandbox) = boxed("") else { return };
    // Standard input from a pipe, the rest on the terminal: what is printed is shown as it is, and nothing is raw.
    let desk = Desk::new();
    let before = desk.modes();
    let script = "test -p /dev/stdin && test -t 1 && test -t 2 && cat; stty size <&1; echo end";
    let mut piped = sandbox.command();
    let mk = piped.get_program().to_owned();
    let call = "printf 'one\\ntwo\\n' | \"$@\"";
    piped = with_program(&piped, "/bin/sh");
    piped
        .args(["-c", call, "sh"])
        .arg(mk)
        .args(["run", "box", "sh", "-c", script]);
    let child = desk.start(&piped, |_| {});
    desk.shows("one\r\ntwo\r\n24 80\r\nend\r\n");
    assert_eq!(code(child), Some(0));
    assert!(desk.modes() == before);
    // Standard output into a pipe: it is byte-exact, and what is typed comes in lines, for a pager may want the keys.
    let script = "test -t 0 && test -p /dev/stdout && read line && printf 'a\\nb\\0%s' \"$line\"";
    let child = desk.start(&run(&sandbox, &["sh", "-c", script]), |command| {
        command.stdout(Stdio::piped());
    });
    assert!(desk.modes() == before);
    desk.types("typed\r");
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.stdout, b"a\nb\0typed");
    assert!(desk.modes() == before);
}

#[test]
fn the_end_of_what_is_typed_in_lines_is_one_for_the_command() {
    let Some(sandbox) = boxed("") else { return };
    let desk = Desk::new();
    for (options, kind) in [(&[][..], "-t"), (&["-T"], "-p")] {
        let script = format!(
            "test {kind} {} && cat",
            if kind == "-t" { "0" } else { "/dev/stdin" }
        );
        let words = [options, &["sh", "-c", &script]].concat();
        let child = desk.start(&run(&sandbox, &words), |command| {
            command.stdout(Stdio::piped());
        });
        desk.types("first\rlast\r\x04");
        let output = child.wait_with_output().unwrap();
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            "first\nlast\n",
            "{options:?}"
        );
    }
}

#[test]
fn a_terminal_can_be_had_where_mk_has_none() {
    let Some(sandbox) = boxed("") else { return };
    let with_input = |words: &[&str], input: &[u8]| {
        let mut child = run(&sandbox, words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        let writer = std::thread::spawn(move || {
            stdin.write_all(&input).unwrap();
        });
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap();
        (
            String::from_utf8_lossy(&output.stdout).into_owned(),
            output.status.code(),
        )
    };
    // The end of the input is one for each who reads.
    let script = "stty -echo; tty; cat; echo again; cat; echo end";
    let (text, exit) = with_input(&["-it", "sh", "-c", script], b"");
    assert_eq!(
        (text.as_str(), exit),
        ("/dev/pts/0\nagain\nend\n", Some(0)),
        "{text:?}"
    );
    let (text, exit) = with_input(&["-t", "sh"], b"echo $((6*7))\n");
    assert!(text.contains("42\n") && exit == Some(0), "{exit:?} {text:?}");
    // More than any buffer holds, at once in both directions.
    let lines: String = (0..200_000).map(|number| format!("{number}\n")).collect();
    let script = "stty -echo; exec <&-; seq 0 199999";
    let (text, _) = with_input(&["-t", "sh", "-c", script], b"");
    assert!(text == lines, "{} bytes came of {}", text.len(), lines.len());
    let script = "stty -echo; echo go; cat";
    let (text, exit) = with_input(&["-t", "sh", "-c", script], lines.as_bytes());
    assert_eq!(exit, Some(0));
    assert!(text.ends_with("199999\n"), "{:?}", &text[text.len().min(200)..]);
}

#[test]
fn no_terminal_is_given_where_none_is_wanted() {
    let Some(sandbox) = boxed("") else { return };
    let desk = Desk::new();
    let script = "test -p /dev/stdin && test -p /dev/stdout && test -p /dev/stderr && echo pipes; tty; read x; echo got $x >&2";
    let child = desk.start(&run(&sandbox, &["-T", "sh", "-c", script]), |_| {});
    desk.shows("pipes\r\n");
    desk.shows("not a tty\r\n");
    desk.types("it\r");
    desk.shows("got it\r\n");
    assert_eq!(code(child), Some(0));
}

#[test]
fn a_run_in_the_background_leaves_the_terminal_to_the_shell() {
    let Some(sandbox) = boxed("") else { return };
    let Some(bash) = needs::program("bash") else {
        return;
    };
    let desk = Desk::new();
    let mk = sandbox.command();
    let mut shell = with_program(&mk, bash);
    shell.args(["--norc", "--noediting", "-i"]);
    shell.env("PS1", "host:").env("MK", mk.get_program());
    let shell = desk.start(&shell, |_| {});
    desk.shows("host:");
    let before = desk.modes();
    desk.types("$MK run box sh -c 'echo begun; read x; echo got $x; read y; echo then $y' & echo\r");
    desk.shows("begun\r");
    assert!(
        desk.modes() == before,
        "a run in the background changed the modes"
    );
    // What is typed is the shell's, as long as that is in front.
    desk.types("echo $((6*7))\r");
    desk.shows("42\r\n");
    desk.types("fg\r");
    desk.is_raw();
    desk.types("keys\r");
    desk.shows("got keys\r\n");
    // Asked to stop by somebody else, mk gives the terminal back first, and takes it again afterwards.
    let mk = processes_with("read x; echo got")
        .into_iter()
        .filter(|pid| {
            fs_err::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "mk")
        })
        .min();
    kill(Pid::from_raw(mk.unwrap() as i32), Signal::SIGTSTP).unwrap();
    desk.shows("Stopped");
    desk.is_as(&before);
    desk.types("fg\r");
    desk.is_raw();
    desk.types("more\r");
    desk.shows("then more\r\n");
    desk.shows("host:");
    desk.is_as(&before);
    desk.types("exit\r");
    code(shell);
}

/// A person's terminal multiplexer, from typing the command to the prompt after it.
#[test]
fn a_person_works_in_tmux() {
    let Some(sandbox) = boxed("") else { return };
    let Some(tmux) = needs::program("tmux") else {
        return;
    };
    let socket = sandbox.work().join("tmux");
    let tmux = |words: &[&str]| {
        let mk = sandbox.command();
        let mut command = Command::new(&tmux);
        command
            .arg("-S")
            .arg(&socket)
            .args(["-f", "/dev/null"])
            .args(words);
        command
            .env_clear()
            .env("SHELL", "/bin/sh")
            .env("LC_ALL", "C.UTF-8");
        command.envs(mk.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.current_dir(sandbox.work()).stdin(Stdio::null());
        let output = command.output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let screen = || tmux(&["capture-pane", "-p", "-t", "desk"]);
    let shows = |text: &str| {
        let begin = std::time::Instant::now();
        while !screen().lines().any(|line| line.trim_end() == text) {
            assert!(
                begin.elapsed() < super::SOON,
                "{text:?} is not on the screen:\n{}",
                screen()
            );
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    };
    let types = |text: &str, key: &str| {
        tmux(&["send-keys", "-t", "desk", "-l", text]);
        tmux(&["send-keys", "-t", "desk", key]);
    };
    let new = [
        "new-session",
        "-d",
        "-s",
        "desk",
        "-x",
        "80",
        "-y",
        "24",
        "env PS1='host$ ' sh",
    ];
    tmux(&new);
    let mk = sandbox.command().get_program().to_string_lossy().into_owned();
    types("stty -a >before", "Enter");
    types(&format!("clear; {mk} run box -e PS1='in: '"), "Enter");
    shows("in:");
    // Line editing: the last letter goes, and one is put in before.
    types("echo acx", "BSpace");
    tmux(&["send-keys", "-t", "desk", "Left"]);
    types("b", "Enter");
    shows("abc");
    types("sleep 1000", "Enter");
    std::thread::sleep(std::time::Duration::from_millis(300));
    tmux(&["send-keys", "-t", "desk", "C-c"]);
    types("echo code $?", "Enter");
    shows("code 130");
    tmux(&["resize-window", "-t", "desk", "-x", "70", "-y", "20"]);
    std::thread::sleep(std::time::Duration::from_millis(300));
    types("stty size", "Enter");
    shows("20 70");
    types("exit", "Enter");
    shows("host$");
    types(
        "clear; stty -a >after; grep -v rows before >b; grep -v rows after >a; cmp a b && echo same",
        "Enter",
    );
    shows("same");
    tmux(&["kill-server"]);
}

#[test]
fn a_shell_opens_where_a_step_of_a_build_has_failed() {
    let Some(sandbox) = boxed("") else { return };
    let recipe = "from = 'rootfs.tar.gz'\n[[step]]\nrun = 'echo left >/left; exit 7'\nworkdir = '/bin'\nenv = { NAME = 'value' }\n\
        mounts = [{ copy = 'app.toml', at = '/recipe' }]\n";
    sandbox.write("app.toml", recipe);
    let desk = Desk::new();
    let mut mk = sandbox.command();
    mk.args(["build", "app.toml", "--shell-on-failure"]);
    let child = desk.start(&mk, |_| ());
    desk.shows("this shell is where it was");
    desk.types("echo $NAME-$PWD-$(cat /left)-$(wc -l </recipe); touch /left\r");
    desk.shows("value-/bin-left-6");
    desk.types("exit\r");
    desk.shows("the command exited with 7");
    assert_eq!(code(child), Some(1));
    let rootfs = fs_err::read_dir(sandbox.store().join("scratch")).unwrap().count();
    assert_eq!(rootfs, 0);
}
