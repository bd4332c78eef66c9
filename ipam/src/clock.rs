//! Time as leases need it: wall time for people, `CLOCK_BOOTTIME` for arithmetic, and which boot it is.

use std::fs;

use jiff::Timestamp;
use nix::time::ClockId;

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
    fn names_differ_and_the_boot_does_not() {
        assert_ne!(unique_name().unwrap(), unique_name().unwrap());
        assert_eq!(boot_id().unwrap(), boot_id().unwrap());
        assert_eq!(boot_id().unwrap().len(), 36);
    }
}
