//! Runs every `console` block of README.md and docs/ as a newcomer would type it, and compares what is printed.
//!
//! A line that begins with `$ ` is a command; lines that begin with `> ` (or are only `>`) go on with it, as does one
//! after a closing backslash. What follows, up to the next command, is exactly what it prints on stdout and stderr
//! together. `…` in a line stands for any text, a line of only `…` for any lines of a command that succeeds. All
//! blocks of a file are typed into one shell, in a copy of this checkout, with a home and a store of their own;
//! README.md from nothing, the others with `busybox` built. A block that opens with ```` ```console (root) ```` or
//! ```` ```console (user) ```` is only for root or only for anyone else. One that opens with ```` ```console (network) ````
//! changes the network of the machine, and is only for root: then all of its file is typed on a host of the test's own,
//! which is gone afterwards ([`World`]). `cargo run --release --` calls the `mk` that is being
//! tested, and `cargo build --release` has made it.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::examples::TARGET;
use crate::harness::world::World;
use crate::harness::{Sandbox, needs};

/// A command and what it must print.
#[derive(Debug, PartialEq, Eq)]
struct Call {
    /// Its line in the document, from 1.
    line: usize,
    command: String,
    expected: Vec<String>,
}

/// How a block opens that changes the network of the machine.
const NETWORK: &str = "console (network)";

/// Whom a document is tried as.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a> {
    /// Whether that is root.
    pub(crate) root: bool,
    /// The host whose network may be changed.
    pub(crate) world: Option<&'a World>,
}

/// Returns the calls of the `console` blocks of `text` that are for this reader.
fn calls(text: &str, reader: Reader<'_>) -> Vec<Call> {
    let mut calls: Vec<Call> = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((_, line)) = lines.next() {
        let Some(fence) = line.strip_prefix("```") else {
            continue;
        };
        let block: Vec<(usize, &str)> = lines.by_ref().take_while(|(_, line)| *line != "```").collect();
        match fence.trim() {
            "console" => calls.extend(calls_of_block(&block)),
            "console (root)" if reader.root => calls.extend(calls_of_block(&block)),
            "console (user)" if !reader.root => calls.extend(calls_of_block(&block)),
            NETWORK if reader.world.is_some() => calls.extend(calls_of_block(&block)),
            _ => {}
        }
    }
    calls
}

fn calls_of_block(block: &[(usize, &str)]) -> Vec<Call> {
    let mut calls: Vec<Call> = Vec::new();
    let mut goes_on = false;
    for (at, line) in block {
        let more = line.ends_with('\\');
        match (line.strip_prefix("$ "), calls.last_mut()) {
            (_, Some(call)) if goes_on => {
                call.command.push('\n');
                call.command.push_str(line);
                goes_on = more;
            }
            (None, Some(call)) if call.expected.is_empty() && (line.starts_with("> ") || *line == ">") => {
                call.command.push('\n');
                call.command.push_str(line.get(2..).unwrap_or_default());
            }
            (Some(command), _) => {
                calls.push(Call {
                    line: at + 1,
                    command: command.to_owned(),
                    expected: Vec::new(),
                });
                goes_on = more;
            }
            (None, Some(call)) => call.expected.push((*line).to_owned()),
            (None, None) => panic!("line {}: a console block begins with a command: {line:?}", at + 1),
        }
    }
    calls
}

/// Whether the lines printed are what is expected.
fn agree(expected: &[&str], printed: &[&str]) -> bool {
    match (expected, printed) {
        ([], []) => true,
        (["…", rest @ ..], _) => (0..=printed.len()).any(|skip| agree(rest, &printed[skip..])),
        ([pattern, expected @ ..], [line, printed @ ..]) => {
            agree_in_line(pattern, line) && agree(expected, printed)
        }
        _ => false,
    }
}

fn agree_in_line(pattern: &str, line: &str) -> bool {
    let mut parts = pattern.split('…');
    let Some(mut rest) = line.strip_prefix(parts.next().unwrap_or_default()) else {
        return false;
    };
    let Some(last) = parts.next_back() else {
        return rest.is_empty();
    };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

fn without_empty_end<'a>(lines: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let mut lines: Vec<&str> = lines.into_iter().collect();
    while lines.last().is_some_and(|line| line.is_empty()) {
        lines.pop();
    }
    lines
}

