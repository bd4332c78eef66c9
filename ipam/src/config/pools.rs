//! Ranges of the config -> pools.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::problem::{InvalidKey, Problem};
use super::raw::{OneOrMany, RawIpam, RawNetConf, RawRange};
use super::reserved;
use crate::pool::{Pool, Range};
use crate::span::{Span, same_family};

/// One address is leased from each pool. As in host-local, the ranges that the runtime brings come first, then
/// the range without a list, then `ranges`. `from_file` is what `subnetFile` says.
pub(super) fn pools(raw: &RawNetConf, from_file: Option<&OneOrMany>) -> Result<Pools, InvalidKey> {
    let ipam = &raw.ipam;
    let excluded = excluded(ipam.exclude.as_deref().unwrap_or_default())?;
    let mut sets: Vec<Set> = Vec::new();
    for (index, ranges) in raw.runtime_ranges.iter().enumerate() {
        sets.push(Set::of_ranges(format!("runtimeConfig.ipRanges[{index}]"), ranges)?);
    }
    if let Some(cidrs) = &ipam.pod_cidr {
        stands_alone("ipam.podCIDR", ipam)?;
        sets.extend(of_cidrs("ipam.podCIDR", cidrs)?);
    }
    if let Some(subnets) = from_file {
        stands_alone("ipam.subnetFile", ipam)?;
        sets.extend(of_cidrs("ipam.subnetFile", subnets)?);
    }
    if let Some(flat) = ipam.flat_range() {
        sets.push(Set { ranges: vec![Placed::of_range("ipam".to_owned(), &flat)?], path: "ipam".to_owned() });
    }
    for (index, ranges) in ipam.ranges.as_deref().unwrap_or_default().iter().enumerate() {
        sets.push(Set::of_ranges(format!("ipam.ranges[{index}]"), ranges)?);
    }
    if sets.is_empty() {
        return Err(InvalidKey { path: "ipam".to_owned(), value: None, problem: Problem::NoPools });
    }
    no_overlap(&sets)?;
    let all = sets.into_iter().map(|set| set.into_pool(&excluded)).collect::<Result<Vec<_>, _>>()?;
    separate(all, ipam, &excluded)
}

/// The pools of a network.
#[derive(Debug, Clone)]
pub(crate) struct Pools {
    /// For everybody who has none of his own.
    pub general: Vec<Pool>,
    /// By Kubernetes namespace: one of each family at the most.
    pub of_namespaces: BTreeMap<String, Vec<Pool>>,
}

impl Pools {
    /// Those of a namespace's pods: its own, and of a family of which it has none, everybody's.
    pub fn of(&self, namespace: Option<&str>) -> Vec<Pool> {
        let own = namespace.and_then(|namespace| self.of_namespaces.get(namespace));
        let own = own.map(Vec::as_slice).unwrap_or_default();
        let of_family = |v4: bool| {
            let is_of = move |pool: &&Pool| pool.is_ipv4() == v4;
            let from = if own.iter().any(|pool| is_of(&pool)) { own } else { self.general.as_slice() };
            from.iter().filter(is_of)
        };
        // The order of families is the config's.
        let v4_first = self.general.first().is_none_or(Pool::is_ipv4);
        of_family(v4_first).chain(of_family(!v4_first)).cloned().collect()
    }
}

/// Takes the namespaces' parts out of everybody's pools.
fn separate(all: Vec<Pool>, ipam: &RawIpam, excluded: &[Span]) -> Result<Pools, InvalidKey> {
    let mut of_namespaces = BTreeMap::new();
    let mut parts: Vec<(String, Span)> = Vec::new();
    for (namespace, cidrs) in ipam.namespace_pools.iter().flatten() {
        let path = format!("ipam.namespacePools.{namespace}");
        let mut own = Vec::new();
        for set in of_cidrs(&path, cidrs)? {
            let invalid = |problem| InvalidKey { path: path.clone(), value: set.first_subnet(), problem };
            if set.ranges.len() > 1 {
                return Err(invalid(Problem::OneOfEachFamily));
            }
            let Some(subnet) = set.ranges.first().map(|placed| placed.range.subnet) else { continue };
            let taken = parts.iter().find(|(_, span)| span.overlaps(Span::of(subnet)));
            if let Some((other, _)) = taken {
                return Err(invalid(Problem::Overlaps(other.clone())));
            }
            parts.push((path.clone(), Span::of(subnet)));
            let part = all.iter().find_map(|pool| pool.part_in(subnet));
            let pool = part.map_or_else(|| set.into_pool(excluded), Ok)?;
            if pool.capacity() == 0 {
                let value = Some(subnet.to_string());
                return Err(InvalidKey { path, value, problem: Problem::NothingLeft });
            }
            own.push(pool);
        }
        of_namespaces.insert(namespace.clone(), own);
    }
    let out: Vec<Span> = parts.into_iter().map(|(_, span)| span).collect();
    let general: Vec<Pool> = all.into_iter().map(|pool| pool.without(&out)).collect();
    match general.iter().find(|pool| pool.capacity() == 0) {
        None => Ok(Pools { general, of_namespaces }),
        Some(empty) => {
            let (path, value) = ("ipam.namespacePools".to_owned(), Some(empty.to_string()));
            Err(InvalidKey { path, value, problem: Problem::NothingLeft })
        }
    }
}

