//! Asks the cases, each in a process of its own, several at a time.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::cases::Case;
use crate::error::Error;
use crate::host::{Profile, exec};
use crate::inside::{Task, Told};
use crate::target::{Kind, Target};
use crate::verdict::{Finding, Outcome, left_behind};

/// How to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Folders with plugins, before the target's own.
    pub dirs: Vec<PathBuf>,
    /// How many cases at a time.
    pub jobs: usize,
    /// How long one case may take.
    pub limit: Duration,
    /// At how many system calls, at most, a plugin is killed.
    pub points: usize,
    /// This executable, or one with the same commands.
    pub program: PathBuf,
}

/// One case's line in a report.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// The case's id.
    pub id: &'static str,
    /// Its title.
    pub title: &'static str,
    /// Its topic.
    pub topic: &'static str,
    /// What came of it.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// Its duration in milliseconds.
    pub milliseconds: u64,
    /// The plugin calls, when it failed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub calls: Vec<String>,
    /// What else was worth telling, such as at how many places the plugin was killed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// What the target says about this case, if it is a known deviation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub known: Option<String>,
}

/// What came of one target.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The target's name.
    pub target: String,
    /// What it is.
    pub about: String,
    /// What it is for.
    pub kind: &'static str,
    /// The spec versions that were used.
    pub versions: Vec<String>,
    /// Why the plugin could not be tried, if so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// Why no question was put to it, if so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unasked: Option<String>,
    /// A line for each case.
    pub rows: Vec<Row>,
    /// How long it all took, in seconds.
    pub seconds: f64,
}

impl Report {
    /// Of a target that was tried and not asked.
    #[must_use]
    pub fn unasked(target: &Target, profile: &Profile, why: String) -> Self {
        Self {
            target: target.name.clone(),
            about: target.about.clone(),
            kind: target.kind.word(),
            versions: profile.versions.clone(),
            trouble: profile.trouble.clone(),
            unasked: Some(why),
            rows: Vec::new(),
            seconds: 0.0,
        }
    }

    /// How many rows have this word.
    #[must_use]
    pub fn count(&self, word: &str) -> usize {
        self.rows.iter().filter(|row| row.outcome.word() == word).count()
    }

    /// Whether something speaks against the plugin.
    #[must_use]
    pub fn has_failures(&self) -> bool {
        self.rows.iter().any(|row| row.outcome.is_failure())
    }

    /// Whether the suite could not do its part: a case could not be asked, or a first ADD and DEL did not work, by which it is
    /// known what the plugin keeps for itself, and without which passing means little.
    #[must_use]
    pub fn has_trouble(&self) -> bool {
        self.trouble.is_some()
            || self.unasked.is_some()
            || self.rows.iter().any(|row| matches!(row.outcome, Outcome::Trouble(_)))
    }
}

/// Asks these cases of the target. `progress` hears of each as it ends.
///
/// # Errors
/// If the plugin's executables are not there, or the private host cannot be made at all.
pub fn run(
    target: &Target,
    cases: &[&'static Case],
    options: &Options,
    progress: &(dyn Fn(&Row) + Sync),
) -> Result<Report, Error> {
    let profile = profile(target, options)?;
    run_with(target, &profile, cases, options, progress)
}

/// Tries the target's plugin once: its versions, and what it keeps for itself.
///
/// # Errors
/// If its executables are not there, or the private host cannot be made at all.
pub fn profile(target: &Target, options: &Options) -> Result<Profile, Error> {
    profile_by(target, options, "eth0")
}

/// Why it would tell little to ask a plugin that was tried: its first ADD or DEL failed, or it is for something else than its
/// target says. Then most questions fail for the same reason. What it seems to be for is tried out. Whoever has `chosen`
/// questions is only told of another kind. No objection is a VERSION that does not work, of which the cases tell, and what
/// the suite itself could not do.
///
/// # Errors
/// If the private host cannot be made at all.
pub fn objection(target: &Target, first: &Profile, options: &Options, chosen: bool) -> Result<Option<String>, Error> {
    let other = |kind: &Kind| *kind != target.kind;
    if first.trouble.is_none() {
        return Ok(first.looks_like.filter(other).map(seems));
    }
    if !first.is_refused {
        return Ok(None);
    }
    // A main plugin and an IPAM plugin are called alike.
    let kind = if target.kind == Kind::Chained { Kind::Main } else { Kind::Chained };
    let tried = match profile(&Target { kind, ..target.clone() }, options) {
        // A plugin of another kind may lack what that one needs.
        Err(Error::NoPlugin { .. } | Error::Invalid { .. }) => Profile::default(),
        tried => tried?,
    };
    let found = tried.looks_like.filter(|kind| tried.trouble.is_none() && other(kind));
    let alike = "without these two, most questions fail for this reason; --filter asks some of them";
    Ok(found.map(seems).or_else(|| (!chosen).then(|| alike.to_owned())))
}

fn seems(kind: Kind) -> String {
    let (word, sign) = match kind {
        Kind::Main => ("main", "its ADD makes the interface itself"),
        Kind::Chained => {
            ("chained", "its ADD and DEL work with the prevResult of a plugin before it, and only with that")
        }
        Kind::Ipam => ("ipam", "its ADD gives addresses and makes no interface"),
    };
    format!(
        "it seems to be a plugin of another kind, as {sign}: try --kind {word}, or kind = {word:?} in its target file"
    )
}

/// The same with an interface of this name.
///
/// # Errors
/// As [`profile`].
pub fn profile_by(target: &Target, options: &Options, ifname: &str) -> Result<Profile, Error> {
    let task = Task { ifname: ifname.to_owned(), ..task(target, Profile::default(), options)? };
    let profile = tell(&task, options)?.profile.unwrap_or_default();
    let missing: Vec<_> =
        target.versions.iter().filter(|version| !profile.supported.contains(version)).map(String::as_str).collect();
    // Of a plugin whose VERSION does not work, the cases tell.
    if profile.supported.is_empty() || missing.is_empty() {
        return Ok(profile);
    }
    let why = format!("the plugin supports spec versions {}, not {}", profile.supported.join(" "), missing.join(" "));
    Err(Error::Invalid { what: target.name.clone(), why })
}

fn task(target: &Target, profile: Profile, options: &Options) -> Result<Task, Error> {
    let dirs: Vec<_> = options.dirs.iter().chain(&target.dirs).cloned().collect();
    for index in 0..target.plugins.len() {
        executable(target.plugin_type(index), &dirs)?;
    }
    if let Some(ipam) = target.ipam_type().filter(|ipam| target.kind == Kind::Main && !ipam.is_empty()) {
        executable(ipam, &dirs)?;
    }
    Ok(Task { target: target.clone(), dirs, profile, case: None, ifname: String::new(), points: options.points })
}

/// The same as [`run`] for a target that has been tried.
///
/// # Errors
/// If the plugin's executables are not there.
pub fn run_with(
    target: &Target,
    profile: &Profile,
    cases: &[&'static Case],
    options: &Options,
    progress: &(dyn Fn(&Row) + Sync),
) -> Result<Report, Error> {
    let start = Instant::now();
    let task = task(target, profile.clone(), options)?;
    let (next, rows) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..options.jobs.max(1) {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let row = row(&task, case, options);
                    progress(&row);
                    if let Ok(mut rows) = rows.lock() {
                        rows.push(row);
                    }
                }
            });
        }
    });
    let mut rows = rows.into_inner().unwrap_or_default();
    rows.sort_by_key(|row| cases.iter().position(|case| case.id == row.id));
    Ok(Report {
        target: target.name.clone(),
        about: target.about.clone(),
        kind: target.kind.word(),
        versions: task.profile.versions.clone(),
        trouble: task.profile.trouble.clone(),
        unasked: None,
        rows,
        seconds: start.elapsed().as_secs_f64(),
    })
}

