//! What is wished for one pod: its hardware address from every standard place, and what its annotations say.

use cni_spec::{CniArgs, CniError, ErrorCode, NetConf};
use macaddr::MacAddr6;

use super::{Config, annotations, invalid, mtu};
use crate::sysctl::PodSysctl;

/// The pod's hardware address.
const MAC: &str = "podwire/mac";

/// The MTU of the pod's link.
const MTU: &str = "podwire/mtu";

/// Settings of the pod's interface, `NAME=VALUE` with commas between them.
const SYSCTL: &str = "podwire/sysctl";

impl Config {
    /// The config of one pod.
    ///
    /// # Errors
    /// As [`Config::of`]; code 4 for a `MAC` in `CNI_ARGS` that is none.
    pub fn for_pod(conf: &NetConf, args: &CniArgs) -> Result<Self, CniError> {
        let mut config = Self::of(conf)?;
        config.mac = wished_mac(conf, args)?;
        if let Some((key, text)) = annotations::get(&conf.runtime_config, MTU)? {
            let bytes = text.parse().map_err(|_| invalid(&key, text, "must be a number of bytes"))?;
            if let Some(wished) = mtu(&key, bytes)? {
                (config.mtu, config.mtu_key) = (Some(wished), key);
            }
        }
        if let Some((key, text)) = annotations::get(&conf.runtime_config, SYSCTL)? {
            let mut wishes = text.split(',').map(str::trim).filter(|wish| !wish.is_empty());
            wishes.try_for_each(|wish| config.wish_for_sysctl(wish)).map_err(|why| invalid(&key, text, &why))?;
        }
        Ok(config)
    }

    /// A pod's wish wins over the config: the same administrator wrote both it and what is allowed.
    fn wish_for_sysctl(&mut self, wish: &str) -> Result<(), String> {
        let (name, value) = wish.split_once('=').ok_or_else(|| format!("{wish:?} is not NAME=VALUE"))?;
        let wish = PodSysctl::new(name.trim(), value.trim()).map_err(|why| format!("{name:?} {why}"))?;
        if !self.allowed_sysctls.iter().any(|allowed| allowed.covers(&wish)) {
            return Err(format!(
                "{name:?} is not for pods to wish: \"allowedSysctls\" of the network config does not list it"
            ));
        }
        self.sysctl.retain(|other| other.path("") != wish.path(""));
        self.sysctl.push(wish);
        Ok(())
    }
}

/// In the order of CONVENTIONS.md: what the runtime says must be done, `args` wins over `CNI_ARGS`, and the pod's own
/// annotation is heard when nobody else says anything.
fn wished_mac(conf: &NetConf, args: &CniArgs) -> Result<Option<MacAddr6>, CniError> {
    if let Some(text) = conf.runtime_config.mac()? {
        return mac(&text).map(Some).map_err(|why| invalid("runtimeConfig.mac", text, &why));
    }
    if let Some(text) = conf.args_mac()? {
        return mac(&text).map(Some).map_err(|why| invalid("args.cni.mac", text, &why));
    }
    if let Some(text) = args.get("MAC").filter(|text| !text.is_empty()) {
        let refuse = |why| CniError::new(ErrorCode::InvalidEnvironment, format!("CNI_ARGS: MAC={text:?}: {why}"));
        return mac(text).map(Some).map_err(refuse);
    }
    let wished = annotations::get(&conf.runtime_config, MAC)?;
    wished.map(|(key, text)| mac(text).map_err(|why| invalid(key, text, &why))).transpose()
}

