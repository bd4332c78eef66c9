//! `ipam watch`.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use schemars::JsonSchema;
use serde::Serialize;

use super::contract::Lease;
use super::exit::{Exit, Stop};
use super::format::{Format, plain};
use super::list::short;
use super::palette;
use super::select::Filter;
use super::terminal::Terminal;
use super::time::{moment, parse_length};
use crate::Ledger;
use crate::event::Event;
use crate::history::{self, Line};

pub(super) const EXAMPLES: &str = "\
Examples:
  ipam watch
  ipam watch --network k8s --namespace shop
  ipam watch -o jsonl | jq -r '[.at, .event, .lease.addresses[0].address] | @tsv'
  ipam watch --for 10m";

/// How often to look for new lines.
const PAUSE: Duration = Duration::from_millis(200);

/// Prints what happens to leases, as it happens.
#[derive(Debug, clap::Args)]
pub(super) struct Watch {
    #[command(flatten)]
    filter: Filter,
    /// Ends after so long. Otherwise it goes on until it is interrupted.
    #[arg(long = "for", value_name = "DURATION", value_parser = parse_length)]
    period: Option<SignedDuration>,
    /// Begins with what happened before, as far as the present file of the history goes back.
    #[arg(long)]
    all: bool,
    /// How to print: table or jsonl.
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t)]
    output: Format,
}

/// Something that happened to a lease.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Happened {
    at: Timestamp,
    /// `leased`, `recovered`, `imported`, `released`, `undone`, `replaced`, `collected`, `reclaimed` or `voided`.
    event: String,
    lease: Lease,
    /// Who asked, and what for.
    by: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl Watch {
    pub fn run(&self, ledger: &Ledger, terminal: &mut Terminal<'_>) -> Result<Exit, Stop> {
        if !matches!(self.output, Format::Table | Format::Jsonl | Format::Json) {
            return Err(Stop::new(Exit::Usage, "watch prints as table or jsonl"));
        }
        let started = Instant::now();
        let limit = self.period.and_then(|period| Duration::try_from(period).ok());
        let mut follower = Follower::new(history::file(ledger.state_dir()), self.all);
        loop {
            // What is written up to the end is printed, whenever the end is.
            let is_over = limit.is_some_and(|limit| started.elapsed() >= limit);
            for line in follower.new_lines().map_err(Stop::file("read", &follower.path))? {
                self.tell(&line, terminal)?;
            }
            terminal.out.flush().map_err(Stop::from_printing)?;
            if is_over {
                return Ok(Exit::Done);
            }
            thread::sleep(PAUSE);
        }
    }

    fn tell(&self, line: &str, terminal: &mut Terminal<'_>) -> Result<(), Stop> {
        let event = match serde_json::from_str(line) {
            Ok(Line::Event(event)) => event,
            Ok(Line::Deed(_)) => return Ok(()),
            Err(_) => {
                return terminal
                    .note(&format!("note: left out a line of the history that cannot be understood: {}", plain(line)));
            }
        };
        if !self.filter.takes(&event.lease) {
            return Ok(());
        }
        let happened = Happened {
            at: event.at,
            event: kind(&event),
            lease: (&event.lease).into(),
            by: event.by.purpose.clone(),
            reason: event.by.reason.clone(),
        };
        if self.output == Format::Table {
            return terminal.print(&row(&event, &happened, terminal.colour));
        }
        let text = serde_json::to_string(&happened);
        let text = text.map_err(|error| Stop::new(Exit::Failed, format!("cannot print: {error}")))?;
        terminal.print(&format!("{text}\n"))
    }
}

/// Fixed widths: what is to come is not known.
fn row(event: &Event, happened: &Happened, colour: bool) -> String {
    let addresses: Vec<String> = event.lease.ips().map(|ip| ip.to_string()).collect();
    let style = match (colour, event.event.begins()) {
        (true, true) => palette::ACTIVE,
        (true, false) => palette::COOLING,
        (false, _) => anstyle::Style::new(),
    };
    let pod = event.lease.pod.to_string();
    let pod = if pod.is_empty() { "-".to_owned() } else { plain(&pod) };
    let attachment = &event.lease.attachment;
    let container = short(attachment.container_id.as_str());
    format!(
        "{}  {style}{:<9}{style:#}  {:<32}  {:<24}  {container:<12}  {}\n",
        moment(happened.at),
        happened.event,
        addresses.join(","),
        pod,
        attachment.network
    )
}

fn kind(event: &Event) -> String {
    let word = serde_json::to_value(event.event).ok();
    word.and_then(|word| word.as_str().map(str::to_owned)).unwrap_or_default()
}

/// Reads a file on, also after another has taken its place.
struct Follower {
    path: PathBuf,
    open: Option<(File, u64)>,
    /// The beginning of a line whose end is not there yet.
    rest: String,
}

impl Follower {
    fn new(path: PathBuf, from_the_beginning: bool) -> Self {
        let mut follower = Self { open: open(&path), path, rest: String::new() };
        if let Some((file, _)) = follower.open.as_mut().filter(|_| !from_the_beginning) {
            // If this fails, it is read from the beginning.
            let _ = file.seek(SeekFrom::End(0));
        }
        follower
    }

    fn new_lines(&mut self) -> std::io::Result<Vec<String>> {
        let mut bytes = Vec::new();
        if let Some((file, inode)) = &mut self.open {
            file.read_to_end(&mut bytes)?;
            let is_there = fs::metadata(&self.path).is_ok_and(|there| there.ino() == *inode);
            if !is_there && let Some(mut next) = open(&self.path) {
                // Whoever had the old one open may have written to it until now.
                file.read_to_end(&mut bytes)?;
                next.0.read_to_end(&mut bytes)?;
                self.open = Some(next);
            }
        } else if let Some(mut first) = open(&self.path) {
            first.0.read_to_end(&mut bytes)?;
            self.open = Some(first);
        }
        let text = format!("{}{}", self.rest, String::from_utf8_lossy(&bytes));
        let (whole, rest) = text.rsplit_once('\n').unwrap_or(("", text.as_str()));
        let lines = whole.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect();
        self.rest = rest.to_owned();
        Ok(lines)
    }
}

fn open(path: &Path) -> Option<(File, u64)> {
    let file = File::open(path).ok()?;
    let inode = file.metadata().ok()?.ino();
    Some((file, inode))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_follower_reads_whole_lines_and_follows_to_the_next_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut follower = Follower::new(path.clone(), false);
        assert!(follower.new_lines().unwrap().is_empty());
        let mut file = File::create(&path).unwrap();
        file.write_all(b"one\ntw").unwrap();
        assert_eq!(follower.new_lines().unwrap(), ["one"]);
        file.write_all(b"o\n").unwrap();
        fs::rename(&path, dir.path().join("log.1")).unwrap();
        fs::write(&path, "three\n").unwrap();
        file.write_all(b"two and a half\n").unwrap();
        assert_eq!(follower.new_lines().unwrap(), ["two", "two and a half", "three"]);
    }
}
