//! The recipes of `images/` and their locks are read as they stand, and each source in them is pinned.

use std::collections::BTreeMap;
use std::path::Path;

use mk_core::plan::lock::{DebKey, Lock};
use mk_core::recipe::parse::parse;
use mk_core::recipe::{Location, Recipe, Verb};

/// Every recipe of the folder: name, recipe, lock.
fn images() -> Vec<(String, Recipe, Lock)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../images");
    let mut images = Vec::new();
    for entry in fs_err::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "toml") || path.ends_with("Cargo.toml") {
            continue;
        }
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let text = fs_err::read_to_string(&path).unwrap();
        let recipe = match parse(&text, &BTreeMap::new()) {
            Ok(recipe) => recipe,
            Err(mistakes) => panic!("{}", mistakes.render(&name, &text)),
        };
        let lock = match fs_err::read_to_string(path.with_extension("lock")) {
            Ok(text) => {
                let lock = Lock::parse(&text).unwrap();
                assert_eq!(lock.to_text(), text, "{name}'s lock is not as mk writes it");
                lock
            }
            Err(_) => Lock::default(),
        };
        images.push((name, recipe, lock));
    }
    assert!(images.len() >= 3, "{images:?}");
    images
}

#[test]
fn every_source_of_a_shipped_recipe_is_pinned() {
    for (name, recipe, lock) in images() {
        for step in recipe.steps {
            match step.verb {
                Verb::Unpack { source, .. } => {
                    assert!(matches!(source.location, Location::Url(_)), "{name}: {source:?}");
                    assert!(source.sha256.is_some(), "{name}: {source:?}");
                }
                Verb::Deb { packages, suite, .. } => {
                    for (package, arch) in packages
                        .iter()
                        .flat_map(|package| [(package, "amd64"), (package, "arm64")])
                    {
                        let key = DebKey {
                            suite: suite.clone(),
                            package: package.clone(),
                            arch: arch.to_owned(),
                        };
                        assert!(lock.debs.contains_key(&key), "{name}: {key:?}");
                    }
                }
                Verb::Copy { from, .. } => panic!("{name} copies `{from}`, which is not in the binary"),
                _ => {}
            }
        }
    }
}

#[test]
fn every_shipped_image_says_its_host_name_and_its_command() {
    for (name, recipe, _) in images() {
        let hostname = recipe.conf.hostname.unwrap();
        assert_eq!(format!("{hostname}.toml"), name);
        assert_eq!(recipe.run.command, ["/bin/sh"], "{name}");
        assert!(recipe.run.env["PATH"].contains("/bin"), "{name}");
    }
}