/// `podCIDR` or `subnetFile` is the whole description of the pools.
fn stands_alone(key: &str, ipam: &RawIpam) -> Result<(), InvalidKey> {
    let others = [
        ("ipam.podCIDR", ipam.pod_cidr.is_some() && key != "ipam.podCIDR"),
        ("ipam.ranges", ipam.ranges.is_some()),
        ("ipam.subnet", ipam.subnet.is_some()),
        ("ipam.rangeStart", ipam.range_start.is_some()),
        ("ipam.rangeEnd", ipam.range_end.is_some()),
        ("ipam.gateway", ipam.gateway.is_some()),
    ];
    match others.into_iter().find(|(_, given)| *given) {
        None => Ok(()),
        Some((other, _)) => Err(InvalidKey { path: key.to_owned(), value: None, problem: Problem::Beside(other) }),
    }
}

/// A range and the key that it came from.
struct Placed {
    path: String,
    range: Range,
}

/// The ranges of a pool to be.
struct Set {
    path: String,
    ranges: Vec<Placed>,
}

impl Set {
    fn of_ranges(path: String, ranges: &[RawRange]) -> Result<Self, InvalidKey> {
        let placed = |(index, range)| Placed::of_range(format!("{path}[{index}]"), range);
        let ranges = ranges.iter().enumerate().map(placed).collect::<Result<Vec<_>, _>>()?;
        let Some(first) = ranges.first() else {
            return Err(InvalidKey { path, value: None, problem: Problem::EmptySet });
        };
        let stranger = ranges.iter().find(|other| !same_family(other.range.span.first, first.range.span.first));
        if let Some(stranger) = stranger {
            let problem = Problem::Family(format!("{}.subnet={:?}", first.path, first.range.subnet.to_string()));
            return Err(stranger.invalid(problem));
        }
        Ok(Self { path, ranges })
    }

    fn first_subnet(&self) -> Option<String> {
        self.ranges.first().map(|placed| placed.range.subnet.to_string())
    }

    fn into_pool(self, excluded: &[Span]) -> Result<Pool, InvalidKey> {
        let pool = Pool::new(self.ranges.into_iter().map(|placed| placed.range).collect(), excluded);
        if pool.capacity() > 0 {
            return Ok(pool);
        }
        Err(InvalidKey { path: self.path, value: Some(pool.to_string()), problem: Problem::NothingLeft })
    }
}

impl Placed {
    fn of_range(path: String, raw: &RawRange) -> Result<Self, InvalidKey> {
        let key = |name: &str| format!("{path}.{name}");
        let Some(text) = &raw.subnet else {
            return Err(InvalidKey { path: key("subnet"), value: None, problem: Problem::Missing });
        };
        let mut range = Range::whole(pod_subnet(key("subnet"), text)?);
        let inside = |name: &str, text: &str| address_in(range.subnet, key(name), text);
        let start = raw.range_start.as_deref().map(|text| inside("rangeStart", text)).transpose()?;
        let end = raw.range_end.as_deref().map(|text| inside("rangeEnd", text)).transpose()?;
        let gateway = raw.gateway.as_deref().map(|text| gateway_of(range.subnet, key("gateway"), text)).transpose()?;
        range.span = Span { first: start.unwrap_or(range.span.first), last: end.unwrap_or(range.span.last) };
        range.gateway = gateway.or(range.gateway);
        if range.span.last < range.span.first {
            let (name, value) = if end.is_some() { ("rangeEnd", end) } else { ("rangeStart", start) };
            let value = value.map(|value| value.to_string());
            let problem = match start.filter(|_| end.is_some()) {
                Some(start) => Problem::BeforeStart(start),
                None => Problem::NothingLeft,
            };
            return Err(InvalidKey { path: key(name), value, problem });
        }
        Ok(Self { path, range })
    }

