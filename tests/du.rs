//! `mk du`: whose bytes are whose, and what fills an image.

use crate::harness::Sandbox;

/// Two images that have one file in common, and one that has nothing.
fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    let write = |path: &str, size: usize, letter: &str| {
        format!("[[step]]\nwrite = '{path}'\ntext = '{}'\n", letter.repeat(size))
    };
    let common = write("/usr/lib/common", 5000, "c");
    sandbox.write(
        "one.toml",
        format!(
            "{common}{}{}",
            write("/usr/bin/one", 3000, "1"),
            write("/etc/<a&b>", 900, "e")
        ),
    );
    sandbox.write("two.toml", format!("{common}{}", write("/two", 200, "2")));
    sandbox.write("three.toml", "[[step]]\ndir = '/empty'\n");
    for recipe in ["one.toml", "two.toml", "three.toml"] {
        sandbox.build(recipe);
    }
    sandbox
}

#[test]
fn what_an_image_has_alone_is_told_from_what_it_shares() {
    let sandbox = sandbox();
    insta::assert_snapshot!(sandbox.mk(["du"]).ok().stdout);
    let json = sandbox.mk(["du", "--json"]).ok().stdout;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["bytes"], 9100);
    let of = |name: &str, field: &str| {
        let images = json["images"].as_array().unwrap();
        let image = images.iter().find(|image| image["names"][0] == name).unwrap();
        image[field].as_u64().unwrap()
    };
    assert_eq!((of("one", "own"), of("one", "shared")), (3900, 5000));
    assert_eq!((of("two", "own"), of("two", "shared")), (200, 5000));
    // What gc frees when an image goes is what it has for itself.
    sandbox.mk(["rm", "one"]).ok();
    let freed = sandbox.mk(["gc", "--keep", "0", "--json"]).ok().stdout;
    let freed: serde_json::Value = serde_json::from_str(&freed).unwrap();
    assert_eq!(freed["removed"]["objects"]["bytes"], 3900);
}

#[test]
fn what_fills_an_image_is_told_folder_by_folder_and_drawn() {
    let sandbox = sandbox();
    insta::assert_snapshot!(sandbox.mk(["du", "one"]).ok().stdout);
    let drawn = sandbox.mk(["du", "one", "--svg"]).ok().stdout;
    insta::assert_snapshot!(drawn);
    assert!(!drawn.contains("<a&b>"));
    let json = sandbox.mk(["du", "one", "--json"]).ok().stdout;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["bytes"], 8900);
    assert_eq!(json["inner"][0]["name"], "usr");
    assert_eq!(sandbox.mk(["du", "none"]).code, Some(1));
    assert_eq!(sandbox.mk(["du", "--svg"]).code, Some(2));
}

#[test]
fn a_store_that_is_not_there_takes_nothing() {
    let sandbox = Sandbox::new();
    let told = sandbox.mk(["du"]).ok().stdout;
    assert!(told.contains("all of them  0 B"), "{told}");
}
