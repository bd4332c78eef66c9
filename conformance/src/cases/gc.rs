//! GC: what is no longer valid goes, what is valid stays.

use serde_json::{Value, json};

use super::{ADDRESSING, ANY, cases, nothing_is_left};
use crate::host::Host;
use crate::host::call::Call;
use crate::host::pod::Pod;
use crate::target::Object;
use crate::verdict::{Verdict, ensure, skip};

cases! { "gc":
    "GC-1a" since "1.1.0" in "2, GC" for ANY => stale_things_go,
        "GC removes what belongs to attachments that are not valid",
        "A plugin SHOULD remove as many stale resources as possible.",
        "ADD of two containers, one's namespace is removed, GC with the other as valid, DEL of the other; the host must be as before.";
    "GC-1b" since "1.1.0" in "2, GC" for ADDRESSING => stale_addresses_come_back,
        "GC gives stale addresses back",
        "A plugin should remove any IPAM reservations associated with attachments not in the provided list.",
        "A small pool is used up, all namespaces are removed, GC with no valid attachment; ADD must work again, for as many.";
    "GC-1c" since "1.1.0" in "2, GC" for ANY => valid_things_stay,
        "GC leaves what is valid",
        "cni.dev/valid-attachments: The list of still valid attachments to this network.",
        "ADD, GC with that attachment as valid; CHECK must succeed, and the host be as before GC.";
    "GC-1d" since "1.1.0" in "2, GC" for ADDRESSING => valid_addresses_stay,
        "GC leaves valid reservations",
        "cni.dev/valid-attachments: The list of still valid attachments to this network.",
        "ADD, GC with that attachment as valid; other containers must not get its addresses.";
    "GC-1e" since "1.1.0" in "2, GC" for ADDRESSING => interface_counts,
        "GC tells the interfaces of one container apart",
        "ifname: the value of CNI_IFNAME as provided during the CNI ADD operation.",
        "ADD of eth0 of as many containers as a small pool has, GC with the same ids and net1 as valid; ADD must work again.";
    "GC-3" since "1.1.0" in "2, GC" for ANY => nothing_to_do,
        "GC of a network that nothing is attached to succeeds",
        "Plugins should generally complete a GC action without error.",
        "GC on a host that the plugin has never run on; it must succeed.";
    "GC-5a" since "1.1.0" in "2, GC" for ANY => few_variables,
        "GC needs CNI_COMMAND and CNI_PATH only",
        "Required environment parameters: CNI_COMMAND, CNI_PATH.",
        "GC with no other CNI_* variable set; it must succeed.";
    "GC-5b" since "1.1.0" in "2, GC" for ANY => prints_nothing,
        "GC prints nothing when all went well",
        "Output: No output on success.",
        "ADD, GC; stdout must be empty.";
    "GC-7a" since "1.1.0" in "2, GC" for ANY => standard_key_alone,
        "The key cni.dev/valid-attachments is enough",
        "cni.dev/valid-attachments: The list of still valid attachments to this network.",
        "ADD, GC with that key only; CHECK must succeed.";
    "GC-8a" since "1.1.0" in "practice: libcni leaves both keys out if the runtime gives it none" for ANY => without_a_list,
        "GC without a list removes nothing",
        "The runtime must provide an additional key; cni.dev/valid-attachments.",
        "ADD, GC without the key; whatever it answers, CHECK must succeed afterwards.";
    "GC-8b" since "1.1.0" in "practice: CRI-O sends null for an empty list" for ANY => null_list,
        "A list that is null does no harm",
        "cni.dev/valid-attachments (array of objects).",
        "GC with \"cni.dev/valid-attachments\": null on a host with nothing attached; it must succeed.";
    "GC-8c" since "1.1.0" in "2, GC" for ANY => strangers_in_the_list,
        "Unknown attachments in the list do no harm",
        "cni.dev/valid-attachments: The list of still valid attachments to this network.",
        "ADD, GC with that attachment and one of another plugin as valid; it must succeed, and CHECK too.";
    "GC-10" since "1.1.0" in "practice: GC came with 1.1.0" for ANY => older_config,
        "GC with a config before 1.1.0 has code 1",
        "1: Incompatible CNI version.",
        "GC with a config of 1.0.0; it must fail with code 1.";
    "GC-11" since "1.1.0" in "2, GC" for ADDRESSING => other_network_stays,
        "GC of one network leaves the other's attachments",
        "The GC command provides a way for runtimes to specify the expected set of attachments to a network.",
        "ADD, GC of another network with no valid attachment; other containers must not get the first's addresses.";
    "GC-12" since "1.1.0" in "2, GC" for ANY => twice,
        "A second GC succeeds",
        "Plugins should generally complete a GC action without error.",
        "ADD, the namespace is removed, GC twice with no valid attachment; both must succeed and nothing be left.";
    "GC-13" since "1.1.0" in "2, GC" for ANY => del_after_gc,
        "DEL after GC succeeds",
        "Plugins MUST accept multiple DEL calls, and return success if the interface in question, or any modifications added, are missing.",
        "ADD, the namespace is removed, GC with no valid attachment, DEL; it must succeed.";
    "GC-14" since "1.1.0" in "5, Error" for ANY => bad_config,
        "GC with a config that is not JSON fails",
        "6: Failed to decode content.",
        "GC with such a config; it must fail with an error object.";
}

fn attached(host: &Host) -> Verdict<(Pod, Value)> {
    let pod = super::busy_pod(host)?;
    let result = host.attach(&pod)?;
    Ok((pod, result))
}

