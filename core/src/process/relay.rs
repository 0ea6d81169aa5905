//! [`Relay`]: carries bytes between the caller's files and the container's terminal or pipes.
//!
//! It never waits: each flow takes what there is and gives what there is room for, and says what it would wait for. So
//! a reader that is slow holds back its own flow, as a pipe would, and nothing else.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use super::console::Console;
use super::streams::Ours;
use super::{Output, Stream};
use crate::spec::streams::{Keys, Stdio, Streams};
use crate::sys::stdio::{self, Until};
use crate::sys::terminal::{self, Modes};
use crate::sys::{Errno, SysError};

/// How much a flow takes at once.
const ROOM: usize = 64 * 1024;
/// As much as a file that may make its writer wait takes without that, once it has room for anything (`PIPE_BUF`).
const SIP: usize = 4096;
/// The most flows that there are: one in, two out.
const FLOWS: usize = 3;
/// How long to wait before the key that ends the input is pressed, and pressed again, at first and at most. At first: a
/// program that has just started may still be about to choose how it reads, and would find the key a strange character.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Which flows wait for something.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Waiting([bool; FLOWS]);

/// All that mk carries for one container.
#[derive(Debug)]
pub(super) struct Relay {
    input: Option<Flow>,
    outputs: Vec<Flow>,
    /// Kept open where nothing is ever written, so that it has no end.
    _open_input: Option<OwnedFd>,
    terminal: Option<Ends>,
    /// A terminal of the caller's, where there is one: the size of ours follows it.
    sized_after: Option<OwnedFd>,
    controlling: bool,
    /// Whether the command has ended, and only what it has left behind is still to be carried.
    closing: bool,
}

/// The container's terminal, as mk holds it.
#[derive(Debug)]
struct Ends {
    master: OwnedFd,
    /// While somebody holds it, a terminal that no program has open at the moment has not ended.
    slave: Option<OwnedFd>,
}

/// One direction.
#[derive(Debug)]
struct Flow {
    from: Place,
    to: Place,
    held: Held,
    ended: bool,
    /// What the end of what is read becomes.
    ends: End,
    /// When the key that ends the input is to be pressed again.
    again: Option<Again>,
}

/// The end of a file stays an end: whoever reads once more finds it again. On a terminal it is a key, which is pressed
/// once more when all before has been read, less and less often.
#[derive(Debug)]
struct Again {
    at: Instant,
    pause: Duration,
}

/// Where bytes come from or go to.
#[derive(Debug)]
enum Place {
    /// A file. Reading or writing never waits.
    Ready(OwnedFd),
    /// A file that may make its reader or writer wait: it is asked before.
    Slow(OwnedFd),
    /// The caller's terminal, which is asked whether it is mk's turn.
    Console,
    /// The container's terminal.
    Terminal,
    /// Whoever keeps the log.
    Log(Stream),
}

/// What comes after the last byte that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The file on the other side is closed.
    Closes,
    /// The key that ends the input on a terminal, from then on.
    Key,
    /// The same, and it may come again: what is typed line by line has an end wherever `^D` is struck.
    KeyEachTime,
    /// Nothing: there is none.
    Never,
}

/// Bytes that were read and are not yet written.
#[derive(Debug)]
struct Held {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    /// Whether the last byte that was read ended a line; so it is where none was.
    whole_line: bool,
}

impl Held {
    fn new() -> Self {
        Self {
            bytes: Vec::new(),
            start: 0,
            end: 0,
            whole_line: true,
        }
    }

    fn is_empty(&self) -> bool {
        self.start == self.end
    }

    fn rest(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    fn fill(&mut self, from: BorrowedFd<'_>) -> Result<usize, Errno> {
        // Made when it is needed first: many a run reads nothing.
        self.bytes.resize(ROOM, 0);
        let got = stdio::read(from, &mut self.bytes)?;
        (self.start, self.end) = (0, got);
        if let Some(last) = self.rest().last() {
            self.whole_line = *last == b'\n';
        }
        Ok(got)
    }

    /// Puts `key` behind what is held.
    fn push(&mut self, key: u8) {
        self.bytes.truncate(self.end);
        self.bytes.push(key);
        self.end += 1;
        self.whole_line = true;
    }
}

/// What a flow needs that belongs to all of them.
struct Around<'a> {
    master: Option<BorrowedFd<'a>>,
    console: Option<&'a Console>,
    closing: bool,
}

