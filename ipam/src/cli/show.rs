//! `ipam show`.

use std::fmt::Write as _;
use std::net::IpAddr;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;

use super::contract::{Cooling, Lease, Reserved};
use super::exit::{Exit, Stop};
use super::format::{Output, plain};
use super::list::origin;
use super::select;
use super::terminal::Terminal;
use super::time::{age, length, moment};
use super::view::View;
use crate::history::{self, Tenancy};
use crate::liveness::{Census, NetnsState};
use crate::{Ledger, Record};

pub(super) const EXAMPLES: &str = "\
Examples:
  ipam show 10.244.1.17
  ipam show 10.244.1.0/28
  ipam show shop/cart-6d5f
  ipam show 0a1b2c3d -o json";

/// How many of those who had an address before are shown.
const BEFORE: usize = 5;

/// Shows leases.
#[derive(Debug, clap::Args)]
pub(super) struct Show {
    /// An address, a CIDR, a pod (NAME or NAMESPACE/NAME), or a container id or the beginning of one.
    #[arg(value_name = "ADDRESS|CIDR|POD|CONTAINER", add = super::complete::leases())]
    what: String,
    #[command(flatten)]
    output: Output,
}

/// A lease, the signs of life of its pod, and who had its addresses before.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Shown {
    #[serde(skip_serializing_if = "Option::is_none")]
    lease: Option<Lease>,
    /// For an address that nobody has: until when it rests.
    #[serde(skip_serializing_if = "Option::is_none")]
    cooling: Option<Cooling>,
    /// The reservations that cover one of the addresses.
    reservations: Vec<Reserved>,
    /// Whether a link of this host says that it is the attachment's; null if it cannot be seen.
    link_exists: Option<bool>,
    /// Whether the pod's network namespace is where it was; null if the lease does not tell.
    netns_exists: Option<bool>,
    /// Who had the addresses before, the latest first.
    before: Vec<Before>,
}

/// One who had an address before.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Before {
    address: IpAddr,
    /// The pod, or the container where the runtime told no pod.
    who: String,
    from: Timestamp,
    /// Missing if nobody has written down when it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<Timestamp>,
}

impl Show {
    pub fn run(&self, ledger: &Ledger, terminal: &mut Terminal<'_>) -> Result<Exit, Stop> {
        let view = View::of(ledger, "ipam show")?;
        let tenancies = history::tenancies(&history::read(ledger.state_dir()).events, view.leases());
        let found = select::meant(view.leases(), &self.what);
        let mut shown: Vec<Shown> = found.iter().map(|lease| shown(lease, &view, &tenancies)).collect();
        if shown.is_empty()
            && let Ok(address) = self.what.parse()
        {
            shown.extend(unleased(address, &view, &tenancies));
        }
        if shown.is_empty() {
            self.output.print_none(terminal, "Lease")?;
            let text = format!("no lease for {:?} in {}", self.what, ledger.dir().display());
            return Err(Stop::new(Exit::NotFound, format!("{text}; see what there is with: ipam list")));
        }
        let text = match self.output.document("Lease", &shown)? {
            Some(text) => text,
            None => shown.iter().map(|shown| paragraph(shown, view.now)).collect::<Vec<_>>().join("\n"),
        };
        terminal.print(&text)?;
        Ok(Exit::Done)
    }
}

fn shown(lease: &Record, view: &View, tenancies: &[Tenancy]) -> Shown {
    let mut census = Census::from_here();
    Shown {
        lease: Some(lease.into()),
        cooling: None,
        reservations: lease.ips().flat_map(|address| covering(view, address)).collect(),
        link_exists: census.has_link(&lease.attachment).ok(),
        netns_exists: match census.netns(lease) {
            NetnsState::There => Some(true),
            NetnsState::Gone => Some(false),
            NetnsState::Unknown(_) => None,
        },
        before: before(&lease.ips().collect::<Vec<_>>(), Some(lease), tenancies),
    }
}

