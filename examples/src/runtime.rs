//! What a container runtime does with a list: libcni's behaviour, without libcni.
//!
//! The order of calls, what stands on each plugin's standard input and in its environment, and what is
//! kept between calls follow libcni (`libcni/api.go`) and spec section 3, so that a chain which works here
//! works under containerd and CRI-O. Plugins run one at a time in the caller's network namespace.

mod cache;
mod error;
pub mod stdin;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use cni_spec::{CniResult, ContainerId, Environment, IfName, SpecVersion, ValidAttachment, delegate};
use serde_json::{Map, Value};

use self::cache::Cache;
pub use self::error::{ErrorList, RuntimeError, chain};
use crate::conflist::{Conflist, PluginConf};

/// The parameters of one attachment; every call for it gets the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// `CNI_CONTAINERID`.
    pub id: ContainerId,
    /// `CNI_NETNS`; empty once the namespace is gone.
    pub netns: PathBuf,
    /// `CNI_IFNAME`.
    pub ifname: IfName,
    /// `CNI_ARGS`, in order.
    pub args: Vec<(String, String)>,
    /// What the runtime can fill into `runtimeConfig`, by capability.
    pub capability_args: BTreeMap<String, Value>,
}

/// One run of one plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// `type`.
    pub plugin: String,
    /// From before the process was started until it had ended.
    pub took: Duration,
}

/// What ADD gave.
#[derive(Debug, Clone, PartialEq)]
pub struct Added {
    /// The last plugin's result.
    pub result: CniResult,
    /// The plugins that ran, in order.
    pub calls: Vec<Call>,
}

/// A runtime: where plugins are found and results kept.
#[derive(Debug)]
pub struct Runtime {
    plugin_path: Vec<PathBuf>,
    cache: Cache,
    environment: Environment,
}

impl Runtime {
    /// `plugin_path` becomes `CNI_PATH`; results are kept in `cache_dir`/results, `/var/lib/cni` with libcni.
    /// Plugins inherit `environment`.
    #[must_use]
    pub fn new(plugin_path: Vec<PathBuf>, cache_dir: PathBuf, environment: Environment) -> Self {
        Self { plugin_path, cache: Cache::new(cache_dir), environment }
    }

    /// Where an executable of that name is in the plugin path.
    ///
    /// # Errors
    /// If no folder of the path has it.
    pub fn find(&self, name: &str) -> Result<PathBuf, RuntimeError> {
        let mut candidates = self.plugin_path.iter().map(|folder| folder.join(name));
        candidates
            .find(|path| path.is_file())
            .ok_or_else(|| RuntimeError::NotFound { plugin: name.to_owned(), path: self.plugin_path.clone() })
    }

    /// ADD for every plugin in order, each with the previous one's result; the last result is kept.
    ///
    /// # Errors
    /// The first plugin that fails; those before it are *not* undone: the caller owes a [`Runtime::del`].
    pub fn add(&self, list: &Conflist, container: &Container) -> Result<Added, RuntimeError> {
        let mut calls = Vec::new();
        let mut previous: Option<(CniResult, Value)> = None;
        for plugin in &list.plugins {
            let stdin = stdin::for_container(list, plugin, container, previous.as_ref().map(|(_, json)| json));
            let started = Instant::now();
            let stdout = self.run("ADD", plugin, Some(container), &stdin)?;
            calls.push(Call { plugin: plugin.plugin_type.clone(), took: started.elapsed() });
            previous = Some(read_result(list.version, plugin, &stdout)?);
        }
        let (result, json) = previous.ok_or_else(|| RuntimeError::NoPlugins(list.name.to_string()))?;
        self.cache.store(list, container, &json)?;
        Ok(Added { result, calls })
    }

    /// ADD; if it fails, DEL right after it, as every runtime does for a sandbox that did not come up.
    ///
    /// # Errors
    /// As [`Runtime::add`], together with what DEL failed with.
    pub fn attach(&self, list: &Conflist, container: &Container) -> Result<Added, RuntimeError> {
        self.add(list, container).map_err(|add| match self.del(list, container) {
            Ok(_) => add,
            Err(del) => RuntimeError::AddAndDel { add: Box::new(add), del: Box::new(del) },
        })
    }

    /// CHECK for every plugin in order, with the kept result.
    ///
    /// # Errors
    /// The first plugin that fails, or if the list's version is older than 0.4.0.
    pub fn check(&self, list: &Conflist, container: &Container) -> Result<Vec<Call>, RuntimeError> {
        if list.version < SpecVersion::V0_4_0 {
            return Err(RuntimeError::CheckUnsupported(list.version));
        }
        if list.disable_check {
            return Ok(Vec::new());
        }
        let cached = self.cache.result(list, container)?;
        let plugins = list.plugins.iter();
        plugins.map(|plugin| self.call("CHECK", list, plugin, container, cached.as_ref())).collect()
    }

