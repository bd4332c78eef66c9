//! What is played with each runtime, from the first pod to the comparison after the last.

mod ctr;
mod kubelet;
mod podman;

use std::fs;
use std::io::Write;
use std::path::Path;

use podwire_examples::proof::Outcome;
use podwire_examples::report::Report;

use crate::calls::{self, Habit};
use crate::error::Error;
use crate::image;
use crate::mounts::{KEPT, RECORD};
use crate::node::{Node, Running};
use crate::programs::Programs;

pub use self::ctr::ctr;
pub use self::kubelet::kubelet;
pub use self::podman::podman;

/// What every play has.
pub struct Play<'a> {
    /// The node that it is played on.
    pub node: Node,
    /// The runtimes' programs.
    pub programs: Programs,
    /// The parent of all control groups.
    pub cgroup_parent: String,
    report: Report,
    out: &'a mut dyn Write,
}

impl<'a> Play<'a> {
    /// Builds the node and the image.
    ///
    /// # Errors
    /// If either does not work.
    pub fn set_up(
        plugin_dir: &Path,
        programs: Programs,
        cgroup_parent: String,
        out: &'a mut dyn Write,
    ) -> Result<Self, Error> {
        image::write(&plugin_dir.join(image::PROGRAM), &archive())?;
        Ok(Self { node: Node::build()?, programs, cgroup_parent, report: Report::default(), out })
    }

    /// A line for people.
    ///
    /// # Errors
    /// If nobody reads.
    pub fn say(&mut self, line: &str) -> Result<(), Error> {
        writeln!(self.out, "{line}").and_then(|()| self.out.flush()).map_err(Error::Print)
    }

    /// Lines that can pass or fail.
    ///
    /// # Errors
    /// If nobody reads.
    pub fn section(&mut self, title: &str, outcomes: Vec<Outcome>) -> Result<(), Error> {
        self.report.section(self.out, title, &outcomes).map_err(Error::Print)?;
        self.report.outcomes.extend(outcomes);
        self.out.flush().map_err(Error::Print)
    }

    /// What was sent for these pods, against what is known of the runtime.
    ///
    /// # Errors
    /// If it was not written down.
    pub fn calls(&mut self, running: &[Running], habit: Habit) -> Result<(), Error> {
        let record = fs::read_to_string(RECORD).map_err(Error::file("read", RECORD))?;
        self.section("what the runtime sent", calls::compare(&record, running, habit))
    }

    /// The last line; whether every line is ok.
    ///
    /// # Errors
    /// If nobody reads.
    pub fn verdict(self) -> Result<bool, Error> {
        self.report.verdict(self.out).map_err(Error::Print)?;
        Ok(self.report.failed().next().is_none())
    }
}

/// Where the image is.
#[must_use]
pub fn archive() -> std::path::PathBuf {
    Path::new(KEPT).join("image.tar")
}
