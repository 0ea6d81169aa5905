//! `mk plan`: what a build would do, recipe by recipe, as text, as JSON, for Graphviz, or as a picture.

use std::fmt::Write;

use mk_core::assemble::forecast::Fate;
use mk_core::assemble::pin::Policy;
use mk_core::path::shown;
use serde_json::{Value, json};

use super::family::{Family, Outlook};
use super::{Context, build, find};
use crate::args;
use crate::progress::Progress;
use crate::report::Failure;
use crate::ui;

/// Prints the plan.
pub(super) fn call(args: &args::Plan, context: &Context) -> Result<u8, Failure> {
    let settings = context.settings(&build::flags(&args.source, args.store.store.as_deref()))?;
    let found = find::Recipe::find(&args.recipe)?;
    // A plan changes nothing, and so not the lock either.
    let family = Family::read(found, &args.source, None, Policy::Locked)?;
    let store = context.store(&settings)?;
    let progress = Progress::new(context.ui, args::TalkArgs::default());
    let plan = family.outlook(&settings, &store, &progress)?;
    drop(progress);
    if args.json {
        ui::data(ui::pretty(&as_json(&plan)))?;
    } else if args.dot {
        ui::data(dot(&plan).trim_end())?;
    } else if args.svg {
        ui::data(svg(&plan).trim_end())?;
    } else {
        ui::data(text(&plan).trim_end())?;
    }
    Ok(0)
}

fn fate(fate: Fate) -> &'static str {
    match fate {
        Fate::Cached => "cached",
        Fate::Done => "to do",
        Fate::Open => "to do, unless what comes before gives a tree that is known",
    }
}

fn text(plan: &[Outlook]) -> String {
    let mut out = String::new();
    for recipe in plan {
        _ = writeln!(out, "{} ({})", recipe.name, recipe.place);
        for input in recipe.inputs.iter().filter(|input| input.step.is_none()) {
            _ = writeln!(out, "      from {}", input.base);
        }
        let rows: Vec<Vec<String>> = recipe
            .steps
            .iter()
            .enumerate()
            .map(|(index, (label, of))| {
                vec![
                    format!("  {:>3}", index + 1),
                    shown(label.as_bytes()),
                    fate(*of).to_owned(),
                ]
            })
            .collect();
        out.push_str(&ui::table(&rows));
    }
    out
}

fn as_json(plan: &[Outlook]) -> Value {
    let recipes = plan.iter().map(|recipe| {
        let steps = recipe.steps.iter().map(|(label, of)| {
            let of = match of {
                Fate::Cached => "cached",
                Fate::Done => "done",
                Fate::Open => "open",
            };
            json!({"label": label, "fate": of})
        });
        let inputs = recipe
            .inputs
            .iter()
            .map(|input| json!({"base": input.base, "recipe": input.recipe, "step": input.step.map(|step| step + 1)}));
        json!({
            "name": recipe.name,
            "recipe": recipe.place,
            "tree": recipe.tree,
            "inputs": inputs.collect::<Value>(),
            "steps": steps.collect::<Value>(),
        })
    });
    recipes.collect()
}

/// The graph in the language of Graphviz (dot(1)).
fn dot(plan: &[Outlook]) -> String {
    let quoted = |text: &str| {
        format!(
            "\"{}\"",
            shown(text.as_bytes()).replace('\\', "\\\\").replace('"', "\\\"")
        )
    };
    let mut out =
        String::from("digraph plan {\n  rankdir=LR;\n  node [shape=box, fontname=\"sans-serif\"];\n");
    for (place, recipe) in plan.iter().enumerate() {
        _ = writeln!(
            out,
            "  subgraph cluster_{place} {{\n    label={};",
            quoted(&recipe.name)
        );
        _ = writeln!(
            out,
            "    r{place} [label={}, shape=ellipse];",
            quoted(&recipe.place)
        );
        for (index, (label, of)) in recipe.steps.iter().enumerate() {
            let style = if *of == Fate::Cached { "filled" } else { "solid" };
            _ = writeln!(
                out,
                "    r{place}s{index} [label={}, style={style}];",
                quoted(label)
            );
            let before = match index {
                0 => format!("r{place}"),
                index => format!("r{place}s{}", index - 1),
            };
            _ = writeln!(out, "    {before} -> r{place}s{index};");
        }
        out.push_str("  }\n");
        for input in &recipe.inputs {
            let to = match input.step {
                Some(step) => format!("r{place}s{step}"),
                None => format!("r{place}"),
            };
            let from = match input.recipe.and_then(|from| Some((from, plan.get(from)?))) {
                Some((from, base)) if base.steps.is_empty() => format!("r{from}"),
                Some((from, base)) => format!("r{from}s{}", base.steps.len() - 1),
                None => quoted(&input.base),
            };
            _ = writeln!(out, "  {from} -> {to};");
        }
    }
    out.push_str("}\n");
    out
}

