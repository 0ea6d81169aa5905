//! What lies beside recipes: what is read of it, and what is taken.

use std::collections::BTreeSet;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use serde_json::Value;

use crate::harness::Sandbox;
use crate::harness::archive::{Item, Tar};

/// So many files are remembered, however small.
const MANY: usize = 100;

/// Who opens which file of a folder, as the kernel tells it (inotify(7)).
struct Opens(OwnedFd);

impl Opens {
    fn of(folder: &Path) -> Self {
        let watch = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).unwrap();
        inotify::add_watch(&watch, folder, WatchFlags::OPEN).unwrap();
        Self(watch)
    }

    /// Returns the names of the files that were opened since it was asked the last time.
    fn taken(&self) -> BTreeSet<String> {
        let mut buffer = [MaybeUninit::uninit(); 1 << 16];
        let mut reader = inotify::Reader::new(&self.0, &mut buffer);
        let mut names = BTreeSet::new();
        while let Ok(event) = reader.next() {
            assert!(!event.events().contains(ReadFlags::QUEUE_OVERFLOW));
            let name = event.file_name().map_or("", |name| name.to_str().unwrap());
            let mark = if event.events().contains(ReadFlags::ISDIR) {
                "/"
            } else {
                ""
            };
            names.insert(format!("{name}{mark}"));
        }
        names
    }

    /// The same without folders.
    fn files(&self) -> BTreeSet<String> {
        self.taken()
            .into_iter()
            .filter(|name| !name.ends_with('/'))
            .collect()
    }
}

/// A recipe `app.toml` that copies the folder `src`, with many files in it.
fn scene() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write("app.toml", "[[step]]\ncopy = 'src'\ninto = '/srv'\n");
    for number in 0..MANY {
        sandbox.write(format!("src/{number:03}"), format!("text {number:03}"));
    }
    settle();
    sandbox
}

/// Waits until whatever was written is remembered when it is read.
fn settle() {
    std::thread::sleep(Duration::from_millis(200));
}

fn all() -> BTreeSet<String> {
    (0..MANY).map(|number| format!("{number:03}")).collect()
}

fn only(name: &str) -> BTreeSet<String> {
    [name.to_owned()].into()
}

/// Returns what the image has in a file.
fn held(sandbox: &Sandbox, name: &str) -> String {
    fs_err::read_to_string(sandbox.rootfs("app").join("srv").join(name)).unwrap()
}

/// Returns what the store remembers.
fn remembered(sandbox: &Sandbox) -> Vec<PathBuf> {
    let listed = fs_err::read_dir(sandbox.store().join("beside")).unwrap();
    listed.map(|entry| entry.unwrap().path()).collect()
}

fn set_modified(path: &Path, time: SystemTime) {
    let file = fs_err::File::options().write(true).open(path).unwrap();
    file.into_file().set_modified(time).unwrap();
}

#[test]
fn what_has_not_changed_is_not_read() {
    let sandbox = scene();
    let opens = Opens::of(&sandbox.work().join("src"));
    let first = sandbox.build("app.toml");
    assert_eq!(opens.files(), all(), "of what nobody knows all is read");
    let second = sandbox.build("app.toml");
    assert_eq!((second.tree, second.done.len()), (first.tree, 0));
    assert_eq!(opens.files(), BTreeSet::new());

    // One that changes is read, alone: the store has the others.
    sandbox.write("src/017", "text XXX");
    opens.files();
    assert_eq!(sandbox.build("app.toml").done.len(), 1);
    assert_eq!(opens.files(), only("017"));
    assert_eq!(held(&sandbox, "017"), "text XXX");
    sandbox.verify();

    // So do other recipes, by whatever path.
    settle();
    sandbox.build("app.toml");
    opens.files();
    sandbox.write(
        "by/other.toml",
        "[[step]]\ncopy = 'link/src/'\ninto = '/'\nmode = '0600'\n",
    );
    std::os::unix::fs::symlink("..", sandbox.work().join("by/link")).unwrap();
    sandbox.mk(["plan", "by/other.toml"]).ok();
    assert_eq!(opens.files(), BTreeSet::new());
}

