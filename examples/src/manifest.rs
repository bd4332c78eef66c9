//! Kubernetes Pod manifests: what a demo pod needs of them, checked.
//!
//! Keys that matter only to a kubelet are left alone. What is read has the kubelet's meaning: a port
//! without `protocol` is TCP, a `hostPort` without `hostIP` is on every address of the node.

mod document;

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};

use serde_json::Value;

use self::document::Document;

/// A pod as its manifest describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.namespace`; `default` if missing.
    pub namespace: String,
    /// `metadata.annotations`.
    pub annotations: BTreeMap<String, String>,
    /// `spec.containers[].ports[]` of all containers, in order.
    pub ports: Vec<Port>,
}

/// One entry of `ports[]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Port {
    /// `containerPort`.
    pub container_port: NonZeroU16,
    /// `hostPort`; missing or 0 means none.
    pub host_port: Option<NonZeroU16>,
    /// `hostIP`; missing or empty means every address of the node.
    pub host_ip: Option<IpAddr>,
    /// `protocol`.
    pub protocol: Protocol,
}

/// `protocol` of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// `TCP`, the default.
    Tcp,
    /// `UDP`.
    Udp,
    /// `SCTP`.
    Sctp,
}

impl fmt::Display for Protocol {
    /// In lower case, as runtimes hand it to plugins.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

impl fmt::Display for Port {
    /// `8086 -> 8086/tcp`, with the host's address in front if the port is bound to one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.host_port, self.host_ip) {
            (Some(port), Some(IpAddr::V6(ip))) => write!(f, "[{ip}]:{port} -> ")?,
            (Some(port), Some(IpAddr::V4(ip))) => write!(f, "{ip}:{port} -> ")?,
            (Some(port), None) => write!(f, "{port} -> ")?,
            (None, _) => {}
        }
        write!(f, "{}/{}", self.container_port, self.protocol)
    }
}

/// Why a manifest was refused.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The file or folder could not be read.
    #[error("cannot read {}", .path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The folder has no manifest.
    #[error("{}: no file ends in .yaml or .yml", .0.display())]
    NoManifest(PathBuf),
    /// The text is not YAML; the source tells line and column.
    #[error("{}: not YAML", .file.display())]
    Yaml {
        /// Where.
        file: PathBuf,
        /// What the parser said.
        #[source]
        source: Box<serde_saphyr::Error>,
    },
    /// A key has a value that a Pod cannot have.
    #[error("{}: {path}={value}: {reason}", .file.display())]
    Invalid {
        /// Where.
        file: PathBuf,
        /// The key's path in the document, `spec.containers[0].ports[1].hostPort`.
        path: String,
        /// Its value as JSON; `null` if it is missing.
        value: Value,
        /// What is wrong with it.
        reason: String,
    },
    /// Two pods have one name: they would share container id and namespace.
    #[error("{}: pod {name:?} is also in {}", .file.display(), .first.display())]
    Twice {
        /// The later file.
        file: PathBuf,
        /// The earlier file.
        first: PathBuf,
        /// `namespace/name`.
        name: String,
    },
}

/// Reads every `*.yaml` and `*.yml` of a folder, in the order of their names.
///
/// # Errors
/// The first file that cannot be read or is no Pod, or if there is none.
pub fn read_folder(folder: &Path) -> Result<Vec<Pod>, ManifestError> {
    let unreadable = |source| ManifestError::Read { path: folder.to_owned(), source };
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml") {
            files.push(path);
        }
    }
    files.sort();
    if files.is_empty() {
        return Err(ManifestError::NoManifest(folder.to_owned()));
    }
    let mut pods = Vec::new();
    let mut seen: BTreeMap<String, PathBuf> = BTreeMap::new();
    for file in files {
        let text = fs::read_to_string(&file).map_err(|source| ManifestError::Read { path: file.clone(), source })?;
        for pod in parse(&file, &text)? {
            let name = format!("{}/{}", pod.namespace, pod.name);
            if let Some(first) = seen.insert(name.clone(), file.clone()) {
                return Err(ManifestError::Twice { file, first, name });
            }
            pods.push(pod);
        }
    }
    Ok(pods)
}