/// What came of a step of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Move {
    /// Something was read or written.
    Made,
    /// It would have to wait.
    Waits,
    /// There is no more to come.
    Ended,
    /// Nobody takes what it gives.
    Refused,
}

impl Relay {
    /// Makes one for `streams`; `ours` are mk's ends of the pipes.
    pub(super) fn new(streams: &Streams, ours: Ours) -> Result<Self, SysError> {
        let keys = streams.terminal.map(|terminal| terminal.keys);
        let Ours([input, output, errors]) = ours;
        let mut open_input = None;
        let input = match (streams.each[0], input) {
            (Stdio::Pipe, pipe) if streams.detached => {
                open_input = pipe;
                None
            }
            (Stdio::Pipe, Some(pipe)) => Some(Flow::new(Place::Console, Place::Ready(pipe), End::Closes)),
            (Stdio::Terminal, _) => match keys {
                Some(Keys::Each) => Some(Flow::new(Place::Console, Place::Terminal, End::Never)),
                Some(Keys::Lines) => Some(Flow::new(Place::Console, Place::Terminal, End::KeyEachTime)),
                Some(Keys::File) => Some(Flow::new(Place::standard(0)?, Place::Terminal, End::Key)),
                _ => None,
            },
            _ => None,
        };
        let mut outputs = Vec::new();
        if streams.terminal.is_some() {
            // Where one of the two is the terminal, that is where it goes.
            let number = if streams.each[1] == Stdio::Terminal { 1 } else { 2 };
            let to = Place::output(number, Stream::Stdout, streams.detached)?;
            outputs.push(Flow::new(Place::Terminal, to, End::Closes));
        }
        for (number, stream, pipe) in [(1, Stream::Stdout, output), (2, Stream::Stderr, errors)] {
            if let Some(pipe) = pipe {
                let to = Place::output(number, stream, streams.detached)?;
                outputs.push(Flow::new(Place::Ready(pipe), to, End::Closes));
            }
        }
        Ok(Self {
            input,
            outputs,
            _open_input: open_input,
            terminal: None,
            sized_after: sized_after(streams)?,
            controlling: streams.terminal.is_some_and(|terminal| terminal.controlling),
            closing: false,
        })
    }

    /// Takes over the container's terminal, which was made meanwhile.
    pub(super) fn attach(&mut self, master: OwnedFd) -> Result<(), SysError> {
        let slave = terminal::other_side(master.as_fd())?;
        self.terminal = Some(Ends {
            master,
            slave: Some(slave),
        });
        self.resize();
        Ok(())
    }

    /// Gives the container's terminal the size of the caller's, and says whether its programs hear of that by
    /// themselves.
    pub(super) fn resize(&self) -> bool {
        if let (Some(ends), Some(callers)) = (&self.terminal, &self.sized_after)
            && let Ok((rows, columns)) = terminal::size(callers)
        {
            // It may be gone already, and then nobody needs it.
            let _ = terminal::set_size(&ends.master, rows, columns);
        }
        self.controlling && self.terminal.is_some()
    }

    /// Adds what it waits for, and returns which flows do. Of a console that is not mk's turn, none does.
    pub(super) fn waits_for<'a>(
        &'a self,
        console: Option<&'a Console>,
        list: &mut Vec<(BorrowedFd<'a>, Until)>,
    ) -> Waiting {
        let around = self.around(console);
        let mut waiting = Waiting::default();
        for (flow, waits) in self.flows().zip(&mut waiting.0) {
            if let Some(wanted) = flow.waits_for(&around) {
                list.push(wanted);
                *waits = true;
            }
        }
        waiting
    }

    /// Returns when it wants to carry on, even if nothing that it waits for has come.
    pub(super) fn wakes_at(&self) -> Option<Instant> {
        self.input
            .as_ref()
            .and_then(|flow| flow.again.as_ref())
            .map(|again| again.at)
    }

    /// Carries on: `ready` says of what [`Self::waits_for`] added, in the same order, whether it has come.
    pub(super) fn carry(
        &mut self,
        console: Option<&Console>,
        waiting: Waiting,
        ready: &[bool],
        output: &mut dyn Output,
    ) {
        let mut ready = ready.iter().copied();
        let come = waiting.0.map(|waits| waits && ready.next() == Some(true));
        self.press_again();
        self.advance(console, come, true, output);
    }

