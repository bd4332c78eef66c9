//! The service itself, as the plugins use it.

use std::net::IpAddr;
use std::time::Duration;

use cni_spec::{Attachment, CniResult, ErrorCode, NetConf, NetworkName, ValidAttachments};

use crate::clock::{self, Moment};
use crate::config::Config;
use crate::event::{Cause, EventKind};
use crate::ledger::Ending;
use crate::operation::{Answer, Operation, Wish};
use crate::record::Pod;
use crate::{Error, Lease, LeaseId, LeaseRequest, Ledger, Released, leasing};

/// A network's pools and the ledger its leases stand in. It is made from a config that was checked whole, anew
/// for each request: what was deleted after that is not leased any more.
#[derive(Debug, Clone)]
pub struct Ipam {
    config: Config,
    ledger: Ledger,
    /// When the request was made, in milliseconds of `CLOCK_BOOTTIME`.
    began: u64,
}

/// The longest that STATUS waits for the ledger: runtimes ask every few seconds.
const STATUS_TIMEOUT: Duration = Duration::from_secs(2);

impl Ipam {
    /// Reads and checks the `ipam` object, `runtimeConfig` and `args` of a network config. Touches neither the
    /// ledger nor, but for `resolvConf`, any file.
    ///
    /// # Errors
    /// Code 7 naming key, value and reason; code 5 if `resolvConf` cannot be read.
    pub fn from_config(config: &NetConf) -> Result<Self, Error> {
        let began = Moment::now()?.boottime;
        Ok(Self { config: Config::from_net_conf(config)?, ledger: Ledger::from_config(config)?, began })
    }

    /// The same service of a process that was started for this one request: what was deleted since it began is not leased,
    /// however long it took to read the config.
    ///
    /// # Errors
    /// The kernel does not tell when the process began.
    pub fn for_the_request_of_this_process(self) -> Result<Self, Error> {
        Ok(Self { began: clock::start_of_this_process()?, ..self })
    }

    /// The ledger alone, which is all that DEL and GC need.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Leases one address from every pool of the network, or none at all. Asked again for the same attachment
    /// and the same namespace, it gives the same answer; from another namespace the old lease is ended first.
    ///
    /// # Errors
    /// 100 a pool is exhausted, 101 the requested address is taken, 102 it is in no pool, 11 the ledger is
    /// busy, 103 it is damaged and the kernel could not be asked what is in use, 104 the attachment was
    /// deleted meanwhile.
    pub fn lease(&self, request: &LeaseRequest) -> Result<Lease, Error> {
        // Where it is stored, that would look like damage.
        if request.netns.path.to_str().is_none() {
            return Err(Error::NetnsPath { path: request.netns.path.clone() });
        }
        let pod = Pod::from_args(&request.args);
        let terms = self.config.terms(pod.namespace.as_deref());
        let wish = Wish {
            attachment: request.attachment.clone(),
            lease_id: LeaseId(clock::unique_name()?),
            netns: request.netns.clone(),
            pod,
            wanted: self.config.requested(&terms.pools, &request.args)?,
            terms: terms.clone(),
            sticky: self.config.is_sticky(),
            began: self.began,
        };
        let lease_id = wish.lease_id.clone();
        let by = Cause::of_this_process(format!("ADD {}", request.attachment));
        match self.ledger.ask(by, Operation::Lease(Box::new(wish)))? {
            Answer::Leased(record) => Ok(leasing::answer(&self.config, &terms, &record, record.lease_id == lease_id)),
            _ => Err(Error::Answer),
        }
    }

    /// Takes a lease back that this request made and could not use: without a cool-down, since nobody ever
    /// saw the addresses. Does nothing for a lease that is not [`Lease::fresh`], that has ended already, or that a later
    /// request was answered with as well.
    ///
    /// # Errors
    /// The ledger could not be changed nor the wish be written down for the next opener.
    pub fn undo(&self, lease: &Lease) -> Result<(), Error> {
        self.give_back(lease, false, &[])
    }

    /// The same, with a cool-down: somebody has one of the addresses, or more, whom this ledger does not know, and the next
    /// shall rather get others. What is in use is no longer kept for a sticky pod, either; the rest is.
    ///
    /// # Errors
    /// See [`Ipam::undo`].
    pub fn undo_for_a_while(&self, lease: &Lease, in_use: &[IpAddr]) -> Result<(), Error> {
        self.give_back(lease, true, in_use)
    }

