//! What the engine can answer, without the engine's types.

use std::io;
use std::net::IpAddr;

/// Why the database could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Somebody opened the database without waiting at the lock file, or is just closing it.
    #[error("the database is open elsewhere")]
    Locked,
    /// Reading or writing failed, but what is there may be sound: no space, no permission.
    #[error("reading or writing the database failed")]
    Io(#[source] io::Error),
    /// What is there is not what was written.
    #[error("the database is damaged")]
    Damaged(#[source] Damage),
    /// A newer version wrote it.
    #[error("the database has schema version {found}, this program knows {known}")]
    Newer {
        /// The version in the database.
        found: u32,
        /// The newest known.
        known: u32,
    },
}

/// How damage shows.
#[derive(Debug, thiserror::Error)]
pub enum Damage {
    /// The engine refused.
    #[error("sled says: {0}")]
    Engine(String),
    /// The engine came upon something that it takes for impossible.
    #[error("sled panicked: {0}")]
    Panic(String),
    /// A value is not JSON of the expected shape.
    #[error("the value of key {key:?} cannot be read")]
    Value {
        /// The key, as text.
        key: String,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// A key or a value has the wrong length or content.
    #[error("key {0:?} is malformed")]
    Key(String),
    /// The index gives the address to another than its lease, or to nobody, or a lease does not have it.
    #[error("leases and index do not agree about {0}")]
    Index(IpAddr),
    /// The engine opened an earlier state: the end of its log is gone.
    #[error("it counts {found} changes of leases, but {made} were made")]
    Behind {
        /// How many it knows of.
        found: u64,
        /// How many were answered.
        made: u64,
    },
    /// A database without version: not one of ours, or cut off.
    #[error("it has no schema version")]
    NoSchema,
}

impl From<sled::Error> for StoreError {
    fn from(error: sled::Error) -> Self {
        match error {
            // The engine has no type of its own for this one.
            sled::Error::Io(error) if error.to_string().contains("could not acquire lock") => Self::Locked,
            sled::Error::Io(error) if is_about_content(&error) => Self::Damaged(Damage::Engine(error.to_string())),
            sled::Error::Io(error) => Self::Io(error),
            sled::Error::CollectionNotFound(_)
            | sled::Error::Unsupported(_)
            | sled::Error::ReportableBug(_)
            | sled::Error::Corruption { .. } => Self::Damaged(Damage::Engine(error.to_string())),
        }
    }
}

/// Errors of reading that come from the bytes, not from the machine.
fn is_about_content(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
    error.raw_os_error().is_none() && matches!(error.kind(), InvalidData | InvalidInput | UnexpectedEof)
}
