//! What must hold in the end.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;

use cni_spec::{ValidAttachment, ValidAttachments};
use ipam::{Ledger, Record};

use crate::PROCESSES;
use crate::journal::Known;
use crate::worker::Scene;

fn holders(leases: &[Record]) -> BTreeMap<IpAddr, String> {
    let mut holders = BTreeMap::new();
    for lease in leases {
        for address in lease.ips() {
            let other = holders.insert(address, lease.attachment.to_string());
            assert_eq!(other, None, "{address} is held by {} too", lease.attachment);
        }
    }
    holders
}

/// Fails if an address was lent twice, a lease was lost, or one is left after GC. Tells what it saw.
pub fn judge(scene: &Scene) -> String {
    assert_eq!(scene.violations(), "");
    let ledger = Ledger::at(&scene.data_dir);
    let leases = ledger.leases("verdict").unwrap().unwrap();
    holders(&leases);
    let held: BTreeMap<String, Vec<IpAddr>> =
        leases.iter().map(|lease| (lease.attachment.to_string(), lease.ips().collect())).collect();
    let mut living = BTreeMap::new();
    let mut doubtful = 0;
    for index in 0..PROCESSES {
        let scene = Scene { index, ..scene.clone() };
        let mut valid = ValidAttachments::default();
        for (container, known) in scene.journal().read() {
            let attachment = scene.attachment(&container);
            let held = held.get(&attachment.to_string());
            match known {
                Known::Leased(ips) => {
                    assert_eq!(held, Some(&ips), "{attachment} lost its lease");
                    living.insert(attachment.to_string(), ips);
                    let ValidAttachment { container_id, ifname } =
                        ValidAttachment { container_id: attachment.container_id, ifname: attachment.ifname };
                    valid.0.insert(ValidAttachment { container_id, ifname });
                }
                Known::Gone => assert_eq!(held, None, "{attachment} was released"),
                Known::Unknown => {
                    assert!(held.is_none_or(|held| held.len() == 2), "{attachment} has half a lease");
                    doubtful += 1;
                }
            }
        }
        ledger.gc(&scene.network().parse().unwrap(), &valid).unwrap();
    }
    let left = ledger.leases("verdict").unwrap().unwrap();
    let left: BTreeMap<String, Vec<IpAddr>> =
        left.iter().map(|lease| (lease.attachment.to_string(), lease.ips().collect())).collect();
    assert_eq!(left, living, "GC leaves the living and nobody else");
    let reason = |folder: &PathBuf| fs::read_to_string(folder.join("reason.txt")).unwrap_or_default();
    let damaged: Vec<_> = ledger.quarantined().unwrap().iter().map(reason).collect();
    assert_eq!(damaged, Vec::<String>::new(), "the ledger was damaged");
    format!("{} leases stand, {doubtful} containers in doubt", living.len())
}
