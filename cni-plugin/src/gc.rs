//! GC: removes what belongs to no valid attachment of the network, wherever it is.

use cni_spec::{Attachment, GcRequest, ValidAttachment, ValidAttachments};
use kernel::rtnl::Link;
use macaddr::MacAddr6;

use crate::firewall::Firewall;
use crate::names::Names;
use crate::pod::Node;
use crate::{Error, addresses, iptables};

/// Serves a GC. Links go before their rules, as in a DEL, and a link that cannot be deleted keeps them; addresses go last.
///
/// # Errors
/// Everything that could not be removed, after all else was.
pub fn gc(request: &GcRequest) -> Result<(), Error> {
    let network = &request.config.name;
    // Opened before the first child process that waits for a link's end: whoever closes it last waits for the rules.
    let firewall = Firewall::open_if_any(network);
    let mut valid = request.valid.clone();
    // Where links cannot be seen, nobody knows whose rules are needed.
    let mut errors = stale_links(request, &mut valid)?;
    let rules = || firewall?.map_or(Ok(()), |mut rules| rules.gc(&valid));
    errors.extend(rules().err());
    errors.extend(iptables::gc(network, &valid).err());
    // An address that a link still uses stays leased; the next GC tries again.
    if errors.is_empty() {
        errors.extend(addresses::gc(request).err());
    }
    Error::all_of(errors)
}

/// Deletes what is no valid attachment's, and takes for valid what could not be deleted. The runtime keeps ADDs away while it
/// collects (spec section 2, "GC"), so a pair without an alias is a leftover.
fn stale_links(request: &GcRequest, valid: &mut ValidAttachments) -> Result<Vec<Error>, Error> {
    let node = Node::open()?;
    let network = &request.config.name;
    let mut errors = Vec::new();
    for (attachment, link) in node.own_links()? {
        if attachment.network != *network || request.valid.contains(&attachment) {
            continue;
        }
        if let Err(error) = node.delete_link(&link) {
            errors.push(error);
            valid.0.insert(ValidAttachment { container_id: attachment.container_id, ifname: attachment.ifname });
        }
    }
    let of_valid = host_macs_of_valid(request);
    let is_stale = |link: &Link| link.mac.is_none_or(|mac| !of_valid.contains(&mac));
    let unfinished = node.unfinished_links(network)?.into_iter().filter(is_stale);
    errors.extend(unfinished.filter_map(|link| node.delete_link(&link).err()));
    Ok(errors)
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
