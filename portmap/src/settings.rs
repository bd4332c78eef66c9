//! The static keys of the config, as an operator writes them.

use cni_spec::NetConf;
use serde::Deserialize;
use serde_json::Value;

use crate::error::{Error, Flaw};

/// The bit that the reference portmap marks packets with unless it is told another one.
const REFERENCE_MARK_BIT: i64 = 13;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    backend: Option<String>,
    snat: Option<bool>,
    masq_all: Option<bool>,
    mark_masq_bit: Option<i64>,
    external_set_mark_chain: Option<String>,
    #[serde(rename = "conditionsV4")]
    conditions_v4: Option<Vec<String>>,
    #[serde(rename = "conditionsV6")]
    conditions_v6: Option<Vec<String>>,
}

/// What an operator can choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// `snat`: whether a pod reaches itself, and the node reaches it from 127.0.0.1, through a host port.
    /// Both need their source address replaced. True unless the config says otherwise.
    pub snat: bool,
}

impl Settings {
    /// Checks the static keys. A key of the reference portmap that is not supported is refused when it is set to
    /// something that would make a difference: silence would leave out a rule that somebody relies on.
    ///
    /// # Errors
    /// Code 7 for a wrong value, code 2 for one that is not supported; key and value are named.
    pub fn of(conf: &NetConf) -> Result<Self, Error> {
        let raw: Raw = conf.parse().map_err(Error::Config)?;
        check_backend(raw.backend.as_deref())?;
        if raw.masq_all == Some(true) {
            return Err(unsupported("masqAll", true));
        }
        if let Some(bit) = raw.mark_masq_bit.filter(|bit| *bit != REFERENCE_MARK_BIT) {
            return Err(unsupported("markMasqBit", bit));
        }
        if let Some(chain) = raw.external_set_mark_chain.filter(|chain| !chain.is_empty()) {
            return Err(unsupported("externalSetMarkChain", chain));
        }
        for (key, conditions) in [("conditionsV4", raw.conditions_v4), ("conditionsV6", raw.conditions_v6)] {
            if let Some(conditions) = conditions.filter(|conditions| !conditions.is_empty()) {
                return Err(unsupported(key, conditions));
            }
        }
        Ok(Self { snat: raw.snat.unwrap_or(true) })
    }
}

fn check_backend(backend: Option<&str>) -> Result<(), Error> {
    match backend {
        None | Some("" | "nftables") => Ok(()),
        Some("iptables") => Err(unsupported("backend", "iptables")),
        Some(other) => {
            Err(Error::Invalid { path: "backend".to_owned(), value: Value::from(other), flaw: Flaw::Backend })
        }
    }
}

fn unsupported(key: &'static str, value: impl Into<Value>) -> Error {
    Error::Unsupported { key, value: value.into() }
}
