//! The steps inside the pod's network namespace.

use kernel::netns::NetNs;
use kernel::rtnl::Rtnl;
use kernel::sockets::{self, Listener};

use super::{Stopped, Trace};
use crate::error::Error;
use crate::forward::Forward;
use crate::node::Mapped;
use crate::record::Netns;

/// What was seen in there.
struct Seen {
    /// The pod's interface that has the address.
    interface: Option<String>,
    up: bool,
    listeners: Vec<Listener>,
}

/// Looks into the pod: its address, its interface, and who listens.
pub(super) fn inside(mapped: &Mapped, trace: &mut Trace) -> Result<(), Stopped> {
    let forward = &mapped.forward;
    let Some(recorded) = mapped.record.as_ref().and_then(|record| record.netns.as_ref()) else {
        trace.note(
            "pod",
            "its network namespace is not on file, so it cannot be looked into",
            format!("does {} answer?", forward.pod),
        );
        return Ok(());
    };
    let path = recorded.path.display();
    if Netns::at(&recorded.path).as_ref() != Some(recorded) {
        return Err(trace.stop(
            "pod",
            format!("its network namespace {path} is gone"),
            "the pod has ended: podwire-portmap reconcile",
        ));
    }
    let netns = NetNs::open(&recorded.path).map_err(Error::Route)?;
    let seen = netns.run(|| look(forward)).map_err(Error::Route)??;
    let pod = forward.pod.ip();
    let Some(interface) = seen.interface else {
        return Err(trace.stop(
            "pod",
            format!("no interface in {path} has the address {pod}"),
            "something in the pod removed it: recreate the pod",
        ));
    };
    if !seen.up {
        return Err(trace.stop(
            "pod",
            format!("{interface} in {path} is down"),
            "something in the pod set it down: recreate the pod",
        ));
    }
    trace.ok("pod", format!("{interface} in {path} has {pod} and is up"));
    application(forward, &seen.listeners, trace)
}

fn look(forward: &Forward) -> Result<Seen, Error> {
    let rtnl = Rtnl::open().map_err(Error::Route)?;
    let listeners = sockets::listeners(forward.protocol, forward.pod.port()).map_err(Error::Listeners)?;
    for link in rtnl.links().map_err(Error::Route)? {
        let addresses = rtnl.addresses(link.index).map_err(Error::Route)?;
        if addresses.iter().any(|address| address.network.ip() == forward.pod.ip()) {
            return Ok(Seen { interface: Some(link.name), up: link.up, listeners });
        }
    }
    Ok(Seen { interface: None, up: false, listeners })
}

fn application(forward: &Forward, found: &[Listener], trace: &mut Trace) -> Result<(), Stopped> {
    let port = format!("{}/{}", forward.pod.port(), forward.protocol);
    let takes = |listener: &&Listener| {
        let address = listener.address.ip();
        listener.takes(forward.family) && (address.is_unspecified() || address.to_canonical() == forward.pod.ip())
    };
    if let Some(listener) = found.iter().find(takes) {
        trace.ok("application", format!("something listens on {}/{} in the pod", listener.address, listener.protocol));
        return Ok(());
    }
    let others: Vec<String> = found.iter().map(|listener| listener.address.to_string()).collect();
    if others.is_empty() {
        let next =
            format!("has the application started, and is containerPort {} the one it listens on?", forward.pod.port());
        return Err(trace.stop("application", format!("nothing in the pod listens on {port}"), next));
    }
    let seen = format!("in the pod only {} listens on {port}, which {} is not", others.join(", "), forward.pod.ip());
    Err(trace.stop("application", seen, "let the application listen on every address of the pod"))
}
