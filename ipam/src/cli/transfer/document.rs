//! The exported text: one JSON object a line, a head, and a last line with the checksum of everything before it.

use std::fmt::Write as _;

use data_encoding::HEXLOWER;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::super::contract::API_VERSION;
use crate::Record;
use crate::reservations::Reservation;

/// What is exported.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Document {
    pub leases: Vec<Record>,
    pub reservations: Vec<Reservation>,
}

/// One line of an export: an `Export`, then a `Lease` or a `Reservation` for each, then an `End`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind")]
#[schemars(rename = "Export")]
pub(in crate::cli) enum Line {
    /// The first line.
    #[serde(rename_all = "camelCase")]
    Export {
        /// The version of all lines.
        #[schemars(extend("const" = API_VERSION))]
        api_version: String,
        /// When it was exported.
        created: Timestamp,
        /// The boot in which it was.
        boot_id: String,
        /// How many changes of leases there had been.
        generation: u64,
    },
    /// A lease, as it stands in the ledger.
    Lease { lease: Box<Record> },
    /// Addresses that a person has set aside.
    Reservation { reservation: Reservation },
    /// The last line: one that is missing was cut off.
    End {
        /// How many lines there are before this one.
        lines: usize,
        /// Of their bytes, line breaks included, in hexadecimal.
        #[schemars(regex(pattern = "^[0-9a-f]{64}$"))]
        sha256: String,
    },
}

/// Why a text cannot be imported.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unreadable {
    #[error("is no export: it does not begin with a line of kind \"Export\"")]
    NoHead,
    #[error("is an export of another version, {0}: use the ipam that wrote it, or a newer one")]
    Version(String),
    #[error("line {number} cannot be understood: {problem}")]
    Line { number: usize, problem: String },
    #[error("is cut off: the last line, of kind \"End\", is missing")]
    CutOff,
    #[error("was changed: its checksum is not the one in its last line")]
    Changed,
}

impl Document {
    pub fn print(&self, created: Timestamp, boot_id: &str, generation: u64) -> String {
        let (api_version, boot_id) = (API_VERSION.to_owned(), boot_id.to_owned());
        let head = Line::Export { api_version, created, boot_id, generation };
        let leases = self.leases.iter().map(|lease| Line::Lease { lease: Box::new(lease.clone()) });
        let reserved = self.reservations.iter().map(|it| Line::Reservation { reservation: it.clone() });
        let mut text = String::new();
        let mut lines = 0;
        for line in [head].into_iter().chain(leases).chain(reserved) {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{}", serde_json::json!(line));
            lines += 1;
        }
        let end = Line::End { lines, sha256: checksum(text.as_bytes()) };
        format!("{text}{}\n", serde_json::json!(end))
    }

    pub fn read(text: &str) -> Result<Self, Unreadable> {
        let mut document = Self::default();
        let mut offset = 0;
        for (index, line) in text.split_inclusive('\n').enumerate() {
            let number = index + 1;
            let head: serde_json::Value = serde_json::from_str(line).unwrap_or_default();
            if number == 1 {
                has_head(&head)?;
            }
            let problem = |error: serde_json::Error| Unreadable::Line { number, problem: error.to_string() };
            match serde_json::from_str(line) {
                Ok(Line::Export { .. }) if number == 1 => {}
                Ok(Line::Export { .. }) => {
                    return Err(Unreadable::Line { number, problem: "a second head".to_owned() });
                }
                Ok(Line::Lease { lease }) => document.leases.push(*lease),
                Ok(Line::Reservation { reservation }) => document.reservations.push(reservation),
                Ok(Line::End { lines, sha256 }) => {
                    let before = text.get(..offset).unwrap_or_default();
                    let is_whole = lines == index && sha256 == checksum(before.as_bytes());
                    return if is_whole { Ok(document) } else { Err(Unreadable::Changed) };
                }
                // The last line without its end is one that was cut off.
                Err(_) if !line.ends_with('\n') => return Err(Unreadable::CutOff),
                Err(error) => return Err(problem(error)),
            }
            offset += line.len();
        }
        Err(if offset == 0 { Unreadable::NoHead } else { Unreadable::CutOff })
    }
}

fn has_head(head: &serde_json::Value) -> Result<(), Unreadable> {
    match (head["kind"].as_str(), head["apiVersion"].as_str()) {
        (Some("Export"), Some(API_VERSION)) => Ok(()),
        (Some("Export"), version) => Err(Unreadable::Version(version.unwrap_or("none").to_owned())),
        _ => Err(Unreadable::NoHead),
    }
}

fn checksum(bytes: &[u8]) -> String {
    HEXLOWER.encode(&Sha256::digest(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text() -> String {
        let reservation = |cidr: &str| Reservation {
            cidr: cidr.parse().unwrap(),
            reason: "test".to_owned(),
            owner: "root".to_owned(),
            created: None,
            until: None,
        };
        let reservations = vec![reservation("10.1.2.0/28"), reservation("fd00::7/128")];
        Document { leases: Vec::new(), reservations }.print(Timestamp::UNIX_EPOCH, "boot", 7)
    }

    #[test]
    fn what_was_printed_is_read() {
        let text = text();
        assert_eq!(Document::read(&text).unwrap().reservations.len(), 2);
        assert_eq!(text.lines().count(), 4);
    }

    #[test]
    fn what_was_changed_or_cut_off_is_refused() {
        let whole = text();
        for length in 0..whole.len() - 1 {
            let error = Document::read(&whole[..length]).unwrap_err();
            let is_told = matches!(error, Unreadable::NoHead | Unreadable::CutOff);
            assert!(is_told, "{length}: {error}");
        }
        assert_eq!(Document::read(&whole.replace("test", "tost")), Err(Unreadable::Changed));
        let without_one: String =
            whole.lines().filter(|line| !line.contains("fd00")).map(|it| format!("{it}\n")).collect();
        assert_eq!(Document::read(&without_one), Err(Unreadable::Changed));
        assert_eq!(
            Document::read(&whole.replace("podwire/v1", "podwire/v2")),
            Err(Unreadable::Version("ipam.podwire/v2".to_owned()))
        );
        let garbage = whole.replace("{\"kind\":\"Reservation\"", "{\"kind\":\"Poem\"");
        assert!(matches!(Document::read(&garbage), Err(Unreadable::Line { number: 2, .. })), "{garbage}");
        assert_eq!(Document::read("{}\n"), Err(Unreadable::NoHead));
    }
}
