//! `ipam verify`: the ledger against the kernel, the runtime and the network configs.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::exit::{Exit, Stop};
use super::finding::{self, Finding};
use super::format::{Output, counted};
use super::networks::Configured;
use super::place::is_missing;
use super::terminal::Terminal;
use super::view::View;
use crate::liveness::{Census, NetnsState};
use crate::{LeaseId, Ledger, runtime_cache};

mod compare;
mod kernel;
mod runtime;

pub(super) use kernel::{PodLink, Seen};
pub(super) use runtime::{Cache, Cached};

pub(super) const EXAMPLES: &str = "\
Examples:
  ipam verify
  ipam verify -o wide
  ipam verify -o json --cache-dir /var/lib/cni
  ipam verify || ipam gc
Run it in the node's own network namespace. What each kind of finding means: docs/ipam.md";

/// Compares the ledger with the node.
#[derive(Debug, clap::Args)]
pub(super) struct Verify {
    #[command(flatten)]
    cache: CacheDirs,
    #[command(flatten)]
    output: Output,
}

/// Where the runtime's cache is.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct CacheDirs {
    /// A folder in which libcni keeps what the runtime, or Multus, did, in DIR/results, which must be there; may be given
    /// more than once.
    #[arg(long, value_name = "DIR", default_values = runtime_cache::DIRS)]
    cache_dir: Vec<PathBuf>,
}

impl CacheDirs {
    /// A folder that only the command line names is a slip if it is not there, and must not look like a runtime that has
    /// no pods.
    pub fn read(&self) -> Result<Cache, Stop> {
        let by_default = |dir: &Path| runtime_cache::DIRS.iter().any(|it| runtime_cache::results(Path::new(it)) == dir);
        for dir in &self.cache_dir {
            let results = runtime_cache::results(dir);
            if is_missing(&results) && !by_default(&results) {
                let text = format!(
                    "--cache-dir {}: there is no folder {}, in which libcni would keep results of ADDs; without --cache-dir it is {}",
                    dir.display(),
                    results.display(),
                    runtime_cache::DIRS.join(", ")
                );
                return Err(Stop::new(Exit::Usage, text));
            }
        }
        Ok(Cache::read(&self.cache_dir))
    }
}

impl Verify {
    pub fn run(&self, ledger: &Ledger, conf_dir: &Path, terminal: &mut Terminal<'_>) -> Result<Exit, Stop> {
        let (mut findings, mut seen) = self.look(ledger, conf_dir)?;
        if !findings.is_empty() {
            // A plugin may have been at work, which makes link and lease at the same time: what is wrong stays.
            std::thread::sleep(SETTLING);
            let (again, later) = self.look(ledger, conf_dir)?;
            findings.retain(|finding| again.iter().any(|other| is_same(finding, other)));
            seen = later;
        }
        if seen.links == 0 && !seen.view.leases().is_empty() {
            terminal.note("note: no link here is podwire's: is this the node's own network namespace?")?;
        }
        let nothing = format!(
            "ledger and node agree: {}, {}, {} in the runtime's cache",
            counted(seen.view.leases().len(), "lease"),
            counted(seen.links, "link"),
            counted(seen.results, "result")
        );
        seen.view.note_problems(ledger, terminal)?;
        finding::print(findings, &nothing, true, &self.output, terminal)
    }

    /// Everything that differs at one moment.
    fn look(&self, ledger: &Ledger, conf_dir: &Path) -> Result<(Vec<Finding>, Counted), Stop> {
        let view = View::of(ledger, "ipam verify")?;
        let seen = Seen::now().map_err(|error| {
            Stop::new(Exit::Failed, format!("cannot ask the kernel: {}", super::exit::with_causes(&error)))
        })?;
        let cache = self.cache.read()?;
        let mut census = Census::from_here();
        let netns: HashMap<LeaseId, NetnsState> =
            view.leases().iter().map(|lease| (lease.lease_id.clone(), census.netns(lease))).collect();
        let node = compare::Node { seen: &seen, cache: &cache, netns: &netns, configured: &Configured::ours(conf_dir) };
        let findings = compare::findings(view.leases(), &node);
        Ok((findings, Counted { view, links: seen.links.len(), results: cache.entries.len() }))
    }
}

/// How long a call of a plugin may take between link and lease, on a busy node.
const SETTLING: Duration = Duration::from_millis(300);

/// What was looked at.
struct Counted {
    view: View,
    links: usize,
    results: usize,
}

fn is_same(one: &Finding, other: &Finding) -> bool {
    (one.kind, one.address, &one.subject) == (other.kind, other.address, &other.subject)
}
