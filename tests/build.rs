//! A recipe becomes an image: what each verb makes of it, what is done again and what is not.

use tar::EntryType;

use crate::harness::Sandbox;
use crate::harness::archive::{Item, TIME, Tar, deb, gzip};
use crate::harness::listing::Listing;

/// Builds `recipe` with `files` beside it and returns the tree's text without its first line.
#[track_caller]
fn tree_of(recipe: &str, files: &[(&str, &[u8])]) -> String {
    let sandbox = Sandbox::new();
    for (path, bytes) in files {
        sandbox.write(path, bytes);
    }
    sandbox.write("app.toml", recipe);
    sandbox.build("app.toml");
    sandbox.verify();
    let text = sandbox.tree("app");
    text.strip_prefix("#mtree mk-tree 1\n").unwrap().to_owned()
}

const HI: &str = "size=3 sha256=98ea6e4f216f2fb4b69fff9b3a44842c38686ca685f3f55dc48c5d3fb1107be4";

#[test]
fn write_makes_a_file_and_the_folders_above_it() {
    let recipe = "epoch = 7\n[[step]]\nwrite = '/etc/motd'\ntext = \"hi\\n\"\nmode = '0600'\nowner = '3:4'\n";
    assert_eq!(
        tree_of(recipe, &[]),
        format!(
            ". type=dir mode=0755 uid=0 gid=0 time=7.0\n\
             ./etc type=dir mode=0755 uid=0 gid=0 time=7.0\n\
             ./etc/motd type=file mode=0600 uid=3 gid=4 time=7.0 {HI}\n"
        )
    );
}

#[test]
fn link_makes_one_link_or_several_to_one_target() {
    let recipe =
        "[[step]]\nlink = ['/bin/sh', '/ls']\nto = 'busy box'\n[[step]]\nlink = '/x'\nto = '/nowhere'\n";
    assert_eq!(
        tree_of(recipe, &[]),
        ". type=dir mode=0755 uid=0 gid=0 time=0.0\n\
         ./bin type=dir mode=0755 uid=0 gid=0 time=0.0\n\
         ./bin/sh type=link mode=0777 uid=0 gid=0 time=0.0 link=busy\\040box\n\
         ./ls type=link mode=0777 uid=0 gid=0 time=0.0 link=busy\\040box\n\
         ./x type=link mode=0777 uid=0 gid=0 time=0.0 link=/nowhere\n"
    );
}

#[test]
fn dir_makes_a_folder_or_changes_one() {
    let recipe =
        "[[step]]\ndir = '/var/spool'\nmode = '1777'\n[[step]]\ndir = '/var'\nmode = '0711'\nowner = '5'\n";
    assert_eq!(
        tree_of(recipe, &[]),
        ". type=dir mode=0755 uid=0 gid=0 time=0.0\n\
         ./var type=dir mode=0711 uid=5 gid=5 time=0.0\n\
         ./var/spool type=dir mode=1777 uid=0 gid=0 time=0.0\n"
    );
}

#[test]
fn remove_takes_what_matches_and_says_where_nothing_does() {
    let recipe = "[[step]]\ndir = ['/doc/a/b', '/doc/c', '/keep']\n[[step]]\nremove = ['/doc/**']\n";
    assert_eq!(
        tree_of(recipe, &[]),
        ". type=dir mode=0755 uid=0 gid=0 time=0.0\n\
         ./doc type=dir mode=0755 uid=0 gid=0 time=0.0\n\
         ./keep type=dir mode=0755 uid=0 gid=0 time=0.0\n"
    );
    let sandbox = Sandbox::new();
    sandbox.write("app.toml", "[[step]]\nremove = ['/nothing']\n");
    let output = sandbox.mk(["build", "app.toml"]);
    assert_eq!(output.code, Some(1), "{output}");
    assert!(output.stderr.contains("nothing"), "{output}");
}

