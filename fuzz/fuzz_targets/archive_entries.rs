//! Any bytes as an archive: it is unpacked or refused, within its limits, and no path of it leaves the image.

#![no_main]

use std::io::BufRead;

use libfuzzer_sys::fuzz_target;
use mk_core::entry::Kind;
use mk_core::path::TreePath;
use mk_core::unpack::{BadArchive, Limits, entries};

fuzz_target!(|archive: &[u8]| {
    let limits = Limits {
        entries: 1000,
        bytes: 1 << 20,
        header: 1 << 14,
        stretches: 1000,
        depth: 64,
        memory: 1 << 23,
    };
    let mut count = 0;
    let result = entries::<BadArchive>("fuzz", archive, &limits, &mut |entry| {
        count += 1;
        assert!(entry.meta.mode <= 0o7777);
        assert!(entry.path.is_root() || TreePath::parse(entry.path.as_bytes()).is_ok());
        match entry.kind {
            Kind::File(mut body) => {
                let mut total = 0;
                while let Ok(ready @ [_, ..]) = body.fill_buf() {
                    let length = ready.len();
                    total += length as u64;
                    body.consume(length);
                }
                assert!(total <= body.size());
            }
            Kind::HardLink(target) => assert!(!target.is_root()),
            Kind::Symlink(target) => assert!(!target.is_empty() && !target.contains(&0)),
            Kind::Folder | Kind::Device { .. } | Kind::Fifo => {}
        }
        Ok(())
    });
    if let Ok(summary) = result {
        assert_eq!(summary.entries, count);
        assert!(summary.bytes <= limits.bytes);
    }
});