#[test]
fn an_archive_that_has_not_changed_is_not_read() {
    let sandbox = Sandbox::new();
    let big = Tar::of([Item::file("big", &vec![7; 2 << 20])]).finish();
    sandbox.write("vendor/big.tar", big);
    sandbox.write("one/file", vec![8; 2 << 20]);
    let recipe = "[[step]]\nunpack = 'vendor/big.tar'\n[[step]]\ncopy = 'one/file'\ninto = '/file'\n";
    sandbox.write("app.toml", recipe);
    settle();
    let opens = ["vendor", "one"].map(|folder| Opens::of(&sandbox.work().join(folder)));
    sandbox.build("app.toml");
    assert_eq!(
        opens.each_ref().map(Opens::files),
        [only("big.tar"), only("file")]
    );
    sandbox.build("app.toml");
    assert_eq!(
        opens.each_ref().map(Opens::files),
        [BTreeSet::new(), BTreeSet::new()]
    );
    let smaller = Tar::of([Item::file("big", b"small")]).finish();
    sandbox.write("vendor/big.tar", smaller);
    assert_eq!(sandbox.build("app.toml").done.len(), 2);
}

#[test]
fn every_change_is_seen() {
    let sandbox = scene();
    sandbox.build("app.toml");
    let path = sandbox.work().join("src/050");
    let modified = fs_err::metadata(&path).unwrap().modified().unwrap();
    let see = |what: &str, text: &str| {
        assert_eq!(sandbox.build("app.toml").done.len(), 1, "{what} was not seen");
        assert_eq!(held(&sandbox, "050"), text, "{what}");
        settle();
        sandbox.build("app.toml");
    };
    fs_err::write(&path, "TEXT 050").unwrap();
    set_modified(&path, modified);
    see("that a file of the same size has the same time again", "TEXT 050");

    let other = sandbox.write("other", "Text 050");
    set_modified(&other, modified);
    fs_err::rename(other, &path).unwrap();
    see("that another file took its name", "Text 050");

    let kept = sandbox.write("kept", "tEXT 050");
    set_modified(&kept, modified);
    settle();
    fs_err::remove_file(&path).unwrap();
    fs_err::hard_link(&kept, &path).unwrap();
    see("that it is another name of an old file", "tEXT 050");

    fs_err::remove_file(&path).unwrap();
    assert_eq!(sandbox.build("app.toml").done.len(), 1, "that it is gone");
    sandbox.verify();
}

#[test]
fn a_change_right_after_a_build_is_seen() {
    let sandbox = scene();
    let path = sandbox.work().join("src/050");
    for round in 0..20 {
        // Of one size, and within the tick of a clock after the build that read what was there before.
        let text = format!("round {round:02}");
        fs_err::write(&path, &text).unwrap();
        sandbox.build("app.toml");
        assert_eq!(held(&sandbox, "050"), text);
    }
}

#[test]
fn a_file_that_is_written_to_all_the_time_is_never_remembered_wrongly() {
    let sandbox = scene();
    let path = sandbox.work().join("src/050");
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0.. {
                if done.load(std::sync::atomic::Ordering::Relaxed) {
                    break;
                }
                fs_err::write(&path, format!("{round:08}")).unwrap();
            }
        });
        for _ in 0..15 {
            // It may well fail: what is read twice is not the same.
            sandbox.mk(["build", "-q", "app.toml"]);
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    let last = fs_err::read_to_string(&path).unwrap();
    sandbox.build("app.toml");
    assert_eq!(held(&sandbox, "050"), last);
    sandbox.verify();
}

#[test]
fn a_file_that_may_yet_change_without_a_trace_is_read_again() {
    let sandbox = scene();
    // As far as that goes, a time in the future is one of this very moment.
    let later = SystemTime::now() + Duration::from_secs(3600);
    set_modified(&sandbox.work().join("src/050"), later);
    settle();
    let first = sandbox.build("app.toml");
    let opens = Opens::of(&sandbox.work().join("src"));
    for _ in 0..2 {
        assert_eq!(sandbox.build("app.toml").tree, first.tree);
        assert_eq!(opens.files(), only("050"));
    }
}

#[test]
fn a_check_reads_everything_again() {
    let sandbox = scene();
    sandbox.build("app.toml");
    let opens = Opens::of(&sandbox.work().join("src"));
    sandbox.mk(["build", "app.toml", "--check"]).ok();
    assert_eq!(opens.files(), all());
}

