//! CHECK: reads what is there, and compares it with the plan that `prevResult` implies.

use cni_spec::{CheckRequest, CniResult};
use ipnetwork::IpNetwork;

use crate::config::Config;
pub use crate::diff::Difference;
use crate::diff::differences;
use crate::firewall::Firewall;
use crate::observe::observe;
use crate::plan::{Wiring, gateway_for};
use crate::pod::{Ends, Node, Pod};
use crate::{Error, addresses};

/// Serves a CHECK.
///
/// # Errors
/// [`Error::Differs`] with every difference; the IPAM plugin's own error if only that fails.
pub fn check(request: &CheckRequest) -> Result<(), Error> {
    let config = Config::of(&request.config).map_err(Error::Config)?;
    let node = Node::open()?;
    let pod = Pod::open(&request.netns)?;
    let wiring = expected(request, &config)?;
    let steps: Vec<_> = wiring.link_steps().into_iter().chain(wiring.address_steps()).collect();

    let mut firewall = config.masquerade.as_ref().map(|_| Firewall::open(&request.attachment.network)).transpose()?;
    let observed = observe(&steps, &wiring, &Ends { node: &node, pod: &pod }, firewall.as_mut())?;
    let mut found = unlisted(&request.prev_result, &wiring);
    found.extend(differences(&steps, &observed));
    if let (Some(firewall), Some(rules)) = (firewall.as_mut(), &config.masquerade) {
        found.extend(firewall.differences(rules, &wiring.addresses)?);
    }
    if found.is_empty() { addresses::check(&config.ipam_type, request) } else { Err(Error::Differs(found)) }
}

/// What ADD would have made of the addresses and routes that `prevResult` lists for this interface.
fn expected(request: &CheckRequest, config: &Config) -> Result<Wiring, Error> {
    let result = &request.prev_result;
    // Routes to another next hop belong to another plugin of the chain.
    let ours = |gw: &Option<std::net::IpAddr>| gw.is_none_or(|gw| gw == gateway_for(gw));
    let mut wiring = Wiring::of(&request.attachment, config, &request.netns, config.mtu)?;
    wiring.addresses = own_addresses(result, request.attachment.ifname.as_str());
    wiring.routes = result.routes.iter().filter(|route| ours(&route.gw)).cloned().collect();
    Ok(wiring)
}

/// The addresses of the interface of that name that is inside a sandbox.
fn own_addresses(result: &CniResult, ifname: &str) -> Vec<IpNetwork> {
    let is_ours = |index: usize| {
        let interface = result.interfaces.get(index);
        interface.is_some_and(|interface| interface.sandbox.is_some() && interface.name == ifname)
    };
    result.ips.iter().filter(|ip| ip.interface.is_some_and(is_ours)).map(|ip| ip.address).collect()
}

/// What `prevResult` should list and does not.
fn unlisted(result: &CniResult, wiring: &Wiring) -> Vec<Difference> {
    let missing = |expected: String| Difference { expected, found: "nothing of the kind in prevResult".to_owned() };
    let mut found = Vec::new();
    for interface in wiring.interfaces() {
        let listed = |other: &cni_spec::Interface| {
            other.name == interface.name && other.sandbox.is_some() == interface.sandbox.is_some()
        };
        if !result.interfaces.iter().any(listed) {
            found.push(missing(format!("interface {}", interface.name)));
        }
    }
    if wiring.addresses.is_empty() {
        found.push(missing(format!("an address of interface {}", wiring.ifname)));
    }
    found
}
