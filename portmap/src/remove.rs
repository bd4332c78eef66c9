//! Taking mappings away: one attachment's (DEL, a failed ADD), or those of all that are gone (GC).

use cni_spec::Attachment;
use nft_model::Family;

use crate::config::Config;
use crate::error::Error;
use crate::firewall::{Firewall, Iptables};
use crate::forward::Forward;
use crate::owner::Owner;
use crate::record::Record;
use crate::ruleset::Entry;
use crate::{flows, localhost};

/// What came of taking mappings away.
#[derive(Debug, Default)]
pub struct Removed {
    /// What is worth telling though nothing of the mappings stays for it, as [`Error::is_remark`] says.
    pub remarks: Vec<Error>,
    /// What failed, so that something of them may be left.
    pub failed: Vec<Error>,
}

impl From<Vec<Error>> for Removed {
    fn from(errors: Vec<Error>) -> Self {
        let (remarks, failed) = errors.into_iter().partition(Error::is_remark);
        Self { remarks, failed }
    }
}

/// Removes every element whose comment `stale` says yes to, with the flows through it, and each table that nobody has
/// an element in any more. Before that, interfaces are closed that were open to answers to the loopback for their sake: a
/// process that is killed in between leaves nothing open without its guard.
/// Goes on after a failure: what one family cannot give back must not keep the other one.
#[must_use]
pub fn mappings(stale: &dyn Fn(&str) -> bool) -> Removed {
    wherever(stale, None, &mut |_| true)
}

/// The same of one attachment, which has a record or not. Most pods have none and never had a host port: they do not wait
/// until everybody's elements are read. Either sign is enough, as either may be lost: who has elements is also on the
/// list of owners, which one question is enough for.
#[must_use]
pub fn of_attachment(attachment: &Attachment, is_recorded: bool, record: Option<&Record>) -> Removed {
    let planned = record.and_then(Record::planned);
    let mark = attachment.to_string();
    let owner = Owner::new(attachment);
    wherever(&|other| other == mark, planned.as_ref(), &mut |firewall| {
        let mut may_have = |family| owner.as_ref().map_or(Ok(true), |owner| firewall.may_have(owner, family));
        is_recorded || Family::ALL.into_iter().any(|family| may_have(family).unwrap_or(true))
    })
}

/// Goes through all backends for which `wanted` says yes; `planned` is all that there is to remove, where that is known.
fn wherever(
    stale: &dyn Fn(&str) -> bool,
    planned: Option<&Config>,
    wanted: &mut dyn FnMut(&mut Firewall) -> bool,
) -> Removed {
    let mut errors = Vec::new();
    for firewall in Firewall::all() {
        match firewall {
            Ok(mut firewall) => {
                let families = if wanted(&mut firewall) { &Family::ALL[..] } else { &[] };
                errors.extend(families.iter().flat_map(|family| in_family(&mut firewall, *family, stale, planned)));
            }
            Err(error) => errors.push(error),
        }
    }
    errors.into()
}

fn in_family(
    firewall: &mut Firewall,
    family: Family,
    stale: &dyn Fn(&str) -> bool,
    planned: Option<&Config>,
) -> Vec<Error> {
    let mut errors = Vec::new();
    let mut closed = true;
    let mut close = |going: &[Entry], iptables: &Iptables| {
        let withdrawn =
            localhost::withdraw(going, stale, iptables).and_then(|()| localhost::close_rest(stale, iptables));
        closed &= withdrawn.is_ok();
        errors.extend(withdrawn.err());
        closed
    };
    let (gone, failed) = match planned {
        Some(config) => firewall.release_planned(config, family, &mut close),
        None => firewall.release(family, stale, &mut close),
    };
    let released = failed.is_empty();
    // What keeps neighbours out of an interface stays as long as it is open. What could not be released keeps it, too.
    let deleted = if released { firewall.delete_if_empty(family, &mut close) } else { Vec::new() };
    errors.extend(failed);
    errors.extend(flows::cut(&Forward::all(&gone)).err());
    errors.extend(deleted);
    errors
}
