//! `ipam map`: a CIDR as a picture.

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use ipnetwork::IpNetwork;
use schemars::JsonSchema;
use serde::Serialize;

use super::contract::Count;
use super::exit::{Exit, Stop};
use super::format::Output;
use super::networks::Configured;
use super::pools;
use super::terminal::Terminal;
use super::view::View;
use crate::Ledger;
use crate::operation::KnownPool;
use crate::span::Span;

mod cells;
mod svg;
mod text;

use cells::{Cell, Chart};

pub(super) const EXAMPLES: &str = "\
Examples:
  ipam map
  ipam map 10.244.1.0/24
  ipam map 10.244.0.0/16 --color always | less -R
  ipam map --network k8s -o svg > pods.svg
  ipam map 10.244.1.0/24 -o svg --file pods.svg";

/// Draws addresses.
#[derive(Debug, clap::Args)]
pub(super) struct Map {
    /// What to draw; otherwise the subnets of all pools.
    cidr: Option<IpNetwork>,
    /// Only the pools of this network.
    #[arg(short, long, value_name = "NAME", add = super::complete::networks())]
    network: Option<String>,
    /// How to draw.
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t)]
    output: Format,
    /// Writes into this file instead of to standard output.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Letters instead of blocks, for terminals without Unicode.
    #[arg(long)]
    ascii: bool,
}

/// How to draw.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For the terminal
    #[default]
    Text,
    /// A picture
    Svg,
    /// The counts of each cell
    Json,
}

/// A drawn CIDR.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Drawn {
    cidr: String,
    /// How many addresses one cell stands for.
    addresses_per_cell: Count,
    /// In the order of addresses. Those with nothing in them are left out.
    cells: Vec<DrawnCell>,
}

/// One cell of a map.
#[derive(Debug, Serialize, JsonSchema)]
struct DrawnCell {
    /// Its addresses.
    cidr: String,
    active: Count,
    cooling: Count,
    reserved: Count,
    free: Count,
}

impl Map {
    pub fn run(&self, ledger: &Ledger, conf_dir: &Path, terminal: &mut Terminal<'_>) -> Result<Exit, Stop> {
        let view = View::of(ledger, "ipam map")?;
        let configured = Configured::ours(conf_dir);
        let known: Vec<KnownPool> = pools::known(&view, &configured).into_iter().map(|(pool, _)| pool).collect();
        let known: Vec<KnownPool> = known.into_iter().filter(|pool| self.takes(pool)).collect();
        let charts: Vec<Chart> =
            self.cidrs(&known, &view).into_iter().map(|cidr| Chart::of(cidr, &view, &known)).collect();
        if charts.is_empty() {
            if self.output == Format::Json {
                json().print_none(terminal, "Map")?;
            }
            if let Some(network) = &self.network {
                let place = format!("{} and {}", ledger.dir().display(), conf_dir.display());
                return Err(Stop::nothing_fits("pool", &[format!("--network {network}")], place, "ipam pools"));
            }
            let text = "there is no pool to draw: name a CIDR, or see: ipam pools";
            return Err(Stop::new(Exit::NotFound, text));
        }
        let text = match self.output {
            Format::Text => text::draw(&charts, terminal.colour && self.file.is_none(), self.ascii),
            Format::Svg => svg::draw(&charts, view.now),
            Format::Json => {
                let drawn: Vec<Drawn> = charts.iter().map(drawn).collect();
                json().document("Map", &drawn)?.unwrap_or_default()
            }
        };
        match &self.file {
            Some(path) => std::fs::write(path, text).map_err(Stop::file("write", path))?,
            None => terminal.print(&text)?,
        }
        view.note_problems(ledger, terminal)?;
        Ok(Exit::Done)
    }

    fn takes(&self, pool: &KnownPool) -> bool {
        self.network.as_ref().is_none_or(|network| *network == pool.network.to_string())
    }

    /// The CIDR that is asked for, or the subnets of the pools, each once, and those of leases whose pool is unknown.
    fn cidrs(&self, known: &[KnownPool], view: &View) -> Vec<IpNetwork> {
        if let Some(cidr) = self.cidr {
            return IpNetwork::new(cidr.network(), cidr.prefix()).into_iter().collect();
        }
        let ranges = known.iter().flat_map(|known| known.pool.ranges());
        let mut cidrs: Vec<IpNetwork> = ranges.filter_map(|range| network(range.subnet)).collect();
        if cidrs.is_empty() && self.network.is_none() {
            let recorded = view.leases().iter().flat_map(|lease| &lease.addresses);
            cidrs.extend(recorded.filter_map(|recorded| network(recorded.address)));
        }
        cidrs.sort_by_key(|cidr| (cidr.network(), cidr.prefix()));
        cidrs.dedup_by(|later, earlier| Span::of(*earlier).contains(later.network()));
        cidrs
    }
}

fn json() -> Output {
    Output { output: super::format::Format::Json, ..Output::default() }
}

fn network(cidr: IpNetwork) -> Option<IpNetwork> {
    IpNetwork::new(cidr.network(), cidr.prefix()).ok()
}

fn drawn(chart: &Chart) -> Drawn {
    let cell = |cell: &Cell| DrawnCell {
        cidr: cell.cidr.to_string(),
        active: Count(cell.active),
        cooling: Count(cell.cooling),
        reserved: Count(cell.reserved),
        free: Count(cell.free()),
    };
    let said = chart.cells.iter().filter(|cell| cell.active + cell.cooling + cell.reserved > 0);
    Drawn { cidr: chart.cidr.to_string(), addresses_per_cell: Count(chart.per_cell), cells: said.map(cell).collect() }
}