#[test]
fn copy_takes_contents_and_execute_bits_from_the_machine_and_nothing_else() {
    let sandbox = Sandbox::new();
    let tool = sandbox.write("files/bin/tool", "hi\n");
    let plain = sandbox.write("files/plain", "hi\n");
    for (path, mode) in [(&tool, 0o711), (&plain, 0o620)] {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
        fs_err::set_permissions(path, mode).unwrap();
    }
    fs_err::os::unix::fs::symlink("bin/tool", sandbox.work().join("files/link")).unwrap();
    let recipe = "epoch = 9\n[[step]]\ncopy = 'files'\ninto = '/opt'\nowner = '1:2'\n\
                  [[step]]\ncopy = 'files/plain'\ninto = '/etc/motd'\nmode = '0400'\n";
    sandbox.write("app.toml", recipe);
    sandbox.build("app.toml");
    assert_eq!(
        sandbox.tree("app"),
        format!(
            "#mtree mk-tree 1\n\
             . type=dir mode=0755 uid=0 gid=0 time=9.0\n\
             ./etc type=dir mode=0755 uid=0 gid=0 time=9.0\n\
             ./etc/motd type=file mode=0400 uid=0 gid=0 time=9.0 {HI}\n\
             ./opt type=dir mode=0755 uid=0 gid=0 time=9.0\n\
             ./opt/bin type=dir mode=0755 uid=1 gid=2 time=9.0\n\
             ./opt/bin/tool type=file mode=0755 uid=1 gid=2 time=9.0 {HI}\n\
             ./opt/link type=link mode=0777 uid=1 gid=2 time=9.0 link=bin/tool\n\
             ./opt/plain type=file mode=0644 uid=1 gid=2 time=9.0 {HI}\n"
        )
    );
}

#[test]
fn user_makes_accounts_without_a_shell() {
    let sandbox = Sandbox::new();
    let recipe = "[[step]]\nuser = 'root'\nuid = 0\nhome = '/root'\nshell = '/bin/sh'\n\
                  [[step]]\nuser = 'app'\nuid = 1000\nhome = '/home/app'\n";
    sandbox.write("app.toml", recipe);
    sandbox.build("app.toml");
    let out = sandbox.work().join("out");
    sandbox
        .mk(["export", "app", "--folder", out.to_str().unwrap()])
        .ok();
    let passwd = fs_err::read_to_string(out.join("etc/passwd")).unwrap();
    assert!(passwd.starts_with("root:x:0:0:"), "{passwd}");
    assert!(
        passwd.lines().nth(1).unwrap().starts_with("app:x:1000:1000:"),
        "{passwd}"
    );
    assert_eq!(
        fs_err::read_to_string(out.join("etc/group")).unwrap(),
        "root:x:0:\napp:x:1000:\n"
    );
    let tree = Listing::of_tree(&sandbox.tree("app"));
    assert_eq!(tree.get("home/app").owner, Some((1000, 1000)));
    assert_eq!(tree.get("etc/shadow").mode, Some(0o640));
}

#[test]
fn unpack_takes_tar_plain_or_packed_and_debian_packages() {
    let tar = Tar::of([
        Item::folder("./"),
        Item::folder("./bin/").mode(0o2755).owner(1, 2),
        Item::file("./bin/hi", b"hi\n").mode(0o4755),
        Item::hard_link("./bin/ho", "./bin/hi"),
        Item::symlink("./sh", "bin/hi"),
        Item::new(EntryType::Fifo, "./pipe").mtime(5),
    ])
    .finish();
    let expected = format!(
        ". type=dir mode=0755 uid=0 gid=0 time={TIME}.0\n\
         ./bin type=dir mode=2755 uid=1 gid=2 time={TIME}.0\n\
         ./bin/hi type=file mode=4755 uid=0 gid=0 time={TIME}.0 {HI}\n\
         ./bin/ho type=file mode=4755 uid=0 gid=0 time={TIME}.0 {HI} tags=hardlink:bin/hi\n\
         ./pipe type=fifo mode=0644 uid=0 gid=0 time=5.0\n\
         ./sh type=link mode=0777 uid=0 gid=0 time={TIME}.0 link=bin/hi\n"
    );
    // Told by content: the name says nothing.
    let packages = [tar.clone(), gzip(&tar), deb("hi", "1-1", &tar)];
    for (index, bytes) in packages.iter().enumerate() {
        let tree = tree_of("[[step]]\nunpack = 'archive'\n", &[("archive", bytes)]);
        assert_eq!(tree, expected, "archive {index}");
    }
}

