//! The plugin's config: raw as it stands in JSON, then checked.

use cni_spec::{CniError, Dns, ErrorCode, NetConf};
use ipnetwork::IpNetwork;
use serde::Deserialize;

/// The IPAM type that is served by a library call in this process instead of by an executable.
pub const OWN_IPAM: &str = "podwire-ipam";

/// The smallest MTU that IPv4 allows (RFC 791); IPv6 needs 1280 (RFC 8200) and the kernel says so.
const MTU_MIN: u32 = 68;

/// The largest that a veth takes (`ETH_MAX_MTU`, include/uapi/linux/if_ether.h).
const MTU_MAX: u32 = 65535;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawConfig {
    mtu: Option<u32>,
    ip_masq: Option<bool>,
    ip_masq_backend: Option<String>,
    #[serde(rename = "nonMasqueradeCIDRs")]
    non_masquerade_cidrs: Option<Vec<String>>,
    dns: Option<Dns>,
}

/// What an operator asks of this plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// `mtu` in bytes; `None` takes that of the route to the outside.
    pub mtu: Option<u32>,
    /// `ipMasq`: whether pods reach the outside with the node's address, and where they keep their own.
    pub masquerade: Option<Masquerade>,
    /// `dns`, which replaces the IPAM plugin's if it is there.
    pub dns: Option<Dns>,
    /// `ipam.type`.
    pub ipam_type: String,
}

/// Where masquerading ends.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Masquerade {
    /// `nonMasqueradeCIDRs`: destinations that see the pod's own address.
    pub not_to: Vec<IpNetwork>,
}

impl Config {
    /// Checks the config of one request.
    ///
    /// # Errors
    /// Code 7 or 2 with key and value.
    pub fn of(conf: &NetConf) -> Result<Self, CniError> {
        let raw: RawConfig = conf.parse()?;
        let ipam_type = conf.ipam_type.clone().filter(|name| !name.is_empty()).ok_or_else(|| {
            CniError::new(ErrorCode::InvalidConfig, "invalid network config: ipam.type is missing").with_details(format!(
                "name the IPAM plugin that gives out addresses, for example \"ipam\": {{\"type\": \"{OWN_IPAM}\", \"podCIDR\": \"10.244.1.0/24\"}}"
            ))
        })?;
        if is_main_plugin(&ipam_type, conf) {
            let why = "is this main plugin itself, which would run itself without end";
            return Err(CniError::new(
                ErrorCode::InvalidConfig,
                format!("invalid network config: ipam.type={ipam_type:?}: {why}"),
            )
            .with_details(format!("name an IPAM plugin, for example {OWN_IPAM:?}")));
        }
        if let Some(backend) = raw.ip_masq_backend.filter(|backend| backend != "nftables") {
            return Err(CniError::new(
                ErrorCode::UnsupportedField,
                format!("unsupported value: ipMasqBackend={backend:?}: this plugin masquerades by \"nftables\" only"),
            ));
        }
        let not_to = networks("nonMasqueradeCIDRs", raw.non_masquerade_cidrs.as_deref().unwrap_or_default())?;
        Ok(Self {
            mtu: checked_mtu(raw.mtu.unwrap_or(0))?,
            masquerade: raw.ip_masq.unwrap_or(false).then_some(Masquerade { not_to }),
            dns: raw.dns,
            ipam_type,
        })
    }
}

/// Whether an IPAM type is this plugin, by its own name or the one it is installed under.
#[must_use]
pub fn is_main_plugin(ipam_type: &str, conf: &NetConf) -> bool {
    ipam_type == "podwire" || ipam_type == conf.plugin_type
}

fn checked_mtu(mtu: u32) -> Result<Option<u32>, CniError> {
    match mtu {
        0 => Ok(None),
        MTU_MIN..=MTU_MAX => Ok(Some(mtu)),
        _ => Err(CniError::new(
            ErrorCode::InvalidConfig,
            format!("invalid network config: mtu={mtu}: must be 0, or {MTU_MIN} to {MTU_MAX} bytes"),
        )),
    }
}

/// CIDRs without host bits: "10.1.2.3/8" is more likely a mistake than a wish.
fn networks(key: &str, texts: &[String]) -> Result<Vec<IpNetwork>, CniError> {
    let invalid = |index: usize, text: &str, why: String| {
        CniError::new(ErrorCode::InvalidConfig, format!("invalid network config: {key}[{index}]={text:?}: {why}"))
    };
    texts
        .iter()
        .enumerate()
        .map(|(index, text)| {
            let network: IpNetwork = text.parse().map_err(|_| invalid(index, text, "is not a CIDR".to_owned()))?;
            if network.ip() == network.network() {
                Ok(network)
            } else {
                let meant = format!("has host bits set; the network is {}/{}", network.network(), network.prefix());
                Err(invalid(index, text, meant))
            }
        })
        .collect()
}
