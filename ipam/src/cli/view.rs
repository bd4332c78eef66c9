//! Leases as tables and documents.

use std::fmt::Display;

use clap::ValueEnum;
use comfy_table::{Table, presets};
use jiff::Timestamp;
use serde::Serialize;

use super::exit::{Exit, Stop};
use crate::{Origin, Record, RecordedAddress};

/// The formats of `--output`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// Columns for people
    Table,
    /// More columns
    Wide,
    /// One JSON document
    Json,
    /// The same as YAML
    Yaml,
}

/// A document for programs. Its keys stay as they are as long as `apiVersion` does.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Document<T> {
    api_version: &'static str,
    kind: &'static str,
    items: Vec<T>,
}

impl<T: Serialize> Document<T> {
    pub fn new(kind: &'static str, items: Vec<T>) -> Self {
        Self { api_version: "ipam.podwire/v1", kind, items }
    }

    pub fn items(&self) -> &[T] {
        &self.items
    }

    /// None for the formats that are tables.
    pub fn print(&self, format: Format) -> Option<Result<String, Stop>> {
        let failed = |error: &dyn Display| Stop::new(Exit::Failed, format!("cannot print: {error}"));
        match format {
            Format::Table | Format::Wide => None,
            Format::Json => {
                let text = serde_json::to_string_pretty(self).map_err(|error| failed(&error));
                Some(text.map(|text| format!("{text}\n")))
            }
            Format::Yaml => Some(serde_saphyr::to_string(self).map_err(|error| failed(&error))),
        }
    }
}

/// A table without lines, as the field's other tools print them.
pub(super) struct Columns(Table);

impl Columns {
    pub fn new(names: Option<&[&str]>) -> Self {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        if let Some(names) = names {
            table.set_header(names);
        }
        Self(table)
    }

    pub fn row(&mut self, cells: Vec<String>) {
        self.0.add_row(cells);
    }

    /// Ends with a line break, unless there is nothing at all.
    pub fn print(mut self) -> String {
        if self.0.is_empty() && self.0.header().is_none() {
            return String::new();
        }
        for column in self.0.column_iter_mut() {
            column.set_padding((0, 2));
        }
        let text = self.0.trim_fmt();
        format!("{text}\n")
    }
}

pub(super) const COLUMNS: [&str; 6] = ["ADDRESS", "POD", "CONTAINER", "IF", "NETWORK", "AGE"];
pub(super) const WIDE: [&str; 11] =
    ["ADDRESS", "POD", "CONTAINER", "IF", "NETWORK", "AGE", "GATEWAY", "ORIGIN", "LEASE", "POD-UID", "NETNS"];

/// The cells of one address of a lease, for all columns.
pub(super) fn cells(record: &Record, recorded: &RecordedAddress, now: Timestamp, format: Format) -> Vec<String> {
    let attachment = &record.attachment;
    let container = attachment.container_id.as_str();
    let short = container.get(..12).unwrap_or(container);
    let wide = format == Format::Wide;
    let mut cells = vec![
        if wide { recorded.address.to_string() } else { recorded.address.ip().to_string() },
        or_dash(record.pod.to_string()),
        if wide { container } else { short }.to_owned(),
        attachment.ifname.to_string(),
        attachment.network.to_string(),
        age(record.created, now),
    ];
    if wide {
        let netns = record.netns.as_ref().map(|netns| netns.path.display().to_string());
        cells.extend([
            or_dash(recorded.gateway.map(|gateway| gateway.to_string()).unwrap_or_default()),
            origin(record.origin).to_owned(),
            record.lease_id.to_string(),
            or_dash(record.pod.uid.clone().unwrap_or_default()),
            or_dash(netns.unwrap_or_default()),
        ]);
    }
    cells
}

pub(super) fn origin(origin: Origin) -> &'static str {
    match origin {
        Origin::Add => "add",
        Origin::Recovered => "recovered",
        Origin::Imported => "imported",
    }
}

pub(super) fn or_dash(text: String) -> String {
    if text.is_empty() { "-".to_owned() } else { text }
}

/// Two units are enough: 45s, 3m20s, 5h12m, 8d3h.
pub(super) fn age(since: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(since).as_secs().max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match () {
        () if days > 0 => format!("{days}d{}h", hours % 24),
        () if hours > 0 => format!("{hours}h{}m", minutes % 60),
        () if minutes > 0 => format!("{minutes}m{}s", seconds % 60),
        () => format!("{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_have_two_units() {
        let now: Timestamp = "2026-11-23T12:00:00Z".parse().unwrap();
        let cases = [
            ("2026-11-23T11:59:15Z", "45s"),
            ("2026-11-23T11:56:40Z", "3m20s"),
            ("2026-11-23T06:48:00Z", "5h12m"),
            ("2026-11-15T09:00:00Z", "8d3h"),
            ("2026-11-23T13:00:00Z", "0s"),
        ];
        for (since, expected) in cases {
            assert_eq!(age(since.parse().unwrap(), now), expected, "{since}");
        }
    }
}
