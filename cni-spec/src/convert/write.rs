//! Writing results from 0.3.0 on.

use serde_json::{Map, Value, json};

use crate::{CniResult, Dns, Interface, IpConfig, Route, SpecVersion};

pub(super) fn write(result: &CniResult, version: SpecVersion) -> Value {
    let mut object = Object::default();
    object.set("cniVersion", Some(version.as_str()));
    object.list("interfaces", result.interfaces.iter().map(|interface| write_interface(interface, version)));
    object.list("ips", result.ips.iter().map(|ip| write_ip(ip, version)));
    object.list("routes", result.routes.iter().map(|route| write_route(route, version)));
    if version < SpecVersion::V1_0_0 || result.dns != Dns::default() {
        object.set("dns", Some(write_dns(&result.dns)));
    }
    object.into()
}

/// A JSON object that leaves out what is not set.
#[derive(Default)]
pub(super) struct Object(Map<String, Value>);

impl Object {
    pub(super) fn set(&mut self, key: &str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.0.insert(key.to_owned(), value.into());
        }
    }

    pub(super) fn list(&mut self, key: &str, items: impl Iterator<Item = Value>) {
        let items: Vec<Value> = items.collect();
        self.set(key, (!items.is_empty()).then_some(items));
    }
}

impl From<Object> for Value {
    fn from(object: Object) -> Self {
        Self::Object(object.0)
    }
}

/// `dns`, without what is empty.
pub(super) fn write_dns(dns: &Dns) -> Value {
    let texts = |list: &[String]| (!list.is_empty()).then(|| list.to_vec());
    let mut object = Object::default();
    object.set("nameservers", texts(&dns.nameservers));
    object.set("domain", dns.domain.clone());
    object.set("search", texts(&dns.search));
    object.set("options", texts(&dns.options));
    object.into()
}

/// `routes[]`; everything but `dst` and `gw` came with 1.1.0.
pub(super) fn write_route(route: &Route, version: SpecVersion) -> Value {
    let mut object = Object::default();
    object.set("dst", Some(route.dst.to_string()));
    object.set("gw", route.gw.map(|gw| gw.to_string()));
    if version >= SpecVersion::V1_1_0 {
        object.set("mtu", route.mtu);
        object.set("advmss", route.advmss);
        object.set("priority", route.priority);
        object.set("table", route.table);
        object.set("scope", route.scope);
    }
    object.into()
}

fn write_interface(interface: &Interface, version: SpecVersion) -> Value {
    let mut object = Object::default();
    object.set("name", Some(interface.name.clone()));
    object.set("mac", interface.mac.clone());
    object.set("sandbox", interface.sandbox.clone());
    if version >= SpecVersion::V1_1_0 {
        object.set("mtu", interface.mtu);
        object.set("socketPath", interface.socket_path.clone());
        object.set("pciID", interface.pci_id.clone());
    }
    object.into()
}

fn write_ip(ip: &IpConfig, version: SpecVersion) -> Value {
    let mut object = Object::default();
    if version < SpecVersion::V1_0_0 {
        object.set("version", Some(if ip.address.is_ipv4() { json!("4") } else { json!("6") }));
    }
    object.set("interface", ip.interface);
    object.set("address", Some(ip.address.to_string()));
    object.set("gateway", ip.gateway.map(|gateway| gateway.to_string()));
    object.into()
}