#[test]
fn unpack_strips_moves_and_chooses() {
    let tar = Tar::of([
        Item::file("top/keep/a", b"hi\n"),
        Item::file("top/keep/b.o", b"hi\n"),
        Item::file("top/leave/c", b"hi\n"),
    ])
    .finish();
    let recipe =
        "[[step]]\nunpack = 'a.tar'\ninto = '/opt'\nstrip = 1\ninclude = ['keep']\nexclude = ['**/*.o']\n";
    let tree = tree_of(recipe, &[("a.tar", &tar)]);
    let paths: Vec<&str> = tree.lines().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(paths, [".", "./opt", "./opt/keep", "./opt/keep/a"]);
}

#[test]
fn a_folder_of_an_archive_goes_through_a_link_to_a_folder() {
    let merged = Tar::of([Item::folder("usr/bin/"), Item::symlink("bin", "usr/bin")]).finish();
    let package = Tar::of([Item::folder("./bin/"), Item::file("./bin/ls", b"hi\n")]).finish();
    let recipe = "[[step]]\nunpack = 'merged.tar'\n[[step]]\nunpack = 'package.deb'\n";
    let files: [(&str, &[u8]); 2] = [
        ("merged.tar", &merged),
        ("package.deb", &deb("ls", "1", &package)),
    ];
    let tree = tree_of(recipe, &files);
    assert!(tree.contains("\n./bin type=link"), "{tree}");
    assert!(tree.contains("\n./usr/bin/ls type=file"), "{tree}");
}

#[test]
fn arguments_are_filled_in_and_those_that_do_not_exist_are_refused() {
    let sandbox = Sandbox::new();
    let recipe = "[args]\ngreeting = 'hello'\n[[step]]\nwrite = '/etc/issue'\ntext = '{greeting} {{}}'\n";
    sandbox.write("app.toml", recipe);
    let content = |path: &std::path::Path| fs_err::read_to_string(path.join("etc/issue")).unwrap();
    let plain = sandbox.build("app.toml");
    assert_eq!(content(&sandbox.rootfs("app")), "hello {}");
    let other = sandbox.build_with("app.toml", &["--arg", "greeting=hi"]);
    assert_eq!(content(&sandbox.rootfs("app")), "hi {}");
    assert_ne!(plain.image, other.image);
    let output = sandbox.mk(["build", "app.toml", "--arg", "greetin=hi"]);
    assert_eq!(output.code, Some(1), "{output}");
    assert!(output.stderr.contains("greetin"), "{output}");
}

#[test]
fn a_second_build_does_no_work_and_says_so() {
    let sandbox = Sandbox::new();
    sandbox.write("a.tar", Tar::of([Item::file("hi", b"hi\n")]).finish());
    sandbox.write(
        "app.toml",
        "[[step]]\nunpack = 'a.tar'\n[[step]]\nwrite = '/x'\ntext = 'x'\n",
    );
    let first = sandbox.build("app.toml");
    assert_eq!((first.done.len(), first.cached), (2, 0));
    let before = snapshot(&sandbox);
    let second = sandbox.build("app.toml");
    assert_eq!((second.done.len(), second.cached), (0, 2));
    assert_eq!((first.image, first.tree), (second.image, second.tree));
    assert_eq!(snapshot(&sandbox), before, "the store was written to");
    let output = sandbox.mk(["build", "app.toml"]).ok();
    assert!(
        output.stderr.contains("nothing to do") || output.stderr.contains("unchanged"),
        "{output}"
    );
}

