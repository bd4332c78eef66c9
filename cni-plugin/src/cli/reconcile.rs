//! `podwire reconcile`.

mod told;

use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use cni_spec::NetworkName;
use cni_spec::error::with_causes;
use ipam::runtime_cache;
use serde_json::{Value, json};

use super::{Exit, Stop};
use crate::reconcile::{self, CONF_DIR, Order, Outcome, Summary};
use told::Told;

pub const EXAMPLES: &str = "\
Examples:
  podwire reconcile --quiet            put back what is missing, say only that
  podwire reconcile --dry-run          what is missing, in the words of nft(8)
  podwire reconcile --dry-run | nft --check --file -      (nft 1.0.7 or later)
  podwire-portmap reconcile            the same of host ports

Which pods there are, their addresses and how their links are guarded the kernel
says. Whether and how they are masqueraded, and whether they are not to be guarded,
is read from what the runtime's libcni keeps of each, and from the network's config
where it keeps nothing. Of a pod that no route leads to any more its lease says
what it may send from; where nobody knows, its link is guarded without addresses.
What is right is not touched, and what nobody knows otherwise is not changed, so it
can be run at any time.";

/// Puts back what is missing.
#[derive(Debug, Args)]
pub struct Reconcile {
    /// Prints what would be done, in the words of nft(8), and changes nothing.
    #[arg(long)]
    dry_run: bool,
    /// Says nothing about what is as it should be.
    #[arg(short, long)]
    quiet: bool,
    /// With --quiet: of what stands as it stood, says what is new since the run before that was given this file.
    #[arg(long, value_name = "FILE", requires = "quiet", conflicts_with = "dry_run")]
    told: Option<PathBuf>,
    /// Only pods of a network.
    #[arg(long, value_name = "NAME")]
    network: Option<NetworkName>,
    /// How to print.
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t = Format::Table)]
    output: Format,
    /// The folder of network configs.
    #[arg(long, value_name = "DIR", default_value = CONF_DIR)]
    conf_dir: PathBuf,
    /// A folder in which libcni keeps what the runtime, or Multus, did, in DIR/results; may be given more than once.
    #[arg(long = "cache-dir", value_name = "DIR", default_values = runtime_cache::DIRS)]
    cache_dirs: Vec<PathBuf>,
}

/// The formats of `--output`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Lines for people
    Table,
    /// One JSON document
    Json,
}

impl Reconcile {
    pub(super) fn run(&self, out: &mut dyn Write, err: &mut dyn Write) -> Result<Exit, Stop> {
        let summary = reconcile::all(&Order {
            network: self.network.as_ref(),
            conf_dir: &self.conf_dir,
            cache_dirs: &self.cache_dirs,
            dry_run: self.dry_run,
        })?;
        let mut told = Told::of(self.told.as_deref());
        if self.output == Format::Json {
            writeln!(out, "{:#}", self.document(&summary))?;
        } else {
            self.print(&summary, &mut told, out)?;
        }
        for remark in summary.remarks.iter().filter(|remark| told.is_new(remark)) {
            writeln!(err, "podwire: {remark}")?;
        }
        for error in &summary.errors {
            writeln!(err, "podwire: {}", with_causes(error))?;
        }
        let outcomes = &summary.outcomes;
        let unknown = outcomes.iter().filter(|outcome| outcome.unknown.is_some()).count();
        if self.quiet && unknown > 0 {
            let of_all = outcomes.len();
            let line = format!(
                "not all is known of {unknown} of {of_all} pods: podwire reconcile without --quiet tells which, and what"
            );
            if told.is_new(&line) {
                writeln!(err, "podwire: {line}")?;
            }
        }
        if let Err(error) = told.keep() {
            writeln!(err, "podwire: the next run says all this again, as it cannot be noted for it: {error}")?;
        }
        if let Some(network) = self.network.as_ref().filter(|_| outcomes.is_empty()) {
            writeln!(err, "no pods of network {:?} here", network.as_str())?;
            return Ok(Exit::NothingFound);
        }
        if !summary.errors.is_empty() || outcomes.iter().any(|outcome| !outcome.failures.is_empty()) {
            return Ok(Exit::Failed);
        }
        Ok(if outcomes.iter().any(|outcome| outcome.unknown.is_some()) { Exit::Unknown } else { Exit::Done })
    }