/// An address that nobody has, if anything is known of it.
fn unleased(address: IpAddr, view: &View, tenancies: &[Tenancy]) -> Option<Shown> {
    let shown = Shown {
        lease: None,
        cooling: view.cooling().find(|cooling| cooling.address == address),
        reservations: covering(view, address),
        link_exists: None,
        netns_exists: None,
        before: before(&[address], None, tenancies),
    };
    let is_known = shown.cooling.is_some() || !shown.reservations.is_empty() || !shown.before.is_empty();
    is_known.then_some(shown)
}

fn covering(view: &View, address: IpAddr) -> Vec<Reserved> {
    view.reservations().iter().filter(|reservation| reservation.cidr.contains(address)).map(Reserved::from).collect()
}

fn before(addresses: &[IpAddr], now: Option<&Record>, tenancies: &[Tenancy]) -> Vec<Before> {
    let others = tenancies.iter().rev().filter(|tenancy| now.is_none_or(|now| now.lease_id != tenancy.lease.lease_id));
    let held = others.flat_map(|tenancy| {
        let held = tenancy.lease.ips().filter(|ip| addresses.contains(ip));
        held.map(move |address| Before { address, who: tenancy.who(), from: tenancy.from, to: tenancy.to() })
    });
    held.take(BEFORE).collect()
}

fn paragraph(shown: &Shown, now: Timestamp) -> String {
    let mut lines: Vec<(&str, String)> = Vec::new();
    if let Some(lease) = &shown.lease {
        of_lease(lease, shown, now, &mut lines);
    } else {
        lines.push(("Lease", "none".to_owned()));
    }
    if let Some(cooling) = &shown.cooling {
        let (since, left) = (age(cooling.released, now), length(cooling.until.duration_since(now)));
        lines.push(("Cooling", format!("released {since} ago, rests {left} more (pool {})", cooling.pool)));
    }
    for reserved in &shown.reservations {
        let until = reserved.until.map_or_else(String::new, |until| format!(", until {}", moment(until)));
        lines.push(("Reserved", format!("{}: {} (by {}{until})", reserved.cidr, reserved.reason, reserved.owner)));
    }
    for before in &shown.before {
        let to = before.to.map_or_else(|| "?".to_owned(), moment);
        lines.push(("Before", format!("{} {}, {} to {to}", before.address, before.who, moment(before.from))));
    }
    lines.into_iter().fold(String::new(), |mut text, (name, value)| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{:<11}{}", format!("{name}:"), plain(&value));
        text
    })
}

fn of_lease(lease: &Lease, shown: &Shown, now: Timestamp, lines: &mut Vec<(&str, String)>) {
    for address in &lease.addresses {
        let gateway = address.gateway.map_or_else(String::new, |gateway| format!(" via {gateway}"));
        lines.push(("Address", format!("{}{gateway}", address.address)));
    }
    let pod = lease.pod.as_ref().map_or_else(
        || "-".to_owned(),
        |pod| {
            let names =
                [&pod.namespace, &pod.name].into_iter().flatten().map(String::as_str).collect::<Vec<_>>().join("/");
            let uid = pod.uid.as_ref().map_or_else(String::new, |uid| format!(" (uid {uid})"));
            format!("{names}{uid}")
        },
    );
    lines.push(("Pod", pod));
    lines.push(("Container", lease.attachment.container_id.clone()));
    let link = seen(shown.link_exists, ["host link exists", "no host link", "host link cannot be seen"]);
    lines.push(("Interface", format!("{} ({link})", lease.attachment.ifname)));
    lines.push(("Network", lease.attachment.network.clone()));
    if let Some(netns) = &lease.netns {
        let inode = netns.inode.map_or_else(String::new, |inode| format!("net:[{inode}], "));
        let exists = seen(shown.netns_exists, ["exists", "gone", "cannot be seen"]);
        lines.push(("Namespace", format!("{} ({inode}{exists})", netns.path.display())));
    }
    let (created, ago) = (moment(lease.created), age(lease.created, now));
    lines.push(("Created", format!("{created}, {ago} ago ({})", origin(lease.origin))));
    lines.push(("Lease", lease.lease_id.clone()));
}

/// One of the words for yes, no, and nobody knows.
fn seen(exists: Option<bool>, words: [&'static str; 3]) -> &'static str {
    let [yes, no, unknown] = words;
    exists.map_or(unknown, |exists| if exists { yes } else { no })
}
