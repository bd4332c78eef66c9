//! A lease as it stands in the ledger.

use std::fmt;
use std::net::IpAddr;

use cni_spec::{Attachment, CniArgs};
use ipnetwork::IpNetwork;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::lease::{LeaseId, Netns};

/// One lease with all its addresses: one record, so it is there whole or not at all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// The lease's name.
    pub lease_id: LeaseId,
    /// Who holds it.
    #[serde(with = "attachment")]
    #[schemars(with = "attachment::Names<'static>")]
    pub attachment: Attachment,
    /// What is held.
    pub addresses: Vec<RecordedAddress>,
    /// The pod's network namespace, if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns: Option<Netns>,
    /// The pod, as far as the runtime told.
    #[serde(default, skip_serializing_if = "Pod::is_unknown")]
    pub pod: Pod,
    /// When it was made or recovered, for people.
    pub created: Timestamp,
    /// When it was made, or a later request answered with it, in milliseconds of `CLOCK_BOOTTIME`; 0 for a recovered one.
    pub created_boottime_ms: u64,
    /// When the latest request that it answers reached its process, in milliseconds of `CLOCK_BOOTTIME`: the request may
    /// have waited for the ledger since, or the lease have been there before. 0 for an imported one, which is older than
    /// every request; none if nobody knows, as of a recovered one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub began_boottime_ms: Option<u64>,
    /// The boot in which it was made.
    pub boot_id: String,
    /// How the ledger knows of it.
    pub origin: Origin,
}

/// One address of a lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RecordedAddress {
    /// With its pool's prefix length, or a full one if the pool was not known.
    #[schemars(with = "String")]
    pub address: IpNetwork,
    /// The pool's gateway at the time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// The pool, as its first and last address; empty if it was not known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub pool: String,
}

/// How a record came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// An ADD was answered.
    Add,
    /// The ledger was lost, and the kernel told that the address is in use.
    Recovered,
    /// Taken over from another ledger, or put in by a person.
    Imported,
}

/// A pod's names, from `K8S_POD_NAMESPACE`, `K8S_POD_NAME` and `K8S_POD_UID` in `CNI_ARGS`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Pod {
    /// The pod's namespace in the API, not the kernel's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The pod's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The pod's uid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
}

impl Pod {
    pub(crate) fn from_args(args: &CniArgs) -> Self {
        let pod = args.pod();
        let own = |text: Option<&str>| text.map(str::to_owned);
        Self { namespace: own(pod.namespace), name: own(pod.name), uid: own(pod.uid) }
    }

    fn is_unknown(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for Pod {
    /// `namespace/name`, what there is of it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.namespace, &self.name) {
            (Some(namespace), Some(name)) => write!(f, "{namespace}/{name}"),
            (None, Some(one)) | (Some(one), None) => f.write_str(one),
            (None, None) => Ok(()),
        }
    }
}

impl Record {
    /// Whether the lease's request is older than one to end it, which was made at a moment of `CLOCK_BOOTTIME`, in
    /// milliseconds. A younger lease is not meant: container ids are used again. It counts when a request was made, and
    /// not when it was its turn at the ledger.
    pub(crate) fn is_meant_by_a_release_of(&self, asked: u64) -> bool {
        self.began() <= asked
    }

    /// When the latest request that it answers was made, in milliseconds of `CLOCK_BOOTTIME`.
    pub(crate) fn began(&self) -> u64 {
        self.began_boottime_ms.unwrap_or(self.created_boottime_ms)
    }

    /// When somebody last had reason to say that its attachment is there, in milliseconds of `CLOCK_BOOTTIME`.
    pub(crate) fn stood_at(&self) -> u64 {
        self.created_boottime_ms.max(self.began_boottime_ms.unwrap_or(0))
    }

    /// Whether a release that was asked for at a moment of `CLOCK_BOOTTIME`, in milliseconds, was about the lease, which
    /// is not in the ledger: as of an export, or of what another ledger said before. A link that is there says more.
    pub(crate) fn was_ended_by_a_release_of(&self, asked: u64) -> bool {
        match self.origin {
            Origin::Recovered => false,
            Origin::Imported if self.began() == 0 => self.stood_at() <= asked,
            // Once an ADD was answered with it, it is as any other.
            Origin::Add | Origin::Imported => self.is_meant_by_a_release_of(asked),
        }
    }

    /// The addresses without their prefix lengths.
    pub fn ips(&self) -> impl Iterator<Item = IpAddr> {
        self.addresses.iter().map(|recorded| recorded.address.ip())
    }
}

/// An attachment as an object of its three names.
mod attachment {
    use cni_spec::Attachment;
    use schemars::JsonSchema;
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    /// Who holds a lease: an interface of a container in a network.
    #[derive(Serialize, Deserialize, JsonSchema)]
    #[serde(rename_all = "camelCase")]
    #[schemars(rename = "Attachment")]
    pub(super) struct Names<'a> {
        /// `name` of the network config.
        network: std::borrow::Cow<'a, str>,
        /// `CNI_CONTAINERID`.
        container_id: std::borrow::Cow<'a, str>,
        /// `CNI_IFNAME`.
        ifname: std::borrow::Cow<'a, str>,
    }

    pub(super) fn serialize<S: Serializer>(attachment: &Attachment, serializer: S) -> Result<S::Ok, S::Error> {
        let names = Names {
            network: attachment.network.as_str().into(),
            container_id: attachment.container_id.as_str().into(),
            ifname: attachment.ifname.as_str().into(),
        };
        names.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Attachment, D::Error> {
        let names = Names::deserialize(deserializer)?;
        Ok(Attachment {
            network: names.network.parse().map_err(D::Error::custom)?,
            container_id: names.container_id.parse().map_err(D::Error::custom)?,
            ifname: names.ifname.parse().map_err(D::Error::custom)?,
        })
    }
}
