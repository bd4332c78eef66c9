//! The steps on the node.

use kernel::conntrack::Conntrack;
use kernel::rtnl::{Link, Rtnl};
use kernel::sysctl;

use super::{Question, Stopped, Trace, forwarding, pod};
use crate::error::Error;
use crate::firewall::{Candidate, Firewall, Presence};
use crate::flows::LOOPBACK;
use crate::forward::Forward;
use crate::liveness::Liveness;
use crate::node::Mapped;
use crate::owner::Holder;
use crate::record::{Record, Records};
use crate::ruleset::TABLE;
use crate::view::View;
use crate::{adopt, check, flows, listeners};

/// Follows a packet.
///
/// # Errors
/// When the kernel refuses to tell.
pub fn trace(question: &Question) -> Result<Trace, Error> {
    let mut trace = Trace::default();
    match follow(question, &mut trace) {
        Ok(()) | Err(Stopped::Here) => Ok(trace),
        Err(Stopped::Unknown(error)) => Err(error),
    }
}

fn follow(question: &Question, trace: &mut Trace) -> Result<(), Stopped> {
    let rtnl = Rtnl::open().map_err(Error::Route)?;
    address(question, &rtnl, trace)?;
    let mapped = owner(question, trace)?;
    rules(&mapped, trace)?;
    reference(question, &mapped, trace);
    listener(&mapped.forward, trace)?;
    // The node's own packets are not forwarded.
    if !question.to.ip().is_loopback() {
        forwarding::allowed(question.family(), trace)?;
    }
    let link = route(&mapped.forward, &rtnl, trace)?;
    localhost(question, &mapped, &link, trace)?;
    pod::inside(&mapped, trace)?;
    tracked(&mapped.forward, trace)
}

/// Only packets to the node's own addresses are translated.
fn address(question: &Question, rtnl: &Rtnl, trace: &mut Trace) -> Result<(), Stopped> {
    let address = question.to.ip();
    if address.is_unspecified() {
        let next = "ask for one of them; see: ip -br address";
        return Err(trace.stop("address", format!("{address} stands for every address of the node"), next));
    }
    let route = rtnl.route_to(address).map_err(Error::Route)?;
    match route {
        Some(route) if route.oif == LOOPBACK => {
            trace.ok("address", format!("{address} is the node's own"));
            Ok(())
        }
        Some(_) => Err(trace.stop(
            "address",
            format!("{address} is not an address of this node"),
            format!(
                "a host port is reached at an address of its own node; see: ip -br address; ip route get {address}"
            ),
        )),
        None => Err(trace.stop(
            "address",
            format!("{address} is no address of this node, and no route leads to it"),
            "see: ip -br address",
        )),
    }
}

/// The mapping that decides: the first one without conditions that a packet meets. Those with conditions before it are told.
fn owner(question: &Question, trace: &mut Trace) -> Result<Mapped, Stopped> {
    let mut candidates = Vec::new();
    for firewall in Firewall::all() {
        let mut firewall = firewall?;
        if let Presence::Foreign(comment) = firewall.presence(question.family())? {
            let seen = format!("table {} {TABLE} is not this plugin's ({comment:?})", question.family());
            return Err(trace.stop("owner", seen, "remove it, then: podwire-portmap reconcile"));
        }
        candidates.extend(firewall.candidates(question.to, question.protocol)?);
    }
    let Some(first) = candidates.iter().position(|one| one.condition.is_none()).or(candidates.len().checked_sub(1))
    else {
        return Err(nobody(question, trace));
    };
    let decides = candidates[first].clone();
    for (index, other) in candidates.iter().enumerate() {
        if index < first || (index == first && other.condition.is_some()) {
            let next = "packets that meet these conditions go there; no other does";
            trace.note("owner", format!("{}, for packets that meet {}", described(other), met(question, other)), next);
        } else if other.backend != decides.backend && other.condition.is_none() {
            let next = "of the rules of two backends those decide that were made last: let its network use one backend";
            trace.note("owner", format!("{}, in {}", described(other), other.backend), next);
        }
    }
    let Candidate { backend, entry, .. } = decides;
    let Some(forward) = Forward::of(&entry) else { return Err(nobody(question, trace)) };
    let records = Records::default();
    let owner = entry.element.comment.as_deref().and_then(|mark| mark.parse().ok());
    let Some(owner) = owner else {
        let next = "somebody else wrote it: nft delete element, or leave it";
        return Err(trace.stop("owner", format!("{forward}, by nobody that is known here"), next));
    };
    let record = records.read(&owner);
    let pod =
        record.as_ref().and_then(|record| record.pod.text()).map(|pod| format!("pod {pod}, ")).unwrap_or_default();
    let who = format!(
        "{forward}, held by {pod}container {} ({}) of network {}",
        owner.container_id, owner.ifname, owner.network
    );
    let liveness = Liveness::of(&owner, &records);
    if liveness.is_dead() {
        let next =
            "its DEL was lost: podwire-portmap reconcile removes it; the next pod that asks for the port takes it over";
        return Err(trace.stop("owner", format!("{who}; but {liveness}"), next));
    }
    trace.ok("owner", who);
    Ok(Mapped { forward, backend, owner: Some(owner), record, traffic: crate::node::Traffic::default() })
}

