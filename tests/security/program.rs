//! The attacker's side: this very test program, which is static, started in a container with a word in `MK_ATTACK`.

use std::io::Write;

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
    #[expect(
        clippy::disallowed_methods,
        reason = "this is how the program is told what to do"
    )]
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

/// Looks for processes whose program is not in this container, opens that, and tries to trace them, for three seconds.
fn hunt() {
    let begin = std::time::Instant::now();
    say("hunting");
    let mut caught = std::collections::BTreeSet::new();
    while begin.elapsed() < std::time::Duration::from_secs(3) {
        for entry in fs_err::read_dir("/proc").into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.parse::<u32>().is_ok() && name != "1" {
                caught.extend(catch(&name));
            }
        }
    }
    caught.iter().for_each(|text| say(text));
    say("done");
}

/// Opens what a process that is no program of the image holds.
fn catch(pid: &str) -> Option<String> {
    let proc = std::path::Path::new("/proc").join(pid);
    let program = fs_err::read_link(proc.join("exe")).ok()?;
    // A path that is not here, or is another file, is the host's.
    let shown = program.display().to_string();
    let foreign = !program.exists() || shown.contains("(deleted)") || shown.contains("memfd");
    let opened = fs_err::File::open(proc.join("exe")).is_ok();
    let memory = fs_err::File::open(proc.join("mem")).is_ok();
    (foreign && (opened || memory)).then(|| format!("caught {shown}"))
}
