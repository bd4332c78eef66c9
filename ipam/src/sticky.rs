//! Addresses that pods get again: `sticky.jsonl`, which outlives a boot.
//!
//! A pod that has not been seen for a month is forgotten when a ledger is made from the file, as after a boot. Until then
//! its addresses are given to others when there is nothing else. The file is written anew, with one line for each pod, when
//! it has grown to twice its length.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use cni_spec::{Attachment, IfName, NetworkName};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::ledger::make_folder;
use crate::record::Pod;

/// The addresses of a pod, from one for each pool of its network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sticky {
    #[serde(flatten)]
    pub pod: StickyPod,
    pub addresses: Vec<IpAddr>,
    /// When an ADD of the pod was answered last, to the day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<Timestamp>,
}

impl Sticky {
    /// Whether it says the same as one that is remembered, near enough.
    pub fn is_told_by(&self, known: &Self) -> bool {
        let seen_lately = match (self.seen, known.seen) {
            (Some(now), Some(then)) => now.duration_since(then) < A_DAY,
            _ => false,
        };
        self.addresses == known.addresses && seen_lately
    }

    fn is_over(&self, now: Timestamp) -> bool {
        self.seen.is_some_and(|seen| now.duration_since(seen) > A_MONTH)
    }
}

const A_DAY: SignedDuration = SignedDuration::from_hours(24);
const A_MONTH: SignedDuration = SignedDuration::from_hours(30 * 24);

/// A pod by the names that it comes back under.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct StickyPod {
    pub network: NetworkName,
    pub namespace: String,
    pub name: String,
    pub ifname: IfName,
}

impl StickyPod {
    /// None for a pod whose name or namespace is not known.
    pub fn of(attachment: &Attachment, pod: &Pod) -> Option<Self> {
        let (namespace, name) = (pod.namespace.clone()?, pod.name.clone()?);
        Some(Self { network: attachment.network.clone(), namespace, name, ifname: attachment.ifname.clone() })
    }
}

const FILE: &str = "sticky.jsonl";

/// The length in bytes from which on the file is written anew at times: some 6,000 pods.
const LONG: u64 = 1 << 20;

/// Appends a line for each. Of a pod's lines the last counts.
pub(crate) fn record(state_dir: &Path, new: &[Sticky], now: Timestamp) -> io::Result<()> {
    append(state_dir, new, now, LONG)
}

fn append(state_dir: &Path, new: &[Sticky], now: Timestamp, long: u64) -> io::Result<()> {
    if new.is_empty() {
        return Ok(());
    }
    make_folder(state_dir)?;
    let lines: String = new.iter().map(|sticky| format!("{}\n", serde_json::json!(sticky))).collect();
    let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(state_dir.join(FILE))?;
    let before = file.metadata()?.len();
    file.write_all(lines.as_bytes())?;
    let after = file.metadata()?.len();
    // At each doubling, so that nobody pays for all every time, however many pods there are.
    if after >= long && before.max(1).ilog2() != after.ilog2() { compact(state_dir, now) } else { Ok(()) }
}

/// There whole, as it was or as it is now.
fn compact(state_dir: &Path, now: Timestamp) -> io::Result<()> {
    let path = state_dir.join(FILE);
    let building = path.with_extension("jsonl.new");
    let lines: String = read(state_dir, now).iter().map(|sticky| format!("{}\n", serde_json::json!(sticky))).collect();
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&building)?;
    file.write_all(lines.as_bytes())?;
    file.sync_all()?;
    fs::rename(&building, &path)
}

/// All pods that were seen within a month, and their addresses. A line that cannot be read costs its pod the address it had, and nobody else
/// anything.
pub(crate) fn read(state_dir: &Path, now: Timestamp) -> Vec<Sticky> {
    let text = fs::read(state_dir.join(FILE)).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Sticky>(line).ok());
    let last: BTreeMap<StickyPod, Sticky> = lines.map(|sticky| (sticky.pod.clone(), sticky)).collect();
    last.into_values().filter(|sticky| !sticky.is_over(now)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sticky(pod: usize, address: &str, seen: Timestamp) -> Sticky {
        let pod = StickyPod {
            network: "n".parse().unwrap(),
            namespace: "shop".to_owned(),
            name: format!("db-{pod}"),
            ifname: "eth0".parse().unwrap(),
        };
        Sticky { pod, addresses: vec![address.parse().unwrap()], seen: Some(seen) }
    }

    fn on_day(day: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + day * 86_400).unwrap()
    }

    #[test]
    fn a_pod_that_is_not_seen_for_a_month_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let (gone, stays) = (sticky(0, "10.0.0.2", on_day(0)), sticky(1, "10.0.0.3", on_day(20)));
        record(dir.path(), &[gone.clone(), stays.clone()], on_day(20)).unwrap();
        assert_eq!(read(dir.path(), on_day(29)), [gone.clone(), stays.clone()]);
        assert_eq!(read(dir.path(), on_day(31)), [stays]);
        // Whoever comes every day is written down again once a day.
        assert!(sticky(0, "10.0.0.2", on_day(0)).is_told_by(&gone));
        assert!(!sticky(0, "10.0.0.2", on_day(1)).is_told_by(&gone));
        assert!(!sticky(0, "10.0.0.9", on_day(0)).is_told_by(&gone));
    }

    #[test]
    fn the_file_is_bounded_by_the_pods_that_are_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let length = || fs::metadata(dir.path().join(FILE)).unwrap().len();
        let line = u64::try_from(serde_json::json!(sticky(0, "10.0.0.2", on_day(0))).to_string().len()).unwrap() + 1;
        for day in 0..4000 {
            let of_day = sticky(usize::try_from(day % 7).unwrap(), "10.0.0.2", on_day(day));
            append(dir.path(), &[of_day], on_day(day), 4096).unwrap();
            assert!(length() <= 8192 + line, "{} bytes on day {day}", length());
        }
        assert_eq!(read(dir.path(), on_day(4000)).len(), 7);
    }
}
