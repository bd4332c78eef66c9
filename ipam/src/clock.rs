//! Time as leases need it: wall time for people, `CLOCK_BOOTTIME` for arithmetic, and which boot it is.

use std::fs;
use std::io;

use jiff::Timestamp;
use nix::time::ClockId;
use nix::unistd::{SysconfVar, sysconf};

use crate::Error;

/// A moment on both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment {
    pub wall: Timestamp,
    /// Milliseconds of `CLOCK_BOOTTIME`, which neither jumps nor stops while the machine sleeps
    /// (clock_gettime(2)). Means something during one boot only.
    pub boottime: u64,
}

impl Moment {
    pub fn now() -> Result<Self, Error> {
        let boottime = ClockId::CLOCK_BOOTTIME.now().map_err(|errno| Error::Clock(errno.into()))?;
        let whole = u64::try_from(boottime.tv_sec()).unwrap_or(0).saturating_mul(1000);
        let rest = u64::try_from(boottime.tv_nsec()).unwrap_or(0) / 1_000_000;
        Ok(Self { wall: Timestamp::now(), boottime: whole.saturating_add(rest) })
    }
}

/// The moment at which this process began, in milliseconds of `CLOCK_BOOTTIME`: rather a little later, as the kernel tells
/// it in ticks (proc_pid_stat(5), `starttime`), but not later than now.
pub(crate) fn start_of_this_process() -> Result<u64, Error> {
    const STAT: &str = "/proc/self/stat";
    let started = start_in(&read(STAT)?);
    let started = started.ok_or(Error::Proc { path: STAT, source: io::ErrorKind::InvalidData.into() })?;
    Ok(started.min(Moment::now()?.boottime))
}

fn start_in(stat: &str) -> Option<u64> {
    /// The fields after the name, which is in parentheses and may have any characters.
    const STARTTIME: usize = 22 - 3;
    let (_, after_name) = stat.rsplit_once(") ")?;
    let ticks: u64 = after_name.split(' ').nth(STARTTIME)?.parse().ok()?;
    let a_second = u64::try_from(sysconf(SysconfVar::CLK_TCK).ok()??).ok().filter(|ticks| *ticks > 0)?;
    Some(ticks.saturating_add(1).saturating_mul(1000).div_ceil(a_second))
}

/// Where the kernel tells which boot it is (random(4)).
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// Where the kernel makes up a name at every reading (random(4)).
const UUID: &str = "/proc/sys/kernel/random/uuid";

/// The name of this boot. A lease of another boot is void: no pod survives a reboot.
pub(crate) fn boot_id() -> Result<String, Error> {
    read(BOOT_ID)
}

/// A name that nobody has had.
pub(crate) fn unique_name() -> Result<String, Error> {
    read(UUID)
}

fn read(path: &'static str) -> Result<String, Error> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(text.trim_end().to_owned()),
        Err(source) => Err(Error::Proc { path, source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boottime_clock_is_the_kernels_uptime() {
        let before = Moment::now().unwrap().boottime;
        let uptime = fs::read_to_string("/proc/uptime").unwrap();
        let seconds: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
        let after = Moment::now().unwrap().boottime;
        // /proc/uptime shows hundredths, cut off.
        let shown = (seconds * 1000.0).round();
        assert!(before as f64 - 10.0 <= shown && shown <= after as f64, "{before} <= {shown} <= {after}");
    }

    #[test]
    fn a_process_began_when_its_parent_started_it() {
        let began = start_of_this_process().unwrap();
        assert!(began <= Moment::now().unwrap().boottime);
        assert_eq!(began, start_of_this_process().unwrap(), "always the same");
        let before = Moment::now().unwrap().boottime;
        #[expect(clippy::disallowed_methods, reason = "a child whose start is known")]
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let after = Moment::now().unwrap().boottime;
        let told = fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        let started = start_in(&told).unwrap();
        assert!(before <= started && started <= after + 20, "{before} <= {started} <= {after}");
    }

    #[test]
    fn names_differ_and_the_boot_does_not() {
        assert_ne!(unique_name().unwrap(), unique_name().unwrap());
        assert_eq!(boot_id().unwrap(), boot_id().unwrap());
        assert_eq!(boot_id().unwrap().len(), 36);
    }
}
