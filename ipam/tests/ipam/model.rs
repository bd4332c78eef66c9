//! The whole ledger against a model of a few lines, through random lives: leases, retries, restarts of containers, releases,
//! undone ADDs, GC, lost databases, and networks whose pools are the same, or overlap, or change in the meantime.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use cni_spec::{ValidAttachment, ValidAttachments};
use ipam::{Ipam, Netns, Released, code};
use proptest::prelude::*;
use serde_json::json;

use crate::support::{Place, attachment, damage};

const NETWORKS: [&str; 2] = ["red", "blue"];
/// The ranges that a network may have: the last address of each. All begin with 10.1.2.2.
const RANGES: [u8; 2] = [6, 9];

#[derive(Debug, Clone)]
enum Step {
    Add {
        network: usize,
        container: u8,
        restarted: bool,
    },
    Undo {
        network: usize,
        container: u8,
    },
    Del {
        network: usize,
        container: u8,
    },
    Gc {
        network: usize,
        valid: BTreeSet<u8>,
    },
    /// The network's config has another range from now on; leases stand.
    Range {
        network: usize,
        range: usize,
    },
    Damage,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (network, container) = (0..NETWORKS.len(), 0..7_u8);
    let step = prop_oneof![
        8 => (network.clone(), container.clone(), prop::bool::weighted(0.2))
            .prop_map(|(network, container, restarted)| Step::Add { network, container, restarted }),
        1 => (network.clone(), container.clone()).prop_map(|(network, container)| Step::Undo { network, container }),
        4 => (network.clone(), container.clone()).prop_map(|(network, container)| Step::Del { network, container }),
        2 => (network.clone(), 0..RANGES.len()).prop_map(|(network, range)| Step::Range { network, range }),
        1 => (network, proptest::collection::btree_set(container, 0..7))
            .prop_map(|(network, valid)| Step::Gc { network, valid }),
        1 => Just(Step::Damage),
    ];
    proptest::collection::vec(step, 1..40)
}

/// In seconds: nothing has rested before a life ends, so every address that is given again is one that cools down.
const COOLDOWN: u64 = 3600;

/// What must be so: who has which addresses, and from which namespace.
type Model = BTreeMap<(usize, u8), (Vec<IpAddr>, u32)>;

fn is_in(address: IpAddr, last: u8) -> bool {
    matches!(address, IpAddr::V4(v4) if (2..=last).contains(&v4.octets()[3]))
}

fn add(ipam: &Ipam, place: &Place, model: &mut Model, key: (usize, u8), restarts: &mut u32, restarted: bool, last: u8) {
    let (network, container) = key;
    let before = model.get(&key).cloned();
    if restarted {
        *restarts += 1;
    }
    let incarnation = match &before {
        Some((_, incarnation)) if !restarted => *incarnation,
        _ => *restarts,
    };
    let mut request = place.request(NETWORKS[network], &format!("c{container}"));
    request.netns = Netns::at(&place.netns(&format!("{network}-{container}-{incarnation}")));
    let fits = |ips: &[IpAddr]| ips.iter().any(|ip| is_in(*ip, last));
    let same = before.as_ref().is_some_and(|(ips, before)| *before == incarnation && fits(ips));
    match ipam.lease(&request) {
        Ok(lease) => {
            let ips: Vec<IpAddr> = lease.addresses.iter().map(|leased| leased.address.ip()).collect();
            assert_eq!(lease.fresh, !same);
            if let Some((before, _)) = before.filter(|_| same) {
                assert_eq!(ips, before, "asked again, it is the same");
            }
            model.insert(key, (ips, incarnation));
        }
        Err(error) => {
            assert_eq!(error.code(), code::EXHAUSTED, "{error}");
            let others = model.iter().filter(|(other, _)| **other != key).flat_map(|(_, (ips, _))| ips);
            let held = others.filter(|ip| is_in(**ip, last)).count();
            assert!(held == usize::from(last - 1) && !same, "{held} are leased up to {last}");
            model.remove(&key);
        }
    }
}

fn compare(place: &Place, model: &Model, after: &Step) {
    let mut held = BTreeSet::new();
    let mut leases = BTreeMap::new();
    for lease in place.leases() {
        let ips: Vec<IpAddr> = lease.ips().collect();
        assert!(ips.iter().all(|ip| held.insert(*ip)), "after {after:?}: {ips:?} is leased twice");
        leases.insert(lease.attachment.to_string(), ips);
    }
    let name = |(network, container): &(usize, u8)| format!("{} c{container} eth0", NETWORKS[*network]);
    let expected: BTreeMap<String, Vec<IpAddr>> =
        model.iter().map(|(key, (ips, _))| (name(key), ips.clone())).collect();
    assert_eq!(leases, expected, "after {after:?}");
}

fn live(steps: &[Step]) {
    let place = Place::new();
    let mut lasts = [RANGES[0], RANGES[1]];
    let mut model = Model::new();
    let mut restarts = 0;
    for step in steps {
        let conf = |last: u8| {
            json!({ "cooldownSeconds": COOLDOWN, "ranges": [
                [{ "subnet": "10.1.2.0/24", "rangeEnd": format!("10.1.2.{last}") }], [{ "subnet": "fd00::/64" }],
            ] })
        };
        let ipams = [0, 1].map(|network| place.ipam(NETWORKS[network], &conf(lasts[network])));
        match step {
            Step::Add { network, container, restarted } => {
                let (ipam, key, last) = (&ipams[*network], (*network, *container), lasts[*network]);
                add(ipam, &place, &mut model, key, &mut restarts, *restarted, last);
            }
            Step::Undo { network, container } => {
                let key = (*network, *container);
                restarts += 1;
                let mut request = place.request(NETWORKS[*network], &format!("c{container}"));
                request.netns = Netns::at(&place.netns(&format!("undone-{restarts}")));
                model.remove(&key);
                if let Ok(lease) = ipams[*network].lease(&request) {
                    ipams[*network].undo(&lease).unwrap();
                }
            }
            Step::Del { network, container } => {
                let released = ipams[*network].release(&attachment(NETWORKS[*network], &format!("c{container}")));
                let expected = model.remove(&(*network, *container)).map(|(ips, _)| Released::Lease(ips));
                assert_eq!(released.unwrap(), expected.unwrap_or(Released::Nothing));
            }
            Step::Gc { network, valid } => {
                let named = |container: &u8| ValidAttachment {
                    container_id: format!("c{container}").parse().unwrap(),
                    ifname: "eth0".parse().unwrap(),
                };
                let list = ValidAttachments(valid.iter().map(named).collect());
                let before = model.len();
                model.retain(|(of, container), _| of != network || valid.contains(container));
                let ended = ipams[*network].gc(&NETWORKS[*network].parse().unwrap(), &list).unwrap();
                assert_eq!(ended, before - model.len());
            }
            Step::Range { network, range } => lasts[*network] = RANGES[*range],
            Step::Damage => {
                if place.data_dir().join("ledger").exists() {
                    place.undisturbed(|| damage(&place.data_dir()));
                    // Looking mends nothing; the next who changes something does.
                    ipams[0].release(&attachment("red", "nobody")).unwrap();
                }
            }
        }
        compare(&place, &model, step);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn the_ledger_lives_as_its_model(steps in steps()) {
        live(&steps);
    }
}
