//! `CNI_ARGS`: `K=V;K=V` (spec section 2, "Parameters").

use std::collections::BTreeMap;
use std::str::FromStr;

/// The pairs of `CNI_ARGS`; a pair without exactly one `=` is refused at the door.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CniArgs(BTreeMap<String, String>);

/// The pod that an attachment is for, as Kubernetes' runtimes tell it. Any part may be missing: podman
/// sends the name alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PodIdentity<'a> {
    /// `K8S_POD_NAMESPACE`.
    pub namespace: Option<&'a str>,
    /// `K8S_POD_NAME`.
    pub name: Option<&'a str>,
    /// `K8S_POD_UID`.
    pub uid: Option<&'a str>,
}

/// A part of `CNI_ARGS` that is not a pair.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} must be a key and a value with exactly one '=' between them")]
pub struct BadPair(pub String);

impl CniArgs {
    /// The value of a key; keys are case-sensitive.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// All pairs, in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// The `K8S_POD_*` pairs; empty values count as missing.
    #[must_use]
    pub fn pod(&self) -> PodIdentity<'_> {
        let get = |key| self.get(key).filter(|value| !value.is_empty());
        PodIdentity { namespace: get("K8S_POD_NAMESPACE"), name: get("K8S_POD_NAME"), uid: get("K8S_POD_UID") }
    }
}

impl FromStr for CniArgs {
    type Err = BadPair;

    /// Empty parts, such as after a trailing `;`, are passed over; of duplicate keys the last wins.
    fn from_str(text: &str) -> Result<Self, BadPair> {
        let mut pairs = BTreeMap::new();
        for pair in text.split(';').filter(|pair| !pair.is_empty()) {
            let bad = || BadPair(pair.to_owned());
            let (key, value) = pair.split_once('=').ok_or_else(bad)?;
            if key.is_empty() || value.contains('=') {
                return Err(bad());
            }
            pairs.insert(key.to_owned(), value.to_owned());
        }
        Ok(Self(pairs))
    }
}
