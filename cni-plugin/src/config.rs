//! The plugin's config: raw as it stands in JSON, then checked. What a pod may wish for besides stands in `wishes`.

mod annotations;
mod bandwidth;
mod layer2;
mod masquerade;
mod quantity;
mod unsupported;
mod wishes;

use std::collections::BTreeMap;

use cni_spec::{CniError, Dns, ErrorCode, NetConf};
use macaddr::MacAddr6;
use serde::Deserialize;

pub use self::bandwidth::{Bandwidth, Rate};
pub use self::masquerade::{Backend, Masquerade};
pub use self::unsupported::DHCP;
use crate::sysctl::{Allowed, PodSysctl};

/// The IPAM type that is served by a library call in this process instead of by an executable.
pub const OWN_IPAM: &str = "podwire-ipam";

/// The smallest MTU that IPv4 allows (RFC 791).
const MTU_MIN: u32 = 68;

/// IPV6_MIN_MTU (RFC 8200, section 5), in bytes: a link with less has no IPv6.
pub const MTU_MIN_IPV6: u32 = 1280;

/// The largest that a veth takes (`ETH_MAX_MTU`, include/uapi/linux/if_ether.h).
const MTU_MAX: u32 = 65535;

/// The longest `hostInterfacePrefix`: with it, seven characters are left that stand for the attachment.
const PREFIX_MAX: usize = 8;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawConfig {
    mtu: Option<u32>,
    dns: Option<RawDns>,
    anti_spoofing: Option<String>,
    gateway: Option<String>,
    device: Option<String>,
    host_interface_prefix: Option<String>,
    sysctl: Option<BTreeMap<String, String>>,
    allowed_sysctls: Option<Vec<String>>,
}

/// `dns`, where a list that is empty is a wish, and one that is missing is none.
#[derive(Debug, Deserialize)]
#[serde(expecting = "an object")]
struct RawDns {
    nameservers: Option<Vec<String>>,
    domain: Option<String>,
    search: Option<Vec<String>>,
    options: Option<Vec<String>>,
}

/// What an operator asks of this plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// `mtu` in bytes; `None` takes that of the route to the outside.
    pub mtu: Option<u32>,
    /// The key that says so.
    pub mtu_key: String,
    /// `ipMasq`: whether pods reach the outside with the node's address, and where they keep their own.
    pub masquerade: Option<Masquerade>,
    /// `dns`, which replaces the IPAM plugin's if it says anything.
    pub dns: Option<Dns>,
    /// `ipam.type`; without one the attachment is a link and nothing more: layer 2.
    pub ipam_type: Option<String>,
    /// `antiSpoofing`.
    pub guard: Guard,
    /// `gateway`.
    pub gateway: Gateway,
    /// `hostInterfacePrefix`, if it is not the usual one.
    pub host_prefix: Option<String>,
    /// `sysctl`: settings of the pod's interface.
    pub sysctl: Vec<PodSysctl>,
    /// `allowedSysctls`: which of them a pod may wish for itself.
    pub allowed_sysctls: Vec<Allowed>,
    /// How fast the pod may send and receive.
    pub bandwidth: Bandwidth,
    /// The hardware address that somebody wishes for.
    pub mac: Option<MacAddr6>,
}

/// What a pod may send.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Guard {
    /// `strict`: only from its own addresses and its own hardware address.
    #[default]
    Strict,
    /// `addresses`: only from its own addresses; its hardware address may change.
    Addresses,
    /// `off`: everything.
    Off,
}

/// Which next hop a pod sees.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Gateway {
    /// `link-local`: 169.254.1.1 and fe80::1, on every network.
    #[default]
    LinkLocal,
    /// `range`: the gateway that the IPAM plugin names for the address, if it does.
    Range,
}

