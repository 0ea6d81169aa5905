//! [`Streams`]: what a command's standard input, output and error are. Pure: what the caller's own are comes in as
//! [`Callers`].
//!
//! A terminal of the caller's never is one of them. A program that holds it could read what its user types elsewhere,
//! change its modes, and push text into it that the user's shell takes for typed. In its place stands a terminal of
//! the container's own, and mk carries the bytes between the two. A pipe or a file, though, is handed on as it is.

use std::fmt;

/// What the caller's standard input, output and error are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Callers {
    /// Which of the three are terminals.
    pub terminals: [bool; 3],
    /// The size of the first of them that is one.
    pub size: Size,
}

/// The size of a terminal, in characters. 0: nobody knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Size {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
}

/// What was asked of the streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wanted {
    /// `-t`: a terminal in any case; `-T`: in none. Left out: where the caller has one.
    pub terminal: Option<bool>,
    /// `-i`: standard input stays open, also for a command that nobody is connected to.
    pub open_input: bool,
    /// Whether nobody is connected: what the command prints goes to a log.
    pub detached: bool,
}

/// What one of the three is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Stdio {
    /// The very file that the caller has there.
    #[default]
    Caller,
    /// The container's terminal.
    Terminal,
    /// A pipe, with mk at its other end.
    Pipe,
    /// Nothing: no input, and output that is gone (`/dev/null`).
    Null,
}

/// Where mk takes what is typed on the container's terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keys {
    /// From the caller's terminal, which is raw meanwhile: each key as it is struck, `^C` and `^Z` among them.
    Each,
    /// From the caller's terminal, which stays as it is: whole lines. Somebody else, a pager at the other end of a
    /// pipe perhaps, may be using it too.
    Lines,
    /// From the file that is mk's standard input. Its end is `^D`.
    File,
    /// From nowhere.
    Nowhere,
}

/// A terminal of the container's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terminal {
    /// Whether it is the command's controlling terminal: `^C` and `^Z` act on it, `/dev/tty` is it.
    pub controlling: bool,
    /// Where mk takes what is typed on it.
    pub keys: Keys,
    /// Its size.
    pub size: Size,
}

/// What a command's standard input, output and error are. The default: what the caller's are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Streams {
    /// Standard input, output and error.
    pub each: [Stdio; 3],
    /// Whether nobody is connected: what comes out of terminal and pipes is for whoever keeps the log, and what goes
    /// into them is nothing, without an end.
    pub detached: bool,
    /// The terminal, where one of the three is it.
    pub terminal: Option<Terminal>,
}

impl Streams {
    /// Decides.
    pub fn decide(wanted: Wanted, callers: Callers) -> Self {
        let each = match (wanted.terminal, wanted.detached) {
            (Some(true), _) => [Stdio::Terminal; 3],
            (_, true) => {
                let input = if wanted.open_input {
                    Stdio::Pipe
                } else {
                    Stdio::Null
                };
                [input, Stdio::Pipe, Stdio::Pipe]
            }
            (forbidden, false) => callers
                .terminals
                .map(|is_terminal| match (is_terminal, forbidden) {
                    (false, _) => Stdio::Caller,
                    (true, None) => Stdio::Terminal,
                    (true, Some(_)) => Stdio::Pipe,
                }),
        };
        Self {
            each,
            detached: wanted.detached,
            terminal: each
                .contains(&Stdio::Terminal)
                .then(|| terminal(each, wanted, callers)),
        }
    }

    /// Whether mk has nothing to carry: all three are the caller's own files, or nothing.
    pub fn are_direct(&self) -> bool {
        self.each
            .iter()
            .all(|one| matches!(one, Stdio::Caller | Stdio::Null))
    }
}

fn terminal(each: [Stdio; 3], wanted: Wanted, callers: Callers) -> Terminal {
    let [input, output, _] = callers.terminals;
    let keys = match each[0] {
        _ if wanted.detached => Keys::Nowhere,
        Stdio::Terminal if !input => Keys::File,
        // What is printed elsewhere may be read by a program that wants the keys for itself (`mk run … | less`).
        Stdio::Terminal if output || wanted.terminal == Some(true) => Keys::Each,
        Stdio::Terminal => Keys::Lines,
        _ => Keys::Nowhere,
    };
    Terminal {
        controlling: each[0] == Stdio::Terminal,
        keys,
        size: callers.size,
    }
}

