//! Why an address is not given: what a person needs to know to go on.

use std::fmt;
use std::net::IpAddr;

use cni_spec::Attachment;

use crate::pool::Pool;
use crate::record::Pod;

/// Who holds an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The attachment.
    pub attachment: Attachment,
    /// Its pod, as far as it is known.
    pub pod: Pod,
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Attachment { network, container_id, ifname } = &self.attachment;
        let pod = self.pod.to_string();
        if !pod.is_empty() {
            write!(f, "pod {pod}, ")?;
        }
        write!(f, "container {container_id}, interface {ifname}, network {network}")
    }
}

/// An address that no pool gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outside {
    /// The address.
    pub address: IpAddr,
    /// Why not.
    pub reason: String,
}

impl Outside {
    pub(crate) fn new(address: IpAddr, pools: &[Pool]) -> Self {
        let ranges = || pools.iter().flat_map(Pool::ranges);
        let gateway_of = ranges().find(|range| range.gateway == Some(address));
        let reason = if let Some(range) = gateway_of {
            format!("is the gateway of {}", range.subnet)
        } else if ranges().any(|range| range.span.contains(address)) {
            "is excluded from its pool".to_owned()
        } else {
            let pools: Vec<String> = pools.iter().map(ToString::to_string).collect();
            format!("is not in {}", pools.join(", "))
        };
        Self { address, reason }
    }
}

impl fmt::Display for Outside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "address {} was asked for, but {}", self.address, self.reason)
    }
}

/// A pool without a free address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exhausted {
    /// The pool's subnets.
    pub pool: String,
    /// How many addresses the pool can lease; all of them are leased.
    pub capacity: u128,
    /// How many of them other networks hold.
    pub held_by_others: usize,
}

impl fmt::Display for Exhausted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no free address in {}: all {} are leased", self.pool, self.capacity)?;
        match self.held_by_others {
            0 => Ok(()),
            others => write!(f, ", {others} of them by other networks"),
        }
    }
}
