//! `podwire-portmap adopt`.

use cni_spec::error::with_causes;
use serde_json::{Value, json};

use super::exit::{Exit, Stop};
use super::{PlainFormat, Terminal};
use crate::adopt::{self, Done, Outcome};

pub(super) const EXAMPLES: &str = "\
Examples:
  podwire-portmap adopt --dry-run
  podwire-portmap adopt

Pods keep running, and so do their connections. Run it after podwire-portmap has taken the place of portmap in the
conflist, so that the DEL of each pod comes here.";

/// Takes over from the reference portmap.
#[derive(Debug, clap::Args)]
pub(super) struct Adopt {
    /// Says what would be done, and changes nothing.
    #[arg(long)]
    dry_run: bool,
    /// How to print.
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t = PlainFormat::Table)]
    output: PlainFormat,
}

impl Adopt {
    pub fn run(&self, terminal: &mut Terminal<'_>) -> Result<Exit, Stop> {
        let outcomes = adopt::all(self.dry_run)?;
        if self.output == PlainFormat::Json {
            let items: Vec<Value> = outcomes.iter().map(item).collect();
            let document = json!({ "apiVersion": "portmap.podwire/v1", "kind": "Adoption", "dryRun": self.dry_run, "items": items });
            writeln!(terminal.out, "{document:#}")?;
        } else {
            outcomes.iter().try_for_each(|outcome| writeln!(terminal.out, "{outcome}"))?;
            if outcomes.is_empty() {
                writeln!(terminal.err, "the reference portmap has no mappings here")?;
            }
        }
        let left = outcomes.iter().any(|outcome| matches!(outcome.done, Done::Left(_)));
        Ok(if left { Exit::Failed } else { Exit::Done })
    }
}

fn item(outcome: &Outcome) -> Value {
    let forwards: Vec<String> = outcome.forwards.iter().map(ToString::to_string).collect();
    let (done, details) = match &outcome.done {
        Done::Adopted => ("adopted", None),
        Done::Removed(liveness) => ("removed", Some(liveness.to_string())),
        Done::Replaced => ("replaced", None),
        Done::Left(error) => ("left", Some(with_causes(error))),
    };
    let attachment = outcome.attachment.as_ref().map(ToString::to_string);
    json!({
        "containerID": outcome.container_id, "attachment": attachment, "mappings": forwards,
        "done": done, "details": details,
    })
}