/// What a mapping does, and whose it is.
fn described(candidate: &Candidate) -> String {
    let forward = Forward::of(&candidate.entry).map_or_else(String::new, |forward| forward.to_string());
    format!("{forward}, held by {}", Holder::of(candidate.entry.element.comment.as_deref()))
}

/// The conditions of a mapping, as far as its record tells.
fn met(question: &Question, candidate: &Candidate) -> String {
    let owner = candidate.entry.element.comment.as_deref().and_then(|mark| mark.parse().ok());
    let record = owner.and_then(|owner| Records::default().read(&owner));
    let config = record.and_then(|record| record.request().ok().flatten());
    let words = config.map(|config| {
        let conditions = config.settings.conditions(question.family()).iter();
        conditions.map(|one| one.in_family(question.family()).to_string()).collect::<Vec<_>>().join(" ")
    });
    words.unwrap_or_else(|| "the conditions of its network".to_owned())
}

/// Nobody has the port: why not?
fn nobody(question: &Question, trace: &mut Trace) -> Stopped {
    let asks = |record: &Record| {
        let config = record.request().ok().flatten();
        config.is_some_and(|config| Forward::of_config(&config).iter().any(|forward| would_match(forward, question)))
    };
    let on_file = Records::default().all().0.into_iter().find(asks);
    if let Some(record) = on_file.and_then(|record| record.attachment()) {
        let seen = format!("{record} asked for {question}, and the firewall has nothing for it: it was flushed");
        return trace.stop("owner", seen, "podwire-portmap reconcile");
    }
    let elsewhere = crate::node::mappings().unwrap_or_default();
    let port = |mapped: &&Mapped| mapped.forward.host_port == question.to.port();
    let near: Vec<String> = elsewhere.iter().filter(port).map(|mapped| mapped.forward.host()).collect();
    let (seen, next) = if near.is_empty() {
        let next = "does the pod ask for this hostPort, is \"portMappings\" true in the conflist's capabilities, and was its ADD after that?";
        (format!("no pod has {question}"), next.to_owned())
    } else {
        (
            format!("no pod has {question}; there is {}", near.join(", ")),
            "ask for that, or change hostIP or protocol of the pod".to_owned(),
        )
    };
    trace.stop("owner", seen, next)
}

fn would_match(forward: &Forward, question: &Question) -> bool {
    forward.family == question.family()
        && forward.protocol == question.protocol
        && forward.host_port == question.to.port()
        && forward.host_ip.is_none_or(|address| address == question.to.ip())
}

/// What CHECK says.
fn rules(mapped: &Mapped, trace: &mut Trace) -> Result<(), Stopped> {
    let request = mapped.record.as_ref().and_then(|record| record.request().ok().flatten());
    let (Some(owner), Some(config)) = (&mapped.owner, request) else {
        trace.note(
            "rules",
            "no record of what was asked for, so the rules cannot be compared",
            "runtimes that call CHECK can",
        );
        return Ok(());
    };
    match check::attachment(&mut View::default(), owner, Some(&config)) {
        Ok(()) => {
            trace.ok("rules", "all chains, rules and elements are as ADD made them");
            Ok(())
        }
        Err(Error::Differs(differences)) => {
            let lines: Vec<String> = differences.iter().map(ToString::to_string).collect();
            Err(trace.stop("rules", lines.join("; "), "podwire-portmap reconcile"))
        }
        Err(error) => Err(error.into()),
    }
}

/// The reference portmap asks nobody who has a port. Of two tables at the same place in the packet's path the one that
/// was made last decides.
fn reference(question: &Question, mapped: &Mapped, trace: &mut Trace) {
    let found = match adopt::find() {
        Ok(found) => found,
        Err(error) => {
            trace.note(
                "rules",
                format!("rules of the reference portmap could not be looked for: {error}"),
                "see iptables -t nat -S",
            );
            return;
        }
    };
    let other =
        |found: &&adopt::Found| would_match(&found.forward, question) && found.forward.pod != mapped.forward.pod;
    let Some(found) = found.iter().find(other) else { return };
    let seen = format!(
        "the reference portmap has rules for the same port: {} of container {}",
        found.forward, found.container_id
    );
    trace.note("rules", seen, "if packets go there: podwire-portmap adopt, which removes those of pods that are gone");
}

