//! Why an address is not given: what a person needs to know to go on.

use std::fmt;
use std::net::IpAddr;

use cni_spec::Attachment;

use crate::pool::{Pool, Range};
use crate::record::Pod;
use crate::span::same_family;

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
        let of_family = |range: &&Range| same_family(range.span.first, address);
        let reason = if !ranges().any(|range| of_family(&range)) {
            format!("the network has no {} pool", if address.is_ipv4() { "IPv4" } else { "IPv6" })
        } else if let Some(range) = gateway_of {
            format!("is the gateway of {}", range.subnet)
        } else if ranges()
            .any(|range| range.span.contains(address) || Range::whole(range.subnet).span.contains(address))
        {
            "is excluded from its pool".to_owned()
        } else if let Some(range) = ranges().find(|range| range.subnet.contains(address)) {
            format!("is the {} address of {}", name_of_end(range, address), range.subnet)
        } else {
            let pools: Vec<String> = pools.iter().map(ToString::to_string).collect();
            format!("is not in {}", pools.join(", "))
        };
        Self { address, reason }
    }
}

/// What an address is that no host of its subnet may have (RFC 1122, section 3.2.1.3; RFC 4291, section 2.6.1).
fn name_of_end(range: &Range, address: IpAddr) -> &'static str {
    match (address == range.subnet.network(), address.is_ipv4()) {
        (true, true) => "network",
        (true, false) => "subnet-router anycast",
        (false, _) => "broadcast",
    }
}

impl fmt::Display for Outside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "address {} was asked for, but {}", self.address, self.reason)
    }
}

/// A pool without a free address, and where its addresses are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exhausted {
    /// The pool's subnets.
    pub pool: String,
    /// How many addresses the pool can lease.
    pub capacity: u128,
    /// How many of them are leased.
    pub leased: usize,
    /// How many of them other networks hold.
    pub held_by_others: usize,
    /// How many are cooling down; with `strict` only, as they are given otherwise.
    pub cooling: usize,
    /// When the first of those has cooled down.
    pub next_free_seconds: Option<u64>,
    /// How many a person has set aside.
    pub reserved: u128,
    /// How many leases are of pods whose namespace is gone, though not provably so.
    pub suspects: usize,
}

impl fmt::Display for Exhausted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no free address in {}: ", self.pool)?;
        if u128::try_from(self.leased) == Ok(self.capacity) {
            write!(f, "all {} are leased", self.capacity)?;
        } else {
            write!(f, "of {}, {} are leased", self.capacity, self.leased)?;
        }
        if self.held_by_others > 0 {
            write!(f, ", {} of them by other networks", self.held_by_others)?;
        }
        if let Some(seconds) = self.next_free_seconds {
            write!(f, ", {} cooling down, the next free in {seconds} s", self.cooling)?;
        }
        if self.reserved > 0 {
            write!(f, ", {} reserved", self.reserved)?;
        }
        if self.suspects > 0 {
            write!(f, "; {} leased ones look dead: their namespace is gone", self.suspects)?;
        }
        Ok(())
    }
}
