//! The log of a plugin: one record for each call, with the attachment it was about, how long it took and how it ended,
//! and at level `debug` one for each of its steps. To a file or the journal, never to standard output.
//!
//! Where to is said by [`Settings`]. A log that cannot be written never keeps a call from being served.

mod settings;
mod trace;

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde_json::Value;
use tracing::{Span, debug, error, error_span, info};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::Registry;

use crate::{CniError, Environment};
pub use settings::{Level, Settings, Target};
pub use trace::TraceContext;

/// The journal's socket (`systemd-journald.service(8)`).
const JOURNAL: &str = "/run/systemd/journal/socket";

/// One call of a plugin while it is served.
pub(crate) struct Call {
    span: Span,
    start: Instant,
}

impl Call {
    /// Opens the log, once in a process, and begins to take the time.
    pub(crate) fn begin(settings: &Settings, facts: &Facts, journal: bool, stderr: &mut dyn Write) -> Self {
        if let Err(error) = settings.open(journal) {
            // The remark is for people; the call goes on.
            let _ = writeln!(stderr, "cannot log to {}: {error}", settings.target);
        }
        let span = error_span!(
            "call",
            plugin = facts.plugin,
            verb = facts.verb,
            network = facts.network,
            container_id = facts.container_id,
            ifname = facts.ifname,
            pod = facts.pod,
            trace_id = facts.trace.as_ref().map(TraceContext::trace_id),
            span_id = facts.trace.as_ref().map(TraceContext::span_id),
            parent_span_id = facts.trace.as_ref().map(TraceContext::parent_span_id),
        );
        Self { span, start: Instant::now() }
    }

    /// Serves the call.
    pub(crate) fn serve<T>(&self, work: impl FnOnce() -> T) -> T {
        self.span.in_scope(work)
    }

    /// Writes down how it ended.
    pub(crate) fn end<T>(self, answer: &Result<T, CniError>) {
        let duration_us = micros(self.start.elapsed());
        self.span.in_scope(|| match answer {
            Ok(_) => info!(duration_us, "done"),
            Err(failure) => {
                let (code, msg, details) = (failure.code.number(), failure.msg.as_str(), failure.details.as_str());
                error!(duration_us, code, msg, details, "failed");
            }
        });
    }
}

/// What is known about a call before its request is checked.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    plugin: Option<String>,
    verb: String,
    network: Option<String>,
    container_id: Option<String>,
    ifname: Option<String>,
    pod: Option<String>,
    trace: Option<TraceContext>,
}

impl Facts {
    pub(crate) fn of(verb: &str, environment: &Environment, config: &Value) -> Self {
        let variable = |name: &str| environment.get(name).map(|value| value.to_string_lossy().into_owned());
        let key = |name: &str| config.get(name).and_then(Value::as_str).map(str::to_owned);
        Self {
            plugin: key("type"),
            verb: verb.to_owned(),
            network: key("name"),
            container_id: variable("CNI_CONTAINERID"),
            ifname: variable("CNI_IFNAME"),
            pod: variable("CNI_ARGS").and_then(|args| pod(&args)),
            trace: TraceContext::of(environment),
        }
    }

    /// The environment that delegates inherit.
    pub(crate) fn hand_on(&self, environment: Environment) -> Environment {
        match &self.trace {
            Some(trace) => trace.hand_on(environment),
            None => environment,
        }
    }
}

/// `NAMESPACE/NAME`, as the kubelet's runtimes say it in `CNI_ARGS`.
fn pod(args: &str) -> Option<String> {
    let value = |key: &str| args.split(';').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='));
    Some(format!("{}/{}", value("K8S_POD_NAMESPACE")?, value("K8S_POD_NAME")?))
}

/// Does a part of a call, and writes down how long it took if the log has level `debug`.
pub fn step<T>(step: &'static str, work: impl FnOnce() -> T) -> T {
    if !tracing::enabled!(tracing::Level::DEBUG) {
        return work();
    }
    let start = Instant::now();
    let result = work();
    debug!(step, duration_us = micros(start.elapsed()), "step");
    result
}

/// The same work for a thread of its own, which belongs to this call.
pub fn in_this_call<T>(work: impl FnOnce() -> T) -> impl FnOnce() -> T {
    let span = Span::current();
    move || span.in_scope(work)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

impl Settings {
    fn open(&self, journal: bool) -> io::Result<()> {
        let Some(level) = self.level.filter() else { return Ok(()) };
        let layer = match &self.target {
            Target::File(path) => {
                // Each record is one write at the end of the file, so those of many processes do not mix.
                let file = OpenOptions::new().append(true).create(true).mode(0o640).open(path)?;
                let layer = tracing_subscriber::fmt::layer().json().flatten_event(true).with_span_list(false);
                layer.with_target(false).with_writer(Mutex::new(file)).boxed()
            }
            Target::Journal if journal && Path::new(JOURNAL).exists() => {
                tracing_journald::layer()?.with_field_prefix(Some("CNI".to_owned())).boxed()
            }
            Target::Journal => return Ok(()),
        };
        let log = Registry::default().with(layer.with_filter(level));
        // A second call in one process, as in tests, goes to where the first went.
        let _ = tracing::subscriber::set_global_default(log);
        Ok(())
    }
}