    /// DEL for every plugin in reverse order, with the kept result if the list's version is at least
    /// 0.4.0; then the result is forgotten.
    ///
    /// # Errors
    /// The first plugin that fails: those before it in the list are then not run, and a later DEL may
    /// try again.
    pub fn del(&self, list: &Conflist, container: &Container) -> Result<Vec<Call>, RuntimeError> {
        let cached = if list.version >= SpecVersion::V0_4_0 { self.cache.result(list, container)? } else { None };
        let plugins = list.plugins.iter().rev();
        let calls = plugins
            .map(|plugin| self.call("DEL", list, plugin, container, cached.as_ref()))
            .collect::<Result<Vec<_>, _>>()?;
        self.cache.forget(list, container)?;
        Ok(calls)
    }

    /// DEL for every kept attachment of the network that is not in `valid`, then, from 1.1.0 on, GC for
    /// every plugin.
    ///
    /// # Errors
    /// Everything that failed, after all was tried.
    pub fn gc(&self, list: &Conflist, valid: &[ValidAttachment]) -> Result<(), ErrorList> {
        if list.disable_gc {
            return Ok(());
        }
        let mut errors = Vec::new();
        match self.cache.containers(list) {
            Ok(cached) => {
                let is_valid = |container: &Container| {
                    valid.iter().any(|v| v.container_id == container.id && v.ifname == container.ifname)
                };
                let stale = cached.into_iter().filter(|container| !is_valid(container));
                errors.extend(stale.filter_map(|container| self.del(list, &container).err()));
            }
            Err(error) => errors.push(error),
        }
        if list.version >= SpecVersion::V1_1_0 {
            let run = |plugin| self.run("GC", plugin, None, &stdin::for_gc(list, plugin, valid)).err();
            errors.extend(list.plugins.iter().filter_map(run));
        }
        if errors.is_empty() { Ok(()) } else { Err(ErrorList(errors)) }
    }

    /// STATUS for every plugin, from 1.1.0 on; older lists are always ready.
    ///
    /// # Errors
    /// The first plugin that is not ready.
    pub fn status(&self, list: &Conflist) -> Result<(), RuntimeError> {
        if list.version < SpecVersion::V1_1_0 {
            return Ok(());
        }
        let mut plugins = list.plugins.iter();
        plugins.try_for_each(|plugin| self.run("STATUS", plugin, None, &stdin::for_status(list, plugin)).map(drop))
    }

    fn call(
        &self,
        verb: &'static str,
        list: &Conflist,
        plugin: &PluginConf,
        container: &Container,
        cached: Option<&Value>,
    ) -> Result<Call, RuntimeError> {
        let stdin = stdin::for_container(list, plugin, container, cached);
        let started = Instant::now();
        self.run(verb, plugin, Some(container), &stdin)?;
        Ok(Call { plugin: plugin.plugin_type.clone(), took: started.elapsed() })
    }

    fn run(
        &self,
        verb: &'static str,
        plugin: &PluginConf,
        container: Option<&Container>,
        stdin: &Map<String, Value>,
    ) -> Result<Vec<u8>, RuntimeError> {
        let program = self.find(&plugin.plugin_type)?;
        let stdin = serde_json::to_vec(stdin).map_err(|source| RuntimeError::Encode { source })?;
        delegate::exec(&program, &self.variables(verb, container), &stdin).map_err(|source| RuntimeError::Plugin {
            plugin: plugin.plugin_type.clone(),
            verb,
            source: Box::new(source),
        })
    }

    /// All six `CNI_*` are always set; without a container its four are empty, as libcni leaves them.
    fn variables(&self, verb: &str, container: Option<&Container>) -> Environment {
        let text = |of: fn(&Container) -> OsString| container.map(of).unwrap_or_default();
        let pairs = |c: &Container| {
            let pairs: Vec<String> = c.args.iter().map(|(key, value)| format!("{key}={value}")).collect();
            pairs.join(";").into()
        };
        let folders: Vec<_> = self.plugin_path.iter().map(|folder| folder.as_os_str()).collect();
        self.environment
            .clone()
            .with("CNI_COMMAND", verb)
            .with("CNI_CONTAINERID", text(|c| c.id.as_str().into()))
            .with("CNI_NETNS", text(|c| c.netns.clone().into()))
            .with("CNI_IFNAME", text(|c| c.ifname.as_str().into()))
            .with("CNI_ARGS", text(pairs))
            .with("CNI_PATH", folders.join(std::ffi::OsStr::new(":")))
    }
}

/// A result may leave its version out: it is the list's then. What goes to the next plugin is in the list's
/// version, whatever this one answered in.
fn read_result(version: SpecVersion, plugin: &PluginConf, stdout: &[u8]) -> Result<(CniResult, Value), RuntimeError> {
    let plugin = || plugin.plugin_type.clone();
    let json: Value =
        serde_json::from_slice(stdout).map_err(|source| RuntimeError::NotJson { plugin: plugin(), source })?;
    let result =
        CniResult::from_json(&json, version).map_err(|source| RuntimeError::BadResult { plugin: plugin(), source })?;
    let json = result.to_json(version).map_err(|source| RuntimeError::BadResult { plugin: plugin(), source })?;
    Ok((result, json))
}
