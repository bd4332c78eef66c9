//! What is drawn: a CIDR cut into cells of equal size. Pure.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::super::view::View;
use crate::operation::KnownPool;
use crate::span::Span;

/// How many cells a chart has at most: as many as a /24 has addresses, or a /16 has /24s.
const CELLS: u8 = 8;

/// A CIDR cut into cells.
#[derive(Debug)]
pub(super) struct Chart {
    pub cidr: IpNetwork,
    /// The networks that lease from it.
    pub networks: Vec<String>,
    /// How many addresses one cell stands for.
    pub per_cell: u128,
    pub cells: Vec<Cell>,
}

/// What is in one cell.
#[derive(Debug, Clone)]
pub(super) struct Cell {
    pub cidr: IpNetwork,
    /// Addresses that can be leased at all.
    pub leasable: u128,
    pub active: u128,
    pub cooling: u128,
    pub reserved: u128,
    /// Whether it is the gateway, if the cell is one address.
    pub gateway: bool,
    /// The pod or container, if the cell is one address and leased; why, if it is reserved.
    pub who: Option<String>,
}

/// What one address is, or most of a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Active,
    Cooling,
    Reserved,
    Free,
    Gateway,
    /// In no pool.
    Outside,
}

impl Cell {
    /// Addresses that can be leased now.
    pub fn free(&self) -> u128 {
        self.leasable.saturating_sub(self.active + self.cooling + self.reserved)
    }

    /// What is to be seen of it first: what is leased before what is at rest before what is set aside.
    pub fn kind(&self) -> Kind {
        match self {
            Self { active: 1.., .. } => Kind::Active,
            Self { cooling: 1.., .. } => Kind::Cooling,
            Self { gateway: true, .. } => Kind::Gateway,
            Self { reserved, .. } if *reserved > 0 && self.free() == 0 => Kind::Reserved,
            Self { leasable: 0, .. } => Kind::Outside,
            _ => Kind::Free,
        }
    }

    /// How much of it is leased, 0 to 1. Something is more than nothing.
    #[expect(clippy::cast_precision_loss, reason = "it is drawn")]
    pub fn fill(&self) -> f64 {
        if self.leasable == 0 {
            f64::from(u8::from(self.active > 0))
        } else {
            self.active as f64 / self.leasable as f64
        }
    }
}

impl Chart {
    pub fn of(cidr: IpNetwork, view: &View, known: &[KnownPool]) -> Self {
        let bits = if cidr.is_ipv4() { 32 } else { 128 };
        let cell_prefix = (cidr.prefix().saturating_add(CELLS)).min(bits);
        let span = Span::of(cidr);
        let here: Vec<&KnownPool> =
            known.iter().filter(|known| known.pool.spans().iter().any(|it| it.overlaps(span))).collect();
        let spans = disjoint(here.iter().flat_map(|known| known.pool.spans().iter().copied()));
        let gateways: Vec<IpAddr> =
            here.iter().flat_map(|known| known.pool.ranges()).filter_map(|range| range.gateway).collect();
        let mut cells: Vec<Cell> = pieces(cidr, cell_prefix)
            .map(|piece| Cell {
                cidr: piece,
                leasable: overlap(Span::of(piece), &spans),
                active: 0,
                cooling: 0,
                reserved: 0,
                gateway: piece.prefix() == bits && gateways.contains(&piece.ip()),
                who: None,
            })
            .collect();
        fill(&mut cells, cidr, cell_prefix, &spans, view);
        let mut networks: Vec<String> = here.iter().map(|known| known.network.to_string()).collect();
        networks.dedup();
        Self { cidr, networks, per_cell: Span::of(cells.first().map_or(cidr, |cell| cell.cidr)).len(), cells }
    }

    /// Of all cells.
    pub fn total(&self) -> Cell {
        let sum = |of: fn(&Cell) -> u128| self.cells.iter().fold(0_u128, |sum, cell| sum.saturating_add(of(cell)));
        Cell {
            cidr: self.cidr,
            leasable: sum(|cell| cell.leasable),
            active: sum(|cell| cell.active),
            cooling: sum(|cell| cell.cooling),
            reserved: sum(|cell| cell.reserved),
            gateway: false,
            who: None,
        }
    }

    /// Whether a cell is one address.
    pub fn is_single(&self) -> bool {
        self.per_cell == 1
    }
}

