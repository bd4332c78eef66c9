//! Taking mappings away: one attachment's (DEL, a failed ADD), or those of all that are gone (GC).

use nft_model::Family;

use crate::error::Error;
use crate::firewall::Firewall;
use crate::forward::Forward;
use crate::ruleset::Entry;
use crate::{flows, localhost};

/// Removes every element whose comment `stale` says yes to, with the flows through it, and each table that nobody has
/// an element in any more. Before that, interfaces are closed that were open to answers to the loopback for their sake: a
/// process that is killed in between leaves nothing open without its guard.
/// Goes on after a failure: what one family cannot give back must not keep the other one.
pub fn mappings(stale: &dyn Fn(&str) -> bool) -> Vec<Error> {
    let mut errors = Vec::new();
    for firewall in Firewall::all() {
        match firewall {
            Ok(mut firewall) => {
                errors.extend(Family::ALL.into_iter().flat_map(|family| in_family(&mut firewall, family, stale)));
            }
            Err(error) => errors.push(error),
        }
    }
    errors
}

fn in_family(firewall: &mut Firewall, family: Family, stale: &dyn Fn(&str) -> bool) -> Vec<Error> {
    let mut errors = Vec::new();
    let mut closed = true;
    let mut close = |going: &[Entry]| {
        let withdrawn = localhost::withdraw(going, stale).and_then(|()| localhost::close_rest(stale));
        closed &= withdrawn.is_ok();
        errors.extend(withdrawn.err());
        closed
    };
    let (gone, failed) = firewall.release(family, stale, &mut close);
    let released = failed.is_empty();
    // What keeps neighbours out of an interface stays as long as it is open. What could not be released keeps it, too.
    let deleted = if released { firewall.delete_if_empty(family, &mut close) } else { Ok(()) };
    errors.extend(failed);
    errors.extend(flows::cut(&Forward::all(&gone)).err());
    errors.extend(deleted.err());
    errors
}