    /// Once the command has ended: nothing is typed any more, and what was printed is all there is.
    pub(super) fn close(&mut self, output: &mut dyn Output) {
        self.closing = true;
        self.input = None;
        match &mut self.terminal {
            Some(ends) => ends.slave = None,
            // It was killed before there was one.
            None => self.hang_up(),
        }
        self.advance(None, [true; FLOWS], false, output);
    }

    /// Presses the key that ends the input once more, where it is time to and what was typed before has been read.
    fn press_again(&mut self) {
        let (Some(flow), Some(ends)) = (&mut self.input, &self.terminal) else {
            return;
        };
        let Some(again) = &mut flow.again else { return };
        let now = Instant::now();
        if now < again.at {
            return;
        }
        again.pause = (again.pause * 2).min(LONGEST_PAUSE);
        again.at = now + again.pause;
        let slave = ends.slave.as_ref();
        if slave.is_none_or(|slave| terminal::unread(slave) > 0) {
            return;
        }
        if let Ok((keys, count)) = Modes::of(&ends.master).map(|modes| modes.keys_that_end()) {
            // Where there is no room for it, others are waiting to be read.
            let _ = stdio::write(ends.master.as_fd(), &keys[..count]);
        }
    }

    /// Whether all has been carried, after [`Self::close`].
    pub(super) fn is_done(&self) -> bool {
        self.outputs.is_empty()
    }

    fn flows(&self) -> impl Iterator<Item = &Flow> {
        self.input.iter().chain(&self.outputs)
    }

    fn around<'a>(&'a self, console: Option<&'a Console>) -> Around<'a> {
        Around {
            master: self.terminal.as_ref().map(|ends| ends.master.as_fd()),
            console,
            closing: self.closing,
        }
    }

    /// Lets each flow for which `goes` says so go on until it would have to wait. `asked`: what each waits for has come.
    fn advance(
        &mut self,
        console: Option<&Console>,
        goes: [bool; FLOWS],
        asked: bool,
        output: &mut dyn Output,
    ) {
        let around = Around {
            master: self.terminal.as_ref().map(|ends| ends.master.as_fd()),
            console,
            closing: self.closing,
        };
        let mut hung_up = false;
        let flows = self.input.iter_mut().chain(&mut self.outputs);
        for (flow, _) in flows.zip(goes).filter(|(_, goes)| *goes) {
            let last = flow.go_on(&around, asked, output);
            // The caller's terminal or whoever read what was printed is gone, and with it the other side of ours.
            hung_up |= match last {
                Move::Refused => matches!(flow.from, Place::Terminal),
                Move::Ended => matches!((&flow.from, flow.ends), (Place::Console, End::Never)),
                _ => false,
            };
        }
        self.input = self.input.take().filter(|flow| !flow.ended);
        self.outputs.retain(|flow| !flow.ended);
        if hung_up {
            self.hang_up();
        }
    }

    /// Lets the container's terminal go: its programs get SIGHUP, as those of every terminal that is gone.
    fn hang_up(&mut self) {
        self.terminal = None;
        self.input = self
            .input
            .take()
            .filter(|flow| !matches!(flow.to, Place::Terminal));
        self.outputs.retain(|flow| !matches!(flow.from, Place::Terminal));
    }
}

/// Returns the caller's terminal whose size counts.
fn sized_after(streams: &Streams) -> Result<Option<OwnedFd>, SysError> {
    if streams.terminal.is_none() || streams.detached {
        return Ok(None);
    }
    for number in 0..3 {
        let stream = stdio::standard(number)?;
        if terminal::is_terminal(&stream) {
            return Ok(Some(stream));
        }
    }
    Ok(None)
}

impl Place {
    /// Returns the caller's standard stream `number`.
    fn standard(number: u8) -> Result<Self, SysError> {
        let stream = stdio::standard(number)?;
        Ok(match stdio::open_again(stream.as_fd(), number > 0) {
            Some(again) => Self::Ready(again),
            None if stdio::is_regular(stream.as_fd()) => Self::Ready(stream),
            None => Self::Slow(stream),
        })
    }

    fn output(number: u8, stream: Stream, detached: bool) -> Result<Self, SysError> {
        if detached {
            Ok(Self::Log(stream))
        } else {
            Self::standard(number)
        }
    }

    /// Returns the file behind it, where there is one at the moment.
    fn file<'a>(&'a self, around: &Around<'a>) -> Option<BorrowedFd<'a>> {
        match self {
            Self::Ready(file) | Self::Slow(file) => Some(file.as_fd()),
            Self::Console => around
                .console
                .filter(|console| console.is_ours())
                .map(Console::as_file),
            Self::Terminal => around.master,
            Self::Log(_) => None,
        }
    }

