//! DEL: needs nothing but network, container id and interface name.

use cni_spec::DelRequest;

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
        let rules = Firewall::open(&request.attachment.network);
        errors.extend(rules.and_then(|mut rules| rules.remove(&names.owner)).err());
    }
    if errors.is_empty() {
        let ipam_type = request.config.ipam_type.as_deref();
        errors.extend(ipam_type.and_then(|ipam_type| addresses::release(ipam_type, request).err()));
    }
    Error::all_of(errors)
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
