//! Opening the engine without being pushed off the processor.
//!
//! The engine starts its worker threads while it opens, and they spin until the opening thread has come far
//! enough. On few processors they take the very time that it needs: 5 to 20 ms instead of 3. A real-time
//! thread is not pushed aside by them, and on one processor they cannot run beside it either.

use nix::libc;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// The calling thread.
const THIS_THREAD: Pid = Pid::from_raw(0);

/// Runs `work` at real-time priority on one processor, then puts both back. Threads that `work` starts inherit
/// the processor but not the priority. Where the kernel refuses either, as it does without CAP_SYS_NICE, `work`
/// runs as it is: slower, otherwise the same.
pub(super) fn hurried<T>(work: impl FnOnce() -> T) -> T {
    let _pinned = Pinned::to_one_processor();
    let _prior = RealTime::enter();
    work()
}

/// Puts the affinity back when dropped.
struct Pinned {
    before: CpuSet,
}

impl Pinned {
    fn to_one_processor() -> Option<Self> {
        let before = sched_getaffinity(THIS_THREAD).ok()?;
        let allowed = (0..CpuSet::count()).filter(|cpu| before.is_set(*cpu).unwrap_or(false));
        // Not this processor if there is another: the thread that started this one works there meanwhile.
        let here = nix::sched::sched_getcpu().ok();
        let cpu = allowed.max_by_key(|cpu| Some(*cpu) != here)?;
        let mut one = CpuSet::new();
        one.set(cpu).ok()?;
        sched_setaffinity(THIS_THREAD, &one).ok()?;
        Some(Self { before })
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let _ = sched_setaffinity(THIS_THREAD, &self.before);
    }
}

/// Puts the scheduling policy back when dropped.
struct RealTime {
    policy: libc::c_int,
    parameters: libc::sched_param,
}

impl RealTime {
    /// `SCHED_FIFO` at the lowest of its priorities, which is above everything ordinary. Threads started
    /// meanwhile are ordinary ones (`SCHED_RESET_ON_FORK`, sched(7)).
    fn enter() -> Option<Self> {
        let (policy, parameters) = current()?;
        let lowest = libc::sched_param { sched_priority: 1 };
        set(libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK, lowest).then_some(Self { policy, parameters })
    }
}

impl Drop for RealTime {
    fn drop(&mut self) {
        // Without privilege the reset flag cannot be taken back, but it was set with privilege.
        let _ = set(self.policy, self.parameters);
    }
}

fn current() -> Option<(libc::c_int, libc::sched_param)> {
    let mut parameters = libc::sched_param { sched_priority: 0 };
    #[expect(unsafe_code, reason = "no safe wrapper knows scheduling policies")]
    // SAFETY: 0 is the calling thread; the kernel writes one sched_param through a pointer that is valid for it.
    let (policy, read) = unsafe { (libc::sched_getscheduler(0), libc::sched_getparam(0, &raw mut parameters)) };
    (policy >= 0 && read == 0).then_some((policy, parameters))
}

fn set(policy: libc::c_int, parameters: libc::sched_param) -> bool {
    #[expect(unsafe_code, reason = "no safe wrapper knows scheduling policies")]
    // SAFETY: 0 is the calling thread; the kernel reads one sched_param through a pointer that is valid for it.
    let result = unsafe { libc::sched_setscheduler(0, policy, &raw const parameters) };
    result == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_put_back() {
        let before = (sched_getaffinity(THIS_THREAD).unwrap(), current().unwrap().0);
        let processors = hurried(|| {
            let allowed = sched_getaffinity(THIS_THREAD).unwrap();
            (0..CpuSet::count()).filter(|cpu| allowed.is_set(*cpu).unwrap()).count()
        });
        assert_eq!(processors, 1);
        let after = (sched_getaffinity(THIS_THREAD).unwrap(), current().unwrap().0);
        assert_eq!(before, after);
    }

    #[test]
    fn threads_started_meanwhile_are_ordinary_ones() {
        let inside = hurried(|| std::thread::spawn(|| current().unwrap().0).join().unwrap());
        assert_eq!(inside, libc::SCHED_OTHER);
    }
}
