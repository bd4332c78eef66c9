//! What can go wrong between a runtime and its plugins.

use std::fmt;
use std::path::PathBuf;

use cni_spec::{DelegateError, ResultError, SpecVersion};

/// One step of a call.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// No folder has the executable.
    #[error("no executable {plugin:?} in {}", folders(.path))]
    NotFound {
        /// `type`.
        plugin: String,
        /// Where it was looked for.
        path: Vec<PathBuf>,
    },
    /// A plugin failed, or could not be run.
    #[error("{verb} of {plugin}")]
    Plugin {
        /// `type`.
        plugin: String,
        /// `CNI_COMMAND`.
        verb: &'static str,
        /// The plugin's error object, or why there is none.
        #[source]
        source: Box<DelegateError>,
    },
    /// A plugin's config could not be written as JSON.
    #[error("cannot write a plugin's config as JSON")]
    Encode {
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// ADD succeeded, but its standard output is not JSON.
    #[error("the result of {plugin} is not JSON")]
    NotJson {
        /// `type`.
        plugin: String,
        /// What the parser said.
        #[source]
        source: serde_json::Error,
    },
    /// ADD succeeded, but its standard output is no result.
    #[error("the result of {plugin}")]
    BadResult {
        /// `type`.
        plugin: String,
        /// What is wrong with it.
        #[source]
        source: ResultError,
    },
    /// A list without plugins attaches nothing.
    #[error("network {0:?} has no plugins")]
    NoPlugins(String),
    /// CHECK came with 0.4.0.
    #[error("a list of version {0} has no CHECK")]
    CheckUnsupported(SpecVersion),
    /// A kept result could not be read or written.
    #[error("kept result {}", .file.display())]
    Cache {
        /// Where.
        file: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// ADD failed, and so did the DEL that followed it.
    #[error("{}; the DEL after it: {}", chain(.add), chain(.del))]
    AddAndDel {
        /// What ADD failed with.
        add: Box<RuntimeError>,
        /// What DEL failed with.
        del: Box<RuntimeError>,
    },
}

/// Several failures of one call that went on after each.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.iter().map(|error| chain(error)).collect::<Vec<_>>().join("; "))]
pub struct ErrorList(pub Vec<RuntimeError>);

/// An error with its sources, outermost first, on one line.
#[must_use]
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

fn folders(path: &[PathBuf]) -> impl fmt::Display {
    path.iter().map(|folder| folder.display().to_string()).collect::<Vec<_>>().join(", ")
}
