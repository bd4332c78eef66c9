//! Other calls at the same time. A mistake that shows when two calls meet waits until they have met, so that it does not
//! depend on who is quick.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// How long a call waits for another: longer than the busiest of machines needs to start it.
const PATIENCE: Duration = Duration::from_secs(10);

/// Which of those that meet this call is.
#[derive(Debug, PartialEq, Eq)]
pub enum Meeting {
    /// The first, who has waited for the second, or in vain.
    First,
    /// A later one.
    Second,
}

/// Where the suite does not look.
fn mark(name: &str) -> PathBuf {
    PathBuf::from(format!("/run/netns/.{name}"))
}

fn wait_for(path: &Path) -> bool {
    let deadline = Instant::now() + PATIENCE;
    while !path.exists() {
        if Instant::now() > deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(2));
    }
    true
}

/// Meets another call that has come to the same place.
pub fn meet(name: &str) -> Meeting {
    let (first, second) = (mark(name), mark(&format!("{name}.met")));
    if fs::create_dir(&first).is_err() {
        let _ = fs::create_dir(&second);
        return Meeting::Second;
    }
    let _ = fs::remove_dir(&second);
    wait_for(&second);
    let _ = fs::remove_dir(&second);
    let _ = fs::remove_dir(&first);
    Meeting::First
}

/// Says that a call is at work until it ends, which is not before somebody has heard.
pub fn announce(name: &str) -> Option<Announcement> {
    let path = mark(name);
    fs::create_dir(&path).ok()?;
    wait_for(&mark(&format!("{name}.met")));
    Some(Announcement(path))
}

/// Whether such a call is at work. Who has once waited in vain does not wait again.
pub fn hears(name: &str) -> bool {
    let in_vain = mark(&format!("{name}.not"));
    let heard = mark(name).exists() || (!in_vain.exists() && wait_for(&mark(name)));
    let _ = fs::create_dir(if heard { mark(&format!("{name}.met")) } else { in_vain });
    heard
}

/// A call at work.
pub struct Announcement(PathBuf);

impl Drop for Announcement {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

/// Whether there are so many pods that other calls must be on their way.
pub fn is_crowded() -> bool {
    fs::read_dir("/run/netns").is_ok_and(|all| all.count() > 6)
}
