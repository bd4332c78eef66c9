//! What can go wrong between two plugins.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use crate::convert::ResultError;
use crate::{CniError, ErrorCode};

/// How much of an output that is no JSON a message shows, in bytes.
const SHOWN: usize = 400;

/// Why a delegate did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum DelegateError {
    /// The type has a path separator or is otherwise no file name: it would escape `CNI_PATH`.
    #[error("plugin type {plugin_type:?} is not a file name")]
    BadType {
        /// The type as configured.
        plugin_type: String,
    },
    /// No folder of `CNI_PATH` has such an executable.
    #[error("no executable {plugin_type:?} in CNI_PATH, searched: {searched}")]
    NotFound {
        /// The type as configured.
        plugin_type: String,
        /// The folders, and what was there instead.
        searched: String,
    },
    /// The executable could not be started.
    #[error("failed to start {program}", program = program.display())]
    Spawn {
        /// The executable.
        program: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The config could not be handed over, or the answer could not be read.
    #[error("failed to talk to {program}", program = program.display())]
    Pipe {
        /// The executable.
        program: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The delegate ran and reported this error.
    #[error(transparent)]
    Failed(CniError),
    /// The delegate failed without an error object on standard output.
    #[error("{program} failed ({status}) and printed no error", program = program.display())]
    Silent {
        /// The executable.
        program: PathBuf,
        /// Its exit status, or the signal that ended it.
        status: ExitStatus,
    },
    /// Standard output is not one JSON document of the right kind.
    #[error("{program} printed no valid JSON: {output:?}", program = program.display())]
    BadOutput {
        /// The executable.
        program: PathBuf,
        /// The beginning of what it printed.
        output: String,
        /// Where reading stopped.
        #[source]
        source: serde_json::Error,
    },
    /// The delegate's result is JSON, but not a result.
    #[error("{program} printed an invalid result", program = program.display())]
    BadResult {
        /// The executable.
        program: PathBuf,
        /// The key and value at fault.
        #[source]
        source: ResultError,
    },
}

impl From<DelegateError> for CniError {
    /// A delegate's own error passes unchanged, code and all (spec section 4).
    fn from(error: DelegateError) -> Self {
        let code = match error {
            DelegateError::Failed(error) => return error,
            DelegateError::BadType { .. } | DelegateError::NotFound { .. } => ErrorCode::InvalidConfig,
            DelegateError::Spawn { .. } | DelegateError::Pipe { .. } => ErrorCode::Io,
            DelegateError::Silent { .. } => ErrorCode::INTERNAL,
            DelegateError::BadOutput { .. } | DelegateError::BadResult { .. } => ErrorCode::Decode,
        };
        Self::from_source(code, &error)
    }
}

/// [`DelegateError::BadOutput`] with the beginning of the output.
pub(super) fn bad_output(program: &Path, output: &[u8], source: serde_json::Error) -> DelegateError {
    let shown = output.get(..SHOWN).unwrap_or(output);
    let output = String::from_utf8_lossy(shown).into_owned();
    DelegateError::BadOutput { program: program.to_owned(), output, source }
}
