//! The private host of one case: the suite plays the runtime on it.

pub mod call;
mod daemons;
pub mod exec;
pub mod net;
pub mod observe;
pub mod pod;
mod processes;
pub mod residue;
pub mod sctp;
pub mod settings;
pub mod shape;
pub mod strace;
mod teardown;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::target::{Kind, Object, Target};
use crate::verdict::{Finding, Verdict, skip};
use call::{Answer, Call};
use pod::Pod;

/// The network's name in every config.
pub const NETWORK: &str = "conformance";
/// Another network's name, for questions about two.
pub const OTHER_NETWORK: &str = "conformance-other";
/// Where the suite keeps its own things on the private host.
pub const OWN_FOLDER: &str = "/run/cni-conformance";

/// What is known about a target before its cases run.
#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize)]
pub struct Profile {
    /// The spec versions to use, oldest first.
    pub versions: Vec<String>,
    /// The spec versions that VERSION names.
    #[serde(default)]
    pub supported: Vec<String>,
    /// What one ADD with its DEL leaves that belongs to the plugin and not to the attachment.
    pub frame: residue::Lines,
    /// Why the plugin could not be tried, if so.
    pub trouble: Option<String>,
    /// Whether that is an ADD or DEL that failed, so that most questions would fail, too.
    #[serde(default)]
    pub is_refused: bool,
    /// What it is for, by what its first ADD did, as far as that tells.
    #[serde(default)]
    pub looks_like: Option<Kind>,
}

/// The private host.
pub struct Host {
    /// What is judged.
    pub target: Target,
    /// Where plugins are looked for; CNI_PATH.
    pub dirs: Vec<PathBuf>,
    /// What is known about it.
    pub profile: Profile,
    /// The environment of plugins besides CNI_*.
    pub environment: BTreeMap<String, OsString>,
    /// At how many system calls, at most, a plugin is killed.
    pub points: usize,
    /// CNI_IFNAME of the pods.
    pub ifname: String,
    settings: settings::Settings,
    pods: Mutex<Vec<Pod>>,
    number: AtomicUsize,
    calls: Mutex<Vec<String>>,
    notes: Mutex<Vec<String>>,
    daemons: Arc<Mutex<Vec<std::process::Child>>>,
    results: Mutex<BTreeMap<String, Value>>,
    attached: Mutex<BTreeSet<String>>,
}

impl Host {
    /// The host that this process has just entered.
    #[must_use]
    pub fn new(target: Target, dirs: Vec<PathBuf>, profile: Profile, points: usize) -> Self {
        let command = sandbox::command("true");
        let path = command.get_envs().find(|(key, _)| *key == "PATH").and_then(|(_, value)| value);
        let environment = [
            ("PATH".to_owned(), path.map(OsString::from).unwrap_or_default()),
            ("HOME".to_owned(), OsString::from("/")),
            ("LANG".to_owned(), OsString::from("C.UTF-8")),
        ];
        Self {
            target,
            dirs,
            profile,
            environment: environment.into(),
            points,
            ifname: "eth0".to_owned(),
            settings: settings::read(),
            pods: Mutex::default(),
            number: AtomicUsize::new(1),
            calls: Mutex::default(),
            notes: Mutex::default(),
            daemons: Arc::default(),
            results: Mutex::default(),
            attached: Mutex::default(),
        }
    }

    /// The same for another target on the same host: its pods have other numbers, and the first target's daemons are known.
    #[must_use]
    pub fn beside(mut self, first: &Self) -> Self {
        self.number.store(10_000, Ordering::Relaxed);
        self.daemons = Arc::clone(&first.daemons);
        self
    }

    /// The newest version in use.
    #[must_use]
    pub fn version(&self) -> &str {
        self.profile.versions.last().map_or("1.0.0", String::as_str)
    }

    /// Skips unless the newest version is at least this.
    ///
    /// # Errors
    /// Skipped, with the reason.
    pub fn needs(&self, version: &str) -> Verdict {
        if !shape::at_least(self.version(), version) {
            skip!("the plugin supports spec versions up to {}, and this is of {version}", self.version());
        }
        Ok(())
    }

