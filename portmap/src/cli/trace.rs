//! `podwire-portmap trace`.

use serde_json::{Value, json};

use super::exit::{Exit, Stop};
use super::{PlainFormat, Terminal};
use crate::trace::{self, Question, Step};

pub(super) const EXAMPLES: &str = "\
Examples:
  podwire-portmap trace 192.168.50.1:8080
  podwire-portmap trace [fd50::1]:53/udp
  podwire-portmap trace 127.0.0.1:8080 -o json

Nothing is sent; what is looked at are addresses, rules, routes, links, and the pod's own namespace.";

/// Follows a packet.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// ADDRESS:PORT on this node, and /PROTOCOL if it is not TCP.
    #[arg(value_name = "ADDRESS:PORT[/PROTOCOL]")]
    to: Question,
    /// How to print.
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t = PlainFormat::Table)]
    output: PlainFormat,
}

impl Arguments {
    pub fn run(&self, terminal: &mut Terminal<'_>) -> Result<Exit, Stop> {
        let trace = trace::trace(&self.to)?;
        let stopped = trace.stopped();
        let exit = if stopped.is_some() { Exit::Stopped } else { Exit::Done };
        if self.output == PlainFormat::Json {
            let steps: Vec<Value> = trace.steps.iter().map(step).collect();
            let document = json!({
                "apiVersion": "portmap.podwire/v1", "kind": "Trace", "to": self.to.to_string(),
                "reaches": stopped.is_none(), "steps": steps,
            });
            writeln!(terminal.out, "{document:#}")?;
            return Ok(exit);
        }
        writeln!(terminal.out, "{}", self.to)?;
        for Step { name, verdict, seen, next } in &trace.steps {
            writeln!(terminal.out, "  {:<5} {name:<12} {seen}", verdict.word())?;
            if let Some(next) = next {
                writeln!(terminal.out, "        {:<12} -> {next}", "")?;
            }
        }
        match stopped {
            None if trace.has_notes() => {
                writeln!(terminal.out, "Nothing that was looked at keeps packets from the pod; see the notes.")?;
            }
            None => writeln!(terminal.out, "Packets get through to the pod.")?,
            Some(step) => writeln!(terminal.out, "Packets do not get through: {}.", step.seen)?,
        }
        Ok(exit)
    }
}

fn step(step: &Step) -> Value {
    let Step { name, verdict, seen, next } = step;
    json!({ "name": name, "verdict": verdict.word().to_lowercase(), "seen": seen, "next": next })
}
