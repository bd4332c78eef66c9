//! A plugin that writes down what a runtime sends, and otherwise changes nothing.
//!
//! Put it anywhere in a chain to see what containerd, CRI-O or podman really pass. It is also the shortest
//! complete plugin: all five verbs over `cni_spec`.
//!
//! ```json
//! { "type": "podwire-record", "recordTo": "/run/record.jsonl" }
//! ```
//!
//! `answer` is the result of an ADD that has no `prevResult`, `failOn` lists verbs to refuse.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use cni_spec::{
    AddRequest, CheckRequest, CniError, CniResult, DelRequest, Environment, ErrorCode, GcRequest, NetConf, Plugin,
    StatusRequest, dispatch,
};
use serde::Deserialize;
use serde_json::{Value, json};

fn main() -> ExitCode {
    dispatch::main(&Record)
}

struct Record;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Config {
    record_to: PathBuf,
    answer: Option<Value>,
    #[serde(default)]
    fail_on: Vec<String>,
}

impl Plugin for Record {
    type Error = CniError;

    fn about(&self) -> String {
        format!("podwire-record {}: writes down what a runtime sends", env!("CARGO_PKG_VERSION"))
    }

    fn add(&self, request: &AddRequest) -> Result<CniResult, CniError> {
        let config = record(&request.environment, &request.config)?;
        match (&request.config.prev_result, config.answer) {
            (Some(previous), _) => Ok(previous.clone()),
            (None, Some(answer)) => CniResult::from_json(&answer, request.config.cni_version)
                .map_err(|error| CniError::from_source(ErrorCode::InvalidConfig, &error)),
            (None, None) => Ok(CniResult::default()),
        }
    }

    fn del(&self, request: &DelRequest) -> Result<(), CniError> {
        record(&request.environment, &request.config).map(drop)
    }

    fn check(&self, request: &CheckRequest) -> Result<(), CniError> {
        record(&request.environment, &request.config).map(drop)
    }

    fn gc(&self, request: &GcRequest) -> Result<(), CniError> {
        record(&request.environment, &request.config).map(drop)
    }

    fn status(&self, request: &StatusRequest) -> Result<(), CniError> {
        record(&request.environment, &request.config).map(drop)
    }
}

/// One line per call: the six variables and the whole of standard input.
fn record(environment: &Environment, conf: &NetConf) -> Result<Config, CniError> {
    let config: Config = conf.parse()?;
    let text = |value: &std::ffi::OsString| value.to_string_lossy().into_owned();
    let variables: BTreeMap<String, String> = environment
        .iter()
        .filter(|(name, _)| name.to_string_lossy().starts_with("CNI_"))
        .map(|(name, value)| (text(name), text(value)))
        .collect();
    let verb = variables.get("CNI_COMMAND").cloned().unwrap_or_default();
    let line = json!({ "environment": variables, "stdin": conf.json });
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(&config.record_to)
        .and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()))
        .map_err(|error| {
            CniError::new(ErrorCode::Io, format!("cannot write recordTo={:?}", config.record_to.display()))
                .with_details(error.to_string())
        })?;
    if config.fail_on.contains(&verb) {
        return Err(CniError::new(ErrorCode::Plugin(100), format!("refused as asked: failOn has {verb:?}")));
    }
    Ok(config)
}
