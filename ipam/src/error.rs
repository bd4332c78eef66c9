//! Everything that can go wrong, and the one place that says it in the protocol's words.

use cni_spec::{CniError, ErrorCode};

/// The crate's errors.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A key of the network config has the wrong JSON type. The text names key and value.
    #[error("{}", .0.msg)]
    ConfigShape(CniError),
    /// This call is still being written.
    #[error("not there yet")]
    Unfinished,
}

impl From<Error> for CniError {
    fn from(error: Error) -> Self {
        match error {
            Error::ConfigShape(inner) => inner,
            Error::Unfinished => CniError::from_source(ErrorCode::TryAgainLater, &error),
        }
    }
}

/// The plugin's own error codes; the spec leaves 100 and above to plugins.
pub mod code {
    use super::ErrorCode;

    /// 100: a pool has no free address.
    pub const EXHAUSTED: ErrorCode = ErrorCode::Plugin(100);
    /// 101: the address asked for is held by another attachment.
    pub const TAKEN: ErrorCode = ErrorCode::Plugin(101);
    /// 102: the address asked for is in no pool of the network.
    pub const OUTSIDE: ErrorCode = ErrorCode::Plugin(102);
    /// 103: the ledger is damaged and could not be rebuilt.
    pub const DAMAGED: ErrorCode = ErrorCode::Plugin(103);
    /// 104: the attachment was deleted while this ADD was under way.
    pub const DELETED: ErrorCode = ErrorCode::Plugin(104);
    /// 105: CHECK found a difference between ledger and `prevResult`.
    pub const DIFFERS: ErrorCode = ErrorCode::Plugin(105);
}
