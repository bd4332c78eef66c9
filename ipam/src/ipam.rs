//! The service itself, as the plugins use it.

use cni_spec::{Attachment, CniResult, NetConf, ValidAttachments};

use crate::{Error, Lease, LeaseRequest, Ledger, Released};

/// A network's pools and the ledger its leases stand in. It is made from a config that was checked whole.
#[derive(Debug, Clone)]
pub struct Ipam {
    ledger: Ledger,
}

impl Ipam {
    /// Reads and checks the `ipam` object, `runtimeConfig` and `args` of a network config. Touches neither the
    /// ledger nor, but for `resolvConf`, any file.
    ///
    /// # Errors
    /// Code 7 naming key, value and reason; code 5 if `resolvConf` cannot be read.
    pub fn from_config(config: &NetConf) -> Result<Self, Error> {
        Ok(Self { ledger: Ledger::from_config(config)? })
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
        let _ = request;
        Err(Error::Unfinished)
    }

    /// Takes a lease back that this process made and could not use: without a cool-down, since nobody ever
    /// saw the addresses. Does nothing for a lease that is not [`Lease::fresh`], or that has ended already.
    ///
    /// # Errors
    /// The ledger could not be changed nor the wish be written down for the next opener.
    pub fn undo(&self, lease: &Lease) -> Result<(), Error> {
        let _ = lease;
        Err(Error::Unfinished)
    }

    /// See [`Ledger::release`].
    ///
    /// # Errors
    /// See [`Ledger::release`].
    pub fn release(&self, attachment: &Attachment) -> Result<Released, Error> {
        self.ledger.release(attachment)
    }

    /// Whether the attachment's lease stands, and says what `prevResult` says.
    ///
    /// # Errors
    /// 105 with the difference; 11 and 103 as for [`Ipam::lease`].
    pub fn check(&self, attachment: &Attachment, prev_result: &CniResult) -> Result<(), Error> {
        let _ = (attachment, prev_result);
        Err(Error::Unfinished)
    }

    /// See [`Ledger::gc`].
    ///
    /// # Errors
    /// See [`Ledger::gc`].
    pub fn gc(&self, network: &cni_spec::NetworkName, valid: &ValidAttachments) -> Result<usize, Error> {
        self.ledger.gc(network, valid)
    }

    /// Whether [`Ipam::lease`] would be served now. Makes no ledger where there is none.
    ///
    /// # Errors
    /// Code 50 with the reason.
    pub fn status(&self) -> Result<(), Error> {
        Err(Error::Unfinished)
    }
}
