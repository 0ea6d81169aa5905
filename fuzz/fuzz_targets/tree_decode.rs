//! Whatever text is read as a tree, it is refused or it is the one text of that tree.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mk_core::tree::Tree;

fuzz_target!(|text: &[u8]| {
    if let Ok(tree) = Tree::decode(text) {
        assert_eq!(tree.encode(), text);
    }
});
