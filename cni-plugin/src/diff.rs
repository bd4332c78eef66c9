//! CHECK's heart: is every step of the plan still in force? Pure: what is there was read before.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use cni_spec::Route;
use ipnetwork::IpNetwork;
use macaddr::MacAddr6;

use crate::config::Rate;
use crate::routes;
use crate::ruleset::Placed;
use crate::step::{Place, Step};

/// What the kernel holds on one side of the pair.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Side {
    /// The attachment's link, if it is there.
    pub link: Option<ObservedLink>,
    /// Its addresses.
    pub addresses: Vec<IpNetwork>,
    /// Routes: those that leave by it on the node, and all of the pod.
    pub routes: Vec<ObservedRoute>,
    /// Permanent neighbour entries on it.
    pub neighbours: Vec<(IpAddr, MacAddr6)>,
    /// How fast it sends, if that is limited.
    pub shaped: Option<Shaped>,
}

/// A token bucket, as far as the kernel gives it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shaped {
    /// Bytes per second.
    pub rate: u64,
    /// Bytes that may wait.
    pub limit: u32,
}

/// A link, as far as a plan says anything about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedLink {
    /// Its index in its namespace.
    pub index: u32,
    /// Of the node's end: the pod's index, if that is where it leads.
    pub peer: Option<u32>,
    /// Whether it is up.
    pub up: bool,
    /// Whether it has a carrier: the other end is up too.
    pub carrier: bool,
    /// Its hardware address.
    pub mac: Option<MacAddr6>,
    /// Its ifalias.
    pub alias: Option<String>,
}

/// A route, as far as a plan says anything about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedRoute {
    /// Destination.
    pub dst: IpNetwork,
    /// Next hop.
    pub gw: Option<IpAddr>,
    /// The link that it leaves by.
    pub link: String,
    /// Its table, if it is not the main one.
    pub table: Option<u32>,
}

/// Everything a plan could have changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    /// The node's side.
    pub host: Side,
    /// The pod's side.
    pub pod: Side,
    /// Values of the settings that the plan names; missing if unreadable.
    pub sysctls: BTreeMap<(Place, String), String>,
    /// Rules inside the pod: packets from which address are routed by which table.
    pub rules: Vec<(IpAddr, u32)>,
    /// Elements in sets of nf_tables, without their comments, and these.
    pub elements: BTreeMap<Placed, Option<String>>,
}

/// One thing that is not as ADD left it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// What should be in force, in the words of its tool.
    pub expected: String,
    /// What is there instead.
    pub found: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected `{}`, found {}", self.expected, self.found)
    }
}

/// What an attachment has in sets of nf_tables that the plan does not know: it may send from an address that is not its own.
#[must_use]
pub fn surplus(owner: &str, wanted: &[Placed], observed: &Observed) -> Vec<Difference> {
    let wanted: Vec<Placed> = wanted.iter().map(Placed::key).collect();
    let own = observed.elements.iter().filter(|(_, comment)| comment.as_deref() == Some(owner));
    let surplus = own.filter(|(placed, _)| !wanted.contains(placed));
    surplus
        .map(|(placed, _)| Difference { expected: format!("no `nft {placed}`"), found: "that element".to_owned() })
        .collect()
}

/// Every step that is not in force, in the order of the plan.
#[must_use]
pub fn differences(steps: &[Step], observed: &Observed) -> Vec<Difference> {
    let difference = |step: &Step| {
        let found = found_instead(step, observed)?;
        Some(Difference { expected: step.to_string(), found })
    };
    steps.iter().filter_map(difference).collect()
}

impl Observed {
    fn side(&self, place: Place) -> &Side {
        match place {
            Place::Host => &self.host,
            Place::Pod => &self.pod,
        }
    }
}

