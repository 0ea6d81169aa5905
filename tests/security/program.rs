//! The attacker's side: this very test program, which is static, started in a container with a word in `MK_ATTACK`.

#![expect(
    clippy::disallowed_methods,
    reason = "an attacker tries many files, and says nothing of those that it cannot open"
)]

use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::SECRET;

/// How the program is started to act.
pub(super) const WORDS: [&str; 4] = [
    "--exact",
    "security::program::acts",
    "--nocapture",
    "--test-threads=1",
];

/// Says what came of it, behind a word that the test framework does not use.
fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "\nattack: {text}");
}

/// Does what `MK_ATTACK` says, and nothing where this is an ordinary test run.
#[test]
fn acts() {
    let act = std::env::var("MK_ATTACK").unwrap_or_default();
    match &*act {
        "" => {}
        "push" => push(),
        "who" => say(&format!("effective user {}", rustix::process::geteuid().as_raw())),
        "hunt" => hunt(),
        other => panic!("there is no attack `{other}`"),
    }
}

/// Pushes a letter into the input of the terminal on standard input.
fn push() {
    let letter = b'x';
    #[expect(unsafe_code, reason = "no library offers this request")]
    // SAFETY: TIOCSTI reads one byte.
    let returned = unsafe { nix::libc::ioctl(0, nix::libc::TIOCSTI, &raw const letter) };
    say(&match returned {
        0 => "pushed".to_owned(),
        _ => format!("not pushed: {}", std::io::Error::last_os_error()),
    });
}

/// How long the hunter waits for prey where nobody ends the hunt.
const HUNT: Duration = Duration::from_secs(120);

/// Looks at every process that comes along, until there is a file at `MK_ATTACK_UNTIL`; says which one of them it could
/// get something out of that is the host's, and writes to the programs that it caught.
fn hunt() {
    say("hunting");
    let begin = Instant::now();
    let until = PathBuf::from(std::env::var("MK_ATTACK_UNTIL").unwrap_or_default());
    let mut caught = std::collections::BTreeMap::new();
    while begin.elapsed() < HUNT && !until.exists() {
        for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let proc = entry.path();
            let is_process = entry.file_name().to_string_lossy().parse::<u32>().is_ok();
            if is_process && !proc.ends_with("1") {
                caught.extend(catch(&proc));
                caught.extend(read_environment(&proc));
            }
        }
    }
    let below = std::env::var("MK_ATTACK_BELOW").unwrap_or_default();
    for (what, program) in caught {
        say(&format!("caught {what}"));
        // Whatever a test catches by mistake is a program of this machine.
        let is_prey = !below.is_empty() && what.starts_with(&below);
        if let Some(program) = program.filter(|_| is_prey) {
            overwrite(&program);
        }
    }
    say("done");
}

/// Reads what the host's processes have in their environment, and nobody in the container.
fn read_environment(proc: &Path) -> Option<(String, Option<File>)> {
    let environment = std::fs::read(proc.join("environ")).ok()?;
    let found = environment
        .split(|&byte| byte == 0)
        .any(|entry| entry.ends_with(SECRET.as_bytes()));
    found.then(|| ("an environment of the host's".into(), None))
}

/// Opens what a process has that is not this container's: the file of a program that is not where its name says, or the
/// memory and the files of one whose program cannot be told.
fn catch(proc: &Path) -> Option<(String, Option<File>)> {
    let named = match std::fs::read_link(proc.join("exe")) {
        Ok(named) => named,
        Err(refused) if refused.kind() == std::io::ErrorKind::PermissionDenied => return look_into(proc),
        // It has ended, and nobody has reaped it yet.
        Err(_) => return None,
    };
    let program = File::open(proc.join("exe")).ok()?;
    let found = program.metadata().ok()?;
    let here =
        std::fs::metadata(&named).is_ok_and(|here| (here.dev(), here.ino()) == (found.dev(), found.ino()));
    // One without a name is gone with the last process that runs it.
    let caught = !here && found.nlink() > 0 && !is_read_only(&program);
    caught.then(|| (named.display().to_string(), Some(program)))
}

/// Whether the filesystem of a program is read-only. Of one that is only mounted so, the kernel says first that it runs.
fn is_read_only(program: &File) -> bool {
    const EROFS: i32 = 30;
    let path = format!("/proc/self/fd/{}", program.as_raw_fd());
    let opened = File::options().write(true).open(path);
    opened.is_err_and(|refused| refused.raw_os_error() == Some(EROFS))
}

/// Writes to the file of a program as soon as nobody runs it.
fn overwrite(program: &File) {
    let path = format!("/proc/self/fd/{}", program.as_raw_fd());
    let written = (0..200).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        let opened = File::options().write(true).open(&path);
        opened.and_then(|mut file| file.write_all(b"overwritten")).is_ok()
    });
    say(if written { "overwritten" } else { "not overwritten" });
}

/// Opens the memory and the files of a process whose program cannot be told.
fn look_into(proc: &Path) -> Option<(String, Option<File>)> {
    let memory = File::options().read(true).write(true).open(proc.join("mem"));
    // Their numbers tell nothing; what counts is what they lead to.
    let mut files = std::fs::read_dir(proc.join("fd")).into_iter().flatten().flatten();
    let files = files.any(|file| std::fs::read_link(file.path()).is_ok());
    let caught = match std::fs::read_link(proc.join("exe")) {
        // It hides from its first moment until it executes its command, so it did all the while.
        Err(refused) if refused.kind() == std::io::ErrorKind::PermissionDenied => memory.is_ok() || files,
        // It has executed its command meanwhile, and what was opened may be that one's.
        Ok(_) => memory.is_ok_and(|memory| is_gone(&memory) && std::fs::read_link(proc.join("exe")).is_ok()),
        Err(_) => false,
    };
    caught.then(|| ("the memory or the files of a hidden one".into(), None))
}

/// Whether nobody has `memory` any more: whoever had it has executed a program since, or ended. Any address will do: of
/// memory that is gone there is nothing to be read, and where there is a process nothing but an error (`mem_rw` in
/// fs/proc/base.c).
fn is_gone(memory: &File) -> bool {
    matches!(memory.read_at(&mut [0], 0), Ok(0))
}
