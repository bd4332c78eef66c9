//! `podwire` run by hand: what pods have on this node, and what they should have.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand, ValueEnum};
use comfy_table::{Table, presets};
use ipam::Ledger;
use serde_json::{Value, json};

use crate::Error;
use crate::inspect::{self, Attached, Failure, draw};

mod errors;
mod reconcile;

use errors::{Errors, LOG};
use reconcile::Reconcile;

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed
  2  the command line is wrong
  3  nothing found
  4  done, but of some pods it is not known what they were asked for (reconcile)";

const AFTER_HELP: &str = "\
A container runtime runs this executable with CNI_COMMAND in its environment; then arguments mean nothing.";

const EXAMPLES: &str = "\
Examples:
  podwire inspect                      all pods, a line each
  podwire inspect shop/cart-0          one pod, with the way of a packet to it
  podwire errors shop/cart-0           why did this pod get no network?";

const INSPECT_EXAMPLES: &str = "\
Examples:
  podwire inspect                      all pods, a line each
  podwire inspect shop/cart-0          one pod, with the way of a packet to it
  podwire inspect 10.244.1.5 -o json   the same for programs, by address";

/// Looks at what pods have on this node, and puts back what their firewall has lost.
#[derive(Debug, Parser)]
#[command(name = "podwire", version, after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
#[command(after_long_help = format!("{EXAMPLES}\n\n{EXIT_CODES}\n\n{AFTER_HELP}"))]
#[command(arg_required_else_help = true, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Shows interfaces, addresses, routes, host ports and counters of pods.
    #[command(visible_aliases = ["show", "list", "ls"], after_help = INSPECT_EXAMPLES)]
    Inspect(Inspect),
    /// Shows the last error of every attachment, from the log.
    Errors(Errors),
    /// Puts back the guard and the masquerade of pods after a firewall was flushed or reloaded.
    #[command(visible_alias = "restore", after_help = reconcile::EXAMPLES)]
    Reconcile(Reconcile),
}

#[derive(Debug, clap::Args)]
struct Inspect {
    /// Only these: a pod's name or NAMESPACE/NAME, the beginning of a container's id, an address, or the node's link.
    targets: Vec<String>,
    /// Only those of a network.
    #[arg(long, value_name = "NAME")]
    network: Option<String>,
    /// How to print.
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t = Format::Table)]
    output: Format,
    /// Draws the way of a packet to each, as is done anyway if there is only one that is meant.
    #[arg(long)]
    draw: bool,
    /// Leaves the line with the column names out.
    #[arg(long)]
    no_headers: bool,
    /// The folder of the ledger, which knows pods' names and namespaces: "ipam.dataDir" of the network config, by default
    /// /run/podwire/ipam.
    #[arg(long, value_name = "DIR")]
    ledger: Option<PathBuf>,
    /// The log, which knows the last error of each: "logFile" of the network config, by default /var/log/podwire.log.
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
}

/// The formats of `--output`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Lines for people
    Table,
    /// More columns
    Wide,
    /// One JSON document
    Json,
}

/// How long to wait for the ledger, which only adds names.
const PATIENCE: Duration = Duration::from_secs(2);

/// Runs the command of this process.
#[must_use]
pub fn main() -> ExitCode {
    let command = match Cli::try_parse() {
        Ok(cli) => cli.command,
        Err(error) => {
            // Where the text cannot be printed, its exit code is all there is.
            let _ = error.print();
            let asked_for = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            return ExitCode::from(if asked_for { 0 } else { 2 });
        }
    };
    let (mut out, mut err) = (io::stdout().lock(), io::stderr().lock());
    let found = |found| if found { Exit::Done } else { Exit::NothingFound };
    let done = match &command {
        Command::Inspect(inspect) => inspect.run(&mut out, &mut err).map(found),
        Command::Errors(errors) => errors.run(&mut out, &mut err).map(found),
        Command::Reconcile(reconcile) => reconcile.run(&mut out, &mut err),
    };
    match done {
        Ok(exit) => ExitCode::from(exit as u8),
        // Whoever reads the output may have read enough.
        Err(Stop::Print(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(stop) => {
            let _ = writeln!(err, "podwire: {stop}");
            ExitCode::FAILURE
        }
    }
}

/// How a command ended that could do its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Exit {
    Done = 0,
    Failed = 1,
    NothingFound = 3,
    Unknown = 4,
}

#[derive(Debug, thiserror::Error)]
enum Stop {
    #[error("{}", cni_spec::error::with_causes(error))]
    Read {
        #[from]
        error: Error,
    },
    #[error(
        "cannot read the log {}: there is none; calls that fail are in the journal unless \"logFile\" of the network config names a file. Ask the journal: journalctl -t podwire -t podwire-portmap -p err; name the file with --log; or say \"logFile\": \"{LOG}\" in every plugin of the conflist, for calls from then on", .log.display()
    )]
    NoLog { log: PathBuf },
    #[error("cannot read the log {}: {source}", .log.display())]
    Log { log: PathBuf, source: io::Error },
    #[error("cannot print: {0}")]
    Print(#[from] io::Error),
}