/// Where a plugin is; the private host covers `/run` and `/var/lib`.
///
/// # Errors
/// If it is in none of the folders.
pub fn executable(plugin: &str, dirs: &[PathBuf]) -> Result<PathBuf, Error> {
    let covered = |dir: &Path| dir.starts_with("/run") || dir.starts_with("/var/lib") || dir.starts_with("/var/run");
    let found = dirs.iter().filter(|dir| !covered(dir)).map(|dir| dir.join(plugin)).find(|path| path.is_file());
    found.ok_or_else(|| Error::NoPlugin {
        plugin: plugin.to_owned(),
        dirs: dirs.iter().map(|dir| dir.display().to_string()).collect(),
    })
}

fn row(task: &Task, case: &'static Case, options: &Options) -> Row {
    let start = Instant::now();
    let target = &task.target;
    let told = if let Some(reason) = case.not_for(target, &task.profile) {
        Told::only(Outcome::Skipped(reason))
    } else {
        let task = Task { case: Some(case.id.to_owned()), ifname: case.ifname(), ..task.clone() };
        tell(&task, options).unwrap_or_else(|error| Told::only(Outcome::Trouble(error.chain())))
    };
    let known = target.deviation(case.id).or_else(|| match &told.outcome {
        Outcome::Residue(lines) => target.known_residue(lines),
        _ => None,
    });
    let certain = known.is_some_and(|known| !known.sometimes);
    let known = known.map(|known| format!("{} ({})", known.why, known.source));
    let outcome = match told.outcome {
        Outcome::Passed if !certain => Outcome::Passed,
        outcome => judge(outcome, known.is_some()),
    };
    let calls = if outcome.is_failure() { told.calls } else { Vec::new() };
    let milliseconds = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
    Row { id: case.id, title: case.title, topic: case.topic, outcome, milliseconds, calls, notes: told.notes, known }
}

/// A known deviation is expected to be seen: a list that has become wrong must not stay.
fn judge(outcome: Outcome, known: bool) -> Outcome {
    match outcome {
        Outcome::Failed(why) if known => Outcome::Deviates(why),
        Outcome::Residue(lines) if known => Outcome::Deviates(left_behind(&lines)),
        Outcome::Passed if known => Outcome::Failed("listed as a known deviation, but it passes".to_owned()),
        outcome => outcome,
    }
}

/// Runs one task in a process of its own.
fn tell(task: &Task, options: &Options) -> Result<Told, Error> {
    let input = serde_json::to_vec(task).map_err(Error::Encode)?;
    let mut command = sandbox::command(&options.program);
    command.arg("inside");
    let finished = match exec::run(&mut command, &input, options.limit) {
        Ok(finished) => finished,
        Err(Finding::Failed(_)) => {
            let why = format!("the case had not ended after {} s", options.limit.as_secs());
            let outcome = Outcome::Failed(why);
            return Ok(Told::only(outcome));
        }
        Err(Finding::Skipped(why) | Finding::Trouble(why)) => return Err(Error::Host(why)),
    };
    if !finished.status.success() {
        let text = String::from_utf8_lossy(&finished.stderr);
        return Err(Error::Host(format!("{}: {}", finished.ending(), text.trim())));
    }
    serde_json::from_slice(&finished.stdout).map_err(Error::Encode)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_deviation_that_passes_is_a_failure() {
        assert_eq!(judge(Outcome::Failed("x".into()), true), Outcome::Deviates("x".into()));
        assert!(judge(Outcome::Passed, true).is_failure());
        assert_eq!(judge(Outcome::Passed, false), Outcome::Passed);
    }
}
