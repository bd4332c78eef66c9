//! The masquerade rules of a network, as values: one static rule set, and one set element per pod. [`iptables`] has the same for
//! nodes that masquerade by iptables.
//!
//! Pods are listed by address rather than by pool: so the rules hold for any IPAM plugin and depend on nothing
//! but the config, each element carries its owner, and the network's last DEL can tell that it is the last.

pub mod iptables;

use std::net::IpAddr;

use cni_spec::NetworkName;
use data_encoding::BASE32HEX_NOPAD;
use ipnetwork::IpNetwork;
use nft_model::{Base, Chain, Element, Family, Field, Hook, Invalid, Kind, Rule, Set, Statement, Table, Type, Value};
use sha2::{Digest, Sha256};

use crate::config::Masquerade;
use crate::names::masquerade_table;

/// The set of pod addresses.
pub const PODS: &str = "pods";

/// The rule set of one family, without any pod. It depends on the config alone, so that all pods of a network
/// agree about it.
///
/// # Errors
/// None that a checked config can cause; the model checks what it is given.
pub fn table(network: &NetworkName, family: Family, masquerade: &Masquerade) -> Result<Table, Invalid> {
    let kept = not_to(masquerade, family);
    let source = masquerade.source.iter().find(|source| Family::of(**source) == family);
    let translation = source.map_or(Statement::Masquerade, |source| Statement::Snat(*source));
    let beyond = |name: &str| {
        Chain::new(name)
            .with_rule([Statement::lookup([Field::Daddr], PODS), Statement::Return])
            .with_rules(kept.iter().map(|cidr| Rule::from([Statement::DaddrIn(*cidr), Statement::Return])))
    };
    let from_pods = || Statement::lookup([Field::Saddr], PODS);
    let postrouting = Chain::base("postrouting", Base::srcnat()).with_rule([from_pods(), Statement::jump("outside")]);
    let mut chains = vec![beyond("outside").with_rule([translation]), postrouting];
    if !masquerade.keep_invalid {
        chains.push(beyond("invalid").with_rule([Statement::Counter, Statement::Drop]));
        let forward = Base::new(Kind::Filter, Hook::Forward, 0);
        let to_invalid = [Statement::CtStateInvalid, from_pods(), Statement::jump("invalid")];
        chains.push(Chain::base("forward", forward).with_rule(to_invalid));
    }
    let build = |comment| {
        let sets = vec![Set::new(PODS, [Type::Addr])];
        Table::new(family, masquerade_table(network), comment, sets, chains.clone())
    };
    let plain = build(None)?;
    build(Some(&fingerprint(&plain.to_string())))
}

/// The element that makes a pod's packets leave with the node's address.
#[must_use]
pub fn element(address: IpAddr, owner: &str) -> Element {
    Element::new([Value::Addr(address)]).with_comment(owner)
}

/// Where packets of pods go on as they are, besides to pods.
fn not_to(masquerade: &Masquerade, family: Family) -> Vec<IpNetwork> {
    let cidrs = masquerade.not_to.iter().copied();
    let mut kept: Vec<IpNetwork> = cidrs.filter(|cidr| Family::of_network(*cidr) == family).collect();
    kept.push(multicast(family));
    kept.sort_unstable();
    kept.dedup();
    kept
}

/// Kept as a comment of what pods share: tells whether rules that are there were made from the same config.
fn fingerprint(rules: &str) -> String {
    let digest = Sha256::digest(rules);
    format!("podwire {}", BASE32HEX_NOPAD.encode(&digest[..10]).to_ascii_lowercase())
}

/// 224.0.0.0/4 (RFC 5771) and ff00::/8 (RFC 4291): members of a group answer to the address they see.
fn multicast(family: Family) -> IpNetwork {
    let (address, prefix) = match family {
        Family::Ip => (IpAddr::from([224, 0, 0, 0]), 4),
        Family::Ip6 => (IpAddr::from([0xff00, 0, 0, 0, 0, 0, 0, 0]), 8),
    };
    IpNetwork::new(address, prefix).unwrap_or_else(|_| IpNetwork::from(address))
}
