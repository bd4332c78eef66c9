//! iptables: change rules by one `iptables-restore`, see what is there without running anything.
//!
//! A [`Tool`] is the `iptables-restore` of one family, with the [`Flavour`] it writes to. [`Tool::restore`] is the one
//! place in shipped code that runs a program which is no CNI plugin: the rules of iptables can be written by nothing
//! else. The text goes in by standard input; nothing of it is ever a command line, and there is no shell.
//!
//! [`marks`] reads the comments of rules from the kernel itself, in either flavour, which takes a process nothing: a
//! change that is planned from them needs one child. [`extension`] asks the kernel, too, for what rules may have.
//! [`Tool::list`] asks the program instead, by way of the `iptables` crate.
//!
//! # Time
//!
//! Each run has a [`DEADLINE`]; waiting for the lock of the legacy flavour, `/run/xtables.lock`, ends before that, after
//! [`LOCK_SECONDS`]. A program that is still there at the deadline is killed with its children.

mod blob;
mod extension;
mod legacy;
mod marks;
mod run;
mod tool;
mod turn;

use std::fmt;
use std::time::Duration;

pub use self::extension::{Extension, Known, extension};
pub use self::marks::{Marks, is_any_filled, marks};
pub use self::run::DEADLINE;
pub use self::tool::Tool;
pub use self::turn::Turn;

/// How long a run waits for the lock of the legacy flavour, in seconds.
pub const LOCK_SECONDS: u32 = 5;

/// How long the questions of [`Tool::list`] and [`Tool::version`] may take.
const QUESTION: Duration = Duration::from_secs(10);

/// What an iptables writes to. Rules of one flavour are invisible to the programs of the other one, but packets meet
/// both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Flavour {
    /// nf_tables, in tables `ip` and `ip6` `nat`, `filter` and so on: "iptables v1.8.9 (nf_tables)".
    Nft,
    /// The kernel's older ip_tables and ip6_tables: "iptables v1.8.9 (legacy)", and every version before 1.8.
    Legacy,
}

impl Flavour {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Nft, Self::Legacy];
}

impl fmt::Display for Flavour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Nft => "nft",
            Self::Legacy => "legacy",
        })
    }
}
