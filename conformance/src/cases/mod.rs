//! The questions. Each is a flat function with the sentence of the spec that it holds to.

mod add;
mod capabilities;
mod catalogue;
mod chained;
mod check;
mod concurrency;
mod del;
mod delegation;
mod gc;
mod ipam;
mod killed;
mod packets;
mod parameters;
mod ports;
mod protocol;
mod results;
mod robust;
mod stand_in;
mod status;
mod version;
mod wire;

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::host::call::Answer;
use crate::host::pod::Pod;
use crate::host::{Host, Profile, shape};
use crate::target::{Kind, Target};
use crate::verdict::{Verdict, ensure};

pub use catalogue::{UNTESTABLE, Untestable};

/// One question.
#[derive(Debug)]
pub struct Case {
    /// How it is called: the checklist's id with a letter for each question to it.
    pub id: &'static str,
    /// What it belongs to.
    pub topic: &'static str,
    /// What is expected, in a few words.
    pub title: &'static str,
    /// The first spec version that says so.
    pub since: &'static str,
    /// Where it says so.
    pub section: &'static str,
    /// What it says.
    pub sentence: &'static str,
    /// What is done, and how the outcome is observed.
    pub does: &'static str,
    /// Whom it can be asked.
    pub kinds: &'static [Kind],
    /// The question itself.
    pub run: fn(&Host) -> Verdict,
}

impl Case {
    /// How the case's interfaces are called: after its topic, so that no plugin takes `eth0` for granted, but as runtimes
    /// call them where that is what is asked.
    #[must_use]
    pub fn ifname(&self) -> String {
        if self.topic == "runtimes" { "eth0".to_owned() } else { format!("{}0", self.topic) }
    }

    /// Why it cannot be put to this target, if so.
    #[must_use]
    pub fn not_for(&self, target: &Target, profile: &Profile) -> Option<String> {
        if !self.kinds.contains(&target.kind) {
            let kinds: Vec<_> = self.kinds.iter().map(|kind| kind.word()).collect();
            return Some(format!("it is for {} plugins, and this one is {}", kinds.join(" and "), target.kind.word()));
        }
        let newest = profile.versions.last()?;
        if !shape::at_least(newest, self.since) {
            return Some(format!("the plugin supports spec versions up to {newest}, and this is of {}", self.since));
        }
        None
    }

    /// Whether a filter means it: a topic such as `packets`, what begins topics or ids, such as `packet` and `DEL-5`; only if there
    /// is none of that, a part of titles. The whole name of a topic does not mean others that begin so.
    #[must_use]
    pub fn matches(&self, filter: &str) -> bool {
        let filter = filter.to_lowercase();
        let is_topic = all().any(|case| case.topic == filter);
        let of_topic = |case: &Self| if is_topic { case.topic == filter } else { case.topic.starts_with(&filter) };
        let of_id = |case: &Self| case.id.to_lowercase().starts_with(&filter);
        if all().any(|case| of_topic(case) || of_id(case)) {
            return of_topic(self) || of_id(self);
        }
        self.title.to_lowercase().contains(&filter)
    }
}

/// Plugins that make interfaces.
pub(crate) const MAIN: &[Kind] = &[Kind::Main];
/// Plugins that adjust interfaces.
pub(crate) const CHAINED: &[Kind] = &[Kind::Chained];
/// Plugins that give out addresses.
pub(crate) const IPAM: &[Kind] = &[Kind::Ipam];
/// Every plugin.
pub(crate) const ANY: &[Kind] = &[Kind::Main, Kind::Chained, Kind::Ipam];
/// Plugins that give out addresses, by themselves or by another.
pub(crate) const ADDRESSING: &[Kind] = &[Kind::Main, Kind::Ipam];
/// Plugins that the runtime calls.
pub(crate) const CALLED: &[Kind] = &[Kind::Main, Kind::Chained];

/// A table of questions: id, since, section, whom, function; then title, sentence, and what is done.
macro_rules! cases {
    ($topic:literal: $($id:literal since $since:literal in $section:literal for $kinds:expr => $run:expr,
        $title:literal, $sentence:literal, $does:literal;)+) => {
        /// The questions of this topic.
        pub const CASES: &[$crate::cases::Case] = &[$($crate::cases::Case {
            id: $id, topic: $topic, title: $title, since: $since, section: $section, sentence: $sentence,
            does: $does, kinds: $kinds, run: $run,
        }),+];
    };
}
pub(crate) use cases;

