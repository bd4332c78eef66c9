//! Whether the pod that holds a host port is still there: signs that do not depend on each other, unless its end has
//! begun already.

use std::fmt;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use cni_spec::Attachment;
use data_encoding::HEXLOWER;
use kernel::rtnl::{Link, Rtnl};
use sha2::{Digest, Sha256};

use crate::record::{Netns, Record, Records};

/// Where podwire-ipam keeps a copy of each lease, unless its `dataDir` says otherwise.
const LEASES: &str = "/run/podwire/ipam/leases";
/// Where the reference host-local keeps a file for each address, unless its `dataDir` says otherwise.
const HOST_LOCAL: &str = "/var/lib/cni/networks";
/// What the ifalias of the host end of a pod's link begins with, if podwire made it. The attachment follows.
const ALIAS: &str = "podwire ";

/// What one sign says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sign {
    /// The pod is there; where that was seen.
    There(String),
    /// It is gone; where that was seen.
    Gone(String),
    /// It cannot be told.
    Unknown,
}

/// All of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Liveness {
    /// Whether a DEL of it has begun, and was not seen to end.
    pub ending: bool,
    /// Whether there is a record of what is in the firewall: none outlives its boot, so mappings without one were most
    /// likely saved and put back.
    pub file: Sign,
    /// The pod's interface on the node.
    pub link: Sign,
    /// The pod's network namespace.
    pub netns: Sign,
    /// The lease of the pod's address. It is told and does not speak for the pod: it says only that nobody released it, and a
    /// DEL that is lost is lost for the whole chain.
    pub lease: Sign,
}

impl Liveness {
    /// Looks at an attachment.
    #[must_use]
    pub fn of(attachment: &Attachment, records: &Records) -> Self {
        Self::by(attachment, records.read(attachment).as_ref(), &mut Sight::default())
    }

    /// Looks at an attachment, by what is known of it.
    #[must_use]
    pub fn by(attachment: &Attachment, record: Option<&Record>, sight: &mut Sight) -> Self {
        let netns = record.and_then(|record| record.netns.as_ref()).map_or(Sign::Unknown, netns);
        let links = record.map(Record::links).unwrap_or_default();
        let ending = record.is_some_and(|record| Records::default().is_ending(record));
        let lease =
            record.and_then(|record| record.lease.as_deref()).map_or(Sign::Unknown, |file| lease(attachment, file));
        Self { ending, file: Sign::Unknown, link: link(attachment, &links, sight), netns, lease }
    }

    /// Looks at who has mappings in the firewall that lead to `pods`.
    #[must_use]
    pub fn of_holder(attachment: &Attachment, record: Option<&Record>, pods: &[IpAddr], sight: &mut Sight) -> Self {
        let mut liveness = Self::by(attachment, record, sight);
        if record.is_none() && Records::default().has_nothing_of(attachment) {
            liveness.file = Sign::Gone("nothing is on file of it".to_owned());
            if liveness.link == Sign::Unknown {
                liveness.link = way(attachment, pods);
            }
            liveness.lease = lease_of_another(attachment, pods);
        }
        liveness
    }

    /// Whether the pod is gone for certain: its DEL has begun; or neither its interface nor its namespace is seen, and two
    /// signs speak against it.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        let gone = self.signs().into_iter().filter(|sign| matches!(sign, Sign::Gone(_))).count();
        let is_there = [&self.link, &self.netns].into_iter().any(|sign| matches!(sign, Sign::There(_)));
        self.ending || (gone >= 2 && !is_there)
    }

    fn signs(&self) -> [&Sign; 4] {
        [&self.file, &self.link, &self.netns, &self.lease]
    }
}

/// What is looked at once for all attachments of a run. Whoever judges by it has read their records before.
#[derive(Default)]
pub struct Sight {
    /// All interfaces of the node; `None` while nobody asked, or where they cannot be seen.
    links: Option<Vec<Link>>,
}

impl Sight {
    fn links(&mut self, rtnl: &Rtnl) -> Option<&[Link]> {
        if self.links.is_none() {
            self.links = rtnl.links().ok();
        }
        self.links.as_deref()
    }
}

impl fmt::Display for Liveness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.ending {
            return f.write_str("its DEL has begun");
        }
        let seen: Vec<&str> = self
            .signs()
            .into_iter()
            .filter_map(|sign| match sign {
                Sign::There(text) | Sign::Gone(text) => Some(text.as_str()),
                Sign::Unknown => None,
            })
            .collect();
        if seen.is_empty() { f.write_str("nothing is known of its pod") } else { f.write_str(&seen.join(", ")) }
    }
}

