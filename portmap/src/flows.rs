//! Tracked flows that a change of mappings makes wrong: they would go on as they began.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use kernel::conntrack::{Conntrack, Filter, Flow};
use kernel::rtnl::Rtnl;
use nft_model::{Family, Proto, Statement};

use crate::backend;
use crate::config::Config;
use crate::error::Error;
use crate::firewall::{Candidate, Firewall};
use crate::forward::Forward;
use crate::ruleset::EXACT;
use crate::ruleset::iptables::condition;

/// How often stale flows are looked for: as long as there are some, because a packet that met the old rules may become
/// a flow after it was looked for.
const LOOKS: u32 = 10;

/// The index that `lo` has in every network namespace (`LOOPBACK_IFINDEX` of net/flow.h).
pub(crate) const LOOPBACK: u32 = 1;

/// Ends the flows through mappings that are gone. Everything else of the same pods, and of the same ports, goes on: so do
/// flows through a Service to the same port of the same pod, whose first packets were not for the node.
///
/// # Errors
/// When the kernel refuses.
pub fn cut(gone: &[Forward]) -> Result<(), Error> {
    if gone.is_empty() {
        return Ok(());
    }
    let mut tracking = Conntrack::open().map_err(Error::Flows)?;
    if let [only] = gone
        && only.host_ip.is_some()
    {
        return tracking.delete_matching(&through(only)).map_err(Error::Flows);
    }
    // Each deletion by filter goes through the whole table; listing does it once for a pod.
    let mut pods = BTreeMap::<IpAddr, Vec<Filter>>::new();
    for forward in gone {
        pods.entry(forward.pod.ip()).or_default().push(through(forward));
    }
    let mut local = Local::open()?;
    for (pod, filters) in pods {
        let of_pod = match filters.as_slice() {
            [only] => *only,
            _ => Filter { reply_src: Some(pod), dnat: true, ..Filter::of(Family::of(pod)) },
        };
        for flow in tracking.flows(&of_pod).map_err(Error::Flows)? {
            if filters.iter().any(|filter| filter.takes(&flow)) && local.has(flow.original.dst.ip())? {
                tracking.delete(&flow).map_err(Error::Flows)?;
            }
        }
    }
    Ok(())
}

/// Ends UDP flows that began before these mappings of `config` were there, so that the next packet goes to the pod. TCP and
/// SCTP begin anew by themselves. What another mapping decides about is left alone; so is, after the first look, what
/// somebody else translates again and again, such as a NodePort of that number.
///
/// # Errors
/// When the kernel refuses.
pub fn refresh(config: &Config, new: &[Forward]) -> Result<(), Error> {
    let udp: Vec<&Forward> = new.iter().filter(|forward| forward.protocol == Proto::Udp).collect();
    if udp.is_empty() {
        return Ok(());
    }
    let mut tracking = Conntrack::open().map_err(Error::Flows)?;
    let mut rivals = Rivals { config, local: Local::open()?, seen: BTreeMap::new() };
    for forward in udp {
        for look in 0..LOOKS {
            let mut stale = Vec::new();
            for flow in tracking.flows(&to(forward)).map_err(Error::Flows)? {
                let is_stale = match rivals.decides(&flow, forward)? {
                    Decision::Us => !leads_to_pod(&flow, forward) && (look == 0 || !flow.dnat),
                    Decision::Others => false,
                };
                if is_stale {
                    stale.push(flow);
                }
            }
            if stale.is_empty() {
                break;
            }
            for flow in stale {
                tracking.delete(&flow).map_err(Error::Flows)?;
            }
        }
    }
    Ok(())
}

/// Whether flows can be ended at all.
///
/// # Errors
/// When the kernel has no ctnetlink (`CONFIG_NF_CT_NETLINK`), or the caller may not use it.
pub fn available() -> Result<(), Error> {
    let mut tracking = Conntrack::open().map_err(Error::Flows)?;
    // Asked for what hardly anybody has.
    let few = Filter { protocol: Some(Proto::Sctp), original_port: Some(1), ..Filter::of(Family::Ip) };
    tracking.flows(&few).map(drop).map_err(Error::Flows)
}

