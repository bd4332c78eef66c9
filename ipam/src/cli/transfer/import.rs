//! `ipam import`.

use std::fs;
use std::io::{self, Read as _};
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;

use super::super::deed::Doing;
use super::super::exit::{Exit, Stop, with_causes};
use super::super::format::{Output, counted, plain};
use super::super::place::Making;
use super::super::release::describe;
use super::super::terminal::Terminal;
use super::super::verify::CacheDirs;
use super::super::view::View;
use super::document::Document;
use super::host_local;
use super::plan::{COLUMNS, Plan, Present};
use crate::liveness::Census;
use crate::operation::{LeaseName, Operation};
use crate::reservations::Reservation;
use crate::span::Span;
use crate::{Error, Ledger, clock, reservations};

pub(in crate::cli) const EXAMPLES: &str = "\
Examples:
  ipam import host-local:/var/lib/cni/networks --dry-run
  ipam import host-local:/var/lib/cni/networks/podnet --yes --reason 'away from host-local'
  ipam import ledger.jsonl
  ipam import ledger.jsonl --replace --dry-run
  ssh node ipam export | ipam import - --dry-run
Taking over a node from host-local: docs/ipam.md";

/// Puts leases and reservations into the ledger.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Import {
    /// A file that ipam export wrote, - for standard input, or host-local:DIR.
    from: String,
    /// Ends what is not in it. Otherwise that stays.
    #[arg(long)]
    replace: bool,
    /// With --replace: ends also leases of pods that are alive, or may be. Their addresses may then be given to others.
    #[arg(long, requires = "replace")]
    force: bool,
    /// Leaves files of host-local out that cannot be understood. Their addresses may be in use.
    #[arg(long)]
    skip_garbage: bool,
    #[command(flatten)]
    pub making: Making,
    #[command(flatten)]
    doing: Doing,
    #[command(flatten)]
    cache: CacheDirs,
    #[command(flatten)]
    output: Output,
}

impl Import {
    pub fn run(&self, ledger: &Ledger, conf_dir: &Path, terminal: &mut Terminal<'_>) -> Result<Exit, Stop> {
        let document = match self.from.strip_prefix("host-local:") {
            Some(dir) => {
                let patience = ledger.lock_timeout();
                self.read_host_local(Path::new(dir), (conf_dir, patience), terminal)?
            }
            None => self.read_export()?,
        };
        let view = View::of(ledger, "ipam import")?;
        let (leases, boot_id) = (view.leases().to_vec(), clock::boot_id()?);
        let reserved = reservations::read(ledger.state_dir(), Timestamp::now())?;
        let tombstones = view.contents.as_ref().map_or(&[][..], |contents| &contents.tombstones);
        let present = Present { leases: &leases, reservations: &reserved, boot_id: &boot_id, tombstones };
        let plan = Plan::of(document.leases, document.reservations, &present, self.replace);
        if self.doing.dry_run {
            self.output.print(terminal, "ImportPlan", &plan.shown, &plan.shown, &COLUMNS)?;
        } else {
            let text = Output::default().table(&plan.shown, &COLUMNS, false)?;
            terminal.note(text.trim_end())?;
        }
        if plan.conflicts() > 0 {
            let text = format!("nothing was imported: {} of {} conflict", plan.conflicts(), plan.shown.len());
            return Err(Stop::new(Exit::Refused, text));
        }
        self.may_end(&plan, terminal)?;
        if self.doing.dry_run {
            return Ok(Exit::Done);
        }
        if plan.changes() == 0 {
            terminal.note("nothing to import: it is all there")?;
            return Ok(Exit::Done);
        }
        terminal.confirm(&format!("Change these {}?", plan.changes()), self.doing.yes)?;
        self.doing
            .record(ledger, terminal, "ipam import", vec![self.from.clone()], |_| self.carry_out(ledger, &plan))?;
        let (begun, reserved) = (counted(plan.begin.len(), "lease"), counted(plan.reserve.len(), "reservation"));
        let ended = plan.end.len() + plan.unreserve.len();
        terminal.print(&format!("imported {begun} and {reserved}, removed {ended}\n"))?;
        Ok(Exit::Done)
    }

    fn read_export(&self) -> Result<Document, Stop> {
        let name = if self.from == "-" { "standard input" } else { &self.from };
        let path = Path::new(name);
        let mut bytes = Vec::new();
        let read = match self.from.as_str() {
            "-" => io::stdin().read_to_end(&mut bytes).map(drop),
            _ => fs::read(path).map(|found| bytes = found),
        };
        read.map_err(Stop::file("read", path))?;
        let text = String::from_utf8_lossy(&bytes);
        Document::read(&text).map_err(|error| Stop::new(Exit::Damaged, format!("{name} {error}; nothing was imported")))
    }

