//! One host port and where it leads.

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU16;

use cni_spec::{NetConf, PortMapping};
use nft_model::{Family, Proto};
use serde_json::Value;

use crate::error::{Error, Flaw};

/// A checked entry of `runtimeConfig.portMappings`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mapping {
    /// The addresses of the node that lead to the pod.
    pub host_ip: HostIp,
    /// TCP, UDP or SCTP.
    pub protocol: Proto,
    /// The port on those addresses.
    pub host_port: NonZeroU16,
    /// The port in the pod.
    pub container_port: NonZeroU16,
}

/// `hostIP`: which addresses of the node a mapping is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostIp {
    /// Missing or empty: every address, of each family the pod has.
    Any,
    /// `0.0.0.0` or `::`: every address of that family.
    Wildcard(Family),
    /// This one.
    Address(IpAddr),
}

impl HostIp {
    /// Whether there are addresses of this family among them.
    #[must_use]
    pub fn includes(self, family: Family) -> bool {
        self.only_family().is_none_or(|only| only == family)
    }

    /// The family of all of them, if they have the same.
    #[must_use]
    pub fn only_family(self) -> Option<Family> {
        match self {
            Self::Any => None,
            Self::Wildcard(family) => Some(family),
            Self::Address(address) => Some(Family::of(address)),
        }
    }

    /// Whether both would be the same key of the same map.
    fn clashes(self, other: Self) -> bool {
        match (self, other) {
            (Self::Address(one), Self::Address(two)) => one == two,
            (Self::Address(_), _) | (_, Self::Address(_)) => false,
            _ => Family::ALL.into_iter().any(|family| self.includes(family) && other.includes(family)),
        }
    }
}

impl fmt::Display for HostIp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("every address"),
            Self::Wildcard(Family::Ip) => f.write_str("every IPv4 address"),
            Self::Wildcard(Family::Ip6) => f.write_str("every IPv6 address"),
            Self::Address(address) => write!(f, "{address}"),
        }
    }
}

/// Reads and checks `runtimeConfig.portMappings`; missing and `null` are an empty list.
///
/// # Errors
/// Code 7 with the first entry that cannot be: key, value and reason.
pub fn of_runtime_config(conf: &NetConf) -> Result<Vec<Mapping>, Error> {
    let raw = conf.runtime_config.port_mappings().map_err(Error::Config)?;
    let mut mappings: Vec<Mapping> = Vec::with_capacity(raw.len());
    for (index, entry) in raw.iter().enumerate() {
        let mapping = check(index, entry)?;
        if let Some(first) = mappings.iter().position(|earlier| same_key(earlier, &mapping)) {
            return Err(invalid(index, "hostPort", entry.host_port, Flaw::Duplicate { first }));
        }
        mappings.push(mapping);
    }
    Ok(mappings)
}

/// What is wrong with one key of one entry.
pub(crate) fn invalid(index: usize, key: &str, value: impl Into<Value>, flaw: Flaw) -> Error {
    Error::Invalid { path: format!("runtimeConfig.portMappings[{index}].{key}"), value: value.into(), flaw }
}

fn check(index: usize, entry: &PortMapping) -> Result<Mapping, Error> {
    Ok(Mapping {
        host_ip: host_ip(&entry.host_ip).map_err(|flaw| invalid(index, "hostIP", entry.host_ip.as_str(), flaw))?,
        protocol: protocol(&entry.protocol)
            .ok_or_else(|| invalid(index, "protocol", entry.protocol.as_str(), Flaw::Protocol))?,
        host_port: port(entry.host_port).ok_or_else(|| invalid(index, "hostPort", entry.host_port, Flaw::Port))?,
        container_port: port(entry.container_port)
            .ok_or_else(|| invalid(index, "containerPort", entry.container_port, Flaw::Port))?,
    })
}

fn same_key(one: &Mapping, two: &Mapping) -> bool {
    one.protocol == two.protocol && one.host_port == two.host_port && one.host_ip.clashes(two.host_ip)
}

fn port(number: i64) -> Option<NonZeroU16> {
    u16::try_from(number).ok().and_then(NonZeroU16::new)
}

fn protocol(name: &str) -> Option<Proto> {
    if name.is_empty() {
        return Some(Proto::Tcp);
    }
    Proto::by_name(name)
}

/// `::ffff:a.b.c.d` is an IPv4 address in IPv6 notation (RFC 4291, 2.5.5.2): packets to it are IPv4 packets.
fn host_ip(text: &str) -> Result<HostIp, Flaw> {
    if text.is_empty() {
        return Ok(HostIp::Any);
    }
    let address = text.parse::<IpAddr>().map_err(|_| Flaw::HostIp)?.to_canonical();
    match address {
        _ if address.is_unspecified() => Ok(HostIp::Wildcard(Family::of(address))),
        IpAddr::V4(v4) if v4.is_broadcast() || v4.is_multicast() => Err(Flaw::NotUnicast),
        IpAddr::V6(v6) if v6.is_multicast() => Err(Flaw::NotUnicast),
        _ => Ok(HostIp::Address(address)),
    }
}