/// The flows through a mapping.
pub fn through(forward: &Forward) -> Filter {
    Filter { reply_src: Some(forward.pod.ip()), reply_port: Some(forward.pod.port()), dnat: true, ..to(forward) }
}

/// The flows to the port of a mapping, wherever they go.
fn to(forward: &Forward) -> Filter {
    Filter {
        protocol: Some(forward.protocol),
        original_dst: forward.host_ip,
        original_port: Some(forward.host_port),
        ..Filter::of(forward.family)
    }
}

fn leads_to_pod(flow: &Flow, forward: &Forward) -> bool {
    flow.dnat && flow.reply.src == forward.pod
}

/// Which mapping decides about a flow.
enum Decision {
    Us,
    Others,
}

/// The mappings that may decide instead of those of `config`.
struct Rivals<'a> {
    config: &'a Config,
    local: Local,
    /// By address, for one port.
    seen: BTreeMap<(SocketAddr, Proto), Vec<Candidate>>,
}

impl Rivals<'_> {
    /// Whether a new mapping decides about the flow: it is for an address of the node, meets the conditions as far as a flow
    /// tells, and no other mapping comes before.
    fn decides(&mut self, flow: &Flow, forward: &Forward) -> Result<Decision, Error> {
        let to = flow.original.dst;
        let conditions = self.config.settings.conditions(forward.family);
        if leads_to_pod(flow, forward)
            || !conditions.iter().all(|one| may_meet(one, flow))
            || !self.local.has(to.ip())?
        {
            return Ok(Decision::Others);
        }
        let own = condition(self.config, forward.family);
        let own_backend = backend::choose(&self.config.settings)?;
        let (mut leading, mut behind) = (0, 0);
        for rival in self.candidates(to, forward.protocol)? {
            if rival.entry.element.comment.as_deref() == Some(self.config.owner.comment()) {
                continue;
            }
            let (same_backend, is_exact) = (rival.backend == own_backend, rival.entry.set == EXACT);
            let same_table = same_backend && rival.condition == own;
            // One for this address alone comes before one for all.
            if same_table && is_exact && forward.host_ip.is_none() {
                return Ok(Decision::Others);
            }
            if Forward::of(&rival.entry).is_some_and(|rival| leads_to_pod(flow, &rival)) {
                leading += 1;
                let is_open = rival.condition.is_none() && own.is_some();
                behind += u32::from(same_backend && is_open || same_table && !is_exact && forward.host_ip.is_some());
            }
        }
        if leading > 0 && behind == 0 {
            return Ok(Decision::Others);
        }
        Ok(Decision::Us)
    }

    fn candidates(&mut self, to: SocketAddr, protocol: Proto) -> Result<Vec<Candidate>, Error> {
        if let Some(seen) = self.seen.get(&(to, protocol)) {
            return Ok(seen.clone());
        }
        let mut found = Vec::new();
        for mut firewall in Firewall::in_use()? {
            found.extend(firewall.candidates(to, protocol)?);
        }
        self.seen.insert((to, protocol), found.clone());
        Ok(found)
    }
}

/// Which addresses are the node's.
struct Local {
    rtnl: Rtnl,
    seen: BTreeMap<IpAddr, bool>,
}

impl Local {
    fn open() -> Result<Self, Error> {
        Ok(Self { rtnl: Rtnl::open().map_err(Error::Route)?, seen: BTreeMap::new() })
    }

    fn has(&mut self, address: IpAddr) -> Result<bool, Error> {
        if let Some(is_local) = self.seen.get(&address) {
            return Ok(*is_local);
        }
        let route = self.rtnl.route_to(address).map_err(Error::Route)?;
        let is_local = route.is_some_and(|route| route.oif == LOOPBACK);
        self.seen.insert(address, is_local);
        Ok(is_local)
    }
}

/// Whether a flow meets a condition, as far as its first packet tells: by which interface that came it does not.
fn may_meet(condition: &Statement, flow: &Flow) -> bool {
    let (from, to) = (flow.original.src.ip(), flow.original.dst.ip());
    match condition {
        Statement::SaddrIn(network) => network.contains(from),
        Statement::SaddrNotIn(network) => !network.contains(from),
        Statement::DaddrIn(network) => network.contains(to),
        Statement::DaddrNotIn(network) => !network.contains(to),
        _ => true,
    }
}
