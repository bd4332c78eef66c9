//! The static keys of the config, as an operator writes them.

use cni_spec::NetConf;
use nft_model::{Family, Statement};
use serde::Deserialize;
use serde_json::Value;

use crate::conditions::{self, Fault};
use crate::error::{Error, Flaw};

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
    localhost: Option<bool>,
}

/// As [`Raw`] has them.
const KEYS: [&str; 8] =
    ["backend", "snat", "masqAll", "markMasqBit", "externalSetMarkChain", "conditionsV4", "conditionsV6", "localhost"];

/// What an operator can choose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `backend`: what the rules are written to. `None`: nftables where the kernel has it.
    pub backend: Option<Backend>,
    /// `snat`: whether a pod reaches itself, and the node reaches it from 127.0.0.1, through a host port.
    /// Both need their source address replaced. True unless the config says otherwise.
    pub snat: bool,
    /// `masqAll`: whether all clients of a host port are seen by an address of the node, if `snat` is true.
    pub masq_all: bool,
    /// `markMasqBit` or `externalSetMarkChain`: how rules of iptables mark what is to be masqueraded. `None`: they need
    /// no mark.
    pub mark: Option<Mark>,
    /// `conditionsV4` and `conditionsV6`: what packets must meet besides.
    conditions: [Vec<Statement>; 2],
    /// `localhost`: whether the node reaches the pod at 127.0.0.1. True unless the config says otherwise.
    pub localhost: bool,
}

/// Where rules are written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// The kernel's nf_tables, over netlink.
    Nftables,
    /// `iptables-restore`.
    Iptables,
}

impl std::fmt::Display for Backend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Nftables => "nftables",
            Self::Iptables => "iptables",
        })
    }
}

/// How rules of iptables mark packets that are to be masqueraded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mark {
    /// By this bit of the packet's mark, which a rule of ours looks for.
    Bit(u8),
    /// By a chain of somebody else's in table nat, who masquerades too.
    Chain(String),
}

impl Settings {
    /// Checks the static keys. A key of the reference portmap that is not supported is refused when it is set to
    /// something that would make a difference: silence would leave out a rule that somebody relies on.
    ///
    /// # Errors
    /// Code 7 for a wrong value, code 2 for one that is not supported; key and value are named.
    pub fn of(conf: &NetConf) -> Result<Self, Error> {
        let raw: Raw = conf.parse_in_any_case(&KEYS).map_err(Error::Config)?;
        let backend = backend(raw.backend.as_deref())?;
        let chain = raw.external_set_mark_chain.filter(|chain| !chain.is_empty());
        let mark = mark(raw.mark_masq_bit, chain)?;
        if let (Some(Backend::Nftables), Some(Mark::Chain(chain))) = (backend, &mark) {
            let why =
                "a chain of iptables cannot be jumped to from nftables; leave out backend, or set it to \"iptables\"";
            return Err(Error::Unsupported {
                key: "externalSetMarkChain",
                value: chain.as_str().into(),
                why: why.into(),
            });
        }
        let v4 = conditions("conditionsV4", Family::Ip, raw.conditions_v4)?;
        let v6 = conditions("conditionsV6", Family::Ip6, raw.conditions_v6)?;
        Ok(Self {
            backend,
            snat: raw.snat.unwrap_or(true),
            masq_all: raw.masq_all.unwrap_or(false),
            mark,
            conditions: [v4, v6],
            localhost: raw.localhost.unwrap_or(true),
        })
    }

    /// What packets of a family must meet.
    #[must_use]
    pub fn conditions(&self, family: Family) -> &[Statement] {
        let [v4, v6] = &self.conditions;
        if family == Family::Ip { v4 } else { v6 }
    }

    /// Whether rules of iptables can have these conditions: one rule has one incoming interface.
    ///
    /// # Errors
    /// [`Error::Unsupported`].
    pub fn fit_iptables(&self) -> Result<(), Error> {
        let is_interface =
            |condition: &&Statement| matches!(condition, Statement::Iifname(_) | Statement::IifnameNot(_));
        for (key, family) in [("conditionsV4", Family::Ip), ("conditionsV6", Family::Ip6)] {
            let conditions = self.conditions(family);
            if conditions.iter().filter(is_interface).count() > 1 {
                let words: Vec<String> = conditions.iter().map(|one| one.in_family(family).to_string()).collect();
                let why = "iptables takes one incoming interface; name one, or use the backend nftables";
                return Err(Error::Unsupported { key, value: words.into(), why: why.into() });
            }
        }
        Ok(())
    }

    /// Whether the node is to reach pods at 127.0.0.1.
    #[must_use]
    pub fn reaches_from_loopback(&self) -> bool {
        self.snat && self.localhost
    }
}

fn backend(name: Option<&str>) -> Result<Option<Backend>, Error> {
    match name {
        None | Some("") => Ok(None),
        Some("nftables") => Ok(Some(Backend::Nftables)),
        Some("iptables") => Ok(Some(Backend::Iptables)),
        Some(other) => Err(invalid("backend", other, Flaw::Backend)),
    }
}

fn mark(bit: Option<i64>, chain: Option<String>) -> Result<Option<Mark>, Error> {
    match (bit, chain) {
        (None, None) => Ok(None),
        (Some(_), Some(chain)) => Err(invalid("externalSetMarkChain", chain, Flaw::TwoMarks)),
        (Some(bit), None) => match u8::try_from(bit) {
            Ok(bit @ 0..=31) => Ok(Some(Mark::Bit(bit))),
            _ => Err(invalid("markMasqBit", bit, Flaw::MarkBit)),
        },
        (None, Some(chain)) => {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
            // The longest name of a chain that iptables(8) takes.
            let possible = chain.len() <= 28 && chain.bytes().all(plain) && !chain.starts_with('-');
            if possible {
                Ok(Some(Mark::Chain(chain)))
            } else {
                Err(invalid("externalSetMarkChain", chain, Flaw::Chain))
            }
        }
    }
}

fn conditions(key: &'static str, family: Family, words: Option<Vec<String>>) -> Result<Vec<Statement>, Error> {
    let words = words.unwrap_or_default();
    conditions::parse(family, &words).map_err(|fault| match fault {
        Fault::Unsupported(what) => {
            let why =
                format!("{what:?} is not supported; a condition is a source, a destination or an incoming interface");
            Error::Unsupported { key, value: words.into(), why }
        }
        Fault::Invalid(what) => invalid(key, words, Flaw::Condition(what)),
    })
}

fn invalid(path: &str, value: impl Into<Value>, flaw: Flaw) -> Error {
    Error::Invalid { path: path.to_owned(), value: value.into(), flaw }
}