/// Width of a recipe's box, height of a line, and space between boxes, in pixels.
const WIDTH: usize = 380;
const LINE: usize = 20;
const GAP: usize = 60;
/// A label is cut behind so many characters.
const MOST_LETTERS: usize = 50;

/// Where a recipe's box is, in pixels.
struct Place {
    x: usize,
    y: usize,
    height: usize,
}

/// Places recipes in columns: each to the right of all that it takes something from.
fn places(plan: &[Outlook]) -> Vec<Place> {
    let mut columns: Vec<usize> = Vec::new();
    let mut next: Vec<usize> = Vec::new();
    let mut places = Vec::new();
    for recipe in plan {
        let before = recipe
            .inputs
            .iter()
            .filter_map(|input| columns.get(input.recipe?));
        let column = before.max().map_or(0, |column| column + 1);
        columns.push(column);
        next.resize(next.len().max(column + 1), GAP / 2);
        let height = (recipe.steps.len() + 1) * LINE + 12;
        places.push(Place {
            x: GAP / 2 + column * (WIDTH + GAP),
            y: next[column],
            height,
        });
        next[column] += height + GAP / 2;
    }
    places
}

/// The graph as a picture: a box a recipe, with its steps, and a line from each to what takes something from it.
fn svg(plan: &[Outlook]) -> String {
    let places = places(plan);
    let width = places.iter().map(|place| place.x + WIDTH).max().unwrap_or(0) + GAP / 2;
    let height = places
        .iter()
        .map(|place| place.y + place.height)
        .max()
        .unwrap_or(0)
        + GAP / 2;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n<title>What the build of {} does</title>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n",
        escaped(plan.last().map_or("", |recipe| recipe.name.as_str())),
    );
    for (recipe, place) in plan.iter().zip(&places) {
        for input in &recipe.inputs {
            let Some(from) = input.recipe.and_then(|from| places.get(from)) else {
                continue;
            };
            let (x, y) = (from.x + WIDTH, from.y + from.height / 2);
            let row = input.step.map_or(0, |step| step + 1);
            let (to_x, to_y) = (place.x, place.y + 6 + row * LINE + LINE / 2);
            let middle = (x + to_x) / 2;
            _ = writeln!(
                out,
                "<path d=\"M{x} {y} C{middle} {y} {middle} {to_y} {to_x} {to_y}\" fill=\"none\" stroke=\"#666666\"/>"
            );
        }
    }
    for (recipe, Place { x, y, height }) in plan.iter().zip(&places) {
        _ = writeln!(
            out,
            "<rect x=\"{x}\" y=\"{y}\" width=\"{WIDTH}\" height=\"{height}\" rx=\"4\" fill=\"#f6f6f6\" stroke=\"#666666\"/>"
        );
        let (text_x, mut text_y) = (x + 8, y + LINE);
        _ = writeln!(
            out,
            "<text x=\"{text_x}\" y=\"{text_y}\" font-weight=\"bold\">{}</text>",
            escaped(&recipe.name)
        );
        for (label, of) in &recipe.steps {
            text_y += LINE;
            // Told by more than the colour.
            let (colour, mark) = match of {
                Fate::Cached => ("#4d6b4d", "✓"),
                Fate::Done => ("#a03000", "●"),
                Fate::Open => ("#7a5c00", "○"),
            };
            _ = writeln!(
                out,
                "<text x=\"{text_x}\" y=\"{text_y}\" fill=\"{colour}\">{mark} {}<title>{}: {}</title></text>",
                escaped(&cut(label)),
                escaped(label),
                fate(*of)
            );
        }
    }
    out.push_str("</svg>\n");
    out
}

fn cut(label: &str) -> String {
    match label.char_indices().nth(MOST_LETTERS) {
        Some((end, _)) => format!("{}…", &label[..end]),
        None => label.to_owned(),
    }
}

/// Returns a text as XML has it.
pub(super) fn escaped(text: &str) -> String {
    shown(text.as_bytes())
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
