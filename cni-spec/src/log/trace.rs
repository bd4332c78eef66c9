//! The trace that a call is a part of: `TRACEPARENT`, as W3C Trace Context has it for processes.
//!
//! Source: <https://www.w3.org/TR/trace-context/>, section 3.2, and OpenTelemetry's environment variables for it.

use std::hash::{BuildHasher, Hasher, RandomState};

use crate::Environment;

/// The variable's name.
const TRACEPARENT: &str = "TRACEPARENT";

/// This call's place in a trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceContext {
    trace_id: String,
    parent: String,
    span_id: String,
    flags: String,
}

impl TraceContext {
    /// The context that the caller handed over; a malformed one counts for nothing, as the standard says.
    #[must_use]
    pub fn of(environment: &Environment) -> Option<Self> {
        let text = environment.get(TRACEPARENT)?.to_str()?;
        let mut parts = text.splitn(5, '-');
        let [version, trace_id, parent, flags] = [parts.next()?, parts.next()?, parts.next()?, parts.next()?];
        // A later version may have more parts; this one has none.
        let is_known = version != "ff" && (version != "00" || parts.next().is_none());
        let is_valid = is_hex(version, 2) && is_hex(trace_id, 32) && is_hex(parent, 16) && is_hex(flags, 2);
        let is_set = |id: &str| id.bytes().any(|digit| digit != b'0');
        (is_known && is_valid && is_set(trace_id) && is_set(parent)).then(|| Self {
            trace_id: trace_id.to_owned(),
            parent: parent.to_owned(),
            // Seeded by the kernel for each value.
            span_id: format!("{:016x}", RandomState::new().build_hasher().finish().max(1)),
            flags: flags.to_owned(),
        })
    }

    /// 32 hexadecimal digits.
    #[must_use]
    pub fn trace_id(&self) -> &str {
        &self.trace_id
    }

    /// This call's own, 16 hexadecimal digits.
    #[must_use]
    pub fn span_id(&self) -> &str {
        &self.span_id
    }

    /// The caller's.
    #[must_use]
    pub fn parent_span_id(&self) -> &str {
        &self.parent
    }

    /// The environment for delegates, whose parent this call is.
    #[must_use]
    pub fn hand_on(&self, environment: Environment) -> Environment {
        let Self { trace_id, span_id, flags, .. } = self;
        environment.with(TRACEPARENT, format!("00-{trace_id}-{span_id}-{flags}"))
    }
}

fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Option<TraceContext> {
        TraceContext::of(&Environment::from_iter([(TRACEPARENT, text)]))
    }

    #[test]
    fn a_context_is_taken_over_and_handed_on() {
        let trace = of("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").expect("the standard's example");
        assert_eq!(trace.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(trace.parent_span_id(), "00f067aa0ba902b7");
        let handed_on = TraceContext::of(&trace.hand_on(Environment::default())).expect("valid");
        assert_eq!((handed_on.trace_id(), handed_on.parent_span_id()), (trace.trace_id(), trace.span_id()));
        assert!(of("01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more").is_some(), "a later version");
    }

    #[test]
    fn a_malformed_context_counts_for_nothing() {
        for text in [
            "",
            "00",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        ] {
            assert_eq!(of(text), None, "{text:?}");
        }
    }
}
