//! An error → what to do about it: the one place that knows sysctls and distributions.

use std::error::Error;
use std::io;

use crate::excerpt::Excerpt;
use crate::report::Failing;
use crate::settings;

/// Returns advice for `error`, looking at it and all its causes, the outermost first.
pub(crate) fn advice(error: &(dyn Error + 'static)) -> Option<String> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(advice) = of_one(error) {
            return Some(advice);
        }
        next = error.source();
    }
    None
}

fn of_one(error: &(dyn Error + 'static)) -> Option<String> {
    if let Some(failing) = error.downcast_ref::<Failing>() {
        return failing.hint.clone();
    }
    if let Some(excerpt) = error.downcast_ref::<Excerpt>() {
        return excerpt.hint().map(str::to_owned);
    }
    if let Some(error) = error.downcast_ref::<settings::Error>() {
        return of_settings(error);
    }
    of_kind(error.downcast_ref::<io::Error>()?.kind())
}

fn of_settings(error: &settings::Error) -> Option<String> {
    match error {
        settings::Error::NoStore => Some("say where with `--store DIR` or `MK_STORE`".into()),
        settings::Error::Config(excerpt) => excerpt.hint().map(str::to_owned),
        _ => None,
    }
}

fn of_kind(kind: io::ErrorKind) -> Option<String> {
    let advice = match kind {
        io::ErrorKind::StorageFull => {
            "the disk is full: `mk gc` frees what no image needs, `--store DIR` keeps images on another disk"
        }
        io::ErrorKind::QuotaExceeded => {
            "your disk quota is used up: `mk gc` frees what no image needs, `--store DIR` keeps images elsewhere"
        }
        io::ErrorKind::ReadOnlyFilesystem => "it is mounted read-only: `--store DIR` keeps images elsewhere",
        _ => return None,
    };
    Some(advice.into())
}

/// Where a kernel says whether an ordinary user may make a user namespace, what it says when not, and how to allow it.
const NAMESPACE_SWITCHES: [(&str, &str, &str); 3] = [
    (
        "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "AppArmor keeps programs without a profile from user namespaces (Ubuntu 23.10 and later): \
         `sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0`, or a profile for mk with `userns,`",
    ),
    (
        "/proc/sys/kernel/unprivileged_userns_clone",
        "0",
        "this kernel (Debian 10, Arch hardened) keeps user namespaces for root: \
         `sudo sysctl -w kernel.unprivileged_userns_clone=1`",
    ),
    (
        "/proc/sys/user/max_user_namespaces",
        "0",
        "user namespaces are switched off: `sudo sysctl -w user.max_user_namespaces=15000` \
         (RHEL and CentOS 7 ship with 0)",
    ),
];

/// Returns why this machine may forbid user namespaces, and what to do.
pub(crate) fn namespaces_forbidden() -> String {
    namespaces_forbidden_by(|path| fs_err::read_to_string(path).ok())
}

fn namespaces_forbidden_by(read: impl Fn(&str) -> Option<String>) -> String {
    for (path, off, advice) in NAMESPACE_SWITCHES {
        if read(path).is_some_and(|text| text.trim() == off) {
            return advice.into();
        }
    }
    "no sysctl forbids user namespaces here; in a container, its seccomp profile does: start it with \
     `--security-opt seccomp=unconfined`, or call mk as root"
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_switch_that_is_off_is_the_one_that_is_named() {
        for (path, off, advice) in NAMESPACE_SWITCHES {
            let read = |asked: &str| (asked == path).then(|| format!("{off}\n"));
            assert_eq!(namespaces_forbidden_by(read), advice);
        }
        assert!(namespaces_forbidden_by(|_| None).contains("seccomp"));
    }

    #[test]
    fn advice_is_found_below_other_errors() {
        let full = Failing::new("cannot write").because(io::Error::from(io::ErrorKind::StorageFull));
        // The outer error has no advice of its own, so that of its cause is given.
        assert!(advice(&full).unwrap().contains("mk gc"));
        assert_eq!(advice(&Failing::new("x").hint("y")).as_deref(), Some("y"));
        assert_eq!(advice(&Failing::new("x")), None);
    }
}
