//! What is wrong with a config, and where.

use std::fmt;
use std::net::IpAddr;

use cni_spec::SpecVersion;
use ipnetwork::IpNetwork;

/// A key of the network config whose value cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidKey {
    /// The key's path: `ipam.ranges[0][1].rangeStart`.
    pub path: String,
    /// The value; none if it is missing.
    pub value: Option<String>,
    /// What is wrong with it.
    pub problem: Problem,
}

impl fmt::Display for InvalidKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => write!(f, "{}={value:?} {}", self.path, self.problem),
            None => write!(f, "{} {}", self.path, self.problem),
        }
    }
}

impl std::error::Error for InvalidKey {}

/// Why a value cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The key is needed.
    #[error("is missing")]
    Missing,
    /// Nothing says what to lease from.
    #[error("has none of podCIDR, subnetFile, ranges and subnet")]
    NoPools,
    /// An inner list of `ranges` is empty.
    #[error("has no range")]
    EmptySet,
    /// Two spellings of the same thing.
    #[error("cannot stand beside {0}")]
    Beside(&'static str),
    /// No prefix length, or no address before it.
    #[error("is not a subnet in CIDR notation, such as 10.244.1.0/24 or fd00:10:244:1::/64")]
    NotASubnet,
    /// No address.
    #[error("is not an IP address")]
    NotAnAddress,
    /// Bits beyond the prefix length are set.
    #[error("has bits set beyond its prefix length; the subnet is {0}")]
    HostBits(IpNetwork),
    /// Addresses that cannot be a pod's.
    #[error("has addresses of {0}, {1}")]
    NotForPods(IpNetwork, &'static str),
    /// An address that must be in a subnet.
    #[error("is not in subnet {0}")]
    OutsideSubnet(IpNetwork),
    /// `rangeEnd` below `rangeStart`.
    #[error("is before rangeStart {0}")]
    BeforeStart(IpAddr),
    /// IPv4 and IPv6 in one pool, or in one route.
    #[error("is not of the same address family as {0}")]
    Family(String),
    /// Two ranges have addresses in common.
    #[error("overlaps {0}")]
    Overlaps(String),
    /// Gateway and exclusions leave nothing.
    #[error("leaves no address to lease")]
    NothingLeft,
    /// Results of old spec versions have room for one address of each family.
    #[error("asks for several addresses of one family, which results of CNI spec {0} cannot carry")]
    TooMany(SpecVersion),
    /// A folder relative to nothing in particular.
    #[error("is not an absolute path")]
    NotAbsolute,
    /// A file that the key names has something else in it.
    #[error("cannot be used: {0}")]
    InFile(String),
    /// Neither `true` nor `false`.
    #[error("is neither true nor false")]
    NotABool,
    /// A number, list or object.
    #[error("is not a string")]
    NotText,
    /// Whatever else is there, nothing can be looked up in it.
    #[error("is not an object")]
    NotAnObject,
    /// A namespace with two pools of a family.
    #[error("has more than one subnet of a family")]
    OneOfEachFamily,
    /// Two wishes, one address.
    #[error("asks for a second address of pool {0}, which gives one")]
    SecondOfPool(String),
}