impl Config {
    /// Checks the config of one request.
    ///
    /// # Errors
    /// Code 7 or 2 with key and value.
    pub fn of(conf: &NetConf) -> Result<Self, CniError> {
        unsupported::refuse(conf)?;
        let ipam_type = ipam_type(conf)?;
        if ipam_type.is_none() {
            layer2::refuse(conf)?;
        }
        let raw: RawConfig = conf.parse()?;
        device(raw.device.as_deref())?;
        Ok(Self {
            mtu: mtu("mtu", raw.mtu.unwrap_or(0))?,
            mtu_key: "mtu".to_owned(),
            masquerade: Masquerade::of(conf.parse()?)?,
            dns: raw.dns.and_then(RawDns::if_set),
            ipam_type,
            guard: one_of(
                "antiSpoofing",
                raw.anti_spoofing.as_deref(),
                &[("strict", Guard::Strict), ("addresses", Guard::Addresses), ("off", Guard::Off)],
            )?,
            gateway: one_of(
                "gateway",
                raw.gateway.as_deref(),
                &[("link-local", Gateway::LinkLocal), ("range", Gateway::Range)],
            )?,
            host_prefix: raw.host_interface_prefix.filter(|prefix| !prefix.is_empty()).map(prefix).transpose()?,
            sysctl: sysctls(&raw.sysctl.unwrap_or_default())?,
            allowed_sysctls: allowed(&raw.allowed_sysctls.unwrap_or_default())?,
            bandwidth: Bandwidth::of(conf.parse()?, &conf.runtime_config)?,
            mac: None,
        })
    }
}

impl RawDns {
    /// The reference's rule: one key with a value, be it an empty list, and all of the IPAM plugin's is replaced.
    fn if_set(self) -> Option<Dns> {
        let domain = self.domain.filter(|domain| !domain.is_empty());
        let lists = [&self.nameservers, &self.search, &self.options];
        (domain.is_some() || lists.iter().any(|list| list.is_some())).then(|| Dns {
            nameservers: self.nameservers.unwrap_or_default(),
            domain,
            search: self.search.unwrap_or_default(),
            options: self.options.unwrap_or_default(),
        })
    }
}

/// Code 7 with key, value and what is wrong.
pub(crate) fn invalid(key: impl std::fmt::Display, value: impl std::fmt::Debug, why: &str) -> CniError {
    CniError::new(ErrorCode::InvalidConfig, format!("invalid network config: {key}={value:?}: {why}"))
}

fn one_of<T: Copy + Default>(key: &str, value: Option<&str>, choices: &[(&str, T)]) -> Result<T, CniError> {
    let Some(value) = value.filter(|value| !value.is_empty()) else { return Ok(T::default()) };
    choices.iter().find(|(name, _)| *name == value).map(|(_, choice)| *choice).ok_or_else(|| {
        let names: Vec<String> = choices.iter().map(|(name, _)| format!("{name:?}")).collect();
        invalid(key, value, &format!("must be one of {}", names.join(", ")))
    })
}

/// What a pair is made of. Whoever wishes for something else is told, and not given a veth pair in silence.
fn device(device: Option<&str>) -> Result<(), CniError> {
    match device.unwrap_or_default() {
        "" | "veth" => Ok(()),
        "netkit" => {
            let why = "podwire makes veth pairs: a netkit pair is faster only where a BPF program forwards, and podwire has none";
            Err(invalid("device", "netkit", why).with_details("leave the key out, or say \"veth\""))
        }
        other => Err(invalid("device", other, "must be \"veth\"")),
    }
}

fn ipam_type(conf: &NetConf) -> Result<Option<String>, CniError> {
    let Some(ipam_type) = conf.ipam_type.clone() else { return Ok(None) };
    if is_main_plugin(&ipam_type, conf) {
        let why = "is this main plugin itself, which would run itself without end";
        return Err(
            invalid("ipam.type", ipam_type, why).with_details(format!("name an IPAM plugin, for example {OWN_IPAM:?}"))
        );
    }
    Ok(Some(ipam_type))
}

/// Whether an IPAM type is this plugin, by its own name or the one it is installed under.
#[must_use]
pub fn is_main_plugin(ipam_type: &str, conf: &NetConf) -> bool {
    ipam_type == "podwire" || ipam_type == conf.plugin_type
}

fn mtu(key: &str, mtu: u32) -> Result<Option<u32>, CniError> {
    match mtu {
        0 => Ok(None),
        MTU_MIN..=MTU_MAX => Ok(Some(mtu)),
        _ => Err(invalid(key, mtu, &format!("must be 0, or {MTU_MIN} to {MTU_MAX} bytes"))),
    }
}

