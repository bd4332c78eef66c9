//! `cargo xtask bench ipam`: whole processes, as a runtime starts them, from start to end.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::pairs::{Pairs, quantile, table};
use crate::error::Error;
use crate::program::command;
use crate::{build, packages, say};

/// Shown below `--help`.
pub const EXAMPLES: &str = "Examples:
  cargo xtask bench ipam               40 rounds, at 0, 250 and 10,000 leases
  cargo xtask bench ipam --rounds 50   the same, for steadier figures
  cargo xtask bench ipam --plugin-dir target/x86_64-unknown-linux-gnu/release";

/// How to measure.
#[derive(clap::Args)]
pub struct Options {
    /// How often each operation is measured.
    #[arg(long, default_value_t = 40)]
    rounds: usize,
    /// How many leases there are already; several numbers with commas between them.
    #[arg(long, value_name = "NUMBERS", value_delimiter = ',', default_value = "0,250,10000")]
    leases: Vec<usize>,
    /// How many ADDs come at once, at the largest number of leases.
    #[arg(long, value_name = "NUMBER", default_value_t = 100)]
    burst: usize,
    /// Folder with podwire-ipam and ipam; they are built if it is not given.
    #[arg(long, value_name = "DIR")]
    plugin_dir: Option<PathBuf>,
}

/// Builds, leaves the machine's namespaces, measures and prints.
pub fn run(options: &Options) -> Result<(), Error> {
    packages::ensure(packages::TEST)?;
    let folder = match &options.plugin_dir {
        Some(folder) => folder.clone(),
        None => build::executables()?,
    };
    sandbox::enter().map_err(Error::Sandbox)?;
    say("whole processes from start to end, in turns; /run and /var/lib on tmpfs for both");
    let reference = Candidate::new(Path::new("/usr/lib/cni/host-local"), "host-local");
    let ours = Candidate::new(&folder.join("podwire-ipam"), "podwire-ipam");
    // They can only become more.
    let sizes: BTreeSet<usize> = options.leases.iter().copied().collect();
    let largest = sizes.last().copied().unwrap_or_default();
    let bursts = Burst { size: options.burst, present: largest, rounds: options.rounds.div_ceil(8) };
    let mut ways = [Vec::new(), Vec::new()];
    let mut statuses = [Vec::new(), Vec::new()];
    for &present in &sizes {
        reference.fill_like_host_local(present)?;
        let owner = Owner::start(&folder)?;
        ours.fill(present)?;
        ways[1].extend(one_by_one(&reference, &ours, present, options.rounds)?);
        statuses[1].push(ours.status(options.rounds)?);
        if present == largest {
            ways[1].push(bursts.measure(&reference, &ours)?);
        }
        drop(owner);
        ways[0].extend(one_by_one(&reference, &ours, present, options.rounds)?);
        statuses[0].push(ours.status(options.rounds)?);
    }
    ways[0].push(bursts.measure(&reference, &ours)?);
    for ((way, rows), statuses) in ["direct", "resident"].iter().zip(&ways).zip(&statuses) {
        say(&format!("\n{}", table("host-local", &format!("podwire-ipam, {way}"), rows)));
        let at = sizes.iter().zip(statuses).map(|(present, median)| format!("{median:.2} ms at {present} leases"));
        say(&format!("STATUS, {way}, which host-local does not have: {}", at.collect::<Vec<_>>().join(", ")));
    }
    Ok(())
}

/// The ledger's resident owner; killed when it is dropped.
struct Owner(Child);