    fn read_host_local(
        &self,
        dir: &Path,
        (conf_dir, patience): (&Path, Duration),
        terminal: &mut Terminal<'_>,
    ) -> Result<Document, Stop> {
        let dir = if dir.as_os_str().is_empty() { Path::new(host_local::DIR) } else { dir };
        let cache = self.cache.read()?;
        let known = host_local::Known { cache: &cache, conf_dir, patience };
        let found = host_local::read(dir, &known).map_err(|error| {
            let exit = if matches!(error, host_local::ReadError::Busy(_)) { Exit::Busy } else { Exit::Failed };
            Stop::new(exit, with_causes(&error))
        })?;
        for note in &found.notes {
            terminal.note(&format!("note: {note}"))?;
        }
        for (path, problem) in &found.garbage {
            terminal.note(&format!("garbage: {}: {problem}", path.display()))?;
        }
        if !found.garbage.is_empty() && !self.skip_garbage {
            let text = "nothing was imported: the addresses of these files may be in use; mend or remove the files, or add --skip-garbage";
            return Err(Stop::new(Exit::Damaged, text));
        }
        Ok(Document { leases: found.leases, reservations: Vec::new() })
    }

    /// Refuses to end the lease of a pod that is alive, or may be.
    fn may_end(&self, plan: &Plan, terminal: &mut Terminal<'_>) -> Result<(), Stop> {
        let (mut alive, mut census) = (0, Census::from_here());
        for lease in plan.end.iter().filter(|_| !self.force) {
            if let Some(objection) = census.objection(lease) {
                terminal.note(&format!("not dead: {}: {objection}", describe(lease)))?;
                alive += 1;
            }
        }
        if alive > 0 {
            let theirs = if alive == 1 { "its" } else { "their" };
            let alive = counted(alive, "pod");
            let text = format!("nothing was imported: {alive} would lose {theirs} lease; --force does it nevertheless");
            return Err(Stop::new(Exit::Refused, text));
        }
        Ok(())
    }

    /// The leases all or nothing, in one step. The reservations are a file of their own: new ones are written before, and
    /// old ones are taken out after. Whoever is killed in between has kept addresses from being leased, and nothing else;
    /// the same import goes on from there.
    fn carry_out(&self, ledger: &Ledger, plan: &Plan) -> Result<(), Stop> {
        add_reservations(ledger, plan)?;
        let end: Vec<LeaseName> = plan.end.iter().map(LeaseName::of).collect();
        if !end.is_empty() || !plan.begin.is_empty() {
            let replaced = ledger.make_dir().and_then(|()| {
                ledger.ask(self.doing.cause("ipam import"), Operation::Replace { end, begin: plan.begin.clone() })
            });
            if let Err(error) = replaced {
                // An owner that has not answered may be at it still: then what is reserved stays so.
                if !(matches!(error, Error::Busy { .. }) && ledger.has_owner()) {
                    remove_reservations(ledger, &plan.reserve)?;
                }
                return Err(error.into());
            }
        }
        remove_reservations(ledger, &plan.unreserve)
    }
}

fn remove_reservations(ledger: &Ledger, out: &[Reservation]) -> Result<(), Stop> {
    if out.is_empty() {
        return Ok(());
    }
    let removed = reservations::change(ledger.state_dir(), Timestamp::now(), |all| all.retain(|it| !out.contains(it)));
    Ok(removed?)
}

/// Sets aside what is to be, unless somebody has reserved such addresses meanwhile.
fn add_reservations(ledger: &Ledger, plan: &Plan) -> Result<(), Stop> {
    let (out, new) = (&plan.unreserve, &plan.reserve);
    if new.is_empty() {
        return Ok(());
    }
    let clash = reservations::change(ledger.state_dir(), Timestamp::now(), |all| {
        let stays = |it: &&Reservation| !out.contains(it) && !new.contains(it);
        let overlaps = |it: &&Reservation| new.iter().any(|new| Span::of(new.cidr).overlaps(Span::of(it.cidr)));
        let clash = all.iter().filter(stays).find(overlaps).cloned();
        if clash.is_none() {
            all.retain(|it| !new.contains(it));
            all.extend(new.iter().cloned());
        }
        clash
    })?;
    let Some(other) = clash else { return Ok(()) };
    let (cidr, reason) = (other.cidr, plain(&other.reason));
    Err(Stop::new(Exit::Refused, format!("nothing was imported: {cidr} was reserved meanwhile: {reason}")))
}
