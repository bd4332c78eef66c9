//! Requests that come in another order than they were made, as at an owner that was stopped for a while.

use super::*;
use crate::lease::Netns;
use crate::operation::{Terms, Wish};
use crate::pool::{Pool, Range};
use crate::record::Pod;

fn container() -> Attachment {
    "n c eth0".parse().unwrap()
}

fn add(ledger: &Ledger, began: u64) -> Result<Answer, Error> {
    let pool = Pool::new(vec![Range::whole("10.0.0.0/28".parse().unwrap())], &[]);
    let wish = Wish {
        attachment: container(),
        lease_id: LeaseId(format!("of {began}")),
        netns: Netns { path: "/nonexistent".into(), id: None },
        pod: Pod::default(),
        terms: Terms { network: "n".parse().unwrap(), pools: vec![pool], cooldown: 0, strict: false },
        wanted: vec![None],
        sticky: false,
        began,
    };
    ledger.ask(Cause::of_this_process("ADD"), Operation::Lease(Box::new(wish)))
}

fn del(ledger: &Ledger, asked: u64) -> Released {
    match ledger.ask_at(asked, Cause::of_this_process("DEL"), Operation::Release(container())).unwrap() {
        Answer::Released(released) => released,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_release_means_the_lease_whose_add_is_older_than_itself() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::at(dir.path());
    let now = Moment::now().unwrap().boottime;
    add(&ledger, now).unwrap();
    assert_eq!(del(&ledger, now - 1), Released::Nothing, "it is about a container of that name before");
    assert_eq!(ledger.leases("test").unwrap().unwrap().len(), 1);
    assert!(matches!(del(&ledger, now), Released::Lease(_)));
}

#[test]
fn a_tombstone_bears_the_moment_at_which_the_release_was_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::at(dir.path());
    let now = Moment::now().unwrap().boottime;
    assert_eq!(del(&ledger, now), Released::Nothing);
    assert_eq!(del(&ledger, now - 10), Released::Nothing, "an older one comes late");
    assert!(matches!(add(&ledger, now - 1), Err(Error::Deleted { .. })));
    assert!(matches!(add(&ledger, now), Ok(Answer::Leased(_))));
}

/// An ADD and its DEL wait; the ADD is the first to get the ledger, and the DEL writes its wish down.
#[test]
fn a_release_that_was_written_down_means_the_lease_whose_add_is_older_than_itself() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::at(dir.path());
    let now = Moment::now().unwrap();
    let spooled = |boottime| {
        let asked = Moment { boottime, ..now };
        ledger.spool(&container(), None, asked, Error::Answer).unwrap();
    };
    add(&ledger, now.boottime - 20).unwrap();
    spooled(now.boottime - 21);
    assert!(ledger.release(&"n other eth0".parse().unwrap()).is_ok());
    assert_eq!(ledger.leases("test").unwrap().unwrap().len(), 1);
    spooled(now.boottime - 19);
    assert!(ledger.release(&"n other eth0".parse().unwrap()).is_ok());
    assert_eq!(ledger.leases("test").unwrap().unwrap(), [], "though the lease is younger");
}
