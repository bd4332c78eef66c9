//! Requests that come in another order than they were made, as at an owner that was stopped for a while.

use super::*;
use crate::lease::Netns;
use crate::operation::{Terms, Wish};
use crate::pool::{Pool, Range};
use crate::record::Pod;

mod cost;

fn container() -> Attachment {
    "n c eth0".parse().unwrap()
}

fn add(ledger: &Ledger, began: u64) -> Result<Answer, Error> {
    ledger.ask(Cause::of_this_process("ADD"), wish(began))
}

fn wish(began: u64) -> Operation {
    wish_in("/nonexistent", began)
}

fn wish_in(netns: &str, began: u64) -> Operation {
    wish_of(Netns { path: netns.into(), id: None }, began)
}

fn wish_of(netns: Netns, began: u64) -> Operation {
    let pool = Pool::new(vec![Range::whole("10.0.0.0/28".parse().unwrap())], &[]);
    let wish = Wish {
        attachment: container(),
        lease_id: LeaseId(format!("of {began}")),
        netns,
        pod: Pod::default(),
        terms: Terms { network: "n".parse().unwrap(), pools: vec![pool], cooldown: 0, strict: false },
        wanted: vec![None],
        sticky: false,
        began,
    };
    Operation::Lease(Box::new(wish))
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

/// Its container was deleted, and is there again under the same name: podman's keep their ids.
#[test]
fn an_add_that_has_waited_takes_no_newer_lease_away() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::at(dir.path());
    let now = Moment::now().unwrap().boottime;
    let add = |netns, began| ledger.ask(Cause::of_this_process("ADD"), wish_in(netns, began));
    assert_eq!(del(&ledger, now - 1), Released::Nothing);
    let Ok(Answer::Leased(newer)) = add("/again", now) else { panic!() };
    assert!(matches!(add("/before", now - 2), Err(Error::Deleted { .. })));
    assert_eq!(ledger.leases("test").unwrap().unwrap(), [*newer]);
    let Ok(Answer::Leased(replaced)) = add("/after", now + 1) else { panic!() };
    assert_eq!(ledger.leases("test").unwrap().unwrap(), [*replaced], "a younger one does");
}

/// A container that stays, and whose network was left and joined again: the release in between comes last.
#[test]
fn a_release_does_not_mean_a_lease_that_was_asked_for_again_since() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::at(dir.path());
    let now = Moment::now().unwrap().boottime;
    let leased = |began| match add(&ledger, began).unwrap() {
        Answer::Leased(record) => record.lease_id,
        other => panic!("{other:?}"),
    };
    let first = leased(now - 10);
    assert_eq!([leased(now), leased(now - 8)], [first.clone(), first]);
    assert_eq!(del(&ledger, now - 5), Released::Nothing);
    let standing = ledger.leases("test").unwrap().unwrap();
    assert_eq!(standing, ledger.leases_in_copies().unwrap());
    assert_eq!(standing.len(), 1);
    let history = std::fs::read_to_string(dir.path().join("history.jsonl")).unwrap();
    assert_eq!(history.lines().count(), 1, "{history}");
    assert!(matches!(del(&ledger, now), Released::Lease(_)));
}

/// Who looks whether the pod is there looks where it is now: at the old path, which is gone, it would count as gone.
#[test]
fn a_lease_that_is_asked_for_again_says_where_its_namespace_is_now() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::at(dir.path());
    let id = Some(crate::NetnsId { device: 4, inode: 5, seen_from: None });
    let netns_after = |path: &str, began| {
        let netns = Netns { path: path.into(), id };
        ledger.ask(Cause::of_this_process("ADD"), wish_of(netns, began)).unwrap();
        let leases = ledger.leases("test").unwrap().unwrap();
        assert_eq!(leases, ledger.leases_in_copies().unwrap());
        let [lease] = &leases[..] else { panic!("{leases:?}") };
        lease.netns.clone()
    };
    let at = |path: &str| Some(Netns { path: path.into(), id });
    assert_eq!(netns_after("/before", 1), at("/before"));
    assert_eq!(netns_after("/moved", 2), at("/moved"));
    let known = ledger.leases("test").unwrap().unwrap().remove(0);
    let end = vec![LeaseName::of(&known)];
    let unknown =
        Record { lease_id: LeaseId("imported".into()), netns: None, origin: crate::Origin::Imported, ..known };
    let replace = Operation::Replace { end, begin: vec![unknown] };
    ledger.ask(Cause::of_this_process("ipam import"), replace).unwrap();
    assert_eq!(netns_after("/told", 3), at("/told"));
}

