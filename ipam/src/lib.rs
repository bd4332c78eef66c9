//! The CNI IPAM plugin podwire-ipam and the ipam command over one sled ledger.
//!
//! [`Ipam`] leases addresses from a network's pools; `podwire` calls it in process, `podwire-ipam` through
//! the CNI protocol. [`Ledger`] is where the leases stand, one record per attachment.

mod error;
mod ipam;
mod lease;
mod ledger;

pub use error::{Error, code};
pub use ipam::Ipam;
pub use lease::{Lease, LeaseId, LeaseRequest, LeasedAddress, Netns, NetnsId, Released};
pub use ledger::Ledger;
