//! The examples of docs/recipe.md. Which verbs and keys there are comes from `mk schema`, and each of them stands in one
//! of the examples; each example is built, with stand-ins beside it for what it names; and what is wrong in one of its
//! keys is refused by mk as well as by the schema.

use std::collections::BTreeSet;

use serde_json::Value;
use toml::Table;

use crate::examples::checkout;
use crate::harness::archive::{Item, Tar, gzip};
use crate::harness::{Sandbox, needs};
use crate::schema::{Schema, shown};

/// A key and where it stands: at the top (nothing), in `[conf]` or `[run]`, beside a verb, or in a table of one of these.
type Place = (String, String);

/// Adds the keys of the tables that `schema` allows, and of those below them.
fn allowed(schema: &Value, at: &str, places: &mut BTreeSet<Place>) {
    let Some(schema) = schema.as_object() else {
        return;
    };
    for (key, value) in schema
        .get("properties")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        places.insert((at.to_owned(), key.clone()));
        let below = match (at, key.as_str()) {
            ("", "step") => String::new(),
            ("", key) => format!("[{key}]"),
            (at, key) => format!("{at} {key}"),
        };
        allowed(value, &below, places);
    }
    if let Some(items) = schema.get("items") {
        allowed(items, at, places);
    }
    for kind in ["oneOf", "anyOf"] {
        for one in schema.get(kind).and_then(Value::as_array).into_iter().flatten() {
            let verb = one.get("title").and_then(Value::as_str);
            allowed(one, verb.unwrap_or(at), places);
        }
    }
}

/// Calls `see` with each key of a table, with those below it, and with the table that it stands in.
fn each_key(table: &Table, at: &str, known: &BTreeSet<Place>, see: &mut dyn FnMut(Place, &[&str])) {
    fn go<'t>(
        table: &'t Table,
        at: &str,
        known: &BTreeSet<Place>,
        path: &mut Vec<&'t str>,
        see: &mut dyn FnMut(Place, &[&str]),
    ) {
        for (key, value) in table {
            let place = (at.to_owned(), key.clone());
            if !known.contains(&place) {
                // A name of the recipe's own, as of an argument.
                continue;
            }
            path.push(key);
            see(place, path);
            let below = match at {
                "" => format!("[{key}]"),
                at => format!("{at} {key}"),
            };
            match value {
                toml::Value::Table(table) => go(table, &below, known, path, see),
                toml::Value::Array(list) if key != "step" => {
                    for table in list.iter().filter_map(toml::Value::as_table) {
                        go(table, &below, known, path, see);
                    }
                }
                _ => {}
            }
            path.pop();
        }
    }
    go(table, at, known, &mut Vec::new(), see);
}

/// Returns the verb of a step: the key that its kind is called by, and that no other kind of step has beside it.
fn verb(step: &Table, known: &BTreeSet<Place>) -> String {
    let is_verb = |key: &&String| {
        known.contains(&((*key).clone(), (*key).clone()))
            && step
                .keys()
                .all(|other| known.contains(&((*key).clone(), other.clone())))
    };
    step.keys()
        .find(is_verb)
        .cloned()
        .unwrap_or_else(|| panic!("no verb in {step}"))
}

fn steps(recipe: &Table) -> impl Iterator<Item = &Table> {
    let steps = recipe.get("step").and_then(toml::Value::as_array);
    steps.into_iter().flatten().filter_map(toml::Value::as_table)
}

fn keys() -> (Schema, BTreeSet<Place>) {
    let schema = Schema::new();
    let mut known = BTreeSet::new();
    allowed(&schema.text, "", &mut known);
    assert!(known.len() > 50, "{known:#?}");
    (schema, known)
}

#[test]
fn every_verb_and_key_stands_in_an_example() {
    let (_, known) = keys();
    let mut missing = known.clone();
    for (_, block) in shown("docs/recipe.md") {
        let recipe: Table = toml::from_str(&block).unwrap();
        each_key(&recipe, "", &known, &mut |place, _| {
            missing.remove(&place);
        });
        for step in steps(&recipe) {
            each_key(step, &verb(step, &known), &known, &mut |place, _| {
                missing.remove(&place);
            });
        }
    }
    assert!(
        missing.is_empty(),
        "docs/recipe.md shows no example of {missing:#?}"
    );
}

/// Puts 1.5, which no key can be, in the place of the value at `path`.
fn spoil(table: &mut Table, path: &[&str]) {
    let (first, rest) = path.split_first().unwrap();
    let value = table.get_mut(*first).unwrap();
    match value {
        _ if rest.is_empty() => *value = toml::Value::Float(1.5),
        toml::Value::Table(below) => spoil(below, rest),
        toml::Value::Array(list) => {
            let has = |value: &&mut toml::Value| value.get(rest[0]).is_some();
            let below = list.iter_mut().find(has).unwrap();
            spoil(below.as_table_mut().unwrap(), rest);
        }
        other => panic!("{path:?} leads into {other}"),
    }
}