/// A line that no command prints by chance, before each exit code.
const MARK: &str = "--- end of call --- exit code ";

/// A shell in a copy of the checkout.
pub(crate) struct Desk {
    sandbox: Sandbox,
}

impl Desk {
    pub(crate) fn new() -> Self {
        let sandbox = Sandbox::new();
        for name in ["bin", "tmp"] {
            fs_err::create_dir(sandbox.work().join(name)).unwrap();
        }
        let bin = sandbox.work().join("bin");
        fs_err::os::unix::fs::symlink(env!("CARGO_BIN_EXE_mk"), bin.join("mk")).unwrap();
        let cargo = "#!/bin/sh\n[ \"$*\" = 'build --release' ] && exit\n\
                     [ \"$1 $2 $3\" = 'run --release --' ] || exit 1\nshift 3\nexec mk \"$@\"\n";
        fs_err::write(bin.join("cargo"), cargo).unwrap();
        let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs_err::set_permissions(bin.join("cargo"), executable).unwrap();
        copy(&checkout(), &sandbox.work().join("mk"));
        let release = sandbox.work().join("mk/target").join(TARGET).join("release");
        fs_err::create_dir_all(&release).unwrap();
        fs_err::os::unix::fs::symlink(env!("CARGO_BIN_EXE_mk"), release.join("mk")).unwrap();
        Self { sandbox }
    }

    /// Types `calls` into one shell, and returns what each printed and its exit code; fewer where the shell ended early.
    fn typed(&self, calls: &[Call], world: Option<&World>) -> Vec<(String, String)> {
        let mut script = String::from("exec 2>&1\ncode=0\n");
        for call in calls {
            // A command sees the exit code of the one before it in `$?`.
            let quoted = call.command.replace('\'', r"'\''");
            let _ = writeln!(
                script,
                "(exit $code)\neval '{quoted}'\ncode=$?\nprintf '%s%s\\n' '{MARK}' $code"
            );
        }
        let path = self.sandbox.work().join("script");
        fs_err::write(&path, script).unwrap();
        let mut shell = self.command("sh");
        shell.arg(&path);
        let output = match world {
            Some(world) => world.host.enter(|| shell.output().unwrap()),
            None => shell.output().unwrap(),
        };
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut calls = Vec::new();
        let mut printed = String::new();
        for line in text.lines() {
            match line.split_once(MARK) {
                Some((before, code)) => {
                    printed.push_str(before);
                    calls.push((std::mem::take(&mut printed), code.to_owned()));
                }
                None => printed.extend([line, "\n"]),
            }
        }
        calls
    }

    fn command(&self, program: &str) -> Command {
        let folder = self.sandbox.work();
        let path = format!(
            "{}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            folder.join("bin").display()
        );
        let mut command = Command::new(program);
        command
            .env_clear()
            .stdin(Stdio::null())
            .current_dir(folder.join("mk"));
        command
            .env("PATH", path)
            .env("HOME", self.sandbox.home())
            .env("TMPDIR", folder.join("tmp"));
        command
            .env("MK_STORE", self.sandbox.store())
            .env("MK_STATE", self.sandbox.state())
            .env("MK_SOURCES", needs::sources());
        // Nothing listens there: what is not in the source folders is not fetched from the net.
        command.env("all_proxy", NO_NET);
        command
    }

    /// Compares a document with what its commands print.
    pub(crate) fn faults(&self, name: &str, text: &str, reader: Reader<'_>) -> Vec<String> {
        let calls = calls(text, reader);
        let printed = self.typed(&calls, reader.world);
        let mut faults = Vec::new();
        for (at, call) in calls.iter().enumerate() {
            let Call { line, command, .. } = call;
            let Some((printed, code)) = printed.get(at) else {
                faults.push(format!("{name}:{line}: the shell ended at `{command}`"));
                break;
            };
            let expected = without_empty_end(call.expected.iter().map(String::as_str));
            // Any lines are not any message: what a document leaves out must not hide a failure.
            let hidden = code != "0" && expected.contains(&"…");
            if hidden || !agree(&expected, &without_empty_end(printed.lines())) {
                let expected = expected.join("\n");
                faults.push(format!(
                    "{name}:{line}: $ {command}\n--- expected\n{expected}\n--- printed\n{printed}--- exit code {code}\n"
                ));
            }
        }
        faults
    }
}

