//! More machines beside the first, for what takes several.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};

use crate::error::SandboxError;
use crate::isolate::Identity;

type Job = Box<dyn FnOnce() + Send>;

/// A machine of its own inside the sandbox: network, mounts, `/run` and `/var/lib` are its own, as in the sandbox
/// itself. It is a thread that does what it is told; programs that it starts are on that machine too. It ends when this
/// is dropped.
#[derive(Debug)]
pub struct Machine {
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Machine {
    /// Starts one. The process must be in a sandbox already, and stays where it is.
    ///
    /// # Errors
    /// If a step is refused.
    pub fn start() -> Result<Self, SandboxError> {
        let (jobs, waiting) = channel::<Job>();
        let (tell, told) = channel();
        let identity = Identity::of_caller();
        let thread = thread::Builder::new()
            .name("machine".to_owned())
            .spawn(move || {
                let entered = identity.isolate();
                let is_inside = entered.is_ok();
                if tell.send(entered).is_ok() && is_inside {
                    serve(&waiting);
                }
            })
            .map_err(SandboxError::Thread)?;
        match told.recv() {
            Ok(Ok(())) => Ok(Self { jobs: Some(jobs), thread: Some(thread) }),
            Ok(Err((step, source))) => Err(SandboxError::Refused { step, source }),
            Err(_) => Err(SandboxError::MachineEnded),
        }
    }

    /// Does the work on this machine, and waits for it. A panic goes on in the caller.
    ///
    /// # Errors
    /// [`SandboxError::MachineEnded`], which cannot be while this value lives.
    pub fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, SandboxError> {
        let (done, result) = channel();
        let job = Box::new(move || {
            // Nobody waits any more if the caller has panicked.
            let _ = done.send(catch_unwind(AssertUnwindSafe(work)));
        });
        let sent = self.jobs.as_ref().is_some_and(|jobs| jobs.send(job).is_ok());
        match result.recv() {
            Ok(Ok(value)) if sent => Ok(value),
            Ok(Err(panic)) => resume_unwind(panic),
            Ok(Ok(_)) | Err(_) => Err(SandboxError::MachineEnded),
        }
    }
}

fn serve(jobs: &Receiver<Job>) {
    while let Ok(job) = jobs.recv() {
        job();
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.jobs = None;
        // A job's panic went to its caller.
        drop(self.thread.take().map(JoinHandle::join));
    }
}
