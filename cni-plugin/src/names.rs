//! The names and marks of everything made for an attachment, derived from the attachment alone, so that
//! DEL and GC need neither a namespace nor a `prevResult`.

use cni_spec::{Attachment, NetworkName};
use data_encoding::BASE32HEX_NOPAD;
use ipam::marks::ALIAS_PREFIX;
use macaddr::MacAddr6;
use sha2::{Digest, Sha256};

use crate::Error;

/// The longest text that both an ifalias (254 bytes, see `kernel::rtnl`) and the comment of a set element
/// (251 bytes, see `nft_model`) can hold, the former less [`ALIAS_PREFIX`].
const OWNER_MAX: usize = 246;

/// How the tables of masquerade rules begin; those of host ports have another name, whatever a network is called.
const TABLE_PREFIX: &str = "podwire-masq-";

/// An nf_tables name may have 255 bytes (`NFT_NAME_MAXLEN`); one that people read should have fewer.
const TABLE_NETWORK_MAX: usize = 64;

/// `IFNAMSIZ` without the NUL (include/uapi/linux/if.h).
const INTERFACE_NAME_MAX: usize = 15;

/// Where the numbers of routing tables begin that stand for attachments: beyond those that people choose.
const TABLES_FROM: u32 = 0x7000_0000;

/// What one attachment's objects are called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// The host end of the veth pair: `pw`, or `hostInterfacePrefix`, and characters that stand for the attachment.
    pub host_link: String,
    /// What the host end is called while it is made, whatever the config says: `pw` and 13 characters.
    pub made_as: String,
    /// Its hardware address.
    pub host_mac: MacAddr6,
    /// The pod's hardware address.
    pub pod_mac: MacAddr6,
    /// `NETWORK CONTAINERID IFNAME`: the comment of set elements.
    pub owner: String,
    /// `podwire NETWORK CONTAINERID IFNAME`: the ifalias of the host end.
    pub alias: String,
    /// The routing table inside the pod for packets from this attachment's addresses, where the main table sends them
    /// another way. The next number is that for packets from other networks' addresses.
    pub table: u32,
}

impl Names {
    /// Derives all of them.
    ///
    /// # Errors
    /// [`Error::OwnerTooLong`] if the kernel could not keep the owner's text: then the objects could not be
    /// found again.
    pub fn of(attachment: &Attachment) -> Result<Self, Error> {
        let owner = attachment.to_string();
        if owner.len() > OWNER_MAX {
            return Err(Error::OwnerTooLong {
                network: attachment.network.clone(),
                length: owner.len(),
                max: OWNER_MAX,
            });
        }
        // nft(8) prints comments in quotes, and has no way to write one inside.
        if owner.contains(['"', '\\']) {
            return Err(Error::OwnerUnprintable { ifname: attachment.ifname.clone() });
        }
        let digest =
            digest(&[attachment.network.as_str(), attachment.container_id.as_str(), attachment.ifname.as_str()]);
        let label = BASE32HEX_NOPAD.encode(&digest[..9])[..13].to_ascii_lowercase();
        let start = mac_start(&attachment.network);
        Ok(Self {
            host_link: format!("pw{label}"),
            made_as: format!("pw{label}"),
            host_mac: local_mac(start, &digest[16..19], 0),
            pod_mac: local_mac(start, &digest[16..19], 1),
            alias: format!("{ALIAS_PREFIX}{owner}"),
            table: TABLES_FROM + (u32::from_be_bytes([0, digest[24], digest[25], digest[26]]) << 1),
            owner,
        })
    }

    /// With another beginning of the host end's name. The end of the name tells attachments apart, so that is what is
    /// kept of it.
    #[must_use]
    pub fn with_prefix(mut self, prefix: Option<&str>) -> Self {
        if let Some(prefix) = prefix {
            let label = &self.made_as["pw".len()..];
            let kept = INTERFACE_NAME_MAX.saturating_sub(prefix.len()).min(label.len());
            self.host_link = format!("{prefix}{}", &label[label.len() - kept..]);
        }
        self
    }
}

/// A locally administered unicast address (IEEE 802, section 8.2). Both ends are given one explicitly:
/// a link that the kernel numbered by itself may be renumbered by systemd's `MACAddressPolicy`.
fn local_mac([first, second, third]: [u8; 3], bytes: &[u8], end: u8) -> MacAddr6 {
    MacAddr6::new(first, second, third, bytes[0], bytes[1], bytes[2] & 0xfe | end)
}

/// How the hardware addresses of a network's pods begin. A pair has it from the moment it is made, while its alias
/// comes a message later, so that it tells whose a pair is that was never finished.
fn mac_start(network: &NetworkName) -> [u8; 3] {
    let digest = digest(&[network.as_str()]);
    [0x0a, digest[0], digest[1]]
}

/// Whether a hardware address is one of those that this network's pairs are made with.
#[must_use]
pub fn is_mac_of(network: &NetworkName, mac: MacAddr6) -> bool {
    mac.as_bytes().starts_with(&mac_start(network))
}

fn digest(parts: &[&str]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    hash.finalize().into()
}

/// The attachment that an ifalias names, if this plugin wrote it.
#[must_use]
pub fn attachment_of_alias(alias: &str) -> Option<Attachment> {
    alias.strip_prefix(ALIAS_PREFIX)?.parse().ok()
}