/// Interfaces of the node that its ADD named, or that say they are the attachment's.
fn link(attachment: &Attachment, named: &[String], sight: &mut Sight) -> Sign {
    let Ok(rtnl) = Rtnl::open() else { return Sign::Unknown };
    let there = |name: &str| Sign::There(format!("its interface {name} is there"));
    let mut gone = None;
    for name in named {
        match rtnl.link(name) {
            // Only what says that it is the attachment's is a sign by itself: a bridge says nothing, and stays.
            Ok(Some(link)) if owner(&link).as_ref() == Some(attachment) => return there(name),
            Ok(None) => gone = gone.or(Some(name)),
            Ok(Some(_)) => {}
            Err(_) => return Sign::Unknown,
        }
    }
    let Some(links) = sight.links(&rtnl) else { return Sign::Unknown };
    match (links.iter().find(|link| owner(link).as_ref() == Some(attachment)), gone) {
        (Some(link), _) => there(&link.name),
        (None, Some(name)) => Sign::Gone(format!("its interface {name} is gone")),
        // All that it named are there, though they do not say whose they are.
        (None, None) if !named.is_empty() => there(&named.join(", ")),
        (None, None) => Sign::Unknown,
    }
}

/// Whose link it is by its ifalias.
fn owner(link: &Link) -> Option<Attachment> {
    link.alias.as_deref()?.strip_prefix(ALIAS)?.parse().ok()
}

/// Where the way to its pods leads: a pod of this node is a neighbour, by an interface that is not another pod's.
fn way(attachment: &Attachment, pods: &[IpAddr]) -> Sign {
    let lost = |pod: &IpAddr| -> Option<String> {
        let rtnl = Rtnl::open().ok()?;
        let Some(route) = rtnl.route_to(*pod).ok()?.filter(|route| route.gateway.is_none()) else {
            return Some(format!("no interface leads to {pod}"));
        };
        let link = rtnl.link_by_index(route.oif).ok()??;
        let other = owner(&link).filter(|other| other != attachment)?;
        Some(format!("{pod} is the address of container {} by now", other.container_id))
    };
    let lost: Option<Vec<String>> = pods.iter().map(lost).collect();
    match lost.and_then(|all| all.into_iter().next()) {
        Some(text) => Sign::Gone(text),
        None => Sign::Unknown,
    }
}

fn netns(recorded: &Netns) -> Sign {
    let path = recorded.path.display();
    match Netns::at(&recorded.path) {
        Some(found) if found == *recorded => Sign::There(format!("its network namespace {path} is there")),
        _ => Sign::Gone(format!("its network namespace {path} is gone")),
    }
}

/// The file of an attachment's lease, if it has one in a place that is known here.
#[must_use]
pub fn lease_of(attachment: &Attachment, pods: &[IpAddr]) -> Option<PathBuf> {
    let name = HEXLOWER.encode(&Sha256::digest(attachment.to_string())[..16]);
    let ours = Path::new(LEASES).join(format!("{name}.json"));
    let host_local = pods.iter().map(|pod| host_local(attachment, *pod));
    [ours].into_iter().chain(host_local).find(|file| is_lease_of(attachment, file))
}

fn host_local(attachment: &Attachment, pod: IpAddr) -> PathBuf {
    Path::new(HOST_LOCAL).join(attachment.network.as_str()).join(pod.to_string())
}

/// Files of host-local are for an address, whoever has it: the first line is the container id.
fn is_lease_of(attachment: &Attachment, file: &Path) -> bool {
    if file.starts_with(HOST_LOCAL) {
        lessee(file).is_some_and(|id| id == attachment.container_id.as_str())
    } else {
        file.exists()
    }
}

fn lessee(file: &Path) -> Option<String> {
    Some(fs::read_to_string(file).ok()?.lines().next()?.trim().to_owned())
}

/// By the file in which its ADD saw it: of a lease elsewhere, or of none, there is nothing to miss.
fn lease(attachment: &Attachment, file: &Path) -> Sign {
    if is_lease_of(attachment, file) {
        return Sign::There(format!("its lease {} is there", file.display()));
    }
    // A folder that cannot be seen from here says nothing.
    match file.parent().is_some_and(Path::is_dir) {
        true => Sign::Gone(format!("its lease {} is gone", file.display())),
        false => Sign::Unknown,
    }
}

/// Whether host-local has given one of the addresses to somebody else.
fn lease_of_another(attachment: &Attachment, pods: &[IpAddr]) -> Sign {
    let other = |pod: &IpAddr| {
        let id = lessee(&host_local(attachment, *pod)).filter(|id| id != attachment.container_id.as_str())?;
        Some(Sign::Gone(format!("{pod} is leased to container {id} by now")))
    };
    pods.iter().find_map(other).unwrap_or(Sign::Unknown)
}

/// A holder that is dead.
#[derive(Debug)]
pub struct Dead {
    /// Whose mappings may go.
    pub attachment: Attachment,
    /// By which it was judged.
    pub record: Option<Record>,
}

impl Dead {
    /// What its elements have as comment.
    #[must_use]
    pub fn mark(&self) -> String {
        self.attachment.to_string()
    }

    /// Whether what it was judged by still holds: an ADD that begins the same container anew writes its record before it
    /// claims anything.
    #[must_use]
    pub fn is_still_dead(&self) -> bool {
        let records = Records::default();
        match &self.record {
            Some(_) => records.read(&self.attachment) == self.record,
            None => records.has_nothing_of(&self.attachment),
        }
    }
}
