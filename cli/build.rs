//! Has the linker put the functions side by side that a run of mk executes (`order.txt`).
//!
//! They are 700 kB of 11 MB of code, and a run took 99 page faults for it, each of which maps 64 KiB; it takes 11 now. That is
//! 0.91 of the time of a run, as the median of 300 in turns, of a file that the kernel reads from the disk (docs/decisions/0028).

use std::fmt::Write;
use std::path::Path;
use std::{env, io};

#[expect(
    clippy::disallowed_methods,
    reason = "cargo tells a build script by its environment what it builds"
)]
fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=order.txt");
    let told = |name| env::var(name).unwrap_or_default();
    // A program that is built to be looked for mistakes in has other functions.
    if told("PROFILE") != "release"
        || told("CARGO_CFG_TARGET_OS") != "linux"
        || !understands(&told("CARGO_ENCODED_RUSTFLAGS"))
    {
        return Ok(());
    }
    let script = Path::new(&told("OUT_DIR")).join("order.ld");
    fs_err::write(&script, sections(&fs_err::read_to_string("order.txt")?))?;
    println!("cargo::rustc-link-arg-bin=mk=-T");
    println!("cargo::rustc-link-arg-bin=mk={}", script.display());
    Ok(())
}

/// Whether the linker is one that adds what it is told here to what it does by itself (`INSERT`): Rust's own, which is LLVM's,
/// and the GNU one. Others are chosen by a flag (`-fuse-ld=mold`).
fn understands(flags: &str) -> bool {
    let chosen = flags
        .rsplit('\u{1f}')
        .find_map(|flag| flag.split_once("-fuse-ld="));
    chosen.is_none_or(|(_, linker)| ["lld", "bfd"].contains(&linker))
}

/// Returns the linker script. Each function is in a section of its own, which the compiler calls after it; after LLVM has
/// taken the crates together, some have a suffix, and what is hardly ever called has another beginning. The C library follows as a
/// whole.
fn sections(order: &str) -> String {
    let mut script = "SECTIONS {\n  .text.first : {\n".to_owned();
    for name in order.lines().filter(|line| !line.starts_with('#')) {
        for start in [".text", ".text.unlikely"] {
            _ = writeln!(script, "    *({start}.{name} {start}.{name}.*)");
        }
    }
    script + "    *libc.a:*(.text .text.*)\n  }\n} INSERT BEFORE .text;\n"
}