impl Owner {
    /// Returns when it serves.
    fn start(folder: &Path) -> Result<Self, Error> {
        let mut process = command(folder.join("ipam"));
        process.arg("serve").stderr(Stdio::piped());
        let failed = |source| Error::Start { program: "ipam serve".to_owned(), source };
        let mut child = process.spawn().map_err(failed)?;
        let mut line = String::new();
        if let Some(stderr) = child.stderr.as_mut() {
            BufReader::new(stderr).read_line(&mut line).map_err(failed)?;
        }
        Ok(Self(child))
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An IPAM plugin with a network of its own.
struct Candidate {
    program: PathBuf,
    conf: Value,
}

impl Candidate {
    fn new(program: &Path, plugin_type: &str) -> Self {
        let conf = json!({ "cniVersion": "1.0.0", "name": "bench", "type": "bridge", "ipam": {
            "type": plugin_type, "ranges": [[{ "subnet": "10.0.0.0/16" }]],
        } });
        Self { program: program.to_owned(), conf }
    }

    fn start(&self, verb: &str, container: &str) -> Result<Child, Error> {
        let mut process = command(&self.program);
        process.envs([
            ("CNI_COMMAND", verb),
            ("CNI_CONTAINERID", container),
            ("CNI_IFNAME", "eth0"),
            ("CNI_NETNS", "/proc/self/ns/net"),
            ("CNI_PATH", "/opt/cni/bin"),
        ]);
        process.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let start = |source| Error::Start { program: self.program.display().to_string(), source };
        let mut child = process.spawn().map_err(start)?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(self.conf.to_string().as_bytes()).map_err(start)?;
        }
        Ok(child)
    }

    fn end(&self, verb: &str, child: Child) -> Result<(), Error> {
        let program = self.program.display().to_string();
        let output = child.wait_with_output().map_err(|source| Error::Start { program: program.clone(), source })?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        Err(Error::Failed { command: format!("{program} {verb}: {said}"), status: output.status })
    }

    fn timed(&self, verb: &str, container: &str) -> Result<Duration, Error> {
        let start = Instant::now();
        self.end(verb, self.start(verb, container)?)?;
        Ok(start.elapsed())
    }

    /// The median of so many STATUS, in milliseconds.
    fn status(&self, rounds: usize) -> Result<f64, Error> {
        let mut asked = Self::new(&self.program, "podwire-ipam");
        asked.conf["cniVersion"] = "1.1.0".into();
        let times: Vec<f64> =
            (0..rounds).map(|_| Ok(asked.timed("STATUS", "")?.as_secs_f64() * 1000.0)).collect::<Result<_, Error>>()?;
        Ok(quantile(&times, 0.5))
    }

    /// Leases until there are so many, a few at a time.
    fn fill(&self, present: usize) -> Result<(), Error> {
        let numbers: Vec<usize> = (0..present).collect();
        for some in numbers.chunks(16) {
            let children: Vec<Child> =
                some.iter().map(|number| self.start("ADD", &format!("present{number}"))).collect::<Result<_, _>>()?;
            children.into_iter().try_for_each(|child| self.end("ADD", child))?;
        }
        Ok(())
    }

    /// As host-local would have done it, only faster: a file for each address, and the last one given.
    fn fill_like_host_local(&self, present: usize) -> Result<(), Error> {
        let folder = Path::new("/var/lib/cni/networks/bench");
        let failed = |source| Error::File { action: "write", path: folder.to_owned(), source };
        fs::create_dir_all(folder).map_err(failed)?;
        for number in 0..present {
            let address = format!("10.0.{}.{}", (number + 2) / 256, (number + 2) % 256);
            fs::write(folder.join(&address), format!("present{number}\r\neth0")).map_err(failed)?;
            fs::write(folder.join("last_reserved_ip.0"), address).map_err(failed)?;
        }
        Ok(())
    }
}

fn one_by_one(reference: &Candidate, ours: &Candidate, present: usize, rounds: usize) -> Result<[Pairs; 2], Error> {
    let at = if present == 0 { "one lease".to_owned() } else { format!("at {present} leases") };
    let (mut add, mut del) = (Pairs::of(format!("ADD, {at}")), Pairs::of(format!("DEL, {at}")));
    for round in 0..rounds {
        let container = format!("round{round}");
        let both = |verb: &str| in_turns(round, || reference.timed(verb, &container), || ours.timed(verb, &container));
        let (base, own) = both("ADD")?;
        add.push(base, own);
        let (base, own) = both("DEL")?;
        del.push(base, own);
    }
    Ok([add, del])
}

/// Who begins has a colder machine, so the two take turns in it.
fn in_turns(
    round: usize,
    base: impl FnOnce() -> Result<Duration, Error>,
    own: impl FnOnce() -> Result<Duration, Error>,
) -> Result<(Duration, Duration), Error> {
    if round.is_multiple_of(2) {
        let base = base()?;
        return Ok((base, own()?));
    }
    let own = own()?;
    Ok((base()?, own))
}

/// So many ADDs at once, several times.
struct Burst {
    size: usize,
    /// How many leases there are.
    present: usize,
    rounds: usize,
}

impl Burst {
    fn measure(&self, reference: &Candidate, ours: &Candidate) -> Result<Pairs, Error> {
        let mut pairs = Pairs::of(format!("{} ADD at once, at {} leases", self.size, self.present));
        let all = |candidate: &Candidate, verb: &str| {
            let start = Instant::now();
            let children: Vec<Child> = (0..self.size)
                .map(|number| candidate.start(verb, &format!("burst{number}")))
                .collect::<Result<_, _>>()?;
            children.into_iter().try_for_each(|child| candidate.end(verb, child))?;
            Ok::<_, Error>(start.elapsed())
        };
        for round in 0..self.rounds {
            let (base, own) = in_turns(round, || all(reference, "ADD"), || all(ours, "ADD"))?;
            pairs.push(base, own);
            in_turns(round, || all(reference, "DEL"), || all(ours, "DEL"))?;
        }
        Ok(pairs)
    }
}