/// Every path of the store with its inode, so that a file that was written again shows. Locks come and go.
pub(crate) fn snapshot(sandbox: &Sandbox) -> Vec<(String, u64)> {
    let mut all = Vec::new();
    let mut folders = vec![sandbox.store()];
    while let Some(folder) = folders.pop() {
        for entry in fs_err::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let metadata = fs_err::symlink_metadata(&path).unwrap();
            all.push((
                path.display().to_string(),
                std::os::unix::fs::MetadataExt::ino(&metadata),
            ));
            // As an ordinary user some folders of an image cannot be read; what is in them came with them.
            if metadata.is_dir() && fs_err::read_dir(&path).is_ok() {
                folders.push(path);
            }
        }
    }
    all.retain(|(path, _)| !path.contains("/locks"));
    all.sort();
    all
}

#[test]
fn an_edited_step_is_done_again_with_those_after_it_and_no_other() {
    let sandbox = Sandbox::new();
    let recipe = |text: &str| {
        format!(
            "[[step]]\nwrite = '/1'\ntext = '1'\n[[step]]\nwrite = '/2'\ntext = '{text}'\n[[step]]\ndir = '/3'\n\
             [[step]]\nlink = '/4'\nto = '3'\n"
        )
    };
    sandbox.write("app.toml", recipe("2"));
    let first = sandbox.build("app.toml");
    assert_eq!(first.done.len(), 4);
    sandbox.write("app.toml", recipe("two"));
    let second = sandbox.build("app.toml");
    assert_eq!((second.done.as_slice(), second.cached), (&first.done[1..], 1));
    sandbox.write("app.toml", recipe("2"));
    let third = sandbox.build("app.toml");
    assert_eq!(
        (third.done.len(), third.cached),
        (0, 4),
        "the old result was forgotten"
    );
    assert_eq!(third.image, first.image);
}

#[test]
fn a_step_that_gives_the_same_tree_as_before_costs_nothing_after_it() {
    let sandbox = Sandbox::new();
    let tar = |comment: &str| {
        let file = Tar::of([Item::file("hi", b"hi\n")]).finish();
        [file, comment.as_bytes().to_vec()].concat()
    };
    sandbox.write(
        "app.toml",
        "[[step]]\nunpack = 'a.tar'\n[[step]]\nwrite = '/x'\ntext = 'x'\n",
    );
    sandbox.write("a.tar", tar(""));
    let first = sandbox.build("app.toml");
    // What stands behind the end of a tar archive changes its digest and none of its entries.
    sandbox.write("a.tar", tar("\0\0"));
    let second = sandbox.build("app.toml");
    assert_eq!(second.image, first.image);
    assert_eq!(
        second.done,
        first.done[..1],
        "the key of a step holds the tree that it starts from, not its key"
    );
}

#[test]
fn a_failed_build_leaves_the_name_where_it_was() {
    let sandbox = Sandbox::new();
    sandbox.write("app.toml", "[[step]]\nwrite = '/x'\ntext = 'x'\n");
    let before = sandbox.build("app.toml");
    sandbox.write(
        "app.toml",
        "[[step]]\nwrite = '/x'\ntext = 'y'\n[[step]]\nremove = '/nothing'\n",
    );
    let output = sandbox.mk(["build", "app.toml"]);
    assert_eq!(output.code, Some(1), "{output}");
    assert!(output.stderr.contains("step 2"), "{output}");
    assert_eq!(
        sandbox
            .mk(["inspect", "app"])
            .ok()
            .stdout
            .matches(&before.tree)
            .count(),
        1
    );
    sandbox.verify();
}
