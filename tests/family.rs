//! Recipes that start from others or take something from them: what comes of it, what is built again, and what a recipe
//! is told that cannot be.

use crate::harness::Sandbox;
use crate::harness::archive::{Item, Tar, gzip};

/// The paths of an image with their times, without what is the root.
fn paths(sandbox: &Sandbox, image: &str) -> Vec<String> {
    let word = |line: &str| {
        let time = line
            .split(' ')
            .find(|word| word.starts_with("time="))
            .unwrap_or_default();
        format!("{} {time}", line.split(' ').next().unwrap_or_default())
    };
    sandbox.tree(image).lines().skip(2).map(word).collect()
}

const BASE: &str = "epoch = 9\n[[step]]\nwrite = '/etc/base'\ntext = 'b'\nmode = '0640'\nowner = '3:4'\n";

#[test]
fn a_recipe_starts_from_another_which_is_built_first_and_gets_no_name() {
    let sandbox = Sandbox::new();
    sandbox.write("base.toml", BASE);
    sandbox.write(
        "app.toml",
        "from = 'base'\n[[step]]\nwrite = '/app'\ntext = 'a'\n",
    );
    sandbox.build("app.toml");
    // The newest time of what it starts from is the latest that it may give.
    assert_eq!(
        paths(&sandbox, "app"),
        ["./app time=9.0", "./etc time=9.0", "./etc/base time=9.0"]
    );
    assert_eq!(sandbox.mk(["images"]).ok().stdout.lines().count(), 2);
    sandbox.verify();
    let again = sandbox.mk(["build", "app.toml"]).ok();
    assert!(
        again.stderr.contains("nothing to do: all 2 steps are cached"),
        "{}",
        again.stderr
    );
    // What an image starts from stays as long as the image does, without a name of its own.
    sandbox.mk(["gc", "--keep", "0"]).ok();
    let again = sandbox.mk(["build", "app.toml"]).ok();
    assert!(
        again.stderr.contains("all 2 steps are cached"),
        "{}",
        again.stderr
    );
    sandbox.write("base.toml", BASE.replace("'b'", "'c'"));
    let again = sandbox.mk(["build", "app.toml"]).ok();
    assert!(
        again.stderr.contains("base [1/1] write /etc/base"),
        "{}",
        again.stderr
    );
    assert!(again.stderr.contains("\n[1/1] write /app"), "{}", again.stderr);
}

#[test]
fn every_way_to_name_a_start_gives_the_same_tree() {
    let sandbox = Sandbox::new();
    sandbox.write("in/base.toml", BASE);
    let base = sandbox.build("in/base.toml");
    let (tree, image) = (&base.tree, &base.image);
    let rest = "[[step]]\nwrite = '/app'\ntext = 'a'\n";
    let names = [
        "base".to_owned(),
        image.to_owned(),
        format!("tree:{tree}"),
        "../in/base.toml".to_owned(),
    ];
    let mut trees = Vec::new();
    for (place, name) in names.iter().enumerate() {
        let path = format!("out/app-{place}.toml");
        sandbox.write(&path, format!("from = '{name}'\n{rest}"));
        sandbox.build(&path);
        trees.push(sandbox.tree(&format!("app-{place}")));
    }
    assert!(trees.iter().all(|tree| *tree == trees[0]), "{trees:#?}");
    assert!(
        trees[0].contains("./etc/base type=file mode=0640 uid=3 gid=4 time=9.0"),
        "{}",
        trees[0]
    );
}

#[test]
fn a_recipe_starts_from_a_folder_or_an_archive() {
    let sandbox = Sandbox::new();
    sandbox.write("skeleton/etc/motd", "hi\n");
    let tar = Tar::of([Item::file("etc/motd", b"hi\n")]);
    sandbox.write("rootfs.tar.gz", gzip(&tar.finish()));
    sandbox.write("one.toml", "from = 'skeleton/'\n[run]\nworkdir = '/etc'\n");
    sandbox.write("two.toml", "from = 'rootfs.tar.gz'\n");
    sandbox.build("one.toml");
    sandbox.build("two.toml");
    for image in ["one", "two"] {
        let tree = sandbox.tree(image);
        assert!(
            tree.contains("./etc/motd type=file mode=0644 uid=0 gid=0"),
            "{tree}"
        );
    }
}

