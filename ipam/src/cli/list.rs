//! `ipam list`.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;

use clap::ValueEnum;
use jiff::Timestamp;

use super::contract::{Cooling, Entry, Lease, LeaseOrigin, Reserved};
use super::exit::{Exit, Stop};
use super::format::{Cell, Column, Format, Output};
use super::networks::Configured;
use super::palette;
use super::select::Filter;
use super::terminal::Terminal;
use super::time::{age, length, moment};
use super::view::View;
use crate::{Ledger, Record, RecordedAddress};

pub(super) const EXAMPLES: &str = "\
Examples:
  ipam list
  ipam list -o wide --network k8s
  ipam list --pod shop/cart-6d5f -o json
  ipam list --state cooling,reserved --cidr 10.244.1.0/25
  ipam list -6 -q
  ipam list --columns address,pod --no-headers";

/// Lists leases.
#[derive(Debug, clap::Args)]
pub(super) struct List {
    #[command(flatten)]
    filter: Filter,
    /// Which addresses: held by pods, at rest after a release, set aside by a person.
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        value_name = "STATES",
        default_value = "active",
        help_heading = "Filters"
    )]
    state: Vec<State>,
    /// Only leases that are older than this: 5m, 24h, 7d.
    #[arg(long, value_name = "AGE", value_parser = super::time::parse_length, help_heading = "Filters")]
    older_than: Option<jiff::SignedDuration>,
    /// Prints the addresses and nothing else.
    #[arg(short, long, conflicts_with_all = ["output", "no_headers", "columns"], help_heading = "Output")]
    quiet: bool,
    #[command(flatten)]
    output: Output,
}

/// What an address is to the pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum State {
    Active,
    Cooling,
    Reserved,
    All,
}

