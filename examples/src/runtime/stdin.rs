//! What each plugin gets on standard input. Pure: a list and the runtime's parameters in, JSON out.

use cni_spec::ValidAttachment;
use serde_json::{Map, Value, json};

use super::Container;
use crate::conflist::{Conflist, PluginConf};

/// ADD, CHECK and DEL: the plugin's own object with `name`, `cniVersion`, the `runtimeConfig` of the
/// capabilities that it declares *and* the runtime has, and `prevResult` if there is one (spec section 3,
/// "Deriving plugin configuration from network configuration").
///
/// `capabilities` stays in: the spec would have it removed, libcni does not.
#[must_use]
pub fn for_container(
    list: &Conflist,
    plugin: &PluginConf,
    container: &Container,
    prev_result: Option<&Value>,
) -> Map<String, Value> {
    let mut json = injected(list, plugin);
    let declared = plugin.capabilities();
    let runtime_config: Map<String, Value> =
        declared.filter_map(|name| Some((name.to_owned(), container.capability_args.get(name)?.clone()))).collect();
    if !runtime_config.is_empty() {
        json.insert("runtimeConfig".to_owned(), Value::Object(runtime_config));
    }
    if let Some(result) = prev_result {
        json.insert("prevResult".to_owned(), result.clone());
    }
    json
}

/// GC: the attachments that must stay, under the spec's key and under the one that early drafts had; libcni
/// sends both.
#[must_use]
pub fn for_gc(list: &Conflist, plugin: &PluginConf, valid: &[ValidAttachment]) -> Map<String, Value> {
    let entry = |attachment: &ValidAttachment| json!({ "containerID": attachment.container_id.as_str(), "ifname": attachment.ifname.as_str() });
    let valid: Value = valid.iter().map(entry).collect();
    let mut json = injected(list, plugin);
    json.insert("cni.dev/valid-attachments".to_owned(), valid.clone());
    json.insert("cni.dev/attachments".to_owned(), valid);
    json
}

/// STATUS: neither a container nor its parameters.
#[must_use]
pub fn for_status(list: &Conflist, plugin: &PluginConf) -> Map<String, Value> {
    injected(list, plugin)
}

fn injected(list: &Conflist, plugin: &PluginConf) -> Map<String, Value> {
    let mut json = plugin.json.clone();
    json.insert("name".to_owned(), Value::from(list.name.as_str()));
    json.insert("cniVersion".to_owned(), Value::from(list.version.as_str()));
    json
}
