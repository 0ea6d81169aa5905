//! Makes the files that [`Streams`] decided on: those that the child puts in the places of standard input, output and
//! error, and the ends that mk keeps.

use std::os::fd::{AsFd, OwnedFd};

use crate::spec::streams::{Callers, Keys, Size, Stdio, Streams};
use crate::sys::terminal::{self, Modes, Pair};
use crate::sys::{SysError, process, stdio};

/// Looks at what this process's own standard streams are.
pub fn look() -> Callers {
    let is_terminal = |number| stdio::standard(number).is_ok_and(terminal::is_terminal);
    let terminals = [0, 1, 2].map(is_terminal);
    Callers {
        terminals,
        size: first(terminals).map_or(Size::default(), |number| size_of(number).unwrap_or_default()),
    }
}

fn first(terminals: [bool; 3]) -> Option<u8> {
    (0..3).find(|&number| terminals[usize::from(number)])
}

fn size_of(number: u8) -> Option<Size> {
    let (rows, columns) = terminal::size(stdio::standard(number).ok()?).ok()?;
    Some(Size { rows, columns })
}

/// What the child puts in place; nothing where a stream is the caller's or the terminal.
#[derive(Debug, Default)]
pub(super) struct Theirs([Option<OwnedFd>; 3]);

/// What mk keeps: the other end of each pipe.
#[derive(Debug, Default)]
pub(super) struct Ours(pub(super) [Option<OwnedFd>; 3]);

/// Makes what `streams` needs besides the terminal; of a run on files of the caller's that is nothing. `input` stands in the
/// place of an input that is nothing.
pub(super) fn make(streams: &Streams, input: Option<&[u8]>) -> Result<(Theirs, Ours), SysError> {
    let (mut theirs, mut ours) = (Theirs::default(), Ours::default());
    for (at, one) in streams.each.into_iter().enumerate() {
        match one {
            Stdio::Caller | Stdio::Terminal => {}
            Stdio::Null => {
                theirs.0[at] = Some(match input {
                    Some(text) if at == 0 => stdio::text(text)?,
                    _ => stdio::open_null()?,
                });
            }
            Stdio::Pipe => {
                let (reader, writer) = process::pipe()?;
                let (inside, outside) = if at == 0 {
                    (reader, writer)
                } else {
                    (writer, reader)
                };
                stdio::do_not_wait(&outside)?;
                theirs.0[at] = Some(inside);
                ours.0[at] = Some(outside);
            }
        }
    }
    Ok((theirs, ours))
}

impl Theirs {
    /// Puts pipes and nothing in place, in the child. Keeps to the stack, as what follows.
    pub(super) fn take(&self) -> Result<(), SysError> {
        for (number, file) in (0..).zip(&self.0) {
            if let Some(file) = file {
                stdio::set_standard(number, file.as_fd())?;
            }
        }
        Ok(())
    }
}

/// Gives a new terminal its size, modes and owner, as long as this process may give files away.
pub(super) fn dress(pair: &Pair, streams: &Streams, uid: u32) -> Result<(), SysError> {
    let Some(wanted) = &streams.terminal else {
        return Ok(());
    };
    let slave = pair.slave.as_fd();
    terminal::set_size(slave, wanted.size.rows, wanted.size.columns)?;
    let mut modes = Modes::of(slave)?.with_characters();
    if wanted.keys != Keys::Each {
        // The caller's terminal still does to the output what a terminal does; twice would be wrong.
        modes = modes.with_plain_output();
    }
    if wanted.keys == Keys::Lines {
        modes = modes.without_echo();
    }
    modes.set(slave)?;
    if uid != 0 {
        terminal::give_to(slave, uid)?;
    }
    Ok(())
}

/// Puts the terminal in place, and makes it the controlling one, in the child, which leads a session of its own.
pub(super) fn take_terminal(pair: &Pair, streams: &Streams) -> Result<(), SysError> {
    let slave = pair.slave.as_fd();
    if streams.terminal.is_some_and(|terminal| terminal.controlling) {
        terminal::control(slave)?;
    }
    for (number, one) in (0..).zip(streams.each) {
        if one == Stdio::Terminal {
            stdio::set_standard(number, slave)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::streams::Wanted;

    #[test]
    fn files_of_the_callers_cost_nothing() {
        let (theirs, ours) = make(&Streams::default(), None).unwrap();
        assert!(theirs.0.iter().chain(&ours.0).all(Option::is_none));
    }

    #[test]
    fn a_pipe_has_an_end_on_either_side() {
        let wanted = Wanted {
            detached: true,
            ..Wanted::default()
        };
        let (theirs, ours) = make(&Streams::decide(wanted, Callers::default()), None).unwrap();
        assert!(theirs.0.iter().all(Option::is_some));
        assert_eq!(ours.0.each_ref().map(Option::is_some), [false, true, true]);
        let mut bytes = [0; 4];
        // It does not wait for what is not there.
        assert!(process::read(ours.0[1].as_ref().unwrap(), &mut bytes).is_err());
        process::write(theirs.0[1].as_ref().unwrap(), b"out").unwrap();
        assert_eq!(process::read(ours.0[1].as_ref().unwrap(), &mut bytes).unwrap(), 3);
    }
}
