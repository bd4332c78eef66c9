//! What libcni keeps of each attachment, by which a container id is told its network, interface and namespace.

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;

use cni_spec::Attachment;
use ipnetwork::IpNetwork;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::liveness::{Liveness, Sight, Sign};
use crate::record::{Netns, Pod, Record};

/// Where libcni keeps them: by itself, of older versions, and for what Multus attaches. Nobody has told this command of
/// others.
pub const FOLDERS: [&str; 3] = ["/var/lib/cni/results", "/var/lib/cni/cache/results", "/var/lib/cni/multus/results"];

/// An attachment that a runtime knows.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Known {
    network_name: String,
    container_id: String,
    if_name: String,
    /// `CNI_NETNS` of its ADD.
    #[serde(default)]
    pub netns: PathBuf,
    #[serde(default)]
    cni_args: Option<Vec<(String, String)>>,
    /// Of its ADD.
    #[serde(default)]
    result: Value,
}

impl Known {
    /// Which one it is.
    pub fn attachment(&self) -> Option<Attachment> {
        format!("{} {} {}", self.network_name, self.container_id, self.if_name).parse().ok()
    }

    /// The pod, as far as the runtime told.
    pub fn pod(&self) -> Pod {
        let args = self.cni_args.as_deref().unwrap_or_default();
        let value = |key: &str| args.iter().find(|(name, _)| name == key).map(|(_, value)| value.clone());
        Pod { namespace: value("K8S_POD_NAMESPACE"), name: value("K8S_POD_NAME") }
    }

    /// Whether the pod is still there, by what its ADD named.
    pub fn liveness(&self, attachment: &Attachment) -> Liveness {
        let config = json!({
            "cniVersion": "1.0.0", "name": self.network_name, "type": "portmap", "prevResult": self.result,
        });
        let record = Record::new(attachment, self.pod(), None, config);
        let mut liveness = Liveness::by(attachment, Some(&record), &mut Sight::default());
        if !self.netns.as_os_str().is_empty() {
            let path = self.netns.display();
            liveness.netns = match Netns::at(&self.netns) {
                Some(_) => Sign::There(format!("its network namespace {path} is there")),
                None => Sign::Gone(format!("its network namespace {path} is gone")),
            };
        }
        liveness
    }

    /// The network's name.
    pub fn network(&self) -> &str {
        &self.network_name
    }

    /// Whether its ADD gave it this address.
    pub fn has(&self, pod: IpAddr) -> bool {
        let ips = self.result["ips"].as_array().map(Vec::as_slice).unwrap_or_default();
        let addresses = ips.iter().filter_map(|ip| ip["address"].as_str()?.parse::<IpNetwork>().ok());
        addresses.into_iter().any(|network| network.ip() == pod)
    }

    /// Whether it may be the one that a rule names.
    pub fn is(&self, network: Option<&str>, container_id: &str) -> bool {
        self.container_id == container_id && network.is_none_or(|network| network == self.network_name)
    }
}

/// All of them, each once; what cannot be read is nobody's.
pub fn known() -> Vec<Known> {
    let read = |path: PathBuf| -> Option<Known> { serde_json::from_slice(&fs::read(path).ok()?).ok() };
    let mut all: Vec<Known> = Vec::new();
    for entry in FOLDERS.into_iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten().filter_map(Result::ok) {
        let new = read(entry.path()).filter(|new| all.iter().all(|known| known.attachment() != new.attachment()));
        all.extend(new);
    }
    all
}
