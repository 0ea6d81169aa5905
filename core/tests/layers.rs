//! Imports run one way: a module of mk-core uses only modules that `lib.rs` lists above it.

use std::collections::BTreeMap;
use std::path::Path;

/// The modules in the order in which `lib.rs` declares them.
fn order() -> Vec<String> {
    let lib = fs_err::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/src/lib.rs")).unwrap();
    lib.lines()
        .filter_map(|line| {
            line.strip_prefix("pub mod ")?
                .strip_suffix(';')
                .map(str::to_owned)
        })
        .collect()
}

/// The modules that a line of source names behind `crate::`.
fn named(line: &str) -> Vec<String> {
    let mut found = Vec::new();
    for rest in line.split("crate::").skip(1) {
        let rest = rest.trim_start_matches('{');
        let name: String = rest
            .chars()
            .take_while(|letter| letter.is_alphanumeric() || *letter == '_')
            .collect();
        found.push(name);
    }
    found
}

fn sources(folder: &Path, into: &mut Vec<std::path::PathBuf>) {
    for entry in fs_err::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

#[test]
fn a_module_uses_only_modules_above_it() {
    let order = order();
    assert!(order.len() > 10, "lib.rs lists its modules one a line: {order:?}");
    let place: BTreeMap<&str, usize> = order
        .iter()
        .enumerate()
        .map(|(at, name)| (name.as_str(), at))
        .collect();
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    let mut wrong = Vec::new();
    for file in files {
        let inside = file.strip_prefix(&src).unwrap();
        let first = inside
            .iter()
            .next()
            .unwrap()
            .to_str()
            .unwrap()
            .trim_end_matches(".rs");
        let Some(&here) = place.get(first) else { continue };
        for (number, line) in fs_err::read_to_string(&file).unwrap().lines().enumerate() {
            if line.trim_start().starts_with("//") {
                continue;
            }
            for name in named(line) {
                match place.get(name.as_str()) {
                    Some(&there) if there > here => wrong.push(format!(
                        "core/src/{}:{}: `{first}` uses `{name}`, which comes after it",
                        inside.display(),
                        number + 1
                    )),
                    _ => {}
                }
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn the_scan_sees_a_backward_import() {
    assert_eq!(named("use crate::store::Store;"), ["store"]);
    assert_eq!(named("    let x = crate::enter::run();"), ["enter"]);
    assert_eq!(named("use crate::{tree::Tree};"), ["tree"]);
}
