//! Taking mappings away: one attachment's (DEL, a failed ADD), or those of all that are gone (GC).

use nft_model::Family;

use crate::error::Error;
use crate::firewall::Firewall;
use crate::forward::Forward;
use crate::ruleset::{Entry, HAIRPIN};
use crate::{flows, localhost};

/// Removes every element whose comment `stale` says yes to, with the flows through it, and each table that nobody has
/// an element in any more.
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

/// Takes the way back from the pods to 127.0.0.1 away.
fn close(firewall: &mut Firewall, family: Family, stale: &dyn Fn(&str) -> bool) -> Result<(), Error> {
    let elements = firewall.elements(family, HAIRPIN)?.into_iter();
    let own = elements.filter(|element| element.comment.as_deref().is_some_and(stale));
    let own: Vec<Entry> = own.map(|element| Entry { set: HAIRPIN, element }).collect();
    localhost::withdraw(firewall, &own, stale)
}

fn in_family(firewall: &mut Firewall, family: Family, stale: &dyn Fn(&str) -> bool) -> Vec<Error> {
    let mut errors = Vec::new();
    // The elements are all that tells which interfaces are open, and the guard of those goes with the last of them.
    errors.extend(close(firewall, family, stale).err());
    match firewall.release(family, stale) {
        Ok(gone) => errors.extend(flows::cut(&Forward::all(&gone)).err()),
        Err(error) => errors.push(error),
    }
    errors.extend(firewall.delete_if_empty(family).err());
    errors
}