/// One line: an address, or reserved addresses.
enum Row<'a> {
    Lease { record: &'a Record, recorded: &'a RecordedAddress, now: Timestamp, wide: bool },
    Cooling(&'a Cooling, Timestamp),
    Reserved(&'a Reserved, Timestamp),
}

impl List {
    pub fn run(&self, ledger: &Ledger, conf_dir: &Path, terminal: &mut Terminal<'_>) -> Result<Exit, Stop> {
        let view = if self.wants(State::Cooling) {
            View::of(ledger, "ipam list")?
        } else {
            View::without_lock(ledger, "ipam list")?
        };
        let now = view.now;
        let mut leases = if self.wants(State::Active) { view.leases().to_vec() } else { Vec::new() };
        leases.retain(|record| self.filter.takes(record) && self.is_old_enough(record, now));
        for record in &mut leases {
            record.addresses.retain(|recorded| self.filter.takes_address(recorded.address.ip()));
        }
        let cooling: Vec<Cooling> = view.cooling().filter(|cooling| self.takes_cooling(cooling)).collect();
        let reserved: Vec<Reserved> = view.reserved().filter(|reserved| self.takes_reserved(reserved)).collect();
        let rows = rows(&leases, &cooling, &reserved, now, self.output.output == Format::Wide);
        let asked = self.asked();
        if rows.is_empty() && !asked.is_empty() {
            if !self.quiet {
                self.output.print_none(terminal, "LeaseList")?;
            }
            view.note_problems(ledger, terminal)?;
            if view.leases().is_empty() {
                note_elsewhere(ledger, conf_dir, terminal)?;
            }
            let (what, see) = match self.state[..] {
                [State::Active] => ("lease", "ipam list"),
                _ => ("address", "ipam list --state all"),
            };
            return Err(Stop::nothing_fits(what, &asked, ledger.dir().display(), see));
        }
        if rows.is_empty() && self.output.is_for_people() && !self.quiet {
            let dir = ledger.dir().display();
            let some = if view.leases().is_empty() { "no leases in" } else { "no address in that state in" };
            terminal.note(&format!("{some} {dir}"))?;
            if view.leases().is_empty() {
                note_elsewhere(ledger, conf_dir, terminal)?;
            }
        }
        if self.quiet {
            let text: String = rows.iter().map(|row| format!("{}\n", row.address())).collect();
            terminal.print(&text)?;
        } else {
            let items: Vec<Entry> = leases.iter().map(|record| Entry::Active(Lease::from(record))).collect();
            let items = items.into_iter().chain(cooling.iter().cloned().map(Entry::Cooling));
            let items: Vec<Entry> = items.chain(reserved.iter().cloned().map(Entry::Reserved)).collect();
            let with_state = self.state != [State::Active];
            self.output.print(terminal, "LeaseList", &items, &rows, &columns(with_state))?;
        }
        view.note_problems(ledger, terminal)?;
        Ok(Exit::Done)
    }

    /// As [`Filter::asked`]. Which states are listed is no filter: that nothing rests, or is set aside, is an answer.
    fn asked(&self) -> Vec<String> {
        let older = self.older_than.map(|age| format!("--older-than {}", length(age)));
        self.filter.asked().into_iter().chain(older).collect()
    }

    fn wants(&self, state: State) -> bool {
        self.state.iter().any(|wanted| *wanted == state || *wanted == State::All)
    }

    fn is_old_enough(&self, record: &Record, now: Timestamp) -> bool {
        self.older_than.is_none_or(|age| now.duration_since(record.created) > age)
    }

    fn takes_cooling(&self, cooling: &Cooling) -> bool {
        let network = self.filter.network.as_ref();
        self.wants(State::Cooling)
            && !self.filter.is_about_pods()
            && network.is_none_or(|network| cooling.networks.contains(network))
            && self.filter.takes_address(cooling.address)
    }

    fn takes_reserved(&self, reserved: &Reserved) -> bool {
        let cidr = reserved.cidr.parse::<ipnetwork::IpNetwork>();
        let overlaps = |cidr: ipnetwork::IpNetwork| {
            let (of_cidr, mine) = (crate::span::Span::of(cidr), self.filter.cidr.map(crate::span::Span::of));
            mine.is_none_or(|mine| mine.overlaps(of_cidr))
                && (if cidr.is_ipv4() { !self.filter.ipv6 } else { !self.filter.ipv4 })
        };
        self.wants(State::Reserved) && !self.filter.is_about_pods() && cidr.is_ok_and(overlaps)
    }
}

/// Whoever finds nothing may have looked in the wrong place.
fn note_elsewhere(ledger: &Ledger, conf_dir: &Path, terminal: &mut Terminal<'_>) -> Result<(), Stop> {
    let ledgers = Configured::ours(conf_dir).ledgers;
    let elsewhere: BTreeSet<&Path> = ledgers.iter().map(Ledger::dir).filter(|dir| *dir != ledger.dir()).collect();
    for dir in elsewhere {
        let (dir, conf_dir) = (dir.display(), conf_dir.display());
        terminal.note(&format!("note: a config in {conf_dir} keeps its ledger elsewhere: ipam list --dir {dir}"))?;
    }
    Ok(())
}

/// One row for each address, in the order of addresses.
fn rows<'a>(
    leases: &'a [Record],
    cooling: &'a [Cooling],
    reserved: &'a [Reserved],
    now: Timestamp,
    wide: bool,
) -> Vec<Row<'a>> {
    let of_lease =
        |record: &'a Record| record.addresses.iter().map(move |recorded| Row::Lease { record, recorded, now, wide });
    let mut rows: Vec<Row<'_>> = leases.iter().flat_map(of_lease).collect();
    rows.extend(cooling.iter().map(|cooling| Row::Cooling(cooling, now)));
    rows.extend(reserved.iter().map(|reserved| Row::Reserved(reserved, now)));
    rows.sort_by_key(Row::order);
    rows
}