    fn may_wait(&self) -> bool {
        matches!(self, Self::Slow(_) | Self::Console)
    }
}

impl Flow {
    fn new(from: Place, to: Place, ends: End) -> Self {
        Self {
            from,
            to,
            held: Held::new(),
            ended: false,
            ends,
            again: None,
        }
    }

    fn waits_for<'a>(&'a self, around: &Around<'a>) -> Option<(BorrowedFd<'a>, Until)> {
        if self.again.is_some() && self.held.is_empty() {
            None
        } else if self.held.is_empty() {
            Some((self.from.file(around)?, Until::Readable))
        } else {
            Some((self.to.file(around)?, Until::Writable))
        }
    }

    /// Goes on until it would have to wait, or has gone a good way. `asked`: it need not wait for the first step.
    fn go_on(&mut self, around: &Around<'_>, mut asked: bool, output: &mut dyn Output) -> Move {
        // Others want their turn: a source without end never makes its reader wait.
        const STEPS: usize = 16;
        let mut steps = 0;
        loop {
            let step = if self.held.is_empty() {
                self.read(around, asked)
            } else {
                self.write(around, output, asked)
            };
            asked = false;
            steps += 1;
            match step {
                Move::Made if around.closing || steps < STEPS => {}
                Move::Ended | Move::Refused => {
                    self.ended = true;
                    return step;
                }
                step => return step,
            }
        }
    }

    fn read(&mut self, around: &Around<'_>, asked: bool) -> Move {
        // Asking a file that makes its reader wait, after the end of everybody who could write, would be for ever.
        if self.again.is_some() || self.from.may_wait() && !asked {
            return Move::Waits;
        }
        let Some(from) = self.from.file(around) else {
            return Move::Waits;
        };
        match self.held.fill(from) {
            Err(Errno::AGAIN) if around.closing => Move::Ended,
            Err(Errno::AGAIN) => Move::Waits,
            Ok(got) if got > 0 => {
                self.push_on(around);
                Move::Made
            }
            // A terminal whose other side is gone has an end of its own kind (EIO).
            _ => self.end(around),
        }
    }

    /// What was typed line by line and does not end a line was sent by `^D`, and is sent on by it.
    fn push_on(&mut self, around: &Around<'_>) {
        if self.ends == End::KeyEachTime && !self.held.whole_line {
            self.press_end(around);
        }
    }

    fn end(&mut self, around: &Around<'_>) -> Move {
        match self.ends {
            End::KeyEachTime => match self.press_end(around) {
                true => Move::Made,
                false => Move::Ended,
            },
            End::Key => {
                // In the middle of a line the key only sends that line.
                if !self.held.whole_line {
                    self.press_end(around);
                }
                self.again = Some(Again {
                    at: Instant::now() + FIRST_PAUSE,
                    pause: FIRST_PAUSE,
                });
                Move::Made
            }
            // As long as there is a terminal, more can be typed.
            End::Never if around.console.is_some_and(Console::is_there) => Move::Waits,
            _ => Move::Ended,
        }
    }

    /// Types the key that ends the input, where the terminal has one now.
    fn press_end(&mut self, around: &Around<'_>) -> bool {
        let modes = around.master.and_then(|master| Modes::of(master).ok());
        let key = modes.and_then(|modes| modes.end_of_input());
        if let Some(key) = key {
            if self.held.is_empty() {
                (self.held.start, self.held.end) = (0, 0);
            }
            self.held.push(key);
        }
        key.is_some()
    }

    fn write(&mut self, around: &Around<'_>, output: &mut dyn Output, asked: bool) -> Move {
        if let Place::Log(stream) = self.to {
            output.take(stream, self.held.rest());
            self.held.start = self.held.end;
            return Move::Made;
        }
        if self.to.may_wait() && !asked {
            return Move::Waits;
        }
        let Some(to) = self.to.file(around) else {
            return Move::Refused;
        };
        let mut bytes = self.held.rest();
        if self.to.may_wait() {
            bytes = &bytes[..bytes.len().min(SIP)];
        }
        match stdio::write(to, bytes) {
            Ok(took) => {
                self.held.start += took;
                Move::Made
            }
            Err(Errno::AGAIN) => Move::Waits,
            Err(_) => Move::Refused,
        }
    }
}
