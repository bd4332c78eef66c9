//! One YAML document becomes a [`Pod`]: raw first, then checked.

use std::collections::BTreeMap;
use std::num::NonZeroU16;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::{ManifestError, Pod, Port, Protocol};

/// One YAML document on its way to a [`Pod`].
pub(super) struct Document<'a> {
    pub(super) file: &'a Path,
    pub(super) document: &'a Value,
}

impl Document<'_> {
    pub(super) fn pod(&self) -> Result<Pod, ManifestError> {
        let raw: RawPod = serde_path_to_error::deserialize(self.document)
            .map_err(|error| self.invalid(&error.path().to_string(), error.inner().to_string()))?;
        if raw.kind.as_deref() != Some("Pod") {
            return Err(self.invalid("kind", "must be \"Pod\""));
        }
        if raw.spec.host_network {
            return Err(
                self.invalid("spec.hostNetwork", "such a pod has the node's addresses: no plugin is called for it")
            );
        }
        let namespace = raw.metadata.namespace.unwrap_or_else(|| "default".to_owned());
        self.check_name("metadata.name", &raw.metadata.name, 253)?;
        self.check_name("metadata.namespace", &namespace, 63)?;
        let mut ports = Vec::new();
        for (i, container) in raw.spec.containers.iter().enumerate() {
            for (j, port) in container.ports.iter().enumerate() {
                ports.push(self.port(&format!("spec.containers[{i}].ports[{j}]"), port)?);
            }
        }
        Ok(Pod { name: raw.metadata.name, namespace, annotations: raw.metadata.annotations, ports })
    }

    fn port(&self, path: &str, raw: &RawPort) -> Result<Port, ManifestError> {
        let number = |key: &str, value: i64| {
            let port = u16::try_from(value).ok().and_then(NonZeroU16::new);
            port.ok_or_else(|| self.invalid(&format!("{path}.{key}"), "must be 1 to 65535"))
        };
        let host_port = if raw.host_port == 0 { None } else { Some(number("hostPort", raw.host_port)?) };
        let host_ip = match raw.host_ip.as_str() {
            "" => None,
            text => Some(text.parse().map_err(|_| self.invalid(&format!("{path}.hostIP"), "is not an IP address"))?),
        };
        let protocol = match raw.protocol.as_deref() {
            None | Some("TCP") => Protocol::Tcp,
            Some("UDP") => Protocol::Udp,
            Some("SCTP") => Protocol::Sctp,
            Some(_) => return Err(self.invalid(&format!("{path}.protocol"), "must be TCP, UDP or SCTP")),
        };
        Ok(Port { container_port: number("containerPort", raw.container_port)?, host_port, host_ip, protocol })
    }

    /// RFC 1123 labels, as Kubernetes wants them; a pod's name may have several, joined by dots.
    fn check_name(&self, path: &str, name: &str, max: usize) -> Result<(), ManifestError> {
        let label_ok = |label: &str| {
            let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            !label.is_empty() && label.chars().all(inner) && !label.starts_with('-') && !label.ends_with('-')
        };
        if name.len() <= max && name.split('.').all(label_ok) {
            Ok(())
        } else {
            Err(self.invalid(path, format!("must be lower-case letters, digits and '-', at most {max} bytes")))
        }
    }

    fn invalid(&self, path: &str, reason: impl Into<String>) -> ManifestError {
        let mut steps = path.split(['.', '[', ']']).filter(|step| !step.is_empty());
        let value = steps.try_fold(self.document, |value, step| {
            value.get(step).or_else(|| step.parse::<usize>().ok().and_then(|index| value.get(index)))
        });
        ManifestError::Invalid {
            file: self.file.to_owned(),
            path: path.to_owned(),
            value: value.cloned().unwrap_or(Value::Null),
            reason: reason.into(),
        }
    }
}

#[derive(Deserialize)]
struct RawPod {
    kind: Option<String>,
    metadata: RawMetadata,
    spec: RawSpec,
}

#[derive(Deserialize)]
struct RawMetadata {
    name: String,
    namespace: Option<String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawSpec {
    #[serde(default)]
    host_network: bool,
    containers: Vec<RawContainer>,
}

#[derive(Deserialize)]
struct RawContainer {
    #[serde(default)]
    ports: Vec<RawPort>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawPort {
    container_port: i64,
    #[serde(default)]
    host_port: i64,
    #[serde(rename = "hostIP", default)]
    host_ip: String,
    protocol: Option<String>,
}
