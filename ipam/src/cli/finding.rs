//! What `check` and `verify` find.

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::Serialize;

use super::exit::{Exit, Stop};
use super::format::{Cell, Column, Output};
use super::palette;
use super::terminal::Terminal;

/// Something that is not as it should be, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Finding {
    pub severity: Severity,
    pub kind: Kind,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// Whom or what it is about: an attachment, a file.
    pub subject: String,
    /// What the ledger says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ledger: Option<String>,
    /// What the kernel says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
    /// What the runtime's cache says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime: Option<String>,
    /// What is wrong.
    pub problem: String,
    /// What to do.
    pub fix: String,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Severity {
    /// Pods are harmed by it, or will be.
    Error,
    /// It may be all right.
    Warning,
}

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Kind {
    /// Two have the same address.
    Duplicate,
    /// A pod uses an address that is not leased to it.
    UnknownToLedger,
    /// A lease whose pod is gone.
    Leaked,
    /// A pod's link without its network namespace.
    DeadNetns,
    /// A pod's address is routed to another link.
    WrongRoute,
    /// A pod's address is routed nowhere.
    MissingRoute,
    /// A leased address is in no pool of its network.
    ForeignRange,
    /// The runtime's cache has other addresses.
    RuntimeDiffers,
    /// The runtime's cache does not have the attachment.
    UnknownToRuntime,
    /// Two parts of the ledger say different things.
    IndexMismatch,
    /// A plain copy is not like its lease.
    CopyDiffers,
    /// A change was broken off; the next one settles it.
    Unsettled,
    /// A release is written down and not carried out.
    PendingRelease,
    /// A file cannot be understood.
    Garbage,
    /// A damaged ledger was put aside.
    Quarantined,
    /// Two ledgers that do not know of each other lease the same addresses.
    Overlap,
    /// host-local has leased it to a pod that the ledger does not know.
    HeldByHostLocal,
}

impl Finding {
    pub fn new(severity: Severity, kind: Kind, subject: impl Into<String>, problem: impl Into<String>) -> Self {
        Self {
            severity,
            kind,
            address: None,
            subject: subject.into(),
            ledger: None,
            kernel: None,
            runtime: None,
            problem: problem.into(),
            fix: String::new(),
        }
    }

    pub fn at(mut self, address: IpAddr) -> Self {
        self.address = Some(address);
        self
    }

    pub fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = fix.into();
        self
    }

    pub fn said(mut self, ledger: impl Into<String>, kernel: impl Into<String>, runtime: impl Into<String>) -> Self {
        let some = |text: String| (!text.is_empty()).then_some(text);
        (self.ledger, self.kernel, self.runtime) = (some(ledger.into()), some(kernel.into()), some(runtime.into()));
        self
    }
}

/// Prints them, the worst first.
pub(super) fn print(
    mut findings: Vec<Finding>,
    nothing: &str,
    with_witnesses: bool,
    output: &Output,
    terminal: &mut Terminal<'_>,
) -> Result<Exit, Stop> {
    findings.sort_by(|one, other| {
        let key = |it: &Finding| (it.severity, it.kind, it.address, it.subject.clone());
        key(one).cmp(&key(other))
    });
    if findings.is_empty() && output.is_for_people() {
        terminal.note(nothing)?;
        return Ok(Exit::Done);
    }
    output.print(terminal, "FindingList", &findings, &findings, &columns(with_witnesses))?;
    Ok(if findings.is_empty() { Exit::Done } else { Exit::Findings })
}

fn columns(with_witnesses: bool) -> Vec<Column<Finding>> {
    let witness = |name, cell| Column::<Finding> { name, wide: !with_witnesses, cell };
    vec![
        Column::new("SEVERITY", |it: &Finding| match it.severity {
            Severity::Error => Cell::styled("error", palette::BAD),
            Severity::Warning => Cell::styled("warning", palette::WARNING),
        }),
        Column::new("KIND", |it| {
            let word = serde_json::to_value(it.kind).ok();
            word.and_then(|word| word.as_str().map(str::to_owned)).unwrap_or_default().into()
        }),
        Column::new("ADDRESS", |it| it.address.map(|address| address.to_string()).unwrap_or_default().into()),
        Column::new("SUBJECT", |it| it.subject.clone().into()),
        witness("LEDGER", |it| it.ledger.clone().unwrap_or_default().into()),
        witness("KERNEL", |it| it.kernel.clone().unwrap_or_default().into()),
        witness("RUNTIME", |it| it.runtime.clone().unwrap_or_default().into()),
        Column { name: "PROBLEM", wide: with_witnesses, cell: |it| it.problem.clone().into() },
        Column::new("FIX", |it| it.fix.clone().into()),
    ]
}
