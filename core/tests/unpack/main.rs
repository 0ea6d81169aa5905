//! What `unpack::entries` makes of archives: built in code, made by other programs, and damaged ones.

use std::io::Read;

use mk_core::entry::{Entry, Kind};
use mk_core::unpack::{BadArchive, Body, Limits, Summary, entries};

/// How archives are made here.
mod make;

/// Every form of tar and of Debian packages.
mod forms;

/// Damage, bombs and visits that fail: errors, never a panic and never a hang.
mod damage;

/// Archives made by tar, bsdtar and dpkg-deb, and the fixtures.
mod peers;

type Seen = Entry<Vec<u8>>;

/// Reads a whole body.
fn whole(mut body: Body<'_>) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    body.read_to_end(&mut bytes)?;
    assert_eq!(bytes.len() as u64, body.size(), "a body is as long as it says");
    Ok(bytes)
}

/// Unpacks all of it.
fn unpack_with(archive: &[u8], limits: &Limits) -> Result<(Vec<Seen>, Summary), BadArchive> {
    let mut seen = Vec::new();
    let summary = entries::<BadArchive>("test.tar", archive, limits, &mut |entry| {
        // A body that cannot be read is the archive's fault, which `entries` reports by itself.
        seen.extend(entry.try_map(|body, _| whole(body)));
        Ok(())
    })?;
    assert_eq!(summary.entries, seen.len() as u64);
    Ok((seen, summary))
}

fn unpack(archive: &[u8]) -> Result<Vec<Seen>, BadArchive> {
    unpack_with(archive, &Limits::default()).map(|(seen, _)| seen)
}

/// Each entry in a line, for comparing.
fn lines(seen: &[Seen]) -> Vec<String> {
    seen.iter().map(line).collect()
}

fn line(entry: &Seen) -> String {
    let what = match &entry.kind {
        Kind::File(bytes) => format!("file {}", bytes.len()),
        Kind::Folder => "folder".into(),
        Kind::Symlink(target) => format!("symlink {}", String::from_utf8_lossy(target)),
        Kind::HardLink(target) => format!("link {target}"),
        Kind::Device { block, major, minor } => {
            format!("{} {major},{minor}", if *block { "block" } else { "character" })
        }
        Kind::Fifo => "fifo".into(),
    };
    let meta = &entry.meta;
    format!(
        "{} {:04o} {}:{} {} {what}",
        entry.path, meta.mode, meta.uid, meta.gid, meta.mtime
    )
}