    fn invalid(&self, problem: Problem) -> InvalidKey {
        let is_cidr =
            ["ipam.podCIDR", "ipam.subnetFile", "ipam.namespacePools"].iter().any(|key| self.path.starts_with(key));
        let subnet = if is_cidr { "" } else { ".subnet" };
        InvalidKey { path: format!("{}{subnet}", self.path), value: Some(self.range.subnet.to_string()), problem }
    }
}

/// One pool for each family, however many subnets of it there are.
fn of_cidrs(path: &str, cidrs: &OneOrMany) -> Result<Vec<Set>, InvalidKey> {
    let path = path.to_owned();
    let cidrs = match cidrs {
        OneOrMany::One(one) => vec![(path.clone(), one)],
        OneOrMany::Many(many) => {
            many.iter().enumerate().map(|(index, one)| (format!("{path}[{index}]"), one)).collect()
        }
    };
    let placed =
        |(path, text): (String, &String)| Ok(Placed { range: Range::whole(pod_subnet(path.clone(), text)?), path });
    let ranges = cidrs.into_iter().map(placed).collect::<Result<Vec<_>, InvalidKey>>()?;
    let (v4, v6): (Vec<_>, Vec<_>) = ranges.into_iter().partition(|placed| placed.range.subnet.is_ipv4());
    if v4.is_empty() && v6.is_empty() {
        return Err(InvalidKey { path, value: None, problem: Problem::EmptySet });
    }
    let families = [v4, v6].into_iter().filter(|ranges| !ranges.is_empty());
    Ok(families.map(|ranges| Set { path: path.clone(), ranges }).collect())
}

/// No address may stand in two ranges, be it of one pool or of two.
fn no_overlap(sets: &[Set]) -> Result<(), InvalidKey> {
    let ranges: Vec<&Placed> = sets.iter().flat_map(|set| &set.ranges).collect();
    for (index, range) in ranges.iter().enumerate() {
        let Some(other) = ranges.iter().take(index).find(|other| other.range.span.overlaps(range.range.span)) else {
            continue;
        };
        let other = other.invalid(Problem::Missing);
        let named = format!("{}={:?}", other.path, other.value.unwrap_or_default());
        return Err(range.invalid(Problem::Overlaps(named)));
    }
    Ok(())
}

/// A subnet to lease from.
fn pod_subnet(path: String, text: &str) -> Result<IpNetwork, InvalidKey> {
    let parsed = subnet(path.clone(), text)?;
    match reserved::not_for_pods(parsed) {
        None => Ok(parsed),
        Some(problem) => Err(InvalidKey { path, value: Some(text.to_owned()), problem }),
    }
}

fn subnet(path: String, text: &str) -> Result<IpNetwork, InvalidKey> {
    let invalid = |problem| InvalidKey { path, value: Some(text.to_owned()), problem };
    let parsed: Option<IpNetwork> = if text.contains('/') { text.parse().ok() } else { None };
    let Some(parsed) = parsed else { return Err(invalid(Problem::NotASubnet)) };
    match IpNetwork::new(parsed.network(), parsed.prefix()) {
        Ok(masked) if masked == parsed => Ok(parsed),
        Ok(masked) => Err(invalid(Problem::HostBits(masked))),
        Err(_) => Err(invalid(Problem::NotASubnet)),
    }
}

fn address_in(subnet: IpNetwork, path: String, text: &str) -> Result<IpAddr, InvalidKey> {
    let invalid = |problem| InvalidKey { path, value: Some(text.to_owned()), problem };
    let Ok(address) = text.parse() else { return Err(invalid(Problem::NotAnAddress)) };
    if subnet.contains(address) { Ok(address) } else { Err(invalid(Problem::OutsideSubnet(subnet))) }
}

/// A gateway must be reachable: in the subnet, or, as IPv6 routers are (RFC 4861, section 6.1.2), link-local.
fn gateway_of(subnet: IpNetwork, path: String, text: &str) -> Result<IpAddr, InvalidKey> {
    match text.parse() {
        Ok(IpAddr::V6(gateway)) if subnet.is_ipv6() && gateway.is_unicast_link_local() => Ok(IpAddr::V6(gateway)),
        _ => address_in(subnet, path, text),
    }
}

fn excluded(texts: &[String]) -> Result<Vec<Span>, InvalidKey> {
    let read = |(index, text): (usize, &String)| {
        let path = format!("ipam.exclude[{index}]");
        match text.parse::<IpAddr>() {
            Ok(one) => Ok(Span { first: one, last: one }),
            Err(_) => subnet(path, text).map(Span::of),
        }
    };
    texts.iter().enumerate().map(read).collect()
}
