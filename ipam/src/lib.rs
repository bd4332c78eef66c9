//! The CNI IPAM plugin podwire-ipam and the ipam command over one sled ledger.
//!
//! [`Ipam`] leases addresses from a network's pools; `podwire` calls it in process, `podwire-ipam` through
//! the CNI protocol. [`Ledger`] is where the leases stand, one record per attachment.

mod allocate;
pub mod cli;
mod clock;
mod config;
mod error;
mod ipam;
mod lease;
mod leasing;
mod ledger;
mod liveness;
mod plugin;
mod pool;
mod record;
mod span;
mod store;

pub use config::{InvalidKey, Problem};
pub use error::{Claim, Error, Exhausted, Outside, code};
pub use ipam::Ipam;
pub use lease::{Lease, LeaseId, LeaseRequest, LeasedAddress, Netns, NetnsId, Released};
pub use ledger::{Held, Holder, Ledger};
pub use plugin::PodwireIpam;
pub use record::{Origin, Pod, Record, RecordedAddress};
pub use store::{Damage, StoreError};