impl Row<'_> {
    fn order(&self) -> Option<IpAddr> {
        match self {
            Self::Lease { recorded, .. } => Some(recorded.address.ip()),
            Self::Cooling(cooling, _) => Some(cooling.address),
            Self::Reserved(reserved, _) => reserved.cidr.parse().ok().map(|cidr: ipnetwork::IpNetwork| cidr.ip()),
        }
    }

    fn address(&self) -> String {
        match self {
            Self::Lease { recorded, wide: true, .. } => recorded.address.to_string(),
            Self::Lease { recorded, .. } => recorded.address.ip().to_string(),
            Self::Cooling(cooling, _) => cooling.address.to_string(),
            Self::Reserved(reserved, _) => reserved.cidr.clone(),
        }
    }

    /// What a lease alone has.
    fn of_lease(&self, cell: impl Fn(&Record) -> String) -> Cell {
        if let Self::Lease { record, .. } = self { cell(record).into() } else { "".into() }
    }
}

/// Where all are active, that need not be said.
fn columns<'a>(with_state: bool) -> Vec<Column<Row<'a>>> {
    vec![
        Column::new("ADDRESS", |row| row.address().into()),
        Column { name: "STATE", wide: !with_state, cell: state },
        Column::new("POD", |row| match row {
            Row::Reserved(reserved, _) => reserved.reason.clone().into(),
            Row::Lease { .. } | Row::Cooling(..) => row.of_lease(|record| record.pod.to_string()),
        }),
        Column::new("CONTAINER", |row| match row {
            Row::Lease { wide: false, .. } => row.of_lease(|record| short(record.attachment.container_id.as_str())),
            Row::Lease { .. } | Row::Cooling(..) | Row::Reserved(..) => {
                row.of_lease(|record| record.attachment.container_id.to_string())
            }
        }),
        Column::new("IF", |row| row.of_lease(|record| record.attachment.ifname.to_string())),
        Column::new("NETWORK", |row| match row {
            Row::Cooling(cooling, _) => cooling.networks.join(",").into(),
            Row::Lease { .. } | Row::Reserved(..) => row.of_lease(|record| record.attachment.network.to_string()),
        }),
        Column::new("AGE", |row| match row {
            Row::Lease { record, now, .. } => age(record.created, *now).into(),
            Row::Cooling(cooling, now) => age(cooling.released, *now).into(),
            Row::Reserved(reserved, now) => {
                reserved.created.map_or_else(String::new, |created| age(created, *now)).into()
            }
        }),
        Column::wide("UNTIL", |row| match row {
            Row::Lease { .. } => "".into(),
            Row::Cooling(cooling, now) => format!("in {}", length(cooling.until.duration_since(*now))).into(),
            Row::Reserved(reserved, _) => reserved.until.map(moment).unwrap_or_default().into(),
        }),
        Column::wide("GATEWAY", |row| match row {
            Row::Lease { recorded, .. } => {
                recorded.gateway.map(|gateway| gateway.to_string()).unwrap_or_default().into()
            }
            Row::Cooling(..) | Row::Reserved(..) => "".into(),
        }),
        Column::wide("ORIGIN", |row| row.of_lease(|record| origin(record.origin.into()).to_owned())),
        Column::wide("LEASE", |row| row.of_lease(|record| record.lease_id.to_string())),
        Column::wide("POD-UID", |row| row.of_lease(|record| record.pod.uid.clone().unwrap_or_default())),
        Column::wide("NETNS", |row| {
            row.of_lease(|record| {
                record.netns.as_ref().map(|netns| netns.path.display().to_string()).unwrap_or_default()
            })
        }),
    ]
}

fn state(row: &Row<'_>) -> Cell {
    match row {
        Row::Lease { .. } => Cell::styled("active", palette::ACTIVE),
        Row::Cooling(..) => Cell::styled("cooling", palette::COOLING),
        Row::Reserved(..) => Cell::styled("reserved", palette::RESERVED),
    }
}

/// As container tools abbreviate ids.
pub(super) fn short(id: &str) -> String {
    id.get(..12).unwrap_or(id).to_owned()
}

pub(super) fn origin(origin: LeaseOrigin) -> &'static str {
    match origin {
        LeaseOrigin::Add => "add",
        LeaseOrigin::Recovered => "recovered",
        LeaseOrigin::Imported => "imported",
    }
}