/// Nor does a list of what is there that is older than the later ADD's turn, and younger than the lease.
#[test]
fn gc_does_not_mean_a_lease_that_was_asked_for_again_since() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::at(dir.path());
    add(&ledger, 1).unwrap();
    let listed = Moment::now().unwrap().boottime;
    add(&ledger, listed + 1).unwrap();
    let collect = |asked| {
        let operation = Operation::Gc { network: "n".parse().unwrap(), valid: Vec::new() };
        ledger.ask_at(asked, Cause::of_this_process("GC"), operation).unwrap()
    };
    assert_eq!(collect(listed), Answer::Collected(0));
    let listed = Moment::now().unwrap().boottime.max(listed + 2);
    while Moment::now().unwrap().boottime <= listed {
        std::thread::yield_now();
    }
    let before = ledger.leases("test").unwrap().unwrap();
    add(&ledger, listed).unwrap();
    assert_ne!(ledger.leases("test").unwrap().unwrap(), before, "it has waited for the ledger while the list was made");
    assert_eq!(collect(listed), Answer::Collected(0));
    assert_eq!(collect(Moment::now().unwrap().boottime), Answer::Collected(1));
}

/// Its ADD may have waited for long: what was deleted after it was asked for, and before its turn, was deleted.
#[test]
fn an_imported_lease_that_was_asked_for_again_is_as_any_other() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::at(dir.path());
    let now = Moment::now().unwrap().boottime;
    let Answer::Leased(record) = add(&ledger, now - 10).unwrap() else { panic!() };
    let imported = |began| Record { origin: crate::Origin::Imported, began_boottime_ms: began, ..(*record).clone() };
    assert!(imported(Some(now - 10)).was_ended_by_a_release_of(now - 10));
    assert!(!imported(Some(now - 10)).was_ended_by_a_release_of(now - 11));
    assert!(!imported(Some(0)).was_ended_by_a_release_of(now - 10), "it was there later");
}

/// As of an export that is older than a DEL, or while somebody is asked whether to take over from host-local.
#[test]
fn what_was_deleted_since_is_not_put_in() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::at(dir.path());
    let now = Moment::now().unwrap().boottime;
    let Answer::Leased(record) = add(&ledger, now - 20).unwrap() else { panic!() };
    assert!(matches!(del(&ledger, now - 10), Released::Lease(_)));
    let put_in = |record: &Record| {
        let operation = Operation::Replace { end: Vec::new(), begin: vec![record.clone()] };
        ledger.ask(Cause::of_this_process("ipam import"), operation)
    };
    let imported = |known| Record {
        origin: crate::Origin::Imported,
        created_boottime_ms: known,
        began_boottime_ms: Some(0),
        ..(*record).clone()
    };
    for gone in [(*record).clone(), imported(now - 11), imported(now - 10)] {
        assert!(matches!(put_in(&gone), Err(Error::Changed { .. })), "{gone:?}");
    }
    assert_eq!(ledger.leases("test").unwrap().unwrap(), []);
    let back = imported(now - 9);
    put_in(&back).unwrap();
    assert_eq!(ledger.leases("test").unwrap().unwrap(), [back]);
}

