//! Carrying operations out: the one place for it, whoever holds the database open.

use std::collections::BTreeSet;
use std::net::IpAddr;

use cni_spec::{Attachment, NetworkName};

use crate::event::EventKind;
use crate::leasing::{self, refuse_repeated};
use crate::ledger::{Failure, Session};
use crate::operation::{Answer, Contents, LeaseName, Operation, Request};
use crate::record::Record;
use crate::refusal::Claim;
use crate::sticky::{Sticky, StickyPod};
use crate::store::{Change, Ended};
use crate::{Error, Released};

/// How long to remember that an attachment was deleted, in milliseconds: longer than any runtime lets an
/// ADD run.
const TOMBSTONE_LIFE: u64 = 10 * 60 * 1000;

/// Carries an operation out on the open database.
pub(crate) fn carry_out(session: &Session<'_>, request: &Request) -> Result<Answer, Failure> {
    match &request.operation {
        Operation::Lease(wish) => leasing::lease(session, wish).map(|record| Answer::Leased(Box::new(record))),
        Operation::Release(attachment) => release(session, attachment, request.asked).map(Answer::Released),
        Operation::End { name, rests, in_use, why } => end(session, name, *rests, in_use, *why).map(Answer::Released),
        Operation::Replace { end, begin } => replace(session, end, begin).map(|()| Answer::Done),
        Operation::Check { attachment, ips } => check(session, attachment, ips).map(|()| Answer::Done),
        Operation::Gc { network, valid } => gc(session, network, valid, request.asked).map(Answer::Collected),
        Operation::Status(terms) => leasing::available(session, terms).map(|()| Answer::Done),
        Operation::Look => contents(session).map(|contents| Answer::Contents(Box::new(contents))),
        Operation::Examine { .. } => {
            let contents = contents(session)?;
            session.store.compare_index(&contents.leases)?;
            Ok(Answer::Contents(Box::new(contents)))
        }
    }
}

/// Remembers, too, that the attachment was deleted, whether it is known or not: an ADD that the runtime has given up may
/// be waiting for the ledger still, also the second one of a container that has a lease, and must not lease what nobody
/// will release.
fn release(session: &Session<'_>, attachment: &Attachment, asked: u64) -> Result<Released, Failure> {
    let record = session.store.lease(attachment)?;
    // The container has come back since, under the same name.
    if record.as_ref().is_some_and(|record| !record.is_meant_by_a_release_of(asked)) {
        return Ok(Released::Nothing);
    }
    let released = record.as_ref().map_or(Released::Nothing, |record| Released::Lease(record.ips().collect()));
    let released_at = session.now.boottime;
    let change = Change {
        ended: record.into_iter().map(|record| Ended { record, released_at }).collect(),
        tombstones: vec![(attachment.clone(), asked)],
        levelled: session.store.tombstones_before(session.now.boottime.saturating_sub(TOMBSTONE_LIFE))?,
        ..Change::default()
    };
    session.commit(&change, EventKind::Released)?;
    Ok(released)
}

/// A lease that a later request was answered with as well is that one's.
fn end(
    session: &Session<'_>,
    name: &LeaseName,
    rests: bool,
    in_use: &[IpAddr],
    why: EventKind,
) -> Result<Released, Failure> {
    let Some(record) = session.store.lease(&name.attachment)?.filter(|standing| name.means(standing)) else {
        return Ok(Released::Nothing);
    };
    let addresses = record.ips().collect();
    let sticky = kept_without(session, &record, in_use)?;
    let released_at = if rests { session.now.boottime } else { 0 };
    let change = Change {
        ended: vec![Ended { record, released_at }],
        sticky: sticky.into_iter().collect(),
        ..Change::default()
    };
    session.commit(&change, why)?;
    Ok(Released::Lease(addresses))
}

/// What is kept for the lease's pod besides these addresses, if any of them is: it would get them again each time.
fn kept_without(session: &Session<'_>, record: &Record, in_use: &[IpAddr]) -> Result<Option<Sticky>, Failure> {
    let Some(pod) = StickyPod::of(&record.attachment, &record.pod) else { return Ok(None) };
    let Some(mut sticky) = session.store.sticky(&pod)? else { return Ok(None) };
    let before = sticky.addresses.len();
    sticky.addresses.retain(|kept| !in_use.contains(kept));
    Ok((sticky.addresses.len() < before).then_some(sticky))
}

