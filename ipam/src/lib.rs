//! Pod addresses: leased from the network's pools, held until the pod is gone, never held twice.
//!
//! [`Ipam`] leases; `podwire` calls it in process, [`PodwireIpam`] behind the CNI protocol, for any main plugin.
//! [`Ledger`] is where the leases stand, one [`Record`] for each attachment. [`cli`] is the command `ipam`, which
//! looks into that ledger and repairs it.
//!
//! Where a resident owner holds the ledger open (`ipam serve`), it is asked over a socket; else everybody opens the
//! ledger for himself, and all of this is the same: see [`Ledger`]. A request goes like this: the config is read and checked whole; the ledger's lock is taken, with a deadline;
//! the database is opened, and what a killed predecessor left is cleared away; releases that could not be
//! carried out before are carried out; an address is chosen from each pool, which is pure arithmetic over the
//! leases; the lease is committed in one transaction and flushed; the database is closed; only then is there an
//! answer. Whoever is killed in between leaves either the old state or the new one.
//!
//! A database that is damaged, or gone, is put aside and made anew from plain copies of the leases, which are kept
//! beside it, and from the links and routes that podwire marks as its own. So no address is given twice, whatever
//! the main plugin is. Where the copies cannot be read, ADD fails with code 5; nobody knows then what is in use.
//! Whoever removes the whole folder removes the copies too, and only podwire's own pods are found again.
//!
//! # The `ipam` object of a network config
//!
//! | key | meaning | default |
//! |---|---|---|
//! | `podCIDR` | the node's pod subnet, or a list; one address from each family | |
//! | `subnetFile` | flannel's `subnet.env`, which says the subnets instead | |
//! | `namespacePools` | pools for the pods of a Kubernetes namespace: `{"shop": "10.244.1.128/26"}` | |
//! | `ranges` | as in host-local: a list of pools, each a list of `{subnet, rangeStart, rangeEnd, gateway}` | |
//! | `subnet`, `rangeStart`, `rangeEnd`, `gateway` | one range without lists around it | |
//! | `exclude` | addresses and subnets that are never leased | `[]` |
//! | `routes` | handed on in the result | `[]` |
//! | `resolvConf` | a file as in resolv.conf(5), handed on as `dns` | |
//! | `dataDir` | the ledger's folder | [`Ledger::DEFAULT_DIR`] |
//! | `stateDir` | where history and reservations are | [`Ledger::DEFAULT_STATE_DIR`], or `dataDir` if that is given |
//! | `cooldownSeconds` | how long a released address rests, unless there is no other | 30 |
//! | `strict` | whether it rests even then | false |
//! | `sticky` | whether a pod that comes back gets the addresses it had | false |
//! | `lockTimeoutSeconds` | how long to wait for the ledger | 10 |
//!
//! Of a subnet, the first address is the gateway unless another is given; it is never leased, nor are a network's
//! own address and an IPv4 broadcast address. Subnets of one or two addresses are leased whole. Addresses may be
//! asked for with `runtimeConfig.ips` and `args.cni.ips`, else with the pod annotation `podwire/ips`, else with
//! `IP` in `CNI_ARGS`; also those of a subnet outside its range. `runtimeConfig.ipRanges` brings further pools.
//!
//! What this crate does not do: it makes no interface, no route and no firewall rule, and it does not know whether
//! an address is in use elsewhere on the network.

mod allocate;
mod choosing;
pub mod cli;
mod clock;
mod config;
mod error;
mod event;
mod history;
mod ipam;
mod lease;
mod leasing;
mod ledger;
mod liveness;
pub mod marks;
mod namespaces;
mod operation;
mod owner;
mod plugin;
mod pool;
mod record;
mod refusal;
mod reservations;
pub mod runtime_cache;
mod service;
mod span;
mod sticky;
mod store;
mod wire;

pub use config::{InvalidKey, Problem};
pub use error::{Error, code};
pub use ipam::Ipam;
pub use lease::{Lease, LeaseId, LeaseRequest, LeasedAddress, Netns, NetnsId, Released};
pub use ledger::{Held, Holder, Ledger};
pub use namespaces::Namespaces;
pub use plugin::PodwireIpam;
pub use record::{Origin, Pod, Record, RecordedAddress};
pub use refusal::{Claim, Exhausted, Outside};
pub use store::{Damage, StoreError};
