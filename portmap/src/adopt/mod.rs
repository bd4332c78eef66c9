//! Taking over from the reference portmap while pods run: its mappings become ours, then its rules go.
//!
//! Ours are there before its go, and lead to the same places, so no packet meets neither; tracked flows go on. What
//! belongs to pods that are gone just goes, as does what an ADD of ours has replaced. What cannot be taken over stays as
//! it is.

mod cache;
mod found;

use std::fmt;

use cni_spec::Attachment;
use cni_spec::error::with_causes;
use kernel::iptables::{Flavour, Tool, marks};
use kernel::nft::Nft;
use nft_model::{Change, Family};
use serde_json::{Value, json};

pub use self::cache::FOLDERS;
pub use self::found::{Beside, Found, in_iptables, in_nftables, removal};
use crate::error::Error;
use crate::forward::Forward;
use crate::liveness::Liveness;
use crate::owner::Owner;
use crate::record::{Netns, Record, Records};
use crate::view::View;
use crate::{add, reconcile};

/// The table of its nftables backend, and the chains with its mappings.
const TABLE: &str = "cni_hostport";
const CHAINS: [&str; 2] = ["hostip_hostports", "hostports"];
/// The chains before those, where `conditionsV4` and `conditionsV6` are; one of older versions.
const BEFORE: [&str; 3] = ["prerouting", "output", "hostports_all"];
/// The chain with a rule for each pod that reaches itself.
const MASQUERADING: &str = "masquerading";

/// What became of the mappings of one container on one network.
#[derive(Debug)]
pub struct Outcome {
    /// The container id.
    pub container_id: String,
    /// The network, if its rules tell.
    pub network: Option<String>,
    /// Which attachment that is, if it could be told.
    pub attachment: Option<Attachment>,
    /// What it had.
    pub forwards: Vec<Forward>,
    /// What was done, or would be.
    pub done: Done,
}

/// What was done with the mappings of one container.
#[derive(Debug)]
pub enum Done {
    /// They are ours now.
    Adopted,
    /// The pod is gone, and they went.
    Removed(Liveness),
    /// A later ADD of the attachment came to us, and they went: what it asked for is what the pod has.
    Replaced,
    /// They stay, and why.
    Left(Error),
}

/// Where rules of the reference plugin are.
enum Place {
    Iptables { tool: Tool },
    Nftables { family: Family },
}

/// All mappings of the reference plugin, whatever its backend.
///
/// # Errors
/// When the kernel, or iptables, refuses to tell.
pub fn find() -> Result<Vec<Found>, Error> {
    Ok(look()?.1)
}

/// Takes over all that can be, and cleans up. With `dry_run` nothing is changed.
///
/// # Errors
/// When the kernel, or iptables, refuses to tell or to change.
pub fn all(dry_run: bool) -> Result<Vec<Outcome>, Error> {
    let (places, mut found) = look()?;
    let known = cache::known();
    tell_networks(&mut found, &known);
    let mut outcomes: Vec<Outcome> = Vec::new();
    for one in &found {
        match outcomes.iter_mut().find(|outcome| one.is_of(outcome.network.as_deref(), &outcome.container_id)) {
            Some(outcome) => outcome.forwards.push(one.forward),
            None => outcomes.push(Outcome {
                container_id: one.container_id.clone(),
                network: one.network.clone(),
                attachment: None,
                forwards: vec![one.forward],
                done: Done::Adopted,
            }),
        }
    }
    for outcome in &mut outcomes {
        let of = |one: &&Found| one.is_of(outcome.network.as_deref(), &outcome.container_id);
        let found: Vec<Found> = found.iter().filter(of).cloned().collect();
        adopt(outcome, &found, &known, dry_run);
    }
    if !dry_run {
        // What came meanwhile is nobody's that was dealt with.
        let gone = |network: Option<&str>, id: &str| {
            let is_of =
                |one: &&Outcome| one.container_id == id && (network.is_none() || one.network.as_deref() == network);
            let mut all = outcomes.iter().filter(is_of).peekable();
            all.peek().is_some() && all.all(|one| !matches!(one.done, Done::Left(_)))
        };
        places.iter().try_for_each(|place| clean(place, &gone))?;
    }
    Ok(outcomes)
}