/// Only a DEL is remembered, and of a lease that was read off the kernel its link says more.
#[test]
fn what_no_release_was_about_is_put_in_again() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::at(dir.path());
    let now = Moment::now().unwrap().boottime;
    let Answer::Leased(record) = add(&ledger, now - 20).unwrap() else { panic!() };
    let put_in = |record: &Record| {
        let operation = Operation::Replace { end: Vec::new(), begin: vec![record.clone()] };
        ledger.ask(Cause::of_this_process("ipam import"), operation).unwrap();
        assert_eq!(ledger.leases("test").unwrap().unwrap(), std::slice::from_ref(record));
    };
    let (attachment, lease_id, began) = (&record.attachment, &record.lease_id, record.began());
    let ending = Ending { attachment, lease_id, began, rests: true, in_use: &[], why: EventKind::Released };
    assert!(matches!(ledger.end(Cause::of_this_process("ipam gc"), &ending).unwrap(), Released::Lease(_)));
    put_in(&record);
    assert!(matches!(del(&ledger, now), Released::Lease(_)));
    put_in(&Record { origin: crate::Origin::Recovered, created_boottime_ms: 0, began_boottime_ms: None, ..*record });
}

/// As by `ipam release`, whose user was asked while the container came back.
#[test]
fn what_is_ended_by_name_is_no_later_lease() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::at(dir.path());
    let now = Moment::now().unwrap().boottime;
    let add = |netns, began| ledger.ask(Cause::of_this_process("ADD"), wish_in(netns, began));
    let Ok(Answer::Leased(before)) = add("/before", now - 1) else { panic!() };
    let Ok(Answer::Leased(again)) = add("/again", now) else { panic!() };
    let end = |lease: &Record| {
        let (attachment, lease_id, began, why) = (&container(), &lease.lease_id, lease.began(), EventKind::Released);
        let ending = Ending { attachment, lease_id, began, rests: true, in_use: &[], why };
        ledger.end(Cause::of_this_process("ipam release"), &ending).unwrap()
    };
    assert_eq!(end(&before), Released::Nothing);
    assert_eq!(ledger.leases("test").unwrap().unwrap(), [(*again).clone()]);
    let Ok(Answer::Leased(retold)) = add("/again", now + 1) else { panic!() };
    assert_eq!(retold.lease_id, again.lease_id);
    assert_eq!(end(&again), Released::Nothing, "its pod has asked for it since");
    assert!(matches!(end(&retold), Released::Lease(_)));
}

/// As by `ipam import --replace`, whose plan may wait for a yes for as long as somebody likes.
#[test]
fn what_a_plan_is_to_replace_is_no_lease_that_was_asked_for_again_since() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::at(dir.path());
    let now = Moment::now().unwrap().boottime;
    let leased = |began| match add(&ledger, began).unwrap() {
        Answer::Leased(record) => *record,
        other => panic!("{other:?}"),
    };
    let seen = leased(now - 10);
    let other =
        Record { lease_id: LeaseId("other".into()), attachment: "n other eth0".parse().unwrap(), ..seen.clone() };
    let replace = |seen: &Record| {
        let operation = Operation::Replace { end: vec![LeaseName::of(seen)], begin: vec![other.clone()] };
        ledger.ask(Cause::of_this_process("ipam import"), operation)
    };
    let again = leased(now);
    assert_eq!(again.lease_id, seen.lease_id);
    let refused = replace(&seen);
    assert!(matches!(&refused, Err(Error::Changed { attachment }) if *attachment == container()), "{refused:?}");
    assert_eq!(ledger.leases("test").unwrap().unwrap(), std::slice::from_ref(&again), "all of it or nothing");
    replace(&again).unwrap();
    // Whoever lost the answer asks once more.
    replace(&again).unwrap();
    assert_eq!(ledger.leases("test").unwrap().unwrap(), [other]);
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

/// Nobody carries out what a killed DEL has not finished writing, though it may be whole.
#[test]
fn an_unfinished_release_does_not_wait_and_goes_when_it_is_old() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::at(dir.path());
    let now = Moment::now().unwrap();
    add(&ledger, now.boottime).unwrap();
    ledger.spool(&container(), None, now, Error::Answer).unwrap();
    let [(whole, Some(_))] = &ledger.pending()[..] else { panic!("{:?}", ledger.pending()) };
    let unfinished = whole.with_extension("1.unfinished");
    std::fs::rename(whole, &unfinished).unwrap();
    let visit = || assert!(ledger.release(&"n other eth0".parse().unwrap()).is_ok());
    visit();
    assert!(unfinished.exists(), "somebody may be writing it");
    assert_eq!(ledger.pending(), []);
    assert_eq!(ledger.leases("test").unwrap().unwrap().len(), 1);
    let file = std::fs::File::options().write(true).open(&unfinished).unwrap();
    file.set_modified(std::time::SystemTime::now() - Duration::from_secs(2 * 60 * 60)).unwrap();
    visit();
    assert!(!unfinished.exists());
    assert_eq!(ledger.leases("test").unwrap().unwrap().len(), 1);
}

