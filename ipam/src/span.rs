//! Runs of consecutive addresses. Pure arithmetic.

use std::fmt;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

/// All addresses from the first to the last, both included. Both are of one family, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Span {
    pub first: IpAddr,
    pub last: IpAddr,
}

impl Span {
    pub fn of(network: IpNetwork) -> Self {
        Self { first: network.network(), last: network.broadcast() }
    }

    pub fn contains(self, address: IpAddr) -> bool {
        same_family(self.first, address) && self.first <= address && address <= self.last
    }

    pub fn overlaps(self, other: Self) -> bool {
        same_family(self.first, other.first) && self.first <= other.last && other.first <= self.last
    }

    /// The addresses of both.
    pub fn common(self, other: Self) -> Option<Self> {
        let common = || Self { first: self.first.max(other.first), last: self.last.min(other.last) };
        self.overlaps(other).then(common)
    }

    /// How many addresses; the whole of IPv6 counts as one less than it is.
    pub fn len(self) -> u128 {
        (bits(self.last) - bits(self.first)).saturating_add(1)
    }

    /// What is left of this span without the other: nothing, one or two pieces, in order.
    pub fn without(self, other: Self) -> impl Iterator<Item = Self> {
        let (before, after) = if self.overlaps(other) {
            let before = previous(other.first).filter(|_| self.first < other.first);
            let after = next(other.last).filter(|_| other.last < self.last);
            (before.map(|last| Self { last, ..self }), after.map(|first| Self { first, ..self }))
        } else {
            (Some(self), None)
        };
        before.into_iter().chain(after)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

pub(crate) fn same_family(one: IpAddr, other: IpAddr) -> bool {
    one.is_ipv4() == other.is_ipv4()
}

/// The address as a number; an IPv4 address takes the lowest 32 bits.
pub(crate) fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// The address after this one; none after the family's last.
pub(crate) fn next(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(v4) => v4.to_bits().checked_add(1).map(|bits| IpAddr::V4(bits.into())),
        IpAddr::V6(v6) => v6.to_bits().checked_add(1).map(|bits| IpAddr::V6(bits.into())),
    }
}

/// The address before this one; none before the family's first.
pub(crate) fn previous(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(v4) => v4.to_bits().checked_sub(1).map(|bits| IpAddr::V4(bits.into())),
        IpAddr::V6(v6) => v6.to_bits().checked_sub(1).map(|bits| IpAddr::V6(bits.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(first: &str, last: &str) -> Span {
        Span { first: first.parse().unwrap(), last: last.parse().unwrap() }
    }

    #[test]
    fn a_piece_cut_out_leaves_what_is_before_and_after() {
        let whole = span("10.0.0.0", "10.0.0.9");
        let cases = [
            (span("10.0.0.3", "10.0.0.4"), "10.0.0.0-10.0.0.2 10.0.0.5-10.0.0.9"),
            (span("10.0.0.0", "10.0.0.4"), "10.0.0.5-10.0.0.9"),
            (span("10.0.0.5", "10.0.0.9"), "10.0.0.0-10.0.0.4"),
            (span("9.0.0.0", "11.0.0.0"), ""),
            (span("10.0.1.0", "10.0.1.9"), "10.0.0.0-10.0.0.9"),
            (span("::", "::ffff"), "10.0.0.0-10.0.0.9"),
        ];
        for (cut, left) in cases {
            let pieces: Vec<String> = whole.without(cut).map(|piece| piece.to_string()).collect();
            assert_eq!(pieces.join(" "), left, "without {cut}");
        }
    }

    #[test]
    fn the_ends_of_a_family_have_no_neighbour() {
        assert_eq!(next("255.255.255.255".parse().unwrap()), None);
        assert_eq!(previous("::".parse().unwrap()), None);
        assert_eq!(next("::ffff:255.255.255.255".parse().unwrap()), Some("::1:0:0:0".parse().unwrap()));
    }

    #[test]
    fn a_span_of_all_addresses_counts_without_overflow() {
        assert_eq!(Span::of("::/0".parse().unwrap()).len(), u128::MAX);
        assert_eq!(Span::of("0.0.0.0/0".parse().unwrap()).len(), 1 << 32);
        assert_eq!(Span::of("fd00::/64".parse().unwrap()).len(), 1 << 64);
    }
}