    fn give_back(&self, lease: &Lease, rests: bool, in_use: &[IpAddr]) -> Result<(), Error> {
        if !lease.fresh {
            return Ok(());
        }
        // Not now: a later request may have been answered since.
        let asked = Moment { boottime: self.began, ..Moment::now()? };
        let by = Cause::of_this_process(format!("undo of ADD {}", lease.attachment));
        let (attachment, lease_id, began) = (&lease.attachment, &lease.lease_id, self.began);
        let ending = Ending { attachment, lease_id, began, rests, in_use, why: EventKind::Undone };
        match self.ledger.end(by, &ending) {
            Ok(_) => Ok(()),
            Err(error) => self.ledger.spool(attachment, Some(lease_id.clone()), asked, error).map(drop),
        }
    }

    /// See [`Ledger::release`].
    ///
    /// # Errors
    /// See [`Ledger::release`].
    pub fn release(&self, attachment: &Attachment) -> Result<Released, Error> {
        self.ledger.release(attachment)
    }

    /// Whether the attachment's lease stands, and says what `prevResult` says. Addresses in `prevResult` that
    /// are not leased here may be another plugin's.
    ///
    /// # Errors
    /// 105 with the difference; 11 and 103 as for [`Ipam::lease`].
    pub fn check(&self, attachment: &Attachment, prev_result: &CniResult) -> Result<(), Error> {
        let ips = prev_result.ips.iter().map(|ip| ip.address.ip()).collect();
        let by = Cause::of_this_process(format!("CHECK {attachment}"));
        self.ledger.ask(by, Operation::Check { attachment: attachment.clone(), ips }).map(drop)
    }

    /// See [`Ledger::gc`].
    ///
    /// # Errors
    /// See [`Ledger::gc`].
    pub fn gc(&self, network: &NetworkName, valid: &ValidAttachments) -> Result<usize, Error> {
        self.ledger.gc(network, valid)
    }

    /// Whether it can lease addresses of a family: of IPv4, or of IPv6.
    #[must_use]
    pub fn has_pools_of(&self, ipv4: bool) -> bool {
        self.config.terms(None).pools.iter().any(|pool| pool.is_ipv4() == ipv4)
    }

    /// [`Ipam::status`] of a config that may lack something which is still to come, such as its `subnetFile`.
    ///
    /// # Errors
    /// Code 50 with the reason, 7 if the config is invalid.
    pub fn status_of(config: &NetConf) -> Result<(), Error> {
        match Self::from_config(config) {
            Ok(ipam) => ipam.status(),
            Err(error) if error.code() == ErrorCode::TryAgainLater => Err(Error::NotAvailable(Box::new(error))),
            Err(error) => Err(error),
        }
    }

    /// Whether [`Ipam::lease`] would be served now. Makes no ledger where there is none.
    ///
    /// # Errors
    /// Code 50 with the reason.
    pub fn status(&self) -> Result<(), Error> {
        let timeout = self.ledger.lock_timeout().min(STATUS_TIMEOUT);
        let ledger = self.ledger.clone().with_lock_timeout(timeout);
        let by = Cause::of_this_process(format!("STATUS {}", self.config.network()));
        match ledger.ask(by, Operation::Status(Box::new(self.config.terms(None)))) {
            Ok(_) => Ok(()),
            Err(reason) => Err(Error::NotAvailable(Box::new(reason))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::path::Path;

    use super::*;
    use crate::Netns;

    /// The runtime gave the first ADD up while its plugin hung, and sent a second, which was answered with the same lease.
    #[test]
    fn undo_spares_a_lease_that_a_later_request_was_answered_with() {
        for is_locked in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let conf = serde_json::json!({ "cniVersion": "1.0.0", "name": "n", "type": "x", "ipam": {
                "type": "podwire-ipam", "podCIDR": "10.1.2.0/24", "dataDir": dir.path(),
            } });
            let conf = NetConf::from_bytes(conf.to_string().into_bytes()).unwrap();
            let first = Ipam::from_config(&conf).unwrap();
            let later = Ipam { began: first.began + 1, ..first.clone() };
            let request = LeaseRequest {
                attachment: "n c1 eth0".parse().unwrap(),
                netns: Netns::at(Path::new("/nowhere")),
                args: cni_spec::CniArgs::default(),
            };
            let lease = first.lease(&request).unwrap();
            assert_eq!(later.lease(&request).unwrap().lease_id, lease.lease_id);
            let undo = |ipam: &Ipam| {
                // With the engine's own lock held, it is written down for the next opener.
                let database = File::open(dir.path().join("ledger/db")).unwrap();
                if is_locked {
                    database.lock().unwrap();
                }
                ipam.undo(&lease).unwrap();
                assert_eq!(ipam.ledger.pending().len(), usize::from(is_locked));
                drop(database);
                ipam.release(&"n other eth0".parse().unwrap()).unwrap();
                ipam.ledger.leases("test").unwrap().unwrap().len()
            };
            assert_eq!([undo(&first), undo(&later)], [1, 0], "locked: {is_locked}");
        }
    }
}
