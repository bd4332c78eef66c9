//! A resident owner that is killed, stays away for a while, and comes again.

use std::fmt;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

use crate::Dice;
use crate::worker::Scene;

/// The owner, if the ledger has one.
#[derive(Default)]
pub struct Owner {
    process: Option<Child>,
    kills: usize,
    answered: u64,
}

impl Owner {
    /// Starts it, unless there is one. Where the file system is full, it may have to come later.
    pub fn start(&mut self, scene: &Scene) {
        if self.process.is_some() {
            return;
        }
        let mut process = sandbox::command(env!("CARGO_BIN_EXE_ipam"));
        process.args(["serve", "--create", "--timeout", "300", "--dir"]).arg(&scene.data_dir);
        let mut child = process.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stderr.as_mut().unwrap()).read_line(&mut line).unwrap();
        if line.starts_with("serving the ledger in ") {
            self.process = Some(child);
        } else {
            child.wait().unwrap();
            assert!(scene.is_full_at_times(), "{line}");
        }
    }

    /// Kills it now and then, or lets it come again.
    pub fn strike(&mut self, scene: &Scene, dice: &mut Dice) {
        match dice.below(12) {
            0 => self.kill(scene),
            1..5 => self.start(scene),
            _ => {}
        }
    }

    pub fn kill(&mut self, scene: &Scene) {
        if let Some(mut owner) = self.process.take() {
            self.answered += answered(scene);
            owner.kill().unwrap();
            owner.wait().unwrap();
            self.kills += 1;
        }
    }

    /// Does something while it stands still: whoever is in a system call when it is told goes on to its end.
    pub fn stopped<T>(&self, work: impl FnOnce() -> T) -> T {
        let pid = self.process.as_ref().map(|owner| Pid::from_raw(i32::try_from(owner.id()).unwrap()));
        if let Some(pid) = pid {
            kill(pid, Signal::SIGSTOP).unwrap();
            let stands = WaitPidFlag::WSTOPPED | WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
            waitid(Id::Pid(pid), stands).unwrap();
        }
        let result = work();
        if let Some(pid) = pid {
            kill(pid, Signal::SIGCONT).unwrap();
        }
        result
    }

    pub fn is_there(&self) -> bool {
        self.process.is_some()
    }

    pub fn was_killed_enough(&self) -> bool {
        self.kills > 20
    }

    /// Fails unless it has answered a good part of what was asked.
    pub fn end(&mut self, scene: &Scene) {
        self.kill(scene);
        let (kills, answered) = (self.kills, self.answered);
        println!("the owner answered {answered} requests and was killed {kills} times");
        assert!(answered > scene.count() / 10, "the owner answered {answered} of {}", scene.count());
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "the owner was killed {} times", self.kills)
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        if let Some(owner) = &mut self.process {
            let _ = owner.kill();
            let _ = owner.wait();
        }
    }
}

/// How many requests the owner has answered, as its metrics say; none if it cannot say just now.
fn answered(scene: &Scene) -> u64 {
    let ask = || {
        let mut stream = UnixStream::connect(scene.data_dir.join("ipam.sock"))?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text).map(|_| text)
    };
    let text: String = ask().unwrap_or_else(|_: std::io::Error| String::new());
    let line = text.lines().find_map(|line| line.strip_prefix("cni_ipam_requests_total{outcome=\"answered\"} "));
    line.and_then(|number| number.parse().ok()).unwrap_or(0)
}
