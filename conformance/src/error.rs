//! What keeps the suite from running at all: exit status 2.

use std::path::PathBuf;

use sandbox::SandboxError;

/// A step that failed before, between or after cases.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read.
    #[error("cannot read {}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file could not be written.
    #[error("cannot write {}", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A target file is not TOML, or says something that targets do not.
    #[error("{} is not a target", .path.display())]
    Target {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: toml::de::Error,
    },
    /// A conflist is not JSON.
    #[error("{} is not a network configuration", .path.display())]
    Conflist {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
    /// A saved report is not one.
    #[error("{} is not what `run -o json` prints", .path.display())]
    Saved {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
    /// A target or conflist lacks something.
    #[error("{what}: {why}")]
    Invalid {
        /// Which file or option.
        what: String,
        /// What is wrong.
        why: String,
    },
    /// A plugin is in none of the folders.
    #[error("plugin {plugin} is in none of {}: name its folder with --plugin-dir", .dirs.join(", "))]
    NoPlugin {
        /// Its type.
        plugin: String,
        /// Where it was looked for.
        dirs: Vec<String>,
    },
    /// No case has this id, or none matches the filter.
    #[error("no case matches {0}: `cni-conformance list` shows them all; topics: {topics}", topics = crate::cases::topics().join(", "))]
    NoCase(String),
    /// This executable's own path is unknown.
    #[error("cannot find this program's own file")]
    OwnPath(#[source] std::io::Error),
    /// A process for a case could not be started or heard.
    #[error("cannot run a case in a process of its own")]
    Child(#[source] std::io::Error),
    /// The private host could not be made.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// A private host could be made, but is not usable.
    #[error("the private host does not work: {0}")]
    Host(String),
    /// A report could not be written out.
    #[error("cannot print the report")]
    Print(#[source] std::io::Error),
    /// A report could not be turned into JSON.
    #[error("cannot encode the report")]
    Encode(#[source] serde_json::Error),
}

impl Error {
    /// The whole chain of reasons, in one line.
    #[must_use]
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(error) = source {
            text.push_str(&format!(": {error}"));
            source = error.source();
        }
        text
    }
}
