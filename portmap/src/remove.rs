//! Taking mappings away: one attachment's (DEL, a failed ADD), or those of all that are gone (GC).

use nft_model::Family;

use crate::error::Error;
use crate::firewall::Firewall;
use crate::forward::Forward;
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

fn in_family(firewall: &mut Firewall, family: Family, stale: &dyn Fn(&str) -> bool) -> Vec<Error> {
    let mut errors = Vec::new();
    match firewall.release(family, stale) {
        Ok(gone) => {
            errors.extend(localhost::withdraw(firewall, &gone).err());
            errors.extend(flows::cut(&Forward::all(&gone)).err());
        }
        Err(error) => errors.push(error),
    }
    errors.extend(firewall.delete_if_empty(family).err());
    errors
}
