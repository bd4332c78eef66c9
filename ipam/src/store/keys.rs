//! The keys of the one tree: a letter for the kind, then fixed-width or zero-ended parts, so that scans are
//! ordered as they are used.
//!
//! | key | value |
//! |---|---|
//! | `m` name | what holds for the whole ledger |
//! | `l` network 0 container id 0 ifname | the lease: the truth |
//! | `a` family address | the attachment that holds the address: derived from the leases |
//! | `r` family address | when the address was released last, and from which pool |
//! | `q` pool 0 time family address | the same, in the order of release; not of kept addresses |
//! | `c` pool | the pool's cursor |
//! | `p` network 0 pool | the pool as the network's config described it last |
//! | `f` pool | that it is used up: see [`super::UsedUp`] |
//! | `y` network 0 pod namespace 0 pod name 0 ifname | the addresses that the pod is to get again; outlives the boot |
//! | `s` family address | the end of the key of the pod that it is kept for; outlives the boot |
//! | `e` family address | nothing: the address is kept, and not leased; derived from `s` and `a` |
//! | `k` network 0 container id 0 ifname | nothing: the lease was read off the kernel; derived from the leases |
//! | `t` network 0 container id 0 ifname | when the attachment was deleted |
//! | `o` time network 0 container id 0 ifname | nothing: the same, in the order of time |

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use cni_spec::{Attachment, NetworkName};

use crate::pool::PoolKey;
use crate::sticky::StickyPod;

pub(super) const SCHEMA: &[u8] = b"mschema";
pub(super) const BOOT: &[u8] = b"mboot";
/// How many transactions have ended or begun leases.
pub(super) const GENERATION: &[u8] = b"mgeneration";

/// What begins every key of a kind.
pub(super) const LEASES: &[u8] = b"l";
pub(super) const RECOVERED: &[u8] = b"k";
pub(super) const TOMBSTONES: &[u8] = b"t";
pub(super) const RELEASES: &[u8] = b"r";
pub(super) const POOLS: &[u8] = b"p";
pub(super) const USED_UP: &[u8] = b"f";
pub(super) const KEPT: &[u8] = b"s";
/// All kinds that end with the boot.
pub(super) const OF_THE_BOOT: [&[u8]; 10] = [b"l", b"a", b"r", b"q", b"c", b"p", b"f", b"k", b"t", b"o"];

pub(super) fn lease(attachment: &Attachment) -> Vec<u8> {
    named(b'l', attachment)
}

/// What begins the keys of all leases of a network.
pub(super) fn leases_of(network: &NetworkName) -> Vec<u8> {
    [LEASES, network.as_str().as_bytes(), &[0]].concat()
}

pub(super) fn recovered(attachment: &Attachment) -> Vec<u8> {
    named(b'k', attachment)
}

/// Above the keys of all recovered leases of a network, and below those of the next: names have no bytes below this one.
pub(super) fn after_recovered_of(network: &NetworkName) -> Vec<u8> {
    [RECOVERED, network.as_str().as_bytes(), &[1]].concat()
}

pub(super) fn tombstone(attachment: &Attachment) -> Vec<u8> {
    named(b't', attachment)
}

/// What begins the keys of tombstones in the order of time.
pub(super) const TOMBSTONES_BY_AGE: &[u8] = b"o";

pub(super) fn tombstone_by_age(at: u64, attachment: &Attachment) -> Vec<u8> {
    [TOMBSTONES_BY_AGE, &at.to_be_bytes(), &named(b't', attachment)[1..]].concat()
}

/// Time and attachment in such a key.
pub(super) fn buried_in(key: &[u8]) -> Option<(u64, Attachment)> {
    let (at, _) = key.get(1..)?.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*at), attachment_in(key.get(8..)?)?))
}

/// The attachment in the key of a lease, a recovered lease or a tombstone.
pub(super) fn attachment_in(key: &[u8]) -> Option<Attachment> {
    let mut names = std::str::from_utf8(key.get(1..)?).ok()?.split('\0');
    let (network, container_id, ifname) = (names.next()?, names.next()?, names.next()?);
    let attachment = Attachment {
        network: network.parse().ok()?,
        container_id: container_id.parse().ok()?,
        ifname: ifname.parse().ok()?,
    };
    names.next().is_none().then_some(attachment)
}

/// Names have no zero bytes: cni-spec's newtypes see to that.
fn named(kind: u8, attachment: &Attachment) -> Vec<u8> {
    let Attachment { network, container_id, ifname } = attachment;
    let parts = [network.as_str().as_bytes(), container_id.as_str().as_bytes(), ifname.as_str().as_bytes()];
    [&[kind], parts.join(&0).as_slice()].concat()
}