    /// CNI_PATH.
    #[must_use]
    pub fn cni_path(&self) -> OsString {
        let dirs: Vec<_> = self.dirs.iter().map(|dir| dir.as_os_str()).collect();
        dirs.join(&OsString::from(":"))
    }

    /// A pod that can be attached.
    ///
    /// # Errors
    /// Trouble if its namespace cannot be made.
    pub fn pod(&self) -> Verdict<Pod> {
        self.pod_called(|number| format!("suite-container-{number}"))
    }

    /// The same, with a container id of its own kind.
    ///
    /// # Errors
    /// Trouble if its namespace cannot be made.
    pub fn pod_called(&self, name: impl FnOnce(usize) -> String) -> Verdict<Pod> {
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let mut pod = Pod::make(&name(number), number, &self.ifname)?;
        if self.target.kind == Kind::Chained {
            pod.wire(number)?;
        }
        self.remember(&pod);
        Ok(pod)
    }

    /// Notes an attachment that is undone at the end, and how.
    pub fn remember(&self, pod: &Pod) {
        if let Ok(mut pods) = self.pods.lock() {
            pods.retain(|known| (&known.id, &known.ifname) != (&pod.id, &pod.ifname));
            pods.push(pod.clone());
        }
    }

    /// A call of the plugin that is judged: the first of the chain.
    #[must_use]
    pub fn call(&self, command: &str) -> Call<'_> {
        Call::new(self, command, 0)
    }

    /// A call of the plugin at this place of the chain.
    #[must_use]
    pub fn call_at(&self, command: &str, index: usize) -> Call<'_> {
        Call::new(self, command, index)
    }

    /// A call of the plugin that is judged, for this pod.
    #[must_use]
    pub fn call_for(&self, command: &str, pod: &Pod) -> Call<'_> {
        self.call(command).pod(pod)
    }

    /// ADD of the whole chain, as libcni does it: the last plugin's result.
    ///
    /// # Errors
    /// Failed if a plugin fails.
    pub fn attach(&self, pod: &Pod) -> Verdict<Value> {
        self.attach_with(pod, &Object::new())
    }

    /// The same, with keys merged into every plugin's config.
    ///
    /// # Errors
    /// Failed if a plugin fails.
    pub fn attach_with(&self, pod: &Pod, patch: &Object) -> Verdict<Value> {
        self.attach_some(pod, patch, self.target.plugins.len())
    }

    /// ADD of the plugins before this place of the chain.
    ///
    /// # Errors
    /// Failed if a plugin fails.
    pub fn attach_until(&self, pod: &Pod, end: usize) -> Verdict<Value> {
        self.attach_some(pod, &Object::new(), end)
    }

    fn attach_some(&self, pod: &Pod, patch: &Object, end: usize) -> Verdict<Value> {
        let mut result = None;
        for index in 0..end {
            let mut call = Call::new(self, "ADD", index).pod(pod).merge(patch);
            if let Some(previous) = &result {
                call = call.prev(previous);
            }
            result = Some(call.run()?.result()?);
        }
        result.ok_or_else(|| Finding::Trouble("the target has no plugins".to_owned()))
    }

    /// DEL of the whole chain in reverse order; stops at the first error, as libcni does.
    ///
    /// # Errors
    /// Failed if a plugin fails.
    pub fn detach(&self, pod: &Pod, result: Option<&Value>) -> Verdict {
        self.detach_with(pod, result, |call| call)
    }

    /// The same, with every call changed.
    ///
    /// # Errors
    /// Failed if a plugin fails.
    pub fn detach_with(&self, pod: &Pod, result: Option<&Value>, change: impl Fn(Call<'_>) -> Call<'_>) -> Verdict {
        self.release(pod, result, change)?;
        self.settle()
    }

    /// The same without waiting for what a plugin does after it has answered.
    ///
    /// # Errors
    /// Failed if a plugin fails.
    pub fn release(&self, pod: &Pod, result: Option<&Value>, change: impl Fn(Call<'_>) -> Call<'_>) -> Verdict {
        for index in (0..self.target.plugins.len()).rev() {
            let mut call = Call::new(self, "DEL", index).pod(pod);
            if let Some(result) = result.filter(|_| shape::at_least(self.version(), "0.4.0")) {
                call = call.prev(result);
            }
            change(call).run()?.success()?;
        }
        Ok(())
    }

    /// CHECK of the whole chain.
    ///
    /// # Errors
    /// Failed if a plugin fails; skipped below 0.4.0.
    pub fn check(&self, pod: &Pod, result: &Value) -> Verdict {
        for answer in self.check_answers(pod, result)? {
            answer.success()?;
        }
        Ok(())
    }

    /// Every plugin's answer to CHECK; ends at the first error.
    ///
    /// # Errors
    /// Failed if a plugin does not end; skipped below 0.4.0.
    pub fn check_answers(&self, pod: &Pod, result: &Value) -> Verdict<Vec<Answer>> {
        self.check_answers_with(pod, result, &Object::new())
    }

    /// The same, with keys merged into every plugin's config.
    ///
    /// # Errors
    /// As [`check_answers`](Self::check_answers).
    pub fn check_answers_with(&self, pod: &Pod, result: &Value, patch: &Object) -> Verdict<Vec<Answer>> {
        self.needs("0.4.0")?;
        let mut answers = Vec::new();
        for index in 0..self.target.plugins.len() {
            let answer = Call::new(self, "CHECK", index).pod(pod).prev(result).merge(patch).run()?;
            let succeeded = answer.succeeded();
            answers.push(answer);
            if !succeeded {
                break;
            }
        }
        Ok(answers)
    }

    /// GC of the whole chain with these attachments as the valid ones.
    ///
    /// # Errors
    /// Failed if a plugin fails; skipped below 1.1.0.
    pub fn collect(&self, valid: &[&Pod]) -> Verdict {
        self.needs("1.1.0")?;
        let valid: Vec<_> = valid.iter().map(|pod| json!({ "containerID": pod.id, "ifname": pod.ifname })).collect();
        for index in 0..self.target.plugins.len() {
            let call =
                Call::new(self, "GC", index).key("cni.dev/valid-attachments", json!(valid)).env("CNI_CONTAINERID", "");
            call.key("cni.dev/attachments", json!(valid)).run()?.success()?;
        }
        self.settle()
    }

    /// Waits for processes that plugins left behind: a plugin may finish its work after it has answered, but not for ever.
    ///
    /// # Errors
    /// Failed if one is still there after 20 seconds.
    pub fn settle(&self) -> Verdict {
        let deadline = Instant::now() + Duration::from_secs(20);
        let known: Vec<u32> =
            self.daemons.lock().map(|all| all.iter().map(std::process::Child::id).collect()).unwrap_or_default();
        processes::wait_for_orphans(&known, deadline)
    }

    /// What the host has beyond what the plugin keeps for itself.
    ///
    /// # Errors
    /// Trouble if a tool fails.
    pub fn residue(&self) -> Verdict<Vec<String>> {
        // The kernel takes namespaces down in the background, and with them what was paired with their interfaces. Rules and
        // files do not go by themselves.
        let may_go = |line: &String| {
            ["link ", "address ", "route ", "qdisc ", "neighbour "].iter().any(|kind| line.starts_with(kind))
        };
        let extra = self.attached_traces()?;
        if !extra.iter().any(may_go) {
            return Ok(extra);
        }
        let start = Instant::now();
        let (at_least, at_most) = (start + Duration::from_secs(1), start + Duration::from_secs(10));
        let mut markers = 0;
        loop {
            // A namespace goes with the last socket in it, which may be after the first marker has gone.
            let is_late = if markers < teardown::MARKERS {
                markers += 1;
                !teardown::has_caught_up(at_most)?
            } else {
                std::thread::sleep(Duration::from_millis(100));
                Instant::now() > at_least
            };
            let extra = self.attached_traces()?;
            if is_late || !extra.iter().any(may_go) {
                return Ok(extra);
            }
        }
    }

    /// What attachments have on the host right now.
    ///
    /// # Errors
    /// Trouble if a tool fails.
    pub fn attached_traces(&self) -> Verdict<Vec<String>> {
        self.settle()?;
        let mut extra = residue::beyond(&self.observe()?, &self.frame());
        extra.retain(|line| !residue::is_of_suite(line));
        Ok(extra)
    }

    /// What the plugin keeps, and may keep likewise for the second network that the target file describes.
    fn frame(&self) -> residue::Lines {
        let mut frame = self.profile.frame.clone();
        for (key, other) in self.target.second_network.iter().flatten() {
            let own = self.target.plugins.first().and_then(|plugin| plugin.get(key));
            if let (Some(Value::String(own)), Value::String(other)) = (own, other) {
                let lines = self.profile.frame.iter().filter(|(line, _)| line.contains(own.as_str()));
                frame.extend(lines.map(|(line, count)| (line.replace(own.as_str(), other), *count)));
            }
        }
        frame
    }

    /// All that the host has, of kernel settings what has changed since it was new.
    ///
    /// # Errors
    /// Trouble if a tool fails.
    pub fn observe(&self) -> Verdict<residue::Lines> {
        residue::observe(&self.target.numbered, &self.settings)
    }

    /// Undoes what the case left attached, as a runtime would, and ignores what goes wrong with that.
    pub fn clean_up(&self) {
        let pods = self.pods.lock().map(|mut pods| std::mem::take(&mut *pods)).unwrap_or_default();
        for pod in pods.iter().rev() {
            let cached = self
                .results
                .lock()
                .ok()
                .and_then(|results| results.get(&format!("{} {}", pod.id, pod.ifname)).cloned());
            let _ = self.detach(pod, cached.or_else(|| pod.scaffold.clone()).as_ref());
        }
        for pod in &pods {
            let _ = pod.remove_namespace();
        }
    }

    /// Keeps an attachment's result, as a runtime does.
    pub(crate) fn cache(&self, key: String, result: Value) {
        if let Ok(mut results) = self.results.lock() {
            results.insert(key, result);
        }
    }

    /// An ADD of the attachment begins; tells whether it is the first. Where all pods get the same address, one at a time is
    /// all that can be asked for.
    ///
    /// # Errors
    /// Skipped if that is so, and another one is attached.
    pub(crate) fn begins(&self, attachment: &str) -> Verdict<bool> {
        let Ok(mut attached) = self.attached.lock() else { return Ok(true) };
        if self.target.traits.one_address && attached.iter().any(|other| other != attachment) {
            skip!("all pods get the same address, and this takes two at a time");
        }
        Ok(attached.insert(attachment.to_owned()))
    }

    /// What is left attached when some are undone.
    pub(crate) fn keeps_attached(&self, keeps: impl Fn(&str) -> bool) {
        if let Ok(mut attached) = self.attached.lock() {
            attached.retain(|one| keeps(one));
        }
    }

    /// Remembers a call for the report of a failure.
    pub(crate) fn log(&self, answer: &Answer) {
        let milliseconds = answer.finished.took.as_millis();
        if let Ok(mut calls) = self.calls.lock() {
            calls.push(format!("{} ({milliseconds} ms): {}", answer.command, answer.summary()));
        }
    }

    /// Keeps what is worth telling of a case, whatever its outcome.
    pub(crate) fn note(&self, text: String) {
        if let Ok(mut notes) = self.notes.lock() {
            notes.push(text);
        }
    }

    /// What was worth telling so far.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        self.notes.lock().map(|notes| notes.clone()).unwrap_or_default()
    }

    /// The calls so far.
    #[must_use]
    pub fn transcript(&self) -> Vec<String> {
        self.calls.lock().map(|calls| calls.clone()).unwrap_or_default()
    }
}
