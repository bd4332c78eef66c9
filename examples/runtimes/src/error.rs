//! What keeps a runtime from being played to its end. A proof that fails is no such error.

use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use podwire_examples::conflist::ConflistError;
use podwire_examples::exchange::Reply;
use podwire_examples::leases::LeasesError;
use podwire_examples::manifest::ManifestError;
use podwire_examples::residue::snapshot::SnapshotError;
use podwire_examples::stage::StageError;

/// One variant per step.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Container runtimes mount, and make control groups.
    #[error("a container runtime needs root of the machine itself: start this with sudo")]
    NotRoot,
    /// A file or folder could not be read, written or made.
    #[error("cannot {action} {}", .path.display())]
    File {
        /// read, write, make...
        action: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A mount was refused.
    #[error("cannot mount {what} on {}", .on.display())]
    Mount {
        /// The type of the file system.
        what: String,
        /// Where.
        on: PathBuf,
        /// What the kernel said.
        #[source]
        source: nix::Error,
    },
    /// A system call that is none of a file.
    #[error("cannot {action}")]
    System {
        /// What it is for.
        action: &'static str,
        /// What the kernel said.
        #[source]
        source: nix::Error,
    },
    /// A new mount would cover what is needed later.
    #[error("{} is below {covered}, which the node has of its own: put it somewhere else", .path.display())]
    Covered {
        /// Where it is.
        path: PathBuf,
        /// What is covered.
        covered: &'static str,
    },
    /// The network and its mounts could not be made private.
    #[error(transparent)]
    Sandbox(#[from] sandbox::SandboxError),
    /// A program could not be started.
    #[error("cannot start {program}")]
    Start {
        /// Which.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A program failed.
    #[error("{command}: {status}\n{output}")]
    Failed {
        /// Its command line.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// What it printed.
        output: String,
    },
    /// A program printed something else than it promises.
    #[error("{command} printed no {what}\n{output}")]
    Printed {
        /// Its command line.
        command: String,
        /// What was looked for.
        what: &'static str,
        /// What it printed.
        output: String,
    },
    /// Something did not come in time.
    #[error("waited {} s for {what}\n{log}", .waited.as_secs())]
    Late {
        /// For what.
        what: String,
        /// How long.
        waited: Duration,
        /// What was seen last, and the end of the runtime's log.
        log: String,
    },
    /// A pod does not answer.
    #[error("waited {} s for {pod} to answer at its own address: {reply}\n{log}", .waited.as_secs())]
    Silent {
        /// Its name.
        pod: String,
        /// How long.
        waited: Duration,
        /// What came back at last.
        reply: Box<Reply>,
        /// What its container wrote.
        log: String,
    },
    /// A remote procedure call could not be made.
    #[error("cannot reach {socket}")]
    Connect {
        /// The runtime's socket.
        socket: String,
        /// Why.
        #[source]
        source: tonic::transport::Error,
    },
    /// The name of a method is no path.
    #[error("no method {0}")]
    Method(String),
    /// The runtime refused a call.
    #[error("{method}: {}", .status.message())]
    Call {
        /// Which.
        method: &'static str,
        /// Why.
        #[source]
        status: Box<tonic::Status>,
    },
    /// The runtime answered without something that it always says.
    #[error("{method} answered without {what}")]
    Answer {
        /// Which call.
        method: &'static str,
        /// What was looked for.
        what: &'static str,
    },
    /// A pod's namespace could not be opened.
    #[error("network namespace of {pod}")]
    Namespace {
        /// Whose.
        pod: String,
        /// Why.
        #[source]
        source: Box<kernel::Error>,
    },
    /// The world around the node.
    #[error(transparent)]
    Stage(#[from] StageError),
    /// The node's state could not be read.
    #[error("cannot compare the node's state")]
    Snapshot(#[from] SnapshotError),
    /// The leases could not be read.
    #[error("cannot list leases")]
    Leases(#[from] LeasesError),
    /// The list that is shipped.
    #[error(transparent)]
    Conflist(#[from] ConflistError),
    /// The pods that are shipped.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// Standard output takes no more.
    #[error("cannot print")]
    Print(#[source] io::Error),
}

impl Error {
    /// For `map_err` of what is done with a file.
    pub fn file(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { action, path, source }
    }
}
