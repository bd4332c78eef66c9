//! `ipam release`.

use std::io::Write;
use std::net::IpAddr;

use super::Terminal;
use super::exit::{Exit, Stop};
use super::select::{self, Filter};
use crate::event::{Cause, EventKind};
use crate::ledger::Ending;
use crate::liveness::Liveness;
use crate::{Ledger, Record, Released};

pub(super) const EXAMPLES: &str = "\
Examples:
  ipam release 10.244.1.17 --dry-run
  ipam release --container 0a1b2c3d --yes
  ipam release --pod shop/cart-6d5f --force";

/// Ends leases.
#[derive(Debug, clap::Args)]
pub(super) struct Release {
    /// The lease of this address, with all its addresses.
    #[arg(required_unless_present_any = ["network", "namespace", "pod", "container"])]
    address: Option<IpAddr>,
    #[command(flatten)]
    filter: Filter,
    /// Says what would be released, and releases nothing.
    #[arg(long)]
    dry_run: bool,
    /// Does not ask.
    #[arg(short, long)]
    yes: bool,
    /// Releases even if the pod is alive. Its address may then be given to another.
    #[arg(long)]
    force: bool,
}

impl Release {
    pub fn run(&self, ledger: &Ledger, terminal: &mut Terminal<'_>) -> Result<Exit, Stop> {
        let leases = select::all(ledger, "ipam release")?;
        let mut found: Vec<&Record> = leases.iter().filter(|record| self.filter.takes(record)).collect();
        if let Some(address) = self.address {
            found.retain(|record| record.ips().any(|ip| ip == address));
        }
        if found.is_empty() {
            return Err(Stop::new(Exit::NotFound, format!("no such lease in {}", ledger.dir().display())));
        }
        let alive = self.alive(&found, terminal)?;
        for lease in &found {
            let would = if self.dry_run { "would release" } else { "to release:" };
            let mut place: &mut dyn Write = if self.dry_run { terminal.out } else { terminal.err };
            writeln!(&mut place, "{would} {}", describe(lease)).map_err(Stop::from_printing)?;
        }
        if alive {
            return Err(Stop::new(Exit::Refused, "nothing was released; --force does it nevertheless"));
        }
        if self.dry_run {
            return Ok(Exit::Done);
        }
        self.confirm(terminal)?;
        found.into_iter().try_fold(Exit::Done, |exit, lease| release(ledger, lease, exit, terminal))
    }

    /// Whether any pod is alive, unless that does not matter.
    fn alive(&self, found: &[&Record], terminal: &mut Terminal<'_>) -> Result<bool, Stop> {
        let mut alive = false;
        for lease in found.iter().filter(|_| !self.force) {
            if let Some(objection) = Liveness::of(lease).objection() {
                writeln!(terminal.err, "not dead: {}: {objection}", describe(lease)).map_err(Stop::from_printing)?;
                alive = true;
            }
        }
        Ok(alive)
    }

    fn confirm(&self, terminal: &mut Terminal<'_>) -> Result<(), Stop> {
        if self.yes {
            return Ok(());
        }
        let Some(person) = terminal.person.as_mut() else {
            return Err(Stop::new(Exit::Refused, "nobody is there to be asked: add --yes, or run it on a terminal"));
        };
        write!(terminal.err, "Release? [y/N] ").and_then(|()| terminal.err.flush()).map_err(Stop::from_printing)?;
        let mut answer = String::new();
        person.read_line(&mut answer).map_err(Stop::from_printing)?;
        match answer.trim() {
            "y" | "Y" | "yes" => Ok(()),
            _ => Err(Stop::new(Exit::Refused, "nothing was released")),
        }
    }
}

fn release(ledger: &Ledger, lease: &Record, exit: Exit, terminal: &mut Terminal<'_>) -> Result<Exit, Stop> {
    let (attachment, lease_id) = (&lease.attachment, &lease.lease_id);
    let ending = Ending { attachment, lease_id, rests: true, why: EventKind::Released };
    match ledger.end(Cause::of_this_process("ipam release"), &ending)? {
        Released::Lease(_) => {
            writeln!(terminal.out, "released {}", describe(lease)).map_err(Stop::from_printing)?;
            Ok(exit)
        }
        Released::Nothing | Released::Spooled => {
            writeln!(terminal.err, "ended meanwhile: {}", describe(lease)).map_err(Stop::from_printing)?;
            Ok(Exit::NotFound)
        }
    }
}

fn describe(lease: &Record) -> String {
    let addresses: Vec<String> = lease.ips().map(|ip| ip.to_string()).collect();
    let pod = lease.pod.to_string();
    let pod = if pod.is_empty() { pod } else { format!("pod {pod}, ") };
    let attachment = &lease.attachment;
    let (container, ifname, network) = (&attachment.container_id, &attachment.ifname, &attachment.network);
    format!("{} of {pod}container {container}, interface {ifname}, network {network}", addresses.join(" and "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(yes: bool, person: Option<&str>) -> Result<(), Exit> {
        let release = Release { address: None, filter: Filter::default(), dry_run: false, yes, force: false };
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut says = person.map(str::as_bytes);
        let person = says.as_mut().map(|says| says as &mut dyn std::io::BufRead);
        let result = release.confirm(&mut Terminal { out: &mut out, err: &mut err, person });
        assert_eq!(out, b"", "a question is no output");
        result.map_err(|stop| stop.exit)
    }

    #[test]
    fn only_a_yes_is_a_yes() {
        for (yes, person, expected) in [
            (true, None, Ok(())),
            (true, Some("n\n"), Ok(())),
            (false, None, Err(Exit::Refused)),
            (false, Some("y\n"), Ok(())),
            (false, Some("yes\n"), Ok(())),
            (false, Some("n\n"), Err(Exit::Refused)),
            (false, Some("\n"), Err(Exit::Refused)),
            (false, Some(""), Err(Exit::Refused)),
        ] {
            assert_eq!(asked(yes, person), expected, "--yes {yes}, {person:?}");
        }
    }
}
