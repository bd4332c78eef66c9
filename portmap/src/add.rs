//! ADD: all host ports of an attachment, or none of them.

use cni_spec::Attachment;
use nft_model::Family;

use crate::config::Config;
use crate::error::Error;
use crate::firewall::{Claimed, Firewall, Iptables};
use crate::forward::Forward;
use crate::liveness::{Dead, Liveness, Sight};
use crate::owner::{Holder, Owner};
use crate::policy::{Conflict, HostListeners};
use crate::record::{Record, Records};
use crate::remove::Removed;
use crate::view::View;
use crate::{firewall, flows, listeners, localhost, reconcile, remove};

/// Maps every host port of `config`, whose request is `record`. Returns what went wrong without being a reason to refuse:
/// it is to be told.
///
/// # Errors
/// [`Error::HeldBy`] when a port is somebody else's; others when the kernel refuses. Then nothing is mapped.
pub fn mappings(config: &Config, record: &Record) -> Result<Vec<Error>, Error> {
    let forwards = Forward::of_config(config);
    let mut remarks = heed_listeners(config.policy.host_listeners, &forwards)?;
    let (written, failed) = Written::new(config, record);
    remarks.extend(failed);
    remarks.extend(with_claim(config, |claimed| {
        localhost::withdraw(&claimed.lost, &|_| false, &Iptables::default())?;
        localhost::allow(config)?;
        let settled = settle(config, &claimed, &forwards);
        Ok(claimed.remarks.into_iter().chain(settled))
    })?);
    written.keep();
    Ok(remarks)
}

/// A record that goes again unless it is kept: then what an earlier ADD of the attachment had in the firewall has its
/// record back, if it is still there.
struct Written<'a> {
    config: &'a Config,
    record: &'a Record,
    before: Option<Record>,
    is_kept: bool,
}

impl<'a> Written<'a> {
    /// Writes it. What goes wrong is no reason to refuse the ADD.
    fn new(config: &'a Config, record: &'a Record) -> (Self, Option<Error>) {
        let records = Records::default();
        let own = record.attachment();
        let before = own.as_ref().and_then(|own| records.read(own));
        let failed = records.write(record).err();
        if let Some(own) = own.filter(|_| failed.is_some()) {
            // An older one may be ending, and would let others take what is claimed now.
            let _ = records.remove(&own);
        }
        (Self { config, record, before, is_kept: false }, failed)
    }

    fn keep(mut self) {
        self.is_kept = true;
    }
}

impl Drop for Written<'_> {
    fn drop(&mut self) {
        let Some(own) = self.record.attachment().filter(|_| !self.is_kept) else { return };
        let records = Records::default();
        // Whatever goes wrong here, the failure of the ADD is what has to be told.
        let _ = match (knows(&self.config.owner), self.before.take()) {
            (Ok(false), _) => records.remove(&own),
            (Ok(true) | Err(_), Some(before)) => records.write(&before.once_more()),
            // What could not be given back is nobody's.
            (Ok(true) | Err(_), None) => records.mark_ending(self.record),
        };
    }
}

