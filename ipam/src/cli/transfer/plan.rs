//! What an import comes to, before anything is done. Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use schemars::JsonSchema;
use serde::Serialize;

use super::super::format::{Cell, Column};
use super::super::list::short;
use super::super::palette;
use crate::Record;
use crate::operation::Tombstone;
use crate::reservations::Reservation;
use crate::span::Span;

/// What is to be done, and what it is shown as.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Leases to end first, when everything is replaced.
    pub end: Vec<Record>,
    pub begin: Vec<Record>,
    pub reserve: Vec<Reservation>,
    pub unreserve: Vec<Reservation>,
    pub shown: Vec<PlannedAction>,
}

/// One line of an import.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::cli) struct PlannedAction {
    pub action: Action,
    /// Addresses, or a reserved CIDR.
    pub addresses: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ifname: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// Why, where that is not plain.
    pub why: String,
}

/// What becomes of a lease or a reservation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::cli) enum Action {
    /// It is put into the ledger.
    Add,
    /// It is there already.
    Keep,
    /// It is left out, and that harms nobody.
    Skip,
    /// It is taken out of the ledger.
    Remove,
    /// It cannot be added; nothing is done.
    Conflict,
}

/// What there is now.
pub(super) struct Present<'a> {
    pub leases: &'a [Record],
    pub reservations: &'a [Reservation],
    pub boot_id: &'a str,
    /// What was deleted lately, and has no lease since.
    pub tombstones: &'a [Tombstone],
}

impl Present<'_> {
    fn has_outlived(&self, lease: &Record) -> bool {
        let of_it = self.tombstones.iter().filter(|it| it.attachment == lease.attachment);
        of_it.into_iter().any(|it| lease.was_ended_by_a_release_of(it.deleted_boottime_ms))
    }
}

impl Plan {
    pub fn of(leases: Vec<Record>, reservations: Vec<Reservation>, present: &Present<'_>, replace: bool) -> Self {
        let mut plan = Self::default();
        if replace {
            plan.remove_what_is_not_in(&leases, &reservations, present);
        }
        for lease in leases {
            plan.add_lease(lease, present);
        }
        for reservation in reservations {
            plan.add_reservation(reservation, present);
        }
        plan
    }

    pub fn conflicts(&self) -> usize {
        self.shown.iter().filter(|it| it.action == Action::Conflict).count()
    }

    pub fn changes(&self) -> usize {
        self.end.len() + self.begin.len() + self.reserve.len() + self.unreserve.len()
    }

    fn remove_what_is_not_in(&mut self, leases: &[Record], reservations: &[Reservation], present: &Present<'_>) {
        let is_in = |lease: &&Record| leases.iter().any(|other| is_same(other, lease));
        for lease in present.leases.iter().filter(|lease| !is_in(lease)) {
            self.shown.push(PlannedAction::of_lease(Action::Remove, lease, "is not in what is imported"));
            self.end.push(lease.clone());
        }
        for reservation in present.reservations.iter().filter(|it| !reservations.contains(it)) {
            self.shown.push(PlannedAction::of_reservation(Action::Remove, reservation, "is not in what is imported"));
            self.unreserve.push(reservation.clone());
        }
    }

