//! Whether a lease's pod is still there, as far as can be seen from here.

use crate::ledger::has_link;
use crate::{Netns, Record};

/// Two signs of life. What cannot be seen is not taken for gone.
#[derive(Debug)]
pub(crate) struct Liveness {
    /// Whether a link on this host says that it is the attachment's.
    pub link: kernel::Result<bool>,
    /// Whether the pod's network namespace is where it was; none if the lease does not say where.
    pub netns: Option<bool>,
}

impl Liveness {
    pub fn of(record: &Record) -> Self {
        Self { link: has_link(&record.attachment), netns: Self::netns_of(record) }
    }

    /// The second sign alone.
    pub fn netns_of(record: &Record) -> Option<bool> {
        let netns = record.netns.as_ref().filter(|netns| netns.id.is_some())?;
        Some(Netns::at(&netns.path).is_same_as(netns))
    }

    /// Why the lease must not be ended; none if nothing speaks for the pod.
    pub fn objection(&self) -> Option<String> {
        match &self.link {
            Ok(true) => Some("its link is there".to_owned()),
            Err(error) => Some(format!("its link cannot be looked for: {error}")),
            Ok(false) if self.netns == Some(true) => Some("its network namespace is there".to_owned()),
            Ok(false) => None,
        }
    }
}
