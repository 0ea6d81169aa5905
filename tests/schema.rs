//! `mk schema`, as a validator of JSON Schema reads it: it takes every recipe that mk takes, and refuses those that mk
//! refuses for their form.

use std::path::Path;

use serde_json::Value;

use crate::examples::checkout;
use crate::harness::Sandbox;

/// The schema, ready to validate with.
pub(crate) struct Schema {
    /// As `mk schema` prints it.
    pub(crate) text: Value,
    schemas: boon::Schemas,
    index: boon::SchemaIndex,
}

impl Schema {
    pub(crate) fn new() -> Self {
        let text = Sandbox::new().mk(["schema"]).ok().stdout;
        let schema: Value = serde_json::from_str(&text).unwrap();
        let mut compiler = boon::Compiler::new();
        let mut schemas = boon::Schemas::new();
        compiler.add_resource("recipe.json", schema.clone()).unwrap();
        let index = compiler.compile("recipe.json", &mut schemas).unwrap();
        Self {
            text: schema,
            schemas,
            index,
        }
    }

    /// Returns why the schema refuses a recipe; `None`: it takes it.
    pub(crate) fn refuses(&self, recipe: &str) -> Option<String> {
        let table: toml::Table = toml::from_str(recipe).unwrap();
        let value = serde_json::to_value(table).unwrap();
        let refused = self.schemas.validate(&value, self.index).err();
        refused.map(|error| error.to_string())
    }
}

/// The recipes in the folder `name` of the checkout, and those below it.
fn recipes(name: &str) -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name);
    let mut found = Vec::new();
    let mut folders = vec![root];
    while let Some(folder) = folders.pop() {
        for entry in fs_err::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "toml") && !path.ends_with("Cargo.toml") {
                found.push((path.display().to_string(), fs_err::read_to_string(&path).unwrap()));
            }
        }
    }
    found
}

/// The recipes that a document shows.
pub(crate) fn shown(document: &str) -> Vec<(String, String)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(document);
    let text = fs_err::read_to_string(path).unwrap();
    let blocks = text.split("```toml\n").skip(1);
    let blocks = blocks.map(|block| block.split("\n```").next().unwrap().to_owned());
    blocks
        .map(|block| (format!("{document}:\n{block}"), block))
        .collect()
}

#[test]
fn the_schema_takes_every_recipe_that_is_there_to_be_copied() {
    let schema = Schema::new();
    let top = checkout().join("Containerfile.toml");
    let top = (top.display().to_string(), fs_err::read_to_string(&top).unwrap());
    let all = [
        recipes("examples"),
        recipes("images"),
        shown("docs/recipe.md"),
        vec![top],
    ]
    .concat();
    assert!(all.len() > 20, "{}", all.len());
    for (place, mut recipe) in all {
        if !recipe.contains("[[step]]") && !recipe.contains("from =") {
            // A part of a recipe, which is none without a step.
            recipe.push_str("\n[[step]]\ndir = '/a'\n");
        }
        let refused = schema.refuses(&recipe);
        assert_eq!(refused, None, "{place}");
    }
}

#[test]
fn the_schema_refuses_what_mk_refuses_for_its_form() {
    let schema = Schema::new();
    let wrong = [
        "",
        "description = 'no step'",
        "step = []",
        "[[step]]\n",
        "[[step]]\ndir = '/a'\nmod = '0755'",
        "[[step]]\ndir = 'a'",
        "[[step]]\ndir = []",
        "[[step]]\ndir = ['/a', '/a']",
        "[[step]]\ndir = '/a'\nmode = 755",
        "[[step]]\ndir = '/a'\nmode = '9'",
        "[[step]]\ndir = '/a'\nowner = 'root'",
        "[[step]]\ndir = '/a'\nwrite = '/b'\ntext = ''",
        "[[step]]\nwrite = '/b'",
        "[[step]]\nunpack = 'a.tar'\nsha256 = 'abc'",
        "[[step]]\nunpack = 'a.tar'\nstrip = -1",
        "[[step]]\ndeb = 'a b'\nsuite = 'bookworm'",
        "[[step]]\ncopy = { from = 'a' }\ninto = '/'",
        "[[step]]\ncopy = { from = 'a', path = '/b', to = '/c' }\ninto = '/'",
        "[[step]]\nrun = 'a'\nmounts = []",
        "[[step]]\nrun = 'a'\nmounts = [{ cache = 'a' }]",
        "[[step]]\nrun = 'a'\nmounts = [{ cash = 'a', at = '/b' }]",
        "[[step]]\nrun = 'a'\nnetwork = 'yes'",
        "[[step]]\nuser = 'Root'\nuid = 0",
        "[[step]]\nuser = 'app'\nuid = 4294967295",
        "epoch = 1.5\n[[step]]\ndir = '/a'",
        "from = 5\n",
        "[conf]\nhost = 'a'\n[[step]]\ndir = '/a'",
        "[run]\ncommand = 'sh'\n[[step]]\ndir = '/a'",
        "[run]\nnetwork = 'container:a'\n[[step]]\ndir = '/a'",
    ];
    for recipe in wrong {
        assert!(schema.refuses(recipe).is_some(), "the schema takes:\n{recipe}");
        let sandbox = Sandbox::new();
        sandbox.write("app.toml", recipe);
        let told = sandbox.mk(["build", "app.toml"]);
        assert_eq!(told.code, Some(1), "{recipe}\n{told}");
        assert!(told.stderr.contains("cannot read `app.toml`"), "{recipe}\n{told}");
    }
}
