//! What the runtime sent, as `podwire-record` at the end of the chain wrote it down. Pure: text in, lines out.

use std::collections::BTreeSet;

use podwire_examples::proof::Outcome;
use serde_json::Value;

use crate::node::{Running, outcome};

/// One call of the last plugin of the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Call {
    verb: String,
    container: String,
    netns: String,
    args: String,
    prev_result: bool,
    /// The keys of the port mappings, as they were spelled.
    keys: BTreeSet<String>,
}

/// What a runtime is known to send for each pod.
#[derive(Debug, Clone, Copy)]
pub struct Habit {
    /// The calls: see [`Call::shape`].
    pub calls: &'static [&'static str],
    /// In front of its own id in `CNI_CONTAINERID`.
    pub id_prefix: &'static str,
    /// Keys of `CNI_ARGS`.
    pub args: &'static [&'static str],
    /// How it spells the keys of port mappings.
    pub keys: &'static [&'static str],
}

impl Call {
    fn read(line: &str) -> Option<Self> {
        let json: Value = serde_json::from_str(line).ok()?;
        let variable = |name: &str| json["environment"][name].as_str().unwrap_or_default().to_owned();
        let mappings = json["stdin"]["runtimeConfig"]["portMappings"].as_array().into_iter().flatten();
        Some(Self {
            verb: variable("CNI_COMMAND"),
            container: variable("CNI_CONTAINERID"),
            netns: variable("CNI_NETNS"),
            args: variable("CNI_ARGS"),
            // As a plugin of a chain, an ADD always has one.
            prev_result: json["stdin"].get("prevResult").is_some(),
            keys: mappings.filter_map(Value::as_object).flat_map(|mapping| mapping.keys().cloned()).collect(),
        })
    }

    /// `ADD`, or `DEL` with what it lacks.
    fn shape(&self) -> String {
        let lacks = [("netns", self.netns.is_empty()), ("prevResult", !self.prev_result)];
        let lacks: Vec<&str> = lacks.into_iter().filter_map(|(what, is_missing)| is_missing.then_some(what)).collect();
        if lacks.is_empty() { self.verb.clone() } else { format!("{} without {}", self.verb, lacks.join(", ")) }
    }
}

/// Whether every pod's calls are those that the runtime is known for: if not, something about it has to be learned anew.
#[must_use]
pub fn compare(record: &str, running: &[Running], habit: Habit) -> Vec<Outcome> {
    let calls: Vec<Call> = record.lines().filter_map(Call::read).collect();
    let mut outcomes = Vec::new();
    for pod in running {
        let id = format!("{}{}", habit.id_prefix, pod.id);
        let of_pod: Vec<&Call> = calls.iter().filter(|call| call.container == id).collect();
        let shapes: Vec<String> = of_pod.iter().map(|call| call.shape()).collect();
        let sent = format!("the calls for {}", pod.pod.name);
        outcomes.push(outcome(&format!("calls-{}", pod.pod.name), shapes == habit.calls, sent, shapes.join("; ")));
    }
    let adds = || calls.iter().filter(|call| call.verb == "ADD");
    let args = adds().flat_map(|call| call.args.split(';')).filter_map(|arg| arg.split_once('='));
    let args: BTreeSet<&str> = args.map(|(key, _)| key).collect();
    outcomes.push(same("cni-args", "keys of CNI_ARGS", &args, habit.args));
    let keys: BTreeSet<&str> = adds().flat_map(|call| call.keys.iter().map(String::as_str)).collect();
    outcomes.push(same("portmapping-keys", "keys of runtimeConfig.portMappings", &keys, habit.keys));
    outcomes
}

fn same(id: &str, what: &str, found: &BTreeSet<&str>, known: &[&str]) -> Outcome {
    let passed = *found == known.iter().copied().collect();
    let found: Vec<&str> = found.iter().copied().collect();
    let came_back = if found.is_empty() { "none".to_owned() } else { found.join(" ") };
    outcome(id, passed, what.to_owned(), came_back)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_told_by_what_it_lacks() {
        let line = |netns: &str, prev: &str| {
            format!(
                r#"{{"environment": {{"CNI_COMMAND": "DEL", "CNI_CONTAINERID": "a", "CNI_NETNS": "{netns}"}}, "stdin": {{{prev}}}}}"#
            )
        };
        let shape = |netns, prev| Call::read(&line(netns, prev)).unwrap().shape();
        assert_eq!(shape("/run/netns/a", r#""prevResult": {}"#), "DEL");
        assert_eq!(shape("", r#""prevResult": {}"#), "DEL without netns");
        assert_eq!(shape("", ""), "DEL without netns, prevResult");
    }

    #[test]
    fn keys_are_told_as_they_were_spelled() {
        let line = r#"{"environment": {"CNI_COMMAND": "ADD", "CNI_ARGS": "IgnoreUnknown=1;K8S_POD_NAME=web"},
            "stdin": {"prevResult": {}, "runtimeConfig": {"portMappings": [{"HostPort": 1}, {"HostIP": ""}]}}}"#;
        let habit = Habit {
            calls: &[],
            id_prefix: "",
            args: &["K8S_POD_NAME", "IgnoreUnknown"],
            keys: &["HostIP", "HostPort"],
        };
        let outcomes = compare(&line.replace('\n', ""), &[], habit);
        assert!(outcomes.iter().all(|outcome| outcome.passed), "{outcomes:?}");
        let other = Habit { keys: &["hostPort"], ..habit };
        assert!(!compare(&line.replace('\n', ""), &[], other)[1].passed);
    }
}
