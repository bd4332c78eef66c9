//! What a plugin is: five verbs, each with the request it gets.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::{Attachment, CniArgs, CniError, CniResult, Environment, NetConf, ValidAttachment};

/// A CNI plugin. Every verb must be answered: there are no defaults, so none succeeds by silence.
pub trait Plugin {
    /// The plugin's own errors; the conversion chooses code, message and details.
    type Error: Into<CniError>;

    /// One line for somebody who runs the executable by hand: name, version and purpose.
    fn about(&self) -> String;

    /// Joins a container to the network, or changes what an earlier plugin of the chain made.
    ///
    /// # Errors
    /// Whatever keeps the attachment from working; nothing may be left behind then.
    fn add(&self, request: &AddRequest) -> Result<CniResult, Self::Error>;

    /// Undoes an ADD, as far as anything of it is still there.
    ///
    /// # Errors
    /// Only what a later DEL could still mend.
    fn del(&self, request: &DelRequest) -> Result<(), Self::Error>;

    /// Compares what ADD made with what is there now.
    ///
    /// # Errors
    /// The differences.
    fn check(&self, request: &CheckRequest) -> Result<(), Self::Error>;

    /// Removes what belongs to no valid attachment of the network.
    ///
    /// # Errors
    /// Everything that could not be removed, after all else was.
    fn gc(&self, request: &GcRequest) -> Result<(), Self::Error>;

    /// Tells whether an ADD would be served now.
    ///
    /// # Errors
    /// Code 50 or 51 with the reason.
    fn status(&self, request: &StatusRequest) -> Result<(), Self::Error>;
}

/// ADD: all parameters are there.
#[derive(Debug, Clone)]
pub struct AddRequest {
    /// What is to be made.
    pub attachment: Attachment,
    /// `CNI_NETNS`: a path to a network namespace; not yet opened.
    pub netns: PathBuf,
    /// `CNI_ARGS`.
    pub args: CniArgs,
    /// The network config from standard input.
    pub config: NetConf,
    /// All environment variables; delegates inherit them.
    pub environment: Environment,
}

/// DEL: the namespace may be gone, and so may `prevResult`.
#[derive(Debug, Clone)]
pub struct DelRequest {
    /// What is to be ended.
    pub attachment: Attachment,
    /// `CNI_NETNS`, unless missing or empty.
    pub netns: Option<PathBuf>,
    /// `CNI_ARGS`.
    pub args: CniArgs,
    /// The network config from standard input.
    pub config: NetConf,
    /// All environment variables; delegates inherit them.
    pub environment: Environment,
}

/// CHECK: as ADD, and `prevResult` is there.
#[derive(Debug, Clone)]
pub struct CheckRequest {
    /// What is to be checked.
    pub attachment: Attachment,
    /// `CNI_NETNS`.
    pub netns: PathBuf,
    /// `CNI_ARGS`.
    pub args: CniArgs,
    /// The final result of the chain's ADD.
    pub prev_result: CniResult,
    /// The network config from standard input.
    pub config: NetConf,
    /// All environment variables; delegates inherit them.
    pub environment: Environment,
}

/// GC: no container parameters.
#[derive(Debug, Clone)]
pub struct GcRequest {
    /// What must stay.
    pub valid: ValidAttachments,
    /// The network config from standard input.
    pub config: NetConf,
    /// All environment variables; delegates inherit them.
    pub environment: Environment,
}

/// STATUS: no container parameters.
#[derive(Debug, Clone)]
pub struct StatusRequest {
    /// The network config from standard input.
    pub config: NetConf,
    /// All environment variables; delegates inherit them.
    pub environment: Environment,
}

/// `cni.dev/valid-attachments`, or its early name `cni.dev/attachments`. A config with neither key is
/// refused before the plugin sees it: a missing list is not an empty one. `null` and `[]` are empty.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ValidAttachments(pub BTreeSet<ValidAttachment>);

impl ValidAttachments {
    /// Whether this attachment must stay. Attachments of other networks are never GC's business.
    #[must_use]
    pub fn contains(&self, attachment: &Attachment) -> bool {
        let entry =
            ValidAttachment { container_id: attachment.container_id.clone(), ifname: attachment.ifname.clone() };
        self.0.contains(&entry)
    }
}
