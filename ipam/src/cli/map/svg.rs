//! A map as a picture (SVG 1.1), which browsers and documents show; a cell's title says what it is.

use std::fmt::Write as _;

use jiff::Timestamp;

use super::cells::{Cell, Chart, Kind};
use crate::cli::contract::Count;
use crate::cli::pools::percentage;
use crate::cli::time::moment;

/// Cells in a line, and the measures in pixels.
const ACROSS: usize = 16;
const CELL: usize = 26;
const GAP: usize = 4;
const STEP: usize = CELL + GAP;
const MARGIN: usize = 36;
const LABEL: usize = 150;
const HEAD: usize = 96;
const FOOT: usize = 56;
const WIDTH: usize = MARGIN + LABEL + ACROSS * STEP + MARGIN;

const STYLE: &str = "\
text{font-family:Inter,'Helvetica Neue',Helvetica,Arial,'DejaVu Sans',sans-serif;fill:#334155}\
.title{font-size:22px;font-weight:600;fill:#0f172a}\
.sub{font-size:13px;fill:#64748b}\
.label{font-size:11px;fill:#94a3b8;text-anchor:end}\
.legend{font-size:12px}\
.mark{font-size:11px;font-weight:600;text-anchor:middle;fill:#475569}";

/// All charts, one below the other.
pub(super) fn draw(charts: &[Chart], now: Timestamp) -> String {
    let heights: Vec<usize> = charts.iter().map(height).collect();
    let total: usize = heights.iter().sum::<usize>() + FOOT / 2;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{total}\" viewBox=\"0 0 {WIDTH} {total}\" \
         role=\"img\">\n<style>{STYLE}</style>\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n"
    );
    let mut top = 0;
    for (chart, height) in charts.iter().zip(&heights) {
        draw_chart(&mut svg, chart, top);
        top += height;
    }
    // Writing to a String cannot fail.
    let (x, y) = (WIDTH - MARGIN, total - 16);
    let _ = writeln!(svg, "<text class=\"label\" x=\"{x}\" y=\"{y}\">{}</text>\n</svg>", moment(now));
    svg
}

fn height(chart: &Chart) -> usize {
    HEAD + chart.cells.len().div_ceil(ACROSS) * STEP + FOOT
}

// Writing to a String cannot fail.
fn draw_chart(svg: &mut String, chart: &Chart, top: usize) {
    let total = chart.total();
    let networks = if chart.networks.is_empty() { "in no pool".to_owned() } else { chart.networks.join(", ") };
    let each = match chart.per_cell {
        1 => "one square is one address".to_owned(),
        _ => format!("one square is a /{}", chart.cells.first().map_or(0, |cell| cell.cidr.prefix())),
    };
    let used = percentage(total.fill() * 100.0);
    let _ = writeln!(
        svg,
        "<text class=\"title\" x=\"{MARGIN}\" y=\"{}\">{}</text>",
        top + 44,
        escaped(&chart.cidr.to_string())
    );
    let _ = writeln!(
        svg,
        "<text class=\"sub\" x=\"{MARGIN}\" y=\"{}\">{} · {} of {} leased ({}) · {each}</text>",
        top + 68,
        escaped(&networks),
        Count(total.active).people(),
        Count(total.leasable).people(),
        escaped(&used),
    );
    for (row, cells) in chart.cells.chunks(ACROSS).enumerate() {
        let y = top + HEAD + row * STEP;
        if let Some(first) = cells.first() {
            let (x, y) = (MARGIN + LABEL - 14, y + CELL / 2 + 4);
            let _ = writeln!(svg, "<text class=\"label\" x=\"{x}\" y=\"{y}\">{}</text>", first.cidr.network());
        }
        for (column, cell) in cells.iter().enumerate() {
            draw_cell(svg, cell, chart.is_single(), MARGIN + LABEL + column * STEP, y);
        }
    }
    legend(svg, chart, &total, top + height(chart) - FOOT + 28);
}

