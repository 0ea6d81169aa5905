//! [`Late`]: the arguments of a command, which clap hears of only where that command is called. To describe all of them
//! to it costs a hundred page faults: `mk run busybox true` took 6.65 ms with that, and takes 5.27 without
//! (docs/performance.md).

use clap::{ArgMatches, Args, Command, Error, FromArgMatches};

/// Arguments of a command, described when they are needed. What a list of commands says of one stands at its place in
/// [`super::Command`].
#[derive(Debug)]
pub(crate) struct Late<A>(pub(crate) Box<A>);

impl<A: Args> Args for Late<A> {
    fn augment_args(command: Command) -> Command {
        command.defer(describe::<A>)
    }

    fn augment_args_for_update(command: Command) -> Command {
        command.defer(A::augment_args_for_update)
    }
}

/// Tells clap of the arguments. What the command is for was said at its place, and not by what some of them have in common.
fn describe<A: Args>(command: Command) -> Command {
    let about = command.get_about().cloned().unwrap_or_default();
    A::augment_args(command).about(about).long_about(None)
}

impl<A: FromArgMatches> FromArgMatches for Late<A> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        A::from_arg_matches(matches).map(|args| Self(Box::new(args)))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        self.0.update_from_arg_matches(matches)
    }
}
