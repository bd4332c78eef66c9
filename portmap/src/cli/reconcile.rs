//! `podwire-portmap reconcile`.

use std::collections::BTreeMap;

use cni_spec::error::with_causes;
use serde_json::{Value, json};

use super::exit::{Exit, Stop};
use super::{PlainFormat, Terminal};
use crate::error::Error;
use crate::reconcile::{self, Done, Outcome};

pub(super) const EXAMPLES: &str = "\
Examples:
  podwire-portmap reconcile
  podwire-portmap reconcile --dry-run

It goes by what each ADD left in /run/podwire/portmap. What is right is not touched, so it can be run at any time.";

/// Puts back what is missing.
#[derive(Debug, clap::Args)]
pub(super) struct Reconcile {
    /// Says what would be done, and changes nothing.
    #[arg(long)]
    dry_run: bool,
    /// Says nothing about what is as it should be.
    #[arg(short, long)]
    quiet: bool,
    /// How to print.
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t = PlainFormat::Table)]
    output: PlainFormat,
}

impl Reconcile {
    pub fn run(&self, terminal: &mut Terminal<'_>) -> Result<Exit, Stop> {
        let (outcomes, errors) = reconcile::all(self.dry_run);
        let (remarks, errors): (Vec<Error>, Vec<Error>) = errors.into_iter().partition(Error::is_remark);
        // Each pod that goes may find the same.
        let remarks: BTreeMap<String, String> =
            remarks.iter().map(|remark| (remark.to_string(), with_causes(remark))).collect();
        let remarks: Vec<String> = remarks.into_values().collect();
        let failed = outcomes.iter().any(|outcome| match &outcome.done {
            Done::Failed(_) => true,
            Done::Restored { remarks, .. } => remarks.iter().any(|remark| !remark.is_remark()),
            Done::Nothing | Done::Pruned(_) => false,
        });
        if self.output == PlainFormat::Json {
            let items: Vec<Value> = outcomes.iter().map(item).collect();
            let errors: Vec<String> = errors.iter().map(|error| with_causes(error)).collect();
            let document = json!({
                "apiVersion": "portmap.podwire/v1", "kind": "Reconciliation", "dryRun": self.dry_run,
                "items": items, "remarks": remarks, "errors": errors,
            });
            writeln!(terminal.out, "{document:#}")?;
        } else {
            self.print(&outcomes, terminal)?;
        }
        for remark in &remarks {
            writeln!(terminal.err, "podwire-portmap: {remark}")?;
        }
        for error in &errors {
            writeln!(terminal.err, "podwire-portmap: {}", with_causes(error))?;
        }
        Ok(if failed || !errors.is_empty() { Exit::Failed } else { Exit::Done })
    }

    fn print(&self, outcomes: &[Outcome], terminal: &mut Terminal<'_>) -> Result<(), Stop> {
        for outcome in outcomes {
            match &outcome.done {
                Done::Nothing if self.quiet => {}
                Done::Restored { differences, .. } if self.dry_run => {
                    writeln!(terminal.out, "{}: to be restored", outcome.attachment)?;
                    differences.iter().try_for_each(|difference| writeln!(terminal.out, "  {difference}"))?;
                }
                Done::Pruned(liveness) if self.dry_run => {
                    writeln!(terminal.out, "{}: to be removed: {liveness}", outcome.attachment)?;
                }
                _ => writeln!(terminal.out, "{outcome}")?,
            }
        }
        Ok(())
    }
}

fn item(outcome: &Outcome) -> Value {
    let cni_spec::Attachment { network, container_id, ifname } = &outcome.attachment;
    let (done, details): (&str, Vec<String>) = match &outcome.done {
        Done::Nothing => ("nothing", Vec::new()),
        Done::Restored { differences, remarks, .. } => {
            let wrong = |remark: &Error| if remark.is_remark() { "" } else { "still wrong: " };
            let remarks = remarks.iter().map(|remark| format!("{}{}", wrong(remark), with_causes(remark)));
            ("restored", differences.iter().cloned().chain(remarks).collect())
        }
        Done::Pruned(liveness) => ("removed", vec![liveness.to_string()]),
        Done::Failed(error) => ("failed", vec![with_causes(error)]),
    };
    json!({
        "network": network.as_str(), "containerID": container_id.as_str(), "ifname": ifname.as_str(),
        "done": done, "details": details,
    })
}
