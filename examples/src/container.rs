//! What a kubelet and its runtime make of a manifest: names, ids and the parameters for the plugins.
//!
//! Everything is derived from namespace and name, so that two runs of the demo print the same.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cni_spec::id::IdError;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::manifest::Pod;
use crate::runtime::Container;

/// Where runtimes keep the namespaces of their pods.
const NETNS_FOLDER: &str = "/run/netns";

/// The one interface that Kubernetes asks for.
const IFNAME: &str = "eth0";

/// The parameters that containerd's CRI plugin would call the chain with.
///
/// # Errors
/// Never for a checked [`Pod`]; the id's own rules are applied all the same.
pub fn container_of(pod: &Pod) -> Result<Container, IdError> {
    let digest = digest(pod);
    let id = hex(&digest);
    let arg = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    Ok(Container {
        netns: netns_of(&digest),
        ifname: IFNAME.parse()?,
        args: vec![
            arg("IgnoreUnknown", "1"),
            arg("K8S_POD_NAMESPACE", &pod.namespace),
            arg("K8S_POD_NAME", &pod.name),
            arg("K8S_POD_INFRA_CONTAINER_ID", &id),
            arg("K8S_POD_UID", &uuid(&digest[16..])),
        ],
        capability_args: capability_args(pod),
        id: id.parse()?,
    })
}

/// Ports without a `hostPort` are no port mappings; a pod without any has none to pass.
fn capability_args(pod: &Pod) -> BTreeMap<String, Value> {
    let mapping = |port: &crate::manifest::Port| {
        let host_port = port.host_port?;
        Some(json!({
            "hostPort": host_port,
            "containerPort": port.container_port,
            "protocol": port.protocol.to_string(),
            "hostIP": port.host_ip.map(|ip| ip.to_string()).unwrap_or_default(),
        }))
    };
    let mappings: Vec<Value> = pod.ports.iter().filter_map(mapping).collect();
    let mut args = BTreeMap::new();
    if !mappings.is_empty() {
        args.insert("portMappings".to_owned(), Value::from(mappings));
    }
    if !pod.annotations.is_empty() {
        args.insert("io.kubernetes.cri.pod-annotations".to_owned(), json!(pod.annotations));
    }
    args
}

fn digest(pod: &Pod) -> [u8; 32] {
    Sha256::digest(format!("{}/{}", pod.namespace, pod.name)).into()
}

fn netns_of(digest: &[u8; 32]) -> PathBuf {
    Path::new(NETNS_FOLDER).join(format!("cni-{}", uuid(&digest[..16])))
}

/// The bytes in the groups of a UUID.
fn uuid(bytes: &[u8]) -> String {
    let text = hex(bytes);
    let groups = [0..8, 8..12, 12..16, 16..20, 20..32].map(|range| text.get(range).unwrap_or_default().to_owned());
    groups.join("-")
}

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest;

    #[test]
    fn the_parameters_are_those_of_a_kubelet() {
        let text = "
kind: Pod
metadata: {name: web, namespace: shop, annotations: {a.b/c: d}}
spec:
  containers:
    - ports: [{containerPort: 80, hostPort: 8080}, {containerPort: 81}]
    - ports: [{containerPort: 53, hostPort: 53, protocol: UDP, hostIP: '::1'}]
";
        let pod = manifest::parse(Path::new("web.yaml"), text).unwrap().remove(0);
        let container = container_of(&pod).unwrap();
        assert_eq!(container.id.as_str().len(), 64);
        let netns = container.netns.to_str().unwrap();
        assert!(netns.starts_with("/run/netns/cni-") && netns.len() == "/run/netns/cni-".len() + 36, "{netns}");
        assert_eq!(
            serde_json::to_value(&container.capability_args).unwrap(),
            json!({
                "io.kubernetes.cri.pod-annotations": { "a.b/c": "d" },
                "portMappings": [
                    { "hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": "" },
                    { "hostPort": 53, "containerPort": 53, "protocol": "udp", "hostIP": "::1" },
                ],
            })
        );
        let keys: Vec<&str> = container.args.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(
            keys,
            ["IgnoreUnknown", "K8S_POD_NAMESPACE", "K8S_POD_NAME", "K8S_POD_INFRA_CONTAINER_ID", "K8S_POD_UID"]
        );
    }

    #[test]
    fn pods_of_one_name_in_two_namespaces_are_two() {
        let pod = |namespace: &str| Pod {
            name: "web".to_owned(),
            namespace: namespace.to_owned(),
            annotations: BTreeMap::new(),
            ports: Vec::new(),
        };
        let [one, other] = ["a", "b"].map(|namespace| container_of(&pod(namespace)).unwrap());
        assert_ne!(one.id, other.id);
        assert_ne!(one.netns, other.netns);
    }
}
