//! The kernel, as safe calls.