/// Whether the owner has anything in any backend.
///
/// # Errors
/// When the kernel refuses to tell.
pub fn knows(owner: &Owner) -> Result<bool, Error> {
    for firewall in Firewall::all() {
        let mut firewall = firewall?;
        let [v4, v6] = Family::ALL.map(|family| firewall.knows(owner, family));
        if v4? || v6? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Ends what a claim has made wrong: flows through what was replaced or lost, UDP flows from before, and what else dead
/// holders had.
pub fn settle(config: &Config, claimed: &Claimed, forwards: &[Forward]) -> Vec<Error> {
    let mut errors = Vec::new();
    let gone = [Forward::all(&claimed.lost), Forward::all(&claimed.replaced)].concat();
    // A mapping that leads where it led has no flows to lose.
    let gone: Vec<Forward> = gone.into_iter().filter(|old| !forwards.contains(old)).collect();
    errors.extend(flows::cut(&gone).err());
    errors.extend(flows::refresh(config, forwards).err());
    errors
}

/// What listens on the node's side of the mappings.
fn heed_listeners(policy: HostListeners, forwards: &[Forward]) -> Result<Vec<Error>, Error> {
    let mut remarks = Vec::new();
    if policy == HostListeners::Ignore {
        return Ok(remarks);
    }
    for forward in forwards {
        match listeners::covered(forward) {
            Ok(found) => {
                for listener in found {
                    let (port, listener) = (forward.host(), listeners::describe(&listener));
                    remarks.push(Error::HostListener { port, listener });
                }
            }
            Err(error) => remarks.push(error),
        }
    }
    let refused = |remark: &Error| matches!(remark, Error::HostListener { .. });
    match remarks.iter().position(refused) {
        Some(first) if policy == HostListeners::Refuse => Err(remarks.swap_remove(first)),
        _ => Ok(remarks),
    }
}

/// Claims every host port of `config` and does `rest`, which is told what the claim took away. The claim is given back
/// if `rest` fails or panics.
///
/// # Errors
/// Those of [`Firewall::claim`] and of `rest`; [`Error::Undo`] when the claim could not be given back.
pub fn with_claim<T>(config: &Config, rest: impl FnOnce(Claimed) -> Result<T, Error>) -> Result<T, Error> {
    let mut firewall = Firewall::of(&config.settings)?;
    let undo = Undo(Some(&config.owner));
    let (mut claimed, dead) = match claim(&mut firewall, config) {
        Ok(done) => done,
        // The kernel may have done it, and only its answer got lost.
        Err(failure @ Error::Commit(_)) => return Err(undo.run(failure)),
        Err(failure) => {
            undo.forget();
            return Err(failure);
        }
    };
    if let Err(failure) = Error::all_of(std::mem::take(&mut claimed.errors)) {
        return Err(undo.run(failure));
    }
    let result = rest(claimed);
    match result {
        Ok(done) => {
            undo.forget();
            bury(dead);
            Ok(done)
        }
        Err(failure) => Err(undo.run(failure)),
    }
}

/// Claims, and takes over from holders that are dead. Says who they were.
///
/// # Errors
/// Those of [`Firewall::claim`]; [`Error::HeldBy`] for a port that is somebody else's.
pub fn claim(firewall: &mut Firewall, config: &Config) -> Result<(Claimed, Vec<Dead>), Error> {
    let mut dead: Vec<Dead> = Vec::new();
    loop {
        match firewall.claim(config, &dead) {
            Ok(claimed) => return Ok((claimed, dead)),
            // Begun anew since it was judged; what it has by now is to be judged anew.
            Err(Error::BegunAnew(attachment)) => dead.retain(|dead| dead.attachment != attachment),
            Err(Error::Held { port, holder, target }) => match judge(config.policy.conflict, &dead, &holder) {
                Ok(one) => dead.push(one),
                Err((holder, why)) => {
                    let held = Box::new(Error::Held { port, holder: Box::new(holder), target });
                    return Err(Error::HeldBy { held, why });
                }
            },
            Err(error) => return Err(error),
        }
    }
}

/// The holder, if it may be taken over from; or by name, and why not.
fn judge(conflict: Conflict, dead: &[Dead], holder: &Holder) -> Result<Dead, (Holder, String)> {
    let Holder::Attachment(attachment, _) = holder else {
        return Err((holder.clone(), "no DEL and no GC will end it; see podwire-portmap list".to_owned()));
    };
    let record = Records::default().read(attachment);
    // What cannot be read there is no sign.
    let pods = if record.is_none() { firewall::holders().unwrap_or_default().remove(attachment) } else { None };
    let pods = pods.unwrap_or_default();
    let liveness = Liveness::of_holder(attachment, record.as_ref(), &pods, &mut Sight::default());
    let pod = record.as_ref().and_then(|record| record.pod.text());
    let named = || Holder::Attachment(attachment.clone(), pod);
    match conflict {
        Conflict::TakeOver if liveness.is_dead() && dead.iter().all(|dead| dead.attachment != *attachment) => {
            Ok(Dead { attachment: attachment.clone(), record })
        }
        Conflict::Refuse if liveness.is_dead() => {
            Err((named(), format!("{liveness}; \"conflict\" is \"refuse\", so DEL or GC has to end it")))
        }
        Conflict::TakeOver | Conflict::Refuse => {
            Err((named(), format!("{liveness}; it keeps the port until it is deleted")))
        }
    }
}

/// Ends whatever else dead holders have. Their DEL was lost; what cannot be ended now is left to GC. One that was begun
/// anew meanwhile keeps what it has.
pub fn bury(dead: Vec<Dead>) {
    let records = Records::default();
    for Dead { attachment, record } in dead {
        let mark = attachment.to_string();
        match record {
            Some(judged) => drop(reconcile::end(&records, &attachment, &judged)),
            None => drop(remove::mappings(&|comment| comment == mark)),
        }
        if let Some(now) = records.read(&attachment) {
            // What fails is seen by the next reconcile, too.
            let _ = reconcile::restore(&records, &attachment, now, &mut View::default(), false);
        }
    }
}

/// Removes what the attachment has from an ADD whose DEL was lost. An ADD that asks for no host port needs nothing of
/// the firewall, so what goes wrong is no reason to refuse it: it is returned to be told.
pub fn no_mappings(attachment: &Attachment) -> Vec<Error> {
    // What cannot own anything has nothing.
    let Ok(owner) = Owner::new(attachment) else { return Vec::new() };
    let mut errors: Vec<Error> = Records::default().remove(attachment).err().into_iter().collect();
    match knows(&owner) {
        Ok(false) => {}
        Ok(true) => {
            let Removed { remarks, failed } = remove::mappings(&|comment| comment == owner.comment());
            errors.extend(remarks.into_iter().chain(failed));
        }
        Err(error) => errors.push(error),
    }
    errors
}

/// Gives the claim of an owner back. Dropping it is the net for a panic.
struct Undo<'a>(Option<&'a Owner>);

impl Undo<'_> {
    /// The failure, together with what could not be given back. Of chains that stay, the next DEL or GC tells.
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
        owner.map_or_else(Vec::new, |owner| remove::mappings(&|comment| comment == owner.comment()).failed)
    }
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        self.give_back();
    }
}
