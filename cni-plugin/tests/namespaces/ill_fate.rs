//! strace(1) as an ill fate: the n-th system call of a kind fails, or kills the plugin at its entry.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::common::{Answer, TestPod, dual_stack, finish, with};

/// What one process is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verb {
    Add,
    Del,
    /// With an empty list of valid attachments.
    Gc,
}

impl Verb {
    fn name(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Gc => "GC",
        }
    }

    fn config(self, config: &Value) -> Value {
        let gc = serde_json::json!({ "cni.dev/valid-attachments": [] });
        if self == Self::Gc { with(config.clone(), &gc) } else { config.clone() }
    }
}

/// Serves the verb while calls of `syscall` meet with `fate` at `when` (the n-th, or from the n-th on: "7+"); tells
/// whether one did. strace counts calls for each thread, so a run may meet several.
pub fn ill_fated(verb: Verb, pod: &TestPod, syscall: &str, fate: &str, when: &str) -> (Answer, bool) {
    ill_fated_with(&dual_stack(), verb, pod, syscall, fate, when)
}

/// The same with this config.
pub fn ill_fated_with(
    config: &Value,
    verb: Verb,
    pod: &TestPod,
    syscall: &str,
    fate: &str,
    when: &str,
) -> (Answer, bool) {
    let inject = format!("--inject={syscall}:{fate}:when={when}");
    let (answer, seen) = under_strace(config, verb, pod, &["--trace", syscall, &inject]);
    (answer, seen.contains("(INJECTED)") || seen.contains("killed by SIGKILL"))
}

/// The kinds of system calls that a verb makes, but for these, in the words of strace(1).
pub fn kinds_of_calls(config: &Value, verb: Verb, pod: &TestPod, but: &[&str]) -> BTreeSet<String> {
    let trace = format!("--trace=!{}", but.join(","));
    let (answer, seen) = under_strace(config, verb, pod, &["--summary-only", "--summary-columns=name", &trace]);
    answer.ok();
    // A head line, a rule, a name on each line, a rule, "total".
    let is_name = |name: &&str| name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_') && !name.is_empty();
    let names = seen.lines().map(str::trim).filter(is_name);
    names.filter(|name| !["syscall", "total"].contains(name)).map(str::to_owned).collect()
}

/// Serves the verb with these options of strace(1); tells what it wrote.
pub fn under_strace(config: &Value, verb: Verb, pod: &TestPod, options: &[&str]) -> (Answer, String) {
    let log = PathBuf::from(format!("/run/strace-{}", pod.id));
    let mut strace: Command = sandbox::command("strace");
    strace.args(["--follow-forks", "--quiet=all", "--output"]).arg(&log).args(options);
    strace.arg(env!("CARGO_BIN_EXE_podwire")).env_clear().envs(pod.env(verb.name()));
    let answer = finish(strace, verb.config(config).to_string().as_bytes());
    let seen = fs::read_to_string(&log).unwrap();
    fs::remove_file(&log).unwrap();
    (answer, seen)
}
