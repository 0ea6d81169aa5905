//! `mk du`: what the images of the store take, and what fills one of them, also as a picture.

use std::fmt::Write;

use mk_core::path::shown;
use mk_core::store::du::{Shares, shares};
use mk_core::tree::bulk::Bulk;
use serde_json::{Value, json};

use super::{Context, find};
use crate::args;
use crate::report::Failure;
use crate::settings::Flags;
use crate::ui;

/// Folders below this share of the whole are not told one by one.
const LEAST: f64 = 0.01;

/// Prints it.
pub(super) fn call(args: &args::Du, context: &Context) -> Result<u8, Failure> {
    let flags = Flags {
        store: args.store.store.as_deref(),
        ..Flags::default()
    };
    let store = context.whole_store(&context.settings(&flags)?)?;
    let Some(word) = &args.image else {
        let shares = match &store {
            Some(store) => shares(store)?,
            None => Shares::default(),
        };
        match args.json {
            true => ui::data(ui::pretty(&of_all(&shares)))?,
            false => table(&shares)?,
        }
        return Ok(0);
    };
    let (store, image) = find::image(store.as_ref(), word)?;
    let bulk = store.tree(&store.image(&image)?.tree)?.bulk();
    if args.json {
        ui::data(ui::pretty(&of_one(&bulk)))?;
    } else if args.svg {
        ui::data(svg(word, &bulk).trim_end())?;
    } else {
        let mut rows = vec![["SIZE", "PATH"].map(str::to_owned).to_vec()];
        folders(&bulk, String::new(), bulk.bytes, &mut rows);
        ui::data(ui::table(&rows).trim_end())?;
    }
    Ok(0)
}

fn table(shares: &Shares) -> Result<(), Failure> {
    let mut rows = vec![["IMAGE", "OWN", "SHARED"].map(str::to_owned).to_vec()];
    for share in &shares.images {
        let name = match share.names.is_empty() {
            true => share.image.digest().short(),
            false => share.names.join(", "),
        };
        rows.push(vec![name, ui::bytes(share.own), ui::bytes(share.shared)]);
    }
    rows.push(vec![
        "all of them".to_owned(),
        ui::bytes(shares.bytes),
        String::new(),
    ]);
    ui::data(ui::table(&rows).trim_end())
}

fn of_all(shares: &Shares) -> Value {
    let images = shares.images.iter().map(|share| {
        json!({
            "digest": share.image.to_string(),
            "names": share.names,
            "own": share.own,
            "shared": share.shared,
        })
    });
    json!({"images": images.collect::<Value>(), "bytes": shares.bytes})
}

fn of_one(bulk: &Bulk) -> Value {
    let mut one = json!({"name": shown(&bulk.name), "bytes": bulk.bytes});
    if bulk.folder {
        one["inner"] = bulk.inner.iter().map(of_one).collect();
    }
    one
}

/// Adds a row for each folder that holds more than a little.
fn folders(bulk: &Bulk, path: String, whole: u64, rows: &mut Vec<Vec<String>>) {
    let here = if path.is_empty() { "/" } else { &path };
    rows.push(vec![ui::bytes(bulk.bytes), here.to_owned()]);
    for inner in bulk.inner.iter().filter(|inner| inner.folder) {
        if inner.bytes as f64 >= whole as f64 * LEAST && inner.bytes > 0 {
            folders(inner, format!("{path}/{}", shown(&inner.name)), whole, rows);
        }
    }
}

/// The size of the picture, in pixels, and of what is left out of it.
const WIDTH: f64 = 1000.0;
const HEIGHT: f64 = 640.0;
const HEADER: f64 = 18.0;
const SMALLEST: f64 = 4.0;

/// A rectangle, in pixels.
#[derive(Debug, Clone, Copy)]
struct Area {
    x: f64,
    y: f64,
    width: f64,
    height: f64,
}

/// A picture in which every folder and file has an area as large as its bytes, one in the other.
fn svg(name: &str, bulk: &Bulk) -> String {
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<title>What fills {}: {}</title>\n",
        escaped(name.as_bytes()),
        ui::bytes(bulk.bytes)
    );
    let area = Area {
        x: 0.0,
        y: 0.0,
        width: WIDTH,
        height: HEIGHT,
    };
    draw(bulk, "", 0, area, &mut out);
    out.push_str("</svg>\n");
    out
}

