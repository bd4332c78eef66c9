//! The attachments that GC must spare (spec section 2, "GC").

use std::collections::BTreeSet;

use serde_json::Value;

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
            return Err(CniError::new(
                ErrorCode::InvalidConfig,
                format!("invalid network config: {} is missing", KEYS[0]),
            )
            .with_details(
                "GC without the list of valid attachments would have to remove everything; send [] if that is meant",
            ));
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
    let container_id = json.key("containerID").ok_or_else(|| json.missing("containerID"))?;
    let ifname = json.key("ifname").ok_or_else(|| json.missing("ifname"))?;
    Ok(ValidAttachment {
        container_id: container_id
            .text()?
            .parse()
            .map_err(|error: crate::id::IdError| container_id.malformed(error.reason()))?,
        ifname: ifname.text()?.parse().map_err(|error: crate::id::IdError| ifname.malformed(error.reason()))?,
    })
}
