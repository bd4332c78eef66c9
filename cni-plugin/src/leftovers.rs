//! What an ADD finds in the node's rules that no DEL took away: of the same attachment, whose namespace went and came back,
//! or of whoever had its addresses before, in whichever network of the node. An element that stays lets the pod send from an address that is another's by
//! now; a rule that stays masquerades a pod that is not to be.

use std::net::IpAddr;

use cni_spec::NetworkName;
use ipnetwork::IpNetwork;

use crate::config::Guard;
use crate::firewall::Firewall;
use crate::plan::Wiring;
use crate::{Error, iptables};

/// Removes it, before anything of this ADD is there. Where links are guarded, what is not there is looked for by few keys, so
/// it costs the same however many pods there are; where no iptables was ever used, it is one file that is not there.
///
/// # Errors
/// [`Error::NoNftables`], [`Error::Netlink`], [`Error::Observe`], [`Error::Step`].
pub fn clear(wiring: &Wiring, network: &NetworkName) -> Result<(), Error> {
    let addresses: Vec<IpAddr> = wiring.addresses.iter().map(IpNetwork::ip).collect();
    // By iptables the rules themselves replace what is there.
    if wiring.masquerade_frame.is_none() {
        iptables::clear(network, &wiring.names.owner, &addresses)?;
    }
    let firewall = match wiring.rules.is_empty() {
        true => Firewall::open_if_any(network)?,
        false => Some(Firewall::open(network)?),
    };
    // And elements of the same set replace each other.
    let others = if wiring.masquerade_table.is_some() { &[] } else { addresses.as_slice() };
    if let Some(mut firewall) = firewall {
        firewall.clear(&wiring.names, others, wiring.guard != Guard::Off)?;
        firewall.clear_elsewhere(&addresses)?;
    }
    Ok(())
}
