//! `ipam repair`.

use std::path::Path;

use jiff::Timestamp;

use super::deed::Doing;
use super::exit::{Exit, Stop};
use super::format::counted;
use super::release::describe;
use super::terminal::Terminal;
use crate::clock::{self, Moment};
use crate::ledger::leases_in_kernel;
use crate::operation::Operation;
use crate::{Ledger, Record, reservations};

pub(super) const EXAMPLES: &str = "\
Examples:
  ipam repair --dry-run
  ipam repair --yes
  ipam repair --from-kernel --reason 'leases were lost with an old backup'";

/// Mends what is damaged.
#[derive(Debug, clap::Args)]
pub(super) struct Repair {
    /// Leases also the addresses of podwire links that no lease knows.
    #[arg(long)]
    from_kernel: bool,
    #[command(flatten)]
    doing: Doing,
}

/// What there is to mend.
enum Damage {
    Ledger(String),
    Reservations { readable: usize },
    Unleased(Vec<Record>),
}

impl Repair {
    pub fn run(&self, ledger: &Ledger, terminal: &mut Terminal<'_>) -> Result<Exit, Stop> {
        let damages = self.damages(ledger)?;
        if damages.is_empty() {
            terminal.note(&format!(
                "nothing to mend in {} and {}",
                ledger.dir().display(),
                ledger.state_dir().display()
            ))?;
            return Ok(Exit::Done);
        }
        for damage in &damages {
            let text = damage.plan(ledger);
            if self.doing.dry_run {
                terminal.print(&format!("would {text}\n"))?;
            } else {
                terminal.note(&format!("to do: {text}"))?;
            }
        }
        if self.doing.dry_run {
            return Ok(Exit::Findings);
        }
        terminal.confirm("Repair?", self.doing.yes)?;
        for damage in damages {
            let about = vec![damage.subject(ledger)];
            let done = self.doing.record(ledger, terminal, "ipam repair", about, |_| self.mend(ledger, damage))?;
            terminal.print(&format!("{done}\n"))?;
        }
        Ok(Exit::Done)
    }

    fn damages(&self, ledger: &Ledger) -> Result<Vec<Damage>, Stop> {
        let mut damages = Vec::new();
        // A resident owner tells of its errors in words; what they come to is the same.
        let known = match ledger.examine(self.doing.cause("ipam repair"), false) {
            Ok(contents) => contents.map(|contents| contents.leases).unwrap_or_default(),
            Err(error) => {
                let stop = Stop::from(error);
                if stop.exit != Exit::Damaged {
                    return Err(stop);
                }
                let text = stop.text.unwrap_or_default();
                damages.push(Damage::Ledger(text.split("; the next ADD").next().unwrap_or_default().to_owned()));
                Vec::new()
            }
        };
        if let Err(error) = reservations::read(ledger.state_dir(), Timestamp::now()) {
            let text = std::fs::read(reservations::file(ledger.state_dir())).map_err(|_| Stop::from(error))?;
            damages.push(Damage::Reservations { readable: reservations::readable(&text).len() });
        }
        // A damaged ledger is made anew from the kernel anyway.
        if self.from_kernel && !matches!(damages.first(), Some(Damage::Ledger(_))) {
            let unleased = leases_in_kernel(&known, Moment::now()?, &clock::boot_id()?)?;
            if !unleased.is_empty() {
                damages.push(Damage::Unleased(unleased));
            }
        }
        Ok(damages)
    }

    fn mend(&self, ledger: &Ledger, damage: Damage) -> Result<String, Stop> {
        let cause = self.doing.cause("ipam repair");
        match damage {
            Damage::Ledger(_) => {
                let leases = counted(ledger.examine(cause, true)?.map_or(0, |contents| contents.leases.len()), "lease");
                let aside = super::view::last_quarantined(ledger).map(|path| path.display().to_string());
                Ok(format!("rebuilt the ledger with {leases}; the old one is {}", aside.unwrap_or_default()))
            }
            Damage::Reservations { .. } => {
                let (aside, kept) = reservations::salvage(ledger.state_dir(), Timestamp::now())?;
                let kept = counted(kept.len(), "reservation");
                Ok(format!("kept {kept}; the damaged file is {}", aside.display()))
            }
            Damage::Unleased(records) => {
                let links = counted(records.len(), "link");
                ledger.ask(cause, Operation::Replace { end: Vec::new(), begin: records })?;
                Ok(format!("leased the addresses of {links}"))
            }
        }
    }
}

impl Damage {
    fn plan(&self, ledger: &Ledger) -> String {
        match self {
            Self::Ledger(why) => {
                format!("put the damaged ledger aside and make a new one from its copies and the kernel: {why}")
            }
            Self::Reservations { readable } => {
                let (file, readable) = (reservations::file(ledger.state_dir()), counted(*readable, "reservation"));
                format!("put {} aside and keep what can be read of it: {readable}", file.display())
            }
            Self::Unleased(records) => {
                let each: Vec<String> = records.iter().map(describe).collect();
                format!("lease {}", each.join("; "))
            }
        }
    }

    fn subject(&self, ledger: &Ledger) -> String {
        let path = |path: &Path| path.display().to_string();
        match self {
            Self::Ledger(_) => path(ledger.dir()),
            Self::Reservations { .. } => path(&reservations::file(ledger.state_dir())),
            Self::Unleased(records) => {
                records.iter().flat_map(Record::ips).map(|ip| ip.to_string()).collect::<Vec<_>>().join(",")
            }
        }
    }
}