#[test]
fn what_is_remembered_wrongly_is_found_by_a_check() {
    let sandbox = scene();
    let first = sandbox.build("app.toml");
    // Nobody can make a file that looks as before and holds something else; so what is remembered is of another one.
    let [known] = &remembered(&sandbox)[..] else {
        panic!("one folder, and not one file about it")
    };
    let mut bytes = fs_err::read(known).unwrap();
    let digest = |bytes: &[u8]| <sha2::Sha256 as sha2::Digest>::digest(bytes).to_vec();
    let (right, wrong) = (digest(b"text 050"), digest(b"text 051"));
    let at = bytes.windows(32).position(|window| window == right).unwrap();
    bytes[at..at + 32].copy_from_slice(&wrong);
    let body = bytes.len() - 32;
    let sum = digest(&bytes[..body]);
    bytes[body..].copy_from_slice(&sum);
    fs_err::write(known, bytes).unwrap();

    // It is believed: otherwise this test would show nothing.
    assert_ne!(sandbox.build("app.toml").tree, first.tree);
    let checked = sandbox.mk(["build", "app.toml", "--check"]).ok();
    assert!(
        checked.stderr.contains("every step gives the same tree"),
        "{checked}"
    );
    let after = sandbox.build("app.toml");
    assert_eq!((after.tree, after.done.len()), (first.tree, 0));
}

#[test]
fn what_is_remembered_may_be_damaged_gone_or_impossible_to_write() {
    let sandbox = scene();
    let first = sandbox.build("app.toml");
    let opens = Opens::of(&sandbox.work().join("src"));
    let [known] = &remembered(&sandbox)[..] else {
        panic!("one folder, and not one file about it")
    };
    let whole = fs_err::read(known).unwrap();
    let again = |what: &str| {
        sandbox.verify();
        let built = sandbox.build("app.toml");
        assert_eq!((&built.tree, built.done.len()), (&first.tree, 0), "{what}");
        assert_eq!(opens.files(), all(), "{what}");
        sandbox.build("app.toml");
    };
    for (what, bytes) in [
        ("empty", &[][..]),
        ("cut off", &whole[..whole.len() - 1]),
        ("half", &whole[..whole.len() / 2]),
        ("longer", &[&whole[..], b"x"].concat()),
    ] {
        fs_err::write(known, bytes).unwrap();
        again(what);
        assert_eq!(opens.files(), BTreeSet::new(), "{what}: it was not made anew");
    }
    fs_err::remove_file(known).unwrap();
    again("gone");
    fs_err::remove_file(known).unwrap();
    fs_err::create_dir(known).unwrap();
    again("a folder");
    fs_err::remove_dir_all(sandbox.store().join("beside")).unwrap();
    opens.files();
    again("a store from before there was such a thing");
    assert_eq!(opens.files(), BTreeSet::new());
    fs_err::remove_dir_all(sandbox.store().join("beside")).unwrap();
    fs_err::write(sandbox.store().join("beside"), "").unwrap();
    again("no folder");
}

#[test]
fn builds_at_once_remember_the_same() {
    let sandbox = scene();
    sandbox.build("app.toml");
    for round in 0..5 {
        sandbox.write("src/050", format!("round {round:02}"));
        settle();
        let builds: Vec<_> = (0..4)
            .map(|_| {
                sandbox
                    .command()
                    .args(["build", "-q", "app.toml"])
                    .stdout(std::process::Stdio::piped())
                    .spawn()
            })
            .collect();
        let printed: BTreeSet<_> = builds
            .into_iter()
            .map(|build| build.unwrap().wait_with_output().unwrap())
            .map(|output| (output.status.success(), output.stdout))
            .collect();
        assert_eq!(printed.len(), 1, "{printed:?}");
        assert_eq!(held(&sandbox, "050"), format!("round {round:02}"));
    }
    let opens = Opens::of(&sandbox.work().join("src"));
    sandbox.build("app.toml");
    assert_eq!(opens.files(), BTreeSet::new());
    sandbox.verify();
}

#[test]
fn what_a_few_small_files_hold_is_not_remembered() {
    let sandbox = Sandbox::new();
    sandbox.write("app.toml", "[[step]]\ncopy = 'src'\ninto = '/srv'\n");
    sandbox.write("src/file", "text");
    settle();
    sandbox.build("app.toml");
    assert_eq!(remembered(&sandbox), Vec::<PathBuf>::new());
}

#[test]
fn gc_keeps_what_is_known_of_files_as_long_as_they_are_there() {
    let sandbox = scene();
    sandbox.build("app.toml");
    let reasons = || {
        let json = sandbox.mk(["gc", "--keep", "0", "--dry-run", "--json"]).ok();
        let value: Value = serde_json::from_str(&json.stdout).unwrap();
        (
            value["kept"]["beside"]["number"].clone(),
            value["removed"]["beside"]["number"].clone(),
        )
    };
    sandbox.mk(["gc", "--keep", "0"]).ok();
    assert_eq!(reasons(), (1.into(), Value::Null));
    let told = sandbox.mk(["gc", "--dry-run"]).ok();
    assert!(
        told.stdout
            .contains("stays: the files that it tells of are there"),
        "{told}"
    );
    fs_err::rename(sandbox.work().join("src"), sandbox.work().join("elsewhere")).unwrap();
    assert_eq!(reasons(), (Value::Null, 1.into()));
    sandbox.mk(["gc", "--keep", "0"]).ok();
    assert_eq!(remembered(&sandbox), Vec::<PathBuf>::new());
    // It only saves work.
    fs_err::rename(sandbox.work().join("elsewhere"), sandbox.work().join("src")).unwrap();
    sandbox.build("app.toml");
    assert_eq!(remembered(&sandbox).len(), 1);
    sandbox.mk(["gc", "--max-size", "1"]).ok();
    assert_eq!(remembered(&sandbox), Vec::<PathBuf>::new());
    sandbox.verify();
}

