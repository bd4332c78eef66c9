//! Programs of the target that run beside its plugin.

use std::process::Stdio;
use std::time::{Duration, Instant};

use super::{Host, processes};
use crate::verdict::{Finding, Verdict};

impl Host {
    /// Gets ready for calls: adopts orphans, makes the suite's own folder, starts the target's daemons.
    ///
    /// # Errors
    /// Trouble if a step fails, or a daemon is not ready in time.
    pub fn start(&self) -> Verdict {
        let trouble = |what: &str, error: String| Finding::Trouble(format!("cannot {what}: {error}"));
        processes::adopt_orphans().map_err(|error| trouble("adopt orphans", error.to_string()))?;
        crate::spy::install().map_err(|error| trouble("install the recording IPAM plugin", error.to_string()))?;
        // A node has addresses of its own, from which it asks its pods.
        let own = ["198.18.0.1/32", "2001:db8:ffff::1/128"].map(|own| format!("address replace {own} dev lo"));
        super::pod::tool_batch(&[], &own)?;
        if !self.target.prepare.is_empty() {
            super::pod::tool_batch(&[], &self.target.prepare)?;
        }
        for daemon in &self.target.daemons {
            let path = self.dirs.iter().map(|dir| dir.join(&daemon.program)).find(|path| path.is_file());
            let path = path.ok_or_else(|| trouble("find", daemon.program.clone()))?;
            let mut command = sandbox::command(&path);
            command.args(&daemon.args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            let child = command.spawn().map_err(|error| trouble("start", format!("{}: {error}", daemon.program)))?;
            if let Ok(mut daemons) = self.daemons.lock() {
                daemons.push(child);
            }
            let deadline = Instant::now() + Duration::from_secs(20);
            while !daemon.ready.exists() {
                if Instant::now() > deadline {
                    return Err(trouble("wait for", format!("{}", daemon.ready.display())));
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        Ok(())
    }

    /// Leaves for another private host, on which nothing has ever been attached. Namespaces of pods stay behind.
    ///
    /// # Errors
    /// Trouble if it cannot be entered, or made ready as by [`start`](Self::start).
    pub fn anew(&self) -> Verdict {
        self.stop();
        let deadline = Instant::now() + Duration::from_secs(20);
        // The threads that read a program's streams end a moment after it.
        while let Err(error) = sandbox::enter() {
            if !matches!(error, sandbox::SandboxError::Threads { .. }) || Instant::now() > deadline {
                return Err(Finding::Trouble(format!("cannot enter another private host: {error}")));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        self.start()
    }

    /// Ends the daemons and everything that plugins left.
    pub fn stop(&self) {
        let daemons = self.daemons.lock().map(|mut all| std::mem::take(&mut *all)).unwrap_or_default();
        for mut daemon in daemons {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
        processes::kill_orphans(&[]);
    }
}