/// Six bytes that one interface can have.
fn mac(text: &str) -> Result<MacAddr6, String> {
    let mac: MacAddr6 = text.parse().map_err(|_| "is not a hardware address like 0a:58:0a:f4:01:05".to_owned())?;
    if mac.is_nil() {
        return Err("is no interface's address".to_owned());
    }
    if mac.is_multicast() {
        return Err("is a group's address: the lowest bit of its first byte must be 0".to_owned());
    }
    Ok(mac)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::annotations::CAPABILITY as ANNOTATIONS;
    use super::*;

    fn conf(changes: &Value) -> NetConf {
        let mut json = json!({ "cniVersion": "1.0.0", "name": "n", "type": "podwire", "ipam": { "type": "static" } });
        for (key, value) in changes.as_object().unwrap() {
            json[key] = value.clone();
        }
        NetConf::from_bytes(json.to_string().into_bytes()).unwrap()
    }

    fn mac_of(changes: &Value, args: &str) -> Result<Option<String>, (u32, String)> {
        let config = Config::for_pod(&conf(changes), &args.parse().unwrap());
        config.map(|config| config.mac.map(|mac| mac.to_string())).map_err(|error| (error.code.number(), error.msg))
    }

    fn annotated(key: &str, value: &str) -> Value {
        json!({ ANNOTATIONS: { key: value } })
    }

    #[test]
    fn the_standard_places_are_heard_in_order() {
        let mut runtime = annotated(MAC, "0a:00:00:00:00:04");
        assert_eq!(mac_of(&json!({}), "").unwrap(), None);
        assert_eq!(mac_of(&json!({ "runtimeConfig": runtime }), "").unwrap().unwrap(), "0A:00:00:00:00:04");
        let args = "IgnoreUnknown=1;MAC=0a:00:00:00:00:03";
        assert_eq!(mac_of(&json!({ "runtimeConfig": runtime }), args).unwrap().unwrap(), "0A:00:00:00:00:03");
        let wish = json!({ "cni": { "mac": "0a:00:00:00:00:02" } });
        let changes = json!({ "runtimeConfig": runtime, "args": wish });
        assert_eq!(mac_of(&changes, args).unwrap().unwrap(), "0A:00:00:00:00:02");
        runtime["mac"] = json!("0a:00:00:00:00:01");
        let changes = json!({ "runtimeConfig": runtime, "args": wish });
        assert_eq!(mac_of(&changes, args).unwrap().unwrap(), "0A:00:00:00:00:01");
    }

    #[test]
    fn what_no_interface_can_have_is_refused_by_its_place() {
        let refused = |changes: Value, args| mac_of(&changes, args).unwrap_err();
        let (code, msg) = refused(json!({ "runtimeConfig": { "mac": "01:00:00:00:00:01" } }), "");
        assert!(code == 7 && msg.contains("runtimeConfig.mac=\"01:00:00:00:00:01\": is a group's address"), "{msg}");
        let (code, msg) = refused(json!({ "args": { "cni": { "mac": "00:00:00:00:00:00" } } }), "");
        assert!(code == 7 && msg.contains("args.cni.mac=\"00:00:00:00:00:00\": is no interface's"), "{msg}");
        let (code, msg) = refused(json!({}), "MAC=nonsense");
        assert!(code == 4 && msg.contains("CNI_ARGS: MAC=\"nonsense\": is not a hardware address"), "{msg}");
        let (code, msg) = refused(json!({ "runtimeConfig": annotated(MAC, "x") }), "");
        assert!(code == 7 && msg.contains("[\"podwire/mac\"]=\"x\""), "{msg}");
    }

    #[test]
    fn a_pod_may_wish_for_settings_that_are_allowed() {
        let config = |wish: Value| {
            let changes = json!({
                "sysctl": { "net.ipv4.conf.IFNAME.arp_filter": "0", "net.ipv4.conf.IFNAME.rp_filter": "2" },
                "allowedSysctls": ["net.ipv4.conf.IFNAME.arp_*"],
                "runtimeConfig": { ANNOTATIONS: { SYSCTL: wish } },
            });
            Config::for_pod(&conf(&changes), &"".parse().unwrap())
        };
        let found = config(json!("net/ipv4/conf/IFNAME/arp_filter = 1, net.ipv4.conf.IFNAME.arp_ignore=2,")).unwrap();
        let set: Vec<String> =
            found.sysctl.iter().map(|setting| format!("{}={}", setting.path("eth0"), setting.value)).collect();
        let all = ["rp_filter=2", "arp_filter=1", "arp_ignore=2"];
        assert_eq!(set, all.map(|setting| format!("net/ipv4/conf/eth0/{setting}")));
        for (wish, why) in [
            (json!("net.ipv4.conf.IFNAME.rp_filter=0"), "is not for pods to wish: \"allowedSysctls\""),
            (json!("net.ipv4.ip_forward=1"), "must be a setting of the pod's interface"),
            (json!("net.ipv4.conf.IFNAME.arp_filter"), "is not NAME=VALUE"),
            (json!(["x"]), "is not a string"),
        ] {
            let refused = config(wish).unwrap_err();
            assert!(refused.code.number() == 7 && refused.msg.contains(why), "{}", refused.msg);
        }
    }

    #[test]
    fn a_pod_may_have_an_mtu_of_its_own() {
        let mtu_of = |value| {
            Config::for_pod(
                &conf(&json!({ "mtu": 1500, "runtimeConfig": annotated(MTU, value) })),
                &"".parse().unwrap(),
            )
        };
        assert_eq!(mtu_of("1400").unwrap().mtu, Some(1400));
        assert_eq!(mtu_of("").unwrap().mtu, Some(1500));
        for wrong in ["-1", "67", "70000", "x"] {
            let msg = mtu_of(wrong).unwrap_err().msg;
            assert!(msg.contains("[\"podwire/mtu\"]=") && msg.contains(wrong), "{msg}");
        }
    }
}
