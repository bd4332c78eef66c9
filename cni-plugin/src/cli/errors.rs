//! `podwire errors`: the last error of every attachment.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args;
use comfy_table::{Table, presets};
use serde_json::{Value, json};

use super::{Format, Stop};
use crate::inspect::{Failure, last};

/// Where logs are looked for if nobody says where: what a `logFile` is best set to.
pub const LOG: &str = "/var/log/podwire.log";

const EXAMPLES: &str = "\
Examples:
  podwire errors                       the last error of every attachment, oldest first
  podwire errors shop/cart-0           why did this pod get no network?
  journalctl -t podwire -t podwire-portmap -p err
                                       the same from the journal, where no logFile is configured";

/// The options of the command.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Errors {
    /// Only these: a pod's name or NAMESPACE/NAME, or the beginning of a container's id.
    targets: Vec<String>,
    /// Only those of a network.
    #[arg(long, value_name = "NAME")]
    network: Option<String>,
    /// How to print.
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t = Format::Table)]
    output: Format,
    /// The log, "logFile" of the network config; the file that was rotated before is read too.
    #[arg(long, value_name = "FILE", default_value = LOG)]
    log: PathBuf,
}

impl Errors {
    /// Whether anything was found.
    pub(super) fn run(&self, out: &mut dyn Write, err: &mut dyn Write) -> Result<bool, Stop> {
        let all = last(&self.log).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => Stop::NoLog { log: self.log.clone() },
            _ => Stop::Log { log: self.log.clone(), source },
        })?;
        let found: Vec<&Failure> = all.iter().filter(|failure| self.takes(failure)).collect();
        if self.output == Format::Json {
            let items: Vec<Value> = found.iter().map(|failure| failure.to_json()).collect();
            let document = json!({ "apiVersion": "podwire/v1", "kind": "ErrorList", "items": items });
            writeln!(out, "{document:#}")?;
        } else if found.is_empty() {
            let such = if self.asks_for_some() { "such " } else { "" };
            writeln!(err, "no {such}errors in {}", self.log.display())?;
        } else {
            writeln!(out, "{}", table(&found, self.output == Format::Wide).trim_fmt())?;
        }
        Ok(!found.is_empty() || !self.asks_for_some())
    }

    /// Whether not all errors are asked for.
    fn asks_for_some(&self) -> bool {
        !self.targets.is_empty() || self.network.is_some()
    }

    fn takes(&self, failure: &Failure) -> bool {
        let network = self.network.as_deref().is_none_or(|network| network == failure.attachment.network.as_str());
        network && (self.targets.is_empty() || self.targets.iter().any(|target| failure.is_meant_by(target)))
    }
}

fn table(failures: &[&Failure], wide: bool) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["TIME", "POD", "CONTAINER", "IF", "NETWORK", "CALL", "CODE", "ERROR"]);
    for failure in failures {
        let container = failure.attachment.container_id.as_str();
        let details =
            if failure.details.is_empty() || !wide { String::new() } else { format!(": {}", failure.details) };
        table.add_row([
            failure.timestamp.clone(),
            failure.pod.clone().unwrap_or_else(|| "-".to_owned()),
            if wide { container } else { container.get(..12).unwrap_or(container) }.to_owned(),
            failure.attachment.ifname.to_string(),
            failure.attachment.network.to_string(),
            format!("{} {}", failure.plugin, failure.verb),
            failure.code.to_string(),
            format!("{}{details}", failure.msg),
        ]);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
}