    fn print(&self, summary: &Summary, told: &mut Told, out: &mut dyn Write) -> io::Result<()> {
        // What is printed then can be given to nft(8).
        let start = if self.dry_run { "# " } else { "" };
        for outcome in &summary.outcomes {
            let is_event = !outcome.differences.is_empty() || !outcome.failures.is_empty() || outcome.changed_meanwhile;
            if self.quiet && !is_event && !outcome.without_routes {
                continue;
            }
            let line = self.line(outcome);
            if is_event || told.is_new(&line) {
                writeln!(out, "{start}{line}")?;
            }
        }
        if !self.dry_run {
            return Ok(());
        }
        for change in summary.changes.iter().flatten() {
            writeln!(out, "{}", change.to_string().trim_end())?;
        }
        for (program, text) in &summary.restored {
            writeln!(out, "# by {program}:")?;
            text.lines().try_for_each(|line| writeln!(out, "# {line}"))?;
        }
        Ok(())
    }

    fn line(&self, outcome: &Outcome) -> String {
        let Outcome { attachment, differences, unknown, changed_meanwhile, passed_over, failures, .. } = outcome;
        let done = match (differences.len(), failures.is_empty()) {
            _ if *passed_over => "passed over".to_owned(),
            (_, true) if *changed_meanwhile => "deleted or added again meanwhile".to_owned(),
            (0, true) if unknown.is_some() => "nothing to restore".to_owned(),
            (0, true) => "as it should be".to_owned(),
            (0, false) => "failed".to_owned(),
            (count, _) if self.dry_run => format!("to be restored ({count} differences)"),
            (count, _) => format!("restored ({count} differences)"),
        };
        let remarks: Vec<String> = failures.iter().chain(unknown).cloned().collect();
        let remarks = if remarks.is_empty() { String::new() } else { format!(", but {}", remarks.join("; ")) };
        format!("{attachment}: {done}{remarks}").replace('\n', " ")
    }

    fn document(&self, summary: &Summary) -> Value {
        let items: Vec<Value> = summary.outcomes.iter().map(|outcome| self.item(outcome)).collect();
        let errors: Vec<String> = summary.errors.iter().map(|error| with_causes(error)).collect();
        let changes: Vec<String> = summary.changes.iter().flatten().map(ToString::to_string).collect();
        let restored = summary.restored.iter().map(|(program, text)| json!({ "program": program, "input": text }));
        json!({
            "apiVersion": "podwire/v1", "kind": "Reconciliation", "dryRun": self.dry_run,
            "items": items, "nft": changes, "iptables": restored.collect::<Vec<_>>(), "errors": errors,
            "remarks": summary.remarks,
        })
    }

    fn item(&self, outcome: &Outcome) -> Value {
        let Outcome { attachment, differences, unknown, changed_meanwhile, passed_over, failures, .. } = outcome;
        let done = match (differences.is_empty(), failures.is_empty()) {
            _ if *passed_over => "passedOver",
            (_, false) => "failed",
            _ if *changed_meanwhile => "changedMeanwhile",
            (true, true) => "nothing",
            (false, true) if self.dry_run => "toRestore",
            (false, true) => "restored",
        };
        let differences = differences.iter().map(ToString::to_string);
        json!({
            "network": attachment.network.as_str(), "containerID": attachment.container_id.as_str(),
            "ifname": attachment.ifname.as_str(), "done": done,
            "details": differences.chain(failures.iter().cloned()).collect::<Vec<_>>(),
            "unknown": unknown,
        })
    }
}
