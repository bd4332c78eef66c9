//! `CNI_ARGS`: `K=V;K=V`.

use std::collections::BTreeMap;

/// The pairs of `CNI_ARGS`; a pair without exactly one `=` is refused at the door.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CniArgs(BTreeMap<String, String>);

impl CniArgs {
    /// The value of a key; keys are case-sensitive.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }
}
