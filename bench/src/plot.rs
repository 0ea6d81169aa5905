//! Tables → a picture: how many times as long as mk each other takes, on a scale on which twice and half are equally far
//! from one.

use std::fmt::Write;

use crate::stats::Ratio;
use crate::table::Table;

const WIDTH: f64 = 860.0;
const LINE: f64 = 19.0;
/// Where the scale begins and how long it is.
const LEFT: f64 = 330.0;
const LONG: f64 = 410.0;
/// The ends of the scale, in powers of ten.
const ENDS: (f64, f64) = (-1.0, 3.0);

/// Colours that can be told from each other and read on light and on dark ground.
const STYLE: &str = "\
<style>
text { font: 12px sans-serif; fill: #24292f } .title { font-weight: bold } .mark { fill: #57606a }
.grid { stroke: #d0d7de } .one { stroke: #57606a } .half { stroke: #24292f }
.faster { fill: #2da44e } .slower { fill: #d4761f }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .mark { fill: #9198a1 } .grid { stroke: #3d444d } .one { stroke: #9198a1 } .half { stroke: #e6edf3 }
}
</style>
";

/// Returns an SVG document with a bar for each row but the first of each table that is plotted.
pub(crate) fn svg(tables: &[Table]) -> String {
    let plotted = || tables.iter().filter(|table| table.is_plotted());
    let lines: usize = plotted().map(|table| table.rows.len()).sum();
    let height = LINE * (lines as f64 + 2.0);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\">\n\
         <title>What others take, as a multiple of what mk takes</title>\n{STYLE}"
    );
    for power in ENDS.0 as i32..=ENDS.1 as i32 {
        let at = place(f64::from(power));
        let class = if power == 0 { "one" } else { "grid" };
        let value = 10_f64.powi(power);
        _ = writeln!(
            out,
            "<line class=\"{class}\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{:.1}\" y2=\"{height:.1}\"/>\
             <text class=\"mark\" x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{value} ×</text>",
            LINE * 1.2,
            LINE * 0.9
        );
    }
    let mut y = LINE * 1.5;
    for table in plotted() {
        _ = writeln!(
            out,
            "<text class=\"title\" x=\"4\" y=\"{:.1}\">{}</text>",
            y + 13.0,
            escaped(&table.title)
        );
        y += LINE;
        for row in &table.rows {
            let Some(ratio) = row.ratio else { continue };
            bar(&mut out, &row.name, ratio, y);
            y += LINE;
        }
    }
    out.push_str("</svg>\n");
    out
}

fn bar(out: &mut String, name: &str, ratio: Ratio, y: f64) {
    // A ratio is what mk takes of the row's; the picture shows the row's in terms of mk's.
    let [times, least, most] = [ratio.median, ratio.high, ratio.low].map(|ratio| 1.0 / ratio);
    let [one, at, low, high] = [1.0, times, least, most].map(|value| place(value.log10()));
    let class = if times >= 1.0 { "faster" } else { "slower" };
    let (x, width) = (one.min(at), (at - one).abs().max(1.0));
    let middle = y + LINE / 2.0;
    _ = writeln!(
        out,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
         <rect class=\"{class}\" x=\"{x:.1}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"{:.1}\"/>\
         <line class=\"half\" x1=\"{low:.1}\" x2=\"{high:.1}\" y1=\"{middle:.1}\" y2=\"{middle:.1}\"/>\
         <text x=\"{:.1}\" y=\"{:.1}\">{times:.2} ×</text>",
        LEFT - 8.0,
        y + 13.0,
        escaped(name),
        y + 3.0,
        LINE - 6.0,
        at.max(high).max(one) + 6.0,
        y + 13.0,
    );
}

/// Returns where a power of ten is; what is beyond an end is at that end.
fn place(power: f64) -> f64 {
    let part = (power.clamp(ENDS.0, ENDS.1) - ENDS.0) / (ENDS.1 - ENDS.0);
    LEFT + part * LONG
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_has_a_bar_for_each_row_but_the_first_and_shows_losses_as_losses() {
        let svg = svg(&[crate::table::tests::table()]);
        assert_eq!(svg.matches("<rect").count(), 1, "{svg}");
        assert!(
            svg.contains("<rect class=\"slower\"") && svg.contains("0.50 ×"),
            "{svg}"
        );
    }

    #[test]
    fn the_scale_has_one_where_nothing_differs_and_ends() {
        assert!((place(0.0) - (LEFT + LONG / 4.0)).abs() < 1e-9);
        assert!((place(9.0) - (LEFT + LONG)).abs() < 1e-9);
    }

    #[test]
    fn names_cannot_end_a_tag() {
        assert_eq!(escaped("a < b & c"), "a &lt; b &amp; c");
    }
}
