//! What this kernel can do: the code behind docs/kernel.md.

use super::SysError;

/// The oldest kernel that mk runs on: it has `mount_setattr`.
pub const OLDEST: (u32, u32) = (5, 12);

/// A kernel that mk does not run on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Linux {release} is too old: expected {}.{} or newer", OLDEST.0, OLDEST.1)]
pub struct TooOld {
    /// What the kernel calls itself (uname(2)).
    pub release: String,
}

/// Returns what the running kernel calls itself, such as `6.1.0-18-amd64`.
pub fn release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

/// Says why a call that this kernel does not know failed: it is too old, or something forbids the call.
pub fn explain(failed: &SysError) -> Option<TooOld> {
    if failed.errno != super::Errno::NOSYS {
        return None;
    }
    check_release(&release()).err()
}

/// Checks that a kernel that calls itself `release` is new enough. A name that tells no version passes.
pub fn check_release(release: &str) -> Result<(), TooOld> {
    let mut numbers = release
        .split(|letter: char| !letter.is_ascii_digit())
        .map(|digits| digits.parse::<u32>().ok());
    match (numbers.next().flatten(), numbers.next().flatten()) {
        (Some(major), Some(minor)) if (major, minor) < OLDEST => Err(TooOld {
            release: release.to_owned(),
        }),
        _ => Ok(()),
    }
}

/// Checks the running kernel.
pub fn check() -> Result<(), TooOld> {
    check_release(&release())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_told_apart_by_number_and_not_by_text() {
        for old in ["5.4.0-100-generic", "5.11.22", "4.18.0-553.el8", "3.10.0"] {
            assert!(check_release(old).is_err(), "{old} was accepted");
        }
        for new in [
            "5.12",
            "5.12.0-rc1",
            "5.15.0",
            "6.1.0-18-amd64",
            "10.0.1",
            "strange",
        ] {
            assert!(check_release(new).is_ok(), "{new} was refused");
        }
    }

    #[test]
    fn an_old_kernel_is_named() {
        let text = check_release("5.4.0").unwrap_err().to_string();
        assert_eq!(text, "Linux 5.4.0 is too old: expected 5.12 or newer");
    }
}