/// `None` if the step is in force. Later plugins of the chain may change hardware addresses, MTUs and metrics
/// (spec section 2, "CHECK"), so those are not compared.
fn found_instead(step: &Step, observed: &Observed) -> Option<String> {
    match step {
        Step::Veth { host, pod, alias, .. } => veth(host, pod, alias, observed),
        // For a DEL alone, and whoever is in the pod may write there, too.
        Step::Alias { .. } => None,
        // The link was found by its alias, whatever it is called; what carries its name is looked at on its own.
        Step::Rename { .. } => None,
        Step::Sysctl { place, key, value } => match observed.sysctls.get(&(*place, key.clone())) {
            Some(found) if found == value => None,
            Some(found) => Some(found.clone()),
            None => Some("no such setting".to_owned()),
        },
        Step::KeepAddresses { .. } => None,
        // The loopback belongs to the runtime: it may be down before the runtime's own plugin ran.
        Step::Up { link, .. } if link == "lo" => None,
        Step::Up { place, .. } => {
            let up = observed.side(*place).link.as_ref().is_some_and(|link| link.up);
            (!up).then(|| "the link down or gone".to_owned())
        }
        Step::Carrier { place, .. } => {
            let carrier = observed.side(*place).link.as_ref().is_some_and(|link| link.carrier);
            (!carrier).then(|| "no carrier".to_owned())
        }
        Step::Address { place, address, .. } => {
            let of_family = |found: &&IpNetwork| found.is_ipv4() == address.is_ipv4();
            missing(observed.side(*place).addresses.iter().filter(of_family), |found| found == address)
        }
        Step::Neighbour { permanent: false, .. } => None,
        Step::Neighbour { place, address, .. } => neighbour(*place, *address, observed),
        Step::Rule { from, table } => {
            (!observed.rules.contains(&(*from, *table))).then(|| "nothing of the kind".to_owned())
        }
        Step::Shape { place, rate, .. } => shape(*rate, observed.side(*place).shaped),
        Step::Route { place, link, route, .. } => {
            let of_family = |found: &&ObservedRoute| found.dst.is_ipv4() == route.dst.is_ipv4();
            missing(observed.side(*place).routes.iter().filter(of_family), |found| same_way(found, route, link))
        }
        // What all pods share is compared together with them, rule by rule and in order.
        Step::Masquerade(_) => None,
        Step::Element(placed) => match observed.elements.get(&placed.key()) {
            Some(found) if *found == placed.element.comment => None,
            Some(found) => Some(format!("the element of {:?}", found.as_deref().unwrap_or_default())),
            None => Some("no such element".to_owned()),
        },
    }
}

fn shape(wanted: Rate, found: Option<Shaped>) -> Option<String> {
    match found {
        None => Some("no token bucket".to_owned()),
        Some(found) if (found.rate, found.limit) == (wanted.rate, wanted.limit) => None,
        Some(Shaped { rate, limit }) => Some(format!("rate {rate}bps limit {limit}b")),
    }
}

/// DEL of a link that somebody renamed, GC and `inspect` know the pair by its alias.
fn veth(host: &str, pod: &str, alias: &str, observed: &Observed) -> Option<String> {
    match (&observed.host.link, &observed.pod.link) {
        (None, None) => Some("neither end".to_owned()),
        (None, Some(_)) => Some(format!("no link {host:?} on the node")),
        (Some(_), None) => Some(format!("no link {pod:?} in the pod")),
        (Some(one), Some(other)) if one.peer != Some(other.index) => Some("two links that are not a pair".to_owned()),
        (Some(one), Some(_)) if !one.up => Some("the node's end down".to_owned()),
        (Some(one), Some(_)) if one.alias.as_deref() != Some(alias) => {
            Some(one.alias.as_ref().map_or_else(|| "no alias".to_owned(), |found| format!("alias {found:?}")))
        }
        (Some(_), Some(_)) => None,
    }
}

/// The entry must lead to where the other end is now, not to where it was made.
fn neighbour(place: Place, address: IpAddr, observed: &Observed) -> Option<String> {
    let other = match place {
        Place::Host => &observed.pod.link,
        Place::Pod => &observed.host.link,
    };
    let mac = other.as_ref().and_then(|link| link.mac);
    let entry = observed.side(place).neighbours.iter().find(|(found, _)| *found == address);
    match entry {
        Some((_, found)) if Some(*found) == mac => None,
        Some((_, found)) => Some(format!("lladdr {}", found.to_string().to_ascii_lowercase())),
        None => Some("no such entry".to_owned()),
    }
}

fn same_way(found: &ObservedRoute, route: &Route, link: &str) -> bool {
    let network = |cidr: IpNetwork| (cidr.network(), cidr.prefix());
    let way = (network(found.dst), found.gw, found.link.as_str(), found.table);
    way == (network(route.dst), route.gw, link, routes::own_table(route))
}

/// What there is of the kind instead, in the words of `ip(8)`.
fn missing<'a, T: fmt::Display + 'a>(found: impl Iterator<Item = &'a T>, is_it: impl Fn(&T) -> bool) -> Option<String> {
    let mut others = Vec::new();
    for one in found {
        if is_it(one) {
            return None;
        }
        others.push(one.to_string());
    }
    Some(if others.is_empty() { "nothing of the kind".to_owned() } else { format!("only {}", others.join(", ")) })
}

impl fmt::Display for ObservedRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.dst)?;
        if let Some(gw) = self.gw {
            write!(f, " via {gw}")?;
        }
        write!(f, " dev {}", self.link)?;
        self.table.map_or(Ok(()), |table| write!(f, " table {table}"))
    }
}