fn look() -> Result<(Vec<Place>, Vec<Found>), Error> {
    let (mut places, mut found) = (Vec::new(), Vec::new());
    for family in Family::ALL {
        for flavour in Flavour::ALL {
            // Asked in process first: a node without its rules runs no program.
            if marks(family, flavour, "nat", &[found::TOP]).map_err(Error::Iptables)?.is_empty() {
                continue;
            }
            let tool = Tool::of_flavour(family, flavour, None).map_err(Error::Iptables)?;
            let listing = tool.list("nat").map_err(Error::Iptables)?;
            found.extend(in_iptables(family, &listing));
            places.push(Place::Iptables { tool });
        }
        let Some(mut nft) = Nft::open_if_there().map_err(Error::Open)? else { continue };
        let read = |source| Error::Read { what: format!("table {family} {TABLE}"), source };
        if nft.table(family, TABLE).map_err(read)?.is_some() {
            let beside = beside(&mut nft, family).map_err(read)?;
            for chain in CHAINS {
                found.extend(in_nftables(family, nft.dnat_rules(family, TABLE, chain).map_err(read)?, &beside));
            }
            places.push(Place::Nftables { family });
        }
    }
    Ok((places, found))
}

fn beside(nft: &mut Nft, family: Family) -> Result<Beside, kernel::Error> {
    let mut beside = Beside::default();
    for chain in BEFORE {
        if nft.plain_rules(family, TABLE, chain)?.iter().any(|rule| rule.is_limited) {
            beside.limited = Some(format!("{family} {TABLE} {chain}"));
        }
    }
    for rule in nft.plain_rules(family, TABLE, MASQUERADING)? {
        beside.from_everywhere.extend(rule.comment.clone().filter(|_| !rule.has_source));
        beside.masqueraded.extend(rule.comment);
    }
    Ok(beside)
}

/// Rules of nftables do not tell the network: of a container on several, the one whose ADD gave the address that a rule
/// leads to.
fn tell_networks(found: &mut [Found], known: &[cache::Known]) {
    for one in found.iter_mut().filter(|one| one.network.is_none()) {
        let of_container: Vec<_> = known.iter().filter(|known| known.is(None, &one.container_id)).collect();
        if of_container.len() > 1 {
            let by_address = of_container.into_iter().find(|known| known.has(one.forward.pod.ip()));
            one.network = by_address.map(|known| known.network().to_owned());
        }
    }
}

/// Claims what a container has, if its pod lives.
fn adopt(outcome: &mut Outcome, found: &[Found], known: &[cache::Known], dry_run: bool) {
    let network = outcome.network.as_deref();
    let mut of_container = known.iter().filter(|known| known.is(network, &outcome.container_id));
    let known = of_container.next();
    if network.is_none() && of_container.next().is_some() {
        outcome.done = Done::Left(Error::UnknownNetwork(outcome.container_id.clone()));
        return;
    }
    // The reference plugin's rules do not tell the interface; nearly every pod's first one has this name.
    let guess = || network.and_then(|network| format!("{network} {} eth0", outcome.container_id).parse().ok());
    let Some(attachment) = known.and_then(cache::Known::attachment).or_else(guess) else {
        outcome.done = Done::Left(Error::UnknownNetwork(outcome.container_id.clone()));
        return;
    };
    outcome.attachment = Some(attachment.clone());
    let netns = known.map(|known| known.netns.as_path()).filter(|path| !path.as_os_str().is_empty());
    let liveness = match known {
        Some(known) => known.liveness(&attachment),
        None => Liveness::of(&attachment, &Records::default()),
    };
    if liveness.is_dead() {
        outcome.done = Done::Removed(liveness);
        return;
    }
    match is_ours(&attachment) {
        Ok(false) => {}
        Ok(true) => {
            outcome.done = if dry_run { Done::Replaced } else { replaced(&attachment) };
            return;
        }
        Err(error) => {
            outcome.done = Done::Left(error);
            return;
        }
    }
    if let Some(rule) = found.iter().find_map(|one| one.limited.clone()) {
        outcome.done = Done::Left(Error::Limited(rule));
        return;
    }
    let pod = known.map(cache::Known::pod).unwrap_or_default();
    let sandbox = netns.map_or_else(|| "unknown".to_owned(), |path| path.display().to_string());
    let config = config(&attachment, &sandbox, found);
    let record = Record::new(&attachment, pod, netns.and_then(Netns::at), config);
    let result = record.request().and_then(|config| match config {
        Some(config) if !dry_run => add::mappings(&config, &record).map(drop),
        _ => Ok(()),
    });
    outcome.done = result.map_or_else(Done::Left, |()| Done::Adopted);
}

