//! Why a command failed.

use std::io;
use std::path::PathBuf;

/// One variant per step.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A program could not be started.
    #[error("failed to start {program:?}")]
    Start {
        /// Its name.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A program did not succeed.
    #[error("`{command}` failed: {status}")]
    Failed {
        /// The command line.
        command: String,
        /// How it ended.
        status: std::process::ExitStatus,
    },
    /// A file could not be read or written.
    #[error("failed to {action} {path:?}")]
    File {
        /// read, write, copy...
        action: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The private host could not be made.
    #[error("cannot leave the machine's namespaces")]
    Sandbox(#[source] sandbox::SandboxError),
    /// Something of the private host could not be made.
    #[error("cannot set up the private host")]
    Kernel(#[source] kernel::Error),
    /// `rustc -vV` did not name the host.
    #[error("`rustc -vV` names no host")]
    NoHost,
    /// Debian packages are missing and cannot be installed by this user.
    #[error("missing programs: run `{0}` and try again")]
    Packages(String),
    /// Programs are missing where there is no apt-get(8).
    #[error("missing programs: {0}; install them and try again")]
    Missing(String),
    /// This user may not do it.
    #[error("{0}; try again with sudo -E env \"PATH=$PATH\" cargo xtask ...")]
    Hindered(String),
    /// A program printed something that is not the JSON it promised.
    #[error("`{command}` printed no JSON")]
    Json {
        /// The command line.
        command: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A target of ours lists a known deviation.
    #[error("{0:?} lists deviations: ours are to have none")]
    Deviates(PathBuf),
    /// The archive is not what it is said to be.
    #[error("the archive is not whole:\n{0}")]
    Archive(String),
    /// A benchmark did not print what it measures.
    #[error("`{command}` printed nothing of {missing}:\n{printed}")]
    Bench {
        /// The command line.
        command: String,
        /// What was looked for.
        missing: String,
        /// What it printed.
        printed: String,
    },
    /// Steps of a test run failed.
    #[error("failed: {failed}; each says why where it stands above")]
    Steps {
        /// Their names.
        failed: String,
    },
    /// The machine's own network is not as it was.
    #[error("the machine's own network changed:\n{0}")]
    MachineChanged(String),
}