const NO_NET: &str = "http://127.0.0.1:9";

fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Copies a folder without what git does not keep.
pub(crate) fn copy(from: &Path, to: &Path) {
    fs_err::create_dir(to).unwrap();
    for entry in fs_err::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let kind = entry.file_type().unwrap();
        let name = entry.file_name();
        if kind.is_dir() && name != "target" && name != ".git" {
            copy(&entry.path(), &to.join(name));
        } else if kind.is_file() {
            fs_err::copy(entry.path(), to.join(name)).unwrap();
        }
    }
}

/// Says why the documents cannot be tried here; `None` where they can.
fn missing(desk: &Desk) -> Option<&'static str> {
    let images = ["busybox", "busybox-musl", "alpine"];
    let mut runs = images
        .iter()
        .map(|image| desk.command("mk").args(["run", image, "true"]).output().unwrap());
    let failed = runs.find(|output| !output.status.success())?;
    let said = String::from_utf8_lossy(&failed.stderr);
    if said.contains("Connection refused") {
        Some("the archives that images/ pins, in a folder of MK_SOURCES")
    } else if said.contains("user namespace") {
        Some("user namespaces")
    } else {
        panic!("mk run: {said}");
    }
}

#[test]
fn every_console_block_prints_what_it_says() {
    let desk = Desk::new();
    if let Some(what) = missing(&desk) {
        return needs::skipped(what);
    }
    let mut files = vec![checkout().join("README.md")];
    for entry in fs_err::read_dir(checkout().join("docs")).unwrap() {
        files.push(entry.unwrap().path());
    }
    files.retain(|file| file.extension().is_some_and(|extension| extension == "md"));
    let root = needs::is_root();
    let mut faults = Vec::new();
    for file in files {
        let text = fs_err::read_to_string(&file).unwrap();
        let name = file.strip_prefix(checkout()).unwrap().display().to_string();
        let desk = Desk::new();
        if name != "README.md" {
            // Whoever reads on has tried what README.md begins with.
            let built = desk
                .command("mk")
                .args(["build", "--quiet", "busybox"])
                .output()
                .unwrap();
            assert!(built.status.success());
        }
        let on_network = text.lines().any(|line| line == format!("```{NETWORK}"));
        let world = if on_network { World::new() } else { None };
        let reader = Reader {
            root,
            world: world.as_ref(),
        };
        faults.extend(desk.faults(&name, &text, reader));
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

/// Who is not root.
const USER: Reader<'static> = Reader {
    root: false,
    world: None,
};

#[test]
fn a_block_on_networks_is_typed_on_a_host_of_its_own() {
    let Some(world) = World::new() else {
        return;
    };
    let text = "\
```console (network)
$ ip -br link show type bridge
$ ip link add blue type bridge
```

```console
$ ls -d /sys/class/net/blue
/sys/class/net/blue
```
";
    let reader = Reader {
        root: true,
        world: Some(&world),
    };
    assert_eq!(Desk::new().faults("a.md", text, reader), [""; 0]);
    assert!(!Path::new("/sys/class/net/blue").exists());
    assert_eq!(calls(text, USER).len(), 1);
}

#[test]
fn a_wrong_output_is_told_with_its_line_and_a_right_one_is_not() {
    let text = "\
# Title

```console
$ printf 'one\\ntwo\\n'
one
two

$ name=x; cd /; false
$ echo $? $name $PWD \\
  more
1 x / …
$ echo oops
oh
$ cat <<END
> a
>
> b
> END
a

b
```

```sh
exit 1
```

```console (root)
$ echo root
no
```
";
    let faults = Desk::new().faults("a.md", text, USER);
    assert_eq!(
        faults,
        ["a.md:12: $ echo oops\n--- expected\noh\n--- printed\noops\n--- exit code 0\n"]
    );
    let root = Reader { root: true, ..USER };
    let faults = Desk::new().faults("a.md", text, root);
    assert_eq!(faults.len(), 2, "{faults:?}");
}

#[test]
fn what_a_command_prints_beyond_the_document_is_a_fault_and_so_is_an_early_end() {
    let desk = Desk::new();
    for text in [
        "```console\n$ echo a; echo b\na\n```\n",
        "```console\n$ echo a >&2\n```\n",
        "```console\n$ true\nmore\n```\n",
        "```console\n$ exit\n$ true\n```\n",
        "```console\n$ false\n…\n```\n",
        "```console\n$ printf a\nb\n```\n",
    ] {
        assert_eq!(desk.faults("a.md", text, USER).len(), 1, "{text}");
    }
}

#[test]
fn an_ellipsis_stands_for_text_in_a_line_and_for_lines_alone() {
    for (pattern, line, right) in [
        ("a…c", "abc", true),
        ("a…c", "ac", true),
        ("a…c", "abcd", false),
        ("…b…", "abc", true),
        ("ab", "abc", false),
        ("a…a", "a", false),
    ] {
        assert_eq!(agree_in_line(pattern, line), right, "{pattern:?} {line:?}");
    }
    assert!(agree(&["a", "…", "z"], &["a", "b", "c", "z"]));
    assert!(agree(&["a", "…"], &["a"]));
    assert!(!agree(&["a", "…", "z"], &["a", "z", "b"]));
}

/// Returns the names of functions in backticks in the tables of `text`.
fn functions_named(text: &str) -> Vec<&str> {
    let rows = text.lines().filter(|line| line.starts_with('|'));
    let words = rows.flat_map(|row| row.split('`').skip(1).step_by(2));
    let is_name = |word: &&str| {
        word.matches('_').count() > 2 && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
    };
    words.filter(is_name).collect()
}

fn sources(folder: &Path) -> String {
    let mut text = String::new();
    for entry in fs_err::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            text += &sources(&path);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text += &fs_err::read_to_string(&path).unwrap();
        }
    }
    text
}

