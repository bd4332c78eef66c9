//! A pool: the ranges that one address of a lease is taken from. Pure.

use std::fmt;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use crate::span::{self, Span};

/// One range of a pool: host-local's `{subnet, rangeStart, rangeEnd, gateway}` with the defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Range {
    pub subnet: IpNetwork,
    pub span: Span,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
}

impl Range {
    /// The whole subnet. Left out are the network's own address, for IPv4 the broadcast address, and the
    /// gateway, which is the first address unless another is given. A subnet of one or two addresses (RFC
    /// 3021, RFC 6164) has nothing to leave out, and no gateway of its own.
    pub fn whole(subnet: IpNetwork) -> Self {
        let all = Span::of(subnet);
        if all.len() <= 2 {
            return Self { subnet, span: all, gateway: None };
        }
        let first = span::next(all.first).unwrap_or(all.first);
        let last = if subnet.is_ipv4() { span::previous(all.last).unwrap_or(all.last) } else { all.last };
        Self { subnet, span: Span { first, last }, gateway: Some(first) }
    }
}

/// Ranges of one family. A lease takes one address from each pool; the ranges of a pool are tried in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Pool {
    ranges: Vec<Range>,
    spans: Vec<Span>,
    /// What is leased to whoever asks for it by name: the rest of the subnets, too.
    on_request: Vec<Span>,
}

impl Pool {
    /// A pool of these ranges, from which nothing in `excluded` is ever leased, nor any range's gateway.
    pub fn new(ranges: Vec<Range>, excluded: &[Span]) -> Self {
        let gateways = ranges.iter().filter_map(|range| range.gateway);
        let kept_out: Vec<Span> =
            gateways.map(|gateway| Span { first: gateway, last: gateway }).chain(excluded.iter().copied()).collect();
        let spans: Vec<Span> = ranges.iter().map(|range| range.span).collect();
        let mut on_request: Vec<Span> = Vec::new();
        for span in ranges.iter().map(|range| Range::whole(range.subnet).span).chain(spans.iter().copied()) {
            let new = on_request.iter().fold(vec![span], |new, known| cut(&new, *known));
            on_request.extend(new);
        }
        Self { ranges, spans, on_request }.without(&kept_out)
    }

    /// The same pool, from which these are not leased either. It keeps its name.
    pub fn without(&self, out: &[Span]) -> Self {
        let rest = |spans: &Vec<Span>| out.iter().fold(spans.clone(), |spans, out| cut(&spans, *out));
        Self { ranges: self.ranges.clone(), spans: rest(&self.spans), on_request: rest(&self.on_request) }
    }

    /// The part of this pool that is in a subnet, as a pool with this one's gateways and prefix lengths; none if
    /// the subnet is not in this pool's.
    pub fn part_in(&self, subnet: IpNetwork) -> Option<Self> {
        let part = Span::of(subnet);
        let range = self.ranges.iter().find(|range| Span::of(range.subnet).common(part) == Some(part))?;
        let spans: Vec<Span> = self.on_request.iter().filter_map(|span| span.common(part)).collect();
        let ranges = vec![Range { span: part, ..range.clone() }];
        Some(Self { ranges, on_request: spans.clone(), spans })
    }

    /// What can be leased, in the order in which it is tried.
    pub fn spans(&self) -> &[Span] {
        &self.spans
    }

    pub fn ranges(&self) -> &[Range] {
        &self.ranges
    }

    pub fn is_ipv4(&self) -> bool {
        self.ranges.iter().all(|range| range.subnet.is_ipv4())
    }

    /// How many addresses can be leased.
    pub fn capacity(&self) -> u128 {
        self.spans.iter().fold(0, |sum, span| sum.saturating_add(span.len()))
    }

    /// Whether the address can be leased from this pool.
    pub fn leases(&self, address: IpAddr) -> bool {
        self.spans.iter().any(|span| span.contains(address))
    }

    /// Whether the address can be leased to somebody who asks for it.
    pub fn gives(&self, address: IpAddr) -> bool {
        self.on_request.iter().any(|span| span.contains(address))
    }