/// Every table.
const TABLES: &[&[Case]] = &[
    protocol::CASES,
    parameters::CASES,
    version::CASES,
    results::CASES,
    add::CASES,
    chained::CASES,
    del::CASES,
    check::CASES,
    gc::CASES,
    status::CASES,
    delegation::CASES,
    ipam::CASES,
    concurrency::CASES,
    killed::CASES,
    robust::CASES,
    wire::CASES,
    packets::CASES,
    ports::CASES,
    capabilities::CASES,
];

/// The topics, in the order of the questions; two tables may share one.
pub fn topics() -> Vec<&'static str> {
    let mut topics: Vec<_> = TABLES.iter().filter_map(|table| Some(table.first()?.topic)).collect();
    topics.dedup();
    topics
}

/// Every question.
pub fn all() -> impl Iterator<Item = &'static Case> {
    TABLES.iter().flat_map(|table| table.iter())
}

/// The question with this id.
#[must_use]
pub fn find(id: &str) -> Option<&'static Case> {
    all().find(|case| case.id.eq_ignore_ascii_case(id))
}

/// An object that is written as JSON.
pub(crate) fn object(value: Value) -> crate::target::Object {
    match value {
        Value::Object(object) => object,
        _ => crate::target::Object::new(),
    }
}

/// That the call failed with an error object, as the spec has it: code and msg.
pub(crate) fn sorry(answer: &Answer) -> Verdict<Value> {
    let error = answer.error()?;
    let complete = error.get("code").is_some_and(Value::is_u64) && error.get("msg").is_some_and(Value::is_string);
    ensure!(complete, "the error has no code or no msg: {error}");
    Ok(error)
}

/// That no address is in both results.
pub(crate) fn disjoint(one: &Value, two: &Value) -> Verdict {
    let (one, two) = (shape::bare_addresses(one), shape::bare_addresses(two));
    let shared: Vec<_> = one.iter().filter(|address| two.contains(address)).collect();
    ensure!(shared.is_empty(), "both got {shared:?}");
    Ok(())
}

/// That the host is as if nothing had been attached.
pub(crate) fn nothing_is_left(host: &Host) -> Verdict {
    let left = host.residue()?;
    ensure!(left.is_empty(), "{}", crate::verdict::left_behind(&left));
    Ok(())
}

/// Waits for a condition.
pub(crate) fn until(what: &str, condition: impl Fn() -> Verdict<bool>) -> Verdict {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition()? {
        ensure!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// A pod that uses what the plugin offers: a port is mapped, traffic shaped, a hardware address set.
pub(crate) fn busy_pod(host: &Host) -> Verdict<Pod> {
    Ok(busy(host, host.pod()?, 0))
}

/// The same with this container id.
pub(crate) fn busy_pod_called(host: &Host, id: &str) -> Verdict<Pod> {
    Ok(busy(host, host.pod_called(|_| id.to_owned())?, 0))
}

/// Gives the pod what the runtime would give it; `number` tells host ports apart.
pub(crate) fn busy(host: &Host, pod: Pod, number: u16) -> Pod {
    let ports = json!([
        { "hostPort": 31000 + number, "containerPort": 80, "protocol": "tcp" },
        { "hostPort": 31000 + number, "containerPort": 53, "protocol": "udp" },
    ]);
    let shaping =
        json!({ "ingressRate": 8_000_000, "ingressBurst": 800_000, "egressRate": 8_000_000, "egressBurst": 800_000 });
    let mac = format!("02:c0:f0:02:{:02x}:{:02x}", number / 256, number % 256);
    remembered(host, pod.with("portMappings", ports).with("bandwidth", shaping).with("mac", json!(mac)))
}

/// Notes how the pod is to be detached at the end.
pub(crate) fn remembered(host: &Host, pod: Pod) -> Pod {
    host.remember(&pod);
    pod
}

/// A pod that has a name, which the runtime hands on.
pub(crate) fn named_pod(host: &Host) -> Verdict<Pod> {
    let mut pod = busy_pod(host)?;
    pod.args = "IgnoreUnknown=1;K8S_POD_NAMESPACE=ns;K8S_POD_NAME=web".to_owned();
    Ok(remembered(host, pod))
}
