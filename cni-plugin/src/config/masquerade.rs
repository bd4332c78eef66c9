//! `ipMasq` and the keys around it.

use std::net::IpAddr;

use cni_spec::{CniError, ErrorCode};
use ipnetwork::IpNetwork;
use serde::Deserialize;

use super::{invalid, one_of};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Raw {
    ip_masq: Option<bool>,
    ip_masq_backend: Option<String>,
    #[serde(rename = "nonMasqueradeCIDRs")]
    non_masquerade_cidrs: Option<Vec<String>>,
    snat_source: Option<OneOrMany>,
    drop_invalid: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "must be an address, or a list of one for each family")]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

/// Where masquerading ends, and what the outside sees.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Masquerade {
    /// `nonMasqueradeCIDRs`: destinations that see the pod's own address.
    pub not_to: Vec<IpNetwork>,
    /// `snatSource`: what the outside sees instead of the address of the link that a packet leaves by; at most one
    /// address of each family.
    pub source: Vec<IpAddr>,
    /// `ipMasqBackend`.
    pub backend: Backend,
    /// `dropInvalid`, unless it is false: packets that connection tracking cannot place do not leave. They would with the
    /// pod's own address, since only what is tracked is translated. Not with iptables.
    pub keep_invalid: bool,
}

/// What translates.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Backend {
    /// Nothing was said: nftables where the kernel has it, iptables otherwise.
    #[default]
    Any,
    /// Tables of our own in nf_tables.
    Nftables,
    /// Chains of our own in table nat of iptables, of the flavour that the node's administrator chose.
    Iptables,
}

impl Masquerade {
    /// Nothing without `ipMasq`, but what is said besides has to be right all the same.
    pub(super) fn of(raw: Raw) -> Result<Option<Self>, CniError> {
        let backends = [("nftables", Backend::Nftables), ("iptables", Backend::Iptables)];
        let backend = one_of("ipMasqBackend", raw.ip_masq_backend.as_deref(), &backends)?;
        if backend == Backend::Iptables && raw.drop_invalid == Some(true) {
            let msg = "unsupported field: dropInvalid=true: not with ipMasqBackend=\"iptables\"";
            return Err(CniError::new(ErrorCode::UnsupportedField, msg));
        }
        let keep_invalid = raw.drop_invalid == Some(false);
        let not_to = networks("nonMasqueradeCIDRs", raw.non_masquerade_cidrs.as_deref().unwrap_or_default())?;
        let source = match raw.snat_source {
            None => Vec::new(),
            Some(OneOrMany::One(text)) => vec![source("snatSource", &text)?],
            Some(OneOrMany::Many(texts)) => sources(&texts)?,
        };
        Ok(raw.ip_masq.unwrap_or(false).then_some(Self { not_to, source, backend, keep_invalid }))
    }
}

fn sources(texts: &[String]) -> Result<Vec<IpAddr>, CniError> {
    let mut sources: Vec<IpAddr> = Vec::new();
    for (index, text) in texts.iter().enumerate() {
        let key = format!("snatSource[{index}]");
        let address = source(&key, text)?;
        if sources.iter().any(|other| other.is_ipv4() == address.is_ipv4()) {
            return Err(invalid(key, text, "is a second address of its family: name one of each"));
        }
        sources.push(address);
    }
    Ok(sources)
}

fn source(key: &str, text: &str) -> Result<IpAddr, CniError> {
    let address: IpAddr = text.parse().map_err(|_| invalid(key, text, "is not an IP address"))?;
    if address.is_unspecified() || address.is_loopback() || address.is_multicast() {
        return Err(invalid(key, text, "is no address that an answer could come back to"));
    }
    Ok(address)
}

/// CIDRs without host bits: "10.1.2.3/8" is more likely a mistake than a wish.
fn networks(key: &str, texts: &[String]) -> Result<Vec<IpNetwork>, CniError> {
    let network = |(index, text): (usize, &String)| {
        let key = format!("{key}[{index}]");
        let network: IpNetwork = text.parse().map_err(|_| invalid(&key, text, "is not a CIDR"))?;
        if network.ip() == network.network() {
            return Ok(network);
        }
        let meant = format!("has host bits set; the network is {}/{}", network.network(), network.prefix());
        Err(invalid(key, text, &meant))
    };
    texts.iter().enumerate().map(network).collect()
}
