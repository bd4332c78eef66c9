//! The attachments that GC must spare (spec section 2, "GC").

use std::collections::BTreeSet;
use std::str::FromStr;

use serde_json::Value;

use crate::id::IdError;
use crate::json::{Located, Malformed};
use crate::{CniError, ErrorCode, ValidAttachment, ValidAttachments, error};

/// The key of the spec, and the one of its drafts. libcni sends both.
const KEYS: [&str; 2] = ["cni.dev/valid-attachments", "cni.dev/attachments"];

impl ValidAttachments {
    /// Reads the list from a GC's network config. With both keys, whatever either names is spared.
    ///
    /// # Errors
    /// Code 7 if neither key is there, or for an entry that cannot be read: leaving it out would end a
    /// living attachment.
    pub fn from_config(config: &Value) -> Result<Self, CniError> {
        let lists: Vec<(&str, &Value)> =
            KEYS.into_iter().filter_map(|key| config.get(key).map(|list| (key, list))).collect();
        if lists.is_empty() {
            let msg = format!("invalid network config: {} is missing", KEYS[0]);
            return Err(CniError::new(ErrorCode::InvalidConfig, msg)
                .with_details("without the list GC would have to remove everything; [] says that this is meant"));
        }
        let mut valid = BTreeSet::new();
        for (key, list) in lists {
            valid.extend(read(key, list).map_err(|malformed| error::malformed_config(&malformed))?);
        }
        Ok(Self(valid))
    }
}

fn read(key: &str, list: &Value) -> Result<Vec<ValidAttachment>, Malformed> {
    if list.is_null() {
        return Ok(Vec::new());
    }
    Located::new(key, list).items()?.into_iter().map(entry).collect()
}

fn entry(json: Located<'_>) -> Result<ValidAttachment, Malformed> {
    let json = json.object()?;
    Ok(ValidAttachment { container_id: identifier(&json, "containerID")?, ifname: identifier(&json, "ifname")? })
}

fn identifier<T: FromStr<Err = IdError>>(json: &Located<'_>, key: &str) -> Result<T, Malformed> {
    let value = json.key(key).ok_or_else(|| json.missing(key))?;
    value.text()?.parse().map_err(|error: IdError| value.malformed(error.reason()))
}
