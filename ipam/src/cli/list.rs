//! `ipam list`.

use jiff::Timestamp;

use super::exit::{Exit, Stop};
use super::select::{self, Filter};
use super::view::{COLUMNS, Columns, Document, WIDE, cells};
use super::{Format, Output, Terminal};
use crate::{Ledger, Record};

pub(super) const EXAMPLES: &str = "\
Examples:
  ipam list
  ipam list -o wide --network k8s
  ipam list --pod shop/cart-6d5f -o json
  ipam list -6 -q";

/// Lists leases.
#[derive(Debug, clap::Args)]
pub(super) struct List {
    #[command(flatten)]
    filter: Filter,
    /// Only IPv4 addresses.
    #[arg(short = '4', long, conflicts_with = "ipv6")]
    ipv4: bool,
    /// Only IPv6 addresses.
    #[arg(short = '6', long)]
    ipv6: bool,
    /// Prints the addresses and nothing else.
    #[arg(short, long, conflicts_with_all = ["output", "no_headers"])]
    quiet: bool,
    #[command(flatten)]
    output: Output,
}

impl List {
    pub fn run(&self, ledger: &Ledger, terminal: &mut Terminal<'_>) -> Result<Exit, Stop> {
        let mut leases = select::all(ledger, "ipam list")?;
        let empty = leases.is_empty();
        leases.retain(|record| self.filter.takes(record));
        for record in &mut leases {
            record.addresses.retain(|recorded| self.takes_family(recorded.address.is_ipv4()));
        }
        leases.retain(|record| !record.addresses.is_empty());
        if empty && self.output.output == Format::Table {
            let dir = ledger.dir().display();
            writeln!(terminal.err, "no leases in {dir}").map_err(Stop::from_printing)?;
        }
        let text = self.print(leases)?;
        write!(terminal.out, "{text}").map_err(Stop::from_printing)?;
        note_quarantine(ledger, terminal)?;
        Ok(Exit::Done)
    }

    fn takes_family(&self, is_ipv4: bool) -> bool {
        if is_ipv4 { !self.ipv6 } else { !self.ipv4 }
    }

    fn print(&self, leases: Vec<Record>) -> Result<String, Stop> {
        if self.quiet {
            return Ok(leases.iter().flat_map(Record::ips).map(|ip| format!("{ip}\n")).collect());
        }
        let format = self.output.output;
        let document = Document::new("LeaseList", leases);
        if let Some(text) = document.print(format) {
            return text;
        }
        let names: &[&str] = if format == Format::Wide { &WIDE } else { &COLUMNS };
        let mut columns = Columns::new((!self.output.no_headers).then_some(names));
        let now = Timestamp::now();
        for (record, recorded) in by_address(document.items()) {
            columns.row(cells(record, recorded, now, format));
        }
        Ok(columns.print())
    }
}

/// One entry for each address, in the order of addresses.
fn by_address(leases: &[Record]) -> Vec<(&Record, &crate::RecordedAddress)> {
    let addresses = |record| {
        let record: &Record = record;
        record.addresses.iter().map(move |recorded| (record, recorded))
    };
    let mut all: Vec<_> = leases.iter().flat_map(addresses).collect();
    all.sort_by_key(|(_, recorded)| recorded.address.ip());
    all
}

/// Somebody should look at what was put aside, and will hardly find it otherwise.
fn note_quarantine(ledger: &Ledger, terminal: &mut Terminal<'_>) -> Result<(), Stop> {
    let Some(last) = ledger.quarantined().ok().and_then(|mut all| all.pop()) else { return Ok(()) };
    let text = "note: the ledger was damaged and has been rebuilt; the old one is";
    writeln!(terminal.err, "{text} {}", last.display()).map_err(Stop::from_printing)
}
