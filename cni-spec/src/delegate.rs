//! Running another plugin (spec section 4, "Plugin Delegation").

use crate::{CniResult, Environment, SpecVersion};

mod error;
mod exec;
mod find;

pub use error::DelegateError;
pub use exec::exec;

/// Runs delegates with this plugin's environment. Each method sets `CNI_COMMAND` to its own verb, so that
/// an ADD that fails can undo its delegate's part with DEL; all else is passed on as it is.
#[derive(Debug, Clone, Copy)]
pub struct Delegate<'a> {
    environment: &'a Environment,
}

impl<'a> Delegate<'a> {
    /// Delegates are looked for in this environment's `CNI_PATH`.
    #[must_use]
    pub fn new(environment: &'a Environment) -> Self {
        Self { environment }
    }

    /// ADD. `config` is the complete network config; `version` is its `cniVersion`, which the result may
    /// leave out. After a failure the caller should run [`Delegate::del`], whatever the reason (spec section 4).
    ///
    /// # Errors
    /// [`DelegateError::Failed`] if the delegate says so; the other variants if it could not be run or
    /// understood.
    pub fn add(&self, plugin_type: &str, config: &[u8], version: SpecVersion) -> Result<CniResult, DelegateError> {
        let program = find::find(plugin_type, self.environment)?;
        let output = exec(&program, &self.environment.clone().with("CNI_COMMAND", "ADD"), config)?;
        let json = serde_json::from_slice(&output).map_err(|source| error::bad_output(&program, &output, source))?;
        CniResult::from_json(&json, version).map_err(|source| DelegateError::BadResult { program, source })
    }

    /// DEL.
    ///
    /// # Errors
    /// As [`Delegate::add`].
    pub fn del(&self, plugin_type: &str, config: &[u8]) -> Result<(), DelegateError> {
        self.run("DEL", plugin_type, config)
    }

    /// CHECK.
    ///
    /// # Errors
    /// As [`Delegate::add`].
    pub fn check(&self, plugin_type: &str, config: &[u8]) -> Result<(), DelegateError> {
        self.run("CHECK", plugin_type, config)
    }

    /// GC.
    ///
    /// # Errors
    /// As [`Delegate::add`].
    pub fn gc(&self, plugin_type: &str, config: &[u8]) -> Result<(), DelegateError> {
        self.run("GC", plugin_type, config)
    }

    /// STATUS.
    ///
    /// # Errors
    /// As [`Delegate::add`].
    pub fn status(&self, plugin_type: &str, config: &[u8]) -> Result<(), DelegateError> {
        self.run("STATUS", plugin_type, config)
    }

    fn run(&self, verb: &str, plugin_type: &str, config: &[u8]) -> Result<(), DelegateError> {
        let program = find::find(plugin_type, self.environment)?;
        exec(&program, &self.environment.clone().with("CNI_COMMAND", verb), config).map(drop)
    }
}
