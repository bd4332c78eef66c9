//! A ledger that stays open.

use super::Ledger;
use super::lock::Lock;
use super::session::{Manner, Slot, make_folder};
use crate::clock::Moment;
use crate::event::Cause;
use crate::operation::{Answer, Operation, Request};
use crate::{Error, Namespaces};

/// A ledger whose lock is held and whose database stays open from one operation to the next.
#[derive(Debug)]
pub(crate) struct Resident {
    // Before the lock: whoever gets the lock must find the database closed.
    slot: Slot,
    lock: Lock,
    ledger: Ledger,
    home: Namespaces,
}

impl Resident {
    /// Takes the lock and opens the database, which is made if there is none.
    pub fn open(ledger: &Ledger) -> Result<Self, Error> {
        make_folder(ledger.dir()).map_err(|source| Error::Folder { path: ledger.dir().to_owned(), source })?;
        let lock = Lock::acquire(&ledger.lock_file(), "ipam serve", ledger.lock_timeout(), || false)?;
        let lock = lock.ok_or(Error::Answer)?;
        let home = Namespaces::of_this_thread()?;
        let mut resident = Self { slot: Slot::Kept(None), lock, ledger: ledger.clone(), home };
        let asked = Moment::now()?.boottime;
        let by = Cause::of_this_process("ipam serve");
        resident.carry_out(&ledger.request(by, (asked, u64::MAX), Operation::Examine { mend: true })?)?;
        Ok(resident)
    }

    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Carries an operation out, with history and reservations where the asker's config has them by now.
    ///
    /// For the runtime's plugins, an owner must see what they see: it ends leases of pods that are gone. Where it sees
    /// neither the node's links nor its processes, all pods look gone. Paths are looked up as the asker sees them.
    pub fn carry_out(&mut self, request: &Request) -> Result<Answer, Error> {
        if matches!(request.operation.manner(), Manner::Serve | Manner::Tend)
            && let Some(which @ ("net" | "pid")) = self.home.differs_in(&request.from)
        {
            return Err(Error::Elsewhere { which });
        }
        let ledger = self.ledger.clone().with_state_dir(&request.state_dir);
        ledger.visit(&mut self.slot, request)
    }

    /// Whether the asker has gone away by now, and what it asked for is not to be done without it.
    pub fn is_late(&self, request: &Request) -> bool {
        let now = Moment::now().map_or(u64::MAX, |now| now.boottime);
        request.operation.makes_leases() && now > request.deadline
    }

