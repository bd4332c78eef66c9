//! `ipam status`.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Serialize;

use super::check;
use super::contract::Count;
use super::exit::{Exit, Stop};
use super::finding::Severity;
use super::format::Output;
use super::networks::Configured;
use super::palette;
use super::pools;
use super::terminal::Terminal;
use super::view::View;
use crate::{Error, Ledger, clock};

pub(super) const EXAMPLES: &str = "\
Examples:
  ipam status
  ipam status -o json | jq -e '.items[0].ready'
  ipam status || ipam check";

/// Tells whether addresses can be leased now.
#[derive(Debug, clap::Args)]
pub(super) struct Status {
    #[command(flatten)]
    output: Output,
}

/// The state of a ledger.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct State {
    /// Whether every pool that is known has an address to give.
    ready: bool,
    /// Why not, or what should be looked at.
    reasons: Vec<String>,
    version: String,
    dir: PathBuf,
    state_dir: PathBuf,
    boot_id: String,
    /// Whether a resident owner (`ipam serve`) answers for the ledger; otherwise every call opens it.
    resident: bool,
    /// Whether there is a ledger of this boot. Missing, as is what stands in it, if that cannot be found out now.
    #[serde(skip_serializing_if = "Option::is_none")]
    exists: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    leases: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    generation: Option<u64>,
    /// Who keeps the ledger busy, if it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    busy: Option<String>,
    pools: Vec<Free>,
}

/// How many addresses a pool has left.
#[derive(Debug, Serialize, JsonSchema)]
struct Free {
    network: String,
    pool: String,
    free: Count,
}

impl Status {
    pub fn run(&self, ledger: &Ledger, conf_dir: &Path, terminal: &mut Terminal<'_>) -> Result<Exit, Stop> {
        let (state, exit) = state(ledger, conf_dir)?;
        let items = [state];
        let text = match self.output.document("Status", &items)? {
            Some(text) => text,
            None => items.iter().map(|state| paragraph(state, terminal.colour)).collect(),
        };
        terminal.print(&text)?;
        Ok(exit)
    }
}

fn state(ledger: &Ledger, conf_dir: &Path) -> Result<(State, Exit), Stop> {
    let mut state = State {
        ready: true,
        reasons: Vec::new(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        dir: ledger.dir().to_owned(),
        state_dir: ledger.state_dir().to_owned(),
        boot_id: clock::boot_id()?,
        resident: ledger.has_owner(),
        exists: None,
        leases: None,
        generation: None,
        busy: None,
        pools: Vec::new(),
    };
    let view = match View::try_of(ledger, "ipam status")? {
        Ok(view) => view,
        Err(error) => {
            state.ready = false;
            if let Error::Busy { holder, .. } = &error {
                state.busy = Some(holder.to_string());
            }
            let stop = Stop::from(error);
            state.reasons.extend(stop.text);
            // What a disk that has become read-only keeps from being carried out, among others.
            let waits = check::pending(ledger).into_iter();
            state.reasons.extend(waits.map(|finding| format!("{}: {}", finding.subject, finding.problem)));
            return Ok((state, stop.exit));
        }
    };
    let configured = Configured::ours(conf_dir);
    state.exists = Some(view.contents.is_some());
    state.leases = Some(view.leases().len());
    state.generation = Some(view.contents.as_ref().map_or(0, |contents| contents.generation));
    for usage in pools::usages(&view, &configured) {
        // A cooling address is given when there is no other, but for a strict pool.
        let rest = if usage.strict { 0 } else { usage.cooling.0 };
        if usage.free.0 + rest == 0 {
            state.ready = false;
            let rests = if usage.strict && usage.cooling.0 > 0 { " before one has rested (ipam.strict)" } else { "" };
            state.reasons.push(format!("network {}: no address is left in {}{rests}", usage.network, usage.cidrs));
        }
        state.pools.push(Free { network: usage.network, pool: usage.cidrs, free: usage.free });
    }
    let findings = check::findings(ledger, &view, &configured);
    state.ready &= !findings.iter().any(|finding| finding.severity == Severity::Error);
    state.reasons.extend(findings.into_iter().map(|finding| format!("{}: {}", finding.subject, finding.problem)));
    let exit = if state.reasons.is_empty() { Exit::Done } else { Exit::Findings };
    Ok((state, exit))
}

fn paragraph(state: &State, colour: bool) -> String {
    let (word, style) = match (state.ready, state.reasons.is_empty()) {
        (true, true) => ("ready", palette::ACTIVE),
        (true, false) => ("ready, with something to look at", palette::WARNING),
        (false, _) => ("not ready", palette::BAD),
    };
    let word = if colour { format!("{style}{word}{style:#}") } else { word.to_owned() };
    let ledger = match state.exists {
        Some(true) => "",
        Some(false) => " (none of this boot yet)",
        None => " (cannot be looked into now)",
    };
    let mut lines = vec![
        ("Status", word),
        ("Ledger", format!("{}{ledger}", state.dir.display())),
        ("Owner", if state.resident { "resident" } else { "none: each call opens the ledger" }.to_owned()),
        ("State", state.state_dir.display().to_string()),
    ];
    let counts = state.leases.zip(state.generation);
    lines.extend(counts.map(|(leases, changes)| ("Leases", format!("{leases}, {changes} changes"))));
    lines.extend([("Boot", state.boot_id.clone()), ("Version", state.version.clone())]);
    let pools = state.pools.iter().map(|it| ("Pool", format!("{} {}, {} free", it.network, it.pool, it.free.people())));
    lines.extend(pools);
    lines.extend(state.busy.iter().map(|holder| ("Busy", holder.clone())));
    lines.extend(state.reasons.iter().map(|reason| ("Look at", reason.clone())));
    lines.iter().map(|(name, value)| format!("{:<9}{value}\n", format!("{name}:"))).collect()
}
