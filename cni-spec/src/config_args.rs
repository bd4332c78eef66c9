//! `args.cni` of the config (CONVENTIONS.md, "args in network config"): wishes that a plugin may ignore, but
//! whose form it checks when it does not. They win over the same wishes in `CNI_ARGS`.

use crate::json::{Located, Malformed};
use crate::{CniError, NetConf, error};

impl NetConf {
    /// `args.cni.ips`: addresses wished for, with or without a prefix length; missing and null are empty.
    ///
    /// # Errors
    /// Code 7, naming `args.cni.ips` and its value.
    pub fn args_ips(&self) -> Result<Vec<String>, CniError> {
        self.args_cni("ips", Located::texts)
    }

    /// `args.cni.mac`: the hardware address wished for; missing, null and "" are none.
    ///
    /// # Errors
    /// Code 7, naming `args.cni.mac` and its value.
    pub fn args_mac(&self) -> Result<Option<String>, CniError> {
        self.args_cni("mac", |mac| mac.text().map(|mac| (!mac.is_empty()).then(|| mac.to_owned())))
    }

    fn args_cni<T: Default>(
        &self,
        key: &str,
        read: impl Fn(&Located<'_>) -> Result<T, Malformed>,
    ) -> Result<T, CniError> {
        let args = Located::new("", &self.json).key("args").and_then(|args| args.key("cni"));
        match args.and_then(|cni| cni.key_in_any_case(key)) {
            Some(value) => read(&value).map_err(|malformed| error::malformed_config(&malformed)),
            None => Ok(T::default()),
        }
    }
}
