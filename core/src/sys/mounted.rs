//! What is mounted where a file lies, as `/proc` tells it (proc_pid_mountinfo(5)).

use std::os::fd::{AsRawFd, BorrowedFd};

/// Returns what the kernel calls the filesystem of an open file, such as `ext4`; `None` where `/proc` does not say.
pub fn kind_of(file: BorrowedFd<'_>) -> Option<String> {
    let number = file.as_raw_fd();
    let info = fs_err::read_to_string(format!("/proc/self/fdinfo/{number}")).ok()?;
    let mount = info.lines().find_map(|line| line.strip_prefix("mnt_id:"))?.trim();
    let mounts = fs_err::read("/proc/self/mountinfo").ok()?;
    kind_in(&String::from_utf8_lossy(&mounts), mount)
}

/// Finds the mount with this id: `36 35 98:0 /root /point rw shared:1 - ext4 /dev/root rw`.
fn kind_in(mounts: &str, id: &str) -> Option<String> {
    let line = mounts.lines().find(|line| line.split(' ').next() == Some(id))?;
    let (_, rest) = line.split_once(" - ")?;
    rest.split(' ').next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filesystem_is_known_by_the_id_of_its_mount() {
        let mounts = "21 1 254:0 / / rw,noatime - ext4 /dev/vda rw\n\
                      36 21 0:33 / /srv/a\\040b rw shared:1 master:2 - nfs4 host:/x rw,vers=4\n";
        assert_eq!(kind_in(mounts, "21").as_deref(), Some("ext4"));
        assert_eq!(kind_in(mounts, "36").as_deref(), Some("nfs4"));
        assert_eq!(kind_in(mounts, "3"), None);
    }

    #[test]
    fn the_kind_of_an_open_file_is_told() {
        use std::os::fd::AsFd;
        let file = fs_err::File::open("/proc/self/status").unwrap();
        assert_eq!(kind_of(file.as_fd()).as_deref(), Some("proc"));
    }
}
