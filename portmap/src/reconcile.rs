//! Filling a firewall again that somebody flushed, from the records of the pods that are still there.

use std::collections::BTreeMap;
use std::fmt;

use cni_spec::Attachment;
use cni_spec::error::with_causes;

use crate::config::Config;
use crate::error::Error;
use crate::firewall::{Firewall, Iptables};
use crate::forward::Forward;
use crate::liveness::{Liveness, Sight};
use crate::record::{Record, Records};
use crate::remove::Removed;
use crate::view::View;
use crate::{add, check, firewall, localhost, remove};

/// How often a record is looked at again that changes while its mappings are made.
const ATTEMPTS: u32 = 20;

/// What became of one record.
#[derive(Debug)]
pub struct Outcome {
    /// Whose.
    pub attachment: Attachment,
    /// What was done, or would be.
    pub done: Done,
}

/// What was done for one record, or would be.
#[derive(Debug)]
pub enum Done {
    /// Everything was there.
    Nothing,
    /// So many things were not as they should be; they are now.
    Restored {
        /// As CHECK tells them.
        differences: Vec<String>,
        /// The host ports.
        forwards: Vec<Forward>,
        /// What is still wrong with them, though they are in the firewall, and what else is worth telling.
        remarks: Vec<Error>,
    },
    /// The pod is gone: its record, if there was one, and its mappings went.
    Pruned(Liveness),
    /// It could not be done.
    Failed(Error),
}

/// Goes through all records, the oldest first: each ends as it should be, or as [`Done::Failed`]. So does what is in the
/// firewall, has no record, and belongs to a pod that is gone. Also what could not be read, and remarks
/// ([`Error::is_remark`]). With `dry_run` nothing is changed.
#[must_use]
pub fn all(dry_run: bool) -> (Vec<Outcome>, Vec<Error>) {
    let records = Records::default();
    // Before the records: what has one by then is no concern of this.
    let holders = firewall::holders();
    let (all, mut errors) = records.all();
    let (mut living, mut outcomes, mut sight) = (Vec::new(), Vec::new(), Sight::default());
    // The dead first: their ports may be somebody's by now.
    for record in all {
        let Some(attachment) = record.attachment() else { continue };
        let liveness = Liveness::by(&attachment, Some(&record), &mut sight);
        if !liveness.is_dead() {
            living.push((attachment, record));
            continue;
        }
        let ended = dry_run || {
            let (ended, failed) = end(&records, &attachment, &record);
            errors.extend(failed);
            ended
        };
        // The same attachment, begun anew.
        living.extend(records.read(&attachment).filter(|now| *now != record).map(|now| (attachment.clone(), now)));
        if ended {
            outcomes.push(Outcome { attachment, done: Done::Pruned(liveness) });
        }
    }
    let holders = holders.unwrap_or_else(|error| {
        errors.push(error);
        BTreeMap::new()
    });
    for (attachment, pods) in holders {
        // Whoever was ended above has no record any more either.
        let is_ended = outcomes.iter().any(|outcome| outcome.attachment == attachment);
        if is_ended || !records.has_nothing_of(&attachment) {
            continue;
        }
        let liveness = Liveness::of_holder(&attachment, None, &pods, &mut sight);
        if liveness.is_dead() {
            if !dry_run {
                let mark = attachment.to_string();
                let Removed { remarks, failed } = remove::mappings(&|other| other == mark);
                errors.extend(remarks.into_iter().chain(failed));
                // An ADD that came while they went.
                living.extend(records.read(&attachment).map(|now| (attachment.clone(), now)));
            }
            outcomes.push(Outcome { attachment, done: Done::Pruned(liveness) });
        }
    }
    if !dry_run {
        records.sweep();
    }
    let mut view = View::default();
    for (attachment, record) in living {
        let done = restore(&records, &attachment, record, &mut view, dry_run).unwrap_or_else(Done::Failed);
        outcomes.push(Outcome { attachment, done });
    }
    (outcomes, errors)
}

/// Ends what a pod has that is dead by `judged`. Says whether that still was its record; if not, its DEL or a newer ADD was
/// quicker, and nothing is done. An ADD that comes while the mappings go is seen by its record after that.
pub fn end(records: &Records, attachment: &Attachment, judged: &Record) -> (bool, Vec<Error>) {
    if records.read(attachment).as_ref() != Some(judged) {
        return (false, Vec::new());
    }
    let mut errors: Vec<Error> = records.mark_ending(judged).err().into_iter().collect();
    let mark = attachment.to_string();
    let Removed { remarks, failed } = remove::mappings(&|other| other == mark);
    if failed.is_empty() {
        let removed = records.remove_if_still(judged).and_then(|_| records.unmark(judged));
        errors.extend(removed.err());
    }
    errors.extend(remarks.into_iter().chain(failed));
    (true, errors)
}

