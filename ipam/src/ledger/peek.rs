//! The leases from their copies: without the lock, and without the database.

use std::fs;
use std::path::Path;

use super::{Ledger, spool};
use crate::clock;
use crate::record::Record;

/// How often to look again when somebody changes the ledger in the meantime.
const ATTEMPTS: u32 = 5;

impl Ledger {
    /// All leases, in the order of network, container id and interface, as their copies tell. Keeps nobody waiting
    /// and waits for nobody. None if the copies do not tell just now: there are none, or a change is under way or was
    /// broken off. Leases whose release is written down but not carried out are left out.
    pub(crate) fn leases_in_copies(&self) -> Option<Vec<Record>> {
        let boot_id = clock::boot_id().ok()?;
        (0..ATTEMPTS).find_map(|_| {
            let before = self.settled()?;
            let mut leases = read(&self.dir.join("leases"))?;
            // After the leases: a release that was carried out meanwhile has changed the number of changes.
            let pending: Vec<_> = spool::pending(&self.dir).collect();
            if self.settled()? != before {
                return None;
            }
            leases.retain(|lease| lease.boot_id == boot_id && !pending.iter().any(|release| release.ends(lease)));
            leases.sort_by(|one, other| {
                let key = |lease: &Record| {
                    let it = &lease.attachment;
                    [it.network.to_string(), it.container_id.to_string(), it.ifname.to_string()]
                };
                key(one).cmp(&key(other))
            });
            Some(leases)
        })
    }

    /// The number of changes, if all of them have reached the copies.
    fn settled(&self) -> Option<String> {
        let is_settled = self.database().is_dir() && !self.dir.join("unsettled").exists();
        is_settled.then(|| fs::read_to_string(self.dir.join("generation")).ok()).flatten()
    }
}

/// None if one of them cannot be read or understood.
fn read(folder: &Path) -> Option<Vec<Record>> {
    let mut leases = Vec::new();
    for entry in fs::read_dir(folder).ok()? {
        let path = entry.ok()?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            leases.push(serde_json::from_slice(&fs::read(&path).ok()?).ok()?);
        }
    }
    Some(leases)
}
