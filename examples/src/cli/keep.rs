//! `--keep`: the stage stays until somebody has seen enough.

use std::fs;
use std::io::{self, BufRead, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;

use nix::sys::signal::{SigSet, Signal};

use crate::demo::Demo;
use crate::manifest::Protocol;
use crate::stage::layout;

/// Signals that end the waiting, and the user namespace that the process came from.
pub(super) struct Keep {
    signals: SigSet,
    outside: Option<PathBuf>,
}

impl Keep {
    /// Holds SIGINT and SIGTERM back, in this thread and all that it will start, so that they end the waiting
    /// instead of the process. Programs that are started get them as usual.
    pub(super) fn prepare() -> nix::Result<Self> {
        let mut signals = SigSet::empty();
        signals.add(Signal::SIGINT);
        signals.add(Signal::SIGTERM);
        signals.thread_block()?;
        Ok(Self { signals, outside: user_namespace() })
    }

    /// Tells how to look around, and waits for Enter or a signal.
    pub(super) fn wait(self, demo: &Demo, plugin_path: &[PathBuf], out: &mut dyn Write) -> io::Result<()> {
        self.tour(demo, plugin_path, out)?;
        out.flush()?;
        let (done, wait) = mpsc::channel();
        let by_signal = done.clone();
        thread::Builder::new().name("signals".to_owned()).spawn(move || {
            if self.signals.wait().is_ok() {
                // Nobody listens if Enter came first.
                let _ = by_signal.send(());
            }
        })?;
        thread::Builder::new().name("enter".to_owned()).spawn(move || {
            // The end of standard input is not Enter: it may be /dev/null.
            if io::stdin().lock().read_line(&mut String::new()).is_ok_and(|length| length > 0) {
                let _ = done.send(());
            } else {
                // Dropping the sender would end the waiting as well.
                std::mem::forget(done);
            }
        })?;
        let _ = wait.recv();
        Ok(())
    }

    /// Commands to paste, for another terminal of the same user.
    fn tour(&self, demo: &Demo, plugin_path: &[PathBuf], out: &mut dyn Write) -> io::Result<()> {
        let user = if self.outside == user_namespace() { "" } else { " -U --preserve-credentials" };
        let enter = format!("nsenter -t {}{user} -n -m", std::process::id());
        writeln!(out, "\nlook around, in another terminal; Enter or Ctrl-C here ends it")?;
        writeln!(out, "  {enter}      # a shell on the node")?;
        writeln!(out, "  {enter} ip -br address")?;
        writeln!(out, "  {enter} ip route")?;
        writeln!(out, "  {enter} nft list ruleset")?;
        if let Some(ipam) = plugin_path.iter().map(|folder| folder.join("ipam")).find(|path| path.is_file()) {
            writeln!(out, "  {enter} {} list", ipam.display())?;
        }
        if let Some(port) = demo
            .attached
            .iter()
            .flat_map(|attached| &attached.pod.ports)
            .find_map(|port| port.host_port.filter(|_| port.protocol == Protocol::Tcp && port.host_ip.is_none()))
        {
            let node = layout::addresses(&layout::NODE);
            let node = node.first().map(ToString::to_string).unwrap_or_default();
            writeln!(out, "  {enter} ip netns exec client curl -s http://{node}:{port}/")?;
        }
        for attached in &demo.attached {
            let netns = attached.container.netns.file_name().map(Path::new).unwrap_or(Path::new("")).display();
            writeln!(out, "  {enter} ip netns exec {netns} ip address      # pod {}", attached.pod.name)?;
        }
        Ok(())
    }
}

fn user_namespace() -> Option<PathBuf> {
    fs::read_link("/proc/self/ns/user").ok()
}