fn fill(cells: &mut [Cell], cidr: IpNetwork, cell_prefix: u8, spans: &[Span], view: &View) {
    let bits: u8 = if cidr.is_ipv4() { 32 } else { 128 };
    let shift = u32::from(bits - cell_prefix);
    let first = crate::span::bits(cidr.network());
    let whole = Span::of(cidr);
    let index = |address: IpAddr| {
        let offset = crate::span::bits(address).checked_sub(first).filter(|_| whole.contains(address))?;
        usize::try_from(offset.checked_shr(shift).unwrap_or(0)).ok()
    };
    let single = cell_prefix == bits;
    for lease in view.leases() {
        for address in lease.ips() {
            let Some(cell) = index(address).and_then(|index| cells.get_mut(index)) else { continue };
            cell.active += 1;
            if single {
                let pod = lease.pod.to_string();
                cell.who = Some(if pod.is_empty() { lease.attachment.container_id.to_string() } else { pod });
            }
        }
    }
    for cooling in view.cooling() {
        if let Some(cell) = index(cooling.address).and_then(|index| cells.get_mut(index)) {
            cell.cooling += 1;
        }
    }
    let reservations = view.reservations();
    let reserved = disjoint(reservations.iter().map(|it| Span::of(it.cidr)));
    let taken: Vec<IpAddr> =
        view.leases().iter().flat_map(crate::Record::ips).chain(view.cooling().map(|it| it.address)).collect();
    for cell in cells {
        let span = Span::of(cell.cidr);
        let set_aside: Vec<Span> = reserved.iter().filter(|it| it.overlaps(span)).copied().collect();
        if set_aside.is_empty() {
            continue;
        }
        let both: u128 = set_aside.iter().filter_map(|it| clip(*it, span)).map(|part| overlap(part, spans)).sum();
        let in_it = |ip: &&IpAddr| span.contains(**ip) && set_aside.iter().any(|it| it.contains(**ip));
        cell.reserved = both.saturating_sub(taken.iter().filter(in_it).count() as u128);
        if single && cell.who.is_none() {
            let why = reservations.iter().find(|it| it.cidr.contains(cell.cidr.ip()));
            cell.who = why.map(|it| it.reason.clone());
        }
    }
}

/// The CIDR in pieces with a longer prefix.
fn pieces(cidr: IpNetwork, prefix: u8) -> impl Iterator<Item = IpNetwork> {
    let bits: u8 = if cidr.is_ipv4() { 32 } else { 128 };
    let step = 1_u128.checked_shl(u32::from(bits - prefix)).unwrap_or(0);
    let first = crate::span::bits(cidr.network());
    let count = 1_u128 << (prefix - cidr.prefix());
    (0..count).filter_map(move |number| {
        let address = first.checked_add(number.checked_mul(step)?)?;
        let address = match cidr {
            IpNetwork::V4(_) => IpAddr::V4(u32::try_from(address).ok()?.into()),
            IpNetwork::V6(_) => IpAddr::V6(address.into()),
        };
        IpNetwork::new(address, prefix).ok()
    })
}

/// The same addresses as spans that do not overlap.
fn disjoint(spans: impl Iterator<Item = Span>) -> Vec<Span> {
    spans.fold(Vec::new(), |mut found: Vec<Span>, span| {
        let rest = found.iter().fold(vec![span], |rest: Vec<Span>, other| {
            rest.into_iter().flat_map(|piece| piece.without(*other)).collect()
        });
        found.extend(rest);
        found
    })
}

fn clip(span: Span, to: Span) -> Option<Span> {
    span.overlaps(to).then(|| Span { first: span.first.max(to.first), last: span.last.min(to.last) })
}

/// How many addresses of a span are in disjoint spans.
fn overlap(span: Span, spans: &[Span]) -> u128 {
    spans.iter().filter_map(|other| clip(*other, span)).map(Span::len).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(first: &str, last: &str) -> Span {
        Span { first: first.parse().unwrap(), last: last.parse().unwrap() }
    }

    #[test]
    fn a_cidr_is_cut_into_equal_pieces() {
        let cut = |cidr: &str, prefix| {
            let pieces: Vec<String> = pieces(cidr.parse().unwrap(), prefix).map(|piece| piece.to_string()).collect();
            (pieces.len(), pieces.last().cloned().unwrap())
        };
        assert_eq!(cut("10.1.0.0/16", 24), (256, "10.1.255.0/24".to_owned()));
        assert_eq!(cut("255.255.255.0/24", 32), (256, "255.255.255.255/32".to_owned()));
        assert_eq!(cut("fd00::/64", 72), (256, "fd00::ff00:0:0:0/72".to_owned()));
        assert_eq!(cut("::/0", 8), (256, "ff00::/8".to_owned()));
    }

    #[test]
    fn overlapping_spans_count_once() {
        let spans = [span("10.0.0.0", "10.0.0.9"), span("10.0.0.5", "10.0.0.19"), span("10.0.0.2", "10.0.0.3")];
        let spans = disjoint(spans.into_iter());
        assert_eq!(spans.iter().map(|it| it.len()).sum::<u128>(), 20);
        assert_eq!(overlap(span("10.0.0.8", "10.0.0.11"), &spans), 4);
    }
}
