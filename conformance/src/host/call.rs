//! One call of a plugin, as a runtime makes it, and the plugin's answer.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use super::exec::{self, Finished};
use super::pod::Pod;
use super::{Host, NETWORK};
use crate::target::Object;
use crate::verdict::{Finding, Verdict};

/// How long one call may take. Nothing is judged by its speed: this ends what hangs, on the busiest of machines.
pub const CALL_LIMIT: Duration = Duration::from_secs(60);

/// A call that is being put together.
#[derive(Clone)]
pub struct Call<'h> {
    host: &'h Host,
    command: String,
    env: BTreeMap<String, OsString>,
    config: Object,
    stdin: Option<Vec<u8>>,
    program: String,
    dirs: Vec<PathBuf>,
}

impl<'h> Call<'h> {
    /// A call of the plugin at this place of the chain, with nothing but its config in the newest version.
    pub(super) fn new(host: &'h Host, command: &str, index: usize) -> Self {
        let mut config = host.target.plugins.get(index).cloned().unwrap_or_default();
        config.insert("name".to_owned(), json!(NETWORK));
        config.insert("cniVersion".to_owned(), json!(host.version()));
        let mut env = BTreeMap::new();
        for (key, value) in &host.environment {
            env.insert(key.clone(), value.clone());
        }
        env.insert("CNI_COMMAND".to_owned(), command.into());
        env.insert("CNI_PATH".to_owned(), host.cni_path());
        let program = host.target.plugin_type(index).to_owned();
        Self { host, command: command.to_owned(), env, config, stdin: None, program, dirs: host.dirs.clone() }
    }

    /// Sets the attachment's parameters, its capability arguments and, for a chained plugin, the interface it is to adjust.
    #[must_use]
    pub fn pod(mut self, pod: &Pod) -> Self {
        self = self.env("CNI_CONTAINERID", &pod.id).env("CNI_NETNS", &pod.path).env("CNI_IFNAME", &pod.ifname);
        self = self.env("CNI_ARGS", &pod.args);
        for (name, value) in &pod.capabilities {
            if crate::target::declares(&self.config, name) {
                self = self.capability(name, value.clone());
            }
        }
        let version = self.version_text();
        match pod.scaffold_result(&version) {
            Some(result) => self.prev(&result),
            None => self,
        }
    }

    fn version_text(&self) -> String {
        self.config.get("cniVersion").and_then(Value::as_str).unwrap_or_default().to_owned()
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, key: &str, value: impl Into<OsString>) -> Self {
        self.env.insert(key.to_owned(), value.into());
        self
    }

    /// Leaves an environment variable out.
    #[must_use]
    pub fn without_env(mut self, key: &str) -> Self {
        self.env.remove(key);
        self
    }

    /// Sets a key of the config.
    #[must_use]
    pub fn key(mut self, key: &str, value: Value) -> Self {
        self.config.insert(key.to_owned(), value);
        self
    }

    /// Leaves a key of the config out.
    #[must_use]
    pub fn without_key(mut self, key: &str) -> Self {
        self.config.remove(key);
        self
    }

    /// Merges keys into the config, objects key by key.
    #[must_use]
    pub fn merge(mut self, patch: &Object) -> Self {
        merge(&mut self.config, patch);
        self
    }

    /// Uses another spec version, in a given prevResult too.
    #[must_use]
    pub fn version(mut self, version: &str) -> Self {
        self.config.insert("cniVersion".to_owned(), json!(version));
        if let Some(prev) = self.config.remove("prevResult") {
            return self.prev(&prev);
        }
        self
    }

    /// Gives a prevResult, in the shape of the call's version.
    #[must_use]
    pub fn prev(mut self, result: &Value) -> Self {
        let shaped = super::shape::reshape(result, &self.version_text());
        self.config.insert("prevResult".to_owned(), shaped);
        self
    }

    /// Adds a capability argument.
    #[must_use]
    pub fn capability(mut self, name: &str, value: Value) -> Self {
        let entry = self.config.entry("runtimeConfig").or_insert_with(|| json!({}));
        if let Some(object) = entry.as_object_mut() {
            object.insert(name.to_owned(), value);
        }
        self
    }

