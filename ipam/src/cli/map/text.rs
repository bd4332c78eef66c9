//! A map for the terminal.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Color, Style};

use super::cells::{Cell, Chart, Kind};
use crate::cli::contract::Count;
use crate::cli::palette;

/// Cells in a line.
const ACROSS: usize = 32;

/// All charts, one below the other.
pub(super) fn draw(charts: &[Chart], colour: bool, ascii: bool) -> String {
    let pen = Pen { colour, ascii };
    charts.iter().map(|chart| pen.chart(chart)).collect::<Vec<_>>().join("\n")
}

struct Pen {
    colour: bool,
    ascii: bool,
}

impl Pen {
    // Writing to a String cannot fail.
    fn chart(&self, chart: &Chart) -> String {
        let mut text = String::new();
        let networks = if chart.networks.is_empty() { "in no pool".to_owned() } else { chart.networks.join(", ") };
        let each = match chart.per_cell {
            1 => "one cell is one address".to_owned(),
            _ => format!("one cell is a /{}", chart.cells.first().map_or(0, |cell| cell.cidr.prefix())),
        };
        let _ = writeln!(text, "{}  {networks}, {each}", self.styled(&chart.cidr.to_string(), Style::new().bold()));
        let labels: Vec<String> = chart.cells.chunks(ACROSS).map(label).collect();
        let width = labels.iter().map(String::len).max().unwrap_or(0);
        for (label, cells) in labels.iter().zip(chart.cells.chunks(ACROSS)) {
            let _ = write!(text, "  {}", self.styled(&format!("{label:>width$}"), palette::OUTSIDE));
            for (index, cell) in cells.iter().enumerate() {
                let gap = if index % 8 == 0 { " " } else { "" };
                let _ = write!(text, "{gap}{}", self.cell(cell, chart.is_single()));
            }
            text.truncate(text.trim_end_matches(' ').len());
            text.push('\n');
        }
        let _ = writeln!(text, "  {}", self.legend(chart));
        text
    }

    fn cell(&self, cell: &Cell, single: bool) -> String {
        let kind = cell.kind();
        let style = style(kind);
        if !single && kind == Kind::Active {
            return self.styled(self.shade(cell.fill()), style);
        }
        self.styled(self.glyph(kind), style)
    }

    fn glyph(&self, kind: Kind) -> &'static str {
        match (kind, self.ascii) {
            (Kind::Active, false) => "█",
            (Kind::Active, true) => "#",
            (Kind::Cooling, false) => "◍",
            (Kind::Cooling, true) => "c",
            (Kind::Reserved, false) => "▒",
            (Kind::Reserved, true) => "R",
            (Kind::Free, false) => "·",
            (Kind::Free, true) => ".",
            (Kind::Gateway, _) => "G",
            (Kind::Outside, _) => " ",
        }
    }

    /// How full a cell is.
    fn shade(&self, fill: f64) -> &'static str {
        let shades: [&str; 8] = if self.ascii {
            ["1", "2", "3", "4", "5", "6", "7", "#"]
        } else {
            ["▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"]
        };
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 7")]
        let step = (fill * 8.0).ceil().clamp(1.0, 8.0) as usize - 1;
        shades.get(step).copied().unwrap_or("#")
    }

    fn legend(&self, chart: &Chart) -> String {
        let total = chart.total();
        let mut parts = vec![
            (Kind::Active, format!("active {}", Count(total.active).people())),
            (Kind::Cooling, format!("cooling {}", Count(total.cooling).people())),
            (Kind::Reserved, format!("reserved {}", Count(total.reserved).people())),
            (Kind::Free, format!("free {}", Count(total.free()).people())),
        ];
        if chart.cells.iter().any(|cell| cell.kind() == Kind::Gateway) {
            parts.push((Kind::Gateway, "gateway".to_owned()));
        }
        let part = |(kind, text): &(Kind, String)| format!("{} {text}", self.styled(self.glyph(*kind), style(*kind)));
        parts.iter().map(part).collect::<Vec<_>>().join("   ")
    }

    fn styled(&self, text: &str, style: Style) -> String {
        if self.colour { format!("{style}{text}{style:#}") } else { text.to_owned() }
    }
}

/// The first address of a line, from the byte where lines differ: `.32` in a /24.
fn label(cells: &[Cell]) -> String {
    let Some(first) = cells.first() else { return String::new() };
    let address = first.cidr.network().to_string();
    match (first.cidr.is_ipv4(), first.cidr.prefix()) {
        (true, 25..) => address.rsplit_once('.').map_or(address.clone(), |(_, last)| format!(".{last}")),
        _ => address,
    }
}

fn style(kind: Kind) -> Style {
    match kind {
        Kind::Active => palette::ACTIVE,
        Kind::Cooling => palette::COOLING,
        Kind::Reserved => palette::RESERVED,
        Kind::Free => Style::new().fg_color(Some(Color::Ansi(AnsiColor::BrightBlack))),
        Kind::Gateway => Style::new().bold(),
        Kind::Outside => palette::OUTSIDE,
    }
}
