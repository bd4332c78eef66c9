//! What a case finds.

use serde::{Deserialize, Serialize};

/// Why a case did not pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// The plugin does not do what the sentence says.
    Failed(String),
    /// The sentence cannot be put to this target, with the reason.
    Skipped(String),
    /// The suite itself could not do its part: a tool is missing, a namespace could not be made.
    Trouble(String),
}

/// The answer of a case.
pub type Verdict<T = ()> = Result<T, Finding>;

impl Finding {
    /// The same finding, told with what was being done.
    #[must_use]
    pub fn during(self, what: &str) -> Self {
        match self {
            Self::Failed(text) => Self::Failed(format!("{what}: {text}")),
            Self::Skipped(text) => Self::Skipped(text),
            Self::Trouble(text) => Self::Trouble(format!("{what}: {text}")),
        }
    }
}

/// What is reported of a case.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", content = "why", rename_all = "lowercase")]
pub enum Outcome {
    /// The plugin does what the sentence says.
    Passed,
    /// It does not.
    Failed(String),
    /// It does, but afterwards something of it was left on the host.
    Residue(Vec<String>),
    /// It does not, and the target says so and why.
    Deviates(String),
    /// The sentence cannot be put to this target.
    Skipped(String),
    /// The suite could not ask.
    Trouble(String),
}

impl Outcome {
    /// One word, as tables show it.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed(_) => "FAILED",
            Self::Residue(_) => "RESIDUE",
            Self::Deviates(_) => "deviates",
            Self::Skipped(_) => "skipped",
            Self::Trouble(_) => "TROUBLE",
        }
    }

    /// The reason, if there is one to tell.
    #[must_use]
    pub fn why(&self) -> Option<String> {
        match self {
            Self::Passed => None,
            Self::Failed(why) | Self::Deviates(why) | Self::Skipped(why) | Self::Trouble(why) => Some(why.clone()),
            Self::Residue(lines) => Some(left_behind(lines)),
        }
    }

    /// Whether this speaks against the plugin.
    #[must_use]
    pub fn is_failure(&self) -> bool {
        matches!(self, Self::Failed(_) | Self::Residue(_))
    }
}

/// The first few lines, and how many more there are.
#[must_use]
pub fn left_behind(lines: &[String]) -> String {
    let shown: Vec<_> = lines.iter().take(4).map(String::as_str).collect();
    let more = if lines.len() > 4 { format!("; and {} more", lines.len() - 4) } else { String::new() };
    format!("left behind: {}{more}", shown.join("; "))
}

impl From<Verdict> for Outcome {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Ok(()) => Self::Passed,
            Err(Finding::Failed(why)) => Self::Failed(why),
            Err(Finding::Skipped(why)) => Self::Skipped(why),
            Err(Finding::Trouble(why)) => Self::Trouble(why),
        }
    }
}

/// Ends a case as failed unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($text:tt)+) => {
        if !$condition {
            return Err($crate::verdict::Finding::Failed(format!($($text)+)));
        }
    };
}

/// Ends a case as failed.
macro_rules! fail {
    ($($text:tt)+) => {
        return Err($crate::verdict::Finding::Failed(format!($($text)+)))
    };
}

/// Ends a case as skipped, with the reason.
macro_rules! skip {
    ($($text:tt)+) => {
        return Err($crate::verdict::Finding::Skipped(format!($($text)+)))
    };
}

pub(crate) use {ensure, fail, skip};