    /// Replaces the whole of stdin.
    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = Some(bytes.into());
        self
    }

    /// The config as it stands.
    #[must_use]
    pub fn config(&self) -> &Object {
        &self.config
    }

    /// What the plugin will read.
    #[must_use]
    pub fn input(&self) -> Vec<u8> {
        self.stdin.clone().unwrap_or_else(|| Value::Object(self.config.clone()).to_string().into_bytes())
    }

    /// The program with its environment, for calls that need more than [`run`](Self::run).
    ///
    /// # Errors
    /// Trouble if the plugin is in none of the folders.
    pub fn command(&self) -> Verdict<Command> {
        self.wrapped(&[])
    }

    /// The same, run by another program such as strace, whose arguments end where the plugin's path goes.
    ///
    /// # Errors
    /// Trouble if the plugin is in none of the folders.
    pub fn wrapped(&self, wrapper: &[String]) -> Verdict<Command> {
        let path = self.dirs.iter().map(|dir| dir.join(&self.program)).find(|path| path.is_file());
        let Some(path) = path else {
            return Err(Finding::Trouble(format!("{} is in none of the folders", self.program)));
        };
        let mut command = match wrapper.split_first() {
            None => sandbox::command(path),
            Some((program, args)) => {
                let mut command = sandbox::command(program);
                command.args(args).arg(path);
                command
            }
        };
        command.env_clear().envs(&self.env).current_dir("/");
        Ok(command)
    }

    /// Makes the call.
    ///
    /// # Errors
    /// Failed if the plugin does not end in time, trouble if it cannot be started.
    pub fn run(&self) -> Verdict<Answer> {
        let var = |key| self.env.get(key).map(|value| value.to_string_lossy().into_owned()).unwrap_or_default();
        let key = format!("{} {}", var("CNI_CONTAINERID"), var("CNI_IFNAME"));
        let network = self.config.get("name").and_then(Value::as_str).unwrap_or_default();
        let attachment = format!("{network} {key}");
        let is_new = self.command == "ADD" && self.host.begins(&attachment)?;
        let finished = exec::run(&mut self.command()?, &self.input(), CALL_LIMIT)?;
        let answer = Answer { command: self.command.clone(), finished };
        self.host.log(&answer);
        match (self.command.as_str(), answer.succeeded()) {
            ("ADD", false) if is_new => self.host.keeps_attached(|other| other != attachment),
            // The addresses are the main plugin's, which is the last to be asked.
            ("DEL", true) if self.program == self.host.target.plugin_type(0) => {
                self.host.keeps_attached(|other| other != attachment);
            }
            ("GC", true) => {
                let valid = self.config.get("cni.dev/valid-attachments").and_then(Value::as_array);
                let text = |one: &Value, key: &str| one.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
                let name = |one| format!("{network} {} {}", text(one, "containerID"), text(one, "ifname"));
                self.host.keeps_attached(|other| valid.into_iter().flatten().any(|one| name(one) == other));
            }
            _ => {}
        }
        if self.command == "ADD" && answer.succeeded() {
            // Only a result in the newest shape can be handed on in it.
            if let Ok(result) = answer.result()
                && result.get("ips").is_some()
            {
                self.host.cache(key, result);
            }
        }
        Ok(answer)
    }
}

/// Merges objects key by key; null removes (RFC 7396).
pub fn merge(into: &mut Object, patch: &Object) {
    for (key, value) in patch {
        match (into.get_mut(key), value) {
            (_, Value::Null) => {
                into.remove(key);
            }
            (Some(Value::Object(inner)), Value::Object(patch)) => merge(inner, patch),
            _ => {
                into.insert(key.clone(), value.clone());
            }
        }
    }
}

/// What came of a call.
#[derive(Debug, Clone)]
pub struct Answer {
    /// CNI_COMMAND.
    pub command: String,
    /// Exit status and streams.
    pub finished: Finished,
}

impl Answer {
    /// Whether the exit code is 0.
    #[must_use]
    pub fn succeeded(&self) -> bool {
        self.finished.status.success()
    }

