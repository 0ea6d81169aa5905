//! Compiles the filter of system calls that runs get by default, for each architecture, into the library.

#![expect(
    dead_code,
    unreachable_pub,
    reason = "its modules are the library's, which uses the rest of them"
)]

use std::fmt::Write as _;
use std::path::Path;

use calls::Arch;

#[path = "src/seccomp/calls.rs"]
mod calls;
#[path = "src/seccomp/compile.rs"]
mod compile;
#[path = "src/seccomp/profile.rs"]
mod profile;
#[path = "src/seccomp/standard.rs"]
mod standard;

#[expect(
    clippy::disallowed_methods,
    reason = "cargo tells a build script by its environment where it may write"
)]
fn main() {
    println!("cargo::rerun-if-changed=src/seccomp");
    let mut text = String::new();
    for arch in Arch::ALL {
        let profile = standard::standard(arch, standard::USUAL);
        let program = compile::compile(&profile).expect("mk bug: the default profile is too long");
        let name = match arch {
            Arch::X86_64 => "X86_64",
            Arch::Aarch64 => "AARCH64",
        };
        let length = program.len();
        writeln!(text, "const {name}: [u64; {length}] = {program:#x?};").expect("a string takes it");
    }
    let folder = std::env::var_os("OUT_DIR").expect("cargo says where");
    std::fs::write(Path::new(&folder).join("filters.rs"), text).expect("cargo's folder can be written to");
}