/// Such as `input terminal, output caller's, errors caller's`.
impl fmt::Display for Streams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [input, output, errors] = self.each;
        write!(f, "input {input}, output {output}, errors {errors}")
    }
}

impl fmt::Display for Stdio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Caller => "caller's",
            Self::Terminal => "terminal",
            Self::Pipe => "pipe",
            Self::Null => "none",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: bool = true;
    const F: bool = false;

    fn decide(terminal: Option<bool>, detached: bool, terminals: [bool; 3]) -> Streams {
        let wanted = Wanted {
            terminal,
            open_input: false,
            detached,
        };
        let size = Size {
            rows: 24,
            columns: 80,
        };
        Streams::decide(wanted, Callers { terminals, size })
    }

    fn shown(streams: Streams) -> String {
        let letters = streams.each.map(|one| match one {
            Stdio::Caller => 'c',
            Stdio::Terminal => 't',
            Stdio::Pipe => 'p',
            Stdio::Null => 'n',
        });
        let keys = streams.terminal.map(|terminal| match terminal.keys {
            Keys::Each => " each",
            Keys::Lines => " lines",
            Keys::File => " file",
            Keys::Nowhere => " nowhere",
        });
        letters.iter().collect::<String>() + keys.unwrap_or_default()
    }

    #[test]
    fn terminals_are_the_containers_own_and_all_else_is_the_callers() {
        for (terminals, expected) in [
            ([F, F, F], "ccc"),
            ([T, T, T], "ttt each"),
            ([F, T, T], "ctt nowhere"),
            ([F, F, T], "cct nowhere"),
            ([T, T, F], "ttc each"),
            ([T, F, T], "tct lines"),
            ([T, F, F], "tcc lines"),
        ] {
            let streams = decide(None, false, terminals);
            assert_eq!(shown(streams), expected, "{terminals:?}");
            let controlling = streams.terminal.is_some_and(|terminal| terminal.controlling);
            assert_eq!(controlling, terminals[0], "{terminals:?}");
        }
    }

    #[test]
    fn a_terminal_can_be_forced_and_forbidden() {
        for (terminals, forced, forbidden) in [
            ([F, F, F], "ttt file", "ccc"),
            ([T, T, T], "ttt each", "ppp"),
            ([T, F, F], "ttt each", "pcc"),
            ([F, T, T], "ttt file", "cpp"),
        ] {
            assert_eq!(
                shown(decide(Some(true), false, terminals)),
                forced,
                "{terminals:?}"
            );
            assert_eq!(
                shown(decide(Some(false), false, terminals)),
                forbidden,
                "{terminals:?}"
            );
        }
    }

    #[test]
    fn a_detached_command_gets_nothing_of_the_callers() {
        for terminals in [[F, F, F], [T, T, T]] {
            assert_eq!(shown(decide(None, true, terminals)), "npp");
            assert_eq!(shown(decide(Some(false), true, terminals)), "npp");
            assert_eq!(shown(decide(Some(true), true, terminals)), "ttt nowhere");
        }
        let open = Wanted {
            terminal: None,
            open_input: true,
            detached: true,
        };
        assert_eq!(shown(Streams::decide(open, Callers::default())), "ppp");
    }

    #[test]
    fn no_choice_hands_a_terminal_of_the_callers_in() {
        for number in 0..8 {
            let terminals = [number & 1 != 0, number & 2 != 0, number & 4 != 0];
            for terminal in [None, Some(true), Some(false)] {
                for detached in [false, true] {
                    let each = decide(terminal, detached, terminals).each;
                    let handed = each.iter().zip(terminals);
                    assert!(
                        !handed.into_iter().any(|(one, is)| is && *one == Stdio::Caller),
                        "{terminals:?} {terminal:?} {detached}"
                    );
                }
            }
        }
    }

    #[test]
    fn files_only_need_nobody_to_carry_bytes() {
        assert!(decide(None, false, [F, F, F]).are_direct());
        assert!(!decide(None, false, [F, F, T]).are_direct());
        assert!(!decide(None, true, [F, F, F]).are_direct());
    }
}