#[test]
fn it_is_told_which_files_are_no_longer_taken() {
    let sandbox = scene();
    sandbox.write(
        "app.toml",
        "[[step]]\nwrite = '/srv/000x'\ntext = ''\n[[step]]\ncopy = 'src'\ninto = '/srv'\n",
    );
    sandbox.build("app.toml");
    fs_err::remove_file(sandbox.work().join("src/042")).unwrap();
    fs_err::remove_file(sandbox.work().join("src/077")).unwrap();
    let output = sandbox
        .mk(["build", "app.toml", "--explain", "--progress", "none"])
        .ok();
    let told = "step 2 (copy src to /srv): done, because `src` changed: 2 files, first `042`";
    assert!(output.stderr.contains(told), "{output}");
}

/// Builds a recipe and returns the paths of its tree, without its root.
fn paths(sandbox: &Sandbox, recipe: &str) -> Vec<String> {
    sandbox.write("app.toml", recipe);
    sandbox.build("app.toml");
    let text = sandbox.tree("app");
    let lines = text.lines().filter_map(|line| line.strip_prefix("./"));
    lines
        .map(|line| line.split(' ').next().unwrap().to_owned())
        .collect()
}

#[test]
fn what_mkignore_leaves_out_is_not_taken() {
    let sandbox = Sandbox::new();
    for path in [
        "src/a.c",
        "src/a.o",
        "src/keep.o",
        "src/target/x",
        "src/lib/target/y",
    ] {
        sandbox.write(path, path);
    }
    sandbox.write(
        ".mkignore",
        "# what the compiler makes\n*.o\n!keep.o\n\n/src/target/\n",
    );
    let taken = ["a.c", "keep.o", "lib", "lib/target", "lib/target/y"];
    let copied = paths(&sandbox, "[[step]]\ncopy = 'src/'\ninto = '/'\n");
    assert_eq!(copied, taken);
    assert_eq!(paths(&sandbox, "from = 'src/'\n[[step]]\ndir = '/lib'\n"), taken);
    // The file itself is no part of the folder, and not of any other.
    sandbox.write("src/.mkignore", "*.c\n");
    let all = paths(&sandbox, "[[step]]\ncopy = '.'\ninto = '/'\n");
    let found: Vec<&str> = all.iter().map(String::as_str).collect();
    let expected = [
        "app.toml",
        "src",
        "src/.mkignore",
        "src/a.c",
        "src/keep.o",
        "src/lib",
        "src/lib/target",
        "src/lib/target/y",
    ];
    assert_eq!(found, expected);
    sandbox.write(".mkignore", "src\n*.toml\n!.mkignore\n");
    assert_eq!(
        paths(&sandbox, "[[step]]\ncopy = '.'\ninto = '/'\n"),
        [".mkignore"]
    );
    sandbox.verify();
}

#[test]
fn what_a_command_is_granted_is_without_it_too() {
    let Some(sandbox) = crate::run::boxed("") else {
        return;
    };
    sandbox.write("src/a.c", "");
    sandbox.write("src/a.o", "");
    sandbox.write(".mkignore", "*.o\n");
    let step = "[[step]]\nrun = 'ls /src >/listed'\nmounts = [{ copy = 'src', at = '/src' }]\n";
    sandbox.write("app.toml", format!("from = 'rootfs.tar.gz'\n{step}"));
    sandbox.build("app.toml");
    let listed = fs_err::read_to_string(sandbox.rootfs("app").join("listed")).unwrap();
    assert_eq!(listed, "a.c\n");
}

