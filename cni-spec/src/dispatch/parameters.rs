//! The parameters in the environment (spec section 2, "Parameters").

use std::path::PathBuf;
use std::str::FromStr;

use super::verb::Verb;
use crate::id::IdError;
use crate::{CniArgs, CniError, ContainerId, Environment, ErrorCode, IfName};

/// What identifies the container, and the pairs that come with it.
#[derive(Debug)]
pub(super) struct Container {
    pub(super) container_id: ContainerId,
    pub(super) ifname: IfName,
    pub(super) args: CniArgs,
}

/// For ADD and CHECK: the namespace must be given.
pub(super) fn with_netns(verb: Verb, environment: &Environment) -> Result<(Container, PathBuf), CniError> {
    let mut reader = Reader::new(environment);
    let container_id = reader.identifier("CNI_CONTAINERID");
    let netns = reader.required("CNI_NETNS").then(|| netns(environment)).flatten();
    let args = reader.args();
    match (reader.container(container_id, args), netns) {
        (Some(container), Some(netns)) if reader.problems.is_empty() => Ok((container, netns)),
        _ => Err(reader.into_error(verb)),
    }
}

/// For DEL: the namespace may be gone.
pub(super) fn without_netns(verb: Verb, environment: &Environment) -> Result<(Container, Option<PathBuf>), CniError> {
    let mut reader = Reader::new(environment);
    let container_id = reader.identifier("CNI_CONTAINERID");
    // An ADD with unreadable pairs was refused; its DEL has to end all the same.
    let args = environment.get("CNI_ARGS").and_then(|text| text.to_str()?.parse().ok()).unwrap_or_default();
    match reader.container(container_id, Some(args)) {
        Some(container) if reader.problems.is_empty() => Ok((container, netns(environment))),
        _ => Err(reader.into_error(verb)),
    }
}

/// For GC, which is about no container: delegates must be found all the same.
pub(super) fn path_only(verb: Verb, environment: &Environment) -> Result<(), CniError> {
    let mut reader = Reader::new(environment);
    if reader.required("CNI_PATH") { Ok(()) } else { Err(reader.into_error(verb)) }
}

fn netns(environment: &Environment) -> Option<PathBuf> {
    environment.get("CNI_NETNS").map(PathBuf::from)
}

/// Reads variables and collects everything that is wrong, for one message (spec section 5, code 4).
struct Reader<'a> {
    environment: &'a Environment,
    problems: Vec<String>,
}

impl<'a> Reader<'a> {
    fn new(environment: &'a Environment) -> Self {
        Self { environment, problems: Vec::new() }
    }

    /// The rest of what every container verb needs.
    fn container(&mut self, container_id: Option<ContainerId>, args: Option<CniArgs>) -> Option<Container> {
        let ifname = self.identifier("CNI_IFNAME");
        self.required("CNI_PATH");
        Some(Container { container_id: container_id?, ifname: ifname?, args: args? })
    }

    fn required(&mut self, name: &str) -> bool {
        let there = self.environment.get(name).is_some();
        if !there {
            self.problems.push(format!("{name} is missing or empty"));
        }
        there
    }

    fn identifier<T: FromStr<Err = IdError>>(&mut self, name: &str) -> Option<T> {
        if !self.required(name) {
            return None;
        }
        let text = self.text(name)?;
        text.parse().map_err(|error: IdError| self.problems.push(format!("{name}={text:?} {}", error.reason()))).ok()
    }

    fn args(&mut self) -> Option<CniArgs> {
        if self.environment.get("CNI_ARGS").is_none() {
            return Some(CniArgs::default());
        }
        let text = self.text("CNI_ARGS")?;
        text.parse().map_err(|bad_pair| self.problems.push(format!("CNI_ARGS={text:?}: {bad_pair}"))).ok()
    }

    fn text(&mut self, name: &str) -> Option<&'a str> {
        let value = self.environment.get(name)?;
        let text = value.to_str();
        if text.is_none() {
            self.problems.push(format!("{name}={value:?} is not UTF-8"));
        }
        text
    }

    fn into_error(self, verb: Verb) -> CniError {
        let problems = self.problems.join("; ");
        CniError::new(ErrorCode::InvalidEnvironment, format!("invalid environment for {}: {problems}", verb.as_str()))
    }
}
