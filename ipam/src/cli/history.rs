//! `ipam history`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;

use super::contract::{Attachment, Pod, pod};
use super::exit::{Exit, Stop};
use super::format::{Cell, Column, Output};
use super::list::short;
use super::palette;
use super::select::{Filter, parse_address};
use super::terminal::Terminal;
use super::time::{length, moment, parse_moment};
use super::view::View;
use crate::event::EventKind;
use crate::history::{self, Deed, End, Tenancy};
use crate::{Ledger, Record};

pub(super) const EXAMPLES: &str = "\
Examples:
  ipam history 10.244.1.17
  ipam history 10.244.1.17 --at 2026-11-26T10:00:00Z
  ipam history --pod shop/cart-6d5f --since 7d
  ipam history --deeds
  ipam history -o jsonl --since 1h";

/// Tells who had which address from when to when, also before the last reboot.
#[derive(Debug, clap::Args)]
pub(super) struct History {
    /// Only this address.
    #[arg(value_parser = parse_address, add = super::complete::addresses())]
    address: Option<IpAddr>,
    /// Who had it at this moment: RFC 3339 (UTC if it names no offset), or how long ago: 90m, 2d.
    #[arg(long, value_name = "TIME", value_parser = parse_moment)]
    at: Option<Timestamp>,
    /// Only what ended after this moment, or stands.
    #[arg(long, value_name = "TIME", value_parser = parse_moment)]
    since: Option<Timestamp>,
    /// Only what began before this moment.
    #[arg(long, value_name = "TIME", value_parser = parse_moment)]
    until: Option<Timestamp>,
    /// What people did with this command, instead of leases.
    #[arg(long, conflicts_with_all = ["address", "at"])]
    deeds: bool,
    #[command(flatten)]
    filter: Filter,
    #[command(flatten)]
    output: Output,
}

/// One lease of one address.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Entry {
    address: IpAddr,
    attachment: Attachment,
    #[serde(skip_serializing_if = "Option::is_none")]
    pod: Option<Pod>,
    lease_id: String,
    from: Timestamp,
    /// Missing if it stands, or if nobody has written down when it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<Timestamp>,
    end: Ending,
    /// What began it: `ADD NETWORK CONTAINERID IFNAME`.
    #[serde(skip_serializing_if = "Option::is_none")]
    begun_by: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_by: Option<String>,
}

/// How a lease ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Ending {
    /// It stands.
    Active,
    /// By DEL, or by a person.
    Released,
    /// The ADD that made it failed after all.
    Undone,
    /// The attachment got a new lease.
    Replaced,
    /// GC did not name its attachment.
    Collected,
    /// Its pod was provably gone.
    Reclaimed,
    /// The machine was booted.
    Voided,
    /// Nobody has written it down.
    Unknown,
}

/// What a person did.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct DeedEntry {
    at: Timestamp,
    command: String,
    /// `done` or `failed`; `begun` if nobody has written down what came of it: it is under way, or was killed.
    outcome: String,
    /// Addresses, CIDRs, files.
    about: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    uid: u32,
    /// Who logged in, also behind sudo; missing if nobody did.
    #[serde(skip_serializing_if = "Option::is_none")]
    login_uid: Option<u32>,
    pid: u32,
}

