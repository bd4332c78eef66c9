//! One case in a process of its own, on a private host.

use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::cases;
use crate::error::Error;
use crate::host::pod::Pod;
use crate::host::{Host, Profile, shape};
use crate::target::{Kind, Target};
use crate::verdict::{Finding, Outcome, Verdict};

/// What the process is to do; it reads this from stdin.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Task {
    /// What is judged.
    pub target: Target,
    /// Where its executables are.
    pub dirs: Vec<PathBuf>,
    /// What is known about it.
    pub profile: Profile,
    /// The case to ask; without one, the plugin is only tried, which fills the profile.
    pub case: Option<String>,
    /// How the pods' interfaces are called.
    pub ifname: String,
    /// At how many system calls, at most, a plugin is killed.
    pub points: usize,
}

/// What it found; it prints this on stdout.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Told {
    /// The case's outcome.
    pub outcome: Outcome,
    /// What was left behind, whatever the outcome.
    pub residue: Vec<String>,
    /// The plugin calls that the case made.
    pub calls: Vec<String>,
    /// What else was worth telling.
    #[serde(default)]
    pub notes: Vec<String>,
    /// From the first call to the last look, in milliseconds.
    pub milliseconds: u64,
    /// The filled profile, when the plugin was only tried.
    pub profile: Option<Profile>,
}

impl Told {
    /// An outcome about which there is nothing more to tell.
    #[must_use]
    pub fn only(outcome: Outcome) -> Self {
        let (residue, calls, notes) = (Vec::new(), Vec::new(), Vec::new());
        Self { outcome, residue, calls, notes, milliseconds: 0, profile: None }
    }
}

/// Does what stdin says, inside.
///
/// # Errors
/// If stdin is no task, or the private host cannot be entered.
pub fn run() -> Result<Told, Error> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).map_err(Error::Child)?;
    let task: Task = serde_json::from_str(&text).map_err(Error::Encode)?;
    sandbox::enter()?;
    let mut host = Host::new(task.target, task.dirs, task.profile, task.points);
    host.ifname = task.ifname;
    if let Err(Finding::Failed(why) | Finding::Skipped(why) | Finding::Trouble(why)) = host.start() {
        return Err(Error::Host(why));
    }
    let told = match task.case {
        Some(id) => ask(&host, &id)?,
        None => get_to_know(host)?,
    };
    Ok(told)
}

fn ask(host: &Host, id: &str) -> Result<Told, Error> {
    let case = cases::find(id).ok_or_else(|| Error::NoCase(id.to_owned()))?;
    let start = Instant::now();
    let verdict = catch_unwind(AssertUnwindSafe(|| (case.run)(host))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(Finding::Failed(format!("the case panicked: {}", text.unwrap_or_default())))
    });
    let calls = host.transcript();
    host.clean_up();
    // What has failed is not waited for.
    let left = if verdict.is_ok() { host.residue() } else { host.attached_traces() };
    let residue = match left {
        Ok(lines) => lines,
        Err(Finding::Failed(why) | Finding::Skipped(why) | Finding::Trouble(why)) => vec![why],
    };
    host.stop();
    let milliseconds = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
    let outcome = match Outcome::from(verdict) {
        Outcome::Passed if !residue.is_empty() => Outcome::Residue(residue.clone()),
        outcome => outcome,
    };
    Ok(Told { outcome, residue, calls, notes: host.notes(), milliseconds, profile: None })
}