#[test]
fn what_a_recipe_names_is_taken_whatever_mkignore_says() {
    let sandbox = Sandbox::new();
    for path in ["out/a.o", "out/a.tmp", "b.o"] {
        sandbox.write(path, path);
    }
    sandbox.write(".mkignore", "*.o\nout/\n*.tmp\n");
    let file = paths(&sandbox, "[[step]]\ncopy = 'b.o'\ninto = '/b.o'\n");
    assert_eq!(file, ["b.o"]);
    sandbox.write(".mkignore", "out/\n*.tmp\n");
    let folder = paths(&sandbox, "[[step]]\ncopy = './out/'\ninto = '/'\n");
    assert_eq!(folder, ["a.o"]);
}

#[test]
fn what_is_left_out_is_not_looked_at() {
    let sandbox = Sandbox::new();
    sandbox.write("src/file", "");
    sandbox.write("src/out/deep/file", "");
    sandbox.write(".mkignore", "out/\n*.socket\n");
    let _socket = std::os::unix::net::UnixListener::bind(sandbox.work().join("src/a.socket")).unwrap();
    let recipe = "[[step]]\ncopy = 'src/'\ninto = '/'\n";
    let opens = ["src", "src/out"].map(|folder| Opens::of(&sandbox.work().join(folder)));
    assert_eq!(paths(&sandbox, recipe), ["file"]);
    let [of_src, of_out] = opens.map(|opens| opens.taken());
    assert_eq!(of_src, ["/".to_owned(), "file".to_owned()].into());
    assert_eq!(of_out, BTreeSet::new());
}

#[test]
fn a_step_is_done_again_for_what_is_taken_and_not_for_what_mkignore_says() {
    let sandbox = Sandbox::new();
    for path in ["src/a.c", "src/a.o", "src/b.o"] {
        sandbox.write(path, path);
    }
    sandbox.write(
        "app.toml",
        "[[step]]\ncopy = 'src'\ninto = '/srv'\n[[step]]\ncopy = '.'\ninto = '/all'\n",
    );
    sandbox.build("app.toml");
    let explained = |ignored: &str| {
        sandbox.write(".mkignore", ignored);
        let output = sandbox
            .mk(["build", "app.toml", "--explain", "--progress", "none"])
            .ok();
        let lines = output.stderr.lines().take(2).map(str::to_owned);
        lines.collect::<Vec<String>>()
    };
    let cached = [
        "step 1 (copy src to /srv): cached",
        "step 2 (copy . to /all): cached",
    ];
    assert_eq!(explained("*.none\n"), cached);
    assert_eq!(
        explained("*.o\n"),
        [
            "step 1 (copy src to /srv): done, because `src` changed: 2 files, first `a.o`",
            "step 2 (copy . to /all): done, because `.` changed: 2 files, first `src/a.o`, and step 1 gave another tree",
        ]
    );
    assert_eq!(explained("# other words\n**/*.o\n"), cached);
    let back = explained("b.o\n");
    assert_eq!(
        back[0],
        "step 1 (copy src to /srv): done, because `src` changed: 1 file, first `a.o`"
    );
    sandbox.verify();
}

#[test]
fn mistakes_in_mkignore_are_told_in_their_places() {
    let sandbox = Sandbox::new();
    sandbox.write("in/src/a", "");
    sandbox.write("in/app.toml", "[[step]]\ncopy = 'src'\ninto = '/srv'\n");
    sandbox.write("in/.mkignore", "*.o\n[a-\n!\n");
    let output = sandbox.mk(["build", "in/app.toml"]);
    assert_eq!(output.code, Some(1), "{output}");
    assert_eq!(
        output.stderr,
        "error: cannot read `in/.mkignore`, line 2, column 1
  |
2 | [a-
  | ^^^
`[a-` is not a pattern: unclosed character class; missing ']': expected a pattern as in a .gitignore, such as `*.o`, `/target/` or `!keep.o`
hint: `.mkignore` is described in docs/recipe.md

error: cannot read `in/.mkignore`, line 3, column 1
  |
3 | !
  | ^
`!` names no file and no folder: expected a pattern as in a .gitignore, such as `*.o`, `/target/` or `!keep.o`
hint: `.mkignore` is described in docs/recipe.md
"
    );
    // Nobody asks for it who takes no folder.
    sandbox.write("in/app.toml", "[[step]]\ndir = '/srv'\n");
    sandbox.build("in/app.toml");
}

#[test]
fn that_nothing_is_left_of_a_folder_is_told() {
    let sandbox = Sandbox::new();
    sandbox.write("src/a", "");
    sandbox.write(".mkignore", "*\n");
    sandbox.write("app.toml", "[[step]]\ncopy = 'src'\ninto = '/srv'\n");
    let output = sandbox.mk(["build", "app.toml"]).ok();
    assert!(
        output
            .stderr
            .contains("`.mkignore` leaves out all that is in `src`"),
        "{output}"
    );
}