/// Makes the firewall as a record wants it, going by what `view` shows of it. A record that went, or was replaced, while that was done has the last word:
/// its DEL or ADD may have looked before the claim.
///
/// # Errors
/// When a port is somebody else's by now, or the kernel refuses.
pub fn restore(
    records: &Records,
    attachment: &Attachment,
    record: Record,
    view: &mut View,
    dry_run: bool,
) -> Result<Done, Error> {
    let mut record = record;
    let mut restored = Done::Nothing;
    for _ in 0..ATTEMPTS {
        let Some(config) = record.request()? else { return Ok(restored) };
        let found = match check::attachment(view, attachment, Some(&config)) {
            Ok(()) => return Ok(restored),
            Err(Error::Differs(differences)) => differences,
            Err(error) => return Err(error),
        };
        let is_shared = found.iter().any(|difference| difference.is_shared);
        let differences = found.iter().map(ToString::to_string).collect();
        let forwards = Forward::of_config(&config);
        if dry_run {
            return Ok(Done::Restored { differences, forwards, remarks: Vec::new() });
        }
        let made = make(&config, &forwards, is_shared.then_some(&*view));
        if is_shared && made.is_ok() {
            // What others have is as it was in the view; what all have in common is not.
            *view = View::default();
        }
        match records.read(attachment) {
            Some(now) if now == record && !records.is_ending(&now) => {
                return made.map(|remarks| Done::Restored { differences, forwards, remarks });
            }
            Some(now) if !records.is_ending(&now) => {
                record = now;
                *view = View::default();
                restored = Done::Restored { differences, forwards, remarks: made? };
            }
            // Whoever ends it may have looked before the claim. Of chains that stay, the next DEL or GC tells.
            Some(_) | None => {
                let mark = attachment.to_string();
                let Removed { failed, .. } = remove::mappings(&|other| other == mark);
                return Error::all_of(failed).map(|()| Done::Nothing);
            }
        }
    }
    Ok(restored)
}

/// Claims what is not there. Unlike an ADD it gives nothing back when something fails: what the pod had before, and what
/// could be made, is better than nothing. But a port that is somebody else's by now is given back, with all others: of a
/// pod that had nothing any more. `shared` showed that what all mappings have in common is not as it should be.
fn make(config: &Config, forwards: &[Forward], shared: Option<&View>) -> Result<Vec<Error>, Error> {
    let mut firewall = Firewall::of(&config.settings)?;
    if let Some(view) = shared {
        firewall.repair(config, view)?;
    }
    let had = add::knows(&config.owner)?;
    let (mut claimed, dead) = add::claim(&mut firewall, config)?;
    // Whoever claimed at the same instant in another backend may not have seen this.
    let is_held = |error: &Error| matches!(error, Error::Held { .. });
    if let Some(held) = claimed.errors.iter().position(is_held).filter(|_| !had) {
        let mark = config.owner.comment();
        let failure = claimed.errors.swap_remove(held);
        let undo = remove::mappings(&|other| other == mark).failed;
        add::bury(dead);
        return Err(if undo.is_empty() { failure } else { Error::Undo { failure: Box::new(failure), undo } });
    }
    let mut remarks: Vec<Error> =
        localhost::withdraw(&claimed.lost, &|_| false, &Iptables::default()).err().into_iter().collect();
    remarks.extend(localhost::allow(config).err());
    remarks.extend(std::mem::take(&mut claimed.remarks));
    remarks.extend(std::mem::take(&mut claimed.errors));
    remarks.extend(add::settle(config, &claimed, forwards));
    add::bury(dead);
    Ok(remarks)
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.attachment)?;
        match &self.done {
            Done::Nothing => f.write_str("as it should be"),
            Done::Restored { differences, forwards, remarks } => {
                let forwards: Vec<String> = forwards.iter().map(ToString::to_string).collect();
                write!(f, "restored {} ({} differences)", forwards.join(", "), differences.len())?;
                remarks.iter().try_for_each(|remark| write!(f, ", but {}", with_causes(remark)))
            }
            Done::Pruned(liveness) => write!(f, "removed: {liveness}"),
            Done::Failed(error) => write!(f, "failed: {}", with_causes(error)),
        }
    }
}
