//! Entries → Tree. Pure.