impl Inspect {
    /// Whether anything was found.
    fn run(&self, out: &mut dyn Write, err: &mut dyn Write) -> Result<bool, Stop> {
        let ledger = self.ledger.as_deref().unwrap_or(Path::new(Ledger::DEFAULT_DIR));
        let ledger = Ledger::at(ledger).with_lock_timeout(PATIENCE);
        // Most nodes log to the journal.
        let failures = inspect::last(self.log.as_deref().unwrap_or(Path::new(LOG))).unwrap_or_default();
        let (mut all, remarks) = inspect::all(&ledger, &failures)?;
        for remark in self.mistaken().into_iter().chain(remarks) {
            writeln!(err, "note: {remark}")?;
        }
        all.retain(|attached| self.takes(attached));
        if self.output == Format::Json {
            let items: Vec<Value> = all.iter().map(Attached::to_json).collect();
            let document = json!({ "apiVersion": "podwire/v1", "kind": "AttachmentList", "items": items });
            writeln!(out, "{document:#}")?;
            return Ok(!all.is_empty() || !self.asks_for_some());
        }
        if all.is_empty() {
            let what =
                if self.asks_for_some() { "no such pod here: podwire inspect lists all" } else { "no pods here" };
            writeln!(err, "{what}")?;
            // A pod whose ADD failed has nothing here, but perhaps a reason.
            let is_meant = |failure: &&Failure| self.targets.iter().any(|target| failure.is_meant_by(target));
            for Failure { timestamp, plugin, verb, attachment, code, msg, .. } in failures.iter().filter(is_meant) {
                writeln!(err, "last error of {attachment}: {timestamp} {plugin} {verb}: {msg} (code {code})")?;
            }
            return Ok(!self.asks_for_some());
        }
        self.print(&all, out)?;
        Ok(true)
    }

    /// What was named and is not there: a node need not have it, but whoever names it means that it does.
    fn mistaken(&self) -> Vec<String> {
        let missing = |path: &Option<PathBuf>| path.clone().filter(|path| !path.exists());
        let ledger =
            missing(&self.ledger).map(|path| format!("there is no ledger {}: pods have no names", path.display()));
        let log =
            missing(&self.log).map(|path| format!("there is no log {}: no last errors are shown", path.display()));
        ledger.into_iter().chain(log).collect()
    }

    /// Whether not all pods are asked for.
    fn asks_for_some(&self) -> bool {
        !self.targets.is_empty() || self.network.is_some()
    }

    fn takes(&self, attached: &Attached) -> bool {
        let network = self.network.as_deref().is_none_or(|network| network == attached.attachment.network.as_str());
        let is_meant = self.targets.is_empty() || self.targets.iter().any(|target| attached.is_meant_by(target));
        network && is_meant
    }

    fn print(&self, all: &[Attached], out: &mut dyn Write) -> io::Result<()> {
        let wide = self.output == Format::Wide;
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        if !self.no_headers {
            let more = if wide { &["MTU", "GATEWAY", "ROUTES", "NETNS"][..] } else { &[] };
            table.set_header(
                ["POD", "CONTAINER", "IF", "NETWORK", "ADDRESSES", "HOST-PORTS", "LINK", "SENT", "RECEIVED"]
                    .iter()
                    .chain(more),
            );
        }
        for attached in all {
            table.add_row(cells(attached, wide));
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        writeln!(out, "{}", table.trim_fmt())?;
        if self.draw || (all.len() == 1 && !self.targets.is_empty()) {
            for attached in all {
                write!(out, "\n{}", draw(attached))?;
            }
        }
        Ok(())
    }
}

fn cells(attached: &Attached, wide: bool) -> Vec<String> {
    let attachment = &attached.attachment;
    let container = attachment.container_id.as_str();
    let short = container.get(..12).unwrap_or(container);
    let mut cells = vec![
        or_dash(attached.pod.clone().unwrap_or_default()),
        if wide { container } else { short }.to_owned(),
        attachment.ifname.to_string(),
        attachment.network.to_string(),
        joined(&attached.addresses),
        joined(&host_ports(attached)),
        attached.link.name.clone(),
        format!("{} B", attached.counters.rx_bytes),
        format!("{} B", attached.counters.tx_bytes),
    ];
    if wide {
        let inside = attached.inside.as_ref();
        let routes: Vec<String> =
            inside.iter().flat_map(|inside| &inside.routes).map(|route| route.dst.to_string()).collect();
        cells.extend([
            attached.link.mtu.to_string(),
            joined(&attached.gateways()),
            joined(&routes),
            or_dash(inside.map(|inside| inside.netns.display().to_string()).unwrap_or_default()),
        ]);
    }
    cells
}

/// Each once: a port that leads to addresses of both families is in two tables.
fn host_ports(attached: &Attached) -> Vec<String> {
    let mut ports: Vec<String> = Vec::new();
    for port in attached.host_ports.iter().map(ToString::to_string) {
        if !ports.contains(&port) {
            ports.push(port);
        }
    }
    ports
}

fn joined<T: ToString>(items: &[T]) -> String {
    or_dash(items.iter().map(ToString::to_string).collect::<Vec<_>>().join(","))
}

fn or_dash(text: String) -> String {
    if text.is_empty() { "-".to_owned() } else { text }
}
