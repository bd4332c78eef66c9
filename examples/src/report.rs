//! The demo in words: what is printed as it goes, and the same as one JSON document.

use std::io::{self, Write};
use std::time::Duration;

use serde::Serialize;

use crate::demo::{Attached, Detached};
use crate::leases::Leases;
use crate::proof::Outcome;
use crate::residue::Residue;
use crate::runtime::Call;
use crate::stage::layout;

/// The longest id of the shipped pods, so that sections stand below each other.
const ID_WIDTH: usize = "localhost-hostport-tcp4".len();

/// Where lists are broken, in columns.
const LINE: usize = 110;

/// All that happened.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The network's name.
    pub network: String,
    /// The spec version.
    pub cni_version: String,
    /// The plugins in the order of ADD.
    pub chain: Vec<String>,
    /// The pods in the order of their attachment.
    pub pods: Vec<PodReport>,
    /// Every line that can pass or fail.
    pub outcomes: Vec<Outcome>,
    /// The leases while the pods were there.
    pub leases: Option<Leases>,
    /// What was left after the last DEL.
    pub residue: Option<Residue>,
}

/// One pod.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PodReport {
    /// Its name.
    pub name: String,
    /// `CNI_CONTAINERID`.
    pub container_id: String,
    /// `CNI_NETNS`.
    pub netns: String,
    /// Its addresses.
    pub addresses: Vec<String>,
    /// Its ports, `8086 -> 8086/tcp`.
    pub ports: Vec<String>,
    /// The plugins that ADD ran.
    pub add: Vec<CallReport>,
}

/// One run of one plugin.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CallReport {
    /// `type`.
    pub plugin: String,
    /// From start to end of its process, in microseconds.
    pub micros: u64,
}

impl PodReport {
    /// What there is to say about an attached pod.
    #[must_use]
    pub fn of(attached: &Attached) -> Self {
        Self {
            name: attached.pod.name.clone(),
            container_id: attached.container.id.to_string(),
            netns: attached.container.netns.display().to_string(),
            addresses: attached.machine.addresses.iter().map(ToString::to_string).collect(),
            ports: attached.pod.ports.iter().map(ToString::to_string).collect(),
            add: attached.calls.iter().map(CallReport::of).collect(),
        }
    }
}

impl CallReport {
    fn of(call: &Call) -> Self {
        Self { plugin: call.plugin.clone(), micros: u64::try_from(call.took.as_micros()).unwrap_or(u64::MAX) }
    }
}

impl Report {
    /// The lines that failed.
    pub fn failed(&self) -> impl Iterator<Item = &Outcome> {
        self.outcomes.iter().filter(|outcome| !outcome.passed)
    }

    /// What is played, before anything happens.
    ///
    /// # Errors
    /// If `out` takes no more.
    pub fn opening(&self, out: &mut dyn Write, pods: usize, nodes: usize) -> io::Result<()> {
        let nodes = if nodes == 1 { "one node".to_owned() } else { format!("{nodes} nodes") };
        writeln!(out, "podwire-demo: {pods} pods on {nodes}, network {}, CNI {}", self.network, self.cni_version)?;
        writeln!(out, "chain: {}", self.chain.join(" > "))?;
        writeln!(
            out,
            "All of it is in namespaces of process {}; the machine itself is not touched.",
            std::process::id()
        )
    }

    /// The stage with the pods on it, and how long each ADD took.
    ///
    /// # Errors
    /// If `out` takes no more.
    pub fn picture(&self, out: &mut dyn Write) -> io::Result<()> {
        let bare = |of: &[&str]| layout::addresses(of).iter().map(ToString::to_string).collect::<Vec<_>>().join("  ");
        writeln!(out, "\n   outside   {}", bare(&layout::OUTSIDE))?;
        writeln!(out, "      |")?;
        writeln!(out, "   router    {}   has no route to pods", bare(&layout::ROUTER))?;
        writeln!(out, "      |")?;
        writeln!(out, "      +----- client   {}", bare(&layout::CLIENT))?;
        writeln!(out, "      |")?;
        writeln!(out, "   node      {}", bare(&layout::NODE))?;
        let rows: Vec<[String; 3]> = self.pods.iter().map(pod_row).collect();
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        for [name, addresses, ports] in &rows {
            let line = format!("      +-- {name:0$}   {addresses:1$}   {ports}", width(0), width(1));
            writeln!(out, "{}", line.trim_end())?;
        }
        writeln!(out, "\nattach")?;
        for pod in &self.pods {
            writeln!(out, "  {:1$}   ADD {2}", pod.name, width(0), timing(&pod.add))?;
        }
        Ok(())
    }

    /// A section of lines that can pass or fail.
    ///
    /// # Errors
    /// If `out` takes no more.
    pub fn section(&self, out: &mut dyn Write, title: &str, outcomes: &[Outcome]) -> io::Result<()> {
        if outcomes.is_empty() {
            return Ok(());
        }
        writeln!(out, "\n{title}")?;
        let width = |of: fn(&Outcome) -> &str| outcomes.iter().map(|outcome| of(outcome).chars().count()).max();
        let id = width(|outcome| &outcome.id).unwrap_or(0).max(ID_WIDTH);
        let sent = width(|outcome| &outcome.sent).unwrap_or(0);
        for outcome in outcomes {
            let verdict = if outcome.passed { "  ok    " } else { "  FAILED" };
            writeln!(out, "{verdict} {:id$}   {:sent$}   {}", outcome.id, outcome.sent, outcome.came_back)?;
            if !outcome.passed && !outcome.needs.is_empty() {
                writeln!(out, "         {:id$}   needs: {}", "", outcome.needs.join(", "))?;
            }
        }
        Ok(())
    }