#[test]
fn an_earlier_epoch_holds_for_what_a_recipe_starts_from_too() {
    let sandbox = Sandbox::new();
    sandbox.write("base.toml", BASE);
    sandbox.write("app.toml", "from = 'base'\nepoch = 5\n");
    sandbox.build("app.toml");
    assert_eq!(paths(&sandbox, "app"), ["./etc time=5.0", "./etc/base time=5.0"]);
    sandbox.verify();
}

#[test]
fn files_are_taken_from_another_tree_with_all_that_they_carry() {
    let sandbox = Sandbox::new();
    let tar = Tar::of([
        Item::file("usr/lib/app/bin/tool", b"tool"),
        Item::hard_link("usr/lib/app/bin/same", "usr/lib/app/bin/tool"),
        Item::symlink("lib", "usr/lib"),
    ]);
    sandbox.write("builder.tar.gz", gzip(&tar.finish()));
    sandbox.write(
        "builder.toml",
        "from = 'builder.tar.gz'\n[[step]]\ndir = '/usr/lib/app'\nmode = '0700'\nowner = '8:9'\n",
    );
    let recipe = "
[[step]]
copy = { from = 'builder', path = '/lib/app' }
into = '/opt/'
[[step]]
copy = { from = 'builder', path = '/usr/lib/app/bin/tool' }
into = '/bin/tool'
mode = '0755'
owner = '1000'
[[step]]
copy = { from = 'builder', path = '/lib' }
into = '/lib'
";
    sandbox.write("app.toml", recipe);
    sandbox.build("app.toml");
    let tree = sandbox.tree("app");
    for expected in [
        "./opt/app type=dir mode=0700 uid=8 gid=9",
        "./opt/app/bin/tool type=file mode=0644 uid=0 gid=0",
        "./bin/tool type=file mode=0755 uid=1000 gid=1000",
        "./lib type=link mode=0777 uid=0 gid=0",
    ] {
        assert!(tree.contains(expected), "{expected}: {tree}");
    }
    let links = |name: &str| {
        tree.lines()
            .find(|line| line.starts_with(name))
            .unwrap()
            .contains("nlink=2")
    };
    assert!(
        links("./opt/app/bin/tool") == links("./opt/app/bin/same"),
        "{tree}"
    );
    sandbox.verify();
}

#[test]
fn the_whole_of_another_tree_is_taken_by_its_root() {
    let sandbox = Sandbox::new();
    sandbox.write("base.toml", format!("{BASE}[[step]]\ndir = '/'\nmode = '0711'\n"));
    for (place, into) in ["/in/it", "/in/it/", "/"].into_iter().enumerate() {
        sandbox.write(
            "app.toml",
            format!("[[step]]\ncopy = {{ from = 'base', path = '/' }}\ninto = '{into}'\n"),
        );
        sandbox.build_with("app.toml", &["--name", &format!("app-{place}")]);
    }
    for app in ["app-0", "app-1"] {
        let tree = sandbox.tree(app);
        for expected in [
            "./in/it type=dir mode=0711",
            "./in/it/etc/base type=file mode=0640 uid=3 gid=4 time=9.0",
        ] {
            assert!(tree.contains(expected), "{expected}: {tree}");
        }
    }
    // Into the root, it is the same tree again.
    sandbox.build("base.toml");
    assert_eq!(sandbox.tree("app-2"), sandbox.tree("base"));
    sandbox.verify();
}

