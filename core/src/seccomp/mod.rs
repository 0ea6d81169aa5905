//! Which system calls a program may make: a [`Profile`] as data, compiled to what the kernel takes. Pure.
//!
//! `calls`, `profile`, `compile` and `standard` use nothing else of this crate, because the build script includes them:
//! the filter that most runs get is compiled when mk is.

use std::borrow::Cow;

/// System calls by name and number.
pub mod calls;
/// Profile → program.
pub mod compile;
/// Docker's JSON format of profiles → Profile.
pub mod json;
/// Profiles as data.
pub mod profile;
/// The profile of runs that ask for no other.
pub mod standard;

#[cfg(test)]
mod tests;

pub use calls::Arch;
pub use profile::Profile;

use standard::{Capabilities, SWITCHES, USUAL};

/// The filters that the build script has compiled.
mod compiled {
    use super::Arch;

    include!(concat!(env!("OUT_DIR"), "/filters.rs"));

    /// Returns the one for `arch`.
    pub(super) const fn usual(arch: Arch) -> &'static [u64] {
        match arch {
            Arch::X86_64 => &X86_64,
            Arch::Aarch64 => &AARCH64,
        }
    }
}

/// A compiled filter: instructions of classic BPF, each as [`compile::Instruction`] encodes it.
pub type Filter = Cow<'static, [u64]>;

/// Returns the default filter for programs on `arch` that hold `kept`.
pub fn usual(arch: Arch, kept: Capabilities) -> Filter {
    if kept & SWITCHES == USUAL {
        return Cow::Borrowed(compiled::usual(arch));
    }
    // It has a fixed length, far below what the kernel takes.
    compile::compile(&standard::standard(arch, kept)).map_or(Cow::Borrowed(compiled::usual(arch)), Cow::Owned)
}
