//! GC: removes what belongs to no valid attachment of the network, wherever it is.

use cni_spec::{Attachment, GcRequest, ValidAttachment};
use kernel::rtnl::Link;
use macaddr::MacAddr6;

use crate::firewall::Firewall;
use crate::names::Names;
use crate::pod::Node;
use crate::{Error, addresses, iptables};

/// Serves a GC. Rules go before links, as in a DEL, and addresses last.
///
/// # Errors
/// Everything that could not be removed, after all else was.
pub fn gc(request: &GcRequest) -> Result<(), Error> {
    let mut errors = Vec::new();
    errors.extend(iptables::gc(&request.config.name, &request.valid).err());
    // Open until the links are gone: closing it would wait.
    let firewall = stale_rules(request);
    match stale_links(request) {
        Ok(failures) => errors.extend(failures),
        Err(error) => errors.push(error),
    }
    errors.extend(firewall.err());
    // An address that a link still uses stays leased; the next GC tries again.
    if errors.is_empty() {
        errors.extend(addresses::gc(request).err());
    }
    Error::all_of(errors)
}

fn stale_rules(request: &GcRequest) -> Result<Option<Firewall>, Error> {
    let mut firewall = Firewall::open_if_any(&request.config.name)?;
    firewall.as_mut().map_or(Ok(()), |rules| rules.gc(&request.valid))?;
    Ok(firewall)
}

/// The runtime keeps ADDs away while it collects (spec section 2, "GC"), so a pair without an alias is a leftover.
fn stale_links(request: &GcRequest) -> Result<Vec<Error>, Error> {
    let node = Node::open()?;
    let network = &request.config.name;
    let stale = node
        .own_links()?
        .into_iter()
        .filter(|(attachment, _)| attachment.network == *network && !request.valid.contains(attachment))
        .map(|(_, link)| link);
    let valid = host_macs_of_valid(request);
    let is_stale = |link: &Link| link.mac.is_none_or(|mac| !valid.contains(&mac));
    let unfinished = node.unfinished_links(network)?.into_iter().filter(is_stale);
    Ok(stale.chain(unfinished).filter_map(|link| node.delete_link(&link).err()).collect())
}

/// The hardware addresses of the host ends of valid attachments: somebody may have taken an alias away. Their names depend on
/// the prefix that the config had when they were made; these addresses on nothing, as nobody can wish for them.
fn host_macs_of_valid(request: &GcRequest) -> Vec<MacAddr6> {
    let attachment = |valid: &ValidAttachment| Attachment {
        network: request.config.name.clone(),
        container_id: valid.container_id.clone(),
        ifname: valid.ifname.clone(),
    };
    let names = request.valid.0.iter().filter_map(|valid| Names::of(&attachment(valid)).ok());
    names.map(|names| names.host_mac).collect()
}
