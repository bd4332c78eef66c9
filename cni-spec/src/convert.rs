//! The Success result in the shape of every spec version (spec section 5, "Success", of each release).
//!
//! | versions | shape |
//! |---|---|
//! | 0.1.0, 0.2.0 | `ip4` and `ip6`, one address each with its routes; no interfaces |
//! | 0.3.0, 0.3.1, 0.4.0 | `interfaces`, `ips` with `version`, `routes`, `dns` always there |
//! | 1.0.0 | as before without `ips[].version` |
//! | 1.1.0 | adds `mtu`, `socketPath`, `pciID` of interfaces and `mtu`, `advmss`, `priority`, `table`, `scope` of routes |
//!
//! Writing keeps to the asked-for version. Reading is liberal: keys of 1.1.0 are read under every version
//! from 0.3.0 on, because the reference plugins print them there.

use serde_json::Value;

use crate::json::{Located, Malformed};
use crate::version::UnknownVersion;
use crate::{CniError, CniResult, ErrorCode, SpecVersion};

mod legacy;
mod read;
mod write;

/// Why a result could not be read or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResultError {
    /// The result's `cniVersion` is no release of the spec.
    #[error("{path}={version:?} is not supported")]
    Version {
        /// Where it stands: `cniVersion`.
        path: String,
        /// The version it states.
        version: String,
    },
    /// A value is not what its key asks for.
    #[error("invalid result: {0}")]
    Malformed(Malformed),
    /// Results before 0.3.0 cannot do without an address.
    #[error("a result without addresses cannot be written for cniVersion {0}")]
    NoAddress(SpecVersion),
}

impl CniResult {
    /// The document for standard output, in the shape of `version`; what that version cannot say is left out.
    ///
    /// # Errors
    /// [`ResultError::NoAddress`] for 0.1.0 and 0.2.0, whose results consist of addresses.
    pub fn to_json(&self, version: SpecVersion) -> Result<Value, ResultError> {
        if version < SpecVersion::V0_3_0 { legacy::write(self, version) } else { Ok(write::write(self, version)) }
    }

    /// Reads a result in the shape that its `cniVersion` says, or `default`'s if it says none: an IPAM
    /// plugin may leave it out. Unknown keys are ignored.
    ///
    /// # Errors
    /// An unknown `cniVersion`, or a value that is not what its key asks for, named with its path.
    pub fn from_json(json: &Value, default: SpecVersion) -> Result<Self, ResultError> {
        Self::read(Located::new("", json), default)
    }

    /// The same for a result that stands somewhere in a document.
    pub(crate) fn read(json: Located<'_>, default: SpecVersion) -> Result<Self, ResultError> {
        let json = json.object().map_err(ResultError::Malformed)?;
        let version = match json.key("cniVersion") {
            None => default,
            Some(stated) => match stated.text().map_err(ResultError::Malformed)? {
                "" => default,
                text => text.parse().map_err(|UnknownVersion(version)| ResultError::Version {
                    path: stated.path().to_owned(),
                    version,
                })?,
            },
        };
        let read = if version < SpecVersion::V0_3_0 { legacy::read } else { read::read };
        read(&json).map_err(ResultError::Malformed)
    }
}

impl From<ResultError> for CniError {
    fn from(error: ResultError) -> Self {
        let code = match error {
            ResultError::Version { .. } | ResultError::NoAddress(_) => ErrorCode::IncompatibleVersion,
            ResultError::Malformed(_) => ErrorCode::Decode,
        };
        Self::from_source(code, &error)
    }
}
