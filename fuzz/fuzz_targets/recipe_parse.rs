//! Any text as a recipe and as a lock: neither reader panics, and every mistake is inside the text and can be drawn.

#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;
use mk_core::plan::lock::Lock;
use mk_core::recipe::parse::parse;

fuzz_target!(|text: &str| {
    if let Err(mistakes) = parse(text, &BTreeMap::new()) {
        assert!(!mistakes.0.is_empty());
        for mistake in &mistakes.0 {
            assert!(text.get(mistake.span.clone()).is_some(), "{mistake:?}");
        }
        mistakes.render("recipe.toml", text);
    }
    if let Ok(lock) = Lock::parse(text) {
        assert_eq!(Lock::parse(&lock.to_text()).as_ref(), Ok(&lock));
    }
});
