//! What the command prints for programs: these types are its contract, and its JSON Schemas are made from them.
//!
//! Keys stay as they are as long as `apiVersion` does; new ones may come. Times are RFC 3339 in UTC, addresses are
//! written as RFC 5952 says, and numbers that can be larger than 2^53 are strings.

use std::net::IpAddr;
use std::path::PathBuf;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;

use crate::{Origin, Record};

/// The version of all documents.
pub(super) const API_VERSION: &str = "ipam.podwire/v1";

/// One address space entry of `list`: a lease, or what keeps an address from being leased.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(tag = "state", rename_all = "lowercase")]
pub(super) enum Entry {
    /// Held by a pod.
    Active(Lease),
    /// Released, and resting before it is given again.
    Cooling(Cooling),
    /// Set aside by a person.
    Reserved(Reserved),
}

/// A lease with all its addresses.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Lease {
    /// The lease's name, never used twice.
    pub lease_id: String,
    pub attachment: Attachment,
    pub addresses: Vec<Address>,
    /// The pod's network namespace, if it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub netns: Option<Netns>,
    /// The pod, as far as the runtime told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<Pod>,
    /// When it was made, recovered or imported.
    pub created: Timestamp,
    /// `add`, `recovered` or `imported`.
    pub origin: LeaseOrigin,
    /// The boot in which it was made.
    pub boot_id: String,
}

/// How the ledger knows of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum LeaseOrigin {
    /// An ADD was answered.
    Add,
    /// The ledger was lost, and the kernel told that the address is in use.
    Recovered,
    /// Taken over from another ledger.
    Imported,
}

/// Who holds a lease: an interface of a container in a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Attachment {
    /// `name` of the network config.
    pub network: String,
    /// `CNI_CONTAINERID`.
    pub container_id: String,
    /// `CNI_IFNAME`.
    pub ifname: String,
}

/// One address of a lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Address {
    /// With its pool's prefix length: `10.244.1.5/24`.
    pub address: String,
    /// The pool's gateway at the time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// The pool, as its first and last address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
}

/// A network namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Netns {
    /// `CNI_NETNS`.
    pub path: PathBuf,
    /// `st_dev` of what the path led to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<u64>,
    /// `st_ino`: the number in `net:[4026532281]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inode: Option<u64>,
}

/// A pod's names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub(super) struct Pod {
    /// `K8S_POD_NAMESPACE`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// `K8S_POD_NAME`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `K8S_POD_UID`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
}

/// A released address at rest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Cooling {
    pub address: IpAddr,
    /// The pool, as its first and last address.
    pub pool: String,
    /// The networks that lease from the pool.
    pub networks: Vec<String>,
    /// When it was released.
    pub released: Timestamp,
    /// Until when it rests, unless no other address is left.
    pub until: Timestamp,
}

/// Addresses that a person has set aside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Reserved {
    /// What is set aside: `10.244.1.0/28`; a single address as /32 or /128.
    pub cidr: String,
    /// Why.
    pub reason: String,
    /// By whom.
    pub owner: String,
    /// When it was set aside.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<Timestamp>,
    /// When it ends by itself; missing for never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

impl From<&cni_spec::Attachment> for Attachment {
    fn from(attachment: &cni_spec::Attachment) -> Self {
        Self {
            network: attachment.network.to_string(),
            container_id: attachment.container_id.to_string(),
            ifname: attachment.ifname.to_string(),
        }
    }
}

impl From<&Record> for Lease {
    fn from(record: &Record) -> Self {
        let address = |recorded: &crate::RecordedAddress| Address {
            address: recorded.address.to_string(),
            gateway: recorded.gateway,
            pool: (!recorded.pool.is_empty()).then(|| recorded.pool.clone()),
        };
        Self {
            lease_id: record.lease_id.to_string(),
            attachment: (&record.attachment).into(),
            addresses: record.addresses.iter().map(address).collect(),
            netns: record.netns.as_ref().map(Into::into),
            pod: pod(&record.pod),
            created: record.created,
            origin: record.origin.into(),
            boot_id: record.boot_id.clone(),
        }
    }
}

impl From<&crate::Netns> for Netns {
    fn from(netns: &crate::Netns) -> Self {
        Self { path: netns.path.clone(), device: netns.id.map(|id| id.device), inode: netns.id.map(|id| id.inode) }
    }
}

impl From<Origin> for LeaseOrigin {
    fn from(origin: Origin) -> Self {
        match origin {
            Origin::Add => Self::Add,
            Origin::Recovered => Self::Recovered,
            Origin::Imported => Self::Imported,
        }
    }
}

/// None if nothing is known.
pub(super) fn pod(pod: &crate::Pod) -> Option<Pod> {
    let crate::Pod { namespace, name, uid } = pod.clone();
    let known = namespace.is_some() || name.is_some() || uid.is_some();
    known.then_some(Pod { namespace, name, uid })
}

/// A number that may be as large as an IPv6 pool: in JSON a number up to 2^53, which every reader can hold, and a
/// string of digits above.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Count(pub u128);

/// The largest integer that a reader which keeps numbers as IEEE 754 doubles does not round (RFC 8259, section 6).
const EXACT: u128 = 1 << 53;

impl Count {
    /// Large ones as powers of two, as pools are.
    pub fn people(self) -> String {
        match self.0 {
            count if count < 10_000_000 => count.to_string(),
            count => format!("~2^{}", 127 - count.saturating_add(count >> 1).leading_zeros().min(127)),
        }
    }
}

impl Serialize for Count {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match u64::try_from(self.0) {
            Ok(count) if self.0 <= EXACT => serializer.serialize_u64(count),
            Ok(_) | Err(_) => serializer.collect_str(&self.0),
        }
    }
}

impl JsonSchema for Count {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Count".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "A number up to 2^53, and a string of digits above.",
            "anyOf": [
                { "type": "integer", "minimum": 0, "maximum": 9_007_199_254_740_992_u64 },
                { "type": "string", "pattern": "^[0-9]+$" },
            ],
        })
    }
}
