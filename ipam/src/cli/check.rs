//! `ipam check`: the ledger and the files beside it, each for itself and against each other.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use cni_spec::Attachment;

use super::exit::{Exit, Stop, with_causes};
use super::finding::{self, Finding, Kind, Severity};
use super::format::{Output, counted};
use super::networks::Configured;
use super::overlap;
use super::terminal::Terminal;
use super::view::View;
use crate::operation::Contents;
use crate::span::Span;
use crate::{Ledger, history};

pub(super) const EXAMPLES: &str = "\
Examples:
  ipam check
  ipam check -o json
  ipam check --no-headers --columns kind,subject
To compare with the kernel and the runtime: ipam verify";

/// Checks the ledger and the files beside it.
#[derive(Debug, clap::Args)]
pub(super) struct Check {
    #[command(flatten)]
    output: Output,
}

impl Check {
    pub fn run(&self, ledger: &Ledger, conf_dir: &Path, terminal: &mut Terminal<'_>) -> Result<Exit, Stop> {
        let view = View::examined(ledger, "ipam check")?;
        let findings = findings(ledger, &view, &Configured::ours(conf_dir));
        let (leases, dir) = (counted(view.leases().len(), "lease"), ledger.dir().display());
        let nothing = match view.contents {
            Some(_) => format!("sound: {leases} in {dir}"),
            None => format!("no ledger of this boot in {dir}, and nothing wrong beside it"),
        };
        finding::print(findings, &nothing, false, &self.output, terminal)
    }
}

pub(super) fn findings(ledger: &Ledger, view: &View, configured: &Configured) -> Vec<Finding> {
    let mut found = view.contents.as_ref().map(inside).unwrap_or_default();
    found.extend(copies(ledger, view));
    found.extend(pending(ledger));
    found.extend(reservations(ledger, view));
    let history = history::read(ledger.state_dir());
    found.extend(overlap::findings(ledger, view, &history.events, configured));
    found.extend(history.garbage.into_iter().map(|garbage| {
        let place = format!("{}:{}", garbage.path.display(), garbage.number);
        Finding::new(Severity::Warning, Kind::Garbage, place, garbage.problem)
            .fix("none needed: the line is left out, and the others are read")
    }));
    found.extend(configured.problems.iter().map(|(path, problem)| {
        Finding::new(Severity::Warning, Kind::Garbage, path.display().to_string(), problem)
            .fix("mend the network config; ADD of this network fails until then")
    }));
    found.extend(ledger.quarantined().into_iter().flatten().map(|path| {
        let reason = fs::read_to_string(path.join("reason.txt")).unwrap_or_default();
        let reason = format!("the ledger was damaged and has been rebuilt ({})", reason.trim());
        Finding::new(Severity::Warning, Kind::Quarantined, path.display().to_string(), reason)
            .fix("look into it, report it, then remove the folder")
    }));
    found
}

/// Whether the contents agree with themselves.
fn inside(contents: &Contents) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut holders: BTreeMap<IpAddr, String> = BTreeMap::new();
    for lease in &contents.leases {
        for address in lease.ips() {
            let subject = lease.attachment.to_string();
            if let Some(other) = holders.insert(address, subject.clone()) {
                let problem = format!("leased to {other} as well");
                let finding = Finding::new(Severity::Error, Kind::Duplicate, subject, problem).at(address);
                found.push(finding.fix("end the one whose pod is gone: ipam show, then ipam release --container"));
            }
        }
    }
    for rest in contents.released.iter().filter(|rest| holders.contains_key(&rest.address)) {
        let subject = holders.get(&rest.address).cloned().unwrap_or_default();
        let finding = Finding::new(Severity::Error, Kind::IndexMismatch, subject, "is leased and counts as released");
        found.push(
            finding.at(rest.address).fix("report it; a new ledger comes from: ipam export, then ipam import --replace"),
        );
    }
    found
}

/// Whether the copies say what the leases say.
fn copies(ledger: &Ledger, view: &View) -> Vec<Finding> {
    if view.contents.is_none() {
        return Vec::new();
    }
    let Some(copies) = ledger.leases_in_copies() else {
        let unsettled = ledger.dir().join("unsettled");
        let is_broken_off = unsettled.exists();
        let finding = Finding::new(
            Severity::Warning,
            Kind::Unsettled,
            unsettled.display().to_string(),
            "a change is under way, or was broken off",
        );
        return is_broken_off.then(|| finding.fix("none needed: the next change settles it")).into_iter().collect();
    };
    let differs = |lease: &&crate::Record| !copies.contains(lease);
    let missing = view.leases().iter().filter(differs).map(|lease| (lease, "has no copy that says the same"));
    let surplus = copies.iter().filter(|copy| !view.leases().contains(copy)).map(|copy| (copy, "has a copy only"));
    let finding = |(lease, problem): (&crate::Record, &str)| {
        Finding::new(Severity::Warning, Kind::CopyDiffers, lease.attachment.to_string(), problem)
            .fix("look again: a change may have been under way")
    };
    missing.chain(surplus).map(finding).collect()
}

/// Releases that wait for the next opener.
pub(super) fn pending(ledger: &Ledger) -> Vec<Finding> {
    let finding = |(path, attachment): (PathBuf, Option<Attachment>)| {
        let subject = path.display().to_string();
        match attachment {
            Some(attachment) => {
                let problem = format!("the release of {attachment} is still to be carried out");
                Finding::new(Severity::Warning, Kind::PendingRelease, subject, problem)
                    .fix("none needed: the next ADD or DEL carries it out")
            }
            None => Finding::new(Severity::Warning, Kind::Garbage, subject, "is no release that can be read")
                .fix("look into it, then remove it"),
        }
    };
    ledger.pending().into_iter().map(finding).collect()
}

fn reservations(ledger: &Ledger, view: &View) -> Vec<Finding> {
    let path = crate::reservations::file(ledger.state_dir()).display().to_string();
    if let Some(error) = view.reservations_error() {
        let problem = format!("{}; no address is leased until it is mended", with_causes(error));
        return vec![Finding::new(Severity::Error, Kind::Garbage, path, problem).fix("ipam repair")];
    }
    let all = view.reservations();
    let pairs =
        all.iter().enumerate().flat_map(|(index, one)| all.iter().skip(index + 1).map(move |other| (one, other)));
    let overlapping = pairs.filter(|(one, other)| Span::of(one.cidr).overlaps(Span::of(other.cidr)));
    overlapping
        .map(|(one, other)| {
            let problem = format!("{} and {} overlap", one.cidr, other.cidr);
            Finding::new(Severity::Warning, Kind::Duplicate, path.clone(), problem)
                .fix(format!("ipam unreserve {}", other.cidr))
        })
        .collect()
}