fn gc<'h>(host: &'h Host, valid: &[(&str, &str)]) -> Call<'h> {
    let valid: Vec<_> = valid.iter().map(|(id, ifname)| json!({ "containerID": id, "ifname": ifname })).collect();
    let call = host.call("GC").key("cni.dev/valid-attachments", json!(valid)).key("cni.dev/attachments", json!(valid));
    // As libcni does, which sets what a GC does not need to nothing.
    ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS"].iter().fold(call, |call, key| call.env(key, ""))
}

fn stale_things_go(host: &Host) -> Verdict {
    let stale = super::busy_pod(host)?;
    host.attach(&stale)?;
    let valid = super::busy(host, host.pod()?, 1);
    let result = host.attach(&valid)?;
    stale.remove_namespace()?;
    host.collect(&[&valid])?;
    host.detach(&valid, Some(&result))?;
    nothing_is_left(host)
}

fn small(host: &Host) -> Verdict<&Object> {
    match &host.target.small_pool {
        Some(patch) => Ok(patch),
        None => skip!("the target file has no small_pool"),
    }
}

/// Attaches until the pool is empty; at most 40.
pub(super) fn fill(host: &Host, patch: &Object) -> Verdict<Vec<Pod>> {
    let mut pods = Vec::new();
    for _ in 0..40 {
        let pod = host.pod()?;
        if !host.call_for("ADD", &pod).merge(patch).run()?.succeeded() {
            ensure!(!pods.is_empty(), "not even the first ADD succeeded");
            return Ok(pods);
        }
        pods.push(pod);
    }
    crate::verdict::fail!("the small pool has not run out after 40 ADDs")
}

fn stale_addresses_come_back(host: &Host) -> Verdict {
    let patch = small(host)?;
    let pods = fill(host, patch)?;
    for pod in &pods {
        pod.remove_namespace()?;
    }
    gc(host, &[]).merge(patch).run()?.success()?;
    for number in 1..=pods.len() {
        let what = format!("ADD {number} of {} after GC", pods.len());
        host.attach_with(&host.pod()?, patch).map_err(|finding| finding.during(&what))?;
    }
    Ok(())
}

fn valid_things_stay(host: &Host) -> Verdict {
    let (pod, result) = attached(host)?;
    let before = host.attached_traces()?;
    host.collect(&[&pod])?;
    let after = host.attached_traces()?;
    ensure!(before == after, "before GC: {before:?}; after: {after:?}");
    host.check(&pod, &result)
}

fn valid_addresses_stay(host: &Host) -> Verdict {
    let pod = host.pod()?;
    let result = host.attach_with(&pod, &super::del::small_if_any(host))?;
    host.collect(&[&pod])?;
    super::del::nobody_else_gets(host, &result)
}

fn interface_counts(host: &Host) -> Verdict {
    let patch = small(host)?;
    let pods = fill(host, patch)?;
    for pod in &pods {
        pod.remove_namespace()?;
    }
    let valid: Vec<_> = pods.iter().map(|pod| (pod.id.as_str(), "net1")).collect();
    gc(host, &valid).merge(patch).run()?.success()?;
    host.attach_with(&host.pod()?, patch).map(drop)
}

fn nothing_to_do(host: &Host) -> Verdict {
    gc(host, &[]).run()?.success().map(drop)
}

fn few_variables(host: &Host) -> Verdict {
    let (pod, _) = attached(host)?;
    let call = gc(host, &[(&pod.id, &pod.ifname)]);
    let keys = ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS"];
    keys.iter().fold(call, |call, key| call.without_env(key)).run()?.success().map(drop)
}

fn prints_nothing(host: &Host) -> Verdict {
    let (pod, _) = attached(host)?;
    let answer = gc(host, &[(&pod.id, &pod.ifname)]).run()?;
    answer.success()?;
    ensure!(answer.text().is_empty(), "stdout has: {}", answer.text());
    Ok(())
}

fn standard_key_alone(host: &Host) -> Verdict {
    let (pod, result) = attached(host)?;
    gc(host, &[(&pod.id, &pod.ifname)]).without_key("cni.dev/attachments").run()?.success()?;
    host.check(&pod, &result)
}

fn without_a_list(host: &Host) -> Verdict {
    let (pod, result) = attached(host)?;
    host.call("GC").run()?;
    host.settle()?;
    host.check(&pod, &result)
}

fn null_list(host: &Host) -> Verdict {
    let null = gc(host, &[]).key("cni.dev/valid-attachments", Value::Null).key("cni.dev/attachments", Value::Null);
    null.run()?.success().map(drop)
}

fn strangers_in_the_list(host: &Host) -> Verdict {
    let (pod, result) = attached(host)?;
    gc(host, &[("somebody-elses", "net7"), (&pod.id, &pod.ifname)]).run()?.success()?;
    host.check(&pod, &result)
}

fn older_config(host: &Host) -> Verdict {
    super::protocol::coded(&gc(host, &[]).version("1.0.0").run()?, &[1])
}

fn other_network_stays(host: &Host) -> Verdict {
    let result = host.attach_with(&host.pod()?, &super::del::small_if_any(host))?;
    gc(host, &[]).key("name", json!(crate::host::OTHER_NETWORK)).run()?.success()?;
    super::del::nobody_else_gets(host, &result)
}

fn twice(host: &Host) -> Verdict {
    let (pod, _) = attached(host)?;
    pod.remove_namespace()?;
    host.collect(&[])?;
    host.collect(&[])?;
    nothing_is_left(host)
}

fn del_after_gc(host: &Host) -> Verdict {
    let (pod, result) = attached(host)?;
    pod.remove_namespace()?;
    host.collect(&[])?;
    host.detach(&pod, Some(&result))
}

fn bad_config(host: &Host) -> Verdict {
    super::sorry(&host.call("GC").stdin("{ not json").run()?).map(drop)
}