/// What is on file may not be in the firewall: because somebody flushed that, or because an adoption was killed.
fn replaced(attachment: &Attachment) -> Done {
    let records = Records::default();
    let Some(record) = records.read(attachment) else { return Done::Replaced };
    let restored = reconcile::restore(&records, attachment, record, &mut View::default(), false);
    restored.map_or_else(Done::Left, |_| Done::Replaced)
}

/// Whether an ADD of the attachment came to us. The runtime has changed its conflist since the reference plugin made its
/// rules, so the newer of the two is ours; an address of the older may be another pod's by now.
fn is_ours(attachment: &Attachment) -> Result<bool, Error> {
    let owner = Owner::new(attachment)?;
    Ok(Records::default().read(attachment).is_some() || add::knows(&owner)?)
}

/// The request that an ADD for the same mappings would have had.
fn config(attachment: &Attachment, sandbox: &str, found: &[Found]) -> Value {
    let forwards: Vec<Forward> = found.iter().map(|one| one.forward).collect();
    let mappings: Vec<Value> = forwards
        .iter()
        .map(|forward| {
            let any = if forward.family == Family::Ip { "0.0.0.0" } else { "::" };
            let host_ip = forward.host_ip.map_or_else(|| any.to_owned(), |address| address.to_string());
            json!({
                "hostPort": forward.host_port, "containerPort": forward.pod.port(),
                "protocol": forward.protocol.to_string(), "hostIP": host_ip,
            })
        })
        .collect();
    let mut ips: Vec<String> = forwards.iter().map(|forward| forward.pod.ip().to_string()).collect();
    ips.sort_unstable();
    ips.dedup();
    let ips: Vec<Value> = ips
        .into_iter()
        .map(|ip| json!({ "interface": 0, "address": format!("{ip}/{}", if ip.contains(':') { 128 } else { 32 }) }))
        .collect();
    json!({
        "cniVersion": "1.0.0", "name": attachment.network.as_str(), "type": "podwire-portmap",
        // Its pod has had the ports all along; who else listens there is no news.
        "hostListeners": "ignore",
        "snat": found.iter().all(|one| one.snat), "masqAll": found.iter().any(|one| one.masq_all),
        "runtimeConfig": { "portMappings": mappings },
        "prevResult": {
            "cniVersion": "1.0.0", "ips": ips,
            "interfaces": [{ "name": attachment.ifname.as_str(), "sandbox": sandbox }],
        },
    })
}

/// Removes its rules for what `gone` says yes to, a network and a container. Its nftables rules go all together or stay:
/// they do not lead elsewhere than ours do.
fn clean(place: &Place, gone: &dyn Fn(Option<&str>, &str) -> bool) -> Result<(), Error> {
    match place {
        // Listed again: pods may have come since.
        Place::Iptables { tool } => {
            match removal(&tool.list("nat").map_err(Error::Iptables)?, &|network, id| gone(Some(network), id)) {
                Some(text) => tool.restore(&text).map_err(Error::Iptables),
                None => Ok(()),
            }
        }
        Place::Nftables { family } => {
            let mut nft = Nft::open().map_err(Error::Open)?;
            for chain in CHAINS {
                let read = |source| Error::Read { what: format!("table {family} {TABLE}"), source };
                let rules = nft.dnat_rules(*family, TABLE, chain).map_err(read)?;
                let rules = in_nftables(*family, rules, &Beside::default());
                if rules.iter().any(|rule| !gone(None, &rule.container_id)) {
                    return Ok(());
                }
            }
            let change = Change::DestroyTable { family: *family, name: TABLE.to_owned() };
            nft.commit(&[change]).map_err(Error::Commit)
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.attachment {
            Some(attachment) => write!(f, "{attachment}: ")?,
            None => write!(f, "container {}: ", self.container_id)?,
        }
        match &self.done {
            Done::Adopted => f.write_str("adopted ")?,
            Done::Removed(liveness) => write!(f, "removed, as its pod is gone ({liveness}): ")?,
            Done::Replaced => f.write_str("removed, as a later ADD came to podwire-portmap: ")?,
            Done::Left(error) => {
                write!(f, "left as it is: {}: ", with_causes(error))?;
            }
        }
        let forwards: Vec<String> = self.forwards.iter().map(ToString::to_string).collect();
        f.write_str(&forwards.join(", "))
    }
}