impl History {
    pub fn run(&self, ledger: &Ledger, terminal: &mut Terminal<'_>) -> Result<Exit, Stop> {
        let history = history::read(ledger.state_dir());
        for garbage in &history.garbage {
            terminal.note(&format!("note: left out {garbage}"))?;
        }
        if self.deeds {
            let entries: Vec<DeedEntry> =
                once(history.deeds).iter().filter(|deed| self.takes(deed.at)).map(Into::into).collect();
            let asked = self.asked_when();
            if entries.is_empty() && !asked.is_empty() {
                self.output.print_none(terminal, "DeedList")?;
                let place = ledger.state_dir().display();
                return Err(Stop::nothing_fits("deed", &asked, place, "ipam history --deeds"));
            }
            if entries.is_empty() && self.output.is_for_people() {
                terminal.note(&format!("nobody has done anything, says {}", ledger.state_dir().display()))?;
            }
            self.output.print(terminal, "DeedList", &entries, &entries, &DEEDS)?;
            return Ok(Exit::Done);
        }
        let standing = standing(ledger, terminal)?;
        let tenancies = history::tenancies(&history.events, &standing);
        let entries: Vec<Entry> = tenancies.iter().flat_map(|tenancy| self.entries(tenancy)).collect();
        if entries.is_empty() {
            let text = self.nobody(ledger, &tenancies);
            if self.address.is_some() || self.at.is_some() || !self.asked().is_empty() {
                self.output.print_none(terminal, "HistoryList")?;
                return Err(Stop::new(Exit::NotFound, text));
            }
            if self.output.is_for_people() {
                terminal.note(&text)?;
            }
        }
        self.output.print(terminal, "HistoryList", &entries, &entries, &COLUMNS)?;
        Ok(Exit::Done)
    }

    /// As [`Filter::asked`]; without the address and the moment of `--at`, which are told in words.
    fn asked(&self) -> Vec<String> {
        self.filter.asked().into_iter().chain(self.asked_when()).collect()
    }

    fn asked_when(&self) -> Vec<String> {
        let bounds = [("--since", self.since), ("--until", self.until)];
        bounds.into_iter().filter_map(|(name, at)| Some(format!("{name} {}", moment(at?)))).collect()
    }

    fn takes(&self, at: Timestamp) -> bool {
        self.since.is_none_or(|since| since <= at) && self.until.is_none_or(|until| at <= until)
    }

    fn entries(&self, tenancy: &Tenancy) -> Vec<Entry> {
        let since = self.since.is_none_or(|since| tenancy.to().is_none_or(|to| since <= to));
        let until = self.until.is_none_or(|until| tenancy.from <= until);
        let at = self.at.is_none_or(|at| tenancy.stood_at(at));
        if !(since && until && at && self.filter.takes(&tenancy.lease)) {
            return Vec::new();
        }
        let ips = tenancy.lease.ips().filter(|ip| self.filter.takes_address(*ip));
        let ips = ips.filter(|ip| self.address.is_none_or(|address| address == *ip));
        ips.map(|address| entry(tenancy, address)).collect()
    }

    fn nobody(&self, ledger: &Ledger, tenancies: &[Tenancy]) -> String {
        let dir = ledger.state_dir().display();
        let Some(first) = tenancies.first() else { return format!("there is no history in {dir}") };
        let asked = self.asked().join(" ");
        let who = match (self.address, self.at) {
            (Some(address), Some(at)) => format!("nobody had {address} at {}", moment(at)),
            (Some(address), None) => format!("nobody has had {address}"),
            (None, Some(at)) => format!("nobody had an address at {}", moment(at)),
            (None, None) => "no lease".to_owned(),
        };
        let who = if asked.is_empty() { who } else { format!("{who} with {asked}") };
        format!("{who}, says the history in {dir}, which begins at {}", moment(first.from))
    }
}

/// The past can be told even if the present cannot.
fn standing(ledger: &Ledger, terminal: &mut Terminal<'_>) -> Result<Vec<Record>, Stop> {
    match View::without_lock(ledger, "ipam history") {
        Ok(view) => Ok(view.leases().to_vec()),
        Err(stop) => {
            terminal.note(&format!("note: what stands is not known: {}", stop.text.unwrap_or_default()))?;
            Ok(Vec::new())
        }
    }
}

fn entry(tenancy: &Tenancy, address: IpAddr) -> Entry {
    let [begun_by, ended_by] = tenancy.by.clone();
    Entry {
        address,
        attachment: (&tenancy.lease.attachment).into(),
        pod: pod(&tenancy.lease.pod),
        lease_id: tenancy.lease.lease_id.to_string(),
        from: tenancy.from,
        to: tenancy.to(),
        end: tenancy.end.into(),
        begun_by,
        ended_by,
    }
}

