//! DEL: needs nothing but network, container id and interface name.

use cni_spec::{DelRequest, NetworkName};

use crate::firewall::Firewall;
use crate::names::Names;
use crate::pod::Node;
use crate::{Error, addresses};

/// Serves a DEL. Every step is tried; the address comes last, and only when nothing uses it any more.
///
/// # Errors
/// What could not be removed and is still there.
pub fn del(request: &DelRequest) -> Result<(), Error> {
    let mut errors = Vec::new();
    // An attachment whose names the kernel could not keep was refused at ADD, so there is nothing of it.
    if let Ok(names) = Names::of(&request.attachment) {
        errors.extend(delete_link(&names).err());
        errors.extend(remove_rules(&request.attachment.network, &names).err());
    }
    if errors.is_empty() {
        errors.extend(addresses::release(request).err());
    }
    Error::all_of(errors)
}

fn remove_rules(network: &NetworkName, names: &Names) -> Result<(), Error> {
    Firewall::open_if_any(network)?.map_or(Ok(()), |mut rules| rules.remove(&names.owner))
}

fn delete_link(names: &Names) -> Result<(), Error> {
    let node = Node::open()?;
    match node.host_link(names) {
        Ok(Some(link)) => node.delete_link(&link),
        // Somebody else's link is not for this attachment's DEL to delete, nor a reason to fail.
        Ok(None) | Err(Error::HostLinkTaken { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}
