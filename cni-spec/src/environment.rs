//! The process environment as a value, so that nothing reads it behind anybody's back.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

/// Environment variables. A plugin gets them all: delegates inherit them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Environment(BTreeMap<OsString, OsString>);

impl Environment {
    /// The environment of this process.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the process environment")]
    pub fn of_process() -> Self {
        Self(std::env::vars_os().collect())
    }

    /// The value, if it is set and not empty: runtimes set what they leave out to "".
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&OsStr> {
        self.0.get(OsStr::new(name)).map(OsString::as_os_str).filter(|value| !value.is_empty())
    }

    /// The same environment with one variable set.
    #[must_use]
    pub fn with(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.0.insert(name.into(), value.into());
        self
    }

    /// All variables, for a child process.
    pub fn iter(&self) -> impl Iterator<Item = (&OsString, &OsString)> {
        self.0.iter()
    }

    /// `CNI_PATH`, split at ':' (spec section 2).
    #[must_use]
    pub fn cni_path(&self) -> CniPath {
        CniPath(self.get("CNI_PATH").map(|value| std::env::split_paths(value).collect()).unwrap_or_default())
    }
}

impl<K: Into<OsString>, V: Into<OsString>> FromIterator<(K, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(variables: I) -> Self {
        Self(variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

/// The folders in which delegates are looked for, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CniPath(pub Vec<PathBuf>);
