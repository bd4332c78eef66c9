//! What one attachment asks for, checked: the only input of [`crate::ruleset`].

use cni_spec::{Attachment, CniResult, NetConf};
use nft_model::Family;
use serde_json::Value;

use crate::error::{Error, Flaw};
use crate::mapping::{self, HostIp, Mapping};
use crate::owner::Owner;
use crate::pod::Pod;
use crate::policy::Policy;
use crate::settings::Settings;

/// The host ports of one attachment: at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Whose they are.
    pub owner: Owner,
    /// What the operator chose.
    pub settings: Settings,
    /// Which ports may be had, and what happens when two want one.
    pub policy: Policy,
    /// Where they lead.
    pub pod: Pod,
    /// The ports. No two of them are the same address, protocol and host port.
    pub mappings: Vec<Mapping>,
}

impl Config {
    /// Checks a request against what earlier plugins of the chain made. `None` when it asks for no host port.
    ///
    /// # Errors
    /// Code 7, 4 or 2 with the key and the value that cannot be.
    pub fn new(attachment: &Attachment, conf: &NetConf, prev_result: &CniResult) -> Result<Option<Self>, Error> {
        let settings = Settings::of(conf)?;
        let policy = Policy::of(conf)?;
        let mappings = mapping::of_runtime_config(conf)?;
        if mappings.is_empty() {
            return Ok(None);
        }
        let pod = Pod::of(prev_result, &attachment.ifname);
        for (index, mapping) in mappings.iter().enumerate() {
            policy.check(index, mapping)?;
            check_reachable(index, mapping, &pod, attachment)?;
        }
        Ok(Some(Self { owner: Owner::new(attachment)?, settings, policy, pod, mappings }))
    }

    /// Whether all that is asked for can be reached, for ADD: what an earlier version mapped is left as it is.
    ///
    /// # Errors
    /// Code 7 for a host port at 127.0.0.1 or ::1 where `localhost` is false: whoever asked there would wait in vain.
    pub fn heed_loopback(&self) -> Result<(), Error> {
        let on_loopback = |mapping: &Mapping| match mapping.host_ip {
            HostIp::Address(address) if address.is_loopback() && !self.settings.localhost => Some(address),
            _ => None,
        };
        let mut mappings = self.mappings.iter().enumerate();
        match mappings.find_map(|(index, mapping)| Some((index, on_loopback(mapping)?))) {
            Some((index, address)) => Err(mapping::invalid(index, "hostIP", address.to_string(), Flaw::NoLoopback)),
            None => Ok(()),
        }
    }

    /// Whether there is a mapping of this family.
    #[must_use]
    pub fn maps(&self, family: Family) -> bool {
        self.pod.address(family).is_some() && self.mappings.iter().any(|mapping| mapping.host_ip.includes(family))
    }
}

/// A mapping needs an address of the pod to lead to, of the family it is for.
fn check_reachable(index: usize, mapping: &Mapping, pod: &Pod, attachment: &Attachment) -> Result<(), Error> {
    let family = mapping.host_ip.only_family();
    let reachable = match family {
        Some(family) => pod.address(family).is_some(),
        None => pod.v4.is_some() || pod.v6.is_some(),
    };
    if reachable {
        return Ok(());
    }
    let value = match mapping.host_ip {
        HostIp::Any => Value::from(""),
        HostIp::Wildcard(Family::Ip) => Value::from("0.0.0.0"),
        HostIp::Wildcard(Family::Ip6) => Value::from("::"),
        HostIp::Address(address) => Value::from(address.to_string()),
    };
    let flaw = Flaw::NoPodAddress { family, ifname: attachment.ifname.clone() };
    Err(mapping::invalid(index, "hostIP", value, flaw))
}