/// Reads the Pods of one YAML text; documents are separated by `---`. `file` is for messages only.
///
/// # Errors
/// If the text is not YAML, or a document is not a Pod.
pub fn parse(file: &Path, text: &str) -> Result<Vec<Pod>, ManifestError> {
    // By YAML 1.2 a name may be `n` or `yes`; by 1.1 those are booleans.
    let options = serde_saphyr::options! { strict_booleans: true };
    let documents: Vec<Value> = serde_saphyr::from_multiple_with_options(text, options)
        .map_err(|source| ManifestError::Yaml { file: file.to_owned(), source: Box::new(source) })?;
    documents.iter().map(|document| Document { file, document }.pod()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(ports: &str) -> String {
        let text = format!("kind: Pod\nmetadata: {{name: web}}\nspec: {{containers: [{{}}, {{ports: [{ports}]}}]}}");
        parse(Path::new("web.yaml"), &text).unwrap_err().to_string()
    }

    #[test]
    fn a_bad_port_is_refused_with_file_path_and_value() {
        let at = "web.yaml: spec.containers[1].ports[0]";
        let cases = [
            ("{containerPort: 70000}", ".containerPort=70000: must be 1 to 65535"),
            ("{containerPort: 0}", ".containerPort=0: must be 1 to 65535"),
            ("{containerPort: 80, hostPort: -1}", ".hostPort=-1: must be 1 to 65535"),
            ("{containerPort: 80, protocol: tcp}", ".protocol=\"tcp\": must be TCP, UDP or SCTP"),
            ("{containerPort: 80, hostPort: 80, hostIP: node1}", ".hostIP=\"node1\": is not an IP address"),
        ];
        for (ports, expected) in cases {
            assert_eq!(refusal(ports), format!("{at}{expected}"));
        }
        let error = refusal("{containerPort: http}");
        assert!(error.starts_with(&format!("{at}.containerPort=\"http\": invalid type")), "{error}");
    }

    #[test]
    fn what_is_no_pod_is_refused() {
        let refused = |text: &str| parse(Path::new("a.yaml"), text).unwrap_err().to_string();
        assert_eq!(
            refused("kind: Service\nmetadata: {name: a}\nspec: {containers: []}"),
            "a.yaml: kind=\"Service\": must be \"Pod\""
        );
        let host = refused("kind: Pod\nmetadata: {name: a}\nspec: {hostNetwork: true, containers: []}");
        assert!(host.starts_with("a.yaml: spec.hostNetwork=true: "), "{host}");
        let name = refused("kind: Pod\nmetadata: {name: A_b}\nspec: {containers: []}");
        assert!(name.starts_with("a.yaml: metadata.name=\"A_b\": "), "{name}");
        assert_eq!(refused("kind: [Pod"), "a.yaml: not YAML");
    }

    #[test]
    fn documents_of_one_file_are_all_read() {
        let text = "kind: Pod\nmetadata: {name: a}\nspec: {containers: []}\n---\n\
                    kind: Pod\nmetadata: {name: b, namespace: n}\nspec: {containers: [{ports: [{containerPort: 80}]}]}\n";
        let pods = parse(Path::new("a.yaml"), text).unwrap();
        let seen: Vec<String> =
            pods.iter().map(|pod| format!("{}/{} {}", pod.namespace, pod.name, pod.ports.len())).collect();
        assert_eq!(seen, ["default/a 0", "n/b 1"]);
        assert_eq!(pods[1].ports[0].to_string(), "80/tcp");
    }

    #[test]
    fn ports_print_as_they_are_reached() {
        let text = "kind: Pod\nmetadata: {name: a}\nspec: {containers: [{ports: [\n\
                    {containerPort: 80, hostPort: 8080},\n\
                    {containerPort: 53, hostPort: 53, protocol: UDP, hostIP: '::1'},\n\
                    {containerPort: 9, hostPort: 9, protocol: SCTP, hostIP: 127.0.0.1}]}]}";
        let pods = parse(Path::new("a.yaml"), text).unwrap();
        let seen: Vec<String> = pods[0].ports.iter().map(ToString::to_string).collect();
        assert_eq!(seen, ["8080 -> 80/tcp", "[::1]:53 -> 53/udp", "127.0.0.1:9 -> 9/sctp"]);
    }
}
