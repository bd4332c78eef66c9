//! GC: removes what belongs to no valid attachment of the network, wherever it is.

use cni_spec::GcRequest;

use crate::firewall::Firewall;
use crate::pod::Node;
use crate::{Error, addresses};

/// Serves a GC. Links go first, so that nothing uses an address when it is freed.
///
/// # Errors
/// Everything that could not be removed, after all else was.
pub fn gc(request: &GcRequest) -> Result<(), Error> {
    let mut errors = Vec::new();
    match stale_links(request) {
        Ok(failures) => errors.extend(failures),
        Err(error) => errors.push(error),
    }
    errors.extend(stale_rules(request).err());
    // An address that a link still uses stays leased; the next GC tries again.
    if errors.is_empty() {
        errors.extend(addresses::gc(request).err());
    }
    Error::all_of(errors)
}

fn stale_rules(request: &GcRequest) -> Result<(), Error> {
    Firewall::open_if_any(&request.config.name)?.map_or(Ok(()), |mut rules| rules.gc(&request.valid))
}

fn stale_links(request: &GcRequest) -> Result<Vec<Error>, Error> {
    let node = Node::open()?;
    let stale = node
        .own_links()?
        .into_iter()
        .filter(|(attachment, _)| attachment.network == request.config.name && !request.valid.contains(attachment));
    Ok(stale.filter_map(|(_, link)| node.delete_link(&link).err()).collect())
}
