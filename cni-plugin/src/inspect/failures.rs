//! The last error of every attachment, from the log that `logFile` names: also of those that are no more, since a runtime
//! sends a DEL as soon as an ADD has failed.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use cni_spec::Attachment;
use serde::Deserialize;
use serde_json::{Value, json};

/// How much of the end of a file is read, in bytes: some thousands of calls.
const MOST: u64 = 8 * 1024 * 1024;

/// A call that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// When it ended, RFC 3339.
    pub timestamp: String,
    /// Which plugin of the chain.
    pub plugin: String,
    /// `ADD` and so on.
    pub verb: String,
    /// About what.
    pub attachment: Attachment,
    /// `NAMESPACE/NAME`, if the runtime told.
    pub pod: Option<String>,
    /// The error's code.
    pub code: u64,
    /// Its text.
    pub msg: String,
    /// What it says besides.
    pub details: String,
}

#[derive(Deserialize)]
struct Record {
    timestamp: String,
    level: String,
    code: Option<u64>,
    #[serde(default)]
    msg: String,
    #[serde(default)]
    details: String,
    span: Span,
}

#[derive(Deserialize)]
struct Span {
    plugin: Option<String>,
    verb: String,
    network: Option<String>,
    container_id: Option<String>,
    ifname: Option<String>,
    pod: Option<String>,
}

impl Failure {
    /// None for lines of other kinds, and for those that something cut off.
    fn of(line: &str) -> Option<Self> {
        let Record { timestamp, level, code, msg, details, span } = serde_json::from_str(line).ok()?;
        let attachment = Attachment {
            network: span.network?.parse().ok()?,
            container_id: span.container_id?.parse().ok()?,
            ifname: span.ifname?.parse().ok()?,
        };
        let (plugin, verb, pod) = (span.plugin.unwrap_or_default(), span.verb, span.pod);
        let code = code.filter(|_| level == "ERROR")?;
        Some(Self { timestamp, plugin, verb, attachment, pod, code, msg, details })
    }

    /// Whether somebody who says this means it: a pod's name, with or without its namespace, or the beginning of a
    /// container's id.
    #[must_use]
    pub fn is_meant_by(&self, target: &str) -> bool {
        let is_pod = self.pod.as_deref().is_some_and(|pod| super::names(pod, target));
        is_pod || (!target.is_empty() && self.attachment.container_id.as_str().starts_with(target))
    }

    /// For programs.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "timestamp": self.timestamp, "plugin": self.plugin, "verb": self.verb, "pod": self.pod,
            "network": self.attachment.network.as_str(), "containerID": self.attachment.container_id.as_str(),
            "ifname": self.attachment.ifname.as_str(), "code": self.code, "msg": self.msg, "details": self.details,
        })
    }
}

/// The last of each attachment, oldest first, from a log and the one before it, as logrotate(8) names that.
///
/// # Errors
/// When the log cannot be read.
pub fn last(log: &Path) -> io::Result<Vec<Failure>> {
    let mut before = log.as_os_str().to_owned();
    before.push(".1");
    let text = match (end_of_any(&PathBuf::from(before))?, end_of_any(log)?) {
        // That both are missing is more likely a wrong name than good luck.
        (None, None) => return Err(io::ErrorKind::NotFound.into()),
        // One that was just put aside has no successor before the next call.
        (older, newer) => older.unwrap_or_default() + &newer.unwrap_or_default(),
    };
    let mut failures: Vec<Failure> = Vec::new();
    for failure in text.lines().filter_map(Failure::of) {
        failures.retain(|earlier| earlier.attachment != failure.attachment);
        failures.push(failure);
    }
    Ok(failures)
}

fn end_of_any(path: &Path) -> io::Result<Option<String>> {
    match end_of(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        read => read.map(Some),
    }
}

fn end_of(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(MOST)))?;
    let mut bytes = Vec::new();
    file.take(MOST).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(container: &str, level: &str, verb: &str, msg: &str) -> String {
        let span =
            json!({ "plugin": "podwire", "verb": verb, "network": "n", "container_id": container, "ifname": "eth0" });
        let record = json!({ "timestamp": "2026-01-01T00:00:00Z", "level": level, "message": "failed", "code": 5, "msg": msg, "span": span });
        format!("{record}\n")
    }

    #[test]
    fn the_last_one_of_each_attachment_counts_whatever_stands_around_it() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("podwire.log");
        let rotated = line("a", "ERROR", "ADD", "first") + &line("b", "ERROR", "ADD", "of b");
        std::fs::write(folder.path().join("podwire.log.1"), rotated).unwrap();
        let text = ["{ cut off\n", &line("a", "ERROR", "CHECK", "second"), &line("a", "INFO", "DEL", ""), "\u{fffd}\n"]
            .concat();
        std::fs::write(&log, text).unwrap();
        let found = last(&log).unwrap();
        let told: Vec<(&str, &str)> =
            found.iter().map(|failure| (failure.attachment.container_id.as_str(), failure.msg.as_str())).collect();
        assert_eq!(told, [("b", "of b"), ("a", "second")]);
        assert!(last(&folder.path().join("nothing")).is_err());
        std::fs::remove_file(&log).unwrap();
        let found = last(&log).unwrap();
        assert_eq!(found.iter().map(|failure| failure.msg.as_str()).collect::<Vec<_>>(), ["first", "of b"]);
    }
}