    fn add_lease(&mut self, lease: Record, present: &Present<'_>) {
        let stays = |it: &&Record| !self.end.iter().any(|ended| ended.lease_id == it.lease_id);
        let standing: Vec<&Record> = present.leases.iter().filter(stays).chain(&self.begin).collect();
        let holds = |it: &&&Record| it.ips().any(|ip| lease.ips().any(|wanted| wanted == ip));
        let (action, why) = if lease.boot_id != present.boot_id {
            (Action::Skip, "is of another boot: its pod is gone".to_owned())
        } else if present.has_outlived(&lease) {
            (Action::Skip, "was deleted since".to_owned())
        } else if let Some(twice) = held_twice(&lease) {
            (Action::Conflict, format!("holds {twice} twice"))
        } else if let Some(other) = standing.iter().find(|it| it.attachment == lease.attachment) {
            let held: Vec<String> = other.ips().map(|ip| ip.to_string()).collect();
            if is_same(other, &lease) {
                (Action::Keep, "is there already".to_owned())
            } else {
                (Action::Conflict, format!("this attachment holds {}", held.join(",")))
            }
        } else if let Some(other) = standing.iter().find(holds) {
            (Action::Conflict, format!("held by {}", other.attachment))
        } else {
            (Action::Add, String::new())
        };
        self.shown.push(PlannedAction::of_lease(action, &lease, &why));
        if action == Action::Add {
            self.begin.push(lease);
        }
    }

    fn add_reservation(&mut self, reservation: Reservation, present: &Present<'_>) {
        let stays = |it: &&Reservation| !self.unreserve.contains(it);
        let standing: Vec<&Reservation> = present.reservations.iter().filter(stays).chain(&self.reserve).collect();
        let overlaps = |it: &&&Reservation| Span::of(it.cidr).overlaps(Span::of(reservation.cidr));
        let (action, why) = if standing.contains(&&reservation) {
            (Action::Keep, "is there already".to_owned())
        } else if let Some(other) = standing.iter().find(overlaps) {
            (Action::Conflict, format!("{} is reserved: {}", other.cidr, other.reason))
        } else {
            (Action::Add, reservation.reason.clone())
        };
        self.shown.push(PlannedAction::of_reservation(action, &reservation, &why));
        if action == Action::Add {
            self.reserve.push(reservation);
        }
    }
}

/// An address that stands twice in a lease, which no ADD makes.
fn held_twice(lease: &Record) -> Option<IpAddr> {
    let mut held = BTreeSet::new();
    lease.ips().find(|address| !held.insert(*address))
}

/// Whether the same pod has the same addresses, whatever else is known of it: then the lease that stands may stay.
fn is_same(one: &Record, other: &Record) -> bool {
    one.attachment == other.attachment && one.ips().eq(other.ips())
}

impl PlannedAction {
    fn of_lease(action: Action, lease: &Record, why: &str) -> Self {
        let pod = lease.pod.to_string();
        Self {
            action,
            addresses: lease.ips().map(|ip: IpAddr| ip.to_string()).collect(),
            pod: (!pod.is_empty()).then_some(pod),
            container_id: Some(lease.attachment.container_id.to_string()),
            ifname: Some(lease.attachment.ifname.to_string()),
            network: Some(lease.attachment.network.to_string()),
            why: why.to_owned(),
        }
    }

    fn of_reservation(action: Action, reservation: &Reservation, why: &str) -> Self {
        let cidr: IpNetwork = reservation.cidr;
        let addresses = vec![cidr.to_string()];
        Self { action, addresses, pod: None, container_id: None, ifname: None, network: None, why: why.to_owned() }
    }
}

pub(super) const COLUMNS: [Column<PlannedAction>; 7] = [
    Column::new("ACTION", |it| match it.action {
        Action::Add => Cell::styled("add", palette::ACTIVE),
        Action::Keep => "keep".into(),
        Action::Skip => Cell::styled("skip", palette::OUTSIDE),
        Action::Remove => Cell::styled("remove", palette::WARNING),
        Action::Conflict => Cell::styled("conflict", palette::BAD),
    }),
    Column::new("ADDRESS", |it| it.addresses.join(",").into()),
    Column::new("POD", |it| it.pod.clone().unwrap_or_default().into()),
    Column::new("CONTAINER", |it| short(it.container_id.as_deref().unwrap_or_default()).into()),
    Column::new("IF", |it| it.ifname.clone().unwrap_or_default().into()),
    Column::new("NETWORK", |it| it.network.clone().unwrap_or_default().into()),
    Column::new("WHY", |it| it.why.clone().into()),
];
