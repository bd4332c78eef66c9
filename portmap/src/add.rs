//! ADD: all host ports of an attachment, or none of them.

use cni_spec::Attachment;
use nft_model::Family;

use crate::config::Config;
use crate::error::Error;
use crate::firewall::Firewall;
use crate::owner::Owner;
use crate::ruleset::Entry;
use crate::{localhost, remove};

/// Maps every host port of `config`.
///
/// # Errors
/// [`Error::Held`] when a port is somebody else's; others when the kernel refuses. Then nothing is mapped.
pub fn mappings(config: &Config) -> Result<(), Error> {
    with_claim(config, |firewall, lost| {
        localhost::withdraw(firewall, lost)?;
        localhost::allow(config)
    })
}

/// Claims every host port of `config` and does `rest`, which is told what an earlier ADD of the attachment had claimed
/// and this one does not. The claim is given back if `rest` fails or panics.
///
/// # Errors
/// Those of [`Firewall::claim`] and of `rest`; [`Error::Undo`] when the claim could not be given back.
pub fn with_claim(
    config: &Config,
    rest: impl FnOnce(&mut Firewall, &[Entry]) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut firewall = Firewall::open()?;
    let undo = Undo(Some(&config.owner));
    let lost = match firewall.claim(config) {
        Ok(lost) => lost,
        // The kernel may have done it, and only its answer got lost.
        Err(failure @ Error::Commit(_)) => return Err(undo.run(failure)),
        Err(failure) => {
            undo.forget();
            return Err(failure);
        }
    };
    match rest(&mut firewall, &lost) {
        Ok(()) => {
            undo.forget();
            Ok(())
        }
        Err(failure) => Err(undo.run(failure)),
    }
}

/// Removes what the attachment has from an ADD whose DEL was lost. An ADD that asks for no host port needs nothing of
/// the firewall, so what goes wrong is no reason to refuse it: it is returned to be told.
pub fn no_mappings(attachment: &Attachment) -> Vec<Error> {
    // What cannot own anything has nothing.
    let Ok(owner) = Owner::new(attachment) else { return Vec::new() };
    let known = Firewall::open().and_then(|mut firewall| {
        let [v4, v6] = Family::ALL.map(|family| firewall.knows(&owner, family));
        Ok(v4? || v6?)
    });
    match known {
        Ok(false) => Vec::new(),
        Ok(true) => remove::mappings(&|comment| comment == owner.comment()),
        Err(error) => vec![error],
    }
}

/// Gives the claim of an owner back. Dropping it is the net for a panic.
struct Undo<'a>(Option<&'a Owner>);

impl Undo<'_> {
    /// The failure, together with what could not be given back.
    fn run(mut self, failure: Error) -> Error {
        let undo = self.give_back();
        if undo.is_empty() { failure } else { Error::Undo { failure: Box::new(failure), undo } }
    }

    /// Nothing is to be given back any more.
    fn forget(mut self) {
        self.0 = None;
    }

    fn give_back(&mut self) -> Vec<Error> {
        let owner = self.0.take();
        owner.map_or_else(Vec::new, |owner| remove::mappings(&|comment| comment == owner.comment()))
    }
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        self.give_back();
    }
}
