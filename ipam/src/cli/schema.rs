//! `ipam schema`: the JSON Schemas of what the command prints for programs.

use clap::ValueEnum;
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::json;

use super::contract::{API_VERSION, Entry};
use super::exit::{Exit, Stop};
use super::terminal::Terminal;

pub(super) const EXAMPLES: &str = "\
Examples:
  ipam schema
  ipam schema LeaseList > lease-list.schema.json
  ipam list -o json | check-jsonschema --schemafile lease-list.schema.json -";

/// Prints a JSON Schema.
#[derive(Debug, clap::Args)]
pub(super) struct Schemas {
    /// The kind of document; without one, the kinds are listed.
    #[arg(value_enum, ignore_case = true)]
    kind: Option<Kind>,
}

/// The kinds of documents, as `kind` says them, and of lines: those of `watch` and of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "PascalCase")]
enum Kind {
    LeaseList,
    Lease,
    PoolList,
    HistoryList,
    DeedList,
    FindingList,
    DeadLeaseList,
    ImportPlan,
    Stats,
    Status,
    Map,
    Event,
    Export,
}

impl Schemas {
    pub fn run(&self, terminal: &mut Terminal<'_>) -> Result<Exit, Stop> {
        let text = match self.kind {
            Some(kind) => {
                let text = serde_json::to_string_pretty(&kind.schema());
                text.map_err(|error| Stop::new(Exit::Failed, format!("cannot print: {error}")))? + "\n"
            }
            None => Kind::value_variants()
                .iter()
                .map(|kind| format!("{:<14}{}\n", kind.name(), kind.printed_by()))
                .collect(),
        };
        terminal.print(&text)?;
        Ok(Exit::Done)
    }
}

impl Kind {
    fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    fn printed_by(self) -> &'static str {
        match self {
            Self::LeaseList => "ipam list -o json",
            Self::Lease => "ipam show WHAT -o json",
            Self::PoolList => "ipam pools -o json",
            Self::HistoryList => "ipam history -o json",
            Self::DeedList => "ipam history --deeds -o json",
            Self::FindingList => "ipam check -o json, ipam verify -o json",
            Self::DeadLeaseList => "ipam gc -o json",
            Self::ImportPlan => "ipam import FROM --dry-run -o json",
            Self::Stats => "ipam stats -o json",
            Self::Status => "ipam status -o json",
            Self::Map => "ipam map -o json",
            Self::Event => "ipam watch -o jsonl, each line",
            Self::Export => "ipam export, each line",
        }
    }

    fn schema(self) -> Schema {
        match self {
            Self::LeaseList => self.list_of::<Entry>(),
            Self::Lease => self.list_of::<super::show::Shown>(),
            Self::PoolList => self.list_of::<super::pools::Usage>(),
            Self::HistoryList => self.list_of::<super::history::Entry>(),
            Self::DeedList => self.list_of::<super::history::DeedEntry>(),
            Self::FindingList => self.list_of::<super::finding::Finding>(),
            Self::DeadLeaseList => self.list_of::<super::gc::Dead>(),
            Self::ImportPlan => self.list_of::<super::transfer::PlannedAction>(),
            Self::Stats => self.list_of::<super::stats::Counts>(),
            Self::Status => self.list_of::<super::status::State>(),
            Self::Map => self.list_of::<super::map::Drawn>(),
            Self::Event => generator().into_root_schema_for::<super::watch::Happened>(),
            Self::Export => generator().into_root_schema_for::<super::transfer::Line>(),
        }
    }

    /// A document whose items are of a type. JSON Schema draft 2020-12.
    fn list_of<T: JsonSchema>(self) -> Schema {
        let mut generator = generator();
        let items = generator.subschema_for::<T>();
        let definitions = generator.take_definitions(true);
        let mut schema = schemars::json_schema!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": self.name(),
            "description": format!("What `{}` prints.", self.printed_by()),
            "type": "object",
            "required": ["apiVersion", "kind", "items"],
            "properties": {
                "apiVersion": { "const": API_VERSION },
                "kind": { "const": self.name() },
                "items": { "type": "array", "items": items },
            },
        });
        schema.insert("$defs".to_owned(), json!(definitions));
        schema
    }
}

fn generator() -> SchemaGenerator {
    SchemaSettings::draft2020_12().for_serialize().into_generator()
}
