//! DEL: needs nothing but network, container id and interface name.

use cni_spec::log::step;
use cni_spec::{CniResult, DelRequest};

use crate::check::own_ips;
use crate::config::Config;
use crate::firewall::Firewall;
use crate::names::Names;
use crate::pod::{Node, Pod, Told};
use crate::{Error, addresses, iptables, pod_rules};

/// Serves a DEL. The link comes first and its rules after it, so that no link is ever up without them, and whoever puts rules
/// back meanwhile ([`crate::reconcile`]) puts them where they are still looked for; a link that cannot be deleted keeps them.
/// The address comes last, and only when nothing uses it any more.
///
/// The child process that waits for the link's end must be started before the ledger is locked, as it inherits whatever this
/// process has open; and after the socket of nf_tables is, because whoever closes that last waits for what was removed.
///
/// # Errors
/// What could not be removed and is still there.
pub fn del(request: &DelRequest) -> Result<(), Error> {
    let mut errors = Vec::new();
    let mut in_pod = None;
    // An attachment whose names the kernel could not keep was refused at ADD, so there is nothing of it.
    if let Ok(names) = Names::of(&request.attachment) {
        let network = &request.attachment.network;
        let firewall = Firewall::open_if_any(network);
        let ifname = request.attachment.ifname.as_str();
        in_pod = request.netns.as_deref().and_then(|netns| pod_rules::remove(netns, ifname, &names).err());
        match step("link", || delete_link(request, &names)) {
            Ok(()) => {
                let rules = || firewall?.map_or(Ok(()), |mut rules| rules.remove(&names.owner));
                errors.extend(step("rules", rules).err());
                errors.extend(step("iptables", || iptables::remove(network, &names.owner)).err());
            }
            Err(error) => errors.push(error),
        }
    }
    if errors.is_empty() {
        errors.extend(step("release", || addresses::release(request)).err());
    }
    // A rule that is left in the pod keeps nobody else from having the address.
    errors.extend(in_pod);
    Error::all_of(errors)
}

fn delete_link(request: &DelRequest, names: &Names) -> Result<(), Error> {
    let node = Node::open()?;
    match node.host_link(names) {
        Ok(Some(link)) => node.delete_link(&link),
        // Somebody else's link is not for this attachment's DEL to delete, nor a reason to fail.
        Ok(None) | Err(Error::HostLinkTaken { .. }) => delete_strayed_link(&node, request, names),
        Err(error) => Err(error),
    }
}

/// Somebody may have renamed the node's end, which its alias tells; or moved it elsewhere, and then the pod's end is
/// left to be taken out, and the other end goes with it.
fn delete_strayed_link(node: &Node, request: &DelRequest, names: &Names) -> Result<(), Error> {
    if let Some(renamed) = node.renamed_link(names)? {
        return node.delete_link(&renamed);
    }
    // A namespace that cannot be opened has taken its interfaces along, or will.
    let Some(Ok(pod)) = request.netns.as_deref().map(Pod::open) else { return Ok(()) };
    pod.delete_link(request.attachment.ifname.as_str(), names, &told(request, node, &pod)?)
}

/// A config that an ADD would refuse tells nothing.
fn told(request: &DelRequest, node: &Node, pod: &Pod) -> Result<Told, Error> {
    let config = Config::for_pod(&request.config, &request.args).ok();
    let own = |result: &CniResult| own_ips(result, request.attachment.ifname.as_str());
    let ips = request.config.prev_result.as_ref().map(own).unwrap_or_default();
    Ok(Told {
        mac: config.and_then(|config| config.mac),
        addresses: ips.into_iter().map(|ip| ip.address.ip()).collect(),
        others: node.own_links()?.into_iter().map(|(_, link)| link).collect(),
        netns_id: node.id_of(&pod.netns)?,
    })
}