    /// stdout as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.finished.stdout).trim().to_owned()
    }

    /// The JSON documents on stdout; an error if there is anything else.
    ///
    /// # Errors
    /// Failed if stdout is not JSON.
    pub fn documents(&self) -> Verdict<Vec<Value>> {
        let stream = serde_json::Deserializer::from_slice(&self.finished.stdout).into_iter::<Value>();
        stream.collect::<Result<_, _>>().map_err(|error| {
            Finding::Failed(format!("{}: stdout is not JSON ({error}): {:?}", self.command, shorten(&self.text())))
        })
    }

    /// The one JSON document on stdout.
    ///
    /// # Errors
    /// Failed if there is none, or more than one.
    pub fn json(&self) -> Verdict<Value> {
        let mut documents = self.documents()?;
        match (documents.pop(), documents.len()) {
            (Some(document), 0) => Ok(document),
            (_, others) => Err(Finding::Failed(format!(
                "{}: stdout has {} JSON documents instead of one: {:?}",
                self.command,
                if self.text().is_empty() { 0 } else { others + 1 },
                shorten(&self.text())
            ))),
        }
    }

    /// That the call succeeded.
    ///
    /// # Errors
    /// Failed if it did not.
    pub fn success(&self) -> Verdict<&Self> {
        if self.succeeded() {
            return Ok(self);
        }
        Err(Finding::Failed(format!("{} failed with {}", self.command, self.summary())))
    }

    /// The result of a call that succeeded.
    ///
    /// # Errors
    /// Failed if the call failed, or its stdout is not one JSON object.
    pub fn result(&self) -> Verdict<Value> {
        self.success()?;
        let document = self.json()?;
        if document.is_object() {
            return Ok(document);
        }
        Err(Finding::Failed(format!("{}: the result is not an object: {document}", self.command)))
    }

    /// The error object of a call that failed.
    ///
    /// # Errors
    /// Failed if the call succeeded, or its stdout is not one JSON object.
    pub fn error(&self) -> Verdict<Value> {
        self.failure()?;
        let document = self.json()?;
        if document.is_object() {
            return Ok(document);
        }
        Err(Finding::Failed(format!("{}: the error is not an object: {document}", self.command)))
    }

    /// That the call failed by its own exit code.
    ///
    /// # Errors
    /// Failed if it succeeded, or was ended by a signal.
    pub fn failure(&self) -> Verdict<&Self> {
        match self.finished.status.code() {
            Some(0) => Err(Finding::Failed(format!(
                "{} succeeded where an error was due; stdout: {:?}",
                self.command,
                shorten(&self.text())
            ))),
            Some(_) => Ok(self),
            None => Err(Finding::Failed(format!("{} was ended by {}", self.command, self.finished.ending()))),
        }
    }

    /// `code` and text of the error object.
    ///
    /// # Errors
    /// As [`error`](Self::error), or if `code` is not a number.
    pub fn code(&self) -> Verdict<(u64, String)> {
        let error = self.error()?;
        let code = error.get("code").and_then(Value::as_u64);
        let text = format!(
            "{} {}",
            error.get("msg").and_then(Value::as_str).unwrap_or_default(),
            error.get("details").and_then(Value::as_str).unwrap_or_default()
        );
        match code {
            Some(code) => Ok((code, text)),
            None => Err(Finding::Failed(format!("the error has no numeric code: {error}"))),
        }
    }

    /// Ending and output in one line.
    #[must_use]
    pub fn summary(&self) -> String {
        let stderr = String::from_utf8_lossy(&self.finished.stderr);
        let stderr = if stderr.trim().is_empty() { String::new() } else { format!("; stderr: {}", stderr.trim()) };
        format!("{}: {}{}", self.finished.ending(), shorten(&self.text()), shorten(&stderr))
    }
}

/// Long outputs are cut, so that tables stay readable, and control characters shown, so that a plugin cannot command a terminal.
#[must_use]
pub fn shorten(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let shown = |character: char| {
        if character.is_control() { character.escape_default().to_string() } else { character.to_string() }
    };
    let line: String = line.chars().map(shown).collect();
    match line.char_indices().nth(300) {
        Some((end, _)) => format!("{}...", line.get(..end).unwrap_or_default()),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plugin_does_not_command_the_terminal() {
        assert_eq!(shorten("\u{1b}[31mred\u{1b}[0m\n and  more \u{7}"), r"\u{1b}[31mred\u{1b}[0m and more \u{7}");
    }
}
