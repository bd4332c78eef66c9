//! Proofs by packets: each line is one question that was really asked, and what really came back.

pub mod check;
pub mod need;
pub mod script;

use std::panic::resume_unwind;
use std::thread;
use std::time::Duration;

use serde::Serialize;

use self::check::Check;
use self::script::Actor;
use crate::stage::{self, Stage, StageError};

/// How long an answer may take. All of them are there in milliseconds; only what is broken waits.
const PATIENCE: Duration = Duration::from_secs(3);

/// One line of proof.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// Stable name, for tests and scripts.
    pub id: String,
    /// Whether what came back is what must.
    pub passed: bool,
    /// What was done: who asked whom, over what.
    pub sent: String,
    /// What came back, and what should have if that was something else.
    pub came_back: String,
    /// What it stands on.
    pub needs: Vec<String>,
}

/// Asks every question that these pods allow, all at once: what is broken is waited for once.
///
/// # Errors
/// If an asker's namespace cannot be entered; a bad answer is an [`Outcome`].
pub fn prove(stage: &Stage, pods: &[Actor<'_>]) -> Result<Vec<Outcome>, StageError> {
    let checks = script::checks(stage, pods);
    thread::scope(|scope| {
        let asked: Vec<_> = checks.iter().map(|check| scope.spawn(|| run(check))).collect();
        asked.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic))).collect()
    })
}

fn run(check: &Check<'_>) -> Result<Outcome, StageError> {
    let reply = stage::ask(check.from, check.protocol, check.to.address, PATIENCE)?;
    let passed = check.expected.is(&reply);
    let came_back = if passed { reply.to_string() } else { format!("{reply}; expected {}", check.expected) };
    let Check { from, from_address, to, .. } = check;
    Ok(Outcome {
        id: check.id.clone(),
        passed,
        sent: format!("{} {from_address} -> {} {}", from.name, to.name, to.address),
        came_back,
        needs: check.needs.iter().map(ToString::to_string).collect(),
    })
}