pub(super) fn address(address: IpAddr) -> Vec<u8> {
    [b"a".as_slice(), &of_address(address)].concat()
}

pub(super) fn released(address: IpAddr) -> Vec<u8> {
    [b"r".as_slice(), &of_address(address)].concat()
}

pub(super) fn queued(pool: &PoolKey, at: u64, address: IpAddr) -> Vec<u8> {
    [queue(pool).as_slice(), &at.to_be_bytes(), &of_address(address)].concat()
}

/// What begins the keys of a pool's releases.
pub(super) fn queue(pool: &PoolKey) -> Vec<u8> {
    [b"q", pool.0.as_bytes(), &[0]].concat()
}

pub(super) fn cursor(pool: &PoolKey) -> Vec<u8> {
    [b"c", pool.0.as_bytes()].concat()
}

pub(super) fn used_up(pool: &PoolKey) -> Vec<u8> {
    [USED_UP, pool.0.as_bytes()].concat()
}

/// Names of pods come from outside: a zero byte in one must not make two pods one.
pub(super) fn sticky(pod: &StickyPod) -> Vec<u8> {
    let parts = [pod.network.as_str(), &pod.namespace, &pod.name, pod.ifname.as_str()];
    [b"y", parts.map(|part| part.replace('\0', "\u{fffd}")).join("\0").as_bytes()].concat()
}

pub(super) fn kept(address: IpAddr) -> Vec<u8> {
    [KEPT, &of_address(address)].concat()
}

pub(super) fn kept_and_free(address: IpAddr) -> Vec<u8> {
    [b"e".as_slice(), &of_address(address)].concat()
}

pub(super) fn known_pool(network: &NetworkName, pool: &str) -> Vec<u8> {
    [known_pools_of(network).as_slice(), pool.as_bytes()].concat()
}

/// What begins the keys of all pools of a network.
pub(super) fn known_pools_of(network: &NetworkName) -> Vec<u8> {
    [POOLS, network.as_str().as_bytes(), &[0]].concat()
}

const ADDRESS: usize = 17;

/// The family's number, then the address in 16 bytes, big endian: ordered as addresses are.
fn of_address(address: IpAddr) -> [u8; ADDRESS] {
    let (family, bits) = match address {
        IpAddr::V4(v4) => (4, u128::from(v4.to_bits())),
        IpAddr::V6(v6) => (6, v6.to_bits()),
    };
    let mut key = [family; ADDRESS];
    key[1..].copy_from_slice(&bits.to_be_bytes());
    key
}

/// The address at the end of a key.
pub(super) fn address_in(key: &[u8]) -> Option<IpAddr> {
    let (family, bits) = key.last_chunk::<ADDRESS>()?.split_first()?;
    let bits = u128::from_be_bytes(bits.try_into().ok()?);
    match family {
        4 => u32::try_from(bits).ok().map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits))),
        6 => Some(IpAddr::V6(Ipv6Addr::from_bits(bits))),
        _ => None,
    }
}

/// Time and address at the end of a release's key.
pub(super) fn release_in(key: &[u8]) -> Option<(u64, IpAddr)> {
    let address = address_in(key)?;
    let time = key.get(..key.len().checked_sub(ADDRESS)?)?.last_chunk::<8>()?;
    Some((u64::from_be_bytes(*time), address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_back_from_their_keys_and_sort_as_addresses() {
        let texts = ["0.0.0.0", "9.255.255.255", "10.0.0.1", "255.255.255.255", "::", "::1", "fd00::1", "ff00::"];
        let addresses = texts.map(|text| text.parse::<IpAddr>().unwrap());
        let mut keys = addresses.map(address).to_vec();
        assert_eq!(keys.iter().map(|key| address_in(key).unwrap()).collect::<Vec<_>>(), addresses);
        let unsorted = keys.clone();
        keys.sort();
        assert_eq!(keys, unsorted);
    }

    #[test]
    fn releases_sort_by_time_within_their_pool() {
        let pool = PoolKey("10.0.0.1-10.0.0.9".into());
        let early = queued(&pool, 255, "10.0.0.9".parse().unwrap());
        let late = queued(&pool, 256, "10.0.0.1".parse().unwrap());
        assert!(early < late);
        assert_eq!(release_in(&late), Some((256, "10.0.0.1".parse().unwrap())));
        assert!(!late.starts_with(&queue(&PoolKey("10.0.0.1-10.0.0".into()))));
    }

    #[test]
    fn a_damaged_key_is_no_address() {
        assert_eq!(address_in(b"a"), None);
        assert_eq!(address_in(&[7; 18]), None);
        assert_eq!(release_in(&of_address("10.0.0.1".parse().unwrap())), None);
    }
}
