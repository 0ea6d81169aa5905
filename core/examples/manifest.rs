//! Says what an archive would be as a tree of mk's: its digest, and every path with what is there. Nothing is unpacked
//! to a disk, and nothing needs privileges.
//!
//! ```sh
//! cargo run -p mk-core --example manifest -- rootfs.tar.gz
//! ```
//!
//! The digest is that of the tree of an image with `from = "rootfs.tar.gz"` and no steps.

use std::error::Error;
use std::io::{self, Read, Write as _};

use mk_core::digest::HashReader;
use mk_core::entry::{Content, Entry};
use mk_core::tree::Tree;
use mk_core::unpack::{self, Limits};

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args_os()
        .nth(1)
        .ok_or("expected the path of an archive")?;
    let archive = fs_err::File::open(&path)?;
    let tree = tree(&path.to_string_lossy(), archive)?;
    let mut out = io::stdout().lock();
    writeln!(out, "# tree {}", tree.digest())?;
    out.write_all(&tree.encode())?;
    Ok(())
}

/// Returns the tree that an archive comes to.
fn tree(name: &str, archive: impl Read + Send) -> Result<Tree, Box<dyn Error>> {
    let mut entries: Vec<Entry<Content>> = Vec::new();
    let summary = unpack::entries::<Box<dyn Error>>(name, archive, &Limits::default(), &mut |entry| {
        // Of a file, a tree knows the digest and the length.
        let entry = entry.try_map(|body, _| -> io::Result<Content> {
            let mut body = HashReader::new(body);
            io::copy(&mut body, &mut io::sink())?;
            let (digest, size) = body.finish();
            Ok(Content { digest, size })
        });
        entries.push(entry?);
        Ok(())
    })?;
    // No time in a tree is later than its epoch: for an archive, the newest time in it.
    let epoch = summary.newest.unwrap_or_default();
    let mut tree = Tree::new(epoch);
    let mut layer = tree.layer(epoch);
    for entry in entries {
        layer.lay(entry)?;
    }
    Ok(tree)
}

#[test]
fn the_tree_of_an_archive_is_the_one_that_a_build_gives() {
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(3);
    header.set_mode(0o644);
    header.set_mtime(1_000_000_000);
    archive
        .append_data(&mut header, "etc/motd", &b"hi\n"[..])
        .unwrap();
    let tree = tree("motd.tar", &archive.into_inner().unwrap()[..]).unwrap();
    // As `mk build` has it of a recipe that says no more than `from = "motd.tar"`.
    assert_eq!(
        tree.digest().to_string(),
        "4501de778bd977ce851400c4942bf4bc250c1833bbb434c7e028ff0fae406c85"
    );
}
