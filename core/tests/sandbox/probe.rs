//! What runs inside to make system calls that no usual program makes: this same program, called as `run --call …`.

use std::path::Path;

use mk_core::seccomp::Arch;

use super::{Out, Sandbox, say};

/// Makes the calls that `words` name, such as `clone3`, `599` or `socket:40:1:0`, and prints what came of each: `ok`, or
/// the number of the error.
#[expect(
    unsafe_code,
    reason = "the calls are made to be refused; what is not changes nothing that this process still needs"
)]
#[expect(
    clippy::print_stdout,
    reason = "the answer to the test that started this program"
)]
pub(crate) fn call(words: impl Iterator<Item = String>) {
    for word in words {
        let mut fields = word.split(':');
        let name = fields.next().unwrap();
        if name == "thread" {
            std::thread::spawn(|| println!("thread ok")).join().unwrap();
            continue;
        }
        if name == "ids" {
            let [uid, euid] = [rustix::process::getuid(), rustix::process::geteuid()];
            println!("ids {} {}", uid.as_raw(), euid.as_raw());
            continue;
        }
        if name == "int80" {
            println!("int80 {}", old_abi());
            continue;
        }
        let mut arguments = [0; 4];
        for (argument, text) in arguments.iter_mut().zip(fields) {
            *argument = number(text).unwrap();
        }
        let [a, b, c, d] = arguments;
        let number = number(name).or_else(|| known(name)).expect(name);
        // SAFETY: see above; every pointer is NULL.
        let returned = unsafe { nix::libc::syscall(number, a, b, c, d) };
        match returned {
            -1 => println!("{word} {}", nix::errno::Errno::last_raw()),
            _ if name == "keyctl" => println!("{word} {returned}"),
            _ => println!("{word} ok"),
        }
    }
}

fn number(text: &str) -> Option<i64> {
    match text.strip_prefix("0x") {
        Some(digits) => i64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

fn known(name: &str) -> Option<i64> {
    let mut calls = Arch::HERE.calls();
    calls.find_map(|(known, number)| (known == name).then_some(number.into()))
}

/// Asks for the process id as 32-bit programs do.
#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "no other way leads to the calls of 32-bit programs")]
fn old_abi() -> i32 {
    let mut returned: i32 = 20;
    // SAFETY: `getpid` of the 32-bit calls takes nothing and changes nothing but what it returns.
    unsafe {
        std::arch::asm!("int 0x80", inout("eax") returned, out("r8") _, out("r9") _, out("r10") _, out("r11") _)
    };
    returned
}

#[cfg(not(target_arch = "x86_64"))]
fn old_abi() -> i32 {
    0
}

impl Sandbox {
    /// Makes `calls` inside, and returns what came of each; nothing where this program cannot run there.
    pub(crate) fn calls(&self, options: &[&str], calls: &str) -> Option<Out> {
        let program = std::env::current_exe().unwrap();
        let volume = format!("{}:/probe:ro", Path::new(&program).display());
        let probe = ["-v", volume.as_str(), "/probe", "--call"];
        let out = self.run(
            options
                .iter()
                .copied()
                .chain(probe)
                .chain(calls.split_ascii_whitespace()),
        );
        if out.code == Some(126) {
            say("skipped: needs tests that are static programs");
            return None;
        }
        Some(out)
    }
}