/// Each deed once, as its last line has it, at the place of its first.
fn once(lines: Vec<Deed>) -> Vec<Deed> {
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    let mut deeds: Vec<Deed> = Vec::new();
    for line in lines {
        let place = if line.id.is_empty() { None } else { places.insert(line.id.clone(), deeds.len()) };
        match place.and_then(|place| Some((place, deeds.get_mut(place)?))) {
            Some((place, deed)) => {
                places.insert(line.id.clone(), place);
                *deed = line;
            }
            None => deeds.push(line),
        }
    }
    deeds
}

impl From<End> for Ending {
    fn from(end: End) -> Self {
        match end {
            End::Stands => Self::Active,
            End::Unknown => Self::Unknown,
            End::At(_, kind) => match kind {
                EventKind::Released => Self::Released,
                EventKind::Undone => Self::Undone,
                EventKind::Replaced => Self::Replaced,
                EventKind::Collected => Self::Collected,
                EventKind::Reclaimed => Self::Reclaimed,
                EventKind::Voided => Self::Voided,
                EventKind::Leased | EventKind::Recovered | EventKind::Imported => Self::Unknown,
            },
        }
    }
}

impl From<&Deed> for DeedEntry {
    fn from(deed: &Deed) -> Self {
        Self {
            at: deed.at,
            command: deed.command.clone(),
            outcome: match deed.outcome {
                history::Outcome::Begun => "begun".to_owned(),
                history::Outcome::Done => "done".to_owned(),
                history::Outcome::Failed => "failed".to_owned(),
            },
            about: deed.about.clone(),
            reason: deed.by.reason.clone(),
            uid: deed.by.uid,
            login_uid: deed.login_uid,
            pid: deed.by.pid,
        }
    }
}

fn ending(entry: &Entry) -> Cell {
    let word = serde_json::to_value(entry.end).ok().and_then(|value| value.as_str().map(str::to_owned));
    let word = word.unwrap_or_default();
    if entry.end == Ending::Active { Cell::styled(word, palette::ACTIVE) } else { word.into() }
}

const COLUMNS: [Column<Entry>; 10] = [
    Column::new("FROM", |entry| moment(entry.from).into()),
    Column::new("TO", |entry| match (entry.to, entry.end) {
        (Some(to), _) => moment(to).into(),
        (None, Ending::Active) => "now".into(),
        (None, _) => "?".into(),
    }),
    Column::new("ADDRESS", |entry| entry.address.to_string().into()),
    Column::new("POD", |entry| {
        let names = entry.pod.iter().flat_map(|pod| [&pod.namespace, &pod.name]).flatten();
        names.map(String::as_str).collect::<Vec<_>>().join("/").into()
    }),
    Column::new("CONTAINER", |entry| short(&entry.attachment.container_id).into()),
    Column::new("NETWORK", |entry| entry.attachment.network.clone().into()),
    Column::new("END", ending),
    Column::wide("FOR", |entry| length(entry.to.unwrap_or_else(Timestamp::now).duration_since(entry.from)).into()),
    Column::wide("LEASE", |entry| entry.lease_id.clone().into()),
    Column::wide("ENDED-BY", |entry| entry.ended_by.clone().unwrap_or_default().into()),
];

const DEEDS: [Column<DeedEntry>; 8] = [
    Column::new("AT", |deed| moment(deed.at).into()),
    Column::new("COMMAND", |deed| deed.command.clone().into()),
    Column::new("ABOUT", |deed| deed.about.join(",").into()),
    Column::new("OUTCOME", |deed| deed.outcome.clone().into()),
    Column::new("REASON", |deed| deed.reason.clone().unwrap_or_default().into()),
    Column::new("UID", |deed| deed.uid.to_string().into()),
    Column::wide("LOGIN-UID", |deed| deed.login_uid.map(|uid| uid.to_string()).unwrap_or_default().into()),
    Column::wide("PID", |deed| deed.pid.to_string().into()),
];