fn draw_cell(svg: &mut String, cell: &Cell, single: bool, x: usize, y: usize) {
    let kind = cell.kind();
    let fill = fill(kind);
    let border = match kind {
        Kind::Free | Kind::Gateway | Kind::Outside => "stroke=\"#e2e8f0\"",
        Kind::Active | Kind::Cooling | Kind::Reserved => "stroke=\"none\"",
    };
    let title = escaped(&title(cell));
    let (x2, y2) = (x + CELL / 2, y + CELL / 2 + 4);
    let _ = write!(svg, "<g><title>{title}</title>");
    if !single && kind == Kind::Active {
        // A light square, filled from below as far as it is leased.
        #[expect(clippy::cast_precision_loss, reason = "it is drawn")]
        let high = (cell.fill() * CELL as f64).clamp(3.0, CELL as f64);
        #[expect(clippy::cast_precision_loss, reason = "it is drawn")]
        let from = (y + CELL) as f64 - high;
        let _ = write!(
            svg,
            "<rect x=\"{x}\" y=\"{y}\" width=\"{CELL}\" height=\"{CELL}\" rx=\"5\" fill=\"#d1fae5\"/>\
             <rect x=\"{x}\" y=\"{from:.1}\" width=\"{CELL}\" height=\"{high:.1}\" rx=\"4\" fill=\"{fill}\"/>"
        );
    } else {
        let _ = write!(
            svg,
            "<rect x=\"{x}\" y=\"{y}\" width=\"{CELL}\" height=\"{CELL}\" rx=\"5\" fill=\"{fill}\" {border}/>"
        );
    }
    if kind == Kind::Gateway {
        let _ = write!(svg, "<text class=\"mark\" x=\"{x2}\" y=\"{y2}\">G</text>");
    }
    svg.push_str("</g>\n");
}

fn fill(kind: Kind) -> &'static str {
    match kind {
        Kind::Active => "#10b981",
        Kind::Cooling => "#38bdf8",
        Kind::Reserved => "#a78bfa",
        Kind::Free => "#f8fafc",
        Kind::Gateway => "#e2e8f0",
        Kind::Outside => "#ffffff",
    }
}

fn title(cell: &Cell) -> String {
    let who = cell.who.as_ref().map_or_else(String::new, |who| format!(" {who}"));
    if cell.leasable.max(cell.active) <= 1 {
        let word = match cell.kind() {
            Kind::Active => "active",
            Kind::Cooling => "cooling",
            Kind::Reserved => "reserved",
            Kind::Free => "free",
            Kind::Gateway => "gateway",
            Kind::Outside => "in no pool",
        };
        return format!("{} {word}{who}", cell.cidr.ip());
    }
    let counts =
        [("active", cell.active), ("cooling", cell.cooling), ("reserved", cell.reserved), ("free", cell.free())];
    let counts: Vec<String> = counts.iter().map(|(word, count)| format!("{word} {}", Count(*count).people())).collect();
    format!("{} {}", cell.cidr, counts.join(", "))
}

fn legend(svg: &mut String, chart: &Chart, total: &Cell, y: usize) {
    let mut parts = vec![
        (Kind::Active, format!("active {}", Count(total.active).people())),
        (Kind::Cooling, format!("cooling {}", Count(total.cooling).people())),
        (Kind::Reserved, format!("reserved {}", Count(total.reserved).people())),
        (Kind::Free, format!("free {}", Count(total.free()).people())),
    ];
    if chart.cells.iter().any(|cell| cell.kind() == Kind::Gateway) {
        parts.push((Kind::Gateway, "gateway".to_owned()));
    }
    let mut x = MARGIN + LABEL;
    for (kind, text) in &parts {
        let (box_y, text_x) = (y - 11, x + 20);
        let fill = fill(*kind);
        let _ = writeln!(
            svg,
            "<rect x=\"{x}\" y=\"{box_y}\" width=\"13\" height=\"13\" rx=\"3\" fill=\"{fill}\" stroke=\"#e2e8f0\"/>\
             <text class=\"legend\" x=\"{text_x}\" y=\"{y}\">{text}</text>"
        );
        // Some 7 pixels a letter, and room between.
        x = text_x + text.len() * 7 + 20;
    }
}

/// Names come from pods and people.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for character in text.chars() {
        match character {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '"' => escaped.push_str("&quot;"),
            // XML 1.0 has no control characters, not even escaped.
            control if control.is_control() => escaped.push('\u{fffd}'),
            other => escaped.push(other),
        }
    }
    escaped
}
