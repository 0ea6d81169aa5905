//! Reading recipes as text from outside: no text makes the reader panic, every mistake is in bounds, and what
//! docs/recipe.md shows is read as it says.

use std::collections::BTreeMap;
use std::path::Path;

use mk_core::recipe::Recipe;
use mk_core::recipe::mistake::Mistakes;
use mk_core::recipe::parse::parse;
use proptest::prelude::*;

/// A recipe that uses most of what there is.
const WHOLE: &str = r#"description = "all of it"
epoch = 1700000000

[args]
greeting = "hello"
mode = "0640"

[[step]]
deb = ["busybox-static", "tzdata"]
suite = "bookworm"
exclude = ["usr/share/doc/**"]

[[step]]
unpack = "https://example.org/{greeting}.tar.gz"
sha256 = "5c3b447848a98e48dce106cb3e6acbd4fb6f9b26ee778798137349ce01f4d3c1"
into = "/opt/"
strip = 1

[[step]]
write = "/etc/motd"
text = '''
{greeting} {{"key": "välue"}}
'''
mode = "{mode}"
owner = "0:5"

[[step]]
link = ["/bin/sh", "/bin/ls"]
to = "busybox"

[[step]]
user = "app"
uid = 1000
groups = ["tty"]

[conf]
hostname = "web-1"
hosts = { "10.0.0.7" = ["db"], "::1" = "six" }

[run]
command = ["/bin/sh", "-c", "echo {greeting}"]
env = { PATH = "/bin" }
network = "none"
"#;

fn read(text: &str) -> Result<Recipe, Mistakes> {
    parse(text, &BTreeMap::new())
}

/// Fails where a mistake is out of bounds or out of order, cannot be drawn, or none is told.
fn holds(text: &str) -> Result<(), TestCaseError> {
    let Err(mistakes) = read(text) else { return Ok(()) };
    prop_assert!(!mistakes.0.is_empty());
    for mistake in &mistakes.0 {
        prop_assert!(text.get(mistake.span.clone()).is_some(), "{mistake:?}");
        prop_assert!(!mistake.what.is_empty());
        let drawn = mistake.render("r.toml", text);
        prop_assert!(
            drawn.chars().all(|letter| letter == '\n' || !letter.is_control()),
            "{drawn:?}"
        );
    }
    prop_assert!(mistakes.0.is_sorted_by_key(|mistake| mistake.span.start));
    Ok(())
}

/// What a slip of the keyboard puts into a recipe.
const SLIPS: &[&str] = &[
    "",
    "{",
    "}",
    "{x}",
    "\"",
    "'",
    "[",
    "]]",
    "=",
    "\n",
    "\r\n",
    "\t",
    "é",
    "日",
    "\0",
    "\u{1b}",
    "644",
    "-1",
    "'''",
    "#",
    ",",
    "[[step]]\n",
    "[run]\n",
    "mode = 644\n",
    "into = '../x'\n",
    "\\u0000",
    "1e999",
    "1979-05-27",
    "99999999999999999999",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn no_text_makes_the_reader_panic(text in "\\PC{0,200}") {
        holds(&text)?;
    }

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        holds(&String::from_utf8_lossy(&bytes))?;
    }

    #[test]
    fn no_slip_in_a_recipe_makes_the_reader_panic(
        slips in prop::collection::vec(
            (any::<prop::sample::Index>(), 0_usize..12, prop::sample::select(SLIPS)), 1..5),
    ) {
        let mut text = WHOLE.to_owned();
        for (at, length, slip) in slips {
            let places: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
            let at = at.index(places.len());
            let end = places[(at + length).min(places.len() - 1)];
            text.replace_range(places[at]..end, slip);
        }
        holds(&text)?;
    }

    #[test]
    fn every_line_may_stand_anywhere(lines in Just(WHOLE.lines().collect::<Vec<_>>()).prop_shuffle()) {
        holds(&lines.join("\n"))?;
    }

    #[test]
    fn given_arguments_are_never_read_as_recipe_text(value in "\\PC{0,60}") {
        let given = BTreeMap::from([("greeting".to_owned(), value.clone())]);
        let text = "[args]\ngreeting = ''\n[[step]]\nwrite = '/a'\ntext = '{greeting}'\n";
        let recipe = parse(text, &given).unwrap();
        let verb = format!("{:?}", recipe.steps[0].verb);
        prop_assert!(verb.contains(&format!("text: {value:?}")), "{}", verb);
    }
}

#[test]
fn the_whole_recipe_is_read() {
    let recipe = read(WHOLE).unwrap_or_else(|mistakes| panic!("{}", mistakes.render("whole.toml", WHOLE)));
    assert_eq!(recipe.steps.len(), 5);
}

/// Every ```toml block of the reference, with the line that it begins on.
fn blocks(page: &str) -> Vec<(usize, String)> {
    let mut blocks = Vec::new();
    let mut lines = page.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        if line.trim() == "```toml" {
            let block: Vec<&str> = lines
                .by_ref()
                .map(|(_, line)| line)
                .take_while(|line| line.trim() != "```")
                .collect();
            blocks.push((number + 1, block.join("\n") + "\n"));
        }
    }
    blocks
}

#[test]
fn every_example_of_the_reference_is_read() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/recipe.md");
    let page = fs_err::read_to_string(path).unwrap();
    let blocks = blocks(&page);
    assert!(blocks.len() >= 10, "{} blocks", blocks.len());
    for (line, block) in blocks {
        // A fragment that is no step, such as `[conf]`, is shown without one.
        let text = match block.contains("[[step]]") {
            true => block,
            false => format!("{block}\n[[step]]\ndir = '/'\n"),
        };
        if let Err(mistakes) = read(&text) {
            panic!(
                "line {line} of docs/recipe.md:\n{}",
                mistakes.render("block", &text)
            );
        }
    }
}
