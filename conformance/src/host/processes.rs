//! Processes that outlive the plugin that started them. The case's process is their reaper (`PR_SET_CHILD_SUBREAPER`).

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::exec::RUNNING;
use crate::verdict::{Finding, Verdict};

/// Makes this process the parent of all orphans below it.
pub fn adopt_orphans() -> nix::Result<()> {
    nix::sys::prctl::set_child_subreaper(true)
}

/// Waits until no child is left but those in `known`. While other threads run programs there is nothing to wait for: their
/// children are not orphans, and the last of them will look.
pub fn wait_for_orphans(known: &[u32], deadline: Instant) -> Verdict {
    loop {
        let Ok(alone) = RUNNING.try_write() else { return Ok(()) };
        let left = unknown_children(known);
        drop(alone);
        if left.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            for (pid, _) in &left {
                let _ = kill(*pid, Signal::SIGKILL);
            }
            let names: Vec<_> = left.into_iter().map(|(_, name)| name).collect();
            return Err(Finding::Failed(format!("processes of the plugin are still there: {}", names.join(", "))));
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// Ends everything that is still there.
pub fn kill_orphans(known: &[u32]) {
    for (pid, _) in unknown_children(known) {
        let _ = kill(pid, Signal::SIGKILL);
    }
}

/// Living children with their names; those that have ended are reaped.
fn unknown_children(known: &[u32]) -> Vec<(Pid, String)> {
    if known.is_empty()
        && matches!(waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)), Err(nix::errno::Errno::ECHILD))
    {
        return Vec::new();
    }
    let own = std::process::id();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        let Some((name, parent)) = name_and_parent(&stat) else { continue };
        if parent != own || known.contains(&pid) {
            continue;
        }
        let Ok(raw) = i32::try_from(pid) else { continue };
        let gone = waitpid(Pid::from_raw(raw), Some(WaitPidFlag::WNOHANG));
        if matches!(gone, Ok(WaitStatus::StillAlive)) {
            found.push((Pid::from_raw(raw), name));
        }
    }
    found
}

/// Fields 2 and 4 of proc_pid_stat(5).
fn name_and_parent(stat: &str) -> Option<(String, u32)> {
    let (before, after) = stat.rsplit_once(')')?;
    let name = before.split_once('(')?.1.to_owned();
    let parent = after.split_whitespace().nth(1)?.parse().ok()?;
    Some((name, parent))
}