/// What has been done already counts as done: the asker may have asked before, and lost the answer.
fn replace(session: &Session<'_>, end: &[LeaseName], begin: &[Record]) -> Result<(), Failure> {
    refuse_repeated(begin)?;
    let mut ended = Vec::new();
    for name in end {
        let Some(record) = session.store.lease(&name.attachment)? else { continue };
        if name.means(&record) {
            ended.push(Ended { record, released_at: session.now.boottime });
        } else if !begin.iter().any(|new| new.lease_id == record.lease_id) {
            return Err(Error::Changed { attachment: name.attachment.clone() }.into());
        }
    }
    let mut begun = Vec::new();
    for record in begin {
        if session.store.lease(&record.attachment)?.is_some_and(|held| held.lease_id == record.lease_id) {
            continue;
        }
        // While somebody looked at what is to come of it.
        let deleted = session.store.tombstone(&record.attachment)?;
        if deleted.is_some_and(|asked| record.was_ended_by_a_release_of(asked)) {
            return Err(Error::Changed { attachment: record.attachment.clone() }.into());
        }
        if let Some((address, held)) = in_the_way(session, record, &ended)? {
            let holder = Box::new(Claim { attachment: held.attachment, pod: held.pod });
            return Err(Error::Taken { address, holder }.into());
        }
        begun.push(record.clone());
    }
    session.commit(&Change { ended, begun, ..Change::default() }, EventKind::Released)
}

/// The lease that stays and has the attachment, or an address, of a new one.
fn in_the_way(session: &Session<'_>, record: &Record, ended: &[Ended]) -> Result<Option<(IpAddr, Record)>, Failure> {
    let stays = |held: &Record| !ended.iter().any(|ended| ended.record.lease_id == held.lease_id);
    for address in record.ips() {
        let same = session.store.lease(&record.attachment)?;
        for held in [same, session.store.holder(address)?].into_iter().flatten() {
            if stays(&held) {
                return Ok(Some((address, held)));
            }
        }
    }
    Ok(None)
}

fn check(session: &Session<'_>, attachment: &Attachment, ips: &[IpAddr]) -> Result<(), Failure> {
    let Some(record) = session.store.lease(attachment)? else {
        return Err(Error::NoLease { attachment: attachment.clone() }.into());
    };
    record.ips().try_for_each(|address| check_address(session, attachment, ips, address))
}

fn check_address(
    session: &Session<'_>,
    attachment: &Attachment,
    ips: &[IpAddr],
    address: IpAddr,
) -> Result<(), Failure> {
    if !ips.contains(&address) {
        return Err(Error::NotInResult { attachment: attachment.clone(), address }.into());
    }
    let holder = session.store.holder(address)?.map(|record| record.attachment);
    if holder.as_ref() == Some(attachment) {
        return Ok(());
    }
    let holder = holder.map_or_else(|| "nobody".to_owned(), |holder| holder.to_string());
    Err(Error::Misindexed { attachment: attachment.clone(), address, holder }.into())
}

fn gc(session: &Session<'_>, network: &NetworkName, valid: &[Attachment], asked: u64) -> Result<usize, Failure> {
    let valid: BTreeSet<&Attachment> = valid.iter().collect();
    let mut ended = Vec::new();
    for record in session.store.leases_of(network) {
        let record = record?;
        if !valid.contains(&record.attachment) && record.stood_at() <= asked {
            ended.push(Ended { record, released_at: session.now.boottime });
        }
    }
    let change = Change { ended, ..Change::default() };
    session.commit(&change, EventKind::Collected)?;
    Ok(change.ended.len())
}

fn contents(session: &Session<'_>) -> Result<Contents, Failure> {
    let store = session.store;
    Ok(Contents {
        now_boottime_ms: session.now.boottime,
        generation: store.generation()?,
        leases: store.leases().collect::<Result<_, _>>()?,
        released: store.releases()?,
        tombstones: store.tombstones()?,
        pools: store.known_pools()?,
    })
}