#[test]
fn a_step_that_takes_a_part_is_cached_where_only_the_rest_changed() {
    let sandbox = Sandbox::new();
    let builder = |other: &str| {
        format!(
            "epoch = 1\n[[step]]\nwrite = '/out/app'\ntext = 'app'\n[[step]]\nwrite = '/other'\ntext = '{other}'\n"
        )
    };
    sandbox.write("builder.toml", builder("one"));
    sandbox.write(
        "app.toml",
        "[[step]]\ncopy = { from = 'builder', path = '/out/app' }\ninto = '/app'\n",
    );
    sandbox.build("app.toml");
    sandbox.write("builder.toml", builder("two"));
    let again = sandbox.mk(["build", "app.toml"]).ok();
    assert!(
        again.stderr.contains("builder [2/2] write /other"),
        "{}",
        again.stderr
    );
    assert!(
        again.stderr.contains("(2 of 3 steps cached)") || again.stderr.contains("(2 of 3 cached)"),
        "{}",
        again.stderr
    );
    sandbox.mk(["gc", "--keep", "0"]).ok();
    let again = sandbox.mk(["build", "app.toml"]).ok();
    assert!(
        again.stderr.contains("nothing to do: all 3 steps are cached"),
        "{}",
        again.stderr
    );
}

#[test]
fn recipes_that_do_not_depend_on_each_other_are_built_by_their_own_locks() {
    let sandbox = Sandbox::new();
    let mut app = String::new();
    for name in ["a", "b", "c", "d"] {
        sandbox.write(
            format!("{name}.toml"),
            format!("[[step]]\nwrite = '/{name}'\ntext = '{name}'\n"),
        );
        app.push_str(&format!(
            "[[step]]\ncopy = {{ from = '{name}', path = '/{name}' }}\ninto = '/'\n"
        ));
    }
    // One that two others start from is built once.
    sandbox.write("e.toml", "from = 'a'\n[[step]]\nwrite = '/e'\ntext = ''\n");
    sandbox.write("app.toml", format!("from = 'e'\n{app}"));
    let built = sandbox.mk(["build", "app.toml", "--progress", "json"]).ok();
    let count = |what: &str| built.stderr.matches(what).count();
    assert_eq!(count(r#""event":"step-finished""#), 9, "{}", built.stderr);
    assert_eq!(count(r#""recipe":"a""#), 2, "{}", built.stderr);
    let names: Vec<String> = paths(&sandbox, "app");
    assert_eq!(names.len(), 5, "{names:?}");
}

#[test]
fn a_recipe_says_what_its_image_is_called() {
    let sandbox = Sandbox::new();
    let recipe = "name = 'app'\n[[step]]\nwrite = '/app'\ntext = ''\n";
    for folder in ["one", "another folder"] {
        sandbox.write(format!("{folder}/Containerfile.toml"), recipe);
        let built = sandbox.mk_with(["build", "-q"], |command| {
            command.current_dir(sandbox.work().join(folder));
        });
        assert!(built.ok().stdout.starts_with("app "));
    }
    // The command line has the last word, and a name is no part of what it names.
    let other = sandbox.build_with("one/Containerfile.toml", &["--name", "other"]);
    assert!(sandbox.mk(["images"]).ok().stdout.lines().count() == 3);
    assert_eq!(sandbox.build("one/Containerfile.toml").image, other.image);
    sandbox.write("bad.toml", recipe.replace("'app'", "'My App'"));
    let told = sandbox.mk(["build", "bad.toml"]);
    assert!(
        told.stderr.contains("line 1, column 8") && told.stderr.contains("`My App` cannot name an image"),
        "{told}"
    );
}

#[test]
fn a_circle_of_recipes_is_told_as_a_whole() {
    let sandbox = Sandbox::new();
    sandbox.write("a.toml", "from = 'b'\n");
    sandbox.write("b.toml", "from = 'c'\n");
    sandbox.write("c.toml", "from = './a.toml'\n");
    sandbox.write("self.toml", "from = 'self'\n");
    let told = sandbox.mk(["build", "a.toml"]);
    insta::assert_snapshot!(told.stderr);
    let told = sandbox.mk(["build", "self.toml"]);
    insta::assert_snapshot!(told.stderr);
}

#[test]
fn what_cannot_be_started_from_is_told_where_it_is_named() {
    let sandbox = Sandbox::new();
    let digest = "a".repeat(64);
    let recipes = [
        "from = 'bsybox'\n".to_owned(),
        "from = './none.toml'\n".to_owned(),
        format!("from = '{digest}'\n"),
        format!("from = 'tree:{digest}'\n"),
        "from = 'skeleton/'\n".to_owned(),
        "[[step]]\ncopy = { from = 'base', path = '/none' }\ninto = '/'\n".to_owned(),
        "from = 'broken'\n".to_owned(),
    ];
    sandbox.write("base.toml", BASE);
    sandbox.write("broken.toml", "[[step]]\nremove = '/none'\n");
    let mut told = String::new();
    for recipe in recipes {
        sandbox.write("app.toml", &recipe);
        let output = sandbox.mk(["build", "app.toml"]);
        told.push_str(&format!("{recipe}{}\n", output.stderr));
    }
    insta::assert_snapshot!(told);
    assert!(sandbox.mk(["images"]).ok().stdout.lines().count() < 2);
}

/// What `mk build --explain` says, without what else it says.
fn explained(sandbox: &Sandbox, more: &[&str]) -> Vec<String> {
    let output = sandbox
        .mk([&["build", "app.toml", "--explain"], more].concat())
        .ok();
    let lines = output.stderr.lines().filter(|line| line.starts_with("step "));
    lines.map(str::to_owned).collect()
}

#[test]
fn a_build_says_of_each_step_what_has_changed() {
    let sandbox = Sandbox::new();
    let base = |text: &str| format!("epoch = 1\n[[step]]\nwrite = '/etc/os-release'\ntext = '{text}'\n");
    sandbox.write("base.toml", base("one"));
    sandbox.write("files/motd", "hi\n");
    sandbox.write("files/other", "other\n");
    let recipe = |mode: &str| {
        format!(
            "from = 'base'\n[args]\nversion = '1.2'\n[[step]]\nwrite = '/version'\ntext = '{{version}}'\n\
             [[step]]\ncopy = 'files'\ninto = '/files'\n[[step]]\nremove = '/files/**'\n[[step]]\ndir = '/a'\nmode = '{mode}'\n"
        )
    };
    sandbox.write("app.toml", recipe("0755"));
    let labels = [
        "write /version",
        "copy files to /files",
        "remove files/**",
        "dir /a",
    ];
    let line = |step: usize, what: &str| format!("step {step} ({}): {what}", labels[step - 1]);
    let cached = |step: usize| line(step, "cached");
    let base_cached = "step 1 of base (write /etc/os-release): cached".to_owned();
    let first = explained(&sandbox, &[]);
    assert!(
        first
            .iter()
            .all(|line| line.ends_with("done, because nothing is known of an earlier build")),
        "{first:#?}"
    );
    let unchanged = explained(&sandbox, &[]);
    assert_eq!(
        unchanged,
        [base_cached.clone(), cached(1), cached(2), cached(3), cached(4)]
    );

    sandbox.write("files/motd", "ho\n");
    // What is copied is taken away again, so that all that follows stays cached.
    assert_eq!(
        explained(&sandbox, &[]),
        [
            base_cached.clone(),
            cached(1),
            line(2, "done, because `files` changed: 1 file, first `motd`"),
            line(
                3,
                "done, because step 2 gave another tree; it gave the same tree as the last time"
            ),
            cached(4),
        ]
    );
    let given = explained(&sandbox, &["--arg", "version=1.3"]);
    assert_eq!(
        given[1],
        line(1, "done, because argument `version` was \"1.2\", is \"1.3\"")
    );
    assert_eq!(given[4], line(4, "done, because step 3 gave another tree"));
    assert_eq!(
        explained(&sandbox, &[])[1..],
        [cached(1), cached(2), cached(3), cached(4)]
    );
    sandbox.write("app.toml", recipe("0700"));
    assert_eq!(
        explained(&sandbox, &[])[4],
        line(4, "done, because `mode` was 0755, is 0700")
    );
    sandbox.write("base.toml", base("two"));
    let started = explained(&sandbox, &[]);
    assert_eq!(
        started[0],
        "step 1 of base (write /etc/os-release): done, because `text` changed"
    );
    assert_eq!(
        started[1],
        line(
            1,
            "done, because the tree of `base` changed: 1 file, first `/etc/os-release`"
        )
    );
}
