//! The history of leases and of what people did to them: one line of JSON for each, in files that are only appended
//! to and outlive a boot.
//!
//! ```text
//! /var/lib/podwire/           0700, or ipam.stateDir
//!   history.jsonl             what happens now
//!   history.1.jsonl           what happened before, up to history.8.jsonl, the oldest
//! ```
//!
//! A line is one [`Line`]: what happened to a lease, or what a person did. Each is written with one write(2) in append
//! mode, so that lines of several processes do not mix. What cannot be understood - a line that was cut off by a full
//! disk, or that somebody edited - is named by file and number, and the others are read nevertheless.

use std::fmt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::event::{Cause, Event};

mod append;
mod read;
mod tenancy;

pub(crate) use append::{note, record};
pub(crate) use read::{files, read};
pub(crate) use tenancy::{End, Tenancy, tenancies};

/// How many files of old lines are kept, besides the one that is written to.
const KEPT: u32 = 8;

/// Where the history of a ledger is.
pub(crate) fn file(state_dir: &Path) -> PathBuf {
    state_dir.join("history.jsonl")
}

fn old_file(state_dir: &Path, number: u32) -> PathBuf {
    state_dir.join(format!("history.{number}.jsonl"))
}

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Line {
    /// What happened to a lease.
    Event(Box<Event>),
    /// What a person did.
    Deed(Box<Deed>),
}

/// What a person did with the command line, whether it changed leases or not.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Deed {
    /// The same in the line that is written before and in the one that is written after.
    #[serde(default)]
    pub id: String,
    pub at: Timestamp,
    /// The command, as it can be typed: `reserve 10.244.1.0/28`.
    pub command: String,
    pub outcome: Outcome,
    /// What it was about: addresses, CIDRs, files.
    pub about: Vec<String>,
    pub by: Cause,
    /// Who logged in, also behind sudo (proc_pid_loginuid(5)); none if nobody did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login_uid: Option<u32>,
}

/// What came of a deed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Outcome {
    /// Nobody knows yet: this is written before.
    Begun,
    Done,
    Failed,
}

/// A line that cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Garbage {
    pub path: PathBuf,
    /// Counted from 1; 0 if the whole file cannot be read.
    pub number: usize,
    pub problem: String,
}

impl fmt::Display for Garbage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, problem) = (self.path.display(), &self.problem);
        match self.number {
            0 => write!(f, "{path}: {problem}"),
            number => write!(f, "{path}:{number}: {problem}"),
        }
    }
}