fn draw(bulk: &Bulk, above: &str, depth: usize, area: Area, out: &mut String) {
    if area.width < SMALLEST || area.height < SMALLEST {
        return;
    }
    const FOLDERS: [&str; 4] = ["#dfe7ef", "#cbd9e6", "#b7cbdd", "#a3bdd4"];
    let path = match depth {
        0 => String::new(),
        _ => format!("{above}/{}", escaped(&bulk.name)),
    };
    let colour = if bulk.folder {
        FOLDERS[depth % FOLDERS.len()]
    } else {
        "#f3e6c8"
    };
    let told = if path.is_empty() { "/" } else { &path };
    let Area { x, y, width, height } = area;
    _ = writeln!(
        out,
        "<g><title>{told}: {}</title><rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" \
         fill=\"{colour}\" stroke=\"#556677\" stroke-width=\"0.5\"/></g>",
        ui::bytes(bulk.bytes)
    );
    let letters = (width / 7.5) as usize;
    if height >= HEADER && letters >= 4 {
        let name = if depth == 0 {
            "/".to_owned()
        } else {
            shown(&bulk.name)
        };
        let label: String = format!("{name} {}", ui::bytes(bulk.bytes))
            .chars()
            .take(letters)
            .collect();
        _ = writeln!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" fill=\"#223344\">{}</text>",
            x + 3.0,
            y + 13.0,
            escaped(label.as_bytes())
        );
    }
    let inside = Area {
        x: x + 2.0,
        y: y + HEADER,
        width: width - 4.0,
        height: height - HEADER - 2.0,
    };
    if bulk.folder && inside.width > SMALLEST && inside.height > SMALLEST {
        for (inner, area) in laid_out(&bulk.inner, inside) {
            draw(inner, &path, depth + 1, area, out);
        }
    }
}

/// Cuts an area in two again and again, along its longer side, so that both halves hold about as many bytes.
fn laid_out(list: &[Bulk], area: Area) -> Vec<(&Bulk, Area)> {
    let list = &list[..list.iter().take_while(|one| one.bytes > 0).count()];
    match list {
        [] => return Vec::new(),
        [one] => return vec![(one, area)],
        _ => {}
    }
    let whole: u64 = list.iter().map(|one| one.bytes).sum();
    let (mut cut, mut first) = (1, list[0].bytes);
    while cut < list.len() - 1 && first + list[cut].bytes / 2 < whole / 2 {
        first += list[cut].bytes;
        cut += 1;
    }
    let share = first as f64 / whole as f64;
    let (one, other) = match area.width >= area.height {
        true => (
            Area {
                width: area.width * share,
                ..area
            },
            Area {
                x: area.x + area.width * share,
                width: area.width * (1.0 - share),
                ..area
            },
        ),
        false => (
            Area {
                height: area.height * share,
                ..area
            },
            Area {
                y: area.y + area.height * share,
                height: area.height * (1.0 - share),
                ..area
            },
        ),
    };
    let mut all = laid_out(&list[..cut], one);
    all.extend(laid_out(&list[cut..], other));
    all
}

/// Returns a text as XML has it.
fn escaped(text: &[u8]) -> String {
    super::plan::escaped(&shown(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn areas_are_as_large_as_what_they_hold() {
        let file = |bytes| Bulk {
            name: b"f".to_vec(),
            bytes,
            inner: Vec::new(),
            folder: false,
        };
        let list: Vec<Bulk> = [500, 300, 100, 60, 30, 10, 0].map(file).into();
        let area = Area {
            x: 0.0,
            y: 0.0,
            width: 100.0,
            height: 10.0,
        };
        let laid = laid_out(&list, area);
        assert_eq!(laid.len(), 6);
        for (one, area) in laid {
            let found = area.width * area.height;
            assert!((found - one.bytes as f64).abs() < 0.01, "{found} {}", one.bytes);
        }
    }
}
