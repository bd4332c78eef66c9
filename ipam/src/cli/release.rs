//! `ipam release`.

use std::net::IpAddr;

use super::deed::Doing;
use super::exit::{Exit, Stop};
use super::format::plain;
use super::select::{Filter, parse_address};
use super::terminal::Terminal;
use super::view::View;
use crate::event::EventKind;
use crate::ledger::Ending;
use crate::liveness::Census;
use crate::{Ledger, Record, Released};

pub(super) const EXAMPLES: &str = "\
Examples:
  ipam release 10.244.1.17 --dry-run
  ipam release --container 0a1b2c3d --yes
  ipam release --pod shop/cart-6d5f --force --reason 'node was restored from a snapshot'";

/// Ends leases.
#[derive(Debug, clap::Args)]
pub(super) struct Release {
    /// The lease of this address, with all its addresses.
    #[arg(required_unless_present_any = ["network", "namespace", "pod", "container", "cidr"], value_parser = parse_address, add = super::complete::addresses())]
    address: Option<IpAddr>,
    #[command(flatten)]
    filter: Filter,
    #[command(flatten)]
    doing: Doing,
    /// Releases even if the pod is alive, or may be. Its address may then be given to another.
    #[arg(long)]
    force: bool,
}

impl Release {
    pub fn run(&self, ledger: &Ledger, terminal: &mut Terminal<'_>) -> Result<Exit, Stop> {
        let view = View::of(ledger, "ipam release")?;
        let mut found: Vec<&Record> = view.leases().iter().filter(|record| self.filter.takes(record)).collect();
        if let Some(address) = self.address {
            found.retain(|record| record.ips().any(|ip| ip == address));
        }
        if found.is_empty() {
            let address = self.address.map(|address| address.to_string());
            let asked: Vec<String> = address.into_iter().chain(self.filter.asked()).collect();
            return Err(Stop::nothing_fits("lease", &asked, ledger.dir().display(), "ipam list"));
        }
        let alive = self.alive(&found, terminal)?;
        for lease in &found {
            if self.doing.dry_run {
                terminal.print(&format!("would release {}\n", describe(lease)))?;
            } else {
                terminal.note(&format!("to release: {}", describe(lease)))?;
            }
        }
        if alive {
            return Err(Stop::new(Exit::Refused, "nothing was released; --force does it nevertheless"));
        }
        if self.doing.dry_run {
            return Ok(Exit::Done);
        }
        terminal.confirm("Release?", self.doing.yes)?;
        release_all(ledger, &found, &self.doing, "ipam release", terminal)
    }

    /// Whether any pod is alive, unless that does not matter.
    fn alive(&self, found: &[&Record], terminal: &mut Terminal<'_>) -> Result<bool, Stop> {
        let (mut alive, mut census) = (false, Census::from_here());
        for lease in found.iter().filter(|_| !self.force) {
            if let Some(objection) = census.objection(lease) {
                terminal.note(&format!("not dead: {}: {objection}", describe(lease)))?;
                alive = true;
            }
        }
        Ok(alive)
    }
}

/// Ends each lease if it is still the one that was looked at. One that has ended meanwhile is as good, and one that its
/// pod has asked for again is another matter.
pub(super) fn release_all(
    ledger: &Ledger,
    leases: &[&Record],
    doing: &Doing,
    command: &str,
    terminal: &mut Terminal<'_>,
) -> Result<Exit, Stop> {
    for lease in leases {
        let about = lease.ips().map(|ip| ip.to_string()).collect();
        doing.record(ledger, terminal, command, about, |terminal| release(ledger, lease, doing, command, terminal))?;
    }
    Ok(Exit::Done)
}

fn release(
    ledger: &Ledger,
    lease: &Record,
    doing: &Doing,
    command: &str,
    terminal: &mut Terminal<'_>,
) -> Result<(), Stop> {
    let (began, why) = (lease.began(), EventKind::Released);
    let (attachment, lease_id) = (&lease.attachment, &lease.lease_id);
    let ending = Ending { attachment, lease_id, began, rests: true, in_use: &[], why };
    match ledger.end(doing.cause(command), &ending)? {
        Released::Lease(_) => terminal.print(&format!("released {}\n", describe(lease))),
        // By somebody else, or by this very request, whose answer was lost with the ledger's owner; or it stands, and its
        // pod has asked for it again.
        Released::Nothing | Released::Spooled => {
            terminal.note(&format!("ended, or asked for again, meanwhile: {}", describe(lease)))
        }
    }
}

pub(super) fn describe(lease: &Record) -> String {
    let addresses: Vec<String> = lease.ips().map(|ip| ip.to_string()).collect();
    let pod = plain(&lease.pod.to_string());
    let pod = if pod.is_empty() { pod } else { format!("pod {pod}, ") };
    let attachment = &lease.attachment;
    let (container, ifname, network) = (&attachment.container_id, &attachment.ifname, &attachment.network);
    format!("{} of {pod}container {container}, interface {ifname}, network {network}", addresses.join(" and "))
}
