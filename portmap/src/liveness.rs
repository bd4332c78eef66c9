//! Whether the pod that holds a host port is still there: three signs that do not depend on each other, unless its end
//! has begun already.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use cni_spec::{Attachment, NetworkName};
use data_encoding::HEXLOWER;
use kernel::rtnl::{Link, Rtnl};
use sha2::{Digest, Sha256};

use crate::record::{Netns, Record, Records};

/// Where podwire-ipam keeps a copy of each lease, unless its `dataDir` says otherwise.
const LEASES: &str = "/run/podwire/ipam/leases";
/// Where the reference host-local keeps a file for each address, unless its `dataDir` says otherwise.
const HOST_LOCAL: &str = "/var/lib/cni/networks";

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

/// All three.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Liveness {
    /// Whether a DEL of it has begun, and was not seen to end.
    pub ending: bool,
    /// The pod's interface on the node.
    pub link: Sign,
    /// The pod's network namespace.
    pub netns: Sign,
    /// The lease of the pod's address.
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
        Self { ending, link: link(attachment, &links, sight), netns, lease: lease(attachment, sight) }
    }

    /// Whether the pod is gone for certain: its DEL has begun; or nothing speaks for it, and two signs speak against it.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        if self.ending {
            return true;
        }
        let signs = [&self.link, &self.netns, &self.lease];
        let gone = signs.iter().filter(|sign| matches!(sign, Sign::Gone(_))).count();
        gone >= 2 && !signs.iter().any(|sign| matches!(sign, Sign::There(_)))
    }
}

/// What is looked at once for all attachments of a run. Whoever judges by it has read their records before.
#[derive(Default)]
pub struct Sight {
    /// All interfaces of the node; `None` while nobody asked, or where they cannot be seen.
    links: Option<Vec<Link>>,
    /// Leases of the reference host-local: by network and container id, the file. `None` for a network without any.
    host_local: BTreeMap<NetworkName, Option<BTreeMap<String, PathBuf>>>,
}

impl Sight {
    fn links(&mut self, rtnl: &Rtnl) -> Option<&[Link]> {
        if self.links.is_none() {
            self.links = rtnl.links().ok();
        }
        self.links.as_deref()
    }

    /// A file for each address, whose first line is the container id.
    fn host_local(&mut self, network: &NetworkName) -> Option<&BTreeMap<String, PathBuf>> {
        let read = || {
            let entries = fs::read_dir(Path::new(HOST_LOCAL).join(network.as_str())).ok()?;
            let lease = |path: PathBuf| {
                let text = fs::read_to_string(&path).ok()?;
                Some((text.lines().next()?.trim().to_owned(), path))
            };
            Some(entries.filter_map(Result::ok).filter_map(|entry| lease(entry.path())).collect())
        };
        self.host_local.entry(network.clone()).or_insert_with(read).as_ref()
    }
}

impl fmt::Display for Liveness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.ending {
            return f.write_str("its DEL has begun");
        }
        let seen: Vec<&str> = [&self.link, &self.netns, &self.lease]
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
    for name in named {
        match rtnl.link(name) {
            // Only what says that it is the attachment's is a sign by itself: a bridge says nothing, and stays.
            Ok(Some(link)) if link.alias.as_deref().is_some_and(|alias| alias == mark(attachment)) => {
                return Sign::There(format!("its interface {name} is there"));
            }
            Ok(None) => return Sign::Gone(format!("its interface {name} is gone")),
            Ok(Some(_)) => {}
            Err(_) => return Sign::Unknown,
        }
    }
    match sight.links(&rtnl) {
        None => Sign::Unknown,
        Some(links) => {
            let own = links.iter().find(|link| link.alias.as_deref() == Some(mark(attachment).as_str()));
            match own {
                Some(link) => Sign::There(format!("its interface {} is there", link.name)),
                // All that it named are there, though they do not say whose they are.
                None if !named.is_empty() => Sign::There(format!("its interface {} is there", named.join(", "))),
                None => Sign::Unknown,
            }
        }
    }
}

/// The ifalias that podwire gives the host end of a pod's link.
fn mark(attachment: &Attachment) -> String {
    format!("podwire {attachment}")
}

fn netns(recorded: &Netns) -> Sign {
    let path = recorded.path.display();
    match Netns::at(&recorded.path) {
        Some(found) if found == *recorded => Sign::There(format!("its network namespace {path} is there")),
        _ => Sign::Gone(format!("its network namespace {path} is gone")),
    }
}

fn lease(attachment: &Attachment, sight: &mut Sight) -> Sign {
    match [podwire_lease(attachment), host_local_lease(attachment, sight)] {
        [there @ Sign::There(_), _] | [_, there @ Sign::There(_)] => there,
        [gone @ Sign::Gone(_), _] | [_, gone @ Sign::Gone(_)] => gone,
        [Sign::Unknown, Sign::Unknown] => Sign::Unknown,
    }
}

fn podwire_lease(attachment: &Attachment) -> Sign {
    let folder = Path::new(LEASES);
    // Another network may have another ledger; what this one does not know may be known there.
    if !folder.is_dir() {
        return Sign::Unknown;
    }
    let name = HEXLOWER.encode(&Sha256::digest(attachment.to_string())[..16]);
    match folder.join(format!("{name}.json")).exists() {
        true => Sign::There("its lease is there".to_owned()),
        false => Sign::Gone("its lease is gone".to_owned()),
    }
}

fn host_local_lease(attachment: &Attachment, sight: &mut Sight) -> Sign {
    let Some(leases) = sight.host_local(&attachment.network) else { return Sign::Unknown };
    match leases.get(attachment.container_id.as_str()) {
        Some(file) => Sign::There(format!("its lease {} is there", file.display())),
        None => Sign::Gone("its lease is gone".to_owned()),
    }
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
        Records::default().read(&self.attachment) == self.record
    }
}