    /// The range that the address belongs to.
    pub fn range_of(&self, address: IpAddr) -> Option<&Range> {
        let dynamic = self.ranges.iter().find(|range| range.span.contains(address));
        dynamic.or_else(|| self.ranges.iter().find(|range| range.subnet.contains(address)))
    }

    /// The name under which the ledger keeps its hints for this pool. Hints under a name that no config has
    /// any more are never read, and cost no address: see [`crate::allocate`].
    pub fn key(&self) -> PoolKey {
        let first = self.ranges.iter().map(|range| range.span.first).min();
        let last = self.ranges.iter().map(|range| range.span.last).max();
        PoolKey(first.zip(last).map_or_else(String::new, |(first, last)| format!("{first}-{last}")))
    }
}

/// What is left of spans without one.
fn cut(spans: &[Span], out: Span) -> Vec<Span> {
    spans.iter().flat_map(|span| span.without(out)).collect()
}

impl fmt::Display for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, range) in self.ranges.iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(f, "{separator}{}", range.subnet)?;
            if range.span != Range::whole(range.subnet).span {
                write!(f, " ({})", range.span)?;
            }
        }
        Ok(())
    }
}

/// See [`Pool::key`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PoolKey(pub String);

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(subnet: &str) -> Pool {
        Pool::new(vec![Range::whole(subnet.parse().unwrap())], &[])
    }

    #[test]
    fn the_defaults_of_a_subnet() {
        let cases = [
            ("10.1.2.0/24", "10.1.2.2-10.1.2.254", Some("10.1.2.1"), 253),
            ("10.1.2.0/30", "10.1.2.2-10.1.2.2", Some("10.1.2.1"), 1),
            ("10.1.2.0/31", "10.1.2.0-10.1.2.1", None, 2),
            ("10.1.2.7/32", "10.1.2.7-10.1.2.7", None, 1),
            ("fd00::/64", "fd00::2-fd00::ffff:ffff:ffff:ffff", Some("fd00::1"), (1 << 64) - 2),
            ("fd00::/126", "fd00::2-fd00::3", Some("fd00::1"), 2),
            ("fd00::/127", "fd00::-fd00::1", None, 2),
            ("fd00::7/128", "fd00::7-fd00::7", None, 1),
        ];
        for (subnet, span, gateway, capacity) in cases {
            let pool = whole(subnet);
            let spans: Vec<String> = pool.spans().iter().map(ToString::to_string).collect();
            assert_eq!(spans, [span], "{subnet}");
            assert_eq!(pool.ranges()[0].gateway, gateway.map(|gateway| gateway.parse().unwrap()), "{subnet}");
            assert_eq!(pool.capacity(), capacity, "{subnet}");
        }
    }

    #[test]
    fn excluded_addresses_are_not_leased() {
        let excluded = [Span::of("10.1.2.64/26".parse().unwrap()), Span::of("10.1.2.254/32".parse().unwrap())];
        let pool = Pool::new(vec![Range::whole("10.1.2.0/24".parse().unwrap())], &excluded);
        let spans: Vec<String> = pool.spans().iter().map(ToString::to_string).collect();
        assert_eq!(spans, ["10.1.2.2-10.1.2.63", "10.1.2.128-10.1.2.253"]);
        assert!(!pool.leases("10.1.2.70".parse().unwrap()));
        assert!(pool.leases("10.1.2.128".parse().unwrap()));
    }

    #[test]
    fn a_pool_prints_its_subnets_and_narrowed_ranges() {
        let mut narrow = Range::whole("10.1.3.0/24".parse().unwrap());
        narrow.span.last = "10.1.3.9".parse().unwrap();
        let pool = Pool::new(vec![Range::whole("10.1.2.0/24".parse().unwrap()), narrow], &[]);
        assert_eq!(pool.to_string(), "10.1.2.0/24, 10.1.3.0/24 (10.1.3.1-10.1.3.9)");
        assert_eq!(pool.key().0, "10.1.2.1-10.1.3.9");
    }
}