#[test]
fn what_is_wrong_in_a_key_is_refused_by_mk_and_by_the_schema() {
    let (schema, known) = keys();
    let sandbox = Sandbox::new();
    let mut tried = BTreeSet::new();
    for (_, block) in shown("docs/recipe.md") {
        let mut recipe: Table = toml::from_str(&block).unwrap();
        if !recipe.contains_key("step") && !recipe.contains_key("from") {
            recipe.insert("from".into(), "busybox".into());
        }
        let mut wrong: Vec<Table> = Vec::new();
        each_key(&recipe, "", &known, &mut |place, path| {
            if tried.insert(place) {
                let mut spoilt = recipe.clone();
                spoil(&mut spoilt, path);
                wrong.push(spoilt);
            }
        });
        for (at, step) in steps(&recipe).enumerate() {
            let verb = verb(step, &known);
            each_key(step, &verb, &known, &mut |place, path| {
                if tried.insert(place) {
                    for misspelt in [false, true] {
                        let mut spoilt = recipe.clone();
                        let step = spoilt["step"][at].as_table_mut().unwrap();
                        match (misspelt, path) {
                            (true, [key]) => {
                                let value = step.remove(*key).unwrap();
                                step.insert(format!("{key}x"), value);
                            }
                            (true, _) => continue,
                            (false, path) => spoil(step, path),
                        }
                        wrong.push(spoilt);
                    }
                }
            });
        }
        for recipe in wrong {
            let text = toml::to_string(&recipe).unwrap();
            assert!(schema.refuses(&text).is_some(), "the schema takes:\n{text}");
            sandbox.write("app.toml", &text);
            let told = sandbox.mk(["build", "app.toml"]);
            assert_eq!(told.code, Some(1), "{text}\n{told}");
            assert!(told.stderr.contains("cannot read `app.toml`"), "{text}\n{told}");
        }
    }
    assert_eq!(tried, known);
}

/// Lays out what the examples name: small, and of the right kind.
fn stand_ins(sandbox: &Sandbox, rootfs: &std::path::Path) {
    let tool = Tar::of([
        Item::file("tool-1.2/bin/tool", b"tool\n").mode(0o755),
        Item::file("tool-1.2/lib/libtool.a", b"left out\n"),
    ]);
    let tool = gzip(&tool.finish());
    for (path, bytes) in [
        ("start/srv/data.tar", Tar::of([]).finish()),
        ("start/srv/motd", b"hi\n".to_vec()),
        ("start/usr/local/bin/.keep", Vec::new()),
        ("start/usr/share/doc/tool/copyright", b"free\n".to_vec()),
        ("start/var/cache/tool/a.bin", b"cached\n".to_vec()),
        // A compiler and a network, as far as these examples need one.
        (
            "start/usr/bin/cc",
            b"#!/bin/sh\n[ -s /run/secrets/token ] && cp $4 $3\n".to_vec(),
        ),
        ("start/bin/wget", b"#!/bin/sh\necho $3 >$2\n".to_vec()),
        ("vendor/tool-1.2.tar.xz", tool.clone()),
        ("vendor/tool-1.2.tar.gz", tool),
        ("files/motd", b"hi\n".to_vec()),
        ("files/app.conf", b"port = 8080\n".to_vec()),
        ("files/site/index.html", b"<p>hi\n".to_vec()),
        ("src/hello.c", b"int main(void) { return 0; }\n".to_vec()),
        ("bin/mk", b"not really\n".to_vec()),
        ("token", b"secret\n".to_vec()),
        ("base.toml", b"[[step]]\ndir = '/etc'\n".to_vec()),
        (
            "builder.toml",
            b"[[step]]\nwrite = '/out/app'\ntext = 'app'\n".to_vec(),
        ),
        (
            "start.toml",
            b"from = 'rootfs.tar.gz'\n[[step]]\ncopy = 'start/'\ninto = '/'\n".to_vec(),
        ),
    ] {
        sandbox.write(path, bytes);
    }
    for program in ["start/usr/bin/cc", "start/bin/wget", "bin/mk"] {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs_err::set_permissions(sandbox.work().join(program), mode).unwrap();
    }
    fs_err::copy(rootfs, sandbox.work().join("rootfs.tar.gz")).unwrap();
}

/// The pins of two locks as one.
fn pins() -> String {
    let [mut all, more] = ["images/busybox.lock", "examples/packages/Containerfile.lock"]
        .map(|lock| fs_err::read_to_string(checkout().join(lock)).unwrap());
    let (_, more) = more.split_once("[[deb]]").unwrap();
    all.push_str("\n[[deb]]");
    all.push_str(more);
    all
}

#[test]
fn every_example_can_be_built() {
    let Some(rootfs) = needs::fixture(needs::FIXTURES[0]) else {
        return;
    };
    if !needs::namespaces() {
        return;
    }
    let sandbox = Sandbox::new();
    stand_ins(&sandbox, &rootfs);
    let mut built = 0;
    for (at, (_, block)) in shown("docs/recipe.md").into_iter().enumerate() {
        let recipe: Table = toml::from_str(&block).unwrap();
        if block.contains("user = \"worker\"") && !needs::has_ids() {
            needs::skipped("more than one user id, for a step that runs as a user of the image");
            continue;
        }
        // An example that is no whole recipe goes on from something.
        let whole = recipe.contains_key("from") || recipe.contains_key("description");
        let text = if whole {
            block
        } else {
            format!("from = \"start\"\n{block}")
        };
        let file = format!("example-{at}.toml");
        sandbox.write(&file, &text);
        let mut words = vec!["build", &file, "--locked", "-q"];
        if text.contains("secret =") {
            words.extend(["--secret", "token=token"]);
        }
        if text.contains("deb =") {
            sandbox.write(format!("example-{at}.lock"), pins());
        }
        let output = sandbox.mk_with(words, |command| {
            // Nothing listens there.
            command
                .env("all_proxy", "http://127.0.0.1:9")
                .env("MK_SOURCES", needs::sources());
        });
        if output.code == Some(1) && output.stderr.contains(": cannot fetch ") {
            needs::skipped("the packages that docs/recipe.md names, in a folder that MK_SOURCES names");
            continue;
        }
        assert_eq!(output.code, Some(0), "docs/recipe.md:\n{text}\n{output}");
        built += 1;
    }
    assert!(built > 15, "{built}");
    sandbox.verify();
}
