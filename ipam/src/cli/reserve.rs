//! `ipam reserve` and `ipam unreserve`.

use std::path::Path;

use ipnetwork::IpNetwork;
use jiff::{SignedDuration, Timestamp};

use super::deed::Doing;
use super::exit::{Exit, Stop};
use super::format::plain;
use super::networks::Configured;
use super::place::Making;
use super::pools;
use super::release::describe;
use super::terminal::Terminal;
use super::time::{moment, parse_length, parse_moment};
use super::view::View;
use crate::pool::Pool;
use crate::reservations::{self, Reservation};
use crate::span::Span;
use crate::{Ledger, Record};

pub(super) const RESERVE_EXAMPLES: &str = "\
Examples:
  ipam reserve 10.244.1.10 --reason 'answers DNS of the lab'
  ipam reserve 10.244.1.0/28 --reason 'for static pods' --for 30d
  ipam reserve fd00:10:244:1::53 --reason dns --until 2027-01-01 --dry-run
  ipam list --state reserved";

pub(super) const UNRESERVE_EXAMPLES: &str = "\
Examples:
  ipam unreserve 10.244.1.10
  ipam unreserve 10.244.1.0/28 --yes --reason 'lab is gone'";

/// Sets addresses aside.
#[derive(Debug, clap::Args)]
#[command(mut_arg("reason", |reason| reason.required(true).help("Why, for those who find it later")))]
pub(super) struct Reserve {
    /// An address or a CIDR.
    cidr: IpNetwork,
    #[command(flatten)]
    doing: Doing,
    /// For how long: 30m, 24h, 7d. Otherwise it stays until it is unreserved.
    #[arg(long = "for", value_name = "DURATION", value_parser = parse_length, conflicts_with = "until")]
    period: Option<SignedDuration>,
    /// Until when.
    #[arg(long, value_name = "TIME", value_parser = parse_moment)]
    until: Option<Timestamp>,
    /// For whom; otherwise the user who asks.
    #[arg(long, value_name = "NAME")]
    owner: Option<String>,
    /// Reserves also what a pod holds: it keeps its address, and nobody gets it afterwards.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    pub making: Making,
}

/// Gives addresses back that were set aside.
#[derive(Debug, clap::Args)]
pub(super) struct Unreserve {
    /// An address or a CIDR, as it was reserved.
    #[arg(add = super::complete::reservations())]
    cidr: IpNetwork,
    #[command(flatten)]
    doing: Doing,
}

impl Reserve {
    pub fn run(&self, ledger: &Ledger, conf_dir: &Path, terminal: &mut Terminal<'_>) -> Result<Exit, Stop> {
        let reservation = self.reservation(Timestamp::now())?;
        let (cidr, reason) = (reservation.cidr, plain(&reservation.reason));
        let view = View::of(ledger, "ipam reserve")?;
        let held = holders(&view, cidr);
        for lease in &held {
            terminal.note(&format!("held: {}", describe(lease)))?;
        }
        if !held.is_empty() && !self.force {
            let text = "nothing was reserved: a pod holds it; --force reserves it for the time after that";
            return Err(Stop::new(Exit::Refused, text));
        }
        let known = pools::known(&view, &Configured::ours(conf_dir));
        if !known.is_empty() && !known.iter().any(|(known, _)| has_some_of(&known.pool, cidr)) {
            terminal.note(&format!("note: no pool has addresses of {cidr}; see: ipam pools"))?;
        }
        let until = reservation.until.map_or_else(String::new, |until| format!(" until {}", moment(until)));
        if self.doing.dry_run {
            terminal.print(&format!("would reserve {cidr}{until}: {reason}\n"))?;
            return Ok(Exit::Done);
        }
        terminal.confirm(&format!("Reserve {cidr}{until}?"), self.doing.yes)?;
        self.doing.record(ledger, terminal, "ipam reserve", vec![cidr.to_string()], |_| add(ledger, &reservation))?;
        terminal.print(&format!("reserved {cidr}{until}: {reason}\n"))?;
        // An ADD may have been faster. Whoever has it keeps it.
        let after = View::of(ledger, "ipam reserve")?;
        for lease in
            holders(&after, cidr).iter().filter(|lease| !held.iter().any(|held| held.lease_id == lease.lease_id))
        {
            terminal.note(&format!("note: leased meanwhile: {}", describe(lease)))?;
        }
        Ok(Exit::Done)
    }

