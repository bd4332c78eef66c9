//! The one thread that works on the database.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use cni_spec::CniError;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::sync::{Notify, mpsc, oneshot};

use super::connection::Host;
use crate::Error;
use crate::cli::metrics::Requests;
use crate::ledger::Resident;
use crate::operation::Request;
use crate::wire::Reply;

/// How many requests may wait. More than that wait in the socket's queue.
const WAITING: usize = 1024;

/// A request, and where its answer goes.
pub(super) struct Task {
    pub request: Request,
    pub answer: oneshot::Sender<Reply>,
    /// The connection of a process that asks, and may be killed while it waits.
    pub asker: Option<Arc<OwnedFd>>,
}

impl Task {
    /// Whether nobody waits for the answer any more. The kernel is asked: a process that was killed has been followed
    /// by another, whose requests must find the ledger as if the first had never asked.
    fn is_given_up(&self) -> bool {
        let gone = PollFlags::POLLHUP | PollFlags::POLLERR;
        let hung_up = |asker: &OwnedFd| {
            let mut asked = [PollFd::new(asker.as_fd(), gone)];
            let _ = poll(&mut asked, PollTimeout::ZERO);
            asked[0].revents().is_some_and(|events| events.intersects(gone))
        };
        self.answer.is_closed() || self.asker.as_deref().is_some_and(hung_up)
    }
}

/// What the owner counts.
#[derive(Debug, Default)]
pub(super) struct Counters {
    answered: AtomicU64,
    refused: AtomicU64,
    strangers: AtomicU64,
}

impl Counters {
    pub fn strangers(&self) {
        self.strangers.fetch_add(1, Ordering::Relaxed);
    }

    pub fn read(&self) -> Requests {
        let [answered, refused, strangers] =
            [&self.answered, &self.refused, &self.strangers].map(|counter| counter.load(Ordering::Relaxed));
        Requests { answered, refused, strangers }
    }
}

/// The thread, and the way to it.
pub(super) struct Worker {
    host: Host,
    lost: Arc<Notify>,
    thread: JoinHandle<Option<Error>>,
}

impl Worker {
    pub fn start(mut resident: Resident, conf_dir: &Path) -> io::Result<Self> {
        let (queue, mut tasks) = mpsc::channel::<Task>(WAITING);
        let ledger = Arc::new(resident.ledger().clone());
        let (counters, lost) = (Arc::<Counters>::default(), Arc::<Notify>::default());
        let (counted, end) = (Arc::clone(&counters), Telling(Arc::clone(&lost)));
        let work = move || {
            let _end = end;
            while let Some(task) = tasks.blocking_recv() {
                if let Err(error) = resident.stands() {
                    return Some(error);
                }
                // Whoever asked has gone away: nobody would know of a lease that were made now.
                if task.is_given_up() || resident.is_late(&task.request) {
                    continue;
                }
                let Task { request, answer, .. } = task;
                let reply = match resident.carry_out(&request) {
                    Ok(answered) => {
                        counted.answered.fetch_add(1, Ordering::Relaxed);
                        Reply::Answer(answered)
                    }
                    Err(error) => {
                        counted.refused.fetch_add(1, Ordering::Relaxed);
                        Reply::Refused(CniError::from(error).into())
                    }
                };
                let _ = answer.send(reply);
            }
            None
        };
        let thread = thread::Builder::new().name("ledger".to_owned()).spawn(work)?;
        Ok(Self { host: Host { queue, counters, ledger, conf_dir: conf_dir.into() }, lost, thread })
    }

    /// For a visitor.
    pub fn host(&self) -> Host {
        self.host.clone()
    }

    /// Returns when the ledger cannot be served any longer.
    pub async fn lost(&self) {
        self.lost.notified().await;
    }

    /// Waits until the database is closed, and tells why the thread ended if nobody told it to.
    pub fn stop(self) -> Option<Error> {
        drop(self.host);
        self.thread.join().unwrap_or_else(|_| Some(Error::Serve(io::Error::other("the ledger's thread panicked"))))
    }
}

/// Tells of the thread's end, however it comes.
struct Telling(Arc<Notify>);

impl Drop for Telling {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_panics_is_missed() {
        let lost = Arc::<Notify>::default();
        let end = Telling(Arc::clone(&lost));
        let panicked = thread::spawn(move || {
            let _end = end;
            std::panic::resume_unwind(Box::new("as by the engine, outside of what is sheltered"));
        });
        assert!(panicked.join().is_err());
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(lost.notified());
    }
}
