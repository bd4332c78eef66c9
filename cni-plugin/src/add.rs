//! ADD: from nothing to a pod that is reached, or back to nothing.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;

use cni_spec::log::{in_this_call, step};
use cni_spec::{AddRequest, CniResult};

use crate::addresses::{self, Found, Leased};
use crate::apply::apply;
use crate::config::{Config, MTU_MIN_IPV6};
use crate::firewall::Firewall;
use crate::names::Names;
use crate::plan::Wiring;
use crate::pod::{Ends, Node, Pod, observe};
use crate::undo::Undo;
use crate::{Error, backend, in_use, iptables, leftovers, pod_rules};

/// Addresses of the documentation ranges (RFC 5737, RFC 3849): no packet is sent there, the kernel is only asked
/// which link it would leave by.
const OUTSIDE: [IpAddr; 2] = [
    IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)),
    IpAddr::V6(std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
];

/// `LOOPBACK_IFINDEX` (include/net/flow.h): where "unreachable" routes lead, with an MTU that no veth can have.
const LOOPBACK: u32 = 1;

/// Serves an ADD.
///
/// # Errors
/// Whatever kept the pod from being wired; what this call had made by then is gone again.
pub fn add(request: &AddRequest) -> Result<CniResult, Error> {
    let config = backend::settle(Config::for_pod(&request.config, &request.args).map_err(Error::Config)?)?;
    let names = Names::of(&request.attachment)?.with_prefix(config.host_prefix.as_deref());
    let node = Node::open()?;
    let pod = Pod::open(&request.netns)?;
    refuse_taken_names(request, &names, &node, &pod)?;

    let mtu = config.mtu.map_or_else(|| outside_mtu(&node), |mtu| Ok(Some(mtu)))?;
    let wiring = Wiring::of(&request.attachment, &config, &request.netns, mtu)?;
    let names = wiring.names.clone();
    let network = &request.attachment.network;
    let others = pod_rules::other_defaults(&pod, request.attachment.ifname.as_str())?;
    let ends = Ends { node: &node, pod: &pod };

    // Opened before the link is deleted: the child process that waits for its end then waits for the rules' too. Rules come
    // last, as in a DEL, and stay with a link that cannot be deleted.
    let firewall = RefCell::new(None);
    let is_ruled = Cell::new(false);
    let mut undo = Undo::default();
    undo.push(|| if is_ruled.get() { iptables::remove(network, &names.owner) } else { Ok(()) });
    undo.push(|| firewall.borrow_mut().as_mut().map_or(Ok(()), |rules: &mut Firewall| rules.remove(&names.owner)));
    undo.push(|| {
        delete_link(&names, &node).inspect_err(|_| {
            is_ruled.set(false);
            *firewall.borrow_mut() = None;
        })
    });
    undo.push(|| pod_rules::remove(&request.netns, request.attachment.ifname.as_str(), &names));
    // The lease takes longer than the link and needs nothing of it, so it gets a thread of its own.
    let (linked, leased) = std::thread::scope(|scope| {
        let lease = config
            .ipam_type
            .as_deref()
            .map(|ipam_type| scope.spawn(in_this_call(move || step("lease", || addresses::lease(ipam_type, request)))));
        let linked = step("link", || apply(&wiring.link_steps(), &ends, &wiring, network));
        let joined = lease.map(|lease| lease.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        (linked, joined.unwrap_or_else(|| Ok(Leased::nothing())))
    });
    // Also where there is no lease: `podwire reconcile` may have guarded the link meanwhile.
    is_ruled.set(true);
    undo.push(|| {
        *firewall.borrow_mut() = Firewall::open_if_any(network)?;
        Ok(())
    });
    let Leased { result: leased, give_back } = match leased {
        Ok(leased) => leased,
        Err(failure) => return Err(undo.run(failure)),
    };
    let found = Cell::new(Found::Unused);
    undo.last(|| give_back(found.get()));

    let wiring = wiring.with_addresses(&leased).beside(others);
    let wired = linked
        .and_then(|()| wiring.refuse_what_cannot_be(&config))
        .and_then(|()| in_use::refuse(&wiring, &config, &request.attachment, &node))
        .and_then(|()| step("leftovers", || leftovers::clear(&wiring, network)))
        .and_then(|()| step("wire", || apply(&wiring.address_steps(), &ends, &wiring, network)));
    match wired {
        Ok(()) => {
            undo.forget();
            Ok(wiring.result(&config, &leased, request.config.prev_result.clone()))
        }
        Err(failure) => {
            found.set(Found::by(&failure));
            Err(undo.run(failure))
        }
    }
}

/// Refuses what would be in the way, and clears a leftover of this very attachment: an ADD that was killed.
fn refuse_taken_names(request: &AddRequest, names: &Names, node: &Node, pod: &Pod) -> Result<(), Error> {
    let ifname = request.attachment.ifname.as_str();
    if pod.rtnl.link(ifname).map_err(|source| observe(ifname, source))?.is_some() {
        return Err(Error::IfNameTaken { ifname: ifname.to_owned(), netns: request.netns.clone() });
    }
    match node.named_link(names)? {
        Some(leftover) => node.delete_link(&leftover),
        None => Ok(()),
    }
}

/// By a socket of its own, as the failure that is undone may be that of the socket; by the old one if there is no
/// other to be had.
fn delete_link(names: &Names, node: &Node) -> Result<(), Error> {
    let fresh = Node::open();
    let node = fresh.as_ref().unwrap_or(node);
    match node.host_link(names)? {
        Some(link) => node.delete_link(&link),
        None => Ok(()),
    }
}

/// The smallest MTU of the links that packets to the outside leave by, and of the routes that lead there (RTAX_MTU): a pod
/// that sent more would be asked to send less at every new connection. What a route of one family says leaves the pod its
/// IPv6. None without such a link.
fn outside_mtu(node: &Node) -> Result<Option<u32>, Error> {
    let mut mtus = Vec::new();
    for address in OUTSIDE {
        let way = node.rtnl.route_to(address).map_err(|source| observe("the route to the outside", source))?;
        if let Some(way) = way.filter(|way| way.oif != LOOPBACK) {
            let link = node.rtnl.link_by_index(way.oif).map_err(|source| observe("the link to the outside", source))?;
            mtus.extend(link.map(|link| link.mtu));
            mtus.extend(way.mtu.map(|mtu| mtu.max(MTU_MIN_IPV6)));
        }
    }
    Ok(mtus.into_iter().min())
}
