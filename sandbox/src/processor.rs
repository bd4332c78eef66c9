//! What is sent from one processor keeps its order.

use nix::sched::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};
use nix::unistd::Pid;

/// The calling thread.
const THIS_THREAD: Pid = Pid::from_raw(0);

/// Runs `work` without moving from one processor to another.
///
/// Each processor has a queue of its own for packets that come out of a veth pair (`enqueue_to_backlog`, net/core/dev.c), so
/// what a thread sends from two processors may arrive in another order than it was sent in. What is sent from one does not:
/// when the last packet is there, those before it are there too, or have been dropped.
///
/// # Panics
/// If the kernel does not let the thread choose among its own processors.
#[expect(clippy::expect_used, reason = "a test fails by panicking")]
pub fn on_one_processor<T>(work: impl FnOnce() -> T) -> T {
    let before = sched_getaffinity(THIS_THREAD).expect("the thread is there");
    let mut here = CpuSet::new();
    here.set(sched_getcpu().expect("it runs somewhere")).expect("a processor's number");
    sched_setaffinity(THIS_THREAD, &here).expect("its own processor is one that it may use");
    let result = work();
    sched_setaffinity(THIS_THREAD, &before).expect("it had them before");
    result
}
