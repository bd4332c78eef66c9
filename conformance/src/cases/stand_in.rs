//! Calls with the suite's own IPAM plugin in the place of the target's.

use serde_json::{Value, json};

use crate::host::Host;
use crate::host::call::Call;
use crate::host::pod::Pod;
use crate::spy::{self, Record, Script};
use crate::verdict::{Verdict, skip};

pub(super) fn of_type(name: &str) -> crate::target::Object {
    super::object(json!({ "ipam": { "type": name } }))
}

/// The call with the suite's IPAM plugin in the place of the target's.
pub(super) fn spied<'h>(host: &'h Host, call: Call<'h>) -> Verdict<Call<'h>> {
    if host.target.ipam_type().is_none() {
        skip!("the plugin has no ipam.type");
    }
    let mut path = host.cni_path();
    path.push(":");
    path.push(spy::folder());
    Ok(call.env("CNI_PATH", path).key("ipam", json!({ "type": spy::NAME })))
}

pub(super) fn call<'h>(host: &'h Host, command: &str, pod: &Pod) -> Verdict<Call<'h>> {
    spied(host, host.call_for(command, pod).env("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAME=web"))
}

/// ADD, after which the records are empty.
pub(super) fn attached(host: &Host) -> Verdict<(Pod, Value)> {
    let pod = host.pod()?;
    let result = call(host, "ADD", &pod)?.run()?.result()?;
    spy::records()?;
    Ok((pod, result))
}

pub(super) fn commands(records: &[Record]) -> Vec<String> {
    records.iter().map(|record| record.var("CNI_COMMAND").to_owned()).collect()
}

pub(super) fn failing(code: u64, msg: &str) -> Script {
    let stdout = json!({ "cniVersion": "1.0.0", "code": code, "msg": msg, "details": "because the suite says so" });
    Script { stdout: stdout.to_string(), stderr: String::new(), code: 1 }
}

pub(super) fn answering(result: &Value) -> Script {
    Script { stdout: result.to_string(), ..Script::default() }
}

/// Undoes what a case with the suite's IPAM plugin has attached.
pub(super) fn done(host: &Host, pod: &Pod) -> Verdict {
    spy::script("DEL", &Script::default())?;
    call(host, "DEL", pod)?.run().map(drop)
}