    fn reservation(&self, now: Timestamp) -> Result<Reservation, Stop> {
        let usage = |text: String| Stop::new(Exit::Usage, text);
        let reason = self.doing.reason.as_deref().map(str::trim).filter(|reason| !reason.is_empty());
        let reason = reason.ok_or_else(|| usage("say why, for those who find it later: --reason TEXT".to_owned()))?;
        let cidr = self.cidr;
        if cidr.ip() != cidr.network() {
            let network = IpNetwork::new(cidr.network(), cidr.prefix()).unwrap_or(cidr);
            return Err(usage(format!("{cidr} has host bits: write {network}, or {} for one address", cidr.ip())));
        }
        let until = match self.period {
            Some(period) => Some(now.checked_add(period).map_err(|error| usage(error.to_string()))?),
            None => self.until,
        };
        if let Some(until) = until.filter(|until| *until <= now) {
            return Err(usage(format!("{} is over", moment(until))));
        }
        let owner = self.owner.clone().unwrap_or_else(user);
        Ok(Reservation { cidr, reason: reason.to_owned(), owner, created: Some(now), until })
    }
}

impl Unreserve {
    pub fn run(&self, ledger: &Ledger, terminal: &mut Terminal<'_>) -> Result<Exit, Stop> {
        let view = View::of(ledger, "ipam unreserve")?;
        if let Some(error) = view.into_reservations_error() {
            return Err(error.into());
        }
        let all = reservations::read(ledger.state_dir(), Timestamp::now())?;
        let Some(found) = all.into_iter().find(|reservation| reservation.cidr == self.cidr) else {
            let text = format!("{} is not reserved; see what is with: ipam list --state reserved", self.cidr);
            return Err(Stop::new(Exit::NotFound, text));
        };
        let what = plain(&format!("{}: {} (by {})", found.cidr, found.reason, found.owner));
        if self.doing.dry_run {
            terminal.print(&format!("would unreserve {what}\n"))?;
            return Ok(Exit::Done);
        }
        terminal.confirm(&format!("Unreserve {what}?"), self.doing.yes)?;
        let about = vec![self.cidr.to_string()];
        let removed = self.doing.record(ledger, terminal, "ipam unreserve", about, |_| remove(ledger, &found))?;
        if !removed {
            return Err(Stop::new(Exit::NotFound, format!("{} was changed meanwhile; look again", self.cidr)));
        }
        terminal.print(&format!("unreserved {what}\n"))?;
        Ok(Exit::Done)
    }
}

/// Of the pool's subnets: what it does not lease by itself can be asked for.
fn has_some_of(pool: &Pool, cidr: IpNetwork) -> bool {
    pool.ranges().iter().any(|range| Span::of(range.subnet).overlaps(Span::of(cidr)))
}

fn holders(view: &View, cidr: IpNetwork) -> Vec<Record> {
    let span = Span::of(cidr);
    let holds = |record: &&Record| record.ips().any(|ip| span.contains(ip));
    view.leases().iter().filter(holds).cloned().collect()
}

fn add(ledger: &Ledger, reservation: &Reservation) -> Result<(), Stop> {
    let now = reservation.created.unwrap_or_else(Timestamp::now);
    let clash = reservations::change(ledger.state_dir(), now, |all| {
        let clash = all.iter().find(|other| Span::of(other.cidr).overlaps(Span::of(reservation.cidr))).cloned();
        if clash.is_none() {
            all.push(reservation.clone());
        }
        clash
    })?;
    match clash {
        None => Ok(()),
        Some(other) => {
            let (cidr, reason, owner) = (other.cidr, plain(&other.reason), plain(&other.owner));
            let text = format!("{cidr} is reserved already: {reason} (by {owner}); first: ipam unreserve {cidr}");
            Err(Stop::new(Exit::Refused, text))
        }
    }
}

/// Only the reservation that was looked at.
fn remove(ledger: &Ledger, found: &Reservation) -> Result<bool, Stop> {
    Ok(reservations::change(ledger.state_dir(), Timestamp::now(), |all| {
        let before = all.len();
        all.retain(|other| other != found);
        all.len() < before
    })?)
}

/// The name of the user who asks, or the number where /etc/passwd has none. (Asking the C library would load whatever
/// name services the host has into a static executable.)
fn user() -> String {
    let uid = nix::unistd::getuid().to_string();
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid).then(|| name.to_owned())
    });
    name.unwrap_or(uid)
}