/// The nf_tables table of what pods may send, for all networks of the node.
pub const GUARD_TABLE: &str = "podwire-guard";

/// The nf_tables table of a network's masquerade rules.
#[must_use]
pub fn masquerade_table(network: &NetworkName) -> String {
    let name = network.as_str();
    if name.len() <= TABLE_NETWORK_MAX {
        return format!("{TABLE_PREFIX}{name}");
    }
    let label = BASE32HEX_NOPAD.encode(&digest(&[name])[..10]).to_ascii_lowercase();
    format!("{TABLE_PREFIX}{}-{label}", &name[..TABLE_NETWORK_MAX - label.len() - 1])
}

/// Whether a table is that of any network's masquerade.
#[must_use]
pub fn is_masquerade_table(name: &str) -> bool {
    name.starts_with(TABLE_PREFIX)
}

/// The longest name of a chain that iptables takes (`XT_EXTENSION_MAXNAMELEN` without the NUL).
const CHAIN_NAME_MAX: usize = 28;

/// The chain of a network's masquerade rules, where iptables has them.
#[must_use]
pub fn masquerade_chain(network: &NetworkName) -> String {
    const PREFIX: &str = "PODWIRE-MASQ-";
    let name = network.as_str();
    let room = CHAIN_NAME_MAX - PREFIX.len();
    if name.len() <= room {
        return format!("{PREFIX}{name}");
    }
    let label = BASE32HEX_NOPAD.encode(&digest(&[name])[..5]).to_ascii_lowercase();
    format!("{PREFIX}{}-{label}", &name[..room - label.len() - 1])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attachment(container: &str) -> Attachment {
        Attachment {
            network: "podnet".parse().unwrap(),
            container_id: container.parse().unwrap(),
            ifname: "eth0".parse().unwrap(),
        }
    }

    #[test]
    fn names_fit_and_differ() {
        let one = Names::of(&attachment("a")).unwrap();
        let two = Names::of(&attachment("b")).unwrap();
        assert_eq!(one.host_link.len(), 15);
        assert!(one.host_link.starts_with("pw") && one.host_link.bytes().all(|b| b.is_ascii_alphanumeric()));
        assert_ne!(one.host_link, two.host_link);
        assert_ne!(one.host_mac, one.pod_mac);
        assert_eq!(one, Names::of(&attachment("a")).unwrap(), "the same attachment has the same names");
    }

    #[test]
    fn macs_are_local_and_unicast_and_tell_the_network() {
        let names = Names::of(&attachment("a")).unwrap();
        assert!(is_mac_of(&"podnet".parse().unwrap(), names.host_mac));
        assert!(!is_mac_of(&"podnet2".parse().unwrap(), names.host_mac));
        for mac in [names.host_mac, names.pod_mac] {
            assert_eq!(mac.as_bytes()[0] & 0b11, 0b10);
        }
    }

    #[test]
    fn a_prefix_of_ones_own_leaves_what_tells_attachments_apart() {
        let names = Names::of(&attachment("a")).unwrap();
        assert_eq!(names.clone().with_prefix(None), names);
        let other = names.clone().with_prefix(Some("cali"));
        assert_eq!(other.host_link, format!("cali{}", &names.host_link[4..]));
        assert_eq!((other.host_link.len(), &other.made_as), (15, &names.host_link));
        assert_eq!(names.clone().with_prefix(Some("v")).host_link, format!("v{}", &names.host_link[2..]));
    }

    #[test]
    fn an_alias_names_its_attachment() {
        let one = attachment("0123abcd");
        assert_eq!(attachment_of_alias(&Names::of(&one).unwrap().alias), Some(one));
        for foreign in ["", "podwire", "podwire a b", "podwire a b c d", "uplink of rack 7", "podwire a/b c eth0"] {
            assert_eq!(attachment_of_alias(foreign), None, "{foreign:?}");
        }
    }

    #[test]
    fn an_owner_that_the_kernel_would_cut_is_refused() {
        assert!(Names::of(&attachment(&"c".repeat(234))).is_ok());
        assert!(matches!(Names::of(&attachment(&"c".repeat(235))), Err(Error::OwnerTooLong { length: 247, .. })));
    }

    #[test]
    fn long_networks_have_short_tables() {
        assert_eq!(masquerade_table(&"podnet".parse().unwrap()), "podwire-masq-podnet");
        let long = "n".repeat(100);
        let table = masquerade_table(&long.parse().unwrap());
        assert_eq!(table.len(), TABLE_PREFIX.len() + TABLE_NETWORK_MAX);
        assert_ne!(table, masquerade_table(&format!("{long}n").parse().unwrap()));
    }

    #[test]
    fn long_networks_have_chains_that_iptables_takes() {
        assert_eq!(masquerade_chain(&"podnet".parse().unwrap()), "PODWIRE-MASQ-podnet");
        let long = "n".repeat(16);
        let chain = masquerade_chain(&long.parse().unwrap());
        assert!(chain.len() == CHAIN_NAME_MAX && chain.starts_with("PODWIRE-MASQ-nnnnnn-"), "{chain}");
        assert_ne!(chain, masquerade_chain(&format!("{long}n").parse().unwrap()));
    }
}
