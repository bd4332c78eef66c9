//! Addresses that a person has set aside: `reservations.json`, which outlives a boot.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ipnetwork::IpNetwork;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::Error;

/// Addresses that are not leased, or not to others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Reservation {
    /// What is reserved.
    pub cidr: IpNetwork,
    /// Why, for people.
    pub reason: String,
    /// When it ends by itself; none for never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

/// Where the reservations beside a ledger are.
pub(crate) fn file(state_dir: &Path) -> PathBuf {
    state_dir.join("reservations.json")
}

/// The reservations that hold at a moment. A missing file has none; one that cannot be understood is an error, as
/// nobody knows then what must not be leased.
pub(crate) fn read(state_dir: &Path, now: Timestamp) -> Result<Vec<Reservation>, Error> {
    let path = file(state_dir);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(Error::Reservations { path, source }),
    };
    let all: Vec<Reservation> = serde_json::from_slice(&text)
        .map_err(|source| Error::Reservations { path, source: io::Error::new(io::ErrorKind::InvalidData, source) })?;
    Ok(all.into_iter().filter(|reservation| reservation.until.is_none_or(|until| now < until)).collect())
}
