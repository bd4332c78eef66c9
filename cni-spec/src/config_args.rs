//! `args.cni` of the config (CONVENTIONS.md, "args in network config"): wishes that a plugin may ignore, but
//! whose form it checks when it does not. They win over the same wishes in `CNI_ARGS`.

use crate::json::Located;
use crate::{CniError, NetConf, error};

impl NetConf {
    /// `args.cni.ips`: addresses wished for, with or without a prefix length; missing and null are empty.
    ///
    /// # Errors
    /// Code 7, naming `args.cni.ips` and its value.
    pub fn args_ips(&self) -> Result<Vec<String>, CniError> {
        let Some(list) = self.args_cni("ips") else { return Ok(Vec::new()) };
        list.texts().map_err(|malformed| error::malformed_config(&malformed))
    }

    /// `args.cni.mac`: the hardware address wished for; missing, null and "" are none.
    ///
    /// # Errors
    /// Code 7, naming `args.cni.mac` and its value.
    pub fn args_mac(&self) -> Result<Option<String>, CniError> {
        let Some(mac) = self.args_cni("mac") else { return Ok(None) };
        let mac = mac.text().map_err(|malformed| error::malformed_config(&malformed))?;
        Ok((!mac.is_empty()).then(|| mac.to_owned()))
    }

    fn args_cni(&self, key: &str) -> Option<Located<'_>> {
        Located::new("", &self.json).key("args")?.key("cni")?.key_in_any_case(key)
    }
}