    /// Lines of another program, or of a file, as they are.
    ///
    /// # Errors
    /// If `out` takes no more.
    pub fn quote(&self, out: &mut dyn Write, lines: &[String]) -> io::Result<()> {
        lines.iter().try_for_each(|line| writeln!(out, "         {line}"))
    }

    /// How long DEL took.
    ///
    /// # Errors
    /// If `out` takes no more.
    pub fn departures(&self, out: &mut dyn Write, detached: &[Detached]) -> io::Result<()> {
        writeln!(out, "\ndetach")?;
        let name = detached.iter().map(|pod| pod.pod.chars().count()).max().unwrap_or(0);
        for pod in detached {
            let calls: Vec<CallReport> = pod.calls.iter().map(CallReport::of).collect();
            writeln!(out, "  {:name$}   DEL {}", pod.pod, timing(&calls))?;
        }
        Ok(())
    }

    /// What was left, and by whom.
    ///
    /// # Errors
    /// If `out` takes no more.
    pub fn remains(&self, out: &mut dyn Write, residue: &Residue) -> io::Result<()> {
        for line in &residue.left {
            writeln!(out, "           {line}")?;
        }
        for known in &residue.known {
            writeln!(out, "         {}:", known.by)?;
            for line in wrapped(&objects(&known.lines)) {
                writeln!(out, "           {line}")?;
            }
        }
        Ok(())
    }

    /// The last line.
    ///
    /// # Errors
    /// If `out` takes no more.
    pub fn verdict(&self, out: &mut dyn Write) -> io::Result<()> {
        let failed: Vec<&str> = self.failed().map(|outcome| outcome.id.as_str()).collect();
        match failed.as_slice() {
            [] => writeln!(out, "\nAll {} lines ok.", self.outcomes.len()),
            _ => writeln!(out, "\n{} of {} lines FAILED: {}", failed.len(), self.outcomes.len(), failed.join(", ")),
        }
    }
}

fn pod_row(pod: &PodReport) -> [String; 3] {
    [pod.name.clone(), pod.addresses.join("  "), pod.ports.join(", ")]
}

/// `6.1 ms: podwire 4.9, podwire-portmap 1.2`.
fn timing(calls: &[CallReport]) -> String {
    let ms = |micros: u64| Duration::from_micros(micros).as_secs_f64() * 1000.0;
    let each: Vec<String> = calls.iter().map(|call| format!("{} {:.1}", call.plugin, ms(call.micros))).collect();
    format!("{:.1} ms: {}", ms(calls.iter().map(|call| call.micros).sum()), each.join(", "))
}

/// New objects by name: a chain instead of its rules, a setting instead of its value.
fn objects(lines: &[String]) -> Vec<String> {
    let name = |line: &str| {
        let end = if line.starts_with("nft ") { ": " } else { " = " };
        line.split_once(end).map_or(line, |(name, _)| name).to_owned()
    };
    let mut objects: Vec<String> = lines.iter().filter_map(|line| line.strip_prefix("+ ")).map(name).collect();
    objects.dedup();
    objects
}

fn wrapped(words: &[String]) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for (index, word) in words.iter().enumerate() {
        let word = if index + 1 == words.len() { word.clone() } else { format!("{word},") };
        match lines.last_mut() {
            Some(line) if line.len() + word.len() < LINE => {
                line.push(' ');
                line.push_str(&word);
            }
            _ => lines.push(word),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::residue::Known;

    fn printed(print: impl Fn(&mut Vec<u8>) -> io::Result<()>) -> String {
        let mut out = Vec::new();
        print(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn outcome(id: &str, passed: bool, sent: &str, came_back: &str) -> Outcome {
        let [id, sent, came_back] = [id, sent, came_back].map(str::to_owned);
        Outcome { id, passed, sent, came_back, needs: vec!["host route to b IPv4".to_owned()] }
    }

    #[test]
    fn a_line_that_fails_tells_what_it_stands_on() {
        let outcomes = [
            outcome("pod-pod-tcp4", true, "a 10.0.0.1 -> b 10.0.0.2:80", "b saw 10.0.0.1"),
            outcome("node-pod-tcp4", false, "node 10.1.0.1 -> b 10.0.0.2:80", "nothing within 3 s"),
        ];
        let report = Report { outcomes: outcomes.to_vec(), ..Report::default() };
        assert_eq!(
            printed(|out| report.section(out, "IPv4", &outcomes).and_then(|()| report.verdict(out))),
            "
IPv4
  ok     pod-pod-tcp4              a 10.0.0.1 -> b 10.0.0.2:80      b saw 10.0.0.1
  FAILED node-pod-tcp4             node 10.1.0.1 -> b 10.0.0.2:80   nothing within 3 s
                                   needs: host route to b IPv4

1 of 2 lines FAILED: node-pod-tcp4
"
        );
    }

    #[test]
    fn what_is_known_to_be_left_is_told_by_name() {
        let lines = [
            "+ nft table ip x chain y",
            "+ nft table ip x chain y: drop",
            "+ sysctl a = 1",
            "- sysctl a = 0",
            "+ route fd50:: dev a",
        ];
        let known = vec![Known { by: "left by z", lines: lines.map(str::to_owned).to_vec() }];
        let residue = Residue { compared: 9, left: vec!["+ link q".to_owned()], known };
        assert_eq!(
            printed(|out| Report::default().remains(out, &residue)),
            "           + link q
         left by z:
           nft table ip x chain y, sysctl a, route fd50:: dev a
"
        );
        let words = ["a".repeat(60), "b".repeat(60), "c".to_owned()];
        assert_eq!(wrapped(&words), [format!("{},", "a".repeat(60)), format!("{}, c", "b".repeat(60))]);
    }
}