/// Asks for the versions, and attaches and detaches once to see what the plugin keeps for itself.
fn get_to_know(mut host: Host) -> Result<Told, Error> {
    let start = Instant::now();
    let wanted = host.target.versions.clone();
    let mut profile = Profile { versions: wanted.clone(), ..Profile::default() };
    let verdict = supported(&host).map(|said| {
        profile.supported.clone_from(&said);
        profile.versions = shape::VERSIONS
            .iter()
            .map(|version| (*version).to_owned())
            .filter(|version| said.contains(version) && (wanted.is_empty() || wanted.contains(version)))
            .collect();
    });
    host.profile = profile.clone();
    let is_tried = verdict.is_ok();
    let verdict = verdict.and_then(|()| attach_once(&host));
    let calls = host.transcript();
    host.clean_up();
    if let Err(Finding::Failed(why) | Finding::Skipped(why) | Finding::Trouble(why)) = &verdict {
        let did = if is_tried { "did not work" } else { "were not made" };
        profile.trouble = Some(format!("a first ADD and DEL {did}: {why}"));
        profile.is_refused = is_tried && matches!(verdict, Err(Finding::Failed(_)));
    }
    let (mentions, looks_like) = verdict.as_ref().cloned().unwrap_or_default();
    profile.looks_like = looks_like;
    let seen = host.settle().and_then(|()| host.observe());
    let lines = seen.map_err(|finding| Error::Host(format!("{finding:?}")))?;
    profile.frame = lines.into_iter().filter(|(line, _)| !mentions.iter().any(|word| line.contains(word))).collect();
    host.stop();
    let milliseconds = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
    let outcome = Outcome::from(verdict.map(drop));
    Ok(Told { outcome, residue: Vec::new(), calls, notes: Vec::new(), milliseconds, profile: Some(profile) })
}

fn supported(host: &Host) -> Verdict<Vec<String>> {
    let answer = host.call("VERSION").key("cniVersion", serde_json::json!("1.0.0")).run()?.result()?;
    let said: Vec<_> =
        shape::list(&answer, "supportedVersions").iter().filter_map(|v| v.as_str()).map(str::to_owned).collect();
    if said.is_empty() {
        return Err(Finding::Failed(format!("VERSION names no versions: {answer}")));
    }
    Ok(said)
}

/// Words by which traces of the attachment are told from what belongs to the plugin, and what the plugin seems to be for.
fn attach_once(host: &Host) -> Verdict<(Vec<String>, Option<Kind>)> {
    let pod = cases::busy_pod_called(host, "suite-trial")?;
    let result = host.attach(&pod)?;
    let looks_like = looks_like(&pod, &result)?;
    host.detach(&pod, Some(&result))?;
    let mut words = vec![pod.id.clone()];
    // The interface that the suite made for the trial is gone with it, and so must be what names it.
    words.extend(pod.scaffold.as_ref().map(|made| shape::text(&made["interfaces"][0], "name").to_owned()));
    words.extend(shape::bare_addresses(&result));
    let own = shape::list(&result, "interfaces").iter().filter(|link| shape::text(link, "sandbox").is_empty());
    let links: Vec<String> = own.map(|link| shape::text(link, "name").to_owned()).collect();
    // An interface that stays, such as a bridge, belongs to the plugin.
    let present = crate::host::observe::link_names()?;
    words.extend(links.into_iter().filter(|name| !name.is_empty() && !present.contains(name)));
    Ok((words, looks_like))
}

/// What a plugin is for that has just answered ADD. A result by itself tells too little: it may be wrong.
fn looks_like(pod: &Pod, result: &Value) -> Verdict<Option<Kind>> {
    let given: Vec<String> = pod.scaffold.iter().flat_map(shape::bare_addresses).collect();
    let gives_addresses = shape::bare_addresses(result).iter().any(|address| !given.contains(address));
    let names_interfaces = !shape::list(result, "interfaces").is_empty();
    Ok(match pod.scaffold {
        // Who was given interfaces and has addresses of its own without any did not look at them.
        Some(_) if gives_addresses && !names_interfaces => Some(Kind::Ipam),
        Some(_) => Some(Kind::Chained),
        None if pod.link()?.is_some() => Some(Kind::Main),
        None => (gives_addresses && !names_interfaces).then_some(Kind::Ipam),
    })
}
