//! What was asked for, in a file for each attachment: what a flushed firewall is filled from, and what tells whose a
//! host port is.
//!
//! The firewall is the truth about who holds what; a record says what would have to be there. A record is the request
//! itself, so whatever reads it plans anew, with the rules and the backend of its own version.
//!
//! An ADD writes its record before it claims anything. A DEL marks it as ending before it releases anything, and removes
//! it after that. So, for a process that is killed anywhere:
//!
//! - a record without a mapping belongs to an ADD that was never answered: the pod is gone soon, and
//!   [`reconcile`](crate::reconcile) keeps no record of a pod that is gone;
//! - a mapping whose record is ending is nobody's any more: `reconcile` ends it, and whoever wants its port takes it
//!   over. So it is too if a DEL could not release it.
//!
//! GC goes by the mark in the firewall alone. So does DEL, in nftables under the keys that a record asks for: looking at
//! everybody's elements takes the longer the more there are. Where the record is missing, or was not the attachment's
//! first, or something it asks for is not there, DEL looks at all of them.
//!
//! They live below /run, so that none outlives its boot, as no pod does.

mod files;

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use cni_spec::{AddRequest, Attachment, NetConf, PodIdentity};
use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::Config;
use crate::error::Error;
use crate::{firewall, liveness};

pub use self::files::{FOLDER, Records};

/// An attachment with host ports, as its ADD asked for them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// Of this format.
    version: u32,
    network: String,
    container_id: String,
    ifname: String,
    /// The pod, as far as the runtime told.
    #[serde(default, skip_serializing_if = "Pod::is_unknown")]
    pub pod: Pod,
    /// The pod's network namespace, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns: Option<Netns>,
    /// The file in which the pod's lease was seen; `None` where it is in no place that is known here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<PathBuf>,
    /// When, in milliseconds since 1970.
    pub created_ms: u64,
    /// Whether the attachment had neither a record nor anything in nf_tables when this was written: otherwise an ADD whose DEL
    /// was lost, or could not release everything, may have left it more there than it asks for now.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    first: bool,
    /// The network config of the ADD, `prevResult` and `runtimeConfig` included.
    config: Value,
}

/// What a Kubernetes runtime tells of a pod.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pod {
    /// Its namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// A network namespace, by what tells it from a later one at the same path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Netns {
    /// `CNI_NETNS`.
    pub path: PathBuf,
    /// Of the namespace's file system, nsfs.
    pub device: u64,
    /// The number that `ip netns identify` and `/proc/PID/ns/net` show.
    pub inode: u64,
}

impl Record {
    const VERSION: u32 = 1;

    /// The record of an ADD.
    #[must_use]
    pub fn of(request: &AddRequest) -> Self {
        let PodIdentity { namespace, name, .. } = request.args.pod();
        let pod = Pod { namespace: namespace.map(str::to_owned), name: name.map(str::to_owned) };
        let netns = Netns::at(&request.netns);
        let first = Records::default().has_nothing_of(&request.attachment)
            && firewall::has_nothing_of(&request.attachment).unwrap_or(false);
        Self { first, ..Self::new(&request.attachment, pod, netns, request.config.json.clone()) }
    }

    /// A record of what is known, made now.
    #[must_use]
    pub fn new(attachment: &Attachment, pod: Pod, netns: Option<Netns>, config: Value) -> Self {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let pods = config["prevResult"]["ips"].as_array().map(Vec::as_slice).unwrap_or_default();
        let pods = pods.iter().filter_map(|ip| ip["address"].as_str()?.parse::<IpNetwork>().ok());
        let pods: Vec<IpAddr> = pods.map(|network| network.ip()).collect();
        Self {
            version: Self::VERSION,
            network: attachment.network.to_string(),
            container_id: attachment.container_id.to_string(),
            ifname: attachment.ifname.to_string(),
            pod,
            netns,
            lease: liveness::lease_of(attachment, &pods),
            created_ms: now.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX)),
            first: false,
            config,
        }
    }

    /// Whose it is; `None` if the names are none.
    #[must_use]
    pub fn attachment(&self) -> Option<Attachment> {
        format!("{} {} {}", self.network, self.container_id, self.ifname).parse().ok()
    }

    /// The request again, checked as if it came now. `None` if it asks for no host port.
    ///
    /// # Errors
    /// Those of [`Config::new`], and of a config that cannot be read.
    pub fn request(&self) -> Result<Option<Config>, Error> {
        let conf = self.conf()?;
        let (Some(attachment), Some(prev_result)) = (self.attachment(), conf.prev_result.as_ref()) else {
            return Err(Error::NotChained);
        };
        Config::new(&attachment, &conf, prev_result)
    }

    /// The request, if the firewall holds what it asks for, or a part of that, and nothing else of the attachment.
    #[must_use]
    pub fn planned(&self) -> Option<Config> {
        if self.first { self.request().ok().flatten() } else { None }
    }

    /// The same record, written once more after another one of its attachment.
    #[must_use]
    pub fn once_more(self) -> Self {
        Self { first: false, ..self }
    }

    /// The interfaces on the node that earlier plugins of the chain made or used for the pod.
    #[must_use]
    pub fn links(&self) -> Vec<String> {
        let interfaces = self.conf().ok().and_then(|conf| conf.prev_result).unwrap_or_default().interfaces;
        let on_node = |sandbox: &Option<String>| sandbox.as_ref().is_none_or(String::is_empty);
        interfaces.into_iter().filter(|link| on_node(&link.sandbox)).map(|link| link.name).collect()
    }

    fn conf(&self) -> Result<NetConf, Error> {
        NetConf::from_bytes(self.config.to_string().into_bytes()).map_err(Error::Config)
    }
}

impl Pod {
    fn is_unknown(&self) -> bool {
        self.namespace.is_none() && self.name.is_none()
    }

    /// `namespace/name`, the name alone, or `None`.
    #[must_use]
    pub fn text(&self) -> Option<String> {
        match (&self.namespace, &self.name) {
            (Some(namespace), Some(name)) => Some(format!("{namespace}/{name}")),
            (None, Some(name)) => Some(name.clone()),
            (_, None) => None,
        }
    }
}

impl Netns {
    /// The namespace at a path; `None` if there is nothing.
    #[must_use]
    pub fn at(path: &Path) -> Option<Self> {
        let found = fs::metadata(path).ok()?;
        Some(Self { path: path.to_owned(), device: found.dev(), inode: found.ino() })
    }
}