#[test]
fn every_test_that_the_page_on_security_names_is_there() {
    let page = fs_err::read_to_string(checkout().join("docs/security.md")).unwrap();
    let tests = sources(&checkout().join("tests")) + &sources(&checkout().join("core/tests"));
    let named = functions_named(&page);
    assert!(named.len() > 30, "{named:?}");
    let missing: Vec<&str> = named
        .iter()
        .copied()
        .filter(|name| !tests.contains(&format!("fn {name}(")))
        .collect();
    assert!(
        missing.is_empty(),
        "docs/security.md names tests that there are not: {missing:?}"
    );
    // And the other way round: what attacks is on the page.
    let attacks = sources(&checkout().join("tests/security"));
    let unnamed: Vec<&str> = attacks
        .split("#[test]\nfn ")
        .skip(1)
        .filter_map(|rest| rest.split('(').next())
        .filter(|name| *name != "acts" && !named.contains(name))
        .collect();
    assert!(unnamed.is_empty(), "docs/security.md does not name {unnamed:?}");
}

/// Returns the targets of the links in `text` that are files: `[words](target)`, without what is behind `#`.
fn links(text: &str) -> Vec<&str> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let files = targets.filter(|target| !target.contains("://") && !target.starts_with('#'));
    files.filter_map(|target| target.split('#').next()).collect()
}

#[test]
fn every_link_between_documents_leads_to_a_file() {
    let mut dead = Vec::new();
    for folder in ["", "docs", "docs/decisions", "bench", "images"] {
        for entry in fs_err::read_dir(checkout().join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "md") {
                continue;
            }
            let text = fs_err::read_to_string(&path).unwrap();
            let missing = links(&text)
                .into_iter()
                .filter(|target| !path.with_file_name(target).exists());
            dead.extend(missing.map(|target| format!("{}: {target}", path.display())));
        }
    }
    assert!(dead.is_empty(), "\n{}", dead.join("\n"));
}

#[test]
fn links_are_found_and_addresses_are_not() {
    let text = "[a](b.md), [c](d/e.md#f) and [g](https://example.org/h), [i](#j)";
    assert_eq!(links(text), ["b.md", "d/e.md"]);
}