fn prefix(prefix: String) -> Result<String, CniError> {
    let starts = prefix.starts_with(|first: char| first.is_ascii_alphabetic());
    let possible = starts && prefix.chars().all(|char| char.is_ascii_alphanumeric() || matches!(char, '-' | '_'));
    if possible && prefix.len() <= PREFIX_MAX {
        return Ok(prefix);
    }
    let why = format!("must be a letter and up to {} letters, digits, '-' or '_'", PREFIX_MAX - 1);
    Err(invalid("hostInterfacePrefix", prefix, &why))
}

fn sysctls(wanted: &BTreeMap<String, String>) -> Result<Vec<PodSysctl>, CniError> {
    let mut all: Vec<PodSysctl> = Vec::new();
    for (key, value) in wanted {
        let refuse = |why: String| invalid(format!("sysctl[{key:?}]"), value, &why);
        let sysctl = PodSysctl::new(key, value).map_err(refuse)?;
        if all.iter().any(|other| other.path("") == sysctl.path("")) {
            return Err(refuse("is there twice, with dots and with slashes".to_owned()));
        }
        all.push(sysctl);
    }
    Ok(all)
}

fn allowed(patterns: &[String]) -> Result<Vec<Allowed>, CniError> {
    let allowed = |(index, pattern): (usize, &String)| {
        Allowed::new(pattern).map_err(|why| invalid(format!("allowedSysctls[{index}]"), pattern, &why))
    };
    patterns.iter().enumerate().map(allowed).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn of(changes: &Value) -> Result<Config, String> {
        let mut json = json!({ "cniVersion": "1.0.0", "name": "n", "type": "podwire", "ipam": { "type": "static" } });
        for (key, value) in changes.as_object().unwrap() {
            json[key] = value.clone();
        }
        let conf = NetConf::from_bytes(json.to_string().into_bytes()).unwrap();
        Config::of(&conf).map_err(|error| error.msg)
    }

    #[test]
    fn dns_replaces_everything_if_any_key_has_a_value() {
        let dns = |value: Value| of(&json!({ "dns": value })).unwrap().dns;
        for nothing in [json!(null), json!({}), json!({ "domain": "" }), json!({ "search": null })] {
            assert_eq!(dns(nothing.clone()), None, "{nothing}");
        }
        assert_eq!(dns(json!({ "nameservers": [] })), Some(Dns::default()), "an empty list is a wish");
        assert_eq!(dns(json!({ "domain": "d" })).unwrap().domain.as_deref(), Some("d"));
    }

    #[test]
    fn what_is_none_of_the_choices_is_refused_with_them() {
        for (changes, message) in [
            (json!({ "antiSpoofing": "on" }), "antiSpoofing=\"on\": must be one of \"strict\", \"addresses\", \"off\""),
            (json!({ "gateway": "10.0.0.1" }), "gateway=\"10.0.0.1\": must be one of \"link-local\", \"range\""),
            (json!({ "hostInterfacePrefix": "0x" }), "hostInterfacePrefix=\"0x\": must be a letter and up to 7"),
            (json!({ "hostInterfacePrefix": "muchtoolong" }), "hostInterfacePrefix=\"muchtoolong\": must be"),
            (json!({ "sysctl": { "kernel.hostname": "x" } }), "sysctl[\"kernel.hostname\"]=\"x\": must be a setting"),
            (
                json!({ "sysctl": { "net.ipv4.conf.IFNAME.arp_filter": "1", "net/ipv4/conf/IFNAME/arp_filter": "0" } }),
                "sysctl[\"net/ipv4/conf/IFNAME/arp_filter\"]=\"0\": is there twice",
            ),
            (json!({ "allowedSysctls": ["net.*"] }), "allowedSysctls[0]=\"net.*\": must be a setting"),
            (json!({ "snatSource": "127.0.0.1" }), "snatSource=\"127.0.0.1\": is no address that an answer"),
            (json!({ "snatSource": ["::1:2", "::1:3"] }), "snatSource[1]=\"::1:3\": is a second address of its family"),
            (json!({ "snatSource": {} }), "snatSource={}: must be an address, or a list of one for each family"),
            (json!({ "dns": "1.1.1.1" }), "dns=\"1.1.1.1\": invalid type: string \"1.1.1.1\", expected an object"),
            (json!({ "mtu": 20 }), "mtu=20: must be 0, or 68 to 65535 bytes"),
        ] {
            let found = of(&changes).unwrap_err();
            assert!(found.contains(message), "{found}");
        }
    }
}