fn listener(forward: &Forward, trace: &mut Trace) -> Result<(), Stopped> {
    for listener in listeners::covered(forward)? {
        let next = "packets go to the pod and not to it; stop it if it is not meant to wait for anything";
        trace.note("node", listeners::describe(&listener), next);
    }
    Ok(())
}

/// The interface that leads to the pod.
fn route(forward: &Forward, rtnl: &Rtnl, trace: &mut Trace) -> Result<Link, Stopped> {
    let pod = forward.pod.ip();
    let Some(route) = rtnl.route_to(pod).map_err(Error::Route)? else {
        return Err(trace.stop(
            "route",
            format!("no route leads to {pod}"),
            "the pod's main plugin makes it: is the pod's interface there?",
        ));
    };
    let Some(link) = rtnl.link_by_index(route.oif).map_err(Error::Route)? else {
        return Err(trace.stop("route", format!("the route to {pod} leads nowhere"), format!("ip route get {pod}")));
    };
    if link.index == LOOPBACK {
        return Err(trace.stop(
            "route",
            format!("{pod} is the node's own address"),
            "two have one address: the pod cannot be reached",
        ));
    }
    let name = &link.name;
    if let Some(gateway) = route.gateway {
        let next = "a pod of this node is a neighbour: its own route went, and a wider one took over";
        return Err(trace.stop("route", format!("{pod} goes to the router {gateway} on {name}"), next));
    }
    if !link.up {
        return Err(trace.stop("link", format!("{name} is down"), format!("ip link set {name} up")));
    }
    if !link.carrier {
        return Err(trace.stop(
            "link",
            format!("{name} has no carrier: its other end is down or gone"),
            format!("ip -d link show {name}"),
        ));
    }
    trace.ok("route", format!("{pod} is a neighbour on {name}, which is up"));
    Ok(link)
}

/// Packets to 127.0.0.1 and ::1 come back only if the pod's interface may have them.
fn localhost(question: &Question, mapped: &Mapped, link: &Link, trace: &mut Trace) -> Result<(), Stopped> {
    if !question.to.ip().is_loopback() {
        return Ok(());
    }
    let config = mapped.record.as_ref().and_then(|record| record.request().ok().flatten());
    if let Some(settings) = config.map(|config| config.settings).filter(|settings| !settings.reaches_from_loopback()) {
        let key = if settings.localhost { "snat" } else { "localhost" };
        return Err(trace.stop(
            "localhost",
            format!("the pod's network has \"{key}\": false, so the node does not reach it at {}", question.to.ip()),
            "ask for another address of the node; or leave the key out of the conflist and recreate the pod",
        ));
    }
    if question.to.is_ipv6() {
        let rtnl = Rtnl::open().map_err(Error::Route)?;
        if rtnl.has_local_route(question.to.ip(), link.index).map_err(Error::Route)? {
            trace.ok("localhost", format!("{} takes answers to ::1", link.name));
            return Ok(());
        }
        return Err(trace.stop(
            "localhost",
            format!("there is no route local ::1 dev {} in table local", link.name),
            "podwire-portmap reconcile, if the config lets the node reach pods at ::1",
        ));
    }
    let key = format!("net/ipv4/conf/{}/route_localnet", link.name);
    if sysctl::get(&key).is_ok_and(|value| value != "0") {
        trace.ok("localhost", format!("{} takes answers to 127.0.0.1", link.name));
        return Ok(());
    }
    Err(trace.stop(
        "localhost",
        format!("{key} is 0"),
        "podwire-portmap reconcile, if the config lets the node reach pods at 127.0.0.1",
    ))
}

/// What the kernel remembers of packets that went this way.
fn tracked(forward: &Forward, trace: &mut Trace) -> Result<(), Stopped> {
    let mut tracking = Conntrack::open().map_err(Error::Flows)?;
    let found = tracking.flows(&flows::through(forward)).map_err(Error::Flows)?;
    let answered = found.iter().filter(|flow| flow.answered).count();
    let seen = format!("{} live connections, {answered} of them answered", found.len());
    match found.iter().find(|flow| !flow.answered) {
        Some(silent) if answered == 0 => {
            let next = "packets reach the pod's interface and none comes back: look at the pod's routes and filters, and at FORWARD of the node (iptables -L FORWARD, nft list ruleset)";
            trace.note("flows", format!("{seen}; one is {silent}"), next);
        }
        _ => trace.ok("flows", seen),
    }
    Ok(())
}