    /// Whether the ledger is still this one: somebody may have removed its folder, and others made a new one.
    pub fn stands(&self) -> Result<(), Error> {
        if self.lock.is_at(&self.ledger.lock_file()) { Ok(()) } else { Err(Error::Removed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operation::LeaseName;
    use crate::{LeaseRequest, Released, code};

    fn ask(resident: &mut Resident, operation: Operation) -> Result<Answer, Error> {
        let by = Cause::of_this_process("test");
        let request = resident.ledger().request(by, (u64::MAX, u64::MAX), operation)?;
        resident.carry_out(&request)
    }

    /// Whoever lost the answer asks again, and gets the same.
    #[test]
    fn a_replacement_that_is_asked_for_again_is_done_already() {
        let dir = tempfile::tempdir().unwrap();
        let mut resident = Resident::open(&Ledger::at(dir.path())).unwrap();
        let record = |container: &str, address: &str| crate::Record {
            lease_id: crate::LeaseId(format!("lease of {container}")),
            attachment: format!("n {container} eth0").parse().unwrap(),
            addresses: vec![crate::RecordedAddress {
                address: address.parse().unwrap(),
                gateway: None,
                pool: String::new(),
            }],
            netns: None,
            pod: crate::Pod::default(),
            created: jiff::Timestamp::UNIX_EPOCH,
            created_boottime_ms: 1,
            began_boottime_ms: None,
            boot_id: crate::clock::boot_id().unwrap(),
            origin: crate::Origin::Imported,
        };
        let replace = |end: &[&crate::Record], begin: &[&crate::Record]| {
            let name = |it: &&crate::Record| LeaseName::of(it);
            let begin = begin.iter().map(|it| (*it).clone()).collect();
            Operation::Replace { end: end.iter().map(name).collect(), begin }
        };
        let (old, new, other) = (record("a", "10.1.2.2/24"), record("b", "10.1.2.2/24"), record("c", "10.1.2.2/24"));
        for operation in [replace(&[], &[&old]), replace(&[&old], &[&new])] {
            for _ in 0..2 {
                assert!(matches!(ask(&mut resident, operation.clone()), Ok(Answer::Done)), "{operation:?}");
            }
        }
        let taken = ask(&mut resident, replace(&[&old], &[&other])).unwrap_err();
        assert!(matches!(taken, Error::Taken { .. }), "{taken}");
        let twice = crate::Record { addresses: [&new, &new].map(|it| it.addresses[0].clone()).into(), ..other.clone() };
        for repeated in [vec![&twice], vec![&other, &other]] {
            let refused = ask(&mut resident, replace(&[&new], &repeated)).unwrap_err();
            assert!(matches!(refused, Error::Repeated { .. }), "{refused}");
        }
        let renamed = crate::Record { lease_id: crate::LeaseId("later".to_owned()), ..new.clone() };
        let changed = ask(&mut resident, replace(&[&renamed], &[&other])).unwrap_err();
        assert!(matches!(changed, Error::Changed { .. }), "{changed}");
        let Ok(Answer::Contents(contents)) = ask(&mut resident, Operation::Look) else { panic!() };
        assert_eq!(contents.leases, [new]);
    }

    #[test]
    fn a_late_request_makes_no_lease() {
        let dir = tempfile::tempdir().unwrap();
        let resident = Resident::open(&Ledger::at(dir.path())).unwrap();
        let late = |operation| {
            let by = Cause::of_this_process("test");
            resident.is_late(&resident.ledger().request(by, (0, 0), operation).unwrap())
        };
        assert!(late(Operation::Replace { end: Vec::new(), begin: Vec::new() }));
        assert!(!late(Operation::Release("n c1 eth0".parse().unwrap())), "as welcome late");
    }

    #[test]
    fn looking_through_an_owner_mends_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let conf = serde_json::json!({ "cniVersion": "1.0.0", "name": "n", "type": "x", "ipam": {
            "type": "podwire-ipam", "podCIDR": "10.1.2.0/24", "dataDir": dir.path(),
        } });
        let conf = cni_spec::NetConf::from_bytes(conf.to_string().into_bytes()).unwrap();
        let attachment: cni_spec::Attachment = "n c1 eth0".parse().unwrap();
        let request = LeaseRequest {
            attachment: attachment.clone(),
            netns: crate::Netns::at(std::path::Path::new("/nowhere")),
            args: cni_spec::CniArgs::default(),
        };
        crate::Ipam::from_config(&conf).unwrap().lease(&request).unwrap();
        let ledger = Ledger::at(dir.path());
        let mut resident = Resident::open(&ledger).unwrap();
        resident.slot.store().unwrap().spoil(&attachment);
        for look in [Operation::Look, Operation::Examine { mend: false }, Operation::Look] {
            let error = ask(&mut resident, look).unwrap_err();
            assert_eq!(error.code(), code::DAMAGED, "{error}");
            assert_eq!(ledger.quarantined().unwrap().len(), 0);
        }
        let mended = ask(&mut resident, Operation::Examine { mend: true }).unwrap();
        assert!(matches!(mended, Answer::Contents(contents) if contents.leases.len() == 1));
        assert_eq!(ledger.quarantined().unwrap().len(), 1);
        let released = ask(&mut resident, Operation::Release(attachment)).unwrap();
        assert!(matches!(released, Answer::Released(Released::Lease(_))), "{released:?}");
    }
}
