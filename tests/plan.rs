//! `mk plan`: what a build would do, before and after it, as text, for programs, and as a picture.

use crate::harness::Sandbox;

/// A recipe that takes from two others, one of which starts from a third.
fn family() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write(
        "base.toml",
        "epoch = 1\n[[step]]\nwrite = '/base'\ntext = 'a'\n[[step]]\ndir = '/out'\n",
    );
    sandbox.write(
        "builder.toml",
        "from = 'base'\n[[step]]\nwrite = '/out/app'\ntext = 'app <&\"'\n",
    );
    sandbox.write("other.toml", "[[step]]\nwrite = '/other'\ntext = ''\n");
    sandbox.write(
        "app.toml",
        "from = 'other'\n[[step]]\ncopy = { from = 'builder', path = '/out/app' }\ninto = '/'\n[[step]]\ndir = '/d'\n",
    );
    sandbox
}

#[test]
fn a_plan_says_what_is_cached_and_what_is_to_be_done() {
    let sandbox = family();
    let mut told = sandbox.mk(["plan", "app.toml"]).ok().stdout;
    assert!(
        sandbox.mk(["images"]).ok().stdout.lines().count() < 2,
        "nothing is built"
    );
    sandbox.build("app.toml");
    told.push_str("\nbuilt:\n");
    told.push_str(&sandbox.mk(["plan", "app.toml"]).ok().stdout);
    sandbox.write(
        "builder.toml",
        "from = 'base'\n[[step]]\nwrite = '/out/app'\ntext = 'new'\n",
    );
    told.push_str("\nchanged:\n");
    told.push_str(&sandbox.mk(["plan", "app.toml"]).ok().stdout);
    insta::assert_snapshot!(told);
}

#[test]
fn a_plan_can_be_drawn_and_read_by_programs() {
    let sandbox = family();
    insta::assert_snapshot!(sandbox.mk(["plan", "app.toml", "--dot"]).ok().stdout);
    insta::assert_snapshot!(sandbox.mk(["plan", "app.toml", "--svg"]).ok().stdout);
    let plan = sandbox.mk(["plan", "app.toml", "--json"]).ok().stdout;
    let plan: serde_json::Value = serde_json::from_str(&plan).unwrap();
    let names: Vec<&str> = plan
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["other", "base", "builder", "app"]);
    assert_eq!(plan[3]["inputs"][1]["recipe"], 2);
    assert_eq!(plan[3]["inputs"][1]["step"], 1);
    assert_eq!(plan[0]["steps"][0]["fate"], "done");
}

#[test]
fn a_plan_changes_no_lock() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "app.toml",
        "[[step]]\ndeb = 'busybox-static'\nsuite = 'bookworm'\n",
    );
    let told = sandbox.mk(["plan", "app.toml"]);
    assert_eq!(told.code, Some(1));
    assert!(
        told.stderr.contains("`mk lock app.toml` adds what is missing"),
        "{told}"
    );
    assert!(!sandbox.work().join("app.lock").exists());
}
