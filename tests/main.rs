//! One binary of tests over the real `mk`. What can be tested lower down is tested there.

/// A home, a store and a folder of their own for each test, and the `mk` to call there.
mod harness;

/// The command line itself: help, version, what goes to which stream, exit codes.
mod cli;

/// Wrong recipes and wrong command lines, each one that a person would write, with the whole answer as a snapshot.
mod mistakes;

/// What README.md and docs/ show in `console` blocks, typed as a newcomer would.
mod docs;