#[test]
fn a_release_that_cannot_be_written_down_leaves_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let pending = spool::Pending::new(&container(), None, Moment::now().unwrap(), &clock::boot_id().unwrap());
    let path = pending.path_beside(dir.path());
    std::fs::create_dir_all(&path).unwrap();
    assert!(pending.write_beside(dir.path()).is_err(), "no file replaces a folder");
    let left = std::fs::read_dir(path.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path());
    assert_eq!(left.collect::<Vec<_>>(), [path]);
}

/// A plan is made from what is seen, and must come to the same as when it is carried out.
#[test]
fn what_is_written_down_to_be_deleted_counts_as_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::at(dir.path());
    let now = Moment::now().unwrap();
    let seen = || ledger.contents("test").unwrap().unwrap();
    add(&ledger, now.boottime - 20).unwrap();
    for age in [9, 10, 21] {
        let asked = Moment { boottime: now.boottime - age, ..now };
        ledger.spool(&container(), None, asked, Error::Answer).unwrap();
    }
    let before = seen();
    assert_eq!(before.leases, []);
    let [tombstone] = &before.tombstones[..] else { panic!("{before:?}") };
    assert_eq!((&tombstone.attachment, tombstone.deleted_boottime_ms), (&container(), now.boottime - 9));
    assert!(ledger.release(&"n other eth0".parse().unwrap()).is_ok());
    let mut after = seen().tombstones;
    after.retain(|it| it.attachment == container());
    assert_eq!(after, before.tombstones);
}

/// Whoever carries releases out removes their files when that is done: not those that have been written meanwhile.
#[test]
fn a_later_release_is_written_down_beside_an_earlier_one() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::at(dir.path());
    let now = Moment::now().unwrap();
    add(&ledger, now.boottime - 20).unwrap();
    for age in [10, 9, 9] {
        let asked = Moment { boottime: now.boottime - age, ..now };
        ledger.spool(&container(), None, asked, Error::Answer).unwrap();
    }
    assert_eq!(ledger.pending().len(), 2);
    assert_eq!(ledger.leases_in_copies().unwrap(), []);
    assert!(ledger.release(&"n other eth0".parse().unwrap()).is_ok());
    assert_eq!(ledger.pending(), []);
    let history = std::fs::read_to_string(dir.path().join("history.jsonl")).unwrap();
    assert_eq!(history.lines().count(), 2, "it has begun and ended, once each: {history}");
}

/// Bytes that the files of the database take up.
fn size(ledger: &Ledger) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let files = std::fs::read_dir(ledger.database()).unwrap().map(|entry| entry.unwrap());
    files.map(|entry| entry.metadata().unwrap().blocks() * 512).sum()
}

/// The engine writes a log, which an owner that stays for months must not let grow: it is on a tmpfs.
#[test]
fn the_database_stays_small_through_a_long_life() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::at(dir.path());
    let mut slot = Slot::Kept(None);
    let mut largest = 0;
    // More than enough for the log to begin again where it was.
    for round in 0..2_500 {
        let asked = Moment::now().unwrap().boottime;
        for operation in [wish(asked), Operation::Release(container())] {
            let by = Cause::of_this_process("test");
            ledger.visit(&mut slot, &ledger.request(by, (asked, u64::MAX), operation).unwrap()).unwrap();
        }
        if round % 50 == 0 {
            largest = largest.max(size(&ledger));
        }
    }
    assert!(largest < 6 << 20, "{largest} bytes");
}
